"""What a command shows: warnings on one line, and progress."""

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import zip_longest
from typing import Any, NoReturn, Protocol

from data.base.processes import INTERRUPTED_STATUS, end_at_interrupt, interrupt_again, interrupt_once

LINE_INTERVAL_S = 10.0
MOST_LINES = 60  # of progress, about, in the first ten minutes, and in each three times as long
LEAST = 20  # letters of a text that is cut
LONGEST = 1000  # letters of a line where there is no terminal
ABOUT = len("participants")  # the widest of what facts are about
TOLD_INTERVAL_S = 0.5  # between what is told of progress
Tell = Callable[[str], object]
Fact = tuple[str, str]  # what it is about, and a text
TELL: ContextVar[Tell | None] = ContextVar("TELL", default=None)  # takes progress in place of the terminal


def flush_or_discard() -> None:
    """What a full disk or a reader that has gone does not take goes to the null device, or Python would complain."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def start(main: Callable[[], int], program: str) -> NoReturn:
    """Runs `main` as this process: a warning is one line; of several Ctrl-C the first counts. Processes that it starts
    find no modules in the working folder."""
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # which outlives a killed command, and complains
    interrupt_once()
    sys.unraisablehook = interrupt_again
    warn_in_one_line(program)
    try:
        status = main()
        end_at_interrupt()
    except KeyboardInterrupt:  # before or after what `main` guards
        print(interrupted_line(program), file=sys.stderr)
        status = INTERRUPTED_STATUS
    sys.exit(status)


def interrupted_line(program: str) -> str:
    return f"{program}: interrupted; repeat the command."


def warn_in_one_line(program: str) -> None:
    """A warning is one line, without the place in the code."""
    warnings.formatwarning = lambda message, *_: f"{program}: warning: {' '.join(str(message).split())}\n"


@contextmanager
def quietly(tell: Tell) -> Iterator[None]:
    """Until the block ends progress goes to `tell`, and `print_unless_quiet` prints nothing."""
    before = TELL.set(tell)
    try:
        yield
    finally:
        TELL.reset(before)


def print_unless_quiet(text: str) -> None:
    """Prints what also stands in a file, unless `quietly`."""
    if not TELL.get():
        print(text, flush=True)


def print_table(rows: Sequence[Sequence[str]], cut: bool = False, aloud: bool = False) -> None:
    """Prints rows of texts in aligned columns, unless `quietly`; `aloud` even then. Where there is a terminal, a text
    wraps in its column, or is `cut`, if it stands in a file, too; elsewhere a row is a line, however long."""
    from rich.console import Console  # costs `--help` nothing
    from rich.table import Table

    if (TELL.get() and not aloud) or not (rows and sys.stdout):
        return
    width = None if sys.stdout.isatty() else LONGEST
    console, table = Console(width=width, markup=False, highlight=False, emoji=False), Table.grid(padding=(0, 2, 0, 0))
    *first, _ = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    room = max(console.width - sum(first) - 2 * len(first), LEAST)
    for _ in first:
        table.add_column(no_wrap=True)
    table.add_column()  # it is the last one that gives way
    for *cells, text in rows:
        table.add_row(*cells, f"{text[: room - 1]}…" if cut and len(text) > room else text)
    with console.capture() as printed:
        console.print(table)
    print(*map(str.rstrip, printed.get().splitlines()), sep="\n", flush=True)


def print_facts(facts: Iterable[Fact], aloud: bool = False) -> None:
    """Prints facts, each a row: what it is about, and the text. Those of several calls are aligned."""
    print_table([(f"{about:{ABOUT}}", text) for about, text in facts], aloud=aloud)


def joined(facts: Iterable[Fact]) -> list[Fact]:
    """One fact for all that are about the same; what begins alike up to a colon does so once."""
    found: dict[str, dict[str, list[str]]] = {}
    for about, text in dict.fromkeys(facts):
        start, colon, rest = text.partition(": ")
        found.setdefault(about, {}).setdefault(start + colon, []).append(rest)
    return [(about, "; ".join(start + ", ".join(of) for start, of in texts.items())) for about, texts in found.items()]


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def participants(count: int, kind: str = "") -> str:
    """`1 participant`, `2 test participants`."""
    return " ".join(filter(None, (str(count), kind, "participant" if count == 1 else "participants")))


class Progress(Protocol):
    """Shows that steps are done, and a note on what is being done."""

    def advance(self, note: str = "", steps: int = 1) -> None: ...


class Lines:
    """One line at the first step, every ten seconds, of what takes long less often, and at the end; also if it is begun
    before progress within it goes elsewhere. Who is told it elsewhere has it twice a second."""

    def __init__(self, title: str, total: int, done: int, tell: Tell | None):
        self.title, self.total, self.done = title, total, done
        self.tell = tell or partial(print, flush=True)
        self.interval_s = TOLD_INTERVAL_S if tell else LINE_INTERVAL_S
        self.started, self.started_at, self.printed = time.monotonic(), done, float("-inf")

    def advance(self, note: str = "", steps: int = 1) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.printed < max(self.interval_s, (now - self.started) / MOST_LINES) and self.done < self.total:
            return
        self.printed = now
        text = f"{self.title} {self.done}/{self.total}{', ' + note if note else ''}"
        if self.done > self.started_at:
            left = (now - self.started) / (self.done - self.started_at) * (self.total - self.done)
            text += f", {duration(left)} left"
        self.tell(text)


class Bar:
    """The same, drawn by rich."""

    def __init__(self, bar: Any, task: Any):
        self.bar, self.task = bar, task

    def advance(self, note: str = "", steps: int = 1) -> None:
        self.bar.update(self.task, advance=steps, note=note)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Progress]:
    """What shows that steps of `total` are done: a bar, or lines where there is no terminal."""
    from rich import progress as rich  # costs `--help` nothing
    from rich.console import Console
    from rich.table import Column

    console, tell = Console(), TELL.get()
    if tell or not console.is_terminal:
        yield Lines(title, total, done, tell)
        return
    times = (rich.TimeElapsedColumn(), "left", rich.TimeRemainingColumn())
    note = rich.TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True))  # cut where too long
    columns = ("{task.description}", rich.BarColumn(20), rich.MofNCompleteColumn(), *times, note)
    with rich.Progress(*columns, console=console, expand=True) as shown:
        yield Bar(shown, shown.add_task(title, total=total, completed=done, note=""))
