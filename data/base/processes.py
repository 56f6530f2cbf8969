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

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what asks a run to stop
Handler = Callable[[int, FrameType | None], Any]
READ_AHEAD = 2  # batches
RAISED_AGAIN_S = 0.05
INTERRUPTED = threading.Event()  # by Ctrl-C
INTERRUPTED_STATUS = 130  # the exit status of a process that was, as a shell has it


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


@contextmanager
def handled(handler: Handler | signal.Handlers, numbers: Sequence[signal.Signals] = STOPS) -> Iterator[None]:
    """These signals go to `handler` until the block ends, but for those that are ignored, as nohup and the background
    of a shell have it."""
    before = {number: signal.getsignal(number) for number in numbers}
    heard = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def interrupt_once() -> None:
    """Of several Ctrl-C only the first is heard from here on, so that the process can clean up."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)


def interrupt(*_: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    INTERRUPTED.set()
    raise KeyboardInterrupt


def interrupt_again(unraisable: Any) -> None:
    """As `sys.unraisablehook`: Python prints and drops an error in a destructor or a callback. A Ctrl-C is not dropped,
    but raised again a moment later."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    signal.signal(signal.SIGINT, interrupt)
    timer = threading.Timer(RAISED_AGAIN_S, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.daemon = True
    timer.start()


def end_at_interrupt() -> None:
    """From here on the first Ctrl-C ends the process at once: it has done all but end."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


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
