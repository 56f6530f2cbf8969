"""Raw probabilities of people whom a classifier had not seen, and their labels -> probabilities and sets of labels that
can be used for other people.

Probabilities are calibrated by Platt scaling of their log odds (Platt 1999). The odds move them to the share of autism
of the place of use (Saerens, Latinne and Decaestecker 2002, Neural Computation 14:21).

Sets of labels are those of split-conformal prediction with thresholds of each class (Mondrian; Vovk, Gammerman and
Shafer 2005). Take a person who is drawn like those of the same class who gave the threshold. The person's set then
holds the true label with at least the probability of the level, whatever the classifier. Sets do not depend on the
share of autism.

All that is stored are constants. How well they work for people of other sites is observed by leaving one group out. The
constants of all other groups are applied to it. The models that predicted the other groups had seen this group in
training. That moves a slope of all of them a little, and the labels of none.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from data.base.effort import EFFORT
from data.base.errors import InputError
from utils.scores.results import MIN_PER_CLASS
from utils.scores.statistics import log_odds

LEVELS = (0.8, 0.9)  # of sets of labels: the share of people of each class whose set is to hold their label
MIN_GROUPS = 10  # to promise sets for others like them
DIGITS = 4  # of a threshold, which is a probability of one person: rounded down, so that sets hold no less
CLASSES = 2
MAX_SLOPE, MAX_LOG_ODDS = 1e3, 50.0  # of a calibration that is no mistake
AT = 1e-9  # that a product of binary fractions may lie below a whole number
STEPS, MAX_STEP, TINY = 30, 2.0, 1e-9  # of Newton's method
FLAT = 0.05  # SD of log odds, 1 % of a probability, up to which calibrated ones say nothing
UNDECIDED = 20.0  # log odds for a standard deviation, of a slope that no data of people decide


def platt(decision: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """The slope and the shift that make log odds of autism of decision values (n,), by a logistic regression of the
    labels. Labels are a little less than certain (Platt 1999), so that a perfect order has a slope, too. Values that go
    the wrong way or are all the same count nothing."""
    spread, count = decision.std(), np.bincount(label.astype(int), minlength=CLASSES)
    nothing = 0.0, float(logit(label.mean()))
    if not np.ptp(decision):
        return nothing
    certain = np.where(label == 1, count[1] + 1, count[0] + 1) / np.where(label == 1, count[1] + 2, count[0] + 2)
    both, weight = np.tile(decision[:, None] / spread, (2, 1)), np.concatenate([certain, 1 - certain])
    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(both, np.concatenate([label, 1 - label]), weight)
    slope = fitted.coef_[0, 0] / spread
    return (float(slope), float(fitted.intercept_[0])) if slope > 0 else nothing


@dataclass(frozen=True)
class Sets:
    """Sets of labels at one level: a label is in a person's set if its raw probability is at least the threshold."""

    level: float
    control: float
    autism: float


@dataclass(frozen=True)
class Agreement:
    """How probabilities agree with labels.

    `slope` of the labels' log odds on theirs: 1 is right, less is too sure, None if nothing decides it. `intercept`
    with the slope fixed at 1 (calibration in the large): 0 is right, more says that autism is more common than
    predicted. Then the Brier score.
    """

    slope: float | None
    intercept: float
    brier: float


@dataclass(frozen=True)
class Covered:
    """The share of people of a class whose set holds their label. The lowest and the highest share are those of groups
    with at least ten people of the class; None without such groups."""

    share: float
    lowest: float | None
    highest: float | None


@dataclass(frozen=True)
class Coverage:
    """What sets of one level did for people of groups left out. By class: the share whose set holds their label. Of
    all: the share whose set holds `both` labels, or `none`."""

    level: float
    control: Covered
    autism: Covered
    both: float
    none: float


@dataclass(frozen=True)
class Observed:
    """What was observed in groups left out, with raw probabilities and with those calibrated on all other groups."""

    before: Agreement
    after: Agreement
    coverage: tuple[Coverage, ...]


@dataclass(frozen=True)
class Calibration:
    """Constants that make probabilities and sets of labels of raw probabilities. Raises InputError if out of bounds.

    `prevalence`: the share of autism among the people by whom it was fitted; `control`, `autism`: their numbers;
    `groups`: how many groups of them were left out; `how`: a column, of which each value was a group, or the number of
    random folds. `observed` is None of one that only serves to observe.
    """

    slope: float
    intercept: float
    prevalence: float
    control: int
    autism: int
    groups: int
    how: str
    sets_of: tuple[Sets, ...]
    observed: Observed | None = None

    def __post_init__(self) -> None:
        thresholds = [value for sets in self.sets_of for value in (sets.control, sets.autism)]
        if not (0 <= self.slope <= MAX_SLOPE and abs(self.intercept) <= MAX_LOG_ODDS):
            raise InputError(
                f"A calibration has the slope {self.slope:g} and the intercept {self.intercept:g}; expected a slope "
                f"from 0 to {MAX_SLOPE:g}, and an intercept between -{MAX_LOG_ODDS:g} and {MAX_LOG_ODDS:g}."
            )
        check_prevalence(self.prevalence)
        if not all(0 <= value <= 1 for value in thresholds):
            raise InputError("A calibration has a threshold of sets that is no probability; expected 0 to 1.")
        if min(self.control, self.autism, self.groups) < 1:
            raise InputError("A calibration says that nobody of a class, or no group, was left out; expected some.")

    def probability(self, raw: np.ndarray, prevalence: float | None = None) -> np.ndarray:
        """Raw probabilities of autism (n,) -> calibrated ones (n,) where autism has this share; without it, the share
        that it had among the people by whom this was fitted. Raises InputError for a share that is not between 0
        and 1."""
        odds = self.slope * log_odds(np.asarray(raw, np.float64)) + self.intercept
        return expit(odds if prevalence is None else moved(odds, self.prevalence, prevalence))

    def sets(self, raw: np.ndarray, level: float) -> np.ndarray:
        """Raw probabilities of autism (n,) -> whether control and autism are in the set (n, 2) bool. Raises InputError
        for a level that this does not have."""
        found = next((sets for sets in self.sets_of if sets.level == level), None)
        if found is None:
            known = ", ".join(f"{sets.level:g}" for sets in self.sets_of)
            raise InputError(f"The calibration has no sets of the level {level:g}; it has {known}.")
        return of_own_class(raw) >= [found.control, found.autism]


def moved(odds: np.ndarray, before: np.ndarray | float, prevalence: float) -> np.ndarray:
    """Log odds (n,) where autism has the share `before`, a number or (n,), to where it has another one. Raises
    InputError."""
    check_prevalence(prevalence)
    return odds + logit(prevalence) - logit(before)


def check_prevalence(prevalence: float) -> None:
    """Raises InputError unless the share of autism lies between 0 and 1."""
    if not 0 < prevalence < 1:
        raise InputError(f"The share of autism is {prevalence:g}; expected more than 0 and less than 1.")


def of_own_class(raw: np.ndarray) -> np.ndarray:
    """Probabilities of autism (n,) -> those of control and of autism (n, 2)."""
    autism = np.asarray(raw, np.float64)
    return np.stack([1 - autism, autism], axis=-1)


def shortage(label: np.ndarray, group: np.ndarray) -> str:
    """Why people with these labels and groups (n,) cannot be calibrated, as a sentence; empty if they can."""
    names = np.unique(group)
    if len(names) < 2:
        return "All participants were predicted by one model, so that there are no groups of which one can be left out."
    fewest = min(int((label[group != name] == value).sum()) for name in names for value in range(CLASSES))
    if fewest < EFFORT.calibrate_from:
        return (
            f"A calibration takes at least {EFFORT.calibrate_from} participants of each class outside of each group "
            f"that is left out; here the fewest are {fewest}."
        )
    return ""


def fit(label: np.ndarray, probability: np.ndarray, group: np.ndarray, how: str) -> Calibration:
    """The calibration of raw probabilities (n,) of people. Each was predicted by a model that was trained without the
    person's group (n,), such as a site or a fold. A person counts once. `label`: 1 autism, 0 control; `how` as in
    `Calibration`. Raises InputError if there are too few."""
    if problem := shortage(label, group):
        raise InputError(problem)
    constants = constants_of(label, probability, group, how)
    return replace(constants, observed=observed(label, probability, group))


def constants_of(label: np.ndarray, probability: np.ndarray, group: np.ndarray, how: str) -> Calibration:
    """A calibration of which nothing was observed."""
    slope, intercept = platt(log_odds(probability), label)
    control, autism = np.bincount(label.astype(int), minlength=CLASSES).tolist()
    own = of_own_class(probability)[np.arange(len(label)), label.astype(int)]
    sets = tuple(Sets(level, *(threshold(own[label == value], level) for value in range(CLASSES))) for level in LEVELS)
    groups = len(np.unique(group))
    return Calibration(slope, intercept, float(label.mean()), control, autism, groups, how, sets)


def threshold(own: np.ndarray, level: float) -> float:
    """The probability of their own class that at least the share `level` of people like these (n,) reach; 0 if these
    are too few. Of n + 1 people who are drawn alike, the last one is below the k-th lowest of the others with
    probability k / (n + 1)."""
    place = int((1 - level) * (len(own) + 1) + AT)
    lowest = np.sort(own)[place - 1] if place else 0.0
    return float(np.floor(lowest * 10**DIGITS) / 10**DIGITS)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """What calibrations of all other groups give of each person: probability and `prevalence` of those by whom it was
    fitted (n,), sets (levels, n, 2)."""

    probability: np.ndarray
    prevalence: np.ndarray
    sets: np.ndarray


def left_out(label: np.ndarray, probability: np.ndarray, group: np.ndarray) -> LeftOut:
    """Calibrates each group (n,) by all others."""
    calibrated, prevalence = np.empty((2, len(label)))
    sets = np.empty((len(LEVELS), len(label), CLASSES), bool)
    for name in np.unique(group):
        own = group == name
        others = constants_of(label[~own], probability[~own], group[~own], "")
        calibrated[own], prevalence[own] = others.probability(probability[own]), others.prevalence
        sets[:, own] = [others.sets(probability[own], level) for level in LEVELS]
    return LeftOut(calibrated, prevalence, sets)


def observed(label: np.ndarray, probability: np.ndarray, group: np.ndarray) -> Observed:
    """What calibration does for groups (n,) that are left out."""
    found = left_out(label, probability, group)
    before, after = agreement(label, probability), agreement(label, found.probability, FLAT)
    levels = zip(LEVELS, found.sets, strict=True)
    return Observed(before, after, tuple(coverage(level, label, sets, group) for level, sets in levels))


def agreement(label: np.ndarray, probability: np.ndarray, least: float = 0.0) -> Agreement:
    """How probabilities (n,) agree with labels (n,), see `agreements`."""
    values = agreements(label, probability, np.ones((1, len(label))), least)
    slope, intercept, brier = (float(value[0]) for value in values.values())
    return Agreement(None if np.isnan(slope) else slope, intercept, brier)


def agreements(
    label: np.ndarray, probability: np.ndarray, weight: np.ndarray, least: float = 0.0
) -> dict[str, np.ndarray]:
    """The three numbers of `Agreement` under each of the weightings (k, n), (k,) each. A slope is NaN if labels are
    told apart without error, or if log odds have no SD above `least`. For calibrated ones that is `FLAT`: below it they
    only say how common autism is in other groups, which goes the wrong way."""
    odds = log_odds(probability)
    spread = odds.std() if np.ptp(odds) else 0.0
    slope = np.full(len(weight), np.nan)
    if spread > least:
        steep = logistic(np.stack([np.ones_like(odds), odds / spread]), label, np.zeros_like(odds), weight)[:, 1]
        slope = np.where(np.abs(steep) < UNDECIDED, steep / spread, np.nan)
    intercept = logistic(np.ones((1, len(odds))), label, odds, weight)[:, 0]
    return {"slope": slope, "intercept": intercept, "brier": weight @ np.square(probability - label) / weight.sum(1)}


def logistic(values: np.ndarray, label: np.ndarray, offset: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Logistic regression of labels (n,) on few values (m, n) beside an offset (n,) of the log odds -> coefficients
    (k, m). Newton's method does many weightings (k, n) at once."""
    found = np.zeros((len(weight), len(values)))
    for _ in range(STEPS):
        expected = expit(found @ values + offset)
        gradient = (weight * (label - expected)) @ values.T
        curved = weight * expected * (1 - expected)
        curvature = np.einsum("kn,in,jn->kij", curved, values, values, optimize=True)
        curvature += TINY * np.eye(len(values))  # where labels are told apart without error it vanishes
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        found += np.clip(step, -MAX_STEP, MAX_STEP)
        if np.abs(step).max() < TINY:
            break
    return found


def coverage(level: float, label: np.ndarray, sets: np.ndarray, group: np.ndarray) -> Coverage:
    """What sets (n, 2) bool did for people with these labels and groups (n,)."""
    holds, size = sets[np.arange(len(label)), label.astype(int)], sets.sum(1)
    control, autism = (covered(holds[label == value], group[label == value]) for value in range(CLASSES))
    return Coverage(level, control, autism, float((size == CLASSES).mean()), float((size == 0).mean()))


def covered(holds: np.ndarray, group: np.ndarray) -> Covered:
    """Of people of one class, whose sets hold (n,) bool their label or not."""
    rows = [group == name for name in np.unique(group)]
    shares = [float(holds[of].mean()) for of in rows if of.sum() >= MIN_PER_CLASS]
    return Covered(float(holds.mean()), min(shares, default=None), max(shares, default=None))
