"""What a choice among candidates does to the score: the procedure's own, and what it corrects.

The procedure chooses in each outer fold by inner folds of its training people, so its score is honest. The best
candidate's own score is not, since the same predictions choose it and judge it; the difference is the optimism. Without
inner folds (`quick`) the score of the best candidate is corrected by a bootstrap: the people who are drawn choose, the
others judge (BBC-CV: Tsamardinos, Greasidou & Borboudakis 2018, Machine Learning 107:1895).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from utils.choice.job import read_choice
from utils.report.registry import CANDIDATE, CHOICE_COLUMNS
from utils.report.tables import Choice
from utils.runs.group import Group
from utils.scores.estimate import Estimate, flat, or_none
from utils.scores.metrics import RESAMPLES, Predictions, aucs, differences, headline, with_intervals
from utils.scores.statistics import resampled


def chosen_of(group: Group, each: Mapping[str, Predictions]) -> dict[str, str]:
    """Who was chosen in each fold: by inner folds, or for all by the predictions themselves."""
    if group.choice:
        return {leaf.fold: read_choice(leaf).name for leaf in group.choice.leaves}
    return dict.fromkeys(group.folds.names, best_of(each))


def best_of(each: Mapping[str, Predictions]) -> str:
    """The candidate with the largest AUC of the headline; of equal ones the first."""
    scores = {name: own_score(one) for name, one in each.items()}
    return max(scores, key=lambda name: scores[name])


def own_score(predictions: Predictions) -> float:
    areas = aucs(predictions, np.ones((1, len(predictions.label))))
    return float(np.nan_to_num(areas[headline(areas)], nan=-1)[0])


def corrected(each: Mapping[str, Predictions], seed: int) -> float | None:
    """The mean score, over resamples of people within folds, of who does best on those who are drawn, on the others."""
    first = next(iter(each.values()))
    people, member = first.people
    strata = None if first.fold is None else first.fold[people]
    weight = resampled(len(people), np.random.default_rng(seed), RESAMPLES, strata)[:, member].astype(float)
    name = headline(aucs(first, weight[:1]))
    inside = np.stack([aucs(one, weight)[name] for one in each.values()])
    outside = np.stack([aucs(one, (weight == 0).astype(float))[name] for one in each.values()])
    best = np.nan_to_num(inside, nan=-1).argmax(0)
    found = outside[best, np.arange(len(weight))]
    return or_none(float(np.nanmean(found))) if np.isfinite(found).any() else None


def agreement(chosen: Sequence[str]) -> float:
    """The share of pairs of folds in which the same candidate was chosen."""
    pairs = list(combinations(chosen, 2))
    return sum(one == other for one, other in pairs) / len(pairs)


def summary(
    each: Mapping[str, Predictions], procedure: Predictions, chosen: Mapping[str, str], quick: bool, seed: int
) -> Choice:
    """What the report says of the choice."""
    best = best_of(each)
    scores = with_intervals(each[best], seed)
    name = headline(scores)
    mended = corrected(each, seed)
    return Choice(
        quick=quick,
        candidates=list(each),
        chosen=dict(Counter(chosen.values()).most_common()),
        agreement=None if quick else agreement(list(chosen.values())),
        metric=name,
        best=best,
        best_score=scores[name],
        optimism=None if quick else differences(each[best], procedure, seed)[name],
        corrected=shifted(scores[name], mended),
    )


def shifted(score: Estimate, value: float | None) -> Estimate:
    """A score with another value, and an interval that is as wide, but for the bounds of an AUC."""
    if value is None or score.value is None or score.low is None or score.high is None:
        return Estimate(value, None, None)
    less = score.value - value
    return Estimate(value, max(score.low - less, 0.0), min(score.high - less, 1.0))


def candidates_table(each: Mapping[str, Predictions], chosen: Mapping[str, str], seed: int) -> pd.DataFrame:
    """A row a candidate: in how many folds it was chosen, and its own scores over all folds."""
    counts = Counter(chosen.values())
    rows = []
    for name, one in each.items():
        scores = with_intervals(one, seed)
        names = [area for area in ("auc_sites", "auc_folds", "auc", "accuracy", "brier") if area in scores]
        rows.append({CANDIDATE: name, "chosen": counts[name]} | flat({area: scores[area] for area in names}))
    return pd.DataFrame(rows)


def of_folds(tables: Mapping[str, pd.DataFrame], chosen: Mapping[str, str]) -> pd.DataFrame:
    """Of tables with a column `fold`, one a candidate, the rows of each fold from that of who was chosen there."""
    found = [tables[name][tables[name]["fold"] == fold].assign(candidate=name) for fold, name in chosen.items()]
    return pd.concat(found, join="inner", ignore_index=True)


def choices_table(choosing: Group) -> pd.DataFrame:
    """A row a fold and candidate: how many inner folds it was compared on, its score there, whether it was chosen."""
    choices = {part.fold: read_choice(part) for part in choosing.leaves}
    rows = [
        {"fold": fold, CANDIDATE: name, "inner_folds": rung.folds, "score": rung.scores[name]}
        | {"chosen": int(name == choice.name)}
        for fold, choice in choices.items()
        for name in choice.scores
        for rung in [next(rung for rung in reversed(choice.rungs) if name in rung.scores)]
    ]
    return pd.DataFrame(rows, columns=list(CHOICE_COLUMNS))
