"""Occlusion from kept activations against one full TensorFlow pass a region, side by side in one process.

Once filled with the background, once with the regions of another subject.

`python tests/benchmarks/blackout.py [--preset plain] [--model cnn|mmnn] [--subjects 16] [--maps 1] [--repeats 3]`

The network has random weights and statistics of batch norm; the 116 AAL regions of the reduced grid are occluded in
volumes of the demo cohort, which each further map shows by a larger factor. Prints seconds of both, their ratio, and
the largest difference of a logit in units of the logits' spread (their standard deviation over subjects).
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.cohorts.stored import open_cohort
from data.demo import get_demo_cohort_path
from data.images import brain
from data.images.atlas import load_atlas
from data.images.grids import REDUCED
from models import MODELS
from utils.machines import devices


def make_random_network(model: str, preset: str, maps: int, random: np.random.Generator):
    module = MODELS[model].module
    network = module.build(module.PRESETS[preset], REDUCED, maps=maps)
    for weight in network.weights:
        if weight.path.endswith("kernel") and not weight.numpy().any():
            weight.assign(random.normal(0, 0.1, weight.shape))
        if weight.path.endswith(("moving_mean", "beta")):
            weight.assign(random.normal(0, 0.3, weight.shape))
        if weight.path.endswith(("moving_variance", "gamma")):
            weight.assign(random.uniform(0.5, 2, weight.shape))
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("cnn", "mmnn"), default="cnn")
    parser.add_argument("--preset", default="plain")
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--maps", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--regions", type=int, help="the first so many (default: all)")
    args = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    devices.start_tensorflow(devices.choose_device(may_share_gpus=False))
    import keras
    import tensorflow as tf

    from utils.blackout.occlusion import make_occlusion

    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    network = make_random_network(args.model, args.preset, args.maps, random)
    atlas = load_atlas(None, REDUCED)
    masks = [atlas.region_labels == region for region in atlas.region_numbers[: args.regions]]
    batch = open_cohort(get_demo_cohort_path(REDUCED)).make_batch(range(args.subjects))
    volume = batch["volume"] * np.linspace(1, 2, args.maps, dtype=np.float32)
    inputs = {fill_name: batch[fill_name] for fill_name in MODELS[args.model].input_names} | {"volume": volume}
    background = np.array([brain.find_background_value(values) for values in batch["volume"][..., 0]], np.float32)
    fills = {"background": background[:, None, None, None, None], "donor": volume[::-1]}
    forward = tf.function(lambda values: network(values, training=False))

    def in_full(fill: np.ndarray) -> np.ndarray:
        occluded = (np.where(mask[None, ..., None], fill, volume) for mask in masks)
        return np.stack([forward(inputs | {"volume": values}).numpy() for values in occluded])

    occlusion = make_occlusion(network)
    spread = forward(inputs).numpy().std(0).max()
    for fill_name, fill in list(fills.items()) * args.repeats:
        occlusion.compute_occluded_logits(
            occlusion.run_intact(inputs), fill, masks
        )  # warms the primitives of every shape
        start = time.perf_counter()
        full_logits = in_full(fill)
        middle = time.perf_counter()
        quick_logits = occlusion.compute_occluded_logits(occlusion.run_intact(inputs), fill, masks)
        end = time.perf_counter()
        print(
            f"{args.model} {args.preset}, {args.subjects} subjects, maps {args.maps}, {len(masks)} regions, "
            f"{fill_name}: full {middle - start:.2f} s, from kept activations {end - middle:.2f} s, "
            f"ratio {(middle - start) / (end - middle):.2f}, "
            f"largest difference {np.abs(full_logits - quick_logits).max() / spread:.1e} of the spread",
            flush=True,
        )


if __name__ == "__main__":
    main()
