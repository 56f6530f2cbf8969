"""Edges of regions in a blackout: which they are, what replaces them, and what that changes, each by a loop."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from data.cohorts import records
from data.cohorts.atlas import Atlas
from data.cohorts.connectomes import Connectomes
from data.cohorts.rows import RecordRow
from utils.blackout import edges
from utils.blackout.edges import ExpectedEdges, RegionEdges, Replacement

REGIONS, MAPS, PEOPLE = (2, 3, 7), 2, 24
PARCELS = tuple("abcdef")
IN_REGION = (0, 0, 1, 2, 3, 3)  # the place in the atlas of each parcel's region; `e` lies outside, `f` in two alike


def blocks() -> Atlas:
    """Three regions of 20 voxels in a row, numbered with gaps."""
    full = np.zeros(records.FULL.shape, np.int32)
    for at, region in enumerate(REGIONS):
        full[20 * at : 20 * at + 20, 50, 50] = region
    return Atlas(full, {region: f"region {region}" for region in REGIONS}, records.FULL, full, [])


def image() -> np.ndarray:
    """Each parcel's voxels, most of which lie in its region."""
    parcels = np.zeros(records.FULL.shape, np.int16)
    parcels[0:10, 50, 50], parcels[10:21, 50, 50], parcels[21:30, 50, 50] = 1, 2, 3  # `b` has 1 voxel of region 3
    parcels[40:45, 50, 50], parcels[40:44, 51, 50] = 4, 4  # 5 of 9 voxels in region 7
    parcels[50:54, 50, 50], parcels[50:60, 52, 50] = 5, 5  # 4 of 14
    parcels[38:40, 50, 50], parcels[45:47, 50, 50] = 6, 6  # 2 in region 3, 2 in region 7
    return parcels


class Rows:
    """Connectomes of a table in memory, (records, edges)."""

    def __init__(self, values: np.ndarray):
        self.values, self.parcel_image, self.parcel_names = values, image(), PARCELS
        self.parcel_pairs = np.column_stack(np.triu_indices(len(PARCELS), 1))

    def __getitem__(self, indices) -> np.ndarray:
        return self.values[indices]


@pytest.fixture
def drawn():
    """A cohort whose last 4 records are tested and whose first 2 are of one person, its connectomes, some of which lack
    parcel `b`, and region means."""
    random = np.random.default_rng(0)
    common = random.normal(size=(PEOPLE, 2))
    values = common @ random.normal(size=(2, 15)) + random.normal(0, 0.5, (PEOPLE, 15)) + 0.3
    found = Rows(values.astype(np.float32))
    found.values[np.ix_([3, 8, 21], (found.parcel_pairs == 1).any(1))] = np.nan
    names = ["p1", *(f"p{at}" for at in range(1, PEOPLE))]
    rows = [RecordRow(f"{at}.bin", name, "A", 0.0, "test" if at > 19 else "train") for at, name in enumerate(names)]
    cohort = SimpleNamespace(rows=rows, find_unswapped_indices=lambda: [*range(PEOPLE)], connectomes=found, groups=())
    return cohort, found, random.normal(size=(PEOPLE, len(REGIONS), MAPS))


def touching(connectomes: Rows, region: int) -> np.ndarray:
    """The edges of a region, one by one."""
    return np.array([region in (IN_REGION[one], IN_REGION[other]) for one, other in connectomes.parcel_pairs])


def test_a_parcel_lies_where_most_of_its_voxels_do_and_an_edge_where_its_parcels_do(drawn):
    connectomes = drawn[1]
    assert edges.find_parcel_regions(connectomes, blocks()).tolist() == list(IN_REGION)
    of_region = edges.find_region_edges(np.array(IN_REGION), connectomes.parcel_pairs, len(REGIONS))
    for region, own in enumerate(of_region):
        assert own.tolist() == np.flatnonzero(touching(connectomes, region)).tolist()
    unplaced = Connectomes(Path(), "rois", PARCELS, None, np.arange(2))
    assert edges.find_parcel_regions(unplaced, blocks()).tolist() == [len(REGIONS)] * len(PARCELS)


def by_ridge(cohort, connectomes: Rows, means: np.ndarray, region: int, index: int, penalty: float) -> np.ndarray:
    """The expected edges of a region of one record, by scikit-learn's ridge regression without the record's person, on
    the training people's z-scores."""
    training = [at for at, row in enumerate(cohort.rows) if row.split == "train"]
    values, own = connectomes.values.astype(float), touching(connectomes, region)
    centre, spread = np.nanmean(values[training], 0), np.nanstd(values[training], 0)
    scaled = np.nan_to_num((values - centre) / spread)
    others = np.delete(means, region, axis=1).reshape(len(means), -1)
    others = (others - others[training].mean(0)) / others[training].std(0)
    constant = np.ones((len(scaled), 1))
    features = np.hstack([scaled[:, ~own] / np.sqrt(values.shape[1]), others / np.sqrt(means[0].size), constant])
    rest = [at for at in training if cohort.rows[at].subject != cohort.rows[index].subject]
    fit = Ridge(alpha=penalty, fit_intercept=False).fit(features[rest], scaled[rest][:, own])
    return fit.predict(features[[index]])[0] * spread[own] + centre[own]


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_expected_edges_are_those_of_ridge_regressions_without_the_person(drawn, monkeypatch, penalty):
    cohort, connectomes, means = drawn
    monkeypatch.setattr(edges, "EDGE_PENALTIES", [penalty])
    of_region = edges.find_region_edges(np.array(IN_REGION), connectomes.parcel_pairs, len(REGIONS))
    indices = np.array([0, 1, 3, 9, 21, 23])  # of one person twice, with unknown edges, trained on, and tested
    found = ExpectedEdges(cohort, of_region, means, 0)(indices, connectomes[indices])
    for region, levels in enumerate(found):
        for level, index in zip(levels, indices, strict=True):
            independent = by_ridge(cohort, connectomes, means, region, index, penalty)
            assert level == pytest.approx(independent, abs=2e-4)


@pytest.mark.slow
def test_each_region_has_the_penalty_that_predicts_the_training_people_best(drawn):
    cohort, connectomes, means = drawn
    of_region = edges.find_region_edges(np.array(IN_REGION), connectomes.parcel_pairs, len(REGIONS))
    training, known = np.arange(20), connectomes.values.copy()
    scaled = (known - np.nanmean(known[training], 0)) / np.nanstd(known[training], 0)
    for region, own in enumerate(of_region):
        errors, levels = [], []
        for penalty in edges.EDGE_PENALTIES:
            predicted = [by_ridge(cohort, connectomes, means, region, at, penalty) for at in training]
            spread = np.nanstd(known[training], 0)[own]
            centre = np.nanmean(known[training], 0)[own]
            apart = np.nan_to_num(scaled[training][:, own]) - (np.array(predicted) - centre) / spread
            errors.append(np.square(apart).sum())
            levels.append(by_ridge(cohort, connectomes, means, region, 23, penalty))
        found = ExpectedEdges(cohort, of_region, means, 0)(np.array([23]), connectomes[[23]])[region][0]
        assert found == pytest.approx(levels[int(np.argmin(errors))], abs=2e-4)


def test_people_are_not_told_by_the_z_scores_of_the_others(drawn, monkeypatch):
    """Of noise nothing can be expected, however many features there are and however small the penalty is."""
    cohort, connectomes, _ = drawn
    random = np.random.default_rng(3)
    connectomes.values = random.normal(size=(PEOPLE, 15)).astype(np.float32)
    of_region = edges.find_region_edges(np.array(IN_REGION), connectomes.parcel_pairs, len(REGIONS))
    monkeypatch.setattr(edges, "EDGE_PENALTIES", [1e-3])
    monkeypatch.setattr(edges, "MAX_FITTING_PEOPLE", 8)
    expected = ExpectedEdges(cohort, of_region, random.normal(size=(PEOPLE, len(REGIONS), MAPS)), 0)
    fitting = edges.choose_fitting_people(cohort, 0)[0]
    for own, levels in zip(of_region, expected(fitting, connectomes[fitting]), strict=True):
        assert np.square(connectomes.values[fitting][:, own] - levels).mean() > 0.7


def test_many_people_are_sampled_and_nobody_is_halved(drawn, monkeypatch):
    cohort = drawn[0]
    monkeypatch.setattr(edges, "MAX_FITTING_PEOPLE", 7)
    for seed in range(5):
        fitting, people = edges.choose_fitting_people(cohort, seed)
        names = [{cohort.rows[fitting[at]].subject for at in own} for own in people]
        assert len(people) == 7 and all(len(own) == 1 for own in names)
        assert all(cohort.rows[at].split == "train" for at in fitting)
        assert ("p1" in set.union(*names)) == (0 in fitting) == (1 in fitting)
    tested = SimpleNamespace(rows=cohort.rows[20:], find_unswapped_indices=lambda: [*range(4)], groups=())
    assert edges.choose_fitting_people(tested, 0)[0].tolist() == [0, 1, 2, 3]


def test_edges_become_unknown_a_donors_or_what_is_expected_or_stay_among_those_of_a_donor(drawn):
    """What is expected of the person, with the donor's own deviation from what is expected of the donor."""
    cohort, connectomes, means = drawn
    found = RegionEdges(cohort, blocks(), means, 0)
    indices, positions = np.array([20, 22]), np.array([[3, 5], [7, 21]])
    expected, own = ExpectedEdges(cohort, found.edges_by_region, means, 0), connectomes[indices]
    levels = expected(indices, own)
    for of, position in zip(found.load_contents(indices, positions), positions, strict=True):
        donor = connectomes[position]
        of_donor = expected(position, donor)
        for region in range(len(REGIONS)):
            inside = touching(connectomes, region)
            moved = donor[:, inside] - of_donor[region] + levels[region]
            for shown, given, base, taken in (
                (of.person_values, of.background_values, own, np.full_like(moved, np.nan)),
                (of.person_values, of.donor_values, own, donor[:, inside]),
                (of.person_values, of.expected_values, own, moved),
                (of.donor_values, of.person_values, donor, own[:, inside]),
            ):
                put_in = Replacement(shown, given, found.edges_by_region).apply_replacement(region)
                np.testing.assert_allclose(put_in[:, inside], taken, atol=1e-6)
                assert np.array_equal(put_in[:, ~inside], base[:, ~inside], equal_nan=True)
