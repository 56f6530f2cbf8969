"""The tables of a classifier's test -> `report.html`, a page that opens without a network, and its figures."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from data.base import files
from data.base.errors import InputError
from data.base.listing import join_names
from data.pages.drawings import Forest, ForestBar
from data.pages.page import HeadlineNumber, Page, Section, render_page
from data.tables.vocabulary import CLASS_NAMES
from utils import figures
from utils.report import drawings, sections
from utils.report.columns import find_heading
from utils.report.methods import format_site_count, is_preset_seen_by_authors, make_methods_paragraphs, quote_command
from utils.report.tables import EvaluationManifest, EvaluationTables, read_test_folder
from utils.runs import record
from utils.runs.record import Caveats
from utils.scores.conclusion import (
    CONTROL_CAVEAT,
    FEW_PARTICIPANTS_WARNING,
    FOLD_VERDICT,
    INVALID_PREFIX,
    LEAK_CAVEAT,
    PROBLEMS_CAVEAT,
    SEEN_BY_AUTHORS_CAVEAT,
    SIMULATED_CAVEAT,
    SUSPICIOUS_ACCURACY_WARNING,
    TRANSDUCTIVE_CAVEAT,
    UNKNOWN_SITE_CAVEAT,
    UNLABELLED_VERDICT,
)
from utils.scores.metrics import choose_headline_metric
from utils.scores.results import (
    CHANCE_AUC,
    INTERVAL_TEXT,
    PRESPECIFIED_ROLE,
    REPORT_DATA_FILES,
    ROLE_COLUMN,
    TEST_PAGE_FILE,
    Estimate,
)

ROC_FIGURE_NAME = "roc"  # the figure that the test itself writes
PAGE_FIGURE_NAMES = ("forest", "calibration")  # those that the page writes
REWRITTEN_FILES = (
    TEST_PAGE_FILE,
    *(
        f"{figure_name}.{file_format}"
        for figure_name in PAGE_FIGURE_NAMES
        for file_format in figures.FIGURE_METADATA_BY_FORMAT
    ),
)
INTENDED_USE_TEXT = (
    "For research on groups. Not a diagnosis: no probability here says anything reliable about one participant, and "
    "nothing here has been tested for clinical use."
)
MIN_TESTED_PEOPLE = 100  # test participants below which a page warns
PUBLISHED_ACCURACY = 0.70  # accuracy of the best honest results on ABIDE
SUSPICIOUS_ACCURACY = 0.80  # accuracy that is far above it, however wide its interval
MAX_LISTED_PROBLEMS = 5  # problems to name in a message


def write_report(report_folder: Path, tables: EvaluationTables) -> list[Path]:
    """Writes the page into a folder and, unless the test is of one fold, its figures. Returns the paths of the files,
    the page first."""
    manifest = tables.manifest
    page_sections = [*make_report_sections(tables)]
    forest_plot = make_baseline_forest(tables)
    figures_to_save = [section.figure for section in page_sections if isinstance(section.figure, Figure)]
    figures_to_save += [drawings.draw_forest(forest_plot)] if forest_plot else []
    for figure in figures_to_save:
        figure.suptitle(manifest.caveat_marks.strip())
    folds_text = f", folds: {manifest.folds}" if manifest.folds else ""
    page = Page(
        "report",
        f"Test of {manifest.model}{folds_text}{manifest.caveat_marks}",
        f"{manifest.cohort_name}, {manifest.started}",
        page_sections,
        make_report_verdict(manifest),
        [*make_score_headline_numbers(manifest), make_people_headline_number(tables)],
        forest_plot,
    )
    with files.open_replacement(report_folder / TEST_PAGE_FILE) as file:
        file.write(render_page(page))
    written_paths = [report_folder / TEST_PAGE_FILE]
    for figure in [] if manifest.fold else figures_to_save:
        if figure.get_label() != ROC_FIGURE_NAME:
            written_paths += figures.save_figure(figure, report_folder / f"{figure.get_label()}.png")
    return written_paths


def rewrite_report(test_folder: Path) -> list[Path]:
    """Builds the page of a finished test anew and records it in `run.json`. Raises InputError if tables are gone or not
    as the test wrote them."""
    with files.lock_exclusively(test_folder):
        manifest = record.read_manifest(test_folder)
        if (
            manifest
            and manifest.finished
            and (
                changed_data_files := [
                    file_name
                    for file_name in record.find_changed_outputs(test_folder, manifest)
                    if file_name in REPORT_DATA_FILES
                ]
            )
        ):
            changed_files_problem = (
                f"is not as the test wrote it: {join_names(changed_data_files)}; copy the folder again, or test again"
            )
            raise InputError(f"{test_folder} {changed_files_problem}.")
        tables = read_test_folder(test_folder)  # nothing is changed before all that is needed can be read
        with record.rewrite_outputs(test_folder, REWRITTEN_FILES):
            return write_report(test_folder, tables)


def make_report_verdict(manifest: EvaluationManifest) -> str:
    """What a reader takes away, with whether problems invalidate it."""
    if manifest.conclusion is None:
        return FOLD_VERDICT if manifest.fold else UNLABELLED_VERDICT
    return f"{INVALID_PREFIX if manifest.problems else ''}{manifest.conclusion.verdict}"


def make_score_headline_numbers(manifest: EvaluationManifest) -> list[HeadlineNumber]:
    """The score and its baseline, with their footnotes."""
    if manifest.conclusion is None:
        return []
    score_number, *baseline_numbers = manifest.conclusion.headline_numbers
    preset_footnotes = [f"{SEEN_BY_AUTHORS_CAVEAT}."] if is_preset_seen_by_authors(manifest) else []
    return [replace(score_number, notes=[*score_number.notes, *preset_footnotes]), *baseline_numbers]


def make_people_headline_number(tables: EvaluationTables) -> HeadlineNumber:
    """Who was tested."""
    first_row_by_subject = tables.predictions.groupby("subject").first()
    class_texts = [
        f"{(first_row_by_subject['label'] == class_label).sum()} {class_name}"
        for class_label, class_name in enumerate(CLASS_NAMES)
    ]
    unlabelled_people_count = first_row_by_subject["label"].isna().sum()
    diagnosis_text = ", ".join(
        [
            *reversed(class_texts),
            *([f"{unlabelled_people_count} of unknown diagnosis"] if unlabelled_people_count else []),
        ]
    )
    return HeadlineNumber(
        str(len(first_row_by_subject)),
        "participants tested",
        f"{format_site_count(first_row_by_subject['site'])}; {diagnosis_text}",
    )


def make_baseline_forest(tables: EvaluationTables) -> Forest | None:
    """The forest plot of the AUC that the verdict rests on, of the model and of baselines; None without baselines. What
    has no interval is not drawn."""
    baseline_table = tables.baselines
    if baseline_table is None or not tables.scores:
        return None
    headline_auc_name = choose_headline_metric(tables.scores)
    bar_arguments = [(tables.manifest.model, tables.scores[headline_auc_name], "main")]
    for _, row in sections.sort_prespecified_first(baseline_table).iterrows():
        is_prespecified = row[ROLE_COLUMN] == PRESPECIFIED_ROLE
        bar_name = f"{row['baseline']} ({PRESPECIFIED_ROLE})" if is_prespecified else row["baseline"]
        bar_arguments.append((bar_name, Estimate.from_row(row, headline_auc_name), "named" if is_prespecified else ""))
    forest_bars = [make_forest_bar(*row) for row in bar_arguments if row[1].low is not None]
    return (
        Forest(
            f"{find_heading(headline_auc_name)}, {INTERVAL_TEXT}; {CHANCE_AUC:g} is guessing", forest_bars, CHANCE_AUC
        )
        if forest_bars
        else None
    )


def make_forest_bar(bar_name: str, auc_estimate: Estimate, bar_kind: str) -> ForestBar:
    value, low, high = auc_estimate.value_low_high
    return ForestBar(bar_name, value, low, high, auc_estimate.text(".2f"), bar_kind)


def list_caveat_messages(caveats: Caveats) -> list[str]:
    """What a reader must know before any number, on any page."""
    caveat_messages = []
    if caveats.simulated:
        caveat_messages.append(SIMULATED_CAVEAT)
    if caveats.is_control:
        caveat_messages.append(CONTROL_CAVEAT.format(caveats.control_seed))
    if caveats.problems:
        problems_text = join_names(caveats.problem_texts, MAX_LISTED_PROBLEMS, "; ")
        caveat_messages.append(PROBLEMS_CAVEAT.format(problems_text))
    if caveats.accepted_leaks:
        leaks_text = join_names(caveats.accepted_leaks, MAX_LISTED_PROBLEMS)
        caveat_messages.append(LEAK_CAVEAT.format(leaks_text))
    if caveats.transductive:
        caveat_messages.append(TRANSDUCTIVE_CAVEAT)
    if caveats.unknown_site:
        caveat_messages.append(UNKNOWN_SITE_CAVEAT)
    return caveat_messages


def list_warning_messages(tables: EvaluationTables) -> list[str]:
    """The caveats, what the tables show, and the run's own warnings."""
    warning_messages = list_caveat_messages(tables.manifest)
    manifest = tables.manifest
    if tables.scores:
        subject_count = tables.labelled_predictions["subject"].nunique()
        accuracy_estimate = tables.scores["accuracy"]
        if subject_count < MIN_TESTED_PEOPLE:
            warning_messages.append(FEW_PARTICIPANTS_WARNING.format(subject_count))
        if not manifest.simulated and (
            accuracy_estimate.value_low_high[0] > SUSPICIOUS_ACCURACY
            or accuracy_estimate.value_low_high[1] > PUBLISHED_ACCURACY
        ):
            warning_messages.append(
                SUSPICIOUS_ACCURACY_WARNING.format(accuracy_estimate.text(".2f"), PUBLISHED_ACCURACY)
            )
    return list(dict.fromkeys(warning_messages + manifest.warnings))


def make_report_sections(tables: EvaluationTables) -> Iterator[Section]:
    """The sections that apply, in the order of the page."""
    manifest = tables.manifest
    if manifest.permutations:
        yield Section("Permutations", [manifest.permutations.permutation_sentence], open=True)
    if warning_messages := list_warning_messages(tables):
        yield Section("Warnings", warning_messages, kind="warning")
    if manifest.promise:
        yield Section("Predictions of participants", [manifest.promise, "They are in participants.csv."], open=True)
    if tables.external is not None:
        yield from sections.make_external_sections(tables, tables.external)
    if tables.scores:
        yield from sections.make_score_sections(tables)
    yield sections.make_flow_section(tables)
    if tables.table1 is not None:
        yield sections.make_table1_section(tables.table1)
    yield make_provenance_section(manifest)
    yield Section("Intended use", [INTENDED_USE_TEXT], open=True)
    yield Section("Methods, to paste", make_methods_paragraphs(tables))


def make_provenance_section(manifest: EvaluationManifest) -> Section:
    """The command, and when, where and with what versions the test was done; the checkpoints of pooled folds."""
    # SHA-256, of several checkpoints by fold
    checkpoint_digest = manifest.weights
    origin_heading = "checkpoint" if manifest.is_network else f"file of the {manifest.noun}"
    digest_heading = f"{origin_heading}, SHA-256"
    digest_rows = (
        [{"fold": fold, digest_heading: sha256} for fold, sha256 in checkpoint_digest.items()]
        if isinstance(checkpoint_digest, dict)
        else None
    )
    provenance_by_heading = {
        "started": manifest.started,
        "commit": manifest.git_commit or "-",
        "cohort": manifest.cohort_name,
        "cohort, SHA-256": manifest.cohort_sha256,
        origin_heading: manifest.checkpoint_folder,
        digest_heading: "below, for each fold" if isinstance(checkpoint_digest, dict) else checkpoint_digest or "-",
        "versions": ", ".join(f"{package} {version}" for package, version in manifest.packages.items()) or "-",
    }
    return Section(
        "How to repeat it", table=digest_rows, facts=provenance_by_heading, command=quote_command(manifest.command)
    )
