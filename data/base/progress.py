"""Progress of a long job: a bar on a terminal, plain lines elsewhere, as in log files; reading ahead."""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any

from data.base.terminal import Plain

PLAIN_INTERVAL_S = 10.0
READ_AHEAD = 2  # batches
QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Until the block ends, `tell` prints nothing, and progress is a bar that goes when it is full, on a terminal."""
    before = QUIET.set(quiet or QUIET.get())
    try:
        yield
    finally:
        QUIET.reset(before)


def tell(text: str) -> None:
    """Prints what also stands in a file, unless `quietly`."""
    if not QUIET.get():
        print(text, flush=True)


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class PlainProgress:
    """One line at the first step, every ten seconds and at the end."""

    def __init__(self, title: str, total: int, done: int):
        self.title, self.total, self.done = title, total, done
        self.started = time.monotonic()
        self.started_at = done
        self.printed = float("-inf")

    def advance(self, note: str = "", steps: int = 1) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.printed < PLAIN_INTERVAL_S and self.done < self.total:
            return
        self.printed = now
        left = (now - self.started) / max(self.done - self.started_at, 1) * (self.total - self.done)
        tell(f"{self.title} {self.done}/{self.total}{', ' + note if note else ''}, {left:.0f} s left")


class BarProgress:
    """The same, drawn by rich."""

    def __init__(self, bar: Any, task: Any):
        self.bar, self.task = bar, task

    def advance(self, note: str = "", steps: int = 1) -> None:
        self.bar.update(self.task, advance=steps, note=note)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[PlainProgress | BarProgress]:
    """Yields an object whose `advance(note, steps)` shows that steps of `total` are done."""
    from rich.console import Console  # imported late: not needed to report a mistake
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(file=getattr(sys.stdout, "stream", None))  # a bar steers the terminal, see `terminal.Plain`
    if not console.is_terminal:
        yield PlainProgress(title, total, done)
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[note]}", TimeRemainingColumn())
    shown = Progress(*columns, console=console, transient=QUIET.get())
    with shown as bar, redirect_stdout(Plain(sys.stdout)):  # rich passes colours on
        yield BarProgress(bar, bar.add_task(title, total=total, completed=done, note=""))


def ahead(read: Callable[[Any], Any], arguments: Iterable) -> Iterator[Any]:
    """`map(read, arguments)`, a few results ahead, each in another thread."""
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        for argument in arguments:
            waiting.append(pool.submit(read, argument))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
