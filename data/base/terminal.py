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
from typing import Any, NoReturn, Protocol, TextIO

from data.base.processes import INTERRUPTED_STATUS, exit_on_next_interrupt, install_interrupt_handler, repeat_interrupt

LINE_INTERVAL_S = 10.0
MAX_PROGRESS_LINES = 60  # about so many in the first ten minutes, and each time that the duration triples
MIN_LAST_COLUMN_WIDTH = 20  # letters of a text that is cut
MAX_LINE_LENGTH = 1000  # letters of a line where there is no terminal
TOPIC_WIDTH = len("participants")  # the longest topic
PROGRESS_CALLBACK_INTERVAL_S = 0.5  # between two calls of a progress callback
ProgressCallback = Callable[[str], object]  # takes a line of progress
SummaryRow = tuple[str, str]  # the topic, and a text about it
PROGRESS_CALLBACK: ContextVar[ProgressCallback | None] = ContextVar(
    "TELL", default=None
)  # takes progress in place of the terminal


def flush_or_discard_output() -> None:
    """What a full disk or a reader that has gone does not take goes to the null device, or Python would complain."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            with open(os.devnull, "w") as null_device:
                os.dup2(null_device.fileno(), stream.fileno())


def run_program(main: Callable[[], int], program_name: str) -> NoReturn:
    """Runs `main` as this process: a warning is one line; of several Ctrl-C the first counts. Processes that it starts
    find no modules in the working folder."""
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # which outlives a killed command, and complains
    install_interrupt_handler()
    sys.unraisablehook = repeat_interrupt
    set_warning_format(program_name)
    try:
        exit_status = main()
        exit_on_next_interrupt()
    except KeyboardInterrupt:  # before or after what `main` guards
        print(format_interrupted_line(program_name), file=sys.stderr)
        exit_status = INTERRUPTED_STATUS
    sys.exit(exit_status)


def format_interrupted_line(program_name: str) -> str:
    return f"{program_name}: interrupted; repeat the command."


def set_warning_format(program_name: str) -> None:
    """A warning is one line, without the place in the code."""
    warnings.formatwarning = lambda message, *_: f"{program_name}: warning: {' '.join(str(message).split())}\n"


@contextmanager
def redirect_progress(progress_callback: ProgressCallback) -> Iterator[None]:
    """Until the block ends progress goes to `progress_callback`, and `print_unless_quiet` prints nothing."""
    reset_token = PROGRESS_CALLBACK.set(progress_callback)
    try:
        yield
    finally:
        PROGRESS_CALLBACK.reset(reset_token)


def print_unless_quiet(text: str) -> None:
    """Prints what is in a file, too, except within `redirect_progress`."""
    if not PROGRESS_CALLBACK.get():
        print(text, flush=True)


def print_table(rows: Sequence[Sequence[str]], truncate_last_column: bool = False, even_if_quiet: bool = False) -> None:
    """Prints rows of texts in aligned columns, except within `redirect_progress`; with `even_if_quiet` even there. In a
    terminal, the last column wraps or, with `truncate_last_column`, is cut, if the text is in a file, too. Elsewhere a
    row is one line of up to `MAX_LINE_LENGTH` letters."""
    from rich.console import Console  # costs `--help` nothing
    from rich.table import Table

    if (PROGRESS_CALLBACK.get() and not even_if_quiet) or not (rows and sys.stdout):
        return
    console_width = None if sys.stdout.isatty() else MAX_LINE_LENGTH
    console = Console(width=console_width, markup=False, highlight=False, emoji=False)
    rich_table = Table.grid(padding=(0, 2, 0, 0))
    *left_column_widths, _ = [max(map(len, column_texts)) for column_texts in zip_longest(*rows, fillvalue="")]
    last_column_width = max(
        console.width - sum(left_column_widths) - 2 * len(left_column_widths), MIN_LAST_COLUMN_WIDTH
    )
    for _ in left_column_widths:
        rich_table.add_column(no_wrap=True)
    rich_table.add_column()  # only the last column wraps
    for *left_cells, last_cell in rows:
        if truncate_last_column and len(last_cell) > last_column_width:
            rich_table.add_row(*left_cells, f"{last_cell[: last_column_width - 1]}…")
        else:
            rich_table.add_row(*left_cells, last_cell)
    with console.capture() as captured_output:
        console.print(rich_table)
    print(*map(str.rstrip, captured_output.get().splitlines()), sep="\n", flush=True)


def print_summary(summary_rows: Iterable[SummaryRow], even_if_quiet: bool = False) -> None:
    """Prints facts, each a row: what it is about, and the text. Those of several calls are aligned."""
    print_table([(f"{topic:{TOPIC_WIDTH}}", text) for topic, text in summary_rows], even_if_quiet=even_if_quiet)


def merge_summary_rows(summary_rows: Iterable[SummaryRow]) -> list[SummaryRow]:
    """One row for each topic; texts that begin alike up to a colon share this beginning."""
    endings_by_topic_and_beginning: dict[str, dict[str, list[str]]] = {}
    for topic, text in dict.fromkeys(summary_rows):
        beginning, colon, ending = text.partition(": ")
        endings_by_topic_and_beginning.setdefault(topic, {}).setdefault(beginning + colon, []).append(ending)

    merged_rows = []
    for topic, endings_by_beginning in endings_by_topic_and_beginning.items():
        merged_texts = [beginning + ", ".join(endings) for beginning, endings in endings_by_beginning.items()]
        merged_rows.append((topic, "; ".join(merged_texts)))
    return merged_rows


def format_duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3.4 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def format_participants(count: int, qualifier: str = "") -> str:
    """`1 participant`, `2 test participants`."""
    return " ".join(filter(None, (str(count), qualifier, "participant" if count == 1 else "participants")))


class ProgressBar(Protocol):
    """Shows that steps are done, and a note on what is being done."""

    def advance(self, note: str = "", steps: int = 1) -> None: ...


class ProgressLines:
    """A line at the first step, at most every ten seconds (less often if it takes long), and at the end. Lines go where
    progress went when this was made; a callback gets them up to twice a second."""

    def __init__(self, title: str, total_steps: int, done_steps: int, progress_callback: ProgressCallback | None):
        self.title = title
        self.total_steps = total_steps
        self.done_steps = done_steps
        self.print_line = progress_callback or partial(print, flush=True)
        self.min_line_interval_s = PROGRESS_CALLBACK_INTERVAL_S if progress_callback else LINE_INTERVAL_S
        self.start_time = time.monotonic()
        self.initial_done_steps = done_steps
        self.last_print_time = float("-inf")

    def advance(self, note: str = "", steps: int = 1) -> None:
        self.done_steps += steps
        now = time.monotonic()
        line_interval_s = max(self.min_line_interval_s, (now - self.start_time) / MAX_PROGRESS_LINES)
        if now - self.last_print_time < line_interval_s and self.done_steps < self.total_steps:
            return
        self.last_print_time = now
        progress_line = f"{self.title} {self.done_steps}/{self.total_steps}{', ' + note if note else ''}"
        if self.done_steps > self.initial_done_steps:
            seconds_left = (
                (now - self.start_time)
                / (self.done_steps - self.initial_done_steps)
                * (self.total_steps - self.done_steps)
            )
            progress_line += f", {format_duration(seconds_left)} left"
        self.print_line(progress_line)


class RichProgressBar:
    """A progress bar, drawn by rich."""

    def __init__(self, rich_bar: Any, task_id: Any):
        self.rich_bar = rich_bar
        self.task_id = task_id

    def advance(self, note: str = "", steps: int = 1) -> None:
        self.rich_bar.update(self.task_id, advance=steps, note=note)


@contextmanager
def open_progress_bar(title: str, total_steps: int, done_steps: int = 0) -> Iterator[ProgressBar]:
    """What shows that steps of `total_steps` are done: a bar, or lines where there is no terminal."""
    from rich import progress as rich_progress  # costs `--help` nothing
    from rich.console import Console
    from rich.table import Column

    console = Console()
    progress_callback = PROGRESS_CALLBACK.get()
    if progress_callback or not console.is_terminal:
        yield ProgressLines(title, total_steps, done_steps, progress_callback)
        return
    time_columns = (rich_progress.TimeElapsedColumn(), "left", rich_progress.TimeRemainingColumn())
    note_column = rich_progress.TextColumn(
        "{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True)
    )  # cut where too long
    progress_columns = (
        "{task.description}",
        rich_progress.BarColumn(20),
        rich_progress.MofNCompleteColumn(),
        *time_columns,
        note_column,
    )
    with (
        open_bar_file() as bar_file,
        rich_progress.Progress(*progress_columns, console=Console(file=bar_file), expand=True) as rich_bar,
    ):
        yield RichProgressBar(rich_bar, rich_bar.add_task(title, total=total_steps, completed=done_steps, note=""))


@contextmanager
def open_bar_file() -> Iterator[TextIO]:
    """The terminal by a descriptor of its own: a bar goes on while what other code prints is kept in a file."""
    if not sys.stdout.isatty():  # rich was told that it is a terminal, by FORCE_COLOR
        yield sys.stdout
        return
    terminal_descriptor = os.dup(sys.stdout.fileno())
    with open(terminal_descriptor, "w", encoding=sys.stdout.encoding, errors="backslashreplace") as bar_file:
        yield bar_file
