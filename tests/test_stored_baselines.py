"""Baselines that are stored: another model tested on the same people takes them, and others are fitted anew."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import lab
import pandas as pd
import pytest
from commands import done

from data.cohorts.stored import open_run_cohort
from data.cohorts.variants import resplit, standardise_cohort
from utils.evaluation import stored_baselines
from utils.scores.baselines import predict_baselines

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

PLACES = " --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """What this process has fitted or read before is not in its memory."""
    forget_baselines(monkeypatch)


def forget_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_baselines, "BASELINES_BY_KEY", {})


def run_model_test(cohort: Path, folder: Path, options: str, results: str = "test") -> str:
    return done(f"run.py --test {options}{PLACES}{results}", of=cohort, to=folder)


def find_stored_tables(folder: Path) -> dict[str, int]:
    """When each file of stored baselines was written, by its name."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "ckpt/baselines").iterdir()}


def read_predictions(results: Path) -> bytes:
    return (results / "baseline_predictions.csv").read_bytes()


@pytest.fixture
def tested(converted, split, tmp_path) -> Path:
    """A folder with `ckpt` and `first`: nn, tested on the split by baselines fitted with nothing stored."""
    shutil.copytree(split / "ckpt", tmp_path / "ckpt", ignore=shutil.ignore_patterns("baselines"))
    run_model_test(converted, tmp_path, "--model nn", "first")
    return tmp_path


def test_stored_tables_have_all_digits_of_the_results_and_their_sums(tested):
    (table_path,) = (tested / "ckpt/baselines").glob("*.csv")
    written_tables = [pd.read_csv(path) for path in (table_path, tested / "first/baseline_predictions.csv")]
    pd.testing.assert_frame_equal(*written_tables, rtol=1e-6)
    description = json.loads(table_path.with_suffix(".json").read_text())
    assert description["sha256"] == hashlib.sha256(table_path.read_bytes()).hexdigest()


def test_another_model_on_the_same_folds_takes_them_in_several_processes(
    converted, on_folds, nn_on_folds, tmp_path, monkeypatch
):
    """Results are those of a test that found nothing stored."""
    for model_folder in (on_folds / "ckpt/mmnn", nn_on_folds / "ckpt/nn"):
        shutil.copytree(model_folder, tmp_path / "ckpt" / model_folder.name)
    run_model_test(converted, tmp_path, "--model nn --folds 3", "empty")
    shutil.rmtree(tmp_path / "ckpt/baselines")
    run_model_test(converted, tmp_path, "--model mmnn --folds 3 --jobs 2", "mmnn")
    stored_tables = find_stored_tables(tmp_path)
    forget_baselines(monkeypatch)
    run_model_test(converted, tmp_path, "--model nn --folds 3", "nn")
    assert find_stored_tables(tmp_path) == stored_tables and len(stored_tables) == 2 * 3
    for table_name in ("baseline_predictions", "baselines", "predictions"):
        tables = [(tmp_path / results / f"{table_name}.csv").read_bytes() for results in ("nn", "empty")]
        assert tables[0] == tables[1], table_name


def change_first_probability(table: pd.DataFrame) -> pd.DataFrame:
    table.iloc[0, 2] = "0.999"
    return table


DAMAGES: list[tuple[str, Any]] = [
    (".csv", change_first_probability),
    *((".csv", change) for change in ("flipped", "empty", "gone")),
]
DAMAGES += [(".json", change) for change in ("gone", b"[]")]


@pytest.mark.parametrize(("suffix", "change"), DAMAGES)
def test_edited_tables_are_fitted_anew(suffix, change, converted, tested, monkeypatch):
    (table_path,) = (tested / "ckpt/baselines").glob("*.csv")
    written_files = {path: path.read_bytes() for path in table_path.parent.iterdir()}
    lab.edit(table_path.with_suffix(suffix), change)
    forget_baselines(monkeypatch)
    printed_text = run_model_test(converted, tested, "--model nn", "second")
    assert ("not as it was written" in printed_text) == ((suffix, change) != (".csv", "gone"))
    assert {path: path.read_bytes() for path in table_path.parent.iterdir()} == written_files
    assert read_predictions(tested / "second") == read_predictions(tested / "first")


def test_a_table_that_agrees_with_its_sum_is_taken_as_it_is(converted, tested, monkeypatch):
    (table_path,) = (tested / "ckpt/baselines").glob("*.csv")
    lab.edit(table_path, change_first_probability)
    lab.edit(table_path.with_suffix(".json"), {"sha256": hashlib.sha256(table_path.read_bytes()).hexdigest()})
    forget_baselines(monkeypatch)
    run_model_test(converted, tested, "--model nn", "second")
    assert pd.read_csv(tested / "second/baseline_predictions.csv").iloc[0, 2] == 0.999


def test_other_labels_people_and_volumes_have_tables_of_their_own(converted, tmp_path):
    cohort = open_run_cohort(converted)
    split_by_subject = {row.subject: row.split for row in cohort.rows}
    training_row = next(row for row in cohort.rows if row.split == "train")
    relabelled_cohort = cohort.relabel({training_row.subject: 1 - training_row.label})
    cohorts = [
        cohort,
        relabelled_cohort,
        resplit(cohort, split_by_subject | {training_row.subject: "test"}),
        standardise_cohort(cohort, "brain"),
        cohort.without_connectomes,
        replace(cohort, groups=(tuple(cohort.list_split_subjects("train")[:2]),)),
    ]
    for table_count, other_cohort in enumerate(cohorts, 1):
        stored = stored_baselines.load_or_fit_baselines(other_cohort, None, tmp_path / "baselines")
        pd.testing.assert_frame_equal(stored, predict_baselines(other_cohort), check_exact=True)
        assert len(list((tmp_path / "baselines").glob("*.csv"))) == table_count
    new_people = stored_baselines.load_or_fit_baselines(cohort, relabelled_cohort, tmp_path / "baselines")
    pd.testing.assert_frame_equal(new_people, predict_baselines(cohort, relabelled_cohort), check_exact=True)
    assert len(list((tmp_path / "baselines").glob("*.csv"))) == len(cohorts) + 1


def test_an_unwritable_folder_is_reported_and_changes_nothing(converted, tested, monkeypatch):
    shutil.rmtree(tested / "ckpt/baselines")
    (tested / "ckpt/baselines").write_text("a file")
    forget_baselines(monkeypatch)
    assert "cannot keep what baselines predict" in run_model_test(converted, tested, "--model nn", "second")
    assert read_predictions(tested / "second") == read_predictions(tested / "first")
