"""Baselines against scikit-learn computed by hand, nothing leaked into them, and the sentence on what they show."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import add_connectomes
from scipy.optimize import minimize
from scipy.special import logit
from sklearn import metrics
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from data.base.effort import EFFORT
from data.cohorts import atlas, records
from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.connectomes import Connectomes, write_connectomes
from data.cohorts.rows import Metadata, RecordRow
from data.cohorts.stored import open_cohort
from models import MODELS
from utils.evaluation import comparisons
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.record import Manifest, TrainingPeople
from utils.scores import baselines, ridge
from utils.scores.named import assign_baseline_roles, choose_prespecified_baseline

REGIONS = atlas.load_atlas(None, records.REDUCED)


@dataclass
class MadeUp:
    """Stands for a cohort in memory: what baselines read of one, and `level` (n,), added to each whole volume."""

    rows: list[RecordRow]
    phenotype: np.ndarray
    level: np.ndarray
    covariates: pd.DataFrame | None = None
    metadata = Metadata()
    groups = ()
    grid = records.REDUCED
    num_maps = 1
    simulated = False
    connectomes: Connectomes | None = None

    split_indices = Cohort.split_indices

    @property
    def label(self) -> np.ndarray:
        return np.array([row.label for row in self.rows])

    def make_batch(self, indices, with_volumes=True):
        random = np.random.default_rng(int(indices[0]))
        means = np.concatenate(
            [np.zeros((len(indices), 1)), random.normal(size=(len(indices), len(REGIONS.name_by_region)))], axis=1
        )
        volume = means[:, REGIONS.region_labels, None] + self.level[indices][:, None, None, None, None]
        return {"phenotype": self.phenotype[indices].astype(np.float32), "volume": volume.astype(np.float32)}


@pytest.fixture(autouse=True)
def means_of_made_up(monkeypatch):
    """Those of what is made up are computed of its volumes."""
    of_files = atlas.load_parcel_means

    def means_of(cohort, parcels):
        of_memory = isinstance(cohort, MadeUp)
        return [one.average(test_volumes(cohort)) for one in parcels] if of_memory else of_files(cohort, parcels)

    monkeypatch.setattr(atlas, "load_parcel_means", means_of)


def made_up(count: int = 240, seed: int = 0, covariates: bool = True) -> MadeUp:
    """People of four sites, nothing of whom goes with the label; the last site, a quarter, is the test split."""
    random = np.random.default_rng(seed)
    site = np.arange(count) * 4 // count
    rows = [
        RecordRow(f"{number}.bin", f"s{number}", f"site {site[number]}", float(random.integers(2)),
            "test" if site[number] == 3 else "train")
        for number in range(count)
    ]  # fmt: skip
    table = pd.DataFrame(
        {
            "SITE_ID": [row.site for row in rows],
            "AGE_AT_SCAN": random.uniform(6, 40, count).round(2).astype(str),
            "SEX": random.integers(1, 3, count).astype(str),
            "func_mean_fd": random.lognormal(-2, 0.5, count).astype(str),
            "scanner": random.choice(["x", "y", ""], count),
        },
        index=[row.subject for row in rows],
    )
    table.loc[random.random(count) < 0.1, "func_mean_fd"] = "-9999"
    return MadeUp(rows, random.normal(size=(count, 29)), np.zeros(count), table if covariates else None)


def test_volumes(made: MadeUp) -> np.ndarray:
    return np.concatenate(
        [made.make_batch(indices)["volume"] for indices in split_into_batches(np.arange(len(made.rows)), 16)]
    )


test_volumes.__test__ = False


def aucs(made: MadeUp) -> dict[str, float]:
    """AUC of each baseline on the test records."""
    found = baselines.predict_baselines(made)
    label = made.label[made.split_indices("test")]
    return {name: metrics.roc_auc_score(label, found[name]) for name in found if name != baselines.MAJORITY_BASELINE}


def by_hand(made: MadeUp) -> dict[str, np.ndarray]:
    """The features of each baseline with everything learnt on training records, by plain NumPy: (records, features)."""
    train = made.split_indices("train")
    table = made.covariates
    fd = table["func_mean_fd"].astype(float).to_numpy()
    missing = fd < 0
    motion = np.log(np.where(missing, 1.0, fd))
    motion[missing] = np.median(motion[train][~missing[train]])
    numbers = np.column_stack([table["AGE_AT_SCAN"].astype(float), table["SEX"].astype(float), motion, missing])
    sites = np.array([row.site for row in made.rows])
    scanner = table["scanner"].to_numpy(object)
    hot = [sites == name for name in sorted(set(sites[train]))] + [scanner == name for name in ("", "x", "y")]
    volumes = test_volumes(made)[..., 0]
    regions = np.column_stack(
        [volumes[:, REGIONS.region_labels == region].mean(1) for region in REGIONS.region_numbers]
    )

    def scaled(values):
        return (values - values[train].mean(0)) / values[train].std(0)

    parts = {
        "covariates": np.column_stack([scaled(numbers), np.column_stack(hot)]),
        "phenotype": scaled(made.phenotype.astype(np.float32).astype(float)),
        "regions": scaled(regions.astype(float)),
    }
    return parts | {"all": np.column_stack(list(parts.values()))}


def nearly_best(candidates: list, values: np.ndarray, label: np.ndarray, folds: list) -> list:
    """The candidates, fitted, whose mean AUC in the folds is the best or a tie but for rounding, by a loop."""
    areas = [cross_val_score(one, values, label, scoring="roc_auc", cv=folds).mean() for one in candidates]
    return [one.fit(values, label) for one, area in zip(candidates, areas, strict=True) if area >= max(areas) - 0.002]


@pytest.mark.slow
def test_baselines_are_those_of_features_made_by_hand():
    made = made_up()
    found, train, test = baselines.predict_baselines(made), made.split_indices("train"), made.split_indices("test")
    label = made.label[train]
    assert list(found.index) == [made.rows[index].file for index in test]
    prior = DummyClassifier(strategy="prior").fit(made.phenotype[train], label)
    assert found[baselines.MAJORITY_BASELINE].tolist() == pytest.approx(
        prior.predict_proba(made.phenotype[test])[:, 1].tolist()
    )
    folds = ridge.make_inner_folds(label, np.array([made.rows[index].subject for index in train]))
    logistic = [LogisticRegression(C=strength, max_iter=1000) for strength in baselines.LOGISTIC_STRENGTHS]
    site = pd.Series([made.rows[index].site for index in train])
    target = (label - pd.Series(label).groupby(site).transform("mean")).to_numpy()
    for kind, values in by_hand(made).items():
        fitted = nearly_best(logistic, values[train], label, folds)
        expected = [one.predict_proba(values[test])[:, 1] for one in fitted]
        away = [np.abs(found[f"{kind}, logistic regression"] - one).max() for one in expected]
        assert min(away) < 0.02, kind  # as far as both converge
        if kind in ("regions", "all"):
            fitted = [Ridge(alpha=penalty).fit(values[train], target) for penalty in ridge.RIDGE_PENALTIES]
            log_odds = logit(found[f"{kind}, ridge"])
            agree = [np.corrcoef(log_odds, one.predict(values[test]))[0, 1] for one in fitted]
            assert max(agree) == pytest.approx(1, abs=1e-6) or np.ptp(log_odds) == 0, kind
    names = {
        kind: ("logistic regression", *(["ridge"] * (kind in ("regions", "all"))), "SVM") for kind in by_hand(made)
    }
    assert list(found) == [
        baselines.MAJORITY_BASELINE,
        *(f"{kind}, {name}" for kind in names for name in names[kind]),
        "regions and phenotype, mean of SVMs",
    ]


@pytest.mark.slow
def test_the_svm_is_scikit_learns():
    """One record a subject: grouped inner folds are as good as plain ones, so AUC and probabilities nearly agree."""
    made = made_up()
    train, test = made.split_indices("train"), made.split_indices("test")
    made.phenotype[:, 0] += 2 * made.label
    plain = make_pipeline(StandardScaler(), SVC(C=1, gamma="scale"))
    expected = CalibratedClassifierCV(plain, cv=StratifiedKFold(5), ensemble=False)
    expected = expected.fit(made.phenotype[train], made.label[train]).predict_proba(made.phenotype[test])[:, 1]
    found = baselines.predict_baselines(made)
    assert (np.argsort(found["phenotype, SVM"]) == np.argsort(expected)).all()
    assert found["phenotype, SVM"].to_numpy() == pytest.approx(expected, abs=0.05)
    odds = [found[name] / (1 - found[name]) for name in ("phenotype, SVM", "regions, SVM")]
    fused = np.sqrt(odds[0] * odds[1])
    assert (fused / (1 + fused)).tolist() == pytest.approx(found["regions and phenotype, mean of SVMs"].tolist())


def test_of_several_maps_each_has_an_svm_of_its_own():
    """Two maps whose regions lie side by side; the second carries the label, and the mean follows it."""
    random, label = np.random.default_rng(0), np.arange(120) % 2.0
    of_map = [random.normal(size=(120, 20)), random.normal(size=(120, 20)) + label[:, None] / 2]
    regions = np.stack(of_map, axis=2).reshape(120, -1)
    phenotype = random.normal(size=(120, 3))
    train, test = np.arange(80), np.arange(80, 120)
    rows = [RecordRow(f"{at}.bin", str(at), "A", label[at], "train") for at in train]
    fitting = baselines.make_training_sets(rows, train)
    tables = {"phenotype": pd.DataFrame(phenotype), "regions": pd.DataFrame(regions)}
    found = baselines.fit_feature_baselines(fitting, tables, train, test, 2)
    odds = []
    for values in (*of_map, phenotype):
        scaled = StandardScaler().fit(values[train]).transform(values)
        svc = SVC(C=1, gamma=1 / values.shape[1])  # of all training records, not of each inner fold
        plain = CalibratedClassifierCV(svc, cv=fitting[1].inner_folds, ensemble=False)
        probability = plain.fit(scaled[train], label[train]).predict_proba(scaled[test])[:, 1]
        if plain.calibrated_classifiers_[0].calibrators[0].a_ > 0:  # what goes the wrong way counts nothing
            probability = np.full(len(test), label[train].mean())
        odds.append(probability / (1 - probability))
    for name, count in (("regions", 2), ("regions and phenotype", 3)):
        mean = np.prod(odds[:count], axis=0) ** (1 / count)
        assert found[f"{name}, mean of SVMs"].tolist() == pytest.approx((mean / (1 + mean)).tolist(), abs=1e-4)
    assert metrics.roc_auc_score(label[test], found["regions, mean of SVMs"]) > 0.7


def test_a_certain_classifier_does_not_make_the_mean_undefined():
    assert baselines.pool_probabilities(
        [np.array([1.0, 0.0, 0.5]), np.array([0.0, 1.0, 0.5])]
    ).tolist() == pytest.approx([0.5] * 3)


@pytest.mark.slow
def test_features_know_no_label():
    made = made_up()
    before = baselines.make_feature_tables(made)
    made.rows = [replace(row, label=1 - row.label) for row in made.rows]
    for kind, table in baselines.make_feature_tables(made).items():
        pd.testing.assert_frame_equal(table, before[kind])


@pytest.mark.slow
def test_what_is_planted_in_training_and_test_is_found():
    made = made_up()
    made.phenotype[:, 3] = made.label
    made.covariates["AGE_AT_SCAN"] = (10 + made.label).astype(str)
    made.level = 3 * made.label
    assert min(aucs(made).values()) > 0.95


@pytest.mark.slow
def test_a_label_in_the_phenotype_of_test_subjects_only_raises_no_baseline():
    made = made_up()
    before, test = aucs(made), made.split_indices("test")
    made.phenotype[test, 3] = made.label[test]
    after = aucs(made)
    assert max(after.values()) < 0.65
    for name in after:
        assert after[name] == pytest.approx(before[name], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_label_in_missingness_within_the_left_out_site_raises_no_baseline(elsewhere):
    """Whether or not the training sites miss the covariate too, but at random."""
    made = made_up()
    column = made.covariates["func_mean_fd"] = pd.Series(["0.1", "0.2"] * 120, made.covariates.index)
    for index, row in enumerate(made.rows):
        if row.label if row.split == "test" else elsewhere and index % 3 == 0:
            column[row.subject] = ""
    made.covariates["func_mean_fd"] = column
    assert max(aucs(made).values()) < 0.65


@pytest.mark.slow
def test_a_label_in_the_mean_of_a_site_raises_no_baseline_on_another_site():
    """Training sites differ in their level and in their share of autism, which the level therefore tells."""
    random, made = np.random.default_rng(1), made_up(600)
    share = {"site 0": 0.1, "site 1": 0.5, "site 2": 0.9, "site 3": 0.5}
    made.rows = [replace(row, label=float(random.random() < share[row.site])) for row in made.rows]
    offset = np.array([share[row.site] for row in made.rows])
    made.level = 5 * offset + random.normal(0, 0.1, len(made.rows))
    made.phenotype += 5 * offset[:, None]
    made.covariates["AGE_AT_SCAN"] = (20 * offset + random.normal(0, 1, len(made.rows))).astype(str)
    train = made.split_indices("train")
    assert metrics.roc_auc_score(made.label[train], made.level[train]) > 0.75
    assert max(aucs(made).values()) < 0.65


@pytest.mark.slow
def test_what_cannot_be_fitted_is_left_out_and_said(capsys):
    made = made_up(covariates=False)
    made.phenotype[:] = 0
    rows = [replace(row, site="one") for row in made.rows]

    def with_autism(count: int) -> list[str]:
        made.rows = [
            replace(row, label=float(index < count or (row.split == "test" and index % 2 == 0)))
            for index, row in enumerate(rows)
        ]
        return list(baselines.predict_baselines(made))

    fitted = [f"{kind}, {name}" for kind in ("regions", "all") for name in ("logistic regression", "ridge", "SVM")]
    assert with_autism(2) == [baselines.MAJORITY_BASELINE, *fitted]
    assert capsys.readouterr().out.endswith("Baselines left out: covariates; phenotype.\n")
    for count in (0, 1):
        assert with_autism(count) == [baselines.MAJORITY_BASELINE]
        assert "too few training participants of a class" in capsys.readouterr().out


def test_without_covariates_the_site_alone():
    assert list(baselines.make_feature_tables(made_up(covariates=False))["covariates"]) == ["covariates site"]


@pytest.mark.slow
def test_of_too_many_people_an_svm_is_fitted_on_some_and_that_is_said(monkeypatch):
    made = made_up(80)
    whole, count = baselines.predict_baselines(made), len(made.split_indices("train"))
    assert baselines.describe_record_limits(count) == []
    monkeypatch.setattr(baselines, "MAX_SVM_RECORDS", count - 5)
    some = baselines.predict_baselines(made)
    assert baselines.describe_record_limits(count) == [
        f"Each SVM among the baselines is fitted on {count - 5} of {count} training records, drawn at random."
    ]
    changed = [name for name in whole if (whole[name] != some[name]).any()]
    assert changed and changed == [name for name in whole if "SVM" in name]
    pd.testing.assert_frame_equal(some, baselines.predict_baselines(made))


def test_records_of_one_subject_share_an_inner_fold():
    subject, label = np.repeat(np.arange(30), 3), np.repeat(np.arange(30) % 2, 3)
    rows = [
        RecordRow(f"{at}.bin", str(one), "A", value, "train")
        for at, (one, value) in enumerate(zip(subject, label, strict=True))
    ]
    for of in baselines.make_training_sets(rows, subject):
        folds = of.inner_folds
        assert sorted(np.concatenate([test for _, test in folds])) == list(range(90))
        assert len(folds) == EFFORT.inner_folds
        assert not any(set(subject[train]) & set(subject[test]) for train, test in folds)


def test_people_who_share_a_scan_share_an_inner_fold(monkeypatch):
    """By the cohort's groups, seen through the groups that training sets are made of."""
    made, seen = made_up(), []
    made.groups = (("s3", "s7"),)
    monkeypatch.setattr(baselines, "make_training_sets", lambda label, group: seen.extend(group))
    baselines.predict_baselines(made)
    assert seen[7] == seen[3] == "s3" and len(set(seen)) == len(made.split_indices("train")) - 1


@pytest.fixture
def new(cohort) -> Cohort:
    """The test people of the demo cohort as a cohort of new people, whose labels are not known."""
    opened = open_cohort(cohort)
    test = opened.split_indices("test")
    return replace(
        opened,
        rows=tuple(replace(opened.rows[at], label=float("nan")) for at in test),
        entries=tuple(opened.entries[at] for at in test),
        digests=tuple(opened.digests[at] for at in test),
    )


@dataclass(frozen=True)
class Trained(CheckpointFolder):
    """Stands for the checkpoints of a training with this record."""

    saved: Manifest | None = None

    def manifest(self):
        return self.saved


def training_people(new: Cohort, opened: Cohort, subjects: Sequence[str] = (), **changes) -> Cohort | None:
    """Those of a checkpoint that some training people of a cohort trained, or all of them, for new people."""
    of_data = {"cohort": str(opened.path), "cohort_sha256": opened.identity}
    people = TrainingPeople(subjects=tuple(subjects or opened.split_subjects("train")))
    saved = Manifest(**{"job": "train", "people": people, "checkpoint_folder": "ckpt"} | of_data | changes)
    return comparisons.load_training_cohort(SimpleNamespace(cohort=new, checkpoints=Trained(Path("ckpt"), saved=saved)))


@pytest.mark.slow
def test_new_people_get_the_baselines_of_the_checkpoints_training_people(cohort, new):
    """They are those that the same people get as the test split."""
    opened = open_cohort(cohort)
    found = baselines.predict_baselines(new, training_people(new, opened))
    pd.testing.assert_frame_equal(found, baselines.predict_baselines(opened))
    site = training_people(replace(new, standard="brain"), opened)
    assert site.standard == "brain"


def test_only_those_who_trained_the_checkpoint_train_baselines(cohort, new):
    opened = open_cohort(cohort)
    trained = tuple(opened.split_subjects("train")[2:])
    source = training_people(new, opened, trained)
    assert tuple(source.split_subjects("train")) == trained


def test_without_the_cohort_as_it_was_no_baseline_is_fitted_for_new_people(cohort, new):
    opened = open_cohort(cohort)
    for changed in ({"cohort": "gone"}, {"cohort_sha256": "0" * 64}):
        assert training_people(new, opened, **changed) is None
    other_scale = replace(new.metadata, phenotype_mean=(9.0,) * 29)
    fewer_columns = pd.DataFrame(index=[row.subject for row in new.rows])
    others = [replace(new, metadata=other_scale), replace(new, num_maps=2), replace(new)]
    vars(others[2])["covariates"] = fewer_columns  # as if read
    for other in others:
        assert training_people(other, opened) is None


def edges_of_people(folder: Path, values: np.ndarray) -> Connectomes:
    """Connectomes (people, edges) of parcels called 1, 2, ..., in a file."""
    parcels = [str(at) for at in range(round((1 + np.sqrt(1 + 8 * values.shape[1])) / 2))]
    people = [str(at) for at in range(len(values))]
    write_connectomes(folder / "connectomes.h5", people, parcels, None, values)
    return Connectomes(folder / "connectomes.h5", "seg-p", tuple(parcels), None, np.arange(len(values)))


def drawn_edges(count: int, effect: float, label: np.ndarray) -> np.ndarray:
    """Edges (count, 190), a tenth of which are higher with label 1, one in fifty unknown."""
    random = np.random.default_rng(1)
    values = random.normal(0.3, 0.2, (count, 190))
    values[:, :19] += effect * label[:, None]
    values[random.random(values.shape) < 0.02] = np.nan
    return values.astype(np.float32)


@pytest.mark.slow
def test_baselines_of_connectomes_find_a_difference_and_none_where_there_is_none(tmp_path):
    made = made_up(160)
    plain = baselines.predict_baselines(made)
    made.connectomes = edges_of_people(tmp_path, drawn_edges(160, 0.2, made.label))
    found, label = baselines.predict_baselines(made), made.label[made.split_indices("test")]
    assert list(found) == [*plain, "connectome, ridge", "regions with phenotype and connectome, mean of parts"]
    pd.testing.assert_frame_equal(found[list(plain)], plain)
    assert metrics.roc_auc_score(label, found["connectome, ridge"]) > 0.9
    parts = [found[name] for name in ("regions, SVM", "phenotype, SVM", "connectome, ridge")]
    odds = np.prod([part / (1 - part) for part in parts], axis=0) ** (1 / 3)
    assert found.iloc[:, -1].tolist() == pytest.approx((odds / (1 + odds)).tolist())
    made.connectomes = edges_of_people(tmp_path, drawn_edges(160, 0.0, made.label))
    assert 0.2 < metrics.roc_auc_score(label, baselines.predict_baselines(made)["connectome, ridge"]) < 0.8


@pytest.mark.slow
def test_ridge_on_connectomes_takes_some_of_too_many_people(monkeypatch, tmp_path):
    made = made_up(80)
    made.connectomes = edges_of_people(tmp_path, drawn_edges(80, 0.2, made.label))
    count, whole = len(made.split_indices("train")), baselines.predict_baselines(made)
    monkeypatch.setattr(ridge, "MAX_EDGE_RECORDS", count - 5)
    told = f"Each ridge on connectomes among the baselines is fitted on {count - 5} of {count} training records"
    assert baselines.describe_record_limits(count) == [] and baselines.describe_record_limits(
        count, has_connectomes=True
    )[0].startswith(told)
    some = baselines.predict_baselines(made)
    assert [name for name in whole if (whole[name] != some[name]).any()] == list(whole)[-2:]


@pytest.mark.slow
def test_other_edges_than_those_of_the_training_people_are_left_out(capsys, tmp_path):
    made, new = made_up(80), made_up(80)
    made.connectomes = new.connectomes = edges_of_people(tmp_path, drawn_edges(80, 0.2, made.label))
    assert "connectome, ridge" in baselines.predict_baselines(new, made)
    new.metadata = Metadata(connectome="seg-other")
    assert "connectome, ridge" not in baselines.predict_baselines(new, made)
    assert "Baselines left out: connectome" in capsys.readouterr().out


# Ridge


COUNT, STRENGTH = 60, 1.8
ONE_SITE = np.zeros(COUNT)


def two_classes(features, seed, signal=STRENGTH):
    """Features of which the first five differ between labels, (people, features), and labels."""
    generator, label = np.random.default_rng(seed), np.arange(COUNT) % 2
    values = generator.normal(size=(COUNT, features))
    values[:, :5] += signal * label[:, None]
    return values, label.astype(float)


@pytest.mark.parametrize("features", [20, 400])
def test_weights_are_those_of_scikit_learn(features):
    values, label = two_classes(features, 0)
    weights, bias = ridge.fit_ridge_path(values, 2 * label - 1)
    for at, penalty in enumerate(ridge.RIDGE_PENALTIES):
        expected = Ridge(alpha=penalty).fit(values, 2 * label - 1)
        np.testing.assert_allclose(weights[:, at], expected.coef_, atol=1e-9)
        np.testing.assert_allclose(bias[at], expected.intercept_, atol=1e-9)


@pytest.mark.parametrize("features", [20, 400])
def test_the_penalty_has_the_least_error_in_the_inner_folds_and_the_log_odds_are_calibrated_there(features):
    values, label = two_classes(features, 0)
    folds, site = ridge.make_inner_folds(label, np.arange(COUNT)), np.arange(COUNT) % 7 % 3
    apart = 2 * label - 1
    for one in range(3):
        apart[site == one] -= apart[site == one].mean()
    out_of_fold = np.empty((len(ridge.RIDGE_PENALTIES), COUNT))
    for at, penalty in enumerate(ridge.RIDGE_PENALTIES):
        for fitting, out in folds:
            out_of_fold[at, out] = Ridge(alpha=penalty).fit(values[fitting], apart[fitting]).predict(values[out])
    best = np.square(out_of_fold - apart).sum(1).argmin()
    decision = Ridge(alpha=ridge.RIDGE_PENALTIES[best]).fit(values, apart).predict(values)
    target = np.where(label == 1, 31 / 32, 1 / 32)  # Platt's, of 30 people a class

    def cross_entropy(line):
        log_odds = line[0] * out_of_fold[best] + line[1]
        return (np.logaddexp(0, log_odds) - target * log_odds).sum()

    platt = minimize(cross_entropy, [1, 0], method="Nelder-Mead", options={"maxiter": 10_000, "xatol": 1e-7}).x
    found = ridge.fit_ridge(values, label, site, folds).predict_log_odds(values)
    assert np.corrcoef(found, decision)[0, 1] > 1 - 1e-9
    np.testing.assert_allclose(np.polyfit(decision, found, 1), platt, rtol=1e-3, atol=1e-3)


def test_a_fit_finds_a_difference_in_new_people_and_none_where_there_is_none():
    values, label = two_classes(400, 0)
    new, truth = two_classes(400, 1)
    folds = ridge.make_inner_folds(label, np.arange(COUNT))
    assert metrics.roc_auc_score(truth, ridge.fit_ridge(values, label, ONE_SITE, folds).predict_log_odds(new)) > 0.75
    noise, _ = two_classes(400, 2, signal=0)
    assert np.abs(ridge.fit_ridge(noise, label, ONE_SITE, folds).predict_log_odds(new)).mean() < 1


def test_too_few_people_give_how_common_autism_is():
    label = np.array([1.0, 1, 1, 0])
    assert ridge.make_inner_folds(label, np.arange(4)) == []
    np.testing.assert_allclose(ridge.fit_ridge(np.eye(4), label, label, []).predict_log_odds(np.eye(4)), np.log(3))


def test_each_inner_fold_has_both_classes_or_there_is_none(effort):
    effort()
    label = np.array([0, 0, 0, 1, 1, 1, 1])
    assert len(ridge.make_inner_folds(label, np.arange(7))) == 3
    assert ridge.make_inner_folds(label, np.array([0, 0, 0, 1, 2, 3, 4])) == []  # one subject is all of a class
    assert ridge.make_inner_folds(label, np.array([0, 1, 2, 0, 1, 1, 1])) != []
    assert ridge.make_inner_folds(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])) == []


def test_labels_are_told_from_the_mean_of_their_site_unless_no_site_has_both():
    label = np.array([1.0, 1, 0, 0])
    np.testing.assert_allclose(
        ridge.centre_labels_within_sites(label, np.array(list("aaab"))), [2 / 3, 2 / 3, -4 / 3, 0]
    )
    assert ridge.centre_labels_within_sites(label, np.array(list("abcd"))).tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("block_bytes", [2**27, 8 * 28 * 7], ids=["whole", "blocks"])
def test_a_fit_on_edges_is_that_on_their_z_scores(block_bytes, cohort, monkeypatch, tmp_path):
    """Also if edges are unknown, one is constant, and new people lack others."""
    monkeypatch.setattr(ridge, "EDGE_BLOCK_BYTES", block_bytes)
    folder = shutil.copytree(cohort, tmp_path / "cohort")
    made = add_connectomes(folder)
    train, test = made.split_indices("train"), made.split_indices("test")
    edges, label = made.connectomes[np.arange(len(made.rows))].astype(float), np.array([row.label for row in made.rows])
    scaler = StandardScaler().fit(edges[train])
    scores = np.nan_to_num((edges - scaler.mean_) / np.nanstd(np.where(np.isnan(edges), scaler.mean_, edges)[train], 0))
    scores *= np.sqrt(ridge.EQUIVALENT_FEATURE_COUNT / 28)
    folds = ridge.make_inner_folds(label[train], np.array([made.rows[at].subject for at in train]))
    expected = ridge.fit_ridge(scores[train], label[train], np.array([made.rows[at].site for at in train]), folds)
    found = ridge.load_edge_classifier(made, made.connectomes, train)
    np.testing.assert_allclose(
        found.predict_log_odds(made.connectomes, test), expected.predict_log_odds(scores[test]), atol=1e-7
    )


def test_a_constant_edge_and_an_unknown_one_count_nothing():
    edges = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    edges[:, 1], edges[:, 2] = 0.25, np.nan
    fake = SimpleNamespace(num_edges=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ridge, "read_edge_blocks", lambda *_: [(np.arange(9), edges.astype(float))])
        scale = ridge.fit_edge_scale(fake, np.arange(9))
    assert scale.weighted_inverse_sd[1:].tolist() == [0, 0] and scale.weighted_inverse_sd[0] > 0
    assert not scale.standardise(np.full((2, 3), 7.0))[:, 1:].any()


# Which baseline is pre-specified, case by case as the docs list them, whatever the order


FITTED = [
    *("covariates, logistic regression", "phenotype, logistic regression"),
    *("regions, logistic regression", "regions, ridge", "all, logistic regression", "all, ridge"),
    *("covariates, SVM", "phenotype, SVM", "regions, SVM", "all, SVM"),
]
ONE_MAP = [*FITTED, "regions and phenotype, mean of SVMs"]
SEVERAL = [*ONE_MAP, "regions, mean of SVMs"]
CONNECTOMES = [*SEVERAL, "connectome, ridge", "regions with phenotype and connectome, mean of parts"]
NO_PHENOTYPE = [name for name in SEVERAL if "phenotype" not in name]
OF_EDGES = [*NO_PHENOTYPE, "connectome, ridge", "regions and connectome, mean of parts"]
ALL = ("volume", "phenotype", "connectome")
EXACT = ([], [])


@pytest.mark.parametrize(
    "inputs, baselines, name, lacks, besides",
    [
        (ALL, CONNECTOMES, "regions with phenotype and connectome, mean of parts", *EXACT),
        (ALL[:2], CONNECTOMES, "regions and phenotype, mean of SVMs", *EXACT),
        (ALL[:2], ONE_MAP, "regions and phenotype, mean of SVMs", *EXACT),
        (ALL[:1], CONNECTOMES, "regions, mean of SVMs", *EXACT),
        (ALL[:1], ONE_MAP, "regions, SVM", *EXACT),
        (ALL[1:2], CONNECTOMES, "phenotype, SVM", *EXACT),
        (ALL[2:], CONNECTOMES, "connectome, ridge", *EXACT),
        (ALL[::2], OF_EDGES, "regions and connectome, mean of parts", *EXACT),
        # what stands in
        (ALL, OF_EDGES, "regions and connectome, mean of parts", ["phenotype"], []),
        (ALL, SEVERAL, "regions and phenotype, mean of SVMs", ["connectome"], []),
        (
            ALL[::2],
            CONNECTOMES,
            "regions with phenotype and connectome, mean of parts",
            [],
            ["phenotype"],
        ),
        (ALL[:2], NO_PHENOTYPE, "regions, mean of SVMs", ["phenotype"], []),
    ],
)
def test_the_baseline_is_the_one_that_reads_what_the_network_reads(inputs, baselines, name, lacks, besides):
    for listed in (baselines, baselines[::-1]):
        found = choose_prespecified_baseline(listed, inputs)
        assert found and (found.name, found.lacks, found.besides) == (name, lacks, besides)


def test_without_a_baseline_that_reads_an_input_none_is_named():
    assert choose_prespecified_baseline([], ALL) is None
    assert choose_prespecified_baseline(["covariates, SVM", "of another version"], ALL) is None


CLASSIFIERS = [model for model in MODELS.values() if model.predicted == "label"]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=[model.model_name for model in CLASSIFIERS])
def test_of_each_classifier_one_baseline_is_named_and_what_is_no_baseline_has_no_role(model):
    rows = ["majority", *CONNECTOMES]
    found = assign_baseline_roles(rows, model.list_inputs(next(iter(model.module.PRESETS.values()))))
    assert list(found.values()).count("pre-specified") == 1 and list(found) == CONNECTOMES
    assert set(found.values()) == {"pre-specified", "other"}
