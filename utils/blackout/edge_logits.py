"""What the edges of a connectome add to the logits of a classifier, and how that changes with some of them."""

import keras
import numpy as np

from models import averaging
from utils.blackout.edges import Replacement
from utils.blackout.options import CONNECTOME


class EdgeLogits:
    """The part of a classifier that reads connectomes is linear and reads nothing else (`models/connectomes.py`). So
    the effects of edges and of volumes on the logits add up, exactly. `mean` (edges,) is that of the training people.
    """

    def __init__(self, model: keras.Model):
        mean = model.layers[-1]
        if not isinstance(mean, averaging.MeanOfLogits):
            raise TypeError(f"{model.name} ends in {mean.name}; expected the mean of the logits of its parts.")
        share = {part.branch_name: share for part, share in zip(mean.branches, mean.branch_weights, strict=True)}
        ridge = model.get_layer("connectome_logits")
        self.mean, self._scale = ridge.mean.numpy(), ridge.scale.numpy()
        self._weight = share[CONNECTOME] * ridge.kernel.numpy().astype(float)

    def contributions(self, values: np.ndarray, edges: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What each of these edges adds to the log odds of autism, of their Fisher z `values` (n, edges); 0 where one
        is unknown, NaN, as where it is the mean of the training people."""
        scores = (values - self.mean[edges]) * self._scale[edges]
        return np.where(np.isnan(scores), 0, scores * self._weight[edges])

    def changes(self, one: Replacement) -> np.ndarray:
        """How the log odds of autism (n, parts) change if the edges of one part after another are replaced."""
        shown = self.contributions(one.shown)
        of_parts = [
            self.contributions(one.given_to(part), own).sum(1) - shown[:, own].sum(1)
            for part, own in enumerate(one.parts)
        ]
        return np.stack(of_parts, axis=1)


def edge_logits(model: keras.Model) -> EdgeLogits | None:
    """Of a network that reads connectomes, else None."""
    return EdgeLogits(model) if any(tensor.name == CONNECTOME for tensor in model.inputs) else None
