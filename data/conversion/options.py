"""The options of `abide-data convert`, each a field; None where the layout, the default or --like decides."""

import re
from dataclasses import dataclass
from pathlib import Path

from data.base.cli import option, parse_names, parse_seed_option
from data.base.errors import compose_accents
from data.images.grids import GRID_BY_NAME


def parse_column_names(columns_text: str) -> tuple[str, ...]:
    """`A,B` -> A, B; an empty text names no column."""
    return tuple(column_name for column_name in compose_accents(columns_text).split(",") if column_name)


def parse_series_name(series_text: str) -> str:
    """`seg-<atlas>` with the letters and digits of the atlas's name, which are all that a BIDS name may hold; as it is
    if it names a file, or something else."""
    if not series_text.startswith("seg-") or Path(series_text).is_file():
        return series_text
    atlas_text, colon, variable_name = series_text[4:].partition(":")
    return f"seg-{re.sub('[^A-Za-z0-9]', '', atlas_text)}{colon}{variable_name}"


@dataclass(frozen=True)
class SourceOptions:
    """Where the maps and the table are, and what the table's columns mean."""

    table: Path | None = option(
        None, type=Path, help="CSV or TSV with a row a participant (default: the one beside the maps)"
    )
    id_column: str | None = option(
        None,
        type=compose_accents,
        metavar="NAME",
        help="column of participant IDs (default: the one that matches the maps)",
    )
    label_column: str | None = option(
        None,
        type=compose_accents,
        metavar="NAME",
        help="column of the diagnosis (ABIDE's own table: DX_GROUP)",
    )
    positive: str | None = option(
        None,
        type=compose_accents,
        metavar="A,B,...",
        help="its values for autism (ABIDE's own table: 1)",
    )
    negative: str | None = option(
        None,
        type=compose_accents,
        metavar="A,B,...",
        help="its values for control; others are left out (default: the only other value)",
    )
    site_column: str | None = option(
        None,
        type=compose_accents,
        metavar="NAME",
        help="column of sites (default SITE_ID or site, if there is one); '' if none tells it",
    )
    missing: tuple[str, ...] | None = option(
        None,
        type=parse_column_names,
        metavar="NAME=VALUE,...",
        help="numbers that mean unknown, such as age=999; '': none, all numbers far from others are right",
    )
    maps: tuple[str, ...] | None = option(
        None,
        type=parse_names,
        metavar="A,B,...",
        help="maps of a record, such as falff,alff,dual_regression; all: those that everybody has; none: the table, "
        "and connectomes if they are named, are all there is (default falff; in check all)",
    )
    connectome: str | None = option(
        None,
        type=parse_series_name,
        metavar="NAME|FILE",
        help="keep connectomes, of files of series or matrices a person: rois_cc200 (PCP), seg-<atlas> (BIDS), "
        "ROISignals (DPABI), any NAME of *_NAME.csv, NAME:VARIABLE of .mat; or of a table with a row a person and a "
        "column an edge",
    )
    parcels: Path | None = option(
        None,
        type=Path,
        metavar="FILE",
        help="where these parcels lie: labels as NIfTI (default: those in atlases/)",
    )
    parcel_names: Path | None = option(
        None, type=Path, metavar="FILE", help="names of the parcels in files that name none, one a line, in their order"
    )
    transpose: bool | None = option(None, action="store_true", help="series have a row a parcel and a column a volume")
    edges: str | None = option(
        None, choices=("r", "z"), help="what matrices or a table hold: r, or its Fisher z (default: by their range)"
    )
    map_column: str | None = option(
        None,
        type=compose_accents,
        metavar="A,B,...",
        help="columns of paths in the folder, one for each map",
    )
    only: str | None = option(None, metavar="GLOB,...", help="use only maps whose path matches, such as '*/zfALFF*'")
    exclude: str | None = option(
        None, metavar="FILE|ID,ID", help="leave these participants out; a file holds one ID a line"
    )
    where: str | None = option(
        None,
        type=compose_accents,
        metavar="CONDITION",
        help="use only rows for which this is true, such as 'AGE_AT_SCAN < 18 and SEX == 1'",
    )


@dataclass(frozen=True)
class ConversionOptions:
    """How records are made of maps, and what is kept of the table."""

    grid: str | None = option(None, choices=tuple(GRID_BY_NAME), help="91x109x91 (default), or 3x3x3 block means of it")
    phenotype: tuple[str, ...] | None = option(
        None,
        type=parse_column_names,
        metavar="A,B,...",
        help="columns to use instead of ABIDE's 29 values; '' for none",
    )
    covariates: tuple[str, ...] | None = option(
        None,
        type=parse_column_names,
        metavar="A,B,...",
        help="all covariates (default: site; age, sex, motion and more, as far as known)",
    )
    family: str | None = option(
        None,
        type=compose_accents,
        metavar="NAME",
        help="column with one value for all of a family, who stay together in splits and folds",
    )
    seed: int | None = option(None, type=parse_seed_option, metavar="N", help="seed of the split (default 0)")
    keep_split: Path | None = option(
        None, type=Path, metavar="COHORT", help="whom this cohort has, by ID or scan, keeps its split; others are drawn"
    )
    allow_leak: bool = option(
        False, action="store_true", help="accept phenotype columns, or maps as a whole, that reveal the diagnosis"
    )
    keep_duplicates: bool = option(
        False,
        action="store_true",
        help="let splits part participants who share a scan (default: they are in one split)",
    )
    dry_run: bool = option(
        False, action="store_true", help="say who and how long; read one participant's maps, write nothing"
    )
