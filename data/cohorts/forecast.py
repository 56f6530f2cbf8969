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
# Numbers of training people, and the AUC that mmnn reached with each, see docs/understand/planning.md
PLANNED_PEOPLE_COUNTS = (100, 200, 400, 663)
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
    usual_folds_by_design: dict[str, np.ndarray | None] = {"a model of other participants": None}
    if any(row.split == "train" for row in rows):
        usual_folds_by_design = make_usual_folds(subject_arrays)

    requested_folds_by_design = usual_folds_by_design
    if fold_by_subject:
        requested_flags = Division.parse_folds_option(folds_option).option_flags
        requested_folds = np.array([fold_by_subject[subject] for subject in subject_arrays.subjects])
        requested_folds_by_design = {requested_flags: requested_folds}

    # Requested designs come first, and are not replaced by usual ones of the same name
    folds_by_design = requested_folds_by_design | usual_folds_by_design | requested_folds_by_design
    designs = [
        assess_design(design_name, subject_arrays, subject_folds)
        for design_name, subject_folds in folds_by_design.items()
    ]
    best_design = choose_first_or_clearly_better_design(designs)

    described_designs = [
        design for design in designs if design.design_name in requested_folds_by_design or design is best_design
    ]
    designs_text = "; ".join(map(describe_design, described_designs)) or "no folds are possible"
    power_text = f" ({POWER_TEXT})" if any(np.isfinite(design.least_auc) for design in described_designs) else ""
    site_unknown_text = "" if find_recorded_sites(subject_arrays.sites) else f"{SITE_UNKNOWN_SENTENCE}; "
    advice_text = f"{site_unknown_text}{advise_design(best_design, connectome_name)}."
    return [f"{designs_text}{power_text}.", advice_text[0].upper() + advice_text[1:]]


def make_usual_folds(subject_arrays: SubjectArrays) -> dict[str, np.ndarray | None]:
    """The folds that are possible, by their flags: numbered ones, then those that hold sites out. The latter are
    numbered, too, if that compares more people and there are sites enough."""
    folds_by_design: dict[str, np.ndarray | None] = {}
    subjects, labels, sites, clusters = subject_arrays
    fold_count = min(USUAL_FOLD_COUNT, subject_arrays.smaller_class_size)
    if fold_count > 1:
        numbered_folds = assign_balanced_folds(labels, sites, clusters, fold_count, 0)
        folds_by_design[f"--folds {fold_count}"] = numbered_folds

        merged_sites = merge_linked_sites(subject_arrays)
        if len(np.unique(merged_sites)) >= fold_count:
            whole_site_folds = assign_site_folds(labels, merged_sites, fold_count, 0)
            whole_site_design = assess_design("", subject_arrays, whole_site_folds)
            numbered_design = assess_design("", subject_arrays, numbered_folds)
            compares_more = whole_site_design.compared_people_count > numbered_design.compared_people_count
            if compares_more and trains_on_both_classes(labels, whole_site_folds):
                whole_site_flags = Division.parse_folds_option(f"{fold_count}{WHOLE_SITES}").option_flags
                folds_by_design[whole_site_flags] = whole_site_folds
                return folds_by_design

    site_by_subject = dict(zip(subjects, sites, strict=True))
    cluster_sites = np.array([site_by_subject[first_subject] for first_subject in clusters])  # (subjects,)
    has_several_sites = 1 < len(np.unique(cluster_sites)) <= len(subjects) / 2
    if has_several_sites and trains_on_both_classes(labels, cluster_sites):
        folds_by_design["--folds site"] = cluster_sites
    return folds_by_design


def trains_on_both_classes(labels: np.ndarray, folds: np.ndarray) -> bool:
    """Whether people outside of each fold are of both classes; both are (n,)."""
    return all(len(np.unique(labels[folds != fold_name])) == 2 for fold_name in np.unique(folds))


def assess_design(design_name: str, subject_arrays: SubjectArrays, subject_folds: np.ndarray | None) -> TestDesign:
    """The design in which subjects are tested in folds (n,), or by one model if they are None, and compared as
    `utils.scores.metrics` does."""
    _, subject_labels, subject_sites, clusters = subject_arrays
    folds_or_zeros = np.zeros(len(subject_labels)) if subject_folds is None else subject_folds
    has_single_site = len(np.unique(subject_sites)) == 1
    peer_groups = folds_or_zeros if has_single_site else find_peer_groups(subject_labels, subject_sites, subject_folds)
    is_comparable = mark_records_in_mixed_groups(subject_labels, peer_groups)

    site_count = len(np.unique(subject_sites[is_comparable]))
    comparison_scope = f"within {site_count} site{'s'[: site_count != 1]}"
    if has_single_site:
        comparison_scope = "in all" if subject_folds is None else "within folds"

    comparable_control_mask = is_comparable & (subject_labels == 0)
    comparable_autism_mask = is_comparable & (subject_labels == 1)
    control_cluster_count = len(np.unique(clusters[comparable_control_mask]))
    autism_cluster_count = len(np.unique(clusters[comparable_autism_mask]))
    least_auc = np.nan
    if min(control_cluster_count, autism_cluster_count) >= MIN_CLASS_SUBJECTS:
        _, autism_counts = np.unique(peer_groups[comparable_autism_mask], return_counts=True)
        _, control_counts = np.unique(peer_groups[comparable_control_mask], return_counts=True)
        class_counts = np.array([autism_counts, control_counts])  # (2, peer groups)
        people_per_cluster = len(clusters) / len(np.unique(clusters))
        least_auc = compute_least_auc(class_counts, people_per_cluster, subject_folds is not None)

    training_people_count = len(subject_labels) * (1 - 1 / len(np.unique(folds_or_zeros)))
    return TestDesign(design_name, int(is_comparable.sum()), comparison_scope, training_people_count, least_auc)


def compute_least_auc(class_counts: np.ndarray, people_per_cluster: float, is_in_folds: bool) -> float:
    """The true AUC from which on 8 of 10 studies are called better than chance; infinite if none up to 0.99 is enough.

    `class_counts` (2, groups) are the people of each class in each group, `people_per_cluster` is how many people a
    cluster has. The variance is that of Hanley & McNeil (1982, Radiology 143:29), in folds twice as large. The interval
    is widened as that of a run. Resamples may lack a class of a small group; the share of those that do not enters by
    its root, see docs/understand/planning.md.
    """
    autism_counts, control_counts = class_counts  # (groups,)
    group_sizes = class_counts.sum(0)
    candidate_aucs = CANDIDATE_AUCS[:, None]

    autism_variance_term = (autism_counts - 1) * (candidate_aucs / (2 - candidate_aucs) - candidate_aucs**2)
    control_variance_term = (control_counts - 1) * (2 * candidate_aucs**2 / (1 + candidate_aucs) - candidate_aucs**2)
    auc_variances = (
        people_per_cluster
        * (group_sizes / group_sizes.sum()) ** 2
        * (candidate_aucs * (1 - candidate_aucs) + autism_variance_term + control_variance_term)
        / (autism_counts * control_counts)
    )  # (candidate AUCs, groups)

    lost_subject_share = 0.0
    if is_in_folds:
        small_group_share = 2 * len(group_sizes) * people_per_cluster / group_sizes.sum()
        lost_subject_share = min(small_group_share, MAX_LOST_SUBJECT_SHARE)
    root_presence_probability = np.sqrt(np.prod(1 - np.exp(-class_counts), axis=0))  # (groups,)
    interval_variances = auc_variances / root_presence_probability / (1 - lost_subject_share)

    variance_factor = 2 if is_in_folds else 1
    interval_se = np.sqrt(variance_factor * interval_variances.sum(1))  # (candidate AUCs,)
    estimate_se = np.sqrt(variance_factor * auc_variances.sum(1))  # (candidate AUCs,)

    # The least estimate whose interval is above chance, and the least true AUC whose estimate is so high often enough
    interval_z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)
    power_z = NormalDist().inv_cdf(POWER)
    significant_estimates = CANDIDATE_AUCS[CANDIDATE_AUCS - interval_z * interval_se > CHANCE_AUC]
    least_significant_estimate = min(significant_estimates, default=np.inf)
    sufficient_aucs = CANDIDATE_AUCS[CANDIDATE_AUCS - power_z * estimate_se >= least_significant_estimate]
    return float(min(sufficient_aucs, default=np.inf))


def describe_design(design: TestDesign) -> str:
    """Whom a design compares, and what it shows."""
    comparison_text = f"{design.design_name} compares {design.compared_people_count} {design.comparison_scope}"
    if np.isnan(design.least_auc):
        return f"{comparison_text}, too few for an interval"
    auc_text = "no AUC" if np.isinf(design.least_auc) else f"an AUC of {design.least_auc:.2f} or more"
    return f"{comparison_text} and shows {auc_text}"


def choose_first_or_clearly_better_design(designs: Sequence[TestDesign]) -> TestDesign | None:
    """The first design, unless another shows a clearly lower AUC; None if none shows any."""
    conclusive_designs = [design for design in designs if np.isfinite(design.least_auc)]
    if not conclusive_designs:
        return None
    first_design = designs[0]
    most_sensitive_design = min(conclusive_designs, key=lambda design: design.least_auc)
    is_clearly_better = most_sensitive_design.least_auc + CLEAR_AUC_DIFFERENCE < first_design.least_auc
    if is_clearly_better or np.isnan(first_design.least_auc):
        return most_sensitive_design
    return first_design


def advise_design(best_design: TestDesign | None, connectome_name: str) -> str:
    """Which folds to use, and whether to expect a conclusion: whether mmnn, trained on as many people of ABIDE I,
    reached an AUC that the design shows."""
    if best_design is None:
        return f"too few participants for a conclusion: {MORE_PEOPLE_ADVICE}"
    if not best_design.training_people_count:
        return "expect a conclusion only if the model's own test had a higher AUC"

    # mmnn's AUC at this number of training people, interpolated on a logarithmic axis
    mmnn_training_count = np.clip(
        best_design.training_people_count, PLANNED_PEOPLE_COUNTS[0], PLANNED_PEOPLE_COUNTS[-1]
    )
    mmnn_data_text = "with connectomes" if connectome_name else "without connectomes"
    mmnn_auc = np.interp(np.log(mmnn_training_count), np.log(PLANNED_PEOPLE_COUNTS), MMNN_AUCS_BY_DATA[mmnn_data_text])

    mmnn_result_text = (
        f"mmnn {mmnn_data_text} reached {mmnn_auc:.2f} when trained on {mmnn_training_count:.0f} participants of "
        "ABIDE I"
    )
    if mmnn_auc >= best_design.least_auc:
        return f"use {best_design.design_name}; {mmnn_result_text}"
    return f"use {best_design.design_name}, but expect no conclusion, since {mmnn_result_text}: {MORE_PEOPLE_ADVICE}"
