"""Things of one kind that a blackout replaces one at a time and tests together: regions, regions in one map,
connections, values of the phenotype. Each kind is a family of its own, with its own family-wise p."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from utils.blackout.effects import Adjusted, Beside, mean_interval, permutation_test, widened
from utils.blackout.fills import RELIANCE
from utils.scores.results import ALPHA


@dataclass(frozen=True, eq=False)
class People:
    """The tested subjects, sorted by name. `label` (n,) is 1 for autism; `site` and `fold` (n,) are their site and the
    model that blacked them out; `unit` (n,) int numbers who is drawn together. `concludes`: the network is better than
    chance on them, and each class has enough of them, so that a significant thing is named. `twice`: they also trained
    the models that blacked out others of them, see `widening`."""

    label: np.ndarray
    site: np.ndarray
    fold: np.ndarray
    unit: np.ndarray
    adjusted: Adjusted
    concludes: bool
    seed: int
    twice: bool = False

    def widening(self, share: float = 1) -> float:
        """How much wider the spread of a mean effect is than that of independent people. Each pair of people meets
        twice, see `utils.scores.metrics`; `share` of them are in the mean."""
        return float(np.sqrt(1 + share * self.twice))


@dataclass(frozen=True, eq=False)
class Family:
    """`things` are their names. `effect` (subjects, things) is on the logit of the true class, positive where a thing
    speaks for it. `value` (subjects, things) is what people have there, NaN where unknown or where it is no number."""

    name: str
    things: Sequence[str]
    effect: np.ndarray
    value: np.ndarray
    people: People

    @cached_property
    def beside(self) -> Beside:
        """What covariates leave of the effects."""
        return self.people.adjusted(self.effect)

    @property
    def net(self) -> np.ndarray:
        """The effects (subjects, things) adjusted for covariates."""
        return self.beside.net

    @cached_property
    def _tested(self) -> tuple[np.ndarray, np.ndarray]:
        return self.test(self.beside)

    @property
    def p(self) -> np.ndarray:
        """Family-wise p-values (things,) of the adjusted effects."""
        return self._tested[0]

    @property
    def q(self) -> np.ndarray:
        """Their false discovery rates (things,)."""
        return self._tested[1]

    @cached_property
    def plain(self) -> np.ndarray:
        """Family-wise p-values (things,) of the effects before adjustment."""
        return self.test(self.people.adjusted.plain(self.effect))[0]

    def test(self, beside: Beside) -> tuple[np.ndarray, np.ndarray]:
        """p and q of effects."""
        people = self.people
        return permutation_test(beside, people.seed, people.unit, people.widening())

    @property
    def named(self) -> np.ndarray:
        """Which things are named (things,) bool: the significant ones, if anything is concluded of these people."""
        return (self.p < ALPHA) & self.people.concludes

    @property
    def on_autism(self) -> np.ndarray:
        """The effects (subjects, things) on the logit of autism, not of the true class."""
        return np.where(self.people.label == 1, 1, -1)[:, None] * self.effect

    @property
    def read(self) -> np.ndarray:
        """What the network makes of people's values (subjects, things): the effects on the logit of autism."""
        return self.on_autism

    def columns(self, kind: str = RELIANCE) -> pd.DataFrame:
        """A row a thing: the mean effect with its 95 % interval, p after and before adjustment. Then the adjusted mean
        with its interval, which p tests. Names begin with the `kind` of effect."""
        people, found = self.people, pd.DataFrame(index=range(len(self.things)))
        found[[kind, f"{kind}_low", f"{kind}_high"]] = intervals(self.effect, people)
        found[f"p_{kind}"] = self.p
        found[f"p_{kind}_plain"] = self.plain
        name = f"{kind}_adjusted"
        found[[name, f"{name}_low", f"{name}_high"]] = intervals(self.net, people)
        return found


def intervals(effect: np.ndarray, people: People) -> np.ndarray:
    """The mean of effects (subjects, things) with the ends of its 95 % interval, (things, 3)."""
    return np.column_stack(mean_interval(widened(effect, people.widening()), people.seed, people.unit))
