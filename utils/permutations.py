"""--test --permutations N: the test, and then its whole procedure again on labels permuted within sites -> the p-value.

It lies in a folder below the test. `permutation-<number>.csv` holds what the procedure predicts of everybody under one
permutation; it grows with each fold, and nothing that is trained is kept. Every process of the command does
permutations that no other one is at, so an array shares them. Who finds them complete writes the p-value into the
report.

The p-value ends early where there is little to find (Besag & Clifford 1991, Biometrika 78:301). Permutations are drawn
until ten of them score at least as high as the true labels; then p = 10 / number drawn. If that does not happen within
so many as were asked for, p = (1 + those as high) / (1 + number). Either way P(p <= a) <= a where there is nothing to
find. The order of the permutations decides, not who is done first: processes that share the work get the same p.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

import pandas as pd
from scipy.stats import beta

from data.base import files
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.tables import read_frame, write_frame, write_rows
from data.base.terminal import duration, progress, quietly, warn_in_one_line
from data.cohorts.folds import Folds, permuted_folds
from utils.choice.job import Store, choice, read_alike, trainings
from utils.machines import devices
from utils.machines.devices import Workers
from utils.report.tables import PERMUTATIONS, Permuted
from utils.report.texts import paragraph
from utils.runs import guards
from utils.runs.folders import MANIFEST, described, record, seconds_of, sha256_of_outputs
from utils.runs.group import Group
from utils.runs.run import Job, Run
from utils.runs.side_by_side import PROGRAM, Again, beside, environments, stopped_by
from utils.scores.metrics import Predictions, headline_of
from utils.scores.results import CONFIDENCE, DATA, TABLES, Estimate, Headline

COLUMNS = ["file", "subject", "site", "label", "fold", "candidate", "probability"]
EXCEEDANCES = 10  # permutations as high as the true labels, after which none is drawn
FOLDER = "permutations"
TABLE = "permutations.csv"
RENEWED_AFTER = 25  # permutations, a process of --jobs ends: TensorFlow keeps about 2 MB of every training
PERMUTE = Job(
    name="permute",
    help="repeat the procedure on permuted labels",
    module="utils.permutations",
    guards=(),
    outputs=("permutation-*.csv", TABLE),
)


@dataclass(frozen=True)
class Procedure:
    """What is repeated: on the folds of a cohort, a training in each, by one candidate or by whom inner folds choose.

    `parts` are the trainings of the candidates, by fold and name.
    """

    folds: Folds
    parts: dict[str, dict[str, Run]]
    seed: int

    def predict(self, folds: Folds, name: str) -> pd.DataFrame:
        """What it predicts of the people of a fold. TensorFlow must have been started."""
        from utils.training.fit import predicted

        cohort = folds.cohort(name)
        runs = {of: replace(read_alike(run, cohort), folds=folds) for of, run in self.parts[name].items()}
        chosen = choice(runs, Store()).name if len(runs) > 1 else next(iter(runs))
        rows = {row.file: row for row in runs[chosen].cohort.rows}
        found = [(rows[file], probability) for file, probability in predicted(runs[chosen]).items()]
        cells = [
            (row.file, row.subject, row.site, int(row.label), name, chosen, probability) for row, probability in found
        ]
        return pd.DataFrame(cells, columns=COLUMNS)


def scored(table: pd.DataFrame) -> tuple[str, float]:
    """The AUC that a verdict rests on, by its name, of a table with the columns of `predictions.csv`."""
    numbers = {name: table[name].map(float) for name in ("label", "probability")}
    return headline_of(Predictions.of(table.assign(**numbers)))


def permuted(observed: float, scores: Sequence[float], asked: int, metric: str) -> Permuted | None:
    """The end of a series, of whose first permutations these are the scores; None if it is not reached yet."""
    high = 0
    for count, score in enumerate(scores[:asked], 1):
        high += score >= observed
        if high == EXCEEDANCES or count == asked:
            stopped = high == EXCEEDANCES
            p = high / count if stopped else (high + 1) / (count + 1)
            others = count - high  # if it stopped, the last one was drawn because it was high
            bound = beta.ppf(CONFIDENCE, high + (not stopped), others) if others else 1.0
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
class PermutationFolder:
    """The permutations of a procedure in a folder. They are done in any order, and count in that of their numbers."""

    procedure: Procedure
    folder: Path
    asked: int
    observed: float
    metric: str
    known: dict[int, float] = field(default_factory=dict)  # scores that were read

    def path(self, number: int) -> Path:
        return self.folder / f"permutation-{number:05d}.csv"

    def table(self, number: int) -> pd.DataFrame:
        """What is done of a permutation, none of it if its file is damaged."""
        try:
            table = read_frame(self.path(number), COLUMNS)
            return table.assign(label=table["label"].map(int), probability=table["probability"].map(float))
        except (InputError, OSError, ValueError):
            return pd.DataFrame(columns=COLUMNS)

    def score(self, number: int) -> float | None:
        """That of a permutation, if it is done."""
        if number not in self.known:
            table = self.table(number)
            if set(table["fold"]) != set(self.procedure.folds.names):
                return None
            self.known[number] = scored(table)[1]
        return self.known[number]

    def scores(self) -> list[float]:
        """Those of the first permutations, up to one that is not done."""
        found = (self.score(number) for number in range(1, self.asked + 1))
        return [score for score in takewhile(lambda score: score is not None, found) if score is not None]

    def end(self) -> Permuted | None:
        """The p-value; None as long as permutations are missing."""
        return permuted(self.observed, self.scores(), self.asked, self.metric)

    @property
    def done(self) -> int:
        """How many permutations are."""
        return sum(self.score(number) is not None for number in range(1, self.asked + 1))

    def work(self, most: int) -> None:
        """Does permutation after permutation that no other process is at, `most` at most, until no more are needed."""
        with progress("Permutations", self.asked, len(self.scores())) as shown:
            for number in range(1, self.asked + 1):
                if self.end() or not most:
                    return
                if self.score(number) is not None:
                    continue
                with ExitStack() as held:
                    try:
                        held.enter_context(files.locked(self.path(number)))
                    except InputError:  # another process is at it
                        continue
                    for fold in self.permute(number):
                        shown.advance(f"{number}: fold {fold} is done", 0)
                most -= 1
                shown.advance()

    def permute(self, number: int) -> Iterator[str]:
        """Does the folds of a permutation that are missing; yields each once it is done."""
        folds = permuted_folds(self.procedure.folds, self.procedure.seed, number)
        table = self.table(number)
        for name in folds.names:
            if name not in set(table["fold"]):
                table = pd.concat([table, self.procedure.predict(folds, name)], ignore_index=True)
                write_frame(self.path(number), table)
                yield name


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

    nothing_to_do = is_done

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
        print(self.expected(), flush=True)
        if jobs == 1:
            self.permute(device, self.asked)
        elif status := self.permute_beside(device, environments(jobs, share_gpu)):
            return status
        return self.conclude()

    def expected(self) -> str:
        """How many permutations are to come, and how long they take at most, by the trainings of the networks."""
        tested, folds, count = self.tested, len(self.tested.folds.names), self.asked
        if tested.is_done() and self.whole.results.are_of(self.whole.settings()):  # those of another test do not count
            series = self.series(self.run.workers)
            count = 0 if series.end() else self.asked - series.done
        each = folds * (1 + (trainings(len(tested.by_name), EFFORT.inner_folds) if tested.choice else 0))
        took = [of for leaf in tested.leaves if (of := seconds_of(Path(leaf.checkpoints.identity().out_dir)))]
        mean = sum(took) / max(len(took), 1)
        at_most = f"at most about {duration(count * each * mean / tested.jobs)}, by {duration(mean)} a training"
        told = f"Permutations: {count} more at most, of {each} trainings each; {EXCEEDANCES} as high end it early."
        return f"{told} Time: {at_most if took else 'not known yet; the first one tells'}."

    def begin(self) -> None:
        """Makes the folder; what is there of another test is moved aside."""
        with files.locked(self.run.out_dir, wait=True):
            if not (whole := self.whole).results.are_of(whole.settings()):
                whole.prepare_folder()

    def permute(self, device: str, most: int) -> None:
        """Does permutations in this process, so many at most."""
        self.series(self.run.workers.started(devices.start_tensorflow(device))).work(most)

    def permute_beside(self, device: str, each: list[dict[str, str]]) -> int:
        """Does permutations in processes, which are renewed as long as that brings some; returns the exit status."""
        series, statuses = self.series(self.run.workers), list[int]()
        scores, before = series.scores(), -1
        assert self.tested.again
        again = partial(permuted_again, self.tested.again, self.asked)
        with stopped_by(statuses), progress("Permutations", self.asked, len(scores)) as shown:

            def show() -> None:
                for score in series.scores()[len(scores) :]:
                    shown.advance()
                    scores.append(score)

            def ended(_: int, future: Future) -> None:
                if isinstance(error := future.exception(), BrokenProcessPool) and not statuses:
                    raise InputError("A process of --jobs was killed; repeat the command.") from error
                if not statuses:
                    future.result()

            while not statuses and series.end() is None and before < (before := series.done):
                calls = ((number, permute_some, again, device) for number in range(len(each)))
                beside(each, calls, ended, show, partial(warn_in_one_line, PROGRAM))
                show()
        return next(iter(statuses), 0)

    def series(self, workers: Workers) -> PermutationFolder:
        """The permutations, in this folder."""
        tested = self.tested
        groups = tested.by_name if tested.choice else {tested.run.choices.preset: tested}
        parts: dict[str, dict[str, Run]] = {name: {} for name in tested.folds.names}
        for name, group in groups.items():
            for leaf in group.leaves:
                parts[leaf.fold][name] = replace(leaf, workers=workers)
        metric, observed = scored(read_frame(tested.run.out_dir / TABLES["predictions"].file))
        procedure = Procedure(tested.folds, parts, self.run.seed)
        return PermutationFolder(procedure, self.run.out_dir, self.asked, observed, metric)

    def conclude(self) -> int:
        """Writes the p-value, here and into the report of the test, if no permutation is missing."""
        with files.locked(self.run.out_dir, wait=True):
            series, whole = self.series(self.run.workers), self.whole
            if (end := series.end()) is None:
                print("Other processes are still at permutations; the last one of all writes the p-value.")
                return 0
            if not self.is_done():
                rows = ((at, score, int(score >= end.observed)) for at, score in enumerate(series.scores(), 1))
                write_rows(self.run.out_dir / TABLE, ("permutation", end.metric, "as_high"), list(rows)[: end.count])
                amend(self.tested.run, end)  # before these are done: who is killed amid it does it again
                whole.write_manifest(finished=True, **{PERMUTATIONS: asdict(end)})
                whole.enter(Headline("p of permutations", Estimate(end.p, None, end.bound)))
        print(paragraph("permutations", of=end))
        self.announce()
        return 0


def permuted_run(tested: Group, asked: int) -> Permutations:
    """The test, and permutations after it."""
    run = replace(tested.run, job=PERMUTE, out_dir=tested.run.out_dir / FOLDER, name="")
    guards.free_output(run)
    return Permutations(tested, run, asked)


def permuted_again(again: Again, asked: int) -> Permutations:
    """The permutations of a test, in another process."""
    return permuted_run(again(None), asked)


def permute_some(again: Callable[[], Permutations], device: str) -> None:
    """Does permutations in this process; nothing is printed, but for what goes wrong."""
    with redirect_stdout(io.StringIO()), quietly(lambda _: None):
        again().permute(device, RENEWED_AFTER)


def amend(tested: Run, end: Permuted) -> None:
    """Puts the p-value into the description of a test, and into its report. The digests of the report are forgotten
    meanwhile: the test is done, whatever the report is like."""
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
