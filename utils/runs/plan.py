"""What the user asks for -> the runs of the job, with every choice made and checked: one for a split, else one for each
fold of each repeat. Nothing is written, and TensorFlow is not imported.

What the user does not say is as in the checkpoint that is continued or used, or else as usual. Repeat r takes the seed
plus r. It cuts numbered folds anew; of folds of a column it changes only the starts of the networks.
"""

import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import permutations
from pathlib import Path

from data.base.cli import MAX_SEED, list_flags, option, parse_positive_int
from data.base.cli import parse_seed_option as a_seed
from data.base.errors import InputError, compose_accents
from data.base.terminal import format_participants, print_summary
from data.cohorts import atlas
from data.cohorts.cohort import Cohort
from data.cohorts.division import WHOLE_SITES, Division, encode_folder_name
from data.cohorts.findings import format_check_line
from data.cohorts.folds import Folds, make_fold_folder, open_folds, open_repeat_folds, read_saved_seed
from data.cohorts.records import REDUCED
from data.cohorts.stored import open_run_cohort
from data.cohorts.variants import scale_phenotype_as, standardise_cohort, train_on_everybody
from models import MODELS, PRECISIONS, Model, Settings, override_settings
from utils.runs import guards, record
from utils.runs.candidates import PRESETS, Candidate, candidates, recorded
from utils.runs.checkpoints import EVERYBODY, OF_FOLDS, CheckpointFolder
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import Caveats, Choices, Record
from utils.runs.run import Job, Options, Run, pooled
from utils.runs.work import is_child

USUAL_CHECKPOINTS = Path("/data/ckpt")  # unless --chkPointDir says
NUM_ITERS = 200  # unless --numIters says
USUAL_RESULTS = Job.out_dir
NO_SCORE = "no test on folds goes with it either: --train --everybody --score FOLDER names one"
REPEAT = "repeat-{}"  # the name of a repeat's folders
PATTERN = "*?[\\"  # what TensorFlow reads in a path as a pattern of others
JOB, CUT = "job", "folds"  # groups of options
OF_LABELS = {"choose", "permutations"}
NEEDS = dict.fromkeys(("wholeSites", "fold", "jobs", "repeats", "choose", "permutations"), "folds")
NEEDS |= {"score": "everybody"}
EXCLUDES = {
    "jobs": ["fold"],
    "everybody": ["folds"],
    "choose": ["preset", "set"],
    "permutations": ["fold", "repeats"],
    "bundle": ["folds", "everybody", "preset", "set", "chkPointDir"],
}


@dataclass(frozen=True)
class TrainOptions(Options):
    """The options of --train: how long, from where, with which settings."""

    num_iters: int | None = option(
        None, f"train until N batches have been seen in all (default {NUM_ITERS})", type=parse_positive_int, metavar="N"
    )
    override_chkpt: bool = option(
        False, "start from zero; the old checkpoint stays until the first save", action="store_true"
    )
    choose: str | None = option(
        None,
        "compare presets (default all) or the lines of a file in inner folds, and train the best",
        nargs="?",
        const=PRESETS,
        metavar="A,B|FILE",
    )
    score: Path | None = option(
        None,
        "with --everybody: take score and settings from the test on folds in this --outDir",
        type=Path,
        metavar="DIR",
    )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user asks for; None where nothing is said. `given` names the options that are not at their default."""

    model: str = option("mmnn", "(default mmnn)", choices=sorted(MODELS), group=JOB)
    preset: str | None = option(None, "named hyper-parameters of the model", metavar="NAME", group=JOB)
    set: list[str] | None = option(
        None, "one hyper-parameter; may be repeated", action="append", metavar="KEY=VALUE", group=JOB
    )
    seed: int | None = option(
        None, "seed of weights, batch order, folds and resampling (default 0)", type=a_seed, metavar="N", group=JOB
    )
    dry_run: bool = option(False, "say who and how many trainings; write nothing", action="store_true", group=JOB)
    data_dir: Path | None = option(
        None, "cohort or folder of records (default: simulated demo)", type=Path, metavar="DIR", group="data"
    )
    chk_point_dir: Path = option(
        USUAL_CHECKPOINTS, "checkpoints (default /data/ckpt)", type=Path, metavar="DIR", group="data"
    )
    out_dir: Path | None = option(
        None, "results (default results/<model>-<job>)", type=Path, metavar="DIR", group="data"
    )
    folds: str | None = option(
        None,
        "test everybody: in N folds, or leaving out one value of COLUMN at a time",
        type=compose_accents,
        metavar="N|COLUMN",
        group=CUT,
    )
    whole_sites: bool = option(
        False, "with --folds N: a site's participants are all in one fold", action="store_true", group=CUT
    )
    fold: str | None = option(
        None, "do one fold only: its number from 0, or its site", type=compose_accents, metavar="K", group=CUT
    )
    repeats: int = option(
        1,
        "do it R times, each with the next seed, and take the mean (default 1)",
        type=parse_positive_int,
        metavar="R",
        group=CUT,
    )
    jobs: int = option(1, "do J folds at a time (default 1)", type=parse_positive_int, metavar="J", group=CUT)
    everybody: bool = option(
        False,
        "one model of all participants, for use elsewhere; --test and --blackout use it on others",
        action="store_true",
        group=CUT,
    )
    precision: str | None = option(
        None, "precision of the layers (default float32)", choices=PRECISIONS, group="machine"
    )
    share_GPU: bool = option(  # noqa: N815  the flag is --shareGPU
        False, "use a GPU although other processes hold it", action="store_true", group="machine"
    )
    job: Job
    options: Options
    given: frozenset[str]
    trained: CheckpointFolder | None = None  # of a bundle, in place of those in `chk_point_dir`
    cross_validation: CrossValidation | None = None  # whose settings are the defaults of a training on everybody

    @property
    def network(self) -> Model:
        return MODELS[self.model]

    @property
    def training(self) -> TrainOptions | None:
        """The options of a training; None for other jobs, which use its checkpoint."""
        return self.options if isinstance(self.options, TrainOptions) else None

    @property
    def override(self) -> bool:
        return self.training is not None and self.training.override_chkpt

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """What --choose compares. Raises InputError."""
        text = self.training.choose if self.training else None
        return () if text is None else candidates(text, self.network)

    @property
    def division(self) -> str:
        """The name of the `Division`; empty without folds."""
        return f"{self.folds or ''}{WHOLE_SITES if self.whole_sites else ''}"

    @property
    def kept(self) -> Path:
        """Where the checkpoints are: of all folds, or of the one network."""
        folder = self.chk_point_dir / self.model
        if self.folds:
            return folder / f"{OF_FOLDS}{encode_folder_name(self.division)}"
        return folder / EVERYBODY if self.everybody else folder

    @property
    def places(self) -> list[Path]:
        """Where the checkpoints of each repeat are."""
        several = [self.kept / REPEAT.format(number) for number in range(self.repeats)]
        return several if self.repeats > 1 else [self.kept]

    @property
    def training_command(self) -> str:
        """The command that makes the checkpoint."""
        given: list[tuple[str, object]] = [("--preset", self.preset), *(("--set", text) for text in self.set or ())]
        given += [("--chkPointDir", self.chk_point_dir), ("--dataDir", self.data_dir), ("--folds", self.folds)]
        given += [("--repeats", self.repeats if self.repeats > 1 else None)]
        words = [str(word) for pair in given if pair[1] for word in pair]
        words += ["--wholeSites"] if self.whole_sites else []
        words += ["--everybody"] if self.everybody else []
        return shlex.join(["run.py", "--train", "--model", self.model, *words])

    @cached_property
    def results(self) -> Path:
        """The folder of the results. Raises InputError if this, the checkpoints and the cohort are not kept apart."""
        out_dir = self.out_dir or self.usual_results
        check_apart({"--outDir": out_dir, "--chkPointDir": self.chk_point_dir / self.model, "--dataDir": self.data_dir})
        return out_dir

    @property
    def usual_results(self) -> Path:
        """Where results go unless --outDir says."""
        beside = self.data_dir.resolve() if self.data_dir else Path()
        template = self.job.out_dir if self.data_dir else USUAL_RESULTS
        if template == USUAL_RESULTS:
            template += "-everybody" if self.everybody else ""
            template += f"-folds-{encode_folder_name(self.division)}" if self.folds else ""
            template += "-repeats" if self.repeats > 1 else ""
        return Path(template.format(model=self.model, job=self.job.name, data=beside.parent / beside.name))

    @property
    def source(self) -> Path:
        """The cohort; the demo cohort on the grid that the model reads unless the user names one."""
        if self.data_dir:
            return self.data_dir
        from data.demo import load_demo_cohort  # pandas and scikit-learn are needed only where a cohort is made

        return load_demo_cohort(self.network.required_grid or REDUCED)

    def config(self, saved: Record | None) -> tuple[str, Settings]:
        """The preset's name and the hyper-parameters, as `saved` unless the user says. Raises InputError."""
        presets, before = self.network.module.PRESETS, saved.settings if saved else self.cross_validation
        name = self.preset or (before.preset if before else next(iter(presets)))
        if name not in presets:
            raise InputError(f"--preset {name} is unknown to {self.model}; expected one of {', '.join(presets)}.")
        base = self.network.parse_settings(before.config) if before and name == before.preset else presets[name]
        return name, override_settings(base, self.set or [])


@dataclass(frozen=True)
class Part:
    """Where one run of a job reads and writes: its cohort, its checkpoint and results, what it is of all."""

    cohort: Cohort
    kept: Path
    out_dir: Path
    folds: Folds | None = None
    fold: str = ""
    repeat: int = 0
    is_asked: bool = True


def check_apart(named: Mapping[str, Path | None]) -> None:
    """Raises InputError for a folder that is another one or lies in it, through links, too; and for one that TensorFlow
    would read as a pattern of others, which it would delete."""
    folders = {flag: Path(os.path.realpath(path)) for flag, path in named.items() if path}
    for (flag, inner), (other, outer) in permutations(folders.items(), 2):
        if outer in (inner, *inner.parents):
            raise InputError(
                f"{flag} {named[flag]} is {other} {named[other]}, or lies in it; keep results, checkpoints and cohorts "
                "in folders of their own."
            )
    if odd := sorted(set(str(named["--chkPointDir"])) & set(PATTERN)):
        raise InputError(
            f"--chkPointDir {named['--chkPointDir']} holds {' '.join(odd)}, which TensorFlow reads as a pattern of "
            f"other folders; name a folder without {' '.join(PATTERN)}."
        )


def plan(asked: Asked, jobs: Iterable[Job]) -> list[Run]:
    """The runs of the job, those that are to be done checked. Raises InputError for the first thing that is wrong; of
    `jobs` the options are known that this one does not take."""
    check_options(asked, jobs)
    asked = replace(asked, seed=seed_of(asked))
    if asked.preset or not asked.kept.exists():
        asked.config(None)  # a mistake there is reported before the cohort is read
    _ = asked.results, asked.candidates
    runs = [*runs_of(asked)]
    stands = pooled(runs)
    print_before(stands)
    if asked.everybody:
        score = stands.cross_validation
        print(f"{stands.checkpoints.path} is of everybody and has no score of its own; {score or NO_SCORE}.")
        if score and score.chosen:
            print(score.choice)
    for run in runs:
        if run.is_asked and run.is_due():
            run.job.check(run, run.checkpoints.record() if is_used(asked, run.checkpoints) else None)
    record.check_free(stands.out_dir, asked.job.name, asked.model)
    return runs


def check_options(asked: Asked, jobs: Iterable[Job]) -> None:
    """Raises InputError for options that do not go together."""
    if is_child():  # whoever started it has checked them
        return
    job, model, given = asked.job, asked.network, asked.given
    for name in sorted(given - {*list_flags(job.options)}):
        if takers := [other.flag for other in jobs if name in list_flags(other.options)]:
            raise InputError(f"--{name} goes with {' or '.join(takers)}, not with {job.flag}; leave it out.")
    if job.needs and not getattr(model, job.needs):
        able = " or ".join(name for name, other in MODELS.items() if getattr(other, job.needs))
        raise InputError(job.refusal.format(able=able, model=model.model_name))
    if asked.repeats > 1 and not job.is_repeated:
        raise InputError(f"--repeats {asked.repeats} is not for {job.flag}, which is done once; leave it out.")
    for name in sorted(given & OF_LABELS):
        if model.predicted != "label":
            raise InputError(f"--{name} is about the label, which {model.model_name} does not predict; leave it out.")
    for name, other in NEEDS.items():
        if name in given and other not in given:
            raise InputError(f"--{name} goes with --{other}; name that, too, or leave --{name} out.")
    for name, others in EXCLUDES.items():
        if name in given and (odd := [other for other in others if other in given]):
            raise InputError(f"--{name} and --{odd[0]} exclude each other; leave one out.")
    if asked.folds and asked.folds.endswith(WHOLE_SITES):
        raise InputError(f"--folds {asked.folds} is the name of a folder; write {Division.parse(asked.folds).flags}.")
    if asked.whole_sites and asked.folds and Division.parse(asked.folds).column:
        raise InputError(
            f"--wholeSites goes with a number of folds, as in --folds 10, not with --folds {asked.folds}; leave it out."
        )


def runs_of(asked: Asked) -> Iterator[Run]:
    """Each run, not checked yet."""
    parts = [*parts_of(asked)]
    folders = [asked.trained or checkpoints_of(asked, part) for part in parts]
    saved = [asked_record(asked, part, folder) for part, folder in zip(parts, folders, strict=True)]
    usual = next(filter(None, saved), None)  # a fold that is not trained yet is as one that is
    moments = None
    for part, folder, of in zip(parts, folders, saved, strict=True):
        run = run_of(asked, part, folder, of, of or usual)
        if run.transductive and not (
            part.folds and part.folds.reduced_cohort_by_fold
        ):  # sites are the same in all folds
            moments = moments or run.cohort.moments_by_site
            run = replace(run, cohort=replace(run.cohort, moments_by_site=moments))
        yield run


def checkpoints_of(asked: Asked, part: Part) -> CheckpointFolder:
    """The folder of a run's checkpoints. New people, as of `convert --like`, do not train them: the command that does
    names the cohort of the training, or COHORT if that is not known."""
    folder = CheckpointFolder(part.kept, asked.training_command)
    if part.cohort.split_subjects("train"):
        return folder
    trained = replace(asked, data_dir=Path(folder.cohort_of_training or "COHORT"))
    return replace(folder, training=trained.training_command)


def parts_of(asked: Asked) -> Iterator[Part]:
    """The cohort and the folders of each run. Raises InputError if the cohort cannot be divided as is asked for."""
    out_dir = asked.results
    if not asked.folds:
        cohort = open_run_cohort(asked.source)
        if asked.everybody and asked.training:
            cohort = of_everybody(cohort)
        yield Part(cohort, asked.kept, out_dir)
        return
    seed = asked.seed or 0
    folds = open_folds(asked.source, asked.division, seed, asked.places[0])
    for note in folds.warnings:
        print(note, flush=True)
    if asked.repeats > 1 and (folds.reduced_cohort_by_fold or not folds.are_numbered):
        print("The repeats have the same folds, and differ in the networks' starts only.", flush=True)
    asked_fold = None if asked.fold is None else folds.find_fold(asked.fold)
    for number, place in enumerate(asked.places):
        cut = open_repeat_folds(folds, seed + number, place) if number else folds
        of_repeat = out_dir / REPEAT.format(number) if asked.repeats > 1 else out_dir
        for name in cut.fold_names:
            results, is_asked = make_fold_folder(of_repeat, name), asked_fold in (None, name)
            yield Part(
                cut.make_fold_cohort(name), place / encode_folder_name(name), results, cut, name, number, is_asked
            )


def seed_of(asked: Asked) -> int:
    """The seed: the user's, or that of the trainings that are continued or used. Raises InputError if it leaves none
    for all repeats."""
    seed = asked.seed
    if seed is None:
        folder = asked.trained or CheckpointFolder(asked.kept)
        saved = folder.record().settings if folder.whole and not asked.override else None
        seed = read_saved_seed(asked.places[0]) if asked.folds else saved.seed if saved else 0
    if seed + asked.repeats - 1 > MAX_SEED:
        raise InputError(f"--seed {seed} leaves no seeds for {asked.repeats} repeats; use a smaller one.")
    return seed


def of_everybody(cohort: Cohort) -> Cohort:
    """The cohort with everybody to train on; people without a label, and a phenotype that stays, are printed."""
    found = train_on_everybody(cohort)
    if unlabelled := [row.subject for row in found.rows if row.split == "test"]:
        print(f"Not trained on, since no label is known of them: {format_participants(len(set(unlabelled)))}.")
    if found.raw_phenotype is None:
        print(f"{cohort.path} has no phenotype.csv: the phenotype stays as it is stored, scaled on whomever it was.")
    return found


def is_used(asked: Asked, folder: CheckpointFolder) -> bool:
    """Whether a run uses or continues the checkpoint in a folder."""
    return asked.job.needs_checkpoint or (folder.exists and not asked.override)


def asked_record(asked: Asked, part: Part, folder: CheckpointFolder) -> Record | None:
    """The record of the checkpoint to continue or to use; None to start from zero. Raises InputError if one that is
    needed is missing, or one that is there is of another model or fold."""
    if not is_used(asked, folder) or not (folder.exists or part.is_asked):
        return None
    if asked.job.needs_checkpoint:
        guards.trained_otherwise(folder, asked.chk_point_dir / asked.model)
        folder.tell_of_training()
    saved = folder.record()
    if damaged := folder.damaged:
        print(
            f"{', '.join(damaged)} in {folder.path} does not have its digest; used instead: "
            f"{folder.latest().name}, of iteration {saved.step}.",
            flush=True,
        )
    there, here = (saved.model, saved.fold or "", saved.repeat), (asked.model, part.fold, part.repeat)
    if there != here:
        its, own = (f"{model}, fold {fold or 'none'}, repeat {repeat}" for model, fold, repeat in (there, here))
        raise InputError(
            f"{folder.path} is of model {its}, not of {own}; were folders exchanged? Give each its own name, or use "
            f"{guards.OTHER}."
        )
    return saved


def run_of(asked: Asked, part: Part, folder: CheckpointFolder, saved: Record | None, like: Record | None) -> Run:
    """A run with every choice made, as `like` where the user says nothing. Raises InputError."""
    model, training, of_folds = asked.network, asked.training, asked.cross_validation
    of_folds = of_folds or (saved.cross_validation if saved else None)
    preset, config = asked.config(like)
    check_grid(asked, part.cohort)
    cohort = part.cohort
    if saved and saved.preparation and not (training or part.folds):  # new people
        cohort = scale_phenotype_as(cohort, saved.preparation)
    explicit = [saved, *(text for text in asked.set or () if text.startswith("connectome="))]
    config = of_cohort(config, part.cohort, model, explicit)
    compared = asked.candidates
    if like and not training:  # what a permutation repeats
        compared = tuple(recorded(text, model) for text in like.candidates)
    compared = tuple(replace(one, config=of_cohort(one.config, part.cohort, model, one.changes)) for one in compared)
    before = like.settings if like else None
    usual = of_folds.num_iters if of_folds and training else NUM_ITERS
    choices = Choices(
        model=model.model_name,
        preset=preset,
        config=asdict(config),
        grid=part.cohort.grid.name if "volume" in model.input_names else None,
        seed=(asked.seed or 0) + part.repeat,
        precision=asked.precision or (before.precision if before else of_folds.precision if of_folds else "float32"),
    )
    run = Run(
        job=asked.job,
        choices=choices,
        config=config,
        options=asked.options,
        cohort=cohort,
        data_dir=asked.data_dir,
        checkpoints=folder,
        out_dir=part.out_dir,
        num_iters=(training.num_iters or usual) if training else like.step if like else 0,
        override=asked.override,
        folds=part.folds,
        fold=part.fold,
        repeat=part.repeat,
        repeats=asked.repeats,
        is_asked=part.is_asked,
        candidates=compared,
        everybody=asked.everybody or bool(saved and saved.everybody),
        cross_validation=of_folds,
        trained_with=of_others(saved) if asked.trained and saved else Caveats(),
        begun=saved.begun if saved and training else "",
    )
    kept_in = asked.chk_point_dir / atlas.MEANS_FOLDER
    cohort = standardise_cohort(run.cohort, run.standard)
    return replace(run, cohort=cohort if asked.trained else replace(cohort, means_folder=kept_in))


def of_others(saved: Record) -> Caveats:
    """What must stand beside whatever the network of a bundle says: the caveats of the cohort that trained them."""
    problems = tuple(f"of the training participants: {text}" for text in saved.caveats.problems)
    return replace(saved.caveats, problems=problems, transductive=False, unknown_site=False)


def of_cohort(config: Settings, cohort: Cohort, model: Model, explicit: Collection[object]) -> Settings:
    """The hyper-parameters, without connectomes if the cohort has none. Raises InputError if something `explicit`
    needs them: a checkpoint, or what the user says."""
    if cohort.connectomes or "connectome" not in model.list_inputs(config):
        return config
    if any(explicit):
        raise InputError(
            f"{cohort.path} has no connectomes, and the checkpoint, or --set connectome=true, reads them; convert it "
            "with --connectome, or --like the cohort or bundle that was trained, or leave that out."
        )
    return override_settings(config, ["connectome=false"])


def check_grid(asked: Asked, cohort: Cohort) -> None:
    """Raises InputError if the cohort's volumes do not fit the model."""
    model = asked.network
    if model.required_grid is None or cohort.grid == model.required_grid:
        return
    advice = "abide-data convert --grid full makes such volumes of the maps"
    if model.required_grid == REDUCED:
        full_pass = ["run.py", "--model", "cae", "--dataDir", asked.data_dir, "--chkPointDir", asked.chk_point_dir]
        advice = f"reduce it: {shlex.join(map(str, full_pass))} (or abide-data convert --grid reduced)"
    raise InputError(f"{cohort.path} is {cohort.grid}, {model.model_name} reads {model.required_grid}; {advice}.")


def print_before(run: Run) -> None:
    """Prints what a user must know before anything is done; before a training what the cohort holds."""
    cohort, folds = run.cohort, run.folds
    census = cohort.take_census(folds.fold_by_subject if folds else None)
    facts = [] if run.job.needs_checkpoint else [*census.make_count_rows("sites")]
    facts += [("note", text) for text in census.list_texts("notes") if facts]
    if cohort.is_simulated:
        facts.append(("SIMULATED", "the results say nothing about people"))
    if run.transductive:
        how = "each site is standardised by its own participants, tested ones too (their volumes, not their labels)"
        facts.append(("TRANSDUCTIVE", how))
    usual = run.checkpoints.path.is_relative_to(USUAL_CHECKPOINTS)
    if usual and not (run.job.needs_checkpoint or USUAL_CHECKPOINTS.exists()):
        facts.append(("checkpoints", f"{USUAL_CHECKPOINTS} is made for them; --chkPointDir names another folder"))
    if run.data_dir:
        checked = folds.unchecked_cohort if folds else cohort
        facts.append(
            ("checked", format_check_line(checked.verdict, run.caveats.problems, checked.tables_folder or checked.path))
        )
    print_summary(facts)
