"""`derive --like`: the scans of new people are treated as those of a cohort were, or of the one behind a bundle."""

import argparse
import atexit
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from data.base.archive import Archive
from data.base.errors import InputError
from data.base.files import sum_of
from data.cohorts.derivation import FOLDER, IMAGES, OPTIONS, STRATEGIES, Derivation, DerivationWithImages, kept_in
from data.cohorts.stored import open_cohort
from data.conversion.like import is_bundle, of_bundle, open_bundle
from data.derivation.scans import ScanFile

HOW = {"cleaned": "cleaned of confounds before", "preprocessed": "not cleaned of confounds before"}
MAX_NAME = 100  # characters of a file's


def derivation_of(path: Path) -> DerivationWithImages:
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


def unpacked(bundle: Archive | None, derivation: Derivation) -> DerivationWithImages:
    """The derivation with its images in a folder that lasts as long as this process."""
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / FOLDER).mkdir()
    for name, content in bundle.parts.items() if bundle else ():
        if name.startswith(f"{FOLDER}/"):
            (folder / name).write_bytes(content)
    return kept_in(folder, derivation)


def taken_over(wanted: DerivationWithImages, kept: DerivationWithImages, like: Path) -> DerivationWithImages:
    """The derivation of the cohort `like`. Raises InputError for an option that is wanted and differs, and if an image
    is neither kept nor wanted."""
    check_bounds(kept.derivation, like)
    values = dict[str, Any]()
    for name, of in OPTIONS.items():
        value, said = getattr(kept.derivation, name), getattr(wanted.derivation, name)
        if name in IMAGES:
            continue
        if "choices" in of.option and value not in of.option["choices"]:
            value = said  # people of the cohort differ in it
        elif said and said != value:
            raise InputError(f"--{of.flag} is chosen by --like: {like} has {in_words(value)}. Leave it out.")
        values[name] = value
    images = {name: image_of(name, wanted, kept, like) for name in IMAGES}
    return DerivationWithImages(Derivation(**values), **images)


def check_bounds(of: Derivation, like: Path) -> None:
    """Raises InputError for what no option could say."""
    try:
        for name, option in OPTIONS.items():
            value = getattr(of, name)
            if value:
                option.option.get("type", str)(",".join(map(str, value)) if isinstance(value, tuple) else str(value))
        if of.scans not in ("", *HOW) or max(len(of.networks), len(of.parcels)) > MAX_NAME:
            raise argparse.ArgumentTypeError("the scans or the name of an image")
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{like} is damaged, in how its maps were derived: {error}. Copy it again.") from error


def in_words(value: Any) -> str:
    """A value as an option has it."""
    if isinstance(value, tuple):
        return ",".join(map(in_words, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def image_of(name: str, wanted: DerivationWithImages, kept: DerivationWithImages, like: Path) -> Path | None:
    """One of IMAGES: the file that is wanted, if it is that of the derivation, or that which is kept."""
    given, there = getattr(wanted, name), getattr(kept, name)
    file, sha256 = getattr(kept.derivation, name), getattr(kept.derivation, f"{name}_sha256")
    flag = OPTIONS[name].flag
    if given and (not sha256 or sum_of(given) != sha256):
        has = f"{file} (SHA-256 {sha256[:8]})" if sha256 else "none"
        raise InputError(f"--{flag} is chosen by --like: {like} has {has}. Leave it out.")
    if sha256 and not given and not there:
        raise InputError(f"{like} does not keep the {name} {file}; name the same file with --{flag}.")
    return given or there


def compared(scan: ScanFile, like: Path, of: Derivation) -> list[str]:
    """Notes on scans of new people, such as this one. Raises InputError if they cannot be treated alike."""
    cleaned = scan.treated == "cleaned"
    if (of.scans and scan.treated and scan.treated != of.scans) or (cleaned and of.confounds not in ("", "none")):
        raise InputError(
            f"{scan.path} was {HOW[scan.treated]}, the scans of {like} were "
            f"{HOW[of.scans or 'preprocessed']}; expected scans of the same kind, which can be treated alike."
        )
    notes = [f"Like {like}: maps {', '.join(of.measures) or 'none'}, {of}."]
    if not (of.scans and scan.treated):
        notes.append(f"Whether scans were cleaned of confounds before, here and in {like}, is not known.")
    if of.confounds not in STRATEGIES:
        notes.append(f"The people of {like} differ in confounds; here they are as without --like.")
    return notes
