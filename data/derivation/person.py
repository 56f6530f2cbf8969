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
from data.cohorts.nifti import MNI152_CODE, save_nifti
from data.cohorts.pictures import draw_slices, encode_webp
from data.derivation.advice import advice, left_by
from data.derivation.bold import Bold, Confounds, found_mask, open_bold, read_mask, read_series
from data.derivation.cleaning import Acquisition, Scan, UnsuitedError, scan_of
from data.derivation.images import labels_on, networks_on
from data.derivation.measures import MEASURES, dual_regression, parcel_series, smoothed
from data.derivation.output import SOURCES, Output, json_of, linked, made_in, picture_of, sources_of, write_series
from data.derivation.remarks import Remark
from data.derivation.scans import ScanFile, ScannedPerson

FILTERED = 0.9  # of the amplitudes in the band, in the median voxel; a scan with more was filtered before
# Of 60 people of ABIDE who were scanned for ten minutes, connectomes of the first seconds agree with those of the last
# five minutes by r 0.35 with 10 degrees of freedom, 0.44 with 20, 0.58 with 54 (five minutes without confounds), and no
# better in longer scans of as many because of confounds. Each of its 784 scans has at least 36 before confounds.
FEW_DIRECTIONS = 20
PICTURE_MM = 3.0  # between points of a small picture
LACKING = 0.1  # of the parcels; more are missing of 3 of 784 scans of ABIDE, whose atlas is in their space
WHITE = 0.75  # of the spectrum; of a wider band, this says nothing


@dataclass(frozen=True)
class PersonTask:
    """A person to do, in a process of its own."""

    person: ScannedPerson
    output: Output
    threads: int  # of this process


@dataclass(frozen=True)
class Done:
    """What became of a person: what is worth a remark; why it failed, if it did."""

    label: str
    remarks: tuple[Remark, ...] = ()
    failure: str = ""


@dataclass(frozen=True, eq=False)
class OpenedScan:
    """A scan whose header, tables and mask are in order; no voxel of it is read yet."""

    bold: Bold
    confounds: Confounds
    mask: np.ndarray | None  # (x, y, z) bool; None if none lies beside the scan
    remarks: list[Remark]
    parcel_remarks: list[Remark]  # by this mask, before voxels without a signal are left out of it


@dataclass(frozen=True, eq=False)
class DerivedScan:
    """What is derived of one scan."""

    values: dict[str, np.ndarray]  # maps (x, y, z) or (x, y, z, networks) float32, 0 outside the mask; series
    mask: np.ndarray  # (x, y, z) bool
    affine: np.ndarray
    tr_s: float
    confounds: Confounds
    remarks: list[Remark]

    @property
    def weight(self) -> int:
        """Of its maps in a mean: the volumes kept."""
        return int(self.confounds.kept.sum())


def derive_person(task: PersonTask) -> Done:
    """Writes what is missing of a person, while no other process does."""
    label = task.person.label
    try:
        with threadpool_limits(task.threads), files.locked(task.output.of_person(label), wait=True):
            return Done(label, tuple(complete(task)))
    except InputError as error:
        return Done(label, failure=str(error))
    except MemoryError:
        return Done(label, failure="The memory is full; take fewer --jobs, or a machine with more.")
    except OSError as error:
        if error.errno in files.DISK_FULL_ERRNOS:
            raise  # which would befall the others, too
        return Done(label, failure=f"{error.filename or 'input or output'}: {error.strerror or error}.")


def complete(task: PersonTask) -> list[Remark]:
    """Writes what is missing of a person; remarks. Raises InputError as `Output.missing`, and for a scan."""
    person, output = task.person, task.output
    for leftover in output.of_person(person.label).glob("*/.unfinished.*"):  # of killed processes
        files.remove(leftover)
    missing = output.missing(person, made_in(output.folder, person.label))
    if not missing:  # another process has done the person meanwhile
        return []
    about = {"Sources": linked(person, output.folder), SOURCES: sources_of(person)}
    scans = [derived(scan, task, missing) for scan in person.scans]
    check_one_grid(person, scans)
    for product in missing:
        path, derivation = output.path(person.label, product), output.derivation.for_product(product)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_product(path, product, scans, output)
        labels = {"LabelMap": derivation.networks.names} if derivation.networks else {}
        said = {"Measure": product, DERIVATION_KEY: asdict(derivation), **labels, **about, **facts(scans)}
        files.write_json(json_of(path), said)
    return [remark for scan in scans for remark in scan.remarks]


def opened(file: ScanFile, output: Output) -> OpenedScan:
    """Raises InputError, naming the file, for what is wrong with a scan, as far as its header, its tables and its mask
    tell."""
    bold = open_bold(file.path)
    try:
        confounds, directions = left_by(output.derivation, file, bold)
    except UnsuitedError as error:
        raise InputError(f"{error} {advice(output.derivation, file, bold, error.least)}") from error
    remarks = list(bold.remarks)
    if directions < FEW_DIRECTIONS:
        more = "Longer scans" if confounds.regressors is None else "Longer scans or fewer confounds"
        text = (
            f"{{}} degrees of freedom in the band; with fewer than {FEW_DIRECTIONS}, maps and connectomes are "
            f"unreliable. {more} leave more"
        )
        remarks.append(Remark(text, directions, warning=True))
    mask = read_mask(file.mask, bold) if file.mask else None
    lacking = parcel_remarks(file, mask, bold.image.affine, output) if mask is not None else []
    return OpenedScan(bold, confounds, mask, remarks, lacking)


def parcel_remarks(file: ScanFile, mask: np.ndarray, affine: np.ndarray, output: Output) -> list[Remark]:
    """A warning if more than a tenth of the parcels have no voxel in a mask (x, y, z). Raises InputError, naming the
    scan, if none has: the atlas lies elsewhere."""
    if PARCELS_IMAGE not in output.images:
        return []
    parcels = output.images[PARCELS_IMAGE]
    count = len(parcels.numbers)
    try:
        labels = labels_on(parcels, mask.shape, affine)
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error
    lacking = count - int(np.isin(parcels.numbers, labels[mask]).sum())
    if lacking == count:
        raise InputError(
            f"{file.path}: none of the {count} parcels of {parcels.path} has a voxel in the scan's mask; expected an "
            f"atlas in the scan's space, {file.space}. Check the affine of the atlas, or name another one."
        )
    if lacking <= LACKING * count:
        return []
    text = (
        f"{{}} of {count} parcels of {parcels.path.name} have no signal (n/a); expected an atlas in the scans' space, "
        f"{file.space}"
    )
    return [Remark(text, lacking, warning=True)]


def derived(file: ScanFile, task: PersonTask, products: Sequence[str]) -> DerivedScan:
    """Measures one scan. Raises InputError, naming it."""
    scan_file = opened(file, task.output)
    bold, confounds, affine = scan_file.bold, scan_file.confounds, scan_file.bold.image.affine
    mask, unsure = (scan_file.mask, []) if scan_file.mask is not None else found_mask(bold)
    series, mask, incomplete = read_series(bold, mask)
    remarks = [*scan_file.remarks, *unsure, *incomplete]
    if SERIES_PRODUCT in products:
        remarks += parcel_remarks(file, mask, affine, task.output)
    try:
        acquisition = Acquisition(confounds.kept, bold.tr_s, task.output.derivation.band, mask, affine)
        scan = scan_of(with_censored(series, confounds.kept), acquisition, confounds.regressors)
        del series
        values = {product: measure(scan, product, task.output) for product in products}
    except UnsuitedError as error:
        raise InputError(f"{file.path}: {error} {advice(task.output.derivation, file, bold, error.least)}") from error
    except InputError as error:
        raise InputError(f"{file.path}: {error}") from error
    return DerivedScan(values, mask, affine, bold.tr_s, confounds, remarks)


def with_censored(series: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """A series (volumes, voxels) with empty rows for volumes that were taken out of the file."""
    if len(series) == len(kept):
        return series
    whole = np.zeros((len(kept), series.shape[1]), np.float32)
    whole[kept] = series
    return whole


def measure(scan: Scan, product: str, output: Output) -> np.ndarray:
    """A map, 0 outside the mask, or the series of parcels (kept, parcels), NaN for those that the scan lacks."""
    shape = scan.mask.shape
    if product == SERIES_PRODUCT:
        parcels = output.images[PARCELS_IMAGE]
        labels = labels_on(parcels, shape, scan.affine)
        series = np.full((len(scan.cleaned), len(parcels.numbers)), np.nan)
        series[:, np.isin(parcels.numbers, labels)] = parcel_series(scan, labels)
        return series
    if product == DUAL_REGRESSION_MEASURE:
        values = dual_regression(scan, networks_on(output.images[NETWORKS_IMAGE], shape, scan.affine))
    else:
        values = MEASURES[product](scan)
    if product == "falff":
        check_unfiltered(values, scan)
    volume = np.zeros((*shape, *values.shape[1:]), np.float32)
    volume[scan.mask] = values
    return volume


def check_unfiltered(falff: np.ndarray, scan: Scan) -> None:
    """Raises InputError for a scan that was filtered before, of which fALFF says nothing."""
    low, high = scan.band
    if (found := float(np.median(falff))) > FILTERED and (high - low) * 2 * scan.tr_s < WHITE:
        raise InputError(
            f"{found:.0%} of its amplitudes lie in {low:g}-{high:g} Hz: it was filtered before, so fALFF says "
            "nothing. Take the scan before the filter, or leave falff out of --maps."
        )


def check_one_grid(person: ScannedPerson, scans: Sequence[DerivedScan]) -> None:
    first = scans[0]
    for file, scan in zip(person.scans, scans, strict=True):
        if scan.mask.shape != first.mask.shape or not np.allclose(scan.affine, first.affine, atol=1e-3):
            raise InputError(
                f"{file.path} has another grid than {person.scans[0].path.name}; expected runs on one grid, whose "
                "maps can be averaged. Choose with --only."
            )


def facts(scans: Sequence[DerivedScan]) -> dict[str, Any]:
    """What a JSON says of a person's scans."""
    moved = [scan.confounds.motion_mm for scan in scans]
    volumes = [len(scan.confounds.kept) for scan in scans]
    mean = None if None in moved else round(float(np.average(np.array(moved, float), weights=volumes)), 6)
    trs = list(dict.fromkeys(scan.tr_s for scan in scans))
    used = {name: version(name) for name in ("nilearn", "numpy", "scipy", "nibabel")}
    return {
        "RepetitionTime": trs[0] if len(trs) == 1 else [scan.tr_s for scan in scans],
        "NumberOfVolumes": sum(volumes),
        "NumberOfVolumesKept": sum(scan.weight for scan in scans),
        "NumberOfVoxels": int(np.any([scan.mask for scan in scans], axis=0).sum()),
        "MeanFramewiseDisplacement": mean,
        "Versions": {DERIVE_PROGRAM: __version__, **used},
    }


def write_product(path: Path, product: str, scans: Sequence[DerivedScan], output: Output) -> None:
    if product == SERIES_PRODUCT:
        write_series(path, joined([scan.values[SERIES_PRODUCT] for scan in scans]), output.images[PARCELS_IMAGE].names)
        return
    mask, affine = np.any([scan.mask for scan in scans], axis=0), scans[0].affine
    values = averaged(scans, product)
    if fwhm_mm := output.derivation.smoothing_mm:
        volumes = values.reshape(*mask.shape, -1)
        blurred = [smoothed(volumes[..., at], mask, affine, fwhm_mm) for at in range(volumes.shape[-1])]
        values = np.stack(blurred, axis=-1).reshape(values.shape)
    values = values.astype(np.float32)
    write_picture(picture_of(path), values if values.ndim == 3 else values[..., 0], affine)
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, MNI152_CODE)
    image.set_qform(affine, MNI152_CODE)
    image.header.set_xyzt_units("mm")
    save_nifti(image, path)


def write_picture(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """A small picture of a map (x, y, z), or of the first of several networks, for the page of all people."""
    path.parent.mkdir(exist_ok=True)
    with files.open_replacement(path, "wb") as file:
        file.write(encode_webp(draw_slices(volume, affine, PICTURE_MM)))


def averaged(scans: Sequence[DerivedScan], product: str) -> np.ndarray:
    """The mean of a map over runs that have a voxel, by the volumes kept."""
    if len(scans) == 1:
        return scans[0].values[product]
    total = sum(scan.weight * scan.values[product].astype(np.float64) for scan in scans)
    weight = sum(scan.weight * scan.mask for scan in scans)
    weight = np.asarray(weight).reshape(*scans[0].mask.shape, *[1] * (np.ndim(total) - 3))
    return np.asarray(total / np.where(weight > 0, weight, 1))


def joined(series: Sequence[np.ndarray]) -> np.ndarray:
    """The series (volumes, parcels) of runs one after another, each standardised first if there are several."""
    if len(series) == 1:
        return series[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = np.concatenate([(one - one.mean(0)) / one.std(0) for one in series])
    return np.where(np.isnan(whole).any(0), np.nan, whole)
