"""Several processes that train one network together: TF_CONFIG, or Slurm's variables of a job step -> its `Workers`."""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from data.base.errors import InputError
from data.base.processes import handle_signals
from data.cohorts.rows import join_names
from utils.machines.devices import Workers

TASKS_A_NODE = 16  # of a job step of Slurm, at most
PATIENCE_S = 300  # for all workers to start


@cache
def together() -> Workers:
    """The workers, on all of their devices; a process can make their strategy only once. Waits until every worker has
    started. Raises InputError for variables that cannot be understood, and for workers that do not start."""
    import tensorflow as tf

    addresses, index = places()
    print(f"Worker {index} of {len(addresses)}, waiting for {join_names(addresses)}.", flush=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    cluster = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}), task_type="worker", task_id=index
    )
    wait_for_all(addresses, index)
    # Signals end the process while TensorFlow connects and blocks Python; then come the handlers of before, since
    # TensorFlow installs its own for SIGTERM.
    with handle_signals(signal.SIG_DFL, (signal.SIGINT, signal.SIGTERM)):
        return Workers(len(addresses), index, tf.distribute.MultiWorkerMirroredStrategy(cluster))


def places() -> tuple[list[str], int]:
    """The addresses (host:port) of all workers, the first of which is the chief, and which of them is this one."""
    import tensorflow as tf

    resolvers = tf.distribute.cluster_resolver
    try:
        if os.environ.get("TF_CONFIG"):
            cluster = resolvers.TFConfigClusterResolver()
            own = cluster.cluster_spec().task_address(cluster.task_type, cluster.task_id)
        else:
            job, step, place = (int(os.environ[f"SLURM_{name}"]) for name in ("JOB_ID", "STEP_ID", "LOCALID"))
            first = 20_000 + TASKS_A_NODE * (8 * job + step) % 10_000  # no other step's; below those of the system
            own = f"{os.environ['SLURMD_NODENAME']}:{first + place}"
            gpus = {"gpus_per_node": TASKS_A_NODE, "gpus_per_task": 1}  # only said; TensorFlow finds them itself
            cluster = resolvers.SlurmClusterResolver(port_base=first, auto_set_gpu=False, **gpus)
        tasks = cluster.cluster_spec().as_dict()
        addresses = [*tasks.get("chief", []), *tasks.get("worker", [])]
        return addresses, addresses.index(own)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"TF_CONFIG, or Slurm's variables of this job step, cannot be understood ({error!r}); expected TF_CONFIG="
            '\'{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}\', or srun. Correct '
            "it, or unset it to run alone."
        ) from error


@contextmanager
def lost_workers_explained() -> Iterator[None]:
    """Raises InputError where another worker has ended or cannot be reached."""
    import tensorflow as tf

    of = tf.errors
    try:
        yield
    except (of.UnavailableError, of.AbortedError, of.CancelledError, of.DeadlineExceededError) as error:
        raise InputError("Another worker has ended or cannot be reached; repeat the command on all of them.") from error


def wait_for_all(addresses: list[str], index: int) -> None:
    """Waits until all listen at their addresses, as this one does meanwhile: TensorFlow would wait for an hour, and
    could not be stopped. Raises InputError that names a worker that does not start."""
    own, end = addresses[index], time.monotonic() + PATIENCE_S
    try:
        with socket.create_server(("", int(own.rpartition(":")[2]))):
            for address in addresses:
                while not listens(address):
                    if time.monotonic() > end:
                        raise InputError(f"{address} did not come within {PATIENCE_S} s; start all workers again.")
                    time.sleep(0.2)
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"The workers cannot listen at {join_names(addresses)} ({error}); name others, each as host:port."
        ) from error


def listens(address: str) -> bool:
    """Whether a worker can be reached."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True
