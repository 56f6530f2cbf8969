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

RECORDED_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "scipy",
    "scikit-learn",
    "nibabel",
    "nilearn",
    "h5py",
    "matplotlib",
)
ISAS_WITHOUT_BFLOAT16 = (
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
)  # of oneDNN


@dataclass(frozen=True)
class Workers:
    """The processes that train one network together, of which this is the one at `worker_index`; here this process
    alone. All do the same. What the first one, the chief, writes and prints is kept."""

    worker_count: int = 1
    worker_index: int = 0
    strategy: Any = None  # TensorFlow's, on all devices that train one network; None before TensorFlow is started

    @property
    def is_chief(self) -> bool:
        return self.worker_index == 0

    @property
    def replica_count(self) -> int:
        """How many devices train a network."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    def with_strategy(self, gpu_names: Sequence[str]) -> "Workers":
        """With a strategy: for the devices in use, `gpu_names` or the CPU, unless it is that of several workers."""
        return replace(self, strategy=self.strategy or make_strategy(tuple(gpu_names)))

    def distribute_values(self, replica_values: Sequence) -> Any:
        """A value for each device of this process."""
        remaining_values = iter(replica_values)
        return self.strategy.experimental_distribute_values_from_function(lambda context: next(remaining_values))

    @property
    def local_replica_indices(self) -> range:
        """The numbers of this process's devices among all; each process has as many."""
        replicas_per_process = self.replica_count // self.worker_count
        return range(self.worker_index * replicas_per_process, (self.worker_index + 1) * replicas_per_process)

    def wait_for_same_settings(self, settings: Mapping[str, Any]) -> None:
        """Waits for all workers. Raises InputError if one of them was started for something else."""
        if self.worker_count == 1:
            return
        settings_sha256 = hashlib.sha256(files.format_json(settings).encode()).digest()
        settings_digest = np.frombuffer(settings_sha256, np.uint16).astype(np.int32)  # numbers that can be summed
        replica_digests = self.distribute_values([settings_digest] * len(self.local_replica_indices))
        digest_sum = self.strategy.reduce("SUM", replica_digests, axis=None)
        if (np.asarray(digest_sum) != self.replica_count * settings_digest).any():
            raise InputError(
                "The workers were started with different settings, data or checkpoints; run the same command on all of "
                "them, with --dataDir and --chkPointDir on a disk that they share."
            )


@cache
def make_strategy(gpu_names: tuple[str, ...]) -> Any:
    """TensorFlow's strategy for the devices of one process."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(gpu_names) if len(gpu_names) > 1 else tf.distribute.get_strategy()


def find_free_gpus(may_share_gpus: bool) -> list[tuple[str, str]]:
    """UUID and name of the GPUs that no other process holds; none where there is no GPU. Asks NVML, before TensorFlow
    could take memory; honours CUDA_VISIBLE_DEVICES, as Slurm sets it. If every GPU is held by other processes, raises
    InputError that names them or, with `may_share_gpus`, returns the one that fewest hold."""
    import pynvml

    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    # a slice of a GPU, which its scheduler has already given to this run
    if visible_devices and visible_devices.startswith("MIG-"):
        return [(visible_devices, "the MIG device of CUDA_VISIBLE_DEVICES")]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    pids_by_gpu: dict[tuple[str, str], list[int]] = {}  # processes that hold it, by (UUID, name)
    try:
        for gpu_index in range(pynvml.nvmlDeviceGetCount()):
            gpu_handle = pynvml.nvmlDeviceGetHandleByIndex(gpu_index)
            gpu_uuid = pynvml.nvmlDeviceGetUUID(gpu_handle)
            gpu_name = pynvml.nvmlDeviceGetName(gpu_handle)
            if visible_devices is None or {str(gpu_index), gpu_uuid} & set(visible_devices.split(",")):
                pids = [gpu_process.pid for gpu_process in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu_handle)]
                pids_by_gpu[gpu_uuid, gpu_name] = [pid for pid in pids if pid != os.getpid()]
    except pynvml.NVMLError as error:
        raise InputError(f"NVML cannot tell who holds GPUs ({error}); hide them: CUDA_VISIBLE_DEVICES=-1.") from error

    unused_gpus = [gpu_uuid_and_name for gpu_uuid_and_name, pids in pids_by_gpu.items() if not pids]
    if unused_gpus or not pids_by_gpu:
        return unused_gpus
    if may_share_gpus:
        return [min(pids_by_gpu, key=lambda gpu_uuid_and_name: len(pids_by_gpu[gpu_uuid_and_name]))]
    users_text = "; ".join(f"{gpu_name}: {', '.join(map(str, pids))}" for (_, gpu_name), pids in pids_by_gpu.items())
    raise InputError(f"Every GPU is held by other processes ({users_text}); wait, or go ahead with --shareGPU.")


def choose_device(may_share_gpus: bool, may_use_several: bool = False) -> str:
    """Lets TensorFlow, which must not have been imported, see a free GPU, or all of them if `may_use_several`;
    returns `gpu` or `cpu`, and prints which."""
    free_gpus = find_free_gpus(may_share_gpus)
    chosen_gpus = free_gpus if may_use_several else free_gpus[:1]
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(uuid for uuid, _ in chosen_gpus) or "-1"
    gpu_names_text = ", ".join(gpu_name for _, gpu_name in chosen_gpus)
    print(f"Running on {gpu_names_text}." if chosen_gpus else "No GPU: running on the CPU.", flush=True)
    return "gpu" if chosen_gpus else "cpu"


def describe_processor() -> dict[str, Any]:
    """What decides the last bits of what a CPU computes: the instruction sets that NumPy may use, the kernels of
    OpenBLAS, whether TensorFlow uses oneDNN, and up to which instruction set, and the threads."""
    from threadpoolctl import threadpool_info

    return {
        # NumPy leaves "found" out where there is nothing beyond what it needs, as on a processor without AVX2.
        "instruction_sets": np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
        "openblas": sorted(
            {library["architecture"] for library in threadpool_info() if library["internal_api"] == "openblas"}
        ),
        "onednn": os.environ["TF_ENABLE_ONEDNN_OPTS"].lower() in ("1", "true"),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
        "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or cpu_count(),
    }


def check_bfloat16() -> None:
    """Raises InputError where bfloat16 would end the process without a message. TensorFlow 2.21 takes the kernel that
    the processor has; below a cap, oneDNN lacks it."""
    isa_cap = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if isa_cap in ISAS_WITHOUT_BFLOAT16:
        raise InputError(f"ONEDNN_MAX_CPU_ISA={isa_cap} leaves no bfloat16; unset it, or use another --precision.")


@contextmanager
def explain_memory_errors() -> Iterator[None]:
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
def start_tensorflow(device_kind: str) -> tuple[str, ...]:
    """Imports and sets up TensorFlow, once; returns the names of the GPUs in use. Raises InputError if it cannot
    use what was chosen."""
    # TensorFlow 2.21 writes notes at import whatever TF_CPP_MIN_LOG_LEVEL is, and calls a missing GPU driver an error.
    stderr_copy_fd = os.dup(2)
    try:
        with open(os.devnull, "wb") as null_file:
            os.dup2(null_file.fileno(), 2)
        import keras  # noqa: F401
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
    finally:
        os.dup2(stderr_copy_fd, 2)
        os.close(stderr_copy_fd)
    tf.get_logger().setLevel("ERROR")
    if device_kind == "gpu" and not gpus:
        raise InputError(
            'This TensorFlow cannot use the GPU; install its CUDA libraries (pip install "tensorflow[and-cuda]", the '
            "version in requirements.txt), or hide the GPU with CUDA_VISIBLE_DEVICES=-1."
        )
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    tf.config.experimental.enable_tensor_float_32_execution(False)  # float32 is what it says; --precision asks for less
    if device_kind == "cpu":
        tf.config.experimental.enable_op_determinism()  # some 3-D gradients have no deterministic GPU kernel
    return tuple(gpu.name.removeprefix("/physical_device:") for gpu in gpus)


@cache
def package_versions() -> dict[str, str]:
    return {package: version(package) for package in RECORDED_PACKAGES}


@cache
def git_commit() -> str | None:
    """The commit of this code, with -dirty for uncommitted changes; None outside a checkout."""
    git_command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        commit_text = subprocess.check_output(
            git_command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit_text.strip()
