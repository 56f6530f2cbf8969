"""Results of a blackout -> what is said of them in sentences: who gave regions, what may be concluded, and what is to
be known before any number."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.cohorts.rows import SITE_IS_UNKNOWN, known_sites
from utils.blackout.donors import Donors
from utils.blackout.families import People, Verdict
from utils.blackout.fills import RELIANCE
from utils.blackout.replication import HALVES
from utils.scores.metrics import HEADLINES
from utils.scores.results import CHANCE, INTERVAL, Headline

DONORS = {"train": "training participants", "test": "tested participants"}  # by split
UNEQUAL = 0.4  # share of the rarer class; the case is counted in docs/evidence/blackout_p.csv


def donors_sentence(donors: Donors) -> str:
    """Who the donors are."""
    origins: Counter = Counter()
    for (split, site), count in donors.subjects_of_origin.items():
        where = "any" if site is None else "the same" if known_sites([site]) else "unknown"
        origins[f"{DONORS[split]} of {where} site"] += count
    subjects = origins.total()
    several = "; ".join(f"for {count} of {subjects} participants {who}" for who, count in origins.items())
    return f"Donors: {donors.count} per record, {several if len(origins) > 1 else next(iter(origins))}."


def predicts(model: str, judged: Headline) -> str:
    """Whether a network predicts the participants who were blacked out."""
    auc, name = judged.score, HEADLINES[judged.metric]
    if auc.low is None or auc.high is None:
        known = f"{name} {auc.text('.2f', 'is undefined: all, or all whom it compares, are of one class')}"
        return f"It is not known whether {model} predicts these participants better than chance. {known}."
    if auc.high < CHANCE:
        said = "ranks these participants the wrong way round"
    elif auc.low <= CHANCE:
        said = "is not shown to predict these participants better than chance"
    else:
        said = "predicts these participants better than chance"
    return f"{model} {said}: {name} {auc.value:.2f} ({INTERVAL} {auc.ends('.2f')})."


def replicates(family: pd.Series) -> str:
    """How many things of a family, a row of `BlackoutResults.counted`, replicate; nothing if none is significant."""
    again = family[HALVES]
    return f"{again or 'none'} {'replicate' if again > 1 else 'replicates'} in split halves" if family[RELIANCE] else ""


def found(family: pd.Series) -> str:
    """How many things of a family are significant, and replicate."""
    named, again = family[RELIANCE], replicates(family)
    said = f"Of {family['things']:,} {family['family']}, {named or 'none'} {'are' if named > 1 else 'is'} significant"
    return f"{said}; {again}." if again else f"{said}."


def may_be_published(counted: pd.DataFrame, spoilt: bool) -> str:
    """Whether a list or map may be published, and of which families. What an unknown site or a leak does replicates,
    too: then results are `spoilt`."""
    may = (counted[RELIANCE] > 0) & (2 * counted[HALVES] >= counted[RELIANCE]) & (not spoilt)
    if not may.any():
        return "No list or map should be published from this."
    others = counted.loc[~may, "family"].tolist()
    but = f"; no list or map of {alternatives(others)} should be published" if others else ""
    return f"A list or map may be published, only of what replicates in split halves{but}."


def cautions(people: People, uncleaned: str, unknown_site: bool) -> list[str]:
    """What stands beside every number."""
    rarer = np.bincount(people.label.astype(int), minlength=2).min()
    share, beside = rarer / len(people.label), people.adjusted.beside
    told = [uncleaned, f"{SITE_IS_UNKNOWN}." if unknown_site else ""]
    if people.verdict is not Verdict.ONE_CLASS and not beside.covariates:
        told.append(f"No p is adjusted for covariates: {beside.reason}.")
    if 0 < share < UNEQUAL:
        told.append(
            f"Only {share:.0%} are of one class: if their effects are skewed and vary much more than the others', p is "
            "too small."
        )
    return [*filter(None, told)]


def alternatives(names: Sequence[str]) -> str:
    """Names with commas and one "or"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
