"""The demo cohort: seeded, cached, announced as simulated, with a difference planted in four regions."""

import json

import pytest

from data import demo
from data.cohorts import atlas, records
from data.cohorts.stored import open_cohort
from data.simulation import PLANTED, Simulation

SMALL = Simulation(subjects=12, seed=5)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    target = tmp_path_factory.mktemp("demo") / "cohort"
    demo.simulate(target, records.REDUCED, SMALL)
    return open_cohort(target)


def test_it_says_that_it_is_simulated_and_where_the_difference_is(simulated):
    assert simulated.simulated
    assert simulated.metadata.provenance["planted"] == list(PLANTED)
    assert len(simulated.metadata.phenotype) == 29
    assert set(PLANTED) <= set(atlas.load_atlas(None, records.REDUCED).names.values())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(simulated, tmp_path):
    demo.simulate(tmp_path / "again", records.REDUCED, SMALL)
    demo.simulate(tmp_path / "other", records.REDUCED, Simulation(subjects=12, seed=6))
    name = simulated.rows[3].file
    assert (tmp_path / "again" / name).read_bytes() == (simulated.path / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (simulated.path / name).read_bytes()


def test_the_demo_cohort_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = demo.demo_cohort(records.REDUCED)
    monkeypatch.setattr(demo, "simulate", lambda *_: pytest.fail("made again"))
    assert demo.demo_cohort(records.REDUCED) == first
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
            demo.demo_cohort(records.REDUCED)
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
    assert open_cohort(demo.demo_cohort(records.REDUCED)).simulated
