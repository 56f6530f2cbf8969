"""What a run leaves of itself: its `Record`, as `run.json` in the folder of its results and beside each checkpoint; and
the one question that a later run asks of it: is this done?"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.cohorts.rows import SITE_UNKNOWN_MARK, Preparation, join_names
from utils.runs.cross_validation import CrossValidation

RECORD = "run.json"
EARLIER = "earlier"  # the folder in results that holds those before, by the time when they were written
TESTED = "checkpoint_results.csv"
KEPT = (EARLIER, TESTED, files.LEDGER)  # what grows from run to run
PART = re.compile(r"(fold|repeat)-.*")  # folders of parts of a run
READ_AGAIN = (".csv", ".json")  # what later runs read: known by digest, other files by size


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What decides the result of a network on given data."""

    model: str
    preset: str
    config: dict[str, Any]  # hyper-parameters
    grid: str | None  # None if the model reads no volumes
    seed: int
    precision: str


@dataclass(frozen=True, kw_only=True)
class Caveats:
    """What must stand beside every result: simulated people, problems of the cohort, accepted leaks.
    `problems` invalidate results (`Cohort.find_problems`), `accepted_leaks` are those of --allowLeak; `transductive`:
    the people of a site, tested ones too, standardised its volumes."""

    simulated: bool = False
    problems: tuple[str, ...] = ()
    accepted_leaks: tuple[str, ...] = ()
    transductive: bool = False
    unknown_site: bool = False  # of everybody

    @property
    def marks(self) -> str:
        """` (SIMULATED, PROBLEMS: 2)` for titles and terminals, or nothing."""
        marks = {
            "SIMULATED": self.simulated,
            f"PROBLEMS: {len(self.problems)}": self.problems,
            "LEAK ACCEPTED": self.accepted_leaks,
            "TRANSDUCTIVE": self.transductive,
            SITE_UNKNOWN_MARK: self.unknown_site,
        }
        found = [text for text, holds in marks.items() if holds]
        return f" ({', '.join(found)})" if found else ""

    @property
    def held(self) -> dict[str, Any]:
        """Those that hold, for JSON, without what the cohort's metadata say themselves."""
        names = ("problems", "transductive", "unknown_site")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, kw_only=True)
class People:
    """Who trained a network, and the encoder of its volumes: IDs, and the scans of these, see
    `Cohort.scans_by_subject`."""

    subjects: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    encoder_subjects: tuple[str, ...] = ()
    encoder_scans: tuple[str, ...] = ()
    scans_sha256: str = ""  # of all people of a bundle's cohort, who are not named; see `Cohort.scans_sha256`


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that is known on disk of a run. Two runs of one `key` have the same results, if they use the same `weights`
    (SHA-256: of the checkpoint that was used or trained, of several by part) and have seen as many batches (`step`)."""

    job: str
    key: str = ""
    finished: bool = False
    format: int = files.FORMAT_VERSION
    begun: str = ""  # of a training: tells those from zero apart
    settings: Choices | None = None
    candidates: tuple[str, ...] = ()  # among which inner folds chose the settings
    options: dict[str, Any] = field(default_factory=dict)  # of the job, those that decide the results
    folds: str | None = None
    fold: str | None = None
    repeat: int = 0
    repeats: int = 1
    everybody: bool = False
    step: int = 0
    cohort: str = ""
    cohort_sha256: str = ""
    maps: tuple[str, ...] = ()
    num_maps: int = 0
    preparation: Preparation | None = None
    checkpoint_folder: str = ""
    weights: str | dict[str, str] | None = None
    shares: dict[str, float] = field(default_factory=dict)  # what each part counts, see `utils/training/shares.py`
    cross_validation: CrossValidation | None = None  # a test on folds that goes with a model of everybody
    caveats: Caveats = field(default_factory=Caveats)
    people: People | None = None  # of a checkpoint
    versions: dict[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    started: str = ""
    wall_time_s: float | None = None
    outputs: dict[str, str] = field(default_factory=dict)  # by path below the folder, see `mark`
    headline: tuple[str, float | None, float | None, float | None] | None = None  # metric, value, low, high
    told: dict[str, Any] = field(default_factory=dict)  # what the job says of its results

    @property
    def model(self) -> str:
        return self.settings.model if self.settings else ""

    @property
    def flat(self) -> dict[str, Any]:
        """The record without groups."""
        groups = ("settings", "caveats", "versions", "told")
        content = asdict(self)
        return {name: value for name, value in content.items() if name not in groups} | {
            name: value for group in groups for name, value in (content[group] or {}).items()
        }


def key_of(*parts: object) -> str:
    """SHA-256 of what decides results."""
    return hashlib.sha256(files.format_json([files.FORMAT_VERSION, *parts]).encode()).hexdigest()


def read(path: Path) -> Record | None:
    """The record in a folder of results, or in a file; None if there is none. Raises InputError for a damaged one, and
    for another format."""
    path = path / RECORD if path.is_dir() else path
    if not path.is_file():
        return None
    otherwise = f"move {path.parent if path.parent.name else path.parent.absolute()} away and repeat the run"
    try:
        files.check_format(path, files.read_json(path, dict).get("format"), otherwise)
        return files.read_json(path, Record)
    except InputError as error:
        raise InputError(f"{error} Or {otherwise}." if otherwise not in str(error) else str(error)) from error


def write(path: Path, record: Record) -> None:
    files.write_json(path, asdict(record))


def is_done(folder: Path, key: str, weights: str | Mapping[str, str] | None, step: int) -> bool:
    """Whether a folder holds the finished results of a run with this key, by these weights, of so many batches at
    least, as they were written."""
    found = read(folder / RECORD)
    if found is None or not found.finished or (found.key, found.weights) != (key, weights):
        return False
    return found.step >= step and not changed(folder, found)


def changed(folder: Path, record: Record) -> list[str]:
    """The outputs of a finished run that are gone, or not as it wrote them."""
    return [name for name, was in record.outputs.items() if mark(folder / name) != was]


def check_finished(folder: Path, expected: str) -> Record:
    """The record of the finished run in a folder. Raises InputError that says what is `expected`: unless the run is
    finished, and its outputs are as it wrote them."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; {expected}.")
    found = read(folder)
    if found is None or not found.finished:
        state = "is not finished" if folder.is_dir() else "is not there"
        raise InputError(f"{folder}: the run {state}; {expected}. Repeat its command.")
    if damaged := changed(folder, found):
        raise InputError(f"{folder}: {damaged[0]} is not as it was written; {expected}. Repeat the run.")
    return found


def outputs_of(folder: Path) -> dict[str, str]:
    """What a run wrote into its folder, which held nothing before; without the folders of parts."""
    found = [path for path in own_in(folder) if path.name != RECORD and not PART.match(path.name)]
    inside = [path for top in found if top.is_dir() for path in sorted(top.rglob("*"))]
    return {str(path.relative_to(folder)): mark(path) or "" for path in [*found, *inside] if path.is_file()}


def own_in(folder: Path) -> list[Path]:
    """All in a folder that is of its run: not what grows from run to run, locks, and folders of other runs."""
    shown = [path for path in sorted(folder.glob("[!.]*")) if path.name not in KEPT]
    return [path for path in shown if PART.match(path.name) or not (path / RECORD).is_file()]


def mark(path: Path) -> str | None:
    """By what a file is known again: SHA-256 if it is read again, else the size; None if it is not there."""
    if not path.is_file():
        return None
    return sha256(path) if path.suffix in READ_AGAIN else f"{path.stat().st_size} bytes"


def sha256(*paths: Path) -> str:
    """SHA-256 of files, one after another."""
    return sha256_of(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@cache
def sha256_of(stamped: tuple[tuple[Path, int, int], ...]) -> str:
    """`sha256` of files given by path, size and time; computed once, though a run asks several times."""
    digest = hashlib.sha256()
    for path, _, _ in stamped:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are read again."""
    return json.loads(json.dumps(settings))


def claim(folder: Path, record: Record) -> None:
    """Makes a folder for a run. What another one left there is moved aside, and named, so are finished results; what
    the same one began stays: a training of the same start, another job by the same weights. Raises InputError, see
    `check_free`."""
    found = check_free(folder, record.job, record.model)
    if found and found.fold and not record.fold:
        raise InputError(f"{folder} holds fold {found.fold} of another run; name another --outDir.")
    if found and not is_begun(found, record):
        if (found.fold, found.repeat) != (record.fold, record.repeat):
            print(f"{folder} held fold {found.fold} of repeat {found.repeat}; were folders exchanged?")
        move_aside(folder, parts=found.key != record.key)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / RECORD, record)


def is_begun(found: Record, wanted: Record) -> bool:
    """Whether a run goes on with what is found. The weights of parts may be trained yet."""
    if wanted.begun:
        return (found.key, found.begun) == (wanted.key, wanted.begun)
    same = found.weights == wanted.weights or isinstance(wanted.weights, dict)
    return found.key == wanted.key and same and not found.finished


def check_free(folder: Path, job: str, model: str) -> Record | None:
    """The record of the run that wrote a folder; None if there is nothing in it. Raises InputError if it is a file, or
    holds anything that no run of this job and model wrote."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder with --outDir.")
    there = [path.name for path in own_in(folder)] if folder.is_dir() else []
    if not there:
        return None
    if (found := read(folder)) is None:
        if all(map(PART.match, there)):  # begun by parts, of which one was killed
            return None
        raise InputError(
            f"{folder} holds {join_names(there, 3)}, and no run.json that says which run wrote that; name another "
            "--outDir."
        )
    if (found.job, found.model) != (job, model):
        raise InputError(
            f"{folder} holds the results of another run ({found.job} of {found.model}), this one is {job} of {model}; "
            "name another --outDir."
        )
    return found


def move_aside(folder: Path, parts: bool) -> None:
    """Moves all that lies in a folder to `earlier/<when>` in it, with its `parts` or without; this is printed. Folders
    of other runs stay."""
    aside = folder / EARLIER / time.strftime("%Y%m%dT%H%M%S", time.localtime((folder / RECORD).stat().st_mtime))
    while aside.exists():
        aside = aside.with_name(aside.name + "+")
    moved = [path for path in own_in(folder) if parts or not PART.match(path.name)]
    with ExitStack() as held:
        for path in moved:
            for part in (path, *path.glob("fold-*")) if PART.match(path.name) else ():
                held.enter_context(files.locked(part))  # raises InputError if another process is at it
        aside.mkdir(parents=True)
        for path in sorted(moved, key=lambda path: path.name == RECORD):  # that last, if a kill comes between
            path.rename(aside / path.name)
    print(f"The earlier results in {folder} are now in {aside}.")


@contextmanager
def rewriting(folder: Path, names: Sequence[str], **told: Any) -> Iterator[None]:
    """Outputs of a finished run are made again in the block, and what it told is amended. Its record does not have them
    meanwhile: a kill leaves the run done."""
    record = read(folder)
    if record is None:
        yield
        return
    record = replace(record, told=record.told | told)
    kept = {name: was for name, was in record.outputs.items() if name not in names}
    write(folder / RECORD, replace(record, outputs=kept))
    yield
    made = {name: of for name in names if (of := mark(folder / name))}
    write(folder / RECORD, replace(record, outputs=kept | made))


def mean_of_shares(every: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean share of each part. Nothing if shares were not learned, or if the parts of networks differ."""
    alike = len({tuple(shares) for shares in every}) == 1
    return {name: sum(shares[name] for shares in every) / len(every) for name in every[0]} if alike else {}
