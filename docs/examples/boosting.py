"""Gradient boosting of the phenotype and of region means. Trees take unknown values and categories as they are:
run.py --test --estimator boosting.py --inputs maps,phenotype --folds 10 --dataDir cohort
"""

from sklearn.ensemble import HistGradientBoostingClassifier


def make():
    return HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.05, max_leaf_nodes=8, categorical_features="from_dtype"
    )
