"""How a command line meets the terminal: plain text on streams that may be closed, a log of what nobody foresaw;
signals: what they do within a block, how Ctrl-C is put off or ignored, and one that the end of the parent sends."""

import os
import platform
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from data.base.text import escaped

UNREAD = 141  # the exit status of a tool whose reader, such as `head`, has gone
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # what asks a run to stop; Windows lacks the last
CHECK_INTERVAL_S = 0.5  # between looks at the parent
Handler = Callable[[int, FrameType | None], Any]


class Unread(BaseException):
    """Nobody reads what is printed any more. Like Ctrl-C it is no error, so that no handler of errors stops it."""


class Plain:
    """A stream that shows by escapes what it cannot encode and what a terminal would obey. Raises Unread."""

    def __init__(self, stream: Any):
        self.stream = stream
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self.tried(self.stream.write, escaped(text))
        return len(text)

    def flush(self) -> None:
        self.tried(self.stream.flush)

    def tried(self, call: Callable, *values: Any) -> None:
        """After a failure, what is left goes to the null device, or Python would complain when it ends."""
        try:
            call(*values)
        except OSError as error:
            with suppress(OSError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise Unread from None
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def plain_streams() -> Iterator[None]:
    """Standard output and error are plain, see above, until the block ends; if they are closed, nothing is printed."""
    open_closed()
    with redirect_stdout(Plain(sys.stdout)), redirect_stderr(Plain(sys.stderr)):
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


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
    """Runs `main` as this process: a warning is one line, and so is an error that escapes, with a log file."""

    def escape(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if issubclass(kind, SystemExit):  # of a thread
            return
        with suppress(OSError):
            print(escaped(last_words(program, kind, error, trace)), file=sys.stderr)

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
    packages = sorted({f"{package.name} {package.version}" for package in metadata.distributions()})
    lines = (time.strftime("%Y-%m-%d %H:%M:%S %z"), shlex.join(sys.argv), platform.platform())
    return "\n".join([*lines, f"Python {platform.python_version()}", ", ".join(packages)])


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
    with interrupts_held():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds back Ctrl-C until the block ends, and for good in processes that are started in it."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
