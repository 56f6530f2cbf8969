"""Bad input is refused: a row a mistake, with two key words of the line that tells it.

The rows stand in tests/refusals, by what is asked; `commands.refused` holds each to what every refusal promises. What
follows an advice to its end stands in test_roads.
"""

from pathlib import Path

import lab
import pytest
import refusals
from commands import done, refused
from conftest import SLOW
from refusals import blackout, cohorts, convert, derive, estimators, runs, scores, without_maps

TABLES = (convert, without_maps, cohorts, derive, runs, estimators, scores, blackout)
PLACES = refusals.PLACES | {name: make for table in TABLES for name, make in getattr(table, "PLACES", {}).items()}
ROWS = [
    pytest.param(
        refusal_row,
        marks=pytest.mark.slow if refusal_row.names & SLOW else (),
        id=f"{' '.join(refusal_row.words)}: {refusal_row.command}"[:90],
    )
    for table in TABLES
    for refusal_row in table.ROWS
]


@pytest.fixture(scope="session")
def siblings(make_once, bundle) -> Path:
    """The cohort of two people of one family."""

    def make(folder: Path) -> None:
        lab.pcp(folder / "lab", lab.people(2, 60002).assign(FAM="A"), ("falff", "alff"), series=True)
        done("abide-data convert {to}/lab {to}/cohort --family FAM --like {model}", to=folder, model=bundle)

    return make_once("siblings", make) / "cohort"


@pytest.fixture(scope="session")
def edited(make_once, converted) -> Path:
    """A folder with the tables of the cohort that may be edited."""

    def make(folder: Path) -> None:
        for name in ("subjects.csv", "covariates.csv", "phenotype.csv"):
            (folder / name).write_bytes((converted / name).read_bytes())

    return make_once("edited", make)


@pytest.mark.parametrize("refusal", ROWS)
def test_input_is_refused_in_a_single_line(refusal, request, tmp_path):
    spoilt = {name.partition("/")[0] for name in refusal.spoil}
    places = {}
    for name in sorted(refusal.names):
        places[name] = tmp_path / name
        if name in PLACES:
            PLACES[name](places[name])
        elif name not in spoilt:
            places[name] = request.getfixturevalue(name)
        else:
            lab.copy(request.getfixturevalue(name), places[name])
    for name, change in refusal.spoil.items():
        path = tmp_path / name
        if callable(change) and path.suffix not in lab.EDITABLE_SUFFIXES:
            change(path)
        else:
            lab.edit(path, change)
    refused(refusal.command, *refusal.words, **places)
