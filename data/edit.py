"""A cohort and tables of its people that were edited -> the cohort as these say, and what was changed."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from data.base import tables
from data.base.errors import InputError
from data.cohorts import rows as rows_of
from data.cohorts.cohort import PHENOTYPE, Cohort
from data.cohorts.phenotype import SUBJECT, clean, mostly_numbers, numbers
from data.cohorts.rows import TABLE, UNKNOWN_SITE, Row, listed
from data.cohorts.stored import EDITABLE
from data.cohorts.variants import resplit

FREE = ["site", "label", "split"]  # columns of the table of records that may change
MISSING = "_missing"  # ends the name of a value that says whether another one is missing
Change = dict[str, str]  # subject, column, before, after


def with_tables(cohort: Cohort, edited: Path, folder: Path) -> tuple[Cohort, list[Change]]:
    """The cohort with those of EDITABLE that the folder `edited` holds, which are written into its new `folder`; its
    phenotype is scaled anew on the training people. And each changed cell. Raises InputError for a table of other
    people, records or columns, and for values that cannot be."""
    if cohort.tables is None:
        raise InputError(f"{cohort.path} has no tables that {edited} could replace. Pack it without --tables first.")
    if not (found := [name for name in EDITABLE if (edited / name).is_file()]):
        raise InputError(f"{edited} has none of {', '.join(EDITABLE)}; expected tables of {cohort.path}, edited.")
    rows, changes = list(cohort.rows), list[Change]()
    for name in found:
        key, path = "file" if name == TABLE else SUBJECT, edited / name
        if not (cohort.tables / name).is_file():
            raise InputError(f"{cohort.path} has no {name} that {path} could replace. Leave it out.")
        before, after = (tables.read_frame(place / name, [key]) for place in (cohort.tables, edited))
        before = before.set_index(key)
        people = before.index if name == TABLE else [*cohort.first_records(range(len(rows)))]
        after = merged(before, after.set_index(key), people, path)
        if name == TABLE:
            rows = edited_rows(cohort, before, after, path)
        else:
            check_numbers(before, after, name == PHENOTYPE, path)
            tables.write_frame(folder / name, after.reset_index())
        changes += changed_cells(before, after, rows if name == TABLE else [])
    if not changes and edited.resolve() != cohort.path.resolve():
        raise InputError(f"{edited} says what {cohort.path} says already; expected other values. Correct the tables.")
    told = {"changed": changes or "in place, so not known", "source_sha256": cohort.identity}
    provenance = {"pack": told, "source": cohort.metadata.provenance}
    metadata = replace(cohort.metadata, phenotype_auc={}, provenance=provenance)
    made = replace(cohort, rows=tuple(rows), metadata=metadata, tables=folder)
    split = {row.subject: row.split for row in rows}
    return resplit(made, split) if "train" in split.values() else made, changes


def merged(before: pd.DataFrame, after: pd.DataFrame, people: Collection[str], path: Path) -> pd.DataFrame:
    """The edited table in the order of the one before; a cell that says the same keeps its text, a missing value is an
    empty cell; where a value was edited, so is what says whether it is missing. Raises InputError for other rows than
    of these people, and for other columns."""
    for what, there, here in (("rows", people, after.index), ("columns", before.columns, after.columns)):
        if odd := sorted({*there} ^ {*here}) or here[here.duplicated()].tolist():
            raise InputError(f"{path} has other {what} than the cohort, or one twice: {listed(odd)}. Edit cells only.")
    after = after.loc[before.index, before.columns]
    number = before.apply(pd.to_numeric, errors="coerce").eq(after.apply(pd.to_numeric, errors="coerce"))
    kept = before.eq(after) | number
    after = after.apply(clean).fillna("").where(~kept, before)
    for name in [name for name in after if f"{name}{MISSING}" in after]:
        told = after[name].eq("").map({True: "1.0", False: "0.0"})
        after[f"{name}{MISSING}"] = told.where(~kept[name], after[f"{name}{MISSING}"])
    return after


def edited_rows(cohort: Cohort, before: pd.DataFrame, after: pd.DataFrame, path: Path) -> list[Row]:
    """The rows of the cohort with site, label and split of its edited table. Raises InputError for other edits, and for
    a subject with two of one."""
    if odd := [name for name in after if name not in FREE and after[name].ne(before[name]).any()]:
        raise InputError(f"{path} has other values of {listed(odd)}; only {', '.join(FREE)} may be edited.")
    several = after.groupby("subject")[FREE].nunique().gt(1).any(axis=1)
    if several.any():
        raise InputError(f"{path} gives {listed(several.index[several].tolist())} two of {', '.join(FREE)}; give one.")
    check_numbers(before[["label"]], after[["label"]], True, path)
    found = []
    for row, of in zip(cohort.rows, after[FREE].to_dict("records"), strict=True):
        edited = replace(row, site=of["site"] or UNKNOWN_SITE, label=float(of["label"] or "nan"), split=of["split"])
        found.append(rows_of.checked(f"{path}, {row.file}", edited))
    return found


def check_numbers(before: pd.DataFrame, after: pd.DataFrame, every: bool, path: Path) -> None:
    """Raises InputError for a column of numbers that no longer holds numbers; `every` column is one, or those that most
    values of tell."""
    for name in after:
        if every or (clean(before[name]).notna().any() and mostly_numbers(before[name])):
            try:
                numbers(after, str(name))
            except InputError as error:
                raise InputError(f"{path}: {error}") from None


def changed_cells(before: pd.DataFrame, after: pd.DataFrame, rows: Sequence[Row]) -> list[Change]:
    """The cells that differ, those of a subject's several `rows` once."""
    subject = {row.file: row.subject for row in rows}
    differing = before.ne(after).stack().loc[lambda differs: differs].index
    cells = [(subject.get(at, at), column, before.at[at, column], after.at[at, column]) for at, column in differing]
    return [dict(zip(("subject", "column", "before", "after"), cell, strict=True)) for cell in dict.fromkeys(cells)]
