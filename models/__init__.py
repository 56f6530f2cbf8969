"""What every model is: the settings of a network, and the five models in one table.

Each module holds `Config` (a frozen dataclass), `PRESETS` (the first is the default), and a pure `build(config, grid,
maps)`. A model imports Keras only inside functions, so that a mistake on the command line is reported before its
seconds-long import.
"""

import dataclasses
import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np

from data.base import files
from data.base.errors import SHOWN, InputError
from data.base.processes import prepare_tensorflow
from data.cohorts.cohort import Cohort
from data.cohorts.records import FULL, REDUCED, Grid

prepare_tensorflow()

MAX_BATCH = 4096
MAX_MEMBERS = 64
MAX_WIDTH = 4096  # filters or units of a layer
MAX_KERNEL = 31  # voxels; also of strides
MAX_LAYERS = 64
MAX_WEIGHTS = 100_000_000
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")  # of layers
NUMBER = re.compile(r"[-+]?(?=[.0-9])[0-9]*\.?[0-9]*([eE][-+]?[0-9]{1,5})?|[-+]?inf|nan", re.ASCII)


class Between(NamedTuple):
    """The bounds of a number, or of each number of a tuple, all of which float32 can hold; and of a tuple's length."""

    smallest: float
    largest: float
    most: int = MAX_LAYERS

    def check(self, name: str, value: Any) -> None:
        """Raises InputError for a value of the setting `name` that is out of bounds."""
        values = value if isinstance(value, tuple) else (value,)
        require(len(values) <= self.most, f"{name} has {len(values)} values; expected at most {self.most}.")
        require(
            all(self.smallest <= number <= self.largest for number in values),
            f"{name} is {','.join(map(str, values))[:SHOWN]}; expected {self.smallest:.9g} to {self.largest:.9g}.",
        )


BatchSize = Annotated[int, Between(1, MAX_BATCH)]
Rate = Annotated[float, Between(1e-12, 1e38)]  # float32 holds no more
Penalty = Annotated[float, Between(0, 1e6)]
BelowOne = Annotated[float, Between(0, 0.999999)]
Sparsity = Annotated[float, Between(1e-6, 0.999999)]
Widths = Annotated[tuple[int, ...], Between(1, MAX_WIDTH)]
Edge = Annotated[int, Between(1, MAX_KERNEL)]
Edges = Annotated[tuple[int, ...], Between(1, MAX_KERNEL)]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How any model is optimised. Every setting that is a number has bounds in its type."""

    batch_size: BatchSize = 32
    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: Rate = 0.001
    # Batches; the rate after n of them is learning_rate / (1 + n / half_rate_after); 0: constant
    half_rate_after: Annotated[int, Between(0, 10**9)] = 0
    decay: BelowOne = 0.9  # of the gradient's running mean (Adam's beta 1) or of its running square (RMSprop)
    l1: Penalty = 0.0  # penalty on the absolute values of all kernels; those on their squares are each layer's own

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, bounds in bounds_of(kind).items():
            bounds.check(name, getattr(self, name))
        self.check()
        weights = self.weights()
        require(weights <= MAX_WEIGHTS, f"These layers have {weights:,} weights; expected at most {MAX_WEIGHTS:,}.")

    def check(self) -> None:
        """Raises InputError for settings that do not go together."""

    def weights(self) -> int:
        """Of the network's layers, about."""
        return 0

    def idle(self) -> dict[str, str]:
        """The settings that change nothing with the others as they are, and what they need."""
        return {}

    @classmethod
    def of_saved(cls, values: dict) -> "type[Settings]":
        """The class of the network that saved `values` describe."""
        return cls


@dataclass(frozen=True)
class LayerSettings:
    """How the kernel of a layer starts and is penalised, and whether batch norm follows."""

    l1: float
    l2: float
    batch_norm: bool = False
    initializer: Any = "glorot_uniform"  # one of Keras's, or its name


class Part(NamedTuple):
    """A part of a classifier. `features(members)` builds the layers below the logits, for so many networks an input.
    Their output is (batch, inputs, features) if these share it, else (batch, inputs, members, features)."""

    name: str
    features: Callable[[int], Any]
    settings: LayerSettings
    even: bool  # the logits begin at 0
    share: float = 1.0  # of the mean of logits, before it is learned
    within_sites: bool = False  # it learns how far labels are from the mean of their site


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

    # Networks whose logits are averaged, each with a start and a loss of its own. Where there are several parts, each
    # of them leaves out one of five folds of the training people, by whom the parts are weighed
    members: Annotated[int, Between(1, MAX_MEMBERS)] = 1

    def weights(self) -> int:
        return self.members * self.weights_of_member()

    def weights_of_member(self) -> int:
        return 0

    def num_features(self) -> int:
        """What the layer of logits reads of one map."""
        return 0

    @property
    def has_hidden_layers(self) -> bool:
        """Whether any part of it has a layer that batch norm and the initializer apply to."""
        return False

    def idle(self) -> dict[str, str]:
        needs = "region_units, phenotype_activation=relu or a second layer on the phenotype"
        idle = {} if self.has_hidden_layers else dict.fromkeys(("batch_norm", "initializer"), needs)
        return super().idle() | idle


@cache
def bounds_of(kind: type) -> dict[str, Between]:
    """The bounds of each setting that has some, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}


def dense_weights(*units: int) -> int:
    """Of dense layers from each width to the next."""
    return sum(inputs * outputs for inputs, outputs in pairwise(units))


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
        if not NUMBER.fullmatch(text):  # of other scripts, or with underscores
            raise ValueError
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
            raise InputError(f"--set {assignment[:SHOWN]} has no '='; expected KEY=VALUE.")
        if key not in kinds:
            raise InputError(f"--set {key[:SHOWN]} is unknown; expected one of {', '.join(sorted(kinds))}.")
        try:
            values[key] = parse_value(text, kinds[key])
        except ValueError as error:
            raise InputError(f"--set {assignment[:SHOWN]} has the wrong type; expected {key} to be {error}.") from None
    changed = dataclasses.replace(config, **values)
    for key, needs in changed.idle().items():
        if key in values and values[key] != getattr(config, key):
            raise InputError(f"--set {key}={values[key]} changes nothing here: it needs {needs}.")
    return changed


DAMAGED = "The checkpoint's hyper-parameters are damaged ({}); train again."


def from_json(kind: type[Settings], values: dict) -> Settings:
    """The dataclass that `dataclasses.asdict` and JSON made `values` from.

    Where `kind` stands for several networks, the result is of the class of one of them (`Settings.of_saved`).
    Raises InputError for a hyper-parameter that is missing or unknown, or a value of the wrong type.
    """
    kind = kind.of_saved(values)
    if wrong := sorted(values.keys() ^ {field.name for field in dataclasses.fields(kind)}):
        raise InputError(DAMAGED.format(f"{wrong[0]} is missing or unknown"))
    try:
        return files.typed(json.dumps(values), kind)
    except ValueError as error:
        raise InputError(DAMAGED.format(error)) from error


@dataclass(frozen=True)
class Model:
    """`reads` names the inputs, `loss` a function of `models.losses`; `grid` is the only one that it takes, if any. It
    also reads the `optional` inputs of which the setting with that name is true."""

    name: str
    reads: tuple[str, ...]
    predicts: str  # "label", or "input" for an autoencoder
    loss: str
    grid: Grid | None = None
    reduces: bool = False  # its code is the reduced volume
    map_by_map: bool = False  # each map of a record is a sample of its own
    optional: tuple[str, ...] = ()

    @property
    def classifies(self) -> bool:
        return self.predicts == "label"

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"models.{self.name}")

    def settings(self, config: dict[str, Any]) -> Settings:
        """The hyper-parameters that a run or a checkpoint has saved. Raises InputError for damage."""
        return from_json(self.module.Config, config)

    def inputs(self, config: Settings) -> tuple[str, ...]:
        """The names of the inputs with these hyper-parameters."""
        return (*self.reads, *(name for name in self.optional if getattr(config, name)))

    def batches(
        self, cohort: Cohort, selections: Iterable[np.ndarray], volumes: bool, tables: Mapping[str, Any]
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches (see `Cohort.batch`) of each selection of records, read ahead. For a model that reads maps one by
        one, `volume` is (n * maps, x, y, z, 1), the maps of the first record first."""
        for batch in cohort.batches(selections, volumes, tables):
            if self.map_by_map:
                batch["volume"] = np.moveaxis(batch["volume"], -1, 1).reshape(-1, *cohort.grid.shape, 1)
            yield batch

    def build(self, config: Settings, cohort: Cohort) -> Any:
        """The untrained network for the records of a cohort."""
        connectomes = cohort.connectomes if "connectome" in self.inputs(config) else None
        also = {"edges": connectomes.num_edges} if connectomes else {}
        return self.module.build(config, cohort.grid, 1 if self.map_by_map else cohort.num_maps, **also)


MODELS = {
    model.name: model
    for model in (
        Model("ae", ("phenotype",), "input", "sparse_reconstruction"),
        Model("cae", ("volume",), "input", "sparse_reconstruction", FULL, reduces=True, map_by_map=True),
        Model("cnn", ("volume",), "label", "cross_entropy", REDUCED),
        Model("nn", ("phenotype",), "label", "cross_entropy"),
        Model(
            "mmnn",
            ("volume", "phenotype"),
            "label",
            "cross_entropy",
            REDUCED,
            optional=("connectome",),
        ),
    )
}
