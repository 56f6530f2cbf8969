"""--test: test subjects and a checkpoint -> predictions, metrics and figures."""

import keras
import numpy as np

from data.base.tables import add_row
from data.cohorts.cohort import in_order
from utils.evaluation import autoencoders, score
from utils.inference import outputs_of, probability_of_autism, restored_network
from utils.runs.run import Run, prepare_folder

RESULTS = "checkpoint_results.csv"
RESULT_METRICS = ("accuracy", "recall", "precision", "f_score")  # its columns beside the checkpoint


def test(run: Run) -> int:
    """Tests a classifier or an autoencoder, depending on what the model predicts; returns the exit status."""
    network = restored_network(run)
    prepare_folder(run)
    {"label": evaluate, "input": autoencoders.evaluate}[run.model.predicts](run, network)
    return 0


def pool(run: Run) -> None:
    """Makes the results of all folds together from those of each."""
    {"label": score.pool, "input": autoencoders.pool}[run.model.predicts](run)


def evaluate(run: Run, network: keras.Model) -> None:
    """Tests a classifier: `predictions.csv`, those of the floors, everything `score` derives, and a row of results."""
    batches = in_order(run.cohort.indices("test"), run.config.batch_size)
    logits = np.concatenate([outputs for _, _, outputs in outputs_of(run, network, batches, "Testing")])
    score.write_predictions(run, probability_of_autism(logits))
    score.write_floors(run)
    score.write_history(run)
    if metrics := score.conclude(run):
        add_result(run, metrics)


def add_result(run: Run, metrics: dict[str, dict]) -> None:
    """Adds this checkpoint's row to `checkpoint_results.csv`; the rows of earlier tests stay."""
    values = {name: metrics[name]["value"] for name in RESULT_METRICS}
    cells = {name: "" if value is None else f"{value:.6f}" for name, value in values.items()}
    add_row(run.out_dir / RESULTS, {"checkpoint": str(run.checkpoints.latest())} | cells)
