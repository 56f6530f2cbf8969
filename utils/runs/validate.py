"""Arguments -> a Run with every choice made and checked; nothing is written and TensorFlow is not imported."""

import argparse
from dataclasses import replace
from pathlib import Path

from data.base.errors import InputError
from data.cohorts.census import census
from data.cohorts.cohort import Cohort, open_cohort
from data.cohorts.folds import folder_name, open_folds, part_folder
from data.cohorts.standards import standardised
from data.grids import REDUCED
from models import MODELS, Model
from models.settings import Settings, override
from utils.runs import guards
from utils.runs.checkpoints import OF_FOLDS, CheckpointFolder, Identity
from utils.runs.jobs import IN_RESULTS, JOBS, Job
from utils.runs.run import Run

PATTERN = "*?[\\"  # what TensorFlow's file names may not hold


def validate(args: argparse.Namespace, given: set[str]) -> Run:
    """Raises InputError for the first thing that is wrong; `given` names the options that are not at their default.

    The demo cohort, if it is used, is the one thing that is made.
    """
    model, job = MODELS[args.model], JOBS[args.job]
    check_options(job, given)
    check_plain(args.chkPointDir)
    check_model(job, model)
    if args.jobs > 1 and (args.fold or not args.folds):
        raise InputError(
            f"--jobs {args.jobs} counts folds that are done at a time; use it with --folds, without --fold."
        )
    if args.folds:
        return validate_folds(args, model, job)
    if args.fold:
        raise InputError(f"--fold {args.fold} is one of several; say with --folds how they are cut.")
    checkpoints = CheckpointFolder(args.chkPointDir / model.name, training_command(args))
    saved = saved_identity(job, model, checkpoints, args.overrideChkpt)
    choose_config(model, args, saved)  # a mistake there is told before the cohort is read
    cohort = open_cohort(args.dataDir or demo_path(model))
    tell_simulated(cohort)
    out_dir = args.outDir or default_folder(args, job, model, saved)
    run = settle(args, job, model, checkpoints, saved, cohort, out_dir)
    tell_transductive(run)
    check(run, saved)
    return run


def validate_folds(args: argparse.Namespace, model: Model, job: Job) -> Run:
    """The run on all folds; of its parts, those that are asked for and are not done are checked."""
    kept = args.chkPointDir / model.name / f"{OF_FOLDS}{folder_name(args.folds)}"
    folds = open_folds(args.dataDir or demo_path(model), args.folds, args.seed or 0, kept)
    tell_simulated(folds.whole)
    for note in folds.notes:
        print(note, flush=True)
    only = None if args.fold is None else folds.named(args.fold)
    if unknown := set(chosen_subjects(args) or ()) - folds.fold_of.keys():
        raise InputError(f"--subjects {min(unknown)} is no subject of {folds.whole.path}; see its subjects.csv.")
    checkpoints = {name: CheckpointFolder(kept / folder_name(name), training_command(args)) for name in folds.names}
    saved = {
        name: saved_identity(job, model, folder, args.overrideChkpt) if folder.current or only in (None, name) else None
        for name, folder in checkpoints.items()
    }
    known = next((identity for identity in saved.values() if identity), None)
    out_dir = args.outDir or default_folder(args, job, model, known)
    parts = [
        replace(
            settle(args, job, model, checkpoints[name], saved[name], folds.cohort(name), part_folder(out_dir, name)),
            folds=folds,
            fold=name,
        )
        for name in folds.names
    ]
    standard = parts[0].cohort.standard  # what it takes of the cohort is alike for all
    parts = [replace(part, cohort=replace(part.cohort, standard=standard)) for part in parts]
    if args.subjects:
        parts = [part for part in map(with_own_subjects, parts) if part.subjects]
    for part in parts:
        if only in (None, part.fold) and (part.override or not part.is_done()):
            check(part, saved[part.fold])
    run = replace(
        parts[0],
        subjects=chosen_subjects(args),
        cohort=folds.whole,
        checkpoints=CheckpointFolder(kept, training_command(args)),
        out_dir=out_dir,
        fold="",
        parts=tuple(parts),
        only=only,
        jobs=args.jobs,
    )
    tell_transductive(run)
    guards.free_output(run, None)
    if not job.needs_checkpoint:
        print("\n".join(census(folds.whole, folds.fold_of).lines()), flush=True)
    return run


def settle(
    args: argparse.Namespace,
    job: Job,
    model: Model,
    checkpoints: CheckpointFolder,
    saved: Identity | None,
    cohort: Cohort,
    out_dir: Path,
) -> Run:
    """The run with every choice made: the user's, else the checkpoint's, else the default. Raises InputError."""
    preset, config = choose_config(model, args, saved)
    check_grid(model, cohort, args)
    seed = args.seed if args.seed is not None else saved.seed if saved else 0
    shuffled = args.shuffleLabels or (job.needs_checkpoint and saved is not None and saved.shuffled_labels)
    run = Run(
        job=job,
        model=model,
        preset=preset,
        config=config,
        cohort=cohort.shuffled(saved.seed if saved else seed) if shuffled else cohort,
        data_dir=args.dataDir,
        checkpoints=checkpoints.to_use if job.needs_checkpoint else checkpoints,
        out_dir=out_dir,
        num_iters=saved.step if job.needs_checkpoint and saved else args.numIters,
        override=args.overrideChkpt,
        seed=seed,
        precision=args.precision or (saved.precision if saved else "float32"),
        subjects=chosen_subjects(args),
        maps=tuple(args.maps.split(",")) if args.maps else None,
        atlas_path=args.atlas,
        donors=args.donors,
        verify=args.verify,
        validation=args.validation if args.validation is not None else saved.validation if saved else 0.0,
        shuffled_labels=shuffled,
    )
    return replace(run, cohort=standardised(run.cohort, run.standard))


def chosen_subjects(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Those to black out; None for all."""
    return tuple(args.subjects.split(",")) if args.subjects else None


def with_own_subjects(part: Run) -> Run:
    """A part with those of the subjects to black out whom it tests."""
    tested = part.cohort.subjects("test")
    return replace(part, subjects=tuple(subject for subject in part.subjects or () if subject in tested))


def check(run: Run, saved: Identity | None) -> None:
    """Raises InputError for the first guard of the job that finds something."""
    for guard in run.job.guards:
        getattr(guards, guard)(run, saved)


def tell_simulated(cohort: Cohort) -> None:
    if cohort.metadata.simulated:
        print("Data: the demo cohort. It is SIMULATED; its results say nothing about people.", flush=True)


def tell_transductive(run: Run) -> None:
    if run.transductive:
        sites = len({row.site for row in run.cohort.rows})
        print(
            f"TRANSDUCTIVE: each of {sites} site{'s' * (sites > 1)} is standardised by its own people, tested ones too "
            "(their volumes, not their labels).",
            flush=True,
        )


def training_command(args: argparse.Namespace) -> str:
    """The command that makes the checkpoint."""
    folds = f" --folds {args.folds}" if args.folds else ""
    return f"run.py --train --model {args.model} --chkPointDir {args.chkPointDir}{folds}"


def check_options(job: Job, given: set[str]) -> None:
    """Raises InputError for an option that other jobs take and this one does not."""
    for option in sorted(given - set(job.options)):
        if takers := [other.flag for other in JOBS.values() if option in other.options]:
            only = " or ".join(takers)
            raise InputError(f"--{option} goes with {only}, not with {job.flag}; leave it out.")


def check_plain(checkpoints: Path) -> None:
    """Raises InputError for a folder that TensorFlow reads as a pattern: it would delete what the pattern matches."""
    if odd := sorted(set(str(checkpoints)) & set(PATTERN)):
        raise InputError(
            f"--chkPointDir {checkpoints} holds {' '.join(odd)}, which TensorFlow reads as a pattern of other folders; "
            f"name a folder without {' '.join(PATTERN)}."
        )


def check_model(job: Job, model: Model) -> None:
    """Raises InputError if the job cannot be done with the model."""
    if job.needs is None or getattr(model, job.needs):
        return
    able = " or ".join(name for name, other in MODELS.items() if getattr(other, job.needs))
    raise InputError(job.refusal.format(able=able, model=model.name))


def saved_identity(job: Job, model: Model, checkpoints: CheckpointFolder, override: bool) -> Identity | None:
    """What the checkpoint to go on from says of itself; None to start anew.

    Raises InputError if one that is needed is missing, or one that is there is of another model.
    """
    if not job.needs_checkpoint and (override or checkpoints.current is None):
        return None
    used = checkpoints.to_use if job.needs_checkpoint else checkpoints
    saved = used.identity()
    if used.damaged:
        print(
            f"{', '.join(used.damaged)} in {used.path} is not as it was saved; used instead: {used.latest().name}, of "
            f"iteration {saved.step}.",
            flush=True,
        )
    if saved.model != model.name:
        raise InputError(f"{checkpoints.path} is of model {saved.model}, this run of {model.name}; use {guards.OTHER}.")
    return saved


def demo_path(model: Model) -> Path:
    """The demo cohort on the grid that the model reads."""
    from data.demo import demo_cohort  # pandas and scikit-learn are needed only where a cohort is made

    return demo_cohort(model.grid or REDUCED)


def choose_config(model: Model, args: argparse.Namespace, saved: Identity | None) -> tuple[str, Settings]:
    """The preset's name and the hyper-parameters: the user's, else the checkpoint's, else the model's default."""
    presets = model.module.PRESETS
    name = args.preset or (saved.preset if saved else next(iter(presets)))
    if name not in presets:
        raise InputError(f"--preset {name} is unknown to {model.name}; expected one of {', '.join(presets)}.")
    base = saved.settings(model) if saved is not None and name == saved.preset else presets[name]
    return name, override(base, args.set)


def check_grid(model: Model, cohort: Cohort, args: argparse.Namespace) -> None:
    """Raises InputError if the cohort's volumes do not fit the model."""
    if model.grid is None or cohort.grid == model.grid:
        return
    advice = "convert with --grid full"
    if model.grid == REDUCED:
        full_pass = f"run.py --model cae --dataDir {args.dataDir} --chkPointDir {args.chkPointDir}"
        advice = f"reduce it: {full_pass} (or python -m data convert --grid reduced)"
    raise InputError(f"{cohort.path} is {cohort.grid}, {model.name} reads {model.grid}; {advice}.")


def default_folder(args: argparse.Namespace, job: Job, model: Model, saved: Identity | None) -> Path:
    """Where results go unless --outDir says: a continued training goes on where it was."""
    if saved is not None and not job.needs_checkpoint:
        return Path(saved.out_dir).parent if args.folds else Path(saved.out_dir)
    beside = args.dataDir.resolve() if args.dataDir else Path()
    template = job.out_dir if args.dataDir else IN_RESULTS
    if args.folds and template == IN_RESULTS:
        template += f"-folds-{folder_name(args.folds)}"
    return Path(template.format(model=model.name, job=job.name, data=beside.parent / beside.stem))
