"""Trainings in memory: a run -> the probabilities of autism of its test records; and the choice by them, in inner
folds, among candidates. What is trained is not kept.

The weights are those of `--train`, bit for bit on the same CPU.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.tables import read_frame, write_frame
from data.base.terminal import open_progress_bar
from data.cohorts.cohort import split_into_batches
from data.cohorts.folds import InnerFolds, divide_into_inner_folds
from utils.runs.candidates import Candidate
from utils.runs.duration import ahead_of_this, looking_ahead
from utils.runs.run import Run
from utils.scores.metrics import Predictions, headline_of
from utils.training.network import outputs_of, probability_of_autism
from utils.training.train import built, measure

COLUMNS = ["candidate", "inner_fold", "batches", "file", "probability"]  # of `inner.csv`


def predicted(run: Run) -> dict[str, float]:
    """The probability of autism of each test record, by file, by a network that is trained on `num_iters` batches; with
    candidates by the one that inner folds choose. TensorFlow must have been started."""
    if run.candidates:
        run = run.by(chosen(run)[0])
    with run.fresh():
        training = built(run)
        measure(training)
        for _ in training.steps(0):
            pass
        training.calibrate(run.num_iters)
        indices = run.cohort.split_indices("test")
        batches = split_into_batches(indices, run.config.batch_size)
        logits = np.concatenate([of for _, _, of in outputs_of(run, training.network, batches)])
        files = [run.cohort.rows[index].file for index in indices]
        return dict(zip(files, probability_of_autism(logits).tolist(), strict=True))


def chosen(run: Run, store: Path | None = None) -> tuple[Candidate, dict[str, Any]]:
    """The candidate that does best in inner folds of the training people, of equal ones the first; and what the record
    says of it. `store` is a table of all that was predicted, which grows with each training: a run that is killed goes
    on where it was."""
    assert run.folds
    inner = divide_into_inner_folds(run.folds, run.cohort, run.seed)
    runs = {str(one): run.by(one) for one in run.candidates}
    todo = [(name, fold, str(run.num_iters)) for name in runs for fold in inner.fold_names]
    known = {
        of: kept for of, kept in known_in(store).items() if of in todo and kept.keys() == inner.find_tested_files(of[1])
    }
    with open_progress_bar("Choosing", len(todo), len(known)) as shown:
        for name, fold, batches in [of for of in todo if of not in known]:
            with looking_ahead(ahead_of_this().times(len(inner.fold_names))):
                found = predicted(replace(runs[name], cohort=inner.make_inner_cohort(fold, runs[name].cohort)))
            known[name, fold, batches] = found
            if store:
                rows = [(*of, *one) for of in todo for one in known.get(of, {}).items()]
                write_frame(store, pd.DataFrame(rows, columns=COLUMNS))
            shown.advance(f"{name}, inner fold {fold}")
    of_each = {name: scored(inner, [known[of] for of in todo if of[0] == name]) for name in runs}
    best = max(run.candidates, key=lambda one: of_each[str(one)][1])
    metric, _ = of_each[str(best)]
    scores = {name: score for name, (_, score) in of_each.items()}
    settings = {"preset": best.preset, "config": asdict(best.config), "batches": run.num_iters}
    return best, {"chosen": {"name": str(best), "metric": metric, "scores": scores} | settings}


def known_in(store: Path | None) -> dict[tuple[str, str, str], dict[str, float]]:
    """What an interrupted run has kept, by candidate, inner fold and batches seen; nothing of a damaged file."""
    try:
        table = read_frame(store, COLUMNS) if store and store.is_file() else pd.DataFrame(columns=COLUMNS)
        table["probability"] = table["probability"].map(float)
    except (InputError, ValueError):
        return {}
    groups = table.groupby(COLUMNS[:3])
    return {of: dict(zip(kept["file"], kept["probability"], strict=True)) for of, kept in groups}


def scored(inner: InnerFolds, predictions: Sequence[dict[str, float]]) -> tuple[str, float]:
    """The AUC that a verdict would rest on, by its name, of what a candidate predicts in each inner fold."""
    probability = {file: value for of_fold in predictions for file, value in of_fold.items()}
    cells = [
        (row.label, probability[row.file], row.subject, row.site, inner.fold_by_subject[row.subject])
        for row in inner.outer_cohort.rows
        if row.file in probability
    ]
    columns = ["label", "probability", "subject", "site", "fold"]
    return headline_of(Predictions.of(pd.DataFrame(cells, columns=columns)))
