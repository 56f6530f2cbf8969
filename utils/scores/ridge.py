"""Ridge regression as a classifier: features and labels of training records -> weights and a bias that give log odds.

The penalty and the calibration are chosen in inner folds of the training records. A group of subjects, such as those
who share a scan, is on one side of each. What is fitted is how far a label, -1 or 1, is from the mean of its site. The
effect of a scanner on features shall not tell how common autism is at its site.

Connectomes have many more edges than there are training records, which span few of their directions. Products of people
are enough to find these. They are summed over a block of people at a time: memory does not grow with the number of
edges times that of people.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from data.base.effort import EFFORT
from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.connectomes import Connectomes
from data.cohorts.duplicates import find_group_leaders
from utils.scores.calibration import platt

PENALTIES = np.logspace(1, 4, EFFORT.penalties)  # of squared weights, on features that are z-scored
MAX_EDGE_RECORDS = 5_000  # for training on connectomes; the time grows with their cube
MAX_FITTED = 8  # classifiers of edges that are kept in memory
WEIGHT = 1000  # all edges weigh as so many z-scored features, so that the same penalties fit any number of parcels
BLOCK_BYTES = 2**27  # of people held at once
SMALLEST = 1e-10  # of the greatest variance along an axis; below it is rounding
InnerFolds = list[tuple[np.ndarray, np.ndarray]]  # positions of those who fit, and of those who are predicted


@dataclass(frozen=True)
class LinearClassifier:
    """`weights` (features,) and `bias` of the log odds of autism, float64."""

    weights: np.ndarray
    bias: float

    def log_odds(self, values: np.ndarray) -> np.ndarray:
        """Features (n, features) -> (n,)."""
        return values @ self.weights + self.bias


def people_of(cohort: Cohort, records: np.ndarray) -> np.ndarray:
    """Who each of the records at these positions is of; those of a group count as one."""
    subjects = [cohort.rows[record].subject for record in records]
    leader = find_group_leaders(subjects, cohort.groups)
    return np.array([leader[subject] for subject in subjects])


def labels_and_sites(cohort: Cohort, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of the records at these positions, (n,) each."""
    rows = [cohort.rows[record] for record in records]
    return np.array([row.label for row in rows]), np.array([row.site for row in rows])


def some_of(training: np.ndarray) -> np.ndarray:
    """At most `MAX_EDGE_RECORDS` of the training records, drawn at random."""
    return np.sort(np.random.default_rng(0).permutation(training)[:MAX_EDGE_RECORDS])


def inner_folds(label: np.ndarray, group: np.ndarray) -> InnerFolds:
    """Folds of training records with these labels and groups of subjects (n,), each group in one of them; none if not
    every fold can have both classes."""
    people = [set(group[label == value]) for value in (0, 1)]
    if (fewest := min(map(len, people))) < 2:
        return []
    folds = list(StratifiedGroupKFold(min(EFFORT.inner_folds, fewest)).split(label, label, group))
    return folds if all(len(set(label[part])) == 2 for fold in folds for part in fold) else []


def fit(known: np.ndarray, label: np.ndarray, site: np.ndarray, folds: InnerFolds) -> LinearClassifier:
    """Ridge on features (n, features), with the penalty of the least squared error in the folds, calibrated over them.
    Without folds, the log odds are those of the labels alone."""
    return fit_and_leave_out(known, label, site, folds)[0]


def fit_and_leave_out(
    known: np.ndarray, label: np.ndarray, site: np.ndarray, folds: InnerFolds
) -> tuple[LinearClassifier, np.ndarray]:
    """`fit`, and the calibrated log odds (n,) of each record by the fit on the other folds; NaN without folds."""
    if not folds:
        return LinearClassifier(np.zeros(known.shape[1]), float(logit(label.mean()))), np.full(len(label), np.nan)
    if known.shape[1] > len(known):
        values, axes = own_axes(known @ known.T)
        along, left_out = fit_and_leave_out(values, label, site, folds)
        return LinearClassifier(known.T @ (axes @ along.weights), along.bias), left_out
    target, decision = within_sites(label, site), np.empty((len(label), len(PENALTIES)))
    for fitting, out in folds:
        weights, bias = ridges(known[fitting], target[fitting])
        decision[out] = known[out] @ weights + bias
    best = np.square(decision - target[:, None]).mean(0).argmin()
    weights, bias = ridges(known, target)
    slope, shift = platt(decision[:, best], label)
    fitted = LinearClassifier(slope * weights[:, best], float(slope * bias[best] + shift))
    return fitted, slope * decision[:, best] + shift


def within_sites(label: np.ndarray, site: np.ndarray) -> np.ndarray:
    """Labels as -1 and 1, minus their mean at the same site (n,); as they are if no site has both classes."""
    target = 2 * label - 1
    apart = centred(target, site)
    return apart if apart.any() else target


def centred(values: np.ndarray, site: np.ndarray) -> np.ndarray:
    """Values (n, ...) minus their mean at the same site (n,)."""
    _, place, count = np.unique(site, return_inverse=True, return_counts=True)
    sums = np.zeros((len(count), *values.shape[1:]))
    np.add.at(sums, place, values)
    return values - (sums.T / count).T[place]


def own_axes(products: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Products (n, n) of records -> their coordinates (n, rank) along orthonormal axes of what they span, what makes
    these axes of the records (n, rank). An L2 penalty does not change with the axes."""
    variance, left = np.linalg.eigh(products)
    kept = variance > SMALLEST * variance[-1]
    length = np.sqrt(variance[kept])
    return left[:, kept] * length, left[:, kept] / length


def ridges(known: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights (features, penalties) and biases (penalties,) of ridge regressions, these not penalised; one
    decomposition serves all penalties."""
    centre = known.mean(0)
    values = known - centre
    power, axes = np.linalg.eigh(values.T @ values)
    along = axes.T @ (values.T @ (target - target.mean()))
    weights = axes @ (along[:, None] / (power[:, None] + PENALTIES))
    return weights, target.mean() - centre @ weights


@dataclass(frozen=True, eq=False)
class EdgeScale:
    """z-scores of edges by training records, which together weigh as `WEIGHT` features: `mean` and `scale` (edges,)
    float64; the scale of an edge that is constant there is 0. An unknown edge counts as the mean."""

    mean: np.ndarray
    scale: np.ndarray

    def of(self, edges: np.ndarray) -> np.ndarray:
        """Edges (n, edges) -> (n, edges) float64."""
        return np.nan_to_num((edges - self.mean) * self.scale)


@dataclass(frozen=True, eq=False)
class EdgeClassifier:
    """A linear classifier of scaled edges. `left_out` are the log odds of the records that it was fitted on, by their
    positions in the cohort. Each is by the inner fit that left it out, and NaN without inner folds."""

    scale: EdgeScale
    of_scaled: LinearClassifier
    left_out: dict[int, float]

    @property
    def constants(self) -> np.ndarray:
        """The means of edges, and what their deviations from these weigh, (2, edges) float64."""
        return np.stack([self.scale.mean, self.scale.scale * self.of_scaled.weights])

    def log_odds(self, connectomes: Connectomes, records: np.ndarray) -> np.ndarray:
        """Of autism, of the records at these positions (n,)."""
        return self.of_scaled.bias + added_by_edges(self.constants, connectomes, records)


def added_by_edges(constants: np.ndarray, connectomes: Connectomes, records: np.ndarray) -> np.ndarray:
    """What the edges of the records at these positions add to the log odds (n,), by `EdgeClassifier.constants`; an
    unknown edge counts as the mean."""
    mean, weight = constants
    return np.concatenate([np.nan_to_num(edges - mean) @ weight for _, edges in blocks(connectomes, records)])


def blocks(connectomes: Connectomes, records: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The records (n,) in blocks of places among them (few,), and their edges (few, edges) float64."""
    size = max(1, BLOCK_BYTES // (np.dtype(float).itemsize * connectomes.num_edges))
    for places in split_into_batches(np.arange(len(records)), size):
        yield places, connectomes[records[places]].astype(float)


def edge_scale(connectomes: Connectomes, records: np.ndarray) -> EdgeScale:
    """The scale by these training records."""
    count, total, squares = np.zeros((3, connectomes.num_edges))
    for _, edges in blocks(connectomes, records):
        count += np.isfinite(edges).sum(0)
        total += np.nansum(edges, 0)
        squares += np.nansum(np.square(edges), 0)
    mean = total / np.maximum(count, 1)
    variance = np.maximum(squares - count * np.square(mean), 0) / len(records)
    constant = variance <= SMALLEST * np.maximum(np.square(mean), SMALLEST)
    scale = np.sqrt(WEIGHT / connectomes.num_edges / np.where(constant, 1, variance))
    return EdgeScale(mean, np.where(constant, 0, scale))


FITTED: dict[tuple, EdgeClassifier] = {}  # the latest, by the records and labels that they were fitted on


def fit_edges(cohort: Cohort, connectomes: Connectomes, training: np.ndarray) -> EdgeClassifier:
    """`fit` on the connectomes of a cohort's training records, of at most `MAX_EDGE_RECORDS` drawn at random. If these
    are too few for inner folds, the log odds are those of the labels alone. Networks that are compared on the same
    people take the same one."""
    if not connectomes.digest_by_record:  # what the edges hold is not known
        return fitted_edges(cohort, connectomes, training)
    of_edges = (connectomes.path, connectomes.digest_by_record, MAX_EDGE_RECORDS)
    key = (*of_edges, tuple(cohort.rows[index] for index in training), cohort.groups)
    if key not in FITTED:
        for old in list(FITTED)[: 1 - MAX_FITTED]:
            del FITTED[old]
        FITTED[key] = fitted_edges(cohort, connectomes, training)
    return FITTED[key]


def fitted_edges(cohort: Cohort, connectomes: Connectomes, training: np.ndarray) -> EdgeClassifier:
    """`fit_edges`, anew."""
    records = some_of(training)
    label, site = labels_and_sites(cohort, records)
    folds = inner_folds(label, people_of(cohort, records))
    scale, products = edge_scale(connectomes, records), np.empty((len(records), len(records)))
    with threadpool_limits(1, "blas"):  # more threads cost much where other programs run
        for places, edges in blocks(connectomes, records):
            scaled = scale.of(edges)
            products[np.ix_(places, places)] = scaled @ scaled.T
            for before, others in blocks(connectomes, records[: places[0]]):
                products[np.ix_(places, before)] = scaled @ scale.of(others).T
                products[np.ix_(before, places)] = products[np.ix_(places, before)].T
        values, axes = own_axes(products)
        along, left_out = fit_and_leave_out(values, label, site, folds)
        of_records, weights = axes @ along.weights, np.zeros(connectomes.num_edges)
        for places, edges in blocks(connectomes, records):
            weights += of_records[places] @ scale.of(edges)
    found = dict(zip(records.tolist(), left_out.tolist(), strict=True))
    return EdgeClassifier(scale, LinearClassifier(weights, along.bias), found)
