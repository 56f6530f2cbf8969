"""A cohort -> a folder of tables and arrays for a model of somebody's own, whose rows are the cohort's records.

Its folds are those of run.py. As a control, labels can be permuted: then there is nothing to find.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.files import check_target_is_new, create_folder
from data.base.listing import join_names
from data.base.manifest import write_checksums
from data.base.tables import write_csv_frame
from data.base.terminal import SummaryRow
from data.cohorts.cohort import Cohort
from data.cohorts.division import check_fold_classes
from data.cohorts.folds import Folds, open_folds, open_repeat_folds, permute_control_labels
from data.cohorts.groups import find_group_leaders
from data.cohorts.inputs import check_input_table_size, choose_input_kinds, find_present_input_kinds, make_input_table
from data.cohorts.stored import open_run_cohort
from data.export_options import ExportOptions
from data.images.atlas import load_printable_atlas

PARTICIPANTS_FILE = "participants.csv"
ARRAY_INPUT_KINDS = ("maps", "connectome")  # whose columns are too many for a table of text


def export_cohort(cohort_path: Path, target_folder: Path, options: ExportOptions) -> list[SummaryRow]:
    """Writes the cohort at `cohort_path` into the new folder `target_folder`, and returns summary rows.

    It holds `participants.csv` (see `make_participant_table`), the files of each kind of inputs (see `write_inputs`)
    and `SHA256SUMS`. Raises InputError for options that do not go together, and for what `open_folds`,
    `open_run_cohort`, `permute_control_labels` and `make_input_table` refuse.
    """
    options.check()
    if (target_folder / PARTICIPANTS_FILE).is_file():
        raise InputError(f"{target_folder} exists and is an export; remove it or name another folder.")
    check_target_is_new(target_folder)

    folds_by_repeat = open_all_folds(cohort_path, options, target_folder)
    cohort = folds_by_repeat[0].full_cohort if folds_by_repeat else open_run_cohort(cohort_path)
    input_kinds = choose_export_kinds(cohort, options)
    atlas = load_printable_atlas(options.atlas, cohort.grid) if "maps" in input_kinds else None
    check_input_table_size(cohort, len(cohort.rows), input_kinds, atlas)
    labelled_cohort = cohort if options.control is None else permute_control_labels(cohort, options.control)
    for folds in folds_by_repeat:
        check_fold_classes(labelled_cohort, folds.fold_by_subject)

    participant_table = make_participant_table(labelled_cohort, folds_by_repeat, options.control)
    column_counts = []
    with create_folder(target_folder) as unfinished_folder:
        write_csv_frame(unfinished_folder / PARTICIPANTS_FILE, participant_table)
        for input_kind in input_kinds:
            input_table = make_input_table(cohort, range(len(cohort.rows)), [input_kind], atlas)
            write_inputs(unfinished_folder, input_kind, input_table, [row.file for row in cohort.rows])
            column_counts.append(f"{input_table.shape[1]} columns of {input_kind}")
        write_checksums(unfinished_folder, [path.name for path in unfinished_folder.iterdir()])

    fold_by_subject = folds_by_repeat[0].fold_by_subject if folds_by_repeat else None
    summary_rows = [("cohort", str(cohort))]
    summary_rows += [("PROBLEM", problem.text) for problem in cohort.find_problems(fold_by_subject)]
    summary_rows.append(("inputs", ", ".join(column_counts)))
    if atlas and atlas.vanished_region_names:
        vanished_names_text = join_names(atlas.vanished_region_names)
        summary_rows.append(("regions", f"no voxel on the {atlas.grid} grid, left out: {vanished_names_text}"))
    summary_rows += describe_division(folds_by_repeat)
    if options.control is not None:
        control_text = (
            f"labels are permuted within sites (seed {options.control}): within a site, nothing predicts them"
        )
        summary_rows.append(("CONTROL", control_text))
    return [*summary_rows, ("exported", str(target_folder))]


def open_all_folds(cohort_path: Path, options: ExportOptions, target_folder: Path) -> list[Folds]:
    """The folds of each repeat, as run.py makes them with the same seed; empty without --folds."""
    if not options.folds:
        return []
    # No training has left folds in the new folder, so that they are made
    first_folds = open_folds(cohort_path, options.division_name, options.first_seed, target_folder)
    if first_folds.reduced_cohort_by_fold:
        raise InputError(
            f"{cohort_path} is a set of reduced cohorts, whose maps differ from fold to fold; expected one cohort. "
            "Export the one that they were made from."
        )
    for warning in first_folds.division_warnings:
        print(warning, flush=True)
    folds_by_repeat = [first_folds]
    for repeat_number in range(1, options.repeats):
        folds_by_repeat.append(open_repeat_folds(first_folds, options.first_seed + repeat_number, target_folder))
    return folds_by_repeat


def choose_export_kinds(cohort: Cohort, options: ExportOptions) -> Sequence[str]:
    """The kinds of inputs that are exported: all that the cohort has, unless the user names some."""
    if options.inputs is None:
        input_kinds: Sequence[str] = find_present_input_kinds(cohort)
    else:
        input_kinds = choose_input_kinds(cohort, options.inputs)
    if options.atlas and "maps" not in input_kinds:
        raise InputError(f"--atlas {options.atlas} is about maps, which are not exported; leave it out.")
    return input_kinds


def make_participant_table(cohort: Cohort, folds_by_repeat: Sequence[Folds], control_seed: int | None) -> pd.DataFrame:
    """A row a record, in the cohort's order; with folds, one block of such rows for each repeat.

    `id`, `file`, `label` (1 autism, 0 control, empty where unknown), `site`, `cluster` (who is of one family or shares
    a scan has the same, the ID of the first of them). With folds `fold` and `repeat`, from 0; else the stored `split`.
    `control`, the seed, if the labels are permuted ones.
    """
    leader_by_subject = find_group_leaders([row.subject for row in cohort.rows], cohort.groups)
    record_table = pd.DataFrame(
        {
            "id": [row.subject for row in cohort.rows],
            "file": [row.file for row in cohort.rows],
            "label": [int(row.label) if row.is_labelled else "" for row in cohort.rows],
            "site": [row.site for row in cohort.rows],
            "cluster": [leader_by_subject[row.subject] for row in cohort.rows],
        }
    )
    if folds_by_repeat:
        repeat_tables = [
            record_table.assign(fold=record_table["id"].map(dict(folds.fold_by_subject)), repeat=repeat_number)
            for repeat_number, folds in enumerate(folds_by_repeat)
        ]
        participant_table = pd.concat(repeat_tables, ignore_index=True)
    else:
        participant_table = record_table.assign(split=[row.split for row in cohort.rows])
    return participant_table if control_seed is None else participant_table.assign(control=control_seed)


def write_inputs(folder: Path, input_kind: str, input_table: pd.DataFrame, record_files: Sequence[str]) -> None:
    """Writes a table of inputs, a row a record: as `<kind>.npy` float32 (records, columns) with the names of its
    columns in `<kind>.csv`, if it may have many columns, else as `<kind>.csv`, which names the records' files, too."""
    table_path = folder / f"{input_kind}.csv"
    if input_kind in ARRAY_INPUT_KINDS:
        np.save(folder / f"{input_kind}.npy", np.ascontiguousarray(input_table.to_numpy()))
        write_csv_frame(table_path, pd.DataFrame({"name": list(input_table)}))
    else:
        file_column = pd.DataFrame({"file": record_files})
        write_csv_frame(table_path, pd.concat([file_column, input_table], axis=1))


def describe_division(folds_by_repeat: Sequence[Folds]) -> list[SummaryRow]:
    """How participants are divided: a summary row, none without folds."""
    if not folds_by_repeat:
        return []
    first_folds = folds_by_repeat[0]
    division_text = first_folds.division.division_text
    if not first_folds.are_numbered:
        same_text = f"; the same in {len(folds_by_repeat)} repeats" if len(folds_by_repeat) > 1 else ""
        return [("folds", f"{len(first_folds.fold_names)}, {division_text}{same_text}")]
    seeds_text = ", ".join(str(folds.seed) for folds in folds_by_repeat)
    return [("folds", f"{division_text}, seed {seeds_text}")]
