"""The demo cohort: seeded, cached, announced as simulated, with a difference planted in four regions."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from data import demo, grids
from data.cohorts import atlas
from data.cohorts.cohort import open_cohort

SMALL = demo.Simulation(subjects=12, seed=5)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    target = tmp_path_factory.mktemp("demo") / "cohort"
    demo.simulate(target, grids.REDUCED, SMALL)
    return open_cohort(target)


def test_it_says_that_it_is_simulated_and_where_the_difference_is(simulated):
    assert simulated.simulated
    assert simulated.metadata.provenance["planted"] == list(demo.PLANTED)
    assert len(simulated.metadata.phenotype) == 29
    assert set(demo.PLANTED) <= set(atlas.load_atlas(None, grids.REDUCED).names.values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(simulated, tmp_path):
    demo.simulate(tmp_path / "again", grids.REDUCED, SMALL)
    demo.simulate(tmp_path / "other", grids.REDUCED, demo.Simulation(subjects=12, seed=6))
    name = simulated.rows[3].file
    assert (tmp_path / "again" / name).read_bytes() == (simulated.path / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (simulated.path / name).read_bytes()


def test_only_the_planted_regions_differ_between_groups():
    """A t-test a region: far from chance in the four, near it in the rest."""
    simulation = demo.Simulation(subjects=200)
    anatomy = demo.Anatomy(grids.REDUCED, simulation)
    volumes = [anatomy.volume(subject, subject % 2) for subject in range(simulation.subjects)]
    regions = anatomy.atlas.regions
    mean = np.array([[volume[anatomy.atlas.labels == region].mean() for region in regions] for volume in volumes])
    t = stats.ttest_ind(mean[1::2], mean[::2]).statistic
    planted = np.isin([anatomy.atlas.names[region] for region in regions], demo.PLANTED)
    assert planted.sum() == 4
    assert t[planted].min() > 5
    assert np.abs(t[~planted]).max() < 4


def test_the_rule_that_made_the_data_is_as_good_as_theory_says_and_calibrated():
    """Two normals, `effect` apart in each of four regions: AUC = Phi(d / sqrt 2), d = 2 effect / spread."""
    simulation = demo.Simulation(subjects=500)
    table = demo.demographics(simulation)
    probability = demo.rule(simulation, table["subject"].tolist())
    expected = stats.norm.cdf(2 * simulation.effect / simulation.region_spread / np.sqrt(2))
    assert metrics.roc_auc_score(table["label"], probability) == pytest.approx(expected, abs=0.015)
    assert table["label"][probability > 0.5].mean() == pytest.approx(probability[probability > 0.5].mean(), abs=0.03)


def test_the_rule_knows_what_the_records_hold(simulated):
    """The planted regions of the records go with it; other subjects' values do not."""
    probability = demo.rule(SMALL, [row.subject for row in simulated.rows])
    anatomy = demo.Anatomy(grids.REDUCED, SMALL)
    inside = np.isin(anatomy.atlas.labels, anatomy.planted)
    means = [simulated.read(index)[2][inside].mean() for index in range(len(simulated.rows))]
    assert stats.spearmanr(probability, means).statistic > 0.8
    assert demo.rule(SMALL, [simulated.rows[5].subject]) == probability[5]


def test_both_grids_show_the_same_subject():
    means = []
    for grid in (grids.FULL, grids.REDUCED):
        anatomy = demo.Anatomy(grid, SMALL)
        volume, labels = anatomy.volume(3, 1.0), anatomy.atlas.labels
        means.append([volume[labels == region].mean() for region in anatomy.atlas.regions])
    assert np.corrcoef(means)[0, 1] > 0.98


def test_people_look_like_abide():
    table = demo.demographics(demo.Simulation(subjects=500))
    age = table["AGE_AT_SCAN"].astype(float)
    assert 14 < age.mean() < 20
    assert age.between(6, 64).all()
    assert 0.8 < (table["SEX"] == "1").mean() < 0.9
    assert table["label"].mean() == 0.5
    assert table["site"].value_counts().idxmax() == "NYU"
    assert table["subject"].is_unique


def test_the_demo_cohort_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = demo.demo_cohort(grids.REDUCED)
    monkeypatch.setattr(demo, "simulate", lambda *_: pytest.fail("made again"))
    assert demo.demo_cohort(grids.REDUCED) == first
    assert [path.name for path in (tmp_path / "falff-demo").iterdir()] == [first.name]
    assert json.loads((first / "cohort.json").read_text())["simulated"]


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def interrupted(target, *_):
        target.mkdir(parents=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo, "simulate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            demo.demo_cohort(grids.REDUCED)
    assert list((tmp_path / "falff-demo").iterdir()) == []


def test_a_demo_made_at_the_same_time_by_another_run_is_used(tmp_path, monkeypatch):
    """Another process finishes first: its cohort appears while this one is still simulating."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    simulate = demo.simulate

    def slower(target, grid, simulation):
        simulate(target, grid, simulation)
        finished = target.with_name(target.name.removeprefix(".").rpartition(".")[0])
        simulate(finished, grid, simulation)

    monkeypatch.setattr(demo, "simulate", slower)
    assert open_cohort(demo.demo_cohort(grids.REDUCED)).simulated
