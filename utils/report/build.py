"""The saved tables of a classifier's test -> `report.html`, one page that opens from disk without a network."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from data.base import files
from data.base.errors import InputError
from data.base.text import number
from data.cohorts.records import CLASSES
from utils.metrics import Predictions
from utils.report import drawings, templates, texts
from utils.report.tables import LABELS, MODEL, RULE, SITE_COUNTS, Count, Described, Tables, interval, read
from utils.report.templates import paragraphs
from utils.statistics import CONFIDENCE, THRESHOLD

PAGE = "report.html"
Row = dict[str, str]  # heading -> cell
SPELLED = {
    "auc": "AUC",
    "auc_sites": "AUC within sites, averaged",
    "auc_folds": "AUC within folds, averaged",
    "f_score": "F score",
    "brier": "Brier score",
    "model_minus_floor_auc": "AUC, model minus floor",
    "model_minus_floor_auc_folds": "the same, model minus floor",
}
COMPARED = ("auc", "model_minus_floor_auc", "auc_sites", "accuracy")  # of floors; floors.csv has all
COMPARED_IN_FOLDS = ("auc_folds", "model_minus_floor_auc_folds", "auc")
OF_FOLDS = ("auc", "accuracy", "balanced_accuracy", "brier")  # metrics.json has all


@dataclass(frozen=True)
class Section:
    """One part of the page; None stands for a part that it does not have. Raises InputError if a part is empty."""

    title: str
    texts: list[str] | None = None
    figure: Markup | None = None
    table: list[Row] | None = None
    facts: Row | None = None
    command: str | None = None
    kind: str = ""

    def __post_init__(self) -> None:
        parts = [part for part in (self.texts, self.figure, self.table, self.facts, self.command) if part is not None]
        if not parts or not all(parts) or not all(map(str.strip, self.texts or ["-"])):
            raise InputError(f"The report's section '{self.title}' would be empty; test again.")


def write(folder: Path) -> Path:
    """Builds the page from the tables in `folder`. Raises InputError for a table that is missing, damaged or empty."""
    page = render(read(folder))
    with files.replacing(folder / PAGE) as file:
        file.write(page)
    return folder / PAGE


def render(tables: Tables) -> str:
    """The page."""
    return templates.page(run=tables.run, sections=list(sections(tables)))


def sections(tables: Tables) -> Iterator[Section]:
    """The sections that apply, in the order of the page."""
    run = tables.run
    yield Section("What may be concluded", [run.conclusion, *([run.motion] if run.motion else [])], kind="conclusion")
    if found := texts.warnings(tables):
        yield Section("Warnings", found, kind="warning")
    if tables.scores:
        yield from scored(tables)
    if tables.predictions["label"].isna().any():
        yield unlabelled(tables)
    yield losses(tables.training)
    yield Section("The cohort", table=cohort(run))
    command, digests = texts.quoted(run.command), of_folds(run)
    yield Section("How to repeat it", table=digests, facts=provenance(run), command=command)
    yield Section("Methods, to paste", [texts.methods(tables)])
    yield Section("Intended use", paragraphs("intended"))


def scored(tables: Tables) -> Iterator[Section]:
    """The sections that need labels."""
    known, run = tables.labelled, tables.run
    predictions = Predictions.of(known)
    rows = [
        {"metric": spelled(name), "value": number(value, ".3f"), f"{CONFIDENCE:.0%} interval": ends(low, high)}
        for name, (value, low, high) in ((name, score.numbers) for name, score in tables.scores.items())
    ]
    averaged = {"auc_sites", "auc_folds"} & tables.scores.keys()
    about = paragraphs("scores", records=len(known), subjects=known["subject"].nunique(), averaged=averaged)
    yield Section("Scores", about, table=rows)
    if tables.floors is not None:
        drawn = drawings.forest(tables.floors, run.model) if tables.floors["auc"].notna().any() else None
        of_floors = paragraphs("floors", has_rule=RULE in set(tables.floors["floor"]))
        yield Section("The model beside its floors", of_floors, drawn, floors(tables.floors, run.model))
    if known["label"].nunique() == len(CLASSES):
        yield Section("ROC curve", paragraphs("roc"), drawings.roc(predictions, run.seed))
    drawn = drawings.calibrated(predictions.label, predictions.probability)
    yield Section("Calibration", paragraphs("calibration"), drawn)
    yield Section("Confusion matrix", paragraphs("confusion"), table=confusion(known))
    if tables.folds:
        yield Section("Folds", paragraphs("folds"), table=by_fold(tables))
    if tables.sites is not None:
        yield Section("Sites", table=by_site(tables.sites))


def unlabelled(tables: Tables) -> Section:
    """The predictions where there is nothing to compare them with."""
    label, probability = tables.predictions["label"], tables.predictions["probability"].to_numpy()
    about = paragraphs("unlabelled", unknown=int(label.isna().sum()), records=len(label))
    return Section("Predicted probabilities", about, drawings.distribution(probability))


def losses(training: pd.DataFrame | None) -> Section:
    """Loss curves, or why there are none. Raises InputError for a history without a number."""
    if training is None:
        return Section("Training", paragraphs("no_history"))
    return Section("Training", figure=drawings.losses(training) or Markup())


def spelled(name: str) -> str:
    """The name of a metric on the page."""
    return SPELLED.get(name, name.replace("_", " "))


def shown(numbers: Iterable[float]) -> str:
    """`0.610 (0.500 to 0.720)` of a value and its interval; a dash where undefined."""
    value, low, high = numbers
    text, its_ends = number(value, ".3f"), ends(low, high)
    return text if "-" in (text, its_ends) else f"{text} ({its_ends})"


def ends(low: float, high: float) -> str:
    """`0.500 to 0.720`; a dash where undefined."""
    return f"{low:.3f} to {high:.3f}" if math.isfinite(low) and math.isfinite(high) else "-"


def floors(table: pd.DataFrame, model: str) -> list[Row]:
    """The metrics of `COMPARED`, or of folds, that there are."""
    compared = COMPARED_IN_FOLDS if "auc_folds" in table else COMPARED
    metrics = [name for name in compared if set(interval(name)) <= set(table)]
    return [
        {"classifier": model if row["floor"] == MODEL else row["floor"]}
        | {spelled(name): shown(row[list(interval(name))]) for name in metrics}
        for _, row in table.iterrows()
    ]


def confusion(known: pd.DataFrame) -> list[Row]:
    """True classes by predicted ones."""
    rows = []
    for label, name in enumerate(CLASSES):
        predicted = known["probability"][known["label"] == label] >= THRESHOLD
        counts = (int((~predicted).sum()), int(predicted.sum()))
        cells = [f"{count} ({number(count / max(sum(counts), 1), '.0%')})" for count in counts]
        rows.append({"diagnosis": name} | {f"predicted {to}": cell for to, cell in zip(CLASSES, cells, strict=True)})
    return rows


def by_fold(tables: Tables) -> list[Row]:
    """The scores of each fold."""
    sizes = tables.predictions.groupby("fold")["subject"].nunique()
    return [
        {"fold": fold, "subjects": str(sizes.get(fold, "-"))}
        | {spelled(name): shown(scores[name].numbers) for name in OF_FOLDS if name in scores}
        for fold, scores in tables.folds.items()
    ]


def by_site(table: pd.DataFrame) -> list[Row]:
    """The scores of each site."""
    return [
        {"site": row["site"] or "-"}
        | {name: number(row[name], ".0f") for name in SITE_COUNTS}
        | {spelled(name): shown(row[list(interval(name))]) for name in ("auc", "accuracy")}
        for _, row in table.iterrows()
    ]


def cohort(run: Described) -> list[Row]:
    """Subjects by split, site and label; each split of several sites in all first."""
    rows = []
    for split in dict.fromkeys(count.split for count in run.subjects):
        counts = [count for count in run.subjects if count.split == split]
        total = (sum(getattr(count, label) for count in counts) for label in LABELS)
        listed = [Count(split, f"all {len(counts)} sites", *total), *counts] if len(counts) > 1 else counts
        rows += [
            {"split, site": f"{split}, {count.site or '-'}"} | {name: str(getattr(count, name)) for name in LABELS}
            for count in listed
        ]
    return rows


def of_folds(run: Described) -> list[Row] | None:
    """The checkpoints of pooled folds; None for a single model."""
    if not isinstance(run.checkpoint_sha256, dict):
        return None
    return [{"fold": fold, "checkpoint, SHA-256": digest} for fold, digest in run.checkpoint_sha256.items()]


def provenance(run: Described) -> Row:
    """When, where and with what versions the test was done."""
    digest = run.checkpoint_sha256
    return {
        "started": run.started,
        "took": f"{run.wall_time_s:,.0f} s",
        "commit": run.git_commit or "-",
        "cohort": run.cohort,
        "cohort, SHA-256": run.cohort_sha256,
        "checkpoint": run.checkpoint_folder,
        "checkpoint, SHA-256": "below, for each fold" if isinstance(digest, dict) else digest or "-",
        "versions": ", ".join(f"{name} {version}" for name, version in run.packages.items()) or "-",
    }
