"""Figures, forest plots and pictures -> what a page shows of them, in light and in dark; figures -> files."""

import base64
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_GLYPH = r"Glyph \d+ .* missing from font"
UNDATED = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # metadata that an SVG does without
# A dollar in a name starts no formula. Equal figures give equal bytes; texts stay texts
ON_PAGE: dict[Any, Any] = {"font.size": 8.5, "text.parse_math": False}
SETTINGS: dict[Any, Any] = ON_PAGE | {"svg.fonttype": "none", "svg.hashsalt": "figure"}
OF_THE_PAGE = {"#000000": "currentColor", "#ffffff": "var(--paper)"}  # colours that follow light and dark
DARK_GREY = re.compile("#([3-6][0-9a-f])\\1\\1")
TICKS, STEPS = 6, (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Bar:
    """A row of a forest plot: a value, the ends of its interval, and what is written of both. What has no interval is
    not drawn.

    The kind is "main" for what the page is about, "named" for what stands beside it, or empty.
    """

    name: str
    value: float
    low: float
    high: float
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Forest:
    """Values and intervals below each other, beside a line of no effect; as wide as the page."""

    about: str
    bars: Sequence[Bar]
    line: float

    @property
    def ticks(self) -> list[float]:
        """Round numbers around all ends and the line."""
        from matplotlib.ticker import MaxNLocator  # costs a command without a page nothing

        every = [self.line, *(end for bar in self.bars for end in (bar.low, bar.high))]
        return [float(tick) for tick in MaxNLocator(TICKS, steps=STEPS).tick_values(min(every), max(every))]

    def at(self, value: float) -> str:
        """Where a value lies, in percent of the width."""
        low, high = self.ticks[0], self.ticks[-1]
        return f"{100 * (value - low) / (high - low):.2f}%"

    def span(self, bar: Bar) -> str:
        """Where the interval of a bar lies, as CSS."""
        low, high = self.ticks[0], self.ticks[-1]
        return f"left:{self.at(bar.low)};width:{100 * (bar.high - bar.low) / (high - low):.2f}%"


@dataclass(frozen=True)
class Picture:
    """An image in the page itself, with its text for those who do not see it."""

    data: bytes
    alt: str
    form: str = "png"

    @property
    def uri(self) -> Markup:
        return Markup(f"data:image/{self.form};base64,{base64.b64encode(self.data).decode()}")  # noqa: S704  letters only


def svg(figure: "Figure") -> Markup:
    """A figure as an SVG element that can stand in a page with others: its ids begin with the figure's label. Black,
    white and dark grey are those of the page."""
    from matplotlib import rc_context  # costs a command that draws nothing nothing

    file, name = io.StringIO(), figure.get_label()
    with rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", NO_GLYPH)
        figure.savefig(file, format="svg", dpi="figure", metadata=UNDATED)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", "<svg" + file.getvalue().partition("<svg")[2])
    text = re.sub("<[^>]*>", lambda tag: of_page(tag[0]), text)
    text = text.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
    return Markup(text)  # noqa: S704  matplotlib escapes what it draws


def of_page(tag: str) -> str:
    """A tag of an SVG in colours of the page. A hundredth of a point is enough, and no long number looks like an ID."""
    for colour, own in OF_THE_PAGE.items():
        tag = tag.replace(colour, own)
    return re.sub(r"(\.\d\d)\d+", r"\1", DARK_GREY.sub("var(--soft)", tag))
