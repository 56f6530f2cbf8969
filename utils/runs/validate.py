"""Options -> a `Request`, once they go together -> a `Run` with every choice made and checked; nothing is written and
TensorFlow is not imported."""

import argparse
import dataclasses
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from data.base.cli import flags, option, options_of, positive
from data.base.errors import InputError
from data.cohorts import atlas
from data.cohorts.cohort import Cohort
from data.cohorts.findings import check_line
from data.cohorts.records import REDUCED
from data.cohorts.stored import sealed
from models import MODELS, Model, Settings, override
from utils.runs import guards
from utils.runs.candidates import PRESETS, Candidates, candidates
from utils.runs.checkpoints import CheckpointFolder, Choices, Identity
from utils.runs.cross_validation import CrossValidation
from utils.runs.folders import check_pattern, check_places
from utils.runs.run import Job, Options, Run

USUAL_CHECKPOINTS = Path("/data/ckpt")  # unless --chkPointDir says
NUM_ITERS = 200  # unless --numIters says
USUAL_RESULTS = Job.out_dir


def single_run(asked: "Request") -> Run:
    """The run without folds. Raises InputError for the first thing that is wrong. The demo cohort, if it is used, is
    made."""
    args, model = asked.args, asked.model
    checkpoints = CheckpointFolder(args.chkPointDir / model.name, asked.training_command)
    saved = asked.saved(checkpoints)
    asked.config(saved)  # a mistake there is reported before the cohort is read
    out_dir = asked.out_dir(saved)
    cohort = sealed(asked.data_dir)
    report_simulated(cohort)
    run = asked.run(checkpoints, saved, cohort, out_dir)
    report(run, cohort)
    guards.check(run, saved)
    return run


@dataclass(frozen=True)
class TrainOptions(Options):
    """The options of --train: how long, from where, on which labels."""

    num_iters: int | None = option(
        None, f"train until N batches have been seen in all (default {NUM_ITERS})", type=positive, metavar="N"
    )
    override_chkpt: bool = option(
        False, "start from zero; the old checkpoint stays until the first save", action="store_true"
    )
    score: Path | None = option(
        None,
        "with --everybody: take score and settings from the test on folds in this --outDir",
        type=Path,
        metavar="DIR",
    )


@dataclass(frozen=True)
class Request:
    """What the user asks for, and how it is completed: by the checkpoint's choices, else by the defaults."""

    args: argparse.Namespace
    cross_validation: CrossValidation | None = None  # whose settings are the defaults of a training on everybody

    @property
    def job(self) -> Job:
        return self.args.job

    @property
    def model(self) -> Model:
        return MODELS[self.args.model]

    @cached_property
    def options(self) -> Options:
        return options_of(self.args, self.job.options)

    @property
    def data_dir(self) -> Path:
        """The cohort; the demo cohort on the grid that the model reads unless the user names one."""
        if self.args.dataDir:
            return self.args.dataDir
        from data.demo import demo_cohort  # pandas and scikit-learn are needed only where a cohort is made

        return demo_cohort(self.model.grid or REDUCED)

    @property
    def training_command(self) -> str:
        """The command that makes the checkpoint."""
        args = self.args
        given = [] if args.choose is not None else [("--preset", args.preset), *(("--set", text) for text in args.set)]
        given += [("--choose", None if args.choose == PRESETS else args.choose), ("--chkPointDir", args.chkPointDir)]
        given += [("--dataDir", args.dataDir), ("--folds", args.folds), ("--score", getattr(args, "score", None))]
        given += [("--repeats", args.repeats if self.is_repeated else None)]
        words = [str(word) for pair in given if pair[1] for word in pair]
        words += ["--choose"] if args.choose == PRESETS else []
        words += ["--everybody"] if args.everybody else []
        return shlex.join(["run.py", "--train", "--model", self.model.name, *words])

    @cached_property
    def candidates(self) -> Candidates | None:
        """What --choose compares. Raises InputError."""
        return None if self.args.choose is None else candidates(self.args.choose, self.model)

    @property
    def of_choice(self) -> str:
        """What names of folders say of the candidates."""
        return f"-choose-{self.candidates.digest}" if self.candidates else ""

    @property
    def is_repeated(self) -> bool:
        return self.args.repeats > 1

    @property
    def training(self) -> TrainOptions | None:
        """The options of a training; None for other jobs, which use its checkpoint."""
        return self.options if isinstance(self.options, TrainOptions) else None

    def of_fold(self, fold: str | None) -> "Request":
        """The same for another process, which does one fold."""
        return replace(self, args=argparse.Namespace(**vars(self.args) | {"fold": fold, "jobs": 1}))

    def saved(self, checkpoints: CheckpointFolder) -> Identity | None:
        """The identity of the checkpoint to continue or to use; None to start from zero. Raises InputError if one that
        is needed is missing, or one that is there is of another model."""
        anew = self.training is None or self.training.override_chkpt or checkpoints.current is None
        if not self.job.needs_checkpoint and anew:
            return None
        if self.job.needs_checkpoint:
            checkpoints.tell_of_training()
        return self.usable(checkpoints)

    def usable(self, used: CheckpointFolder) -> Identity:
        """The identity of the checkpoint in a folder. Raises InputError as `saved` does."""
        saved = used.identity()
        if used.damaged:
            print(
                f"{', '.join(used.damaged)} in {used.path} does not have its digest; used instead: "
                f"{used.latest().name}, of iteration {saved.step}.",
                flush=True,
            )
        if saved.model != self.model.name:
            raise InputError(
                f"{used.path} is of model {saved.model}, this run of {self.model.name}; use {guards.OTHER}."
            )
        return saved

    def config(self, saved: Identity | None) -> tuple[str, Settings]:
        """The preset's name and the hyper-parameters."""
        presets = self.model.module.PRESETS
        settled = saved or self.cross_validation
        name = self.args.preset or (settled.preset if settled else next(iter(presets)))
        if name not in presets:
            raise InputError(f"--preset {name} is unknown to {self.model.name}; expected one of {', '.join(presets)}.")
        same = settled is not None and name == settled.preset
        base = self.model.settings(settled.config) if settled and same else presets[name]
        return name, override(base, self.args.set)

    def run(self, checkpoints: CheckpointFolder, saved: Identity | None, cohort: Cohort, out_dir: Path) -> Run:
        """The run with every choice made. Raises InputError."""
        args, training = self.args, self.training
        preset, config = self.config(saved)
        config = self.of_cohort(config, saved, cohort)
        self.check_grid(cohort)
        settled = saved or self.cross_validation
        usual = self.cross_validation.num_iters if self.cross_validation else NUM_ITERS
        seed = args.seed if args.seed is not None else saved.seed if saved else 0
        choices = Choices(
            model=self.model.name,
            preset=preset,
            config=dataclasses.asdict(config),
            grid=cohort.grid.name if "volume" in self.model.reads else None,
            seed=seed,
            precision=args.precision or (settled.precision if settled else "float32"),
        )
        run = Run(
            job=self.job,
            choices=choices,
            config=config,
            options=self.options,
            cohort=cohort,
            data_dir=args.dataDir,
            checkpoints=checkpoints,
            out_dir=out_dir,
            num_iters=(training.num_iters or usual) if training else saved.step if saved else 0,
            override=training is not None and training.override_chkpt,
        )
        kept_in = args.chkPointDir / atlas.MEANS
        if run.transductive:
            from data.cohorts.variants import within_sites

            return replace(run, cohort=replace(within_sites(run.cohort), kept_in=kept_in))
        return replace(run, cohort=replace(run.cohort, standard=run.standard, kept_in=kept_in))

    def of_cohort(self, config: Settings, saved: Identity | None, cohort: Cohort) -> Settings:
        """The hyper-parameters, without connectomes if the cohort has none. Raises InputError if the user or a
        checkpoint needs them."""
        if cohort.connectomes or "connectome" not in self.model.inputs(config):
            return config
        if saved or any(text.startswith("connectome=") for text in self.args.set):
            wanted = "the checkpoint reads them" if saved else "--set connectome=true asks for them"
            instead = f"use {guards.OTHER}" if saved else "leave it out"
            raise InputError(
                f"{cohort.path} has no connectomes, and {wanted}; convert it with --connectome, or {instead}."
            )
        return override(config, ["connectome=false"])

    def check_grid(self, cohort: Cohort) -> None:
        """Raises InputError if the cohort's volumes do not fit the model."""
        model = self.model
        if model.grid is None or cohort.grid == model.grid:
            return
        advice = "abide-data convert --grid full makes such volumes of the maps"
        if model.grid == REDUCED:
            full_pass = ["run.py", "--model", "cae", "--dataDir", self.args.dataDir]
            full_pass += ["--chkPointDir", self.args.chkPointDir]
            advice = f"reduce it: {shlex.join(map(str, full_pass))} (or abide-data convert --grid reduced)"
        raise InputError(f"{cohort.path} is {cohort.grid}, {model.name} reads {model.grid}; {advice}.")

    def out_dir(self, saved: Identity | None) -> Path:
        """The folder of the results. Raises InputError if this, the checkpoints and the cohort are not kept apart."""
        args, out_dir = self.args, self.args.outDir or self.default_folder(saved)
        written = args.chkPointDir / self.model.name if self.training else None
        check_places(out_dir, args.chkPointDir, args.dataDir, written)
        return out_dir

    def default_folder(self, saved: Identity | None) -> Path:
        """Where results go unless --outDir says: a training is continued where it was."""
        args = self.args
        if saved is not None and self.training:
            folder, here = Path(saved.out_dir), Path.cwd()
            folder = [folder, *folder.parents][bool(args.folds) + (self.is_repeated or args.choose is not None)]
            return folder.relative_to(here) if here in folder.parents else folder
        beside = args.dataDir.resolve() if args.dataDir else Path()
        template = self.job.out_dir if args.dataDir else USUAL_RESULTS
        template += "-everybody" if args.everybody and template == USUAL_RESULTS else ""
        if args.folds and template == USUAL_RESULTS:
            from data.cohorts.division import folder_name

            template += f"-folds-{folder_name(args.folds)}{'-repeats' if self.is_repeated else ''}{self.of_choice}"
        return Path(template.format(model=self.model.name, job=self.job.name, data=beside.parent / beside.name))


def request(args: argparse.Namespace, given: set[str], jobs: Iterable[Job]) -> Request:
    """What the user asks for; `given` names the options that are not at their default. Raises InputError for the first
    thing that is wrong with the options themselves."""
    asked = Request(args)
    job, model = asked.job, asked.model
    check_options(job, given, jobs)
    check_pattern(args.chkPointDir)
    if job.needs and not getattr(model, job.needs):
        able = " or ".join(name for name, other in MODELS.items() if getattr(other, job.needs))
        raise InputError(job.refusal.format(able=able, model=model.name))
    if args.jobs > 1 and (args.fold or not args.folds):
        raise InputError(
            f"--jobs {args.jobs} counts folds that are done at a time; use it with --folds, without --fold."
        )
    if args.fold and not args.folds:
        raise InputError(f"--fold {args.fold} is one of several; say with --folds how they are cut.")
    if asked.is_repeated and not job.is_repeated:
        raise InputError(f"--repeats {args.repeats} is not for {job.flag}, which is done once; leave it out.")
    if asked.is_repeated and not args.folds:
        raise InputError(f"--repeats {args.repeats} repeats a run on folds; say with --folds how they are cut.")
    if args.choose is not None:
        check_choice(asked, given)
    check_everybody(asked, given)
    asked.out_dir(None)  # looks at the folders
    return asked


def check_choice(asked: Request, given: set[str]) -> None:
    """Raises InputError if --choose is not for such a run, or has no candidates."""
    args, job, model = asked.args, asked.job, asked.model
    if model.predicts != "label" or not job.is_repeated:
        what = model.name if model.predicts != "label" else job.flag
        raise InputError(f"--choose compares classifiers by their predictions of the label, not {what}; leave it out.")
    if not args.folds:
        raise InputError("--choose compares candidates within folds; say with --folds how they are cut.")
    if asked.is_repeated:
        raise InputError(f"--choose is done with one seed; leave --repeats {args.repeats} out.")
    if other := sorted(given & {"preset", "set"}):
        raise InputError(f"--choose names the settings that are compared; leave --{other[0]} out.")
    _ = asked.candidates


def check_everybody(asked: Request, given: set[str]) -> None:
    """Raises InputError if a model of everybody is not for such a run."""
    if not asked.args.everybody:
        if "score" in given:
            raise InputError("--score goes with --everybody, which leaves nobody to test on; leave it out.")
        if "prevalence" in given and not asked.args.bundle:
            raise InputError("--prevalence goes with --bundle, whose probabilities are calibrated; leave it out.")
        return
    if other := next((name for name in ("folds", "choose") if name in given), None):
        raise InputError(f"--everybody trains one model of all people, --{other} trains several; leave one out.")


def check_options(job: Job, given: set[str], jobs: Iterable[Job]) -> None:
    """Raises InputError for an option that other jobs take and this one does not."""
    for name in sorted(given - set(flags(job.options))):
        if takers := [other.flag for other in jobs if name in flags(other.options)]:
            only = " or ".join(takers)
            raise InputError(f"--{name} goes with {only}, not with {job.flag}; leave it out.")


def report_simulated(cohort: Cohort) -> None:
    if cohort.simulated:
        print("Data: the demo cohort. It is SIMULATED; its results say nothing about people.", flush=True)


def report(run: Run, cohort: Cohort) -> None:
    """Prints a warning if people who are tested standardise sites, before a training what the cohort holds, and what
    its check has found."""
    if run.transductive:
        sites = len({row.site for row in run.cohort.rows})
        print(
            f"TRANSDUCTIVE: each of {sites} site{'s' if sites > 1 else ''} is standardised by its own people, tested "
            "ones too (their volumes, not their labels).",
            flush=True,
        )
    usual = run.checkpoints.path.is_relative_to(USUAL_CHECKPOINTS)
    if usual and not (run.job.needs_checkpoint or USUAL_CHECKPOINTS.exists()):
        print(f"Checkpoints go to {USUAL_CHECKPOINTS}, which does not exist yet; --chkPointDir names another folder.")
    if not run.job.needs_checkpoint:
        print("\n".join(cohort.census(run.folds.fold_of if run.folds else None).lines()), flush=True)
    if run.data_dir:
        checked = run.folds.unchecked if run.folds else cohort
        print(check_line(checked.verdict, run.caveats.problems, checked.tables or checked.path), flush=True)
