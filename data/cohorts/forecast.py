"""What a cohort can conclude, before anybody trains: people, sites and relatives -> two sentences."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from data.cohorts.division import (
    USUAL_FOLDS,
    WHOLE_SITES,
    Division,
    Subjects,
    joined_sites,
    numbered_folds,
    site_folds,
    subjects_of,
)
from data.cohorts.duplicates import Groups
from data.cohorts.peers import MOST_LOST, of_both_classes, peers_of
from data.cohorts.rows import CHANCE, CONFIDENCE, MIN_PER_CLASS, POWER, SITE_IS_UNKNOWN, Row, is_swapped, known_sites

AREAS = np.linspace(CHANCE, 0.99, 491)  # the AUCs among which one is looked for
PEOPLE = (100, 200, 400, 663)  # who train mmnn with connectomes, or without: its AUC, docs/understand/planning.md
REACHED = {"with connectomes": (0.66, 0.73, 0.78, 0.81), "without connectomes": (0.64, 0.71, 0.74, 0.78)}
CLEARLY = 0.02  # by which an AUC must be less for other folds to be advised
MEANS = "in 8 of 10 such studies, if that is the true one"
MORE = "join them with others"


class Way(NamedTuple):
    """How people are tested, whom the AUC compares, within what, and how many train (0: others). `auc` is the least
    that is shown: infinite if none is enough, NaN without an interval."""

    named: str
    people: int
    within: str
    training: float
    auc: float


def forecast(
    rows: Sequence[Row], groups: Groups, how: str = "", fold_of: Mapping[str, str] | None = None, connectome: str = ""
) -> list[str]:
    """Two sentences: what is shown by the folds `how` that are given, or else by `--folds 10` of the seed 0, and of
    whole sites or `--folds site`, without training people by a model of others; and what to do. `connectome` is empty
    for a cohort without one. None where a label is unknown or regions were swapped, which folds refuse."""
    if not rows or not all(row.known and not is_swapped(row.file) for row in rows):
        return []
    people, ways = subjects_of(rows, groups), dict[str, np.ndarray | None]({"a model of other participants": None})
    if any(row.split == "train" for row in rows):
        ways = usual_folds(people)
    asked = {Division.parse(how).flags: np.array([fold_of[name] for name in people.subjects])} if fold_of else ways
    every = [way_of(name, people, fold) for name, fold in (asked | ways | asked).items()]
    best = best_way(every)
    first = [way for way in every if way.named in asked or way is best]
    told = "; ".join(map(what_is_shown, first)) or "no folds are possible"
    means = f" ({MEANS})" if any(np.isfinite(one.auc) for one in first) else ""
    of_site = "" if known_sites(people.site) else f"{SITE_IS_UNKNOWN}; "
    advised = f"{of_site}{advice(best, connectome)}."
    return [f"{told}{means}.", advised[0].upper() + advised[1:]]


def usual_folds(people: Subjects) -> dict[str, np.ndarray | None]:
    """Those that are possible, by their name: numbered ones, then those that hold sites out. These are numbered, too,
    if they compare more people, and there are sites enough."""
    found: dict[str, np.ndarray | None] = {}
    subjects, label, site, unit = people
    if (count := min(USUAL_FOLDS, people.smaller_class)) > 1:
        fold = found[f"--folds {count}"] = numbered_folds(label, site, unit, count, 0)
        joined = joined_sites(people)
        if len(np.unique(joined)) >= count:
            by_site = site_folds(label, joined, count, 0)
            more = way_of("", people, by_site).people > way_of("", people, fold).people
            if more and trains_on_both_classes(label, by_site):
                return found | {Division.parse(f"{count}{WHOLE_SITES}").flags: by_site}
    site_of = dict(zip(subjects, site, strict=True))
    tested = np.array([site_of[first] for first in unit])
    if 1 < len(np.unique(tested)) <= len(subjects) / 2 and trains_on_both_classes(label, tested):
        found["--folds site"] = tested
    return found


def trains_on_both_classes(label: np.ndarray, fold: np.ndarray) -> bool:
    """Whether people outside of each fold are of both classes; both are (n,)."""
    return all(len(np.unique(label[fold != name])) == 2 for name in np.unique(fold))


def way_of(named: str, people: Subjects, fold: np.ndarray | None) -> Way:
    """Subjects who are tested in folds (n,) or by one model, compared as `utils.scores.metrics` does."""
    _, label, site, unit = people
    one_site, parts = len(np.unique(site)) == 1, np.zeros(len(label)) if fold is None else fold
    group = parts if one_site else peers_of(label, site, fold)
    both = of_both_classes(label, group)
    sites = len(np.unique(site[both]))
    within = f"within {sites} site{'s'[: sites != 1]}"
    if one_site:
        within = "in all" if fold is None else "within folds"
    auc = np.nan
    if min(len(np.unique(unit[both & (label == value)])) for value in (0, 1)) >= MIN_PER_CLASS:
        counts = [np.unique(group[both & (label == value)], return_counts=True)[1] for value in (1, 0)]
        auc = least_auc(np.array(counts), len(unit) / len(np.unique(unit)), fold is not None)
    return Way(named, int(both.sum()), within, len(label) * (1 - 1 / len(np.unique(parts))), auc)


def least_auc(counts: np.ndarray, relatives: float, folds: bool) -> float:
    """The true AUC from which on 8 of 10 studies are called better than chance; infinite if none up to 0.99 is enough.

    `counts` (2, groups) are of people of each class, `relatives` is how many people a unit has. The variance is that of
    Hanley & McNeil (1982, Radiology 143:29), in folds twice as large. The interval is widened as that of a run.
    Resamples may lack a class of a small group; how many do not enters by its root, see docs/understand/planning.md.
    """
    (autism, control), size, area = counts, counts.sum(0), AREAS[:, None]
    of_autism = (autism - 1) * (area / (2 - area) - area**2)
    of_control = (control - 1) * (2 * area**2 / (1 + area) - area**2)
    variance = relatives * (size / size.sum()) ** 2 * (area * (1 - area) + of_autism + of_control) / (autism * control)
    lost = min(2 * len(size) * relatives / size.sum(), MOST_LOST) if folds else 0
    there = np.sqrt(np.prod(1 - np.exp(-counts), axis=0))
    interval, error = (np.sqrt((1 + folds) * of.sum(1)) for of in (variance / there / (1 - lost), variance))
    normal = NormalDist()
    above = AREAS[AREAS - normal.inv_cdf((1 + CONFIDENCE) / 2) * interval > CHANCE]  # estimates
    enough = AREAS[AREAS - normal.inv_cdf(POWER) * error >= min(above, default=np.inf)]
    return float(min(enough, default=np.inf))


def what_is_shown(one: Way) -> str:
    """Whom a way compares, and what it shows."""
    said = f"{one.named} compares {one.people} {one.within}"
    if np.isnan(one.auc):
        return f"{said}, too few for an interval"
    return f"{said} and shows {'no AUC' if np.isinf(one.auc) else f'an AUC of {one.auc:.2f} or more'}"


def best_way(ways: Sequence[Way]) -> Way | None:
    """The first way, unless another shows clearly more; None if nothing is shown by any."""
    if not any(np.isfinite(way.auc) for way in ways):
        return None
    auc = dict(zip(ways, np.nan_to_num([way.auc for way in ways], nan=np.inf), strict=True))
    return min(ways, key=lambda way: auc[way] + CLEARLY * (way is not ways[0]))


def advice(best: Way | None, connectome: str) -> str:
    if best is None:
        return f"too few participants for a conclusion: {MORE}"
    if not best.training:
        return "expect a conclusion only if the model's own test had a higher AUC"
    training, data = np.clip(best.training, PEOPLE[0], PEOPLE[-1]), f"with{'' if connectome else 'out'} connectomes"
    usual = np.interp(np.log(training), np.log(PEOPLE), REACHED[data])
    known = f"mmnn {data} reached {usual:.2f} when trained on {training:.0f} participants of ABIDE I"
    if usual >= best.auc:
        return f"use {best.named}; {known}"
    return f"use {best.named}, but expect no conclusion, since {known}: {MORE}"
