"""A folder, or a column of a table -> preprocessed 4-D scans in MNI space by person, with what describes them."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from glob import escape
from pathlib import Path, PurePosixPath

import pandas as pd

from data.base.errors import InputError, quote_text
from data.base.files import find_file
from data.base.listing import join_names
from data.base.terminal import SummaryRow, format_participants
from data.conversion.discovery import (
    SCAN_PRODUCT,
    UNREAD_RULES,
    FolderListing,
    NamingRule,
    ProductFile,
    choose_clear_files,
    find_participants_table,
    find_usable_product_files,
    group_files_by_person,
    make_name_patterns,
    parse_bids_entities,
    recognise_file,
)
from data.conversion.joining import find_subject_column
from data.derivation.options import DerivationOptions
from data.images.nifti import make_sidecar_path
from data.tables.people import normalise_id, read_text_table, select_column

COLUMN_SCANS_RULE = NamingRule(SCAN_PRODUCT, "files that a column names", "", "")


class ScanFile(ProductFile):
    """A scan and what lies beside it."""

    @property
    def cleaning_state(self) -> str:
        """Whether confounds were regressed out already; empty if that is not known."""
        return {None: "", True: "cleaned", False: "preprocessed"}[self.naming_rule.is_cleaned]

    @cached_property
    def mask_path(self) -> Path | None:
        if self.naming_rule.pipeline == "PCP":
            pcp_mask_path = self.path.with_name(self.path.name.replace("_func_preproc", "_func_mask"))
            return pcp_mask_path if pcp_mask_path.exists() else None
        return self.find_companion_file("_mask.nii*", ("brain", "bold"), ("space", "res"))

    @cached_property
    def confounds_table_path(self) -> Path | None:
        """fMRIPrep's table, named as since 20.2, since 1.2 or before; else the smaller one that data sets such as
        nilearn's `fetch_development_fmri` have."""
        endings_and_descs = (
            ("_timeseries.tsv", "confounds"),
            ("_regressors.tsv", "confounds"),
            ("_timeseries.tsv", "reducedConfounds"),
            ("_regressors.tsv", "reducedConfounds"),
            ("_confounds.tsv", None),
        )
        for name_ending, desc_value in endings_and_descs:
            if table_path := self.find_companion_file(name_ending, (desc_value,)):
                return table_path
        return None

    @cached_property
    def motion_table_path(self) -> Path | None:
        """XCP-D's table of head motion."""
        return self.find_companion_file("_motion.tsv", (None, "filtered"))

    @cached_property
    def outliers_table_path(self) -> Path | None:
        """XCP-D's table of censored volumes."""
        return self.find_companion_file("_outliers.tsv", (None,))

    @property
    def source_paths(self) -> list[Path]:
        """The scan and all files whose content changes what is derived from it."""
        source_paths = [self.path]
        json_path = make_sidecar_path(self.path, ".json")
        if json_path.is_file():
            source_paths.append(json_path)
        if self.naming_rule.is_cleaned:
            table_paths = [self.motion_table_path, self.outliers_table_path]
        else:
            table_paths = [self.confounds_table_path]
        source_paths += filter(None, [self.mask_path, *table_paths])
        return source_paths

    def find_companion_file(
        self, name_ending: str, allowed_desc_values: Collection[str | None], same_entity_names: Iterable[str] = ()
    ) -> Path | None:
        """The file beside the scan with most of its entities and no others, but for `allowed_desc_values`; all of
        `same_entity_names` are the scan's."""
        scan_entities = parse_bids_entities(self.path.name)
        entity_counts_and_paths = list[tuple[int, Path]]()
        for candidate_path in self.path.parent.glob(f"sub-{escape(scan_entities.get('sub', ''))}*{name_ending}"):
            candidate_entities = parse_bids_entities(candidate_path.name)
            has_allowed_desc = candidate_entities.pop("desc", None) in allowed_desc_values
            has_only_scan_entities = scan_entities.items() >= candidate_entities.items()
            has_same_entities = all(
                candidate_entities.get(entity_name) == scan_entities.get(entity_name)
                for entity_name in same_entity_names
            )
            if has_allowed_desc and has_only_scan_entities and has_same_entities:
                entity_counts_and_paths.append((len(candidate_entities), candidate_path))
        return max(entity_counts_and_paths)[1] if entity_counts_and_paths else None


@dataclass(frozen=True)
class ScannedPerson:
    label: str  # `sub-<label>`
    scan_files: tuple[ScanFile, ...]  # its runs and sessions
    unclear_reason: str  # why it is not known which scans to take; empty if it is


def find_scanned_people(scans_folder: Path, options: DerivationOptions) -> tuple[list[ScannedPerson], list[SummaryRow]]:
    """The people with scans, sorted, and facts. Raises InputError as `choose_clear_files`."""
    if options.bold_column:
        column_scans, column_summary_rows = load_scans_by_column(scans_folder, options)
        recognised_files, unclear_reason_by_person, summary_rows = choose_clear_files(
            scans_folder, column_scans, options.only
        )
        summary_rows = [*column_summary_rows, *summary_rows]
    elif options.id_column:
        raise InputError("--idColumn goes with --boldColumn; scans that are found by name have their IDs in it.")
    else:
        recognised_files, unclear_reason_by_person, summary_rows = find_usable_product_files(
            FolderListing(scans_folder), SCAN_PRODUCT, only_globs=options.only
        )
    people = list[ScannedPerson]()
    for person, person_files in group_files_by_person(recognised_files).items():
        scan_files = sorted(
            (ScanFile(**vars(recognised_file)) for recognised_file in person_files),
            key=lambda scan_file: os.path.abspath(scan_file.path),
        )
        people.append(
            ScannedPerson(scan_files[0].subject_label, tuple(scan_files), unclear_reason_by_person.get(person, ""))
        )
    people.sort(key=lambda person: person.label)
    if multi_scan_labels := [
        person.label for person in people if len(person.scan_files) > 1 and not person.unclear_reason
    ]:
        averaging_note = "with several runs or sessions, whose maps are averaged by the volumes kept"
        summary_rows.append(
            (
                "runs",
                f"{format_participants(len(multi_scan_labels))} {averaging_note}: {join_names(multi_scan_labels)}; "
                "choose with --only",
            )
        )
    return people, summary_rows


def load_scans_by_column(scans_folder: Path, options: DerivationOptions) -> tuple[list[ProductFile], list[SummaryRow]]:
    """The scans that a column of a table names, as paths in the folder. Raises InputError for an ID that no name of a
    BIDS file could hold."""
    table_path = options.table or find_participants_table(scans_folder, (), lambda table: options.bold_column in table)
    table = read_text_table(table_path)
    id_column = find_subject_column(table, options.id_column, table_path)
    scan_path_table = pd.DataFrame(
        {
            "label": select_column(table, id_column, table_path).map(normalise_id),
            "path": select_column(table, str(options.bold_column), table_path),
        }
    )
    scan_path_table["path"] = scan_path_table["path"].map(lambda path_text: find_file(scans_folder, path_text))
    has_scan = scan_path_table["path"].notna()
    scanless_labels = scan_path_table["label"][~has_scan].tolist()
    scan_path_table = scan_path_table[has_scan]
    if invalid_labels := [
        quote_text(label) for label in scan_path_table["label"] if not (label.isascii() and label.isalnum())
    ]:
        raise InputError(
            f"{table_path} has the participants {join_names(invalid_labels)}; expected letters and digits, as BIDS "
            "names files. Rename them."
        )
    if scan_path_table.empty:
        raise InputError(
            f"{options.bold_column} of {table_path} names no file in {scans_folder}; expected paths of 4-D scans."
        )
    name_pattern_by_rule = make_name_patterns(SCAN_PRODUCT)
    recognised_files = list[ProductFile]()
    for unread_rule in UNREAD_RULES:
        del name_pattern_by_rule[unread_rule]
    for label, scan_path in zip(scan_path_table["label"], scan_path_table["path"], strict=True):
        path_in_folder = PurePosixPath(
            scan_path.relative_to(scans_folder) if scan_path.is_relative_to(scans_folder) else scan_path
        )
        recognised_file = recognise_file(scans_folder, path_in_folder, name_pattern_by_rule) or ProductFile(
            scans_folder / path_in_folder, path_in_folder, COLUMN_SCANS_RULE, label
        )
        recognised_files.append(
            replace(
                recognised_file,
                subject_label=label,
                naming_rule=replace(recognised_file.naming_rule, default_space=COLUMN_SCANS_RULE.default_space),
            )
        )
    summary_rows = (
        [("left out", f"{len(scanless_labels)} rows without a scan: {join_names(scanless_labels)}")]
        if scanless_labels
        else []
    )
    if guessed_space_count := sum("space" not in recognised_file.bids_entities for recognised_file in recognised_files):
        guessed_space_note = (
            f"the names of {guessed_space_count} scans do not say their space; it is taken to be "
            f"{COLUMN_SCANS_RULE.default_space}"
        )
        summary_rows.append(("layout", guessed_space_note))
    return recognised_files, summary_rows
