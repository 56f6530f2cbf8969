"""A run that several workers do: one that was started for something else is refused, and named."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers import cohort_of, run_of

from data.base.errors import InputError
from data.cohorts.folds import Folds
from utils.machines.workers import Team, team
from utils.runs.group import Group, check_alike

PLAIN = run_of()
FOLDS = Folds("3", cohort_of(), "d" * 64, {})
WHOLE = replace(PLAIN, folds=FOLDS, workers=team(("a:1", "b:1"), 0))
OF_CHIEF = Group(WHOLE, (), only="0")
CHANGES = [
    {"num_iters": 2},
    {"override": True},
    {"out_dir": Path("elsewhere")},
    {"choices": replace(PLAIN.choices, seed=3)},
    {"folds": Folds("3", cohort_of(), "e" * 64, {})},
]


@pytest.fixture
def compared(monkeypatch):
    """`compared(one, other)` is what the other worker does after the chief has said what it was asked for."""

    def compare(chief: Group, other: Group) -> None:
        contents: list[bytes] = []

        def exchange(self, content):
            contents.append(content)
            return [contents[0], content]

        monkeypatch.setattr(Team, "exchange", exchange)
        check_alike(chief, WHOLE.workers)
        check_alike(other, WHOLE.workers)

    return compare


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_worker_that_does_something_else_is_refused(change, compared):
    with pytest.raises(InputError, match=r"^b:1 was started with other settings, data or checkpoints than a:1; run"):
        compared(OF_CHIEF, replace(OF_CHIEF, run=replace(WHOLE, **change)))


def test_a_worker_that_does_another_fold_is_refused(compared):
    with pytest.raises(InputError, match=r"^b:1 was started with other settings"):
        compared(OF_CHIEF, replace(OF_CHIEF, only="1"))


def test_workers_that_do_the_same_go_on(compared):
    elsewhere = replace(WHOLE, started=0.0, data_dir=Path("as/another/machine/calls/it"))
    compared(OF_CHIEF, replace(OF_CHIEF, run=elsewhere))
