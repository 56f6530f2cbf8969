"""What a cohort can conclude: against the interval of a test, and the simulated studies of docs/planning.md."""

import re
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT

from data.cohorts import division
from data.cohorts.forecast import compared, forecast
from data.cohorts.rows import UNKNOWN_SITE, Row
from utils.scores.metrics import Predictions, headline, needed_groups, with_intervals

WAYS = {"new people": "", "sites left out": "site", "ten folds": "10"}
STUDIES = pd.read_csv(ROOT / "docs" / "evidence" / "planning.csv").query("question == 'chance' and people < 800")
FOUND = STUDIES[["people", "sites", "way", "value"]].values.tolist()  # from which AUC on 8 of 10 studies find it


def people(count, sites, seed=0):
    label = (np.random.default_rng([seed, count, sites]).random(count) < 0.5).astype(float)
    return label, np.arange(count) % sites, np.arange(count)


def folds(label, site, unit, how):
    return {"": None, "site": site}.get(how, division.numbered(label, site, unit, 10, 0) if how == "10" else None)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "sites", "way", "least"), FOUND)
def test_the_auc_is_that_of_simulated_studies(count, sites, way, least):
    how = WAYS[way]
    every = [people(count, sites, seed) for seed in range(3 if how == "10" else 9)]
    found = np.median([compared("", of, folds(*of, how)).auc for of in every])
    assert found == pytest.approx(least, abs=0.021 if how or count > 100 else 0.041, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "sites", "relatives"), [*product((30, 120), (1, 4, 12), (1, 3)), (24, 1, 1), (200, 20, 1)]
)
def test_those_whom_a_test_compares_are_counted_and_an_interval_is_where_it_has_one(count, sites, relatives):
    label, site, unit = people(count, sites)
    label[site == 3], unit = 1, unit // relatives * relatives  # the first of each group; one site has one class
    site = site[unit]
    for fold in (division.numbered(label, site, unit, 10, 0), site, None):
        one = Predictions(label, np.full(count, 0.5), np.arange(count), fold, site, person=unit)
        score = headline(one.groups | {"auc": None})
        found = compared("", (label, site, unit), fold)
        assert found.people == sum(map(np.sum, needed_groups(one)[score]))
        assert np.isnan(found.auc) == (with_intervals(one, 0)[score].low is None)


def rows(count, sites, split="train", names=(), one_class=()):
    label, site, _ = people(count, sites)
    names = names or [f"S{number}" for number in range(sites)]
    return [
        Row(f"{at}.bin", str(at), names[where], 1.0 if where in one_class else of, split)
        for at, (of, where) in enumerate(zip(label, site, strict=True))
    ]


@pytest.mark.parametrize(
    ("of", "told", "advised"),
    [
        (rows(12, 1), "compares 12 within folds, too few for an interval.$", "too few people.*join"),
        (rows(60, 1, names=[UNKNOWN_SITE]), "10 compares 60 within folds and .* 0[.]8", "site is unknown.*whole"),
        (rows(150, 15), "10 compares .*--folds site compares 150 within 15 sites", "use --folds site"),
        (rows(200, 4, one_class=(1, 2)), "10 compares 100 within 2 sites and", "^Advice: use"),
        (rows(60, 2), "10 compares 60 within 2 sites and", "expect no conclusion.*join"),
        (rows(200, 2), "10 compares 200 within 2 sites .*AUC of 0[.]6", "^Advice: use --folds 10; .* 180 people"),
        (rows(60, 2, "test"), "a model of other people compares 60 within 2 sites", "own test had a higher AUC"),
        (rows(5, 1, one_class=(0,)), "no folds are possible", "too few people"),
    ],
)  # fmt: skip
def test_two_lines_say_who_is_compared_what_is_shown_and_what_to_do(of, told, advised):
    first, second = forecast(of, ())
    assert re.search(told, first) and re.search(advised, second)


def test_it_is_compared_with_who_reads_the_same():
    told = [forecast(rows(200, 2), (), connectome=name)[1] for name in ("rois_cc200", "")]
    assert "with connectomes reached 0.72" in told[0] and "without connectomes reached 0.70" in told[1]


def test_folds_are_those_of_a_run_and_asked_ones_are_told_alone():
    of = rows(150, 15)
    groups = (("0", "15", "30"), ("1", "16"))
    cut = division.by_number(SimpleNamespace(rows=of, path="", groups=groups), "10", 0)
    usual, asked = (forecast(of, groups, *given)[0] for given in ((), ("10", cut)))
    assert usual.split("; ")[0] == asked.split(" (")[0].removesuffix(".") and "--folds site" not in asked
    assert "use --folds site" in forecast(of, groups, "10", cut)[1]


def test_nothing_is_said_of_people_without_a_label():
    assert not forecast([*rows(40, 2), Row("40.bin", "40", "S1", float("nan"), "test")], ())
