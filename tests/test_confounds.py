"""The regression on head motion against scikit-learn's, and the line on its result."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from utils.evaluation.confounds import motion, motion_line
from utils.metrics import Predictions


def moving(count: int = 400, seed: int = 0) -> dict:
    """People whose diagnosis goes with head motion alone; what `of` needs beside the network's output."""
    random = np.random.default_rng(seed)
    fd = random.normal(size=count)
    label = (random.random(count) < 1 / (1 + np.exp(-1.5 * fd))).astype(float)
    table = pd.DataFrame(
        {"age": random.uniform(6, 40, count), "func_mean_fd": np.exp(fd)},
        index=[f"s{number}" for number in range(count)],
    ).astype(str)
    return {"label": label, "table": table, "site": random.choice(["A", "B", "C"], count), "subject": list(table.index)}


def of(known: dict, probability: np.ndarray) -> dict | None:
    """The result of `motion`."""
    predictions = Predictions(known["label"], probability, known["subject"], site=known["site"])
    return motion(predictions, known["table"])


def output(known: dict, of_label: float, of_motion: float) -> np.ndarray:
    noise = np.random.default_rng(5).normal(size=len(known["label"]))
    fd = np.log(known["table"]["func_mean_fd"].astype(float).to_numpy())
    return 1 / (1 + np.exp(-(of_label * known["label"] + of_motion * fd + noise)))


def test_an_output_that_reads_motion_carries_nothing_more():
    known = moving()
    probability = output(known, 0, 2)
    assert metrics.roc_auc_score(known["label"], probability) > 0.7
    found = of(known, probability)
    assert found["low"] < 0 < found["high"] and found["p"] > 0.05
    assert "Is it motion? The network's output is not shown to carry more than site, age and log func_mean_fd: " in (
        motion_line(found)
    )


def test_an_output_that_reads_the_label_carries_more_and_its_coefficient_is_scikit_learns():
    known = moving()
    probability = output(known, 1, 0)
    found = of(known, probability)
    logit = np.log(probability / (1 - probability))
    values = np.column_stack([
        (logit - logit.mean()) / logit.std(),
        known["table"]["age"].astype(float) / 10,
        np.log(known["table"]["func_mean_fd"].astype(float)),
        *(known["site"] == name for name in "AB"),
    ])  # fmt: skip
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=5000).fit(values, known["label"])
    assert found["coefficient"] == pytest.approx(fitted.coef_[0, 0], rel=1e-3)
    design = np.column_stack([np.ones(400), values])
    chance = fitted.predict_proba(values)[:, 1]
    spread = np.sqrt(np.linalg.inv(design.T @ (design * (chance * (1 - chance))[:, None]))[1, 1])
    assert found["high"] - found["low"] == pytest.approx(2 * 1.959964 * spread, rel=1e-3)
    assert (found["subjects"], found["left_out"], found["without"]) == (400, 0, [])
    assert "carries more than site, age and log func_mean_fd" in motion_line(found)


def test_several_records_of_a_subject_count_once():
    known = moving()
    probability = output(known, 1, 0)
    twice = {name: np.repeat(known[name], 2) for name in ("label", "site", "subject")} | {"table": known["table"]}
    spread = np.repeat(np.log(probability / (1 - probability)), 2) + np.tile([-0.3, 0.3], 400)
    found = of(twice, 1 / (1 + np.exp(-spread)))
    once = of(known, probability)
    assert found == {name: value if isinstance(value, list) else pytest.approx(value) for name, value in once.items()}


def test_who_is_left_out_is_counted_and_what_is_not_used_is_named():
    known = moving(60)
    known["table"]["scanner"] = [""] * 50 + ["x"] * 10  # too rarely known
    known["table"].iloc[:5, 0] = "-9999"
    known["site"] = np.array([f"site {number % 12}" for number in range(60)])
    found = of(known, output(known, 1, 0))
    assert (found["subjects"], found["left_out"]) == (55, 5)
    assert found["covariates"] == ["age", "log func_mean_fd"] and found["without"] == ["site", "scanner"]
    assert motion_line(found).endswith("; 55 subjects, 5 left out, without site and scanner).")


def test_sites_of_one_class_are_left_out():
    known = moving()
    known["site"] = np.where(np.arange(400) < 20, np.where(known["label"] == 1, "all autism", "A"), known["site"])
    found = of(known, output(known, 1, 0))
    assert found["left_out"] == (known["site"] == "all autism").sum() > 0
    assert "coefficient" in found


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"probability": np.where(moving()["label"] == 1, 0.9, 0.1)}, "separate the classes perfectly"),
        ({"probability": np.full(400, 0.3)}, "the same for everybody"),
        ({"label": np.ones(400)}, "one class"),
    ],
)
def test_what_cannot_be_computed_is_said(change, reason):
    known = moving() | {"probability": output(moving(), 1, 0)} | change
    found = of(known, known["probability"])
    assert "coefficient" not in found
    assert reason in motion_line(found)


def test_too_few_subjects_are_said():
    known = moving(20)
    found = of(known, output(known, 1, 0))
    assert motion_line(found) == ("Is it motion? It cannot be computed: 20 subjects are too few for 4 parameters.")


def test_sites_of_one_class_each_are_too_few_subjects_not_one_class():
    known = moving(6)
    known |= {"label": np.array([0, 0, 0, 1, 1, 1]), "site": list("AABCDE")}
    line = motion_line(of(known, np.linspace(0.1, 0.9, 6)))
    assert "6 subjects are too few" in line


def test_the_site_as_the_only_covariate_may_have_too_few_subjects():
    known = moving(40)
    known["table"] = known["table"][[]]
    known["site"] = [f"site {number % 10}" for number in range(40)]
    line = motion_line(of(known, np.linspace(0.1, 0.9, 40)))
    assert line.endswith("It cannot be computed: no covariate can be used.")


def test_unknown_covariates_and_unknown_motion_are_said():
    known = moving()
    assert of(known | {"table": None}, output(known, 1, 0)) is None
    assert "covariates are unknown" in motion_line(None)
    probability = output(known, 1, 0)
    known["table"] = known["table"][["age"]]
    line = motion_line(of(known, probability))
    assert line.startswith("Is it the covariates? Head motion is not among them. The network's output carries more")


@pytest.mark.parametrize("sites", [["A", "B"], ["A", "A"]])
def test_two_people_with_the_site_as_the_only_covariate(sites):
    known = moving(2) | {"label": np.array([0.0, 1.0]), "site": np.array(sites)}
    known["table"] = pd.DataFrame({"site": sites}, index=known["subject"])
    assert motion_line(of(known, np.array([0.4, 0.6]))).endswith("It cannot be computed: no covariate can be used.")


COLUMNS = {  # what a covariate may hold
    "unknown": st.just(""),
    "constant": st.just("1"),
    "number": st.integers(-2, 9).map(str),
    "text": st.sampled_from(["M", "F", "", "n/a"]),
}


@st.composite
def few_people(draw) -> dict:
    count = draw(st.integers(1, 24))
    several = {"min_size": count, "max_size": count}
    site = draw(st.lists(st.sampled_from(draw(st.sampled_from(["A", "AB", "ABC"]))), **several))
    names = draw(st.lists(st.sampled_from(["site", "age", "mean_fd", "sex"]), unique=True))
    columns = {
        name: site if name == "site" else draw(st.lists(COLUMNS[draw(st.sampled_from(sorted(COLUMNS)))], **several))
        for name in names
    }
    subject = [f"s{number}" for number in range(count)]
    label = draw(st.lists(st.sampled_from([0.0, 1.0]), **several))
    probability = draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), **several))
    known = {"label": np.array(label), "subject": subject, "site": np.array(site)}
    return known | {"table": pd.DataFrame(columns, index=subject), "probability": np.array(probability)}


@settings(max_examples=60)
@given(few_people())
def test_of_few_people_and_any_covariates_there_is_a_result_or_a_reason(known):
    found = of(known, known["probability"])
    assert ("coefficient" in found) != ("reason" in found)
    assert motion_line(found).startswith("Is it ")
