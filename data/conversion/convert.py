"""Maps and a table -> a cohort: z-scored records, split by subject, phenotype scaled on training subjects.

What is wrong with the table is told first. Then each map is read once, which tells who shares a scan; people are split,
and the phenotype is scaled. All is written into a folder beside the target, which takes its place at the end.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from data.base import files, manifest
from data.base.errors import InputError
from data.base.listing import join_names
from data.base.pool import Pool
from data.base.terminal import SummaryRow
from data.cohorts import records
from data.cohorts.cohort import MAP_MEASURES_FILE, Cohort
from data.cohorts.connectomes import EDGE_DTYPE, count_edges
from data.cohorts.derivation import copy_derivation_images
from data.cohorts.duplicates import PeopleScans, find_duplicates, find_people_in_common, load_people_scans
from data.cohorts.groups import SubjectGroups
from data.cohorts.metadata import COMMAND_KEY, Metadata
from data.cohorts.near_connectomes import draw_edge_indices
from data.cohorts.stored import open_cohort, open_run_cohort
from data.conversion import families, measures
from data.conversion.connectomes import make_connectomes
from data.conversion.derived import check_derivations
from data.conversion.leaks import (
    check_informative_columns,
    check_label_coding,
    check_leaking_column_names,
    check_map_measures,
    check_plausible_numbers,
    describe_columns_without_information,
    find_accepted_leaks,
    find_mixed_codings,
    find_mixed_units,
)
from data.conversion.options import ConversionOptions
from data.conversion.plan import PlannedCohort, check_template_match, plan_from_template, plan_new_cohort
from data.conversion.series import ConvertedConnectomes
from data.conversion.source import Source
from data.conversion.split import PreservedSplit
from data.conversion.template import TemplateCohort, find_unknown_categories
from data.conversion.volumes import PersonMaps, read_person_maps
from data.images import grids
from data.tables import phenotype as phenotype_table
from data.tables.labels import is_abide_table
from data.tables.people import check_columns_exist, select_column
from data.tables.phenotype import ABIDE_PHENOTYPE_COLUMNS, is_mostly_numbers, parse_number_column

LikenessMaker = Callable[[], tuple[Mapping[str, bytes], str]]  # files by name; if there are none, why


@dataclass(frozen=True)
class Conversion:
    """People to convert, and how. New people are prepared as those of `template` were, and nothing is learnt from them;
    `make_training_likeness_files` makes the files that tell what those of `template` are like."""

    source: Source
    options: ConversionOptions
    command_line: str  # as it was typed
    template: TemplateCohort | None
    make_training_likeness_files: LikenessMaker | None
    preserved_split: PreservedSplit | None

    def plan_cohort(
        self, scan_fingerprints: PeopleScans | None = None, same_scan_groups: SubjectGroups = ()
    ) -> PlannedCohort:
        """The cohort of the subjects. `scan_fingerprints`, which tell scans apart, and `same_scan_groups`, who share a
        scan, are known once the maps are read."""
        source = self.source
        subject_table = source.subject_table
        if self.template:
            return plan_from_template(subject_table, same_scan_groups, source, self.template.cohort)
        if self.preserved_split:
            subject_table = self.preserved_split.add_split_column(subject_table, scan_fingerprints)
        covariate_columns = find_covariate_columns(source, self.options)
        return plan_new_cohort(
            subject_table,
            same_scan_groups,
            source.text_table,
            self.options,
            covariate_columns,
            source.site_column,
            list(source.map_files),
        )

    def write_cohort(
        self, cohort_folder: Path, planned_cohort: PlannedCohort
    ) -> tuple[PlannedCohort, list[SummaryRow]]:
        """Writes the cohort that was planned by the table alone into a folder; returns it, planned again if scans
        change its splits, with facts on people and maps."""
        source = self.source
        subject_ids = source.subject_table["subject"].tolist()
        template_cohort = self.template.cohort if self.template else None
        with TemporaryDirectory(dir=cohort_folder) as temporary_folder, Pool() as pool:
            # read each file once; headers of records stay 0, since their phenotype is scaled on the training subjects,
            # and who these are depends on who shares a scan
            connectomes = None
            if source.series_paths is not None:
                connectomes = make_connectomes(
                    pool,
                    source.series_paths.tolist(),
                    source.connectome_reading,
                    source.parcel_image_path,
                    Path(temporary_folder),
                    template_cohort,
                )
            people_maps = [PersonMaps() for _ in subject_ids]
            temporary_record_paths = list[Path]()
            if planned_cohort.metadata.maps:
                grid = grids.GRID_BY_SHAPE[planned_cohort.metadata.grid]
                temporary_record_paths = [
                    Path(temporary_folder, f"{subject_index}.bin") for subject_index in range(len(subject_ids))
                ]
                map_files_per_subject = source.map_files.to_numpy().tolist()
                grid_per_subject = [grid] * len(subject_ids)
                read_tasks = list(zip(map_files_per_subject, grid_per_subject, temporary_record_paths, strict=True))
                people_maps = pool.run("Converting", read_person_maps, read_tasks)
            if connectomes:
                people_maps = connectomes.add_connectomes_to_people(people_maps)
                connectomes.write_connectomes(cohort_folder, subject_ids)

            # recognise scans: by them people come into other splits, who share one or have one of the preserved split
            scan_fingerprints = collect_scan_fingerprints(subject_ids, people_maps)
            if connectomes and not planned_cohort.metadata.maps:
                scan_fingerprints = add_compared_edges(scan_fingerprints, connectomes)
            if template_cohort and template_cohort.list_split_subjects("train"):
                check_new_scans(source, template_cohort, scan_fingerprints)
            same_scan_groups = find_duplicates(scan_fingerprints).same_scan_groups
            if same_scan_groups or self.preserved_split:
                planned_cohort = self.plan_cohort(scan_fingerprints, same_scan_groups)

            # check the maps as a whole, in the training subjects
            measures_by_map = dict[str, pd.DataFrame]()
            for map_index, map_name in enumerate(source.map_files):
                measures_by_map[map_name] = pd.DataFrame(
                    [person_maps.measures_per_map[map_index] for person_maps in people_maps]
                )
            summary_rows, leaking_measure_texts = self.check_converted_maps(measures_by_map, planned_cohort)
            metadata = self.complete_metadata(planned_cohort, people_maps, leaking_measure_texts)
            if connectomes:
                metadata = connectomes.add_to_metadata(metadata)
            planned_cohort = replace(planned_cohort, metadata=metadata)

            for temporary_record_path, subject_row, scaled_phenotype_row in zip(
                temporary_record_paths, planned_cohort.subject_rows, planned_cohort.scaled_phenotype, strict=False
            ):  # without maps there are no records
                with open(temporary_record_path, "r+b") as record_file:
                    record_file.write(records.pack_header(subject_row.label, scaled_phenotype_row))
                temporary_record_path.rename(cohort_folder / subject_row.file)
        summary_rows += self.write_likeness_files(cohort_folder)
        copy_derivation_images(cohort_folder, source.image_path_by_derivation_field)
        if measures_by_map:
            measures.write_map_measures(cohort_folder / MAP_MEASURES_FILE, subject_ids, measures_by_map)
        planned_cohort.write_tables(cohort_folder, [person_maps.record_digests for person_maps in people_maps])
        open_cohort(cohort_folder)  # nothing is called done that cannot be read
        if connectomes:
            summary_rows += connectomes.summary_rows
        return planned_cohort, summary_rows

    def write_likeness_files(self, cohort_folder: Path) -> list[SummaryRow]:
        """Writes what those of `template` are like into the folder of a cohort, or tells why that is not known."""
        if self.make_training_likeness_files is None:
            return []
        content_by_file, absence_reason = self.make_training_likeness_files()
        if not content_by_file:
            return [("note", f"Nobody is compared with the training participants: {absence_reason}")]
        for file_name, content in content_by_file.items():
            (cohort_folder / file_name).write_bytes(content)
        return []

    def complete_metadata(
        self, planned_cohort: PlannedCohort, people_maps: Sequence[PersonMaps], measure_leak_texts: Sequence[str]
    ) -> Metadata:
        """The metadata with what the cohort was made of and how, and the leaks that --allowLeak accepts, those of
        whole maps, `measure_leak_texts`, among them."""
        source = self.source
        metadata = planned_cohort.metadata
        input_hash = hashlib.sha256()
        file_name_sha256_pairs = [
            (source.table_path.name, manifest.compute_checksum(source.table_path)),
            *chain.from_iterable(person_maps.file_sums for person_maps in people_maps),
        ]
        for file_name, sha256_hex in file_name_sha256_pairs:
            input_hash.update(file_name.encode() + b"\0" + bytes.fromhex(sha256_hex))
        provenance: dict[str, Any] = {
            COMMAND_KEY: self.command_line,
            "input_sha256": input_hash.hexdigest(),
            "left_out": source.left_out_subjects_by_reason,
        }
        if self.template:
            provenance["like"] = self.template.cohort.identity
        else:
            if self.preserved_split:
                provenance["split_of"] = self.preserved_split.split_cohort.identity
            provenance["seed"] = self.options.seed or 0

        accepted_leaks = metadata.accepted_leaks
        if self.options.allow_leak:
            columns = dict.fromkeys([*(self.options.phenotype or ()), *metadata.covariate_columns])
            column_leak_texts = find_accepted_leaks([*columns], source.label_column, metadata.phenotype_auc)
            accepted_leaks = (*column_leak_texts, *measure_leak_texts)
        return replace(
            metadata,
            accepted_leaks=accepted_leaks,
            id_column=source.requested_id_column,
            map_column=source.map_column,
            column_maps=source.column_map_names,
            provenance=provenance,
            derivation=source.derivation,
        )

    def check_converted_maps(
        self, measures_by_map: Mapping[str, pd.DataFrame], planned_cohort: PlannedCohort
    ) -> tuple[list[SummaryRow], list[str]]:
        """Facts on the maps by their measures, and those measures that separate the training labels. Raises InputError,
        naming the map if there are several, if they are of several kinds or of another kind than those of `template`,
        or if they separate the labels and that is not allowed."""
        is_training = np.array([subject_row.split == "train" for subject_row in planned_cohort.subject_rows])
        training_labels = np.array([subject_row.label for subject_row in planned_cohort.subject_rows])[is_training]
        template_measures_by_map = self.template.measures_by_map if self.template else None
        summary_rows = list[SummaryRow]()
        leak_texts = list[str]()
        for map_name, map_measures in measures_by_map.items():
            message_prefix = ""
            measure_owner = "the maps'"
            if len(measures_by_map) > 1:
                message_prefix = f"{map_name}: "
                measure_owner = f"{map_name}'s"
            map_file_names = [map_file.file_and_volume_text for map_file in self.source.map_files[map_name]]
            template_measures = template_measures_by_map[map_name] if template_measures_by_map else None
            training_measures = map_measures.loc[is_training, [*measures.COMPARED_MEASURES]]
            try:
                map_kind = check_map_kind(map_measures, map_file_names, template_measures)
                separating_measure_texts = check_map_measures(
                    training_measures, training_labels, self.options.allow_leak
                )
            except InputError as error:
                raise InputError(f"{message_prefix}{error}") from error
            summary_rows.append(("maps", f"{message_prefix}{map_kind}"))
            leak_texts += [f"{measure_owner} {measure_text}" for measure_text in separating_measure_texts]
        if measures_by_map and self.template and template_measures_by_map is None:
            unsure_kind_message = (
                f"whether those of {self.template.cohort.path} were of this kind is not known, since it has no "
                f"{MAP_MEASURES_FILE}"
            )
            summary_rows.append(("maps", unsure_kind_message))
        return summary_rows, leak_texts


def convert_cohort(
    source: Source,
    target_folder: Path | None,
    options: ConversionOptions,
    command_line: str,
    template: TemplateCohort | None = None,
    make_training_likeness_files: LikenessMaker | None = None,
) -> tuple[PlannedCohort, list[SummaryRow]]:
    """Writes the new cohort `target_folder`, using every core, and returns it with facts on people and maps. Without a
    target no map is read. Raises InputError, and leaves nothing, if the maps or the table do not allow it."""
    if template:
        source, summary_rows = check_new_people(source, options, template)
    else:
        source, summary_rows = check_source_table(source, options)
    preserved_split = PreservedSplit(open_run_cohort(options.keep_split)) if options.keep_split else None
    conversion = Conversion(source, options, command_line, template, make_training_likeness_files, preserved_split)
    planned_cohort = conversion.plan_cohort()  # what is wrong with the table is told before maps are read
    if target_folder:
        with files.create_folder(target_folder) as new_folder:
            planned_cohort, map_summary_rows = conversion.write_cohort(new_folder, planned_cohort)
            summary_rows += map_summary_rows
    if preserved_split:
        summary_rows += preserved_split.summarise_split(planned_cohort.subject_rows, planned_cohort.metadata)
    return planned_cohort, summary_rows


def check_source_table(source: Source, options: ConversionOptions) -> tuple[Source, list[SummaryRow]]:
    """The source with its families, and facts on the table. Raises InputError for columns that are not there, tell the
    diagnosis, or tell nothing, and for numbers that are no measurements."""
    text_table = source.text_table
    subject_ids = source.subject_table["subject"].tolist()
    check_label_coding(text_table, source.subject_table["label"].to_numpy(), source.label_column)
    if source.map_files.columns.empty and source.series_paths is None and options.phenotype == ():
        raise InputError(
            f"Nothing of {source.table_path} is to be learnt from: --maps none and --phenotype '' without "
            "--connectome. Name columns by --phenotype A,B."
        )

    # columns that options name
    requested_phenotype = options.phenotype or ()
    requested_covariates = options.covariates or ()
    check_columns_exist(
        text_table,
        {"--phenotype": requested_phenotype, "--covariates": requested_covariates, "--family": [options.family]},
        source.table_path,
    )
    if not options.allow_leak:
        check_leaking_column_names(
            {"--phenotype": requested_phenotype, "--covariates": requested_covariates}, source.label_column
        )
    covariates_without_site = [column_name for column_name in requested_covariates if column_name != source.site_column]
    check_informative_columns(
        text_table, subject_ids, {"--phenotype": requested_phenotype, "--covariates": covariates_without_site}
    )

    # all columns that are used, named or by default
    phenotype_columns = ABIDE_PHENOTYPE_COLUMNS if options.phenotype is None else options.phenotype
    candidate_columns = dict.fromkeys([*phenotype_columns, *find_covariate_columns(source, options)])
    phenotype_and_covariate_columns = [column_name for column_name in candidate_columns if column_name in text_table]
    check_measurements(source, phenotype_and_covariate_columns)
    phenotype_sentences = [
        *find_mixed_units(text_table, phenotype_and_covariate_columns, source.subject_table["site"]),
        *find_mixed_codings(text_table, phenotype_and_covariate_columns),
    ]
    uninformative_texts = describe_columns_without_information(text_table, subject_ids, phenotype_and_covariate_columns)
    if uninformative_texts:
        phenotype_sentences.append(f"nothing can be learnt from {', '.join(uninformative_texts)}")
    source = families.add_family_column(source, options.family, phenotype_and_covariate_columns)
    return source, [
        *(("phenotype", sentence) for sentence in phenotype_sentences),
        *families.summarise_families(source),
    ]


def check_new_people(
    source: Source, options: ConversionOptions, template: TemplateCohort
) -> tuple[Source, list[SummaryRow]]:
    """The source with its families, and facts on the table of new people. Raises InputError if they cannot be prepared
    as `template`, or are its training subjects."""
    template_cohort = template.cohort
    template_metadata = template_cohort.metadata
    check_template_match(source, template_cohort)
    phenotype_and_covariate_columns = (*template_metadata.phenotype_columns, *template_metadata.covariate_columns)
    check_measurements(source, phenotype_and_covariate_columns)
    source = families.add_family_column(source, options.family, phenotype_and_covariate_columns, template_cohort)
    summary_rows = [*template.summary_rows, *check_derivations(source, template_cohort)]
    labels = source.subject_table["label"].to_numpy()
    is_labelled = source.subject_table["label"].notna().to_numpy()
    check_label_coding(source.text_table[is_labelled], labels[is_labelled], source.label_column)
    summary_rows += families.summarise_families(source, template_cohort)
    absent_covariate_columns = [
        column_name for column_name in template_metadata.covariate_columns if column_name not in source.text_table
    ]
    if absent_covariate_columns:
        summary_rows.append(
            ("covariates", f"those that {source.table_path} lacks are empty: {', '.join(absent_covariate_columns)}")
        )
    for column_name, unknown_words in find_unknown_categories(source.text_table, template_metadata).items():
        category_names_text = join_names(template_metadata.phenotype_categories[column_name])
        unknown_words_message = (
            f"{column_name} {join_names(unknown_words)} is none of {category_names_text}, and taken as unknown"
        )
        summary_rows.append(("phenotype", unknown_words_message))
    return source, summary_rows


def check_measurements(source: Source, measurement_columns: Sequence[str]) -> None:
    """Raises InputError for numbers that are likely no measurements, unless --missing has told which are."""
    if not source.allow_outliers:
        columns_without_site = [column_name for column_name in measurement_columns if column_name != source.site_column]
        check_plausible_numbers(source.text_table, columns_without_site, source.table_path)


def find_covariate_columns(source: Source, options: ConversionOptions) -> tuple[str, ...]:
    """The column of sites and --covariates; by default ABIDE's, if the table or its phenotype is ABIDE's, and head
    motion that is known by the maps. Raises InputError for a column of numbers that holds anything else, on which no
    baseline could be fitted."""
    covariate_names = options.covariates
    if covariate_names is None:
        candidate_columns = source.motion_columns
        if options.phenotype is None or is_abide_table(source.text_table):
            candidate_columns = (*phenotype_table.ABIDE_COVARIATES, *candidate_columns)
        covariate_names = tuple(column_name for column_name in candidate_columns if column_name in source.text_table)
    for column_name in covariate_names:
        column_text = select_column(source.text_table, column_name, source.table_path)
        if column_name != source.site_column and is_mostly_numbers(column_text):
            parse_number_column(source.text_table, column_name)
    return tuple(dict.fromkeys(filter(None, [source.site_column, *covariate_names])))


def collect_scan_fingerprints(subject_ids: Sequence[str], people_maps: Sequence[PersonMaps]) -> PeopleScans:
    """By what the scans of people are recognised."""
    scan_digests_by_subject = {
        subject: person_maps.record_digests.scan_digests
        for subject, person_maps in zip(subject_ids, people_maps, strict=True)
    }
    region_means_per_person = [
        person_maps.region_means for person_maps in people_maps if person_maps.region_means is not None
    ]
    region_means = np.array(region_means_per_person) if region_means_per_person else None  # (people, regions, maps)
    return PeopleScans(scan_digests_by_subject, region_means)


def add_compared_edges(scan_fingerprints: PeopleScans, connectomes: ConvertedConnectomes) -> PeopleScans:
    """The people with those of their edges by which near copies are recognised."""
    edge_indices = draw_edge_indices(count_edges(len(connectomes.parcel_names)))
    edge_fisher_z = np.array(
        [np.fromfile(row_path, EDGE_DTYPE)[edge_indices] for row_path in connectomes.connectome_row_paths]
    )
    return replace(scan_fingerprints, edge_fisher_z=edge_fisher_z, parcel_names=connectomes.parcel_names)


def check_new_scans(source: Source, template_cohort: Cohort, scan_fingerprints: PeopleScans) -> None:
    """Raises InputError if new people have a scan of training subjects of `template_cohort`, or a map or connectome of
    one, under whatever ID."""
    training_fingerprints = load_people_scans(template_cohort, template_cohort.list_split_subjects("train"))
    training_subject_by_new_subject = find_people_in_common(training_fingerprints, scan_fingerprints)
    if training_subject_by_new_subject:
        pair_texts = [
            f"{new_subject} has that of {training_subject}"
            for new_subject, training_subject in training_subject_by_new_subject.items()
        ]
        raise InputError(
            f"At least {len(training_subject_by_new_subject)} of {source.table_path} have a scan of training "
            f"participants of {template_cohort.path}: {join_names(pair_texts)}; expected new participants. Leave "
            f"them out: --exclude {','.join(training_subject_by_new_subject)}"
        )


def check_map_kind(
    map_measures: pd.DataFrame, map_file_names: Sequence[str], template_measures: pd.DataFrame | None
) -> str:
    """The kind of all maps. Raises InputError if they are of several kinds, or of another one than those of
    `template_measures`. The latter are repeated until they outnumber `map_measures`, lest new maps decide the kind."""
    repeated_template_measures = []
    if template_measures is not None:
        repeated_template_measures = [template_measures] * (len(map_measures) // len(template_measures) + 1)
    template_and_new_kinds = measures.find_map_kinds(
        pd.concat([*repeated_template_measures, map_measures], ignore_index=True)
    )
    new_kinds = template_and_new_kinds.iloc[-len(map_measures) :].set_axis(map_measures.index)
    mixture_text = measures.describe_kind_mixture(new_kinds, map_file_names)
    if mixture_text:
        raise InputError(
            f"The maps are of several kinds: {mixture_text}; expected one kind. Convert those of one kind: choose with "
            "--only or --mapColumn."
        )
    common_kind = str(new_kinds.iloc[0])
    template_kind = template_and_new_kinds.iloc[0]  # without a template, that of the first new map
    if common_kind != template_kind:
        raise InputError(
            f"The maps are {common_kind}, such as {map_file_names[0]}, unlike those of the cohort or bundle, "
            f"{template_kind}; expected one kind. Choose the same maps with --only or --mapColumn."
        )
    return common_kind
