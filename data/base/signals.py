"""Signals: what they do within a block, how Ctrl-C is put off or ignored, and one that the end of the parent sends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # what asks a run to stop; Windows lacks the last
CHECK_INTERVAL_S = 0.5  # between looks at the parent
Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def handled(handler: Handler | signal.Handlers, names: Sequence[str] = STOPS) -> Iterator[None]:
    """Signals of these names, those that the system has, go to `handler` until the block ends."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


@contextmanager
def collected(names: Sequence[str] = STOPS, also: Callable[[int], None] = lambda number: None) -> Iterator[list[int]]:
    """Yields a list that signals append their number to, instead of ending the process; `also` is called with each."""
    caught: list[int] = []

    def catch(number: int, _: FrameType | None) -> None:
        caught.append(number)
        also(number)

    with handled(catch, names):
        yield caught


@contextmanager
def interrupts_delayed() -> Iterator[list[int]]:
    """Puts off Ctrl-C until the block ends, then raises KeyboardInterrupt and ignores it; what it yields is not empty
    once Ctrl-C was pressed. A background job, which inherits that Ctrl-C is ignored, keeps it so."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield []
        return
    caught: list[int] = []
    try:
        with collected(("SIGINT",)) as caught:
            yield caught
    finally:
        if caught:
            ignore_interrupts()
    if caught:
        raise KeyboardInterrupt


def terminate_with(parent: int) -> None:
    """Sends SIGTERM to this process once its parent, which may be killed, has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(CHECK_INTERVAL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def ignore_interrupts() -> None:
    """Ignores Ctrl-C from here on; one that arrives meanwhile is held back, for Python would print a complaint."""
    held = hasattr(signal, "pthread_sigmask")  # not on Windows
    if held:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
