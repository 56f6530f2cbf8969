"""Saved tables of a test -> what the page says of people: who was left out, trained and tested; Table 1; how tested
people differ from those of the training."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import pandas as pd

from data.cohorts.records import CLASSES, TELLING
from data.pages.page import Row, Section
from utils.figures import number
from utils.report import texts
from utils.report.tables import LABELS, PEOPLE, SITE, Count, Described, Tables
from utils.report.texts import spelled
from utils.scores.results import Estimate, counted

AUTISM, CONTROL = reversed(CLASSES)
MOST_MAPS = 10  # measures of maps on the page, those that lie farthest away
MOST_PEOPLE = 50  # of unlike ones on the page
CALIBRATION = {"in_the_large": "calibration in the large", "slope": "calibration slope"}


def flow(tables: Tables) -> list[Row]:
    """From the people who were found to those who have a score: a row a step, with their diagnoses where known."""
    run = tables.run
    left, everybody = sum(run.left_out.values()), total(run.subjects)
    rows = [step("found", left + sum(everybody.values())) if left else {}]
    rows += [step(f"left out: {reason}", count) for reason, count in run.left_out.items()]
    rows.append(step("in the cohort", **everybody))
    sizes = Counter[str]()
    for count in run.subjects:
        sizes[count.split] += sum(total([count]).values())
    if "fold" in tables.predictions:
        size = " to ".join(dict.fromkeys(map(counted, (min(sizes.values()), max(sizes.values())))))
        rows.append(step(f"tested in {len(sizes)} folds of {size}, each by a model trained on the others", **everybody))
    else:
        names = {"train": "trained on", "test": "tested"}
        of_split = {split: [count for count in run.subjects if count.split == split] for split in sizes}
        rows += [step(names.get(split, split), **total(counts)) for split, counts in of_split.items()]
    tested = tables.labelled.drop_duplicates("subject")["label"]
    scored = {AUTISM: int((tested == 1).sum()), CONTROL: int((tested == 0).sum())}
    return [row for row in [*rows, step("tested, with a known diagnosis", **scored)] if row]


def step(name: str, people: int | None = None, **of_label: int) -> Row:
    counts = {"participants": sum(of_label.values()) if people is None else people, **of_label}
    return {"step": name} | {key: str(counts.get(key, "")) for key in ("participants", *LABELS)}


def total(counts: Iterable[Count]) -> dict[str, int]:
    listed = list(counts)
    return {label: sum(getattr(count, label) for count in listed) for label in LABELS}


def by_diagnosis(table: pd.DataFrame) -> list[Row]:
    """Table 1: a row for each variable and for each category of one."""
    rows = []
    for _, row in table[table[SITE] == ""].iterrows():
        name = row["variable"]
        cells = {label: cell_of(row, label) for label in (AUTISM, CONTROL)}
        missing = (
            ""
            if row["category"] or name in (PEOPLE, SITE)
            else ", ".join(counted(row[f"{label}_missing"]) for label in (AUTISM, CONTROL))
        )
        rows.append(
            {"characteristic": f"{name}: {row['category']}" if row["category"] else name}
            | cells
            | {f"missing: {AUTISM}, {CONTROL}": missing, "test": row["test"]}
            | {"p": p_value(row["p"]), "p of ranks": p_value(row["p_ranks"])}
        )
    return rows


def cell_of(row: pd.Series, label: str) -> str:
    """`17.5 (9.0) [14.5]` of numbers, a share of a category, the number of people."""
    if row["variable"] == PEOPLE:
        return number(row[f"{label}_known"], ".0f")
    if row["category"]:
        return number(row[f"{label}_share"], ".0%")
    mean, spread, median = (row[f"{label}_{name}"] for name in ("mean", "sd", "median"))
    return f"{significant(mean)} ({significant(spread)}) [{significant(median)}]" if math.isfinite(mean) else ""


def by_site(table: pd.DataFrame) -> list[Row]:
    """A row a site, by diagnosis: the means of numbers, and the share of the last of two categories. A dash stands for
    fewer than TELLING people. No rows for one site."""
    categories = table[table["category"] != ""].groupby("variable")["category"].unique()
    shown = {name: values[-1] for name, values in categories.items() if len(values) == 2}
    rows: dict[str, Row] = {}
    few: dict[str, bool] = {}
    for _, row in table[table[SITE] != ""].iterrows():
        name, category = row["variable"], row["category"]
        if not category:  # a variable's own row, before those of its categories
            few = {label: row[f"{label}_known"] < TELLING for label in (AUTISM, CONTROL)}
        if category != shown.get(name, "") and name != PEOPLE:
            continue
        pair = [
            counted(row[f"{label}_known"])
            if name == PEOPLE
            else "-"
            if few[label]
            else number(row[f"{label}_share"], ".0%")
            if category
            else significant(row[f"{label}_mean"])
            for label in (AUTISM, CONTROL)
        ]
        rows.setdefault(row[SITE], {"site": row[SITE]})[f"{name}: {category}" if category else name] = " / ".join(pair)
    return list(rows.values())


def significant(value: float) -> str:
    """Three significant digits, all of those before the point; a dash if undefined."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if math.isfinite(value) and value else 0
    return number(value, f".{min(digits, 6)}f")


def p_value(value: float) -> str:
    """Two digits; nothing where no test was done."""
    return "" if math.isnan(value) else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def cohort(run: Described) -> list[Row]:
    """Subjects by label: of each split or fold, then of each site. Sites of fewer than TELLING people are one row."""
    of_split, of_site = dict[str, list[Count]](), dict[str, list[Count]]()
    for count in run.subjects:
        of_split.setdefault(count.split, []).append(count)
        of_site.setdefault(f"site {count.site or '-'}", []).append(count)
    few = [site for site, counts in of_site.items() if sum(total(counts).values()) < TELLING]
    pooled = {
        f"sites of fewer than {TELLING} participants: {len(few)}": [one for site in few for one in of_site.pop(site)]
    }
    groups = of_split | of_site | (pooled if few else {})
    return [
        {"split, site": name} | {label: counted(people) for label, people in total(counts).items()}
        for name, counts in groups.items()
    ]


def beside_training(tables: Tables, table: pd.DataFrame) -> Iterator[Section]:
    """The sections of a test of new people: `external.csv` as a `table`, and who is unlike the training people."""
    unlike, by_checkpoint = tables.out_of_distribution, "--bundle" not in tables.run.command
    yield Section("External validity", about_external(table, by_checkpoint), table=external_scores(table) or None)
    if rows := shifts(table):
        yield Section(
            "How these participants differ from those of the training", texts.paragraphs("shifts"), table=rows
        )
    if unlike is not None:
        about = texts.paragraphs("unlike", count=len(unlike), shown=MOST_PEOPLE)
        who = [f"{row['file']}: {row['reasons']}." for _, row in unlike[:MOST_PEOPLE].iterrows()]
        yield Section("Participants unlike those of the training", [*about, *who])


def of_kind(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    return table[table["kind"] == kind].set_index("measure")


def about_external(table: pd.DataFrame, by_checkpoint: bool) -> list[str]:
    """What the scores, the calibration and the share of unlike people say. A checkpoint knows the scans and the IDs of
    who trained it; what a bundle does not know is a warning of the run."""
    scores, calibration = of_kind(table, "score"), of_kind(table, "calibration")
    known = scores[scores["training"].notna()] if "training" in scores else scores[:0]
    share = of_kind(table, "out of distribution")
    return texts.paragraphs(
        "external",
        compared=by_checkpoint,
        scores=len(scores),
        how=known["how"].iloc[0] if len(known) else "",
        people=int(known["training_people"].iloc[0]) if len(known) else 0,
        calibration={name: Estimate.in_row(row) for name, row in calibration.iterrows()},
        unlike=share.iloc[0] if len(share) else None,
    )


def external_scores(table: pd.DataFrame) -> list[Row]:
    """The scores of these people, those of the training beside them, and the calibration."""
    rows = []
    for name, row in of_kind(table, "score").iterrows():
        training = {"in the training": Estimate.in_row(row, "training").text()} if "training" in row else {}
        rows.append({"measure": spelled(str(name)), "these participants": Estimate.in_row(row).text()} | training)
    for kind, after in (("calibration", ""), ("calibrated", ", of calibrated probabilities")):
        for name, row in of_kind(table, kind).iterrows():
            about = f"{CALIBRATION[str(name)]}{after}"
            rows.append({"measure": about, "these participants": Estimate.in_row(row).text()})
    return rows


def shifts(table: pd.DataFrame) -> list[Row]:
    """How far these people lie from those of the training: in what is known of them, and the maps that do most."""
    maps = of_kind(table, "shift of maps")
    farthest = maps["value"].abs().sort_values(ascending=False).index[:MOST_MAPS]
    every = pd.concat([of_kind(table, "shift"), maps.loc[farthest]])
    return [
        {"measure": str(name), "difference in SD": Estimate.in_row(row).text(".2f")} for name, row in every.iterrows()
    ]
