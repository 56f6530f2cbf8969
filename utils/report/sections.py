"""Tables of a test -> the sections of its page that hold scores, probabilities and participants."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from data.base.effort import EFFORT
from data.base.terminal import format_participants
from data.base.thresholds import MIN_DESCRIBED_PEOPLE
from data.pages.page import CellByHeading, Section
from data.tables.vocabulary import CLASS_NAMES, find_recorded_sites
from utils.figures import format_number
from utils.report import drawings
from utils.report.adjusted import make_adjusted_section
from utils.report.columns import (
    NAME_FORMAT,
    SPEC_BY_COLUMN,
    ColumnSpec,
    find_heading,
    make_meaning_by_heading,
    make_page_rows,
    make_table_section,
)
from utils.report.tables import (
    BOTH_LABELS,
    COLUMN_BY_PROBABILITY_KIND,
    COVERAGE_MEASURE,
    DIAGNOSIS_COUNT_FIELDS,
    MODEL_MINUS_PREFIX,
    NO_LABEL,
    ONE_LABEL,
    PEOPLE_VARIABLE,
    SITE_VARIABLE,
    EvaluationManifest,
    EvaluationTables,
)
from utils.runs.statements import SubjectCounts
from utils.scores.calibration import COVERAGE_LEVELS, MIN_GROUPS_FOR_PROMISE
from utils.scores.metrics import Predictions, choose_headline_metric
from utils.scores.results import (
    DETECTABLE_DIFFERENCE_COLUMN,
    GIVEN_DIAGNOSIS_MEASURE,
    OTHER_BASELINE_ROLE,
    OUT_OF_DISTRIBUTION,
    PRESPECIFIED_BASELINE_COLUMN,
    PRESPECIFIED_ROLE,
    ROLE_COLUMN,
    SITE_COUNT_COLUMNS,
    THRESHOLD,
    TITLE_BY_AUC,
    Estimate,
    format_people_count,
    list_estimate_columns,
)

AUTISM_CLASS, CONTROL_CLASS = reversed(CLASS_NAMES)
FOLD_METRICS = ("auc", "accuracy", "balanced_accuracy", "brier")  # metrics.json has all
PAGE_COVERAGE_LEVEL = COVERAGE_LEVELS[0]  # of the sets that the page shows
TEXT_BY_SET_SIZE = {BOTH_LABELS: "both labels", ONE_LABEL: "one label", NO_LABEL: "no label"}
MAX_MAP_SHIFTS = 10  # measures of maps on the page, those that lie farthest away
MAX_OUTLIER_ROWS = 50  # of those out of distribution on the page
FEW_PEOPLE_MEANING_BY_HEADING = {
    "participants": f"< {MIN_DESCRIBED_PEOPLE}: so few are not counted. "
    f"A dash in their row: fewer than {MIN_DESCRIBED_PEOPLE} of a class."
}
SINGLE_INTERVAL_CAVEAT = "Each interval holds for its {0} alone. Of so many {0}s, some are low or high by chance."
PAGE_SPEC_BY_COLUMN = SPEC_BY_COLUMN | {  # columns of one table each
    "metric": ColumnSpec("metric", NAME_FORMAT),
    "measure": ColumnSpec("measure"),
    "training": ColumnSpec("in the training", ".3f"),
}
TITLE_BY_CONFOUND_MEASURE = {
    "partial": "partial correlation of output and diagnosis beside the covariates",
    GIVEN_DIAGNOSIS_MEASURE: "correlation of output and {covariate}, given diagnosis and site",
    "auc_sites": "AUC within sites, of those who moved less",
    "auc": "AUC, of those who moved less",
    "masked": "{area}, missingness masked",
    "minus_masked": "{area}, minus that with missingness masked",
}


def make_score_sections(tables: EvaluationTables) -> Iterator[Section]:
    """The sections that need labels."""
    labelled_predictions = tables.labelled_predictions
    manifest = tables.manifest
    predictions = Predictions.from_tables(labelled_predictions)
    introduction = (
        f"{len(labelled_predictions)} records of {format_participants(labelled_predictions['subject'].nunique())} with "
        "a known diagnosis."
    )
    score_table = pd.DataFrame(
        [{"metric": metric, **estimate.to_cells()} for metric, estimate in tables.scores.items()]
    )
    yield make_table_section("Scores", score_table, ["metric", "value"], introduction, PAGE_SPEC_BY_COLUMN, open=True)
    if tables.baselines is not None:
        yield make_baselines_section(tables.baselines, bool(tables.manifest.training_sentence))
    if tables.confounds is not None:
        yield make_confounds_section(tables, tables.confounds)
    if tables.adjusted is not None:
        covariate_result = manifest.conclusion.covariates if manifest.conclusion else None
        introduction = "What is not in the test, and covariates that are measured with error, may explain the result."
        yield make_adjusted_section(
            tables.adjusted,
            f"No test: {covariate_result.reason}." if covariate_result and covariate_result.reason else introduction,
        )
    if tables.repeats is not None:
        yield make_repeats_section(tables.repeats)
    if manifest.chosen:
        yield make_candidate_choices_section(manifest)
    if labelled_predictions["label"].nunique() == len(CLASS_NAMES):
        introduction = "Of all participants together; the verdict rests on the AUC above."
        if manifest.repeats > 1:
            introduction = (
                "Of the mean probabilities over repeats; the AUC beside it is the mean of those of the repeats."
            )
        yield Section("ROC curve", [introduction], drawings.draw_roc(predictions, tables.scores))
    yield from make_probability_sections(tables)
    yield make_confusion_section(predictions, tables)
    if tables.scores_by_fold:
        yield make_folds_section(tables)
    if tables.sites is not None and find_recorded_sites(tables.sites["site"]):
        footnote_by_heading = (
            {"AUC": "Of participants of the same site and fold: sites are small."} if manifest.small_sites else {}
        )
        site_rows = make_group_rows(
            tables.sites, ["site"], ["auc", "accuracy"], SPEC_BY_COLUMN | {"auc": ColumnSpec("AUC", ".3f")}
        )
        yield Section(
            "Sites",
            [SINGLE_INTERVAL_CAVEAT.format("site")],
            notes=footnote_by_heading,
            meanings=FEW_PEOPLE_MEANING_BY_HEADING,
            **separate_count_only_rows(site_rows),
        )
    if tables.groups is not None:
        yield make_groups_section(tables.groups, manifest.small_sites)


def separate_count_only_rows(group_rows: list[CellByHeading]) -> dict:
    """The rows of a section's table; those that contain nothing but counts are folded away, if others contain more."""
    count_headings = {SPEC_BY_COLUMN[column_name].heading for column_name in SITE_COUNT_COLUMNS}
    scored_rows = []
    for group_row in group_rows:
        _, *headings = group_row  # the first is the group's name
        score_texts = "".join(group_row[heading] for heading in headings if heading not in count_headings)
        if any(map(str.isdigit, score_texts)):
            scored_rows.append(group_row)
    count_only_rows = [group_row for group_row in group_rows if group_row not in scored_rows]
    if not scored_rows or not count_only_rows:
        return {"table": group_rows}
    return {
        "table": scored_rows,
        "rest": (f"{len(count_only_rows)} more, of whom only participants are counted", count_only_rows),
    }


def make_baselines_section(baseline_table: pd.DataFrame, is_training_unknown: bool = False) -> Section:
    """Of each baseline the AUC that the verdict rests on, the model's minus it, the pooled AUC and the accuracy.
    `is_training_unknown`: whether nobody knows on whom the model was trained."""
    headline_auc_name = choose_headline_metric(baseline_table)
    non_prespecified_baseline_count = int((baseline_table[ROLE_COLUMN] == OTHER_BASELINE_ROLE).sum())
    score_columns = dict.fromkeys(
        (headline_auc_name, f"{MODEL_MINUS_PREFIX}{headline_auc_name}", DETECTABLE_DIFFERENCE_COLUMN, "auc", "accuracy")
    )
    baseline_table = sort_prespecified_first(baseline_table)
    marked_baseline_names = baseline_table["baseline"] + baseline_table[ROLE_COLUMN].map(
        {PRESPECIFIED_ROLE: f" ({PRESPECIFIED_ROLE})"}
    ).fillna("")
    interval_footnote = (
        f"The interval of the {PRESPECIFIED_ROLE} baseline holds for itself, those of the "
        f"{non_prespecified_baseline_count} others (without the majority) for all together."
    )
    footnote_by_heading = (
        {find_heading(f"{MODEL_MINUS_PREFIX}{headline_auc_name}"): interval_footnote}
        if non_prespecified_baseline_count > 1
        else {}
    )
    introduction = "Plain classifiers of the same participants, trained on the same others."
    if is_training_unknown:
        introduction = "Plain classifiers of the same participants, trained on others of the cohort."
    column_names = ["baseline", *(score_name for score_name in score_columns if score_name in baseline_table)]
    return make_table_section(
        "Baselines",
        baseline_table.assign(baseline=marked_baseline_names),
        column_names,
        introduction,
        open=True,
        notes=footnote_by_heading,
    )


def sort_prespecified_first(baseline_table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `baselines.csv` as a page has them: the pre-specified one first."""
    return baseline_table.sort_values(
        ROLE_COLUMN, key=lambda role_column: role_column != PRESPECIFIED_ROLE, kind="stable"
    )


def make_confounds_section(tables: EvaluationTables, confound_table: pd.DataFrame) -> Section:
    """Whether the output says more than the covariates, head motion, and what is missing."""
    auc_title = TITLE_BY_AUC[choose_headline_metric(tables.scores)]
    confound_table = confound_table[
        confound_table["measure"].isin([*TITLE_BY_CONFOUND_MEASURE])
    ]  # others are in the footnotes
    measure_titles = [
        TITLE_BY_CONFOUND_MEASURE[measure].format(area=auc_title, covariate=covariate)
        for measure, covariate in zip(confound_table["measure"], confound_table["covariate"], strict=True)
    ]
    covariate_result = tables.manifest.conclusion.covariates if tables.manifest.conclusion else None
    limits_text = (
        f" {covariate_result.trust_limits_text}" if covariate_result and covariate_result.trust_limits_text else ""
    )
    left_out_people_text = ""
    if covariate_result and covariate_result.left_out:
        left_out_people_text = f" {covariate_result.left_out} participants, at sites of one class, are not in it."
    half_participants_footnote = "Half of the participants of each site, whatever their AUC."
    confound_test_count = int((confound_table["measure"] == GIVEN_DIAGNOSIS_MEASURE).sum())
    footnote_by_measure = {
        "partial": "If its interval lies above 0, the output carries more than the covariates, as far as these are "
        f"known and measured without error.{limits_text}{left_out_people_text}",
        GIVEN_DIAGNOSIS_MEASURE: "If p is small, the output follows this, or what goes with it, beyond what the "
        f"diagnosis explains. p is two-sided and not corrected for the number of {confound_test_count} tests.",
        "auc_sites": half_participants_footnote,
        "auc": half_participants_footnote,
        "masked": "At the test, what marks missing values, and which test measured the IQ, was set for everybody "
        "to what most training participants have.",
        "minus_masked": "If its interval lies above 0, some of the score is due to how records were kept.",
    }
    first_title_by_measure: dict[str, str] = {}  # of each measure
    for measure, measure_title in zip(confound_table["measure"], measure_titles, strict=True):
        first_title_by_measure.setdefault(measure, measure_title)
    footnote_by_title = {
        measure_title: footnote_by_measure[measure] for measure, measure_title in first_title_by_measure.items()
    }
    introduction = "What the score may owe to covariates, to head motion and to how records were kept."
    column_names = ["measure", "value", "p"]
    return make_table_section(
        "Confounds",
        confound_table.assign(measure=measure_titles),
        column_names,
        introduction,
        PAGE_SPEC_BY_COLUMN,
        open=True,
        notes=footnote_by_title,
    )


def make_repeats_section(repeats_table: pd.DataFrame) -> Section:
    """The scores of each repeat, and how far apart they lie."""
    headline_auc_name = choose_headline_metric(repeats_table)
    score_columns = [
        score_name
        for score_name in dict.fromkeys((headline_auc_name, f"{MODEL_MINUS_PREFIX}{headline_auc_name}", *FOLD_METRICS))
        if score_name in repeats_table
    ]
    column_names = ["repeat", "seed", *score_columns, *({PRESPECIFIED_BASELINE_COLUMN} & set(repeats_table))]
    auc_sd_over_repeats = repeats_table[headline_auc_name].std()
    footnote_by_heading = (
        {find_heading(headline_auc_name): f"SD over repeats {auc_sd_over_repeats:.3f}: no interval over participants."}
        if pd.notna(auc_sd_over_repeats)
        else {}
    )
    introduction = f"Report the mean: the best of {len(repeats_table)} repeats is picked, and so too good."
    return make_table_section("Repeats", repeats_table, column_names, introduction, notes=footnote_by_heading)


def make_candidate_choices_section(manifest: EvaluationManifest) -> Section:
    """Which candidate inner folds chose in each fold, and by which scores."""
    choice_rows = []
    for fold, choice in manifest.chosen.items():
        chosen_score = choice.scores[choice.name]
        rejected_scores_and_names = [
            (candidate_score, candidate_name)
            for candidate_name, candidate_score in choice.scores.items()
            if candidate_name != choice.name
        ]
        next_best_score, next_best_name = max(rejected_scores_and_names)
        choice_rows.append(
            {
                "fold": fold,
                "chosen": choice.name,
                "its score": format_number(chosen_score, ".3f"),
                "the next": next_best_name,
                "lies below by": format_number(chosen_score - next_best_score, ".3f"),
            }
        )
    introduction = "Scores are AUCs in inner folds of the training participants, without intervals; run.json has all."
    return Section("What was chosen where", [introduction], table=choice_rows)


def make_confusion_section(predictions: Predictions, tables: EvaluationTables) -> Section:
    """True classes by predicted ones. With repeats the counts are those of mean probabilities, which have no
    interval."""
    if tables.manifest.repeats > 1:
        cell_texts_per_class = drawings.format_confusion_rows(predictions, {}, "no interval: means over repeats")
    else:
        cell_texts_per_class = drawings.format_confusion_rows(predictions, tables.scores)
    confusion_rows = []
    for true_class, cell_texts in zip(CLASS_NAMES, cell_texts_per_class, strict=True):
        confusion_row = {"diagnosis": true_class}
        for predicted_class, cell_text in zip(CLASS_NAMES, cell_texts, strict=True):
            confusion_row[f"predicted {predicted_class}"] = cell_text
        confusion_rows.append(confusion_row)
    introduction = f"A probability of {THRESHOLD:g} or more counts as autism; shares are of the row."
    return Section("Confusion matrix", [introduction], table=confusion_rows)


def make_folds_section(tables: EvaluationTables) -> Section:
    """The scores in each fold, if it tests at least `MIN_DESCRIBED_PEOPLE` participants of each class."""
    subject_count_by_fold = tables.predictions.groupby("fold")["subject"].nunique()
    subject_count_by_fold_and_label = (
        tables.labelled_predictions.groupby(["fold", "label"])["subject"].nunique().unstack(fill_value=0)
    )
    described_class_count_by_fold = (subject_count_by_fold_and_label >= MIN_DESCRIBED_PEOPLE).sum(axis=1)
    has_enough_subjects_by_fold = described_class_count_by_fold == len(CLASS_NAMES)
    fold_rows = []
    for fold, estimate_by_metric in tables.scores_by_fold.items():
        fold_row = {"fold": fold, "participants": format_people_count(subject_count_by_fold.get(fold, math.nan))}
        for metric in FOLD_METRICS:
            if metric in estimate_by_metric:
                heading = "AUC" if metric == "auc" else find_heading(metric)
                is_described = has_enough_subjects_by_fold.get(fold)
                fold_row[heading] = estimate_by_metric[metric].text() if is_described else "-"
        fold_rows.append(fold_row)
    introduction = (
        f"Of so many folds some score low by chance; a dash: fewer than {MIN_DESCRIBED_PEOPLE} participants of a class."
    )
    return Section("Folds", [introduction], **separate_count_only_rows(fold_rows))


def make_group_rows(
    group_table: pd.DataFrame,
    name_columns: list[str],
    score_names: list[str],
    spec_by_column: Mapping[str, ColumnSpec] = SPEC_BY_COLUMN,
) -> list[CellByHeading]:
    """A row a group: its participants and its scores; a score is a dash if it rests on fewer than
    `MIN_DESCRIBED_PEOPLE` of a class, or the accuracy on fewer than that in all."""
    smaller_class_count_by_group = group_table[["autism", "control"]].min(axis=1)
    masked_group_table = group_table.copy()
    for score_name in score_names:
        is_too_few = (
            group_table["subjects"] if score_name == "accuracy" else smaller_class_count_by_group
        ) < MIN_DESCRIBED_PEOPLE
        masked_group_table.loc[is_too_few, list_estimate_columns(score_name)] = math.nan
    return make_page_rows(masked_group_table, [*name_columns, *SITE_COUNT_COLUMNS, *score_names], spec_by_column)


def make_groups_section(group_table: pd.DataFrame, has_small_sites: bool) -> Section:
    """The score in each row of `groups.csv`."""
    auc_names = [
        auc_name for auc_name in ("auc_sites", "auc") if set(list_estimate_columns(auc_name)) <= set(group_table)
    ]
    column_names = ["auc_sites"] if has_small_sites else auc_names
    group_rows = make_group_rows(
        group_table.assign(group=group_table["kind"] + ": " + group_table["group"]), ["group"], column_names
    )
    footnote_by_heading = (
        {find_heading("auc_sites"): "Only those of the same site and fold are compared."} if has_small_sites else {}
    )
    if not (group_table["kind"] == "head motion").any():
        footnote_by_heading[""] = "Head motion is unknown."
    introduction = (
        "No difference between groups is tested, and one of so many may differ by chance. Intervals that overlap do "
        "not show that groups are alike."
    )
    return Section(
        "Head motion, sex and age",
        [introduction],
        notes=footnote_by_heading,
        meanings=FEW_PEOPLE_MEANING_BY_HEADING,
        **separate_count_only_rows(group_rows),
    )


def make_probability_sections(tables: EvaluationTables) -> Iterator[Section]:
    """Whether probabilities mean what they say, before and after calibration; then the sets of labels."""
    probability_table = tables.probabilities
    calibration_measure_table = tables.calibration
    if probability_table is None or calibration_measure_table is None:
        labelled_predictions = tables.labelled_predictions
        calibration_figure = drawings.draw_calibration(
            labelled_predictions["label"].to_numpy(), {"as predicted": labelled_predictions["probability"].to_numpy()}
        )
        calibration_requirement = (
            f"that takes --folds, and {EFFORT.calibrate_from} participants of each class outside of each fold"
        )
        yield Section(
            "Probabilities", [f"They are not calibrated here: {calibration_requirement}."], calibration_figure
        )
        return
    labels = probability_table["label"].to_numpy()
    autism_share = probability_table["label"].mean()
    calibration_figure = drawings.draw_calibration(
        labels,
        {
            probability_kind: probability_table[column_name].to_numpy()
            for probability_kind, column_name in COLUMN_BY_PROBABILITY_KIND.items()
        },
    )
    agreement_rows = calibration_measure_table[
        calibration_measure_table["measure"].isin(["slope", "intercept", "brier"])
    ]
    measure_page_rows = []
    for measure, measure_rows in agreement_rows.groupby("measure", sort=False):
        measure_page_row = {"measure": find_heading(measure)}
        for _, measure_row in measure_rows.iterrows():
            measure_page_row[measure_row["probabilities"]] = Estimate.from_row(measure_row).text()
        measure_page_rows.append(measure_page_row)
    introduction = (
        f"Calibrated ones hold where autism is as common as here, {autism_share:.0%}; elsewhere their odds move with "
        "it."
    )
    platt_footnote = (
        "By Platt scaling of the predictions of all other folds (Platt 1999); of each participant in probabilities.csv."
    )
    yield Section(
        "Probabilities",
        [introduction],
        calibration_figure,
        measure_page_rows,
        meanings=make_meaning_by_heading(),
        notes={"calibrated": platt_footnote},
    )
    yield make_label_sets_section(calibration_measure_table, f"all {len(probability_table)}")


def make_label_sets_section(calibration_measure_table: pd.DataFrame, everybody_text: str) -> Section:
    """How many sets contain the label, by diagnosis, and how many labels they have: of all participants and of
    groups."""
    level_calibration_rows = calibration_measure_table[calibration_measure_table["level"] == PAGE_COVERAGE_LEVEL]
    label_set_page_rows = []
    for group_name in level_calibration_rows["group"].unique():
        group_rows = level_calibration_rows[level_calibration_rows["group"] == group_name].set_index(
            ["measure", "diagnosis"]
        )
        coverage_row_by_class = {
            class_name: group_rows.loc[COVERAGE_MEASURE, class_name] for class_name in (AUTISM_CLASS, CONTROL_CLASS)
        }
        share_by_size_text = {
            size_text: group_rows.loc[set_size, ""]["value"] for set_size, size_text in TEXT_BY_SET_SIZE.items()
        }
        label_set_page_rows.append(
            {"participants": group_name or everybody_text}
            | {
                f"{class_name}: held": format_coverage_with_count(coverage_row)
                for class_name, coverage_row in coverage_row_by_class.items()
            }
            | {size_text: format_number(size_share, ".0%") for size_text, size_share in share_by_size_text.items()}
        )
    introduction = (
        f"A set of labels is made to hold the diagnosis of {PAGE_COVERAGE_LEVEL:.0%} of each class (cross-conformal; "
        "Vovk 2015)."
    )
    coverage_promise = (
        "That is promised for participants drawn like these from all such groups together, and for no single one."
    )
    if len(label_set_page_rows) <= MIN_GROUPS_FOR_PROMISE:  # of which the first is of everybody
        coverage_promise = f"With so few groups that is not promised for others: {MIN_GROUPS_FOR_PROMISE} are needed."
    label_sets_advice = "Before you rely on sets at a site, count there how many hold the diagnosis."
    return Section(
        "Sets of labels",
        [introduction],
        table=label_set_page_rows,
        notes={"": f"{coverage_promise} {label_sets_advice}"},
    )


def format_coverage_with_count(coverage_row: pd.Series) -> str:
    """`81% of 70 (70% to 88%)`; a dash for fewer than `MIN_DESCRIBED_PEOPLE` participants."""
    if coverage_row["participants"] < MIN_DESCRIBED_PEOPLE:
        return "-"
    return (
        f"{coverage_row['value']:.0%} of {coverage_row['participants']:.0f} "
        f"({Estimate.from_row(coverage_row).format_interval('.0%')})"
    )


def make_flow_section(tables: EvaluationTables) -> Section:
    """From the participants who were found to those who have a score: a row a step, by diagnosis where known."""
    manifest = tables.manifest
    left_out_people_count = sum(manifest.left_out.values())
    cohort_people_count_by_label = sum_counts_by_label(manifest.subjects)
    flow_rows = (
        [make_flow_row("found", left_out_people_count + sum(cohort_people_count_by_label.values()))]
        if left_out_people_count
        else []
    )
    flow_rows += [make_flow_row(f"left out: {reason}", count) for reason, count in manifest.left_out.items()]
    flow_rows.append(make_flow_row("in the cohort", **cohort_people_count_by_label))
    subject_count_by_split = Counter[str]()
    for subject_counts in manifest.subjects:
        subject_count_by_split[subject_counts.split] += sum(sum_counts_by_label([subject_counts]).values())
    is_training_unknown = bool(manifest.training_sentence)
    if manifest.folds and not manifest.fold:
        folds_text = "in folds, "
        if len(subject_count_by_split) > 1:
            smallest_text = format_people_count(min(subject_count_by_split.values()))
            largest_text = format_people_count(max(subject_count_by_split.values()))
            size_text = smallest_text if smallest_text == largest_text else f"{smallest_text} to {largest_text}"
            folds_text = f"in {len(subject_count_by_split)} folds of {size_text}, "
        training_text = (
            "by predictions made elsewhere" if is_training_unknown else "each by a model trained on the others"
        )
        flow_rows.append(make_flow_row(f"tested {folds_text}{training_text}", **cohort_people_count_by_label))
    else:
        training_text = "not tested; baselines were trained on them" if is_training_unknown else "trained on"
        step_name_by_split = {"train": training_text, "test": "tested"}
        for split in subject_count_by_split:
            split_counts = [subject_counts for subject_counts in manifest.subjects if subject_counts.split == split]
            step_name = step_name_by_split.get(split, split)
            flow_rows.append(make_flow_row(step_name, **sum_counts_by_label(split_counts)))
    tested_labels = tables.labelled_predictions.drop_duplicates("subject")["label"]
    flow_rows.append(
        make_flow_row(
            "tested, with a known diagnosis",
            autism=int((tested_labels == 1).sum()),
            control=int((tested_labels == 0).sum()),
        )
    )
    introduction = (
        "Who was left out counts once, by the first reason that held."
        if left_out_people_count
        else "Nobody is recorded as left out; who was scanned and is in no table is not known here."
    )
    return Section("Flow of participants", [introduction], table=flow_rows)


def make_flow_row(step_name: str, people_count: int | None = None, **people_count_by_label: int) -> CellByHeading:
    people_count_by_heading = {
        "participants": sum(people_count_by_label.values()) if people_count is None else people_count,
        **people_count_by_label,
    }
    return {"step": step_name} | {
        heading: str(people_count_by_heading.get(heading, "")) for heading in ("participants", *DIAGNOSIS_COUNT_FIELDS)
    }


def sum_counts_by_label(subject_counts: Iterable[SubjectCounts]) -> dict[str, int]:
    count_by_label = dict.fromkeys(DIAGNOSIS_COUNT_FIELDS, 0)
    for site_counts in subject_counts:
        for label in DIAGNOSIS_COUNT_FIELDS:
            count_by_label[label] += getattr(site_counts, label)
    return count_by_label


def make_table1_section(table1: pd.DataFrame) -> Section:
    """Table 1: a row for each variable and for each category of one."""
    table1_page_rows = []
    for _, table1_row in table1[table1[SITE_VARIABLE] == ""].iterrows():
        variable_name = table1_row["variable"]
        missing_count_texts = [
            format_people_count(table1_row[f"{class_name}_missing"]) for class_name in (AUTISM_CLASS, CONTROL_CLASS)
        ]
        missing_counts_text = (
            ""
            if table1_row["category"] or variable_name in (PEOPLE_VARIABLE, SITE_VARIABLE)
            else ", ".join(missing_count_texts)
        )
        table1_page_rows.append(
            {
                "characteristic": f"{variable_name}: {table1_row['category']}"
                if table1_row["category"]
                else variable_name
            }
            | {class_name: format_table1_cell(table1_row, class_name) for class_name in (AUTISM_CLASS, CONTROL_CLASS)}
            | {f"missing: {AUTISM_CLASS}, {CONTROL_CLASS}": missing_counts_text, "test": table1_row["test"]}
            | {"p": format_p_value(table1_row["p"]), "p of ranks": format_p_value(table1_row["p_ranks"])}
        )
    table1_test_count = int(table1[["p", "p_ranks"]].notna().sum().sum())
    introduction = "Where the classes differ, a model can tell them by that difference."
    footnote_by_heading = {
        "characteristic": "Numbers: mean (standard deviation) [median]; categories: the share of those known.",
        "p": f"Two-sided, not corrected for the number of {table1_test_count} tests; of ranks: the Mann-Whitney test.",
    }
    return Section(
        "Table 1: participants by diagnosis", [introduction], table=table1_page_rows, notes=footnote_by_heading
    )


def format_table1_cell(table1_row: pd.Series, class_name: str) -> str:
    """`17.5 (9.0) [14.5]` of numbers, a share of a category, the number of participants."""
    if table1_row["variable"] == PEOPLE_VARIABLE:
        return format_number(table1_row[f"{class_name}_known"], ".0f")
    if table1_row["category"]:
        return format_number(table1_row[f"{class_name}_share"], ".0%")
    mean, sd, median = (table1_row[f"{class_name}_{statistic}"] for statistic in ("mean", "sd", "median"))
    return (
        f"{format_significant_digits(mean)} ({format_significant_digits(sd)}) [{format_significant_digits(median)}]"
        if math.isfinite(mean)
        else ""
    )


def format_significant_digits(value: float) -> str:
    """Three significant digits, all of those before the point; a dash if undefined."""
    decimal_count = max(0, 2 - math.floor(math.log10(abs(value)))) if math.isfinite(value) and value else 0
    return format_number(value, f".{min(decimal_count, 6)}f")


def format_p_value(p: float) -> str:
    """Two digits; nothing where no test was done."""
    if math.isnan(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def make_external_sections(tables: EvaluationTables, external_table: pd.DataFrame) -> Iterator[Section]:
    """The sections of a test of new participants: their scores and calibration beside those of the training, how they
    differ from the training participants, and who is out of distribution."""
    rows_by_kind = {str(row_kind): kind_rows for row_kind, kind_rows in external_table.groupby("kind", sort=False)}
    if len(external_score_rows := external_table[external_table["kind"].isin(["score", "calibration", "calibrated"])]):
        yield make_external_validity_section(external_score_rows)
    map_shift_rows = rows_by_kind.get("shift of maps", external_table[:0])
    farthest_map_shift_rows = map_shift_rows.loc[
        map_shift_rows["value"].abs().sort_values(ascending=False).index[:MAX_MAP_SHIFTS]
    ]
    if len(shift_rows := pd.concat([rows_by_kind.get("shift", external_table[:0]), farthest_map_shift_rows])):
        section_title = "Differences from the training participants"
        introduction = (
            "In standard deviations of these. The intervals are of the tested participants only; nothing is tested."
        )
        footnote_by_heading = {
            "measure": f"Of measures of maps the {MAX_MAP_SHIFTS} that differ most; external.csv has all."
        }
        yield make_table_section(
            section_title,
            shift_rows,
            ["measure", "value"],
            introduction,
            PAGE_SPEC_BY_COLUMN,
            notes=footnote_by_heading,
        )
    if tables.out_of_distribution is not None and OUT_OF_DISTRIBUTION in rows_by_kind:
        yield make_outliers_section(tables.out_of_distribution, rows_by_kind[OUT_OF_DISTRIBUTION].iloc[0])


def make_external_validity_section(score_table: pd.DataFrame) -> Section:
    """Scores and calibration of new participants beside those of the test on folds that goes with the network."""
    has_training_scores = "training" in score_table and score_table["training"].notna().any()
    introduction = "No score of the training is known."
    column_names = ["measure", "value"]
    if has_training_scores:
        first_training_row = score_table[score_table["training"].notna()].iloc[0]
        training_people_text = f"{first_training_row['training_people']:.0f} participants"
        introduction = (
            f"In the training: {training_people_text} {first_training_row['how']}, none seen by the model that tested "
            "them."
        )
        column_names.append("training")
    measure_suffixes = score_table["kind"].map({"calibrated": ", of calibrated probabilities"}).fillna("")
    titled_score_table = score_table.assign(
        measure=score_table["measure"].map(find_heading) + measure_suffixes
    ).drop_duplicates("measure")
    lower_score_footnote = (
        "A lower score than in the training can come from other participants, scanners, or a score too good there."
    )
    return make_table_section(
        "External validity",
        titled_score_table,
        column_names,
        introduction,
        PAGE_SPEC_BY_COLUMN,
        open=True,
        notes={"value": lower_score_footnote} if has_training_scores else {},
    )


def make_outliers_section(out_of_distribution_records: pd.DataFrame, outlier_share_row: pd.Series) -> Section:
    """Who is out of distribution, and why."""
    outlier_count = len(out_of_distribution_records)
    record_count_text = f"{outlier_share_row['participants']:.0f}"
    score_caveat = ". The training's scores say little of them." if outlier_count else "."
    introduction = (
        f"{outlier_count} of {record_count_text} records, "
        f"{Estimate.from_row(outlier_share_row).text('.0%')}{score_caveat}"
    )
    footnote_by_heading = {"": "Nearly one in 20 of those like the training participants is called so, too."}
    if outlier_count > MAX_OUTLIER_ROWS:
        footnote_by_heading["file"] = f"The first {MAX_OUTLIER_ROWS}; out_of_distribution.csv has all."
    outlier_page_rows = (
        make_page_rows(out_of_distribution_records[:MAX_OUTLIER_ROWS], ["file", "reasons"]) if outlier_count else None
    )
    return Section("Out of distribution", [introduction], table=outlier_page_rows, notes=footnote_by_heading, open=True)
