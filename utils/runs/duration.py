"""How long trainings take, measured on the first batches of one -> a line, if that is long.

A training on folds, or a choice among settings, is many trainings that take about as long as the first.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from data.base.effort import EFFORT
from data.base.terminal import format_duration, print_summary
from utils.runs.run import Run

MEASURED = 3  # batches at least, of which the median counts; the first one, for which the network is compiled, is none
MEASURED_S = 2.0  # at least


@dataclass(frozen=True)
class Ahead:
    """So many trainings that last as long as one another are to come, 0 if it was said how long they take; `told` are
    the settings of which it was."""

    trainings: int = 1
    told: set[str] = field(default_factory=set)

    def times(self, count: int) -> "Ahead":
        """So many in place of each."""
        return Ahead(count * self.trainings, self.told)


AHEAD: ContextVar[Ahead | None] = ContextVar("AHEAD", default=None)


def ahead_of_this() -> Ahead:
    return AHEAD.get() or Ahead(0)


@contextmanager
def looking_ahead(ahead: Ahead) -> Iterator[None]:
    token = AHEAD.set(ahead)
    try:
        yield
    finally:
        AHEAD.reset(token)


@dataclass
class BatchTimer:
    """Measures the first batches of a training that has `done` some."""

    run: Run
    done: int
    seen_at: list[float] = field(default_factory=list)  # when batches had been seen, by `time.perf_counter`

    def tick(self) -> None:
        """A batch has been seen. Once enough have been, prints how long all trainings take if that is long."""
        ahead, settings = ahead_of_this(), str(self.run.choices.config)
        if not ahead.trainings or settings in ahead.told:
            return
        self.seen_at.append(time.perf_counter())
        batches = len(self.seen_at) - 1
        if batches < MEASURED or self.seen_at[-1] - self.seen_at[0] < MEASURED_S:
            return
        ahead.told.add(settings)
        batch_s = median(later - earlier for earlier, later in pairwise(self.seen_at))
        total_s = batch_s * (ahead.trainings * self.run.num_iters - self.done)
        if total_s > EFFORT.told_from_s:
            trainings = f"{ahead.trainings} trainings" if ahead.trainings > 1 else "the training"
            told = (
                f"about {format_duration(total_s)} for {trainings} of {self.run.model.model_name} "
                f"{self.run.choices.preset}"
            )
            told += f", measured over {batches} batches"
            if batch_s >= 1:
                told += f" of {format_duration(batch_s)}; Ctrl-C and SIGTERM stop it after a batch"
            print_summary([("time", told)], even_if_quiet=True)
