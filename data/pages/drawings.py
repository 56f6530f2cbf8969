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

SVG_MISSING_GLYPH_WARNING = r"Glyph \d+ .* missing from font"
OMITTED_SVG_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # metadata that an SVG does without
# A dollar in a name starts no formula. Equal figures give equal bytes; texts stay texts
PAGE_FIGURE_SETTINGS: dict[Any, Any] = {"font.size": 8.5, "text.parse_math": False}
SVG_SETTINGS: dict[Any, Any] = PAGE_FIGURE_SETTINGS | {"svg.fonttype": "none", "svg.hashsalt": "figure"}
PAGE_COLOUR_BY_SVG_COLOUR = {"#000000": "currentColor", "#ffffff": "var(--paper)"}  # colours that follow light and dark
DARK_GREY_PATTERN = re.compile("#([3-6][0-9a-f])\\1\\1")
MAX_TICKS = 6
TICK_STEPS = (1, 2, 2.5, 5, 10)  # of a forest plot's axis


@dataclass(frozen=True)
class ForestBar:
    """A row of a forest plot: a value, the ends of its interval, and what is written of both. What has no interval is
    not drawn.

    The kind is "main" for what the page is about, "named" for what stands beside it, or empty.
    """

    name: str  # label of the row
    value: float
    interval_low: float
    interval_high: float
    text: str  # value and interval, as printed
    kind: str = ""  # "main", "named" or empty


@dataclass(frozen=True)
class Forest:
    """Values and intervals below each other, beside a line of no effect; as wide as the page."""

    about: str  # caption of the plot
    bars: Sequence[ForestBar]
    line: float  # value of no effect

    @property
    def ticks(self) -> list[float]:
        """Round numbers around all ends and the line."""
        from matplotlib.ticker import MaxNLocator  # costs a command without a page nothing

        drawn_values = [
            self.line,
            *(interval_end for bar in self.bars for interval_end in (bar.interval_low, bar.interval_high)),
        ]
        return [
            float(tick)
            for tick in MaxNLocator(MAX_TICKS, steps=TICK_STEPS).tick_values(min(drawn_values), max(drawn_values))
        ]

    def at(self, value: float) -> str:
        """Where a value lies, in percent of the width."""
        first_tick = self.ticks[0]
        last_tick = self.ticks[-1]
        return f"{100 * (value - first_tick) / (last_tick - first_tick):.2f}%"

    def span(self, bar: ForestBar) -> str:
        """Where the interval of a bar lies, as CSS."""
        first_tick = self.ticks[0]
        last_tick = self.ticks[-1]
        return (
            f"left:{self.at(bar.interval_low)};"
            f"width:{100 * (bar.interval_high - bar.interval_low) / (last_tick - first_tick):.2f}%"
        )


@dataclass(frozen=True)
class PageImage:
    """An image in the page itself, with its text for those who do not see it."""

    image_bytes: bytes
    alt: str
    image_format: str = "png"

    @property
    def uri(self) -> Markup:
        return Markup(f"data:image/{self.image_format};base64,{base64.b64encode(self.image_bytes).decode()}")  # noqa: S704  letters only


def make_svg(figure: "Figure") -> Markup:
    """A figure as an SVG element that can stand in a page with others: its ids begin with the figure's label. Black,
    white and dark grey are those of the page."""
    from matplotlib import rc_context  # costs a command that draws nothing nothing

    svg_file = io.StringIO()
    figure_label = figure.get_label()
    with rc_context(SVG_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", SVG_MISSING_GLYPH_WARNING)
        figure.savefig(svg_file, format="svg", dpi="figure", metadata=OMITTED_SVG_METADATA)
    svg_text = re.sub(
        r'(\bid="|url\(#|href="#)', rf"\g<1>{figure_label}-", "<svg" + svg_file.getvalue().partition("<svg")[2]
    )
    svg_text = re.sub("<[^>]*>", lambda tag_match: apply_page_colours(tag_match[0]), svg_text)
    svg_text = svg_text.replace("<svg", f'<svg role="img" aria-label="{figure_label}"', 1)
    return Markup(svg_text)  # noqa: S704  matplotlib escapes what it draws


def apply_page_colours(svg_tag: str) -> str:
    """A tag of an SVG in colours of the page. A hundredth of a point is enough, and no long number looks like an ID."""
    for svg_colour, page_colour in PAGE_COLOUR_BY_SVG_COLOUR.items():
        svg_tag = svg_tag.replace(svg_colour, page_colour)
    return re.sub(r"(\.\d\d)\d+", r"\1", DARK_GREY_PATTERN.sub("var(--soft)", svg_tag))
