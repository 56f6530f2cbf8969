"""A training in memory: a run -> the probabilities of autism of its test records; nothing is written.

For trainings that are many and short, such as those that compare models and those on permuted labels. The weights are
those of `--train`, bit for bit on the same CPU.
"""

import numpy as np

from data.cohorts.cohort import in_order
from utils.runs.run import Run
from utils.training.network import outputs_of, probability_of_autism
from utils.training.train import begin, measure


def predicted(run: Run) -> dict[str, float]:
    """The probability of autism of each test record, by file, by a network that is trained on `num_iters` batches.
    TensorFlow must have been started."""
    with run.fresh():
        training = begin(run)
        measure(training)
        for _ in training.steps(0):
            pass
        training.calibrate(run.num_iters)
        indices = run.cohort.indices("test")
        batches = in_order(indices, run.config.batch_size)
        logits = np.concatenate([of for _, _, of in outputs_of(run, training.network, batches)])
        files = [run.cohort.rows[index].file for index in indices]
        return dict(zip(files, probability_of_autism(logits).tolist(), strict=True))
