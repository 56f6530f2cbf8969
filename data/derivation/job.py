"""`abide-data derive`: a folder of preprocessed scans -> maps and series of everybody in a BIDS derivative.

One person who fails does not stop the others. Repeated, it does what is missing; several processes and the tasks of an
array may write one folder.
"""

import atexit
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from data.base.archive import open_archive
from data.base.errors import InputError
from data.base.pool import Pool
from data.base.processes import cpu_count
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.derivation import (
    DERIVATION_FOLDER,
    DUAL_REGRESSION_MEASURE,
    NETWORKS_IMAGE,
    PARCELS_IMAGE,
    Derivation,
    DerivationImage,
    describe_option_differences,
    find_derivation_images,
)
from data.cohorts.rows import join_names
from data.cohorts.stored import open_cohort
from data.conversion.discovery import find_table_near
from data.conversion.template import is_bundle, read_template
from data.derivation import images, output
from data.derivation.centrality import threads_of_blas
from data.derivation.measures import MEASURES
from data.derivation.options import DerivationOptions
from data.derivation.output import Output
from data.derivation.person import Done, PersonTask, derive_person
from data.derivation.remarks import remark_facts
from data.derivation.scans import ScannedPerson, find_people

DEFAULT_MAPS = ("falff",)
CARRIED = ("participants.tsv", "Phenotypic_*.csv")  # tables of people


@dataclass(frozen=True)
class Plan:
    """What is to be done, checked as far as it can be before scans are read."""

    output: Output
    scans: Path  # the folder
    table: Path | None  # of people, to carry over
    everybody: list[str]  # of all shares
    tasks: list[PersonTask]
    there: int  # people of whom nothing is missing
    failed: list[Done]  # who cannot be done
    jobs: int
    facts: list[SummaryRow]


def plan(folder: Path, target: Path, options: DerivationOptions) -> Plan:
    """Finds scans, checks options and what is in `target`; writes nothing. Raises InputError."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected preprocessed 4-D scans.")
    output.check_folder(target)
    everybody, facts = find_people(folder, options)
    clear = [one for one in everybody if not one.unclear]
    made = output.made_in(target)
    entities = output.entities_of_all(clear, made)
    wanted = replace(wanted_of(target, options, clear), entities=entities)
    wanted.check_options(made)
    if "task" not in dict(entities) and any("task" in scan.bids_entities for one in clear for scan in one.scans):
        facts.append(("tasks", "participants have scans of several tasks, so no name holds one; choose with --only"))
    table = table_of(folder, clear, options)
    number, of = options.share
    share = everybody[number - 1 :: of]
    if of > 1:
        facts.append(("share", f"{number} of {of}: {len(share)} of {format_participants(len(everybody))}"))
    threads = max(1, min(threads_of_blas(), cpu_count()) // options.jobs)  # of each process
    tasks, failed = list[PersonTask](), list[Done]()
    for one in share:
        try:
            if wanted.missing(one, made):
                tasks.append(PersonTask(one, wanted, threads))
        except InputError as error:
            failed.append(Done(one.label, failure=str(error)))
    there = len(share) - len(tasks) - len(failed)
    labels = [one.label for one in everybody]
    facts += described(clear, wanted.derivation)
    return Plan(wanted, folder, table, labels, tasks, there, failed, options.jobs, facts)


def wanted_of(target: Path, options: DerivationOptions, people: Sequence[ScannedPerson]) -> Output:
    """What to make, and how: as the options say, else as in the cohort `like`, else by default. Raises InputError for
    options that do not go together or differ from those of `like`, and for files that do not serve."""
    like, kept = derivation_of(options.like) if options.like else (None, {})
    scan = people[0].scans[0]
    base = like or Derivation(measures=() if options.series else DEFAULT_MAPS, confounds=automatic(people))
    measures = tuple(dict.fromkeys(options.maps or base.measures))
    known = (*MEASURES, DUAL_REGRESSION_MEASURE)
    if unknown := [name for name in measures if name not in known]:
        raise InputError(f"--maps {unknown[0]} is not known; expected of {', '.join(known)}.")
    if scan.naming_rule.is_cleaned and (options.confounds or "none") != "none":
        raise InputError(f"--confounds {options.confounds} is for scans that were not cleaned before; leave it out.")
    opened = dict[str, images.ImageFile]()
    given = {NETWORKS_IMAGE: options.networks, PARCELS_IMAGE: options.series}
    for name, open_image in ((NETWORKS_IMAGE, images.open_networks), (PARCELS_IMAGE, images.open_parcels)):
        image: DerivationImage | None = getattr(base, name)
        if path := given[name] or kept.get(name):
            opened[name] = open_image(path, image.file if image else "")
        elif image:
            raise InputError(f"{options.like} does not keep the {name} {image.file}; name the same file.")
    if (DUAL_REGRESSION_MEASURE in measures) != (NETWORKS_IMAGE in opened):
        raise InputError("dual_regression in --maps and a 4-D --networks FILE go together; give both or none.")
    derivation = Derivation(
        measures=measures,
        band=options.band or base.band,
        smoothing_mm=options.smooth or base.smoothing_mm,
        scans=scan.treated or "unknown",
        confounds=options.confounds or base.confounds,
        **{name: file.said for name, file in opened.items()},
    )
    if like and (told := describe_option_differences(derivation, like)):
        raise InputError(
            f"--like {options.like} was derived otherwise: here {'; '.join(told)}. Leave these options out, and take "
            "scans that were treated alike before, or leave out --like."
        )
    return Output(target, derivation, opened)


def automatic(people: Sequence[ScannedPerson]) -> str:
    """The confounds of scans: none if they were cleaned before, or if none has a table."""
    usable = any(scan.confounds and not scan.naming_rule.is_cleaned for one in people for scan in one.scans)
    return "simple" if usable else "none"


def derivation_of(path: Path) -> tuple[Derivation, dict[str, Path]]:
    """How the maps of a cohort, or of that of a bundle, were derived, with its images. Raises InputError if that is not
    known."""
    bundle = open_archive(path) if is_bundle(path) else None
    cohort = read_template(bundle).cohort if bundle else open_cohort(path)
    found, folder = cohort.metadata.derivation, cohort.tables_folder
    if bundle:
        folder = Path(mkdtemp())  # which lasts as long as this process
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (folder / DERIVATION_FOLDER).mkdir()
        for name, content in bundle.bytes_by_member.items():
            if name.startswith(f"{DERIVATION_FOLDER}/"):
                (folder / name).write_bytes(content)
    if found is None or folder is None:
        raise InputError(
            f"{path} does not say how its maps were derived from scans; expected a cohort that convert made, for all "
            "participants alike, of what derive wrote. Convert it again, or leave out --like and give the options."
        )
    return found, find_derivation_images(folder)


def table_of(folder: Path, people: Sequence[ScannedPerson], options: DerivationOptions) -> Path | None:
    """The table to carry over. Raises InputError if there are several."""
    if options.table:
        if not options.table.is_file():
            raise InputError(f"--table {options.table} is no file.")
        return options.table
    return find_table_near(folder, [of.path for one in people for of in one.scans], CARRIED)


def described(people: Sequence[ScannedPerson], derivation: Derivation) -> Iterator[SummaryRow]:
    """How scans are treated, and on what is missing beside them."""
    files = [(one.label, scan) for one in people for scan in one.scans]
    yield "derived", f"{', '.join(derivation.measures) or 'series'}; {derivation}"
    if derivation.uncleaned_warning:
        yield "WARNING", derivation.uncleaned_warning
    if without := list(dict.fromkeys(label for label, scan in files if not scan.mask)):
        voxels = "voxels that vary are taken, or, where nearly all do, those of nilearn's compute_epi_mask"
        yield "no mask", f"{format_participants(len(without))}, {join_names(without)}; {voxels}"


def run(planned: Plan) -> tuple[list[SummaryRow], list[str]]:
    """Does the plan; facts on it, of failures one a reason, and who failed."""
    carried = output.write_dataset(planned.output, planned.scans, planned.table)
    with Pool(planned.jobs) as pool:
        done = pool.run("Deriving", derive_person, [(task,) for task in planned.tasks]) if planned.tasks else []
    every = [*planned.failed, *done]
    failed = [one.label for one in every if one.failure]
    table = output.write_table(planned.output.folder, planned.everybody, {one.label: one.failure for one in every})
    derived = len(every) - len(failed)
    return [
        ("table", carried),
        *why_failed(every),
        *remark_facts((one.label, remark) for one in done for remark in one.remarks),
        ("participants", f"{derived} derived, {planned.there} were there, {len(failed)} failed; see {table}"),
    ], failed


def why_failed(done: Iterable[Done]) -> list[SummaryRow]:
    """A fact for each reason, with all whom it befell."""
    reasons = dict[str, list[Done]]()
    for one in done:
        if one.failure:
            reasons.setdefault(one.failure.replace(f"sub-{one.label}", "sub-*"), []).append(one)
    return [
        (
            "FAILED",
            f"{', '.join(f'sub-{one.label}' for one in whose)}: {reason if len(whose) > 1 else whose[0].failure}",
        )
        for reason, whose in reasons.items()
    ]
