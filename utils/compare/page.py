"""Finished tests and the rows that compare them -> `compare.html`, one page that opens from disk, and `compare.csv`."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from data.base import files
from data.base.listing import join_names
from data.base.tables import write_csv_frame
from data.base.terminal import format_participants, print_table
from data.pages.page import CellByHeading, Link, Page, Section, render_page
from utils.compare.runs import DIFFERENCE_PREFIX, FinishedTest
from utils.machines.devices import git_commit
from utils.report import methods
from utils.report.build import list_caveat_messages
from utils.report.columns import make_table_section
from utils.runs import record
from utils.scores.conclusion import CANNOT_BE_TOLD, INVALID_PREFIX, NO_DIFFERENCE, describe_detectable_difference
from utils.scores.results import DETECTABLE_DIFFERENCE_COLUMN, INTERVAL_TEXT, TITLE_BY_AUC, Estimate, flatten_estimates
from utils.scores.results import TEST_PAGE_FILE as REPORT_PAGE

COMPARE_JOB = "compare"
COMPARE_PAGE = "compare.html"
COMPARE_TABLE = "compare.csv"
COMPARED_SCORES = (*TITLE_BY_AUC, "brier")
TERMINAL_ROWS = 3  # rows of scores in the terminal
MAX_PAIRS_LISTED = 3  # pairs in a sentence of the page
BETTER_TEXT_BY_CONCLUSION = {"a is better": "{a} is better than {b}", "b is better": "{b} is better than {a}"}
UNCLEAR_TEXT_BY_CONCLUSION = {
    NO_DIFFERENCE: "No difference is shown between {}, which does not say that they are equally good{}",
    CANNOT_BE_TOLD: "It is unknown which is better of {}{}",
}
PAIRED_FOOTNOTE = (
    "A difference is paired: both runs are scored on the same resamples of participants, within folds. Below 0, that "
    "of the Brier score speaks for the first run."
)
BONFERRONI_FOOTNOTE = (
    "The intervals hold for all {} pairs together (Bonferroni). If all runs were equally good, one pair or more would "
    "seem to differ in one of twenty comparisons at most."
)
DECISIVE_KEYS = (  # keys of `run.json` that say what decides a result
    *("model", "preset", "config", "seed", "step", "precision", "grid", "folds"),
    *("cohort", "cohort_sha256", "maps", "prepared", "transductive", "unknown_site", "git_commit", "packages"),
)


def write_comparison(folder: Path, finished_tests: Sequence[FinishedTest], pair_rows: Sequence[dict[str, Any]]) -> Path:
    """Writes the table, the page, whose path is returned, and the record of a comparison."""
    page_path = folder / COMPARE_PAGE
    start_time = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_csv_frame(folder / COMPARE_TABLE, pd.DataFrame(pair_rows), significant_digits=8)
    page_title = f"Comparison of {len(finished_tests)} tests{join_caveat_marks(finished_tests)}"
    subtitle = f"{format_participants(pair_rows[0]['subjects'])}, {pair_rows[0]['records']} records, {start_time}"
    report_path_by_folder = {
        finished_test.test_folder: os.path.relpath(finished_test.test_folder / REPORT_PAGE, folder)
        for finished_test in finished_tests
    }
    report_links = [
        Link(f"report of {folder}", quote(report_path)) for folder, report_path in report_path_by_folder.items()
    ]
    comparison_page = Page(
        "compare",
        page_title,
        subtitle,
        [*make_comparison_sections(finished_tests, pair_rows)],
        format_comparison_verdict(finished_tests, pair_rows),
        links=report_links,
    )
    with files.open_replacement(page_path) as page_file:
        page_file.write(render_page(comparison_page))
    comparison_manifest = record.Manifest(
        job=COMPARE_JOB,
        finished=True,
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        started=start_time,
        versions=record.Versions(git_commit=git_commit()),
        outputs=record.fingerprint_outputs(folder),
    )
    record.write_manifest(folder / record.MANIFEST_FILE, comparison_manifest)
    return page_path


def join_caveat_marks(finished_tests: Sequence[FinishedTest]) -> str:
    """The marks of all runs, such as ` (SIMULATED)`."""
    return "".join(dict.fromkeys(finished_test.description.caveat_marks for finished_test in finished_tests))


def get_metric_difference(pair_row: dict[str, Any], metric_name: str) -> Estimate:
    return Estimate.from_row(pair_row, f"{DIFFERENCE_PREFIX}{metric_name}")


def format_difference_name(pair_row: dict[str, Any]) -> str:
    return f"{pair_row['a']} minus {pair_row['b']}"


def format_pair_conclusion(pair_row: dict[str, Any]) -> str:
    """Which one is better, if either is."""
    return (
        BETTER_TEXT_BY_CONCLUSION[pair_row["conclusion"]].format(**pair_row)
        if pair_row["conclusion"] in BETTER_TEXT_BY_CONCLUSION
        else pair_row["conclusion"]
    )


def format_comparison_verdict(
    finished_tests: Sequence[FinishedTest], pair_rows: Sequence[dict[str, Any]], max_pairs: int = MAX_PAIRS_LISTED
) -> str:
    """Which run is better than which, which show no difference, and for which it is unknown, at most `max_pairs` pairs
    of each; with whether problems invalidate it."""
    sentences = [
        join_names(
            [
                format_pair_conclusion(pair_row)
                for pair_row in pair_rows
                if pair_row["conclusion"] in BETTER_TEXT_BY_CONCLUSION
            ],
            max_pairs,
            "; ",
        )
    ]
    for unclear_conclusion, sentence_template in UNCLEAR_TEXT_BY_CONCLUSION.items():
        unclear_pair_rows = [pair_row for pair_row in pair_rows if pair_row["conclusion"] == unclear_conclusion]
        pair_names = [f"{pair_row['a']} and {pair_row['b']}" for pair_row in unclear_pair_rows]
        largest_detectable_difference = max(
            (pair_row[DETECTABLE_DIFFERENCE_COLUMN] or 0 for pair_row in unclear_pair_rows), default=0
        )
        detectable_text = (
            describe_detectable_difference(largest_detectable_difference)
            if unclear_conclusion == NO_DIFFERENCE and largest_detectable_difference
            else ""
        )
        sentences += [sentence_template.format(join_names(pair_names, max_pairs, "; "), detectable_text)] * bool(
            pair_names
        )
    if len(pair_rows) == 1:
        (pair_row,) = pair_rows
        sentences.append(
            f"{TITLE_BY_AUC[pair_row['by']]}, {format_difference_name(pair_row)}, {INTERVAL_TEXT}: "
            f"{get_metric_difference(pair_row, pair_row['by']).text()}"
        )
    invalid_text = INVALID_PREFIX if any(finished_test.description.problems for finished_test in finished_tests) else ""
    return invalid_text + " ".join(f"{sentence}." for sentence in sentences if sentence)


def print_comparison(finished_tests: Sequence[FinishedTest], pair_rows: Sequence[dict[str, Any]]) -> None:
    """Prints the verdict, and below it the score that decides: if there are several pairs, first the differences of
    those that show one, then the score of each run."""
    deciding_metric = pair_rows[0]["by"]
    has_several_pairs = len(pair_rows) > 1
    score_rows = [
        [get_metric_difference(pair_row, deciding_metric).text(), format_difference_name(pair_row)]
        for pair_row in pair_rows
        if has_several_pairs and pair_row["conclusion"] in BETTER_TEXT_BY_CONCLUSION
    ]
    score_rows += [
        [finished_test.score_by_metric[deciding_metric].text(), str(finished_test.test_folder)]
        for finished_test in finished_tests
    ]
    remainder_rows = [[f"and {len(score_rows) - TERMINAL_ROWS} more", ""]] if len(score_rows) > TERMINAL_ROWS else []
    print(format_comparison_verdict(finished_tests, pair_rows, max_pairs=1))
    print(f"{TITLE_BY_AUC[deciding_metric]}, {INTERVAL_TEXT}:")
    print_table([*score_rows[:TERMINAL_ROWS], *remainder_rows], truncate_last_column=True)


def make_comparison_sections(
    finished_tests: Sequence[FinishedTest], pair_rows: Sequence[dict[str, Any]]
) -> Iterator[Section]:
    """In the order of the page."""
    if warning_texts := collect_run_warnings(finished_tests):
        yield Section("Warnings", warning_texts, kind="warning")
    yield make_scores_section(finished_tests, pair_rows)
    if differing_rows := find_differing_settings(finished_tests):
        yield Section("What differs between the runs", table=differing_rows, open=True)


def collect_run_warnings(finished_tests: Sequence[FinishedTest]) -> list[str]:
    """The caveats of runs and their own warnings, each once."""
    folders_by_warning = dict[str, list[str]]()
    for finished_test in finished_tests:
        for warning in [*list_caveat_messages(finished_test.description), *finished_test.description.warnings]:
            folders_by_warning.setdefault(warning, []).append(str(finished_test.test_folder))
    return [f"{', '.join(run_folders)}: {warning}" for warning, run_folders in folders_by_warning.items()]


def make_scores_section(finished_tests: Sequence[FinishedTest], pair_rows: Sequence[dict[str, Any]]) -> Section:
    """The scores of each run, and their difference in each pair."""
    metric_names = [
        metric_name for metric_name in COMPARED_SCORES if f"{DIFFERENCE_PREFIX}{metric_name}" in pair_rows[0]
    ]
    table_rows = []
    for finished_test in finished_tests:
        score_by_metric = {metric_name: finished_test.score_by_metric[metric_name] for metric_name in metric_names}
        table_rows.append({"run": str(finished_test.test_folder)} | flatten_estimates(score_by_metric))
    for pair_row in pair_rows:
        difference_by_metric = {
            metric_name: get_metric_difference(pair_row, metric_name) for metric_name in metric_names
        }
        table_rows.append(
            {
                "run": format_difference_name(pair_row),
                "conclusion": format_pair_conclusion(pair_row),
                DETECTABLE_DIFFERENCE_COLUMN: pair_row[DETECTABLE_DIFFERENCE_COLUMN],
            }
            | flatten_estimates(difference_by_metric)
        )
    footnote_by_column = {"": BONFERRONI_FOOTNOTE.format(len(pair_rows))} if len(pair_rows) > 1 else {}
    column_names = ["run", *metric_names, DETECTABLE_DIFFERENCE_COLUMN, "conclusion"]
    return make_table_section(
        "Scores and differences",
        pd.DataFrame(table_rows),
        column_names,
        PAIRED_FOOTNOTE,
        open=True,
        notes=footnote_by_column,
    )


def find_differing_settings(finished_tests: Sequence[FinishedTest]) -> list[CellByHeading]:
    """A row for each thing that decides results and is not the same in all runs, by its name in `run.json`."""
    settings_by_run = {}
    for finished_test in finished_tests:
        test_description = finished_test.description
        manifest_values = asdict(test_description) | {
            "cohort": test_description.cohort_name,
            "config": methods.find_used_settings(test_description),
        }
        flat_settings_table = pd.json_normalize(
            {setting_key: manifest_values[setting_key] for setting_key in DECISIVE_KEYS}
        )
        settings_by_run[str(finished_test.test_folder)] = flat_settings_table.astype(object).iloc[0]
    settings_table = pd.DataFrame(settings_by_run).fillna("-").map(str).replace("", "-")
    differing_settings_table = settings_table[settings_table.nunique(axis=1) > 1]
    return differing_settings_table.rename_axis("in run.json").reset_index().to_dict("records")
