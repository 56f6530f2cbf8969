"""Ridge regression on the edges of connectomes, with a penalty chosen in inner folds of the training participants:
run.py --test --estimator edges.py --inputs connectome --folds 10 --dataDir cohort

It has a decision function and no probabilities; --test fits these in inner folds, too.
"""

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def make():
    return make_pipeline(SimpleImputer(), StandardScaler(), RidgeClassifierCV(alphas=np.logspace(2, 6, 9)))
