"""--blackout: occlude one atlas region at a time and see how the prediction of each test subject moves.

A region's voxels take the record's background value, the value of its voxels outside the brain (about -0.4 after
z-scoring, not 0). The effect is the prediction for the true class with everything shown minus that with the region
occluded: positive where the region speaks for the true class. Probabilities saturate, so the effect that is ranked and
tested is that on the logit, log(p / (1 - p)), which for two classes is the difference of the network's two outputs.

Two networks of equal accuracy may use different regions, so this tells what this network uses, not what autism is.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data import files, grids, nifti, records
from data.atlas import Atlas
from data.cohort import Row
from data.progress import progress
from utils.batches import in_order, read_batches
from utils.blackout import effects
from utils.blackout.occlusion import Occlusion
from utils.inference import probability_of_autism, restored_network
from utils.runs import Run, prepare_folder

SUBJECTS = 16  # records occluded at a time: bounds the memory
BLOBS = 10  # random blobs of each region's size
SIGNAL = 0.5  # share of the records in which a voxel of the brain holds signal
SIDE = 0.7  # share of a region's voxels on one side that make it left or right


@dataclass(frozen=True)
class Occluded:
    """Logits (records, 2) with nothing occluded, and (records, masks, 2) with each mask occluded."""

    shown: np.ndarray
    occluded: np.ndarray

    def effects(self, label: np.ndarray) -> dict[str, np.ndarray]:
        """`delta_logit` and `delta_probability` (records, masks) float64 of the true class: shown minus occluded."""
        sign = np.where(label == 1, 1.0, -1.0)[:, None]
        shown, occluded = self.shown.astype(float), self.occluded.astype(float)
        margin = (shown[:, 1] - shown[:, 0])[:, None] - (occluded[..., 1] - occluded[..., 0])
        probability = probability_of_autism(shown)[:, None] - probability_of_autism(occluded)
        return {"delta_logit": sign * margin, "delta_probability": sign * probability}


def blackout(run: Run) -> int:
    """Writes `regions.csv`, `blackout.h5`, NIfTI maps, `blackout.png` and `blackout.html`; returns the exit status."""
    from utils.blackout import page

    atlas = run.atlas
    if atlas.vanished:
        print(f"{len(atlas.vanished)} regions have no voxel on the {atlas.grid} grid: {', '.join(atlas.vanished)}")
    indices = run.tested()
    rows = [run.cohort.rows[index] for index in indices]
    prepare_folder(run)
    occlusion = Occlusion(restored_network(run))
    if occlusion.recomputed_layers:
        print(f"Computed in full: {', '.join(occlusion.recomputed_layers)} and what follows.")
    regions = [atlas.labels == region for region in atlas.regions]
    sizes = [int(region.sum()) for region in regions]
    blobs = effects.random_blobs(brain(run, indices), np.repeat(sizes, BLOBS), run.seed)
    result = occlude(run, occlusion, indices, regions + blobs)
    label = np.array([row.label for row in rows])
    of_masks = result.effects(label)
    of_regions = {name: values[:, : len(regions)] for name, values in of_masks.items()}
    of_blobs = of_masks["delta_logit"][:, len(regions) :]
    table = region_table(run, atlas, of_regions, of_blobs.reshape(len(rows), len(regions), BLOBS), rows)
    write_store(run, atlas, of_regions, probability_of_autism(result.shown), rows)
    write_maps(run, atlas, of_regions["delta_logit"], rows)
    page.write(run, atlas, table, of_regions["delta_logit"], probability_of_autism(result.shown), rows)
    print_table(table)
    if run.verify:
        verify(run, indices, regions, result)
    run.finish(subjects=len({row.subject for row in rows}), recomputed_layers=occlusion.recomputed_layers)
    return 0


def brain(run: Run, indices: np.ndarray) -> np.ndarray:
    """Voxels (x, y, z) that hold signal in half of the records or more: where blobs may lie."""
    count = np.zeros(run.cohort.grid.shape)
    for index in indices:
        _, _, volume = run.cohort.read(index)
        count += volume != records.background(volume)
    return count >= SIGNAL * len(indices)


def occlude(run: Run, occlusion: Occlusion, indices: np.ndarray, masks: list[np.ndarray]) -> Occluded:
    """Occludes each of `masks` (x, y, z) bool in each record, a few records at a time."""
    shown, occluded = [], []
    selections = in_order(indices, SUBJECTS)
    with progress("Blacking out", len(selections)) as bar:
        for batch in read_batches(run.cohort, run.model, selections):
            inputs = {name: batch[name] for name in run.model.reads}
            shown.append(occlusion.logits(inputs))
            occluded.append(np.moveaxis(occlusion.occluded_logits(inputs, backgrounds(batch), masks), 0, 1))
            bar.advance()
    return Occluded(np.concatenate(shown), np.concatenate(occluded))


def backgrounds(batch: dict[str, np.ndarray]) -> np.ndarray:
    """The background value of each volume of a batch, (n,) float32."""
    return np.array([records.background(volume[..., 0]) for volume in batch["volume"]], np.float32)


def region_table(
    run: Run, atlas: Atlas, effect: dict[str, np.ndarray], blobs: np.ndarray, rows: list[Row]
) -> pd.DataFrame:
    """A row a region, the strongest mean effect first; `blobs` are the effects (records, regions, blobs)."""
    subject = [row.subject for row in rows]
    label = effects.by_subject(np.array([row.label for row in rows]), subject)
    logit = effects.by_subject(effect["delta_logit"], subject)
    of_blobs = effects.by_subject(blobs, subject).mean(0)
    table = pd.DataFrame({"region": atlas.regions, "name": [atlas.names[region] for region in atlas.regions]})
    table = table.join(pd.DataFrame([place(atlas, region) for region in atlas.regions]))
    for name, values in effects.mean_intervals(logit, label, run.seed).items():
        table[f"delta_logit{name}"] = values
    table["delta_probability"] = effects.by_subject(effect["delta_probability"], subject).mean(0)
    table = table.assign(**effects.permutation_test(logit, label, run.seed))
    table["size_percentile"] = 100 * (of_blobs < logit.mean(0)[:, None]).mean(1)
    table = table.sort_values("delta_logit", ascending=False, ignore_index=True)
    table["rank"] = np.arange(1, len(table) + 1)
    with files.replacing(run.out_dir / "regions.csv", newline="") as file:
        table.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")
    return table


def place(atlas: Atlas, region: int) -> dict:
    """Where a region lies: hemisphere, voxels on the volume's grid, and its centre in mm of MNI space."""
    voxels = np.argwhere(atlas.full == region)
    affine = np.array(grids.FULL.affine)
    mm = voxels @ affine[:3, :3].T + affine[:3, 3]
    left, right = (mm[:, 0] < 0).mean(), (mm[:, 0] > 0).mean()
    x, y, z = mm.mean(0).round(1)
    return {
        "hemisphere": "left" if left > SIDE else "right" if right > SIDE else "both",
        "voxels": int((atlas.labels == region).sum()),
        "x_mm": x,
        "y_mm": y,
        "z_mm": z,
    }


def write_store(
    run: Run, atlas: Atlas, effect: dict[str, np.ndarray], probability: np.ndarray, rows: list[Row]
) -> None:
    """`blackout.h5`: effects (records, regions), and what their rows and columns are."""
    with files.new_hdf5(run.out_dir / "blackout.h5") as store:
        for name, values in effect.items():
            store[name] = values.astype(np.float32)
        store["probability"] = probability.astype(np.float32)
        store["subject"] = [row.subject for row in rows]
        store["label"] = np.array([row.label for row in rows], np.float32)
        store["region"] = np.array(atlas.regions, np.int32)
        store["atlas"] = atlas.labels


def region_map(atlas: Atlas, values: np.ndarray) -> np.ndarray:
    """Region values (regions,) painted on the full grid, (91, 109, 91) float32, 0 outside."""
    painted = np.zeros(max(int(atlas.full.max()), *atlas.regions) + 1, np.float32)
    painted[atlas.regions] = values
    return painted[atlas.full]


def write_maps(run: Run, atlas: Atlas, effect: np.ndarray, rows: list[Row]) -> None:
    """NIfTI maps of `delta_logit` at 2 mm: `maps/<record>.nii.gz` and `group_{all,autism,control}.nii.gz`."""
    (run.out_dir / "maps").mkdir()
    for row, values in zip(rows, effect, strict=True):
        write_map(run.out_dir / "maps" / f"{Path(row.file).stem}.nii.gz", atlas, values)
    label = np.array([row.label for row in rows])
    groups = {"all": np.ones(len(rows), bool), "autism": label == 1, "control": label == 0}
    for name, member in groups.items():
        if member.any():
            write_map(run.out_dir / f"group_{name}.nii.gz", atlas, effect[member].mean(0))


def write_map(path: Path, atlas: Atlas, values: np.ndarray) -> None:
    nifti.save(nifti.mni_image(region_map(atlas, values), grids.FULL), path)


def print_table(table: pd.DataFrame) -> None:
    """The ten strongest regions, and whether any effect is significant."""
    print(f"{'':4}{'region':24}{'effect on the logit':>28}{'p (family-wise)':>18}{'size percentile':>18}")
    for row in table.head(10).itertuples():
        interval = f"{row.delta_logit:.4f} ({row.delta_logit_low:.4f} to {row.delta_logit_high:.4f})"
        print(f"{row.rank:<4}{row.name:24}{interval:>28}{row.p:18.4f}{row.size_percentile:18.0f}")
    if table["p"].isna().all():
        print("No p-values: the subjects are of one class.")
        return
    count = int((table["p"] < 0.05).sum())
    print(f"{count or 'No'} region{'s' * (count != 1)} of {len(table)} at family-wise p < 0.05.")


def verify(run: Run, indices: np.ndarray, regions: list[np.ndarray], result: Occluded) -> None:
    """Recomputes random pairs of record and region in full, and prints the largest difference of a logit."""
    network = restored_network(run)
    random = np.random.default_rng(run.seed)
    spread = result.shown.max() - result.shown.min()
    largest = 0.0
    for _ in range(run.verify):
        at, region = int(random.integers(len(indices))), int(random.integers(len(regions)))
        batch = run.cohort.batch([indices[at]])
        inputs = {name: batch[name] for name in run.model.reads}
        volume = np.where(regions[region][None, ..., None], backgrounds(batch)[0], batch["volume"])
        logits = np.asarray(network(inputs | {"volume": volume}, training=False))
        largest = max(largest, float(np.abs(logits[0] - result.occluded[at, region]).max()))
    print(f"{run.verify} pairs recomputed in full: logits differ by at most {largest / spread:.2g} of their spread.")
