"""Baselines against scikit-learn computed by hand, nothing leaked into them, and the sentence on what they show."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from data.cohorts import parcel_means
from data.cohorts.cohort import Cohort, split_into_batches
from data.cohorts.connectomes import Connectomes, write_connectomes
from data.cohorts.metadata import Metadata
from data.cohorts.rows import RecordRow
from data.cohorts.stored import open_cohort
from data.images import atlas, grids
from models import MODELS
from utils.evaluation import comparisons
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.record import Manifest, TrainingPeople
from utils.scores import baselines, ridge
from utils.scores.named import assign_baseline_roles, choose_prespecified_baseline

REGIONS = atlas.load_atlas(None, grids.REDUCED)


@dataclass
class MadeUp:
    """Stands for a cohort in memory: what baselines read of one, and `volume_offset` (n,), added to each whole
    volume."""

    rows: list[RecordRow]
    phenotype: np.ndarray
    volume_offset: np.ndarray
    covariates: pd.DataFrame | None = None
    metadata = Metadata()
    groups = ()
    grid = grids.REDUCED
    num_maps = 1
    simulated = False
    connectomes: Connectomes | None = None

    find_split_record_indices = Cohort.find_split_record_indices

    @property
    def label(self) -> np.ndarray:
        return np.array([row.label for row in self.rows])

    def make_batch(self, indices, with_volumes=True):
        random = np.random.default_rng(int(indices[0]))
        means = np.concatenate(
            [np.zeros((len(indices), 1)), random.normal(size=(len(indices), len(REGIONS.name_by_region)))], axis=1
        )
        volume = means[:, REGIONS.region_labels, None] + self.volume_offset[indices][:, None, None, None, None]
        return {"phenotype": self.phenotype[indices].astype(np.float32), "volume": volume.astype(np.float32)}


@pytest.fixture(autouse=True)
def compute_made_up_means(monkeypatch):
    """Those of what is made up are computed of its volumes."""
    compute_file_means = parcel_means.load_parcel_means

    def compute_means(cohort, parcels):
        is_made_up = isinstance(cohort, MadeUp)
        return (
            [parcel_image.average_volumes(compute_volumes(cohort)) for parcel_image in parcels]
            if is_made_up
            else compute_file_means(cohort, parcels)
        )

    monkeypatch.setattr(parcel_means, "load_parcel_means", compute_means)


def make_people(count: int = 240, seed: int = 0, covariates: bool = True) -> Any:
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


def compute_volumes(made_cohort: MadeUp) -> np.ndarray:
    return np.concatenate(
        [
            made_cohort.make_batch(indices)["volume"]
            for indices in split_into_batches(np.arange(len(made_cohort.rows)), 16)
        ]
    )


def compute_aucs(made_cohort: Any) -> dict[str, float]:
    """AUC of each baseline on the test records."""
    predictions = baselines.predict_baselines(made_cohort)
    label = made_cohort.label[made_cohort.find_split_record_indices("test")]
    return {
        name: metrics.roc_auc_score(label, predictions[name])
        for name in predictions
        if name != baselines.MAJORITY_BASELINE
    }


def compute_features(made_cohort: Any) -> dict[str, np.ndarray]:
    """The features of each baseline with everything learnt on training records, by plain NumPy: (records, features)."""
    train = made_cohort.find_split_record_indices("train")
    table = made_cohort.covariates
    mean_fd = table["func_mean_fd"].astype(float).to_numpy()
    is_missing = mean_fd < 0
    motion = np.log(np.where(is_missing, 1.0, mean_fd))
    motion[is_missing] = np.median(motion[train][~is_missing[train]])
    numbers = np.column_stack([table["AGE_AT_SCAN"].astype(float), table["SEX"].astype(float), motion, is_missing])
    sites = np.array([row.site for row in made_cohort.rows])
    scanner = table["scanner"].to_numpy(object)
    category_columns = [sites == name for name in sorted(set(sites[train]))] + [
        scanner == name for name in ("", "x", "y")
    ]
    volumes = compute_volumes(made_cohort)[..., 0]
    regions = np.column_stack(
        [volumes[:, REGIONS.region_labels == region].mean(1) for region in REGIONS.region_numbers]
    )

    def scaled(values):
        return (values - values[train].mean(0)) / values[train].std(0)

    feature_groups = {
        "covariates": np.column_stack([scaled(numbers), np.column_stack(category_columns)]),
        "phenotype": scaled(made_cohort.phenotype.astype(np.float32).astype(float)),
        "regions": scaled(regions.astype(float)),
    }
    return feature_groups | {"all": np.column_stack(list(feature_groups.values()))}


def fit_nearly_best(candidates: list, values: np.ndarray, label: np.ndarray, folds: list) -> list:
    """The candidates, fitted, whose mean AUC in the folds is the best or a tie but for rounding, by a loop."""
    mean_aucs = [
        cross_val_score(candidate, values, label, scoring="roc_auc", cv=folds).mean() for candidate in candidates
    ]
    return [
        candidate.fit(values, label)
        for candidate, mean_auc in zip(candidates, mean_aucs, strict=True)
        if mean_auc >= max(mean_aucs) - 0.002
    ]


@pytest.mark.slow
def test_baselines_equal_fits_on_features_made_by_hand():
    made_cohort = make_people()
    predictions, train, test = (
        baselines.predict_baselines(made_cohort),
        made_cohort.find_split_record_indices("train"),
        made_cohort.find_split_record_indices("test"),
    )
    label = made_cohort.label[train]
    assert list(predictions.index) == [made_cohort.rows[index].file for index in test]
    prior = DummyClassifier(strategy="prior").fit(made_cohort.phenotype[train], label)
    assert predictions[baselines.MAJORITY_BASELINE].tolist() == pytest.approx(
        prior.predict_proba(made_cohort.phenotype[test])[:, 1].tolist()
    )
    folds = ridge.make_inner_folds(label, np.array([made_cohort.rows[index].subject for index in train]))
    logistic = [LogisticRegression(C=strength, max_iter=1000) for strength in baselines.LOGISTIC_STRENGTHS]
    train_sites = pd.Series([made_cohort.rows[index].site for index in train])
    target = (label - pd.Series(label).groupby(train_sites).transform("mean")).to_numpy()
    for kind, values in compute_features(made_cohort).items():
        fitted = fit_nearly_best(logistic, values[train], label, folds)
        expected = [fit_or_prediction.predict_proba(values[test])[:, 1] for fit_or_prediction in fitted]
        max_differences = [
            np.abs(predictions[f"{kind}, logistic regression"] - fit_or_prediction).max()
            for fit_or_prediction in expected
        ]
        assert min(max_differences) < 0.02, kind  # as far as both converge
        if kind in ("regions", "all"):
            fitted = [Ridge(alpha=penalty).fit(values[train], target) for penalty in ridge.RIDGE_PENALTIES]
            log_odds = logit(predictions[f"{kind}, ridge"])
            correlations = [
                np.corrcoef(log_odds, fit_or_prediction.predict(values[test]))[0, 1] for fit_or_prediction in fitted
            ]
            assert max(correlations) == pytest.approx(1, abs=1e-6) or np.ptp(log_odds) == 0, kind
    names = {
        kind: ("logistic regression", *(["ridge"] * (kind in ("regions", "all"))), "SVM")
        for kind in compute_features(made_cohort)
    }
    assert list(predictions) == [
        baselines.MAJORITY_BASELINE,
        *(f"{kind}, {name}" for kind in names for name in names[kind]),
        "regions and phenotype, mean of SVMs",
    ]


@pytest.mark.slow
def test_the_svm_is_scikit_learns():
    """One record a subject: grouped inner folds are as good as plain ones, so AUC and probabilities nearly agree."""
    made_cohort = make_people()
    train, test = made_cohort.find_split_record_indices("train"), made_cohort.find_split_record_indices("test")
    made_cohort.phenotype[:, 0] += 2 * made_cohort.label
    plain = make_pipeline(StandardScaler(), SVC(C=1, gamma="scale"))
    expected = CalibratedClassifierCV(plain, cv=StratifiedKFold(5), ensemble=False)
    expected = expected.fit(made_cohort.phenotype[train], made_cohort.label[train]).predict_proba(
        made_cohort.phenotype[test]
    )[:, 1]
    predictions = baselines.predict_baselines(made_cohort)
    assert (np.argsort(predictions["phenotype, SVM"]) == np.argsort(expected)).all()
    assert predictions["phenotype, SVM"].to_numpy() == pytest.approx(expected, abs=0.05)
    odds = [predictions[name] / (1 - predictions[name]) for name in ("phenotype, SVM", "regions, SVM")]
    fused = np.sqrt(odds[0] * odds[1])
    assert (fused / (1 + fused)).tolist() == pytest.approx(predictions["regions and phenotype, mean of SVMs"].tolist())


def test_with_several_maps_all_have_separate_svms():
    """Two maps whose regions lie side by side; the second carries the label, and the mean follows it."""
    random, label = np.random.default_rng(0), np.arange(120) % 2.0
    regions_by_map = [random.normal(size=(120, 20)), random.normal(size=(120, 20)) + label[:, None] / 2]
    regions = np.stack(regions_by_map, axis=2).reshape(120, -1)
    phenotype = random.normal(size=(120, 3))
    train, test = np.arange(80), np.arange(80, 120)
    rows = [RecordRow(f"{row_index}.bin", str(row_index), "A", label[row_index], "train") for row_index in train]
    fitting = baselines.make_training_sets(rows, train)
    tables = {"phenotype": pd.DataFrame(phenotype), "regions": pd.DataFrame(regions)}
    predictions = baselines.predict_feature_baselines(fitting, tables, train, test, 2)
    odds = []
    for values in (*regions_by_map, phenotype):
        scaled = StandardScaler().fit(values[train]).transform(values)
        svc = SVC(C=1, gamma=1 / values.shape[1])  # of all training records, not of each inner fold
        plain = CalibratedClassifierCV(svc, cv=fitting[1].inner_folds, ensemble=False)
        probability = plain.fit(scaled[train], label[train]).predict_proba(scaled[test])[:, 1]
        if plain.calibrated_classifiers_[0].calibrators[0].a_ > 0:  # what goes the wrong way counts nothing
            probability = np.full(len(test), label[train].mean())
        odds.append(probability / (1 - probability))
    for name, count in (("regions", 2), ("regions and phenotype", 3)):
        mean = np.prod(odds[:count], axis=0) ** (1 / count)
        assert predictions[f"{name}, mean of SVMs"].tolist() == pytest.approx((mean / (1 + mean)).tolist(), abs=1e-4)
    assert metrics.roc_auc_score(label[test], predictions["regions, mean of SVMs"]) > 0.7


def test_a_certain_classifier_does_not_make_the_mean_undefined():
    assert baselines.pool_probabilities(
        [np.array([1.0, 0.0, 0.5]), np.array([0.0, 1.0, 0.5])]
    ).tolist() == pytest.approx([0.5] * 3)


@pytest.mark.slow
def test_features_know_no_label():
    made_cohort = make_people()
    features_before = baselines.make_feature_tables(made_cohort)
    made_cohort.rows = [replace(row, label=1 - row.label) for row in made_cohort.rows]
    for kind, table in baselines.make_feature_tables(made_cohort).items():
        pd.testing.assert_frame_equal(table, features_before[kind])


@pytest.mark.slow
def test_a_label_planted_in_training_and_test_is_detected():
    made_cohort = make_people()
    made_cohort.phenotype[:, 3] = made_cohort.label
    made_cohort.covariates["AGE_AT_SCAN"] = (10 + made_cohort.label).astype(str)
    made_cohort.volume_offset = 3 * made_cohort.label
    assert min(compute_aucs(made_cohort).values()) > 0.95


@pytest.mark.slow
def test_a_label_in_test_phenotypes_only_raises_no_baseline():
    made_cohort = make_people()
    aucs_before, test = compute_aucs(made_cohort), made_cohort.find_split_record_indices("test")
    made_cohort.phenotype[test, 3] = made_cohort.label[test]
    aucs_after = compute_aucs(made_cohort)
    assert max(aucs_after.values()) < 0.65
    for name in aucs_after:
        assert aucs_after[name] == pytest.approx(aucs_before[name], abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("is_missing_in_training", [False, True])
def test_a_label_in_missingness_within_the_left_out_site_raises_no_baseline(is_missing_in_training):
    """Whether or not the training sites miss the covariate too, but at random."""
    made_cohort = make_people()
    column = made_cohort.covariates["func_mean_fd"] = pd.Series(["0.1", "0.2"] * 120, made_cohort.covariates.index)
    for index, row in enumerate(made_cohort.rows):
        if row.label if row.split == "test" else is_missing_in_training and index % 3 == 0:
            column[row.subject] = ""
    made_cohort.covariates["func_mean_fd"] = column
    assert max(compute_aucs(made_cohort).values()) < 0.65


@pytest.mark.slow
def test_a_label_in_a_site_mean_raises_no_baseline_on_another_site():
    """Training sites differ in their level and in their share of autism, which the level therefore tells."""
    random, made_cohort = np.random.default_rng(1), make_people(600)
    autism_by_site = {"site 0": 0.1, "site 1": 0.5, "site 2": 0.9, "site 3": 0.5}
    made_cohort.rows = [
        replace(row, label=float(random.random() < autism_by_site[row.site])) for row in made_cohort.rows
    ]
    offset = np.array([autism_by_site[row.site] for row in made_cohort.rows])
    made_cohort.volume_offset = 5 * offset + random.normal(0, 0.1, len(made_cohort.rows))
    made_cohort.phenotype += 5 * offset[:, None]
    made_cohort.covariates["AGE_AT_SCAN"] = (20 * offset + random.normal(0, 1, len(made_cohort.rows))).astype(str)
    train = made_cohort.find_split_record_indices("train")
    assert metrics.roc_auc_score(made_cohort.label[train], made_cohort.volume_offset[train]) > 0.75
    assert max(compute_aucs(made_cohort).values()) < 0.65


@pytest.mark.slow
def test_unfittable_baselines_are_left_out_and_reported(capsys):
    made_cohort = make_people(covariates=False)
    made_cohort.phenotype[:] = 0
    rows = [replace(row, site="one") for row in made_cohort.rows]

    def with_autism(count: int) -> list[str]:
        made_cohort.rows = [
            replace(row, label=float(index < count or (row.split == "test" and index % 2 == 0)))
            for index, row in enumerate(rows)
        ]
        return list(baselines.predict_baselines(made_cohort))

    fitted_names = [
        f"{kind}, {name}" for kind in ("regions", "all") for name in ("logistic regression", "ridge", "SVM")
    ]
    assert with_autism(2) == [baselines.MAJORITY_BASELINE, *fitted_names]
    assert capsys.readouterr().out.endswith("Baselines left out: covariates; phenotype.\n")
    for count in (0, 1):
        assert with_autism(count) == [baselines.MAJORITY_BASELINE]
        assert "too few training participants of a class" in capsys.readouterr().out


def test_without_covariates_the_site_alone():
    assert list(baselines.make_feature_tables(make_people(covariates=False))["covariates"]) == ["covariates site"]


@pytest.mark.slow
def test_with_too_many_people_an_svm_is_fitted_on_some_and_reported(monkeypatch):
    made_cohort = make_people(80)
    all_predictions, count = (
        baselines.predict_baselines(made_cohort),
        len(made_cohort.find_split_record_indices("train")),
    )
    assert baselines.describe_record_limits(count) == []
    monkeypatch.setattr(baselines, "MAX_SVM_RECORDS", count - 5)
    some_predictions = baselines.predict_baselines(made_cohort)
    assert baselines.describe_record_limits(count) == [
        f"Each SVM among the baselines is fitted on {count - 5} of {count} training records, drawn at random."
    ]
    changed_names = [name for name in all_predictions if (all_predictions[name] != some_predictions[name]).any()]
    assert changed_names and changed_names == [name for name in all_predictions if "SVM" in name]
    pd.testing.assert_frame_equal(some_predictions, baselines.predict_baselines(made_cohort))


def test_records_from_a_subject_share_an_inner_fold():
    subject, label = np.repeat(np.arange(30), 3), np.repeat(np.arange(30) % 2, 3)
    rows = [
        RecordRow(f"{row_index}.bin", str(subject_number), "A", float(value), "train")
        for row_index, (subject_number, value) in enumerate(zip(subject, label, strict=True))
    ]
    for training_set in baselines.make_training_sets(rows, subject):
        folds = training_set.inner_folds
        assert sorted(np.concatenate([test for _, test in folds])) == list(range(90))
        assert len(folds) == EFFORT.inner_folds
        assert not any(set(subject[train]) & set(subject[test]) for train, test in folds)


def test_people_sharing_a_scan_share_an_inner_fold(monkeypatch):
    """By the cohort's groups, seen through the groups that training sets are made of."""
    made_cohort, seen_groups = make_people(), []
    made_cohort.groups = (("s3", "s7"),)
    monkeypatch.setattr(baselines, "make_training_sets", lambda label, group: seen_groups.extend(group))
    baselines.predict_baselines(made_cohort)
    assert (
        seen_groups[7] == seen_groups[3] == "s3"
        and len(set(seen_groups)) == len(made_cohort.find_split_record_indices("train")) - 1
    )


@pytest.fixture
def new_cohort(cohort) -> Cohort:
    """The test people of the demo cohort as a cohort of new people, whose labels are not known."""
    opened = open_cohort(cohort)
    test = opened.find_split_record_indices("test")
    return replace(
        opened,
        rows=tuple(replace(opened.rows[row_index], label=float("nan")) for row_index in test),
        entries=tuple(opened.entries[row_index] for row_index in test),
        digests=tuple(opened.digests[row_index] for row_index in test),
    )


@dataclass(frozen=True)
class Trained(CheckpointFolder):
    """Stands for the checkpoints of a training with this record."""

    saved_manifest: Manifest | None = None

    def read_latest_manifest(self):
        return self.saved_manifest


def training_people(new: Cohort, source_cohort: Cohort, subjects: Sequence[str] = (), **changes: Any) -> Cohort | None:
    """Those of a checkpoint that some training people of a cohort trained, or all of them, for new people."""
    data_fields = {"cohort": str(source_cohort.path), "cohort_sha256": source_cohort.identity}
    people = TrainingPeople(subjects=tuple(subjects or source_cohort.list_split_subjects("train")))
    fields: dict[str, Any] = {"job": "train", "people": people, "checkpoint_folder": "ckpt"} | data_fields | changes
    trained = Trained(Path("ckpt"), saved_manifest=Manifest(**fields))
    predictor = SimpleNamespace(
        find_training_cohort=trained.find_training_cohort, training_manifest=trained.read_latest_manifest()
    )
    run: Any = SimpleNamespace(cohort=new, predictor=predictor)
    return comparisons.load_training_cohort(run)


@pytest.mark.slow
def test_new_people_get_baselines_from_the_checkpoints_training_people(cohort, new_cohort):
    """They are those that the same people get as the test split."""
    opened = open_cohort(cohort)
    predictions = baselines.predict_baselines(new_cohort, training_people(new_cohort, opened))
    pd.testing.assert_frame_equal(predictions, baselines.predict_baselines(opened))
    brain_people = training_people(replace(new_cohort, standard="brain"), opened)
    assert brain_people.standard == "brain"


def test_only_people_in_the_checkpoint_train_baselines(cohort, new_cohort):
    opened = open_cohort(cohort)
    trained = tuple(opened.list_split_subjects("train")[2:])
    source = training_people(new_cohort, opened, trained)
    assert tuple(source.list_split_subjects("train")) == trained


def test_without_the_cohort_as_it_was_no_baseline_is_fitted_for_new_people(cohort, new_cohort):
    opened = open_cohort(cohort)
    for changed in ({"cohort": "gone"}, {"cohort_sha256": "0" * 64}):
        assert training_people(new_cohort, opened, **changed) is None
    rescaled_metadata = replace(new_cohort.metadata, phenotype_mean=(9.0,) * 29)
    fewer_columns = pd.DataFrame(index=[row.subject for row in new_cohort.rows])
    unlike_cohorts = [
        replace(new_cohort, metadata=rescaled_metadata),
        replace(new_cohort, num_maps=2),
        replace(new_cohort),
    ]
    vars(unlike_cohorts[2])["covariates"] = fewer_columns  # as if read
    for unlike_cohort in unlike_cohorts:
        assert training_people(unlike_cohort, opened) is None


def write_people_edges(folder: Path, values: np.ndarray) -> Connectomes:
    """Connectomes (people, edges) of parcels called 1, 2, ..., in a file."""
    parcels = [str(number) for number in range(round((1 + np.sqrt(1 + 8 * values.shape[1])) / 2))]
    people = [str(number) for number in range(len(values))]
    write_connectomes(folder / "connectomes.h5", people, parcels, None, values)
    return Connectomes(folder / "connectomes.h5", "seg-p", tuple(parcels), None, np.arange(len(values)))


def draw_noisy_edges(count: int, effect: float, label: np.ndarray) -> np.ndarray:
    """Edges (count, 190), a tenth of which are higher with label 1, one in fifty unknown."""
    random = np.random.default_rng(1)
    values = random.normal(0.3, 0.2, (count, 190))
    values[:, :19] += effect * label[:, None]
    values[random.random(values.shape) < 0.02] = np.nan
    return values.astype(np.float32)


@pytest.mark.slow
def test_connectome_baselines_find_a_difference_only_if_present(tmp_path):
    made_cohort = make_people(160)
    predictions_without_edges = baselines.predict_baselines(made_cohort)
    made_cohort.connectomes = write_people_edges(tmp_path, draw_noisy_edges(160, 0.2, made_cohort.label))
    predictions, label = (
        baselines.predict_baselines(made_cohort),
        made_cohort.label[made_cohort.find_split_record_indices("test")],
    )
    assert list(predictions) == [
        *predictions_without_edges,
        "connectome, ridge",
        "regions with phenotype and connectome, mean of parts",
    ]
    pd.testing.assert_frame_equal(predictions[list(predictions_without_edges)], predictions_without_edges)
    assert metrics.roc_auc_score(label, predictions["connectome, ridge"]) > 0.9
    combined_predictions = [predictions[name] for name in ("regions, SVM", "phenotype, SVM", "connectome, ridge")]
    odds = np.prod([probability / (1 - probability) for probability in combined_predictions], axis=0) ** (1 / 3)
    assert predictions.iloc[:, -1].tolist() == pytest.approx((odds / (1 + odds)).tolist())
    made_cohort.connectomes = write_people_edges(tmp_path, draw_noisy_edges(160, 0.0, made_cohort.label))
    assert 0.2 < metrics.roc_auc_score(label, baselines.predict_baselines(made_cohort)["connectome, ridge"]) < 0.8


@pytest.mark.slow
def test_ridge_on_connectomes_takes_some_if_too_many_people(monkeypatch, tmp_path):
    made_cohort = make_people(80)
    made_cohort.connectomes = write_people_edges(tmp_path, draw_noisy_edges(80, 0.2, made_cohort.label))
    count, all_predictions = (
        len(made_cohort.find_split_record_indices("train")),
        baselines.predict_baselines(made_cohort),
    )
    monkeypatch.setattr(ridge, "MAX_EDGE_RECORDS", count - 5)
    limit_sentence = (
        f"Each ridge on connectomes among the baselines is fitted on {count - 5} of {count} training records"
    )
    assert baselines.describe_record_limits(count) == [] and baselines.describe_record_limits(
        count, has_connectomes=True
    )[0].startswith(limit_sentence)
    some_predictions = baselines.predict_baselines(made_cohort)
    assert [name for name in all_predictions if (all_predictions[name] != some_predictions[name]).any()] == list(
        all_predictions
    )[-2:]


@pytest.mark.slow
def test_edges_unlike_the_training_peoples_are_left_out(capsys, tmp_path):
    made_cohort, new_people = make_people(80), make_people(80)
    made_cohort.connectomes = new_people.connectomes = write_people_edges(
        tmp_path, draw_noisy_edges(80, 0.2, made_cohort.label)
    )
    assert "connectome, ridge" in baselines.predict_baselines(new_people, made_cohort)
    new_people.metadata = Metadata(connectome="seg-other", parcels_sha256="other")
    assert "connectome, ridge" not in baselines.predict_baselines(new_people, made_cohort)
    assert "Baselines left out: connectome" in capsys.readouterr().out


# Ridge


PEOPLE_COUNT, SIGNAL_STRENGTH = 60, 1.8
ONE_SITE = np.zeros(PEOPLE_COUNT)


def draw_two_classes(features, seed, signal=SIGNAL_STRENGTH):
    """Features of which the first five differ between labels, (people, features), and labels."""
    generator, label = np.random.default_rng(seed), np.arange(PEOPLE_COUNT) % 2
    values = generator.normal(size=(PEOPLE_COUNT, features))
    values[:, :5] += signal * label[:, None]
    return values, label.astype(float)


@pytest.mark.parametrize("features", [20, 400])
def test_weights_equal_scikit_learns(features):
    values, label = draw_two_classes(features, 0)
    weights, bias = ridge.fit_ridge_path(values, 2 * label - 1)
    for penalty_index, penalty in enumerate(ridge.RIDGE_PENALTIES):
        expected = Ridge(alpha=penalty).fit(values, 2 * label - 1)
        np.testing.assert_allclose(weights[:, penalty_index], expected.coef_, atol=1e-9)
        np.testing.assert_allclose(bias[penalty_index], expected.intercept_, atol=1e-9)


@pytest.mark.parametrize("features", [20, 400])
def test_the_penalty_has_the_least_inner_fold_error_and_calibrated_log_odds(features):
    values, label = draw_two_classes(features, 0)
    folds, site = ridge.make_inner_folds(label, np.arange(PEOPLE_COUNT)), np.arange(PEOPLE_COUNT) % 7 % 3
    site_centred_label = 2 * label - 1
    for site_number in range(3):
        site_centred_label[site == site_number] -= site_centred_label[site == site_number].mean()
    left_out_predictions = np.empty((len(ridge.RIDGE_PENALTIES), PEOPLE_COUNT))
    for penalty_index, penalty in enumerate(ridge.RIDGE_PENALTIES):
        for fitting, left_out_indices in folds:
            left_out_predictions[penalty_index, left_out_indices] = (
                Ridge(alpha=penalty).fit(values[fitting], site_centred_label[fitting]).predict(values[left_out_indices])
            )
    best_index = np.square(left_out_predictions - site_centred_label).sum(1).argmin()
    decision = Ridge(alpha=ridge.RIDGE_PENALTIES[best_index]).fit(values, site_centred_label).predict(values)
    target = np.where(label == 1, 31 / 32, 1 / 32)  # Platt's, of 30 people a class

    def cross_entropy(line):
        log_odds = line[0] * left_out_predictions[best_index] + line[1]
        return (np.logaddexp(0, log_odds) - target * log_odds).sum()

    platt = minimize(cross_entropy, [1, 0], method="Nelder-Mead", options={"maxiter": 10_000, "xatol": 1e-7}).x
    fitted_log_odds = ridge.fit_ridge(values, label, site, folds).predict_log_odds(values)
    assert np.corrcoef(fitted_log_odds, decision)[0, 1] > 1 - 1e-9
    np.testing.assert_allclose(np.polyfit(decision, fitted_log_odds, 1), platt, rtol=1e-3, atol=1e-3)


def test_a_fit_finds_a_difference_in_new_people_only_if_present():
    values, label = draw_two_classes(400, 0)
    new, truth = draw_two_classes(400, 1)
    folds = ridge.make_inner_folds(label, np.arange(PEOPLE_COUNT))
    assert metrics.roc_auc_score(truth, ridge.fit_ridge(values, label, ONE_SITE, folds).predict_log_odds(new)) > 0.75
    noise, _ = draw_two_classes(400, 2, signal=0)
    assert np.abs(ridge.fit_ridge(noise, label, ONE_SITE, folds).predict_log_odds(new)).mean() < 1


def test_too_few_people_give_how_common_autism_is():
    label = np.array([1.0, 1, 1, 0])
    assert ridge.make_inner_folds(label, np.arange(4)) == []
    np.testing.assert_allclose(ridge.fit_ridge(np.eye(4), label, label, []).predict_log_odds(np.eye(4)), np.log(3))


def test_inner_folds_have_both_classes_or_are_absent(effort):
    effort()
    label = np.array([0, 0, 0, 1, 1, 1, 1])
    assert len(ridge.make_inner_folds(label, np.arange(7))) == 3
    assert ridge.make_inner_folds(label, np.array([0, 0, 0, 1, 2, 3, 4])) == []  # one subject is all of a class
    assert ridge.make_inner_folds(label, np.array([0, 1, 2, 0, 1, 1, 1])) != []
    assert ridge.make_inner_folds(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])) == []


def test_labels_are_relative_to_the_site_mean_unless_no_site_has_both():
    label = np.array([1.0, 1, 0, 0])
    np.testing.assert_allclose(
        ridge.centre_labels_within_sites(label, np.array(list("aaab"))), [2 / 3, 2 / 3, -4 / 3, 0]
    )
    assert ridge.centre_labels_within_sites(label, np.array(list("abcd"))).tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("block_bytes", [2**27, 8 * 28 * 7], ids=["whole", "blocks"])
def test_a_fit_on_edges_equals_the_fit_on_z_scores(block_bytes, cohort, monkeypatch, tmp_path):
    """Also if edges are unknown, one is constant, and new people lack others."""
    monkeypatch.setattr(ridge, "EDGE_BLOCK_BYTES", block_bytes)
    folder = shutil.copytree(cohort, tmp_path / "cohort")
    made_cohort = add_connectomes(folder)
    train, test = made_cohort.find_split_record_indices("train"), made_cohort.find_split_record_indices("test")
    edges, label = (
        made_cohort.connectomes[np.arange(len(made_cohort.rows))].astype(float),
        np.array([row.label for row in made_cohort.rows]),
    )
    scaler = StandardScaler().fit(edges[train])
    scores = np.nan_to_num((edges - scaler.mean_) / np.nanstd(np.where(np.isnan(edges), scaler.mean_, edges)[train], 0))
    scores *= np.sqrt(ridge.EQUIVALENT_FEATURE_COUNT / 28)
    folds = ridge.make_inner_folds(label[train], np.array([made_cohort.rows[row_index].subject for row_index in train]))
    expected = ridge.fit_ridge(
        scores[train], label[train], np.array([made_cohort.rows[row_index].site for row_index in train]), folds
    )
    edge_fit = ridge.fit_or_reuse_edge_classifier(made_cohort, made_cohort.connectomes, train)
    np.testing.assert_allclose(
        edge_fit.predict_log_odds(made_cohort.connectomes, test), expected.predict_log_odds(scores[test]), atol=1e-7
    )


def test_constant_and_unknown_edges_count_nothing():
    edges = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    edges[:, 1], edges[:, 2] = 0.25, np.nan
    stub_connectomes: Any = SimpleNamespace(num_edges=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ridge, "read_edge_blocks", lambda *_: [(np.arange(9), edges.astype(float))])
        scale = ridge.fit_edge_scale(stub_connectomes, np.arange(9))
    assert scale.weighted_inverse_sd[1:].tolist() == [0, 0] and scale.weighted_inverse_sd[0] > 0
    assert not scale.standardise(np.full((2, 3), 7.0))[:, 1:].any()


# Which baseline is pre-specified, case by case as the docs list them, whatever the order


FITTED_BASELINES = [
    *("covariates, logistic regression", "phenotype, logistic regression"),
    *("regions, logistic regression", "regions, ridge", "all, logistic regression", "all, ridge"),
    *("covariates, SVM", "phenotype, SVM", "regions, SVM", "all, SVM"),
]
ONE_MAP = [*FITTED_BASELINES, "regions and phenotype, mean of SVMs"]
SEVERAL_MAPS = [*ONE_MAP, "regions, mean of SVMs"]
CONNECTOMES = [*SEVERAL_MAPS, "connectome, ridge", "regions with phenotype and connectome, mean of parts"]
NO_PHENOTYPE = [name for name in SEVERAL_MAPS if "phenotype" not in name]
EDGE_BASELINES = [*NO_PHENOTYPE, "connectome, ridge", "regions and connectome, mean of parts"]
ALL_INPUTS = ("volume", "phenotype", "connectome")
NO_DIFFERENCES: tuple[list, list] = ([], [])


@pytest.mark.parametrize(
    "inputs, baselines, name, lacks, besides",
    [
        (ALL_INPUTS, CONNECTOMES, "regions with phenotype and connectome, mean of parts", *NO_DIFFERENCES),
        (ALL_INPUTS[:2], CONNECTOMES, "regions and phenotype, mean of SVMs", *NO_DIFFERENCES),
        (ALL_INPUTS[:2], ONE_MAP, "regions and phenotype, mean of SVMs", *NO_DIFFERENCES),
        (ALL_INPUTS[:1], CONNECTOMES, "regions, mean of SVMs", *NO_DIFFERENCES),
        (ALL_INPUTS[:1], ONE_MAP, "regions, SVM", *NO_DIFFERENCES),
        (ALL_INPUTS[1:2], CONNECTOMES, "phenotype, SVM", *NO_DIFFERENCES),
        (ALL_INPUTS[2:], CONNECTOMES, "connectome, ridge", *NO_DIFFERENCES),
        (ALL_INPUTS[::2], EDGE_BASELINES, "regions and connectome, mean of parts", *NO_DIFFERENCES),
        # what stands in
        (ALL_INPUTS, EDGE_BASELINES, "regions and connectome, mean of parts", ["phenotype"], []),
        (ALL_INPUTS, SEVERAL_MAPS, "regions and phenotype, mean of SVMs", ["connectome"], []),
        (
            ALL_INPUTS[::2],
            CONNECTOMES,
            "regions with phenotype and connectome, mean of parts",
            [],
            ["phenotype"],
        ),
        (ALL_INPUTS[:2], NO_PHENOTYPE, "regions, mean of SVMs", ["phenotype"], []),
    ],
)
def test_the_baseline_reads_the_same_inputs_as_the_network(inputs, baselines, name, lacks, besides):
    for ordered_baselines in (baselines, baselines[::-1]):
        baseline = choose_prespecified_baseline(ordered_baselines, inputs)
        assert baseline and (baseline.name, baseline.lacks, baseline.besides) == (name, lacks, besides)


def test_without_a_baseline_for_an_input_none_is_chosen():
    assert choose_prespecified_baseline([], ALL_INPUTS) is None
    assert choose_prespecified_baseline(["covariates, SVM", "of another version"], ALL_INPUTS) is None


CLASSIFIERS = [model for model in MODELS.values() if model.predicted == "label"]


@pytest.mark.parametrize("model", CLASSIFIERS, ids=[model.model_name for model in CLASSIFIERS])
def test_for_all_classifiers_a_baseline_is_chosen_and_non_baselines_have_no_role(model):
    rows = ["majority", *CONNECTOMES]
    role_by_baseline = assign_baseline_roles(rows, model.list_input_names(next(iter(model.module.PRESETS.values()))))
    assert list(role_by_baseline.values()).count("pre-specified") == 1 and list(role_by_baseline) == CONNECTOMES
    assert set(role_by_baseline.values()) == {"pre-specified", "other"}


@pytest.mark.slow
def test_models_on_the_same_folds_have_the_same_baselines(on_folds, nn_on_folds):
    """Those that read maps, too, of which one of the networks reads none."""
    tables = [(folder / "test/baseline_predictions.csv").read_bytes() for folder in (on_folds, nn_on_folds)]
    assert tables[0] == tables[1] and b"regions, SVM" in tables[0]
