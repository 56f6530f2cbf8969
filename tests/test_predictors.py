"""Each kind of predictor keeps the contract of check_predictor.py, and a predictor that only keeps it is tested like a
network."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from check_predictor import PREDICTOR_CHECKS
from commands import done, read_manifest, read_page_text, split_command
from sklearn.metrics import roc_auc_score

import run as run_program
from data.cohorts.cohort import Cohort
from utils.jobs import JOBS
from utils.runs.plan import Request, plan_runs
from utils.runs.predictor import FoldData, Predictor, ReadyPredictor
from utils.runs.record import Choices
from utils.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn", "no_baselines")]

ESTIMATOR_FILE = """
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

def make():
    imputer = make_column_transformer((SimpleImputer(), make_column_selector(dtype_include="number")))
    return make_pipeline(imputer, RandomForestClassifier(n_estimators=10))
"""


@dataclass(frozen=True)
class TablePredictor(Predictor):
    """Probabilities by the IDs of people, as a file has them."""

    table_path: Path

    noun = "table"

    @property
    def name(self) -> str:
        return self.table_path.stem

    @property
    def description(self) -> str:
        return f"{self.name} of {len(self.read_probabilities())} people"

    @property
    def path(self) -> Path:
        return self.table_path

    @property
    def input_names(self) -> tuple[str, ...]:
        return ()

    def find_sha256(self) -> str:
        return hashlib.sha256(self.table_path.read_bytes()).hexdigest()

    def make_choices(self, seed: int, cohort: Cohort) -> Choices:
        words = "Probabilities were read from a table."
        return Choices(
            model=self.name,
            preset="",
            config={},
            grid=None,
            seed=seed,
            precision="",
            noun=self.noun,
            methods_sentences=words,
        )

    def make_ready(self, fold_data: FoldData) -> "ReadyTable":
        return ReadyTable(fold_data.cohort, self.read_probabilities())

    def read_probabilities(self) -> pd.Series:
        return pd.read_csv(self.table_path, dtype={"subject": str}).set_index("subject")["probability"]


@dataclass(frozen=True, eq=False)
class ReadyTable(ReadyPredictor):
    cohort: Cohort
    probabilities: pd.Series

    def predict_probabilities(self, record_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        subjects = [self.cohort.rows[record_index].subject for record_index in record_indices]
        return self.probabilities[subjects].to_numpy(float), None


def write_table(cohort: Path, folder: Path) -> Path:
    """Probabilities that know something, of all people of a cohort."""
    people = lab.read_table(cohort / "subjects.csv")
    noise = np.random.default_rng(3).normal(size=len(people))
    people["probability"] = 1 / (1 + np.exp(-people["label"].astype(float) - noise))
    people[["subject", "probability"]].to_csv(folder / "guesses.csv", index=False)
    return folder / "guesses.csv"


@pytest.fixture
def bring_predictor(monkeypatch):
    """`bring_predictor(predictor)`: run.py tests this one in place of a network."""
    make_request = run_program.make_request

    def bring(predictor: Predictor) -> None:
        monkeypatch.setattr("run.make_request", lambda *given: replace(make_request(*given), predictor=predictor))

    return bring


def plan_first_run(command: str, **places: object) -> Run:
    """The first run of a command, with its predictor and the data of its fold."""
    job_parser = run_program.make_parser()
    request: Request = run_program.make_request(job_parser, job_parser.parse_args(split_command(command, **places)[1:]))
    return plan_runs(request, JOBS).group.runs[0]


@pytest.fixture(scope="module")
def predictor_run(request, tmp_path_factory) -> Run:
    """A run of the kind of predictor that a test asks for."""
    get, kind, folder = request.getfixturevalue, request.param, tmp_path_factory.mktemp(request.param)
    if kind == "checkpoint":
        command = "run.py --test --folds 3 --chkPointDir {ckpt}/ckpt --dataDir {of} --outDir {to}/out"
        return plan_first_run(command, ckpt=get("on_folds"), of=get("converted"), to=folder)
    if kind == "bundle":
        command = "run.py --test --bundle {model} --dataDir {of} --outDir {to}/out"
        return plan_first_run(command, model=get("bundle"), of=get("newcomers"), to=folder)
    (folder / f"{kind}_file.py").write_text(ESTIMATOR_FILE)
    command = "run.py --test --estimator {file} --folds 3 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/out"
    estimator_run = plan_first_run(command, file=folder / f"{kind}_file.py", of=get("converted"), to=folder)
    if kind == "table":
        return replace(estimator_run, predictor=TablePredictor(write_table(get("converted"), folder)))
    return estimator_run


@pytest.mark.parametrize("check", PREDICTOR_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("predictor_run", ["checkpoint", "bundle", "estimator", "table"], indirect=True)
def test_each_kind_keeps_the_contract(check, predictor_run, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    check(predictor_run.predictor, predictor_run.fold_data, folder)


def test_whatever_keeps_the_contract_is_tested_like_a_network(converted, nn_on_folds, bring_predictor, tmp_path):
    table_path = write_table(converted, tmp_path)
    bring_predictor(TablePredictor(table_path))
    command = "run.py --test --folds 3 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/test"
    output = done(command, of=converted, to=tmp_path)
    assert "guesses" in output and "Everything is done." in done(command, of=converted, to=tmp_path)

    predictions = pd.read_csv(tmp_path / "test/predictions.csv", dtype={"subject": str})
    expected = pd.read_csv(table_path, dtype={"subject": str}).set_index("subject")["probability"]
    np.testing.assert_allclose(predictions["probability"], expected[predictions["subject"]], rtol=0, atol=6e-9)
    manifest = read_manifest(tmp_path / "test")
    digest = hashlib.sha256(table_path.read_bytes()).hexdigest()
    assert (manifest["model"], manifest["noun"]) == ("guesses", "table")
    assert manifest["weights"] == dict.fromkeys("012", digest) and manifest["finished"]
    page_text = read_page_text(tmp_path / "test/report.html")
    assert "guesses" in page_text and "Probabilities were read from a table." in page_text

    done("abide-compare {net}/test {to}/test --outDir {to}/compared", net=nn_on_folds, to=tmp_path)
    (row,) = pd.read_csv(tmp_path / "compared/compare.csv").to_dict("records")
    assert row["auc_b"] == pytest.approx(roc_auc_score(predictions["label"], predictions["probability"]))

    table_path.write_text(table_path.read_text().replace("0.", "0.0"))
    assert "Everything is done." not in done(command, of=converted, to=tmp_path)
