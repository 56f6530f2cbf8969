"""Calibrated probabilities of a test: the tables against counts by hand, SciPy and statsmodels; what the page says."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import run_main
from scipy.special import expit, logit
from statsmodels.stats.proportion import proportion_confint
from test_report import damage, parsed, remove, write_tables

from data.base.effort import EFFORT
from utils import figures
from utils.evaluation import probabilities
from utils.report import drawings
from utils.report.scores import held
from utils.report.tables import COVERAGE, write_table
from utils.scores import calibration
from utils.scores.calibration import fit

SIZES = (30, 40, 24, 60, 50, 12, 44, 40, 36, 24)  # of sites


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(EFFORT, "resamples", 50)
    monkeypatch.setattr(EFFORT, "curve_resamples", 2)
    monkeypatch.setattr(figures, "save", lambda figure, path: [])


def people(seed=0) -> pd.DataFrame:
    """Predictions of people whose sites are left out, with an AUC of 0.76 or so."""
    random = np.random.default_rng(seed)
    site = np.repeat(np.arange(len(SIZES)), SIZES)
    label = np.arange(len(site)) % 2
    odds = random.normal(label - 0.5, 1)
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
    assert (found["group"].nunique(), len(found)) == (1 + len(SIZES), 6 + 2 * 5 * (1 + len(SIZES)))
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
    monkeypatch.setattr(EFFORT, "resamples", 100)
    monkeypatch.setattr("utils.scores.metrics.Predictions.widening", lambda *_: 1)  # these labels share no models
    rows = [
        {(row["measure"], row["probabilities"]): row for row in probabilities.of_agreement(table, 0)}
        for table in (probabilities.people(of, of["fold"].to_numpy()) for of in map(people, range(100)))
    ]
    slope = pd.DataFrame([of["slope", "as predicted"] for of in rows])
    intercept = pd.DataFrame([of["intercept", "as predicted"] for of in rows])
    for table, true in ((slope, 1), (intercept, 0)):  # log odds of normal values 1 apart are what they say
        assert ((table["low"] <= true) & (true <= table["high"])).mean() == pytest.approx(0.95, abs=0.06)


@pytest.mark.slow
def test_the_page_says_what_was_observed(tmp_path, alike):
    page = parsed(calibrated(tmp_path / "alike", alike))
    assert [*page.headings[6:9]] == ["Probabilities", "Sets of labels", "Confusion matrix"]
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
    assert f"people with autism or more from {large.min():.0%} to {large.max():.0%}; and" in sets
    assert "With 10 sites" not in sets and "It is promised for people who are drawn like these" in sets
    all_people, first = page.rows["Sets of labels"][1:3]
    assert all_people[0] == f"all {len(table)}" and first[0] == "site 0"
    assert first[1].startswith(f"{share[own['site'] == 'site 0'].mean():.0%} of 15 (")


@pytest.mark.slow
def test_the_page_promises_nothing_of_few_sites(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SIZES", (80, 90, 100))
    few = " ".join(parsed(calibrated(tmp_path / "few", people())).paragraphs["Sets of labels"])
    assert "With 3 sites it is not promised for others" in few and "promised for people who" not in few


def observed_in(table: pd.DataFrame) -> pd.DataFrame:
    own = probabilities.people(table, table["fold"].to_numpy())
    return probabilities.observed(own, "fold", 0)


def test_people_who_share_a_scan_count_as_one(alike):
    """Each person is there five times."""
    table = alike.loc[alike.index.repeat(5)].reset_index(drop=True)
    copies = [f"{name}-{at % 5}" for at, name in enumerate(table["subject"])]
    table = table.assign(same_scan=table["subject"] + "-0", subject=copies, file=copies)
    whole, one = observed_in(table), observed_in(alike.assign(subject=alike["subject"] + "-0"))
    width = [(rows["high"] - rows["low"])[rows["measure"] == COVERAGE].tolist() for rows in (whole, one)]
    assert width[0] == pytest.approx(width[1], abs=0.06)


def test_sites_with_ten_families_are_told_apart(alike):
    """Twins at each site: half as many families as people."""
    table = alike.loc[alike.index.repeat(2)].reset_index(drop=True)
    names = [f"{name}-{at % 2}" for at, name in enumerate(table["subject"])]
    found = observed_in(table.assign(same_scan=table["subject"] + "-0", subject=names, file=names))
    own = found[(found["measure"] == COVERAGE) & (found["diagnosis"] == "autism") & (found["level"] == 0.8)]
    large = own[(own["group"] != "") & (own["people"] >= 20)]["value"]
    assert held(found, "autism").ends == (large.min(), large.max())


@pytest.mark.slow
def test_the_page_says_if_nothing_was_found(tmp_path):
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
def test_a_paper_is_told(tmp_path, alike):
    folder = calibrated(tmp_path / "test", alike)
    page = parsed(folder)
    assert "Platt scaling" in " ".join(page.paragraphs["Methods, to paste"])


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
