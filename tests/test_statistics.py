"""The one bootstrap against SciPy's, and where it gives no interval."""

import numpy as np
import pytest
from scipy import stats

from utils.scores import statistics
from utils.scores.statistics import CONFIDENCE, bootstrap


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(0).normal(size=25)
    low, high = bootstrap(lambda weight: weight @ values / 25, 25, np.random.default_rng(1), 20_000)
    options = {"method": "percentile", "confidence_level": CONFIDENCE, "n_resamples": 20_000}
    expected = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(2), **options).confidence_interval
    assert (low, high) == pytest.approx(tuple(expected), abs=0.02)


def test_resamples_in_blocks_are_those_in_one_go(monkeypatch):
    strata = np.array([0, 1, 0, 1, 1, 0])

    def drawn():
        blocks = []
        ends = bootstrap(lambda weight: blocks.append(weight) or weight[:, :2], 6, np.random.default_rng(0), 50, strata)
        return blocks, ends

    (whole,), ends = drawn()
    monkeypatch.setattr(statistics, "BLOCK", 6 * 8)
    blocks, same_ends = drawn()
    assert [len(block) for block in blocks] == [8] * 6 + [2]
    np.testing.assert_array_equal(whole, np.concatenate(blocks))
    np.testing.assert_array_equal(ends, same_ends)


def test_undefined_resamples_are_left_out_and_nothing_defined_is_no_interval():
    def statistic(weight):
        first = np.where(weight[:, 0] > 0, weight[:, 1], np.nan)
        return np.stack([first, np.full(len(weight), np.nan)], axis=1)

    low, high = bootstrap(statistic, 3, np.random.default_rng(0), 500)
    assert low[0] == 0 and high[0] == 2  # of three draws, one is the first subject
    assert np.isnan(low[1]) and np.isnan(high[1])


def test_one_subject_has_no_interval():
    low, high = bootstrap(lambda weight: weight @ np.ones((1, 4)), 1, np.random.default_rng(0), 10)
    assert low.shape == high.shape == (4,) and np.isnan(low).all() and np.isnan(high).all()


def test_strata_keep_their_sizes_and_strata_of_one_have_no_interval():
    drawn = []
    strata = np.array(["b", "a", "b", "a", "a"])
    bootstrap(lambda weight: drawn.append(weight) or weight[:, 0], 5, np.random.default_rng(0), 200, strata)
    assert (drawn[0][:, strata == "a"].sum(1) == 3).all() and (drawn[0][:, strata == "b"].sum(1) == 2).all()
    assert {0, 1, 2} == set(drawn[0][:, 0])
    low, high = bootstrap(lambda weight: weight[:, 0], 3, np.random.default_rng(0), 20, np.arange(3))
    assert np.isnan(low) and np.isnan(high)
