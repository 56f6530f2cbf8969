"""Logistic regression of region means: run.py --test --estimator regions.py --folds 10 --dataDir cohort"""

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def make():
    prepared_numbers = make_pipeline(SimpleImputer(), StandardScaler())
    region_means = make_column_selector("^map ")
    return make_pipeline(
        make_column_transformer((prepared_numbers, region_means)),
        LogisticRegression(C=0.001, max_iter=1000),
    )
