"""Subjects set aside from training, and the checkpoint that does best on them: `<checkpoint folder>/best`."""

from dataclasses import replace

import keras
import numpy as np

from data.base.errors import InputError
from data.cohorts.cohort import in_order
from models import losses
from utils.inference import probability_of_autism
from utils.metrics import auc
from utils.runs.checkpoints import BEST, CheckpointFolder, Identity
from utils.runs.run import Run
from utils.training.saver import Saver


class Validation:
    """Measures a network on the validation subjects at every checkpoint; `empty` stands for other batches."""

    def __init__(self, run: Run, network: keras.Model, optimizer: keras.Optimizer):
        self.run, self.network = run, network
        self.saver = Saver(CheckpointFolder(run.checkpoints.path / BEST), network, optimizer, kept=1)
        if self.saver.folder.current and not self.saver.folder.whole:
            raise InputError(
                f"{self.saver.folder.path} does not have its digest; copy it again, or remove it to continue without "
                "the best checkpoint so far."
            )
        self.labelled = run.model.predicts == "label"
        names = ["validation_loss", "validation_auc"] if self.labelled else ["validation_loss"]
        self.empty = dict.fromkeys(names, "")

    def measure(self) -> dict[str, float]:
        """`validation_loss`, a mean over records without penalties on weights; of classifiers also `validation_auc`."""
        run, loss, outputs, labels = self.run, 0.0, [], []
        loss_of, indices = getattr(losses, run.model.loss), run.training_records(set_aside=True)
        for batch in run.model.batches(run.cohort, in_order(indices, run.config.batch_size)):
            outputs_of_batch = self.network(run.model.inputs(batch), training=False)
            loss_of_batch = loss_of(batch, outputs_of_batch, run.config, run.model.reads)
            loss += float(loss_of_batch) * len(batch["label"]) / len(indices)
            if self.labelled:
                outputs.append(np.asarray(outputs_of_batch))
                labels.append(batch["label"])
        if not self.labelled:
            return {"validation_loss": loss}
        label = np.concatenate(labels)
        (area,) = auc(label, probability_of_autism(np.concatenate(outputs)), np.ones((1, len(label))))
        return {"validation_loss": loss, "validation_auc": float(area)}

    def keep_best(self, step: int, loss: float, identity: Identity) -> None:
        """Saves the network if its validation loss is lower than that of any checkpoint before."""
        folder = self.saver.folder
        best = folder.identity().validation_loss if folder.current else None
        if best is None or loss < best:
            self.saver.save(step, replace(identity, validation_loss=loss))
