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
from data.base.listing import join_names
from data.base.manifest import compute_checksum
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.derivation import (
    NAMES_SUFFIX_BY_IMAGE,
    Derivation,
    make_option_label,
    parse_derivation,
    summarise_option_differences,
)
from data.conversion.discovery import FolderListing
from data.conversion.series import ATLASES_FOLDER
from data.images.nifti import make_sidecar_path
from data.tables.covariates import HEAD_MOTION_KIND

if TYPE_CHECKING:
    from data.conversion.source import Source

# images that `derive` keeps in the folder `atlases/`
ATLAS_IMAGE_NAME = re.compile(r".+_(dseg|probseg)\.nii(\.gz)?", re.IGNORECASE)
MOTION_KEY = "MeanFramewiseDisplacement"
MOTION_COLUMN = "mean_fd"  # mm


def read_json_sidecar(file_path: Path) -> tuple[Path, dict[str, Any]]:
    """The JSON beside a map or a series, and what it says; nothing if it is not there."""
    json_path = file_path.with_suffix(".json") if file_path.suffix == ".tsv" else make_sidecar_path(file_path, ".json")
    return json_path, files.read_json(json_path, dict) if json_path.is_file() else {}


def read_derivation_beside(file_path: Path) -> Derivation | None:
    """How a map, or the series of a person, was derived; None if no JSON of `derive` says it. Raises InputError for one
    that is damaged."""
    json_path, json_content = read_json_sidecar(file_path)
    return parse_derivation(json_content, json_path)


def read_derivations_per_kind(source: "Source") -> list[list[tuple[str, Derivation | None]]]:
    """For each kind of file, each subject and `read_derivation_beside` its file; a 4-D file of several maps is one
    kind."""
    paths_per_kind = list[tuple[Path, ...]]()  # a path for each subject
    for map_name in source.map_files:
        paths_per_kind.append(tuple(map_file.path for map_file in source.map_files[map_name]))
    if source.series_paths is not None:
        paths_per_kind.append(tuple(source.series_paths))

    derivations_per_kind = []
    for subject_paths in dict.fromkeys(paths_per_kind):
        subject_derivations = map(read_derivation_beside, subject_paths)
        derivations_per_kind.append(list(zip(source.subject_table["subject"], subject_derivations, strict=True)))
    return derivations_per_kind


def find_common_derivation(source: "Source") -> tuple[Derivation | None, list[SummaryRow]]:
    """How the files of all people were derived, None if that is not known of all or is not one way; and facts. Raises
    InputError if people's maps of one name were derived in several ways."""
    commonest_derivations = list[Derivation]()  # one for each kind of file of which any is known
    compared_derivations = list[tuple[str, Derivation, Derivation]]()  # (subject, derivation, commonest of its kind)
    underived_subject_ids = set[str]()
    for subject_derivations in read_derivations_per_kind(source):
        derived_subjects = [(subject, derivation) for subject, derivation in subject_derivations if derivation]
        underived_subject_ids.update(subject for subject, derivation in subject_derivations if derivation is None)
        if derived_subjects:
            derivation_counts = Counter(derivation for _, derivation in derived_subjects)
            commonest_derivation = derivation_counts.most_common(1)[0][0]
            commonest_derivations.append(commonest_derivation)
            compared_derivations += [
                (subject, derivation, commonest_derivation) for subject, derivation in derived_subjects
            ]

    if differences_text := summarise_option_differences(compared_derivations):
        raise InputError(
            f"Participants' maps were derived in several ways: {differences_text}. Expected one way. Derive them again "
            "with the same options, or leave participants out with --exclude."
        )
    if not commonest_derivations:
        return None, []
    if underived_subject_ids:
        underived_subjects_text = join_names(
            [subject for subject in source.subject_table["subject"] if subject in underived_subject_ids]
        )
        message = (
            f"how is not known of {format_participants(len(underived_subject_ids))}, so not kept: "
            f"{underived_subjects_text}"
        )
        return None, [("derived", message)]

    # kinds of file are compared without what may differ by kind
    comparable_derivations = [
        replace(derivation, measures=(), networks=None, parcels=None) for derivation in commonest_derivations
    ]
    if differences_text := summarise_option_differences(
        (derivation.product, comparable_derivation, comparable_derivations[0])
        for derivation, comparable_derivation in zip(commonest_derivations, comparable_derivations, strict=True)
    ):
        return None, [("derived", f"in several ways, so how is not kept: {differences_text}")]
    measure_names = tuple(
        dict.fromkeys(chain.from_iterable(derivation.measures for derivation in commonest_derivations))
    )
    image_by_field = dict[str, Any]()
    for derivation in commonest_derivations:
        image_by_field |= list_derivation_images(derivation)
    return replace(comparable_derivations[0], measures=measure_names, **image_by_field), []


def list_derivation_images(derivation: Derivation) -> dict[str, Any]:
    """The images that a derivation names, by its field."""
    image_by_field = {field_name: getattr(derivation, field_name) for field_name in NAMES_SUFFIX_BY_IMAGE}
    return {field_name: image for field_name, image in image_by_field.items() if image}


def find_derivation_image_files(
    derivation: Derivation | None, listing: FolderListing, parcel_image_path: Path | None
) -> tuple[dict[str, Path], list[SummaryRow]]:
    """The images of a derivation, known by their sums among those in `atlases/` and the one that is given; facts on
    those that are missing."""
    image_by_field = list_derivation_images(derivation) if derivation else {}
    if not image_by_field:
        return {}, []  # no image need be read
    candidate_image_paths = [
        image_path
        for image_path in listing.all_file_paths
        if ATLASES_FOLDER in image_path.parts and ATLAS_IMAGE_NAME.fullmatch(image_path.name)
    ]
    if parcel_image_path:
        candidate_image_paths.append(parcel_image_path)
    image_path_by_sha256 = {compute_checksum(image_path): image_path for image_path in candidate_image_paths}

    image_path_by_field = dict[str, Path]()
    missing_image_summary_rows = list[SummaryRow]()
    for field_name, image in image_by_field.items():
        if image.sha256 in image_path_by_sha256:
            image_path_by_field[field_name] = image_path_by_sha256[image.sha256]
        else:
            message = (
                f"the {make_option_label(field_name)} {image} is not in {ATLASES_FOLDER}/, and not kept; derive --like "
                "then needs it"
            )
            missing_image_summary_rows.append(("derived", message))
    return image_path_by_field, missing_image_summary_rows


def check_derivations(source: "Source", template_cohort: Cohort) -> list[SummaryRow]:
    """What could not be compared with a cohort. Raises InputError if a file of new people was derived otherwise."""
    template_derivation = template_cohort.metadata.derivation
    if template_derivation is None:
        message = f"how the maps of {template_cohort.path} were is not known, so that could not be compared"
        return [("derived", message)] if source.derivation else []
    subject_derivation_pairs = [
        (subject, derivation)
        for kind_derivations in read_derivations_per_kind(source)
        for subject, derivation in kind_derivations
        if derivation
    ]
    if message := summarise_option_differences(
        (subject, derivation, template_derivation.restrict_to_product(derivation.product))
        for subject, derivation in subject_derivation_pairs
    ):
        raise InputError(
            f"Maps were derived with {message}, as those of {template_cohort.path} were; expected the same. Derive "
            f"them again: abide-data derive BOLD OUT --like {template_cohort.path}"
        )
    if source.derivation:
        return []
    return [("derived", "how all the new maps were is not known, so that could not be compared")]


def add_motion_column(
    text_table: pd.DataFrame, map_files: pd.DataFrame, series_paths: pd.Series | None
) -> tuple[pd.DataFrame, list[SummaryRow]]:
    """The table of subjects with a column of the mean framewise displacement that `derive` wrote beside their maps or,
    without maps, their series, and a fact. The table is as it is if it has head motion, or if nobody has such a file.
    `map_files` has a column of MapOnDisk for each map, rows as in the table. Raises InputError for what is no
    number."""
    measured_noun = "maps"
    measured_paths = [map_file.path for map_file in map_files.iloc[:, 0]] if not map_files.columns.empty else []
    if map_files.columns.empty and series_paths is not None:
        measured_noun = "series"
        measured_paths = series_paths.tolist()
    if not measured_paths or any(map(HEAD_MOTION_KIND.matches_column_name, text_table)):
        return text_table, []
    displacements_mm = [read_mean_displacement(path) for path in measured_paths]
    measured_count = sum(displacement_mm is not None for displacement_mm in displacements_mm)
    if not measured_count:
        return text_table, []
    head_motion_message = (
        f"{MOTION_COLUMN}, mm, by the JSON beside the {measured_noun} of {measured_count} of "
        f"{format_participants(len(displacements_mm))}"
    )
    displacement_texts = [
        "" if displacement_mm is None else f"{displacement_mm:g}" for displacement_mm in displacements_mm
    ]
    return text_table.assign(**{MOTION_COLUMN: displacement_texts}), [("head motion", head_motion_message)]


def read_mean_displacement(file_path: Path) -> float | None:
    """In mm, by the JSON beside a file; None if it is not known."""
    json_path, json_content = read_json_sidecar(file_path)
    displacement_mm = json_content.get(MOTION_KEY)
    if displacement_mm is not None and (
        not isinstance(displacement_mm, int | float) or not 0 <= displacement_mm < math.inf
    ):
        raise InputError(
            f"{json_path}: {MOTION_KEY} is {quote_text(str(displacement_mm))}; expected millimetres. Correct it, or "
            "remove it."
        )
    return displacement_mm
