"""Volumes -> where the brain is in them, and their z-scores."""

import math

import numpy as np

MIN_SD = 1e-6  # of z-scores; below it is rounding


def z_score_volume(volume: np.ndarray) -> np.ndarray:
    """z-scores over the whole volume, background included, (x, y, z) float32. A constant volume becomes zero."""
    volume = np.asarray(volume, np.float32)
    centred_values = volume - np.float32(volume.mean(dtype=np.float64))
    volume_sd = math.sqrt(np.vecdot(centred_values, centred_values).sum(dtype=np.float64) / volume.size)
    centred_values /= volume_sd if volume_sd > 0 else 1.0
    return centred_values


def find_background_value(volume: np.ndarray) -> float:
    """The value of the voxels outside the brain: the median over the six outer faces of a volume (x, y, z)."""
    face_values = np.concatenate(
        [volume.swapaxes(0, axis)[face_index].ravel() for axis in range(3) for face_index in (0, -1)]
    )
    if (
        2 * np.count_nonzero(face_values == face_values[0]) > face_values.size
    ):  # without sorting, in almost every volume
        return float(face_values[0])
    return float(np.median(face_values))


def find_brain_mask(volume: np.ndarray) -> np.ndarray:
    """The voxels of a stored volume that differ from its background, (x, y, z) bool; all if none do."""
    brain_mask = np.abs(volume - find_background_value(volume)) > 1e-4 * np.ptp(volume)
    return brain_mask if brain_mask.any() else np.ones_like(brain_mask)


def z_score_within_brain(volume: np.ndarray) -> np.ndarray:
    """z-scores of each map (x, y, z, maps) over the voxels that are not its background, which becomes 0, their mean."""
    z_scores = np.empty_like(volume)
    for map_index in range(volume.shape[-1]):
        brain_mask = find_brain_mask(volume[..., map_index])
        brain_voxel_count = np.count_nonzero(brain_mask)
        brain_mean = np.where(brain_mask, volume[..., map_index], 0).sum(dtype=np.float64) / brain_voxel_count
        centred_values = np.where(brain_mask, volume[..., map_index] - np.float32(brain_mean), np.float32(0))
        brain_sd = np.sqrt(np.square(centred_values).sum(dtype=np.float64) / brain_voxel_count)
        z_scores[..., map_index] = centred_values / np.float32(brain_sd if brain_sd > MIN_SD else 1)
    return z_scores
