"""Gradient boosting of the phenotype and of region means. Trees take unknown values and categories as they are:
run.py --test --estimator boosting.py --inputs maps,phenotype --folds 10 --dataDir cohort
"""

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline


def find_varying_columns(inputs: pd.DataFrame) -> list[str]:
    """Columns of which two values are known among the training participants."""
    return [column for column in inputs if inputs[column].nunique() > 1]


def make():
    return make_pipeline(
        make_column_transformer(("passthrough", find_varying_columns)).set_output(transform="pandas"),
        HistGradientBoostingClassifier(
            max_iter=100, learning_rate=0.05, max_leaf_nodes=8, categorical_features="from_dtype"
        ),
    )
