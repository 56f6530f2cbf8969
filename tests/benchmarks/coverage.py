"""How often 95 % intervals of folds hold the truth, with models that are trained anew for every cohort.

`python tests/benchmarks/coverage.py [--sets 200] [--real COHORT] [--network 40] [--only TEXT] [--seed 0]`

A cohort is simulated: people of sites, in ABIDE's proportions, that differ in the level of all features, with a label
that tells a little of each of 348 features, as many as three maps have region means. A ridge regression and an equal
rival, which reads as many features of its own, are trained and tested on folds as `run.py` cuts them. The truth is the
mean AUC on fresh people of one site of models trained on as many; for a linear model on normal features it is known.
With `--real`, the features are the region means of a cohort's people, and labels are permuted within sites: the truth
is 0.5. With `--network` as well, `cnn --preset regions` is trained and tested on so many of these by the user's
commands. Prints for each setting, and over all, how many of the intervals of the AUC within sites, and of its
difference from that of the rival, hold the truth (`!`: outside the binomial 99 % of 95 %), and how many lie above it:
2.5 % are expected, which at a truth of 0.5 are called 'better than chance', and of the difference 'beats'. Then in how
many sets the model is shown to be better than chance, and worse.

Settings of relatives have families whose features correlate at 0.5: pairs of one site and label, or two to four people
of one site with labels of their own. A family is parted by folds, or in one and counted as so many people, or as
`convert --family` makes it: in one fold and drawn as one.

Settings of small sites have 200 people of equal sites. With nothing to find, the share of autism differs between sites.
Those with a share of autism have sites of 40 people.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binom, norm
from sklearn.linear_model import Ridge

from data.base.effort import EFFORT

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.planted import relabel_cohort

import run as command_line
from data.cohorts.division import assign_balanced_folds
from data.cohorts.stored import open_cohort
from data.simulation import PERCENT_AND_MEAN_AGE_BY_SITE
from utils.scores import baselines
from utils.scores.features import make_feature_encoder
from utils.scores.metrics import (
    Predictions,
    average_scores_over_repeats,
    choose_headline_metric,
    compute_aucs,
    estimate_score_differences,
    estimate_statistics_with_intervals,
)

PEOPLE = (80, 300, 740)
AUCS = {0.5: (0.0, 0.0, 0.0), 0.6: (1.3, 1.05, 0.83), 0.7: (1.95, 1.5, 1.23), 0.8: (2.6, 2.0, 1.7)}  # separations
FEATURES, PENALTY, SITE_LEVEL = 348, 300.0, 0.7
NUMBER_OF_FOLDS = 10
RESAMPLES = 500  # a quarter of a run's
NETWORK_PEOPLE = 160  # people
RELATIVES_CORRELATION = 0.5  # correlation of relatives' features
FAMILY_WAYS = ("parted", "in one fold", "in one fold and drawn as one")  # what becomes of a family
FAMILY_SIZES = {"pairs": (2,), "mixed": (2, 3, 4)}  # of families
SMALL_SITE_SIZES, SMALL_SITE_PEOPLE, SMALL_SITE_SEPARATION = (
    (5, 8, 10, 15, 20, 40),
    200,
    1.9,
)  # people a site, in all, and their separation
SITE_LOG_ODDS_SD = 0.7  # SD over sites of the log odds of autism, where there is nothing to find
RARE_CLASS_SITES = (
    (5, 0.1),
    (5, 0.2),
    (5, 0.5),
    (5, 0.8),
    (5, 0.9),
    (3, 0.1),
    (3, 0.2),
    (10, 0.1),
    (10, 0.2),
)  # sites, autism
RARE_SITE_SIZE = 40  # people, where one class is rare
COLUMNS = ("auc_sites", "difference")


@dataclass(frozen=True)
class Setting:
    """So many people, how they are cut, and how far the classes lie apart, in standard deviations over all features."""

    people: int
    folds: str
    separation: float
    title: str
    relatives: str = ""  # of SIZES
    family_way: str = ""  # of WAYS
    site_size: int = 0  # of sites that are equal
    log_odds_sd: float = 0.0  # SD over these of the log odds of autism
    autism: float = 0.5  # share of the people


def settings() -> Iterator[Setting]:
    for size_index, people in enumerate(PEOPLE):
        for auc, separations in AUCS.items():
            for folds in (str(NUMBER_OF_FOLDS), "site"):
                yield Setting(
                    people, folds, separations[size_index], f"simulated, {people} people, AUC about {auc}, {folds}"
                )
    for size_index, people in enumerate(PEOPLE[:2]):
        for relatives in FAMILY_SIZES:
            for auc in (0.5, 0.7):
                for way in FAMILY_WAYS:
                    title = f"relatives, {relatives}, {people} people, AUC about {auc}, {way}"
                    yield Setting(people, str(NUMBER_OF_FOLDS), AUCS[auc][size_index], title, relatives, way)
    for size in SMALL_SITE_SIZES:
        for contents, separation, log_odds_sd in (
            ("something to find", SMALL_SITE_SEPARATION, 0.0),
            ("nothing to find", 0.0, SITE_LOG_ODDS_SD),
        ):
            title = f"sites of {size}, {contents}"
            yield Setting(
                SMALL_SITE_PEOPLE, str(NUMBER_OF_FOLDS), separation, title, site_size=size, log_odds_sd=log_odds_sd
            )
    for sites, autism in RARE_CLASS_SITES:
        title = f"{autism:.0%} autism at {sites} equal sites"
        yield Setting(sites * RARE_SITE_SIZE, str(NUMBER_OF_FOLDS), 0.0, title, site_size=RARE_SITE_SIZE, autism=autism)


def assign_folds(label: np.ndarray, site: np.ndarray, family: np.ndarray, folds: str, seed: int) -> np.ndarray:
    """Folds in proportion over labels and sites, or the sites."""
    return site if folds == "site" else assign_balanced_folds(label, site, family, int(folds), seed)


def draw_families(setting: Setting, random: np.random.Generator) -> np.ndarray:
    """The number of the family of each person (people,), all of whom are alone unless there are relatives."""
    sizes = random.choice(FAMILY_SIZES.get(setting.relatives, (1,)), setting.people)
    return np.repeat(np.arange(setting.people), sizes)[: setting.people]


def simulated(
    setting: Setting, random: np.random.Generator, family: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, site, and the features of a model and its rival (2, people, FEATURES); those of a family are alike, and of
    one site."""
    site_weights = np.sort([size for size, *_ in PERCENT_AND_MEAN_AGE_BY_SITE.values()])[::-1].astype(float)
    site_weights = site_weights[: max(4, min(len(site_weights), setting.people // 30))]
    site_weights = np.ones(setting.people // setting.site_size) if setting.site_size else site_weights
    site = random.choice(len(site_weights), setting.people, p=site_weights / site_weights.sum())
    site = np.sort(np.arange(setting.people) % len(site_weights)) if setting.site_size else site
    label = (random.random(setting.people) < setting.autism).astype(float)
    if setting.log_odds_sd:
        odds = setting.log_odds_sd * random.normal(size=len(site_weights))
        label = (random.random(setting.people) < expit(odds)[site]).astype(float)
    if setting.relatives:
        site = site[family]
        label = label[family] if setting.relatives == "pairs" else label
    shift = setting.separation / np.sqrt(FEATURES) * (label[:, None] - 0.5)
    level = SITE_LEVEL * random.normal(size=(2, len(site_weights), FEATURES))[:, site]
    values = random.normal(size=(2, setting.people, FEATURES))
    if setting.relatives:
        values = (
            np.sqrt(RELATIVES_CORRELATION) * random.normal(size=values.shape)[:, family]
            + np.sqrt(1 - RELATIVES_CORRELATION) * values
        )
    return label, site, values + level + shift


def tested(label: np.ndarray, fold: np.ndarray, values: np.ndarray, separation: float) -> tuple[np.ndarray, float]:
    """Out-of-fold scores of a ridge regression (n,), and the mean AUC of its models on fresh people."""
    scores, truths = np.zeros(len(label)), []
    for fold_name in np.unique(fold):
        is_training = fold != fold_name
        centre, spread = values[is_training].mean(0), values[is_training].std(0)
        model = Ridge(alpha=PENALTY).fit((values[is_training] - centre) / spread, label[is_training])
        scores[~is_training] = model.predict((values[~is_training] - centre) / spread)
        weight = model.coef_ / spread
        class_distance = (separation / np.sqrt(values.shape[1]) * weight).sum()
        truths.append(norm.cdf(class_distance / np.sqrt(2 * np.square(weight).sum())))
    return scores, float(np.mean(truths))


def compute_intervals(
    setting: Setting, seed: int, real_data: tuple[pd.DataFrame, np.ndarray, np.ndarray] | None
) -> dict[str, tuple]:
    """Value, low end, high end and truth of each interval of one cohort."""
    random = np.random.default_rng([seed, setting.people, int(100 * setting.separation), len(setting.folds)])
    family = draw_families(setting, random)
    if real_data is None:
        label, site, (model_features, rival_features) = simulated(setting, random, family)
    else:
        values, label, site = real_data
        label = permute_within_sites(label, site, random)
        is_model_feature = random.permutation(values.shape[1]) % 2 == 0
        model_features, rival_features = values.to_numpy()[:, is_model_feature], values.to_numpy()[:, ~is_model_feature]
    single_clusters = np.arange(len(label))
    cluster = family if setting.family_way == FAMILY_WAYS[2] else single_clusters
    fold = assign_folds(
        label, site, single_clusters if setting.family_way == FAMILY_WAYS[0] else family, setting.folds, seed
    )
    (scores, truth), (rival_scores, rival_truth) = (
        tested(label, fold, features, setting.separation) for features in (model_features, rival_features)
    )
    columns = {"subject": np.arange(len(label)), "fold": fold, "site": site, "same_scan": cluster}
    model = Predictions.from_tables(pd.DataFrame({"label": label, "probability": scores} | columns))
    interval_by_measure = estimate_statistics_with_intervals(
        model, partial(average_scores_over_repeats, model, compute_aucs), seed
    )
    rival_difference = estimate_score_differences(model, model.with_probabilities([rival_scores]), seed)[
        choose_headline_metric(interval_by_measure)
    ]
    return {
        "auc_sites": (*astuple(interval_by_measure["auc_sites"]), truth),
        "difference": (*astuple(rival_difference), truth - rival_truth),
    }


def permute_within_sites(label: np.ndarray, site: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Labels permuted within sites."""
    permuted_label = label.copy()
    for site_name in np.unique(site):
        permuted_label[site == site_name] = random.permutation(label[site == site_name])
    return permuted_label


def describe_sets(title: str, sets: pd.DataFrame, seconds: float) -> str:
    """What the sets of a setting show; `sets` has a column of tuples for each of COLUMNS. Intervals are those that
    there are: too few people of a class have none."""
    text = f"{title}: {len(sets)} sets"
    for column in COLUMNS:
        value, low, high, truth = np.array([*sets[column]], float).T
        has_interval = np.isfinite(low)
        holds_truth = (low <= truth)[has_interval] & (truth <= high)[has_interval]
        limits = binom.interval(0.99, len(holds_truth), 0.95)
        mark = "" if limits[0] <= holds_truth.sum() <= limits[1] else " !"
        text += f"; {column} {np.nanmean(value):.3f} (true {np.mean(truth):.3f}) held {holds_truth.mean():.1%}{mark}, "
        text += f"no interval in {(~has_interval).sum()}, " if not has_interval.all() else ""
        text += f"above it {(low > truth).mean():.1%}"
        chance = f", above chance {(low > 0.5).mean():.1%}, below chance {(high < 0.5).mean():.1%}"
        text += chance if column == COLUMNS[0] else ""
    return f"{text}; {seconds:.0f} s"


def average_truth(sets: pd.DataFrame) -> pd.DataFrame:
    """The same with the mean truth of the setting in the place of each cohort's."""
    for column in COLUMNS:
        truth = np.mean([interval[3] for interval in sets[column]])
        sets[column] = [(*interval[:3], truth) for interval in sets[column]]
    return sets


def run_network(cohort_folder: Path, number: int) -> tuple:
    """Value, ends and truth of `cnn` on some people of a cohort with labels permuted within sites."""
    cohort, random = open_cohort(cohort_folder), np.random.default_rng(number)
    label, site = (np.array([getattr(row, name) for row in cohort.rows]) for name in ("label", "site"))
    permuted_label, chosen_indices = (
        permute_within_sites(label, site, random),
        np.sort(random.permutation(len(label))[:NETWORK_PEOPLE]),
    )
    with tempfile.TemporaryDirectory() as temporary_folder:
        folder = Path(temporary_folder)
        relabel_cohort(
            folder / "cohort", cohort, {person_index: permuted_label[person_index] for person_index in chosen_indices}
        )
        places = ["--model", "cnn", "--preset", "regions", "--folds", "3", "--seed", str(number)]
        places += ["--dataDir", str(folder / "cohort"), "--chkPointDir", str(folder / "ckpt")]
        for job in (["--train", "--numIters", "40"], ["--test"]):
            sys.argv = ["run.py", *job, *places, "--outDir", str(folder / job[0].strip("-"))]
            with contextlib.redirect_stdout(io.StringIO()):
                status = command_line.main()
            if status:
                sys.exit(status)
        auc_interval = json.loads((folder / "test" / "metrics.json").read_text())["auc_sites"]
    return (*auc_interval.values(), 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="cohorts of each setting (default 200)")
    parser.add_argument("--real", type=Path, metavar="COHORT", help="31x37x31, with several sites")
    parser.add_argument("--network", type=int, default=0, metavar="N", help="cohorts of the network, with --real")
    parser.add_argument("--only", default="", metavar="TEXT", help="settings with this text in their title")
    parser.add_argument("--seed", type=int, default=0, help="of the first cohort of each setting (default 0)")
    args = parser.parse_args()
    EFFORT.resamples = RESAMPLES
    all_sets, start = [], time.time()
    setting_data: list[tuple[Setting, tuple | None]] = [(setting, None) for setting in settings()]
    if args.real:
        cohort = open_cohort(args.real)
        label, site = (np.array([getattr(row, name) for row in cohort.rows]) for name in ("label", "site"))
        values = baselines.make_feature_tables(cohort)["regions"]
        real = (pd.DataFrame(make_feature_encoder().fit_transform(values)), label, site)
        for fold_choice in (str(NUMBER_OF_FOLDS), "site"):
            setting_data.append(
                (Setting(len(label), fold_choice, 0.0, f"real, {len(label)} people, permuted, {fold_choice}"), real)
            )
    for setting, real_data in setting_data:
        if args.only in setting.title:
            setting_start = time.time()
            interval_rows = [compute_intervals(setting, args.seed + number, real_data) for number in range(args.sets)]
            sets = average_truth(pd.DataFrame(interval_rows))
            all_sets += [] if setting.relatives else [sets]
            print(describe_sets(setting.title, sets, time.time() - setting_start), flush=True)
    null_sets = [sets for sets in all_sets if sets["auc_sites"].iloc[0][3] == 0.5]
    for title, sets in {"all without a difference": null_sets, "all": all_sets}.items() if all_sets else ():
        print(describe_sets(title, pd.concat(sets or all_sets), time.time() - start), flush=True)
    if args.network:
        sets = np.array([run_network(args.real, args.seed + number) for number in range(args.network)])
        holding_rate = ((sets[:, 1] <= 0.5) & (sets[:, 2] >= 0.5)).mean()
        print(
            f"cnn, {args.network} sets of {NETWORK_PEOPLE} real people, permuted, 3 folds: AUC within sites "
            f"{sets[:, 0].mean():.3f}, held {holding_rate:.1%}, better than chance {(sets[:, 1] > 0.5).mean():.1%}; "
            f"{time.time() - start:.0f} s"
        )


if __name__ == "__main__":
    main()
