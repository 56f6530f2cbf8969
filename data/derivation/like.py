"""`derive --like`: the scans of new people are treated as those of a cohort were, or of the one behind a bundle."""

import argparse
import atexit
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from data.base.archive import Archive
from data.base.errors import InputError
from data.base.files import sum_of
from data.cohorts.derivation import FOLDER, Derivation, KeptDerivation, kept_in
from data.cohorts.stored import open_cohort
from data.conversion.like import is_bundle, of_bundle, open_bundle
from data.derivation.options import STRATEGIES, DerivationOptions, band, millimetres
from data.derivation.scans import ScanFile

HOW = {"cleaned": "cleaned of confounds before", "preprocessed": "not cleaned of confounds before"}
MAX_NAME = 100  # characters of a file's


def derivation_of(path: Path) -> KeptDerivation:
    """How the maps of a cohort were derived. Raises InputError if that is not known."""
    bundle = open_bundle(path) if is_bundle(path) else None
    cohort = of_bundle(bundle).cohort if bundle else open_cohort(path)
    found, folder = cohort.metadata.derivation, cohort.tables
    if found is None or (bundle is None and folder is None):
        raise InputError(
            f"{path} does not say how its maps were derived from scans; expected a cohort that convert made, for all "
            "people alike, of what derive wrote. Convert it again, or leave out --like and give the options."
        )
    return kept_in(folder, found) if folder else unpacked(bundle, found)


def unpacked(bundle: Archive | None, derivation: Derivation) -> KeptDerivation:
    """The derivation with its images in a folder that lasts as long as this process."""
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / FOLDER).mkdir()
    for name, content in bundle.parts.items() if bundle else ():
        if name.startswith(f"{FOLDER}/"):
            (folder / name).write_bytes(content)
    return kept_in(folder, derivation)


def with_choices(options: DerivationOptions, kept: KeptDerivation) -> DerivationOptions:
    """The options with the choices of a derivation. Raises InputError for one that is given and differs, and if an
    image is neither kept nor given."""
    of = kept.derivation
    check_bounds(of, options.like)
    chosen: dict[str, Any] = {"maps": of.measures, "band": of.band, "smooth": of.smoothing_mm}
    if of.confounds in STRATEGIES:
        chosen["confounds"] = of.confounds
    for name, value in chosen.items():
        if getattr(options, name) not in (None, value):
            raise InputError(f"--{name} is chosen by --like: {options.like} has {in_words(value)}. Leave it out.")
    chosen["networks"] = image_of(options, "networks", kept.networks, of)
    chosen["series"] = image_of(options, "series", kept.parcels, of)
    return replace(options, **chosen)


def check_bounds(of: Derivation, like: Path | None) -> None:
    """Raises InputError for what no option could say."""
    try:
        if of.band:
            band("{!r},{!r}".format(*of.band))
        if of.smoothing_mm:
            millimetres(repr(of.smoothing_mm))
        if of.scans not in ("", *HOW) or max(len(of.networks), len(of.parcels)) > MAX_NAME:
            raise argparse.ArgumentTypeError("the scans or the name of an image")
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{like} is damaged, in how its maps were derived: {error}. Copy it again.") from error


def in_words(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{one:g}" if isinstance(one, float) else one for one in value) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def image_of(options: DerivationOptions, option: str, kept: Path | None, of: Derivation) -> Path | None:
    """The image of an option: the one that is given, if it is that of the derivation, or that which is kept."""
    given, what = getattr(options, option), "networks" if option == "networks" else "parcels"
    file, wanted = getattr(of, what), getattr(of, f"{what}_sha256")
    if given and (not wanted or sum_of(given) != wanted):
        has = f"{file} (SHA-256 {wanted[:8]})" if wanted else "none"
        raise InputError(f"--{option} is chosen by --like: {options.like} has {has}. Leave it out.")
    if wanted and not given and not kept:
        raise InputError(f"{options.like} does not keep the {what} {file}; name the same file with --{option}.")
    return given or kept


def compared(scan: ScanFile, options: DerivationOptions, of: Derivation) -> list[str]:
    """Notes on scans of new people, such as this one. Raises InputError if they cannot be treated alike."""
    cleaned = scan.treated == "cleaned"
    if (of.scans and scan.treated and scan.treated != of.scans) or (cleaned and of.confounds not in ("", "none")):
        raise InputError(
            f"{scan.path} was {HOW[scan.treated]}, the scans of {options.like} were "
            f"{HOW[of.scans or 'preprocessed']}; expected scans of the same kind, which can be treated alike."
        )
    notes = [f"Like {options.like}: maps {', '.join(of.measures) or 'none'}, {of}."]
    if not (of.scans and scan.treated):
        notes.append(f"Whether scans were cleaned of confounds before, here and in {options.like}, is not known.")
    if of.confounds not in STRATEGIES:
        notes.append(f"The people of {options.like} differ in confounds; here they are as without --like.")
    return notes
