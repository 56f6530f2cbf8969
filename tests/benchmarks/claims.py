"""How often claims of reports and blackouts are right where the truth is known: simulated outputs and effects.

`python tests/benchmarks/claims.py [--only TEXT] [--sets 300] [--seed 0] [--table CSV]`

unequal     Effects are skewed, and larger at sites with more autism; nothing differs, or one region does.
estimator   A classifier is fitted in three folds, and each column replaced by that of two donors: skewed columns,
            three tenths with autism, more at some sites, and age, which goes with it and is carried by a column.
halves      One of 40 regions differs; how often it is significant, and with half of the participants, too.
motion      Head motion goes with the diagnosis. The output follows the diagnosis alone, or motion alone.
reliability The output follows a covariate that the diagnosis goes with, and that is measured with error; also the
            diagnosis. A claim that names a reliability above the true one is right.
curve       The output follows the square of age, up in men and down in women; also the diagnosis.
triple      The output follows a product of three covariates, or of four.
difference  Two ridge regressions, trained in ten folds, equally good, or one by the minimum detectable difference.
forecast    A model of the AUC that a forecast calls enough for 8 of 10 studies, trained anew for each of them.
sets        Sets of labels in ten folds, by models that know how common autism is at each site.
tiny        The AUC within 40 sites of 3 to 8 participants, of ten folds and of ten folds of whole sites.

Each scenario calls the program's own functions on made-up people and prints how often something is claimed, with its
95 % interval (Wilson), or of shares of people their mean. `--table` adds these rows to a CSV file. The sets of a
scenario have the seeds `--seed` and up.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest, norm, zscore
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.coverage import FEATURES, tested

from data.cohorts.division import SubjectArrays, assign_balanced_folds, assign_site_folds
from data.cohorts.forecast import assess_design
from utils.blackout.effects import CovariateAdjuster, run_family_permutation_test
from utils.blackout.families import FillEffect
from utils.blackout.fills import FILLS, RELIANCE_FILL
from utils.blackout.people import BlackoutPeople
from utils.blackout.replication import REPLICATION_THRESHOLD, replicate_in_halves
from utils.evaluation.confounds import correlate_within_diagnosis, make_covariate_result, measure_confounds
from utils.predictors.estimator import CLIPPED_PROBABILITY
from utils.scores.adjustment import Adjustment, make_adjustment
from utils.scores.calibration import COVERAGE_LEVELS, calibrate_left_out_groups
from utils.scores.conclusion import CARRIES_MORE, MODEL_BETTER, NO_DIFFERENCE, judge_auc_difference
from utils.scores.metrics import (
    Predictions,
    average_scores_over_repeats,
    choose_headline_metric,
    compute_aucs,
    estimate_score_differences,
    estimate_scores,
    estimate_statistics_with_intervals,
)
from utils.scores.results import CHANCE_AUC, FAMILYWISE_ALPHA, find_detectable_difference

ROOT = Path(__file__).resolve().parents[2]
Claims = dict[str, bool | float]  # of one set: what is claimed, or a share of people; NaN is left out
TWO_MODELS = {  # people, sites, share of features: separations of equal models, and of a better and a worse one
    (150, 5, 0.0): ((2.3, 2.3), (2.85, 1.63)),  # chosen on seeds below 5000
    (300, 5, 0.0): ((1.95, 1.95), (2.32, 1.54)),
    (300, 5, 0.5): ((1.95, 1.95), (2.26, 1.63)),
}
LARGE_SITES, NOISY = 5, 100  # sites where they are few; features of a classifier, of which one tells the diagnosis
ESTIMATOR_COLUMN_COUNT, ESTIMATOR_FOLD_COUNT, ESTIMATOR_DONOR_COUNT = 20, 3, 2
ESTIMATOR_BY_KIND = {
    "linear": make_pipeline(StandardScaler(), LogisticRegression(C=0.1)),
    "kernel": make_pipeline(StandardScaler(), SVC()),
    "boosted trees": HistGradientBoostingClassifier(max_iter=20, max_depth=2, random_state=0),
    "single tree": DecisionTreeClassifier(max_depth=3, min_samples_leaf=5, random_state=0),
}
REGION_COUNT, HALVES_REGION_COUNT, PERMUTATION_COUNT, SPLIT_COUNT = 20, 40, 199, 20


def unequal_sites(largest: float, planted: float, seed: int, people: int = 240, sites: int = 8) -> Claims:
    """Effects are log-normal, and `largest` times as large at the site of most autism (76 %) as at that of least
    (24 %). Of the first region the label adds `planted` to them."""
    random = np.random.default_rng([seed, 1])
    site = np.arange(people) % sites
    label = (random.random(people) < np.linspace(0.24, 0.76, sites)[site]).astype(float)
    effect_scale = np.geomspace(1, largest, sites)[site]
    on_autism = effect_scale[:, None] * (random.lognormal(size=(people, REGION_COUNT)) - np.exp(0.5))
    on_autism[:, 0] += planted * effect_scale * (label - label.mean())
    covariates = pd.DataFrame({"site": site.astype(str).astype(object), "age": random.gamma(2, 3, people)})
    adjusted = CovariateAdjuster(make_adjustment(covariates), label)((2 * label[:, None] - 1) * on_autism)
    claims: Claims = {}
    for people_phrase, permutation_site in (("all participants", None), ("participants of a site", site)):
        p = run_family_permutation_test(
            adjusted, seed, permutation_count=PERMUTATION_COUNT, permutation_sites=permutation_site
        ).family_wise_p
        claims[f"another region significant: labels permuted among {people_phrase}"] = bool(
            p[1:].min() < FAMILYWISE_ALPHA
        )
        if planted:
            claims[f"the one that differs significant: labels permuted among {people_phrase}"] = bool(
                p[0] < FAMILYWISE_ALPHA
            )
    return claims


def black_out_estimator(kind: str, planted: float, seed: int, people: int = 240, sites: int = 6) -> Claims:
    """Columns are log-normal; the second carries age, and the label adds `planted` to the first. Donors are training
    people of the same site."""
    random = np.random.default_rng([seed, 5])
    site, age = random.integers(sites, size=people), zscore(random.gamma(2, 3, people))
    risk = 1.2 * age + random.normal(size=sites)[site] + random.logistic(size=people)
    label = (risk > np.quantile(risk, 0.7)).astype(float)
    columns = random.lognormal(size=(people, ESTIMATOR_COLUMN_COUNT)) + random.normal(0, 0.3, sites)[site][:, None]
    columns[:, 0] += planted * label
    columns[:, 1] += age

    fold = assign_balanced_folds(label, site.astype(str), np.arange(people), ESTIMATOR_FOLD_COUNT, seed)
    on_autism = np.empty(columns.shape)
    for tested_fold in range(ESTIMATOR_FOLD_COUNT):
        train, tested = np.flatnonzero(fold != tested_fold), np.flatnonzero(fold == tested_fold)
        estimator = clone(ESTIMATOR_BY_KIND[kind]).fit(columns[train], label[train])
        donors = np.array(
            [random.choice(train[site[train] == site[person]], ESTIMATOR_DONOR_COUNT) for person in tested]
        )
        for column in range(ESTIMATOR_COLUMN_COUNT):
            replaced = np.repeat(columns[tested], ESTIMATOR_DONOR_COUNT, axis=0)
            replaced[:, column] = columns[donors.ravel(), column]
            falls = compute_log_odds(estimator, np.repeat(columns[tested], ESTIMATOR_DONOR_COUNT, axis=0))
            falls -= compute_log_odds(estimator, replaced)
            on_autism[tested, column] = falls.reshape(len(tested), ESTIMATOR_DONOR_COUNT).mean(1)

    covariates = pd.DataFrame({"site": site.astype(str).astype(object), "age": age})
    adjuster = CovariateAdjuster(make_adjustment(covariates), label)
    everybody = BlackoutPeople(
        subject_labels=label,
        subject_sites=site.astype(str),
        subject_folds=fold.astype(str),
        subject_cluster_numbers=np.arange(people),
        adjuster=adjuster,
        resampling_seed=seed,
        is_cross_fitted=True,
    )
    fill = next(fill for fill in FILLS if fill.fill_name == RELIANCE_FILL)
    p = FillEffect(fill, (2 * label[:, None] - 1) * on_autism, everybody, adjuster).family_wise_p
    claims: Claims = {
        "a column that differs in nothing but age significant": bool(p[1:].min() < FAMILYWISE_ALPHA),
        "effects that are exactly zero": float(np.mean(on_autism == 0)),
    }
    if planted:
        claims["the one that differs significant"] = bool(p[0] < FAMILYWISE_ALPHA)
    return claims


def compute_log_odds(estimator: BaseEstimator, columns: np.ndarray) -> np.ndarray:
    """As those of the user's estimators: the decision function, or the logit of the clipped probability."""
    if hasattr(estimator, "decision_function"):
        return estimator.decision_function(columns)
    probability = estimator.predict_proba(columns)[:, 1]
    return logit(np.clip(probability, CLIPPED_PROBABILITY, 1 - CLIPPED_PROBABILITY))


def in_halves(planted: float, seed: int, people: int = 200) -> Claims:
    """Effects are normal; the first differs by `planted` standard errors of its mean."""
    random = np.random.default_rng([seed, 2])
    label = (np.arange(people) % 2).astype(float)
    effect = random.normal(size=(people, HALVES_REGION_COUNT))
    effect[:, 0] += planted / np.sqrt(people)
    single_site, single_clusters = np.full(people, "A"), np.arange(people)
    adjusted = CovariateAdjuster(Adjustment(no_adjustment_reason="no covariates"), label)
    everybody = BlackoutPeople(
        subject_labels=label,
        subject_sites=single_site,
        subject_folds=single_site,
        subject_cluster_numbers=single_clusters,
        adjuster=adjusted,
        resampling_seed=seed,
    )
    fill = next(fill for fill in FILLS if fill.fill_name == RELIANCE_FILL)
    names = [str(region) for region in range(HALVES_REGION_COUNT)]
    rows = replicate_in_halves("regions", names, FillEffect(fill, effect, everybody, adjusted), SPLIT_COUNT).set_index(
        "thing"
    )
    if "0" not in rows.index or not rows.loc["0", "significant"]:
        return {"significant": False}
    return {
        "significant": True,
        "if so, with half of the participants, too": bool(rows.loc["0", "replicates"] > REPLICATION_THRESHOLD),
        "if so, the chance of that as it is printed": float(rows.loc["0", "expected"]),
    }


def draw_people(random: np.random.Generator, people: int, sites: int = 6) -> tuple[np.ndarray, pd.DataFrame]:
    """Site, and age, head motion and IQ in standard deviations, sex as -1 and 1."""
    site = random.integers(sites, size=people)
    covariates = pd.DataFrame(random.normal(size=(people, 3)), columns=["age", "motion", "iq"])
    return site, covariates.assign(sex=np.where(random.random(people) < 0.8, 1, -1))


def draw_labels(risk: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return (random.random(len(risk)) < expit(risk)).astype(float)


def make_covariate_table(covariates: pd.DataFrame) -> pd.DataFrame:
    """Covariates as a cohort has them, text by subject."""
    sex = np.where(covariates["sex"] > 0, "M", "F")
    number_columns = {
        "age": 20 + 5 * covariates["age"],
        "func_mean_fd": np.exp(covariates["motion"] / 2),
        "FIQ": 100 + 15 * covariates["iq"],
    }
    return (
        pd.DataFrame(number_columns)
        .round(6)
        .astype(str)
        .assign(sex=sex)
        .set_index(covariates.index.map("s{:04}".format))
    )


def least_reliability(
    label: np.ndarray, log_odds: np.ndarray, site: np.ndarray, table: pd.DataFrame, seed: int
) -> float:
    """Above which reliability of the covariates a report says that the output carries more than they do, of ten folds;
    infinite where it does not say so."""
    prediction_columns = {
        "label": label,
        "probability": expit(log_odds),
        "subject": table.index,
        "site": site.astype(str),
    }
    prediction_columns["fold"] = assign_balanced_folds(label, site, np.arange(len(label)), 10, seed)
    covariates_row = make_covariate_result(
        measure_confounds(Predictions.from_tables(pd.DataFrame(prediction_columns)), table, seed)
    )
    if covariates_row is None or covariates_row.carries_more_verdict != CARRIES_MORE:
        return np.inf
    return covariates_row.reliability or 0.0


def going_with_motion(people: int, seed: int) -> Claims:
    """Motion goes with the diagnosis, whose log odds rise by one for each standard deviation of it."""
    random = np.random.default_rng([seed, people, 3])
    site, covariates = draw_people(random, people)
    label = draw_labels(covariates["motion"].to_numpy(), random)
    claims: Claims = {}
    for source_phrase, followed_values in {"the diagnosis": 2 * label - 1, "head motion": covariates["motion"]}.items():
        logits = np.asarray(followed_values) + random.normal(size=people)
        everybody = pd.DataFrame({"label": label, "site": site, "unit": np.arange(people), "logit": logits})
        logit_and_motion = everybody[["logit"]].assign(motion=covariates["motion"])
        within_site_values = logit_and_motion - logit_and_motion.groupby(site).transform("mean")
        z = np.arctanh(within_site_values.corr().iloc[0, 1]) * np.sqrt(people - len(np.unique(site)) - 3)
        claims[f"output follows {source_phrase}: correlates with motion within sites"] = bool(abs(z) > 1.96)
        _, p = correlate_within_diagnosis(everybody, covariates[["motion"]], seed)["motion"]
        claims[f"output follows {source_phrase}: correlates with motion, given the diagnosis"] = bool(
            p <= FAMILYWISE_ALPHA
        )
    return claims


def with_error(covariate: str, reliability: float, people: int, seed: int) -> Claims:
    """The diagnosis and the output follow the true covariate; the table has it with an error."""
    random = np.random.default_rng([seed, people, int(100 * reliability), 4])
    site, covariates = draw_people(random, people)
    true_covariate = covariates[covariate].to_numpy()
    label = draw_labels(true_covariate, random)
    log_odds = 2 * true_covariate + 0.3 * random.normal(size=people)
    measured_covariate = np.sqrt(reliability) * true_covariate + np.sqrt(1 - reliability) * random.normal(size=people)
    table = make_covariate_table(covariates.assign(**{covariate: measured_covariate}))
    min_reliability = least_reliability(label, log_odds, site, table, seed)
    min_reliability_with_diagnosis = least_reliability(label, 2 * label + random.normal(size=people), site, table, seed)
    return {
        "carries more than covariates": bool(np.isfinite(min_reliability)),
        "carries more than covariates of this reliability": bool(min_reliability < reliability),
        "output follows the diagnosis instead: carries more than covariates of this reliability": bool(
            min_reliability_with_diagnosis < reliability
        ),
    }


def follow_product(factors: list[str], people: int, seed: int) -> Claims:
    random = np.random.default_rng([seed, people, len(factors), 5])
    site, covariates = draw_people(random, people)
    product = zscore(covariates[factors].prod(axis=1).to_numpy())
    label, log_odds = draw_labels(product, random), 2 * product + 0.3 * random.normal(size=people)
    min_reliability = least_reliability(label, log_odds, site, make_covariate_table(covariates), seed)
    return {"carries more than covariates": bool(np.isfinite(min_reliability))}


def curve_by_sex(people: int, seed: int) -> Claims:
    """The square of age, which counts the other way in women."""
    random = np.random.default_rng([seed, people, 7])
    site, covariates = draw_people(random, people)
    curve = zscore(((covariates["age"] ** 2 - 1) * covariates["sex"]).to_numpy())
    label, noise = draw_labels(curve, random), 0.3 * random.normal(size=people)
    table = make_covariate_table(covariates)
    min_reliability = least_reliability(label, 2 * curve + noise, site, table, seed)
    min_reliability_with_diagnosis = least_reliability(label, 2 * curve + label + noise, site, table, seed)
    return {
        "carries more than covariates": bool(np.isfinite(min_reliability)),
        "follows the diagnosis, too: carries more": bool(np.isfinite(min_reliability_with_diagnosis)),
    }


def sets_by_site_rates(autism_by_site: list[float], site_size: int, seed: int) -> Claims:
    """Sites of one `site_size` with these shares of autism. The output tells the diagnosis by 1.2 standard deviations,
    and how common autism is at the site in other folds."""
    random = np.random.default_rng([seed, site_size, 6])
    site = np.repeat(np.arange(len(autism_by_site)), site_size)
    label = (random.random(len(site)) < np.array(autism_by_site)[site]).astype(float)
    fold = assign_balanced_folds(label, site, np.arange(len(site)), 10, seed)
    log_odds = 1.2 * (random.normal(size=len(site)) + 1.2 * label - 0.6)
    for fold_name in np.unique(fold):
        is_training = fold != fold_name
        site_rates = [
            np.mean(np.append(label[is_training & (site == number)], [0, 1])) for number in range(len(autism_by_site))
        ]
        log_odds[~is_training] += logit(site_rates)[site[~is_training]]
    claims: Claims = {}
    for threshold_phrase, set_site in (("by one threshold", None), ("minus the middle of the site", site)):
        sets = calibrate_left_out_groups(label, expit(log_odds), fold, set_site)[2][COVERAGE_LEVELS.index(0.8)]
        holds_label = sets[np.arange(len(label)), label.astype(int)]
        site_autism = np.array(autism_by_site)[site]
        is_rarer_class = np.where(site_autism < 0.5, label == 1, label == 0) & (site_autism != 0.5)
        claims[f"80 % sets {threshold_phrase}: hold the rarer class of unequal sites"] = float(
            holds_label[is_rarer_class].mean()
        )
        claims[f"80 % sets {threshold_phrase}: hold the others"] = float(holds_label[~is_rarer_class].mean())
    return claims


def at_tiny_sites(difference: float, seed: int, sites: int = 40, features: int = 40) -> Claims:
    """Sites of 3 to 8. Classes are `difference` standard deviations apart in features that the site moves, too; the
    output is how much nearer a person is to the mean of one class in other folds. Its true AUC is known of each fold.
    """
    random = np.random.default_rng([seed, sites, 9])
    site = np.repeat(np.arange(sites), random.integers(3, 9, sites))
    label = (random.random(len(site)) < 0.5).astype(float)
    apart = difference * np.ones(features) / np.sqrt(features)
    of_site = 0.5 * random.normal(size=(sites, features))
    measured = label[:, None] * apart + of_site[site] + random.normal(size=(len(site), features))
    alone = np.arange(len(site))
    folds = {
        "ten folds": assign_balanced_folds(label, site, alone, 10, seed),
        "ten folds of whole sites": assign_site_folds(label, site, 10, seed),
    }
    claims: Claims = {}
    for way, fold in folds.items():
        output, true = np.zeros(len(site)), np.zeros(len(site))
        for name in np.unique(fold):
            rest = fold != name
            direction = measured[rest & (label == 1)].mean(0) - measured[rest & (label == 0)].mean(0)
            direction /= np.linalg.norm(direction)
            middle = measured[rest].mean(0)
            output[~rest] = (measured[~rest] - middle) @ direction
            true[~rest] = norm.cdf(apart @ direction / np.sqrt(2))
        records = pd.DataFrame({"label": label, "probability": expit(output), "subject": alone})
        predictions = Predictions.from_tables(records.assign(site=site.astype(str), fold=fold))
        area = estimate_scores(predictions, seed)["auc_sites"]
        claims[f"{way}: participants compared"] = 1 - predictions.uncompared_subject_count / len(site)
        claims[f"{way}: better than chance"] = area.low is not None and area.low > CHANCE_AUC
        if area.low is not None and area.high is not None:
            claims[f"{way}: the interval, if there is one, covers the true AUC"] = area.low <= true.mean() <= area.high
    return claims


def two_models(people: int, sites: int, separations: tuple[float, float], shared: float, seed: int) -> Claims:
    """Ridge regressions of features in which the classes lie so far apart, and of which this share is read by both."""
    random = np.random.default_rng([seed, people, sites, int(100 * shared), 8])
    site, label = np.arange(people) % sites, (random.random(people) < 0.5).astype(float)
    values = random.normal(size=(2, people, FEATURES))
    values[1, :, : round(shared * FEATURES)] = values[0, :, : round(shared * FEATURES)]
    fold = assign_balanced_folds(label, site, np.arange(people), 10, seed)
    outputs, truths = [], []
    for value, separation in zip(values, separations, strict=True):
        shift = separation / np.sqrt(FEATURES) * (label[:, None] - 0.5)
        output, truth = tested(label, fold, value + shift, separation)
        outputs.append(output)
        truths.append(truth)
    records = {"label": label, "subject": np.arange(people), "site": site, "fold": fold}
    a, b = (Predictions.from_tables(pd.DataFrame(records | {"probability": output})) for output in outputs)
    less = estimate_score_differences(a, b, seed)
    difference = less[choose_headline_metric(less)]
    differ = judge_auc_difference(difference)
    detectable = find_detectable_difference(difference)
    claims: Claims = {
        "called different": differ != NO_DIFFERENCE,
        "the better one called better": differ == MODEL_BETTER,
    }
    claims["true difference of AUC"] = truths[0] - truths[1]
    return claims | {"minimum detectable difference as printed": np.nan if detectable is None else detectable}


def study(people: int, many_sites: bool, autism: float, folds: str, seed: int) -> Claims:
    """A classifier by the difference of the classes' means, trained in `folds`. Its expected AUC is the one that the
    forecast of these people and folds names."""
    random = np.random.default_rng([seed, people, many_sites, int(100 * autism), 9])
    sizes = random.integers(2, 9, people) if many_sites else np.full(LARGE_SITES, -(-people // LARGE_SITES))
    site = np.repeat(np.arange(len(sizes)), sizes)[:people]
    label, everybody = (random.random(people) < autism).astype(float), np.arange(people)
    fold = site if folds == "site" else assign_balanced_folds(label, site, everybody, 10, seed)
    forecast = assess_design("", SubjectArrays([*everybody], label, site, everybody), fold).least_auc
    if not np.isfinite(forecast):
        return {"a conclusion is forecast": False}
    trains = 1 - 1 / len(np.unique(fold))  # the share of a class
    noise = sum(1 / (np.sum(label == value) * trains) for value in (0, 1))  # variance of a difference of means
    apart = brentq(lambda d: d**2 / np.sqrt(2 * (d**2 + NOISY * noise)) - norm.ppf(forecast), 1e-3, 50)
    values = random.normal(size=(people, NOISY))
    values[:, 0] += apart * label
    output = np.zeros(people)
    for name in np.unique(fold):
        rest = fold != name
        means = [values[rest & (label == value)].mean(axis=0) for value in (0, 1)]
        weight = means[1] - means[0]
        output[~rest] = (values[~rest] - np.mean(means, axis=0)) @ weight / np.linalg.norm(weight)
    records = {"label": label, "probability": expit(output), "subject": everybody, "site": site, "fold": fold}
    predictions = Predictions.from_tables(pd.DataFrame(records))
    scores = estimate_statistics_with_intervals(
        predictions, partial(average_scores_over_repeats, predictions, compute_aucs), seed
    )
    score = scores[choose_headline_metric(scores)]
    return {
        "a conclusion is forecast": True,
        "AUC of the forecast": forecast,
        "AUC, mean": np.nan if score.value is None else score.value,
        "called better than chance": bool(score.beats_chance),
    }


def scenarios() -> Iterator[tuple[str, int, Callable[[int], Claims]]]:
    """Title, participants, and what makes a set of a seed."""
    for largest in (14, 6, 1):
        unequal_title = f"unequal: effects {largest} times as large at sites with more autism"
        yield unequal_title, 240, partial(unequal_sites, largest, 0)
        yield (
            f"{unequal_title}, one region differs",
            240,
            partial(unequal_sites, largest, 1.2),
        )
    for kind in ESTIMATOR_BY_KIND:
        yield f"estimator: {kind}, nothing differs", 240, partial(black_out_estimator, kind, 0)
        yield f"estimator: {kind}, one column differs", 240, partial(black_out_estimator, kind, 1.5)
    for planted in (4, 5, 6):
        title = f"halves: one of {HALVES_REGION_COUNT} regions differs by {planted} standard errors"
        yield title, 200, partial(in_halves, planted)
    for people in (80, 300, 737):
        yield f"motion: {people} participants", people, partial(going_with_motion, people)
    for people in (80, 200, 737):
        title = "reliability: the output follows head motion, measured with reliability 0.7"
        yield title, people, partial(with_error, "motion", 0.7, people)
    for reliability in (0.8, 0.9, 0.95):
        title = f"reliability: the output follows IQ, measured with reliability {reliability}"
        yield title, 737, partial(with_error, "iq", reliability, 737)
    for factors in (["age", "motion", "sex"], ["age", "motion", "sex", "iq"]):
        for people in (200, 737):
            title = f"triple: the output follows a product of {len(factors)} covariates"
            yield title, people, partial(follow_product, factors, people)
    for people in (200, 737):
        title = "curve: the output follows the square of age, the other way in women"
        yield title, people, partial(curve_by_sex, people)
    for (people, sites, shared), (equal, unequal) in TWO_MODELS.items():
        title = f"difference: {sites} sites, {shared:.0%} of the features read by both"
        for truth, pair in {"none": equal, "the minimum detectable one": unequal}.items():
            yield (
                f"{title}; true difference: {truth}",
                people,
                partial(two_models, people, sites, pair, shared),
            )
    for people, many_sites, autism, folds in product((60, 150, 400), (False, True), (0.5, 0.25), ("10", "site")):
        layout = "sites of 2 to 8" if many_sites else f"{LARGE_SITES} equal sites"
        title = f"forecast: {layout}, {autism:.0%} autism, --folds {folds}"
        yield title, people, partial(study, people, many_sites, autism, folds)
    for autism_by_site, size in (
        ([0.2, 0.8, *[0.5] * 6], 50),
        ([0.2, 0.35, 0.5, 0.65, 0.8] * 2, 20),
        ([0.2, 0.8] * 4, 40),
    ):
        title = (
            f"sets: {len(autism_by_site)} sites of {size}, {min(autism_by_site):.0%} to {max(autism_by_site):.0%} "
            "autism"
        )
        yield (
            title,
            size * len(autism_by_site),
            partial(sets_by_site_rates, autism_by_site, size),
        )
    for title, difference in {"true AUC about 0.87": 1.8, "nothing to find": 0.0}.items():
        yield (
            f"tiny: 40 sites of 3 to 8, {title}",
            220,
            partial(at_tiny_sites, difference),
        )


def make_claim_rows(title: str, people: int, sets: pd.DataFrame, seed: int) -> list[dict]:
    """A row for each claim: its rate with its interval, or the mean of shares with that of its standard error; in
    percent."""
    rows = []
    for claim, values in sets.items():
        present_values = values.dropna().astype(float)
        if set(present_values) <= {0.0, 1.0}:
            wilson_interval = binomtest(int(present_values.sum()), len(present_values)).proportion_ci(method="wilson")
            low, high = wilson_interval.low, wilson_interval.high
        else:
            error = 1.96 * present_values.std() / np.sqrt(len(present_values))
            low, high = present_values.mean() - error, present_values.mean() + error
        value, low, high = (f"{100 * number:.1f}" for number in (present_values.mean(), low, high))
        row = {"case": title, "measure": claim, "value": value, "low": low, "high": high, "unit": "%"}
        rows.append(row | {"participants": people, "sets": len(present_values), "seed": seed})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=300, help="of each scenario (default 300)")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios with this text in their title")
    parser.add_argument("--seed", type=int, default=0, help="of the first set of each scenario (default 0)")
    parser.add_argument("--table", type=Path, metavar="CSV", help="to which rows are added")
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    command = f"python tests/benchmarks/claims.py --sets {args.sets} --seed {args.seed}"
    for title, people, simulate_set in scenarios():
        if args.only not in title:
            continue
        start = time.time()
        sets = pd.DataFrame([simulate_set(args.seed + number) for number in range(args.sets)])
        rows = make_claim_rows(title, people, sets, args.seed)
        print(f"{title}; {people} participants, {args.sets} sets, {time.time() - start:.0f} s", flush=True)
        for row in rows:
            print(f"  {row['measure']}: {row['value']} % ({row['low']} to {row['high']})", flush=True)
        if args.table:
            table = pd.DataFrame(rows).assign(commit=commit.strip(), command=command)
            table.to_csv(args.table, mode="a", header=not args.table.exists(), index=False)


if __name__ == "__main__":
    main()
