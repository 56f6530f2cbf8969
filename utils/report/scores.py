"""Saved tables of a test -> what the page says of scores, probabilities and sets of labels."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from data.base.errors import InputError
from data.cohorts.records import CLASSES, TELLING
from data.cohorts.rows import known_sites
from data.pages.page import Row, Section
from utils.figures import number
from utils.report import drawings, texts
from utils.report.meanings import MEANINGS
from utils.report.tables import (
    BOTH,
    COVERAGE,
    KINDS,
    MINUS,
    NONE,
    ONE,
    Described,
    Tables,
)
from utils.report.texts import few_apart, spelled
from utils.scores.metrics import Predictions, headline
from utils.scores.results import (
    ALIKE,
    INTERVAL,
    MIN_PER_CLASS,
    MODEL,
    NAMED,
    NO_INTERVAL,
    OTHER,
    PRESPECIFIED_BASELINE,
    ROLE,
    RULE,
    SITE_COUNTS,
    TABLES,
    THRESHOLD,
    UNITS,
    Estimate,
    columns_of,
    counted,
)

OF_FOLDS = ("auc", "accuracy", "balanced_accuracy", "brier")  # metrics.json has all
LEVEL, OTHER_LEVEL = 0.8, 0.9  # of the sets that the page shows, and of those that it names
SIZES = {BOTH: "both labels", ONE: "one label", NONE: "no label"}
FEW_PEOPLE = f"< {TELLING}: so few participants are not counted. A dash: fewer than {TELLING} participants of a class."
MEASURES = {"slope": "slope", "intercept": "intercept", "brier": "Brier score"}


def scored(tables: Tables) -> Iterator[Section]:
    """The sections that need labels."""
    known, run = tables.labelled, tables.run
    predictions = Predictions.of(known, several=run.folds is not None and not run.fold)
    rows = [{"metric": spelled(name), f"value, {INTERVAL}": score.text()} for name, score in tables.scores.items()]
    averaged = {"auc_sites", "auc_folds"} & tables.scores.keys()
    of = {"records": len(known), "subjects": known["subject"].nunique(), "small_sites": run.small_sites}
    about = texts.paragraphs("scores", **of, averaged=averaged)
    yield Section("Scores", about, table=rows, open=True, meanings=MEANINGS)
    if tables.repeats is not None:
        yield repeats(tables.repeats, "fold" in tables.predictions)
    if run.chosen:
        yield chosen(run)
    if tables.baselines is not None and not {MODEL, ALIKE}.issuperset(tables.baselines["baseline"]):
        yield beside_baselines(tables.baselines, run.model)
    if tables.confounds is not None:
        yield beside_motion(tables.confounds)
    if known["label"].nunique() == len(CLASSES):
        about = [
            f"The band is the {INTERVAL} of the true positive rate at each false positive rate, made like those of the "
            "scores; there is none where the AUC of all participants has none."
        ]
        yield Section("ROC curve", about, drawings.roc(predictions, run.seed))
    yield from of_probabilities(tables)
    yield confusion(predictions, tables)
    if tables.folds:
        yield by_fold(tables)
    if tables.sites is not None and known_sites(tables.sites["site"]):
        yield by_site(tables.sites, run.small_sites)
    if tables.groups is not None:
        yield by_group(tables.groups, run.small_sites)


def repeats(table: pd.DataFrame, same_folds: bool) -> Section:
    """The scores of each repeat, and how far apart they lie."""
    names = [name for name in ("auc_sites", "auc_folds", "auc", *OF_FOLDS[1:]) if name in table]
    area = headline(table)
    less = [name for name in (f"{MINUS}{area}",) if name in table]
    its = "the pre-specified baseline"
    spread = {spelled(area): table[area]} | {f"{spelled(area)}, minus that of {its}": table[name] for name in less}
    spread = {name: values for name, values in spread.items() if values.notna().all()}
    about = texts.paragraphs("repeats", count=len(table), same_folds=same_folds, spread=spread)
    rows = [
        {name: number(row[name], ".0f") for name in ("repeat", "seed")}
        | {spelled(name): Estimate.in_row(row, name).text() for name in names + less}
        | ({PRESPECIFIED_BASELINE.replace("_", " "): row[PRESPECIFIED_BASELINE]} if less else {})
        for _, row in table.iterrows()
    ]
    return Section("Repeats", about, table=rows, meanings=MEANINGS)


def chosen(run: Described) -> Section:
    """What inner folds chose in each fold, and by what."""
    rows = []
    for fold, choice in run.chosen.items():
        after = sorted(((score, name) for name, score in choice.scores.items() if name != choice.name), reverse=True)
        below = number(choice.scores[choice.name] - after[0][0], ".3f")
        score = number(choice.scores[choice.name], ".3f")
        rows.append(
            {"fold": fold, "chosen": choice.name, "its score": score, "the next": after[0][1], "lies below by": below}
        )
    about = ["Scores are AUCs in inner folds of the training participants, without intervals; run.json has all."]
    return Section("What was chosen where", about, table=rows)


def beside_baselines(table: pd.DataFrame, model: str) -> Section:
    """The AUC of the verdict and its difference, then the pooled AUC and the accuracy."""
    others = int((table[ROLE] == OTHER).sum())
    about = texts.paragraphs("beside_baselines", others=others, ceiling=RULE in set(table["baseline"]))
    area = headline(table)
    compared = dict.fromkeys((area, f"{MINUS}{area}", "auc", "accuracy"))
    metrics = [name for name in compared if set(columns_of(name)) <= set(table)]
    rows = [
        {"classifier": model if row["baseline"] == MODEL else row["baseline"] + f" ({NAMED})" * (row[ROLE] == NAMED)}
        | {spelled(name): Estimate.in_row(row, name).text() for name in metrics}
        for _, row in table.iterrows()
    ]
    return Section("The model beside its baselines", about, table=rows, open=True, meanings=MEANINGS)


def beside_motion(table: pd.DataFrame) -> Section:
    """The rows of `confounds.csv` that there are, and what each means."""
    names = {
        "partial": "partial correlation of output and diagnosis",
        "correlation": "correlation of output and head motion within sites",
        "auc_sites": "AUC within sites, of those who moved less",
        "auc": "AUC, of those who moved less",
    }
    rows = [
        {"measure": names.get(row["measure"], row["measure"]), "value": Estimate.in_row(row).text()}
        | {"p": number(row["p"], ".2g")}
        for _, row in table.iterrows()
    ]
    title = "Is it motion?" if "correlation" in set(table["measure"]) else "Is it the covariates?"
    about = texts.paragraphs("of_motion", names=set(table["measure"]))
    return Section(title, about, table=rows, open=True, meanings=MEANINGS)


def confusion(predictions: Predictions, tables: Tables) -> Section:
    """True classes by predicted ones. Of repeats the counts are of mean probabilities, which have no interval."""
    about = [
        f"A probability of {THRESHOLD:g} or more counts as autism. Beside the count: the share of the row, "
        f"with its {INTERVAL} over participants."
    ]
    scores, why = (tables.scores, NO_INTERVAL) if tables.run.repeats <= 1 else ({}, "no interval: means over repeats")
    counted = drawings.confusion_rows(predictions, scores, why)
    rows = [
        {"diagnosis": name} | {f"predicted {to}": cell for to, cell in zip(CLASSES, cells, strict=True)}
        for name, cells in zip(CLASSES, counted, strict=True)
    ]
    return Section("Confusion matrix", about, table=rows)


def by_fold(tables: Tables) -> Section:
    """The scores in each fold, if it tests TELLING people of each class."""
    sizes = tables.predictions.groupby("fold")["subject"].nunique()
    people = tables.labelled.groupby(["fold", "label"])["subject"].nunique().unstack(fill_value=0)
    enough = (people >= TELLING).sum(axis=1) == len(CLASSES)
    rows = [
        {"fold": fold, "subjects": counted(sizes.get(fold, math.nan))}
        | {spelled(name): scores[name].text() if enough.get(fold) else "-" for name in OF_FOLDS if name in scores}
        for fold, scores in tables.folds.items()
    ]
    about = f"{FEW_PEOPLE} More metrics are in metrics.json. Each interval holds for its fold alone, one of several."
    return Section("Folds", [about], meanings=MEANINGS, **few_apart(rows))


def scores_of(row: pd.Series, named: Mapping[str, str]) -> Row:
    """The people of a group and its scores by their names; a dash if fewer than TELLING of a class decide one."""
    people = {name: row["subjects"] if name == "accuracy" else min(row["autism"], row["control"]) for name in named}
    return {name: counted(row[name]) for name in SITE_COUNTS} | {
        label: Estimate.in_row(row, name).text() if people[name] >= TELLING else "-" for name, label in named.items()
    }


def by_site(table: pd.DataFrame, small_sites: bool) -> Section:
    """The score in each row of `sites.csv`."""
    rows = [
        {"site": row["site"] or "-"} | scores_of(row, {"auc": "AUC", "accuracy": "accuracy"})
        for _, row in table.iterrows()
    ]
    about = texts.paragraphs("sites", few=FEW_PEOPLE, small_sites=small_sites)
    return Section("Sites", about, meanings=MEANINGS, **few_apart(rows))


def by_group(table: pd.DataFrame, small_sites: bool) -> Section:
    """The score in each row of `groups.csv`."""
    areas = (
        ["auc_sites"] if small_sites else [name for name in ("auc_sites", "auc") if set(columns_of(name)) <= set(table)]
    )
    rows = [
        {"group": f"{row['kind']}: {row['group']}"} | scores_of(row, {name: spelled(name) for name in areas})
        for _, row in table.iterrows()
    ]
    about = texts.paragraphs(
        "groups", count=len(table), small_sites=small_sites, of_motion=(table["kind"] == "head motion").any()
    )
    return Section("Head motion, sex and age", about, meanings=MEANINGS, **few_apart(rows))


def of_probabilities(tables: Tables) -> Iterator[Section]:
    """Whether probabilities mean what they say, before and after calibration; then the sets of labels."""
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
    yield Section("Probabilities", about, drawn, agreement(table), meanings=MEANINGS)
    count = table.loc[table["group"] != "", "group"].nunique()
    about = texts.paragraphs("sets", held=[held(table, name) for name in reversed(CLASSES)], run=run, count=count)
    yield Section("Sets of labels", about, table=coverage(table, f"all {len(people)}"))


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
            {"participants": group or everybody}
            | {f"{name}: held": of_people(row) for name, row in held.items()}
            | {told: number(value, ".0%") for told, value in sizes.items()}
        )
    return rows


def of_people(row: pd.Series) -> str:
    """`81% of 70 (70% to 88%)`; a dash of fewer than TELLING people."""
    if row["participants"] < TELLING:
        return "-"
    return f"{row['value']:.0%} of {row['people']:.0f} ({Estimate.in_row(row).ends('.0%')})"


@dataclass(frozen=True)
class Held:
    """The share of people of one class whose sets hold their label, at both levels; the lowest and the highest of
    groups with ten of them or more (None without two such groups). Those of a family count as one."""

    name: str
    share: Estimate
    of_other_level: Estimate
    ends: tuple[float, float] | None


def held(table: pd.DataFrame, name: str) -> Held:
    share, other = (
        Estimate.in_row(one(table, measure=COVERAGE, diagnosis=name, group="", level=level))
        for level in (LEVEL, OTHER_LEVEL)
    )
    own = table[(table["measure"] == COVERAGE) & (table["diagnosis"] == name) & (table["level"] == LEVEL)]
    large = own[(own["group"] != "") & (own[UNITS] >= MIN_PER_CLASS)]
    ends = (large["value"].min(), large["value"].max()) if len(large) > 1 else None
    return Held(name, share, other, ends)
