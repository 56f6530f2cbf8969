"""A folder of checkpoints -> a bundle: the networks, how data are prepared for them, what is known of their score."""

import json
import re
import time
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from data import __version__
from data.base import archive, files, tables
from data.base.errors import InputError
from data.cohorts.cohort import Cohort, identified, in_order, open_cohort
from data.cohorts.folds import FOLD_TABLE, digest_over, folder_name
from data.cohorts.phenotype import Scaler
from data.cohorts.records import CLASSES
from data.cohorts.resplit import everybody
from data.cohorts.rows import listed
from data.cohorts.standards import within_sites
from data.conversion import like
from data.likeness.reference import FEWEST, reference
from models import MODELS
from utils.bundle import card
from utils.bundle.model import (
    CARD,
    EVERYBODY,
    FLOORS,
    FLOORS_EDGES,
    FOLDS,
    FORMAT,
    LIKENESS,
    LIKENESS_EDGES,
    LIKENESS_VOLUME,
    MODEL,
    ONNX,
    REPORT,
    SPLIT,
    WEIGHTS,
    BundledModel,
    Member,
    aal_sha256,
    flat,
)
from utils.evaluation import linear_floors
from utils.runs.caveats import Caveats
from utils.runs.checkpoints import BEST, CheckpointFolder, Choices, Identity, training_cohort
from utils.runs.internal import InternalValidation
from utils.runs.repeated import REPEAT
from utils.runs.run import PACKAGES, git_commit

PROGRAM = "autism-blackout"
COMPARED, COMPARED_AT_ONCE = 100, 10  # records on which ONNX is compared with TensorFlow
SHORTEST = 4  # characters of an ID that is told from other words and numbers in texts
ID, PIECE = "ID", r"[^\W_]+"  # in place of one; of a name
TOLD = ("caveats", "internal", "licence")  # what has free text in `model.json`
PARSED = (MODEL, like.DATA)
OTHERS = re.compile(rf"{BEST}|{EVERYBODY}|.*\.replaced")  # folders that are none of a fold
SAME = ("model", "preset", "config", "grid", "precision", "validation", "shuffled_labels", "cohort", "records_sha256")


@dataclass(frozen=True)
class Trained:
    """A checkpoint: its folder and identity, and the name of its network in the bundle."""

    name: str
    folder: CheckpointFolder
    saved: Identity


def trained_in(folder: Path) -> list[Trained]:
    """The checkpoint in a folder or, if it has none, those of its folds and repeats. Raises InputError if there is
    none, if they are not of one training, or if they are of no classifier."""
    found = [folder] if CheckpointFolder(folder).current else inside(folder)
    if not found:
        raise InputError(f"{folder} holds no checkpoint; expected such as CKPT/mmnn/everybody or CKPT/mmnn/folds-10.")
    check_complete(folder, found)
    places = [CheckpointFolder(path).to_use for path in found]
    trained = [
        Trained("/".join(path.relative_to(folder).parts) or folder.name, place, place.identity())
        for path, place in zip(found, places, strict=True)
    ]
    first = trained[0].saved
    for name in SAME if first.validation else (*SAME, "step"):
        if odd := [one.name for one in trained if getattr(one.saved, name) != getattr(first, name)]:
            raise InputError(f"{folder} holds trainings that differ in {name}, such as {odd[0]}; bundle one of them.")
    if MODELS[first.model].predicts != "label":
        raise InputError(f"{folder} is of {first.model}, which predicts no label; bundle a classifier.")
    if first.preparation.reduction.startswith("encoder"):
        raise InputError(
            f"{folder} reads volumes of an encoder, which a bundle cannot hold; train on a cohort of "
            "python -m data convert --grid reduced."
        )
    return trained


def inside(folder: Path) -> list[Path]:
    """The folders of checkpoints in one of folds or else, of repeats of folds."""
    for pattern in ("*", f"{REPEAT.format('*')}/*"):
        places = (CheckpointFolder(path) for path in folder.glob(pattern) if path.is_dir())
        if found := [of.path for of in places if of.current and not OTHERS.fullmatch(of.path.name)]:
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


def internal_of(trained: Sequence[Trained], folder: Path | None) -> InternalValidation | None:
    """The test on folds that goes with checkpoints: of a folder, or their own. Raises InputError if it is of others."""
    saved = trained[0].saved
    if folder is None:
        return saved.internal
    from utils.evaluation.internal import read

    found, model = read(folder, saved.model), MODELS[saved.model]
    if found.records_sha256 != digest_over([saved.records_sha256]):
        raise InputError(f"--score {folder} is of other records than {saved.cohort}; name a test on folds of these.")
    if model.completed(found.config) != model.completed(saved.config):
        raise InputError(f"--score {folder} is of other settings than {trained[0].folder.path}; test these on folds.")
    return found


def cohort_of(trained: Sequence[Trained]) -> Cohort:
    """The training cohort. Raises InputError if it is gone, or not as it was."""
    saved = trained[0].saved
    cohort = training_cohort(saved)
    if cohort is None:
        raise InputError(
            f"{saved.cohort}, on which {trained[0].folder.path} was trained, is gone or was changed; a bundle takes "
            "from it how people were prepared and what they were like. Copy it back."
        )
    if len(trained) > 1:
        cohort = identified(open_cohort(Path(saved.cohort)))
    if not cohort.metadata.maps or not cohort.metadata.phenotype_median:
        raise InputError(f"{cohort.path} does not say how its people were prepared; expected a cohort of convert.")
    if few := known_of_few(cohort):
        print(
            f"Fewer than {FEWEST} people have {listed(few)}, so that the median and the scale, which a bundle holds, "
            "nearly tell their values; to keep these, train on a cohort without: convert --phenotype."
        )
    return cohort


def known_of_few(cohort: Cohort) -> list[str]:
    """The values of the phenotype that fewer than FEWEST people have."""
    raw = cohort.raw_phenotype
    known = pd.Series(dtype=int) if raw is None else raw.notna().sum()
    return [str(name) for name, count in known.items() if 0 < count < FEWEST]


def parts_of(
    trained: Sequence[Trained], cohort: Cohort, internal: InternalValidation | None, licence: str
) -> dict[str, bytes]:
    """The parts of a bundle by name. TensorFlow must have been started."""
    subjects = {row.subject for row in cohort.rows}
    weights = [network_of(one, cohort).get_weights() for one in trained]
    members = [member_of(one, of_one, cohort) for one, of_one in zip(trained, weights, strict=True)]
    model = model_of(trained, cohort, tuple(members), internal, licence)
    texts = {
        MODEL: model_json(model, subjects),
        like.DATA: json_of(like.of_cohort(cohort)),
        CARD: card.text(model, cohort),
    }
    if internal and (report := report_of(internal)):
        texts[REPORT] = report
    parts = {name: (text if name in PARSED else withheld(text, subjects)).encode() for name, text in texts.items()}
    parts |= {WEIGHTS.format(number): archive.npy(flat(of_one)) for number, of_one in enumerate(weights)}
    if cohort.connectomes and cohort.connectomes.image is not None:
        parts[like.PARCELS] = archive.npy(cohort.connectomes.image.astype("<i2"))
    used = np.array([at for at, row in enumerate(cohort.rows) if model.trained_on == FOLDS or row.split == "train"])
    return parts | like.derivation_parts(cohort) | likeness_parts(cohort, used) | floors_parts(model, cohort)


def floors_parts(model: BundledModel, cohort: Cohort) -> dict[str, bytes]:
    """Linear floors of the people who trained the networks."""
    trained = everybody(cohort) if model.trained_on == FOLDS else cohort
    standard = model.config.get("standardise", "stored")
    trained = within_sites(trained) if standard == "site" else replace(trained, standard=standard)
    found = linear_floors.fit(trained)
    parts = {FLOORS: json.dumps(asdict(found.constants), separators=(",", ":")).encode()}  # thousands of weights
    return parts | ({} if found.edges is None else {FLOORS_EDGES: archive.npy(found.edges.astype("<f8"))})


def likeness_parts(cohort: Cohort, used: np.ndarray) -> dict[str, bytes]:
    """What the training people, whose records are at these positions, were like; nothing if they are too few."""
    if len({cohort.rows[at].subject for at in used}) < FEWEST:
        print(f"Fewer than {FEWEST} people trained it, so nobody can be told to be unlike them.")
        return {}
    found = reference(cohort, used)
    parts = {LIKENESS: json_of(found.constants).encode(), LIKENESS_VOLUME: archive.npy(found.volume.astype("<f4"))}
    return parts | ({} if found.edges is None else {LIKENESS_EDGES: archive.npy(found.edges.astype("<f4"))})


def onnx_of(trained: Sequence[Trained], cohort: Cohort) -> dict[str, bytes]:
    """The networks as one ONNX file, compared with TensorFlow on records of the cohort; prints the difference."""
    from utils.bundle import onnx

    stored, members = Scaler.of(cohort.metadata), []
    for one in trained:
        standard, own = one.saved.config.get("standardise", "stored"), Scaler.of(one.saved.preparation)
        onnx.check_possible(standard)
        scale, shift = affine(stored, own) if stored and own else ((), ())
        rescaled = (np.array(scale), np.array(shift)) if scale else ()
        members.append(onnx.Member(network_of(one, cohort), standard, *rescaled))
    count = min(COMPARED, len(cohort.rows))
    records = np.linspace(0, len(cohort.rows) - 1, count).astype(int)
    tables = {"connectome": cohort.connectomes} if cohort.connectomes else {}
    batches = cohort.batches(in_order(records, COMPARED_AT_ONCE), tables=tables)
    with TemporaryDirectory() as folder:
        path = Path(folder) / ONNX
        difference = onnx.export(members, path, batches)
        content = path.read_bytes()
    print(f"{ONNX}: probabilities of {count} records differ from TensorFlow's by at most {difference:.1g}.")
    return {ONNX: content}


def content_of(path: Path) -> list[str]:
    """The size of a bundle, and of each of its parts."""
    with zipfile.ZipFile(path) as found:
        infos = found.infolist()
    rows = [f"  {info.file_size:>12,}  {info.compress_size:>12,}  {info.filename}" for info in infos]
    return [f"{path}: {path.stat().st_size:,} bytes; its parts, in bytes and compressed:", *rows]


def network_of(one: Trained, cohort: Cohort) -> Any:
    """The trained network of a checkpoint."""
    from utils.training.saver import restore_weights

    model = MODELS[one.saved.model]
    network = model.build(model.settings(one.saved.config), cohort)
    restore_weights(one.folder, network)
    return network


def member_of(one: Trained, weights: Sequence[np.ndarray], cohort: Cohort) -> Member:
    """The description of a network, which reads records that are imputed and scaled as those of `cohort`."""
    own, stored = Scaler.of(one.saved.preparation), Scaler.of(cohort.metadata)
    scale, shift = affine(stored, own) if own and stored else ((), ())
    shapes = tuple(tuple(values.shape) for values in weights)
    return Member(name=one.name, step=one.saved.step, shapes=shapes, phenotype_scale=scale, phenotype_shift=shift)


def affine(stored: Scaler, own: Scaler) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The scale and the shift (29,) that make z-scores by `own` of those by `stored`; nothing if these are the same.
    Imputed values stay those of `stored`, and a value that is constant in either is 0."""
    if all(np.array_equal(getattr(own, name), getattr(stored, name)) for name in ("mean", "scale")):
        return (), ()
    known = (own.scale > 0) & (stored.scale > 0)
    divisor = np.where(known, own.scale, 1)
    scale, shift = stored.scale / divisor, (stored.mean - own.mean) / divisor
    return tuple(np.where(known, scale, 0).tolist()), tuple(np.where(known, shift, 0).tolist())


def model_of(
    trained: Sequence[Trained],
    cohort: Cohort,
    members: tuple[Member, ...],
    internal: InternalValidation | None,
    licence: str,
) -> BundledModel:
    saved = trained[0].saved
    trained_on = FOLDS if len(trained) > 1 else EVERYBODY if saved.everybody else SPLIT
    used = {row.subject: row.label for row in cohort.rows if trained_on == FOLDS or row.split == "train"}
    label = Counter(used.values())
    return BundledModel(
        **{field.name: getattr(saved, field.name) for field in fields(Choices)},
        format=FORMAT,
        program=f"{PROGRAM} {__version__}",
        git_commit=git_commit(),
        packages={name: metadata.version(name) for name in PACKAGES},
        made=time.strftime("%Y-%m-%d"),
        trained_on=trained_on,
        people={name: label[value] for value, name in enumerate(CLASSES)},
        records_sha256=cohort.records_sha256,
        members=members,
        caveats=caveats_of(saved, cohort),
        internal=replace(internal, folder=Path(internal.folder).name) if internal else None,
        licence=licence,
        aal_sha256=aal_sha256(cohort.grid),
    )


def caveats_of(saved: Identity, cohort: Cohort) -> Caveats:
    """What must stand beside every result of the networks."""
    return Caveats(
        simulated=cohort.simulated,
        problems=tuple(cohort.problems()),
        accepted_leaks=cohort.metadata.accepted_leaks,
        shuffled_labels=saved.shuffled_labels,
        transductive=saved.config.get("standardise") == "site",
    )


def report_of(internal: InternalValidation) -> str | None:
    """The report of the test on folds, as far as it is still there; if it is not, this is printed."""
    path = Path(internal.folder) / REPORT
    if not path.is_file():
        print(f"{path} is gone, so the bundle has the scores of the test, and not its report.")
        return None
    return files.regular(path).read_text(encoding="utf-8")


def json_of(content: object) -> str:
    """A dataclass as JSON."""
    return files.json_text(asdict(content))  # type: ignore[call-overload]


def model_json(model: BundledModel, subjects: Collection[str]) -> str:
    """`model.json` without IDs in what is told of the training; the rest is what the program itself says."""
    content = asdict(model)
    return files.json_text(content | {name: texts_without(content[name], subjects) for name in TOLD})


def texts_without(content: Any, subjects: Collection[str]) -> Any:
    """Dictionaries and lists of any depth with `withheld` texts."""
    if isinstance(content, dict):
        return {name: texts_without(one, subjects) for name, one in content.items()}
    if isinstance(content, list | tuple):
        return [texts_without(one, subjects) for one in content]
    return withheld(content, subjects) if isinstance(content, str) else content


def withheld(text: str, subjects: Collection[str]) -> str:
    """The text with `ID` in place of each subject's, where that stands by itself or in a name, such as `sub-50003`, and
    is no part of a number."""
    known = {name for subject in subjects for name in (subject, subject.lstrip("0")) if len(name) >= SHORTEST}

    def of(word: re.Match) -> str:
        if word[0] in known or word[0].lstrip("0") in known:
            return ID
        return re.sub(PIECE, of, word[0]) if re.search(r"[\W_]", word[0]) else word[0]

    return re.sub(r"(?<![\w.])[\w-]+(?![\w]|\.\d)", of, text)
