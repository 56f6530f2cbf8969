"""Several workers, or several devices of one, train as one does: the same losses; one that is killed ends the others,
and the same commands go on as if nothing had been."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import without_drawing
from helpers import TINY_CNN, TINY_NN, Outcome, assert_bit_equal, commands_of, start_worker

from data.base.effort import EFFORT
from data.base.errors import InputError
from utils.machines import workers as module
from utils.machines.workers import places

ODD = ("--set", "batch_size=7")  # so that two share it unevenly
INTERVAL = 3
TRAININGS = {
    "nn": ("--model", "nn", *TINY_NN, *ODD, "--numIters", "6"),
    "cnn": ("--model", "cnn", "--preset", "regions", *TINY_NN, *ODD, "--numIters", "3"),
    "batch norm": ("--model", "cnn", *TINY_CNN, *ODD, "--numIters", "2"),
    "rho": ("--model", "ae", *ODD, "--numIters", "3"),
}


def training(folder: Path, cohort: Path, name: str) -> list[str]:
    """The command line of one of TRAININGS, with everything in `folder`."""
    places = {"--dataDir": cohort, "--chkPointDir": folder / "ckpt" / name, "--outDir": folder / name}
    return ["--train", *TRAININGS[name], *(str(word) for pair in places.items() for word in pair)]


def start_pair(commands: Sequence[Path], *options: Sequence[str]) -> list[subprocess.Popen]:
    """Two workers on this machine, each with its command lines, and its options if there are some."""
    with socket.socket() as one, socket.socket() as other:
        for place in (one, other):
            place.bind(("localhost", 0))
        cluster = {"worker": [f"localhost:{place.getsockname()[1]}" for place in (one, other)]}
    described = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in (0, 1)]
    environments = [{"TF_CONFIG": text} for text in described]
    each = zip(commands, options or ((), ()), environments, strict=True)
    return [start_worker(of_worker, *own, environment=of) for of_worker, own, of in each]


def ended(*processes: subprocess.Popen) -> list[Outcome]:
    """What they left, in time or not."""
    deadline = threading.Timer(400, lambda: [process.kill() for process in processes])
    deadline.start()
    told = [process.communicate() for process in processes]
    deadline.cancel()
    return [Outcome(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


@pytest.fixture(scope="module")
def one(cli, cohort, tmp_path_factory) -> Path:
    """What one process leaves of all trainings."""
    folder = tmp_path_factory.mktemp("one")
    with without_drawing() as patch:
        patch.setattr(EFFORT, "save_every", INTERVAL)
        for name in TRAININGS:
            outcome = cli(*training(folder, cohort, name))
            assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def pair(cohort, tmp_path_factory) -> tuple[Path, Outcome, float]:
    """What two workers leave, who last are at a training in which one of them is killed after its first checkpoint;
    what the other one, the chief, said; and how soon it ended."""
    folder = tmp_path_factory.mktemp("workers")
    commands = [
        *(training(folder, cohort, name) for name in ("nn", "cnn", "batch norm")),
        [*training(folder / "parts", cohort, "nn"), "--numIters", str(INTERVAL)],
        training(folder / "parts", cohort, "nn"),
        training(folder / "killed", cohort, "nn"),
    ]
    interval = ("--interval", str(INTERVAL))
    both = start_pair([commands_of(folder, *commands)] * 2, interval, (*interval, "--after", str(INTERVAL + 1)))
    (killed,) = ended(both[1])
    assert killed.status == -signal.SIGKILL, killed
    begun = time.monotonic()
    (chief,) = ended(both[0])
    return folder, chief, time.monotonic() - begun


@pytest.fixture(scope="module")
def several(cohort, pair, tmp_path_factory) -> dict[str, Path]:
    """What two workers leave, and of the trainings two devices."""
    folder = tmp_path_factory.mktemp("devices")
    commands = commands_of(folder, *(training(folder, cohort, name) for name in TRAININGS))
    (alone,) = ended(start_worker(commands, "--devices", "2"))
    assert (alone.status, alone.err) == (0, "")
    return {"workers": pair[0], "devices": folder}


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    "how, name, tolerance",
    [
        ("workers", "nn", 1e-6),
        ("workers", "cnn", 1e-6),
        ("workers", "batch norm", 1e-4),
        ("devices", "nn", 1e-6),
        ("devices", "cnn", 1e-6),
        ("devices", "batch norm", 1e-4),
        ("devices", "rho", 1e-6),
    ],
)
def test_several_train_to_the_losses_of_one(how, name, tolerance, one, several):
    losses, expected = (pd.read_csv(folder / name / "history.csv")["loss"] for folder in (several[how], one))
    assert len(expected) == int(TRAININGS[name][-1])
    np.testing.assert_allclose(losses, expected, rtol=tolerance)
    described = json.loads((several[how] / name / "run.json").read_text())
    assert (described["workers"], described["replicas"]) == (1 + (how == "workers"), 2)


@pytest.mark.slow
@pytest.mark.bits
def test_a_killed_worker_ends_the_others_and_the_same_commands_go_on(pair, one, cli, cohort, monkeypatch):
    """Those of two workers to the bytes of one go; of one process, too, for whom the chief has left a checkpoint."""
    folder, chief, seconds = pair
    assert seconds < 60
    assert (chief.status, chief.err.count("\n")) == (2, 1)
    assert "Another worker has ended, or cannot be reached" in chief.err
    assert f"Continuing {folder / 'parts/ckpt/nn/nn'} at iteration {INTERVAL}." in chief.out
    assert_bit_equal(folder / "parts/ckpt/nn/nn", folder / "ckpt/nn/nn")
    monkeypatch.setattr(EFFORT, "save_every", INTERVAL)
    outcome = cli(*training(folder / "killed", cohort, "nn"))
    assert f"at iteration {INTERVAL}." in outcome.out, outcome.err
    expected, *rows = (pd.read_csv(of / "nn/history.csv") for of in (one, folder / "parts", folder / "killed"))
    for name, own in zip(("parts", "killed"), rows, strict=True):
        assert own["step"].tolist() == expected["step"].tolist(), name
        np.testing.assert_allclose(own["loss"], expected["loss"], rtol=1e-6, err_msg=name)


def test_dropout_draws_otherwise_on_each_replica(monkeypatch):
    import tensorflow as tf

    from models import layers

    def dropped(replica: int) -> np.ndarray:
        layer = layers.Dropout(0.5, seed=3)
        context = SimpleNamespace(replica_id_in_sync_group=replica)
        with monkeypatch.context() as patch:
            patch.setattr(tf.distribute, "get_replica_context", lambda: context)
            return np.asarray(layer(np.ones((4, 50), np.float32), training=True))

    assert np.array_equal(dropped(0), dropped(0))
    assert not np.array_equal(dropped(0), dropped(1))


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


@pytest.fixture
def placed(monkeypatch):
    """`placed({...})` gives the addresses of workers, and which is this one, by these variables alone."""

    def of(variables: dict[str, str]) -> tuple[list[str], int]:
        for name in ("TF_CONFIG", *SLURM):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return places()

    return of


def test_the_tasks_of_a_job_step_are_workers(placed):
    addresses, index = placed(SLURM)
    assert (addresses, index) == (["gpu07:25248", "gpu07:25249", "gpu08:25248"], 2)
    for other in ({"SLURM_STEP_ID": "1"}, {"SLURM_JOB_ID": "42"}):
        assert not set(addresses) & {*placed(SLURM | other)[0]}


@pytest.mark.parametrize("nodes, here", [("gpu[9-10]", "gpu10"), ("gpu[9-10]", "gpu9"), ("b,a", "b")])
def test_a_task_knows_itself_whatever_the_order_of_the_nodes(nodes, here, placed):
    addresses, index = placed(SLURM | {"SLURM_STEP_NODELIST": nodes, "SLURMD_NODENAME": here, "SLURM_LOCALID": "0"})
    assert addresses[index] == f"{here}:25248"


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_STEP_TASKS_PER_NODE": "many"},
        {"SLURM_STEP_NODELIST": "gpu07"},
        {"SLURMD_NODENAME": "gpu09"},
        {"SLURM_STEP_NUM_TASKS": "4"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_slurm_says_must_fit(change, placed):
    with pytest.raises(InputError, match=r"Slurm.* cannot be understood .* expected"):
        placed(SLURM | change)


def test_a_cluster_with_a_chief(placed):
    text = '{"cluster": {"worker": ["b:1", "c:1"], "chief": ["a:1"]}, "task": {"type": "worker", "index": "1"}}'
    assert placed({"TF_CONFIG": text}) == (["a:1", "b:1", "c:1"], 2)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": "first"}}',
        '{"cluster": {"worker": ["a:1"], "chief": ["b:1"]}, "task": {"type": "evaluator", "index": 0}}',
    ],
)
def test_a_cluster_that_cannot_be_understood(text, placed):
    with pytest.raises(InputError, match=r"TF_CONFIG.* cannot be understood .* expected"):
        placed({"TF_CONFIG": text})


@pytest.mark.parametrize(
    "words, told",
    [
        ("--test", "--test is for one process"),
        ("--test --folds 2 --permutations 19", "--test is for one process"),
        ("--blackout", "--blackout is for one process"),
        ("--model cae", "the full pass is for one process"),
        ("--train --folds 2 --choose", "--choose is for one process"),
        ("--train --folds 2 --jobs 2", "--jobs 2 is for one process"),
    ],
)
@pytest.mark.parametrize(
    "variables",
    [{"SLURM_STEP_NUM_TASKS": "2"}, {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'}],
    ids=lambda variables: next(iter(variables)),
)
def test_what_one_process_does_is_refused_to_several(words, told, variables, cli, cohort, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    outcome = cli(*words.split(), "--dataDir", cohort, "--chkPointDir", tmp_path / "ckpt", "--outDir", tmp_path / "out")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert told in outcome.err and "--ntasks=1" in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_workers_that_were_started_for_different_things_are_refused(cohort, tmp_path):
    commands = [
        commands_of(tmp_path / str(seed), [*training(tmp_path, cohort, "nn"), "--seed", str(seed)]) for seed in (0, 1)
    ]
    for outcome in ended(*start_pair(commands)):
        assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
        assert "different settings" in outcome.err
    assert not (tmp_path / "nn").exists()


@pytest.mark.slow
def test_workers_that_do_not_come_are_named(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    with socket.socket() as there, socket.socket() as own:
        there.bind(("localhost", 0))
        there.listen()
        own.bind(("localhost", 0))
        addresses = [f"localhost:{place.getsockname()[1]}" for place in (own, there)]
    with socket.create_server(("localhost", int(addresses[1].partition(":")[2]))):
        with pytest.raises(InputError, match=r"^localhost:1 did not come within 0.1 s; start all workers again.$"):
            module.wait_for_all([addresses[0], "localhost:1", addresses[1]], 0)
        module.wait_for_all(addresses, 0)
        with pytest.raises(InputError, match=r"cannot listen at localhost:\d+ .*Address already in use"):
            module.wait_for_all(addresses[::-1], 0)
    for odd in ("a", "a:b"):
        with pytest.raises(InputError, match=f"cannot listen at {odd} "):
            module.wait_for_all([odd, "localhost:1"], 0)
