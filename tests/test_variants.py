"""A cohort read otherwise: nothing of a test subject reaches who trains; volumes standardised as by scikit-learn."""

import dataclasses
import json
import shutil
from statistics import fmean, median, pstdev

import numpy as np
import pytest
from helpers import SMALL_BATCH, bare_records, fills_of, read_rows, region_means, resealed, write_rows
from sklearn.preprocessing import StandardScaler

from data.base.errors import InputError
from data.check import full
from data.cohorts import phenotype, records, variants
from data.cohorts.atlas import load_atlas
from data.cohorts.cohort import Cohort, Moments
from data.cohorts.phenotype import fit_scaler
from data.cohorts.records import REDUCED
from data.cohorts.stored import open_cohort
from data.cohorts.variants import resplit
from data.pack import pack
from utils.blackout.options import BlackoutOptions

pytestmark = pytest.mark.usefixtures("undrawn")


def folds(cohort: Cohort, fold: int, count: int = 4) -> dict[str, str]:
    """Every fourth subject is tested."""
    subjects = list(dict.fromkeys(row.subject for row in cohort.rows))
    return {subject: "test" if at % count == fold else "train" for at, subject in enumerate(subjects)}


def everything(cohort: Cohort, split: str) -> list[bytes]:
    return [cohort.entries[index].read() for index in cohort.indices(split)]


@pytest.fixture(scope="module")
def opened(cohort) -> Cohort:
    return open_cohort(cohort)


@pytest.fixture
def copy(cohort, tmp_path):
    folder = shutil.copytree(cohort, tmp_path / "copy")
    (folder / "seal.json").unlink()
    return folder


def rewrite(path, change) -> None:
    """Applies `change(subject, values)` to each row of phenotype.csv."""
    header, *lines = path.read_text().splitlines()
    changed = []
    for line in lines:
        subject, *values = line.split(",")
        changed.append(",".join([subject, *change(subject, values)]))
    path.write_text("\n".join([header, *changed]) + "\n")


def test_with_its_own_split_every_byte_is_as_stored(opened):
    again = resplit(opened, {row.subject: row.split for row in opened.rows})
    assert again.rows == opened.rows
    for split in ("train", "test"):
        assert everything(again, split) == everything(opened, split)
    assert again.metadata == dataclasses.replace(opened.metadata, phenotype_auc={})


def test_values_are_imputed_and_scaled_on_the_new_training_subjects(opened):
    """By the statistics module, from phenotype.csv as csv reads it."""
    split = folds(opened, 2)
    cut = resplit(opened, split)
    batch = cut.batch(range(len(cut.rows)), volumes=False)
    table = read_rows(opened.path / "phenotype.csv")
    for place, name in enumerate(opened.metadata.phenotype):
        column = {row["subject"]: float(row[name]) if row[name] else None for row in table}
        known = [value for subject, value in column.items() if split[subject] == "train" and value is not None]
        middle = median(known) if known else 0.0
        filled = {subject: middle if value is None else value for subject, value in column.items()}
        training = [filled[subject] for subject in filled if split[subject] == "train"]
        mean, spread = fmean(training), pstdev(training)
        for index, row in enumerate(cut.rows):
            expected = (filled[row.subject] - mean) / spread if spread else 0.0
            assert batch["phenotype"][index, place] == pytest.approx(expected, abs=1e-5)
        assert cut.metadata.phenotype_median[place] == pytest.approx(middle)
        assert cut.metadata.phenotype_scale[place] == pytest.approx(spread)
    assert [row.split for row in cut.rows] == [split[row.subject] for row in cut.rows]
    assert cut.metadata.phenotype_auc == {}
    assert cut.digest != opened.digest != resplit(opened, folds(opened, 3)).digest


def test_read_header_and_batch_agree_and_volumes_and_labels_stay(opened):
    cut = resplit(opened, folds(opened, 1))
    batch = cut.batch([5])
    label, phenotype, volume = cut.read(5)
    assert cut.header(5) == np.float32(label).tobytes() + phenotype.tobytes()
    assert (batch["phenotype"][0] == phenotype).all()
    assert (batch["volume"][0] == volume).all()
    assert (phenotype != opened.read(5)[1]).any()
    assert cut.entries[5].read()[records.HEADER_BYTES :] == opened.entries[5].read()[records.HEADER_BYTES :]
    assert [cut.entries[5].read(size) for size in (4, 60, 120)] == [cut.header(5)[:size] for size in (4, 60, 120)]
    assert (cut.entries[5].path, cut.entries[5].size) == (opened.entries[5].path, opened.entries[5].size)


@pytest.fixture
def edited(monkeypatch):
    """A `phenotype.csv` may be edited, although the records hold other values."""
    monkeypatch.setattr(phenotype, "ROUNDING", np.inf)


def test_a_phenotype_that_is_not_that_of_the_records_is_refused(copy):
    """Its AUC would be perfect, and nothing else would tell."""
    opened = open_cohort(copy, is_sealed=False)
    label = {row.subject: row.label for row in opened.rows}
    rewrite(copy / "phenotype.csv", lambda subject, values: [str(10 + 20 * label[subject]), *values[1:]])
    words = r"phenotype\.csv is not what the records hold: age of \w+, and values of 40 subjects in all"
    with pytest.raises(InputError, match=words):
        resplit(open_cohort(copy, is_sealed=False), folds(opened, 2))


@pytest.mark.parametrize("planted", ["noise", "label"])
def test_the_raw_phenotype_of_test_subjects_changes_no_training_byte(planted, copy, edited):
    before = open_cohort(copy, is_sealed=False)
    split, random = folds(before, 2), np.random.default_rng(0)
    label = {row.subject: row.label for row in before.rows}

    def change(subject: str, values: list[str]) -> list[str]:
        if split[subject] == "train":
            return values
        return [str(label[subject] * 100 if planted == "label" else random.normal() * 1e6) for _ in values]

    whole = resplit(before, split)
    expected = everything(whole, "train"), whole.metadata
    rewrite(copy / "phenotype.csv", change)
    cut = resplit(open_cohort(copy, is_sealed=False), split)
    assert (everything(cut, "train"), cut.metadata) == expected
    assert everything(cut, "test") != everything(whole, "test")


@pytest.mark.parametrize("training_value", ["7.5", ""])
def test_what_training_subjects_all_share_says_nothing_of_a_test_subject(training_value, copy, edited):
    """A rare category, or a measure that only test subjects have."""
    split = folds(open_cohort(copy, is_sealed=False), 0)
    rewrite(
        copy / "phenotype.csv",
        lambda subject, values: [*values[:3], training_value if split[subject] == "train" else "9", *values[4:]],
    )
    cut = resplit(open_cohort(copy, is_sealed=False), split)
    assert (cut.batch(range(40), volumes=False)["phenotype"][:, 3] == 0).all()
    assert cut.metadata.phenotype_scale[3] == 0


def test_several_records_of_a_subject_count_once(copy):
    single = open_cohort(copy, is_sealed=False)
    split = folds(single, 3)
    first = single.rows[0]
    doubled = dataclasses.replace(single, rows=(*single.rows, first), entries=(*single.entries, single.entries[0]))
    assert doubled.raw_phenotype.equals(single.raw_phenotype)
    assert resplit(doubled, split).metadata == resplit(single, split).metadata
    assert resplit(doubled, split).header(40) == resplit(single, split).header(0)


def test_without_raw_values_the_stored_ones_stay(copy):
    (copy / "phenotype.csv").unlink()
    opened = open_cohort(copy, is_sealed=False)
    cut = resplit(opened, folds(opened, 0))
    assert cut.entries == opened.entries
    assert cut.metadata == dataclasses.replace(opened.metadata, phenotype_auc={})
    assert len(cut.indices("test")) == 10


@pytest.mark.slow
def test_a_cohort_that_was_cut_anew_packs_as_it_reads(opened, tmp_path):
    cut = resplit(opened, folds(opened, 1))
    pack(cut, tmp_path / "out", "zip")
    again = open_cohort(tmp_path / "out")
    assert [again.entries[index].read() for index in range(40)] == [entry.read() for entry in cut.entries]
    assert again.digest == cut.digest
    assert not [text for text in full(again).every("problems") if "lacks" not in text]


def test_impossible_splits_are_refused(opened):
    split = folds(opened, 0)
    with pytest.raises(InputError, match=r"lacks 1 subjects of .*, such as 0000003"):
        resplit(opened, {subject: name for subject, name in split.items() if subject != "0000003"})
    with pytest.raises(InputError, match="has the split 'validation'; expected train or test"):
        resplit(opened, split | {"0000003": "validation"})
    with pytest.raises(InputError, match="has no train subjects"):
        resplit(opened, dict.fromkeys(split, "test"))
    rows = tuple(dataclasses.replace(row, label=float("nan"), split="test") for row in opened.rows)
    with pytest.raises(InputError, match="has the label nan"):
        resplit(dataclasses.replace(opened, rows=rows), split)


def test_the_order_in_memory_changes_no_bit():
    values = np.random.default_rng(0).normal(size=(500, 29))
    for name, expected in vars(fit_scaler(values)).items():
        assert (getattr(fit_scaler(np.asfortranarray(values)), name) == expected).all()


def with_unknown(folder, subjects) -> None:
    """A bare folder whose table and records say that these subjects' labels are unknown."""
    members = bare_records(range(1, 7))
    folder.mkdir()
    rows = ["file,subject,site,label,split"]
    for at, (name, content) in enumerate(members.items()):
        subject = name.removesuffix(".bin")
        unknown = subject in subjects
        (folder / name).write_bytes(np.float32("nan").tobytes() + content[4:] if unknown else content)
        rows.append(f"{name},{subject},A,{'' if unknown else at % 2},{'test' if at > 3 else 'train'}")
    (folder / "subjects.csv").write_text("\n".join(rows) + "\n")
    (folder / "cohort.json").write_text('{"grid": [31, 37, 31]}')


@pytest.mark.slow
def test_labels_of_test_subjects_may_be_unknown(tmp_path, data_cli):
    with_unknown(tmp_path / "cohort", {"5"})
    opened = open_cohort(resealed(tmp_path / "cohort"))
    assert [row.known for row in opened.rows] == [True] * 4 + [False, True]
    assert opened.batch(range(6))["label"].tolist() == opened.batch(range(6), volumes=False)["label"].tolist()
    assert opened.batch(range(6))["label"].tolist() == [0, 1, 0, 1, -1, 1]
    assert np.isnan(opened.read(4)[0])
    assert full(opened).every("counts")[:3] == [
        "train: 4 subjects (2 control, 2 autism)",
        "test: 2 subjects (0 control, 1 autism, 1 unknown)",
        "autism/control/unknown by site: A 3/2/1",
    ]
    for form in ("bin", "zip"):
        assert data_cli("pack", tmp_path / "cohort", tmp_path / form, f"--{form}").status == 0
        again = open_cohort(tmp_path / form)
        assert [str(row) for row in again.rows] == [str(row) for row in opened.rows]
        assert [entry.read() for entry in again.entries] == [entry.read() for entry in opened.entries]
        assert again.batch(range(6))["label"][4] == -1
    assert (tmp_path / "zip" / "subjects.csv").read_text() == (tmp_path / "cohort" / "subjects.csv").read_text()
    assert data_cli("swap", tmp_path / "cohort", tmp_path / "swapped", "--copies", 1, "--regions", 2).status == 0
    assert data_cli("export", tmp_path / "cohort", "5", tmp_path / "5.nii.gz").status == 0


def test_labels_are_unknown_in_table_and_record_or_in_neither(tmp_path):
    with_unknown(tmp_path / "train", {"1"})
    with pytest.raises(InputError, match=r"subjects.csv line 2 has the label nan; expected 1"):
        open_cohort(tmp_path / "train")
    with_unknown(tmp_path / "bare", {"5"})
    (tmp_path / "bare" / "subjects.csv").unlink()
    (tmp_path / "bare" / "cohort.json").unlink()
    with pytest.raises(InputError, match=r"5.bin has the label nan; expected 1"):
        open_cohort(tmp_path / "bare")
    with_unknown(tmp_path / "table", {"5"})
    (tmp_path / "table" / "5.bin").write_bytes(bare_records([5])["5.bin"])
    with pytest.raises(InputError, match=r"5.bin has the label 0, the table says nan"):
        open_cohort(tmp_path / "table")
    with_unknown(tmp_path / "record", set())
    record = tmp_path / "record" / "6.bin"
    record.write_bytes(np.float32("nan").tobytes() + record.read_bytes()[4:])
    with pytest.raises(InputError, match=r"6.bin has the label nan, the table says 1"):
        open_cohort(tmp_path / "record")


@pytest.fixture(scope="module")
def two_sites(cohort):
    """All people at two sites, told by their subjects' last digit."""
    found = open_cohort(cohort)
    rows = (dataclasses.replace(row, site=f"S{int(row.subject[-1]) % 2}") for row in found.rows)
    return dataclasses.replace(found, rows=tuple(rows))


def standardised(cohort, how):
    return variants.within_sites(cohort) if how == "site" else dataclasses.replace(cohort, standard=how)


def volumes(cohort, how) -> np.ndarray:
    return standardised(cohort, how).batch(np.arange(len(cohort.rows)))["volume"]


def within_brain(volume: np.ndarray) -> np.ndarray:
    """One map (x, y, z) by scikit-learn; its corner is no brain."""
    scores, brain = np.zeros(volume.shape), np.abs(volume - volume[0, 0, 0]) > 1e-3
    scores[brain] = StandardScaler().fit_transform(volume[brain].astype(float)[:, None])[:, 0]
    return scores


def test_moments_of_batches_are_those_of_all():
    values = np.random.default_rng(0).normal(1e4, 1, (50, 3, 2))
    values[:, 1, 1] = 7
    found = Moments()
    for batch in (values[:1], values[1:20], values[20:]):
        found.add(batch)
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12)
    expected = values.std(0)
    expected[1, 1] = 1  # does not vary
    np.testing.assert_allclose(found.spread, expected, rtol=1e-9)


def test_as_stored_nothing_changes(two_sites):
    stored = np.stack([two_sites.read(index)[2] for index in range(len(two_sites.rows))])
    assert (volumes(two_sites, "stored") == stored).all()


def test_within_the_brain_each_person_is_a_z_score_and_the_background_is_its_mean(two_sites):
    stored, found = volumes(two_sites, "stored"), volumes(two_sites, "brain")
    for one, other in zip(found, stored, strict=True):
        np.testing.assert_allclose(one[..., 0], within_brain(other[..., 0]), atol=1e-5)
        assert records.background(one[..., 0]) == 0 != records.background(other[..., 0])
    changed = records.within_brain(3 * stored[0] + 7)
    np.testing.assert_allclose(changed, found[0], atol=1e-4)  # the scale of a map does not count


def test_each_map_is_standardised_by_itself():
    several = np.random.default_rng(0).normal([0, 5, -3], [1, 2, 3], (*REDUCED.shape, 3)).astype(np.float32)
    several[:4], several[..., :4, :] = -9, -9
    several[:, :, -4:], several[..., 2] = -9, 4  # the last does not vary
    found = records.within_brain(several)
    for at in (0, 1):
        np.testing.assert_allclose(found[..., at], within_brain(several[..., at]), atol=1e-5)
    assert (found[..., 2] == 0).all()


def test_a_site_is_standardised_by_its_own_people_whatever_their_labels_and_split(two_sites):
    found, brains = volumes(two_sites, "site"), volumes(two_sites, "brain").astype(float)
    site = np.array([row.site for row in two_sites.rows])
    for name in ("S0", "S1"):
        own = brains[site == name].reshape(sum(site == name), -1)
        np.testing.assert_allclose(
            found[site == name].reshape(own.shape), StandardScaler().fit_transform(own), atol=1e-4
        )
    flipped = tuple(dataclasses.replace(row, label=1 - row.label) for row in two_sites.rows)
    assert (volumes(dataclasses.replace(two_sites, rows=flipped), "site") == found).all()


def test_swapped_records_say_nothing_of_their_site(two_sites):
    rows = (*two_sites.rows, dataclasses.replace(two_sites.rows[0], file="0_swap_0.bin"))
    metadata = dataclasses.replace(two_sites.metadata, provenance={"swap": {"regions": 1}})
    more = dataclasses.replace(
        two_sites, rows=rows, entries=(*two_sites.entries, two_sites.entries[0]), metadata=metadata
    )
    assert (volumes(more, "site")[:-1] == volumes(two_sites, "site")).all()


def test_a_site_of_few_people_cannot_be_standardised_by_itself(two_sites):
    rows = tuple(dataclasses.replace(row, site="far" if at < 4 else row.site) for at, row in enumerate(two_sites.rows))
    with pytest.raises(InputError, match="4 people of site far; standardise=site needs 5 of each"):
        standardised(dataclasses.replace(two_sites, rows=rows), "site")


@pytest.mark.parametrize("how", ["brain", "site"])
def test_a_blackout_of_the_background_sets_a_region_to_zero(two_sites, how):
    cohort = standardised(two_sites, how)
    options = BlackoutOptions(donors=2)
    filled = fills_of(cohort, load_atlas(None, REDUCED), two_sites.indices("test")[:2], options)
    batch, found = filled.of(two_sites.indices("test")[:2])
    shown, background, _ = found[filled.names.tolist().index("background")]
    assert (background == 0).all() and shown is batch["volume"]
    assert (shown == cohort.batch(two_sites.indices("test")[:2])["volume"]).all()
    np.testing.assert_allclose(
        filled.means, region_means(load_atlas(None, REDUCED), volumes(two_sites, how)), atol=1e-6
    )


@pytest.mark.slow
def test_what_looked_at_tested_people_says_so_everywhere(cohort, cli, tmp_path):
    """Terminal, JSON, report, runs.csv."""
    at_one_site = shutil.copytree(cohort, tmp_path / "cohort")
    rows = read_rows(at_one_site / "subjects.csv")
    write_rows(at_one_site / "subjects.csv", [row | {"site": "X"} for row in rows])
    resealed(at_one_site)
    places = ("--model", "cnn", "--chkPointDir", tmp_path / "ckpt", "--dataDir", at_one_site)
    more = ("--set", "standardise=site", "--set", "members=1", "--numIters", 2, *SMALL_BATCH)
    trained = cli("--train", *places, *more, "--outDir", tmp_path / "train")
    assert trained.status == 0, trained.err
    outcome = cli("--test", *places, "--outDir", tmp_path / "test")
    assert outcome.status == 0, outcome.err
    assert (
        "TRANSDUCTIVE: each of 1 site is standardised by its own people, tested ones too" in outcome.out
        and "SIMULATED, TRANSDUCTIVE)" in outcome.out
    )
    assert json.loads((tmp_path / "test/metrics.json").read_text())["transductive"] is True
    assert json.loads((tmp_path / "test/run.json").read_text())["transductive"] is True
    assert "TRANSDUCTIVE: each site" in (tmp_path / "test/report.html").read_text()
    assert all("TRANSDUCTIVE" in row["cohort"] for row in read_rows(tmp_path / "runs.csv"))
