"""A table of people -> 29 leak-free values and covariates of each subject; both on disk, and what is missing of them.

ABIDE's columns are described in its phenotypic data legend. Never used, not even whether they are missing: ADOS, ADI-R,
SRS, SCQ, AQ, VINELAND, DSM, medication, comorbidity, since they measure or follow from the diagnosis.
"""

import functools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base import tables
from data.base.errors import InputError
from data.cohorts.records import PHENOTYPE_SIZE
from data.cohorts.rows import Metadata, Preparation, Row, listed

MISSING_VALUE = re.compile(
    r"|`|\.|\?|--?|na|n/a|#n/a|<na>|-?nan|null|#null!|#(div/0|value|ref|num)!|#name\?|-9{3,5}([.,]0*)?", re.IGNORECASE
)
NUMBER_LIKE = re.compile(  # a number, or meant to be one: >18, 3,5, 40 %
    r"([<>~≤≥]=?|ca\.?)?\s*[-+]?(\d+([.,]\d+)*|[.,]\d+)(e[-+]?\d+)?\s*[%+?]?", re.IGNORECASE
)
HANDEDNESS = {"right": ("R",), "left": ("L",), "ambidextrous": ("Ambi",), "mixed": ("Mixed", "L->R")}
IQ_TESTS = {"wasi": ("WASI",), "wisc": ("WISC", "HAWIK"), "wais": ("WAIS",)}  # HAWIK is the German WISC
MAX_NUMBER = 1e12  # float32 can still sum its squares
WISC_INDICES = ("VCI", "PRI", "WMI", "PSI")
# By the first half of a value's name, the second, and the codes that it is 1 for.
CATEGORIES: dict[str, Mapping[str, tuple]] = {
    "sex": {"male": (1,), "female": (2,)},
    "handedness": HANDEDNESS,
    "iq_test": {name: (name,) for name in (*IQ_TESTS, "other")},
    "eyes": {"open": (1,), "closed": (2,)},
}
UNKNOWN_TOGETHER = {  # by the name of ABIDE's indicator, the values that are all unknown where it is 1
    "handedness_unknown": tuple(f"handedness_{name}" for name in HANDEDNESS),
    "wisc_missing": tuple(f"wisc_{index.lower()}" for index in WISC_INDICES),
}
ABIDE_COLUMNS = [
    *("AGE_AT_SCAN", "SEX", "HANDEDNESS_CATEGORY", "HANDEDNESS_SCORES", "FIQ", "VIQ", "PIQ"),
    *("FIQ_TEST_TYPE", "EYE_STATUS_AT_SCAN", "BMI", *(f"WISC_IV_{index}" for index in WISC_INDICES)),
]
SUBJECT = "subject"  # the column of tables by subject
LOGARITHMIC = re.compile("mean_?fd|framewise", re.IGNORECASE)  # head motion whose logarithm is kept, also in bundles
ABIDE_COVARIATES = ("SITE_ID", "AGE_AT_SCAN", "SEX", "func_mean_fd")  # the last is head motion in mm
MISSING_P_VALUE = 0.01  # over all columns and sites (Bonferroni)
INDICATOR = re.compile("_(missing|unknown)$")  # ends the name of a value that is 1 where another one is missing
TEST = "iq_test_"  # begins the name of a value that is 1 where such a test measured the IQ


def clean(column: pd.Series) -> pd.Series:
    """Text with its missing values (empty, NA, -9999, a stray backtick and the like, see MISSING_VALUE) as NaN."""
    texts = map(str.strip, column.astype(str))
    known = [np.nan if MISSING_VALUE.fullmatch(text) else text for text in texts]
    return pd.Series(known, column.index, "str", column.name)


def matches(text: pd.Series, pattern: re.Pattern) -> pd.Series:
    """Which values of a column of text match the pattern entirely, bool."""
    return text.map(lambda value: pattern.fullmatch(value) is not None).astype(bool)


def mostly_numbers(column: pd.Series) -> bool:
    """Whether more than half of a column's known values are numbers, or look like them: `>18`, `3,5`."""
    known = clean(column).dropna()
    return known.empty or bool(matches(known, NUMBER_LIKE).mean() > 0.5)


def numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """A column as float64, NaN where missing. Raises InputError for text that is not a finite number."""
    text = clean(table[name])
    values = pd.to_numeric(text, errors="coerce").where(lambda value: value.abs() <= MAX_NUMBER)
    if (wrong := text[~np.isfinite(values) & text.notna()]).size:
        raise InputError(
            f"Column {name} holds {wrong.iloc[0]!r}; expected numbers, or nothing where unknown, but {wrong.size} of "
            f"{text.notna().sum()} values are none. Correct them in the table; write decimals with a point."
        )
    return values


def one_hot(text: pd.Series, codes: Mapping[str, tuple], prefix: str) -> dict[str, pd.Series]:
    """One 0/1 column for each code; a missing value is 0 in all. Raises InputError for a value without a code."""
    if (odd := text[text.notna() & ~text.isin([value for values in codes.values() for value in values])]).size:
        expected = ", ".join(str(value) for values in codes.values() for value in values)
        raise InputError(
            f"Column {text.name} holds {odd.iloc[0]}; expected {expected}, or nothing where unknown, but {odd.size} "
            f"of {text.notna().sum()} values are others. Recode them, or name columns of your own: convert --phenotype"
        )
    return {f"{prefix}_{name}": text.isin(values).astype(float) for name, values in codes.items()}


def abide_values(table: pd.DataFrame) -> pd.DataFrame:
    """ABIDE's columns as text -> (subjects, 29) float64, NaN where unknown. Raises InputError for a missing column."""
    if absent := [name for name in ABIDE_COLUMNS if name not in table]:
        raise InputError(
            f"The phenotype table lacks {listed(absent)}; name columns of your own with convert --phenotype."
        )
    hand, test = clean(table["HANDEDNESS_CATEGORY"]), clean(table["FIQ_TEST_TYPE"]).str.upper()
    wisc = {f"wisc_{index.lower()}": numbers(table, f"WISC_IV_{index}") for index in WISC_INDICES}
    measured = {name.lower(): numbers(table, name) for name in ("FIQ", "VIQ", "PIQ", "BMI")}
    score = numbers(table, "HANDEDNESS_SCORES")
    family = pd.Series(np.nan, table.index, dtype=object).mask(test.notna(), "other")
    for name, prefixes in IQ_TESTS.items():
        family = family.mask(test.str.startswith(prefixes, na=False), name)
    columns = {
        "age": numbers(table, "AGE_AT_SCAN"),
        **one_hot(numbers(table, "SEX"), CATEGORIES["sex"], "sex"),
        **one_hot(hand, CATEGORIES["handedness"], "handedness"),
        "handedness_score": score,
        **{name: measured[name] for name in ("fiq", "viq", "piq")},
        "handedness_unknown": hand.isna().astype(float),
        "handedness_score_missing": score.isna().astype(float),
        **{f"{name}_missing": measured[name].isna().astype(float) for name in ("fiq", "viq", "piq")},
        "wisc_missing": pd.DataFrame(wisc).isna().all(axis=1).astype(float),
        "bmi_missing": measured["bmi"].isna().astype(float),
        **one_hot(family, CATEGORIES["iq_test"], "iq_test"),
        **wisc,
        **one_hot(numbers(table, "EYE_STATUS_AT_SCAN"), CATEGORIES["eyes"], "eyes"),
        "bmi": measured["bmi"],
    }
    return pd.DataFrame(columns)


@functools.cache
def abide_names() -> tuple[str, ...]:
    """The names of ABIDE's 29 values."""
    return tuple(abide_values(pd.DataFrame(columns=ABIDE_COLUMNS, dtype=str)))


def custom_values(table: pd.DataFrame, columns: Sequence[str], training: np.ndarray) -> pd.DataFrame:
    """The user's own columns -> (subjects, 29) float64, NaN where unknown; the unused ones are 0, named `unused_k`.

    A column of numbers becomes one value. If it is ever missing, a second value tells where. Text becomes a 0/1 value
    for each category. Both are learnt from the `training` rows (n,) bool. Raises InputError for text among numbers, or
    more than 29 values.
    """
    missing = [name for name in columns if clean(table[name])[training].isna().any()]
    return coded_values(table, columns, categories(table, columns, training), missing)


def coded_values(
    table: pd.DataFrame, columns: Sequence[str], known: Mapping[str, Sequence[str]], missing: Collection[str]
) -> pd.DataFrame:
    """`custom_values` with the categories `known` of columns of text, and the columns that may be `missing`."""
    encoded: dict[str, pd.Series] = {}
    for name in columns:
        text = clean(table[name])
        if name in known:
            encoded |= one_hot(text.where(text.isin(known[name])), {value: (value,) for value in known[name]}, name)
            continue
        encoded[name] = numbers(table, name)
        if name in missing:
            encoded[f"{name}_missing"] = text.isna().astype(float)
    if len(encoded) > PHENOTYPE_SIZE:
        largest = max(known, key=lambda name: len(known[name]), default=None)
        one = f"; {largest} is text and gives {len(known[largest])} of them" if largest else ""
        raise InputError(
            f"--phenotype gives {len(encoded)} values; expected at most {PHENOTYPE_SIZE}{one}. Name fewer columns."
        )
    unused = {f"unused_{number}": 0.0 for number in range(len(encoded) + 1, PHENOTYPE_SIZE + 1)}
    return pd.DataFrame(encoded | unused, index=table.index)


def categories(table: pd.DataFrame, columns: Sequence[str], training: np.ndarray) -> dict[str, tuple[str, ...]]:
    """The columns that are text, each with the values that the `training` rows (n,) bool have."""
    texts = {name: clean(table[name])[training] for name in columns if not mostly_numbers(table[name])}
    return {name: tuple(sorted(text.dropna().unique())) for name, text in texts.items()}


def values_of_categories(metadata: Metadata) -> dict[str, list[str]]:
    """By variable, the names of the 0/1 values that its categories became."""
    if metadata.phenotype == abide_names():
        return {variable: [f"{variable}_{name}" for name in codes] for variable, codes in CATEGORIES.items()}
    texts = metadata.phenotype_categories.items()
    return {variable: [f"{variable}_{category}" for category in categories] for variable, categories in texts}


def values_of_indicators(metadata: Metadata) -> dict[str, list[str]]:
    """By value that is 1 where others are unknown and 0 elsewhere, the names of these."""
    about = {f"{name}_missing": [name] for name in metadata.phenotype}
    if metadata.phenotype == abide_names():
        about |= {indicator: list(names) for indicator, names in UNKNOWN_TOGETHER.items()}
    added = set(metadata.phenotype) - set(metadata.phenotype_columns)  # not a column of the user's own
    return {indicator: names for indicator, names in about.items() if indicator in added}


def indicators(values: pd.DataFrame, metadata: Metadata) -> pd.DataFrame:
    """What `values_of_indicators` must be beside raw values (people, 29), 0.0 or 1.0."""
    codes = [name for names in values_of_categories(metadata).values() for name in names]
    known = values.notna() & ~(values.eq(0) & values.columns.isin(codes))  # no category is 1
    about = values_of_indicators(metadata)
    return pd.DataFrame({name: (~known[names].any(axis=1)).astype(float) for name, names in about.items()}, known.index)


def impossible_values(values: pd.DataFrame, metadata: Metadata) -> list[str]:
    """Sentences on raw values (people, 29) that no conversion gives: categories other than 0 and 1, several of one
    variable, indicators that contradict what they are about. Nothing is said of what no conversion made."""
    if not metadata.phenotype_columns:
        return []
    sentences = list[str]()
    for names in values_of_categories(metadata).values():
        rule = f"expected 1 for one of {listed(names)} and 0 for others, or 0 for all where it is unknown"
        for name in names:
            if (wrong := values[name][~values[name].isin([0, 1])]).size:
                told = f"{wrong.iloc[0]:g}" if wrong.notna().iloc[0] else "empty"
                sentences.append(f"{name} of {listed(wrong.index.tolist())} is {told}; {rule}")
        if (several := values[names].eq(1).sum(axis=1).loc[lambda count: count > 1]).size:
            sentences.append(f"{listed(several.index.tolist())} has several of one variable; {rule}")
    expected, about = indicators(values, metadata), values_of_indicators(metadata)
    for name in expected:
        if (wrong := values[name][values[name].ne(expected[name])]).size:
            rule = f"expected 1 if {listed(about[name])} is unknown, else 0"
            sentences.append(f"{name} of {listed(wrong.index.tolist())} is {wrong.iloc[0]:g}; {rule}")
    return sentences


@dataclass(frozen=True)
class Scaler:
    """Constants that impute and scale a phenotype, each (29,) float64."""

    median: np.ndarray
    mean: np.ndarray
    scale: np.ndarray  # 0 for a value that was constant or wholly unknown

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Raw values (n, 29), NaN where unknown -> z-scores (n, 29) float64; values with a scale of 0 become 0."""
        filled = np.where(np.isnan(values), self.median, values)
        return np.where(self.scale > 0, (filled - self.mean) / np.where(self.scale > 0, self.scale, 1), 0)

    @classmethod
    def of(cls, preparation: Preparation) -> "Scaler | None":
        """The constants that a preparation holds; None if it holds none, or not one for each value."""
        constants = preparation.phenotype_median, preparation.phenotype_mean, preparation.phenotype_scale
        return cls(*map(np.array, constants)) if preparation.has_constants else None

    def constants(self) -> dict[str, Any]:
        """The constants as fields of `Preparation`."""
        return {f"phenotype_{name}": tuple(values.tolist()) for name, values in vars(self).items()}


def fit_scaler(values: np.ndarray) -> Scaler:
    """Median imputation, then z-scores, fitted on training subjects (n, 29)."""
    from sklearn.impute import SimpleImputer  # slow, and the processes that read maps can do without
    from sklearn.preprocessing import StandardScaler

    values = np.ascontiguousarray(values)  # the last bit of a sum depends on the order in memory
    imputer = SimpleImputer(strategy="median", keep_empty_features=True).fit(values)
    filled = imputer.transform(values)
    scaler = StandardScaler().fit(filled)
    return Scaler(imputer.statistics_, scaler.mean_, np.where(np.ptp(filled, axis=0) > 0, scaler.scale_, 0))


def recording(preparation: Preparation) -> list[int]:
    """The positions of the values that say only what of a person is missing, and how it was measured; empty if they are
    the same for all training people."""
    named = enumerate(zip(preparation.phenotype, preparation.phenotype_scale, strict=False))
    found = [(at, scale) for at, (name, scale) in named if INDICATOR.search(name) or name.startswith(TEST)]
    return [at for at, _ in found] if any(scale > 0 for _, scale in found) else []


def covariates_of(table: pd.DataFrame, columns: Sequence[str], subjects: Sequence[str]) -> pd.DataFrame:
    """Columns of a table as text by subject, empty if a value or the column is missing."""
    text = table.reindex(columns=list(columns), fill_value="").apply(clean).fillna("")
    return text.apply(lambda column: column.str.split().str.join(" ")).set_axis(list(subjects))


def refuse_subject_column(columns: Iterable[str]) -> None:
    """Raises InputError for a column with the name of the column of subjects."""
    if SUBJECT in columns:
        reason = "cannot be kept as a covariate or phenotype, whose tables name the participants so"
        raise InputError(f"The column {SUBJECT} {reason}; rename it in the table.")


def write_by_subject(path: Path, table: pd.DataFrame) -> None:
    """Writes a table whose index holds the subjects; floats with all their digits, NaN as an empty cell."""
    tables.write_frame(path, table.rename_axis(SUBJECT).reset_index())


def read_by_subject(path: Path, subjects: Sequence[str]) -> pd.DataFrame:
    """The rows of these subjects, in their order, as text. Raises InputError unless there is one for each."""
    table = tables.read_frame(path, [SUBJECT]).set_index(SUBJECT)
    rows = table.index.value_counts().reindex(list(subjects), fill_value=0)
    if (odd := rows[rows != 1]).size:
        raise InputError(f"{path} has {odd.iloc[0]} rows of participant {odd.index[0]}; expected one. Copy it again.")
    return table.loc[list(subjects)]


def read_phenotype(path: Path, subjects: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """The same as float64, NaN where empty. Raises InputError unless the columns are `names` and hold numbers."""
    table = read_by_subject(path, subjects)
    try:
        values = table.map(lambda text: float(text or "nan"))
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}. Convert again.") from error
    if list(values) != list(names) or len(names) != PHENOTYPE_SIZE or (values.abs() > MAX_NUMBER).any(axis=None):
        raise InputError(f"{path} does not hold the {PHENOTYPE_SIZE} numbers that cohort.json names. Convert again.")
    return values


def missing_in(values: pd.DataFrame | None, rows: Sequence[Row]) -> list[str]:
    """A sentence for each site at which one class lacks values more often than the other (Fisher's exact test), the
    clearest first. There, a classifier can read the label from the gap. `values` (people, columns) are NaN where one is
    missing; nothing is said without them."""
    from scipy.stats import fisher_exact

    if values is None:
        return []
    person = {row.subject: row for row in rows}
    label, site = (np.array([getattr(person[name], of) for name in values.index]) for of in ("label", "site"))
    names: dict[tuple[str, bytes], list[str]] = {}  # of a site, the columns that the same people lack
    found: dict[tuple[str, bytes], tuple[float, str]] = {}
    for name, column in values.items():
        missing = (column.isna() | bool(INDICATOR.search(str(name))) & (column == 1)).to_numpy()
        for where in np.unique(site):
            control, autism = (missing[(site == where) & (label == value)] for value in (0.0, 1.0))
            together = np.concatenate([control, autism])
            if control.size == 0 or autism.size == 0 or together.all() or not together.any():
                continue
            same = (str(where), together.tobytes())
            names.setdefault(same, []).append(INDICATOR.sub("", str(name)))
            test = fisher_exact([[control.sum(), (~control).sum()], [autism.sum(), (~autism).sum()]])
            counts = [f"{lacking.sum()} of {lacking.size}" for lacking in (control, autism)]
            found[same] = (
                float(test.pvalue),
                f"{counts[0]} controls and {counts[1]} participants with autism at {where}",
            )
    threshold = MISSING_P_VALUE / max(len(found), 1)
    return [
        f"{listed(list(dict.fromkeys(names[same])))} missing in {text} (p = {p_value:.1g})"
        for same, (p_value, text) in sorted(found.items(), key=lambda item: item[1])
        if p_value < threshold
    ]
