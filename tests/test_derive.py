"""abide-data derive: maps of scans against independent computations; what is wrong with a scan is a line."""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lab
import nibabel
import numpy as np
import pandas as pd
import pytest
from bundles import read_bundle_files, rebuild_bundle
from commands import ROOT, Outcome, done, listing, run
from filelock import FileLock
from helpers import reseal
from lab import load_image
from nibabel.affines import apply_affine, from_matvec
from nibabel.eulerangles import euler2mat
from scipy.sparse.linalg import eigsh
from scipy.stats import friedmanchisquare, rankdata

SHAPE, VOLUMES, TR_S = lab.SCAN, lab.VOLUMES, lab.TR_S
INSIDE = lab.make_brain(SHAPE)
MOTION = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
OTHERS = ["csf", "white_matter", "cosine00"]
ELSEWHERE = os.environ | {"PYTHONPATH": str(ROOT)}  # of a process whose working folder is that of a test


@pytest.fixture
def bold(scans, tmp_path) -> Path:
    """A copy of the scans of three people, to spoil."""
    return lab.copy(scans, tmp_path / "fmriprep")


@pytest.fixture
def bare(bold) -> Path:
    """The same without confounds."""
    for path in bold.rglob("*confounds*"):
        path.unlink()
    return bold


def find_single_file(folder: Path, pattern: str) -> Path:
    (matching_path,) = folder.rglob(pattern)
    return matching_path


def scan_path(folder: Path, label: object, name: str = lab.REST_BOLD) -> Path:
    return find_single_file(folder, f"sub-{label}_{name}.nii.gz")


def confounds_path(folder: Path, label: object) -> Path:
    return find_single_file(folder, f"sub-{label}_*confounds*.tsv")


def run_derive(folder: Path | str, options: str = "", to: object = "out", **places: object) -> Outcome:
    """The command on a folder; `to` lies in the working folder of a test."""
    return run(f"abide-data derive {{of}} {{to}} {options}", of=Path(folder).absolute(), to=to, **places)


def read_map_json(folder: Path | str, label: object, name: str = "falff") -> dict:
    return json.loads(find_single_file(Path(folder), f"sub-{label}_*stat-{name}_boldmap.json").read_text())


def load_map(folder: Path | str, label: object, name: str = "falff") -> np.ndarray:
    path = find_single_file(Path(folder), f"sub-{label}_*stat-{name.replace('_', '')}_boldmap.nii.gz")
    return load_image(path).get_fdata(dtype=np.float32)


def copy_under_names(folder: Path, label: object, old: str, new: str) -> None:
    """The files of a person again, under other names."""
    for path in list(folder.rglob(f"sub-{label}_*{old}*")):
        shutil.copy(path, path.with_name(path.name.replace(old, new)))


# Independent computations


class Cleaned:
    """A series (volumes, voxels), of which some are kept, without regressors (volumes, some): `clean` (kept, voxels),
    and `make_filtered_scan` within the band."""

    def __init__(self, series, kept=None, regressors=None, band=(0.01, 0.1)):
        kept = np.ones(len(series), bool) if kept is None else kept
        regressor_values = np.zeros((len(series), 0)) if regressors is None else regressors
        series, regressor_values = (
            values[kept] - values[kept].mean(0, dtype=float) for values in (series, regressor_values)
        )
        self.clean = (
            series - regressor_values @ np.linalg.lstsq(regressor_values, series)[0]
            if regressor_values.size
            else series
        )
        self.times = np.flatnonzero(kept) - np.argmax(kept)
        self.count = self.times[-1] + 1
        hertz = np.arange(1, self.count // 2 + 1) / (self.count * TR_S)
        self.in_band = (hertz > band[0] - 1e-9) & (hertz < band[1] + 1e-9)
        angles = 2 * np.pi * TR_S * np.outer(self.times, hertz[self.in_band])
        waves = np.hstack([np.cos(angles), np.sin(angles)])
        waves -= waves.mean(0)
        fit = waves @ np.linalg.pinv(waves)
        self.filtered, regressor_values = fit @ series, fit @ regressor_values
        self.filtered -= regressor_values @ np.linalg.pinv(regressor_values) @ self.filtered
        length = np.linalg.norm(self.filtered, axis=0)
        self.varies = length > 1e-6 * np.linalg.norm(self.clean, axis=0)
        self.points = (self.filtered / np.where(self.varies, length, np.inf)).T

    def amplitudes(self) -> np.ndarray:
        """(frequencies, voxels) by the fit of a constant, a cosine and a sine."""
        amplitude_rows = []
        for k in range(1, self.count // 2 + 1):
            angle = 2 * np.pi * k * self.times / self.count
            design = np.column_stack([np.ones(len(angle)), np.cos(angle), np.sin(angle)])
            fitted = np.linalg.lstsq(design, self.clean, rcond=1e-6)[0]
            amplitude_rows.append(np.hypot(*fitted[1:]) / (1 if 2 * k == self.count else 2))
        return np.array(amplitude_rows)

    def alff(self) -> np.ndarray:
        return self.amplitudes()[self.in_band].sum(0)

    def falff(self) -> np.ndarray:
        amplitude = self.amplitudes()
        return amplitude[self.in_band].sum(0) / amplitude.sum(0)


def compute_falff(label: int | str, mask=INSIDE, measure: str = "falff", volumes=VOLUMES, **how) -> np.ndarray:
    """The map of a person of the lab, (x, y, z)."""
    volume = np.zeros(mask.shape)
    series = lab.make_scan(int(label), mask.shape, volumes)[mask].T.astype(float)
    volume[mask] = getattr(Cleaned(series, **how), measure)()
    return volume


def assert_close(computed: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(computed, expected, rtol=5e-4, atol=1e-5)


LARGE = (21, 22, 21)  # of more than 4096 voxels in the brain, which are taken so many at a time
OBLIQUE = euler2mat(0.35, 0.24, 0.15) * 8.7
MEASURES = "falff,alff,reho,degree_weighted,degree_binarize,eigenvector_weighted,eigenvector_binarize,vmhc"
REGRESSORS = [
    *MOTION,
    *(f"{name}{suffix}" for name in OTHERS[:2] for suffix in ("", "_derivative1", "_power2")),
    "cosine00",
]
REGRESSORS += [f"{name}_derivative1_power2" for name in OTHERS[:2]]
# The program computes in float32, which each kernel of OpenBLAS rounds otherwise: filtered series of length 1 lie
# within 1.5e-7 of those below, and their correlations within 6e-7. What lies nearer together than `NEAR` may therefore
# come in either order, or be equal.
NEAR = 2e-6


class Person:
    """A person whose maps were derived, with what is expected of them; of a large scan of some voxels only."""

    def __init__(self, folder: Path, label: object):
        image = load_image(scan_path(folder, label))
        self.out, self.label, self.affine = folder / "out", label, image.affine
        self.mask = lab.make_brain(image.shape[:3])
        table = pd.read_csv(confounds_path(folder, label), sep="\t")
        is_retained = ~(table["framewise_displacement"] > 0.5).to_numpy()
        series = image.get_fdata(dtype=np.float32)[self.mask].T.astype(float)
        self.cleaned = Cleaned(series, is_retained, table[REGRESSORS].bfill(limit=1).to_numpy())
        self.places = np.argwhere(self.mask)
        chosen = np.random.default_rng(0).permutation(len(self.places))[:150]
        self.sampled_voxels = np.unique([*chosen, *np.flatnonzero(~self.cleaned.varies)])

    def read_brain_values(self, name: str) -> np.ndarray:
        full_map = load_map(self.out, self.label, name)
        assert not full_map[~self.mask].any()
        return full_map[self.mask]

    def possible_reho(self, voxel: int) -> np.ndarray:
        """Kendall's W of a voxel for each way in which values that are nearly equal may be ranked."""
        around = (np.abs(self.places - self.places[voxel]).max(1) <= 1) & self.cleaned.varies
        if around.sum() < 9 or not self.cleaned.varies[voxel]:
            return np.zeros(1)
        series = self.cleaned.points[around]  # (voxels, times)
        voxels, times = series.shape
        order = np.argsort(series, axis=1)
        near_ties = np.argwhere(np.diff(np.take_along_axis(series, order, axis=1), axis=1) < NEAR)
        gains = np.zeros((len(near_ties), times))  # of the lower value of each, at the cost of the upper one
        for gain, (row, rank) in zip(gains, near_ties, strict=True):
            gain[order[row, rank : rank + 2]] = 1, -1
        ranks_gained = list(itertools.product([0, 0.5, 1], repeat=len(near_ties)))  # half a rank makes a tie
        rank_sums = rankdata(series, axis=1).sum(0) + np.array(ranks_gained) @ gains
        possible = 12 * rank_sums.var(1) / (voxels**2 * (times**2 - 1))
        assert possible[0] == pytest.approx(friedmanchisquare(*series.T).statistic / (voxels * (times - 1)))
        return possible

    def vmhc(self) -> list[float]:
        return [np.arctanh(np.clip(self.mirror_correlation(voxel), -0.999, 0.999)) for voxel in self.sampled_voxels]

    def mirror_correlation(self, voxel: int) -> float:
        """The correlation with the voxel nearest to the mirror image, if that is one of the brain."""
        image = apply_affine(np.linalg.inv(self.affine), apply_affine(self.affine, self.places[voxel]) * [-1, 1, 1])
        mirror_voxels = np.flatnonzero((self.places == np.rint(image)).all(1))
        return (self.cleaned.points[mirror_voxels] @ self.cleaned.points[voxel]).sum()

    def neighbour_correlations(self, kind: str) -> list[np.ndarray]:
        """Correlations above 0.25, or 1 there: of those that are above it beyond doubt, and of all that may be."""
        r = self.cleaned.points @ self.cleaned.points.T
        return [np.where(r > threshold, r if kind == "weighted" else 1, 0) for threshold in (0.25 + NEAR, 0.25 - NEAR)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> list[Person]:
    """A scan with scrubbed volumes; and a large one, whose axes are oblique and whose middle does not lie at x = 0, of
    which a voxel varies, but not in the band."""
    folder = lab.write_images(tmp_path_factory.mktemp("measured"))
    lab.bold(folder, lab.people(1, 1))
    lab.bold(folder, lab.people(1, 2), LARGE, 60)
    lab.edit(confounds_path(folder, 1), lambda table: add_motion(table, range(20, 80, 7)))
    affine = from_matvec(OBLIQUE, [3, -24, 18] - OBLIQUE @ (np.array(LARGE) - 1) / 2)

    def change(values: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = values.copy()
        if values.ndim > 3:
            values[10, 11, 10] = 1000 + 5 * np.cos(np.pi * np.arange(60))
        return values, affine

    for path in (scan_path(folder, 2), find_single_file(folder, "sub-2_*mask.nii.gz")):
        lab.edit(path, change)
    images = "--networks {of}/nets.nii.gz --series {of}/my_atlas.nii.gz"
    how = f"--maps {MEASURES},dual_regression {images} --confounds scrubbing-6"
    assert " 2 derived" in done(f"abide-data derive {{of}} {{of}}/out {how}", of=folder)
    return [Person(folder, 1), Person(folder, 2)]


def add_motion(table: pd.DataFrame, volumes) -> pd.DataFrame:
    table.loc[list(volumes), "framewise_displacement"] = "2"
    return table


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize("which", [0, 1], ids=["scrubbed", "large and oblique"])
def test_maps_equal_independent_computations(which, measured):
    person = measured[which]
    for name in ("falff", "alff"):
        assert_close(person.read_brain_values(name), getattr(person.cleaned, name)())
    vmhc = person.vmhc()
    np.testing.assert_allclose(person.read_brain_values("vmhc")[person.sampled_voxels], vmhc, atol=3e-5)
    assert np.count_nonzero(vmhc) > 60
    reho = person.read_brain_values("reho")[person.sampled_voxels]
    assert np.count_nonzero(reho) > 60
    for voxel, w in zip(person.sampled_voxels, reho, strict=True):
        assert np.abs(person.possible_reho(voxel) - w).min() < 1e-6
    for kind in ("weighted", "binarize"):
        least, most = person.neighbour_correlations(kind)
        degree = person.read_brain_values(f"degree_{kind}") + np.diag(least)  # with the voxel itself
        assert (degree > least.sum(1) - 1e-3).all() and (degree < most.sum(1) + 1e-3).all()
        # The first eigenvector is that without negative values.
        vector = person.read_brain_values(f"eigenvector_{kind}")
        (eigenvalue,) = eigsh(most, 1, return_eigenvectors=False)
        assert (vector >= 0).all() and vector @ most @ vector == pytest.approx(eigenvalue, rel=1e-3)
        assert (vector > least @ vector / eigenvalue - 2e-4).all()
        assert (vector < most @ vector / eigenvalue + 2e-4).all()
    assert person.cleaned.varies.sum() + which == len(person.places)
    assert not any(person.read_brain_values(name)[~person.cleaned.varies].any() for name in MEASURES.split(",")[2:])


@pytest.mark.slow
def test_dual_regression_and_series_are_two_regressions_and_means(measured):
    person = measured[0]
    networks = load_image(find_single_file(person.out, "*nets_probseg.nii.gz")).get_fdata()[INSIDE]
    series = person.cleaned.filtered / person.cleaned.filtered.std(0)
    design = np.column_stack([np.ones(len(networks)), networks])
    courses = np.linalg.lstsq(design, series.T)[0][1:].T
    assert_close(person.read_brain_values("dual_regression"), np.linalg.lstsq(courses / courses.std(0), series)[0].T)
    labels = load_image(find_single_file(person.out, "*myatlas_dseg.nii.gz")).get_fdata()[INSIDE]
    table = pd.read_csv(find_single_file(person.out, "sub-1_*seg-myatlas_stat-mean_timeseries.tsv"), sep="\t")
    assert list(table) == [f"parcel{number}" for number in range(1, 5)]
    for number, column in enumerate(table, 1):
        np.testing.assert_allclose(table[column], person.cleaned.filtered[:, labels == number].mean(1), atol=1e-4)


STRATEGIES = {  # parameters of motion that are regressed out
    "": [f"{name}{suffix}" for name in MOTION for suffix in ("", "_derivative1", "_power2", "_derivative1_power2")],
    "simple-12": [f"{name}{suffix}" for name in MOTION for suffix in ("", "_derivative1")],
    "none": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_confounds_follow_nilearns_strategies_and_unsteady_volumes_are_left_out(strategy, tmp_path):
    lab.bold(tmp_path / "bold", lab.people(1, 1), unsteady=3)
    outcome = run_derive("bold", f"--maps falff,alff {strategy and '--confounds'} {strategy}")
    assert outcome.err == "" and ("NOT CLEANED" in outcome.out) == (strategy == "none")
    table = lab.make_confounds(1, unsteady=3)
    columns = [*STRATEGIES[strategy], *OTHERS] if strategy != "none" else []
    how = {"kept": np.arange(VOLUMES) >= 3, "regressors": table[columns].bfill(limit=1).to_numpy()}
    for name in ("falff", "alff"):
        assert_close(load_map("out", 1, name), compute_falff(1, measure=name, **how))
    map_json = read_map_json("out", 1)
    assert (map_json["NumberOfVolumes"], map_json["NumberOfVolumesKept"]) == (VOLUMES, VOLUMES - 3)
    assert map_json["MeanFramewiseDisplacement"] == pytest.approx(table["framewise_displacement"].mean(), abs=1e-6)
    assert map_json["Derivation"]["confounds"] == (strategy or "simple")


@pytest.mark.slow
def test_smoothing_is_a_mean_by_distance_within_the_mask(bare):
    affine = lab.AFFINE @ np.diag([1, 0.8, 1.2, 1])
    for path in (scan_path(bare, 1), find_single_file(bare, "sub-1_*mask.nii.gz")):
        lab.edit(path, lambda scan_values, _: (scan_values, affine))
    assert run_derive(bare, "--smooth 30 --only '*sub-1_*'").status == 0
    places = np.argwhere(INSIDE) * nibabel.affines.voxel_sizes(affine)
    squares = np.square(places[:, None] - places[None]).sum(-1)
    weights = np.exp(-4 * np.log(2) * squares / 30**2)  # a half at 15 mm
    assert_close(load_map("out", 1)[INSIDE], weights @ compute_falff(1)[INSIDE] / weights.sum(1))
    assert not load_map("out", 1)[~INSIDE].any()
    assert read_map_json("out", 1)["Derivation"]["smoothing_mm"] == 30


@pytest.mark.slow
def test_runs_and_sessions_are_averaged_by_retained_volumes_and_series_joined(bare, tmp_path):
    lab.bold(tmp_path / "longer", lab.people(1, 1), volumes=160)
    copy_under_names(bare, 1, "task-rest", "ses-1_task-rest")
    scan_path(bare, 1).unlink()
    lab.edit(
        bare / f"sub-1/func/sub-1_{lab.SPACE}_desc-brain_mask.nii.gz",
        lambda mask_values, _: (0 * mask_values, lab.AFFINE),
    )
    copy_under_names(tmp_path / "longer", 1, "task-rest", "ses-2_task-rest")
    for path in (tmp_path / "longer").rglob("*_ses-2_*space*"):
        shutil.copy(path, bare / "sub-1/func")
    derive_output = done(
        "abide-data derive {of} out --only '*sub-1_*' --series {of}/my_atlas.nii.gz --maps falff", of=bare
    )
    assert (
        "1 participant with several runs or sessions, whose maps are averaged by the volumes kept: 1;" in derive_output
    )
    assert_close(load_map("out", 1), (120 * compute_falff(1, volumes=120) + 160 * compute_falff(1, volumes=160)) / 280)
    series = pd.read_csv(find_single_file(Path("out"), "sub-1_*timeseries.tsv"), sep="\t").to_numpy()
    for run_ in (series[:120], series[120:]):
        np.testing.assert_allclose([run_.mean(0), run_.std(0)], [[0] * 4, [1] * 4], atol=1e-6)
    chosen = run_derive(bare, "--only '*sub-1_ses-1_*' --maps falff")
    assert chosen.status == 2 and "was made of other files than now" in chosen.out


@pytest.mark.slow
def test_an_additional_run_has_separate_confounds(bold):
    copy_under_names(bold, 1, "task-rest", "task-rest_run-2")
    lab.edit(find_single_file(bold, "sub-1_*run-2*confounds*"), lambda table: add_motion(table, range(20, 40)))
    derive_output = done("abide-data derive {of} out --only '*sub-1_*' --confounds scrubbing", of=bold)
    assert " 1 derived" in derive_output and read_map_json("out", 1)["NumberOfVolumesKept"] == 2 * VOLUMES - 20


# What is written, and written again


@pytest.mark.slow
def test_a_derivative_describes_the_work_and_convert_reads_the_description(derived, scans, scan_cohort, tmp_path):
    assert (derived / "participants.tsv").read_bytes() == (scans / "participants.tsv").read_bytes()
    assert json.loads((derived / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    map_json = read_map_json(derived, 1, "dualregression")
    assert (map_json["LabelMap"], map_json["Derivation"]["networks"]["file"]) == (["visual", "motor"], "nets.nii.gz")
    assert load_map(derived, 1, "dualregression").shape == (*SHAPE, 2)
    cohort_json = json.loads((scan_cohort / "cohort.json").read_text())
    assert cohort_json["maps"] == ["falff", "dual_regression_visual", "dual_regression_motor"]
    sha256 = {
        name: hashlib.sha256((scans / f"{name}.nii.gz").read_bytes()).hexdigest() for name in ("nets", "my_atlas")
    }
    assert cohort_json["derivation"] == {
        "measures": ["falff", "dual_regression"],
        "band": [0.02, 0.08],
        "smoothing_mm": 30.0,
        "scans": "preprocessed",
        "confounds": "simple",
        "networks": {"file": "nets.nii.gz", "sha256": sha256["nets"], "names": ["visual", "motor"]},
        "parcels": {"file": "my_atlas.nii.gz", "sha256": sha256["my_atlas"]},
    }
    images = {"networks.nii.gz": "nets.nii.gz", "networks.txt": "nets.txt", "parcels.nii.gz": "my_atlas.nii.gz"}
    for name, source_name in (images | {"parcels.tsv": "my_atlas.tsv"}).items():
        assert (scan_cohort / "derivation" / name).read_bytes() == (scans / source_name).read_bytes()
    atlas = derived / "atlases/atlas-myatlas/atlas-myatlas_dseg.nii.gz"
    assert atlas.read_bytes() == (scans / "my_atlas.nii.gz").read_bytes()
    checked = done("abide-data check {of}", of=scan_cohort)
    assert "derived from scans: falff, dual_regression; band 0.02-0.08 Hz, smoothing 30 mm" in checked
    lab.edit(lab.copy(scan_cohort, tmp_path / "cohort") / "derivation/networks.nii.gz", "cut")
    refused = run("abide-data check cohort")
    assert refused.status == 2 and "derivation/networks.nii.gz edited" in refused.err


CODING = "--labelColumn group --positive A --grid reduced --phenotype ''"


@pytest.mark.slow
def test_head_motion_comes_from_the_map_json_if_the_table_has_none(bold):
    lab.edit(bold / "participants.tsv", lambda content: content.drop(columns="func_mean_fd"))
    confounds_path(bold, 3).unlink()
    lab.edit(confounds_path(bold, 2), lambda content: content.drop(columns="framewise_displacement"))
    lab.edit(
        bold / "my_atlas.nii.gz",
        lambda content, affine: (np.where(np.arange(content.size).reshape(SHAPE), content, np.int16(9)), affine),
    )
    (bold / "my_atlas.tsv").unlink()
    command_result = run_derive(bold, "--maps falff,alff --series {of}/my_atlas.nii.gz")
    assert command_result.status == 2 and "sub-3: no table of confounds for --confounds simple; " in command_result.out
    table = pd.read_csv(find_single_file(Path("out"), "sub-1_*seg-myatlas_stat-mean_timeseries.tsv"), sep="\t")
    assert list(table) == ["1", "2", "3", "4", "9"]
    assert len(table) == VOLUMES and table["9"].isna().all() and table["1"].notna().all()
    convert_output = done(f"abide-data convert out cohort --maps all {CODING}")
    assert "falff, alff, which all 2 participants have" in convert_output
    assert "mean_fd, mm, by the JSON beside the maps of 1 of 2 participants" in convert_output
    mean = lab.make_confounds(1)["framewise_displacement"].mean()
    moved = lab.read_table(Path("cohort/covariates.csv"))["mean_fd"].tolist()
    assert float(moved[0]) == pytest.approx(mean, rel=1e-4) and moved[1] == ""
    table = lab.read_table(Path("out/derived.csv"))
    assert list(table) == ["subject", "products", "mean_fd", "volumes", "volumes_kept", "voxels", "failed"]
    assert table["products"].tolist() == ["series alff falff"] * 2 + [""]
    assert float(table["mean_fd"][0]) == pytest.approx(mean, abs=1e-6) and not table["mean_fd"][1]
    assert table["failed"].str.contains("no table of confounds").tolist() == [False, False, True]
    for path in Path("out").rglob("*stat-alff_boldmap.json"):
        edit_derivation(path, band=[0.01, 0.08])
    convert_output = done(f"abide-data convert out other --maps all {CODING}")
    assert "so how is not kept: band 0.01-0.08 Hz, not 0.01-0.1 Hz, of alff" in convert_output


def edit_derivation(path: Path, **changes: object) -> None:
    """A JSON that says that its map was derived otherwise."""
    lab.edit(path, {"Derivation": json.loads(path.read_text())["Derivation"] | changes})


def read_contents(folder: Path) -> dict[Path, bytes]:
    """The bytes of each file, but for the ones that say where scans lie, and what they were."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "dataset_description.json"]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_repeated_derive_fills_the_gaps_and_maps_can_be_added(bold):
    run_derive(bold)
    first = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.*")}
    find_single_file(Path("out"), "sub-2_*falff*.nii.gz").unlink()
    find_single_file(Path("out"), "sub-3_*falff*.json").unlink()  # which is written last
    leftover = Path("out/sub-2/func/.unfinished.x.nii.gz")
    leftover.write_text("of a killed process")
    assert "2 derived, 1 were there, 0 failed" in run_derive(bold).out
    assert not leftover.exists()
    assert "3 derived, 0 were there, 0 failed" in run_derive(bold, "--maps falff,alff").out
    assert "0 derived, 3 were there, 0 failed" in run_derive(bold, "--maps falff,alff --jobs 2").out
    unchanged_paths = [path for path in first if "sub-1" in path.name]
    assert unchanged_paths and all(path.stat().st_mtime_ns == first[path] for path in unchanged_paths)
    assert not list(Path().rglob("*.lock"))


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [("bold.nii.gz", "mask.nii.gz"), ("confounds*.tsv", "bold.json")])
def test_old_maps_and_maps_from_another_scan_never_lie_side_by_side(replaced, bold):
    """A source of two people was replaced between two commands, the second of which asks for another measure."""
    run_derive(bold)
    before = read_contents(Path("out/sub-2"))
    paths = [find_single_file(bold, f"sub-{label}_*{name}") for label, name in enumerate(replaced, 1)]
    for path in paths:
        os.utime(path, (0, path.stat().st_mtime + 60))
    dry = run_derive(bold, "--maps reho --dryRun")
    assert "1 to derive, 0 are there, 2 cannot be" in dry.out
    outcome = run_derive(bold, "--maps reho")
    assert outcome.status == 2 and "1 derived, 0 were there, 2 failed" in outcome.out
    assert "convert leaves" not in outcome.err, "which it does not, as there are maps"
    for label, path in enumerate(paths, 1):
        words = f"(?m)^FAILED +sub-{label}: .* was made of other files than now, {path.name}[.] Remove out/sub-{label} "
        assert re.search(words, dry.out) and re.search(words, outcome.out)
    assert read_contents(Path("out/sub-2")) == before
    failed = lab.read_table(Path("out/derived.csv"))["failed"]
    assert failed.str.contains("made of other files").tolist() == [True, True, False]
    for label in (1, 2):
        shutil.rmtree(f"out/sub-{label}")
    assert "2 derived, 1 were there, 0 failed" in done("abide-data derive {of} out --maps reho", of=bold)
    assert not lab.read_table(Path("out/derived.csv"))["failed"].any()


@pytest.mark.slow
def test_a_dry_run_estimates_people_and_time_and_writes_nothing(bold, tmp_path):
    lab.edit(scan_path(bold, 2), b"no image")
    lab.edit(confounds_path(bold, 3), lambda table: table[:50])
    before = listing(tmp_path)
    dry = run_derive(bold, "--maps falff,reho --jobs 2 --dryRun")
    assert listing(tmp_path) == before and not dry.status
    assert "1 to derive, 0 are there, 2 cannot be" in dry.out
    assert re.search(r"(?m)^time +about \d+ s, 2 at a time; sub-1_.* took [\d.]+ s$", dry.out)
    assert "1 derived, 0 were there, 2 failed" in run_derive(bold, "--maps falff,reho").out
    assert "0 to derive, 1 are there, 2 cannot be" in run_derive(bold, "--maps falff,reho --dryRun").out


@pytest.mark.slow
def test_a_second_process_with_different_options_is_refused(scans, derived):
    command = [sys.executable, "-m", "data", "derive", scans, "out", "--band", "0.02,0.09"]
    with FileLock(".out.lock"):
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ELSEWHERE)
        assert any("confounds simple" in line for line in iter(second.stdout.readline, ""))
        shutil.copytree(derived, "out", dirs_exist_ok=True)
    second_output = second.communicate()[0]
    assert second.returncode == 2 and "0 derived, 0 were there, 3 failed" in second_output
    assert (
        len(
            re.findall("sub-[123]: out was derived with band 0.02-0.08 Hz, not 0.02-0.09 Hz, of [123]; ", second_output)
        )
        == 3
    )
    before, after = read_contents(derived), read_contents(Path("out"))
    assert before == {path: after[path] for path in before} | {Path("derived.csv"): before[Path("derived.csv")]}


@pytest.mark.slow
@pytest.mark.parametrize("first, again", [("study", "study/derivatives/fmriprep"), ("derivatives/fmriprep", "..")])
def test_scans_are_recognised_however_the_folder_is_written(first, again, scans, tmp_path, monkeypatch):
    study = tmp_path / "study"
    fmriprep = lab.copy(scans, study / "derivatives/fmriprep")
    places = {"study": tmp_path, "derivatives": study, "..": study / "derivatives"}
    for folder in (first, again):
        monkeypatch.chdir(places[folder.split("/")[0]])
        derive_output = done("abide-data derive {of} {to}", of=folder, to=tmp_path / "out")
    assert "0 derived, 3 were there, 0 failed" in derive_output
    find_single_file(tmp_path / "out", "sub-3_*.nii.gz").unlink()
    monkeypatch.chdir(tmp_path)
    assert "1 derived, 2 were there, 0 failed" in run_derive(fmriprep).out
    dataset = json.loads(Path("out/dataset_description.json").read_text())["DatasetLinks"]["bold"]
    for label in (2, 3):
        source = read_map_json("out", label)["Sources"][0].removeprefix("bids:bold:")
        assert ("out" / Path(dataset) / source).resolve() == scan_path(fmriprep, label)


@pytest.mark.slow
def test_divisions_and_jobs_write_the_same_bytes_as_a_single_process(scans):
    options = "--maps falff,vmhc --series {of}/my_atlas.nii.gz"
    run_derive(scans, options, "one")
    for share in ("2/2", "1/2"):
        derive_output = run_derive(scans, f"{options} --share {share}", "shares").out
        assert f" {share[0]} of 2: {3 - int(share[0])} of 3 participants" in derive_output
        is_derived = lab.read_table(Path("shares/derived.csv"))["products"] != ""
        assert is_derived.tolist() == [share == "1/2", True, share == "1/2"]
    words = ["derive", scans, "jobs", *options.format(of=scans).split(), "--jobs", "2"]
    subprocess.run([sys.executable, "-m", "data", *words], check=True, env=ELSEWHERE)
    for name in ("jobs", "shares"):
        assert read_contents(Path(name)) == read_contents(Path("one"))
    assert len(read_contents(Path("one"))) == 3 * 8 + 2 + 3  # an atlas with its names; .bidsignore, two tables


# Layouts and spaces


def test_pcp_needs_no_confounds_and_carries_the_table(tmp_path):
    folder = tmp_path / "abide/ABIDE_pcp/cpac/nofilt_noglobal"
    for label in (50002, 50003):
        clean = lab.make_scan(label, SHAPE, VOLUMES) - 1000 * INSIDE[..., None]
        lab.save(folder / f"Pitt_00{label}_func_preproc.nii.gz", clean)
        lab.save(folder / f"Pitt_00{label}_func_mask.nii.gz", INSIDE.astype(np.uint8))
    lab.people(1).to_csv(tmp_path / "abide/ABIDE_pcp/Phenotypic_V1.csv", index=False)
    derive_output = done("abide-data derive abide out")
    assert "PCP: 2 scans (MNI152)" in derive_output
    assert "scans cleaned, confounds none\n" in derive_output and "NOT CLEANED" not in derive_output
    assert lab.read_table(Path("out/Phenotypic_V1.csv")).equals(lab.people(1))
    assert_close(load_map("out", "0050003_space-MNI152"), compute_falff(50003))
    assert "leave it out" in run_derive("abide", "--confounds simple").err


@pytest.mark.slow
def test_xcp_ds_censored_volumes_do_not_enter_the_spectrum(bare):
    moved = np.isin(np.arange(VOLUMES), [20, 21, 40])
    copy_under_names(bare, 1, "preproc", "denoised")
    find_single_file(bare, "sub-1_*mask*").unlink()
    path = scan_path(bare, 1, f"{lab.SPACE}_desc-denoised_bold")
    lab.edit(path, lambda scan_values, affine: (scan_values[..., ~moved], affine))
    for name, values_ in (("outliers", moved.astype(int)), ("motion", np.full(VOLUMES, 0.25))):
        table = pd.DataFrame({"framewise_displacement": values_})
        table.to_csv(path.with_name(f"sub-1_task-rest_{name}.tsv"), sep="\t", index=False)
    outcome = run_derive(bare, "--only '*denoised*'")
    assert outcome.status == 0 and "1 participant, 1; voxels that vary are taken" in outcome.out
    assert_close(load_map("out", 1), compute_falff(1, kept=~moved))
    assert read_map_json("out", 1)["MeanFramewiseDisplacement"] == 0.25


@pytest.mark.slow
def test_an_unmasked_scan_is_measured_in_a_mask_from_the_mean(tmp_path):
    """Head in a noisy background, larger than the other scans, since nilearn opens the mask; and a slab in which it
    finds no brain."""
    shape = (20, 22, 20)
    bold = lab.bold(tmp_path / "bold", lab.people(2, 1), shape, 60)
    for mask in bold.rglob("*mask*"):
        mask.unlink()
    noise = np.random.default_rng(0).normal(50, 5, (*shape, 60)).astype(np.float32)
    lab.edit(
        scan_path(bold, 1),
        lambda scan_values, _: (np.where(scan_values > 0, scan_values, noise), np.diag([8.0, 8, 8, 1])),
    )
    lab.edit(scan_path(bold, 2), lambda _, affine: (noise[:8, :9, :8] + 950, affine))
    derive_output = done("abide-data derive bold out --confounds none")
    assert "compute_epi_mask finds no brain, so all voxels that vary are taken: 1 participant, 2\n" in derive_output
    assert (load_map("out", 2) > 0).all()
    is_measured, brain = load_map("out", 1) != 0, lab.make_brain(shape)
    assert (is_measured & brain).sum() > 0.9 * brain.sum() and (is_measured & ~brain).sum() < 0.1 * is_measured.sum()


@pytest.mark.slow
def test_a_column_names_scans_whose_space_is_taken_to_be_mni(tmp_path):
    for label in (1, 2):
        lab.save(tmp_path / f"bold/p{label}.nii", lab.make_scan(label, SHAPE, VOLUMES))
    table, how = tmp_path / "bold/people.csv", "--boldColumn path --idColumn id"
    table.write_text("id,path\n1,p1.nii\n2,p2.nii\n3,p3.nii\n")
    derive_output = done(f"abide-data derive bold out {how}")
    assert "1 rows without a scan: 3" in derive_output
    assert "the names of 2 scans do not say their space; it is taken to be MNI152" in derive_output
    assert_close(load_map("out", 2), compute_falff(2))
    shutil.copy(tmp_path / "bold/p1.nii", tmp_path / "bold/sub-1_desc-preproc_bold.nii")
    table.write_text("id,path\n1,sub-1_desc-preproc_bold.nii\n")
    assert "the names of 1 scans do not say their space" in done(f"abide-data derive bold spaceless {how}")
    nback = lab.REST_BOLD.replace("rest", "nback")
    names = [
        f"sub-{scan_name}.nii" for scan_name in (f"1_{lab.REST_BOLD}", f"1_{nback}", f"2_{lab.REST_BOLD}", f"3_{nback}")
    ]
    for name in names:
        shutil.copy(tmp_path / "bold/p1.nii", tmp_path / "bold" / name)
    table.write_text("id,path\n" + "".join(f"{name[4]},{name}\n" for name in names))
    assert "sub-1: several scans that differ in task" in run_derive("bold", how, "tasks").out
    assert " 2 derived" in done(f"abide-data derive bold nback {how} --only '*_task-nback_*'")


@pytest.mark.slow
def test_people_whose_scan_is_not_clear_fail_together_and_the_remaining_are_done(tmp_path):
    """Two resolutions of two people, two echoes of another: one line for each kind, whose advice does the rest."""
    bold = lab.bold(tmp_path / "bold", lab.people(7, 1), volumes=60)
    for label in (1, 2):
        copy_under_names(bold, label, "_desc-preproc", "_res-2_desc-preproc")
    for echo in (1, 2):
        copy_under_names(bold, 3, "task-rest_space", f"task-rest_echo-{echo}_space")
    scan_path(bold, 3).unlink()
    how = "--confounds simple-6"
    outcome = run_derive(bold, how)
    assert outcome.status == 2
    assert re.search(r"sub-1, sub-2: several scans that differ in res .*--only '\*_res-2\[_.]", outcome.out)
    assert re.search(r"sub-3: several scans that differ in echo .*--only '\*_echo-1\[_.]", outcome.out)
    assert "4 derived, 0 were there, 3 failed" in outcome.out
    for glob in ("*_echo-1_*", "*_res-2_*"):
        assert run_derive(bold, f"{how} --only '{glob}'").status == 0
    names = {path.name.replace(path.parts[-3], "sub") for path in Path("out").rglob("sub-*.nii.gz")}
    assert len(names) == 1, "convert refuses maps of several kinds"
    assert lab.read_table(Path("out/derived.csv"))["failed"].tolist() == [""] * 7
    assert "0 derived, 4 were there, 3 failed" in run_derive(bold, how).out


@pytest.mark.slow
def test_scans_with_unusual_spaces_or_names_are_listed_and_left_alone(bold):
    for label in (1, 2, 3):
        copy_under_names(bold, label, "space-MNI152NLin6Asym_desc-preproc", "space-T1w_desc-preproc")
    for invalid_label in ("AB_1", "A.1", "A 1"):
        shutil.copy(scan_path(bold, 1), bold / f"sub-{invalid_label}_{lab.REST_BOLD}.nii.gz")
    derive_output = done("abide-data derive {of} out", of=bold)
    assert re.search(
        "left alone: 3 in space T1w, such as sub-1/.*, 3 whose names do not say whose .* sub-A 1_", derive_output
    )
    assert {path.name for path in Path("out").glob("sub-*")} == {"sub-1", "sub-2", "sub-3"}


# Wrong scans


def edit_scan(path: Path, change, tr_s: float = TR_S, unit: str = "sec", json_tr_s: object = TR_S) -> None:
    """A scan with other values, and a repetition time in header and JSON."""
    scan_values = load_image(path).get_fdata(dtype=np.float32)
    image = nibabel.Nifti1Image(change(scan_values) if change else scan_values, lab.AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = tr_s
    nibabel.save(image, path)
    json_path = path.with_name(path.name.replace(".nii.gz", ".json"))
    json_path.write_text(json.dumps({} if json_tr_s is None else {"RepetitionTime": json_tr_s}))


def write_mask(path: Path, mask: np.ndarray, affine: np.ndarray = lab.AFFINE) -> None:
    lab.save(path.with_name(path.name.replace("preproc_bold", "brain_mask")), mask.astype(np.uint8), affine)


def edit_confounds(path: Path, change: Callable) -> None:
    lab.edit(next(path.parent.glob("*confounds*")), change)


def make_filtered_scan(scan_values: np.ndarray) -> np.ndarray:
    times = 2 * np.pi * 0.05 * TR_S * np.arange(VOLUMES)
    random = np.random.default_rng(0).normal(size=(*SHAPE, 2))
    return INSIDE[..., None] * (random @ [np.sin(times), np.cos(times)]).astype(np.float32)


def filter_before(path: Path) -> None:
    """A scan as a filter leaves it, whose confounds tell nothing."""
    edit_confounds(path, zero_regressors)
    edit_scan(path, make_filtered_scan)


def zero_regressors(table: pd.DataFrame) -> pd.DataFrame:
    """A table of which nothing is regressed out."""
    return table.assign(**dict.fromkeys(table.columns.drop("framewise_displacement"), "0"))


def flip_checksum(path: Path) -> None:
    """That of the values, which nibabel does not read."""
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)


ONE_VOXEL = np.eye(1, INSIDE.size, 300).reshape(SHAPE)
FAULTS = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "is not a readable NIfTI map"),
    "checksum": (flip_checksum, "CRC check failed"),
    "3-D": (lambda path: edit_scan(path, lambda content: content[..., 0]), "is 3-D"),
    "no repetition time": (lambda path: edit_scan(path, None, 0, "sec", None), "not say its repetition time.*Repet"),
    "milliseconds without a unit": (
        lambda path: edit_scan(path, None, 2000, "unknown", None),
        "not say its repetition",
    ),
    "milliseconds in the JSON": (
        lambda path: edit_scan(path, None, json_tr_s=2000),
        "RepetitionTime is 2000; expected sec",
    ),
    "empty mask": (lambda path: write_mask(path, 0 * INSIDE), "brain_mask.* is empty"),
    "mask of another affine": (lambda path: write_mask(path, INSIDE, 2 * lab.AFFINE), "has another grid"),
    "nothing varies": (lambda path: edit_scan(path, lambda content: 0 * content), "holds nothing that varies"),
    "no number": (
        lambda path: edit_scan(path, lambda content: np.nan * content),
        "NaN or infinity in 168 of 168 voxels",
    ),
    "four volumes": (
        lambda path: edit_scan(path, lambda content: content[..., :4]),
        "(4 volumes|no frequency|degrees of freedom)",
    ),
    "short table": (lambda path: edit_confounds(path, lambda content: content[:50]), "50 rows, .* 120 volumes"),
    "lacking columns": (
        lambda path: edit_confounds(path, lambda content: content[["csf"]]),
        "not serve --confounds simple: .*Neither",
    ),
    "text": (
        lambda path: edit_confounds(path, lambda content: content.assign(csf="x")),
        "holds 'x' in the column csf; expected num",
    ),
    "too large": (
        lambda path: edit_scan(path, lambda content: content * np.float32(1e30)),
        "varies by .*Was it scaled by mistake",
    ),
    "filtered": (
        filter_before,
        "was filtered before, so fALFF says no",
    ),
    "grids of runs": (lambda path: split_into_two_grids(path), "has another grid than .*expected runs on one grid"),
    "networks alike": (lambda path: write_mask(path, ONE_VOXEL), "2 maps of networks do not differ within"),
}


def split_into_two_grids(path: Path) -> None:
    """Two runs."""
    for file_path in list(path.parent.iterdir()):
        first_path, second_path = (
            file_path.with_name(file_path.name.replace("task-rest", f"task-rest_run-{number}")) for number in (1, 2)
        )
        shutil.copy(file_path.rename(first_path), second_path)
        if second_path.suffix == ".gz":
            lab.edit(second_path, lambda values, affine: (values[:-1], affine))


@pytest.mark.slow
def test_a_wrong_scan_is_a_line_and_the_remaining_are_done(tmp_path):
    bold = lab.write_images(lab.bold(tmp_path / "bold", lab.people(1 + len(FAULTS), 1)))
    for label, (spoil, _) in enumerate(FAULTS.values(), 2):
        spoil(scan_path(bold, label))
    outcome = run_derive(bold, "--maps falff,dual_regression --networks {of}/nets.nii.gz")
    assert outcome.status == 2
    for label, (fault, (_, words)) in enumerate(FAULTS.items(), 2):
        assert re.search(f"(?m)^FAILED +sub-{label}: .*{words}", outcome.out), fault
    assert f"{len(FAULTS)} participants failed, for the reasons above: 10, 11, 12, 13" in outcome.err
    assert f"1 derived, 0 were there, {len(FAULTS)} failed" in outcome.out
    assert {path.parts[1] for path in Path("out").rglob("*.nii.gz")} == {"sub-1", "atlases"}


@pytest.mark.slow
def test_people_without_confounds_or_moving_too_much_are_listed(bold):
    confounds_path(bold, 1).unlink()
    lab.edit(confounds_path(bold, 2), lambda confounds_table: add_motion(confounds_table, range(VOLUMES)))
    derive_output = run_derive(bold, "--confounds scrubbing").out
    assert re.search("(?m)^FAILED +sub-1: no table of confounds for --confounds scrubbing; ", derive_output)
    assert re.search("(?m)^FAILED +sub-2: .*no volume is kept by --confounds scrubbing", derive_output)
    assert "1 derived, 0 were there, 2 failed" in derive_output
    table = lab.read_table(Path("out/derived.csv"))
    assert table[["volumes", "volumes_kept"]].to_numpy().tolist() == [["", ""]] * 2 + [["120", "120"]]
    assert (table["failed"] != "").tolist() == [True, True, False]


def read_advice(outcome: Outcome) -> str:
    """The option that a failure advises."""
    return re.search(r"FAILED .*?(--(?:confounds|band) \S+) serves: take it", outcome.out)[1]


@pytest.mark.slow
@pytest.mark.parametrize("confounds_option", ["", "--confounds scrubbing", "--confounds compcor"])
def test_a_reduced_table_is_read_and_the_advice_on_the_gaps_works(confounds_option, tmp_path):
    """As nilearn's `fetch_development_fmri` has them: of head motion, six parameters only."""
    bold = lab.bold(tmp_path / "bold", lab.people(2, 1))
    for label in (1, 2):
        table = confounds_path(bold, label)
        lab.edit(
            table,
            lambda confounds_table: confounds_table[
                [name for name in confounds_table if "derivative" not in name and "power2" not in name]
            ],
        )
        table.rename(table.with_name(table.name.replace("desc-confounds", "desc-reducedConfounds")))
    outcome = run_derive("bold", confounds_option)
    assert (
        outcome.status == 2
        and "NOT CLEANED" not in outcome.out
        and "/tmp" not in outcome.out.replace(str(tmp_path), "")
    )
    assert re.search("FAILED .*sub-.*desc-reducedConfounds_timeseries.(tsv|json) ", outcome.out)
    assert read_advice(outcome) == "--confounds simple-6"
    assert "2 derived" in done(f"abide-data derive bold again {read_advice(outcome)}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["task-rest_bold_confounds", "task-rest_desc-confounds_regressors"])
def test_a_table_from_an_old_version_is_recognised(name, bold):
    table = confounds_path(bold, 1)
    lab.edit(table, lambda confounds_table: confounds_table[["csf"]].assign(FramewiseDisplacement=0.1, RotX=0.0))
    table.rename(table.with_name(f"sub-1_{name}.tsv"))
    outcome = run_derive(bold, "")
    assert re.search(rf"FAILED +sub-1: .*{name}.tsv is of fMRIPrep 1.0 or 1.1.*Preprocess", outcome.out)
    assert "2 derived" in outcome.out


@pytest.mark.slow
def test_a_short_scan_is_advised_to_take_fewer_confounds_and_then_is_done(tmp_path):
    """48 volumes have 18 sinusoids in the band: 27 confounds leave nothing of them, 9 leave enough."""
    lab.bold(tmp_path / "bold", lab.people(2, 1), volumes=48)
    derive_output = run_derive("bold").out
    assert "with 27 confounds leave 0 degrees of freedom" in derive_output
    assert "--confounds simple-6 serves: take it for all" in derive_output
    save = lab.save(tmp_path / "ten.nii.gz", np.random.default_rng(0).random((*SHAPE, 10), np.float32))
    derive_output = run_derive("bold", "--confounds simple-6 --maps dual_regression --networks {ten}", ten=save).out
    assert "has 9 degrees of freedom in the band; expected one for each of 10 networks" in derive_output
    assert (
        "--band 0.01,0.2 serves" in derive_output
        and "--confounds" not in derive_output.partition("10 networks")[2].partition(")")[0]
    )
    assert run_derive("bold", "--confounds simple-6").status == 0
    assert done("abide-data derive bold wide --confounds simple-6 --band 0.01,0.2 --maps falff")
    falff_values = load_image(next(Path("wide").rglob("*falff*.nii.gz"))).get_fdata()[INSIDE]
    assert falff_values.max() < 0.99  # a share of all frequencies, which tells nothing, would be 1


@pytest.mark.slow
def test_an_atlas_without_parcels_in_the_scan_fails_and_few_parcels_are_a_warning(bare):
    """Of 20 parcels, six lie where two people have a brain, and seven where the third has one; then none does."""
    places = np.argwhere(INSIDE)
    lab.edit(
        find_single_file(bare, "sub-3_*mask*"),
        lambda mask_values, affine: (mask_values * (np.indices(SHAPE)[0] != places[-1][0]), affine),
    )
    atlas, outside = np.zeros(SHAPE, np.int16), np.argwhere(~INSIDE)
    atlas[tuple(places[-1])] = 1
    atlas[tuple(places[20:26].T)] = range(2, 8)
    atlas[tuple(outside[:13].T)] = range(8, 21)
    lab.save(bare / "off.nii.gz", atlas)
    lab.save(bare / "elsewhere.nii.gz", np.where(INSIDE, 0, atlas))
    for dry in ("--dryRun", ""):
        outcome = run_derive(bare, f"--series {{of}}/off.nii.gz {dry}")
        assert outcome.status == 0
        assert re.search(
            r"WARNING +13 to 14 of 20 parcels of off.nii.gz .* MNI152NLin6Asym: 3 participants", outcome.out
        )
    lacking = {
        path.parts[1]: pd.read_csv(path, sep="\t").isna().all().sum()
        for path in Path("out").rglob("*.tsv")
        if path.name.endswith("timeseries.tsv")
    }
    assert lacking == {"sub-1": 13, "sub-2": 13, "sub-3": 14}
    for dry, status in (("--dryRun", 0), ("", 2)):
        outcome = run_derive(bare, f"--series {{of}}/elsewhere.nii.gz {dry}", "elsewhere")
        assert outcome.status == status
        assert re.search("FAILED +sub-1, sub-2, sub-3: .*none of the 13 parcels .* MNI152NLin6Asym", outcome.out)
    assert not [path for path in Path("elsewhere").rglob("sub-*") if path.is_file()]


def rewrite_scan(
    path: Path, volumes: int, edge_mm: float, header: tuple[float, str], json_content: dict | None = None
) -> None:
    """A scan of so many volumes, in cubes of this edge, with a repetition time and its unit in the header; and a JSON
    that says this, or none."""
    affine = np.diag([edge_mm, edge_mm, edge_mm, 1])
    image = nibabel.Nifti1Image(load_image(path).get_fdata(dtype=np.float32)[..., :volumes], affine)
    for linked in (path, path.with_name(path.name.replace("preproc_bold", "brain_mask"))):
        linked.unlink()  # so that what it was copied from keeps its own
    write_mask(path, INSIDE, affine)
    image.header.set_xyzt_units("mm", header[1])
    image.header["pixdim"][4] = header[0]
    nibabel.save(image, path)
    json_path = path.with_name(path.name.replace(".nii.gz", ".json"))
    json_path.unlink()
    if json_content is not None:
        json_path.write_text(json.dumps(json_content))


@pytest.mark.slow
def test_doubtful_scans_are_done_with_warnings_and_good_ones_without(bare, tmp_path):
    """7 frequencies are 14 degrees of freedom, and 10 are enough."""
    good = lab.bold(tmp_path / "good", lab.people(3, 1), volumes=120)
    for path in good.rglob("*confounds*"):
        path.unlink()
    rewritten: dict[Path, list[tuple]] = {
        good: [(110, 6, (1000, "msec")), (120, 6, (1, "sec"), {"RepetitionTime": 1}), (60, 2, (2, "unknown"))],
        bare: [(120, 6, (1, "sec")), (38, 6, (2, "sec")), (120, 7.5, (2, "sec"))],
    }
    for folder, how in rewritten.items():
        for label, scan_arguments in enumerate(how, 1):
            rewrite_scan(scan_path(folder, label), *scan_arguments)
    for dry in ("--dryRun", ""):
        outcome = run_derive(good, f"--confounds none {dry}", "good_maps")
        assert outcome.status == 0 and outcome.out.count("WARNING") == 1 and "NOT CLEANED" in outcome.out
        outcome = run_derive(bare, dry)
        assert outcome.status == 0 and outcome.out.count("WARNING") == 4
        assert re.search(
            "WARNING +repetition time of exactly 1 s, by the header alone.*: 1 participant, 1\n", outcome.out
        )
        assert re.search("WARNING +14 degrees of freedom in the band.*: 1 participant, 2\n", outcome.out)
        assert re.search("WARNING +voxels of 7.5 mm.*: 1 participant, 3\n", outcome.out)


@pytest.mark.slow
def test_two_affines_disagreeing_on_left_and_right_are_a_warning(bare):
    path = scan_path(bare, 2)
    image = load_image(path)
    image = nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, image.header)
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine * np.array([[-1], [1], [1], [1]]), 4)
    path.unlink()
    nibabel.save(image, path)
    outcome = run_derive(bare, "--dryRun")
    assert outcome.status == 0
    assert re.search("WARNING +qform and sform of the scan disagree .* left.*: 1 participant, 2\n", outcome.out)


# What is read rightly


def store_scaled(path: Path) -> None:
    """int16 with a slope."""
    image = load_image(path)
    made = nibabel.Nifti1Image((image.get_fdata() / 0.05).round().astype(np.int16), lab.AFFINE, image.header)
    made.header.set_data_dtype(np.int16)
    made.header.set_slope_inter(0.05, 0)
    nibabel.save(made, path)


def lose_value(scan_values: np.ndarray) -> np.ndarray:
    scan_values[4, 4, 4, 7] = np.nan
    return scan_values


FORMS = {
    "int16 with a slope": (store_scaled, ""),
    "milliseconds in the header": (lambda path: edit_scan(path, None, 2000, "msec", None), ""),
    "no JSON": (lambda path: path.with_name(path.name.replace(".nii.gz", ".json")).unlink(), ""),
    "header and JSON differ": (
        lambda path: edit_scan(path, None, 3),
        "differ in the repetition time; that of the JSON",
    ),
    "no number": (
        lambda path: edit_scan(path, lose_value),
        "voxels without a number in some volume are left out of the mask",
    ),
}


@pytest.mark.slow
def test_all_forms_in_which_a_scan_is_stored_give_the_same_map(tmp_path):
    bold = lab.bold(tmp_path / "bold", lab.people(len(FORMS), 1))
    for path in bold.rglob("*confounds*"):
        path.unlink()
    for label, (change, _) in enumerate(FORMS.values(), 1):
        change(scan_path(bold, label))
    derive_output = run_derive("bold").out
    for label, (fault, (_, words)) in enumerate(FORMS.items(), 1):
        mask = INSIDE.copy()
        mask[4, 4, 4] &= fault != "no number"
        np.testing.assert_allclose(
            load_map("out", label), compute_falff(label, mask), rtol=5e-3, atol=1e-4, err_msg=fault
        )
        assert read_map_json("out", label)["NumberOfVoxels"] == mask.sum()
        assert not words or re.search(f"(?m)^note .*{words}.*: 1 participant, {label}$", derive_output), fault


@pytest.mark.slow
@pytest.mark.parametrize("change", [np.diag([-1, 1, 1, 1]), np.diag([1, 1, 1, 6]) / 6], ids=["RAS", "4 mm"])
def test_affines_are_preserved(change, bare):
    affine = change @ lab.AFFINE
    find_single_file(bare, "sub-1_*mask*").unlink()
    lab.edit(scan_path(bare, 1), lambda scan_values, _: (scan_values, affine))
    measures = "--maps falff,vmhc,dual_regression --networks {of}/nets.nii.gz"
    done(f"abide-data derive {{of}} out --only '*sub-1_*' {measures}", of=bare)
    falff_image = load_image(find_single_file(Path("out"), "*stat-falff_boldmap.nii.gz"))
    np.testing.assert_allclose(falff_image.affine, affine, atol=1e-4)
    assert falff_image.header["sform_code"] == 4
    assert_close(falff_image.get_fdata(), compute_falff(1))


# Like a cohort


@pytest.fixture(scope="module")
def new(tmp_path_factory, scans) -> Path:
    """A folder with `bold` of two new people, and their `maps` by the options of `derived`."""
    folder = tmp_path_factory.mktemp("new")
    lab.bold(folder / "bold", lab.people(2, 4))
    done(f"abide-data derive {{new}}/bold {{new}}/maps {OPTIONS}", new=folder, of=scans)
    return folder


OPTIONS = (
    "--maps falff,dual_regression --band 0.02,0.08 --smooth 30 --confounds simple "
    "--networks {of}/nets.nii.gz --series {of}/my_atlas.nii.gz"
)


def bundle_with_derivation(bundle: Path, cohort: Path, to: Path) -> Path:
    """A bundle that says the derivation of the cohort, with its images."""
    data = json.loads(read_bundle_files(bundle)["data.json"])
    data["metadata"]["derivation"] = json.loads((cohort / "cohort.json").read_text())["derivation"]
    derivation_files = {f"derivation/{path.name}": path.read_bytes() for path in (cohort / "derivation").glob("*.*")}
    return rebuild_bundle(bundle, to, derivation_files | {"data.json": json.dumps(data).encode()})


@pytest.mark.slow
@pytest.mark.parametrize("form", ["cohort", "zip", "bundle"])
def test_new_people_get_the_bytes_from_equal_options(form, new, scan_cohort, tmp_path, request):
    template = scan_cohort
    if form == "zip":
        done("abide-data pack {of} zip --zip", of=scan_cohort)
        template = tmp_path / "zip"
        assert read_contents(template / "derivation") == read_contents(scan_cohort / "derivation")
    if form == "bundle":
        template = bundle_with_derivation(request.getfixturevalue("bundle"), scan_cohort, tmp_path / "a.zip")
    derive_output = done("abide-data derive {new}/bold maps --like {of}", new=new, of=template)
    assert "falff, dual_regression; band 0.02-0.08 Hz, smoothing 30 mm, scans preprocessed, conf" in derive_output
    assert read_contents(Path("maps")) == read_contents(new / "maps")


@pytest.mark.slow
def test_new_maps_are_converted_as_the_cohort_and_missing_json_is_not_compared(new, scan_cohort, tmp_path):
    maps = lab.copy(new / "maps", tmp_path / "maps")
    assert "could not be compared" not in done("abide-data convert maps cohort --like {of}", of=scan_cohort)
    metadata_pair = [json.loads((folder / "cohort.json").read_text()) for folder in (tmp_path / "cohort", scan_cohort)]
    assert metadata_pair[0]["derivation"] == metadata_pair[1]["derivation"]
    assert read_contents(Path("cohort/derivation")) == read_contents(scan_cohort / "derivation")
    for path in maps.rglob("*_boldmap.json"):
        edit_derivation(path, smoothing_mm=29)
    refused = run("abide-data convert maps two --like {of}", of=scan_cohort)
    assert refused.status == 2 and "smoothing 29 mm, not 30 mm, of 4, 5, as those" in refused.err
    for path in maps.rglob("*_boldmap.json"):
        edit_derivation(path, smoothing_mm=30)
    for path in (maps / "sub-4").rglob("*_boldmap.json"):
        lab.edit(path, {"Derivation": None})
    convert_output = done("abide-data convert maps one --like {of}", of=scan_cohort)
    assert "how is not known of 1 participant, so not kept: 4" in convert_output
    assert "how all the new maps were is not known, so that could not be compared" in convert_output
    assert "derivation" not in json.loads(Path("one/cohort.json").read_text())
    for path in maps.rglob("*_timeseries.json"):
        edit_derivation(path, band=[0.01, 0.1])
    refused = run("abide-data convert maps three --like {of}", of=scan_cohort)
    assert refused.status == 2 and "band 0.01-0.1 Hz, not 0.02-0.08 Hz, of 4, 5" in refused.err


@pytest.mark.slow
def test_agreeing_options_fill_the_gaps_in_a_cohort(new, scans, scan_cohort, tmp_path):
    cohort, images = (lab.copy(folder, tmp_path / folder.name) for folder in (scan_cohort, scans))
    shutil.rmtree(cohort / "derivation")
    reseal(cohort)
    for name in ("nets.nii.gz", "nets.txt", "my_atlas.nii.gz", "my_atlas.tsv"):
        (images / name).rename(images / f"renamed_{name}")
    options = OPTIONS.replace("nets", "renamed_nets").replace("my_atlas", "renamed_my_atlas")
    done(f"abide-data derive {{new}}/bold maps --like {{cohort}} {options}", new=new, cohort=cohort, of=images)
    assert read_contents(Path("maps")) == read_contents(new / "maps")
