"""Things of one kind that a blackout replaces one at a time and tests together: a family, with a family-wise p of its
own. `Kind` says what is special to regions, connections and so on; `kinds.py` lists them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from data.cohorts.atlas import Atlas
from data.cohorts.cohort import Cohort
from data.cohorts.records import CLASS_NAMES
from utils.blackout import direction, options
from utils.blackout.effects import Adjusted, Beside, Effects, FamilyTest, mean_interval, permutation_test, widened
from utils.blackout.fills import RELIANCE, UNIQUE, Fill
from utils.runs.run import Run
from utils.scores.results import ALPHA, MIN_CLASS_SUBJECTS, columns_of

if TYPE_CHECKING:
    from utils.blackout.setup import Measured, Setup

SUPPRESSOR = "possibly a suppressor"  # unique without reliance


class Verdict(StrEnum):
    """Whether anything is concluded of the people; if not, why, beside how well they are predicted."""

    OPEN = ""
    CHANCE = "There is nothing to explain."
    ONE_CLASS = "Nothing is concluded: all participants are of one class, so that there is no p."
    FEW = f"Nothing is concluded: a class has fewer than {MIN_CLASS_SUBJECTS} participants."
    UNKNOWN = "Nothing is concluded."


@dataclass(frozen=True, eq=False)
class People:
    """The tested subjects, sorted by name. `label` (n,) is 1 for autism; `site` and `fold` (n,) are their site and the
    model that blacked them out; `unit` (n,) int numbers who is drawn together. `twice`: they also trained the models
    that blacked out others of them, see `widening`."""

    label: np.ndarray
    site: np.ndarray
    fold: np.ndarray
    unit: np.ndarray
    adjusted: Adjusted
    seed: int
    verdict: Verdict = Verdict.OPEN
    twice: bool = False

    def widening(self, share: float = 1) -> float:
        """How much wider the spread of a mean effect is than that of independent people. Each pair of people meets
        twice, see `utils.scores.metrics`; `share` of them are in the mean."""
        return float(np.sqrt(1 + share * self.twice))

    def interval(self, effect: np.ndarray) -> np.ndarray:
        """The mean of effects (subjects, things) with the ends of its 95 % interval, (things, 3)."""
        return np.column_stack(mean_interval(widened(effect, self.widening()), self.seed, self.unit))

    @property
    def exchanged_within(self) -> np.ndarray | None:
        """The site (n,) of each subject, within which residuals of labels are permuted where these are adjusted for it;
        None where they are not."""
        return self.site if "site" in self.adjusted.beside.covariates else None

    def test(self, beside: Beside, site: np.ndarray | None = None) -> FamilyTest:
        """Whether effects (subjects, things) speak for the true class; labels are permuted within a `site`."""
        return permutation_test(beside, self.seed, self.unit, self.widening(), site=site)


@dataclass(frozen=True, eq=False)
class Effect:
    """The effect of each thing by one fill: `of_people` (subjects, things), on the logit of the true class, positive
    where a thing speaks for it. `correct` takes covariates from it. No p is below `least` (things,)."""

    fill: Fill
    of_people: np.ndarray
    people: People
    correct: Callable[[np.ndarray], Beside]
    least: np.ndarray | float = 0.0

    @cached_property
    def beside(self) -> Beside:
        """What covariates leave of it."""
        return self.correct(self.of_people)

    @cached_property
    def interval(self) -> np.ndarray:
        """The mean with the ends of its 95 % interval, (things, 3)."""
        return self.people.interval(self.of_people)

    @property
    def net(self) -> np.ndarray:
        """The effects (subjects, things) adjusted for covariates."""
        return self.beside.net

    @cached_property
    def tested(self) -> FamilyTest:
        """The test of the adjusted effects."""
        return self.people.test(self.beside, self.people.exchanged_within)

    @cached_property
    def p(self) -> np.ndarray:
        """Family-wise p-values (things,) of the adjusted effects."""
        return np.maximum(self.tested.p, self.least)

    @property
    def q(self) -> np.ndarray:
        """Their false discovery rates (things,)."""
        return self.tested.q

    @cached_property
    def plain(self) -> np.ndarray:
        """Family-wise p-values (things,) of the effects before adjustment."""
        return self.people.test(self.people.adjusted.plain(self.of_people)).p

    @property
    def significant(self) -> np.ndarray:
        """Which things are significant (things,) bool; none if nothing is concluded of these people."""
        return (self.p < ALPHA) & (self.people.verdict is Verdict.OPEN)

    @property
    def on_autism(self) -> np.ndarray:
        """The effects (subjects, things) on the logit of autism, not of the true class."""
        return np.where(self.people.label == 1, 1, -1)[:, None] * self.of_people

    @property
    def columns(self) -> pd.DataFrame:
        """A row a thing: the mean with its 95 % interval; p and q if it is tested; means of classes if the fill has
        them."""
        name, label = self.fill.name, self.people.label
        found = pd.DataFrame(self.interval, columns=columns_of(name))
        if self.fill.tested:
            found[f"p_{name}"], found[f"q_{name}"] = self.p, self.q
        if self.fill.by_class:
            for value, of_class in reversed([*enumerate(CLASS_NAMES)]):
                own = self.of_people[label == value]
                found[f"{name}_{of_class}"] = own.mean(0) if len(own) else np.nan
        return found

    @property
    def adjusted_columns(self) -> pd.DataFrame:
        """The adjusted mean with its interval, which p tests, and p before adjustment."""
        found = pd.DataFrame(self.people.interval(self.net), columns=columns_of(f"{self.fill.name}_adjusted"))
        return found.assign(**{f"p_{self.fill.name}_plain": self.plain})


@dataclass(frozen=True, eq=False)
class Blackout:
    """The effects of a run on `people`, of which families are made."""

    run: Run
    effects: Effects
    people: People

    @cached_property
    def cohort(self) -> Cohort:
        return options.cohort_of(self.run)

    @cached_property
    def atlas(self) -> Atlas:
        return options.of(self.run).regions(self.cohort.grid)

    def of_subjects(self, name: str) -> np.ndarray:
        """The means (subjects, ...) of an array of the effects."""
        return self.effects.of_subjects(self.effects[name])

    def effect(self, fill: Fill, of_people: np.ndarray) -> Effect:
        """Adjusted for all covariates."""
        return Effect(fill, of_people, self.people, self.people.adjusted)


@dataclass(frozen=True)
class Kind:
    """What is special to the families of a kind: its words, how it is measured, and how a family is made of what was
    measured.

    `name` stands in `replication.csv`, `table` is the name of its CSV. `none` is said if none is significant; `inner`
    is what the things within its things are called. `shown` are the identifying columns that a page shows. `measure`
    gives the arrays of `Effects`; `family` is None of what was not replaced.
    """

    name: str
    table: str
    many: str
    family: Callable[[Blackout], "Family | None"]
    measure: Callable[["Setup"], "Measured"] | None = None
    about: str = ""
    none: str = ""
    inner: str = ""
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Family:
    """All `things` of a kind, by name. `place` has the columns that identify them, a row a thing.

    `effects`: the first is what they are ranked by. `value` (subjects, things) is what people have there, NaN where
    unknown or no number. `read` (subjects, things) is what the network makes of it, on the logit of autism; None is the
    first effect. `inner` are things within those that are significant, as regions within systems. `atlas`: things are
    its regions. `axes`: the columns of `place` whose values are the rows and the columns of a matrix. `notes` are
    footnotes of columns. `stored` goes to `blackout.h5`.
    """

    kind: Kind
    things: Sequence[str]
    place: pd.DataFrame
    effects: Sequence[Effect]
    value: np.ndarray
    read: np.ndarray | None = None
    inner: "Family | None" = None
    atlas: Atlas | None = None
    axes: tuple[str, str] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def reliance(self) -> Effect:
        return self.effects[0]

    @property
    def people(self) -> People:
        return self.reliance.people

    @property
    def tested(self) -> list[Effect]:
        return [effect for effect in self.effects if effect.fill.tested]

    @cached_property
    def order(self) -> np.ndarray:
        """Things by reliance (things,); equal ones as they come."""
        return np.argsort(-self.reliance.of_people.mean(0), kind="stable")

    @cached_property
    def significant_first(self) -> np.ndarray:
        """Things (things,) as they are shown where not all are: significant ones by p, then the others by reliance."""
        p = np.where(self.reliance.significant, self.reliance.p, 1)
        return np.lexsort((-self.reliance.of_people.mean(0), p))

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row a thing, in the order of `things`: `rank` by reliance, who it is, its effects, the same adjusted, which
        way people differ there and how that is read."""
        parts = [self.place, *(effect.columns for effect in self.effects)]
        parts += [effect.adjusted_columns for effect in self.tested]
        read = self.reliance.on_autism if self.read is None else self.read
        rank = pd.Series(np.argsort(self.order) + 1, name="rank")
        return pd.concat([rank, *parts, self.remark, direction.columns(self.value, read, self.people)], axis=1)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows by reliance, then those of `inner`."""
        by_reliance = self.rows.iloc[self.order]
        return pd.concat([by_reliance, self.inner.table] if self.inner else [by_reliance], ignore_index=True)

    def first(self, count: int) -> np.ndarray:
        """So many things, `significant_first`; more if more are significant."""
        return self.significant_first[: max(count, self.reliance.significant.sum())]

    @property
    def remark(self) -> pd.DataFrame:
        """What is unique without reliance; nothing if that is not tested."""
        if UNIQUE not in (p := {effect.fill.name: effect.p for effect in self.tested}):
            return pd.DataFrame()
        alone = (p[UNIQUE] < ALPHA) & ~(p[RELIANCE] < ALPHA)
        return pd.DataFrame({"remark": np.where(alone, SUPPRESSOR, "")})
