"""What in a table or in maps would make a result worthless.

The leak guard refuses columns that measure the diagnosis, and values or maps that separate the labels too well. Notes
tell of columns that were not filled in alike: another unit at some sites, as ages in months; two codings of a category.
Columns of which nothing can be learnt are refused, too: one value, dates, IDs, text that hardly two people share.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from data.base.errors import InputError
from data.base.terminal import format_participants
from data.cohorts.covariates import IMPLAUSIBLE_NUMBERS_TEXT, find_implausible_numbers
from data.cohorts.findings import Findings
from data.cohorts.phenotype import clean_column, is_mostly_numbers, match_fully
from data.cohorts.rows import MIN_CLASS_SUBJECTS, RecordRow, join_names
from data.conversion import measures
from data.conversion.tables import canonical_value, key, respelled

MAX_AUC = 0.85
GO_AHEAD = "go ahead with --allowLeak if the result is not to be trusted"
LEAK_P_VALUE = 0.001  # over all measures of maps (Bonferroni)
MIN_SUBJECTS = 18  # with a measure; fewer are separated by chance
MIN_KNOWN_SHARE = 0.1  # of subjects; ABIDE's WISC_IV_PSI, known for 6 %, has an AUC of 0.86 among these few
INSTRUMENTS = ("ADOS", "ADI", "ADIR", "SRS", "SCQ", "AQ", "VINELAND", "VABS", "DSM")  # they measure autism
CONSEQUENCES = (
    *("MED", "MEDS", "MEDICATION", "MEDICATIONS", "STIMULANTS"),
    *("COMORBIDITY", "COMORBIDITIES", "COMORBID", "PSYDX", "DX", "DIAGNOSIS"),
)
MONTH = "(jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*[.]?"
DATE = re.compile(  # 2011-05-12, 12.05.2011, 5/12/11; 20110512; 2011-05; 05/2011; 12 May 2011, May-11
    r"((\d\d?|(19|20)\d\d)(?P<mark>[-/.])\d\d?(?P=mark)(\d\d?|\d{4})|(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
    rf"|(19|20)\d\d[-/]\d\d?|\d\d?[-/](19|20)\d\d|(\d\d?[-/. ]+)?{MONTH}[-/. ,]*(\d\d?,? +)?(\d\d)?\d\d"
    r")([T ]+\d\d?:\d\d.*)?",
    re.IGNORECASE,
)
MIN_OWN, MANY_OWN = 5, 10  # values that one person alone has; fewer are rare categories
MIN_NUMBERED = 10  # people; fewer numbers may be in order by chance
MIN_COLLISIONS = 7  # pairs with one number are expected; that there is none has then a chance of one in a thousand
MIN_OF_SITE = 5  # people with a value
MIN_RATIO = 5  # of medians, in two units: people of one site may be three times as old as those of another

MIXTURES = {  # by measure: what those who are far below all others look like
    "maps": {"roughness": "have maps smoother than all others, as if only these had been smoothed"},
    "connectomes": {
        "mean_r": "correlate far less than all others, as if only their global signal had been removed",
        "roughness": "have series far smoother in time than all others, as if only these had been filtered",
    },
}
REPETITION_TIME = "repetition_time_s"  # of series, which are smoother from volume to volume if it is shorter
UNKNOWN_TIME = (
    "have series far smoother from volume to volume than all others: these were filtered, or their repetition time, "
    "which is not known, is shorter"
)


def measures_diagnosis(name: str) -> str | None:
    """The instrument, or consequence of the diagnosis, in a column's name; None if there is none."""
    words = re.split(r"[^A-Z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).upper())  # ADOS2_total, adosTotal
    return next((word for word in (*INSTRUMENTS, *CONSEQUENCES) if word in words), None)


def check_names(named: Mapping[str, Sequence[str]], label_column: str | None) -> None:
    """Raises InputError if a column is the label, or measures or follows from the diagnosis; by flags that name it."""
    for flag, name in ((flag, name) for flag, columns in named.items() for name in columns):
        if name == label_column:
            raise InputError(f"{flag} {name} is the label itself; leave it out.")
        if word := measures_diagnosis(name):
            raise InputError(
                f"{flag} {name} measures or follows from the diagnosis ({word}); leave it out, or {GO_AHEAD}."
            )


def check_informative(table: pd.DataFrame, subjects: Sequence[str], named: Mapping[str, Sequence[str]]) -> None:
    """Raises InputError if columns of a table of text, by the flag that names them, tell nothing of its people."""
    found = {flag: uninformative(table, subjects, columns) for flag, columns in named.items()}
    told = [f"{flag} {', '.join(columns)}" for flag, columns in found.items() if columns]
    if told:
        raise InputError(
            f"Nothing can be learnt from {'; '.join(told)}. Leave these columns out. In the table, an age could take "
            "the place of a date, and shared categories that of text. --where can choose participants by any column."
        )


def check_numbers(
    table: pd.DataFrame, columns: Sequence[str], path: Path, advice: str = "", among: pd.DataFrame | None = None
) -> None:
    """Raises InputError for numbers in these columns of a table of text that are likely no measurements, `among` these
    cells (bool) if they are given; with an `advice` in place of --missing."""
    if odd := find_implausible_numbers(table[list(dict.fromkeys(filter(table.__contains__, columns)))], among):
        name, value, _ = odd[0].rsplit(" ", 2)
        code = f"such as --missing {quote(f'{name}={value}')}; --missing '' takes all as they are."
        advice = advice or f"Correct them in the table, or say which mean unknown, {code}"
        raise InputError(f"{path} holds {IMPLAUSIBLE_NUMBERS_TEXT}: {join_names(odd)} participants. {advice}")


def uninformative(table: pd.DataFrame, subjects: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Of these columns those with less than two values, dates, IDs, or text that hardly two people share: by what
    they hold. Missing values are set aside; numbers may all differ, as measurements do."""
    found: dict[str, list[str]] = {}
    for name in filter(table.__contains__, columns):
        if what := told_by(clean_column(table[name]), subjects):
            found.setdefault(what, []).append(name)
    return [f"{', '.join(names)} ({what})" for what, names in found.items()]


def told_by(text: pd.Series, subjects: Sequence[str]) -> str:
    """Why nothing can be learnt from a column of text; empty if something can."""
    are_ids = (text.map(key, na_action="ignore") == list(subjects))[text.notna()].all()
    values = text.dropna().map(canonical_value)
    counts = values.value_counts()
    alone = int((counts == 1).sum())
    if len(counts) < 2:
        return f"one value, {counts.index[0][:40]}" if len(counts) else "no value"
    if match_fully(values, DATE).mean() > 0.5:
        return "dates"
    if are_ids or (is_mostly_numbers(values) and number_people(values)):
        return "IDs, or numbers that count participants"
    is_free = (alone >= MIN_OWN and 2 * alone > len(values)) or (alone >= MANY_OWN and 2 * alone > len(counts))
    if is_free and not is_mostly_numbers(values):
        return f"text, {alone} of whose {len(counts)} values one participant alone has"
    return ""


def number_people(values: pd.Series) -> bool:
    """Whether canonical values are whole numbers, of which no two are equal, as of IDs. They are also in order, or of
    so small a range that two measurements would be equal (a birthday problem)."""
    numbers = pd.to_numeric(values, errors="coerce")
    if len(numbers) < MIN_NUMBERED or not numbers.mod(1).eq(0).all() or not numbers.is_unique:
        return False
    pairs = len(numbers) * (len(numbers) - 1) / 2
    in_order = numbers.is_monotonic_increasing or numbers.is_monotonic_decreasing
    return in_order or pairs / (np.ptp(numbers) + 1) > MIN_COLLISIONS


def accepted(columns: Sequence[str], label_column: str | None, auc: Mapping[str, float]) -> tuple[str, ...]:
    """What --allowLeak let pass: columns that are the label or measure the diagnosis, values whose AUC is too large."""
    named = [name for name in columns if name == label_column or measures_diagnosis(name)]
    return (*named, *with_auc(auc, above=MAX_AUC))


def with_auc(found: Mapping[str, float], above: float = 0.0) -> list[str]:
    """Columns and measures with their AUC, in words."""
    return [f"{name} (AUC {auc:.2f})" for name, auc in found.items() if auc > above]


def separation(value: np.ndarray, label: np.ndarray) -> float:
    """AUC of a value (n,) for label (n,) 0 or 1, in the better direction; 0.5 if there are too few subjects."""
    if np.bincount(label.astype(int), minlength=2).min() < MIN_CLASS_SUBJECTS:
        return 0.5
    auc = roc_auc_score(label, value)
    return float(max(auc, 1 - auc))


def separations(values: pd.DataFrame, label: np.ndarray) -> dict[str, float]:
    """For each column its largest AUC, the largest first: of the values, with the median where unknown; of whether a
    value is known; or of the known values only, unless they are rare."""
    result = {}
    for name, column in values.items():
        value = column.to_numpy(float)
        known = np.isfinite(value)
        views = [(known.astype(float), label)]
        if known.any():
            views.append((np.where(known, value, np.median(value[known])), label))
        if known.mean() >= MIN_KNOWN_SHARE:
            views.append((value[known], label[known]))
        result[name] = max(separation(*view) for view in views)
    return dict(sorted(result.items(), key=lambda item: -item[1]))


def check_values(
    values: pd.DataFrame,
    label: np.ndarray,
    allow: bool,
    advice: str = f"Leave these columns out, or {GO_AHEAD}.",
) -> dict[str, float]:
    """AUC of each column that varies, on training subjects. Raises InputError if one is above 0.85, unless allowed."""
    found = separations(values.loc[:, values.nunique(dropna=False) > 1], label)
    leaks = with_auc(found, above=MAX_AUC)
    if leaks and not allow:
        raise InputError(
            f"The phenotype separates the training labels: {join_names(leaks)}; at most {MAX_AUC} is believable. "
            f"{advice}"
        )
    return found


def separating(measured: pd.DataFrame, label: np.ndarray) -> dict[str, float]:
    """The measures of maps whose AUC for label (n,) is above 0.85 either way, and significant (Mann-Whitney)."""
    found = {}
    for name, column in measured.items():
        autism, control = (column[label == value].dropna() for value in (1.0, 0.0))
        pairs = autism.size * control.size
        if pairs == 0 or autism.size + control.size < MIN_SUBJECTS or np.ptp(column.dropna()) == 0:
            continue
        test = mannwhitneyu(autism, control)
        auc = max(test.statistic, pairs - test.statistic) / pairs
        if auc > MAX_AUC and test.pvalue < LEAK_P_VALUE / measured.shape[1]:
            found[str(name)] = auc
    return found


def check_measures(measured: pd.DataFrame, label: np.ndarray, allow: bool) -> list[str]:
    """The measures of whole maps that separate the training labels. Raises InputError for any, unless allowed."""
    found = with_auc(separating(measured, label))
    if found and not allow:
        raise InputError(
            f"The maps separate the training labels by {', '.join(found)}, before any region is compared; at most "
            f"{MAX_AUC} is believable. Were both groups scanned and processed alike? Make the maps again, or "
            f"{GO_AHEAD}."
        )
    return found


def check_groups(what: str, views: Sequence[pd.DataFrame], rows: Sequence[RecordRow], findings: Findings) -> None:
    """Measures of whole maps or connectomes, a row for each of `rows`, that separate the training labels are a problem.
    If those of the last view set some people apart, or those of the first differ by site, a note tells it."""
    training = np.array([row.split == "train" for row in rows])
    label = np.array([row.label for row in rows])[training]
    if leaks := {name: auc for view in views for name, auc in separating(view[training], label).items()}:
        named = ", ".join(with_auc(leaks))
        findings.problems.append(f"whole {what} separate the training labels by {named}; were all made alike?")
    measured = views[-1].reset_index(drop=True)
    for measure, looks in MIXTURES[what].items():
        for among, same in comparable(what, measure, measured) if measure in measured else ():
            below = same.index[measures.far_below(np.log(same[measure].to_numpy()))]
            if below.empty:
                continue
            people = sorted(rows[at].subject for at in below)
            words = UNKNOWN_TIME if among is None else f"{among}{looks}"
            findings.notes.append(f"{len(people)} of {format_participants(len(same))} {words}: {join_names(people)}")
            findings.mark_outliers(f"{measure} of the {what} far below all others'", people)
    if by_site := measures.by_site(views[0], [row.site for row in rows]):
        findings.notes.append(f"the {what}' {', '.join(by_site)} differ by site; compare participants within sites")


def comparable(what: str, measure: str, measured: pd.DataFrame) -> Iterator[tuple[str | None, pd.DataFrame]]:
    """Those of the people who are compared with each other by a measure of whole maps or connectomes, and what they
    share in words: all, but by the roughness of series those of one repetition time; None if that is not known."""
    if what != "connectomes" or measure != "roughness":
        yield "", measured
        return
    times = measured[REPETITION_TIME] if REPETITION_TIME in measured else pd.Series(np.nan, measured.index)
    for seconds, same in measured.groupby(times.round(1), dropna=False):
        yield None if np.isnan(seconds) else f"with a repetition time of {seconds:g} s ", same


def check_coding(table: pd.DataFrame, label: np.ndarray, label_column: str | None) -> None:
    """Raises InputError if, by a table of text, instruments that measure autism were given mostly to subjects labelled
    control; `label` (rows,) is 1.0 autism, 0.0 control."""
    for name in table.columns:
        if measures_diagnosis(name) not in ("ADOS", "ADI", "ADIR"):
            continue
        given = clean_column(table[name]).notna().to_numpy(float)
        if separation(given, label) > MAX_AUC and given[label == 0].mean() > given[label == 1].mean():
            raise InputError(
                f"The labels look flipped: {name} is known for {given[label == 0].mean():.0%} of the controls and for "
                f"{given[label == 1].mean():.0%} of the others. Is --positive the value of {label_column} for autism?"
            )


def units_by_site(table: pd.DataFrame, columns: Sequence[str], site: Sequence[str]) -> list[str]:
    """A sentence for each column of numbers that are, at some sites, all far above those of the others."""
    found = []
    for name in columns:
        values = pd.to_numeric(clean_column(table[name]), errors="coerce").reset_index(drop=True)
        sites = values[values > 0].groupby(np.asarray(site, str)[values > 0]).agg(["size", "min", "median", "max"])
        sites = sites[sites["size"] >= MIN_OF_SITE].sort_values("median")
        above = sites[["median", "min"]].shift(-1).iloc[::-1].cummin().iloc[::-1]  # of all sites with a larger median
        apart = (above["median"] > MIN_RATIO * sites["median"]) & (above["min"] > sites["max"].cummax())
        if apart.any():
            low = apart.idxmax()
            high = sites.index[sites.index.get_loc(low) + 1 :].tolist()
            found.append(
                f"{name} has the median {above['median'][low]:g} at {join_names(high)}, {sites['median'][low]:g} "
                "elsewhere, and no value between: two units, as months and years? Write one."
            )
    return found


def mixed_codings(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """A sentence for each column of text that may hold two codings of one thing: numbers and words, or initials and
    whole words, as sex by M, F, 1 and 2. So does one with two spellings of one word."""
    found = []
    for name in columns:
        counts = clean_column(table[name]).value_counts()
        words = [str(word).casefold() for word in counts.index]
        are_numbers = pd.to_numeric(pd.Series(words, dtype=object), errors="coerce").notna()
        initials = [word for word in words if len(word) == 1 and any(of != word and of[0] == word for of in words)]
        if is_mostly_numbers(clean_column(table[name]).dropna()):
            continue
        if are_numbers.any() or initials:
            told = join_names([f"{value} ({count})" for value, count in counts.items()])
            found.append(f"{name} holds {told}: two codings of one thing? Write one for all.")
        elif groups := respelled(counts.index):
            told = join_names([" and ".join(group) for group in groups])
            found.append(
                f"{name} holds {told}, which differ in spelling only. Each counts as a value of its own; write one "
                "for all in the table, and convert again."
            )
    return found
