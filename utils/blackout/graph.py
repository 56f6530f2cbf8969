"""A Keras graph -> the steps that follow the volume through it locally, and the rest, which does not.

A node is one use of a layer; activations are known by the keys `id(tensor)` of their Keras tensors.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import layers

from models import layers as model_layers
from models import one_channel
from utils.blackout import steps
from utils.blackout.steps import Convolution, GlobalAverage, Step

Node = Any  # Keras has no public class for it
SPATIAL = slice(1, 4)  # of a shape
RANK = 5  # of a tensor with the axes of a volume

VOXELWISE_LAYERS = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity, layers.Rescaling,
    layers.Dropout, layers.SpatialDropout3D, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise,
    model_layers.Dropout, layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
    model_layers.MapsApart, model_layers.Channels,
)  # fmt: skip
CONVOLUTIONS = (layers.Conv3D, one_channel.Conv3D)
WINDOWED_LAYERS = (*CONVOLUTIONS, layers.MaxPooling3D, layers.AveragePooling3D)
CHANNEL_LAYERS = (layers.BatchNormalization, layers.Concatenate)
STEPS: dict[type[keras.Layer], type[Step]] = {
    layers.MaxPooling3D: steps.MaximumPooling,
    layers.AveragePooling3D: steps.AveragePooling,
    layers.GlobalAveragePooling3D: GlobalAverage,
    model_layers.Standardise: steps.Standardise,
    model_layers.RegionMeans: steps.RegionMeans,
}
MAPWISE_LAYERS = (layers.AveragePooling3D, model_layers.Standardise, model_layers.RegionMeans)
FLATTENED_LAYERS = (model_layers.MembersApart, model_layers.MapsTogether, layers.Reshape, model_layers.Dropout)
WHOLE_VOLUME_LAYERS = (
    layers.Flatten,
    model_layers.MembersApart,
    layers.GlobalMaxPooling3D,
    layers.GlobalAveragePooling3D,
)


def nodes_of(model: keras.Model) -> list[Node]:
    """The uses of layers in a functional model, in the order in which they are computed."""
    # Only the nodes tell apart the uses of a layer, and Keras has no public way to those of one model.
    levels = sorted(model._nodes_by_depth.items(), reverse=True)
    return [node for _, level in levels for node in level if node.input_tensors]


def steps_of(node: Node, is_local: Callable[[keras.KerasTensor], bool]) -> list[Step]:
    """Return the steps that compute a node of the graph locally; none if it is not known how."""
    layer, inputs, output = node.operation, node.input_tensors, node.output_tensors[0]
    kind, sources, target = type(layer), [id(tensor) for tensor in inputs], id(output)
    activation = getattr(layer, "activation", keras.activations.linear)
    channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    # An argument like training=True may make any layer depend on the whole batch.
    plain_call = all(value is None or value is False for value in node.arguments.kwargs.values())
    # Keras' own activation functions all stay within a voxel.
    voxelwise = getattr(keras.activations, getattr(activation, "__name__", ""), None) is activation
    if not (channels_last and plain_call and voxelwise and all(map(is_local, inputs))):
        return []
    sizes = inputs[0].shape[SPATIAL], output.shape[SPATIAL]
    if kind in VOXELWISE_LAYERS or (kind in CHANNEL_LAYERS and layer.axis in (-1, 4)):
        same_grid = all(tensor.shape[SPATIAL] == sizes[1] for tensor in inputs)
        return [Step(layer, sources, target, sizes)] if same_grid else []
    # TensorFlow 2.21 without oneDNN begins a voxel late if "same" padding leaves two voxels at the end unread.
    if kind in WINDOWED_LAYERS and layer.padding == "same" and (steps.padding_needed(layer, sizes) < -1).any():
        return []
    if kind in STEPS:
        return [STEPS[kind](layer, sources, target, sizes)]
    # TensorFlow 2.21 with oneDNN misreads small boxes of one channel if the strides are unequal.
    if kind not in CONVOLUTIONS or layer.groups > 1 or (layer.kernel.shape[3] == 1 and len({*layer.strides}) > 1):
        return []
    convolution: type[Convolution] = Convolution  # the cheapest kind that is accurate
    if layer.compute_dtype == "float32" and layer.kernel.shape[3] > 1:
        dense = {*layer.strides, *layer.dilation_rate} == {1}
        convolution = steps.SpreadConvolution if dense else steps.DifferenceConvolution
    if activation is keras.activations.linear:
        return [convolution(layer, sources, target, sizes)]
    linear = (target, "linear")
    return [convolution(layer, sources, linear, sizes), Step(activation, [linear], target, (sizes[1], sizes[1]))]


def readout_of(nodes: list[Node], first: Node, readers: Counter) -> list[Node]:
    """Return the nodes from one that takes members apart to the dense layer that reads these; none if something else
    reads them, too, or if they compute in half precision."""
    chain = [first] if type(first.operation) is model_layers.MembersApart else []
    while chain and type(chain[-1].operation) in FLATTENED_LAYERS:
        output = id(chain[-1].output_tensors[0])
        chain += [node for node in nodes if readers[output] == 1 and output in map(id, node.input_tensors)] or [None]
    if not chain or chain[-1] is None or any(node.operation.compute_dtype != "float32" for node in chain):
        return []
    last = chain[-1].operation
    return chain if type(last) is layers.EinsumDense and last.activation is keras.activations.linear else []


def readout(chain: list[Node]) -> steps.Readout:
    """Return the step that computes the last node of a chain from what the first one reads."""
    first, last = chain[0], chain[-1]
    (source,), target = first.input_tensors, last.output_tensors[0]
    sizes = source.shape[SPATIAL], source.shape[SPATIAL]
    return steps.Readout(last.operation, [id(source)], id(target), sizes)


def follow(nodes: list[Node], volume: int, outputs: list) -> tuple[list[Step], list[Node], set[int]]:
    """Follow the volume through the nodes of a graph, in their order, as far as that is possible locally.

    Returns the steps, the other nodes that the volume affects, and the keys of everything that it affects.
    """
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    readers.update(id(tensor) for tensor in outputs)
    found: dict = {}
    tail, affected, followed = [], {volume}, {volume}
    in_readout: set[int] = set()

    def is_local(tensor: keras.KerasTensor) -> bool:
        return len(tensor.shape) == RANK and (id(tensor) in followed or id(tensor) not in affected)

    for node in nodes:
        source, target = id(node.input_tensors[0]), id(node.output_tensors[0])
        if affected.isdisjoint(id(tensor) for tensor in node.input_tensors):
            continue
        affected.update(id(tensor) for tensor in node.output_tensors)
        if id(node) in in_readout:
            continue
        new = steps_of(node, is_local)
        if is_local(node.input_tensors[0]) and (chain := readout_of(nodes, node, readers)):
            new = [readout(chain)]
            in_readout.update(map(id, chain))
        if not new:
            tail.append(node)
            continue
        if not isinstance(new[-1], GlobalAverage):
            followed.add(target)
        layer, before = node.operation, found.get(source)
        folds = type(layer) is layers.BatchNormalization and layer.compute_dtype == "float32" and readers[source] == 1
        if folds and isinstance(before, Convolution) and before.layer.compute_dtype == "float32":
            before.fold(layer, target)
            new = [found.pop(source)]
        found.update((step.target, step) for step in new)
    return list(found.values()), tail, affected


def maps_apart(nodes: list[Node], volume: int) -> set[int]:
    """Return the keys of the activations whose last axis is that of the maps, each of which has been read alone."""
    apart = {volume}
    for node in nodes:
        if type(node.operation) in MAPWISE_LAYERS and id(node.input_tensors[0]) in apart:
            apart.add(id(node.output_tensors[0]))
    return apart


def feeds(nodes: list[Node], source: int, targets: Iterable[int]) -> bool:
    """Return whether any of `targets` depends on `source` by these nodes, which are in order."""
    reached = {source}
    for node in nodes:
        if not reached.isdisjoint(id(tensor) for tensor in node.input_tensors):
            reached.update(id(tensor) for tensor in node.output_tensors)
    return not reached.isdisjoint(targets)
