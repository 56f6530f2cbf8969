"""Series that are not those of one atlas: turned, of two atlases, of another one than that of the training people."""

import re
from collections.abc import Callable
from pathlib import Path

import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import Outcome, run
from test_connectomes import PCP, remove_global_signal, series_path

PARCEL_COUNT, SERIES_LENGTH, PEOPLE = 24, 60, labs.people(12)
IDS = PEOPLE["SUB_ID"].tolist()
CONVERT_LIKE_COHORT = "abide-data convert {source} {to} --like {of}"
SHUFFLED_PARCELS = np.random.default_rng(1).permutation(PARCEL_COUNT)
NETWORKS = np.random.default_rng(2).normal(size=(4, PARCEL_COUNT))  # what the parcels of everybody have of four signals

pytestmark = pytest.mark.slow


def make_parcel_series(subject: str) -> np.ndarray:
    """The series of a person, (volumes, parcels)."""
    random = np.random.default_rng(int(subject))
    return random.normal(size=(SERIES_LENGTH, 4)) @ NETWORKS + random.normal(size=(SERIES_LENGTH, PARCEL_COUNT))


def write_source(folder: Path, table: pd.DataFrame, change: Callable[[int, np.ndarray], np.ndarray]) -> Path:
    """People with these series, each changed by the place in the table."""
    labs.pcp(folder, table, series=True)
    for person_index, subject in enumerate(table["SUB_ID"]):
        values = pd.DataFrame(change(person_index, make_parcel_series(subject)))
        values.columns = [f"#{number}" for number in range(1, values.shape[1] + 1)]
        values.to_csv(series_path(folder, subject), sep="\t", index=False)
    return folder


def convert_source(command: str, change: Callable[[int, np.ndarray], np.ndarray], folder: Path, **places) -> Outcome:
    table = PEOPLE if command == PCP else labs.people(4, 70002)
    return run(command, source=write_source(folder / "source", table, change), to=folder / "to", **places)


def read_problems(outcome: Outcome) -> list[str]:
    """What is told to be a problem, by which the command must end."""
    problems = re.findall(r"^PROBLEM +(.*)$", outcome.out, re.MULTILINE)
    assert (outcome.status, outcome.err) == (1 if problems else 0, "")
    return problems


GOOD_CHANGES = {  # that are not accused
    "one atlas": lambda person_index, values: values,
    "half without the global signal": lambda person_index, values: (
        remove_global_signal(values) if person_index % 2 else values
    ),
    "half with a third of the volumes": lambda person_index, values: (
        values[: SERIES_LENGTH // 3] if person_index % 2 else values
    ),
    "of each parcel another level": lambda person_index, values: 1000 + 100 * np.arange(PARCEL_COUNT) + values,
    "no likeness": lambda person_index, values: np.random.default_rng(person_index).normal(size=values.shape),
}


@pytest.mark.parametrize("name", GOOD_CHANGES)
def test_series_from_a_single_atlas_are_not_accused(name, tmp_path):
    assert read_problems(convert_source(PCP, GOOD_CHANGES[name], tmp_path)) == []


def test_series_whose_rows_are_parcels_are_reported(tmp_path):
    (problem,) = read_problems(
        convert_source(PCP, lambda person_index, values: (1000 + 100 * np.arange(PARCEL_COUNT) + values).T, tmp_path)
    )
    assert "turned" in problem and "a row a volume" in problem


@pytest.mark.parametrize("changed_indices", [range(1, 12, 2), range(9, 12)])
def test_people_from_two_atlases_are_listed(changed_indices, tmp_path):
    outcome = convert_source(
        PCP,
        lambda person_index, values: values[:, SHUFFLED_PARCELS] if person_index in changed_indices else values,
        tmp_path,
    )
    (problem,) = read_problems(outcome)
    groups = {frozenset(names.split(", ")) for names in re.findall(r"\(([\d, ]+)\)", problem)}
    second = frozenset(IDS[person_index] for person_index in changed_indices)
    assert "of 2 atlases" in problem and groups == {second, frozenset(IDS) - second}


@pytest.fixture(scope="module")
def training_cohort(tmp_path_factory) -> Path:
    """A cohort of which all but one are training people."""
    folder = tmp_path_factory.mktemp("like")
    assert read_problems(convert_source(PCP, GOOD_CHANGES["one atlas"], folder)) == []
    return folder / "to"


def test_new_people_are_compared_with_the_training_people(training_cohort, tmp_path):
    assert (
        read_problems(
            convert_source(CONVERT_LIKE_COHORT, GOOD_CHANGES["one atlas"], tmp_path / "alike", of=training_cohort)
        )
        == []
    )
    outcome = convert_source(
        CONVERT_LIKE_COHORT,
        lambda person_index, values: values[:, SHUFFLED_PARCELS],
        tmp_path / "other",
        of=training_cohort,
    )
    (problem,) = read_problems(outcome)
    assert "connectomes of 4 new participants" in problem and "another atlas" in problem
    assert run("abide-data check {of}", of=tmp_path / "other/to").status == 1  # also without the training people


def test_a_single_new_person_with_another_atlas_is_reported(training_cohort, tmp_path):
    outcome = convert_source(
        CONVERT_LIKE_COHORT,
        lambda person_index, values: values if person_index else values[:, SHUFFLED_PARCELS],
        tmp_path,
        of=training_cohort,
    )
    (problem,) = read_problems(outcome)
    assert "70002.bin" in problem and "another atlas" in problem and "70003" not in problem
