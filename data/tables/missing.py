"""Cells of a table that say that a value is missing."""

import re

import numpy as np
import pandas as pd

MISSING_VALUE_PATTERN = re.compile(
    r"|`|\.|\?|--?|na|n/a|#n/a|<na>|-?nan|null|#null!|#(div/0|value|ref|num)!|#name\?|-9{3,5}([.,]0*)?", re.IGNORECASE
)


def clean_column(column: pd.Series) -> pd.Series:
    """Text with its missing values (empty, NA, -9999, a stray backtick and the like, see `MISSING_VALUE_PATTERN`) as
    NaN."""
    stripped_texts = map(str.strip, column.astype(str))
    cleaned_texts = [np.nan if MISSING_VALUE_PATTERN.fullmatch(text) else text for text in stripped_texts]
    return pd.Series(cleaned_texts, column.index, "str", column.name)
