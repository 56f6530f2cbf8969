"""The five models in one table: what each reads, what it predicts, which loss it has.

Each module holds `Config` (a frozen dataclass), `PRESETS` (the first is the default), and a pure
`build(config, grid, maps)`. Keras is imported only inside functions, so that a mistake on the command line is reported
before its seconds-long import.
"""

import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any

import numpy as np

from data.base.errors import InputError
from data.base.processes import prepare_tensorflow
from data.cohorts.cohort import Cohort
from data.cohorts.records import FULL, REDUCED, Grid
from models.settings import Settings, from_json

prepare_tensorflow()


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
    occludable: bool = False  # a volume goes in and a label comes out
    map_by_map: bool = False  # each map of a record is a sample of its own
    optional: tuple[str, ...] = ()

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"models.{self.name}")

    def completed(self, config: dict) -> dict:
        """Hyper-parameters that older code saved, as this code would save them; unchanged if it cannot read them."""
        try:
            return json.loads(json.dumps(asdict(self.settings(config))))
        except InputError:
            return config

    def settings(self, config: dict[str, Any]) -> Settings:
        """The hyper-parameters that a run or a checkpoint has saved. Raises InputError if they are of other code."""
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
        Model("cnn", ("volume",), "label", "cross_entropy", REDUCED, occludable=True),
        Model("nn", ("phenotype",), "label", "cross_entropy"),
        Model(
            "mmnn",
            ("volume", "phenotype"),
            "label",
            "cross_entropy",
            REDUCED,
            occludable=True,
            optional=("connectome",),
        ),
    )
}
