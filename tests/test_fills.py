"""What takes a region's place: who the donors are, and the level that the rest of the brain predicts."""

import dataclasses

import numpy as np
import pytest
from helpers import fills_of, region_means
from sklearn.linear_model import Ridge

from data.cohorts import atlas, records, resampling
from data.cohorts.rows import Metadata, Row
from data.cohorts.stored import open_cohort, write_tables
from data.cohorts.variants import resplit
from utils.blackout import donors as drawing
from utils.blackout import fills
from utils.blackout.options import BlackoutOptions

SITES = {"A": 14, "B": 5}  # training people of each


def blocks() -> atlas.Atlas:
    """Four blocks, numbered with gaps."""
    labels = np.zeros(records.REDUCED.shape, np.int32)
    for at, region in enumerate((2, 3, 7, 9)):
        labels[4 + 5 * at : 7 + 5 * at, 10:13, 10:13] = region
    names = {region: f"region {region}" for region in (2, 3, 7, 9)}
    return atlas.Atlas(labels, names, records.REDUCED, resampling.repeat_blocks(labels), [])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Training people of two sites, one with two records, and a test person of each; region 3 follows region 2."""
    folder, random, rows = tmp_path_factory.mktemp("people"), np.random.default_rng(0), []
    people = [(f"{site}{at}", site, "train") for site, count in SITES.items() for at in range(count)]
    people += [("A1", "A", "train"), ("At", "A", "test"), ("Bt", "B", "test")]
    for number, (subject, site, split) in enumerate(people):
        volume, level = random.normal(-0.4, 0.01, records.REDUCED.shape), random.normal(size=4)
        level[1] = level[0] + 0.1 * level[1]
        for region, value in zip((2, 3, 7, 9), level, strict=True):
            volume[blocks().labels == region] += value
        rows.append(Row(f"{number}.bin", subject, site, float(number % 2), split))
        (folder / rows[-1].file).write_bytes(records.pack(rows[-1].label, np.zeros(29), volume))
    write_tables(folder, rows, Metadata(grid=records.REDUCED.shape))
    return open_cohort(folder)


def filled(cohort, indices, donors=3, seed=0):
    return fills_of(cohort, blocks(), indices, BlackoutOptions(donors=donors), seed)


def drawn(cohort, index, seed, count=3):
    people, row = drawing.people_by_origin(cohort), cohort.rows[index]
    origin = drawing.donor_origin(people, row, count)
    return [cohort.rows[at] for at in drawing.draw(people[origin], row.subject, count, [seed, index])]


def test_donors_are_other_people_of_the_same_site_where_that_has_enough(cohort):
    of_a, of_b = cohort.indices("test")
    found = filled(cohort, [of_a, of_b])
    donors = {index: [cohort.rows[at] for at in positions] for index, positions in found.donors.drawn.items()}
    for rows in donors.values():
        assert len({row.subject for row in rows}) == 3 and {row.split for row in rows} == {"train"}
    assert {row.site for row in donors[of_a]} == {"A"}
    assert found.donors.subjects_of_origin == {("train", "A"): 1, ("train", None): 1} and found.donors.count == 3
    assert {row.site for seed in range(30) for row in drawn(cohort, of_b, seed)} == {"A", "B"}


def test_nobody_is_a_donor_of_who_shares_the_scan(cohort):
    """A group is one person: it gives one donor at most, and none to its own members."""
    of_a = int(cohort.indices("test")[0])
    others = [row.subject for row in cohort.rows if row.site == "A" and row.split == "train"]
    group = (cohort.rows[of_a].subject, others[0])
    tied = dataclasses.replace(cohort, groups=(group, tuple(dict.fromkeys(others[1:3]))))
    for seed in range(30):
        donors = {tied.rows[at].subject for at in filled(tied, [of_a], seed=seed).donors.drawn[of_a]}
        assert donors.isdisjoint(group) and len(donors & set(others[1:3])) < 2


def test_where_a_site_is_left_out_its_tested_people_are_the_donors(cohort):
    """Other sites' regions may differ for reasons that have nothing to do with the person."""
    split = {row.subject: "test" if row.site == "A" else "train" for row in cohort.rows}
    left_out = resplit(cohort, split)
    of_a = int(left_out.indices("test")[0])
    rows = [row for seed in range(10) for row in drawn(left_out, of_a, seed)]
    assert {row.site for row in rows} == {"A"} and left_out.rows[of_a].subject not in {row.subject for row in rows}
    assert filled(left_out, [of_a]).donors.subjects_of_origin == {("test", "A"): 1}


def test_too_few_people_give_fewer_donors(cohort):
    found = filled(cohort, cohort.indices("test"), donors=50)
    assert found.donors.count == 19 and {len(positions) for positions in found.donors.drawn.values()} == {19}


def test_swapped_records_are_no_donors(cohort):
    rows = (*cohort.rows, dataclasses.replace(cohort.rows[0], file="0_swap_0.bin"))
    metadata = dataclasses.replace(cohort.metadata, provenance={"swap": {"regions": 1}})
    entries = (*cohort.entries, cohort.entries[0])
    swapped = dataclasses.replace(cohort, rows=rows, entries=entries, metadata=metadata)
    assert swapped.unswapped() == list(range(len(rows) - 1))


def test_donors_do_not_depend_on_labels_or_on_who_else_is_blacked_out(cohort):
    of_a, of_b = cohort.indices("test")
    alone, together = filled(cohort, [of_b]), filled(cohort, [of_a, of_b])
    assert alone.donors.drawn[of_b].tolist() == together.donors.drawn[of_b].tolist()
    assert filled(cohort, [of_a], seed=1).donors.drawn[of_a].tolist() != together.donors.drawn[of_a].tolist()
    flipped = tuple(dataclasses.replace(row, label=1 - row.label) for row in cohort.rows)
    other = dataclasses.replace(cohort, rows=flipped)
    assert [row.file for row in drawn(other, of_a, 0)] == [row.file for row in drawn(cohort, of_a, 0)]
    share = np.mean([row.label for seed in range(200) for row in drawn(cohort, of_a, seed)])
    assert share == pytest.approx(np.mean([row.label for row in cohort.rows if row.subject[0] == "A"]), abs=0.1)


def test_deviations_are_from_all_whom_the_donors_were_drawn_from(cohort):
    of_a, of_b = cohort.indices("test")
    found = filled(cohort, [of_a, of_b])
    deviations = found.deviations(found.means)
    people = {row.subject: [at for at, other in enumerate(cohort.rows) if other.subject == row.subject]
              for row in cohort.rows if row.split == "train"}  # fmt: skip
    for at, (index, site) in enumerate([(of_a, "A"), (of_b, "")]):
        everybody = np.mean([found.means[own].mean(0) for name, own in people.items() if name.startswith(site)], axis=0)
        for place, position in enumerate([index, *found.donors.drawn[index]]):
            assert deviations[at, place] == pytest.approx(found.means[position] - everybody)


def test_fills_are_the_background_the_donors_and_the_donors_at_the_expected_level(cohort):
    """Outside the regions `expected` is the donor; inside, each region is moved as a whole."""
    indices = cohort.indices("test")
    found, own = filled(cohort, indices), blocks()
    batch, substitutions = found.of(indices)
    pairs = [(one.volume, one.fill) for one in substitutions]
    given, shifted, ((_, background),), lent = (
        [pair for pair, name in zip(pairs, found.names, strict=True) if name == of]
        for of in ("reliance", "unique", "background", "sufficiency")
    )
    assert all(volume is batch["volume"] for volume, _ in (*given, *shifted)) and len(lent) == 3
    assert all(
        fill is batch["volume"] and volume is donor for (volume, fill), (_, donor) in zip(lent, given, strict=True)
    )
    assert background.shape == (2, 1, 1, 1, 1)
    assert background[0, 0, 0, 0, 0] == np.float32(records.background(cohort.read(indices[0])[2][..., 0]))
    expected = found.expected
    for number, (index, positions) in enumerate(found.donors.drawn.items()):
        for at, position in enumerate(positions):
            donor = cohort.read(position)[2][..., 0]
            assert (given[at][1][number, ..., 0] == donor).all()
            moved = shifted[at][1][number, ..., 0] - donor
            assert (moved[own.labels == 0] == 0).all()
            for place, region in enumerate(own.regions):
                shift = expected[index, place, 0] - expected[position, place, 0]
                assert moved[own.labels == region] == pytest.approx(shift, abs=1e-6)


def test_ridge_regressions_of_all_regions_against_scikit_learn():
    """Three regions of two maps: each is predicted from the four values of the other two."""
    random = np.random.default_rng(1)
    training, new = random.normal(size=(40, 3, 2)), random.normal(size=(5, 3, 2))
    training[:, 1] += training[:, 0]
    found = fills.predict_regions(training, new)
    values = training.reshape(40, -1)
    centre, spread = values.mean(0), values.std(0)
    scaled, scaled_new = (values - centre) / spread, (new.reshape(5, -1) - centre) / spread
    for penalty, predicted in zip(fills.PENALTIES, found, strict=True):
        for region in range(3):
            own, others = [2 * region, 2 * region + 1], [at for at in range(6) if at // 2 != region]
            fit = Ridge(alpha=40 * penalty, fit_intercept=False).fit(scaled[:, others], scaled[:, own])
            independent = fit.predict(scaled_new[:, others]) * spread[own] + centre[own]
            assert predicted[:, region] == pytest.approx(independent)


def test_nobody_is_predicted_from_a_fit_that_has_seen_them(cohort, monkeypatch):
    """A region that follows another one is predicted well, also in training people; an independent one is not."""
    means = np.concatenate([region_means(blocks(), cohort.batch([at])["volume"]) for at in range(len(cohort.rows))])
    fits, predict = [], fills.predict_regions

    def watched(training, new):
        fits.append([{int(np.abs(means - one).sum((1, 2)).argmin()) for one in rows} for rows in (training, new)])
        return predict(training, new)

    monkeypatch.setattr(fills, "predict_regions", watched)
    expected = fills.expected_means(cohort, means)
    subjects = [[{cohort.rows[at].subject for at in part} for part in fit] for fit in fits]
    assert all(seen.isdisjoint(new) for seen, new in subjects[1:])
    assert set.union(*(new for _, new in subjects[1:])) == set(cohort.subjects("train"))
    assert subjects[0][0] == set(cohort.subjects("train"))
    unexplained = (np.square(means - expected).mean(0) / means.var(0))[:, 0]
    assert unexplained[1] < 0.1 and unexplained[2] > 0.8


def test_a_cohort_without_training_people_exchanges_its_own(cohort):
    rows = tuple(dataclasses.replace(row, split="test") for row in cohort.rows)
    new = dataclasses.replace(cohort, rows=rows)
    found = filled(new, range(len(rows)))
    for index, positions in found.donors.drawn.items():
        assert rows[index].subject not in {rows[at].subject for at in positions}
