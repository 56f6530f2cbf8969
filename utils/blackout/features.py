"""Exact occlusion of classifiers that read the volume by averages alone: means of regions, or of cubes of voxels.

Averages are linear: replacing a region changes each by the sum of the differences at its voxels, times their weight.
From there on the network computes many regions of all records at once.

Volumes are (batch, x, y, z, maps), averages (batch, ..., maps), masks (x, y, z).
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers
from scipy import sparse

from models.averaging import AveragedBranch, MeanOfLogits
from models.layers import RegionMeans
from utils.blackout.graph import Node, feeds, nodes_of, volume_of

Values = dict[KerasTensor, np.ndarray]
TOGETHER_BYTES = 2**24  # of what regions change: so many pass at once


def in_groups(masks: Sequence[np.ndarray], bytes_a_mask: int) -> list[np.ndarray]:
    """Masks in groups that need about `TOGETHER_BYTES`, or one by one."""
    return np.array_split(masks, min(len(masks), math.ceil(len(masks) * bytes_a_mask / TOGETHER_BYTES)))


class Kept(NamedTuple):
    """Of a batch with nothing occluded."""

    volume: np.ndarray
    read: Values  # the averages and all inputs
    logits: np.ndarray  # (batch, classes)
    added: list[np.ndarray]  # what each part adds to the logits by its inputs, (batch, inputs, classes)


def is_average(layer: keras.Layer) -> bool:
    """Whether a layer averages voxels of each map, none of them twice, in float32."""
    cubes = type(layer) is layers.AveragePooling3D and layer.strides == layer.pool_size
    return (cubes or type(layer) is RegionMeans) and layer.compute_dtype == "float32"


def readers_by_averages(network: keras.Model) -> list[Node]:
    """The uses of layers that read the volume of a classifier, if all of them average voxels; otherwise none."""
    readers = [node for node in nodes_of(network) if volume_of(network) in node.input_tensors]
    all_average = all(is_average(node.operation) for node in readers)
    return readers if all_average and isinstance(network.layers[-1], MeanOfLogits) else []


class Average(NamedTuple):
    """How a layer averages voxels of each map: of each voxel (voxels,) the number of its average, and its weight there,
    0 if it is in none."""

    place: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, layer: keras.Layer, grid: tuple[int, ...]) -> "Average":
        """Of a layer that takes no voxel twice.

        The gradient of the sum of all averages is each voxel's weight. If each average counts by its number, the
        gradient is the weight times the number of the voxel's average.
        """
        volume = tf.zeros((1, *grid, 2))
        with tf.GradientTape() as tape:
            tape.watch(volume)
            averages = layer(volume)
        count = math.prod(averages.shape[1:-1])
        factors = np.stack([np.ones(count), np.arange(count)], axis=1).astype(np.float32)
        gradient = tf.convert_to_tensor(tape.gradient(averages, volume, tf.reshape(factors, averages.shape)))
        weight, by_index = gradient.numpy().reshape(-1, 2).T
        return cls(np.rint(by_index / np.where(weight == 0, 1, weight)).astype(int), weight)

    def touched(self, mask: np.ndarray) -> tuple[np.ndarray, sparse.csr_array]:
        """The averages (n,) int that voxels of a mask (voxels,) are in, and the weights (n, voxels) of these there."""
        (voxels,) = np.nonzero(mask & (self.weight != 0))
        averages, entry = np.unique(self.place[voxels], return_inverse=True)
        return averages, sparse.csr_array((self.weight[voxels], (entry, voxels)), (len(averages), len(mask)))


class PartOfVolume:
    """A part of a classifier: what it reads of `sources` -> what it adds to the mean of the logits by its inputs."""

    def __init__(self, part: AveragedBranch, share: float, logits: KerasTensor, sources: list[KerasTensor]):
        self.sources, self.inputs = sources, part.input_count
        network = keras.Function(sources, logits)

        def added(values: list[tf.Tensor]) -> tf.Tensor:
            logits = network(values)
            by_input = tf.reshape(logits, (-1, part.input_count, logits.shape[1] // part.input_count, logits.shape[2]))
            return tf.reduce_mean(by_input, 2) * (share / part.input_count)

        self._added = tf.function(added, reduce_retracing=True)

    def added(self, read: Values) -> np.ndarray:
        """Values (masks, batch, ...) by source -> (masks, batch, inputs, classes)."""
        values = [read[source] for source in self.sources]
        rows = [tf.constant(each.reshape(-1, *each.shape[2:])) for each in values]
        return self._added(rows).numpy().reshape(*values[0].shape[:2], self.inputs, -1)


class FeatureOcclusion:
    """The logits of a classifier with regions of the volume occluded; its methods are those of `LocalOcclusion`. The
    volume is read by the `averages` of `readers_by_averages` alone."""

    recomputed_layers: tuple[str, ...] = ()

    def __init__(self, network: keras.Model, averages: list[Node]):
        volume, nodes, last = volume_of(network), nodes_of(network), network.layers[-1]
        grid, self._maps, self._inputs = volume.shape[1:4], volume.shape[-1], network.inputs
        self._averages = {node.output_tensors[0]: Average.of(node.operation, grid) for node in averages}
        shown = keras.Function(network.inputs, [*network.outputs, *self._averages])
        self._shown = tf.function(shown, reduce_retracing=True)
        # the same masks come with each batch and each fill
        self._touched = cache(lambda source, mask: self._averages[source].touched(np.frombuffer(mask, bool)))
        sources = [*self._averages, *(tensor for tensor in network.inputs if tensor is not volume)]
        self._parts = [
            PartOfVolume(part, share, logits, [source for source in sources if feeds(nodes, source, logits)])
            for part, share, logits in zip(last.parts, last.shares, keras.tree.flatten(last.input), strict=True)
            if feeds(nodes, volume, logits)
        ]

    def keep(self, inputs: dict[str, np.ndarray]) -> Any:
        read = {tensor: inputs[tensor.name] for tensor in self._inputs}
        logits, *averages = (found.numpy() for found in self._shown([*map(tf.constant, read.values())]))
        read |= zip(self._averages, averages, strict=True)
        alone = {source: values[None] for source, values in read.items()}
        return Kept(inputs["volume"], read, logits, [part.added(alone)[0] for part in self._parts])

    def logits(self, kept: Kept) -> np.ndarray:
        return kept.logits

    def occluded_logits(self, kept: Kept, fill: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
        return self.logits_by_map(kept, fill, masks, ())[0]

    def logits_by_map(
        self, kept: Kept, fill: np.ndarray, masks: Sequence[np.ndarray], maps: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        difference = (np.asarray(fill, np.float32) - kept.volume).reshape(len(kept.volume), -1, self._maps)
        by_voxel = np.ascontiguousarray(difference.swapaxes(0, 1)).reshape(difference.shape[1], -1)
        groups = in_groups(masks, sum(kept.read[average].nbytes for average in self._averages))
        found = [self._occluded(kept, self._replaced(kept, by_voxel, group), list(maps)) for group in groups]
        in_all, in_one = (np.concatenate(logits) for logits in zip(*found, strict=True))
        return in_all, in_one

    def _replaced(self, kept: Kept, by_voxel: np.ndarray, masks: np.ndarray) -> Values:
        """Return what is read, (masks, batch, ...), with each mask's voxels replaced, which adds the differences
        `by_voxel` (voxels, batch * maps) to them."""
        read = {source: np.broadcast_to(values, (len(masks), *values.shape)) for source, values in kept.read.items()}
        for source in self._averages:
            shown = kept.read[source]
            found = np.repeat(shown.reshape(1, len(shown), -1, self._maps), len(masks), axis=0)
            for one, mask in zip(found, masks, strict=True):
                touched, weights = self._touched(source, mask.tobytes())
                changes = weights @ by_voxel
                one[:, touched] += changes.reshape(len(touched), len(shown), self._maps).swapaxes(0, 1)
            read[source] = found.reshape(len(masks), *shown.shape)
        return read

    def _occluded(self, kept: Kept, read: Values, maps: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits of what is read with voxels replaced, (masks, batch, classes), and of the same with those
        of one of `maps` alone replaced (masks, batch, maps, classes).

        What a network that reads one map adds to the logits is due to this map. Parts that read all maps take the
        averages of one map as replaced then, and all others as kept.
        """
        changes = [part.added(read) - shown for part, shown in zip(self._parts, kept.added, strict=True)]
        in_all = kept.logits + sum(change.sum(2) for change in changes)
        in_one = np.repeat(kept.logits[None, :, None], len(in_all), axis=0).repeat(len(maps), axis=2)
        for part, shown, change in zip(self._parts, kept.added, changes, strict=True):
            if part.inputs == self._maps:
                in_one += change[:, :, maps]
                continue
            averages = self._averages.keys() & part.sources
            for place, one in enumerate(maps):
                is_one = np.arange(self._maps) == one
                mixed = read | {each: np.where(is_one, read[each], kept.read[each]) for each in averages}
                in_one[:, :, place] += (part.added(mixed) - shown).sum(2)
        return in_all, in_one
