"""The last layer of a classifier: the logits of its parts -> their weighted mean."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import KerasTensor

from models import connectomes
from models.layers import logits
from models.parts import Part


class PartOfMean(NamedTuple):
    """A part of a classifier, whose logits are (batch, networks, 2). Each network reads one of its `inputs`, such as
    one map; all networks of the first input come before those of the second."""

    name: str
    inputs: int
    share: float  # of the mean, before it is learned
    within_sites: bool  # it learns how far labels are from the mean of their site


class MeanOfLogits(keras.layers.Layer):
    """The logits (batch, networks, 2) of each part of a classifier -> their weighted mean (batch, 2).

    A mean, not a sum: each network has learnt how common autism is in the training records. A sum would count that, and
    whatever several networks know, several times. Each has a loss of its own (`logits_of_parts`).

    Where they are learned, `assign` sets the shares of the parts, and a bias (`utils/training/shares.py`).
    """

    def __init__(self, parts: Sequence[PartOfMean], learned: bool, **options: Any) -> None:
        super().__init__(**options)
        self.parts, self.learned = parts, learned

    def build(self, input_shape: list[tuple]) -> None:
        if self.learned:
            own = {"trainable": False, "dtype": "float32"}
            self.weight = self.add_weight(name="share", shape=(len(self.parts),), initializer="zeros", **own)
            self.bias = self.add_weight(name="bias", shape=(), initializer="zeros", **own)
            self.assign([part.share for part in self.parts], 0.0)

    def assign(self, shares: Sequence[float] | np.ndarray, bias: float) -> None:
        """Sets what the log odds of each part count, and what is added to all."""
        self.weight.assign(shares)
        self.bias.assign(bias)

    @property
    def shares(self) -> list[float]:
        """What each part counts."""
        return self.weight.numpy().tolist() if self.learned else [part.share for part in self.parts]

    def plain(self, logits: list) -> Any:
        """The mean with the shares before they are learned."""
        return sum(part.share * keras.ops.mean(one, axis=1) for part, one in zip(self.parts, logits, strict=True))

    def call(self, logits: list) -> Any:
        if not self.learned:
            return self.plain(logits)
        total = sum(self.weight[at] * keras.ops.mean(one, axis=1) for at, one in enumerate(logits))
        return total + keras.ops.stack([-self.bias / 2, self.bias / 2])


def logits_of_parts(network: keras.Model) -> keras.Model:
    """The network with the logits (batch, networks, 2) that are trained by a loss of their own, in a list if there are
    several parts; itself if it is no classifier."""
    last = network.layers[-1]
    return keras.Model(network.input, last.input) if isinstance(last, MeanOfLogits) else network


def classifier(
    name: str, inputs: dict[str, KerasTensor], parts: list[Part], members: int, beside: KerasTensor | None = None
) -> keras.Model:
    """Inputs -> the mean (batch, 2) of the logits of all parts, each of so many networks an input; `beside` are the
    logits (batch, 1, 2) of the part that reads connectomes. Shares are learned if there are several parts, and several
    members, of whom each leaves out some training people."""
    found = [logits(part.features(members), members, part.settings, part.even) for part in parts]
    total, others = sum(part.share for part in parts), 1 if beside is None else 1 - connectomes.SHARE
    described = [
        PartOfMean(part.name, one.shape[1] // members, others * part.share / total, part.within_sites)
        for part, one in zip(parts, found, strict=True)
    ]
    if beside is not None:
        found.append(beside)
        described.append(PartOfMean("connectome", 1, connectomes.SHARE, False))
    learned = len(found) > 1 and members > 1
    return keras.Model(inputs, MeanOfLogits(described, learned, dtype="float32", name="logits")(found), name=name)
