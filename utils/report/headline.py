"""Saved tables of a test -> the headline of its page: score of the verdict, its floor, people; and one figure."""

from data.cohorts.records import CLASSES
from data.pages.drawings import Bar, Forest
from data.pages.page import Number
from utils.report.tables import Tables
from utils.report.texts import spelled, told_sites
from utils.scores.metrics import headline
from utils.scores.results import CHANCE, INTERVAL, MODEL, NAMED, ROLE, Estimate


def numbers(tables: Tables) -> list[Number]:
    """The headline: the score of the verdict, the floor beside it, the people."""
    found = []
    if tables.scores:
        area = headline(tables.scores)
        found.append(Number(tables.scores[area].text(".2f", "undefined"), f"{spelled(area)}, {INTERVAL}"))
    if (floors := tables.floors) is not None and (floors[ROLE] == NAMED).any():
        row, area = floors[floors[ROLE] == NAMED].iloc[0], headline(floors)
        named = Estimate.in_row(row, area).text(".2f", "undefined")
        found.append(Number(named, f"floor {NAMED}, {INTERVAL}: {row['floor']}"))
    elif found and (of_folds := tables.run.cross_validation) and of_folds.floor:
        name, value = of_folds.floor.name, Estimate(*of_folds.floor.score).text(".2f", "undefined")
        found.append(Number(value, f"floor {NAMED}, {INTERVAL}, in the training's test on folds: {name}"))
    people = tables.predictions.groupby("subject").first()
    classes = [f"{(people['label'] == label).sum()} {name}" for label, name in enumerate(CLASSES)]
    unknown = people["label"].isna().sum()
    of_each = ", ".join([*reversed(classes), *([f"{unknown} of unknown diagnosis"] if unknown else [])])
    return [*found, Number(str(len(people)), "people tested", f"{told_sites(people['site'])}; {of_each}")]


def forest(tables: Tables) -> Forest | None:
    """The AUC of the verdict, that of model and floors; None without floors. What has no interval is not drawn."""
    floors = tables.floors
    if floors is None:
        return None
    area = headline(floors)
    bars = []
    for _, row in floors[floors[f"{area}_low"].notna()].iterrows():
        score, is_model, is_named = Estimate.in_row(row, area), row["floor"] == MODEL, row[ROLE] == NAMED
        name = tables.run.model if is_model else row["floor"] + f" ({NAMED})" * is_named
        kind = "main" if is_model else "named" if is_named else ""
        value, low, high = score.numbers
        bars.append(Bar(name, value, low, high, score.text(".2f"), kind))
    return Forest(f"{spelled(area)}, {INTERVAL}; 0.5 is guessing", bars, CHANCE) if bars else None
