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

from utils.evaluation.external import make_external_score_rows

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
def found(strangers) -> pd.DataFrame:
    return pd.read_csv(strangers / "test" / "external.csv").set_index("measure")


@pytest.fixture(scope="module")
def scores(found) -> pd.DataFrame:
    return found[found["kind"] == "score"]


@pytest.fixture(scope="module")
def predicted(strangers) -> pd.DataFrame:
    return pd.read_csv(strangers / "test" / "predictions.csv", dtype={"subject": str})


def ends_of(row: pd.Series) -> list[float]:
    return [float(row[name]) for name in ("value", "low", "high")]


@pytest.mark.slow
def test_the_score_stands_beside_that_of_the_folds(scores, predicted, on_folds):
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
def test_calibration_is_that_of_statsmodels(found, predicted):
    p, label = predicted["probability"], predicted["label"]
    odds = np.log(p / (1 - p))
    large = sm.GLM(label, np.ones(COUNT), sm.families.Binomial(), offset=odds).fit()
    slope = sm.Logit(label, sm.add_constant(odds.to_numpy())).fit(disp=0)
    of = found[found["kind"] == "calibration"]
    expected = {"slope": slope.params.iloc[1], "intercept": large.params.iloc[0], "brier": brier_score_loss(label, p)}
    assert of["value"].to_dict() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert (of["low"] < of["value"]).all() and (of["value"] < of["high"]).all()
    assert [*found.index[found["kind"] == "calibrated"]] == ["slope", "intercept", "brier"]


def test_intervals_of_calibration_are_like_those_of_wald():
    """Of many people, whose probabilities are too sure and too high."""
    random = np.random.default_rng(0)
    odds = random.normal(0, 1, 500)
    label = (random.random(500) < 1 / (1 + np.exp(-odds))).astype(float)
    told = 1.5 * odds + 0.4
    rows = make_external_score_rows(make_predictions(label, 1 / (1 + np.exp(-told))), 0)
    of = {row["measure"]: row for row in rows if row["kind"] == "calibration"}
    slope = sm.Logit(label, sm.add_constant(told)).fit(disp=0).conf_int()[1]
    large = sm.GLM(label, np.ones(500), sm.families.Binomial(), offset=told).fit().conf_int()[0]
    for name, (low, high) in (("slope", slope), ("intercept", large)):
        ends = [of[name]["low"], of[name]["high"]]
        assert ends == pytest.approx([low, high], abs=(high - low) / 5)


def sex_and_age(folder: Path) -> pd.DataFrame:
    table = labs.read_table(folder / "covariates.csv")
    return table.assign(age=pd.to_numeric(table["AGE_AT_SCAN"]), female=table["SEX"].astype(float) == 2)


@pytest.mark.slow
def test_a_shift_is_that_of_medians_in_robust_standard_deviations(found, strangers, converted):
    before, now = sex_and_age(converted), sex_and_age(strangers / "cohort")
    low, middle, high = np.quantile(before["age"], [0.05, 0.5, 0.95])
    sd = (high - low) / (2 * stats.norm.ppf(0.95))
    ranks = stats.binom(COUNT, 0.5).ppf([0.025, 0.975]).astype(int)  # the sign test, by order statistics
    ages = np.sort(now["age"])
    ends = [np.median(ages), ages[ranks[0] - 1], ages[ranks[1]]]
    assert ends_of(found.loc["age"]) == pytest.approx([(end - middle) / sd for end in ends], abs=0.1)
    assert found.loc["age", "participants"] == COUNT and found.loc["age", "kind"] == "shift"
    share = before["female"].mean()
    shares = [now["female"].mean(), *proportion_confint(now["female"].sum(), COUNT, method="wilson")]
    expected = [(one - share) / np.sqrt(share * (1 - share)) for one in shares]
    assert ends_of(found.loc["SEX 2"]) == pytest.approx(expected)
    assert (found["kind"] == "shift of maps").sum() > 2


@pytest.mark.slow
def test_who_is_unlike_is_listed_with_reasons(found, strangers):
    unlike = labs.read_table(strangers / "test" / "out_of_distribution.csv")
    assert list(unlike) == ["file", "subject", "reasons"]
    share = found[found["kind"] == "out of distribution"].iloc[0]
    expected = proportion_confint(len(unlike), COUNT, method="wilson")
    assert ends_of(share) == pytest.approx([len(unlike) / COUNT, *expected]) and share["participants"] == COUNT
    assert unlike.set_index("subject").loc["70009", "reasons"].startswith("age 95, usually ")
    assert f"\nout of distribution  {len(unlike)} " in re.sub("  +", "  ", (strangers / "test.out").read_text())


@pytest.mark.slow
def test_what_is_not_known_has_no_row(strangers, everybody, converted, on_folds, newcomers, undrawn, tmp_path):
    """Without the training people; of too few for an interval; and of people who are not new."""
    ckpt = shutil.copytree(everybody / "ckpt", tmp_path / "ckpt")
    labs.edit(ckpt / "mmnn/everybody/ckpt-4.json", {"cohort": str(tmp_path / "gone")})
    told = "not at hand"
    assert told in done(TEST, ckpt=ckpt, of=newcomers, to=tmp_path / "test")
    assert told in (tmp_path / "test/report.html").read_text()
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
def others(lab, bundle, tmp_path_factory) -> Path:
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
    other_maps = CONVERT_OPTIONS.replace("all", "falff")
    done(f"abide-data convert {{to}}/noisy-lab {{to}}/plain {other_maps}", to=folder, lab=lab)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("by", BY)
def test_guards_of_a_checkpoint_hold_for_a_bundle(by, others, everybody, bundle, tmp_path, undrawn):
    """As far as it tells who trained it: no scan of one person is in a bundle, so that one of many is not known."""
    command = f"run.py --test {BY[by]} --dataDir {{others}}/{{of}} --outDir {{to}}"
    places = {"ckpt": everybody, "model": bundle, "others": others, "to": tmp_path / "out"}
    refused(command, "trained", of="again", **places)
    refused(command, "was trained on data", of="plain", **places)
    if by == "checkpoint":
        refused(command, "60002 has that of 50002", "--exclude", of="noisy", **places)
    else:
        told = "cannot be checked: it holds no scan or ID"
        assert told in done(command, of="noisy", **places) and told in (tmp_path / "out/report.html").read_text()
