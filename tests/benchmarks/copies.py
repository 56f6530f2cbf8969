"""Which near copies of a scan are found: `python tests/benchmarks/copies.py FOLDER [--maps falff,alff] [--cohorts 30]`.

FOLDER holds real maps of many people, `<person>_<map>.nii.gz`, at any depth. One person of 65 is copied, with a change,
in each of so many cohorts; ten of seventy are in a tenth as many. Prints a line a kind of copy: how many were found and
how many pairs of different people were called one scan, over all maps, then over the first map alone.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.base.cli import positive
from data.cohorts import nifti, records, resampling, twins

PEOPLE, COPIES = 70, 10
FULL_WIDTH = 2.3548  # at half maximum, of a Gaussian of 1 SD
RANDOM = np.random.default_rng(0)
Change = Callable[[np.ndarray, float], np.ndarray]  # values (x, y, z), mm a voxel -> those of the copy


def noised(values: np.ndarray, _: float) -> np.ndarray:
    return np.where(values, values + 0.1 * values[values != 0].std() * RANDOM.normal(size=values.shape), 0)


def z_scored(values: np.ndarray, _: float) -> np.ndarray:
    brain = values[values != 0]
    return np.where(values, (values - brain.mean()) / brain.std(), 0)


def turned(values: np.ndarray, _: float) -> np.ndarray:
    for axes in ((0, 1), (0, 2), (1, 2)):
        values = ndimage.rotate(values, 0.5, axes, reshape=False, order=1)
    return values


def shifted(by_mm: float, values: np.ndarray, mm: float) -> np.ndarray:
    return ndimage.shift(values, by_mm / mm, order=1)


def smoothed(width_mm: float, values: np.ndarray, mm: float) -> np.ndarray:
    return ndimage.gaussian_filter(values, width_mm / FULL_WIDTH / mm)


def resampled(order: int, values: np.ndarray, mm: float) -> np.ndarray:
    """On another grid, of 0.7 voxels, and back by nearest neighbour."""
    there = ndimage.affine_transform(
        values, np.eye(3) * 0.7, output_shape=[int(n / 0.7) for n in values.shape], order=order
    )
    return ndimage.affine_transform(there, np.eye(3) / 0.7, output_shape=values.shape, order=0)


def cut(before: tuple[int, ...], behind: tuple[int, ...], values: np.ndarray, _: float) -> np.ndarray:
    """Without so many voxels of the box around the brain, on each side."""
    kept, box = np.zeros_like(values), [(at.min(), at.max() + 1) for at in np.nonzero(values)]
    inside = tuple(slice(a + one, b - other) for (a, b), one, other in zip(box, before, behind, strict=True))
    kept[inside] = values[inside]
    return kept


def masked(voxels: int, values: np.ndarray, _: float) -> np.ndarray:
    return np.where(ndimage.binary_erosion(values != 0, iterations=voxels), values, 0)


KINDS: dict[str, Change] = {
    "noise of 0.1 SD": noised,
    "16-bit numbers": lambda values, _: np.rint(values / np.abs(values).max() * 32767),
    "z-scored within the brain": z_scored,
    "rotation of 0.5 degrees": turned,
    "shift of 1 mm": partial(shifted, 1),
    "shift of 2 mm": partial(shifted, 2),
    "smoothing of 4 mm": partial(smoothed, 4),
    "smoothing of 8 mm": partial(smoothed, 8),
    "another grid, nearest": partial(resampled, 0),
    "another grid, cubic": partial(resampled, 3),
    "cut by 3 voxels all around": partial(cut, (3, 3, 3), (3, 3, 3)),
    "without the 5 lowest slices": partial(cut, (0, 0, 5), (0, 0, 0)),
    "without the 10 lowest slices": partial(cut, (0, 0, 10), (0, 0, 0)),
    "without the 8 highest slices": partial(cut, (0, 0, 0), (0, 0, 8)),
    "mask smaller by 1 voxel": partial(masked, 1),
    "mask smaller by 2 voxels": partial(masked, 2),
    "mirrored": lambda values, _: values[::-1],
    "mirrored, mask smaller by 1": lambda values, mm: masked(1, values[::-1], mm),
}
MIXED = ("one map of several", "average of two people", "left of one, right of another")


class People:
    """Maps of people, and their region means (people, regions, maps)."""

    def __init__(self, folder: Path, maps: list[str], grid: records.Grid) -> None:
        found = {
            name: {path.name.split(f"_{name}.nii")[0]: path for path in folder.rglob(f"*_{name}.nii*")} for name in maps
        }
        self.maps = maps
        self.names, self.found, self.grid = sorted(set.intersection(*map(set, found.values()))), found, grid
        self.means = np.stack([self.copied(at, lambda values, _: values) for at in range(len(self.names))])

    def read(self, at: int) -> Iterator[nibabel.Nifti1Image]:
        return nifti.read_brains([nifti.MapOnDisk(paths[self.names[at]]) for paths in self.found.values()])

    def copied(self, at: int, change: Change) -> np.ndarray:
        return np.column_stack([self.of(image, np.asarray(image.dataobj), change) for image in self.read(at)])

    def of(self, image: nibabel.Nifti1Image, values: np.ndarray, change: Change) -> np.ndarray:
        changed = np.asfortranarray(change(values, float(image.affine[0, 0])), np.float32)
        volume = nifti.stored_volume(nibabel.Nifti1Image(changed, image.affine), self.grid)
        return twins.of_reduced(resampling.reduced(volume))

    def mixed(self, kind: str, one: int, other: int) -> np.ndarray:
        if kind == MIXED[0]:
            return np.column_stack([self.copied(one, noised)[:, :1], self.means[other][:, 1:]])
        means = []
        for image, second in zip(self.read(one), self.read(other), strict=True):
            both = [
                np.asarray(of.dataobj) / np.asarray(of.dataobj)[np.asarray(of.dataobj) != 0].mean()
                for of in (image, second)
            ]
            average, middle = np.where(both[0] * both[1], sum(both) / 2, 0), len(both[0]) // 2
            halves = np.concatenate([both[0][:middle], both[1][middle:]])
            means.append(self.of(image, average if kind == MIXED[1] else halves, lambda values, _: values))
        return np.column_stack(means)


def outcome(means: np.ndarray, sources: list[list[int]], maps: slice) -> tuple[int, int, int]:
    """Copies and the people that they are of: pairs found, pairs there are, other pairs called one scan."""
    groups = [set(map(int, group)) for group in twins.alike([*map(str, range(len(means)))], means[..., maps]).same_scan]
    tied = {pair for group in groups for pair in combinations(sorted(group), 2)}
    true = [{copy, *people} for copy, people in enumerate(sources)]
    pairs = [(copy, person) for copy, people in enumerate(sources) for person in people]
    return len(tied & set(pairs)), len(pairs), sum(not any(set(pair) <= of for of in true) for pair in tied)


def measured(people: People, kind: str, cohorts: int, copies: int, size: int) -> list[np.ndarray]:
    """`outcome`, summed over cohorts of `size` with so many copies: over all maps, and over the first alone."""
    every, random = slice(None), np.random.default_rng(cohorts)
    sums = [np.zeros(3, int), np.zeros(3, int)]
    for _ in range(cohorts):
        chosen = random.permutation(len(people.names))[: size - copies]
        means, sources = [people.means[chosen]], [[copies + at] for at in range(copies)]
        if kind in MIXED:
            sources = [[copies + at, 2 * copies + at] for at in range(copies)]
            of = [people.mixed(kind, chosen[at], chosen[copies + at]) for at in range(copies)]
        else:
            of = [people.copied(chosen[at], KINDS[kind]) for at in range(copies)]
        together = np.concatenate([np.stack(of), *means])
        sums = [total + outcome(together, sources, maps) for total, maps in zip(sums, (every, slice(1)), strict=True)]
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--maps", default="falff,alff,degree_weighted")
    parser.add_argument("--cohorts", type=positive, default=30)
    parser.add_argument("--grid", choices=records.GRIDS, default="reduced")
    parser.add_argument("--exclude", default="", help="people who are twins indeed, with commas")
    args = parser.parse_args()
    people = People(args.folder, args.maps.split(","), records.GRIDS[args.grid])
    kept = [at for at, name in enumerate(people.names) if name not in args.exclude.split(",")]
    people.names, people.means = [people.names[at] for at in kept], people.means[kept]
    few = max(1, args.cohorts // COPIES)
    for kind in [*KINDS, *MIXED]:
        one = measured(people, kind, args.cohorts, 1, min(PEOPLE - 4, len(people.names)))
        ten = measured(people, kind, few, COPIES, PEOPLE)
        for maps, *counts in zip(("all maps", f"{people.maps[0]} alone"), one, ten, strict=True):
            if kind == MIXED[0] and maps != "all maps":
                continue
            shown = [f"{found} of {there}, {wrong} wrong" for found, there, wrong in counts]
            print(f"{kind}, {maps}: one copy {shown[0]}; ten of seventy {shown[1]}", flush=True)


if __name__ == "__main__":
    main()
