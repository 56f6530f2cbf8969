"""`derive --dryRun`: a plan -> who and how long; nothing is written."""

import time
from collections.abc import Iterator, Sequence

from threadpoolctl import threadpool_limits

from data.base.errors import InputError
from data.base.terminal import SummaryRow, format_duration
from data.derivation import person
from data.derivation.job import DerivationPlan, list_failed_people_by_reason
from data.derivation.person import PersonResult, PersonTask
from data.derivation.remarks import Remark, summarise_remarks


def preview_derivation(derivation_plan: DerivationPlan) -> list[SummaryRow]:
    """Facts on what `job.run_derivation` would do. Each scan's header, tables and mask are read as there, and one scan
    is derived, to know how long it takes."""
    doable_tasks = list[PersonTask]()
    failed_results = list(derivation_plan.failures)
    labelled_remarks = list[tuple[str, Remark]]()
    for task in derivation_plan.person_tasks:
        label = task.person.label
        try:
            opened_scans = [person.open_scan(scan_file, task.output) for scan_file in task.person.scan_files]
        except InputError as error:
            failed_results.append(PersonResult(label, failure_text=str(error)))
            continue
        doable_tasks.append(task)
        for opened_scan in opened_scans:
            labelled_remarks += [(label, remark) for remark in opened_scan.remarks]
            labelled_remarks += [(label, remark) for remark in opened_scan.parcel_remarks]
    return [
        *list_failed_people_by_reason(failed_results),
        *summarise_remarks(labelled_remarks),
        (
            "participants",
            f"{len(doable_tasks)} to derive, {derivation_plan.complete_count} are there, {len(failed_results)} cannot "
            "be derived",
        ),
        ("table", f"{derivation_plan.participant_table_path or 'none'} of participants"),
        *(describe_products_and_duration(doable_tasks, derivation_plan.process_count) if doable_tasks else []),
        ("dry run", "nothing was written"),
    ]


def describe_products_and_duration(doable_tasks: Sequence[PersonTask], process_count: int) -> Iterator[SummaryRow]:
    """Products and time; the latter by one scan, and the sizes of all."""
    first_task = doable_tasks[0]
    first_scan = first_task.person.scan_files[0]
    product_names = first_task.output.product_names
    yield "of each", ", ".join(product_names)
    start_time = time.monotonic()
    try:
        with threadpool_limits(first_task.thread_count):
            person.derive_scan(first_scan, first_task.output, product_names)
    except InputError as error:
        yield "time", f"not known yet, since the first scan cannot be derived. {error}"
        return
    first_scan_seconds = time.monotonic() - start_time
    first_scan_bytes = first_scan.path.stat().st_size
    total_scan_bytes = sum(
        scan_file.path.stat().st_size for task in doable_tasks for scan_file in task.person.scan_files
    )
    busy_process_count = min(process_count, len(doable_tasks))
    total_seconds = first_scan_seconds * total_scan_bytes / first_scan_bytes / busy_process_count
    yield (
        "time",
        f"about {format_duration(total_seconds)}, {process_count} at a time; {first_scan.path.name} took "
        f"{first_scan_seconds:.1f} s",
    )
