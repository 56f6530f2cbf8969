"""The blackout's page, parsed, its picture, as drawn, and its sentences: what they say; no name of a user does harm."""

import dataclasses
import html
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import Page, effects_of, region_table_of
from matplotlib import pyplot as plt

from data.cohorts import atlas, records
from data.cohorts.rows import Row
from utils import figures
from utils.blackout import figure, page, sentences
from utils.blackout import results as pictures
from utils.blackout.effects import Adjusted
from utils.blackout.tables import SUPPRESSOR
from utils.runs.checkpoints import Caveats
from utils.scores.adjustment import Adjustment
from utils.scores.results import UNDEFINED, Estimate, Headline

SUBJECTS = 8
HOSTILE = "</script><script>alert(1)</script>"
AUC = Estimate(0.8, 0.7, 0.9)
POOR = Estimate(0.55, 0.4, 0.7)
GOOD = Headline("auc", AUC)
NUMBERS = {"AUC, 95% interval", "regions named"}  # of the headline


def blocks() -> atlas.Atlas:
    """Three blocks at different heights, the second named to do harm."""
    labels = np.zeros(records.FULL.shape, np.int32)
    labels[20:30, 40:50, 20:24], labels[60:70, 40:50, 30:34], labels[20:30, 60:70, 70:74] = 2, 5, 9
    names = {2: "first", 5: f"""<b>"bold"</b>$\\frac{{1}}$ {HOSTILE}{400 * "x"}""", 9: "third"}
    return atlas.Atlas(atlas.reduce_labels(labels), names, records.REDUCED, labels, [])


@pytest.fixture(scope="module")
def run() -> SimpleNamespace:
    named = {"model": SimpleNamespace(name="cnn"), "data_dir": Path("lab/$my$ cohort")}
    return SimpleNamespace(**named, marks="", caveats=Caveats(), standard="brain")


@pytest.fixture(scope="module")
def results(run) -> pictures.BlackoutResults:
    """Region 5 is relied on most, region 9 is significant and unique, region 2 first by the background."""
    random, own = np.random.default_rng(0), blocks()
    rows = [Row(f"{HOSTILE}{at}.bin", f"s{at}", "NYU", float(at % 2), "test") for at in range(SUBJECTS)]

    def effect(*means):
        return random.normal(means, 0.1, (SUBJECTS, 3))

    effects = effects_of(
        rows, 3, delta_logit=effect(2, 1, 0.5), reliance=effect(0.02, 1.0, 0.5), unique=effect(0, 0, 0.5),
        sufficiency=effect(0, 1, 1),
    )  # fmt: skip
    none = {f"{name}{end}": np.nan for name in ("difference", "correlation") for end in ("", "_low", "_high")}
    table = region_table_of(own, effects).assign(**none | {"direction": "not shown to differ"})
    regions = pictures.Regions(table, at_chance=False, atlas=own)
    return pictures.BlackoutResults(effects, "AUC 0.80 (0.70 to 0.90).\nThe rest.", GOOD, regions)


@pytest.fixture
def at_chance(results) -> pictures.BlackoutResults:
    regions = dataclasses.replace(results.regions, at_chance=True)
    return dataclasses.replace(results, judged=Headline("auc", POOR), regions=regions)


def with_table(results, **columns) -> pictures.BlackoutResults:
    """The same, with other columns of the table of regions."""
    regions = dataclasses.replace(results.regions, table=results.regions.table.assign(**columns))
    return dataclasses.replace(results, regions=regions)


def painted_values(regions) -> dict[int, float]:
    """The one value of each region in the image of the group map."""
    values, labels = pictures.painted(regions)[0].get_fdata(), regions.atlas.full
    assert not values[labels == 0].any()
    found = {region: set(values[labels == region]) for region in (2, 5, 9)}
    assert {len(each) for each in found.values()} == {1}
    return {region: each.pop() for region, each in found.items()}


@pytest.fixture(scope="module")
def rendered(run, results) -> str:
    return page.render(run, results)


@pytest.fixture(scope="module")
def parsed(rendered) -> Page:
    return Page(rendered)


def test_names_of_a_user_are_text_and_nothing_else(parsed):
    assert "b" not in parsed.tags and len(parsed.scripts) == 1  # the page's own
    assert not any("alert(1)" in script for script in parsed.scripts)
    assert parsed.table[1][0] == blocks().names[5]  # the first by reliance


def test_name_effect_interval_and_both_p_come_first(parsed, results):
    assert parsed.rows["Regions"][0][:5] == ["region", "reliance", "p", "unique", "unique p"]
    first = results.regions.table.set_index("region").loc[5]
    interval = f"{first['reliance_low']:.4f} to {first['reliance_high']:.4f}"
    shown = [f"{first['reliance']:.4f} ({interval})", f"{first['p_reliance']:.4f}"]
    assert parsed.rows["Regions"][1][1:3] == shown
    rows = parsed.rows["Regions, all columns"]
    rank = rows[0].index("rank")
    assert [row[rank] for row in rows[1:]] == ["1", "2", "3"] and rows[1][1:4] == [*shown, f"{first['p_unique']:.4f}"]


def test_every_column_has_its_sentence(parsed):
    plain = {"region", "hemisphere", "voxels", "x, y, z (mm)"}
    assert set(parsed.rows["Regions, all columns"][0]) == set(parsed.terms) - NUMBERS | plain


def test_what_is_undefined_is_a_dash(parsed):
    heads, *rows = parsed.rows["Regions, all columns"]
    assert {row[heads.index("difference")] for row in rows} == {"-"}


@pytest.mark.slow
def test_page_and_figure_say_what_the_terminal_says(run, parsed, results):
    assert parsed.paragraphs["What may be concluded"] == results.summary.splitlines()
    assert "Warnings" not in parsed.headings
    drawn = figure.draw(run, results)
    told = [text.get_text() for text in drawn.texts]
    assert told[:2] == [f"Blackout of cnn on $my$ cohort: mean over {SUBJECTS} test subjects", results.summary]
    plt.close(drawn)


@pytest.mark.slow
def test_of_a_network_at_chance_nothing_is_marked_and_that_is_said(run, at_chance):
    assert pictures.title(run, at_chance) == "Blackout of cnn on $my$ cohort (MODEL AT CHANCE)"
    parsed = Page(page.render(run, at_chance))
    assert parsed.paragraphs["Warnings"][0].startswith("The network is not shown to be better than chance")
    pale = "All regions are pale: the network is not shown to be better than chance"
    assert parsed.paragraphs["The brain"][1].startswith(pale)
    assert parsed.terms[1] == "is named" and ("class", "forest") not in parsed.attributes
    colours = [value for name, value in parsed.attributes if name == "style" and "gradient" in value]
    assert len(colours) == 1
    assert all(value < 0 for value in painted_values(at_chance.regions).values())
    assert at_chance.regions.ranked == [5, 9, 2]
    drawn = figure.draw(run, at_chance)
    assert {bar.get_facecolor()[:3] for axis in drawn.axes[:2] for bar in axis.patches} == {(0.6, 0.6, 0.6)}
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert legend[0] == "not marked: the network is at chance"
    assert any(at_chance.regions.shading in text.get_text() for text in drawn.texts)
    plt.close(drawn)


def test_a_region_is_pale_unless_it_is_significant_however_large_its_effect(results):
    """Region 2 has the largest effect, and is not significant; the two others are."""
    table = results.regions.table
    large = with_table(results, reliance=table["reliance"].where(table["region"] != 2, 2.0)).regions
    table = large.table
    assert (table["p_reliance"] < 0.05).tolist() == (table["region"] != 2).tolist()
    effect = table.set_index("region")["reliance"] / 2
    found = painted_values(large)
    assert found == pytest.approx({2: -2 + effect[2], 5: 2 + effect[5], 9: 2 + effect[9]}, abs=0.01)
    _, options = pictures.painted(large)
    colour = {region: options["cmap"]((value + 3) / 6) for region, value in found.items()}
    assert colour[2][3] == pytest.approx(pictures.PALE) and colour[5][3] == colour[9][3] == 1
    assert options["cmap"](0.5)[3] == 0  # what is no region
    assert large.ranked == [5, 9, 2]
    assert large.shading == "Full colour: significant (family-wise p < 0.05). Pale: not significant."


def test_where_no_region_is_significant_all_are_pale_and_it_is_said(results):
    none = with_table(results, p_reliance=0.5).regions
    assert all(value < 0 for value in painted_values(none).values())
    assert none.shading == "All regions are pale: none is significant (family-wise p < 0.05)."
    one_class = with_table(results, p_reliance=np.nan).regions
    assert one_class.shading.startswith("All regions are pale: there are no p-values, since the subjects are of one")


def test_the_cross_hair_begins_in_the_first_significant_region(results, rendered, parsed):
    x, y, z = json.loads(re.search(r'"numSlice": (\{[^}]*\})', html.unescape(rendered))[1]).values()
    assert results.regions.atlas.full[int(x), int(y), int(z)] == results.regions.ranked[0] == 5
    assert parsed.paragraphs["The brain"][1].startswith("Full colour")
    second = with_table(results, p_reliance=[0.5, 0.01, 0.5]).regions
    assert second.ranked == [9, 5, 2] and list(second.cuts) == [20, 30, 70]


def test_the_innermost_voxel_of_a_bent_region_lies_in_it():
    """A U whose mean lies between its arms."""
    labels = np.zeros(records.FULL.shape, int)
    labels[10:21, 10:12, 5], labels[10:12, 10:30, 5], labels[19:21, 10:30, 5] = 7, 7, 7
    at = np.rint((np.array(page.innermost_voxel(labels, 7)) - records.FULL.origin_mm) / 2).astype(int)
    mean = np.argwhere(labels == 7).mean(0)
    assert labels[tuple(np.rint(mean).astype(int))] == 0 and labels[tuple(at)] == 7


@pytest.mark.slow
def test_the_picture_says_what_it_shows(run, results, tmp_path):
    drawn = figure.draw(run, results)
    bars, own = drawn.axes[:2]
    assert [text.get_text()[:8] for text in bars.get_yticklabels()] == ["first", "third", '<b>"bold']
    assert max(len(text.get_text()) for text in bars.get_yticklabels()) <= figure.NAME_WIDTH
    assert [bars.get_title(), own.get_title()] == ["reliance", "unique"]
    legend = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert legend == ["family-wise p < 0.05", "not significant", "95% interval over subjects"]
    texts = {text.get_text() for axis in drawn.axes for text in [*axis.texts, axis.title]}
    assert {"z = -32 mm", "z = -12 mm", "z = 68 mm", "L", "R"} <= texts
    (colours,) = [axis for axis in drawn.axes if "reliance" in axis.get_xlabel()]
    assert [text.get_text() for text in colours.get_yticklabels()] == ["not significant", "significant"]
    largest = results.regions.table["reliance"].max()
    assert [float(text.get_text()) for text in colours.get_xticklabels()][::4] == pytest.approx(
        [-largest, largest], rel=0.05
    )
    assert any(results.regions.shading in text.get_text() for text in drawn.texts)
    figures.save(drawn, tmp_path / "blackout.png")


@pytest.mark.slow
@pytest.mark.parametrize("panel, name", [(0, "reliance"), (1, "unique")])
def test_a_bar_has_the_interval_and_the_colour_of_its_own_p(run, results, panel, name):
    drawn = figure.draw(run, results)
    axis = drawn.axes[panel]
    top = results.regions.table.iloc[::-1]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx(top[name].tolist())
    red = [bar.get_facecolor()[0] > bar.get_facecolor()[1] + 0.2 for bar in axis.patches]
    assert red == (top[f"p_{name}"] < 0.05).tolist() and any(red) and not all(red)
    whiskers = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
    assert np.array(whiskers) == pytest.approx(top[[f"{name}_low", f"{name}_high"]].to_numpy())
    plt.close(drawn)


@pytest.mark.slow
@pytest.mark.parametrize(
    "without, keys",
    [
        (("_low", "_high", "p_"), ["no p-values: one class", "no whiskers: one subject"]),
        (("p_",), ["no p-values: one class", "95% interval over subjects"]),
    ],
)
def test_one_subject_has_no_whiskers_and_one_class_no_p(run, results, without, keys):
    undefined = [name for name in results.regions.table if any(part in name for part in without)]
    one = with_table(results, **dict.fromkeys(undefined, np.nan))
    drawn = figure.draw(run, one)
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == keys
    drawn.canvas.draw()
    plt.close(drawn)


@pytest.mark.slow
def test_a_network_that_no_region_moves_is_drawn_and_shown(run, results, tmp_path):
    still = effects_of(results.effects.rows, 3)
    regions = dataclasses.replace(results.regions, table=region_table_of(results.regions.atlas, still))
    results = dataclasses.replace(results, regions=regions, effects=still)
    figures.save(figure.draw(run, results), tmp_path / "blackout.png")
    assert Page(page.render(run, results)).rows["Regions"][1][1].startswith("0.0000")


def test_cuts_show_the_first_regions_and_not_the_same_slice_twice():
    """Regions 1 and 2 share their slices, 3 is too near to them, 4 is cut at 7, not where it is widest, at 6."""
    labels = np.zeros((5, 4, 20), int)
    labels[0, :, 2:5], labels[1, :, 2:5], labels[2, :, 5], labels[3, :2, 6:12], labels[4, :, 17] = 1, 2, 3, 4, 5
    labels[3, 2, 6] = 4
    assert pictures.widest_levels(labels, [1, 2, 3, 4, 5]) == [2, 7, 17]
    assert pictures.widest_levels(labels, [5]) == [17]


@pytest.mark.slow
def test_the_background_is_called_what_it_is(run, results):
    assert "becomes 0, the mean of the person" in page.render(run, results)
    stored = SimpleNamespace(**vars(run) | {"standard": "stored"})
    assert "becomes the value outside the brain" in page.render(stored, results)


def test_the_demo_cohort_is_named_as_such(run, results):
    demo = SimpleNamespace(model=run.model, marks=" (SIMULATED)", cohort=SimpleNamespace(simulated=True), data_dir=None)
    assert pictures.title(demo, results) == "Blackout of cnn on the demo cohort (SIMULATED)"


REVERSED = Estimate(0.3, 0.2, 0.45)
HALF = np.arange(20) % 2
BESIDE = {"covariates": ("site", "age", "log mean_fd"), "terms": np.ones((1, 1)), "unknown": ("IQ",)}


def said(reliance, unique=None, plain=None, label=HALF, **more):
    """The sentences on regions, given p by name, p before adjustment, and the labels; `more` is of the Adjustment."""
    unique, plain = unique or dict.fromkeys(reliance, 0.9), plain or reliance
    columns = {"name": reliance, "p_reliance": reliance.values(), "p_reliance_plain": plain.values()}
    columns |= dict.fromkeys(("p_unique", "p_unique_plain"), unique.values())
    table = pd.DataFrame({name: list(values) for name, values in columns.items()})
    alone = (table["p_unique"] < 0.05) & (table["p_reliance"] >= 0.05)
    return sentences.evidence_sentence(
        table.assign(remark=np.where(alone, SUPPRESSOR, "")),
        Adjusted(Adjustment(**more or {"reason": "no covariate can be used"}), label),
    )


P = {"one": 0.04, "two": 0.01, "three": 0.05}


def test_the_summary_says_what_is_significant_and_names_few():
    assert said(P, dict.fromkeys(P, 0.2) | {"two": 0.01}) == (
        "The network's evidence rests on 2 (one, two) of 3 regions (reliance, family-wise p < 0.05); 1 (two) says what "
        "the rest of the brain does not (unique). Not adjusted for covariates: no covariate can be used."
    )
    assert "none is shown to say what the rest" in said(P)
    many = dict.fromkeys(map(str, range(6)), 0.01)
    assert "rests on 6 of 6 regions" in said(many, many) and "6 say what" in said(many, many)
    assert said({"one": 0.05}).startswith("None of 1 regions is significant at family-wise p < 0.05: nothing here says")
    assert "rests on" not in said({"one": 0.05})


def test_the_summary_says_beside_what_and_how_many_were_significant_before():
    everything = dict.fromkeys(P, 0.01)
    found = said(P, plain=everything, **BESIDE)
    beside = "when adjusted for site, age and log mean_fd, products of two of these and curves"
    assert found.startswith(
        f"The network's evidence {beside} rests on 2 (one, two) of 3 regions (reliance, family-wise p"
    )
    assert "; 3 before adjustment); none is shown to say what the rest of the brain does not (unique; 0 before" in found
    assert "These are not in this test and may explain the result: IQ, products of three, and what nobody" in found
    none = said(dict.fromkeys(P, 0.2), plain=everything, **BESIDE)
    assert none.startswith(f"None of 3 regions is significant {beside} at family-wise p < 0.05 (3 in reliance and 0 in")
    assert none.count("nothing here says where autism is") == 1
    partly = said(P, **BESIDE | {"gaps": ("age",)})
    assert "for site and log mean_fd, products" in partly and "IQ, age where it is unknown, products of" in partly
    without = said(P, **BESIDE | {"without": ("sex", "age by site")})
    assert "two of these and curves (without sex and age by site: known for too few, alike in all, or too " in without
    assert "explain the result: IQ, sex, age by site, products of three, and what nobody measured" in without
    assert "when adjusted for age rests on" in said(P, covariates=("age",))
    assert "before adjustment" not in said(P) and "when adjusted" not in said(P)


def test_unique_without_reliance_is_possibly_a_suppressor():
    unique = {"one": 0.01, "two": 0.9, "three": 0.01}
    assert "Unique without reliance: 1 (three), possibly a suppressor: " in said(P, unique)
    assert "2 (two, three), possibly suppressors: " in said(P | {"two": 0.5}, dict.fromkeys(P, 0.01))
    assert "suppressor" not in said(P, {"one": 0.01, "two": 0.9, "three": 0.9})


def test_one_class_or_few_people_of_one_name_no_region():
    assert said(P, label=np.ones(20)) == "No p-values: the subjects are of one class."
    few = "Nothing is concluded about regions: one class has only 9 subjects. Each class needs 10. "
    assert said(P, label=np.arange(40) < 9).startswith(few + "No p is adjusted for covariates: ")
    assert said(P, label=np.arange(40) < 9, **BESIDE).startswith(few + "Each p is adjusted for ")
    assert "rests on" in said(P, label=np.arange(40) < 10)


@pytest.mark.parametrize("more", [{}, BESIDE])
@pytest.mark.parametrize("p", [P, dict.fromkeys(P, 0.2)])
def test_unequal_classes_are_told_whatever_is_named(p, more):
    assert "25% are of one class" in said(p, label=np.arange(40) < 10, **more)
    assert "are of one class" not in said(p, **more)
    of_quarter = Adjusted(Adjustment(**more or {"reason": "none"}), np.arange(40) < 10)
    assert "25% are of one class" in sentences.basis_sentence(of_quarter)


def test_one_name_of_two_regions_counts_once_each():
    table = pd.DataFrame({"name": ["same", "same"], "p_reliance": [0.01, 0.9], "p_unique": [0.9, 0.9], "remark": ""})
    table = table.assign(p_reliance_plain=0.9, p_unique_plain=0.9)
    found = sentences.evidence_sentence(table, Adjusted(Adjustment(reason="none"), np.arange(20) % 2))
    assert "rests on 1 (same) of 2 regions" in found


@pytest.mark.parametrize(
    "auc, better, words",
    [
        (AUC, True, "0.80 (0.70 to 0.90)."),
        (POOR, False, "0.55 (0.40 to 0.70): the network is not shown to be better than chance, so there is nothing"),
        (
            REVERSED,
            False,
            "0.30 (0.20 to 0.45): the network ranks them the wrong way round, so there is nothing to explain.",
        ),
        (Estimate(1.0, None, None), None, "1.00 (no interval: too few people): it is not known whether the network is"),
        (
            UNDEFINED,
            None,
            "is undefined, since all of them, or all whom it compares with each other, are of one class. It is not",
        ),
    ],
)
def test_the_summary_says_chance_and_what_is_unknown(auc, better, words):
    found = sentences.accuracy_sentence(Headline("auc_folds", auc))
    assert found.startswith("AUC within folds on these subjects ") and words in found
    assert auc.beats_chance is better
    assert [part in found for part in ("nothing to explain", "not known", "wrong way")] == [
        better is False, better is None, auc is REVERSED,
    ]  # fmt: skip
