"""The saved tables of a classifier's test -> `report.html`, one page that opens from disk without a network."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.tables import printable, write_frame
from data.cohorts.records import CLASSES
from utils import figures
from utils.figures import number
from utils.report import drawings, external, people, probabilities, texts, tripod
from utils.report.cells import TELLING, Row, Section, spelled
from utils.report.tables import LABELS, MINUS, Choice, Count, Described, Tables, read_test
from utils.scores.metrics import Predictions, headline
from utils.scores.results import (
    CANDIDATE,
    CONFIDENCE,
    MODEL,
    PAGE,
    RULE,
    SITE_COUNTS,
    TABLES,
    THRESHOLD,
    Estimate,
    columns_of,
)

ROC = "roc"  # the figure that the test itself writes
INTENDED_USE = (
    "For research on groups of people. Not a diagnosis: no probability here says anything reliable about one person, "
    "and nothing here has been tested for clinical use."
)
OF_FOLDS = ("auc", "accuracy", "balanced_accuracy", "brier")  # metrics.json has all


def write(folder: Path, prevalence: float | None = None) -> list[Path]:
    """Builds the page from the tables in `folder`, and beside it, unless it is of one fold, its figures and the table
    of TRIPOD+AI; the page is the first of the files. Decisions are shown where autism has the share `prevalence`; None:
    that among the people. Raises InputError for a table that is missing, damaged or empty.
    """
    tables = replace(read_test(folder), prevalence=prevalence)
    if prevalence is not None and tables.probabilities is None:
        raise InputError(f"{folder} has no calibrated probabilities for --prevalence; test on folds, of more people.")
    items = tripod.items(tables)
    shown = list(sections(tables, items))
    drawn = [section.figure for section in shown if section.figure]
    for figure in drawn:
        figure.suptitle(tables.run.marks.strip())
    run, cut = tables.run, f", folds: {tables.run.folds}" if tables.run.folds else ""
    page = rendered(f"Test of {run.model}{cut}{run.marks}", f"{run.cohort}, {run.started}", shown)
    with files.replacing(folder / PAGE) as file:
        file.write(page)
    written = [folder / PAGE]
    if tables.run.fold:
        return written
    listed = TABLES["tripod_ai"]
    write_frame(folder / listed.file, items, listed.texts)
    written.append(folder / listed.file)
    for figure in drawn:
        if figure.get_label() != ROC:
            written += figures.save(figure, folder / f"{figure.get_label()}.png")
    return written


def rendered(title: str, about: str, shown: Iterable[Section]) -> str:
    """A page of sections. Text loses control, bidirectional and invisible characters; `Markup` stays as it is."""
    harmless = texts.TEMPLATES.overlay(finalize=lambda value: printable(value) if type(value) is str else value)
    page = harmless.get_template("page.html")
    return page.render(title=title, about=about, sections=shown, svg=drawings.svg)


def sections(tables: Tables, items: pd.DataFrame) -> Iterator[Section]:
    """The sections that apply, in the order of the page; `items` are those of TRIPOD+AI."""
    run, label = tables.run, tables.predictions["label"]
    concluded = [run.conclusion, *([run.motion] if run.motion else [])]
    concluded += texts.paragraphs("permutations", of=run.permutations) if run.permutations else []
    yield Section("What may be concluded", concluded, kind="conclusion")
    yield Section("Intended use", [INTENDED_USE])
    if found := texts.warnings(tables):
        yield Section("Warnings", found, kind="warning")
    if tables.external is not None:
        yield from beside_training(tables.external, tables.unlike)
    if tables.scores:
        yield from scored(tables)
    if unknown := int(label.isna().sum()):
        about = [f"The diagnosis of {unknown} of {len(label)} records is unknown; the figure shows all of them."]
        drawn = drawings.distribution(tables.predictions["probability"].to_numpy())
        yield Section("Predicted probabilities", about, drawn)
    if tables.training is None:
        yield Section("Training", ["The history of the training is not there any more, so no loss can be shown."])
    else:
        about = texts.paragraphs("training", validated="validation_loss" in tables.training)
        curves = drawings.losses(tables.training)
        yield Section("Training", about if curves else ["The history of the training holds no finite loss."], curves)
    unknown = sum(count.unknown for count in run.subjects)
    about = texts.paragraphs("flow", run=run, unknown=unknown)
    yield Section("Flow of people", about or None, table=people.flow(tables))
    if tables.table1 is not None:
        about = texts.paragraphs("table1", tests=int(tables.table1[["p", "p_ranks"]].notna().sum().sum()))
        yield Section("Table 1: people by diagnosis", about, table=people.by_diagnosis(tables.table1))
        if rows := people.by_site(tables.table1):
            yield Section("Table 1, by site", ["Autism / control: mean of numbers, share of categories."], table=rows)
    yield Section("The cohort", table=cohort(run))
    yield how_to_repeat(run)
    yield Section("Methods, to paste", texts.methods(tables))
    if not run.fold:
        counts = items["filled_by"].value_counts().reindex(tripod.FILLED_BY, fill_value=0).tolist()
        yield Section("TRIPOD+AI", [texts.paragraph("tripod", counts=counts)])


def beside_training(table: pd.DataFrame, unlike: pd.DataFrame | None) -> Iterator[Section]:
    """The sections on people none of whom took part in the training."""
    yield Section("External validity", external.about(table), table=external.scores(table) or None)
    if rows := external.shifts(table):
        yield Section("How these people differ from those of the training", texts.paragraphs("shifts"), table=rows)
    if unlike is not None:
        about = texts.paragraphs("unlike", count=len(unlike), shown=external.MOST_PEOPLE)
        yield Section("People unlike those of the training", [*about, *external.unlike(unlike)])


def scored(tables: Tables) -> Iterator[Section]:
    """The sections that need labels."""
    known, run = tables.labelled, tables.run
    predictions, confidence = Predictions.of(known, several=run.folds is not None and not run.fold), f"{CONFIDENCE:.0%}"
    rows = [
        {"metric": spelled(name), "value": number(score.numbers[0], ".3f"), f"{confidence} interval": score.ends()}
        for name, score in tables.scores.items()
    ]
    averaged = {"auc_sites", "auc_folds"} & tables.scores.keys()
    about = texts.paragraphs("scores", records=len(known), subjects=known["subject"].nunique(), averaged=averaged)
    yield Section("Scores", about, table=rows)
    if tables.repeats is not None:
        yield repeats(tables.repeats, "fold" in tables.predictions)
    if run.choice and tables.candidates is not None:
        yield among_candidates(run.choice, tables.candidates)
    if tables.choices is not None:
        yield choices(tables.choices)
    if tables.floors is not None:
        yield beside_floors(tables.floors, run.model)
    if tables.confounds is not None:
        yield beside_motion(tables.confounds)
    if known["label"].nunique() == len(CLASSES):
        about = [
            f"The band is the {confidence} interval of the true positive rate at each false positive rate, made like "
            "those of the scores."
        ]
        yield Section("ROC curve", about, drawings.roc(predictions, run.seed))
    yield from probabilities.sections(tables)
    yield confusion(predictions, tables)
    if tables.folds:
        yield by_fold(tables)
    if tables.sites is not None:
        yield by_site(tables.sites)
    if tables.groups is not None:
        yield by_group(tables.groups)


def repeats(table: pd.DataFrame, same_folds: bool) -> Section:
    """The scores of each repeat, and how far apart they lie."""
    names = [name for name in ("auc_sites", "auc_folds", "auc", *OF_FOLDS[1:]) if name in table]
    area = headline(table)
    less = [name for name in (f"{MINUS}{area}",) if name in table]
    spread = {spelled(area): table[area]} | {
        f"{spelled(area)}, minus that of its best floor": table[name] for name in less
    }
    spread = {name: values for name, values in spread.items() if values.notna().all()}
    about = texts.paragraphs("repeats", count=len(table), same_folds=same_folds, spread=spread)
    rows = [
        {name: number(row[name], ".0f") for name in ("repeat", "seed")}
        | {spelled(name): Estimate.in_row(row, name).text() for name in names + less}
        | ({"best floor": row["best_floor"]} if less else {})
        for _, row in table.iterrows()
    ]
    return Section("Repeats", about, table=rows)


def among_candidates(choice: Choice, table: pd.DataFrame) -> Section:
    """The own scores of the candidates, and how often each was chosen."""
    names = [name for name in ("auc_sites", "auc_folds", "auc", "accuracy", "brier") if name in table]
    rows = [
        {CANDIDATE: row[CANDIDATE], "chosen in folds": number(row["chosen"], ".0f")}
        | {spelled(name): Estimate.in_row(row, name).text() for name in names}
        for _, row in table.iterrows()
    ]
    return Section("The choice among candidates", texts.paragraphs("choice", choice=choice), table=rows)


def choices(table: pd.DataFrame) -> Section:
    """Who was chosen in each fold, and by what."""
    rows = []
    for fold, of_fold in table.groupby("fold", sort=False):
        ranked = of_fold.sort_values(["inner_folds", "score"], ascending=False, kind="stable")
        best, next_one = ranked.iloc[0], ranked.iloc[1]
        chosen = of_fold[of_fold["chosen"] == 1].iloc[0]
        rows.append(
            {"fold": str(fold), "chosen": chosen[CANDIDATE], "its score": number(chosen["score"], ".3f")}
            | {"the next": next_one[CANDIDATE], "lies below by": number(best["score"] - next_one["score"], ".3f")}
        )
    about = ["Scores are those of inner folds of the training subjects, of which choices.csv has all."]
    return Section("Who was chosen where", about, table=rows)


def beside_floors(table: pd.DataFrame, model: str) -> Section:
    """The AUC of the verdict and its difference, then the pooled AUC and the accuracy."""
    about = [
        "Floors are plain classifiers on the same subjects. The model beats one where the interval of the difference "
        "lies above 0, is worse where it lies below 0, and is level with it otherwise. They read the covariates; the "
        "phenotype; the mean of each map in each AAL region (regions); or all of these. The majority, which reads "
        "nothing, is not counted. More metrics are in floors.csv."
    ]
    if RULE in set(table["floor"]):
        about.append(f"The {RULE} is a ceiling, not a floor.")
    area = headline(table)
    compared = dict.fromkeys((area, f"{MINUS}{area}", "auc", "accuracy"))
    metrics = [name for name in compared if set(columns_of(name)) <= set(table)]
    rows = [
        {"classifier": model if row["floor"] == MODEL else row["floor"]}
        | {spelled(name): Estimate.in_row(row, name).text() for name in metrics}
        for _, row in table.iterrows()
    ]
    drawn = drawings.forest(table, model) if table[area].notna().any() else None
    return Section("The model beside its floors", about, drawn, rows)


def beside_motion(table: pd.DataFrame) -> Section:
    """The rows of `confounds.csv` that there are, and what each means."""
    names = {
        "partial": "partial correlation of output and diagnosis",
        "correlation": "correlation of output and head motion within sites",
        "reliability": "reliability of head motion that would explain it",
        "auc_sites": "AUC within sites, of those who moved less",
        "auc": "AUC, of those who moved less",
    }
    rows = [
        {"measure": names.get(row["measure"], row["measure"]), "value": Estimate.in_row(row).text()}
        | {"p": number(row["p"], ".2g")}
        for _, row in table.iterrows()
    ]
    title = "Is it motion?" if "correlation" in set(table["measure"]) else "Is it the covariates?"
    return Section(title, texts.paragraphs("of_motion", names=set(table["measure"])), table=rows)


def confusion(predictions: Predictions, tables: Tables) -> Section:
    """True classes by predicted ones. Of repeats the counts are of mean probabilities, which have no interval."""
    about = [
        f"A probability of {THRESHOLD:g} or more counts as autism. In brackets: the share of the row, with its "
        f"{CONFIDENCE:.0%} interval over subjects."
    ]
    counted = drawings.confusion_rows(predictions, {} if tables.run.repeats > 1 else tables.scores)
    rows = [
        {"diagnosis": name} | {f"predicted {to}": cell for to, cell in zip(CLASSES, cells, strict=True)}
        for name, cells in zip(CLASSES, counted, strict=True)
    ]
    return Section("Confusion matrix", about, table=rows)


def by_fold(tables: Tables) -> Section:
    """The scores in each fold."""
    sizes = tables.predictions.groupby("fold")["subject"].nunique()
    rows = [
        {"fold": fold, "subjects": str(sizes.get(fold, "-"))}
        | {spelled(name): scores[name].text() for name in OF_FOLDS if name in scores}
        for fold, scores in tables.folds.items()
    ]
    return Section("Folds", ["More metrics are in metrics.json."], table=rows)


def by_site(table: pd.DataFrame) -> Section:
    """The score in each row of `sites.csv`, if it is of TELLING people."""
    rows = [
        {"site": row["site"] or "-"}
        | {name: number(row[name], ".0f") for name in SITE_COUNTS}
        | {
            label: Estimate.in_row(row, name).text() if row["subjects"] >= TELLING else "-"
            for name, label in (("auc", "AUC"), ("accuracy", "accuracy"))
        }
        for _, row in table.iterrows()
    ]
    about = [
        f"No interval: too few people. A dash: fewer than {TELLING} people, or one class. Of so many sites, some have "
        "a low AUC by chance."
    ]
    return Section("Sites", about, table=rows)


def by_group(table: pd.DataFrame) -> Section:
    """The score in each row of `groups.csv`."""
    areas = [name for name in ("auc_sites", "auc") if set(columns_of(name)) <= set(table)]
    rows = [
        {"group": f"{row['kind']}: {row['group']}"}
        | {name: number(row[name], ".0f") for name in SITE_COUNTS}
        | {spelled(name): Estimate.in_row(row, name).text() for name in areas}
        for _, row in table.iterrows()
    ]
    return Section("Head motion, sex and age", texts.paragraphs("groups"), table=rows)


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


def how_to_repeat(run: Described) -> Section:
    """The command, and when, where and with what versions the test was done; the checkpoints of pooled folds."""
    digest, key = run.checkpoint_sha256, "checkpoint, SHA-256"
    of_folds = [{"fold": fold, key: sha256} for fold, sha256 in digest.items()] if isinstance(digest, dict) else None
    facts = {
        "started": run.started,
        "took": f"{run.wall_time_s:,.0f} s",
        "commit": run.git_commit or "-",
        "cohort": run.cohort,
        "cohort, SHA-256": run.cohort_sha256,
        "checkpoint": run.checkpoint_folder,
        key: "below, for each fold" if isinstance(digest, dict) else digest or "-",
        "versions": ", ".join(f"{name} {version}" for name, version in run.packages.items()) or "-",
    }
    return Section("How to repeat it", table=of_folds, facts=facts, command=texts.quoted(run.command))
