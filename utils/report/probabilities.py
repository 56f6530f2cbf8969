"""Saved tables of a calibration -> what the page says of probabilities, sets of labels and decisions."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from scipy.special import expit

from data.base.errors import InputError
from data.cohorts.records import CLASSES
from utils.figures import number
from utils.report import drawings, texts
from utils.report.cells import TELLING, Row, Section
from utils.report.tables import BOTH, COVERAGE, KINDS, NONE, ONE, UNEQUAL, Tables
from utils.scores.calibration import moved
from utils.scores.metrics import log_odds
from utils.scores.results import MIN_PER_CLASS, TABLES, Estimate

LEVEL, OTHER_LEVEL = 0.8, 0.9  # of the sets that the page shows, and of those that it names
SIZES = {BOTH: "both labels", ONE: "one label", NONE: "no label"}
MEASURES = {"slope": "slope", "intercept": "intercept", "brier": "Brier score"}


def sections(tables: Tables) -> Iterator[Section]:
    """Whether probabilities mean what they say, before and after calibration; then what can be done with them."""
    people, table, run = tables.probabilities, tables.calibration, tables.run
    if people is None or table is None:
        known = tables.labelled
        drawn = drawings.calibrated(known["label"].to_numpy(), {"as predicted": known["probability"].to_numpy()})
        yield Section("Probabilities", texts.paragraphs("probabilities", slopes=[], run=run), drawn)
        return
    label, share = people["label"].to_numpy(), people["label"].mean()
    drawn = drawings.calibrated(label, {name: people[of].to_numpy() for name, of in KINDS.items()})
    slopes = [Estimate.in_row(one(table, measure="slope", probabilities=of)) for of in KINDS]
    about = texts.paragraphs("probabilities", slopes=slopes, run=run, share=share)
    yield Section("Probabilities", about, drawn, agreement(table))
    about = texts.paragraphs("sets", held=[held(table, name) for name in reversed(CLASSES)], run=run)
    yield Section("Sets of labels", about, table=coverage(table, f"all {len(people)}"))
    calibrated, given = people["calibrated"].to_numpy(), tables.prevalence
    if given is not None:
        calibrated = expit(moved(log_odds(calibrated), people["prevalence"].to_numpy(), given))
        share = given
    about = texts.paragraphs("decisions", share=share, given=given is not None)
    yield Section("Decisions", about, drawings.decisions(label, calibrated, share))


def one(table: pd.DataFrame, **where: object) -> pd.Series:
    """The row of calibration.csv with these values. Raises InputError if there is none."""
    rows = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    if rows.empty:
        told = ", ".join(f"{name} {value}" for name, value in where.items())
        raise InputError(f"{TABLES['calibration'].file} has no row of {told}. Test again.")
    return rows.iloc[0]


def agreement(table: pd.DataFrame) -> list[Row]:
    """Slope, intercept and Brier score, as predicted and calibrated."""
    return [
        {"measure": told} | {of: Estimate.in_row(one(table, measure=measure, probabilities=of)).text() for of in KINDS}
        for measure, told in MEASURES.items()
    ]


def coverage(table: pd.DataFrame, everybody: str) -> list[Row]:
    """How many sets hold the label, by diagnosis, and how many labels they have: of all people and of each group."""
    rows = []
    for group in table["group"][table["measure"] == COVERAGE].unique():
        about = {"group": group, "level": LEVEL}
        held = {name: one(table, measure=COVERAGE, diagnosis=name, **about) for name in reversed(CLASSES)}
        sizes = {told: one(table, measure=size, **about)["value"] for size, told in SIZES.items()}
        rows.append(
            {"people": group or everybody}
            | {f"{name}: held": of_people(row) for name, row in held.items()}
            | {told: number(value, ".0%") for told, value in sizes.items()}
        )
    return rows


def of_people(row: pd.Series) -> str:
    """`81% of 70 (70% to 88%)`; a dash of fewer than TELLING people."""
    if row["people"] < TELLING:
        return "-"
    return f"{row['value']:.0%} of {row['people']:.0f} ({Estimate.in_row(row).ends('.0%')})"


@dataclass(frozen=True)
class Held:
    """The share of people of one class whose sets hold their label, at both levels; the lowest and the highest of
    groups with ten of them or more (None without two such groups), and the p-value of equal shares."""

    name: str
    share: float
    of_other_level: float
    ends: tuple[float, float] | None
    p: float


def held(table: pd.DataFrame, name: str) -> Held:
    share, other = (
        one(table, measure=COVERAGE, diagnosis=name, group="", level=level)["value"] for level in (LEVEL, OTHER_LEVEL)
    )
    own = table[(table["measure"] == COVERAGE) & (table["diagnosis"] == name) & (table["level"] == LEVEL)]
    large = own["value"][(own["group"] != "") & (own["people"] >= MIN_PER_CLASS)]
    ends = (large.min(), large.max()) if len(large) > 1 else None
    return Held(name, share, other, ends, one(table, measure=UNEQUAL, diagnosis=name, level=LEVEL)["value"])
