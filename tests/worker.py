"""A process of a test of several workers: runs command lines of run.py one after another, as small as the tests' own.

`worker.py [--devices N] [--interval N] [--kill N] COMMANDS.json`: a list of lists of arguments. It goes on after a
command that is refused; its exit status is that of the last.
"""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from data.base.effort import EFFORT

sys.path[:0] = [str(Path(__file__).parent.parent)]


def use_devices(count: int) -> None:
    """Makes `count` of the CPU, on which a network is trained as on so many GPUs."""
    from utils.machines import devices

    start = devices.start_tensorflow

    def started(device: str) -> tuple[str, ...]:
        start(device)
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        if not tf.config.get_logical_device_configuration(cpu):
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        return tuple(f"CPU:{number}" for number in range(count))

    devices.start_tensorflow = started


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", type=Path)
    parser.add_argument("--devices", type=int)
    parser.add_argument("--interval", type=int, default=150, help="batches from checkpoint to checkpoint")
    parser.add_argument("--kill", type=int, default=0, help="SIGKILL between the history and the checkpoint of batch N")
    args = parser.parse_args()
    if args.devices:
        use_devices(args.devices)
    import run
    from utils.machines import devices

    devices.choose_device(share=False)
    devices.start_tensorflow("cpu")
    from utils.training import network

    EFFORT.save_every = args.interval
    if args.kill:
        save = network.Saver.save
        network.Saver.save = lambda own, step, identity: (
            os.kill(os.getpid(), signal.SIGKILL) if step == args.kill else save(own, step, identity)
        )
    status = 0
    for command in json.loads(args.commands.read_text()):
        sys.argv = ["run.py", *command]
        status = run.main()
    return status


if __name__ == "__main__":
    sys.exit(main())
