"""One person's maps, phenotype and series -> a cohort of one in a temporary folder -> what networks of a bundle say.

The files are converted as `python -m data convert --like BUNDLE` does, and predicted as `run.py --test --bundle` does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from data.base import files, tables
from data.base.errors import InputError
from data.cohorts.cohort import Cohort, identified, open_cohort
from data.cohorts.nifti import beside
from data.cohorts.phenotype import ABIDE_COLUMNS
from data.cohorts.rows import listed
from data.conversion.convert import convert_like
from data.conversion.options import SourceOptions
from data.conversion.plan import is_abide
from data.conversion.source import read_source
from data.likeness.reference import unlike
from utils.bundle.model import Bundle
from utils.bundle.people import LEVEL, NOT_COMPARED, Person, explained, people, said
from utils.bundle.run import BundledRun, on_cohort
from utils.jobs import TEST
from utils.machines.devices import start_on_cpu
from utils.runs.run import Options

ID, ID_COLUMN = "person", "participant_id"
ENDINGS = (".nii.gz", ".nii")
TABLE = "people.csv"
PROGRAM = "python -m utils.predict"


@dataclass(frozen=True)
class Given:
    """What a user gives: files of maps by their names, phenotype by column, series of parcels."""

    maps: dict[str, str]
    phenotype: dict[str, str]
    series: Path | None


@dataclass(frozen=True)
class Predicted:
    """What is said of a person: `unlike`, reasons why training people were otherwise, None if that is not known;
    `effects` (regions,) of a blackout by the background on the logit of autism, None if no volume is read; `notes`."""

    person: Person
    networks: int
    unlike: tuple[str, ...] | None
    effects: np.ndarray | None
    notes: tuple[str, ...]
    marks: str

    def lines(self) -> list[str]:
        """For a terminal."""
        return [f"For research, not a diagnosis{self.marks}.", *self.told, *self.notes]

    @property
    def told(self) -> list[str]:
        """The prediction in sentences."""
        person, found = self.person, []
        if person.probability is None:
            found.append(f"Probability of autism, not calibrated: {person.raw:.2f}.")
        else:
            ensemble = f", of single networks {person.low:.2f} to {person.high:.2f}" if self.networks > 1 else ""
            found.append(
                f"Probability of autism: {person.probability:.2f} (before calibration {person.raw:.2f}{ensemble})."
            )
            found.append(f"Set of labels at {LEVEL:.0%}: {said(person)}.")
        if self.unlike is None:
            found.append(NOT_COMPARED)
        elif self.unlike:
            found.append(f"UNLIKE the training people, so do not rely on this: {'; '.join(self.unlike)}.")
        else:
            found.append("Nothing looked at is unlike the training people.")
        return found


def predicted(bundle: Bundle, given: Given, prevalence: float | None) -> Predicted:
    """Raises InputError for files or values that the bundle cannot read."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        with naming_files_of(folder / "source"):
            notes = linked(bundle, given, folder / "source")
            cohort = converted(bundle, folder / "source", folder / "cohort")
        run = on_cohort(bundle, cohort, TEST, Options(), folder / "results")
        each, effects = measured(run)
        reasons = unlike(bundle.reference, cohort, [0])[0] if bundle.reference else None
    (person,) = people(bundle.calibration, each, prevalence)
    notes.append(explained(bundle.calibration, prevalence))
    return Predicted(person, len(each), reasons, effects, tuple(notes), bundle.model.caveats.marks)


@contextmanager
def naming_files_of(folder: Path) -> Iterator[None]:
    """Errors name the user's files in place of the links in the folder."""
    try:
        yield
    except InputError as error:
        text = str(error)
        for link in sorted(folder.iterdir() if folder.is_dir() else (), key=lambda path: -len(path.name)):
            if link.is_symlink():
                text = text.replace(str(link), os.readlink(link))
        raise InputError(text) from error


def linked(bundle: Bundle, given: Given, folder: Path) -> list[str]:
    """Makes a folder of links to the files, named as the PCP names them, and a table of one row; notes on what is
    unknown. Raises InputError for what the bundle does not read, and what it lacks."""
    metadata = bundle.like.cohort.metadata
    check_maps(bundle, given)
    folder.mkdir()
    for name, path in given.maps.items():
        link(Path(path), folder / f"{ID}_{name}{ending(Path(path))}")
    if metadata.connectome:
        name = metadata.connectome
        of_bids = f"sub-{ID}_{name}_timeseries{given.series.suffix}" if given.series else ""
        link(Path(str(given.series)), folder / (of_bids if name.startswith("seg-") else f"{ID}_{name}.1D"))
    columns = dict.fromkeys(
        [*(ABIDE_COLUMNS if is_abide(metadata) else metadata.phenotype_columns), *metadata.covariate_columns]
    )
    if unknown := [name for name in given.phenotype if name not in columns]:
        raise InputError(
            f"--phenotype {unknown[0]} is no column that {bundle.path} knows; it has {', '.join(columns)}."
        )
    absent = [name for name in columns if name not in given.phenotype]
    row = pd.DataFrame([{ID_COLUMN: ID} | {name: given.phenotype.get(name, "") for name in columns}])
    tables.write_frame(folder / TABLE, row)
    return [f"Not given, and taken as unknown: {', '.join(absent)}."] if absent else []


def link(source: Path, target: Path) -> None:
    """A link to a file and, if it is an image, to the JSON beside it."""
    target.symlink_to(source.absolute())
    if target.name.endswith(ENDINGS) and (described := beside(source, ".json")).is_file():
        beside(target, ".json").symlink_to(described.absolute())


def converted(bundle: Bundle, source: Path, target: Path) -> Cohort:
    """The cohort of one person; what is printed on the way is about cohorts, and is not shown."""
    metadata = bundle.like.cohort.metadata
    options = SourceOptions(maps=metadata.maps, connectome=metadata.connectome or None, table=source / TABLE)
    with redirect_stdout(StringIO()):
        convert_like(read_source(source, options, optional=True), target, bundle.like, PROGRAM)
    return identified(open_cohort(target))


def measured(run: BundledRun) -> tuple[np.ndarray, np.ndarray | None]:
    """The probabilities of autism by each network (networks, 1), and the mean effects of a blackout (regions,)."""
    start_on_cpu()
    from utils.inference import outputs_of, probability_of_autism  # TensorFlow, once nothing is wrong with the files
    from utils.predict.regions import background_effects

    each, effects = [], []
    for of_network, network in run.networks:
        ((_, _, logits),) = outputs_of(of_network, network, [np.array([0])])
        each.append(probability_of_autism(logits))
        if run.model.occludable:
            effects.append(background_effects(network, of_network.cohort))
    return np.stack(each), np.mean(effects, axis=0) if effects else None


def check_maps(bundle: Bundle, given: Given) -> None:
    """Raises InputError unless files for all maps, and no others, and the series are given."""
    cohort = bundle.like.cohort
    of = {name: [one for one in cohort.maps if one == name or one.startswith(f"{name}_")] for name in given.maps}
    if odd := [name for name, maps in of.items() if not maps]:
        raise InputError(f"--maps {odd[0]} is no map of {bundle.path}; it reads {', '.join(cohort.maps)}.")
    if lacking := [name for name in cohort.maps if not any(name in maps for maps in of.values())]:
        raise InputError(f"--maps lacks {listed(lacking)}, which {bundle.path} reads; give a file of each, NAME=FILE.")
    if cohort.metadata.connectome and given.series is None:
        raise InputError(f"{bundle.path} reads connectomes of {cohort.metadata.connectome}; give --series FILE.")
    if given.series and not cohort.metadata.connectome:
        raise InputError(f"{bundle.path} reads no connectomes; leave --series {given.series} out.")
    for path in [Path(name) for name in given.maps.values()] + ([given.series] if given.series else []):
        if not path.exists():
            raise InputError(f"{path} does not exist; expected a file.")
        files.regular(path)


def ending(path: Path) -> str:
    """`.nii.gz` or `.nii`."""
    found = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if found is None:
        raise InputError(f"{path} is no NIfTI by its name; expected {' or '.join(ENDINGS)}.")
    return found
