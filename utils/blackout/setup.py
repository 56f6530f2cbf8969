"""What a blackout needs of a network, and what its measuring gives."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from data.cohorts.cohort import Cohort
from utils.blackout.donors import Donors
from utils.blackout.edge_logits import EdgeLogits, edge_logits
from utils.blackout.fills import Fills
from utils.blackout.occlusion import Occlusion, occlusion_of
from utils.blackout.options import cohort_of, of, tables_of
from utils.runs.run import Run
from utils.training.network import compute_autism_logit


class OfVolume(NamedTuple):
    """What replaces regions, and what computes a network's logits then."""

    fills: Fills
    occlusion: Occlusion


@dataclass(frozen=True, eq=False)
class Setup:
    """A network, and who gives what replaces parts of what it reads. `volume` is None of one that reads no volume,
    `edges` of one that reads no connectome."""

    run: Run
    network: keras.Model
    donors: Donors
    volume: OfVolume | None
    edges: EdgeLogits | None

    @classmethod
    def of(cls, run: Run, network: keras.Model) -> "Setup":
        chosen, cohort = of(run), cohort_of(run)
        donors = Donors(cohort, run.cohort.split_indices("test"), chosen.donors, run.seed)
        if "volume" not in run.model.input_names:
            return cls(run, network, donors, None, None)
        fills = Fills(cohort, chosen.regions(cohort.grid), donors, chosen, run.seed)
        return cls(run, network, donors, OfVolume(fills, occlusion_of(network)), edge_logits(network))

    @property
    def cohort(self) -> Cohort:
        return cohort_of(self.run)

    @property
    def sign(self) -> np.ndarray:
        """That of the true class on the logit of autism, (records, 1)."""
        return np.array([[1.0 if self.run.cohort.rows[index].label == 1 else -1.0] for index in self.donors.tested])

    def batch(self, record: int) -> dict[str, np.ndarray]:
        """A record of the cohort, as networks read it."""
        return self.cohort.make_batch([record], table_by_name=tables_of(self.cohort))

    def log_odds(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of autism (n,), by a full pass of the network."""
        read = {name: inputs[name] for name in self.network.input}
        return compute_autism_logit(np.asarray(self.network(read, training=False)))


class Check(NamedTuple):
    """Inputs (1, ...) with something replaced, and the log odds of autism that was measured for them."""

    inputs: Mapping[str, np.ndarray]
    measured: float


@dataclass(frozen=True, eq=False)
class Measured:
    """Arrays of `Effects`; `checks` gives, of the place of a tested record, some of what was measured, to be computed
    again in full."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    checks: Callable[[int, np.random.Generator], Iterable[Check]] = lambda at, random: ()
