"""Saved tables of a test -> the headline of its page: score of the verdict, its baseline, people; and one figure."""

from data.cohorts.records import CLASSES
from data.pages.drawings import Bar, Forest
from data.pages.page import Number
from utils.report.tables import Tables
from utils.report.texts import spelled, told_sites
from utils.scores.metrics import headline
from utils.scores.results import CHANCE, INTERVAL, MODEL, NAMED, ROLE, Estimate


def numbers(tables: Tables) -> list[Number]:
    """The headline: the score of the verdict, the baseline beside it, the people."""
    found = []
    if tables.scores:
        area = headline(tables.scores)
        found.append(Number(tables.scores[area].text(".2f", "undefined"), f"{spelled(area)}, {INTERVAL}"))
    if (baselines := tables.baselines) is not None and (baselines[ROLE] == NAMED).any():
        row, area = baselines[baselines[ROLE] == NAMED].iloc[0], headline(baselines)
        named = Estimate.in_row(row, area).text(".2f", "undefined")
        found.append(Number(named, f"baseline {NAMED}, {INTERVAL}: {row['baseline']}"))
    elif found and (of_folds := tables.run.cross_validation) and of_folds.baseline:
        name, value = of_folds.baseline.name, Estimate(*of_folds.baseline.score).text(".2f", "undefined")
        found.append(Number(value, f"baseline {NAMED}, {INTERVAL}, in the training's test on folds: {name}"))
    people = tables.predictions.groupby("subject").first()
    classes = [f"{(people['label'] == label).sum()} {name}" for label, name in enumerate(CLASSES)]
    unknown = people["label"].isna().sum()
    of_each = ", ".join([*reversed(classes), *([f"{unknown} of unknown diagnosis"] if unknown else [])])
    return [*found, Number(str(len(people)), "participants tested", f"{told_sites(people['site'])}; {of_each}")]


def forest(tables: Tables) -> Forest | None:
    """The AUC of the verdict, that of model and baselines; None without baselines. What has no interval is not
    drawn."""
    baselines = tables.baselines
    if baselines is None:
        return None
    area = headline(baselines)
    bars = []
    for _, row in baselines[baselines[f"{area}_low"].notna()].iterrows():
        score, is_model, is_named = Estimate.in_row(row, area), row["baseline"] == MODEL, row[ROLE] == NAMED
        name = tables.run.model if is_model else row["baseline"] + f" ({NAMED})" * is_named
        kind = "main" if is_model else "named" if is_named else ""
        value, low, high = score.numbers
        bars.append(Bar(name, value, low, high, score.text(".2f"), kind))
    return Forest(f"{spelled(area)}, {INTERVAL}; 0.5 is guessing", bars, CHANCE) if bars else None
