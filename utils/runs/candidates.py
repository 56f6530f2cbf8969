"""--choose: presets, or a file with a line of --preset and --set for each -> the candidates among which inner folds
choose."""

import argparse
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from data.base.errors import InputError, quote_text
from models import Model, Settings, override_settings

ALL_PRESETS = ""  # all of them: what --choose alone stands for
MAX_CANDIDATES = 64


@dataclass(frozen=True)
class Candidate:
    """One way to train a model: a preset and changes of its settings."""

    preset_name: str
    setting_changes: tuple[str, ...]  # as for --set
    config: Settings

    def __str__(self) -> str:
        return " ".join([self.preset_name, *self.setting_changes])


def parse_candidates(choose_text: str, model: Model) -> tuple[Candidate, ...]:
    """What a user asks for. Raises InputError for an unknown preset or setting, and for candidates that are alike."""
    config_by_preset = model.module.PRESETS
    preset_names = list(config_by_preset) if choose_text == ALL_PRESETS else choose_text.split(",")
    if all(preset_name in config_by_preset for preset_name in preset_names):
        parsed_candidates = [make_candidate(preset_name, [], model) for preset_name in preset_names]
    elif Path(choose_text).is_file():
        parsed_candidates = list(read_candidate_file(Path(choose_text), model))
    else:
        raise InputError(
            f"--choose {quote_text(choose_text)} is neither a list of presets of {model.model_name} "
            f"({', '.join(config_by_preset)}) nor a file with a line of --preset and --set for each candidate."
        )
    if not 2 <= len(parsed_candidates) <= MAX_CANDIDATES:
        count_text = "one candidate" if len(parsed_candidates) == 1 else f"{len(parsed_candidates)} candidates"
        raise InputError(
            f"--choose has {count_text}; expected 2 to {MAX_CANDIDATES}, or a file with a line of settings for each."
        )
    candidate_by_config: dict[Settings, Candidate] = {}
    for new_candidate in parsed_candidates:
        first_candidate = candidate_by_config.setdefault(new_candidate.config, new_candidate)
        if first_candidate is not new_candidate:
            raise InputError(
                f"--choose has the same settings twice, as {first_candidate} and as {new_candidate}; leave one out."
            )
    return tuple(parsed_candidates)


def make_candidate(preset_name: str, setting_changes: Sequence[str], model: Model) -> Candidate:
    """Raises InputError for an unknown preset or setting."""
    config_by_preset = model.module.PRESETS
    if preset_name not in config_by_preset:
        raise InputError(
            f"--preset {quote_text(preset_name)} is unknown to {model.model_name}; expected one of "
            f"{', '.join(config_by_preset)}."
        )
    config = override_settings(config_by_preset[preset_name], list(setting_changes))
    return Candidate(preset_name, tuple(setting_changes), config)


def parse_candidate(candidate_text: str, model: Model) -> Candidate:
    """A candidate as `str` has it."""
    preset_name, *setting_changes = candidate_text.split(" ")
    return make_candidate(preset_name, setting_changes, model)


def read_candidate_file(candidate_lines_path: Path, model: Model) -> Iterator[Candidate]:
    """A candidate of each line that is not empty or a comment (#). Raises InputError, naming the line."""
    try:
        candidate_lines = candidate_lines_path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{candidate_lines_path} is not UTF-8 text; expected a line of --preset and --set a candidate."
        ) from error
    default_preset_name = next(iter(model.module.PRESETS))
    for line_number, candidate_line in enumerate(candidate_lines, 1):
        try:
            line_arguments = shlex.split(candidate_line, comments=True)
            if line_arguments:
                parsed_line = CandidateLineParser().parse_args(line_arguments)
                yield make_candidate(parsed_line.preset or default_preset_name, parsed_line.set, model)
        except (InputError, ValueError) as error:
            raise InputError(f"{candidate_lines_path} line {line_number}: {error}") from None


class CandidateLineParser(argparse.ArgumentParser):
    """The options of a line."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.add_argument("--preset")
        self.add_argument("--set", action="append", default=[])

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; expected --preset NAME and --set KEY=VALUE.")
