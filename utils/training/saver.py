"""Checkpoints of a network that is trained: saved as it goes, and restored to go on."""

import errno
import hashlib
import os
from functools import cached_property

import keras
import tensorflow as tf

from data.base import files
from data.base.errors import InputError
from utils.runs.checkpoints import MAX_CHECKPOINTS, CheckpointFolder, shorten_error
from utils.runs.record import Manifest


class CheckpointSaver:
    """Saves and restores a network and its optimizer; the latest checkpoint, which is named by the number of batches
    seen, is always a whole one."""

    def __init__(
        self,
        checkpoint_folder: CheckpointFolder,
        checkpoint_name: str,
        network: keras.Model,
        optimizer: keras.Optimizer,
    ):
        self.checkpoint_folder = checkpoint_folder
        self.checkpoint_name = checkpoint_name
        self.checkpoint = tf.train.Checkpoint(model=network, optimizer=optimizer)

    def restore_latest_checkpoint(self) -> int:
        """Restores the latest checkpoint; returns the number of batches it has seen."""
        self.checkpoint_folder.restore_latest_checked(
            self.checkpoint, lambda restore_status: restore_status.assert_consumed()
        )
        manifest = self.checkpoint_folder.read_latest_manifest()
        prefix_name = self.checkpoint_folder.require_intact_prefix().name
        if not manifest.outputs:  # a run was killed amid this save, which ends here
            self.checkpoint_folder.write_manifest(prefix_name, manifest, is_checkpoint_saved=True)
        return manifest.step

    @cached_property
    def checkpoint_manager(self) -> tf.train.CheckpointManager:
        return tf.train.CheckpointManager(
            self.checkpoint, self.checkpoint_folder.path, MAX_CHECKPOINTS, checkpoint_name=self.checkpoint_name
        )

    def save_checkpoint(self, manifest: Manifest) -> None:
        """Saves, with a record. Raises InputError if that cannot be written; the checkpoint before is intact."""
        prefix_name = f"{self.checkpoint_name}-{manifest.step}"
        has_earlier_checkpoint = self.checkpoint_folder.has_checkpoint
        try:
            # first: a checkpoint without its record cannot be used
            self.checkpoint_folder.write_manifest(prefix_name, manifest, is_checkpoint_saved=False)
            self.checkpoint_manager.save(checkpoint_number=manifest.step)
            self.checkpoint_folder.write_manifest(prefix_name, manifest, is_checkpoint_saved=True)
            self.checkpoint_folder.remove_checkpoints_except(
                self.checkpoint_folder.checkpoint_prefixes[:MAX_CHECKPOINTS]
            )
        except (tf.errors.OpError, OSError) as error:
            self.checkpoint_folder.prepare_folder_and_choose_name(is_from_zero=False)
            earlier_checkpoint_text = (
                "the one before is intact" if has_earlier_checkpoint else "there is none before it"
            )
            is_size_limit = os.strerror(errno.EFBIG) in str(error)  # TensorFlow's errors have no number
            advice = files.FILE_TOO_LARGE_ADVICE if is_size_limit else "Make room for it and repeat the command."
            raise InputError(
                f"{self.checkpoint_folder.path} cannot take a checkpoint at iteration {manifest.step} "
                f"({shorten_error(error)}); {earlier_checkpoint_text}. {advice}"
            ) from error


def compute_weights_sha256(network: keras.Model) -> str:
    """SHA-256 of a network's weights, in Keras' order; batch norm's means are among these. Not so the optimizer and the
    number of saves, so that networks of equal weights have one digest, however their trainings were interrupted."""
    digest = hashlib.sha256()
    for weight_array in network.get_weights():
        digest.update(f"{weight_array.dtype} {weight_array.shape} ".encode())
        digest.update(weight_array.tobytes())
    return digest.hexdigest()
