"""Folds in the terminal, where each has a row; and several of them at a time, each in a fresh process.

Such a process makes the group again, does one fold of it, and returns how each leaf ended.
"""

import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data.base.cli import answered, error_line
from data.base.errors import InputError
from data.base.pool import INTERVAL_S, Pool, end_all
from data.base.processes import cpu_count, handled
from data.base.terminal import Progress, duration, progress, quietly, warn_in_one_line
from data.cohorts.rows import listed
from utils.runs.run import Run

PROGRAM = "run.py"
MOST_SHOWN = 4  # folds at a time, of which is shown what they are at
KILLED = 128 + signal.SIGKILL  # the exit status where a process was, as a shell has it
TOLD: list[Connection] = []  # in a process that does folds for another one: where it says what they are at
THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
Again = Callable[[str | None], Any]  # makes a `Group` in another process, to do one fold of it


class PrintOnce:
    """A stream to which a line that every fold says, such as who the donors are, is written once."""

    def __init__(self, under: Any, said: set[str]):
        self.under, self.said, self.line = under, said, ""

    def write(self, text: str) -> int:
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            if not line or line not in self.said:
                self.said.add(line)
                self.under.write(f"{line}\n")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.under, name)


class FoldProgress:
    """Prints a row for each of the folds (`leaves`) that are done, `jobs` of them at a time; what is `alone`, a single
    fold that was asked for, is printed in full. `names` tell several groups on the same folds."""

    def __init__(self, leaves: Sequence[Run], names: Sequence[str] = (), jobs: int = 1, alone: bool = False):
        self.leaves, self.names, self.jobs, self.alone = leaves, names, jobs, alone
        self.left = {leaf.out_dir: leaf.options.cost for leaf in leaves if leaf.override or not leaf.is_done()}
        self.seconds, self.done = 0.0, 0
        self.said: set[str] = set()
        self.at: dict[Path, str] = {}  # what the folds that are being done are at
        self.shown: Progress | None = None
        if self.left and not alone:
            repeated = f", of each of {names[0]} to {names[-1]}" if names else ""
            some = f"{len(self.left)} of {len(leaves)} folds{repeated}" + (f", {jobs} at a time" if jobs > 1 else "")
            print(f"To do: {some}; each prints a row when it ends.", flush=True)

    @contextmanager
    def advancing(self) -> Iterator[None]:
        """Shows how far all folds are, and what those are at that are being done, until the block ends."""
        if self.alone or not self.left or sys.stdout is None:
            yield
            return
        with progress("Folds", sum(self.left.values())) as self.shown:
            yield

    def tell(self, out_dir: Path, text: str) -> None:
        """Shows what a fold is at."""
        self.at[out_dir] = f"{self.title(out_dir)}: {text}"
        if self.shown:
            self.shown.advance(listed([*self.at.values()], MOST_SHOWN, "; "), 0)

    def title(self, out_dir: Path) -> str:
        at = [leaf.out_dir for leaf in self.leaves].index(out_dir)
        folds = len(self.leaves) // max(len(self.names), 1)
        named = f", {self.names[at // folds]}" if self.names else ""
        return f"Fold {self.leaves[at].fold} ({at % folds + 1} of {folds}){named}"

    def perform(self, leaf: Run, device: str) -> int:
        """Does a fold here, unless it is done; returns the exit status."""
        with leaf.locked() as run:
            if not run.is_due():
                self.ended(leaf.out_dir, 0, None)
                return 0
            if self.alone or sys.stdout is None:  # of a worker that is not the chief
                print(f"{self.title(leaf.out_dir)}:", flush=True)
                return run.call(device)
            started, status = time.monotonic(), 1
            try:
                said = PrintOnce(sys.stdout, self.said)
                with quietly(partial(self.tell, leaf.out_dir)), redirect_stdout(said):
                    status = run.call(device)
            finally:
                self.ended(leaf.out_dir, time.monotonic() - started, status)
            return status

    def ended(self, out_dir: Path, seconds: float, status: int | None) -> None:
        """Prints the row of a fold; `status` is None if it was done before."""
        self.at.pop(out_dir, None)
        if status:
            print(f"{self.title(out_dir)}: not done, after {duration(seconds)}.", flush=True)
            return
        cost = self.left.pop(out_dir, 0)
        if self.shown:
            self.shown.advance("", cost)
        if status is None:
            print(f"{self.title(out_dir)}: done.", flush=True)
            return
        leaf = next(leaf for leaf in self.leaves if leaf.out_dir == out_dir)
        self.seconds, self.done = self.seconds + seconds, self.done + cost
        left = self.seconds / self.done * sum(self.left.values()) / self.jobs
        in_all = f"; {duration(left)} left for all" if self.left else ""
        print(f"{self.title(out_dir)}: {people(leaf)}{duration(seconds)}{in_all}", flush=True)

    def print_said(self, said: str, errors: str) -> None:
        """Prints what a fold in another process said."""
        print(said, end="", file=PrintOnce(sys.stdout, self.said), flush=True)
        print(errors, end="", file=sys.stderr, flush=True)


def people(part: Run) -> str:
    """How many the fold tests, or trains on; empty for the full pass, which takes all."""
    if not part.job.has_flag:
        return ""
    split, named = ("test", "tested") if part.job.needs_checkpoint else ("train", "trained on")
    count = len(part.cohort.subjects(split))
    return f"{count} {'subject' if count == 1 else 'subjects'} {named}, "


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
    folds = dict.fromkeys(leaf.fold for leaf in progress.leaves if leaf.out_dir in progress.left)
    statuses = list[int]()
    heard, told = Pipe(duplex=False)

    def show() -> None:
        while heard.poll():
            progress.tell(*heard.recv())

    def ended(fold: str, future: Future) -> None:
        show()
        try:
            found = future.result()
        except BrokenProcessPool:
            found = killed(progress, fold, any(statuses))
        for done in found:
            statuses.append(done.status or 0)
            progress.ended(done.out_dir, done.seconds, done.status)
            progress.print_said(done.said, done.errors)

    calls = ((fold, perform_fold, again, fold, device) for fold in folds if not any(statuses))
    with stopped_by(statuses), progress.advancing():
        beside(environments(progress.jobs, share_gpu), calls, ended, show, partial(begin_folds, told))
    return next(filter(None, statuses), 0)


@contextmanager
def stopped_by(statuses: list[int]) -> Iterator[None]:
    """At a signal its exit status is added, and all processes are asked to end; each saves what it has."""

    def stop(number: int, _: object) -> None:
        statuses.append(128 + number)
        end_all()

    with handled(stop):
        yield


def beside(
    environments: Sequence[Mapping[str, str]],
    calls: Iterator[tuple],
    ended: Callable[[Any, Future], None],
    meanwhile: Callable[[], None],
    begin: Callable[[], object],
) -> None:
    """Does calls (name, function, *arguments), each in a fresh process that has one of the environments from its start
    and calls `begin`; as many at a time as there are of these. `ended` gets each name with its future, once that is
    there; `meanwhile` is called twice a second."""
    free, busy = [*environments], dict[Future, tuple]()
    with ExitStack() as pools:
        while True:
            while free and (call := next(calls, None)):
                name, *asked = call
                environment, pool = free.pop(), pools.enter_context(Pool(1, begin))
                with added(environment):
                    busy[pool.submit(*asked)] = name, environment, pool
            if not busy:
                return
            done, _ = wait(busy, INTERVAL_S, FIRST_COMPLETED)
            meanwhile()
            for future in done:
                name, environment, pool = busy.pop(future)
                pool.shutdown()
                free.append(environment)
                ended(name, future)


@contextmanager
def added(environment: Mapping[str, str]) -> Iterator[None]:
    """This process's environment has more in it until the block ends."""
    before = os.environ.copy()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def killed(progress: FoldProgress, fold: str, asked: bool) -> list[Done]:
    """How the leaves of a fold ended whose process did, by a signal that was passed on if that was `asked`."""
    leaves = [leaf for leaf in progress.leaves if leaf.fold == fold and leaf.out_dir in progress.left]
    errors = f"Fold {fold} was killed; is the memory too small for {progress.jobs} jobs?"
    first = "" if asked else error_line(PROGRAM, errors) + "\n"
    return [Done(leaf.out_dir, KILLED, "", first if leaf is leaves[0] else "") for leaf in leaves]


def begin_folds(told: Connection) -> None:
    """In a fresh process."""
    warn_in_one_line(PROGRAM)
    TOLD.append(told)


def perform_fold(again: Again, fold: str, device: str) -> list[Done]:
    """Does the leaves of a fold, in this process, up to one that fails."""
    with redirect_stdout(io.StringIO()):  # the process that asks has said it
        leaves = [leaf for leaf in again(fold).leaves if leaf.fold == fold]
    found: list[Done] = []
    for leaf in leaves:
        if not any(done.status for done in found):
            found.append(performed(leaf, device))
    return found


def tell(out_dir: Path, text: str) -> None:
    """Says what a fold is at. Several processes write into one pipe, which takes so short a message as a whole."""
    with suppress(OSError):  # nobody listens any more
        TOLD[0].send((out_dir, text))


def performed(leaf: Run, device: str) -> Done:
    """Does a leaf, unless it is done."""
    said, errors, started, was_done = io.StringIO(), io.StringIO(), time.monotonic(), list[bool]()

    def perform() -> int:
        with leaf.locked() as run:
            was_done.append(not run.is_due())
            return 0 if was_done[0] else run.call(device)

    with redirect_stdout(said), redirect_stderr(errors), quietly(partial(tell, leaf.out_dir)):
        status = answered(PROGRAM, perform)
    if any(was_done):
        return Done(leaf.out_dir, None)
    return Done(leaf.out_dir, status, said.getvalue(), errors.getvalue(), time.monotonic() - started)


def environments(count: int, share_gpu: bool) -> list[dict[str, str]]:
    """What each process finds in its environment: its share of the cores and, of free GPUs, one. Raises InputError if
    there are GPUs, but fewer than processes."""
    cores = max(1, cpu_count() // count)
    threads = {name: str(cores) for name in THREADS if name not in os.environ}
    gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    if gpus[0] != "-1" and len(gpus) < count and not share_gpu:
        raise InputError(
            f"--jobs {count} needs as many free GPUs, but {len(gpus)} are free; use fewer jobs, or --shareGPU."
        )
    return [threads | {"CUDA_VISIBLE_DEVICES": gpus[at % len(gpus)]} for at in range(count)]
