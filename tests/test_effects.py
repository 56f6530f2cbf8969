"""Statistics of blackout effects: error rates, intervals, blobs, against SciPy and by hand."""

import numpy as np
import pytest
from scipy import ndimage, stats

from utils.blackout.effects import (
    by_subject,
    mean_intervals,
    permutation_test,
    random_blobs,
    size_percentile,
    summary,
)  # fmt: skip


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


def test_a_size_without_a_connected_place_has_no_blob():
    """Two parts of 8 and 27 voxels: 27 always finds the larger part, 28 nothing, though 35 voxels are free."""
    inside = np.zeros((9, 9, 9), bool)
    inside[:2, :2, :2], inside[4:7, 4:7, 4:7] = True, True
    *placed, nothing = random_blobs(inside, [27] * 20 + [28], seed=0)
    assert nothing is None
    assert all((blob[4:7, 4:7, 4:7]).all() and blob.sum() == 27 for blob in placed)
    assert random_blobs(np.zeros((3, 3, 3), bool), [1], seed=0) == [None]


def test_percentile_among_blobs_is_undefined_where_there_are_none():
    of_blobs = np.array([[0.1, 0.2, 0.3, 0.4], [np.nan] * 4])
    assert size_percentile(np.array([0.35, 1.0]), of_blobs)[0] == 75
    assert np.isnan(size_percentile(np.array([0.35, 1.0]), of_blobs)[1])


AUC = {"value": 0.8, "low": 0.7, "high": 0.9}


def test_the_summary_says_what_is_significant():
    assert summary(np.array([0.04, 0.01, 0.05]), AUC) == (
        "AUC on these subjects 0.80 (0.70 to 0.90).\n2 of 3 regions are significant at family-wise p < 0.05."
    )
    assert "1 of 2 regions is significant" in summary(np.array([0.04, 0.9]), AUC)
    assert "None of 2 regions is significant at family-wise p < 0.05" in summary(np.array([0.05, 0.9]), AUC)


def test_the_summary_says_chance_and_what_is_unknown():
    at_chance = summary(np.array([0.9]), {"value": 0.55, "low": 0.4, "high": 0.7})
    assert at_chance.startswith("AUC on these subjects 0.55 (0.40 to 0.70): not better than chance")
    alone = summary(np.array([0.9]), {"value": 1.0, "low": None, "high": None})
    assert alone.startswith("AUC on these subjects 1.00 (no interval: one subject of a class).\nNone of 1 regions")
    unknown = summary(np.array([np.nan]), {"value": None, "low": None, "high": None})
    assert unknown == "No p-values: the subjects are of one class."


def test_one_subject_has_a_mean_effect_and_no_interval():
    """Of five subjects one has autism: its class has no interval, everybody and the controls have one."""
    effect = np.random.default_rng(0).normal(size=(5, 3))
    found = mean_intervals(effect, np.array([1.0, 0, 0, 0, 0]), seed=0)
    assert found["_autism"].tolist() == effect[0].tolist()
    for name in ("_autism_low", "_autism_high"):
        assert np.isnan(found[name]).all()
    for name in ("", "_control"):
        assert (found[f"{name}_low"] < found[f"{name}_high"]).all()
