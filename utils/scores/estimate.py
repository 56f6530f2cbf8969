"""A value with its 95 % interval: the one form of scores, differences and correlations in files, tables and texts."""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd


def or_none(value: float | None) -> float | None:
    """A number for JSON, which has no NaN and no infinity: None for them."""
    return float(value) if value is not None and math.isfinite(value) else None


def columns_of(name: str = "") -> list[str]:
    """The three columns of an estimate in a table; without a name those of a table that holds one estimate a row."""
    return [name, f"{name}_low", f"{name}_high"] if name else ["value", "low", "high"]


@dataclass(frozen=True)
class Estimate:
    """A number with both ends of its interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, value: float | None, low: float | None = None, high: float | None = None) -> "Estimate":
        """Of numbers that may be NaN or infinite, which are undefined."""
        return cls(or_none(value), or_none(low), or_none(high))

    @classmethod
    def in_row(cls, row: "Mapping[str, Any] | pd.Series", name: str = "") -> "Estimate":
        """From the columns `columns_of(name)` of a row of a table."""
        return cls.of(*(row[column] for column in columns_of(name)))

    def columns(self, name: str = "") -> dict[str, float | None]:
        """The cells of the columns `columns_of(name)`; without a name they are the estimate in JSON."""
        return dict(zip(columns_of(name), astuple(self), strict=True))

    @property
    def numbers(self) -> tuple[float, ...]:
        """Value, low, high; NaN where undefined."""
        return tuple(math.nan if number is None else number for number in astuple(self))

    def ends(self, form: str = ".3f", undefined: str = "-", between: str = " to ") -> str:
        """`0.500 to 0.720`."""
        if self.low is None or self.high is None:
            return undefined
        return f"{self.low:{form}}{between}{self.high:{form}}"

    def text(self, form: str = ".3f", undefined: str = "-", between: str = " to ", no_interval: str = "") -> str:
        """`0.610 (0.500 to 0.720)`, or the value alone if it has no interval."""
        if self.value is None:
            return undefined
        ends = self.ends(form, no_interval, between)
        return f"{self.value:{form}} ({ends})" if ends else f"{self.value:{form}}"


UNDEFINED = Estimate(None, None, None)


def flat(estimates: Mapping[str, Estimate]) -> dict[str, float | None]:
    """The cells of several estimates, by their names, in one row of a table."""
    return {column: number for name, one in estimates.items() for column, number in one.columns(name).items()}


class Headline(NamedTuple):
    """The metric that stands for a run, by its name."""

    metric: str
    score: Estimate

    @property
    def listed(self) -> list[Any]:
        """Metric, value, low, high, as `run.json` has them."""
        return [self.metric, *astuple(self.score)]
