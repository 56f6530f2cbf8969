"""A Keras graph -> the steps that follow the volume through it locally, and the rest, which does not.

A node is one use of a layer.
"""

from collections import Counter
from typing import Any

import keras
from keras import KerasTensor, layers

from models import layers as model_layers
from models import one_channel
from utils.blackout.steps import Convolution, MaximumPooling, Step, convolution_of, extent_of

Node = Any  # Keras has no public class for it

VOXELWISE_LAYERS = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity, layers.Rescaling,
    layers.Dropout, layers.SpatialDropout3D, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise,
    model_layers.Dropout, layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
    model_layers.ChannelSlice,
)  # fmt: skip
CHANNEL_LAYERS = (layers.BatchNormalization, layers.Concatenate)
CONVOLUTIONS = (layers.Conv3D, one_channel.Conv3D)


def volume_of(network: keras.Model) -> KerasTensor:
    """The input "volume"."""
    (volume,) = (tensor for tensor in network.inputs if tensor.name == "volume")
    return volume


def nodes_of(network: keras.Model) -> list[Node]:
    """The uses of layers in a functional model, in the order in which they are computed."""
    # Only the nodes tell apart the uses of a layer, and Keras has no public way to those of one model.
    levels = sorted(network._nodes_by_depth.items(), reverse=True)
    return [node for _, level in levels for node in level if node.input_tensors]


def feeds(nodes: list[Node], source: KerasTensor, target: KerasTensor) -> bool:
    """Whether `target` depends on `source` by these nodes, which are in order."""
    reached = {source}
    for node in nodes:
        if not reached.isdisjoint(node.input_tensors):
            reached.update(node.output_tensors)
    return target in reached


def step_of(node: Node) -> Step | None:
    """The step that computes a node of the graph locally; None if it is not known how."""
    layer, sources, target = node.operation, node.input_tensors, node.output_tensors[0]
    kind, activation = type(layer), getattr(layer, "activation", keras.activations.linear)
    # An argument like training=True may make any layer depend on the whole batch.
    plain_call = all(value is None or value is False for value in node.arguments.kwargs.values())
    # Keras' own activation functions all stay within a voxel.
    voxelwise = getattr(keras.activations, getattr(activation, "__name__", ""), None) is activation
    if not (plain_call and voxelwise):
        return None
    if kind in VOXELWISE_LAYERS or (kind in CHANNEL_LAYERS and layer.axis in (-1, 4)):
        return Step(layer, sources, target) if all(one.shape[1:4] == target.shape[1:4] for one in sources) else None
    # TensorFlow 2.21 without oneDNN begins a voxel late if windows leave two voxels at the end unread.
    if kind not in (*CONVOLUTIONS, layers.MaxPooling3D) or (layer.strides - extent_of(layer) > 1).any():
        return None
    if kind is layers.MaxPooling3D:
        return MaximumPooling(layer, sources, target)
    return convolution_of(layer)(layer, sources, target) if layer.groups == 1 else None


def follow(nodes: list[Node], volume: KerasTensor) -> tuple[list[Step], list[Node], set[KerasTensor]]:
    """Follow the volume through the nodes of a graph, in their order, as far as that is possible locally.

    Returns the steps, the other nodes that the volume affects, and everything that it affects.
    """
    readers = Counter(tensor for node in nodes for tensor in node.input_tensors)
    followed, tail, affected = dict[KerasTensor, Step](), list[Node](), {volume}
    for node in nodes:
        if affected.isdisjoint(node.input_tensors):
            continue
        affected.update(node.output_tensors)
        (source, *_), target = node.input_tensors, node.output_tensors[0]
        step = step_of(node) if {volume, *followed}.issuperset(node.input_tensors) else None
        before = followed.get(source)
        if step is None:
            tail.append(node)
        elif isinstance(before, Convolution) and readers[source] == 1 and before.folds(node.operation):
            before.fold(node.operation, target)
            followed[target] = followed.pop(source)
        else:
            followed[target] = step
    return list(followed.values()), tail, affected
