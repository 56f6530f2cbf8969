"""Hyper-parameters: what every model has, and `KEY=VALUE` texts -> a dataclass of the right types."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from data.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How any model is initialised, regularised and optimised."""

    batch_size: int = 32
    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = 0.001
    decay: float = 0.9  # of the gradient's running mean (Adam's beta 1) or of its running square (RMSprop)
    batch_norm: bool = True
    initializer: Literal["glorot_uniform", "he_normal"] = "glorot_uniform"  # the first is Xavier's
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self):
        for name in ("batch_size", "learning_rate"):
            require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; expected more than 0.")
        for name in ("l1", "l2"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; expected 0 or more.")
        require(0 <= self.decay < 1, f"decay is {self.decay}; expected 0 or more and less than 1.")


def require(condition: bool, message: str) -> None:
    """Raises InputError with `message` unless the condition holds."""
    if not condition:
        raise InputError(message)


def parse_value(text: str, kind: type) -> object:
    """`text` as int, float, bool, str, one of a Literal's texts, or a comma-separated tuple. Raises ValueError."""
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"one of {', '.join(get_args(kind))}")
        return text
    if get_origin(kind) is tuple:
        return tuple(parse_value(part, get_args(kind)[0]) for part in text.split(",") if part)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise ValueError({"int": "a whole number", "float": "a number"}[kind.__name__]) from None


def override(config: Settings, assignments: list[str]) -> Settings:
    """`config` with each `KEY=VALUE` put in. Raises InputError for an unknown key or a value of the wrong type."""
    kinds = get_type_hints(type(config))
    values = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment} has no '='; expected KEY=VALUE.")
        if key not in kinds:
            raise InputError(f"--set {key} is unknown; expected one of {', '.join(sorted(kinds))}.")
        try:
            values[key] = parse_value(text, kinds[key])
        except ValueError as error:
            raise InputError(f"--set {assignment} has the wrong type; expected {key} to be {error}.") from None
    return dataclasses.replace(config, **values)


def from_json(kind: type[Settings], values: dict) -> Settings:
    """The dataclass that `dataclasses.asdict` and JSON made `values` from (JSON has no tuples)."""
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
