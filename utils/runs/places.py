"""Results, checkpoints and cohorts lie in folders of their own: compared before anything is read.

| may be written | in results | in checkpoints | in a cohort |
| --- | --- | --- | --- |
| results, or a reduced cohort | yes | no | no |
| checkpoints | no | no | no |

Nor does the cohort that is read lie in what is written. Folders are compared as they are on disk, through links and
mounts. Those that the command does not name are known by the files in them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from data.base.errors import InputError
from data.cohorts.rows import holds_cohort
from models import MODELS
from utils.runs.checkpoints import IDENTITY, STATE
from utils.runs.results import read_manifest

RESULTS, CHECKPOINTS, COHORT = "a folder of results", "a folder of checkpoints", "a cohort"
ALLOWED = ((RESULTS, RESULTS),)  # what is written, and in what
PATTERN = "*?[\\"  # what a folder may not hold in its name: TensorFlow would delete what the pattern matches


@dataclass(frozen=True)
class Places:
    """The folders that a command names: of results, of the checkpoints of all models, of its cohort; `written` are the
    checkpoints that it writes, if it does."""

    out_dir: Path
    checkpoints: Path
    data: Path | None
    written: Path | None

    def check(self) -> None:
        """Raises InputError for a folder that lies where it must not."""
        if is_same(self.out_dir, self.checkpoints):
            raise InputError(f"--outDir and --chkPointDir are the same folder, {self.out_dir}; name two.")
        data = {self.data: COHORT} if self.data and self.data.is_dir() else {}
        of_models = (self.checkpoints / f"{name}{ending}" for name in MODELS for ending in ("", ".replaced"))
        refuse("--outDir", self.out_dir, RESULTS, data | dict.fromkeys(of_models, CHECKPOINTS))
        if self.written:
            refuse("--chkPointDir", self.written, CHECKPOINTS, data | {self.out_dir: RESULTS})
        for folder in data:
            written = {self.out_dir: RESULTS} | ({self.written: CHECKPOINTS} if self.written else {})
            refuse("--dataDir", folder, COHORT, written, on_disk=False)


def refuse(flag: str, folder: Path, kind: str, named: dict[Path, str], on_disk: bool = True) -> None:
    """Raises InputError if a folder of this kind is, or lies in, one of `named` where it is not allowed, or lies in
    another one that is there; what it holds itself is looked at where it is claimed."""
    place = Path(os.path.realpath(folder))
    for outer in (place, *place.parents):
        found = next((what for path, what in named.items() if is_same(path, outer)), None)
        found = found or (kind_of(outer) if on_disk and outer != place else None)
        if found and (kind, found) not in ALLOWED:
            where = f"is {found}" if outer == place else f"lies in {outer}, {found}"
            raise InputError(f"{flag} {folder} {where}; keep results, checkpoints and cohorts in folders of their own.")


def kind_of(folder: Path) -> str | None:
    """What a folder that is there holds, by the files that mark it."""
    if holds_cohort(folder):
        return COHORT
    if all(os.path.isfile(folder / name) for name in (STATE, IDENTITY)):
        return CHECKPOINTS
    return RESULTS if read_manifest(folder) else None


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths, which need not exist, are of one folder."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def check_pattern(folder: Path) -> None:
    """Raises InputError if TensorFlow would read the path of a folder as a pattern of others."""
    if odd := sorted(set(str(folder)) & set(PATTERN)):
        raise InputError(
            f"--chkPointDir {folder} holds {' '.join(odd)}, which TensorFlow reads as a pattern of other "
            f"folders; name a folder without {' '.join(PATTERN)}."
        )
