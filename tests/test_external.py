"""External validity: a test of people of whom nobody was trained on, against statsmodels, SciPy and numbers by hand."""

import json
import re
import shutil
from pathlib import Path

import lab as labs
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from commands import done, refused
from conftest import CONVERT_OPTIONS, without_drawing
from helpers import make_predictions
from scipy import stats
from sklearn.metrics import brier_score_loss, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from utils.evaluation.external import make_external_score_and_calibration_rows

COUNT = 30
TEST = "run.py --test --everybody --chkPointDir {ckpt} --dataDir {of} --outDir {to}"


@pytest.fixture(scope="module")
def strangers(everybody, converted, tmp_path_factory) -> Path:
    """A folder with the cohort of 30 people, of whom all are ten years older, and a test of them."""
    folder = tmp_path_factory.mktemp("strangers")
    table = labs.people(COUNT, 70002)
    table["AGE_AT_SCAN"] = [f"{float(age) + 10:.2f}" for age in table["AGE_AT_SCAN"]]
    table.loc[7, "AGE_AT_SCAN"] = "95"
    labs.pcp(folder / "lab", table, ("falff", "alff"), series=True)
    with without_drawing():
        done("abide-data convert {to}/lab {to}/cohort --like {of}", of=converted, to=folder)
        printed = done(TEST, ckpt=everybody / "ckpt", of=folder / "cohort", to=folder / "test")
        (folder / "test.out").write_text(printed)
    return folder


@pytest.fixture(scope="module")
def external_table(strangers) -> pd.DataFrame:
    return pd.read_csv(strangers / "test" / "external.csv").set_index("measure")


@pytest.fixture(scope="module")
def scores(external_table) -> pd.DataFrame:
    return external_table[external_table["kind"] == "score"]


@pytest.fixture(scope="module")
def predicted(strangers) -> pd.DataFrame:
    return pd.read_csv(strangers / "test" / "predictions.csv", dtype={"subject": str})


def value_and_ends(row: pd.Series) -> list[float]:
    return [float(row[name]) for name in ("value", "low", "high")]


@pytest.mark.slow
def test_the_score_is_listed_with_the_fold_score(scores, predicted, on_folds):
    label, probability = predicted["label"], predicted["probability"]
    expected = {"auc": roc_auc_score(label, probability), "brier": brier_score_loss(label, probability)}
    before = json.loads((on_folds / "test" / "metrics.json").read_text())
    assert [*scores.index] == ["auc_sites", "auc", "accuracy", "balanced_accuracy", "brier"]
    for name in ("auc_sites", "auc", "brier"):
        row = scores.loc[name]
        assert row["value"] == pytest.approx(expected.get(name, row["value"])) and row["low"] <= row["value"]
        trained = [row["training"], row["training_low"], row["training_high"]]
        assert trained == pytest.approx([*before[name].values()])
        assert (row["how"], row["training_people"]) == ("in 3 folds", 40)


@pytest.mark.slow
def test_calibration_equals_statsmodels(external_table, predicted):
    p, label = predicted["probability"], predicted["label"]
    odds = np.log(p / (1 - p))
    large = sm.GLM(label, np.ones(COUNT), sm.families.Binomial(), offset=odds).fit()
    slope = sm.Logit(label, sm.add_constant(odds.to_numpy())).fit(disp=0)
    calibration_rows = external_table[external_table["kind"] == "calibration"]
    expected = {"slope": slope.params.iloc[1], "intercept": large.params.iloc[0], "brier": brier_score_loss(label, p)}
    assert calibration_rows["value"].to_dict() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert (calibration_rows["low"] < calibration_rows["value"]).all() and (
        calibration_rows["value"] < calibration_rows["high"]
    ).all()
    assert [*external_table.index[external_table["kind"] == "calibrated"]] == ["slope", "intercept", "brier"]


def test_calibration_intervals_resemble_walds():
    """Of many people, whose probabilities are too sure and too high."""
    random = np.random.default_rng(0)
    odds = random.normal(0, 1, 500)
    label = (random.random(500) < 1 / (1 + np.exp(-odds))).astype(float)
    predicted_log_odds = 1.5 * odds + 0.4
    rows = make_external_score_and_calibration_rows(make_predictions(label, 1 / (1 + np.exp(-predicted_log_odds))), 0)
    row_by_measure = {row["measure"]: row for row in rows if row["kind"] == "calibration"}
    slope = sm.Logit(label, sm.add_constant(predicted_log_odds)).fit(disp=0).conf_int()[1]
    large = sm.GLM(label, np.ones(500), sm.families.Binomial(), offset=predicted_log_odds).fit().conf_int()[0]
    for name, (low, high) in (("slope", slope), ("intercept", large)):
        ends = [row_by_measure[name]["low"], row_by_measure[name]["high"]]
        assert ends == pytest.approx([low, high], abs=(high - low) / 5)


def sex_and_age(folder: Path) -> pd.DataFrame:
    table = labs.read_table(folder / "covariates.csv")
    return table.assign(age=pd.to_numeric(table["AGE_AT_SCAN"]), female=table["SEX"].astype(float) == 2)


@pytest.mark.slow
def test_a_shift_is_between_medians_in_robust_standard_deviations(external_table, strangers, converted):
    before, now = sex_and_age(converted), sex_and_age(strangers / "cohort")
    low, middle, high = np.quantile(before["age"], [0.05, 0.5, 0.95])
    sd = (high - low) / (2 * stats.norm.ppf(0.95))
    ranks = stats.binom(COUNT, 0.5).ppf([0.025, 0.975]).astype(int)  # the sign test, by order statistics
    ages = np.sort(now["age"])
    ends = [np.median(ages), ages[ranks[0] - 1], ages[ranks[1]]]
    assert value_and_ends(external_table.loc["age"]) == pytest.approx([(end - middle) / sd for end in ends], abs=0.1)
    assert external_table.loc["age", "participants"] == COUNT and external_table.loc["age", "kind"] == "shift"
    share = before["female"].mean()
    female_fractions = [now["female"].mean(), *proportion_confint(now["female"].sum(), COUNT, method="wilson")]
    expected = [(fraction - share) / np.sqrt(share * (1 - share)) for fraction in female_fractions]
    assert value_and_ends(external_table.loc["SEX 2"]) == pytest.approx(expected)
    assert (external_table["kind"] == "shift of maps").sum() > 2


@pytest.mark.slow
def test_unlike_people_are_listed_with_reasons(external_table, strangers):
    unlike = labs.read_table(strangers / "test" / "out_of_distribution.csv")
    assert list(unlike) == ["file", "subject", "reasons"]
    share = external_table[external_table["kind"] == "out of distribution"].iloc[0]
    expected = proportion_confint(len(unlike), COUNT, method="wilson")
    assert value_and_ends(share) == pytest.approx([len(unlike) / COUNT, *expected]) and share["participants"] == COUNT
    assert unlike.set_index("subject").loc["70009", "reasons"].startswith("age 95, usually ")
    assert f"\nout of distribution  {len(unlike)} " in re.sub("  +", "  ", (strangers / "test.out").read_text())


@pytest.mark.slow
def test_unknown_measures_have_no_row(strangers, everybody, converted, on_folds, newcomers, undrawn, tmp_path):
    """Without the training people; of too few for an interval; and of people who are not new."""
    ckpt = shutil.copytree(everybody / "ckpt", tmp_path / "ckpt")
    labs.edit(ckpt / "mmnn/everybody/ckpt-4.json", {"cohort": str(tmp_path / "gone")})
    message = "not at hand"
    assert message in done(TEST, ckpt=ckpt, of=newcomers, to=tmp_path / "test")
    assert message in (tmp_path / "test/report.html").read_text()
    table = pd.read_csv(tmp_path / "test" / "external.csv")
    assert (
        set(table["kind"]) <= {"score", "calibration", "calibrated"}
        and not (tmp_path / "test" / "out_of_distribution.csv").exists()
    )
    measures = table.set_index("measure")
    assert measures.loc[["auc", "intercept"], "low"].isna().all() and measures.loc["auc", "value"] >= 0
    assert not (on_folds / "test" / "external.csv").exists()


# Who and what may be tested


BY = {"checkpoint": "--everybody --chkPointDir {ckpt}/ckpt", "bundle": "--bundle {model}"}


def with_noise(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values * np.random.default_rng(0).uniform(0.999, 1.001, values.shape).astype("f4"), affine


@pytest.fixture(scope="module")
def guard_cohorts(lab, bundle, tmp_path_factory) -> Path:
    """A folder with cohorts made like the training's: `again` of its own people under other names, `noisy` of new ones
    of whom one has a training person's maps with noise, `plain` of new ones with other maps."""
    folder = tmp_path_factory.mktemp("others")
    for name, count in {"again": 40, "noisy": 12}.items():
        labs.pcp(folder / f"{name}-lab", labs.people(count, 60002), ("falff", "alff"), series=True)
        for path in (lab / "cpac").glob("*" if name == "again" else "X_0050002*.nii.gz"):
            shutil.copy(path, folder / f"{name}-lab/cpac" / path.name.replace("X_005", "X_006"))
    for path in (folder / "noisy-lab/cpac").glob("X_0060002*.nii.gz"):
        labs.edit(path, with_noise)
    for name in ("again", "noisy"):
        done("abide-data convert {to}/{name}-lab {to}/{name} --like {model}", to=folder, name=name, model=bundle)
    falff_options = CONVERT_OPTIONS.replace("all", "falff")
    done(f"abide-data convert {{to}}/noisy-lab {{to}}/plain {falff_options}", to=folder, lab=lab)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("by", BY)
def test_checkpoint_guards_hold_for_a_bundle(by, guard_cohorts, everybody, bundle, tmp_path, undrawn):
    """As far as it tells who trained it: no scan of one person is in a bundle, so that one of many is not known."""
    command = f"run.py --test {BY[by]} --dataDir {{others}}/{{of}} --outDir {{to}}"
    places = {"ckpt": everybody, "model": bundle, "others": guard_cohorts, "to": tmp_path / "out"}
    refused(command, "trained", of="again", **places)
    refused(command, "was trained on data", of="plain", **places)
    if by == "checkpoint":
        refused(command, "60002 has that of 50002", "--exclude", of="noisy", **places)
    else:
        message = "cannot be checked: it holds no scan or ID"
        assert message in done(command, of="noisy", **places) and message in (tmp_path / "out/report.html").read_text()
