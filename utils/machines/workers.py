"""Several processes that train one network together: TF_CONFIG, or Slurm's variables of a job step -> its `Workers`."""

import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from data.base.errors import InputError
from data.base.processes import handled
from data.cohorts.rows import listed
from utils.machines.devices import Workers

FIRST_PORT, PORTS = 20_000, 10_000  # for jobs of Slurm; below those that systems give out
PORTS_A_JOB, PORTS_A_STEP = 128, 16
PATIENCE_S = 300  # for all workers to start


@cache
def together() -> Workers:
    """The workers, on all of their devices; a process can make their strategy only once. Waits until every worker has
    started. Raises InputError for variables that cannot be understood, and for workers that do not start."""
    import tensorflow as tf

    addresses, index = places()
    print(f"Worker {index} of {len(addresses)}, waiting for {listed(addresses)}.", flush=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    cluster = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": addresses}), task_type="worker", task_id=index
    )
    wait_for_all(addresses, index)
    # Signals end the process while TensorFlow connects and blocks Python; then come the handlers of before, since
    # TensorFlow installs its own for SIGTERM.
    with handled(signal.SIG_DFL, (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)):
        signal.alarm(PATIENCE_S)
        try:
            return Workers(len(addresses), index, tf.distribute.MultiWorkerMirroredStrategy(cluster))
        finally:
            signal.alarm(0)


def places() -> tuple[list[str], int]:
    """The addresses (host:port) of all workers, the first of which is the chief, and which of them is this one."""
    import tensorflow as tf

    resolvers = tf.distribute.cluster_resolver
    try:
        if os.environ.get("TF_CONFIG", "").strip():
            of_config = resolvers.TFConfigClusterResolver()
            spec = of_config.cluster_spec()
            own = spec.task_address(of_config.task_type, of_config.task_id)
        else:
            spec, own = of_slurm(resolvers)
        addresses = [address for kind in ("chief", "worker") for address in spec.as_dict().get(kind, [])]
        return addresses, addresses.index(own)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"TF_CONFIG, or Slurm's variables of this job step, cannot be understood ({error!r}); expected TF_CONFIG="
            '\'{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}\', or srun. Correct '
            "it, or unset it to run alone."
        ) from error


def of_slurm(resolvers: Any) -> tuple[Any, str]:
    """The cluster of a job step of Slurm, with ports that no other step on its nodes has, and this task's address."""
    job, step, place = (int(os.environ[f"SLURM_{name}"]) for name in ("JOB_ID", "STEP_ID", "LOCALID"))
    first = FIRST_PORT + (job * PORTS_A_JOB + step * PORTS_A_STEP) % PORTS
    # TensorFlow finds the GPUs itself: here each of at most 16 tasks of a node is said to have one.
    cluster = resolvers.SlurmClusterResolver(
        port_base=first, gpus_per_node=PORTS_A_STEP, gpus_per_task=1, auto_set_gpu=False
    )
    return cluster.cluster_spec(), f"{os.environ['SLURMD_NODENAME']}:{first + place}"


@contextmanager
def lost_workers_explained() -> Iterator[None]:
    """Raises InputError where another worker has ended or cannot be reached."""
    import tensorflow as tf

    of = tf.errors
    try:
        yield
    except (of.UnavailableError, of.AbortedError, of.CancelledError, of.DeadlineExceededError) as error:
        raise InputError(
            "Another worker has ended, or cannot be reached; see what it says, then repeat the same command on all of "
            "them."
        ) from error


def wait_for_all(addresses: list[str], index: int) -> None:
    """Waits until all others listen at their addresses, as this one does meanwhile: TensorFlow would wait for an hour,
    and could not be stopped. Raises InputError that names the workers that do not start."""
    missing, own = addresses[:index] + addresses[index + 1 :], addresses[index]
    try:
        with socket.create_server(("", int(own.rpartition(":")[2])), backlog=len(addresses)):
            end = time.monotonic() + PATIENCE_S
            while (missing := [address for address in missing if not listens(address)]) and time.monotonic() < end:
                time.sleep(0.2)
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(f"This worker cannot listen at {own} ({error}); name another host:port.") from error
    if missing:
        raise InputError(f"{listed(missing)} did not come within {PATIENCE_S} s; start all workers again.")


def listens(address: str) -> bool:
    """Whether a worker can be reached."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True
