"""Who is unlike the training people: what is changed is told, what is not is not, one by one and all together."""

import copy
import importlib.util
import re
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, add_connectomes, cohort_of, resealed, row
from people import ROWS, write_people
from scipy import ndimage
from scipy.stats import mstats

from data import demo
from data.base import files
from data.base.errors import InputError
from data.cohorts import atlas, records
from data.cohorts.cohort import Cohort
from data.cohorts.rows import Metadata
from data.cohorts.stored import open_cohort
from data.conversion import measures
from data.likeness import reasons, scans
from data.likeness import reference as likeness
from data.likeness.reference import Constants, Reference
from data.likeness.scans import MeanVolume, asymmetry, uncovered

COUNT, NEW = 140, 30


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Cohort:
    """140 simulated people of 16 sites with connectomes of 8 parcels and measures of fALFF before its conversion."""
    folder = tmp_path_factory.mktemp("likeness") / "cohort"
    demo.simulate(folder, records.REDUCED, demo.Simulation(subjects=COUNT, seed=3))
    subjects = [row.subject for row in open_cohort(folder).rows]
    random, columns = np.random.default_rng(0), dict.fromkeys(measures.MEASURES, 0.0)
    table = pd.DataFrame(columns, range(COUNT)).assign(voxel_mm3=27.0)
    table["mean"], table["sd"] = random.normal(0.4, 0.03, COUNT), random.normal(0.06, 0.006, COUNT)
    measures.write_measures(folder / "maps.csv", subjects, {"falff": table})
    return add_connectomes(resealed(folder))


@pytest.fixture(scope="module")
def known(whole) -> Reference:
    """All but the last 30 people."""
    return likeness.reference(whole, range(COUNT - NEW))


@dataclass(frozen=True)
class Changed:
    """The entry of a record whose volume is another one."""

    entry: object
    volume: np.ndarray

    def read(self, num_bytes: int = -1) -> bytes:
        header = self.entry.read(records.HEADER_BYTES)
        return (header + np.ascontiguousarray(self.volume, records.DTYPE).tobytes())[
            : num_bytes if num_bytes > 0 else None
        ]


def changed(cohort: Cohort, change) -> Cohort:
    """The last 30 people with other volumes (x, y, z)."""
    entries = list(cohort.entries)
    for at in range(COUNT - NEW, COUNT):
        entries[at] = Changed(entries[at], change(cohort.read(at)[2][..., 0]))
    return replace(cohort, entries=tuple(entries))


def with_table(cohort: Cohort, name: str, table: pd.DataFrame | None) -> Cohort:
    """The cohort as if this had been read as one of its side tables."""
    other = copy.copy(cohort)
    vars(other)[name] = table
    return other


def told(known: Reference, cohort: Cohort) -> list[str]:
    """The reasons of each of the last 30 people in one text, empty if there are none."""
    return ["; ".join(of) for of in likeness.compared(known, cohort, range(COUNT - NEW, COUNT)).reasons]


def share(texts: list[str], pattern: str = ".") -> float:
    return np.mean([bool(re.search(pattern, text)) for text in texts])


@pytest.mark.slow
def test_own_people_are_hardly_ever_told(whole, known):
    assert share(told(known, whole)) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axis", "voxels", "words"),
    [
        (0, 1, "[5-8] mm too far to the right"),
        (0, -1, "[5-8] mm too far to the left"),
        (1, 1, "[5-8] mm too far to the front"),
        (2, -1, "[5-8] mm too far to the bottom"),
    ],
)
def test_a_shift_of_six_mm_is_told_with_its_direction(axis, voxels, words, whole, known):
    texts = told(known, changed(whole, lambda volume: np.roll(volume, voxels, axis)))
    assert share(texts, f"falff: .*{words}") >= 0.9
    assert share(texts, "exchanged") == 0


@pytest.mark.slow
def test_exchanged_sides_are_told_and_what_follows_from_them_is_not(whole, known):
    texts = told(known, changed(whole, lambda volume: volume[::-1]))
    assert share(texts, "falff: left and right look exchanged") >= 0.9
    assert share(texts, "correlation with the mean") == share(texts, "too far") == 0


@pytest.mark.slow
def test_negated_values_are_told_and_what_follows_from_them_is_not(whole, known):
    texts = told(known, changed(whole, np.negative))
    assert share(texts, "falff: values look negated") >= 0.9
    assert share(texts, "exchanged|correlation with the mean|too far") == 0


@pytest.mark.slow
def test_a_missing_region_is_named(whole, known):
    labels = atlas.load_atlas(None, records.REDUCED).labels
    region = 13  # Frontal_Inf_Tri_L

    def without(volume: np.ndarray) -> np.ndarray:
        return np.where(labels == region, records.background(volume), volume)

    assert share(told(known, changed(whole, without)), "falff: 1 region is missing: Frontal_Inf_Tri_L") >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "shift", "words"),
    [(3, 0, "the (spread|mean) is (0.1[5-9]|0.2|1)"), (10, -4, "the mean in standard deviations is -?[01]")],
)
def test_another_scale_of_maps_is_told(factor, shift, words, whole, known, tmp_path):
    shutil.copytree(whole.tables, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "maps.csv", dtype={"subject": str})
    table["mean"], table["sd"] = table["mean"] * factor + shift, table["sd"] * factor
    table.to_csv(tmp_path / "tables" / "maps.csv", index=False)
    assert share(told(known, replace(whole, tables=tmp_path / "tables")), f"falff: {words}") >= 0.9
    table[table["subject"] != table["subject"].iloc[-1]].to_csv(tmp_path / "tables" / "maps.csv", index=False)
    assert share(told(known, replace(whole, tables=tmp_path / "tables")), "mean|spread") == 0


@pytest.mark.slow
def test_a_factor_of_scale_just_beyond_what_can_be_told_is_told(whole, known):
    factor = likeness.least_factors(known.constants)["falff"]
    found = known.constants.ranges["falff"]
    for by, expected in ((1.05 * factor, True), (0.95 * factor, False), (0.95 / factor, True)):
        far = [
            abs(of.deviation(name, np.array([of.middle + np.log(by)])).item()) > known.constants.limits["scan"]
            for name, of in found.items()
            if name in ("log sd", "log mean")
        ]
        assert any(far) == expected
    assert 1.1 < factor < 2


@pytest.mark.slow
def test_another_age_sex_or_motion_is_told(whole, known):
    raw, table = whole.raw_phenotype.copy(), whole.covariates.copy()
    raw.iloc[-30:, 0] = 95.0
    text = told(known, with_table(whole, "raw_phenotype", raw))
    assert share(text, r"^age 95, nine in ten training people \d+(\.\d+)? to \d\d") == 1
    raw.iloc[-30:, 0] = np.nan
    assert share(told(known, with_table(whole, "raw_phenotype", raw)), "age is unknown, which is known of") == 1
    table.iloc[-30:, 2], table.iloc[-30:, 3] = "3", "25.5"
    text = told(known, with_table(whole, "covariates", table))
    assert share(text, "SEX 3, training people 1, 2, unknown") == 1
    assert share(text, r"func_mean_fd 25.5, nine in ten training people 0.0\d+ to 0.\d+") == 1


@pytest.mark.slow
def test_a_site_that_is_not_known_and_unknown_covariates_are_nothing_unusual(whole, known):
    before = told(known, whole)
    elsewhere = replace(whole, rows=tuple(replace(of, site="elsewhere") for of in whole.rows))
    assert told(known, with_table(elsewhere, "covariates", whole.covariates.assign(SITE_ID="elsewhere"))) == before
    assert told(known, with_table(whole, "covariates", whole.covariates.assign(SEX="", func_mean_fd=""))) == before
    assert told(known, with_table(whole, "covariates", None)) == before


@pytest.mark.slow
def test_one_person_alone_is_told_the_same(whole, known):
    odd = changed(whole, lambda volume: volume[::-1])
    together = likeness.compared(known, odd, range(COUNT - NEW, COUNT)).reasons
    assert [likeness.compared(known, odd, [at]).reasons[0] for at in range(COUNT - NEW, COUNT - NEW + 5)] == together[
        :5
    ]


@pytest.mark.slow
def test_connectomes_are_compared_if_they_are_of_the_same_parcels(whole, known):
    edges = whole.connectomes
    assert "connectome" in known.constants.ranges

    class Other:
        num_edges, pairs = edges.num_edges, edges.pairs

        def __getitem__(self, at):
            return np.abs(edges[at]) + 1.5

    connected = replace(whole, connectomes=Other())
    assert share(told(known, connected), "connectome: the mean Fisher z is 1.[678]") >= 0.9
    other = replace(connected, metadata=replace(whole.metadata, parcels_sha256="0" * 64))
    assert share(told(known, other), "connectome") == 0
    assert share(told(known, whole.without_connectomes), "connectome") == 0
    lost = edges[[0]][0].copy()
    lost[(edges.pairs == 3).any(axis=1)] = np.nan
    found = scans.of_connectome(lost, known.edges, edges.pairs)
    kept = ~np.isnan(lost)
    assert found["lacking_parcels"] == 1 / 8
    assert np.tanh(found["alike"]) == pytest.approx(np.corrcoef(lost[kept], known.edges[kept])[0, 1])
    assert np.isnan(scans.of_connectome(np.full(28, np.nan), known.edges, edges.pairs)["alike"])


@pytest.mark.slow
def test_a_cohort_without_tables_is_judged_by_its_volumes(whole):
    bare = replace(whole.without_connectomes, tables=None)
    of = likeness.reference(bare, range(COUNT - NEW))
    assert set(of.constants.ranges) == {"falff"} and of.edges is None and of.constants.expected.categories == {}
    assert share(told(of, changed(bare, lambda volume: volume[::-1])), "exchanged") >= 0.9
    assert share(told(of, bare)) <= 0.1


@pytest.mark.slow
def test_constants_come_back_from_json_and_hold_nobodys_value(whole, known):
    text = files.json_text(asdict(known.constants))
    again = Reference(files.typed(text, Constants), known.volume, known.edges)
    assert again.constants == known.constants
    odd = changed(whole, lambda volume: np.roll(volume, 1, 1))
    assert told(again, odd) == told(known, odd)
    own = pd.concat([whole.raw_phenotype["age"], whole.raw_phenotype["bmi"].dropna()]).round(4)
    assert not own.isin(
        [round(end, 4) for of in known.constants.ranges["person"].values() for end in asdict(of).values()]
    ).any()
    assert not any(of.subject in text for of in whole.rows)
    age = whole.raw_phenotype["age"].iloc[: COUNT - NEW]
    expected = mstats.hdquantiles(age, [0.05, 0.5, 0.95])
    assert [*asdict(known.constants.ranges["person"]["age"]).values()] == pytest.approx(expected.tolist(), rel=1e-3)
    volumes = [whole.read(at)[2] for at in range(COUNT - NEW)]
    np.testing.assert_allclose(known.volume, np.mean(volumes, axis=0, dtype=float), atol=1e-6)
    np.testing.assert_allclose(
        known.edges, np.nanmean(whole.connectomes[: COUNT - NEW], axis=0, dtype=float), atol=1e-6
    )


@pytest.mark.slow
def test_the_benchmark_counts_who_is_told(data_cli, tmp_path, monkeypatch, capsys):
    folder = write_people(tmp_path / "source", ROWS)
    assert data_cli("convert", folder, tmp_path / "cohort", "--grid", "reduced").status < 2
    of_file = importlib.util.spec_from_file_location("unlike", ROOT / "tests" / "benchmarks" / "unlike.py")
    benchmark = importlib.util.module_from_spec(of_file)
    of_file.loader.exec_module(benchmark)
    age, refused = "age 60, training people up to 40", "all maps z-scored"
    monkeypatch.setattr(benchmark, "CHANGES", {name: benchmark.CHANGES[name] for name in (refused, age)})

    def in_process(command: list[str], **_: object) -> SimpleNamespace:
        assert command[:3] == [sys.executable, "-m", "data"]
        outcome = data_cli(*command[3:])
        return SimpleNamespace(returncode=outcome.status, stderr=outcome.err)

    monkeypatch.setattr(benchmark, "subprocess", SimpleNamespace(run=in_process))
    monkeypatch.setattr(sys, "argv", ["unlike.py", str(tmp_path / "cohort"), str(folder), "--people", "4"])
    capsys.readouterr()
    benchmark.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if " of " in line or "refused" in line]
    told = {line[:40].strip(): line[40:] for line in lines}
    assert re.match(" +[0-3] of 8 ", told["own people, drawn at random"])
    assert re.match(" +[0-9] of 40 ", told["own people, of sites not seen"])
    assert "those of the cohort or bundle, fALFF" in told[refused] or "z-scored" in told[refused]
    assert re.match(r" +4 of 4 +0.51 to 1.00 +\d x .*age #, nine in ten training people # to #", told[age])
    assert re.match(r" +[0-9.]+ +\d and 4 of 4", told["falff"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_of_people_like_the_training_people_as_many_are_told_as_should(seed):
    """Where there is nothing to find: 60 measures of people whose sites differ, 25 sites of 12 and 100 new ones."""
    random = np.random.default_rng(seed)

    def drawn(sites: int) -> tuple[pd.DataFrame, np.ndarray]:
        site = np.repeat(np.arange(sites), 12)
        values = random.normal(size=(sites, 60))[site] * 0.7 + random.standard_t(5, (len(site), 60))
        columns = pd.MultiIndex.from_product([["falff", "alff"], [str(at) for at in range(30)]])
        return pd.DataFrame(values, columns=columns), site

    values, site = drawn(25)
    limits = likeness.limits_of(likeness.beside_others(values, likeness.groups([str(of) for of in site])))
    found = reasons.greatest(reasons.deviations(drawn(100)[0], likeness.ranges_of(values)))
    assert 0.003 < (found["scan"] > limits["scan"]).mean() < 0.03  # 0.01
    assert limits["person"] == likeness.LEAST_LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("sites", [5, 25])
def test_what_all_maps_share_is_told_though_no_map_alone_is_unlike(sites):
    """15 maps, 8 measures, sites that differ: one measure of all maps is moved by the half range of a single map."""
    random = np.random.default_rng(sites)
    names = ["log roughness", "log sd", "log mean", "mean_in_sds", "alike", "side", "shift_x", "shift_y"]
    columns = pd.MultiIndex.from_product([[f"map {at}" for at in range(15)], names])

    def drawn(sites: int) -> tuple[pd.DataFrame, list[np.ndarray]]:
        site = np.repeat(np.arange(sites), 12)
        shared = random.normal(size=(sites, 8))[site] * 0.2 + random.normal(size=(len(site), 8)) * 0.2
        own = random.standard_t(5, (len(site), 15, 8))
        values = pd.DataFrame((own + shared[:, None]).reshape(len(site), -1), columns=columns)
        return values, likeness.groups([str(of) for of in site])

    values, parts = drawn(sites)
    ranges, far = likeness.ranges_of(values), likeness.beside_others(values, parts)
    limits = likeness.limits_of(far)
    averages = likeness.limits_of_averages(far, parts, limits)
    new = drawn(100)[0]
    smoother = new.copy()
    smoother.loc[:, (slice(None), "log roughness")] -= 3.0
    texts = [
        ["; ".join(reasons.sentences(one, {})) for one in reasons.findings(of, ranges, limits, by_measure)]
        for of, by_measure in ((new, averages), (smoother, averages), (smoother, {}))
    ]
    told, words, before = (share(one) for one in texts), "maps on average: roughness .* half ranges below", texts[2]
    as_they_are, changed_ones, without = told
    assert as_they_are < 0.05
    assert share(texts[1], words) > 0.9 and changed_ones > 0.9
    assert without < 0.5 and share(before, "average") == 0


def test_what_all_training_people_have_alike_leaves_the_limits_of_the_rest():
    """What is kept of a number has four digits, from which nobody is far who has that number."""
    random = np.random.default_rng(1)
    columns = [(of, name) for of in ("alff", "reho") for name in ("log sd", "alike")]
    values = pd.DataFrame(random.normal(size=(60, 4)), columns=pd.MultiIndex.from_tuples(columns))
    parts = likeness.groups(["a", "b"] * 30)
    alone = likeness.beside_others(values, parts)
    values["connectome", "log volumes"], values["person", "born"] = np.log(120), 19874321.0
    far = likeness.beside_others(values, parts)
    limits, ranges = likeness.limits_of(far), likeness.ranges_of(values)
    assert limits == likeness.limits_of(alone) and limits["scan"] < 10
    assert likeness.limits_of_averages(far, parts, limits) == likeness.limits_of_averages(alone, parts, limits)
    usual = values.median().to_frame().T
    shorter = usual.copy()
    shorter["connectome", "log volumes"] = np.log(60)
    found = [reasons.findings(of, ranges, limits, {})[0] for of in (usual, shorter)]
    assert [[one.measure for one in of] for of in found] == [[], ["log volumes"]]


def test_limits_of_averages_are_numbers_though_nobody_is_within_the_others():
    columns = pd.MultiIndex.from_tuples([("alff", "log sd"), ("reho", "log sd")])
    values = pd.DataFrame(np.random.default_rng(2).normal(size=(16, 2)), columns=columns)
    parts = likeness.groups(["a", "b"] * 8)
    far = likeness.beside_others(values, parts)
    every = likeness.limits_of_averages(far, parts, dict.fromkeys(likeness.FALSE_ALARMS, np.inf))
    nobody = likeness.limits_of_averages(far, parts, dict.fromkeys(likeness.FALSE_ALARMS, -1.0))
    assert nobody == every and np.isfinite([*nobody.values()]).all()


def test_groups_are_whole_sites_if_there_are_several():
    sites = [f"site {at % 7}" for at in range(70)]
    parts = likeness.groups(sites)
    assert sorted(np.concatenate(parts).tolist()) == list(range(70))
    assert all(
        len({sites[at] for at in part} & {sites[at] for at in np.setdiff1d(range(70), part)}) == 0 for part in parts
    )
    assert len(likeness.groups(["a", "b"] * 20)) == likeness.GROUPS


def test_records_of_one_person_count_once_and_swapped_ones_not_at_all():
    lineage = {"provenance": {"swap": {}}}
    cohort = cohort_of(row("1"), row("2"), row("2", file="2_again.bin"), row("3", file="3_swap_1.bin"), **lineage)
    assert likeness.people_at(cohort, range(4)).tolist() == [0, 1]
    assert likeness.people_at(cohort, [2]).tolist() == [2]


@pytest.mark.slow
def test_too_few_people_and_other_maps_are_refused(whole, known):
    with pytest.raises(InputError, match="19 training people; expected 20 to tell who is unlike"):
        likeness.reference(whole, range(19))
    other = replace(whole, metadata=replace(whole.metadata, maps=("alff",)))
    with pytest.raises(InputError, match="holds the maps alff; the training people have falff"):
        likeness.compared(known, other, [0])


def test_columns_of_the_users_own_are_numbers_or_categories():
    subjects = [str(at) for at in range(120)]
    site = ["a", "b"] * 60
    raw = pd.DataFrame({"iq": np.arange(120.0) + 70, "hand_left": [1.0, 0, 0] * 40, "hand_right": [0.0, 1, 0] * 40,
                        "never": 0.0, "unused_1": 0.0}, subjects)  # fmt: skip
    covariates = pd.DataFrame(
        {
            "scanner": ["x", "y"] * 60,
            "kind": ["p", "q", "r"] * 40,
            "code": [f"c{at}" for at in range(120)],
            "rare": ["one"] + ["common", "other"] * 59 + ["other"],
            "iq": "text",
            "iq_again": (np.arange(120) + 70).astype(str),
        },
        subjects,
    )
    cohort = cohort_of(*[row(name, site=of) for name, of in zip(subjects, site, strict=True)])
    cohort = replace(cohort, metadata=Metadata(phenotype_categories={"hand": ("left", "right")}))
    cohort = with_table(with_table(cohort, "raw_phenotype", raw), "covariates", covariates)
    table = likeness.table_of(cohort, np.arange(120))
    assert table["hand"].tolist() == ["left", "right", "unknown"] * 40
    numbers = likeness.numeric_columns(table, site)
    assert list(numbers) == ["iq"]
    found = likeness.expected_of(cohort, table, site, numbers)
    assert found.known == ("iq",)
    third = pytest.approx(1 / 3, abs=1e-3)
    # scanner tells the site; every code is of one person; never is the same for all
    assert found.categories == {
        "hand": {"left": third, "right": third, "unknown": third},
        "kind": {"p": third, "q": third, "r": third, "unknown": 0.0},
        "rare": {"common": pytest.approx(59 / 120, abs=1e-3), "other": 0.5, "unknown": 0.0},
    }
    odd = likeness.atypical_values(found, table.iloc[:2].assign(kind=["s", ""], iq=["nan", "80"]))
    assert odd[0][0] == "iq is unknown, which is known of training people"
    assert odd[0][1:] == [
        "kind s, training people p, q, r, unknown",
        "rare one, training people common, other, unknown",
    ]
    assert odd[1] == []


def smooth(seed: int) -> np.ndarray:
    """A smooth volume in a brain of an odd shape."""
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=records.REDUCED.shape), 2.0)
    return np.where(atlas.load_atlas(None, records.REDUCED).labels > 0, 1 + 3 * values, 0)


@pytest.mark.parametrize("mm", [(3.0, 0, 0), (0, -4.5, 0), (0, 0, 6), (2, 2, -2)])
def test_a_shift_is_measured_in_mm(mm):
    mean = ndimage.gaussian_filter(smooth(0), 1)
    moved = ndimage.shift(mean, np.array(mm) / 6, order=3)
    found = MeanVolume(mean).compare(2 * moved + 5)
    assert [found[f"shift_{axis}"] for axis in "xyz"] == pytest.approx(mm, abs=0.8)
    assert [MeanVolume(mean).compare(mean)[f"shift_{axis}"] for axis in "xyz"] == pytest.approx([0, 0, 0], abs=1e-6)


def test_correlations_are_those_of_numpy():
    mean, volume = smooth(0), smooth(1)
    found = MeanVolume(mean).compare(volume)
    expected = np.corrcoef(mean.ravel(), volume.ravel())[0, 1]
    assert np.tanh(found["alike"]) == pytest.approx(expected)
    slopes = np.stack([asymmetry(of).ravel() for of in np.gradient(mean)]).T
    own, other = (asymmetry(of).ravel() for of in (mean, volume))
    left = [of - slopes @ np.linalg.lstsq(slopes, of)[0] for of in (own, other)]
    assert found["side"] == pytest.approx((left[0] @ left[1]) / np.linalg.norm(left[0]) / np.linalg.norm(left[1]))
    assert MeanVolume(mean).compare(volume[::-1])["side"] == pytest.approx(-found["side"])
    assert MeanVolume(mean).compare(mean)["side"] == pytest.approx(1)
    assert MeanVolume(np.zeros_like(volume)).correlation(volume) == 0


def test_a_region_is_uncovered_if_most_of_it_is_background():
    labels = np.zeros(records.REDUCED.shape, int)
    labels[5:9, 5, 5], labels[5:9, 10, 5] = 1, 7
    volume = np.where(labels > 0, 2.0, 0.5)
    assert uncovered(volume, labels) == []
    volume[5:7, 10, 5] = 0.5
    assert uncovered(volume, labels) == []
    volume[7, 10, 5] = 0.5
    assert uncovered(volume, labels) == [7]


def test_deviations_are_half_ranges_by_hand():
    found = reasons.Range(1.0, 2.0, 6.0)
    assert found.deviation("x", np.array([0.0, 2.0, 10.0, np.nan])).tolist() == [-2.0, 0.0, 2.0, 0.0]
    assert reasons.Range(2.0, 2.0, 2.0).deviation("x_mm", np.array([5.0])).tolist() == [3.0]
