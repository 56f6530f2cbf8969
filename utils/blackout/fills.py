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
from utils.blackout.edges import AlternativeInputValues, RegionEdges, Replacement
from utils.blackout.options import CONNECTOME_INPUT, BlackoutOptions, make_connectome_tables

INNER_FOLD_COUNT = 5  # so that no one's region is predicted from a fit that has seen it
REGION_RIDGE_PENALTIES = np.logspace(-3, 1, 9)  # of squared weights, per record


@dataclass(frozen=True, eq=False)
class Fill:
    """An effect: which of the `AlternativeInputValues` the network is shown (`select_input`), what replaces a part of
    it (`select_replacement`), and what a page says.

    The effect is on the logit of the true class: its fall, or its rise if `is_logit_rise`, as a mean over donors if
    `is_by_donor`. `compute_region_levels` returns the regions' means (records of the cohort, regions, maps) by which
    the chance of having drawn these donors is taken out of the effect of voxels; without it, nothing is taken out. Only
    effects with `has_p_values` have p-values; those with `has_class_means` have a mean of each class.
    """

    fill_name: str  # a column of `regions.csv`
    select_input: Callable[[AlternativeInputValues], np.ndarray]
    select_replacement: Callable[[AlternativeInputValues], Any]
    column_meaning: str  # as in `columns.py`; {background}: what the background is
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


# Fills to which some result is tied
RELIANCE_FILL = "reliance"
UNIQUE_FILL = "unique"
BACKGROUND_FILL = "background"
FILLS = (
    Fill(
        RELIANCE_FILL,
        select_input=lambda alternative_values: alternative_values.person_values,
        # if it has to do with neither the label nor the rest of the brain, the two can be exchanged
        select_replacement=lambda alternative_values: alternative_values.donor_values,
        compute_region_levels=lambda fills: fills.region_means,
        has_p_values=True,
        column_meaning="How much the {output} of the true class falls when another participant's takes its place. It "
        "is positive where the {noun}'s evidence rests on what this person has there. Mean over participants, with "
        "its 95% interval.",
    ),
    Fill(
        UNIQUE_FILL,
        select_input=lambda alternative_values: alternative_values.person_values,
        # conditional permutation importance: Strobl et al. 2008, Chamma et al. 2023
        select_replacement=lambda alternative_values: alternative_values.expected_values,
        compute_region_levels=lambda fills: fills.region_means - fills.region_means_predicted_from_others,
        has_p_values=True,
        column_meaning="The same, with the other participant's region shifted to the level that the rest of their own "
        "brain predicts. It shows what the region says and the rest does not.",
    ),
    Fill(
        BACKGROUND_FILL,  # the blackout of most of the literature
        select_input=lambda alternative_values: alternative_values.person_values,
        select_replacement=lambda alternative_values: alternative_values.background_values,
        is_by_donor=False,
        has_class_means=True,
        array_name="delta_logit",
        column_meaning="How much the {output} of the true class falls when the region becomes {background}. The {noun} "
        "has never seen that, so no p-value is given.",
    ),
    Fill(
        "sufficiency",
        select_input=lambda alternative_values: alternative_values.donor_values,
        select_replacement=lambda alternative_values: alternative_values.person_values,
        is_logit_rise=True,
        column_meaning="How much the {output} of the true class rises when this region of the person is put into "
        "another participant's brain. It shows what the region says alone. Sufficient but not unique means redundant; "
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
    replaced, `separate_map_indices` the numbers of those that are also replaced one at a time. `region_means` (records
    of the cohort, regions, maps) are the regions' means, `region_means_predicted_from_others` what the other regions
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
        self.region_means_predicted_from_others: np.ndarray = predict_expected_means(cohort, self.region_means)
        self.region_edges = (
            RegionEdges(cohort, atlas, self.region_means, seed) if blackout_options.replaces_edges(cohort) else None
        )

    def fill_batch(self, record_indices: np.ndarray) -> FilledBatch:
        """The `FilledBatch` of n records, with `connectome` if the cohort has any."""
        batch = self.cohort.make_batch(record_indices, record_table_by_name=make_connectome_tables(self.cohort))
        donor_record_indices = self.donors.select_donor_indices(record_indices)  # (donors, n)
        volumes_by_donor = self.make_alternative_volumes(batch["volume"], record_indices, donor_record_indices)
        edges_by_donor = list[AlternativeInputValues]()
        if self.region_edges:
            edges_by_donor = self.region_edges.load_alternative_edges(record_indices, donor_record_indices)

        replacements_by_fill = dict[str, list[dict[str, Replacement]]]()
        for fill in FILLS:
            replacements_by_donor = []
            for donor_number in range(self.donors.donors_per_record if fill.is_by_donor else 1):
                replacement_by_input = {"volume": self._replace_volumes(fill, volumes_by_donor[donor_number])}
                if self.region_edges:
                    replacement_by_input[CONNECTOME_INPUT] = Replacement(
                        fill.select_input(edges_by_donor[donor_number]),
                        fill.select_replacement(edges_by_donor[donor_number]),
                        self.region_edges.edge_indices_by_region,
                    )
                replacements_by_donor.append(replacement_by_input)
            replacements_by_fill[fill.fill_name] = replacements_by_donor
        return FilledBatch(batch, replacements_by_fill)

    def _replace_volumes(self, fill: Fill, alternative_volumes: AlternativeInputValues) -> Replacement:
        """What a fill replaces in volumes; maps that are not replaced stay."""
        input_volumes = fill.select_input(alternative_volumes)
        replacement_volumes = fill.select_replacement(alternative_volumes)
        if not self.is_replaced_map.all():
            replacement_volumes = np.where(self.is_replaced_map, replacement_volumes, input_volumes)
        return Replacement(input_volumes, replacement_volumes, self.region_masks)

    def make_alternative_volumes(
        self, person_volumes: np.ndarray, record_indices: np.ndarray, donor_record_indices: np.ndarray
    ) -> list[AlternativeInputValues]:
        """The possible contents of the regions of volumes, by donor. `expected_values` are the donor's volume, shifted
        so that each region's mean is what the person's other regions predict plus the donor's own residual."""
        # The background of each map of each record, (n, 1, 1, 1, maps)
        background_values = np.empty((len(person_volumes), person_volumes.shape[-1]), np.float32)
        for record_index, person_volume in enumerate(person_volumes):
            for map_index, map_values in enumerate(np.moveaxis(person_volume, -1, 0)):
                background_values[record_index, map_index] = brain.find_background_value(map_values)
        background_volumes = background_values[:, None, None, None]

        # How far the other regions of the person predict another level than those of the donor; 0 outside the regions
        region_mean_shifts = (
            self.region_means_predicted_from_others[record_indices]
            - self.region_means_predicted_from_others[donor_record_indices]
        )  # (donors, n, regions, maps)
        padded_mean_shifts = np.pad(region_mean_shifts, ((0, 0), (0, 0), (0, 1), (0, 0))).astype(np.float32)

        volumes_by_donor = [
            self.cohort.make_batch(donor_batch_indices)["volume"] for donor_batch_indices in donor_record_indices
        ]
        return [
            AlternativeInputValues(
                person_volumes,
                background_volumes,
                donor_volumes,
                donor_volumes + donor_shifts[:, self._region_position_by_voxel],
            )
            for donor_volumes, donor_shifts in zip(volumes_by_donor, padded_mean_shifts, strict=True)
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
    training_record_indices = [
        record_index for record_index in usable_record_indices if cohort.rows[record_index].split == "train"
    ]
    fitting_record_indices = np.array(training_record_indices or usable_record_indices)
    fitting_region_means = region_means[fitting_record_indices]
    predicted_means_by_penalty = predict_region_means(
        fitting_region_means, region_means
    )  # (penalties, records, regions, maps)

    # Those that it is fitted on are predicted from other people's
    grouped_subject_rows = merge_group_subjects(cohort)
    subject_by_fitting_record = [
        grouped_subject_rows[fitting_index].subject for fitting_index in fitting_record_indices
    ]
    fold_splitter = GroupKFold(min(INNER_FOLD_COUNT, len(set(subject_by_fitting_record))))
    for remaining_positions, left_out_positions in fold_splitter.split(
        fitting_record_indices, groups=subject_by_fitting_record
    ):
        predicted_means_by_penalty[:, fitting_record_indices[left_out_positions]] = predict_region_means(
            fitting_region_means[remaining_positions], fitting_region_means[left_out_positions]
        )

    # Each region has the penalty that predicts it best
    prediction_errors = predicted_means_by_penalty[:, fitting_record_indices] - fitting_region_means
    squared_error_by_penalty_and_region = np.square(prediction_errors).sum((1, 3))
    best_penalty_by_region = squared_error_by_penalty_and_region.argmin(0)
    return np.take_along_axis(predicted_means_by_penalty, best_penalty_by_region[None, None, :, None], axis=0)[0]


def predict_region_means(training_region_means: np.ndarray, new_region_means: np.ndarray) -> np.ndarray:
    """Ridge regressions of each region's maps on the maps of all other regions, (n, regions, maps) each. They are
    fitted on `training_region_means` and standardised there -> predictions (penalties, n, regions, maps) of
    `new_region_means`.

    P is the inverse of the correlations plus a penalty. The prediction of region r is x_r - (x P)_r P[r, r]^-1. So one
    decomposition of the training records serves all regions and penalties.
    """
    _, region_count, map_count = training_region_means.shape
    # Maps of all regions side by side, standardised on the training records
    flat_training_means = training_region_means.reshape(len(training_region_means), region_count * map_count)
    flat_new_means = new_region_means.reshape(len(new_region_means), region_count * map_count)
    column_means = flat_training_means.mean(0)
    column_sds = flat_training_means.std(0)
    column_sds[column_sds == 0] = 1
    training_z_scores = (flat_training_means - column_means) / column_sds  # (training records, regions x maps)
    new_z_scores = (flat_new_means - column_means) / column_sds  # (n, regions x maps)

    _, singular_values, principal_axes = np.linalg.svd(training_z_scores, full_matrices=False)  # (rank, regions x maps)
    axes_by_region = principal_axes.reshape(-1, region_count, map_count).transpose(1, 2, 0)  # (regions, maps, rank)
    predictions_by_penalty = []
    for ridge_penalty in REGION_RIDGE_PENALTIES:
        # P is the identity minus these shares of the axes, over the penalty, which cancels
        axis_shrinkage = singular_values**2 / (singular_values**2 + ridge_penalty * len(training_z_scores))  # (rank,)
        # x P and P[r, r], both times the penalty
        precision_products = new_z_scores - (new_z_scores @ principal_axes.T * axis_shrinkage) @ principal_axes
        region_precision = np.eye(map_count) - (axes_by_region * axis_shrinkage) @ axes_by_region.swapaxes(1, 2)
        region_residuals = np.einsum(
            "ira,rab->irb", precision_products.reshape(-1, region_count, map_count), np.linalg.inv(region_precision)
        )  # (n, regions, maps)
        predicted_z_scores = new_z_scores - region_residuals.reshape(new_z_scores.shape)
        predictions_by_penalty.append(predicted_z_scores * column_sds + column_means)
    return np.stack(predictions_by_penalty).reshape(len(REGION_RIDGE_PENALTIES), *new_region_means.shape)
