"""What a blackout needs of a network, and what its measuring gives."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data.cohorts.cohort import Cohort
from utils.blackout.donors import Donors
from utils.blackout.edges import RegionEdges
from utils.blackout.fills import Fills
from utils.blackout.options import (
    get_blackout_options,
    make_connectome_tables,
    select_network_cohort,
)
from utils.runs.network import ReadyNetwork
from utils.runs.run import Run

if TYPE_CHECKING:
    import keras

    from utils.blackout.edge_logits import EdgeLogits
    from utils.blackout.occlusion import Occlusion


class VolumeOcclusion(NamedTuple):
    """What replaces regions, and what computes a network's logits then."""

    fills: Fills
    occlusion: "Occlusion"


@dataclass(frozen=True, eq=False)
class BlackoutSetup:
    """A network, and the donors and fills that replace parts of what it reads."""

    run: Run
    ready_network: ReadyNetwork
    donors: Donors
    volume_occlusion: VolumeOcclusion | None  # None for a network that reads no volume
    edge_logits: "EdgeLogits | None"  # None for a network that reads no connectome
    region_edges: RegionEdges | None  # None if no edges are replaced

    @classmethod
    def from_run(cls, run: Run) -> "BlackoutSetup":
        """Raises InputError, see `Predictor.make_ready`."""
        from utils.blackout.edge_logits import make_edge_logits  # imports Keras, which is slow
        from utils.blackout.occlusion import make_occlusion

        ready_network = run.predictor.make_ready(run.fold_data)
        if not isinstance(ready_network, ReadyNetwork):
            raise TypeError(f"{run.predictor.name} is no network")
        blackout_options = get_blackout_options(run)
        cohort = select_network_cohort(run)
        donors = Donors(cohort, run.cohort.find_split_record_indices("test"), blackout_options.donors, run.seed)
        network = ready_network.network
        edge_logits = make_edge_logits(network)
        if "volume" in run.predictor.input_names:
            fills = Fills(cohort, blackout_options.load_regions(cohort.grid), donors, blackout_options, run.seed)
            volume_occlusion = VolumeOcclusion(fills, make_occlusion(network))
            return cls(run, ready_network, donors, volume_occlusion, edge_logits, fills.region_edges)
        region_edges = None
        if blackout_options.replaces_edges(cohort):
            atlas = blackout_options.load_regions(cohort.region_grid)
            no_region_means = np.empty((len(cohort.rows), len(atlas.region_numbers), 0))
            region_edges = RegionEdges(cohort, atlas, no_region_means, run.seed)
        return cls(run, ready_network, donors, None, edge_logits, region_edges)

    @property
    def network(self) -> "keras.Model":
        return self.ready_network.network

    @property
    def cohort(self) -> Cohort:
        return select_network_cohort(self.run)

    @property
    def class_signs(self) -> np.ndarray:
        """The sign of the true class on the logit of autism, (records, 1)."""
        return np.array(
            [
                [1.0 if self.run.cohort.rows[record_index].label == 1 else -1.0]
                for record_index in self.donors.tested_record_indices
            ]
        )

    def load_record_batch(self, record_index: int) -> dict[str, np.ndarray]:
        """A record of the cohort, as networks read it."""
        return self.load_batch([record_index])

    def load_batch(self, record_indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Records of the cohort, as networks read them."""
        cohort = self.cohort
        return cohort.make_batch(
            record_indices, with_volumes=cohort.num_maps > 0, record_table_by_name=make_connectome_tables(cohort)
        )


class RecomputationCheck(NamedTuple):
    """Inputs (1, ...) with something replaced, and the log odds of autism that were measured for them."""

    input_by_name: Mapping[str, np.ndarray]  # with something replaced, (1, ...) each
    measured_log_odds: float  # of autism


@dataclass(frozen=True, eq=False)
class Measurements:
    """Arrays of `RecordEffects`; `make_recomputation_checks` returns, for the position of a tested record, some of
    what was measured, to be computed again in full."""

    # (records, ...) each, by the name in `blackout.h5`
    record_array_by_name: dict[str, np.ndarray] = field(default_factory=dict)
    make_recomputation_checks: Callable[[int, np.random.Generator], Iterable[RecomputationCheck]] = (
        lambda tested_position, rng: ()
    )
