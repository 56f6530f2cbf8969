"""--blackout: occlude one atlas region at a time and see how the prediction of each test subject moves.

A region's voxels take the record's background value, the value of its voxels outside the brain (about -0.4 after
z-scoring, not 0). The effect is the prediction for the true class with everything shown minus that with the region
occluded: positive where the region speaks for the true class. Probabilities saturate, so the effect that is ranked and
tested is that on the logit, log(p / (1 - p)), which for two classes is the difference of the network's two outputs.

Two networks of equal accuracy may use different regions, so this tells what this network uses, not what autism is.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from data import files, grids, nifti, records
from data.atlas import Atlas
from data.cohort import Row
from data.errors import InputError
from data.folds import Folds
from data.progress import progress
from utils.batches import in_order, read_batches
from utils.blackout import effects, page
from utils.blackout.occlusion import Occlusion
from utils.inference import check_finite, probability_of_autism, restored_network
from utils.metrics import with_intervals
from utils.runs import Run, prepare_folder
from utils.text import in_spreadsheet, interval, number, printable, shortened

SUBJECTS = 16  # records occluded at a time: bounds the memory
BLOBS = 10  # random blobs of each region's size
SIGNAL = 0.5  # share of the records in which a voxel of the brain holds signal
NAME_WIDTH = 23  # letters of a region's name in the terminal
STORE = "blackout.h5"
EFFECTS = ("delta_logit", "delta_probability")
BLOB_EFFECT = "blob_delta_logit"
SIDE = 0.7  # share of a region's voxels on one side that make it left or right


@dataclass(frozen=True)
class Occluded:
    """Logits (records, 2) with nothing occluded, and (records, masks, 2) with each mask occluded."""

    shown: np.ndarray
    occluded: np.ndarray

    def effects(self, label: np.ndarray) -> dict[str, np.ndarray]:
        """`delta_logit` and `delta_probability` (records, masks) float64 of the true class: shown minus occluded."""
        sign = records.class_sign(label)[:, None]
        shown, occluded = self.shown.astype(float), self.occluded.astype(float)
        margin = (shown[:, 1] - shown[:, 0])[:, None] - (occluded[..., 1] - occluded[..., 0])
        probability = probability_of_autism(shown)[:, None] - probability_of_autism(occluded)
        return {"delta_logit": sign * margin, "delta_probability": sign * probability}


@dataclass(frozen=True)
class Measured:
    """What occlusion gave: effects (records, regions) by name, those of blobs (records, regions, BLOBS), NaN where a
    blob found no place, the probability (records,) of autism with nothing occluded, and the records."""

    effects: dict[str, np.ndarray]
    blobs: np.ndarray
    probability: np.ndarray
    rows: list[Row]


def blackout(run: Run) -> int:
    """Writes `regions.csv`, `blackout.h5`, NIfTI maps, `blackout.png` and `blackout.html`; returns the exit status."""
    atlas = printable_names(run.atlas)
    if atlas.vanished:
        print(f"{len(atlas.vanished)} regions have no voxel on the {atlas.grid} grid: {', '.join(atlas.vanished)}")
    indices = run.tested()
    occlusion = Occlusion(restored_network(run))
    prepare_folder(run)
    if occlusion.recomputed_layers:
        print(f"Computed in full: {', '.join(occlusion.recomputed_layers)} and what follows.")
    regions = [atlas.labels == region for region in atlas.regions]
    rows = [run.cohort.rows[index] for index in indices]
    label = np.array([row.label for row in rows])
    result, of_blobs = occlude_with_blobs(run, occlusion, indices, regions, label)
    conclude(run, atlas, Measured(result.effects(label), of_blobs, probability_of_autism(result.shown), rows))
    if run.verify:
        verify(run, indices, regions, result)
    run.finish(subjects=len({row.subject for row in rows}), recomputed_layers=occlusion.recomputed_layers)
    return 0


def pool(run: Run, folds: Folds) -> None:
    """Makes of all folds what a single blackout leaves: each subject is blacked out by a model that never saw it."""
    parts = [read_store(part) for part in run.parts]
    measured = Measured(
        {name: np.concatenate([part.effects[name] for part in parts]) for name in parts[0].effects},
        np.concatenate([part.blobs for part in parts]),
        np.concatenate([part.probability for part in parts]),
        [row for part in parts for row in part.rows],
    )
    conclude(run, printable_names(run.atlas), measured)
    run.finish(subjects=len({row.subject for row in measured.rows}))


def conclude(run: Run, atlas: Atlas, measured: Measured) -> None:
    """Writes everything that follows from the effects, and prints the strongest."""
    rows, probability = measured.rows, measured.probability
    table = region_table(run, atlas, measured)
    label = np.array([row.label for row in rows])
    auc = with_intervals(label, probability, [row.subject for row in rows], run.seed)["auc"]
    summary = effects.summary(table["p"].to_numpy(), auc)
    write_table(run, table)
    write_store(run, atlas, measured)
    write_maps(run, atlas, measured.effects["delta_logit"], rows)
    page.write(run, page.Findings(atlas, table, measured.effects["delta_logit"], probability, rows, summary))
    print_table(table)
    print(summary)


def printable_names(atlas: Atlas) -> Atlas:
    """The atlas with names that are safe to show; a name of which nothing is left becomes the region's number."""
    names = {region: printable(name) or f"region {region}" for region, name in atlas.names.items()}
    return replace(atlas, names=names, vanished=[printable(name) for name in atlas.vanished])


def brain(run: Run, indices: np.ndarray) -> np.ndarray:
    """Voxels (x, y, z) that hold signal in half of the records or more: where blobs may lie."""
    count = np.zeros(run.cohort.grid.shape)
    for index in indices:
        _, _, volume = run.cohort.read(index)
        count += volume != records.background(volume)
    return count >= SIGNAL * len(indices)


def occlude_with_blobs(
    run: Run, occlusion: Occlusion, indices: np.ndarray, regions: list[np.ndarray], label: np.ndarray
) -> tuple[Occluded, np.ndarray]:
    """Occludes regions, masks (x, y, z), and random blobs of their sizes in one go.

    The second is `delta_logit` of the blobs, (records, regions, BLOBS), NaN where a blob finds no place.
    """
    sizes = [int(region.sum()) for region in regions]
    blobs = effects.random_blobs(brain(run, indices), np.repeat(sizes, BLOBS), run.seed)
    placed = [blob is not None for blob in blobs]
    shown, occluded = occlude(run, occlusion, indices, regions + [blob for blob in blobs if blob is not None])
    of_blobs = np.full((len(indices), len(blobs)), np.nan)
    of_blobs[:, placed] = Occluded(shown, occluded[:, len(regions) :]).effects(label)["delta_logit"]
    return Occluded(shown, occluded[:, : len(regions)]), of_blobs.reshape(len(indices), len(regions), BLOBS)


def occlude(
    run: Run, occlusion: Occlusion, indices: np.ndarray, masks: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits shown and occluded, as in `Occluded`, of `masks` (x, y, z) bool, a few records at a time."""
    shown, occluded = [], []
    selections = in_order(indices, SUBJECTS)
    with progress("Blacking out", len(selections)) as bar:
        for batch in read_batches(run.cohort, run.model, selections):
            inputs = {name: batch[name] for name in run.model.reads}
            shown.append(occlusion.logits(inputs))
            occluded.append(np.moveaxis(occlusion.occluded_logits(inputs, backgrounds(batch), masks), 0, 1))
            check_finite(run, "outputs", (shown[-1], occluded[-1]))
            bar.advance()
    return np.concatenate(shown), np.concatenate(occluded)


def backgrounds(batch: dict[str, np.ndarray]) -> np.ndarray:
    """The background value of each volume of a batch, (n,) float32."""
    return np.array([records.background(volume[..., 0]) for volume in batch["volume"]], np.float32)


def region_table(run: Run, atlas: Atlas, measured: Measured) -> pd.DataFrame:
    """A row a region, the strongest mean effect first."""
    subject = [row.subject for row in measured.rows]
    label = effects.by_subject(np.array([row.label for row in measured.rows]), subject)
    logit = effects.by_subject(measured.effects["delta_logit"], subject)
    of_blobs = effects.by_subject(measured.blobs, subject).mean(0)
    table = pd.DataFrame({"region": atlas.regions, "name": [atlas.names[region] for region in atlas.regions]})
    table = table.join(pd.DataFrame([place(atlas, region) for region in atlas.regions]))
    for name, values in effects.mean_intervals(logit, label, run.seed).items():
        table[f"delta_logit{name}"] = values
    table["delta_probability"] = effects.by_subject(measured.effects["delta_probability"], subject).mean(0)
    table = table.assign(**effects.permutation_test(logit, label, run.seed))
    table["size_percentile"] = effects.size_percentile(logit.mean(0), of_blobs)
    table = table.sort_values("delta_logit", ascending=False, ignore_index=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table


def write_table(run: Run, table: pd.DataFrame) -> None:
    """`regions.csv`; what is undefined is empty."""
    with files.replacing(run.out_dir / "regions.csv", encoding="utf-8", newline="") as file:
        cells = table.assign(name=table["name"].map(in_spreadsheet))
        cells.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")


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


def write_store(run: Run, atlas: Atlas, measured: Measured) -> None:
    """`blackout.h5`: effects (records, regions), and what their rows and columns are."""
    with files.new_hdf5(run.out_dir / STORE) as store:
        for name, values in (measured.effects | {BLOB_EFFECT: measured.blobs}).items():
            store[name] = values.astype(np.float32)
        store["probability"] = measured.probability.astype(np.float32)
        store["subject"] = [row.subject for row in measured.rows]
        store["label"] = np.array([row.label for row in measured.rows], np.float32)
        store["region"] = np.array(atlas.regions, np.int32)
        store["atlas"] = atlas.labels


def read_store(run: Run) -> Measured:
    """What a run on a fold wrote. Raises InputError for what is no such thing."""
    path = run.out_dir / STORE
    rows = [run.cohort.rows[index] for index in run.tested()]
    try:
        with h5py.File(path) as store:
            if [name.decode() for name in store["subject"]] != [row.subject for row in rows]:
                raise InputError(f"{path} is of other subjects; remove {path.parent} and repeat the command.")
            values = {name: store[name][:].astype(float) for name in (*EFFECTS, BLOB_EFFECT, "probability")}
    except (OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove {path.parent} and repeat the command.") from error
    return Measured({name: values[name] for name in EFFECTS}, values[BLOB_EFFECT], values["probability"], rows)


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
    nifti.save(nifti.mni_image(atlas.paint(values), grids.FULL), path)


def print_table(table: pd.DataFrame) -> None:
    """The ten strongest regions, and which have no percentile."""
    print(f"{'':4}{'region':24}{'effect on the logit':>34}{'p (family-wise)':>18}{'size percentile':>18}")
    for row in table.head(10).itertuples():
        effect = f"{row.delta_logit:.4f} ({interval(row.delta_logit_low, row.delta_logit_high)})"
        percentile = number(row.size_percentile, ".0f")
        name = shortened(row.name, NAME_WIDTH)
        print(f"{row.rank:<4}{name:24}{effect:>34}{number(row.p, '.4f'):>18}{percentile:>18}")
    unplaced = table[table["size_percentile"].isna()]
    if len(unplaced):
        named = ", ".join(f"{shortened(row.name, NAME_WIDTH)} ({row.voxels} voxels)" for row in unplaced.itertuples())
        print(f"No size percentile, since no connected part of the brain holds a blob of the size of: {named}.")


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
