"""Successive halving: who is compared where, by brute force, and how many trainings that takes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.choice.halving import halve, trainings


def halved(scores: np.ndarray) -> tuple[list, list]:
    """The rungs of candidates with a score in each fold (candidates, folds), and which folds were asked for."""
    names, folds, asked = [f"c{at}" for at in range(len(scores))], [str(at) for at in range(scores.shape[1])], []

    def score(name, used):
        asked.append((name, tuple(used)))
        return float(scores[int(name[1:]), [int(fold) for fold in used]].mean())

    return halve(names, folds, score), asked


def by_brute_force(scores: np.ndarray) -> list[dict[int, list[int]]]:
    """Who is left, and on how many folds: all on two, then the better half on twice as many; the last two on all."""
    count, folds = scores.shape
    left, used, rungs = list(range(count)), min(2, folds), []
    while True:
        rungs.append({used: left})
        if used == folds:
            return rungs
        mean = {at: scores[at, :used].mean() for at in left}
        half = max(2, -(-len(left) // 2))
        left = sorted(sorted(left, key=lambda at: (-mean[at], at))[:half])
        used = folds if len(left) == 2 else min(2 * used, folds)


@given(seed=st.integers(0, 10**6), count=st.integers(2, 20), folds=st.integers(2, 5), coarse=st.booleans())
def test_rungs_are_those_of_brute_force(seed, count, folds, coarse):
    """Also with equal scores, where the user's order decides."""
    scores = np.random.default_rng(seed).random((count, folds))
    scores = scores.round() if coarse else scores
    rungs, asked = halved(scores)
    wanted = by_brute_force(scores)
    assert [rung.folds for rung in rungs] == [used for of in wanted for used in of]
    for rung, of in zip(rungs, wanted, strict=True):
        (left,) = of.values()
        assert set(rung.scores) == {f"c{at}" for at in left}
    assert rungs[-1].folds == folds
    best = max(rungs[-1].scores.values())
    assert rungs[-1].scores[rungs[-1].ranked[0]] == best
    assert len({pair for name, used in asked for pair in ((name, fold) for fold in used)}) == trainings(count, folds)


@pytest.mark.parametrize(
    "count, folds, wanted",
    [
        (2, 2, 4),
        (2, 5, 10),  # both on all
        (3, 5, 2 + 2 * 5),  # three on two, two of them on all
        (4, 5, 2 * 2 + 2 * 5),
        (8, 5, 4 * 2 + 2 * 4 + 2 * 5),
        (6, 3, 3 * 2 + 3 * 3),  # the better three on all that there are
        (64, 5, 32 * 2 + 16 * 4 + 16 * 5),
        (5, 2, 10),
    ],
)
def test_the_budget_by_hand(count, folds, wanted):
    assert trainings(count, folds) == wanted
    assert wanted <= count * folds


def test_of_equal_ones_the_first_named_is_chosen():
    assert halved(np.zeros((5, 5)))[0][-1].ranked[0] == "c0"
    scores = np.array([[0.1] * 5, [0.7] * 5, [0.7] * 5, [0.2] * 5])
    assert halved(scores)[0][-1].ranked[0] == "c1"
    scores = np.array([[0.6, 0.6, 0.8, 0.8, 0.7], [0.7, 0.7, 0.7, 0.7, 0.7], [0.1] * 5]).round(6)
    rungs, _ = halved(scores)
    assert rungs[0].ranked[0] == "c1" and rungs[-1].ranked == ["c0", "c1"]


def test_the_last_two_are_compared_on_all_folds():
    """The second is better at first, the first in all."""
    scores = np.array([[0.6, 0.6, 0.9, 0.9, 0.9], [0.8, 0.8, 0.1, 0.1, 0.1], [0.1] * 5])
    rungs, _ = halved(scores)
    assert [(rung.folds, len(rung.scores)) for rung in rungs] == [(2, 3), (5, 2)]
    assert rungs[0].ranked == ["c1", "c0", "c2"] and rungs[1].ranked == ["c0", "c1"]


def test_the_budget_is_what_successive_halving_promises():
    """The better half on twice as many folds costs as much again, so that the rungs are few and about alike."""
    for count in range(2, 65):
        first, rest = 2 * count, trainings(count, 5) - 2 * count
        assert rest <= max(6, first * math.ceil(math.log2(5 / 2)))
