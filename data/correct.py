"""A cohort and a table of corrections -> a new, sealed cohort, which says what was corrected: sites, labels,
covariates, or values of the phenotype."""

import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import manifest
from data.base.errors import InputError, check_plain
from data.base.files import new_folder
from data.base.terminal import progress
from data.cohorts import records
from data.cohorts.cohort import COVARIATES, PHENOTYPE, Cohort, in_one_folder
from data.cohorts.phenotype import (
    MISSING_VALUE,
    SUBJECT,
    Scaler,
    clean,
    fit_scaler,
    mostly_numbers,
    numbers,
    write_by_subject,
)
from data.cohorts.records import HEADER_BYTES, FileEntry, Wrapped
from data.cohorts.rows import Metadata, Row, listed
from data.cohorts.stored import carry_tables, open_cohort, write_tables
from data.conversion.tables import key, read_table

SITE, LABEL = "site", "label"  # of the table of records
UNKNOWN = "n/a"  # a cell that makes a value unknown; an empty one leaves it as it is
UNUSED = re.compile(r"unused_\d+")  # values of the phenotype that stand for none
LABELS = {"1": 1.0, "0": 0.0, UNKNOWN: float("nan")}
Cell = tuple[str, str, str]  # subject, column, text


@dataclass(frozen=True)
class People:
    """What a cohort's files say of each subject beside the maps."""

    site: dict[str, str]
    label: dict[str, float]
    covariates: pd.DataFrame  # text by subject; without columns if there are none
    phenotype: pd.DataFrame  # numbers by subject, as above

    @classmethod
    def of(cls, cohort: Cohort) -> "People":
        first = [cohort.rows[at] for at in cohort.first_records(range(len(cohort.rows))).values()]
        nothing = pd.DataFrame(index=[row.subject for row in first])
        covariates = nothing if cohort.covariates is None else cohort.covariates.copy()
        phenotype = nothing if cohort.raw_phenotype is None else cohort.raw_phenotype.copy()
        site, label = ({row.subject: getattr(row, name) for row in first} for name in (SITE, LABEL))
        return cls(site, label, covariates, phenotype)


def corrected(cohort: Cohort, path: Path) -> tuple[People, list[dict[str, str]]]:
    """What the cohort says of its people with the corrections of a table, and these: subject, column, before and after.
    Raises InputError, naming all that cannot be corrected."""
    table, people, site_column = read_table(path), People.of(cohort), cohort.metadata.site_column or None
    used = [name for name in people.phenotype if not UNUSED.fullmatch(name) and base(name) not in people.phenotype]
    known = list(dict.fromkeys([SITE, LABEL, *people.covariates.columns, *used]))
    unknown = [name for name in table if name not in (SUBJECT, *known)]
    if SUBJECT not in table or unknown:
        raise InputError(
            f"{path} has the columns {listed(list(table))}; expected {SUBJECT}, and columns to correct, of "
            f"{listed(known)}."
        )
    subjects = subjects_of(table[SUBJECT], people, path, cohort.path)
    columns = {str(name): SITE if name == site_column else str(name) for name in table.columns.drop(SUBJECT)}
    measured = [name for name in people.covariates if holds_numbers(people.covariates[name])]
    cells = [
        (subject, columns[name], text)
        for name in columns
        for subject, text in zip(subjects, map(str.strip, table[name]), strict=True)
        if text
    ]
    check_cells(cells, {*measured, *people.phenotype.columns} - {SITE, LABEL, site_column}, path)
    corrections = []
    for subject, column, text in [*cells, *following(cells, people)]:
        if change := set_value(people, site_column, (subject, column), text):
            corrections.append({"subject": subject, "column": column} | change)
    if not corrections:
        raise InputError(f"{path} says what {cohort.path} says already; expected other values. Correct the table.")
    return people, corrections


def holds_numbers(column: pd.Series) -> bool:
    """Whether a covariate is measured: most of its known values are numbers, and there are any."""
    return bool(clean(column).notna().any()) and mostly_numbers(column)


def subjects_of(column: pd.Series, people: People, path: Path, cohort: Path) -> list[str]:
    """The subjects of the cohort that a column names, as IDs are compared: `sub-007` is 7. Raises InputError, naming
    all who are strange or stand there twice."""
    of_key: dict[str, list[str]] = {}
    for subject in people.site:
        of_key.setdefault(key(subject), []).append(subject)
    subjects = []
    for name in map(str.strip, column):
        same = of_key.get(key(name), [])
        subjects.append(same[0] if name not in people.site and len(same) == 1 else name)
    strange = sorted({one for one in subjects if one not in people.site or subjects.count(one) > 1})
    if strange:
        raise InputError(
            f"{path} names {listed(strange)}, who are not in {cohort} or stand there twice; expected one row a "
            "subject of the cohort."
        )
    return subjects


def check_cells(cells: Sequence[Cell], measured: Collection[str], path: Path) -> None:
    """Raises InputError, naming all sites that are two, labels that are none, and cells of columns of numbers
    that hold none."""
    given: dict[tuple[str, str], set[str]] = {}
    for subject, column, text in cells:
        check_plain(text, f"{path} has the value")
        given.setdefault((subject, column), set()).add(text)
    if twice := [
        f"{subject} the {column} {' and '.join(sorted(of))}" for (subject, column), of in given.items() if len(of) > 1
    ]:
        raise InputError(f"{path} gives {listed(twice)}; expected one value. Leave a column out.")
    if wrong := [
        f"{subject} the label {text}" for subject, column, text in cells if column == LABEL and text not in LABELS
    ]:
        raise InputError(f"{path} gives {listed(wrong)}; expected 1 (autism), 0 (control) or {UNKNOWN}.")
    wrong = []
    for subject, column, text in cells:
        if column in measured:
            try:
                numbers(pd.DataFrame({column: [text]}), column)
            except InputError:
                wrong.append(f"{column} {text!r} ({subject})")
    if wrong:
        raise InputError(
            f"{path} holds {listed(wrong)}; expected numbers in these columns, with a point as the decimal mark, or "
            f"{UNKNOWN}. Correct the table."
        )


def following(cells: Sequence[Cell], people: People) -> list[Cell]:
    """The cells that follow from others: whether a value of the phenotype is missing, where a value tells that."""
    told = {name: base(name) for name in people.phenotype if base(name) in people.phenotype}
    return [
        (subject, name, "1" if is_missing(text) else "0")
        for subject, column, text in cells
        for name, value in told.items()
        if value == column
    ]


def base(name: str) -> str:
    """The value of which `name` says whether it is missing; empty for others."""
    return name.removesuffix("_missing") if name.endswith("_missing") else ""


def is_missing(text: str) -> bool:
    return MISSING_VALUE.fullmatch(text) is not None


def set_value(people: People, site_column: str | None, place: tuple[str, str], text: str) -> dict[str, str] | None:
    """Sets the value of a subject in a column; returns what was there and what is now, or None if that is the same."""
    (subject, column), value = place, "" if is_missing(text) else text
    before, after = [], []
    if column == SITE:
        before.append(people.site[subject])
        after.append(value or "unknown")
        people.site[subject] = after[0]
    elif column == LABEL:
        before.append(shown(people.label[subject]))
        after.append(shown(LABELS[text]))
        people.label[subject] = LABELS[text]
    covariate = site_column if column == SITE else column
    if covariate in people.covariates:
        before.append(people.covariates.loc[subject, covariate])
        after.append(value)
        people.covariates.loc[subject, covariate] = value
    if column in people.phenotype:
        number = numbers(pd.DataFrame({column: [value]}), column).iloc[0]
        before.append(shown(people.phenotype.loc[subject, column]))
        after.append(shown(number))
        people.phenotype.loc[subject, column] = number
    return {"before": before[0], "after": after[0]} if before != after else None


def shown(number: float) -> str:
    return f"{number:.9g}" if number == number else UNKNOWN


def correct(cohort: Cohort, path: Path, target: Path) -> list[dict[str, str]]:
    """Writes the cohort with the corrections of the table at `path` into the new folder `target`, and returns them.
    Files of records that stay as they are become links to the same content, where the disk has such. Raises InputError
    for a table that does not fit, and for a training subject whose label becomes unknown."""
    if cohort.tables is None:
        raise InputError(f"{cohort.path} has no tables of its people; expected a cohort. Make it: abide-data convert.")
    people, corrections = corrected(cohort, path)
    cohort = in_one_folder(cohort)
    rows = [replace(row, site=people.site[row.subject], label=people.label[row.subject]) for row in cohort.rows]
    if lost := sorted({row.subject for row in rows if row.split == "train" and not row.known}):
        raise InputError(
            f"{path} takes the label from {listed(lost)}, who are training subjects; leave them out instead."
        )
    metadata = replace(cohort.metadata, corrections=(*cohort.metadata.corrections, *corrections), phenotype_auc={})
    values: Mapping[str, np.ndarray] = {}
    if any(of["column"] in people.phenotype for of in corrections):
        metadata, values = scaled(people.phenotype, rows, metadata)
    with new_folder(target) as folder:
        manifest.verify(cohort.path, cohort.file_names)
        write_records(cohort, rows, values, folder)
        carry_tables(cohort, folder)
        if not people.covariates.columns.empty:
            write_by_subject(folder / COVARIATES, people.covariates)
        if not people.phenotype.columns.empty:
            write_by_subject(folder / PHENOTYPE, people.phenotype)
        write_tables(folder, rows, metadata, cohort.origins())
        open_cohort(folder)  # nothing is called done that cannot be read
    return corrections


def scaled(phenotype: pd.DataFrame, rows: list[Row], metadata: Metadata) -> tuple[Metadata, dict[str, np.ndarray]]:
    """The phenotype of each subject (29,) as records hold it, and metadata with its constants. These are those of the
    training subjects or, if there are none, stay."""
    training = {row.subject for row in rows if row.split == "train"}
    inside = [subject in training for subject in phenotype.index]
    scaler = fit_scaler(phenotype[inside].to_numpy()) if training else Scaler.of(metadata)
    if scaler is None:
        raise InputError("cohort.json does not say how the phenotype was scaled; convert again.")
    values = scaler.transform(phenotype.to_numpy()).astype(np.float32)
    return replace(metadata, **scaler.constants()), dict(zip(phenotype.index, values, strict=True))


def write_records(cohort: Cohort, rows: list[Row], values: Mapping[str, np.ndarray], folder: Path) -> None:
    """Writes the records with the labels of `rows` and the phenotype of `values`, by subject, if that has changed."""
    with progress("Correcting", len(rows)) as shown:
        for index, row in enumerate(rows):
            entry, before = cohort.entries[index], cohort.header(index)
            stored = entry.stored if isinstance(entry, Wrapped) else entry
            phenotype = values.get(row.subject, np.frombuffer(before, records.DTYPE)[1:])
            header = records.pack_header(row.label, phenotype)
            cohort.read(index)
            if header == before and isinstance(stored, FileEntry):
                linked(entry.path, folder / row.file)
            else:
                (folder / row.file).write_bytes(header + entry.read()[HEADER_BYTES:])
            shown.advance()


def linked(source: Path, target: Path) -> None:
    """Links a file, or copies it where links cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
