"""The benchmarks still run: each with sizes as small as it takes."""

import functools
import runpy
import statistics
import sys
import tracemalloc

import gpu
import numpy as np
import pytest
from helpers import ROOT, SMALL_BATCH, TINY_NN, read_rows

from data.check import full
from data.cohorts import atlas
from data.cohorts.cohort import open_cohort
from data.cohorts.records import record_bytes
from data.grids import REDUCED
from data.swap import swap
from utils.blackout import blobs

pytestmark = pytest.mark.slow

COMMANDS = {
    "blackout": ["--preset", "residual", "--subjects", 2, "--repeats", 1],
    "coverage": ["--sets", 2],
    "large": ["--cohort", "COHORT", "--people", 60, "--only", "check,swap"],
    "truth": ["--only", "random", "--real", "COHORT", "--cohorts", 1, "--iterations", 1],
}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_runs(name, cohort, monkeypatch, capsys):
    path = ROOT / "tests" / "benchmarks" / f"{name}.py"
    monkeypatch.setattr(
        sys, "argv", [str(path), *(str(cohort if word == "COHORT" else word) for word in COMMANDS[name])]
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(blobs, "BLOBS", blobs.BLOBS)  # which one of them changes
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


def test_our_side_of_the_agreement_runs_without_the_other_package(tmp_path):
    """Of a linear network, only regions with a coefficient have an effect."""
    names = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "agreement.py"))
    atlas, coefficient, _ = names["regions_of_pairs"]()
    unique, logit = names["ours"](names["simulate"](tmp_path, 40, 10, 0), atlas, coefficient, 0)
    assert unique.shape == (10, len(coefficient)) and logit.shape == (10,)
    assert ((np.abs(unique).max(0) > 1e-4) == (coefficient != 0)).all()


@pytest.mark.parametrize("command", ["check", "swap"])
def test_more_people_take_no_more_memory(command, cohort, tmp_path, monkeypatch):
    """Of 160 people more, the volumes of 16 would be seen."""
    monkeypatch.setattr(atlas, "load_atlas", functools.cache(atlas.load_atlas))
    atlas.load_atlas(None, REDUCED)  # which takes more than all these volumes
    enlarge = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "large.py"))["enlarge"]
    source, peaks = open_cohort(cohort), []
    for people in (40, 200):
        (tmp_path / f"{people}").mkdir()
        large = enlarge(source, people, tmp_path / f"{people}")
        tracemalloc.start()
        if command == "swap":
            swap(large, tmp_path / f"swapped {people}", 13, 1, 0)
        else:
            full(large)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 16 * record_bytes(REDUCED)


def test_a_row_of_what_a_gpu_does_is_made_on_the_cpu(cohort, tmp_path, monkeypatch):
    taken = iter([3 * gpu.MB, 8 * gpu.MB])
    monkeypatch.setattr(gpu, "used_memory", lambda device: next(taken, 5 * gpu.MB))
    options = ("--model", "nn", *TINY_NN, *SMALL_BATCH, "--numIters", 12, "--dataDir", cohort)
    (row,) = gpu.rows(functools.partial(gpu.train, tmp_path, "-1", "train nn", *options))
    history = read_rows(tmp_path / "train nn" / "train" / "history.csv")
    mean = sum(float(step["loss"]) for step in history[2:]) / 10
    rate = statistics.median(float(step["samples_per_s"]) for step in history)
    assert str(row) == f"| train nn | loss {mean:.4f} after 12 iterations |  | CPU | {rate:.4g} | 0 | 5 |"


def test_a_command_that_fails_is_a_row_of_what_a_gpu_does(tmp_path):
    (row,) = gpu.rows(functools.partial(gpu.full_pass, tmp_path, "-1", "nothing", "--set", "no=1"))
    assert row.held is False and "exit 2: run.py: error: " in row.finding and str(row).count("|") == 8


def test_without_a_gpu_there_is_nothing_to_measure(capsys):
    assert gpu.main() == 0
    assert capsys.readouterr().out == "No GPU: nothing to measure.\n"
