"""Connectomes -> a few features of each person that serve a classifier with an L2 penalty as well as all edges.

Training people of n records span at most n of the many directions of edges; what lies outside them such a classifier
never uses. Products of people are enough to find the axes, and are summed over a block of people at a time, so that
memory does not grow with the number of edges times that of people.
"""

import numpy as np

from data.cohorts.cohort import in_order
from data.cohorts.connectomes import Connectomes

WEIGHT = 1000  # all edges weigh as so many standardised columns, so that the same penalties fit any number of parcels
BLOCK_BYTES = 2**27  # of people held at once
SMALLEST = 1e-10  # of the greatest variance along an axis; below it is rounding


class Standardised:
    """Connectomes with each edge z-scored by training records, its mean where it is unknown."""

    def __init__(self, training: Connectomes, train: np.ndarray):
        self.size = max(1, BLOCK_BYTES // (np.dtype(float).itemsize * training.num_edges))
        count, total, squares = np.zeros((3, training.num_edges))
        for block in in_order(train, self.size):
            edges = training[block].astype(float)
            unknown = np.isnan(edges)
            edges[unknown] = 0
            count += len(block) - np.count_nonzero(unknown, axis=0)
            total += edges.sum(0)
            squares += np.einsum("ij,ij->j", edges, edges)
        self.mean = total / np.maximum(count, 1)
        variance = np.maximum(squares - count * np.square(self.mean), 0) / len(train)
        constant = variance <= SMALLEST * np.maximum(np.square(self.mean), SMALLEST)
        self.scale = np.where(constant, 0, np.sqrt(WEIGHT / training.num_edges / np.where(constant, 1, variance)))

    def of(self, connectomes: Connectomes, rows: np.ndarray) -> np.ndarray:
        """Those of some records (n, edges) float64."""
        return np.nan_to_num((connectomes[rows] - self.mean) * self.scale)


def in_own_axes(
    training: Connectomes, train: np.ndarray, tested: Connectomes, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the training records at `train`, and of the new ones at `test`, along the axes of the former: (n,
    axes) and (new, axes) float64. Edges are standardised by the training records alone."""
    standardised = Standardised(training, train)
    known, new = (in_order(np.arange(len(rows)), standardised.size) for rows in (train, test))
    products, others = np.empty((len(train), len(train))), np.empty((len(test), len(train)))
    for at, part in enumerate(known):
        one = standardised.of(training, train[part])
        products[np.ix_(part, part)] = one @ one.T
        for later in known[at + 1 :]:
            products[np.ix_(later, part)] = standardised.of(training, train[later]) @ one.T
            products[np.ix_(part, later)] = products[np.ix_(later, part)].T
        for later in new:
            others[np.ix_(later, part)] = standardised.of(tested, test[later]) @ one.T
    variance, axes = np.linalg.eigh(products)
    kept = variance > SMALLEST * variance.max()
    length, axes = np.sqrt(variance[kept]), axes[:, kept]
    return axes * length, others @ axes / length
