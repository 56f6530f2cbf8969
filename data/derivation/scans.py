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
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.nifti import make_sidecar_path
from data.cohorts.rows import join_names
from data.conversion.discovery import (
    SCAN_PRODUCT,
    UNREAD_RULES,
    FolderListing,
    NamingRule,
    ProductFile,
    find_files,
    find_table,
    group_by_person,
    make_patterns,
    parse_entities,
    recognise_file,
    settle_files,
)
from data.conversion.source import find_subject_column
from data.conversion.tables import normalise_id, read_text_table, select_column
from data.derivation.options import DerivationOptions

NAMED = NamingRule(SCAN_PRODUCT, "files that a column names", "", "")


class ScanFile(ProductFile):
    """A scan and what lies beside it."""

    @property
    def treated(self) -> str:
        """Whether confounds were regressed out already; empty if that is not known."""
        return {None: "", True: "cleaned", False: "preprocessed"}[self.naming_rule.is_cleaned]

    @cached_property
    def mask(self) -> Path | None:
        if self.naming_rule.pipeline == "PCP":
            path = self.path.with_name(self.path.name.replace("_func_preproc", "_func_mask"))
            return path if path.exists() else None
        return self.companion("_mask.nii*", ("brain", "bold"), ("space", "res"))

    @cached_property
    def confounds(self) -> Path | None:
        """fMRIPrep's table, named as since 20.2, since 1.2 or before; else the smaller one that data sets such as
        nilearn's `fetch_development_fmri` have."""
        named = (
            ("_timeseries.tsv", "confounds"),
            ("_regressors.tsv", "confounds"),
            ("_timeseries.tsv", "reducedConfounds"),
            ("_regressors.tsv", "reducedConfounds"),
            ("_confounds.tsv", None),
        )
        found = (self.companion(ending, (desc,)) for ending, desc in named)
        return next(filter(None, found), None)

    @cached_property
    def motion(self) -> Path | None:
        """XCP-D's table of head motion."""
        return self.companion("_motion.tsv", (None, "filtered"))

    @cached_property
    def outliers(self) -> Path | None:
        """XCP-D's table of censored volumes."""
        return self.companion("_outliers.tsv", (None,))

    @property
    def described_by(self) -> list[Path]:
        """The scan and all files whose content changes what is derived from it."""
        described = make_sidecar_path(self.path, ".json")
        tables = [self.motion, self.outliers] if self.naming_rule.is_cleaned else [self.confounds]
        return [self.path, *filter(None, [described if described.is_file() else None, self.mask, *tables])]

    def companion(self, ending: str, desc: Collection[str | None], same: Iterable[str] = ()) -> Path | None:
        """The file beside the scan with most of its entities and no others, but for `desc`; all of `same` are the
        scan's."""
        own, found = parse_entities(self.path.name), list[tuple[int, Path]]()
        for path in self.path.parent.glob(f"sub-{escape(own.get('sub', ''))}*{ending}"):
            entities = parse_entities(path.name)
            fits = entities.pop("desc", None) in desc and own.items() >= entities.items()
            if fits and all(entities.get(name) == own.get(name) for name in same):
                found.append((len(entities), path))
        return max(found)[1] if found else None


@dataclass(frozen=True)
class ScannedPerson:
    label: str  # `sub-<label>`
    scans: tuple[ScanFile, ...]  # its runs and sessions
    unclear: str  # why it is not known which scans to take; empty if it is


def find_people(folder: Path, options: DerivationOptions) -> tuple[list[ScannedPerson], list[SummaryRow]]:
    """The people with scans, sorted, and facts. Raises InputError as `settle_files`."""
    if options.bold_column:
        found, named = named_scans(folder, options)
        files, unclear, facts = settle_files(folder, found, options.only)
        facts = [*named, *facts]
    elif options.id_column:
        raise InputError("--idColumn goes with --boldColumn; scans that are found by name have their IDs in it.")
    else:
        files, unclear, facts = find_files(FolderListing(folder), SCAN_PRODUCT, only_globs=options.only)
    people = list[ScannedPerson]()
    for person, of_person in group_by_person(files).items():
        scans = sorted((ScanFile(**vars(one)) for one in of_person), key=lambda scan: os.path.abspath(scan.path))
        people.append(ScannedPerson(scans[0].subject_label, tuple(scans), unclear.get(person, "")))
    people.sort(key=lambda person: person.label)
    if several := [person.label for person in people if len(person.scans) > 1 and not person.unclear]:
        how = "with several runs or sessions, whose maps are averaged by the volumes kept"
        facts.append(("runs", f"{format_participants(len(several))} {how}: {join_names(several)}; choose with --only"))
    return people, facts


def named_scans(folder: Path, options: DerivationOptions) -> tuple[list[ProductFile], list[SummaryRow]]:
    """The scans that a column of a table names, as paths in the folder. Raises InputError for an ID that no name of a
    BIDS file could hold."""
    path = options.table or find_table(folder, (), lambda table: options.bold_column in table)
    table = read_text_table(path)
    named = find_subject_column(table, options.id_column, path)
    rows = pd.DataFrame(
        {
            "label": select_column(table, named, path).map(normalise_id),
            "path": select_column(table, str(options.bold_column), path),
        }
    )
    rows["path"] = rows["path"].map(lambda name: find_file(folder, name))
    there = rows["path"].notna()
    absent, rows = rows["label"][~there].tolist(), rows[there]
    if odd := [quote_text(label) for label in rows["label"] if not (label.isascii() and label.isalnum())]:
        raise InputError(
            f"{path} has the participants {join_names(odd)}; expected letters and digits, as BIDS names files. Rename "
            "them."
        )
    if rows.empty:
        raise InputError(f"{options.bold_column} of {path} names no file in {folder}; expected paths of 4-D scans.")
    patterns, found = make_patterns(SCAN_PRODUCT), list[ProductFile]()
    for row in UNREAD_RULES:
        del patterns[row]
    for label, scan in zip(rows["label"], rows["path"], strict=True):
        inside = PurePosixPath(scan.relative_to(folder) if scan.is_relative_to(folder) else scan)
        one = recognise_file(folder, inside, patterns) or ProductFile(folder / inside, inside, NAMED, label)
        found.append(
            replace(one, subject_label=label, naming_rule=replace(one.naming_rule, default_space=NAMED.default_space))
        )
    facts = [("left out", f"{len(absent)} rows without a scan: {join_names(absent)}")] if absent else []
    if guessed := sum("space" not in one.bids_entities for one in found):
        told = f"the names of {guessed} scans do not say their space; it is taken to be {NAMED.default_space}"
        facts.append(("layout", told))
    return found, facts
