"""Several workers, or several devices of one, do what one does: the same losses, the same bytes; one that is killed
ends the others, and the same commands go on as if nothing had been."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import without_drawing
from helpers import TINY_CNN, TINY_NN, Outcome, assert_bit_equal, commands_of, start_worker

from data.base.errors import InputError
from data.cohorts.records import REDUCED
from utils.blackout import measure
from utils.machines import workers as module
from utils.machines.devices import Workers
from utils.machines.workers import find_workers, node_names, packed, tasks_by_node, team, unpacked

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


def start_pair(commands: Path, *options: Sequence[str]) -> list[subprocess.Popen]:
    """Two workers on this machine, each with its options."""
    with socket.socket() as one, socket.socket() as other:
        for place in (one, other):
            place.bind(("localhost", 0))
        cluster = {"worker": [f"localhost:{place.getsockname()[1]}" for place in (one, other)]}
    described = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in (0, 1)]
    environments = [{"TF_CONFIG": text} for text in described]
    return [start_worker(commands, *own, environment=of) for own, of in zip(options, environments, strict=True)]


def ended(*processes: subprocess.Popen) -> list[Outcome]:
    """What they left, in time or not."""
    deadline = threading.Timer(400, lambda: [process.kill() for process in processes])
    deadline.start()
    told = [process.communicate() for process in processes]
    deadline.cancel()
    return [Outcome(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def reductions(folder: Path, cohort: Path, full_cohort: Path, trained: Path, encoder: Path) -> list[list]:
    """A blackout of three regions and a full pass into `folder`."""
    labels = np.arange(REDUCED.shape[0], dtype=np.int16)[:, None, None] // 8 * np.ones(REDUCED.shape, np.int16)
    nibabel.save(nibabel.Nifti1Image(labels, np.array(REDUCED.affine)), folder / "atlas.nii")
    black = ("--dataDir", cohort, "--chkPointDir", trained, "--outDir", folder / "black")
    return [
        ["--blackout", "--model", "cnn", "--donors", 2, *black, "--atlas", folder / "atlas.nii"],
        ["--model", "cae", "--dataDir", full_cohort, "--chkPointDir", encoder, "--outDir", folder / "reduced"],
    ]


@pytest.fixture(scope="module")
def encoder(cli, full_cohort, tmp_path_factory) -> Path:
    """The --chkPointDir of a cae that has seen one batch; its batches of two make three shares of six people."""
    folder = tmp_path_factory.mktemp("encoder")
    places = ("--dataDir", full_cohort, "--chkPointDir", folder / "ckpt", "--outDir", folder / "out")
    one_layer = ("--preset", "stride3", "--set", "filters=1", "--set", "strides=3", "--set", "batch_size=2")
    outcome = cli("--train", "--model", "cae", "--numIters", 1, *one_layer, *places)
    assert outcome.status == 0, outcome.err
    return folder / "ckpt"


@pytest.fixture(scope="module")
def one(cli, cohort, full_cohort, trained, encoder, tmp_path_factory) -> Path:
    """What one process leaves of everything."""
    folder = tmp_path_factory.mktemp("one")
    with without_drawing() as patch:
        patch.setattr(measure, "TOGETHER", 2)
        patch.setattr("utils.training.loop.SAVE_EVERY", INTERVAL)
        of_all = [training(folder, cohort, name) for name in TRAININGS]
        for command in (*of_all, *reductions(folder, cohort, full_cohort, trained, encoder)):
            outcome = cli(*command)
            assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture(scope="module")
def pair(cohort, full_cohort, trained, encoder, tmp_path_factory) -> tuple[Path, Outcome, float]:
    """What two workers leave, who last are at a training in which one of them is killed after its first checkpoint;
    what the other one, the chief, said; and how soon it ended."""
    folder = tmp_path_factory.mktemp("workers")
    commands = [
        *(training(folder, cohort, name) for name in ("nn", "cnn")),
        *reductions(folder, cohort, full_cohort, trained, encoder),
        [*training(folder / "parts", cohort, "nn"), "--numIters", str(INTERVAL)],
        training(folder / "parts", cohort, "nn"),
        training(folder / "killed", cohort, "nn"),
    ]
    interval = ("--interval", str(INTERVAL))
    both = start_pair(commands_of(folder, *commands), interval, (*interval, "--after", str(INTERVAL + 1)))
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
@pytest.mark.parametrize("results", ["black", "reduced"])
def test_two_workers_write_the_bytes_of_one(results, one, several):
    files = [path for path in (one / results).rglob("*") if path.is_file()]
    of_a_run = {"run.json", "cohort.json", "seal.json", "SHA256SUMS", "blackout.html"}  # times, commands, random ids
    compared = [path.relative_to(one) for path in files if path.name not in of_a_run]
    assert len(compared) >= 7
    for name in compared:
        assert (several["workers"] / name).read_bytes() == (one / name).read_bytes(), name


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
    monkeypatch.setattr("utils.training.loop.SAVE_EVERY", INTERVAL)
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
    "SLURMD_NODENAME": "gpu08",
}


def test_alone_unless_told():
    assert find_workers({}) == find_workers({"TF_CONFIG": "{}"}) == Workers()
    assert find_workers({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) == Workers()  # a batch script, before any srun
    assert find_workers(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) == Workers()


def test_the_tasks_of_a_job_step_are_workers():
    found = find_workers(SLURM)
    assert found == team(("gpu07:25248", "gpu07:25249", "gpu08:25248"), 2)
    assert not set(found.addresses) & {*find_workers(SLURM | {"SLURM_STEP_ID": "1"}).addresses}
    assert not set(found.addresses) & {*find_workers(SLURM | {"SLURM_JOB_ID": "42"}).addresses}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "many"}, "Slurm's variables cannot be understood"),
        ({"SLURM_STEP_NODELIST": "gpu07"}, "Slurm's variables cannot be understood"),
        ({"SLURMD_NODENAME": "gpu07"}, "runs task 2 of 3 on gpu07, where gpu08 was expected; use srun --distribution"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "--distribution=block"),
    ],
)
def test_what_slurm_says_must_fit(change, words):
    with pytest.raises(InputError, match=words):
        find_workers(SLURM | change)


@pytest.mark.parametrize("nodes", ["a", "a1,b-2", "n[1-3]", "n[08-11,20],m[3]", "rack[1-2]node[07-08]", "a[1,3]-ib,b"])
def test_node_lists_are_expanded_as_slurm_does(nodes):
    from tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver import expand_hostlist

    expected = (
        [f"{name}" for name in expand_hostlist(nodes)]
        if "]node" not in nodes and "]-" not in nodes
        else {
            "rack[1-2]node[07-08]": ["rack1node07", "rack1node08", "rack2node07", "rack2node08"],
            "a[1,3]-ib,b": ["a1-ib", "a3-ib", "b"],
        }[nodes]
    )  # TensorFlow's expands one bracket, at the end
    assert node_names(nodes) == expected


@pytest.mark.parametrize("text", ["1", "2(x3)", "3(x2),2,1(x4)"])
def test_tasks_by_node_are_expanded_as_slurm_does(text):
    from tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver import expand_tasks_per_node

    assert tasks_by_node(text) == expand_tasks_per_node(text)


def test_a_cluster_with_a_chief():
    text = '{"cluster": {"worker": ["b:1", "c:1"], "chief": ["a:1"]}, "task": {"type": "worker", "index": "1"}}'
    assert find_workers({"TF_CONFIG": text}) == team(("a:1", "b:1", "c:1"), 2)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "b:99999"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "chief": ["b:1"]}, "task": {"type": "evaluator", "index": 0}}',
    ],
)
def test_a_cluster_that_cannot_be_understood(text):
    with pytest.raises(InputError, match=r"TF_CONFIG .* expected"):
        find_workers({"TF_CONFIG": text})


def test_what_workers_tell_each_other_holds_arrays_only():
    arrays = {"a": np.array([-0.0, np.nan, 1e-40], np.float32), "b": np.array(["donor", "é"])}
    back = unpacked(packed(arrays))
    assert all(
        array.dtype == back[name].dtype and array.tobytes() == back[name].tobytes() for name, array in arrays.items()
    )
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        packed({"a": np.array([print], object)})


@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 5])
def test_results_come_in_the_order_of_the_tasks(tasks, monkeypatch):
    """Each of two workers, as if the other did its share at the same time."""
    done = [{"a": np.array([task])} for task in range(tasks)]
    for index in (0, 1):
        worker = team(("a:1", "b:1"), index)
        others = iter(done[1 - index :: 2])

        def exchange(self, content, index=index, others=others):
            theirs = packed(next(others, {}))
            return [content, theirs] if index == 0 else [theirs, content]

        monkeypatch.setattr(module.Team, "exchange", exchange)
        found = list(worker.in_turn(iter(done[worker.shares]), tasks))
        assert [int(result["a"][0]) for result in found] == list(range(tasks))


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
            module.wait_for_all((addresses[0], "localhost:1", addresses[1]), 0)
        module.wait_for_all(tuple(addresses), 0)
        with pytest.raises(InputError, match=r"Port \d+ of this machine cannot be used \(Address already in use\)"):
            module.wait_for_all((addresses[1], addresses[0]), 0)
