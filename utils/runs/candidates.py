"""--choose: presets, or a file with a line of --preset and --set for each -> the candidates among which inner folds
choose."""

import argparse
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from data.base.errors import InputError, quote_text
from models import Model, Settings, override_settings

PRESETS = ""  # all of them: what --choose alone stands for
MOST = 64


@dataclass(frozen=True)
class Candidate:
    """One way to train a model: a preset and changes of its settings."""

    preset: str
    changes: tuple[str, ...]  # as for --set
    config: Settings

    def __str__(self) -> str:
        return " ".join([self.preset, *self.changes])


def candidates(text: str, model: Model) -> tuple[Candidate, ...]:
    """What a user asks for. Raises InputError for an unknown preset or setting, and for candidates that are alike."""
    presets = model.module.PRESETS
    names = list(presets) if text == PRESETS else text.split(",")
    if all(name in presets for name in names):
        found = [candidate(name, [], model) for name in names]
    elif Path(text).is_file():
        found = list(in_file(Path(text), model))
    else:
        raise InputError(
            f"--choose {quote_text(text)} is neither a list of presets of {model.model_name} ({', '.join(presets)}) "
            "nor a file with a line of --preset and --set for each candidate."
        )
    if not 2 <= len(found) <= MOST:
        count = "one candidate" if len(found) == 1 else f"{len(found)} candidates"
        raise InputError(f"--choose has {count}; expected 2 to {MOST}, or a file with a line of settings for each.")
    seen: dict[Settings, Candidate] = {}
    for one in found:
        if (other := seen.setdefault(one.config, one)) is not one:
            raise InputError(f"--choose has the same settings twice, as {other} and as {one}; leave one out.")
    return tuple(found)


def candidate(preset: str, changes: Iterable[str], model: Model) -> Candidate:
    """Raises InputError for an unknown preset or setting."""
    presets, changes = model.module.PRESETS, tuple(changes)
    if preset not in presets:
        raise InputError(
            f"--preset {quote_text(preset)} is unknown to {model.model_name}; expected one of {', '.join(presets)}."
        )
    return Candidate(preset, changes, override_settings(presets[preset], list(changes)))


def recorded(text: str, model: Model) -> Candidate:
    """A candidate as `str` has it."""
    preset, *changes = text.split(" ")
    return candidate(preset, changes, model)


def in_file(path: Path, model: Model) -> Iterator[Candidate]:
    """A candidate of each line that is not empty or a comment (#). Raises InputError, naming the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; expected a line of --preset and --set a candidate.") from error
    for number, line in enumerate(lines, 1):
        try:
            if words := shlex.split(line, comments=True):
                args = Line().parse_args(words)
                yield candidate(args.preset or next(iter(model.module.PRESETS)), args.set, model)
        except (InputError, ValueError) as error:
            raise InputError(f"{path} line {number}: {error}") from None


class Line(argparse.ArgumentParser):
    """The options of a line."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("--preset")
        self.add_argument("--set", action="append", default=[])

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; expected --preset NAME and --set KEY=VALUE.")
