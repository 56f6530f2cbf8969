"""Results of a blackout -> what is said of them; longer sentences are macros of `sentences.jinja`."""

from collections import Counter
from itertools import compress
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from data.cohorts.records import CLASSES
from data.cohorts.rows import SITE_IS_UNKNOWN, known_sites
from utils.blackout.donors import Donors
from utils.blackout.families import SUPPRESSOR, Family, People, Verdict
from utils.blackout.fills import RELIANCE, UNIQUE
from utils.blackout.kinds import KINDS
from utils.blackout.replication import HALVES, MOST, REPEATS
from utils.scores import results
from utils.scores.metrics import HEADLINES
from utils.scores.results import ALPHA, Headline

DONORS = {"train": "training participants", "test": "tested participants"}  # by split
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1]]),
    autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.globals.update(results=results)
WHERE = {HALVES: "halves of these participants", REPEATS: "repeats on these participants"}
MEANING = {
    HALVES: "To come out means: named by more than half of all halves, each of half of these participants. Both halves "
    "have the same networks.",
    REPEATS: "To come out means: named by more than half of the repeats. The participants are the same, the networks "
    "others.",
}


def said(macro: str, **values: object) -> str:
    """The text of a macro of `sentences.jinja` on one line; not escaped for HTML."""
    return " ".join(getattr(TEMPLATES.get_template("sentences.jinja").module, macro)(**values).split())


def donors_sentence(donors: Donors) -> str:
    """Who the donors are."""
    origins: Counter = Counter()
    for (split, site), count in donors.subjects_of_origin.items():
        where = "any" if site is None else "the same" if known_sites([site]) else "unknown"
        origins[f"{DONORS[split]} of {where} site"] += count
    subjects = origins.total()
    several = "; ".join(f"for {count} of {subjects} participants {who}" for who, count in origins.items())
    return f"Donors: {donors.count} per record, {several if len(origins) > 1 else next(iter(origins))}."


def accuracy_sentence(judged: Headline) -> str:
    """How well the network predicts the subjects who were blacked out."""
    return said("accuracy", auc=judged.score, score=HEADLINES[judged.metric])


def basis_sentence(people: People) -> str:
    """Which covariates each p is adjusted for, and what is not known of them."""
    rarer = int(np.bincount(people.label.astype(int), minlength=len(CLASSES)).min())
    counts = {"rarer": rarer, "share": rarer / len(people.label)}
    return (
        said("basis", adjusted=people.adjusted.beside, **counts)
        if rarer
        else "No p: all participants are of one class."
    )


def found_sentence(family: Family) -> str:
    """Which things are named, and how many were significant before adjustment; nothing if nothing is concluded."""
    if family.people.verdict is not Verdict.OPEN:
        return ""
    effects = {effect.fill.name: effect for effect in family.tested}
    things = np.array(family.things)[family.order]
    names = {name: things[effect.named[family.order]].tolist() for name, effect in effects.items()}
    before = {name: int((effect.plain < ALPHA).sum()) for name, effect in effects.items()}
    alone = [*compress(family.things, family.remark.get("remark", pd.Series(dtype=str)) == SUPPRESSOR)]
    inner = [*compress(family.inner.things, family.inner.reliance.named)] if family.inner else []
    told = {"kind": family.kind, "total": len(family.things), "names": names[RELIANCE], "before": before[RELIANCE]}
    told |= {"unique": names.get(UNIQUE), "unique_before": before.get(UNIQUE), "alone": alone}
    told |= {"within": inner, "inner": len(family.inner.things) if family.inner else 0}
    return said("found", adjusted=bool(family.people.adjusted.beside.covariates), **told)


def may_be_published(found: pd.DataFrame, unknown_site: bool = False) -> list[str]:
    """How what is named fares in halves of these people, of all families, and which lists should not be published.
    What an unknown site does comes out in halves, too. `found` has the rows of `replication.csv`."""
    every = {name: counts(rows) for name, rows in families_in(found, HALVES).items()}
    little = [name for name, (named, out) in every.items() if unknown_site or 2 * out < named or not named]
    told = [*fates(found, HALVES), *([f"{SITE_IS_UNKNOWN}."] if unknown_site else [])]
    if little:
        many = {kind.name: kind.many for kind in KINDS}
        what = "" if len(little) == len(every) else f" of {alternatives([many[name] for name in little])}"
        told.append(f"No map or list{what} should be published from this.")
    return [*told, *([MEANING[HALVES]] if any(named for named, _ in every.values()) else [])]


def in_repeats(found: pd.DataFrame) -> list[str]:
    """How it fares in repeats; nothing without these."""
    return [*fates(found, REPEATS), MEANING[REPEATS]] if families_in(found, REPEATS) else []


def fates(found: pd.DataFrame, between: str) -> list[str]:
    """What becomes of the things of each family that are named, and which families have none."""
    every = {name: counts(rows) for name, rows in families_in(found, between).items()}
    kinds, told = {kind.name: kind for kind in KINDS}, list[str]()
    for name, (named, out) in every.items():
        if named == 1:
            what = f"The one {kinds[name].one} named {'comes' if out else 'does not come'} out"
        else:
            what = f"Of the {named} {kinds[name].many} named, {out or 'none'} {'come' if out > 1 else 'comes'} out"
        told += [f"{what} in {WHERE[between]}."] if named else []
    if nothing := [kinds[name].one for name, (named, _) in every.items() if not named]:
        told.append(f"No {alternatives(nothing)} is named.")
    return told


def families_in(found: pd.DataFrame, between: str) -> dict[str, pd.DataFrame]:
    """The rows of each family."""
    rows = dict(iter(found[found["between"] == between].groupby("family")))
    return {kind.name: rows[kind.name] for kind in KINDS if kind.name in rows}


def counts(rows: pd.DataFrame) -> tuple[int, int]:
    """Of a family, how many things are named, and how many of these come out."""
    here = (rows["named"] == 1) & (rows["thing"] != "")
    return int(here.sum()), int((here & (rows["replicates"] > MOST)).sum())


def alternatives(names: list[str]) -> str:
    """Names with commas and one "or"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
