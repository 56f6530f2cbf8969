"""Scans of people -> measures of each map and connectome beside the means of others, a row a record."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from data.base.terminal import BarProgress, PlainProgress
from data.cohorts import atlas, records, resampling
from data.cohorts.cohort import SERIES, Cohort
from data.conversion import edges, measures

CONNECTOME = "connectome"  # a view beside the maps
NEARLY_ALL = 0.99  # of training people; a region that holds signal in so many is expected of everybody
MIN_COVERED = 0.5  # share of a region's voxels that must hold signal
LEAST_GAIN = 0.5  # share of the mean volume in a volume; below it, its place is told with less weight
MOST_ALIKE = 0.99999  # a correlation, so that Fisher z stays finite
TINY = np.finfo(float).tiny  # a divisor in place of 0
Shown = PlainProgress | BarProgress
Lacking = dict[str, list[int]]  # by map: the regions without signal


def length(values: np.ndarray) -> np.float64:
    """The root of the sum of squares; without the threads of a BLAS, which cost more than they save here."""
    return np.float64(np.sqrt(np.square(values).sum()))


def centred(values: np.ndarray) -> np.ndarray:
    """Values of any shape -> (n,) with mean 0 and length 1; 0 if they are constant."""
    apart = values.ravel() - values.mean()
    return apart / max(length(apart), TINY)


def asymmetry(volume: np.ndarray) -> np.ndarray:
    """What differs between left and right (x, y, z), of length 1, or 0 if nothing does."""
    values = volume - volume[::-1].astype(np.float64)
    return values / max(length(values), TINY)


def cosine(unit: np.ndarray, values: np.ndarray) -> float:
    """The cosine of the angle between an array of length 1 and values of its shape; 0 if all of these are 0."""
    return float((unit * values).sum() / max(length(values), TINY))


def fisher_z(correlation: float) -> float:
    return float(np.arctanh(np.clip(correlation, -MOST_ALIKE, MOST_ALIKE)))


def uncovered(volume: np.ndarray, labels: np.ndarray) -> list[int]:
    """The numbers of the regions in `labels` (x, y, z) int of which a volume (x, y, z) holds little signal."""
    inside = np.flatnonzero(labels)
    region, signal = labels.ravel()[inside], volume.ravel()[inside] != records.background(volume)
    sizes = np.bincount(region)
    return np.flatnonzero(np.bincount(region[signal], minlength=len(sizes)) < MIN_COVERED * sizes).tolist()


class MeanVolume:
    """The mean volume of a map over people, (x, y, z) on the reduced grid: what a volume is compared with."""

    def __init__(self, mean: np.ndarray) -> None:
        self.mean = np.asarray(mean, np.float64)

    @cached_property
    def pattern(self) -> np.ndarray:
        return centred(self.mean)

    def correlation(self, volume: np.ndarray) -> float:
        """Pearson's r of a volume and the mean volume; 0 if one of them is constant."""
        values = volume.ravel().astype(np.float64)
        return float((self.pattern * values).sum() / max(length(values - values.mean()), TINY))

    @cached_property
    def terms(self) -> np.ndarray:
        """The mean volume and its slopes along x, y and z, (4, x, y, z): what a slightly shifted volume is made of."""
        return np.stack([self.mean, *np.gradient(self.mean)])

    @cached_property
    def shares(self) -> np.ndarray:
        """Least squares, (5, voxels): the products with a volume say how much it holds of each term, and of a
        constant."""
        terms = np.stack([*self.terms, np.ones(self.mean.shape)]).reshape(5, -1)
        return np.linalg.pinv(terms @ terms.T, hermitian=True) @ terms

    def shift(self, volume: np.ndarray) -> dict[str, float]:
        """How many mm a volume lies to the right, front and top."""
        gain, *along, _ = (self.shares * volume.ravel()).sum(1)
        shift = -records.REDUCED.spacing_mm * np.array(along) / max(gain, LEAST_GAIN)
        return dict(zip(("shift_x", "shift_y", "shift_z"), shift.tolist(), strict=True))

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """What differs between left and right, of length 1: in the mean volume (voxels,), without what a shift changes;
        in its slopes (3, voxels), at right angles to each other."""
        own, *slopes = (asymmetry(term).ravel() for term in self.terms)
        shifts = np.linalg.qr(np.stack(slopes, axis=1))[0].T
        left = own - (own @ shifts.T) @ shifts
        return left / max(length(left), TINY), shifts

    def side(self, volume: np.ndarray) -> float:
        """The correlation of what differs between left and right, without what a shift changes. A mirrored volume has
        as much below 0."""
        own, shifts = self.sides
        values = asymmetry(volume).ravel()
        return cosine(own, values - ((shifts * values).sum(1)[:, None] * shifts).sum(0))

    def compare(self, volume: np.ndarray) -> dict[str, float]:
        """`alike`, Fisher z of the correlation with a volume, its `side`, and its shift."""
        return {"alike": fisher_z(self.correlation(volume)), "side": self.side(volume)} | self.shift(volume)


def halves(volume: np.ndarray) -> dict[str, np.ndarray]:
    """What tells how a volume (x, y, z) was turned, (voxels,) of length 1, within the brain, whose centre is moved to
    that of the grid. In a mirrored volume the `side` has the other sign; in a negated one, both have; in one that is
    shifted, neither."""
    middle = np.argwhere(records.brain_of(volume)).mean(axis=0)
    off = (np.array(volume.shape) - 1) / 2 - middle
    inside = ndimage.shift(records.within_brain(volume[..., None])[..., 0], off, order=1)
    return {"side": MeanVolume(inside).sides[0], "values": centred(inside + inside[::-1])}


class Half:
    """The sum of one of `halves` over records, each turned to the sign of those before it: any number of them may have
    the other."""

    def __init__(self) -> None:
        self.sum = np.zeros(np.prod(records.REDUCED.shape))
        self.sign: dict[int, float] = {}  # 1 or -1, how a record was turned

    def add(self, index: int, half: np.ndarray) -> None:
        self.sign[index] = 1.0 if (half * self.sum).sum() >= 0 else -1.0
        self.sum += self.sign[index] * half

    def compare(self, index: int, half: np.ndarray) -> float:
        """The correlation of the half of an added record with that of the others."""
        return cosine(half, self.sum - self.sign[index] * half)


@dataclass
class VolumeSum:
    """The sum of volumes of one map (x, y, z) on the reduced grid; by region, how many hold little signal there."""

    count: int = 0
    volume: np.ndarray = field(default_factory=lambda: np.zeros(records.REDUCED.shape))
    uncovered: Counter[int] = field(default_factory=Counter)

    def add(self, volume: np.ndarray, lacking: Iterable[int]) -> None:
        """Adds a volume, and the regions where it holds little signal."""
        self.count += 1
        self.volume += volume
        self.uncovered.update(lacking)

    def __add__(self, other: "VolumeSum") -> "VolumeSum":
        return VolumeSum(self.count + other.count, self.volume + other.volume, self.uncovered + other.uncovered)

    def __sub__(self, other: "VolumeSum") -> "VolumeSum":
        return VolumeSum(self.count - other.count, self.volume - other.volume, self.uncovered - other.uncovered)

    @property
    def mean(self) -> np.ndarray:
        return self.volume / self.count

    @property
    def common_regions(self) -> tuple[int, ...]:
        """The regions of the AAL atlas in which nearly all volumes hold signal."""
        regions = range(1, atlas.AAL_REGIONS + 1)
        return tuple(at for at in regions if self.count - self.uncovered[at] >= NEARLY_ALL * self.count)


@dataclass(frozen=True, eq=False)
class Means:
    """Means over people: `volume` (x, y, z, maps) of each map on the reduced grid; `edges` (edges,) of connectomes in
    Fisher z, None without any. `regions` are those that nearly all people have, by map."""

    volume: np.ndarray
    edges: np.ndarray | None
    regions: dict[str, tuple[int, ...]]

    @cached_property
    def of_maps(self) -> list[MeanVolume]:
        return [MeanVolume(of_map) for of_map in np.moveaxis(self.volume, -1, 0)]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over people: of volumes, by map; `edges` (2, edges) are those of connectomes, and how many are known."""

    maps: dict[str, VolumeSum]
    edges: np.ndarray

    @classmethod
    def of(cls, cohort: Cohort, indices: Iterable[int], shown: Shown) -> "Sums":
        """Over the records at these positions."""
        labels = atlas.load_atlas(None, cohort.grid).labels
        num_edges = cohort.connectomes.num_edges if cohort.connectomes else 0
        found = cls({name: VolumeSum() for name in cohort.maps}, np.zeros((2, num_edges)))
        for index in indices:
            for of_map, volume in zip(found.maps.values(), volumes_of(cohort, index), strict=True):
                of_map.add(resampling.reduced(volume), uncovered(volume, labels))
            if cohort.connectomes:
                (row,) = cohort.connectomes[[index]]
                found.edges[:] += np.nan_to_num(row), np.isfinite(row)
            shown.advance()
        return found

    def __add__(self, other: "Sums") -> "Sums":
        maps = {name: of_map + other.maps[name] for name, of_map in self.maps.items()}
        return Sums(maps, self.edges + other.edges)

    def __sub__(self, other: "Sums") -> "Sums":
        maps = {name: of_map - other.maps[name] for name, of_map in self.maps.items()}
        return Sums(maps, self.edges - other.edges)

    def means(self) -> Means:
        """As float32."""
        volume = np.stack([of_map.mean for of_map in self.maps.values()], axis=-1).astype(np.float32)
        edges = (self.edges[0] / np.maximum(self.edges[1], 1)).astype(np.float32) if self.edges.size else None
        return Means(volume, edges, {name: of_map.common_regions for name, of_map in self.maps.items()})


def volumes_of(cohort: Cohort, index: int) -> Iterator[np.ndarray]:
    """The volume (x, y, z) of each map of a record."""
    return iter(np.moveaxis(cohort.read(index)[2], -1, 0))


def measured(cohort: Cohort, indices: np.ndarray, others: Means, shown: Shown) -> tuple[pd.DataFrame, list[Lacking]]:
    """The records at these positions beside the means of others: measures with columns (view, measure), and the regions
    that each record lacks."""
    labels = atlas.load_atlas(None, cohort.grid).labels
    rows: list[dict[tuple[str, str], float]] = []
    lacking: list[Lacking] = []
    for index in indices:
        row: dict[tuple[str, str], float] = {}
        rows.append(row)
        lacking.append({})
        for name, mean, volume in zip(cohort.maps, others.of_maps, volumes_of(cohort, index), strict=True):
            small = resampling.reduced(volume)
            lacking[-1][name] = sorted(set(others.regions[name]) & set(uncovered(volume, labels)))
            found = of_volume(small) | mean.compare(small) | {"lacking_regions": len(lacking[-1][name])}
            row |= {(name, measure): value for measure, value in found.items()}
        if cohort.connectomes and others.edges is not None:
            (of_edges,) = cohort.connectomes[[index]]
            found = of_connectome(of_edges, others.edges, cohort.connectomes.pairs)
            row |= {(CONNECTOME, measure): value for measure, value in found.items()}
        shown.advance()
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0])), lacking


def of_volume(volume: np.ndarray) -> dict[str, float]:
    """Where the brain of a stored volume (x, y, z) on the reduced grid lies, and how rough it is."""
    found = measures.of_volume(volume, records.brain_of(volume), records.REDUCED)
    place = {name: found[name] for name in ("x_mm", "y_mm", "z_mm")}
    return place | logarithms({name: found[name] for name in ("coverage", "roughness")})


def of_connectome(found: np.ndarray, mean: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    """Measures of a connectome (edges,) beside a mean one; NaN without any edge."""
    known = ~np.isnan(found)
    values = edges.measured(found)
    parcels = len(edges.lacking_parcels(found, pairs)) / (pairs.max() + 1)
    alike = fisher_z((centred(found[known]) @ centred(mean[known])).item()) if known.any() else np.nan
    some = {"mean_z": values["mean_z"], "sd_z": values["sd_z"], "alike": alike, "lacking_parcels": parcels}
    return some | logarithms({"mean_r": values["mean_r"]})


def before_conversion(cohort: Cohort, indices: np.ndarray) -> pd.DataFrame:
    """What is known of maps and series before their conversion, a row a record; no columns if nothing is."""
    subjects = [cohort.rows[index].subject for index in indices]
    columns: dict[tuple[str, str], np.ndarray] = {}
    if cohort.tables is None:
        return pd.DataFrame(index=range(len(subjects)))
    for name, of_map in (measures.read_measures(cohort.tables, subjects, cohort.maps) or {}).items():
        sd = of_map["sd"].clip(lower=measures.SMALLEST)
        found = {"mean_in_sds": of_map["mean"] / sd, "level_in_sds": of_map["background"] / sd}
        found |= logarithms({"sd": sd, "mean": of_map["mean"], "voxel_mm3": of_map["voxel_mm3"]})
        columns |= {(name, measure): np.asarray(values) for measure, values in found.items()}
    if cohort.connectomes:
        series = edges.read_series_table(cohort.tables / SERIES, subjects)
        columns |= {(CONNECTOME, name): values for name, values in logarithms(dict(series.items())).items()}
    return pd.DataFrame(columns, index=range(len(subjects)))


def logarithms(values: Mapping[str, Any]) -> dict[str, Any]:
    """The logarithms of numbers, or of columns of them; NaN where a number is not above 0."""
    return {f"log {name}": np.log(np.where(np.asarray(of) > 0, of, np.nan)) for name, of in values.items()}
