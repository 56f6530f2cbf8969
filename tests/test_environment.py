"""Whoever imports TensorFlow finds it configured, whichever module of ours asks first."""

import json
import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT

from data.base.processes import prepare_tensorflow, several_processes

CONFIGURED = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "1", "KERAS_BACKEND": "tensorflow"}


def first_imports(lines: list[str], **environment: str) -> dict[str, dict]:
    """What `first_import.py` tells of lines of modules, in an environment that says nothing of TensorFlow but this."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_", "SLURM_"))}
    command = [sys.executable, ROOT / "tests" / "first_import.py"]
    done = subprocess.run(command, env=plain | environment, input="\n".join(lines), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def modules_in(top: str) -> list[str]:
    paths = sorted((ROOT / top).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


@pytest.mark.slow
def test_no_import_of_ours_passes_by_what_configures_tensorflow():
    """Tests are imported after `conftest`. Modules of `data` never ask for TensorFlow, not even all together."""
    of_data, modules = modules_in("data"), [*modules_in("models"), *modules_in("utils"), "run", "conftest"]
    benchmarks = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests" / "benchmarks").glob("*.py"))]
    benchmarks = [path for path in benchmarks if re.search(r"from (models|utils)", (ROOT / path).read_text())]
    told = first_imports([" ".join(of_data), *modules, *benchmarks])
    assert told.pop(" ".join(of_data)) == {"asked": None, "found": dict.fromkeys(CONFIGURED)}
    assert {name: of["found"] for name, of in told.items()} == dict.fromkeys([*modules, *benchmarks], CONFIGURED)
    asked = {name for name, of in told.items() if of["asked"]}
    assert asked >= {
        "models.layers",
        "models.losses",
        "utils.training.encode",
        "utils.training.network",
        "utils.training.loop",
    }


@pytest.mark.slow
def test_what_the_user_has_set_stays():
    own = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_ENABLE_ONEDNN_OPTS": "0"}
    assert first_imports(["models.layers"], **own)["models.layers"]["found"] == CONFIGURED | own


@pytest.mark.parametrize(
    "variables, level", [({}, "2"), ({"SLURM_STEP_NUM_TASKS": "2"}, "3"), ({"TF_CONFIG": "{}"}, "3")]
)
def test_one_of_several_processes_leaves_it_to_the_chief_to_report_one_that_is_gone(variables, level, monkeypatch):
    for name in ("TF_CPP_MIN_LOG_LEVEL", "SLURM_STEP_NUM_TASKS", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    prepare_tensorflow()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == level
    assert several_processes() == bool(variables)
