"""The benchmarks run, with sizes as small as possible, and print what can be computed in another way."""

import functools
import itertools
import re
import runpy
import shlex
import statistics
import sys
import tracemalloc

import gpu
import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, SMALL_BATCH, TINY_NN, read_rows
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from data.base.effort import EFFORT
from data.check import full
from data.cohorts import atlas
from data.cohorts.records import REDUCED, record_bytes
from data.cohorts.stored import open_cohort
from data.simulation import Anatomy, Simulation, demographics
from data.swap import swap
from utils.blackout import figure, job, page

pytestmark = pytest.mark.usefixtures("undrawn")

OTHER = shlex.join([sys.executable, "-c", """print('{"train_per_s": 2.0}')"""])
COMMANDS = {
    "adjustment": ["--sets", 1, "--people", 200],
    "blackout": ["--preset", "residual", "--subjects", 2, "--repeats", 1, "--regions", 20],
    "calibration": ["--sets", 1],
    "confounds": ["--sets", 1, "--people", 120, "--resamples", 100, "--only", "sex by age,error,unseen"],
    "connections": ["--sets", 1, "--people", 400],
    "coverage": ["--sets", 2, "--only", "simulated, 80 people, AUC about 0.5"],
    "floors": ["--sets", 2, "--seed", 50, "--only", "200 people, 10 folds, 0%"],
    "large": ["--cohort", "COHORT", "--people", 60, "--only", "swap"],
    "truth": [
        *("--only", "random", "--real", "COHORT", "--cohorts", 1, "--iterations", 1, "--preset", "residual"),
        *("--donors", 2),
    ],
    "replication": ["--sets", 2, "--people", 80],
    "speed": ["--preset", "residual", "--batch", 2, "--steps", 1, "--against", OTHER],
    "twins": ["--people", 200, "--maps", 1],
}


@pytest.fixture
def printed_by(cohort, monkeypatch, capsys):
    """Runs a benchmark with sizes as small as possible, and returns what it printed."""

    def run(name: str) -> str:
        path = benchmark(name)
        arguments = [str(cohort if word == "COHORT" else word) for word in COMMANDS[name]]
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(EFFORT, "resamples", EFFORT.resamples)  # some change it
        pictures = [(page, "render"), (job, "write_maps")]
        for module, drawing in ((figure, "draw_by_map"), (figure, "draw"), *pictures):
            monkeypatch.setattr(module, drawing, getattr(module, drawing))  # which one of them changes
        runpy.run_path(path, run_name="__main__")
        return capsys.readouterr().out

    return run


def benchmark(name: str) -> str:
    return str(ROOT / "tests" / "benchmarks" / f"{name}.py")


@pytest.mark.slow
def test_the_benchmark_of_calibration_says_what_sets_hold_and_reads_a_test(printed_by, tmp_path, monkeypatch):
    lines = printed_by("calibration").splitlines()
    held = [[float(share) for share in re.findall(r"(?:autism|control) ([\d.]+)%", line)] for line in lines]
    assert len(lines) == 5 and all(len(of) == 2 and min(of) > 60 for of in held)
    random, people = np.random.default_rng(0), 300
    label, fold = np.arange(people) % 2, np.arange(people) // 2 % 3
    table = pd.DataFrame({"label": label, "probability": random.uniform(0.2, 0.6, people) + 0.2 * label, "fold": fold})
    table.assign(subject=range(people)).to_csv(tmp_path / "predictions.csv", index=False)
    monkeypatch.setitem(COMMANDS, "calibration", ["--results", tmp_path])
    printed = printed_by("calibration")
    own, others = (table[(table["label"] == 1) & (of)]["probability"] for of in (fold == 2, fold != 2))
    least = np.floor(1e4 * others.nsmallest(int(0.2 * (len(others) + 1))).iloc[-1]) / 1e4
    assert f"\n2: 80% sets hold autism {(own >= least).mean():.0%} of 50, control" in printed
    assert re.search(r"before: slope [\d.]+, intercept -?[\d.]+, Brier 0\.[\d]+\nafter: slope", printed)


@pytest.mark.slow
def test_the_benchmark_of_confounds_prints_a_share_a_case(printed_by):
    lines = printed_by("confounds").splitlines()[1:]
    assert len(lines) == 3 and all(
        re.match(r"120 people, [\w -]+: (0|100)\.0%, with the diagnosis", line) for line in lines
    )


@pytest.mark.slow
def test_the_benchmark_of_blackout_compares_both_ways(printed_by):
    """Each fill once; the ratio is that of the times beside it, and the two ways differ by rounding."""
    line = r"residual, 2 subjects, 20 regions, (\w+): full (\S+) s, .* (\S+) s, ratio (\S+), .* (\S+) of the spread"
    found = re.findall(line, printed_by("blackout"))
    assert [fill for fill, *_ in found] == ["background", "donor"]
    for _, *numbers in found:
        in_full, kept, ratio, difference = map(float, numbers)
        assert ratio == pytest.approx(in_full / kept, abs=0.02, rel=0.01 / kept)  # of times rounded to 0.01 s
        assert difference < 1e-3


@pytest.mark.slow
def test_the_benchmark_of_training_divides_our_speed_by_that_of_the_other_program(printed_by):
    line = r"cnn, 2 records a step: (\S+) records a second\nthe other 2\.00, ratio (\S+)\nmedian ratio (\S+) of 1\n"
    ours, ratio, median = map(float, re.search(line, printed_by("speed")).groups())
    assert ours > 0 and ratio == median == pytest.approx(ours / 2, abs=0.01)


def test_the_benchmark_of_coverage_counts_shares_of_its_sets(printed_by):
    *lines, null, every = printed_by("coverage").splitlines()
    shares = [re.findall(r"([\d.]+)%", line) for line in (*lines, null, every)]
    assert len(lines) == 2 and set(map(len, shares)) == {2 * 2 + 2}  # cuts; intervals of two kinds
    assert {share for line in shares[:-2] for share in line} <= {"0.0", "50.0", "100.0"}
    assert "all without a difference: 4 sets" in null and "all: 4 sets" in every
    held = [float(share[0]) for share in shares]
    assert held[-1] == pytest.approx(np.mean(held[:-2]), abs=0.06)


@pytest.mark.slow
def test_the_benchmark_of_floors_counts_sentences(printed_by):
    """The set with the seed 50 is checked against `differences` there."""
    *lines, _ = printed_by("floors").splitlines()
    assert [re.search(r"\((0\.\d+)\): 2 sets", line)[1] for line in lines] == ["0.0", "0.05", "0.1"]
    for line in lines:
        shares, counts = (re.findall(form, line) for form in (r"([\d.]+)%[,;]?", r"of 1[23] ([\d.]+)"))
        assert set(shares[1:]) <= {"0.0", "50.0", "100.0"} and len(shares) == 9 and len(counts) == 2


@pytest.mark.slow
def test_the_benchmark_of_adjustment_counts_its_sets(printed_by):
    """What is the diagnosis's own stays significant, what is a product of covariates does not."""
    lines = printed_by("adjustment").splitlines()
    assert lines[0].startswith("200 people, sex by age, ") and lines[-1].startswith("200 people, the diagnosis, ")
    assert len(lines) == 8 and all("before: 1, " in lines[at] for at in (0, -1))
    assert "adjusted: 0, " in lines[0] and "adjusted: 1, " in lines[-1]


@pytest.mark.slow
def test_the_benchmark_of_connections_counts_its_sets(printed_by):
    """What is planted in pairs of systems is found there, with so many people."""
    lines = printed_by("connections").splitlines()
    found = [list(map(int, re.search(r"found (\d+) of (\d+);", line).groups())) for line in lines]
    assert [total for _, total in found] == [0, 1, 1, 1, 5, 5] and found[3] == [1, 1] and found[5] == [5, 5]
    assert all(
        re.search(r"in 1 sets another pair of systems [01], another pair of regions [01]$", line) for line in lines
    )


def test_the_benchmark_of_twins_finds_its_copies(printed_by):
    assert re.fullmatch(r"200 people, 1 maps: [\d.]+ s, [\d.]+ GB, 60 of 60 copies\n", printed_by("twins"))


@pytest.mark.parametrize("separation", [2.0, np.repeat([3.0, 1.0], 5)], ids=["alike", "not alike"])
def test_the_truth_of_coverage_is_the_auc_on_fresh_people(separation):
    """By scikit-learn, on so many fresh people of a site that it hardly varies; features tell alike, or half of them
    more."""
    names, random = runpy.run_path(benchmark("coverage")), np.random.default_rng(0)
    label = np.arange(200) % 2.0
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
def test_the_benchmark_of_large_cohorts_has_a_row_for_a_command(printed_by):
    rows = [line.strip("| ").split(" | ") for line in printed_by("large").splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["60 people", "swap"]
    _, started, seconds, peak_gb, status = rows[1]
    assert (started, status) == ("", "0") and float(seconds) > 0 and 0.01 < float(peak_gb) < 50


@pytest.mark.slow
def test_the_benchmark_of_the_truth_counts_what_the_table_holds(printed_by, monkeypatch):
    """Of shuffled labels, whatever is significant is false: counted again in `regions.csv`."""
    found, read = [], pd.read_csv

    def watched(path, *arguments, **options):
        table = read(path, *arguments, **options)
        if str(path).endswith("regions.csv"):
            found.append(table)
        return table

    monkeypatch.setattr(pd, "read_csv", watched)
    lines = printed_by("truth").split("cohorts; ")[-1].splitlines()
    table = found[0]
    for test, line in zip(("reliance", "unique"), lines[1:], strict=True):
        counts = [int((table[f"p_{test}{when}"] < 0.05).any()) for when in ("", "_plain")]
        words = (
            rf"    {test}: a false one in \d \({counts[0]}\) of 1 cohorts, {counts[1]} before adjustment \(against 5 %"
        )
        assert re.match(words, line)


def test_labels_are_shuffled_over_subjects_and_nothing_else(cohort, tmp_path):
    runpy.run_path(benchmark("truth"))["planted"].permuted(tmp_path / "new", 0, cohort)
    before, after = open_cohort(cohort), open_cohort(tmp_path / "new")
    labels = [[row.label for row in opened.rows] for opened in (before, after)]
    assert sorted(labels[0]) == sorted(labels[1]) and labels[0] != labels[1]
    for index, row in enumerate(after.rows):
        assert after.read(index)[0] == row.label
        assert after.entries[index].read()[4:] == before.entries[index].read()[4:]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "swap"])
def test_more_people_take_no_more_memory(command, cohort, tmp_path, monkeypatch):
    """Of 160 people more, the volumes of 16 would be seen."""
    monkeypatch.setattr(atlas, "load_atlas", functools.cache(atlas.load_atlas))
    atlas.load_atlas(None, REDUCED)  # which takes more than all these volumes
    enlarge = runpy.run_path(benchmark("large"))["enlarge"]
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


@pytest.mark.slow
def test_a_row_of_what_a_gpu_does_is_made_on_the_cpu(cohort, tmp_path, monkeypatch):
    taken = iter([3 * gpu.MB, 8 * gpu.MB])
    monkeypatch.setattr(gpu, "used_memory", lambda device: next(taken, 5 * gpu.MB))
    options = ("--model", "nn", *TINY_NN, *SMALL_BATCH, "--numIters", 12, "--dataDir", cohort)
    (row,) = gpu.rows(functools.partial(gpu.train, tmp_path, "-1", "train nn", *options))
    history = read_rows(tmp_path / "train nn" / "train" / "history.csv")
    mean = sum(float(step["loss"]) for step in history[2:]) / 10
    rate = statistics.median(float(step["samples_per_s"]) for step in history)
    assert str(row) == f"| train nn | loss {mean:.4f} after 12 iterations |  | CPU | {rate:.4g} | 0 | 5 |"


@pytest.mark.slow
def test_a_command_that_fails_is_a_row_of_what_a_gpu_does(tmp_path):
    (row,) = gpu.rows(functools.partial(gpu.full_pass, tmp_path, "-1", "nothing", "--set", "no=1"))
    assert row.held is False and "exit 2: run.py: error: " in row.finding and str(row).count("|") == 8


def test_without_a_gpu_there_is_nothing_to_measure(capsys):
    assert gpu.main() == 0
    assert capsys.readouterr().out == "No GPU: nothing to measure.\n"


@pytest.mark.parametrize(
    "kind, columns",
    [
        ("Age", ["AGE_AT_SCAN"]),
        ("Motion", ["func_mean_fd"]),
        ("Site", ["site"]),
        ("SexByAge", ["SEX", "AGE_AT_SCAN"]),
        ("AgeBySite", ["site", "AGE_AT_SCAN"]),
    ],
)
def test_a_covariate_goes_with_the_diagnosis_and_with_the_region_that_carries_it(kind, columns):
    """And the other regions do not know of it: they are those of the people without it."""
    planted = runpy.run_path(benchmark("truth"))["planted"]
    drawn = Simulation(subjects=60, effect=0.0)
    anatomy, bare = getattr(planted, kind)(REDUCED, drawn), Anatomy(REDUCED, drawn)
    table, values = anatomy.people(drawn)
    assert table["label"].sum() == 30 and roc_auc_score(table["label"], values) > 0.65
    assert (pd.Series(values).groupby([table[name] for name in columns]).nunique() == 1).all()
    difference = np.stack([anatomy.region_values(at, 0)[0] - bare.region_values(at, 0)[0] for at in range(60)])
    carrier = next(number for number, name in anatomy.atlas.names.items() if name == planted.CARRIER)
    assert np.corrcoef(difference[:, carrier], values)[0, 1] == pytest.approx(1)
    assert not np.delete(difference, carrier, 1).any()


def test_a_quarter_has_autism():
    planted = runpy.run_path(benchmark("truth"))["planted"]
    assert planted.Quarter.people(Simulation(subjects=80))[0]["label"].sum() == 20


def test_iq_is_lower_in_autism_and_chosen_edges_differ():
    """By so many points where it is known; edges between two systems, and no others."""
    names = runpy.run_path(benchmark("truth"))
    planted, drawn = names["planted"], Simulation(subjects=60)
    before, (table, _) = demographics(drawn), planted.LowerIQ.people(drawn)
    lower = before["FIQ"].astype(int) - table["FIQ"].astype(int)
    known = before["FIQ"] != "-9999"
    np.testing.assert_array_equal(lower, planted.IQ_EFFECT * table["label"] * known)
    aal = atlas.load_atlas(None, REDUCED)
    places, edges = [aal.names[region] for region in aal.regions], planted.edges_between(aal, planted.PLANTED_EDGES)
    joined = [{places[one], places[other]} for one, other in itertools.combinations(range(len(places)), 2)]
    assert [pair for pair, edge in zip(joined, edges, strict=True) if edge] == [
        pair for pair in joined if tuple(sorted(pair)) in planted.PLANTED_EDGES
    ]
    assert edges.sum() == 4
    assert names["joining"](planted.PLANTED_EDGES)["connections"] == {"frontal left and temporal right": 1}


@pytest.mark.slow
def test_the_benchmark_of_replication_says_what_holds_and_what_comes_out(printed_by):
    lines = printed_by("replication").splitlines()
    assert len(lines) == 5
    assert re.match(r"80 people, relatives: difference \d+\.\d%, correlation \d+\.\d%; ", lines[1])
    nothing, much = lines[2], lines[4]
    assert "0 standard errors" in nothing and "planted named 0, planted named and come out 0" in nothing
    assert int(re.findall(r"planted named (\d+)", much)[0]) >= 6  # of eight
