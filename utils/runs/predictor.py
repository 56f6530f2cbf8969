"""What turns scans into probabilities of autism: one interface, whatever predicts. Jobs and pages ask it, and take
their words from it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from data.cohorts.cohort import Cohort, VolumeStandard
from data.cohorts.folds import Folds
from utils.runs.record import Caveats, Choices, Manifest
from utils.scores.conclusion import ControlResult

if TYPE_CHECKING:
    from data.likeness.reference import TrainingReference


@dataclass(frozen=True, eq=False)
class FoldData:
    """What a predictor is given: the records of one fold, or of one split, each for training or for the test."""

    cohort: Cohort
    seed: int
    fold_label: str  # as messages name it; empty without folds
    repeat: int  # its number, from 0


class ReadyPredictor(ABC):
    """A predictor that is loaded, or fitted, for one fold."""

    @abstractmethod
    def predict_probabilities(self, record_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities of autism (n,) float64 of records of the fold's cohort, by their position (n,): as they are,
        and with what is missing of the phenotype masked; None for what does not read what is missing."""

    @property
    def printed_text(self) -> str:
        """What the user's own code has printed and warned of."""
        return ""


class Predictor(ABC):
    """What predicts, before it is loaded or fitted. It is cheap to make, to compare and to ask; nothing here imports
    TensorFlow but `make_ready`."""

    noun: ClassVar[str]  # what pages call it: a network, an estimator, predictions
    is_fitted_when_used: ClassVar[bool] = False  # on the training people of each fold; if not, it was trained before
    needs_tensorflow: ClassVar[bool] = False
    probability_digits: ClassVar[int] = 12  # significant digits of probabilities in tables

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in titles, tables and names of folders."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Its name with what tells it from others of this name, such as a preset."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """Where it lies, for messages."""

    @property
    @abstractmethod
    def input_names(self) -> tuple[str, ...]:
        """What it reads: of `volume`, `phenotype`, `connectome`; nothing if that is not known."""

    @abstractmethod
    def find_sha256(self) -> str | None:
        """SHA-256 of what predicts; None if it is not there yet."""

    def for_cohort(self, cohort: Cohort) -> "Predictor":
        """It, with what the cohort decides. Raises InputError if it cannot read that."""
        return self

    def label_cohort(self, cohort: Cohort) -> Cohort:
        """The cohort, whose groups are known, with the labels that it is tested against: its own, unless it was fitted
        to those of a control. Raises InputError if they cannot be permuted."""
        return cohort

    def measure_control(self, cohort: Cohort, seed: int) -> ControlResult | None:
        """How well it tells the labels of a control, `cohort`; `seed` draws permutations. None if `cohort` has its true
        labels."""
        return None

    @property
    def folds_option(self) -> str:
        """The name of the `Division` of the folds in which it was trained, if it knows these itself; else empty."""
        return ""

    def make_folds(self, cohort: Cohort, seed: int) -> list[Folds]:
        """The folds of each repeat, if it has a `folds_option`; else none. Raises InputError if they do not fit the
        cohort."""
        return []

    @abstractmethod
    def make_choices(self, seed: int, cohort: Cohort) -> Choices:
        """What decides, with the data, what it predicts."""

    @abstractmethod
    def make_ready(self, fold_data: FoldData) -> ReadyPredictor:
        """It, loaded or fitted for a fold. Raises InputError if that fails."""

    def pool_with(self, fold_predictors: Sequence["Predictor"], parent_index: int) -> "Predictor":
        """What stands for the predictors of all folds, whose folders lie `parent_index` + 1 levels below the joint one.
        It predicts nothing."""
        return self

    @property
    def output_noun(self) -> str:
        """What pages of a blackout call the number, larger for autism, whose fall is an effect."""
        return "logit"

    @property
    def checkpoint_description(self) -> str:
        """Which of its trainings predicts, in a table with a row for each that was tested."""
        return self.description

    @property
    def classifies(self) -> bool:
        """Whether it predicts the label."""
        return True

    @property
    def standardisation(self) -> VolumeStandard:
        """How volumes are standardised as they are read: for baselines too, which read them as beside the default
        networks where it reads none, or only means over regions, so that their scores are the same."""
        return "brain"

    @property
    def inherited_caveats(self) -> Caveats:
        """What must stand beside whatever it says, for who trained it."""
        return Caveats()

    @property
    def training_manifest(self) -> Manifest:
        """The record of its training: people, cohort, step, seconds; empty if nothing is known of it."""
        return Manifest(job="")

    @property
    def training_key(self) -> list[object]:
        """What a permutation of the labels trains again."""
        return [self.find_sha256()]

    @property
    def unknown_overlap_warning(self) -> str:
        """What is said where people cannot be compared with those who trained it."""
        return "Whether tested participants trained it is not known."

    def load_training_people_reference(self) -> "TrainingReference | None":
        """What those who trained it are like; None if that is not known. Raises InputError if they are too few."""
        return None

    def find_training_cohort(self) -> Cohort | None:
        """The cohort that trained it; None if it is not at hand as it was."""
        return None
