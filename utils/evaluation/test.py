"""--test: test subjects and a checkpoint -> predictions, and for one run or all folds: metrics, figures, the report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import keras
import pandas as pd

from data.base import files
from data.base.tables import add_row
from data.base.terminal import print_unless_quiet
from data.cohorts.cohort import in_order
from data.cohorts.covariates import known_covariates
from data.cohorts.duplicates import SHARED_SCAN, leaders, tie
from data.cohorts.phenotype import missing_in
from data.cohorts.records import CLASSES
from data.cohorts.rows import TOGETHER
from utils.evaluation import autoencoders, comparisons, confounds, external, missingness, probabilities
from utils.evaluation.confounds import by_fold, by_site
from utils.evaluation.table1 import table1
from utils.report import build as report
from utils.report import drawings
from utils.report.tables import Prepared, Tested, mean_of, read_table, tested, write_history, write_table
from utils.runs import record
from utils.runs.record import RECORD, TESTED, mean_of_shares
from utils.runs.run import Run
from utils.scores import baselines, metrics
from utils.scores.metrics import Predictions, with_intervals
from utils.scores.results import METRICS, POOLED, PREDICTION_COLUMNS, SAME_SCAN, Estimate, Headline
from utils.training.network import predicted, restored_network

RESULT_METRICS = ("accuracy", "recall", "precision", "f_score")  # in a table with a row for each tested checkpoint
UNLABELLED = "No label is known, so that nothing can be concluded about how good the predictions are."


def test(run: Run) -> int:
    """Tests a classifier or an autoencoder, depending on what the model predicts; returns the exit status."""
    network = restored_network(run)
    run.claim()
    if run.model.predicts == "label":
        evaluate(run, network)
    else:
        autoencoders.evaluate(run, network)
    return 0


def pool(whole: Run, runs: Sequence[Run]) -> None:
    """Treats the predictions of all folds as one test in which every subject was tested, once in each repeat; averages
    autoencoders'."""
    if whole.model.predicts == "input":
        autoencoders.pool(whole, runs)
        return
    for name in POOLED:
        tables = [of_part(run, name) for run in runs]
        if tables := [table for table in tables if len(table)]:  # a column that not every fold has is dropped
            write_table(whole, name, pd.concat(tables, join="inner", ignore_index=True))
    each = tested(whole)
    if whole.repeats > 1 and each[0].predictions["label"].notna().any():
        inputs = whole.model.inputs(whole.config)
        write_table(whole, "repeats", comparisons.repeats_table(each, whole.seed, inputs))
    count = max(len(run.cohort.indices("train")) for run in runs)
    notes = baselines.limits(count, runs[0].cohort.connectomes is not None)
    conclude(whole, each, notes, runs)


def of_part(run: Run, name: str) -> pd.DataFrame:
    """A table of one run as a part of that of all."""
    table = read_table(run, name)
    if name == "training":
        return table.assign(fold=run.part)
    return table.assign(fold=run.fold, **({"repeat": run.repeat} if run.repeats > 1 else {}))


def evaluate(run: Run, network: keras.Model) -> None:
    """Tests a classifier: the tables of `conclude`, what follows from them, and a row of `checkpoint_results.csv`."""
    indices = run.cohort.indices("test")
    batches = in_order(indices, run.config.batch_size)
    found, *alike = predicted(run, network, batches, missingness.told_alike(run))
    rows = [run.cohort.rows[index] for index in indices]
    cells = [
        (row.file, row.subject, row.site, int(row.label) if row.known else "", probability)
        for row, probability in zip(rows, found, strict=True)
    ]
    table = pd.DataFrame(cells, columns=PREDICTION_COLUMNS)
    if groups := run.cohort.groups:
        table[SAME_SCAN] = table["subject"].map(leaders(table["subject"], groups))
    write_table(run, "predictions", table)
    notes = external.write_beside(run)
    for told_alike in alike:
        missingness.write_alike(run, told_alike)
    write_history(run)
    conclude(run, tested(run), notes, [run])


def conclude(run: Run, each: Sequence[Tested], notes_before: list[str], parts: Sequence[Run]) -> None:
    """The predictions of each repeat -> all other results. `notes_before` are those of baselines and people; `parts`
    are
    the runs whose networks predicted."""
    table = mean_of([of.predictions for of in each])
    trained = [(part, part.checkpoints.record()) for part in parts]
    chosen = {part.part: of.told["chosen"] for part, of in trained if "chosen" in of.told}
    known = table[table["label"].notna()]
    derivation = run.cohort.metadata.derivation
    uncleaned = filter(None, [derivation.uncleaned] if derivation else [])
    notes = [*uncleaned, *notes_before, *(run.folds.notes if run.folds else [])]
    if len(known) < len(table):
        notes = [f"{len(table) - len(known)} of {len(table)} test records have no label and are in no metric.", *notes]
    gaps = missing_in(run.cohort.raw_phenotype, run.cohort.rows)
    notes = [*(f"Missing values tell the label: {text}." for text in gaps), *notes]
    summary: dict[str, Any] = {
        "subjects": counts(run, "fold" in table),
        "left_out": run.cohort.metadata.left_out,
        "warnings": notes,
        "prepared": asdict(prepared(run)),
        "baseline_settings": baselines.SETTINGS,
        "shares": mean_of_shares([of.shares for _, of in trained]),
        "chosen": chosen,
        "conclusion": UNLABELLED,
        "motion": None,
    }
    if not run.fold and len(people := table1(run.cohort)):
        write_table(run, "table1", people)
    headline: Headline | None = None
    score: dict[str, Estimate] = {}
    if len(known):
        score, told = measure(run, known, each)
        summary |= told
        name = metrics.headline(score)
        headline = Headline(name, score[name])
        values = (f"{metric} {estimate.text(undefined='undefined')}" for metric, estimate in score.items())
        numbers = f"its own numbers, of few participants, are in {METRICS}" if run.fold else ", ".join(values)
        print_unless_quiet(f"{len(known)} test records: {numbers}")
    concluded = (
        ("What counts is the result of all folds together.",)
        if run.fold
        else (summary["conclusion"], summary["motion"])
    )
    print_unless_quiet("\n".join(filter(None, concluded)))
    said = [run.checkpoints.overlap, *(run.folds.notes if run.folds else [])]  # at the start
    if new := [note for note in notes if note not in said]:
        print_unless_quiet("\n".join(new))
    record.write(run.out_dir / RECORD, run.record(**summary))
    report.write(run.out_dir)
    if score and not run.is_pooled:
        numbers_of = {name: score[name].value for name in RESULT_METRICS}
        results = {name: "" if value is None else f"{value:.6f}" for name, value in numbers_of.items()}
        add_row(run.out_dir / TESTED, {"checkpoint": str(run.checkpoints.latest())} | results)
    run.finish(headline, **summary)


def measure(run: Run, known: pd.DataFrame, each: Sequence[Tested]) -> tuple[dict[str, Estimate], dict[str, Any]]:
    """Writes every result that needs labels; returns the metrics, and what `run.json` says of them."""
    every = [of.of_records(known["file"]) for of in each]
    first, *others = [Predictions.of(of.predictions) for of in every]
    predictions, mean = replace(first, repeats=tuple(others)), Predictions.of(known, several=run.is_pooled)
    score = with_intervals(predictions, run.seed)
    folds = {} if mean.fold is None else {name: in_json(of) for name, of in by_fold(predictions, run.seed).items()}
    files.write_json(run.out_dir / METRICS, in_json(score) | ({"folds": folds} if folds else {}) | run.caveats.held)
    write_table(run, "sites", pd.DataFrame(by_site(predictions, run.seed)))
    drawings.classification(mean, score, run.seed, run.out_dir, run.marks)
    calibrate(run, known, every[0].predictions)
    inputs = run.model.inputs(run.config)
    compared = comparisons.baselines_table(predictions, [of.baselines for of in every], run.seed, inputs)
    write_table(run, "baselines", pd.DataFrame(compared))
    table = known_covariates(run.cohort)
    motion, grouped = confounds.motion(predictions, table, run.seed), confounds.groups(predictions, table, run.seed)
    for name, rows in (("groups", grouped), ("confounds", confounds.rows(motion, grouped))):
        if rows:
            write_table(run, name, pd.DataFrame(rows))
    concluded = [
        comparisons.verdict(compared, predictions, inputs, run.cross_validation),
        missingness.sentence(compared),
    ]
    told = {"conclusion": " ".join(filter(None, concluded)), "motion": confounds.motion_line(motion)}
    return score, told | {"small_sites": predictions.in_small_sites}


def calibrate(run: Run, known: pd.DataFrame, first: pd.DataFrame) -> None:
    """Calibrates the predictions of a run on folds, if there are people enough. These are means over repeats, as they
    are reported of a person; the folds are those of the first repeat."""
    if run.folds is None or not run.is_pooled:
        return
    people = probabilities.people(known, first["fold"].to_numpy())
    if len(people):
        write_table(run, "probabilities", people)
        by = "site" if run.folds.are_numbered else "fold"
        write_table(run, "calibration", probabilities.observed(people, by, run.seed))


def prepared(run: Run) -> Prepared:
    """How the data had been prepared, for the methods of a paper."""
    metadata, folds = run.cohort.metadata, run.folds
    by_fold = folds and (folds.reduced or folds.whole.raw_phenotype is not None)
    return Prepared(
        normalisation=metadata.normalisation,
        reduction=metadata.reduction,
        standard=run.standard if "volume" in run.model.reads else "",
        connectome=metadata.connectome,
        phenotype_columns=metadata.phenotype_columns,
        num_phenotype=0 if run.cohort.raw_phenotype is None else int((run.cohort.raw_phenotype.nunique() > 1).sum()),
        derivation=metadata.derivation.in_paper if metadata.derivation else "",
        scaled_by=("fold" if by_fold else "split") if metadata.phenotype_median else "",
        same_scan=sum(SHARED_SCAN in tie((group,), run.cohort.metadata) for group in run.cohort.groups),
        together=folds is not None or metadata.duplicates == TOGETHER,
        families=sum(len(members) > 1 for members in metadata.families.values()),
        family_column=metadata.family_column,
        conversion=metadata.command,
    )


def counts(run: Run, by_fold: bool) -> list[dict[str, Any]]:
    """Subjects by split, of a run on folds `by_fold` or all together, by site and by label."""
    found: Counter = Counter()
    for row in {row.subject: row for row in run.cohort.rows}.values():
        split = row.split
        if run.folds is not None and run.is_pooled:
            split = f"fold {run.folds.fold_of[row.subject]}" if by_fold else "tested"
        found[split, row.site, CLASSES[int(row.label)] if row.known else "unknown"] += 1
    return [
        {"split": split, "site": site} | {name: found[split, site, name] for name in (*CLASSES, "unknown")}
        for split, site in sorted({(split, site) for split, site, _ in found})
    ]


def in_json(scores: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    """Metrics as `metrics.json` has them."""
    return {name: estimate.columns() for name, estimate in scores.items()}
