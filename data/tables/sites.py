"""A table of people -> the site of each. A column that may be the site must be confirmed: results depend on it."""

import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import pandas as pd

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.terminal import SummaryRow, format_participants
from data.tables.missing import clean_column
from data.tables.people import select_column
from data.tables.vocabulary import SITE_UNKNOWN_SENTENCE, UNKNOWN_SITE, find_recorded_sites

DEFAULT_SITE_COLUMNS = ("SITE_ID", "site")
SITE_WORD_PATTERN = re.compile(
    r"site|scann?er|cent(er|re)|instit(ute|ution)|manufacturer|vendor|hospital|clinic|university|magnet|location|lab(oratory)?"
    r"|station|system|cohort",
    re.IGNORECASE,
)


def check_sites_complete(
    site_by_row: pd.Series, site_column: str | None, subject_ids: pd.Series, table_path: Path
) -> None:
    """Raises InputError if the site of some people is known, and that of others is not."""
    is_site_unknown = ~site_by_row.isin(find_recorded_sites(site_by_row))
    if is_site_unknown.any() and not is_site_unknown.all():
        raise InputError(
            f"The {site_column} of {is_site_unknown.sum()} of {format_participants(len(is_site_unknown))} of "
            f"{table_path} is unknown: {join_names(subject_ids[is_site_unknown.index[is_site_unknown]].tolist())}. "
            "They would be compared as if they were of one site. Fill it in, or leave them out with convert --exclude."
        )


def read_sites(
    text_table: pd.DataFrame,
    requested_site_column: str | None,
    default_site_columns: Sequence[str],
    reserved_columns: Sequence[str | None],  # of IDs, diagnosis and maps
    table_path: Path,
) -> tuple[str | None, pd.Series, SummaryRow]:
    """The column of sites, `requested_site_column` (empty: none) or else the first of `default_site_columns` that is
    there; the site of each row; and a fact: which column that is, and which others look like one. Raises InputError if
    it is one of `reserved_columns`, or if a column that is none of these looks like the site and no column is named."""
    if requested_site_column and requested_site_column in reserved_columns:
        raise InputError(
            f"--siteColumn {requested_site_column} is also the diagnosis, the IDs or the maps of {table_path}; one "
            "column cannot be both. Name the column of sites, or say with --siteColumn '' that there is none."
        )
    site_column = (
        next(
            (
                column_name
                for column_name in default_site_columns
                if column_name in text_table and column_name not in reserved_columns
            ),
            None,
        )
        if requested_site_column is None
        else requested_site_column
    )
    site_candidate_columns = [
        column_name
        for column_name in text_table
        if column_name not in (site_column, *reserved_columns) and is_site_candidate(text_table[column_name])
    ]
    if site_candidate_columns and site_column is None:
        raise InputError(
            f"{join_names(site_candidate_columns)} of {table_path} looks like the site, on which results depend; name "
            f"the column of sites with --siteColumn {quote(site_candidate_columns[0])}, or say with --siteColumn '' "
            "that there is none."
        )
    if site_column:
        site_by_row = (
            clean_column(select_column(text_table, site_column, table_path))
            .fillna("")
            .astype(str)
            .str.split()
            .str.join(" ")
        )
        site_count = len(find_recorded_sites(site_by_row))
        site_message = f"{site_column}, {site_count} site{'s'[: site_count != 1]}"
    else:
        site_by_row = pd.Series(UNKNOWN_SITE, text_table.index)
        site_message = f"no column is used. {SITE_UNKNOWN_SENTENCE}"
    site_candidates_text = (
        f"; {join_names(site_candidate_columns)} looks like a site; if it is, use --siteColumn"
        if site_candidate_columns
        else ""
    )
    return site_column or None, site_by_row, ("site", site_message + site_candidates_text)


def is_site_candidate(text_column: pd.Series) -> bool:
    """Whether a column looks like the site: by a word of its name, and by values that some people share."""
    column_name_words = re.split(
        r"[^A-Za-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(text_column.name))
    )  # scannerModel, SCAN_CENTRE
    return any(map(SITE_WORD_PATTERN.fullmatch, column_name_words)) and 1 < clean_column(text_column).nunique() < max(
        len(text_column), 3
    )
