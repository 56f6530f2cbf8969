"""An image of labels -> where the parcels of a connectome lie on the full grid."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError, whole_number
from data.cohorts.atlas import label_image
from data.cohorts.nifti import beside
from data.cohorts.rows import listed
from data.conversion.layouts import Listing
from data.conversion.tables import read_table

ATLASES, INDEX = "atlases", "index"  # a folder of BIDS derivatives; the column of numbers in a table of labels


def image_of(listing: Listing, name: str | None, given: Path | None) -> tuple[Path | None, list[str]]:
    """The image of the parcels of a kind of series, if there are any: the one that is `given`, or that of the atlas of
    `seg-<atlas>` in the folder `atlases`, as XCP-D leaves it; None, and a note, without one. Raises InputError if there
    are several."""
    if name is None:
        return None, []
    label = re.escape(name.removeprefix("seg-"))
    pattern = re.compile(rf"(?i:(?:.*_)?(?:atlas|seg)-{label}_(?:.*_)?dseg\.nii(?:\.gz)?)")
    there = [path for path in listing.files if ATLASES in path.parts and pattern.fullmatch(path.name)]
    found = [given] if given else there if name.startswith("seg-") else []
    if len(found) > 1:
        named = listed(list(map(str, found)))
        raise InputError(f"{listing.folder} has several images of {name} ({named}); name one with --parcels.")
    if found:
        return found[0], []
    return None, ["Where the parcels lie is not known, so a blackout leaves the edges as they are; --parcels names it."]


def parcel_image(path: Path, parcels: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The image of a connectome's parcels (91, 109, 91) int16, 1 + the position of each voxel's parcel, and notes; from
    an image of labels on any grid, by nearest neighbour. Raises InputError if a parcel is not in it."""
    labels, known = label_image(path)
    numbers = numbers_of(path, parcels)
    if absent := [name for name, number in zip(parcels, numbers, strict=True) if number not in known]:
        raise InputError(
            f"{path} has no label for {len(absent)} of {len(parcels)} parcels of the series, {listed(absent)}; "
            "expected the image that the series were made with, and a table index,name beside it if parcels have names."
        )
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{path}: the table beside it gives two parcels one number; expected one each. Correct it.")
    position = np.zeros(max(known) + 1, np.int16)
    for at, number in enumerate(numbers, 1):
        position[number] = at
    image = position[labels]
    lost = sorted(set(range(1, len(parcels) + 1)) - set(np.unique(image).tolist()))
    notes = [f"Parcels without a voxel on the 2 mm grid: {listed([parcels[at - 1] for at in lost])}."] if lost else []
    return image, [f"Parcels: {path}, {len(parcels)} of its {len(known)} labels.", *notes]


def numbers_of(path: Path, parcels: Sequence[str]) -> list[int | None]:
    """The label of each parcel in an image: by the table beside it, else its name if that is a number."""
    named = labels_beside(path)
    return [named.get(name, whole_number(name)) for name in parcels]


def labels_beside(path: Path) -> dict[str, int]:
    """The numbers of labels by their names, in the `.tsv` beside an image or the only `*dseg.tsv` of its folder; empty
    without one. Raises InputError if it has no column of numbers."""
    own = beside(path, ".tsv")
    others = list(path.parent.glob("*dseg.tsv"))
    found = own if own.is_file() else others[0] if len(others) == 1 else None
    if found is None:
        return {}
    table = read_table(found)
    numbers = table[INDEX].map(whole_number) if INDEX in table else pd.Series([None])
    if numbers.isna().any():
        raise InputError(f"{found} has no column {INDEX} of whole numbers; expected {INDEX},name of each label.")
    cells = (zip(table[name], numbers, strict=True) for name in table.columns.drop(INDEX)[::-1])
    return {text: int(number) for one in cells for text, number in one if text}
