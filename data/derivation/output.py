"""What `derive` writes: a BIDS derivative with maps and series of each person, and `derived.csv` of all people.

Beside each file, a JSON says how it was made, and of which scans. It is written last, so a file without it is not done.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data import __version__
from data.base import files
from data.base.errors import InputError
from data.cohorts.derivation import (
    DERIVE_PROGRAM,
    DERIVED_COLUMNS,
    DERIVED_TABLE_FILE,
    NAMES_SUFFIX_BY_IMAGE,
    NETWORKS_IMAGE,
    PARCELS_IMAGE,
    SERIES_PRODUCT,
    Derivation,
    parse_derivation,
    summarise_option_differences,
)
from data.conversion.discovery import parse_bids_entities
from data.derivation.images import ImageFile
from data.derivation.scans import ScannedPerson
from data.images.nifti import make_sidecar_path, strip_nifti_suffix

DESCRIPTION_FILE = "dataset_description.json"
SOURCES_KEY = "SourceFiles"  # in the JSON beside a file: name, bytes and time of all that it was made of
SHARED_ENTITIES = ("task", "space", "res")  # parts of BIDS names that files of all people may share
BIDS_SUFFIX_BY_IMAGE = {NETWORKS_IMAGE: "probseg", PARCELS_IMAGE: "dseg"}  # how BIDS calls such images
JSON_KEY_BY_COLUMN = {  # keys in the JSON, by columns of `derived.csv`
    "mean_fd": "MeanFramewiseDisplacement",
    "volumes": "NumberOfVolumes",
    "volumes_kept": "NumberOfVolumesKept",
    "voxels": "NumberOfVoxels",
}
NOT_BIDS_PATTERNS = ("*.csv", "figures", "atlases", "*_boldmap.*", "*_timeseries.*")


@dataclass(frozen=True)
class DerivedFile:
    """A file that is there, by the JSON beside it."""

    json_path: Path  # beside the map or series
    derivation: Derivation
    json_content: Mapping[str, Any]


FilesByLabel = Mapping[str, Sequence[DerivedFile]]  # by person


@dataclass(frozen=True)
class DerivationOutput:
    """What is made of scans, how and where."""

    output_folder: Path
    derivation: Derivation
    image_file_by_name: Mapping[str, ImageFile]  # of NETWORKS_IMAGE and PARCELS_IMAGE, those wanted
    bids_entities: tuple[tuple[str, str], ...] = ()  # names and values, in the name of each file

    @property
    def product_names(self) -> list[str]:
        product_names = list(self.derivation.measures)
        if PARCELS_IMAGE in self.image_file_by_name:
            product_names.append(SERIES_PRODUCT)
        return product_names

    def person_folder(self, label: str) -> Path:
        return self.output_folder / f"sub-{label}"

    def file_name_prefix(self, label: str) -> str:
        """The beginning of the names of a person's files."""
        entity_texts = [f"{entity_name}-{entity_value}" for entity_name, entity_value in self.bids_entities]
        return "_".join([f"sub-{label}", *entity_texts])

    def product_path(self, label: str, product_name: str) -> Path:
        """Where a map or the series of a person lies."""
        if product_name == SERIES_PRODUCT:
            file_suffix = f"seg-{self.image_file_by_name[PARCELS_IMAGE].atlas_label}_stat-mean_timeseries.tsv"
        else:
            file_suffix = f"stat-{product_name.replace('_', '')}_boldmap.nii.gz"
        return self.person_folder(label) / "func" / f"{self.file_name_prefix(label)}_{file_suffix}"

    def check_same_options(self, files_by_label: FilesByLabel) -> None:
        """Raises InputError if files that are there were derived otherwise."""
        labelled_derivation_pairs = (
            (label, derived_file.derivation, self.find_expected_derivation(label, derived_file))
            for label, derived_files in files_by_label.items()
            for derived_file in derived_files
        )
        if difference_text := summarise_option_differences(labelled_derivation_pairs):
            raise InputError(
                f"{self.output_folder} was derived with {difference_text}; expected the same options. Give them, "
                "remove these participants' folders, or derive into another folder."
            )

    def find_expected_derivation(self, label: str, derived_file: DerivedFile) -> Derivation:
        """How a file that is there should have been derived; images that are not wanted now are its own."""
        for product_name in self.product_names:
            if make_json_path(self.product_path(label, product_name)) == derived_file.json_path:
                return self.derivation.restrict_to_product(product_name)
        recorded_option_values = {
            field_name: getattr(derived_file.derivation, field_name)
            for field_name in ("measures", "networks", "parcels")
        }
        return replace(self.derivation, **recorded_option_values)

    def find_missing_products(self, person: ScannedPerson, files_by_label: FilesByLabel) -> list[str]:
        """The products of a person that are not done. Raises InputError if it is unclear which scans to take, or,
        naming what differs, if a file of the person, of whatever product, was made with other options, of other files,
        or under another name."""
        if person.unclear_reason:
            raise InputError(person.unclear_reason)
        derived_files = files_by_label.get(person.label, [])
        self.check_same_options({person.label: derived_files})
        current_source_entries = describe_source_files(person)
        current_name_prefix = self.file_name_prefix(person.label)
        advice = f"Remove {self.person_folder(person.label)} to make all of it anew, or derive into another folder."
        for derived_file in derived_files:
            recorded_source_entries = derived_file.json_content.get(SOURCES_KEY, [])
            if changed_source_names := dict.fromkeys(
                source_entry["Name"]
                for source_entry in [*current_source_entries, *recorded_source_entries]
                if source_entry not in current_source_entries or source_entry not in recorded_source_entries
            ):
                raise InputError(
                    f"{derived_file.json_path} was made of other files than now, {', '.join(changed_source_names)}. "
                    f"{advice}"
                )
            if not derived_file.json_path.name.startswith(
                (f"{current_name_prefix}_stat-", f"{current_name_prefix}_seg-")
            ):
                raise InputError(
                    f"{derived_file.json_path} is named otherwise than {current_name_prefix}, as files are now. "
                    f"{advice}"
                )
        complete_json_paths = {derived_file.json_path for derived_file in derived_files}
        path_by_product_name = {
            product_name: self.product_path(person.label, product_name) for product_name in self.product_names
        }
        return [
            product_name
            for product_name, product_path in path_by_product_name.items()
            if make_json_path(product_path) not in complete_json_paths or not product_path.exists()
        ]


def make_json_path(product_path: Path) -> Path:
    """The JSON beside a map or a series."""
    return product_path.with_name(product_path.name.split(".")[0] + ".json")


def make_picture_path(map_path: Path) -> Path:
    """The small picture of a map."""
    return map_path.parent.with_name("figures") / f"{map_path.name.split('.')[0]}.webp"


def find_derived_files(output_folder: Path, label_pattern: str = "*") -> FilesByLabel:
    """What is there of a person, or of all. Raises InputError for a JSON that is damaged or of another program."""
    files_by_label = dict[str, list[DerivedFile]]()
    for json_path in sorted(output_folder.glob(f"sub-{label_pattern}/func/sub-*.json")):
        json_content = files.read_json(json_path, dict)
        derivation = parse_derivation(json_content, json_path)
        if derivation is None:
            raise InputError(f"{json_path} was not written by this command; derive into another folder.")
        label = json_path.parts[-3].removeprefix("sub-")
        files_by_label.setdefault(label, []).append(DerivedFile(json_path, derivation, json_content))
    return files_by_label


def describe_source_files(person: ScannedPerson) -> list[dict[str, Any]]:
    """Name, bytes and time, in whole seconds as archives keep it, of all files that a person's maps are made of."""
    source_entries = []
    for scan_file in person.scan_files:
        for source_path in scan_file.source_paths:
            file_stat = source_path.stat()
            source_entries.append(
                {"Name": source_path.name, "Bytes": file_stat.st_size, "Modified": int(file_stat.st_mtime)}
            )
    return source_entries


def make_bids_links(person: ScannedPerson, output_folder: Path) -> list[str]:
    """The files of `describe_source_files`, by paths in the dataset to which the description in `output_folder`
    links."""
    dataset_links = files.read_json(output_folder / DESCRIPTION_FILE, dict).get("DatasetLinks") or {}
    bold_dataset_folder = (output_folder / dataset_links.get("bold", "")).resolve()
    source_paths = [
        source_path.parent.resolve() / source_path.name
        for scan_file in person.scan_files
        for source_path in scan_file.source_paths
    ]
    return [f"bids:bold:{os.path.relpath(source_path, bold_dataset_folder)}" for source_path in source_paths]


def find_shared_entities(people: Sequence[ScannedPerson], files_by_label: FilesByLabel) -> tuple[tuple[str, str], ...]:
    """Parts of the names to write: those that all scans have alike, the space always, without any that no name in the
    folder has. So people who are chosen by `--only` have names like those of the others."""
    scan_files = [scan_file for person in people for scan_file in person.scan_files]
    existing_entity_names = set[str]()  # in the names of files in the folder
    for derived_files in files_by_label.values():
        for derived_file in derived_files:
            existing_entity_names |= parse_bids_entities(derived_file.json_path.name).keys()

    shared_entities = list[tuple[str, str]]()
    for entity_name in SHARED_ENTITIES:
        entity_values = {scan_file.bids_entities.get(entity_name) for scan_file in scan_files}
        if entity_name == "space":
            entity_values = {scan_file.space_name for scan_file in scan_files}
        first_value, *further_values = entity_values
        may_be_in_names = not files_by_label or entity_name in existing_entity_names
        if first_value and not further_values and may_be_in_names:
            shared_entities.append((entity_name, first_value))
    return tuple(shared_entities)


def check_output_folder(output_folder: Path) -> None:
    """Raises InputError if the folder holds anything but what this command left."""
    if output_folder.exists() and not output_folder.is_dir():
        raise InputError(f"{output_folder} is a file; name a folder to write.")
    if not output_folder.exists() or all(child_path.name.startswith(".") for child_path in output_folder.iterdir()):
        return
    description_path = output_folder / DESCRIPTION_FILE
    dataset_description = files.read_json(description_path, dict) if description_path.is_file() else {}
    generators = dataset_description.get("GeneratedBy") or [{}]
    if generators[0].get("Name") != DERIVE_PROGRAM:
        raise InputError(f"{output_folder} is not empty and was not written by this command; choose another folder.")


def write_shared_dataset_files(
    output: DerivationOutput, scans_folder: Path, participant_table_path: Path | None
) -> str:
    """Writes what all people share, unless it is there, and returns what became of the table. Several processes may do
    so."""
    output_folder = output.output_folder
    files.check_folder_writable(output_folder)
    output_folder.mkdir(parents=True, exist_ok=True)
    with files.lock_exclusively(output_folder, wait=True):
        for leftover_path in output_folder.glob(".unfinished.*"):  # of killed processes
            files.remove_file_or_folder(leftover_path)
        if not (output_folder / DESCRIPTION_FILE).exists():
            with files.open_replacement(output_folder / ".bidsignore") as ignore_file:
                ignore_file.write("\n".join([*NOT_BIDS_PATTERNS, ""]))
            files.write_json(output_folder / DESCRIPTION_FILE, make_dataset_description(output_folder, scans_folder))
        for atlas_image_kind, image_file in output.image_file_by_name.items():
            copy_atlas_image(output_folder, atlas_image_kind, image_file)
        if participant_table_path is None:
            return "none of participants is carried over; name one with --table, also for convert"
        table_copy_path = output_folder / participant_table_path.name
        if table_copy_path.exists() and table_copy_path.read_bytes() != participant_table_path.read_bytes():
            return f"{table_copy_path} differs from {participant_table_path} and stays as it is"
        copy_unless_same(participant_table_path, table_copy_path)
        return f"{participant_table_path}, carried over"


def make_dataset_description(output_folder: Path, scans_folder: Path) -> dict[str, Any]:
    return {
        "Name": "Maps and series of preprocessed BOLD",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": DERIVE_PROGRAM, "Version": __version__}],
        "DatasetLinks": {"bold": os.path.relpath(scans_folder.resolve(), output_folder.resolve())},
    }


def copy_atlas_image(output_folder: Path, image_name: str, image_file: ImageFile) -> None:
    """Copies the image of networks or parcels, with its names, as XCP-D lays atlases out. Raises InputError as
    `copy_unless_same` does."""
    target_path_without_suffix = (
        output_folder
        / "atlases"
        / f"atlas-{image_file.atlas_label}"
        / f"atlas-{image_file.atlas_label}_{BIDS_SUFFIX_BY_IMAGE[image_name]}"
    )
    copy_unless_same(
        image_file.image_path,
        target_path_without_suffix.with_name(
            target_path_without_suffix.name
            + image_file.image_path.name[len(strip_nifti_suffix(image_file.image_path)) :]
        ),
    )
    names_target_path = target_path_without_suffix.with_name(
        target_path_without_suffix.name + NAMES_SUFFIX_BY_IMAGE[image_name]
    )
    names_source_path = make_sidecar_path(image_file.image_path, NAMES_SUFFIX_BY_IMAGE[image_name])
    if names_source_path.is_file():
        copy_unless_same(names_source_path, names_target_path)
    elif image_file.image_identity.names:  # which a JSON gave
        with files.open_replacement(names_target_path) as names_file:
            names_file.write("\n".join([*image_file.image_identity.names, ""]))


def copy_unless_same(source_path: Path, target_path: Path) -> None:
    """Copies a file. Raises InputError if another one has its place."""
    if target_path.exists():
        if target_path.read_bytes() != source_path.read_bytes():
            raise InputError(
                f"{target_path} differs from {source_path}; choose another folder, or rename {source_path.name}."
            )
        return
    target_path.parent.mkdir(parents=True, exist_ok=True)
    with files.make_unfinished_path(target_path) as unfinished_path:
        shutil.copyfile(source_path, unfinished_path)


def write_derived_table(
    output_folder: Path, all_person_labels: Iterable[str], new_failure_text_by_label: Mapping[str, str]
) -> Path:
    """Writes `derived.csv`: what there is of each person, and why it failed, or nothing: by
    `new_failure_text_by_label`, and for people that are not in it as an earlier command wrote. Several processes may do
    so."""
    table_path = output_folder / DERIVED_TABLE_FILE
    with files.lock_exclusively(output_folder, wait=True):
        failure_text_by_label = dict[str, str]()
        if table_path.is_file():
            earlier_derived_table = pd.read_csv(table_path, dtype=str, keep_default_na=False)
            for earlier_row in earlier_derived_table.reindex(columns=DERIVED_COLUMNS, fill_value="").itertuples():
                if earlier_row.failed:
                    failure_text_by_label[earlier_row.subject] = earlier_row.failed
        failure_text_by_label |= new_failure_text_by_label

        files_by_label = find_derived_files(output_folder)
        sorted_labels = sorted(
            {*all_person_labels, *files_by_label, *failure_text_by_label}, key=lambda label: (label.zfill(20), label)
        )
        table_rows = [
            make_derived_row(label, files_by_label.get(label, []), failure_text_by_label.get(label, ""))
            for label in sorted_labels
        ]
        with files.open_replacement(table_path, newline="") as csv_file:
            pd.DataFrame(table_rows, columns=DERIVED_COLUMNS, dtype=object).to_csv(csv_file, index=False)
    return table_path


def make_derived_row(label: str, derived_files: Sequence[DerivedFile], failure_text: str) -> dict[str, Any]:
    """A person in `derived.csv`; its files were made of the same scans, so the first one tells of these."""
    json_content = derived_files[0].json_content if derived_files else {}
    product_names_text = " ".join(derived_file.derivation.product for derived_file in derived_files)
    return {
        "subject": label,
        "products": product_names_text,
        "failed": failure_text,
        **{column: json_content.get(json_key) for column, json_key in JSON_KEY_BY_COLUMN.items()},
    }


def write_parcel_series(table_path: Path, parcel_series: np.ndarray, parcel_names: Sequence[str]) -> None:
    """A table (volumes, parcels) with a header of names, `n/a` for NaN, as XCP-D has it."""
    with files.open_replacement(table_path, newline="") as tsv_file:
        pd.DataFrame(parcel_series, columns=parcel_names).to_csv(
            tsv_file, sep="\t", index=False, na_rep="n/a", float_format="%.8g"
        )
