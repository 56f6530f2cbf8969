"""Statistics of blackout effects: error rates, intervals, blobs, against SciPy and by hand."""

import numpy as np
import pytest
from scipy import ndimage, stats

from utils.blackout.effects import by_subject, mean_intervals, permutation_test, random_blobs


def drawn(random, subjects=40, regions=30, planted=0.0):
    """Effects on the true class (subjects, regions) with a common shift of every subject, and labels (subjects,)."""
    label = random.permutation(np.arange(subjects) % 2).astype(float)
    sign = np.where(label == 1, 1.0, -1.0)[:, None]
    on_autism = random.normal(0.7, 1, (subjects, regions)) + random.normal(size=(subjects, 1))
    on_autism[:, 0] += planted * sign[:, 0]
    return sign * on_autism, label


def test_family_wise_errors_are_five_percent():
    random = np.random.default_rng(0)
    hits = sum(permutation_test(*drawn(random), seed=trial)["p"].min() < 0.05 for trial in range(200))
    assert stats.binomtest(hits, 200, 0.05).pvalue > 0.01


def test_a_planted_effect_is_found_and_p_agrees_with_scipy():
    effect, label = drawn(np.random.default_rng(1), planted=1.5)
    result = permutation_test(effect, label, seed=0)
    assert result["p"][0] < 0.01 and result["p"].argmin() == 0
    sign = np.where(label == 1, 1.0, -1.0)
    for region in (0, 5, 9):
        on_autism = sign * effect[:, region]
        independent = stats.permutation_test(
            (on_autism[label == 1], on_autism[label == 0]), lambda a, b: a.mean() - b.mean(),
            alternative="greater", n_resamples=5000, rng=np.random.default_rng(3),
        ).pvalue  # fmt: skip
        assert result["p_uncorrected"][region] == pytest.approx(independent, abs=0.03)
    assert result["q"] == pytest.approx(stats.false_discovery_control(result["p_uncorrected"]))


def test_a_common_shift_of_all_regions_is_no_evidence():
    """A network that answers autism more after any occlusion says nothing of a region, since both classes move."""
    label = np.arange(20) % 2.0
    effect = np.where(label == 1, 1.0, -1.0)[:, None] * np.ones((20, 3))
    assert permutation_test(effect, label, seed=0)["p"].tolist() == [1.0, 1.0, 1.0]


def test_one_class_has_no_p_value():
    assert np.isnan(permutation_test(np.ones((4, 2)), np.ones(4), seed=0)["p"]).all()


def test_intervals_against_scipy():
    effect, label = drawn(np.random.default_rng(2))
    result = mean_intervals(effect, label, seed=0)
    for name, member in (("", label >= 0), ("_autism", label == 1), ("_control", label == 0)):
        interval = stats.bootstrap(
            (effect[member, 4],), np.mean, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        assert result[name][4] == pytest.approx(effect[member, 4].mean())
        assert result[f"{name}_low"][4] == pytest.approx(interval.low, abs=0.06)
        assert result[f"{name}_high"][4] == pytest.approx(interval.high, abs=0.06)


def test_records_of_a_subject_count_once():
    values = np.array([[1.0], [3.0], [5.0]])
    assert by_subject(values, ["b", "b", "a"]).tolist() == [[5.0], [2.0]]


def test_blobs_are_connected_inside_and_of_the_size_asked_for():
    inside = ndimage.binary_dilation(np.pad(np.ones((4, 5, 6), bool), 3), iterations=1)
    inside[5, 5, 5] = False
    sizes = [1, 7, 40, 90]
    blobs = random_blobs(inside, sizes, seed=0)
    for blob, size in zip(blobs, sizes, strict=True):
        assert blob.sum() == size and not (blob & ~inside).any()
        assert ndimage.label(blob)[1] == 1
    again = random_blobs(inside, sizes, seed=0)
    assert all((blob == other).all() for blob, other in zip(blobs, again, strict=True))
    with pytest.raises(ValueError, match="no connected place for 1000"):
        random_blobs(inside, [1000], seed=0)


def test_one_subject_has_a_mean_effect_and_no_interval():
    """Of five subjects one has autism: its class has no interval, everybody and the controls have one."""
    effect = np.random.default_rng(0).normal(size=(5, 3))
    found = mean_intervals(effect, np.array([1.0, 0, 0, 0, 0]), seed=0)
    assert found["_autism"].tolist() == effect[0].tolist()
    for name in ("_autism_low", "_autism_high"):
        assert np.isnan(found[name]).all()
    for name in ("", "_control"):
        assert (found[f"{name}_low"] < found[f"{name}_high"]).all()
