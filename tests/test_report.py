"""The report: every section from its table, values by other means, hostile names as text, and mistakes in one line."""

import csv
import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import run_main
from markupsafe import Markup
from sklearn.metrics import roc_auc_score, roc_curve

from data.errors import InputError
from utils.report import build, curves, texts
from utils.report.tables import read

HOSTILE = "</script><script>alert(1)</script>$x_{$ & \u202e<b>額"
METRICS = ("accuracy", "balanced_accuracy", "recall", "specificity", "precision", "f_score", "auc", "brier")
RUN = {
    "job": "test",
    "model": "mmnn",
    "preset": "residual",
    "config": {"batch_size": 32, "optimizer": "adam", "learning_rate": 0.001, "decay": 0.9, "filters": [16, 32]},
    "grid": "reduced",
    "seed": 3,
    "precision": "float32",
    "command": ["run.py", "--test", "--dataDir", "my cohort"],
    "cohort": "/data/my cohort",
    "cohort_sha256": 64 * "a",
    "simulated": False,
    "checkpoint_folder": "ckpt/mmnn",
    "checkpoint_sha256": 64 * "b",
    "git_commit": 40 * "c",
    "packages": {"tensorflow": "2.21.0", "numpy": "2.4.6"},
    "started": "2026-11-25T10:30:24+0000",
    "wall_time_s": 3.11,
    "num_iters": 200,
    "folds": None,
    "shuffled_labels": False,
    "validation": 0.0,
    "conclusion": "The model is better than guessing, and no better than its best floor.",
    "warnings": ["No motion is known."],
    "motion": "Beside age and motion the output still tells something.",
}
SITES = ("NYU", "PITT", "UCLA")
HEADINGS = [
    *("What may be concluded", "Warnings", "Scores", "The model beside its floors", "ROC curve", "Calibration"),
    *("Confusion matrix", "Folds", "Sites", "Training", "The cohort", "How to repeat it", "Methods, to paste"),
    "Intended use",
]


def people(count: int = 120, folds: int = 0, seed: int = 0) -> pd.DataFrame:
    """Predictions that are right more often than not, every tenth subject twice, probabilities with ties."""
    random = np.random.default_rng(seed)
    label = np.arange(count) % 2
    probability = (1 / (1 + np.exp(-random.normal(label - 0.5, 1)))).round(2)
    columns = {
        "file": [f"{number}.bin" for number in range(count)],
        "subject": [str(number - (number % 20 == 2) * 2) for number in range(count)],
        "site": [SITES[number % 3] for number in range(count)],
        "label": label.astype(str),
        "probability": probability,
    }
    table = pd.DataFrame(columns)
    return table.assign(fold=[str(int(subject) % folds) for subject in table["subject"]]) if folds else table


def score(value: float | None, half: float = 0.1) -> dict:
    return {"value": value, "low": value and value - half, "high": value and value + half}


def named_interval(name: str, value: float) -> dict:
    return {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}


def write_tables(folder: Path, predictions: pd.DataFrame, **run) -> Path:
    """A folder as a test leaves it, whose tables agree with these predictions in what the report relies on."""
    folder.mkdir(exist_ok=True, parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    split = "fold " + predictions["fold"] if "fold" in predictions else pd.Series("test", predictions.index)
    given = predictions.groupby([split, "site"])["label"].value_counts().unstack(fill_value=0)
    counts = given.reindex(columns=["1", "0", ""], fill_value=0).itertuples()
    subjects = [dict(zip(("split", "site", "autism", "control", "unknown"), (*row[0], *row[1:]))) for row in counts]
    (folder / "run.json").write_text(json.dumps(RUN | {"subjects": subjects} | run))
    training = [{"fold": "", "step": step, "loss": 1 / step, "accuracy": 0.5} for step in range(1, 30)]
    if "fold" in predictions:
        training = [
            row | {"fold": fold, "validation_loss": 0.6} for fold in predictions["fold"].unique() for row in training
        ]
    pd.DataFrame(training).to_csv(folder / "training.csv", index=False)
    if (predictions["label"] == "").all():
        return folder
    scores = {name: score(0.6) for name in METRICS}
    if "fold" in predictions:
        scores |= {"auc_folds": score(0.61), "folds": {fold: dict(scores) for fold in predictions["fold"].unique()}}
    (folder / "metrics.json").write_text(json.dumps(scores))
    floors = [
        {"floor": name} | named_interval("auc", auc) | named_interval("accuracy", auc)
        for name, auc in (("model", 0.6), ("majority", 0.5), ("regions, SVM", 0.65), ("rule that made the data", 0.9))
    ]
    floors[1:] = [row | named_interval("model_minus_floor_auc", 0.6 - row["auc"]) for row in floors[1:]]
    pd.DataFrame(floors).to_csv(folder / "floors.csv", index=False)
    sites = [
        {
            "site": site,
            "subjects": 40,
            "autism": 20,
            "control": 20,
            **named_interval("auc", 0.6),
            **named_interval("accuracy", 0.5),
        }
        for site in predictions["site"].unique()
    ]
    pd.DataFrame(sites).to_csv(folder / "sites.csv", index=False)
    return folder
