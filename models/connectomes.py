"""The part of a classifier that reads connectomes: Fisher z correlations -> logits, by a ridge regression.

On few people with thousands of edges nothing was better than a linear classifier with a strong penalty. This one is
fitted exactly, in closed form, before the other parts are trained (`measure` in `utils/training/train.py`).
"""

from typing import Any

import keras
import numpy as np
from keras import layers

SHARE = 1 / 3  # of the mean of logits, before the shares are learned; the others are of maps and phenotype


class RidgeLogits(layers.Layer):
    """Fisher z correlations (batch, edges), NaN where unknown -> logits (batch, 1, 2) of (control, autism).

    Edges are z-scored by training records; an unknown one counts as their mean. Nothing of it is trained by batches:
    `assign` sets what a regression on the training records gave (`utils/scores/ridge.py`).
    """

    def build(self, input_shape: tuple) -> None:
        own = {"trainable": False, "dtype": "float32"}
        edges = input_shape[1:]
        self.mean = self.add_weight(name="mean", shape=edges, initializer="zeros", **own)
        self.scale = self.add_weight(name="scale", shape=edges, initializer="ones", **own)
        self.kernel = self.add_weight(name="kernel", shape=edges, initializer="zeros", **own)
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros", **own)

    def assign(self, mean: np.ndarray, scale: np.ndarray, weights: np.ndarray, bias: float) -> None:
        """Sets the log odds of autism: `weights` (edges,) of edges minus `mean`, times `scale`; and `bias`."""
        self.mean.assign(mean)
        self.scale.assign(scale)
        self.kernel.assign(weights)
        self.bias.assign(bias)

    def scores(self, edges: Any) -> Any:
        """Scaled edges (batch, edges), 0 where unknown."""
        values = (keras.ops.cast(edges, "float32") - self.mean) * self.scale
        return keras.ops.where(keras.ops.isnan(values), 0.0, values)

    def call(self, edges: Any) -> Any:
        half = (keras.ops.matmul(self.scores(edges), self.kernel[:, None]) + self.bias) / 2
        return keras.ops.stack([-half, half], axis=-1)
