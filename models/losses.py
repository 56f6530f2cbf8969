"""The losses of autoencoders, and of the networks and parts of classifiers."""

from typing import Any

import tensorflow as tf
from keras import ops

from models.averaging import AveragedBranch


def cross_entropy(batch: dict, outputs: Any, config: Any, input_names: tuple[str, ...]) -> Any:
    """Mean cross-entropy of logits (batch, 2) against labels (batch,), 1 autism, 0 control."""
    return ops.mean(ops.categorical_crossentropy(ops.one_hot(batch["label"], 2), outputs, from_logits=True))


def sum_network_losses(batch: dict, network_logits: Any, branch: AveragedBranch) -> Any:
    """The sum of the mean cross-entropies of all networks of a part, with logits (batch, networks, 2). Records count by
    `weight` (batch, members), which is 0 where a network leaves them out.

    Of a part that learns within sites, logits are added to the log odds of autism at the record's site,
    `site_log_odds` (batch,). So it does not pay to learn how common autism is at the site of a scanner."""
    if branch.within_sites:
        half_site_log_odds = batch["site_log_odds"][:, None] / 2
        network_logits = network_logits + ops.stack([-half_site_log_odds, half_site_log_odds], axis=-1)
    # (batch, networks, 2), one-hot
    target_labels = ops.broadcast_to(ops.one_hot(batch["label"], 2)[:, None], ops.shape(network_logits))
    network_losses = ops.categorical_crossentropy(target_labels, network_logits, from_logits=True)  # (batch, networks)
    return ops.sum(ops.mean(network_losses * ops.tile(batch["weight"], (1, branch.input_count)), axis=0))


def compute_mean_activation(code: Any) -> Any:
    """rho_hat, the mean of sigmoid(code) over all records of a batch, also those on other devices."""
    code_activation = ops.sigmoid(ops.cast(code, "float32"))
    replica_context = tf.distribute.get_replica_context()
    if replica_context is None or replica_context.num_replicas_in_sync == 1:
        return ops.mean(code_activation)
    replica_activation_count = tf.cast(tf.size(code_activation), tf.float32)
    total_activation_sum, total_activation_count = replica_context.all_reduce(
        tf.distribute.ReduceOp.SUM, [tf.reduce_sum(code_activation), replica_activation_count]
    )
    return total_activation_sum / total_activation_count


def sparse_reconstruction(batch: dict, outputs: dict, config: Any, input_names: tuple[str, ...]) -> Any:
    """Mean squared error + sparsity_weight * KL(sparsity || rho_hat) (Ng, Sparse autoencoder, 2011)."""
    squared_errors = ops.square(ops.cast(outputs["reconstruction"], "float32") - batch[input_names[0]])
    rho = config.sparsity
    rho_hat = compute_mean_activation(outputs["code"])
    kl_divergence = rho * ops.log(rho / rho_hat) + (1 - rho) * ops.log((1 - rho) / (1 - rho_hat))
    return ops.mean(squared_errors) + config.sparsity_weight * kl_divergence
