"""abide-data derive: maps of scans against independent computations; what is wrong with a scan is a line."""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
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


def one(folder: Path, pattern: str) -> Path:
    (found,) = folder.rglob(pattern)
    return found


def scan(folder: Path, label: object, name: str = lab.REST_BOLD) -> Path:
    return one(folder, f"sub-{label}_{name}.nii.gz")


def confounds(folder: Path, label: object) -> Path:
    return one(folder, f"sub-{label}_*confounds*.tsv")


def derive(folder: object, options: str = "", to: object = "out", **places: object) -> Outcome:
    """The command on a folder; `to` lies in the working folder of a test."""
    return run(f"abide-data derive {{of}} {{to}} {options}", of=Path(folder).absolute(), to=to, **places)


def facts(folder: Path | str, label: object, name: str = "falff") -> dict:
    return json.loads(one(Path(folder), f"sub-{label}_*stat-{name}_boldmap.json").read_text())


def values(folder: Path | str, label: object, name: str = "falff") -> np.ndarray:
    path = one(Path(folder), f"sub-{label}_*stat-{name.replace('_', '')}_boldmap.nii.gz")
    return nibabel.load(path).get_fdata(dtype=np.float32)


def also(folder: Path, label: object, old: str, new: str) -> None:
    """The files of a person again, under other names."""
    for path in list(folder.rglob(f"sub-{label}_*{old}*")):
        shutil.copy(path, path.with_name(path.name.replace(old, new)))


# Independent computations


class Cleaned:
    """A series (volumes, voxels), of which some are kept, without regressors (volumes, some): `clean` (kept, voxels),
    and `filtered` within the band."""

    def __init__(self, series, kept=None, regressors=None, band=(0.01, 0.1)):
        kept = np.ones(len(series), bool) if kept is None else kept
        of = np.zeros((len(series), 0)) if regressors is None else regressors
        series, of = (values[kept] - values[kept].mean(0, dtype=float) for values in (series, of))
        self.clean = series - of @ np.linalg.lstsq(of, series)[0] if of.size else series
        self.times = np.flatnonzero(kept) - np.argmax(kept)
        self.count = self.times[-1] + 1
        hertz = np.arange(1, self.count // 2 + 1) / (self.count * TR_S)
        self.in_band = (hertz > band[0] - 1e-9) & (hertz < band[1] + 1e-9)
        angles = 2 * np.pi * TR_S * np.outer(self.times, hertz[self.in_band])
        waves = np.hstack([np.cos(angles), np.sin(angles)])
        waves -= waves.mean(0)
        fit = waves @ np.linalg.pinv(waves)
        self.filtered, of = fit @ series, fit @ of
        self.filtered -= of @ np.linalg.pinv(of) @ self.filtered
        length = np.linalg.norm(self.filtered, axis=0)
        self.varies = length > 1e-6 * np.linalg.norm(self.clean, axis=0)
        self.points = (self.filtered / np.where(self.varies, length, np.inf)).T

    def amplitudes(self) -> np.ndarray:
        """(frequencies, voxels) by the fit of a constant, a cosine and a sine."""
        found = []
        for k in range(1, self.count // 2 + 1):
            angle = 2 * np.pi * k * self.times / self.count
            design = np.column_stack([np.ones(len(angle)), np.cos(angle), np.sin(angle)])
            fitted = np.linalg.lstsq(design, self.clean, rcond=1e-6)[0]
            found.append(np.hypot(*fitted[1:]) / (1 if 2 * k == self.count else 2))
        return np.array(found)

    def alff(self) -> np.ndarray:
        return self.amplitudes()[self.in_band].sum(0)

    def falff(self) -> np.ndarray:
        found = self.amplitudes()
        return found[self.in_band].sum(0) / found.sum(0)


def falff(label: object, mask=INSIDE, measure: str = "falff", volumes=VOLUMES, **how) -> np.ndarray:
    """The map of a person of the lab, (x, y, z)."""
    found = np.zeros(mask.shape)
    series = lab.make_scan(int(label), mask.shape, volumes)[mask].T.astype(float)
    found[mask] = getattr(Cleaned(series, **how), measure)()
    return found


def nearly(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=5e-4, atol=1e-5)


LARGE = (21, 22, 21)  # of more than 4096 voxels in the brain, which are taken so many at a time
OBLIQUE = euler2mat(0.35, 0.24, 0.15) * 8.7
MEASURES = "falff,alff,reho,degree_weighted,degree_binarize,eigenvector_weighted,eigenvector_binarize,vmhc"
REGRESSORS = [*MOTION, *(f"{name}{of}" for name in OTHERS[:2] for of in ("", "_derivative1", "_power2")), "cosine00"]
REGRESSORS += [f"{name}_derivative1_power2" for name in OTHERS[:2]]
# The program computes in float32, which each kernel of OpenBLAS rounds otherwise: filtered series of length 1 lie
# within 1.5e-7 of those below, and their correlations within 6e-7. What lies nearer together than `NEAR` may therefore
# come in either order, or be equal.
NEAR = 2e-6


class Person:
    """A person whose maps were derived, with what is expected of them; of a large scan of some voxels only."""

    def __init__(self, folder: Path, label: object):
        image = nibabel.load(scan(folder, label))
        self.out, self.label, self.affine = folder / "out", label, image.affine
        self.mask = lab.make_brain(image.shape[:3])
        table = pd.read_csv(confounds(folder, label), sep="\t")
        kept = ~(table["framewise_displacement"] > 0.5).to_numpy()
        series = image.get_fdata(dtype=np.float32)[self.mask].T.astype(float)
        self.of = Cleaned(series, kept, table[REGRESSORS].bfill(limit=1).to_numpy())
        self.places = np.argwhere(self.mask)
        chosen = np.random.default_rng(0).permutation(len(self.places))[:150]
        self.some = np.unique([*chosen, *np.flatnonzero(~self.of.varies)])

    def found(self, name: str) -> np.ndarray:
        whole = values(self.out, self.label, name)
        assert not whole[~self.mask].any()
        return whole[self.mask]

    def possible_reho(self, voxel: int) -> np.ndarray:
        """Kendall's W of a voxel for each way in which values that are nearly equal may be ranked."""
        around = (np.abs(self.places - self.places[voxel]).max(1) <= 1) & self.of.varies
        if around.sum() < 9 or not self.of.varies[voxel]:
            return np.zeros(1)
        series = self.of.points[around]  # (voxels, times)
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
        return [np.arctanh(np.clip(self.mirrored(at), -0.999, 0.999)) for at in self.some]

    def mirrored(self, at: int) -> float:
        """The correlation with the voxel nearest to the mirror image, if that is one of the brain."""
        image = apply_affine(np.linalg.inv(self.affine), apply_affine(self.affine, self.places[at]) * [-1, 1, 1])
        other = np.flatnonzero((self.places == np.rint(image)).all(1))
        return (self.of.points[other] @ self.of.points[at]).sum()

    def neighbours(self, kind: str) -> list[np.ndarray]:
        """Correlations above 0.25, or 1 there: of those that are above it beyond doubt, and of all that may be."""
        r = self.of.points @ self.of.points.T
        return [np.where(r > threshold, r if kind == "weighted" else 1, 0) for threshold in (0.25 + NEAR, 0.25 - NEAR)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> list[Person]:
    """A scan with scrubbed volumes; and a large one, whose axes are oblique and whose middle does not lie at x = 0, of
    which a voxel varies, but not in the band."""
    folder = lab.write_images(tmp_path_factory.mktemp("measured"))
    lab.bold(folder, lab.people(1, 1))
    lab.bold(folder, lab.people(1, 2), LARGE, 60)
    lab.edit(confounds(folder, 1), lambda of: moved(of, range(20, 80, 7)))
    affine = from_matvec(OBLIQUE, [3, -24, 18] - OBLIQUE @ (np.array(LARGE) - 1) / 2)

    def change(values: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = values.copy()
        if values.ndim > 3:
            values[10, 11, 10] = 1000 + 5 * np.cos(np.pi * np.arange(60))
        return values, affine

    for path in (scan(folder, 2), one(folder, "sub-2_*mask.nii.gz")):
        lab.edit(path, change)
    images = "--networks {of}/nets.nii.gz --series {of}/my_atlas.nii.gz"
    how = f"--maps {MEASURES},dual_regression {images} --confounds scrubbing-6"
    assert " 2 derived" in done(f"abide-data derive {{of}} {{of}}/out {how}", of=folder)
    return [Person(folder, 1), Person(folder, 2)]


def moved(table: pd.DataFrame, volumes) -> pd.DataFrame:
    table.loc[list(volumes), "framewise_displacement"] = "2"
    return table


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize("which", [0, 1], ids=["scrubbed", "large and oblique"])
def test_each_map_is_that_of_an_independent_computation(which, measured):
    person = measured[which]
    for name in ("falff", "alff"):
        nearly(person.found(name), getattr(person.of, name)())
    vmhc = person.vmhc()
    np.testing.assert_allclose(person.found("vmhc")[person.some], vmhc, atol=3e-5)
    assert np.count_nonzero(vmhc) > 60
    reho = person.found("reho")[person.some]
    assert np.count_nonzero(reho) > 60
    for voxel, w in zip(person.some, reho, strict=True):
        assert np.abs(person.possible_reho(voxel) - w).min() < 1e-6
    for kind in ("weighted", "binarize"):
        least, most = person.neighbours(kind)
        degree = person.found(f"degree_{kind}") + np.diag(least)  # with the voxel itself
        assert (degree > least.sum(1) - 1e-3).all() and (degree < most.sum(1) + 1e-3).all()
        # The first eigenvector is that without negative values.
        vector = person.found(f"eigenvector_{kind}")
        (eigenvalue,) = eigsh(most, 1, return_eigenvectors=False)
        assert (vector >= 0).all() and vector @ most @ vector == pytest.approx(eigenvalue, rel=1e-3)
        assert (vector > least @ vector / eigenvalue - 2e-4).all()
        assert (vector < most @ vector / eigenvalue + 2e-4).all()
    assert person.of.varies.sum() + which == len(person.places)
    assert not any(person.found(name)[~person.of.varies].any() for name in MEASURES.split(",")[2:])


@pytest.mark.slow
def test_dual_regression_and_series_are_two_regressions_and_means(measured):
    person = measured[0]
    networks = nibabel.load(one(person.out, "*nets_probseg.nii.gz")).get_fdata()[INSIDE]
    series = person.of.filtered / person.of.filtered.std(0)
    design = np.column_stack([np.ones(len(networks)), networks])
    courses = np.linalg.lstsq(design, series.T)[0][1:].T
    nearly(person.found("dual_regression"), np.linalg.lstsq(courses / courses.std(0), series)[0].T)
    labels = nibabel.load(one(person.out, "*myatlas_dseg.nii.gz")).get_fdata()[INSIDE]
    table = pd.read_csv(one(person.out, "sub-1_*seg-myatlas_stat-mean_timeseries.tsv"), sep="\t")
    assert list(table) == [f"parcel{number}" for number in range(1, 5)]
    for number, column in enumerate(table, 1):
        np.testing.assert_allclose(table[column], person.of.filtered[:, labels == number].mean(1), atol=1e-4)


STRATEGIES = {  # parameters of motion that are regressed out
    "": [f"{name}{of}" for name in MOTION for of in ("", "_derivative1", "_power2", "_derivative1_power2")],
    "simple-12": [f"{name}{of}" for name in MOTION for of in ("", "_derivative1")],
    "none": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_confounds_are_those_of_nilearns_strategies_and_unsteady_volumes_are_left_out(strategy, tmp_path):
    lab.bold(tmp_path / "bold", lab.people(1, 1), unsteady=3)
    told = derive("bold", f"--maps falff,alff {strategy and '--confounds'} {strategy}")
    assert told.err == "" and ("NOT CLEANED" in told.out) == (strategy == "none")
    table = lab.make_confounds(1, unsteady=3)
    columns = [*STRATEGIES[strategy], *OTHERS] if strategy != "none" else []
    how = {"kept": np.arange(VOLUMES) >= 3, "regressors": table[columns].bfill(limit=1).to_numpy()}
    for name in ("falff", "alff"):
        nearly(values("out", 1, name), falff(1, measure=name, **how))
    said = facts("out", 1)
    assert (said["NumberOfVolumes"], said["NumberOfVolumesKept"]) == (VOLUMES, VOLUMES - 3)
    assert said["MeanFramewiseDisplacement"] == pytest.approx(table["framewise_displacement"].mean(), abs=1e-6)
    assert said["Derivation"]["confounds"] == (strategy or "simple")


@pytest.mark.slow
def test_smoothing_is_a_mean_by_distance_within_the_mask(bare):
    affine = lab.AFFINE @ np.diag([1, 0.8, 1.2, 1])
    for path in (scan(bare, 1), one(bare, "sub-1_*mask.nii.gz")):
        lab.edit(path, lambda of, _: (of, affine))
    assert derive(bare, "--smooth 30 --only '*sub-1_*'").status == 0
    places = np.argwhere(INSIDE) * nibabel.affines.voxel_sizes(affine)
    squares = np.square(places[:, None] - places[None]).sum(-1)
    weights = np.exp(-4 * np.log(2) * squares / 30**2)  # a half at 15 mm
    nearly(values("out", 1)[INSIDE], weights @ falff(1)[INSIDE] / weights.sum(1))
    assert not values("out", 1)[~INSIDE].any()
    assert facts("out", 1)["Derivation"]["smoothing_mm"] == 30


@pytest.mark.slow
def test_runs_and_sessions_are_averaged_by_volumes_kept_and_their_series_joined(bare, tmp_path):
    lab.bold(tmp_path / "longer", lab.people(1, 1), volumes=160)
    also(bare, 1, "task-rest", "ses-1_task-rest")
    scan(bare, 1).unlink()
    lab.edit(bare / f"sub-1/func/sub-1_{lab.SPACE}_desc-brain_mask.nii.gz", lambda of, _: (0 * of, lab.AFFINE))
    also(tmp_path / "longer", 1, "task-rest", "ses-2_task-rest")
    for path in (tmp_path / "longer").rglob("*_ses-2_*space*"):
        shutil.copy(path, bare / "sub-1/func")
    told = done("abide-data derive {of} out --only '*sub-1_*' --series {of}/my_atlas.nii.gz --maps falff", of=bare)
    assert "1 participant with several runs or sessions, whose maps are averaged by the volumes kept: 1;" in told
    nearly(values("out", 1), sum(volumes * falff(1, volumes=volumes) for volumes in (120, 160)) / 280)
    series = pd.read_csv(one(Path("out"), "sub-1_*timeseries.tsv"), sep="\t").to_numpy()
    for run_ in (series[:120], series[120:]):
        np.testing.assert_allclose([run_.mean(0), run_.std(0)], [[0] * 4, [1] * 4], atol=1e-6)
    chosen = derive(bare, "--only '*sub-1_ses-1_*' --maps falff")
    assert chosen.status == 2 and "was made of other files than now" in chosen.out


@pytest.mark.slow
def test_a_run_beside_a_scan_that_is_called_none_has_its_own_confounds(bold):
    also(bold, 1, "task-rest", "task-rest_run-2")
    lab.edit(one(bold, "sub-1_*run-2*confounds*"), lambda of: moved(of, range(20, 40)))
    told = done("abide-data derive {of} out --only '*sub-1_*' --confounds scrubbing", of=bold)
    assert " 1 derived" in told and facts("out", 1)["NumberOfVolumesKept"] == 2 * VOLUMES - 20


# What is written, and written again


@pytest.mark.slow
def test_a_derivative_says_what_was_done_and_convert_reads_it(derived, scans, scan_cohort, tmp_path):
    assert (derived / "participants.tsv").read_bytes() == (scans / "participants.tsv").read_bytes()
    assert json.loads((derived / "dataset_description.json").read_text())["DatasetType"] == "derivative"
    said = facts(derived, 1, "dualregression")
    assert (said["LabelMap"], said["Derivation"]["networks"]["file"]) == (["visual", "motor"], "nets.nii.gz")
    assert values(derived, 1, "dualregression").shape == (*SHAPE, 2)
    kept = json.loads((scan_cohort / "cohort.json").read_text())
    assert kept["maps"] == ["falff", "dual_regression_visual", "dual_regression_motor"]
    sha256 = {
        name: hashlib.sha256((scans / f"{name}.nii.gz").read_bytes()).hexdigest() for name in ("nets", "my_atlas")
    }
    assert kept["derivation"] == {
        "measures": ["falff", "dual_regression"],
        "band": [0.02, 0.08],
        "smoothing_mm": 30.0,
        "scans": "preprocessed",
        "confounds": "simple",
        "networks": {"file": "nets.nii.gz", "sha256": sha256["nets"], "names": ["visual", "motor"]},
        "parcels": {"file": "my_atlas.nii.gz", "sha256": sha256["my_atlas"]},
    }
    images = {"networks.nii.gz": "nets.nii.gz", "networks.txt": "nets.txt", "parcels.nii.gz": "my_atlas.nii.gz"}
    for name, of in (images | {"parcels.tsv": "my_atlas.tsv"}).items():
        assert (scan_cohort / "derivation" / name).read_bytes() == (scans / of).read_bytes()
    atlas = derived / "atlases/atlas-myatlas/atlas-myatlas_dseg.nii.gz"
    assert atlas.read_bytes() == (scans / "my_atlas.nii.gz").read_bytes()
    checked = done("abide-data check {of}", of=scan_cohort)
    assert "derived from scans: falff, dual_regression; band 0.02-0.08 Hz, smoothing 30 mm" in checked
    lab.edit(lab.copy(scan_cohort, tmp_path / "cohort") / "derivation/networks.nii.gz", "cut")
    refused = run("abide-data check cohort")
    assert refused.status == 2 and "derivation/networks.nii.gz edited" in refused.err


CODING = "--labelColumn group --positive A --grid reduced --phenotype ''"


@pytest.mark.slow
def test_head_motion_is_taken_from_beside_the_maps_where_the_table_has_none(bold):
    lab.edit(bold / "participants.tsv", lambda of: of.drop(columns="func_mean_fd"))
    confounds(bold, 3).unlink()
    lab.edit(confounds(bold, 2), lambda of: of.drop(columns="framewise_displacement"))
    lab.edit(
        bold / "my_atlas.nii.gz",
        lambda of, affine: (np.where(np.arange(of.size).reshape(SHAPE), of, np.int16(9)), affine),
    )
    (bold / "my_atlas.tsv").unlink()
    told = derive(bold, "--maps falff,alff --series {of}/my_atlas.nii.gz")
    assert told.status == 2 and "sub-3: no table of confounds for --confounds simple; " in told.out
    table = pd.read_csv(one(Path("out"), "sub-1_*seg-myatlas_stat-mean_timeseries.tsv"), sep="\t")
    assert list(table) == ["1", "2", "3", "4", "9"]
    assert len(table) == VOLUMES and table["9"].isna().all() and table["1"].notna().all()
    told = done(f"abide-data convert out cohort --maps all {CODING}")
    assert "falff, alff, which all 2 participants have" in told
    assert "mean_fd, mm, by the JSON beside the maps of 1 of 2 participants" in told
    mean = lab.make_confounds(1)["framewise_displacement"].mean()
    moved = lab.read_table(Path("cohort/covariates.csv"))["mean_fd"].tolist()
    assert float(moved[0]) == pytest.approx(mean, rel=1e-4) and moved[1] == ""
    table = lab.read_table(Path("out/derived.csv"))
    assert list(table) == ["subject", "products", "mean_fd", "volumes", "volumes_kept", "voxels", "failed"]
    assert table["products"].tolist() == ["series alff falff"] * 2 + [""]
    assert float(table["mean_fd"][0]) == pytest.approx(mean, abs=1e-6) and not table["mean_fd"][1]
    assert table["failed"].str.contains("no table of confounds").tolist() == [False, False, True]
    for path in Path("out").rglob("*stat-alff_boldmap.json"):
        derived_as(path, band=[0.01, 0.08])
    told = done(f"abide-data convert out other --maps all {CODING}")
    assert "so how is not kept: band 0.01-0.08 Hz, not 0.01-0.1 Hz, of alff" in told


def derived_as(path: Path, **changes: object) -> None:
    """A JSON that says that its map was derived otherwise."""
    lab.edit(path, {"Derivation": json.loads(path.read_text())["Derivation"] | changes})


def contents(folder: Path) -> dict[Path, bytes]:
    """The bytes of each file, but for the ones that say where scans lie, and what they were."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "dataset_description.json"]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_repeated_it_does_what_is_missing_and_maps_can_be_added(bold):
    derive(bold)
    first = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.*")}
    one(Path("out"), "sub-2_*falff*.nii.gz").unlink()
    one(Path("out"), "sub-3_*falff*.json").unlink()  # which is written last
    leftover = Path("out/sub-2/func/.unfinished.x.nii.gz")
    leftover.write_text("of a killed process")
    assert "2 derived, 1 were there, 0 failed" in derive(bold).out
    assert not leftover.exists()
    assert "3 derived, 0 were there, 0 failed" in derive(bold, "--maps falff,alff").out
    assert "0 derived, 3 were there, 0 failed" in derive(bold, "--maps falff,alff --jobs 2").out
    kept = [path for path in first if "sub-1" in path.name]
    assert kept and all(path.stat().st_mtime_ns == first[path] for path in kept)
    assert not list(Path().rglob("*.lock"))


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [("bold.nii.gz", "mask.nii.gz"), ("confounds*.tsv", "bold.json")])
def test_old_maps_and_maps_of_another_scan_never_lie_side_by_side(replaced, bold):
    """A source of two people was replaced between two commands, the second of which asks for another measure."""
    derive(bold)
    before = contents(Path("out/sub-2"))
    paths = [one(bold, f"sub-{label}_*{name}") for label, name in enumerate(replaced, 1)]
    for path in paths:
        os.utime(path, (0, path.stat().st_mtime + 60))
    dry = derive(bold, "--maps reho --dryRun")
    assert "1 to derive, 0 are there, 2 cannot be" in dry.out
    told = derive(bold, "--maps reho")
    assert told.status == 2 and "1 derived, 0 were there, 2 failed" in told.out
    assert "convert leaves" not in told.err, "which it does not, as there are maps"
    for label, path in enumerate(paths, 1):
        words = f"(?m)^FAILED +sub-{label}: .* was made of other files than now, {path.name}[.] Remove out/sub-{label} "
        assert re.search(words, dry.out) and re.search(words, told.out)
    assert contents(Path("out/sub-2")) == before
    failed = lab.read_table(Path("out/derived.csv"))["failed"]
    assert failed.str.contains("made of other files").tolist() == [True, True, False]
    for label in (1, 2):
        shutil.rmtree(f"out/sub-{label}")
    assert "2 derived, 1 were there, 0 failed" in done("abide-data derive {of} out --maps reho", of=bold)
    assert not lab.read_table(Path("out/derived.csv"))["failed"].any()


@pytest.mark.slow
def test_a_dry_run_says_who_and_how_long_and_writes_nothing(bold, tmp_path):
    lab.edit(scan(bold, 2), b"no image")
    lab.edit(confounds(bold, 3), lambda of: of[:50])
    before = listing(tmp_path)
    dry = derive(bold, "--maps falff,reho --jobs 2 --dryRun")
    assert listing(tmp_path) == before and not dry.status
    assert "1 to derive, 0 are there, 2 cannot be" in dry.out
    assert re.search(r"(?m)^time +about \d+ s, 2 at a time; sub-1_.* took [\d.]+ s$", dry.out)
    assert "1 derived, 0 were there, 2 failed" in derive(bold, "--maps falff,reho").out
    assert "0 to derive, 1 are there, 2 cannot be" in derive(bold, "--maps falff,reho --dryRun").out


@pytest.mark.slow
def test_of_two_at_once_with_other_options_the_second_is_refused(scans, derived):
    command = [sys.executable, "-m", "data", "derive", scans, "out", "--band", "0.02,0.09"]
    with FileLock(".out.lock"):
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ELSEWHERE)
        assert any("confounds simple" in line for line in iter(second.stdout.readline, ""))
        shutil.copytree(derived, "out", dirs_exist_ok=True)
    told = second.communicate()[0]
    assert second.returncode == 2 and "0 derived, 0 were there, 3 failed" in told
    assert len(re.findall("sub-[123]: out was derived with band 0.02-0.08 Hz, not 0.02-0.09 Hz, of [123]; ", told)) == 3
    before, after = contents(derived), contents(Path("out"))
    assert before == {path: after[path] for path in before} | {Path("derived.csv"): before[Path("derived.csv")]}


@pytest.mark.slow
@pytest.mark.parametrize("first, again", [("study", "study/derivatives/fmriprep"), ("derivatives/fmriprep", "..")])
def test_scans_are_known_however_the_command_names_their_folder(first, again, scans, tmp_path, monkeypatch):
    study = tmp_path / "study"
    fmriprep = lab.copy(scans, study / "derivatives/fmriprep")
    places = {"study": tmp_path, "derivatives": study, "..": study / "derivatives"}
    for folder in (first, again):
        monkeypatch.chdir(places[folder.split("/")[0]])
        told = done("abide-data derive {of} {to}", of=folder, to=tmp_path / "out")
    assert "0 derived, 3 were there, 0 failed" in told
    one(tmp_path / "out", "sub-3_*.nii.gz").unlink()
    monkeypatch.chdir(tmp_path)
    assert "1 derived, 2 were there, 0 failed" in derive(fmriprep).out
    dataset = json.loads(Path("out/dataset_description.json").read_text())["DatasetLinks"]["bold"]
    for label in (2, 3):
        source = facts("out", label)["Sources"][0].removeprefix("bids:bold:")
        assert ("out" / Path(dataset) / source).resolve() == scan(fmriprep, label)


@pytest.mark.slow
def test_shares_and_jobs_write_the_same_bytes_as_one_process(scans):
    options = "--maps falff,vmhc --series {of}/my_atlas.nii.gz"
    derive(scans, options, "one")
    for share in ("2/2", "1/2"):
        told = derive(scans, f"{options} --share {share}", "shares").out
        assert f" {share[0]} of 2: {3 - int(share[0])} of 3 participants" in told
        there = lab.read_table(Path("shares/derived.csv"))["products"] != ""
        assert there.tolist() == [share == "1/2", True, share == "1/2"]
    words = ["derive", scans, "jobs", *options.format(of=scans).split(), "--jobs", "2"]
    subprocess.run([sys.executable, "-m", "data", *words], check=True, env=ELSEWHERE)
    for name in ("jobs", "shares"):
        assert contents(Path(name)) == contents(Path("one"))
    assert len(contents(Path("one"))) == 3 * 8 + 2 + 3  # an atlas with its names; .bidsignore, two tables


# Layouts and spaces


def test_pcp_needs_no_confounds_and_carries_its_table(tmp_path):
    folder = tmp_path / "abide/ABIDE_pcp/cpac/nofilt_noglobal"
    for label in (50002, 50003):
        clean = lab.make_scan(label, SHAPE, VOLUMES) - 1000 * INSIDE[..., None]
        lab.save(folder / f"Pitt_00{label}_func_preproc.nii.gz", clean)
        lab.save(folder / f"Pitt_00{label}_func_mask.nii.gz", INSIDE.astype(np.uint8))
    lab.people(1).to_csv(tmp_path / "abide/ABIDE_pcp/Phenotypic_V1.csv", index=False)
    told = done("abide-data derive abide out")
    assert "PCP: 2 scans (MNI152)" in told
    assert "scans cleaned, confounds none\n" in told and "NOT CLEANED" not in told
    assert lab.read_table(Path("out/Phenotypic_V1.csv")).equals(lab.people(1))
    nearly(values("out", "0050003_space-MNI152"), falff(50003))
    assert "leave it out" in derive("abide", "--confounds simple").err


@pytest.mark.slow
def test_xcp_ds_censored_volumes_are_left_out_of_the_spectrum(bare):
    moved = np.isin(np.arange(VOLUMES), [20, 21, 40])
    also(bare, 1, "preproc", "denoised")
    one(bare, "sub-1_*mask*").unlink()
    path = scan(bare, 1, f"{lab.SPACE}_desc-denoised_bold")
    lab.edit(path, lambda of, affine: (of[..., ~moved], affine))
    for name, values_ in (("outliers", moved.astype(int)), ("motion", np.full(VOLUMES, 0.25))):
        table = pd.DataFrame({"framewise_displacement": values_})
        table.to_csv(path.with_name(f"sub-1_task-rest_{name}.tsv"), sep="\t", index=False)
    told = derive(bare, "--only '*denoised*'")
    assert told.status == 0 and "1 participant, 1; voxels that vary are taken" in told.out
    nearly(values("out", 1), falff(1, kept=~moved))
    assert facts("out", 1)["MeanFramewiseDisplacement"] == 0.25


@pytest.mark.slow
def test_a_scan_that_was_not_masked_is_measured_in_the_mask_of_its_mean(tmp_path):
    """Head in a noisy background, larger than the other scans, since nilearn opens the mask; and a slab in which it
    finds no brain."""
    shape = (20, 22, 20)
    bold = lab.bold(tmp_path / "bold", lab.people(2, 1), shape, 60)
    for mask in bold.rglob("*mask*"):
        mask.unlink()
    noise = np.random.default_rng(0).normal(50, 5, (*shape, 60)).astype(np.float32)
    lab.edit(scan(bold, 1), lambda of, _: (np.where(of > 0, of, noise), np.diag([8.0, 8, 8, 1])))
    lab.edit(scan(bold, 2), lambda _, affine: (noise[:8, :9, :8] + 950, affine))
    told = done("abide-data derive bold out --confounds none")
    assert "compute_epi_mask finds no brain, so all voxels that vary are taken: 1 participant, 2\n" in told
    assert (values("out", 2) > 0).all()
    found, brain = values("out", 1) != 0, lab.make_brain(shape)
    assert (found & brain).sum() > 0.9 * brain.sum() and (found & ~brain).sum() < 0.1 * found.sum()


@pytest.mark.slow
def test_a_column_names_scans_whose_space_is_taken_to_be_mni(tmp_path):
    for label in (1, 2):
        lab.save(tmp_path / f"bold/p{label}.nii", lab.make_scan(label, SHAPE, VOLUMES))
    table, how = tmp_path / "bold/people.csv", "--boldColumn path --idColumn id"
    table.write_text("id,path\n1,p1.nii\n2,p2.nii\n3,p3.nii\n")
    told = done(f"abide-data derive bold out {how}")
    assert "1 rows without a scan: 3" in told
    assert "the names of 2 scans do not say their space; it is taken to be MNI152" in told
    nearly(values("out", 2), falff(2))
    shutil.copy(tmp_path / "bold/p1.nii", tmp_path / "bold/sub-1_desc-preproc_bold.nii")
    table.write_text("id,path\n1,sub-1_desc-preproc_bold.nii\n")
    assert "the names of 1 scans do not say their space" in done(f"abide-data derive bold spaceless {how}")
    nback = lab.REST_BOLD.replace("rest", "nback")
    names = [f"sub-{of}.nii" for of in (f"1_{lab.REST_BOLD}", f"1_{nback}", f"2_{lab.REST_BOLD}", f"3_{nback}")]
    for name in names:
        shutil.copy(tmp_path / "bold/p1.nii", tmp_path / "bold" / name)
    table.write_text("id,path\n" + "".join(f"{name[4]},{name}\n" for name in names))
    assert "sub-1: several scans that differ in task" in derive("bold", how, "tasks").out
    assert " 2 derived" in done(f"abide-data derive bold nback {how} --only '*_task-nback_*'")


@pytest.mark.slow
def test_people_whose_scan_is_not_clear_fail_together_and_the_others_are_done(tmp_path):
    """Two resolutions of two people, two echoes of another: one line for each kind, whose advice does the rest."""
    bold = lab.bold(tmp_path / "bold", lab.people(7, 1), volumes=60)
    for label in (1, 2):
        also(bold, label, "_desc-preproc", "_res-2_desc-preproc")
    for echo in (1, 2):
        also(bold, 3, "task-rest_space", f"task-rest_echo-{echo}_space")
    scan(bold, 3).unlink()
    how = "--confounds simple-6"
    told = derive(bold, how)
    assert told.status == 2
    assert re.search(r"sub-1, sub-2: several scans that differ in res .*--only '\*_res-2\[_.]", told.out)
    assert re.search(r"sub-3: several scans that differ in echo .*--only '\*_echo-1\[_.]", told.out)
    assert "4 derived, 0 were there, 3 failed" in told.out
    for glob in ("*_echo-1_*", "*_res-2_*"):
        assert derive(bold, f"{how} --only '{glob}'").status == 0
    names = {path.name.replace(path.parts[-3], "sub") for path in Path("out").rglob("sub-*.nii.gz")}
    assert len(names) == 1, "convert refuses maps of several kinds"
    assert lab.read_table(Path("out/derived.csv"))["failed"].tolist() == [""] * 7
    assert "0 derived, 4 were there, 3 failed" in derive(bold, how).out


@pytest.mark.slow
def test_scans_in_other_spaces_or_of_other_names_are_named_and_left_alone(bold):
    for label in (1, 2, 3):
        also(bold, label, "space-MNI152NLin6Asym_desc-preproc", "space-T1w_desc-preproc")
    for odd in ("AB_1", "A.1", "A 1"):
        shutil.copy(scan(bold, 1), bold / f"sub-{odd}_{lab.REST_BOLD}.nii.gz")
    told = done("abide-data derive {of} out", of=bold)
    assert re.search("left alone: 3 in space T1w, such as sub-1/.*, 3 whose names do not say whose .* sub-A 1_", told)
    assert {path.name for path in Path("out").glob("sub-*")} == {"sub-1", "sub-2", "sub-3"}


# Wrong scans


def edit(path: Path, change, tr_s: float = TR_S, unit: str = "sec", said: object = TR_S) -> None:
    """A scan with other values, and a repetition time in header and JSON."""
    of = nibabel.load(path).get_fdata(dtype=np.float32)
    image = nibabel.Nifti1Image(change(of) if change else of, lab.AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = tr_s
    nibabel.save(image, path)
    beside = path.with_name(path.name.replace(".nii.gz", ".json"))
    beside.write_text(json.dumps({} if said is None else {"RepetitionTime": said}))


def mask_of(path: Path, of: np.ndarray, affine: np.ndarray = lab.AFFINE) -> None:
    lab.save(path.with_name(path.name.replace("preproc_bold", "brain_mask")), of.astype(np.uint8), affine)


def table_of(path: Path, change: object) -> None:
    lab.edit(next(path.parent.glob("*confounds*")), change)


def filtered(of: np.ndarray) -> np.ndarray:
    times = 2 * np.pi * 0.05 * TR_S * np.arange(VOLUMES)
    random = np.random.default_rng(0).normal(size=(*SHAPE, 2))
    return INSIDE[..., None] * (random @ [np.sin(times), np.cos(times)]).astype(np.float32)


def still(of: pd.DataFrame) -> pd.DataFrame:
    """A table of which nothing is regressed out."""
    return of.assign(**dict.fromkeys(of.columns.drop("framewise_displacement"), "0"))


def flip_checksum(path: Path) -> None:
    """That of the values, which nibabel does not read."""
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)


ONE_VOXEL = np.eye(1, INSIDE.size, 300).reshape(SHAPE)
FAULTS = {
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "is not a readable NIfTI map"),
    "checksum": (flip_checksum, "CRC check failed"),
    "3-D": (lambda path: edit(path, lambda of: of[..., 0]), "is 3-D"),
    "no repetition time": (lambda path: edit(path, None, 0, "sec", None), "not say its repetition time.*Repet"),
    "milliseconds without a unit": (lambda path: edit(path, None, 2000, "unknown", None), "not say its repetition"),
    "milliseconds in the JSON": (lambda path: edit(path, None, said=2000), "RepetitionTime is 2000; expected sec"),
    "empty mask": (lambda path: mask_of(path, 0 * INSIDE), "brain_mask.* is empty"),
    "mask of another affine": (lambda path: mask_of(path, INSIDE, 2 * lab.AFFINE), "has another grid"),
    "nothing varies": (lambda path: edit(path, lambda of: 0 * of), "holds nothing that varies"),
    "no number": (lambda path: edit(path, lambda of: np.nan * of), "NaN or infinity in 168 of 168 voxels"),
    "four volumes": (lambda path: edit(path, lambda of: of[..., :4]), "(4 volumes|no frequency|degrees of freedom)"),
    "short table": (lambda path: table_of(path, lambda of: of[:50]), "50 rows, .* 120 volumes"),
    "lacking columns": (lambda path: table_of(path, lambda of: of[["csf"]]), "not serve --confounds simple: .*Neither"),
    "text": (lambda path: table_of(path, lambda of: of.assign(csf="x")), "holds 'x' in the column csf; expected num"),
    "too large": (lambda path: edit(path, lambda of: of * np.float32(1e30)), "varies by .*Was it scaled by mistake"),
    "filtered": (lambda path: table_of(path, still) or edit(path, filtered), "was filtered before, so fALFF says no"),
    "grids of runs": (lambda path: another_grid(path), "has another grid than .*expected runs on one grid"),
    "networks alike": (lambda path: mask_of(path, ONE_VOXEL), "2 maps of networks do not differ within"),
}


def another_grid(path: Path) -> None:
    """Two runs."""
    for of in list(path.parent.iterdir()):
        one, two = (of.with_name(of.name.replace("task-rest", f"task-rest_run-{number}")) for number in (1, 2))
        shutil.copy(of.rename(one), two)
        if two.suffix == ".gz":
            lab.edit(two, lambda values, affine: (values[:-1], affine))


@pytest.mark.slow
def test_a_wrong_scan_is_a_line_and_the_others_are_done(tmp_path):
    bold = lab.write_images(lab.bold(tmp_path / "bold", lab.people(1 + len(FAULTS), 1)))
    for label, (spoil, _) in enumerate(FAULTS.values(), 2):
        spoil(scan(bold, label))
    told = derive(bold, "--maps falff,dual_regression --networks {of}/nets.nii.gz")
    assert told.status == 2
    for label, (fault, (_, words)) in enumerate(FAULTS.items(), 2):
        assert re.search(f"(?m)^FAILED +sub-{label}: .*{words}", told.out), fault
    assert f"{len(FAULTS)} participants failed, for the reasons above: 10, 11, 12, 13" in told.err
    assert f"1 derived, 0 were there, {len(FAULTS)} failed" in told.out
    assert {path.parts[1] for path in Path("out").rglob("*.nii.gz")} == {"sub-1", "atlases"}


@pytest.mark.slow
def test_who_has_no_table_of_confounds_or_moved_too_much_is_a_line(bold):
    confounds(bold, 1).unlink()
    lab.edit(confounds(bold, 2), lambda of: moved(of, range(VOLUMES)))
    told = derive(bold, "--confounds scrubbing").out
    assert re.search("(?m)^FAILED +sub-1: no table of confounds for --confounds scrubbing; ", told)
    assert re.search("(?m)^FAILED +sub-2: .*no volume is kept by --confounds scrubbing", told)
    assert "1 derived, 0 were there, 2 failed" in told
    table = lab.read_table(Path("out/derived.csv"))
    assert table[["volumes", "volumes_kept"]].to_numpy().tolist() == [["", ""]] * 2 + [["120", "120"]]
    assert (table["failed"] != "").tolist() == [True, True, False]


def followed(told: Outcome) -> str:
    """The option that a failure advises."""
    return re.search(r"FAILED .*?(--(?:confounds|band) \S+) serves: take it", told.out)[1]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["", "--confounds scrubbing", "--confounds compcor"])
def test_a_reduced_table_is_read_and_the_advice_on_what_it_lacks_works(asked, tmp_path):
    """As nilearn's `fetch_development_fmri` has them: of head motion, six parameters only."""
    bold = lab.bold(tmp_path / "bold", lab.people(2, 1))
    for label in (1, 2):
        table = confounds(bold, label)
        lab.edit(table, lambda of: of[[name for name in of if "derivative" not in name and "power2" not in name]])
        table.rename(table.with_name(table.name.replace("desc-confounds", "desc-reducedConfounds")))
    told = derive("bold", asked)
    assert told.status == 2 and "NOT CLEANED" not in told.out and "/tmp" not in told.out.replace(str(tmp_path), "")
    assert re.search("FAILED .*sub-.*desc-reducedConfounds_timeseries.(tsv|json) ", told.out)
    assert followed(told) == "--confounds simple-6"
    assert "2 derived" in done(f"abide-data derive bold again {followed(told)}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["task-rest_bold_confounds", "task-rest_desc-confounds_regressors"])
def test_a_table_of_an_old_version_is_named_as_such(name, bold):
    table = confounds(bold, 1)
    lab.edit(table, lambda of: of[["csf"]].assign(FramewiseDisplacement=0.1, RotX=0.0))
    table.rename(table.with_name(f"sub-1_{name}.tsv"))
    told = derive(bold, "")
    assert re.search(rf"FAILED +sub-1: .*{name}.tsv is of fMRIPrep 1.0 or 1.1.*Preprocess", told.out)
    assert "2 derived" in told.out


@pytest.mark.slow
def test_a_short_scan_is_told_to_take_fewer_confounds_and_then_is_done(tmp_path):
    """48 volumes have 18 sinusoids in the band: 27 confounds leave nothing of them, 9 leave enough."""
    lab.bold(tmp_path / "bold", lab.people(2, 1), volumes=48)
    told = derive("bold").out
    assert "with 27 confounds leave 0 degrees of freedom" in told
    assert "--confounds simple-6 serves: take it for all" in told
    save = lab.save(tmp_path / "ten.nii.gz", np.random.default_rng(0).random((*SHAPE, 10), np.float32))
    told = derive("bold", "--confounds simple-6 --maps dual_regression --networks {ten}", ten=save).out
    assert "has 9 degrees of freedom in the band; expected one for each of 10 networks" in told
    assert "--band 0.01,0.2 serves" in told and "--confounds" not in told.partition("10 networks")[2].partition(")")[0]
    assert derive("bold", "--confounds simple-6").status == 0
    assert done("abide-data derive bold wide --confounds simple-6 --band 0.01,0.2 --maps falff")
    shares = nibabel.load(next(Path("wide").rglob("*falff*.nii.gz"))).get_fdata()[INSIDE]
    assert shares.max() < 0.99  # a share of all frequencies, which tells nothing, would be 1


@pytest.mark.slow
def test_an_atlas_without_a_parcel_in_the_scan_fails_and_one_with_few_is_a_warning(bare):
    """Of 20 parcels, six lie where two people have a brain, and seven where the third has one; then none does."""
    places = np.argwhere(INSIDE)
    lab.edit(one(bare, "sub-3_*mask*"), lambda of, affine: (of * (np.indices(SHAPE)[0] != places[-1][0]), affine))
    atlas, outside = np.zeros(SHAPE, np.int16), np.argwhere(~INSIDE)
    atlas[tuple(places[-1])] = 1
    atlas[tuple(places[20:26].T)] = range(2, 8)
    atlas[tuple(outside[:13].T)] = range(8, 21)
    lab.save(bare / "off.nii.gz", atlas)
    lab.save(bare / "elsewhere.nii.gz", np.where(INSIDE, 0, atlas))
    for dry in ("--dryRun", ""):
        told = derive(bare, f"--series {{of}}/off.nii.gz {dry}")
        assert told.status == 0
        assert re.search(r"WARNING +13 to 14 of 20 parcels of off.nii.gz .* MNI152NLin6Asym: 3 participants", told.out)
    lacking = {
        path.parts[1]: pd.read_csv(path, sep="\t").isna().all().sum()
        for path in Path("out").rglob("*.tsv")
        if path.name.endswith("timeseries.tsv")
    }
    assert lacking == {"sub-1": 13, "sub-2": 13, "sub-3": 14}
    for dry, status in (("--dryRun", 0), ("", 2)):
        told = derive(bare, f"--series {{of}}/elsewhere.nii.gz {dry}", "elsewhere")
        assert told.status == status
        assert re.search("FAILED +sub-1, sub-2, sub-3: .*none of the 13 parcels .* MNI152NLin6Asym", told.out)
    assert not [path for path in Path("elsewhere").rglob("sub-*") if path.is_file()]


def scanned(path: Path, volumes: int, edge_mm: float, header: tuple[float, str], said: dict | None = None) -> None:
    """A scan of so many volumes, in cubes of this edge, with a repetition time and its unit in the header; and a JSON
    that says this, or none."""
    affine = np.diag([edge_mm, edge_mm, edge_mm, 1])
    image = nibabel.Nifti1Image(nibabel.load(path).get_fdata(dtype=np.float32)[..., :volumes], affine)
    for linked in (path, path.with_name(path.name.replace("preproc_bold", "brain_mask"))):
        linked.unlink()  # so that what it was copied from keeps its own
    mask_of(path, INSIDE, affine)
    image.header.set_xyzt_units("mm", header[1])
    image.header["pixdim"][4] = header[0]
    nibabel.save(image, path)
    beside = path.with_name(path.name.replace(".nii.gz", ".json"))
    beside.unlink()
    if said is not None:
        beside.write_text(json.dumps(said))


@pytest.mark.slow
def test_doubtful_scans_are_done_with_a_warning_each_and_good_ones_without(bare, tmp_path):
    """7 frequencies are 14 degrees of freedom, and 10 are enough."""
    good = lab.bold(tmp_path / "good", lab.people(3, 1), volumes=120)
    for path in good.rglob("*confounds*"):
        path.unlink()
    for folder, how in {
        good: [(110, 6, (1000, "msec")), (120, 6, (1, "sec"), {"RepetitionTime": 1}), (60, 2, (2, "unknown"))],
        bare: [(120, 6, (1, "sec")), (38, 6, (2, "sec")), (120, 7.5, (2, "sec"))],
    }.items():
        for label, of in enumerate(how, 1):
            scanned(scan(folder, label), *of)
    for dry in ("--dryRun", ""):
        told = derive(good, f"--confounds none {dry}", "good_maps")
        assert told.status == 0 and told.out.count("WARNING") == 1 and "NOT CLEANED" in told.out
        told = derive(bare, dry)
        assert told.status == 0 and told.out.count("WARNING") == 4
        assert re.search("WARNING +repetition time of exactly 1 s, by the header alone.*: 1 participant, 1\n", told.out)
        assert re.search("WARNING +14 degrees of freedom in the band.*: 1 participant, 2\n", told.out)
        assert re.search("WARNING +voxels of 7.5 mm.*: 1 participant, 3\n", told.out)


@pytest.mark.slow
def test_two_affines_that_disagree_on_left_and_right_are_a_warning(bare):
    path = scan(bare, 2)
    image = nibabel.load(path)
    image = nibabel.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, image.header)
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine * np.array([[-1], [1], [1], [1]]), 4)
    path.unlink()
    nibabel.save(image, path)
    told = derive(bare, "--dryRun")
    assert told.status == 0
    assert re.search("WARNING +qform and sform of the scan disagree .* left.*: 1 participant, 2\n", told.out)


# What is read rightly


def scaled(path: Path) -> None:
    """int16 with a slope."""
    image = nibabel.load(path)
    made = nibabel.Nifti1Image((image.get_fdata() / 0.05).round().astype(np.int16), lab.AFFINE, image.header)
    made.header.set_data_dtype(np.int16)
    made.header.set_slope_inter(0.05, 0)
    nibabel.save(made, path)


def lost(of: np.ndarray) -> np.ndarray:
    of[4, 4, 4, 7] = np.nan
    return of


FORMS = {
    "int16 with a slope": (scaled, ""),
    "milliseconds in the header": (lambda path: edit(path, None, 2000, "msec", None), ""),
    "no JSON": (lambda path: path.with_name(path.name.replace(".nii.gz", ".json")).unlink(), ""),
    "header and JSON differ": (lambda path: edit(path, None, 3), "differ in the repetition time; that of the JSON"),
    "no number": (lambda path: edit(path, lost), "voxels without a number in some volume are left out of the mask"),
}


@pytest.mark.slow
def test_forms_of_the_same_scan_give_the_same_map(tmp_path):
    bold = lab.bold(tmp_path / "bold", lab.people(len(FORMS), 1))
    for path in bold.rglob("*confounds*"):
        path.unlink()
    for label, (change, _) in enumerate(FORMS.values(), 1):
        change(scan(bold, label))
    told = derive("bold").out
    for label, (fault, (_, words)) in enumerate(FORMS.items(), 1):
        mask = INSIDE.copy()
        mask[4, 4, 4] &= fault != "no number"
        np.testing.assert_allclose(values("out", label), falff(label, mask), rtol=5e-3, atol=1e-4, err_msg=fault)
        assert facts("out", label)["NumberOfVoxels"] == mask.sum()
        assert not words or re.search(f"(?m)^note .*{words}.*: 1 participant, {label}$", told), fault


@pytest.mark.slow
@pytest.mark.parametrize("change", [np.diag([-1, 1, 1, 1]), np.diag([1, 1, 1, 6]) / 6], ids=["RAS", "4 mm"])
def test_affines_are_kept(change, bare):
    affine = change @ lab.AFFINE
    one(bare, "sub-1_*mask*").unlink()
    lab.edit(scan(bare, 1), lambda of, _: (of, affine))
    measures = "--maps falff,vmhc,dual_regression --networks {of}/nets.nii.gz"
    done(f"abide-data derive {{of}} out --only '*sub-1_*' {measures}", of=bare)
    found = nibabel.load(one(Path("out"), "*stat-falff_boldmap.nii.gz"))
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    assert found.header["sform_code"] == 4
    nearly(found.get_fdata(), falff(1))


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


def bundled(bundle: Path, cohort: Path, to: Path) -> Path:
    """A bundle that says the derivation of the cohort, with its images."""
    data = json.loads(read_bundle_files(bundle)["data.json"])
    data["metadata"]["derivation"] = json.loads((cohort / "cohort.json").read_text())["derivation"]
    parts = {f"derivation/{path.name}": path.read_bytes() for path in (cohort / "derivation").glob("*.*")}
    return rebuild_bundle(bundle, to, parts | {"data.json": json.dumps(data).encode()})


@pytest.mark.slow
@pytest.mark.parametrize("form", ["cohort", "zip", "bundle"])
def test_new_people_get_the_bytes_that_the_same_options_give(form, new, scan_cohort, tmp_path, request):
    like = scan_cohort
    if form == "zip":
        done("abide-data pack {of} zip --zip", of=scan_cohort)
        like = tmp_path / "zip"
        assert contents(like / "derivation") == contents(scan_cohort / "derivation")
    if form == "bundle":
        like = bundled(request.getfixturevalue("bundle"), scan_cohort, tmp_path / "a.zip")
    told = done("abide-data derive {new}/bold maps --like {of}", new=new, of=like)
    assert "falff, dual_regression; band 0.02-0.08 Hz, smoothing 30 mm, scans preprocessed, conf" in told
    assert contents(Path("maps")) == contents(new / "maps")


@pytest.mark.slow
def test_they_are_converted_like_it_and_what_no_json_says_is_not_compared(new, scan_cohort, tmp_path):
    maps = lab.copy(new / "maps", tmp_path / "maps")
    assert "could not be compared" not in done("abide-data convert maps cohort --like {of}", of=scan_cohort)
    said = [json.loads((folder / "cohort.json").read_text()) for folder in (tmp_path / "cohort", scan_cohort)]
    assert said[0]["derivation"] == said[1]["derivation"]
    assert contents(Path("cohort/derivation")) == contents(scan_cohort / "derivation")
    for path in maps.rglob("*_boldmap.json"):
        derived_as(path, smoothing_mm=29)
    refused = run("abide-data convert maps two --like {of}", of=scan_cohort)
    assert refused.status == 2 and "smoothing 29 mm, not 30 mm, of 4, 5, as those" in refused.err
    for path in maps.rglob("*_boldmap.json"):
        derived_as(path, smoothing_mm=30)
    for path in (maps / "sub-4").rglob("*_boldmap.json"):
        lab.edit(path, {"Derivation": None})
    told = done("abide-data convert maps one --like {of}", of=scan_cohort)
    assert "how is not known of 1 participant, so not kept: 4" in told
    assert "how all the new maps were is not known, so that could not be compared" in told
    assert "derivation" not in json.loads(Path("one/cohort.json").read_text())
    for path in maps.rglob("*_timeseries.json"):
        derived_as(path, band=[0.01, 0.1])
    refused = run("abide-data convert maps three --like {of}", of=scan_cohort)
    assert refused.status == 2 and "band 0.01-0.1 Hz, not 0.02-0.08 Hz, of 4, 5" in refused.err


@pytest.mark.slow
def test_options_that_agree_lend_what_a_cohort_does_not_keep(new, scans, scan_cohort, tmp_path):
    cohort, images = (lab.copy(of, tmp_path / of.name) for of in (scan_cohort, scans))
    shutil.rmtree(cohort / "derivation")
    reseal(cohort)
    for name in ("nets.nii.gz", "nets.txt", "my_atlas.nii.gz", "my_atlas.tsv"):
        (images / name).rename(images / f"renamed_{name}")
    options = OPTIONS.replace("nets", "renamed_nets").replace("my_atlas", "renamed_my_atlas")
    done(f"abide-data derive {{new}}/bold maps --like {{cohort}} {options}", new=new, cohort=cohort, of=images)
    assert contents(Path("maps")) == contents(new / "maps")
