"""How many people are called unlike the training people, if they are like them, and if their maps or ages are not.

`python tests/benchmarks/unlike.py COHORT SOURCE [--people 20] [--seed 0]`

COHORT was converted from SOURCE, whose maps have voxels of 3 mm and are named after people. A fifth of the people,
drawn at random, are not in the reference and count as new; so does each site in turn. Of the former some have their
NIfTI files changed, or a column of the table, and are converted again like a cohort in which they are not trained on.
Each line: a change, how many of how many people are told, with a 95 % interval (Wilson), and the reasons that come
first most often. A conversion that refuses the maps is told instead.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from scipy import ndimage, stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.base.manifest import SUMS
from data.cohorts.cohort import Cohort
from data.cohorts.rows import TABLE
from data.cohorts.stored import open_cohort, write_tables
from data.likeness import reference as likeness

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = 5  # parts of the people, of which one is new
YOUNG = 40  # years: the oldest that the reference has seen, if new people are older
AGE, MOTION = "AGE_AT_SCAN", "func_mean_fd"
VOXEL_MM = 3  # of the maps
FWHM_PER_SD = 2.355  # of a Gaussian
MISSING = 0.15  # of the slices
Change = Callable[[np.ndarray], np.ndarray]
Column = dict[str, str]  # of the table, the same value for all


def rolled(axis: int, voxels: int) -> Change:
    return lambda values: np.roll(values, voxels, axis)


def z_scored(values: np.ndarray) -> np.ndarray:
    """Each volume (x, y, z, ...) within its brain."""
    volumes = values.reshape(*values.shape[:3], -1)
    brain = np.where(volumes != 0, volumes, np.nan)
    scored = (volumes - np.nanmean(brain, (0, 1, 2))) / np.nanstd(brain, (0, 1, 2))
    return np.where(volumes != 0, scored, 0).reshape(values.shape)


def by_volume(change: Change) -> Change:
    """A change of (x, y, z) for files of one volume or several; what is 0, outside of the brain, stays so."""

    def of(values: np.ndarray) -> np.ndarray:
        volumes = np.moveaxis(values.reshape(*values.shape[:3], -1).astype(float), -1, 0)
        changed = [np.where(volume != 0, change(volume), 0) for volume in volumes]
        return np.stack(changed, axis=-1).reshape(values.shape)

    return of


def smoothed(fwhm_mm: float) -> Change:
    """By a Gaussian, within the brain."""

    def of(volume: np.ndarray) -> np.ndarray:
        parts = (volume, (volume != 0).astype(float))
        total, weight = (ndimage.gaussian_filter(part, fwhm_mm / FWHM_PER_SD / VOXEL_MM) for part in parts)
        return total / np.maximum(weight, 1e-6)

    return by_volume(of)


def of_voxels(size_mm: float) -> Change:
    """Resampled to larger voxels within the brain, and back."""

    def resampled(volume: np.ndarray) -> np.ndarray:
        small = [round(count * VOXEL_MM / size_mm) for count in volume.shape]
        there = ndimage.zoom(volume, np.divide(small, volume.shape), order=1, grid_mode=True, mode="nearest")
        return ndimage.zoom(there, np.divide(volume.shape, small), order=1, grid_mode=True, mode="nearest")

    return by_volume(lambda volume: resampled(volume) / np.maximum(resampled((volume != 0).astype(float)), 1e-6))


def without_lowest(volume: np.ndarray) -> np.ndarray:
    """The lowest of the slices that hold brain are 0."""
    there = np.flatnonzero(volume.any(axis=(0, 1)))
    lowest = there[: round(MISSING * len(there))]
    return np.where(np.isin(np.arange(volume.shape[2]), lowest), 0, volume)


def noisy(volume: np.ndarray) -> np.ndarray:
    """Noise of half the standard deviation of the brain, its own for each voxel."""
    sd = volume[volume != 0].std()
    return volume + np.random.default_rng(0).normal(0, sd / 2, volume.shape)


CHANGES: dict[str, Change | Column] = {
    "nothing": lambda values: values,
    "2 voxels to the left or right": rolled(0, 2),
    "2 voxels to the front": rolled(1, 2),
    "2 voxels to the bottom": rolled(2, -2),
    "left and right exchanged": lambda values: values[::-1],
    "all maps times 1.5": lambda values: values * 1.5,
    "all maps divided by 2": lambda values: values / 2,
    "all maps times 10": lambda values: values * 10,
    "all maps z-scored": z_scored,
    "4 mm more smoothing": smoothed(4),
    "8 mm more smoothing": smoothed(8),
    "resampled to 4 mm, and back": of_voxels(4),
    "resampled to 6 mm, and back": of_voxels(6),
    f"lowest {MISSING:.0%} of slices missing": by_volume(without_lowest),
    "noise of half a standard deviation": by_volume(noisy),
    f"age 60, training people up to {YOUNG}": {AGE: "60"},
    "head motion 1.5 mm": {MOTION: "1.5"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cohort = open_cohort(options.cohort)
    print(f"{cohort}\n{'change':<40}{'told':>12}   95 % interval", flush=True)
    order = np.random.default_rng(options.seed).permutation(len(cohort.rows))
    new, known = np.split(order, [len(order) // HELD_OUT])
    of = likeness.reference(cohort, known)
    report("own people, drawn at random", likeness.compared(of, cohort, new).reasons)
    held_out_sites(cohort)
    chosen = new[: options.people]
    with tempfile.TemporaryDirectory() as folder:
        changed_people(cohort, options.source, (known, chosen), of, Path(folder))


def report(name: str, found: Sequence[tuple[str, ...]]) -> None:
    """A line of who is told, and what tells most of them."""
    told = sum(map(bool, found))
    low, high = stats.binomtest(told, len(found)).proportion_ci(method="wilson")
    reasons = (one[0].partition(": ")[2] or one[0] for one in found if one)
    first = Counter(re.sub(r"\b[-0-9.]+", "#", text) for text in reasons)
    why = "; ".join(f"{count} x {text}" for text, count in first.most_common(3))
    print(f"{name:<40}{told:>5} of {len(found):<5} {low:.2f} to {high:.2f}   {why}", flush=True)


def held_out_sites(cohort: Cohort) -> None:
    """Everybody, beside a reference that has not seen the site."""
    sites = np.array([row.site for row in cohort.rows])
    found: list[tuple[str, ...]] = []
    for site in np.unique(sites):
        of_others = likeness.reference(cohort, np.flatnonzero(sites != site))
        found += likeness.compared(of_others, cohort, np.flatnonzero(sites == site)).reasons
    report("own people, of sites not seen", found)


def changed_people(
    cohort: Cohort, source: Path, people: tuple[np.ndarray, np.ndarray], of: likeness.Reference, folder: Path
) -> None:
    """People (those in the reference, those to be changed) after each of CHANGES."""
    known, chosen = people
    subjects = [cohort.rows[index].subject for index in chosen]
    like = without(cohort, subjects, folder / "like")
    ages = pd.to_numeric(cohort.covariates[AGE]) if cohort.covariates is not None and AGE in cohort.covariates else None
    for number, (name, change) in enumerate(CHANGES.items()):
        if isinstance(change, dict) and (cohort.covariates is None or not change.keys() <= set(cohort.covariates)):
            continue
        files, target = folder / f"source-{number}", folder / f"new-{number}"
        write_source(source, files, subjects, change)
        command = [sys.executable, "-m", "data", "convert", files, target, "--like", like]
        outcome = subprocess.run(list(map(str, command)), cwd=ROOT, text=True, capture_output=True)
        if outcome.returncode == 2:
            print(f"{name:<40}refused: {outcome.stderr.strip()[:200]}", flush=True)
            continue
        new, beside = open_cohort(target), of
        if isinstance(change, dict) and AGE in change and ages is not None:
            young = [index for index in known if ages[cohort.rows[index].subject] <= YOUNG]
            beside = likeness.reference(cohort, young)
        report(name, likeness.compared(beside, new, range(len(new.rows))).reasons)
        shutil.rmtree(files), shutil.rmtree(target)


def without(cohort: Cohort, subjects: Sequence[str], target: Path) -> Path:
    """The cohort in another folder, these subjects in its test split."""
    shutil.copytree(cohort.path, target)
    for name in (TABLE, SUMS):
        (target / name).unlink()
    rows = [replace(row, split="test") if row.subject in subjects else row for row in cohort.rows]
    write_tables(target, rows, cohort.metadata)
    return target


def write_source(source: Path, target: Path, subjects: Sequence[str], change: Change | Column) -> None:
    """The files of these people and the tables, as links; maps changed, or a column of the tables."""
    for path in source.rglob("*"):
        copy, of_person = target / path.relative_to(source), any(subject in path.name for subject in subjects)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.suffix == ".csv" and not of_person:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            rows = table[table.isin(list(subjects)).any(axis=1)]
            (rows.assign(**change) if isinstance(change, dict) else rows).to_csv(copy, index=False)
        elif of_person and not isinstance(change, dict) and path.name.endswith((".nii.gz", ".nii")):
            image = nibabel.nifti1.load(path)
            values = np.ascontiguousarray(change(np.asarray(image.dataobj)))
            nibabel.nifti1.save(nibabel.Nifti1Image(values.astype(np.float32), image.affine), copy)
        elif of_person:
            copy.symlink_to(path.resolve())


if __name__ == "__main__":
    main()
