"""What TensorFlow finds in the environment; signals; threads that read ahead."""

import json
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what asks a run to stop
SignalHandler = Callable[[int, FrameType | None], Any]
READ_AHEAD_BATCHES = 2  # batches
REPEATED_INTERRUPT_DELAY_S = 0.05
INTERRUPTED = threading.Event()  # by Ctrl-C
INTERRUPTED_STATUS = 130  # the exit status of an interrupted process, as shells have it


def cpu_count() -> int:
    """How many cores this process may use, as its container and its affinity allow."""
    import joblib  # costs `--help` nothing

    return joblib.cpu_count()


def has_several_processes() -> bool:
    """Whether TF_CONFIG or Slurm's variables of this srun (SLURM_NTASKS is the allocation's) name more than one."""
    with suppress(ValueError, AttributeError, TypeError):  # reported where the cluster is needed
        tf_cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return sum(map(len, tf_cluster.values())) > 1 or os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
    return True


def prepare_tensorflow() -> None:
    """Sets what TensorFlow and Keras read at their import. What the user has set stays, but for the backend.

    The packages that import TensorFlow, `models` and `utils`, call this when they are imported, before their modules.
    """
    # Errors only. Of several processes, each would report one that is gone; `explain_lost_workers` does so once.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if has_several_processes() else "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default without AVX-512, and five times slower then
    os.environ["KERAS_BACKEND"] = "tensorflow"


@contextmanager
def handle_signals(
    handler: SignalHandler | signal.Handlers, signal_numbers: Sequence[signal.Signals] = STOP_SIGNALS
) -> Iterator[None]:
    """These signals go to `handler` until the block ends, but for those that are ignored, as nohup and the background
    of a shell have it."""
    previous_handler_by_signal = {signal_number: signal.getsignal(signal_number) for signal_number in signal_numbers}
    handled_signals = [
        signal_number
        for signal_number in signal_numbers
        if previous_handler_by_signal[signal_number] is not signal.SIG_IGN
    ]
    for signal_number in handled_signals:
        signal.signal(signal_number, handler)
    try:
        yield
    finally:
        for signal_number in handled_signals:
            signal.signal(signal_number, previous_handler_by_signal[signal_number])


def install_interrupt_handler() -> None:
    """Of several Ctrl-C only the first is heard from here on, so that the process can clean up."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, raise_interrupt)


def raise_interrupt(*_: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    INTERRUPTED.set()
    raise KeyboardInterrupt


def repeat_interrupt(unraisable: Any) -> None:
    """As `sys.unraisablehook`: Python prints and drops an error in a destructor or a callback. A Ctrl-C is not dropped,
    but raised again a moment later."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    signal.signal(signal.SIGINT, raise_interrupt)
    interrupt_timer = threading.Timer(
        REPEATED_INTERRUPT_DELAY_S, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]
    )
    interrupt_timer.daemon = True
    interrupt_timer.start()


def exit_on_next_interrupt() -> None:
    """From here on the first Ctrl-C ends the process at once: it has done all but end."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_ahead(read_argument: Callable[[Any], Any], arguments: Iterable) -> Iterator[Any]:
    """`map(read, arguments)`, a few results ahead, each in another thread."""
    pending_futures: deque[Future] = deque()
    with ThreadPoolExecutor(READ_AHEAD_BATCHES) as thread_pool:
        for argument in arguments:
            pending_futures.append(thread_pool.submit(read_argument, argument))
            if len(pending_futures) > READ_AHEAD_BATCHES:
                yield pending_futures.popleft().result()
        while pending_futures:
            yield pending_futures.popleft().result()
