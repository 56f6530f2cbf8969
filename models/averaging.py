"""A classifier: its parts, and its last layer, which turns their logits into their weighted mean."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import KerasTensor

from models import LayerSettings
from models.layers import make_logits


class Branch(NamedTuple):
    """A part of a classifier. `build_features(member_count)` builds the layers below the logits, for so many networks
    an input. Their output is (batch, inputs, features) if these share it, else (batch, inputs, members, features)."""

    branch_name: str
    build_features: Callable[[int], KerasTensor]
    layer_settings: LayerSettings
    starts_from_zero: bool  # the logits begin at 0
    branch_weight: float = 1.0  # of the mean of logits, before it is learned
    within_sites: bool = False  # it learns how far labels are from the mean of their site


class AveragedBranch(NamedTuple):
    """A part of a classifier, whose logits are (batch, networks, 2). Each network reads one of its `input_count`
    inputs, such as one map; all networks of the first input come before those of the second."""

    branch_name: str
    input_count: int
    branch_weight: float  # of the mean, before it is learned
    within_sites: bool  # it learns how far labels are from the mean of their site


class MeanOfLogits(keras.layers.Layer):
    """The logits (batch, networks, 2) of each part of a classifier -> their weighted mean (batch, 2).

    A mean, not a sum: each network has learnt how common autism is in the training records. A sum would count that, and
    whatever several networks know, several times. Each has a loss of its own (`make_branch_logits_network`).

    Where they are learned, `assign_branch_weights` sets the shares of the parts, and a bias
    (`utils/training/shares.py`).
    """

    def __init__(self, branches: Sequence[AveragedBranch], is_learned: bool, **layer_options: Any) -> None:
        super().__init__(**layer_options)
        self.branches = branches
        self.is_learned = is_learned

    def build(self, input_shape: list[tuple]) -> None:
        if self.is_learned:
            weight_options = {"trainable": False, "dtype": "float32"}
            # (branches,), by which the mean logits of a branch count
            self.weight = self.add_weight(
                name="share", shape=(len(self.branches),), initializer="zeros", **weight_options
            )
            # added to the log odds of autism
            self.bias = self.add_weight(name="bias", shape=(), initializer="zeros", **weight_options)
            self.assign_branch_weights([branch.branch_weight for branch in self.branches], 0.0)

    def assign_branch_weights(self, branch_weights: Sequence[float] | np.ndarray, bias: float) -> None:
        """Sets what the log odds of each part count, and what is added to all."""
        self.weight.assign(branch_weights)
        self.bias.assign(bias)

    @property
    def branch_weights(self) -> list[float]:
        """What each part counts."""
        return self.weight.numpy().tolist() if self.is_learned else [branch.branch_weight for branch in self.branches]

    def average_with_initial_weights(self, branch_logits: list) -> Any:
        """The mean with the shares before they are learned."""
        return sum(
            branch.branch_weight * keras.ops.mean(network_logits, axis=1)
            for branch, network_logits in zip(self.branches, branch_logits, strict=True)
        )

    def call(self, logits: list) -> Any:
        if not self.is_learned:
            return self.average_with_initial_weights(logits)
        weighted_mean = sum(
            self.weight[branch_index] * keras.ops.mean(network_logits, axis=1)
            for branch_index, network_logits in enumerate(logits)
        )
        return weighted_mean + keras.ops.stack([-self.bias / 2, self.bias / 2])


def make_branch_logits_network(network: keras.Model) -> keras.Model:
    """The network with the logits (batch, networks, 2) that are trained by a loss of their own, in a list if there are
    several parts; itself if it is no classifier."""
    last_layer = network.layers[-1]
    return keras.Model(network.input, last_layer.input) if isinstance(last_layer, MeanOfLogits) else network


def classifier(
    network_name: str,
    input_by_name: dict[str, KerasTensor],
    branches: list[Branch],
    member_count: int,
    connectome_logits: KerasTensor | None = None,
) -> keras.Model:
    """Inputs -> the mean (batch, 2) of the logits of all parts, each of `member_count` networks an input;
    `connectome_logits` are the logits (batch, 1, 2) of the part that reads connectomes. Shares are learned if there are
    several parts, and several members, of whom each leaves out some training people."""
    # (batch, networks, 2) of a branch
    branch_logits = [
        make_logits(branch.build_features(member_count), member_count, branch.layer_settings, branch.starts_from_zero)
        for branch in branches
    ]
    branch_weight_sum = sum(branch.branch_weight for branch in branches)
    # before the weights are learned, the connectome counts as much as each other input
    connectome_weight = 0.0 if connectome_logits is None else 1 / len(input_by_name)
    averaged_branches = [
        AveragedBranch(
            branch.branch_name,
            network_logits.shape[1] // member_count,
            (1 - connectome_weight) * branch.branch_weight / branch_weight_sum,
            branch.within_sites,
        )
        for branch, network_logits in zip(branches, branch_logits, strict=True)
    ]
    if connectome_logits is not None:
        branch_logits.append(connectome_logits)
        averaged_branches.append(AveragedBranch("connectome", 1, connectome_weight, False))
    is_learned = len(branch_logits) > 1 and member_count > 1
    return keras.Model(
        input_by_name,
        MeanOfLogits(averaged_branches, is_learned, dtype="float32", name="logits")(branch_logits),
        name=network_name,
    )
