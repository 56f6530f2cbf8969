"""Several processes that do one job together: TF_CONFIG, or Slurm's variables of a job step -> a Team of Workers.

All run the same command. A network is trained on all of their devices; of other jobs the chief receives their shares.
"""

import io
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import islice
from typing import Any

import numpy as np

from data.base import files
from data.base.errors import InputError, whole_number
from data.base.processes import handled, several_processes
from data.cohorts.rows import listed
from utils.machines.devices import Arrays, Workers

TASK_TYPES = ("chief", "worker")  # of a cluster that trains in step, in the order of their indices
FIRST_PORT, PORTS = 20_000, 10_000  # for jobs of Slurm; below those that systems give out
MAX_PORT = 65_535
PORTS_A_JOB, PORTS_A_STEP = 128, 16
PATIENCE_S = 300  # for all workers to start
WORD = np.dtype(np.int32).itemsize
EXPECTED = (
    'expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}} (and "chief"). '
    "Correct it, or unset it to run alone."
)


@dataclass(frozen=True)
class Task:
    """Which of a cluster's processes this is."""

    type: str
    index: int | str


@dataclass(frozen=True)
class ClusterConfig:
    """The content of TF_CONFIG."""

    cluster: dict[str, list[str]] = field(default_factory=dict)
    task: Task | None = None


@dataclass(frozen=True, kw_only=True)
class Team(Workers):
    """Workers at `addresses` (host:port)."""

    addresses: tuple[str, ...]

    def started(self, gpus: Sequence[str]) -> "Team":
        """With the strategy for the devices in use. Waits until every worker has started."""
        return replace(self, strategy=common_strategy(self.addresses, self.index))

    def exchange(self, content: bytes) -> list[bytes]:
        sizes = self._gathered(np.array([len(content)], np.int32))[:, 0]
        if not max(sizes):  # TensorFlow crashes on nothing
            return [b""] * self.count
        padded = content.ljust(-(-max(sizes) // WORD) * WORD, b"\0")
        rows = self._gathered(np.frombuffer(padded, np.int32))
        return [row.tobytes()[:size] for row, size in zip(rows, sizes, strict=True)]

    def _gathered(self, words: np.ndarray) -> np.ndarray:
        """Each worker's words (n,) int32, the same number from each, -> (workers, n)."""
        own = np.zeros((self.count, words.size), np.int32)
        own[self.index] = words
        silent = [np.zeros_like(own)] * (len(self.own_replicas) - 1)
        of_devices = self._sum(self.of_replicas([own, *silent]))
        return self.strategy.experimental_local_results(of_devices)[0].numpy()

    @cached_property
    def _sum(self) -> Callable:
        """A function that sums (workers, n) int32 over all devices."""
        import tensorflow as tf

        def total(words: Any) -> Any:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(words))

        return tf.function(lambda words: self.strategy.run(total, (words,)), reduce_retracing=True)

    def in_turn(self, own: Iterator[Arrays], tasks: int) -> Iterator[Arrays]:
        for first in range(0, tasks, self.count):
            contents = self.exchange(packed(next(own, {})))
            yield from map(unpacked, islice(contents, tasks - first))

    def share_state(self, variables: Sequence) -> None:
        values = {str(at): np.asarray(variable) for at, variable in enumerate(variables) if self.is_chief}
        for at, value in unpacked(self.of_chief(packed(values))).items():
            variables[int(at)].assign(value)


@cache
def common_strategy(addresses: tuple[str, ...], index: int) -> Any:
    """TensorFlow's strategy on the devices of all workers, which a process can create only once."""
    import tensorflow as tf

    print(f"Worker {index} of {len(addresses)}, waiting for {listed(addresses)}.", flush=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    cluster = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}), task_type="worker", task_id=index
    )
    wait_for_all(addresses, index)
    end_after = getattr(signal, "alarm", lambda seconds: None)  # not on Windows
    # Signals end the process while TensorFlow connects and blocks Python; then come the handlers of before, since
    # TensorFlow installs its own for SIGTERM.
    with handled(signal.SIG_DFL, ("SIGINT", "SIGTERM", "SIGALRM")):
        end_after(PATIENCE_S)
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(cluster)
        finally:
            end_after(0)


@contextmanager
def lost_workers_explained() -> Iterator[None]:
    """Raises InputError where another worker has ended or cannot be reached."""
    import tensorflow as tf

    gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    try:
        yield
    except (*gone, tf.errors.DeadlineExceededError) as error:
        raise InputError(
            "Another worker has ended, or cannot be reached; see what it says, then repeat the same command on all of "
            "them."
        ) from error


def wait_for_all(addresses: tuple[str, ...], index: int) -> None:
    """Waits until all others listen at their addresses, as this one does meanwhile: TensorFlow would wait for an hour,
    and could not be stopped. Raises InputError that names the workers that do not start."""
    missing = [address for at, address in enumerate(addresses) if at != index]
    port = int(addresses[index].rpartition(":")[2])
    try:
        with socket.create_server(("", port), backlog=len(addresses)):
            end = time.monotonic() + PATIENCE_S
            while (missing := [address for address in missing if not listens(address)]) and time.monotonic() < end:
                time.sleep(0.2)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise InputError(f"Port {port} of this machine cannot be used ({why}); name another one.") from error
    if missing:
        raise InputError(f"{listed(missing)} did not come within {PATIENCE_S} s; start all workers again.")


def listens(address: str) -> bool:
    """Whether a worker can be reached."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, UnicodeError):
        return False
    return True


def packed(arrays: Arrays) -> bytes:
    """Arrays by name as bytes, without pickle."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def unpacked(content: bytes) -> Arrays:
    """The arrays of `packed`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def find_workers(environment: Mapping[str, str] = os.environ) -> Workers:
    """The workers that do this job, this process alone if nothing names more. Raises InputError for variables that
    cannot be understood."""
    if not several_processes(environment):
        return Workers()
    config = environment.get("TF_CONFIG", "").strip()
    return of_tf_config(config) if config else of_slurm(environment)


def of_tf_config(text: str) -> Workers:
    """The workers of TF_CONFIG; one without a cluster is of a process alone."""
    try:
        config = files.typed(text, ClusterConfig)
    except ValueError as error:
        raise InputError(f"TF_CONFIG cannot be understood ({error}); {EXPECTED}") from error
    task, addresses = config.task, [name for kind in TASK_TYPES for name in config.cluster.get(kind, [])]
    if not config.cluster:
        return Workers()
    own = config.cluster.get(task.type, []) if task and task.type in TASK_TYPES else []
    number = whole_number(str(task.index)) if task else None
    index = -1 if number is None else number
    plain = all(re.fullmatch(r".+:[1-9]\d{,4}", at) and int(at.rpartition(":")[2]) <= MAX_PORT for at in addresses)
    distinct = len(set(addresses)) == len(addresses)
    if set(config.cluster) - set(TASK_TYPES) or not 0 <= index < len(own) or not plain or not distinct:
        raise InputError(f"TF_CONFIG names {listed(list(config.cluster))} and the task {task}; {EXPECTED}")
    return team(addresses, addresses.index(own[index]))


def of_slurm(environment: Mapping[str, str]) -> Workers:
    """The tasks of a job step of Slurm, which lie block by block on its nodes; each listens on a port of its own."""
    try:
        nodes = node_names(environment["SLURM_STEP_NODELIST"])
        tasks = tasks_by_node(environment["SLURM_STEP_TASKS_PER_NODE"])
        job, step = (int(environment[name]) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        index = int(environment["SLURM_PROCID"])
        first = FIRST_PORT + (job * PORTS_A_JOB + step * PORTS_A_STEP) % PORTS
        addresses = [f"{node}:{first + at}" for node, count in zip(nodes, tasks, strict=True) for at in range(count)]
        here, count = environment.get("SLURMD_NODENAME"), int(environment["SLURM_STEP_NUM_TASKS"])
        host = addresses[index].rpartition(":")[0]
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            f"Slurm's variables cannot be understood ({error!r}); start it with srun, or set TF_CONFIG."
        ) from error
    if len(addresses) != count or here not in (None, host):
        raise InputError(
            f"Slurm runs task {index} of {count} on {here}, where {host} was expected; use srun --distribution=block."
        )
    return team(addresses, index)


def team(addresses: Sequence[str], index: int) -> Workers:
    """The workers at these addresses; this process alone if there is only one."""
    return Team(len(addresses), index, addresses=tuple(addresses)) if len(addresses) > 1 else Workers()


def node_names(text: str) -> list[str]:
    """`a[01-03,7],b` -> a01, a02, a03, a7, b. Raises ValueError for what is no list of nodes. TensorFlow's parser
    refuses names with a second bracket or with text after one, such as `rack[1-2]node[1-4]`."""
    names = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        before, _, rest = part.partition("[")
        numbers, _, after = rest.partition("]")
        for span in numbers.split(",") if rest else [""]:
            first, _, last = span.partition("-")
            spans = range(int(first), int(last) + 1) if last else [first]
            inner = [str(number).zfill(len(first)) for number in spans]
            names += [before + number + more for number in inner for more in (node_names(after) if after else [""])]
    return names


def tasks_by_node(text: str) -> list[int]:
    """`2(x3),1` -> 2, 2, 2, 1."""
    counts = []
    for part in text.split(","):
        number, _, times = part.rstrip(")").partition("(x")
        counts += [int(number)] * int(times or 1)
    return counts
