"""A table of subjects -> the cohort to be written: its rows, metadata and scaled phenotype; no map is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.cohorts import phenotype, records
from data.cohorts.cohort import COVARIATES_FILE, PHENOTYPE_FILE, Cohort
from data.cohorts.duplicates import SubjectGroups, merge_groups
from data.cohorts.rows import DUPLICATES_APART, DUPLICATES_TOGETHER, Metadata, RecordRow
from data.cohorts.stored import write_cohort_tables
from data.conversion.families import families_of
from data.conversion.leaks import check_values
from data.conversion.options import ConversionOptions
from data.conversion.source import Source
from data.conversion.split import assign_splits
from data.conversion.template import encode_like


@dataclass(frozen=True)
class PlannedCohort:
    """A cohort to be written. All tables have one row for each subject, in the same order."""

    rows: list[RecordRow]
    metadata: Metadata
    phenotype: pd.DataFrame  # (subjects, 29), raw, NaN where unknown
    scaled: np.ndarray  # (subjects, 29) float32, as in records
    covariates: pd.DataFrame  # text

    def write_tables(self, target: Path, digests: Sequence[records.Digests] = ()) -> None:
        """Writes the cohort's tables beside its records, whose digests are computed unless they are known."""
        subjects = [row.subject for row in self.rows]
        phenotype.write_subject_table(target / PHENOTYPE_FILE, self.phenotype.astype(float).set_axis(subjects))
        if not self.covariates.columns.empty:
            phenotype.write_subject_table(target / COVARIATES_FILE, self.covariates)
        known = {row.file: of_record for row, of_record in zip(self.rows, digests, strict=False)}
        write_cohort_tables(target, self.rows, self.metadata, digests=known)


def plan(
    subjects: pd.DataFrame,
    same_scan: SubjectGroups,
    table: pd.DataFrame,
    options: ConversionOptions,
    covariates: Sequence[str],
    site_column: str | None,
    maps: Sequence[str],
) -> PlannedCohort:
    """A new cohort of `subjects` (subject, site, label; where a split is kept, kept: see `assign_splits`; where it is
    asked for, family), of whom some share a scan. A `table` of text has the same rows. Raises InputError."""
    columns, label = options.phenotype, subjects["label"].to_numpy()
    same_scan, families = () if options.keep_duplicates else same_scan, families_of(subjects)
    if len(subjects) < 2 or (same_scan and len(same_scan[0]) == len(subjects)):
        raise InputError(
            f"The {len(subjects)} participants to convert have one scan; expected several, to train and to test on. "
            "Was a file copied under many names? To keep copies apart all the same, add --keepDuplicates."
        )
    split = assign_splits(subjects, options.seed or 0, merge_groups([*same_scan, *families.values()]))
    training = (subjects["subject"].map(split) == "train").to_numpy()
    if not training.any():
        raise InputError(
            f"--keepSplit makes test participants of all {len(subjects)} participants; expected some to train on. "
            "Add others."
        )
    values = (
        phenotype.make_abide_values(table)
        if columns is None
        else phenotype.make_custom_values(table, columns, training)
    )
    phenotype.refuse_subject_column([*values, *covariates])
    grid = records.GRID_BY_NAME[options.grid or records.FULL.name]
    metadata = Metadata(
        maps=tuple(maps),
        normalisation="z-scored over the whole volume",
        reduction="none" if grid == records.FULL else "block mean",
        phenotype=tuple(values.columns),
        phenotype_auc=check_values(values[training], label[training], options.allow_leak),
        phenotype_columns=tuple(phenotype.ABIDE_PHENOTYPE_COLUMNS if columns is None else columns),
        phenotype_categories=phenotype.learn_categories(table, columns or (), training),
        covariate_columns=tuple(covariates),
        site_column=site_column or "",
        covariates_named=options.covariates is not None,
        grid=grid.shape,
        affine=tuple(map(tuple, grid.affine)),
        same_scan=same_scan,
        duplicates=DUPLICATES_APART if options.keep_duplicates else DUPLICATES_TOGETHER,
        family_column=options.family or "",
        families=families,
        **phenotype.fit_scaler(values.to_numpy(float)[training]).to_preparation_fields(),
    )
    return planned(subjects, split, table, metadata, values)


def plan_like(subjects: pd.DataFrame, same_scan: SubjectGroups, source: Source, like: Cohort) -> PlannedCohort:
    """A cohort of test subjects, as for `plan`, whose phenotype is imputed and scaled as that of `like`."""
    metadata = replace(
        like.metadata,
        grid=like.grid.shape,
        phenotype_auc={},
        same_scan=same_scan,
        duplicates=DUPLICATES_TOGETHER,
        family_column=source.family_column or "",
        families=families_of(subjects),
    )
    split = dict.fromkeys(subjects["subject"], "test")
    return planned(subjects, split, source.rows, metadata, encode_like(source.rows, metadata))


def planned(
    subjects: pd.DataFrame, split: Mapping[str, str], table: pd.DataFrame, metadata: Metadata, values: pd.DataFrame
) -> PlannedCohort:
    """The cohort whose raw phenotype has these values (subjects, 29); they are imputed and scaled as `metadata` say."""
    rows = [
        RecordRow(f"{of.subject}.bin", of.subject, of.site, of.label, split[of.subject]) for of in subjects.itertuples()
    ]
    scaler = phenotype.Scaler.from_preparation(metadata)
    assert scaler is not None  # see `template.check_prepared`
    scaled = scaler.transform(values.to_numpy(float)).astype(np.float32)
    covariates = phenotype.extract_covariates(table, metadata.covariate_columns, subjects["subject"])
    return PlannedCohort(rows, metadata, values, scaled, covariates)


def check_like(source: Source, like: Cohort) -> None:
    """Raises InputError unless new maps and a table can be prepared as `like`, without its training subjects."""
    if (found := tuple(source.maps.columns)) != like.map_names:
        raise InputError(
            f"{like.path} holds the maps {', '.join(like.map_names)} of each, but {', '.join(found)} were found; "
            "expected the same. Make the maps alike."
        )
    if missing := [name for name in like.metadata.phenotype_columns if name not in source.rows]:
        raise InputError(
            f"{source.table} lacks {', '.join(missing)}, which the phenotype of {like.path} is made of; add them, "
            "empty where unknown."
        )
    if shared := sorted(set(like.split_subjects("train")) & set(source.subjects["subject"])):
        raise InputError(
            f"{len(shared)} of {source.table} are training participants of {like.path}; expected new "
            f"participants. Leave them out: --exclude {','.join(shared)}"
        )
