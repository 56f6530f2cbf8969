"""Scans of people -> measures of each map and connectome beside the means of others, a row a record."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from data import grids
from data.base.progress import BarProgress, PlainProgress
from data.cohorts import atlas, records, resampling
from data.cohorts.cohort import SERIES, Cohort
from data.conversion import edges, measures
from data.likeness.patterns import Pattern, centred, fisher_z, uncovered

CONNECTOME = "connectome"  # a view beside the maps
NEARLY_ALL = 0.99  # of training people; a region that holds signal in so many is expected of everybody
Shown = PlainProgress | BarProgress
Lacking = dict[str, list[int]]  # by map: the regions without signal


@dataclass(frozen=True, eq=False)
class Means:
    """Of people: the mean volume of each map (x, y, z, maps) on the reduced grid; the mean connectome (edges,), Fisher
    z, None if there is none; by map, the regions that nearly all have."""

    volume: np.ndarray
    edges: np.ndarray | None
    regions: dict[str, tuple[int, ...]]

    @cached_property
    def patterns(self) -> list[Pattern]:
        return [Pattern(of_map) for of_map in np.moveaxis(self.volume, -1, 0)]


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over people: volumes; edges, and how many of these are known (2, edges); the regions that hold signal (maps,
    labels); the names of the maps."""

    count: int
    volume: np.ndarray
    edges: np.ndarray
    covered: np.ndarray
    maps: tuple[str, ...]

    @classmethod
    def nothing(cls, cohort: Cohort) -> "Sums":
        """Over no records."""
        labels = atlas.load_atlas(None, cohort.grid).labels
        edges = np.zeros((2, cohort.connectomes.num_edges if cohort.connectomes else 0))
        covered = np.zeros((cohort.num_maps, labels.max() + 1), int)
        return cls(0, np.zeros((*grids.REDUCED.shape, cohort.num_maps)), edges, covered, cohort.maps)

    @classmethod
    def of(cls, cohort: Cohort, indices: np.ndarray, shown: Shown) -> "Sums":
        """Over the records at these positions."""
        labels, found = atlas.load_atlas(None, cohort.grid).labels, cls.nothing(cohort)
        for index in indices:
            for at, of_map in enumerate(np.moveaxis(cohort.read(index)[2], -1, 0)):
                found.volume[..., at] += resampling.reduced(of_map)
                found.covered[at] += 1
                found.covered[at, uncovered(of_map, labels)] -= 1
            if cohort.connectomes:
                (row,) = cohort.connectomes[[index]]
                found.edges[:] += np.nan_to_num(row), np.isfinite(row)
            shown.advance()
        return replace(found, count=len(indices))

    def __add__(self, other: "Sums") -> "Sums":
        volume, edges, covered = self.volume + other.volume, self.edges + other.edges, self.covered + other.covered
        return Sums(self.count + other.count, volume, edges, covered, self.maps)

    def __sub__(self, other: "Sums") -> "Sums":
        volume, edges, covered = self.volume - other.volume, self.edges - other.edges, self.covered - other.covered
        return Sums(self.count - other.count, volume, edges, covered, self.maps)

    def means(self) -> Means:
        """As float32; a region is one that is in the atlas, so label 0 is none."""
        edges = (self.edges[0] / np.maximum(self.edges[1], 1)).astype(np.float32) if self.edges.size else None
        common = [1 + np.flatnonzero(of_map[1:] >= NEARLY_ALL * self.count) for of_map in self.covered]
        regions = {name: tuple(of_map.tolist()) for name, of_map in zip(self.maps, common, strict=True)}
        return Means((self.volume / self.count).astype(np.float32), edges, regions)


def measured(cohort: Cohort, indices: np.ndarray, others: Means, shown: Shown) -> tuple[pd.DataFrame, list[Lacking]]:
    """Measures of the records at these positions beside the means of others, columns (view, measure), and the regions
    that each lacks."""
    labels = atlas.load_atlas(None, cohort.grid).labels
    rows: list[dict[tuple[str, str], float]] = []
    lacking: list[Lacking] = []
    for index in indices:
        row: dict[tuple[str, str], float] = {}
        rows.append(row)
        lacking.append({})
        for at, (name, volume) in enumerate(zip(cohort.maps, np.moveaxis(cohort.read(index)[2], -1, 0), strict=True)):
            found = of_volume(resampling.reduced(volume)) | others.patterns[at].compare(resampling.reduced(volume))
            lacking[-1][name] = sorted(set(others.regions[name]) & set(uncovered(volume, labels).tolist()))
            found["lacking_regions"] = len(lacking[-1][name])
            row |= {(name, measure): value for measure, value in found.items()}
        if cohort.connectomes and others.edges is not None:
            (of_edges,) = cohort.connectomes[[index]]
            found = of_connectome(of_edges, others.edges, cohort.connectomes.pairs)
            row |= {(CONNECTOME, measure): value for measure, value in found.items()}
        shown.advance()
    return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(rows[0])), lacking


def of_volume(volume: np.ndarray) -> dict[str, float]:
    """Where the brain of a stored volume (x, y, z) on the reduced grid lies, and how rough it is."""
    brain = records.brain_of(volume)
    found = measures.describe(volume, brain, np.array(grids.REDUCED.affine))
    place = {name: found[name] for name in ("x_mm", "y_mm", "z_mm")}
    return place | logarithms({"coverage": found["coverage"], "roughness": measures.roughness(volume, brain)})


def of_connectome(found: np.ndarray, mean: np.ndarray, pairs: np.ndarray) -> dict[str, float]:
    """Measures of a connectome (edges,) beside a mean one; NaN without any edge."""
    known = ~np.isnan(found)
    values = edges.measured(found)
    parcels = len(edges.lacking_parcels(found, pairs)) / (pairs.max() + 1)
    alike = fisher_z((centred([found[known]]) @ centred([mean[known]]).T).item()) if known.any() else np.nan
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
    """Of numbers, or columns of them, by their names; NaN where there is none."""
    return {f"log {name}": np.log(np.where(np.asarray(of) > 0, of, np.nan)) for name, of in values.items()}
