"""`run.py --test --estimator`: equal to scikit-learn in the exported folds; what an estimator is given and leaves."""

import pickle
import random
import subprocess
import sys
from pathlib import Path

import lab
import nibabel
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, done, listing, read_manifest, run
from oracles import average_group_auc
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn", "no_baselines")]

FAMILY_BY_ROW = {0: "A", 12: "A", 3: "B", 15: "B", 6: "C", 9: "C", 1: "D", 4: "D"}
IN_FOLDS = "--folds 3 --repeats 2 --seed 5"
TEST = "run.py --test --estimator {file} --dataDir {cohort} --chkPointDir {to}/ckpt --outDir {to}/test"
KINDS = ("maps", "phenotype", "connectome", "covariates")
IGNORED_WARNINGS = pytest.mark.filterwarnings("ignore::UserWarning")  # of values that are the same for all
TOLERANCE = 1e-9
PREFIX_BY_KIND = {"maps": "map ", "phenotype": "phenotype ", "connectome": "edge ", "covariates": "covariate "}

PIPELINE_FILE = """
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

def prepare():
    return make_column_transformer((SimpleImputer(), make_column_selector(dtype_include="number")))

def make():
    return make_pipeline(prepare(), StandardScaler(), SelectKBest(k=5), LogisticRegression())

def make_svm():
    return make_pipeline(prepare(), StandardScaler(), LinearSVC(C=0.01))
"""
REVERSED_FILE = """
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin

FILE = Path(__file__).parent / "decisions.csv"

class Reversed(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        values = X.to_numpy(float)
        self.direction_ = values[y == 0].mean(0) - values[y == 1].mean(0)
        return self

    def decision_function(self, X):
        decisions = X.to_numpy(float) @ self.direction_
        table = pd.DataFrame({"decision": decisions}).assign(call=len(pd.read_csv(FILE)) if FILE.exists() else 0)
        table.to_csv(FILE, mode="a", header=not FILE.exists(), index=False)
        return decisions

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)

def make():
    return Reversed()
"""
RECORDING_FILE = """
import pickle
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

FOLDER = Path(__file__).parent

def record(name, *values):
    number = len([*FOLDER.glob(f"{name}-*")])
    (FOLDER / f"{name}-{number}").write_bytes(pickle.dumps(values))

class Recording(ClassifierMixin, BaseEstimator):
    def fit(self, X, y, groups=None):
        record("fit", X, y, groups)
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        record("predict", X)
        return np.full((len(X), 2), 0.5)

def make():
    return Recording()
"""
RANDOM_FILE = """
import random

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Drawing(ClassifierMixin, BaseEstimator):
    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        own_generator = np.random.RandomState(self.random_state)
        self.probability_ = (np.random.random() + random.random() + own_generator.randint(1000) / 1000) / 3
        return self

    def predict_proba(self, X):
        return np.tile([1 - self.probability_, self.probability_], (len(X), 1))

def make():
    return Drawing()
"""
TALKING_FILE = """
import sys
import warnings

from sklearn.linear_model import LogisticRegression

print("said as it is imported")
warnings.warn("warned as it is imported")

class Talking(LogisticRegression):
    def fit(self, X, y):
        print("said in fit")
        return super().fit(X.fillna(0).iloc[:, :9], y)

    def predict_proba(self, X):
        print("said in predict_proba", file=sys.stderr)
        warnings.warn("warned in predict_proba")
        return super().predict_proba(X.fillna(0).iloc[:, :9])

def make():
    print("said in make")
    return Talking()
"""
PARALLEL_FILE = """
import warnings

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV, GroupKFold

class Threshold(ClassifierMixin, BaseEstimator):
    def __init__(self, column=0):
        self.column = column

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        print("said by a process")
        warnings.warn("warned by a process")
        self.middle_ = X.iloc[:, self.column].mean()
        return self

    def predict_proba(self, X):
        probability = 1 / (1 + np.exp(self.middle_ - X.iloc[:, self.column].to_numpy(float)))
        return np.stack([1 - probability, probability], axis=1)

def make():
    search = {"column": [0, 1, 2]}
    return GridSearchCV(Threshold(), search, cv=GroupKFold(2), scoring="roc_auc", n_jobs=2)
"""


def write_estimator(folder: Path, code: str, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(code)
    return folder / name


@pytest.fixture(scope="module")
def relatives(tmp_path_factory) -> Path:
    """`cohort`, people with relatives among them, and `export`, the same in folds of two repeats."""
    folder = tmp_path_factory.mktemp("relatives")
    table = lab.people().assign(FAM=[FAMILY_BY_ROW.get(row_index, "") for row_index in range(40)])
    lab.pcp(folder / "lab", table, ("falff", "alff"), series=True)
    options = "--grid reduced --maps all --connectome rois_made --family FAM"
    done(f"abide-data convert {{of}}/lab {{of}}/cohort {options}", of=folder)
    done(f"abide-data export {{of}}/cohort {{of}}/export {IN_FOLDS} --inputs {','.join(KINDS)}", of=folder)
    return folder


def read_export(folder: Path, kinds: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The inputs of an export, a row a record, and its participants, so many rows for each repeat."""
    tables = []
    for kind in kinds:
        table = pd.read_csv(folder / f"{kind}.csv")
        if (folder / f"{kind}.npy").exists():
            table = pd.DataFrame(np.load(folder / f"{kind}.npy"), columns=table["name"])
        tables.append(table.drop(columns="file", errors="ignore"))
    participants = pd.read_csv(folder / "participants.csv", dtype={"id": str, "cluster": str})
    return pd.concat(tables, axis=1), participants


def list_repeats(participants: pd.DataFrame) -> list[pd.DataFrame]:
    """The participants of each repeat, a row a record."""
    return [repeat_table.reset_index(drop=True) for _, repeat_table in participants.groupby("repeat")]


def read_probabilities(folder: Path, files: pd.Series, repeat: int = 0) -> np.ndarray:
    """What a test predicted of these records, in their order."""
    table = pd.read_csv(folder / "predictions.csv")
    if "repeat" in table:
        table = table[table["repeat"] == repeat]
    return table.set_index("file")["probability"].loc[[*files]].to_numpy()


# Equal to scikit-learn


@IGNORED_WARNINGS
def test_probabilities_and_auc_equal_those_of_scikit_learn_in_the_exported_folds(relatives, tmp_path):
    """With two repeats and families."""
    file = write_estimator(tmp_path / "code", PIPELINE_FILE)
    command = f"{TEST} {IN_FOLDS} --inputs maps,phenotype"
    done(command, file=file, cohort=relatives / "cohort", to=tmp_path)
    inputs, participants = read_export(relatives / "export", ("maps", "phenotype"))
    preparation = make_column_transformer((SimpleImputer(), make_column_selector(dtype_include="number")))
    pipeline = make_pipeline(preparation, StandardScaler(), SelectKBest(k=5), LogisticRegression())
    areas = []
    for repeat, people in enumerate(list_repeats(participants)):
        folds = PredefinedSplit(people["fold"])
        expected = cross_val_predict(pipeline, inputs, people["label"], cv=folds, method="predict_proba")[:, 1]
        probabilities = read_probabilities(tmp_path / "test", people["file"], repeat)
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=TOLERANCE)
        areas.append(roc_auc_score(people["label"], expected))
    metrics = pd.read_json(tmp_path / "test/metrics.json", typ="series")
    assert metrics["auc"]["value"] == pytest.approx(np.mean(areas), abs=1e-9) and 0.5 < np.mean(areas) < 1


@IGNORED_WARNINGS
def test_without_predict_proba_it_is_calibrated_in_inner_folds_that_cut_no_family(relatives, tmp_path):
    file = write_estimator(tmp_path / "code", PIPELINE_FILE)
    command = TEST.replace("{file}", "{file}:make_svm") + " --folds 3 --seed 5"
    done(command, file=file, cohort=relatives / "cohort", to=tmp_path)
    inputs, participants = read_export(relatives / "export", ("maps", "phenotype", "connectome"))
    people = list_repeats(participants)[0]
    preparation = make_column_transformer((SimpleImputer(), make_column_selector(dtype_include="number")))
    for fold in range(3):
        train, test = people["fold"] != fold, people["fold"] == fold
        svm = make_pipeline(preparation, StandardScaler(), LinearSVC(C=0.01, random_state=5))
        inner_folds = [*StratifiedGroupKFold(5).split(inputs[train], people["label"][train], people["cluster"][train])]
        calibrated = CalibratedClassifierCV(svm, method="sigmoid", cv=inner_folds, ensemble=False)
        expected = calibrated.fit(inputs[train], people["label"][train]).predict_proba(inputs[test])[:, 1]
        probabilities = read_probabilities(tmp_path / "test", people["file"][test])
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=TOLERANCE)
    assert "logistic function of its decision function" in (tmp_path / "test/report.html").read_text()


@IGNORED_WARNINGS
def test_a_calibration_never_reverses_the_order_of_the_decision_function(converted, tmp_path):
    """Of an estimator that is worse than chance in inner folds, too."""
    file = write_estimator(tmp_path / "code", REVERSED_FILE)
    done(f"{TEST} --folds 3 --inputs maps", file=file, cohort=converted, to=tmp_path)
    predictions = lab.read_table(tmp_path / "test/predictions.csv")
    decisions = pd.read_csv(tmp_path / "code/decisions.csv").drop_duplicates()
    for _, fold_predictions in predictions.groupby("fold"):
        probabilities = fold_predictions["probability"].astype(float)
        assert probabilities.nunique() > 2
        orders = {
            tuple(np.argsort(tested["decision"])) == tuple(np.argsort(probabilities))
            for _, tested in decisions.groupby("call")
            if len(tested) == len(probabilities)
        }
        assert True in orders


# What it is given


def read_given(folder: Path, name: str) -> list[tuple]:
    """What a `Recording` wrote at each call of a method, in order."""
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob(f"{name}-*"))]  # noqa: S301  by this test


def test_it_is_given_no_row_and_no_label_of_a_tested_person(relatives, tmp_path):
    file = write_estimator(tmp_path / "code", RECORDING_FILE)
    command = f"{TEST} --folds 3 --seed 5 --inputs {','.join(KINDS)}"
    done(command, file=file, cohort=relatives / "cohort", to=tmp_path)
    inputs, participants = read_export(relatives / "export", KINDS)
    people = list_repeats(participants)[0]
    record_by_value = {value: record for record, value in enumerate(inputs.iloc[:, 0])}
    assert len(record_by_value) == len(people)  # the mean of a region tells them apart

    fits, predictions = read_given(tmp_path / "code", "fit"), read_given(tmp_path / "code", "predict")
    assert len(fits) == 3 and len(predictions) == 6  # those, and with missing values masked
    for fold, (training_inputs, labels, groups) in enumerate(fits):
        training_people = people[people["fold"] != fold]
        assert [record_by_value[value] for value in training_inputs.iloc[:, 0]] == training_people.index.tolist()
        assert isinstance(labels, np.ndarray) and labels.tolist() == training_people["label"].tolist()
        assert [*groups] == training_people["cluster"].tolist() and len({*groups}) < len(groups)
        test_people = people[people["fold"] == fold]
        for (test_inputs,) in predictions[2 * fold : 2 * fold + 2]:
            assert [record_by_value[value] for value in test_inputs.iloc[:, 0]] == test_people.index.tolist()
            assert test_inputs.columns.tolist() == training_inputs.columns.tolist() == inputs.columns.tolist()
            assert (test_inputs.dtypes == training_inputs.dtypes).all()
        assert isinstance(training_inputs.index, pd.RangeIndex)
        np.testing.assert_array_equal(
            training_inputs.select_dtypes("number"),
            inputs.loc[training_people.index, training_inputs.select_dtypes("number").columns],
        )


def test_inputs_and_atlas_choose_its_columns(converted, tmp_path):
    labels = np.zeros((31, 37, 31), np.int16)
    labels[5:15, 8:28, 8:20], labels[16:26, 8:28, 8:20] = 3, 7
    affine = np.diag([6.0, 6, 6, 1])
    affine[:3, 3] = -90, -126, -72
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "own.nii.gz")
    (tmp_path / "own.txt").write_text("3 left half\n7 right half\n")
    file, keys = write_estimator(tmp_path / "code", RECORDING_FILE), []
    two_regions = [f"map {name} {half} half" for half in ("left", "right") for name in ("falff", "alff")]
    for options, kinds in {
        "": KINDS[:3],
        "--inputs connectome": ("connectome",),
        "--inputs covariates,phenotype": ("phenotype", "covariates"),
        "--inputs maps --atlas {to}/own.nii.gz": ("maps",),
    }.items():
        for path in (tmp_path / "code").glob("*-*"):
            path.unlink()
        done(f"{TEST} {options}", file=file, cohort=converted, to=tmp_path)
        keys.append(read_manifest(tmp_path / "test")["key"])
        columns = [*read_given(tmp_path / "code", "fit")[0][0]]
        assert [*dict.fromkeys(column.partition(" ")[0] + " " for column in columns)] == [
            PREFIX_BY_KIND[kind] for kind in kinds
        ]
        assert ("--atlas" not in options) or columns == two_regions
    assert len({*keys}) == 4 and len([*(tmp_path / "test/earlier").iterdir()]) == 3


# Seeds


def test_the_seed_sets_every_source_of_random_numbers(converted, tmp_path):
    file, drawn = write_estimator(tmp_path / "code", RANDOM_FILE), []
    for name, seed in (("a", 0), ("b", 0), ("c", 7)):
        command = f"{TEST} --inputs phenotype --seed {seed}"
        done(command, file=file, cohort=converted, to=tmp_path / name)
        (probability,) = {*pd.read_csv(tmp_path / name / "test/predictions.csv")["probability"]}
        numpy_value, python_value = np.random.RandomState(seed).random(), random.Random(seed).random()
        own_value = np.random.RandomState(seed).randint(1000) / 1000
        assert probability == pytest.approx((numpy_value + python_value + own_value) / 3, abs=TOLERANCE)
        drawn.append(probability)
    assert drawn[0] == drawn[1] != drawn[2]


# Processes


def test_it_needs_no_tensorflow_and_may_lie_in_the_current_folder(converted, tmp_path):
    write_estimator(tmp_path, PIPELINE_FILE)
    command = [sys.executable, "-X", "importtime", str(ROOT / "run.py"), "--test", "--estimator", "mine.py"]
    command += ["--dataDir", str(converted), "--inputs", "phenotype", "--outDir", "test"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    imported_names = {line.rpartition("|")[2].strip().partition(".")[0] for line in process.stderr.splitlines()}
    assert "sklearn" in imported_names and not imported_names & {"tensorflow", "keras"}
    assert "report.html" in process.stdout and not [*tmp_path.glob("__pycache__")]


def test_folds_side_by_side_and_one_by_one_come_out_the_same(converted, tmp_path, capfd):
    """With a search that starts processes of its own, over a class of the user's."""
    file = write_estimator(tmp_path / "code", PARALLEL_FILE)
    command = f"{TEST} --folds 3 --inputs connectome"
    done(command, file=file, cohort=converted, to=tmp_path / "together")
    done(f"{command} --jobs 2", file=file, cohort=converted, to=tmp_path / "side_by_side")
    for fold in range(3):
        output = done(f"{command} --fold {fold}", file=file, cohort=converted, to=tmp_path / "apart")
        assert ("Still to be done" in output) == (fold < 2)
    tables = [pd.read_csv(tmp_path / name / "test/predictions.csv") for name in ("together", "side_by_side", "apart")]
    assert tables[0]["probability"].nunique() > 30
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    for name in ("together", "side_by_side", "apart"):
        text = (tmp_path / name / "test/fold-2/printed.txt").read_text()
        assert "said by a process\n" in text and "UserWarning: warned by a process\n" in text
    assert "by a process" not in "".join(capfd.readouterr())


# What it leaves


def test_what_it_prints_is_in_a_file_and_not_in_the_terminal(converted, tmp_path):
    file = write_estimator(tmp_path / "code", TALKING_FILE)
    outcome = run(f"{TEST} --inputs connectome --folds 3", file=file, cohort=converted, to=tmp_path)
    assert outcome.status == 0 and outcome.err == ""
    texts = [(tmp_path / f"test/fold-{fold}/printed.txt").read_text() for fold in range(3)]
    for word in ("imported", "make", "fit", "predict_proba"):
        assert f"said in {word}" not in outcome.out and "warned" not in outcome.out
        assert all(f" {word}\n" in text for text in texts)
    assert all("UserWarning: warned" in text for text in texts)


def test_debug_shows_the_traceback(converted, tmp_path):
    code = PIPELINE_FILE + "\nclass Broken(LogisticRegression):\n    def fit(self, X, y):\n        return len(1)\n"
    file = write_estimator(tmp_path / "code", code + "\ndef make_broken():\n    return Broken()\n")
    command = TEST.replace("{file}", "{file}:make_broken") + " --folds 3 --inputs phenotype"
    plain = run(command, file=file, cohort=converted, to=tmp_path)
    with_traceback = run(f"{command} --debug", file=file, cohort=converted, to=tmp_path)
    line_number = 1 + code.splitlines().index("        return len(1)")
    assert f"line {line_number}, as it was fitted for fold 0: TypeError" in plain.err
    assert (plain.status, with_traceback.status) == (2, 2) and plain.err.count("\n") == 1
    assert f"line {line_number}, in fit" in with_traceback.err and with_traceback.err.endswith(plain.err)


def test_it_is_tested_anew_only_if_its_code_has_changed(converted, tmp_path):
    code = tmp_path / "code"
    file = write_estimator(code, PIPELINE_FILE + "\ndef make_late():\n    import beside\n    return beside.model\n")
    write_estimator(code, "from package.inner import model\n", "beside.py")
    write_estimator(code / "package", "", "__init__.py")
    write_estimator(code / "package", "from sklearn.naive_bayes import GaussianNB\nmodel = GaussianNB()\n", "inner.py")
    write_estimator(code, "import of_nobody\n", "unused.py")
    command = TEST.replace("{file}", "{file}:make_late") + " --folds 3 --inputs connectome"
    places = {"file": file, "cohort": converted, "to": tmp_path}
    done(command, **places)
    before = listing(tmp_path)
    assert "Everything is done." in done(command, **places)
    write_estimator(code, "import of_somebody\n", "unused.py")
    assert "Everything is done." in done(command, **places)
    for changed_path in (file, code / "beside.py", code / "package/inner.py"):
        changed_path.write_text(changed_path.read_text() + "\n# changed\n")
        assert "Results: " in (output := done(command, **places)) and "Everything is done." not in output
    assert len([*(tmp_path / "test/earlier").iterdir()]) == 3 and listing(tmp_path) != before


def test_permutations_fit_it_again(converted, tmp_path):
    file = write_estimator(tmp_path / "code", PIPELINE_FILE)
    command = f"{TEST} --folds 3 --inputs maps"
    places = {"file": file, "cohort": converted, "to": tmp_path}
    done(f"{command} --permutations 3", **places)
    scores = pd.read_csv(tmp_path / "test/permutations/permutations.csv", index_col="permutation")["score"]
    observed = average_group_auc(pd.read_csv(tmp_path / "test/predictions.csv"), "site")
    result = read_manifest(tmp_path / "test")["permutations"]
    assert scores.index.tolist() == [1, 2, 3] and scores.nunique() > 1
    assert result["observed"] == pytest.approx(observed)
    assert result["p"] == (1 + (scores >= observed).sum()) / 4
    assert "Everything is done." in done(f"{command} --permutations 3", **places)


def test_it_is_compared_with_a_network_and_its_page_is_made_again(converted, nn_on_folds, tmp_path):
    file = write_estimator(tmp_path / "code", PIPELINE_FILE)
    done(f"{TEST} --folds 3 --inputs phenotype", file=file, cohort=converted, to=tmp_path)
    done("abide-compare {net}/test {to}/test --outDir {to}/compared", net=nn_on_folds, to=tmp_path)
    (row,) = pd.read_csv(tmp_path / "compared/compare.csv").to_dict("records")
    for letter, folder in (("a", nn_on_folds), ("b", tmp_path)):
        table = pd.read_csv(folder / "test/predictions.csv")
        assert row[f"auc_{letter}"] == pytest.approx(roc_auc_score(table["label"], table["probability"]))
    page = tmp_path / "test/report.html"
    written_page = page.read_text()
    page.unlink()
    done("abide-report {to}/test", to=tmp_path)
    assert page.read_text() == written_page and "mine-make" in written_page
