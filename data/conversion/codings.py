"""Columns that were not filled in alike: another unit at some sites, as ages in months; two codings of a category."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.cohorts.phenotype import clean, mostly_numbers
from data.cohorts.rows import listed

MIN_OF_SITE = 5  # people with a value
MIN_RATIO = 5  # of medians, in two units: people of one site may be three times as old as those of another
MAX_CODES = 12  # words in a column of categories
CODINGS = [  # words of which one column has those of one row
    ({"m", "f"}, {"1", "2"}, {"male", "female"}, {"0", "1"}, {"man", "woman"}, {"boy", "girl"}),
    ({"r", "l"}, {"right", "left"}, {"1", "2"}),
    ({"y", "n"}, {"yes", "no"}, {"0", "1"}, {"true", "false"}),
]


def units_by_site(table: pd.DataFrame, columns: Sequence[str], site: Sequence[str]) -> list[str]:
    """A sentence for each column of numbers that are, at some sites, all far above those of the others."""
    of_row, found = np.asarray(site, str), []
    for name in columns:
        values = pd.to_numeric(clean(table[name]), errors="coerce").to_numpy(float)
        groups = [(str(where), values[(of_row == where) & (values > 0)]) for where in np.unique(of_row)]
        known = sorted(
            (group for group in groups if group[1].size >= MIN_OF_SITE), key=lambda group: np.median(group[1])
        )
        for at in range(1, len(known)):
            low, high = (np.concatenate([group for _, group in part]) for part in (known[:at], known[at:]))
            if np.median(high) > MIN_RATIO * np.median(low) and high.min() > low.max():
                found.append(
                    f"{name} has the median {np.median(high):g} at {listed([where for where, _ in known[at:]])}, "
                    f"{np.median(low):g} elsewhere, and no value between: two units, as months and years? Write one."
                )
                break
    return found


def mixed_codings(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """A sentence for each column of text that holds words of two codings of one thing: sex as M, F, 1 and 2."""
    found = []
    for name in columns:
        words = clean(table[name]).dropna()
        plain = words.str.casefold().str.removesuffix(".0")
        if plain.nunique() > MAX_CODES:
            continue
        for rows in CODINGS:
            used = [coding for coding in rows if coding & set(plain)]
            if len(used) > 1 and set(plain) <= set.union(*used) and not any(set(plain) <= coding for coding in rows):
                counts = [f"{value} ({count})" for value, count in words.value_counts().items()]
                found.append(f"{name} holds {listed(counts)}: two codings of one thing? Write one for all.")
                break
        else:
            spelled = words.groupby(plain).nunique()
            if not mostly_numbers(words) and (spelled > 1).any():
                several = sorted(words[plain.isin(spelled.index[spelled > 1])].unique())
                found.append(f"{name} holds {listed(several)}, which differ in capitals only. Write one for all.")
    return found
