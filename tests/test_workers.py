"""Several workers, or several devices of one, train as one does: the same losses; one that is killed ends the others,
and the same commands go on as if nothing had been."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from commands import ROOT, Outcome, run
from conftest import without_drawing
from helpers import SMALL_BATCH, TINY_CNN, TINY_NN, assert_bit_equal
from tried import PROCESS_ENVIRONMENT

INTERVAL = 3  # of checkpoints, see `worker.py`; batches are odd, so that two share them unevenly
ODD = ("--set", "batch_size=7")
TRAININGS = {
    "nn": ("--model", "nn", *TINY_NN, *ODD, "--numIters", "6"),
    "batch norm": ("--model", "cnn", *TINY_CNN, *SMALL_BATCH, "--numIters", "4"),  # that of `trained`
    "rho": ("--model", "ae", *ODD, "--numIters", "3"),
}
LONG = 100_000  # batches
SLURM = {
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_JOB_ID": "41",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURMD_NODENAME": "gpu08",
}
CHIEF = '{"cluster": {"worker": ["b:1", "c:25248"], "chief": ["a:1"]}, "task": {"type": "worker", "index": "1"}}'


def training(folder: Path, cohort: Path, *more: object, name: str = "nn") -> list[str]:
    """The command line of one of TRAININGS, with everything in `folder`."""
    places = ("--dataDir", cohort, "--chkPointDir", folder / "ckpt", "--outDir", folder / name)
    return ["--train", *TRAININGS[name], *map(str, (*places, *more))]


def start(path: Path, commands: Sequence[list], **variables: str) -> subprocess.Popen:
    """A process that does these command lines, written to a file for it, see `worker.py`."""
    path.write_text(json.dumps(commands))
    environment = os.environ | PROCESS_ENVIRONMENT | {"TF_CPP_MIN_LOG_LEVEL": "3"} | variables
    words = [sys.executable, str(ROOT / "tests" / "worker.py"), str(path)]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_pair(folder: Path, commands: Sequence[list]) -> list[subprocess.Popen]:
    """Two workers on this machine, as srun starts them, each with its command lines."""
    step = SLURM | {"SLURM_STEP_NODELIST": "localhost", "SLURMD_NODENAME": "localhost"}
    step |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_JOB_ID": f"{os.getpid()}"}
    tasks = [step | {"SLURM_PROCID": index, "SLURM_LOCALID": index} for index in "01"]
    return [
        start(folder / f"of-{task_index}.json", commands[task_index], **task) for task_index, task in enumerate(tasks)
    ]


@pytest.fixture(scope="module")
def single_process(cli, cohort, trained, tmp_path_factory) -> Path:
    """What one process leaves of all trainings."""
    folder = tmp_path_factory.mktemp("one")
    with without_drawing():
        for name in ("nn", "rho"):
            outcome = cli(*training(folder, cohort, name=name))
            assert outcome.status == 0, outcome.err
    shutil.copytree(trained.with_name("out"), folder / "batch norm")
    return folder


@pytest.fixture(scope="module")
def pair(cohort, tmp_path_factory) -> tuple[Path, Outcome]:
    """What two workers leave, who first were started for different things, and last are at a long training in which one
    of them is killed after its first checkpoint; and what the other one said, the chief, which ends within a minute."""
    folder = tmp_path_factory.mktemp("workers")
    both = [
        training(folder, cohort),
        training(folder / "parts", cohort, "--numIters", INTERVAL),
        training(folder / "parts", cohort),
        training(folder / "killed", cohort, "--numIters", LONG),
    ]
    different = [training(folder / "different", cohort, "--seed", seed) for seed in (0, 1)]
    chief, second_worker = start_pair(folder, [[first, *both] for first in different])

    def kill_both() -> None:
        chief.kill()
        second_worker.kill()

    deadline = threading.Timer(400, kill_both)
    deadline.start()
    while not [*folder.glob("killed/ckpt/nn/ckpt-*.index")] and second_worker.poll() is None:
        time.sleep(0.05)
    second_worker.kill()
    second_worker.communicate()
    printed_outputs = chief.communicate(timeout=60)
    deadline.cancel()
    return folder, Outcome(chief.returncode, *printed_outputs)


@pytest.fixture(scope="module")
def several(cohort, pair, tmp_path_factory) -> dict[str, Path]:
    """What two workers leave, and of the other trainings two devices of one."""
    folder = tmp_path_factory.mktemp("devices")
    device_process = start(
        folder / "commands.json",
        [training(folder, cohort, name=training_name) for training_name in ("batch norm", "rho")],
    )
    assert (device_process.communicate(timeout=400)[1], device_process.returncode) == ("", 0)
    return {"workers": pair[0], "devices": folder}


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    "how, name, tolerance", [("workers", "nn", 1e-6), ("devices", "batch norm", 1e-4), ("devices", "rho", 1e-6)]
)
def test_several_train_to_the_losses_from_a_single_process(how, name, tolerance, single_process, several):
    losses, expected = (
        pd.read_csv(results_folder / name / "history.csv")["loss"] for results_folder in (several[how], single_process)
    )
    assert len(expected) == int(TRAININGS[name][-1])
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    described = json.loads((several[how] / name / "run.json").read_text())["versions"]
    assert (described["workers"], described["replicas"]) == (1 + (how == "workers"), 2)


@pytest.mark.slow
@pytest.mark.bits
def test_a_killed_worker_ends_the_rest_and_the_same_commands_go_on(pair, single_process, cli, cohort):
    """Those of two workers to the bytes of one go; of one process, too, for whom the chief has left a checkpoint."""
    folder, chief = pair
    different, lost = chief.err.splitlines()
    assert chief.status == 2 and "different settings" in different and not (folder / "different/nn").exists()
    assert "Another worker has ended or cannot be reached" in lost
    assert f"Continuing {folder / 'parts/ckpt/nn'} at iteration {INTERVAL}." in chief.out
    assert_bit_equal(folder / "parts/ckpt/nn", folder / "ckpt/nn")
    seen = max(int(path.stem.partition("-")[2]) for path in folder.glob("killed/ckpt/nn/ckpt-*.index"))
    outcome = cli(*training(folder / "killed", cohort, "--numIters", seen + 1))
    assert f"at iteration {seen}." in outcome.out, outcome.err
    for name in ("parts", "killed"):
        expected, rows = (
            pd.read_csv(results_folder / "nn/history.csv") for results_folder in (single_process, folder / name)
        )
        assert [*rows["step"]] == [*range(1, len(rows) + 1)], name
        count = min(len(rows), len(expected))
        np.testing.assert_allclose(rows["loss"][:count], expected["loss"][:count], rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_dropout_draws_differently_on_replicas(monkeypatch):
    import tensorflow as tf

    from models import MODELS

    model = MODELS["cnn"]
    drops = next(preset for preset in model.module.PRESETS.values() if getattr(preset, "dropout", 0))
    volume = np.random.default_rng(0).normal(size=(2, *model.required_grid.shape, 1)).astype(np.float32)

    def logits(replica: int) -> np.ndarray:
        """Of a new network with the same weights, as TensorFlow would call it on a replica."""
        tf.keras.utils.set_random_seed(0)
        network = model.module.build(replace(drops, members=1), model.required_grid)
        random, context = np.random.default_rng(0), SimpleNamespace(replica_id_in_sync_group=replica)
        network.set_weights(
            [random.normal(size=weight.shape) for weight in network.get_weights()]
        )  # some are zero at first
        with monkeypatch.context() as patch:
            patch.setattr(tf.distribute, "get_replica_context", lambda: context)
            return np.asarray(network({"volume": volume}, training=True))

    assert np.array_equal(logits(0), logits(0))
    assert not np.array_equal(logits(0), logits(1))


@pytest.fixture
def started(cohort, monkeypatch):
    """`started(SLURM)` is what a training says that is started with these variables alone."""

    def run_refused_training(variables: dict[str, str], words: str = "--train --model nn") -> Outcome:
        for name in ("TF_CONFIG", *SLURM):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        outcome = run(f"run.py {words} --dataDir {{of}} --chkPointDir ckpt --outDir out", of=cohort)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
        return outcome

    return run_refused_training


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables, worker_address, addresses",
    [
        ({}, "gpu08:25248", "gpu07:25248, gpu07:25249, gpu08:25248"),
        ({"SLURM_STEP_ID": "1"}, "gpu08:25264", "gpu07:25264, gpu07:25265, gpu08:25264"),
        ({"SLURM_JOB_ID": "42"}, "gpu08:25376", "gpu07:25376, gpu07:25377, gpu08:25376"),
        ({"SLURM_STEP_NODELIST": "gpu[9-10]", "SLURMD_NODENAME": "gpu9"}, "gpu9:25248", ""),
        ({"SLURM_STEP_NODELIST": "b,a", "SLURMD_NODENAME": "b"}, "b:25248", ""),
        ({"TF_CONFIG": CHIEF}, "c:25248", "a:1, b:1, c:25248"),
    ],
)
def test_job_step_tasks_are_workers(variables, worker_address, addresses, started):
    """Whatever the order of the nodes."""
    port = int(worker_address.partition(":")[2])
    with socket.create_server(("", port)):  # something else, so that no worker waits for others
        outcome = started(SLURM | variables)
    index, printed_addresses = re.search(r"Worker (\d) of 3, waiting for (.*)\.", outcome.out).groups()
    assert addresses in printed_addresses and printed_addresses.split(", ")[int(index)] == worker_address
    assert "cannot listen at" in outcome.err and "each as host:port" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        SLURM | {"SLURM_STEP_TASKS_PER_NODE": "many"},
        SLURM | {"SLURMD_NODENAME": "gpu09"},
        SLURM | {"SLURM_STEP_NUM_TASKS": "4"},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'},
        {"TF_CONFIG": CHIEF.replace('"type": "worker"', '"type": "evaluator"')},
    ],
)
def test_unintelligible_variables_are_refused(variables, started):
    assert " cannot be understood " in (line := started(variables).err) and "expected TF_CONFIG=" in line


@pytest.mark.parametrize("variables", [{"TF_CONFIG": CHIEF}, {"SLURM_STEP_NUM_TASKS": "2"}])
@pytest.mark.parametrize("words", ["--test", "--model cae", "--train --folds 2 --choose", "--train --folds 2 --jobs 2"])
def test_single_process_jobs_are_refused_to_several(words, variables, started, tmp_path):
    outcome = started(variables, words)
    assert outcome.out == "" and "is for one process" in outcome.err and "--ntasks=1" in outcome.err
    assert not list(tmp_path.iterdir())
