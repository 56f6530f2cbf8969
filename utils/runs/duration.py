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

# batches at least, of which the median counts; the first one, for which the network is compiled, does not
MIN_MEASURED_BATCHES = 3


@dataclass(frozen=True)
class TrainingsAhead:
    """Trainings of equal length that are to come."""

    training_count: int = 1  # 0: their duration is not printed
    settings_with_printed_time: set[str] = field(default_factory=set)

    def multiply_trainings(self, factor: int) -> "TrainingsAhead":
        """`factor` trainings in place of each."""
        return TrainingsAhead(factor * self.training_count, self.settings_with_printed_time)


TRAININGS_AHEAD: ContextVar[TrainingsAhead | None] = ContextVar("AHEAD", default=None)


def get_trainings_ahead() -> TrainingsAhead:
    return TRAININGS_AHEAD.get() or TrainingsAhead(0)


@contextmanager
def set_trainings_ahead(trainings_ahead: TrainingsAhead) -> Iterator[None]:
    context_token = TRAININGS_AHEAD.set(trainings_ahead)
    try:
        yield
    finally:
        TRAININGS_AHEAD.reset(context_token)


@dataclass
class BatchTimer:
    """Measures the first batches of a training that begins with `initial_batch_count` batches seen."""

    run: Run
    initial_batch_count: int
    batch_times: list[float] = field(default_factory=list)  # when batches had been seen, by `time.perf_counter`

    def count_batch(self) -> None:
        """A batch has been seen. Once enough have been, prints how long all trainings take if that is long."""
        trainings_ahead = get_trainings_ahead()
        settings_text = str(self.run.config)
        if not trainings_ahead.training_count or settings_text in trainings_ahead.settings_with_printed_time:
            return
        self.batch_times.append(time.perf_counter())
        measured_batch_count = len(self.batch_times) - 1
        measured_s = self.batch_times[-1] - self.batch_times[0]
        if measured_batch_count < MIN_MEASURED_BATCHES or measured_s < EFFORT.measured_s:
            return
        trainings_ahead.settings_with_printed_time.add(settings_text)
        seconds_per_batch = median(later_time - earlier_time for earlier_time, later_time in pairwise(self.batch_times))
        remaining_batch_count = trainings_ahead.training_count * self.run.num_iters - self.initial_batch_count
        remaining_s = seconds_per_batch * remaining_batch_count
        if remaining_s > EFFORT.told_from_s:
            training_count_text = (
                f"{trainings_ahead.training_count} trainings" if trainings_ahead.training_count > 1 else "the training"
            )
            duration_message = (
                f"about {format_duration(remaining_s)} for {training_count_text} of {self.run.predictor.description}"
                f", measured over {measured_batch_count} batches"
            )
            if seconds_per_batch >= 1:
                duration_message += (
                    f" of {format_duration(seconds_per_batch)}; Ctrl-C and SIGTERM stop it after a batch"
                )
            print_summary([("time", duration_message)], even_if_quiet=True)
