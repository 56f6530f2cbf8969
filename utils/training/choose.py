"""Trainings in memory: a run -> the probabilities of autism of its test records; and the choice by them, in inner
folds, among candidates. What is trained is not kept.

The weights are those of `--train`, bit for bit on the same CPU.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.tables import read_frame, write_frame
from data.base.terminal import progress
from data.cohorts.cohort import in_order
from data.cohorts.folds import InnerFolds, inner_folds
from utils.runs.candidates import Candidate
from utils.runs.run import Run
from utils.scores.metrics import Predictions, headline_of
from utils.training.network import outputs_of, probability_of_autism
from utils.training.train import begin, measure

COLUMNS = ["candidate", "inner_fold", "file", "probability"]


def predicted(run: Run) -> dict[str, float]:
    """The probability of autism of each test record, by file, by a network that is trained on `num_iters` batches; with
    candidates by the one that inner folds choose. TensorFlow must have been started."""
    if run.candidates:
        run = run.by(chosen(run)[0])
    with run.fresh():
        training = begin(run)
        measure(training)
        for _ in training.steps(0):
            pass
        training.calibrate(run.num_iters)
        indices = run.cohort.indices("test")
        batches = in_order(indices, run.config.batch_size)
        logits = np.concatenate([of for _, _, of in outputs_of(run, training.network, batches)])
        files = [run.cohort.rows[index].file for index in indices]
        return dict(zip(files, probability_of_autism(logits).tolist(), strict=True))


def chosen(run: Run, store: Path | None = None) -> tuple[Candidate, dict[str, Any]]:
    """The candidate that does best in inner folds of the training people, of equal ones the first; and what the record
    says of it. `store` is a table of all that was predicted, which grows with each training: a run that is killed goes
    on where it was."""
    assert run.folds
    inner = inner_folds(run.folds, run.cohort, run.seed)
    table = known_in(store)
    todo = [(candidate, fold) for candidate in run.candidates for fold in inner.names]
    left = [
        (one, fold)
        for one, fold in todo
        if table[(table["candidate"] == str(one)) & (table["inner_fold"] == fold)].empty
    ]
    with progress("Choosing", len(todo), len(todo) - len(left)) as shown:
        for candidate, fold in left:
            found = predicted(replace(run.by(candidate), cohort=inner.cohort(fold, run.cohort)))
            rows = pd.DataFrame(found.items(), columns=COLUMNS[2:]).assign(candidate=str(candidate), inner_fold=fold)
            table = pd.concat([table, rows[COLUMNS]], ignore_index=True)
            if store:
                write_frame(store, table)
            shown.advance(f"{candidate}, inner fold {fold}")
    of_each = {str(one): scored(inner, table[table["candidate"] == str(one)]) for one in run.candidates}
    best = max(run.candidates, key=lambda one: of_each[str(one)][1])
    metric, _ = of_each[str(best)]
    scores = {name: score for name, (_, score) in of_each.items()}
    settings = {"preset": best.preset, "config": asdict(best.config)}
    return best, {"chosen": {"name": str(best), "metric": metric, "scores": scores} | settings}


def known_in(store: Path | None) -> pd.DataFrame:
    """What an interrupted run has kept; nothing if there is no such file or it is damaged."""
    try:
        table = read_frame(store, COLUMNS) if store and store.is_file() else pd.DataFrame(columns=COLUMNS)
        return table.assign(probability=table["probability"].map(float))
    except (InputError, ValueError):
        return pd.DataFrame(columns=COLUMNS)


def scored(inner: InnerFolds, table: pd.DataFrame) -> tuple[str, float]:
    """The AUC that a verdict would rest on, by its name, of what a candidate predicts."""
    probability = dict(zip(table["file"], table["probability"], strict=True))
    rows = [row for row in inner.outer.rows if row.subject in inner.fold_of]
    label, subject, site = (np.array([getattr(row, of) for row in rows]) for of in ("label", "subject", "site"))
    fold = np.array([inner.fold_of[row.subject] for row in rows])
    return headline_of(Predictions(label, np.array([probability[row.file] for row in rows]), subject, fold, site))
