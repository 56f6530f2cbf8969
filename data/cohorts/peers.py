"""Whom an AUC within sites compares: label, site and fold of people -> their peers."""

import numpy as np
import pandas as pd

# log odds, of `compute_pull_log_odds`; at a share of autism of one half, a difference of shares of 0.02
MAX_PULL_LOG_ODDS = 0.08
# of subjects that count as lost to an AUC within groups: the bootstrap itself widens the interval of small groups
MAX_LOST_SUBJECT_SHARE = 0.25


def compute_pull_log_odds(labels: np.ndarray, sites: np.ndarray, folds: np.ndarray) -> float:
    """How much less autism there is in other folds at the site of a person with autism than at a control's, in log
    odds.

    It is the difference within a site, and the mean over sites by their number of records; all arrays are (n,). A
    difference of shares is divided by p (1 - p), the slope at the site's share p of autism: log odds of the shares
    themselves are infinite where the others are of one class.

    A model that knows these others predicts the person by them, in the wrong direction. The AUC within sites falls
    (`tests/benchmarks/coverage.py`). It is 0 if each site is in one fold, or each fold has its share of both classes.
    """
    label_table = pd.DataFrame({"label": labels, "site": sites, "fold": folds})
    site_transform, site_fold_transform = (
        label_table.groupby(key_columns)["label"].transform for key_columns in (["site"], ["site", "fold"])
    )
    records_outside_fold = site_transform("size") - site_fold_transform("size")
    mean_share_by_site_and_label = (
        ((site_transform("sum") - site_fold_transform("sum")) / records_outside_fold.where(records_outside_fold > 0))
        .groupby([label_table["site"], label_table["label"]])
        .mean()
    )
    share_by_site_and_class = mean_share_by_site_and_label.unstack().reindex(columns=[0, 1])
    autism_share_by_site = label_table.groupby("site")["label"].mean()
    logit_slope_by_site = autism_share_by_site * (1 - autism_share_by_site)
    record_count_by_site = label_table["site"].value_counts()[share_by_site_and_class.index] * logit_slope_by_site.gt(0)
    return float(
        (
            (share_by_site_and_class[0] - share_by_site_and_class[1]).fillna(0)
            / logit_slope_by_site.where(logit_slope_by_site > 0, 1)
            * record_count_by_site
        ).sum()
        / max(record_count_by_site.sum(), 1)
    )


def find_peer_groups(labels: np.ndarray, sites: np.ndarray, folds: np.ndarray | None) -> np.ndarray:
    """The site of each record (n,), or one for each site and fold if the pull (`compute_pull_log_odds`) is too
    large."""
    return (
        sites
        if folds is None or compute_pull_log_odds(labels, sites, folds) <= MAX_PULL_LOG_ODDS
        else number_site_folds(sites, folds)
    )


def number_site_folds(sites: np.ndarray | None, folds: np.ndarray | None) -> np.ndarray:
    """A number for each site and fold, of each record (n,)."""
    return pd.DataFrame({"site": sites, "fold": folds}).groupby(["site", "fold"]).ngroup().to_numpy()


def mark_records_in_mixed_groups(labels: np.ndarray, peer_groups: np.ndarray) -> np.ndarray:
    """Which records (n,) bool are of a group (n,) that has both classes."""
    return np.isin(peer_groups, np.intersect1d(peer_groups[labels == 1], peer_groups[labels == 0]))
