"""The effect `unique` against hidimstat's conditional feature importance (CFI), and both against the known truth.

`python tests/benchmarks/agreement.py [--seed 0] [--people 1500] [--tested 900]`; needs `pip install hidimstat==0.4.0`

Simulated people have 20 AAL regions on the reduced grid. Each region's mean correlates with its mirror image, and a
little with all others; voxels add noise. The label follows a logistic model of the means with the coefficients of
`PAIRS`, and the classifier is that very model, with its weights set.

Ours        The mean fall of the true class's logit when a region is replaced by the fill `expected`, through the
            project's own cohort, fills, occlusion and effects.
Theirs      CFI (Chamma et al. 2023) of each region's mean, once with the true class's logit, negated, as its loss,
            which is the same quantity, and once with log loss.
Truth       2 E[p (1 - p)] b^2 v (Stein's lemma): b is a region's coefficient, v the variance of its mean that the other
            regions leave, p the model's probability; no estimate enters.

Log loss is half the logit of the true class, negated, plus an even function of the logit. An exchange that keeps the
joint distribution of the regions keeps the mean of the even part, so twice the CFI of log loss has our effect as its
limit, too. Residuals are those of training subjects in ours, of other test subjects in hidimstat.

Prints one line per region, then what agrees. Intervals are over test subjects. They leave out the error of the
predictions fitted on training subjects, so those of a difference miss 0 more often than one time in twenty. A region
without a coefficient has no effect whatever the method, so ranks of all regions hardly disagree; those of the regions
that matter do. The status is 1 if a region that matters is not above 0 by all three, if a rank correlation of ours over
all regions is below 0.9, or if that with the CFI of the logit over the regions that matter is; with few people that is
chance. It is 2 without hidimstat.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from scipy.special import expit
from scipy.stats import norm, spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.cohorts import records
from data.cohorts.atlas import Atlas, load_atlas, regions
from data.cohorts.cohort import Cohort, in_order
from data.cohorts.records import REDUCED
from data.cohorts.rows import Metadata, Row
from data.cohorts.stored import open_cohort, write_tables
from utils.blackout import effects
from utils.blackout.donors import Donors
from utils.blackout.fills import Fills
from utils.blackout.options import BlackoutOptions
from utils.machines import devices

# Coefficients of the left and the right region, and the correlation of the two; spreads are 1.
PAIRS = {
    "Precentral": (1.05, 0.0, 0.8),
    "Frontal_Sup": (0.0, -0.65, 0.8),
    "Frontal_Mid": (0.55, 0.9, 0.8),
    "Temporal_Mid": (1.75, -1.25, 0.8),  # taken alone, the right one goes with autism in spite of its coefficient
    "Precuneus": (0.0, 0.0, 0.8),
    "Postcentral": (-1.0, 0.0, 0.2),
    "Occipital_Mid": (0.5, 0.0, 0.2),
    "Temporal_Sup": (0.0, 0.0, 0.2),
    "Temporal_Inf": (0.0, 0.0, 0.2),
    "Cerebelum_Crus1": (0.0, 0.0, 0.2),
}
INTERCEPT = -0.3
COMMON = 0.2  # correlation of regions that are no mirror images
VOXEL_SPREAD = 1.0
DONORS = 5
TOGETHER = 16  # records occluded at a time
REQUIRED = 0.9  # rank correlation
DECIMALS = 5  # what float32 holds of a logit, so that effects of 0 are ties


def regions_of_pairs() -> tuple[Atlas, np.ndarray, np.ndarray]:
    """AAL with the regions of `PAIRS` alone, their coefficients (regions,), and the covariance of their means."""
    whole = load_atlas(None, REDUCED)
    atlas = replace(whole, names={region: name for region, name in whole.names.items() if name[:-2] in PAIRS})
    names = [atlas.names[region] for region in atlas.regions]
    coefficient = np.array([PAIRS[name[:-2]]["LR".index(name[-1])] for name in names])
    covariance = np.full((len(names), len(names)), COMMON)
    for at, name in enumerate(names):
        for other, its_name in enumerate(names):
            if name[:-2] == its_name[:-2]:
                covariance[at, other] = 1 if at == other else PAIRS[name[:-2]][2]
    return atlas, coefficient, covariance


def voxels(atlas: Atlas) -> np.ndarray:
    """The size of each region, (regions,)."""
    return np.array([np.count_nonzero(atlas.labels == region) for region in atlas.regions])


def simulate(folder: Path, people: int, tested: int, seed: int) -> Cohort:
    """Writes a cohort whose last `tested` subjects are its test subjects, and opens it."""
    atlas, coefficient, covariance = regions_of_pairs()
    random = np.random.default_rng(seed)
    drawn = random.multivariate_normal(np.zeros(len(coefficient)), covariance, people)
    volume = np.zeros((people, *REDUCED.shape, 1), np.float32)
    for at, region in enumerate(atlas.regions):
        inside = atlas.labels == region
        volume[:, inside, 0] = drawn[:, [at]] + random.normal(0, VOXEL_SPREAD, (people, inside.sum()))
    probability = expit(INTERCEPT + regions(atlas).of(volume)[..., 0] @ coefficient)
    label = (random.random(people) < probability).astype(float)
    rows = []
    for number in range(people):
        split = "test" if number >= people - tested else "train"
        rows.append(Row(f"{number:05d}.bin", f"{number:05d}", "simulated", label[number], split))
        packed = records.pack(label[number], np.zeros(records.PHENOTYPE_SIZE), volume[number, ..., 0])
        (folder / rows[-1].file).write_bytes(packed)
    write_tables(folder, rows, Metadata(grid=REDUCED.shape, simulated=True))
    return open_cohort(folder)


def network_of(atlas: Atlas, coefficient: np.ndarray):
    """Input "volume" (batch, x, y, z, 1); output (batch, 2) logits, whose difference is linear in the region means."""
    import keras

    from models import layers

    weight = np.zeros(REDUCED.shape)
    for region, size, value in zip(atlas.regions, voxels(atlas), coefficient, strict=True):
        weight[atlas.labels == region] = value / size
    volume = layers.volume_input(REDUCED)
    dense = keras.layers.Dense(len(records.CLASSES))
    network = keras.Model({"volume": volume}, dense(keras.layers.Flatten()(volume)))
    dense.set_weights([np.stack([0 * weight.ravel(), weight.ravel()], axis=1), np.array([0, INTERCEPT])])
    return network


def ours(cohort: Cohort, atlas: Atlas, coefficient: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The effect `unique` (tested, regions) by the steps of `measure.measure`, and the logits of autism (tested,)."""
    from utils.blackout import measure
    from utils.blackout.occlusion import Occlusion
    from utils.training.network import logit_of_autism

    tested = cohort.indices("test")
    fills = Fills(cohort, atlas, Donors(cohort, tested, DONORS, seed), BlackoutOptions(donors=DONORS), seed)
    occlusion = Occlusion(network_of(atlas, coefficient))
    batches = in_order(tested, TOGETHER)
    parts = [measure.occlude(occlusion, fills, fills.of(batch), []) for batch in batches]
    logits = measure.Logits(*map(np.concatenate, zip(*parts, strict=True)))
    sign = np.array([1.0 if cohort.rows[index].label == 1 else -1.0 for index in tested])[:, None]
    unique = logits.effects(sign, np.zeros(len(tested), int), fills)["unique"]
    return unique, logit_of_autism(logits.base[:, 0])


def negated_logit(label: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """Minus the true class's logit of each record, (n,) and (n,) -> (n,)."""
    return np.where(label == 1, -logit, logit)


def log_loss(label: np.ndarray, logit: np.ndarray) -> np.ndarray:
    """Minus the logarithm of the true class's probability of each record, (n,) and (n,) -> (n,)."""
    return np.logaddexp(0, negated_logit(label, logit))


def no_test(increase: np.ndarray) -> SimpleNamespace:
    """In place of hidimstat's test over permutations, which knows nothing of the spread over subjects."""
    return SimpleNamespace(pvalue=np.full(len(increase), np.nan))


def theirs(cohort: Cohort, atlas: Atlas, coefficient: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """CFI of `negated_logit` and of `log_loss`, (tested, regions) each, and the logits of autism (tested,)."""
    from hidimstat import CFI
    from sklearn.linear_model import LogisticRegression

    batch = cohort.batch(np.arange(len(cohort.rows)))
    means, label = regions(atlas).of(batch["volume"])[..., 0], batch["label"]
    train, test = cohort.indices("train"), cohort.indices("test")
    model = LogisticRegression()
    model.coef_, model.intercept_ = coefficient[None], np.array([INTERCEPT])
    model.classes_, model.n_features_in_ = np.arange(len(records.CLASSES)), len(coefficient)
    cfi = CFI(
        model,
        method="decision_function",
        features_groups={atlas.names[region]: [at] for at, region in enumerate(atlas.regions)},
        feature_types="continuous",
        statistical_test=no_test,
        random_state=seed,
    )
    cfi.fit(means[train], label[train])
    # These losses are not averaged over subjects, and so importances are (regions, tested).
    found = [cfi.set_params(loss=loss).importance(means[test], label[test]).T for loss in (negated_logit, log_loss)]
    return *found, model.decision_function(means[test])


def true_effects(atlas: Atlas, coefficient: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """The expected effect of exchange, (regions,), given the covariance of the regions without voxels' noise."""
    covariance = covariance + np.diag(VOXEL_SPREAD**2 / voxels(atlas))
    left = 1 / np.diag(np.linalg.inv(covariance))
    logit = norm(INTERCEPT, np.sqrt(coefficient @ covariance @ coefficient))
    return 2 * logit.expect(lambda value: expit(value) * expit(-value)) * coefficient**2 * left


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(spearmanr(one.round(DECIMALS), other.round(DECIMALS)).statistic)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=1500, help="simulated (default 1500)")
    parser.add_argument("--tested", type=int, default=900, help="of them; the others are donors (default 900)")
    args = parser.parse_args()
    try:
        import hidimstat
    except ImportError:
        print("agreement.py: error: hidimstat is absent; pip install hidimstat==0.4.0", file=sys.stderr)
        return 2
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    devices.start_tensorflow(devices.choose_device(share=False))

    atlas, coefficient, covariance = regions_of_pairs()
    with tempfile.TemporaryDirectory() as folder:
        cohort = simulate(Path(folder), args.people, args.tested, args.seed)
        unique, logit = ours(cohort, atlas, coefficient, args.seed)
        same, logs, linear = theirs(cohort, atlas, coefficient, args.seed)
    truth, doubled = true_effects(atlas, coefficient, covariance), 2 * logs
    interval = partial(effects.mean_interval, seed=args.seed)
    found = [interval(effect) for effect in (unique, same, doubled)]
    columns = "".join(f"{title:26}" for title in ("ours (95 % interval)", "CFI of logit", "CFI of log loss, twice"))
    print(f"hidimstat {hidimstat.__version__}\n{'region':18}{'coefficient':>11}{'truth':>8}   {columns.rstrip()}")
    for at, region in enumerate(atlas.regions):
        means = "".join(f"{mean[at]:8.3f} ({low[at]:6.3f} to {high[at]:6.3f})" for mean, low, high in found)
        print(f"{atlas.names[region]:18}{coefficient[at]:11.2f}{truth[at]:8.3f}{means}")

    matter = coefficient != 0
    mean, low, _ = map(np.array, zip(*found, strict=True))  # (methods, regions) each
    above = (mean > 0).all(0)[matter]
    surely = (low > 0).all(0)[matter]
    print(f"The network's logits and those of the linear model differ by at most {np.abs(logit - linear).max():.0e}.")
    print(f"Above 0 in all three: {above.sum()} of {len(above)} regions that matter, {surely.sum()} by all intervals.")
    for title, effect in (("CFI of logit", same), ("twice CFI of log loss", doubled)):
        _, minus_low, minus_high = interval(unique - effect)
        alike = ((minus_low <= 0) & (minus_high >= 0))[matter]
        print(f"Ours minus {title}: the interval holds 0 in {alike.sum()} of {len(alike)}.")
    ranks, strict = [], []
    for title, other in (("CFI of logit", mean[1]), ("CFI of log loss", mean[2]), ("truth", truth)):
        ranks.append(rank_correlation(mean[0], other))
        strict.append(rank_correlation(mean[0, matter], other[matter]))
        every = f"rank correlation {ranks[-1]:.3f}, of those that matter {strict[-1]:.3f}"
        print(f"Ours with {title}: {every}; sums over regions {mean[0].sum() / other.sum():.2f} to 1.")
    return int(not above.all() or min(*ranks, strict[0]) < REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
