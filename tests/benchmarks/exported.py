"""Every preset in ONNX: `python tests/benchmarks/exported.py COHORT FOLDER [--only mmnn-combined,...] [--numIters 20]`.

Trains each classifier on the training people of a reduced cohort, with checkpoints and results in FOLDER, and exports
it. Prints the largest difference of a probability between onnxruntime and TensorFlow over the cohort's first records,
how far people differ, the time of one person's prediction by onnxruntime on one thread (the median of 20), the file's
size, and the time of the export.
"""

import argparse
import contextlib
import dataclasses
import io
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import run as command_line
from data.base.cli import positive
from data.cohorts.cohort import in_order
from models import MODELS
from utils.jobs import JOBS
from utils.machines import devices
from utils.runs.run import Run
from utils.runs.validate import request, single_run

TIMES, BATCH = 20, 10


def names() -> list[str]:
    """All presets of classifiers, such as `mmnn-combined`."""
    models = [model for model in MODELS.values() if model.predicts == "label"]
    return [f"{model.name}-{preset}" for model in models for preset in model.module.PRESETS]


def trained(name: str, args: argparse.Namespace) -> Run:
    """The finished training of a preset."""
    model, preset = name.split("-")
    words = ["--train", "--model", model, "--preset", preset, "--numIters", args.numIters, "--dataDir", args.cohort]
    words += ["--chkPointDir", args.folder / name, "--outDir", args.folder / name / "results"]
    top = command_line.parser()
    asked = top.parse_args(list(map(str, words)))
    given = {option for option, value in vars(asked).items() if value != top.get_default(option)}
    with contextlib.redirect_stdout(io.StringIO()):
        run = single_run(request(asked, given, JOBS.values()))
        run.perform_on("cpu")
    return run


def row(name: str, args: argparse.Namespace) -> str:
    """Trains, exports and times one preset."""
    from utils.bundle.onnx import Network, by_program, export
    from utils.training.network import restored_network

    run = trained(name, args)
    network, stored = restored_network(run), dataclasses.replace(run.cohort, standard="stored")
    selections, volumes = in_order(np.arange(min(args.records, len(stored.rows))), BATCH), "volume" in network.input
    tables = {"connectome": stored.connectomes} if "connectome" in network.input else {}
    start, path, members = time.perf_counter(), args.folder / f"{name}.onnx", [Network(network, run.standard)]
    difference = export(members, path, stored.batches(selections, volumes, tables))
    seconds, batch = time.perf_counter() - start, stored.batch(selections[0], volumes, tables)
    return (
        f"{name}: largest difference {difference:.1e}, people differ by "
        f"{by_program(members, batch).std():.1e}, one person {milliseconds(path, batch):.2f} ms, "
        f"{path.stat().st_size / 1e6:.2f} MB, exported in {seconds:.0f} s"
    )


def milliseconds(path: Path, batch: dict[str, np.ndarray]) -> float:
    """Of one person's prediction."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    inputs, times = {of.name: batch[of.name][:1] for of in session.get_inputs()}, []
    for _ in range(TIMES):
        start = time.perf_counter()
        session.run(["probability"], inputs)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(names()))
    parser.add_argument("--numIters", type=positive, default=20)
    parser.add_argument("--records", type=positive, default=100)
    args = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    devices.choose_device(share=False)
    for name in args.only.split(","):
        print(row(name, args), flush=True)


if __name__ == "__main__":
    main()
