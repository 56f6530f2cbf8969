"""Scores by head motion, sex and age: the covariates of subjects -> the rows of `groups.csv`."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from utils.scores.estimate import flat
from utils.scores.features import AGE, HEAD_MOTION, SEX, covariates
from utils.scores.metrics import Predictions, with_intervals

THIRDS = ("youngest", "middle", "oldest")
KINDS = ("head motion", "sex", "age")
MOVED_LESS, MOVED_MORE = "moved less", "moved more"
MAX_SEXES = 6  # values; more of them are no codes


def groups(predictions: Predictions, table: pd.DataFrame | None, seed: int) -> list[dict]:
    """Rows of `groups.csv`: the halves that moved less and more than the median of their site, the sexes, the thirds of
    age; number of subjects, AUC and, where there are several sites, AUC within them, with intervals."""
    if table is None:
        return []
    first, _ = predictions.people
    subject, site = predictions.subject[first].tolist(), np.asarray(predictions.site)[first].tolist()
    known = covariates(subject, site, table)
    rows = []
    for kind, group in grouped(known, site):
        of_record = group.reindex(predictions.subject).to_numpy(object)
        for name in group.dropna().unique():
            part = predictions.subset(of_record == name)
            members = {"subjects": part.label >= 0, "autism": part.label == 1, "control": part.label == 0}
            found = with_intervals(part, seed)
            counts = {key: part.count(group) for key, group in members.items()}
            scores = flat({area: found[area] for area in ("auc_sites", "auc") if area in found})
            rows.append({"kind": kind, "group": str(name)} | counts | scores)
    return sorted(rows, key=lambda row: KINDS.index(row["kind"]))


def grouped(known: pd.DataFrame, site: list[str]) -> Iterator[tuple[str, pd.Series]]:
    """Each grouping by its kind: the name of the group of each subject, the groups in order; NaN where unknown."""
    for name in known:
        values = known[name]
        if HEAD_MOTION.search(name) and values.dtype == float:
            below = values < values.groupby(np.array(site)).transform("median")
            halves = pd.Series(np.where(below, MOVED_LESS, MOVED_MORE), known.index)
            yield "head motion", halves.where(values.notna()).sort_values()
        elif AGE.search(name) and values.dtype == float and values.nunique() > MAX_SEXES:
            thirds = pd.qcut(values.rank(method="first"), len(THIRDS), labels=THIRDS).astype(object)
            low, high = (f"{cut:.1f}" for cut in values.quantile([1 / 3, 2 / 3]))
            told = dict(zip(THIRDS, (f"below {low}", f"{low} to {high}", f"above {high}"), strict=True))
            told = {third: f"{third} third, {ends}" for third, ends in told.items()}
            yield "age", thirds.map(told)[values.sort_values().index]
        elif SEX.search(name) and values.nunique() <= MAX_SEXES:
            told = values.dropna().map("{:g}".format if values.dtype == float else str)
            yield "sex", (f"{name} " + told).sort_values()
