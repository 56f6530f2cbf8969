"""What a page shows -> HTML that opens from disk without a network: the one frame of all pages of this program.

A page has a verdict, a headline (a few numbers and one figure), links to pages beside it, contents, and sections that
fold. Caveats are footnotes of the numbers that they concern.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from data.base.errors import InputError
from data.base.tables import printable
from data.pages.drawings import Forest, Picture, svg

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure

    Drawing = Figure | Forest | Picture

Row = dict[str, str]  # heading -> cell, text or `Markup`
TEMPLATE = "page.html"
BEGINNING = b'<!doctype html>\n<html lang="en" data-page="'  # of every page; the kind of page follows
SORTED, LONG = 5, 40  # rows from which on a table can be sorted; after which it scrolls in a box
INTERVAL = re.compile(r"(?P<value>[^()]+?) \((?P<ends>[^()]+ to [^()]+)\)")


@dataclass(frozen=True)
class Number:
    """One of the large numbers of a headline, what it is, and a line below: its interval, what it counts. `notes` are
    its footnotes."""

    value: str
    name: str
    about: str = ""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Link:
    """A page that belongs to this one: its path relative to this page's folder."""

    name: str
    target: str


@dataclass(frozen=True)
class Section:
    """One part of a page; None stands for a part that it does not have. Raises InputError if a part is empty.

    `meanings` define columns of the table or names of facts, each beside its heading; `notes` are footnotes of these,
    or of all of it (""). `rest` are rows of the table that stay folded under their title, such as small sites.
    `markup` is HTML of the page's own. A section of the kind "warning" stands below the verdict and does not fold; any
    other is `open` at first, or not.
    """

    title: str
    texts: list[str] | None = None
    figure: "Drawing | None" = None
    table: Sequence[Row] | None = None
    facts: Row | None = None
    command: str | None = None
    markup: Markup | None = None
    kind: str = ""
    open: bool = False
    meanings: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    rest: tuple[str, Sequence[Row]] | None = None
    filtered: bool = False  # a field above the table, in which words choose rows

    def __post_init__(self) -> None:
        every = (self.texts, self.figure, self.table, self.facts, self.command, self.markup)
        parts = [part for part in every if part is not None]
        if not parts or not all(parts) or not all(map(str.strip, self.texts or ["-"])):
            raise InputError(f"The section '{self.title}' of a page would be empty; run the command again.")

    @property
    def defined(self) -> dict[str, str]:
        """The `meanings` of what the section names: of columns, rows and facts."""
        rows = [*(self.table or []), *(self.rest[1] if self.rest else [])]
        named = {*(rows[0] if rows else ()), *(next(iter(row.values())) for row in rows), *(self.facts or ())}
        return {name: text for name, text in self.meanings.items() if name in named}

    def mark(self, name: str) -> str:
        """The number of the footnote of a column, a row or a fact; empty without one."""
        marked = [key for key in self.notes if key]
        return str(marked.index(name) + 1) if name in marked else ""

    @property
    def id(self) -> str:
        """What links to the section say after their #."""
        return slug(self.title)


@dataclass(frozen=True)
class Page:
    """All of a page. The `kind` is a word such as report; the `verdict` is what a reader takes away, in at most 60
    words; `script` and `style` are of the page's own, as `Markup`."""

    kind: str
    title: str
    about: str
    sections: Sequence[Section]
    verdict: str = ""
    numbers: Sequence[Number] = ()
    figure: "Drawing | None" = None
    links: Sequence[Link] = ()
    script: str = ""  # JavaScript
    style: str = ""  # CSS

    @property
    def defined(self) -> dict[str, str]:
        """The meanings of what its sections name, each once."""
        return {name: text for section in self.sections for name, text in section.defined.items()}


def slug(name: str) -> str:
    """A name as a part of an address."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def render(page: Page) -> str:
    """The page as HTML. Text loses control, bidirectional and invisible characters; `Markup` stays as it is."""
    return templates().get_template(TEMPLATE).render(page=page)


@cache
def templates() -> "jinja2.Environment":
    import jinja2  # costs a command that makes no page nothing

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(svg=svg, sorted_from=SORTED, long_from=LONG)
    found.filters.update(cell=cell, slug=slug)
    found.tests["forest"] = lambda drawing: isinstance(drawing, Forest)
    found.tests["worded"] = lambda text: text[:1].isalpha()
    found.tests["picture"] = lambda drawing: isinstance(drawing, Picture)
    return found


def cell(text: Any) -> Any:
    """A cell of a table: a value's interval stands below it, in small letters."""
    if type(text) is str and (found := INTERVAL.fullmatch(text)):
        return Markup("{} <small>{}</small>").format(escape(printable(found["value"])), printable(found["ends"]))
    return text


def is_page(path: Path, kind: str) -> bool:
    """Whether a file begins as a page of this kind does."""
    with open(path, "rb") as file:
        return file.read(len(BEGINNING) + len(kind) + 1) == BEGINNING + kind.encode() + b'"'
