"""The user's own code runs: what it prints is kept, and its errors become one line."""

import atexit
import contextlib
import io
import os
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import IO

from data.base.errors import InputError

PRINTED_FILE = "printed.txt"  # in results: what the user's own code has printed and warned of


@dataclass(frozen=True)
class UserCode:
    """The code of a file of the user's."""

    path: Path
    shows_traceback: bool  # of its errors

    @contextlib.contextmanager
    def run(self, place_text: str, recorder: "OutputRecorder") -> Iterator[None]:
        """Within it the user's code runs: `recorder` keeps what it prints, and an error becomes an InputError of one
        line: the file, the line in it, `place_text`, and what."""
        try:
            with recorder.record():
                yield
        except InputError:
            raise
        except (Exception, SystemExit) as error:  # a script may end itself
            if self.shows_traceback:
                traceback.print_exception(error)
            raise InputError(format_user_error(self.path, error, place_text)) from error


class OutputRecorder:
    """Keeps what the user's code prints and warns of away from what this program prints."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @contextlib.contextmanager
    def record(self) -> Iterator[None]:
        with (
            keep_process_output(self.stream),
            contextlib.redirect_stdout(self.stream),
            contextlib.redirect_stderr(self.stream),
            warnings.catch_warnings(record=True) as caught_warnings,
        ):
            warnings.simplefilter("default")
            yield
        for caught_warning in caught_warnings:
            self.stream.write(f"{caught_warning.category.__name__}: {caught_warning.message}\n")

    @cached_property
    def text(self) -> str:
        return self.stream.getvalue()


@contextlib.contextmanager
def keep_process_output(stream: io.StringIO) -> Iterator[None]:
    """What compiled code, and processes that the user's code starts, write to the terminal, goes to `stream` in the
    end. Processes that stay for the next fit go on writing into the same file."""
    output_file = open_process_output()
    start_position = output_file.seek(0, io.SEEK_END)
    with contextlib.ExitStack() as exit_stack:
        for descriptor in (1, 2):
            terminal_descriptor = os.dup(descriptor)
            exit_stack.callback(os.close, terminal_descriptor)
            exit_stack.callback(os.dup2, terminal_descriptor, descriptor)  # before it is closed
            os.dup2(output_file.fileno(), descriptor)
        yield
    output_file.seek(start_position)
    stream.write(output_file.read().decode(errors="replace"))


@cache
def open_process_output() -> IO[bytes]:
    output_file = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115  it lasts as long as the process
    atexit.register(output_file.close)
    return output_file


def format_user_error(file_path: Path, error: BaseException, place_text: str) -> str:
    """One line: the file, the line in it where the error arose, if it did, and the error."""
    line_number = find_line_in_file(error.__traceback__, file_path)
    if line_number is None and isinstance(error, SyntaxError):
        line_number = error.lineno
    line_text = f", line {line_number}" if line_number else ""
    error_text = " ".join(str(error).split()) or "no message"
    return (
        f"{file_path}{line_text}, {place_text}: {type(error).__name__}: {error_text[:300]}. Correct it; --debug shows "
        "the traceback."
    )


def find_line_in_file(error_traceback: TracebackType | None, file_path: Path) -> int | None:
    """The innermost line of a file in a traceback; None if the error did not pass through it."""
    resolved_path = str(file_path.resolve())
    line_numbers = [
        frame.lineno
        for frame in traceback.extract_tb(error_traceback)
        if str(Path(frame.filename).resolve()) == resolved_path
    ]
    return line_numbers[-1] if line_numbers else None
