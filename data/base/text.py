"""Texts for terminals, pages, figures and tables: names of users made harmless, numbers that may be undefined."""

import math

FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of a formula


def printable(text: str) -> str:
    """On one line, without what steers a terminal: control, bidirectional and invisible characters become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def shortened(text: str, width: int) -> str:
    """At most `width` letters, the last one a dot-dot-dot if any were cut off."""
    return text if len(text) <= width else text[: width - 1] + "…"


def in_spreadsheet(text: str) -> str:
    """As a cell of a CSV file; an apostrophe before what would be computed when it is opened."""
    return f"'{text}" if text.startswith(FORMULA) else text


def number(value: float, form: str, undefined: str = "-") -> str:
    """A number in a format; `undefined` for NaN and infinity."""
    return format(value, form) if math.isfinite(value) else undefined


def interval(low: float, high: float) -> str:
    """`-0.0612 to 0.4412`, or why there is none."""
    return "no interval: one subject" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
