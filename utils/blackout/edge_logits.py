"""What the edges of a connectome add to a classifier's logits, and how these change with a region's edges."""

import keras
import numpy as np
import tensorflow as tf

from data.cohorts.cohort import in_order
from models import averaging
from models.connectomes import RidgeLogits
from utils.blackout.edges import Edges, EdgeSubstitution
from utils.blackout.graph import feeds, nodes_of
from utils.blackout.options import CONNECTOME

ROWS = 256  # connectomes that pass at once: bounds the memory


class EdgeLogits:
    """What the parts of a classifier that read a connectome add to the mean of its logits. These parts read nothing
    else, so that the effects of edges and of volumes on the logits add up, exactly."""

    def __init__(self, model: keras.Model):
        (source,) = (tensor for tensor in model.inputs if tensor.name == CONNECTOME)
        last = model.layers[-1]
        if not isinstance(last, averaging.MeanOfLogits):
            raise TypeError(f"{model.name} ends in {last.name}; expected the mean of the logits of its parts.")
        parts, nodes = keras.tree.flatten(last.input), nodes_of(model)
        own = [at for at, part in enumerate(parts) if feeds(nodes, id(source), [id(part)])]
        function = keras.Function([source], [parts[at] for at in own])
        shares = [last.shares[at] for at in own]
        self._shares = shares
        self._ridges = [node.operation for node in nodes if isinstance(node.operation, RidgeLogits)]

        def added(edges: tf.Tensor) -> tf.Tensor:
            logits = function([edges])
            return sum(share * tf.reduce_mean(one, 1) for share, one in zip(shares, logits, strict=True))

        self._added = tf.function(added, reduce_retracing=True)

    def __call__(self, connectomes: np.ndarray) -> np.ndarray:
        """(n, edges) float32 Fisher z, NaN where unknown -> what they add to the logits, (n, classes)."""
        return self._added(tf.constant(connectomes)).numpy()

    def contributions(self, connectomes: np.ndarray) -> np.ndarray:
        """What each edge (n, edges) adds to the log odds of autism; 0 where it is unknown, as where it is the mean of
        the training people."""
        parts = zip(self._shares, self._ridges, strict=True)
        return sum(share * ridge.scores(connectomes).numpy() * ridge.kernel.numpy() for share, ridge in parts)

    def changes(self, edges: Edges, substitution: EdgeSubstitution) -> np.ndarray:
        """How the logits (regions, n, classes) change if the edges of one region after another are replaced."""
        shown = self(substitution.shown)
        found = np.zeros((len(edges.of_region), *shown.shape), np.float32)
        with_edges = np.array([region for region, own in enumerate(edges.of_region) if len(own)], int)
        for regions in in_order(with_edges, max(1, ROWS // len(shown))):
            replaced = [edges.replaced(substitution, region) for region in regions]
            found[regions] = self(np.concatenate(replaced)).reshape(len(regions), *shown.shape) - shown
        return found


def edge_logits(model: keras.Model) -> EdgeLogits | None:
    """Of a network that reads connectomes, else None."""
    return EdgeLogits(model) if any(tensor.name == CONNECTOME for tensor in model.inputs) else None
