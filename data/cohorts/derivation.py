"""How maps and series were derived from scans. Each choice of `derive` is a field of `Derivation`.

A field says its flag, its key in the JSON beside maps, and its words. All else follows: what `derive` reads, writes and
takes over by `--like`; what `convert` reads, compares and keeps; what is printed. A cohort keeps a derivation in
`cohort.json`, and in `derivation/` the images that it took, with `SHA256SUMS` of their own.
"""

import argparse
import dataclasses
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from data.base import files, manifest
from data.base.cli import names
from data.base.errors import InputError, shown

PROGRAM = "autism-blackout"  # by which its JSON files are known
FOLDER, NETWORKS, PARCELS = "derivation", "networks", "parcels"
STRATEGIES = {  # of nilearn's load_confounds_strategy: its name, and the parameters of head motion, 24, 12 or 6
    f"{name}{number}": (name, motion)
    for name in ("simple", "scrubbing", "compcor")
    for number, motion in (("", "full"), ("-12", "derivatives"), ("-6", "basic"))
}
STOP = (
    "With real scans, stop here: head motion is in the maps. So derive again with fMRIPrep's tables beside the scans, "
    "and without --confounds none."
)
MAX_SMOOTHING_MM = 30.0
SERIES, DUAL_REGRESSION = "series", "dual_regression"  # products that need an image
EVERY, MAP, PERSON = "every", "map", "person"  # of a key in JSON: each product has it; each map; it tells of the scans


def hertz(text: str) -> tuple[float, float]:
    """`0.01,0.1` -> 0.01, 0.1, in Hz."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 <= low < high <= 10:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed; expected LOW,HIGH in Hz, such as 0.01,0.1")
    return low, high


def millimetres(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_SMOOTHING_MM:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not allowed; expected a width in mm, such as 6")
    return value


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a field of `Derivation` is called, and what it decides."""

    words: str = ""  # its name for people, as in "with band 0.01-0.1 Hz"; fields of one name are one choice
    key: str = ""  # its name in the JSON beside maps and series
    of: str = EVERY  # whose JSON has it: see above, or the one product that it decides
    shown: Callable[[Any], str] = str  # its value for people
    none: str = ""  # the words for an empty value, None or False, if that is a choice, too
    is_compared: bool = True
    may_vary: bool = False  # whether people of one cohort may differ in it
    default: Any = None  # of `derive`
    flag: str = ""  # an option of `derive`
    option: dict[str, Any] = dataclasses.field(default_factory=dict)  # as for `add_argument`; a flag's default is None


def image_shown(sha256: str) -> str:
    return f"SHA-256 {sha256[:8]}"


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """What `derive` was told, as the JSON beside its files says it; empty where that does not apply, or differs."""

    # of the maps, such as falff, dual_regression
    measures: Annotated[
        tuple[str, ...],
        Choice(
            flag="maps",
            option={
                "type": names,
                "metavar": "A,B,...",
                "help": "falff, alff, reho, degree_weighted, eigenvector_weighted, vmhc, dual_regression "
                "(default falff; none with --series alone)",
            },
        ),
    ] = ()
    # Hz
    band: Annotated[
        tuple[float, float] | None,
        Choice(
            words="band",
            key="Band",
            shown=lambda value: "{:g}-{:g} Hz".format(*value),
            default=(0.01, 0.1),
            flag="band",
            option={"type": hertz, "metavar": "LOW,HIGH", "help": "in Hz (default 0.01,0.1)"},
        ),
    ] = None
    # full width at half maximum
    smoothing_mm: Annotated[
        float | None,
        Choice(
            words="smoothing",
            key="SmoothingFWHM",
            of=MAP,
            shown="{:g} mm".format,
            none="none",
            flag="smooth",
            option={
                "type": millimetres,
                "metavar": "MM",
                "help": "smooth maps within the mask by this width (default: do not)",
            },
        ),
    ] = None
    # "preprocessed", or "cleaned" if confounds were regressed out before
    scans: Annotated[str, Choice(words="scans", key="InputScans", of=PERSON, may_vary=True)] = ""
    # the strategy
    confounds: Annotated[
        str,
        Choice(
            words="confounds",
            key="Confounds",
            may_vary=True,
            flag="confounds",
            option={
                "choices": (*STRATEGIES, "none"),
                "help": "what is regressed out, with 24, 12 or 6 parameters of head motion "
                "(default simple; none if scans were cleaned or have no table)",
            },
        ),
    ] = ""
    # the name of the file
    networks: Annotated[
        str,
        Choice(
            words="networks",
            key="Networks",
            of=DUAL_REGRESSION,
            is_compared=False,
            flag="networks",
            option={"type": Path, "metavar": "FILE", "help": "4-D maps of networks, for dual_regression"},
        ),
    ] = ""
    networks_sha256: Annotated[
        str, Choice(words="networks", key="NetworksSHA256", of=DUAL_REGRESSION, shown=image_shown)
    ] = ""
    network_names: Annotated[
        tuple[str, ...], Choice(words="networks", key="LabelMap", of=DUAL_REGRESSION, shown=", ".join)
    ] = ()
    # the name of the label image
    parcels: Annotated[
        str,
        Choice(
            words="atlas",
            key="Atlas",
            of=SERIES,
            is_compared=False,
            flag="series",
            option={"type": Path, "metavar": "ATLAS", "help": "label image: write the mean series of parcels"},
        ),
    ] = ""
    parcels_sha256: Annotated[str, Choice(words="atlas", key="AtlasSHA256", of=SERIES, shown=image_shown)] = ""

    def compared(self, choice: str) -> tuple[Any, ...]:
        """What tells two ways of a choice apart."""
        return tuple(getattr(self, name) for name in CHOICES[choice] if FIELDS[name].is_compared)

    def known(self, choice: str) -> bool:
        """Whether one of CHOICES is known, and applies."""
        return bool(self.measures if FIELDS[CHOICES[choice][0]].none else self.compared(choice)[0])

    def shown(self, choice: str) -> str:
        """One of CHOICES for people: its first field, and the others in brackets."""
        values = [(FIELDS[name], getattr(self, name)) for name in CHOICES[choice]]
        first, *others = (of.none if of.none and not value else of.shown(value) for of, value in values)
        return f"{first} ({': '.join(others)})" if others else first

    def difference(self, other: "Derivation", choices: Iterable[str] | None = None) -> str | None:
        """The first of these choices, or of all, that differs; what one of both does not say is not compared."""
        for choice in CHOICES if choices is None else choices:
            if self.known(choice) and other.known(choice) and self.compared(choice) != other.compared(choice):
                return choice
        return None

    def said(self, *of: str) -> dict[str, Any]:
        """Keys and values of the JSON beside a product, one kind after the other: EVERY, MAP, its name, PERSON."""
        fields = {field.key: getattr(self, name) for kind in of for name, field in FIELDS.items() if field.of == kind}
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items() if key}
        return {key: None if value == "" else value for key, value in values.items()}

    def with_defaults(self) -> "Derivation":
        """With what `derive` takes where nothing was said."""
        unsaid = {name: of.default for name, of in FIELDS.items() if of.default and not getattr(self, name)}
        return dataclasses.replace(self, **unsaid)

    def __str__(self) -> str:
        return ", ".join(f"{choice} {self.shown(choice)}" for choice in CHOICES if self.known(choice))

    @property
    def uncleaned(self) -> str:
        """A warning if no confounds were regressed out of the scans; empty if some were, here or before."""
        unknown = "" if self.scans else ", and whether that was done before is not known"
        warning = f"NOT CLEANED: no confounds were regressed out of the scans{unknown}. {STOP}"
        return warning if self.confounds == "none" and self.scans != "cleaned" else ""

    @property
    def in_paper(self) -> str:
        """All choices, and those that are not the same for all people, or not recorded."""
        parameters = {"full": 24, "derivatives": 12, "basic": 6}
        strategy, motion = STRATEGIES.get(self.confounds, ("", ""))
        of = f" (nilearn's strategy {strategy}, {parameters[motion]} parameters of head motion)" if strategy else ""
        open_ones = [choice for choice in choices(may_vary=True) if not self.known(choice)]
        left = f"; {' and '.join(open_ones)} differ between people, or are not recorded" if open_ones else ""
        return f"{self}{of}{left}"


FIELDS: dict[str, Choice] = {}
for field in dataclasses.fields(Derivation):
    FIELDS[field.name] = Derivation.__annotations__[field.name].__metadata__[0]
CHOICES: dict[str, tuple[str, ...]] = {}  # the fields of each, by its words; last those in which people may differ
for varies in (False, True):
    for name, of in FIELDS.items():
        if of.words and of.may_vary == varies:
            CHOICES[of.words] = (*CHOICES.get(of.words, ()), name)
IMAGES = (NETWORKS, PARCELS)  # fields whose option names a file; the sum of one is in `<field>_sha256`


def choices(may_vary: bool) -> list[str]:
    """Choices in which people of one cohort may differ, or must agree."""
    return [words for words, names in CHOICES.items() if FIELDS[names[0]].may_vary == may_vary]


def options() -> dict[str, Choice]:
    """The fields that are options of `derive`."""
    return {name: of for name, of in FIELDS.items() if of.flag}


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `Derivation`."""
    for of in options().values():
        parser.add_argument(f"--{of.flag}", **of.option)


def chosen(args: argparse.Namespace) -> "DerivationWithImages":
    """What the user said, as far as that is said."""
    said = {name: value for name, of in options().items() if (value := getattr(args, of.flag)) is not None}
    images = {name: said.pop(name, None) for name in IMAGES}
    return DerivationWithImages(Derivation(**said), **images)


@dataclass(frozen=True)
class DerivationWithImages:
    """A derivation with its images, as far as these are there."""

    derivation: Derivation
    networks: Path | None = None  # with their names in the .txt beside it
    parcels: Path | None = None  # with a table of names beside it, if there is one

    def write(self, target: Path) -> None:
        """Copies the images, byte by byte, into the folder of a cohort."""
        there = {stem: path for stem in IMAGES if (path := getattr(self, stem))}
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


def kept_in(folder: Path, derivation: Derivation) -> DerivationWithImages:
    """The derivation of a cohort with the images in its folder. Raises InputError, naming it, for an image or a table
    that is not what was written."""
    place = folder / FOLDER
    found = {stem: next(iter(sorted(place.glob(f"{stem}.nii*"))), None) for stem in IMAGES}
    for stem, path in found.items():
        if path and manifest.sum_of(path) != getattr(derivation, f"{stem}_sha256"):
            raise InputError(f"{path} is not the image that cohort.json names. Copy it again, or convert again.")
    return DerivationWithImages(derivation, **found)
