"""A job on folds in the terminal: one row a fold, with the time left for all; the rest stands in the fold's files."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.base.progress import duration, quietly
from utils.runs.results import MANIFEST
from utils.runs.run import Run
from utils.scores.estimate import Estimate

ERROR = "run.py: error:"
OF_ONE_FOLD = ("Still to be done", "Not pooled")  # begins what a process says of the others
OF_SEVERAL = "FALFF_OF_SEVERAL"  # in a process's environment: it does one of several folds, whose row another prints


class Once:
    """A stream to which a line that all folds have to say, such as who the donors are, is written once."""

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


class Rows:
    """Prints a row for each of the folds that are done, `jobs` of them at a time; what is `alone`, a single fold that
    was asked for, is printed in full. `names` tell several runs on the same folds."""

    def __init__(self, parts: Sequence[Run], names: Sequence[str] = (), jobs: int = 1, alone: bool = False):
        self.parts, self.names, self.jobs, self.alone = parts, names, jobs, alone
        self.left = {part.out_dir: part.cost for part in parts if part.override or not part.is_done()}
        self.seconds, self.done = 0.0, 0
        self.said: set[str] = set()
        if self.left and not alone:
            repeated = f", of each of {names[0]} to {names[-1]}" if names else ""
            some = f"{len(self.left)} of {len(parts)} folds{repeated}" + (f", {jobs} at a time" if jobs > 1 else "")
            print(f"To do: {some}; each prints a row when it ends.", flush=True)

    def title(self, part: Run) -> str:
        at = [other.out_dir for other in self.parts].index(part.out_dir)
        folds = len(self.parts) // max(len(self.names), 1)
        named = f", {self.names[at // folds]}" if self.names else ""
        return f"Fold {part.fold} ({at % folds + 1} of {folds}){named}"

    def skip(self, part: Run) -> None:
        """A fold that was done before."""
        self.left.pop(part.out_dir, None)
        print(f"{self.title(part)}: done.", flush=True)

    def of(self, part: Run, call: Callable[[], int]) -> int:
        """Does a fold by `call`, and returns its exit status."""
        if self.alone or sys.stdout is None:  # of a worker that is not the chief
            print(f"{self.title(part)}:", flush=True)
            with quietly(OF_SEVERAL in os.environ):
                return call()
        started, status = time.monotonic(), 1
        try:
            with quietly(), redirect_stdout(Once(sys.stdout, self.said)):
                status = call()
        finally:
            self.ended(part, time.monotonic() - started, status)
        return status

    def ended(self, part: Run, seconds: float, status: int) -> None:
        """Prints the row."""
        if status:
            print(f"{self.title(part)}: not done, after {duration(seconds)}.", flush=True)
            return
        self.left.pop(part.out_dir, None)
        self.seconds, self.done = self.seconds + seconds, self.done + part.cost
        left = self.seconds / self.done * sum(self.left.values()) / self.jobs
        in_all = f"; {duration(left)} left for all" if self.left else ""
        row = ", ".join(filter(None, (people(part), result(part), duration(seconds))))
        print(f"{self.title(part)}: {row}{in_all}", flush=True)

    def tell(self, text: str) -> None:
        """Prints what the process of a fold said of it, from its first title on."""
        titles = {f"{self.title(part)}:" for part in self.parts}
        for line in text[min((at for title in titles if (at := text.find(title)) >= 0), default=0) :].splitlines():
            stream = sys.stderr if line.startswith(ERROR) else Once(sys.stdout, self.said)
            if line not in titles and not line.startswith(OF_ONE_FOLD):
                print(line, file=stream, flush=True)


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
        headline = files.read_json(part.out_dir / MANIFEST, dict).get("headline")
    if not headline:
        return ""
    name, *numbers = headline
    name = name.replace("auc_", "AUC within ").replace("_", " ").replace("auc", "AUC")
    return f"{name} {Estimate(*numbers).text('.2f', 'undefined')}"
