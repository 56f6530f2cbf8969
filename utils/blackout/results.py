"""Effects of a blackout -> what is concluded from them, for the page and the figure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from data.base.tables import make_printable
from data.base.terminal import format_participants
from data.base.thresholds import MIN_CLASS_SUBJECTS
from data.cohorts import variants
from data.tables.vocabulary import CLASS_NAMES, SITE_UNKNOWN_SENTENCE
from utils.blackout import options
from utils.blackout.column_effects import CLIPPED_ARRAY
from utils.blackout.column_setup import SYSTEM_ARRAY
from utils.blackout.effects import CovariateAdjuster, RecordEffects
from utils.blackout.families import Blackout, FeatureFamily
from utils.blackout.fills import RELIANCE_FILL
from utils.blackout.kinds import make_families
from utils.blackout.own_test import describe_test_difference
from utils.blackout.people import BlackoutPeople, BlackoutVerdict
from utils.blackout.replication import BETWEEN_HALVES, EXPECTED_COLUMN, REPLICATION_THRESHOLD, compute_replication_table
from utils.predictors.estimator import CLIPPED_PROBABILITY, EstimatorPredictor
from utils.runs.run import Run
from utils.scores.adjustment import make_adjustment
from utils.scores.metrics import Predictions, choose_headline_metric, estimate_scores
from utils.scores.results import CHANCE_AUC, FAMILYWISE_ALPHA, SAME_SCAN_COLUMN, TITLE_BY_AUC, Estimate, Headline

OMISSION_SENTENCE = (
    "Of an estimator, sufficiency, regions in one map, and pairs of regions within systems are not measured."
)
UNREPLACED_EDGES_SENTENCE = "Edges stayed: --maps says what is replaced, or it is not known where parcels lie."
UNKNOWN_PARCELS_SENTENCE = (
    "Edges stayed, as it is not known where parcels lie (convert with --parcels FILE replaces them)."
)
MIN_RARER_CLASS_FRACTION = 0.4  # share of the rarer class; the case is counted in docs/evidence/blackout_p.csv


@dataclass(frozen=True, eq=False)
class BlackoutResults:
    """All families of a blackout. `prediction_headline`: how well the network predicts these subjects.
    `replication_table`: as in `replication.csv`."""

    run: Run
    record_effects: RecordEffects
    people: BlackoutPeople
    prediction_headline: Headline
    feature_families: Sequence[FeatureFamily]
    replication_table: pd.DataFrame
    test_difference: str = ""  # how an estimator's fit differs from that of its test

    @property
    def is_conclusive(self) -> bool:
        return self.people.verdict is BlackoutVerdict.CONCLUSIVE

    @cached_property
    def family_counts(self) -> pd.DataFrame:
        """A row a family, by the name of its kind: what its features are called, how many there are, how many are
        significant by each tested effect, adjusted and before (`_plain`), how many of those replicate in halves, and in
        repeats if there are some."""
        replication_table = self.replication_table
        is_family_row = replication_table["thing"] == ""
        expected_share_by_family = replication_table[is_family_row].set_index(["between", "family"])["expected"]
        replicated_rows = replication_table[
            ~is_family_row
            & (replication_table["significant"] == 1)
            & (replication_table["replicates"] > REPLICATION_THRESHOLD)
        ]
        replicated_counts = replicated_rows.groupby(["between", "family"]).size()
        count_rows = list[dict[str, Any]]()
        kind_names = [feature_family.feature_kind.kind_name for feature_family in self.feature_families]
        for kind_name, feature_family in zip(kind_names, self.feature_families, strict=True):
            count_row: dict[str, Any] = {
                "family": feature_family.feature_kind.plural_feature_name,
                "things": len(feature_family.feature_names),
            }
            for fill_effect in feature_family.tested_effects:
                count_row[fill_effect.fill.fill_name] = fill_effect.is_significant.sum()
                count_row[f"{fill_effect.fill.fill_name}_plain"] = (fill_effect.unadjusted_p < FAMILYWISE_ALPHA).sum()
            count_row[EXPECTED_COLUMN] = 0.0
            if count_row[RELIANCE_FILL]:
                expected_share = expected_share_by_family[BETWEEN_HALVES, kind_name]
                count_row[EXPECTED_COLUMN] = count_row[RELIANCE_FILL] * expected_share
            for comparison_name in replication_table["between"].unique():
                count_row[comparison_name] = replicated_counts.get((comparison_name, kind_name), 0)
            count_rows.append(count_row)
        return pd.DataFrame(count_rows, kind_names)

    @property
    def conclusion(self) -> str:
        """What a reader takes away: how well the network predicts, how much of the first family is significant, and
        what may be published."""
        return (
            f"{self.prediction_sentence} {self.people.verdict or self.significance_sentence} {self.publication_advice}"
        )

    @property
    def prediction_sentence(self) -> str:
        """Whether the network predicts these participants."""
        score_estimate = self.prediction_headline.score
        metric_name = TITLE_BY_AUC[self.prediction_headline.metric]
        model_name = self.run.predictor.name
        if score_estimate.low is None or score_estimate.high is None:
            score_text = score_estimate.text(".2f", "is undefined: all, or all whom it compares, are of one class")
            return f"It is not known whether {model_name} predicts better than chance. {metric_name} {score_text}."
        if score_estimate.high < CHANCE_AUC:
            prediction_text = "ranks participants the wrong way round"
        elif score_estimate.low <= CHANCE_AUC:
            prediction_text = "is not shown to predict better than chance"
        else:
            prediction_text = "predicts better than chance"
        return f"{model_name} {prediction_text}: {metric_name} {score_estimate.text('.2f')}."

    @property
    def significance_sentence(self) -> str:
        """How many features of the first family are significant, and replicate."""
        first_family_counts = self.family_counts.iloc[0]
        replication_text = self.describe_replication_in_halves(self.feature_families[0])
        significant_count = first_family_counts[RELIANCE_FILL]
        significance_text = (
            f"Of {first_family_counts['things']:,} {first_family_counts['family']}, {significant_count or 'none'} "
            f"{'are' if significant_count > 1 else 'is'} significant"
        )
        return "; ".join(filter(None, [significance_text, replication_text])) + "."

    def describe_replication_in_halves(self, feature_family: FeatureFamily) -> str:
        """How many significant features of a family are so in most halves, too, and how many would be if all were true;
        nothing if none is significant."""
        count_row = self.family_counts.loc[feature_family.feature_kind.kind_name]
        if not count_row[RELIANCE_FILL]:
            return ""
        expected_text = f"{count_row[EXPECTED_COLUMN]:.1f} expected of true effects"
        return f"{count_row[BETWEEN_HALVES] or 'none'} also with half of the participants ({expected_text})"

    @property
    def publication_advice(self) -> str:
        """What a published list or map may name, if anything. What an unknown site, a leak or head motion does is
        significant, too."""
        caveats = self.run.caveats
        if (
            not self.family_counts[RELIANCE_FILL].any()
            or self.uncleaned_warning
            or caveats.unknown_site
            or caveats.problems
            or caveats.accepted_leaks
        ):
            return "No list or map should be published from this."
        return "A list or map should name only what is significant."

    @property
    def uncleaned_warning(self) -> str:
        """A warning if the scans are not known to be cleaned of confounds, or nothing."""
        derivation = options.select_network_cohort(self.run).metadata.derivation
        return derivation.uncleaned_warning if derivation else ""

    @property
    def cautions(self) -> list[str]:
        """The warnings that belong beside every number."""
        adjustment = self.people.adjuster.adjustment
        autism_fraction = self.people.subject_labels.mean()
        rarer_class_fraction = min(autism_fraction, 1 - autism_fraction)
        warnings = []
        if self.uncleaned_warning:
            warnings.append(self.uncleaned_warning)
        if self.test_difference:
            warnings.append(self.test_difference)
        if self.clipped_warning:
            warnings.append(self.clipped_warning)
        if self.run.caveats.unknown_site:
            warnings.append(f"{SITE_UNKNOWN_SENTENCE}.")
        if self.people.verdict is not BlackoutVerdict.SINGLE_CLASS and not adjustment.covariates:
            warnings.append(f"No p is adjusted for covariates: {adjustment.no_adjustment_reason}.")
        if 0 < rarer_class_fraction < MIN_RARER_CLASS_FRACTION:
            warnings.append(
                f"Only {rarer_class_fraction:.0%} are of one class: if their effects are skewed and vary much more "
                "than the others', p is too small."
            )
        return warnings

    @property
    def clipped_warning(self) -> str:
        """A warning if probabilities were clipped before their logit was taken, or nothing."""
        if CLIPPED_ARRAY not in self.record_effects or not self.record_effects[CLIPPED_ARRAY].any():
            return ""
        clipped_share = self.record_effects[CLIPPED_ARRAY].mean()
        return (
            f"{clipped_share:.1%} of the probabilities were below {CLIPPED_PROBABILITY:g} or above "
            f"{1 - CLIPPED_PROBABILITY:g}, and count as these."
        )

    @property
    def omission_sentence(self) -> str:
        """What is not measured of an estimator, or of connectomes without maps, or nothing."""
        predictor = self.run.predictor
        has_unreplaced_edges = options.CONNECTOME_INPUT in predictor.input_names and (
            SYSTEM_ARRAY not in self.record_effects
        )
        if isinstance(predictor, EstimatorPredictor):
            return f"{OMISSION_SENTENCE} {UNREPLACED_EDGES_SENTENCE}" if has_unreplaced_edges else OMISSION_SENTENCE
        reads_maps = "volume" in predictor.input_names  # then it stands beside the regions
        return UNKNOWN_PARCELS_SENTENCE if has_unreplaced_edges and not reads_maps else ""

    @property
    def manifest_warnings(self) -> list[str]:
        """The warnings and footnotes in `run.json`."""
        footnotes = [
            footnote
            for feature_family in self.feature_families
            for footnote in feature_family.footnote_by_column.values()
        ]
        return [*self.cautions, *filter(None, [self.omission_sentence]), *footnotes]

    @property
    def sample_description(self) -> str:
        """How many subjects and records the mean is over."""
        subject_count = len(self.people.subject_labels)
        record_count = len(self.record_effects.record_rows)
        participants_text = format_participants(subject_count, "test")
        return participants_text if record_count == subject_count else f"{participants_text}, {record_count} records"

    @property
    def page_title(self) -> str:
        """Model, the name of the cohort, and the warnings that belong beside every result."""
        run = self.run
        cohort_name = make_printable(run.data_dir.absolute().name) if run.data_dir else "the demo cohort"
        chance_mark = " (MODEL AT CHANCE)" if self.people.verdict is BlackoutVerdict.AT_CHANCE else ""
        return f"Blackout of {run.predictor.name} on {cohort_name}{run.caveat_marks}{chance_mark}"

    def fill_words(self, text: str) -> str:
        """A text of the page, in which `{noun}` stands for what predicts, `{output}` for what it gives, whose fall is
        an effect, and `{background}` for what the background of a region is."""
        predictor = self.run.predictor
        background_text = "unknown, which counts as the mean of the training participants"
        if isinstance(predictor, EstimatorPredictor):
            background_text = "the mean of the training participants"
        elif options.select_network_cohort(self.run).num_maps:
            background_text = variants.FILL_TEXT_BY_STANDARD[self.run.standardisation]
        word_by_placeholder = {
            "{noun}": predictor.noun,
            "{output}": predictor.output_noun,
            "{background}": background_text,
        }
        for placeholder, word in word_by_placeholder.items():
            text = text.replace(placeholder, word)
        return text


def conclude_blackout(
    run: Run,
    record_effects: RecordEffects,
    record_folds: Sequence | None = None,  # (records,), of the model that blacked out each
    effects_by_repeat: Sequence[RecordEffects] = (),
) -> BlackoutResults:
    """The results of effects. `record_folds` (records,) names the model that blacked out each record, if there are
    several; with repeats, the one of the first repeat. `effects_by_repeat` are the effects of which `record_effects`
    are the means."""
    subject_groups = run.cohort.groups
    record_effects = replace(record_effects, linked_subject_groups=subject_groups)

    # How well the network predicts, which decides whether anything is concluded
    score_by_metric = score_predictions(record_effects, record_folds, run.seed)
    headline_metric = choose_headline_metric(score_by_metric)
    prediction_headline = Headline(headline_metric, score_by_metric[headline_metric])
    people = make_blackout_people(run, record_effects, record_folds, prediction_headline.score)

    # The families, and those of repeats, made one repeat after another
    feature_families = make_families(Blackout(run, record_effects, people))
    families_by_repeat = (
        make_families(Blackout(run, replace(repeat_effects, linked_subject_groups=subject_groups), people))
        for repeat_effects in effects_by_repeat
    )
    replication_table = compute_replication_table(feature_families, families_by_repeat)
    return BlackoutResults(
        run,
        record_effects,
        people,
        prediction_headline,
        feature_families,
        replication_table,
        describe_test_difference(run, record_effects),
    )


def score_predictions(record_effects: RecordEffects, record_folds: Sequence | None, seed: int) -> dict[str, Estimate]:
    """How well the network predicts the people who were blacked out."""
    prediction_table = pd.DataFrame(
        {
            "label": record_effects.record_labels,
            "probability": record_effects["probability"],
            "subject": record_effects.record_subjects,
            "site": [record_row.site for record_row in record_effects.record_rows],
            SAME_SCAN_COLUMN: record_effects.record_cluster_leaders,
        }
    )
    if record_folds is not None:
        prediction_table["fold"] = list(record_folds)
    return estimate_scores(Predictions.from_tables(prediction_table), seed)


def make_blackout_people(
    run: Run, record_effects: RecordEffects, record_folds: Sequence | None, score_estimate: Estimate
) -> BlackoutPeople:
    """The subjects of effects, and whether anything is concluded of them."""
    # Of each subject the first record, in the order of names
    _, first_record_indices = np.unique(record_effects.record_subjects, return_index=True)
    subject_labels = record_effects.average_subject_records(record_effects.record_labels)
    subject_sites = np.array([record_effects.record_rows[record_index].site for record_index in first_record_indices])
    subject_folds = np.array(
        ["" if record_folds is None else record_folds[record_index] for record_index in first_record_indices]
    )
    covariate_table = options.load_blackout_covariates(run.cohort, record_effects.record_rows)
    return BlackoutPeople(
        subject_labels=subject_labels,
        subject_sites=subject_sites,
        subject_folds=subject_folds,
        subject_cluster_numbers=record_effects.subject_cluster_numbers,
        adjuster=CovariateAdjuster(make_adjustment(covariate_table, subject_sites), subject_labels),
        resampling_seed=run.seed,
        verdict=decide_verdict(subject_labels, score_estimate),
        is_cross_fitted=record_folds is not None and len(set(record_folds)) > 1,
    )


def decide_verdict(subject_labels: np.ndarray, score_estimate: Estimate) -> BlackoutVerdict:
    """Whether anything is concluded about people with these labels, whom a network predicts with this score."""
    rarer_class_count = np.bincount(subject_labels.astype(int), minlength=len(CLASS_NAMES)).min()
    if score_estimate.beats_chance is False:
        return BlackoutVerdict.AT_CHANCE
    if not rarer_class_count:
        return BlackoutVerdict.SINGLE_CLASS
    if rarer_class_count < MIN_CLASS_SUBJECTS:
        return BlackoutVerdict.FEW_IN_CLASS
    return BlackoutVerdict.CONCLUSIVE if score_estimate.beats_chance else BlackoutVerdict.UNDECIDED
