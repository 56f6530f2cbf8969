"""A run: one job on one cohort with one model, everything settled; what it writes of itself into its folder."""

import dataclasses
import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from data.base import files, tables
from data.base.cli import option
from data.base.errors import InputError
from data.base.terminal import print_unless_quiet
from data.cohorts.cohort import Cohort, Standard
from models import MODELS, Model, Settings
from utils.machines import devices
from utils.machines.devices import Workers
from utils.runs.checkpoints import Caveats, CheckpointFolder, Choices, Identity
from utils.runs.cross_validation import CrossValidation
from utils.runs.folders import Results, sha256
from utils.scores.results import UNDEFINED, Headline

if TYPE_CHECKING:
    from data.cohorts.folds import Folds


@dataclass(frozen=True)
class Options:
    """The options that only one job takes. A job with options has a subclass, whose fields are made by `cli.option`."""

    def settings(self) -> dict[str, Any]:
        """Those that decide the results, for `run.json`."""
        return {}

    @property
    def cost(self) -> int:
        """How many trainings, or tests of one, a run is."""
        return 1


@dataclass(frozen=True)
class BundleOptions(Options):
    """The option of the jobs that the networks of a bundle can do, too."""

    bundle: Path | None = option(
        None, "use the networks of a bundle, not a checkpoint (abide-bundle)", type=Path, metavar="FILE.zip"
    )


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of run.py: which module does it, what it needs, what it refuses, what it writes.

    The module, imported once everything is validated, has a function of the job's name, Run -> exit status; `pool`,
    `average` and `select`, Group -> None, which make the results of folds,
    of repeats and of a choice among candidates from those of the parts.
    """

    name: str
    help: str
    module: str
    guards: tuple[Callable[["Run"], None], ...]
    comparisons: tuple[Callable[["Run", Identity], None], ...] = ()  # with the checkpoint, if there is one
    outputs: tuple[str, ...] = ()  # patterns of what it writes; only that may be moved aside by a later run
    figures: tuple[str, ...] = ()  # patterns of the names of its figures, without the form
    options: type[Options] = Options
    needs_checkpoint: bool = True
    needs: str | None = None  # the property of a model without which the answer is `refusal`
    refusal: str = ""
    has_flag: bool = True
    out_dir: str = "results/{model}-{job}"
    is_repeated: bool = True  # by --repeats, and by --choose
    takes_candidates: bool = True  # with --choose it is done by all, else by who was chosen in each fold
    takes_several_devices: bool = False  # GPUs of a machine, or machines
    kept: str | None = None  # of its outputs, the one that stands for a checkpoint

    @property
    def flag(self) -> str:
        return f"--{self.name}" if self.has_flag else "the full pass"

    @property
    def files(self) -> tuple[str, ...]:
        """Patterns of all that it writes, each figure in every form that `utils.figures.save` writes."""
        figures = [f"{name}.{form}" for name in self.figures for form in ("png", "svg")]
        return (*self.outputs, *figures)

    def function(self, name: str) -> Callable[[Any], Any]:
        """A function of the job's module."""
        return getattr(importlib.import_module(self.module), name)


@dataclass(frozen=True)
class Run:
    """One job on one cohort with one model, everything settled and checked; with `folds`, on the one named `fold`, or,
    without a name, what is told of the job on all folds."""

    job: Job
    choices: Choices
    config: Settings  # `choices.config` as the model takes it
    options: Options
    cohort: Cohort
    data_dir: Path | None  # as the user named the cohort; None: the demo cohort
    checkpoints: CheckpointFolder
    out_dir: Path
    num_iters: int  # batches to have seen; of a checkpoint in use, those that it has seen
    override: bool = False
    folds: "Folds | None" = None
    fold: str = ""
    everybody: bool = False  # whether the model is one of all people of its cohort
    cross_validation: CrossValidation | None = None  # the test on folds that goes with such a model
    trained_with: Caveats = field(default_factory=Caveats)  # what must stand beside whatever the weights in use say
    more: Mapping[str, Any] = field(default_factory=dict)  # settings that others of its kind lack, or have otherwise
    name: str = ""  # tells one of several runs on the same folds
    workers: Workers = field(default_factory=Workers)
    started: float = field(default_factory=time.time)

    @property
    def model(self) -> Model:
        return MODELS[self.choices.model]

    @property
    def seed(self) -> int:
        return self.choices.seed

    @property
    def results(self) -> Results:
        """The folder that it writes."""
        return Results(self.out_dir, self.job.name, self.model.name, self.job.files)

    @property
    def is_pooled(self) -> bool:
        """Whether it stands for the job on all folds."""
        return self.folds is not None and not self.fold

    @property
    def standard(self) -> Standard:
        """How the volumes are standardised as they are read."""
        return getattr(self.config, "standardise", "stored")

    @property
    def transductive(self) -> bool:
        """Whether the people of a site, tested ones too, were used to standardise its volumes."""
        return self.standard == "site"

    def nothing_to_do(self) -> bool:
        """A training says itself that it is done; what is not on folds is done again."""
        return False

    def perform(self, share_gpu: bool) -> int:
        """Does the job on a free GPU or the CPU."""
        return self.perform_on(devices.choose_device(share_gpu, several=self.job.takes_several_devices))

    def perform_on(self, device: str) -> int:
        """Does the job on a device, which is `gpu` or `cpu`; returns the exit status."""
        with self.locked() as run:
            return run.call(device)

    def is_due(self) -> bool:
        """Whether a fold is to be done; the caller holds the locks."""
        return self.override or not self.is_done()

    def on(self, workers: Workers) -> "Run":
        return dataclasses.replace(self, workers=workers)

    def call(self, device: str) -> int:
        """Calls the job's function."""
        began = time.time() if self.folds else self.started  # all folds were made at once
        workers = self.workers.started(devices.start_tensorflow(device))
        run = dataclasses.replace(self, workers=workers, started=began)
        with run.fresh():
            return self.job.function(self.job.name)(run)

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
    def locked(self) -> Iterator["Run"]:
        """This run, while other runs are kept out of its folders; of a worker that is not the chief, one that writes
        into copies of these. Waits for all workers. Raises InputError that names another run there."""
        folders = [self.out_dir] if self.job.needs_checkpoint else [self.out_dir, self.checkpoints.path]
        run = self
        with ExitStack() as held:
            if self.workers.is_chief:
                for folder in folders:
                    held.enter_context(files.locked(folder))
            else:
                run = self.copied(Path(held.enter_context(TemporaryDirectory())))
            self.workers.meet(self.settings() | {"num_iters": self.num_iters, "override": self.override})
            yield run

    def copied(self, place: Path) -> "Run":
        """This run with copies of its results and of its checkpoints: all workers save at once, as TensorFlow asks."""
        kept = {"results": self.out_dir, "ckpt": self.checkpoints.path, "ckpt.replaced": self.checkpoints.replaced}
        for name, folder in kept.items():
            for path in filter(Path.is_file, folder.glob("*")):
                (place / name).mkdir(exist_ok=True)
                shutil.copy2(path, place / name)
        checkpoints = dataclasses.replace(self.checkpoints, path=place / "ckpt")
        return dataclasses.replace(self, out_dir=place / "results", checkpoints=checkpoints)

    def settings(self) -> dict[str, Any]:
        """What decides the results, for `run.json`: with the same settings and code they are the same."""
        if self.job.kept:
            checkpoint = sha256(self.out_dir / self.job.kept)
        else:
            checkpoint = self.checkpoints.digest() if self.checkpoints.whole else None
        return {
            "job": self.job.name,
            **dataclasses.asdict(self.choices),
            **self.options.settings(),
            "folds": self.folds.how if self.folds else None,
            "fold": self.fold or None,
            "cohort_sha256": self.cohort.identity,
            "checkpoint_sha256": checkpoint,
            **self.more,
        }

    def describe(self) -> dict[str, Any]:
        """The content of `run.json` beside the manifest."""
        return self.settings() | {
            "num_iters": self.num_iters,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "cohort": os.path.abspath(self.cohort.path),
            "maps": self.cohort.metadata.maps,
            **dataclasses.asdict(self.caveats),
            "checkpoint_folder": os.path.abspath(self.checkpoints.path),
            "workers": self.workers.count,
            "replicas": self.workers.replicas,
            "git_commit": devices.git_commit(),
            "processor": devices.processor(),
            "packages": devices.package_versions(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
            "wall_time_s": round(time.time() - self.started, 2),
        }

    def is_done(self) -> bool:
        """Whether the output folder holds the whole results of this run, by the same settings, as they were written."""
        return self.results.hold(self.settings(), self.num_iters)

    def continues(self) -> bool:
        """Whether the output folder holds what this run began."""
        return self.results.begun_by(self.settings())

    def prepare_folder(self) -> None:
        """Makes the output folder; what an earlier run wrote there is moved aside. Raises InputError, see `Results`."""
        self.results.clear()
        self.write_manifest(finished=False)

    def write_manifest(self, finished: bool, **more: Any) -> None:
        """Writes `run.json`, with the digests of all outputs if they are `finished`."""
        self.results.write(self.describe(), finished, self.override, more)

    def finish(self, headline: Headline | None = None, **more: Any) -> None:
        """Writes `run.json` and a row of `runs.csv`, and prints where the results are; `headline` is the metric that
        stands for the run."""
        self.write_manifest(finished=True, headline=headline and headline.listed, **more)
        self.enter(headline)
        self.announce()

    @property
    def cut(self) -> str:
        """How the people were divided, for `runs.csv`; nothing without folds."""
        if not self.folds:
            return "everybody" if self.everybody else ""
        return ", ".join(filter(None, (self.folds.how, self.fold and f"fold {self.fold}", self.name)))

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
        own, its = tuple(whole.problems(fold_of, self.model.predicts == "label")), self.trained_with
        return Caveats(
            simulated=self.cohort.simulated or its.simulated,
            problems=(*own, *its.problems),
            accepted_leaks=tuple(dict.fromkeys([*self.cohort.metadata.accepted_leaks, *its.accepted_leaks])),
            transductive=self.transductive,
            unknown_site=whole.unknown_site,
        )

    @property
    def marks(self) -> str:
        return self.caveats.marks

    def announce(self) -> None:
        print_unless_quiet(f"Results: {self.out_dir}{self.marks}")
