"""How the maps and series of a cohort were derived from scans, for whoever makes those of new people alike: a part of
`cohort.json`, and in `derivation/` the images that it took, with `SHA256SUMS` of their own."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.base import files
from data.base.errors import InputError

PROGRAM = "autism-blackout"  # by which its JSON files are known
FOLDER, NETWORKS, PARCELS = "derivation", "networks", "parcels"
CHOICES = {  # by their names for people, the fields that tell two of them apart
    "band": ("band",),
    "smoothing": ("smoothing_mm",),
    "networks": ("networks_sha256", "network_names"),
    "atlas": ("parcels_sha256",),
    "scans": ("scans",),
    "confounds": ("confounds",),
}
VARYING = ("scans", "confounds")  # what people of one cohort may differ in


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What `derive` was told, as the JSON beside its files says it; empty where that does not apply, or differs."""

    measures: tuple[str, ...] = ()  # of the maps, such as falff, dual_regression
    band: tuple[float, float] | None = None  # Hz
    smoothing_mm: float | None = None  # full width at half maximum; None if maps are not smoothed
    scans: str = ""  # "preprocessed", or "cleaned" if confounds were regressed out before
    confounds: str = ""  # the strategy
    networks: str = ""  # the name of the file
    networks_sha256: str = ""
    network_names: tuple[str, ...] = ()
    parcels: str = ""  # the name of the label image
    parcels_sha256: str = ""

    def known(self, choice: str) -> bool:
        """Whether one of CHOICES is known, and applies."""
        return bool(self.measures if choice == "smoothing" else getattr(self, CHOICES[choice][0]))

    def shown(self, choice: str) -> str:
        """One of CHOICES for people."""
        if choice == "band" and self.band:
            return "{:g}-{:g} Hz".format(*self.band)
        if choice == "smoothing":
            return f"{self.smoothing_mm:g} mm" if self.smoothing_mm else "none"
        if choice == "networks":
            return f"{self.networks} (SHA-256 {self.networks_sha256[:8]}: {', '.join(self.network_names)})"
        if choice == "atlas":
            return f"{self.parcels} (SHA-256 {self.parcels_sha256[:8]})"
        return str(getattr(self, choice))

    def difference(self, other: "Derivation", choices: Sequence[str] = tuple(CHOICES)) -> str | None:
        """The first of these choices that differs; what one of both does not say is not compared."""
        for choice in choices:
            both = self.known(choice) and other.known(choice)
            if both and any(getattr(self, name) != getattr(other, name) for name in CHOICES[choice]):
                return choice
        return None

    def __str__(self) -> str:
        return ", ".join(f"{choice} {self.shown(choice)}" for choice in CHOICES if self.known(choice))


@dataclass(frozen=True)
class KeptDerivation:
    """A derivation with its images, as far as these are there."""

    derivation: Derivation
    networks: Path | None = None  # with their names in the .txt beside it
    parcels: Path | None = None  # with a table of names beside it, if there is one

    def write(self, target: Path) -> None:
        """Copies the images, byte by byte, into the folder of a cohort."""
        images = {NETWORKS: self.networks, PARCELS: self.parcels}
        there = {stem: path for stem, path in images.items() if path}
        files.remove(target / FOLDER)  # of a command that was interrupted
        if not there:
            return
        with files.unfinished(target / FOLDER) as folder:
            folder.mkdir()
            for stem, path in there.items():
                shutil.copyfile(path, folder / f"{stem}{'.nii.gz' if path.name.lower().endswith('.gz') else '.nii'}")
            if self.networks:
                names = "\n".join([*self.derivation.network_names, ""])
                (folder / f"{NETWORKS}.txt").write_text(names, encoding="utf-8")
            from data.cohorts.nifti import beside  # imports SciPy, which `--help` can do without

            if self.parcels and (table := beside(self.parcels, ".tsv")).is_file():
                shutil.copyfile(table, folder / f"{PARCELS}.tsv")
            files.write_sums(folder, [path.name for path in folder.iterdir()])


def kept_in(folder: Path, derivation: Derivation) -> KeptDerivation:
    """The derivation of a cohort with the images in its folder. Raises InputError, naming it, for an image or a table
    that is not what was written."""
    place = folder / FOLDER
    files.check_sums(path for path in place.glob("*") if path.name != files.SUMS)
    found = {stem: next(iter(sorted(place.glob(f"{stem}.nii*"))), None) for stem in (NETWORKS, PARCELS)}
    for stem, wanted in ((NETWORKS, derivation.networks_sha256), (PARCELS, derivation.parcels_sha256)):
        if (path := found[stem]) and files.sum_of(path) != wanted:
            raise InputError(f"{path} is not the image that cohort.json names. Copy it again, or convert again.")
    return KeptDerivation(derivation, found[NETWORKS], found[PARCELS])
