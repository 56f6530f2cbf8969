"""`abide-data derive`: a folder of preprocessed scans -> maps and series of everybody in a BIDS derivative.

One person who fails does not stop the others. Repeated, it does what is missing; several processes and the tasks of an
array may write one folder.
"""

import argparse
import atexit
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from data.base.archive import Archive
from data.base.errors import InputError
from data.base.manifest import sum_of
from data.base.pool import Pool
from data.base.processes import cpu_count
from data.cohorts.derivation import (
    DUAL_REGRESSION,
    FOLDER,
    IMAGES,
    STRATEGIES,
    Derivation,
    DerivationWithImages,
    kept_in,
    options,
)
from data.cohorts.rows import listed
from data.cohorts.stored import open_cohort
from data.conversion.discovery import table_near
from data.conversion.template import is_bundle, of_bundle, open_bundle
from data.derivation import images, output, page, person
from data.derivation.centrality import threads_of_blas
from data.derivation.measures import MEASURES
from data.derivation.options import DerivationOptions
from data.derivation.output import Products
from data.derivation.person import Done, PersonTask
from data.derivation.scans import ScanFile, ScannedPerson, find_people

DEFAULT_MAPS = ("falff",)
CARRIED = ("participants.tsv", "Phenotypic_*.csv")  # tables of people
HOW = {"cleaned": "cleaned of confounds before", "preprocessed": "not cleaned of confounds before"}
MAX_NAME = 100  # characters of a file's


@dataclass(frozen=True)
class Plan:
    """What is to be done, checked as far as it can be before scans are read."""

    tasks: list[PersonTask]
    failed: list[Done]  # who cannot be done
    jobs: int
    notes: list[str]
    folder: Path
    everybody: list[str]  # of all shares
    table: Path | None  # of people, to carry over
    maps: tuple[str, ...]
    begin: Callable[[], list[str]]  # writes what all people share; notes on it


def plan(folder: Path, target: Path, wanted: DerivationWithImages, options: DerivationOptions) -> Plan:
    """Finds scans, checks options and what is in `target`; writes nothing. Raises InputError."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected preprocessed 4-D scans.")
    kept = derivation_of(options.like) if options.like else None
    wanted = taken_over(wanted, kept, options.like) if kept and options.like else wanted
    products = products_of(wanted, kept.derivation if kept else Derivation())
    output.check_folder(target)
    every, notes = find_people(folder, options)
    unclear = {one.label for one in every if one.unclear}
    every = [output.chosen_before(one, target) for one in every]
    people = [one for one in every if not one.unclear]
    if settled := [one.label for one in people if one.label in unclear]:
        notes.append(f"Scans of {len(settled)} people as --only chose them before: {listed(settled)}.")
    if kept and options.like:
        notes += compared(people[0].scans[0], options.like, kept.derivation)
    confounds = products.derivation.confounds
    if people[0].scans[0].row.cleaned and confounds not in ("", "none"):
        raise InputError(f"--confounds {confounds} is for scans that were not cleaned before; leave it out.")
    place = output.Output(target, output.entities_in(target, people))
    if "task" not in dict(place.entities) and any("task" in of.entities for one in people for of in one.scans):
        notes.append("People have scans of several tasks, so no name holds one; choose with --only.")
    number, of = options.share
    share = every[number - 1 :: of]
    if of > 1:
        notes.append(f"Share {number} of {of}: {len(share)} of {len(every)} people.")
    threads = max(1, min(threads_of_blas(), cpu_count()) // options.jobs)  # of each process
    tasks = [PersonTask(one, products, place, threads) for one in share]
    failures = {task.person.label: failure for task in tasks if (failure := mistake(task))}
    table = table_of(folder, people, options)
    notes += described(people, confounds)
    failed = [Done(label, failure=failure) for label, failure in failures.items()]
    possible = [task for task in tasks if task.person.label not in failures]
    begin = partial(output.write_dataset, target, folder, table, products)
    everybody, maps = [one.label for one in every], products.derivation.measures
    return Plan(possible, failed, options.jobs, notes, target, everybody, table, maps, begin)


def mistake(task: PersonTask) -> str:
    """Why a person cannot be done, as far as options tell; empty if nothing is known. Raises InputError if what is
    there was made with other options."""
    if task.person.unclear:
        return task.person.unclear
    try:
        derivation = person.of_person(task.person, task.products.derivation)
    except InputError as error:
        return str(error)
    person.check_what_is_there(task, derivation, {})
    return ""


def products_of(wanted: DerivationWithImages, of: Derivation) -> Products:
    """What to make, with defaults where nothing is wanted, and the names that a derivation gave its images. Raises
    InputError for maps that are not known, or files that do not serve."""
    measures = tuple(dict.fromkeys(wanted.derivation.measures or (() if wanted.parcels else DEFAULT_MAPS)))
    known = (*MEASURES, DUAL_REGRESSION)
    if unknown := [name for name in measures if name not in known]:
        raise InputError(f"--maps {unknown[0]} is not known; expected of {', '.join(known)}.")
    if (DUAL_REGRESSION in measures) != bool(wanted.networks):
        raise InputError("dual_regression in --maps and a 4-D --networks FILE go together; give both or none.")
    networks = images.open_networks(wanted.networks, of.networks) if wanted.networks else None
    parcels = images.open_parcels(wanted.parcels, of.parcels) if wanted.parcels else None
    found = dict[str, Any](measures=measures)
    if networks:
        found |= {"networks": networks.file, "networks_sha256": networks.sha256, "network_names": networks.names}
    if parcels:
        found |= {"parcels": parcels.file, "parcels_sha256": parcels.sha256}
    return Products(replace(wanted.derivation.with_defaults(), **found), networks, parcels)


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
    for name, of in options().items():
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
        for name, option in options().items():
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
    return "none" if value in (None, False) else f"{value:g}" if isinstance(value, float) else str(value)


def image_of(name: str, wanted: DerivationWithImages, kept: DerivationWithImages, like: Path) -> Path | None:
    """One of IMAGES: the file that is wanted, if it is that of the derivation, or that which is kept."""
    given, there = getattr(wanted, name), getattr(kept, name)
    file, sha256 = getattr(kept.derivation, name), getattr(kept.derivation, f"{name}_sha256")
    flag = options()[name].flag
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
    if of.confounds not in (*STRATEGIES, "none"):
        notes.append(f"The people of {like} differ in confounds; here they are as without --like.")
    return notes


def table_of(folder: Path, people: Sequence[ScannedPerson], options: DerivationOptions) -> Path | None:
    """The table to carry over. Raises InputError if there are several."""
    if options.table:
        if not options.table.is_file():
            raise InputError(f"--table {options.table} is no file.")
        return options.table
    return table_near(folder, [of.path for one in people for of in one.scans], CARRIED)


def described(people: Sequence[ScannedPerson], confounds: str) -> list[str]:
    """Notes on confounds and masks, which are guesses where there are none."""
    files = [(one.label, scan) for one in people for scan in one.scans]
    if any(scan.row.cleaned for _, scan in files):
        used, why = "none", ", since the scans were cleaned before"
    elif not (confounds or any(scan.confounds for _, scan in files)):
        used, why = "none", ", since no scan has a table of them"
    else:
        used, why = confounds or "simple", ""
    notes = [f"Confounds: {used}{why}."]
    notes += filter(None, [Derivation(confounds=used, scans=files[0][1].treated).uncleaned])
    without = list(dict.fromkeys(label for label, scan in files if not scan.confounds))
    if used != "none" and not confounds and without:
        notes.append(
            f"No table of confounds: {len(without)} people, {listed(without)}; nothing is regressed out of theirs."
        )
    if without := list(dict.fromkeys(label for label, scan in files if not scan.mask)):
        notes.append(
            f"No mask: {len(without)} people, {listed(without)}; voxels that vary are taken, or, where nearly all "
            "do, those of nilearn's compute_epi_mask."
        )
    return notes


def run(planned: Plan) -> tuple[list[str], list[str]]:
    """Does the plan; lines on it, of failures one a reason, and who failed. Nobody is derived if all that is there is
    of other scans."""
    done, missing = list(planned.failed), dict[str, list[str]]()
    for task in planned.tasks:
        missing[task.person.label] = task.output.missing(task.person.label, task.products)
    begun = [task for task in planned.tasks if len(missing[task.person.label]) < len(task.products.names)]
    rest = [task for task in planned.tasks if missing[task.person.label]]
    with Pool(planned.jobs) as pool:
        checked = pool.run("Checking", person.check_person, [(task,) for task in begun]) if begun else []
        clashes = [one.label for one in checked if one.failure]
        done += [one for one in checked if one.failure or not missing[one.label]]
        of_others = len(clashes) == len(begun) > 0
        if todo := [(task,) for task in rest if task.person.label not in clashes and not of_others]:
            done += pool.run("Deriving", person.derive_person, todo)
    notes = dict[str, list[str]]()
    for one in done:
        for note in dict.fromkeys(one.notes):
            notes.setdefault(note, []).append(one.label)
    failed, of_page = [one.label for one in done if one.failure], list[str]()
    there = sum(not one.written and not one.failure for one in done)
    if not of_others:
        for one in done:
            page.keep_failure(planned.folder / f"sub-{one.label}", one.failure)
        of_page.append(page.write(planned.folder, planned.everybody, planned.table, planned.maps))
    else:
        notes["Nobody is derived before this is settled"] = clashes
    return [
        *why_failed(done),
        *(f"{len(labels)} people: {note}: {listed(labels)}." for note, labels in notes.items()),
        *of_page,
        f"{len(done) - there - len(failed)} people derived, {there} were there, {len(failed)} failed.",
    ], failed


def why_failed(done: Sequence[Done]) -> list[str]:
    """A line for each reason, with all whom it befell."""
    failures = {one.label: one.failure for one in done if one.failure}
    return [
        f"{', '.join(map('sub-{}'.format, of))}: {reason if len(of) > 1 else failures[of[0]]}"
        for reason, of in page.by_reason(failures.items()).items()
    ]
