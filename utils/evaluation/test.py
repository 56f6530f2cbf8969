"""--test: test subjects and a checkpoint -> predictions, and for one run or all folds: metrics, figures, the report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import keras
import pandas as pd

from data.base import files
from data.base.tables import add_row, make_printable
from data.base.terminal import format_participants, print_table, print_unless_quiet
from data.cohorts.cohort import split_into_batches
from data.cohorts.covariates import load_all_covariates
from data.cohorts.duplicates import SHARED_SCAN_WORDS, describe_tie, find_group_leaders
from data.cohorts.phenotype import describe_missing_by_class
from data.cohorts.records import CLASS_NAMES
from data.cohorts.rows import DUPLICATES_TOGETHER
from utils.evaluation import autoencoders, comparisons, confounds, external, missingness, probabilities
from utils.evaluation.confounds import by_fold, by_site
from utils.evaluation.table1 import table1
from utils.report import build as report
from utils.report import drawings
from utils.report.adjusted import adjusted_table
from utils.report.methods import told_sites
from utils.report.tables import (
    FOLDS,
    Prepared,
    Results,
    Tables,
    Tested,
    described,
    mean_of,
    read_table,
    tested,
)
from utils.runs.record import CHECKPOINT_RESULTS_FILE, average_branch_weights
from utils.runs.run import Run
from utils.scores import baselines
from utils.scores.conclusion import OF_FOLD, UNLABELLED, Conclusion
from utils.scores.metrics import Predictions, with_intervals
from utils.scores.results import (
    MASKED,
    METRICS,
    OUT,
    OUT_COLUMNS,
    POOLED,
    PREDICTION_COLUMNS,
    SAME_SCAN,
    Estimate,
    Headline,
)
from utils.training.network import predict_probabilities, restore_network

RESULT_METRICS = ("accuracy", "recall", "precision", "f_score")  # in a table with a row for each tested checkpoint


def test(run: Run) -> int:
    """Tests a classifier or an autoencoder, depending on what the model predicts; returns the exit status."""
    network = restore_network(run)
    run.claim_output_folder()
    if run.model.predicted == "label":
        evaluate(run, network)
    else:
        autoencoders.evaluate(run, network)
    return 0


def pool(whole: Run, runs: Sequence[Run]) -> None:
    """Treats the predictions of all folds as one test in which every subject was tested, once in each repeat; averages
    autoencoders'."""
    if whole.model.predicted == "input":
        autoencoders.pool(whole, runs)
        return
    results = Results(whole)
    for name in POOLED:
        tables = [of_part(run, name) for run in runs]
        if tables := [table for table in tables if len(table)]:  # a column that not every fold has is dropped
            results.add(name, pd.concat(tables, join="inner", ignore_index=True))
    each = tested(whole)
    if whole.repeats > 1 and each[0].predictions["label"].notna().any():
        inputs = whole.model.list_inputs(whole.config)
        results.add("repeats", comparisons.repeats_table(each, whole.seed, inputs))
    count = max(len(run.cohort.split_indices("train")) for run in runs)
    notes = baselines.limits(count, runs[0].cohort.connectomes is not None)
    conclude(results, each, notes, runs)


def of_part(run: Run, name: str) -> pd.DataFrame:
    """A table of one run as a part of that of all."""
    table = read_table(run, name)
    return table.assign(fold=run.fold, **({"repeat": run.repeat} if run.repeats > 1 else {}))


def evaluate(run: Run, network: keras.Model) -> None:
    """Tests a classifier: the tables of `conclude`, what follows from them, and a row of `checkpoint_results.csv`."""
    results, indices = Results(run), run.cohort.split_indices("test")
    batches = split_into_batches(indices, run.config.batch_size)
    found, *masked = predict_probabilities(run, network, batches, missingness.masked_cohort(run))
    rows = [run.cohort.rows[index] for index in indices]
    cells = [
        (row.file, row.subject, row.site, int(row.label) if row.known else "", probability)
        for row, probability in zip(rows, found, strict=True)
    ]
    table = pd.DataFrame(cells, columns=PREDICTION_COLUMNS)
    if masked:
        table[MASKED] = masked[0]
    if groups := run.cohort.groups:
        table[SAME_SCAN] = table["subject"].map(find_group_leaders(table["subject"], groups))
    results.add("predictions", table)
    notes = external.write_beside(results)
    score = conclude(results, tested(run), notes, [run])
    if score:
        numbers_of = {name: score[name].value for name in RESULT_METRICS}
        told = {name: "" if value is None else f"{value:.6f}" for name, value in numbers_of.items()}
        add_row(run.out_dir / CHECKPOINT_RESULTS_FILE, {"checkpoint": str(run.checkpoints.latest_prefix())} | told)


def conclude(
    results: Results, each: Sequence[Tested], notes_before: list[str], parts: Sequence[Run]
) -> dict[str, Estimate]:
    """The predictions of each repeat -> all other results; returns the metrics. `notes_before` are those of baselines
    and people; `parts` are the runs whose networks predicted."""
    run, table = results.run, each[0].predictions
    known = table["file"][table["label"].notna()]
    if not run.fold and len(people := table1(run.cohort)):
        results.add("table1", people)
    score, metrics, found = measure(results, [of.of_records(known) for of in each]) if len(known) else ({}, {}, None)
    notes = warnings_of(run, len(table) - len(known), len(table), notes_before)
    trained = [(part, part.checkpoints.manifest()) for part in parts]
    summary: dict[str, Any] = {
        "subjects": counts(run, FOLDS in metrics),
        "left_out": run.cohort.metadata.left_out_count_by_reason,
        "warnings": notes,
        "prepared": asdict(prepared(run)),
        "baseline_settings": baselines.SETTINGS,
        "shares": average_branch_weights([of.shares for _, of in trained]),
        "chosen": {part.fold_label: of.told["chosen"] for part, of in trained if "chosen" in of.told},
        "promise": results.promise,
        "conclusion": None if run.fold or found is None else asdict(found),
    }
    about = described(run.make_manifest(**summary), run.out_dir)
    report.write(run.out_dir, Tables.of(about, results.tables, metrics))
    if run.fold:
        print_unless_quiet(f"{len(known)} test records. {OF_FOLD}")
    else:
        who = f"{format_participants(table['subject'].nunique())}, {told_sites(table['site'])}"
        cut = f"folds: {run.division_text}" if run.folds else "trained on everybody" if run.everybody else ""
        odd = results.tables.get("out_of_distribution", pd.DataFrame(columns=OUT_COLUMNS))
        told = {
            "problems": run.caveats.problems,
            "warnings": notes,
            OUT: (odd["file"] + ": " + odd["reasons"]).tolist(),
        }
        beside = [(name, str(len(texts)), make_printable(texts[0])) for name, texts in told.items() if texts]
        rows = found.rows if found else [("", "", UNLABELLED)]
        print_table([(f"{run.model.model_name} {run.choices.preset}", who, cut), *rows, *beside], truncate_last=True)
    run.finish(Headline(found.metric, found.score) if found else None, **summary)
    return {} if run.is_pooled else score


def measure(results: Results, every: Sequence[Tested]) -> tuple[dict[str, Estimate], dict[str, Any], Conclusion]:
    """Adds every result that needs labels, by the records whose label is known; returns the scores, the content of
    `metrics.json`, without caveats, and what the scores show."""
    run, inputs = results.run, results.run.model.list_inputs(results.run.config)
    predictions = Predictions.of(*(of.predictions for of in every))
    score = with_intervals(predictions, run.seed)
    same_folds = predictions.trained.any() and (predictions.folds == predictions.folds[0]).all()
    folds = {name: in_json(of) for name, of in by_fold(predictions, run.seed).items()} if same_folds else {}
    metrics = in_json(score) | ({FOLDS: folds} if folds else {})
    files.write_json(run.out_dir / METRICS, metrics | run.caveats.active_fields)
    results.add("sites", pd.DataFrame(by_site(predictions, run.seed)))
    drawings.classification(predictions, score, run.out_dir, run.marks)
    if run.folds is not None and run.is_pooled:
        calibrate(results, mean_of([of.predictions for of in every]))
    compared = comparisons.baselines_table(predictions, [of.baselines for of in every], run.seed, inputs)
    if compared:
        results.add("baselines", pd.DataFrame(compared))
    table = load_all_covariates(run.cohort)
    motion, grouped = confounds.motion(predictions, table, run.seed), confounds.groups(predictions, table, run.seed)
    masked = missingness.masked(predictions, [of.predictions for of in every], run.seed)
    for name, rows in (("groups", grouped), ("confounds", confounds.rows(motion, grouped, masked))):
        if rows:
            results.add(name, pd.DataFrame(rows))
    if motion:
        results.add("adjusted", adjusted_table(motion["beside"]))
    found = comparisons.conclusion(score, predictions, compared, inputs, run.cross_validation)
    return score, metrics, replace(found, covariates=confounds.told(motion), masked=masked[0], minus_masked=masked[1])


def calibrate(results: Results, mean: pd.DataFrame) -> None:
    """Calibrates the predictions of a run on folds, if there are people enough. These are means over repeats, as they
    are reported of a person; the folds are those of the first repeat."""
    people, folds = probabilities.people(mean), results.run.folds
    if len(people) and folds:
        results.add("probabilities", people)
        groups = "fold" if folds.division.column else "site"
        results.add("calibration", probabilities.observed(people, groups, results.run.seed))


def warnings_of(run: Run, unlabelled: int, every: int, notes_before: list[str]) -> list[str]:
    """What is wrong with the data, or must be known of the results, the gravest first."""
    derivation = run.cohort.metadata.derivation
    uncleaned = [derivation.uncleaned_warning] if derivation and derivation.uncleaned_warning else []
    gaps = [
        f"Missing values tell the label: {text}."
        for text in describe_missing_by_class(run.cohort.raw_phenotype, run.cohort.rows)
    ]
    none = [f"{unlabelled} of {every} test records have no label and are in no metric."] if unlabelled else []
    return [*gaps, *uncleaned, *notes_before, *none, *(run.folds.warnings if run.folds else [])]


def prepared(run: Run) -> Prepared:
    """How the data had been prepared, for the methods of a paper."""
    metadata, folds = run.cohort.metadata, run.folds
    by_fold = folds and (folds.reduced_cohort_by_fold or folds.full_cohort.raw_phenotype is not None)
    return Prepared(
        normalisation=metadata.normalisation,
        reduction=metadata.reduction,
        standard=run.standardisation if "volume" in run.model.input_names else "",
        connectome=metadata.connectome,
        phenotype_columns=metadata.phenotype_columns,
        num_phenotype=0 if run.cohort.raw_phenotype is None else int((run.cohort.raw_phenotype.nunique() > 1).sum()),
        derivation=metadata.derivation.methods_text if metadata.derivation else "",
        scaled_by=("fold" if by_fold else "split") if metadata.phenotype_median else "",
        same_scan=sum(SHARED_SCAN_WORDS in describe_tie((group,), run.cohort.metadata) for group in run.cohort.groups),
        together=folds is not None or metadata.duplicates == DUPLICATES_TOGETHER,
        families=sum(len(members) > 1 for members in metadata.families.values()),
        family_column=metadata.family_column,
        conversion=metadata.conversion_command,
    )


def counts(run: Run, by_fold: bool) -> list[dict[str, Any]]:
    """Subjects by split, of a run on folds `by_fold` or all together, by site and by label."""
    found: Counter = Counter()
    for row in {row.subject: row for row in run.cohort.rows}.values():
        split = row.split
        if run.folds is not None and run.is_pooled:
            split = f"fold {run.folds.fold_by_subject[row.subject]}" if by_fold else "tested"
        found[split, row.site, CLASS_NAMES[int(row.label)] if row.is_labelled else "unknown"] += 1
    return [
        {"split": split, "site": site} | {name: found[split, site, name] for name in (*CLASS_NAMES, "unknown")}
        for split, site in sorted({(split, site) for split, site, _ in found})
    ]


def in_json(scores: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    """Metrics as `metrics.json` has them."""
    return {name: estimate.columns() for name, estimate in scores.items()}
