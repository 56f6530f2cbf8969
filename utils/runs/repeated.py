"""--repeats: a run on folds several times, and then the mean of the results.

Repeat r takes the seed of the run plus r: it cuts numbered folds anew, and of a column's it changes only the networks'
starts. Each is a run on folds as it would be alone, but for its folders: `<how>/repeat-<r>` of checkpoints and
`<outDir>/repeat-<r>` of results. So more repeats continue fewer.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from data.base.cli import MAX_SEED
from data.base.errors import InputError
from data.cohorts.folds import open_folds, repeated
from utils.runs import guards
from utils.runs.checkpoints import CheckpointFolder, Identity
from utils.runs.folded import announce, folder_of_folds, on_folds
from utils.runs.group import Group, made_again
from utils.runs.validate import Request, report

REPEAT = "repeat-{}"  # the name of a repeat's folders


def repeated_run(asked: Request) -> Group:
    """The run on folds, `--repeats` times. Raises InputError for the first thing that is wrong."""
    args, kept = asked.args, folder_of_folds(asked)
    before = saved_before(asked, kept / REPEAT.format(0))
    seed = args.seed if args.seed is not None else before.seed if before else 0
    if seed + args.repeats - 1 > MAX_SEED:
        raise InputError(f"--seed {seed} leaves no seeds for {args.repeats} repeats; use a smaller one.")
    out_dir = asked.out_dir(before)
    folds = open_folds(asked.data_dir, args.folds, seed, kept / REPEAT.format(0))
    announce(folds)
    if folds.reduced or not folds.are_numbered:
        print("The repeats have the same folds, and differ in the networks' starts only.", flush=True)
    parts: list[Group] = []
    for number in range(args.repeats):
        name = REPEAT.format(number)
        own = vars(args) | {"seed": seed + number, "outDir": out_dir / name}
        of_repeat = replace(asked, args=argparse.Namespace(**own))
        cut = repeated(folds, seed + number, kept / name)
        part = on_folds(of_repeat, cut, kept / name, parts[0].leaves[0] if parts else None)
        part = replace(part, run=replace(part.run, name=f"repeat {number}"))
        guards.free_output(part.run, None)
        parts.append(part)
    every = CheckpointFolder(kept, asked.training_command)
    told = {"repeats": args.repeats}
    whole = replace(parts[0].run, name=f"{args.repeats} repeats", more=told, out_dir=out_dir, checkpoints=every)
    guards.free_output(whole, None)
    report(whole, folds.whole)
    again = partial(made_again, repeated_run, asked)
    return replace(parts[0], run=whole, parts=tuple(parts), pooling="average", again=again)


def saved_before(asked: Request, folder: Path) -> Identity | None:
    """The identity of a checkpoint of the first repeat that this run continues or uses; None to start from zero."""
    if asked.training and asked.training.override_chkpt:
        return None
    found = (CheckpointFolder(path) for path in sorted(folder.glob("*")) if path.is_dir())
    return next((checkpoints.identity() for checkpoints in found if checkpoints.current), None)
