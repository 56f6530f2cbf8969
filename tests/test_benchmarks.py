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

REFERENCE_COMMAND = shlex.join([sys.executable, "-c", """print('{"train_per_s": 2.0}')"""])


def find_benchmark(name: str) -> str:
    return str(ROOT / "tests" / "benchmarks" / f"{name}.py")


def run_benchmark(name: str, *words: object) -> str:
    command = [sys.executable, find_benchmark(name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_blackout_compares_both_ways():
    """Each fill once; the ratio is that of the times beside it, and the two ways differ by rounding."""
    line_pattern = r"residual, 2 .*, 20 regions, (\w+): full (\S+) s, .* (\S+) s, ratio (\S+), .* (\S+) of the spread"
    printed_text = run_benchmark("blackout", "--preset", "residual", "--subjects", 2, "--repeats", 1, "--regions", 20)
    parsed_lines = re.findall(line_pattern, printed_text)
    assert [fill for fill, *_ in parsed_lines] == ["background", "donor"]
    for _, *numbers in parsed_lines:
        full_seconds, quick_seconds, ratio, difference = map(float, numbers)
        assert ratio == pytest.approx(
            full_seconds / quick_seconds, abs=0.02, rel=0.01 / quick_seconds
        )  # of times rounded to 0.01 s
        assert difference < 1e-3


@pytest.mark.slow
def test_speed_divides_our_speed_by_the_reference_programs():
    line_pattern = (
        r"cnn, 2 records a step: (\S+) records a second\nthe other 2\.00, ratio (\S+)\nmedian ratio (\S+) of 1\n"
    )
    printed_text = run_benchmark(
        "speed", "--preset", "residual", "--batch", 2, "--steps", 1, "--against", REFERENCE_COMMAND
    )
    records_per_s, ratio, median = map(float, re.search(line_pattern, printed_text).groups())
    assert records_per_s > 0 and ratio == median == pytest.approx(records_per_s / 2, abs=0.01)


@pytest.mark.slow
def test_coverage_counts_fractions_over_sets():
    printed_text = run_benchmark("coverage", "--sets", 2, "--only", "simulated, 80 people, AUC about 0.5")
    *lines, null_line, total_line = printed_text.splitlines()
    percentages_by_line = [re.findall(r"([\d.]+)%", line) for line in (*lines, null_line, total_line)]
    assert len(lines) == 2 and set(map(len, percentages_by_line)) == {2 * 2 + 2}  # cuts; intervals of two kinds
    assert {percentage for line in percentages_by_line[:-2] for percentage in line} <= {"0.0", "50.0", "100.0"}
    holding_percentages = [float(percentage[0]) for percentage in percentages_by_line]
    assert holding_percentages[-1] == pytest.approx(np.mean(holding_percentages[:-2]), abs=0.06)


def test_coverage_truth_is_the_auc_on_fresh_people():
    """By scikit-learn, on so many fresh people of a site that it hardly varies."""
    coverage_module, random = runpy.run_path(find_benchmark("coverage")), np.random.default_rng(0)
    label, separation = np.arange(200) % 2.0, 2.0
    shift = separation / np.sqrt(10)
    values = random.normal(size=(200, 10)) + shift * (label[:, None] - 0.5)
    scores, truth = coverage_module["tested"](label, np.arange(200) // 100, values, separation)
    assert roc_auc_score(label, scores) == pytest.approx(truth, abs=0.08)
    fresh_label = np.arange(100_000) % 2
    fresh = random.normal(size=(100_000, 10)) + shift * (fresh_label[:, None] - 0.5)
    aucs = []
    for is_training in (np.arange(200) >= 100, np.arange(200) < 100):
        encoder = StandardScaler().fit(values[is_training])
        model = Ridge(alpha=coverage_module["PENALTY"]).fit(encoder.transform(values[is_training]), label[is_training])
        aucs.append(roc_auc_score(fresh_label, model.predict(encoder.transform(fresh))))
    assert truth == pytest.approx(np.mean(aucs), abs=0.003)


@pytest.mark.slow
def test_large_has_a_row_for_a_command(cohort):
    printed_text = run_benchmark("large", "--cohort", cohort, "--people", 60, "--only", "swap")
    rows = [line.strip("| ").split(" | ") for line in printed_text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["60 people", "swap"]
    _, first_iteration_text, seconds, peak_gb, status = rows[1]
    assert (first_iteration_text, status) == ("", "0") and float(seconds) > 0 and 0.01 < float(peak_gb) < 50


@pytest.mark.slow
def test_truth_counts_match_the_table(cohort, tmp_path):
    """Of shuffled labels, whatever is significant is false."""
    small_options = ("--only", "random", "--cohorts", 1, "--iterations", 1, "--preset", "residual", "--donors", 2)
    printed_text = run_benchmark("truth", *small_options, "--real", cohort, "--table", tmp_path / "said.csv")
    verdict_table = pd.read_csv(tmp_path / "said.csv")
    for line in printed_text.split("cohorts; ")[-1].splitlines()[1:3]:
        rows = verdict_table[verdict_table["test"] == line.strip().partition(":")[0]]
        counts = [int((rows[column] < 0.05).any()) for column in ("p", "plain")]
        assert len(rows) == 116
        assert re.search(rf"a false one in \d \({counts[0]}\) of 1 cohorts, {counts[1]} before adjustment", line)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check {of}", "swap {of} {to} --copies 1 --regions 13"])
def test_more_people_take_no_more_memory(command, tmp_path):
    """Of 160 people more, the volumes of 16 would be seen."""
    peaks: list[int] = []
    for people in (40, 40, 200):  # what the first loads takes more than all these volumes
        folder = lab.records(tmp_path / f"{len(peaks)}", people)
        tracemalloc.start()
        done(f"abide-data {command}", of=folder, to=tmp_path / f"new-{len(peaks)}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 16 * 4 * np.prod(lab.REDUCED_GRID)


@pytest.mark.slow
def test_claims_prints_and_adds_the_rate_over_sets(tmp_path):
    """Of two sets a claim holds in none, one or both; shares of people are their mean."""
    printed_text = run_benchmark("claims", "--sets", 2, "--only", "sets: 10 sites", "--table", tmp_path / "said.csv")
    printed_text += run_benchmark("claims", "--sets", 2, "--only", "triple: the output follows a product of 3")
    tree_text = run_benchmark("claims", "--sets", 2, "--only", "estimator: single tree, one")
    assert set(re.findall(r"age significant: (\S+) %", tree_text)) <= {"0.0", "50.0", "100.0"} and tree_text
    claims_table = pd.read_csv(tmp_path / "said.csv")
    for row in claims_table.to_dict("records"):
        assert f"{row['measure']}: {row['value']:.1f} % ({row['low']:.1f} to {row['high']:.1f})" in printed_text
    assert set(re.findall(r"more than covariates: (\S+) %", printed_text)) <= {"0.0", "50.0", "100.0"}
    assert (
        len(claims_table) == 4
        and claims_table["value"].between(claims_table["low"], claims_table["high"]).all()
        and (claims_table["sets"] == 2).all()
    )


def test_controls_count_verdicts_over_sets(tmp_path):
    """Each set has one verdict, and the table has what is printed."""
    printed_text = run_benchmark(
        "controls", "--only", "leak, everybody, 100 people", "--few", 2, "--table", tmp_path / "counts.csv"
    )
    counts_by_line = [list(map(int, re.findall(r": (\d+)", line))) for line in printed_text.splitlines()]
    assert len(counts_by_line) == 2
    table = pd.read_csv(tmp_path / "counts.csv")
    for (set_count, *counts), (_, rows) in zip(counts_by_line, table.groupby("case", sort=False), strict=True):
        assert set_count == 2 == sum(counts[2:])
        assert rows["value"].tolist() == [50.0 * count for count in counts]
