"""The installed commands, and run.py, in a folder of a lab that has modules of the same names as this program's."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import lab as labs
import pytest
from commands import ROOT

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
DECOYS = ("data/__init__", "utils", "models", "run", "numpy", "pandas", "keras", "tensorflow", "random", "signal")
TRAIN = ["--train", "--model", "nn", "--folds", "2", "--jobs", "2", "--chkPointDir", "ckpt", "--dataDir"]
SCRIPT = "import sys\nfrom {} import {}\nif __name__ == '__main__':\n    sys.exit({}())\n"  # as pip writes it


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

    def run(name: str, *arguments: object, python_path: str = "") -> subprocess.CompletedProcess:
        (tmp_path / "bin").mkdir(exist_ok=True)
        module, function = SCRIPTS[name].split(":")
        script = tmp_path / "bin" / name
        script.write_text(f"import sys\nsys.path.append({str(ROOT)!r})\n{SCRIPT.format(module, function, function)}")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        environment |= {"PYTHONPATH": python_path} if python_path else {}
        command = [sys.executable, script, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_working_folder_hides_no_module_of_a_command(name, lab, installed):
    """Nor does an empty entry of PYTHONPATH, which stands for it, or the path of that folder."""
    for python_path in ("", f":{lab.parent}", str(lab)):
        done = installed(name, "--help", python_path=python_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: {name} ")
    done = installed(name, "--no-such-option", python_path=":")
    assert done.returncode == 2 and re.fullmatch(r"[\w. -]+: error: .*\n", done.stderr)


@pytest.mark.slow
def test_processes_that_a_command_starts_import_nothing_of_the_working_folder(lab, installed, cohort, tmp_path):
    """They do the folds of a training, and the people of a derivation."""
    done = installed("run.py", *TRAIN, cohort, "--numIters", 1, "--set", "members=1", python_path=":")
    assert done.returncode == 0, done.stderr
    assert (lab / "results/nn-train-folds-2/run.json").is_file()
    labs.bold(tmp_path / "fmriprep", labs.people(3))
    done = installed("abide-data", "derive", tmp_path / "fmriprep", "maps", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    assert "3 derived" in done.stdout


@pytest.mark.slow
def test_run_py_by_its_path_imports_nothing_of_the_working_folder_either(lab, cohort):
    command = [sys.executable, ROOT / "run.py", *TRAIN, cohort, "--dryRun"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
