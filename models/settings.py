"""Hyper-parameters: what every model has, and `KEY=VALUE` texts -> a dataclass of the right types."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from data.base import files
from data.base.errors import InputError

MAX_BATCH = 4096
MAX_MEMBERS = 64
MAX_WIDTH = 4096  # filters or units of a layer
MAX_KERNEL = 31  # voxels; also of strides
MAX_WEIGHTS = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How any model is optimised."""

    batch_size: int = 32
    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = 0.001
    half_rate_after: int = (
        0  # batches; the rate after n of them is learning_rate / (1 + n / half_rate_after); 0: constant
    )
    decay: float = 0.9  # of the gradient's running mean (Adam's beta 1) or of its running square (RMSprop)
    l1: float = 0.0  # penalty on the absolute values of all kernels; those on their squares are each layer's own

    def __post_init__(self) -> None:
        require(0 < self.batch_size <= MAX_BATCH, f"batch_size is {self.batch_size}; expected 1 to {MAX_BATCH}.")
        require(0 < self.learning_rate < math.inf, f"learning_rate is {self.learning_rate}; expected more than 0.")
        require(self.half_rate_after >= 0, f"half_rate_after is {self.half_rate_after}; expected 0 or more.")
        for name in ("l1", "l2", "region_l2", "phenotype_l2"):
            penalty = getattr(self, name, 0.0)
            require(0 <= penalty < math.inf, f"{name} is {penalty}; expected 0 or more.")
        require(0 <= self.decay < 1, f"decay is {self.decay}; expected 0 or more and less than 1.")

    def idle(self) -> dict[str, str]:
        """The settings that change nothing with the others as they are, and what they need."""
        return {}

    @classmethod
    def of_saved(cls, values: dict) -> "tuple[type[Settings], dict]":
        """The class of the network that saved `values` describe, and those of them that it uses."""
        return cls, values


@dataclass(frozen=True)
class LayerSettings:
    """How the kernel of a layer starts and is penalised, and whether batch norm follows."""

    l1: float
    l2: float
    batch_norm: bool = False
    initializer: str = "glorot_uniform"


class Part(NamedTuple):
    """A part of a classifier: `features()` builds layers that give (batch, features), which a layer of logits reads."""

    name: str
    features: Callable[[], Any]
    settings: LayerSettings
    even: bool  # the logits begin at 0


@dataclass(frozen=True, kw_only=True)
class HiddenLayers(Settings):
    """What models with hidden layers have beside."""

    batch_norm: bool = True
    initializer: Literal["glorot_uniform", "he_normal"] = "glorot_uniform"  # the first is Xavier's

    def layer_settings(self, l2: float) -> LayerSettings:
        """With a penalty `l2` on squared weights."""
        return LayerSettings(self.l1, l2, self.batch_norm, self.initializer)


@dataclass(frozen=True, kw_only=True)
class Classifier(Settings):
    """What every classifier has beside."""

    members: int = 1  # networks whose logits are averaged, each with a start and a loss of its own

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.members <= MAX_MEMBERS, f"members is {self.members}; expected 1 to {MAX_MEMBERS}.")

    @property
    def has_hidden_layers(self) -> bool:
        """Whether any part of it has a layer that batch norm and the initializer apply to."""
        return False

    def idle(self) -> dict[str, str]:
        needs = "region_units, phenotype_activation=relu or a second layer on the phenotype"
        idle = {} if self.has_hidden_layers else dict.fromkeys(("batch_norm", "initializer"), needs)
        return super().idle() | idle


def require_sizes(name: str, sizes: tuple[int, ...], smallest: int = 1, largest: int = MAX_WIDTH) -> None:
    """Raises InputError unless every size of a layer is within bounds."""
    require(
        all(smallest <= size <= largest for size in sizes),
        f"{name} is {','.join(map(str, sizes))}; expected whole numbers from {smallest} to {largest}.",
    )


def require_weights(count: int) -> None:
    """Raises InputError for a network that fits no memory."""
    require(count <= MAX_WEIGHTS, f"These layers have {count:,} weights; expected at most {MAX_WEIGHTS:,}.")


def require_sparsity(sparsity: float, weight: float) -> None:
    """Raises InputError for a sparsity of a code that cannot be, or a weight of it that is not finite."""
    require(0 < sparsity < 1, f"sparsity is {sparsity}; expected more than 0 and less than 1.")
    require(0 <= weight < math.inf, f"sparsity_weight is {weight}; expected 0 or more.")


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
    """`config` with each `KEY=VALUE` put in.

    Raises InputError for an unknown key, a value of the wrong type, or one that would change nothing.
    """
    kinds = get_type_hints(type(config))
    values: dict[str, Any] = {}
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
    changed = dataclasses.replace(config, **values)
    for key, needs in changed.idle().items():
        if key in values and values[key] != getattr(config, key):
            raise InputError(f"--set {key}={values[key]} changes nothing here: it needs {needs}.")
    return changed


def from_json(kind: type[Settings], values: dict) -> Settings:
    """The dataclass that `dataclasses.asdict` and JSON made `values` from; missing values take their defaults.

    Where `kind` stands for several networks, the result is of the class of one of them (`Settings.of_saved`).
    Raises InputError for a hyper-parameter that the model does not have, or a value of the wrong type.
    """
    kind, values = kind.of_saved(values)
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(values.keys() - set(known)):
        raise InputError(f"The checkpoint has {unknown[0]}, which is no hyper-parameter of this version; train again.")
    try:
        return files.typed(json.dumps(values), kind)
    except ValueError as error:
        raise InputError(f"The checkpoint's hyper-parameters are damaged ({error}); train again.") from error
