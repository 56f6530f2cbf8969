"""A cohort -> the same records in files or in zip chunks, also with edited tables; or one record as NIfTI."""

import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from data.base.errors import InputError
from data.base.files import check_new, locked, new_folder
from data.base.manifest import DIFFERENT, SUMS
from data.base.terminal import progress
from data.cohorts.cohort import PHENOTYPE, Cohort, in_one_folder
from data.cohorts.rows import TABLE, UNLIKE_RECORDS, UNSEALED, Row, listed
from data.cohorts.stored import EDITABLE, carry_tables, compared, open_cohort, write_tables

CHUNK_BYTES = 250_000_000
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every zip entry, so that the same records give the same chunks
IN_RECORDS = {TABLE: ", but for the labels", PHENOTYPE: ", but for what the records hold"}  # of tables edited in place


def opened(path: Path, edited: Path | None = None) -> Cohort:
    """The cohort at `path`, to be packed. All its files are verified but, if the folder of `edited` tables is its own,
    these tables; what has no `SHA256SUMS` is taken as it is. Raises InputError for damage."""
    in_place = EDITABLE if is_own(path, edited) else ()
    cohort = open_cohort(path, unverified=(SUMS, *in_place))
    different, _ = compared(cohort)
    if damaged := [name for name in different if name not in in_place]:
        raise InputError(f"{path / damaged[0]} {DIFFERENT}")
    for name in different:
        print(f"{path / name} was edited in place: what it said before is not known{IN_RECORDS.get(name, '')}.")
    return cohort


def is_own(path: Path, edited: Path | None) -> bool:
    """Whether the edited tables are those in the folder of the cohort itself."""
    return edited is not None and edited.resolve() == path.resolve()


def is_unsealed(cohort: Cohort) -> bool:
    """Whether a cohort has tables, and no sums that tell whether these are as they were written."""
    return cohort.tables is not None and not cohort.identity


def pack(cohort: Cohort, target: Path, form: str | None = None, edited: Path | None = None) -> tuple[str, list[str]]:
    """Writes `cohort` into the new folder `target` in one of FORMS, or in its own, with its tables or those of them
    that lie in the folder `edited`; returns the form, and each changed cell in words. Volumes are copied bit by bit,
    label and phenotype of records are written anew; of a cohort without sums, `cohort.json` then says in which cells
    the tables and the records differed. Raises InputError for a damaged record, and for a table that says what cannot
    be."""
    form = form or ("zip" if any(entry.chunk for entry in cohort.entries) else "bin")
    cohort, changes = in_one_folder(cohort), list[dict[str, str]]()
    unsealed, in_place = is_unsealed(cohort), is_own(cohort.path, edited)
    with new_folder(target) as folder:
        carry_tables(cohort, folder)
        if edited or unsealed:
            from data import edit  # pandas, which packing alone can do without

            recorded = edit.recorded_tables(cohort) if unsealed or (in_place and cohort.tables) else {}
            unlike = edit.unlike_records(cohort, recorded, edit.tables_in(edited) if edited else [])
            if edited:
                cohort, changes = edit.with_tables(cohort, edited, folder, recorded)
            if unsealed:
                cohort = sealed_as_it_is(cohort, unlike, edited is not None)
        FORMS[form](cohort, folder)
        write_tables(folder, cohort.rows, replace(cohort.metadata, grid=cohort.grid.shape), cohort.known_digests)
        open_cohort(folder)  # nothing is called done that cannot be read
    return form, ["{subject} {column}: {before} -> {after}".format(**change) for change in changes]


def sealed_as_it_is(cohort: Cohort, unlike: list[dict[str, str]], is_edited: bool) -> Cohort:
    """A cohort without sums, whose provenance says so from now on, and names the cells that its records contradict."""
    earlier = cohort.metadata.provenance
    cells = [*cohort.metadata.unlike_records, *unlike]
    provenance = (earlier if is_edited else {"source": earlier}) | {UNSEALED: True, UNLIKE_RECORDS: cells}
    return replace(cohort, metadata=replace(cohort.metadata, provenance=provenance))


def pack_bin(cohort: Cohort, folder: Path) -> None:
    """One file for each record."""
    for row, content in each(cohort):
        (folder / row.file).write_bytes(content)


def pack_zip(cohort: Cohort, folder: Path, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Zip chunks `compressed_0`, `compressed_1`, ... of about 250 MB each."""
    archive, count = None, 0
    with ExitStack() as written:
        for row, content in each(cohort):
            if archive is None or archive.start_dir >= chunk_bytes:
                written.close()
                chunk = zipfile.ZipFile(folder / f"compressed_{count}", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
                archive = written.enter_context(chunk)
                count += 1
            info = zipfile.ZipInfo(row.file, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)


FORMS = {"bin": pack_bin, "zip": pack_zip}


def each(cohort: Cohort) -> Iterator[tuple[Row, bytes]]:
    """Every row with the bytes of its record, behind a progress bar."""
    with progress("Packing", len(cohort.rows)) as shown:
        for index, row in enumerate(cohort.rows):
            yield row, cohort.record(index)
            shown.advance()


def export(cohort: Cohort, name: str, target: Path, map_name: str | None = None) -> None:
    """Writes one volume of the subject or record `name` as a new NIfTI file, RAS+, with its affine in MNI space, mm.
    Raises InputError if `name` or `map_name` is ambiguous or unknown, or `target` exists."""
    from data.cohorts import nifti

    if not target.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{target} is no NIfTI name; expected .nii or .nii.gz.")
    if map_name not in cohort.maps and (map_name or cohort.num_maps > 1):
        given = f"no map {map_name}" if map_name else "several maps"
        raise InputError(f"{cohort.path} has {given}; choose with --map one of {', '.join(cohort.maps)}.")
    place = cohort.maps.index(map_name) if map_name else 0
    found = [index for index, row in enumerate(cohort.rows) if name in (row.file, Path(row.file).stem)]
    found = found or [index for index, row in enumerate(cohort.rows) if name == row.subject]
    if len(found) != 1:
        several = f" ({listed([cohort.rows[index].file for index in found], 5)})" if found else ""
        raise InputError(f"{cohort.path} has {len(found)} records of {name}{several}; name one participant or file.")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is no folder; make it or name another one.")
    volume = cohort.volume(found[0])
    with locked(target):
        check_new(target)
        nifti.save(nifti.mni_image(volume[..., place], cohort.grid), target)
