"""A process of a test of several workers: does command lines of run.py one after another, also after a refusal.

`worker.py COMMANDS.json`: a list of lists of arguments. Without Slurm's variables it trains on two devices of the CPU,
as on so many GPUs.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import run
from data.base.effort import EFFORT
from utils.machines import devices


def main() -> int:
    EFFORT.save_every = 3
    if "SLURM_PROCID" not in os.environ:
        devices.start_tensorflow("cpu")
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        two_devices: Any = {"cpu": ("CPU:0", "CPU:1")}.get
        devices.start_tensorflow = two_devices
    for command in json.loads(Path(sys.argv[1]).read_text()):
        sys.argv = ["run.py", *command]
        status = run.main()
    return status


if __name__ == "__main__":
    sys.exit(main())
