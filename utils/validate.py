"""Arguments -> a Run with every choice made and checked; nothing is written and TensorFlow is not imported."""

import argparse
from pathlib import Path

from data.cohort import Cohort, open_cohort
from data.errors import InputError
from data.grids import REDUCED
from models import MODELS, Model
from models.settings import Settings, override
from utils import guards
from utils.checkpoints import CheckpointFolder, Identity
from utils.jobs import IN_RESULTS, JOBS, Job
from utils.runs import Run


def validate(args: argparse.Namespace, given: set[str]) -> Run:
    """Raises InputError for the first thing that is wrong; `given` names the options that are not at their default.

    The demo cohort, if it is used, is the one thing that is made.
    """
    model, job = MODELS[args.model], JOBS[args.job]
    check_options(job, given)
    check_model(job, model)
    checkpoints = CheckpointFolder(args.chkPointDir / model.name)
    saved = saved_identity(job, checkpoints, args.overrideChkpt)
    preset, config = choose_config(model, args, saved)
    cohort = open_cohort(args.dataDir or demo_path(model))
    if cohort.metadata.simulated:
        print("Data: the demo cohort. It is SIMULATED; its results say nothing about people.", flush=True)
    check_grid(model, cohort, args)
    run = Run(
        job=job,
        model=model,
        preset=preset,
        config=config,
        cohort=cohort,
        data_dir=args.dataDir,
        checkpoints=checkpoints,
        out_dir=args.outDir or default_folder(job, model, args.dataDir, saved),
        num_iters=args.numIters,
        override=args.overrideChkpt,
        seed=args.seed if args.seed is not None else saved.seed if saved else 0,
        precision=args.precision or (saved.precision if saved else "float32"),
        subjects=tuple(args.subjects.split(",")) if args.subjects else None,
        atlas_path=args.atlas,
        verify=args.verify,
    )
    for guard in job.guards:
        getattr(guards, guard)(run, saved)
    return run


def check_options(job: Job, given: set[str]) -> None:
    """Raises InputError for an option that other jobs take and this one does not."""
    for option in sorted(given - set(job.options)):
        if takers := [other.flag for other in JOBS.values() if option in other.options]:
            only = " or ".join(takers)
            raise InputError(f"--{option} goes with {only}, not with {job.flag}; leave it out.")


def check_model(job: Job, model: Model) -> None:
    """Raises InputError if the job cannot be done with the model."""
    if job.needs is None or getattr(model, job.needs):
        return
    able = " or ".join(name for name, other in MODELS.items() if getattr(other, job.needs))
    raise InputError(job.refusal.format(able=able, model=model.name))


def saved_identity(job: Job, checkpoints: CheckpointFolder, override: bool) -> Identity | None:
    """What the checkpoint to go on from says of itself; None to start anew.

    Raises InputError if one that is needed is missing, or one that is there is of another model.
    """
    if not job.needs_checkpoint and (override or checkpoints.current is None):
        return None
    saved, model = checkpoints.identity(), checkpoints.path.name
    if saved.model != model:
        raise InputError(f"{checkpoints.path} is of model {saved.model}, this run of {model}; use {guards.OTHER}.")
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


def default_folder(job: Job, model: Model, data: Path | None, saved: Identity | None) -> Path:
    """Where results go unless --outDir says: a continued training goes on where it was."""
    if saved is not None and not job.needs_checkpoint:
        return Path(saved.out_dir)
    beside = data.resolve() if data else Path()
    template = job.out_dir if data else IN_RESULTS
    return Path(template.format(model=model.name, job=job.name, data=beside.parent / beside.stem))
