"""Processes beside this one end with it, and are missed; what configures TensorFlow is there before it is imported."""

import glob
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import lab
import pytest
from commands import ROOT, done, read_manifest, split_command
from helpers import assert_bit_equal

from data.base.processes import prepare_tensorflow


def wait_for(until: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Processes that this one started, but for the one that watches over shared memory."""
    child_pids = [
        int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()
    ]  # of all its threads
    return [
        child_pid
        for child_pid in child_pids
        if b"resource_tracker" not in Path(f"/proc/{child_pid}/cmdline").read_bytes()
    ]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


STOPS = {  # whom a signal reaches, which, exit status, what is told
    "Ctrl-C": ("all", signal.SIGINT, 130, ""),
    "a scheduler": ("first", signal.SIGTERM, 143, ""),
    "a kill": ("first", signal.SIGKILL, -signal.SIGKILL, ""),
    "a full memory": ("child", signal.SIGKILL, 2, "was killed, perhaps because the memory is full"),
}


def stop_command(how: str, command: list, until: Callable[[], object], **environment: str) -> tuple[int, str]:
    """A command that is stopped as soon as something holds, and whose other processes end with it: its exit status, and
    what it told."""
    signal_target, signal_number, *_ = STOPS[how]
    running = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a job in the background ignores
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: until() or running.poll() is not None)
    child_pids = children(running.pid)
    for process in (running.pid, *child_pids):  # so that none ends before
        os.kill(process, signal.SIGSTOP)
    assert child_pids
    for process in {"all": (running.pid, *child_pids), "first": (running.pid,), "child": child_pids}[signal_target]:
        os.kill(process, signal_number)
    for process in (running.pid, *child_pids):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
    printed_error = running.communicate(timeout=60)[1]
    wait_for(lambda: not any(map(alive, child_pids)))
    assert printed_error.count("\n") <= 1 and "Traceback" not in printed_error
    return running.returncode, printed_error


@pytest.mark.slow
@pytest.mark.parametrize("how", STOPS)
def test_a_stopped_conversion_ends_with_all_processes_and_is_completed(how, tmp_path):
    *_, number, status, words = STOPS[how]
    lab.pcp(tmp_path / "lab", lab.people(24))
    command = ["-m", "data", "convert", tmp_path / "lab", tmp_path / "out"]
    ended, printed_error = stop_command(how, command, lambda: list(tmp_path.glob(".unfinished.out/*/*")))
    assert ended in (status, -number) and words in printed_error and not (tmp_path / "out").exists()
    if how == "a kill":
        for name in ("out", "whole"):
            done("abide-data convert {of}/lab {of}/{name}", of=tmp_path, name=name)
        records = sorted((tmp_path / "whole").glob("*.bin"))
        assert len(records) == 24
        assert all((tmp_path / "out" / path.name).read_bytes() == path.read_bytes() for path in records)


@pytest.mark.slow
@pytest.mark.bits
def test_parallel_folds_after_a_stop_go_on_and_equal_serial_folds(converted, tmp_path, effort, monkeypatch):
    """By a signal to the first process alone, or by a kill of the others; the third fold is not begun then. Three
    folds, two at a time, take as long as two; that is said before the first one ends."""
    train = "run.py --train --model nn --folds 3 --numIters 60 --set members=1 --set batch_size=8 --dataDir {of} "
    train += "--chkPointDir {to}/ckpt --outDir {to}/train"
    side_by_side = split_command(f"{train} --jobs 2", of=converted, to=tmp_path / "two")
    effort(save_every=5)
    saves = json.dumps(json.loads(os.environ["ABIDE_EFFORT"]) | {"save_every": 5})
    folder = tmp_path / "two/ckpt/nn/folds-3"
    for how, first, status, words in (
        ("a scheduler", "ckpt-5", 143, ""),
        ("a full memory", "ckpt-25", 137, "is the memory too small for 2 jobs?"),
    ):
        until = partial(glob.glob, f"{folder}/?/{first}.index")
        ended, printed_error = stop_command(how, side_by_side, until, ABIDE_EFFORT=saves)
        assert ended == status and words in printed_error
        assert not (folder / "2/checkpoint").exists() and not (tmp_path / "two/runs.csv").exists()
    forecast_effort = json.loads(os.environ["ABIDE_EFFORT"]) | {"measured_s": 0, "told_from_s": 0}
    monkeypatch.setenv("ABIDE_EFFORT", json.dumps(forecast_effort))
    printed_text = done(f"{train} --jobs 2", of=converted, to=tmp_path / "two")
    (forecast,) = re.findall("^time .*", printed_text, re.MULTILINE)
    assert "for 2 trainings of nn sine" in forecast
    assert printed_text.index(forecast) < printed_text.index("Folds 1/3")
    done(train, of=converted, to=tmp_path / "one")
    for fold in "012":
        assert_bit_equal(folder / fold, tmp_path / "one/ckpt/nn/folds-3" / fold)
    assert read_manifest(tmp_path / "two/train")["finished"]


@pytest.mark.slow
def test_a_signal_after_a_failure_reaches_the_fold_that_still_runs(converted, tmp_path):
    """One fold is killed, and the other goes on for long; then the first process is asked to stop."""
    words = split_command(
        "run.py --train --model nn --folds 2 --jobs 2 --numIters 1000000 --set members=1 --set batch_size=8 "
        "--dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/train",
        of=converted,
        to=tmp_path,
    )
    saves = json.dumps(json.loads(os.environ["ABIDE_EFFORT"]) | {"save_every": 5})
    out_path, err_path = tmp_path / "out.txt", tmp_path / "err.txt"
    with open(out_path, "w") as out_file, open(err_path, "w") as err_file:
        running = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=os.environ | {"ABIDE_EFFORT": saves},
            stdout=out_file,
            stderr=err_file,
        )
    folds = tmp_path / "ckpt/nn/folds-2"
    wait_for(lambda: len([*folds.glob("?/checkpoint")]) == 2 or running.poll() is not None)
    killed, surviving = children(running.pid)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: err_path.read_text().endswith("\n"))
    assert alive(surviving) and running.poll() is None
    running.terminate()
    assert running.wait(timeout=120) == 137
    assert not alive(surviving)
    assert "is the memory too small for 2 jobs?" in err_path.read_text()
    printed_text = out_path.read_text()
    assert "Stopped at iteration" in printed_text and "the same command goes on" in printed_text


# TensorFlow

CONFIGURED = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "1", "KERAS_BACKEND": "tensorflow"}


def first_imports(lines: list[str]) -> dict[str, dict]:
    """What `first_import.py` tells of lines of modules, in an environment that says nothing of TensorFlow."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_", "SLURM_"))}
    command = [sys.executable, str(ROOT / "tests" / "first_import.py")]
    completed = subprocess.run(command, env=plain, input="\n".join(lines), capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


def find_tensorflow_importers(top: str) -> list[Path]:
    """Files of Python that import TensorFlow, or what brings it, somewhere."""
    paths = [path.relative_to(ROOT) for path in sorted((ROOT / top).rglob("*.py"))]
    words = re.compile("(import|from) (tensorflow|keras|tensorboard)")
    return [path for path in paths if words.search((ROOT / path).read_text())]


@pytest.mark.slow
def test_no_project_import_bypasses_the_tensorflow_setup():
    """Tests are imported after `conftest`. Modules of `data` never ask for TensorFlow, not even all together."""
    data_modules = " ".join(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "data").rglob("*.py"))
    )
    modules = [
        ".".join(path.with_suffix("").parts) for top in ("models", "utils") for path in find_tensorflow_importers(top)
    ]
    modules += ["run", "conftest", "utils.jobs", *map(str, find_tensorflow_importers("tests/benchmarks"))]
    report_by_module = first_imports([data_modules, *modules])
    assert report_by_module.pop(data_modules) == {"asked": None, "found": dict.fromkeys(CONFIGURED)}
    assert {name: report["found"] for name, report in report_by_module.items()} == dict.fromkeys(modules, CONFIGURED)
    assert any(report["asked"] for report in report_by_module.values())


@pytest.mark.parametrize(
    "variables, level",
    [
        ({}, "2"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "2"),  # a batch script, before any srun
        ({"SLURM_STEP_NUM_TASKS": "1"}, "2"),
        ({"SLURM_STEP_NUM_TASKS": "2"}, "3"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "2"),
        ({"TF_CONFIG": '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}'}, "3"),
        ({"TF_CONFIG": "{"}, "3"),  # told where the cluster is needed
    ],
)
def test_a_process_among_several_leaves_reports_on_lost_workers_to_the_chief(variables, level, monkeypatch):
    for name in ("TF_CPP_MIN_LOG_LEVEL", "SLURM_STEP_NUM_TASKS", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    prepare_tensorflow()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
