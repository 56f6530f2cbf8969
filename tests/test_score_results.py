"""A value with its interval: its numbers, cells and texts; a metric that stands for a run; the tables of a test."""

import json
import math
import re
from dataclasses import asdict, astuple, replace

import numpy as np
import pandas as pd
import pytest

from data.base import files
from data.base.effort import EFFORT
from utils.evaluation import comparisons, confounds, external, probabilities
from utils.evaluation.confounds import by_fold, by_site
from utils.jobs import TEST
from utils.report.tables import read_test
from utils.scores.metrics import Predictions, differences, with_intervals
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
        (ALONE, {}, "0.610 (no interval: too few people)"),
        (ALONE, {"no_interval": "too few"}, "0.610 (too few)"),
        (UNDEFINED, {}, "-"),
        (UNDEFINED, {"undefined": "undefined", "no_interval": "too few"}, "undefined"),
    ],
)
def test_texts(estimate, how, text):
    assert estimate.text(**how) == text


def test_ends_alone():
    assert SURE.ends(".0%") == "50% to 72%" and ALONE.ends() == "no interval: too few people"


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
    assert {"predictions", "floors", "sites", "table1"} <= {table.name for table in written}
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


SMALL_TESTS = 100  # 1,000 take some minutes, and found no more
UNIT, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
ANY = ("slope", "intercept", "in_the_large")  # and counts, of which nothing is asked but that they are numbers
SIGNED = ("model_minus", "partial", "correlation", "difference")


def small_test(random: np.random.Generator) -> tuple[Predictions, list[np.ndarray]]:
    """2 to 40 people of 1 to 19 sites, with or without folds and repeats, and what a floor says of each repeat;
    probabilities may be noise, constant, right, wrong or certain, and labels of one class."""
    count, sites = random.integers(2, 41), random.integers(1, 20)
    label = random.choice(
        [(random.random(count) < random.random()), np.ones(count), np.zeros(count)], p=[0.9, 0.05, 0.05]
    )
    label = label.astype(float)
    site = np.array([f"S{at}" for at in random.integers(sites, size=count)])
    folds = [site, None, *(random.integers(of, size=count) for of in (2, 3, 10))]
    person = [None, np.arange(count) // 2][random.integers(2)]
    kind, repeats = random.integers(5), random.integers(1, 3)

    def said() -> np.ndarray:
        noise = random.random(count)
        return [noise, np.full(count, 0.5), label * 0.8 + 0.1, 1 - label, noise.round()][kind]

    fold = folds[random.integers(5)]
    one = Predictions(label, said(), np.arange(count), fold, site, person=person)
    every = [replace(one, probability=said()) for _ in range(repeats)]
    return replace(every[0], repeats=tuple(every[1:])), [random.permutation(said()) for _ in every]


def outside(name: str, value: object) -> bool:
    """Whether a number is no number, or outside of what is possible."""
    if value is None or isinstance(value, str | bool) or any(of in name for of in ANY):
        return False
    low, high = DIFFERENCE if any(of in name for of in SIGNED) else UNIT
    return not low <= float(value) <= high


def told(test: Predictions, floors: list[np.ndarray], random: np.random.Generator) -> tuple[list[dict], list[str]]:
    """The rows of the tables of a test, and its sentences."""
    floor = [pd.DataFrame({"majority": 0.5, "regions": of}) for of in floors]
    table = comparisons.floors_table(test, floor, 0, ("volume",))
    other = test.with_probabilities(floors)
    count = {"subjects", "autism", "control"}
    by = by_site(test, 0) if random.random() < 0.05 else []
    by += [flat(of) for of in by_fold(test, 0).values()] if test.fold is not None and random.random() < 0.05 else []
    rows = [*table, flat(with_intervals(test, 0)), *({name: row[name] for name in row.keys() - count} for row in by)]
    rows += [{f"difference {name}": value for name, value in flat(differences(test, other, 0)).items()}]
    rows += [
        {row["measure"] + end: row[end] for end in columns_of()} for row in external.scored(test, external.Known(), 0)
    ]
    rows += [probabilities.share(pd.Series(random.random(len(test.label)) < 0.8), pd.Series(test.unit))]
    return rows, [comparisons.verdict(table, test, ("volume",))]


@pytest.mark.slow
def test_of_small_tests_no_number_is_outside_of_its_range(monkeypatch):
    """Nor is one NaN, in a table or a sentence."""
    monkeypatch.setattr(EFFORT, "resamples", 20)
    for seed in range(SMALL_TESTS):
        random = np.random.default_rng(seed)
        rows, texts = told(*small_test(random), random)
        odd = [
            (name, value) for row in rows for name, value in row.items() if name != "people" and outside(name, value)
        ]
        assert not odd, (seed, odd)
        assert not re.search(r"\b(nan|inf|None)\b", " ".join(texts)), (seed, texts)


@pytest.mark.slow
def test_of_small_calibrations_and_covariates_no_number_is_outside_of_its_range(monkeypatch):
    """The same of tables that need more people: probabilities, and what is beside covariates."""
    monkeypatch.setattr(EFFORT, "resamples", 20)
    for seed in range(5):
        random = np.random.default_rng(seed)
        label, site = np.arange(170) % 2.0, random.choice(list("ABCDEFGHIJ")[: 2 + seed % 9], 170)
        nearly_wrong = np.abs(label - (random.random(170) < 0.98))
        said = [label * 0.98 + 0.01, 1 - label, nearly_wrong, np.full(170, 0.5), random.random(170)][seed % 5]
        people = pd.DataFrame({"file": np.arange(170), "subject": np.arange(170), "site": site, "label": label})
        found = probabilities.people(people.assign(probability=said), np.arange(170) % 3)
        rows = probabilities.observed(found, "site", 0).to_dict("records")
        cells = [(row["measure"], row[end]) for row in rows for end in columns_of() if row[end] == row[end]]
        assert not [cell for cell in cells if outside(*cell)]
        covariates = pd.DataFrame({"age": random.normal(size=170), "mean_fd": random.random(170)}, range(170))
        test = Predictions(label, said * 0.9 + 0.05 * random.random(170), np.arange(170), np.arange(170) % 3, site)
        result = confounds.motion(test, covariates.astype(str), 0)
        for name in ("partial", "correlation"):
            assert not [of for of in astuple(result.get(name, UNDEFINED)) if outside(name, of)]
        rows = confounds.groups(test, covariates.astype(str), 0)
        counts = {"subjects", "autism", "control"}
        assert not [(of, value) for row in rows for of, value in row.items() if of not in counts and outside(of, value)]
