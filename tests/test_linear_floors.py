"""Linear floors as constants: the same probabilities as the floors that they are, of anybody, and nobody's values."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from helpers import add_connectomes
from test_floors import drawn_edges, edges_of_people, made_up, means_of_made_up  # noqa: F401

from data import demo
from data.base import files
from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.cohort import Cohort
from data.cohorts.rows import Metadata
from data.cohorts.seal import Seal
from utils.scores import floors, linear_floors

SAME = 1e-9  # of a probability
LINEAR = ("majority", "logistic regression", "ridge")


def linear(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in table if name.endswith(LINEAR)]]


def people(cohort: Cohort, indices: np.ndarray, **changes) -> Cohort:
    """The people of these records as a cohort of test people."""
    rows = tuple(replace(cohort.rows[at], split="test", **changes) for at in indices)
    entries, digests = ([of[at] for at in indices] for of in (cohort.entries, cohort.seal.digests))
    edges = cohort.connectomes and replace(
        cohort.connectomes,
        rows=cohort.connectomes.rows[indices],
        digests=tuple(cohort.connectomes.digests[at] for at in indices),
    )
    return replace(cohort, rows=rows, entries=tuple(entries), seal=Seal(tuple(digests)), connectomes=edges)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Cohort:
    """80 simulated people with connectomes."""
    folder = tmp_path_factory.mktemp("linear") / "cohort"
    demo.simulate(folder, records.REDUCED, demo.Simulation(subjects=80, seed=4))
    return add_connectomes(folder)


@pytest.fixture(scope="module")
def fitted(whole) -> linear_floors.LinearFloors:
    return linear_floors.fit(whole)


@pytest.mark.slow
def test_they_are_the_floors_of_a_test_split(whole, fitted):
    found = linear_floors.predict(fitted, whole, whole.indices("test"))
    expected = linear(floors.predict(whole))
    assert sorted(found) == sorted(expected)
    assert "all, ridge" in found and "connectome, ridge" in found and "covariates, logistic regression" in found
    pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=0, atol=SAME)
    assert found.drop(columns="majority").std().gt(1e-3).all()


@pytest.mark.slow
def test_they_are_the_floors_of_new_people(whole, fitted):
    new = people(whole, whole.indices("test")[:5], label=float("nan"))
    source = replace(whole, rows=tuple(replace(row, split="train") for row in whole.rows))
    of_all = linear_floors.fit(source)
    expected = linear(floors.predict(new, source))
    found = linear_floors.predict(of_all, new, range(5))
    pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=0, atol=SAME)


@pytest.mark.slow
def test_one_person_alone_gets_the_same(whole, fitted):
    test = whole.indices("test")
    together = linear_floors.predict(fitted, whole, test)
    for at in test[:3]:
        alone = people(whole, np.array([at]))
        pd.testing.assert_frame_equal(
            linear_floors.predict(fitted, alone, [0]), together.loc[[whole.rows[at].file]], rtol=0, atol=SAME
        )


@pytest.mark.slow
def test_a_site_that_is_not_known_is_none_of_the_known_ones(whole, fitted):
    at = int(whole.indices("test")[0])
    there = people(whole, np.array([at]))
    elsewhere = people(whole, np.array([at]), site="elsewhere")
    vars(elsewhere)["covariates"] = there.covariates.assign(SITE_ID="elsewhere")  # as if read
    one, other = (linear_floors.predict(fitted, of, [0]).iloc[0] for of in (there, elsewhere))
    floor = fitted.constants.floors["covariates, logistic regression"]
    weight = floor.categories["covariates site"][there.rows[0].site]

    def odds(probability):
        return np.log(probability / (1 - probability))

    name = "covariates, logistic regression"
    assert odds(one[name]) - odds(other[name]) == pytest.approx(weight)
    assert one["phenotype, logistic regression"] == other["phenotype, logistic regression"]


@pytest.mark.slow
def test_unknown_numbers_and_text_are_folded_in(tmp_path):
    made = made_up(160)
    made.connectomes = edges_of_people(tmp_path, drawn_edges(160, 0.2, made.label))
    made.standard = "stored"
    of = linear_floors.fit(made)
    found, expected = linear_floors.predict(of, made, made.indices("test")), linear(floors.predict(made))
    pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=0, atol=SAME)
    motion = of.constants.floors["covariates, logistic regression"].numbers["covariates log func_mean_fd"]
    assert motion.unknown != 0 and (made.covariates["func_mean_fd"] == "-9999").any()
    assert set(of.constants.floors["all, ridge"].categories["covariates scanner"]) == {"unknown", "x", "y"}


@pytest.mark.slow
def test_a_category_of_one_person_alone_is_left_out():
    made = made_up(160)
    made.standard = "stored"
    train = made.indices("train")
    codes = made.covariates["scanner"].to_numpy(object).copy()
    codes[train[:3]] = ["only", "pair", "pair"]
    made.covariates["scanner"] = codes
    of = linear_floors.fit(made)
    assert set(of.constants.floors["all, ridge"].categories["covariates scanner"]) == {"pair", "unknown", "x", "y"}
    assert "only" not in files.json_text(asdict(of.constants))
    found, expected = linear_floors.predict(of, made, made.indices("test")), linear(floors.predict(made))
    pd.testing.assert_frame_equal(found[list(expected)], expected, rtol=0, atol=SAME)


@pytest.mark.slow
def test_constants_come_back_from_json(fitted, whole):
    text = files.json_text(asdict(fitted.constants))
    again = linear_floors.LinearFloors(files.typed(text, linear_floors.Constants), fitted.edges)
    test = whole.indices("test")
    pd.testing.assert_frame_equal(
        linear_floors.predict(again, whole, test), linear_floors.predict(fitted, whole, test), check_exact=True
    )
    assert not any(f'"{row.subject}"' in text for row in whole.rows)


def test_of_too_few_people_there_is_the_majority():
    made = made_up(12)
    made.standard = "stored"
    made.rows = [replace(row, label=float(number == 0)) for number, row in enumerate(made.rows)]
    of = linear_floors.fit(made)
    assert of.constants.floors == {} and of.edges is None
    assert linear_floors.predict(of, made, [0, 1])["majority"].tolist() == pytest.approx([1 / 9, 1 / 9])


@pytest.mark.slow
def test_what_the_floors_were_not_fitted_on_is_refused_or_left_out(whole, fitted):
    test = whole.indices("test")
    with pytest.raises(InputError, match="standardised as brain; the floors were fitted on stored"):
        linear_floors.predict(fitted, replace(whole, standard="brain"), test)
    other = replace(whole, metadata=replace(whole.metadata, parcels_sha256="0" * 64))
    assert "connectome, ridge" not in linear_floors.predict(fitted, other, test)
    bare = replace(whole, tables=None)
    assert bare.covariates is None
    with pytest.raises(InputError, match="The floors read covariates AGE_AT_SCAN, which these people lack"):
        linear_floors.predict(fitted, bare, test)
    assert Metadata().parcels_sha256 == ""
