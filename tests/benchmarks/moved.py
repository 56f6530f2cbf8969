"""A training that moves to another processor: `python tests/benchmarks/moved.py COHORT FULL_COHORT FOLDER`.

Trains each model for `--numIters` batches in one go, and half of them; the second half follows under other variables,
which say what TensorFlow may use of this processor. Prints the largest difference from the training in one go: of the
weights, relative to the largest of the same array, and of the test people's predictions, all made under no variables.
COHORT is on the reduced grid, for classifiers; FULL_COHORT is for `cae`, whose prediction is a normalised error.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import commands_of, read_rows, start_worker, variables

MODELS = {
    "nn": ("nn",),
    "cnn combined": ("cnn", "--preset", "combined", "--set", "batch_size=8"),
    "cnn plain": ("cnn", "--preset", "plain", "--set", "batch_size=4"),
    "cae": ("cae", "--set", "batch_size=2"),
}
ENVIRONMENTS = {
    "the same": {},
    "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
    "four threads": {"OMP_NUM_THREADS": "4", "TF_NUM_INTRAOP_THREADS": "4"},
}


def perform(folder: Path, commands: Sequence[Sequence], environment: dict[str, str]) -> None:
    """Runs command lines of run.py in a process of their own."""
    process = start_worker(commands_of(folder, *commands), environment=environment)
    _, err = process.communicate()
    assert process.returncode == 0, err


def command(job: str, folder: Path, name: str, cohort: Path, *more: object) -> list:
    model, *settings = MODELS[name]
    places = ("--dataDir", cohort, "--chkPointDir", folder / name, "--outDir", folder / name / job)
    return [f"--{job}", "--model", model, *places, *(settings if job == "train" else ()), *more]


def predictions(folder: Path, name: str) -> np.ndarray:
    """Probabilities; of an autoencoder its error."""
    results = folder / name / "test"
    if (results / "predictions.csv").exists():
        return np.array([float(row["probability"]) for row in read_rows(results / "predictions.csv")])
    return np.array([json.loads((results / "metrics.json").read_text())["mse"]])


def largest_difference(one: Path, other: Path) -> float:
    """Of two checkpoints' arrays of weights, each relative to the largest value of the first."""
    first, second = variables(one), variables(other)
    state = "optimizer/_variables"  # the weights are the optimizer's "_trainable_variables"
    weights = [key for key, value in first.items() if value.dtype.kind == "f" and state not in key and value.ndim]
    return max(np.abs(first[key] - second[key]).max() / (np.abs(first[key]).max() or 1) for key in weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for place in ("cohort", "full_cohort", "folder"):
        parser.add_argument(place, type=Path)
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--numIters", type=int, default=8)
    args = parser.parse_args()
    names, half = args.only.split(","), args.numIters // 2
    cohorts = {name: args.full_cohort if name == "cae" else args.cohort for name in names}

    def commands(job: str, folder: str, *more: object) -> list[list]:
        return [command(job, args.folder / folder, name, cohorts[name], *more) for name in names]

    whole, halved = (("whole", args.numIters), ("half", half))
    perform(args.folder, [of for folder, n in (whole, halved) for of in commands("train", folder, "--numIters", n)], {})
    for environment, variables_set in ENVIRONMENTS.items():
        shutil.copytree(args.folder / "half", args.folder / environment)
        perform(args.folder, commands("train", environment, "--numIters", args.numIters), variables_set)
    perform(args.folder, [of for folder in ("whole", *ENVIRONMENTS) for of in commands("test", folder)], {})
    for name in names:
        for environment in ENVIRONMENTS:
            one, other = args.folder / "whole", args.folder / environment
            weights = largest_difference(*(place / name / MODELS[name][0] for place in (one, other)))
            predicted = np.abs(predictions(one, name) - predictions(other, name)).max()
            print(f"{name}, continued with {environment}: weights {weights:.1e}, predictions {predicted:.1e}")


if __name__ == "__main__":
    main()
