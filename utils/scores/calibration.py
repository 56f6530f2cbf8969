"""Raw probabilities of people whom a classifier had not seen, and their labels -> probabilities and sets of labels that
can be used for other people.

Probabilities are calibrated by Platt scaling of their log odds (Platt 1999). The odds move them to the share of autism
of the place of use (Saerens, Latinne and Decaestecker 2002, Neural Computation 14:21).

Sets of labels are those of conformal prediction with thresholds of each class (Mondrian; Vovk, Gammerman and Shafer
2005). Take a person who is drawn like those of the same class who gave the threshold. The person's set then holds the
true label with at least the probability of the level, whatever the classifier. In folds, each group has thresholds of
all others, whom other models predicted: cross-conformal prediction (Vovk 2015), whose guarantee is weaker.

All that is stored are constants. How well they work for people of other sites is observed by leaving one group out
(`left_out`). The constants of all other groups are applied to it. The models that predicted the other groups had seen
this group in training. That moves a slope of all of them a little, and the labels of none.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from data.base.effort import EFFORT
from utils.scores.statistics import log_odds

LEVELS = (0.8, 0.9)  # of sets of labels: the share of people of each class whose set is to hold their label
MIN_GROUPS = 10  # to promise sets for others like them
DIGITS = 4  # of a threshold, which is a probability of one person: rounded down, so that sets hold no less
CLASSES = 2
AT = 1e-9  # that a product of binary fractions may lie below a whole number
STEPS, MAX_STEP, TINY = 30, 2.0, 1e-9  # of Newton's method
FLAT = 0.05  # SD of log odds, 1 % of a probability, up to which calibrated ones say nothing
UNDECIDED = 20.0  # log odds for a standard deviation, of a slope that no data of people decide: it counts as infinite


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
class Calibration:
    """Constants that make probabilities and sets of labels of raw probabilities. `prevalence`: the share of autism
    among the people by whom it was fitted."""

    slope: float
    intercept: float
    prevalence: float
    sets_of: tuple[Sets, ...]

    def probability(self, raw: np.ndarray, prevalence: float | None = None) -> np.ndarray:
        """Raw probabilities of autism (n,) -> calibrated ones (n,) where autism has this share, between 0 and 1;
        without it, the share that it had among the people by whom this was fitted."""
        odds = self.slope * log_odds(np.asarray(raw, np.float64)) + self.intercept
        return expit(odds if prevalence is None else odds + logit(prevalence) - logit(self.prevalence))

    def sets(self, raw: np.ndarray, level: float) -> np.ndarray:
        """Raw probabilities of autism (n,) -> whether control and autism are in the set (n, 2) bool, at one of
        LEVELS."""
        found = next(sets for sets in self.sets_of if sets.level == level)
        return of_own_class(raw) >= [found.control, found.autism]


def of_own_class(raw: np.ndarray) -> np.ndarray:
    """Probabilities of autism (n,) -> those of control and of autism (n, 2)."""
    autism = np.asarray(raw, np.float64)
    return np.stack([1 - autism, autism], axis=-1)


def enough(label: np.ndarray, group: np.ndarray) -> bool:
    """Whether people with these labels and groups (n,) can be calibrated: there are enough others outside of each
    group."""
    others = [label[group != name] for name in np.unique(group)]
    return min((of == value).sum() for of in others for value in range(CLASSES)) >= EFFORT.calibrate_from


def fit(label: np.ndarray, probability: np.ndarray) -> Calibration:
    """The calibration of raw probabilities (n,) of people, each predicted by a model that was trained without the
    person's group, such as a site or a fold. A person counts once. `label` (n,): 1 autism, 0 control."""
    slope, intercept = platt(log_odds(probability), label)
    own = of_own_class(probability)[np.arange(len(label)), label.astype(int)]
    sets = tuple(Sets(level, *(threshold(own[label == value], level) for value in range(CLASSES))) for level in LEVELS)
    return Calibration(slope, intercept, float(label.mean()), sets)


def threshold(own: np.ndarray, level: float) -> float:
    """The probability of their own class that at least the share `level` of people like these (n,) reach; 0 if these
    are too few. Of n + 1 people who are drawn alike, the last one is below the k-th lowest of the others with
    probability k / (n + 1)."""
    place = int((1 - level) * (len(own) + 1) + AT)
    lowest = np.sort(own)[place - 1] if place else 0.0
    return float(np.floor(lowest * 10**DIGITS) / 10**DIGITS)


def left_out(
    label: np.ndarray, probability: np.ndarray, group: np.ndarray, site: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Calibrates each group (n,) by all others -> the probabilities (n,), the `prevalence` of those others (n,), and
    sets (levels, n, 2) bool. With a `site` (n,), which models of other groups know, sets are of `centred`
    probabilities."""
    calibrated, prevalence = np.empty((2, len(label)))
    sets = np.empty((len(LEVELS), len(label), CLASSES), bool)
    for name in np.unique(group):
        own = group == name
        others = fit(label[~own], probability[~own])
        calibrated[own], prevalence[own] = others.probability(probability[own]), others.prevalence
        of_sets = probability if site is None else centred(probability, label, site, group, name)
        for_sets = others if site is None else fit(label[~own], of_sets[~own])
        sets[:, own] = [for_sets.sets(of_sets[own], level) for level in LEVELS]
    return calibrated, prevalence, sets


def centred(
    probability: np.ndarray, label: np.ndarray, site: np.ndarray, group: np.ndarray, name: object
) -> np.ndarray:
    """Probabilities (n,) whose log odds are taken from the middle of the site, by nobody of the `group` (n,) that
    `name` is, nor of the person's own."""
    odds, others = log_odds(probability), group != name
    middle = site_middle(odds, label, site, others)
    for other in np.unique(group[others]):
        members = group == other
        rest = others & ~members
        if len(np.unique(label[rest])) < CLASSES:  # of two groups nobody is left
            rest = others
        middle[members] = site_middle(odds, label, site, rest)[members]
    return expit(odds - middle)


def site_middle(odds: np.ndarray, label: np.ndarray, site: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The middle between the mean log odds of both classes at each person's site (n,), by the people in `rows` (n,)
    bool; that of all of them where a site lacks a class.

    A model that knows a site predicts its more common class for most of its people. Sets by one threshold for all sites
    then hold the rarer class of such a site too seldom. Without its middle they hold both classes alike.
    """
    _, place = np.unique(site, return_inverse=True)
    sums, counts = np.empty((2, CLASSES, place.max() + 1))  # by class and site
    for value in range(CLASSES):
        members = rows & (label == value)
        sums[value] = np.bincount(place[members], odds[members], len(sums[value]))
        counts[value] = np.bincount(place[members], minlength=len(counts[value]))
    everywhere = (sums.sum(1) / counts.sum(1)).mean()
    at_site = (sums / np.maximum(counts, 1)).mean(0)
    return np.where((counts > 0).all(0), at_site, everywhere)[place]


def agreements(
    label: np.ndarray, probability: np.ndarray, weight: np.ndarray, least: float = 0.0
) -> dict[str, np.ndarray]:
    """How probabilities (n,) agree with labels (n,), under each of the weightings (k, n), (k,) each.

    `slope` of the labels' log odds on theirs (Cox 1958): 1 is right, less is too sure. It is infinite if labels are
    told apart without error, and NaN if log odds have no SD above `least`. For calibrated ones that is `FLAT`: below it
    they only say how common autism is in other groups, which goes the wrong way. `intercept` with the slope fixed at 1
    (calibration in the large; Van Calster et al. 2019, doi:10.1186/s12916-019-1466-7): 0 is right, more says that
    autism is more common than predicted. Both are NaN if all labels are the same. `brier`: the Brier score.
    """
    odds = log_odds(probability)
    spread = odds.std() if np.ptp(odds) else 0.0
    share = weight @ label / weight.sum(1)
    slope, both = np.full(len(weight), np.nan), (share > 0) & (share < 1)
    if spread > least:
        steep = logistic(np.stack([np.ones_like(odds), odds / spread]), label, np.zeros_like(odds), weight)[:, 1]
        slope = np.where(np.abs(steep) < UNDECIDED, steep / spread, np.copysign(np.inf, steep))
    intercept = logistic(np.ones((1, len(odds))), label, odds, weight)[:, 0]
    slope, intercept = (np.where(both, of, np.nan) for of in (slope, intercept))
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
