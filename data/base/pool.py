"""Calls in processes beside this one. These import what a call needs, ignore Ctrl-C, at which this process ends them,
and end with it, however it ends."""

import os
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from typing import Any, TypeVar

from data.base.errors import InputError
from data.base.processes import STOPS, cpu_count
from data.base.terminal import progress

Result = TypeVar("Result")
MOST_TOLD = 5  # errors in a line
INTERVAL_S = 0.5


class Pool(ProcessPoolExecutor):
    """So many processes at a time, by default one for each core; each calls `begin` first, and without one shows no
    warnings. An error that leaves the block ends what is being done, which writes a file whole or not at all."""

    def __init__(self, count: int | None = None, begin: Callable[[], object] | None = None):
        super().__init__(
            count or cpu_count(), get_context("spawn"), set_up, (begin or partial(warnings.simplefilter, "ignore"),)
        )

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future:
        """A signal waits until a process that is started here can be ended; Ctrl-C never reaches that process."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            return super().submit(function, *arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self, title: str, function: Callable[..., Result], arguments: Sequence[tuple]) -> list[Result]:
        """The results of `function(*arguments[i])` in order, behind a progress bar. Raises what a call raises, at the
        end one InputError for those of all calls, and InputError if a process is killed."""
        futures = [self.submit(function, *values) for values in arguments]
        try:
            with progress(title, len(futures)) as shown:
                for future in as_completed(futures):
                    with suppress(InputError):  # told with those of all calls
                        future.result()
                    shown.advance()
        except BrokenProcessPool as error:
            if error.__cause__:  # not killed: what a call raised cannot be made again here
                raise
            raise InputError(
                "A process of this command was killed, perhaps because the memory is full; close other programs and "
                "repeat the command."
            ) from error
        wrong = [str(found) for future in futures if (found := future.exception())]
        if told := list(dict.fromkeys(wrong)):
            first = f"{len(wrong)} of {len(futures)} cannot be used. " if len(told) > 1 else ""
            more = f" And {len(told) - MOST_TOLD} more." if len(told) > MOST_TOLD else ""
            raise InputError(first + " ".join(told[:MOST_TOLD]) + more)
        return [future.result() for future in futures]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            end_all()
        self.shutdown(cancel_futures=True)


def end_all() -> None:
    """Asks the processes of all pools to end."""
    for process in active_children():
        process.terminate()


def set_up(begin: Callable[[], object]) -> None:
    """Prepares a process of a pool."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT})
    begin()


def end_with_parent() -> None:
    """Ends this process once the parent has ended, who may have been killed; what it saved is whole."""
    if parent := parent_process():
        parent.join()
        os._exit(1)
