"""Records -> what replaces their regions in a blackout: a row of `FILLS` for each effect that is measured.

All of a region is replaced: its voxels, and its edges where the network reads connectomes (`edges.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data.cohorts import records
from data.cohorts.atlas import Atlas, load_parcel_means, make_region_parcels
from data.cohorts.cohort import Cohort
from utils.blackout.donors import Donors, rows_by_person
from utils.blackout.edges import Contents, Edges, Replacement
from utils.blackout.options import CONNECTOME, BlackoutOptions, tables_of

INNER_FOLDS = 5  # so that no one's region is predicted from a fit that has seen it
PENALTIES = np.logspace(-3, 1, 9)  # of squared weights, per record


@dataclass(frozen=True, eq=False)
class Fill:
    """An effect: what is `shown` of the `Contents`, what a `region` of that becomes, and what a page says.

    The effect is on the logit of the true class: its fall, or its rise if `rises`, as a mean over donors if
    `by_donor`. `level` gives the regions' means (records of the cohort, regions, maps) by which the chance of having
    drawn these donors is taken out of the effect of voxels; without it nothing is. Only effects that are `tested` have
    p-values; those `by_class` have a mean of each class.
    """

    name: str  # a column of `regions.csv`
    shown: Callable[[Contents], np.ndarray]
    region: Callable[[Contents], Any]
    meaning: str  # {background}: what the background is
    level: Callable[["Fills"], np.ndarray] | None = None
    by_donor: bool = True
    rises: bool = False
    tested: bool = False
    by_class: bool = False
    array: str = ""

    @property
    def stored(self) -> str:
        """Its name in `blackout.h5`."""
        return self.array or self.name

    @property
    def prefix(self) -> str:
        """Before what a page says of it beside other effects: nothing for the first one."""
        return "" if self.name == RELIANCE else f"{self.name} "


RELIANCE, UNIQUE, BACKGROUND = "reliance", "unique", "background"  # to each of which some result is tied
FILLS = (
    Fill(
        RELIANCE,
        shown=lambda of: of.own,
        region=lambda of: of.donor,  # if it has to do with neither label nor brain, both people's can be exchanged
        level=lambda fills: fills.means,
        tested=True,
        meaning="How much the logit of the true class falls when another participant's takes its place. It is positive "
        "where the network's evidence rests on what this person has there. Mean over participants, with its 95% "
        "interval.",
    ),
    Fill(
        UNIQUE,
        shown=lambda of: of.own,
        region=lambda of: of.expected,  # conditional permutation importance: Strobl et al. 2008, Chamma et al. 2023
        level=lambda fills: fills.means - fills.expected,
        tested=True,
        meaning="The same, with the other participant's region shifted to the level that the rest of their own brain "
        "predicts. It shows what the region says and the rest does not.",
    ),
    Fill(
        BACKGROUND,  # the blackout of most of the literature
        shown=lambda of: of.own,
        region=lambda of: of.background,
        by_donor=False,
        by_class=True,
        array="delta_logit",
        meaning="How much the logit of the true class falls when the region becomes {background}. The network has "
        "never seen that, so no p-value is given.",
    ),
    Fill(
        "sufficiency",
        shown=lambda of: of.donor,
        region=lambda of: of.own,
        rises=True,
        meaning="How much the logit of the true class rises when this region of the person is put into another "
        "participant's brain. It shows what the region says alone. Sufficient but not unique means redundant; "
        "neither means unimportant.",
    ),
)
FILL_OF = {fill.name: fill for fill in FILLS}


class Filled(NamedTuple):
    """A batch of n records, as of `Cohort.make_batch`; and of each fill, by donor, what replaces parts of which
    input."""

    batch: dict[str, np.ndarray]
    by_fill: dict[str, list[dict[str, Replacement]]]


class Fills:
    """Fills for the tested records of a cohort. Those of a record do not depend on which others are blacked out.

    `masks` (x, y, z) bool are of the atlas's regions; `replaced` (maps,) bool says which maps are replaced, `separate`
    the numbers of those that are also replaced one at a time.
    `means` and `expected` (records of the cohort, regions, maps) are the regions' means, and what the other regions
    predict of them. `edges` are those of connectomes, None if they stay.
    """

    def __init__(self, cohort: Cohort, atlas: Atlas, donors: Donors, options: BlackoutOptions, seed: int):
        self.cohort, self.donors, self.replaced = cohort, donors, options.replaced_maps(cohort)
        self.separate = options.separate_maps(cohort)
        self.masks = [atlas.region_labels == region for region in atlas.region_numbers]
        self._region_at = atlas.find_region_indices(atlas.region_labels)
        self.means: np.ndarray = load_parcel_means(cohort, [make_region_parcels(atlas)])[0].astype(float)
        self.expected: np.ndarray = expected_means(cohort, self.means)
        self.edges = Edges(cohort, atlas, self.means, seed) if options.replaces_edges(cohort) else None

    def of(self, indices: np.ndarray) -> Filled:
        """Of n records, with `connectome` if the cohort has any."""
        batch = self.cohort.make_batch(indices, table_by_name=tables_of(self.cohort))
        positions = self.donors.of(indices)
        volumes = self.volumes(batch["volume"], indices, positions)
        edges = self.edges.contents(indices, positions) if self.edges else None
        by_fill: dict[str, list[dict[str, Replacement]]] = {fill.name: [] for fill in FILLS}
        for fill in FILLS:
            for donor in range(self.donors.count if fill.by_donor else 1):
                shown, given = fill.shown(volumes[donor]), fill.region(volumes[donor])
                given = given if self.replaced.all() else np.where(self.replaced, given, shown)
                one = {"volume": Replacement(shown, given, self.masks)}
                if self.edges and edges:
                    shown, given = fill.shown(edges[donor]), fill.region(edges[donor])
                    one[CONNECTOME] = Replacement(shown, given, self.edges.of_region)
                by_fill[fill.name].append(one)
        return Filled(batch, by_fill)

    def volumes(self, own: np.ndarray, indices: np.ndarray, positions: np.ndarray) -> list[Contents]:
        """What may stand in the regions of volumes, by donor. `expected` is the donor's, moved so that each region's
        mean is what the person's other regions predict plus the donor's own residual."""
        outside = [[records.find_background(values) for values in np.moveaxis(record, -1, 0)] for record in own]
        background = np.array(outside, np.float32)[:, None, None, None]
        shift = self.expected[indices] - self.expected[positions]  # (donors, n, regions, maps)
        shift = np.pad(shift, ((0, 0), (0, 0), (0, 1), (0, 0))).astype(np.float32)  # outside the regions 0
        donors = [self.cohort.make_batch(row)["volume"] for row in positions]
        return [
            Contents(own, background, donor, donor + of_donor[:, self._region_at])
            for donor, of_donor in zip(donors, shift, strict=True)
        ]

    def deviations(self, level: np.ndarray) -> np.ndarray:
        """`Donors.deviations` of the `level` of a `Fill`, in replaced maps: (records, 1 + donors, regions, maps)."""
        return self.donors.deviations(level[..., self.replaced])


def expected_means(cohort: Cohort, means: np.ndarray) -> np.ndarray:
    """Predicts each region's mean from the record's other regions, (records of the cohort, regions, maps) float64.

    The prediction is fitted on the training records, or on all if there are none; the records that it is fitted on are
    predicted from other people's. Each region has the penalty that predicts it best.
    """
    from sklearn.model_selection import GroupKFold

    usable = cohort.find_unswapped_indices()
    fitting = np.array([at for at in usable if cohort.rows[at].split == "train"] or usable)
    rows = rows_by_person(cohort)
    subject = [rows[position].subject for position in fitting]
    found = predict_regions(means[fitting], means)
    for rest, held_out in GroupKFold(min(INNER_FOLDS, len(set(subject)))).split(fitting, groups=subject):
        found[:, fitting[held_out]] = predict_regions(means[fitting[rest]], means[fitting[held_out]])
    error = np.square(found[:, fitting] - means[fitting]).sum((1, 3))
    return np.take_along_axis(found, error.argmin(0)[None, None, :, None], axis=0)[0]


def predict_regions(training: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Ridge regressions of each region's maps on the maps of all other regions, (n, regions, maps) each. They are
    fitted on `training` and standardised there -> predictions (penalties, n, regions, maps) of `means`.

    P is the inverse of the correlations plus a penalty. The prediction of region r is x_r - (x P)_r P[r, r]^-1. So one
    decomposition of the training records serves all regions and penalties.
    """
    _, regions, maps = training.shape
    values, new = (array.reshape(len(array), regions * maps) for array in (training, means))
    centre, spread = values.mean(0), values.std(0)
    spread[spread == 0] = 1
    values, new = (values - centre) / spread, (new - centre) / spread
    _, singular, axes = np.linalg.svd(values, full_matrices=False)  # axes (rank, regions x maps)
    of_region = axes.reshape(-1, regions, maps).transpose(1, 2, 0)
    found = []
    for penalty in PENALTIES:
        share = singular**2 / (singular**2 + penalty * len(values))  # P is the identity minus these shares of the axes,
        product = new - (new @ axes.T * share) @ axes  # over the penalty, which cancels
        own = np.eye(maps) - (of_region * share) @ of_region.swapaxes(1, 2)
        unexplained = np.einsum("ira,rab->irb", product.reshape(-1, regions, maps), np.linalg.inv(own))
        found.append((new - unexplained.reshape(new.shape)) * spread + centre)
    return np.stack(found).reshape(len(PENALTIES), *means.shape)
