"""Names of baselines and what a network reads -> the baseline that the verdict rests on, named before any score is
known."""

from collections.abc import Sequence
from dataclasses import dataclass

from utils.scores.baselines import CONNECTOME_FEATURES, LOGISTIC, MEAN_OF_BRANCHES, MEAN_OF_SVMS, RIDGE, SVM
from utils.scores.results import MAJORITY_BASELINE, PRESPECIFIED_ROLE, SECONDARY_ROLE

INPUT_BY_FEATURE_WORD = {
    "covariates": "covariates",
    "phenotype": "phenotype",
    "regions": "maps",
    CONNECTOME_FEATURES: "connectome",
}  # what a baseline reads, by a word of its name
KINDS_WITHIN_ALL = (
    "covariates",
    "phenotype",
    "regions",
)  # what baselines of `all` read, if there are baselines of these alone
CLASSIFIERS_BY_STRENGTH = (
    MEAN_OF_BRANCHES,
    MEAN_OF_SVMS,
    SVM,
    RIDGE,
    LOGISTIC,
)  # of classifiers of the same features, the one to be named first


@dataclass(frozen=True)
class PrespecifiedBaseline:
    """A baseline, what it `lacks` of what the network reads, and what it reads `besides`."""

    name: str
    lacks: list[str]
    besides: list[str]


def choose_prespecified_baseline(
    baseline_names: Sequence[str], network_inputs: Sequence[str]
) -> PrespecifiedBaseline | None:
    """The one of the baselines that reads what a network with these inputs reads. If there are several, the one whose
    classifier comes first in `CLASSIFIERS_BY_STRENGTH`; if there is none, the one that lacks the fewest inputs, and of
    these the one that reads the least besides. None if no baseline reads any of the inputs."""
    needed_inputs = ["maps" if name == "volume" else name for name in network_inputs]
    split_name_by_baseline = {baseline: baseline.partition(", ") for baseline in baseline_names}
    kinds_within_all = [
        feature_kind for feature_kind, *_ in split_name_by_baseline.values() if feature_kind in KINDS_WITHIN_ALL
    ]
    rank_by_classifier = {name: rank for rank, name in enumerate(CLASSIFIERS_BY_STRENGTH)}
    ranked_baselines = []
    for baseline, (feature_kind, _, classifier) in split_name_by_baseline.items():
        feature_words = " ".join(kinds_within_all) if feature_kind == "all" else feature_kind
        read_inputs = [
            input_name for feature_word, input_name in INPUT_BY_FEATURE_WORD.items() if feature_word in feature_words
        ]
        lacking_inputs, extra_inputs = (
            [input_name for input_name in needed_inputs if input_name not in read_inputs],
            [input_name for input_name in read_inputs if input_name not in needed_inputs],
        )
        if len(lacking_inputs) < len(needed_inputs):
            sort_key = (
                len(lacking_inputs),
                len(extra_inputs),
                rank_by_classifier.get(classifier, len(rank_by_classifier)),
            )
            ranked_baselines.append((sort_key, PrespecifiedBaseline(baseline, lacking_inputs, extra_inputs)))
    return min(ranked_baselines, key=lambda ranked_baseline: ranked_baseline[0])[1] if ranked_baselines else None


def assign_baseline_roles(row_names: Sequence[str], network_inputs: Sequence[str]) -> dict[str, str]:
    """Of the rows of `baselines.csv` that are baselines, which is pre-specified, and which are the others."""
    baseline_names = [baseline for baseline in row_names if baseline != MAJORITY_BASELINE]
    prespecified = choose_prespecified_baseline(baseline_names, network_inputs)
    return {
        baseline: PRESPECIFIED_ROLE if prespecified and baseline == prespecified.name else SECONDARY_ROLE
        for baseline in baseline_names
    }
