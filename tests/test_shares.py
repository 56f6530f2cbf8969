"""What parts of a classifier count: against another optimiser, and trainings on labels that some members never saw."""

from dataclasses import replace

import lab
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from models.averaging import AveragedBranch, make_branch_logits_network
from run import make_parser, make_request
from utils.jobs import JOBS
from utils.machines import devices
from utils.runs.plan import plan_runs
from utils.training import shares
from utils.training.train import fit_input_layers, make_training

SITES = np.array(["A", "B", "C"])


@pytest.fixture(scope="module")
def people():
    """Log odds of three parts: one that tells the label, one that tells it as well but on another scale, and noise; and
    labels, unlike common at three sites."""
    random = np.random.default_rng(0)
    site = SITES[np.arange(600) % 3]
    label = (random.random(600) < np.array([0.3, 0.5, 0.7])[np.arange(600) % 3]).astype(int)
    noise = random.normal(size=(600, 3))
    odds = np.stack([label + noise[:, 0], 10 * (label + noise[:, 1]), 0.1 * noise[:, 2]], 1)
    return odds, label, site


def test_weights_equal_the_penalised_regression_within_sites(people):
    """By a general optimiser, of the function as the docs give it."""
    odds, label, site = people
    before = np.array([0.25, 0.25, 0.5])
    fitted_weights, _, branch_weights = shares.fit_branch_weights(odds, label, site, before)
    scores, target = (odds - odds.mean(0)) / odds.std(0), 2.0 * label - 1
    for site_name in SITES:
        scores[site == site_name] -= scores[site == site_name].mean(0)
        target[site == site_name] -= target[site == site_name].mean()
    plain = scores @ before
    scaled_before = before * (plain @ target) / (plain @ plain)

    def loss(weights):
        return (
            np.square(target - scores @ weights).sum() + shares.PRIOR_PEOPLE * np.square(weights - scaled_before).sum()
        )

    best = minimize(loss, before, bounds=[(0, None)] * 3, tol=1e-12).x
    np.testing.assert_allclose(branch_weights, best / best.sum(), atol=1e-4)
    np.testing.assert_allclose(
        fitted_weights * odds.std(0) / (fitted_weights * odds.std(0)).sum(), best / best.sum(), atol=1e-4
    )


def test_an_uninformative_branch_counts_little_and_probabilities_follow_the_labels(people):
    odds, label, site = people
    fitted_weights, bias, branch_weights = shares.fit_branch_weights(odds, label, site, np.full(3, 1 / 3))
    assert branch_weights[2] < 0.2 < branch_weights[0] == pytest.approx(branch_weights[1], abs=0.05)
    probability = expit(odds @ fitted_weights + bias)
    assert probability.mean() == pytest.approx(label.mean(), abs=0.01)
    slope = np.polyfit(probability, label, 1)[0]
    assert slope == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("seed", range(5))
def test_without_information_branches_count_as_before_and_people_stay_in_order(people, seed):
    """Log odds that go the wrong way have no better use than none."""
    _, label, site = people
    odds = np.random.default_rng(seed).normal(size=(600, 3)) - label[:, None]
    fitted_weights, _, branch_weights = shares.fit_branch_weights(odds, label, site, np.array([0.25, 0.25, 0.5]))
    assert (fitted_weights > 0).all() and branch_weights == pytest.approx([0.25, 0.25, 0.5])
    assert np.std(odds @ fitted_weights) == pytest.approx(shares.MIN_CALIBRATION_SLOPE, rel=1e-6)


@pytest.mark.parametrize("person_count", [3, 6, 20, 60])
def test_few_people_change_weights_little(person_count):
    """Of two parts that are as good as each other, neither comes to count twice as much."""
    random = np.random.default_rng(person_count)
    label, site = np.arange(person_count) % 2, SITES[np.arange(person_count) % 3]
    for _ in range(20):
        odds = label[:, None] + random.normal(size=(person_count, 2))
        fitted_weights, bias, branch_weights = shares.fit_branch_weights(odds, label, site, np.array([0.5, 0.5]))
        assert (
            np.isfinite([*fitted_weights, bias]).all()
            and (fitted_weights >= 0).all()
            and (abs(branch_weights - 0.5) < 1 / 6).all()
        )


@pytest.mark.parametrize("seed", range(20))
def test_a_good_branch_does_not_take_all_among_few_people(seed):
    """Three parts of noise make the mean of before a weak one, which still holds the weights."""
    random, label = np.random.default_rng(seed), np.arange(43) % 2
    odds = random.normal(size=(43, 4))
    odds[:, 0] += label
    _, _, branch_weights = shares.fit_branch_weights(odds, label, np.repeat("A", 43), np.full(4, 0.25))
    assert branch_weights.max() < 0.55 and branch_weights.min() > 0.05


@pytest.mark.parametrize("within_sites", [False, True])
def test_a_branch_loss_is_over_networks_and_the_people_they_learn_from(within_sites):
    """Three members of two maps, by hand."""
    import tensorflow as tf

    from models import losses

    random = np.random.default_rng(0)
    logits, label = random.normal(size=(5, 6, 2)), np.array([0, 1, 1, 0, 1])
    weight, site_log_odds = random.random((5, 3)), random.normal(size=5)
    batch = {"label": label, "weight": weight, "site_log_odds": site_log_odds}
    computed_loss = losses.sum_network_losses(
        {name: tf.constant(values, "int32" if name == "label" else "float32") for name, values in batch.items()},
        tf.constant(logits, "float32"),
        AveragedBranch("regions", 2, 1.0, within_sites),
    )
    odds = logits[..., 1] - logits[..., 0] + within_sites * site_log_odds[:, None]
    loss_by_network = np.log1p(np.exp(np.where(label[:, None] == 1, -odds, odds)))
    expected = sum((loss_by_network[:, network] * weight[:, network % 3]).mean() for network in range(6))
    assert float(computed_loss) == pytest.approx(expected, rel=1e-5)


def train_in_memory(cohort, fixed_label_data=None, relabelled=()):
    """A training of a few batches in memory, of three maps; some people's labels are turned around after it was decided
    who leaves out whom."""
    words = "--train --model mmnn --preset regions --numIters 3 --set members=2 --set batch_size=8 --chkPointDir none"
    top = make_parser()
    (run,) = plan_runs(make_request(top, top.parse_args([*words.split(), "--dataDir", str(cohort)])), JOBS).group.runs
    run = replace(run, workers=run.workers.with_strategy(devices.start_tensorflow("cpu")))
    with run.with_fresh_keras():
        training = make_training(run)
        fit_input_layers(training)
        if fixed_label_data:
            training.__dict__["loss_inputs"] = fixed_label_data
            rows = [
                replace(row, label=1 - row.label) if row_index in relabelled else row
                for row_index, row in enumerate(run.cohort.rows)
            ]
            training = replace(training, run=replace(run, cohort=replace(run.cohort, rows=tuple(rows))))
            training.__dict__["loss_inputs"] = fixed_label_data
        list(training.run_steps(0))
        training.calibrate_batch_norm_and_branches(3)
    return training


@pytest.mark.slow
@pytest.mark.bits
def test_a_member_learns_nothing_from_left_out_people(cohort, effort):
    """With their labels turned around its weights are the same to the last bit, and those of the other are not."""
    effort(inner_folds=3)
    before = train_in_memory(cohort)
    weight, rows = before.loss_inputs["weight"], before.run.cohort.rows
    training = [row_index for row_index, row in enumerate(rows) if row.split == "train"]
    np.testing.assert_allclose(weight[training].mean(0), 1, rtol=1e-6)
    assert not (weight == 0).all(1).any() and 0.1 < (weight[training] == 0).mean() < 0.6
    table = lab.read_table(cohort / "subjects.csv").query("split == 'train'")
    label_counts_by_site = table["label"].astype(float).groupby(table["site"]).agg(["sum", "count"])
    expected = [
        logit(
            (label_counts_by_site.loc[rows[row_index].site, "sum"] + 1)
            / (label_counts_by_site.loc[rows[row_index].site, "count"] + 2)
        )
        for row_index in training
    ]
    np.testing.assert_allclose(before.loss_inputs["site_log_odds"][training], expected, rtol=1e-5)
    left_out = np.flatnonzero(weight[:, 0] == 0)
    after = train_in_memory(cohort, before.loss_inputs, left_out)
    for variable_before, variable_after in zip(
        before.network.trainable_variables, after.network.trainable_variables, strict=True
    ):
        assert variable_before.shape[1] == 2  # (inputs, members, ...)
        assert (variable_before.numpy()[:, 0] == variable_after.numpy()[:, 0]).all()
        assert (variable_before.numpy()[:, 1] != variable_after.numpy()[:, 1]).any()


@pytest.mark.slow
def test_branches_are_weighed_by_member_predictions_for_left_out_people(cohort):
    """Each person by a pass of their own."""
    training = train_in_memory(cohort)
    run, last, label_data = training.run, training.logit_mean_layer, training.loss_inputs
    branch_network, odds, record_indices = make_branch_logits_network(training.network), [], []
    for record in run.cohort.find_split_record_indices("train"):
        members = np.flatnonzero(label_data["weight"][record] == 0)
        if not members.size:
            continue
        batch = run.cohort.make_batch([record])
        logits = branch_network({name: batch[name] for name in training.network.input})
        record_indices.append(record)
        odds_by_branch = [logit[0, :, 1] - logit[0, :, 0] for logit in map(np.array, logits)]
        odds.append(
            [
                np.mean(
                    [
                        member_odds[network_index]
                        for network_index in range(len(member_odds))
                        if network_index % 2 in members
                    ]
                )
                for member_odds in odds_by_branch
            ]
        )
    rows = [run.cohort.rows[record] for record in record_indices]
    label, site = np.array([row.label for row in rows]), np.array([row.site for row in rows])
    expected, bias, _ = shares.fit_branch_weights(
        np.array(odds), label, site, np.array([branch.branch_weight for branch in last.branches])
    )
    np.testing.assert_allclose(last.branch_weights, expected, rtol=1e-3)
    assert float(last.bias) == pytest.approx(bias, rel=1e-3, abs=1e-4)
