"""What a process finds in its environment: whether it is one of several, and how TensorFlow is set up in it."""

import os
from collections.abc import Mapping


def several_processes(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether TF_CONFIG or Slurm's variables of the job step name more processes than this one."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")  # of this srun; SLURM_NTASKS is the whole allocation's
    return bool(environment.get("TF_CONFIG", "").strip()) or tasks != "1"


def prepare_tensorflow() -> None:
    """Sets what TensorFlow and Keras read at their import. What the user has set stays, but for the backend.

    The packages that import TensorFlow, `models` and `utils`, call this when they are imported, before their modules.
    """
    # Errors only. Of several processes, each would report one that is gone; `lost_workers_explained` does so once.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if several_processes() else "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # off by default without AVX-512, and five times slower then
    os.environ["KERAS_BACKEND"] = "tensorflow"
