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

PROGRAM = "autism-blackout"  # by which its folders are known
KEY = "Derivation"  # in the JSON beside a file
TABLE = "derived.csv"  # in the folder of `derive`, with these columns
COLUMNS = ("subject", "products", "mean_fd", "volumes", "volumes_kept", "voxels", "failed")
FOLDER, NETWORKS, PARCELS = "derivation", "networks", "parcels"
NAMES_BESIDE = {NETWORKS: ".txt", PARCELS: ".tsv"}  # the file of names beside each image
STRATEGIES = {  # of nilearn's load_confounds_strategy: its name, and the parameters of head motion, 24, 12 or 6
    f"{name}{number}": (name, motion)
    for name in ("simple", "scrubbing", "compcor")
    for number, motion in (("", "full"), ("-12", "derivatives"), ("-6", "basic"))
}
STOP = (
    "With real scans, stop here: head motion is in the maps. So derive again with fMRIPrep's tables beside the scans, "
    "and, if you named --confounds none, without it."
)
SERIES, DUAL_REGRESSION = "series", "dual_regression"  # products that need an image
MEASURES = "measures"


@dataclass(frozen=True, kw_only=True)
class Image:
    """A file of networks or of parcels."""

    file: str  # its name
    sha256: str
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
    confounds: str = "none"  # one of STRATEGIES
    networks: Image | None = None  # for dual_regression
    parcels: Image | None = None  # for series

    def of(self, product: str) -> "Derivation":
        """What decides the file of a map, or of the series."""
        return replace(
            self,
            measures=() if product == SERIES else (product,),
            networks=self.networks if product == DUAL_REGRESSION else None,
            parcels=self.parcels if product == SERIES else None,
        )

    @property
    def product(self) -> str:
        """That of one file."""
        return SERIES if self.parcels else self.measures[0] if self.measures else ""

    def words(self, name: str) -> str:
        """The value of a field."""
        value = getattr(self, name)
        if name == "band":
            return "{:g}-{:g} Hz".format(*value)
        if name == MEASURES:
            return ", ".join(value) or "none"
        return f"{value:g} mm" if isinstance(value, float) else str(value or "none")

    def __str__(self) -> str:
        said = ("smoothing_mm", *(field.name for field in fields(self) if getattr(self, field.name)))
        every = [field.name for field in fields(self) if field.name in said and field.name != MEASURES]
        return ", ".join(f"{called(name)} {self.words(name)}" for name in every)

    @property
    def uncleaned(self) -> str:
        """A warning if no confounds were regressed out of the scans; empty if some were, here or before."""
        unknown = ", and whether that was done before is not known" if self.scans == "unknown" else ""
        warning = f"NOT CLEANED: no confounds were regressed out of the scans{unknown}. {STOP}"
        return warning if self.confounds == "none" and self.scans != "cleaned" else ""

    @property
    def in_paper(self) -> str:
        """All of it, with the confounds spelled out."""
        parameters = {"full": 24, "derivatives": 12, "basic": 6}
        strategy, motion = STRATEGIES.get(self.confounds, ("", ""))
        of = f" (nilearn's strategy {strategy}, {parameters[motion]} parameters of head motion)" if strategy else ""
        return f"{self}{of}"


def called(name: str) -> str:
    """A field of `Derivation`, for people."""
    return {MEASURES: "maps", "smoothing_mm": "smoothing", PARCELS: "atlas"}.get(name, name)


def differences(one: Derivation, expected: Derivation) -> list[str]:
    """In words, which options differ."""
    names = [field.name for field in fields(one) if getattr(one, field.name) != getattr(expected, field.name)]
    return [f"{called(name)} {one.words(name)}, not {expected.words(name)}" for name in names]


def differing(people: Iterable[tuple[str, Derivation, Derivation]]) -> str:
    """Of whom, how they were derived, and how they should have been: which options differ, and whose; empty if none."""
    from data.cohorts.rows import listed  # which imports this module

    found = dict[str, dict[str, None]]()
    for who, one, expected in people:
        for what in differences(one, expected):
            found.setdefault(what, {})[who] = None
    return "; ".join(f"{what}, of {listed([*whose])}" for what, whose in found.items())


def derivation_in(said: Mapping[str, Any], path: Path) -> Derivation | None:
    """What the JSON beside a file says; None if `derive` did not write it. Raises InputError, naming it, for damage."""
    if KEY not in said:
        return None
    try:
        return files.parse_json(json.dumps(said[KEY]), Derivation)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Copy it again.") from error


def keep(folder: Path, images: Mapping[str, Path]) -> None:
    """Copies NETWORKS and PARCELS, as far as they are given, with the names beside them into the folder of a cohort."""
    from data.cohorts.nifti import beside  # imports SciPy, which `--help` can do without

    for stem, path in images.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / FOLDER / f"{stem}{'.nii.gz' if path.name.lower().endswith('.gz') else '.nii'}")
        if (names := beside(path, NAMES_BESIDE[stem])).is_file():
            shutil.copyfile(names, folder / FOLDER / f"{stem}{NAMES_BESIDE[stem]}")


def kept_in(folder: Path) -> dict[str, Path]:
    """The images that the folder of a cohort keeps; they are as they were written if the cohort is."""
    return {stem: path for stem in NAMES_BESIDE for path in (folder / FOLDER).glob(f"{stem}.nii*")}
