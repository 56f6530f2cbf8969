"""The chance of having drawn some donors is taken out of an effect."""

import numpy as np
import pytest

from utils.blackout.donors import control_variate_mean


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
