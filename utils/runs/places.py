"""Which folder may lie in which.

| may be written | in results | in checkpoints | in a cohort |
| --- | --- | --- | --- |
| results, or a reduced cohort | yes | no | no |
| checkpoints | no | no | no |

Nor does the cohort that is read lie in what is written. Folders are compared as they are on disk, through links and
mounts. Those that the command does not name are known by the files in them.
"""

import os
from pathlib import Path

from data.base.errors import InputError
from data.cohorts.rows import METADATA, TABLE
from models import MODELS
from utils.runs.checkpoints import STATE, is_same
from utils.runs.record import RECORD

RESULTS, CHECKPOINTS, COHORT = "a folder of results", "a folder of checkpoints", "a cohort"
ALLOWED = ((RESULTS, RESULTS),)  # what is written, and in what
MARKS = {COHORT: (METADATA, TABLE), CHECKPOINTS: (STATE,), RESULTS: (RECORD,)}  # files by which a folder is known
PATTERN = "*?[\\"  # what a folder may not hold in its name: TensorFlow would delete what the pattern matches


def check_places(out_dir: Path, checkpoints: Path, data: Path | None, written: Path | None) -> None:
    """Raises InputError for a folder that lies where it must not: of results, of the checkpoints of all models, of the
    cohort that is named; `written` are the checkpoints that the command writes, if it does."""
    if odd := sorted(set(str(checkpoints)) & set(PATTERN)):
        raise InputError(
            f"--chkPointDir {checkpoints} holds {' '.join(odd)}, which TensorFlow reads as a pattern of other "
            f"folders; name a folder without {' '.join(PATTERN)}."
        )
    if is_same(out_dir, checkpoints):
        raise InputError(f"--outDir and --chkPointDir are the same folder, {out_dir}; name two.")
    cohorts = {data: COHORT} if data and data.is_dir() else {}
    refuse("--outDir", out_dir, RESULTS, cohorts | dict.fromkeys((checkpoints / name for name in MODELS), CHECKPOINTS))
    if written:
        refuse("--chkPointDir", written, CHECKPOINTS, cohorts | {out_dir: RESULTS})
    for folder in cohorts:
        named = {out_dir: RESULTS} | ({written: CHECKPOINTS} if written else {})
        refuse("--dataDir", folder, COHORT, named, on_disk=False)


def refuse(flag: str, folder: Path, kind: str, named: dict[Path, str], on_disk: bool = True) -> None:
    """Raises InputError if a folder of this kind is, or lies in, a forbidden folder: one of `named`, or another that is
    there. What the folder itself holds is checked where it is claimed."""
    place = Path(os.path.realpath(folder))
    for outer in (place, *place.parents):
        found = next((what for path, what in named.items() if is_same(path, outer)), None)
        found = found or (kind_of(outer) if on_disk and outer != place else None)
        if found and (kind, found) not in ALLOWED:
            where = f"is {found}" if outer == place else f"lies in {outer}, {found}"
            raise InputError(f"{flag} {folder} {where}; keep results, checkpoints and cohorts in folders of their own.")


def kind_of(folder: Path) -> str | None:
    """What a folder that is there holds, by the files that mark it."""
    return next((kind for kind, names in MARKS.items() if all((folder / name).is_file() for name in names)), None)
