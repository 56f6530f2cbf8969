"""A run's settings, and what every run leaves behind: its output folder with `run.json`."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from data.base import files
from data.base.errors import InputError
from data.cohorts.atlas import Atlas, load_atlas
from data.cohorts.cohort import Cohort
from data.cohorts.folds import Folds, validation_subjects
from data.cohorts.standards import Standard
from models import Model
from models.settings import Settings
from utils.machines.workers import Workers
from utils.runs import ledger
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.jobs import Job

MANIFEST = "run.json"
EARLIER = "earlier"
KEPT = (EARLIER, "checkpoint_results.csv", files.LEDGER)
PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn", "h5py", "matplotlib")


@dataclass(frozen=True)
class Manifest:
    """What a later run must know of the run that wrote a folder: its outputs (patterns), and whether it completed."""

    outputs: tuple[str, ...]
    finished: bool
    step: int | None = None  # batches seen, of a training


@dataclass(frozen=True)
class Run:
    """One job on one cohort with one model, everything settled and checked.

    With `folds` it is either the job on one of them, `fold`, or on all: `parts` are then the runs of the folds, and the
    cohort is the whole one.
    """

    job: Job
    model: Model
    preset: str
    config: Settings
    cohort: Cohort
    data_dir: Path | None  # as the user named the cohort; None: the demo cohort
    checkpoints: CheckpointFolder
    out_dir: Path
    num_iters: int  # batches to have seen; of a checkpoint in use those that it has seen, 0 if it does not say
    override: bool
    seed: int
    precision: str
    subjects: tuple[str, ...] | None = None  # of a blackout; None: all test subjects
    maps: tuple[str, ...] | None = None  # whose regions a blackout replaces; None: all
    atlas_path: Path | None = None  # of a blackout; None: AAL
    donors: int = 5  # of a blackout, for each record
    verify: int = 0  # pairs of a blackout to recompute in full
    validation: float = 0.0  # share of the training subjects set aside to choose the checkpoint
    shuffled_labels: bool = False
    folds: Folds | None = None
    fold: str = ""
    parts: tuple["Run", ...] = ()
    only: str | None = None  # the part to do; None: all
    jobs: int = 1  # parts that are done at a time
    workers: Workers = field(default_factory=Workers)
    started: float = field(default_factory=time.time)

    @property
    def standard(self) -> Standard:
        """How the volumes are standardised as they are read."""
        return getattr(self.config, "standardise", "stored")

    @property
    def transductive(self) -> bool:
        """Whether the people of a site, tested ones too, were used to standardise its volumes."""
        return self.standard == "site"

    @property
    def grid_name(self) -> str | None:
        """The grid, if the model reads volumes."""
        return self.cohort.grid.name if "volume" in self.model.reads else None

    @cached_property
    def atlas(self) -> Atlas:
        """The regions of a blackout. Raises InputError for what is no label image."""
        return load_atlas(self.atlas_path, self.cohort.grid)

    @property
    def replaced_maps(self) -> np.ndarray:
        """Which maps a blackout replaces, (maps,) bool. Raises InputError for one that the cohort does not have."""
        known = self.cohort.maps
        if unknown := [name for name in self.maps or () if name not in known]:
            raise InputError(f"--maps {unknown[0]} is no map of {self.cohort.path}; it has {', '.join(known)}.")
        return np.array([self.maps is None or name in self.maps for name in known])

    @cached_property
    def validation_subjects(self) -> frozenset[str]:
        """Training subjects set aside to choose the checkpoint."""
        return validation_subjects(self.cohort, self.validation, self.seed)

    def trained(self) -> np.ndarray:
        """The training records but for those of validation subjects."""
        return self.training(aside=False)

    def validated(self) -> np.ndarray:
        """The training records of validation subjects."""
        return self.training(aside=True)

    def training(self, aside: bool) -> np.ndarray:
        subjects, indices = self.validation_subjects, self.cohort.indices("train")
        return indices[[(self.cohort.rows[index].subject in subjects) == aside for index in indices]]

    def tested(self) -> np.ndarray:
        """The test records, or those of `subjects`. Raises InputError for a subject that is not a test subject."""
        indices = self.cohort.indices("test")
        if self.subjects is None:
            return indices
        known = {self.cohort.rows[index].subject for index in indices}
        if unknown := [subject for subject in self.subjects if subject not in known]:
            raise InputError(f"--subjects {unknown[0]} is no test subject of {self.cohort.path}; see its subjects.csv.")
        return np.array([index for index in indices if self.cohort.rows[index].subject in self.subjects])

    def by(self, workers: Workers) -> "Run":
        """The run, and its parts, done by these workers."""
        return dataclasses.replace(self, workers=workers, parts=tuple(part.by(workers) for part in self.parts))

    def settings(self) -> dict[str, Any]:
        """What decides the results, for `run.json`: with the same settings and code they are the same."""
        return {
            "job": self.job.name,
            "model": self.model.name,
            "preset": self.preset,
            "config": dataclasses.asdict(self.config),
            "grid": self.grid_name,
            "seed": self.seed,
            "precision": self.precision,
            "validation": self.validation,
            "shuffled_labels": self.shuffled_labels,
            "chosen_subjects": self.subjects,
            "chosen_maps": self.maps,
            "atlas": str(self.atlas_path) if self.atlas_path else None,
            "donors": self.donors if "donors" in self.job.options else None,
            "folds": self.folds.how if self.folds else None,
            "fold": self.fold or None,
            "cohort_sha256": self.cohort.digest if self.fold or not self.folds else self.folds.digest,
            "checkpoint_sha256": self.checkpoint_digest(),
        }

    def checkpoint_digest(self) -> str | dict | None:
        """That of the checkpoint, if there is one that is whole; of a run on all folds one for each."""
        if self.parts:
            return {part.fold: part.checkpoint_digest() for part in self.parts}
        return self.checkpoints.digest() if self.checkpoints.whole else None

    def describe(self) -> dict[str, Any]:
        """The content of `run.json` beside the manifest."""
        return self.settings() | {
            "num_iters": self.num_iters,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "cohort": str(self.cohort.path),
            "maps": self.cohort.metadata.maps,
            "simulated": self.cohort.metadata.simulated,
            "transductive": self.transductive,
            "checkpoint_folder": str(self.checkpoints.path),
            "workers": self.workers.count,
            "replicas": self.workers.replicas,
            "git_commit": git_commit(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
            "wall_time_s": round(time.time() - self.started, 2),
        }

    def is_done(self) -> bool:
        """Whether the output folder holds the whole results of this run, by the same settings."""
        manifest = read_manifest(self.out_dir)
        if manifest is None or not manifest.finished:
            return False
        saved, settings = files.read_json(self.out_dir / MANIFEST, dict), json.loads(json.dumps(self.settings()))
        saved["config"] = self.model.completed(saved["config"])
        enough = manifest.step is None or manifest.step >= self.num_iters
        same = all(saved.get(name) == value for name, value in settings.items())
        return enough and same and all(part.is_done() for part in self.parts)

    def write_manifest(self, finished: bool, **more) -> None:
        """Writes `run.json`, in the folder or, while that is made, in another one."""
        manifest = dataclasses.asdict(Manifest((*self.job.outputs, MANIFEST), finished))
        files.write_json(self.out_dir / MANIFEST, self.describe() | manifest | more)

    def finish(self, headline: tuple | None = None, **more) -> None:
        """Writes `run.json` and a row of `runs.csv`, and says where the results are.

        `headline` is the metric that stands for the run: name, value, low and high end of its interval.
        """
        self.write_manifest(finished=True, **more)
        self.enter(headline)
        self.announce()

    def enter(self, headline: tuple | None) -> None:
        """Adds this run to the `runs.csv` beside its output folder."""
        metric, value, low, high = headline or (None, None, None, None)
        row = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "job": self.job.name,
            "model": self.model.name,
            "preset": self.preset,
            "cohort": f"{self.data_dir or 'demo'}{self.marks}",
            "folds": f"{self.folds.how}{f', fold {self.fold}' * bool(self.fold)}" if self.folds else None,
            "metric": metric,
            "value": value,
            "low": low,
            "high": high,
            "folder": self.out_dir,
        }
        ledger.add(self.out_dir.absolute().parent, row)

    @property
    def marks(self) -> str:
        """What must stand beside every result: ` (SIMULATED, SHUFFLED LABELS)`, or nothing."""
        found = ["simulated"] * self.cohort.simulated + [*self.caveats()]
        return f" ({', '.join(found)})".replace("_", " ").upper() if found else ""

    def caveats(self) -> dict[str, bool]:
        """The same for JSON, but for what the cohort says itself: only what holds."""
        held = {"shuffled_labels": self.shuffled_labels, "transductive": self.transductive}
        return {name: True for name, holds in held.items() if holds}

    def announce(self) -> None:
        print(f"Results: {self.out_dir}{self.marks}", flush=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the folders that this one writes, if it is the worker that does.

        Raises InputError that names another run there.
        """
        folders = (self.out_dir, *([] if self.job.needs_checkpoint else [self.checkpoints.path]))
        with ExitStack() as locks:
            for folder in folders if self.workers.is_chief else ():
                locks.enter_context(files.locked(folder))
            yield


def git_commit() -> str | None:
    """The commit of this code, with -dirty for uncommitted changes; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def read_manifest(folder: Path) -> Manifest | None:
    """What the run that wrote a folder says of itself; None if no run did."""
    try:
        return files.read_json(folder / MANIFEST, Manifest)
    except InputError:
        return None


def own_files(folder: Path) -> list[Path]:
    """What an earlier run wrote in a folder, which need not exist. Raises InputError if it holds anything else only.

    Only these files may be moved; what the user has put beside them stays.
    """
    if not os.path.isdir(folder):
        if os.path.lexists(folder):
            raise InputError(f"{folder} is a file; name a folder with --outDir.")
        return []
    found = sorted(path for path in folder.iterdir() if path.name not in KEPT)
    if not found:
        return []
    manifest = read_manifest(folder)
    if manifest is None:
        names = ", ".join(path.name for path in found[:3]) + (", ..." if len(found) > 3 else "")
        raise InputError(f"{folder} holds {names}, which no run of this program wrote; name another --outDir.")
    return [path for path in found if any(fnmatchcase(path.name, pattern) for pattern in manifest.outputs)]


def prepare_folder(run: Run) -> None:
    """Makes the output folder; an earlier run's files are moved to `earlier/<when it ended>`, which is said."""
    folder = run.out_dir
    folder.mkdir(parents=True, exist_ok=True)
    if found := own_files(folder):
        ended = time.strftime("%Y%m%dT%H%M%S", time.localtime(max(path.stat().st_mtime for path in found)))
        aside = folder / EARLIER / ended
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        aside.mkdir(parents=True)
        for path in found:
            path.rename(aside / path.name)
        print(f"The earlier results in {folder} are now in {aside}.")
    run.write_manifest(finished=False)
