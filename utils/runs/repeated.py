"""--repeats: a run on folds several times, and then the mean of the results.

Repeat r takes the seed of the run plus r: it cuts numbered folds anew, and of a column's it changes only the networks'
starts. Each is a run on folds as it would be alone, but for its folders: `<how>/repeat-<r>` of checkpoints and
`<outDir>/repeat-<r>` of results. So more repeats continue fewer.
"""

import argparse
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.base.cli import MAX_SEED
from data.base.errors import InputError
from data.cohorts.folds import open_folds, repeated
from utils.runs import guards
from utils.runs.checkpoints import CheckpointFolder, Identity
from utils.runs.folded import FoldedRun, announce, fields_of, folder_of_folds, on_folds
from utils.runs.several import SeveralRun
from utils.runs.validate import Request, report

REPEAT = "repeat-{}"  # the name of a repeat's folders


@dataclass(frozen=True, kw_only=True)
class RepeatedRun(SeveralRun):
    """The job on folds with several seeds, and then the mean."""

    pooling = "average"

    @property
    def cut(self) -> str:
        return f"{super().cut}, {len(self.parts)} repeats"

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"repeats": len(self.parts)}

    def pool_parts(self, device: str) -> None:
        """Those of each repeat before, of which nothing is printed: one verdict is enough."""
        with redirect_stdout(None):
            for repeat in self.several:
                repeat.pool_parts(device)
        super().pool_parts(device)


def repeated_run(asked: Request) -> RepeatedRun:
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
    parts: list[FoldedRun] = []
    for number in range(args.repeats):
        name = REPEAT.format(number)
        own = vars(args) | {"seed": seed + number, "outDir": out_dir / name}
        of_repeat = replace(asked, args=argparse.Namespace(**own))
        cut = repeated(folds, seed + number, kept / name)
        part = on_folds(of_repeat, cut, kept / name, parts[0].parts[0] if parts else None)
        guards.free_output(part, None)
        parts.append(replace(part, name=f"repeat {number}"))
    whole = {"parts": tuple(parts), "out_dir": out_dir, "checkpoints": CheckpointFolder(kept, asked.training_command)}
    run = RepeatedRun(**fields_of(parts[0]) | {"only": parts[0].only, "jobs": args.jobs} | whole)
    guards.free_output(run, None)
    report(run, folds.whole)
    return run


def saved_before(asked: Request, folder: Path) -> Identity | None:
    """The identity of a checkpoint of the first repeat that this run continues or uses; None to start from zero."""
    if asked.training and asked.training.override_chkpt:
        return None
    found = (CheckpointFolder(path) for path in sorted(folder.glob("*")) if path.is_dir())
    return next((checkpoints.identity() for checkpoints in found if checkpoints.current), None)
