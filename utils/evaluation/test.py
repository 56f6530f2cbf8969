"""--test: test subjects and a checkpoint -> predictions, and for one run or all folds: metrics, figures, the report."""

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.progress import tell
from data.base.tables import add_row, read_frame, write_frame
from data.cohorts.cohort import in_order
from data.cohorts.missingness import missing_in
from data.cohorts.records import CLASSES
from utils.evaluation import autoencoders, confounds, floors, verdict
from utils.inference import outputs_of, probability_of_autism, restored_network
from utils.metrics import Predictions, by_fold, by_site, with_intervals
from utils.report import build as report
from utils.report import drawings
from utils.report.tables import FLOORS, METRICS, PREDICTION_COLUMNS, PREDICTIONS, SITES, TRAINING, Score
from utils.runs.results import MANIFEST
from utils.runs.run import Headline, Run, prepare_folder

RESULTS = "checkpoint_results.csv"
RESULT_METRICS = ("accuracy", "recall", "precision", "f_score")  # its columns beside the checkpoint
FLOOR_PREDICTIONS = "floor_predictions.csv"  # the floors' probabilities of autism for the same records
NAMES = ("file", "subject", "site", "fold")  # columns of text
JOINED = (PREDICTIONS, FLOOR_PREDICTIONS)  # with other tables by their names, which therefore stay as they are
DIGITS = 8  # significant ones
POINTS = 200  # of a history
UNLABELLED = "No label is known, so that nothing can be concluded about how good the predictions are."


def test(run: Run) -> int:
    """Tests a classifier or an autoencoder, depending on what the model predicts; returns the exit status."""
    network = restored_network(run)
    prepare_folder(run)
    {"label": evaluate, "input": autoencoders.evaluate}[run.model.predicts](run, network)
    return 0


def pool(run: Run) -> None:
    """Treats the predictions of all folds as one test in which every subject was tested; averages autoencoders'."""
    if run.model.predicts == "input":
        autoencoders.pool(run)
        return
    for name in (PREDICTIONS, FLOOR_PREDICTIONS, TRAINING):
        tables = [read_table(part, name).assign(fold=part.fold) for part in run.parts]
        if tables := [table for table in tables if len(table)]:  # a column that not every fold has is dropped
            write_table(run, name, pd.concat(tables, join="inner", ignore_index=True))
    conclude(run)


def evaluate(run: Run, network: keras.Model) -> None:
    """Tests a classifier: the tables of `conclude`, what follows from them, and a row of `checkpoint_results.csv`."""
    indices = run.cohort.indices("test")
    batches = in_order(indices, run.config.batch_size)
    logits = np.concatenate([outputs for _, _, outputs in outputs_of(run, network, batches, "Testing")])
    cells = [
        (row.file, row.subject, row.site, int(row.label) if row.known else "", probability)
        for row, probability in zip([run.cohort.rows[i] for i in indices], probability_of_autism(logits), strict=True)
    ]
    write_table(run, PREDICTIONS, pd.DataFrame(cells, columns=PREDICTION_COLUMNS))
    if run.cohort.subjects("train"):
        write_table(run, FLOOR_PREDICTIONS, floors.predict(run.cohort).reset_index())
    write_history(run)
    if score := conclude(run):
        values = {name: score[name]["value"] for name in RESULT_METRICS}
        results = {name: "" if value is None else f"{value:.6f}" for name, value in values.items()}
        add_row(run.out_dir / RESULTS, {"checkpoint": str(run.checkpoints.latest())} | results)


def write_history(run: Run) -> None:
    """`training.csv`, if the results of the training are still in the folder where they were written."""
    checkpoints = run.checkpoints.trained
    folder = Path(checkpoints.identity().out_dir)
    try:
        described = files.read_json(folder / MANIFEST, dict)
        history = pd.read_csv(folder / "history.csv")
    except (InputError, OSError, ValueError):
        return
    if described.get("checkpoint_sha256") != checkpoints.digest() or not len(history):
        return
    chunk = np.arange(len(history)) * min(POINTS, len(history)) // len(history)
    kept = [name for name in history if name not in ("step", "samples_per_s")]
    how = {"step": "last"} | {name: "last" if name.startswith("validation") else "mean" for name in kept}
    thinned = history.groupby(chunk).agg(how)
    thinned.insert(0, "fold", run.fold)
    write_table(run, TRAINING, thinned)


def write_table(run: Run, name: str, table: pd.DataFrame) -> None:
    """A table of results; names of users are written so that no spreadsheet computes them, but for `JOINED`."""
    write_frame(run.out_dir / name, table, () if name in JOINED else NAMES, DIGITS)


def read_table(run: Run, name: str) -> pd.DataFrame:
    """A table that a run on a fold wrote, names as text; no rows if it is not there."""
    path = run.out_dir / name
    if not path.is_file():
        return pd.DataFrame()
    try:
        return read_frame(path).apply(lambda column: column if column.name in NAMES else pd.to_numeric(column))
    except (InputError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); remove {path.parent} and repeat the command.") from error


def conclude(run: Run) -> dict[str, dict]:
    """The predictions in the output folder -> all other results; returns the metrics, none if no label is known."""
    table = read_table(run, PREDICTIONS)
    known = table[table["label"].notna()]
    notes = run.folds.notes if run.folds else []
    if not run.cohort.subjects("train"):
        notes = ["The cohort has no training subjects, so no floor could be fitted beside the score.", *notes]
    if len(known) < len(table):
        notes = [f"{len(table) - len(known)} of {len(table)} test records have no label and are in no metric.", *notes]
    notes = [*(f"Missing values tell the label: {text}." for text in missing_in(run.cohort)), *notes]
    summary: dict[str, Any] = {"subjects": counts(run), "left_out": run.cohort.metadata.left_out, "warnings": notes}
    summary |= {"conclusion": UNLABELLED, "motion": None}
    headline: Headline | None = None
    score: dict[str, dict] = {}
    if len(known):
        score, summary["conclusion"], summary["motion"] = measure(run, known)
        name = "auc_folds" if "auc_folds" in score else "auc"  # the verdict's
        headline = (name, *score[name].values())
        tell(f"{len(known)} test records: " + ", ".join(f"{name} {shown(score[name])}" for name in score))
    tell("\n".join(filter(None, (summary["conclusion"], summary["motion"]))))
    print(*notes, sep="\n", end="\n" * bool(notes))
    run.write_manifest(finished=False, **summary)
    report.write(run.out_dir)
    run.finish(headline, **summary)
    return score


def measure(run: Run, known: pd.DataFrame) -> tuple[dict[str, dict], str, str | None]:
    """Writes every result that needs labels; returns the metrics, the verdict and the line on motion."""
    predictions = Predictions.of(known)
    score = with_intervals(predictions, run.seed)
    folds = {"folds": by_fold(predictions, run.seed)} if run.parts else {}
    files.write_json(run.out_dir / METRICS, score | folds | run.caveats.held)
    write_table(run, SITES, pd.DataFrame(by_site(predictions, run.seed)))
    scores = {name: Score(**values) for name, values in score.items()}
    drawings.classification(predictions, scores, run.seed, run.out_dir, run.marks)
    floor = read_table(run, FLOOR_PREDICTIONS)
    floor = floor.set_index("file").loc[known["file"]] if len(floor) else pd.DataFrame(index=known["file"])
    compared = verdict.compare(predictions, floor.drop(columns="fold", errors="ignore"), run.seed)
    write_table(run, FLOORS, pd.DataFrame(compared))
    regression = confounds.motion(predictions, run.cohort.covariates)
    return score, verdict.verdict(compared), confounds.motion_line(regression)


def counts(run: Run) -> list[dict[str, Any]]:
    """Subjects by split, or by fold, by site and by label."""
    found: Counter = Counter()
    for row in {row.subject: row for row in run.cohort.rows}.values():
        split = f"fold {run.folds.fold_of[row.subject]}" if run.parts and run.folds else row.split
        found[split, row.site, CLASSES[int(row.label)] if row.known else "unknown"] += 1
    return [
        {"split": split, "site": site} | {name: found[split, site, name] for name in (*CLASSES, "unknown")}
        for split, site in sorted({(split, site) for split, site, _ in found})
    ]


def shown(metric: dict) -> str:
    """`0.610 (0.500-0.720)`."""
    if metric["value"] is None:
        return "undefined"
    if metric["low"] is None:
        return f"{metric['value']:.3f} (no interval: too few subjects)"
    return f"{metric['value']:.3f} ({metric['low']:.3f}-{metric['high']:.3f})"
