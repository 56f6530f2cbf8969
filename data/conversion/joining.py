"""A folder of maps and a table -> subjects with their maps, site and label, and who is left out and why."""

import math
import os
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from data.base.errors import InputError, quote_text
from data.base.files import find_file
from data.base.listing import join_names
from data.base.terminal import SummaryRow
from data.cohorts.metadata import Metadata
from data.conversion import derived
from data.conversion.connectome_files import ConnectomeReading, find_connectome_files, list_connectome_paths
from data.conversion.discovery import (
    MAP_PRODUCT,
    STANDARD_MAPS,
    FolderListing,
    find_participants_table,
    find_usable_product_files,
)
from data.conversion.options import SourceOptions
from data.conversion.series import find_parcel_image_path
from data.conversion.source import ALL_MAPS_OPTION, DEFAULT_CONVERTED_MAPS, NO_MAPS_OPTION, Source
from data.conversion.template import TemplateCohort
from data.conversion.volumes import check_map_names, find_file_map_name, find_map_files
from data.tables.labels import (
    ABIDE_AUTISM_VALUE,
    ABIDE_CONTROL_VALUE,
    ABIDE_ID_COLUMN,
    ABIDE_LABEL_COLUMN,
    LabelCoding,
    is_abide_table,
    read_labels,
    summarise_labels,
)
from data.tables.people import (
    check_columns_exist,
    check_subject_ids,
    clear_missing_codes,
    find_matching_id_column,
    is_id_column_name,
    make_unmatched_ids_error,
    normalise_id,
    read_text_table,
    select_column,
)
from data.tables.selection import RowCondition, parse_excluded_ids
from data.tables.sites import DEFAULT_SITE_COLUMNS, check_sites_complete, read_sites


@dataclass(frozen=True)
class JoinedTable:
    """A table joined with maps."""

    table_path: Path
    text_table: pd.DataFrame
    id_column: str  # matched to the IDs of maps, or requested
    map_paths: pd.DataFrame  # the files of maps of each row (a column for each name), NaN if none
    map_names: list[str]  # maps in these files
    summary_rows: list[SummaryRow]
    stray_ids: list[str] = field(default_factory=list)  # IDs of maps without a row
    series_paths: pd.Series | None = None  # the file of each row, NaN if there is none; None without --connectome
    connectome_reading: ConnectomeReading = field(default_factory=ConnectomeReading)  # how these are read
    requested_id_column: str = ""  # the column of IDs, if it was named
    map_column: str = ""  # that of paths, if one was

    @property
    def has_any_map_or_needs_none(self) -> pd.Series:
        """Whether each row has a map, which all have if none is wanted."""
        return self.map_paths.notna().any(axis=1) | self.map_paths.columns.empty

    @property
    def has_all_maps_and_series(self) -> pd.Series:
        """Whether each row has all maps, and series."""
        has_all_maps = self.map_paths.notna().all(axis=1)
        return has_all_maps if self.series_paths is None else has_all_maps & self.series_paths.notna()

    @property
    def subject_ids(self) -> pd.Series:
        """The subject of each row."""
        subject_column = ABIDE_ID_COLUMN if ABIDE_ID_COLUMN in self.text_table else self.id_column
        return self.text_table[subject_column].map(normalise_id)


def read_source(
    maps_folder: Path, options: SourceOptions, template: TemplateCohort | None = None, is_label_optional: bool = False
) -> Source:
    """Finds the table and the maps under `maps_folder`, chooses the rows to convert, and joins these with their files,
    site and label. Who lacks a map or a diagnosis is left out; a diagnosis may be lacking if `is_label_optional`, or if
    people are prepared as those of `template`. Raises InputError if the user must make a choice."""
    if not maps_folder.is_dir():
        raise InputError(
            f"{maps_folder} is not a folder; expected fALFF maps, or others, as NIfTI and a table of participants."
        )
    default_site_columns = list(DEFAULT_SITE_COLUMNS)
    template_metadata = Metadata()
    if template:
        is_label_optional = True
        template_metadata = template.cohort.metadata
        if options.connectome and not template_metadata.connectome:
            raise InputError(
                f"{template.cohort.path} has no connectomes, and --like prepares new participants as its own; leave "
                "--connectome out."
            )
        connectome = options.connectome or template_metadata.connectome or None
        template_maps = template.cohort.map_names or NO_MAPS_OPTION
        options = replace(options, maps=template_maps, connectome=connectome)
        default_site_columns = [template_metadata.site_column, *default_site_columns]

    # find: the table, and the files of each row
    listing = FolderListing(maps_folder)
    joined_table = join_table_with_files(listing, options, template_metadata)
    table_path = joined_table.table_path
    text_table = joined_table.text_table
    subject_ids = joined_table.subject_ids

    # choose: the rows that have a label, are not left out by an option, and have all files
    label_coding = find_label_coding(text_table, options, table_path, is_label_optional)
    label_column = label_coding.label_column if label_coding else None
    diagnosis_values, label_values = read_labels(text_table, label_coding, table_path, is_label_optional)
    has_usable_label = label_values.notna() | (diagnosis_values.isna() & is_label_optional)
    unwanted_reason_by_row, unwanted_summary_rows = find_unwanted_row_reasons(joined_table, options)
    is_wanted = has_usable_label & (unwanted_reason_by_row == "")
    if options.maps == ALL_MAPS_OPTION:
        joined_table = keep_common_maps(joined_table, is_wanted)
    is_converted = joined_table.has_all_maps_and_series & is_wanted
    unconverted_subjects_by_reason = list_unconverted_subjects(
        joined_table, diagnosis_values, has_usable_label, unwanted_reason_by_row
    )
    if not is_converted.any():
        reasons_text = "; ".join(
            f"{reason} ({len(reason_subjects)})" for reason, reason_subjects in unconverted_subjects_by_reason.items()
        )
        raise InputError(
            f"Nobody of {table_path} can be converted: {reasons_text or 'it has no rows'}. Expected what is to be "
            "converted, and a diagnosis, of some."
        )
    check_subject_ids(subject_ids[is_converted], table_path)
    check_distinct_maps(joined_table, is_converted, joined_table.map_column or joined_table.id_column)

    # join: the chosen rows, sorted by subject, with their sites, labels and files
    id_label_and_map_columns = [
        joined_table.id_column,
        ABIDE_ID_COLUMN,
        label_column,
        *joined_table.map_column.split(","),
    ]
    site_column, site_by_row, site_summary_row = read_sites(
        text_table[is_converted], options.site_column, default_site_columns, id_label_and_map_columns, table_path
    )
    if not is_label_optional:
        check_sites_complete(site_by_row, site_column, subject_ids, table_path)
    subject_table = pd.DataFrame({"subject": subject_ids, "site": site_by_row, "label": label_values})[is_converted]
    subject_table = subject_table.sort_values("subject", key=lambda subject_id: subject_id.str.zfill(20))
    converted_map_paths = joined_table.map_paths.loc[subject_table.index].reset_index(drop=True)
    map_files, volume_summary_rows = find_map_files(converted_map_paths, joined_table.map_names, maps_folder)
    series_paths = None
    if joined_table.series_paths is not None:
        series_paths = joined_table.series_paths[subject_table.index]
    parcel_image_path = None
    image_summary_rows = list[SummaryRow]()
    if not is_label_optional:
        connectome_name = joined_table.connectome_reading.connectome_name or None
        parcel_image_path, image_summary_rows = find_parcel_image_path(listing, connectome_name, options.parcels)
    converted_text_table, motion_summary_rows = derived.add_motion_column(
        text_table.loc[subject_table.index], map_files, series_paths
    )
    left_out_subjects_by_reason, left_out_summary_rows = summarise_left_out_subjects(
        unconverted_subjects_by_reason, set(subject_table["subject"])
    )
    source = Source(
        table_path=table_path,
        label_column=label_column,
        site_column=site_column,
        subject_table=subject_table.reset_index(drop=True),
        map_files=map_files,
        text_table=converted_text_table,
        motion_columns=tuple(converted_text_table.columns.difference(text_table.columns)),
        left_out_subjects_by_reason=left_out_subjects_by_reason,
        summary_rows=[
            *joined_table.summary_rows,
            *volume_summary_rows,
            ("layout", f"table {table_path}, joined by {joined_table.id_column}"),
            summarise_labels(label_coding, diagnosis_values[is_converted], label_values[is_converted]),
            site_summary_row,
            *motion_summary_rows,
            *image_summary_rows,
            *unwanted_summary_rows,
            *left_out_summary_rows,
        ],
        series_paths=series_paths,
        connectome_reading=joined_table.connectome_reading,
        parcel_image_path=parcel_image_path,
        allow_outliers=options.missing is not None,
        requested_id_column=joined_table.requested_id_column,
        map_column=joined_table.map_column,
        column_map_names=tuple(map(str, joined_table.map_paths)) if joined_table.map_column else (),
    )

    # and how these files were derived from scans
    derivation, derivation_summary_rows = derived.find_common_derivation(source)
    image_path_by_derivation_field, missing_image_summary_rows = derived.find_derivation_image_files(
        derivation, listing, options.parcels
    )
    return replace(
        source,
        derivation=derivation,
        image_path_by_derivation_field=image_path_by_derivation_field,
        summary_rows=[*source.summary_rows, *derivation_summary_rows, *missing_image_summary_rows],
    )


def join_table_with_files(listing: FolderListing, options: SourceOptions, template_metadata: Metadata) -> JoinedTable:
    """Finds the table, the maps, by their names or by the column that names them, and the series that --connectome
    asks for; cells that --missing names are empty. Columns of IDs and of paths that are not named are those of
    `template_metadata`, as far as the table has them. Raises InputError."""
    if template_metadata.map_column and not options.map_column:
        candidate_table_path = options.table or find_participants_table(
            listing.root_folder, (), lambda text_table: True, list_connectome_paths(listing, options)
        )
        candidate_table = read_text_table(candidate_table_path)
        template_map_columns = split_map_columns(candidate_table, template_metadata.map_column)
        if {*template_map_columns} <= {*candidate_table}:
            options = replace(options, map_column=template_metadata.map_column)

    if options.maps == NO_MAPS_OPTION:
        joined_table = find_table_without_maps(listing, options, template_metadata)
    elif options.map_column:
        joined_table = join_map_columns(listing.root_folder, options, template_metadata)
    else:
        joined_table = join_recognised_maps(listing, options, template_metadata)
    table_path = joined_table.table_path
    uncleared_text_table = joined_table.text_table
    cleared_text_table = clear_missing_codes(uncleared_text_table, options.missing or (), table_path)
    joined_table = replace(joined_table, text_table=cleared_text_table)

    if not options.connectome:
        connectome_flags = {
            "--parcels": options.parcels,
            "--parcelNames": options.parcel_names,
            "--transpose": options.transpose,
            "--edges": options.edges,
        }
        if needless_flags := [flag for flag, value in connectome_flags.items() if value]:
            raise InputError(
                f"{needless_flags[0]} is about what --connectome names; name connectomes, or leave it out."
            )
        return joined_table
    recognised_map_names = [] if options.map_column else list(joined_table.map_paths)
    series_path_by_id, connectome_reading, series_summary_rows = find_connectome_files(
        listing, options, recognised_map_names
    )
    series_id_column = joined_table.requested_id_column or find_matching_id_column(
        uncleared_text_table, set(series_path_by_id), table_path
    )
    series_ids = select_column(uncleared_text_table, series_id_column, table_path).map(normalise_id)
    return replace(
        joined_table,
        series_paths=series_ids.map(series_path_by_id).rename(connectome_reading.connectome_name),
        connectome_reading=connectome_reading,
        summary_rows=[*joined_table.summary_rows, *series_summary_rows],
    )


def find_table_without_maps(listing: FolderListing, options: SourceOptions, template_metadata: Metadata) -> JoinedTable:
    """The table that is to be converted without maps. Its IDs are in the column that is named, or matches the series
    of --connectome; of a table alone, in the one whose name says so. Raises InputError."""
    if options.map_column or (options.only and not options.connectome):
        raise InputError("--maps none uses no maps; leave out --mapColumn and --only, which are about them.")
    series_path_by_id = dict[str, Path]()
    if options.connectome:
        series_path_by_id, _, _ = find_connectome_files(listing, options, [])
    table_path = options.table or find_participants_table(
        listing.root_folder,
        series_path_by_id.values(),
        lambda text_table: has_any_map_id(text_table, series_path_by_id),
        list_connectome_paths(listing, options),
    )
    text_table = read_text_table(table_path)

    requested_id_column = find_requested_id_column(text_table, options, template_metadata)
    usual_id_columns = list(filter(is_id_column_name, text_table))
    if options.connectome and not requested_id_column:
        id_column = find_matching_id_column(text_table, set(series_path_by_id), table_path)
    elif len(usual_id_columns) == 1 and not requested_id_column:
        id_column = usual_id_columns[0]
    else:
        id_column = find_subject_column(text_table, requested_id_column, table_path)
    row_ids = select_column(text_table, id_column, table_path).map(normalise_id)
    return JoinedTable(
        table_path,
        text_table,
        id_column,
        map_paths=pd.DataFrame(index=text_table.index),
        map_names=[],
        summary_rows=[],
        stray_ids=sorted(set(series_path_by_id) - set(row_ids)),
        requested_id_column=requested_id_column,
    )


def join_recognised_maps(listing: FolderListing, options: SourceOptions, template_metadata: Metadata) -> JoinedTable:
    """The table and the maps that are recognised by their names."""
    map_names = options.maps or DEFAULT_CONVERTED_MAPS
    if map_names == ALL_MAPS_OPTION:  # if there are none, the error says what is expected
        present_map_names = [
            map_name for map_name in STANDARD_MAPS if listing.find_product_files(MAP_PRODUCT, map_name)
        ]
        map_names = tuple(present_map_names) or DEFAULT_CONVERTED_MAPS
    if {*NO_MAPS_OPTION} < {*map_names}:
        raise InputError(f"--maps {','.join(map_names)} names maps beside none; leave out none, or the maps.")
    check_map_names(map_names)

    # a file may hold several of these maps
    file_map_names = list(dict.fromkeys(find_file_map_name(listing, map_name) for map_name in map_names))
    summary_rows = list[SummaryRow]()
    path_by_id_by_map = dict[str, dict[str, Path]]()
    map_ids = set[str]()
    all_map_paths = list[Path]()
    for file_map_name in file_map_names:
        map_files, _, search_summary_rows = find_usable_product_files(
            listing, MAP_PRODUCT, file_map_name, options.only, file_map_names
        )
        path_by_id = {map_file.comparable_id: map_file.path for map_file in map_files}
        path_by_id_by_map[file_map_name] = path_by_id
        map_ids.update(path_by_id)
        all_map_paths += path_by_id.values()
        summary_rows += search_summary_rows

    table_path = options.table or find_participants_table(
        listing.root_folder,
        all_map_paths,
        lambda text_table: has_any_map_id(text_table, map_ids),
        list_connectome_paths(listing, options),
    )
    text_table = read_text_table(table_path)
    requested_id_column = find_requested_id_column(text_table, options, template_metadata)
    id_column = requested_id_column or find_matching_id_column(text_table, map_ids, table_path)
    row_ids = select_column(text_table, id_column, table_path).map(normalise_id)
    map_paths = pd.DataFrame({map_name: row_ids.map(path_by_id) for map_name, path_by_id in path_by_id_by_map.items()})
    if map_paths.isna().all(axis=None):
        raise make_unmatched_ids_error(text_table, id_column, map_ids, table_path)
    return JoinedTable(
        table_path,
        text_table,
        id_column,
        map_paths,
        list(map_names),
        summary_rows,
        stray_ids=sorted(map_ids - set(row_ids)),
        requested_id_column=requested_id_column,
    )


def find_requested_id_column(text_table: pd.DataFrame, options: SourceOptions, template_metadata: Metadata) -> str:
    """The column of IDs that is named, or that of `template_metadata`, if the table has it; empty without any."""
    if options.id_column:
        return options.id_column
    return template_metadata.id_column if template_metadata.id_column in text_table else ""


def has_any_map_id(text_table: pd.DataFrame, map_ids: Collection[str]) -> bool:
    """Whether a column of a table holds the ID of somebody."""
    return any(text_table[column_name].map(normalise_id).isin(map_ids).any() for column_name in text_table)


def split_map_columns(text_table: pd.DataFrame, map_column_option: str) -> list[str]:
    """The columns that --mapColumn names: one, whose name may have a comma, or several."""
    return [map_column_option] if map_column_option in text_table else map_column_option.split(",")


def join_map_columns(folder: Path, options: SourceOptions, template_metadata: Metadata) -> JoinedTable:
    """The table and the maps whose paths its columns hold; those of `template_metadata` say what their files are
    called."""
    map_columns_option = options.map_column or ""
    if options.maps == ALL_MAPS_OPTION or (options.only and not options.connectome):
        raise InputError("--mapColumn names each map; leave out --maps all and --only, which are about finding them.")
    table_path = options.table or find_participants_table(
        folder,
        (),
        lambda text_table: {*split_map_columns(text_table, map_columns_option)} <= {*text_table},
        list_connectome_paths(FolderListing(folder), options),
    )
    text_table = read_text_table(table_path)

    map_columns = split_map_columns(text_table, map_columns_option)
    default_map_names = DEFAULT_CONVERTED_MAPS if len(map_columns) == 1 else tuple(map_columns)
    map_names = template_metadata.column_maps or options.maps or default_map_names
    if len(map_names) != len(map_columns):
        raise InputError(
            f"{'--like' if template_metadata.maps else '--maps'} names {len(map_names)} maps, {', '.join(map_names)}; "
            f"expected a name for each column of --mapColumn, {', '.join(map_columns)}."
        )
    check_map_names(map_names)

    requested_id_column = find_requested_id_column(text_table, options, template_metadata)
    id_column = find_subject_column(text_table, requested_id_column, table_path)
    map_path_texts = pd.DataFrame(
        {
            map_name: select_column(text_table, column_name, table_path)
            for map_name, column_name in zip(map_names, map_columns, strict=True)
        }
    )
    select_column(text_table, id_column, table_path)  # raises InputError if it is not there
    map_paths = map_path_texts.map(lambda path_text: find_file(folder, path_text) or math.nan)
    if map_paths.isna().all(axis=None):
        quoted_path_texts = [quote_text(path_text) for path_text in map_path_texts.iloc[:, 0]]
        path_examples_text = join_names(quoted_path_texts, 2) or "nothing"
        raise InputError(
            f"{map_columns_option} of {table_path} holds {path_examples_text}; expected paths of maps in {folder}. "
            "Correct them."
        )

    assumption_text = ""
    if not options.maps:
        assumption_text = f", assumed to be {', '.join(map_names)}; if they are others, name them with --maps"
    return JoinedTable(
        table_path,
        text_table,
        id_column,
        map_paths,
        list(options.maps or map_names),
        summary_rows=[("layout", f"maps that the column {map_columns_option} names{assumption_text}")],
        requested_id_column=requested_id_column,
        map_column=map_columns_option,
    )


def find_subject_column(text_table: pd.DataFrame, requested_id_column: str | None, table_path: Path) -> str:
    """The column of subjects in a table of paths: `requested_id_column`, or else ABIDE's or BIDS'. Raises
    InputError."""
    if requested_id_column:
        return requested_id_column
    for column_name in (ABIDE_ID_COLUMN, "participant_id"):
        if column_name in text_table:
            return column_name
    raise InputError(f"Which column of {table_path} names the participant? Say so with --idColumn.")


def find_label_coding(
    text_table: pd.DataFrame, options: SourceOptions, table_path: Path, is_label_optional: bool
) -> LabelCoding | None:
    """The coding that the options give, or ABIDE's own; None if there is neither and `is_label_optional`."""
    label_column = options.label_column
    autism_values_text = options.positive
    check_columns_exist(
        text_table, {"--labelColumn": [label_column], "--siteColumn": [options.site_column]}, table_path
    )
    if label_column is None and autism_values_text is None:
        if is_abide_table(text_table):
            control_values_text = options.negative
            if is_label_optional and not control_values_text:
                # new people may all be of one class, so that the other value does not occur
                control_values_text = ABIDE_CONTROL_VALUE
            return LabelCoding(ABIDE_LABEL_COLUMN, ABIDE_AUTISM_VALUE, control_values_text)
        if is_label_optional:
            return None
    if label_column is None or autism_values_text is None:
        raise InputError(
            f"Which column of {table_path} is the diagnosis, and which of its values is autism? "
            "Say so with --labelColumn NAME --positive VALUE."
        )
    return LabelCoding(label_column, autism_values_text, options.negative)


def find_unwanted_row_reasons(joined_table: JoinedTable, options: SourceOptions) -> tuple[pd.Series, list[SummaryRow]]:
    """Why --exclude or --where leaves out each row, empty where they do not; facts on either. Raises InputError."""
    unwanted_reason_by_row = pd.Series("", joined_table.text_table.index)
    summary_rows = list[SummaryRow]()
    if options.where:
        where_condition = RowCondition(options.where, joined_table.text_table, joined_table.table_path)
        is_condition_met = where_condition.evaluate_rows()  # NA where it depends on a missing value
        unwanted_reason_by_row = unwanted_reason_by_row.mask(
            ~is_condition_met.fillna(True), f"--where {options.where} is false"
        )
        unwanted_reason_by_row = unwanted_reason_by_row.mask(
            is_condition_met.isna(), f"--where {options.where} depends on a missing value"
        )
        summary_rows += where_condition.summary_rows
    if options.exclude:
        typed_text_by_excluded_id = parse_excluded_ids(options.exclude)
        subject_ids = joined_table.subject_ids
        matched_ids = joined_table.text_table[joined_table.id_column].map(normalise_id)
        unwanted_reason_by_row = unwanted_reason_by_row.mask(
            subject_ids.isin(typed_text_by_excluded_id) | matched_ids.isin(typed_text_by_excluded_id),
            "named by --exclude",
        )
        present_ids = {*subject_ids, *matched_ids, *joined_table.stray_ids}
        absent_id_texts = [
            id_text for excluded_id, id_text in typed_text_by_excluded_id.items() if excluded_id not in present_ids
        ]
        if absent_id_texts:
            absent_ids_message = (
                f"--exclude names {len(absent_id_texts)} of whom there is neither a row nor a map: "
                f"{join_names(absent_id_texts)}"
            )
            summary_rows.append(("left out", absent_ids_message))
    return unwanted_reason_by_row, summary_rows


def keep_common_maps(joined_table: JoinedTable, is_wanted: pd.Series) -> JoinedTable:
    """The table with those maps only that all of the `is_wanted` rows with any map have; facts say which, and who
    lacks another. Raises InputError if there are none."""
    is_wanted_with_map = is_wanted & joined_table.map_paths.notna().any(axis=1)
    person_count = is_wanted_with_map.sum()
    common_map_names = []
    lacking_map_texts = []
    for map_name, map_paths in joined_table.map_paths.items():
        lacking_subjects = joined_table.subject_ids[is_wanted_with_map & map_paths.isna()].tolist()
        if lacking_subjects:
            lacking_map_texts.append(
                f"without {map_name}, which {len(lacking_subjects)} of {person_count} participants lack, "
                f"{join_names(lacking_subjects)}"
            )
        else:
            common_map_names.append(str(map_name))
    if not common_map_names:
        raise InputError(
            f"No map is there for everybody: {'; '.join(lacking_map_texts)}. Name those to use with --maps."
        )
    common_maps_text = f"{', '.join(common_map_names)}, which all {person_count} participants have; --maps names others"
    layout_summary_rows = [("layout", sentence) for sentence in (common_maps_text, *lacking_map_texts)]
    return replace(
        joined_table,
        map_paths=joined_table.map_paths[common_map_names],
        map_names=common_map_names,
        summary_rows=[*joined_table.summary_rows, *layout_summary_rows],
    )


def list_unconverted_subjects(
    joined_table: JoinedTable,
    diagnosis_values: pd.Series,
    has_usable_label: pd.Series,
    unwanted_reason_by_row: pd.Series,
) -> dict[str, list[str]]:
    """For each reason not to convert a row or a map, the subjects with such a row or map, who may have another that is
    converted. A row counts for the first of its reasons: a file, the diagnosis, an option."""
    map_paths = joined_table.map_paths
    has_all_files = joined_table.has_all_maps_and_series
    has_any_map = joined_table.has_any_map_or_needs_none
    row_mask_by_reason = {"no map": ~has_any_map}
    for map_name in map_paths:
        row_mask_by_reason[f"no map {map_name}"] = has_any_map & map_paths[map_name].isna()
    if joined_table.series_paths is not None:
        row_mask_by_reason["no series of parcels"] = has_any_map & joined_table.series_paths.isna()

    lacks_label = has_all_files & ~has_usable_label
    row_mask_by_reason[f"{diagnosis_values.name or 'diagnosis'} unknown"] = lacks_label & diagnosis_values.isna()
    for diagnosis_value in sorted(diagnosis_values[lacks_label].dropna().unique()):
        has_diagnosis_value = diagnosis_values == diagnosis_value
        row_mask_by_reason[f"{diagnosis_values.name} is {diagnosis_value}"] = lacks_label & has_diagnosis_value

    for unwanted_reason in sorted({*unwanted_reason_by_row} - {""}):
        has_unwanted_reason = unwanted_reason_by_row == unwanted_reason
        row_mask_by_reason[unwanted_reason] = has_all_files & has_usable_label & has_unwanted_reason

    unconverted_subjects_by_reason = {
        reason: joined_table.subject_ids[row_mask].tolist() for reason, row_mask in row_mask_by_reason.items()
    }
    stray_file_noun = "a series" if map_paths.columns.empty else "a map"
    unconverted_subjects_by_reason[f"{stray_file_noun} without a row in the table"] = joined_table.stray_ids
    return {
        reason: reason_subjects for reason, reason_subjects in unconverted_subjects_by_reason.items() if reason_subjects
    }


def check_distinct_maps(joined_table: JoinedTable, is_converted: pd.Series, column_name: str) -> None:
    """Raises InputError if the column `column_name` gives several of the `is_converted` subjects one map, or one
    subject one file twice. It may be one of labels or sites, in place of IDs."""
    compared_paths = joined_table.map_paths
    if compared_paths.columns.empty:
        compared_paths = pd.DataFrame(joined_table.series_paths, joined_table.text_table.index)
    real_paths = compared_paths[is_converted].map(os.path.realpath).melt(ignore_index=False)["value"]
    repeated_paths = real_paths[real_paths.duplicated(keep=False)]
    if repeated_paths.size:
        path_subjects = joined_table.subject_ids.loc[repeated_paths.index]
        subjects_by_path = path_subjects.groupby(repeated_paths.to_numpy(), sort=False).agg(list)
        repeated_path_texts = [
            f"{Path(real_path).name} to {join_names(sharing_subjects, 3, ' and ')}"
            for real_path, sharing_subjects in subjects_by_path.items()
        ]
        raise InputError(
            f"The column {column_name} of {joined_table.table_path} gives the map "
            f"{join_names(repeated_path_texts, 2)}; expected one of each participant's own. Correct it, or name the "
            "right column with --idColumn or --mapColumn."
        )


def summarise_left_out_subjects(
    unconverted_subjects_by_reason: Mapping[str, list[str]], converted_subjects: Set[str]
) -> tuple[dict[str, list[str]], list[SummaryRow]]:
    """For each reason the subjects without a record; facts, first on those who have a record by another row or map."""
    left_out_subjects_by_reason = dict[str, list[str]]()
    repetition_summary_rows = list[SummaryRow]()
    left_out_summary_rows = list[SummaryRow]()
    for reason, reason_subjects in unconverted_subjects_by_reason.items():
        repeated_subjects = [subject for subject in reason_subjects if subject in converted_subjects]
        left_out_subjects = [subject for subject in reason_subjects if subject not in converted_subjects]
        left_out_subjects_by_reason[reason] = left_out_subjects
        if repeated_subjects:
            repetition_message = f"another row or map of {join_names(repeated_subjects)}, who have a record: {reason}"
            repetition_summary_rows.append(("left out", repetition_message))
        if left_out_subjects:
            left_out_message = f"{len(left_out_subjects)}, {reason}: {join_names(left_out_subjects)}"
            left_out_summary_rows.append(("left out", left_out_message))
    return left_out_subjects_by_reason, [*repetition_summary_rows, *left_out_summary_rows]
