"""The report's rows on people: the flow adds up, few people are not counted, and Table 1 says what its file holds."""

import html
import json
import re
import shutil
from pathlib import Path

import lab
import pandas as pd
import pytest
from commands import done

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]
LEFT_OUT = {"no map": 12, "left out by --exclude": 1}


@pytest.fixture
def tested(on_folds, tmp_path) -> Path:
    return shutil.copytree(on_folds / "test", tmp_path / "test")


def rows_of(folder: Path) -> dict[str, list[list[str]]]:
    """The rows of the tables of the page, made again, by the heading above them."""
    done("abide-report {of}", of=folder)
    page = (folder / "report.html").read_text()
    parts = re.split(r"<h2[^>]*>", page)
    found = {}
    for part in parts[1:]:
        heading, _, rest = part.partition("</h2>")
        rows = [
            re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
            for row in re.findall(r"<tr.*?</tr>", rest, re.DOTALL)
        ]
        found[plain(heading)] = [list(map(plain, cells)) for cells in rows]
    return found


def plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())


def test_the_flow_of_people_adds_up(tested):
    lab.edit(tested / "run.json", {"left_out": LEFT_OUT})
    flow = {row[0]: row[1:] for row in rows_of(tested)["Flow of people"][1:]}
    counts = [int(row[0]) for row in flow.values()]
    assert counts[:3] == [53, 12, 1] and set(counts[3:]) == {40}
    tested_in = next(name for name in flow if name.startswith("tested in 3 folds"))
    labels = lab.read_table(tested / "predictions.csv")["label"].value_counts()
    assert flow[tested_in][1:3] == [str(labels["1"]), str(labels["0"])]


def test_few_people_of_a_site_are_not_counted(tested):
    """Nobody is alone in a row of a page that may leave the lab; the files beside it have all numbers."""
    counted = json.loads((tested / "run.json").read_text())["subjects"]
    counted[0] |= {"site": "CMU", "autism": 1, "control": 2}
    counted[1] |= {"site": "KKI", "autism": 0, "control": 1}
    lab.edit(tested / "run.json", {"subjects": counted})
    cohort = {row[0]: row[1:] for row in rows_of(tested)["The cohort"]}
    assert not {"site CMU", "site KKI"} & cohort.keys()
    assert next(row for name, row in cohort.items() if name.startswith("sites of fewer than 5"))[:1] == ["< 5"]
    assert not {"1", "2", "3", "4"} & {cell for row in cohort.values() for cell in row}


def test_table_1_is_on_the_page_as_its_file_says(tested):
    """Means with spreads in three digits, shares in percent, p; of both classes."""
    table = pd.read_csv(tested / "table1.csv")
    page = rows_of(tested)["Table 1: people by diagnosis"]
    assert page[0] == ["characteristic", "autism", "control", "missing: autism, control", "test", "p", "p of ranks"]
    shown = {row[0]: row for row in page[1:]}
    whole = table[table["site"].isna()]
    people = whole[whole["variable"] == "people"].iloc[0]
    assert shown["people"][1:3] == [f"{people['autism_known']:.0f}", f"{people['control_known']:.0f}"]
    for _, of in whole[whole["autism_mean"].notna()].iterrows():
        cells = shown[next(name for name in shown if of["variable"].lower() in name.lower())]
        for cell, name in zip(cells[1:3], ("autism", "control"), strict=True):
            mean, spread, median = map(float, re.fullmatch(r"(\S+) \((\S+)\) \[(\S+)\]", cell).groups())
            expected = [of[f"{name}_{what}"] for what in ("mean", "sd", "median")]
            assert [mean, spread, median] == pytest.approx(expected, rel=6e-3)
        assert float(cells[5].removeprefix("< ")) == pytest.approx(max(of["p"], 1e-4), rel=0.06)
    for _, of in whole[whole["autism_share"].notna()].iterrows():
        cells = shown[f"{of['variable']}: {of['category']}"]
        assert cells[1:3] == [f"{of['autism_share']:.0%}", f"{of['control_share']:.0%}"]
