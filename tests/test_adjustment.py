"""Effects beside covariates: against a loop by hand, on regions that carry covariates alone, and what is used."""

import numpy as np
import pandas as pd
import pytest
from helpers import cohort_of
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import StratifiedKFold

from utils.blackout.adjustment import FOLDS, PENALTIES, adjustment, covariates_of
from utils.blackout.effects import sign_flip_test


def people(count=200, seed=0):
    """Covariates of people, and labels that go with the square of age."""
    random = np.random.default_rng(seed)
    known = pd.DataFrame({"site": random.choice(list("ab"), count), "age": random.normal(size=count)})
    label = (known["age"] ** 2 + random.logistic(size=count) / 2 > 1).to_numpy(float)
    return known, label, random


@pytest.mark.slow
def test_an_effect_is_the_product_of_what_covariates_leave_of_it_and_of_the_diagnosis():
    known, label, random = people()
    effect, found = random.normal(size=(200, 3)), adjustment(known, label)
    on_autism = effect * (2 * label[:, None] - 1)
    expected = np.zeros_like(effect)
    for rest, out in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(label, label):
        encoder = found.encoder.fit(known.iloc[rest])
        before, after = encoder.transform(known.iloc[rest]), encoder.transform(known.iloc[out])
        p = LogisticRegression(max_iter=1000).fit(before, label[rest]).predict_proba(after)[:, 1]
        for region in range(3):
            of_region = RidgeCV(PENALTIES).fit(before, on_autism[rest, region]).predict(after)
            expected[out, region] = 2 * (label[out] - p) * (on_autism[out, region] - of_region)
    assert found(effect) == pytest.approx(expected)
    assert found(effect[:, :1]) == pytest.approx(expected[:, :1])


@pytest.mark.slow
def test_a_region_that_carries_age_alone_is_flagged_before_and_a_true_one_before_and_after():
    known, label, random = people(400, seed=1)
    sign, square = 2 * label - 1, known["age"].to_numpy() ** 2
    noise = random.normal(size=(400, 3))
    effect = sign[:, None] * (noise + np.column_stack([square - 1, 2 * (label - label.mean()), np.zeros(400)]))
    found = adjustment(known, label)
    plain, beside = (sign_flip_test(values, label, 0)[0] < 0.05 for values in (effect, found(effect)))
    assert plain.tolist() == [True, True, False] and beside.tolist() == [False, True, False]
    assert found.covariates == ["site", "age"] and not found.without


def test_where_covariates_say_nothing_an_effect_stays_what_it_is():
    random = np.random.default_rng(1)
    known, label = pd.DataFrame({"age": random.normal(size=400)}), np.arange(400) % 2.0
    effect = random.normal(1, 1, (400, 2))
    assert adjustment(known, label)(effect).mean(0) == pytest.approx(effect.mean(0), abs=0.15)


@pytest.mark.slow
def test_unknown_values_categories_and_constants_are_no_obstacle():
    known, label, random = people(120)
    known.loc[::3, "age"], known.loc[::7, "site"] = np.nan, np.nan
    known = known.assign(sex=1.0 + (np.arange(120) % 2), same=3.0, rare=np.where(np.arange(120) < 100, np.nan, 1.0))
    found = adjustment(known, label)
    assert (found.covariates, found.without) == (["site", "age", "sex"], ("same", "rare"))
    assert np.isfinite(found(random.normal(size=(120, 2)))).all()


@pytest.mark.parametrize(
    "sites, count, used, curved",
    [
        (2, 60, ["site", "age"], True),
        (4, 40, ["site", "age"], False),
        (30, 60, ["age"], True),
        (10, 20, ["age"], False),
    ],
)
def test_the_fewer_people_the_less_is_adjusted_for(sites, count, used, curved):
    random = np.random.default_rng(0)
    known = pd.DataFrame({"site": np.arange(count) % sites, "age": random.normal(size=count)}).astype({"site": str})
    found = adjustment(known.astype({"site": object}), np.arange(count) // 2 % 2.0)
    assert (found.covariates, found.curved) == (used, curved)


@pytest.mark.parametrize(
    "columns, count, reason",
    [
        (0, 40, "no covariates are known"),
        (1, 18, "that takes 10 subjects of each class"),
        (9, 40, "40 subjects are too few for the covariates 0, 1, 2, 3, 4, 5, 6, 7, 8"),
    ],
)
def test_why_nothing_is_adjusted(columns, count, reason):
    values = np.random.default_rng(0).normal(size=(count, columns))
    found = adjustment(pd.DataFrame(values, columns=list(map(str, range(columns)))), np.arange(count) % 2.0)
    assert (found.reason, found.covariates) == (reason, [])
    assert (found(np.eye(count)) == np.eye(count)).all()


def test_covariates_are_of_the_tested_people_sorted_by_name(cohort):
    from data.cohorts.stored import open_cohort

    opened = open_cohort(cohort)
    rows = [opened.rows[at] for at in (5, 3, 4)]
    known = covariates_of(opened, rows)
    assert known.index.tolist() == sorted(row.subject for row in rows)
    assert list(known) == ["site", "AGE_AT_SCAN", "SEX", "log func_mean_fd", "fiq"]
    assert known["fiq"].equals(opened.raw_phenotype["fiq"].reindex(known.index))
    bare = cohort_of()
    assert "age" not in covariates_of(bare, bare.rows)
