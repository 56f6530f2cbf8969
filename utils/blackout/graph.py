"""A Keras graph -> the steps that follow the volume through it locally, and the rest, which does not.

A node is one use of a layer.
"""

from collections import Counter
from typing import Any

import keras
from keras import KerasTensor, layers

from models import layers as model_layers
from models import one_channel
from utils.blackout.steps import (
    ConvolutionStep,
    MaximumPoolingStep,
    Step,
    choose_convolution_step,
    compute_window_extent,
)

GraphNode = Any  # Keras has no public class for it

VOXELWISE_LAYERS = (
    layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU, layers.Identity, layers.Rescaling,
    layers.Dropout, layers.SpatialDropout3D, layers.AlphaDropout, layers.GaussianDropout, layers.GaussianNoise,
    model_layers.Dropout, layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
    model_layers.ChannelSlice,
)  # fmt: skip
CHANNEL_LAYERS = (layers.BatchNormalization, layers.Concatenate)
CONVOLUTION_LAYERS = (layers.Conv3D, one_channel.Conv3D)


def find_volume_input(network: keras.Model) -> KerasTensor:
    """The input "volume"."""
    (volume_tensor,) = (tensor for tensor in network.inputs if tensor.name == "volume")
    return volume_tensor


def list_graph_nodes(network: keras.Model) -> list[GraphNode]:
    """The uses of layers in a functional model, in the order in which they are computed."""
    # Only nodes distinguish the uses of a layer, and Keras gives no public access to those of one model.
    nodes_by_depth = sorted(network._nodes_by_depth.items(), reverse=True)
    return [node for _, depth_nodes in nodes_by_depth for node in depth_nodes if node.input_tensors]


def feeds(graph_nodes: list[GraphNode], source_tensor: KerasTensor, target_tensor: KerasTensor) -> bool:
    """Whether `target_tensor` depends on `source_tensor` by these nodes, which are in order."""
    reached_tensors = {source_tensor}
    for node in graph_nodes:
        if not reached_tensors.isdisjoint(node.input_tensors):
            reached_tensors.update(node.output_tensors)
    return target_tensor in reached_tensors


def make_local_step(node: GraphNode) -> Step | None:
    """The step that computes a node of the graph locally; None if it is not known how."""
    layer = node.operation
    source_tensors = node.input_tensors
    target_tensor = node.output_tensors[0]
    layer_type = type(layer)
    activation_function = getattr(layer, "activation", keras.activations.linear)
    # An argument like training=True may make any layer depend on the whole batch.
    is_plain_call = all(
        argument_value is None or argument_value is False for argument_value in node.arguments.kwargs.values()
    )
    # Keras' own activation functions all stay within a voxel.
    activation_name = getattr(activation_function, "__name__", "")
    is_activation_voxelwise = getattr(keras.activations, activation_name, None) is activation_function
    if not (is_plain_call and is_activation_voxelwise):
        return None
    if layer_type in VOXELWISE_LAYERS or (layer_type in CHANNEL_LAYERS and layer.axis in (-1, 4)):
        is_same_grid = all(source_tensor.shape[1:4] == target_tensor.shape[1:4] for source_tensor in source_tensors)
        return Step(layer, source_tensors, target_tensor) if is_same_grid else None
    if layer_type not in (*CONVOLUTION_LAYERS, layers.MaxPooling3D):
        return None
    # TensorFlow 2.21 without oneDNN begins a voxel late if windows leave two voxels at the end unread.
    if (layer.strides - compute_window_extent(layer) > 1).any():
        return None
    if layer_type is layers.MaxPooling3D:
        return MaximumPoolingStep(layer, source_tensors, target_tensor)
    return choose_convolution_step(layer)(layer, source_tensors, target_tensor) if layer.groups == 1 else None


def follow_volume(
    graph_nodes: list[GraphNode], volume_tensor: KerasTensor
) -> tuple[list[Step], list[GraphNode], set[KerasTensor]]:
    """Follow the volume through the nodes of a graph, in their order, as far as that is possible locally.

    Returns the steps, the other nodes that the volume affects, and everything that it affects.
    """
    reader_count_by_tensor = Counter(tensor for node in graph_nodes for tensor in node.input_tensors)
    step_by_target_tensor = dict[KerasTensor, Step]()
    tail_nodes = list[GraphNode]()
    affected_tensors = {volume_tensor}
    for node in graph_nodes:
        if affected_tensors.isdisjoint(node.input_tensors):
            continue
        affected_tensors.update(node.output_tensors)
        first_source_tensor = node.input_tensors[0]
        target_tensor = node.output_tensors[0]
        is_followed_here = {volume_tensor, *step_by_target_tensor}.issuperset(node.input_tensors)
        local_step = make_local_step(node) if is_followed_here else None
        previous_step = step_by_target_tensor.get(first_source_tensor)
        if local_step is None:
            tail_nodes.append(node)
        elif (
            isinstance(previous_step, ConvolutionStep)
            and reader_count_by_tensor[first_source_tensor] == 1
            and previous_step.can_fold_normalisation(node.operation)
        ):
            previous_step.fold_normalisation(node.operation, target_tensor)
            step_by_target_tensor[target_tensor] = step_by_target_tensor.pop(first_source_tensor)
        else:
            step_by_target_tensor[target_tensor] = local_step
    return list(step_by_target_tensor.values()), tail_nodes, affected_tensors
