"""Calibrated probabilities of a test: the tables against counts by hand, SciPy and statsmodels; what the page says."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import run_main
from scipy.special import expit, logit
from scipy.stats import chi2, chi2_contingency
from statsmodels.stats.proportion import proportion_confint
from test_report import damage, parsed, remove, write_tables

from utils import figures
from utils.evaluation import probabilities
from utils.report import drawings
from utils.report.scores import held
from utils.report.tables import COVERAGE, UNEQUAL, read_test, write_table
from utils.report.texts import paragraph
from utils.scores import calibration
from utils.scores.calibration import fit
from utils.scores.statistics import log_odds

SIZES = (30, 40, 24, 60, 50, 12, 44, 40, 36, 24)  # of sites


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(probabilities, "RESAMPLES", 50)
    monkeypatch.setattr(drawings, "BAND_RESAMPLES", 2)
    monkeypatch.setattr(figures, "save", lambda figure, path: [])


def people(shift=0.0, seed=0) -> pd.DataFrame:
    """Predictions of people whose sites are left out, with an AUC of 0.76 or so; at a site all log odds are shifted by
    a normal value with this SD."""
    random = np.random.default_rng(seed)
    site = np.repeat(np.arange(len(SIZES)), SIZES)
    label = np.arange(len(site)) % 2
    odds = random.normal(label - 0.5, 1) + shift * random.normal(size=len(SIZES))[site]
    columns = {"file": [f"{at}.bin" for at in range(len(site))], "subject": [f"s{at}" for at in range(len(site))]}
    named = np.char.add("site ", site.astype(str))
    return pd.DataFrame(columns | {"site": named, "label": label, "probability": expit(odds), "fold": named})


@pytest.fixture(scope="module")
def alike() -> pd.DataFrame:
    return people()


def calibrated(folder: Path, table: pd.DataFrame, how: str = "site") -> Path:
    """A folder as a test of these predictions leaves it."""
    write_tables(folder, table.assign(label=table["label"].astype(str)), folds=how)
    own = probabilities.people(table, table["fold"].to_numpy())
    for name, of in (("probabilities", own), ("calibration", probabilities.observed(own, "fold", 0))):
        write_table(SimpleNamespace(out_dir=folder), name, of)
    return folder


def test_a_person_counts_once_and_is_calibrated_by_all_other_folds(alike):
    twice = pd.concat([alike, alike.assign(file="again", probability=0.5)])
    table = probabilities.people(twice, twice["fold"].to_numpy())
    assert table["file"].tolist() == alike["file"].tolist()
    own = (alike["site"] == "site 3").to_numpy()
    label, raw, fold = (alike[name].to_numpy() for name in ("label", "probability", "fold"))
    others = fit(label[~own], raw[~own], fold[~own], "site")
    np.testing.assert_allclose(table["calibrated"][own], others.probability(raw[own]))
    assert table["prevalence"][own].unique() == pytest.approx([label[~own].mean()])
    names = {(True, False): "control", (False, True): "autism", (True, True): "both", (False, False): "none"}
    for column, level in (("set_80", 0.8), ("set_90", 0.9)):
        assert table[column][own].tolist() == [names[tuple(of)] for of in others.sets(raw[own], level).tolist()]


def test_few_people_have_no_table(alike):
    few = alike.groupby("site").head(11)
    assert probabilities.people(few, few["fold"].to_numpy()).empty


def test_what_was_observed_is_counted_by_hand(alike):
    alike = alike.assign(label=alike["label"].where(alike["site"] != "site 5", 1))  # a site of one class
    table = probabilities.people(alike, alike["fold"].to_numpy())
    found = probabilities.observed(table, "site", 0)
    assert (found["group"].nunique(), len(found)) == (1 + len(SIZES), 6 + 2 * (5 * (1 + len(SIZES)) + 2))
    held = table["set_90"].isin(["control", "both"])
    for group, rows in {"": table["site"] != "", "site 3": table["site"] == "site 3"}.items():
        own = held[rows & (table["label"] == 0)]
        where = {"measure": "coverage", "group": group, "diagnosis": "control", "level": 0.9}
        (row,) = found[(found[list(where)] == pd.Series(where)).all(axis=1)].to_dict("records")
        low, high = proportion_confint(own.sum(), len(own), method="wilson")
        told = (row["people"], row["value"], row["low"], row["high"])
        assert told == pytest.approx((len(own), own.mean(), low, high))
    nobody = found[(found["group"] == "site 5") & (found["diagnosis"] == "control")]
    assert nobody["people"].tolist() == [0, 0] and nobody["value"].isna().all()
    both = found[(found["measure"] == "both") & (found["group"] == "") & (found["level"] == 0.8)]["value"]
    assert both.tolist() == pytest.approx([(table["set_80"] == "both").mean()])
    slope = found[found["measure"] == "slope"].set_index("probabilities")
    assert (slope["low"] < slope["value"]).all() and (slope["value"] < slope["high"]).all()
    raw = calibration.agreement(table["label"].to_numpy(), table["probability"].to_numpy())
    assert slope["value"]["as predicted"] == pytest.approx(raw.slope)


@pytest.mark.slow
def test_intervals_hold_the_true_slope(monkeypatch):
    monkeypatch.setattr(probabilities, "RESAMPLES", 100)
    monkeypatch.setattr("utils.scores.metrics.Predictions.widening", lambda *_: 1)  # these labels share no models
    rows = [
        {(row["measure"], row["probabilities"]): row for row in probabilities.of_agreement(table, 0)}
        for table in (probabilities.people(of, of["fold"].to_numpy()) for of in map(people, [0.0] * 100, range(100)))
    ]
    slope = pd.DataFrame([of["slope", "as predicted"] for of in rows])
    intercept = pd.DataFrame([of["intercept", "as predicted"] for of in rows])
    for table, true in ((slope, 1), (intercept, 0)):  # log odds of normal values 1 apart are what they say
        assert ((table["low"] <= true) & (true <= table["high"])).mean() == pytest.approx(0.95, abs=0.06)


def test_equal_coverage_is_tested_as_by_chi_squared_and_what_is_unequal_is_found():
    random, group = np.random.default_rng(0), pd.Series(np.repeat(np.arange(10), 200))
    holds = pd.Series(random.random(2000) < 0.8)
    expected = chi2_contingency(pd.crosstab(group, holds), correction=False).pvalue
    assert probabilities.p_of_equal(holds, group) == pytest.approx(expected, abs=0.02)
    uneven = pd.Series(random.random(2000) < np.where(group < 2, 0.65, 0.83))
    assert probabilities.p_of_equal(uneven, group) < 0.001
    assert probabilities.p_of_equal(holds | True, group) == probabilities.p_of_equal(holds, group * 0) == 1
    few = pd.Series(np.where(group < 9, group, np.arange(2000)))  # people by themselves are not compared
    assert probabilities.p_of_equal(holds, few) == pytest.approx(
        probabilities.p_of_equal(holds[group < 9], group[group < 9])
    )


@pytest.mark.parametrize(
    "p, said", [(0.04, "too few people to tell whether chance does that (p = 0.08"), (0.02, "more apart than chance")]
)
def test_the_two_p_of_unequal_sites_are_corrected_for_each_other(p, said):
    row = {"measure": COVERAGE, "probabilities": "", "group": "", "diagnosis": "autism", "people": 40, "units": 40}
    row |= {"value": 0.8, "low": 0.65, "high": 0.9}
    levels = [row | {"level": level} for level in (0.8, 0.9)]
    groups = [row | {"level": 0.8, "group": name, "value": value} for name, value in (("A", 0.7), ("B", 0.9))]
    of_sites = row | {"level": 0.8, "measure": UNEQUAL, "value": p}
    one = held(pd.DataFrame([*levels, *groups, of_sites]), "autism")
    assert one.p == 2 * p and one.ends == (0.7, 0.9)
    sets = paragraph(
        "sets", held=[one, replace(one, name="control", p=1.0)], run=SimpleNamespace(folds="site"), count=12
    )
    assert "80% (65% to 90%) of people with autism and 80% (65% to 90%) of controls; 90% sets: 80% (65%" in sets
    assert said in sets and ("far fewer labels" in sets) == (p == 0.02)


@pytest.mark.slow
def test_sites_that_are_alike_are_seldom_called_unequal(monkeypatch):
    monkeypatch.setattr(probabilities, "RESAMPLES", 2)
    monkeypatch.setattr(probabilities, "DRAWS", 199)
    monkeypatch.setattr(probabilities, "share", lambda *_: {})  # and its interval, which takes most of the time
    tables = [probabilities.people(of, of["fold"].to_numpy()) for of in map(people, [0.0] * 40, range(40))]
    rows = pd.concat([probabilities.observed(table, "fold", 0) for table in tables])
    assert (rows[rows["measure"] == UNEQUAL]["value"] <= 0.05).mean() < 0.1


@pytest.mark.slow
def test_the_page_says_what_was_observed(tmp_path, alike):
    page = parsed(calibrated(tmp_path / "alike", alike))
    assert [*page.headings[6:10]] == ["Probabilities", "Sets of labels", "Decisions", "Confusion matrix"]
    table, observed = (pd.read_csv(tmp_path / "alike" / name) for name in ("probabilities.csv", "calibration.csv"))
    said = " ".join(page.paragraphs["Probabilities"])
    assert "nobody of the same site contributed" in said and "not shown to be too sure or not sure enough" in said
    value, low, high = observed.iloc[0][["value", "low", "high"]]
    assert page.rows["Probabilities"][1][:2] == ["slope", f"{value:.3f} ({low:.3f} to {high:.3f})"]
    sets = " ".join(page.paragraphs["Sets of labels"])
    own = table[table["label"] == 1]
    share = own["set_80"].isin(["autism", "both"])
    assert f"the set held the label of {share.mean():.0%} (" in sets
    large = share.groupby(own["site"]).agg(["mean", "size"]).query("size >= 10")["mean"]
    assert f"people with autism or more from {large.min():.0%} to {large.max():.0%}, too few people to tell" in sets
    assert "With 10 sites" not in sets and "It is promised for people who are drawn like these" in sets
    assert "far fewer labels" not in sets
    all_people, first = page.rows["Sets of labels"][1:3]
    assert all_people[0] == f"all {len(table)}" and first[0] == "site 0"
    assert first[1].startswith(f"{share[own['site'] == 'site 0'].mean():.0%} of 15 (")
    assert "share of autism of 0.5, that among these people" in " ".join(page.paragraphs["Decisions"])


@pytest.mark.slow
def test_the_page_promises_nothing_of_few_sites_and_calls_chance_what_more_people_would_show(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SIZES", (80, 90, 100))
    few = " ".join(parsed(calibrated(tmp_path / "few", people())).paragraphs["Sets of labels"])
    assert "With 3 sites it is not promised for others" in few and "promised for people who" not in few
    assert "too few people to tell whether chance does that" in few and "chance alone" not in few
    monkeypatch.setattr(sys.modules[__name__], "SIZES", (60,) * 12)
    many = " ".join(parsed(calibrated(tmp_path / "many", people())).paragraphs["Sets of labels"])
    assert many.count("which chance alone may do") == 2 and "not promised for others" not in many


@pytest.mark.parametrize("groups, size", [(3, 30), (10, 12), (10, 30), (19, 19)])
def test_the_power_is_about_that_of_drawn_groups(groups, size):
    random = np.random.default_rng(groups)
    shares = np.clip(random.normal(0.8, calibration.APART, (4000, groups)), 0, 1)
    held = random.binomial(size, shares)
    mean = held.mean(1, keepdims=True) / size
    with np.errstate(invalid="ignore"):
        seen = (np.square(held - size * mean) / (size * mean * (1 - mean))).sum(1)
    found = (seen > chi2.isf(0.025, groups - 1)).mean()
    assert found == pytest.approx(calibration.power_to_tell(np.full(groups, size)), abs=0.1)


def observed_in(table: pd.DataFrame) -> pd.DataFrame:
    own = probabilities.people(table, table["fold"].to_numpy())
    return probabilities.observed(own, "fold", 0)


def test_people_who_share_a_scan_count_as_one(alike):
    """Otherwise sites that are alike look unequal: each person is there five times."""
    table = alike.loc[alike.index.repeat(5)].reset_index(drop=True)
    copies = [f"{name}-{at % 5}" for at, name in enumerate(table["subject"])]
    table = table.assign(same_scan=table["subject"] + "-0", subject=copies, file=copies)
    whole, one = observed_in(table), observed_in(alike.assign(subject=alike["subject"] + "-0"))
    p = [rows[rows["measure"] == UNEQUAL]["value"].tolist() for rows in (whole, one)]
    assert p[0] == p[1]
    width = [(rows["high"] - rows["low"])[rows["measure"] == COVERAGE].tolist() for rows in (whole, one)]
    assert width[0] == pytest.approx(width[1], abs=0.06)


def test_the_power_is_that_of_families_as_the_p_is(alike):
    """Twins at each site: as many people as would do to call differences chance, but half as many families."""
    table = alike.loc[alike.index.repeat(2)].reset_index(drop=True)
    names = [f"{name}-{at % 2}" for at, name in enumerate(table["subject"])]
    found = observed_in(table.assign(same_scan=table["subject"] + "-0", subject=names, file=names))
    sizes = [size / 2 for size in SIZES if size / 2 >= 10]  # of one class at each site
    twins = held(found, "autism")
    assert twins.power == pytest.approx(calibration.power_to_tell(np.array(sizes)))
    own = found[(found["measure"] == COVERAGE) & (found["diagnosis"] == "autism") & (found["level"] == 0.8)]
    large = own[(own["group"] != "") & (own["people"] >= 20)]["value"]
    assert twins.ends == (large.min(), large.max())


@pytest.mark.slow
def test_the_page_says_if_sites_differ_and_if_nothing_was_found(tmp_path):
    sets = " ".join(parsed(calibrated(tmp_path / "apart", people(shift=1.5))).paragraphs["Sets of labels"])
    assert "more apart than chance makes them" in sets and "So at one site sets may hold far fewer labels" in sets
    nothing = people(seed=1)
    wrong = expit(-0.3 * logit(nothing["probability"]))
    page = parsed(calibrated(tmp_path / "nothing", nothing.assign(probability=wrong)))
    assert "go the wrong way" in " ".join(page.paragraphs["Probabilities"])
    assert "nearly the same for everybody" in " ".join(page.paragraphs["Probabilities"])
    assert page.rows["Probabilities"][1][2] == "-"


@pytest.mark.slow
def test_the_page_names_what_was_left_out(tmp_path, alike):
    sets = " ".join(parsed(calibrated(tmp_path / "numbered", alike, how="5")).paragraphs["Sets of labels"])
    assert "with each fold left out" in sets and "Among sites with ten people" in sets
    sets = " ".join(parsed(calibrated(tmp_path / "column", alike, how="SEX")).paragraphs["Sets of labels"])
    assert "with each SEX left out" in sets and "Among groups (SEX) with ten people" in sets


@pytest.mark.slow
def test_decisions_are_shown_for_the_share_of_autism_that_is_given(tmp_path, alike, monkeypatch):
    folder, drawn = calibrated(tmp_path / "test", alike), []
    curve = drawings.decisions
    monkeypatch.setattr(drawings, "decisions", lambda *given: drawn.append(given) or curve(*given))
    outcome = run_main("utils.report.__main__", "report", [folder, "--prevalence", "0.1"])
    assert (outcome.status, outcome.err) == (0, "")
    ((_, probability, share),) = drawn
    table = read_test(folder).probabilities
    expected = logit(table["calibrated"]) + logit(0.1) - logit(table["prevalence"])
    assert share == 0.1 and log_odds(probability) == pytest.approx(expected.to_numpy())
    assert "share of autism of 0.1, as given" in (folder / "report.html").read_text()
    for given, told in (("1", "The share of autism is 1; expected more than 0"), ("x", "invalid float value: 'x'")):
        outcome = run_main("utils.report.__main__", "report", [folder, "--prevalence", given])
        assert outcome.status == 2 and told in outcome.err and outcome.err.count("\n") == 1
    write_tables(tmp_path / "single", alike.drop(columns="fold").assign(label=alike["label"].astype(str)))
    outcome = run_main("utils.report.__main__", "report", [tmp_path / "single", "--prevalence", "0.1"])
    assert outcome.status == 2 and "has no calibrated probabilities for --prevalence" in outcome.err


@pytest.mark.slow
def test_a_paper_is_told(tmp_path, alike):
    folder = calibrated(tmp_path / "test", alike)
    page = parsed(folder)
    items = pd.read_csv(folder / "tripod_ai.csv").set_index("item")["text"]
    assert "Platt scaling" in " ".join(page.paragraphs["Methods, to paste"])
    assert "calibration.csv" in items["12f"] and "calibration.csv" in items["24"] and "decision curve" in items["12e"]


MISTAKES = {
    "no people": (remove("probabilities.csv"), "probabilities.csv cannot be read"),
    "a probability": (
        damage("probabilities.csv", ",0,0.", ",0,7."),
        "probabilities.csv has a wrong number; expected both",
    ),
    "a row": (damage("calibration.csv", "slope", "slop"), "has no row of measure slope, probabilities as predicted"),
    "a column": (damage("calibration.csv", "level", "height"), "calibration.csv lacks the columns level"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_damaged_table_is_one_line(mistake, tmp_path, alike):
    change, told = MISTAKES[mistake]
    change(calibrated(tmp_path / "test", alike))
    outcome = run_main("utils.report.__main__", "report", [tmp_path / "test"])
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert told in outcome.err and not (tmp_path / "test/report.html").exists()


def test_the_figure_before_and_after_has_both(alike):
    label, raw = alike["label"].to_numpy(), alike["probability"].to_numpy()
    shares, counts = drawings.calibrated(label, {"as predicted": raw, "calibrated": raw / 2}).axes
    assert [text.get_text() for text in shares.get_legend().get_texts()] == ["as predicted", "calibrated"]
    assert sum(bar.get_height() for bar in counts.patches) == 2 * len(raw)
    assert shares.get_ylabel() == "share with autism"
