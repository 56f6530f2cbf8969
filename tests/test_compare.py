"""abide-compare: differences by other means, whom it compares, and that it harms nobody's files."""

import shutil
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, listing, refused
from oracles import average_group_auc
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, roc_auc_score

from utils.scores.metrics import Predictions, estimate_score_differences

pytestmark = pytest.mark.slow
HOSTILE = "</script><script>alert(1)</script>$x_{$ & <b>額"


def people(count: int = 160, folds: int = 5) -> pd.DataFrame:
    """People of three sites, a few of whom have two records, in folds that hold both classes of each site."""
    record_numbers = np.arange(count)
    subject = record_numbers - 2 * (record_numbers % 20 == 2)
    columns = {"file": [f"{number}.bin" for number in record_numbers], "subject": subject.astype(str)}
    columns |= {"site": np.array(["NYU", "PITT", "UCLA"])[subject // 2 % 3], "label": (record_numbers % 2).astype(str)}
    return pd.DataFrame(columns).assign(fold=(subject // 6 % folds).astype(str))


def predict_people(table: pd.DataFrame, seed: int, effect: float) -> pd.DataFrame:
    """The same people by a classifier that knows as much as the effect, with some ties."""
    value = np.random.default_rng(seed).normal(effect * (table["label"].astype(float) - 0.5), 1)
    return table.assign(probability=(1 / (1 + np.exp(-value))).round(2))


@pytest.fixture
def folder(on_folds, tmp_path):
    """`folder("a", table)` is that of a test of these predictions."""

    def make(name: str, table: pd.DataFrame, **manifest_fields: object) -> Path:
        return lab.copy_test(
            on_folds / "test", tmp_path / name, table, **{"folds": "5", "warnings": [], **manifest_fields}
        )

    return make


@pytest.fixture
def two(folder) -> tuple[Path, Path]:
    """A test that knows much, and one that guesses."""
    return folder("a", predict_people(people(), 0, 3)), folder(
        "b", predict_people(people(), 1, 0), preset="regions", seed=4
    )


def compare_runs(*runs: Path) -> pd.DataFrame:
    """The table that compares them, which the command writes to the folder `out`."""
    done(f"abide-compare {' '.join(map(str, runs))} --outDir out")
    return pd.read_csv("out/compare.csv")


def test_scores_and_differences_equal_scikit_learn_with_paired_intervals(two):
    (row,) = compare_runs(*two).to_dict("records")
    assert (row["a"], row["b"], row["conclusion"], row["by"]) == (*map(str, two), "a is better", "auc_sites")
    tables = [pd.read_csv(folder / "predictions.csv", dtype={"subject": str}).sort_values("file") for folder in two]
    areas = {
        "auc": [roc_auc_score(table["label"], table["probability"]) for table in tables],
        "auc_sites": [average_group_auc(table, "site") for table in tables],
        "auc_folds": [average_group_auc(table, "fold") for table in tables],
        "brier": [brier_score_loss(table["label"], table["probability"]) for table in tables],
    }
    paired = estimate_score_differences(Predictions.from_tables(tables[0]), Predictions.from_tables(tables[1]), seed=0)
    for name, (first_value, second_value) in areas.items():
        assert (row[f"{name}_a"], row[f"{name}_b"]) == pytest.approx((first_value, second_value))
        difference_with_ends = [row[f"a_minus_b_{name}{end}"] for end in ("", "_low", "_high")]
        assert difference_with_ends == pytest.approx([first_value - second_value, *paired[name].value_low_high[1:]])
    assert (row["subjects"], row["records"]) == (152, 160)


@pytest.mark.parametrize(
    "effects, table, conclusion",
    [
        ((3, 0), people(), "a is better"),
        ((1, 1), people(), "no difference shown"),
        ((3, 0), people(18), "cannot be told"),  # no interval
        (
            (3, 0),
            people().assign(label=(people()["site"] == "NYU").astype(int).astype(str)),
            "cannot be told",
        ),  # no value
    ],
)
def test_the_conclusion_follows_from_the_interval(effects, table, conclusion, folder):
    runs = [
        folder(str(run_number), predict_people(table, run_number, effect)) for run_number, effect in enumerate(effects)
    ]
    (row,) = compare_runs(*runs).to_dict("records")
    assert row["conclusion"] == conclusion
    assert pd.isna(row["a_minus_b_auc_sites_low"]) == (conclusion == "cannot be told")
    assert pd.isna(row["auc_sites_a"]) == (table["label"].groupby(table["site"]).nunique() == 1).all()


def test_where_runs_are_not_distinguished_the_detectable_difference_is_reported(folder, tmp_path):
    """1.96 and 0.84 standard errors, and more where three pairs hold together; nothing of a run beside its equal."""
    runs = [folder(str(seed), predict_people(people(), seed, 1)) for seed in range(2)]
    runs.append(shutil.copytree(runs[1], tmp_path / "c"))
    compare_output = done(f"abide-compare {runs[0]} {runs[1]} --outDir out")
    (alone,) = pd.read_csv("out/compare.csv").to_dict("records")
    together = compare_runs(*runs)
    detectable = "minimum_detectable_difference"
    for row, tail in ((alone, 0.025), (together.loc[0], 0.025 / 3)):
        error = (row["a_minus_b_auc_sites_high"] - row["a_minus_b_auc_sites_low"]) / 2 / norm.isf(tail)
        assert row[detectable] == pytest.approx((norm.isf(tail) + norm.isf(0.2)) * error)
    assert f"would show one of {alone[detectable]:.3f}" in compare_output and pd.isna(together.loc[2, detectable])
    assert "minimum detectable" in Path("out/compare.html").read_text()


def test_the_intervals_for_three_pairs_hold_together(two, tmp_path):
    alone, together = compare_runs(*two), compare_runs(*two, shutil.copytree(two[1], tmp_path / "c"))
    assert [*alone["among"], *together["among"]] == [1, 3, 3, 3]
    equal = together.iloc[2]
    assert equal["conclusion"] == "no difference shown"
    assert equal["a_minus_b_auc_sites"] == equal["a_minus_b_auc_sites_low"] == 0
    for name in ("auc_sites", "auc"):
        value, *ends = (alone.loc[0, f"a_minus_b_{name}{end}"] for end in ("", "_low", "_high"))
        wider = [value + norm.ppf(1 - 0.025 / 3) / norm.ppf(0.975) * (end - value) for end in ends]
        stored_ends = [together.loc[0, f"a_minus_b_{name}{end}"] for end in ("_low", "_high")]
        assert stored_ends == pytest.approx(wider, abs=1e-6)


def test_scores_over_repeats_are_means(folder, two):
    cuts = [people(), people(folds=4)]
    tables = [
        [
            predict_people(people_table, 10 * run_number + number, 2 - run_number)
            for number, people_table in enumerate(cuts)
        ]
        for run_number in (0, 1)
    ]
    repeat_tables = [
        pd.concat([table.assign(repeat=number) for number, table in enumerate(run_tables)]) for run_tables in tables
    ]
    runs = [folder(f"repeats-{run_number}", table, repeats=2) for run_number, table in enumerate(repeat_tables)]
    (row,) = compare_runs(*runs).to_dict("records")
    means = [
        np.mean([average_group_auc(table.astype({"label": int}), "site") for table in run_tables])
        for run_tables in tables
    ]
    assert row["a_minus_b_auc_sites"] == pytest.approx(means[0] - means[1])
    refusal = refused("abide-compare {a} {b} --outDir {to}", "only {a} has repeat 1", a=runs[0], b=two[1], to="missing")
    assert "(160 such rows)" in refusal


OTHERS: dict[str, tuple[Any, ...]] = {  # what is otherwise in b, and what is said of it
    "people": (
        lambda people_rows: people_rows[~people_rows["file"].isin(["1.bin", "3.bin"])],
        "only {a} has",
        "file 1.bin",
        "(2 such rows)",
    ),
    "label": (
        lambda people_rows: people_rows.assign(label=["", *people_rows["label"][1:]]),
        "label",
        "subject 0,",
        "(2 such rows)",
    ),
    "site": (lambda people_rows: people_rows.assign(site="NYU"), "file 10.bin, subject 10,", "site"),
    "fold": (lambda people_rows: people_rows.assign(fold=people(folds=4)["fold"]), "fold ", "same cohort, folds"),
    "split": (lambda people_rows: people_rows.drop(columns="fold"), "only {a} has", "(320 such rows)"),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_different_people_labels_sites_and_folds_are_refused(difference, folder, two):
    change, *words = OTHERS[difference]
    third = folder("third", change(pd.read_csv(two[1] / "predictions.csv", dtype=str)))
    refused("abide-compare {a} {b} --outDir {to}", *words, a=two[0], b=third, to="missing")


def test_records_are_matched_by_name_and_unlabelled_records_are_ignored(folder):
    tables = [predict_people(people(), seed, 1) for seed in range(2)]
    for table in tables:
        table.loc[:9, "label"] = ""
    (row,) = compare_runs(folder("a", tables[0]), folder("b", tables[1].iloc[::-1])).to_dict("records")
    assert row["records"] == 150
    labelled = tables[1][10:]
    assert row["auc_b"] == pytest.approx(roc_auc_score(labelled["label"].astype(int), labelled["probability"]))
    unknown = [folder(name, people().assign(label="", probability=0.5)) for name in ("c", "d")]
    refused("abide-compare {a} {b} --outDir {to}", "{a}", "no known label", a=unknown[0], b=unknown[1], to="missing")


def test_with_many_runs_the_terminal_lists_differing_pairs_in_ten_lines(folder):
    runs = [
        folder(
            f"run-{run_number}",
            predict_people(people(), run_number, 3 * (run_number == 4)),
            problems=[{"code": "a", "text": "a"}] * (run_number == 0),
        )
        for run_number in range(5)
    ]
    compare_output = done(f"abide-compare {' '.join(map(str, runs))} --outDir out")
    verdict, head, *rows, path = compare_output.splitlines()
    assert len(rows) <= 7 and path.endswith("out/compare.html") and head.startswith("AUC")
    assert verdict.startswith(f"Problems invalidate this. {runs[4]} is better than {runs[0]} and 3 more.")
    assert rows[0].endswith(f"  {runs[0]} minus {runs[4]}")


def test_markup_in_names_is_text(folder):
    table = people(80).assign(
        site=lambda people_table: people_table["site"].replace({"NYU": HOSTILE, "PITT": "=cmd|' /C calc'!A0"})
    )
    table["subject"] = table["subject"] + HOSTILE
    more = {"packages": {"<script>": HOSTILE}, "cohort": HOSTILE}
    compare_runs(folder("a", predict_people(table, 0, 1)), folder("b", predict_people(table, 1, 1), **more))
    page = Path("out/compare.html").read_text()
    assert page.count("<script") == 1 and "<b>額" not in page and "&lt;script&gt;" in page


def test_runs_are_left_alone_and_an_earlier_comparison_is_moved_aside(two):
    before = [listing(run_folder) for run_folder in two]
    compare_runs(*two)
    (row,) = compare_runs(*reversed(two)).to_dict("records")
    (earlier,) = Path("out/earlier").glob("*/compare.csv")
    assert [row["conclusion"], *pd.read_csv(earlier)["conclusion"]] == ["b is better", "a is better"]
    assert [listing(run_folder) for run_folder in two] == before
    refused("abide-compare {a} {b}", "compare of", a=two[0], b=Path("out"))
