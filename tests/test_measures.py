"""What maps are like as wholes: measured right, told apart by kind, and kept from telling the diagnosis."""

import csv
import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import read_rows, reseal
from scipy import ndimage, stats

from data.base.errors import InputError
from data.cohorts.findings import Findings
from data.cohorts.stored import open_cohort
from data.conversion import leaks, measures
from data.images import brain as brain_masks
from data.images import grids
from data.images.nifti import MapOnDisk, read_brain_maps

COARSE = np.array([[-24.0, 0, 0, 84], [0, 24, 0, -120], [0, 0, 24, -66], [0, 0, 0, 1]])


def brain_map(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """An ellipsoid of random values between 0.2 and 1 in a background of 0, (x, y, z) float32."""
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    values = np.random.default_rng(seed).uniform(0.2, 1, shape).round(2)
    return np.where(sum(np.square(axes)) < 0.8, values, 0).astype(np.float32)


LAS_3MM = np.array([[-3.0, 0, 0, 90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])


COUNT = 20


def make_scaled_map(kind: str, seed: int) -> np.ndarray:
    """A coarse fALFF map of a subject, or what DPABI makes of it, on a brain with smooth edges."""
    values = brain_map((8, 9, 7), seed) * np.float32(1 - 0.01 * (seed % 7))
    brain = values != 0
    if kind == "z":
        values[brain] = (values[brain] - values[brain].mean()) / values[brain].std()
    elif kind == "m":
        values[brain] /= values[brain].mean()
    elif kind == "alff":
        values *= 300 + 60 * (seed % 5)
    return values


def write_maps(folder: Path, kinds: list[str], affines: list[np.ndarray] | None = None) -> Path:
    """`fALFFMap_<1001..>.nii` and a table in which every other subject has autism."""
    folder.mkdir(parents=True)
    for number, kind in enumerate(kinds):
        affine = affines[number] if affines else COARSE
        nibabel.save(
            nibabel.Nifti1Image(make_scaled_map(kind, number), affine), folder / f"fALFFMap_{1001 + number}.nii"
        )
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "dx", "site"])
        writer.writerows([1001 + number, 1 + number % 2, "AB"[number // 2 % 2]] for number in range(len(kinds)))
    return folder


DX_OPTIONS = ("--grid", "reduced", "--labelColumn", "dx", "--positive", "1", "--phenotype", "")


@pytest.mark.parametrize("maps", [["falff"], ["falff", "null"]])
def test_subjects_and_maps_with_any_name_are_read_back(maps, tmp_path):
    subjects = ["NA", "nan", "007", "1e5", "=1+1", 'a, "b"']
    values = np.random.default_rng(0).normal(size=(len(maps), len(subjects), len(measures.MAP_MEASURES)))
    written_measures = {
        name: pd.DataFrame(map_values, columns=measures.MAP_MEASURES)
        for name, map_values in zip(maps, values, strict=True)
    }
    measures.write_map_measures(tmp_path / "maps.csv", subjects, written_measures)
    measures_by_map = measures.read_map_measures(tmp_path, subjects, maps)
    assert [*measures_by_map] == maps
    for name, map_values in zip(maps, values, strict=True):
        assert measures_by_map[name].index.tolist() == subjects
        np.testing.assert_array_equal(measures_by_map[name], map_values)
    incomplete_measures = {name: table.replace(table.iloc[0, 0], np.nan) for name, table in written_measures.items()}
    measures.write_map_measures(tmp_path / "maps.csv", subjects, incomplete_measures)
    assert measures.read_map_measures(tmp_path, subjects, maps) is None


def test_measures_by_hand(tmp_path):
    values = np.full((61, 73, 61), -2, np.float32)
    values[10:13, 20:22, 30] = [[1, 2], [3, 4], [5, 9]]
    nibabel.save(nibabel.Nifti1Image(values, LAS_3MM), tmp_path / "map.nii")
    map_measures = measures.measure_image(next(read_brain_maps([MapOnDisk(tmp_path / "map.nii")])))
    expected = {"background": -2, "mean": 4, "sd": np.std([1, 2, 3, 4, 5, 9]), "min": 1, "max": 9, "voxel_mm3": 27}
    expected |= {"x_mm": 90 - 3 * 11, "y_mm": -126 + 3 * 20.5, "z_mm": -72 + 3 * 30}
    expected["coverage"] = 6 * 27 / (91 * 109 * 91 * 8)
    expected |= {"common_value": -2, "common_share": 1 - 6 / values.size, "sides_differ": 0}
    assert map_measures == pytest.approx(expected, rel=1e-5)
    assert tuple(map_measures) == measures.MAP_MEASURES


KINDS = {
    "f": measures.UNIT_RANGE_KIND,
    "z": measures.Z_SCORED_KIND,
    "m": measures.MEAN_ONE_KIND,
    "alff": measures.POSITIVE_KIND,
}


def describe_maps(kinds: list[str]) -> pd.DataFrame:
    rows = []
    for number, kind in enumerate(kinds):
        values = make_scaled_map(kind, number)
        rows.append(measures.measure_volume(values, values != 0, COARSE))
    return pd.DataFrame(rows)


@pytest.mark.parametrize("kinds", [["f"] * 9, ["z"] * 9, ["m"] * 9, ["alff"] * 9, ["f", "z", "m", "alff"] * 3])
def test_kinds(kinds):
    assert measures.find_map_kinds(describe_maps(kinds)).tolist() == [KINDS[kind] for kind in kinds]


def test_negated_maps_are_another_kind():
    maps = describe_maps(["f"] * 9)
    maps.loc[3, ["mean", "min", "max"]] = (-maps.loc[3, ["mean", "max", "min"]]).tolist()
    assert measures.find_map_kinds(maps).tolist() == [
        *[measures.UNIT_RANGE_KIND] * 3,
        measures.SIGNED_KIND,
        *[measures.UNIT_RANGE_KIND] * 5,
    ]


def make_network_measures(count: int, seed: int) -> pd.DataFrame:
    """Measures of maps between -3 and 3 whose means lie on either side of 0, as those of networks do."""
    random = np.random.default_rng(seed)
    values = random.normal(
        random.normal(0, 0.2, count)[:, None], random.uniform(0.1, 0.5, count)[:, None], (count, 500)
    )
    return pd.DataFrame(
        [
            {"mean": map_values.mean(), "sd": map_values.std(), "min": map_values.min(), "max": map_values.max()}
            for map_values in values
        ]
    )


@pytest.mark.parametrize("count", [16, 40, 737])
@pytest.mark.parametrize("seed", range(5))
def test_network_maps_are_a_single_kind_and_half_z_scored_are_two(seed, count):
    maps = make_network_measures(count, seed)
    assert measures.find_map_kinds(maps).unique().tolist() == [measures.SIGNED_KIND]
    half = maps.index[::2]
    maps.loc[half, "min"], maps.loc[half, "max"] = -3.0, 3.0
    maps.loc[half, "mean"], maps.loc[half, "sd"] = 1e-8, 1.0
    assert (measures.find_map_kinds(maps)[half] == measures.Z_SCORED_KIND).all() and measures.find_map_kinds(
        maps
    ).nunique() == 2


def test_a_positive_map_with_a_low_mean_is_no_z_score():
    """Homotopic connectivity has a mean of 0.5 to 2 standard deviations and a few negative values."""
    maps = pd.DataFrame(
        {"mean": np.linspace(0.49, 1.9, 60), "sd": 1.0, "min": np.where(np.arange(60) % 3, 0.01, -0.2), "max": 3.5}
    )
    assert measures.find_map_kinds(maps).nunique() == 1


@pytest.mark.parametrize("seed", range(5))
def test_networks_from_few_people_are_a_single_kind(seed):
    """One map has positive values only, seven have means near 0, but not the standard deviation of z-scores."""
    maps = make_network_measures(7, seed)
    maps.loc[7] = {"mean": 0.4, "sd": 0.13, "min": 0.05, "max": 0.75}
    assert measures.find_map_kinds(maps).unique().tolist() == [measures.SIGNED_KIND]
    z_scored = pd.DataFrame({"mean": 1e-8, "sd": 1.0, "min": -3.0, "max": 3.0}, index=range(8, 16))
    assert set(measures.find_map_kinds(pd.concat([maps, z_scored]))) == {measures.Z_SCORED_KIND, measures.SIGNED_KIND}


def test_a_map_with_negative_values_was_not_divided_by_the_mean():
    """Of few people, homotopic connectivity has a mean near 1 and a gap to the next."""
    maps = pd.DataFrame({"mean": [0.9, 1.3, 1.4, 1.5], "sd": 1.1, "min": [-0.3, 0.1, 0.2, 0.3], "max": 3.8})
    assert measures.find_map_kinds(maps).unique().tolist() == [measures.POSITIVE_KIND]


@pytest.mark.parametrize("count", [10, 20, 40])
def test_few_people_are_rarely_called_smoothed(count):
    random = np.random.default_rng(count)
    assert sum(measures.find_lower_group_indices(random.normal(size=count)).size > 0 for _ in range(100)) <= 1


def test_stored_maps_with_either_sign_are_no_mixture():
    below = pd.DataFrame({"below": np.linspace(0.02, 0.95, 40)})
    assert measures.find_stored_volume_kinds(below).isna().all()
    assert measures.find_stored_volume_kinds(pd.DataFrame({"below": [0.0] * 20 + [0.5] * 20})).nunique() == 2


def test_voxels_with_several_sizes_are_reported_with_names():
    table = pd.DataFrame({"voxel_mm3": [27.0] * 12 + [8.0] * 3})
    sentence = measures.describe_voxel_sizes(table, [f"m{number}" for number in range(15)])
    assert sentence.endswith("12 of 3 mm (m0, m1, m2 and 9 more) and 3 of 2 mm (m12, m13, m14)")
    assert measures.describe_voxel_sizes(table.iloc[:12], ["m"] * 12) == ""


def test_amplitudes_about_1_are_a_single_kind():
    """ALFF in per cent: some maps lie below 1, the mean of some is 1."""
    maps = describe_maps(["f"] * 20)
    for name in ("mean", "sd", "min", "max"):
        maps[name] *= np.geomspace(0.4, 5, 20)
    assert measures.find_map_kinds(maps).nunique() == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind, second_kind", [("f", "z"), ("z", "m"), ("m", "f"), ("alff", "f"), ("m", "alff")])
@pytest.mark.parametrize("by_label", [True, False])
def test_mixed_kinds_are_not_converted(by_label, kind, second_kind, data_cli, tmp_path):
    kinds = [second_kind if (number % 2 if by_label else number < 3) else kind for number in range(COUNT)]
    folder = write_maps(tmp_path / "maps", kinds)
    outcome = data_cli("convert", folder, tmp_path / "out", *DX_OPTIONS, "--allowLeak")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert "The maps are of several kinds: " in outcome.err
    for name in (kind, second_kind):
        first = f"fALFFMap_{1001 + kinds.index(name)}.nii"
        assert f"{kinds.count(name)} {KINDS[name]} ({first}" in outcome.err
    assert "--only" in outcome.err
    assert not (tmp_path / "out").exists()


def shift_affine(millimetres: float) -> np.ndarray:
    affine = COARSE.copy()
    affine[1, 3] += millimetres
    return affine


@pytest.mark.slow
def test_maps_revealing_the_label_are_not_converted(data_cli, tmp_path):
    """The maps of one group lie 6 mm further to the front."""
    folder = write_maps(tmp_path / "maps", ["f"] * COUNT, [shift_affine(6 * (number % 2)) for number in range(COUNT)])
    refused = data_cli("convert", folder, tmp_path / "out", *DX_OPTIONS)
    assert refused.status == 2
    assert "The maps separate the training labels by y_mm (AUC 1.00)" in refused.err
    assert "--allowLeak" in refused.err
    assert not (tmp_path / "out").exists()
    accepted = data_cli("convert", folder, tmp_path / "out", *DX_OPTIONS, "--allowLeak")
    assert accepted.status < 2
    assert open_cohort(tmp_path / "out").metadata.accepted_leaks == ("the maps' y_mm (AUC 1.00)",)
    checked = data_cli("check", tmp_path / "out")
    assert checked.status == 1
    assert "PROBLEM       whole maps separate the training labels by y_mm (AUC 1.00)" in checked.out


@pytest.mark.slow
def test_measures_are_stored_and_honest_maps_pass(data_cli, tmp_path):
    folder = write_maps(tmp_path / "maps", ["f"] * COUNT, [shift_affine(15 * (number == 3)) for number in range(COUNT)])
    outcome = data_cli("convert", folder, tmp_path / "out", *DX_OPTIONS)
    assert outcome.status < 2, outcome.err
    assert " from 0 to 1\n" in outcome.out
    assert "1004.bin is unlike the others: falff: the centre of the brain is 15 mm too far to the front" in outcome.out
    rows = read_rows(tmp_path / "out" / "maps.csv")
    assert list(rows[0]) == ["subject", *measures.MAP_MEASURES]
    assert [row["subject"] for row in rows] == [str(1001 + number) for number in range(COUNT)]
    brain = make_scaled_map("f", 5)[make_scaled_map("f", 5) != 0].astype(float)
    assert float(rows[5]["mean"]) == pytest.approx(brain.mean(), rel=1e-5)
    checked = data_cli("check", tmp_path / "out")
    assert not re.search("PROBLEM       .*(kinds|separate|likeness)", checked.out)
    assert re.search("maps +falff: values from 0 to 1\n", checked.out)
    (tmp_path / "out" / "maps.csv").write_text("subject,mean\n1001,high\n")
    reseal(tmp_path / "out")
    damaged = data_cli("check", tmp_path / "out")
    assert damaged.status == 2
    assert "maps.csv is damaged" in damaged.err


@pytest.mark.parametrize("seed", range(3))
def test_separating_measures_against_scipy(seed):
    random = np.random.default_rng(seed)
    label = np.arange(40) % 2.0
    table = pd.DataFrame({"chance": random.normal(size=40), "mean": random.normal(size=40) - 2.5 * label, "same": 1.0})
    auc = stats.mannwhitneyu(table["mean"][label == 0], table["mean"][label == 1]).statistic / 400
    assert auc > 0.85
    assert leaks.find_separating_measures(table, label) == {"mean": pytest.approx(auc)}
    with pytest.raises(InputError, match=r"mean \(AUC "):
        leaks.check_map_measures(table, label, allow_leak=False)
    leaks.check_map_measures(table, label, allow_leak=True)


@pytest.mark.slow
def test_few_subjects_tell_the_label_by_chance():
    """Perfect order among 8 is no evidence, and honest measures of 20 are almost never refused."""
    assert leaks.find_separating_measures(pd.DataFrame({"mean": np.arange(8.0)}), np.array([0.0] * 4 + [1.0] * 4)) == {}
    random = np.random.default_rng(0)
    label = np.arange(20) % 2.0
    assert (
        sum(bool(leaks.find_separating_measures(pd.DataFrame(random.normal(size=(20, 10))), label)) for _ in range(200))
        <= 1
    )


def test_sites_differ_by_a_site_apart():
    random = np.random.default_rng(0)
    sites = ["A"] * 10 + ["B"] * 40 + ["C"] * 2
    values = random.normal(size=52)
    table = pd.DataFrame({"mean": values, "coverage": np.where(np.array(sites) == "A", 5 + values, values), "sd": 1.0})
    assert measures.find_site_dependent_measures(table, sites) == ["coverage"]
    assert measures.find_site_dependent_measures(table, ["A"] * 52) == []


def measure_volume(volume: np.ndarray) -> dict[str, float]:
    return measures.measure_stored_volume(volume, brain_masks.find_brain_mask(volume), grids.REDUCED)


def test_the_background_in_a_stored_volume_separates_z_scores():
    brain = brain_map(grids.REDUCED.shape, 0)
    below = [measure_volume(values)["below"] for values in (brain, np.where(brain, brain - 0.6, 0))]
    assert below[0] == 0
    assert 0.4 < below[1] < 0.6


def test_half_the_people_smoothed_are_listed_and_nobody_plain(cohort):
    opened = open_cohort(cohort)
    plain = [np.array(opened.read_volume(index)[..., 0]) for index in range(len(opened.rows))]
    names = [row.subject for row in opened.rows]

    def find_group_warnings(volumes):
        findings = Findings()
        leaks.check_group_differences(
            "maps", [pd.DataFrame(map(measure_volume, volumes))[["roughness"]]], opened.rows, findings
        )
        return findings.notes

    assert find_group_warnings(plain) == []
    half_smoothed = [
        np.where(brain_masks.find_brain_mask(volume), ndimage.gaussian_filter(volume, 8 / 2.355 / 6), volume)
        if person_index % 2
        else volume
        for person_index, volume in enumerate(plain)
    ]
    (warning,) = find_group_warnings(half_smoothed)
    assert warning.startswith(
        "20 of 40 participants have maps smoother than all others, as if only these had been smoothed: "
    )
    assert all(name in names[1::2] for name in warning.partition("smoothed: ")[2].partition(" and ")[0].split(", "))


def test_roughness_is_1_for_noise_and_small_for_a_slope():
    everywhere = np.ones((20, 20, 20), bool)
    noise = np.random.default_rng(0).normal(size=everywhere.shape)
    assert measures.compute_roughness(noise, everywhere) == pytest.approx(1, abs=0.05)
    slope = np.broadcast_to(np.arange(20.0), everywhere.shape)
    by_hand = np.concatenate([np.zeros(2 * 20 * 20 * 19), np.ones(20 * 20 * 19)]).mean() / (2 * np.arange(20).var())
    assert measures.compute_roughness(slope, everywhere) == pytest.approx(by_hand)
