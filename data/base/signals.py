"""Signals in a block: what they do there, and afterwards again what they did before."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # what asks a run to stop; Windows lacks the last


@contextmanager
def handled(handler: Callable | signal.Handlers, names: Sequence[str] = STOPS) -> Iterator[None]:
    """Signals of these names, those that the system has, go to `handler` until the block ends."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)
