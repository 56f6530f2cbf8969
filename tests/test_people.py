"""The report's rows on people: the flow adds up, and Table 1 says what its file holds."""

import json
import re

import pandas as pd
import pytest
from test_report import change, parsed, people, write_tables

from data.pages.page import templates
from utils import figures
from utils.report import drawings
from utils.report import people as rows_on
from utils.report.tables import read_test


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures are not looked at here."""
    monkeypatch.setattr(drawings, "roc_band", lambda predictions, seed: None)
    monkeypatch.setitem(templates().globals, "svg", lambda figure: "")
    monkeypatch.setattr(figures, "save", lambda figure, path: [])


LEFT_OUT = {"no map": 12, "left out by --exclude": 1}


@pytest.mark.parametrize("folds", [0, 3])
def test_the_flow_of_people_adds_up(folds, tmp_path):
    table = people(folds=folds)
    table["label"] = table["label"].mask(table["subject"] == "1", "")
    folder = write_tables(tmp_path / "some", table, left_out=LEFT_OUT)
    flow = {row["step"]: row for row in rows_on.flow(read_test(folder))}
    found, first, second, cohort, tested, scored = (int(row["people"]) for row in flow.values())
    assert (found - first - second, first, second) == (cohort, 12, 1)
    assert cohort == tested == table["subject"].nunique() == scored + 1
    step = "tested in 3 folds of 38, each by a model trained on the others" if folds else "tested"
    assert [flow[step][name] for name in ("autism", "control", "unknown")] == ["59", "54", "1"]


@pytest.mark.slow
def test_the_page_says_who_was_left_out_and_who_is_unknown(tmp_path):
    folder = write_tables(tmp_path / "one", people(20))
    assert parsed(folder).paragraphs["Flow of people"] == [
        "Nobody is recorded as left out when the cohort was made. Who was scanned and is not in its table is not known "
        "here."
    ]
    change(folder, simulated=True)
    assert "Flow of people" not in parsed(folder).paragraphs
    change(folder, left_out=LEFT_OUT)
    page = parsed(folder)
    assert page.paragraphs["Flow of people"][0].startswith("Found: the rows of the table")
    assert ["left out: no map", "12", "", "", ""] in page.rows["Flow of people"]


def test_few_people_of_a_site_or_a_fold_are_not_counted(tmp_path):
    """Nobody is alone in a row of a page that may leave the lab; the files beside it have all numbers."""
    table = people(60, folds=3)
    alone = table["subject"].isin(["0", "1", "4"])
    table["site"] = table["site"].mask(alone, "CMU").mask(table["subject"] == "6", "KKI")
    table["fold"] = table["fold"].mask(alone, "9")
    page = parsed(write_tables(tmp_path / "small", table))
    cohort = {row[0]: row[1:] for row in page.rows["The cohort"]}
    assert cohort["sites of fewer than 5 people: 2"] == ["< 5", "< 5", "0"]
    assert cohort["fold 9"] == ["< 5", "< 5", "0"]
    assert not {"site CMU", "site KKI"} & cohort.keys() and int(cohort["site NYU"][0]) >= 5
    folds = {row[0]: row[1:] for row in page.rows["Folds"]}
    assert set(folds["9"][1:]) == {"-"} and folds["9"][0] == "< 5" and folds["0"][1] == "0.600 (0.500 to 0.700)"
    counts = [cell for name in ("The cohort", "Folds", "Sites") for row in page.rows[name] for cell in row[1:]]
    assert not {"1", "2", "3", "4"} & set(counts)
    rows = json.loads((tmp_path / "small" / "run.json").read_text())["subjects"]
    assert {row["site"] for row in rows} >= {"CMU", "KKI"}


def test_people_of_unknown_diagnosis_are_named(tmp_path):
    page = parsed(write_tables(tmp_path / "new", people(20).assign(label="")))
    assert page.paragraphs["Flow of people"][0].endswith("unknown take no part in any score.")


@pytest.fixture
def with_table1(tmp_path):
    """People, age and sex of all and of two sites."""
    folder = write_tables(tmp_path / "table1", people(20))
    of_class = [f"{name}_{value}" for name in ("autism", "control") for value in ("known", "missing", "mean", "sd")]
    columns = ["variable", "site", "category", *of_class, "autism_median", "control_median", "autism_share"]
    columns += ["control_share", "test", "statistic", "p", "p_ranks"]
    few = {"autism_known": 4, "control_known": 5}
    rows = [
        {"variable": "people", "autism_known": 9, "control_known": 11},
        {"variable": "age", "autism_known": 8, "autism_missing": 1, "control_known": 11, "control_missing": 0}
        | {"autism_mean": 17.34, "autism_sd": 9, "autism_median": 0.09544, "control_mean": 123.4, "control_sd": 8}
        | {"control_median": 0, "test": "Welch's t", "statistic": 1, "p": 0.00001, "p_ranks": 0.0123},
        {"variable": "sex", "test": "Fisher's exact", "p": 0.5, "autism_missing": 0, "control_missing": 0},
        {"variable": "sex", "category": "F", "autism_share": 0.25, "control_share": 0.5},
        {"variable": "sex", "category": "M", "autism_share": 0.75, "control_share": 0.5},
        {"variable": "people", "site": "NYU", **few},
        {"variable": "age", "site": "NYU", **few, "autism_mean": 15.24, "control_mean": 16.1},
        {"variable": "sex", "site": "NYU", **few},
        {"variable": "sex", "site": "NYU", "category": "F", "autism_share": 0.0, "control_share": 0.4},
        {"variable": "sex", "site": "NYU", "category": "M", "autism_share": 1.0, "control_share": 0.6},
    ]
    pd.DataFrame(rows).reindex(columns=columns).to_csv(folder / "table1.csv", index=False)
    return folder


def test_table_1_is_on_the_page_as_its_file_says(with_table1):
    page = parsed(with_table1)
    assert page.rows["Table 1: people by diagnosis"] == [
        ["characteristic", "autism", "control", "missing: autism, control", "test", "p", "p of ranks"],
        ["people", "9", "11", "", "", "", ""],
        ["age", "17.3 (9.00) [0.0954]", "123 (8.00) [0]", "< 5, 0", "Welch's t", "< 0.0001", "0.012"],
        ["sex", "", "", "0, 0", "Fisher's exact", "0.5", ""],
        ["sex: F", "25%", "50%", "", "", "", ""],
        ["sex: M", "75%", "50%", "", "", "", ""],
    ]
    assert page.rows["Table 1, by site"] == [
        ["site", "people", "age", "sex: M"],
        ["NYU", "< 5 / 5", "- / 16.1", "- / 60%"],  # of four people nothing is told
    ]
    assert "not corrected for the number of 3 tests" in page.paragraphs["Table 1: people by diagnosis"][1]


def test_table_1_without_tests_speaks_of_none(with_table1):
    table = pd.read_csv(with_table1 / "table1.csv").assign(test="", p="", p_ranks="")
    table[table["site"].isna()].to_csv(with_table1 / "table1.csv", index=False)
    page = parsed(with_table1)
    assert not re.search("p: two-sided", " ".join(page.paragraphs["Table 1: people by diagnosis"]))
    assert "Table 1, by site" not in page.headings
