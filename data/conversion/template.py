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
from data.cohorts import phenotype
from data.cohorts.cohort import Cohort
from data.cohorts.connectomes import Connectomes
from data.cohorts.derivation import DERIVATION_FOLDER
from data.cohorts.phenotype import clean_column
from data.cohorts.records import GRID_BY_NAME
from data.cohorts.rows import Metadata
from data.cohorts.stored import open_cohort
from data.conversion import measures

SUFFIX = ".zip"  # tells a bundle from a cohort
DATA, PARCELS = "data.json", "parcels.npz"
# not in a bundle
OF_PEOPLE = ("same_scan", "families", "encoder_subjects", "encoder_volumes", "provenance")
OVERLAP = "Whether new participants are training participants of {} cannot be checked: it holds no scan or ID."


@dataclass(frozen=True, kw_only=True)
class BundledData:
    """`data.json`: how the people of a cohort were prepared. `metadata` are those of the cohort without its people;
    `typical` holds the median over people of each of `measures.MEASURES`, by map."""

    grid: str
    num_maps: int
    metadata: Metadata
    cohort_sha256: str
    typical: dict[str, dict[str, float]]
    parcels: tuple[str, ...]


@dataclass(frozen=True)
class TemplateCohort:
    """A cohort, or what a bundle says of one in its `data`, which then has no people."""

    cohort: Cohort
    data: BundledData | None = None
    bundle: Archive | None = None

    @classmethod
    def of(cls, path: Path) -> "TemplateCohort":
        """Raises InputError for what is neither, and unless it says all that preparing new people takes."""
        found = of_bundle(open_archive(path)) if is_bundle(path) else cls(open_cohort(path))
        check_prepared(found.cohort)
        return found

    @property
    def facts(self) -> list[SummaryRow]:
        """What could not be compared."""
        return [("note", OVERLAP.format(self.cohort.path))] if self.data else []

    @cached_property
    def measured(self) -> dict[str, pd.DataFrame] | None:
        """By map, the measures of its people, of a bundle those of a typical one; None if they are not known."""
        if self.data:
            return {name: pd.DataFrame([values]) for name, values in self.data.typical.items()} or None
        cohort = self.cohort
        subjects = [row.subject for row in cohort.rows]
        return (
            measures.read_measures(cohort.tables_folder, subjects, cohort.map_names)
            if cohort.tables_folder and subjects
            else None
        )


def is_bundle(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def of_cohort(cohort: Cohort) -> BundledData:
    """What a bundle says of a cohort."""
    people: dict[str, Any] = {name: getattr(Metadata(), name) for name in OF_PEOPLE}
    measured = TemplateCohort(cohort).measured or {}
    return BundledData(
        grid=cohort.grid.name,
        num_maps=cohort.num_maps,
        metadata=replace(cohort.metadata, **people),
        cohort_sha256=cohort.identity,
        typical={name: table.median().to_dict() for name, table in measured.items()},
        parcels=cohort.connectomes.parcel_names if cohort.connectomes else (),
    )


def check_prepared(cohort: Cohort) -> None:
    """Raises InputError unless a cohort says how its records were made of maps and a table."""
    metadata = cohort.metadata
    if metadata.reduction.startswith("encoder"):
        raise InputError(
            f"{cohort.path} holds volumes of an encoder; convert --like the full-size cohort that it was made from, "
            "then reduce the result: run.py --model cae --dataDir OUT with the encoder's --chkPointDir."
        )
    encoded = encode_like(pd.DataFrame(columns=list(metadata.phenotype_columns), dtype=str), metadata)
    is_made_of_maps = metadata.reduction in ("none", "block mean")
    if not is_made_of_maps or tuple(encoded) != metadata.phenotype or not phenotype.Scaler.from_preparation(metadata):
        raise InputError(
            f"{cohort.path} does not say how its records were made of maps, and of which columns its phenotype; "
            "expected a cohort that abide-data convert made. Convert it again."
        )


def encode_like(table: pd.DataFrame, metadata: Metadata) -> pd.DataFrame:
    """The raw phenotype (subjects, 29) of a table, coded as that of another cohort with this `metadata`."""
    columns, names = metadata.phenotype_columns, metadata.phenotype
    if names == phenotype.list_abide_names():
        return phenotype.make_abide_values(table)
    missing = [name for name in columns if f"{name}_missing" in names]
    return phenotype.encode_columns(table, columns, metadata.phenotype_categories, missing)


def unknown_categories(table: pd.DataFrame, metadata: Metadata) -> dict[str, list[str]]:
    """By column of text of the phenotype, the words of a table that nobody of the cohort with this `metadata` had. They
    count as unknown."""
    texts = {name: clean_column(table[name]) for name in metadata.phenotype_categories if name in table}
    odd = {name: text[text.notna() & ~text.isin(metadata.phenotype_categories[name])] for name, text in texts.items()}
    return {name: sorted(text.unique()) for name, text in odd.items() if text.size}


def parts_of(cohort: Cohort) -> dict[str, bytes]:
    """What a bundle says of a cohort, as its parts; the images by which the maps were derived among them."""
    parts = {DATA: files.format_json(asdict(of_cohort(cohort))).encode()}
    if cohort.connectomes and cohort.connectomes.parcel_image is not None:
        parts[PARCELS] = make_npz(image=cohort.connectomes.parcel_image)
    if cohort.tables_folder and cohort.metadata.derivation:
        images = sorted((cohort.tables_folder / DERIVATION_FOLDER).glob("*.*"))
        parts |= {f"{DERIVATION_FOLDER}/{path.name}": path.read_bytes() for path in images}
    return parts


def of_bundle(bundle: Archive) -> TemplateCohort:
    """What a bundle says. Raises InputError for a damaged part."""
    data = bundle.read_json(DATA, BundledData)
    metadata = data.metadata
    image = bundle.read_arrays(PARCELS)["image"] if PARCELS in bundle.bytes_by_member else None
    edges = Connectomes(bundle.path, metadata.connectome, data.parcels, image, np.empty(0, int))
    cohort = Cohort(
        bundle.path, GRID_BY_NAME[data.grid], (), (), metadata, num_maps=data.num_maps, identity=data.cohort_sha256
    )
    return TemplateCohort(replace(cohort, connectomes=edges if metadata.connectome else None), data, bundle)
