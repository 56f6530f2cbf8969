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
from data.base.tables import make_printable
from data.pages.drawings import Forest, PageImage, make_svg

if TYPE_CHECKING:
    import jinja2
    from matplotlib.figure import Figure

    Drawing = Figure | Forest | PageImage

CellByHeading = dict[str, str]  # heading -> cell, text or `Markup`
PAGE_TEMPLATE_FILE = "page.html"
PAGE_BEGINNING = b'<!doctype html>\n<html lang="en" data-page="'  # of every page; the kind of page follows
MIN_SORTABLE_ROWS = 5
MAX_UNSCROLLED_ROWS = 40  # a table of so many rows can be sorted; one of more than so many scrolls in a box
VALUE_WITH_INTERVAL_PATTERN = re.compile(r"(?P<value>[^()]+?) \((?P<ends>[^()]+ to [^()]+)\)")


@dataclass(frozen=True)
class HeadlineNumber:
    """One of the large numbers of a headline."""

    value: str  # as it is printed
    name: str  # what the number is
    about: str = ""  # a line below: its interval, what it counts
    notes: Sequence[str] = ()  # its footnotes


@dataclass(frozen=True)
class Link:
    """A page that belongs to this one: its path relative to this page's folder."""

    name: str  # the text of the link
    target: str  # path relative to the page's folder


@dataclass(frozen=True)
class Section:
    """One part of a page; None stands for a part that it does not have. Raises InputError if a part is empty.

    `meanings` define columns of the table or names of facts, each beside its heading; `notes` are footnotes of these,
    or of all of it (""). `rest` are rows of the table that stay folded under their title, such as small sites.
    `markup` is HTML of the page's own. A section of the kind "warning" stands below the verdict and does not fold; any
    other is `open` at first, or not.
    """

    title: str
    texts: list[str] | None = None  # paragraphs
    figure: "Drawing | None" = None
    table: Sequence[CellByHeading] | None = None  # rows, each heading -> cell
    facts: CellByHeading | None = None  # name -> text
    command: str | None = None  # shell command to copy
    markup: Markup | None = None
    kind: str = ""  # "warning" or empty
    open: bool = False  # whether it is unfolded at first
    meanings: Mapping[str, str] = field(default_factory=dict)  # definition by heading or name of a fact
    notes: Mapping[str, str] = field(default_factory=dict)  # footnote by heading or name; "" for all of it
    rest: tuple[str, Sequence[CellByHeading]] | None = None  # title and rows of a second table, folded at first
    filtered: bool = False  # a field above the table, in which words choose rows

    def __post_init__(self) -> None:
        all_contents = (self.texts, self.figure, self.table, self.facts, self.command, self.markup)
        present_contents = [content for content in all_contents if content is not None]
        if not present_contents or not all(present_contents) or not all(map(str.strip, self.texts or ["-"])):
            raise InputError(f"The section '{self.title}' of a page would be empty; run the command again.")

    @property
    def defined(self) -> dict[str, str]:
        """The `meanings` of what the section names: of columns, rows and facts."""
        table_rows = [*(self.table or []), *(self.rest[1] if self.rest else [])]
        shown_names = {
            *(table_rows[0] if table_rows else ()),
            *(next(iter(row.values())) for row in table_rows),
            *(self.facts or ()),
        }
        return {heading: meaning for heading, meaning in self.meanings.items() if heading in shown_names}

    def mark(self, heading: str) -> str:
        """The number of the footnote of a column, a row or a fact; empty without one."""
        marked_headings = [note_heading for note_heading in self.notes if note_heading]
        return str(marked_headings.index(heading) + 1) if heading in marked_headings else ""

    @property
    def id(self) -> str:
        """What links to the section say after their #."""
        return make_slug(self.title)


@dataclass(frozen=True)
class Page:
    """All of a page. The `kind` is a word such as report; the `verdict` is what a reader takes away, in at most 60
    words; `script` and `style` are of the page's own, as `Markup`."""

    kind: str  # a word such as report
    title: str
    about: str  # a line below the title
    sections: Sequence[Section]
    verdict: str = ""  # what a reader takes away
    numbers: Sequence[HeadlineNumber] = ()  # large ones of the headline
    figure: "Drawing | None" = None  # of the headline
    links: Sequence[Link] = ()  # to pages beside it
    script: str = ""  # JavaScript
    style: str = ""  # CSS

    @property
    def defined(self) -> dict[str, str]:
        """The meanings of what its sections name, each once."""
        return {heading: meaning for section in self.sections for heading, meaning in section.defined.items()}


def make_slug(name: str) -> str:
    """A name as a part of an address."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")


def render_page(page: Page) -> str:
    """The page as HTML. Text loses control, bidirectional and invisible characters; `Markup` stays as it is."""
    return load_template_environment().get_template(PAGE_TEMPLATE_FILE).render(page=page)


@cache
def load_template_environment() -> "jinja2.Environment":
    import jinja2  # costs a command that makes no page nothing

    template_environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda template_value: (
            make_printable(template_value) if type(template_value) is str else template_value
        ),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template_environment.globals.update(svg=make_svg, sorted_from=MIN_SORTABLE_ROWS, long_from=MAX_UNSCROLLED_ROWS)
    template_environment.filters.update(cell=format_page_cell, slug=make_slug)
    template_environment.tests["forest"] = lambda drawing: isinstance(drawing, Forest)
    template_environment.tests["worded"] = lambda heading: heading[:1].isalpha()
    template_environment.tests["picture"] = lambda drawing: isinstance(drawing, PageImage)
    return template_environment


def format_page_cell(cell_text: Any) -> Any:
    """A cell of a table: a value's interval stands below it, in small letters."""
    if type(cell_text) is str and (interval_match := VALUE_WITH_INTERVAL_PATTERN.fullmatch(cell_text)):
        return Markup("{} <small>{}</small>").format(
            escape(make_printable(interval_match["value"])), make_printable(interval_match["ends"])
        )
    return cell_text


def is_page(path: Path, page_kind: str) -> bool:
    """Whether a file begins as a page of this kind does."""
    with open(path, "rb") as file:
        return file.read(len(PAGE_BEGINNING) + len(page_kind) + 1) == PAGE_BEGINNING + page_kind.encode() + b'"'
