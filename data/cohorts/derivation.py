"""How maps and series were derived from scans: what `derive` was told, and the images that it took.

It is stored as it is in the JSON beside each file, in `cohort.json` and in a bundle, and compared by equality. A cohort
keeps the images in `derivation/`.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError

DERIVE_PROGRAM = "autism-blackout"  # by which folders of `derive` are recognised
DERIVATION_KEY = "Derivation"  # in the JSON beside a file
DERIVED_TABLE_FILE = "derived.csv"  # in the folder of `derive`, with these columns
DERIVED_COLUMNS = ("subject", "products", "mean_fd", "volumes", "volumes_kept", "voxels", "failed")
DERIVATION_FOLDER = "derivation"
NETWORKS_IMAGE = "networks"
PARCELS_IMAGE = "parcels"
NAMES_SUFFIX_BY_IMAGE = {NETWORKS_IMAGE: ".txt", PARCELS_IMAGE: ".tsv"}  # the file of names beside each image
# of nilearn's load_confounds_strategy: its name, and the parameters of head motion, 24, 12 or 6
STRATEGY_BY_CONFOUNDS = {
    f"{strategy_name}{motion_suffix}": (strategy_name, motion_kind)
    for strategy_name in ("simple", "scrubbing", "compcor")
    for motion_suffix, motion_kind in (("", "full"), ("-12", "derivatives"), ("-6", "basic"))
}
UNCLEANED_STOP_ADVICE = (
    "With real scans, stop here: head motion is in the maps. So derive again with fMRIPrep's tables beside the scans, "
    "and, if you named --confounds none, without it."
)
SERIES_PRODUCT = "series"
DUAL_REGRESSION_MEASURE = "dual_regression"  # products that need an image
MEASURES_ATTRIBUTE = "measures"


@dataclass(frozen=True, kw_only=True)
class DerivationImage:
    """A file of networks or of parcels."""

    file: str  # its name
    sha256: str  # of the file
    names: tuple[str, ...] = ()  # of networks

    def __str__(self) -> str:
        return f"{self.file} (SHA-256 {': '.join(filter(None, [self.sha256[:8], ', '.join(self.names)]))})"


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What decides what maps and series hold."""

    measures: tuple[str, ...] = ()  # maps, such as falff, dual_regression
    band: tuple[float, float] = (0.01, 0.1)  # Hz
    smoothing_mm: float | None = None  # of maps, full width at half maximum
    scans: str = "unknown"  # or "preprocessed", or "cleaned" if confounds were regressed out before
    confounds: str = "none"  # or one of `STRATEGY_BY_CONFOUNDS`
    networks: DerivationImage | None = None  # for dual_regression
    parcels: DerivationImage | None = None  # for series

    def restrict_to_product(self, product: str) -> "Derivation":
        """Only what decides the file of one product: a map, or the series."""
        return replace(
            self,
            measures=() if product == SERIES_PRODUCT else (product,),
            networks=self.networks if product == DUAL_REGRESSION_MEASURE else None,
            parcels=self.parcels if product == SERIES_PRODUCT else None,
        )

    @property
    def product(self) -> str:
        """The product of a derivation that `restrict_to_product` returns: the series, or a map."""
        if self.parcels:
            return SERIES_PRODUCT
        return self.measures[0] if self.measures else ""

    def format_option_value(self, option_name: str) -> str:
        """The value of a field, in words."""
        option_value = getattr(self, option_name)
        if option_name == "band":
            return "{:g}-{:g} Hz".format(*option_value)
        if option_name == MEASURES_ATTRIBUTE:
            return ", ".join(option_value) or "none"
        return f"{option_value:g} mm" if isinstance(option_value, float) else str(option_value or "none")

    def __str__(self) -> str:
        mentioned_options = ("smoothing_mm", *(field.name for field in fields(self) if getattr(self, field.name)))
        option_names = [
            field.name for field in fields(self) if field.name in mentioned_options and field.name != MEASURES_ATTRIBUTE
        ]
        return ", ".join(
            f"{make_option_label(option_name)} {self.format_option_value(option_name)}" for option_name in option_names
        )

    @property
    def uncleaned_warning(self) -> str:
        """A warning if no confounds were regressed out of the scans; empty if some were, here or before."""
        unknown_cleaning_text = ", and whether that was done before is not known" if self.scans == "unknown" else ""
        warning = (
            f"NOT CLEANED: no confounds were regressed out of the scans{unknown_cleaning_text}. {UNCLEANED_STOP_ADVICE}"
        )
        return warning if self.confounds == "none" and self.scans != "cleaned" else ""

    @property
    def methods_text(self) -> str:
        """The derivation in words, with the confounds spelled out."""
        parameter_count_by_motion = {"full": 24, "derivatives": 12, "basic": 6}
        nilearn_strategy, motion_parameter_kind = STRATEGY_BY_CONFOUNDS.get(self.confounds, ("", ""))
        strategy_text = (
            f" (nilearn's strategy {nilearn_strategy}, {parameter_count_by_motion[motion_parameter_kind]} parameters "
            "of head motion)"
            if nilearn_strategy
            else ""
        )
        return f"{self}{strategy_text}"


def make_option_label(option_name: str) -> str:
    """The name of a field of `Derivation`, for people."""
    return {MEASURES_ATTRIBUTE: "maps", "smoothing_mm": "smoothing", PARCELS_IMAGE: "atlas"}.get(
        option_name, option_name
    )


def describe_option_differences(derivation: Derivation, expected_derivation: Derivation) -> list[str]:
    """In words, which options differ."""
    differing_option_names = [
        field.name
        for field in fields(derivation)
        if getattr(derivation, field.name) != getattr(expected_derivation, field.name)
    ]
    return [
        f"{make_option_label(option_name)} {derivation.format_option_value(option_name)}, not "
        f"{expected_derivation.format_option_value(option_name)}"
        for option_name in differing_option_names
    ]


def summarise_option_differences(people_derivations: Iterable[tuple[str, Derivation, Derivation]]) -> str:
    """Which options differ, and for whom; empty if none do. `people_derivations` are subjects, how each was derived,
    and how each should have been."""
    from data.base.listing import join_names  # which imports this module

    subjects_by_difference = dict[str, dict[str, None]]()
    for subject, derivation, expected_derivation in people_derivations:
        for difference in describe_option_differences(derivation, expected_derivation):
            subjects_by_difference.setdefault(difference, {})[subject] = None
    return "; ".join(
        f"{difference}, of {join_names([*subjects])}" for difference, subjects in subjects_by_difference.items()
    )


def parse_derivation(sidecar_content: Mapping[str, Any], sidecar_path: Path) -> Derivation | None:
    """What the JSON beside a file says; None if `derive` did not write it. Raises InputError, naming it, for damage."""
    if DERIVATION_KEY not in sidecar_content:
        return None
    try:
        return files.parse_json(json.dumps(sidecar_content[DERIVATION_KEY]), Derivation)
    except ValueError as error:
        raise InputError(f"{sidecar_path} is damaged ({error}). Copy it again.") from error


def copy_derivation_images(cohort_folder: Path, path_by_image: Mapping[str, Path]) -> None:
    """Copies the images of networks and parcels, if they are given, and the names beside them into the folder of a
    cohort."""
    from data.images.nifti import make_sidecar_path  # imports SciPy, which `--help` can do without

    for image_stem, image_path in path_by_image.items():
        (cohort_folder / DERIVATION_FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(
            image_path,
            cohort_folder
            / DERIVATION_FOLDER
            / f"{image_stem}{'.nii.gz' if image_path.name.lower().endswith('.gz') else '.nii'}",
        )
        if (names_path := make_sidecar_path(image_path, NAMES_SUFFIX_BY_IMAGE[image_stem])).is_file():
            shutil.copyfile(
                names_path, cohort_folder / DERIVATION_FOLDER / f"{image_stem}{NAMES_SUFFIX_BY_IMAGE[image_stem]}"
            )


def find_derivation_image_paths(cohort_folder: Path) -> dict[str, Path]:
    """The images that the folder of a cohort keeps; they are as they were written if the cohort is."""
    return {
        image_stem: image_path
        for image_stem in NAMES_SUFFIX_BY_IMAGE
        for image_path in (cohort_folder / DERIVATION_FOLDER).glob(f"{image_stem}.nii*")
    }
