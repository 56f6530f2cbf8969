"""A table of subjects -> the cohort to be written: its rows, metadata and scaled phenotype; no map is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.cohorts import records, scaling
from data.cohorts.cohort import COVARIATES_FILE, PHENOTYPE_FILE, Cohort
from data.cohorts.groups import SubjectGroups, merge_groups
from data.cohorts.metadata import DUPLICATES_APART, DUPLICATES_TOGETHER, Metadata
from data.cohorts.rows import RecordRow
from data.cohorts.stored import write_cohort_tables
from data.conversion.families import group_subjects_by_family
from data.conversion.leaks import check_phenotype_auc
from data.conversion.options import ConversionOptions
from data.conversion.source import Source
from data.conversion.split import assign_splits
from data.conversion.template import encode_phenotype
from data.images import grids
from data.tables import phenotype as phenotype_table


@dataclass(frozen=True)
class PlannedCohort:
    """A cohort to be written. All tables have one row for each subject, in the same order."""

    subject_rows: list[RecordRow]
    metadata: Metadata
    unscaled_phenotype: pd.DataFrame  # (subjects, 29), raw, NaN where unknown
    scaled_phenotype: np.ndarray  # (subjects, 29) float32, as in records
    covariate_table: pd.DataFrame  # text

    def write_tables(self, cohort_folder: Path, record_digests: Sequence[records.Digests] = ()) -> None:
        """Writes the cohort's tables beside its records, whose digests are computed unless they are known."""
        subject_ids = [subject_row.subject for subject_row in self.subject_rows]
        phenotype_table.write_subject_table(
            cohort_folder / PHENOTYPE_FILE, self.unscaled_phenotype.astype(float).set_axis(subject_ids)
        )
        if not self.covariate_table.columns.empty:
            phenotype_table.write_subject_table(cohort_folder / COVARIATES_FILE, self.covariate_table)
        digests_by_file = {
            subject_row.file: row_digests
            for subject_row, row_digests in zip(self.subject_rows, record_digests, strict=False)
        }
        write_cohort_tables(cohort_folder, self.subject_rows, self.metadata, record_digests_by_file=digests_by_file)


def plan_new_cohort(
    subject_table: pd.DataFrame,
    same_scan_groups: SubjectGroups,
    text_table: pd.DataFrame,
    options: ConversionOptions,
    covariate_columns: Sequence[str],
    site_column: str | None,
    map_names: Sequence[str],
) -> PlannedCohort:
    """A new cohort of `subject_table` (subject, site, label; if a split is preserved, `kept`, see `assign_splits`; with
    --family, `family`), of whom some share a scan. `text_table`, of text, has the same rows. Raises InputError."""
    if options.keep_duplicates:
        same_scan_groups = ()
    if len(subject_table) < 2 or (same_scan_groups and len(same_scan_groups[0]) == len(subject_table)):
        raise InputError(
            f"The {len(subject_table)} participants to convert have one scan; expected several, to train and to test "
            "on. Was a file copied under many names? To keep copies apart all the same, add --keepDuplicates."
        )

    if not map_names and options.grid:
        raise InputError("--grid is about maps, and --maps none uses none; leave it out.")

    # draw the split, in which groups stay together
    subjects_by_family = group_subjects_by_family(subject_table)
    dependent_groups = merge_groups([*same_scan_groups, *subjects_by_family.values()])
    split_by_subject = assign_splits(subject_table, options.seed or 0, dependent_groups)
    is_training = (subject_table["subject"].map(split_by_subject) == "train").to_numpy()
    if not is_training.any():
        raise InputError(
            f"--keepSplit makes test participants of all {len(subject_table)} participants; expected some to train on. "
            "Add others."
        )

    # learn from the training subjects: how the phenotype is coded and scaled, and that it does not tell the label
    if options.phenotype is None:
        phenotype_columns: Sequence[str] = phenotype_table.ABIDE_PHENOTYPE_COLUMNS
        raw_phenotype = phenotype_table.make_abide_values(text_table)
    else:
        phenotype_columns = options.phenotype
        raw_phenotype = phenotype_table.make_custom_values(text_table, phenotype_columns, is_training)
    phenotype_table.refuse_subject_column([*raw_phenotype, *covariate_columns])
    training_labels = subject_table["label"].to_numpy()[is_training]
    phenotype_auc = check_phenotype_auc(raw_phenotype[is_training], training_labels, options.allow_leak)
    phenotype_categories = phenotype_table.learn_categories(text_table, options.phenotype or (), is_training)
    scaler = scaling.fit_scaler(raw_phenotype.to_numpy(float)[is_training])

    metadata = Metadata(
        phenotype=tuple(raw_phenotype.columns),
        phenotype_auc=phenotype_auc,
        phenotype_columns=tuple(phenotype_columns),
        phenotype_categories=phenotype_categories,
        covariate_columns=tuple(covariate_columns),
        site_column=site_column or "",
        covariates_named=options.covariates is not None,
        same_scan=same_scan_groups,
        duplicates=DUPLICATES_APART if options.keep_duplicates else DUPLICATES_TOGETHER,
        family_column=options.family or "",
        families=subjects_by_family,
        **scaler.to_preparation_fields(),
    )
    if map_names:
        metadata = add_map_fields(metadata, map_names, grids.GRID_BY_NAME[options.grid or grids.FULL.name])
    return make_planned_cohort(subject_table, split_by_subject, text_table, metadata, raw_phenotype)


def add_map_fields(metadata: Metadata, map_names: Sequence[str], grid: grids.Grid) -> Metadata:
    """The metadata of a cohort with these maps on a grid."""
    return replace(
        metadata,
        maps=tuple(map_names),
        normalisation="z-scored over the whole volume",
        reduction="none" if grid == grids.FULL else "block mean",
        grid=grid.shape,
        affine=tuple(map(tuple, grid.affine)),
    )


def plan_from_template(
    subject_table: pd.DataFrame, same_scan_groups: SubjectGroups, source: Source, template_cohort: Cohort
) -> PlannedCohort:
    """A cohort of test subjects, as for `plan_new_cohort`, whose phenotype is imputed and scaled as that of
    `template_cohort`."""
    metadata = replace(
        template_cohort.metadata,
        grid=template_cohort.record_grid.shape if template_cohort.record_grid else (),
        phenotype_auc={},
        same_scan=same_scan_groups,
        duplicates=DUPLICATES_TOGETHER,
        family_column=source.family_column or "",
        families=group_subjects_by_family(subject_table),
    )
    split_by_subject = dict.fromkeys(subject_table["subject"], "test")
    return make_planned_cohort(
        subject_table, split_by_subject, source.text_table, metadata, encode_phenotype(source.text_table, metadata)
    )


def make_planned_cohort(
    subject_table: pd.DataFrame,
    split_by_subject: Mapping[str, str],
    text_table: pd.DataFrame,
    metadata: Metadata,
    raw_phenotype: pd.DataFrame,
) -> PlannedCohort:
    """The cohort with these raw phenotype values (subjects, 29), which are imputed and scaled as `metadata` says."""
    subject_rows = [
        RecordRow(
            f"{table_row.subject}.bin" if metadata.maps else table_row.subject,
            table_row.subject,
            table_row.site,
            table_row.label,
            split_by_subject[table_row.subject],
        )
        for table_row in subject_table.itertuples()
    ]
    scaler = scaling.Scaler.from_preparation(metadata)
    assert scaler is not None  # see `template.check_preparation`
    scaled_phenotype = scaler.transform(raw_phenotype.to_numpy(float)).astype(np.float32)
    covariate_table = phenotype_table.extract_covariates(
        text_table, metadata.covariate_columns, subject_table["subject"]
    )
    return PlannedCohort(subject_rows, metadata, raw_phenotype, scaled_phenotype, covariate_table)


def check_template_match(source: Source, template_cohort: Cohort) -> None:
    """Raises InputError unless new maps and a table can be prepared as `template_cohort`, without its training
    subjects."""
    map_names = tuple(source.map_files.columns)
    if map_names != template_cohort.map_names:
        raise InputError(
            f"{template_cohort.path} holds the maps {', '.join(template_cohort.map_names)} of each, but "
            f"{', '.join(map_names)} were found; expected the same. Make the maps alike."
        )
    missing_phenotype_columns = [
        column_name
        for column_name in template_cohort.metadata.phenotype_columns
        if column_name not in source.text_table
    ]
    if missing_phenotype_columns:
        raise InputError(
            f"{source.table_path} lacks {', '.join(missing_phenotype_columns)}, which the phenotype of "
            f"{template_cohort.path} is made of; add them, empty where unknown."
        )
    training_subjects = template_cohort.list_split_subjects("train")
    shared_training_subjects = sorted(set(training_subjects) & set(source.subject_table["subject"]))
    if shared_training_subjects:
        raise InputError(
            f"{len(shared_training_subjects)} of {source.table_path} are training participants of "
            f"{template_cohort.path}; expected new participants. Leave them out: --exclude "
            f"{','.join(shared_training_subjects)}"
        )
