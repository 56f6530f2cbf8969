"""External validity against statsmodels, SciPy and numbers made by hand; what the page says of it."""

import re
import shutil
from dataclasses import astuple, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers import an_identity, read_rows, resealed
from scipy import stats
from scipy.special import expit

from data.cohorts.stored import open_cohort
from data.likeness import reference as likeness
from data.likeness.reasons import Range
from data.likeness.reference import Compared, Expected
from utils.evaluation import comparisons, external
from utils.evaluation.external import TrainingScore, binary, calibration, known_of, more_often, moved, shifts, tables
from utils.report import build
from utils.report import people as page
from utils.scores import floors
from utils.scores.metrics import Predictions
from utils.scores.results import Estimate

BEFORE = TrainingScore({"auc": Estimate(0.8, 0.75, 0.85), "auc_sites": Estimate(0.78, 0.7, 0.83)}, 700, "10 folds")


def drawn(count: int, seed: int, slope: float = 1.0, intercept: float = 0.0) -> Predictions:
    """People whose true log odds are a line of those that are predicted."""
    random = np.random.default_rng(seed)
    odds = random.normal(0, 1.2, count)
    label = (random.random(count) < expit(intercept + slope * odds)).astype(float)
    return Predictions(label, expit(odds), np.arange(count), site=np.arange(count) % 2)


def by_statsmodels(predictions: Predictions) -> dict[str, tuple[float, float, float]]:
    odds, label = np.log(predictions.probability / (1 - predictions.probability)), predictions.label
    one = np.ones(len(label))
    large = sm.GLM(label, one, sm.families.Binomial(), offset=odds).fit()
    slope = sm.Logit(label, sm.add_constant(odds)).fit(disp=0)
    return {
        "in_the_large": (large.params[0], *large.conf_int()[0]),
        "slope": (slope.params[1], *slope.conf_int()[1]),
    }


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.4, -1.0), (2.5, 0.7), (-0.5, 0.0)])
def test_calibration_is_that_of_statsmodels(slope, intercept):
    predictions = drawn(150, 3, slope, intercept)
    found, expected = calibration(predictions), by_statsmodels(predictions)
    assert list(found) == list(expected)
    for name, numbers in expected.items():
        assert list(astuple(found[name])) == pytest.approx(numbers, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_intervals_of_calibration_hold_the_truth_where_it_is_right_and_where_it_is_not():
    for slope, intercept in ((1.0, 0.0), (0.5, -0.5)):
        found = [calibration(drawn(200, seed, slope, intercept)) for seed in range(80)]
        held = np.mean([one["slope"].low < slope < one["slope"].high for one in found])
        assert 0.9 < held < 0.99
        right = np.mean([one["in_the_large"].low < 0 < one["in_the_large"].high for one in found])
        assert right > 0.9 if intercept == 0 else right < 0.4


def test_records_of_a_person_count_once():
    once = drawn(60, 1)
    every = np.repeat(np.arange(60), 3)
    three = Predictions(once.label[every], once.probability[every], once.subject[every], site=once.site[every])
    assert astuple(calibration(three)["slope"]) == pytest.approx(astuple(calibration(once)["slope"]))


def test_families_make_the_intervals_of_calibration_wider():
    """As if everybody stood there once; of strangers, twice as many people are surer."""
    once = drawn(200, 3)
    names = np.arange(400)
    twice = replace(
        once, label=np.tile(once.label, 2), probability=np.tile(once.probability, 2), subject=names,
        site=None if once.site is None else np.tile(once.site, 2), peers=None,
    )  # fmt: skip
    pairs = replace(twice, person=names % 200)
    for name in ("in_the_large", "slope"):
        single, alone, related = (np.ptp(calibration(of)[name].numbers[1:]) for of in (once, twice, pairs))
        assert alone == pytest.approx(single / np.sqrt(2), rel=0.01)
        assert related == pytest.approx(single, rel=0.01)


def test_what_is_not_defined_has_no_row():
    one_class = Predictions(np.ones(30), np.linspace(0.1, 0.9, 30), np.arange(30))
    assert calibration(one_class) == {}
    label = np.repeat([0.0, 1.0], 15)
    apart = Predictions(label, np.where(label == 1, 0.7, 0.3) + np.linspace(0, 0.1, 30), np.arange(30))
    assert list(calibration(apart)) == ["in_the_large"]
    constant = Predictions(label, np.full(30, 0.4), np.arange(30))
    assert list(calibration(constant)) == ["in_the_large"]
    assert calibration(constant)["in_the_large"].value == pytest.approx(-np.log(0.4 / 0.6))
    few = calibration(drawn(12, 0))
    assert few["slope"].low is few["in_the_large"].high is None and few["slope"].value is not None


@pytest.mark.slow
def test_a_shift_is_that_of_medians_in_robust_standard_deviations():
    normal = stats.norm(10, 2)
    of = Range(*normal.ppf([0.05, 0.5, 0.95]))
    values = np.random.default_rng(0).normal(13, 2, 41)
    found = moved(of, "age", values)
    assert found["value"] == pytest.approx((np.median(values) - 10) / 2)
    ranks = stats.binom(41, 0.5).ppf([0.025, 0.975]).astype(int)  # the sign test, by order statistics
    ends = (np.sort(values)[[ranks[0] - 1, ranks[1]]] - 10) / 2
    assert found["low"] == pytest.approx(ends[0], abs=0.15) and found["high"] == pytest.approx(ends[1], abs=0.15)
    held = [moved(of, "age", np.random.default_rng(seed).normal(10, 2, 30)) for seed in range(200)]
    assert np.mean([one["low"] <= 0 <= one["high"] for one in held]) >= 0.95
    assert moved(of, "age", values[:9])["low"] is None


def test_a_share_is_compared_in_standard_deviations():
    found = more_often(30, 40, 0.5)
    low, high = stats.binomtest(30, 40).proportion_ci(method="wilson")
    assert list(found.values()) == pytest.approx([0.5, (low - 0.5) / 0.5, (high - 0.5) / 0.5, 40])
    assert more_often(3, 4, 0.5)["low"] is None
    assert binary({"1": 0.6, "2": 0.2, "unknown": 0.2}) == {"2": pytest.approx(0.25)}
    assert binary({"a": 0.5, "b": 0.25, "c": 0.25}) == {"a": 0.5, "b": 0.25, "c": 0.25}


def test_shifts_are_of_what_both_have():
    ranges = {
        "falff": {"log sd": Range(-1.0, 0.0, 1.0)},
        "person": {"age": Range(8.0, 15.0, 34.0), "iq": Range(80.0, 100.0, 120.0)},
    }
    expected = Expected({"SEX": {"1": 0.8, "2": 0.2}, "scanner": {"x": 0.5, "y": 0.5}}, ())
    of = SimpleNamespace(constants=SimpleNamespace(ranges=ranges, expected=expected))
    values = pd.DataFrame(
        {("falff", "log sd"): np.full(20, 0.5), ("falff", "new"): 0.0, ("person", "age"): [40.0, np.nan] * 10}
    )
    table = pd.DataFrame({"SEX": ["1", "2", "", "2"] * 5})
    found = {one["measure"]: one for one in shifts(of, Compared(values, table, []))}
    assert list(found) == ["falff: spread", "age", "SEX 2"]
    assert found["falff: spread"]["kind"] == "shift of maps"
    assert found["falff: spread"]["value"] == pytest.approx(0.5 / (1 / 1.6449), rel=1e-4)
    assert found["age"]["value"] == pytest.approx(25 / (26 / 3.2897), rel=1e-4) and found["age"]["people"] == 10
    assert found["SEX 2"]["value"] == pytest.approx((10 / 15 - 0.2) / 0.4)


def predictions_table(cohort) -> pd.DataFrame:
    rows = [cohort.rows[at] for at in cohort.indices("test")]
    probability = np.random.default_rng(0).random(len(rows))
    cells = [(of.file, of.subject, of.site, of.label, p) for of, p in zip(rows, probability, strict=True)]
    return pd.DataFrame(cells, columns=["file", "subject", "site", "label", "probability"])


@pytest.fixture(scope="module")
def new(cohort):
    """The training people of the small demo cohort as 36 new people, and what they were: a reference of themselves."""
    opened = open_cohort(cohort)
    of = likeness.reference(opened, opened.indices("train"))
    return replace(opened, rows=tuple(replace(of, split="test") for of in opened.rows)), of


@pytest.mark.slow
def test_tables_of_people_with_and_without_labels_and_references(new):
    cohort, of = new
    table = predictions_table(cohort)
    found, told = tables(cohort, table, external.Known(BEFORE, of), 0)
    kinds = found["kind"].value_counts()
    assert kinds["score"] == 5 and kinds["calibration"] == 2 and kinds["unlike"] == 1 and kinds["shift"] > 3
    auc = found.set_index("measure").loc["auc"]
    assert auc["training"] == 0.8 and auc["how"] == "10 folds" and auc["training_people"] == 700
    assert np.isnan(found.set_index("measure").loc["accuracy", "training"])
    assert list(told) == ["file", "subject", "reasons"]
    share = found[found["kind"] == "unlike"].iloc[0]
    assert share["value"] == pytest.approx(len(told) / 40) and share["people"] == 40
    ages = found.set_index("measure").loc["age"]
    assert abs(ages["value"]) < 0.2 and ages["low"] <= 0 <= ages["high"]
    unlabelled, _ = tables(cohort, table.assign(label=np.nan), external.Known(BEFORE, of), 0)
    assert set(unlabelled["kind"]) == {"unlike", "shift", "shift of maps"}
    alone, told = tables(cohort, table, external.Known(), 0)
    assert set(alone["kind"]) == {"score", "calibration"} and "training" not in alone and told.empty
    one, _ = tables(cohort, table.assign(label=1.0), external.Known(BEFORE), 0)
    assert set(one["kind"]) == {"score"} and np.isnan(one.set_index("measure").loc["auc", "value"])
    assert tables(cohort, table.assign(label=np.nan), external.Known(), 0)[0].empty


@pytest.mark.slow
def test_who_is_unlike_is_listed_with_reasons(new):
    cohort, of = new
    raw = cohort.raw_phenotype.assign(age=lambda table: np.where(np.arange(40) == 7, 95.0, table["age"]))
    other = replace(cohort)
    vars(other)["raw_phenotype"] = raw
    _, told = tables(other, predictions_table(cohort), external.Known(reference=of), 0)
    reasons = told.set_index("file").loc[cohort.rows[7].file, "reasons"]
    assert reasons.startswith("age 95, nine in ten training people ")


@pytest.mark.slow
def test_training_people_are_known_as_long_as_their_cohort_is_there(cohort, monkeypatch):
    opened = open_cohort(cohort)
    of_data = {"cohort": str(opened.path), "records_sha256": opened.records_sha256}
    saved = an_identity(**of_data, training_subjects=tuple(opened.subjects("train")[:30]))

    def run(**changes):
        return SimpleNamespace(cohort=opened, checkpoints=SimpleNamespace(identity=lambda: replace(saved, **changes)))

    assert known_of(run()).reference.constants.count == 30
    assert known_of(run(cohort="gone")).reference is None
    assert known_of(run(training_subjects=("1", "2"))).reference is None
    other = replace(opened, metadata=replace(opened.metadata, maps=("alff",)))
    of_other = SimpleNamespace(cohort=other, checkpoints=run().checkpoints)
    assert known_of(of_other).reference is None


@pytest.mark.slow
def test_linear_floors_stand_in_for_those_of_people_who_are_not_there(cohort, tmp_path):
    opened = open_cohort(cohort)
    of = floors.fit_linear(opened)
    strangers = replace(opened, rows=tuple(replace(of, split="test") for of in opened.rows))
    checkpoints = SimpleNamespace(identity=lambda: an_identity(cohort="gone"))
    run = SimpleNamespace(cohort=strangers, checkpoints=checkpoints, out_dir=tmp_path)
    assert comparisons.write_floors(run, of) == [comparisons.LINEAR_FLOORS]
    found = pd.read_csv(tmp_path / "floor_predictions.csv").set_index("file")
    expected = floors.predict_linear(of, strangers, range(40))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)


def external_table(*rows: tuple) -> pd.DataFrame:
    columns = [
        "kind",
        "measure",
        "value",
        "low",
        "high",
        "training",
        "training_low",
        "training_high",
        "training_people",
        "how",
        "people",
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(how=table["how"].fillna(""))


NAN = np.nan
SCORE = ("score", "auc", 0.7, 0.6, 0.8, 0.8, 0.75, 0.85, 700, "10 folds", NAN)
UNLIKE = ("unlike", "unlike the training people", 0.05, 0.01, 0.2, NAN, NAN, NAN, NAN, "", 40)


def calibrated(name: str, value: float, low: float, high: float) -> tuple:
    return ("calibration", name, value, low, high, NAN, NAN, NAN, NAN, "", NAN)


@pytest.mark.parametrize(
    ("large", "slope", "words"),
    [
        ((-0.5, -0.9, -0.1), (0.5, 0.3, 0.8), ["too high on average", "the probabilities are too sure"]),
        ((0.5, 0.1, 0.9), (2, 1.3, 2.8), ["too low on average", "are not sure enough"]),
        (
            (0.1, -0.1, 0.3),
            (1.1, 0.8, 1.4),
            ["are not shown to be wrong on average", "1.10 (0.80 to 1.40), 1 is right: not shown to be wrong"],
        ),
        ((0.1, NAN, NAN), (-1, -1.5, -0.5), ["so few", "look for exchanged labels"]),
    ],
)
def test_the_page_says_what_calibration_means(large, slope, words):
    table = external_table(SCORE, UNLIKE, calibrated("in_the_large", *large), calibrated("slope", *slope))
    text = " ".join(page.about_external(table, by_checkpoint=True))
    assert all(part in text for part in words), text
    assert "those of the training: 10 folds, 700 people" in text
    assert "2 of 40 records (5%; 95% interval 1% to 20%) are unlike the training people" in text
    rows = page.external_scores(table)
    assert rows[0] == {
        "measure": "AUC, all people together",
        "these people": "0.700 (0.600 to 0.800)",
        "in the training": "0.800 (0.750 to 0.850)",
    }
    assert [of["measure"] for of in rows[1:]] == ["calibration in the large", "calibration slope"]


def test_the_page_says_what_is_not_known():
    score = ("score", "auc", 0.7, 0.6, 0.8, *[NAN] * 4, "", NAN)
    text = " ".join(page.about_external(external_table(score), by_checkpoint=True))
    assert "No score of the training is known." in text
    assert "None of these people took part" in text and "It is not known in what these people differ" in text
    text = " ".join(page.about_external(external_table(UNLIKE), by_checkpoint=False))
    assert "score" not in text and "took part" not in text and page.external_scores(external_table(UNLIKE)) == []


@pytest.mark.slow
def test_the_report_of_new_people_is_built_and_built_again(cli, trained, cohort, tmp_path, undrawn):
    """The test people of the demo cohort, as a cohort of their own."""
    shutil.copytree(cohort, tmp_path / "new")
    rows = read_rows(cohort / "subjects.csv")
    for of in rows:
        if of["split"] == "train":
            (tmp_path / "new" / of["file"]).unlink()
    lines = [",".join(of.values()) for of in rows if of["split"] == "test"]
    (tmp_path / "new" / "subjects.csv").write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    resealed(tmp_path / "new")
    places = ("--chkPointDir", trained, "--dataDir", tmp_path / "new", "--outDir", tmp_path / "out")
    outcome = cli("--test", "--model", "cnn", *places)
    assert outcome.status == 0, outcome.err
    table = pd.read_csv(tmp_path / "out" / "external.csv")
    assert {"score", "shift", "unlike"} <= set(table["kind"])
    before = (tmp_path / "out" / "report.html").read_text()
    assert "External validity" in before and "How these people differ from those of the training" in before
    (tmp_path / "out" / "report.html").unlink()
    build.write(tmp_path / "out")
    again = (tmp_path / "out" / "report.html").read_text()
    assert re.sub(r"\d+ s</dd>", "", again) == re.sub(r"\d+ s</dd>", "", before)
    own = cli("--test", "--model", "cnn", "--chkPointDir", trained, "--dataDir", cohort, "--outDir", tmp_path / "own")
    assert own.status == 0 and not (tmp_path / "own" / "external.csv").exists()
