"""Whom an AUC within sites compares: label, site and fold of people -> their peers."""

import numpy as np
import pandas as pd

MOST_PULL = 0.08  # log odds, of a fold's own people on what their site tells, see `pull`; at half, a share of 0.02
MOST_LOST = 0.25  # of the subjects of an AUC within groups: the bootstrap itself widens the interval of small groups


def pull(label: np.ndarray, site: np.ndarray, fold: np.ndarray) -> float:
    """How much less autism there is in other folds at the site of a person with autism than at a control's, in log
    odds.

    It is the difference within a site, and the mean over sites by their number of records; all arrays are (n,). A
    difference of shares is divided by p (1 - p), the slope at the site's share p of autism: log odds of the shares
    themselves are infinite where the others are of one class.

    A model that knows these others predicts the person by them, in the wrong direction. The AUC within sites falls
    (`tests/benchmarks/coverage.py`). It is 0 if each site is in one fold, or each fold has its share of both classes.
    """
    table = pd.DataFrame({"label": label, "site": site, "fold": fold})
    whole, own = (table.groupby(names)["label"].transform for names in (["site"], ["site", "fold"]))
    others = whole("size") - own("size")
    share = ((whole("sum") - own("sum")) / others.where(others > 0)).groupby([table["site"], table["label"]]).mean()
    by_class, autism = share.unstack().reindex(columns=[0, 1]), table.groupby("site")["label"].mean()
    slope = autism * (1 - autism)
    size = table["site"].value_counts()[by_class.index] * slope.gt(0)
    return float(((by_class[0] - by_class[1]).fillna(0) / slope.where(slope > 0, 1) * size).sum() / max(size.sum(), 1))


def peers_of(label: np.ndarray, site: np.ndarray, fold: np.ndarray | None) -> np.ndarray:
    """The site of each record (n,), or one for each site and fold if the `pull` is too large."""
    return site if fold is None or pull(label, site, fold) <= MOST_PULL else within_folds(site, fold)


def within_folds(site: np.ndarray | None, fold: np.ndarray | None) -> np.ndarray:
    """A number for each site and fold, of each record (n,)."""
    return pd.DataFrame({"site": site, "fold": fold}).groupby(["site", "fold"]).ngroup().to_numpy()


def of_both_classes(label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Which records (n,) bool are of a group (n,) that has both classes."""
    return np.isin(group, np.intersect1d(group[label == 1], group[label == 0]))
