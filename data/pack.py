"""A cohort -> the same records in files, in zip chunks or in one HDF5 file, bit by bit; or one record as NIfTI."""

import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.base.errors import InputError
from data.base.files import check_new, check_sums, locked, new_folder, new_hdf5
from data.base.terminal import progress
from data.cohorts import records
from data.cohorts.cohort import Cohort, in_one_folder
from data.cohorts.entries import HDF5_TEXTS, hdf5_store
from data.cohorts.records import Entry
from data.cohorts.rows import HDF5_NAME, Row, listed
from data.cohorts.stored import carry_tables, open_cohort, write_seal, write_tables

CHUNK_BYTES = 250_000_000
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every zip entry, so that the same records give the same chunks


def pack_bin(cohort: Cohort, folder: Path) -> None:
    """One file for each record."""
    for row, entry in each(cohort):
        (folder / row.file).write_bytes(entry.read())


def pack_zip(cohort: Cohort, folder: Path, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Zip chunks `compressed_0`, `compressed_1`, ... of about 250 MB each."""
    archive, count = None, 0
    with ExitStack() as written:
        for row, entry in each(cohort):
            if archive is None or archive.start_dir >= chunk_bytes:
                written.close()
                chunk = zipfile.ZipFile(folder / f"compressed_{count}", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
                archive = written.enter_context(chunk)
                count += 1
            info = zipfile.ZipInfo(row.file, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, entry.read())


def pack_hdf5(cohort: Cohort, folder: Path) -> None:
    """`cohort.h5`: a row a record in each dataset; volumes ([maps,] x, y, z) are compressed one by one."""
    count = len(cohort.rows)
    shape = (cohort.num_maps, *cohort.grid.shape) if cohort.num_maps > 1 else cohort.grid.shape
    with new_hdf5(folder / HDF5_NAME) as store:
        options = {"chunks": (1, *shape), "compression": "gzip", "compression_opts": 1, "shuffle": True}
        volume = store.create_dataset("volume", (count, *shape), records.DTYPE, **options)
        phenotype = store.create_dataset("phenotype", (count, records.PHENOTYPE_SIZE), records.DTYPE)
        label = store.create_dataset("label", (count,), records.DTYPE)
        for name in HDF5_TEXTS:
            store[name] = np.array([getattr(row, name).encode() for row in cohort.rows])
        store["metadata"] = np.frombuffer(json.dumps(cohort.metadata.json()).encode(), np.uint8)
        for row, (_, entry) in enumerate(each(cohort)):
            values = np.frombuffer(entry.read(), records.DTYPE)
            label[row], phenotype[row] = values[0], values[1 : records.HEADER_SIZE]
            volume[row] = values[records.HEADER_SIZE :].reshape(shape)


FORMS = {"bin": pack_bin, "zip": pack_zip, "hdf5": pack_hdf5}


def each(cohort: Cohort) -> Iterator[tuple[Row, Entry]]:
    """Every row with its entry, behind a progress bar."""
    with progress("Packing", len(cohort.rows)) as shown:
        for row, entry in zip(cohort.rows, cohort.entries, strict=True):
            yield row, entry
            shown.advance()


def pack(cohort: Cohort, target: Path, form: str) -> None:
    """Writes `cohort` into the new folder `target` in one of FORMS, with its tables and sums. Raises InputError for a
    damaged record, before anything is written."""
    cohort = in_one_folder(cohort)
    with new_folder(target) as folder:
        check_sums(cohort.paths)
        for index in range(len(cohort.rows)):
            cohort.read(index)
        FORMS[form](cohort, folder)
        carry_tables(cohort, folder)
        if form == "hdf5":
            entries = hdf5_store(folder / HDF5_NAME)[0]
            write_seal(folder, entries, cohort.rows, cohort.metadata, cohort.origins())
        else:
            write_tables(folder, cohort.rows, replace(cohort.metadata, grid=cohort.grid.shape), cohort.origins())
        open_cohort(folder)  # nothing is called done that cannot be read


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
        raise InputError(f"{cohort.path} has {len(found)} records of {name}{several}; name one subject or file.")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is no folder; make it or name another one.")
    _, _, volume = cohort.read(found[0])
    with locked(target):
        check_new(target)
        nifti.save(nifti.mni_image(volume[..., place], cohort.grid), target)
