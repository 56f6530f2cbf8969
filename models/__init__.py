"""What every model is: the settings of a network, and the five models in one table.

Each module holds `Config` (a frozen dataclass), `PRESETS` (the first is the default), and a pure `build(config, grid,
maps)`. A model imports Keras only inside functions, so that a mistake on the command line is reported before its
seconds-long import.
"""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from annotated_types import Interval, Len

from data.base import files
from data.base.errors import MAX_QUOTED_LENGTH, InputError
from data.base.processes import prepare_tensorflow
from data.cohorts.cohort import Cohort
from data.images.grids import FULL, REDUCED, Grid

prepare_tensorflow()

MAX_WEIGHTS = 100_000_000
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")  # of layers

BatchSize = Annotated[int, Interval(ge=1, le=4096)]
LearningRate = Annotated[float, Interval(ge=1e-12, le=1e38)]
Penalty = Annotated[float, Interval(ge=0, le=1e6)]
BelowOne = Annotated[float, Interval(ge=0, le=0.999999)]
Sparsity = Annotated[float, Interval(ge=1e-6, le=0.999999)]
Width = Annotated[int, Interval(ge=1, le=4096)]  # filters or units of a layer
Widths = Annotated[tuple[Width, ...], Len(1, 64)]
WidthsOrNone = Annotated[tuple[Width, ...], Len(0, 64)]
Edge = Annotated[int, Interval(ge=1, le=31)]  # voxels; also of strides
EdgeLengths = Annotated[tuple[Edge, ...], Len(1, 64)]
EdgeOrNone = Annotated[int, Interval(ge=0, le=31)]
EdgeLengthsOrNone = Annotated[tuple[EdgeOrNone, ...], Len(1, 64)]
# Networks whose logits are averaged, each with a start and a loss of its own. Where there are several parts, each of
# them leaves out one of five folds of the training people, by whom the parts are weighed
MemberCount = Annotated[int, Interval(ge=1, le=64)]


@dataclass(frozen=True)
class LayerSettings:
    """How the kernel of a layer starts and is penalised, and whether batch norm follows."""

    l1: float
    l2: float
    batch_norm: bool = False
    initializer: Any = "glorot_uniform"  # one of Keras's, or its name


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How any model is optimised. The type of every setting that is a number has its bounds, which float32 can hold."""

    batch_size: BatchSize = 32
    optimizer: Literal["adam", "rmsprop"] = "adam"
    learning_rate: LearningRate = 0.001
    # Batches; the rate after n of them is learning_rate / (1 + n / half_rate_after); 0: constant
    half_rate_after: Annotated[int, Interval(ge=0, le=10**9)] = 0
    decay: BelowOne = 0.9  # of the gradient's running mean (Adam's beta 1) or of its running square (RMSprop)
    l1: Penalty = 0.0  # penalty on the absolute values of all kernels; those on their squares are each layer's own
    batch_norm: bool = True  # of hidden layers, as the next
    initializer: Literal["glorot_uniform", "he_normal"] = "glorot_uniform"  # the first is Xavier's

    def __post_init__(self) -> None:
        weight_count = self.count_weights()
        require(
            weight_count <= MAX_WEIGHTS,
            f"These layers have {weight_count:,} weights; expected at most {MAX_WEIGHTS:,}.",
        )

    def count_weights(self) -> int:
        """The number of weights of the network's layers, about."""
        return 0

    def has_hidden_layers(self) -> bool:
        """Whether it has any layer that batch norm and the initializer apply to."""
        return True

    def idle(self) -> dict[str, str]:
        """The settings that change nothing with the others as they are, and what they need."""
        requirement_text = "region_units, phenotype_activation=relu or a second layer on the phenotype"
        return {} if self.has_hidden_layers() else dict.fromkeys(("batch_norm", "initializer"), requirement_text)

    def layer_settings(self, l2: float) -> LayerSettings:
        """The settings of layers with a penalty `l2` on squared weights."""
        return LayerSettings(self.l1, l2, self.batch_norm, self.initializer)


def count_dense_weights(*widths: int) -> int:
    """The number of weights of dense layers from each width to the next."""
    return sum(input_width * output_width for input_width, output_width in pairwise(widths))


def require(condition: bool, message: str) -> None:
    """Raises InputError with `message` unless the condition holds."""
    if not condition:
        raise InputError(message)


def override_settings(config: Settings, assignments: list[str]) -> Settings:
    """`config` with each `KEY=VALUE` put in; commas part the values of a tuple.

    Raises InputError for an unknown key, a value that does not fit, or one that would change nothing.
    """
    type_by_setting = get_type_hints(type(config), include_extras=True)
    value_by_setting: dict[str, Any] = {}
    for assignment in assignments:
        setting, equals_sign, value_text = assignment.partition("=")
        require(bool(equals_sign), f"--set {assignment[:MAX_QUOTED_LENGTH]} has no '='; expected KEY=VALUE.")
        require(
            setting in type_by_setting,
            f"--set {setting[:MAX_QUOTED_LENGTH]} is unknown; expected one of {', '.join(sorted(type_by_setting))}.",
        )
        value_text_or_texts: str | list[str] = value_text
        if isinstance(getattr(config, setting), tuple):
            value_text_or_texts = [element_text for element_text in value_text.split(",") if element_text]
        try:
            value_by_setting[setting] = files.parse_json(
                json.dumps(value_text_or_texts), type_by_setting[setting], strict=False
            )
        except ValueError as error:
            raise InputError(f"--set {assignment[:MAX_QUOTED_LENGTH]} does not fit ({error}).") from None
    changed_config = replace(config, **value_by_setting)
    for setting, requirement_text in changed_config.idle().items():
        if setting in value_by_setting and value_by_setting[setting] != getattr(config, setting):
            raise InputError(f"--set {setting} changes nothing here: it needs {requirement_text}.")
    return changed_config


@dataclass(frozen=True)
class Model:
    """`input_names` names the inputs, `loss_name` a function of `models.losses`; `required_grid` is the only one that
    its volumes may have, if any. `optional_input_names` are read where a cohort has them. An input is left out if there
    is a setting of its name, and that is false."""

    model_name: str
    input_names: tuple[str, ...]
    predicted: str  # "label", or "input" for an autoencoder
    loss_name: str
    required_grid: Grid | None = None
    reduces: bool = False  # its code is the reduced volume
    is_map_by_map: bool = False  # each map of a record is a sample of its own
    optional_input_names: tuple[str, ...] = ()

    @property
    def classifies(self) -> bool:
        return self.predicted == "label"

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"models.{self.model_name}")

    def parse_settings(self, saved_config: dict[str, Any]) -> Settings:
        """The hyper-parameters that a run or a checkpoint has saved. Raises InputError for damage."""
        try:
            settings = files.parse_json(json.dumps(saved_config), self.module.Config)
            wrong_setting_names = sorted(saved_config.keys() ^ vars(settings).keys())
            if wrong_setting_names:
                raise ValueError(f"{wrong_setting_names[0]} is missing or unknown")
            return settings
        except ValueError as error:
            raise InputError(f"The checkpoint's hyper-parameters are damaged ({error}); train again.") from None

    def list_input_names(self, config: Settings) -> tuple[str, ...]:
        """The names of the inputs with these hyper-parameters."""
        all_input_names = (*self.input_names, *self.optional_input_names)
        return tuple(input_name for input_name in all_input_names if getattr(config, input_name, True))

    def read_batches(
        self,
        cohort: Cohort,
        record_index_batches: Iterable[np.ndarray],
        with_volumes: bool,
        table_by_name: Mapping[str, Any],
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches (see `Cohort.make_batch`) of each selection of records, read ahead. For a model that reads maps
        one by one, `volume` is (n * maps, x, y, z, 1), the maps of the first record first."""
        for batch in cohort.iterate_batches(record_index_batches, with_volumes, table_by_name):
            if self.is_map_by_map:
                batch["volume"] = np.moveaxis(batch["volume"], -1, 1).reshape(-1, *cohort.grid.shape, 1)
            yield batch

    def build_network(self, config: Settings, cohort: Cohort) -> Any:
        """The untrained network for the records of a cohort."""
        input_names = self.list_input_names(config)
        grid = cohort.grid if "volume" in input_names else None
        connectomes = cohort.connectomes if "connectome" in input_names else None
        edge_options = {"edges": connectomes.num_edges} if connectomes else {}
        maps_per_sample = 1 if self.is_map_by_map else cohort.num_maps
        return self.module.build(config, grid, maps_per_sample, **edge_options)


MODELS = {
    model.model_name: model
    for model in (
        Model("ae", ("phenotype",), "input", "sparse_reconstruction"),
        Model("cae", ("volume",), "input", "sparse_reconstruction", FULL, reduces=True, is_map_by_map=True),
        Model("cnn", ("volume",), "label", "cross_entropy", REDUCED),
        Model("nn", ("phenotype",), "label", "cross_entropy"),
        Model("mmnn", ("volume", "phenotype"), "label", "cross_entropy", REDUCED, optional_input_names=("connectome",)),
    )
}
