"""What others compute: scores by scikit-learn, in groups of people."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score


def within(table: pd.DataFrame, *group: str) -> float:
    """The AUC of each group that has both classes, averaged by records."""
    both = [of for _, of in table.groupby(list(group)) if of["label"].astype(float).nunique() == 2]
    each = [roc_auc_score(of["label"].astype(float), of["probability"]) for of in both]
    return float(np.average(each, weights=[*map(len, both)]))
