"""The losses of autoencoders, and of the networks and parts of classifiers."""

from typing import Any

import tensorflow as tf
from keras import ops

from models.averaging import PartOfMean


def cross_entropy(batch: dict, outputs: Any, config: Any, reads: tuple[str, ...]) -> Any:
    """Mean cross-entropy of logits (batch, 2) against labels (batch,), 1 autism, 0 control."""
    return ops.mean(ops.categorical_crossentropy(ops.one_hot(batch["label"], 2), outputs, from_logits=True))


def of_networks(batch: dict, logits: Any, part: PartOfMean) -> Any:
    """The sum of the mean cross-entropies of all networks of a part, with logits (batch, networks, 2). Records count by
    `weight` (batch, members), which is 0 where a network leaves them out.

    Of a part that learns within sites, logits are added to the log odds of autism at the record's site,
    `site_log_odds` (batch,). So it does not pay to learn how common autism is at the site of a scanner."""
    if part.within_sites:
        half = batch["site_log_odds"][:, None] / 2
        logits = logits + ops.stack([-half, half], axis=-1)
    target = ops.broadcast_to(ops.one_hot(batch["label"], 2)[:, None], ops.shape(logits))
    losses = ops.categorical_crossentropy(target, logits, from_logits=True)
    return ops.sum(ops.mean(losses * ops.tile(batch["weight"], (1, part.inputs)), axis=0))


def mean_activation(code: Any) -> Any:
    """rho_hat, the mean of sigmoid(code) over all records of a batch, also those on other devices."""
    activation, context = ops.sigmoid(ops.cast(code, "float32")), tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return ops.mean(activation)
    count = tf.cast(tf.size(activation), tf.float32)
    total, size = context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.reduce_sum(activation), count])
    return total / size


def sparse_reconstruction(batch: dict, outputs: dict, config: Any, reads: tuple[str, ...]) -> Any:
    """Mean squared error + sparsity_weight * KL(sparsity || rho_hat) (Ng, Sparse autoencoder, 2011)."""
    squared = ops.square(ops.cast(outputs["reconstruction"], "float32") - batch[reads[0]])
    rho, rho_hat = config.sparsity, mean_activation(outputs["code"])
    divergence = rho * ops.log(rho / rho_hat) + (1 - rho) * ops.log((1 - rho) / (1 - rho_hat))
    return ops.mean(squared) + config.sparsity_weight * divergence
