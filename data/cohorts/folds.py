"""Folds: the subjects of a cohort, divided so that each of them is tested once; kept on disk, divided again, permuted.

N folds hold each label and site in proportion, or whole sites. Or one site, or one value of any covariate, is left out
at a time. `folds.csv` holds each subject's fold, `folds.json` beside it names the cohort. An encoder for each fold
makes a set of reduced cohorts: a folder with both files, and a cohort `fold-<K>` for each fold.

Inner folds divide the training subjects of a fold. What is chosen by them has not seen whom the outer fold tests. If
the outer folds are whole sites, or the values of a column, the inner ones are groups of the other sites or values. So
here, too, models are tested at sites that they have not seen.

Labels are permuted within sites. There is nothing to find then, with the same people, scans and sites.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from data.base import files, manifest, tables
from data.base.cli import MAX_SEED
from data.base.effort import EFFORT
from data.base.errors import InputError, parse_natural_number
from data.base.listing import MAX_GROUP_MEMBERS_LISTED, join_group_names, join_names
from data.base.terminal import format_participants
from data.cohorts import rows as cohort_rows
from data.cohorts.cohort import Cohort, ControlLabels
from data.cohorts.division import (
    Division,
    assign_stratified_folds,
    check_fold_classes,
    divide_by_column,
    divide_into_numbered_folds,
    divide_into_whole_sites,
    encode_folder_name,
    make_subject_arrays,
    merge_linked_sites,
)
from data.cohorts.duplicates import add_subject_groups
from data.cohorts.groups import SubjectGroups, describe_group_ties
from data.cohorts.stored import FOLDS_FILE, open_run_cohort
from data.cohorts.variants import resplit

FOLD_TABLE_FILE = "folds.csv"
FOLD_COLUMNS = ("subject", "fold")
MIN_INNER_FOLDS = 2


@dataclass(frozen=True)
class FoldsDescription:
    """The content of `folds.json`: how the subjects of `folds.csv` were divided, their cohort, and its groups."""

    folds: str  # the name of a `Division`, as --folds
    cohort_sha256: str
    same_scan: SubjectGroups  # all groups
    seed: int  # of numbered folds


@dataclass(frozen=True)
class Folds:
    """`fold_by_subject` gives each subject's fold; `reduced_cohort_by_fold` are the cohorts of a set of reduced
    cohorts, by fold; empty without one."""

    folds_option: str  # the name of a `Division`
    full_cohort: Cohort  # for a set of reduced cohorts, the first, with the path of the set
    identity: str  # of the cohort, or of a set
    fold_by_subject: Mapping[str, str]
    seed: int  # decides who is in which numbered fold, and how networks start
    reduced_cohort_by_fold: Mapping[str, Cohort] = field(default_factory=dict)
    cached_cohort_by_fold: dict[str, Cohort] = field(
        default_factory=dict, repr=False, compare=False
    )  # cohorts that `make_fold_cohort` has made

    @property
    def groups(self) -> SubjectGroups:
        """Who is not independent; each group is in one fold."""
        return self.full_cohort.groups

    @property
    def description(self) -> FoldsDescription:
        return FoldsDescription(self.folds_option, self.identity, self.groups, self.seed)

    @property
    def fold_names(self) -> list[str]:
        """The folds: numbers, or the values of the column, in order."""
        fold_names = set(self.fold_by_subject.values())
        has_numbers_only = all(parse_natural_number(fold_name) is not None for fold_name in fold_names)
        is_in_numeric_order = self.are_numbered or (self.division.is_from_file and has_numbers_only)
        return sorted(fold_names, key=int if is_in_numeric_order else str)

    @property
    def division(self) -> Division:
        return Division.parse_folds_option(self.folds_option)

    @property
    def are_numbered(self) -> bool:
        """Whether the seed says who is in which fold, not a column or a file."""
        return self.division.fold_count > 0 and not self.division.is_from_file

    @property
    def unchecked_cohort(self) -> Cohort:
        """The first reduced cohort of which no verdict is known; the whole cohort if there is none."""
        return next(
            (cohort for cohort in self.reduced_cohort_by_fold.values() if cohort.check_verdict is None),
            self.full_cohort,
        )

    @property
    def division_warnings(self) -> list[str]:
        """Who is kept together in these folds, as sentences."""
        warning_sentences = []
        if self.groups:
            warning_sentences.append(
                f"Participants who {describe_group_ties(self.groups, self.full_cohort.metadata)} are in one fold: "
                f"{join_group_names(self.groups)}."
            )
        if self.division.has_whole_sites:
            subject_arrays = make_subject_arrays(self.full_cohort.rows, self.groups)
            merged_sites = merge_linked_sites(subject_arrays)
            for merged_site in np.unique(merged_sites[merged_sites != subject_arrays.sites]):
                member_sites_text = join_names(np.unique(subject_arrays.sites[merged_sites == merged_site]).tolist())
                warning_sentences.append(
                    f"Sites {member_sites_text} are in one fold, since they have such participants in common."
                )
        return warning_sentences

    @property
    def fold_warnings(self) -> list[str]:
        """What a user must know of a run on these folds: who is kept together, and how the phenotype is scaled."""
        warning_sentences = self.division_warnings
        if not self.reduced_cohort_by_fold and self.full_cohort.unscaled_phenotype is None:
            warning_sentences.append(
                f"{self.full_cohort.path} has no phenotype.csv, so every fold uses the phenotype as it is stored. It "
                "was imputed and scaled on the training participants of the cohort's own split."
            )
        return warning_sentences

    def make_fold_cohort(self, fold_name: str) -> Cohort:
        """The cohort with this fold's subjects as test subjects; its phenotype is scaled again on all others."""
        if self.reduced_cohort_by_fold:
            return self.reduced_cohort_by_fold[fold_name]
        if fold_name not in self.cached_cohort_by_fold:
            split_by_subject = {
                subject: choose_split(fold, fold_name) for subject, fold in self.fold_by_subject.items()
            }
            self.cached_cohort_by_fold[fold_name] = resplit(self.full_cohort, split_by_subject)
        return self.cached_cohort_by_fold[fold_name]

    def resolve_fold_name(self, fold_name_or_number: str) -> str:
        """The fold that a user gives by its name, or by its number from 0. Raises InputError if there is none."""
        fold_names = self.fold_names
        if fold_name_or_number in fold_names:
            return fold_name_or_number
        if (fold_index := parse_natural_number(fold_name_or_number)) is not None and fold_index < len(fold_names):
            return fold_names[fold_index]
        raise InputError(
            f"--fold {fold_name_or_number} is none of the folds {join_names(fold_names)} (or 0 to "
            f"{len(fold_names) - 1})."
        )

    def write_folds(self, folder: Path) -> None:
        """Writes `folds.csv`, `folds.json` and their sums. Raises InputError as `check_same_folds` does."""
        self.check_same_folds(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tables.write_csv_rows(folder / FOLD_TABLE_FILE, FOLD_COLUMNS, self.fold_by_subject.items())
        files.write_json(folder / FOLDS_FILE, asdict(self.description))
        manifest.write_checksums(folder, [FOLDS_FILE, FOLD_TABLE_FILE])

    def check_same_folds(self, folder: Path) -> None:
        """Raises InputError if a training wrote other folds into a folder."""
        if (folder / FOLDS_FILE).is_file() and read_folds(folder) != (self.description, self.fold_by_subject):
            raise InputError(
                f"{folder / FOLD_TABLE_FILE} belongs to other data than {self.full_cohort.path}, to what these were "
                "before, or to another --seed; use another --chkPointDir."
            )


def choose_split(fold: str | None, tested_fold: str) -> str:
    return "test" if fold == tested_fold else "train"


def make_fold_folder_path(parent_folder: Path, fold_name: str) -> Path:
    """The folder of a fold's results, or of its reduced cohort."""
    return parent_folder / f"fold-{encode_folder_name(fold_name)}"


def open_folds(cohort_path: Path, folds_option: str, seed: int, checkpoint_folder: Path) -> Folds:
    """The folds of the cohort, or of the set of reduced cohorts, at `cohort_path`; those that a training wrote into
    the folder `checkpoint_folder` are used. Raises InputError if those are of another cohort, or the cohort cannot
    be divided like that."""
    if (cohort_path / FOLDS_FILE).is_file():
        folds = open_reduced_folds(cohort_path, folds_option, seed)
    else:
        cohort = open_run_cohort(cohort_path, unite_groups=False)
        folds = read_saved_folds(cohort, folds_option, seed, checkpoint_folder) or make_new_folds(
            add_subject_groups(cohort), folds_option, seed
        )
    folds.check_same_folds(checkpoint_folder)
    return folds


def open_repeat_folds(folds: Folds, seed: int, checkpoint_folder: Path) -> Folds:
    """The folds of another repeat, as `open_folds` opens them. Numbered ones are cut by another seed. Those of a column
    stay, and so do those of a set of reduced cohorts, to which encoders are bound."""
    if folds.are_numbered and not folds.reduced_cohort_by_fold:
        folds = read_saved_folds(folds.full_cohort, folds.folds_option, seed, checkpoint_folder) or make_new_folds(
            folds.full_cohort, folds.folds_option, seed
        )
    folds = replace(folds, seed=seed)
    folds.check_same_folds(checkpoint_folder)
    return folds


def check_seeds_suffice(seed: int, repeats: int) -> None:
    """Raises InputError if a seed leaves none for all repeats, each of which takes the next one."""
    if seed + repeats - 1 > MAX_SEED:
        raise InputError(f"--seed {seed} leaves no seeds for {repeats} repeats; use a smaller one.")


def read_saved_fold_seed(checkpoint_folder: Path) -> int:
    """The seed of the folds that a training has written into a folder; 0 if none has."""
    return read_folds(checkpoint_folder)[0].seed if (checkpoint_folder / FOLDS_FILE).is_file() else 0


def read_saved_folds(cohort: Cohort, folds_option: str, seed: int, checkpoint_folder: Path) -> Folds | None:
    """The folds that a training has written into the folder `checkpoint_folder`, with their groups; None if none
    has."""
    check_divisible(cohort)
    if not (checkpoint_folder / FOLDS_FILE).is_file():
        return None
    folds_description, fold_by_subject = read_folds(checkpoint_folder)
    return Folds(
        folds_option, replace(cohort, groups=folds_description.same_scan), cohort.identity, fold_by_subject, seed
    )


def make_new_folds(cohort: Cohort, folds_option: str, seed: int) -> Folds:
    """New folds of a cohort whose groups are known."""
    division = Division.parse_folds_option(folds_option)
    if division.column_name:
        fold_by_subject = divide_by_column(cohort, folds_option)
    elif division.has_whole_sites:
        fold_by_subject = divide_into_whole_sites(cohort, division.fold_count, seed)
    else:
        fold_by_subject = divide_into_numbered_folds(cohort, folds_option, seed)
    check_fold_classes(cohort, fold_by_subject)
    return Folds(folds_option, cohort, cohort.identity, fold_by_subject, seed)


def open_undivided_cohort(cohort_path: Path) -> Cohort:
    """The cohort with its groups, for folds that somebody else has made. Raises InputError if it cannot be divided."""
    cohort = open_run_cohort(cohort_path, unite_groups=False)
    check_divisible(cohort)
    return add_subject_groups(cohort)


def make_given_folds(cohort: Cohort, folds_option: str, fold_by_subject: Mapping[str, str], seed: int) -> Folds:
    """The folds that somebody else has made of all subjects of a cohort whose groups are known. Raises InputError if
    they cut a group in two, are of fewer than two people each, or leave one class to train on."""
    for group in cohort.groups:
        first_member_by_fold = {fold_by_subject[subject]: subject for subject in reversed(group)}
        if len(first_member_by_fold) > 1:
            member_texts = [f"{subject} (fold {fold_name})" for fold_name, subject in first_member_by_fold.items()]
            tie_text = describe_group_ties((group,), cohort.metadata)
            raise InputError(
                f"Participants of {cohort.path} who {tie_text} are in several folds: "
                f"{join_names(member_texts, MAX_GROUP_MEMBERS_LISTED)}; expected one, since a model that has seen one "
                "of them knows the other. Predict again with them in one fold."
            )
    fold_count = len(set(fold_by_subject.values()))
    if not 2 <= fold_count <= len(fold_by_subject) / 2:
        raise InputError(
            f"There are {fold_count} folds of {format_participants(len(fold_by_subject))}; expected two folds or more, "
            "of two participants or more on average. Predict again, such as in 10 folds."
        )
    check_fold_classes(cohort, fold_by_subject)
    return Folds(folds_option, cohort, cohort.identity, fold_by_subject, seed)


def check_divisible(cohort: Cohort, purpose: str = "folds") -> None:
    """Raises InputError if subjects of a cohort cannot change between training and test, or exchange their labels."""
    if unlabelled_subjects := [row.subject for row in cohort.rows if not row.is_labelled]:
        raise InputError(
            f"{cohort.path} has {len(unlabelled_subjects)} records without a label, {unlabelled_subjects[0]} among "
            f"them; {purpose} need one each."
        )
    label_and_site_by_subject = {row.subject: (row.label, row.site) for row in cohort.rows}
    if contradicted_subjects := sorted(
        {row.subject for row in cohort.rows if (row.label, row.site) != label_and_site_by_subject[row.subject]}
    ):
        raise InputError(
            f"{cohort.path} has two labels or sites for participant {join_names(contradicted_subjects)}; {purpose} "
            "need one. Correct the table."
        )
    if any("swap" in provenance for provenance in cohort.metadata.lineage):
        raise InputError(
            f"{cohort.path} was augmented by swapping regions between its training participants, so that a fold's test "
            "participants would be in its training records; use the cohort that it was made from."
        )


def read_folds(folder: Path) -> tuple[FoldsDescription, dict[str, str]]:
    """How folds were cut, and each subject's fold. Raises InputError if they are not as they were written."""
    manifest.verify_checksums(folder, [FOLDS_FILE, FOLD_TABLE_FILE])
    fold_rows = tables.read_csv_rows(folder / FOLD_TABLE_FILE, FOLD_COLUMNS).values()
    folds_description = files.read_json(folder / FOLDS_FILE, FoldsDescription)
    fold_by_subject = {fold_row["subject"]: fold_row["fold"] for fold_row in fold_rows}
    return folds_description, fold_by_subject


def open_reduced_folds(reduced_set_path: Path, folds_option: str, seed: int) -> Folds:
    """A set of reduced cohorts. Raises InputError if it is not as it was written, its folds are others, or it does not
    test each subject once."""
    manifest.verify_checksums(reduced_set_path, manifest.read_checksums(reduced_set_path))
    folds_description, fold_by_subject = read_folds(reduced_set_path)
    if folds_description.folds != folds_option:
        stored_flags = Division.parse_folds_option(folds_description.folds).option_flags
        requested_flags = Division.parse_folds_option(folds_option).option_flags
        raise InputError(
            f"{reduced_set_path} was reduced with {stored_flags}, this run has {requested_flags}; use the same."
        )

    cohort_by_fold = {}
    for fold_name in dict.fromkeys(fold_by_subject.values()):
        cohort = open_run_cohort(make_fold_folder_path(reduced_set_path, fold_name), unite_groups=False)
        cohort_by_fold[fold_name] = replace(cohort, groups=folds_description.same_scan)
    for fold_name, cohort in cohort_by_fold.items():
        split_by_subject = {row.subject: row.split for row in cohort.rows}
        expected_split_by_subject = {
            subject: choose_split(fold, fold_name) for subject, fold in fold_by_subject.items()
        }
        if split_by_subject != expected_split_by_subject:
            raise InputError(
                f"{cohort.path} does not test the fold {fold_name} of {reduced_set_path / FOLD_TABLE_FILE}. Repeat the "
                "full pass."
            )

    # The first cohort stands for the set; its verdict has the problems of all, once all are checked
    first_cohort = next(iter(cohort_by_fold.values()))
    verdict = first_cohort.check_verdict
    if verdict and all(cohort.check_verdict for cohort in cohort_by_fold.values()):
        distinct_problems = dict.fromkeys(
            problem for cohort in cohort_by_fold.values() for problem in cohort.find_problems(fold_by_subject)
        )
        verdict = replace(verdict, problems=tuple(distinct_problems))
    full_cohort = replace(first_cohort, path=reduced_set_path, check_verdict=verdict)
    return Folds(
        folds_option,
        full_cohort,
        manifest.compute_sums_file_sha256(reduced_set_path),
        fold_by_subject,
        seed,
        cohort_by_fold,
    )


def seal_reduced_set(reduced_set_path: Path) -> None:
    """Writes the sums of a set of reduced cohorts: of its folds, and of the sums of each cohort."""
    _, fold_by_subject = read_folds(reduced_set_path)
    cohort_sums_files = []
    for fold_name in dict.fromkeys(fold_by_subject.values()):
        cohort_folder = make_fold_folder_path(reduced_set_path, fold_name)
        cohort_sums_files.append(f"{cohort_folder.name}/{manifest.SUMS_FILE}")
    manifest.write_checksums(reduced_set_path, [FOLDS_FILE, FOLD_TABLE_FILE, *cohort_sums_files])


@dataclass(frozen=True)
class InnerFolds:
    """The training subjects of an outer fold, divided once more."""

    outer_cohort: Cohort  # of the outer fold
    inner_fold_by_subject: dict[str, str]  # of the outer fold's training subjects

    @property
    def fold_names(self) -> list[str]:
        return sorted(set(self.inner_fold_by_subject.values()), key=int)

    def find_tested_record_files(self, inner_fold_name: str) -> set[str]:
        """The records of those whom an inner fold tests."""
        return {
            row.file for row in self.outer_cohort.rows if self.inner_fold_by_subject.get(row.subject) == inner_fold_name
        }

    def make_inner_cohort(self, inner_fold_name: str, outer_cohort: Cohort) -> Cohort:
        """The cohort of the outer fold, as a model reads it, with an inner fold's subjects as test subjects. Those whom
        the outer fold tests are set aside."""
        split_by_subject = {
            subject: choose_split(fold, inner_fold_name) for subject, fold in self.inner_fold_by_subject.items()
        }
        return resplit(
            outer_cohort,
            {row.subject: split_by_subject.get(row.subject, cohort_rows.ASIDE_SPLIT) for row in outer_cohort.rows},
        )


def divide_into_inner_folds(folds: Folds, outer_cohort: Cohort, seed: int) -> InnerFolds:
    """The inner folds of the cohort of one of these folds. Raises InputError if its training subjects are too few."""
    training_cohort = replace(outer_cohort, rows=tuple(row for row in outer_cohort.rows if row.split == "train"))
    subject_arrays = make_subject_arrays(training_cohort.rows, training_cohort.groups)
    division = folds.division
    if division.column_name:
        max_fold_count = len({folds.fold_by_subject[subject] for subject in subject_arrays.subjects})
        limit_noun = f"value of {folds.folds_option}"
    elif division.has_whole_sites:
        max_fold_count = len(np.unique(merge_linked_sites(subject_arrays)))
        limit_noun = "site"
    else:
        max_fold_count = subject_arrays.smaller_class_size
        limit_noun = "participants of a class"
    fold_count = min(EFFORT.inner_folds, max_fold_count)
    if fold_count < MIN_INNER_FOLDS:
        raise InputError(
            f"--choose cuts the training participants of a fold into {MIN_INNER_FOLDS} inner folds at least. "
            f"Without one fold, {outer_cohort.path} has {fold_count} {limit_noun} left; use fewer or other --folds."
        )
    if division.column_name:
        inner_fold_by_subject = group_values_into_folds(training_cohort, folds, fold_count, seed)
    elif division.has_whole_sites:
        inner_fold_by_subject = divide_into_whole_sites(training_cohort, fold_count, seed)
    else:
        inner_fold_by_subject = divide_into_numbered_folds(training_cohort, str(fold_count), seed)
    check_fold_classes(training_cohort, inner_fold_by_subject, "inner fold")
    return InnerFolds(outer_cohort, inner_fold_by_subject)


def group_values_into_folds(training_cohort: Cohort, folds: Folds, fold_count: int, seed: int) -> dict[str, str]:
    """Subject -> inner fold, one of `fold_count` groups of values of the column, alike in size and in labels as far as
    that is possible."""
    subject_arrays = make_subject_arrays(training_cohort.rows, training_cohort.groups)
    outer_folds = [folds.fold_by_subject[subject] for subject in subject_arrays.subjects]
    can_stratify = min(Counter(subject_arrays.labels.tolist()).values()) >= fold_count
    strata = subject_arrays.labels if can_stratify else np.zeros(len(outer_folds))
    fold_numbers = assign_stratified_folds(strata, outer_folds, fold_count, seed)
    return dict(zip(subject_arrays.subjects, map(str, fold_numbers), strict=True))


def permute_labels(cohort: Cohort, random: np.random.Generator) -> dict[str, float]:
    """Subject -> label, drawn anew. Clusters exchange their labels within their site. The subjects of a group are one
    cluster: their labels go together to a cluster of as many subjects at the same sites; those of one site come in any
    order."""
    subjects, labels, sites, clusters = make_subject_arrays(cohort.rows, cohort.groups)
    subject_indices_by_cluster = defaultdict(list)
    for subject_index, cluster in enumerate(clusters.tolist()):
        subject_indices_by_cluster[cluster].append(subject_index)

    # Clusters at the same sites may be exchanged; the subjects of each are sorted by site
    exchangeable_clusters_by_sites = defaultdict(list)
    for subject_indices in subject_indices_by_cluster.values():
        indices_by_site = sorted(subject_indices, key=sites.__getitem__)
        exchangeable_clusters_by_sites[tuple(sorted(sites[subject_indices]))].append(indices_by_site)

    label_by_subject: dict[str, float] = {}
    for recipient_clusters in exchangeable_clusters_by_sites.values():
        donor_clusters = random.permutation(np.array(recipient_clusters))  # (clusters, subjects of each)
        for recipient_indices, donor_indices in zip(recipient_clusters, donor_clusters, strict=True):
            if len(recipient_indices) > 1:
                donor_indices = sorted(random.permutation(donor_indices), key=sites.__getitem__)
            for recipient_index, donor_index in zip(recipient_indices, donor_indices, strict=True):
                label_by_subject[subjects[recipient_index]] = float(labels[donor_index])
    return label_by_subject


def permute_control_labels(cohort: Cohort, seed: int) -> Cohort:
    """The cohort, whose groups are known, with labels of a negative control: permuted, see `permute_labels`. Folds or a
    split that were made by the true labels stay. Raises InputError if somebody has no label, or two."""
    check_divisible(cohort, "permuted labels")
    true_label_by_subject = {row.subject: row.label for row in cohort.rows}
    relabelled_cohort = cohort.relabel(permute_labels(cohort, np.random.default_rng(seed)))
    return replace(relabelled_cohort, control=ControlLabels(seed, true_label_by_subject))


def permute_folds(folds: Folds, seed: int, permutation_number: int) -> Folds:
    """The folds of the cohort with permuted labels; `permutation_number` selects one permutation of a seed. Numbered
    folds are cut anew by these labels, as before by the true ones. Others, and those of reduced cohorts, stay; so do
    whole sites, which have as many of both labels as before."""
    label_by_subject = permute_labels(folds.full_cohort, np.random.default_rng((seed, permutation_number)))
    permuted_cohort = folds.full_cohort.relabel(label_by_subject)
    fold_by_subject = folds.fold_by_subject
    if folds.are_numbered and not (folds.division.has_whole_sites or folds.reduced_cohort_by_fold):
        fold_by_subject = divide_into_numbered_folds(permuted_cohort, folds.folds_option, seed)
    check_fold_classes(permuted_cohort, fold_by_subject)
    permuted_cohort_by_fold = {
        fold_name: cohort.relabel(label_by_subject) for fold_name, cohort in folds.reduced_cohort_by_fold.items()
    }
    return Folds(
        folds.folds_option, permuted_cohort, folds.identity, fold_by_subject, folds.seed, permuted_cohort_by_fold
    )
