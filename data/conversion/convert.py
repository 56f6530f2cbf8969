"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects."""

import hashlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import cpu_count

from data import grids
from data.base import files
from data.base.errors import InputError
from data.base.progress import progress
from data.base.signals import ignore_interrupts
from data.cohorts import phenotype, records, side_tables
from data.cohorts.cohort import COVARIATES, MAPS, PHENOTYPE, Cohort, write_tables
from data.cohorts.nifti import load_map
from data.cohorts.rows import METADATA, Metadata, Row, assign_splits
from data.conversion import measures
from data.conversion.layouts import DEFAULT_MAPS, Source, is_abide
from data.conversion.leaks import check_coding, check_measures, check_names, check_values
from data.conversion.tables import column

REDUCTIONS = ("none", "block mean")  # by grid, of volumes that are made of maps without a network
INTERVAL_S = 0.2  # between looks at whether Ctrl-C was pressed


def convert_maps(paths: Sequence[Path], header: tuple[float, np.ndarray], target: Path, grid: grids.Grid) -> None:
    """Writes one record unless it is there: `header` is its label and scaled phenotype (29,), each map is z-scored and
    reduced by itself."""
    if target.exists() and target.stat().st_size == records.record_bytes(grid, len(paths)):
        return
    volumes = [records.normalise(load_map(path)) for path in paths]
    if grid != grids.FULL:
        volumes = [records.block_mean(volume) for volume in volumes]
    with files.replacing(target, "wb") as file:
        file.write(records.pack(*header, *volumes))


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


@dataclass(frozen=True)
class Plan:
    """A cohort to be written: its table, a row a subject; what is known of these subjects, in the same order.

    `phenotype` (subjects, 29) is raw, NaN where unknown, `scaled` what records hold; `covariates` is text by subject.
    """

    rows: list[Row]
    metadata: Metadata
    phenotype: pd.DataFrame
    scaled: np.ndarray
    covariates: pd.DataFrame

    def write_tables(self, target: Path) -> None:
        """Writes the cohort's tables, `subjects.csv` last, which says that the cohort is complete."""
        subjects = [row.subject for row in self.rows]
        side_tables.write(target / PHENOTYPE, self.phenotype.astype(float).set_axis(subjects))
        if not self.covariates.columns.empty:
            side_tables.write(target / COVARIATES, self.covariates)
        write_tables(target, self.rows, self.metadata)


def planned_rows(subjects: pd.DataFrame, split: Mapping[str, str]) -> list[Row]:
    return [
        Row(f"{row.subject}.bin", row.subject, row.site, row.label, split[row.subject]) for row in subjects.itertuples()
    ]


def plan(
    subjects: pd.DataFrame,
    table: pd.DataFrame,
    columns: Sequence[str] | None,
    covariates: Sequence[str],
    grid: grids.Grid,
    seed: int,
    provenance: dict,
    allow_leak: bool = False,
    maps: Sequence[str] = DEFAULT_MAPS,
) -> Plan:
    """A new cohort. `subjects` has the columns subject, site and label; `table` has the same rows, as text.

    `columns` of the table are the phenotype, ABIDE's own if None. Raises InputError for a leak.
    """
    split = assign_splits(subjects["subject"].tolist(), subjects["site"].tolist(), subjects["label"].tolist(), seed)
    rows = planned_rows(subjects, split)
    training = np.array([row.split == "train" for row in rows])
    values = phenotype.encode(table, columns, training)
    side_tables.check_columns([*values, *covariates])
    separations = check_values(values[training], subjects["label"].to_numpy()[training], allow_leak)
    scaler = phenotype.fit_scaler(values.to_numpy(float)[training])
    metadata = Metadata(
        maps=tuple(maps),
        normalisation="z-scored over the whole volume",
        reduction="none" if grid == grids.FULL else "block mean",
        phenotype=tuple(values.columns),
        phenotype_auc=separations,
        phenotype_columns=tuple(phenotype.ABIDE_COLUMNS if columns is None else columns),
        phenotype_categories=phenotype.categories(table, columns or (), training),
        covariate_columns=tuple(covariates),
        grid=grid.shape,
        affine=tuple(map(tuple, grid.affine)),
        provenance=provenance | {"seed": seed},
        **scaler.constants(),
    )
    scaled = scaler.transform(values.to_numpy(float)).astype(np.float32)
    return Plan(rows, metadata, values, scaled, side_tables.covariates_of(table, covariates, subjects["subject"]))


def plan_like(like: Cohort, source: Source, provenance: dict) -> Plan:
    """The test subjects of a new cohort whose phenotype is imputed and scaled as that of `like` was."""
    metadata, subjects = like.metadata, source.subjects["subject"].tolist()
    values = encode_like(source.rows, metadata)
    scaler = phenotype.Scaler(
        *map(np.array, (metadata.phenotype_median, metadata.phenotype_mean, metadata.phenotype_scale))
    )
    return Plan(
        planned_rows(source.subjects, dict.fromkeys(subjects, "test")),
        replace(metadata, grid=like.grid.shape, phenotype_auc={}, provenance=provenance | {"like": like.digest}),
        values,
        scaler.transform(values.to_numpy(float)).astype(np.float32),
        side_tables.covariates_of(source.rows, metadata.covariate_columns, subjects),
    )


class Interruption:
    """Ctrl-C that is remembered: raised amid the pool's locks, it would leave them held, and the pool waiting."""

    def __init__(self):
        self.asked = False

    def ask(self, *_) -> None:
        self.asked = True

    def heed(self) -> None:
        """Raises KeyboardInterrupt where it does no harm, if it was asked for; Ctrl-C is heard no more."""
        if self.asked:
            ignore_interrupts()
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
        if interruption.asked:
            ignore_interrupts()
        else:
            signal.signal(signal.SIGINT, heard)
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
    source: Source,
    target: Path,
    grid: grids.Grid,
    seed: int,
    columns: Sequence[str] | None,
    covariates: Sequence[str] | None,
    allow_leak: bool,
    command: str,
) -> tuple[list[Row], Metadata, list[str]]:
    """Writes the cohort `target`, using every core; an interrupted run is completed by repeating it.

    `columns` of the table are the phenotype, ABIDE's own if None, and `covariates` are kept beside, and the column of
    sites. Returns the table of records, the metadata and what is to be said of the maps. Raises InputError if another
    process writes `target`.
    """
    provenance = provenance_of(source, command)
    label = source.subjects["label"].to_numpy()
    check_coding(source.rows, label, source.label_column)
    kept = covariate_columns(source, columns, covariates)
    if not allow_leak:
        check_names(columns or (), source.label_column)
        check_names(covariates or (), source.label_column, "--covariates")
    planned = plan(
        source.subjects, source.rows, columns, kept, grid, seed, provenance, allow_leak, source.maps.columns.tolist()
    )
    return planned.rows, planned.metadata, write(source, target, planned, grid, allow_leak)


def convert_like(source: Source, target: Path, like: Cohort, command: str) -> tuple[list[Row], Metadata, list[str]]:
    """Writes the cohort `target` of test subjects, prepared as `like` was: nothing is learnt from `source`.

    Raises InputError, besides what `convert` does, if that cannot be done, or for training subjects of `like`.
    """
    provenance = provenance_of(source, command)
    check_like(source, like)
    labelled = source.subjects["label"].notna().to_numpy()
    check_coding(source.rows[labelled], source.subjects["label"].to_numpy()[labelled], source.label_column)
    planned = plan_like(like, source, provenance)
    measured = measures.read(like.tables, [row.subject for row in like.rows], like.maps) if like.tables else None
    notes = write(source, target, planned, like.grid, like_maps=measured)
    if measured is None:
        notes.append(f"{like.path} has no {MAPS}, so whether its maps were of the same kind could not be checked.")
    if absent := [name for name in like.metadata.covariate_columns if name not in source.rows]:
        notes.append(f"Covariates that {source.table} lacks are empty: {', '.join(absent)}.")
    return planned.rows, planned.metadata, notes


def provenance_of(source: Source, command: str) -> dict:
    """Raises InputError if there is nobody to convert."""
    if source.subjects.empty:
        raise InputError(f"{source.table} and the maps have no subject in common; expected IDs that match.")
    digest = digest_of_files([source.table, *source.maps.to_numpy().ravel()])
    return {"command": command, "input_sha256": digest, "left_out": source.left_out}


def covariate_columns(source: Source, columns: Sequence[str] | None, asked: Sequence[str] | None) -> list[str]:
    """The column of sites and those that are asked for, or ABIDE's where the table or its phenotype is ABIDE's."""
    if asked is None:
        known = side_tables.ABIDE_COVARIATES if columns is None or is_abide(source.rows) else ()
        asked = [name for name in known if name in source.rows]
    for name in asked:
        column(source.rows, name, source.table)
    return list(dict.fromkeys([*([source.site_column] if source.site_column else []), *asked]))


def check_like(source: Source, like: Cohort) -> None:
    """Raises InputError unless new maps and a table can be prepared as `like` was, and none is of its training."""
    metadata = like.metadata
    if metadata.reduction.startswith("encoder"):
        raise InputError(
            f"{like.path} holds volumes of an encoder; convert --like the full-size cohort that it was made from, then "
            "reduce the result: run.py --model cae --dataDir OUT with the encoder's --chkPointDir."
        )
    if metadata.reduction not in REDUCTIONS:
        raise InputError(
            f"{like.path} does not say that it was made of maps (reduction {metadata.reduction!r}); expected a cohort "
            "that python -m data convert made. Convert it again."
        )
    if len(source.maps.columns) != like.num_maps:
        raise InputError(
            f"{like.path} holds {like.num_maps} maps a record, asked for are {', '.join(source.maps.columns)}; "
            "name as many, in its order, with --maps."
        )
    constants = (metadata.phenotype_median, metadata.phenotype_mean, metadata.phenotype_scale)
    columns = metadata.phenotype_columns or phenotype.ABIDE_COLUMNS
    nobody = pd.DataFrame(columns=list(columns), dtype=str)
    named = tuple(encode_like(nobody, metadata)) == metadata.phenotype
    if not named or any(len(values) != records.PHENOTYPE_SIZE for values in constants):
        raise InputError(
            f"{like.path} does not say of which columns its phenotype was made, or by what it was scaled, as older "
            "cohorts do not; convert it again."
        )
    if missing := [name for name in columns if name not in source.rows]:
        raise InputError(
            f"{source.table} lacks {', '.join(missing)}, which the phenotype of {like.path} is made of; add them, "
            "empty where unknown."
        )
    if seen := sorted(set(like.subjects("train")) & set(source.subjects["subject"])):
        raise InputError(
            f"{len(seen)} subjects of {source.table} are training subjects of {like.path}, {seen[0]} among them; "
            "expected new people. Leave them out."
        )


def encode_like(table: pd.DataFrame, metadata: Metadata) -> pd.DataFrame:
    """The raw phenotype (subjects, 29) of a table by what is remembered of another one."""
    if metadata.phenotype == phenotype.abide_names():
        return phenotype.abide_values(table)
    columns, names = metadata.phenotype_columns, metadata.phenotype
    missing = [name for name in columns if f"{name}_missing" in names]
    return phenotype.coded_values(table, columns, metadata.phenotype_categories, missing)


def write(
    source: Source,
    target: Path,
    planned: Plan,
    grid: grids.Grid,
    allow_leak: bool = False,
    like_maps: Mapping[str, pd.DataFrame] | None = None,
) -> list[str]:
    """Writes the cohort that was planned; returns what is to be said of the maps (see `check_maps`)."""
    subjects, maps, rows = source.subjects, source.maps, planned.rows
    with files.locked(target), workers() as processes:
        check_target(target, planned.metadata)
        found = processes.run("Measuring", measures.of_map, [(path,) for path in maps.to_numpy().T.ravel()])
        measured = {
            name: pd.DataFrame(found[at * len(maps) : (at + 1) * len(maps)]) for at, name in enumerate(maps.columns)
        }
        training, notes = [row.split == "train" for row in rows], []
        for name, of_map in measured.items():
            with naming(name, several=len(measured) > 1) as told:
                like = like_maps[name] if like_maps else None
                told += check_maps(of_map, maps[name], subjects, training, allow_leak, like)
            notes += told
        start(target, planned.metadata)
        jobs = [
            (paths, (row.label, scaled), target / row.file, grid)
            for row, paths, scaled in zip(rows, maps.to_numpy().tolist(), planned.scaled, strict=True)
        ]
        processes.run("Converting", convert_maps, jobs)
        measures.write(target / MAPS, subjects["subject"], measured)
        planned.write_tables(target)
    return notes


@contextmanager
def naming(name: str, several: bool) -> Iterator[list[str]]:
    """Puts the map's name, of `several`, before what is said of it: an InputError, and the notes that are added."""
    notes: list[str] = []
    prefix = f"{name}: " if several else ""
    try:
        yield notes
    except InputError as error:
        raise InputError(f"{prefix}{error}") from error
    notes[:] = [f"{prefix}{note}" for note in notes]


def check_maps(
    measured: pd.DataFrame,
    paths: pd.Series,
    subjects: pd.DataFrame,
    training: Sequence[bool],
    allow_leak: bool,
    like_maps: pd.DataFrame | None,
) -> list[str]:
    """What a researcher should know of one map of all subjects. Raises InputError if it is of several kinds, or tells
    the label.

    If measures of another cohort's maps are given, the kind must be theirs.
    """
    names = [path.name for path in paths]
    kinds = measures.kinds(pd.concat([like_maps, measured], ignore_index=True))
    found = kinds.iloc[-len(measured) :].set_axis(measured.index)
    if mixed := measures.mixture(found, names):
        raise InputError(
            f"The maps are of several kinds: {mixed}; expected one kind. Convert those of one kind: choose with --only "
            "or --mapColumn."
        )
    if found.iloc[0] != (wanted := kinds.iloc[0]):
        raise InputError(
            f"The maps are {found.iloc[0]}, such as {names[0]}, those of the cohort that --like names {wanted}; "
            "expected one kind. Choose the same maps with --only or --mapColumn."
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
