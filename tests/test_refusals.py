"""Bad input is refused: a row a mistake, with two key words of the line that tells it.

`commands.refused` holds each to what every refusal promises. What follows an advice to its end stands in test_roads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lab
import pytest
from commands import refused


@dataclass(frozen=True)
class Row:
    """A command with {places} in it: rungs of the ladder (see conftest.py), or some of PLACES. `spoil` is done to a
    copy before: by file, such as "converted/subjects.csv", a change as `lab.edit` takes it, or a function of it."""

    command: str
    words: tuple[str, ...]
    spoil: dict[str, object]

    @property
    def names(self) -> set[str]:
        fields = {part.partition("}")[0] for part in self.command.split("{")[1:]}
        return fields | {name.partition("/")[0] for name in self.spoil}


def row(command: str, *words: str, spoil: dict[str, object] | None = None) -> Row:
    return Row(command, words, spoil or {})


def folder_with(name: str, content: bytes = b"precious") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / name).write_bytes(content)

    return make


PLACES: dict[str, Callable[[Path], object]] = {  # by name, made anew for each row; else what is missing
    "empty": Path.mkdir,
    "file": lambda path: path.write_bytes(b"precious"),
    "repository": folder_with("analysis.py"),
    "records": lab.records,
    "missing": lambda path: None,
}

CONVERT: list[Row] = [
    row("abide-data convert {missing} {empty}/new", "{missing}", "not a folder"),
]
DERIVE: list[Row] = []
COHORTS: list[Row] = [  # what every command finds on opening one
    row("run.py --train --dataDir {empty} --chkPointDir {missing}", "{empty}", "no records"),
]
RUNS: list[Row] = [
    row("run.py --train --test", "--train", "not allowed"),
    row("run.py --test --model nn --chkPointDir {empty} --dataDir {cohort}", "{empty}/nn", "run.py --train"),
]
SCORES: list[Row] = []  # report, compare, choice, permutations
BLACKOUT: list[Row] = []
BUNDLES: list[Row] = []
ROWS = [*CONVERT, *DERIVE, *COHORTS, *RUNS, *SCORES, *BLACKOUT, *BUNDLES]


@pytest.mark.parametrize("of", ROWS, ids=lambda of: f"{' '.join(of.words)}: {of.command}"[:90])
def test_it_is_refused_in_one_line(of, request, tmp_path):
    spoilt = {name.partition("/")[0] for name in of.spoil}
    places = {}
    for name in sorted(of.names):
        places[name] = tmp_path / name
        if name in PLACES:
            PLACES[name](places[name])
        elif name not in spoilt:
            places[name] = request.getfixturevalue(name)
        else:
            lab.copy(request.getfixturevalue(name), places[name])
    for name, change in of.spoil.items():
        path = tmp_path / name
        if callable(change) and path.suffix not in lab.READ:
            change(path)
        else:
            lab.edit(path, change)
    refused(of.command, *of.words, **places)
