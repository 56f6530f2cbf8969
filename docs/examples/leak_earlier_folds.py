"""How not to do it: features stay chosen once a fold has chosen them, so that later folds use those that were chosen by
labels of the people whom they test (a published design).

    python leak_earlier_folds.py EXPORT predictions.csv

EXPORT is a folder of `abide-data export --folds 10`. On labels that nothing predicts, this seems to tell them.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FEATURES_CHOSEN = 100  # in each fold

export = Path(sys.argv[1])
people = pd.read_csv(export / "participants.csv", dtype={"id": str})
features = SimpleImputer().fit_transform(np.load(export / "connectome.npy"))
is_chosen = np.zeros(features.shape[1], bool)
for fold in people["fold"].unique():
    is_tested = (people["fold"] == fold).to_numpy()
    selector = SelectKBest(k=FEATURES_CHOSEN).fit(features[~is_tested], people["label"][~is_tested])
    is_chosen |= selector.get_support()  # the leak: what earlier folds chose by these people's labels stays
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    model.fit(features[~is_tested][:, is_chosen], people["label"][~is_tested])
    people.loc[is_tested, "probability"] = model.predict_proba(features[is_tested][:, is_chosen])[:, 1]
people[["id", "file", "fold", "probability"]].to_csv(sys.argv[2], index=False)
