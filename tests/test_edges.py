"""Edges of regions in a blackout: which they are, what replaces them, and what that changes, each by a loop."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from data.cohorts.connectomes import Connectomes
from data.cohorts.rows import RecordRow
from data.images import grids
from data.images.atlas import Atlas
from utils.blackout import edges
from utils.blackout.edges import ExpectedEdges, RegionEdges, Replacement

REGIONS, MAPS, PEOPLE = (2, 3, 7), 2, 24
PARCELS = tuple("abcdef")
IN_REGION = (0, 0, 1, 2, 3, 3)  # the place in the atlas of each parcel's region; `e` lies outside, `f` in two alike


def make_atlas() -> Atlas:
    """Three regions of 20 voxels in a row, numbered with gaps."""
    full = np.zeros(grids.FULL.shape, np.int32)
    for place, region in enumerate(REGIONS):
        full[20 * place : 20 * place + 20, 50, 50] = region
    return Atlas(full, {region: f"region {region}" for region in REGIONS}, grids.FULL, full, [])


def make_parcel_image() -> np.ndarray:
    """Each parcel's voxels, most of which lie in its region."""
    parcels = np.zeros(grids.FULL.shape, np.int16)
    parcels[0:10, 50, 50], parcels[10:21, 50, 50], parcels[21:30, 50, 50] = 1, 2, 3  # `b` has 1 voxel of region 3
    parcels[40:45, 50, 50], parcels[40:44, 51, 50] = 4, 4  # 5 of 9 voxels in region 7
    parcels[50:54, 50, 50], parcels[50:60, 52, 50] = 5, 5  # 4 of 14
    parcels[38:40, 50, 50], parcels[45:47, 50, 50] = 6, 6  # 2 in region 3, 2 in region 7
    return parcels


class TableConnectomes:
    """Connectomes of a table in memory, (records, edges)."""

    def __init__(self, values: np.ndarray):
        self.values, self.parcel_image, self.parcel_names = values, make_parcel_image(), PARCELS
        self.parcel_index_pairs = np.column_stack(np.triu_indices(len(PARCELS), 1))

    def __getitem__(self, indices) -> np.ndarray:
        return self.values[indices]


@pytest.fixture
def drawn():
    """A cohort whose last 4 records are tested and whose first 2 are of one person, its connectomes, some of which lack
    parcel `b`, and region means."""
    random = np.random.default_rng(0)
    common = random.normal(size=(PEOPLE, 2))
    values = common @ random.normal(size=(2, 15)) + random.normal(0, 0.5, (PEOPLE, 15)) + 0.3
    connectomes = TableConnectomes(values.astype(np.float32))
    connectomes.values[np.ix_([3, 8, 21], (connectomes.parcel_index_pairs == 1).any(1))] = np.nan
    names = ["p1", *(f"p{number}" for number in range(1, PEOPLE))]
    rows = [
        RecordRow(f"{number}.bin", name, "A", 0.0, "test" if number > 19 else "train")
        for number, name in enumerate(names)
    ]
    cohort = SimpleNamespace(
        rows=rows, find_unswapped_record_indices=lambda: [*range(PEOPLE)], connectomes=connectomes, groups=()
    )
    return cohort, connectomes, random.normal(size=(PEOPLE, len(REGIONS), MAPS))


def mask_touching_edges(connectomes: TableConnectomes, region: int) -> np.ndarray:
    """The edges of a region, one by one."""
    return np.array(
        [
            region in (IN_REGION[first_parcel], IN_REGION[second_parcel])
            for first_parcel, second_parcel in connectomes.parcel_index_pairs
        ]
    )


def test_a_parcel_lies_with_most_voxels_and_an_edge_with_the_parcels(drawn):
    connectomes = drawn[1]
    assert edges.find_parcel_region_indices(connectomes, make_atlas()).tolist() == list(IN_REGION)
    edges_by_region = edges.find_region_edge_indices(np.array(IN_REGION), connectomes.parcel_index_pairs, len(REGIONS))
    for region, region_edges in enumerate(edges_by_region):
        assert region_edges.tolist() == np.flatnonzero(mask_touching_edges(connectomes, region)).tolist()
    unplaced = Connectomes(Path(), "rois", PARCELS, None, np.arange(2))
    assert edges.find_parcel_region_indices(unplaced, make_atlas()).tolist() == [len(REGIONS)] * len(PARCELS)


def predict_by_ridge(
    cohort, connectomes: TableConnectomes, means: np.ndarray, region: int, index: int, penalty: float
) -> np.ndarray:
    """The expected edges of a region of one record, by scikit-learn's ridge regression without the record's person, on
    the training people's z-scores."""
    training = [record_index for record_index, row in enumerate(cohort.rows) if row.split == "train"]
    values, in_region = connectomes.values.astype(float), mask_touching_edges(connectomes, region)
    centre, spread = np.nanmean(values[training], 0), np.nanstd(values[training], 0)
    scaled = np.nan_to_num((values - centre) / spread)
    remaining_means = np.delete(means, region, axis=1).reshape(len(means), -1)
    remaining_means = (remaining_means - remaining_means[training].mean(0)) / remaining_means[training].std(0)
    constant = np.ones((len(scaled), 1))
    features = np.hstack(
        [scaled[:, ~in_region] / np.sqrt(values.shape[1]), remaining_means / np.sqrt(means[0].size), constant]
    )
    rest = [
        record_index for record_index in training if cohort.rows[record_index].subject != cohort.rows[index].subject
    ]
    fit = Ridge(alpha=penalty, fit_intercept=False).fit(features[rest], scaled[rest][:, in_region])
    return fit.predict(features[[index]])[0] * spread[in_region] + centre[in_region]


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_expected_edges_equal_ridge_regressions_without_the_person(drawn, monkeypatch, penalty):
    cohort, connectomes, means = drawn
    monkeypatch.setattr(edges, "EDGE_PENALTIES", [penalty])
    edges_by_region = edges.find_region_edge_indices(np.array(IN_REGION), connectomes.parcel_index_pairs, len(REGIONS))
    indices = np.array([0, 1, 3, 9, 21, 23])  # of one person twice, with unknown edges, trained on, and tested
    levels_by_region = ExpectedEdges(cohort, edges_by_region, means, 0)(indices, connectomes[indices])
    for region, levels in enumerate(levels_by_region):
        for level, index in zip(levels, indices, strict=True):
            independent = predict_by_ridge(cohort, connectomes, means, region, index, penalty)
            assert level == pytest.approx(independent, abs=2e-4)


@pytest.mark.slow
def test_regions_have_the_penalty_predicting_training_people_best(drawn):
    cohort, connectomes, means = drawn
    edges_by_region = edges.find_region_edge_indices(np.array(IN_REGION), connectomes.parcel_index_pairs, len(REGIONS))
    training, edge_values = np.arange(20), connectomes.values.copy()
    scaled = (edge_values - np.nanmean(edge_values[training], 0)) / np.nanstd(edge_values[training], 0)
    for region, region_edges in enumerate(edges_by_region):
        errors, levels = [], []
        for penalty in edges.EDGE_PENALTIES:
            predicted = [
                predict_by_ridge(cohort, connectomes, means, region, person_index, penalty)
                for person_index in range(20)
            ]
            spread = np.nanstd(edge_values[training], 0)[region_edges]
            centre = np.nanmean(edge_values[training], 0)[region_edges]
            apart = np.nan_to_num(scaled[training][:, region_edges]) - (np.array(predicted) - centre) / spread
            errors.append(np.square(apart).sum())
            levels.append(predict_by_ridge(cohort, connectomes, means, region, 23, penalty))
        expected_level = ExpectedEdges(cohort, edges_by_region, means, 0)(np.array([23]), connectomes[[23]])[region][0]
        assert expected_level == pytest.approx(levels[int(np.argmin(errors))], abs=2e-4)


def test_people_are_not_identified_by_the_remaining_z_scores(drawn, monkeypatch):
    """Of noise nothing can be expected, however many features there are and however small the penalty is."""
    cohort, connectomes, _ = drawn
    random = np.random.default_rng(3)
    connectomes.values = random.normal(size=(PEOPLE, 15)).astype(np.float32)
    edges_by_region = edges.find_region_edge_indices(np.array(IN_REGION), connectomes.parcel_index_pairs, len(REGIONS))
    monkeypatch.setattr(edges, "EDGE_PENALTIES", [1e-3])
    monkeypatch.setattr(edges, "MAX_FITTING_PEOPLE", 8)
    expected = ExpectedEdges(cohort, edges_by_region, random.normal(size=(PEOPLE, len(REGIONS), MAPS)), 0)
    fitting = edges.choose_fitting_people(cohort, 0)[0]
    for region_edges, levels in zip(edges_by_region, expected(fitting, connectomes[fitting]), strict=True):
        assert np.square(connectomes.values[fitting][:, region_edges] - levels).mean() > 0.7


def test_many_people_are_sampled_and_nobody_is_halved(drawn, monkeypatch):
    cohort = drawn[0]
    monkeypatch.setattr(edges, "MAX_FITTING_PEOPLE", 7)
    for seed in range(5):
        fitting, people = edges.choose_fitting_people(cohort, seed)
        names = [{cohort.rows[fitting[index]].subject for index in members} for members in people]
        assert len(people) == 7 and all(len(members) == 1 for members in names)
        assert all(cohort.rows[index].split == "train" for index in fitting)
        assert ("p1" in set.union(*names)) == (0 in fitting) == (1 in fitting)
    tested: Any = SimpleNamespace(rows=cohort.rows[20:], find_unswapped_record_indices=lambda: [*range(4)], groups=())
    assert edges.choose_fitting_people(tested, 0)[0].tolist() == [0, 1, 2, 3]


def test_edges_become_unknown_or_the_donors_or_expected_or_stay_among_the_donors(drawn):
    """What is expected of the person, with the donor's own deviation from what is expected of the donor."""
    cohort, connectomes, means = drawn
    region_edges = RegionEdges(cohort, make_atlas(), means, 0)
    indices, positions = np.array([20, 22]), np.array([[3, 5], [7, 21]])
    expected, record_edges = ExpectedEdges(cohort, region_edges.edge_indices_by_region, means, 0), connectomes[indices]
    levels = expected(indices, record_edges)
    for alternative_edges, position in zip(
        region_edges.load_alternative_edges(indices, positions), positions, strict=True
    ):
        donor = connectomes[position]
        expected_for_donor = expected(position, donor)
        for region in range(len(REGIONS)):
            inside = mask_touching_edges(connectomes, region)
            moved = donor[:, inside] - expected_for_donor[region] + levels[region]
            for outer_edges, inner_edges, base, taken in (
                (
                    alternative_edges.person_values,
                    alternative_edges.background_values,
                    record_edges,
                    np.full_like(moved, np.nan),
                ),
                (alternative_edges.person_values, alternative_edges.donor_values, record_edges, donor[:, inside]),
                (alternative_edges.person_values, alternative_edges.expected_values, record_edges, moved),
                (alternative_edges.donor_values, alternative_edges.person_values, donor, record_edges[:, inside]),
            ):
                put_in = Replacement(outer_edges, inner_edges, region_edges.edge_indices_by_region).apply_replacement(
                    region
                )
                np.testing.assert_allclose(put_in[:, inside], taken, atol=1e-6)
                assert np.array_equal(put_in[:, ~inside], base[:, ~inside], equal_nan=True)
