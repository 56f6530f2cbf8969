"""Tables of a test -> the sections of its page that hold scores, probabilities and participants."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from data.base.effort import EFFORT
from data.base.terminal import format_participants
from data.cohorts.records import CLASS_NAMES, MIN_DESCRIBED_PEOPLE
from data.cohorts.rows import find_recorded_sites
from data.pages.page import CellByHeading, Section
from utils.figures import number
from utils.report import drawings
from utils.report.adjusted import adjusted_section
from utils.report.columns import COLUMNS, NAME, Column, meanings, rows_of, section, spelled
from utils.report.tables import BOTH, COVERAGE, KINDS, LABELS, MINUS, NONE, ONE, PEOPLE, SITE, Count, Described, Tables
from utils.scores.calibration import LEVELS, MIN_GROUPS
from utils.scores.metrics import Predictions, headline
from utils.scores.results import (
    DETECTABLE,
    GIVEN_DIAGNOSIS,
    HEADLINES,
    NAMED,
    NO_INTERVAL,
    OTHER,
    OUT,
    PRESPECIFIED_BASELINE,
    ROLE,
    SITE_COUNTS,
    THRESHOLD,
    Estimate,
    columns_of,
    counted,
)

AUTISM, CONTROL = reversed(CLASS_NAMES)
OF_FOLDS = ("auc", "accuracy", "balanced_accuracy", "brier")  # metrics.json has all
LEVEL = LEVELS[0]  # of the sets that the page shows
SIZES = {BOTH: "both labels", ONE: "one label", NONE: "no label"}
MOST_MAPS = 10  # measures of maps on the page, those that lie farthest away
MOST_PEOPLE = 50  # of those out of distribution on the page
FEW = {
    "participants": f"< {MIN_DESCRIBED_PEOPLE}: so few are not counted. "
    f"A dash in their row: fewer than {MIN_DESCRIBED_PEOPLE} of a class."
}
ALONE = "Each interval holds for its {0} alone. Of so many {0}s, some are low or high by chance."
OF_PAGE = COLUMNS | {  # columns of one table each
    "metric": Column("metric", NAME),
    "measure": Column("measure"),
    "training": Column("in the training", ".3f"),
}
CONFOUNDS = {
    "partial": "partial correlation of output and diagnosis beside the covariates",
    GIVEN_DIAGNOSIS: "correlation of output and {covariate}, given diagnosis and site",
    "auc_sites": "AUC within sites, of those who moved less",
    "auc": "AUC, of those who moved less",
    "masked": "{area}, missingness masked",
    "minus_masked": "{area}, minus that with missingness masked",
}


def scored(tables: Tables) -> Iterator[Section]:
    """The sections that need labels."""
    known, run = tables.labelled, tables.run
    predictions = Predictions.of(known)
    about = f"{len(known)} records of {format_participants(known['subject'].nunique())} with a known diagnosis."
    scores = pd.DataFrame([{"metric": name, **score.columns()} for name, score in tables.scores.items()])
    yield section("Scores", scores, ["metric", "value"], about, OF_PAGE, open=True)
    if tables.baselines is not None:
        yield baselines(tables.baselines)
    if tables.confounds is not None:
        yield confounds(tables, tables.confounds)
    if tables.adjusted is not None:
        of = run.conclusion.covariates if run.conclusion else None
        about = "What is not in the test, and covariates that are measured with error, may explain the result."
        yield adjusted_section(tables.adjusted, f"No test: {of.reason}." if of and of.reason else about)
    if tables.repeats is not None:
        yield repeats(tables.repeats)
    if run.chosen:
        yield chosen(run)
    if known["label"].nunique() == len(CLASS_NAMES):
        about = "Of all participants together; the verdict rests on the AUC above."
        if run.repeats > 1:
            about = "Of the mean probabilities over repeats; the AUC beside it is the mean of those of the repeats."
        yield Section("ROC curve", [about], drawings.roc(predictions, tables.scores))
    yield from of_probabilities(tables)
    yield confusion(predictions, tables)
    if tables.folds:
        yield by_fold(tables)
    if tables.sites is not None and find_recorded_sites(tables.sites["site"]):
        notes = {"AUC": "Of participants of the same site and fold: sites are small."} if run.small_sites else {}
        rows = groups(tables.sites, ["site"], ["auc", "accuracy"], COLUMNS | {"auc": Column("AUC", ".3f")})
        yield Section("Sites", [ALONE.format("site")], notes=notes, meanings=FEW, **few_apart(rows))
    if tables.groups is not None:
        yield by_group(tables.groups, run.small_sites)


def few_apart(rows: list[CellByHeading]) -> dict:
    """Rows as the table of a section; those that hold nothing but counts are folded, if others hold more."""
    labels = {COLUMNS[name].label for name in SITE_COUNTS}
    full = [row for row in rows if any(map(str.isdigit, "".join(row[of] for of in [*row][1:] if of not in labels)))]
    few = [row for row in rows if row not in full]
    if not full or not few:
        return {"table": rows}
    return {"table": full, "rest": (f"{len(few)} more, of whom only participants are counted", few)}


def baselines(table: pd.DataFrame) -> Section:
    """The AUC of the verdict, the model's minus it, then the pooled AUC and the accuracy of each baseline."""
    area, others = headline(table), int((table[ROLE] == OTHER).sum())
    names = dict.fromkeys((area, f"{MINUS}{area}", DETECTABLE, "auc", "accuracy"))
    table = prespecified_first(table)
    marked = table["baseline"] + table[ROLE].map({NAMED: f" ({NAMED})"}).fillna("")
    wide = (
        f"The interval of the {NAMED} baseline holds for itself, those of the {others} others (without the majority) "
        "for all together."
    )
    notes = {spelled(f"{MINUS}{area}"): wide} if others > 1 else {}
    about = "Plain classifiers of the same participants, trained on the same others."
    shown = ["baseline", *(name for name in names if name in table)]
    return section("Baselines", table.assign(baseline=marked), shown, about, open=True, notes=notes)


def prespecified_first(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `baselines.csv` as a page has them."""
    return table.sort_values(ROLE, key=lambda role: role != NAMED, kind="stable")


def confounds(tables: Tables, table: pd.DataFrame) -> Section:
    """Whether the output says more than the covariates, head motion, and what is missing."""
    area = HEADLINES[headline(tables.scores)]
    table = table[table["measure"].isin([*CONFOUNDS])]  # others are in the footnotes
    names = [
        CONFOUNDS[measure].format(area=area, covariate=covariate)
        for measure, covariate in zip(table["measure"], table["covariate"], strict=True)
    ]
    tested = tables.run.conclusion.covariates if tables.run.conclusion else None
    limits = f" {tested.limits}" if tested and tested.limits else ""
    left_out = ""
    if tested and tested.left_out:
        left_out = f" {tested.left_out} participants, at sites of one class, are not in it."
    half = "Half of the participants of each site, whatever their AUC."
    tests = int((table["measure"] == GIVEN_DIAGNOSIS).sum())
    meanings = {
        "partial": "If its interval lies above 0, the output carries more than the covariates, as far as these are "
        f"known and measured without error.{limits}{left_out}",
        GIVEN_DIAGNOSIS: "If p is small, the output follows this, or what goes with it, beyond what the diagnosis "
        f"explains. p is two-sided and not corrected for the number of {tests} tests.",
        "auc_sites": half,
        "auc": half,
        "masked": "At the test, what marks missing values, and which test measured the IQ, was set for everybody "
        "to what most training participants have.",
        "minus_masked": "If its interval lies above 0, some of the score is due to how records were kept.",
    }
    first_row: dict[str, str] = {}  # of each measure
    for measure, name in zip(table["measure"], names, strict=True):
        first_row.setdefault(measure, name)
    notes = {name: meanings[measure] for measure, name in first_row.items()}
    about = "What the score may owe to covariates, to head motion and to how records were kept."
    shown = ["measure", "value", "p"]
    return section("Confounds", table.assign(measure=names), shown, about, OF_PAGE, open=True, notes=notes)


def repeats(table: pd.DataFrame) -> Section:
    """The scores of each repeat, and how far apart they lie."""
    area = headline(table)
    shown = [name for name in dict.fromkeys((area, f"{MINUS}{area}", *OF_FOLDS)) if name in table]
    names = ["repeat", "seed", *shown, *({PRESPECIFIED_BASELINE} & set(table))]
    spread = table[area].std()
    notes = {spelled(area): f"SD over repeats {spread:.3f}: no interval over participants."} if pd.notna(spread) else {}
    about = f"Report the mean: the best of {len(table)} repeats is picked, and so too good."
    return section("Repeats", table, names, about, notes=notes)


def chosen(run: Described) -> Section:
    """What inner folds chose in each fold, and by what."""
    rows = []
    for fold, choice in run.chosen.items():
        others = [(score, name) for name, score in choice.scores.items() if name != choice.name]
        best, (second, name) = choice.scores[choice.name], max(others)
        told = {"its score": number(best, ".3f"), "the next": name, "lies below by": number(best - second, ".3f")}
        rows.append({"fold": fold, "chosen": choice.name} | told)
    about = "Scores are AUCs in inner folds of the training participants, without intervals; run.json has all."
    return Section("What was chosen where", [about], table=rows)


def confusion(predictions: Predictions, tables: Tables) -> Section:
    """True classes by predicted ones. Of repeats the counts are of mean probabilities, which have no interval."""
    scores, why = (tables.scores, NO_INTERVAL) if tables.run.repeats <= 1 else ({}, "no interval: means over repeats")
    rows = [
        {"diagnosis": name} | {f"predicted {to}": cell for to, cell in zip(CLASS_NAMES, cells, strict=True)}
        for name, cells in zip(CLASS_NAMES, drawings.confusion_rows(predictions, scores, why), strict=True)
    ]
    about = f"A probability of {THRESHOLD:g} or more counts as autism; shares are of the row."
    return Section("Confusion matrix", [about], table=rows)


def by_fold(tables: Tables) -> Section:
    """The scores in each fold, if it tests TELLING participants of each class."""
    sizes = tables.predictions.groupby("fold")["subject"].nunique()
    people = tables.labelled.groupby(["fold", "label"])["subject"].nunique().unstack(fill_value=0)
    enough = (people >= MIN_DESCRIBED_PEOPLE).sum(axis=1) == len(CLASS_NAMES)
    rows = [
        {"fold": fold, "participants": counted(sizes.get(fold, math.nan))}
        | {
            "AUC" if name == "auc" else spelled(name): scores[name].text() if enough.get(fold) else "-"
            for name in OF_FOLDS
            if name in scores
        }
        for fold, scores in tables.folds.items()
    ]
    about = (
        f"Of so many folds some score low by chance; a dash: fewer than {MIN_DESCRIBED_PEOPLE} participants of a class."
    )
    return Section("Folds", [about], **few_apart(rows))


def groups(
    table: pd.DataFrame, names: list[str], scores: list[str], columns: Mapping[str, Column] = COLUMNS
) -> list[CellByHeading]:
    """A row a group: its participants and its scores; a dash where fewer than TELLING of a class decide one."""
    smaller = table[["autism", "control"]].min(axis=1)
    known = table.copy()
    for name in scores:
        few = (table["subjects"] if name == "accuracy" else smaller) < MIN_DESCRIBED_PEOPLE
        known.loc[few, columns_of(name)] = math.nan
    return rows_of(known, [*names, *SITE_COUNTS, *scores], columns)


def by_group(table: pd.DataFrame, small_sites: bool) -> Section:
    """The score in each row of `groups.csv`."""
    areas = [name for name in ("auc_sites", "auc") if set(columns_of(name)) <= set(table)]
    shown = ["auc_sites"] if small_sites else areas
    rows = groups(table.assign(group=table["kind"] + ": " + table["group"]), ["group"], shown)
    notes = {spelled("auc_sites"): "Only those of the same site and fold are compared."} if small_sites else {}
    if not (table["kind"] == "head motion").any():
        notes[""] = "Head motion is unknown."
    about = (
        "No difference between groups is tested, and one of so many may differ by chance. Intervals that overlap do "
        "not show that groups are alike."
    )
    return Section("Head motion, sex and age", [about], notes=notes, meanings=FEW, **few_apart(rows))


def of_probabilities(tables: Tables) -> Iterator[Section]:
    """Whether probabilities mean what they say, before and after calibration; then the sets of labels."""
    people, table = tables.probabilities, tables.calibration
    if people is None or table is None:
        known = tables.labelled
        drawn = drawings.calibrated(known["label"].to_numpy(), {"as predicted": known["probability"].to_numpy()})
        few = f"that takes --folds, and {EFFORT.calibrate_from} participants of each class outside of each fold"
        yield Section("Probabilities", [f"They are not calibrated here: {few}."], drawn)
        return
    label, share = people["label"].to_numpy(), people["label"].mean()
    drawn = drawings.calibrated(label, {name: people[of].to_numpy() for name, of in KINDS.items()})
    wide = table[table["measure"].isin(["slope", "intercept", "brier"])]
    rows = [
        {"measure": spelled(measure)} | {of["probabilities"]: Estimate.in_row(of).text() for _, of in part.iterrows()}
        for measure, part in wide.groupby("measure", sort=False)
    ]
    about = f"Calibrated ones hold where autism is as common as here, {share:.0%}; elsewhere their odds move with it."
    how = (
        "By Platt scaling of the predictions of all other folds (Platt 1999); of each participant in probabilities.csv."
    )
    yield Section("Probabilities", [about], drawn, rows, meanings=meanings(), notes={"calibrated": how})
    yield sets(table, f"all {len(people)}")


def sets(table: pd.DataFrame, everybody: str) -> Section:
    """How many sets hold the label, by diagnosis, and how many labels they have: of all participants and of groups."""
    of_level, rows = table[table["level"] == LEVEL], []
    for group in of_level["group"].unique():
        here = of_level[of_level["group"] == group].set_index(["measure", "diagnosis"])
        held = {name: here.loc[COVERAGE, name] for name in (AUTISM, CONTROL)}
        sizes = {told: here.loc[size, ""]["value"] for size, told in SIZES.items()}
        rows.append(
            {"participants": group or everybody}
            | {f"{name}: held": of_people(row) for name, row in held.items()}
            | {told: number(value, ".0%") for told, value in sizes.items()}
        )
    about = f"A set of labels is made to hold the diagnosis of {LEVEL:.0%} of each class (cross-conformal; Vovk 2015)."
    promise = "That is promised for participants drawn like these from all such groups together, and for no single one."
    if len(rows) <= MIN_GROUPS:  # of which the first is of everybody
        promise = f"With so few groups that is not promised for others: {MIN_GROUPS} are needed."
    check = "Before you rely on sets at a site, count there how many hold the diagnosis."
    return Section("Sets of labels", [about], table=rows, notes={"": f"{promise} {check}"})


def of_people(row: pd.Series) -> str:
    """`81% of 70 (70% to 88%)`; a dash of fewer than TELLING participants."""
    if row["participants"] < MIN_DESCRIBED_PEOPLE:
        return "-"
    return f"{row['value']:.0%} of {row['participants']:.0f} ({Estimate.in_row(row).ends('.0%')})"


def flow(tables: Tables) -> Section:
    """From the participants who were found to those who have a score: a row a step, by diagnosis where known."""
    run = tables.run
    left, everybody = sum(run.left_out.values()), total(run.subjects)
    rows = [step("found", left + sum(everybody.values()))] if left else []
    rows += [step(f"left out: {reason}", count) for reason, count in run.left_out.items()]
    rows.append(step("in the cohort", **everybody))
    sizes = Counter[str]()
    for count in run.subjects:
        sizes[count.split] += sum(total([count]).values())
    if run.folds and not run.fold:
        size = " to ".join(dict.fromkeys(map(counted, (min(sizes.values()), max(sizes.values())))))
        folds = f"in {len(sizes)} folds of {size}, " if len(sizes) > 1 else "in folds, "
        rows.append(step(f"tested {folds}each by a model trained on the others", **everybody))
    else:
        names = {"train": "trained on", "test": "tested"}
        of_split = {split: [count for count in run.subjects if count.split == split] for split in sizes}
        rows += [step(names.get(split, split), **total(counts)) for split, counts in of_split.items()]
    tested = tables.labelled.drop_duplicates("subject")["label"]
    rows.append(
        step("tested, with a known diagnosis", autism=int((tested == 1).sum()), control=int((tested == 0).sum()))
    )
    about = (
        "Who was left out counts once, by the first reason that held."
        if left
        else "Nobody is recorded as left out; who was scanned and is in no table is not known here."
    )
    return Section("Flow of participants", [about], table=rows)


def step(name: str, people: int | None = None, **of_label: int) -> CellByHeading:
    counts = {"participants": sum(of_label.values()) if people is None else people, **of_label}
    return {"step": name} | {key: str(counts.get(key, "")) for key in ("participants", *LABELS)}


def total(counts: Iterable[Count]) -> dict[str, int]:
    listed = list(counts)
    return {label: sum(getattr(count, label) for count in listed) for label in LABELS}


def by_diagnosis(table: pd.DataFrame) -> Section:
    """Table 1: a row for each variable and for each category of one."""
    rows = []
    for _, row in table[table[SITE] == ""].iterrows():
        name = row["variable"]
        missing = [counted(row[f"{label}_missing"]) for label in (AUTISM, CONTROL)]
        told = "" if row["category"] or name in (PEOPLE, SITE) else ", ".join(missing)
        rows.append(
            {"characteristic": f"{name}: {row['category']}" if row["category"] else name}
            | {label: cell_of(row, label) for label in (AUTISM, CONTROL)}
            | {f"missing: {AUTISM}, {CONTROL}": told, "test": row["test"]}
            | {"p": p_value(row["p"]), "p of ranks": p_value(row["p_ranks"])}
        )
    tests = int(table[["p", "p_ranks"]].notna().sum().sum())
    about = "Where the classes differ, a network can tell them by that difference."
    notes = {
        "characteristic": "Numbers: mean (standard deviation) [median]; categories: the share of those known.",
        "p": f"Two-sided, not corrected for the number of {tests} tests; of ranks: the Mann-Whitney test.",
    }
    return Section("Table 1: participants by diagnosis", [about], table=rows, notes=notes)


def cell_of(row: pd.Series, label: str) -> str:
    """`17.5 (9.0) [14.5]` of numbers, a share of a category, the number of participants."""
    if row["variable"] == PEOPLE:
        return number(row[f"{label}_known"], ".0f")
    if row["category"]:
        return number(row[f"{label}_share"], ".0%")
    mean, spread, median = (row[f"{label}_{name}"] for name in ("mean", "sd", "median"))
    return f"{significant(mean)} ({significant(spread)}) [{significant(median)}]" if math.isfinite(mean) else ""


def significant(value: float) -> str:
    """Three significant digits, all of those before the point; a dash if undefined."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if math.isfinite(value) and value else 0
    return number(value, f".{min(digits, 6)}f")


def p_value(value: float) -> str:
    """Two digits; nothing where no test was done."""
    return "" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def external(tables: Tables, table: pd.DataFrame) -> Iterator[Section]:
    """The sections of a test of new participants: their scores and calibration beside those of the training, how they
    differ from the training participants, and who is out of distribution."""
    of_kind = {str(kind): of for kind, of in table.groupby("kind", sort=False)}
    if len(scores := table[table["kind"].isin(["score", "calibration", "calibrated"])]):
        yield beside_training(scores)
    maps = of_kind.get("shift of maps", table[:0])
    farthest = maps.loc[maps["value"].abs().sort_values(ascending=False).index[:MOST_MAPS]]
    if len(shifts := pd.concat([of_kind.get("shift", table[:0]), farthest])):
        title = "Differences from the training participants"
        about = "In standard deviations of these. The intervals are of the tested participants only; nothing is tested."
        notes = {"measure": f"Of measures of maps the {MOST_MAPS} that differ most; external.csv has all."}
        yield section(title, shifts, ["measure", "value"], about, OF_PAGE, notes=notes)
    if tables.out_of_distribution is not None and OUT in of_kind:
        yield out_of_distribution(tables.out_of_distribution, of_kind[OUT].iloc[0])


def beside_training(table: pd.DataFrame) -> Section:
    """Scores and calibration of new participants beside those of the test on folds that goes with the network."""
    known = "training" in table and table["training"].notna().any()
    about, shown = "No score of the training is known.", ["measure", "value"]
    if known:
        first = table[table["training"].notna()].iloc[0]
        people = f"{first['training_people']:.0f} participants"
        about = f"In the training: {people} {first['how']}, none seen by the model that tested them."
        shown.append("training")
    after = table["kind"].map({"calibrated": ", of calibrated probabilities"}).fillna("")
    rows = table.assign(measure=table["measure"].map(spelled) + after).drop_duplicates("measure")
    lower = "A lower score than in the training can come from other participants, scanners, or a score too good there."
    return section("External validity", rows, shown, about, OF_PAGE, open=True, notes={"value": lower} if known else {})


def out_of_distribution(table: pd.DataFrame, share: pd.Series) -> Section:
    """Who is out of distribution, and why."""
    count, every = len(table), f"{share['participants']:.0f}"
    little = ". The training's scores say little of them." if count else "."
    about = f"{count} of {every} records, {Estimate.in_row(share).text('.0%')}{little}"
    notes = {"": "Nearly one in 20 of those like the training participants is called so, too."}
    if count > MOST_PEOPLE:
        notes["file"] = f"The first {MOST_PEOPLE}; out_of_distribution.csv has all."
    rows = rows_of(table[:MOST_PEOPLE], ["file", "reasons"]) if count else None
    return Section("Out of distribution", [about], table=rows, notes=notes, open=True)
