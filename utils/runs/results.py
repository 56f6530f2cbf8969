"""A folder of results on disk: whose it is, by the manifest in its `run.json`, and whether all of it is still there."""

import os
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from data.base import files
from data.base.errors import InputError
from data.cohorts.rows import listed
from utils.runs.checkpoints import digest_of_files

MANIFEST = "run.json"
EARLIER = "earlier"
KEPT = (EARLIER, "checkpoint_results.csv", files.LEDGER)


@dataclass(frozen=True)
class Manifest:
    """What a later run must know of the run that wrote a folder; fields that older ones lack have a default."""

    outputs: tuple[str, ...]  # patterns of names
    finished: bool
    job: str = ""
    model: str = ""
    step: int | None = None  # batches seen, of a training
    override: bool = False  # of a training from zero, beside a checkpoint that was there
    outputs_sha256: dict[str, str] | None = None  # of every output, once the run is finished


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of the run that wrote a folder; None if no run did."""
    try:
        return files.read_json(folder / MANIFEST, Manifest) if os.path.isfile(folder / MANIFEST) else None
    except InputError:
        return None


def own_files(folder: Path, job: str, model: str) -> list[Path]:
    """What an earlier run of this job and model wrote in a folder, which need not exist: only that may be moved, not
    what the user has put beside it. Raises InputError if the folder holds anything else only, or is of another one."""
    if not os.path.isdir(folder):
        if os.path.lexists(folder):
            raise InputError(f"{folder} is a file; name a folder with --outDir.")
        return []
    found = sorted(path for path in folder.iterdir() if path.name not in KEPT)
    if not found:
        return []
    manifest = read_manifest(folder)
    if manifest is None:
        names = listed([path.name for path in found], 3)
        raise InputError(
            f"{folder} holds {names}, and no run.json that says which run wrote that; name another --outDir."
        )
    owner = (manifest.job or job, manifest.model or model)
    if owner != (job, model):
        raise InputError(
            f"{folder} holds the results of another run ({' of '.join(owner)}), this one is {job} of {model}; "
            "name another --outDir."
        )
    return matching(folder, manifest.outputs)


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
    """The outputs of a finished run that are gone, or not as it wrote them; none if older code wrote no digests."""
    known = manifest.outputs_sha256 or {}
    return [name for name, digest in known.items() if sha256(folder / name) != digest]


def record(folder: Path, *outputs: str) -> None:
    """Records the digests of outputs of a finished run that were made again."""
    described = files.read_json(folder / MANIFEST, dict)
    if described.get("outputs_sha256") is not None:
        described["outputs_sha256"] |= {name: sha256(folder / name) for name in outputs}
        files.write_json(folder / MANIFEST, described)


def sha256(path: Path) -> str | None:
    """SHA-256 of a file, None if it is not there. It is computed once, though a run on folds asks several times."""
    try:
        stat = path.stat()
        return digest_of_files(((path, stat.st_size, stat.st_mtime_ns),))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
