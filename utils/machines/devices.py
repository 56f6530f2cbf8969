"""Which processor a run takes: a free GPU if there is one, otherwise the CPU; never a GPU that somebody else holds."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from data.base.errors import InputError
from data.base.signals import interrupts_delayed

NOTE = re.compile(r"[IW]\d{4} |WARNING: All log messages before absl|E\d{4} .* failed call to cuInit")


def free_gpus(share: bool) -> list[tuple[str, str]]:
    """UUID and name of the GPUs that no other process holds, those first in CUDA's order; none where there is no GPU.

    Asks NVML, before TensorFlow could take memory. Honours CUDA_VISIBLE_DEVICES, as Slurm sets it. If every GPU is held
    by other processes, raises InputError that names them or, to `share`, gives the one that fewest hold.
    """
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        gpus = [(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle), handle) for handle in handles]
        if visible is not None:
            wanted = [name.strip() for name in visible.split(",")]
            gpus = [gpu for index, gpu in enumerate(gpus) if str(index) in wanted or abbreviated(gpu[0], wanted)]
            # A slice of a GPU, which its scheduler has already given to this run.
            if any(name.startswith("MIG-") for name in wanted):
                return [(visible, "the MIG device of CUDA_VISIBLE_DEVICES")]
        held = {uuid: other_processes(pynvml, handle) for uuid, _, handle in gpus}
    except pynvml.NVMLError as error:
        raise InputError(
            f"NVML cannot tell who holds the GPUs ({error}); hide them with CUDA_VISIBLE_DEVICES=-1."
        ) from error
    finally:
        pynvml.nvmlShutdown()
    free = [(uuid, name) for uuid, name, _ in gpus if not held[uuid]]
    if not gpus or free:
        return free
    if not share:
        users = "; ".join(f"{name}: {', '.join(held[uuid])}" for uuid, name, _ in gpus)
        raise InputError(f"Every GPU is held by other processes ({users}); wait, or go ahead with --shareGPU.")
    return [min(gpus, key=lambda gpu: len(held[gpu[0]]))[:2]]


def abbreviated(uuid: str, names: list[str]) -> bool:
    """Whether one of `names` is a GPU's UUID or, as CUDA allows, the beginning of it."""
    return any(name.startswith("GPU-") and uuid.startswith(name) for name in names)


def other_processes(pynvml, handle) -> list[str]:
    """The processes that compute on a GPU, as `pid name`, without this one."""
    found = []
    for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
        if process.pid == os.getpid():
            continue
        try:
            name = pynvml.nvmlSystemGetProcessName(process.pid)
        except pynvml.NVMLError:
            name = "of another user"
        found.append(f"{process.pid} {name if isinstance(name, str) else name.decode()}")
    return found


def choose_device(share: bool, several: bool = False) -> str:
    """Sets the environment that TensorFlow reads at its import, so that it sees a free GPU, or `several`.

    Returns `gpu` or `cpu`, and says which in one line.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default without AVX-512, and five times slower then
    os.environ["KERAS_BACKEND"] = "tensorflow"
    gpus = free_gpus(share)[: None if several else 1]
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(uuid for uuid, _ in gpus) or "-1"
    names = ", ".join(name for _, name in gpus)
    on = f"{len(gpus)} GPUs: {names}." if len(gpus) > 1 else f"{names}."
    print(f"Running on {on}" if gpus else "No GPU: running on the CPU.", flush=True)
    return "gpu" if gpus else "cpu"


@contextmanager
def only_errors() -> Iterator[None]:
    """Holds stderr back and passes on what is an error.

    TensorFlow 2.21 writes notes at import whatever TF_CPP_MIN_LOG_LEVEL says, and calls a missing GPU driver an error.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if not NOTE.match(line):
                    print(line, file=sys.stderr)


@contextmanager
def told_when_full() -> Iterator[None]:
    """Raises InputError where TensorFlow finds no memory."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise InputError(
            f"The memory is too small for this network ({str(error).splitlines()[0][:120]}); "
            "lower batch_size or the sizes of the layers with --set."
        ) from error


@contextmanager
def told_when_left() -> Iterator[None]:
    """Raises InputError where a worker that does the same job is gone, or was never to be reached."""
    import tensorflow as tf

    gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    try:
        yield
    except (*gone, tf.errors.DeadlineExceededError) as error:
        raise InputError(
            "Another worker has ended, or cannot be reached; see what it says, then repeat the same command on all of "
            "them."
        ) from error


@cache
def start_tensorflow(device: str) -> tuple[str, ...]:
    """Imports and sets up TensorFlow, once; returns the names of the GPUs in use.

    Raises InputError if it cannot use what was chosen.
    """
    with interrupts_delayed(), only_errors():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise InputError(
            'This TensorFlow cannot use the GPU; install its CUDA libraries (pip install "tensorflow[and-cuda]", the '
            "version in requirements.txt), or hide the GPU with CUDA_VISIBLE_DEVICES=-1."
        )
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(False)  # float32 is what it says; --precision asks for less
    if device == "cpu":
        tf.config.experimental.enable_op_determinism()  # some 3-D gradients have no deterministic GPU kernel
    return tuple(gpu.name.removeprefix("/physical_device:") for gpu in gpus)


def begin_anew(precision: str, seed: int) -> None:
    """Forgets the networks that this process has made, so that a job gives the same whatever came before it."""
    import keras

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    keras.mixed_precision.set_global_policy(precision)
