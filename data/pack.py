"""A cohort -> the same records in files or in zip chunks, also with edited tables; or one record as NIfTI. Of a cohort
without maps there are only the tables."""

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from data.base.errors import InputError
from data.base.files import check_target_is_new, create_folder, lock_exclusively
from data.base.listing import join_names
from data.base.manifest import DIFFERENT_FILE_MESSAGE, SUMS_FILE
from data.base.terminal import open_progress_bar
from data.cohorts.cohort import PHENOTYPE_FILE, Cohort, flatten_record_files
from data.cohorts.metadata import UNLIKE_RECORDS_KEY, UNSEALED_KEY
from data.cohorts.rows import SUBJECTS_FILE, RecordRow
from data.cohorts.stored import (
    EDITABLE_TABLE_FILES,
    compare_with_sums,
    copy_side_tables,
    open_cohort,
    write_cohort_tables,
)

TABLES_FORM = "tables"  # the form of a cohort without maps
CHUNK_BYTES = 250_000_000
CHUNK_ENTRY_TIME = (1980, 1, 1, 0, 0, 0)  # of every zip entry, so that the same records give the same chunks
EXCEPTION_TEXT_BY_TABLE = {
    SUBJECTS_FILE: ", but for the labels",
    PHENOTYPE_FILE: ", but for what the records hold",
}  # by table edited in place: what is known of its earlier content


def open_for_packing(cohort_path: Path, edited_folder: Path | None = None) -> Cohort:
    """The cohort at `cohort_path`, to be packed. All its files are verified, except tables that were edited in place
    (`edited_folder` is its own folder); a cohort without `SHA256SUMS` is taken as it is. Raises InputError for
    damage."""
    table_names_edited_in_place = EDITABLE_TABLE_FILES if is_edited_in_place(cohort_path, edited_folder) else ()
    cohort = open_cohort(cohort_path, unverified_files=(SUMS_FILE, *table_names_edited_in_place))
    different_file_names, _ = compare_with_sums(cohort)
    if damaged_file_names := [
        file_name for file_name in different_file_names if file_name not in table_names_edited_in_place
    ]:
        raise InputError(f"{cohort_path / damaged_file_names[0]} {DIFFERENT_FILE_MESSAGE}")
    for file_name in different_file_names:
        exception_text = EXCEPTION_TEXT_BY_TABLE.get(file_name, "") if cohort.num_maps else ""
        print(f"{cohort_path / file_name} was edited in place: what it said before is not known{exception_text}.")
    return cohort


def is_edited_in_place(cohort_path: Path, edited_folder: Path | None) -> bool:
    """Whether the edited tables are those in the folder of the cohort itself."""
    return edited_folder is not None and edited_folder.resolve() == cohort_path.resolve()


def is_unsealed(cohort: Cohort) -> bool:
    """Whether a cohort has tables, and no sums that tell whether these are as they were written."""
    return cohort.tables_folder is not None and not cohort.identity


def pack_cohort(
    cohort: Cohort, target_folder: Path, storage_form: str | None = None, edited_folder: Path | None = None
) -> tuple[str, list[str]]:
    """Writes `cohort` into the new folder `target_folder` in the form `storage_form` of `PACK_FUNCTION_BY_FORM`, by
    default its own; without maps, the form is `tables`. Tables in the folder `edited_folder` replace its own ones.
    Returns the form, and each changed cell in words. Volumes are copied bit by bit; label and phenotype of records
    are written anew. For a cohort without sums, `cohort.json` then lists the cells in which tables and records
    differed. Raises InputError for a damaged record, and for a table with impossible values."""
    if not cohort.num_maps:
        storage_form = TABLES_FORM
    elif storage_form is None:
        storage_form = "zip" if any(entry.zip_chunk for entry in cohort.entries) else "bin"
    cohort = flatten_record_files(cohort)
    cell_changes = list[dict[str, str]]()
    has_no_sums = is_unsealed(cohort)
    is_in_place = is_edited_in_place(cohort.path, edited_folder)
    with create_folder(target_folder) as unfinished_folder:
        copy_side_tables(cohort, unfinished_folder)
        if edited_folder or has_no_sums:
            from data import edit  # pandas, which packing alone can do without

            recorded_table_by_name = (
                edit.read_recorded_tables(cohort) if has_no_sums or (is_in_place and cohort.tables_folder) else {}
            )
            contradicted_cells = edit.find_contradicted_cells(
                cohort, recorded_table_by_name, edit.list_editable_table_names(edited_folder) if edited_folder else []
            )
            if edited_folder:
                cohort, cell_changes = edit.replace_tables(
                    cohort, edited_folder, unfinished_folder, recorded_table_by_name
                )
            if has_no_sums:
                cohort = mark_unsealed(cohort, contradicted_cells, edited_folder is not None)
        if storage_form != TABLES_FORM:
            PACK_FUNCTION_BY_FORM[storage_form](cohort, unfinished_folder)
            cohort = replace(cohort, metadata=replace(cohort.metadata, grid=cohort.grid.shape))
        write_cohort_tables(unfinished_folder, cohort.rows, cohort.metadata, cohort.digests_by_file)
        open_cohort(unfinished_folder)  # a cohort must be readable before it takes its name
    return storage_form, [
        "{subject} {column}: {before} -> {after}".format(**cell_change) for cell_change in cell_changes
    ]


def mark_unsealed(cohort: Cohort, contradicted_cells: list[dict[str, str]], has_edited_tables: bool) -> Cohort:
    """A cohort without sums, whose provenance says so from now on, and names the cells that its records contradict."""
    earlier_provenance = cohort.metadata.provenance
    all_contradicted_table_cells = [*cohort.metadata.cells_unlike_records, *contradicted_cells]
    provenance = (earlier_provenance if has_edited_tables else {"source": earlier_provenance}) | {
        UNSEALED_KEY: True,
        UNLIKE_RECORDS_KEY: all_contradicted_table_cells,
    }
    return replace(cohort, metadata=replace(cohort.metadata, provenance=provenance))


def write_record_files(cohort: Cohort, target_folder: Path) -> None:
    """One file for each record."""
    for row, record_bytes in iterate_records(cohort):
        (target_folder / row.file).write_bytes(record_bytes)


def write_zip_chunks(cohort: Cohort, target_folder: Path, max_chunk_bytes: int = CHUNK_BYTES) -> None:
    """Zip chunks `compressed_0`, `compressed_1`, ... of about 250 MB each."""
    zip_file = None
    chunk_count = 0
    with ExitStack() as exit_stack:
        for row, record_bytes in iterate_records(cohort):
            if zip_file is None or zip_file.start_dir >= max_chunk_bytes:
                exit_stack.close()
                chunk_file = zipfile.ZipFile(
                    target_folder / f"compressed_{chunk_count}", "w", zipfile.ZIP_DEFLATED, compresslevel=1
                )
                zip_file = exit_stack.enter_context(chunk_file)
                chunk_count += 1
            zip_info = zipfile.ZipInfo(row.file, CHUNK_ENTRY_TIME)
            zip_info.compress_type = zipfile.ZIP_DEFLATED
            zip_file.writestr(zip_info, record_bytes)


PACK_FUNCTION_BY_FORM = {"bin": write_record_files, "zip": write_zip_chunks}


def iterate_records(cohort: Cohort) -> Iterator[tuple[RecordRow, bytes]]:
    """Every row with the bytes of its record, behind a progress bar."""
    with open_progress_bar("Packing", len(cohort.rows)) as progress_bar:
        for record_index, row in enumerate(cohort.rows):
            yield row, cohort.make_record_bytes(record_index)
            progress_bar.advance()


def write_volume(cohort: Cohort, subject_or_file: str, target_path: Path, map_name: str | None = None) -> None:
    """Writes one volume of the subject or record `subject_or_file` as a new NIfTI file, RAS+, with its affine in
    MNI space, mm. Raises InputError if `subject_or_file` or `map_name` is ambiguous or unknown, or `target_path`
    exists, or there are no maps."""
    from data.images import nifti

    grid = cohort.grid
    if not target_path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{target_path} is no NIfTI name; expected .nii or .nii.gz.")
    if map_name not in cohort.map_names and (map_name or cohort.num_maps > 1):
        map_problem = f"no map {map_name}" if map_name else "several maps"
        raise InputError(f"{cohort.path} has {map_problem}; choose with --map one of {', '.join(cohort.map_names)}.")
    map_index = cohort.map_names.index(map_name) if map_name else 0
    record_indices = [
        record_index
        for record_index, row in enumerate(cohort.rows)
        if subject_or_file in (row.file, Path(row.file).stem)
    ]
    if not record_indices:
        record_indices = [
            record_index for record_index, row in enumerate(cohort.rows) if subject_or_file == row.subject
        ]
    if len(record_indices) != 1:
        file_names = [cohort.rows[record_index].file for record_index in record_indices]
        candidates_text = f" ({join_names(file_names, 5)})" if file_names else ""
        raise InputError(
            f"{cohort.path} has {len(record_indices)} records of {subject_or_file}{candidates_text}; name one "
            "participant or file."
        )
    if not target_path.parent.is_dir():
        raise InputError(f"{target_path.parent} is no folder; make it or name another one.")
    volume = cohort.read_volume(record_indices[0])
    with lock_exclusively(target_path):
        check_target_is_new(target_path)
        nifti.save_nifti(nifti.make_mni_image(volume[..., map_index], grid), target_path)
