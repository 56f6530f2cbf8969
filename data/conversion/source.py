"""What is converted: subjects with their maps, site and label, and who is left out and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from data.base.terminal import SummaryRow
from data.cohorts.derivation import Derivation
from data.conversion.connectome_files import ConnectomeReading

DEFAULT_CONVERTED_MAPS = ("falff",)
ALL_MAPS_OPTION = ("all",)  # all maps that everybody has
NO_MAPS_OPTION = ("none",)  # the table, with or without connectomes, is all there is


@dataclass(frozen=True)
class Source:
    """Subjects to convert, those that cannot be, and how they were read; each data frame has a row for each subject."""

    table_path: Path
    label_column: str | None  # None if the table has none, as below
    site_column: str | None
    subject_table: pd.DataFrame  # subject, site, label (1.0 autism, 0.0 control, NaN unknown)
    map_files: pd.DataFrame  # MapOnDisk, a column for each map, by name; without maps no column
    text_table: pd.DataFrame  # the table's text
    motion_columns: tuple[str, ...]  # columns of `text_table` that the table lacks, see `add_motion_column`
    left_out_subjects_by_reason: dict[str, list[str]]  # for each reason, the subjects without a record
    summary_rows: list[SummaryRow]  # how all of this was found
    series_paths: pd.Series | None = None  # of each subject, named by what the files hold; None without --connectome
    connectome_reading: ConnectomeReading = field(default_factory=ConnectomeReading)  # how these are read
    parcel_image_path: Path | None = None  # the image of their labels
    derivation: Derivation | None = None  # how all of this was derived from scans, if that is known
    image_path_by_derivation_field: Mapping[str, Path] = field(default_factory=dict)  # the images used for it
    allow_outliers: bool = False  # whether --missing says which numbers are codes, and so that all others are right
    family_column: str | None = None  # what `subject_table` has as `family`
    requested_id_column: str = ""  # as it was named, now or for the template; so are the next two
    map_column: str = ""  # of paths, as --mapColumn: A,B; empty without it
    column_map_names: tuple[str, ...] = ()  # what the files that its columns name are called
