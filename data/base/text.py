"""Texts for terminals, pages, figures and tables: harmless names of users, numbers that may be undefined."""

import math

FORMULA = ("=", "+", "-", "@")  # a cell that begins so is a formula to a spreadsheet


def printable(text: str) -> str:
    """On one line; control, bidirectional and invisible characters, which a terminal may obey, become spaces."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def shortened(text: str, width: int) -> str:
    """At most `width` characters, the last one an ellipsis if any were cut off."""
    return text if len(text) <= width else text[: width - 1] + "…"


def in_spreadsheet(text: str) -> str:
    """A cell of a CSV file; an apostrophe is put before a formula, so that no spreadsheet computes it."""
    return f"'{text}" if text.startswith(FORMULA) else text


def number(value: float, form: str, undefined: str = "-") -> str:
    """A number in a format; `undefined` for NaN and infinity."""
    return format(value, form) if math.isfinite(value) else undefined


def interval(low: float, high: float) -> str:
    """`-0.0612 to 0.4412`, or why there is none."""
    return "no interval: one subject" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
