"""The words of reports, terminals and `run.json`: sections of the page, sentences from the Jinja2 templates of this
folder, commands, the items of TRIPOD+AI.

Collins et al. 2024, BMJ 385:e078378; the published checklist is at https://www.tripod-statement.org. Here each item is
named in a few words of our own. A macro `item_<number>` of `tripod.jinja` holds what the run knows.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from data.base.tables import printable
from data.cohorts.records import GRIDS, Grid
from data.cohorts.rows import SITE_IS_UNKNOWN, known_sites, listed
from data.pages.page import Row
from models import MODELS
from utils.figures import number
from utils.report.references import of_maps, of_parcels, references
from utils.report.tables import PEOPLE, Described, Tables
from utils.scores import calibration, metrics, results
from utils.scores.results import MAJORITY, NO_FLOORS, ROLE, RULE, Estimate

SPELLED = {
    "auc": "AUC, all people together",
    "auc_sites": "AUC within sites",
    "auc_folds": "AUC within folds",
    "f_score": "F score",
    "brier": "Brier score",
    "model_minus_floor_auc": "AUC, model minus floor",
    "model_minus_floor_auc_sites": "AUC within sites, model minus floor",
    "model_minus_floor_auc_folds": "AUC within folds, model minus floor",
}
COUNTS = (*results.SITE_COUNTS, PEOPLE)  # columns that count people
FEW = 100  # test subjects
SHOWN = 5  # names in a sentence
PUBLISHED = 0.70  # accuracy of the best honest results on ABIDE
SUSPICIOUS = 0.80  # accuracy that is far above it, however wide its interval
NAMED = ("batch_size", "optimizer", "learning_rate", "decay")  # hyper-parameters that have a place in a sentence
CHOSEN_ON_ABIDE = ("combined", "regions")  # presets, see docs/evidence.md
ONE_OF_SEVERAL = (
    "These are the scores of one of several candidates that were compared on these people (run.py --choose); those of "
    "the best one are too good. The score of the whole choice is in the folder above."
)
SENTENCES, TRIPOD = "sentences.jinja", "tripod.jinja"
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(__file__).parents[1]]),
    autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.filters["number"] = number
TEMPLATES.filters["line"] = printable
TEMPLATES.filters["some"] = lambda names, between=", ": listed(names, SHOWN, between)
TEMPLATES.tests["in_text"] = lambda text, part: part in text
TEMPLATES.globals.update(FEW=FEW, NAMED=NAMED, PUBLISHED=PUBLISHED, RULE=RULE, SUSPICIOUS=SUSPICIOUS)
TEMPLATES.globals.update(SITE_IS_UNKNOWN=SITE_IS_UNKNOWN)
TEMPLATES.globals.update(metrics=metrics, results=results, calibration=calibration)
TEMPLATES.globals.update(of_maps=of_maps, of_parcels=of_parcels)
FILLED_BY = RUN, PART, AUTHOR = "the run", "the run, in part", "the author"
GAP = "For the author:"  # in the text of an item that is filled in part
ITEMS = """
1 | title | title | D;E | a model is developed or evaluated: for whom, to predict what
2 | abstract | abstract | D;E | follows the checklist for abstracts
3a | introduction | background | D;E | medical context, diagnostic or prognostic, why this model, earlier models
3b | introduction | background | D;E | for whom, for what step of care, by which users
3c | introduction | background | D;E | known inequalities between social groups
4 | introduction | objectives | D;E | aims; development, evaluation or both
5a | methods | data | D;E | sources of the data, why these, how representative
5b | methods | data | D;E | dates of recruitment and of follow-up
6a | methods | participants | D;E | setting; number and place of the centres
6b | methods | participants | D;E | who was eligible
6c | methods | participants | D;E | treatments, and how they were dealt with
7 | methods | data preparation | D;E | preprocessing and quality checks, alike in all groups or not
8a | methods | outcome | D;E | what is predicted, how and when it was assessed, alike in all groups or not
8b | methods | outcome | D;E | who assessed it, if that takes judgement
8c | methods | outcome | D;E | blinding of that assessment
9a | methods | predictors | D | how the first set of predictors was chosen
9b | methods | predictors | D;E | every predictor defined, how and when it was measured
9c | methods | predictors | D;E | who measured them, if that takes judgement
10 | methods | sample size | D;E | how the number of people came about, and whether it suffices
11 | methods | missing data | D;E | how missing values were dealt with; why data were left out
12a | methods | analysis | D | which data served development and evaluation; how they were divided
12b | methods | analysis | D | form and scale of the predictors
12c | methods | analysis | D | kind of model, steps of building it, tuning, internal validation
12d | methods | analysis | D;E | differences between clusters, such as sites
12e | methods | analysis | D;E | measures and plots of performance; comparison of models
12f | methods | analysis | E | updating of the model, such as recalibration
12g | methods | analysis | E | how predictions were computed
13 | methods | class imbalance | D;E | methods against unequal classes, and recalibration after them
14 | methods | fairness | D;E | what was done for fairness, and why
15 | methods | model output | D | what the model puts out; thresholds and their origin
16 | methods | training, evaluation | D;E | how the evaluation data differ from those of development
17 | methods | ethics | D;E | ethics committee; consent or waiver
18a | open science | funding | D;E | who paid, and the funders' part
18b | open science | conflicts | D;E | interests of all authors
18c | open science | protocol | D;E | where the protocol is, or that there is none
18d | open science | registration | D;E | register and number, or that there is none
18e | open science | data sharing | D;E | where the data can be had
18f | open science | code sharing | D;E | where the code of the analysis can be had
19 | involvement | patients, public | D;E | part of patients and the public in the study, or none
20a | results | participants | D;E | flow of people, with and without the outcome
20b | results | participants | D;E | characteristics, overall and by source; missing data; differences between groups
20c | results | participants | E | evaluation data beside those of development
21 | results | development | D;E | people and outcomes in each analysis
22 | results | specification | D | the whole model, so that others can predict with it; limits of access
23a | results | performance | D;E | performance with intervals, in subgroups too
23b | results | performance | D;E | differences of performance between clusters
24 | results | updating | E | results of updating the model
25 | discussion | interpretation | D;E | what the results mean, fairness included, beside earlier studies
26 | discussion | limitations | D;E | limits of the study and what they do to the results
27a | discussion | usability | D | what to do with inputs that are poor or missing
27b | discussion | usability | D | what users have to do, and what they must know
27c | discussion | usability | D;E | next steps, with a view to where the model holds
"""


def told_sites(sites: Iterable[str]) -> str:
    """How many are known, in words."""
    count = len(known_sites(sites))
    return f"{count} site{'s' if count > 1 else ''}" if count else "unknown site"


TEMPLATES.filters.update(known_sites=known_sites, told_sites=told_sites)


def spelled(name: str) -> str:
    """The name of a metric on the page."""
    return SPELLED.get(name, name.replace("_", " "))


def sentences(text: str) -> list[str]:
    """Each sentence of a text, for a page; a question and its answer are one."""
    return re.split(r"(?<=\.) (?=[A-Z])", text)


def few_apart(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows as the table of a section; those that hold nothing but counts are folded, if others hold more."""
    said = [
        any(map(str.isdigit, "".join(cell for name, cell in [*row.items()][1:] if name not in COUNTS))) for row in rows
    ]
    full, few = ([row for row, has in zip(rows, said, strict=True) if has == wanted] for wanted in (True, False))
    if not full or not few:
        return {"table": rows}
    return {"table": full, "rest": (f"{len(few)} more, of whom only people are counted", few)}


def paragraphs(name: str, template: str = SENTENCES, **values: Any) -> list[str]:
    """The paragraphs of a macro of a template, each on one line; not escaped for HTML."""
    text = getattr(TEMPLATES.get_template(template).module, name)(**values)
    return [printable(part) for part in re.split(r"\n\s*\n", text) if part.strip()]


def paragraph(name: str, template: str = SENTENCES, **values: Any) -> str:
    """The same as one paragraph."""
    return " ".join(paragraphs(name, template, **values))


def warnings(tables: Tables) -> list[str]:
    """What a reader must know before any figure: what the tables show, and the run's own warnings."""
    subjects = tables.labelled["subject"].nunique()
    names = (metrics.headline(tables.scores), "accuracy") if tables.scores else ()
    auc, accuracy = [tables.scores[name] for name in names] or (None, None)
    found = paragraphs("warnings", run=tables.run, subjects=subjects, auc=auc, accuracy=accuracy)
    return list(dict.fromkeys(found + tables.run.warnings))


@dataclass(frozen=True)
class Facts:
    """What the methods of a paper need of a test's tables."""

    run: Described
    scores: Mapping[str, Estimate]
    folds: int  # 0: one split
    same_folds: bool  # in all repeats, if there are some
    grid: Grid | None  # of the volumes that the model reads
    reads_phenotype: bool
    connectome: str  # the series whose correlations it reads
    changed: dict[str, Any]  # settings that differ from the preset
    seen_by_authors: bool  # whether the preset was chosen by results on people of ABIDE I
    one_class: list[str]  # sites whose tested people of known diagnosis are of one class
    floors: list[str]
    named_floor: str  # empty without floors
    calibrated: bool


def facts(tables: Tables) -> Facts:
    run, model, same_folds = tables.run, MODELS[tables.run.model], "fold" in tables.predictions
    numbered = int(run.folds or 0) if run.repeats > 1 and not same_folds else 0
    preset = model.module.PRESETS.get(run.preset)
    saved = json.loads(json.dumps(asdict(preset))) if preset else dict(run.config)
    if not run.prepared.connectome:  # the cohort decided that
        saved.pop("connectome", None)
    names = run.choice.candidates if run.choice else [run.preset]
    floors = pd.DataFrame(columns=["floor", ROLE]) if tables.floors is None else tables.floors
    classes = tables.labelled.groupby("site")["label"].nunique()
    return Facts(
        run=run,
        scores=tables.scores,
        folds=tables.predictions["fold"].nunique() if same_folds else numbered,
        same_folds=same_folds,
        grid=GRIDS.get(run.grid or ""),
        reads_phenotype="phenotype" in model.reads,
        connectome=run.prepared.connectome if run.config.get("connectome") else "",
        changed={name: value for name, value in run.config.items() if name in saved and saved[name] != value},
        seen_by_authors="volume" in model.reads and bool({name.split()[0] for name in names} & set(CHOSEN_ON_ABIDE)),
        one_class=classes.index[classes == 1].tolist(),
        floors=[name for name in floors["floor"] if name == MAJORITY or name not in NO_FLOORS],
        named_floor=next(iter(floors["floor"][floors[ROLE] == results.NAMED]), ""),
        calibrated=tables.calibration is not None,
    )


def methods(tables: Tables) -> list[str]:
    """Paragraphs for a paper, and the references that they cite."""
    said = paragraphs("methods", of=facts(tables))
    cited = references(" ".join(said))
    return [*said, *(["References", *cited] if cited else [])]


def quoted(command: list[str]) -> str:
    r"""A command as it can be typed into bash, on one line: in bash's `$'...'`, `\x0a` stands for a byte."""
    return " ".join(shlex.quote(text) if text.isprintable() else f"$'{escaped(text)}'" for text in command)


def escaped(text: str) -> str:
    codes = ("".join(f"\\x{byte:02x}" for byte in letter.encode()) for letter in text)
    plain = (letter.isprintable() and letter not in "\\'" for letter in text)
    return "".join(letter if keep else code for letter, keep, code in zip(text, plain, codes, strict=True))


def tripod_items(tables: Tables) -> pd.DataFrame:
    """A row an item: `item`, `section`, `topic`, `for` (D development, E evaluation), `asks` in our words, `filled_by`
    and `text`. The text is empty where it is left to the author."""
    of, macros = facts(tables), TEMPLATES.get_template(TRIPOD).module
    listed = [[cell.strip() for cell in line.split("|")] for line in ITEMS.strip().splitlines()]
    table = pd.DataFrame(listed, columns=["item", "section", "topic", "for", "asks"])
    names = "item_" + table["item"]
    said = [paragraph(name, TRIPOD, of=of, tables=tables) if hasattr(macros, name) else "" for name in names]
    filled_by = [(PART if GAP in text else RUN) if text else AUTHOR for text in said]
    return table.assign(filled_by=filled_by, text=said)
