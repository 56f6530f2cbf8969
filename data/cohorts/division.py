"""Ways to divide the subjects of a cohort: into numbered folds, of participants or of whole sites, or by a column."""

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from data.base.errors import InputError, parse_natural_number
from data.base.listing import join_names
from data.base.terminal import format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.groups import SubjectGroups, describe_group_ties, find_group_leaders, merge_groups
from data.cohorts.rows import RecordRow

SITE_COLUMN = "site"  # of subjects.csv
USUAL_FOLD_COUNT = 10  # where the classes are large enough
UNKNOWN_FOLD = "unknown"  # of subjects whose value of a covariate is missing
WHOLE_SITES = "-wholeSites"  # ends the name of numbered folds of whole sites
FROM_FILE = "-fromFile"  # ends the name of folds that a file of predictions brings


@dataclass(frozen=True)
class Division:
    """How people are divided: into numbered folds, of participants or of whole sites, by a column, or as a file of
    predictions says."""

    fold_count: int  # 0 if a column divides
    has_whole_sites: bool  # whether folds are of whole sites
    column_name: str  # of `covariates.csv`, or site; empty if no column divides
    is_from_file: bool = False  # whether a file of predictions says who is in which fold

    @classmethod
    def parse_folds_option(cls, folds_option: str) -> "Division":
        """`10`, `10-wholeSites`, `10-fromFile` or a column, as `folds` in `run.json` has it."""
        file_fold_count = parse_natural_number(folds_option.removesuffix(FROM_FILE))
        if folds_option.endswith(FROM_FILE) and file_fold_count is not None:
            return cls(file_fold_count, False, "", is_from_file=True)
        fold_count = parse_natural_number(folds_option.removesuffix(WHOLE_SITES))
        if fold_count is None:
            return cls(0, False, folds_option)
        return cls(fold_count, folds_option.endswith(WHOLE_SITES), "")

    @property
    def option_flags(self) -> str:
        """The options of run.py that say it."""
        if self.is_from_file:
            return "--predictions"
        return f"--folds {self.column_name or self.fold_count}{' --wholeSites' if self.has_whole_sites else ''}"

    @property
    def holds_groups_out(self) -> bool:
        """Whether each person is predicted by a model that has seen nobody of the same site, or value of a column."""
        return self.has_whole_sites or bool(self.column_name)

    @property
    def division_text(self) -> str:
        """How people are left out."""
        if self.column_name:
            return f"leaving out one {self.column_name} at a time"
        if self.is_from_file:
            return f"in {self.fold_count} folds of a file of predictions"
        return f"in {self.fold_count} folds{' of whole sites' if self.has_whole_sites else ''}"


def check_division_flags(folds: str, whole_sites: bool) -> None:
    """Raises InputError unless the values of `--folds` and `--wholeSites` go together."""
    division = Division.parse_folds_option(folds)
    if division.is_from_file:
        raise InputError(f"--folds {folds} is the name of a folder; such folds come with the file of --predictions.")
    if folds.endswith(WHOLE_SITES):
        raise InputError(f"--folds {folds} is the name of a folder; write {division.option_flags}.")
    if whole_sites and division.column_name:
        raise InputError(
            f"--wholeSites goes with a number of folds, as in --folds 10, not with --folds {folds}; leave it out."
        )


class SubjectArrays(NamedTuple):
    """Subjects in the order of their first record, with their label and site, (n,) each; and their cluster (n,), the
    group that is in one fold, named by its first subject."""

    subjects: list[str]
    labels: np.ndarray  # (n,), 1 autism, 0 control
    sites: np.ndarray  # (n,) names
    clusters: np.ndarray  # (n,), the first subject of the group that is in one fold

    @property
    def smaller_class_size(self) -> int:
        """How many subjects it has; a cluster counts once, as its first subject."""
        cluster_labels = self.labels[self.clusters == np.array(self.subjects)]
        return min(int(np.count_nonzero(cluster_labels == class_label)) for class_label in (0, 1))

    @property
    def fold_advice(self) -> str:
        """Which number of folds is possible."""
        if self.smaller_class_size < 2:
            return (
                f"Folds take two participants of each class; the smaller class has {self.smaller_class_size}. Add "
                "others."
            )
        return f"Use --folds {min(USUAL_FOLD_COUNT, self.smaller_class_size)}."


def make_subject_arrays(rows: Iterable[RecordRow], groups: SubjectGroups) -> SubjectArrays:
    first_row_by_subject = {row.subject: row for row in reversed([*rows])}
    subjects = list(dict.fromkeys(row.subject for row in rows))
    labels = np.array([first_row_by_subject[subject].label for subject in subjects])
    sites = np.array([first_row_by_subject[subject].site for subject in subjects])
    clusters = np.array(list(find_group_leaders(subjects, groups).values()))
    return SubjectArrays(subjects, labels, sites, clusters)


def divide_into_numbered_folds(cohort: Cohort, folds_option: str, seed: int) -> dict[str, str]:
    """Subject -> fold. There are `folds_option` folds, 0, 1, ..., in proportion over labels and sites; a group is in
    one."""
    subject_arrays = make_subject_arrays(cohort.rows, cohort.groups)
    fold_count = int(folds_option)
    smaller_class_size = subject_arrays.smaller_class_size
    if not 2 <= fold_count <= smaller_class_size:
        advice_text = subject_arrays.fold_advice
        if smaller_class_size > 1:
            smaller_class_text = format_participants(smaller_class_size)
            advice_text = f"Its smaller class has {smaller_class_text}; expected 2 to {smaller_class_size}."
        raise InputError(f"--folds {folds_option} cannot cut {cohort.path}. {advice_text}")
    fold_numbers = assign_balanced_folds(
        subject_arrays.labels, subject_arrays.sites, subject_arrays.clusters, fold_count, seed
    )
    return dict(zip(subject_arrays.subjects, map(str, fold_numbers), strict=True))


def assign_balanced_folds(
    labels: np.ndarray, sites: np.ndarray, clusters: np.ndarray, fold_count: int, seed: int
) -> np.ndarray:
    """The number of the fold of each of n people, in proportion over labels and sites; a cluster is in one fold."""
    strata = np.array(
        [f"{subject_label} {subject_site}" for subject_label, subject_site in zip(labels, sites, strict=True)]
    )
    if max(Counter(strata.tolist()).values()) < fold_count:  # scikit-learn needs a stratum that can be in every fold
        strata = labels
    return assign_stratified_folds(strata, clusters, fold_count, seed)


def divide_into_whole_sites(cohort: Cohort, fold_count: int, seed: int) -> dict[str, str]:
    """Subject -> fold. There are `fold_count` folds, 0, 1, ..., of whole sites; sites that share a group are in one."""
    subject_arrays = make_subject_arrays(cohort.rows, cohort.groups)
    merged_sites = merge_linked_sites(subject_arrays)
    site_count = len(np.unique(merged_sites))
    if not 2 <= fold_count <= site_count:
        merged_text = (
            ", of which those that share participants count once"
            if site_count < len(np.unique(subject_arrays.sites))
            else ""
        )
        advice_text = f"expected several. {subject_arrays.fold_advice}"
        if site_count > 1:
            advice_text = f"expected 2 to {site_count}. Use --folds {site_count} --wholeSites."
        raise InputError(
            f"--folds {fold_count} --wholeSites cannot cut {cohort.path}. It has {site_count} "
            f"site{'s'[: site_count != 1]}{merged_text}; {advice_text}"
        )
    fold_numbers = assign_site_folds(subject_arrays.labels, merged_sites, fold_count, seed)
    return dict(zip(subject_arrays.subjects, map(str, fold_numbers), strict=True))


def merge_linked_sites(subject_arrays: SubjectArrays) -> np.ndarray:
    """The site of each person (n,); of sites that share a family or a scan, the first."""
    sites_by_cluster: dict[str, set[str]] = {}
    for cluster, site_name in zip(subject_arrays.clusters.tolist(), subject_arrays.sites.tolist(), strict=True):
        sites_by_cluster.setdefault(cluster, set()).add(site_name)
    linked_site_groups = [
        sorted(cluster_sites) for cluster_sites in sites_by_cluster.values() if len(cluster_sites) > 1
    ]
    site_names = np.unique(subject_arrays.sites).tolist()
    first_site_by_site = find_group_leaders(site_names, merge_groups(linked_site_groups))
    return np.array([first_site_by_site[site_name] for site_name in subject_arrays.sites.tolist()])


def assign_site_folds(labels: np.ndarray, sites: np.ndarray, fold_count: int, seed: int) -> np.ndarray:
    """The number of the fold of each of n people, of whole sites: the largest first, each goes to the fold that has
    fewest of the people that it adds, by class and in all. The seed orders sites of one size.

    scikit-learn's StratifiedGroupKFold takes large sites with as many of both classes last: ten folds of sites of 16 to
    150 people then had 55 to 178, these 65 to 150.
    """
    site_names, site_indices = np.unique(sites, return_inverse=True)
    subset_masks = (labels == 0, labels == 1, np.ones(len(labels)))
    site_counts = np.stack(
        [np.bincount(site_indices, subset_mask, len(site_names)) for subset_mask in subset_masks], axis=1
    )  # (sites, subsets): controls, autism, all
    subset_weights = 1 / np.maximum(site_counts.sum(0), 1) ** 2

    shuffled_sites = np.random.default_rng(seed).permutation(len(site_names))
    site_indices_by_size = shuffled_sites[np.argsort(-site_counts[shuffled_sites, -1], kind="stable")]
    fold_by_site = np.zeros(len(site_names), int)
    fold_counts = np.zeros((fold_count, len(subset_masks)))  # (folds, subsets), people so far
    for site_index in site_indices_by_size:
        fold_by_site[site_index] = np.argmin(fold_counts @ (subset_weights * site_counts[site_index]))
        fold_counts[fold_by_site[site_index]] += site_counts[site_index]
    return fold_by_site[site_indices]


def assign_stratified_folds(
    strata: np.ndarray, clusters: Sequence[str] | np.ndarray, fold_count: int, seed: int
) -> np.ndarray:
    """The number of the fold of each of n people, in proportion over strata; a cluster is in one fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold_numbers = np.zeros(len(strata), int)
    splitter = StratifiedGroupKFold(fold_count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # a small site cannot be everywhere
        for fold_number, (_, tested_indices) in enumerate(splitter.split(strata, strata, clusters)):
            fold_numbers[tested_indices] = fold_number
    return fold_numbers


def divide_by_column(cohort: Cohort, folds_option: str) -> dict[str, str]:
    """A fold for each value of a column of `covariates.csv`, or for each site. A group goes to the fold of its first
    subject, which is printed."""
    subject_arrays = make_subject_arrays(cohort.rows, cohort.groups)
    covariates = cohort.covariates
    value_by_subject = dict(zip(subject_arrays.subjects, subject_arrays.sites.tolist(), strict=True))
    if covariates is not None and folds_option in covariates:
        value_by_subject = covariates[folds_option].replace("", UNKNOWN_FOLD).to_dict()
        unknown_count = (covariates[folds_option] == "").sum()
        if unknown_count:
            print(
                f"{folds_option} is not known of {format_participants(unknown_count)}, in a fold of their own, "
                f"{UNKNOWN_FOLD}."
            )
    elif folds_option != SITE_COLUMN:
        covariate_columns = [] if covariates is None else covariates.columns
        available_columns_text = join_names(list(dict.fromkeys([SITE_COLUMN, *covariate_columns])))
        raise InputError(
            f"--folds {folds_option} is neither a number nor a column of {cohort.path}; it has "
            f"{available_columns_text}."
        )

    fold_by_subject = {
        subject: value_by_subject[first_subject]
        for subject, first_subject in zip(subject_arrays.subjects, subject_arrays.clusters.tolist(), strict=True)
    }
    move_texts = [
        f"{moved_subject} ({value_by_subject[moved_subject]}) to {fold}"
        for moved_subject, fold in fold_by_subject.items()
        if fold != value_by_subject[moved_subject]
    ]
    if move_texts:
        moved_sentence = (
            f"Participants who {describe_group_ties(cohort.groups, cohort.metadata)} with one of another {folds_option}"
        )
        print(f"{moved_sentence}, and are tested there: {join_names(move_texts)}.")

    fold_names = sorted(set(fold_by_subject.values()))
    if not 2 <= len(fold_names) <= len(fold_by_subject) / 2:
        raise InputError(
            f"--folds {folds_option} has {len(fold_names)} values among {format_participants(len(fold_by_subject))} of "
            f"{cohort.path}, {join_names(fold_names, 3)}; expected two groups or more. {subject_arrays.fold_advice}"
        )
    return fold_by_subject


def check_fold_classes(cohort: Cohort, fold_by_subject: Mapping[str, str], fold_noun: str = "fold") -> None:
    """Raises InputError if a fold would be trained on one class; `fold_noun` is what the message calls it."""
    label_by_subject = {row.subject: row.label for row in cohort.rows}
    for fold_name in dict.fromkeys(fold_by_subject.values()):
        training_labels = {label_by_subject[subject] for subject, fold in fold_by_subject.items() if fold != fold_name}
        if len(training_labels) < 2:
            advice = make_subject_arrays(cohort.rows, cohort.groups).fold_advice
            raise InputError(
                f"Without {fold_noun} {fold_name}, {cohort.path} has one class only; cut it otherwise. {advice}"
            )


def encode_folder_name(fold_name: str) -> str:
    """A fold's name as the name of a folder, whatever characters a site's name has."""
    return quote(fold_name, safe=" ()+,").replace(".", "%2E", fold_name.startswith("."))
