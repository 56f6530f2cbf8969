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
from data.base.processes import STOP_SIGNALS, cpu_count
from data.base.terminal import open_progress_bar

Result = TypeVar("Result")
MAX_ERRORS_LISTED = 5  # errors in a line
MAX_LETTERS_LISTED = 500  # letters of messages, but for the first


class Pool(ProcessPoolExecutor):
    """`process_count` processes at a time, by default one for each core. Each calls `initialise` first; without it,
    warnings are not shown. An error that leaves the block ends running calls, which write a file whole or not at
    all."""

    def __init__(self, process_count: int | None = None, initialise_process: Callable[[], object] | None = None):
        super().__init__(
            process_count or cpu_count(),
            get_context("spawn"),
            prepare_process,
            (initialise_process or partial(warnings.simplefilter, "ignore"),),
        )

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keyword_arguments: Any) -> Future:
        """A signal waits until a process that is started here can be ended; Ctrl-C never reaches that process."""
        signal_mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            return super().submit(function, *arguments, **keyword_arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask_before)

    def run(
        self, progress_title: str, function: Callable[..., Result], argument_tuples: Sequence[tuple]
    ) -> list[Result]:
        """The results of `function(*arguments[i])` in order, behind a progress bar. Raises what a call raises; the
        InputErrors of all calls become one, at the end. Raises InputError if a process is killed."""
        futures = [self.submit(function, *call_arguments) for call_arguments in argument_tuples]
        try:
            with open_progress_bar(progress_title, len(futures)) as progress_bar:
                for future in as_completed(futures):
                    with suppress(InputError):  # reported below, with those of all calls
                        future.result()
                    progress_bar.advance()
        except BrokenProcessPool as error:
            if error.__cause__:  # not killed: what a call raised cannot be unpickled here
                raise
            raise InputError(
                "A process of this command was killed, perhaps because the memory is full; close other programs and "
                "repeat the command."
            ) from error
        error_messages = [str(call_error) for future in futures if (call_error := future.exception())]
        if distinct_error_messages := list(dict.fromkeys(error_messages)):
            count_sentence = (
                f"{len(error_messages)} of {len(futures)} cannot be used. " if len(distinct_error_messages) > 1 else ""
            )
            raise InputError(count_sentence + join_first_messages(distinct_error_messages))
        return [future.result() for future in futures]

    def __exit__(self, error_class: type[BaseException] | None, *_: object) -> None:
        if error_class:
            terminate_processes()
        self.shutdown(cancel_futures=True)


def join_first_messages(error_messages: Sequence[str]) -> str:
    """The first of some messages, and more of them while these are short, and how many others there are."""
    listed_messages = [error_messages[0]]
    for error_message in error_messages[1:MAX_ERRORS_LISTED]:
        if sum(map(len, [*listed_messages, error_message])) > MAX_LETTERS_LISTED:
            break
        listed_messages.append(error_message)
    remaining_count = len(error_messages) - len(listed_messages)
    return " ".join(listed_messages) + (f" And {remaining_count} more." if remaining_count else "")


def terminate_processes() -> None:
    """Asks the processes of all pools to end."""
    for process in active_children():
        process.terminate()


def prepare_process(initialise_process: Callable[[], object]) -> None:
    """Prepares a process of a pool."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT})
    initialise_process()


def end_with_parent() -> None:
    """Ends this process once its parent has ended, which may have been killed; what this process saved is whole."""
    if parent := parent_process():
        parent.join()
        os._exit(1)
