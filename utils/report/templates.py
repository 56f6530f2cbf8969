"""Jinja2 templates of this folder: the page, and the sentences of reports, terminals and `run.json`."""

import re
from collections.abc import Iterable
from pathlib import Path

import jinja2
from markupsafe import Markup

from data.base.text import number, printable
from utils.metrics import BINS, RESAMPLES
from utils.report.tables import RULE
from utils.statistics import CHANCE, CONFIDENCE, THRESHOLD

FEW = 100  # test subjects
PUBLISHED = 0.70  # accuracy of the best honest results on ABIDE
SUSPICIOUS = 0.80  # accuracy that is far above it, however wide its interval
NAMED = ("batch_size", "optimizer", "learning_rate", "decay")  # hyper-parameters that have a place in a sentence


def listed(names: Iterable[str]) -> str:
    """`a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(["html"], default_for_string=False),
    undefined=jinja2.StrictUndefined,
)
TEMPLATES.filters |= {"number": number, "listed": listed}
TEMPLATES.globals.update(FEW=FEW, NAMED=NAMED, PUBLISHED=PUBLISHED, SUSPICIOUS=SUSPICIOUS, THRESHOLD=THRESHOLD)
TEMPLATES.globals.update(BINS=BINS, CHANCE=CHANCE, CONFIDENCE=CONFIDENCE, RESAMPLES=RESAMPLES, RULE=RULE)


def paragraphs(name: str, **values: object) -> list[str]:
    """The paragraphs of a macro of `sentences.jinja`, each on one line; not escaped for HTML."""
    text = getattr(TEMPLATES.get_template("sentences.jinja").module, name)(**values)
    return [printable(part) for part in re.split(r"\n\s*\n", text) if part.strip()]


def paragraph(name: str, **values: object) -> str:
    """The same as one paragraph."""
    return " ".join(paragraphs(name, **values))


def page(**values: object) -> str:
    """`page.html` filled in: texts are escaped and made harmless, `Markup` stays as it is."""
    return TEMPLATES.overlay(finalize=harmless).get_template("page.html").render(**values)


def harmless(value: object) -> object:
    """Text without control, bidirectional and invisible characters; anything else as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
