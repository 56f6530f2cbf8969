"""Who is unlike the training people, by name; what a bundle keeps of these, against SciPy's quantiles; limits."""

import json
import re
from pathlib import Path

import h5py
import lab
import numpy as np
import pandas as pd
import pytest
from bundles import load_npz, read_bundle_files
from commands import done
from helpers import add_connectomes, reseal
from scipy.stats import mstats, norm

from data.images import atlas, grids
from data.likeness import reasons, reference

pytestmark = pytest.mark.usefixtures("undrawn")

TRAINING = 110
MEASURES = (
    *("background", "mean", "sd", "min", "max", "voxel_mm3", "x_mm", "y_mm", "z_mm", "coverage"),
    *("common_value", "common_share", "sides_differ"),
)
EACH = 3  # people are changed in one way


def set_table_values(folder: Path, name: str, record_paths: list[Path], values: dict[str, str]) -> None:
    """What a table of a cohort says of the people of these records."""
    names = [path.stem for path in record_paths]
    lab.edit(folder / name, lambda table: table.mask(table["subject"].isin(names), table.assign(**values)))


def take_people(many: Path, folder: Path, split: str, chosen: slice) -> Path:
    """Some people of a simulated cohort, all in a split, with measures of maps before conversion and connectomes."""
    lab.copy(many, folder)
    files = lab.read_table(folder / "subjects.csv")["file"]
    for name in set(files) - set(files[chosen]):
        (folder / name).unlink()
    for name in ("phenotype.csv", "covariates.csv"):
        lab.edit(folder / name, lambda table: table[chosen])
    lab.edit(folder / "subjects.csv", lambda table: table[chosen].assign(split=split))
    random = np.random.default_rng(0)
    table = pd.DataFrame(dict.fromkeys(MEASURES, 0.0), range(1000)).assign(voxel_mm3=27.0)
    table["mean"], table["sd"] = random.normal(0.4, 0.03, 1000), random.normal(0.06, 0.006, 1000)
    table = table[chosen].set_axis(lab.read_table(folder / "subjects.csv")["subject"])
    table.to_csv(folder / "maps.csv", index_label="subject")
    add_connectomes(reseal(folder))
    return folder


def make_shift(axis: int, voxels: int):
    return lambda volume: np.roll(volume, voxels, axis)


def region_mask(name: str) -> np.ndarray:
    """The voxels of a region on the reduced grid, (x, y, z) bool."""
    regions = atlas.load_atlas(None, grids.REDUCED)
    return regions.region_labels == next(
        number for number, region_name in regions.name_by_region.items() if region_name == name
    )


def without_region(volume: np.ndarray) -> np.ndarray:
    return np.where(region_mask("Frontal_Inf_Tri_L"), volume[0, 0, 0], volume)


VOLUMES = {  # change of a volume, and what is told
    "as they are": (lambda volume: volume, None),
    "right": (make_shift(0, 1), "falff: the centre of the brain is 6 mm too far to the right"),
    "front": (make_shift(1, 1), "falff: the centre of the brain is 6 mm too far to the front"),
    "bottom": (make_shift(2, -1), "falff: the centre of the brain is 6 mm too far to the bottom"),
    "exchanged": (lambda volume: volume[::-1], "falff: left and right look exchanged"),
    "negated": (np.negative, "falff: values look negated"),
    "region": (without_region, "falff: 1 region is missing: Frontal_Inf_Tri_L"),
}
TABLES = {
    "scale": ("maps.csv", {"mean": "1.2", "sd": "0.18"}, "falff: the (spread|mean) is (0.18|1.2), usually"),
    "z-scores": ("maps.csv", {"mean": "0.01", "sd": "1"}, "falff: the mean in standard deviations is 0.01"),
    "sex": ("covariates.csv", {"SEX": "3"}, "^SEX 3, training participants 1, 2, unknown$"),
    "motion": ("covariates.csv", {"func_mean_fd": "25.5"}, r"^func_mean_fd 25.5, usually 0.0\d+ to 0.\d+$"),
    "unknown": ("covariates.csv", {"SEX": "", "func_mean_fd": ""}, None),
    "site": ("covariates.csv", {"SITE_ID": "elsewhere"}, None),
}
PERSON = {
    "old": (95.0, r"^age 95, usually \d+(\.\d+)? to \d\d"),
    "ageless": (None, "^age is unknown"),
}
CHANGES = [*VOLUMES, *TABLES, *PERSON, "connectome"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, large_cohort) -> Path:
    """`home`, the training people, `new` ones changed in one way each, `ckpt`, `out` of a test, and `a.zip`."""
    folder = tmp_path_factory.mktemp("likeness")
    take_people(large_cohort, folder / "home", "train", slice(TRAINING))
    new = take_people(large_cohort, folder / "new", "test", slice(TRAINING, TRAINING + 12 + EACH * len(CHANGES)))
    metadata = json.loads((new / "cohort.json").read_text())
    for kind, (change, _) in VOLUMES.items():
        for file in list_changed_files(new, kind):
            lab.edit(file, change_record(file, change))
    for kind, (name, values, _) in TABLES.items():
        set_table_values(new, name, list_changed_files(new, kind), values)
    mean, scale, median = (metadata[f"phenotype_{name}"][0] for name in ("mean", "scale", "median"))
    for kind, (age, _) in PERSON.items():
        scaled = np.float32(((age or median) - mean) / scale).tobytes()
        for file in list_changed_files(new, kind):
            lab.edit(file, file.read_bytes()[:4] + scaled + file.read_bytes()[8:])
        set_table_values(new, "phenotype.csv", list_changed_files(new, kind), {"age": str(age or "")})
    with h5py.File(new / "connectomes.h5", "r+") as store:
        names = [subject.decode() for subject in store["subject"]]
        noise = np.random.default_rng(1).normal(0, 0.05, store["z"].shape)
        store["z"][:] += noise  # or they are those of training people
        for file in list_changed_files(new, "connectome"):
            store["z"][names.index(file.stem)] = np.abs(store["z"][names.index(file.stem)]) + 1.5
    reseal(new)
    places = "--everybody --model nn --chkPointDir {of}/ckpt --outDir {of}/"
    done(f"run.py --train --set members=1 --numIters 1 --dataDir {{of}}/home {places}train", of=folder)
    done(f"run.py --test --dataDir {{of}}/new {places}out", of=folder)
    done("abide-bundle {of}/ckpt/nn/everybody {of}/a.zip", of=folder)
    return folder


def list_changed_files(new: Path, kind: str) -> list[Path]:
    """The records of people who are changed so; those `as they are` are more."""
    names = sorted(new.glob("*.bin"))
    first_index = 12 + EACH * CHANGES.index(kind)
    return names[first_index : first_index + EACH] if kind != CHANGES[0] else names[: 12 + EACH]


def change_record(path: Path, change) -> bytes:
    content = path.read_bytes()
    volume = lab.read_record(path)[2][0]
    return content[:120] + np.ascontiguousarray(change(volume), "<f4").tobytes()


def read_reasons(folder: Path, kind: str) -> list[str]:
    table = lab.read_table(folder / "out/out_of_distribution.csv").set_index("file")["reasons"]
    return [table.get(file.name, "") for file in list_changed_files(folder / "new", kind)]


REASONS = {kind: words for kind, (*_, words) in (VOLUMES | TABLES | PERSON).items()}
REASONS["connectome"] = "connectome: the mean Fisher z is 1.[678]"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind, words in REASONS.items() if words])
def test_changes_are_reported_and_consequences_are_not(kind, folder):
    for reason_text in read_reasons(folder, kind):
        assert any(re.search(REASONS[kind], reason) for reason in reason_text.split("; ")), reason_text
        assert ("exchanged" in reason_text) == (kind == "exchanged") and ("negated" in reason_text) == (
            kind == "negated"
        )
        assert kind not in ("exchanged", "negated") or not re.search("correlation with the mean|too far", reason_text)


@pytest.mark.slow
def test_unchanged_people_new_sites_and_unknown_covariates_are_hardly_ever_reported(folder):
    reason_texts = [
        *read_reasons(folder, "as they are"),
        *read_reasons(folder, "site"),
        *read_reasons(folder, "unknown"),
    ]
    assert sum(map(bool, reason_texts)) <= 3
    assert not any(re.search("SITE|SEX|func_mean_fd", reasons_) for reasons_ in reason_texts)


@pytest.fixture(scope="module")
def bundle_files(folder) -> dict[str, bytes]:
    return read_bundle_files(folder / "a.zip")


def quantiles(values, probabilities=(0.05, 0.5, 0.95)) -> np.ndarray:
    return np.asarray(mstats.hdquantiles(np.ma.masked_invalid(values), probabilities))


@pytest.mark.slow
def test_a_bundle_keeps_quantiles_means_and_nobodys_value(folder, bundle_files):
    likeness = json.loads(bundle_files["likeness.json"])
    raw = pd.read_csv(folder / "home/phenotype.csv", dtype={"subject": str})
    maps, covariates = (pd.read_csv(folder / "home" / name) for name in ("maps.csv", "covariates.csv"))
    assert likeness["count"] == TRAINING and likeness["maps"] == ["falff"]
    for view, name, values in (
        ("person", "age", raw["age"]),
        ("person", "func_mean_fd", np.log(covariates["func_mean_fd"])),
        ("falff", "log sd", np.log(maps["sd"])),
        ("falff", "mean_in_sds", maps["mean"] / maps["sd"]),
    ):
        value_range, expected = likeness["ranges"][view][name], quantiles(values)
        if view != "person":
            sd = quantiles(np.abs(values - expected[1]), 0.5) / norm.ppf(0.75)
            expected = expected[1] + sd * norm.ppf([0.05, 0.5, 0.95])
        np.testing.assert_allclose(
            [value_range[end_name] for end_name in ("low", "middle", "high")], expected, rtol=1e-3
        )
    categories, females = likeness["categories"], (covariates["SEX"] == 2).mean()
    assert categories["SEX"] == pytest.approx({"1": 1 - females, "2": females, "unknown": 0}, abs=1e-3)
    assert categories["handedness_right"]["1"] == pytest.approx(raw["handedness_right"].mean(), abs=1e-3)
    assert "SITE_ID" not in categories
    text = bundle_files["likeness.json"].decode()
    assert not any(subject in text for subject in raw["subject"])
    ends = [round(end, 4) for range_by_end in likeness["ranges"]["person"].values() for end in range_by_end.values()]
    assert not pd.concat([raw["age"], raw["bmi"]]).dropna().round(4).isin(ends).any()
    records = sorted((folder / "home").glob("*.bin"))
    mean = np.mean([lab.read_record(path)[2][0] for path in records], axis=0, dtype=float)
    means = load_npz(bundle_files["likeness.npz"])
    np.testing.assert_allclose(means["volume"][..., 0], mean, atol=1e-6)
    with h5py.File(folder / "home/connectomes.h5") as store:
        edges = np.nanmean(store["z"], axis=0, dtype=float)
    np.testing.assert_allclose(means["edges"], edges, atol=1e-6)


@pytest.mark.slow
def test_a_shift_common_to_all_maps_is_reported_though_no_map_is_unlike():
    """15 maps, 8 measures, sites that differ: one measure of all maps is moved by three SDs of a single map."""
    random = np.random.default_rng(9)
    names = ["log roughness", "log sd", "log mean", "mean_in_sds", "alike", "sd_z", "mean_z", "log mean_r"]
    columns = pd.MultiIndex.from_product([[f"map {number}" for number in range(15)], names])

    def drawn(sites: int) -> pd.DataFrame:
        site = np.repeat(np.arange(sites), 12)
        shared = random.normal(size=(sites, 8))[site] * 0.2 + random.normal(size=(len(site), 8)) * 0.2
        individual = random.standard_t(5, (len(site), 15, 8))
        return pd.DataFrame((individual + shared[:, None]).reshape(len(site), -1), columns=columns)

    ranges, new = reference.compute_usual_ranges(drawn(9)), drawn(20)
    smoother = new.copy()
    smoother.loc[:, (slice(None), "log roughness")] -= 3.0

    def reported_fraction(person_values: pd.DataFrame, words: str = ".") -> float:
        sentences_by_person = make_sentences(person_values, ranges)
        is_reported = [any(re.search(words, text) for text in sentences) for sentences in sentences_by_person]
        return float(np.mean(is_reported))

    assert reported_fraction(new, "average") < 0.05
    assert (
        reported_fraction(smoother, "roughness") > 0.9
        and reported_fraction(smoother, "maps on average: the roughness is lower") > 0.6
    )
    assert reported_fraction(smoother, r"map \d.*roughness") < 0.4


def make_sentences(values: pd.DataFrame, ranges: dict) -> list[tuple[str, ...]]:
    return [
        reasons.format_deviations(person_findings, {}) for person_findings in reasons.find_deviations(values, ranges)
    ]


def test_nobody_is_far_from_a_number_common_to_all():
    """What is kept of a number has four digits."""
    values = pd.DataFrame({("connectome", "log volumes"): [np.log(120)] * 60, ("person", "born"): [19874321.0] * 60})
    ranges, shorter = reference.compute_usual_ranges(values), values[:1] - [np.log(2), 0]
    assert (
        make_sentences(values[:1], ranges) == [()]
        and "volumes of the series is 60" in make_sentences(shorter, ranges)[0][0]
    )


@pytest.mark.parametrize("name, far", [("x_mm", 4.8), ("shift_x", 3.6), ("side", 0.18), ("log sd", 0.36)])
def test_where_people_do_not_differ_a_least_spread_is_the_measure(name, far):
    """Six robust SDs, each of as much at least as means anything."""
    values = pd.DataFrame({("falff", name): [0.9] * 60})
    new = pd.DataFrame({("falff", name): [0.9 - 0.97 * far, 0.9 - 1.03 * far]})
    assert [
        bool(person_findings)
        for person_findings in reasons.find_deviations(new, reference.compute_usual_ranges(values))
    ] == [False, True]


def make_halves(values: np.ndarray, side: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({("contrast", "values"): values, ("contrast", "side"): side})


def test_maps_whose_sign_differs_between_people_are_not_called_negated_nor_mirrored():
    """As contrasts of a task: some lie between. Where none does, what is turned is told."""
    random = np.random.default_rng(0)
    strength = random.normal(0.5, 0.35, 80)
    varied = make_halves(np.tanh(strength), np.tanh(strength + random.normal(0, 0.05, 80)))
    alike = make_halves(*random.normal(0.7, 0.08, (2, 80)))
    turned = make_halves(np.array([-0.7, 0.7]), np.array([-0.7, -0.6]))
    assert (varied < -0.3).any(axis=None)
    all_sentences = " ".join(
        text for sentences in make_sentences(varied, reference.compute_usual_ranges(varied)) for text in sentences
    )
    assert not re.search("negated|exchanged", all_sentences)
    (negated,), (mirrored,) = make_sentences(turned, reference.compute_usual_ranges(alike))
    assert negated == "contrast: values look negated" and mirrored == "contrast: left and right look exchanged"
