"""abide-data check: a cohort, or a folder of maps -> counts, and whatever in it would invalidate a result.

People are compared with each other as new people are with those of a training (`data/likeness`); beside that, groups
of people are: by kind of map, label, site and scan.
"""

import hashlib
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import manifest, tables
from data.base.errors import InputError
from data.base.pool import Pool
from data.base.terminal import joined, participants, print_facts, progress
from data.cohorts import atlas, near_duplicates, records, resampling
from data.cohorts.cohort import COVARIATES, MAPS, PHENOTYPE, Cohort
from data.cohorts.covariates import ODD, odd_numbers
from data.cohorts.derivation import TABLE as DERIVED
from data.cohorts.duplicates import People, known_groups, search
from data.cohorts.entries import Entry
from data.cohorts.findings import CohortFindings, Findings, write_verdict
from data.cohorts.forecast import forecast
from data.cohorts.phenotype import clean, impossible_values, missing_in, write_by_subject
from data.cohorts.pictures import Pictures
from data.cohorts.rows import APART, METADATA, Metadata, Row, listed, named_groups
from data.cohorts.stored import compared
from data.conversion import measures
from data.conversion.edges import OPPOSED, check_connectomes
from data.conversion.leaks import check_groups
from data.conversion.options import SourceOptions
from data.conversion.source import EVERY_MAP, read_source
from data.conversion.template import encode_like
from data.conversion.volumes import read_person
from data.derivation.job import why_failed
from data.derivation.person import Done
from data.likeness.newcomers import check_newcomers
from data.likeness.reasons import OTHER_ATLAS, advice_on
from data.likeness.reference import ranges_of, reasons
from data.likeness.scans import MIN_COVERED, Scans, before_conversion

OWN_SPACE_MM = 6.0  # half of the brains may lie so far from the middle: 2 in MNI space, 8 or more in the people's own
PARTED = "which folds may part; leave all but one out with convert --exclude"  # people who share a scan
UNCHECKED = "label and phenotype were compared with the records; site, split and covariates cannot be checked"
EDIT_BOTH = "edit both"  # tables that differ
PEOPLE_TOLD = 10  # of those who are unlike the others; the page has all
COMPARED = ("background", "mean", "sd", "min", "max", "coverage", "x_mm", "y_mm", "z_mm", "below", "roughness", "alike")


def full_and_stored(cohort: Cohort, pictures: Pictures | None = None) -> CohortFindings:
    """All findings on a cohort, its verdict stored beside the records, or a line that says why not. Every record is
    read twice to take little memory; `pictures` are made, if wanted."""
    findings = cohort.census()
    findings.forecast = forecast(cohort.rows, known_groups(cohort), connectome=cohort.metadata.connectome)
    check_files(cohort, findings.files)
    check_phenotype(cohort, findings)
    lacking = check_connectomes(cohort, findings.connectomes)
    check_maps(cohort, findings, pictures)
    if cohort.connectomes:
        findings.without_signal[cohort.connectomes.name] = lacking
    reason: str | None = "records without tables have no place for it"
    if cohort.tables:
        reason = write_verdict(cohort.tables, cohort.identity, findings)
    if reason:
        print_facts([("verdict", f"not stored, so that no later job can tell it: {reason}")])
    return findings


def holds_maps(folder: Path) -> bool:
    """Whether a folder holds maps that were not converted."""
    return not (folder / METADATA).exists() and any(folder.rglob("*.nii*"))


@contextmanager
def read_maps(folder: Path, options: SourceOptions) -> Iterator[Cohort]:
    """A folder of maps and a table of people, labelled or not, as a cohort on the reduced grid, which is there only
    within the block. Raises InputError as a conversion does."""
    every_map = None if options.map_column else EVERY_MAP
    source = read_source(folder, replace(options, maps=options.maps or every_map), optional=True)
    print_facts(joined(source.facts))
    subjects, maps = source.subjects["subject"].tolist(), tuple(map(str, source.maps))
    with tempfile.TemporaryDirectory() as work, Pool() as pool:
        paths = [Path(work) / f"{subject}.bin" for subject in subjects]
        people = zip(source.maps.to_numpy().tolist(), paths, strict=True)
        found = pool.run("Reading maps", read_person, [(of, records.REDUCED, path) for of, path in people])
        measured = {name: pd.DataFrame([of.measured[at] for of in found]) for at, name in enumerate(maps)}
        measures.write_measures(Path(work) / MAPS, subjects, measured)
        table = source.rows.drop(columns="subject", errors="ignore").set_axis(subjects).copy()
        write_by_subject(Path(work) / COVARIATES, table)
        yield Cohort(
            path=folder,
            grid=records.REDUCED,
            rows=tuple(
                Row(row.subject, row.subject, row.site, row.label, "train") for row in source.subjects.itertuples()
            ),
            entries=tuple(Entry(path, path.stat().st_size) for path in paths),
            metadata=Metadata(maps=maps, provenance={"left_out": source.left_out}),
            tables=Path(work),
            num_maps=len(maps),
        )


def of_folder(cohort: Cohort, pictures: Pictures | None) -> CohortFindings:
    """The findings on what `read_maps` gives."""
    findings = CohortFindings(
        f"{cohort.path}: {', '.join(cohort.maps)} of {participants(len(cohort.rows))}, not converted"
    )
    if (cohort.path / DERIVED).is_file():
        rows = tables.read_frame(cohort.path / DERIVED).itertuples()
        told = why_failed(Done(row.subject, failure=row.failed) for row in rows)
        findings.participants.notes += [f"not derived, {text}" for _, text in told]
    check_maps(cohort, findings, pictures)
    return findings


def check_maps(cohort: Cohort, findings: CohortFindings, pictures: Pictures | None) -> None:
    """Findings on all volumes, and on the sites that they are compared by."""
    check_sites({row.site for row in cohort.rows}, findings.sites)
    scans, usable, people = read_volumes(cohort, findings.files, pictures)
    invalid = check_newcomers(cohort, usable, findings)
    if len(people.subjects) < 2:  # nobody to compare with
        check_people(cohort, usable, invalid or [], findings.maps, doubtful=False)
        return
    check_near_duplicates(cohort, people, findings.participants)
    names = atlas.load_atlas(None, cohort.grid).names
    for name, lacking in zip(cohort.maps, scans.lacking.sum(0), strict=True):
        of_regions = {names[at]: int(lacking[at]) for at in np.flatnonzero(lacking).tolist()}
        findings.without_signal[name] = Counter(of_regions)
    values, regions = scans.measured(usable)
    first = [*cohort.first_records(usable).values()]
    raw = measures.read_measures(cohort.tables, people.subjects, cohort.maps) if cohort.tables else None
    of_maps = {name: Findings() for name in cohort.maps}
    for name, of_map in of_maps.items():
        stored = values.loc[first, name][[*COMPARED]]
        check_kinds(cohort, raw[name].set_axis(first) if raw else None, stored, of_map)
        if few := [f"{region} in {count}" for region, count in findings.without_signal[name].most_common()]:
            where = f"in under {MIN_COVERED:.0%} of their voxels, by how many of {participants(len(first))}"
            of_map.notes.append(f"regions with signal {where}: {listed(few)}")
    findings.maps.add_parts(of_maps)
    if len(of_maps) == 1:
        findings.maps.counts = [f"{cohort.maps[0]}: {text}" for text in findings.maps.counts]
    values = pd.concat([values, before_conversion(cohort, usable)], axis=1)
    unlike = reasons(cohort, values, ranges_of(values.loc[first]), regions)
    told = told_of_each(cohort, usable, unlike, invalid, findings.connectomes)
    check_people(cohort, usable, told, findings.maps, doubtful=invalid is None)


def check_sites(sites: set[str], findings: Findings) -> None:
    """Two spellings of a site are worth a note."""
    spelled = defaultdict[str, list[str]](list)
    for site in sorted(sites):
        spelled[re.sub(r"[\W_]", "", site).casefold()].append(repr(site))
    for names in spelled.values():
        if len(names) > 1:
            findings.notes.append(f"{' and '.join(names)} count as sites of their own; write one name for all")


def read_volumes(cohort: Cohort, findings: Findings, pictures: Pictures | None) -> tuple[Scans, list[int], People]:
    """The scans; the positions of records that can be used: unreadable and constant ones are problems; by what people
    are recognised, of whom the first record counts."""
    scans, usable = Scans(cohort, range(len(cohort.rows))), list[int]()
    means, digests, stored = list[np.ndarray](), dict[str, set[str]](), cohort.scans()
    with progress("Checking", len(cohort.rows)) as shown:
        for index, row in enumerate(cohort.rows):
            shown.advance()
            try:
                volumes = list(np.moveaxis(cohort.volume(index), -1, 0))
            except InputError as error:
                findings.problems.append(str(error))
                findings.mark("cannot be read", [row.subject])
                continue
            named = zip(cohort.maps, volumes, strict=True)
            if empty := [(name, of.flat[0]) for name, of in named if of.min() == of.max()]:
                name, value = empty[0]
                findings.problems.append(f"{row.file} is constant ({value:g}); its map of {name} was empty")
                findings.mark("a map is constant", [row.subject])
                continue
            try:
                scans.add(index, volumes)
            except InputError:  # of its connectome, which `check_connectomes` has told
                continue
            usable.append(index)
            if row.subject in digests:
                continue
            small = [resampling.reduced(of_map) for of_map in volumes]
            means.append(np.column_stack([near_duplicates.of_reduced(of_map) for of_map in small]))
            digests[row.subject] = {hashlib.sha256(of_map.tobytes()).hexdigest() for of_map in small}
            digests[row.subject] |= stored[row.subject]  # which know the connectome, too
            if pictures:
                pictures.add(row.subject, volumes[0], small)
    return scans, usable, People(digests, np.array(means))


def check_files(cohort: Cohort, findings: Findings) -> None:
    """A file that differs from its sum is a problem; one without a sum is worth a note; derivation is counted."""
    try:
        different, unknown = compared(cohort)
        findings.problems += [f"{cohort.path / name} {manifest.DIFFERENT}" for name in different]
        if unknown:
            findings.notes.append(f"no sum in {manifest.SUMS}, so damage cannot be detected: {listed(unknown)}")
        if cohort.tables and (derivation := cohort.metadata.derivation):
            findings.counts.append(f"derived from scans: {', '.join(derivation.measures)}; {derivation}")
            findings.notes += filter(None, [derivation.uncleaned])
        check_sealing(cohort.metadata, findings)
    except InputError as error:
        findings.problems.append(str(error))


def check_sealing(metadata: Metadata, findings: Findings) -> None:
    """Tables that were sealed without sums are worth a note; if the records said otherwise, that is a problem."""
    if metadata.unsealed:
        findings.notes.append(f"sealed without {manifest.SUMS}: {UNCHECKED}")
    if unlike := metadata.unlike_records:
        cells = ["{subject} {column} ({before} in the record, {after} in the table)".format(**cell) for cell in unlike]
        findings.problems.append(
            f"tables and records differed when this was sealed without {manifest.SUMS}: {listed(cells)}; correct them, "
            "or seal the original by pack --tables if its tables are right"
        )


def check_phenotype(cohort: Cohort, findings: CohortFindings) -> None:
    """Values missing in one class of a site and odd numbers are worth a note; unreadable records are told already."""
    try:
        check_agreement(cohort, findings.phenotype)
        if (values := cohort.raw_phenotype) is not None:
            findings.phenotype.problems += impossible_values(values, cohort.metadata)
        findings.phenotype.notes += missing_in(values, cohort.rows)
        if odd := [*odd_numbers(cohort.covariates), *odd_numbers(cohort.raw_phenotype)]:
            findings.phenotype.notes.append(
                f"{ODD}: {listed(odd)} participants; correct them, or convert with --missing"
            )
    except InputError as error:
        findings.phenotype.problems += {str(error)} - set(findings.files.problems)


def check_agreement(cohort: Cohort, findings: Findings) -> None:
    """A person of whom two tables give another site, or another number, is a problem. Raises InputError."""
    table, raw, metadata = cohort.covariates, cohort.raw_phenotype, cohort.metadata
    if table is not None and metadata.site_column:
        sites = pd.Series({row.subject: row.site for row in cohort.rows}).reindex(table.index)
        named = table[metadata.site_column].str.split().str.join(" ")
        if wrong := sites.index[named.ne("") & named.ne(sites)].tolist():
            text = f"{COVARIATES} and the table of records differ in the site of {listed(wrong)}; {EDIT_BOTH}"
            findings.problems.append(text)
    if table is None or raw is None:
        return
    whole = table.reindex(columns=table.columns.union(metadata.phenotype_columns), fill_value="")
    told = encode_like(whole, metadata)
    told = told[[name for name in told if not name.endswith(("_missing", "_unknown"))]].set_axis(raw.index)
    for column in filter(table.__contains__, metadata.phenotype_columns):
        without = encode_like(whole.assign(**{column: ""}), metadata).set_axis(raw.index)[told.columns]
        known = clean(table[column]).notna().to_numpy()
        for name in told.columns[(told.ne(without) & told.notna()).any()]:
            if wrong := raw.index[known & ~np.isclose(told[name], raw[name], rtol=1e-6)].tolist():
                text = f"{COVARIATES} and {PHENOTYPE} differ in the {name} of {listed(wrong)}; {EDIT_BOTH}"
                findings.problems.append(text)


def check_near_duplicates(cohort: Cohort, people: People, findings: Findings) -> None:
    """Subjects who share a scan are a problem as `wrong_of` says, else worth a note; so are possible sessions of one
    person."""
    rows, found = {row.subject: row for row in reversed(cohort.rows)}, search(people)
    told = defaultdict[str, list[Sequence[str]]](list)
    for group in found.same_scan:
        findings.mark("one scan under several IDs", group)
        told[wrong_of(cohort, [rows[one] for one in group])].append(group)
    for wrong, groups in told.items():
        text = named_groups(groups, lambda one: f"{one} ({rows[one].split})")
        (findings.problems if wrong else findings.notes).append(f"one scan under several IDs: {text}{wrong}")
    findings.notes += found.notes()


def wrong_of(cohort: Cohort, rows: Sequence[Row]) -> str:
    """What is wrong with several subjects who share a scan; empty if nothing is."""
    labels = ", one scan with both labels" if len({row.label for row in rows if row.known}) > 1 else ""
    if len({row.split for row in rows}) > 1:
        return f"{labels}, one scan in train and test"
    return f"{labels}, {PARTED}" if cohort.metadata.duplicates == APART else labels


def told_of_each(
    cohort: Cohort,
    usable: Sequence[int],
    unlike: Sequence[Sequence[str]],
    invalid: Sequence[Sequence[str]] | None,
    of_connectomes: Findings,
) -> list[list[str]]:
    """The sentences on each record: in what it is `unlike` the others, what makes it `invalid` beside the training
    people, if that is known, in place of what does beside the others. A group whose connectomes oppose those of others
    is told as one."""
    opposed = {subject for subject, what in of_connectomes.odd if what == OPPOSED}
    told = list[list[str]]()
    for at, (index, sentences) in enumerate(zip(usable, unlike, strict=True)):
        as_group = cohort.rows[index].subject in opposed
        kept = [text for text in sentences if not (as_group and text.endswith(OTHER_ATLAS))]
        told.append(kept if invalid is None else [*(text for text in kept if not advice_on(text)), *invalid[at]])
    return told


def check_people(
    cohort: Cohort, usable: Sequence[int], told: Sequence[Sequence[str]], findings: Findings, doubtful: bool
) -> None:
    """People who are unlike the others are worth a note each, a few of them in full; what makes results invalid is a
    problem with the names of all. If many are named, it is `doubtful` whether they or the others are."""
    wrong, unlike = defaultdict[str, list[Row]](list), dict[str, list[str]]()
    for index, sentences in zip(usable, told, strict=True):
        row = cohort.rows[index]
        for text in sentences:
            findings.mark(text, [row.subject])
            if advice_on(text):
                wrong[text].append(row)
            else:
                unlike.setdefault(row.file, []).append(text)
    for text, rows in wrong.items():
        others = " (or in all others)" if doubtful and len(rows) > len(usable) / 3 else ""
        findings.problems.append(f"{text} in {', '.join(row.file for row in rows)}{others}; {advice_on(text)}")
    by_count = sorted(unlike, key=lambda file: -len(unlike[file]))
    findings.notes += [f"{file} is unlike the others: {'; '.join(unlike[file])}" for file in by_count[:PEOPLE_TOLD]]
    if (more := len(by_count) - PEOPLE_TOLD) > 0:
        findings.notes.append(f"{participants(more, 'more')} unlike the others; the page, --html, names all")


def check_kinds(cohort: Cohort, raw: pd.DataFrame | None, stored: pd.DataFrame, findings: Findings) -> None:
    """Maps of several kinds, in the people's own space, or that separate the training labels, are problems; differences
    by site are notes. One record a subject is checked: as `stored`, and as it was before its conversion, if that is
    known."""
    rows = [cohort.rows[index] for index in stored.index]
    names, views, kinds = [row.file for row in rows], [stored], measures.stored_kinds(stored)
    if raw is not None:  # which tells kinds better
        views, kinds = [raw[[*measures.COMPARED]], stored], measures.kinds(raw)
        findings.counts.append(f"values {', '.join(sorted(set(kinds)))}")
        told = [measures.two_sides(raw, names), measures.filled(raw, names), measures.voxel_sizes(raw, names)]
        findings.notes += filter(None, told)
    if mixed := measures.mixture(kinds, names):
        findings.problems.append(f"maps of several kinds: {mixed}; convert maps of one kind")
    places = stored[["x_mm", "y_mm", "z_mm"]]
    if (apart := np.median(np.linalg.norm(places - places.median(), axis=1))) > OWN_SPACE_MM:
        findings.problems.append(
            f"half of the brains lie more than {apart:.0f} mm from the middle of all, as in each participant's own "
            "space; make maps in MNI space"
        )
    check_groups("maps", views, rows, findings)
