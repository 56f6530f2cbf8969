"""What `derive` writes: a BIDS derivative with maps and series of each person, each beside a JSON that says how it was
made. A file that is there counts as done if its JSON says the same of options and scans."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data import __version__
from data.base import files
from data.base.errors import InputError
from data.cohorts.derivation import EVERY, MAP, PROGRAM, SERIES, Derivation
from data.cohorts.nifti import beside, stem_of
from data.conversion.discovery import ambiguous, entities_of
from data.derivation.images import ImageFile
from data.derivation.scans import ScannedPerson
from data.pages.page import is_page

DESCRIPTION = "dataset_description.json"
PAGE, PAGE_KIND = "derive.html", "derive"
BLOCKS, BLOCK_BYTES = 16, 2**16  # of a file, spread over it, which its digest covers
SOURCES = "SourcesSHA256"  # in the JSON beside a file: which scans it was made of
SHARED = ("task", "space", "res")  # parts of BIDS names that files of all people may share


@dataclass(frozen=True)
class Products:
    """What is made of scans, and how."""

    derivation: Derivation  # without what is each person's: the kind of scans and, unless an option says it, confounds
    networks: ImageFile | None
    parcels: ImageFile | None

    @property
    def band(self) -> tuple[float, float]:
        assert self.derivation.band  # which has a default
        return self.derivation.band

    @property
    def names(self) -> list[str]:
        return [*self.derivation.measures, *([SERIES] if self.parcels else [])]


@dataclass(frozen=True)
class Output:
    """The folder of results; `entities` stand in the name of each file."""

    folder: Path
    entities: tuple[tuple[str, str], ...]

    def of_person(self, label: str) -> Path:
        return self.folder / f"sub-{label}"

    def path(self, label: str, product: str, products: Products) -> Path:
        """Where a map or the series of a person lies."""
        parts = [f"sub-{label}", *(f"{name}-{value}" for name, value in self.entities)]
        if product == SERIES and products.parcels:
            parts += [f"seg-{products.parcels.name}", "stat-mean", "timeseries.tsv"]
        else:
            parts += [f"stat-{product.replace('_', '')}", "boldmap.nii.gz"]
        return self.of_person(label) / "func" / "_".join(parts)

    def missing(self, label: str, products: Products) -> list[str]:
        return [name for name in products.names if not self.path(label, name, products).exists()]


def json_of(path: Path) -> Path:
    """The JSON beside a map or a series."""
    return path.with_name(path.name.split(".")[0] + ".json")


def picture_of(path: Path) -> Path:
    """The small picture of a map."""
    return path.parent.with_name("figures") / f"{path.name.split('.')[0]}.webp"


def choices_of(product: str, derivation: Derivation) -> dict[str, Any]:
    """The choices that decide what a file holds, as its JSON has them."""
    return derivation.said(EVERY, product) if product == SERIES else derivation.said(EVERY, MAP, product)


def sources_of(person: ScannedPerson, folder: Path) -> dict[str, Any]:
    """The files that a person's maps are made of, and a digest of them: of names, sizes and blocks spread over each.
    Their paths are from the dataset to which the description in the `folder` of results links. The digest alone
    identifies them, however a command names them."""
    links = files.read_json(folder / DESCRIPTION, dict).get("DatasetLinks") or {}
    dataset = (folder / links.get("bold", "")).resolve()
    digest, named = hashlib.sha256(), []
    for scan in person.scans:
        within = os.path.relpath(scan.path.parent.resolve(), dataset)
        for path in scan.described_by:
            named.append(f"bids:bold:{os.path.normpath(os.path.join(within, path.name))}")
            digest.update(path.name.encode() + b"\0")
            digest_blocks(digest, path)
    return {"Sources": named, SOURCES: digest.hexdigest()}


def digest_blocks(digest: Any, path: Path) -> None:
    """Adds the size of a file and blocks spread over it; the last one of a .gz holds a checksum of all its values."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        for start in np.linspace(0, max(0, size - BLOCK_BYTES), BLOCKS).astype(int).tolist():
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES))


def check_same(path: Path, wanted: dict[str, Any]) -> None:
    """Raises InputError, naming what differs, unless the JSON of a file that is there says the same."""
    described = json_of(path)
    if not described.is_file():
        raise InputError(f"{path} has no JSON beside it, so this program did not write it; choose another folder.")
    said = files.read_json(described, dict)
    others = (name for name, value in wanted.items() if said.get(name) != value)
    if different := next(others, None):
        if different == SOURCES:
            raise InputError(
                f"{path} was made of other files than the scan has now. Remove this person's folder, to make it anew, "
                "or choose another folder."
            )
        raise InputError(
            f"{path} was made with {different} {said.get(different)}, not {wanted[different]}; choose the same "
            "options, or another folder."
        )


def check_there(output: Output, label: str, derivation: Derivation, sources: dict[str, Any]) -> None:
    """Raises InputError for files of a person, of whatever measure, that one cohort would mix with those to come. They
    are named after other parts of the scans' names, or were made with other options, or of other scans, if `sources`
    says which."""
    start = "_".join([f"sub-{label}", *(f"{name}-{value}" for name, value in output.entities)])
    for path in sorted((output.of_person(label) / "func").glob("sub-*")):
        if not path.name.startswith((f"{start}_stat-", f"{start}_seg-")):
            raise InputError(
                f"{output.folder} has {path.name}, and this command would write names that begin with {start}; choose "
                "another folder, or the same scans with --only."
            )
        if path.suffix != ".json":
            kinds = (EVERY,) if path.suffix == ".tsv" else (EVERY, MAP)
            check_same(path, derivation.said(*kinds) | sources)


def chosen_before(person: ScannedPerson, folder: Path) -> ScannedPerson:
    """A person whose scans are unclear with those that the files in the folder were made of, as `--only` chose them."""
    made = next(iter(sorted((folder / f"sub-{person.label}" / "func").glob("sub-*.json"))), None)
    if not person.unclear or made is None:
        return person
    sources = files.read_json(made, dict).get("Sources")
    named = {PurePosixPath(str(of)).name for of in sources} if isinstance(sources, list) else set()
    chosen = tuple(scan for scan in person.scans if scan.path.name in named)
    return replace(person, scans=chosen, unclear="") if chosen and not ambiguous(chosen) else person


def entities_in(folder: Path, people: Sequence[ScannedPerson]) -> tuple[tuple[str, str], ...]:
    """Parts of the names to write: those that all scans have alike, without any that no name in the folder has. So
    people who are chosen by `--only` have names like those of the others."""
    there = [entities_of(path.name) for path in folder.glob("sub-*/func/sub-*.json")]
    return tuple(part for part in shared_entities(people) if not there or any(part[0] in one for one in there))


def shared_entities(people: Sequence[ScannedPerson]) -> tuple[tuple[str, str], ...]:
    """Parts of names that all scans have alike; the space always."""
    scans = [scan for person in people for scan in person.scans]
    found = {name: {scan.entities.get(name) for scan in scans} for name in SHARED}
    found["space"] = {scan.space for scan in scans}
    return tuple((name, value) for name, (value, *others) in found.items() if value and not others)


def check_folder(folder: Path) -> None:
    """Raises InputError if the folder holds anything but what this command left."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder to write.")
    if not folder.exists() or not any(path for path in folder.iterdir() if not path.name.startswith(".")):
        return
    said = files.read_json(folder / DESCRIPTION, dict) if (folder / DESCRIPTION).is_file() else {}
    if (said.get("GeneratedBy") or [{}])[0].get("Name") != PROGRAM:
        raise InputError(f"{folder} is not empty and was not written by this command; choose another folder.")
    page = folder / PAGE
    if page.exists() and not is_page(page, PAGE_KIND):
        raise InputError(f"{page} is not a page that this command wrote; rename it.")


def write_dataset(folder: Path, scans: Path, table: Path | None, products: Products) -> list[str]:
    """Writes what all people share, unless it is there, and returns notes. Several processes may do so."""
    folder.mkdir(parents=True, exist_ok=True)
    with files.locked(folder, wait=True):
        for leftover in folder.glob(".unfinished.*"):  # of killed processes
            files.remove(leftover)
        if not (folder / DESCRIPTION).exists():
            files.write_json(folder / DESCRIPTION, description(folder, scans))
        if products.parcels:
            target = copy_image(folder, products.parcels, "dseg")
            if (names := beside(products.parcels.path, ".tsv")).is_file():
                copy(names, target.with_name(f"{target.name}.tsv"))
        if products.networks:
            target = copy_image(folder, products.networks, "probseg")
            if not (names := target.with_name(f"{target.name}.txt")).exists():
                with files.replacing(names) as file:
                    file.write("\n".join([*products.networks.names, ""]))
        if table is None:
            return ["No table of people is carried over; name one with --table, also for convert."]
        return copy_table(folder, table)


def description(folder: Path, scans: Path) -> dict[str, Any]:
    return {
        "Name": "Maps and series of preprocessed BOLD",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": PROGRAM, "Version": __version__}],
        "DatasetLinks": {"bold": os.path.relpath(scans.resolve(), folder.resolve())},
    }


def copy_table(folder: Path, table: Path) -> list[str]:
    target = folder / table.name
    if target.exists() and target.read_bytes() != table.read_bytes():
        return [f"{target} differs from {table} and stays as it is."]
    copy(table, target)
    return [f"Table {table}, carried over."]


def copy_image(folder: Path, image: ImageFile, kind: str) -> Path:
    """Copies an image as XCP-D lays atlases out; returns its path without an ending. Raises InputError as `copy`."""
    target = folder / "atlases" / f"atlas-{image.name}" / f"atlas-{image.name}_{kind}"
    copy(image.path, target.with_name(target.name + image.path.name[len(stem_of(image.path)) :]))
    return target


def copy(source: Path, target: Path) -> None:
    """Copies a file. Raises InputError if another one has its place."""
    if target.exists():
        if target.read_bytes() != source.read_bytes():
            raise InputError(f"{target} differs from {source}; choose another folder, or rename {source.name}.")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.unfinished(target) as unfinished:
        shutil.copyfile(source, unfinished)


def write_series(path: Path, series: np.ndarray, names: Iterable[str]) -> None:
    """A table (volumes, parcels) with a header of names, `n/a` for NaN, as XCP-D has it."""
    rows = ("\t".join("n/a" if np.isnan(value) else f"{value:.8g}" for value in row) for row in series.tolist())
    with files.replacing(path, newline="") as file:
        file.write("\n".join(["\t".join(names), *rows, ""]))
