"""A run: one job by one network on one cohort, everything settled; what it writes of itself into its folder."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from data.base import files, tables
from data.base.cli import option
from data.base.errors import InputError
from data.base.terminal import print_unless_quiet
from data.cohorts.cohort import Cohort, Standard
from data.cohorts.variants import standardise_cohort
from models import MODELS, Model, Settings
from utils.machines import devices
from utils.machines.devices import Workers
from utils.runs import record
from utils.runs.candidates import Candidate
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import RECORD, Caveats, Choices, People, Record
from utils.scores.results import BLACKOUT_PAGE, PAGE, UNDEFINED, Headline

if TYPE_CHECKING:
    from data.cohorts.folds import Folds


PAGES = (PAGE, BLACKOUT_PAGE)


@dataclass(frozen=True)
class Options:
    """The options that only one job takes. A job with options has a subclass, whose fields are made by `cli.option`."""

    def settings(self) -> dict[str, Any]:
        """Those that decide the results."""
        return {}


@dataclass(frozen=True)
class BundleOptions(Options):
    """The option of the jobs that the network of a bundle can do, too."""

    bundle: Path | None = option(
        None, "use the network of a bundle, not a checkpoint (abide-bundle)", type=Path, metavar="FILE.zip"
    )


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of run.py is three functions. `check` raises InputError for what the run must not do; it takes the record
    of the checkpoint, if there is one. `do` returns the exit status. `pool` makes the results of all parts from
    theirs."""

    name: str
    help: str
    check: Callable[["Run", Record | None], None]
    do: Callable[["Run"], int]
    pool: Callable[["Run", Sequence["Run"]], None]
    options: type[Options] = Options
    needs_checkpoint: bool = True
    needs: str | None = None  # the property of a model without which the answer is `refusal`
    refusal: str = ""
    has_flag: bool = True
    out_dir: str = "results/{model}-{job}"
    is_repeated: bool = True  # by --repeats
    takes_several_devices: bool = False  # GPUs of a machine, or machines

    @property
    def flag(self) -> str:
        return f"--{self.name}" if self.has_flag else "the full pass"


@dataclass(frozen=True)
class Run:
    """One job by one network on one cohort, everything settled and checked. It is of the cohort's split, or of the
    `fold` of a `repeat`, one of `repeats`; without a name of the fold it stands for all of these, see `pooled`."""

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
    repeat: int = 0
    repeats: int = 1
    is_asked: bool = True  # no --fold names another one
    candidates: tuple[Candidate, ...] = ()  # among which inner folds choose
    everybody: bool = False  # whether the model is one of all people of its cohort
    cross_validation: CrossValidation | None = None  # the test on folds that goes with such a model
    trained_with: Caveats = field(default_factory=Caveats)  # what must stand beside whatever the weights in use say
    begun: str = ""  # tells a training from others from zero
    used: str | dict[str, str] | None = None  # weights, while it uses these; of all parts, if it stands for them
    workers: Workers = field(default_factory=Workers)
    started: float = field(default_factory=time.time)

    @property
    def model(self) -> Model:
        return MODELS[self.choices.model]

    @property
    def seed(self) -> int:
        return self.choices.seed

    @property
    def is_pooled(self) -> bool:
        """Whether it stands for the job on all folds."""
        return self.folds is not None and not self.fold

    @property
    def part(self) -> str:
        """Its name among the parts of a job."""
        return f"{self.fold}, repeat {self.repeat}" if self.repeats > 1 else self.fold

    @property
    def standard(self) -> Standard:
        """How the volumes are standardised as they are read."""
        return getattr(self.config, "standardise", "stored")

    @property
    def transductive(self) -> bool:
        """Whether the people of a site, tested ones too, were used to standardise its volumes."""
        return self.standard == "site"

    @cached_property
    def key(self) -> str:
        """Decides its results, with the weights: what was asked for, the data, and who is tested. What the weights
        decide is not asked for again."""
        choices = asdict(self.choices)
        if self.job.needs_checkpoint:
            choices = {name: choices[name] for name in ("model", "seed", "precision")}
        elif self.candidates:
            choices |= {"preset": None, "config": [asdict(one.config) for one in self.candidates]}
        cut = (self.folds.folds_option, self.fold, self.repeat, self.folds.fold_by_subject) if self.folds else None
        beside = self.options.settings(), asdict(self.caveats), self.cross_validation and asdict(self.cross_validation)
        return record.key_of(self.job.name, choices, cut, self.everybody, self.cohort.identity, beside)

    @property
    def weights(self) -> str | dict[str, str] | None:
        """SHA-256 of its checkpoint as it is now, of what stands for several parts by their name; None without one."""
        if self.used is not None:
            return self.used
        return self.checkpoints.digest() if self.checkpoints.whole else None

    def record(self, finished: bool = False, headline: Headline | None = None, **told: Any) -> Record:
        """What is known of it now; of finished results with the marks of all outputs."""
        metadata = self.cohort.metadata
        return Record(
            job=self.job.name,
            key=self.key,
            finished=finished,
            begun=self.begun,
            settings=self.choices,
            candidates=tuple(map(str, self.candidates)),
            options=self.options.settings(),
            folds=self.folds.folds_option if self.folds else None,
            fold=self.fold or None,
            repeat=self.repeat,
            repeats=self.repeats,
            everybody=self.everybody,
            step=self.num_iters,
            cohort=os.path.abspath(self.cohort.path),
            cohort_sha256=self.cohort.identity,
            maps=metadata.maps,
            num_maps=self.cohort.num_maps,
            preparation=metadata.preparation,
            checkpoint_folder=os.path.abspath(self.checkpoints.path),
            weights=self.weights,
            cross_validation=self.cross_validation,
            caveats=self.caveats,
            versions={
                "git_commit": devices.git_commit(),
                "processor": devices.processor(),
                "packages": devices.package_versions(),
                "workers": self.workers.count,
                "replicas": self.workers.replicas,
            },
            command=(Path(sys.argv[0]).name, *sys.argv[1:]),
            started=time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self.started)),
            wall_time_s=round(time.time() - self.started, 2),
            outputs=record.outputs_of(self.out_dir) if finished else {},
            headline=(headline.metric, *astuple(headline.score)) if headline else None,
            told=told,
        )

    @property
    def people(self) -> People:
        """Who trains its network."""
        metadata = self.cohort.metadata
        return People(
            subjects=tuple(self.cohort.split_subjects("train")),
            scans=tuple(sorted(set().union(*self.cohort.scans_by_subject("train").values()))),
            encoder_subjects=metadata.encoder_subjects,
            encoder_scans=metadata.encoder_volumes,
        )

    def is_done(self) -> bool:
        """Whether the output folder holds its results, whole and as they were written, by the weights of now."""
        return record.is_done(self.out_dir, self.key, self.weights, self.num_iters)

    def is_due(self) -> bool:
        return self.override or not self.is_done()

    def claim(self) -> None:
        """Makes the output folder. What an earlier run left there is moved aside, unless it is this one, not finished:
        then it goes on, or begins again."""
        record.claim(self.out_dir, self.record())

    def finish(self, headline: Headline | None = None, **told: Any) -> None:
        """Writes a row of `runs.csv` and `run.json`, and prints where the results are; `headline` is the metric that
        stands for the run."""
        self.add_to_ledger(headline)
        record.write(self.out_dir / RECORD, self.record(True, headline, **told))
        self.announce()

    def add_to_ledger(self, headline: Headline | None) -> None:
        """Adds this run to the `runs.csv` beside its output folder; if that fails, a warning is printed."""
        row = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "job": self.job.name,
            "model": self.model.model_name,
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

    @property
    def cut(self) -> str:
        """How the people were divided, for `runs.csv`; nothing without folds."""
        if not self.folds:
            return "everybody" if self.everybody else ""
        several = f"{self.repeats} repeats" if self.repeats > 1 and not self.fold else ""
        return ", ".join(filter(None, (self.folds.folds_option, self.fold and f"fold {self.part}", several)))

    @contextmanager
    def locked(self) -> Iterator["Run"]:
        """This run, while other runs are kept out of its folders; of a worker that is not the chief, one that writes
        into copies of these. Waits for all workers. Raises InputError that names another run there."""
        run, written = self, [self.out_dir, *([] if self.job.needs_checkpoint else [self.checkpoints.path])]
        with ExitStack() as held:
            if self.workers.is_chief:
                for folder in written:
                    held.enter_context(files.locked(folder))
            else:
                run = self.copied(Path(held.enter_context(TemporaryDirectory())))
            self.workers.meet({"key": self.key, "num_iters": self.num_iters, "override": self.override})
            yield run

    def copied(self, place: Path) -> "Run":
        """This run with copies of its results and of its checkpoints: all workers save at once, as TensorFlow asks."""
        for name, folder in (("results", self.out_dir), ("ckpt", self.checkpoints.path)):
            (place / name).mkdir()
            for path in filter(Path.is_file, folder.glob("*")):
                shutil.copy2(path, place / name)
        return replace(self, out_dir=place / "results", checkpoints=replace(self.checkpoints, path=place / "ckpt"))

    def call(self, device: str) -> int:
        """Does the job on a device, which is `gpu` or `cpu`; returns the exit status."""
        workers = self.workers.started(devices.start_tensorflow(device))
        used = self.weights if self.job.needs_checkpoint else None
        run = replace(self, workers=workers, started=time.time(), used=used)
        with run.fresh():
            return self.job.do(run)

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Work that is independent of networks that this process has built. TensorFlow must have been started."""
        if self.choices.precision == "mixed_bfloat16":
            devices.check_bfloat16()
        self.forget_networks()
        with devices.memory_errors_explained():
            yield

    def forget_networks(self) -> None:
        """What is built next does not depend on networks before."""
        import keras

        keras.utils.clear_session()
        keras.utils.set_random_seed(self.seed)
        keras.mixed_precision.set_global_policy(self.choices.precision)

    def by(self, candidate: Candidate) -> "Run":
        """This run with the settings of a candidate, and no others to choose among."""
        return replace(self.settled(candidate), candidates=())

    def settled(self, candidate: Candidate) -> "Run":
        """This run with the settings of the candidate that was chosen."""
        choices = replace(self.choices, preset=candidate.preset, config=asdict(candidate.config))
        run = replace(self, choices=choices, config=candidate.config)
        return replace(run, cohort=standardise_cohort(run.cohort, run.standard))

    @cached_property
    def caveats(self) -> Caveats:
        """What must stand beside every result."""
        whole, fold_of = (self.folds.full_cohort, self.folds.fold_by_subject) if self.folds else (self.cohort, None)
        own, its = tuple(whole.find_problems(fold_of, self.model.predicted == "label")), self.trained_with
        return Caveats(
            simulated=self.cohort.is_simulated or its.simulated,
            problems=(*own, *its.problems),
            accepted_leaks=tuple(dict.fromkeys([*self.cohort.metadata.accepted_leaks, *its.accepted_leaks])),
            transductive=self.transductive,
            unknown_site=whole.is_site_unknown,
        )

    @property
    def marks(self) -> str:
        return self.caveats.marks

    def announce(self) -> None:
        """Prints where the results are, and the page if there is one."""
        pages = [path for name in PAGES if (path := self.out_dir / name).is_file()]
        print_unless_quiet(f"Results: {pages[0] if pages else self.out_dir}{self.marks}")


def pooled(runs: Sequence[Run]) -> Run:
    """What stands for all parts of a job: its people, the folder of the pooled results, and the weights of all."""
    first = runs[0]
    if not first.folds:
        return first
    up = int(first.repeats > 1)
    presets = {run.choices.preset for run in runs}
    most = max(
        runs, key=lambda run: (run.transductive, len(run.model.list_inputs(run.config)))
    )  # of those that were chosen
    choices = replace(first.choices, preset=", ".join(sorted(presets)), config=most.choices.config)
    return replace(
        first,
        choices=choices,
        config=most.config,
        fold="",
        repeat=0,
        begun="",
        cohort=first.folds.full_cohort,
        out_dir=first.out_dir.parents[up],
        checkpoints=replace(first.checkpoints, path=first.checkpoints.path.parents[up]),
        used={run.part: run.checkpoints.digest() for run in runs if run.checkpoints.whole},
        started=min(run.started for run in runs),
    )
