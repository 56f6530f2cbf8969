"""--test --permutations N: the test, and then the p-value of the whole procedure, in a folder of its own below it.

Nothing that permutations train is kept. Every process that runs the command does permutations that no other one is at,
so an array of the same command shares them; who finds them complete writes the p-value into the report.
"""

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import partial

from data.base import files
from data.base.errors import InputError
from data.base.processes import handled, processes
from data.base.tables import read_frame, write_rows
from data.base.terminal import progress, quietly, warn_in_one_line
from utils.machines import devices
from utils.machines.devices import Workers
from utils.permutations.job import Procedure, Series, scored
from utils.report.registry import DATA, TABLES
from utils.report.tables import PERMUTATIONS
from utils.report.texts import paragraph
from utils.runs import guards
from utils.runs.folders import MANIFEST, described, record, sha256_of_outputs
from utils.runs.group import Group
from utils.runs.run import Job, Run
from utils.runs.side_by_side import PROGRAM, Again, environments
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


@dataclass(frozen=True)
class Permutations:
    """A test on folds, `tested`, and so many permutations of its labels; `run` writes their folder."""

    tested: Group
    run: Run
    asked: int

    @property
    def job(self) -> Job:
        return self.tested.job

    @property
    def whole(self) -> Run:
        """`run` with the settings of the test, so that more permutations continue fewer."""
        return replace(self.run, more=self.tested.whole.more)

    def is_done(self) -> bool:
        """Whether the permutations are, and the report says what came out."""
        if not (self.tested.is_done() and self.whole.is_done()):
            return False
        there, said = (described(of.run.out_dir).get(PERMUTATIONS) for of in (self, self.tested))
        return there is not None and there["asked"] == self.asked and said == there

    def nothing_to_do(self) -> bool:
        return self.is_done()

    def announce(self) -> None:
        self.tested.announce()

    def perform(self, share_gpu: bool) -> int:
        """The test, unless it is done, and then permutations, in `jobs` processes if there are several."""
        tested, jobs = self.tested, self.tested.jobs
        if jobs > 1 and not tested.is_done() and (status := tested.perform(share_gpu)):
            return status
        device = devices.choose_device(share_gpu, several=jobs > 1)
        if jobs == 1 and not tested.is_done() and (status := tested.perform_on(device)):
            return status
        self.begin()
        if jobs == 1:
            self.permute(device, self.asked)
        elif status := self.permute_beside(device, environments(jobs, share_gpu)):
            return status
        return self.conclude()

    def begin(self) -> None:
        """Makes the folder; what is there of another test is moved aside."""
        with files.locked(self.run.out_dir, wait=True):
            whole = self.whole
            if not whole.results.are_of(whole.settings()):
                whole.prepare_folder()

    def permute(self, device: str, most: int) -> None:
        """Does permutations in this process, so many at most."""
        self.series(self.run.workers.started(devices.start_tensorflow(device))).work(most)

    def permute_beside(self, device: str, each: list[dict[str, str]]) -> int:
        """Does permutations in processes, which are renewed as long as that brings some; returns the exit status."""
        series, statuses = self.series(self.run.workers), list[int]()
        scores = series.scores()
        with processes(environments=each) as beside, progress("Permutations", self.asked, len(scores)) as shown:

            def show() -> None:
                for score in series.scores()[len(scores) :]:
                    shown.advance(f"{HEADLINES[series.metric]} {score:.2f}")
                    scores.append(score)

            def stop(number: int, _: object) -> None:
                statuses.append(128 + number)
                beside.stop()

            assert self.tested.again
            again, before = partial(permuted_again, self.tested.again, self.asked), -1
            with handled(stop):
                while not statuses and series.end() is None and before < (before := series.done):
                    calls = [(again, device)] * len(each)
                    ended = [outcome for _, outcome in beside.outcomes(permute_some, calls, show)]
                    for outcome in ended:
                        outcome.check()
                        if outcome.exit_code is not None and not statuses:
                            raise InputError("A process of --jobs was killed; repeat the command.")
                    show()
        return next(iter(statuses), 0)

    def series(self, workers: Workers) -> Series:
        """The permutations, in this folder."""
        tested, choosing = self.tested, self.tested.choosing
        groups = tested.by_name if choosing else {tested.run.choices.preset: tested}
        parts: dict[str, dict[str, Run]] = {name: {} for name in tested.folds.names}
        for name, group in groups.items():
            for leaf in group.leaves:
                parts[leaf.fold][name] = replace(leaf, workers=workers, num_iters=leaf.trained_for)
        quick = choosing is not None and choosing.in_folds is None
        metric, observed = scored(read_frame(tested.run.out_dir / TABLES["predictions"].file))
        procedure = Procedure(tested.folds, parts, self.run.seed, quick)
        return Series(procedure, self.run.out_dir, self.asked, observed, metric)

    def conclude(self) -> int:
        """Writes the p-value, here and into the report of the test, if no permutation is missing."""
        with files.locked(self.run.out_dir, wait=True):
            series, whole = self.series(self.run.workers), self.whole
            if (end := series.end()) is None:
                print("Other processes are still at permutations; the last one of all writes the p-value.")
                return 0
            if not self.is_done():
                rows = ((at, score, int(score >= end.observed)) for at, score in enumerate(series.scores(), 1))
                columns = ("permutation", end.metric, "as_high")
                write_rows(self.run.out_dir / TABLE, columns, list(rows)[: end.count])
                amend(self.tested.run, end)  # before these are done: who is killed amid it does it again
                whole.write_manifest(finished=True, **{PERMUTATIONS: asdict(end)})
                whole.enter(Headline("p of permutations", Estimate(end.p, None, end.bound)))
        print(paragraph("permutations", of=end))
        self.announce()
        return 0


def permuted_run(tested: Group, asked: int) -> Permutations:
    """The test, and permutations after it."""
    if tested.run.choices.shuffled_labels:
        raise InputError(
            "--permutations compares true labels with permuted ones; this network was trained on the latter."
        )
    run = replace(tested.run, job=PERMUTE, out_dir=tested.run.out_dir / FOLDER, name="")
    guards.free_output(run)
    return Permutations(tested, run, asked)


def permuted_again(again: Again, asked: int) -> Permutations:
    """The permutations of a test, in another process."""
    return permuted_run(again(None), asked)


def permute_some(again: Callable[[], Permutations], device: str) -> None:
    """Does permutations in this process; nothing is printed, but for what goes wrong."""
    warn_in_one_line(PROGRAM)
    with redirect_stdout(io.StringIO()), quietly():
        again().permute(device, RENEWED_AFTER)


def amend(tested: Run, end: Permuted) -> None:
    """Puts the p-value into the description of a test, and into its report, whose digests are forgotten meanwhile: the
    test is done, whatever the report is like."""
    from utils.report.build import write

    folder = tested.out_dir
    with files.locked(folder, wait=True):
        content = described(folder)
        if (known := content.get("outputs_sha256")) is not None:
            of_tables = {name: sha256 for name, sha256 in known.items() if name in DATA}
            content = content | {"outputs_sha256": of_tables}
        files.write_json(folder / MANIFEST, content | {PERMUTATIONS: asdict(end)})
        write(folder)
        record(folder, *sha256_of_outputs(folder, tested.results.outputs))
