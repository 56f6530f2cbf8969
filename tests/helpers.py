"""Helpers of several test files that use the program's own modules: options that make networks tiny, predictions made
from arrays, checkpoints compared, cohorts given connectomes or new sums.

A helper that needs nothing of the program belongs in lab.py, an expected value in oracles.py or by_hand.py, and a
helper of one test file in that file.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from data.cohorts import connectomes
from data.cohorts.cohort import Cohort
from data.cohorts.records import compute_record_digests
from data.cohorts.stored import open_cohort, write_cohort_tables
from utils.runs.checkpoints import CheckpointFolder
from utils.scores.metrics import Predictions

TINY_CNN = (
    *("--preset", "residual"),
    *("--set", "filters=2,3", "--set", "kernels=3,3", "--set", "strides=3,2", "--set", "pools=0,0"),
)


TINY_NN = ("--set", "members=1")  # what takes time is building networks


SMALL_BATCH = ("--set", "batch_size=8")


DENSE_SETTINGS = [
    "phenotype_units=32,16",
    "phenotype_activation=relu",
    "phenotype_l2=0.001",
    "batch_norm=true",
    "members=1",
]


SMALL_OPTIONS_BY_MODEL = {
    "cnn": TINY_CNN + SMALL_BATCH,
    "mmnn": TINY_CNN + SMALL_BATCH,
    "nn": TINY_NN + SMALL_BATCH,
    "ae": SMALL_BATCH,
}


def make_prediction_table(label: ArrayLike, probability: ArrayLike, **columns: object) -> pd.DataFrame:
    """Rows of `predictions.csv`, each of a participant of their own, with these columns beside."""
    return pd.DataFrame({"subject": np.arange(np.size(label)), "label": label, "probability": probability} | columns)


def make_predictions(label: ArrayLike, probability: ArrayLike, **columns: object) -> Predictions:
    return Predictions.from_tables(make_prediction_table(label, probability, **columns))


def training_arguments(folder: Path, cohort: Path, model: str, iterations: int, *more: object) -> list[str]:
    """The arguments of run.py that train a tiny network, or one of the preset in `more`, with all in `folder`."""
    small_options = SMALL_BATCH if "--preset" in more else SMALL_OPTIONS_BY_MODEL[model]
    places = ("--chkPointDir", folder / "ckpt", "--outDir", folder / "out", "--dataDir", cohort)
    return [
        str(word) for word in ("--train", "--model", model, "--numIters", iterations, *places, *small_options, *more)
    ]


def read_rows(path: Path) -> list[dict]:
    """A CSV file as a list of dictionaries."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_variables(folder: Path) -> dict[str, np.ndarray]:
    """Everything in the latest checkpoint, weights, optimizer and step, but for the number of saves."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(CheckpointFolder(folder).require_intact_prefix()))
    names = [name for name in reader.get_variable_to_shape_map() if "save_counter" not in name]
    return {name: reader.get_tensor(name) for name in names if "OBJECT_GRAPH" not in name}


def assert_bit_equal(first_folder: Path, second_folder: Path) -> None:
    """Fails unless the latest checkpoints of two folders hold the same."""
    first_variables, second_variables = read_variables(first_folder), read_variables(second_folder)
    assert first_variables.keys() == second_variables.keys()
    assert len(first_variables) > 10
    for variable_name in first_variables:
        np.testing.assert_array_equal(
            first_variables[variable_name], second_variables[variable_name], err_msg=variable_name
        )


def compute_region_means(regions, volumes) -> np.ndarray:
    """Volumes (n, x, y, z, maps) -> the mean of each map in each region of an atlas, (n, regions, maps) float64."""
    means_by_region = [
        volumes[:, regions.region_labels == region].mean(1, dtype=float) for region in regions.region_numbers
    ]
    return np.stack(means_by_region, axis=1)


def add_connectomes(folder: Path, parcels: int = 8, image: np.ndarray | None = None, difference: float = 0.5) -> Cohort:
    """Gives the cohort in a folder connectomes of random edges, one in ten of which are unknown; the first three edges
    of people with autism are larger by `difference`."""
    cohort, parcel_names = open_cohort(folder), tuple(f"#{number}" for number in range(1, parcels + 1))
    label_by_subject = {row.subject: row.label for row in cohort.rows}
    edges = np.random.default_rng(5).normal(0, 0.3, (len(label_by_subject), connectomes.count_edges(parcels)))
    edges[:, :3] += difference * np.array([*label_by_subject.values()])[:, None]
    edges[:, 3:][np.random.default_rng(6).random(edges[:, 3:].shape) < 0.1] = np.nan
    connectomes.write_connectomes(
        folder / connectomes.CONNECTOMES_FILE, [*label_by_subject], parcel_names, image, edges.astype(np.float32)
    )
    parcels_sha256 = connectomes.compute_parcels_sha256(parcel_names, image, "rois_test")
    metadata = replace(cohort.metadata, connectome="rois_test", parcels_sha256=parcels_sha256)
    write_cohort_tables(folder, cohort.rows, metadata)
    return open_cohort(folder)


def reseal(folder: Path) -> Path:
    """The folder with sums over what a test has changed in it, as if it had been written so."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    cohort, digests_by_file = open_cohort(folder, unverified_files=["SHA256SUMS"]), {}
    for row, entry, stored_digests in zip(cohort.rows, cohort.entries, cohort.digests, strict=False):
        digests_by_file[row.file] = replace(
            compute_record_digests(entry.read()), source=stored_digests.source, source_maps=stored_digests.source_maps
        )
    write_cohort_tables(folder, cohort.rows, cohort.metadata, digests_by_file)
    return folder
