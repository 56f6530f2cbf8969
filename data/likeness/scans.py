"""Scans of people -> measures of each map and connectome beside the means of others, a row a record."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from data.base.terminal import Progress, progress
from data.cohorts import atlas, records, resampling
from data.cohorts.cohort import SERIES, Cohort
from data.conversion import edges, measures

CONNECTOME = "connectome"  # a view beside the maps
PARTS = 10  # of people, each of which is compared with the means of the others
NEARLY_ALL = 0.99  # of people; a region that holds signal in so many is expected of everybody
MIN_COVERED = 0.5  # share of a region's voxels that must hold signal
LEAST_GAIN = 0.5  # share of the mean volume in a volume; below it, its place is told with less weight
MOST_ALIKE = 0.99999  # a correlation, so that Fisher z stays finite
TINY = np.finfo(float).tiny  # a divisor in place of 0
HALVES = ("side", "values")  # what tells how a volume was turned
Lacking = dict[int, dict[str, list[int]]]  # the regions without signal, by record and map


def unit(values: np.ndarray) -> np.ndarray:
    """Values of any shape, divided by the root of the sum of their squares; 0 if all are 0. Without the threads of a
    BLAS, which cost more than they save here."""
    return values / max(float(np.sqrt(np.square(values).sum())), TINY)


def centred(values: np.ndarray) -> np.ndarray:
    """Values of any shape -> (n,) with mean 0 and length 1; 0 if they are constant."""
    return unit(values.ravel() - values.mean(dtype=np.float64))


def fisher_z(correlation: float) -> float:
    return float(np.arctanh(np.clip(correlation, -MOST_ALIKE, MOST_ALIKE)))


def uncovered(volume: np.ndarray, labels: np.ndarray) -> list[int]:
    """The numbers of the regions in `labels` (x, y, z) int of which a volume (x, y, z) holds little signal."""
    inside = np.flatnonzero(labels)
    region, signal = labels.ravel()[inside], volume.ravel()[inside] != records.background(volume)
    sizes = np.bincount(region)
    return np.flatnonzero(np.bincount(region[signal], minlength=len(sizes)) < MIN_COVERED * sizes).tolist()


def halves(volume: np.ndarray) -> np.ndarray:
    """HALVES of a volume (x, y, z), (2, voxels), each of length 1, within the brain, whose middle is moved to that of
    the grid. In a mirrored volume the first has the other sign; in a negated one, both have; in one that is shifted,
    neither: what a shift changes is taken from what differs between left and right."""
    middle = np.argwhere(records.brain_of(volume)).mean(axis=0)
    off = (np.array(volume.shape) - 1) / 2 - middle
    inside = ndimage.shift(records.within_brain(volume[..., None])[..., 0], off, order=1)
    own, *slopes = ((of - of[::-1].astype(np.float64)).ravel() for of in (inside, *np.gradient(inside)))
    products = np.array([[(one * other).sum() for other in (*slopes, own)] for one in slopes])
    by_slope = np.linalg.pinv(products[:, :-1], hermitian=True) @ products[:, -1]
    side = own - sum(share * slope for share, slope in zip(by_slope, slopes, strict=True))
    return np.stack([unit(side), centred(inside + inside[::-1])])


class MeanVolume:
    """The mean volume of a map over people, (x, y, z) on the reduced grid, and the mean of their `halves`, which are
    those of the mean volume unless they are given: what a volume is compared with."""

    def __init__(self, mean: np.ndarray, halves_of: np.ndarray | None = None) -> None:
        self.mean = np.asarray(mean, np.float64)
        self.pattern = centred(self.mean)
        self.halves = np.stack([*map(unit, halves(self.mean) if halves_of is None else halves_of)])

    @cached_property
    def shares(self) -> np.ndarray:
        """Least squares, (5, voxels): the products with a volume say how much it holds of the mean volume, of its
        slopes along x, y and z, and of a constant; a slightly shifted volume is made of these."""
        terms = np.stack([self.mean, *np.gradient(self.mean), np.ones(self.mean.shape)]).reshape(5, -1)
        return np.linalg.pinv(terms @ terms.T, hermitian=True) @ terms

    def compare(self, volume: np.ndarray, of_volume: np.ndarray) -> dict[str, float]:
        """`alike`, Fisher z of the correlation with a volume, whose `halves` are given; the correlations with each
        half; how many mm the volume lies to the right, front and top."""
        gain, *along, _ = (self.shares * volume.ravel()).sum(1)
        shift = -records.REDUCED.spacing_mm * np.array(along) / max(gain, LEAST_GAIN)
        alike = fisher_z(float((self.pattern * centred(volume)).sum()))
        turned = (of_volume * self.halves).sum(1)
        names = ("alike", *HALVES, "shift_x", "shift_y", "shift_z")
        return dict(zip(names, [alike, *turned.tolist(), *shift.tolist()], strict=True))


@dataclass(frozen=True, eq=False)
class Means:
    """Means over people: `maps` by name; `edges` (edges,) of connectomes in Fisher z, None without any. `regions` are
    those that nearly all people have, by map."""

    maps: dict[str, MeanVolume]
    edges: np.ndarray | None
    regions: dict[str, tuple[int, ...]]

    @property
    def volume(self) -> np.ndarray:
        """(x, y, z, maps) float32."""
        return np.stack([of_map.mean for of_map in self.maps.values()], axis=-1).astype(np.float32)


class Scans:
    """The scans of people, of whom each is compared with the means of those in other parts.

    Sums are kept by part and map: of people (parts,), of volumes (parts, maps, x, y, z) on the reduced grid, of
    `halves` (parts, maps, 2, voxels), of those who lack a region (parts, maps, regions), and of edges (parts, 2,
    edges), with how many are known. Halves are turned to the sign of those before: any number of people may be turned.
    """

    def __init__(self, cohort: Cohort, indices: Iterable[int]) -> None:
        """Those whose records are at these positions; the first record of each person counts in the means."""
        self.cohort, self.labels = cohort, atlas.load_atlas(None, cohort.grid).labels
        first = cohort.first_records(indices)
        self.first, parts, maps = set(first.values()), min(PARTS, len(first)), cohort.num_maps
        self.part = {subject: at % parts for at, subject in enumerate(first)}
        shape, num_edges = records.REDUCED.shape, cohort.connectomes.num_edges if cohort.connectomes else 0
        self.people, self.volumes = np.zeros(parts, int), np.zeros((parts, maps, *shape))
        self.halves = np.zeros((parts, maps, len(HALVES), np.prod(shape)))
        self.lacking = np.zeros((parts, maps, atlas.AAL_REGIONS + 1), int)
        self.edges = np.zeros((parts, 2, num_edges))

    def add(self, index: int, volumes: Iterable[np.ndarray]) -> None:
        """Adds the record at this position, with the volume (x, y, z) of each map. Raises InputError if its connectome
        cannot be read."""
        if index not in self.first:
            return
        part = self.part[self.cohort.rows[index].subject]
        if self.cohort.connectomes:
            (row,) = self.cohort.connectomes[[index]]
            self.edges[part] += np.nan_to_num(row), np.isfinite(row)
        self.people[part] += 1
        for at, volume in enumerate(volumes):
            small = resampling.reduced(volume)
            self.volumes[part, at] += small
            self.lacking[part, at, uncovered(volume, self.labels)] += 1
            self.halves[part, at] += oriented(halves(small), self.halves[:, at].sum(0))

    def means(self, without: int | None = None) -> Means:
        """Over all parts, or all but one. The mean volumes are rounded to float32, in which they are kept."""
        kept = np.array([part != without for part in range(len(self.people))])
        count, maps = self.people[kept].sum(), self.cohort.maps
        volumes = (self.volumes[kept].sum(0) / max(count, 1)).astype(np.float32)
        turned = self.halves[kept].sum(0) if without is not None else [None] * len(maps)
        have = count - self.lacking[kept].sum(0)
        common = [np.flatnonzero(of_map[1:] >= NEARLY_ALL * count) + 1 for of_map in have]
        total, known = self.edges[kept].sum(0)
        return Means(
            {name: MeanVolume(*both) for name, *both in zip(maps, volumes, turned, strict=True)},
            (total / np.maximum(known, 1)).astype(np.float32) if self.cohort.connectomes else None,
            {name: tuple(regions.tolist()) for name, regions in zip(maps, common, strict=True)},
        )

    def measured(self, indices: Iterable[int]) -> tuple[pd.DataFrame, Lacking]:
        """`measured` of the records at these positions, each beside the means of the parts of other people."""
        of_part: dict[int, list[int]] = {}
        for index in indices:
            of_part.setdefault(self.part[self.cohort.rows[index].subject], []).append(index)
        if len(self.people) < 2:
            return pd.DataFrame(), {}
        with progress("Comparing", sum(map(len, of_part.values()))) as shown:
            found = [measured(self.cohort, of, self.means(part), shown) for part, of in of_part.items()]
        lacking = {index: regions for _, of in found for index, regions in of.items()}
        values = pd.concat([table for table, _ in found]).sort_index()
        of_halves = [column for column in values if column[1] in HALVES]
        values[of_halves] *= np.where(values[of_halves].median() < 0, -1, 1)  # most are not turned
        return values, lacking


def oriented(values: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """`halves` (2, voxels), each turned to the sign of those in sums (2, voxels) of others."""
    return np.where((values * sums).sum(1, keepdims=True) < 0, -values, values)


def volumes_of(cohort: Cohort, index: int) -> Iterator[np.ndarray]:
    """The volume (x, y, z) of each map of a record."""
    return iter(np.moveaxis(cohort.volume(index), -1, 0))


def measured(cohort: Cohort, indices: Iterable[int], others: Means, shown: Progress) -> tuple[pd.DataFrame, Lacking]:
    """The records at these positions beside the means of others: measures with columns (view, measure), and the regions
    that each record lacks, by map. Raises InputError, naming a file that cannot be read."""
    labels = atlas.load_atlas(None, cohort.grid).labels
    rows: dict[int, dict[tuple[str, str], float]] = {}
    lacking: Lacking = {}
    for index in indices:
        row: dict[tuple[str, str], float] = {}
        rows[index], lacking[index] = row, {}
        for (name, mean), volume in zip(others.maps.items(), volumes_of(cohort, index), strict=True):
            small = resampling.reduced(volume)
            gone = sorted(set(others.regions[name]) & set(uncovered(volume, labels)))
            lacking[index][name] = gone
            found = of_volume(small) | mean.compare(small, halves(small)) | {"lacking_regions": len(gone)}
            row |= {(name, measure): value for measure, value in found.items()}
        if cohort.connectomes and others.edges is not None:
            (of_edges,) = cohort.connectomes[[index]]
            found = of_connectome(of_edges, others.edges, cohort.connectomes.pairs)
            row |= {(CONNECTOME, measure): value for measure, value in found.items()}
        shown.advance()
    return pd.DataFrame.from_dict(rows, orient="index"), lacking


def of_volume(volume: np.ndarray) -> dict[str, float]:
    """Measures of a stored volume (x, y, z) on the reduced grid as a whole."""
    found = measures.of_volume(volume, records.brain_of(volume), records.REDUCED)
    return found | logarithms({name: found[name] for name in ("coverage", "roughness")})


def of_connectome(found: np.ndarray, mean: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    """Measures of a connectome (edges,) beside a mean one; NaN without any edge."""
    known = ~np.isnan(found)
    values = edges.measured(found)
    parcels = len(edges.lacking_parcels(found, pairs)) / (pairs.max() + 1)
    alike = fisher_z((centred(found[known]) @ centred(mean[known])).item()) if known.any() else np.nan
    some = {"mean_z": values["mean_z"], "sd_z": values["sd_z"], "alike": alike, "lacking_parcels": parcels}
    return some | logarithms({"mean_r": values["mean_r"]})


def before_conversion(cohort: Cohort, indices: Sequence[int]) -> pd.DataFrame:
    """What is known of maps and series before their conversion, a row a record; no columns if nothing is."""
    subjects = [cohort.rows[index].subject for index in indices]
    columns: dict[tuple[str, str], np.ndarray] = {}
    known = measures.read_measures(cohort.tables, subjects, cohort.maps) if cohort.tables else None
    for name, of_map in (known or {}).items():
        sd = of_map["sd"].clip(lower=measures.SMALLEST)
        found = {"mean_in_sds": of_map["mean"] / sd, "level_in_sds": of_map["background"] / sd}
        found |= logarithms({"sd": sd, "mean": of_map["mean"], "voxel_mm3": of_map["voxel_mm3"]})
        columns |= {(name, measure): np.asarray(values) for measure, values in found.items()}
    if cohort.tables and cohort.connectomes:
        series = edges.read_series_table(cohort.tables / SERIES, subjects)
        columns |= {(CONNECTOME, name): values for name, values in logarithms(dict(series.items())).items()}
    return pd.DataFrame(columns, index=list(indices))


def logarithms(values: Mapping[str, Any]) -> dict[str, Any]:
    """The logarithms of numbers, or of columns of them; NaN where a number is not above 0."""
    return {f"log {name}": np.log(np.where(np.asarray(of) > 0, of, np.nan)) for name, of in values.items()}
