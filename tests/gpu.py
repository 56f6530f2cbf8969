"""What a GPU does with this project, by command lines in processes of their own on the demo cohort -> a table.

    .venv/bin/python tests/gpu.py

Takes one free GPU, and a second one to compare. Exit status 1 if something that must hold does not.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread

import pandas as pd
import pynvml
from commands import ROOT
from tried import head

from data.base import files
from data.base.cli import guarded
from run import PRECISIONS
from utils.machines import devices

# run.py, and at its end the most bytes that TensorFlow has held of all GPUs
RUN = """
import sys, run
status = run.main()
if status == 0:
    import tensorflow as tf
    gpus = tf.config.list_logical_devices("GPU")
    print("peak", sum(tf.config.experimental.get_memory_info(gpu.name)["peak"] for gpu in gpus))
sys.exit(status)
"""
CNN = ("--model", "cnn", "--numIters", "300")
PLAIN, RESIDUAL = "train cnn plain", "train cnn residual"
TEN = 10  # iterations: the first of two trainings are alike, the last have a steady mean
SAME_LOSS = 1e-3  # of the loss; GPUs multiply in TF32, of 11 bits
EXACT = {"float32": 1e-3, "mixed_float16": 0.05, "mixed_bfloat16": 0.05}  # of the logits' spread
ENDLESS, PATIENCE_S = 1_000_000, 1800
MB = 2**20


@dataclass(frozen=True)
class Row:
    """`held` is None where nothing must hold; NVML's memory has CUDA's own in it."""

    work: str
    finding: str
    held: bool | None = None
    device: str = ""
    samples_per_s: float | str = ""
    tensorflow_mb: int | str = ""
    nvml_mb: int | str = ""

    def __str__(self) -> str:
        held = {None: "", True: "yes", False: "NO"}[self.held]
        cells = (self.work, self.finding, held, self.device, self.samples_per_s, self.tensorflow_mb, self.nvml_mb)
        return f"| {' | '.join(' '.join(str(cell).split()).replace('|', '/') for cell in cells)} |"


class Command:
    """run.py with these options on a device, its CUDA_VISIBLE_DEVICES; `lines` are those it has printed, with the time
    of each."""

    def __init__(self, device: str, *options: object):
        self.device, self.before, self.most = device, used_memory(device), 0
        self.lines: list[tuple[float, str]] = []
        command = (sys.executable, "-c", RUN, *map(str, options))
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": device}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.reader = Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        self.lines.extend((time.monotonic(), line) for line in self.process.stdout or ())

    def wait(self) -> "Command":
        deadline = time.monotonic() + PATIENCE_S
        with self.process:
            while self.process.poll() is None:
                self.most = max(self.most, used_memory(self.device) - self.before)
                if time.monotonic() > deadline:
                    self.process.kill()
                time.sleep(0.1)
            self.reader.join()
        return self

    @property
    def end(self) -> str:
        return f"exit {self.process.returncode}: {''.join(line for _, line in self.lines[-1:])}"

    @property
    def has_begun(self) -> bool:
        return any(line.startswith("Training") for _, line in self.lines)

    def found(self, pattern: str) -> str:
        """The pattern's group in what it printed. Raises ValueError if it is not there."""
        if match := re.search(pattern, "".join(line for _, line in self.lines)):
            return match[1]
        raise ValueError(f"{pattern} was not printed; {self.end}")

    def rate(self, title: str) -> float:
        """The share of the work done a second, from the first line of progress on: without TensorFlow's start."""
        shown = [(when, re.match(rf"{title} (\d+)/(\d+)", line)) for when, line in self.lines]
        steps = [(when, int(match[1]) / int(match[2])) for when, match in shown if match]
        (begun, first), (ended, last) = steps[0], steps[-1]
        return (last - first) / (ended - begun)

    def row(self, work: str, finding: str, samples_per_s: float | str = "", held: bool | None = None) -> Row:
        """Of one that ended well."""
        memory = round(int(self.found(r"(?m)^peak (\d+)$")) / MB), round(self.most / MB)
        rate = samples_per_s and f"{samples_per_s:.4g}"
        return Row(work, finding, held, self.found(r"unning on (?:the )?(.+)\.\n"), rate, *memory)


def used_memory(device: str) -> int:
    """Bytes, by whomever; 0 of a CPU."""
    gpus = device.split(",") if device != "-1" else []
    if gpus:
        pynvml.nvmlInit()
    return sum(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(gpu)).used for gpu in gpus)


def history(home: Path, work: str) -> pd.DataFrame:
    return pd.read_csv(home / work / "train" / "history.csv")


def checkpoints(home: Path, work: str) -> tuple:
    return ("--chkPointDir", home / work / "ckpt")


def training(home: Path, work: str, *options: object) -> tuple:
    return ("--train", *options, *checkpoints(home, work), "--outDir", home / work / "train")


def train(home: Path, device: str, work: str, *options: object) -> Row:
    done = Command(device, *training(home, work, *options)).wait()
    done.found("(Results: )")
    values = history(home, work)
    finding = f"loss {values['loss'].tail(TEN).mean():.4f} after {len(values)} iterations"
    return done.row(work, finding, values["samples_per_s"].median())


def train_on_two(home: Path, gpus: str, trained: str, *options: object) -> Row:
    """What was `trained` on one GPU: the same batches, cut in two."""
    row, one = train(home, gpus, f"{trained}, two GPUs", *options), history(home, trained)
    both, replicas = history(home, row.work), files.read_json(home / row.work / "train" / "run.json", dict)["replicas"]
    apart = (both["loss"] / one["loss"] - 1).abs().head(TEN).max()
    faster = both["samples_per_s"].median() / one["samples_per_s"].median()
    told = f"{replicas} replicas, {faster:.2f} times as fast; the first {TEN} losses differ by up to {apart:.1g}"
    return replace(row, finding=f"{row.finding}; {told}", held=bool(replicas == 2 and apart < SAME_LOSS))


def full_pass(home: Path, device: str, trained: str, *options: object) -> Row:
    done = Command(device, "--model", "cae", *checkpoints(home, trained), "--outDir", home / "reduced", *options).wait()
    people = int(done.found(r"Encoding \d+/(\d+)"))
    return done.row("full pass, cae", f"{people} volumes", people * done.rate("Encoding"))


def blackout(home: Path, device: str, trained: str, precision: str, *options: object) -> Row:
    words = ("--blackout", "--model", "cnn", "--verify", 30, "--outDir", home / trained / "blackout")
    done = Command(device, *words, *checkpoints(home, trained), *options).wait()
    apart = float(done.found(r"differ by at most \S+, (\S+) of their spread"))
    people = files.read_json(home / trained / "blackout" / "run.json", dict)["subjects"]
    finding = f"{people} people; 30 pairs in full differ by up to {apart:.2g} of the spread"
    rate = people * done.rate("Blacking out")
    return done.row(trained.replace("train", "blackout"), finding, rate, apart < EXACT[precision])


def second_process(home: Path, device: str, *options: object) -> Iterator[Row]:
    """While a first one trains on the device."""
    second = training(home, "second", *options, "--numIters", 2)
    trains = Command(device, *training(home, "first", *options, "--numIters", ENDLESS))
    try:
        deadline = time.monotonic() + PATIENCE_S / 10
        while not trains.has_begun and trains.process.poll() is None and time.monotonic() < deadline:
            time.sleep(1)
        pid = trains.process.pid
        refused = Command(device, *second).wait()
        named = refused.process.returncode == 2 and f" {pid} " in refused.end
        yield Row(f"a second process beside {pid}", refused.end, named)
        shares = Command(device, *second, "--shareGPU").wait()
        yield shares.row("a second process, --shareGPU", shares.found("(Results: )") and "goes ahead", held=True)
    finally:
        trains.process.terminate()
        trains.wait()


def works(home: Path, gpus: list[str]) -> Iterator[partial]:
    """What is to be done, in order."""
    gpu = gpus[0]
    yield partial(train, home, gpu, "train cnn", *CNN)
    for work in (PLAIN, RESIDUAL):
        for precision in PRECISIONS:
            options = ("--preset", work.split()[-1], "--precision", precision)
            yield partial(train, home, gpu, f"{work}, {precision}", *CNN, *options)
    if len(gpus) > 1:
        yield partial(train_on_two, home, ",".join(gpus[:2]), f"{PLAIN}, float32", *CNN, "--preset", "plain")
    else:
        yield partial(Row, "two GPUs against one", "only one is free here")
    yield partial(train, home, gpu, "train cae", "--model", "cae", "--numIters", 60)
    yield partial(full_pass, home, gpu, "train cae")
    for precision in PRECISIONS:
        yield partial(blackout, home, gpu, f"{RESIDUAL}, {precision}", precision)
    yield partial(second_process, home, gpu, "--model", "cnn")


def main() -> int:
    gpus = devices.free_gpus(share=False)
    if not gpus:
        print("No GPU: nothing to measure.")
        return 0
    print(f"NVML: free are {', '.join(name for _, name in gpus)}.\n")
    head("work", "finding", "as it must be", "device", "samples/s", "MB, TensorFlow", "MB, NVML")
    status = 0
    with tempfile.TemporaryDirectory(prefix="gpu-") as home:
        for work in works(Path(home), [uuid for uuid, _ in gpus]):
            try:
                done = work()
                rows = [done] if isinstance(done, Row) else [*done]
            except Exception as error:
                rows = [Row(work.func.__name__, f"{error!r}, {' '.join(map(str, work.args[1:]))}", held=False)]
            print(*rows, sep="\n", flush=True)
            status |= any(row.held is False for row in rows)
    return status


if __name__ == "__main__":
    sys.exit(guarded("gpu.py", main))
