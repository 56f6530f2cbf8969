"""How many people are called unlike the training people, if they are like them, and if their maps or ages are not.

`python tests/benchmarks/unlike.py COHORT SOURCE [--people 60] [--seed 0]`

COHORT was converted from SOURCE, whose maps are named after people. A fifth of the people, drawn at random, are not in
the reference and count as new; so does each site in turn. Of the former some have their NIfTI files changed, or their
age in the table, and are converted again like a cohort in which they are not trained on. Each line: a change, how many
of how many people are told, with a 95 % interval (Wilson), and the reasons that come first most often. A conversion
that refuses the maps is told instead.
Then, for each map, the least factor of its scale that is told, and how many of these people are if this map alone is
multiplied by 2 or by 10.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.cohorts.cohort import Cohort
from data.cohorts.rows import TABLE
from data.cohorts.seal import SEAL
from data.cohorts.stored import open_cohort
from data.likeness import reference as likeness
from data.likeness.reasons import deviations
from data.likeness.scans import before_conversion

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = 5  # parts of the people, of which one is new
OLD, YOUNG = 60, 40  # years: new people, and the oldest that the reference has seen
AGE = "AGE_AT_SCAN"
FACTORS = (2, 10)
Change = Callable[[np.ndarray], np.ndarray]


def rolled(axis: int, voxels: int) -> Change:
    return lambda values: np.roll(values, voxels, axis)


def z_scored(values: np.ndarray) -> np.ndarray:
    """Each volume (x, y, z, ...) within its brain."""
    volumes = values.reshape(*values.shape[:3], -1)
    brain = np.where(volumes != 0, volumes, np.nan)
    scored = (volumes - np.nanmean(brain, (0, 1, 2))) / np.nanstd(brain, (0, 1, 2))
    return np.where(volumes != 0, scored, 0).reshape(values.shape)


CHANGES: dict[str, Change | None] = {
    "nothing": lambda values: values,
    "2 voxels to the left or right": rolled(0, 2),
    "2 voxels to the front": rolled(1, 2),
    "2 voxels to the bottom": rolled(2, -2),
    "left and right exchanged": lambda values: values[::-1],
    "all maps times 1.5": lambda values: values * 1.5,
    "all maps divided by 2": lambda values: values / 2,
    "all maps times 10": lambda values: values * 10,
    "all maps z-scored": z_scored,
    f"age {OLD}, training people up to {YOUNG}": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--people", type=int, default=60)
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
    scales(cohort, chosen, of)


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
        if change is None and ages is None:
            continue
        files, target = folder / f"source-{number}", folder / f"new-{number}"
        write_source(source, files, subjects, change)
        command = [sys.executable, "-m", "data", "convert", files, target, "--like", like]
        outcome = subprocess.run(list(map(str, command)), cwd=ROOT, text=True, capture_output=True)
        if outcome.returncode == 2:
            print(f"{name:<40}refused: {outcome.stderr.strip()[:200]}", flush=True)
            continue
        new, beside = open_cohort(target), of
        if change is None and ages is not None:
            young = [index for index in known if ages[cohort.rows[index].subject] <= YOUNG]
            beside = likeness.reference(cohort, young)
        report(name, likeness.compared(beside, new, range(len(new.rows))).reasons)
        shutil.rmtree(files), shutil.rmtree(target)


def without(cohort: Cohort, subjects: Sequence[str], target: Path) -> Path:
    """The cohort in another folder, these subjects in its test split."""
    shutil.copytree(cohort.path, target, copy_function=os.symlink)
    table = pd.read_csv(cohort.path / TABLE, dtype=str, keep_default_na=False)
    table.loc[table["subject"].isin(subjects), "split"] = "test"
    (target / TABLE).unlink()
    (target / SEAL).unlink(missing_ok=True)
    table.to_csv(target / TABLE, index=False)
    return target


def write_source(source: Path, target: Path, subjects: Sequence[str], change: Change | None) -> None:
    """The files of these people and the tables, as links; maps changed, or, without a change, the age in tables."""
    for path in source.rglob("*"):
        copy, of_person = target / path.relative_to(source), any(subject in path.name for subject in subjects)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.suffix == ".csv" and not of_person:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            rows = table[table.isin(list(subjects)).any(axis=1)]
            (rows if change else rows.assign(**{AGE: str(OLD)})).to_csv(copy, index=False)
        elif of_person and change and path.name.endswith((".nii.gz", ".nii")):
            image = nibabel.nifti1.load(path)
            values = np.ascontiguousarray(change(np.asarray(image.dataobj)))
            nibabel.nifti1.save(nibabel.Nifti1Image(values.astype(np.float32), image.affine), copy)
        elif of_person:
            copy.symlink_to(path.resolve())


def scales(cohort: Cohort, chosen: np.ndarray, of: likeness.Reference) -> None:
    """What is told of the scale of each map alone."""
    limit, measured = of.constants.limits["scan"], before_conversion(cohort, chosen)
    print("map, the least factor of its scale that is told of the median person, people told: times 2, times 10")
    for name, factor in likeness.least_factors(of.constants).items():
        told = []
        for by in FACTORS:
            other = measured[[name]].copy()
            for measure in ("log sd", "log mean"):
                other[name, measure] += np.log(by)
            told.append(int((deviations(other, of.constants.ranges).abs().max(axis=1) > limit).sum()))
        print(f"{name:<40}{factor:>6.1f}   {told[0]} and {told[1]} of {len(chosen)}")


if __name__ == "__main__":
    main()
