"""--jobs: folds in processes of their own come out as one after another; a signal reaches all that run."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT, SMALL_BATCH, TINY_NN, assert_bit_equal, read_rows, run_of

from data.base.errors import InputError
from utils.runs import side_by_side as module
from utils.runs.side_by_side import environments, side_by_side

SCRIPT = """
import os, pathlib, signal, sys, time
fold = sys.argv[-1].removeprefix("--fold=")
print("said before", flush=True)
number = {"0": 1, "1": 2, "2": 3, "bad": 1, "killed": 2}[fold]
repeat = ", repeat 0" if sys.argv[1] == "4" else ""
folds = 2 if repeat else sys.argv[1]
print(f"Fold {fold} ({number} of {folds}){repeat}:", flush=True)
print("Donors: 5 per record.")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
pathlib.Path(f"begun-{fold}").touch()
if "--wait" in sys.argv:
    time.sleep(60)
if fold == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if fold == "bad":
    sys.exit("run.py: error: it went wrong")
print("Still to be done before the results are pooled: others.")
"""


@pytest.fixture
def folds(tmp_path, monkeypatch):
    """`folds(["0", "bad"], 2, "--wait")` runs SCRIPT for each fold; two at a time."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def run(names, jobs, *more) -> int:
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py"), str(len(names)), *more])
        places = [tmp_path / f"{at}" for at in range(len(names))]
        parts = [replace(run_of(folder=place), fold=name) for place, name in zip(places, names, strict=True)]
        repeats = [f"repeat {at}" for at in range(len(names) // len(set(names)))]
        return side_by_side(parts, repeats if len(repeats) > 1 else (), jobs, share_gpu=False)

    return run


def test_each_fold_prints_a_row_when_it_has_ended(folds, capsys):
    assert folds(["0", "1", "2"], 2) == 0
    out, err = capsys.readouterr()
    first, *rows = [line for line in out.splitlines() if line != "Donors: 5 per record."]
    assert first == "To do: 3 of 3 folds, 2 at a time; each prints a row when it ends."
    assert sorted(row.partition(",")[0] for row in rows) == [
        f"Fold {at} ({at + 1} of 3): 0 subjects trained on" for at in range(3)
    ]
    assert ["left for all" in row for row in rows] == [True, True, False]
    assert out.count("Donors") == 1 and "said before" not in out and not err


def test_a_fold_of_several_repeats_is_one_process(folds, capsys):
    assert folds(["0", "1", "0", "1"], 2) == 0
    told = capsys.readouterr().out
    assert told.startswith("To do: 4 of 4 folds, of each of repeat 0 to repeat 1, 2 at a time;")
    titles = [line.partition(":")[0] for line in told.splitlines() if "Fold " in line]
    assert sorted(titles) == [f"Fold {fold} ({fold + 1} of 2), repeat {repeat}" for fold in (0, 1) for repeat in (0, 1)]


def test_after_a_fold_that_fails_no_other_is_begun(folds, capsys, tmp_path):
    assert folds(["bad", "1", "2"], 1) == 1
    out, err = capsys.readouterr()
    assert err == "run.py: error: it went wrong\n" and "Fold bad (1 of 3): not done, after " in out
    assert [path.name for path in tmp_path.glob("begun-*")] == ["begun-bad"]


def test_a_process_that_is_killed_is_named(folds, capsys):
    assert folds(["0", "killed"], 2) == 128 + signal.SIGKILL
    words = "run.py: error: Fold killed was killed by SIGKILL; is the memory too small for 2 jobs?\n"
    assert capsys.readouterr().err == words


def test_a_signal_stops_all_that_run_and_no_other_is_begun(folds, tmp_path):
    def stop():
        while len(list(tmp_path.glob("begun-*"))) < 2:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop).start()
    assert folds(["0", "1", "2"], 2, "--wait") == 128 + signal.SIGTERM
    assert len(list(tmp_path.glob("begun-*"))) == 2
    assert signal.getsignal(signal.SIGTERM) == before


PARENT = """
import sys
from types import SimpleNamespace
from utils.runs.side_by_side import side_by_side

parts = [SimpleNamespace(fold=name, out_dir=name, override=False, cost=1, is_done=lambda: False) for name in "012"]
sys.argv = ["child.py"]
side_by_side(parts, (), 2, share_gpu=False)
"""
CHILD = """
import pathlib, signal, sys, time
from utils.runs.side_by_side import end_with_parent

fold = sys.argv[-1].removeprefix("--fold=")
signal.signal(signal.SIGTERM, lambda *_: (print("saving"), pathlib.Path(f"saved-{fold}").touch(), sys.exit(143)))
end_with_parent()
pathlib.Path(f"begun-{fold}").touch()
time.sleep(60)
"""


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them_even_if_it_is_killed(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path, env=environment)
    wait_for(tmp_path, "begun-*", 2)
    parent.kill()
    parent.wait()
    wait_for(tmp_path, "saved-*", 2)
    assert len(list(tmp_path.glob("begun-*"))) == 2


def wait_for(folder: Path, pattern: str, count: int) -> None:
    until = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < until, f"{count} {pattern} expected"
        time.sleep(0.05)


def test_each_process_has_its_share_of_the_cores(monkeypatch):
    for name in module.THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(module.joblib, "cpu_count", lambda: 7)
    assert environments(3, False) == [dict.fromkeys(module.THREADS, "2") | {"CUDA_VISIBLE_DEVICES": "-1"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in environments(3, False)[0]


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(2, False)] == ["GPU-a", "GPU-b"]
    with pytest.raises(InputError, match="--jobs 4 needs as many free GPUs, 3 are; use fewer jobs, or --shareGPU"):
        environments(4, False)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(4, True)][3] == "GPU-a"


@pytest.mark.slow
@pytest.mark.bits
def test_folds_side_by_side_are_those_one_after_another(cli, cohort, tmp_path):
    """Also where they override others; the results are pooled once, when all are done."""
    settings = ("--model", "nn", "--numIters", 3, *TINY_NN, *SMALL_BATCH, "--folds", 2, "--dataDir", cohort)

    def train(name, *more) -> None:
        outcome = cli(
            "--train", *settings, "--chkPointDir", tmp_path / name, "--outDir", tmp_path / f"out-{name}", *more
        )
        assert outcome.status == 0, outcome.err

    train("one")
    train("other", "--set", "learning_rate=0.1")
    train("other", "--jobs", 2, "--overrideChkpt")
    for fold in ("0", "1"):
        assert_bit_equal(*(tmp_path / name / "nn" / "folds-2" / fold for name in ("one", "other")))
    pooled = [row for row in read_rows(tmp_path / "runs.csv") if row["folder"] == str(tmp_path / "out-other")]
    assert len(pooled) == 2  # once each time
