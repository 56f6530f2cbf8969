"""What a test of an estimator refuses: files without one, estimators that are none, code that fails, inputs."""

from collections.abc import Callable
from pathlib import Path

from refusals import Row, row

IMPORTS = """import sys

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

"""
TEST_CLASSIFIER = """class Mine(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)

def make():
    return Mine()
"""


def file_with(code: str, name: str = "mine.py") -> Callable[[Path], None]:
    """A folder with a file of this code."""

    def make(path: Path) -> None:
        path.mkdir()
        (path / name).write_text(IMPORTS + code)

    return make


def change_classifier(old_code: str, new_code: str) -> Callable[[Path], None]:
    """The same with a classifier that is a little different."""
    assert TEST_CLASSIFIER.count(old_code) == 1
    return file_with(TEST_CLASSIFIER.replace(old_code, new_code))


PLACES: dict[str, Callable[[Path], object]] = {
    "good": file_with(TEST_CLASSIFIER),
    "without_make": file_with("def model():\n    return LogisticRegression()\n"),
    "with_number": file_with("make = 3\n"),
    "with_import": file_with("import lightgbm_of_tomorrow\n"),
    "with_syntax": file_with("def make(:\n"),
    "that_ends": file_with("sys.exit(3)\n"),
    "that_ends_late": file_with("def make():\n    sys.exit('enough')\n"),
    "with_argument": file_with("def make(seed):\n    return LogisticRegression()\n"),
    "named_json": file_with("def make():\n    return LogisticRegression()\n", "json.py"),
    "named_time": file_with("def make():\n    return LogisticRegression()\n", "time.py"),  # of the interpreter
    "named_main": file_with("def make():\n    return LogisticRegression()\n", "__main__.py"),
    "named_data": file_with("def make():\n    return LogisticRegression()\n", "data.py"),  # a package of the program
    "named_with_hyphen": file_with("def make():\n    return LogisticRegression()\n", "my-model.py"),
    "regressor": file_with("def make():\n    return LinearRegression()\n"),
    "nothing": file_with("def make():\n    LogisticRegression()\n"),
    "class": file_with("def make():\n    return LogisticRegression\n"),
    "fitted": file_with("def make():\n    return LogisticRegression().fit([[0], [1]], [0, 1])\n"),
    "fitted_pipeline": file_with(
        "def make():\n    return make_pipeline(LogisticRegression()).fit([[0], [1]], [0, 1])\n"
    ),
    "network": file_with(
        "class Network:\n    pass\n\nNetwork.__module__ = 'keras.src.models'\n"
        "class Own(Network):\n    pass\n\ndef make():\n    return Own()\n"
    ),
    "without_tags": file_with(TEST_CLASSIFIER.replace("BaseEstimator)", "object)").replace("Mixin, object", "Mixin")),
    "tags_in_wrong_order": change_classifier("ClassifierMixin, BaseEstimator", "BaseEstimator, ClassifierMixin"),
    "without_scores": change_classifier("predict_proba", "predict"),
    "not_cloneable": change_classifier(
        "    def fit", "    def __init__(self, units=()):\n        self.units = list(units)\n\n    def fit"
    ),
    "failing": change_classifier("return self\n", "return {}['x']\n"),
    "ending": change_classifier("return self\n", "sys.exit()\n"),
    "failing_later": change_classifier("return np.full", "raise RuntimeError('a\\nb')\n        return np.full"),
    "with_one_class": change_classifier("np.unique(y)", "np.zeros(1)"),
    "without_classes": change_classifier("self.classes_ = np.unique(y)", "pass"),
    "with_nan": change_classifier("0.5", "np.nan"),
    "with_logits": change_classifier("0.5", "-3.5"),
    "with_one_column": change_classifier("(len(X), 2)", "(len(X), 1)"),
    "with_nan_decisions": change_classifier(
        "    def predict_proba",
        "    def decision_function(self, X):\n        return np.full(len(X), np.nan)\n\n    def predict_proba",
    ),
    "with_two_rows": change_classifier("(len(X), 2)", "(2, 2)"),
}

TEST = "run.py --test --dataDir {converted} --inputs phenotype --outDir {missing} --estimator"
TEST_GOOD = "run.py --test --dataDir {converted} --outDir {missing} --estimator {good}/mine.py"
BLACKOUT_GOOD = "run.py --blackout --dataDir {converted} --outDir {missing} --estimator {good}/mine.py"
ROWS: list[Row] = [
    # The file
    row(f"{TEST} {{missing}}/mine.py", "{missing}/mine.py", "FILE.py:FUNCTION"),
    row(f"{TEST} {{good}}", "{good}", "no Python file"),
    row(f"{TEST} {{lab}}/Phenotypic.csv", "Phenotypic.csv", "no Python file"),
    row(f"{TEST} ''", "--estimator", "nothing as its value"),
    row(f"{TEST} {{without_make}}/mine.py", "no function make", "mine.py:NAME"),
    row(f"{TEST} {{good}}/mine.py:forest", "no function forest", "mine.py:NAME"),
    row(f"{TEST} {{with_number}}/mine.py", "no function make", "mine.py:NAME"),
    row(f"{TEST} {{with_import}}/mine.py", "mine.py, line 8", "No module named 'lightgbm_of_tomorrow'"),
    row(f"{TEST} {{with_syntax}}/mine.py", "mine.py, line 8", "SyntaxError"),
    row(f"{TEST} {{that_ends}}/mine.py", "mine.py, line 8", "SystemExit: 3"),
    row(f"{TEST} {{that_ends_late}}/mine.py", "mine.py, line 9", "SystemExit: enough"),
    row(f"{TEST} {{with_argument}}/mine.py", "in make()", "'seed'"),
    row(f"{TEST} {{named_json}}/json.py", "json.py has a name that another module has", "my_model.py"),
    row(f"{TEST} {{named_time}}/time.py", "time.py has a name that another module has", "my_model.py"),
    row(f"{TEST} {{named_main}}/__main__.py", "__main__.py has a name that another module has", "my_model.py"),
    row(f"{TEST} {{named_data}}/data.py", "data.py has a name that another module has", "my_model.py"),
    row(f"{TEST} {{named_with_hyphen}}/my-model.py", "no module can have", "my_model.py"),
    # What the function returns
    row(f"{TEST} {{regressor}}/mine.py", "'LinearRegression'", "no classifier"),
    row(f"{TEST} {{nothing}}/mine.py", "'NoneType'", "lacks fit"),
    row(f"{TEST} {{class}}/mine.py", "a class", "return LogisticRegression()"),
    row(f"{TEST} {{fitted}}/mine.py", "fitted already", "do not call fit in make()"),
    row(f"{TEST} {{fitted_pipeline}}/mine.py", "'Pipeline'", "do not call fit in make()"),
    row(f"{TEST} {{network}}/mine.py", "'Own', a network", "skorch.NeuralNetClassifier"),
    row(f"{TEST} {{without_tags}}/mine.py", "'Mine'", "inherits from ClassifierMixin"),
    row(
        f"{TEST} {{tags_in_wrong_order}}/mine.py", "no classifier", "inherits from ClassifierMixin, then BaseEstimator"
    ),
    row(f"{TEST} {{without_scores}}/mine.py", "neither predict_proba nor decision_function", "expected"),
    row(f"{TEST} {{not_cloneable}}/mine.py", "cannot be cloned", "__init__ only stores its arguments"),
    # What it does in a fold
    row(f"{TEST} {{failing}}/mine.py", "mine.py, line 11, as it was fitted: KeyError: 'x'", "--debug"),
    row(f"{TEST} {{ending}}/mine.py", "mine.py, line 11, as it was fitted: SystemExit", "--debug"),
    row(f"{TEST} {{failing_later}}/mine.py", "line 14, as it predicted: RuntimeError: a b", "--debug"),
    row(f"{TEST} {{with_one_class}}/mine.py", "its classes_ are [0.]", "expected [0, 1]"),
    row(f"{TEST} {{without_classes}}/mine.py", "its classes_ are None", "expected [0, 1]"),
    row(f"{TEST} {{with_nan}}/mine.py", "NaN", "expected numbers"),
    row(f"{TEST} {{with_logits}}/mine.py", "from -3.5", "from 0 to 1"),
    row(f"{TEST} {{with_one_column}}/mine.py", "the shape (4, 1)", "expected (4, 2)"),
    row(f"{TEST} {{with_two_rows}}/mine.py", "the shape (2, 2)", "expected (4, 2)"),
    # Options and cohorts
    row(f"{TEST_GOOD} --inputs maps,genes", "genes", "maps,phenotype,connectome,covariates"),
    row(f"{TEST_GOOD} --inputs ''", "--inputs", "nothing as its value"),
    row(TEST_GOOD.replace("converted", "cohort") + " --inputs connectome", "no connectome", "--inputs maps,phenotype"),
    row(f"{TEST_GOOD} --inputs phenotype --atlas {{lab}}/parcels.nii.gz", "--atlas", "maps"),
    row(f"{TEST_GOOD} --atlas {{missing}}.nii.gz", "{missing}.nii.gz", "not a readable NIfTI map"),
    row(f"{TEST_GOOD} --model cnn", "--estimator and --model", "leave one out"),
    row(f"{TEST_GOOD} --bundle {{file}}", "--estimator", "--bundle"),
    row(f"{TEST_GOOD} --everybody", "--estimator and --everybody", "leave one out"),
    row(f"{TEST_GOOD} --set members=1", "--estimator and --set", "leave one out"),
    row("run.py --train --estimator {good}/mine.py", "--estimator goes with --test", "--train"),
    row("run.py --test --inputs maps", "--inputs goes with --estimator", "leave --inputs out"),
    row("run.py --test --debug", "--debug goes with --estimator", "leave --debug out"),
    row(
        "run.py --test --folds 3 --chkPointDir {on_folds}/ckpt --dataDir {converted} --atlas {lab}/parcels.nii.gz",
        "--atlas",
        "--estimator",
    ),
    row(f"{TEST.replace('converted', 'newcomers')} {{good}}/mine.py", "no training participants", "--folds 10"),
    # A blackout
    row(f"{BLACKOUT_GOOD} --inputs phenotype --atlas {{lab}}/parcels.nii.gz", "--atlas tells of regions", "no volume"),
    row(f"{BLACKOUT_GOOD} --inputs phenotype --systems {{file}}", "--systems {file}", "Leave --systems out"),
    row(f"{BLACKOUT_GOOD} --inputs connectome --maps falff", "reads connectomes alone", "--parcels FILE"),
    row(f"{BLACKOUT_GOOD} --inputs maps --maps reho", "--maps reho", "falff, alff"),
    row(f"{BLACKOUT_GOOD} --permutations 10", "--permutations goes with --test", "--blackout"),
    row(BLACKOUT_GOOD.replace("converted", "newcomers"), "no training participants", "--folds 10"),
    row(BLACKOUT_GOOD.replace("good", "with_nan_decisions"), "decision_function returned", "finite numbers"),
]
