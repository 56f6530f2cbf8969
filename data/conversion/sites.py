"""A table of people -> the site of each. What may be the site is asked for, since results depend on it."""

import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import pandas as pd

from data.base.errors import InputError
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.phenotype import clean_column
from data.cohorts.rows import SITE_UNKNOWN_SENTENCE, UNKNOWN_SITE, find_recorded_sites, join_names
from data.conversion.tables import column

SITE_COLUMNS = ("SITE_ID", "site")
SITE_WORDS = re.compile(
    r"site|scann?er|cent(er|re)|instit(ute|ution)|manufacturer|vendor|hospital|clinic|university|magnet|location|lab(oratory)?"
    r"|station|system|cohort",
    re.IGNORECASE,
)


def check_known(sites: pd.Series, column: str | None, identifier: pd.Series, path: Path) -> None:
    """Raises InputError if the site of some people is known, and that of others is not."""
    unknown = ~sites.isin(find_recorded_sites(sites))
    if unknown.any() and not unknown.all():
        raise InputError(
            f"The {column} of {unknown.sum()} of {format_participants(len(unknown))} of {path} is unknown: "
            f"{join_names(identifier[unknown.index[unknown]].tolist())}. They would be compared as if they were of one "
            "site. Fill it in, or leave them out with convert --exclude."
        )


def read_sites(
    rows: pd.DataFrame, named: str | None, known: Sequence[str], others: Sequence[str | None], path: Path
) -> tuple[str | None, pd.Series, SummaryRow]:
    """The column of sites that is `named` (empty: none), or else the first of those `known`; the site of each of these
    rows; which column that is, and which others look like one. Raises InputError if it is one of `others`, or
    if another one than these looks like the site and none is named."""
    if named and named in others:
        raise InputError(
            f"--siteColumn {named} is also the diagnosis, the IDs or the maps of {path}; one column cannot be both. "
            "Name the column of sites, or say with --siteColumn '' that there is none."
        )
    found = next((name for name in known if name in rows and name not in others), None) if named is None else named
    alike = [name for name in rows if name not in (found, *others) and is_like_sites(rows[name])]
    if alike and found is None:
        raise InputError(
            f"{join_names(alike)} of {path} looks like the site, on which results depend; name the column of sites "
            f"with --siteColumn {quote(alike[0])}, or say with --siteColumn '' that there is none."
        )
    if found:
        sites = clean_column(column(rows, found, path)).fillna("").astype(str).str.split().str.join(" ")
        count = len(find_recorded_sites(sites))
        told = f"{found}, {count} site{'s'[: count != 1]}"
    else:
        sites, told = pd.Series(UNKNOWN_SITE, rows.index), f"no column is used. {SITE_UNKNOWN_SENTENCE}"
    more = f"; {join_names(alike)} looks like a site; if it is, use --siteColumn" if alike else ""
    return found or None, sites, ("site", told + more)


def is_like_sites(column: pd.Series) -> bool:
    """Whether a column looks like the site: by a word of its name, and by values that some people share."""
    words = re.split(r"[^A-Za-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(column.name)))  # scannerModel, SCAN_CENTRE
    return any(map(SITE_WORDS.fullmatch, words)) and 1 < clean_column(column).nunique() < max(len(column), 3)
