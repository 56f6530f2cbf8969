"""What the edges of a connectome add to the logits of a classifier, and how that changes with some of them."""

import keras
import numpy as np

from models import averaging
from utils.blackout.edges import Replacement
from utils.blackout.options import CONNECTOME_INPUT


class EdgeLogits:
    """The part of a classifier that reads connectomes is linear and reads nothing else (`models/connectomes.py`). So
    the effects of edges and of volumes on the logits add up, exactly. `training_edge_means` (edges,) are the means of
    the training people."""

    def __init__(self, model: keras.Model):
        logits_mean_layer = model.layers[-1]
        if not isinstance(logits_mean_layer, averaging.MeanOfLogits):
            raise TypeError(
                f"{model.name} ends in {logits_mean_layer.name}; expected the mean of the logits of its parts."
            )
        branch_weight = {
            branch.branch_name: branch_weight
            for branch, branch_weight in zip(logits_mean_layer.branches, logits_mean_layer.branch_weights, strict=True)
        }
        ridge_layer = model.get_layer("connectome_logits")
        self.training_edge_means = ridge_layer.mean.numpy()
        self._inverse_edge_sds = ridge_layer.scale.numpy()
        self._edge_weights = branch_weight[CONNECTOME_INPUT] * ridge_layer.kernel.numpy().astype(float)

    def compute_edge_contributions(
        self, edge_fisher_z: np.ndarray, edge_indices: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """What each of these edges adds to the log odds of autism, (n, edges), given Fisher z `edge_fisher_z` (n,
        edges). An unknown edge, NaN, adds 0, as one does that is the mean of the training people."""
        edge_z_scores = (edge_fisher_z - self.training_edge_means[edge_indices]) * self._inverse_edge_sds[edge_indices]
        return np.where(np.isnan(edge_z_scores), 0, edge_z_scores * self._edge_weights[edge_indices])

    def compute_log_odds_changes(self, replacement: Replacement) -> np.ndarray:
        """How the log odds of autism (n, parts) change if the edges of one part after another are replaced."""
        input_contributions = self.compute_edge_contributions(replacement.input_values)
        log_odds_changes_by_selection = [
            self.compute_edge_contributions(
                replacement.get_replacement_values(selection_number), selected_edge_indices
            ).sum(1)
            - input_contributions[:, selected_edge_indices].sum(1)
            for selection_number, selected_edge_indices in enumerate(replacement.selections)
        ]
        return np.stack(log_odds_changes_by_selection, axis=1)


def make_edge_logits(model: keras.Model) -> EdgeLogits | None:
    """The `EdgeLogits` of a network that reads connectomes, else None."""
    return EdgeLogits(model) if any(tensor.name == CONNECTOME_INPUT for tensor in model.inputs) else None
