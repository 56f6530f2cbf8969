"""Folds, several at a time: each in a fresh process, which makes the group again and returns how each leaf ended."""

import io
import os
import signal
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib

from data.base.cli import answered, error_line
from data.base.errors import InputError
from data.base.processes import Outcome, handled, processes
from data.base.terminal import quietly, warn_in_one_line
from utils.runs.fold_progress import FoldProgress
from utils.runs.run import Run

PROGRAM = "run.py"
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


Again = Callable[[str | None], Any]  # makes a `Group` in another process, to do one fold of it


@dataclass(frozen=True)
class Done:
    """How the run that writes into a folder ended: its exit status, and what it printed; None if it was done before."""

    out_dir: Path
    status: int | None
    said: str = ""
    errors: str = ""
    seconds: float = 0.0


def side_by_side(again: Again, progress: FoldProgress, device: str, share_gpu: bool) -> int:
    """Does the folds that are not done; returns the exit status of the first that fails. After a failure, or a signal,
    no other fold is begun. A process does a fold of all repeats, or candidates."""
    folds = list(dict.fromkeys(leaf.fold for leaf in progress.leaves if leaf.out_dir in progress.left))
    statuses, failed = list[int](), Outcome()
    with processes(environments=environments(progress.jobs, share_gpu)) as beside:

        def stop(number: int, _: object) -> None:
            """Asks all processes to end, at a signal; each saves what it has."""
            statuses.append(128 + number)
            beside.stop()

        with handled(stop):
            for at, outcome in beside.outcomes(perform_fold, [(again, fold, device) for fold in folds]):
                ended = outcome.value or []
                if outcome.error:
                    failed, beside.stopped = outcome, True
                elif outcome.exit_code is not None:
                    ended = killed(progress, folds[at], outcome, any(statuses))
                for done in ended:
                    statuses.append(done.status or 0)
                    beside.stopped |= bool(done.status)
                    progress.ended(done.out_dir, done.seconds, done.status)
                    progress.tell(done.said, done.errors)
    failed.check()
    return next(filter(None, statuses), 0)


def killed(progress: FoldProgress, fold: str, outcome: Outcome, asked: bool) -> list[Done]:
    """How the leaves of a fold ended whose process did, by a signal that was passed on if that was `asked`."""
    code, errors = outcome.exit_code or 1, ""
    if code < 0 and not asked:
        why = f"Fold {fold} was killed by {signal.Signals(-code).name}"
        errors = error_line(PROGRAM, f"{why}; is the memory too small for {progress.jobs} jobs?") + "\n"
    leaves = [leaf for leaf in progress.leaves if leaf.fold == fold and leaf.out_dir in progress.left]
    status, seconds = code if code > 0 else 128 - code, outcome.seconds / len(leaves)
    return [Done(leaf.out_dir, status, "", errors if leaf is leaves[0] else "", seconds) for leaf in leaves]


def perform_fold(again: Again, fold: str, device: str) -> list[Done]:
    """Does the leaves of a fold, in this process, up to one that fails."""
    warn_in_one_line(PROGRAM)
    with redirect_stdout(io.StringIO()):  # the process that asks has said it
        leaves = [leaf for leaf in again(fold).leaves if leaf.fold == fold]
    found: list[Done] = []
    for leaf in leaves:
        if not any(done.status for done in found):
            found.append(performed(leaf, device))
    return found


def performed(leaf: Run, device: str) -> Done:
    """Does a leaf, unless it is done."""
    said, errors, started, was_done = io.StringIO(), io.StringIO(), time.monotonic(), list[bool]()

    def perform() -> int:
        with leaf.locked():
            was_done.append(not leaf.is_due())
            return 0 if was_done[0] else leaf.call(device)

    with redirect_stdout(said), redirect_stderr(errors), quietly():
        status = answered(PROGRAM, perform)
    if any(was_done):
        return Done(leaf.out_dir, None)
    return Done(leaf.out_dir, status, said.getvalue(), errors.getvalue(), time.monotonic() - started)


def environments(count: int, share_gpu: bool) -> list[dict[str, str]]:
    """What each process finds in its environment: its share of the cores and, of free GPUs, one. Raises InputError if
    there are GPUs, but fewer than processes."""
    cores = max(1, joblib.cpu_count() // count)
    threads = {name: str(cores) for name in THREADS if name not in os.environ}
    gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    if gpus[0] != "-1" and len(gpus) < count and not share_gpu:
        raise InputError(f"--jobs {count} needs as many free GPUs, {len(gpus)} are; use fewer jobs, or --shareGPU.")
    return [threads | {"CUDA_VISIBLE_DEVICES": gpus[at % len(gpus)]} for at in range(count)]
