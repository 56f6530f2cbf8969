"""What a refusal is: a row of a table, with two key words of the line that tells it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lab


@dataclass(frozen=True)
class Row:
    """A command with {places} in it: rungs of the ladder (see conftest.py), or some of PLACES. `spoil` is done to a
    copy before: by file, such as "converted/subjects.csv", a change as `lab.edit` takes it, or a function of it.
    A rung that is not spoilt is shared: a command that may do something until it is refused writes to {missing}."""

    command: str
    words: tuple[str, ...]
    spoil: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        fields = {piece.partition("}")[0] for piece in self.command.split("{")[1:]}
        return fields | {name.partition("/")[0] for name in self.spoil}


def row(command: str, *words: str, spoil: Mapping[str, Any] | None = None) -> Row:
    return Row(command, words, spoil or {})


def folder_with(name: str, content: bytes = b"precious") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / name).write_bytes(content)

    return make


PLACES: dict[str, Callable[[Path], object]] = {  # by name, made anew for each row
    "empty": Path.mkdir,
    "file": lambda path: path.write_bytes(b"precious"),
    "repository": folder_with("analysis.py"),
    "records": lab.records,
    "missing": lambda path: None,
}
