"""Statistics of a blackout by hand: what a table says of effects is compared with these."""

import numpy as np
import pandas as pd


def difference(value: np.ndarray, label: np.ndarray, site: np.ndarray) -> float:
    """Autism minus control within sites, in standard deviations within site and class."""
    sites = (site[:, None] == np.unique(site)).astype(float)
    slope = np.linalg.lstsq(np.column_stack([label, sites]), value, rcond=None)[0][0]
    cells = pd.Series(value).groupby([label, site])
    return slope / np.sqrt(((value - cells.transform("mean")) ** 2).sum() / (len(value) - cells.ngroups))


def family_wise(
    effect: np.ndarray, label: np.ndarray, widening: float, unit: np.ndarray | None = None, count: int = 2000
) -> np.ndarray:
    """p-values of effects (people, things) on the true class: how often the largest studentised covariance with labels
    that are permuted reaches a thing's own (Winkler et al. 2014), of which the spread is so many times wider. People of
    a unit, which are one or two, are exchanged together."""
    unit, random = np.arange(len(label)) if unit is None else unit, np.random.default_rng(1)
    on_autism = np.where(label == 1, 1, -1)[:, None] * effect.astype(float)
    on_autism, apart = on_autism - on_autism.mean(0), label - label.mean()
    member = (unit == np.unique(unit)[:, None]).astype(float)
    of_size = [np.argwhere(member[member.sum(1) == size])[:, 1].reshape(-1, size) for size in (1, 2)]

    def covariance(order: np.ndarray) -> np.ndarray:
        sums = member @ (apart[order][:, None] * on_autism)
        return sums.sum(0) / np.sqrt(len(member) * np.square(sums).sum(0))

    def permuted() -> np.ndarray:
        order = np.arange(len(label))
        for people in of_size:
            order[people] = random.permuted(random.permutation(people), axis=1)
        return order

    own = covariance(np.arange(len(label)))
    own /= np.hypot(own, widening * np.sqrt(1 - np.square(own)))
    return np.mean([covariance(permuted()).max() >= own for _ in range(count)], axis=0)
