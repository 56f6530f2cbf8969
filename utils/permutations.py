"""--test --permutations N: the test, and then its whole procedure again on labels permuted within sites -> the p-value.

Each permutation is trained in memory on relabelled folds, chooses if the training did, and leaves a row of
`permutations/permutations.csv`. Every process of the command does permutations that no other one is at, so an array
shares them, and a command that was killed goes on. Who finds them complete writes the p-value into the report.

The p-value ends early where there is little to find (Besag & Clifford 1991, Biometrika 78:301). Permutations are drawn
until ten of them score at least as high as the true labels; then p = 10 / number drawn. If that does not happen within
so many as were asked for, p = (1 + those as high) / (1 + number). Either way P(p <= a) <= a where there is nothing to
find. The order of the permutations decides, not who is done first: processes that share the work get the same p.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import pandas as pd
from scipy.stats import beta

from data.base import files
from data.base.errors import InputError
from data.base.tables import read_frame, write_frame
from data.base.terminal import format_duration, open_progress_bar, print_summary, print_unless_quiet, redirect_progress
from data.cohorts.cohort import Cohort
from data.cohorts.folds import permute_folds
from utils.machines import devices
from utils.report.tables import PERMUTATIONS, Permuted, read_predictions
from utils.runs import record
from utils.runs.record import MANIFEST_FILE, Manifest
from utils.runs.run import Run, make_pooled_run
from utils.runs.work import is_child_process, make_environments, run_subprocesses
from utils.scores.metrics import Predictions, headline_of
from utils.scores.results import CONFIDENCE_LEVEL, TABLES, Estimate, Headline

COLUMNS = ["permutation", "score"]
EXCEEDANCES = 10  # permutations as high as the true labels, after which none is drawn
FOLDER = "permutations"
TABLE = "permutations.csv"
RENEWED_AFTER = 25  # permutations, a process of --jobs ends: TensorFlow keeps about 2 MB of every training


def read_alike(run: Run, cohort: Cohort) -> Run:
    """The run on another cohort of the same records, whose volumes are read as before."""
    own = run.cohort
    cohort = cohort if own.connectomes else cohort.without_connectomes
    cohort = replace(cohort, standard=own.standard, moments_by_site=own.moments_by_site, means_folder=own.means_folder)
    return replace(run, cohort=cohort)


def permuted(observed: float, scores: Sequence[float], asked: int, metric: str) -> Permuted | None:
    """The end of a series, of whose first permutations these are the scores; None if it is not reached yet."""
    high = 0
    for count, score in enumerate(scores[:asked], 1):
        high += score >= observed
        if high == EXCEEDANCES or count == asked:
            stopped = high == EXCEEDANCES
            p = high / count if stopped else (high + 1) / (count + 1)
            others = count - high  # if it stopped, the last one was drawn because it was high
            bound = beta.ppf(CONFIDENCE_LEVEL, high + (not stopped), others) if others else 1.0
            return Permuted(
                p=p,
                bound=float(bound),
                high=high,
                count=count,
                asked=asked,
                observed=observed,
                metric=metric,
                mean=sum(scores[:count]) / count,
            )
    return None


@dataclass(frozen=True)
class Series:
    """The permutations of a test on folds, which `runs` did; so many are `asked` for."""

    runs: Sequence[Run]
    asked: int

    @cached_property
    def tested(self) -> Run:
        return make_pooled_run(self.runs)

    @property
    def folder(self) -> Path:
        return self.tested.out_dir / FOLDER

    @property
    def record(self) -> Manifest:
        """That of the folder. More permutations continue fewer, and what is permuted is the training: its settings."""
        trained = [run.checkpoints.manifest() for run in self.runs]
        return Manifest(
            job="permute",
            key=record.compute_run_key(self.tested.run_key, [[of.key, of.step] for of in trained]),
            settings=self.tested.choices,
        )

    @cached_property
    def key(self) -> str:
        """That of its record, as it was at first."""
        return self.record.key

    @cached_property
    def observed(self) -> tuple[str, float]:
        """The AUC that the verdict rests on, by its name, as the test has it."""
        return headline_of(Predictions.of(read_predictions(self.tested.out_dir / TABLES["predictions"].file)))

    def known(self) -> dict[int, float]:
        """The scores of the permutations that are done, by number."""
        path = self.folder / TABLE
        table = read_frame(path, COLUMNS) if path.is_file() else pd.DataFrame(columns=COLUMNS)
        return dict(zip(table["permutation"].map(int), table["score"].map(float), strict=True))

    def end(self) -> Permuted | None:
        """None if permutations are missing."""
        known, (metric, observed) = self.known(), self.observed
        first = takewhile(known.__contains__, range(1, self.asked + 1))
        return permuted(observed, [known[number] for number in first], self.asked, metric)

    def score(self, number: int, said: Callable[[str], object]) -> float:
        """What the procedure scores on one permutation. TensorFlow must have been started."""
        from utils.training.choose import train_and_predict

        of = self.runs[0].folds
        assert of
        folds, tables = permute_folds(of, self.tested.seed, number), []
        for name, run in zip(folds.fold_names, self.runs, strict=True):
            trained = replace(read_alike(run, folds.make_fold_cohort(name)), folds=folds)
            found = train_and_predict(trained)
            rows = {row.file: row for row in trained.cohort.rows}
            cells = [(rows[file], probability) for file, probability in found.items()]
            tables += [(row.subject, row.site, row.label, name, probability) for row, probability in cells]
            said(f"{number}: fold {name} is done")
        columns = ["subject", "site", "label", "fold", "probability"]
        return headline_of(Predictions.of(pd.DataFrame(tables, columns=columns)))[1]

    def work(self, most: int) -> None:
        """Does permutation after permutation that no other process is at, `most` at most, until no more are needed."""
        with open_progress_bar("Permutations", self.asked, len(self.known())) as shown:
            for number in range(1, self.asked + 1):
                if number in self.known():
                    continue
                if self.end() or not most:
                    return
                with ExitStack() as held:
                    try:
                        held.enter_context(files.locked(self.folder / f"permutation {number}"))
                    except InputError:  # another process is at it
                        continue
                    if number in self.known():
                        continue
                    self.add(number, self.score(number, lambda text: shown.advance(text, 0)))
                most -= 1
                shown.advance()

    def add(self, number: int, score: float) -> None:
        """Adds a row, in the order of numbers."""
        with files.locked(self.folder, wait=True):
            if (of := record.read_manifest(self.folder)) is None or of.key != self.key:
                raise InputError(f"{self.folder} is of another training now; repeat the command.")
            rows = sorted((self.known() | {number: score}).items())
            write_frame(self.folder / TABLE, pd.DataFrame(rows, columns=COLUMNS))

    def expected(self) -> str:
        """How many permutations are to come, and how long they take at most, by the trainings of the networks."""
        same = (found := record.read_manifest(self.folder)) is not None and found.key == self.key
        count = 0 if same and self.end() else self.asked - (len(self.known()) if same else 0)
        took = [of.wall_time_s for run in self.runs if (of := run.checkpoints.manifest()).wall_time_s]
        mean = sum(took) / max(len(took), 1)
        at_most = (
            f"at most about {format_duration(count * len(self.runs) * mean)}, by {format_duration(mean)} a training"
        )
        told = f"{count} more at most, each in {len(self.runs)} folds; {EXCEEDANCES} as high end it early"
        return f"{told}; time {at_most if took else 'not known yet: the first one tells'}"


def permute(runs: Sequence[Run], asked: int, jobs: int, share_gpu: bool) -> int:
    """Does the permutations that are missing, in `jobs` processes if there are several; returns the exit status."""
    series = Series(runs, asked)
    records = [record.read_manifest(series.folder), record.read_manifest(series.tested.out_dir)]
    told = [of.told.get(PERMUTATIONS) if of and of.finished else None for of in records]
    if records[0] and records[0].key == series.key and told[0] and told[0] == told[1] and told[0]["asked"] == asked:
        print("Everything is done.")
        series.tested.print_results_location()
        return 0
    with files.locked(series.folder, wait=True):
        edited = records[0] and record.find_changed_outputs(series.folder, records[0])
        if records[0] is None or records[0].key != series.key or edited:
            record.claim_folder(series.folder, series.record)
    if not is_child_process():
        print_summary([("permutations", series.expected())])
    if jobs == 1:
        with redirect_stdout(None) if is_child_process() else nullcontext():
            device = devices.choose_device(share_gpu)
        workers = runs[0].workers.with_strategy(devices.start_tensorflow(device))
        own = Series([replace(run, workers=workers) for run in series.runs], asked)
        with redirect_progress(lambda _: None) if is_child_process() else nullcontext():
            own.work(RENEWED_AFTER if is_child_process() else asked)
    else:
        before, status = -1, 0
        while not status and series.end() is None and before < (before := len(series.known())):
            devices.choose_device(share_gpu, allow_several=True)
            commands = [("A process of permutations", list[str]())] * jobs
            status = run_subprocesses(commands, make_environments(jobs, share_gpu), "Permutations")
        if status:
            return status
    return 0 if is_child_process() else conclude(series)


def conclude(series: Series) -> int:
    """Writes the p-value, here and into the report of the test, if no permutation is missing."""
    tested, folder = series.tested, series.folder
    with files.locked(folder, wait=True):
        if (end := series.end()) is None:
            print("Other processes are still at permutations; the last one of all writes the p-value.")
            return 0
        for left in folder.glob(".*.lock"):  # of a process that was killed
            files.remove(left)
        amend(tested, end)
        told = {PERMUTATIONS: asdict(end)}
        finished = replace(series.record, finished=True, outputs=record.fingerprint_outputs(folder), told=told)
        record.write_manifest(folder / MANIFEST_FILE, finished)
        replace(tested, out_dir=folder).add_to_ledger(Headline("p of permutations", Estimate(end.p, None, end.bound)))
    print_unless_quiet(end.sentence)
    tested.print_results_location()
    return 0


def amend(tested: Run, end: Permuted) -> None:
    """Puts the p-value into the record of a test, and into its report."""
    from utils.report.build import REMADE, write
    from utils.report.tables import read_test

    told = {PERMUTATIONS: asdict(end)}
    with files.locked(tested.out_dir, wait=True), record.rewrite_outputs(tested.out_dir, REMADE, **told):
        write(tested.out_dir, read_test(tested.out_dir))
