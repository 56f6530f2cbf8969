"""The simulation: a difference in four regions only, a true probability, and people who look like ABIDE's."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from data.cohorts import records
from data.cohorts.stored import open_cohort
from data.demo import simulate
from data.simulation import PLANTED, Anatomy, Simulation, demographics, rule

SMALL = Simulation(subjects=12, seed=5)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    target = tmp_path_factory.mktemp("demo") / "cohort"
    simulate(target, records.REDUCED, SMALL)
    return open_cohort(target)


@pytest.mark.slow
def test_only_the_planted_regions_differ_between_groups():
    """A t-test a region: far from chance in the four, near it in the rest."""
    simulation = Simulation(subjects=200)
    anatomy = Anatomy(records.REDUCED, simulation)
    volumes = [anatomy.volume(subject, subject % 2) for subject in range(simulation.subjects)]
    regions = anatomy.atlas.regions
    mean = np.array([[volume[anatomy.atlas.labels == region].mean() for region in regions] for volume in volumes])
    t = stats.ttest_ind(mean[1::2], mean[::2]).statistic
    planted = np.isin([anatomy.atlas.names[region] for region in regions], PLANTED)
    assert planted.sum() == 4
    assert t[planted].min() > 5
    assert np.abs(t[~planted]).max() < 4


def test_the_rule_that_made_the_data_is_as_good_as_theory_says_and_calibrated():
    """Two normals, `effect` apart in each of four regions: AUC = Phi(d / sqrt 2), d = 2 effect / spread."""
    simulation = Simulation(subjects=500)
    table = demographics(simulation)
    probability = rule(simulation, table["subject"].tolist())
    expected = stats.norm.cdf(2 * simulation.effect / simulation.region_spread / np.sqrt(2))
    assert metrics.roc_auc_score(table["label"], probability) == pytest.approx(expected, abs=0.015)
    assert table["label"][probability > 0.5].mean() == pytest.approx(probability[probability > 0.5].mean(), abs=0.03)


def test_the_rule_knows_what_the_records_hold(simulated):
    """The planted regions of the records go with it; other subjects' values do not."""
    probability = rule(SMALL, [row.subject for row in simulated.rows])
    anatomy = Anatomy(records.REDUCED, SMALL)
    inside = np.isin(anatomy.atlas.labels, anatomy.planted)
    means = [simulated.read(index)[2][inside].mean() for index in range(len(simulated.rows))]
    assert stats.spearmanr(probability, means).statistic > 0.8
    assert rule(SMALL, [simulated.rows[5].subject]) == probability[5]


@pytest.mark.slow
def test_both_grids_show_the_same_subject():
    means = []
    for grid in (records.FULL, records.REDUCED):
        anatomy = Anatomy(grid, SMALL)
        volume, labels = anatomy.volume(3, 1.0), anatomy.atlas.labels
        means.append([volume[labels == region].mean() for region in anatomy.atlas.regions])
    assert np.corrcoef(means)[0, 1] > 0.98


def test_people_look_like_abide():
    table = demographics(Simulation(subjects=500))
    age = table["AGE_AT_SCAN"].astype(float)
    assert 14 < age.mean() < 20
    assert age.between(6, 64).all()
    assert 0.8 < (table["SEX"] == "1").mean() < 0.9
    assert table["label"].mean() == 0.5
    assert table["site"].value_counts().idxmax() == "NYU"
    assert table["subject"].is_unique
