"""Files of maps -> the maps in them, by name: a 4-D file holds several, such as the networks of a dual regression. The
maps of one person, read once -> their measures, and a record without its header, which is planned later."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError, shown
from data.base.manifest import sum_of
from data.cohorts import nifti, records, resampling, twins
from data.cohorts.nifti import MapOnDisk, beside, num_volumes, open_image
from data.cohorts.records import MAX_MAPS
from data.conversion import measures
from data.conversion.layouts import Listing

LABELS = "LabelMap"  # BIDS' key for the names of a 4-D file's volumes


@dataclass(frozen=True)
class Wanted:
    """What --maps names: files, by their name, and one volume of each; None for all that they hold."""

    files: str
    volume: str | None = None


def wanted(listing: Listing, name: str) -> Wanted:
    """What a map's name stands for: files of that name; if there are none, a volume of those whose name it begins with,
    so `dual_regression_3` is volume 3 of `dual_regression`."""
    words = name.split("_")
    for count in range(len(words), 0, -1):
        if listing.maps_called(of_files := "_".join(words[:count])):
            return Wanted(of_files, "_".join(words[count:]) if words[count:] else None)
    return Wanted(name)  # which is reported as missing


def maps_in(
    paths: pd.DataFrame, every: Sequence[Wanted], folder: Path, names: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """The `paths` of files, a column a name, as a MapOnDisk in a column for each map; notes on 4-D files. The order is
    that of `every`; the maps are called by `names`, if there are any. Raises InputError if people differ in the number
    or the names of volumes, a volume is missing, or the names do not fit."""
    if paths.empty:  # which is reported later
        return paths, []
    maps, notes, volumes = list[pd.Series](), list[str](), dict[str, list[str]]()
    for name, of_files in paths.items():
        volumes[name], told = volume_names(of_files.tolist(), name, folder)
        notes += told
    for one in every:
        of_files, labels = paths[one.files], volumes[one.files]
        if one.volume is not None and one.volume not in labels:
            has = f"holds {', '.join(labels)}; name one of these" if labels else "is 3-D; name its maps with --maps"
            raise InputError(f"{folder} holds no {one.files}_{one.volume} maps, and {of_files.iloc[0]} {has}.")
        for number, label in enumerate(labels):
            if one.volume in (None, label):
                maps.append(of_files.map(lambda path, at=number: MapOnDisk(path, at)).rename(f"{one.files}_{label}"))
        if not labels:
            maps.append(of_files.map(MapOnDisk))
    if names and len(names) != len(maps):
        raise InputError(
            f"--mapColumn names {len(every)} columns for the maps {', '.join(names)}; expected a name a column, or a "
            f"name for each of the {len(maps)} maps in them, in their order."
        )
    names = names or [str(of_map.name) for of_map in maps]
    check_map_names(names)
    return pd.DataFrame(dict(zip(names, maps, strict=True))), notes


def check_map_names(names: Sequence[str]) -> None:
    """Raises InputError unless the names of maps differ, and can be parts of file names."""
    if len(set(names)) < len(names) or (odd := [name for name in names if not re.fullmatch(r"\w[\w.-]*", name)]):
        wrong = f"{odd[0]!r}" if len(set(names)) == len(names) else "one twice"
        raise InputError(
            f"The maps are called {', '.join(names)}, {wrong} among them; expected each once, of letters, digits, '.', "
            "'_' and '-'. Name them with --maps."
        )
    if len(names) > MAX_MAPS:
        raise InputError(f"A record would have {len(names)} maps; expected at most {MAX_MAPS}. Name fewer with --maps.")


def volume_names(paths: Sequence[Path], name: str, folder: Path) -> tuple[list[str], list[str]]:
    """What the volumes of 4-D files are called, `0`, `1`, ... if nobody says, and a note; nothing if the first file is
    3-D, as all others must then be. Raises InputError, naming the file that differs from the others."""
    if num_volumes(open_image(paths[0])) is None:
        return [], []
    counts = {path: num_volumes(open_image(path)) or 1 for path in paths}
    usual, people = Counter(counts.values()).most_common(1)[0]
    if different := [path for path, count in counts.items() if count != usual]:
        raise InputError(
            f"{different[0]} holds {counts[different[0]]} volumes, the {name} of {people} other people {usual}; "
            "expected as many for everybody. Compute it again, or leave this person out with --exclude."
        )
    source, labels = labels_of(paths, folder / f"{name}.txt")
    if labels is None:
        named, labels = "", [str(number) for number in range(usual)]
    else:
        named = f", named by {source}"
        check_labels(labels, source, usual)
    told = ", ".join(f"{name}_{label}" for label in labels)
    return labels, [f"{name}: {usual} volumes a person{named}: {told}."]


def check_labels(labels: Sequence[str], source: Path, usual: int) -> None:
    """Raises InputError unless the names in `source` are one a volume, and differ."""
    odd = [label for label, times in Counter(labels).items() if times > 1 or not re.fullmatch(r"[\w.-]+", label)]
    if odd or len(labels) != usual:
        twice = " twice" if odd and labels.count(odd[0]) > 1 else ""
        raise InputError(
            f"{source} names {len(labels)} volumes{f', {shown(odd[0])}{twice} among them' if odd else ''}; expected "
            f"{usual} different names, of letters, digits, '.', '_' and '-'. Correct it."
        )


def labels_of(paths: Sequence[Path], listing: Path) -> tuple[Path, list[str] | None]:
    """The names of volumes and the file that they are from; None if nobody names them. It is a `listing`, one a line,
    or else the JSON beside each of `paths`. Raises InputError if these differ."""
    if listing.exists() or listing.is_symlink():
        lines = files.regular(listing).read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return listing, [line.strip() for line in lines if line.strip()]
    named = {path: labels_beside(path) for path in paths}
    labels = named[paths[0]]
    if different := [path for path, others in named.items() if others != labels]:
        raise InputError(
            f"The JSON files beside {different[0]} and {paths[0]} name their volumes differently; expected the same "
            f"{LABELS}. Correct them, or name the volumes of all in {listing}, one a line."
        )
    return beside(paths[0], ".json"), labels


def labels_beside(path: Path) -> list[str] | None:
    """The names of volumes in the JSON beside a file; None without it. Raises InputError if it is damaged."""
    described = beside(path, ".json")
    if not described.is_file():
        return None
    content = files.read_json(described, dict)
    if LABELS not in content:
        return None
    labels = content[LABELS]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{described}: {LABELS} is {shown(str(labels))}; expected a list of names, one a volume.")
    return labels


@dataclass(frozen=True)
class PersonMaps:
    """What is known of a person's maps before any record is planned."""

    sums: list[tuple[str, str]]  # the name and the SHA-256 of each file
    measured: list[dict[str, float]]  # MEASURES of each map
    means: np.ndarray  # (regions, maps), of the volumes in the record
    digests: tuple[str, ...]  # of the volume of each map, and of the connectome


def read_person(maps: Sequence[nifti.MapOnDisk], grid: records.Grid, record: Path) -> PersonMaps:
    """Measures maps and writes their volumes as a record whose header is 0. Raises InputError, naming the file."""
    with files.replacing(record, "wb") as file:
        file.write(bytes(records.HEADER_BYTES))
        return measured_maps(maps, grid, file.write)


def measured_maps(
    maps: Sequence[nifti.MapOnDisk], grid: records.Grid, write: Callable[[np.ndarray], object]
) -> PersonMaps:
    """Measures maps and gives the volume of each, (x, y, z) float32, z-scored by itself, to `write`."""
    sums = [(path.name, sum_of(path)) for path in dict.fromkeys(of_map.path for of_map in maps)]
    measured, means, digests = [], [], list[str]()
    for image in nifti.read_brains(maps):
        volume = np.ascontiguousarray(nifti.stored_volume(image, grid), records.DTYPE)
        write(volume)
        digests += [*records.digests_of_maps(volume[None])]
        measured.append(measures.of_image(image))
        means.append(twins.of_reduced(resampling.reduced(volume)))
    return PersonMaps(sums, measured, np.column_stack(means), tuple(digests))


def finish_record(record: Path, label: float, phenotype: np.ndarray, target: Path) -> None:
    """Moves a record of `read_person` to `target` with its label and scaled phenotype (29,), unless one is there."""
    if target.exists() and target.stat().st_size == record.stat().st_size:
        return
    with open(record, "r+b") as file:
        file.write(records.pack_header(label, phenotype))
    os.replace(record, target)
