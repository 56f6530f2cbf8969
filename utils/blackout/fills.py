"""Records -> what replaces their regions in a blackout: a row of `FILLS` for each effect that is measured.

All of a region is replaced: its voxels, and its edges where the network reads connectomes (`edges.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from data.cohorts.cohort import Cohort
from data.cohorts.parcel_means import load_parcel_means
from data.images import brain
from data.images.atlas import Atlas
from data.images.parcels import make_region_parcels
from utils.blackout.donors import Donors, merge_group_subjects
from utils.blackout.edges import RegionContents, RegionEdges, Replacement
from utils.blackout.options import CONNECTOME_INPUT, BlackoutOptions, make_connectome_tables

INNER_FOLD_COUNT = 5  # so that no one's region is predicted from a fit that has seen it
REGION_RIDGE_PENALTIES = np.logspace(-3, 1, 9)  # of squared weights, per record


@dataclass(frozen=True, eq=False)
class Fill:
    """An effect: which of the `RegionContents` the network is shown (`select_input`), what replaces a part of it
    (`select_replacement`), and what a page says.

    The effect is on the logit of the true class: its fall, or its rise if `is_logit_rise`, as a mean over donors if
    `is_by_donor`. `compute_region_levels` returns the regions' means (records of the cohort, regions, maps) by which
    the chance of having drawn these donors is taken out of the effect of voxels; without it, nothing is taken out. Only
    effects with `has_p_values` have p-values; those with `has_class_means` have a mean of each class.
    """

    fill_name: str  # a column of `regions.csv`
    select_input: Callable[[RegionContents], np.ndarray]
    select_replacement: Callable[[RegionContents], Any]
    column_meaning: str  # {background}: what the background is
    compute_region_levels: Callable[["Fills"], np.ndarray] | None = None  # (records, regions, maps)
    is_by_donor: bool = True
    is_logit_rise: bool = False
    has_p_values: bool = False
    has_class_means: bool = False
    array_name: str = ""  # in `blackout.h5`, where it is not `fill_name`

    @property
    def stored_array_name(self) -> str:
        """Its name in `blackout.h5`."""
        return self.array_name or self.fill_name

    @property
    def heading_prefix(self) -> str:
        """What begins its column headings beside those of other effects: nothing for the first one."""
        return "" if self.fill_name == RELIANCE_FILL else f"{self.fill_name} "


RELIANCE_FILL = "reliance"
UNIQUE_FILL = "unique"
BACKGROUND_FILL = "background"  # fills to which some result is tied
FILLS = (
    Fill(
        RELIANCE_FILL,
        select_input=lambda region_contents: region_contents.person_values,
        select_replacement=lambda region_contents: (
            region_contents.donor_values
        ),  # if it has to do with neither the label nor the rest of the brain, the two can be exchanged
        compute_region_levels=lambda fills: fills.region_means,
        has_p_values=True,
        column_meaning="How much the logit of the true class falls when another participant's takes its place. It "
        "is positive where the network's evidence rests on what this person has there. Mean over participants, with "
        "its 95% interval.",
    ),
    Fill(
        UNIQUE_FILL,
        select_input=lambda region_contents: region_contents.person_values,
        select_replacement=lambda region_contents: (
            region_contents.expected_values
        ),  # conditional permutation importance: Strobl et al. 2008, Chamma et al. 2023
        compute_region_levels=lambda fills: fills.region_means - fills.expected_region_means,
        has_p_values=True,
        column_meaning="The same, with the other participant's region shifted to the level that the rest of their own "
        "brain predicts. It shows what the region says and the rest does not.",
    ),
    Fill(
        BACKGROUND_FILL,  # the blackout of most of the literature
        select_input=lambda region_contents: region_contents.person_values,
        select_replacement=lambda region_contents: region_contents.background_values,
        is_by_donor=False,
        has_class_means=True,
        array_name="delta_logit",
        column_meaning="How much the logit of the true class falls when the region becomes {background}. The network "
        "has never seen that, so no p-value is given.",
    ),
    Fill(
        "sufficiency",
        select_input=lambda region_contents: region_contents.donor_values,
        select_replacement=lambda region_contents: region_contents.person_values,
        is_logit_rise=True,
        column_meaning="How much the logit of the true class rises when this region of the person is put into another "
        "participant's brain. It shows what the region says alone. Sufficient but not unique means redundant; "
        "neither means unimportant.",
    ),
)
FILL_BY_NAME = {fill.fill_name: fill for fill in FILLS}


class FilledBatch(NamedTuple):
    """A batch of n records, as made by `Cohort.make_batch`; and for each fill, by donor, the `Replacement` of each
    input that is replaced."""

    intact_input_by_name: dict[str, np.ndarray]
    replacements_by_fill: dict[str, list[dict[str, Replacement]]]  # by name of the fill, donor, name of the input


class Fills:
    """Fills for the tested records of a cohort. Those of a record do not depend on which others are blacked out.

    `region_masks` (x, y, z) bool are of the atlas's regions; `is_replaced_map` (maps,) bool says which maps are
    replaced, `separate_map_indices` the numbers of those that are also replaced one at a time. `region_means` and
    `expected_region_means` (records of the cohort, regions, maps) are the regions' means, and what the other regions
    predict of them. `region_edges` are those of connectomes, None if edges are not replaced.
    """

    def __init__(self, cohort: Cohort, atlas: Atlas, donors: Donors, blackout_options: BlackoutOptions, seed: int):
        self.cohort = cohort
        self.donors = donors
        self.is_replaced_map = blackout_options.make_replaced_map_mask(cohort)
        self.separate_map_indices = blackout_options.find_separate_map_indices(cohort)
        # (x, y, z) each
        self.region_masks = [atlas.region_labels == region_number for region_number in atlas.region_numbers]
        self._region_position_by_voxel = atlas.find_region_indices(atlas.region_labels)
        # (records, regions, maps)
        self.region_means: np.ndarray = load_parcel_means(cohort, [make_region_parcels(atlas)])[0].astype(float)
        # (records, regions, maps)
        self.expected_region_means: np.ndarray = predict_expected_means(cohort, self.region_means)
        self.region_edges = (
            RegionEdges(cohort, atlas, self.region_means, seed) if blackout_options.replaces_edges(cohort) else None
        )

    def fill_batch(self, record_indices: np.ndarray) -> FilledBatch:
        """The `FilledBatch` of n records, with `connectome` if the cohort has any."""
        batch = self.cohort.make_batch(record_indices, record_table_by_name=make_connectome_tables(self.cohort))
        donor_record_indices = self.donors.select_donor_indices(record_indices)  # (donors, n)
        volume_contents_by_donor = self.make_volume_contents(batch["volume"], record_indices, donor_record_indices)
        edge_contents_by_donor = (
            self.region_edges.load_edge_contents(record_indices, donor_record_indices) if self.region_edges else None
        )
        replacements_by_fill: dict[str, list[dict[str, Replacement]]] = {fill.fill_name: [] for fill in FILLS}
        for fill in FILLS:
            for donor_number in range(self.donors.donors_per_record if fill.is_by_donor else 1):
                input_values = fill.select_input(volume_contents_by_donor[donor_number])
                replacement_values = fill.select_replacement(volume_contents_by_donor[donor_number])
                replacement_values = (
                    replacement_values
                    if self.is_replaced_map.all()
                    else np.where(self.is_replaced_map, replacement_values, input_values)
                )
                replacement_by_input = {"volume": Replacement(input_values, replacement_values, self.region_masks)}
                if self.region_edges and edge_contents_by_donor:
                    input_values = fill.select_input(edge_contents_by_donor[donor_number])
                    replacement_values = fill.select_replacement(edge_contents_by_donor[donor_number])
                    replacement_by_input[CONNECTOME_INPUT] = Replacement(
                        input_values, replacement_values, self.region_edges.edge_indices_by_region
                    )
                replacements_by_fill[fill.fill_name].append(replacement_by_input)
        return FilledBatch(batch, replacements_by_fill)

    def make_volume_contents(
        self, person_volumes: np.ndarray, record_indices: np.ndarray, donor_record_indices: np.ndarray
    ) -> list[RegionContents]:
        """The possible contents of the regions of volumes, by donor. `expected_values` are the donor's volume, shifted
        so that each region's mean is what the person's other regions predict plus the donor's own residual."""
        background_value_by_record_and_map = [
            [brain.find_background_value(map_values) for map_values in np.moveaxis(person_volume, -1, 0)]
            for person_volume in person_volumes
        ]
        # (n, 1, 1, 1, maps)
        background_volumes = np.array(background_value_by_record_and_map, np.float32)[:, None, None, None]
        donor_to_record_mean_shifts = (
            self.expected_region_means[record_indices] - self.expected_region_means[donor_record_indices]
        )  # (donors, n, regions, maps)
        donor_to_record_mean_shifts = np.pad(donor_to_record_mean_shifts, ((0, 0), (0, 0), (0, 1), (0, 0))).astype(
            np.float32
        )  # outside the regions 0
        volumes_by_donor = [
            self.cohort.make_batch(donor_batch_indices)["volume"] for donor_batch_indices in donor_record_indices
        ]
        return [
            RegionContents(
                person_volumes,
                background_volumes,
                donor_volumes,
                donor_volumes + donor_shifts[:, self._region_position_by_voxel],
            )
            for donor_volumes, donor_shifts in zip(volumes_by_donor, donor_to_record_mean_shifts, strict=True)
        ]

    def compute_replaced_map_deviations(self, region_levels: np.ndarray) -> np.ndarray:
        """`Donors.compute_donor_pool_deviations` of the `region_levels` of a `Fill`, in replaced maps: (records, 1 +
        donors, regions, maps)."""
        return self.donors.compute_donor_pool_deviations(region_levels[..., self.is_replaced_map])


def predict_expected_means(cohort: Cohort, region_means: np.ndarray) -> np.ndarray:
    """Predicts each region's mean from the record's other regions, (records of the cohort, regions, maps) float64.

    The prediction is fitted on the training records, or on all if there are none; the records that it is fitted on are
    predicted from other people's. Each region has the penalty that predicts it best.
    """
    from sklearn.model_selection import GroupKFold

    usable_record_indices = cohort.find_unswapped_record_indices()
    fitting_record_indices = np.array(
        [record_index for record_index in usable_record_indices if cohort.rows[record_index].split == "train"]
        or usable_record_indices
    )
    grouped_subject_rows = merge_group_subjects(cohort)
    subject_by_fitting_record = [
        grouped_subject_rows[fitting_index].subject for fitting_index in fitting_record_indices
    ]
    # (penalties, records, regions, maps)
    predicted_means_by_penalty = predict_region_means(region_means[fitting_record_indices], region_means)
    for remaining_positions, left_out_positions in GroupKFold(
        min(INNER_FOLD_COUNT, len(set(subject_by_fitting_record)))
    ).split(fitting_record_indices, groups=subject_by_fitting_record):
        predicted_means_by_penalty[:, fitting_record_indices[left_out_positions]] = predict_region_means(
            region_means[fitting_record_indices[remaining_positions]],
            region_means[fitting_record_indices[left_out_positions]],
        )
    error_by_penalty_and_region = np.square(
        predicted_means_by_penalty[:, fitting_record_indices] - region_means[fitting_record_indices]
    ).sum((1, 3))
    return np.take_along_axis(
        predicted_means_by_penalty, error_by_penalty_and_region.argmin(0)[None, None, :, None], axis=0
    )[0]


def predict_region_means(training_region_means: np.ndarray, new_region_means: np.ndarray) -> np.ndarray:
    """Ridge regressions of each region's maps on the maps of all other regions, (n, regions, maps) each. They are
    fitted on `training_region_means` and standardised there -> predictions (penalties, n, regions, maps) of
    `new_region_means`.

    P is the inverse of the correlations plus a penalty. The prediction of region r is x_r - (x P)_r P[r, r]^-1. So one
    decomposition of the training records serves all regions and penalties.
    """
    _, region_count, map_count = training_region_means.shape
    flat_training_means, flat_new_means = (
        means_array.reshape(len(means_array), region_count * map_count)
        for means_array in (training_region_means, new_region_means)
    )
    column_means = flat_training_means.mean(0)
    column_sds = flat_training_means.std(0)
    column_sds[column_sds == 0] = 1
    flat_training_means = (flat_training_means - column_means) / column_sds
    flat_new_means = (flat_new_means - column_means) / column_sds
    _, singular_values, principal_axes = np.linalg.svd(
        flat_training_means, full_matrices=False
    )  # axes (rank, regions x maps)
    axes_by_region = principal_axes.reshape(-1, region_count, map_count).transpose(1, 2, 0)  # (regions, maps, rank)
    predictions_by_penalty = []
    for ridge_penalty in REGION_RIDGE_PENALTIES:
        axis_shrinkage = singular_values**2 / (
            singular_values**2 + ridge_penalty * len(flat_training_means)
        )  # P is the identity minus these shares of the axes, over the penalty, which cancels
        precision_products = (
            flat_new_means - (flat_new_means @ principal_axes.T * axis_shrinkage) @ principal_axes
        )  # x P, times the penalty
        # (regions, maps, maps)
        region_precision = np.eye(map_count) - (axes_by_region * axis_shrinkage) @ axes_by_region.swapaxes(1, 2)
        region_residuals = np.einsum(
            "ira,rab->irb", precision_products.reshape(-1, region_count, map_count), np.linalg.inv(region_precision)
        )
        predictions_by_penalty.append(
            (flat_new_means - region_residuals.reshape(flat_new_means.shape)) * column_sds + column_means
        )
    return np.stack(predictions_by_penalty).reshape(len(REGION_RIDGE_PENALTIES), *new_region_means.shape)
