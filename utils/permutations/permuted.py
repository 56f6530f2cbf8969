"""--test --permutations N: the test, and then the p-value of the whole procedure, in a folder of its own below it.

Nothing that permutations train is kept. Every process that runs the command does permutations that no other one is at,
so an array of the same command shares them; who finds them complete writes the p-value into the report.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.base.progress import progress
from data.base.tables import read_frame, write_rows
from data.base.terminal import handled
from utils.choice.chosen import ChosenRun
from utils.machines import devices
from utils.permutations.job import Procedure, Series, scored
from utils.report.registry import TABLES
from utils.report.tables import PERMUTATIONS
from utils.report.texts import paragraph
from utils.runs import guards
from utils.runs.fold_rows import ERROR, OF_SEVERAL
from utils.runs.folded import FoldedRun, fields_of
from utils.runs.pooled import PooledRun
from utils.runs.results import MANIFEST, record
from utils.runs.run import Job, Run, prepare_folder
from utils.runs.side_by_side import PARENT, environments
from utils.scores.estimate import Estimate, Headline
from utils.scores.metrics import HEADLINES
from utils.scores.sequential import Permuted

FOLDER = "permutations"
TABLE = "permutations.csv"
RENEWED_AFTER = 25  # permutations, a process of --jobs ends: TensorFlow keeps about 2 MB of every training
PERMUTE = Job(
    name="permute",
    help="repeat the procedure on permuted labels",
    module="utils.permutations.job",
    guards=(),
    outputs=("permutation-*.csv", TABLE),
    is_shared=False,
)


@dataclass(frozen=True, kw_only=True)
class PermutedRun(PooledRun):
    """A test on folds, `tested`, and `asked` permutations of its labels."""

    tested: FoldedRun | ChosenRun
    asked: int

    def settings(self) -> dict[str, Any]:
        """Those of the test; more permutations continue fewer."""
        return self.tested.settings() | {"job": self.job.name}

    def is_done(self) -> bool:
        """Whether the test and the permutations are, and the report says what came out."""
        if not (self.tested.is_done() and Run.is_done(self)):
            return False
        there, said = (files.read_json(of.out_dir / MANIFEST, dict).get(PERMUTATIONS) for of in (self, self.tested))
        return there is not None and there["asked"] == self.asked and said == there

    def announce(self) -> None:
        self.tested.announce()

    def perform_on(self, device: str) -> int:
        if not self.tested.is_done() and (status := self.tested.perform_on(device)):
            return status
        self.begin()
        workers = self.workers.started(devices.start_tensorflow(device))
        self.series(workers).work(RENEWED_AFTER if OF_SEVERAL in os.environ else self.asked)
        return self.conclude()

    def perform_side_by_side(self, share_gpu: bool) -> int:
        """The test, and then permutations in `jobs` processes that repeat the command."""
        if not self.tested.is_done() and (status := self.tested.perform_side_by_side(share_gpu)):
            return status
        devices.choose_device(share_gpu, several=True)
        self.begin()
        return in_processes(self.series(self.workers), environments(self.jobs, share_gpu)) or self.conclude()

    def begin(self) -> None:
        """Makes the folder; what is there of another test is moved aside."""
        with files.locked(self.out_dir, wait=True):
            if self.settings_there() != self.settings_as_json():
                prepare_folder(self)

    def series(self, workers: devices.Workers) -> Series:
        """The permutations, in this folder."""
        tested = self.tested
        runs = tested.by_name if isinstance(tested, ChosenRun) else {tested.choices.preset: tested}
        parts: dict[str, dict[str, Run]] = {name: {} for name in self.folds.names}
        for name, run in runs.items():
            for part in run.parts:
                parts[part.fold][name] = replace(part, workers=workers, num_iters=part.trained_for)
        quick = isinstance(tested, ChosenRun) and tested.candidates.quick
        metric, observed = scored(read_frame(tested.out_dir / TABLES["predictions"].file))
        return Series(Procedure(self.folds, parts, self.seed, quick), self.out_dir, self.asked, observed, metric)

    def conclude(self) -> int:
        """Writes the p-value, here and into the report of the test, if no permutation is missing."""
        with files.locked(self.out_dir, wait=True):
            series = self.series(self.workers)
            if (end := series.end()) is None:
                print("Other processes are still at permutations; the last one of all writes the p-value.")
                return 0
            if not self.is_done():
                rows = ((at, score, int(score >= end.observed)) for at, score in enumerate(series.scores(), 1))
                write_rows(self.out_dir / TABLE, ("permutation", end.metric, "as_high"), list(rows)[: end.count])
                self.write_manifest(finished=True, **{PERMUTATIONS: asdict(end)})
                self.enter(Headline("p of permutations", Estimate(end.p, None, end.bound)))
                amend(self.tested, end)
        print(paragraph("permutations", of=end))
        self.announce()
        return 0


def permuted_run(tested: FoldedRun | ChosenRun, asked: int) -> PermutedRun:
    """The test, and permutations after it."""
    if tested.choices.shuffled_labels:
        raise InputError(
            "--permutations compares true labels with permuted ones; this network was trained on the latter."
        )
    own = {"job": PERMUTE, "out_dir": tested.out_dir / FOLDER, "tested": tested, "asked": asked, "jobs": tested.jobs}
    run = PermutedRun(**fields_of(tested) | own)
    guards.free_output(run, None)
    return run


def amend(tested: Run, end: Permuted) -> None:
    """Puts the p-value into the description of a test, and into its report."""
    from utils.report.build import write

    with files.locked(tested.out_dir, wait=True):
        described = files.read_json(tested.out_dir / MANIFEST, dict)
        files.write_json(tested.out_dir / MANIFEST, described | {PERMUTATIONS: asdict(end)})
        record(tested.out_dir, *(path.name for path in write(tested.out_dir)))


def in_processes(series: Series, each: list[dict[str, str]]) -> int:
    """Repeats the command in processes, again as long as that does permutations that are needed; returns the status of
    the first that fails."""
    status, before = 0, -1
    while not status and series.end() is None and before < (before := series.done):
        status = together(series, each)
    return status


def together(series: Series, each: list[dict[str, str]]) -> int:
    """Repeats the command in processes, and shows what they have done; returns the status of the first that fails."""
    command = [sys.executable, *sys.argv, "--jobs=1"]
    with tempfile.TemporaryFile() as output, progress("Permutations", series.asked, len(series.scores())) as shown:
        own = {PARENT: str(os.getpid()), OF_SEVERAL: "1"}
        running = [
            subprocess.Popen(command, env=os.environ | of | own, stdout=output, stderr=subprocess.STDOUT) for of in each
        ]

        def stop(number: int, _: object) -> None:
            for process in running:
                process.terminate()

        done = len(series.scores())
        with handled(stop):
            while any(process.poll() is None for process in running):
                time.sleep(0.5)
                for score in series.scores()[done:]:
                    shown.advance(f"{HEADLINES[series.metric]} {score:.2f}")
                    done += 1
        status = next((process.returncode for process in running if process.returncode), 0)
        output.seek(0)
        if status:
            said = output.read().decode(errors="replace").strip().splitlines()
            print(said[-1] if said else f"{ERROR} A process of --jobs was killed; repeat the command.", file=sys.stderr)
    return abs(status) + 128 * (status < 0)
