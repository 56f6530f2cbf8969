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
from data.base.listing import join_names
from data.base.processes import handle_signals
from utils.machines.devices import Workers

MAX_TASKS_PER_NODE = 16  # of a job step of Slurm, at most
START_TIMEOUT_S = 300  # for all workers to start


@cache
def connect_workers() -> Workers:
    """The workers, on all of their devices; a process can make their strategy only once. Waits until every worker has
    started. Raises InputError for variables that cannot be understood, and for workers that do not start."""
    import tensorflow as tf

    worker_addresses, worker_index = find_worker_addresses()
    print(f"Worker {worker_index} of {len(worker_addresses)}, waiting for {join_names(worker_addresses)}.", flush=True)
    logging.getLogger("absl").setLevel(logging.ERROR)
    cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": worker_addresses}), task_type="worker", task_id=worker_index
    )
    wait_for_workers(worker_addresses, worker_index)
    # Signals end the process while TensorFlow connects and blocks Python; then the earlier handlers are restored, since
    # TensorFlow installs its own for SIGTERM.
    with handle_signals(signal.SIG_DFL, (signal.SIGINT, signal.SIGTERM)):
        return Workers(len(worker_addresses), worker_index, tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver))


def find_worker_addresses() -> tuple[list[str], int]:
    """The addresses (host:port) of all workers, the first of which is the chief, and which of them is this one."""
    import tensorflow as tf

    resolvers = tf.distribute.cluster_resolver
    try:
        if os.environ.get("TF_CONFIG"):
            cluster_resolver = resolvers.TFConfigClusterResolver()
            local_address = cluster_resolver.cluster_spec().task_address(
                cluster_resolver.task_type, cluster_resolver.task_id
            )
        else:
            job_id = int(os.environ["SLURM_JOB_ID"])
            step_id = int(os.environ["SLURM_STEP_ID"])
            local_task_id = int(os.environ["SLURM_LOCALID"])
            # no other step's; below those of the system
            first_port = 20_000 + MAX_TASKS_PER_NODE * (8 * job_id + step_id) % 10_000
            local_address = f"{os.environ['SLURMD_NODENAME']}:{first_port + local_task_id}"
            # GPUs are only stated; TensorFlow finds them itself
            cluster_resolver = resolvers.SlurmClusterResolver(
                port_base=first_port, gpus_per_node=MAX_TASKS_PER_NODE, gpus_per_task=1, auto_set_gpu=False
            )
        addresses_by_role = cluster_resolver.cluster_spec().as_dict()
        worker_addresses = [*addresses_by_role.get("chief", []), *addresses_by_role.get("worker", [])]
        return worker_addresses, worker_addresses.index(local_address)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"TF_CONFIG, or Slurm's variables of this job step, cannot be understood ({error!r}); expected TF_CONFIG="
            '\'{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}\', or srun. Correct '
            "it, or unset it to run alone."
        ) from error


@contextmanager
def explain_lost_workers() -> Iterator[None]:
    """Raises InputError where another worker has ended or cannot be reached."""
    import tensorflow as tf

    tf_errors = tf.errors
    try:
        yield
    except (
        tf_errors.UnavailableError,
        tf_errors.AbortedError,
        tf_errors.CancelledError,
        tf_errors.DeadlineExceededError,
    ) as error:
        raise InputError("Another worker has ended or cannot be reached; repeat the command on all of them.") from error


def wait_for_workers(worker_addresses: list[str], worker_index: int) -> None:
    """Waits until all listen at their addresses, as this one does meanwhile: TensorFlow would wait for an hour, and
    could not be stopped. Raises InputError that names a worker that does not start."""
    local_address = worker_addresses[worker_index]
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        with socket.create_server(("", int(local_address.rpartition(":")[2]))):
            for address in worker_addresses:
                while not is_listening(address):
                    if time.monotonic() > deadline:
                        raise InputError(f"{address} did not come within {START_TIMEOUT_S} s; start all workers again.")
                    time.sleep(0.2)
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"The workers cannot listen at {join_names(worker_addresses)} ({error}); name others, each as host:port."
        ) from error


def is_listening(address: str) -> bool:
    """Whether a worker can be reached."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True
