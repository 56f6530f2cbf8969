"""Folders of runs on disk: whose results one holds, by the manifest in its `run.json`, and whether all are there; which
folder may lie in which.

| may be written | in results | in checkpoints | in a cohort |
| --- | --- | --- | --- |
| results, or a reduced cohort | yes | no | no |
| checkpoints | no | no | no |

Nor does the cohort that is read lie in what is written. Folders are compared as they are on disk, through links and
mounts. Those that the command does not name are known by the files in them.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.cohorts.rows import METADATA, TABLE, listed
from models import MODELS
from utils.runs.checkpoints import IDENTITY, STATE, digest_of_files, is_same

MANIFEST = "run.json"  # of results, not that of checkpoints
EARLIER = "earlier"
KEPT = (EARLIER, "checkpoint_results.csv", files.LEDGER)
RESULTS, CHECKPOINTS, COHORT = "a folder of results", "a folder of checkpoints", "a cohort"
ALLOWED = ((RESULTS, RESULTS),)  # what is written, and in what
NOTHING: Mapping[str, Any] = MappingProxyType({})
PATTERN = "*?[\\"  # what a folder may not hold in its name: TensorFlow would delete what the pattern matches


@dataclass(frozen=True)
class Manifest:
    """What a later run must know of the run that wrote a folder."""

    outputs: tuple[str, ...]  # patterns of names
    finished: bool
    job: str
    model: str
    step: int | None  # batches seen, of a training
    override: bool  # of a training from zero, beside a checkpoint that was there
    outputs_sha256: dict[str, str] | None  # of every output, once the run is finished


@dataclass(frozen=True)
class Results:
    """The folder that a job of a model writes; `outputs` are patterns of the names in it."""

    folder: Path
    job: str
    model: str
    outputs: tuple[str, ...]

    @property
    def manifest(self) -> Manifest | None:
        """That of the run that wrote the folder; None if no run did."""
        return read_manifest(self.folder)

    def settings(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Of the settings that are `wanted`, those of the run that wrote the folder; none if no run did."""
        saved = described(self.folder) if self.manifest else {}
        return {name: saved[name] for name in wanted if name in saved}

    def are_of(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run by these settings wrote them, by the same checkpoint."""
        return self.settings(settings) == as_json(settings)

    def hold(self, settings: Mapping[str, Any], num_iters: int) -> bool:
        """Whether they are whole, as they were written, of a run by these settings and of so many batches."""
        manifest = self.manifest
        if manifest is None or not manifest.finished or not self.are_of(settings):
            return False
        return (manifest.step is None or manifest.step >= num_iters) and not changed(self.folder, manifest)

    def begun_by(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run by these settings began them, whatever the checkpoint is now."""
        there, here = self.settings(settings), as_json(settings)
        return bool(there) and all(here[name] == there[name] for name in there if name != "checkpoint_sha256")

    def own_files(self) -> list[Path]:
        """What an earlier run of this job and model wrote: only that may be moved, not what the user has put beside it.
        Raises InputError if the folder holds anything else only, or is of another job or model."""
        if not os.path.isdir(self.folder):
            if os.path.lexists(self.folder):
                raise InputError(f"{self.folder} is a file; name a folder with --outDir.")
            return []
        found = sorted(path.name for path in self.folder.iterdir() if path.name not in KEPT)
        return self.owned(found) if found else []

    def owned(self, found: list[str]) -> list[Path]:
        """The outputs of an earlier run of this job and model among what was `found`. Raises InputError, see above."""
        if (manifest := self.manifest) is None:
            raise InputError(
                f"{self.folder} holds {listed(found, 3)}, and no run.json that says which run wrote that; "
                "name another --outDir."
            )
        owner = (manifest.job, manifest.model)
        if owner != (self.job, self.model):
            raise InputError(
                f"{self.folder} holds the results of another run ({' of '.join(owner)}), this one is {self.job} of "
                f"{self.model}; name another --outDir."
            )
        return matching(self.folder, manifest.outputs)

    def clear(self) -> None:
        """Makes the folder; files of an earlier run are moved to `earlier/`, which is printed. Raises InputError, see
        `own_files`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if found := self.own_files():
            move_aside(found)

    def write(
        self, content: Mapping[str, Any], finished: bool, override: bool = False, more: Mapping[str, Any] = NOTHING
    ) -> None:
        """Writes `run.json`: the content, the manifest, with the digests of all outputs if they are `finished`, and
        more."""
        sha256 = sha256_of_outputs(self.folder, self.outputs) if finished else None
        manifest = Manifest((*self.outputs, MANIFEST), finished, self.job, self.model, None, override, sha256)
        files.write_json(self.folder / MANIFEST, {"format": files.FORMAT, **content, **asdict(manifest), **more})


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are read again."""
    return json.loads(json.dumps(settings))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of the run that wrote a folder; None if no run did. Raises InputError for another format."""
    state = opened_state(folder / MANIFEST)
    return manifest_at(folder / MANIFEST, state) if state else None


def read_as(folder: Path, kind: type[files.Content]) -> files.Content:
    """A folder's `run.json` as the dataclass `kind`. Raises InputError for damage, and for another format."""
    if (folder / MANIFEST).is_file():
        check_format(folder / MANIFEST, described(folder))
    return files.read_json(folder / MANIFEST, kind)


def check_format(path: Path, content: dict[str, Any]) -> None:
    files.check_format(path, content.get("format"), "move it away and repeat the run")


def described(folder: Path) -> dict[str, Any]:
    """All of a folder's `run.json`. Raises InputError if there is none."""
    state = opened_state(folder / MANIFEST)
    return content_at(folder / MANIFEST, state) if state else files.read_json(folder / MANIFEST, dict)


def seconds_of(folder: Path) -> float | None:
    """How long the run took that wrote a folder; None if that is not known."""
    try:
        return described(folder).get("wall_time_s")
    except (InputError, OSError):
        return None


def opened_state(path: Path) -> tuple[int, ...] | None:
    """What changes as a file is written again; None without a file. It is opened, so that a network disk tells what
    other machines have written."""
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(256)
def content_at(path: Path, state: tuple[int, ...]) -> dict[str, Any]:
    """A `run.json`, read once in each state of its file; who takes it leaves it as it is."""
    return files.read_json(path, dict)


@lru_cache(256)
def manifest_at(path: Path, state: tuple[int, ...]) -> Manifest | None:
    try:
        content = content_at(path, state)
        manifest = files.typed(json.dumps(content), Manifest)
    except (InputError, ValueError):
        return None
    check_format(path, content)
    return manifest


def matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if any(fnmatchcase(path.name, pattern) for pattern in patterns)]


def move_aside(found: list[Path]) -> None:
    """Moves files of a folder to `earlier/<when they were written>` in it, and prints that."""
    folder, written = found[0].parent, max(path.stat().st_mtime for path in found)
    aside = folder / EARLIER / time.strftime("%Y%m%dT%H%M%S", time.localtime(written))
    while aside.exists():
        aside = aside.with_name(aside.name + "+")
    aside.mkdir(parents=True)
    for path in found:
        path.rename(aside / path.name)
    print(f"The earlier results in {folder} are now in {aside}.")


def sha256_of_outputs(folder: Path, outputs: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of the outputs in a folder, those in folders too, by their path below it."""
    found = matching(folder, outputs)
    inside = [path for top in found if top.is_dir() for path in sorted(top.rglob("*"))]
    return {str(path.relative_to(folder)): sha256(path) or "" for path in [*found, *inside] if path.is_file()}


def changed(folder: Path, manifest: Manifest) -> list[str]:
    """The outputs of a finished run that are gone, or not as it wrote them."""
    known = manifest.outputs_sha256 or {}
    return [name for name, digest in known.items() if sha256(folder / name) != digest]


def check_finished(name: str, folder: Path, how: str) -> Manifest:
    """The manifest of the finished run in a folder, which the user gave as `name`. Raises InputError that says `how` it
    must be: unless the run is finished, and its outputs are as it wrote them."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest.finished:
        found = "is not finished" if folder.is_dir() else "is not there"
        raise InputError(f"{name}: the run {found}; {how}. Repeat its command.")
    if damaged := changed(folder, manifest):
        raise InputError(f"{name}: {damaged[0]} is not as it was written; {how}. Repeat the run.")
    return manifest


def forget(folder: Path, *outputs: str) -> None:
    """Drops the digests of outputs of a finished run that are about to be made again. So a kill in between leaves the
    run whole."""
    content = described(folder)
    if (known := content.get("outputs_sha256")) is not None:
        kept = {name: digest for name, digest in known.items() if name not in outputs}
        files.write_json(folder / MANIFEST, content | {"outputs_sha256": kept})


def record(folder: Path, *outputs: str) -> None:
    """Records the digests of outputs of a finished run that were made again."""
    content = described(folder)
    if (known := content.get("outputs_sha256")) is not None:
        now = {name: sha256(folder / name) for name in outputs}
        files.write_json(folder / MANIFEST, content | {"outputs_sha256": dict(sorted((known | now).items()))})


def sha256(path: Path) -> str | None:
    """SHA-256 of a file, None if it is not there. It is computed once, though a run on folds asks several times."""
    try:
        stat = path.stat()
        return digest_of_files(((path, stat.st_size, stat.st_mtime_ns),))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def check_places(out_dir: Path, checkpoints: Path, data: Path | None, written: Path | None) -> None:
    """Raises InputError for a folder that lies where it must not: of results, of the checkpoints of all models, of the
    cohort that is named; `written` are the checkpoints that the command writes, if it does."""
    if is_same(out_dir, checkpoints):
        raise InputError(f"--outDir and --chkPointDir are the same folder, {out_dir}; name two.")
    cohorts = {data: COHORT} if data and data.is_dir() else {}
    of_models = (checkpoints / f"{name}{ending}" for name in MODELS for ending in ("", ".replaced"))
    refuse("--outDir", out_dir, RESULTS, cohorts | dict.fromkeys(of_models, CHECKPOINTS))
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
    if all(os.path.isfile(folder / name) for name in (METADATA, TABLE)):
        return COHORT
    if all(os.path.isfile(folder / name) for name in (STATE, IDENTITY)):
        return CHECKPOINTS
    return RESULTS if read_manifest(folder) else None


def check_pattern(folder: Path) -> None:
    """Raises InputError if TensorFlow would read the path of a folder as a pattern of others."""
    if odd := sorted(set(str(folder)) & set(PATTERN)):
        raise InputError(
            f"--chkPointDir {folder} holds {' '.join(odd)}, which TensorFlow reads as a pattern of other "
            f"folders; name a folder without {' '.join(PATTERN)}."
        )
