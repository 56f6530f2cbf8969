"""The tables of a test, as a test on folds writes and its report reads them."""

import pandas as pd
import pytest

from utils.jobs import TEST
from utils.report.registry import OUTPUTS, ROWS, TABLES
from utils.report.tables import read


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
    tables = read(settled / "test-folds")
    assert tables.floors is tables.others["floors"] and tables.external is None
    with pytest.raises(AttributeError, match="no table flours"):
        _ = tables.flours
