"""Rows of `replication.csv` -> sentences. The word "again" is said of other people only."""

from typing import NamedTuple

import pandas as pd

from data.cohorts.rows import SITE_IS_UNKNOWN
from utils.blackout.replication import HALVES, MOST, REPEATS, TRAINING
from utils.scores.results import Estimate

THINGS = {  # in the order of sentences: family -> one of its things, many
    "regions": ("region", "regions"),
    "connections": ("connection", "connections"),
    "values": ("value", "values"),
    "maps": ("region in one map", "regions in one map"),
}


class Wording(NamedTuple):
    """Verbs of one thing, of many, of one that fails; who names things first, and where they are looked for; what this
    means; whose effects correlate, and what stands in brackets."""

    verbs: tuple[str, str, str]
    first: str
    where: str
    meaning: str
    whose: str
    brackets: str


OUT = ("comes out", "come out", "does not come out")
WORDINGS = {
    TRAINING: Wording(
        ("is named again", "are named again", "is not named again"),
        " in the training people",
        " in these {people} people",
        "These are taken to be other people, which a bundle cannot tell; the networks are those of the bundle.",
        "these people and of the training people",
        "the 95 % interval over these people, for one correlation alone",
    ),
    HALVES: Wording(
        OUT,
        "",
        " in halves of these people",
        "To come out means: named by more than half of all halves, each of half of these people. Both halves have the "
        "same networks.",
        "both halves",
        "the range of 95 % of the cuts, which is no interval",
    ),
    REPEATS: Wording(
        OUT,
        "",
        " in repeats on these people",
        "To come out means: named by more than half of the repeats. They have the same people and other networks.",
        "two repeats",
        "the range of 95 % of the pairs of repeats, which is no interval",
    ),
}


def first_sentence(found: pd.DataFrame, people: int, unknown_site: bool = False) -> str:
    """What the page says first, of all families. It is how the list of the training people fares in these `people`, if
    there are such rows, and then how theirs fares in halves; what an unknown site does comes out in halves, too.
    `found` has the rows of `replication.csv`."""
    there = [between for between in (TRAINING, HALVES) if families(found, between)]
    told = [one for between in there for one in fates(found, between, people)]
    little, every = dict[str, None](), {family for between in there for family in families(found, between)}
    for between in there:
        for family, rows in families(found, between).items():
            named, out = counts(rows, between)
            # that the training people named nothing does not doubt what these people name
            little |= {family: None} if 2 * out < named or not (named or between == TRAINING) else {}
    if unknown_site:
        little = dict.fromkeys(every)
        told.append(f"{SITE_IS_UNKNOWN}.")
    if little:
        what = "" if len(little) == len(every) else f" of {alternatives([THINGS[family][1] for family in little])}"
        told.append(f"No map or list{what} should be published from this.")
    meaning = [WORDINGS[between].meaning for between in there if any_named(found, between)]
    return " ".join([*told, *meaning])


def beside_first(found: pd.DataFrame, people: int) -> list[str]:
    """What else is said: how theirs fares in repeats, and how effects correlate; nothing without such rows."""
    told = [" ".join([*fates(found, REPEATS, people), WORDINGS[REPEATS].meaning])] if families(found, REPEATS) else []
    return [*told, *(one for between in WORDINGS for one in correlations(found, between))]


def any_named(found: pd.DataFrame, between: str) -> bool:
    """Whether anything is named at first."""
    return any(counts(rows, between)[0] for rows in families(found, between).values())


def fates(found: pd.DataFrame, between: str, people: int) -> list[str]:
    """What becomes of the things of each family that are named, and which families have none."""
    wording, told = WORDINGS[between], list[str]()
    every = {family: counts(rows, between) for family, rows in families(found, between).items()}
    where = wording.where.format(people=people)
    for family, (named, out) in every.items():
        if named:
            told.append(fate(THINGS[family], named, out, wording, where))
            where = ""  # said once
    if nothing := [THINGS[family][0] for family, (named, _) in every.items() if not named]:
        told.append(f"No {alternatives(nothing)} is named{wording.first}.")
    return told


def families(found: pd.DataFrame, between: str) -> dict[str, pd.DataFrame]:
    """The rows of each family, in the order of sentences."""
    rows = dict(iter(found[found["between"] == between].groupby("family")))
    return {name: rows[name] for name in THINGS if name in rows}


def counts(rows: pd.DataFrame, between: str) -> tuple[int, int]:
    """Of a family, how many things are named at first, and how many of these are found in the other place, too."""
    here, most = (rows["named"] == 1) & (rows["thing"] != ""), (rows["comes_out"] > MOST) & (rows["thing"] != "")
    return int((most if between == TRAINING else here).sum()), int((here & most).sum())


def fate(thing: tuple[str, str], named: int, out: int, wording: Wording, where: str) -> str:
    """What becomes of the things that are named, one or more."""
    (one, many), (comes, come, fails) = thing, wording.verbs
    if named == 1:
        return f"The one {one} named{wording.first} {comes if out else fails}{where}."
    return f"Of the {named} {many} named{wording.first}, {out or 'none'} {come if out > 1 else comes}{where}."


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
