"""--permutations: the whole procedure again on labels permuted within sites -> the p-value of its score.

`permutation-<number>.csv` holds what the procedure predicts of everybody under one permutation; it grows with each
fold. Any number of processes share a folder: each takes the next permutation that no other one is at.
"""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.tables import read_frame, write_frame
from data.base.terminal import progress
from data.cohorts.folds import Folds, permuted_folds
from utils.choice.job import Store, choice, read_alike
from utils.runs.run import Run
from utils.scores.metrics import HEADLINES, Predictions, aucs, headline
from utils.scores.sequential import Permuted, permuted

COLUMNS = ["file", "subject", "site", "label", "fold", "candidate", "probability"]


@dataclass(frozen=True)
class Procedure:
    """What is repeated: on the folds of a cohort, a training in each, by one candidate or by whom inner folds choose.

    `parts` are the trainings of the candidates, by fold and name; if `quick`, all are trained, and the best one counts.
    """

    folds: Folds
    parts: dict[str, dict[str, Run]]
    seed: int
    quick: bool

    def under(self, number: int) -> Folds:
        """The folds of a permutation."""
        return permuted_folds(self.folds, self.seed, number)

    def predict(self, folds: Folds, name: str) -> pd.DataFrame:
        """What it predicts of the people of a fold. TensorFlow must have been started."""
        from utils.training.fit import predicted

        cohort = folds.cohort(name)
        runs = {of: replace(read_alike(run, cohort), folds=folds) for of, run in self.parts[name].items()}
        if len(runs) > 1 and not self.quick:
            chosen = choice(runs, Store()).name
            runs = {chosen: runs[chosen]}
        found = []
        for candidate, run in runs.items():
            rows = {row.file: row for row in run.cohort.rows}
            for file, probability in predicted(run).items():
                row = rows[file]
                found.append((file, row.subject, row.site, int(row.label), name, candidate, probability))
        return pd.DataFrame(found, columns=COLUMNS)

    def score(self, table: pd.DataFrame) -> tuple[str, float]:
        """The AUC that a verdict rests on, by its name; of several candidates in a fold that of the best one."""
        groups = [of for _, of in table.groupby("candidate")] if self.quick else [table]
        scores = [scored(of) for of in groups]
        return scores[0][0], max(score for _, score in scores)


def scored(table: pd.DataFrame) -> tuple[str, float]:
    """The AUC that a verdict rests on, by its name, of a table with the columns of `predictions.csv`."""
    predictions = Predictions.of(table.assign(**{name: table[name].map(float) for name in ("label", "probability")}))
    areas = aucs(predictions, np.ones((1, len(predictions.label))))
    name = headline(areas)
    return name, float(np.nan_to_num(areas[name], nan=0.5)[0])


@dataclass(frozen=True)
class Series:
    """The permutations of a procedure in a folder, which are done in any order and count in theirs."""

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
            self.known[number] = self.procedure.score(table)[1]
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
                    self.permute(number)
                most -= 1
                shown.advance(f"{number}: {HEADLINES[self.metric]} {self.score(number):.2f}")

    def permute(self, number: int) -> None:
        """Does the folds of a permutation that are missing."""
        folds, table = self.procedure.under(number), self.table(number)
        for name in folds.names:
            if name not in set(table["fold"]):
                table = pd.concat([table, self.procedure.predict(folds, name)], ignore_index=True)
                write_frame(self.path(number), table)
