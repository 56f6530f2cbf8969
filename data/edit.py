"""A cohort and tables of its people that were edited -> the cohort as these say, and what was changed.

What a table said before is known by the sums of its cohort or, without these, by the records: their first values are
label and phenotype, as the tables said them when they were written.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base import tables
from data.base.errors import InputError
from data.cohorts import records
from data.cohorts import rows as rows_of
from data.cohorts.cohort import PHENOTYPE, Cohort
from data.cohorts.phenotype import (
    SUBJECT,
    Scaler,
    clean,
    impossible_values,
    indicators,
    mostly_numbers,
    numbers,
    values_of_indicators,
)
from data.cohorts.rows import TABLE, UNKNOWN_SITE, UNLIKE_RECORDS, Metadata, Row, known_sites, listed
from data.cohorts.stored import EDITABLE
from data.cohorts.variants import resplit
from data.conversion import leaks
from data.conversion import tables as user_tables
from data.conversion.sites import check_known
from data.conversion.template import encode_like

FREE = ["site", "label", "split"]  # columns of the table of records that may change
NUMBERS = (
    "Correct them, or leave cells empty that are unknown. If the numbers are right, convert again with --missing ''."
)
TOLERANCE = 1e-4  # between scaled values: of float32 and of tables with six digits; an age 0.01 years off is told
Change = dict[str, str]  # subject, column, before, after


def key_of(name: str) -> str:
    """The column that names the rows of one of EDITABLE."""
    return "file" if name == TABLE else SUBJECT


def recorded_tables(cohort: Cohort) -> dict[str, pd.DataFrame]:
    """The tables of a cohort that its records can contradict, as text by `key_of`, each cell that they do contradict as
    they have it: the labels, and the phenotype if they hold what its table says. In no record is a value that was
    equal in all training people; in place of an unknown one their median is. Raises InputError."""
    headers = [records.unpack_header(entry.read(records.HEADER_BYTES), str(entry)) for entry in cohort.entries]
    tables_by_name = {TABLE: read_table(cohort, TABLE)}
    in_records, in_table = np.array([label for label, _ in headers]), np.array([row.label for row in cohort.rows])
    differs = ~((in_records == in_table) | (np.isnan(in_records) & np.isnan(in_table)))
    texts = pd.Series(in_records, tables_by_name[TABLE].index).map("{:g}".format, na_action="ignore").fillna("")
    tables_by_name[TABLE]["label"] = tables_by_name[TABLE]["label"].mask(differs, texts)

    scaler, first_records = Scaler.of(cohort.metadata), cohort.first_records(range(len(cohort.rows)))
    if PHENOTYPE not in cohort.side_tables or scaler is None:
        return tables_by_name
    table = read_table(cohort, PHENOTYPE)
    if tuple(table) != cohort.metadata.phenotype or sorted(table.index) != sorted(first_records):
        return tables_by_name  # whoever reads the values refuses them
    table = table.loc[[*first_records]]
    values = table.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    scaled = np.stack([headers[index][1] for index in first_records.values()]).astype(float)
    differs = ~np.isclose(scaler.transform(values), scaled, atol=TOLERANCE) & (scaler.scale > 0)
    raw = pd.DataFrame(scaled * scaler.scale + scaler.mean, table.index, table.columns)
    texts = raw.map("{:.6g}".format)
    for indicator, names in values_of_indicators(cohort.metadata).items():
        if len(names) == 1:  # a number, in place of which the median is
            texts[names[0]] = texts[names[0]].mask(raw[indicator].round() == 1, "")
    tables_by_name[PHENOTYPE] = table.mask(differs, texts)
    return tables_by_name


def read_table(cohort: Cohort, name: str) -> pd.DataFrame:
    """One of EDITABLE of a cohort, as text by `key_of`. Raises InputError if it is not there."""
    path = (cohort.tables or cohort.path) / name
    if not path.is_file():
        raise InputError(f"{cohort.path} has no {name} that could be replaced. Leave it out.")
    return tables.read_frame(path, [key_of(name)]).set_index(key_of(name))


def unlike_records(cohort: Cohort, recorded: Mapping[str, pd.DataFrame], taken: Collection[str]) -> list[Change]:
    """The cells of a cohort's tables that its `recorded_tables` contradict, but for those of tables that are `taken`
    from elsewhere or by the user's word."""
    changes = list[Change]()
    for name in [name for name in recorded if name not in taken]:
        now = read_table(cohort, name).loc[recorded[name].index]
        changes += changed_cells(recorded[name], now, cohort.rows if name == TABLE else [])
    return changes


def with_tables(
    cohort: Cohort, edited: Path, folder: Path, recorded: Mapping[str, pd.DataFrame]
) -> tuple[Cohort, list[Change]]:
    """The cohort with those of EDITABLE that the folder `edited` holds, which are written into its new `folder`; its
    phenotype is scaled anew on the training people. And each changed cell: what tables said before is known by the
    `recorded` ones, if there are any. Raises InputError for a table of other people, records or columns, and for values
    that cannot be."""
    if cohort.tables is None:
        raise InputError(f"{cohort.path} has no tables that {edited} could replace. Pack it without --tables first.")
    if not (taken := tables_in(edited)):
        raise InputError(f"{edited} has none of {', '.join(EDITABLE)}; expected tables of {cohort.path}, edited.")
    rows, changes = list(cohort.rows), list[Change]()
    for name in taken:
        path = edited / name
        before = recorded[name] if name in recorded else read_table(cohort, name)
        after = read_edited(path)
        people = before.index if name == TABLE else [*cohort.first_records(range(len(rows)))]
        after = merged(before, after, people, path, cohort.metadata)
        if name == TABLE:
            rows = edited_rows(cohort, before, after, path)
        else:
            is_known = not recorded or name in recorded  # what it said before, beside which every cell is new
            check_table(cohort, before, after, path, before.ne(after) if is_known else None)
            tables.write_frame(folder / name, after.reset_index())
        changes += changed_cells(before, after, rows if name == TABLE else [])
    if not changes and edited.resolve() != cohort.path.resolve():
        raise InputError(f"{edited} says what {cohort.path} says already; expected other values. Correct the tables.")
    told = {"changed": changes, "source_sha256": cohort.identity}
    if edited.resolve() == cohort.path.resolve():
        told["edited_in_place"] = taken  # other cells of theirs may have been changed, too
    provenance: dict[str, Any] = {"pack": told, "source": cohort.metadata.provenance}
    if unlike := cohort.metadata.unlike_records:  # but for those that were looked at since
        cells = {(change["subject"], change["column"]) for change in changes}
        provenance[UNLIKE_RECORDS] = [cell for cell in unlike if (cell["subject"], cell["column"]) not in cells]
    metadata = replace(cohort.metadata, phenotype_auc={}, provenance=provenance)
    made = replace(cohort, rows=tuple(rows), metadata=metadata, tables=folder)
    split = {row.subject: row.split for row in rows}
    if "train" not in split.values():
        return made, changes
    made = resplit(made, split)
    return replace(made, metadata=replace(made.metadata, phenotype_auc=separations_of(made, edited))), changes


def read_edited(path: Path) -> pd.DataFrame:
    """One of EDITABLE as an editor or a spreadsheet saved it, as text by `key_of`. Raises InputError."""
    table = user_tables.read_table(path)
    user_tables.check_columns(table, {"": [key_of(path.name)]}, path)
    return table.astype(object).set_index(key_of(path.name))


def tables_in(folder: Path) -> list[str]:
    """Which of EDITABLE a folder holds."""
    return [name for name in EDITABLE if (folder / name).is_file()]


def merged(
    before: pd.DataFrame, after: pd.DataFrame, people: Collection[str], path: Path, metadata: Metadata
) -> pd.DataFrame:
    """The edited table in the order of the one before; a cell that says the same keeps its text, a missing value is an
    empty cell; where values were edited, so is what says whether they are missing. Raises InputError for other rows
    than of these people, and for other columns."""
    for what, there, here in (("rows", people, after.index), ("columns", before.columns, after.columns)):
        if odd := sorted({*there} ^ {*here}) or here[here.duplicated()].tolist():
            raise InputError(f"{path} has other {what} than the cohort, or one twice: {listed(odd)}. Edit cells only.")
    after = after.loc[before.index, before.columns]
    number = before.apply(pd.to_numeric, errors="coerce").eq(after.apply(pd.to_numeric, errors="coerce"))
    kept = before.eq(after) | number
    after = after.apply(clean).fillna("").where(~kept, before)
    if tuple(after) == metadata.phenotype:
        expected = indicators(after.apply(pd.to_numeric, errors="coerce"), metadata).map("{:.1f}".format)
        for name, names in values_of_indicators(metadata).items():
            after[name] = after[name].where(kept[names].all(axis=1), expected[name])
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
    sites = after["site"].replace("", UNKNOWN_SITE)
    if (sites.eq(UNKNOWN_SITE) & before["site"].isin(known_sites(before["site"]))).any():
        check_known(sites, "site", after["subject"], path)
    found = []
    for row, of in zip(cohort.rows, after[FREE].to_dict("records"), strict=True):
        edited = replace(row, site=of["site"] or UNKNOWN_SITE, label=float(of["label"] or "nan"), split=of["split"])
        found.append(rows_of.checked(f"{path}, {row.file}", edited))
    return found


def check_table(
    cohort: Cohort, before: pd.DataFrame, after: pd.DataFrame, path: Path, changed: pd.DataFrame | None
) -> None:
    """Raises InputError for values in a table of people (rows, columns) that a conversion would not take or give, among
    the `changed` cells (bool), if it is known which these are."""
    metadata, is_phenotype = cohort.metadata, path.name == PHENOTYPE
    check_numbers(before, after, is_phenotype, path)
    is_coded = is_phenotype and tuple(after) == metadata.phenotype
    if is_coded and (wrong := impossible_values(after.apply(pd.to_numeric, errors="coerce"), metadata)):
        raise InputError(f"{path}: {wrong[0]}. Correct it.")
    measured = [name for name in after if name != metadata.site_column]
    leaks.check_numbers(after, measured, path, NUMBERS, changed)
    if not is_phenotype:  # which it must be possible to code
        columns = after.columns.union(metadata.phenotype_columns)
        encode_like(after.reindex(columns=columns, fill_value=""), metadata)


def separations_of(cohort: Cohort, edited: Path) -> dict[str, float]:
    """How well each value of the phenotype separates the training labels, see `leaks.separations`. Raises InputError if
    one does so too well, as a conversion does, unless it was accepted there."""
    if cohort.raw_phenotype is None or not cohort.metadata.phenotype_columns:
        return {}
    label = {row.subject: row.label for row in cohort.rows if row.split == "train"}
    values = cohort.raw_phenotype.loc[list(label)]
    allowed = [name for name in values if any(leak.startswith(f"{name} (") for leak in cohort.metadata.accepted_leaks)]
    advice = f"Correct the tables in {edited}, or convert again."
    leaks.check_values(values.drop(columns=allowed), np.array([*label.values()]), False, advice)
    return leaks.check_values(values, np.array([*label.values()]), True)


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
