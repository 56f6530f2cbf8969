"""The JSON files that `derive` left beside maps and series -> how all people's were derived, with the images for it;
head motion, for tables of subjects that lack it."""

import math
import re
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from data.base import files
from data.base.errors import InputError, quote_text
from data.base.manifest import compute_sum
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.covariates import HEAD_MOTION_KIND
from data.cohorts.derivation import (
    NAMES_SUFFIX_BY_IMAGE,
    Derivation,
    option_label,
    parse_derivation,
    summarise_option_differences,
)
from data.cohorts.nifti import make_sidecar_path
from data.cohorts.rows import join_names
from data.conversion.discovery import Listing
from data.conversion.series import ATLASES

if TYPE_CHECKING:
    from data.conversion.source import Source

IMAGE = re.compile(r".+_(dseg|probseg)\.nii(\.gz)?", re.IGNORECASE)  # that `derive` keeps in the folder `atlases/`
MOTION_KEY, MOTION_COLUMN = "MeanFramewiseDisplacement", "mean_fd"  # mm


def json_beside(path: Path) -> tuple[Path, dict[str, Any]]:
    """The JSON beside a map or a series, and what it says; nothing if it is not there."""
    described = path.with_suffix(".json") if path.suffix == ".tsv" else make_sidecar_path(path, ".json")
    return described, files.read_json(described, dict) if described.is_file() else {}


def said_beside(path: Path) -> Derivation | None:
    """How a map, or the series of a person, was derived; None if no JSON of `derive` says it. Raises InputError for one
    that is damaged."""
    described, said = json_beside(path)
    return parse_derivation(said, described)


def said_of(source: "Source") -> list[list[tuple[str, Derivation | None]]]:
    """The same of all people with their names, for each kind of file; a 4-D file holds several maps."""
    kinds = [tuple(of_map.path for of_map in source.maps[name]) for name in source.maps]
    kinds += [tuple(source.series)] if source.series is not None else []
    people = source.subjects["subject"]
    return [[*zip(people, map(said_beside, paths), strict=True)] for paths in dict.fromkeys(kinds)]


def common(source: "Source") -> tuple[Derivation | None, list[SummaryRow]]:
    """How the files of all people were derived, None if that is not known of all or is not one way; and facts. Raises
    InputError if people's maps of one name were derived in several ways."""
    said = said_of(source)
    counts = [Counter(one for _, one in of_people if one) for of_people in said]
    usual = [count.most_common(1)[0][0] if count else None for count in counts]
    pairs = zip(said, usual, strict=True)
    if told := summarise_option_differences((who, one, most) for of, most in pairs for who, one in of if one and most):
        raise InputError(
            f"Participants' maps were derived in several ways: {told}. Expected one way. Derive them again with the "
            "same options, or leave participants out with --exclude."
        )
    known = [one for one in usual if one]
    unknown = {who for of_people in said for who, one in of_people if one is None}
    if known and unknown:
        who = join_names([one for one in source.subjects["subject"] if one in unknown])
        return None, [("derived", f"how is not known of {format_participants(len(unknown))}, so not kept: {who}")]
    if not known:
        return None, []
    shared = [replace(one, measures=(), networks=None, parcels=None) for one in known]
    if told := summarise_option_differences(
        (one.product, how, shared[0]) for one, how in zip(known, shared, strict=True)
    ):
        return None, [("derived", f"in several ways, so how is not kept: {told}")]
    measures = tuple(dict.fromkeys(chain.from_iterable(one.measures for one in known)))
    images: dict[str, Any] = {name: of for one in known for name in NAMES_SUFFIX_BY_IMAGE if (of := getattr(one, name))}
    return replace(shared[0], measures=measures, **images), []


def images_of(
    derivation: Derivation | None, listing: Listing, given: Path | None
) -> tuple[dict[str, Path], list[SummaryRow]]:
    """The images of a derivation, known by their sums among those in `atlases/` and the one that is given; facts on
    those that are missing."""
    wanted = {name: image for name in NAMES_SUFFIX_BY_IMAGE if (image := getattr(derivation, name, None))}
    there = [path for path in listing.files if ATLASES in path.parts and IMAGE.fullmatch(path.name)] if wanted else []
    known = {compute_sum(path): path for path in [*there, *filter(None, [given])]} if wanted else {}
    missing = [
        ("derived", f"the {option_label(name)} {image} is not in {ATLASES}/, and not kept; derive --like then needs it")
        for name, image in wanted.items()
        if image.sha256 not in known
    ]
    return {name: known[image.sha256] for name, image in wanted.items() if image.sha256 in known}, missing


def compared(source: "Source", like: Cohort) -> list[SummaryRow]:
    """What could not be compared with a cohort. Raises InputError if a file of new people was derived
    otherwise."""
    expected = like.metadata.derivation
    if expected is None:
        told = f"how the maps of {like.path} were is not known, so that could not be compared"
        return [("derived", told)] if source.derivation else []
    known = [(who, one) for of_people in said_of(source) for who, one in of_people if one]
    if told := summarise_option_differences((who, one, expected.for_product(one.product)) for who, one in known):
        raise InputError(
            f"Maps were derived with {told}, as those of {like.path} were; expected the same. Derive them again: "
            f"abide-data derive BOLD OUT --like {like.path}"
        )
    if source.derivation:
        return []
    return [("derived", "how all the new maps were is not known, so that could not be compared")]


def with_motion(rows: pd.DataFrame, maps: pd.DataFrame) -> tuple[pd.DataFrame, list[SummaryRow]]:
    """The table of subjects with a column of the mean framewise displacement that `derive` wrote beside their maps, and
    a fact. The table is as it is if it has head motion, or if nobody has such a file. `maps` has a column of MapOnDisk
    for each map, rows as in the table. Raises InputError for what is no number."""
    if maps.empty or any(map(HEAD_MOTION_KIND.matches_name, rows)):
        return rows, []
    values = [motion_beside(of_map.path) for of_map in maps.iloc[:, 0]]
    known = sum(value is not None for value in values)
    if not known:
        return rows, []
    told = f"{MOTION_COLUMN}, mm, by the JSON beside the maps of {known} of {format_participants(len(values))}"
    texts = ["" if value is None else f"{value:g}" for value in values]
    return rows.assign(**{MOTION_COLUMN: texts}), [("head motion", told)]


def motion_beside(path: Path) -> float | None:
    """In mm; None if it is not known."""
    described, said = json_beside(path)
    value = said.get(MOTION_KEY)
    if value is not None and (not isinstance(value, int | float) or not 0 <= value < math.inf):
        raise InputError(
            f"{described}: {MOTION_KEY} is {quote_text(str(value))}; expected millimetres. Correct it, or remove it."
        )
    return value
