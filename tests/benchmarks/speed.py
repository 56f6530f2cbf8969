"""Training steps a second of a network, and beside it those of another program, in turn.

`python tests/benchmarks/speed.py [--model cae|cnn] [--preset NAME] [--batch N] [--steps 3] [--rounds 1]
[--against COMMAND]`

Trains on noise. COMMAND, with its arguments in one word, prints `"train_per_s": NUMBER`; it runs after each round of
ours, and only the median of the ratios of neighbours counts where other programs run beside.
"""

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.images.grids import REDUCED
from models import MODELS
from models.averaging import make_branch_logits_network
from utils.machines import devices


def make_training_step(model: str, preset: str | None, batch: int | None):
    """A function that trains on one batch of noise, and the number of records in it."""
    import keras
    import tensorflow as tf

    from utils.training.train import Training, make_optimizer

    model_row = MODELS[model]
    presets = model_row.module.PRESETS
    config = presets[preset or next(iter(presets))]
    config = replace(config, batch_size=batch or config.batch_size)
    size, grid, random = config.batch_size, model_row.required_grid or REDUCED, np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    network = model_row.module.build(config, grid)
    optimizer = make_optimizer(config, "float32")
    optimizer.build(network.trainable_variables)
    run: Any = SimpleNamespace(model=model_row, config=config, workers=devices.Workers().with_strategy(()))
    training_loop = Training(run, network, optimizer)
    reads = SimpleNamespace(
        network=make_branch_logits_network(network),
        select_inputs=lambda content: {name: content[name] for name in model_row.input_names},
    )
    training_loop.__dict__["reader"] = reads  # instead of one that reads a cohort
    noise_arrays = {
        "volume": random.normal(size=(size, *grid.shape, 1)).astype(np.float32),
        "label": np.arange(size, dtype=np.int32) % 2,
        "stopping": np.float32(0),
        "weight": np.ones((size, getattr(config, "members", 1)), np.float32),
        "site_log_odds": np.zeros(size, np.float32),
    }
    noise_tensors = {name: tf.constant(content) for name, content in noise_arrays.items()}
    return lambda: float(training_loop.train_step(noise_tensors)["loss"]), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("cae", "cnn"), default="cnn")
    parser.add_argument("--preset")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", metavar="COMMAND")
    args = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    devices.start_tensorflow(devices.choose_device(may_share_gpus=False))
    step, size = make_training_step(args.model, args.preset, args.batch)
    step()  # builds the graph
    ratios = []
    for _ in range(args.rounds):
        seconds = []
        for _ in range(args.steps):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        records_per_s = size / statistics.median(seconds)
        print(f"{args.model}, {size} records a step: {records_per_s:.2f} records a second", flush=True)
        if args.against:
            printed = subprocess.run(shlex.split(args.against), capture_output=True, text=True, check=True).stdout
            reference_speed = float(re.search(r'"train_per_s": ([\d.]+)', printed)[1])
            ratios.append(records_per_s / reference_speed)
            print(f"the other {reference_speed:.2f}, ratio {ratios[-1]:.2f}", flush=True)
    if ratios:
        print(f"median ratio {statistics.median(ratios):.2f} of {len(ratios)}")


if __name__ == "__main__":
    main()
