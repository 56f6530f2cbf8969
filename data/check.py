"""abide-data check: a cohort, or a folder of maps -> counts, and whatever in it would invalidate a result.

People are compared with each other as new people are with those of a training (`data/likeness`); groups of people are
compared, too: by kind of map, label, site and scan.
"""

import hashlib
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base import manifest, tables
from data.base.errors import InputError
from data.base.listing import join_group_names, join_names
from data.base.pool import Pool
from data.base.terminal import format_participants, merge_summary_rows, open_progress_bar, print_summary
from data.cohorts import near_duplicates
from data.cohorts.cohort import COVARIATES_FILE, MAP_MEASURES_FILE, PHENOTYPE_FILE, Cohort
from data.cohorts.derivation import DERIVED_TABLE_FILE as DERIVATION_TABLE
from data.cohorts.duplicates import PeopleScans, add_edges, find_duplicates, find_groups_without_volumes
from data.cohorts.entries import RecordEntry
from data.cohorts.findings import CohortFindings, Findings, write_verdict
from data.cohorts.forecast import make_forecast
from data.cohorts.metadata import DUPLICATES_APART, METADATA_FILE, Metadata
from data.cohorts.problems import Problem
from data.cohorts.rows import RecordRow
from data.cohorts.scaling import describe_impossible_values, describe_missing_by_class
from data.cohorts.stored import compare_with_sums
from data.conversion import measures
from data.conversion.edges import OPPOSED_MARK, check_connectomes
from data.conversion.joining import read_source
from data.conversion.leaks import check_group_differences
from data.conversion.options import SourceOptions
from data.conversion.source import ALL_MAPS_OPTION, NO_MAPS_OPTION
from data.conversion.template import encode_phenotype
from data.conversion.volumes import read_person_maps
from data.derivation.job import list_failed_people_by_reason
from data.derivation.person import PersonResult
from data.images import grids, resampling
from data.images.pictures import PeoplePictures
from data.likeness.newcomers import check_newcomers
from data.likeness.reasons import OTHER_ATLAS_WORDS, find_advice, find_problem_code
from data.likeness.reference import compute_usual_ranges, find_deviation_sentences
from data.likeness.scans import (
    MIN_COVERED_FRACTION,
    ScanSums,
    iterate_map_volumes,
    load_region_atlas,
    read_unconverted_measures,
)
from data.tables.covariates import IMPLAUSIBLE_NUMBERS_TEXT, describe_implausible_numbers
from data.tables.missing import clean_column
from data.tables.phenotype import write_subject_table

# the median distance of brains from their common centre: 2 in MNI space, 8 or more in each person's own space
MAX_MEDIAN_BRAIN_OFFSET_MM = 6.0
SAME_SCAN_ADVICE = "which folds may part; leave all but one out with convert --exclude"  # people who share a scan
UNSEALED_CAVEAT = "label and phenotype were compared with the records; site, split and covariates cannot be checked"
UNSEALED_TABLES_CAVEAT = "whether the tables are as they were written cannot be checked"  # without maps
EDIT_BOTH_TABLES_ADVICE = "edit both"  # tables that differ
MIN_DISTINCT_ROW_FRACTION = 0.5  # of people; if fewer rows of a table differ, equal ones are no sign of copies
MAX_PEOPLE_NOTED = 10  # of those who are unlike the others; the page has all
# of stored volumes, which all have the voxels of one grid
CHECKED_MAP_MEASURE_NAMES = [measure_name for measure_name in measures.COMPARED_MEASURES if measure_name != "voxel_mm3"]
CHECKED_MAP_MEASURE_NAMES += ["below", "roughness", "alike"]


def check_and_store_verdict(cohort: Cohort, pictures: PeoplePictures | None = None) -> CohortFindings:
    """All findings on a cohort. The verdict is stored beside the records; if that is not possible, the reason is
    printed. Every record is read twice, to save memory; `pictures` are filled, if they are given."""
    findings = cohort.take_census()
    findings.forecast_sentences = make_forecast(
        cohort.rows, find_groups_without_volumes(cohort), connectome_name=cohort.metadata.connectome
    )
    check_files(cohort, findings.files)
    check_phenotype(cohort, findings)
    if not cohort.num_maps and not cohort.connectomes:
        check_equal_rows(cohort, findings.participants)
    no_signal_people_count_by_parcel = check_connectomes(cohort, findings.connectomes)
    check_scans(cohort, findings, pictures)
    if cohort.connectomes:
        findings.no_signal_counts_by_map[cohort.connectomes.series_name] = no_signal_people_count_by_parcel
    if cohort.tables_folder:
        unstored_reason = write_verdict(cohort.tables_folder, cohort.identity, findings)
    else:
        unstored_reason = "records without tables have no place for it"
    if unstored_reason:
        print_summary([("verdict", f"not stored, so that no later job can tell it: {unstored_reason}")])
    return findings


def has_unconverted_maps(folder: Path) -> bool:
    """Whether a folder holds maps that were not converted."""
    return not (folder / METADATA_FILE).exists() and any(folder.rglob("*.nii*"))


@contextmanager
def read_maps_as_cohort(folder: Path, source_options: SourceOptions) -> Iterator[Cohort]:
    """A folder of maps and a table of people, labelled or not, as a cohort on the reduced grid, which is there only
    within the block. Raises InputError as a conversion does."""
    if source_options.maps == NO_MAPS_OPTION:
        raise InputError(f"--maps none leaves no maps of {folder} to check; convert checks a table and connectomes.")
    default_maps_option = None if source_options.map_column else ALL_MAPS_OPTION
    source = read_source(
        folder, replace(source_options, maps=source_options.maps or default_maps_option), is_label_optional=True
    )
    print_summary(merge_summary_rows(source.summary_rows))
    subjects = source.subject_table["subject"].tolist()
    map_names = tuple(map(str, source.map_files))
    with tempfile.TemporaryDirectory() as work_folder, Pool() as pool:
        record_paths = [Path(work_folder) / f"{subject}.bin" for subject in subjects]
        reading_arguments = [
            (map_files, grids.REDUCED, record_path)
            for map_files, record_path in zip(source.map_files.to_numpy().tolist(), record_paths, strict=True)
        ]
        maps_per_person = pool.run("Reading maps", read_person_maps, reading_arguments)

        measure_table_by_map = dict[str, pd.DataFrame]()
        for map_index, map_name in enumerate(map_names):
            measure_rows = [person_maps.measures_per_map[map_index] for person_maps in maps_per_person]
            measure_table_by_map[map_name] = pd.DataFrame(measure_rows)
        measures.write_map_measures(Path(work_folder) / MAP_MEASURES_FILE, subjects, measure_table_by_map)
        covariate_table = source.text_table.drop(columns="subject", errors="ignore").set_axis(subjects).copy()
        write_subject_table(Path(work_folder) / COVARIATES_FILE, covariate_table)

        record_rows = [
            RecordRow(subject_row.subject, subject_row.subject, subject_row.site, subject_row.label, "train")
            for subject_row in source.subject_table.itertuples()
        ]
        yield Cohort(
            path=folder,
            record_grid=grids.REDUCED,
            rows=tuple(record_rows),
            entries=tuple(RecordEntry(record_path, record_path.stat().st_size) for record_path in record_paths),
            metadata=Metadata(maps=map_names, provenance={"left_out": source.left_out_subjects_by_reason}),
            tables_folder=Path(work_folder),
            num_maps=len(map_names),
        )


def check_map_folder(cohort: Cohort, pictures: PeoplePictures | None) -> CohortFindings:
    """The findings on what `read_maps_as_cohort` gives."""
    findings = CohortFindings(
        f"{cohort.path}: {', '.join(cohort.map_names)} of {format_participants(len(cohort.rows))}, not converted"
    )
    if (cohort.path / DERIVATION_TABLE).is_file():
        derivation_rows = tables.read_csv_frame(cohort.path / DERIVATION_TABLE).itertuples()
        failure_summary_rows = list_failed_people_by_reason(
            PersonResult(row.subject, failure_text=row.failed) for row in derivation_rows
        )
        findings.participants.notes += [f"not derived, {failure_text}" for _, failure_text in failure_summary_rows]
    check_scans(cohort, findings, pictures)
    return findings


def check_scans(cohort: Cohort, findings: CohortFindings, pictures: PeoplePictures | None) -> None:
    """Findings on all volumes, or connectomes if there are no maps, and on the sites that they are compared by."""
    check_sites({row.site for row in cohort.rows}, findings.sites)
    scan_sums, usable_record_indices, people_scans = read_volumes(cohort, findings.files, pictures)

    # from the comparison with the training people; None if the cohort does not describe them
    invalidating_sentences_per_record = check_newcomers(cohort, usable_record_indices, findings)
    if len(people_scans.subjects) < 2:  # who cannot be compared with each other
        report_unlike_people(
            cohort,
            usable_record_indices,
            invalidating_sentences_per_record or [[] for _ in usable_record_indices],
            findings.maps,
            may_name_wrong_people=False,
        )
        return

    check_near_duplicates(cohort, people_scans, findings.participants)
    findings.no_signal_counts_by_map |= count_people_without_signal(cohort, scan_sums)

    scan_measure_table, missing_regions_by_record_and_map = scan_sums.measure_records(usable_record_indices)
    first_record_indices = list(cohort.find_first_record_indices(usable_record_indices).values())
    check_values_by_map(cohort, people_scans.subjects, scan_measure_table.loc[first_record_indices], findings)

    unconverted_measure_table = read_unconverted_measures(cohort, usable_record_indices)
    measure_table = pd.concat([scan_measure_table, unconverted_measure_table], axis=1)
    usual_ranges = compute_usual_ranges(measure_table.loc[first_record_indices])
    reason_sentences_per_record = find_deviation_sentences(
        cohort, measure_table, usual_ranges, missing_regions_by_record_and_map
    )
    sentences_per_record = collect_record_sentences(
        cohort,
        usable_record_indices,
        reason_sentences_per_record,
        invalidating_sentences_per_record,
        findings.connectomes,
    )
    report_unlike_people(
        cohort,
        usable_record_indices,
        sentences_per_record,
        findings.maps,
        may_name_wrong_people=invalidating_sentences_per_record is None,
    )


def check_sites(sites: set[str], findings: Findings) -> None:
    """Two spellings of a site are worth a note."""
    spellings_by_normalised_site = defaultdict[str, list[str]](list)
    for site in sorted(sites):
        spellings_by_normalised_site[re.sub(r"[\W_]", "", site).casefold()].append(repr(site))
    for spellings in spellings_by_normalised_site.values():
        if len(spellings) > 1:
            findings.notes.append(f"{' and '.join(spellings)} count as sites of their own; write one name for all")


def read_volumes(
    cohort: Cohort, findings: Findings, pictures: PeoplePictures | None
) -> tuple[ScanSums, list[int], PeopleScans]:
    """The sums over scans; the positions of the records that can be used (unreadable and constant ones are problems);
    and what recognises people, from the first record of each. Without maps, records are those of connectomes."""
    scan_sums = ScanSums(cohort, range(len(cohort.rows)))
    usable_record_indices = list[int]()
    region_means_per_subject = list[np.ndarray]()
    scan_digests_by_subject = dict[str, set[str]]()
    stored_scan_digests_by_subject = cohort.collect_scan_digests()
    with open_progress_bar("Checking", len(cohort.rows)) as progress_bar:
        for record_index, row in enumerate(cohort.rows):
            progress_bar.advance()
            try:
                map_volumes = list(iterate_map_volumes(cohort, record_index))
            except InputError as error:
                findings.problems.append(Problem(f"unreadable-record: {row.file}", str(error)))
                findings.mark_outliers("cannot be read", [row.subject])
                continue
            is_constant_map = [volume.min() == volume.max() for volume in map_volumes]
            if any(is_constant_map):
                map_index = is_constant_map.index(True)
                constant_value = map_volumes[map_index].flat[0]
                map_name = cohort.map_names[map_index]
                problem_text = f"{row.file} is constant ({constant_value:g}); its map of {map_name} was empty"
                findings.problems.append(Problem(f"constant-map: {row.file}, {map_name}", problem_text))
                findings.mark_outliers("a map is constant", [row.subject])
                continue
            try:
                scan_sums.add_record(record_index, map_volumes)
            except InputError:  # on its connectome, which `check_connectomes` has reported
                continue
            usable_record_indices.append(record_index)
            if row.subject in scan_digests_by_subject:
                continue
            reduced_volumes = [resampling.reduce_volume(reduced_volume) for reduced_volume in map_volumes]
            if reduced_volumes:
                region_means_per_map = [
                    near_duplicates.average_reduced_regions(reduced_volume) for reduced_volume in reduced_volumes
                ]
                region_means_per_subject.append(np.column_stack(region_means_per_map))
            volume_digests = {
                hashlib.sha256(reduced_volume.tobytes()).hexdigest() for reduced_volume in reduced_volumes
            }
            stored_digests = stored_scan_digests_by_subject[row.subject]  # including the connectome's
            scan_digests_by_subject[row.subject] = volume_digests | stored_digests
            if pictures and map_volumes:
                pictures.add_person_maps(row.subject, map_volumes[0], reduced_volumes)
    people_scans = PeopleScans(scan_digests_by_subject)
    if cohort.num_maps:
        people_scans = replace(people_scans, region_means=np.array(region_means_per_subject))
    else:
        first_record_indices = list(cohort.find_first_record_indices(usable_record_indices).values())
        people_scans = add_edges(people_scans, cohort, first_record_indices)
    return scan_sums, usable_record_indices, people_scans


def count_people_without_signal(cohort: Cohort, scan_sums: ScanSums) -> dict[str, Counter[str]]:
    """How many people lack a region, by map and name of the region; only regions that somebody lacks."""
    name_by_region = load_region_atlas(cohort).name_by_region
    people_counts = scan_sums.missing_region_counts.sum(0)  # (maps, regions + 1), by number of the region
    people_count_by_region_per_map = dict[str, Counter[str]]()
    for map_index, map_name in enumerate(cohort.map_names):
        people_count_by_region = Counter[str]()
        for region_number in np.flatnonzero(people_counts[map_index]).tolist():
            people_count_by_region[name_by_region[region_number]] = int(people_counts[map_index, region_number])
        people_count_by_region_per_map[map_name] = people_count_by_region
    return people_count_by_region_per_map


def check_values_by_map(
    cohort: Cohort, subjects: Sequence[str], stored_measure_table: pd.DataFrame, findings: CohortFindings
) -> None:
    """Findings on the values of each map, and on regions without signal. `stored_measure_table` has the first record of
    each of these subjects, and columns (map, measure)."""
    raw_measure_table_by_map = None  # from before the conversion
    if cohort.tables_folder:
        raw_measure_table_by_map = measures.read_map_measures(cohort.tables_folder, subjects, cohort.map_names)

    findings_by_map = dict[str, Findings]()
    for map_name in cohort.map_names:
        findings_by_map[map_name] = Findings()
        raw_measure_table = None
        if raw_measure_table_by_map:
            raw_measure_table = raw_measure_table_by_map[map_name].set_axis(stored_measure_table.index)
        check_map_kinds_and_groups(
            cohort,
            raw_measure_table,
            stored_measure_table[map_name][CHECKED_MAP_MEASURE_NAMES],
            findings_by_map[map_name],
        )
        people_count_by_region = findings.no_signal_counts_by_map[map_name]
        if people_count_by_region:
            region_count_texts = [
                f"{region_name} in {people_count}" for region_name, people_count in people_count_by_region.most_common()
            ]
            coverage_words = (
                f"in under {MIN_COVERED_FRACTION:.0%} of their voxels, by how many of "
                f"{format_participants(len(stored_measure_table))}"
            )
            findings_by_map[map_name].notes.append(
                f"regions with signal {coverage_words}: {join_names(region_count_texts)}"
            )

    findings.maps.add_map_findings(findings_by_map)
    if len(cohort.map_names) == 1:
        findings.maps.counts = [f"{cohort.map_names[0]}: {count_text}" for count_text in findings.maps.counts]


def check_files(cohort: Cohort, findings: Findings) -> None:
    """A file that differs from its sum is a problem; one without a sum is worth a note; how maps were derived is
    stated."""
    try:
        different_file_names, file_names_without_sum = compare_with_sums(cohort)
        findings.problems += [
            Problem(f"changed-file: {file_name}", f"{cohort.path / file_name} {manifest.DIFFERENT_FILE_MESSAGE}")
            for file_name in different_file_names
        ]
        if file_names_without_sum:
            findings.notes.append(
                f"no sum in {manifest.SUMS_FILE}, so damage cannot be detected: {join_names(file_names_without_sum)}"
            )
        if cohort.tables_folder and (derivation := cohort.metadata.derivation):
            findings.counts.append(f"derived from scans: {', '.join(derivation.measures)}; {derivation}")
            findings.notes += filter(None, [derivation.uncleaned_warning])
        check_sealing(cohort.metadata, findings)
    except InputError as error:
        findings.problems.append(Problem("unreadable-files", str(error)))


def check_sealing(metadata: Metadata, findings: Findings) -> None:
    """Tables that were sealed without sums are worth a note; if the records said otherwise, that is a problem."""
    if metadata.is_unsealed:
        caveat = UNSEALED_CAVEAT if metadata.grid else UNSEALED_TABLES_CAVEAT
        findings.notes.append(f"sealed without {manifest.SUMS_FILE}: {caveat}")
    if contradicted_cells := metadata.cells_unlike_records:
        cell_texts = [
            "{subject} {column} ({before} in the record, {after} in the table)".format(**cell)
            for cell in contradicted_cells
        ]
        cells_text = ", ".join("{subject} {column}".format(**cell) for cell in contradicted_cells)
        problem_text = (
            f"tables and records differed when this was sealed without {manifest.SUMS_FILE}: {join_names(cell_texts)}; "
            "correct them, or seal the original by pack --tables if its tables are right"
        )
        findings.problems.append(Problem(f"sealed-unlike-records: {cells_text}", problem_text))


def check_phenotype(cohort: Cohort, findings: CohortFindings) -> None:
    """Values missing in one class of a site and odd numbers are worth a note; unreadable records have been reported."""
    try:
        check_covariates_agree(cohort, findings.phenotype)
        if (raw_phenotype := cohort.unscaled_phenotype) is not None:
            findings.phenotype.problems += describe_impossible_values(raw_phenotype, cohort.metadata)
        findings.phenotype.notes += describe_missing_by_class(raw_phenotype, cohort.rows)
        if implausible_number_texts := [
            *describe_implausible_numbers(cohort.covariates),
            *describe_implausible_numbers(cohort.unscaled_phenotype),
        ]:
            findings.phenotype.notes.append(
                f"{IMPLAUSIBLE_NUMBERS_TEXT}: {join_names(implausible_number_texts)} participants; correct them, or "
                "convert with --missing"
            )
    except InputError as error:
        if str(error) not in [problem.text for problem in findings.files.problems]:
            findings.phenotype.problems.append(Problem("unreadable-phenotype", str(error)))


def check_covariates_agree(cohort: Cohort, findings: Findings) -> None:
    """A person for whom two tables give different sites or numbers is a problem. Raises InputError for a damaged
    table."""
    covariates = cohort.covariates
    raw_phenotype = cohort.unscaled_phenotype
    metadata = cohort.metadata
    if covariates is not None and metadata.site_column:
        site_by_subject = pd.Series({row.subject: row.site for row in cohort.rows}).reindex(covariates.index)
        covariate_sites = covariates[metadata.site_column].str.split().str.join(" ")
        has_differing_site = covariate_sites.ne("") & covariate_sites.ne(site_by_subject)
        if differing_subjects := site_by_subject.index[has_differing_site].tolist():
            difference_sentence = (
                f"{COVARIATES_FILE} and the table of records differ in the site of {join_names(differing_subjects)}; "
                f"{EDIT_BOTH_TABLES_ADVICE}"
            )
            findings.problems.append(Problem(f"sites-differ: {', '.join(differing_subjects)}", difference_sentence))
    if covariates is not None and raw_phenotype is not None:
        check_phenotype_agrees(covariates, raw_phenotype, metadata, findings)


def check_phenotype_agrees(
    covariates: pd.DataFrame, raw_phenotype: pd.DataFrame, metadata: Metadata, findings: Findings
) -> None:
    """A person for whom `covariates.csv` gives other values than `phenotype.csv` is a problem."""
    full_covariates = covariates.reindex(columns=covariates.columns.union(metadata.phenotype_columns), fill_value="")
    encoded_phenotype = encode_phenotype(full_covariates, metadata).set_axis(raw_phenotype.index)
    value_names = [name for name in encoded_phenotype if not name.endswith(("_missing", "_unknown"))]
    encoded_values = encoded_phenotype[value_names]
    for column in metadata.phenotype_columns:
        if column not in covariates:
            continue
        # values that are other ones if the column is empty are made of it
        encoded_without_column = encode_phenotype(full_covariates.assign(**{column: ""}), metadata)
        values_without_column = encoded_without_column.set_axis(raw_phenotype.index)[value_names]
        is_from_column = (encoded_values.ne(values_without_column) & encoded_values.notna()).any()  # (values,)
        has_value = clean_column(covariates[column]).notna().to_numpy()  # (subjects,)
        for value_name in encoded_values.columns[is_from_column]:
            is_equal = np.isclose(encoded_values[value_name], raw_phenotype[value_name], rtol=1e-6)  # (subjects,)
            if differing_subjects := raw_phenotype.index[has_value & ~is_equal].tolist():
                difference_sentence = (
                    f"{COVARIATES_FILE} and {PHENOTYPE_FILE} differ in the {value_name} of "
                    f"{join_names(differing_subjects)}; {EDIT_BOTH_TABLES_ADVICE}"
                )
                problem_code = f"values-differ: {value_name}, {', '.join(differing_subjects)}"
                findings.problems.append(Problem(problem_code, difference_sentence))


def check_equal_rows(cohort: Cohort, findings: Findings) -> None:
    """Subjects with the same known values of phenotype and covariates are worth a note, since nothing else tells copies
    in a table alone, unless values are so few or coarse that they hardly tell people apart."""
    subjects = list(cohort.find_first_record_indices(range(len(cohort.rows))))
    value_tables = [table for table in (cohort.unscaled_phenotype, cohort.covariates) if table is not None]
    subjects_by_values = defaultdict[tuple, list[str]](list)
    for subject in subjects:
        row_texts = [str(value) for value_table in value_tables for value in value_table.loc[subject]]
        subjects_by_values[tuple(row_texts)].append(subject)
    if len(subjects_by_values) < MIN_DISTINCT_ROW_FRACTION * len(subjects):
        return
    equal_subject_groups = [subject_group for subject_group in subjects_by_values.values() if len(subject_group) > 1]
    if equal_subject_groups:
        findings.notes.append(
            f"the same values in the table, perhaps one participant twice: {join_group_names(equal_subject_groups)}"
        )


def check_near_duplicates(cohort: Cohort, people_scans: PeopleScans, findings: Findings) -> None:
    """Subjects who share a scan are a problem if `describe_shared_scan_fault` finds a fault, else worth a note.
    Possible sessions of one person are worth a note."""
    row_by_subject = {row.subject: row for row in reversed(cohort.rows)}
    duplicates = find_duplicates(people_scans)
    subject_groups_by_fault = defaultdict[str, list[Sequence[str]]](list)
    for subject_group in duplicates.same_scan_groups:
        findings.mark_outliers("one scan under several IDs", subject_group)
        fault = describe_shared_scan_fault(cohort, [row_by_subject[subject] for subject in subject_group])
        subject_groups_by_fault[fault].append(subject_group)
    for fault, subject_groups in subject_groups_by_fault.items():
        groups_text = join_group_names(subject_groups, lambda subject: f"{subject} ({row_by_subject[subject].split})")
        shared_scan_sentence = f"one scan under several IDs: {groups_text}{fault}"
        if fault:
            subjects_text = ", ".join(subject for subject_group in subject_groups for subject in subject_group)
            findings.problems.append(Problem(f"shared-scan: {subjects_text}", shared_scan_sentence))
        else:
            findings.notes.append(shared_scan_sentence)
    findings.notes += duplicates.make_same_person_warnings()


def describe_shared_scan_fault(cohort: Cohort, subject_rows: Sequence[RecordRow]) -> str:
    """What is wrong with several subjects who share a scan; empty if nothing is."""
    labels = {row.label for row in subject_rows if row.is_labelled}
    splits = {row.split for row in subject_rows}
    labels_fault = ", one scan with both labels" if len(labels) > 1 else ""
    if len(splits) > 1:
        return f"{labels_fault}, one scan in train and test"
    if cohort.metadata.duplicates == DUPLICATES_APART:
        return f"{labels_fault}, {SAME_SCAN_ADVICE}"
    return labels_fault


def collect_record_sentences(
    cohort: Cohort,
    usable_record_indices: Sequence[int],
    reason_sentences_per_record: Sequence[Sequence[str]],
    invalidating_sentences_per_record: Sequence[Sequence[str]] | None,
    connectome_findings: Findings,
) -> list[list[str]]:
    """The sentences on each record: how it differs from the others (`reason_sentences_per_record`). Those that
    invalidate results are replaced by `invalidating_sentences_per_record`, from the comparison with the training
    people, if there is one. A group whose connectomes oppose those of others is reported once, not for each record."""
    opposed_subjects = {subject for subject, oddity in connectome_findings.outliers if oddity == OPPOSED_MARK}
    sentences_per_record = list[list[str]]()
    for position, (record_index, reason_sentences) in enumerate(
        zip(usable_record_indices, reason_sentences_per_record, strict=True)
    ):
        record_sentences = list(reason_sentences)
        if cohort.rows[record_index].subject in opposed_subjects:
            record_sentences = [sentence for sentence in record_sentences if not sentence.endswith(OTHER_ATLAS_WORDS)]
        if invalidating_sentences_per_record is not None:
            record_sentences = [sentence for sentence in record_sentences if not find_advice(sentence)]
            record_sentences += invalidating_sentences_per_record[position]
        sentences_per_record.append(record_sentences)
    return sentences_per_record


def report_unlike_people(
    cohort: Cohort,
    usable_record_indices: Sequence[int],
    sentences_per_record: Sequence[Sequence[str]],
    findings: Findings,
    may_name_wrong_people: bool,
) -> None:
    """People who are unlike the others are worth a note each, a few of them in full; what makes results invalid is a
    problem with the names of all. If it `may_name_wrong_people`, for want of training people to compare with, and more
    than a third are named, the problem says that the others may be the wrong ones."""
    rows_by_problem = defaultdict[str, list[RecordRow]](list)
    reason_sentences_by_file = dict[str, list[str]]()
    for record_index, sentences in zip(usable_record_indices, sentences_per_record, strict=True):
        row = cohort.rows[record_index]
        for sentence in sentences:
            findings.mark_outliers(sentence, [row.subject])
            if find_advice(sentence):
                rows_by_problem[sentence].append(row)
            else:
                reason_sentences_by_file.setdefault(row.file, []).append(sentence)

    for sentence, problem_rows in rows_by_problem.items():
        is_in_doubt = may_name_wrong_people and len(problem_rows) > len(usable_record_indices) / 3
        doubt_words = " (or in all others)" if is_in_doubt else ""
        file_names_text = ", ".join(row.file for row in problem_rows)
        problem_text = f"{sentence} in {file_names_text}{doubt_words}; {find_advice(sentence)}"
        findings.problems.append(Problem(f"{find_problem_code(sentence)}, {file_names_text}", problem_text))

    file_names_most_reasons_first = sorted(
        reason_sentences_by_file, key=lambda file_name: -len(reason_sentences_by_file[file_name])
    )
    findings.notes += [
        f"{file_name} is unlike the others: {'; '.join(reason_sentences_by_file[file_name])}"
        for file_name in file_names_most_reasons_first[:MAX_PEOPLE_NOTED]
    ]
    unlisted_people_count = len(file_names_most_reasons_first) - MAX_PEOPLE_NOTED
    if unlisted_people_count > 0:
        findings.notes.append(
            f"{format_participants(unlisted_people_count, 'more')} unlike the others; the page, --html, names all"
        )


def check_map_kinds_and_groups(
    cohort: Cohort, raw_measure_table: pd.DataFrame | None, stored_measure_table: pd.DataFrame, findings: Findings
) -> None:
    """Maps of several kinds, in the people's own space, or that separate the training labels, are problems; differences
    by site are notes. One record a subject is checked: by `stored_measure_table`, and by `raw_measure_table` from
    before its conversion, if these are known."""
    rows = [cohort.rows[record_index] for record_index in stored_measure_table.index]
    file_names = [row.file for row in rows]
    measure_tables = [stored_measure_table]
    map_kinds = measures.find_stored_volume_kinds(stored_measure_table)
    if raw_measure_table is not None:  # which tells kinds better
        measure_tables = [raw_measure_table[[*measures.COMPARED_MEASURES]], stored_measure_table]
        map_kinds = measures.find_map_kinds(raw_measure_table)
        findings.counts.append(f"values {', '.join(sorted(set(map_kinds)))}")
        measure_warnings = [
            measures.describe_side_conflicts(raw_measure_table, file_names),
            measures.describe_filled_backgrounds(raw_measure_table, file_names),
            measures.describe_voxel_sizes(raw_measure_table, file_names),
        ]
        findings.notes += filter(None, measure_warnings)
    if mixture_text := measures.describe_kind_mixture(map_kinds, file_names):
        map_kinds_text = ", ".join(sorted(set(map_kinds.dropna())))
        problem_text = f"maps of several kinds: {mixture_text}; convert maps of one kind"
        findings.problems.append(Problem(f"several-map-kinds: {map_kinds_text}", problem_text))
    brain_centres_mm = stored_measure_table[["x_mm", "y_mm", "z_mm"]]
    brain_offsets_mm = np.linalg.norm(brain_centres_mm - brain_centres_mm.median(), axis=1)  # (subjects,)
    median_offset_mm = np.median(brain_offsets_mm)
    if median_offset_mm > MAX_MEDIAN_BRAIN_OFFSET_MM:
        problem_text = (
            f"half of the brains lie more than {median_offset_mm:.0f} mm from the middle of all, as in each "
            "participant's own space; make maps in MNI space"
        )
        findings.problems.append(Problem(f"brains-scattered: {median_offset_mm:.0f} mm", problem_text))
    check_group_differences("maps", measure_tables, rows, findings)
