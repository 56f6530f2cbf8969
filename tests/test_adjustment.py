"""What covariates leave of values: which of them, of their products and curves enter, and for how many people."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from utils.scores.adjustment import adjustment, residuals, spanned


def people(count: int = 200, sites: int = 2) -> tuple[pd.DataFrame, np.random.Generator]:
    random = np.random.default_rng(0)
    site = np.array([f"site {number % sites}" for number in range(count)], object)
    sex = random.choice(np.array(["F", "M"], object), count)
    return pd.DataFrame({"site": site, "age": random.normal(20, 5, count), "sex": sex}), random


@pytest.mark.parametrize("read", ["sex by age", "age by site", "square", "kink", "step"])
def test_what_a_value_follows_enters_and_nothing_else_does(read):
    """Beside the terms that enter, nothing of the term is left; of noise, nothing enters."""
    known, random = people()
    age = (known["age"] - 20) / 5
    sign = {"sex by age": known["sex"] == "M", "age by site": known["site"] == "site 0"}
    terms = {name: np.where(mask, 1, -1) * age for name, mask in sign.items()}
    terms |= {"square": age**2, "kink": np.maximum(age, 0.5), "step": 2.0 * (age > 0)}
    found, noise = adjustment(known), random.normal(size=200)
    term = terms[read].to_numpy()
    assert found.followed(noise) == set()
    left = residuals(term, found.basis(found.followed(3 * term + noise)))
    assert left.std() < 0.35 * residuals(term, found.span).std()


def test_the_covariates_enter_as_lines_and_dummies():
    known, random = people(sites=3)
    value = random.normal(size=200)
    dummies = pd.get_dummies(known[["site", "sex"]], drop_first=True, dtype=float).assign(age=known["age"])
    expected = sm.OLS(value, sm.add_constant(dummies.to_numpy())).fit().resid
    found = adjustment(known)
    assert residuals(value, found.span) == pytest.approx(expected)
    assert np.abs(found.span.T @ found.terms).max() < 1e-9 and found.terms.std(axis=0) == pytest.approx(1)


def test_an_unknown_value_takes_the_median_and_a_mark():
    known, _ = people()
    known.loc[:59, "age"], known.loc[::9, "sex"] = np.nan, np.nan
    filled = known.assign(age=known["age"].fillna(known["age"].median()), sex=known["sex"].fillna("unknown"))
    marked = filled.assign(mark=known["age"].isna().astype(float))
    one, other = (np.round(found.span @ found.span.T, 9) for found in (adjustment(known), adjustment(marked)))
    found = adjustment(known)
    assert (one == other).all() and (found.imputed, found.gaps) == ({"age": 60, "sex": 23}, ("age", "sex"))
    assert found.covariates == ("site", "age", "sex") and found.whole == ("site",)
    assert adjustment(known[["age", "sex"]]).reason == "no covariate can be used", "nothing would go beyond these"


@pytest.mark.parametrize(
    "sites, count, used, no_room",
    [
        (2, 60, ("site", "age", "sex"), {}),
        (15, 60, ("age", "sex"), {}),
        (14, 95, ("site", "age", "sex"), {"site": ["age", "sex"]}),
        (8, 65, ("site", "age", "sex"), {"site": ["age", "sex"]}),
    ],
)
def test_the_fewer_people_the_less_is_adjusted_for_and_what_is_not_is_named(sites, count, used, no_room):
    found = adjustment(people(count, sites)[0])
    assert found.covariates == used and found.no_room == no_room
    assert found.without == (() if "site" in used else ("site",))


def test_a_text_of_many_values_is_left_out_and_not_all_else():
    """Names of people, or of 70 scanners: nothing was adjusted, though age and sex would have had room."""
    known, random = people()
    named = known.assign(note=known.index.astype(str), scanner=random.choice([*"abcdefghij"], 200))
    found = adjustment(named)
    assert found.covariates == ("site", "age", "sex", "scanner") and found.without == ("note",) and not found.reason
    assert found.span == pytest.approx(adjustment(named.drop(columns="note")).span)


def test_a_product_that_one_outlier_carries_most_of_enters():
    """One person is much older than all others: sex by age was left out, and an output that reads it said more."""
    known, random = people()
    known.iloc[0, known.columns.get_loc("age")] = 64
    sign = np.where(known["sex"] == known["sex"].iloc[0], 1, -1)
    term = sign * (known["age"] - known["age"].mean()).to_numpy() / known["age"].std()
    found = adjustment(known)
    left = residuals(term, found.basis(found.followed(term + random.normal(0, 0.3, 200))))
    assert left.std() < 1e-6 and residuals(term, found.span).std() > 0.5


def test_too_few_people_for_any_product_are_told_how_many_would_do():
    """One covariate, the intercept, the value and a product: 4 parameters of 5 people each."""
    found = [adjustment(people(count, 1)[0][["age", "sex"]]) for count in (19, 20, 24, 25)]
    assert found[0].reason == "19 subjects are too few for curves and products of covariates; 20 would do"
    assert [of.covariates for of in found] == [(), ("sex",), ("sex",), ("age", "sex")]
    assert [of.without for of in found] == [("age", "sex"), ("age",), ("age",), ()]
    assert not any(of.reason for of in found[1:])


def test_what_is_unknown_or_alike_in_all_is_named():
    known, random = people()
    rare = pd.Series(random.normal(size=200)).where(np.arange(200) < 99)
    found = adjustment(known.assign(same=3.0, fiq=rare, func_mean_fd=random.normal(size=200)))
    assert found.covariates == ("site", "age", "sex", "func_mean_fd")
    assert found.without[:2] == ("same", "fiq") and found.unknown == ("IQ", "handedness")
    group = np.where(known["age"] < 15, "child", "adult")
    assert adjustment(known[["sex"]].assign(age_group=group, verbal_iq=rare.fillna(0))).unknown[:2] == ("age", "IQ")
    assert adjustment(known[["site"]].assign(site="one")).reason == "no covariate can be used"
    assert [adjustment(known[["age"]], sites).unknown[0] for sites in (["unknown"], ["A"])] == ["site", "sex"]
    assert adjustment(known[["site"]]).unknown == ("age", "sex", "IQ", "handedness", "head motion")
    assert adjustment(known[[]]).span == pytest.approx(spanned(np.empty((200, 0))))


def test_a_value_that_follows_from_a_curve_leaves_nothing():
    known, _ = people()
    value = np.square(known["age"].to_numpy() - known["age"].mean())
    found = adjustment(known)
    assert residuals(value, found.basis(found.followed(value))).std() < 1e-6 * value.std()


def test_slopes_at_many_sites_enter_together_where_each_is_too_small():
    """Of 16 sites with 20 people each."""
    known, random = people(320, 16)
    slope = dict(zip(known["site"].unique(), random.choice([-0.6, 0.6], 16), strict=True))
    term = (known["site"].map(slope) * (known["age"] - 20) / 5).to_numpy()
    found = adjustment(known)
    left = residuals(term, found.basis(found.followed(term + random.normal(size=320))))
    assert left.std() < 1e-6 and residuals(term, found.span).std() > 0.5
    few = adjustment(people(120, 16)[0])
    assert few.no_room == {"site": ["age", "sex"]}
