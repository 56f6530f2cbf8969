"""--test: test subjects and a checkpoint -> predictions, and for one run or all folds: metrics, figures, the report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from data.base import files
from data.base.tables import add_csv_row, make_printable
from data.base.terminal import format_participants, print_table, print_unless_quiet
from data.cohorts.covariates import load_all_covariates
from data.cohorts.groups import SHARED_SCAN_WORDS, describe_group_ties, find_group_leaders
from data.cohorts.metadata import DUPLICATES_TOGETHER
from data.cohorts.scaling import describe_missing_by_class
from data.tables.vocabulary import CLASS_NAMES
from utils.evaluation import comparisons, confounds, external, missingness, probabilities
from utils.evaluation.confounds import make_site_score_rows, score_folds
from utils.evaluation.table1 import make_table1
from utils.predictors.user_code import PRINTED_FILE
from utils.report import build as report_builder
from utils.report import drawings
from utils.report.adjusted import make_adjusted_table
from utils.report.methods import format_site_count
from utils.report.tables import (
    FOLDS_KEY,
    EvaluationResults,
    EvaluationTables,
    RepeatPredictions,
    average_record_tables,
    parse_evaluation_manifest,
    read_result_table,
    split_predictions_by_repeat,
)
from utils.runs.network import ReadyNetwork
from utils.runs.predictor import ReadyPredictor
from utils.runs.record import CHECKPOINT_RESULTS_FILE, average_branch_weights
from utils.runs.run import Run
from utils.runs.statements import DataPreparation, SubjectCounts, TestStatement
from utils.scores import baselines
from utils.scores.conclusion import (
    FOLD_VERDICT,
    MISSINGNESS_WARNING,
    UNLABELLED_VERDICT,
    UNLABELLED_WARNING,
    Conclusion,
)
from utils.scores.metrics import Predictions, estimate_scores
from utils.scores.results import (
    MASKED_PROBABILITY_COLUMN,
    METRICS_FILE,
    OUT_OF_DISTRIBUTION,
    POOLED_TABLE_NAMES,
    PREDICTION_COLUMNS,
    SAME_SCAN_COLUMN,
    Estimate,
    Headline,
)

CHECKPOINT_METRICS = ("accuracy", "recall", "precision", "f_score")  # in a table with a row for each tested checkpoint


def run_test(run: Run) -> int:
    """Tests a classifier or an autoencoder, depending on what the model predicts; returns the exit status."""
    ready_predictor = run.predictor.make_ready(run.fold_data)
    if isinstance(ready_predictor, ReadyNetwork) and not run.predictor.classifies:
        from utils.evaluation import autoencoders  # imports Keras, which is slow

        run.claim_output_folder()
        autoencoders.evaluate_autoencoder(run, ready_predictor.network)
    else:
        evaluate_classifier(run, ready_predictor)
    return 0


def pool_tests(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    """Treats the predictions of all folds as one test in which every subject was tested, once in each repeat; averages
    the metrics of autoencoders."""
    if not pooled_run.predictor.classifies:
        from utils.evaluation import autoencoders  # imports Keras, which is slow

        autoencoders.pool_autoencoder_tests(pooled_run, fold_runs)
        return
    results = EvaluationResults(pooled_run)
    for table_name in POOLED_TABLE_NAMES:
        fold_tables = [read_fold_table(fold_run, table_name) for fold_run in fold_runs]
        nonempty_fold_tables = [fold_table for fold_table in fold_tables if len(fold_table)]
        if nonempty_fold_tables:  # a column that not every fold has is dropped
            results.write_result_table(table_name, pd.concat(nonempty_fold_tables, join="inner", ignore_index=True))
    repeats = split_predictions_by_repeat(results.table_by_name)
    if pooled_run.repeats > 1 and repeats[0].predictions["label"].notna().any():
        repeats_table = comparisons.make_repeats_table(repeats, pooled_run.seed, pooled_run.predictor.input_names)
        results.write_result_table("repeats", repeats_table)
    max_training_record_count = max(len(fold_run.cohort.find_split_record_indices("train")) for fold_run in fold_runs)
    baseline_warnings = baselines.describe_record_limits(
        max_training_record_count, fold_runs[0].cohort.connectomes is not None
    )
    conclude_test(results, repeats, baseline_warnings, fold_runs)


def read_fold_table(fold_run: Run, table_name: str) -> pd.DataFrame:
    """A table of one run, as a part of the table of all runs."""
    fold_table = read_result_table(fold_run, table_name).assign(fold=fold_run.fold)
    return fold_table.assign(repeat=fold_run.repeat) if fold_run.repeats > 1 else fold_table


def evaluate_classifier(run: Run, ready_predictor: ReadyPredictor) -> None:
    """Tests a classifier: the tables of `conclude_test`, and what follows from them."""
    prediction_table = predict_test_records(run, ready_predictor)
    run.claim_output_folder()  # not before, since the user's code may fail
    results = EvaluationResults(run)
    results.write_result_table("predictions", prediction_table)
    if ready_predictor.printed_text:
        (run.out_dir / PRINTED_FILE).write_text(ready_predictor.printed_text)
        print_unless_quiet(f"What {run.predictor.name} printed: {run.out_dir / PRINTED_FILE}")
    external_warnings = external.write_external_tables(results)
    repeats = split_predictions_by_repeat(results.table_by_name)
    conclude_test(results, repeats, external_warnings, [run])


def predict_test_records(run: Run, ready_predictor: ReadyPredictor) -> pd.DataFrame:
    """`predictions.csv`: a row a test record, with the probability of autism, and that where missingness is masked, if
    the predictor reads what is missing."""
    test_indices = run.cohort.find_split_record_indices("test")
    predicted_probabilities, masked_probabilities = ready_predictor.predict_probabilities(test_indices)
    test_rows = [run.cohort.rows[test_index] for test_index in test_indices]
    prediction_rows = [
        (row.file, row.subject, row.site, int(row.label) if row.is_labelled else "", probability)
        for row, probability in zip(test_rows, predicted_probabilities, strict=True)
    ]
    prediction_table = pd.DataFrame(prediction_rows, columns=PREDICTION_COLUMNS)
    if masked_probabilities is not None:
        prediction_table[MASKED_PROBABILITY_COLUMN] = masked_probabilities
    same_scan_groups = run.cohort.groups
    if same_scan_groups:
        leader_by_subject = find_group_leaders(prediction_table["subject"], same_scan_groups)
        prediction_table[SAME_SCAN_COLUMN] = prediction_table["subject"].map(leader_by_subject)
    return prediction_table


def conclude_test(
    results: EvaluationResults,
    repeats: Sequence[RepeatPredictions],
    earlier_warnings: list[str],
    fold_runs: Sequence[Run],
) -> None:
    """The predictions of each repeat -> all other results. `earlier_warnings` are those of baselines and people;
    `fold_runs` are the runs whose networks predicted."""
    run = results.run
    prediction_table = repeats[0].predictions
    labelled_files = prediction_table["file"][prediction_table["label"].notna()]

    if not run.fold:
        table1 = make_table1(run.cohort)
        if len(table1):
            results.write_result_table("table1", table1)

    estimate_by_metric: dict[str, Estimate] = {}
    metrics_json: dict[str, Any] = {}
    conclusion: Conclusion | None = None
    if len(labelled_files):
        labelled_repeats = [repeat.select_records(labelled_files) for repeat in repeats]
        estimate_by_metric, metrics_json, conclusion = measure_test(results, labelled_repeats)

    unlabelled_count = len(prediction_table) - len(labelled_files)
    warnings = list_test_warnings(run, unlabelled_count, len(prediction_table), earlier_warnings)

    fold_manifests = [fold_run.predictor.training_manifest for fold_run in fold_runs]
    choice_by_fold = {
        fold_run.fold_label: fold_manifest.choice
        for fold_run, fold_manifest in zip(fold_runs, fold_manifests, strict=True)
        if fold_manifest.choice
    }
    statement = TestStatement(
        conclusion=None if run.fold else conclusion,
        warnings=warnings,
        subjects=count_subjects(run, FOLDS_KEY in metrics_json),
        left_out=run.cohort.metadata.left_out_count_by_reason,
        chosen=choice_by_fold,
        prepared=make_data_preparation(run),
        promise=results.calibration_promise,
        baseline_settings=baselines.SETTINGS_TEXT_BY_CLASSIFIER,
        shares=average_branch_weights([fold_manifest.shares for fold_manifest in fold_manifests]),
    )
    manifest = parse_evaluation_manifest(replace(run.make_manifest(), test=statement), run.out_dir)
    page_tables = EvaluationTables.from_tables(manifest, results.table_by_name, metrics_json)
    report_builder.write_report(run.out_dir, page_tables)

    summary_rows: list[tuple[str, ...]] = []
    if run.fold:
        print_unless_quiet(f"{len(labelled_files)} test records. {FOLD_VERDICT}")
    else:
        summary_rows = make_test_summary_rows(results, prediction_table, conclusion, warnings)
        print_table(summary_rows, truncate_last_column=True)
    if estimate_by_metric and not run.is_pooled:
        add_checkpoint_row(run, estimate_by_metric)  # before the run is done, since a killed one is repeated as a whole
    headline = Headline(conclusion.metric, conclusion.score) if conclusion else None
    run.finish_run(headline, summary_rows, test=statement)


def add_checkpoint_row(run: Run, estimate_by_metric: Mapping[str, Estimate]) -> None:
    """Adds a row to `checkpoint_results.csv`."""
    checkpoint_row = {"checkpoint": run.predictor.checkpoint_description}
    for metric in CHECKPOINT_METRICS:
        metric_value = estimate_by_metric[metric].value
        checkpoint_row[metric] = "" if metric_value is None else f"{metric_value:.6f}"
    add_csv_row(run.out_dir / CHECKPOINT_RESULTS_FILE, checkpoint_row)


def measure_test(
    results: EvaluationResults, repeats: Sequence[RepeatPredictions]
) -> tuple[dict[str, Estimate], dict[str, Any], Conclusion]:
    """Adds every result that needs labels, by the records whose label is known; returns the scores, the content of
    `metrics.json`, without caveats, and what the scores show."""
    run = results.run
    input_names = run.predictor.input_names
    prediction_tables = [repeat.predictions for repeat in repeats]
    predictions = Predictions.from_tables(*prediction_tables)

    # Scores, of folds only if these are the same in each repeat
    estimate_by_metric = estimate_scores(predictions, run.seed)
    metrics_json: dict[str, Any] = to_metrics_json(estimate_by_metric)
    has_several_models = predictions.training_cluster_counts.any()
    has_same_folds = (predictions.fold_names == predictions.fold_names[0]).all()
    if has_several_models and has_same_folds:
        metrics_json[FOLDS_KEY] = {
            fold_name: to_metrics_json(fold_estimate_by_metric)
            for fold_name, fold_estimate_by_metric in score_folds(predictions, run.seed).items()
        }
    files.write_json(run.out_dir / METRICS_FILE, metrics_json | run.caveats.active_caveat_by_field)
    results.write_result_table("sites", pd.DataFrame(make_site_score_rows(predictions, run.seed)))
    drawings.save_classification_figures(predictions, estimate_by_metric, run.out_dir, run.caveat_marks)

    # Baselines, and the network minus each of them
    baseline_tables = [repeat.baseline_predictions for repeat in repeats]
    baseline_rows = comparisons.make_baseline_rows(predictions, baseline_tables, run.seed, input_names)
    if baseline_rows:
        results.write_result_table("baselines", pd.DataFrame(baseline_rows))

    # Confounds: covariates, groups of people, missingness
    covariate_table = load_all_covariates(run.cohort)
    confound_result = confounds.measure_confounds(predictions, covariate_table, run.seed)
    group_score_rows = confounds.make_group_score_rows(predictions, covariate_table, run.seed)
    masked_auc, score_minus_masked = missingness.estimate_masked_auc_and_difference(
        predictions, prediction_tables, run.seed
    )
    confound_rows = confounds.make_confound_rows(confound_result, group_score_rows, (masked_auc, score_minus_masked))
    if group_score_rows:
        results.write_result_table("groups", pd.DataFrame(group_score_rows))
    if confound_rows:
        results.write_result_table("confounds", pd.DataFrame(confound_rows))
    if confound_result:
        results.write_result_table("adjusted", make_adjusted_table(confound_result["beside"]))

    if run.folds is not None and run.is_pooled:
        write_calibration(results, average_record_tables(prediction_tables))

    conclusion = replace(
        comparisons.make_conclusion(
            estimate_by_metric,
            predictions,
            baseline_rows,
            input_names,
            run.cross_validation,
            run.predictor.noun,
            run.choices.training_sentence,
        ),
        covariates=confounds.make_covariate_result(confound_result),
        masked=masked_auc,
        minus_masked=score_minus_masked,
        control=None if run.fold else run.predictor.measure_control(run.cohort, run.seed),
    )
    return estimate_by_metric, metrics_json, conclusion


def to_metrics_json(estimate_by_metric: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    """Metrics as `metrics.json` has them."""
    return {metric: estimate.to_cells() for metric, estimate in estimate_by_metric.items()}


def write_calibration(results: EvaluationResults, mean_predictions: pd.DataFrame) -> None:
    """Calibrates the predictions of a run on folds, if there are enough people. These are means over repeats, as they
    are reported for a person; the folds are those of the first repeat."""
    probability_table = probabilities.make_probability_table(mean_predictions)
    folds = results.run.folds
    if len(probability_table) and folds:
        results.write_result_table("probabilities", probability_table)
        group_column = "fold" if folds.division.column_name else "site"
        results.write_result_table(
            "calibration", probabilities.make_calibration_table(probability_table, group_column, results.run.seed)
        )


def list_test_warnings(run: Run, unlabelled_count: int, record_count: int, earlier_warnings: list[str]) -> list[str]:
    """What is wrong with the data, or must be known of the results, the gravest first."""
    warnings = [
        MISSINGNESS_WARNING.format(missingness_text)
        for missingness_text in describe_missing_by_class(run.cohort.unscaled_phenotype, run.cohort.rows)
    ]
    derivation = run.cohort.metadata.derivation
    if derivation and derivation.uncleaned_warning:
        warnings.append(derivation.uncleaned_warning)
    warnings += earlier_warnings
    if unlabelled_count:
        warnings.append(UNLABELLED_WARNING.format(unlabelled_count, record_count))
    if run.folds:
        warnings += run.folds.fold_warnings
    return warnings


def count_subjects(run: Run, is_by_fold: bool) -> list[SubjectCounts]:
    """Subjects by split, by site and by label; in a pooled run on folds the split is the fold if `is_by_fold`, else one
    for all."""
    last_row_by_subject = {row.subject: row for row in run.cohort.rows}
    count_by_split_site_and_label: Counter[tuple[str, str, str]] = Counter()
    for row in last_row_by_subject.values():
        split = row.split
        if run.folds is not None and run.is_pooled:
            split = f"fold {run.folds.fold_by_subject[row.subject]}" if is_by_fold else "tested"
        label_name = CLASS_NAMES[int(row.label)] if row.is_labelled else "unknown"
        count_by_split_site_and_label[split, row.site, label_name] += 1

    splits_and_sites = {(split, site) for split, site, _ in count_by_split_site_and_label}
    subject_counts = list[SubjectCounts]()
    for split, site in sorted(splits_and_sites):
        count_by_label = {
            label_name: count_by_split_site_and_label[split, site, label_name]
            for label_name in (*CLASS_NAMES, "unknown")
        }
        subject_counts.append(SubjectCounts(split, site, **count_by_label))
    return subject_counts


def make_data_preparation(run: Run) -> DataPreparation:
    """How the data had been prepared, for the methods of a paper."""
    metadata = run.cohort.metadata
    folds = run.folds
    unscaled_phenotype = run.cohort.unscaled_phenotype
    varying_phenotype_count = 0 if unscaled_phenotype is None else int((unscaled_phenotype.nunique() > 1).sum())
    scaling_unit = ""
    if metadata.phenotype_median:
        is_scaled_by_fold = folds and (folds.reduced_cohort_by_fold or folds.full_cohort.unscaled_phenotype is not None)
        scaling_unit = "fold" if is_scaled_by_fold else "split"
    same_scan_group_count = sum(
        SHARED_SCAN_WORDS in describe_group_ties((same_scan_group,), metadata) for same_scan_group in run.cohort.groups
    )
    return DataPreparation(
        normalisation=metadata.normalisation,
        reduction=metadata.reduction,
        standard=run.standardisation if run.choices.is_network and "volume" in run.predictor.input_names else "",
        connectome=metadata.connectome,
        phenotype_columns=metadata.phenotype_columns,
        num_phenotype=varying_phenotype_count,
        derivation=metadata.derivation.methods_text if metadata.derivation else "",
        scaled_by=scaling_unit,
        same_scan=same_scan_group_count,
        together=folds is not None or metadata.duplicates == DUPLICATES_TOGETHER,
        families=sum(len(family_members) > 1 for family_members in metadata.families.values()),
        family_column=metadata.family_column,
        conversion=metadata.conversion_command,
    )


def make_test_summary_rows(
    results: EvaluationResults, prediction_table: pd.DataFrame, conclusion: Conclusion | None, warnings: list[str]
) -> list[tuple[str, ...]]:
    """What the terminal shows: who was tested, what the test shows, and of each heading of warnings how many there are
    and the first."""
    run = results.run
    people_text = format_participants(prediction_table["subject"].nunique())
    sites_text = format_site_count(prediction_table["site"])
    training_text = ""
    if run.folds:
        training_text = f"folds: {run.division_text}"
    elif run.everybody:
        training_text = "trained on everybody"
    test_row = (run.predictor.description, f"{people_text}, {sites_text}", training_text)

    conclusion_rows = conclusion.terminal_summary_rows if conclusion else [("", "", UNLABELLED_VERDICT)]

    outlier_texts: list[str] = []
    out_of_distribution_records = results.table_by_name.get("out_of_distribution")
    if out_of_distribution_records is not None:
        outlier_texts = (out_of_distribution_records["file"] + ": " + out_of_distribution_records["reasons"]).tolist()
    warning_texts_by_heading = {
        "problems": run.caveats.problem_texts,
        "warnings": warnings,
        OUT_OF_DISTRIBUTION: outlier_texts,
    }
    warning_rows = [
        (heading, str(len(warning_texts)), make_printable(warning_texts[0]))
        for heading, warning_texts in warning_texts_by_heading.items()
        if warning_texts
    ]
    return [test_row, *conclusion_rows, *warning_rows]
