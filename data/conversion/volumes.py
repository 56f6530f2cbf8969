"""Files of maps -> the maps in them, by name: a 4-D file holds several, such as the networks of a dual regression. The
maps of one person, read once -> their measures, and a record without its header, which is planned later."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import files, manifest
from data.base.errors import InputError, quote_text
from data.base.terminal import SummaryRow
from data.cohorts import near_duplicates, nifti, records, resampling
from data.cohorts.nifti import MapOnDisk, count_volumes, make_sidecar_path, open_nifti
from data.cohorts.records import MAX_MAPS
from data.cohorts.rows import join_names
from data.conversion import measures
from data.conversion.discovery import MAPS, Listing


@dataclass(frozen=True)
class Described:
    """What is read of the JSON beside a 4-D file: the names of its volumes."""

    LabelMap: list[str] | None = None


def files_of(listing: Listing, name: str) -> str:
    """How files are called that hold the map of a name: as it is, or as it begins. So `dual_regression_3` is in those
    called `dual_regression`."""
    words = name.split("_")
    beginnings = ("_".join(words[:count]) for count in range(len(words), 0, -1))
    return next((of for of in beginnings if listing.found(MAPS, of)), name)  # without any, it is reported as missing


def maps_in(paths: pd.DataFrame, wanted: Sequence[str], folder: Path) -> tuple[pd.DataFrame, list[SummaryRow]]:
    """The `paths` of files, a column for each of their names, as a MapOnDisk in a column for each map that is `wanted`;
    facts on 4-D files, which give as many maps as they have volumes. Raises InputError if people differ in the number
    or the names of volumes, or a map is missing."""
    maps, of_files, facts = dict[str, pd.Series](), dict[str, list[str]](), list[SummaryRow]()
    for name, files_of_people in paths.items():
        labels = volume_names(files_of_people.tolist(), str(name), folder)
        of_files[str(name)] = [f"{name}_{label}" for label in labels] or [str(name)]
        if labels:
            facts.append(("layout", f"{name}: {len(labels)} volumes a participant: {', '.join(of_files[str(name)])}"))
        for number, one in enumerate(of_files[str(name)]):
            maps[one] = files_of_people.map(lambda path, at=number if labels else None: MapOnDisk(path, at))
    names = [one for name in wanted for one in of_files.get(name, [name])]
    if absent := [name for name in names if name not in maps]:
        raise InputError(f"{folder} holds no {absent[0]} maps; it holds {', '.join(maps)}. Name these with --maps.")
    check_map_names(names)
    return pd.DataFrame({name: maps[name] for name in names}), facts


def check_map_names(names: Sequence[str]) -> None:
    """Raises InputError unless the names of maps differ, can be parts of file names, and are not too many."""
    if not is_each_once(names) or len(names) > MAX_MAPS:
        raise InputError(
            f"The maps are called {join_names(list(map(quote_text, names)))}; expected each once, of letters, digits, "
            f"'.', '_' and '-', at most {MAX_MAPS}. Name them with --maps."
        )


def is_each_once(names: Sequence[str]) -> bool:
    """Whether names differ, and can be parts of file names."""
    return len({*names}) == len(names) and all(re.fullmatch(r"\w[\w.-]*", name) for name in names)


def volume_names(paths: Sequence[Path], name: str, folder: Path) -> list[str]:
    """What the volumes of 4-D files are called, see `labels_of`; nothing if the first file is 3-D, as all others must
    then be. Raises InputError, naming the file that differs from the others."""
    if count_volumes(open_nifti(paths[0])) is None:
        return []
    counts = {path: count_volumes(open_nifti(path)) or 1 for path in paths}
    usual, people = Counter(counts.values()).most_common(1)[0]
    if different := [path for path, count in counts.items() if count != usual]:
        raise InputError(
            f"{different[0]} holds {counts[different[0]]} volumes, the {name} of {people} other participants {usual}; "
            "expected as many for everybody. Compute it again, or leave this person out with --exclude."
        )
    return labels_of(paths, folder / f"{name}.txt", usual)


def labels_of(paths: Sequence[Path], listing: Path, count: int) -> list[str]:
    """The names of `count` volumes, those in a `listing`, one a line, or else in the JSON beside each of `paths`; `0`,
    `1`, ... if nobody names them. Raises InputError if the JSON files differ, or there is not a name for each."""
    source = make_sidecar_path(paths[0], ".json")
    if listing.is_file():
        source, lines = listing, listing.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        labels = [line.strip() for line in lines if line.strip()]
    else:
        named = {path: labels_beside(path) for path in paths}
        labels = named[paths[0]] or [str(number) for number in range(count)]
        if different := [path for path, others in named.items() if others != named[paths[0]]]:
            raise InputError(
                f"The JSON files beside {different[0]} and {paths[0]} name their volumes differently; expected the "
                f"same LabelMap. Correct them, or name the volumes of all in {listing}, one a line."
            )
    if len(labels) != count or not is_each_once(labels):
        raise InputError(
            f"{source} names {len(labels)} volumes, {join_names(list(map(quote_text, labels)))}; expected {count} "
            "different names, of letters, digits, '.', '_' and '-'. Correct it."
        )
    return labels


def labels_beside(path: Path) -> list[str] | None:
    """The names of volumes in the JSON beside a file; None without it. Raises InputError if it is damaged."""
    described = make_sidecar_path(path, ".json")
    return files.read_json(described, Described).LabelMap if described.is_file() else None


@dataclass(frozen=True)
class PersonMaps:
    """What is known of a person's maps before any record is planned."""

    sums: list[tuple[str, str]]  # the name and the SHA-256 of each file
    measured: list[dict[str, float]]  # MEASURES of each map
    means: np.ndarray  # (regions, maps), of the volumes in the record
    volume: str  # the digest of the volumes of all maps
    maps: tuple[str, ...]  # that of each which is not constant
    connectome: str = ""  # that of the connectome, if there is one

    @property
    def of_record(self) -> records.Digests:
        """The digests of the record."""
        maps = self.maps if len(self.measured) > 1 else ()
        return records.Digests(self.volume, connectome=self.connectome, maps=maps)


def read_person(maps: Sequence[MapOnDisk], grid: records.Grid, record: Path) -> PersonMaps:
    """Measures maps and writes the volume of each, (x, y, z) float32, z-scored by itself, as a record whose header is
    0. Raises InputError, naming the file."""
    sums = [(path.name, manifest.compute_sum(path)) for path in dict.fromkeys(of_map.path for of_map in maps)]
    measured, means, digests, of_all = [], [], list[str](), hashlib.sha256()
    with open(record, "wb") as file:
        file.write(bytes(records.HEADER_BYTES))
        for image in nifti.read_brain_maps(maps):
            volume = np.ascontiguousarray(nifti.make_record_volume(image, grid), records.RECORD_DTYPE)
            file.write(volume.data)
            of_all.update(volume.data)
            digests += records.compute_map_digests(volume[None])
            measured.append(measures.of_image(image))
            means.append(near_duplicates.average_reduced_regions(resampling.reduce_volume(volume)))
    return PersonMaps(sums, measured, np.column_stack(means), of_all.hexdigest(), tuple(digests))
