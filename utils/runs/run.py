"""A run: one job on one cohort with one model, and what every run leaves: its output folder with `run.json`."""

import dataclasses
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.base import files, tables
from data.base.errors import InputError
from data.base.progress import tell
from data.cohorts import digests
from data.cohorts.cohort import Cohort, Standard
from data.cohorts.rows import validation_subjects
from models import MODELS, Model
from models.settings import Settings
from utils.machines import devices
from utils.machines.devices import Workers
from utils.runs.caveats import Caveats
from utils.runs.checkpoints import CheckpointFolder, Choices, Identity
from utils.runs.internal import InternalValidation
from utils.runs.results import MANIFEST, Manifest, changed, move_aside, own_files, read_manifest, sha256_of_outputs
from utils.scores.estimate import UNDEFINED, Headline

if TYPE_CHECKING:
    from data.cohorts.folds import Folds

PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn", "h5py", "matplotlib")


@dataclass(frozen=True)
class Options:
    """The options that only one job takes. A job with options has a subclass, whose fields are made by `cli.option`."""

    def settings(self) -> dict[str, Any]:
        """Those that decide the results, for `run.json`."""
        return {}

    def of_fold(self, cohort: Cohort) -> "Options | None":
        """The options for the fold that this cohort tests; None if the job has nothing to do there."""
        return self

    def check(self, folds: "Folds") -> None:
        """Raises InputError if the options do not fit the whole cohort."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of run.py: which module does it, what it needs, what it refuses, what it writes.

    The module, imported once everything is validated, has a function of the job's name, Run -> exit status; `pool`,
    which makes the results of a run on folds from those of its parts; `average`, which does so for repeats; and
    `assist`, for workers that are not the chief.
    """

    name: str
    help: str
    module: str
    guards: tuple[Callable[["Run", Identity | None], None], ...]  # the identity is the checkpoint's, if there is one
    outputs: tuple[str, ...] = ()  # patterns of what it writes; only that may be moved aside by a later run
    options: type[Options] = Options
    needs_checkpoint: bool = True
    needs: str | None = None  # the property of a model without which the answer is `refusal`
    refusal: str = ""
    has_flag: bool = True
    out_dir: str = "results/{model}-{job}"
    is_shared: bool = True  # by all workers
    is_repeated: bool = True  # by --repeats
    takes_candidates: bool = True  # with --choose it is done by all, else by who was chosen in each fold
    takes_several_gpus: bool = False

    @property
    def flag(self) -> str:
        return f"--{self.name}" if self.has_flag else "the full pass"

    def part(self, name: str) -> Callable[["Run"], int]:
        """A function of the job's module."""
        return getattr(importlib.import_module(self.module), name)


@dataclass(frozen=True)
class Run:
    """One job on one cohort with one model, everything settled and checked; with `folds`, on the one named `fold`."""

    job: Job
    choices: Choices
    config: Settings  # `choices.config` as the model takes it
    options: Options
    cohort: Cohort
    data_dir: Path | None  # as the user named the cohort; None: the demo cohort
    checkpoints: CheckpointFolder
    out_dir: Path
    num_iters: int  # batches to have seen; of a checkpoint in use, those that it has seen, 0 if it does not say
    override: bool = False
    folds: "Folds | None" = None
    fold: str = ""
    everybody: bool = False  # whether the model is one of all people of its cohort
    internal: InternalValidation | None = None  # the test on folds that goes with such a model
    parts: tuple["Run", ...] = ()  # of a FoldedRun: the runs on single folds
    workers: Workers = field(default_factory=Workers)
    started: float = field(default_factory=time.time)

    @property
    def model(self) -> Model:
        return MODELS[self.choices.model]

    @property
    def seed(self) -> int:
        return self.choices.seed

    @property
    def cost(self) -> int:
        """How many trainings, or tests of one, it is."""
        return 1

    @property
    def trained_for(self) -> int:
        """Batches of the whole training, of which the checkpoint in use, the best one, may have seen fewer."""
        trained = self.checkpoints.trained
        return trained.identity().step if self.job.needs_checkpoint and trained.current else self.num_iters

    @property
    def standard(self) -> Standard:
        """How the volumes are standardised as they are read."""
        return getattr(self.config, "standardise", "stored")

    @property
    def transductive(self) -> bool:
        """Whether the people of a site, tested ones too, were used to standardise its volumes."""
        return self.standard == "site"

    @cached_property
    def validation_subjects(self) -> frozenset[str]:
        """Training subjects set aside to choose the checkpoint."""
        groups = self.folds.same_scan if self.folds else self.cohort.metadata.same_scan
        return validation_subjects(self.cohort.rows, self.choices.validation, self.seed, groups)

    def training_records(self, set_aside: bool = False) -> np.ndarray:
        """Positions of the training records, without those of validation subjects; or those, if `set_aside`."""
        subjects, indices = self.validation_subjects, self.cohort.indices("train")
        return indices[[(self.cohort.rows[index].subject in subjects) == set_aside for index in indices]]

    def perform_on(self, device: str) -> int:
        """Does the job on a device, which is `gpu` or `cpu`."""
        with self.locked():
            return self.call(device)

    def call(self, device: str) -> int:
        """Calls the job's function; of a worker that is not the chief, the function for its share."""
        run = dataclasses.replace(self, workers=self.workers.started(devices.start_tensorflow(device)))
        with run.fresh():
            return self.job.part(self.job.name if self.workers.is_chief else "assist")(run)

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Work that is independent of networks that this process has built. TensorFlow must have been started."""
        import keras

        if self.choices.precision == "mixed_bfloat16":
            devices.check_bfloat16()
        keras.utils.clear_session()
        keras.utils.set_random_seed(self.seed)
        keras.mixed_precision.set_global_policy(self.choices.precision)
        with devices.memory_errors_explained():
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the folders that the chief writes. Raises InputError that names another run there."""
        folders = [self.out_dir] if self.job.needs_checkpoint else [self.out_dir, self.checkpoints.path]
        with ExitStack() as locks:
            for folder in folders if self.workers.is_chief else ():
                locks.enter_context(files.locked(folder))
            yield

    def settings(self) -> dict[str, Any]:
        """What decides the results, for `run.json`: with the same settings and code they are the same."""
        return {
            "job": self.job.name,
            **dataclasses.asdict(self.choices),
            **self.options.settings(),
            "folds": self.folds.how if self.folds else None,
            "fold": self.fold or None,
            "cohort_sha256": self.cohort.digest,
            "records_sha256": self.cohort.records_sha256,
            "checkpoint_sha256": self.checkpoints.digest() if self.checkpoints.whole else None,
        }

    def describe(self) -> dict[str, Any]:
        """The content of `run.json` beside the manifest."""
        return self.settings() | {
            "num_iters": self.num_iters,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "cohort": str(self.cohort.path),
            "maps": self.cohort.metadata.maps,
            **dataclasses.asdict(self.caveats),
            "checkpoint_folder": str(self.checkpoints.path),
            "workers": self.workers.count,
            "replicas": self.workers.replicas,
            "git_commit": git_commit(),
            "processor": devices.processor(),
            "packages": package_versions(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
            "wall_time_s": round(time.time() - self.started, 2),
        }

    def is_done(self) -> bool:
        """Whether the output folder holds the whole results of this run, by the same settings, as they were written."""
        manifest = read_manifest(self.out_dir)
        if manifest is None or not manifest.finished or self.settings_there() != self.settings_as_json():
            return False
        return (manifest.step is None or manifest.step >= self.num_iters) and not changed(self.out_dir, manifest)

    def continues(self) -> bool:
        """Whether the output folder holds what this run began: by the same settings, as far as the code that began it
        wrote them, whatever the checkpoint is now."""
        there, settings = self.settings_there(), self.settings_as_json()
        return bool(there) and all(settings[name] == there[name] for name in there if name != "checkpoint_sha256")

    def settings_as_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.settings()))

    def settings_there(self) -> dict[str, Any]:
        """The settings of the run that wrote the output folder; none if no run did."""
        if read_manifest(self.out_dir) is None:
            return {}
        settings, saved = self.settings(), files.read_json(self.out_dir / MANIFEST, dict)
        saved.setdefault("records_sha256", settings["records_sha256"])  # older results do not say
        saved["config"] = self.model.completed(saved.get("config", {}))
        return {name: saved[name] for name in settings if name in saved}

    def write_manifest(self, finished: bool, **more: Any) -> None:
        """Writes `run.json` into the output folder, with the digests of all outputs if it is `finished`."""
        outputs = (*self.job.outputs, digests.DIGESTS)
        sha256 = sha256_of_outputs(self.out_dir, outputs) if finished else None
        own = (self.job.name, self.model.name, None, self.override, sha256)
        manifest = dataclasses.asdict(Manifest((*outputs, MANIFEST), finished, *own))
        files.write_json(self.out_dir / MANIFEST, self.describe() | manifest | more)

    def finish(self, headline: Headline | None = None, **more: Any) -> None:
        """Writes `run.json` and a row of `runs.csv`, and prints where the results are; `headline` is the metric that
        stands for the run."""
        self.write_manifest(finished=True, headline=headline and headline.listed, **more)
        self.enter(headline)
        self.announce()

    @property
    def cut(self) -> str:
        """How the people were divided, for `runs.csv`; nothing without folds."""
        fold = f", fold {self.fold}" if self.fold else ""
        return f"{self.folds.how}{fold}" if self.folds else "everybody" if self.everybody else ""

    def enter(self, headline: Headline | None) -> None:
        """Adds this run to the `runs.csv` beside its output folder; if that fails, a warning is printed."""
        row = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "job": self.job.name,
            "model": self.model.name,
            "preset": self.choices.preset,
            "cohort": f"{self.data_dir or 'demo'}{self.marks}",
            "folds": self.cut or None,
            "metric": headline and headline.metric,
            **(headline.score if headline else UNDEFINED).columns(),
            "folder": self.out_dir,
        }
        path = self.out_dir.absolute().parent / files.LEDGER
        try:
            tables.add_row(path, row)
        except (OSError, InputError) as error:
            reason = f"{path} could not be written ({error.strerror})." if isinstance(error, OSError) else error
            print(f"{reason} The run is not in it, its results are complete.")

    @cached_property
    def caveats(self) -> Caveats:
        """What must stand beside every result."""
        whole, fold_of = (self.folds.whole, self.folds.fold_of) if self.folds else (self.cohort, None)
        of_labels = () if self.model.predicts == "label" else whole.census().every("problems")
        return Caveats(
            simulated=self.cohort.simulated,
            problems=tuple(text for text in whole.problems(fold_of) if text not in of_labels),
            accepted_leaks=self.cohort.metadata.accepted_leaks,
            shuffled_labels=self.choices.shuffled_labels,
            transductive=self.transductive,
        )

    @property
    def marks(self) -> str:
        return self.caveats.marks

    def announce(self) -> None:
        tell(f"Results: {self.out_dir}{self.marks}")


@cache
def package_versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in PACKAGES}


@cache
def git_commit() -> str | None:
    """The commit of this code, with -dirty for uncommitted changes; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def prepare_folder(run: Run) -> None:
    """Makes the output folder; files of an earlier run are moved to `earlier/`, which is printed. Raises InputError if
    the folder is not this job's and model's."""
    run.out_dir.mkdir(parents=True, exist_ok=True)
    if found := own_files(run.out_dir, run.job.name, run.model.name):
        move_aside(found)
    run.write_manifest(finished=False)
    if run.cohort.computed:
        digests.write(run.out_dir, run.cohort.digests_by_file)
