"""--blackout --estimator: effects beside a loop over people and donors, with parts put into the exported table by hand.

Where --donors names more people than there are in training, all of these are donors, and nothing is left to chance.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from by_hand import (
    PARCEL_PAIRS,
    REGION_NAMES,
    REGION_PLACE_BY_PARCEL,
    read,
    read_blackout_arrays,
    write_few_regions,
)
from commands import ROOT, done, listing, read_manifest, run, split_command
from sklearn.base import BaseEstimator

import run as run_program
from data.cohorts.cohort import Cohort
from utils.blackout.edge_logits import make_edge_logits
from utils.blackout.edges import ExpectedEdges
from utils.blackout.fills import predict_expected_means
from utils.jobs import JOBS
from utils.runs.network import ReadyNetwork
from utils.runs.plan import plan_runs
from utils.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn", "no_baselines")]

KINDS = ("maps", "phenotype", "connectome", "covariates")
MAP_COUNT = 2
BLACKOUT = (
    "run.py --blackout --estimator {file} --dataDir {cohort} --atlas {atlas}/own.nii.gz --systems {atlas}/systems.csv "
    "--chkPointDir {to}/ckpt --outDir {to}/blackout --folds 3 "
)
TEST = (
    "run.py --test --estimator {file} --dataDir {cohort} --atlas {atlas}/own.nii.gz --chkPointDir {to}/ckpt "
    "--outDir {to}/test --folds 3 "
)
CURVED_FILE = """
import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

class Curved(ClassifierMixin, BaseEstimator):
    def code(self, X):
        return X.select_dtypes("number").assign(is_open=X["phenotype eyes"].eq("open").astype(float)).astype(float)

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        coded = self.code(X)
        self.means_, self.spreads_ = coded.mean(), coded.std().replace(0, 1)
        scores = self.scale(X)
        self.weights_ = (scores[y == 1].mean(0) - scores[y == 0].mean(0)) / np.sqrt(scores.shape[1])
        return self

    def scale(self, X):
        return ((self.code(X) - self.means_) / self.spreads_).fillna(0).to_numpy()

    def decision_function(self, X):
        evidence = self.scale(X) @ self.weights_
        return evidence + evidence**2 / 5

    def predict_proba(self, X):
        probability = expit(self.decision_function(X))
        return np.stack([1 - probability, probability], axis=1)

def make():
    return Curved()
"""
STUMP_FILE = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Stump(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.middle_ = X.iloc[:, 2].median()
        self.sign_ = np.sign(X.iloc[:, 2][y == 1].mean() - X.iloc[:, 2][y == 0].mean())
        return self

    def predict_proba(self, X):
        probability = (self.sign_ * (X.iloc[:, 2] - self.middle_) > 0).to_numpy(float)
        return np.stack([1 - probability, probability], axis=1)

def make():
    return Stump()
"""
FAILING_FILE = """
from pathlib import Path

from sklearn.linear_model import LogisticRegression

FOLDER = Path(__file__).parent

class Failing(LogisticRegression):
    def fit(self, X, y):
        number = len([*FOLDER.glob("fit-*")])
        (FOLDER / f"fit-{number}").touch()
        if number == 1:
            raise RuntimeError("the power is cut")
        return super().fit(X, y)

def make():
    return Failing()
"""
CHANGING_FILE = """
import os

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Changing(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.weight_ = int.from_bytes(os.urandom(4), "big") / 2**32
        return self

    def predict_proba(self, X):
        probability = 1 / (1 + np.exp(-self.weight_ * X.iloc[:, 0].to_numpy(float)))
        return np.stack([1 - probability, probability], axis=1)

def make():
    return Changing()
"""
BATCH_FILE = CURVED_FILE.replace("(self.code(X) - self.means_)", "(self.code(X) - self.code(X).mean())")


def write_estimator(folder: Path, code: str, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(code)
    return folder / name


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    return write_few_regions(tmp_path_factory.mktemp("atlas"))


# Beside a loop


class Loop:
    """The first fold by hand: the exported inputs, an estimator fitted on the training people, and effects over all of
    these as donors."""

    def __init__(self, export: Path, make_estimator: Callable[[], BaseEstimator], cohort: Cohort):
        people = pd.read_csv(export / "participants.csv", dtype={"id": str})
        tables = []
        for kind in KINDS:
            table = pd.read_csv(export / f"{kind}.csv")
            if (export / f"{kind}.npy").exists():
                table = pd.DataFrame(np.load(export / f"{kind}.npy"), columns=table["name"])
            tables.append(table.drop(columns="file", errors="ignore"))
        self.inputs = pd.concat(tables, axis=1)
        self.cohort = cohort
        self.train, self.tested = np.flatnonzero(people["fold"] != 0), np.flatnonzero(people["fold"] == 0)
        self.estimator = make_estimator().fit(self.inputs.iloc[self.train], people["label"].to_numpy()[self.train])
        self.signs = np.where(people["label"].to_numpy()[self.tested] == 1, 1, -1)

    def find_columns(self, prefix: str) -> np.ndarray:
        return np.flatnonzero(self.inputs.columns.str.startswith(prefix))

    def list_region_columns(self) -> list[np.ndarray]:
        first_edge = self.find_columns("edge ")[0]
        is_edge_of_region = [(REGION_PLACE_BY_PARCEL[PARCEL_PAIRS] == place).any(1) for place in range(4)]
        return [
            np.append(place * MAP_COUNT + np.arange(MAP_COUNT), first_edge + np.flatnonzero(is_edge_of_region[place]))
            for place in range(len(REGION_NAMES))
        ]

    def list_system_columns(self) -> list[np.ndarray]:
        """Within the front, between it and what lies outside, and within that."""
        outside_ends = (REGION_PLACE_BY_PARCEL[PARCEL_PAIRS] == len(REGION_NAMES)).sum(1)
        return [self.find_columns("edge ")[outside_ends == count] for count in range(3)]

    def compute_effects(self, columns: np.ndarray, replace: Callable[[pd.DataFrame, int], pd.DataFrame]) -> np.ndarray:
        """The mean falls over donors of each tested person; `replace` gives the columns of all donors for a person."""
        effects = []
        for person in self.tested.tolist():
            rows = self.inputs.iloc[[person] * len(self.train)].reset_index(drop=True)
            donor_rows = replace(self.inputs.iloc[self.train].reset_index(drop=True), person)
            for column in self.inputs.columns[columns]:
                rows[column] = donor_rows[column]
            intact = self.estimator.decision_function(self.inputs.iloc[[person]])[0]
            effects.append(intact - self.estimator.decision_function(rows).mean())
        return self.signs * effects


@pytest.fixture(scope="module")
def curved(converted, atlas, tmp_path_factory) -> tuple[Path, Loop, str]:
    """A blackout of the first fold, the same by hand, and what was printed."""
    folder = tmp_path_factory.mktemp("curved")
    file = write_estimator(folder / "code", CURVED_FILE, "curved.py")  # in this process, no other may have its name
    places = {"file": file, "cohort": converted, "atlas": atlas, "to": folder}
    command = BLACKOUT + f"--inputs {','.join(KINDS)} --donors 99 --fold 0 --verify 2"
    printed = done(command, **places)
    export_options = f"--inputs {','.join(KINDS)} --atlas {{atlas}}/own.nii.gz --folds 3"
    done(f"abide-data export {{cohort}} {{to}}/export {export_options}", **places)
    namespace: dict = {}
    exec(CURVED_FILE, namespace)  # noqa: S102
    cohort = plan_first_run(command, **places).cohort
    return folder / "blackout/fold-0", Loop(folder / "export", namespace["make"], cohort), printed


def plan_first_run(command: str, **places: object) -> Run:
    """The first run of a command, with its predictor and the data of its fold."""
    job_parser = run_program.make_parser()
    request = run_program.make_request(job_parser, job_parser.parse_args(split_command(command, **places)[1:]))
    return plan_runs(request, JOBS).group.runs[0]


def get_donor_rows(donor_rows: pd.DataFrame, _: int) -> pd.DataFrame:
    return donor_rows


def compare(stored_effects: np.ndarray, expected_effects: list[np.ndarray]) -> None:
    assert np.abs(stored_effects).max() > 1e-2
    np.testing.assert_allclose(stored_effects, np.column_stack(expected_effects), atol=1e-4, rtol=1e-4)


def test_a_region_is_replaced_in_its_maps_and_edges_jointly_donor_by_donor(curved):
    folder, loop, _ = curved
    expected = [loop.compute_effects(columns, get_donor_rows) for columns in loop.list_region_columns()]
    compare(read_blackout_arrays(folder)["reliance"], expected)


def test_a_pair_of_systems_is_replaced_in_its_edges(curved):
    folder, loop, _ = curved
    arrays = read_blackout_arrays(folder)
    system_names = [name.decode() for name in arrays["system"]]
    pair_names = [[system_names[system_index] for system_index in pair] for pair in arrays["system_pair"]]
    outside = "outside the regions"
    assert pair_names == [["front", "front"], ["front", outside], [outside, outside]]
    expected = [loop.compute_effects(columns, get_donor_rows) for columns in loop.list_system_columns()]
    compare(arrays["system_reliance"], expected)
    assert [*read(folder, "connections")["level"].unique()] == ["systems"]


def test_a_group_of_values_is_replaced_in_its_columns(curved):
    """What phenotype and covariates both have is replaced in both."""
    folder, loop, _ = curved
    values = read(folder, "values").set_index("group")["values"].str.split("; ")
    assert values["age"] == ["phenotype age", "covariate AGE_AT_SCAN"] and values["eyes"] == ["phenotype eyes"]
    arrays = read_blackout_arrays(folder)
    columns_by_group = [loop.inputs.columns.get_indexer(values[name.decode()]) for name in arrays["values"]]
    expected = [loop.compute_effects(columns, get_donor_rows) for columns in columns_by_group]
    compare(arrays["value_reliance"], expected)


def test_a_region_becomes_the_mean_of_training_people_or_what_the_rest_predicts(curved):
    folder, loop, _ = curved
    arrays, region_columns = read_blackout_arrays(folder), loop.list_region_columns()
    numbers = loop.inputs.iloc[loop.train].select_dtypes("number").mean()

    def get_background(donor_rows: pd.DataFrame, _: int) -> pd.DataFrame:
        return donor_rows.assign(**numbers)

    compare(arrays["delta_logit"], [loop.compute_effects(columns, get_background) for columns in region_columns])

    # The donor's level, and how far the rest of the person predicts another one than the rest of the donor
    all_records, first_edge = np.arange(len(loop.inputs)), loop.find_columns("edge ")[0]
    means = (
        loop.inputs.iloc[:, : len(REGION_NAMES) * MAP_COUNT].to_numpy(float).reshape(len(all_records), -1, MAP_COUNT)
    )
    edges = loop.inputs.iloc[:, loop.find_columns("edge ")].to_numpy()
    predicted_means = predict_expected_means(loop.cohort, means)
    edge_columns = [columns[MAP_COUNT:] - first_edge for columns in region_columns]
    predicted_edges = ExpectedEdges(loop.cohort, edge_columns, means, 0)(all_records, edges)
    expected = []
    for place, columns in enumerate(region_columns):
        predicted = np.concatenate([predicted_means[:, place], predicted_edges[place]], axis=1)

        def shift(donor_rows: pd.DataFrame, person: int, columns=columns, predicted=predicted) -> pd.DataFrame:
            names = loop.inputs.columns[columns]
            shifted = donor_rows[names] + predicted[person] - predicted[loop.train]
            return donor_rows.assign(**shifted)

        expected.append(loop.compute_effects(columns, shift))
    compare(arrays["unique"], expected)


def test_row_by_row_it_comes_out_the_same(curved, converted, atlas, tmp_path):
    """But for an estimator of which a row depends on the others."""
    words = curved[2].partition("the decision function differs by at most ")[2]
    assert float(words.split()[0].rstrip(".")) < 1e-6
    places = {"file": write_estimator(tmp_path / "code", BATCH_FILE), "cohort": converted, "atlas": atlas}
    printed = done(BLACKOUT + "--fold 0 --verify 1 --donors 1", to=tmp_path, **places)
    assert float(printed.partition("differs by at most ")[2].split()[0].rstrip(".")) > 1e-2


# Beside a network


COPYING_FILE = """
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Copying(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_, self.weights_ = np.load(Path(__file__).with_name("weights.npy"))
        return self

    def decision_function(self, X):
        return np.nan_to_num((X - self.means_) * self.weights_).sum(axis=1)

    def predict_proba(self, X):
        probability = 1 / (1 + np.exp(-self.decision_function(X)))
        return np.stack([1 - probability, probability], axis=1)

def make():
    return Copying()
"""


def test_the_edges_of_a_network_have_the_same_effects_in_an_estimator_that_copies_them(
    converted, on_folds, atlas, tmp_path
):
    """Its edges are linear, so that the mean over all donors is what the mean of their edges gives."""
    places = {"file": write_estimator(tmp_path / "code", COPYING_FILE), "cohort": converted, "atlas": atlas}
    options = "--fold 0 --donors 99"
    network_command = BLACKOUT.replace("--estimator {file}", "").replace("{to}/ckpt", "{ckpt}/ckpt") + options
    network_places = {**places, "ckpt": on_folds, "to": tmp_path / "network"}
    done(network_command, **network_places)
    network_run = plan_first_run(network_command + " --verify 1", **network_places)
    ready_network = network_run.predictor.make_ready(network_run.fold_data)
    assert isinstance(ready_network, ReadyNetwork)
    edge_logits = make_edge_logits(ready_network.network)
    assert edge_logits
    means = edge_logits.training_edge_means
    np.save(tmp_path / "code/weights.npy", [means, edge_logits.compute_edge_contributions(means[None] + 1)[0]])
    done(BLACKOUT + options + " --inputs connectome", to=tmp_path, **places)

    network_arrays = read_blackout_arrays(tmp_path / "network/blackout/fold-0")
    is_outside = network_arrays["pair"] == len(REGION_NAMES)
    expected = [network_arrays["pair_reliance"][:, is_outside.sum(1) == count].sum(1) for count in range(3)]
    stored_effects = read_blackout_arrays(tmp_path / "blackout/fold-0")["system_reliance"]
    assert np.abs(stored_effects).max() > 1e-3
    np.testing.assert_allclose(stored_effects, np.column_stack(expected), atol=1e-5, rtol=1e-4)


# What is said


def test_pages_and_pooled_results_speak_of_an_estimator(converted, atlas, tmp_path):
    places = {"file": write_estimator(tmp_path / "code", CURVED_FILE), "cohort": converted, "atlas": atlas}
    preview = done(BLACKOUT + "--donors 2 --dryRun", to=tmp_path, **places)
    parts = 4 * (2 + 2 + 1) + 3 * 2 + 7 * 2  # regions by fill and donor, pairs of systems, groups of values
    assert f"{1 + parts} a scan, {40 * (1 + parts):,} in all" in preview and "duration" in preview
    assert not (tmp_path / "ckpt").exists() and not (tmp_path / "blackout").exists()
    done(TEST, to=tmp_path, **places)
    done(BLACKOUT + "--donors 2", to=tmp_path, **places)
    page = (tmp_path / "blackout/blackout.html").read_text()
    assert "what this estimator uses" in page and "decision function of the true class falls" in page
    assert "network" not in page.lower() and "logit" not in page
    assert "pairs of regions within systems are not measured" in " ".join(read_manifest(tmp_path / "blackout")["notes"])
    assert len(read_blackout_arrays(tmp_path / "blackout")["label"]) == 40
    predictions = pd.read_csv(tmp_path / "test/predictions.csv").set_index("subject")["probability"]
    arrays = read_blackout_arrays(tmp_path / "blackout")
    subjects = [int(subject) for subject in arrays["subject"]]
    np.testing.assert_allclose(arrays["probability"], predictions[subjects], atol=1e-6)
    assert not any("fitted again" in note for note in read_manifest(tmp_path / "blackout")["notes"])


def test_it_says_if_its_fit_differs_from_that_of_its_test(converted, atlas, tmp_path):
    places = {"file": write_estimator(tmp_path / "code", CHANGING_FILE), "cohort": converted, "atlas": atlas}
    done(TEST + "--inputs maps", to=tmp_path, **places)
    command = BLACKOUT.replace("--systems {atlas}/systems.csv", "") + "--inputs maps --donors 1"
    done(command, to=tmp_path, **places)
    notes = [note for note in read_manifest(tmp_path / "blackout")["notes"] if "fitted again" in note]
    assert len(notes) == 1 and str(tmp_path / "test") in notes[0]


def test_few_values_and_exact_zeros(converted, atlas, tmp_path):
    """Of an estimator that reads one region, no other has an effect or evidence; extreme probabilities are clipped."""
    file = write_estimator(tmp_path / "code", STUMP_FILE)
    command = BLACKOUT.replace("--systems {atlas}/systems.csv", "") + "--inputs maps --donors 2"
    done(command, file=file, cohort=converted, atlas=atlas, to=tmp_path)
    regions = read(tmp_path / "blackout", "regions").set_index("region").loc[[*REGION_NAMES]]
    is_read = np.arange(4) == 1
    arrays = read_blackout_arrays(tmp_path / "blackout")
    assert (arrays["reliance"][:, ~is_read] == 0).all() and (arrays["reliance"][:, is_read] != 0).any()
    assert (regions["p_reliance"][~is_read] == 1).all() and regions["p_reliance"][is_read].item() < 1
    assert any("100.0% of the probabilities" in note for note in read_manifest(tmp_path / "blackout")["notes"])


# What is done


def test_interrupted_it_continues_at_the_next_fold(converted, atlas, tmp_path):
    file = write_estimator(tmp_path / "code", FAILING_FILE)
    places = {"file": file, "cohort": converted, "atlas": atlas, "to": tmp_path}
    command = BLACKOUT.replace("--systems {atlas}/systems.csv", "") + "--inputs maps --donors 1"
    outcome = run(command, **places)
    assert (
        outcome.status == 2 and "the power is cut" in outcome.err and (tmp_path / "blackout/fold-0/run.json").exists()
    )
    first_fold = listing(tmp_path / "blackout/fold-0")
    done(command, **places)
    assert len([*(tmp_path / "code").glob("fit-*")]) == 4 and listing(tmp_path / "blackout/fold-0") == first_fold
    assert len(read_blackout_arrays(tmp_path / "blackout")["label"]) == 40
    assert "Everything is done" in done(command, **places)


def test_it_needs_no_tensorflow(converted, tmp_path):
    file = write_estimator(tmp_path / "code", STUMP_FILE)
    command = [sys.executable, "-X", "importtime", str(ROOT / "run.py"), "--blackout", "--estimator", str(file)]
    command += ["--dataDir", str(converted), "--inputs", "maps", "--donors", "1", "--outDir", "blackout"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    imported_names = {line.rpartition("|")[2].strip().partition(".")[0] for line in process.stderr.splitlines()}
    assert process.returncode == 0 and "sklearn" in imported_names
    assert not imported_names & {"tensorflow", "keras"}
