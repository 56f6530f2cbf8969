"""A bundle: one zip with all that a trained model needs elsewhere, and nobody's data. It opens where a run expects a
folder of checkpoints. What it says of data is in `data/conversion/template.py`."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data.base import files
from data.base.archive import Archive, opened
from data.base.errors import InputError
from data.likeness.reference import Constants, Reference
from utils.runs import record
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.plan import Asked
from utils.runs.record import Record

if TYPE_CHECKING:
    import keras

MODEL, WEIGHTS, CARD = "model.json", "weights.npz", "card.md"
LIKENESS, MEANS = "likeness.json", "likeness.npz"
NO_SCORE = "It goes without a score: no test on folds was given when it was made."


@dataclass(frozen=True)
class BundleFolder(CheckpointFolder):
    """The checkpoint of everybody in a bundle: `model.json` is its record, without people; `weights.npz` holds its
    weights in Keras' order."""

    training: str = "abide-bundle"

    @cached_property
    def archive(self) -> Archive:
        return opened(self.path)

    @cached_property
    def saved(self) -> Record:
        again = "make the bundle again"
        files.check_format(self.path, self.archive.json(MODEL, dict).get("format"), again)
        return replace(self.archive.json(MODEL, Record), cohort=str(self.path))

    @property
    def exists(self) -> bool:
        return True

    @property
    def whole(self) -> Path:
        return self.path

    def record(self) -> Record:
        return self.saved

    def digest(self) -> str:
        return record.sha256(self.path)

    def training_cohort(self) -> None:
        """Its people stay where it was made."""

    def reference(self) -> Reference | None:
        if LIKENESS not in self.archive.parts:
            return None
        means = self.archive.arrays(MEANS)
        return Reference(self.archive.json(LIKENESS, Constants), means["volume"], means.get("edges"))

    def restore(self, network: "keras.Model") -> None:
        try:
            network.set_weights([*self.archive.arrays(WEIGHTS).values()])
        except ValueError as error:
            raise InputError(
                f"{self.path} has weights of another network than this version builds of its settings; use the version "
                f"that made it, commit {self.record().versions.get('git_commit')}."
            ) from error

    def lines(self) -> list[str]:
        """What a user must know of it."""
        found = self.record()
        assert found.settings
        return [
            f"{self.path}: {found.model}, preset {found.settings.preset}, trained on everybody{found.caveats.marks}; "
            f"SHA-256 {self.digest()}.",
            f"Its score is that of folds: {found.cross_validation}." if found.cross_validation else NO_SCORE,
        ]


def with_bundle(asked: Asked, path: Path) -> Asked:
    """The same by the network of a bundle, as by a checkpoint. Raises InputError for another model than it is of."""
    trained = BundleFolder(path)
    model = trained.record().model
    if "model" in asked.given and asked.model != model:
        raise InputError(f"{path} is of {model}, not {asked.model}; leave --model out.")
    print(*trained.lines(), sep="\n")
    return replace(asked, model=model, trained=trained)
