"""Rows of `replication.csv` -> sentences. The word "again" is said of other people only."""

from typing import NamedTuple

import pandas as pd

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
        "These are other people; the networks are those of the bundle.",
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


def first_sentence(found: pd.DataFrame, people: int) -> str:
    """What the page says first, of all families. It is how the list of the training people fares in these `people`, if
    there are such rows, and then how theirs fares in halves. `found` has the rows of `replication.csv`."""
    return " ".join(filter(None, (sentences(found, between, people) for between in (TRAINING, HALVES))))


def sentences(found: pd.DataFrame, between: str, people: int) -> str:
    """What the rows between halves, repeats or training people say; nothing without such rows."""
    rows = dict(iter(found[found["between"] == between].groupby("family")))
    families, wording = [name for name in THINGS if name in rows], WORDINGS[between]
    where, told, little = wording.where.format(people=people), list[str](), list[str]()
    for family in families:
        named, out = counts(rows[family], between)
        told.append(fate(THINGS[family], named, out, wording, where))
        where = "" if named else where  # said once
        little += [THINGS[family][1]] if 2 * out < named or not named else []
    if not families:
        return ""
    if little:
        told.append(f"No map or list of {' or '.join(little)} should be published from this.")
    return " ".join([*told, wording.meaning, *correlations(rows, wording)])


def counts(rows: pd.DataFrame, between: str) -> tuple[int, int]:
    """Of a family, how many things are named at first, and how many of these are found in the other place, too."""
    here, most = (rows["named"] == 1) & (rows["thing"] != ""), (rows["comes_out"] > MOST) & (rows["thing"] != "")
    return int((most if between == TRAINING else here).sum()), int((here & most).sum())


def fate(thing: tuple[str, str], named: int, out: int, wording: Wording, where: str) -> str:
    """What becomes of the things that are named."""
    (one, many), (comes, come, fails) = thing, wording.verbs
    if not named:
        return f"No {one} is named{wording.first}."
    if named == 1:
        return f"The one {one} named{wording.first} {comes if out else fails}{where}."
    return f"Of the {named} {many} named{wording.first}, {out or 'none'} {come if out > 1 else comes}{where}."


def correlations(rows: dict[str, pd.DataFrame], wording: Wording) -> list[str]:
    """How the mean effects correlate over the things of each family."""
    heads = {name: Estimate.in_row(rows[name].iloc[0], "correlation") for name in THINGS if name in rows}
    known = [f"{found.text('.2f')} over {THINGS[name][1]}" for name, found in heads.items() if found.value is not None]
    return [
        f"The mean effects of {wording.whose} correlate at {', '.join(known)}. In brackets: {wording.brackets}."
    ] if known else []  # fmt: skip
