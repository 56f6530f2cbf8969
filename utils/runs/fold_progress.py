"""A job on folds in the terminal: one row a fold, with the time left for all; the rest stands in the fold's files."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from data.base.errors import InputError
from data.base.progress import duration, quietly
from utils.runs.folders import described
from utils.runs.run import Run
from utils.scores.results import Estimate


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
        if self.left and not alone:
            repeated = f", of each of {names[0]} to {names[-1]}" if names else ""
            some = f"{len(self.left)} of {len(leaves)} folds{repeated}" + (f", {jobs} at a time" if jobs > 1 else "")
            print(f"To do: {some}; each prints a row when it ends.", flush=True)

    def title(self, out_dir: Path) -> str:
        at = [leaf.out_dir for leaf in self.leaves].index(out_dir)
        folds = len(self.leaves) // max(len(self.names), 1)
        named = f", {self.names[at // folds]}" if self.names else ""
        return f"Fold {self.leaves[at].fold} ({at % folds + 1} of {folds}){named}"

    def perform(self, leaf: Run, device: str) -> int:
        """Does a fold here, unless it is done; returns the exit status."""
        with leaf.locked():
            if not leaf.is_due():
                self.ended(leaf.out_dir, 0, None)
                return 0
            return self.of(leaf, lambda: leaf.call(device))

    def of(self, leaf: Run, call: Callable[[], int]) -> int:
        """Does a fold by `call`; returns its exit status."""
        if self.alone or sys.stdout is None:  # of a worker that is not the chief
            print(f"{self.title(leaf.out_dir)}:", flush=True)
            return call()
        started, status = time.monotonic(), 1
        try:
            with quietly(), redirect_stdout(PrintOnce(sys.stdout, self.said)):
                status = call()
        finally:
            self.ended(leaf.out_dir, time.monotonic() - started, status)
        return status

    def ended(self, out_dir: Path, seconds: float, status: int | None) -> None:
        """Prints the row of a fold; `status` is None if it was done before."""
        if status is None:
            self.left.pop(out_dir, None)
            print(f"{self.title(out_dir)}: done.", flush=True)
            return
        if status:
            print(f"{self.title(out_dir)}: not done, after {duration(seconds)}.", flush=True)
            return
        leaf = next(leaf for leaf in self.leaves if leaf.out_dir == out_dir)
        self.left.pop(out_dir, None)
        self.seconds, self.done = self.seconds + seconds, self.done + leaf.options.cost
        left = self.seconds / self.done * sum(self.left.values()) / self.jobs
        in_all = f"; {duration(left)} left for all" if self.left else ""
        row = ", ".join(filter(None, (people(leaf), result(leaf), duration(seconds))))
        print(f"{self.title(out_dir)}: {row}{in_all}", flush=True)

    def tell(self, said: str, errors: str) -> None:
        """Prints what a fold in another process said."""
        print(said, end="", file=PrintOnce(sys.stdout, self.said), flush=True)
        print(errors, end="", file=sys.stderr, flush=True)


def people(part: Run) -> str:
    """How many the fold tests, or trains on; empty for the full pass, which takes all."""
    if not part.job.has_flag:
        return ""
    split, named = ("test", "tested") if part.job.needs_checkpoint else ("train", "trained on")
    count = len(part.cohort.subjects(split))
    return f"{count} {'subject' if count == 1 else 'subjects'} {named}"


def result(part: Run) -> str:
    """The metric that stands for the run, by its name, as its `run.json` holds it; empty without one."""
    headline = None
    with suppress(InputError):
        headline = described(part.out_dir).get("headline")
    if not headline:
        return ""
    name, *numbers = headline
    name = name.replace("auc_", "AUC within ").replace("_", " ").replace("auc", "AUC")
    return f"{name} {Estimate(*numbers).text('.2f', 'undefined')}"
