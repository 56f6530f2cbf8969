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
from data.cohorts.nifti import make_sidecar_path, strip_nifti_suffix
from data.conversion.discovery import parse_entities
from data.derivation.images import ImageFile
from data.derivation.scans import ScannedPerson

DESCRIPTION = "dataset_description.json"
SOURCES = "SourceFiles"  # in the JSON beside a file: name, bytes and time of all that it was made of
SHARED = ("task", "space", "res")  # parts of BIDS names that files of all people may share
KINDS = {NETWORKS_IMAGE: "probseg", PARCELS_IMAGE: "dseg"}  # how BIDS calls such images
FACTS = {  # columns of `derived.csv` by their keys in the JSON
    "mean_fd": "MeanFramewiseDisplacement",
    "volumes": "NumberOfVolumes",
    "volumes_kept": "NumberOfVolumesKept",
    "voxels": "NumberOfVoxels",
}
NOT_BIDS = ("*.csv", "figures", "atlases", "*_boldmap.*", "*_timeseries.*")


@dataclass(frozen=True)
class Made:
    """A file that is there, by the JSON beside it."""

    path: Path  # of the JSON
    derivation: Derivation
    said: Mapping[str, Any]


Files = Mapping[str, Sequence[Made]]  # by person


@dataclass(frozen=True)
class Output:
    """What is made of scans, how and where; `entities` stand in the name of each file."""

    folder: Path
    derivation: Derivation
    images: Mapping[str, ImageFile]  # NETWORKS and PARCELS, as far as they are wanted
    entities: tuple[tuple[str, str], ...] = ()

    @property
    def products(self) -> list[str]:
        return [*self.derivation.measures, *([SERIES_PRODUCT] if PARCELS_IMAGE in self.images else [])]

    def of_person(self, label: str) -> Path:
        return self.folder / f"sub-{label}"

    def start(self, label: str) -> str:
        """The beginning of the names of a person's files."""
        return "_".join([f"sub-{label}", *(f"{name}-{value}" for name, value in self.entities)])

    def path(self, label: str, product: str) -> Path:
        """Where a map or the series of a person lies."""
        name = f"stat-{product.replace('_', '')}_boldmap.nii.gz"
        if product == SERIES_PRODUCT:
            name = f"seg-{self.images[PARCELS_IMAGE].label}_stat-mean_timeseries.tsv"
        return self.of_person(label) / "func" / f"{self.start(label)}_{name}"

    def check_options(self, made: Files) -> None:
        """Raises InputError if files that are there were derived otherwise."""
        every = ((label, one.derivation, self.expected(label, one)) for label, of in made.items() for one in of)
        if told := summarise_option_differences(every):
            raise InputError(
                f"{self.folder} was derived with {told}; expected the same options. Give them, remove these "
                "participants' folders, or derive into another folder."
            )

    def expected(self, label: str, made: Made) -> Derivation:
        """How a file that is there should have been derived; images that are not wanted now are its own."""
        for product in self.products:
            if json_of(self.path(label, product)) == made.path:
                return self.derivation.for_product(product)
        own = {name: getattr(made.derivation, name) for name in ("measures", "networks", "parcels")}
        return replace(self.derivation, **own)

    def missing(self, person: ScannedPerson, made: Files) -> list[str]:
        """The products of a person that are not done. Raises InputError if it is unclear which scans to take, or,
        naming what differs, if a file of the person, of whatever product, was made with other options, of other files,
        or under another name."""
        if person.unclear:
            raise InputError(person.unclear)
        own = made.get(person.label, [])
        self.check_options({person.label: own})
        now, start = sources_of(person), self.start(person.label)
        advice = f"Remove {self.of_person(person.label)} to make all of it anew, or derive into another folder."
        for one in own:
            then = one.said.get(SOURCES, [])
            if changed := dict.fromkeys(of["Name"] for of in [*now, *then] if of not in now or of not in then):
                raise InputError(f"{one.path} was made of other files than now, {', '.join(changed)}. {advice}")
            if not one.path.name.startswith((f"{start}_stat-", f"{start}_seg-")):
                raise InputError(f"{one.path} is named otherwise than {start}, as files are now. {advice}")
        done = {one.path for one in own}
        paths = {product: self.path(person.label, product) for product in self.products}
        return [product for product, path in paths.items() if json_of(path) not in done or not path.exists()]


def json_of(path: Path) -> Path:
    """The JSON beside a map or a series."""
    return path.with_name(path.name.split(".")[0] + ".json")


def picture_of(path: Path) -> Path:
    """The small picture of a map."""
    return path.parent.with_name("figures") / f"{path.name.split('.')[0]}.webp"


def made_in(folder: Path, label: str = "*") -> Files:
    """What is there of a person, or of all. Raises InputError for a JSON that is damaged or of another program."""
    found = dict[str, list[Made]]()
    for path in sorted(folder.glob(f"sub-{label}/func/sub-*.json")):
        said = files.read_json(path, dict)
        if (derivation := parse_derivation(said, path)) is None:
            raise InputError(f"{path} was not written by this command; derive into another folder.")
        found.setdefault(path.parts[-3].removeprefix("sub-"), []).append(Made(path, derivation, said))
    return found


def sources_of(person: ScannedPerson) -> list[dict[str, Any]]:
    """Name, bytes and time, in whole seconds as archives keep it, of all files that a person's maps are made of."""
    found = []
    for path in (path for scan in person.scans for path in scan.described_by):
        about = path.stat()
        found.append({"Name": path.name, "Bytes": about.st_size, "Modified": int(about.st_mtime)})
    return found


def linked(person: ScannedPerson, folder: Path) -> list[str]:
    """The same files by their paths in the dataset to which the description in the `folder` of results links."""
    links = files.read_json(folder / DESCRIPTION, dict).get("DatasetLinks") or {}
    dataset = (folder / links.get("bold", "")).resolve()
    paths = [path.parent.resolve() / path.name for scan in person.scans for path in scan.described_by]
    return [f"bids:bold:{os.path.relpath(path, dataset)}" for path in paths]


def entities_of_all(people: Sequence[ScannedPerson], made: Files) -> tuple[tuple[str, str], ...]:
    """Parts of the names to write: those that all scans have alike, the space always, without any that no name in the
    folder has. So people who are chosen by `--only` have names like those of the others."""
    scans = [scan for person in people for scan in person.scans]
    there = [parse_entities(one.path.name) for of in made.values() for one in of]
    found = {name: {scan.bids_entities.get(name) for scan in scans} for name in SHARED}
    found["space"] = {scan.space for scan in scans}
    alike = [(name, value) for name, (value, *others) in found.items() if value and not others]
    return tuple(part for part in alike if not there or any(part[0] in one for one in there))


def check_folder(folder: Path) -> None:
    """Raises InputError if the folder holds anything but what this command left."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder to write.")
    if not folder.exists() or not any(path for path in folder.iterdir() if not path.name.startswith(".")):
        return
    said = files.read_json(folder / DESCRIPTION, dict) if (folder / DESCRIPTION).is_file() else {}
    if (said.get("GeneratedBy") or [{}])[0].get("Name") != DERIVE_PROGRAM:
        raise InputError(f"{folder} is not empty and was not written by this command; choose another folder.")


def write_dataset(output: Output, scans: Path, table: Path | None) -> str:
    """Writes what all people share, unless it is there, and returns what became of the table. Several processes may do
    so."""
    folder = output.folder
    files.check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder, wait=True):
        for leftover in folder.glob(".unfinished.*"):  # of killed processes
            files.remove(leftover)
        if not (folder / DESCRIPTION).exists():
            with files.open_replacement(folder / ".bidsignore") as file:
                file.write("\n".join([*NOT_BIDS, ""]))
            files.write_json(folder / DESCRIPTION, description(folder, scans))
        for name, image in output.images.items():
            copy_image(folder, name, image)
        if table is None:
            return "none of participants is carried over; name one with --table, also for convert"
        target = folder / table.name
        if target.exists() and target.read_bytes() != table.read_bytes():
            return f"{target} differs from {table} and stays as it is"
        copy(table, target)
        return f"{table}, carried over"


def description(folder: Path, scans: Path) -> dict[str, Any]:
    return {
        "Name": "Maps and series of preprocessed BOLD",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": DERIVE_PROGRAM, "Version": __version__}],
        "DatasetLinks": {"bold": os.path.relpath(scans.resolve(), folder.resolve())},
    }


def copy_image(folder: Path, name: str, image: ImageFile) -> None:
    """Copies NETWORKS or PARCELS, with their names, as XCP-D lays atlases out. Raises InputError as `copy`."""
    target = folder / "atlases" / f"atlas-{image.label}" / f"atlas-{image.label}_{KINDS[name]}"
    copy(image.path, target.with_name(target.name + image.path.name[len(strip_nifti_suffix(image.path)) :]))
    names, source = (
        target.with_name(target.name + NAMES_SUFFIX_BY_IMAGE[name]),
        make_sidecar_path(image.path, NAMES_SUFFIX_BY_IMAGE[name]),
    )
    if source.is_file():
        copy(source, names)
    elif image.said.names:  # which a JSON gave
        with files.open_replacement(names) as file:
            file.write("\n".join([*image.said.names, ""]))


def copy(source: Path, target: Path) -> None:
    """Copies a file. Raises InputError if another one has its place."""
    if target.exists():
        if target.read_bytes() != source.read_bytes():
            raise InputError(f"{target} differs from {source}; choose another folder, or rename {source.name}.")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.unfinished(target) as unfinished:
        shutil.copyfile(source, unfinished)


def write_table(folder: Path, everybody: Iterable[str], failures: Mapping[str, str]) -> Path:
    """`derived.csv`: what there is of each person, and why one failed, empty if nobody did: of those in `failures` as
    these say, of others as an earlier command wrote. Several processes may do so."""
    path = folder / DERIVED_TABLE_FILE
    with files.locked(folder, wait=True):
        if path.is_file():
            before = pd.read_csv(path, dtype=str, keep_default_na=False).reindex(columns=DERIVED_COLUMNS, fill_value="")
            failures = {row.subject: row.failed for row in before.itertuples() if row.failed} | dict(failures)
        made = made_in(folder)
        labels = sorted({*everybody, *made, *failures}, key=lambda label: label.zfill(20))
        rows = [row_of(label, made.get(label, []), failures.get(label, "")) for label in labels]
        with files.open_replacement(path, newline="") as file:
            pd.DataFrame(rows, columns=DERIVED_COLUMNS, dtype=object).to_csv(file, index=False)
    return path


def row_of(label: str, made: Sequence[Made], failed: str) -> dict[str, Any]:
    """A person in `derived.csv`; its files were made of the same scans, so the first one tells of these."""
    said = made[0].said if made else {}
    products = " ".join(one.derivation.product for one in made)
    return {
        "subject": label,
        "products": products,
        "failed": failed,
        **{name: said.get(of) for name, of in FACTS.items()},
    }


def write_series(path: Path, series: np.ndarray, names: Sequence[str]) -> None:
    """A table (volumes, parcels) with a header of names, `n/a` for NaN, as XCP-D has it."""
    with files.open_replacement(path, newline="") as file:
        pd.DataFrame(series, columns=names).to_csv(file, sep="\t", index=False, na_rep="n/a", float_format="%.8g")
