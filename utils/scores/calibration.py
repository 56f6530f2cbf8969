"""Raw probabilities of people whom a classifier had not seen, and their labels -> probabilities and sets of labels that
can be used for other people.

Probabilities are calibrated by Platt scaling of their log odds (Platt 1999). The odds move them to the share of autism
of the place of use (Saerens, Latinne and Decaestecker 2002, Neural Computation 14:21).

Sets of labels are those of conformal prediction with thresholds of each class (Mondrian; Vovk, Gammerman and Shafer
2005). Take a person who is drawn like those of the same class who gave the threshold. The person's set then holds the
true label with at least the probability of the level, whatever the classifier. In folds, each group has thresholds of
all others, whom other models predicted: cross-conformal prediction (Vovk 2015), whose guarantee is weaker.

All that is stored are constants. How well they work for people of other sites is observed by leaving one group out
(`calibrate_left_out_groups`). The constants of all other groups are applied to it. The models that predicted the other
groups had seen this group in training. That moves a slope of all of them a little, and the labels of none.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from data.base.effort import EFFORT
from utils.scores.statistics import to_log_odds

COVERAGE_LEVELS = (0.8, 0.9)  # of sets of labels: the share of people of each class whose set is to hold their label
MIN_GROUPS_FOR_PROMISE = 10  # to promise sets for others like them
THRESHOLD_DIGITS = 4  # of a threshold, which is a probability of one person: rounded down, so that sets hold no less
CLASS_COUNT = 2
ROUNDING_TOLERANCE = 1e-9  # that a product of binary fractions may lie below a whole number
NEWTON_STEPS = 30
MAX_NEWTON_STEP = 2.0
NEWTON_TOLERANCE = 1e-9  # of Newton's method
MIN_CALIBRATED_SD = 0.05  # SD of log odds, 1 % of a probability, up to which calibrated probabilities say nothing
# log odds for a standard deviation; a steeper slope is not determined by the data and counts as infinite
MAX_FINITE_SLOPE_PER_SD = 20.0


def fit_platt(decision_values: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """The slope and the shift that turn decision values (n,) into log odds of autism, by a logistic regression of the
    labels. Labels are a little less than certain (Platt 1999), so that a perfect order has a slope, too. Values that go
    the wrong way or are all the same get a slope of 0."""
    decision_sd = decision_values.std()
    class_counts = np.bincount(label.astype(int), minlength=CLASS_COUNT)
    flat_slope_and_shift = 0.0, float(logit(label.mean()))
    if not np.ptp(decision_values):
        return flat_slope_and_shift
    true_label_targets = np.where(label == 1, class_counts[1] + 1, class_counts[0] + 1) / np.where(
        label == 1, class_counts[1] + 2, class_counts[0] + 2
    )
    repeated_scaled_values = np.tile(decision_values[:, None] / decision_sd, (2, 1))
    label_target_weights = np.concatenate([true_label_targets, 1 - true_label_targets])
    regression = LogisticRegression(C=np.inf, max_iter=1000).fit(
        repeated_scaled_values, np.concatenate([label, 1 - label]), label_target_weights
    )
    slope = regression.coef_[0, 0] / decision_sd
    return (float(slope), float(regression.intercept_[0])) if slope > 0 else flat_slope_and_shift


@dataclass(frozen=True)
class LabelSetThresholds:
    """Sets of labels at one level: a label is in a person's set if its raw probability is at least the threshold."""

    level: float  # coverage: the share of people of each class whose set is to hold their label
    control: float  # least raw probability of control for the set to hold control
    autism: float  # least raw probability of autism for the set to hold autism


@dataclass(frozen=True)
class Calibration:
    """Constants that make probabilities and sets of labels of raw probabilities. `prevalence`: the share of autism
    among the people by whom it was fitted."""

    slope: float  # of calibrated log odds on raw ones
    intercept: float  # of calibrated log odds
    prevalence: float  # share of autism among the people by whom it was fitted
    sets_of: tuple[LabelSetThresholds, ...]  # thresholds of sets of labels, one for each coverage level

    def calibrate(self, raw_probability: np.ndarray, prevalence: float | None = None) -> np.ndarray:
        """Raw probabilities of autism (n,) -> calibrated ones (n,) where autism has this share, between 0 and 1;
        without it, the share that it had among the people by whom this was fitted."""
        calibrated_logits = self.slope * to_log_odds(np.asarray(raw_probability, np.float64)) + self.intercept
        return expit(
            calibrated_logits if prevalence is None else calibrated_logits + logit(prevalence) - logit(self.prevalence)
        )

    def find_label_sets(self, raw_probability: np.ndarray, coverage_level: float) -> np.ndarray:
        """Raw probabilities of autism (n,) -> whether control and autism are in the set (n, 2) bool, at one of
        `COVERAGE_LEVELS`."""
        thresholds = next(
            level_thresholds for level_thresholds in self.sets_of if level_thresholds.level == coverage_level
        )
        return stack_class_probabilities(raw_probability) >= [thresholds.control, thresholds.autism]


def stack_class_probabilities(raw_probability: np.ndarray) -> np.ndarray:
    """Probabilities of autism (n,) -> those of control and of autism (n, 2)."""
    autism_probability = np.asarray(raw_probability, np.float64)
    return np.stack([1 - autism_probability, autism_probability], axis=-1)


def is_calibration_possible(label: np.ndarray, group: np.ndarray) -> bool:
    """Whether people with these labels and groups (n,) can be calibrated: there are enough others outside of each
    group."""
    outside_label_arrays = [label[group != group_name] for group_name in np.unique(group)]
    return (
        min(
            (outside_labels == class_label).sum()
            for outside_labels in outside_label_arrays
            for class_label in range(CLASS_COUNT)
        )
        >= EFFORT.calibrate_from
    )


def fit_calibration(label: np.ndarray, probability: np.ndarray) -> Calibration:
    """The calibration of raw probabilities (n,) of people, each predicted by a model that was trained without the
    person's group, such as a site or a fold. A person counts once. `label` (n,): 1 autism, 0 control."""
    slope, intercept = fit_platt(to_log_odds(probability), label)
    true_class_probability = stack_class_probabilities(probability)[np.arange(len(label)), label.astype(int)]
    control_probability = true_class_probability[label == 0]
    autism_probability = true_class_probability[label == 1]
    set_thresholds = tuple(
        LabelSetThresholds(
            level=coverage_level,
            control=find_set_threshold(control_probability, coverage_level),
            autism=find_set_threshold(autism_probability, coverage_level),
        )
        for coverage_level in COVERAGE_LEVELS
    )
    return Calibration(slope, intercept, float(label.mean()), set_thresholds)


def find_set_threshold(true_class_probability: np.ndarray, coverage_level: float) -> float:
    """The probability of their own class that at least the share `coverage_level` of people like these (n,) reach; 0
    if these are too few. Of n + 1 people who are drawn alike, the last one is below the k-th lowest of the others with
    probability k / (n + 1)."""
    threshold_rank = int((1 - coverage_level) * (len(true_class_probability) + 1) + ROUNDING_TOLERANCE)
    unrounded_threshold = np.sort(true_class_probability)[threshold_rank - 1] if threshold_rank else 0.0
    return float(np.floor(unrounded_threshold * 10**THRESHOLD_DIGITS) / 10**THRESHOLD_DIGITS)


def calibrate_left_out_groups(
    label: np.ndarray, probability: np.ndarray, group: np.ndarray, site: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Calibrates each group (n,) by all others -> the probabilities (n,), the `outside_prevalence` of those others
    (n,), and sets (levels, n, 2) bool. With a `site` (n,), which models of other groups have seen, sets are made of the
    probabilities of `centre_probabilities_on_sites`."""
    calibrated_probability, outside_prevalence = np.empty((2, len(label)))
    label_sets = np.empty((len(COVERAGE_LEVELS), len(label), CLASS_COUNT), bool)
    for group_name in np.unique(group):
        is_in_group = group == group_name
        outside_calibration = fit_calibration(label[~is_in_group], probability[~is_in_group])
        calibrated_probability[is_in_group] = outside_calibration.calibrate(probability[is_in_group])
        outside_prevalence[is_in_group] = outside_calibration.prevalence

        raw_probability_for_sets = probability
        calibration_for_sets = outside_calibration
        if site is not None:
            raw_probability_for_sets = centre_probabilities_on_sites(probability, label, site, group, group_name)
            calibration_for_sets = fit_calibration(label[~is_in_group], raw_probability_for_sets[~is_in_group])
        label_sets[:, is_in_group] = [
            calibration_for_sets.find_label_sets(raw_probability_for_sets[is_in_group], coverage_level)
            for coverage_level in COVERAGE_LEVELS
        ]
    return calibrated_probability, outside_prevalence, label_sets


def centre_probabilities_on_sites(
    probability: np.ndarray, label: np.ndarray, site: np.ndarray, group: np.ndarray, tested_group: object
) -> np.ndarray:
    """Probabilities (n,) whose log odds are relative to the middle of the person's site. The middle is computed without
    the people of `tested_group`, one of the groups in `group` (n,), and without the person's own group."""
    logits = to_log_odds(probability)
    is_outside = group != tested_group
    site_middle_logits = compute_site_middle_logits(logits, label, site, is_outside)
    for outside_group in np.unique(group[is_outside]):
        is_in_group = group == outside_group
        is_reference = is_outside & ~is_in_group
        if len(np.unique(label[is_reference])) < CLASS_COUNT:  # with two groups nobody is left
            is_reference = is_outside
        site_middle_logits[is_in_group] = compute_site_middle_logits(logits, label, site, is_reference)[is_in_group]
    return expit(logits - site_middle_logits)


def compute_site_middle_logits(
    logits: np.ndarray, label: np.ndarray, site: np.ndarray, reference_mask: np.ndarray
) -> np.ndarray:
    """The middle between the mean log odds of both classes at each person's site (n,), by the people in
    `reference_mask` (n,) bool; that of all of them where a site lacks a class.

    A model that knows a site predicts its more common class for most of its people. Sets by one threshold for all sites
    then contain the rarer class of such a site too seldom. If the middle is subtracted, they contain both classes
    alike.
    """
    _, site_index = np.unique(site, return_inverse=True)
    logit_sums, people_counts = np.empty((2, CLASS_COUNT, site_index.max() + 1))  # by class and site
    for class_label in range(CLASS_COUNT):
        is_member = reference_mask & (label == class_label)
        logit_sums[class_label] = np.bincount(site_index[is_member], logits[is_member], len(logit_sums[class_label]))
        people_counts[class_label] = np.bincount(site_index[is_member], minlength=len(people_counts[class_label]))
    overall_middle_logit = (logit_sums.sum(1) / people_counts.sum(1)).mean()
    site_middle_logits = (logit_sums / np.maximum(people_counts, 1)).mean(0)
    return np.where((people_counts > 0).all(0), site_middle_logits, overall_middle_logit)[site_index]


def compute_calibration_measures(
    label: np.ndarray, probability: np.ndarray, record_weights: np.ndarray, min_logit_sd: float = 0.0
) -> dict[str, np.ndarray]:
    """How probabilities (n,) agree with labels (n,), under each of the weightings (k, n), (k,) each.

    `slope` of the labels' log odds on theirs (Cox 1958): 1 is right, less is too sure. It is infinite if labels are
    separated perfectly, and NaN if log odds have no SD above `min_logit_sd`. For calibrated ones that is
    `MIN_CALIBRATED_SD`: below it they only say how common autism is in other groups, which goes the wrong way.
    `intercept` with the slope fixed at 1 (calibration in the large; Van Calster et al. 2019,
    doi:10.1186/s12916-019-1466-7): 0 is right, more says that autism is more common than predicted. Both are NaN if
    all labels are the same. `brier`: the Brier score.
    """
    logits = to_log_odds(probability)
    logit_sd = logits.std() if np.ptp(logits) else 0.0
    autism_share = record_weights @ label / record_weights.sum(1)
    slope = np.full(len(record_weights), np.nan)
    has_both_classes = (autism_share > 0) & (autism_share < 1)
    if logit_sd > min_logit_sd:
        # (weightings,), log odds for an SD of the log odds
        slope_per_sd = fit_weighted_logistic(
            np.stack([np.ones_like(logits), logits / logit_sd]), label, np.zeros_like(logits), record_weights
        )[:, 1]
        slope = np.where(
            np.abs(slope_per_sd) < MAX_FINITE_SLOPE_PER_SD, slope_per_sd / logit_sd, np.copysign(np.inf, slope_per_sd)
        )
    intercept = fit_weighted_logistic(np.ones((1, len(logits))), label, logits, record_weights)[:, 0]
    slope, intercept = (np.where(has_both_classes, coefficient, np.nan) for coefficient in (slope, intercept))
    return {
        "slope": slope,
        "intercept": intercept,
        "brier": record_weights @ np.square(probability - label) / record_weights.sum(1),
    }


def fit_weighted_logistic(
    predictor_rows: np.ndarray, label: np.ndarray, logit_offset: np.ndarray, record_weights: np.ndarray
) -> np.ndarray:
    """Logistic regression of labels (n,) on few values (m, n) beside an offset (n,) of the log odds -> coefficients
    (k, m). Newton's method does many weightings (k, n) at once."""
    coefficients = np.zeros((len(record_weights), len(predictor_rows)))  # (weightings, predictors)
    for _ in range(NEWTON_STEPS):
        expected_autism_probability = expit(coefficients @ predictor_rows + logit_offset)
        gradient = (record_weights * (label - expected_autism_probability)) @ predictor_rows.T
        curvature_weights = record_weights * expected_autism_probability * (1 - expected_autism_probability)
        # (weightings, predictors, predictors)
        curvature = np.einsum("kn,in,jn->kij", curvature_weights, predictor_rows, predictor_rows, optimize=True)
        curvature += NEWTON_TOLERANCE * np.eye(len(predictor_rows))  # it vanishes where labels are separated perfectly
        newton_step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        coefficients += np.clip(newton_step, -MAX_NEWTON_STEP, MAX_NEWTON_STEP)
        if np.abs(newton_step).max() < NEWTON_TOLERANCE:
            break
    return coefficients
