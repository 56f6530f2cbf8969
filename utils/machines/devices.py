"""The devices of a run: a free GPU if there is one, otherwise the CPU; never a GPU that somebody else holds; and what
else a result depends on: processor, packages, the commit of this code.

`Workers` is this process and its devices; `utils.machines.workers` makes it for several processes.
"""

import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from data.base import files
from data.base.errors import InputError
from data.base.processes import cpu_count

PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "scikit-learn", "nibabel", "nilearn", "h5py", "matplotlib")
WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")  # of oneDNN


@dataclass(frozen=True)
class Workers:
    """The processes that train one network together, of which this is the one at `index`; here this process alone. All
    do the same. What the first one, the chief, writes and prints is kept."""

    count: int = 1
    index: int = 0
    strategy: Any = None  # TensorFlow's, on all devices that train one network; None before TensorFlow is started

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    @property
    def replicas(self) -> int:
        """How many devices train a network."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    def started(self, gpus: Sequence[str]) -> "Workers":
        """With a strategy: for the devices in use, `gpus` or the CPU, unless it is that of several workers."""
        return replace(self, strategy=self.strategy or strategy_of(tuple(gpus)))

    def of_replicas(self, values: Sequence) -> Any:
        """A value for each device of this process."""
        left = iter(values)
        return self.strategy.experimental_distribute_values_from_function(lambda context: next(left))

    @property
    def own_replicas(self) -> range:
        """The numbers of this process's devices among all; each process has as many."""
        own = self.replicas // self.count
        return range(self.index * own, (self.index + 1) * own)

    def meet(self, settings: Mapping[str, Any]) -> None:
        """Waits for all workers. Raises InputError if one of them was started for something else."""
        if self.count == 1:
            return
        own = np.frombuffer(hashlib.sha256(files.format_json(settings).encode()).digest(), np.uint16).astype(np.int32)
        found = self.strategy.reduce("SUM", self.of_replicas([own] * len(self.own_replicas)), axis=None)
        if (np.asarray(found) != self.replicas * own).any():
            raise InputError(
                "The workers were started with different settings, data or checkpoints; run the same command on all of "
                "them, with --dataDir and --chkPointDir on a disk that they share."
            )


@cache
def strategy_of(gpus: tuple[str, ...]) -> Any:
    """TensorFlow's strategy for the devices of one process."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(gpus) if len(gpus) > 1 else tf.distribute.get_strategy()


def free_gpus(share: bool) -> list[tuple[str, str]]:
    """UUID and name of the GPUs that no other process holds; none where there is no GPU. Asks NVML, before TensorFlow
    could take memory; honours CUDA_VISIBLE_DEVICES, as Slurm sets it. If every GPU is held by other processes, raises
    InputError that names them or, to `share`, gives the one that fewest hold."""
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible and visible.startswith("MIG-"):  # a slice of a GPU, which its scheduler has already given to this run
        return [(visible, "the MIG device of CUDA_VISIBLE_DEVICES")]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    holders: dict[tuple[str, str], list[int]] = {}
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            gpu = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
            if visible is None or {str(index), gpu[0]} & set(visible.split(",")):
                pids = [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
                holders[gpu] = [pid for pid in pids if pid != os.getpid()]
    except pynvml.NVMLError as error:
        raise InputError(f"NVML cannot tell who holds GPUs ({error}); hide them: CUDA_VISIBLE_DEVICES=-1.") from error
    free = [gpu for gpu, pids in holders.items() if not pids]
    if free or not holders:
        return free
    if share:
        return [min(holders, key=lambda gpu: len(holders[gpu]))]
    users = "; ".join(f"{name}: {', '.join(map(str, pids))}" for (_, name), pids in holders.items())
    raise InputError(f"Every GPU is held by other processes ({users}); wait, or go ahead with --shareGPU.")


def choose_device(share: bool, several: bool = False) -> str:
    """Lets TensorFlow, which must not have been imported, see a free GPU, or `several`; returns `gpu` or `cpu`, and
    prints which."""
    gpus = free_gpus(share)[: None if several else 1]
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(uuid for uuid, _ in gpus) or "-1"
    names = ", ".join(name for _, name in gpus)
    print(f"Running on {names}." if gpus else "No GPU: running on the CPU.", flush=True)
    return "gpu" if gpus else "cpu"


def processor() -> dict[str, Any]:
    """What decides the last bits of what a CPU computes: the instruction sets that NumPy may use, the kernels of
    OpenBLAS, whether TensorFlow uses oneDNN, and up to which instruction set, and the threads."""
    from threadpoolctl import threadpool_info

    return {
        # NumPy leaves "found" out where there is nothing beyond what it needs, as on a processor without AVX2.
        "instruction_sets": np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
        "openblas": sorted({of["architecture"] for of in threadpool_info() if of["internal_api"] == "openblas"}),
        "onednn": os.environ["TF_ENABLE_ONEDNN_OPTS"].lower() in ("1", "true"),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or cpu_count(),
    }


def check_bfloat16() -> None:
    """Raises InputError where bfloat16 would end the process without a message. TensorFlow 2.21 takes the kernel that
    the processor has; below a cap, oneDNN lacks it."""
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if cap in WITHOUT_BFLOAT16:
        raise InputError(f"ONEDNN_MAX_CPU_ISA={cap} leaves no bfloat16; unset it, or use another --precision.")


@contextmanager
def memory_errors_explained() -> Iterator[None]:
    """Raises InputError where TensorFlow runs out of memory."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        if "No space left" in str(error):  # for what it writes for TensorBoard
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise InputError(
            f"The memory is too small for this network ({str(error).splitlines()[0][:120]}); "
            "lower batch_size or the sizes of the layers with --set."
        ) from error


@cache
def start_tensorflow(device: str) -> tuple[str, ...]:
    """Imports and sets up TensorFlow, once; returns the names of the GPUs in use. Raises InputError if it cannot
    use what was chosen."""
    # TensorFlow 2.21 writes notes at import whatever TF_CPP_MIN_LOG_LEVEL is, and calls a missing GPU driver an error.
    stderr = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import keras  # noqa: F401
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    tf.get_logger().setLevel("ERROR")
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


@cache
def package_versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@cache
def git_commit() -> str | None:
    """The commit of this code, with -dirty for uncommitted changes; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.check_output(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.strip()
