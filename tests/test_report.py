"""abide-report: the page shows what the tables hold, names are text, few people are not told; the index."""

import json
import re
import subprocess
from itertools import takewhile
from pathlib import Path

import lab
import pandas as pd
import pytest
from commands import done, read_manifest, read_page_text, refused
from scipy.stats import chi2_contingency, fisher_exact, mannwhitneyu, ttest_ind

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]
HOSTILE = "</script><script>alert(1)</script>$x_{$ & <b>額"


def remake_page(folder: Path) -> Path:
    """The page of a test, made anew."""
    done("abide-report {of}", of=folder)
    return folder / "report.html"


def read_rows_by_cell(page: Path, first: str) -> dict[str, list[str]]:
    """The rows of the table whose first heading is this, with or without a footnote, by their first cells."""
    lines = read_page_text(page).splitlines()
    start = next(line_index for line_index, line in enumerate(lines) if re.match(rf"{re.escape(first)}\d? \| ", line))
    cells = [
        list(map(str.strip, re.split(r" \|(?= |$)", line)))
        for line in takewhile(lambda line: " | " in line, lines[start + 1 :])
    ]
    return {name: values for name, *values in cells}


def format_score(score_row: dict, name: str = "") -> str:
    """A score with its interval, of a row of a table, or of metrics.json."""
    ends = [score_row[f"{name}_{end}" if name else end] for end in ("low", "high")]
    interval_text = f"{ends[0]:.3f} to {ends[1]:.3f}" if pd.notna(ends[0]) else "(no interval: too few participants)"
    return f"{score_row[name or 'value']:.3f} {interval_text}"


@pytest.fixture(scope="module")
def tested(on_folds) -> Path:
    return on_folds / "test"


def test_scores_baselines_folds_and_sites_follow_the_tables(tested):
    page, metrics = tested / "report.html", json.loads((tested / "metrics.json").read_text())
    names = {"accuracy": "accuracy", "auc": "AUC, all participants together", "auc_sites": "AUC within sites"}
    cells_by_metric = read_rows_by_cell(page, "metric")
    assert {name: cells_by_metric[spelled] for name, spelled in names.items()} == {
        name: [format_score(metrics[name])] for name in names
    }
    least = "minimum_detectable_difference"
    cells_by_baseline = read_rows_by_cell(page, "baseline")
    columns = ("auc_sites", "model_minus_baseline_auc_sites", "auc", "accuracy")
    for row in pd.read_csv(tested / "baselines.csv").to_dict("records"):
        marked = " (pre-specified)" if row["role"] == "pre-specified" else ""
        score, less, *remaining_scores = (format_score(row, name) for name in columns)
        cells = [score, less, f"{row[least]:.3f}" if row[least] == row[least] else "", *remaining_scores]
        assert cells_by_baseline[f"{row['baseline']}{marked}"] == cells
    for fold, row in metrics["folds"].items():
        assert read_rows_by_cell(page, "fold")[fold][1:3] == [format_score(row["auc"]), format_score(row["accuracy"])]
    for row in pd.read_csv(tested / "sites.csv").to_dict("records"):
        counts = [str(row[name]) for name in ("subjects", "autism", "control")]
        assert read_rows_by_cell(page, "site | participants")[row["site"]] == [
            *counts,
            format_score(row, "auc"),
            format_score(row, "accuracy"),
        ]


def test_counts_follow_the_predictions(tested):
    table = pd.read_csv(tested / "predictions.csv")
    metrics = json.loads((tested / "metrics.json").read_text())
    cells_by_diagnosis = read_rows_by_cell(tested / "report.html", "diagnosis")
    for label, (name, score) in enumerate((("control", "specificity"), ("autism", "recall"))):
        is_called_autism = table[table["label"] == label]["probability"] >= 0.5
        right, ends = (is_called_autism == label).sum(), [metrics[score][end] for end in ("low", "high")]
        right_text = f"{right}: {right / len(is_called_autism):.0%} {ends[0]:.0%} to {ends[1]:.0%}"
        wrong = (
            f"{len(is_called_autism) - right}: {1 - right / len(is_called_autism):.0%} {1 - ends[1]:.0%} to "
            f"{1 - ends[0]:.0%}"
        )
        assert cells_by_diagnosis[name] == [wrong, right_text][:: 1 if label else -1]
    assert read_rows_by_cell(tested / "report.html", "step")["in the cohort"][0] == str(table["subject"].nunique())


def test_bars_stand_where_the_intervals_are(tested):
    """Of the first baseline: its value between its ends, and all in the scale of the line at 0.5."""
    page, baselines = (tested / "report.html").read_text(), pd.read_csv(tested / "baselines.csv").set_index("baseline")
    name = "regions, ridge"
    bar = rf">{name}<.*?left:([0-9.]+)%;width:([0-9.]+)%.*?left:([0-9.]+)%"
    left, width, dot = map(float, re.search(bar, page, re.S).groups())
    line = float(re.search(r'class="line" style="left:([0-9.]+)%', page)[1])
    value, low, high = (baselines.loc[name, f"auc_sites{end}"] for end in ("", "_low", "_high"))
    assert (dot - left) / width == pytest.approx((value - low) / (high - low), abs=0.02)
    assert (dot - line) / width == pytest.approx((value - 0.5) / (high - low), abs=0.02)


@pytest.mark.parametrize("rung_path", ["on_folds/test", "on_folds/test/fold-0", "split/test", "by_bundle/test"])
def test_a_page_from_the_folder_has_the_same_bytes_as_from_memory(rung_path, request, tmp_path):
    rung, _, place = rung_path.partition("/")
    first = request.getfixturevalue(rung) / place
    assert remake_page(lab.copy(first, tmp_path / "copy")).read_bytes() == (first / "report.html").read_bytes()


def test_a_page_with_figures_is_complete(nn_on_folds, converted, tmp_path, drawn):
    places = "--dataDir {of} --chkPointDir {by}/ckpt --outDir {to}"
    done(f"run.py --test --folds 3 --model nn {places}", of=converted, by=nn_on_folds, to=tmp_path)
    first = (tmp_path / "report.html").read_bytes()
    assert remake_page(tmp_path).read_bytes() == first and len(first) < 5e6
    outside = set(re.findall(r"https?://[^\"' ]+", first.decode()))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses
    size_by_output = read_manifest(tmp_path)["outputs"]
    assert size_by_output["report.html"] == f"{len(first)} bytes" and {"forest.png", "calibration.png"} <= {
        *size_by_output
    }


def test_names_are_text_and_the_command_is_typed_back_by_bash(tested, tmp_path):
    command = ["run.py", "a  b", "it's", "$HOME", "", HOSTILE, "Zürich"]
    hostile_fields = dict.fromkeys(("cohort", "checkpoint_folder", "preset"), HOSTILE)
    hostile_fields["conclusion"] = read_manifest(tested)["conclusion"] | {"why": HOSTILE, "notes": [HOSTILE]}
    table = pd.read_csv(tested / "predictions.csv", dtype=str)
    table = table.assign(site=HOSTILE, fold=HOSTILE + table["fold"])
    folder = lab.copy_test(
        tested, tmp_path / "copy", table, **hostile_fields, warnings=[HOSTILE + "\u202e"], command=command
    )
    lab.edit(
        folder / "baselines.csv",
        lambda stored_content: stored_content.assign(baseline=HOSTILE + stored_content["baseline"]),
    )
    lab.edit(folder / "sites.csv", lambda stored_content: stored_content.assign(site=HOSTILE + stored_content["site"]))
    folds = json.loads((folder / "metrics.json").read_text())["folds"]
    lab.edit(
        folder / "metrics.json", {"folds": {HOSTILE + name: stored_content for name, stored_content in folds.items()}}
    )
    page = remake_page(lab.copy_test(folder, tmp_path / "hostile"))
    text = page.read_text()
    assert text.count("<script") == 1 and "<b>" not in text and "\u202e" not in text
    typed = next(line for line in read_page_text(page).splitlines() if line.startswith("run.py "))
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {typed}"], capture_output=True, check=True)
    assert printed.stdout.decode().split("\0")[:-1] == [word.replace("  ", " ") for word in command]


def test_few_people_in_a_site_or_a_fold_are_not_reported(tested, tmp_path):
    """Nobody is alone in a row of a page that may leave the lab; the files beside it have all numbers."""
    folder = lab.copy_test(tested, tmp_path / "copy", left_out={"no map": 12, "left out by hand": 1})
    lab.edit(folder / "sites.csv", lambda site_table: site_table.assign(autism=["1", *site_table["autism"][1:]]))
    page = remake_page(lab.copy_test(folder, tmp_path / "few"))
    first, *_ = read_rows_by_cell(page, "site | participants").values()
    assert first[1] == "< 5" and first[3] == "-"
    flow = {name: int(cells[0]) for name, cells in read_rows_by_cell(page, "step").items()}
    assert flow["left out: no map"] == 12 and next(iter(flow.values())) == flow["in the cohort"] + 13


def test_table_1_equals_pandas_and_scipy(converted, tested):
    """On the page and in its file: numbers by Welch's t and ranks, categories by chi-squared, few by Monte Carlo."""
    people = pd.read_csv(converted / "subjects.csv").set_index("subject")
    covariates = pd.read_csv(converted / "covariates.csv").set_index("subject").loc[people.index]
    label = people["label"].to_numpy()
    table = pd.read_csv(tested / "table1.csv", keep_default_na=False).set_index(["variable", "site", "category"])
    number = pd.to_numeric
    for name in ("AGE_AT_SCAN", "func_mean_fd"):
        row = table.loc[name, "", ""]
        classes = {"autism": covariates[name][label == 1].dropna(), "control": covariates[name][label == 0].dropna()}
        for kind, values in classes.items():
            expected = [len(values), 20 - len(values), values.mean(), values.std(), values.median()]
            table_numbers = [number(row[f"{kind}_{value}"]) for value in ("known", "missing", "mean", "sd", "median")]
            assert table_numbers == pytest.approx(expected)
        welch = ttest_ind(*classes.values(), equal_var=False)
        assert [number(row["statistic"]), number(row["p"])] == pytest.approx([welch.statistic, welch.pvalue])
        assert number(row["p_ranks"]) == pytest.approx(mannwhitneyu(*classes.values()).pvalue)
        pitt_values = covariates[name][(label == 1) & (people["site"] == "PITT")]
        assert number(table.loc[name, "PITT", ""]["autism_mean"]) == pytest.approx(pitt_values.mean())
    counts = pd.crosstab(covariates["SEX"], label)
    expected = chi2_contingency(counts, correction=False)
    row = table.loc["SEX", "", ""]
    assert [row["test"], number(row["p"])] == ["chi-squared", pytest.approx(expected.pvalue)]
    sex_fractions = [number(table.loc["SEX", "", name]["control_share"]) for name in ("female", "male")]
    assert sex_fractions == pytest.approx(counts.loc[[2, 1], 0] / 20)
    assert (table[table.index.get_level_values("site") != ""]["test"] == "").all()
    age = table.loc["AGE_AT_SCAN", "", ""]
    cell = "{:.3g} ({:.3g}) [{:.3g}]".format(
        *(number(age[f"autism_{statistic_name}"]) for statistic_name in ("mean", "sd", "median"))
    )
    age_cells = read_rows_by_cell(tested / "report.html", "characteristic")["AGE_AT_SCAN"]
    assert age_cells[0].replace(".00", "").split()[0] == cell.split()[0] and age_cells[3] == "Welch's t"


def test_few_people_are_compared_by_exact_tests(newcomers, by_bundle):
    people = pd.read_csv(newcomers / "subjects.csv").set_index("subject")
    sex = pd.read_csv(newcomers / "covariates.csv").set_index("subject").loc[people.index, "SEX"]
    table = pd.read_csv(by_bundle / "test/table1.csv", keep_default_na=False)
    (row,) = table[(table["variable"] == "SEX") & (table["test"] != "")].to_dict("records")
    assert row["test"] == "Fisher's exact"
    assert float(row["p"]) == pytest.approx(fisher_exact(pd.crosstab(sex, people["label"])).pvalue)


def test_the_index_has_a_row_for_a_finished_run_and_overwrites_no_user_page(tested, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "notes").mkdir()
    started = {"a b": "2026-01-02T03:04:05+0000", "later": "2027-01-02T03:04:05+0000"}
    for name, when in started.items():
        lab.copy_test(tested, runs / name, started=when, simulated=name == "later", cohort="/secret/place/cohort")
    lab.copy_test(tested, runs / "unfinished", finished=False)
    assert "2 runs" in done("abide-report {of}", of=runs)
    page = runs / "index.html"
    (_, later_cells), (_, earlier_cells) = read_rows_by_cell(page, "run").items()
    estimate = read_manifest(tested)["headline"][1:]
    assert [*read_rows_by_cell(page, "run")] == ["later", "a b"] and "{:.3f} {:.3f} to {:.3f}".format(
        *estimate
    ) in later_cells
    assert "SIMULATED" in " ".join(later_cells) and "SIMULATED" not in " ".join(earlier_cells)
    assert "secret" not in page.read_text() and 'href="a%20b/report.html"' in page.read_text()
    lab.edit(page, b"mine")
    refused("abide-report {of}", "index.html", "no index", of=runs)
