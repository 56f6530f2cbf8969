"""How often a control accuses honest predictions, and finds leaks and predictions of the true labels.

`python tests/benchmarks/controls.py [--real NPZ] [--only TEXT] [--sets 300] [--few 20] [--seed 0] [--table CSV]`

A cohort has sites of unequal size and share of autism, and features that a few factors correlate; where features are
chosen by a leak, it has thousands, of noise. Labels are permuted
within sites, and predicted in ten folds, stratified by the true labels and sites, or in folds of one site each. With
`--real`, people, features and true labels come from a file of NumPy arrays: `features` (n, d), `label` and `site` (n,).
Each set then takes people of some of its sites.

honest       A ridge regression, a support vector machine with a Gaussian kernel, or a logistic regression of features
             chosen in each fold, fitted to the labels of the control. With a signal, the features tell the true labels;
             with few, three of the features do so alone.
everybody    Features are chosen by the labels of everybody, before folds.
over folds   Each fold chooses among the features that earlier folds, which trained on its people, have left.
true labels  A ridge regression fitted to the true labels.

Prints for each scenario how often p is at most 0.05 and 0.001, each verdict, and the mean AUCs. Honest scenarios have
`--sets` cohorts, of 100, 200 and 300 people in turn where these are mixed, the others `--few`. The sets of a scenario
have the seeds `--seed` and up. `--table` adds the counts to a CSV file, with 95 % intervals (Wilson).
"""

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.stats import binomtest
from sklearn.feature_selection import f_classif
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from utils.scores.conclusion import ControlResult, ControlVerdict
from utils.scores.control import ACCUSING_P, measure_control
from utils.scores.metrics import Predictions
from utils.scores.statistics import permute_within_sites

ROOT = Path(__file__).resolve().parents[2]
MIXED_PEOPLE = (100, 200, 300)
MANY_PEOPLE = 700
FACTOR_COUNT, FEATURE_COUNT, CONNECTION_COUNT = 8, 300, 5000
PEOPLE_PER_SITE, MIN_SITES = 35, 4  # of simulated cohorts
SITE_LEVEL, PENALTY = 0.7, 300.0
HONEST_FEATURES, LEAKED_FEATURES = 20, 100  # that are chosen
FIRST_LEFT_FEATURES, LEFT_SHARE = 1000, 0.7  # that the first fold leaves, and the share that each later one does
# in SD of a feature, over all: an AUC of about 0.7
SPREAD_SEPARATION_BY_PEOPLE = {300: 1.95, 700: 1.35}
FEW_FEATURES = 3
FEW_SEPARATION_BY_PEOPLE = {300: 0.75, 700: 0.6}  # of each of these
SIGNIFICANT_P = 0.05

Cohort = tuple[np.ndarray, np.ndarray, np.ndarray]  # features (people, features), true label and site (people,)
Design = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # features, label, fold -> scores (people,)


@dataclass(frozen=True)
class Scenario:
    """Cohorts of so many people in turn, and how their labels are predicted."""

    title: str
    design: Design
    people: tuple[int, ...]
    has_site_folds: bool
    is_honest: bool = True
    feature_count: int = FEATURE_COUNT
    factor_count: int = FACTOR_COUNT  # that correlate the features
    site_level: float = SITE_LEVEL  # SD over sites of the level of a feature
    signal: str = ""  # spread or few
    is_fitted_to_true_labels: bool = False


def list_scenarios() -> Iterator[Scenario]:
    designs = {"ridge": fit_ridge, "Gaussian kernel": fit_kernel, "chosen in folds": choose_in_folds}
    leaks = {"everybody": choose_on_everybody, "over folds": choose_over_folds}
    people_by_words = {"100": (100,), "200 to 300": (200, 300)}
    for has_site_folds, fold_words in ((False, "ten folds"), (True, "sites held out")):
        for name, design in designs.items():
            yield Scenario(f"honest, {name}, {fold_words}", design, MIXED_PEOPLE, has_site_folds)
        for (name, design), (people_words, people) in product(leaks.items(), people_by_words.items()):
            yield Scenario(
                f"leak, {name}, {people_words} people, {fold_words}",
                design,
                people,
                has_site_folds,
                is_honest=False,
                feature_count=CONNECTION_COUNT,
                factor_count=0,
                site_level=0.0,
            )
        for people, signal in product(SPREAD_SEPARATION_BY_PEOPLE, ("spread", "few")):
            words = f"{signal} signal, {people} people, {fold_words}"
            yield Scenario(f"honest, {words}", fit_ridge, (people,), has_site_folds, signal=signal)
            yield Scenario(
                f"true labels, {words}",
                fit_ridge,
                (people,),
                has_site_folds,
                is_honest=False,
                signal=signal,
                is_fitted_to_true_labels=True,
            )


def list_real_scenarios() -> Iterator[Scenario]:
    """Those whose signal is the features' own, which may be none."""
    for scenario in list_scenarios():
        if scenario.signal != "few":
            yield scenario


def measure_set(scenario: Scenario, seed: int, real_cohort: Cohort | None) -> ControlResult:
    random = np.random.default_rng([seed, 69])
    people = scenario.people[seed % len(scenario.people)]
    if real_cohort is None:
        features, label, site = simulate_cohort(scenario, people, random)
    else:
        features, label, site = draw_people(real_cohort, people, random)
    fold = site.astype(str) if scenario.has_site_folds else divide_into_ten(label, site, seed)
    (control_order,) = permute_within_sites(np.arange(people), site, 1, random)
    control_label = label[control_order]

    standard_features = StandardScaler().fit_transform(features)
    fitted_label = label if scenario.is_fitted_to_true_labels else control_label
    scores = scenario.design(standard_features, fitted_label, fold)
    prediction_table = pd.DataFrame(
        {"subject": np.arange(people), "label": control_label, "probability": scores, "site": site, "fold": fold}
    )
    return measure_control(Predictions.from_tables(prediction_table), label, seed)


def simulate_cohort(scenario: Scenario, people: int, random: np.random.Generator) -> Cohort:
    site_count = max(MIN_SITES, people // PEOPLE_PER_SITE)
    site_weights = 1 / np.sqrt(np.arange(1, site_count + 1))
    site = random.choice(site_count, people, p=site_weights / site_weights.sum())
    autism_share_by_site = random.uniform(0.3, 0.7, site_count)
    label = (random.random(people) < autism_share_by_site[site]).astype(float)

    feature_count = scenario.feature_count
    factors = random.normal(size=(people, scenario.factor_count)) * np.geomspace(1, 0.3, scenario.factor_count)
    features = factors @ random.normal(size=(scenario.factor_count, feature_count))
    features += random.normal(size=(people, feature_count))
    features += scenario.site_level * random.normal(size=(site_count, feature_count))[site]
    if scenario.signal == "spread":
        directions = random.choice([-1, 1], feature_count) / np.sqrt(feature_count)
        features += SPREAD_SEPARATION_BY_PEOPLE[people] * directions * (label[:, None] - 0.5)
    elif scenario.signal == "few":
        features = np.hstack([features, random.normal(size=(people, FEW_FEATURES))])
        features[:, -FEW_FEATURES:] += FEW_SEPARATION_BY_PEOPLE[people] * (label[:, None] - 0.5)
    return features, label, site


def draw_people(cohort: Cohort, people: int, random: np.random.Generator) -> Cohort:
    """People of sites in random order, as many as are wanted; those left out are of any of these sites."""
    features, label, site = cohort
    is_chosen = np.zeros(len(label), bool)
    for site_name in random.permutation(np.unique(site)):
        is_chosen |= site == site_name
        if is_chosen.sum() >= people:
            break
    chosen_indices = np.sort(random.permutation(np.flatnonzero(is_chosen))[:people])
    return features[chosen_indices], label[chosen_indices], site[chosen_indices]


def divide_into_ten(label: np.ndarray, site: np.ndarray, seed: int) -> np.ndarray:
    strata = [f"{person_label} {person_site}" for person_label, person_site in zip(label, site, strict=True)]
    fold = np.zeros(len(label), int)
    splitter = StratifiedKFold(10, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # a small site cannot be everywhere
        for fold_number, (_, tested_indices) in enumerate(splitter.split(label, strata)):
            fold[tested_indices] = fold_number
    return fold


def fit_ridge(features: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    kernel = features @ features.T
    scores = np.zeros(len(label))
    for is_tested in split_folds(fold):
        mean_label = label[~is_tested].mean()
        model = KernelRidge(alpha=PENALTY, kernel="precomputed")
        model.fit(kernel[np.ix_(~is_tested, ~is_tested)], label[~is_tested] - mean_label)
        scores[is_tested] = mean_label + model.predict(kernel[np.ix_(is_tested, ~is_tested)])
    return scores


def split_folds(fold: np.ndarray) -> Iterator[np.ndarray]:
    """Who is tested in each fold (people,) bool."""
    for fold_name in np.unique(fold):
        yield fold == fold_name


def fit_kernel(features: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    kernel = np.exp(-cdist(features, features, "sqeuclidean") / features.shape[1])
    scores = np.zeros(len(label))
    for is_tested in split_folds(fold):
        model = SVC(kernel="precomputed").fit(kernel[np.ix_(~is_tested, ~is_tested)], label[~is_tested])
        scores[is_tested] = model.decision_function(kernel[np.ix_(is_tested, ~is_tested)])
    return scores


def choose_in_folds(features: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    scores = np.zeros(len(label))
    for is_tested in split_folds(fold):
        chosen_features = rank_features(features[~is_tested], label[~is_tested])[:HONEST_FEATURES]
        scores[is_tested] = fit_logistic(features[:, chosen_features], label, is_tested)
    return scores


def rank_features(features: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Columns of features, those that differ most between the classes first."""
    f_values, _ = f_classif(features, label)
    return np.argsort(-np.nan_to_num(f_values))


def fit_logistic(features: np.ndarray, label: np.ndarray, is_tested: np.ndarray) -> np.ndarray:
    model = LogisticRegression(C=0.1, max_iter=300).fit(features[~is_tested], label[~is_tested])
    return model.decision_function(features[is_tested])


def choose_on_everybody(features: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    features = features[:, rank_features(features, label)[:LEAKED_FEATURES]]
    scores = np.zeros(len(label))
    for is_tested in split_folds(fold):
        scores[is_tested] = fit_logistic(features, label, is_tested)
    return scores


def choose_over_folds(features: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    scores = np.zeros(len(label))
    left_features = np.arange(features.shape[1])
    left_count = FIRST_LEFT_FEATURES
    for is_tested in split_folds(fold):
        best_first = rank_features(features[~is_tested][:, left_features], label[~is_tested])
        left_features = left_features[best_first[:left_count]]
        left_count = max(int(LEFT_SHARE * left_count), LEAKED_FEATURES)
        scores[is_tested] = fit_logistic(features[:, left_features], label, is_tested)
    return scores


def count_verdicts(results: list[ControlResult]) -> dict[str, int]:
    """How many sets have a small p, and each verdict, by their name in a table."""
    return {
        f"p <= {SIGNIFICANT_P}": sum(result.p is not None and result.p <= SIGNIFICANT_P for result in results),
        f"p <= {ACCUSING_P}": sum(result.p is not None and result.p <= ACCUSING_P for result in results),
        **{str(verdict): sum(result.verdict == verdict for result in results) for verdict in ControlVerdict},
    }


def make_table_rows(case: str, scenario: Scenario, counts: dict[str, int], sets: int, seed: int) -> Iterator[dict]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    for measure, count in counts.items():
        interval = binomtest(count, sets).proportion_ci(method="wilson")
        yield {
            "case": case,
            "measure": measure,
            "value": round(100 * count / sets, 1),
            "low": round(100 * interval.low, 1),
            "high": round(100 * interval.high, 1),
            "unit": "%",
            "participants": " to ".join(dict.fromkeys(map(str, (scenario.people[0], scenario.people[-1])))),
            "sets": sets,
            "seed": f"{seed} to {seed + sets - 1}",
            "commit": commit.stdout.strip(),
            "command": "python tests/benchmarks/controls.py",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, metavar="NPZ", help="features, label and site of real people")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios with this text in their title")
    parser.add_argument("--sets", type=int, default=300, help="cohorts of each honest scenario (default 300)")
    parser.add_argument("--few", type=int, default=20, help="cohorts of each other scenario (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort of each scenario (default 0)")
    parser.add_argument("--table", type=Path, metavar="CSV", help="to which the counts are added")
    args = parser.parse_args()
    real_cohort = None
    if args.real:
        arrays = np.load(args.real)
        real_cohort = arrays["features"], arrays["label"].astype(float), arrays["site"]

    for scenario in list_real_scenarios() if args.real else list_scenarios():
        if args.only not in scenario.title:
            continue
        sets = args.sets if scenario.is_honest else args.few
        results = [measure_set(scenario, seed, real_cohort) for seed in range(args.seed, args.seed + sets)]
        counts = count_verdicts(results)
        auc = np.nanmean(np.array([result.auc for result in results], float))
        true_label_auc = np.nanmean(np.array([result.true_label_auc for result in results], float))
        case = f"{args.real.stem}, {scenario.title}" if args.real else scenario.title
        counts_text = ", ".join(f"{measure}: {count}" for measure, count in counts.items())
        print(f"{case}: {sets} sets; AUC {auc:.3f}, of true labels {true_label_auc:.3f}; {counts_text}", flush=True)
        if args.table:
            rows = pd.DataFrame(make_table_rows(case, scenario, counts, sets, args.seed))
            rows.to_csv(args.table, mode="a", header=not args.table.exists(), index=False)


if __name__ == "__main__":
    main()
