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
from scipy.stats import norm
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.check import full
from data.cohorts import atlas
from data.cohorts.folds import permuted_folds
from data.cohorts.records import REDUCED, record_bytes
from data.cohorts.stored import open_cohort
from data.derivation.measures import MEASURES
from data.simulation import Anatomy, Simulation, demographics
from data.swap import swap
from utils.blackout import figure, job, page
from utils.evaluation import confounds
from utils.scores import floors, metrics
from utils.training import fit

pytestmark = pytest.mark.usefixtures("undrawn")

OTHER = shlex.join([sys.executable, "-c", """print('{"train_per_s": 2.0}')"""])
COMMANDS = {
    "adjustment": ["--sets", 1, "--people", 200],
    "blackout": ["--preset", "residual", "--subjects", 2, "--repeats", 1, "--regions", 20],
    "calibration": ["--sets", 1],
    "compare": ["--sets", 2, "--only", "10 folds, 50%"],
    "confounds": ["--sets", 1, "--people", 120, "--resamples", 100, "--only", "sex by age,error,unseen"],
    "connections": ["--sets", 1, "--people", 400],
    "coverage": ["--sets", 2, "--only", "simulated, 80 people, AUC about 0.5"],
    "derive": ["--mm", 12, "--volumes", 90],
    "exported": ["COHORT", "exported", "--only", "nn-default", "--numIters", 2, "--records", 5],
    "membership": ["COHORT", "membership", "--only", "nn", "--seeds", 1, "--numIters", 2],
    "floors": ["--sets", 2, "--seed", 50, "--only", "200 people, 10 folds, 0%"],
    "large": ["--cohort", "COHORT", "--people", 60, "--only", "swap"],
    "networks": [
        *("COHORT", "networks", "--maps", 1, "--folds", 2, "--seeds", 2, "--floors", "--of"),
        "nn --numIters 2 --set members=1",
    ],
    "permutations": ["--sets", 1, "--asked", 19, 29],
    "truth": [
        *("--only", "random", "--real", "COHORT", "--cohorts", 1, "--iterations", 1, "--preset", "residual"),
        *("--donors", 2),
    ],
    "planning": ["planning", "--only", "found", "--studies", 1, "--people", 50],
    "replication": ["--sets", 2, "--people", 80],
    "speed": ["--preset", "linear", "--batch", 2, "--steps", 1, "--against", OTHER],
    "twice": ["--sets", 1, "--people", 60],
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
        for module, constant in (
            (metrics, "RESAMPLES"),
            (confounds, "RESAMPLES"),
            (floors, "LINEAR"),
        ):  # which some of them change
            monkeypatch.setattr(module, constant, getattr(module, constant))
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
def test_the_benchmark_of_networks_keeps_what_each_predicts(printed_by, tmp_path, monkeypatch):
    """The AUC is that of scikit-learn, a mean over seeds; what is there is not done again."""
    monkeypatch.chdir(tmp_path)
    printed = printed_by("networks")
    table = pd.read_csv(tmp_path / "networks" / "1-2-nn_--numIters_2_--set_members=1.csv")
    expected = np.mean([roc_auc_score(table["label"], table[f"seed {seed}"]) for seed in (0, 1)])
    assert f"nn --numIters 2 --set members=1: AUC {expected:.3f}" in printed
    assert "regions, mean of SVMs: AUC 0." in printed and "; minus nn" in printed
    assert "seed" not in printed_by("networks")


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


@pytest.mark.slow
def test_the_benchmark_of_onnx_has_a_row_for_each_preset(printed_by):
    pytest.importorskip("tf2onnx")
    line = r"nn-default: largest difference (\S+), people differ by (\S+), one person (\S+) ms, (\S+) MB, .*\n"
    difference, spread, milliseconds, size = map(float, re.search(line, printed_by("exported")).groups())
    assert difference < 1e-6 < spread
    assert milliseconds > 0
    assert 4 * 1_500 < 1e6 * size < 50_000  # of its weights alone; and of the graph


@pytest.mark.slow
def test_the_benchmark_of_membership_has_a_row_for_each_part_of_a_bundle(printed_by):
    first, *lines = printed_by("membership").split("nn: ")[1].splitlines()
    assert re.fullmatch(r"2 trainings on (\d+) to (\d+) people", first)
    names = [line[:40].strip() for line in lines]
    assert names[:2] == ["network", "no label"] and names[-2:] == ["volume", "together"]
    assert "phenotype, logistic regression" in names
    assert all(re.search(r" (\d\.\d\d) \(\d\.\d\d to \d\.\d\d\)   told: \d+%$", line) for line in lines)


def test_the_benchmark_of_membership_knows_who_is_in_a_mean():
    """Of 5 values that differ by chance alone nobody can tell, of 5,000 one can."""
    made = runpy.run_path(benchmark("membership"))
    trained, at_hand, aucs = np.arange(40) < 20, np.arange(30, 40), []
    for count in (5, 5_000):
        values = np.random.default_rng(0).normal(size=(40, count)).astype(np.float32)
        score = made["by_mean"](values, np.flatnonzero(trained), at_hand)
        score[at_hand] = np.nan
        line, known = made["row"]("mean", [(trained, score)]), np.isfinite(score)
        aucs.append(roc_auc_score(trained[known], score[known]))
        assert line.startswith(f"{'mean':<40}{aucs[-1]:.2f} (")
        told = (score[trained] > score[known & ~trained].max()).mean()
        assert line.endswith(f"told: {told:.0%}")
    assert aucs[0] < 0.8 < 0.95 < aucs[1]


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


@pytest.mark.slow
def test_the_benchmark_of_maps_times_each_measure(printed_by):
    lines = printed_by("derive").splitlines()
    assert {line.split(":")[0] for line in lines if " s, of all cores " in line} == {
        "cleaning",
        "dual_regression",
        *MEASURES,
    }
    degree, product, ratio = map(float, re.findall(r" ([\d.]+)(?: GFLOP|$)", lines[-2]))
    assert ratio == pytest.approx(degree / product, rel=0.02, abs=0.01)


@pytest.mark.slow
def test_the_benchmark_of_comparisons_counts_what_is_said_and_what_is_expected(printed_by):
    lines = printed_by("compare").splitlines()
    assert [line.split(",")[0] for line in lines] == ["equal", "the first is better"]
    for line in lines:
        said = [float(share) for share in re.findall(r"(?:better|level) ([\d.]+)%[,;!]?", line)]
        assert sum(said[:3]) == pytest.approx(100) and {*said[:3]} <= {0.0, 50.0, 100.0}
        truth, spread, half = map(float, re.search(r"true (\S+),.* \+-(\S+), half an interval (\S+);", line).groups())
        assert said[3] / 100 == pytest.approx(norm.cdf((truth - half) / spread), abs=0.05)
        assert truth == pytest.approx(0.05 * line.startswith("the first"), abs=0.04)  # two cohorts are few


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
def test_our_side_of_the_agreement_runs_without_the_other_package(tmp_path):
    """Of a linear network, only regions with a coefficient have an effect."""
    names = runpy.run_path(benchmark("agreement"))
    atlas, coefficient, _ = names["regions_of_pairs"]()
    unique, logit = names["ours"](names["simulate"](tmp_path, 40, 10, 0), atlas, coefficient, 0)
    assert unique.shape == (10, len(coefficient)) and logit.shape == (10,)
    assert ((np.abs(unique).max(0) > 1e-4) == (coefficient != 0)).all()


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


def area_within_sites(table: pd.DataFrame, score: str) -> float:
    """By scikit-learn, weighted by people, of the sites with both classes."""
    sites = [site for _, site in table.groupby("site") if site["label"].nunique() == 2]
    return np.average([roc_auc_score(of["label"], of[score]) for of in sites], weights=list(map(len, sites)))


@pytest.mark.slow
def test_the_benchmark_of_moved_trainings_says_how_far_they_are_apart(cli, cohort, tmp_path, monkeypatch, capsys):
    """In this process nothing moves and nothing differs, but for a training that goes on for a batch more."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = runpy.run_path(benchmark("moved"))

    def perform(folder, commands, environment):
        for command in commands:
            assert cli(*command, *(("--numIters", 3) if environment else ())).status == 0

    few = {"nn": ("nn", *TINY_NN, *SMALL_BATCH)}
    for name, value in {
        "MODELS": few,
        "ENVIRONMENTS": {"the same": {}, "more": {"A": "1"}},
        "perform": perform,
    }.items():
        monkeypatch.setitem(names["main"].__globals__, name, value)
    words = [benchmark("moved"), cohort, cohort, tmp_path / "moved", "--only", "nn", "--numIters", 2]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    names["main"]()
    same, more = capsys.readouterr().out.splitlines()
    assert same == "nn, continued with the same: weights 0.0e+00, predictions 0.0e+00"
    weights, predictions = map(float, re.search(r"with more: weights (\S+), predictions (\S+)", more).groups())
    tables = [
        pd.read_csv(tmp_path / "moved" / of / "nn/test/predictions.csv")["probability"] for of in ("whole", "more")
    ]
    assert 0 < predictions == pytest.approx((tables[0] - tables[1]).abs().max(), rel=0.05)
    assert 0 < weights < 1


@pytest.mark.slow
@pytest.mark.parametrize("separation", [0.0, 4.0])
def test_a_series_of_the_benchmark_of_permutations_ends_as_its_definition_says(separation):
    """By all its permutations, done one after another: those that are as high, up to the tenth."""
    names = runpy.run_path(benchmark("permutations"))
    names["simulated"].__globals__["PEOPLE"] = (60, 70)
    ends, cohort = names["one_set"](separation, (19, 39), 3), names["simulated"](separation, 3)
    observed = names["score"](cohort.folds, cohort.values)[1]
    drawn = [permuted_folds(cohort.folds, 3, number) for number in range(1, 40)]
    high = np.cumsum([names["score"](folds, cohort.values)[1] >= observed for folds in drawn])
    for asked, end in ends.items():
        stop = int(np.argmax(high == 10)) + 1 if 10 in high[:asked] else None
        assert end.p == pytest.approx(10 / stop if stop else (1 + high[asked - 1]) / (1 + asked))
    assert ends[39].p == 1 / 40 if separation else ends[39].count == stop


def test_the_benchmark_of_permutations_scores_ridge_within_sites():
    names = runpy.run_path(benchmark("permutations"))
    cohort = names["simulated"](1.0, 0)
    table = pd.DataFrame([(row.label, row.site) for row in cohort.folds.whole.rows], columns=["label", "site"])
    for name in cohort.folds.names:
        rest = np.array([cohort.folds.fold_of[row.subject] != name for row in cohort.folds.whole.rows])
        model = make_pipeline(StandardScaler(), Ridge(alpha=names["PENALTY"]))
        model.fit(cohort.values[rest], table["label"][rest])
        table.loc[~rest, "score"] = model.predict(cohort.values[~rest])
    metric, area = names["score"](cohort.folds, cohort.values)
    assert metric == "auc_sites" and area == pytest.approx(area_within_sites(table, "score"))


@pytest.mark.slow
def test_the_benchmark_of_permutations_prints_shares(printed_by):
    null, longer, _, found, _, _ = printed_by("permutations").splitlines()
    assert re.match(r"nothing to find, 19 permutations: 1 sets, .*; p <= 0.05 in .*, p <= 0.1 in .*, p <= 0.2 in", null)
    assert longer.startswith("nothing to find, 29") and found.startswith("something to find, 19 permutations: 1 sets")
    for line in (null, longer, found):
        assert set(re.findall(r"p <= [\d.]+ in ([\d.]+)%", line)) <= {"0.0", "100.0"}


@pytest.mark.slow
def test_the_benchmark_of_a_choice_scores_who_knows_the_permuted_labels(cohort, tmp_path, monkeypatch):
    """One of two candidates knows the labels of the set; by these, permuted within sites, all scores are perfect."""
    names = runpy.run_path(benchmark("choice"))
    own = names["real_set"].__globals__
    few = ["--set members=1 --preset default", "--set learning_rate=0.1 --preset default"]
    rows = open_cohort(cohort).rows
    site, before, seen = {row.subject: row.site for row in rows}, {row.subject: row.label for row in rows}, {}

    def predicted(run) -> dict[str, float]:
        seen.update({row.subject: row.label for row in run.cohort.rows})
        knows = run.config.learning_rate == 0.1
        return {row.file: row.label if knows else 0.5 for row in run.cohort.rows if row.split == "test"}

    monkeypatch.setattr(fit, "predicted", predicted)
    for name, value in {"CANDIDATES": few, "predicted": predicted}.items():
        monkeypatch.setitem(own, name, value)
    found = names["real_set"](cohort, 40, 0)
    assert [of["value"] for of in found.values()] == [1.0, 1.0]
    labels = [sorted((site[name], of[name]) for name in seen) for of in (before, seen)]
    assert labels[0] == labels[1] and before != seen


def test_a_quarter_has_autism():
    planted = runpy.run_path(benchmark("truth"))["planted"]
    assert planted.Quarter.people(Simulation(subjects=80))[0]["label"].sum() == 20


@pytest.mark.slow
def test_pairs_who_meet_twice_are_counted_twice(printed_by):
    """Of things of many features that tell nothing, some is nearly always significant if people were independent."""
    assert len(printed_by("twice").splitlines()) == 10
    significant, random = runpy.run_path(benchmark("twice"))["significant"], np.random.default_rng(0)
    named = np.array([significant(random.normal(size=(120, 30, 40)), 3, seed) for seed in range(30)]).any(2)
    alone, twice = named.sum(0)
    assert alone >= 9 and twice <= 5


def test_iq_is_lower_in_autism_and_chosen_edges_differ():
    """By so many points where it is known; edges between two systems, and no others."""
    names = runpy.run_path(benchmark("truth"))
    planted, connectomes, drawn = names["planted"], names["connectomes"], Simulation(subjects=60)
    before, (table, _) = demographics(drawn), planted.LowerIQ.people(drawn)
    lower = before["FIQ"].astype(int) - table["FIQ"].astype(int)
    known = before["FIQ"] != "-9999"
    np.testing.assert_array_equal(lower, planted.IQ_EFFECT * table["label"] * known)
    aal = atlas.load_atlas(None, REDUCED)
    places, edges = [aal.names[region] for region in aal.regions], connectomes.edges_between(aal, planted.PLANTED_EDGES)
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
    assert re.match(r"80 people, relatives: difference \d+\.\d%, correlation \d+\.\d%, with training people ", lines[1])
    nothing, much = lines[2], lines[4]
    assert "0 standard errors" in nothing and "planted named 0, planted named and come out 0" in nothing
    assert int(re.findall(r"planted named (\d+)", much)[0]) >= 6  # of eight


@pytest.mark.slow
def test_the_benchmark_of_planning_finds_what_the_normal_approximation_does(printed_by, tmp_path, monkeypatch):
    """Of an AUC near 0.5 of 200 new people, by its standard error where ranks are equally likely. The intervals are
    those of a test; folds, which share training people, need a higher AUC; of 50 people at 20 sites none has one."""
    made = runpy.run_path(benchmark("planning"))
    monkeypatch.setattr(metrics, "RESAMPLES", 200)
    every = [made["of_study"](200, 1, "new people", seed)["chance"] for seed in range(60)]
    spread = np.sqrt(201 / 12 / 100**2)  # of 100 people of each class
    assert made["power"](every) == pytest.approx(0.5 + spread * (norm.ppf(0.975) + norm.ppf(0.8)), abs=0.025)
    monkeypatch.chdir(tmp_path)
    printed_by("planning")
    found = pd.read_csv("planning/found.csv").set_index(["way", "better_than", "sites"])["auc"]
    assert np.isinf(found["ten folds", "chance", 20])
    assert 0.5 <= found["new people", "chance", 1] < 0.9


def test_the_benchmark_of_planning_has_the_verdicts_of_a_test_and_a_comparison():
    made = runpy.run_path(benchmark("planning"))
    for way, sites in itertools.product(("ten folds", "new people"), (1, 4)):
        people, first, second = made["simulated"](80, sites, way, 0)
        one, other = made["scored"](people, 0.8, first), made["scored"](people, 0.6, second)
        less = metrics.differences(one, other, 0)
        name = metrics.headline(less)
        assert made["verdict"](one, other) == pytest.approx(less[name].low)
        assert made["verdict"](one) == pytest.approx(metrics.with_intervals(one, 0)[name].low - 0.5)


@pytest.mark.slow
def test_the_benchmark_of_planning_counts_how_often_a_forecast_comes_true():
    made = runpy.run_path(benchmark("planning"))
    table = made["forecasts"](60, 3, 4, 0).set_index("way")
    assert (table["with_forecast"] == 4).all() and table["forecast"].between(0.7, 0.9).all()
    assert (table["called"] >= table["at_chance"]).all() and table["called"].max() > 0


def test_the_benchmark_of_planning_draws_people_in_proportion(cohort):
    made, whole = runpy.run_path(benchmark("planning")), open_cohort(cohort)
    some, fewer = (made["drawn"](whole, count, 0) for count in (20, 10))
    assert set(fewer.subjects("train")) < set(some.subjects("train")) <= set(whole.subjects("train"))
    assert len(some.subjects("train")) == 20 and some.subjects("test") == whole.subjects("test")
    shares = [np.mean([row.label for row in of.rows if row.split == "train"]) for of in (some, whole)]
    assert shares[0] == pytest.approx(shares[1], abs=0.15)
