"""What a cohort can conclude, before anybody trains: people, sites and relatives -> two sentences."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from data.base.thresholds import CHANCE_AUC, CONFIDENCE_LEVEL, MIN_CLASS_SUBJECTS, POWER
from data.cohorts.division import (
    USUAL_FOLD_COUNT,
    WHOLE_SITES,
    Division,
    SubjectArrays,
    assign_balanced_folds,
    assign_site_folds,
    make_subject_arrays,
    merge_linked_sites,
)
from data.cohorts.groups import SubjectGroups
from data.cohorts.peers import MAX_LOST_SUBJECT_SHARE, find_peer_groups, mark_records_in_mixed_groups
from data.cohorts.rows import RecordRow, is_swapped_file
from data.tables.vocabulary import SITE_UNKNOWN_SENTENCE, find_recorded_sites

CANDIDATE_AUCS = np.linspace(CHANCE_AUC, 0.99, 491)  # the AUCs among which one is looked for
PLANNED_PEOPLE_COUNTS = (
    100,
    200,
    400,
    663,
)  # training people; the AUC that mmnn reached with each number is below, see docs/understand/planning.md
# at PLANNED_PEOPLE_COUNTS
MMNN_AUCS_BY_DATA = {"with connectomes": (0.66, 0.73, 0.78, 0.81), "without connectomes": (0.64, 0.71, 0.74, 0.78)}
CLEAR_AUC_DIFFERENCE = 0.02  # by which an AUC must be less for other folds to be advised
POWER_TEXT = "in 8 of 10 such studies, if that is the true one"
MORE_PEOPLE_ADVICE = "join them with others"


class TestDesign(NamedTuple):
    """How people are tested, whom the AUC compares, within what, and how many train."""

    design_name: str  # the options of run.py, or words
    compared_people_count: int
    comparison_scope: str  # such as "within 5 sites"
    training_people_count: float  # per fold; 0 if others train
    least_auc: float  # that is shown to be better than chance; inf if none is, NaN without an interval


def make_forecast(
    rows: Sequence[RecordRow],
    groups: SubjectGroups,
    folds_option: str = "",
    fold_by_subject: Mapping[str, str] | None = None,
    connectome_name: str = "",
) -> list[str]:
    """Two sentences: what can be shown, and what to do. They are about the folds of `folds_option`, if
    `fold_by_subject` is given; else about `--folds 10` with seed 0, and folds of whole sites or `--folds site`; without
    training people, about a model of others. `connectome_name` is empty for a cohort without one. No sentences if a
    label is unknown or regions were swapped, which folds refuse."""
    if not rows or not all(row.is_labelled and not is_swapped_file(row.file) for row in rows):
        return []
    subject_arrays = make_subject_arrays(rows, groups)
    folds_by_design = dict[str, np.ndarray | None]({"a model of other participants": None})
    if any(row.split == "train" for row in rows):
        folds_by_design = make_usual_folds(subject_arrays)
    requested_folds_by_design = (
        {
            Division.parse_folds_option(folds_option).option_flags: np.array(
                [fold_by_subject[name] for name in subject_arrays.subjects]
            )
        }
        if fold_by_subject
        else folds_by_design
    )
    designs = [
        assess_design(name, subject_arrays, fold_per_subject)
        for name, fold_per_subject in (requested_folds_by_design | folds_by_design | requested_folds_by_design).items()
    ]
    best_design = choose_best_design(designs)
    requested_designs = [
        design for design in designs if design.design_name in requested_folds_by_design or design is best_design
    ]
    designs_text = "; ".join(map(describe_design, requested_designs)) or "no folds are possible"
    power_text = f" ({POWER_TEXT})" if any(np.isfinite(design.least_auc) for design in requested_designs) else ""
    site_unknown_text = "" if find_recorded_sites(subject_arrays.sites) else f"{SITE_UNKNOWN_SENTENCE}; "
    advice_text = f"{site_unknown_text}{advise_design(best_design, connectome_name)}."
    return [f"{designs_text}{power_text}.", advice_text[0].upper() + advice_text[1:]]


def make_usual_folds(subject_arrays: SubjectArrays) -> dict[str, np.ndarray | None]:
    """The folds that are possible, by their flags: numbered ones, then those that hold sites out. The latter are
    numbered, too, if that compares more people and there are sites enough."""
    folds_by_design: dict[str, np.ndarray | None] = {}
    subjects, labels, sites, clusters = subject_arrays
    if (fold_count := min(USUAL_FOLD_COUNT, subject_arrays.smaller_class_size)) > 1:
        numbered_folds = folds_by_design[f"--folds {fold_count}"] = assign_balanced_folds(
            labels, sites, clusters, fold_count, 0
        )
        merged_sites = merge_linked_sites(subject_arrays)
        if len(np.unique(merged_sites)) >= fold_count:
            whole_site_folds = assign_site_folds(labels, merged_sites, fold_count, 0)
            compares_more = (
                assess_design("", subject_arrays, whole_site_folds).compared_people_count
                > assess_design("", subject_arrays, numbered_folds).compared_people_count
            )
            if compares_more and trains_on_both_classes(labels, whole_site_folds):
                return folds_by_design | {
                    Division.parse_folds_option(f"{fold_count}{WHOLE_SITES}").option_flags: whole_site_folds
                }
    site_by_subject = dict(zip(subjects, sites, strict=True))
    cluster_sites = np.array([site_by_subject[first_subject] for first_subject in clusters])
    if 1 < len(np.unique(cluster_sites)) <= len(subjects) / 2 and trains_on_both_classes(labels, cluster_sites):
        folds_by_design["--folds site"] = cluster_sites
    return folds_by_design


def trains_on_both_classes(labels: np.ndarray, folds: np.ndarray) -> bool:
    """Whether people outside of each fold are of both classes; both are (n,)."""
    return all(len(np.unique(labels[folds != fold_name])) == 2 for fold_name in np.unique(folds))


def assess_design(design_name: str, subject_arrays: SubjectArrays, subject_folds: np.ndarray | None) -> TestDesign:
    """The design in which subjects are tested in folds (n,), or by one model if they are None, and compared as
    `utils.scores.metrics` does."""
    _, subject_labels, subject_sites, clusters = subject_arrays
    has_single_site = len(np.unique(subject_sites)) == 1
    folds_or_zeros = np.zeros(len(subject_labels)) if subject_folds is None else subject_folds
    peer_groups = folds_or_zeros if has_single_site else find_peer_groups(subject_labels, subject_sites, subject_folds)
    is_comparable = mark_records_in_mixed_groups(subject_labels, peer_groups)
    site_count = len(np.unique(subject_sites[is_comparable]))
    comparison_scope = f"within {site_count} site{'s'[: site_count != 1]}"
    if has_single_site:
        comparison_scope = "in all" if subject_folds is None else "within folds"
    least_auc = np.nan
    if (
        min(len(np.unique(clusters[is_comparable & (subject_labels == class_label)])) for class_label in (0, 1))
        >= MIN_CLASS_SUBJECTS
    ):
        # autism, then controls: people in each group
        class_counts = [
            np.unique(peer_groups[is_comparable & (subject_labels == class_label)], return_counts=True)[1]
            for class_label in (1, 0)
        ]
        least_auc = compute_least_auc(
            np.array(class_counts), len(clusters) / len(np.unique(clusters)), subject_folds is not None
        )
    return TestDesign(
        design_name,
        int(is_comparable.sum()),
        comparison_scope,
        len(subject_labels) * (1 - 1 / len(np.unique(folds_or_zeros))),
        least_auc,
    )


def compute_least_auc(class_counts: np.ndarray, people_per_cluster: float, is_in_folds: bool) -> float:
    """The true AUC from which on 8 of 10 studies are called better than chance; infinite if none up to 0.99 is enough.

    `class_counts` (2, groups) are the people of each class in each group, `people_per_cluster` is how many people a
    cluster has. The variance is that of Hanley & McNeil (1982, Radiology 143:29), in folds twice as large. The interval
    is widened as that of a run. Resamples may lack a class of a small group; the share of those that do not enters by
    its root, see docs/understand/planning.md.
    """
    (autism_counts, control_counts), group_sizes, candidate_aucs = (
        class_counts,
        class_counts.sum(0),
        CANDIDATE_AUCS[:, None],
    )
    autism_variance_term = (autism_counts - 1) * (candidate_aucs / (2 - candidate_aucs) - candidate_aucs**2)
    control_variance_term = (control_counts - 1) * (2 * candidate_aucs**2 / (1 + candidate_aucs) - candidate_aucs**2)
    # (candidate AUCs, groups)
    auc_variances = (
        people_per_cluster
        * (group_sizes / group_sizes.sum()) ** 2
        * (candidate_aucs * (1 - candidate_aucs) + autism_variance_term + control_variance_term)
        / (autism_counts * control_counts)
    )
    lost_subject_share = (
        min(2 * len(group_sizes) * people_per_cluster / group_sizes.sum(), MAX_LOST_SUBJECT_SHARE) if is_in_folds else 0
    )
    root_presence_probability = np.sqrt(np.prod(1 - np.exp(-class_counts), axis=0))
    interval_se, estimate_se = (
        np.sqrt((1 + is_in_folds) * variances.sum(1))
        for variances in (auc_variances / root_presence_probability / (1 - lost_subject_share), auc_variances)
    )
    standard_normal = NormalDist()
    significant_estimates = CANDIDATE_AUCS[
        CANDIDATE_AUCS - standard_normal.inv_cdf((1 + CONFIDENCE_LEVEL) / 2) * interval_se > CHANCE_AUC
    ]  # estimates that are called better than chance
    sufficient_aucs = CANDIDATE_AUCS[
        CANDIDATE_AUCS - standard_normal.inv_cdf(POWER) * estimate_se >= min(significant_estimates, default=np.inf)
    ]
    return float(min(sufficient_aucs, default=np.inf))


def describe_design(design: TestDesign) -> str:
    """Whom a design compares, and what it shows."""
    comparison_text = f"{design.design_name} compares {design.compared_people_count} {design.comparison_scope}"
    if np.isnan(design.least_auc):
        return f"{comparison_text}, too few for an interval"
    return (
        f"{comparison_text} and shows "
        f"{'no AUC' if np.isinf(design.least_auc) else f'an AUC of {design.least_auc:.2f} or more'}"
    )


def choose_best_design(designs: Sequence[TestDesign]) -> TestDesign | None:
    """The first design, unless another shows clearly more; None if none shows anything."""
    if not any(np.isfinite(design.least_auc) for design in designs):
        return None
    least_auc_by_design = dict(
        zip(designs, np.nan_to_num([design.least_auc for design in designs], nan=np.inf), strict=True)
    )
    return min(
        designs, key=lambda design: least_auc_by_design[design] + CLEAR_AUC_DIFFERENCE * (design is not designs[0])
    )


def advise_design(best_design: TestDesign | None, connectome_name: str) -> str:
    if best_design is None:
        return f"too few participants for a conclusion: {MORE_PEOPLE_ADVICE}"
    if not best_design.training_people_count:
        return "expect a conclusion only if the model's own test had a higher AUC"
    clipped_training_count = np.clip(
        best_design.training_people_count, PLANNED_PEOPLE_COUNTS[0], PLANNED_PEOPLE_COUNTS[-1]
    )
    connectome_words = f"with{'' if connectome_name else 'out'} connectomes"
    reached_auc = np.interp(
        np.log(clipped_training_count), np.log(PLANNED_PEOPLE_COUNTS), MMNN_AUCS_BY_DATA[connectome_words]
    )
    reached_text = (
        f"mmnn {connectome_words} reached {reached_auc:.2f} when trained on {clipped_training_count:.0f} participants "
        "of ABIDE I"
    )
    if reached_auc >= best_design.least_auc:
        return f"use {best_design.design_name}; {reached_text}"
    return f"use {best_design.design_name}, but expect no conclusion, since {reached_text}: {MORE_PEOPLE_ADVICE}"
