"""One person's scans -> their maps and series on disk."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from threadpoolctl import threadpool_limits

from data import __version__
from data.base import files
from data.base.errors import InputError
from data.cohorts.derivation import (
    DERIVATION_KEY,
    DERIVE_PROGRAM,
    DUAL_REGRESSION_MEASURE,
    NETWORKS_IMAGE,
    PARCELS_IMAGE,
    SERIES_PRODUCT,
)
from data.derivation.advice import load_confounds_and_direction_count, suggest_option
from data.derivation.bold import Bold, Confounds, compute_brain_mask, open_bold, read_scan_mask, read_voxel_series
from data.derivation.cleaning import Acquisition, CleanedScan, UnsuitedOptionsError, clean_scan
from data.derivation.images import ImageFile, resample_labels, resample_networks
from data.derivation.measures import MEASURE_FUNCTIONS, average_parcel_series, compute_dual_regression, smooth_map
from data.derivation.output import (
    SOURCES_KEY,
    DerivationOutput,
    describe_source_files,
    find_derived_files,
    make_bids_links,
    make_json_path,
    make_picture_path,
    write_parcel_series,
)
from data.derivation.remarks import Remark
from data.derivation.scans import ScanFile, ScannedPerson
from data.images.nifti import MNI152_CODE, save_nifti
from data.images.pictures import draw_slices, encode_webp

MAX_BAND_FRACTION = 0.9  # of the amplitudes in the band, in the median voxel; a scan with more was filtered before
# Of 60 people of ABIDE who were scanned for ten minutes, connectomes of the first seconds agree with those of the last
# five minutes by r 0.35 with 10 degrees of freedom, 0.44 with 20, 0.58 with 54 (five minutes without confounds), and no
# better in longer scans of as many because of confounds. Each of its 784 scans has at least 36 before confounds.
MIN_RELIABLE_DIRECTIONS = 20
PICTURE_SPACING_MM = 3.0  # between points of a small picture
# of the parcels; more are missing in 3 of 784 scans of ABIDE, whose atlas is in their space
MAX_MISSING_PARCEL_FRACTION = 0.1
MAX_SPECTRUM_FRACTION = 0.75  # of the spectrum; of a wider band, MAX_BAND_FRACTION says nothing


@dataclass(frozen=True)
class PersonTask:
    """A person to do, in a process of its own."""

    person: ScannedPerson
    output: DerivationOutput
    thread_count: int  # of this process


@dataclass(frozen=True)
class PersonResult:
    """What became of a person: what is worth a remark; why it failed, if it did."""

    label: str  # of the person, without sub-
    remarks: tuple[Remark, ...] = ()  # on all scans of the person
    failure_text: str = ""


@dataclass(frozen=True, eq=False)
class OpenedScan:
    """A scan whose header, tables and mask are in order; no voxel of it is read yet."""

    bold: Bold
    confounds: Confounds
    mask: np.ndarray | None  # (x, y, z) bool; None if none lies beside the scan
    remarks: list[Remark]  # on its header and confounds
    parcel_remarks: list[Remark]  # by this mask, before voxels without a signal are left out of it


@dataclass(frozen=True, eq=False)
class DerivedScan:
    """What is derived of one scan."""

    array_by_product: dict[str, np.ndarray]  # maps (x, y, z) or (x, y, z, networks) float32, 0 outside the mask; series
    mask: np.ndarray  # (x, y, z) bool
    affine: np.ndarray  # (4, 4), voxel -> mm in MNI space
    tr_s: float  # repetition time
    confounds: Confounds
    remarks: list[Remark]  # on this scan, of all steps

    @property
    def retained_volume_count(self) -> int:
        """The number of volumes kept, by which its maps count in a mean."""
        return int(self.confounds.is_retained.sum())


def derive_person(task: PersonTask) -> PersonResult:
    """Writes what is missing of a person, while no other process does."""
    label = task.person.label
    try:
        with threadpool_limits(task.thread_count), files.lock_exclusively(task.output.person_folder(label), wait=True):
            remarks = write_missing_products(task)
            return PersonResult(label, tuple(remarks))
    except InputError as error:
        return PersonResult(label, failure_text=str(error))
    except MemoryError:
        return PersonResult(label, failure_text="The memory is full; take fewer --jobs, or a machine with more.")
    except OSError as error:
        if error.errno in files.DISK_FULL_ERRNOS:
            raise  # which would befall the others, too
        return PersonResult(label, failure_text=f"{error.filename or 'input or output'}: {error.strerror or error}.")


def write_missing_products(task: PersonTask) -> list[Remark]:
    """Writes what is missing of a person; returns remarks. Raises InputError as
    `DerivationOutput.find_missing_products` does, and for a scan."""
    person = task.person
    output = task.output
    for leftover_path in output.person_folder(person.label).glob("*/.unfinished.*"):  # of killed processes
        files.remove_file_or_folder(leftover_path)
    derived_files = find_derived_files(output.output_folder, person.label)
    missing_product_names = output.find_missing_products(person, derived_files)
    if not missing_product_names:  # another process has done the person meanwhile
        return []

    sources_content = {
        "Sources": make_bids_links(person, output.output_folder),
        SOURCES_KEY: describe_source_files(person),
    }
    derived_scans = [derive_scan(scan_file, output, missing_product_names) for scan_file in person.scan_files]
    check_same_grid(person, derived_scans)

    for product_name in missing_product_names:
        product_path = output.product_path(person.label, product_name)
        product_path.parent.mkdir(parents=True, exist_ok=True)
        write_product(product_path, product_name, derived_scans, output)

        derivation = output.derivation.restrict_to_product(product_name)
        json_content: dict[str, Any] = {"Measure": product_name, DERIVATION_KEY: asdict(derivation)}
        if derivation.networks:
            json_content["LabelMap"] = derivation.networks.names
        json_content |= sources_content
        json_content |= describe_scans(derived_scans)
        files.write_json(make_json_path(product_path), json_content)
    return [remark for derived_scan in derived_scans for remark in derived_scan.remarks]


def open_scan(scan_file: ScanFile, output: DerivationOutput) -> OpenedScan:
    """Raises InputError, naming the file, for what is wrong with a scan, as far as its header, its tables and its mask
    tell."""
    bold = open_bold(scan_file.path)
    try:
        confounds, direction_count = load_confounds_and_direction_count(output.derivation, scan_file, bold)
    except UnsuitedOptionsError as error:
        advice = suggest_option(output.derivation, scan_file, bold, error.min_directions)
        raise InputError(f"{error} {advice}") from error

    remarks = list(bold.header_remarks)
    if direction_count < MIN_RELIABLE_DIRECTIONS:
        remedy_text = "Longer scans" if confounds.regressors is None else "Longer scans or fewer confounds"
        few_directions_remark_text = (
            f"{{}} degrees of freedom in the band; with fewer than {MIN_RELIABLE_DIRECTIONS}, maps and connectomes are "
            f"unreliable. {remedy_text} leave more"
        )
        remarks.append(Remark(few_directions_remark_text, direction_count, is_warning=True))

    mask = None
    parcel_remarks = list[Remark]()
    if scan_file.mask_path:
        mask = read_scan_mask(scan_file.mask_path, bold)
        parcel_remarks = make_missing_parcel_remarks(scan_file, mask, bold.image.affine, output)
    return OpenedScan(bold, confounds, mask, remarks, parcel_remarks)


def make_missing_parcel_remarks(
    scan_file: ScanFile, mask: np.ndarray, affine: np.ndarray, output: DerivationOutput
) -> list[Remark]:
    """A warning if more than a tenth of the parcels have no voxel in a mask (x, y, z). Raises InputError, naming the
    scan, if none has: the atlas lies elsewhere."""
    if PARCELS_IMAGE not in output.image_file_by_name:
        return []
    parcel_image = output.image_file_by_name[PARCELS_IMAGE]
    parcel_count = len(parcel_image.parcel_numbers)
    try:
        parcel_label_volume = resample_labels(parcel_image, mask.shape, affine)
    except InputError as error:
        raise InputError(f"{scan_file.path}: {error}") from error
    has_parcel_voxels = np.isin(parcel_image.parcel_numbers, parcel_label_volume[mask])  # (parcels,)
    missing_parcel_count = parcel_count - int(has_parcel_voxels.sum())
    if missing_parcel_count == parcel_count:
        raise InputError(
            f"{scan_file.path}: none of the {parcel_count} parcels of {parcel_image.image_path} has a voxel in the "
            f"scan's mask; expected an atlas in the scan's space, {scan_file.space_name}. Check the affine of the "
            "atlas, or name another one."
        )
    if missing_parcel_count <= MAX_MISSING_PARCEL_FRACTION * parcel_count:
        return []
    missing_parcels_remark_text = (
        f"{{}} of {parcel_count} parcels of {parcel_image.image_path.name} have no signal (n/a); expected an atlas in "
        f"the scans' space, {scan_file.space_name}"
    )
    return [Remark(missing_parcels_remark_text, missing_parcel_count, is_warning=True)]


def derive_scan(scan_file: ScanFile, output: DerivationOutput, product_names: Sequence[str]) -> DerivedScan:
    """Measures one scan: BOLD -> the series of voxels in a mask -> these without confounds -> products. Raises
    InputError, naming it."""
    opened_scan = open_scan(scan_file, output)
    bold = opened_scan.bold
    confounds = opened_scan.confounds
    affine = bold.image.affine
    remarks = list(opened_scan.remarks)

    scan_mask = opened_scan.mask
    if scan_mask is None:
        scan_mask, mask_remarks = compute_brain_mask(bold)
        remarks += mask_remarks
    voxel_series, usable_mask, series_remarks = read_voxel_series(bold, scan_mask)
    remarks += series_remarks
    if SERIES_PRODUCT in product_names:
        remarks += make_missing_parcel_remarks(scan_file, usable_mask, affine, output)

    try:
        acquisition = Acquisition(confounds.is_retained, bold.tr_s, output.derivation.band, usable_mask, affine)
        spanned_series = insert_censored_volumes(voxel_series, confounds.is_retained)
        cleaned_scan = clean_scan(spanned_series, acquisition, confounds.regressors)
        del voxel_series, spanned_series  # to save memory: measures need them no more
        array_by_product = {
            product_name: compute_product(cleaned_scan, product_name, output) for product_name in product_names
        }
    except UnsuitedOptionsError as error:
        advice = suggest_option(output.derivation, scan_file, bold, error.min_directions)
        raise InputError(f"{scan_file.path}: {error} {advice}") from error
    except InputError as error:
        raise InputError(f"{scan_file.path}: {error}") from error
    return DerivedScan(array_by_product, usable_mask, affine, bold.tr_s, confounds, remarks)


def insert_censored_volumes(voxel_series: np.ndarray, is_retained: np.ndarray) -> np.ndarray:
    """A series (volumes, voxels) with empty rows for volumes that were taken out of the file."""
    if len(voxel_series) == len(is_retained):
        return voxel_series
    padded_series = np.zeros((len(is_retained), voxel_series.shape[1]), np.float32)
    padded_series[is_retained] = voxel_series
    return padded_series


def compute_product(cleaned_scan: CleanedScan, product_name: str, output: DerivationOutput) -> np.ndarray:
    """A map, 0 outside the mask, or the series of parcels (kept, parcels), NaN for those that the scan lacks."""
    if product_name == SERIES_PRODUCT:
        return compute_parcel_series(cleaned_scan, output.image_file_by_name[PARCELS_IMAGE])

    grid_shape = cleaned_scan.mask.shape
    if product_name == DUAL_REGRESSION_MEASURE:
        networks_image = output.image_file_by_name[NETWORKS_IMAGE]
        network_maps = resample_networks(networks_image, grid_shape, cleaned_scan.affine)
        voxel_values = compute_dual_regression(cleaned_scan, network_maps)  # (voxels, networks)
    else:
        voxel_values = MEASURE_FUNCTIONS[product_name](cleaned_scan)  # (voxels,)
    if product_name == "falff":
        check_unfiltered(voxel_values, cleaned_scan)

    product_volume = np.zeros((*grid_shape, *voxel_values.shape[1:]), np.float32)
    product_volume[cleaned_scan.mask] = voxel_values
    return product_volume


def compute_parcel_series(cleaned_scan: CleanedScan, parcel_image: ImageFile) -> np.ndarray:
    """The mean series of all parcels of an atlas, (kept, parcels) float64, NaN for those that the scan lacks."""
    parcel_label_volume = resample_labels(parcel_image, cleaned_scan.mask.shape, cleaned_scan.affine)
    is_on_grid = np.isin(parcel_image.parcel_numbers, parcel_label_volume)  # (parcels,)
    parcel_series = np.full((len(cleaned_scan.cleaned_series), len(parcel_image.parcel_numbers)), np.nan)
    parcel_series[:, is_on_grid] = average_parcel_series(cleaned_scan, parcel_label_volume)
    return parcel_series


def check_unfiltered(falff_values: np.ndarray, cleaned_scan: CleanedScan) -> None:
    """Raises InputError for a scan that was filtered before, of which fALFF says nothing."""
    low_hz, high_hz = cleaned_scan.band_hz
    median_falff = float(np.median(falff_values))
    band_spectrum_fraction = (high_hz - low_hz) * 2 * cleaned_scan.tr_s
    if median_falff > MAX_BAND_FRACTION and band_spectrum_fraction < MAX_SPECTRUM_FRACTION:
        raise InputError(
            f"{median_falff:.0%} of its amplitudes lie in {low_hz:g}-{high_hz:g} Hz: it was filtered before, so fALFF "
            "says nothing. Take the scan before the filter, or leave falff out of --maps."
        )


def check_same_grid(person: ScannedPerson, derived_scans: Sequence[DerivedScan]) -> None:
    first_derived_scan = derived_scans[0]
    for scan_file, derived_scan in zip(person.scan_files, derived_scans, strict=True):
        has_same_shape = derived_scan.mask.shape == first_derived_scan.mask.shape
        if not has_same_shape or not np.allclose(derived_scan.affine, first_derived_scan.affine, atol=1e-3):
            raise InputError(
                f"{scan_file.path} has another grid than {person.scan_files[0].path.name}; expected runs on one grid, "
                "whose maps can be averaged. Choose with --only."
            )


def describe_scans(derived_scans: Sequence[DerivedScan]) -> dict[str, Any]:
    """What a JSON says of a person's scans."""
    motions_mm = [derived_scan.confounds.motion_mm for derived_scan in derived_scans]
    volume_counts = [len(derived_scan.confounds.is_retained) for derived_scan in derived_scans]
    mean_motion_mm = None
    if None not in motions_mm:
        mean_motion_mm = round(float(np.average(np.array(motions_mm, float), weights=volume_counts)), 6)
    trs_s = [derived_scan.tr_s for derived_scan in derived_scans]
    joint_mask = np.any([derived_scan.mask for derived_scan in derived_scans], axis=0)  # (x, y, z)
    version_by_package = {package: version(package) for package in ("nilearn", "numpy", "scipy", "nibabel")}
    return {
        "RepetitionTime": trs_s[0] if len(set(trs_s)) == 1 else trs_s,
        "NumberOfVolumes": sum(volume_counts),
        "NumberOfVolumesKept": sum(derived_scan.retained_volume_count for derived_scan in derived_scans),
        "NumberOfVoxels": int(joint_mask.sum()),
        "MeanFramewiseDisplacement": mean_motion_mm,
        "Versions": {DERIVE_PROGRAM: __version__, **version_by_package},
    }


def write_product(
    product_path: Path, product_name: str, derived_scans: Sequence[DerivedScan], output: DerivationOutput
) -> None:
    """Writes a map, with its picture, or the series of a person, of all scans together."""
    if product_name == SERIES_PRODUCT:
        run_series_list = [derived_scan.array_by_product[SERIES_PRODUCT] for derived_scan in derived_scans]
        parcel_names = output.image_file_by_name[PARCELS_IMAGE].component_names
        write_parcel_series(product_path, join_run_series(run_series_list), parcel_names)
        return

    affine = derived_scans[0].affine
    map_values = average_maps(derived_scans, product_name)  # (x, y, z) or (x, y, z, networks)
    if output.derivation.smoothing_mm:
        joint_mask = np.any([derived_scan.mask for derived_scan in derived_scans], axis=0)
        map_volumes = map_values.reshape(*joint_mask.shape, -1)
        smoothed_volumes = [
            smooth_map(map_volumes[..., volume_index], joint_mask, affine, output.derivation.smoothing_mm)
            for volume_index in range(map_volumes.shape[-1])
        ]
        map_values = np.stack(smoothed_volumes, axis=-1).reshape(map_values.shape)
    map_values = map_values.astype(np.float32)

    first_volume = map_values if map_values.ndim == 3 else map_values[..., 0]
    write_map_picture(make_picture_path(product_path), first_volume, affine)
    map_image = nibabel.Nifti1Image(map_values, affine)
    map_image.set_sform(affine, MNI152_CODE)
    map_image.set_qform(affine, MNI152_CODE)
    map_image.header.set_xyzt_units("mm")
    save_nifti(map_image, product_path)


def write_map_picture(picture_path: Path, map_volume: np.ndarray, affine: np.ndarray) -> None:
    """A small picture of a map (x, y, z), or of the first of several networks, for the page of all people."""
    picture_path.parent.mkdir(exist_ok=True)
    with files.open_replacement(picture_path, "wb") as picture_file:
        picture_file.write(encode_webp(draw_slices(map_volume, affine, PICTURE_SPACING_MM)))


def average_maps(derived_scans: Sequence[DerivedScan], product_name: str) -> np.ndarray:
    """The mean of a map over runs that have a voxel, by the volumes kept."""
    first_run_map = derived_scans[0].array_by_product[product_name]
    if len(derived_scans) == 1:
        return first_run_map
    weighted_map_sum = np.zeros(first_run_map.shape)
    voxel_weights = np.zeros(first_run_map.shape[:3], int)  # volumes of runs that have the voxel
    for derived_scan in derived_scans:
        run_map = derived_scan.array_by_product[product_name].astype(np.float64)
        weighted_map_sum += derived_scan.retained_volume_count * run_map
        voxel_weights += derived_scan.retained_volume_count * derived_scan.mask
    network_axes = tuple(range(3, first_run_map.ndim))
    return weighted_map_sum / np.expand_dims(np.where(voxel_weights > 0, voxel_weights, 1), network_axes)


def join_run_series(run_series_list: Sequence[np.ndarray]) -> np.ndarray:
    """The series (volumes, parcels) of runs one after another, each standardised first if there are several."""
    if len(run_series_list) == 1:
        return run_series_list[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        joined_series = np.concatenate(
            [(run_series - run_series.mean(0)) / run_series.std(0) for run_series in run_series_list]
        )
    return np.where(np.isnan(joined_series).any(0), np.nan, joined_series)
