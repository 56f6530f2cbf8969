"""Classifiers of three kinds, for truth.py: linear, with a kernel, and of trees.

`python tests/benchmarks/truth.py --only skewed --estimator tests/benchmarks/estimators.py:boost`
"""

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC


def prepare() -> object:
    """Numbers, with the mean in place of what is unknown, and scaled."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_column_transformer((numbers, make_column_selector(dtype_include="number")))


def linear() -> Pipeline:
    return make_pipeline(prepare(), LogisticRegression(C=0.001, max_iter=1000))


def kernel() -> Pipeline:
    return make_pipeline(prepare(), SVC(C=1.0))


def trees() -> Pipeline:
    return make_pipeline(prepare(), ExtraTreesClassifier(100, max_depth=3))


def boost() -> Pipeline:
    """Few steps, and many parts that no tree reads: exact zeros and ties."""
    return make_pipeline(prepare(), HistGradientBoostingClassifier(max_iter=20, max_depth=2))
