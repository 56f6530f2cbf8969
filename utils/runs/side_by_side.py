"""Folds, several at a time: each in a fresh process, which makes the group again, does its leaves and returns how."""

import io
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import joblib

from data.base.cli import answered, error_line
from data.base.errors import InputError
from data.base.processes import Outcome, processes
from data.base.progress import quietly
from data.base.terminal import handled
from utils.runs.fold_progress import FoldProgress
from utils.runs.run import Run

PROGRAM = "run.py"
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


class Leaves(Protocol):
    """A group of runs on folds."""

    @property
    def leaves(self) -> Sequence[Run]: ...


@dataclass(frozen=True)
class Done:
    """How a leaf ended: of the run that writes into a folder the exit status, and what it said."""

    out_dir: Path
    status: int
    said: str
    errors: str
    seconds: float


def side_by_side(again: Callable[[], Leaves], progress: FoldProgress, device: str, share_gpu: bool) -> int:
    """Does the folds that are not done; returns the exit status of the first that fails. After a failure, or a signal,
    no other fold is begun. A process does a fold of all repeats, or candidates."""
    folds = list(dict.fromkeys(leaf.fold for leaf in progress.leaves if leaf.out_dir in progress.left))
    statuses: list[int] = []
    with processes(environments=environments(progress.jobs, share_gpu)) as beside:

        def stop(number: int, _: object) -> None:
            """Passes a signal that stops a run on to the processes, each of which saves what it has."""
            statuses.append(128 + number)
            beside.stop()

        with handled(stop):
            for at, outcome in beside.outcomes(perform_fold, [(again, fold, device) for fold in folds]):
                if outcome.error:
                    raise outcome.error
                ended = outcome.value
                if outcome.exit_code is not None:
                    ended = killed(progress, folds[at], outcome, any(statuses))
                for done in ended:
                    statuses.append(done.status)
                    beside.stopped |= done.status != 0
                    progress.ended(done.out_dir, done.seconds, done.status)
                    progress.tell(done.said, done.errors)
    return next(filter(None, statuses), 0)


def killed(progress: FoldProgress, fold: str, outcome: Outcome, asked: bool) -> list[Done]:
    """How the leaves of a fold ended whose process was killed, by a signal that was passed on if that was `asked`."""
    code, errors = outcome.exit_code or 0, ""
    if code < 0 and not asked:
        why = f"Fold {fold} was killed by {signal.Signals(-code).name}"
        errors = error_line(PROGRAM, f"{why}; is the memory too small for {progress.jobs} jobs?") + "\n"
    leaves = [leaf for leaf in progress.leaves if leaf.fold == fold and leaf.out_dir in progress.left]
    status, seconds = code if code >= 0 else 128 - code, outcome.seconds / len(leaves)
    return [Done(leaf.out_dir, status, "", errors if leaf is leaves[0] else "", seconds) for leaf in leaves]


def perform_fold(again: Callable[[], Leaves], fold: str, device: str) -> list[Done]:
    """Does the leaves of a fold, in this process, up to one that fails."""
    with redirect_stdout(io.StringIO()):  # the process that asks has said it
        leaves = [leaf for leaf in again().leaves if leaf.fold == fold]
    found: list[Done] = []
    for leaf in leaves:
        if not any(done.status for done in found):
            found += performed(leaf, device)
    return found


def performed(leaf: Run, device: str) -> list[Done]:
    """How a leaf ended; nothing if it was done before."""
    said, errors, started = io.StringIO(), io.StringIO(), time.monotonic()
    with redirect_stdout(said), redirect_stderr(errors), quietly(), leaf.locked():
        if not leaf.is_due():
            return []
        status = answered(PROGRAM, partial(leaf.call, device))
    return [Done(leaf.out_dir, status, said.getvalue(), errors.getvalue(), time.monotonic() - started)]


def environments(count: int, share_gpu: bool) -> list[dict[str, str]]:
    """What each process finds in its environment: its share of the cores and, of free GPUs, one. Raises InputError if
    there are GPUs, but fewer than processes."""
    cores = max(1, joblib.cpu_count() // count)
    threads = {name: str(cores) for name in THREADS if name not in os.environ}
    gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    if gpus[0] != "-1" and len(gpus) < count and not share_gpu:
        raise InputError(f"--jobs {count} needs as many free GPUs, {len(gpus)} are; use fewer jobs, or --shareGPU.")
    return [threads | {"CUDA_VISIBLE_DEVICES": gpus[at % len(gpus)]} for at in range(count)]
