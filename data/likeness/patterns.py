"""A volume beside the mean volume of other people: how alike it is, where it lies, and on which side left is."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from data import grids
from data.cohorts import records

MIN_COVERED = 0.5  # share of a region's voxels that must hold signal
LEAST_GAIN = 0.5  # share of the mean volume in a volume; below it, its place is told with less weight
MOST_ALIKE = 0.99999  # a correlation, so that Fisher z stays finite


def asymmetry(volume: np.ndarray) -> np.ndarray:
    """What differs between left and right (x, y, z), of length 1, or 0 if nothing does."""
    values = volume - volume[::-1].astype(np.float64)
    return values / max(length(values), np.finfo(float).tiny)


def length(values: np.ndarray) -> float:
    """The root of the sum of squares; without the threads of a BLAS, which cost more than they save here."""
    return float(np.sqrt(np.square(values).sum()))


def centred(volumes: Sequence[np.ndarray]) -> np.ndarray:
    """Volumes -> each (voxels,) centred and of length 1, (n, voxels): the product of each with another volume, divided
    by that one's spread, is their correlation; 0 for a volume that is constant."""
    values = np.stack([volume.ravel() - volume.mean() for volume in volumes])
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(float).tiny)


def correlations(patterns: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Of a volume (x, y, z) with each of the patterns (n, voxels) that `centred` gave, (n,)."""
    values = volume.ravel().astype(np.float64)
    return (patterns * values).sum(1) / max(length(values - values.mean()), np.finfo(float).tiny)


class Pattern:
    """The mean volume of a map over training people, (x, y, z) on the reduced grid."""

    def __init__(self, mean: np.ndarray) -> None:
        self.mean = np.asarray(mean, np.float64)

    @cached_property
    def straight(self) -> np.ndarray:
        return centred([self.mean])

    @cached_property
    def terms(self) -> np.ndarray:
        """The mean volume and its slopes along x, y and z, (4, x, y, z): what a slightly shifted volume is made of."""
        return np.stack([self.mean, *np.gradient(self.mean)])

    @cached_property
    def shares(self) -> np.ndarray:
        """What gives of a volume, by least squares, how much of each of the terms it holds, and of a constant: (5,
        voxels)."""
        terms = np.stack([*self.terms, np.ones(self.mean.shape)]).reshape(5, -1)
        return np.linalg.pinv(terms @ terms.T, hermitian=True) @ terms

    @cached_property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """What differs between left and right in the mean volume (voxels,), and (3, voxels), of length 1 each and at
        right angles, in its slopes; the former without what it shares with the latter, and of length 1."""
        own, *slopes = (asymmetry(term).ravel() for term in self.terms)
        shifts = np.linalg.qr(np.stack(slopes, axis=1))[0].T
        left = own - (own @ shifts.T) @ shifts
        return left / max(length(left), np.finfo(float).tiny), shifts

    def compare(self, volume: np.ndarray) -> dict[str, float]:
        """`alike`: Fisher z of the correlation with the mean volume; `side`: the correlation of what differs between
        left and right, beside what a shift does to it: of a mirrored volume as much below 0; how many mm a volume lies
        to the right, front and top."""
        alike = fisher_z(correlations(self.straight, volume)[0])
        gain, *along, _ = (self.shares * volume.ravel()).sum(1)
        shift = -grids.REDUCED.spacing_mm * np.array(along) / max(gain, LEAST_GAIN)
        moved = dict(zip(("shift_x", "shift_y", "shift_z"), shift.tolist(), strict=True))
        return {"alike": alike, "side": self.side(volume)} | moved

    def side(self, volume: np.ndarray) -> float:
        """Of -1 to 1, see `compare`."""
        own, shifts = self.sides
        values = asymmetry(volume).ravel()
        left = values - ((shifts * values).sum(1)[:, None] * shifts).sum(0)
        return float((own * left).sum() / max(length(left), np.finfo(float).tiny))


def fisher_z(correlation: float) -> float:
    return float(np.arctanh(np.clip(correlation, -MOST_ALIKE, MOST_ALIKE)))


def uncovered(volume: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The numbers of the regions in `labels` (x, y, z) int of which a volume (x, y, z) holds little signal."""
    inside = np.flatnonzero(labels)
    region, signal = labels.ravel()[inside], volume.ravel()[inside] != records.background(volume)
    sizes = np.bincount(region)
    return np.flatnonzero(np.bincount(region[signal], minlength=len(sizes)) < MIN_COVERED * sizes)
