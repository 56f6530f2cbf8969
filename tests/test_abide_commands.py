"""The installed commands, and run.py, in a folder of a lab that has modules of the same names as this program's."""

import os
import re
import signal
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import lab as labs
import pytest
from commands import ROOT

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
DECOYS = ("data/__init__", "utils", "models", "run", "numpy", "pandas", "keras", "tensorflow", "random", "signal")
TRAIN_FOLDS = ["--train", "--model", "nn", "--folds", "2", "--jobs", "2", "--chkPointDir", "ckpt", "--dataDir"]
PRESS_SCRIPT = """
import atexit, os, signal, time

def press(wait_s=10):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(wait_s)

class Thing:
    def __del__(self):
        press()

"""
MOMENTS = {  # when Ctrl-C comes: the module of others that presses it, how, and the exit status
    "while modules are imported": ("numpy", "press()", 130),
    "while a library makes another error of it": (
        "pandas",
        "try:\n    press()\nexcept KeyboardInterrupt:\n    raise ImportError('a bad installation') from None",
        130,
    ),
    "in a destructor": ("pandas", "Thing()\ntime.sleep(10)", 130),
    "at the end": ("sitecustomize", "atexit.register(press, 0)", -signal.SIGINT),
}
SCRIPT_TEMPLATE = "import sys\nfrom {} import {}\nif __name__ == '__main__':\n    sys.exit({}())\n"  # as pip writes it


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Path:
    """The working folder: each of its modules ends the process that imports it."""
    folder = tmp_path / "lab"
    for name in DECOYS:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"raise SystemExit('{name} of the lab was imported')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def installed(tmp_path):
    """`installed("abide-data", "check", ...)` runs a command as its script in the `bin` of an environment does, where
    this program is found after all else."""

    def run(
        name: str, *arguments: object, python_path: str = "", out: int | TextIO = subprocess.PIPE
    ) -> subprocess.CompletedProcess:
        (tmp_path / "bin").mkdir(exist_ok=True)
        module, function = SCRIPTS[name].split(":")
        script = tmp_path / "bin" / name
        script.write_text(
            f"import sys\nsys.path.append({str(ROOT)!r})\n{SCRIPT_TEMPLATE.format(module, function, function)}"
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"PYTHONPATH": python_path} if python_path else {}
        command = [sys.executable, script, *map(str, arguments)]
        restore_interrupt = partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        )  # a job in the background inherits it ignored
        subprocess_options: dict[str, Any] = {
            "stdout": out,
            "stderr": subprocess.PIPE,
            "text": True,
            "timeout": 300,
            "preexec_fn": restore_interrupt,
        }
        return subprocess.run(command, env=environment, **subprocess_options)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_a_command_in_a_line_whenever_it_comes(moment, tmp_path, installed):
    name, press_code, status = MOMENTS[moment]
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / f"{name}.py").write_text(PRESS_SCRIPT + press_code)
    arguments = ("--version",) if name == "sitecustomize" else ("check", tmp_path / "missing")
    completed = installed("abide-data", *arguments, python_path=str(tmp_path / "others"))
    expected = "abide-data: interrupted; repeat the command.\n" if status > 0 else ""
    assert (completed.returncode, completed.stderr) == (status, expected)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_full_disk_under_the_output_is_an_error(name, option, tmp_path, installed):
    with open("/dev/full", "w") as full_device:
        completed = installed(name, option, out=full_device)
    assert completed.returncode == 2 and re.fullmatch(rf"{name}: error: .*No space left.*\n", completed.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_working_folder_hides_no_command_module(name, lab, installed):
    """Nor does an empty entry of PYTHONPATH, which stands for it, or the path of that folder."""
    for python_path in ("", f":{lab.parent}", str(lab)):
        done = installed(name, "--help", python_path=python_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {name} ")
    done = installed(name, "--no-such-option", python_path=":")
    assert done.returncode == 2 and re.fullmatch(r"[\w. -]+: error: .*\n", done.stderr)


@pytest.mark.slow
def test_started_processes_import_nothing_from_the_working_folder(lab, installed, cohort, tmp_path):
    """They do the folds of a training, and the people of a derivation."""
    done = installed("run.py", *TRAIN_FOLDS, cohort, "--numIters", 1, "--set", "members=1", python_path=":")
    assert done.returncode == 0, done.stderr
    assert (lab / "results/nn-train-folds-2/run.json").is_file()
    labs.bold(tmp_path / "fmriprep", labs.people(3))
    done = installed("abide-data", "derive", tmp_path / "fmriprep", "maps", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    assert "3 derived" in done.stdout


@pytest.mark.slow
def test_run_py_by_path_imports_nothing_from_the_working_folder(lab, cohort):
    command = [sys.executable, ROOT / "run.py", *TRAIN_FOLDS, cohort, "--dryRun"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
