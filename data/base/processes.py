"""Processes and signals: what TensorFlow finds in the environment, processes that do calls for this one, Ctrl-C.

What calls return comes back as values. These processes ignore Ctrl-C, at which this one stops them, and end with it.
"""

import json
import os
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from data.base.errors import InputError
from data.base.terminal import progress

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Result = TypeVar("Result")
Environment = Mapping[str, str]
INTERVAL_S = 0.5
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")  # what asks a run to stop; Windows lacks the last
Callback = Callable[..., None] | None
Handler = Callable[[int, FrameType | None], Any]
READ_AHEAD = 2  # batches
MOST_TOLD = 5  # errors in a line


def cpu_count() -> int:
    """How many cores this process may use, as its container and its affinity allow."""
    import joblib  # costs `--help` nothing

    return joblib.cpu_count()


def several_processes() -> bool:
    """Whether TF_CONFIG or Slurm's variables of this srun (SLURM_NTASKS is the allocation's) name more than one."""
    with suppress(ValueError, AttributeError, TypeError):  # told where the cluster is needed
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return sum(map(len, cluster.values())) > 1 or os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    return True


def prepare_tensorflow() -> None:
    """Sets what TensorFlow and Keras read at their import. What the user has set stays, but for the backend.

    The packages that import TensorFlow, `models` and `utils`, call this when they are imported, before their modules.
    """
    # Errors only. Of several processes, each would report one that is gone; `lost_workers_explained` does so once.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if several_processes() else "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default without AVX-512, and five times slower then
    os.environ["KERAS_BACKEND"] = "tensorflow"


@dataclass(frozen=True)
class Outcome:
    """How a call ended: with a `value`, with an `error`, or with its process, whose `exit_code` is then known."""

    value: Any = None
    error: Exception | None = None
    trace: str = ""  # of the error, where it was raised
    exit_code: int | None = None  # minus the signal that killed the process
    seconds: float = 0.0  # since it was asked for

    def check(self) -> None:
        """Raises the error, if there is one."""
        if self.error:
            raise self.error from ElsewhereError(self.trace)


ASKED: "list[Connection]" = []  # in a process that does calls for another one: where notes go


def tell(note: Any) -> None:
    """Sends a note, which is no Outcome, to the process that asked for the call that is being done."""
    for connection in ASKED:
        with suppress(OSError):  # who asked is gone
            connection.send(note)


class ElsewhereError(Exception):
    """The trace of an error in another process."""


class Process:
    """A process that does one call at a time. It is fresh if it gets an `environment`, which is set before it imports
    anything; without one it is a copy of this process, where the system can make one, and starts at once. As a daemon,
    it ends with this process even if Ctrl-C came before anybody knew of it."""

    def __init__(self, environment: Environment | None):
        import multiprocessing  # costs `--help` nothing

        self.environment = environment
        copied = environment is None and "fork" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("fork" if copied else "spawn")
        self.connection, end = context.Pipe()
        self.process = context.Process(target=serve, args=(end, os.getpid(), environment is None), daemon=True)
        with interrupts_held(), added(environment) if environment else nullcontext():
            self.process.start()
        end.close()
        self.began = 0.0

    def begin(self, function: Callable, arguments: tuple) -> None:
        self.began = time.monotonic()
        with suppress(ConnectionError):  # it was killed, as its outcome will tell
            self.connection.send((function, arguments))

    def outcome(self) -> Any:
        """That of the call that was begun last, or a note of it."""
        try:
            found = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            found = Outcome(exit_code=self.process.exitcode)
        return replace(found, seconds=time.monotonic() - self.began) if isinstance(found, Outcome) else found

    def end(self) -> None:
        """Waits for the call that is being done, and for the end of the process."""
        with suppress(OSError, EOFError):
            self.connection.send(None)
            while True:  # what it has to give, or it would not end
                self.connection.recv()
        self.process.join()
        self.connection.close()


@contextmanager
def added(environment: Environment) -> Iterator[None]:
    """This process's environment has more in it until the block ends."""
    before = os.environ | {}
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def serve(connection: "Connection", parent: int, quiet: bool) -> None:
    """Does calls until there is none in place of one, or the `parent` has ended; `quiet` shows no warnings."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a copy has the handler of its parent
    terminate_with(parent)
    if quiet:
        warnings.simplefilter("ignore")
    ASKED[:] = [connection]
    with suppress(EOFError, OSError):  # who asked is gone
        while call := connection.recv():
            connection.send(outcome_of(*call))


def outcome_of(function: Callable, arguments: tuple) -> Outcome:
    """How a call ends here. An error of no kind that users are told comes as a RuntimeError: not all can be sent."""
    try:
        return Outcome(function(*arguments))
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        sent = error if isinstance(error, InputError | OSError | MemoryError) else RuntimeError(trace.splitlines()[-1])
        return Outcome(error=sent, trace=trace)


@dataclass
class Processes:
    """As many processes at a time as there are `environments`. Those that are fresh do one call each."""

    environments: list[Environment | None]
    idle: list[Process] = field(default_factory=list)
    busy: dict[Any, tuple[int, Process]] = field(default_factory=dict)  # with the number of its call
    stopped: bool = False

    def outcomes(
        self, function: Callable, arguments: Sequence[tuple], meanwhile: Callback = None, noted: Callback = None
    ) -> Iterator[tuple[int, Outcome]]:
        """The number and the outcome of each call of the function, in the order in which they end; `meanwhile` is
        called twice a second as long as none does, `noted` with each note."""
        from multiprocessing.connection import wait

        left = deque(enumerate(arguments))
        while self.busy or (left and not self.stopped):
            while left and not self.stopped and (self.idle or self.environments):
                number, values = left.popleft()
                process = self.idle.pop() if self.idle else Process(self.environments.pop())
                self.busy[process.connection] = number, process
                process.begin(function, values)
                if self.stopped:  # while it was started
                    process.process.terminate()
            while meanwhile and self.busy and not wait([*self.busy], INTERVAL_S):
                meanwhile()
            if not self.busy:
                return
            for connection in wait([*self.busy]):
                number, process = self.busy[connection]
                outcome = process.outcome()
                if not isinstance(outcome, Outcome):
                    if noted:
                        noted(outcome)
                    continue
                del self.busy[connection]
                if process.environment is None and outcome.exit_code is None:
                    self.idle.append(process)
                else:
                    process.end()
                    self.environments.append(process.environment)
                yield number, outcome

    def run(self, title: str, function: Callable[..., Result], arguments: Sequence[tuple]) -> list[Result]:
        """The results of `function(*arguments[i])` in order, behind a progress bar. Raises what a call raises, at the
        end one InputError for those of all calls, and InputError if a process is killed."""
        found: dict[int, Result] = {}
        wrong: dict[int, str] = {}
        while self.environments and len(self.idle) < len(arguments):  # before the bar, which has a thread
            self.idle.append(Process(self.environments.pop()))
        with progress(title, len(arguments)) as shown:
            for number, outcome in self.outcomes(function, arguments):
                shown.advance()
                if isinstance(outcome.error, InputError):
                    wrong[number] = str(outcome.error)
                    continue
                outcome.check()
                if outcome.exit_code is not None:
                    self.stop()
                    raise InputError(
                        "A process of this command was killed, perhaps because the memory is full; close other "
                        "programs and repeat the command."
                    )
                found[number] = outcome.value
        if told := list(dict.fromkeys(wrong[number] for number in sorted(wrong))):
            first = f"{len(wrong)} of {len(arguments)} cannot be used. " if len(told) > 1 else ""
            more = f" And {len(told) - MOST_TOLD} more." if len(told) > MOST_TOLD else ""
            raise InputError(first + " ".join(told[:MOST_TOLD]) + more)
        return [found[number] for number in range(len(arguments))]

    def stop(self) -> None:
        """Begins no other call, and asks those that are being done to end."""
        self.stopped = True
        for _, process in self.busy.values():
            process.process.terminate()

    def end(self) -> None:
        """Waits for what is being done."""
        for process in [*self.idle, *(process for _, process in self.busy.values())]:
            process.end()


@contextmanager
def processes(count: int | None = None, environments: Sequence[Environment] = ()) -> Iterator[Processes]:
    """So many copies of this process at a time, or one for each core; or fresh ones with these environments. It waits
    for them; at Ctrl-C they are stopped, and what they write is written whole or not at all."""
    found = Processes([*environments] or [None] * (count or cpu_count()))
    try:
        yield found
    except KeyboardInterrupt:
        ignore_interrupts()
        found.stop()
        raise
    finally:
        found.end()


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
            time.sleep(INTERVAL_S)
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
