"""run.py: mistakes are told before TensorFlow is imported; it is found from any folder; a job is a module and a row."""

import json
import subprocess
import sys
from pathlib import Path

import lab
import numpy as np
import pytest
from commands import ROOT, run

WATCH = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout

sys.modules["tensorflow"] = sys.modules["keras"] = None  # importing them fails from here on
import run

told = []
for arguments in json.load(sys.stdin):
    sys.argv = ["run.py", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = run.main()
        except SystemExit as exit_:
            status = exit_.code
        except BaseException as error:
            status = repr(error)
    heavy = [module for module in ("pandas", "scipy", "sklearn", "rich", "pydantic", "joblib") if module in sys.modules]
    told.append([status, out.getvalue(), err.getvalue(), heavy])
json.dump(told, sys.stdout)
"""


def without_tensorflow(*commands: str) -> list[list]:
    """Does commands one after another in one new process: the status of each, what it printed, what was imported."""
    words = json.dumps([command.split() for command in commands])
    ended = subprocess.run([sys.executable, "-c", WATCH], input=words, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.slow
def test_mistakes_are_reported_before_tensorflow_is_imported(
    cohort, trained, full_cohort, on_folds, converted, tmp_path
):
    """One of each kind; see RUNS in test_refusals.py."""
    data = f"--dataDir {cohort} --chkPointDir"
    commands = [
        "--train --outDri x",
        f"--blackout --model cnn {data} {trained} --atlas {tmp_path}/missing",
        f"--blackout --model cnn {data} {trained} --atlas {cohort}/1.bin",
        f"--blackout --model cnn {data} {trained} --systems {cohort}/cohort.json",
        f"--train --dataDir {tmp_path}/missing",
        f"--train --model cnn --dataDir {full_cohort} --chkPointDir {tmp_path}/new",
        f"--train --model nn {data} {tmp_path}/new --set phenotype_units=1000000000",
        f"--train --model cnn {data} {tmp_path}/new --preset residual --set global_average=false --set strides=1,1,1",
        f"--test --model nn {data} {tmp_path}/new",
        f"--train --model cnn --numIters 9 {data} {trained} --seed 5",
        f"--test --model cnn {data} {trained} --outDir {trained}/../out",
        f"--test --folds 4 --dataDir {converted} --chkPointDir {on_folds}/ckpt",
    ]
    (status, out, _, heavy), *answers = without_tensorflow("--help", *commands)
    assert (status, heavy) == (0, [])
    flags = "train test blackout model numIters chkPointDir overrideChkpt dataDir outDir preset set seed precision"
    assert all(f"--{flag}" in out for flag in [*flags.split(), "shareGPU"])
    for command, (status, _, err, _) in zip(commands, answers, strict=True):
        assert (status, err.count("\n"), err[:15]) == (2, 1, "run.py: error: "), f"{command}: {status} {err}"
    assert not list(tmp_path.iterdir())


def test_a_non_finite_value_is_traced_to_a_record_and_ends_the_run(tmp_path):
    """It is found as it is read: bare records have no digests by which it could be told before."""
    path = lab.records(tmp_path / "records") / "4.bin"
    values = np.frombuffer(path.read_bytes(), "<f4").copy()
    values[5] = np.nan
    path.write_bytes(values.tobytes())
    (tmp_path / "elsewhere").mkdir()
    command = "run.py --train --model nn --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/out"
    outcome = run(command, of=path.parent, to=tmp_path / "elsewhere")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"{path} holds nan as phenotype value 4; expected finite numbers" in outcome.err


@pytest.mark.slow
def test_the_commands_work_from_a_folder_with_a_data_folder(tmp_path):
    (tmp_path / "data").mkdir()
    for command in (["-m", "data"], ["-m", "utils"]):
        ended = subprocess.run([sys.executable, *command, "--help"], cwd=tmp_path, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (0, "")
    installed = subprocess.run([Path(sys.executable).with_name("run.py"), "--model", "nn"], capture_output=True)
    assert installed.returncode == 2
    assert installed.stderr.startswith(b"run.py: error: A full pass reduces a cohort")
