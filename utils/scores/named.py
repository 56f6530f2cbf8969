"""Names of baselines and what a model reads -> the baseline that the verdict rests on, named before any score is
known."""

from collections.abc import Sequence
from dataclasses import dataclass

from utils.scores.baselines import CONNECTOME_FEATURE_KIND, LOGISTIC, MEAN_OF_BRANCHES, MEAN_OF_SVMS, RIDGE, SVM
from utils.scores.results import MAJORITY_BASELINE, OTHER_BASELINE_ROLE, PRESPECIFIED_ROLE

INPUT_BY_FEATURE_WORD = {
    "covariates": "covariates",
    "phenotype": "phenotype",
    "regions": "maps",
    CONNECTOME_FEATURE_KIND: "connectome",
}  # what a baseline reads, by a word of its name
FEATURE_KINDS_WITHIN_ALL = (
    "covariates",
    "phenotype",
    "regions",
)  # what baselines of `all` read, if there are baselines of these alone
INPUTS_IF_UNKNOWN = ("volume", "phenotype", "connectome")  # of a model; covariates are tested by themselves
CLASSIFIER_PREFERENCE_ORDER = (
    MEAN_OF_BRANCHES,
    MEAN_OF_SVMS,
    SVM,
    RIDGE,
    LOGISTIC,
)  # of classifiers of the same features, the one to be named first


@dataclass(frozen=True)
class PrespecifiedBaseline:
    """A baseline, what it `lacks` of what the model reads, and what it reads `besides`."""

    name: str  # of the baseline, such as "regions, SVM"
    lacks: list[str]  # inputs of the model that the baseline does not read
    besides: list[str]  # inputs that the baseline reads and the model does not


def choose_prespecified_baseline(
    baseline_names: Sequence[str], model_inputs: Sequence[str]
) -> PrespecifiedBaseline | None:
    """The one of the baselines that reads what a model with these inputs reads. If there are several, the one whose
    classifier comes first in `CLASSIFIER_PREFERENCE_ORDER`; if there is none, the one that lacks the fewest inputs,
    and of these the one that reads the least besides. None if no baseline reads any of the inputs. Without
    `model_inputs` these are not known, and `INPUTS_IF_UNKNOWN` stand for them; what the baseline lacks is not known
    either."""
    are_inputs_known = bool(model_inputs)
    needed_inputs = ["maps" if name == "volume" else name for name in model_inputs or INPUTS_IF_UNKNOWN]
    split_name_by_baseline = {baseline_name: baseline_name.partition(", ") for baseline_name in baseline_names}
    feature_kinds_within_all = [
        feature_kind for feature_kind, *_ in split_name_by_baseline.values() if feature_kind in FEATURE_KINDS_WITHIN_ALL
    ]
    rank_by_classifier = {name: rank for rank, name in enumerate(CLASSIFIER_PREFERENCE_ORDER)}
    sort_keys_and_baselines = []
    for baseline_name, (feature_kind, _, classifier) in split_name_by_baseline.items():
        feature_words = " ".join(feature_kinds_within_all) if feature_kind == "all" else feature_kind
        baseline_inputs = [
            input_name for feature_word, input_name in INPUT_BY_FEATURE_WORD.items() if feature_word in feature_words
        ]
        lacking_inputs = [input_name for input_name in needed_inputs if input_name not in baseline_inputs]
        extra_inputs = [input_name for input_name in baseline_inputs if input_name not in needed_inputs]
        if len(lacking_inputs) < len(needed_inputs):
            sort_key = (
                len(lacking_inputs),
                len(extra_inputs),
                rank_by_classifier.get(classifier, len(rank_by_classifier)),
            )
            sort_keys_and_baselines.append(
                (sort_key, PrespecifiedBaseline(baseline_name, lacking_inputs, extra_inputs))
            )
    if not sort_keys_and_baselines:
        return None
    _, best_baseline = min(sort_keys_and_baselines, key=lambda key_and_baseline: key_and_baseline[0])
    return best_baseline if are_inputs_known else PrespecifiedBaseline(best_baseline.name, [], [])


def assign_baseline_roles(baseline_row_names: Sequence[str], model_inputs: Sequence[str]) -> dict[str, str]:
    """Of the rows of `baselines.csv` that are baselines, which is pre-specified, and which are the others."""
    baseline_names = [baseline_name for baseline_name in baseline_row_names if baseline_name != MAJORITY_BASELINE]
    prespecified_baseline = choose_prespecified_baseline(baseline_names, model_inputs)
    return {
        baseline_name: PRESPECIFIED_ROLE
        if prespecified_baseline and baseline_name == prespecified_baseline.name
        else OTHER_BASELINE_ROLE
        for baseline_name in baseline_names
    }
