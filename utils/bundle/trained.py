"""A folder of checkpoints -> the networks that a bundle takes, of one training and complete; their cohort and score."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.base import tables
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.cohorts.cohort import Cohort
from data.cohorts.division import folder_name
from data.cohorts.folds import FOLD_TABLE
from data.cohorts.records import TELLING
from data.cohorts.rows import listed
from models import MODELS
from utils.runs.checkpoints import EVERYBODY, CheckpointFolder
from utils.runs.cross_validation import CrossValidation
from utils.runs.plan import REPEAT
from utils.runs.record import Choices, Record

SAME = ("model", "preset", "config", "grid", "precision", "cohort_sha256", "step")


@dataclass(frozen=True)
class Trained:
    """A checkpoint: its folder and identity, and the name of its network in the bundle."""

    name: str
    folder: CheckpointFolder
    saved: Record


def trained_in(folder: Path) -> list[Trained]:
    """The checkpoint in a folder or, if it has none, those of its folds and repeats. Raises InputError if there is
    none, if they are not of one training, or if they are of no classifier."""
    found = [folder] if CheckpointFolder(folder).exists else inside(folder)
    if not found:
        raise InputError(f"{folder} holds no checkpoint; expected such as CKPT/mmnn/everybody or CKPT/mmnn/folds-10.")
    check_complete(folder, found)
    for path in found:
        CheckpointFolder(path).tell_of_training()
    trained = [
        Trained("/".join(path.relative_to(folder).parts) or folder.name, place, place.record())
        for path in found
        for place in [CheckpointFolder(path)]
    ]
    first = trained[0].saved
    for name in SAME:
        if odd := [one.name for one in trained if one.saved.flat[name] != first.flat[name]]:
            raise InputError(f"{folder} holds trainings that differ in {name}, such as {odd[0]}; bundle one of them.")
    if MODELS[first.model].predicts != "label":
        raise InputError(f"{folder} is of {first.model}, which predicts no label; bundle a classifier.")
    if first.preparation and first.preparation.reduction.startswith("encoder"):
        raise InputError(
            f"{folder} reads volumes of an encoder, which a bundle cannot hold; train on a cohort of "
            "abide-data convert --grid reduced."
        )
    return trained


def inside(folder: Path) -> list[Path]:
    """The folders of checkpoints in one of folds or else, of repeats of folds."""
    for pattern in ("*", f"{REPEAT.format('*')}/*"):
        places = (CheckpointFolder(path) for path in folder.glob(pattern) if path.is_dir())
        if found := [of.path for of in places if of.exists and of.path.name != EVERYBODY]:
            return sorted(found)
    return []


def check_complete(folder: Path, found: Sequence[Path]) -> None:
    """Raises InputError if these lack a checkpoint of a fold, as far as the folder says how people were divided."""
    for place in {path.parent for path in found}:
        if not (place / FOLD_TABLE).is_file():
            continue
        names = {folder_name(row["fold"]) for row in tables.read_rows(place / FOLD_TABLE, ("fold",)).values()}
        if lacking := sorted(names - {path.name for path in found if path.parent == place}):
            raise InputError(f"{place} lacks a checkpoint of fold {lacking[0]}; train it, or bundle another folder.")


def check_left_out(trained: Sequence[Trained], cohort: Cohort) -> None:
    """Raises InputError if a fold leaves out too few people. The constants of networks are means over people, so those
    with and without these few would tell what they are like."""
    known = {row.subject for row in cohort.rows if row.known}
    for one in trained if len(trained) > 1 else ():
        if (left := len(known.difference(one.saved.people.subjects if one.saved.people else ()))) < TELLING:
            raise InputError(
                f"Fold {one.name} leaves out {left} people, fewer than {TELLING}; networks with and without them would "
                "tell what they are like. Bundle a model of run.py --train --everybody, or one of larger folds."
            )


def cross_validation_of(trained: Sequence[Trained], folder: Path | None) -> CrossValidation | None:
    """The test on folds that goes with checkpoints: of a folder, or their own. Raises InputError if it is of others."""
    saved = trained[0].saved
    if folder is None:
        return saved.cross_validation
    from utils.report.cross_validation import read_cross_validation

    found = read_cross_validation(folder, saved.model)
    if found.cohort_sha256 != saved.cohort_sha256:
        raise InputError(f"--score {folder} is of other data than {saved.cohort}; name one on folds of these.")
    if found.config != choices_of(saved).config:
        place = trained[0].folder.path
        raise InputError(f"--score {folder} is of other settings than {place}; name one on folds by these.")
    return found


def cohort_of(trained: Sequence[Trained]) -> Cohort:
    """The training cohort. Raises InputError if it is gone, or not as it was."""
    saved = trained[0].saved
    cohort = trained[0].folder.training_cohort()
    if cohort is None:
        raise InputError(
            f"{saved.cohort}, on which {trained[0].folder.path} was trained, is gone or was changed; a bundle takes "
            "from it how people were prepared and what they were like. Copy it back."
        )
    if not cohort.metadata.maps or not cohort.metadata.phenotype_median:
        raise InputError(f"{cohort.path} does not say how its people were prepared; expected a cohort of convert.")
    if few := known_of_few(cohort):
        print(
            f"Few people have {listed(few)}, so that the name, the median and the scale, which a bundle holds, nearly "
            "tell their values; to keep these, train on a cohort without: convert --phenotype."
        )
    return cohort


def known_of_few(cohort: Cohort) -> list[str]:
    """The values of the phenotype that too few people have to be described, and categories of fewer than TELLING."""
    raw = cohort.raw_phenotype
    if raw is None:
        return []
    categories = cohort.metadata.phenotype_categories.items()
    coded = raw[[f"{column}_{value}" for column, values in categories for value in values]].sum()
    known = raw.drop(columns=coded.index).notna().sum()
    return [*known.index[known.between(1, EFFORT.describe_from - 1)], *coded.index[coded.between(1, TELLING - 1)]]


def choices_of(saved: Record) -> Choices:
    assert saved.settings
    return saved.settings


def network_of(one: Trained, cohort: Cohort) -> Any:
    """The trained network of a checkpoint."""
    from utils.training.network import restore_weights

    model = MODELS[one.saved.model]
    network = model.build(model.settings(choices_of(one.saved).config), cohort)
    restore_weights(one.folder, network)
    return network
