"""Successive halving: candidates and inner folds -> which candidate does best, without training all in all folds.

All candidates are compared on the first two inner folds, the better half of them on twice as many, and so on (Jamieson
& Talwalkar 2016, AISTATS); the last two on all. Only training people are looked at, so this can cost a good candidate,
but no honesty.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FIRST = 2  # inner folds on which all candidates are compared
LAST = 2  # candidates that are compared on all inner folds
Score = Callable[[str, Sequence[str]], float]  # of a candidate on these inner folds


@dataclass(frozen=True)
class Rung:
    """The scores of candidates that were compared on so many inner folds; the best ones stay."""

    folds: int
    scores: dict[str, float]

    @property
    def ranked(self) -> list[str]:
        """The best first; of equal ones the one that the user named first."""
        return sorted(self.scores, key=lambda name: -self.scores[name])


def halve(candidates: Sequence[str], folds: Sequence[str], score: Score) -> list[Rung]:
    """The rungs; the best of the last one, which compares the best two or more on all folds, is chosen."""
    left, used, rungs = list(candidates), min(FIRST, len(folds)), []
    while True:
        rungs.append(Rung(used, {name: score(name, folds[:used]) for name in left}))
        if used == len(folds):
            return rungs
        better = rungs[-1].ranked[: max(LAST, math.ceil(len(left) / 2))]
        left = [name for name in left if name in better]
        used = len(folds) if len(left) == LAST else min(2 * used, len(folds))


def trainings(candidates: int, folds: int) -> int:
    """How many trainings `halve` needs."""
    names = [str(number) for number in range(candidates)]
    rungs = halve(names, [str(number) for number in range(folds)], lambda *_: 0.0)
    used = {name: rung.folds for rung in rungs for name in rung.scores}
    return sum(used.values())
