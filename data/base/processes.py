"""Processes, one for each core, that share out calls behind a progress bar; Ctrl-C ends them without a deadlock."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

from joblib import cpu_count

from data.base.errors import InputError
from data.base.progress import progress
from data.base.terminal import ignore_interrupts, interrupts_delayed

Result = TypeVar("Result")
CHECK_INTERVAL_S = 0.2  # between checks for Ctrl-C


@dataclass(frozen=True)
class Processes:
    """A pool of processes; `interrupts` is not empty once Ctrl-C was pressed. KeyboardInterrupt is raised between two
    results: within the pool's locks, it would leave them held."""

    pool: Executor
    interrupts: list[int]

    def run(self, title: str, function: Callable[..., Result], arguments: Sequence[tuple]) -> list[Result]:
        """The results of `function(*arguments[i])` in order, behind a progress bar. Raises KeyboardInterrupt."""
        futures = [self.pool.submit(function, *values) for values in arguments]
        done = SimpleQueue[Future]()
        for future in futures:
            future.add_done_callback(done.put)
        with progress(title, len(futures)) as shown:
            left = len(futures)
            while left:
                with suppress(Empty):
                    done.get(timeout=CHECK_INTERVAL_S).result()
                    shown.advance()
                    left -= 1
                if self.interrupts:
                    ignore_interrupts()
                    raise KeyboardInterrupt
        return [future.result() for future in futures]


@contextmanager
def processes(count: int | None = None) -> Iterator[Processes]:
    """So many processes, or one for each core. They ignore Ctrl-C, at which this process ends them, and end with it. It
    always waits for them. Raises InputError if one of them is killed."""
    with interrupts_delayed() as interrupts:
        pool = ProcessPoolExecutor(count or cpu_count(), initializer=start_process)
        try:
            yield Processes(pool, interrupts)
        except BrokenProcessPool as error:
            raise InputError(
                "A process of this command was killed, perhaps because the memory is full; close other programs and "
                "repeat the command."
            ) from error
        finally:
            if interrupts:  # what they write is written whole or not at all
                for child in multiprocessing.active_children():
                    child.terminate()
            pool.shutdown(cancel_futures=True)


def start_process() -> None:
    """Ignores Ctrl-C and warnings, and ends this process with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
