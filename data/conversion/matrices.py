"""Matrices of a person's parcels -> edges, and whether these are correlations r or their Fisher z."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.terminal import SummaryRow
from data.cohorts.connectomes import EDGE_DTYPE
from data.conversion.series import MAX_ABSOLUTE_R, SYMMETRY_TOLERANCE_SHARE

R_UNIT = "r"
Z_UNIT = "z"
R_TOLERANCE = 1e-4  # by which rounding may bring a correlation above 1
DIAGONAL_TOLERANCE = 1e-3  # within which values of a diagonal are one value
MIN_SELF_Z = 2.5  # Fisher z of a parcel with itself; of r of 0.99, 2.65, and of 1, infinite
MAX_Z = 20.0  # Fisher z of the largest r below 1 in double precision is 18.7
MIN_Z_SHARE = 0.1  # of people with values above 1; if it is smaller, these values may be mistakes


@dataclass(frozen=True)
class EdgeRange:
    """What tells the unit of a person's edges."""

    file_text: str  # where they are, for messages
    smallest: float
    largest: float
    diagonal: float  # its one value, inf if all are large; NaN if it is unknown

    @property
    def largest_absolute(self) -> float:
        return max(abs(self.smallest), abs(self.largest))

    @property
    def is_beyond_one(self) -> bool:
        return self.largest_absolute > 1 + R_TOLERANCE

    @property
    def has_diagonal_of_r(self) -> bool:
        return abs(self.diagonal - 1) < DIAGONAL_TOLERANCE


def extract_edges(matrix: np.ndarray, parcel_names: Sequence[str], file_text: str) -> tuple[np.ndarray, EdgeRange]:
    """The edges (edges,) float64 of a matrix (parcels, parcels), in the order of `np.triu_indices`, NaN for parcels
    without a signal, whose edges are all unknown or all 0; and their range. Raises InputError, naming the file, unless
    the matrix is symmetric, has one value in its diagonal, and lacks no edge of parcels with a signal."""
    parcel_count = len(matrix)
    off_diagonal = matrix.copy()
    np.fill_diagonal(off_diagonal, np.nan)
    with np.errstate(invalid="ignore"):
        lacks_signal = (np.isnan(off_diagonal) | (off_diagonal == 0)).all(axis=1)
    if lacks_signal.sum() > parcel_count - 2:
        raise InputError(f"{file_text} has no two parcels with a signal. Leave the person out with --exclude.")
    off_diagonal[lacks_signal] = np.nan
    off_diagonal[:, lacks_signal] = np.nan
    check_symmetry(off_diagonal, parcel_names, file_text)

    edges = off_diagonal[np.triu_indices(parcel_count, 1)]
    is_edge_expected = (~lacks_signal[:, None] & ~lacks_signal)[np.triu_indices(parcel_count, 1)]
    is_missing = np.isnan(edges) & is_edge_expected
    if is_missing.any():
        first_index, second_index = (indices[is_missing][0] for indices in np.triu_indices(parcel_count, 1))
        raise InputError(
            f"{file_text} lacks {is_missing.sum()} values, such as that of {parcel_names[first_index]} and "
            f"{parcel_names[second_index]}, of which others are known; expected all values of a parcel, or none. Make "
            "it again, or --exclude the person."
        )
    diagonal_value = find_diagonal_value(np.diagonal(matrix)[~lacks_signal], file_text)
    return edges, EdgeRange(file_text, float(np.nanmin(edges)), float(np.nanmax(edges)), diagonal_value)


def check_symmetry(off_diagonal: np.ndarray, parcel_names: Sequence[str], file_text: str) -> None:
    """Raises InputError, which names the two parcels that differ most, unless a matrix (parcels, parcels), NaN where
    unknown, is symmetric but for rounding."""
    finite_values = np.where(np.isfinite(off_diagonal), off_diagonal, 0)
    differences = np.abs(finite_values - finite_values.T)
    is_unequal = differences > SYMMETRY_TOLERANCE_SHARE * np.abs(finite_values).max()
    is_unequal |= np.isfinite(off_diagonal) != np.isfinite(off_diagonal.T)
    if is_unequal.any():
        flat_index = int(np.where(is_unequal, differences, -1).argmax())
        row, column = divmod(flat_index, len(differences))
        raise InputError(
            f"{file_text} is not symmetric: {off_diagonal[row, column]:.3g} for {parcel_names[row]} and "
            f"{parcel_names[column]}, {off_diagonal[column, row]:.3g} the other way round; expected one value. Give "
            "both halves of a matrix of correlations."
        )


def find_diagonal_value(diagonal: np.ndarray, file_text: str) -> float:
    """The value of a diagonal (parcels,): 1 or 0, inf if it is that of Fisher z, NaN if it is not known. Raises
    InputError for another one, or several."""
    if np.isnan(diagonal).all():
        return np.nan
    if (diagonal > MIN_SELF_Z).all():
        return np.inf
    for expected_value in (1.0, 0.0):
        if (np.abs(diagonal - expected_value) < DIAGONAL_TOLERANCE).all():
            return expected_value
    raise InputError(
        f"{file_text} has {np.nanmin(diagonal):.3g} to {np.nanmax(diagonal):.3g} in its diagonal; expected 1, as of r, "
        f"0, NaN, or above {MIN_SELF_Z:g} in all of it, as of Fisher z. Is it a matrix of covariances? Make one of "
        "correlations."
    )


def find_edge_unit(edge_ranges: Sequence[EdgeRange], requested_unit: str) -> tuple[str, SummaryRow]:
    """R_UNIT or Z_UNIT, that of everybody's edges, and a fact; `requested_unit` is empty if nobody names it. Raises
    InputError, naming files, for values that are neither, are not of the unit that is named, or are of both."""
    largest_range = max(edge_ranges, key=lambda edge_range: min(edge_range.largest_absolute, np.finfo(float).max))
    if MAX_Z < largest_range.largest_absolute < np.inf:
        raise InputError(
            f"{largest_range.file_text} holds {largest_range.largest_absolute:.4g}, which is neither r nor Fisher z; "
            "expected correlations. Make them again, without scaling."
        )
    ranges_beyond_one = [edge_range for edge_range in edge_ranges if edge_range.is_beyond_one]
    if requested_unit == R_UNIT and ranges_beyond_one:
        raise InputError(
            f"{ranges_beyond_one[0].file_text} holds {ranges_beyond_one[0].largest_absolute:.3g}, as "
            f"{len(ranges_beyond_one)} of {len(edge_ranges)} hold values beyond 1, though --edges says r; expected -1 "
            "to 1. If they are Fisher z, say --edges z."
        )
    if requested_unit:
        unit = requested_unit
        advice = "as --edges says"
    else:
        check_one_unit(edge_ranges, ranges_beyond_one)
        large_diagonal_count = sum(np.isposinf(edge_range.diagonal) for edge_range in edge_ranges)
        unit = Z_UNIT if ranges_beyond_one or 2 * large_diagonal_count > len(edge_ranges) else R_UNIT
        advice = f"by their range; if they are not, say --edges {Z_UNIT if unit == R_UNIT else R_UNIT}"
    unit_words = "r, stored as Fisher z" if unit == R_UNIT else "Fisher z"
    smallest = min(edge_range.smallest for edge_range in edge_ranges)
    largest = max(edge_range.largest for edge_range in edge_ranges)
    diagonals = {edge_range.diagonal for edge_range in edge_ranges if not np.isnan(edge_range.diagonal)}
    diagonal_text = f", diagonal {join_names([f'{diagonal:g}' for diagonal in sorted(diagonals)])}" if diagonals else ""
    return unit, ("connectome", f"edges from {smallest:.3g} to {largest:.3g}{diagonal_text}: {unit_words}, {advice}")


def check_one_unit(edge_ranges: Sequence[EdgeRange], ranges_beyond_one: Sequence[EdgeRange]) -> None:
    """Raises InputError if some people's edges are r and others' Fisher z, or a few hold values that only Fisher z
    has."""
    ranges_of_r = [
        edge_range for edge_range in edge_ranges if edge_range.has_diagonal_of_r and not edge_range.is_beyond_one
    ]
    if not ranges_beyond_one:
        return
    example = ranges_beyond_one[0]
    if ranges_of_r:
        raise InputError(
            f"{example.file_text} holds {example.largest_absolute:.3g}, as {len(ranges_beyond_one)} of "
            f"{len(edge_ranges)} hold values beyond 1, and {ranges_of_r[0].file_text} is of r by its diagonal of 1, as "
            f"{len(ranges_of_r)} are; expected r of all, or Fisher z. Correct them, or say --edges z if all are."
        )
    if len(ranges_beyond_one) < MIN_Z_SHARE * len(edge_ranges):
        raise InputError(
            f"{example.file_text} holds {example.largest_absolute:.3g}, and only {len(ranges_beyond_one)} of "
            f"{len(edge_ranges)} hold values beyond 1: r with mistakes, or Fisher z? Correct them, or say --edges z."
        )


def convert_to_fisher_z(edges: np.ndarray, unit: str) -> np.ndarray:
    """Edges (edges,) float64 of a unit -> Fisher z (edges,) float32; that of r of 1 is finite."""
    if unit == R_UNIT:
        return np.arctanh(np.clip(edges, -MAX_ABSOLUTE_R, MAX_ABSOLUTE_R)).astype(EDGE_DTYPE)
    max_absolute_z = np.arctanh(MAX_ABSOLUTE_R)
    return np.clip(edges, -max_absolute_z, max_absolute_z).astype(EDGE_DTYPE)
