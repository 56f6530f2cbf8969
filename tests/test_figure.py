"""The figure for the paper and the page's new sections, from tables made up: what they show is what the tables say."""

import dataclasses
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import Page, effects_of, made_up_table, region_table_of
from matplotlib import pyplot as plt

from data.cohorts import atlas, records
from data.cohorts.rows import Row
from utils import figures
from utils.blackout import figure, page, results
from utils.runs.checkpoints import Caveats
from utils.scores.results import Estimate, Headline


def blocks() -> atlas.Atlas:
    labels = np.zeros(records.FULL.shape, np.int32)
    labels[20:30, 40:50, 20:24], labels[60:70, 40:50, 30:34], labels[20:30, 60:70, 70:74] = 2, 5, 9
    return atlas.Atlas(atlas.reduce_labels(labels), {2: "first", 5: "second", 9: "third"}, records.REDUCED, labels, [])


PEOPLE = 24
OUTSIDE = "outside all regions"
ENDS = [("front", "front"), ("front", "</script>"), ("front", OUTSIDE), ("</script>", OUTSIDE)]
INNER = [("first", "third"), ("first", "second"), ("first", OUTSIDE), ("second", "second"), ("third", "third")]
GROUPS = {
    "group": ["age", "<i>sex</i>", "IQ"],
    "values": ["AGE", "SEX", "FIQ; VIQ; which test of the intelligence it was"],
    "difference_of": ["AGE", "SEX", "FIQ"],
}


def ends(level: str, pairs: list[tuple[str, str]]) -> dict:
    a, b = zip(*pairs, strict=True)
    return {"level": level, "a": a, "b": b, "system_a": a, "system_b": b, "edges": range(1, len(pairs) + 1)}


@pytest.fixture(scope="module")
def run() -> SimpleNamespace:
    named = {"model": SimpleNamespace(name="mmnn"), "data_dir": None, "cohort": SimpleNamespace(simulated=True)}
    return SimpleNamespace(**named, marks="", caveats=Caveats(), standard="brain")


@pytest.fixture(scope="module")
def found() -> results.BlackoutResults:
    """One pair of systems, two pairs of regions and the second group are significant."""
    random = np.random.default_rng(0)
    rows = [Row(f"{at}.bin", f"s{at:02}", "NYU", float(at % 2), "test") for at in range(PEOPLE)]
    effects = effects_of(rows, 3, reliance=random.normal(0, 0.1, (PEOPLE, 3)))
    none = dict.fromkeys(("difference", "difference_low", "difference_high", "correlation"), np.nan)
    table = region_table_of(blocks(), effects).assign(**none, direction="")
    pairs = [made_up_table(ends("systems", ENDS), [1]), made_up_table(ends("regions", INNER), [1, 2])]
    row = {"between": "halves", "family": "values", "thing": "age", "named": 1, "comes_out": 0.6, "in_the_other": 0.5}
    whole = {"between": "halves", "family": "values", "named": 1, "correlation": 0.4, "correlation_low": 0.2}
    return results.BlackoutResults(
        effects,
        "AUC 0.80.",
        Headline("auc", Estimate(0.8, 0.7, 0.9)),
        results.Regions(table, False, atlas=blocks()),
        connections=results.Pairs(pd.concat(pairs, ignore_index=True), False, "One pair is named."),
        values=results.Things(made_up_table(GROUPS, [1]), False, "Sex is named."),
        replication=pd.DataFrame([row, whole | {"correlation_high": 0.6}]),
        first_sentence="Of the 1 value named, 1 comes out in halves of these people.",
    )


def at_chance(of: results.BlackoutResults) -> results.BlackoutResults:
    parts = ("regions", "connections", "values")
    changed = {name: dataclasses.replace(getattr(of, name), at_chance=True) for name in parts}
    return dataclasses.replace(of, judged=Headline("auc", Estimate(0.5, 0.4, 0.6)), **changed)


def only_values(of: results.BlackoutResults) -> results.BlackoutResults:
    return dataclasses.replace(of, regions=None, connections=None)


@pytest.fixture
def plain(monkeypatch):
    """Without what nilearn draws, which is slow."""
    monkeypatch.setattr(page, "viewer", lambda _: "")
    monkeypatch.setattr(figure, "draw_brain", lambda *_: None)


def test_the_matrix_has_each_pair_of_systems_twice(found):
    matrix, table = found.connections.matrix, found.connections.table
    assert matrix.rows == matrix.columns == ["</script>", "front", OUTSIDE]
    for a, b in ENDS:
        (row,) = table[(table["level"] == "systems") & (table["a"] == a) & (table["b"] == b)].to_dict("records")
        at = matrix.rows.index(a), matrix.rows.index(b)
        assert matrix.effect[at] == matrix.effect[at[::-1]] == row["reliance"]
        assert matrix.p[at] == row["p_reliance"] and matrix.marked[at] == (row["p_reliance"] < 0.05)
    assert np.isnan(matrix.effect[0, 0]) and matrix.colours[0, 0, 3] == 0 and matrix.marked.sum() == 2


@pytest.mark.slow
def test_the_figure_shows_what_the_tables_say(run, found, plain):
    drawn = figure.draw(run, found)
    told = [text.get_text() for text in drawn.texts]
    assert "mean over 24 test subjects" in told[0] and found.first_sentence in told[1] and "AUC 0.80." in told[1]
    assert [text for text in told if text[1:4] == "   "] == [
        *("a   Regions", "b   Connections", "c   Values of the phenotype")
    ]
    (matrix,) = [axis for axis in drawn.axes if axis.get_xticklabels() and axis.images and axis.get_xlabel() == ""]
    assert len(matrix.patches) == 2  # the frames of one pair, from both sides
    values = found.values.table.iloc[::-1]
    (bars,) = [
        axis for axis in drawn.axes if [each.get_text() for each in axis.get_yticklabels()] == values["group"].tolist()
    ]
    assert [bar.get_width() for bar in bars.patches] == values["reliance"].tolist()
    red = [bar.get_facecolor()[0] > bar.get_facecolor()[1] + 0.2 for bar in bars.patches]
    assert red == (values["p_reliance"] < 0.05).tolist() and sum(red) == 1
    first = values.iloc[-1]
    interval = f"({first['difference_low']:.2f} to {first['difference_high']:.2f})"
    assert f"{first['difference']:.2f} {interval}  {first['difference_of']}: higher in autism, and read so" in told
    plt.close(drawn)


@pytest.mark.slow
def test_of_a_network_at_chance_nothing_is_marked(run, found, plain):
    drawn = figure.draw(run, at_chance(found))
    bars = [bar for axis in drawn.axes for bar in axis.patches]
    assert {bar.get_facecolor()[:3] for bar in bars} == {(0.6, 0.6, 0.6)} and "MODEL AT CHANCE" in drawn.texts[
        0
    ].get_text()
    plt.close(drawn)
    parsed = Page(page.render(run, at_chance(found)))
    assert ("class", "marked") not in parsed.attributes


@pytest.mark.slow
def test_what_was_not_replaced_is_left_out(run, found, plain):
    drawn = figure.draw(run, only_values(found))
    assert len(drawn.axes) == 1 and "a   Values of the phenotype" in [text.get_text() for text in drawn.texts]
    plt.close(drawn)
    parsed = Page(page.render(run, only_values(found)))
    titles = ["What may be concluded", "Values of the phenotype", "Would it come out in others", "What was replaced"]
    assert parsed.headings == titles and len(parsed.scripts) == 1
    (told,) = parsed.paragraphs["What was replaced"]
    assert told.startswith("Groups of values are replaced one at a time.")


@pytest.mark.slow
def test_the_page_has_the_tables(run, found, plain):
    parsed = Page(page.render(run, found))
    assert parsed.paragraphs["What may be concluded"] == [found.first_sentence, found.summary]
    assert parsed.paragraphs["What was replaced"][1].startswith("Regions, connections and groups of values are 3 fam")
    assert "<i>sex</i>" in parsed.text
    matrix, rows = parsed.rows["Connections"][-4:], parsed.rows["Connections"][:-4]
    assert [row[0] for row in matrix] == ["system", *found.connections.matrix.rows] and matrix[1][1] == ""
    assert float(matrix[2][2]) == pytest.approx(found.connections.matrix.effect[1, 1], abs=6e-4)
    assert sum(each == ("class", "marked") for each in parsed.attributes) == 2
    for (heading, *cells), table in (
        (rows, found.connections.table),
        (parsed.rows["Values of the phenotype"], found.values.table),
    ):
        shown = pd.DataFrame(cells, columns=heading)
        for name, column, digits in (
            ("reliance", "reliance", 4),
            ("difference", "difference", 2),
        ):
            ends = zip(table[column], table[f"{column}_low"], table[f"{column}_high"], strict=True)
            assert shown[name].tolist() == [
                f"{at:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})" for at, low, high in ends
            ]
        assert shown["direction"].tolist() == table["direction"].tolist()
        assert shown["p"].tolist() == [f"{p:.4f}" for p in table["p_reliance"]]
    assert "direction" not in parsed.rows["Regions"][0]  # none of them has one
    assert parsed.rows["Would it come out in others"][1:] == [
        ["halves", "values", "age", "1", "0.60", "0.50", "-"],
        ["halves", "values", "", "1", "-", "-", "0.40 (0.20 to 0.60)"],
    ]


@pytest.mark.slow
def test_texts_stay_texts_and_the_page_is_as_wide_as_a_journals(run, found, plain):
    drawn, written = figure.draw(run, found), io.StringIO()
    figures.write(drawn, written, "svg")
    assert drawn.get_size_inches()[0] == 7.2 and found.values.summary in written.getvalue()
    plt.close(drawn)
