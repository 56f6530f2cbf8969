"""A trained network as a predictor: the checkpoint of a training, or a bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data.cohorts.cohort import Cohort, VolumeStandard, split_into_batches
from data.cohorts.variants import equalise_recording_values
from utils.runs.predictor import FoldData, Predictor, ReadyPredictor
from utils.runs.record import Caveats, Choices, Manifest
from utils.runs.weights import TrainedNetwork

if TYPE_CHECKING:
    import keras

    from data.likeness.reference import TrainingReference


@dataclass(frozen=True)
class NetworkPredictor(Predictor):
    """A network whose weights need not be there yet: a training makes them."""

    trained_network: TrainedNetwork
    training_caveats: Caveats = field(default_factory=Caveats)  # of the cohort that trained it elsewhere

    noun = "network"
    needs_tensorflow = True
    probability_digits = 8  # it computes in single precision

    @property
    def name(self) -> str:
        return self.trained_network.model.model_name

    @property
    def description(self) -> str:
        return f"{self.name} {self.trained_network.preset_name}"

    @property
    def path(self) -> Path:
        return self.trained_network.weights.path

    @property
    def input_names(self) -> tuple[str, ...]:
        return self.trained_network.model.list_input_names(self.trained_network.config)

    @property
    def checkpoint_description(self) -> str:
        return self.trained_network.weights.description

    @property
    def classifies(self) -> bool:
        return self.trained_network.model.classifies

    @property
    def standardisation(self) -> VolumeStandard:
        if "volume" not in self.input_names:
            return super().standardisation
        return getattr(self.trained_network.config, "standardise", "stored")

    @property
    def inherited_caveats(self) -> Caveats:
        return self.training_caveats

    @property
    def training_manifest(self) -> Manifest:
        return self.trained_network.weights.read_latest_manifest()

    @property
    def training_key(self) -> list[object]:
        manifest = self.training_manifest
        return [manifest.key, manifest.step]

    @property
    def unknown_overlap_warning(self) -> str:
        return self.trained_network.weights.unknown_overlap_warning

    def load_training_people_reference(self) -> "TrainingReference | None":
        return self.trained_network.weights.load_training_people_reference()

    def find_training_cohort(self) -> Cohort | None:
        return self.trained_network.weights.find_training_cohort()

    def find_sha256(self) -> str | None:
        return self.trained_network.weights.find_sha256()

    def make_choices(self, seed: int, cohort: Cohort) -> Choices:
        trained_network = self.trained_network
        return Choices(
            model=trained_network.model.model_name,
            preset=trained_network.preset_name,
            config=asdict(trained_network.config),
            grid=cohort.grid.name if "volume" in self.input_names else None,
            seed=seed,
            precision=trained_network.precision,
            input_names=self.input_names,
        )

    def make_ready(self, fold_data: FoldData) -> "ReadyNetwork":
        from utils.runs.inference import restore_network  # imports Keras, which is slow

        network = restore_network(self.trained_network, fold_data.cohort)
        return ReadyNetwork(self.trained_network, fold_data.cohort, network)

    def pool_with(self, fold_predictors: Sequence[Predictor], parent_index: int) -> "NetworkPredictor":
        fold_networks = [
            fold_predictor.trained_network
            for fold_predictor in fold_predictors
            if isinstance(fold_predictor, NetworkPredictor)
        ]
        preset_names_text = ", ".join(sorted({fold_network.preset_name for fold_network in fold_networks}))
        first_weights = fold_networks[0].weights
        pooled_weights = replace(first_weights, path=first_weights.path.parents[parent_index])
        return self.with_settings(preset_name=preset_names_text, weights=pooled_weights)

    def with_settings(self, **changed_fields: Any) -> "NetworkPredictor":
        """The same with other fields of its `TrainedNetwork`."""
        return replace(self, trained_network=replace(self.trained_network, **changed_fields))


@dataclass(frozen=True, eq=False)
class ReadyNetwork(ReadyPredictor):
    """A network with its weights, and the cohort over which it is run."""

    trained_network: TrainedNetwork
    cohort: Cohort
    network: "keras.Model"

    def predict_probabilities(self, record_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        from utils.runs.inference import predict_probabilities  # imports Keras, which is slow

        masked_cohort = None
        trained_network = self.trained_network
        if "phenotype" in trained_network.model.list_input_names(trained_network.config):
            masked_cohort = equalise_recording_values(self.cohort)
        index_batches = split_into_batches(record_indices, self.trained_network.config.batch_size)
        masked_cohorts = [masked_cohort] if masked_cohort else []
        probabilities, *masked_probabilities = predict_probabilities(
            self.trained_network, self.cohort, self.network, index_batches, masked_cohorts
        )
        return probabilities, masked_probabilities[0] if masked_probabilities else None

    def compute_log_odds(self, input_by_name: Mapping[str, np.ndarray]) -> np.ndarray:
        """The log odds of autism (n,) float64 of inputs (n, ...), by a full pass of the network."""
        from utils.runs.inference import compute_autism_log_odds  # imports Keras, which is slow

        network_inputs = {input_name: input_by_name[input_name] for input_name in self.network.input}
        return compute_autism_log_odds(np.asarray(self.network(network_inputs, training=False)))
