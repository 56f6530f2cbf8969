"""`derive --dryRun`: a plan -> who and how long; nothing is written."""

import time
from collections.abc import Iterator, Sequence

from threadpoolctl import threadpool_limits

from data.base.errors import InputError
from data.base.terminal import SummaryRow, format_duration
from data.derivation import person
from data.derivation.job import Plan, why_failed
from data.derivation.person import Done, PersonTask
from data.derivation.remarks import Remark, remark_facts


def preview(planned: Plan) -> list[SummaryRow]:
    """Facts on what `job.run` would do. Each scan's header, tables and mask are read as there, and one scan is derived,
    to know how long it takes."""
    todo, failed = list[PersonTask](), list(planned.failed)
    remarks = list[tuple[str, Remark]]()
    for task in planned.tasks:
        label = task.person.label
        try:
            scans = [person.opened(scan, task.output) for scan in task.person.scans]
            todo.append(task)
            remarks += [(label, remark) for scan in scans for remark in [*scan.remarks, *scan.parcel_remarks]]
        except InputError as error:
            failed.append(Done(label, failure=str(error)))
    return [
        *why_failed(failed),
        *remark_facts(remarks),
        ("participants", f"{len(todo)} to derive, {planned.there} are there, {len(failed)} cannot be derived"),
        ("table", f"{planned.table or 'none'} of participants"),
        *(expected(todo, planned.jobs) if todo else []),
        ("dry run", "nothing was written"),
    ]


def expected(todo: Sequence[PersonTask], jobs: int) -> Iterator[SummaryRow]:
    """Products and time; the latter by one scan, and the sizes of all."""
    first = todo[0]
    scan, names = first.person.scans[0], first.output.products
    yield "of each", ", ".join(names)
    started = time.monotonic()
    try:
        with threadpool_limits(first.threads):
            person.derived(scan, first, names)
    except InputError as error:
        yield "time", f"not known yet, since the first scan cannot be derived. {error}"
        return
    seconds = time.monotonic() - started
    of_all = sum(of.path.stat().st_size for task in todo for of in task.person.scans)
    total = seconds * of_all / scan.path.stat().st_size / min(jobs, len(todo))
    yield "time", f"about {format_duration(total)}, {jobs} at a time; {scan.path.name} took {seconds:.1f} s"
