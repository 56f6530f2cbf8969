"""What a command shows: text on streams that may be closed, progress, and a log of an unforeseen error."""

import io
import os
import platform
import shlex
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from data.base.errors import escaped
from data.base.processes import interrupt_once

PLAIN_INTERVAL_S = 10.0
NOTE_INTERVAL_S = 30.0  # between lines of notes, where there is no terminal
TOLD_INTERVAL_S = 0.5  # between what is told of progress
Tell = Callable[[str], None]
QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)
TELL: ContextVar[Tell | None] = ContextVar("TELL", default=None)  # takes progress in place of the terminal


def make_plain() -> None:
    """Standard output and error show by escapes what they cannot encode; if they are closed, nothing is printed."""
    open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_or_discard() -> None:
    """What a full disk or a reader that has gone does not take goes to the null device, or Python would complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def open_closed() -> None:
    """Opens the null device in place of closed standard streams, or the next file would take their number and text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def start(main: Callable[[], int], program: str) -> NoReturn:
    """Runs `main` as this process: a warning is one line, and so is an error that escapes, with a log file; of several
    Ctrl-C the first counts. Processes that it starts find no modules in the working folder."""

    def escape(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if issubclass(kind, SystemExit):  # of a thread
            return
        with suppress(OSError):
            print(escaped(last_words(program, kind, error, trace)), file=sys.stderr)

    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # which outlives a killed command, and complains
    interrupt_once()
    sys.excepthook = escape
    threading.excepthook = lambda args: escape(args.exc_type, args.exc_value, args.exc_traceback)
    warn_in_one_line(program)
    sys.exit(main())


def warn_in_one_line(program: str) -> None:
    """A warning is one line, without the place in the code."""
    warnings.formatwarning = lambda message, *_: f"{program}: warning: {' '.join(str(message).split())}\n"


def last_words(
    program: str, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> str:
    """The line on an error that escaped, whose traceback is written to a log file."""
    if issubclass(kind, KeyboardInterrupt):
        return f"{program}: interrupted; repeat the command."
    words = traceback.format_exception_only(kind, error)[-1].split()
    told = f"{program}: error: this is a mistake of the program, not yours: {' '.join(words)[:300]}."
    log = f"{described()}\n\n{''.join(traceback.format_exception(kind, error, trace))}\n"
    name = f"{program.split()[-1]}-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (Path(), Path(tempfile.gettempdir())):
        with suppress(OSError), open(folder / name, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(log)
            return f"{told} The details are in {folder / name}; please report it with that file."
    return f"{told} Its log could not be written."


def described() -> str:
    """The command, the machine and the packages."""
    from importlib import metadata

    packages = sorted({f"{package.name} {package.version}" for package in metadata.distributions()})
    lines = (time.strftime("%Y-%m-%d %H:%M:%S %z"), shlex.join(sys.argv), platform.platform())
    return "\n".join([*lines, f"Python {platform.python_version()}", ", ".join(packages)])


@contextmanager
def quietly(tell: Tell | None = None) -> Iterator[None]:
    """Until the block ends `print_unless_quiet` prints nothing. Progress goes to `tell`; without one it is a bar that
    goes when it is full, and only on a terminal."""
    before, told = QUIET.set(True), TELL.set(tell)
    try:
        yield
    finally:
        QUIET.reset(before)
        TELL.reset(told)


def print_unless_quiet(text: str) -> None:
    """Prints what also stands in a file, unless `quietly`."""
    if not QUIET.get():
        print(text, flush=True)


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class PlainProgress:
    """One line at the first step, every ten seconds and at the end. Who `tell`s it elsewhere has it twice a second."""

    def __init__(self, title: str, total: int, done: int, tell: Tell | None = None):
        self.title, self.total, self.done = title, total, done
        self.tell = tell or print_unless_quiet
        self.interval_s = TOLD_INTERVAL_S if tell else PLAIN_INTERVAL_S
        self.started, self.started_at, self.printed = time.monotonic(), done, float("-inf")

    def advance(self, note: str = "", steps: int = 1) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.printed < self.interval_s and self.done < self.total:
            return
        self.printed = now
        text = f"{self.title} {self.done}/{self.total}{', ' + note if note else ''}"
        if self.done > self.started_at:
            left = (now - self.started) / (self.done - self.started_at) * (self.total - self.done)
            text += f", {left:.0f} s left"
        self.tell(text)


class PlainNotes:
    """A line with the latest note, every half minute."""

    def __init__(self) -> None:
        self.printed = time.monotonic()

    def advance(self, note: str = "", steps: int = 1) -> None:
        if note and (now := time.monotonic()) - self.printed >= NOTE_INTERVAL_S:
            self.printed = now
            print(note, flush=True)


class BarProgress:
    """The same, drawn by rich."""

    def __init__(self, bar: Any, task: Any):
        self.bar, self.task = bar, task

    def advance(self, note: str = "", steps: int = 1) -> None:
        self.bar.update(self.task, advance=steps, note=note)


@contextmanager
def bar(title: str, total: int, done: int = 0) -> Iterator[BarProgress | None]:
    """A bar; None where there is no terminal."""
    from rich.console import Console  # costs `--help` nothing
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    console = Console()
    if not console.is_terminal:
        yield None
        return
    times = (TimeElapsedColumn(), "left", TimeRemainingColumn())
    note = TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True))  # cut where it is too long
    columns = ("{task.description}", BarColumn(20), MofNCompleteColumn(), *times, note)
    shown = Progress(*columns, console=console, transient=QUIET.get(), expand=True)
    with shown:
        yield BarProgress(shown, shown.add_task(title, total=total, completed=done, note=""))


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[PlainProgress | BarProgress]:
    """Yields an object whose `advance(note, steps)` shows that steps of `total` are done."""
    if tell := TELL.get():
        yield PlainProgress(title, total, done, tell)
        return
    with bar(title, total, done) as shown:
        yield shown or PlainProgress(title, total, done)
