"""How not to do it: features are chosen by everybody's labels, before the folds (a published design).

    python leak_before_folds.py EXPORT predictions.csv

EXPORT is a folder of `abide-data export --folds 10`. On labels that nothing predicts, this seems to tell them.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FEATURES_CHOSEN = 100

export = Path(sys.argv[1])
people = pd.read_csv(export / "participants.csv", dtype={"id": str})
features = SimpleImputer().fit_transform(np.load(export / "connectome.npy"))
chosen_features = SelectKBest(k=FEATURES_CHOSEN).fit_transform(features, people["label"])  # the leak
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
probabilities = cross_val_predict(
    model, chosen_features, people["label"], groups=people["fold"], cv=LeaveOneGroupOut(), method="predict_proba"
)
people["probability"] = probabilities[:, 1]
people[["id", "file", "fold", "probability"]].to_csv(sys.argv[2], index=False)
