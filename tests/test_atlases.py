"""Series that are not those of one atlas: turned, of two atlases, of another one than that of the training people."""

import re
from collections.abc import Callable
from pathlib import Path

import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import Outcome, run
from test_connectomes import PCP, global_removed, path_of

PARCELS, VOLUMES, PEOPLE = 24, 60, labs.people(12)
IDS = PEOPLE["SUB_ID"].tolist()
LIKE = "abide-data convert {source} {to} --like {of}"
OTHER_ORDER = np.random.default_rng(1).permutation(PARCELS)
NETWORKS = np.random.default_rng(2).normal(size=(4, PARCELS))  # what the parcels of everybody have of four signals

pytestmark = pytest.mark.slow


def series_of(subject: str) -> np.ndarray:
    """The series of a person, (volumes, parcels)."""
    random = np.random.default_rng(int(subject))
    return random.normal(size=(VOLUMES, 4)) @ NETWORKS + random.normal(size=(VOLUMES, PARCELS))


def source_of(folder: Path, table: pd.DataFrame, change: Callable[[int, np.ndarray], np.ndarray]) -> Path:
    """People with these series, each changed by the place in the table."""
    labs.pcp(folder, table, series=True)
    for at, subject in enumerate(table["SUB_ID"]):
        values = pd.DataFrame(change(at, series_of(subject)))
        values.columns = [f"#{number}" for number in range(1, values.shape[1] + 1)]
        values.to_csv(path_of(folder, subject), sep="\t", index=False)
    return folder


def converted_by(command: str, change: Callable[[int, np.ndarray], np.ndarray], folder: Path, **places) -> Outcome:
    table = PEOPLE if command == PCP else labs.people(4, 70002)
    return run(command, source=source_of(folder / "source", table, change), to=folder / "to", **places)


def problems_of(outcome: Outcome) -> list[str]:
    """What is told to be a problem, by which the command must end."""
    told = re.findall(r"^PROBLEM +(.*)$", outcome.out, re.MULTILINE)
    assert (outcome.status, outcome.err) == (1 if told else 0, "")
    return told


GOOD = {  # that are not accused
    "one atlas": lambda at, values: values,
    "half without the global signal": lambda at, values: global_removed(values) if at % 2 else values,
    "half with a third of the volumes": lambda at, values: values[: VOLUMES // 3] if at % 2 else values,
    "of each parcel another level": lambda at, values: 1000 + 100 * np.arange(PARCELS) + values,
    "no likeness": lambda at, values: np.random.default_rng(at).normal(size=values.shape),
}


@pytest.mark.parametrize("name", GOOD)
def test_series_of_one_atlas_are_not_accused(name, tmp_path):
    assert problems_of(converted_by(PCP, GOOD[name], tmp_path)) == []


def test_series_whose_rows_are_parcels_are_told(tmp_path):
    (told,) = problems_of(converted_by(PCP, lambda at, values: (1000 + 100 * np.arange(PARCELS) + values).T, tmp_path))
    assert "turned" in told and "a row a volume" in told


@pytest.mark.parametrize("others", [range(1, 12, 2), range(9, 12)])
def test_the_people_of_each_of_two_atlases_are_named(others, tmp_path):
    outcome = converted_by(PCP, lambda at, values: values[:, OTHER_ORDER] if at in others else values, tmp_path)
    (told,) = problems_of(outcome)
    groups = {frozenset(names.split(", ")) for names in re.findall(r"\(([\d, ]+)\)", told)}
    second = frozenset(IDS[at] for at in others)
    assert "of 2 atlases" in told and groups == {second, frozenset(IDS) - second}


@pytest.fixture(scope="module")
def like(tmp_path_factory) -> Path:
    """A cohort of which all but one are training people."""
    folder = tmp_path_factory.mktemp("like")
    assert problems_of(converted_by(PCP, GOOD["one atlas"], folder)) == []
    return folder / "to"


def test_new_people_are_compared_with_the_training_people(like, tmp_path):
    assert problems_of(converted_by(LIKE, GOOD["one atlas"], tmp_path / "alike", of=like)) == []
    outcome = converted_by(LIKE, lambda at, values: values[:, OTHER_ORDER], tmp_path / "other", of=like)
    (told,) = problems_of(outcome)
    assert "connectomes of 4 new participants" in told and "another atlas" in told
    assert run("abide-data check {of}", of=tmp_path / "other/to").status == 1  # also without the training people


def test_a_single_new_person_of_another_atlas_is_told(like, tmp_path):
    outcome = converted_by(LIKE, lambda at, values: values if at else values[:, OTHER_ORDER], tmp_path, of=like)
    (told,) = problems_of(outcome)
    assert "70002.bin" in told and "another atlas" in told and "70003" not in told
