"""The phenotype table -> 29 leak-free values a subject.

ABIDE's columns are described in its phenotypic data legend. Never used, not even whether they are missing: ADOS, ADI-R,
SRS, SCQ, AQ, VINELAND, DSM, medication, comorbidity, since they measure or follow from the diagnosis.
"""

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from data.errors import InputError
from data.records import PHENOTYPE_SIZE

MISSING = ("", "-9999", "-9999.0", "`", "n/a", "N/A", "NaN", "nan")
HANDEDNESS = {"right": ("R",), "left": ("L",), "ambidextrous": ("Ambi",), "mixed": ("Mixed", "L->R")}
IQ_TESTS = {"wasi": ("WASI",), "wisc": ("WISC", "HAWIK"), "wais": ("WAIS",)}  # HAWIK is the German WISC
MAX_NUMBER = 1e12  # float32 can still sum its squares
WISC_INDICES = ("VCI", "PRI", "WMI", "PSI")
ABIDE_COLUMNS = [
    "AGE_AT_SCAN",
    "SEX",
    "HANDEDNESS_CATEGORY",
    "HANDEDNESS_SCORES",
    "FIQ",
    "VIQ",
    "PIQ",
    "FIQ_TEST_TYPE",
    "EYE_STATUS_AT_SCAN",
    "BMI",
] + [f"WISC_IV_{index}" for index in WISC_INDICES]


def clean(column: pd.Series) -> pd.Series:
    """Text with its missing values (empty, -9999, a stray backtick) as NaN."""
    text = column.astype(str).str.strip()
    return text.mask(text.isin(MISSING))


def numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A column as float64, NaN where missing. Raises InputError for text that is no number."""
    text = clean(table[name])
    values = pd.to_numeric(text, errors="coerce").where(lambda value: value.abs() <= MAX_NUMBER)
    if (wrong := text[~np.isfinite(values) & text.notna()]).size:
        raise InputError(f"Column {name} holds {wrong.iloc[0]!r}; expected numbers, or nothing where unknown.")
    return values


def one_hot(text: pd.Series, codes: dict[str, tuple[str, ...]], prefix: str) -> dict[str, pd.Series]:
    """One 0/1 column a code; a missing value is 0 in all."""
    return {f"{prefix}_{name}": text.isin(values).astype(float) for name, values in codes.items()}


def abide_values(table: pd.DataFrame) -> pd.DataFrame:
    """ABIDE's columns as text -> (subjects, 29) float64, NaN where unknown. Raises InputError for a missing column."""
    if absent := [name for name in ABIDE_COLUMNS if name not in table]:
        raise InputError(f"The phenotype table lacks {', '.join(absent)}; name columns of your own with --phenotype.")
    hand, test = clean(table["HANDEDNESS_CATEGORY"]), clean(table["FIQ_TEST_TYPE"]).str.upper()
    wisc = {f"wisc_{index.lower()}": numbers(table, f"WISC_IV_{index}") for index in WISC_INDICES}
    measured = {name.lower(): numbers(table, name) for name in ("FIQ", "VIQ", "PIQ", "BMI")}
    score = numbers(table, "HANDEDNESS_SCORES")
    family = pd.Series(np.nan, table.index, dtype=object).mask(test.notna(), "other")
    for name, prefixes in IQ_TESTS.items():
        family = family.mask(test.str.startswith(prefixes, na=False), name)
    columns = {
        "age": numbers(table, "AGE_AT_SCAN"),
        **one_hot(numbers(table, "SEX"), {"male": (1,), "female": (2,)}, "sex"),
        **one_hot(hand, HANDEDNESS, "handedness"),
        "handedness_score": score,
        **{name: measured[name] for name in ("fiq", "viq", "piq")},
        "handedness_unknown": hand.isna().astype(float),
        "handedness_score_missing": score.isna().astype(float),
        **{f"{name}_missing": measured[name].isna().astype(float) for name in ("fiq", "viq", "piq")},
        "wisc_missing": pd.DataFrame(wisc).isna().all(axis=1).astype(float),
        "bmi_missing": measured["bmi"].isna().astype(float),
        **one_hot(family, {name: (name,) for name in (*IQ_TESTS, "other")}, "iq_test"),
        **wisc,
        **one_hot(numbers(table, "EYE_STATUS_AT_SCAN"), {"open": (1,), "closed": (2,)}, "eyes"),
        "bmi": measured["bmi"],
    }
    return pd.DataFrame(columns)


def custom_values(table: pd.DataFrame, columns: list[str], training: np.ndarray) -> pd.DataFrame:
    """Columns of the user's own -> (subjects, 29) float64, NaN where unknown.

    Numbers stay one value, with another that says where they are missing if they ever are; text becomes a 0/1 value for
    each category. Which categories and which missing values there are is learnt from the `training` rows (n,) bool.
    Unused values are 0 and named `unused_k`. Raises InputError for an unknown column or more than 29 values.
    """
    encoded = {}
    for name in columns:
        if name not in table:
            raise InputError(f"--phenotype {name} is no column of the table; it has {', '.join(table.columns[:20])}.")
        text = clean(table[name])
        if pd.to_numeric(text, errors="coerce").notna().equals(text.notna()):
            encoded[name] = numbers(table, name)
            if text[training].isna().any():
                encoded[f"{name}_missing"] = text.isna().astype(float)
        else:
            encoded |= one_hot(text, {value: (value,) for value in sorted(text[training].dropna().unique())}, name)
    if len(encoded) > PHENOTYPE_SIZE:
        raise InputError(
            f"--phenotype gives {len(encoded)} values; expected at most {PHENOTYPE_SIZE}. Name fewer columns."
        )
    unused = {f"unused_{number}": 0.0 for number in range(len(encoded) + 1, PHENOTYPE_SIZE + 1)}
    return pd.DataFrame(encoded | unused, index=table.index)


def encode(table: pd.DataFrame, columns: list[str] | None, training: np.ndarray) -> pd.DataFrame:
    """ABIDE's 29 values, or those of the user's `columns`; see `abide_values` and `custom_values`."""
    return abide_values(table) if columns is None else custom_values(table, columns, training)


def fit_scaler(values: np.ndarray) -> Pipeline:
    """Median imputation, then z-scores, fitted on training subjects (n, 29); a constant column becomes zero."""
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()).fit(values)
