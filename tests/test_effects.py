"""Statistics of blackout effects: error rates, intervals, percentiles and blobs, against SciPy and by hand."""

import itertools

import numpy as np
import pytest
from scipy import ndimage, stats

from data import grids
from data.cohorts.atlas import Atlas, reduce_labels
from data.cohorts.rows import Row
from utils.blackout.effects import (
    ARRAYS,
    OF_BLOBS,
    Effects,
    averaged,
    by_subject,
    mean_interval,
    random_blobs,
    region_table,
    sign_flip_test,
    size_percentile,
)


def drawn(random, subjects=40, regions=30, planted=0.0, share=0.5):
    """Effects on the true class (subjects, regions), and labels. What a region's content does to the logit of autism is
    skewed, alike in both classes, and dependent over regions; `planted` is added to the effect of the first."""
    label = (random.permutation(subjects) < share * subjects).astype(float)
    common = random.gamma(4, size=(subjects, 1)) - 4
    on_autism = common * random.choice([0.1, 0.5], (1, regions)) + random.gamma(4, size=(subjects, regions)) - 4
    effect = np.where(label == 1, 1.0, -1.0)[:, None] * on_autism
    effect[:, 0] += planted
    return effect, label


@pytest.mark.slow
@pytest.mark.parametrize("planted, share", [(0.0, 0.5), (3.0, 0.5), (0.0, 0.42)])
def test_family_wise_errors_are_five_percent_whatever_is_planted_elsewhere(planted, share):
    random = np.random.default_rng(0)
    found = [sign_flip_test(*drawn(random, planted=planted, share=share), seed=at)[0] for at in range(200)]
    empty = [p[1:] if planted else p for p in found]
    assert stats.binomtest(sum(p.min() < 0.05 for p in empty), 200, 0.05).pvalue > 0.01
    if planted:
        assert sum(p[0] < 0.05 for p in found) > 180


def test_p_is_what_all_flips_give():
    """Of six subjects there are 64 ways to flip the signs, and as many studentised means."""
    effect, label = drawn(np.random.default_rng(1), subjects=6, regions=4, planted=3.0)
    flips = np.array(list(itertools.product((1, -1), repeat=6)))
    t = stats.ttest_1samp(flips[:, :, None] * effect, 0, axis=1).statistic
    observed = stats.ttest_1samp(effect, 0).statistic
    family_wise = (t.max(1)[:, None] >= observed - 1e-9).mean(0)
    alone = (t >= observed - 1e-9).mean(0)
    p, q = sign_flip_test(effect, label, seed=0)
    assert p == pytest.approx(family_wise, abs=0.02)
    assert q == pytest.approx(stats.false_discovery_control(alone), abs=0.03)


def test_p_agrees_with_a_permutation_test_of_scipy():
    effect, label = drawn(np.random.default_rng(2), regions=1, planted=0.5)
    independent = stats.permutation_test(
        (effect[:, 0],), np.mean, permutation_type="samples", alternative="greater", n_resamples=5000,
        rng=np.random.default_rng(3),
    ).pvalue  # fmt: skip
    assert sign_flip_test(effect, label, seed=0)[0][0] == pytest.approx(independent, abs=0.02)


def test_a_region_that_never_matters_or_speaks_against_is_no_evidence():
    effect = np.column_stack([np.zeros(20), np.full(20, -1.0), np.random.default_rng(0).normal(size=20)])
    p, _ = sign_flip_test(effect, np.arange(20) % 2, seed=0)
    assert p[:2].tolist() == [1.0, 1.0]


def test_one_class_has_no_p_and_one_subject_no_interval_but_a_mean():
    effect = np.array([[1.0, 2.0]])
    assert np.isnan(sign_flip_test(np.ones((4, 2)), np.ones(4), seed=0)).all()
    mean, low, high = mean_interval(effect, seed=0)
    assert mean.tolist() == [1.0, 2.0] and np.isnan([low, high]).all()


def test_intervals_against_scipy():
    effect, _ = drawn(np.random.default_rng(2))
    mean, low, high = mean_interval(effect, seed=0)
    independent = stats.bootstrap(
        (effect[:, 4],), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert mean[4] == pytest.approx(effect[:, 4].mean())
    assert (low[4], high[4]) == pytest.approx((independent.low, independent.high), abs=0.06)


def test_records_of_a_subject_count_once():
    values = np.array([[1.0], [3.0], [5.0]])
    assert by_subject(values, ["b", "b", "a"]).tolist() == [[5.0], [2.0]]


def test_the_percentile_compares_a_blob_with_the_region_on_the_same_subjects():
    """Region 0 beats three of its four blobs; of region 1 one blob found no place in the second group; 2 has none."""
    excess = np.zeros((5, 3, 2))
    subject, group = ["a", "a", "b", "c", "d"], np.array([0, 0, 0, 1, 1])
    excess[:, 0] = [[-3, 3], [-3, 3], [1, -1], [-1, -1], [-1, -1]]  # means over a and b: -1, 1; over c and d: -1, -1
    excess[:, 1] = [[-1, 1]] * 3 + [[-1, np.nan]] * 2
    excess[:, 2] = np.nan
    found = size_percentile(excess, group, subject)
    assert found[:2] == pytest.approx([75, 200 / 3]) and np.isnan(found[2])


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


def test_repeats_are_averaged_by_record_and_their_blobs_are_all_kept():
    random = np.random.default_rng(0)
    rows = [Row(f"{name}.bin", name, "", 0.0, "test") for name in "abc"]

    def made(order, blobs):
        arrays = {name: random.normal(size=(3, 2)) for name in ARRAYS if name not in OF_BLOBS}
        excess = random.normal(size=(3, 2, blobs))
        return Effects(**arrays, blob_excess=excess, group=np.array([0, 0, 1]), rows=[rows[at] for at in order])

    one, other = made((0, 1, 2), 4), made((2, 0, 1), 1)
    mean = averaged([one, other])
    assert mean.subject == ["a", "b", "c"]
    for at, its in enumerate((1, 2, 0)):  # where the other repeat has the record
        assert mean.reliance[at] == pytest.approx((one.reliance[at] + other.reliance[its]) / 2)
        assert mean.blob_excess[3 + at, :, 0] == pytest.approx(other.blob_excess[its, :, 0])
    assert mean.group.tolist() == [0, 0, 1, 2, 3, 2] and mean.blob_subject == ["a", "b", "c"] * 2
    found = size_percentile(mean.blob_excess, mean.group, mean.blob_subject)
    below = [one.blob_excess[:2].mean(0), one.blob_excess[2], other.blob_excess[[0, 1]].mean(0), other.blob_excess[2]]
    assert found == pytest.approx(100 * (np.concatenate(below, axis=1) < 0).mean(1))


@pytest.mark.slow
def test_p_is_of_adjusted_effects_and_the_plain_one_stands_beside_it():
    """The adjustment leaves nothing of the first region; the second is unique without reliance."""
    random, rows = np.random.default_rng(0), [Row(f"{at}.bin", f"s{at}", "NYU", at % 2, "test") for at in range(30)]
    strong, none = random.normal([1.0, 0.0], 0.5, (2, 30, 2))
    values = dict.fromkeys(("delta_logit", "delta_probability", "sufficiency"), none)
    values |= {
        "reliance_by_map": np.zeros((30, 2, 0)),
        "reliance": strong,
        "unique": strong[:, ::-1],
        "blob_excess": np.full((30, 2, 1), -1.0),
    }
    effects = Effects(**values, group=np.zeros(30, int), probability=np.full(30, 0.5), rows=rows)
    labels = np.zeros(grids.FULL.shape, np.int32)
    labels[20:30, 40:50, 20:24], labels[60:70, 40:50, 30:34] = 1, 2
    own = Atlas(reduce_labels(labels), {1: "first", 2: "second"}, grids.REDUCED, labels, [])
    alone = region_table(own, effects, seed=0).set_index("name")
    assert (alone["p_reliance"] == alone["p_reliance_plain"]).all()
    assert (alone["reliance_adjusted"] == alone["reliance"]).all()
    label = effects.of_subjects("label")

    def halved(effect):
        return effect - effect.mean(0) * [1, 0]

    table = region_table(own, effects, 0, halved).set_index("name")
    for kind in ("reliance", "unique"):
        effect = effects.of_subjects(kind)
        p, q = sign_flip_test(halved(effect), label, 0)
        assert (table[f"p_{kind}"] == p).all() and (table[f"q_{kind}"] == q).all()
        assert (table[f"p_{kind}_plain"] == alone[f"p_{kind}"]).all()
        assert table[[f"{kind}", f"{kind}_low"]].equals(alone[[f"{kind}", f"{kind}_low"]])
        assert np.array(mean_interval(halved(effect), 0)) == pytest.approx(
            table[[f"{kind}_adjusted", f"{kind}_adjusted_low", f"{kind}_adjusted_high"]].T.to_numpy()
        )
    assert table["p_reliance"]["first"] > 0.3 and table["p_reliance_plain"]["first"] < 0.05
    assert table["remark"].to_dict() == {"first": "", "second": "possibly a suppressor"}
