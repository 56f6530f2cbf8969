"""Logits -> effects and their signs; the chance of having drawn some donors."""

from types import SimpleNamespace

import numpy as np
import pytest

from utils.blackout.donors import control_variate_mean
from utils.blackout.fills import FILLS
from utils.blackout.measure import Logits


class NoChance:
    """Fills whose donors are like all people."""

    means = expected = np.zeros((1, 2, 2))
    donors = SimpleNamespace(tested=np.array([0]))
    names = np.array([fill.name for fill in FILLS])

    def deviations(self, level):
        return np.zeros((1, 2, 2, 2))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_region_that_speaks_for_the_true_class_counts_as_positive(sign):
    """Autism's logit is 2 with everything shown, and falls to 0.5 by any fill of region 0. Of a donor, whose logit is
    -1, it makes 0.5. The first of two maps alone makes 0.75."""
    shown = [-1.0 if fill.shown == "donor" else 2.0 for fill in FILLS]
    base = np.array([[[0.0, logit] for logit in shown]])
    of_region = np.array([[[[0.0, 0.5], [0.0, logit]] for logit in shown]])
    by_map = np.array([[[[0.75, 2.0], [2.0, 2.0]]]])
    logits = Logits(base, of_region, by_map, np.zeros((1, len(FILLS), 2, 0)))
    found = logits.effects(np.array([[sign]]), NoChance())
    for fill in FILLS:
        name = fill.stored
        assert found[name] == pytest.approx(np.array([[sign * 1.5, 0.0]])), name
    assert found["reliance_by_map"] == pytest.approx(np.array([[[sign * 1.25, 0.0], [0.0, 0.0]]]))
    change = 1 / (1 + np.exp(-2)) - 1 / (1 + np.exp(-0.5))
    assert found["delta_probability"] == pytest.approx(np.array([[sign * change, 0.0]]))
    assert found["probability"] == pytest.approx([1 / (1 + np.exp(-2))])


def test_the_chance_of_having_drawn_some_donors_is_taken_out():
    """Of a network that is linear in two maps' means the mean over five donors becomes that over all people; of another
    one the mean over records stays what it is on average, and is steadier."""
    random, weight = np.random.default_rng(0), np.array([2.0, -1.0])
    deviation = random.normal(size=(300, 6, 1, 2))
    linear = (deviation[:, :1] - deviation[:, 1:]) @ weight
    everybody = deviation[:, 0] @ weight
    assert control_variate_mean(linear, deviation) == pytest.approx(everybody, abs=0.02)
    assert np.abs(linear.mean(1) - everybody).max() > 1
    bent = np.exp(deviation @ weight / 4)
    bent = bent[:, :1] - bent[:, 1:]
    assert control_variate_mean(bent, deviation).mean() == pytest.approx(bent.mean(), abs=0.05)
    assert control_variate_mean(bent, deviation).std() < 0.95 * bent.mean(1).std()


def test_one_pair_does_not_mislead():
    deviation = np.array([[[[1.0]], [[0.999]]]])
    assert abs(control_variate_mean(np.array([[[5.0]]]), deviation)[0, 0]) < 6
