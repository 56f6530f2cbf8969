"""--blackout: occlude one atlas region at a time and see how the prediction of each test subject moves.

A region's voxels take the record's background value, the value of its voxels outside the brain (about -0.4 after
z-scoring, not 0). The effect is the prediction for the true class with everything shown minus that with the region
occluded: positive where the region speaks for the true class.
"""

import csv

import h5py
import numpy as np
import tensorflow as tf

from data import atlas, files, records
from data.progress import progress
from utils.batches import in_order, read_batches
from utils.inference import probability_of_autism, restored_network
from utils.runs import Run, prepare_folder


def blackout(run: Run) -> int:
    """Writes `regions.csv` and `blackout.h5`; returns the exit status."""
    prepare_folder(run.out_dir)
    regions = atlas.aal(run.cohort.grid)
    indices = run.cohort.indices("test")
    shown, occluded = occlude_all(run, regions, indices)
    rows = [run.cohort.records[index] for index in indices]
    label = np.array([row.label for row in rows])
    effects = true_class_effects(shown, occluded, label)
    with files.replacing(run.out_dir / "blackout.h5", "w+b") as file, h5py.File(file, "w") as store:
        for name, values in effects.items():
            store[name] = values.astype(np.float32)
        store["probability"] = probability_of_autism(shown).astype(np.float32)
        store["subject"] = [row.subject for row in rows]
        store["label"] = label.astype(np.float32)
        store["region"] = regions.regions
        store["atlas"] = regions.labels
    write_table(run, regions, {name: values.mean(0) for name, values in effects.items()})
    run.finish(subjects=len(rows))
    return 0


def occlude_all(run: Run, regions: atlas.Atlas, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits with nothing occluded, (subjects, 2), and with each region occluded, (subjects, regions, 2)."""
    network = restored_network(run)
    forward = tf.function(lambda inputs: network(inputs, training=False), reduce_retracing=True)
    shown, occluded = [], []
    selections = in_order(indices, run.config.batch_size)
    with progress("Blacking out", len(selections) * len(regions.regions)) as bar:
        for batch in read_batches(run.cohort, run.model, selections):
            inputs = {name: batch[name] for name in run.model.reads}
            shown.append(forward(inputs).numpy())
            background = np.array([records.background(volume[..., 0]) for volume in batch["volume"]], np.float32)
            by_region = []
            for region in regions.regions:
                inside = regions.labels[None, ..., None] == region
                volume = np.where(inside, background[:, None, None, None, None], batch["volume"])
                by_region.append(forward(inputs | {"volume": volume}).numpy())
                bar.advance()
            occluded.append(np.stack(by_region, axis=1))
    return np.concatenate(shown), np.concatenate(occluded)


def true_class_effects(shown: np.ndarray, occluded: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """`delta_logit` and `delta_probability`, (subjects, regions) float64, of the true class: shown minus occluded.

    The logit is that of the true class's probability, log(p / (1 - p)), the difference of the two class logits.
    """
    sign = np.where(label == 1, 1.0, -1.0)[:, None]
    margin = shown[:, None, 1].astype(float) - shown[:, None, 0] - (occluded[..., 1].astype(float) - occluded[..., 0])
    probability = probability_of_autism(shown)[:, None] - probability_of_autism(occluded)
    return {"delta_logit": sign * margin, "delta_probability": sign * probability}


def write_table(run: Run, regions: atlas.Atlas, mean: dict[str, np.ndarray]) -> None:
    """`regions.csv`, the strongest effect first."""
    order = np.argsort(-mean["delta_logit"])
    with files.replacing(run.out_dir / "regions.csv", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["region", "name", "voxels", "delta_logit", "delta_probability", "rank"])
        for rank, position in enumerate(order, 1):
            region = regions.regions[position]
            voxels = int((regions.labels == region).sum())
            effects = [f"{values[position]:.6g}" for values in mean.values()]
            writer.writerow([region, regions.names[region], voxels, *effects, rank])
            if rank <= 10:
                print(f"{rank:3} {regions.names[region]:24} {effects[0]:>12}")
