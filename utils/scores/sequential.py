"""A p-value by permutations that ends early where there is little to find (Besag & Clifford 1991, Biometrika 78:301).

Permutations are drawn until ten of them score at least as high as the true labels; then p = 10 / number drawn. If that
does not happen within so many as were asked for, p = (1 + those as high) / (1 + number). Either way P(p <= a) <= a
where there is nothing to find. The order of the permutations decides, not who is done first, so that processes that
share the work get the same p.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta

from utils.scores.statistics import CONFIDENCE

EXCEEDANCES = 10


@dataclass(frozen=True, kw_only=True)
class Permuted:
    """The end of a series: `high` of `count` permutations score at least as high as the `observed` score. `bound` is
    the upper end of the one-sided 95 % interval of the p of infinitely many permutations (Clopper & Pearson 1934)."""

    p: float
    bound: float
    high: int
    count: int
    asked: int
    observed: float
    metric: str
    mean: float  # score on permuted labels


def permuted(observed: float, scores: Sequence[float], asked: int, metric: str) -> Permuted | None:
    """The end of a series, of whose first permutations these are the scores; None if it is not reached yet."""
    high = 0
    for count, score in enumerate(scores[:asked], 1):
        high += score >= observed
        if high == EXCEEDANCES or count == asked:
            stopped = high == EXCEEDANCES
            p = high / count if stopped else (high + 1) / (count + 1)
            others = count - high  # if it stopped, the last one was drawn because it was high
            bound = beta.ppf(CONFIDENCE, high + (not stopped), others) if others else 1.0
            return Permuted(
                p=p,
                bound=float(bound),
                high=high,
                count=count,
                asked=asked,
                observed=observed,
                metric=metric,
                mean=sum(scores[:count]) / count,
            )
    return None
