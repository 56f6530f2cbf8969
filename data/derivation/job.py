"""`abide-data derive`: a folder of preprocessed scans -> maps and series of everybody in a BIDS derivative.

One person who fails does not stop the others. Repeated, it does what is missing; several processes and the tasks of an
array may write one folder.
"""

import atexit
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from data.base.archive import Archive, open_archive
from data.base.errors import InputError
from data.base.listing import join_names
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
    find_derivation_image_paths,
)
from data.cohorts.stored import open_cohort
from data.conversion.discovery import find_participants_table_near
from data.conversion.template import is_bundle, read_template
from data.derivation import images, output
from data.derivation.centrality import count_blas_threads
from data.derivation.measures import MEASURE_FUNCTIONS
from data.derivation.options import DerivationOptions
from data.derivation.output import DerivationOutput
from data.derivation.person import PersonResult, PersonTask, derive_person
from data.derivation.remarks import summarise_remarks
from data.derivation.scans import ScannedPerson, find_scanned_people
from data.tables.people import PARTICIPANT_TABLE_GLOBS

DEFAULT_MEASURES = ("falff",)


@dataclass(frozen=True)
class DerivationPlan:
    """What is to be done, checked as far as it can be before scans are read."""

    output: DerivationOutput
    scans_folder: Path  # of preprocessed scans
    participant_table_path: Path | None  # of people, to carry over
    all_person_labels: list[str]  # of all shares
    person_tasks: list[PersonTask]
    complete_count: int  # people of whom nothing is missing
    failures: list[PersonResult]  # who cannot be done
    process_count: int
    plan_summary_rows: list[SummaryRow]


def plan_derivation(scans_folder: Path, output_folder: Path, options: DerivationOptions) -> DerivationPlan:
    """Finds scans, checks options and what is in `output_folder`; writes nothing. Raises InputError."""
    if not scans_folder.is_dir():
        raise InputError(f"{scans_folder} is not a folder; expected preprocessed 4-D scans.")
    output.check_output_folder(output_folder)
    all_people, summary_rows = find_scanned_people(scans_folder, options)
    clear_people = [person for person in all_people if not person.unclear_reason]

    files_by_label = output.find_derived_files(output_folder)
    bids_entities = output.find_shared_entities(clear_people, files_by_label)
    planned_output = make_derivation_output(output_folder, options, clear_people, bids_entities)
    planned_output.check_same_options(files_by_label)
    scans_have_task = any(
        "task" in scan_file.bids_entities for person in clear_people for scan_file in person.scan_files
    )
    if scans_have_task and "task" not in dict(bids_entities):
        summary_rows.append(
            ("tasks", "participants have scans of several tasks, so no name holds one; choose with --only")
        )
    participant_table_path = find_participant_table_path(scans_folder, clear_people, options)

    share_number, share_count = options.share
    share_people = all_people[share_number - 1 :: share_count]
    if share_count > 1:
        summary_rows.append(
            ("share", f"{share_number} of {share_count}: {len(share_people)} of {format_participants(len(all_people))}")
        )
    threads_per_process = max(1, min(count_blas_threads(), cpu_count()) // options.jobs)
    person_tasks = list[PersonTask]()
    failures = list[PersonResult]()
    for person in share_people:
        try:
            if planned_output.find_missing_products(person, files_by_label):
                person_tasks.append(PersonTask(person, planned_output, threads_per_process))
        except InputError as error:
            failures.append(PersonResult(person.label, failure_text=str(error)))

    summary_rows += describe_derivation(clear_people, planned_output.derivation)
    return DerivationPlan(
        output=planned_output,
        scans_folder=scans_folder,
        participant_table_path=participant_table_path,
        all_person_labels=[person.label for person in all_people],
        person_tasks=person_tasks,
        complete_count=len(share_people) - len(person_tasks) - len(failures),
        failures=failures,
        process_count=options.jobs,
        plan_summary_rows=summary_rows,
    )


def make_derivation_output(
    output_folder: Path,
    options: DerivationOptions,
    people: Sequence[ScannedPerson],
    bids_entities: tuple[tuple[str, str], ...],
) -> DerivationOutput:
    """What to make, and how: as the options say, else as in the cohort or bundle of --like, else by default. Raises
    InputError for options that do not go together or differ from those of --like, and for files that do not serve."""
    template_derivation = None
    template_image_path_by_name = dict[str, Path]()
    if options.like:
        template_derivation, template_image_path_by_name = load_template_derivation_and_images(options.like)
    first_scan_file = people[0].scan_files[0]
    base_derivation = template_derivation
    if base_derivation is None:
        default_measures = () if options.series else DEFAULT_MEASURES
        base_derivation = Derivation(measures=default_measures, confounds=choose_default_confounds(people))

    measure_names = tuple(dict.fromkeys(options.maps or base_derivation.measures))
    allowed_measure_names = (*MEASURE_FUNCTIONS, DUAL_REGRESSION_MEASURE)
    if unknown_measure_names := [name for name in measure_names if name not in allowed_measure_names]:
        raise InputError(
            f"--maps {unknown_measure_names[0]} is not known; expected of {', '.join(allowed_measure_names)}."
        )
    if first_scan_file.naming_rule.is_cleaned and (options.confounds or "none") != "none":
        raise InputError(f"--confounds {options.confounds} is for scans that were not cleaned before; leave it out.")

    image_file_by_name = dict[str, images.ImageFile]()
    for image_name, requested_path, open_image in (
        (NETWORKS_IMAGE, options.networks, images.open_networks),
        (PARCELS_IMAGE, options.series, images.open_parcels),
    ):
        template_image: DerivationImage | None = getattr(base_derivation, image_name)
        image_path = requested_path or template_image_path_by_name.get(image_name)
        if image_path:
            image_file_by_name[image_name] = open_image(image_path, template_image.file if template_image else "")
        elif template_image:
            raise InputError(
                f"{options.like} does not keep the {image_name} {template_image.file}; name the same file."
            )
    if (DUAL_REGRESSION_MEASURE in measure_names) != (NETWORKS_IMAGE in image_file_by_name):
        raise InputError("dual_regression in --maps and a 4-D --networks FILE go together; give both or none.")

    image_identity_by_name = {name: image_file.image_identity for name, image_file in image_file_by_name.items()}
    derivation = Derivation(
        measures=measure_names,
        band=options.band or base_derivation.band,
        smoothing_mm=options.smooth or base_derivation.smoothing_mm,
        scans=first_scan_file.cleaning_state or "unknown",
        confounds=options.confounds or base_derivation.confounds,
        **image_identity_by_name,
    )
    if template_derivation and (difference_texts := describe_option_differences(derivation, template_derivation)):
        raise InputError(
            f"--like {options.like} was derived otherwise: here {'; '.join(difference_texts)}. Leave these options "
            "out, and take scans that were treated alike before, or leave out --like."
        )
    return DerivationOutput(output_folder, derivation, image_file_by_name, bids_entities)


def choose_default_confounds(people: Sequence[ScannedPerson]) -> str:
    """The confounds of scans: none if they were cleaned before, or if none has a table."""
    has_confounds_table = any(
        scan_file.confounds_table_path and not scan_file.naming_rule.is_cleaned
        for person in people
        for scan_file in person.scan_files
    )
    return "simple" if has_confounds_table else "none"


def load_template_derivation_and_images(template_path: Path) -> tuple[Derivation, dict[str, Path]]:
    """How the maps of a cohort, or of that of a bundle, were derived, with its images. Raises InputError if that is not
    known."""
    if is_bundle(template_path):
        bundle = open_archive(template_path)
        derivation = read_template(bundle).cohort.metadata.derivation
        tables_folder: Path | None = extract_derivation_images(bundle)
    else:
        cohort = open_cohort(template_path)
        derivation = cohort.metadata.derivation
        tables_folder = cohort.tables_folder
    if derivation is None or tables_folder is None:
        raise InputError(
            f"{template_path} does not say how its maps were derived from scans; expected a cohort that convert made, "
            "for all participants alike, of what derive wrote. Convert it again, or leave out --like and give the "
            "options."
        )
    return derivation, find_derivation_image_paths(tables_folder)


def extract_derivation_images(bundle: Archive) -> Path:
    """A folder with the images in a bundle, which lasts as long as this process."""
    tables_folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, tables_folder, ignore_errors=True)
    (tables_folder / DERIVATION_FOLDER).mkdir()
    for file_name, content in bundle.bytes_by_member.items():
        if file_name.startswith(f"{DERIVATION_FOLDER}/"):
            (tables_folder / file_name).write_bytes(content)
    return tables_folder


def find_participant_table_path(
    scans_folder: Path, people: Sequence[ScannedPerson], options: DerivationOptions
) -> Path | None:
    """The table to carry over. Raises InputError if there are several."""
    if options.table:
        if not options.table.is_file():
            raise InputError(f"--table {options.table} is no file.")
        return options.table
    scan_paths = [scan_file.path for person in people for scan_file in person.scan_files]
    return find_participants_table_near(scans_folder, scan_paths, PARTICIPANT_TABLE_GLOBS)


def describe_derivation(people: Sequence[ScannedPerson], derivation: Derivation) -> Iterator[SummaryRow]:
    """Facts on how scans are treated, and on what is missing beside them."""
    yield "derived", f"{', '.join(derivation.measures) or 'series'}; {derivation}"
    if derivation.uncleaned_warning:
        yield "WARNING", derivation.uncleaned_warning
    maskless_labels = list[str]()
    for person in people:
        if any(scan_file.mask_path is None for scan_file in person.scan_files):
            maskless_labels.append(person.label)
    if maskless_labels:
        mask_explanation = "voxels that vary are taken, or, where nearly all do, those of nilearn's compute_epi_mask"
        yield (
            "no mask",
            f"{format_participants(len(maskless_labels))}, {join_names(maskless_labels)}; {mask_explanation}",
        )


def run_derivation(derivation_plan: DerivationPlan) -> tuple[list[SummaryRow], list[str]]:
    """Does the plan; returns facts, of failures one for each reason, and who failed."""
    participant_table_message = output.write_shared_dataset_files(
        derivation_plan.output, derivation_plan.scans_folder, derivation_plan.participant_table_path
    )
    new_person_results = list[PersonResult]()
    with Pool(derivation_plan.process_count) as process_pool:
        if derivation_plan.person_tasks:
            pool_arguments = [(task,) for task in derivation_plan.person_tasks]
            new_person_results = process_pool.run("Deriving", derive_person, pool_arguments)

    all_person_results = [*derivation_plan.failures, *new_person_results]
    failure_text_by_label = {result.label: result.failure_text for result in all_person_results}
    derived_table_path = output.write_derived_table(
        derivation_plan.output.output_folder, derivation_plan.all_person_labels, failure_text_by_label
    )

    failed_labels = [result.label for result in all_person_results if result.failure_text]
    derived_count = len(all_person_results) - len(failed_labels)
    summary_rows = [
        ("table", participant_table_message),
        *list_failed_people_by_reason(all_person_results),
        *summarise_remarks((result.label, remark) for result in new_person_results for remark in result.remarks),
        (
            "participants",
            f"{derived_count} derived, {derivation_plan.complete_count} were there, {len(failed_labels)} failed; see "
            f"{derived_table_path}",
        ),
    ]
    return summary_rows, failed_labels


def list_failed_people_by_reason(results: Iterable[PersonResult]) -> list[SummaryRow]:
    """A fact for each reason, with all whom it befell."""
    results_by_reason = dict[str, list[PersonResult]]()
    for result in results:
        if result.failure_text:
            reason = result.failure_text.replace(f"sub-{result.label}", "sub-*")
            results_by_reason.setdefault(reason, []).append(result)

    summary_rows = list[SummaryRow]()
    for reason, failed_results in results_by_reason.items():
        labels_text = ", ".join(f"sub-{result.label}" for result in failed_results)
        reason_text = reason if len(failed_results) > 1 else failed_results[0].failure_text
        summary_rows.append(("FAILED", f"{labels_text}: {reason_text}"))
    return summary_rows
