"""The two losses: (batch, outputs, config, reads) -> scalar float32 Keras tensor."""

from typing import Any

import tensorflow as tf
from keras import ops


def cross_entropy(batch: dict, outputs: Any, config: Any, reads: tuple[str, ...]) -> Any:
    """Mean cross-entropy of logits (batch, 2) against labels (batch,), 1 autism, 0 control; of those of several
    networks, (batch, networks, 2), the sum of the means."""
    target = ops.one_hot(batch["label"], 2)
    if len(outputs.shape) > 2:
        target = ops.broadcast_to(target[:, None], ops.shape(outputs))
    return ops.sum(ops.mean(ops.categorical_crossentropy(target, outputs, from_logits=True), axis=0))


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
