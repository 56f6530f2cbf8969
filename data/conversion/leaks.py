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
from data.base.listing import join_names
from data.base.terminal import format_participants
from data.base.thresholds import MIN_CLASS_SUBJECTS
from data.cohorts.findings import Findings
from data.cohorts.problems import Problem
from data.cohorts.rows import RecordRow
from data.conversion import measures
from data.tables.covariates import IMPLAUSIBLE_NUMBERS_TEXT, describe_implausible_numbers
from data.tables.missing import clean_column
from data.tables.people import canonicalise_value, group_spellings, normalise_id
from data.tables.phenotype import is_mostly_numbers, match_fully

MAX_BELIEVABLE_AUC = 0.85
ALLOW_LEAK_ADVICE = "go ahead with --allowLeak if the result is not to be trusted"
MAX_LEAK_P = 0.001  # over all measures of maps (Bonferroni)
MIN_MEASURED_SUBJECTS = 18  # with a measure; fewer are separated by chance
MIN_FILLED_SHARE = 0.1  # of subjects; ABIDE's WISC_IV_PSI, known for 6 %, has an AUC of 0.86 among these few
AUTISM_INSTRUMENTS = ("ADOS", "ADI", "ADIR", "SRS", "SCQ", "AQ", "VINELAND", "VABS", "DSM")  # they measure autism
DIAGNOSIS_CONSEQUENCE_WORDS = (
    *("MED", "MEDS", "MEDICATION", "MEDICATIONS", "STIMULANTS"),
    *("COMORBIDITY", "COMORBIDITIES", "COMORBID", "PSYDX", "DX", "DIAGNOSIS"),
)
MONTH_PATTERN = "(jan|feb|m[aä]r|apr|ma[iy]|jun|jul|aug|sep|o[ck]t|nov|de[cz])[a-z]*[.]?"
DATE_PATTERN = re.compile(  # 2011-05-12, 12.05.2011, 5/12/11; 20110512; 2011-05; 05/2011; 12 May 2011, May-11
    r"((\d\d?|(19|20)\d\d)(?P<mark>[-/.])\d\d?(?P=mark)(\d\d?|\d{4})|(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
    rf"|(19|20)\d\d[-/]\d\d?|\d\d?[-/](19|20)\d\d|(\d\d?[-/. ]+)?{MONTH_PATTERN}[-/. ,]*(\d\d?,? +)?(\d\d)?\d\d"
    r")([T ]+\d\d?:\d\d.*)?",
    re.IGNORECASE,
)
MIN_UNIQUE_VALUES = 5
MANY_UNIQUE_VALUES = 10  # values that one person alone has; fewer are rare categories
MIN_NUMBERED_PEOPLE = 10  # people; fewer numbers may be in order by chance
# pairs with one number are expected; that there is none has then a chance of one in a thousand
MIN_EXPECTED_EQUAL_PAIRS = 7
MIN_SITE_VALUES = 5  # people with a value
MIN_UNIT_RATIO = 5  # of medians, in two units: people of one site may be three times as old as those of another

MIXTURE_TEXT_BY_KIND_AND_MEASURE = {  # by measure: what those who are far below all others look like
    "maps": {"roughness": "have maps smoother than all others, as if only these had been smoothed"},
    "connectomes": {
        "mean_r": "correlate far less than all others, as if only their global signal had been removed",
        "roughness": "have series far smoother in time than all others, as if only these had been filtered",
    },
}
REPETITION_TIME_COLUMN = "repetition_time_s"  # of series, which are smoother from volume to volume if it is shorter
UNKNOWN_REPETITION_TIME_TEXT = (
    "have series far smoother from volume to volume than all others: these were filtered, or their repetition time, "
    "which is not known, is shorter"
)


def find_diagnosis_word(column_name: str) -> str | None:
    """The instrument, or consequence of the diagnosis, in a column's name; None if there is none."""
    spaced_column_name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column_name)  # adosTotal -> ados Total
    column_name_words = re.split(r"[^A-Z]+", spaced_column_name.upper())  # ADOS2_total -> ADOS, TOTAL
    for diagnosis_word in (*AUTISM_INSTRUMENTS, *DIAGNOSIS_CONSEQUENCE_WORDS):
        if diagnosis_word in column_name_words:
            return diagnosis_word
    return None


def check_leaking_column_names(columns_by_flag: Mapping[str, Sequence[str]], label_column: str | None) -> None:
    """Raises InputError if a column is the label, or measures or follows from the diagnosis; by flags that name it."""
    flags_and_columns = [
        (flag, column_name) for flag, column_names in columns_by_flag.items() for column_name in column_names
    ]
    for flag, column_name in flags_and_columns:
        if column_name == label_column:
            raise InputError(f"{flag} {column_name} is the label itself; leave it out.")
        if diagnosis_word := find_diagnosis_word(column_name):
            raise InputError(
                f"{flag} {column_name} measures or follows from the diagnosis ({diagnosis_word}); leave it out, or "
                f"{ALLOW_LEAK_ADVICE}."
            )


def check_informative_columns(
    text_table: pd.DataFrame, subject_ids: Sequence[str], columns_by_flag: Mapping[str, Sequence[str]]
) -> None:
    """Raises InputError if columns of a table of text, by the flag that names them, tell nothing of its people."""
    uninformative_flag_texts = []
    for flag, column_names in columns_by_flag.items():
        uninformative_texts = describe_columns_without_information(text_table, subject_ids, column_names)
        if uninformative_texts:
            uninformative_flag_texts.append(f"{flag} {', '.join(uninformative_texts)}")
    if uninformative_flag_texts:
        raise InputError(
            f"Nothing can be learnt from {'; '.join(uninformative_flag_texts)}. Leave these columns out. In the table, "
            "an age could take the place of a date, and shared categories that of text. --where can choose "
            "participants by any column."
        )


def check_plausible_numbers(
    text_table: pd.DataFrame,
    columns: Sequence[str],
    table_path: Path,
    correction_advice: str = "",
    cell_mask: pd.DataFrame | None = None,
) -> None:
    """Raises InputError for numbers in these columns of a table of text that are likely no measurements, only in the
    cells of `cell_mask` (bool) if it is given; `correction_advice` takes the place of that on --missing."""
    present_columns = [column_name for column_name in dict.fromkeys(columns) if column_name in text_table]
    outlier_texts = describe_implausible_numbers(text_table[present_columns], cell_mask)
    if outlier_texts:
        column_name, outlier_value, _ = outlier_texts[0].rsplit(" ", 2)
        missing_advice = (
            f"such as --missing {quote(f'{column_name}={outlier_value}')}; --missing '' takes all as they are."
        )
        correction_advice = (
            correction_advice or f"Correct them in the table, or say which mean unknown, {missing_advice}"
        )
        raise InputError(
            f"{table_path} holds {IMPLAUSIBLE_NUMBERS_TEXT}: {join_names(outlier_texts)} participants. "
            f"{correction_advice}"
        )


def describe_columns_without_information(
    text_table: pd.DataFrame, subject_ids: Sequence[str], columns: Sequence[str]
) -> list[str]:
    """Of these columns those with less than two values, dates, IDs, or text that hardly two people share: by what
    they hold. Missing values are set aside; numbers may all differ, as measurements do."""
    columns_by_reason: dict[str, list[str]] = {}
    for column_name in columns:
        if column_name not in text_table:
            continue
        reason = find_uninformative_reason(clean_column(text_table[column_name]), subject_ids)
        if reason:
            columns_by_reason.setdefault(reason, []).append(column_name)
    return [f"{', '.join(column_names)} ({reason})" for reason, column_names in columns_by_reason.items()]


def find_uninformative_reason(column_texts: pd.Series, subject_ids: Sequence[str]) -> str:
    """Why nothing can be learnt from a column of text; empty if something can."""
    is_subject_id = column_texts.map(normalise_id, na_action="ignore") == list(subject_ids)
    holds_subject_ids = is_subject_id[column_texts.notna()].all()
    canonical_values = column_texts.dropna().map(canonicalise_value)
    value_counts = canonical_values.value_counts()
    unique_value_count = int((value_counts == 1).sum())
    if len(value_counts) < 2:
        return f"one value, {value_counts.index[0][:40]}" if len(value_counts) else "no value"
    if match_fully(canonical_values, DATE_PATTERN).mean() > 0.5:
        return "dates"
    if holds_subject_ids or (is_mostly_numbers(canonical_values) and is_numbering_people(canonical_values)):
        return "IDs, or numbers that count participants"
    is_free_text = (unique_value_count >= MIN_UNIQUE_VALUES and 2 * unique_value_count > len(canonical_values)) or (
        unique_value_count >= MANY_UNIQUE_VALUES and 2 * unique_value_count > len(value_counts)
    )
    if is_free_text and not is_mostly_numbers(canonical_values):
        return f"text, {unique_value_count} of whose {len(value_counts)} values one participant alone has"
    return ""


def is_numbering_people(canonical_values: pd.Series) -> bool:
    """Whether canonical values are whole numbers, of which no two are equal, as of IDs. They are also in order, or of
    so small a range that two measurements would be equal (a birthday problem)."""
    numbers = pd.to_numeric(canonical_values, errors="coerce")
    if len(numbers) < MIN_NUMBERED_PEOPLE or not numbers.mod(1).eq(0).all() or not numbers.is_unique:
        return False
    pair_count = len(numbers) * (len(numbers) - 1) / 2
    is_sorted = numbers.is_monotonic_increasing or numbers.is_monotonic_decreasing
    return is_sorted or pair_count / (np.ptp(numbers) + 1) > MIN_EXPECTED_EQUAL_PAIRS


def find_accepted_leaks(
    columns: Sequence[str], label_column: str | None, auc_by_column: Mapping[str, float]
) -> tuple[str, ...]:
    """What --allowLeak let pass: columns that are the label or measure the diagnosis, values whose AUC is too large."""
    diagnosis_columns = [
        column_name for column_name in columns if column_name == label_column or find_diagnosis_word(column_name)
    ]
    return (*diagnosis_columns, *format_aucs(auc_by_column, min_auc=MAX_BELIEVABLE_AUC))


def format_aucs(auc_by_column_or_measure: Mapping[str, float], min_auc: float = 0.0) -> list[str]:
    """Columns and measures with their AUC, in words."""
    return [
        f"{column_or_measure_name} (AUC {auc:.2f})"
        for column_or_measure_name, auc in auc_by_column_or_measure.items()
        if auc > min_auc
    ]


def compute_separation_auc(subject_values: np.ndarray, labels: np.ndarray) -> float:
    """AUC of a value (n,) for label (n,) 0 or 1, in the better direction; 0.5 if there are too few subjects."""
    if np.bincount(labels.astype(int), minlength=2).min() < MIN_CLASS_SUBJECTS:
        return 0.5
    auc = roc_auc_score(labels, subject_values)
    return float(max(auc, 1 - auc))


def compute_largest_aucs(value_table: pd.DataFrame, labels: np.ndarray) -> dict[str, float]:
    """For each column its largest AUC, the largest first: of the values, with the median where unknown; of whether a
    value is known; or of the known values only, unless they are rare."""
    largest_auc_by_column = {}
    for column_name, column_values in value_table.items():
        numeric_values = column_values.to_numpy(float)
        is_finite = np.isfinite(numeric_values)
        value_label_pairs = [(is_finite.astype(float), labels)]
        if is_finite.any():
            median_filled_values = np.where(is_finite, numeric_values, np.median(numeric_values[is_finite]))
            value_label_pairs.append((median_filled_values, labels))
        if is_finite.mean() >= MIN_FILLED_SHARE:
            value_label_pairs.append((numeric_values[is_finite], labels[is_finite]))
        aucs = [compute_separation_auc(values, value_labels) for values, value_labels in value_label_pairs]
        largest_auc_by_column[column_name] = max(aucs)
    return dict(sorted(largest_auc_by_column.items(), key=lambda column_and_auc: -column_and_auc[1]))


def check_phenotype_auc(
    phenotype_values: pd.DataFrame,
    training_labels: np.ndarray,
    allow_leak: bool,
    advice: str = f"Leave these columns out, or {ALLOW_LEAK_ADVICE}.",
) -> dict[str, float]:
    """AUC of each column that varies, on training subjects. Raises InputError if one is above 0.85, unless allowed."""
    auc_by_column = compute_largest_aucs(
        phenotype_values.loc[:, phenotype_values.nunique(dropna=False) > 1], training_labels
    )
    leak_texts = format_aucs(auc_by_column, min_auc=MAX_BELIEVABLE_AUC)
    if leak_texts and not allow_leak:
        raise InputError(
            f"The phenotype separates the training labels: {join_names(leak_texts)}; at most {MAX_BELIEVABLE_AUC} is "
            f"believable. {advice}"
        )
    return auc_by_column


def find_separating_measures(map_measure_table: pd.DataFrame, labels: np.ndarray) -> dict[str, float]:
    """The measures of maps whose AUC for label (n,) is above 0.85 either way, and significant (Mann-Whitney)."""
    auc_by_measure = {}
    for measure_name, measure_values in map_measure_table.items():
        autism_values = measure_values[labels == 1.0].dropna()
        control_values = measure_values[labels == 0.0].dropna()
        pair_count = autism_values.size * control_values.size
        if (
            pair_count == 0
            or autism_values.size + control_values.size < MIN_MEASURED_SUBJECTS
            or np.ptp(measure_values.dropna()) == 0
        ):
            continue
        rank_test = mannwhitneyu(autism_values, control_values)
        auc = max(rank_test.statistic, pair_count - rank_test.statistic) / pair_count
        if auc > MAX_BELIEVABLE_AUC and rank_test.pvalue < MAX_LEAK_P / map_measure_table.shape[1]:
            auc_by_measure[str(measure_name)] = auc
    return auc_by_measure


def check_map_measures(measure_table: pd.DataFrame, training_labels: np.ndarray, allow_leak: bool) -> list[str]:
    """The measures of whole maps that separate the training labels. Raises InputError for any, unless allowed."""
    leak_texts = format_aucs(find_separating_measures(measure_table, training_labels))
    if leak_texts and not allow_leak:
        raise InputError(
            f"The maps separate the training labels by {', '.join(leak_texts)}, before any region is compared; at most "
            f"{MAX_BELIEVABLE_AUC} is believable. Were both groups scanned and processed alike? Make the maps again, "
            f"or {ALLOW_LEAK_ADVICE}."
        )
    return leak_texts


def check_group_differences(
    maps_or_connectomes: str,
    measure_tables: Sequence[pd.DataFrame],
    subject_rows: Sequence[RecordRow],
    findings: Findings,
) -> None:
    """Measures of whole maps or connectomes, a row for each of `subject_rows`, that separate the training labels are a
    problem. A note tells if those of the last table set some people apart, or those of the first differ by site."""
    is_training = np.array([subject_row.split == "train" for subject_row in subject_rows])
    training_labels = np.array([subject_row.label for subject_row in subject_rows])[is_training]
    auc_by_measure = dict[str, float]()
    for measure_table in measure_tables:
        auc_by_measure |= find_separating_measures(measure_table[is_training], training_labels)
    if auc_by_measure:
        leaks_text = ", ".join(format_aucs(auc_by_measure))
        problem_code = f"measures-separate-labels: {maps_or_connectomes}, {', '.join(auc_by_measure)}"
        problem_text = f"whole {maps_or_connectomes} separate the training labels by {leaks_text}; were all made alike?"
        findings.problems.append(Problem(problem_code, problem_text))

    last_measure_table = measure_tables[-1].reset_index(drop=True)
    for measure_name, mixture_text in MIXTURE_TEXT_BY_KIND_AND_MEASURE[maps_or_connectomes].items():
        if measure_name not in last_measure_table:
            continue
        comparable_groups = group_comparable_people(maps_or_connectomes, measure_name, last_measure_table)
        for comparable_group_text, comparable_measures in comparable_groups:
            log_measures = np.log(comparable_measures[measure_name].to_numpy())
            far_below_indices = comparable_measures.index[measures.find_lower_group_indices(log_measures)]
            if far_below_indices.empty:
                continue
            far_below_subjects = sorted(subject_rows[row_index].subject for row_index in far_below_indices)
            if comparable_group_text is None:
                far_below_warning = UNKNOWN_REPETITION_TIME_TEXT
            else:
                far_below_warning = f"{comparable_group_text}{mixture_text}"
            findings.notes.append(
                f"{len(far_below_subjects)} of {format_participants(len(comparable_measures))} {far_below_warning}: "
                f"{join_names(far_below_subjects)}"
            )
            findings.mark_outliers(
                f"{measure_name} of the {maps_or_connectomes} far below all others'", far_below_subjects
            )

    site_by_row = [subject_row.site for subject_row in subject_rows]
    site_dependent_measure_names = measures.find_site_dependent_measures(measure_tables[0], site_by_row)
    if site_dependent_measure_names:
        findings.notes.append(
            f"the {maps_or_connectomes}' {', '.join(site_dependent_measure_names)} differ by site; compare "
            "participants within sites"
        )


def group_comparable_people(
    maps_or_connectomes: str, measure_name: str, measure_table: pd.DataFrame
) -> Iterator[tuple[str | None, pd.DataFrame]]:
    """Groups of people who are compared with each other by a measure of whole maps or connectomes: what they share, in
    words, and their measures. It is everybody, but for the roughness of series, those of one repetition time; their
    words are None if that is not known."""
    if maps_or_connectomes != "connectomes" or measure_name != "roughness":
        yield "", measure_table
        return
    repetition_seconds_by_row = (
        measure_table[REPETITION_TIME_COLUMN]
        if REPETITION_TIME_COLUMN in measure_table
        else pd.Series(np.nan, measure_table.index)
    )
    for repetition_seconds, comparable_measures in measure_table.groupby(
        repetition_seconds_by_row.round(1), dropna=False
    ):
        yield (
            None if np.isnan(repetition_seconds) else f"with a repetition time of {repetition_seconds:g} s ",
            comparable_measures,
        )


def check_label_coding(text_table: pd.DataFrame, labels: np.ndarray, label_column: str | None) -> None:
    """Raises InputError if, by a table of text, instruments that measure autism were given mostly to subjects labelled
    control; `labels` (rows,) is 1.0 autism, 0.0 control."""
    for column_name in text_table.columns:
        if find_diagnosis_word(column_name) not in ("ADOS", "ADI", "ADIR"):
            continue
        is_filled = clean_column(text_table[column_name]).notna().to_numpy(float)
        if compute_separation_auc(is_filled, labels) <= MAX_BELIEVABLE_AUC:
            continue
        control_share = is_filled[labels == 0].mean()
        autism_share = is_filled[labels == 1].mean()
        if control_share > autism_share:
            raise InputError(
                f"The labels look flipped: {column_name} is known for {control_share:.0%} of the controls and for "
                f"{autism_share:.0%} of the others. Is --positive the value of "
                f"{label_column} for autism?"
            )


def find_mixed_units(text_table: pd.DataFrame, columns: Sequence[str], site_by_row: Sequence[str]) -> list[str]:
    """A sentence for each column of numbers that are, at some sites, all far above those of the others."""
    mixed_unit_sentences = []
    for column_name in columns:
        column_numbers = pd.to_numeric(clean_column(text_table[column_name]), errors="coerce").reset_index(drop=True)
        is_positive = column_numbers > 0
        sites_of_positive = np.asarray(site_by_row, str)[is_positive]
        # a row a site; columns size, min, median, max
        site_statistics = column_numbers[is_positive].groupby(sites_of_positive).agg(["size", "min", "median", "max"])
        site_statistics = site_statistics[site_statistics["size"] >= MIN_SITE_VALUES].sort_values("median")
        # of all sites with a larger median
        higher_sites_minima = site_statistics[["median", "min"]].shift(-1).iloc[::-1].cummin().iloc[::-1]
        is_unit_gap = (higher_sites_minima["median"] > MIN_UNIT_RATIO * site_statistics["median"]) & (
            higher_sites_minima["min"] > site_statistics["max"].cummax()
        )
        if is_unit_gap.any():
            low_site = is_unit_gap.idxmax()
            high_sites = site_statistics.index[site_statistics.index.get_loc(low_site) + 1 :].tolist()
            mixed_unit_sentences.append(
                f"{column_name} has the median {higher_sites_minima['median'][low_site]:g} at "
                f"{join_names(high_sites)}, {site_statistics['median'][low_site]:g} elsewhere, and no value between: "
                "two units, as months and years? Write one."
            )
    return mixed_unit_sentences


def find_mixed_codings(text_table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """A sentence for each column of text that may hold two codings of one thing: numbers and words, or initials and
    whole words, as sex by M, F, 1 and 2. So does one with two spellings of one word."""
    mixed_coding_sentences = []
    for column_name in columns:
        value_counts = clean_column(text_table[column_name]).value_counts()
        folded_values = [str(folded_value).casefold() for folded_value in value_counts.index]
        is_number = pd.to_numeric(pd.Series(folded_values, dtype=object), errors="coerce").notna()
        initials_of_words = {folded_value[0] for folded_value in folded_values if len(folded_value) > 1}
        initials = [folded_value for folded_value in folded_values if folded_value in initials_of_words]
        if is_mostly_numbers(clean_column(text_table[column_name]).dropna()):
            continue
        if is_number.any() or initials:
            codings_text = join_names([f"{value} ({count})" for value, count in value_counts.items()])
            mixed_coding_sentences.append(
                f"{column_name} holds {codings_text}: two codings of one thing? Write one for all."
            )
        elif spelling_groups := group_spellings(value_counts.index):
            codings_text = join_names([" and ".join(spelling_group) for spelling_group in spelling_groups])
            mixed_coding_sentences.append(
                f"{column_name} holds {codings_text}, which differ in spelling only. Each counts as a value of its "
                "own; write one for all in the table, and convert again."
            )
    return mixed_coding_sentences
