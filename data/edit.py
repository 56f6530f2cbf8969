"""A cohort and tables of its people that were edited -> the cohort as these say, and what was changed.

What a table said before is known by the sums of its cohort or, without these, by the records: their first values are
label and phenotype, as the tables said them when they were written.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base import tables
from data.base.errors import InputError
from data.base.listing import join_names
from data.cohorts import records
from data.cohorts import rows as cohort_rows
from data.cohorts.cohort import PHENOTYPE_FILE, Cohort
from data.cohorts.metadata import UNLIKE_RECORDS_KEY, Metadata
from data.cohorts.rows import SUBJECTS_FILE, RecordRow
from data.cohorts.scaling import (
    Scaler,
    compute_expected_indicators,
    describe_impossible_values,
    list_value_names_by_indicator,
)
from data.cohorts.stored import EDITABLE_TABLE_FILES
from data.cohorts.variants import resplit
from data.conversion import leaks
from data.conversion.template import encode_phenotype
from data.tables import people as user_tables
from data.tables.missing import clean_column
from data.tables.phenotype import SUBJECT_COLUMN, is_mostly_numbers, parse_number_column
from data.tables.sites import check_sites_complete
from data.tables.vocabulary import UNKNOWN_SITE, find_recorded_sites

EDITABLE_COLUMNS = ["site", "label", "split"]  # columns of the table of records that may change
IMPLAUSIBLE_NUMBERS_ADVICE = (
    "Correct them, or leave cells empty that are unknown. If the numbers are right, convert again with --missing ''."
)
# of scaled values, by rounding to float32 and to six digits in tables; an age that is 0.01 years off is detected
SCALED_PHENOTYPE_TOLERANCE = 1e-4
CellChange = dict[str, str]  # subject, column, before, after


def get_key_column(table_name: str) -> str:
    """The column that names the rows of one of `EDITABLE_TABLE_FILES`."""
    return "file" if table_name == SUBJECTS_FILE else SUBJECT_COLUMN


def read_recorded_tables(cohort: Cohort) -> dict[str, pd.DataFrame]:
    """The tables of a cohort that its records can contradict, as text by `get_key_column`; a cell that they do
    contradict has the records' value. They are the labels, and the phenotype, if its constants are known and its table
    has the values and people of the cohort. Nothing contradicts those of a cohort without maps. Raises InputError."""
    if not cohort.num_maps:
        return {}
    labels_and_phenotypes = [
        records.unpack_header(entry.read(records.HEADER_BYTES), str(entry)) for entry in cohort.entries
    ]
    recorded_labels = np.array([label for label, _ in labels_and_phenotypes])
    recorded_table_by_name = {SUBJECTS_FILE: read_subjects_table_with_labels(cohort, recorded_labels)}

    scaler = Scaler.from_preparation(cohort.metadata)
    if PHENOTYPE_FILE not in cohort.side_table_path_by_name or scaler is None:
        return recorded_table_by_name
    phenotype_table = read_editable_table(cohort, PHENOTYPE_FILE)
    first_record_index_by_subject = cohort.find_first_record_indices(range(len(cohort.rows)))
    has_cohort_columns = tuple(phenotype_table) == cohort.metadata.phenotype
    if not has_cohort_columns or sorted(phenotype_table.index) != sorted(first_record_index_by_subject):
        return recorded_table_by_name  # reading the values raises the error

    phenotype_table = phenotype_table.loc[list(first_record_index_by_subject)]
    first_record_phenotypes = [
        labels_and_phenotypes[record_index][1] for record_index in first_record_index_by_subject.values()
    ]
    scaled_phenotype = np.stack(first_record_phenotypes).astype(float)  # (subjects, values)
    recorded_table_by_name[PHENOTYPE_FILE] = replace_contradicted_phenotype(
        phenotype_table, scaled_phenotype, scaler, cohort.metadata
    )
    return recorded_table_by_name


def read_subjects_table_with_labels(cohort: Cohort, recorded_labels: np.ndarray) -> pd.DataFrame:
    """The table of records as text, with the label in each record (records,) where it is another one."""
    subjects_table = read_editable_table(cohort, SUBJECTS_FILE)
    table_labels = np.array([row.label for row in cohort.rows])
    is_same = (recorded_labels == table_labels) | (np.isnan(recorded_labels) & np.isnan(table_labels))
    recorded_numbers = pd.Series(recorded_labels, subjects_table.index)
    recorded_texts = recorded_numbers.map("{:g}".format, na_action="ignore").fillna("")
    subjects_table["label"] = subjects_table["label"].mask(~is_same, recorded_texts)
    return subjects_table


def replace_contradicted_phenotype(
    phenotype_table: pd.DataFrame, scaled_phenotype: np.ndarray, scaler: Scaler, metadata: Metadata
) -> pd.DataFrame:
    """The phenotype as text, with the value in the records where it is another one; these hold it imputed and scaled,
    (subjects, values). They do not hold a value that was equal in all training people; in place of an unknown value
    they hold the median of these."""
    table_values = phenotype_table.apply(pd.to_numeric, errors="coerce").to_numpy(float)  # NaN where no number
    is_same = np.isclose(scaler.transform(table_values), scaled_phenotype, atol=SCALED_PHENOTYPE_TOLERANCE)
    is_recorded = scaler.scale > 0  # (values,)

    recorded_values = pd.DataFrame(
        scaled_phenotype * scaler.scale + scaler.mean, phenotype_table.index, phenotype_table.columns
    )
    recorded_texts = recorded_values.map("{:.6g}".format)
    for indicator, value_columns in list_value_names_by_indicator(metadata).items():
        if len(value_columns) == 1:  # a number; where it is unknown, the record holds the median
            is_unknown = recorded_values[indicator].round() == 1
            recorded_texts[value_columns[0]] = recorded_texts[value_columns[0]].mask(is_unknown, "")
    return phenotype_table.mask(~is_same & is_recorded, recorded_texts)


def read_editable_table(cohort: Cohort, table_name: str) -> pd.DataFrame:
    """One of `EDITABLE_TABLE_FILES` of a cohort, as text by `get_key_column`. Raises InputError if it is not there."""
    table_path = (cohort.tables_folder or cohort.path) / table_name
    if not table_path.is_file():
        raise InputError(f"{cohort.path} has no {table_name} that could be replaced. Leave it out.")
    key_column = get_key_column(table_name)
    return tables.read_csv_frame(table_path, [key_column]).set_index(key_column)


def find_contradicted_cells(
    cohort: Cohort, recorded_table_by_name: Mapping[str, pd.DataFrame], replaced_table_names: Collection[str]
) -> list[CellChange]:
    """The cells of a cohort's tables that `recorded_table_by_name` (`read_recorded_tables`) contradict, except those of
    `replaced_table_names`, which come from elsewhere or were edited in place."""
    contradicted_cells = list[CellChange]()
    for table_name, recorded_table in recorded_table_by_name.items():
        if table_name not in replaced_table_names:
            current_table = read_editable_table(cohort, table_name).loc[recorded_table.index]
            table_rows = cohort.rows if table_name == SUBJECTS_FILE else ()
            contradicted_cells += find_changed_cells(recorded_table, current_table, table_rows)
    return contradicted_cells


def replace_tables(
    cohort: Cohort, edited_folder: Path, target_folder: Path, recorded_table_by_name: Mapping[str, pd.DataFrame]
) -> tuple[Cohort, list[CellChange]]:
    """The cohort with those of `EDITABLE_TABLE_FILES` that `edited_folder` holds, which are written into the new
    `target_folder`; its phenotype is scaled anew on the training people. Also returns each changed cell: what a table
    said before is taken from `recorded_table_by_name`, if it is there, else from the cohort's own table. Raises
    InputError for a table of other people, records or columns, and for impossible values."""
    if cohort.tables_folder is None:
        raise InputError(
            f"{cohort.path} has no tables that {edited_folder} could replace. Pack it without --tables first."
        )
    if not (table_names := list_editable_table_names(edited_folder)):
        raise InputError(
            f"{edited_folder} has none of {', '.join(EDITABLE_TABLE_FILES)}; expected tables of {cohort.path}, edited."
        )
    rows = list(cohort.rows)
    cell_changes = list[CellChange]()
    for table_name in table_names:
        table_path = edited_folder / table_name
        if table_name in recorded_table_by_name:
            table_before = recorded_table_by_name[table_name]
        else:
            table_before = read_editable_table(cohort, table_name)
        edited_table = read_edited_table(table_path)
        if table_name == SUBJECTS_FILE:
            table_after = merge_table_edits(table_before, edited_table, table_before.index, table_path, cohort.metadata)
            rows = apply_row_edits(cohort, table_before, table_after, table_path)
            cell_changes += find_changed_cells(table_before, table_after, rows)
        else:
            subjects = list(cohort.find_first_record_indices(range(len(rows))))
            table_after = merge_table_edits(table_before, edited_table, subjects, table_path, cohort.metadata)
            is_changed = None  # if the earlier content is not known, every cell counts as changed
            if not recorded_table_by_name or table_name in recorded_table_by_name:
                is_changed = table_before.ne(table_after)
            check_edited_table(cohort, table_before, table_after, table_path, is_changed)
            tables.write_csv_frame(target_folder / table_name, table_after.reset_index())
            cell_changes += find_changed_cells(table_before, table_after, [])

    if not cell_changes and edited_folder.resolve() != cohort.path.resolve():
        raise InputError(
            f"{edited_folder} says what {cohort.path} says already; expected other values. Correct the tables."
        )
    provenance = make_edit_provenance(cohort, edited_folder, table_names, cell_changes)
    metadata = replace(cohort.metadata, phenotype_auc={}, provenance=provenance)
    edited_cohort = replace(cohort, rows=tuple(rows), metadata=metadata, tables_folder=target_folder)
    split_by_subject = {row.subject: row.split for row in rows}
    if "train" not in split_by_subject.values():
        return edited_cohort, cell_changes
    rescaled_cohort = resplit(edited_cohort, split_by_subject)
    phenotype_aucs = compute_phenotype_aucs(rescaled_cohort, edited_folder)
    metadata_with_aucs = replace(rescaled_cohort.metadata, phenotype_auc=phenotype_aucs)
    return replace(rescaled_cohort, metadata=metadata_with_aucs), cell_changes


def read_edited_table(table_path: Path) -> pd.DataFrame:
    """One of `EDITABLE_TABLE_FILES` as an editor or a spreadsheet saved it, as text by `get_key_column`. Raises
    InputError."""
    table = user_tables.read_text_table(table_path)
    key_column = get_key_column(table_path.name)
    user_tables.check_columns_exist(table, {"": [key_column]}, table_path)
    return table.astype(object).set_index(key_column)


def make_edit_provenance(
    cohort: Cohort, edited_folder: Path, table_names: list[str], cell_changes: list[CellChange]
) -> dict[str, Any]:
    """What `cohort.json` says of edited tables, and of the cohort before."""
    pack_provenance = {"changed": cell_changes, "source_sha256": cohort.identity}
    if edited_folder.resolve() == cohort.path.resolve():
        pack_provenance["edited_in_place"] = table_names  # other cells of theirs may have been changed, too
    provenance: dict[str, Any] = {"pack": pack_provenance, "source": cohort.metadata.provenance}
    if contradicted_cells := cohort.metadata.cells_unlike_records:  # except those that were edited since
        changed_keys = {(cell_change["subject"], cell_change["column"]) for cell_change in cell_changes}
        provenance[UNLIKE_RECORDS_KEY] = [
            cell for cell in contradicted_cells if (cell["subject"], cell["column"]) not in changed_keys
        ]
    return provenance


def list_editable_table_names(folder: Path) -> list[str]:
    """Which of `EDITABLE_TABLE_FILES` a folder holds."""
    return [table_name for table_name in EDITABLE_TABLE_FILES if (folder / table_name).is_file()]


def merge_table_edits(
    table_before: pd.DataFrame,
    edited_table: pd.DataFrame,
    expected_row_keys: Collection[str],
    table_path: Path,
    metadata: Metadata,
) -> pd.DataFrame:
    """The edited table in the order of the one before; a cell that says the same keeps its text, and a missing value is
    an empty cell. Where values were edited, the indicator that says whether they are missing is computed anew. Raises
    InputError for rows other than `expected_row_keys`, and for other columns."""
    for axis_name, expected_names, actual_names in (
        ("rows", expected_row_keys, edited_table.index),
        ("columns", table_before.columns, edited_table.columns),
    ):
        mismatched_names = sorted({*expected_names} ^ {*actual_names})
        repeated_names = actual_names[actual_names.duplicated()].tolist()
        if wrong_names := mismatched_names or repeated_names:
            raise InputError(
                f"{table_path} has other {axis_name} than the cohort, or one twice: {join_names(wrong_names)}. "
                "Edit cells only."
            )
    edited_cells = edited_table.loc[table_before.index, table_before.columns]

    numbers_before = table_before.apply(pd.to_numeric, errors="coerce")
    edited_numbers = edited_cells.apply(pd.to_numeric, errors="coerce")
    is_unchanged = table_before.eq(edited_cells) | numbers_before.eq(edited_numbers)
    table_after = edited_cells.apply(clean_column).fillna("").where(~is_unchanged, table_before)

    if tuple(table_after) == metadata.phenotype:
        phenotype_values = table_after.apply(pd.to_numeric, errors="coerce")
        indicator_texts = compute_expected_indicators(phenotype_values, metadata).map("{:.1f}".format)
        for indicator, value_columns in list_value_names_by_indicator(metadata).items():
            has_unchanged_values = is_unchanged[value_columns].all(axis=1)
            table_after[indicator] = table_after[indicator].where(has_unchanged_values, indicator_texts[indicator])
    return table_after


def apply_row_edits(
    cohort: Cohort, table_before: pd.DataFrame, table_after: pd.DataFrame, table_path: Path
) -> list[RecordRow]:
    """The rows of the cohort with site, label and split of its edited table. Raises InputError for other edits, and for
    a subject with two values of one of these."""
    changed_fixed_columns = [
        column
        for column in table_after
        if column not in EDITABLE_COLUMNS and table_after[column].ne(table_before[column]).any()
    ]
    if changed_fixed_columns:
        raise InputError(
            f"{table_path} has other values of {join_names(changed_fixed_columns)}; only {', '.join(EDITABLE_COLUMNS)} "
            "may be edited."
        )
    has_several_values = table_after.groupby("subject")[EDITABLE_COLUMNS].nunique().gt(1).any(axis=1)
    if has_several_values.any():
        raise InputError(
            f"{table_path} gives {join_names(has_several_values.index[has_several_values].tolist())} two of "
            f"{', '.join(EDITABLE_COLUMNS)}; give one."
        )
    check_number_columns(table_before[["label"]], table_after[["label"]], True, table_path)
    edited_sites = table_after["site"].replace("", UNKNOWN_SITE)
    had_site = table_before["site"].isin(find_recorded_sites(table_before["site"]))
    if (edited_sites.eq(UNKNOWN_SITE) & had_site).any():
        check_sites_complete(edited_sites, "site", table_after["subject"], table_path)
    edited_rows = []
    for row, edited_cells in zip(cohort.rows, table_after[EDITABLE_COLUMNS].to_dict("records"), strict=True):
        edited_row = replace(
            row,
            site=edited_cells["site"] or UNKNOWN_SITE,
            label=float(edited_cells["label"] or "nan"),
            split=edited_cells["split"],
        )
        edited_rows.append(cohort_rows.check_row(f"{table_path}, {row.file}", edited_row))
    return edited_rows


def check_edited_table(
    cohort: Cohort,
    table_before: pd.DataFrame,
    table_after: pd.DataFrame,
    table_path: Path,
    is_changed: pd.DataFrame | None,
) -> None:
    """Raises InputError for values in a table of people (rows, columns) that a conversion would not take or give.
    Implausible numbers are looked for in the cells that `is_changed` (bool) marks, or in all if it is None."""
    metadata = cohort.metadata
    is_phenotype = table_path.name == PHENOTYPE_FILE
    check_number_columns(table_before, table_after, is_phenotype, table_path)
    if is_phenotype and tuple(table_after) == metadata.phenotype:
        phenotype_values = table_after.apply(pd.to_numeric, errors="coerce")
        impossible_values = describe_impossible_values(phenotype_values, metadata)
        if impossible_values:
            raise InputError(f"{table_path}: {impossible_values[0].text}. Correct it.")
    columns_without_site = [column for column in table_after if column != metadata.site_column]
    leaks.check_plausible_numbers(table_after, columns_without_site, table_path, IMPLAUSIBLE_NUMBERS_ADVICE, is_changed)
    if not is_phenotype:  # which it must be possible to code
        all_columns = table_after.columns.union(metadata.phenotype_columns)
        encode_phenotype(table_after.reindex(columns=all_columns, fill_value=""), metadata)


def compute_phenotype_aucs(cohort: Cohort, edited_folder: Path) -> dict[str, float]:
    """How well each value of the phenotype separates the training labels, see `leaks.compute_largest_aucs`. Raises
    InputError if one does so too well, as a conversion does, unless it was accepted there."""
    if cohort.unscaled_phenotype is None or not cohort.metadata.phenotype_columns:
        return {}
    label_by_subject = {row.subject: row.label for row in cohort.rows if row.split == "train"}
    training_labels = np.array(list(label_by_subject.values()))
    training_values = cohort.unscaled_phenotype.loc[list(label_by_subject)]

    accepted_columns = list[str]()
    for column in training_values:
        column_beginning = f"{column} ("
        if any(accepted_leak.startswith(column_beginning) for accepted_leak in cohort.metadata.accepted_leaks):
            accepted_columns.append(column)
    checked_values = training_values.drop(columns=accepted_columns)
    advice = f"Correct the tables in {edited_folder}, or convert again."
    leaks.check_phenotype_auc(checked_values, training_labels, False, advice)

    return leaks.check_phenotype_auc(training_values, training_labels, True)


def check_number_columns(
    table_before: pd.DataFrame, table_after: pd.DataFrame, check_all_columns: bool, table_path: Path
) -> None:
    """Raises InputError for a column of numbers that no longer holds numbers; with `check_all_columns` every column
    counts as one, else those whose values were mostly numbers before."""
    for column in table_after:
        had_values = clean_column(table_before[column]).notna().any()
        if check_all_columns or (had_values and is_mostly_numbers(table_before[column])):
            try:
                parse_number_column(table_after, str(column))
            except InputError as error:
                raise InputError(f"{table_path}: {error}") from None


def find_changed_cells(
    table_before: pd.DataFrame, table_after: pd.DataFrame, rows: Sequence[RecordRow]
) -> list[CellChange]:
    """The cells that differ; the same change in several `rows` of a subject is given once."""
    subject_by_file = {row.file: row.subject for row in rows}
    is_changed = table_before.ne(table_after).stack()  # by (row, column)
    cell_changes = list[CellChange]()
    seen_changes = set[tuple[str, ...]]()
    for row_key, column in is_changed[is_changed].index:
        cell_change = {
            "subject": subject_by_file.get(row_key, row_key),
            "column": column,
            "before": table_before.at[row_key, column],
            "after": table_after.at[row_key, column],
        }
        change_values = tuple(cell_change.values())
        if change_values not in seen_changes:
            seen_changes.add(change_values)
            cell_changes.append(cell_change)
    return cell_changes
