"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects."""

import hashlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import cpu_count

from data import files, grids, measures, phenotype, records
from data.cohort import METADATA, Metadata, Row, assign_splits, write_tables
from data.errors import InputError
from data.layouts import Source
from data.leaks import check_coding, check_measures, check_names, check_values
from data.nifti import load_map
from data.progress import progress

INTERVAL_S = 0.2  # between looks at whether Ctrl-C was pressed


def convert_map(path: Path, header: tuple[float, np.ndarray], target: Path, grid: grids.Grid) -> None:
    """Writes one record unless it is there; `header` is its label and scaled phenotype (29,)."""
    if target.exists() and target.stat().st_size == records.record_bytes(grid):
        return
    volume = records.normalise(load_map(path))
    volume = volume if grid == grids.FULL else records.block_mean(volume)
    with files.replacing(target, "wb") as file:
        file.write(records.pack(*header, volume))


def digest_of_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def check_target(target: Path, metadata: Metadata) -> None:
    """Raises InputError if the folder holds anything but what an interrupted run of the same conversion left."""
    if (target / METADATA).exists():
        if (target / METADATA).read_bytes() != files.json_text(metadata.json()).encode():
            raise InputError(f"{target} holds a cohort made otherwise; choose another folder or remove it.")
    elif target.exists() and any(path for path in target.iterdir() if not path.name.startswith(".")):
        raise InputError(f"{target} is not empty and holds no cohort; choose another folder.")


def start(target: Path, metadata: Metadata) -> None:
    """Makes the cohort's folder, or takes it up again without what killed processes left."""
    target.mkdir(parents=True, exist_ok=True)
    for leftover in target.glob(".unfinished.*"):
        files.remove(leftover)
    files.write_json(target / METADATA, metadata.json())


def plan(
    subjects: pd.DataFrame,
    encode: Callable[[np.ndarray], pd.DataFrame],
    grid: grids.Grid,
    seed: int,
    provenance: dict,
    allow_leak: bool = False,
) -> tuple[list[Row], np.ndarray, Metadata]:
    """The table of a new cohort, its scaled phenotype (subjects, 29) float32, and its metadata.

    `subjects` has the columns subject, site and label; `encode` takes which of its rows are for training, (subjects,)
    bool, and gives the same rows of the raw phenotype, NaN where unknown. Raises InputError for a leak.
    """
    split = assign_splits(subjects["subject"].tolist(), subjects["site"].tolist(), subjects["label"].tolist(), seed)
    table = [
        Row(f"{row.subject}.bin", row.subject, row.site, row.label, split[row.subject]) for row in subjects.itertuples()
    ]
    training = np.array([row.split == "train" for row in table])
    values = encode(training)
    separations = check_values(values[training], subjects["label"].to_numpy()[training], allow_leak)
    scaler = phenotype.fit_scaler(values.to_numpy(float)[training])
    metadata = Metadata(
        maps=("falff",),
        normalisation="z-scored over the whole volume",
        reduction="none" if grid == grids.FULL else "block mean",
        phenotype=tuple(values.columns),
        phenotype_median=tuple(scaler[0].statistics_.tolist()),
        phenotype_mean=tuple(scaler[1].mean_.tolist()),
        phenotype_scale=tuple(scaler[1].scale_.tolist()),
        phenotype_auc=separations,
        grid=grid.shape,
        affine=tuple(map(tuple, grid.affine)),
        provenance=provenance | {"seed": seed},
    )
    return table, scaler.transform(values.to_numpy(float)).astype(np.float32), metadata


class Interruption:
    """Ctrl-C that is remembered: raised amid the pool's locks, it would leave them held, and the pool waiting."""

    def __init__(self):
        self.asked = False

    def ask(self, *_) -> None:
        self.asked = True

    def heed(self) -> None:
        """Raises KeyboardInterrupt where it does no harm, if it was asked for; Ctrl-C is heard no more."""
        if self.asked:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise KeyboardInterrupt


@contextmanager
def remembered() -> Iterator[Interruption]:
    """Ctrl-C is remembered within the block, and raised after it if it was not heeded before."""
    interruption, heard = Interruption(), signal.getsignal(signal.SIGINT)
    if heard is not signal.SIG_IGN:  # as a background job inherits it
        signal.signal(signal.SIGINT, interruption.ask)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if interruption.asked else heard)
    interruption.heed()


@dataclass(frozen=True)
class Workers:
    """Processes that share out jobs, and the interruption that ends them."""

    pool: Executor
    interruption: Interruption

    def run(self, title: str, function: Callable, arguments: Sequence[tuple]) -> list:
        """The results of `function(*arguments[i])` in order, behind a progress bar."""
        jobs = [self.pool.submit(function, *these) for these in arguments]
        pending = set(jobs)
        with progress(title, len(jobs)) as shown:
            while pending:
                done, pending = wait(pending, INTERVAL_S, FIRST_COMPLETED)
                self.interruption.heed()
                for job in done:
                    job.result()
                    shown.advance()
        return [job.result() for job in jobs]


@contextmanager
def workers() -> Iterator[Workers]:
    """A process for each core. They hear no Ctrl-C, end with this process, and are waited for, whatever happens."""
    with remembered() as interruption:
        pool = ProcessPoolExecutor(cpu_count(), initializer=start_worker)
        try:
            yield Workers(pool, interruption)
        except BrokenProcessPool as error:
            raise InputError(
                "A process of the conversion was killed, perhaps because the memory is full; close other programs and "
                "repeat the command."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def convert(
    source: Source, target: Path, grid: grids.Grid, seed: int, columns: list[str] | None, allow_leak: bool, command: str
) -> tuple[list[Row], Metadata, list[str]]:
    """Writes the cohort `target`, using every core; an interrupted run is completed by repeating it.

    `columns` of the table are the phenotype, ABIDE's own if None. Returns the table of records, the metadata and what
    is to be said of the maps. Raises InputError if another process writes `target`.
    """
    subjects = source.subjects
    if subjects.empty:
        raise InputError(f"{source.table} and the maps have no subject in common; expected IDs that match.")
    provenance = {
        "command": command,
        "input_sha256": digest_of_files([source.table, *subjects["map"]]),
        "left_out": source.left_out,
    }
    check_coding(source.rows, subjects["label"].to_numpy(), source.label_column)
    if columns and not allow_leak:
        check_names(columns, source.label_column)
    encode = partial(phenotype.encode, source.rows, columns)
    table, headers, metadata = plan(subjects, encode, grid, seed, provenance, allow_leak)
    with files.locked(target), workers() as processes:
        check_target(target, metadata)
        measured = pd.DataFrame(processes.run("Measuring", measures.of_map, [(path,) for path in subjects["map"]]))
        notes = check_maps(measured, subjects, [row.split == "train" for row in table], allow_leak)
        start(target, metadata)
        jobs = [
            (path, (row.label, header), target / row.file, grid)
            for row, path, header in zip(table, subjects["map"], headers, strict=True)
        ]
        processes.run("Converting", convert_map, jobs)
        measures.write(target / measures.TABLE, subjects["subject"], measured)
        write_tables(target, table, metadata)
    return table, metadata, notes


def check_maps(measured: pd.DataFrame, subjects: pd.DataFrame, training: Sequence[bool], allow_leak: bool) -> list[str]:
    """What a researcher should know of the maps. Raises InputError if they are of several kinds, or tell the label."""
    names = [path.name for path in subjects["map"]]
    found = measures.kinds(measured)
    if mixed := measures.mixture(found, names):
        raise InputError(
            f"The maps are of several kinds: {mixed}; expected one kind. Convert those of one kind: choose with --only "
            "or --mapColumn."
        )
    leaks = check_measures(measured[list(training)], subjects["label"].to_numpy()[list(training)], allow_leak)
    notes = [f"Maps: {found.iloc[0]}."]
    if leaks:
        notes.append(f"Accepted by --allowLeak: the maps tell the training labels by {', '.join(leaks)}.")
    if (same := measured.duplicated(keep=False)).any():
        alike = [names[at] for at in np.flatnonzero(same)]
        notes.append(
            f"{len(alike)} maps equal another one in all measures; are they of other people? {', '.join(alike[:10])}"
        )
    if telling := measures.by_site(measured, subjects["site"]):
        notes.append(f"The maps' {', '.join(telling)} tell the site; compare subjects within sites.")
    if (far := measures.far(measured)).any():
        shifted = [f"{names[at]} ({measures.where(measured.iloc[at])})" for at in np.flatnonzero(far)]
        notes.append(f"Far from the others, centre at {measures.where(measured.median())}: {', '.join(shifted[:10])}.")
    return notes
