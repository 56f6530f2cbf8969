"""Reliance on each region in each map: its table, sentence, figure and section of the page, from effects made up."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import Page, effects_of, family_of, region_table_of
from matplotlib import pyplot as plt

from data.cohorts import atlas, records
from data.cohorts.rows import Row
from utils import figures
from utils.blackout import figure, job, page, results, sentences
from utils.blackout.effects import Adjusted, Effects, permutation_test
from utils.blackout.options import BlackoutOptions
from utils.blackout.tables import map_table
from utils.runs.checkpoints import Caveats
from utils.scores.adjustment import Adjustment
from utils.scores.results import Estimate, Headline

MAPS = ["falff", "<i>vmhc</i>"]
PEOPLE = 24
LABEL = np.arange(PEOPLE) % 2.0


def blocks() -> atlas.Atlas:
    labels = np.zeros(records.FULL.shape, np.int32)
    labels[20:30, 40:50, 20:24], labels[60:70, 40:50, 30:34], labels[20:30, 60:70, 70:74] = 2, 5, 9
    return atlas.Atlas(atlas.reduce_labels(labels), {2: "first", 5: "second", 9: "third"}, records.REDUCED, labels, [])


@pytest.fixture(scope="module")
def effects() -> Effects:
    """Region 5 matters in the second map, region 9 most, but only in one person."""
    random = np.random.default_rng(1)
    by_map = random.normal([[0, 0], [0, 1], [0, 0]], 0.5, (PEOPLE, 3, 2)).astype(np.float32)
    by_map[0, 2, 0] = 60
    rows = [Row(f"{at}.bin", f"s{at:02}", "NYU", label, "test") for at, label in enumerate(LABEL)]
    return effects_of(rows, 3, reliance=random.normal(0, 0.1, (PEOPLE, 3)), reliance_by_map=by_map)


def map_table_of(effects: Effects, adjusted: Adjusted | None = None) -> pd.DataFrame:
    effect = effects.of_subjects(effects["reliance_by_map"])
    return map_table(blocks(), MAPS, family_of(effects, effect.reshape(PEOPLE, -1), adjusted))


@pytest.fixture(scope="module")
def table(effects) -> pd.DataFrame:
    return map_table_of(effects)


def in_maps(table, **more) -> results.ByMap:
    return results.ByMap(**{"table": table, "maps": MAPS, "summary": "What is found.", "at_chance": False} | more)


NONE = Adjusted(Adjustment(reason="no covariate can be used"), LABEL)


def test_p_is_family_wise_over_all_pairs(table, effects):
    pairs = effects["reliance_by_map"].astype(float).reshape(PEOPLE, 6)
    p, _ = permutation_test(NONE.plain(pairs), seed=0)
    found = table.sort_index()
    assert found["p_reliance"].tolist() == found["p_reliance_plain"].tolist() == p.tolist()
    assert found["reliance"].to_numpy() == pytest.approx(pairs.mean(0))
    assert list(zip(found["region"], found["map"], strict=True)) == [(at, name) for at in (2, 5, 9) for name in MAPS]
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6] and table["reliance"].is_monotonic_decreasing

    class Halved(Adjusted):
        def __call__(self, effect):
            return self.plain(effect - effect.mean(0))

    halved = map_table_of(effects, Halved(NONE.beside, LABEL)).sort_index()
    assert halved["p_reliance_plain"].tolist() == p.tolist() and halved["p_reliance"].min() > 0.3


def test_the_sentence_says_which_pairs_or_what_none_means(table):
    assert sentences.by_map_sentence(table, NONE) == (
        "Map by map, the evidence rests on 1 (second in <i>vmhc</i>) of 6 pairs of a region and a map (reliance, "
        "family-wise p < 0.05 over all pairs)."
    )
    beside = Adjusted(Adjustment(("site", "age"), without=("sex",)), LABEL)
    assert sentences.by_map_sentence(table.assign(p_reliance=0.05), beside) == (
        "Map by map, none of 6 pairs of a region and a map is significant when adjusted for the same covariates "
        "(family-wise p < 0.05 over all pairs; 1 before adjustment): no region is shown to matter in one map "
        "alone; it may matter in several maps together."
    )
    assert sentences.by_map_sentence(table, dataclasses.replace(NONE, label=LABEL[:18])) == ""


def test_findings_come_first_then_the_strongest_effects(table):
    found = in_maps(table)
    assert found.matrix.rows == ["second", "third", "first"]
    assert found.matrix.marked.tolist() == [[False, True], *[[False] * 2] * 2]
    at_chance = in_maps(table, at_chance=True)
    assert at_chance.matrix.rows == ["third", "second", "first"] and not at_chance.matrix.marked.any()
    assert found.first["name"].tolist() == ["second"] and len(at_chance.first) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes, framed, shading",
    [({}, 1, "Full colour: significant"), ({"at_chance": True, "summary": ""}, 0, "All pairs are pale: the network")],
)
def test_the_figure_frames_what_is_significant(table, changes, framed, shading, tmp_path):
    found, before = in_maps(table, **changes), plt.get_fignums()
    drawn = figure.draw_by_map("Blackout of cnn on $my$ cohort", found)
    (axis, _), (text,) = drawn.axes, (one.get_text().replace("\n", " ") for one in drawn.texts)
    assert [text.get_text() for text in axis.get_yticklabels()] == found.matrix.rows
    assert [text.get_text() for text in axis.get_xticklabels()] == MAPS
    assert len(axis.patches) == framed and shading in text and found.summary in text
    opacity = axis.images[0].get_array()[..., 3]
    assert (opacity == np.where(found.matrix.marked, 1, results.PALE)).all()
    if framed:
        assert axis.patches[0].get_xy() == (0.5, -0.5)  # the second map, the first row
    figures.save(drawn, tmp_path / "regions_by_map.png")
    assert plt.get_fignums() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "p, words, marked", [({}, "What is found.", 1), ({"p_reliance": np.nan}, "there are no p-values", 0)]
)
def test_the_page_has_all_pairs_and_marks_what_is_found(effects, table, p, words, marked, monkeypatch):
    monkeypatch.setattr("nilearn.plotting.view_img", lambda *_, **__: SimpleNamespace(get_standalone=str))  # slow
    named = {"model": SimpleNamespace(name="cnn"), "data_dir": None, "cohort": SimpleNamespace(simulated=True)}
    run = SimpleNamespace(**named, marks="", caveats=Caveats(), standard="brain")
    found = in_maps(table.assign(**p))
    regions = results.Regions(region_table_of(blocks(), effects), False, atlas=blocks())
    both = results.BlackoutResults(effects, "All.", Headline("auc", Estimate(0.8, 0.7, 0.9)), regions, found)
    parsed = Page(page.render(run, both))
    every = parsed.rows["Region by map"]
    rows = every[every.index(["region", *MAPS]) :]
    assert rows[0] == ["region", *MAPS] and [row[0] for row in rows[1:4]] == found.matrix.rows
    assert [float(cell) for cell in rows[1][1:]] == pytest.approx(found.matrix.effect[0], abs=6e-4)
    assert any(words in text for text in parsed.paragraphs["Region by map"])
    assert sum(name == "class" and value == "marked" for name, value in parsed.attributes) == marked
    alone = Page(page.render(run, dataclasses.replace(both, by_map=None)))
    assert "Region by map" not in alone.headings


def test_the_table_is_read_back_when_folds_are_pooled(cohort, tmp_path):
    from data.cohorts.stored import open_cohort

    opened = open_cohort(cohort)
    run = SimpleNamespace(options=BlackoutOptions(), cohort=opened, out_dir=tmp_path)
    rows, aal = [opened.rows[at] for at in opened.indices("test")], BlackoutOptions().regions(opened.grid)
    by_map = np.random.default_rng(0).normal(size=(len(rows), 116, 2)).astype(np.float32)
    effects = effects_of(rows, 116, reliance_by_map=by_map)
    made = {"regions": True, "connections": None, "values": None, "maps": MAPS, "atlas": aal}
    job.write_store(SimpleNamespace(run=run, effects=effects, **made))
    found = job.joined([job.read_store(run)] * 2)["reliance_by_map"]
    assert found.dtype == np.float32 and (found == np.concatenate([by_map] * 2)).all()
    repeats = job.averaged([job.read_store(run)] * 2)
    assert repeats["reliance_by_map"] == pytest.approx(by_map)
