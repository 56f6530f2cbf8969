"""Files of maps -> the maps in them, by name: a 4-D file holds several, such as the networks of a dual regression."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.base.text import shown
from data.cohorts.nifti import SUFFIXES, MapOnDisk, num_volumes, open_image
from data.conversion.layouts import maps_called

LABELS = "LabelMap"  # BIDS' key for the names of a 4-D file's volumes


@dataclass(frozen=True)
class Wanted:
    """What --maps names: files, by their name, and one volume of each; None for all that they hold."""

    files: str
    volume: str | None = None


def wanted(folder: Path, name: str) -> Wanted:
    """What a map's name stands for: files of that name; if there are none, a volume of those whose name it begins with,
    so `dual_regression_3` is volume 3 of `dual_regression`."""
    words = name.split("_")
    for count in range(len(words), 0, -1):
        if maps_called(folder, of_files := "_".join(words[:count])):
            return Wanted(of_files, "_".join(words[count:]) or None)
    return Wanted(name)  # which is reported as missing


def expanded(paths: pd.DataFrame, every: Sequence[Wanted], folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """The `paths` of files, a column a name, as a MapOnDisk in a column for each map, in the order of `every`; notes on
    4-D files. Raises InputError if people differ in the number or the names of volumes, or a volume is missing."""
    maps, notes, volumes = dict[str, pd.Series](), list[str](), dict[str, list[str]]()
    for name, of_files in paths.items():
        volumes[name], told = volume_names(of_files.tolist(), name, folder)
        notes += told
    for one in every:
        names = volumes[one.files]
        if one.volume is not None and one.volume not in names:
            has = f"holds {', '.join(names)}; name one of these" if names else "is 3-D; name its maps with --maps"
            file = paths[one.files].iloc[0]
            raise InputError(f"{folder} holds no {one.files}_{one.volume} maps, and {file} {has}.")
        for number, volume in enumerate(names):
            if one.volume in (None, volume):
                maps[f"{one.files}_{volume}"] = paths[one.files].map(lambda path, at=number: MapOnDisk(path, at))
        if not names:
            maps[one.files] = paths[one.files].map(MapOnDisk)
    return pd.DataFrame(maps), notes


def volume_names(paths: Sequence[Path], name: str, folder: Path) -> tuple[list[str], list[str]]:
    """What the volumes of 4-D files are called, `0`, `1`, ... if nobody says, and a note; nothing if the first file is
    3-D, as all others must then be. Raises InputError, naming the file that differs from the others."""
    if not paths or num_volumes(open_image(paths[0])) is None:
        return [], []
    counts = {path: num_volumes(open_image(path)) or 1 for path in paths}
    usual, people = Counter(counts.values()).most_common(1)[0]
    if different := [path for path, count in counts.items() if count != usual]:
        raise InputError(
            f"{different[0]} holds {counts[different[0]]} volumes, the {name} of {people} other people {usual}; "
            "expected as many for everybody. Compute it again, or leave this person out with --exclude."
        )
    source, labels = labels_of(paths, folder / f"{name}.txt")
    odd = [label for label in labels if not re.fullmatch(r"[\w.-]+", label) or labels.count(label) > 1]
    if labels and (odd or len(labels) != usual):
        raise InputError(
            f"{source} names {len(labels)} volumes{f', {shown(odd[0])} among them' if odd else ''}; expected {usual} "
            "different names, of letters, digits, '.', '_' and '-'. Correct it."
        )
    named = f", named by {source}" if labels else ""
    labels = labels or [str(number) for number in range(usual)]
    told = ", ".join(f"{name}_{label}" for label in labels)
    return labels, [f"{name}: {usual} volumes a person{named}: {told}."]


def labels_of(paths: Sequence[Path], listing: Path) -> tuple[Path, list[str]]:
    """The names of volumes, and the file that they are from: a `listing`, one a line, or else the JSON beside each of
    `paths`. Raises InputError if these differ."""
    if listing.is_file():
        lines = files.regular(listing).read_text(encoding="utf-8-sig", errors="replace").splitlines()
        return listing, [line.strip() for line in lines if line.strip()]
    beside = {path: labels_beside(path) for path in paths}
    labels = beside[paths[0]]
    if different := [path for path, others in beside.items() if others != labels]:
        raise InputError(
            f"The JSON files beside {different[0]} and {paths[0]} name their volumes differently; expected the same "
            f"{LABELS}. Correct them, or name the volumes of all in {listing}, one a line."
        )
    return json_beside(paths[0]), labels


def json_beside(path: Path) -> Path:
    """Where BIDS describes an image."""
    return path.with_name(next(path.name[: -len(end)] for end in SUFFIXES if path.name.lower().endswith(end)) + ".json")


def labels_beside(path: Path) -> list[str]:
    """The names of volumes in the JSON beside a file; none without it. Raises InputError if it is damaged."""
    beside = json_beside(path)
    if not beside.is_file():
        return []
    labels = files.read_json(beside, dict).get(LABELS, [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{beside}: {LABELS} is {shown(str(labels))}; expected a list of names, one a volume.")
    return labels
