"""Files with the mean signal of each parcel over time -> connectomes, and where the parcels lie.

The header has the names of parcels, or `#1`, `#2`, ... A row a volume, a column a parcel. A row of `n/a` is a volume
that was censored, a column of them a parcel that the scan lacks.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from data.base.errors import InputError, compose_accents, is_plain_text, parse_natural_number, quote_text
from data.base.files import check_regular_file, read_json
from data.base.manifest import compute_sum, compute_sums
from data.base.pool import Pool
from data.base.processes import read_ahead
from data.base.terminal import SummaryRow
from data.cohorts.atlas import read_label_image
from data.cohorts.cohort import SERIES_FILE, Cohort
from data.cohorts.connectomes import (
    CONNECTOMES_FILE,
    EDGE_DTYPE,
    MAX_PARCELS,
    compute_parcels_sha256,
    write_connectomes,
)
from data.cohorts.nifti import make_sidecar_path
from data.cohorts.phenotype import write_subject_table
from data.cohorts.rows import Metadata, join_names
from data.conversion import edges
from data.conversion.discovery import Listing
from data.conversion.leaks import REPETITION_TIME
from data.conversion.tables import read_table
from data.conversion.volumes import PersonMaps

MIN_VOLUMES = 20  # of a scan; correlations of fewer are mostly chance
ROUNDED = 1e-4  # of the largest value of a matrix: what is above its diagonal and below is equal but for rounding
VALUE = re.compile(r"[-+]?\d*\.\d+(e.*)?")  # of a series, and no name of a parcel
LARGEST_R = 0.999999  # of two parcels, so that Fisher z is finite
ATLASES, INDEX = "atlases", "index"  # a folder of BIDS derivatives; the column of numbers in a table of labels


@dataclass(frozen=True)
class Correlated:
    """The connectomes of a conversion, whose rows lie in files until the cohort is planned."""

    name: str
    parcels: tuple[str, ...]
    image: np.ndarray | None
    rows: tuple[Path, ...]  # of each subject
    sums: tuple[tuple[str, str], ...]  # the name and the SHA-256 of each one's series
    measured: tuple[dict[str, float], ...]  # `edges.of_series` of each one's series, and its REPETITION_TIME
    facts: list[SummaryRow]

    def beside(self, people: Sequence[PersonMaps]) -> list[PersonMaps]:
        """What is known of each person's files, with the series and the connectome among them."""
        every = zip(people, self.sums, compute_sums(self.rows), strict=True)
        return [replace(of, sums=[*of.sums, series], connectome=edges) for of, series, edges in every]

    def planned(self, metadata: Metadata) -> Metadata:
        """The metadata of a cohort with these connectomes."""
        return replace(metadata, connectome=self.name, parcels_sha256=compute_parcels_sha256(self.parcels, self.image))

    def write(self, target: Path, subjects: list[str]) -> None:
        """Writes `connectomes.h5`, one row after another, and `series.csv` into the folder of a cohort."""
        rows = (np.fromfile(path, EDGE_DTYPE) for path in self.rows)
        write_connectomes(target / CONNECTOMES_FILE, subjects, self.parcels, self.image, rows)
        write_subject_table(target / SERIES_FILE, pd.DataFrame(self.measured, subjects).dropna(axis=1, how="all"))


def correlate(pool: Pool, series: pd.Series, labels: Path | None, folder: Path, like: Cohort | None) -> Correlated:
    """The connectomes of all subjects, from the paths of their series and of the image of `labels`; the rows are
    written into `folder`. All are of the parcels of the most complete series, or of those of `like`. Raises InputError,
    naming the file, for one that is not as expected."""
    paths, facts, known = series.tolist(), list[SummaryRow](), like.connectomes if like else None
    parcels, image = (parcels_of(paths), None) if known is None else (known.parcel_names, known.parcel_image)
    if labels:
        image, facts = parcel_image(labels, parcels)
    rows = tuple(folder / f"{number}.edges" for number in range(len(paths)))
    tasks = [(path, parcels, row) for path, row in zip(paths, rows, strict=True)]
    sums, measured = zip(*pool.run("Correlating", write_edges, tasks), strict=True)
    return Correlated(str(series.name), parcels, image, rows, sums, measured, facts)


def parcels_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """The names of parcels in the header that has most of them."""
    return max(dict.fromkeys(names for names, _ in read_ahead(header_of, paths)), key=len)


def header_of(path: Path) -> tuple[tuple[str, ...], str]:
    """The names of a series' columns, `#12` as `12`, and the pattern of what separates them. Raises InputError, naming
    the file, if it has none."""
    check_regular_file(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            line = compose_accents(file.readline())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected the series of parcels as text.") from error
    separator = next((one for one in "\t," if one in line), r"\s+")
    cells = re.split(separator, re.sub(r"^(#\s+| +)", "", line).rstrip())
    names = tuple(cell.strip().strip('"').removeprefix("#").strip() for cell in cells)
    if wrong := wrong_names(names):
        raise InputError(f"{path} {wrong}")
    return names, separator


def wrong_names(names: Sequence[str]) -> str:
    """What is wrong with the names of parcels in the first line of a file; empty if nothing is."""
    if values := [name for name in names if not is_plain_text(name) or VALUE.fullmatch(name)]:
        return (
            f"has {quote_text(values[0])} in its first line; expected the names of parcels. Write a line of these "
            "above."
        )
    if not all(names) and any(names):
        place = names.index("") + 1
        return f"has no name for column {place} of {len(names)}; expected that of a parcel. Name it, or take it out."
    if not 2 <= len(names) <= MAX_PARCELS:
        return f"has {len(names)} columns in its first line; expected the names of 2 to {MAX_PARCELS} parcels."
    if twice := [f"{name} ({count} times)" for name, count in Counter(names).items() if count > 1]:
        first = next(name for name, count in Counter(names).items() if count > 1)
        return (
            f"names {join_names(twice)} in its first line; expected each parcel once. Rename these columns, such as to "
            f"{first}_1 and {first}_2, in the files of everybody."
        )
    return ""


def read_series(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of parcels and their series (volumes, parcels) float64 without censored volumes; NaN in the columns of
    parcels that the scan lacks. Raises InputError, naming the file."""
    names, separator = header_of(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            file.readline()
            values = pd.read_csv(file, sep=separator, header=None, dtype=float, na_values=["n/a"]).to_numpy()
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not the series of {len(names)} parcels: {reason}. Make it again.") from error
    if values.shape[1] == len(names) + 1 and np.isnan(values[:, -1]).all():  # a tab that ends each line
        values = values[:, :-1]
    if values.shape[1] != len(names):
        raise InputError(f"{path} has {values.shape[1]} columns, its header {len(names)} names; expected as many.")
    if is_matrix(values):
        raise InputError(
            f"{path} is a matrix of {len(values)} parcels, such as of their correlations, and not their series; "
            "expected a row a volume. Give the series, or leave --connectome out."
        )
    values = values[~np.isnan(values).all(axis=1)]
    partly = np.isnan(values).any(axis=0) & ~np.isnan(values).all(axis=0)
    if partly.any() or np.isinf(values).any():
        wrong = partly | np.isinf(values).any(axis=0)
        raise InputError(
            f"{path} has values of parcel {names[wrong.argmax()]} that are missing or infinite, though the volumes are "
            "not censored; expected numbers, or n/a in a whole row or column. Make it again, or --exclude the person."
        )
    if len(values) < MIN_VOLUMES:
        raise InputError(
            f"{path} has {len(values)} volumes that are not censored; expected at least {MIN_VOLUMES}. Leave the "
            "person out with --exclude."
        )
    return names, values


def is_matrix(values: np.ndarray) -> bool:
    """Whether a table (rows, columns) is square, and symmetric or with one value in its diagonal, also NaN or inf."""
    sizes = np.abs(values[np.isfinite(values)])
    if values.shape[0] != values.shape[1] or not sizes.any():
        return False
    diagonal = np.diagonal(values)
    symmetric = np.allclose(values, values.T, rtol=0, atol=ROUNDED * sizes.max(), equal_nan=True)
    return symmetric or np.array_equal(diagonal, np.full_like(diagonal, diagonal[0]), equal_nan=True)


def fisher_z(values: np.ndarray) -> np.ndarray:
    """Series (volumes, parcels) -> the Fisher z of the correlation of each two parcels, (edges,) float32 in the order
    of `np.triu_indices`; NaN where a series is constant or unknown."""
    usable = np.ptp(values, axis=0) > 0
    centred = values[:, usable] - values[:, usable].mean(0)
    unit = centred / np.linalg.norm(centred, axis=0)
    correlation = np.full(2 * values.shape[1:], np.nan)
    with threadpool_limits(1, "blas"):
        correlation[np.ix_(usable, usable)] = unit.T @ unit
    of_pairs = correlation[np.triu_indices(values.shape[1], 1)]
    return np.arctanh(np.clip(of_pairs, -LARGEST_R, LARGEST_R)).astype(EDGE_DTYPE)


def write_edges(path: Path, parcels: tuple[str, ...], row: Path) -> tuple[tuple[str, str], dict[str, float]]:
    """Writes a person's connectome of these parcels as the file `row`; returns the name and the SHA-256 of the series,
    and its measures. Raises InputError, naming it, for a parcel that is not among them, and if no two parcels have a
    signal."""
    names, series = read_series(path)
    place = {name: at for at, name in enumerate(parcels)}
    if other := [name for name in names if name not in place]:
        raise InputError(
            f"{path} has other parcels than the rest: it has {join_names(other, 3)}; expected "
            f"{join_names(parcels, 3)}. Was it made with another atlas? Choose with --only, or leave the person out "
            "with --exclude."
        )
    values = np.full((len(series), len(parcels)), np.nan)
    values[:, [place[name] for name in names]] = series
    found = fisher_z(values)
    if np.isnan(found).all():
        raise InputError(f"{path} has no two parcels with a signal. Leave the person out with --exclude.")
    row.write_bytes(found.tobytes())
    return (path.name, compute_sum(path)), edges.of_series(series) | {REPETITION_TIME: repetition_time(path)}


def repetition_time(path: Path) -> float:
    """The seconds from one volume of a series to the next, by the JSON beside it; NaN if that does not say one number.
    Raises InputError if it is damaged."""
    described = path.with_suffix(".json")
    said = read_json(described, dict) if described.is_file() else {}
    seconds, per_second = (said.get(name) for name in ("RepetitionTime", "SamplingFrequency"))
    if isinstance(seconds, int | float) and seconds > 0:
        return float(seconds)
    return 1 / per_second if isinstance(per_second, int | float) and per_second > 0 else np.nan


def image_of(listing: Listing, name: str | None, given: Path | None) -> tuple[Path | None, list[SummaryRow]]:
    """The image of the parcels of a kind of series: the one that is `given`, or the one of `seg-<atlas>` that XCP-D
    leaves in `atlases/`. If there is none: None and a fact. Raises InputError if there are several."""
    if given or name is None:
        return given, []
    label = re.escape(name.removeprefix("seg-"))
    pattern = re.compile(rf"(?i:(?:.*_)?(?:atlas|seg)-{label}_(?:.*_)?dseg\.nii(?:\.gz)?)")
    there = [path for path in listing.files if ATLASES in path.parts and pattern.fullmatch(path.name)]
    if len(there) > 1:
        named = join_names(list(map(str, there)))
        raise InputError(f"{listing.folder} has several images of {name} ({named}); name one with --parcels.")
    if there:
        return there[0], []
    told = "parcels: where they lie is not known, so a blackout leaves the edges as they are; --parcels names it"
    return None, [("maps", told)]


def parcel_image(path: Path, parcels: Sequence[str]) -> tuple[np.ndarray, list[SummaryRow]]:
    """The image of a connectome's parcels (91, 109, 91) int16, 1 + the position of each voxel's parcel, and facts; from
    an image of labels on any grid, by nearest neighbour. The label of a parcel is that in the table beside the image,
    else its name if that is a number. Raises InputError if a parcel is not in it."""
    labels, known = read_label_image(path)
    named = labels_beside(path)
    numbers = [named.get(name, parse_natural_number(name)) for name in parcels]
    if absent := [name for name, number in zip(parcels, numbers, strict=True) if number not in known]:
        raise InputError(
            f"{path} has no label for {len(absent)} of {len(parcels)} parcels of the series, {join_names(absent)}; "
            "expected the image that the series were made with, and a table index,name beside it if parcels have names."
        )
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{path}: the table beside it gives two parcels one number; expected one each. Correct it.")
    position = np.zeros(max(known) + 1, np.int16)
    for at, number in enumerate(numbers, 1):
        position[number] = at
    image = position[labels]
    lost = sorted(set(range(1, len(parcels) + 1)) - set(np.unique(image).tolist()))
    without = f"; without a voxel on the 2 mm grid: {join_names([parcels[at - 1] for at in lost])}" if lost else ""
    return image, [("maps", f"parcels: {path}, {len(parcels)} of its {len(known)} labels{without}")]


def labels_beside(path: Path) -> dict[str, int]:
    """The numbers of labels by their names, in the `.tsv` beside an image or the only `*dseg.tsv` of its folder; empty
    without one. Raises InputError if it has no column of numbers."""
    own = make_sidecar_path(path, ".tsv")
    others = list(path.parent.glob("*dseg.tsv"))
    found = own if own.is_file() else others[0] if len(others) == 1 else None
    if found is None:
        return {}
    table = read_table(found)
    numbers = table[INDEX].map(parse_natural_number) if INDEX in table else pd.Series([None])
    if numbers.isna().any():
        raise InputError(f"{found} has no column {INDEX} of whole numbers; expected {INDEX},name of each label.")
    cells = (zip(table[name], numbers, strict=True) for name in table.columns.drop(INDEX)[::-1])
    return {text: int(number) for one in cells for text, number in one if text}
