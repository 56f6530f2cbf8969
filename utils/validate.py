"""Arguments -> a Run with every choice made and checked, without importing TensorFlow."""

import argparse
from pathlib import Path

from data.check import fast
from data.cohort import Cohort, open_cohort
from data.errors import InputError
from data.grids import REDUCED
from data.records import CLASSES
from models import MODELS, Model
from models.settings import Settings, from_json, override
from utils.checkpoints import CheckpointFolder
from utils.runs import Run

OTHER = "another --chkPointDir, or --train --overrideChkpt"


def validate(args: argparse.Namespace) -> Run:
    """Raises InputError for the first thing that is wrong."""
    model, job = MODELS[args.model], args.job or "encode"
    if job == "encode" and not model.reduces:
        raise InputError(
            f"A full pass reduces a cohort, and only cae does that, not {model.name}; "
            f"did you mean: run.py --train --model {model.name}?"
        )
    if job == "blackout" and not model.occludable:
        able = " or ".join(name for name, other in MODELS.items() if other.occludable)
        reads = "its output is no label" if model.predicts != "label" else "it reads no volume"
        raise InputError(f"{model.name} cannot be blacked out, since {reads}; use --model {able}.")
    checkpoints = CheckpointFolder(args.chkPointDir / model.name)
    saved = None if job == "train" and args.overrideChkpt else checkpoints.identity()
    if saved is None and job != "train":
        raise InputError(
            f"{checkpoints.path} holds no checkpoint; make one: "
            f"run.py --train --model {model.name} --chkPointDir {args.chkPointDir}"
        )
    if job == "train":
        checkpoints.check_writable()
    if saved is not None and saved["model"] != model.name:
        raise InputError(
            f"{checkpoints.path} is of model {saved['model']}, this run of model {model.name}; use {OTHER}."
        )
    preset, config = choose_config(model, args, saved)
    cohort = open_cohort(args.dataDir or demo_path(model))
    if cohort.simulated:
        print("Data: the demo cohort. It is SIMULATED; its results say nothing about people.", flush=True)
    check_grid(model, cohort, args)
    seed, precision = args.seed, args.precision
    if saved is not None:
        seed = saved["seed"] if seed is None else seed
        precision = precision or saved["precision"]
    run = Run(
        job=job,
        model=model,
        preset=preset,
        config=config,
        cohort=cohort,
        checkpoints=checkpoints,
        out_dir=args.outDir or default_folder(args, model, job, saved),
        num_iters=args.numIters,
        override=args.overrideChkpt,
        seed=seed or 0,
        precision=precision or "float32",
        subjects=tuple(args.subjects.split(",")) if args.subjects else None,
        atlas=args.atlas,
        verify=args.verify,
    )
    check_leaks(run, saved)
    if job == "train":
        preflight(run)
    if saved is not None:
        check_identity(run, saved)
    return run


def demo_path(model: Model) -> Path:
    """The demo cohort on the grid that the model reads."""
    from data.demo import demo_cohort  # pandas and scikit-learn are needed only where a cohort is made

    return demo_cohort(model.grid or REDUCED)


def choose_config(model: Model, args: argparse.Namespace, saved: dict | None) -> tuple[str, Settings]:
    """The preset's name and the hyper-parameters: the user's, else the checkpoint's, else the model's default."""
    presets = model.module.PRESETS
    name = args.preset or (saved or {}).get("preset") or next(iter(presets))
    if name not in presets:
        raise InputError(f"--preset {name} is unknown to {model.name}; expected one of {', '.join(presets)}.")
    if saved is not None and name == saved["preset"]:
        try:
            base = from_json(model.module.Config, saved["config"])
        except TypeError as error:
            raise InputError(
                f"The checkpoint in {args.chkPointDir} is of other code ({error}); train again."
            ) from error
    else:
        base = presets[name]
    return name, override(base, args.set)


def check_grid(model: Model, cohort: Cohort, args: argparse.Namespace) -> None:
    """Raises InputError if the cohort's volumes do not fit the model."""
    if model.grid is None or cohort.grid == model.grid:
        return
    if model.grid == REDUCED:
        pass_ = f"run.py --model cae --dataDir {args.dataDir} --chkPointDir {args.chkPointDir}"
        raise InputError(
            f"{cohort.path} is {cohort.grid}, {model.name} reads {model.grid}; reduce it: {pass_} "
            f"(or python -m data convert --grid reduced)"
        )
    raise InputError(f"{cohort.path} is {cohort.grid}, {model.name} reads {model.grid}; convert with --grid full.")


def check_identity(run: Run, saved: dict) -> None:
    """Raises InputError if the checkpoint is not of this model, preset, settings and grid, showing both."""
    for key, wanted in run.identity().items():
        if key in ("seed", "precision") and run.job != "train":
            continue
        if key == "config":
            differing = [
                f"{name}={saved['config'].get(name)} there, {name}={value} asked for"
                for name, value in wanted.items()
                if saved["config"].get(name) != (list(value) if isinstance(value, tuple) else value)
            ]
            if differing:
                raise InputError(
                    f"{run.checkpoints.path} differs: {'; '.join(differing)}. Leave --set out or use {OTHER}."
                )
        elif saved[key] != wanted:
            raise InputError(
                f"{run.checkpoints.path} is of {key} {saved[key]}, this run of {key} {wanted}; "
                f"use --{key if key in ('preset', 'seed', 'precision') else 'dataDir'} accordingly or {OTHER}."
            )


def check_leaks(run: Run, saved: dict | None) -> None:
    """Raises InputError if a test subject of this cohort has taken part in training the checkpoint or the encoder."""
    test = set(run.cohort.subjects("test"))
    seen = {"the encoder of these volumes": run.cohort.metadata.get("encoder_subjects", [])}
    if saved is not None:
        seen["this checkpoint"] = saved["training_subjects"]
        seen["the encoder behind this checkpoint"] = saved["encoder_subjects"]
        if run.job == "train" and saved["cohort_sha256"] != run.cohort.digest:
            raise InputError(f"{run.checkpoints.path} was trained on other data ({saved['cohort']}); use {OTHER}.")
    if run.job == "encode":
        return
    for what, subjects in seen.items():
        if leaked := sorted(test & set(subjects)):
            raise InputError(
                f"{len(leaked)} test subjects of {run.cohort.path} trained {what}, {leaked[0]} among them; "
                "results on them would be too good. Use the cohort with the same split."
            )


def preflight(run: Run) -> None:
    """Says what the cohort holds. Raises InputError if a classifier would see one class only."""
    findings = fast(run.cohort)
    print("\n".join(findings.lines()), flush=True)
    labels = {record.label for record in run.cohort.rows if record.split == "train"}
    if run.model.predicts == "label" and len(labels) < len(CLASSES):
        raise InputError(f"{run.cohort.path} has one class only among its training subjects; add the other.")


def default_folder(args: argparse.Namespace, model: Model, job: str, saved: dict | None) -> Path:
    """Where results go unless --outDir says: a continued training goes on where it was."""
    if job == "train" and saved is not None:
        return Path(saved["out_dir"])
    if job == "encode" and args.dataDir:
        folder = args.dataDir.resolve()
        return folder.with_name(folder.stem + "_reduced")
    return Path("results") / f"{model.name}-{job}"
