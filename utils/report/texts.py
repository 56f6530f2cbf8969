"""The words of reports, terminals and `run.json`: sections of the page, sentences from the Jinja2 templates of this
folder, commands."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from data.base.effort import EFFORT
from data.base.tables import printable
from data.cohorts.records import GRIDS, Grid
from data.cohorts.rows import SITE_IS_UNKNOWN, known_sites, listed
from data.pages.page import Row
from models import MODELS
from utils.figures import number
from utils.report.references import of_maps, of_parcels, references
from utils.report.tables import PEOPLE, Described, Tables
from utils.scores import calibration, metrics, results
from utils.scores.results import MAJORITY, NO_BASELINES, ROLE, RULE, Estimate

SPELLED = {
    "auc": "AUC, all participants together",
    "auc_sites": "AUC within sites",
    "auc_folds": "AUC within folds",
    "f_score": "F score",
    "brier": "Brier score",
    "model_minus_baseline_auc": "AUC, model minus baseline",
    "model_minus_baseline_auc_sites": "AUC within sites, model minus baseline",
    "model_minus_baseline_auc_folds": "AUC within folds, model minus baseline",
}
COUNTS = (*results.SITE_COUNTS, PEOPLE)  # columns that count people
FEW = 100  # test subjects
SHOWN = 5  # names in a sentence
PUBLISHED = 0.70  # accuracy of the best honest results on ABIDE
SUSPICIOUS = 0.80  # accuracy that is far above it, however wide its interval
NAMED = ("batch_size", "optimizer", "learning_rate", "decay")  # hyper-parameters that have a place in a sentence
CHOSEN_ON_ABIDE = ("combined", "regions")  # presets, see docs/evidence.md
SENTENCES = "sentences.jinja"
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
TEMPLATES.globals.update(metrics=metrics, results=results, calibration=calibration, effort=EFFORT)
TEMPLATES.globals.update(of_maps=of_maps, of_parcels=of_parcels)


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
    return {"table": full, "rest": (f"{len(few)} more, of whom only participants are counted", few)}


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
    settings: dict[str, Any]  # those that change something
    changed: dict[str, Any]  # settings that differ from the preset
    seen_by_authors: bool  # whether the preset was chosen by results on people of ABIDE I
    one_class: list[str]  # sites whose tested people of known diagnosis are of one class
    baselines: list[str]
    prespecified_baseline: str  # empty without baselines
    calibrated: bool


def facts(tables: Tables) -> Facts:
    run, model, same_folds = tables.run, MODELS[tables.run.model], "fold" in tables.predictions
    numbered = int(run.folds or 0) if run.repeats > 1 and not same_folds else 0
    preset = model.module.PRESETS.get(run.preset)
    saved = json.loads(json.dumps(asdict(preset))) if preset else dict(run.config)
    if not run.prepared.connectome:  # the cohort decided that
        saved.pop("connectome", None)
    names = [name for of in run.chosen.values() for name in of.scores] or [run.preset]
    baselines = pd.DataFrame(columns=["baseline", ROLE]) if tables.baselines is None else tables.baselines
    classes = tables.labelled.groupby("site")["label"].nunique()
    return Facts(
        run=run,
        scores=tables.scores,
        folds=tables.predictions["fold"].nunique() if same_folds else numbered,
        same_folds=same_folds,
        grid=GRIDS.get(run.grid or ""),
        reads_phenotype="phenotype" in model.reads,
        connectome=run.prepared.connectome if run.config.get("connectome") else "",
        settings=used(run),
        changed={name: value for name, value in run.config.items() if name in saved and saved[name] != value},
        seen_by_authors="volume" in model.reads and bool({name.split()[0] for name in names} & set(CHOSEN_ON_ABIDE)),
        one_class=classes.index[classes == 1].tolist(),
        baselines=[name for name in baselines["baseline"] if name == MAJORITY or name not in NO_BASELINES],
        prespecified_baseline=next(iter(baselines["baseline"][baselines[ROLE] == results.NAMED]), ""),
        calibrated=tables.calibration is not None,
    )


def used(run: Described) -> dict[str, Any]:
    """The hyper-parameters of a run without those that change nothing with the others as they are."""
    idle = MODELS[run.model].settings(run.config).idle()
    return {name: value for name, value in run.config.items() if name not in idle}


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
