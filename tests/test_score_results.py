"""A value with its interval: its numbers, cells and texts; a metric that stands for a run; the tables of a test."""

import json
import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from data.base import files
from utils.jobs import TEST
from utils.report.tables import read_test
from utils.scores.results import OUTPUTS, ROWS, TABLES, UNDEFINED, Estimate, Headline, columns_of, flat, or_none

SURE, ALONE = Estimate(0.61, 0.5, 0.7204), Estimate(0.61, None, None)


def test_json_has_neither_nan_nor_infinity():
    assert [or_none(value) for value in (np.float32(0.5), np.nan, np.inf, None)] == [0.5, None, None, None]
    assert Estimate.of(0.5, np.nan, -np.inf) == Estimate(0.5, None, None)
    assert Estimate.of(np.float64(0.5)).columns() == {"value": 0.5, "low": None, "high": None}


def test_what_is_undefined_is_nan_among_numbers():
    assert SURE.numbers == (0.61, 0.5, 0.7204)
    assert all(map(math.isnan, UNDEFINED.numbers))


@pytest.mark.parametrize(
    ("estimate", "how", "text"),
    [
        (SURE, {}, "0.610 (0.500 to 0.720)"),
        (SURE, {"form": ".2f"}, "0.61 (0.50 to 0.72)"),
        (SURE, {"between": "-"}, "0.610 (0.500-0.720)"),
        (ALONE, {}, "0.610"),
        (ALONE, {"no_interval": "too few"}, "0.610 (too few)"),
        (UNDEFINED, {}, "-"),
        (UNDEFINED, {"undefined": "undefined", "no_interval": "too few"}, "undefined"),
    ],
)
def test_texts(estimate, how, text):
    assert estimate.text(**how) == text


def test_ends_alone():
    assert SURE.ends(".0%") == "50% to 72%" and ALONE.ends() == "-" and ALONE.ends(undefined="none") == "none"


def test_a_row_of_a_table_gives_back_what_was_put_into_it():
    row = pd.DataFrame([flat({"auc": SURE, "brier": ALONE})]).iloc[0]
    assert list(row.index) == [*columns_of("auc"), *columns_of("brier")]
    assert Estimate.in_row(row, "auc") == SURE and Estimate.in_row(row, "brier") == ALONE
    assert Estimate.in_row(pd.Series(SURE.columns())) == SURE


def test_json_is_read_as_it_was_written_and_nothing_may_be_missing():
    assert asdict(SURE) == SURE.columns()
    assert files.typed(json.dumps(asdict(SURE)), Estimate) == SURE
    with pytest.raises(ValueError, match="high"):
        files.typed('{"value": 0.5, "low": null}', Estimate)


def test_the_headline_of_a_run_is_a_list_in_json():
    assert Headline("auc", SURE).listed == ["auc", 0.61, 0.5, 0.7204]


def test_each_table_is_an_output_of_the_test_by_its_name():
    assert len(TABLES) == len(ROWS) == len({table.file for table in ROWS})
    assert {table.file for table in ROWS} < set(OUTPUTS) <= set(TEST.outputs) and len(set(OUTPUTS)) == len(OUTPUTS)
    assert OUTPUTS[:5] == ("predictions.csv", "floor_predictions.csv", "training.csv", "metrics.json", "floors.csv")


@pytest.mark.slow
def test_what_is_no_text_is_a_number_and_what_is_needed_is_there(settled):
    written = [table for table in ROWS if (settled / "test-folds" / table.file).exists()]
    assert {"predictions", "floors", "sites", "table1", "tripod_ai"} <= {table.name for table in written}
    for table in written:
        found = pd.read_csv(settled / "test-folds" / table.file, dtype=str, keep_default_na=False)
        assert set(table.needed) <= set(found)
        for name in set(found) - {*table.texts, "set_80", "set_90"}:
            found[name][found[name] != ""].astype(float)


@pytest.mark.slow
def test_tables_are_attributes_and_a_name_that_no_table_has_is_a_mistake(settled):
    tables = read_test(settled / "test-folds")
    assert tables.floors is tables.others["floors"] and tables.external is None
    with pytest.raises(AttributeError, match="no table flours"):
        _ = tables.flours
