"""`derive --dryRun`: a plan -> who, of which sites and how long; nothing is written."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from threadpoolctl import threadpool_limits

from data.base.errors import InputError
from data.base.terminal import Fact, duration
from data.cohorts.rows import listed
from data.conversion.sites import SITE_COLUMNS
from data.conversion.tables import key, matching_column, read_table
from data.derivation import person
from data.derivation.job import Plan, why_failed
from data.derivation.person import Done, PersonTask


def preview(planned: Plan) -> list[Fact]:
    """Facts on what `job.run` would do. Each scan's header and tables are read as there, and one scan is derived, to
    know how long it takes."""
    todo, failed = list[PersonTask](), list(planned.failed)
    for task in planned.tasks:
        try:
            for scan in task.person.scans:
                person.opened(scan, task.output.derivation.confounds)
            todo.append(task)
        except InputError as error:
            failed.append(Done(task.person.label, failure=str(error)))
    return [
        *why_failed(failed),
        ("participants", f"{len(todo)} to derive, {planned.there} are there, {len(failed)} cannot be derived"),
        *of_table(planned),
        *(expected(todo, planned.jobs) if todo else []),
        ("dry run", "nothing was written"),
    ]


def of_table(planned: Plan) -> Iterator[Fact]:
    """What the table of people says of those with scans: their sites, and who has no row."""
    labels = {key(label): label for label in planned.everybody}
    if planned.table is None:
        return
    table = read_table(planned.table)
    yield "table", f"{planned.table}: {', '.join(table.columns)}"
    try:
        of_row = table[matching_column(table, {*labels}, planned.table)].map(key)
    except InputError as error:
        yield "", f"convert could not use it: {error}"
        return
    if absent := sorted(label for of_label, label in labels.items() if of_label not in set(of_row)):
        yield "", f"without a row in it, so that convert leaves them out: {len(absent)}, {listed(absent)}"
    if name := next((name for name in SITE_COLUMNS if name in table), None):
        counts = sorted(Counter(table.loc[of_row.isin(list(labels)), name]).items())
        yield "sites", f"by {name}: {', '.join(f'{site} {count}' for site, count in counts)}"


def expected(todo: Sequence[PersonTask], jobs: int) -> Iterator[Fact]:
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
    yield "time", f"about {duration(total)}, {jobs} at a time; {scan.path.name} took {seconds:.1f} s"
