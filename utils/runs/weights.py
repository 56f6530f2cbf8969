"""What a network is once it is trained: its weights on disk, whoever wrote them, and the settings that build it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.cohorts.cohort import Cohort
from models import Model, Settings
from utils.runs.record import Manifest

if TYPE_CHECKING:
    import keras

    from data.likeness.reference import TrainingReference


@dataclass(frozen=True)
class TrainedWeights(ABC):
    """The weights of one network on disk, which need not be there yet; `training_command` is the command that makes
    them."""

    path: Path  # the folder of checkpoints, or the file of a bundle
    training_command: str = "run.py --train"

    @property
    @abstractmethod
    def has_checkpoint(self) -> bool:
        """Whether there are any."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Which weights are in use, as a table of results names them. Raises InputError if there are none."""

    @property
    @abstractmethod
    def unknown_overlap_warning(self) -> str:
        """What is said where people cannot be compared with those who trained the network."""

    @abstractmethod
    def find_sha256(self) -> str | None:
        """SHA-256 of the weights; None if there are none that are as they were saved."""

    @abstractmethod
    def read_latest_manifest(self) -> Manifest:
        """The record of the weights in use. Raises InputError if there is none or it is damaged."""

    @abstractmethod
    def restore_latest_weights(self, network: "keras.Model") -> None:
        """Gives a network the weights, for inference. TensorFlow must have been started. Raises InputError for weights
        that are damaged, or of another network."""

    @abstractmethod
    def load_training_people_reference(self) -> "TrainingReference | None":
        """What those who trained the network are like; None if that is not known. Raises InputError if they are too few
        to tell."""

    @abstractmethod
    def find_training_cohort(self) -> Cohort | None:
        """The cohort of the training; None if it is not at hand as it was."""

    @property
    @abstractmethod
    def damaged_checkpoint_names(self) -> Sequence[str]:
        """The names of damaged weights later than those in use."""

    @abstractmethod
    def print_if_training(self) -> None:
        """If a training still runs, prints that its later weights are not used."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network by its settings and its weights, which need not be there yet."""

    model: Model
    preset_name: str  # of a pooled run several, with commas
    config: Settings
    precision: str  # of the layers, such as float32
    weights: TrainedWeights
