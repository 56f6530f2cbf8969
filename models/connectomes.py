"""The part of a classifier that reads connectomes: Fisher z correlations -> logits, by a ridge regression.

On few people with thousands of edges nothing was better than a linear classifier with a strong penalty. This one is
fitted exactly, in closed form, before the other parts are trained (`fit_input_layers` in
`utils/training/train.py`).
"""

from typing import Any

import keras
import numpy as np
from keras import layers


class RidgeLogits(layers.Layer):
    """Fisher z correlations (batch, edges), NaN where unknown -> logits (batch, 1, 2) of (control, autism).

    Edges are z-scored by training records; an unknown one counts as their mean. Nothing of it is trained by batches:
    `assign_ridge_weights` sets what a regression on the training records gave (`utils/scores/ridge.py`).
    """

    def build(self, input_shape: tuple) -> None:
        weight_options = {"trainable": False, "dtype": "float32"}
        edge_shape = input_shape[1:]
        # (edges,) Fisher z
        self.mean = self.add_weight(name="mean", shape=edge_shape, initializer="zeros", **weight_options)
        # (edges,) inverse SD
        self.scale = self.add_weight(name="scale", shape=edge_shape, initializer="ones", **weight_options)
        # (edges,) weights of scaled edges
        self.kernel = self.add_weight(name="kernel", shape=edge_shape, initializer="zeros", **weight_options)
        # of the log odds of autism
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros", **weight_options)

    def assign_ridge_weights(
        self, edge_means: np.ndarray, inverse_sd: np.ndarray, edge_weights: np.ndarray, bias: float
    ) -> None:
        """Sets the log odds of autism: `edge_weights` (edges,) of edges minus `edge_means`, times `inverse_sd`; and
        `bias`."""
        self.mean.assign(edge_means)
        self.scale.assign(inverse_sd)
        self.kernel.assign(edge_weights)
        self.bias.assign(bias)

    def standardise_edges(self, edge_fisher_z: Any) -> Any:
        """Scaled edges (batch, edges), 0 where unknown."""
        scaled_edges = (keras.ops.cast(edge_fisher_z, "float32") - self.mean) * self.scale
        return keras.ops.where(keras.ops.isnan(scaled_edges), 0.0, scaled_edges)

    def call(self, edges: Any) -> Any:
        half_log_odds = (keras.ops.matmul(self.standardise_edges(edges), self.kernel[:, None]) + self.bias) / 2
        return keras.ops.stack([-half_log_odds, half_log_odds], axis=-1)
