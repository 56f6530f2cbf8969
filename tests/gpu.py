"""What a GPU does with this project, by command lines in processes of their own on the demo cohort -> a table.

    .venv/bin/python tests/gpu.py

Takes one free GPU, and a second one to compare. Exit status 1 if something that must hold does not.
"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
from scipy.special import logit
from tried import print_tries, run_system_command

from data.base.cli import run_guarded
from data.base.errors import InputError
from utils.machines import devices

# run.py, and at its end the most bytes that TensorFlow has held of all GPUs
RUN_SCRIPT = """
import sys, run
status = run.main()
if status == 0:
    import tensorflow as tf
    gpus = tf.config.list_logical_devices("GPU")
    print("peak", sum(tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus))
sys.exit(status)
"""
HOLD_SCRIPT = "import sys, tensorflow as tf; tf.constant(0); print(flush=True); sys.stdin.read()"
PLAIN_TRAINING = "--train --model cnn --preset plain --numIters 300"
MAX_LOSS_DIFFERENCE = 1e-3  # of the first ten losses, which are alike
MAX_DIFFERENCE_BY_PRECISION = {"float32": 1e-3, "mixed_float16": 0.05, "mixed_bfloat16": 0.05}  # of the logits' spread
MB = 2**20


@dataclass(frozen=True)
class Tries:
    """What is tried on the free GPUs, given by their UUIDs, with everything in a folder."""

    home: Path
    gpus: list[str]

    def run(self, words: str, count: int = 1) -> str:
        """What run.py says on so many GPUs. Raises InputError if it fails."""
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus[:count])}
        return run_system_command(sys.executable, "-c", RUN_SCRIPT, *words.split(), cwd=self.home, env=environment)

    def train(self, name: str, words: str, count: int = 1) -> tuple[str, pd.DataFrame]:
        """What a training took, and its history."""
        output = self.run(f"{words} --chkPointDir {name} --outDir {name}/train", count)
        history = pd.read_csv(self.home / name / "train" / "history.csv")
        speed, memory = history["samples_per_s"].median(), int(output.split()[-1]) / MB
        return f"{name}: loss {history['loss'].tail(10).mean():.4f}, {speed:.4g} samples/s, {memory:.0f} MB", history

    def precisions(self) -> tuple[str, bool]:
        """Trainings in each precision, and 30 people of the blackout in full."""
        summaries, is_exact = [], True
        for precision, max_difference in MAX_DIFFERENCE_BY_PRECISION.items():
            training_summary, _ = self.train(precision, f"--train --model cnn --numIters 300 --precision {precision}")
            words = f"--blackout --model cnn --verify 30 --chkPointDir {precision} --outDir {precision}/blackout"
            logit_difference = float(re.search(r"differ by at most (\S+)\.\n", self.run(words))[1])
            with h5py.File(self.home / precision / "blackout" / "blackout.h5") as store:
                logit_difference /= logit(store["probability"][()].astype(float)).std()
            summaries.append(f"{training_summary}, blackouts differ by {logit_difference:.2g} of the spread")
            is_exact &= logit_difference < max_difference
        return "; ".join(summaries), is_exact

    def full_grid(self) -> tuple[str, bool]:
        """A training of cae, and its full pass."""
        training_summary, _ = self.train("cae", "--train --model cae --numIters 60")
        self.run("--model cae --chkPointDir cae --outDir reduced")
        return training_summary, True

    def two_gpus(self) -> tuple[str, bool]:
        """Two GPUs against one: the same batches, cut in two."""
        if len(self.gpus) == 1:
            return "only one is free here", True
        (single_summary, single_history), (double_summary, double_history) = (
            self.train("one", PLAIN_TRAINING),
            self.train("two", PLAIN_TRAINING, 2),
        )
        loss_difference = (double_history["loss"] / single_history["loss"] - 1).abs().head(10).max()
        return (
            f"{single_summary}; {double_summary}; the first losses differ by {loss_difference:.1g}",
            loss_difference < MAX_LOSS_DIFFERENCE,
        )

    def taken_gpu(self) -> tuple[str, bool]:
        """A GPU that another process holds."""
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": self.gpus[0]}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([sys.executable, "-c", HOLD_SCRIPT], env=environment, **pipes) as holder:
            holder.stdout.readline()
            try:
                self.run("--train --model cnn --numIters 2 --chkPointDir held --outDir held/train")
                message = "it was taken"
            except InputError as error:
                message = str(error).rpartition("error: ")[2]
            self.run("--train --model cnn --numIters 2 --chkPointDir shared --outDir shared/train --shareGPU")
            holder.stdin.close()
        return f"{message} --shareGPU goes ahead.", f": {holder.pid})" in message


def execute() -> int:
    gpus = devices.find_free_gpus(may_share_gpus=False)
    if not gpus:
        print("No GPU: nothing to measure.")
        return 0
    with tempfile.TemporaryDirectory(prefix="gpu-") as home:
        tries = Tries(Path(home), [uuid for uuid, _ in gpus])
        attempts = [tries.precisions, tries.full_grid, tries.two_gpus, tries.taken_gpu]
        return print_tries(f"on {', '.join(name for _, name in gpus)}", attempts)


if __name__ == "__main__":
    sys.exit(run_guarded("gpu.py", execute))
