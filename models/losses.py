"""The two losses: (batch, outputs, config, reads) -> scalar float32 Keras tensor."""

from typing import Any

import tensorflow as tf
from keras import ops


def cross_entropy(batch: dict, outputs: Any, config: Any, reads: tuple[str, ...]) -> Any:
    """Mean cross-entropy of logits (batch, 2) against labels (batch,), 1 autism, 0 control."""
    return ops.mean(ops.sparse_categorical_crossentropy(batch["label"], outputs, from_logits=True))


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
