"""Two tests of the same people -> a `Pair`: paired differences, correlation of predictions, and who is right where."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from utils.compare.runs import FinishedTest
from utils.evaluation.comparisons import standing
from utils.scores.metrics import differences, headline, log_odds
from utils.scores.results import THRESHOLD, Estimate, flat, or_none

SEED = 0  # of the bootstrap, whatever those of the runs are
DIGITS = 6  # of log odds; what varies less is rounding
CONCLUSIONS = {"beats": "a is better", "worse": "b is better", "level": "level", "unknown": "unknown"}


@dataclass(frozen=True)
class Agreement:
    """How many records are predicted right by whom, at the threshold of all results."""

    both_right: int
    only_a_right: int
    only_b_right: int
    neither_right: int

    @classmethod
    def of(cls, one: np.ndarray, other: np.ndarray) -> "Agreement":
        """From which records (n,) bool either predicts right."""
        counts = (one & other, one & ~other, ~one & other, ~one & ~other)
        return cls(*(int(count.sum()) for count in counts))

    @property
    def p(self) -> float:
        """Exact McNemar test (1947): whether those whom only one predicts right are as many on both sides. It takes
        records as independent, and does not know what the models of folds share."""
        apart = self.only_a_right + self.only_b_right
        return float(binomtest(self.only_a_right, apart).pvalue) if apart else 1.0

    @property
    def row(self) -> dict[str, float]:
        return asdict(self) | {"p_mcnemar": self.p}


@dataclass(frozen=True)
class Site:
    """The people of a site, and who is predicted right there."""

    name: str
    subjects: int
    agreement: Agreement


@dataclass(frozen=True, eq=False)
class Pair:
    """Two runs, a and b; `less`: scores of a minus those of b as `metrics.differences` has them; `correlations` of
    their log odds, over all records and, where there are several, within sites."""

    a: FinishedTest
    b: FinishedTest
    less: dict[str, Estimate]
    correlations: dict[str, float | None]
    agreement: Agreement
    sites: tuple[Site, ...]

    @property
    def name(self) -> str:
        return f"{self.a.letter} and {self.b.letter}"

    @property
    def area(self) -> str:
        """The AUC that the conclusion rests on."""
        return headline(self.less)

    @property
    def standing(self) -> str:
        """What the interval of the difference of that AUC says of a."""
        return standing(self.less[self.area])


def compared(a: FinishedTest, b: FinishedTest) -> Pair:
    """Two runs that may be compared, side by side."""
    both = [run.known for run in (a, b)]
    site = both[0]["site"]
    right = [((table["probability"] >= THRESHOLD) == (table["label"] == 1)).to_numpy() for table in both]
    within = {"correlation_sites": correlation(both, site)} if site.nunique() > 1 else {}
    sites = [
        Site(name, both[0]["subject"][at].nunique(), Agreement.of(right[0][at], right[1][at]))
        for name, at in ((name, (site == name).to_numpy()) for name in site.unique())
    ]
    return Pair(
        a,
        b,
        differences(a.predictions, b.predictions, SEED),
        {"correlation": correlation(both)} | within,
        Agreement.of(*right),
        tuple(sorted(sites, key=lambda one: (-one.subjects, one.name))),
    )


def correlation(both: Sequence[pd.DataFrame], site: pd.Series | None = None) -> float | None:
    """Pearson's, of the log odds of two tables of predictions, minus their mean at each `site` if that is given; None
    if one of them does not vary."""
    values = pd.DataFrame(
        {name: log_odds(table["probability"].to_numpy()) for name, table in zip("ab", both, strict=True)}
    )
    if site is not None:
        values -= values.groupby(site.to_numpy()).transform("mean")
    return or_none(values.round(DIGITS).corr().loc["a", "b"])


def rows(pairs: Sequence[Pair]) -> Iterator[dict]:
    """The rows of `compare.csv`."""
    for pair in pairs:
        names = [name for name in pair.less if name in pair.a.scores]
        yield {
            "a": str(pair.a.folder),
            "b": str(pair.b.folder),
            "conclusion": CONCLUSIONS[pair.standing],
            "by": pair.area,
            "subjects": pair.a.known["subject"].nunique(),
            "records": len(pair.a.known),
            **{
                f"{name}_{side}": run.scores[name].value
                for name in names
                for side, run in (("a", pair.a), ("b", pair.b))
            },
            **flat({f"a_minus_b_{name}": pair.less[name] for name in names}),
            **pair.correlations,
            **pair.agreement.row,
        }


def site_rows(pairs: Sequence[Pair]) -> Iterator[dict]:
    """The rows of `compare_sites.csv`."""
    for pair in pairs:
        folders = {"a": str(pair.a.folder), "b": str(pair.b.folder)}
        for site in pair.sites:
            yield folders | {"site": site.name, "subjects": site.subjects} | site.agreement.row
