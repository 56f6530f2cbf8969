"""Rows of `replication.csv` -> sentences. None says "again", which would be of other people."""

from typing import NamedTuple

import pandas as pd

from data.cohorts.rows import SITE_IS_UNKNOWN
from utils.blackout.replication import HALVES, MOST, REPEATS
from utils.scores.results import Estimate

THINGS = {  # in the order of sentences: family -> one of its things, many
    "regions": ("region", "regions"),
    "connections": ("connection", "connections"),
    "values": ("value", "values"),
    "maps": ("region in one map", "regions in one map"),
}


class Wording(NamedTuple):
    """Where things that are named are looked for; what this means; whose effects correlate, and what stands in
    brackets."""

    where: str
    meaning: str
    whose: str
    brackets: str


WORDINGS = {
    HALVES: Wording(
        " in halves of these people",
        "To come out means: named by more than half of all halves, each of half of these people. Both halves have the "
        "same networks.",
        "both halves",
        "the range of 95 % of the cuts, which is no interval",
    ),
    REPEATS: Wording(
        " in repeats on these people",
        "To come out means: named by more than half of the repeats. They have the same people and other networks.",
        "two repeats",
        "the range of 95 % of the pairs of repeats, which is no interval",
    ),
}


def first_sentence(found: pd.DataFrame, unknown_site: bool = False) -> str:
    """What the page says first, of all families: how what is named fares in halves of these people. What an unknown
    site does comes out in halves, too. `found` has the rows of `replication.csv`."""
    told, every = fates(found, HALVES), {name: counts(rows) for name, rows in families(found, HALVES).items()}
    little = [family for family, (named, out) in every.items() if 2 * out < named or not named]
    if unknown_site:
        little = [*every]
        told.append(f"{SITE_IS_UNKNOWN}.")
    if little:
        what = "" if len(little) == len(every) else f" of {alternatives([THINGS[family][1] for family in little])}"
        told.append(f"No map or list{what} should be published from this.")
    meaning = [WORDINGS[HALVES].meaning] if any(named for named, _ in every.values()) else []
    return " ".join([*told, *meaning])


def beside_first(found: pd.DataFrame) -> list[str]:
    """What else is said: how theirs fares in repeats, and how effects correlate; nothing without such rows."""
    told = [" ".join([*fates(found, REPEATS), WORDINGS[REPEATS].meaning])] if families(found, REPEATS) else []
    return [*told, *(one for between in WORDINGS for one in correlations(found, between))]


def fates(found: pd.DataFrame, between: str) -> list[str]:
    """What becomes of the things of each family that are named, and which families have none."""
    where, told = WORDINGS[between].where, list[str]()
    every = {family: counts(rows) for family, rows in families(found, between).items()}
    for family, (named, out) in every.items():
        if named:
            told.append(fate(THINGS[family], named, out, where))
            where = ""  # said once
    if nothing := [THINGS[family][0] for family, (named, _) in every.items() if not named]:
        told.append(f"No {alternatives(nothing)} is named.")
    return told


def families(found: pd.DataFrame, between: str) -> dict[str, pd.DataFrame]:
    """The rows of each family, in the order of sentences."""
    rows = dict(iter(found[found["between"] == between].groupby("family")))
    return {name: rows[name] for name in THINGS if name in rows}


def counts(rows: pd.DataFrame) -> tuple[int, int]:
    """Of a family, how many things are named, and how many of these come out."""
    here, most = (rows["named"] == 1) & (rows["thing"] != ""), (rows["comes_out"] > MOST) & (rows["thing"] != "")
    return int(here.sum()), int((here & most).sum())


def fate(thing: tuple[str, str], named: int, out: int, where: str) -> str:
    """What becomes of the things that are named, one or more."""
    one, many = thing
    if named == 1:
        return f"The one {one} named {'comes out' if out else 'does not come out'}{where}."
    return f"Of the {named} {many} named, {out or 'none'} {'come' if out > 1 else 'comes'} out{where}."


def alternatives(names: list[str]) -> str:
    """Names with commas and one "or"."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def correlations(found: pd.DataFrame, between: str) -> list[str]:
    """How the mean effects correlate over the things of each family."""
    heads = {name: Estimate.in_row(rows.iloc[0], "correlation") for name, rows in families(found, between).items()}
    known = [f"{one.text('.2f')} over {THINGS[name][1]}" for name, one in heads.items() if one.value is not None]
    whose, brackets = WORDINGS[between].whose, WORDINGS[between].brackets
    text = f"The mean effects of {whose} correlate at {', '.join(known)}."
    text += f" In brackets: {brackets}." if any(one.low is not None for one in heads.values()) else ""
    return [text] if known else []
