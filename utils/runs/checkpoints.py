"""Checkpoints on disk: `<chkPointDir>/<model>` with TensorFlow's files and the `run.json` of the run that trains them.

A run that overrides a checkpoint first renames its folder to `<model>.replaced`. That is removed once the new run has
saved; if it never does, the old one is used as before. If the digest of a checkpoint does not match, the one before is
used and a warning is printed. Other files stay where they are: `folds-<how>/<K>` and `everybody`, checkpoints of other
trainings, and the user's.
"""

import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.rows import SITE_UNKNOWN, Preparation
from data.cohorts.stored import sealed
from utils.runs.cross_validation import CrossValidation

STATE = "checkpoint"  # TensorFlow's own file, replaced only after a checkpoint is whole
IDENTITY = "run.json"  # of checkpoints, not that of results
EVERYBODY = "everybody"  # the folder of a model that is trained on everybody
OF_FOLDS = "folds-"  # begins the name of a folder of other checkpoints, one a fold
FILES = re.compile(r"ckpt-(\d{1,18})(\.index|\.data-\d{5}-of-\d{5}|_temp)")  # as TensorFlow names them


@dataclass(frozen=True)
class Saved:
    """A checkpoint's files: after how many batches they were written, and their digest then."""

    step: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What decides the result of a run on given data, as `run.json` holds it for results and for checkpoints."""

    model: str
    preset: str
    config: dict[str, Any]  # hyper-parameters
    grid: str | None  # None if the model reads no volumes
    seed: int
    precision: str


@dataclass(frozen=True, kw_only=True)
class Caveats:
    """What must stand beside every result: simulated people, problems of the cohort, accepted leaks.
    `problems` invalidate results (`Cohort.problems`), `accepted_leaks` are those of --allowLeak; `transductive`: the
    people of a site, tested ones too, standardised its volumes."""

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
            SITE_UNKNOWN: self.unknown_site,
        }
        found = [text for text, holds in marks.items() if holds]
        return f" ({', '.join(found)})" if found else ""

    @property
    def held(self) -> dict[str, Any]:
        """Those that hold, for JSON, without what the cohort's metadata say themselves."""
        names = ("problems", "transductive", "unknown_site")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, kw_only=True)
class Identity(Choices):
    """The `run.json` of a checkpoint."""

    cohort: str
    cohort_sha256: str
    out_dir: str
    training_subjects: tuple[str, ...]
    encoder_subjects: tuple[str, ...]
    training_volumes: tuple[str, ...]  # the scans of these subjects, see `Cohort.scans`
    encoder_volumes: tuple[str, ...]
    preparation: Preparation
    num_maps: int  # in a record
    everybody: bool  # whether it was trained on everybody, whatever the split
    internal: CrossValidation | None  # a test on folds that goes with it
    step: int = 0  # batches seen
    shares: dict[str, float] = field(default_factory=dict)  # what each part counts, see `utils/training/shares.py`
    saved: dict[str, Saved] = field(default_factory=dict)  # by the name of the files
    folder: str = ""  # that this was written to

    def written_to(self, folder: Path) -> "Identity":
        """With paths that do not depend on the working folder, as the `run.json` in a folder holds them."""
        return dataclasses.replace(self.with_paths(os.path.abspath), folder=os.path.abspath(folder))

    def read_from(self, folder: Path) -> "Identity":
        """With paths as they are now. If the folder was moved or copied, what lies from it as before is meant, or else
        what lies where it lay; the results of a copy are never those of the original."""
        if is_same(Path(self.folder), folder):
            return self

        def from_here(path: str) -> str:
            return os.path.abspath(folder / os.path.relpath(path, self.folder))

        found = self.with_paths(lambda path: there if os.path.exists(there := from_here(path)) else path)
        is_copy = os.path.isdir(self.folder)
        return dataclasses.replace(found, out_dir=from_here(self.out_dir)) if is_copy else found

    def with_paths(self, of: Callable[[str], str]) -> "Identity":
        """With its paths as a function says."""
        internal = self.internal and dataclasses.replace(self.internal, folder=of(self.internal.folder))
        return dataclasses.replace(self, cohort=of(self.cohort), out_dir=of(self.out_dir), internal=internal)


def mean_shares(folders: Iterable["CheckpointFolder"]) -> dict[str, float]:
    """What each part of the networks counts, the mean over their checkpoints, see `mean_of_shares`."""
    return mean_of_shares([folder.identity().shares for folder in folders])


def mean_of_shares(every: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean share of each part. Nothing if shares were not learned, or if the parts of networks differ."""
    alike = len({tuple(shares) for shares in every}) == 1
    return {name: sum(shares[name] for shares in every) / len(every) for name in every[0]} if alike else {}


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths, which need not exist, are of one folder."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def training_cohort(saved: Identity) -> Cohort | None:
    """The cohort that a checkpoint was trained on; None if it is gone or not as it was."""
    try:
        cohort = sealed(Path(saved.cohort), together=False)
        if saved.everybody:
            from data.cohorts.variants import everybody

            cohort = everybody(cohort)
    except InputError:
        return None
    return cohort if cohort.identity == saved.cohort_sha256 else None


@dataclass(frozen=True)
class CheckpointFolder:
    """The folder of one model's checkpoints, which need not exist; `training` is the command that makes them."""

    path: Path
    training: str = "run.py --train"

    @property
    def replaced(self) -> Path:
        return self.path.with_name(self.path.name + ".replaced")

    @property
    def current(self) -> Path | None:
        """The folder whose checkpoint is to be used; None if there is none."""
        return next((folder for folder in (self.path, self.replaced) if latest_in(folder)), None)

    def tell_of_training(self) -> None:
        """Prints it if a training still runs, whose later checkpoints are not used."""
        if writer := files.writer_of(self.path):
            print(f"{self.path} is still being trained, by {writer}; used as it was last saved.", flush=True)

    def latest(self) -> Path:
        """The prefix of the latest checkpoint whose files are whole. Raises InputError if there is none."""
        if whole := self.whole:
            return whole
        if self.current is None:
            raise InputError(f"{self.path} holds no checkpoint; make one: {self.training}")
        raise InputError(
            f"{latest_in(self.current)} is not there or not as it was saved, nor is one before it; copy the whole "
            f"folder again, or train again: {self.training} --overrideChkpt"
        )

    @property
    def whole(self) -> Path | None:
        """The prefix of the latest checkpoint whose digest matches, if it is known; None if there is none."""
        if (folder := self.current) is None:
            return None
        saved: dict[str, Saved] = {}
        with suppress(InputError):  # reported where it is needed
            saved = files.read_json(folder / IDENTITY, Identity).saved
        for prefix in prefixes_in(folder):
            there = os.path.isfile(f"{prefix}.index") and any(folder.glob(f"{prefix.name}.data-*"))
            if digest_of(prefix) == saved[prefix.name].sha256 if prefix.name in saved else there:
                return prefix
        return None

    @property
    def damaged(self) -> list[str]:
        """The names of damaged checkpoints later than the latest whole one, or of the state file."""
        latest = self.latest()
        prefixes = prefixes_in(latest.parent)
        names = [prefix.name for prefix in takewhile(lambda prefix: prefix != latest, prefixes)]
        return names if latest_in(latest.parent) in prefixes else [STATE, *names]

    def identity(self) -> Identity:
        """The identity of the latest whole checkpoint. Raises InputError if there is none or it is damaged."""
        latest = self.latest()
        path = latest.parent / IDENTITY
        again = f"train again: {self.training} --overrideChkpt"
        files.check_format(path, files.read_json(path, dict).get("format"), again)
        identity = files.read_json(path, Identity)
        identity = dataclasses.replace(identity, step=identity.saved.get(latest.name, identity).step)
        try:
            return identity.read_from(latest.parent)
        except ValueError as error:  # of what can be no path
            raise InputError(f"{path} is damaged ({error}). Copy it again.") from error

    def digest(self) -> str:
        """SHA-256 of the latest checkpoint's files. Raises InputError if there are none."""
        return digest_of(self.latest())

    def prepare(self, override: bool) -> bool:
        """Restores a checkpoint whose replacement was never saved, and returns whether there was one; then, to
        override, renames the present one. Removes the files of a checkpoint that a killed run could not complete."""
        if restored := latest_in(self.replaced) is not None and latest_in(self.path) is None:
            remove_own(self.path, self.replaced)
            self.replaced.rename(self.path)
        if override and latest_in(self.path):
            remove_own(self.replaced, self.path)
            self.path.rename(self.replaced)
            move_others(self.replaced, self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.remove_incomplete()
        return restored

    def remove_incomplete(self) -> None:
        """Removes files later than the latest checkpoint, and a state file that names none."""
        latest = FILES.fullmatch(f"{self.latest().name}.index") if latest_in(self.path) else None
        if latest_in(self.path) not in (None, *prefixes_in(self.path)):
            (self.path / STATE).unlink()
        for path in self.path.iterdir():
            found = FILES.fullmatch(path.name)
            if found and int(found[1]) > (int(latest[1]) if latest else 0):
                files.remove(path)


def prefixes_in(folder: Path) -> list[Path]:
    """The prefixes of the checkpoints in a folder, the latest first."""
    latest = latest_in(folder)
    found = [FILES.fullmatch(path.name) for path in folder.glob("ckpt-*.index")]
    numbers = sorted((int(match[1]) for match in found if match), reverse=True)
    named = FILES.fullmatch(f"{latest.name}.index") if latest else None
    before = [folder / f"ckpt-{number}" for number in numbers if not named or number < int(named[1])]
    return [*([latest] if latest and named else []), *before]


def digest_of(prefix: Path) -> str:
    """SHA-256 of a checkpoint's files."""
    paths = sorted(prefix.parent.glob(prefix.name + ".*"))
    return digest_of_files(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@cache
def digest_of_files(stamped: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 of files given by path, size and time; computed once, though a run asks several times."""
    digest = hashlib.sha256()
    for path, _, _ in stamped:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def latest_in(folder: Path) -> Path | None:
    """The prefix that TensorFlow's state file names; without that file, the latest whose digest is recorded, for the
    first one may not have been completed; None if there is none."""
    state = folder / STATE
    if state.is_file():
        match = re.search(rb'^model_checkpoint_path: "(.*)"', state.read_bytes(), re.MULTILINE)
        return folder / (os.path.basename(os.fsdecode(match[1])) if match else "unnamed")
    numbers = [int(found[1]) for path in folder.glob("ckpt-*.index") if (found := FILES.fullmatch(path.name))]
    if numbers:
        with suppress(InputError):  # reported where it is needed
            saved = files.read_json(folder / IDENTITY, Identity).saved
            numbers = [number for number in numbers if f"ckpt-{number}" in saved]
    return folder / f"ckpt-{max(numbers)}" if numbers else None


def move_others(source: Path, target: Path) -> None:
    """Moves the files that are no part of a checkpoint, and so are not replaced with it."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name not in (STATE, IDENTITY) and not FILES.fullmatch(path.name):
            place = target / path.name
            while os.path.lexists(place):
                place = place.with_name(place.name + "+")
            path.rename(place)


def remove_own(folder: Path, other: Path) -> None:
    """Removes a checkpoint with its folder, if it is there; other files in it are moved to `other`."""
    if folder.exists():
        move_others(folder, other)
        shutil.rmtree(folder, ignore_errors=True)
