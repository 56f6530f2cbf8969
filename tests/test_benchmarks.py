"""The benchmarks run, with sizes as small as possible, and print what can be computed in another way."""

import re
import runpy
import shlex
import subprocess
import sys
import tracemalloc

import lab
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, done
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

OTHER = shlex.join([sys.executable, "-c", """print('{"train_per_s": 2.0}')"""])


def benchmark(name: str) -> str:
    return str(ROOT / "tests" / "benchmarks" / f"{name}.py")


def printed(name: str, *words: object) -> str:
    command = [sys.executable, benchmark(name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_blackout_compares_both_ways():
    """Each fill once; the ratio is that of the times beside it, and the two ways differ by rounding."""
    line = r"residual, 2 .*, 20 regions, (\w+): full (\S+) s, .* (\S+) s, ratio (\S+), .* (\S+) of the spread"
    shown = printed("blackout", "--preset", "residual", "--subjects", 2, "--repeats", 1, "--regions", 20)
    found = re.findall(line, shown)
    assert [fill for fill, *_ in found] == ["background", "donor"]
    for _, *numbers in found:
        in_full, kept, ratio, difference = map(float, numbers)
        assert ratio == pytest.approx(in_full / kept, abs=0.02, rel=0.01 / kept)  # of times rounded to 0.01 s
        assert difference < 1e-3


@pytest.mark.slow
def test_speed_divides_our_speed_by_that_of_the_other_program():
    line = r"cnn, 2 records a step: (\S+) records a second\nthe other 2\.00, ratio (\S+)\nmedian ratio (\S+) of 1\n"
    shown = printed("speed", "--preset", "residual", "--batch", 2, "--steps", 1, "--against", OTHER)
    ours, ratio, median = map(float, re.search(line, shown).groups())
    assert ours > 0 and ratio == median == pytest.approx(ours / 2, abs=0.01)


@pytest.mark.slow
def test_coverage_counts_shares_of_its_sets():
    shown = printed("coverage", "--sets", 2, "--only", "simulated, 80 people, AUC about 0.5")
    *lines, null, every = shown.splitlines()
    shares = [re.findall(r"([\d.]+)%", line) for line in (*lines, null, every)]
    assert len(lines) == 2 and set(map(len, shares)) == {2 * 2 + 2}  # cuts; intervals of two kinds
    assert {share for line in shares[:-2] for share in line} <= {"0.0", "50.0", "100.0"}
    held = [float(share[0]) for share in shares]
    assert held[-1] == pytest.approx(np.mean(held[:-2]), abs=0.06)


def test_the_truth_of_coverage_is_the_auc_on_fresh_people():
    """By scikit-learn, on so many fresh people of a site that it hardly varies."""
    names, random = runpy.run_path(benchmark("coverage")), np.random.default_rng(0)
    label, separation = np.arange(200) % 2.0, 2.0
    shift = separation / np.sqrt(10)
    values = random.normal(size=(200, 10)) + shift * (label[:, None] - 0.5)
    scores, truth = names["tested"](label, np.arange(200) // 100, values, separation)
    assert roc_auc_score(label, scores) == pytest.approx(truth, abs=0.08)
    fresh_label = np.arange(100_000) % 2
    fresh = random.normal(size=(100_000, 10)) + shift * (fresh_label[:, None] - 0.5)
    areas = []
    for rest in (np.arange(200) >= 100, np.arange(200) < 100):
        encoder = StandardScaler().fit(values[rest])
        model = Ridge(alpha=names["PENALTY"]).fit(encoder.transform(values[rest]), label[rest])
        areas.append(roc_auc_score(fresh_label, model.predict(encoder.transform(fresh))))
    assert truth == pytest.approx(np.mean(areas), abs=0.003)


@pytest.mark.slow
def test_large_has_a_row_for_a_command(cohort):
    shown = printed("large", "--cohort", cohort, "--people", 60, "--only", "swap")
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["60 people", "swap"]
    _, started, seconds, peak_gb, status = rows[1]
    assert (started, status) == ("", "0") and float(seconds) > 0 and 0.01 < float(peak_gb) < 50


@pytest.mark.slow
def test_truth_counts_what_its_table_holds(cohort, tmp_path):
    """Of shuffled labels, whatever is significant is false."""
    small = ("--only", "random", "--cohorts", 1, "--iterations", 1, "--preset", "residual", "--donors", 2)
    shown = printed("truth", *small, "--real", cohort, "--table", tmp_path / "said.csv")
    said = pd.read_csv(tmp_path / "said.csv")
    for line in shown.split("cohorts; ")[-1].splitlines()[1:3]:
        rows = said[said["test"] == line.strip().partition(":")[0]]
        counts = [int((rows[column] < 0.05).any()) for column in ("p", "plain")]
        assert len(rows) == 116
        assert re.search(rf"a false one in \d \({counts[0]}\) of 1 cohorts, {counts[1]} before adjustment", line)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check {of}", "swap {of} {to} --copies 1 --regions 13"])
def test_more_people_take_no_more_memory(command, tmp_path):
    """Of 160 people more, the volumes of 16 would be seen."""
    peaks = []
    for people in (40, 40, 200):  # what the first loads takes more than all these volumes
        folder = lab.records(tmp_path / f"{len(peaks)}", people)
        tracemalloc.start()
        done(f"abide-data {command}", of=folder, to=tmp_path / f"new-{len(peaks)}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 16 * 4 * np.prod(lab.GRID)


@pytest.mark.slow
def test_claims_prints_and_adds_the_share_of_its_sets(tmp_path):
    """Of two sets a claim holds in none, one or both; shares of people are their mean."""
    shown = printed("claims", "--sets", 2, "--only", "sets: 10 sites", "--table", tmp_path / "said.csv")
    shown += printed("claims", "--sets", 2, "--only", "triple: the output follows a product of 3")
    said = pd.read_csv(tmp_path / "said.csv")
    for row in said.to_dict("records"):
        assert f"{row['measure']}: {row['value']:.1f} % ({row['low']:.1f} to {row['high']:.1f})" in shown
    assert set(re.findall(r"more than covariates: (\S+) %", shown)) <= {"0.0", "50.0", "100.0"}
    assert len(said) == 4 and said["value"].between(said["low"], said["high"]).all() and (said["sets"] == 2).all()
