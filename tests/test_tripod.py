"""The table of TRIPOD+AI: its items, and what a run fills, in part or leaves to the author."""

import pandas as pd
import pytest
from test_report import change, people, write_tables

from utils.report import texts
from utils.report.tables import read_test
from utils.report.texts import TEMPLATES

PARTS = {"3": "abc", "5": "ab", "6": "abc", "8": "abc", "9": "abc", "12": "abcdefg", "18": "abcdef", "20": "abc"}
PARTS |= {"23": "ab", "27": "abc"}


def test_there_are_27_items_and_52_with_their_parts_and_no_text_without_an_item(tmp_path):
    table = texts.tripod_items(read_test(write_tables(tmp_path / "folds", people(folds=3), folds="3")))
    expected = [f"{number}{part}" for number in range(1, 28) for part in PARTS.get(str(number), [""])]
    assert table["item"].tolist() == expected and len(expected) == 52
    assert (table[["section", "topic", "for", "asks"]] != "").all(axis=None)
    assert set(table["for"]) == {"D;E", "D", "E"}
    macros = {name for name in dir(TEMPLATES.get_template(texts.TRIPOD).module) if name.startswith("item_")}
    assert macros <= set("item_" + table["item"])


def filled(folder) -> pd.DataFrame:
    return texts.tripod_items(read_test(folder)).set_index("item")


def test_what_the_run_knows_is_filled_and_the_rest_is_the_authors(tmp_path):
    known = {"left_out": {"no map": 12}, "prepared": {"scaled_by": "fold", "conversion": "abide-data convert"}}
    table = filled(write_tables(tmp_path / "folds", people(folds=3), folds="3", **known))
    assert (table["filled_by"] != texts.AUTHOR).sum() >= 25
    for item in ("1", "2", "3a", "5b", "8b", "17", "18a", "19", "25", "27c"):
        assert (table["filled_by"][item], table["text"][item]) == (texts.AUTHOR, "")
    assert table["filled_by"]["10"] == texts.PART
    assert table["text"]["10"] == (
        "The test used 114 subjects of 3 sites (60 with autism, 54 controls): all people of the cohort. "
        "For the author: whether they are enough."
    )
    assert table["filled_by"]["15"] == texts.RUN and "0.610 (0.510 to 0.710)" in table["text"]["23a"]
    assert table["text"]["16"].startswith("Tested and training people of each fold are of one cohort")


@pytest.mark.parametrize(
    "item, values, told",
    [
        ("6b", {"left_out": {"no map": 12}}, "12: no map"),
        ("7", {"prepared": {"conversion": "abide-data convert"}}, "Converted by: abide-data convert."),
        ("11", {"prepared": {"scaled_by": "split"}}, "replaced by the median"),
        ("16", {"folds": "site"}, "Each fold leaves out one site"),
        ("26", {"warnings": ["No motion is known."]}, "What the run warns of: No motion is known."),
        ("27a", {"prepared": {"scaled_by": "split"}}, "take the median of the training subjects"),
    ],
)
def test_a_text_stands_where_the_tables_call_for_it(item, values, told, tmp_path):
    folder = write_tables(tmp_path / "folds", people(60, 3), folds="3", warnings=[])
    assert told not in filled(folder)["text"][item]
    change(folder, **values)
    assert told in filled(folder)["text"][item]


def test_without_labels_nothing_is_said_of_scores(tmp_path):
    table = filled(write_tables(tmp_path / "new", people(20).assign(label="")))
    assert set(table["filled_by"][["12d", "12e", "23a", "23b", "20b"]]) == {texts.AUTHOR}
