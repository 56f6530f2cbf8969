"""What the user asks for -> the runs of the job, with every choice made and checked: one for a split, else one for each
fold of each repeat. Nothing is written, and TensorFlow is not imported.

What the user does not say is as in the checkpoint that is continued or used, or else as usual. Repeat r takes the seed
plus r. It cuts numbered folds anew; of folds of a column it changes only the starts of the networks.
"""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from pathlib import Path

from data.base.cli import list_flags, option, parse_positive_int
from data.base.cli import parse_seed_option as seed_type
from data.base.errors import InputError, compose_accents
from data.base.terminal import SummaryRow, format_participants, print_summary
from data.cohorts import parcel_means
from data.cohorts.cohort import Cohort
from data.cohorts.division import WHOLE_SITES, check_division_flags, encode_folder_name
from data.cohorts.findings import format_check_line
from data.cohorts.folds import (
    Folds,
    check_seeds_suffice,
    make_fold_folder_path,
    open_folds,
    open_repeat_folds,
    open_undivided_cohort,
    read_saved_fold_seed,
)
from data.cohorts.problems import Problem
from data.cohorts.stored import open_run_cohort
from data.cohorts.variants import scale_phenotype_as, standardise_cohort, train_on_everybody
from data.images.grids import REDUCED
from models import MODELS, PRECISIONS, Model, Settings, override_settings
from utils.runs import guards, record
from utils.runs.candidates import ALL_PRESETS, Candidate, parse_candidate, parse_candidates
from utils.runs.checkpoints import EVERYBODY_FOLDER, FOLDS_FOLDER_PREFIX, CheckpointFolder
from utils.runs.cross_validation import CrossValidation
from utils.runs.group import RunGroup, RunPlan
from utils.runs.network import NetworkPredictor
from utils.runs.predictor import Predictor
from utils.runs.record import Caveats, Manifest
from utils.runs.run import Job, JobOptions, Run
from utils.runs.weights import TrainedNetwork, TrainedWeights
from utils.runs.work import is_child_process

DEFAULT_CHECKPOINTS = Path("/data/ckpt")  # unless --chkPointDir says
DEFAULT_NUM_ITERS = 200  # unless --numIters says
DEFAULT_RESULTS_PATTERN = Job.results_path_pattern
NO_FOLD_SCORE = "no test on folds goes with it either: --train --everybody --score FOLDER names one"
REPEAT_FOLDER = "repeat-{}"  # the name of a repeat's folders
BASELINES_FOLDER = "baselines"  # in --chkPointDir
PATTERN_CHARACTERS = "*?[\\"  # what TensorFlow reads in a path as a pattern of others
JOB_GROUP = "job"
FOLDS_GROUP = "folds"  # groups of options
WORD_BY_INPUT = {"volume": "maps", "phenotype": "phenotype", "connectome": "connectomes"}  # of networks, for users
CONVERT_ADVICE_BY_INPUT = {
    "volume": "convert it with --maps",
    "phenotype": "convert it with --phenotype",
    "connectome": "convert it with --connectome",
}
OPTIONS_NEEDING_LABEL = {"choose", "permutations"}
REQUIRED_OPTION_BY_OPTION = dict.fromkeys(("wholeSites", "fold", "jobs", "repeats", "choose", "permutations"), "folds")
REQUIRED_OPTION_BY_OPTION |= {"score": "everybody"} | dict.fromkeys(("inputs", "debug"), "estimator")
REQUIRED_OPTION_BY_OPTION["control"] = "predictions"
EXCLUDED_OPTIONS_BY_OPTION = {
    "jobs": ["fold"],
    "everybody": ["folds"],
    "choose": ["preset", "set"],
    "permutations": ["fold", "repeats"],
    "estimator": ["bundle", "everybody", "model", "preset", "set", "precision", "prevalence"],
    "predictions": [
        *("estimator", "bundle", "everybody", "folds", "wholeSites", "fold", "repeats", "jobs"),
        *("model", "preset", "set", "precision", "permutations", "prevalence"),
    ],
    "bundle": ["folds", "everybody", "preset", "set", "chkPointDir"],
}


@dataclass(frozen=True)
class TrainOptions(JobOptions):
    """The options of --train: how long, from where, with which settings."""

    num_iters: int | None = option(
        None,
        f"train until N batches have been seen in all (default {DEFAULT_NUM_ITERS})",
        type=parse_positive_int,
        metavar="N",
    )
    override_chkpt: bool = option(
        False, "start from zero; the old checkpoint stays until the first save", action="store_true"
    )
    choose: str | None = option(
        None,
        "compare presets (default all) or the lines of a file in inner folds, and train the best",
        nargs="?",
        const=ALL_PRESETS,
        metavar="A,B|FILE",
    )
    score: Path | None = option(
        None,
        "with --everybody: take score and settings from the test on folds in this --outDir",
        type=Path,
        metavar="DIR",
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asks for; None where nothing is said."""

    model: str = option("mmnn", "(default mmnn)", choices=sorted(MODELS), group=JOB_GROUP)
    preset: str | None = option(None, "named hyper-parameters of the model", metavar="NAME", group=JOB_GROUP)
    set: list[str] | None = option(
        None, "one hyper-parameter; may be repeated", action="append", metavar="KEY=VALUE", group=JOB_GROUP
    )
    seed: int | None = option(
        None,
        "seed of weights, batch order, folds and resampling (default 0)",
        type=seed_type,
        metavar="N",
        group=JOB_GROUP,
    )
    dry_run: bool = option(False, "say who and how many trainings; write nothing", action="store_true", group=JOB_GROUP)
    data_dir: Path | None = option(
        None, "cohort or folder of records (default: simulated demo)", type=Path, metavar="DIR", group="data"
    )
    chk_point_dir: Path = option(
        DEFAULT_CHECKPOINTS, "checkpoints (default /data/ckpt)", type=Path, metavar="DIR", group="data"
    )
    out_dir: Path | None = option(
        None, "results (default results/<model>-<job>)", type=Path, metavar="DIR", group="data"
    )
    folds: str | None = option(
        None,
        "test everybody: in N folds, or leaving out one value of COLUMN at a time",
        type=compose_accents,
        metavar="N|COLUMN",
        group=FOLDS_GROUP,
    )
    whole_sites: bool = option(
        False, "with --folds N: a site's participants are all in one fold", action="store_true", group=FOLDS_GROUP
    )
    fold: str | None = option(
        None, "do one fold only: its number from 0, or its site", type=compose_accents, metavar="K", group=FOLDS_GROUP
    )
    repeats: int = option(
        1,
        "do it R times, each with the next seed, and take the mean (default 1)",
        type=parse_positive_int,
        metavar="R",
        group=FOLDS_GROUP,
    )
    jobs: int = option(1, "do J folds at a time (default 1)", type=parse_positive_int, metavar="J", group=FOLDS_GROUP)
    everybody: bool = option(
        False,
        "one model of all participants, for use elsewhere; --test and --blackout use it on others",
        action="store_true",
        group=FOLDS_GROUP,
    )
    precision: str | None = option(
        None, "precision of the layers (default float32)", choices=PRECISIONS, group="machine"
    )
    share_GPU: bool = option(  # noqa: N815  the flag is --shareGPU
        False, "use a GPU although other processes hold it", action="store_true", group="machine"
    )
    job: Job
    options: JobOptions
    non_default_options: frozenset[str]  # their names, without --
    bundle_file: TrainedWeights | None = None  # the weights of a bundle, in place of those in `chk_point_dir`
    predictor: Predictor | None = None  # the user's, in place of a network
    cross_validation: CrossValidation | None = None  # whose settings are the defaults of a training on everybody

    @property
    def model_spec(self) -> Model:
        return MODELS[self.model]

    @property
    def predictor_name(self) -> str:
        """The name of what is trained or used."""
        return self.predictor.name if self.predictor else self.model

    @property
    def brings_folds(self) -> bool:
        """Whether the folds are those of the user's predictor."""
        return self.predictor is not None and self.predictor.folds_option != ""

    @property
    def train_options(self) -> TrainOptions | None:
        """The options of a training; None for other jobs, which use its checkpoint."""
        return self.options if isinstance(self.options, TrainOptions) else None

    @property
    def overrides_checkpoint(self) -> bool:
        return self.train_options is not None and self.train_options.override_chkpt

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """What --choose compares. Raises InputError."""
        choose_text = self.train_options.choose if self.train_options else None
        return () if choose_text is None else parse_candidates(choose_text, self.model_spec)

    @property
    def division_name(self) -> str:
        """The name of the `Division`; empty without folds."""
        return f"{self.folds or ''}{WHOLE_SITES if self.whole_sites else ''}"

    @property
    def checkpoint_root(self) -> Path:
        """Where the checkpoints are: of all folds, or of the one network."""
        model_folder = self.chk_point_dir / self.predictor_name
        if self.folds:
            return model_folder / f"{FOLDS_FOLDER_PREFIX}{encode_folder_name(self.division_name)}"
        return model_folder / EVERYBODY_FOLDER if self.everybody else model_folder

    @property
    def repeat_checkpoint_folders(self) -> list[Path]:
        """Where the checkpoints of each repeat are."""
        if self.repeats == 1:
            return [self.checkpoint_root]
        return [self.checkpoint_root / REPEAT_FOLDER.format(repeat_number) for repeat_number in range(self.repeats)]

    @property
    def training_command(self) -> str:
        """The command that makes the checkpoint."""
        flags_and_values: list[tuple[str, object]] = [
            ("--preset", self.preset),
            *(("--set", setting_text) for setting_text in self.set or ()),
            ("--chkPointDir", self.chk_point_dir),
            ("--dataDir", self.data_dir),
            ("--folds", self.folds),
            ("--repeats", self.repeats if self.repeats > 1 else None),
        ]
        command_words = ["run.py", "--train", "--model", self.model]
        for flag, flag_value in flags_and_values:
            if flag_value:
                command_words += [flag, str(flag_value)]
        if self.whole_sites:
            command_words.append("--wholeSites")
        if self.everybody:
            command_words.append("--everybody")
        return shlex.join(command_words)

    @cached_property
    def results_folder(self) -> Path:
        """The folder of the results. Raises InputError if this, the checkpoints, the cohort and the results of other
        runs are not kept apart."""
        results_folder = self.out_dir or self.default_results_folder
        check_folders_apart(
            {
                "--outDir": results_folder,
                "--chkPointDir": self.chk_point_dir / self.predictor_name,
                "--dataDir": self.data_dir,
            }
        )
        record.check_outside_other_results(results_folder)
        return results_folder

    @property
    def default_results_folder(self) -> Path:
        """Where results go unless --outDir says."""
        cohort_folder = self.data_dir.resolve() if self.data_dir else Path()
        results_path_pattern = self.job.results_path_pattern if self.data_dir else DEFAULT_RESULTS_PATTERN
        if results_path_pattern == DEFAULT_RESULTS_PATTERN:
            results_path_pattern += "-everybody" if self.everybody else ""
            results_path_pattern += f"-folds-{encode_folder_name(self.division_name)}" if self.folds else ""
            results_path_pattern += "-repeats" if self.repeats > 1 else ""
        return Path(
            results_path_pattern.format(
                model=self.predictor_name, job=self.job.job_name, data=cohort_folder.parent / cohort_folder.name
            )
        )

    @property
    def cohort_path(self) -> Path:
        """The cohort; the demo cohort on the grid that the model reads unless the user names one."""
        if self.data_dir:
            return self.data_dir
        from data.demo import get_demo_cohort_path  # pandas and scikit-learn are needed only where a cohort is made

        required_grid = None if self.predictor else self.model_spec.required_grid
        return get_demo_cohort_path(required_grid or REDUCED)

    def choose_preset_and_config(self, checkpoint_manifest: Manifest | None) -> tuple[str, Settings]:
        """The preset's name and the hyper-parameters, as in `checkpoint_manifest` unless the user says otherwise.
        Raises InputError."""
        config_by_preset = self.model_spec.module.PRESETS
        first_preset_name = next(iter(config_by_preset))
        inherited_choices = checkpoint_manifest.settings if checkpoint_manifest else self.cross_validation
        preset_name = self.preset or (inherited_choices.preset if inherited_choices else first_preset_name)
        if preset_name not in config_by_preset:
            raise InputError(
                f"--preset {preset_name} is unknown to {self.model}; expected one of {', '.join(config_by_preset)}."
            )
        if inherited_choices and preset_name == inherited_choices.preset:
            base_config = self.model_spec.parse_settings(inherited_choices.config)
        else:
            base_config = config_by_preset[preset_name]
        return preset_name, override_settings(base_config, self.set or [])


@dataclass(frozen=True)
class RunLocation:
    """Where one run of a job reads and writes: its cohort, its checkpoint and results, and which of all runs it is."""

    cohort: Cohort
    checkpoint_folder: Path
    results_folder: Path
    folds: Folds | None = None
    fold_name: str = ""  # empty without folds
    repeat_number: int = 0  # from 0
    is_requested: bool = True


def check_folders_apart(path_by_flag: Mapping[str, Path | None]) -> None:
    """Raises InputError for a folder that is another one or lies in it, through links, too; and for one that TensorFlow
    would read as a pattern of others, which it would delete."""
    real_path_by_flag = {
        flag: Path(os.path.realpath(folder_path)) for flag, folder_path in path_by_flag.items() if folder_path
    }
    for (flag, inner_path), (outer_flag, outer_path) in permutations(real_path_by_flag.items(), 2):
        if outer_path in (inner_path, *inner_path.parents):
            raise InputError(
                f"{flag} {path_by_flag[flag]} is {outer_flag} {path_by_flag[outer_flag]}, or lies in it; keep results, "
                "checkpoints and cohorts in folders of their own."
            )
    checkpoints_path = str(path_by_flag["--chkPointDir"])
    forbidden_characters = sorted(set(checkpoints_path) & set(PATTERN_CHARACTERS))
    if forbidden_characters:
        raise InputError(
            f"--chkPointDir {checkpoints_path} holds {' '.join(forbidden_characters)}, which TensorFlow "
            f"reads as a pattern of other folders; name a folder without {' '.join(PATTERN_CHARACTERS)}."
        )


def plan_runs(request: Request, all_jobs: Iterable[Job]) -> RunPlan:
    """The runs of the job, and which of them are due; these have been checked. Raises InputError for the first thing
    that is wrong; `all_jobs` tell which jobs take the options that this one does not."""
    check_options(request, all_jobs)
    request = replace(request, seed=choose_seed(request))
    if not request.predictor and (request.preset or not request.checkpoint_root.exists()):
        request.choose_preset_and_config(None)  # a mistake there is reported before the cohort is read
    _ = request.results_folder  # so are mistakes in folders and candidates
    _ = request.candidates

    group = RunGroup([*make_runs(request)])
    joint_run = group.joint_run
    print_cohort_summary(joint_run)
    if request.everybody:
        cross_validation = joint_run.cross_validation
        print(
            f"{joint_run.predictor.path} is of everybody and has no score of its own; "
            f"{cross_validation or NO_FOLD_SCORE}."
        )
        if cross_validation and cross_validation.chosen:
            print(cross_validation.choice_sentence)

    due_runs = [run for run in group.requested_runs if run.is_due()]
    for run in due_runs:
        checkpoint_manifest = None
        if request.predictor is None and uses_checkpoint(request, run.trained_network.weights):
            checkpoint_manifest = run.predictor.training_manifest
        run.job.check_run(run, checkpoint_manifest)
    if due_runs:
        guards.check_fitted_to_control(joint_run)
    record.check_results_folder_free(joint_run.out_dir, request.job.job_name, request.predictor_name)
    return RunPlan(group, due_runs, group.has_folds and joint_run.is_due())


def check_options(request: Request, all_jobs: Iterable[Job]) -> None:
    """Raises InputError for options that do not go together."""
    if is_child_process():  # whoever started it has checked them
        return
    job = request.job
    model_spec = request.model_spec
    non_default_options = request.non_default_options

    for option_name in sorted(non_default_options - {*list_flags(job.options_class)}):
        accepting_job_flags = [job.flag for job in all_jobs if option_name in list_flags(job.options_class)]
        if accepting_job_flags:
            raise InputError(
                f"--{option_name} goes with {' or '.join(accepting_job_flags)}, not with {job.flag}; leave it out."
            )

    if not request.predictor and job.required_property and not getattr(model_spec, job.required_property):
        capable_models_text = " or ".join(
            model_name for model_name, model in MODELS.items() if getattr(model, job.required_property)
        )
        raise InputError(job.refusal_template.format(able=capable_models_text, model=model_spec.model_name))
    if request.repeats > 1 and not job.may_be_repeated:
        raise InputError(f"--repeats {request.repeats} is not for {job.flag}, which is done once; leave it out.")
    for option_name in sorted(non_default_options & OPTIONS_NEEDING_LABEL):
        if model_spec.predicted != "label":
            raise InputError(
                f"--{option_name} is about the label, which {model_spec.model_name} does not predict; leave it out."
            )

    for option_name, excluded_options in EXCLUDED_OPTIONS_BY_OPTION.items():
        for excluded_option in excluded_options:
            if option_name in non_default_options and excluded_option in non_default_options:
                raise InputError(f"--{option_name} and --{excluded_option} exclude each other; leave one out.")
    for option_name, required_option in REQUIRED_OPTION_BY_OPTION.items():
        if option_name in non_default_options and required_option not in non_default_options:
            raise InputError(
                f"--{option_name} goes with --{required_option}; name that, too, or leave --{option_name} out."
            )

    if request.folds and not request.brings_folds:
        check_division_flags(request.folds, request.whole_sites)


def make_runs(request: Request) -> Iterator[Run]:
    """Each run, not checked yet."""
    if request.predictor:
        yield from make_user_predictor_runs(request, request.predictor)
        return
    locations = [*make_run_locations(request)]
    weights_of_runs = [request.bundle_file or make_checkpoint_folder(request, location) for location in locations]
    checkpoint_manifests = [
        read_checkpoint_manifest(request, location, weights)
        for location, weights in zip(locations, weights_of_runs, strict=True)
    ]
    existing_manifests = [checkpoint_manifest for checkpoint_manifest in checkpoint_manifests if checkpoint_manifest]
    # a fold that is not trained yet takes its choices from one that is
    first_manifest = existing_manifests[0] if existing_manifests else None

    shared_moments_by_site = None
    for location, weights, checkpoint_manifest in zip(locations, weights_of_runs, checkpoint_manifests, strict=True):
        default_manifest = checkpoint_manifest or first_manifest
        run = make_run(request, location, weights, checkpoint_manifest, default_manifest)
        # sites are the same in all folds
        if run.is_transductive and not (location.folds and location.folds.reduced_cohort_by_fold):
            shared_moments_by_site = shared_moments_by_site or run.cohort.moments_by_site
            run = replace(run, cohort=replace(run.cohort, moments_by_site=shared_moments_by_site))
        yield run


def make_user_predictor_runs(request: Request, predictor: Predictor) -> Iterator[Run]:
    """The runs of what the user brings in place of a network. Raises InputError if it cannot read the cohort."""
    for location in make_run_locations(request):
        standardised_cohort = standardise_cohort(location.cohort, predictor.standardisation)
        yield Run(
            job=request.job,
            predictor=predictor.for_cohort(location.cohort),
            seed=(request.seed or 0) + location.repeat_number,
            options=request.options,
            cohort=with_means_folder(request, standardised_cohort),
            data_dir=request.data_dir,
            out_dir=location.results_folder,
            num_iters=0,
            folds=location.folds,
            fold=location.fold_name,
            repeat=location.repeat_number,
            repeats=request.repeats,
            is_requested=location.is_requested,
            baselines_folder=request.chk_point_dir / BASELINES_FOLDER,
        )


def with_means_folder(request: Request, cohort: Cohort) -> Cohort:
    """The cohort, whose means over regions are kept among the checkpoints."""
    return replace(cohort, means_folder=request.chk_point_dir / parcel_means.PARCEL_MEANS_FOLDER)


def make_checkpoint_folder(request: Request, location: RunLocation) -> CheckpointFolder:
    """The folder of a run's checkpoints. New people, as of `convert --like`, do not train them: the command that does
    names the cohort of the training, or COHORT if that is not known."""
    checkpoint_folder = CheckpointFolder(location.checkpoint_folder, request.training_command)
    if location.cohort.list_split_subjects("train"):
        return checkpoint_folder
    training_request = replace(request, data_dir=Path(checkpoint_folder.training_cohort_path or "COHORT"))
    return replace(checkpoint_folder, training_command=training_request.training_command)


def make_run_locations(request: Request) -> Iterator[RunLocation]:
    """The cohort and the folders of each run. Raises InputError if the cohort cannot be divided as requested."""
    results_folder = request.results_folder
    if not request.folds:
        cohort = open_run_cohort(request.cohort_path)
        if request.predictor:
            cohort = request.predictor.label_cohort(cohort)
        if request.everybody and request.train_options:
            cohort = assign_everybody_to_training(cohort)
        yield RunLocation(cohort, request.checkpoint_root, results_folder)
        return
    folds_by_repeat = open_folds_by_repeat(request)
    requested_fold = None if request.fold is None else folds_by_repeat[0].resolve_fold_name(request.fold)
    for repeat_number, (folds, repeat_checkpoint_folder) in enumerate(
        zip(folds_by_repeat, request.repeat_checkpoint_folders, strict=True)
    ):
        repeat_results_folder = (
            results_folder / REPEAT_FOLDER.format(repeat_number) if request.repeats > 1 else results_folder
        )
        for fold_name in folds.fold_names:
            fold_results_folder = make_fold_folder_path(repeat_results_folder, fold_name)
            is_requested = requested_fold in (None, fold_name)
            yield RunLocation(
                folds.make_fold_cohort(fold_name),
                repeat_checkpoint_folder / encode_folder_name(fold_name),
                fold_results_folder,
                folds,
                fold_name,
                repeat_number,
                is_requested,
            )


def open_folds_by_repeat(request: Request) -> list[Folds]:
    """The folds of each repeat; what must be known of them is printed. Raises InputError if the cohort cannot be
    divided as requested."""
    seed = request.seed or 0
    if request.predictor and request.brings_folds:
        labelled_cohort = request.predictor.label_cohort(open_undivided_cohort(request.cohort_path))
        predictor_folds = request.predictor.make_folds(labelled_cohort, seed)
        for warning in predictor_folds[0].fold_warnings:
            print(warning, flush=True)
        return predictor_folds

    first_checkpoint_folder, *later_checkpoint_folders = request.repeat_checkpoint_folders
    first_folds = open_folds(request.cohort_path, request.division_name, seed, first_checkpoint_folder)
    for warning in first_folds.fold_warnings:
        print(warning, flush=True)
    if request.repeats > 1 and (first_folds.reduced_cohort_by_fold or not first_folds.are_numbered):
        print("The repeats have the same folds, and differ in the networks' starts only.", flush=True)
    folds_by_repeat = [first_folds]
    for repeat_number, repeat_checkpoint_folder in enumerate(later_checkpoint_folders, 1):
        folds_by_repeat.append(open_repeat_folds(first_folds, seed + repeat_number, repeat_checkpoint_folder))
    return folds_by_repeat


def choose_seed(request: Request) -> int:
    """The seed: the user's, or that of the trainings that are continued or used. Raises InputError if it leaves none
    for all repeats."""
    seed = find_default_seed(request) if request.seed is None else request.seed
    check_seeds_suffice(seed, request.repeats)
    return seed


def find_default_seed(request: Request) -> int:
    """The seed of the trainings that are continued or used; 0 if there are none."""
    if request.folds:
        return read_saved_fold_seed(request.repeat_checkpoint_folders[0])
    weights = request.bundle_file or CheckpointFolder(request.checkpoint_root)
    if request.overrides_checkpoint or weights.find_sha256() is None:
        return 0
    checkpoint_settings = weights.read_latest_manifest().settings
    return checkpoint_settings.seed if checkpoint_settings else 0


def assign_everybody_to_training(cohort: Cohort) -> Cohort:
    """The cohort with everybody to train on; people without a label, and a phenotype that stays, are printed."""
    full_cohort = train_on_everybody(cohort)
    unlabelled_subjects = {cohort_row.subject for cohort_row in full_cohort.rows if cohort_row.split == "test"}
    if unlabelled_subjects:
        print(f"Not trained on, since no label is known of them: {format_participants(len(unlabelled_subjects))}.")
    if full_cohort.unscaled_phenotype is None:
        print(f"{cohort.path} has no phenotype.csv: the phenotype stays as it is stored, scaled on whomever it was.")
    return full_cohort


def uses_checkpoint(request: Request, weights: TrainedWeights) -> bool:
    """Whether a run uses these weights, or continues their training."""
    return request.job.needs_checkpoint or (weights.has_checkpoint and not request.overrides_checkpoint)


def read_checkpoint_manifest(request: Request, location: RunLocation, weights: TrainedWeights) -> Manifest | None:
    """The record of the checkpoint to continue or to use; None to start from zero. Raises InputError if one that is
    needed is missing, or one that is there is of another model or fold."""
    if not uses_checkpoint(request, weights) or not (weights.has_checkpoint or location.is_requested):
        return None
    if request.job.needs_checkpoint:
        guards.check_training_folder(weights, request.chk_point_dir / request.model)
        weights.print_if_training()
    checkpoint_manifest = weights.read_latest_manifest()
    if damaged_checkpoint_names := weights.damaged_checkpoint_names:
        print(
            f"{', '.join(damaged_checkpoint_names)} in {weights.path} does not have its digest; used "
            f"instead: {Path(weights.description).name}, of iteration {checkpoint_manifest.step}.",
            flush=True,
        )

    checkpoint_model_fold_repeat = (
        checkpoint_manifest.model_name,
        checkpoint_manifest.fold or "",
        checkpoint_manifest.repeat,
    )
    requested_model_fold_repeat = (request.model, location.fold_name, location.repeat_number)
    if checkpoint_model_fold_repeat != requested_model_fold_repeat:
        checkpoint_identity_text = format_training_identity(*checkpoint_model_fold_repeat)
        requested_identity_text = format_training_identity(*requested_model_fold_repeat)
        raise InputError(
            f"{weights.path} is of model {checkpoint_identity_text}, not of {requested_identity_text}; were "
            f"folders exchanged? Give each its own name, or use {guards.NEW_CHECKPOINT_ADVICE}."
        )
    return checkpoint_manifest


def format_training_identity(model_name: str, fold_name: str, repeat_number: int) -> str:
    return f"{model_name}, fold {fold_name or 'none'}, repeat {repeat_number}"


def make_run(
    request: Request,
    location: RunLocation,
    weights: TrainedWeights,
    checkpoint_manifest: Manifest | None,
    default_manifest: Manifest | None,
) -> Run:
    """A run with every choice made, as in `default_manifest` where the user says nothing. Raises InputError."""
    model_spec = request.model_spec
    is_training = request.train_options is not None
    cross_validation = request.cross_validation
    if cross_validation is None and checkpoint_manifest:
        cross_validation = checkpoint_manifest.cross_validation

    # settings and people that fit each other
    preset_name, requested_config = request.choose_preset_and_config(default_manifest)
    check_grid(request, location.cohort)
    scaled_cohort = location.cohort
    tests_new_people = not is_training and location.folds is None
    if checkpoint_manifest and checkpoint_manifest.preparation and tests_new_people:
        scaled_cohort = scale_phenotype_as(location.cohort, checkpoint_manifest.preparation)
    cohort_inputs = find_cohort_inputs(location.cohort)
    required_inputs = find_required_inputs(model_spec, checkpoint_manifest, request.set or ())
    config = fit_config_to_cohort(requested_config, location.cohort, cohort_inputs, model_spec, required_inputs)
    check_settings_change_something(config, requested_config, request.set or ())
    candidates = []
    for candidate in list_candidates(request, default_manifest):
        required_inputs = find_required_inputs(model_spec, None, candidate.setting_changes)
        candidate_config = fit_config_to_cohort(
            candidate.config, location.cohort, cohort_inputs, model_spec, required_inputs
        )
        candidates.append(replace(candidate, config=candidate_config))

    precision = choose_precision(request, default_manifest, cross_validation)
    trained_network = TrainedNetwork(model_spec, preset_name, config, precision, weights)
    inherited_caveats = Caveats()
    if request.bundle_file and checkpoint_manifest:
        inherited_caveats = inherit_caveats(checkpoint_manifest)
    run = Run(
        job=request.job,
        predictor=NetworkPredictor(trained_network, inherited_caveats),
        seed=(request.seed or 0) + location.repeat_number,
        options=request.options,
        cohort=scaled_cohort,
        data_dir=request.data_dir,
        out_dir=location.results_folder,
        num_iters=choose_num_iters(request, default_manifest, cross_validation),
        overrides_checkpoint=request.overrides_checkpoint,
        folds=location.folds,
        fold=location.fold_name,
        repeat=location.repeat_number,
        repeats=request.repeats,
        is_requested=location.is_requested,
        candidates=tuple(candidates),
        everybody=request.everybody or bool(checkpoint_manifest and checkpoint_manifest.everybody),
        cross_validation=cross_validation,
        training_id=checkpoint_manifest.begun if checkpoint_manifest and is_training else "",
        baselines_folder=None if request.bundle_file else request.chk_point_dir / BASELINES_FOLDER,
    )

    standardised_cohort = standardise_cohort(scaled_cohort, run.standardisation)
    if not request.bundle_file:
        standardised_cohort = with_means_folder(request, standardised_cohort)
    return replace(run, cohort=standardised_cohort)


def list_candidates(request: Request, default_manifest: Manifest | None) -> tuple[Candidate, ...]:
    """What --choose compares; of a job that uses checkpoints what their training compared, which a permutation
    repeats."""
    if default_manifest and request.train_options is None:
        return tuple(
            parse_candidate(candidate_text, request.model_spec) for candidate_text in default_manifest.candidates
        )
    return request.candidates


def choose_precision(
    request: Request, default_manifest: Manifest | None, cross_validation: CrossValidation | None
) -> str:
    """The precision of the layers: the user's, or that of the checkpoint or of the test on folds, or as usual."""
    if request.precision:
        return request.precision
    if default_manifest and default_manifest.settings:
        return default_manifest.settings.precision
    return cross_validation.precision if cross_validation else "float32"


def choose_num_iters(
    request: Request, default_manifest: Manifest | None, cross_validation: CrossValidation | None
) -> int:
    """The batches to have been seen after a training; for other jobs those that the checkpoint has seen."""
    if request.train_options is None:
        return default_manifest.step if default_manifest else 0
    default_num_iters = cross_validation.num_iters if cross_validation else DEFAULT_NUM_ITERS
    return request.train_options.num_iters or default_num_iters


def inherit_caveats(checkpoint_manifest: Manifest) -> Caveats:
    """What must stand beside whatever the network of a bundle says: the caveats of the cohort that trained it."""
    training_problems = tuple(
        Problem(f"of-training-{problem.code}", f"of the training participants: {problem.text}")
        for problem in checkpoint_manifest.caveats.problems
    )
    return replace(checkpoint_manifest.caveats, problems=training_problems, transductive=False, unknown_site=False)


def find_cohort_inputs(cohort: Cohort) -> list[str]:
    """The inputs of networks that a cohort has. Beside maps, a phenotype of which nothing is known counts as one: it is
    read as the mean of all."""
    is_present_by_input = {
        "volume": cohort.num_maps > 0,
        "phenotype": cohort.num_maps > 0 or bool(cohort.phenotype.any()),
        "connectome": cohort.connectomes is not None,
    }
    return [input_name for input_name, is_present in is_present_by_input.items() if is_present]


def find_required_inputs(
    model_spec: Model, checkpoint_manifest: Manifest | None, setting_texts: Iterable[str]
) -> list[str]:
    """The inputs that must be read if the settings name them: by a checkpoint all, else those of which one of the texts
    of --set says whether they are read."""
    input_names = [*model_spec.input_names, *model_spec.optional_input_names]
    if checkpoint_manifest is not None:
        return input_names
    set_names = {setting_text.partition("=")[0] for setting_text in setting_texts}
    return [input_name for input_name in input_names if input_name in set_names]


def fit_config_to_cohort(
    config: Settings,
    cohort: Cohort,
    cohort_inputs: Sequence[str],
    model_spec: Model,
    required_inputs: Sequence[str],
) -> Settings:
    """The hyper-parameters without the inputs that the cohort lacks. Raises InputError if one of these is required, or
    the model cannot do without it."""
    lacking_inputs = [name for name in model_spec.list_input_names(config) if name not in cohort_inputs]
    if not cohort_inputs:
        raise InputError(
            f"{cohort.path} has no maps, no phenotype and no connectomes; expected one. Convert it with --maps, "
            "--phenotype or --connectome."
        )
    for input_name in lacking_inputs:
        if not hasattr(config, input_name):
            raise InputError(
                f"{cohort.path} has no {WORD_BY_INPUT[input_name]}, and {model_spec.model_name} reads nothing else; "
                f"{CONVERT_ADVICE_BY_INPUT[input_name]}, or use a --model that reads what there is, such as mmnn."
            )
        if input_name in required_inputs:
            raise InputError(
                f"{cohort.path} has no {WORD_BY_INPUT[input_name]}, and the checkpoint, or --set {input_name}=true, "
                f"reads them; {CONVERT_ADVICE_BY_INPUT[input_name]}, or --like the cohort or bundle that was trained, "
                "or leave that out."
            )
    return override_settings(config, [f"{input_name}=false" for input_name in lacking_inputs])


def check_settings_change_something(config: Settings, requested_config: Settings, setting_texts: Iterable[str]) -> None:
    """Raises InputError for a setting of --set that changes nothing in `config`, since the cohort lacks what it is
    about."""
    set_names = {setting_text.partition("=")[0] for setting_text in setting_texts}
    requested_idle_settings = requested_config.idle()
    for setting, requirement_text in config.idle().items():
        if setting in set_names and setting not in requested_idle_settings:
            raise InputError(f"--set {setting} changes nothing here: it needs {requirement_text}. Leave it out.")


def check_grid(request: Request, cohort: Cohort) -> None:
    """Raises InputError if the cohort's volumes do not fit the model."""
    model_spec = request.model_spec
    if not cohort.num_maps or model_spec.required_grid is None or cohort.grid == model_spec.required_grid:
        return
    reduction_advice = "abide-data convert --grid full makes such volumes of the maps"
    if model_spec.required_grid == REDUCED:
        full_pass_command = [
            "run.py",
            "--model",
            "cae",
            "--dataDir",
            request.data_dir,
            "--chkPointDir",
            request.chk_point_dir,
        ]
        reduction_advice = (
            f"reduce it: {shlex.join(map(str, full_pass_command))} (or abide-data convert --grid reduced)"
        )
    raise InputError(
        f"{cohort.path} is {cohort.grid}, {model_spec.model_name} reads {model_spec.required_grid}; {reduction_advice}."
    )


def print_cohort_summary(run: Run) -> None:
    """Prints what a user must know before anything is done; before a training what the cohort holds."""
    cohort = run.cohort
    folds = run.folds
    is_training = not run.job.needs_checkpoint
    summary_rows = list[SummaryRow]()
    if is_training:
        census = cohort.take_census(folds.fold_by_subject if folds else None)
        summary_rows += census.make_count_rows("sites")
        summary_rows += [("note", note) for note in census.notes]

    if cohort.is_simulated:
        summary_rows.append(("SIMULATED", "the results say nothing about people"))
    if cohort.control:
        summary_rows.append(("CONTROL", f"labels are permuted within sites (seed {cohort.control.seed})"))
    if run.is_transductive:
        transductive_text = (
            "each site is standardised by its own participants, tested ones too (their volumes, not their labels)"
        )
        summary_rows.append(("TRANSDUCTIVE", transductive_text))

    is_default_folder = run.predictor.path.is_relative_to(DEFAULT_CHECKPOINTS)
    if is_default_folder and is_training and not DEFAULT_CHECKPOINTS.exists():
        checkpoints_text = f"{DEFAULT_CHECKPOINTS} is made for them; --chkPointDir names another folder"
        summary_rows.append(("checkpoints", checkpoints_text))
    if run.data_dir:
        checked_cohort = folds.unchecked_cohort if folds else cohort
        tables_folder = checked_cohort.tables_folder or checked_cohort.path
        check_line = format_check_line(checked_cohort.check_verdict, run.caveats.problem_texts, tables_folder)
        summary_rows.append(("checked", check_line))
    print_summary(summary_rows)
