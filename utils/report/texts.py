"""The texts of reports, terminals and `run.json`: sentences from the Jinja2 templates of this folder, and commands."""

import re
import shlex
from pathlib import Path

import jinja2

from data.base.tables import printable
from data.cohorts.records import PHENOTYPE_SIZE
from data.cohorts.rows import listed
from data.grids import GRIDS
from models import MODELS
from utils import metrics, statistics
from utils.figures import TABLES_CSS, number
from utils.report.tables import MODEL, RULE, Tables

FEW = 100  # test subjects
SHOWN = 5  # names in a sentence
PUBLISHED = 0.70  # accuracy of the best honest results on ABIDE
SUSPICIOUS = 0.80  # accuracy that is far above it, however wide its interval
NAMED = ("batch_size", "optimizer", "learning_rate", "decay")  # hyper-parameters that have a place in a sentence
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).parent, TABLES_CSS.parent]),
    autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.filters["number"] = number
TEMPLATES.filters["some"] = lambda names, between=", ": listed(names, SHOWN, between)
TEMPLATES.globals.update(FEW=FEW, NAMED=NAMED, PUBLISHED=PUBLISHED, RULE=RULE, SUSPICIOUS=SUSPICIOUS)
TEMPLATES.globals.update(metrics=metrics, statistics=statistics)


def paragraphs(name: str, **values: object) -> list[str]:
    """The paragraphs of a macro of `sentences.jinja`, each on one line; not escaped for HTML."""
    text = getattr(TEMPLATES.get_template("sentences.jinja").module, name)(**values)
    return [printable(part) for part in re.split(r"\n\s*\n", text) if part.strip()]


def paragraph(name: str, **values: object) -> str:
    """The same as one paragraph."""
    return " ".join(paragraphs(name, **values))


def warnings(tables: Tables) -> list[str]:
    """What a reader must know before any figure: what the tables show, and the run's own warnings."""
    subjects = tables.labelled["subject"].nunique()
    auc, accuracy = (tables.scores[name].numbers if tables.scores else None for name in ("auc", "accuracy"))
    found = paragraphs("warnings", run=tables.run, subjects=subjects, auc=auc, accuracy=accuracy)
    return list(dict.fromkeys(found + tables.run.warnings))


def methods(tables: Tables) -> str:
    """A paragraph for a paper."""
    return paragraph(
        "methods",
        run=tables.run,
        folds=tables.predictions["fold"].nunique() if "fold" in tables.predictions else 0,
        grid=GRIDS.get(tables.run.grid or ""),
        num_phenotype=PHENOTYPE_SIZE if "phenotype" in MODELS[tables.run.model].reads else 0,
        scores=tables.scores,
        floors=[] if tables.floors is None else [name for name in tables.floors["floor"] if name not in (MODEL, RULE)],
    )


def quoted(command: list[str]) -> str:
    r"""A command as it can be typed into bash, on one line: in bash's `$'...'`, `\x0a` stands for a byte."""
    return " ".join(shlex.quote(text) if text.isprintable() else f"$'{escaped(text)}'" for text in command)


def escaped(text: str) -> str:
    codes = ("".join(f"\\x{byte:02x}" for byte in letter.encode()) for letter in text)
    plain = (letter.isprintable() and letter not in "\\'" for letter in text)
    return "".join(letter if keep else code for letter, keep, code in zip(text, plain, codes, strict=True))
