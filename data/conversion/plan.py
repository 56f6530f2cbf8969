"""A table of subjects -> the cohort to be written: its rows, metadata and scaled phenotype; no map is read."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data.base import files
from data.base.errors import InputError
from data.cohorts import phenotype, records, twins
from data.cohorts.cohort import COVARIATES, PHENOTYPE, Cohort
from data.cohorts.duplicates import Groups, families_of, united
from data.cohorts.phenotype import clean
from data.cohorts.rows import APART, METADATA, TABLE, TOGETHER, Metadata, Row, listed, named_groups, read_table
from data.cohorts.stored import write_tables
from data.conversion.leaks import check_values
from data.conversion.options import ConversionOptions
from data.conversion.source import DEFAULT_MAPS, Source
from data.conversion.split import assign_splits

BEFORE_MAPS = (
    "maps", "normalisation", "reduction", "phenotype_columns", "covariate_columns", "family_column", "families", "grid",
    "provenance",
)  # fmt: skip
REDUCTIONS = ("none", "block mean")  # of volumes made from maps without a network


@dataclass(frozen=True)
class PlannedCohort:
    """A cohort to be written. All tables have one row for each subject, in the same order."""

    rows: list[Row]
    metadata: Metadata
    phenotype: pd.DataFrame  # (subjects, 29), raw, NaN where unknown
    scaled: np.ndarray  # (subjects, 29) float32, as in records
    covariates: pd.DataFrame  # text

    def write_tables(self, target: Path) -> None:
        """Writes the cohort's tables, `subjects.csv` last: only a complete cohort has it."""
        subjects = [row.subject for row in self.rows]
        phenotype.write_by_subject(target / PHENOTYPE, self.phenotype.astype(float).set_axis(subjects))
        if not self.covariates.columns.empty:
            phenotype.write_by_subject(target / COVARIATES, self.covariates)
        write_tables(target, self.rows, self.metadata)


def plan(
    subjects: pd.DataFrame,
    table: pd.DataFrame,
    options: ConversionOptions,
    provenance: Mapping[str, Any],
    maps: Sequence[str] = DEFAULT_MAPS,
) -> PlannedCohort:
    """A new cohort of `subjects` (subject, site, label; where a split is kept, kept: see `assign_splits`; where it is
    asked for, family; once this is known, scan: the first subject of the same scan). A `table` of text has the same
    rows. Raises InputError."""
    seed, columns, covariates = options.seed or 0, options.phenotype, options.covariates or ()
    same_scan = () if options.keep_copies else groups_of(subjects)
    check_people(subjects, same_scan)
    families = families_of_table(subjects)
    rows = planned_rows(subjects, assign_splits(subjects, seed, united([*same_scan, *families.values()])))
    training = np.array([row.split == "train" for row in rows])
    if not training.any():
        raise InputError(
            f"--keepSplit makes test subjects of all {len(rows)} people; expected some to train on. Add others."
        )
    values = phenotype.abide_values(table) if columns is None else phenotype.custom_values(table, columns, training)
    phenotype.check_columns([*values, *covariates])
    separations = check_values(values[training], subjects["label"].to_numpy()[training], options.allow_leak)
    scaler = phenotype.fit_scaler(values.to_numpy(float)[training])
    grid = records.GRIDS[options.grid or records.FULL.name]
    metadata = Metadata(
        maps=tuple(maps),
        normalisation="z-scored over the whole volume",
        reduction="none" if grid == records.FULL else "block mean",
        phenotype=tuple(values.columns),
        phenotype_auc=separations,
        phenotype_columns=tuple(phenotype.ABIDE_COLUMNS if columns is None else columns),
        phenotype_categories=phenotype.categories(table, columns or (), training),
        covariate_columns=tuple(covariates),
        grid=grid.shape,
        affine=tuple(map(tuple, grid.affine)),
        same_scan=same_scan,
        copies=APART if options.keep_copies else TOGETHER if "scan" in subjects else "",
        family_column=options.family or "",
        families=families,
        provenance={**provenance, "seed": seed},
        **scaler.constants(),
    )
    scaled = scaler.transform(values.to_numpy(float)).astype(np.float32)
    kept = phenotype.covariates_of(table, covariates, subjects["subject"])
    return PlannedCohort(rows, metadata, values, scaled, kept)


def check_people(subjects: pd.DataFrame, same_scan: Groups) -> None:
    """Raises InputError unless there are two people with a scan each."""
    if same_scan and len(same_scan[0]) == len(subjects):
        raise InputError(
            f"The maps of all {len(subjects)} subjects are one scan; expected one each. Was a file copied under many "
            "names? To keep them apart all the same, add --keepCopies."
        )
    if len(subjects) < 2:
        raise InputError(
            f"Only {subjects['subject'].iloc[0]} is left to convert; expected people to train and to test on."
        )


def groups_of(subjects: pd.DataFrame) -> Groups:
    """The subjects who share a scan by the column `scan`; nobody without it."""
    scan = subjects.get("scan", subjects["subject"])
    return tuple(tuple(group) for _, group in subjects["subject"].groupby(scan, sort=False) if len(group) > 1)


def families_of_table(subjects: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The subjects of each family by the column `family`; no families without it."""
    return families_of(dict(zip(subjects["subject"], subjects.get("family", [""] * len(subjects)), strict=True)))


def planned_rows(subjects: pd.DataFrame, split: Mapping[str, str]) -> list[Row]:
    return [
        Row(f"{row.subject}.bin", row.subject, row.site, row.label, split[row.subject]) for row in subjects.itertuples()
    ]


def plan_like(subjects: pd.DataFrame, like: Cohort, source: Source, provenance: Mapping[str, Any]) -> PlannedCohort:
    """A cohort of test subjects, as for `plan`, whose phenotype is imputed and scaled as that of `like`."""
    metadata, names = like.metadata, subjects["subject"].tolist()
    values = encode_like(source.rows, metadata)
    scaler = phenotype.Scaler.of(metadata)
    assert scaler is not None  # see `check_like`
    return PlannedCohort(
        planned_rows(subjects, dict.fromkeys(names, "test")),
        replace(
            metadata,
            grid=like.grid.shape,
            phenotype_auc={},
            same_scan=groups_of(subjects),
            copies=TOGETHER,
            family_column=source.family_column or "",
            families=families_of_table(subjects),
            provenance={**provenance, "like": like.digest},
        ),
        values,
        scaler.transform(values.to_numpy(float)).astype(np.float32),
        phenotype.covariates_of(source.rows, metadata.covariate_columns, names),
    )


def check_empty(target: Path) -> None:
    """Raises InputError if the folder holds anything but a conversion that was begun."""
    if (target / METADATA).exists():
        return
    if target.exists() and any(path for path in target.iterdir() if not path.name.startswith(".")):
        raise InputError(f"{target} is not empty and holds no cohort; choose another folder.")


def check_rows(target: Path, rows: Sequence[Row]) -> None:
    """Raises InputError if the folder holds a whole cohort with other rows, such as one that was split otherwise."""
    if (target / TABLE).is_file() and list(map(repr, read_table(target / TABLE))) != list(map(repr, rows)):
        raise InputError(
            f"{target} holds a cohort of these people with other rows, such as another split; choose another folder. "
            f"Its split is kept there with --keepSplit {target}."
        )


def check_target(target: Path, metadata: Metadata, names: Collection[str] = ()) -> None:
    """Raises InputError if the folder holds another cohort than an interrupted run of the same conversion left, by
    fields of these `names`, or by all."""
    if not (target / METADATA).exists():
        return
    there = Metadata()
    with suppress(InputError):  # what is damaged is none of this conversion
        there = files.read_json(target / METADATA, Metadata)
    compared = []
    for content in (there.decisive(), metadata.decisive()):
        content.pop("accepted_leaks", None)  # those of maps are known after these are read
        compared.append({name: of for name, of in content.items() if name in (names or content)})
    if files.json_text(compared[0]) != files.json_text(compared[1]):
        raise InputError(f"{target} holds a cohort converted differently; choose another folder or remove it.")


def is_abide(metadata: Metadata) -> bool:
    """Whether the phenotype is ABIDE's 29 values."""
    return metadata.phenotype == phenotype.abide_names()


def encode_like(table: pd.DataFrame, metadata: Metadata) -> pd.DataFrame:
    """The raw phenotype (subjects, 29) of a table, coded as that of another cohort with this `metadata`."""
    if is_abide(metadata):
        return phenotype.abide_values(table)
    columns, names = metadata.phenotype_columns, metadata.phenotype
    missing = [name for name in columns if f"{name}_missing" in names]
    return phenotype.coded_values(table, columns, metadata.phenotype_categories, missing)


def unknown_categories(table: pd.DataFrame, metadata: Metadata) -> dict[str, list[str]]:
    """By column of text of the phenotype, the words of a table that nobody of the cohort with this `metadata` had. They
    count as unknown."""
    texts = {name: clean(table[name]) for name in metadata.phenotype_categories if name in table}
    odd = {name: text[text.notna() & ~text.isin(metadata.phenotype_categories[name])] for name, text in texts.items()}
    return {name: sorted(text.unique()) for name, text in odd.items() if text.size}


def check_like(source: Source, like: Cohort) -> None:
    """Raises InputError unless new maps and a table can be prepared as `like`, without its training subjects."""
    metadata = like.metadata
    if metadata.reduction.startswith("encoder"):
        raise InputError(
            f"{like.path} holds volumes of an encoder; convert --like the full-size cohort that it was made from, then "
            "reduce the result: run.py --model cae --dataDir OUT with the encoder's --chkPointDir."
        )
    if metadata.reduction not in REDUCTIONS:
        raise InputError(
            f"{like.path} does not say that it was made of maps (reduction {metadata.reduction!r}); expected a cohort "
            "that abide-data convert made. Convert it again."
        )
    names = tuple(source.maps.columns)
    if len(source.maps) and (len(names) != like.num_maps or names != (metadata.maps or names)):
        raise InputError(
            f"{like.path} holds {like.num_maps} maps a record ({', '.join(like.maps)}), but {', '.join(names)} were "
            "found; expected the same. Name as many with --maps, in the same order."
        )
    columns = phenotype.ABIDE_COLUMNS if is_abide(metadata) else metadata.phenotype_columns
    nobody = pd.DataFrame(columns=list(columns), dtype=str)
    named = tuple(encode_like(nobody, metadata)) == metadata.phenotype
    if not named or phenotype.Scaler.of(metadata) is None:
        raise InputError(
            f"{like.path} does not say of which columns its phenotype was made, or how it was scaled; convert it again."
        )
    if missing := [name for name in columns if name not in source.rows]:
        raise InputError(
            f"{source.table} lacks {', '.join(missing)}, which the phenotype of {like.path} is made of; add them, "
            "empty where unknown."
        )
    if shared := sorted(set(like.subjects("train")) & set(source.subjects["subject"])):
        raise InputError(
            f"{len(shared)} subjects of {source.table} are training subjects of {like.path}; expected new people. "
            f"Leave them out: --exclude {','.join(shared)}"
        )


def copy_notes(found: twins.Twins, planned: PlannedCohort) -> list[str]:
    """Who shares a scan, what follows, and which of them differ in their label; then possible second sessions."""
    notes = []
    if found.same_scan:
        kept = "kept apart by --keepCopies" if planned.metadata.copies == APART else "in one split, and in one fold"
        notes.append(
            f"Subjects who share a scan, {kept}: {listed([' and '.join(group) for group in found.same_scan])}."
        )
    label = {row.subject: row.label for row in planned.rows if row.known}
    if both := [group for group in found.same_scan if len({label[one] for one in group if one in label}) > 1]:
        notes.append(f"Of these, {named_groups(both)} differ in their label; leave them out with --exclude.")
    return [*notes, *(f"{note[0].upper()}{note[1:]}." for note in found.notes())]
