"""Label images and maps of networks in MNI space -> the same on a scan's grid, by affine."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel
import numpy as np

from data.base.errors import InputError
from data.base.manifest import compute_checksum
from data.cohorts.derivation import DerivationImage
from data.conversion.volumes import read_volume_labels
from data.images.atlas import MAX_REGIONS
from data.images.nifti import convert_nifti_errors, count_volumes, make_sidecar_path, open_nifti, strip_nifti_suffix
from data.tables.people import read_text_table

MAX_CACHED_RESAMPLED_IMAGES = 4  # of one template; scans of several grids are rare


@dataclass(frozen=True)
class ImageFile:
    """A label image of parcels, or a 4-D file with a map of each network."""

    image_path: Path  # of the file that is read, which may be a copy
    image_identity: DerivationImage  # its name, whatever a copy is called, and its sum
    component_names: tuple[str, ...]  # of parcels or networks
    parcel_numbers: tuple[int, ...] = ()  # of parcels

    @property
    def atlas_label(self) -> str:
        """The letters and digits of its name, by which BIDS calls an atlas."""
        return re.sub("[^A-Za-z0-9]", "", strip_nifti_suffix(Path(self.image_identity.file)))


def open_parcels(image_path: Path, original_file_name: str = "") -> ImageFile:
    """A label image; `original_file_name` is what it was called, if this is a copy. Raises InputError, naming it,
    unless it holds whole numbers from 1 and its names fit."""
    label_image = open_nifti(image_path)
    with convert_nifti_errors(image_path):
        parcel_label_volume = np.asarray(label_image.dataobj, np.float64)
    label_values = np.unique(parcel_label_volume[parcel_label_volume != 0])
    if (
        count_volumes(label_image)
        or not label_values.size
        or (label_values != np.rint(label_values)).any()
        or label_values[0] < 1
    ):
        raise InputError(
            f"{image_path} is no label image; expected one 3-D image of whole numbers, 0 outside all parcels."
        )
    if label_values.size > MAX_REGIONS:
        raise InputError(
            f"{image_path} has {label_values.size:,} parcels; expected at most {MAX_REGIONS:,}. Is it a label image?"
        )
    parcel_numbers = tuple(label_values.astype(int).tolist())
    image_identity = DerivationImage(file=original_file_name or image_path.name, sha256=compute_checksum(image_path))
    return ImageFile(image_path, image_identity, read_parcel_names(image_path, parcel_numbers), parcel_numbers)


def read_parcel_names(image_path: Path, parcel_numbers: tuple[int, ...]) -> tuple[str, ...]:
    """Names of parcels by the table beside an image, with BIDS' columns index and name; without it their numbers."""
    name_table_path = make_sidecar_path(image_path, ".tsv")
    if not name_table_path.is_file():
        return tuple(map(str, parcel_numbers))
    name_table = read_text_table(name_table_path)
    name_column = "name" if "name" in name_table else "label"
    name_by_number_text = dict[str, str]()
    if "index" in name_table and name_column in name_table:
        name_by_number_text = dict(zip(name_table["index"], name_table[name_column].str.strip(), strict=True))
    parcel_names = tuple(name_by_number_text.get(str(parcel_number), "") for parcel_number in parcel_numbers)
    if not all(parcel_names) or len(set(parcel_names)) < len(parcel_names):
        unnamed_parcel_numbers = [
            parcel_number
            for parcel_number, parcel_name in zip(parcel_numbers, parcel_names, strict=True)
            if not parcel_name
        ]
        naming_problem = unnamed_parcel_numbers[0] if unnamed_parcel_numbers else "one twice"
        raise InputError(
            f"{name_table_path} does not name each parcel of {image_path.name} by itself ({naming_problem}); expected "
            "the columns index and name. Correct it, or remove it to have numbers."
        )
    return parcel_names


def open_networks(image_path: Path, original_file_name: str = "") -> ImageFile:
    """4-D maps of networks, see `open_parcels`. Raises InputError, naming it, unless it is 4-D and its names fit."""
    volume_count = count_volumes(open_nifti(image_path))
    if volume_count is None:
        raise InputError(f"{image_path} is 3-D; expected the maps of several networks in a 4-D file.")
    network_names = tuple(read_volume_labels([image_path], make_sidecar_path(image_path, ".txt"), volume_count))
    return ImageFile(
        image_path,
        DerivationImage(
            file=original_file_name or image_path.name, sha256=compute_checksum(image_path), names=network_names
        ),
        network_names,
    )


@lru_cache(MAX_CACHED_RESAMPLED_IMAGES)
def resample_to_grid(
    image_path: Path, grid_shape: tuple[int, ...], grid_affine_bytes: bytes, interpolation: str
) -> np.ndarray:
    """An image on a grid of this affine (bytes of a (4, 4) float64), by "linear" or "nearest" interpolation, float32, 0
    outside. Raises InputError if nothing of it lies there."""
    from nilearn.image import resample_img

    source_image = open_nifti(image_path)
    grid_affine = np.frombuffer(grid_affine_bytes).reshape(4, 4)
    with convert_nifti_errors(image_path):
        voxel_values = np.nan_to_num(np.asarray(source_image.dataobj, np.float32))
    if source_image.shape[:3] != grid_shape or not np.allclose(source_image.affine, grid_affine, atol=1e-3):
        resampling_options = {"interpolation": interpolation, "copy_header": True, "force_resample": True}
        resampled_image = resample_img(
            nibabel.Nifti1Image(voxel_values, source_image.affine), grid_affine, grid_shape, **resampling_options
        )
        voxel_values = np.asarray(resampled_image.dataobj, np.float32)
    if not voxel_values.any():
        raise InputError(
            f"{image_path} has nothing where the scan is; expected an image in MNI space. Check its affine."
        )
    voxel_values.setflags(write=False)
    return voxel_values


def resample_labels(parcel_image: ImageFile, grid_shape: tuple[int, ...], grid_affine: np.ndarray) -> np.ndarray:
    """Label image (x, y, z) int32 on a grid, nearest neighbours."""
    affine_bytes = grid_affine.astype(float).tobytes()
    return np.rint(resample_to_grid(parcel_image.image_path, grid_shape, affine_bytes, "nearest")).astype(np.int32)


def resample_networks(network_image: ImageFile, grid_shape: tuple[int, ...], grid_affine: np.ndarray) -> np.ndarray:
    """Maps (x, y, z, networks) float32 on a grid, interpolated linearly."""
    return resample_to_grid(network_image.image_path, grid_shape, grid_affine.astype(float).tobytes(), "linear")
