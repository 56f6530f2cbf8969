"""Files of maps -> the maps in them, by name: a 4-D file holds several, such as the networks of a dual regression. The
maps of one person, read once -> their measures, and a record without its header, which is planned later."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import files, manifest
from data.base.errors import InputError, quote_text
from data.base.listing import join_names
from data.base.terminal import SummaryRow
from data.cohorts import near_duplicates, records
from data.conversion import measures
from data.conversion.discovery import MAP_PRODUCT, FolderListing
from data.images import grids, nifti, resampling
from data.images.grids import MAX_MAPS
from data.images.nifti import MapOnDisk, count_volumes, make_sidecar_path, open_nifti


@dataclass(frozen=True)
class VolumeDescription:
    """What is read of the JSON beside a 4-D file: the names of its volumes."""

    LabelMap: list[str] | None = None  # names of volumes; the key of the JSON


def find_file_map_name(listing: FolderListing, map_name: str) -> str:
    """The name of the files that hold the map of this name: the name itself, or how it begins. So `dual_regression_3`
    is in those called `dual_regression`."""
    name_words = map_name.split("_")
    beginnings = ("_".join(name_words[:word_count]) for word_count in range(len(name_words), 0, -1))
    return next(
        (beginning for beginning in beginnings if listing.find_product_files(MAP_PRODUCT, beginning)), map_name
    )  # without any, it is reported as missing


def find_map_files(
    map_paths: pd.DataFrame, map_names: Sequence[str], folder: Path
) -> tuple[pd.DataFrame, list[SummaryRow]]:
    """The files of `map_paths`, a column for each of their names, as MapOnDisk in a column for each map of `map_names`;
    facts on 4-D files, which give as many maps as they have volumes. Raises InputError if people differ in the number
    or the names of volumes, or a map is missing."""
    subject_files_by_map = dict[str, pd.Series]()
    map_names_by_file_name = dict[str, list[str]]()
    summary_rows = list[SummaryRow]()
    for file_name, subject_paths in map_paths.items():
        volume_labels = read_volume_names(subject_paths.tolist(), str(file_name), folder)
        if not volume_labels:  # 3-D
            map_names_by_file_name[str(file_name)] = [str(file_name)]
            subject_files_by_map[str(file_name)] = subject_paths.map(MapOnDisk)
            continue
        volume_map_names = [f"{file_name}_{volume_label}" for volume_label in volume_labels]
        map_names_by_file_name[str(file_name)] = volume_map_names
        volumes_text = f"{len(volume_labels)} volumes a participant: {', '.join(volume_map_names)}"
        summary_rows.append(("layout", f"{file_name}: {volumes_text}"))
        for volume_index, volume_map_name in enumerate(volume_map_names):
            subject_files_by_map[volume_map_name] = subject_paths.map(partial(MapOnDisk, volume_number=volume_index))

    record_map_names = list[str]()
    for map_name in map_names:  # that of a file means all maps in it
        record_map_names += map_names_by_file_name.get(map_name, [map_name])
    absent_map_names = [map_name for map_name in record_map_names if map_name not in subject_files_by_map]
    if absent_map_names:
        raise InputError(
            f"{folder} holds no {absent_map_names[0]} maps; it holds {', '.join(subject_files_by_map)}. Name these "
            "with --maps."
        )
    check_map_names(record_map_names)
    map_files = pd.DataFrame(
        {map_name: subject_files_by_map[map_name] for map_name in record_map_names}, index=map_paths.index
    )
    return map_files, summary_rows


def check_map_names(map_names: Sequence[str]) -> None:
    """Raises InputError unless the names of maps differ, can be parts of file names, and are not too many."""
    if not are_valid_distinct_names(map_names) or len(map_names) > MAX_MAPS:
        raise InputError(
            f"The maps are called {join_names(list(map(quote_text, map_names)))}; expected each once, of letters, "
            f"digits, '.', '_' and '-', at most {MAX_MAPS}. Name them with --maps."
        )


def are_valid_distinct_names(map_or_volume_names: Sequence[str]) -> bool:
    """Whether names differ, and can be parts of file names."""
    return len({*map_or_volume_names}) == len(map_or_volume_names) and all(
        re.fullmatch(r"\w[\w.-]*", name) for name in map_or_volume_names
    )


def read_volume_names(file_paths: Sequence[Path], map_name: str, folder: Path) -> list[str]:
    """What the volumes of 4-D files are called, see `read_volume_labels`; nothing if the first file is 3-D, as all
    others must then be. Raises InputError, naming the file that differs from the others."""
    if count_volumes(open_nifti(file_paths[0])) is None:
        return []
    volume_count_by_path = {path: count_volumes(open_nifti(path)) or 1 for path in file_paths}
    usual_volume_count, person_count = Counter(volume_count_by_path.values()).most_common(1)[0]
    if different_paths := [
        path for path, volume_count in volume_count_by_path.items() if volume_count != usual_volume_count
    ]:
        raise InputError(
            f"{different_paths[0]} holds {volume_count_by_path[different_paths[0]]} volumes, the {map_name} of "
            f"{person_count} other participants {usual_volume_count}; expected as many for everybody. Compute it "
            "again, or leave this person out with --exclude."
        )
    return read_volume_labels(file_paths, folder / f"{map_name}.txt", usual_volume_count)


def read_volume_labels(file_paths: Sequence[Path], label_list_path: Path, volume_count: int) -> list[str]:
    """The names of `volume_count` volumes, those in a `label_list_path`, one a line, or else in the JSON beside each of
    `file_paths`; `0`, `1`, ... if nobody names them. Raises InputError if the JSON files differ, or there is not a
    name for each."""
    label_source_path = make_sidecar_path(file_paths[0], ".json")
    if label_list_path.is_file():
        label_source_path = label_list_path
        list_lines = label_list_path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        volume_labels = [line.strip() for line in list_lines if line.strip()]
    else:
        labels_by_path = {path: read_label_map(path) for path in file_paths}
        volume_labels = labels_by_path[file_paths[0]] or [str(volume_index) for volume_index in range(volume_count)]
        if different_paths := [
            path for path, path_labels in labels_by_path.items() if path_labels != labels_by_path[file_paths[0]]
        ]:
            raise InputError(
                f"The JSON files beside {different_paths[0]} and {file_paths[0]} name their volumes differently; "
                f"expected the same LabelMap. Correct them, or name the volumes of all in {label_list_path}, one a "
                "line."
            )
    if len(volume_labels) != volume_count or not are_valid_distinct_names(volume_labels):
        raise InputError(
            f"{label_source_path} names {len(volume_labels)} volumes, "
            f"{join_names(list(map(quote_text, volume_labels)))}; expected {volume_count} different names, of letters, "
            "digits, '.', '_' and '-'. Correct it."
        )
    return volume_labels


def read_label_map(file_path: Path) -> list[str] | None:
    """The names of volumes in the JSON beside a file; None without it. Raises InputError if it is damaged."""
    json_path = make_sidecar_path(file_path, ".json")
    return files.read_json(json_path, VolumeDescription).LabelMap if json_path.is_file() else None


@dataclass(frozen=True)
class PersonMaps:
    """What is known of a person's maps before any record is planned."""

    file_sums: list[tuple[str, str]] = field(default_factory=list)  # the name and the SHA-256 of each file
    measures_per_map: list[dict[str, float]] = field(default_factory=list)  # MAP_MEASURES of each map
    region_means: np.ndarray | None = None  # (regions, maps), of the volumes in the record; None without maps
    volume_digest: str = ""  # the digest of the volumes of all maps
    map_digests: tuple[str, ...] = ()  # that of each which is not constant
    connectome_digest: str = ""  # that of the connectome, if there is one

    @property
    def record_digests(self) -> records.Digests:
        """The digests of the record."""
        map_digests = self.map_digests if len(self.measures_per_map) > 1 else ()
        return records.Digests(self.volume_digest, connectome=self.connectome_digest, maps=map_digests)


def read_person_maps(map_files: Sequence[MapOnDisk], grid: grids.Grid, record_path: Path) -> PersonMaps:
    """Measures maps and writes the volume of each, (x, y, z) float32, z-scored by itself, as a record whose header is
    0. Raises InputError, naming the file."""
    map_paths = dict.fromkeys(map_file.path for map_file in map_files)  # a 4-D file once
    file_name_sha256_pairs = [(map_path.name, manifest.compute_checksum(map_path)) for map_path in map_paths]
    measures_per_map = []
    region_means_per_map = []
    map_digests = list[str]()
    volumes_hash = hashlib.sha256()
    with open(record_path, "wb") as record_file:
        record_file.write(bytes(records.HEADER_BYTES))
        for map_image in nifti.read_brain_maps(map_files):
            volume = np.ascontiguousarray(nifti.make_z_scored_volume(map_image, grid), records.RECORD_DTYPE)
            record_file.write(volume.data)
            volumes_hash.update(volume.data)
            map_digests += records.compute_map_digests(volume[None])
            measures_per_map.append(measures.measure_image(map_image))
            region_means_per_map.append(near_duplicates.average_reduced_regions(resampling.reduce_volume(volume)))
    return PersonMaps(
        file_name_sha256_pairs,
        measures_per_map,
        np.column_stack(region_means_per_map),
        volumes_hash.hexdigest(),
        tuple(map_digests),
    )
