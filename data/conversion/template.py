"""What --like names, a cohort or a bundle -> how its people were prepared, so that new people are prepared alike.

A bundle (`abide-bundle`) is a zip with constants only. Its `data.json` holds what a cohort says of itself,
but for its people; `parcels.npz`, where the parcels of connectomes lie.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base import files
from data.base.archive import Archive, make_npz, open_archive
from data.base.errors import InputError
from data.base.terminal import SummaryRow
from data.cohorts import scaling
from data.cohorts.cohort import Cohort
from data.cohorts.connectomes import Connectomes
from data.cohorts.derivation import DERIVATION_FOLDER
from data.cohorts.metadata import Metadata
from data.cohorts.stored import open_cohort
from data.conversion import measures
from data.images.grids import GRID_BY_NAME
from data.tables import phenotype as phenotype_table
from data.tables.missing import clean_column

BUNDLE_SUFFIX = ".zip"  # tells a bundle from a cohort
DATA_FILE = "data.json"
PARCELS_FILE = "parcels.npz"
# not in a bundle
PEOPLE_METADATA_FIELDS = ("same_scan", "families", "encoder_subjects", "encoder_volumes", "provenance")
OVERLAP_WARNING = "Whether new participants are training participants of {} cannot be checked: it holds no scan or ID."


@dataclass(frozen=True, kw_only=True)
class BundledData:
    """`data.json`: how the people of a cohort were prepared. `metadata` are those of the cohort without its people."""

    grid: str  # a key of GRID_BY_NAME; empty without maps
    num_maps: int  # in a record
    metadata: Metadata
    cohort_sha256: str  # identity of the cohort
    typical: dict[str, dict[str, float]]  # by map and by each of `measures.MAP_MEASURES`, the median over people
    parcels: tuple[str, ...]  # names


@dataclass(frozen=True)
class TemplateCohort:
    """A cohort, or what a bundle says of one in its `bundled_data`, which then has no people."""

    cohort: Cohort
    bundled_data: BundledData | None = None
    bundle_archive: Archive | None = None

    @classmethod
    def from_path(cls, cohort_or_bundle_path: Path) -> "TemplateCohort":
        """Raises InputError for what is neither, and unless it says all that preparing new people takes."""
        if is_bundle(cohort_or_bundle_path):
            template = read_template(open_archive(cohort_or_bundle_path))
        else:
            template = cls(open_cohort(cohort_or_bundle_path))
        check_preparation(template.cohort)
        return template

    @property
    def summary_rows(self) -> list[SummaryRow]:
        """What could not be compared."""
        return [("note", OVERLAP_WARNING.format(self.cohort.path))] if self.bundled_data else []

    @cached_property
    def measures_by_map(self) -> dict[str, pd.DataFrame] | None:
        """By map, the measures of its people, of a bundle those of a typical one; None if they are not known."""
        if self.bundled_data:
            typical_measures_by_map = {
                map_name: pd.DataFrame([typical_measures])
                for map_name, typical_measures in self.bundled_data.typical.items()
            }
            return typical_measures_by_map or None
        subject_ids = [subject_row.subject for subject_row in self.cohort.rows]
        if not self.cohort.tables_folder or not subject_ids:
            return None
        return measures.read_map_measures(self.cohort.tables_folder, subject_ids, self.cohort.map_names)


def is_bundle(path: Path) -> bool:
    return path.suffix.lower() == BUNDLE_SUFFIX and not path.is_dir()


def make_bundled_data(cohort: Cohort) -> BundledData:
    """What a bundle says of a cohort."""
    empty_fields: dict[str, Any] = {
        field_name: getattr(Metadata(), field_name) for field_name in PEOPLE_METADATA_FIELDS
    }
    measures_by_map = TemplateCohort(cohort).measures_by_map or {}
    return BundledData(
        grid=cohort.record_grid.name if cohort.record_grid else "",
        num_maps=cohort.num_maps,
        metadata=replace(cohort.metadata, **empty_fields),
        cohort_sha256=cohort.identity,
        typical={map_name: map_measures.median().to_dict() for map_name, map_measures in measures_by_map.items()},
        parcels=cohort.connectomes.parcel_names if cohort.connectomes else (),
    )


def check_preparation(cohort: Cohort) -> None:
    """Raises InputError unless a cohort says how its records were made of maps and a table."""
    metadata = cohort.metadata
    if metadata.reduction.startswith("encoder"):
        raise InputError(
            f"{cohort.path} holds volumes of an encoder; convert --like the full-size cohort that it was made from, "
            "then reduce the result: run.py --model cae --dataDir OUT with the encoder's --chkPointDir."
        )
    empty_phenotype = encode_phenotype(pd.DataFrame(columns=list(metadata.phenotype_columns), dtype=str), metadata)
    is_known_reduction = metadata.reduction in ("none", "block mean") or not cohort.num_maps
    if (
        not is_known_reduction
        or tuple(empty_phenotype) != metadata.phenotype
        or not scaling.Scaler.from_preparation(metadata)
    ):
        raise InputError(
            f"{cohort.path} does not say how its records were made of maps, and of which columns its phenotype; "
            "expected a cohort that abide-data convert made. Convert it again."
        )


def encode_phenotype(text_table: pd.DataFrame, metadata: Metadata) -> pd.DataFrame:
    """The raw phenotype (subjects, 29) of a table, coded as that of another cohort with this `metadata`."""
    phenotype_columns = metadata.phenotype_columns
    phenotype_value_names = metadata.phenotype
    if phenotype_value_names == phenotype_table.list_abide_value_names():
        return phenotype_table.make_abide_values(text_table)
    columns_with_missing = [
        column_name for column_name in phenotype_columns if f"{column_name}_missing" in phenotype_value_names
    ]
    return phenotype_table.encode_columns(
        text_table, phenotype_columns, metadata.phenotype_categories, columns_with_missing
    )


def find_unknown_categories(text_table: pd.DataFrame, metadata: Metadata) -> dict[str, list[str]]:
    """By column of text of the phenotype, the words of a table that nobody of the cohort with this `metadata` had. They
    count as unknown."""
    unknown_words_by_column = dict[str, list[str]]()
    for column_name, categories in metadata.phenotype_categories.items():
        if column_name in text_table:
            column_words = clean_column(text_table[column_name]).dropna()
            unknown_words = column_words[~column_words.isin(categories)]
            if unknown_words.size:
                unknown_words_by_column[column_name] = sorted(unknown_words.unique())
    return unknown_words_by_column


def make_bundle_template_files(cohort: Cohort) -> dict[str, bytes]:
    """What a bundle says of a cohort, as its parts; the images by which the maps were derived among them."""
    content_by_file = {DATA_FILE: files.format_json(asdict(make_bundled_data(cohort))).encode()}
    if cohort.connectomes and cohort.connectomes.parcel_image is not None:
        content_by_file[PARCELS_FILE] = make_npz(image=cohort.connectomes.parcel_image)
    if cohort.tables_folder and cohort.metadata.derivation:
        image_paths = sorted((cohort.tables_folder / DERIVATION_FOLDER).glob("*.*"))
        content_by_file |= {
            f"{DERIVATION_FOLDER}/{image_path.name}": image_path.read_bytes() for image_path in image_paths
        }
    return content_by_file


def read_template(bundle_archive: Archive) -> TemplateCohort:
    """What a bundle says. Raises InputError for a damaged part."""
    bundled_data = bundle_archive.read_json(DATA_FILE, BundledData)
    metadata = bundled_data.metadata
    parcel_image = None
    if PARCELS_FILE in bundle_archive.bytes_by_member:
        parcel_image = bundle_archive.read_arrays(PARCELS_FILE)["image"]
    bundle_connectomes = None
    if metadata.connectome:
        bundle_connectomes = Connectomes(
            bundle_archive.path, metadata.connectome, bundled_data.parcels, parcel_image, np.empty(0, int)
        )
    bundle_cohort = Cohort(
        bundle_archive.path,
        GRID_BY_NAME[bundled_data.grid] if bundled_data.grid else None,
        (),
        (),
        metadata,
        num_maps=bundled_data.num_maps,
        identity=bundled_data.cohort_sha256,
    )
    return TemplateCohort(replace(bundle_cohort, connectomes=bundle_connectomes), bundled_data, bundle_archive)
