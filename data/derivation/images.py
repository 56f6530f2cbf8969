"""Label images and maps of networks in MNI space -> the same on a scan's grid, by affine."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np

from data.base.errors import InputError
from data.base.manifest import compute_sum
from data.cohorts.atlas import MAX_REGIONS
from data.cohorts.derivation import DerivationImage
from data.cohorts.nifti import convert_nifti_errors, count_volumes, make_sidecar_path, open_nifti, strip_nifti_suffix
from data.conversion.tables import read_text_table
from data.conversion.volumes import read_volume_labels

GRIDS_KEPT = 4  # of one template; scans of several grids are rare


@dataclass(frozen=True)
class ImageFile:
    """A label image of parcels, or a 4-D file with a map of each network."""

    path: Path
    said: DerivationImage  # its name, whatever a copy is called, and its sum
    names: tuple[str, ...]  # of parcels or networks
    numbers: tuple[int, ...] = ()  # of parcels

    @property
    def label(self) -> str:
        """The letters and digits of its name, by which BIDS calls an atlas."""
        return re.sub("[^A-Za-z0-9]", "", strip_nifti_suffix(Path(self.said.file)))


def open_parcels(path: Path, file: str = "") -> ImageFile:
    """A label image that is called `file`, or was, if this is a copy. Raises InputError, naming it, unless it holds
    whole numbers from 1 and its names fit."""
    image = open_nifti(path)
    with convert_nifti_errors(path):
        labels = np.asarray(image.dataobj, np.float64)
    numbers = np.unique(labels[labels != 0])
    if count_volumes(image) or not numbers.size or (numbers != np.rint(numbers)).any() or numbers[0] < 1:
        raise InputError(f"{path} is no label image; expected one 3-D image of whole numbers, 0 outside all parcels.")
    if numbers.size > MAX_REGIONS:
        raise InputError(f"{path} has {numbers.size:,} parcels; expected at most {MAX_REGIONS:,}. Is it a label image?")
    whole = tuple(numbers.astype(int).tolist())
    said = DerivationImage(file=file or path.name, sha256=compute_sum(path))
    return ImageFile(path, said, names_beside(path, whole), whole)


def names_beside(path: Path, numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Names of parcels by the table beside an image, with BIDS' columns index and name; without it their numbers."""
    table = make_sidecar_path(path, ".tsv")
    if not table.is_file():
        return tuple(map(str, numbers))
    rows = read_text_table(table)
    column = "name" if "name" in rows else "label"
    known = dict(zip(rows["index"], rows[column].str.strip(), strict=True)) if {"index", column} <= {*rows} else {}
    names = tuple(known.get(str(number), "") for number in numbers)
    if not all(names) or len(set(names)) < len(names):
        missing = next((number for number, name in zip(numbers, names, strict=True) if not name), "one twice")
        raise InputError(
            f"{table} does not name each parcel of {path.name} by itself ({missing}); expected the columns index and "
            "name. Correct it, or remove it to have numbers."
        )
    return names


def open_networks(path: Path, file: str = "") -> ImageFile:
    """4-D maps, as above. Raises InputError, naming the file, unless it is 4-D and its names fit."""
    volumes = count_volumes(open_nifti(path))
    if volumes is None:
        raise InputError(f"{path} is 3-D; expected the maps of several networks in a 4-D file.")
    names = tuple(read_volume_labels([path], make_sidecar_path(path, ".txt"), volumes))
    return ImageFile(path, DerivationImage(file=file or path.name, sha256=compute_sum(path), names=names), names)


@lru_cache(GRIDS_KEPT)
def on_grid(path: Path, shape: tuple[int, ...], affine: bytes, interpolation: str) -> np.ndarray:
    """An image on a grid of this affine (bytes of a (4, 4) float64), by "linear" or "nearest" interpolation, float32, 0
    outside. Raises InputError if nothing of it lies there."""
    from nilearn.image import resample_img

    image, wanted = open_nifti(path), np.frombuffer(affine).reshape(4, 4)
    with convert_nifti_errors(path):
        values = np.nan_to_num(np.asarray(image.dataobj, np.float32))
    if image.shape[:3] != shape or not np.allclose(image.affine, wanted, atol=1e-3):
        how = {"interpolation": interpolation, "copy_header": True, "force_resample": True}
        moved = resample_img(nibabel.Nifti1Image(values, image.affine), wanted, shape, **how)
        values = np.asarray(moved.dataobj, np.float32)
    if not values.any():
        raise InputError(f"{path} has nothing where the scan is; expected an image in MNI space. Check its affine.")
    values.setflags(write=False)
    return values


def labels_on(parcels: ImageFile, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Label image (x, y, z) int32 on a grid, nearest neighbours."""
    return np.rint(on_grid(parcels.path, shape, affine.astype(float).tobytes(), "nearest")).astype(np.int32)


def networks_on(networks: ImageFile, shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Maps (x, y, z, networks) float32 on a grid, interpolated linearly."""
    return on_grid(networks.path, shape, affine.astype(float).tobytes(), "linear")
