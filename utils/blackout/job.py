"""--blackout: occlude one atlas region at a time and see how the prediction of each test subject moves.

A region's voxels are replaced in three ways (`fills.py`), each answering another question. The effect is the logit of
the true class with everything shown minus that with the region replaced: positive where the region speaks for the true
class.

`background`   the mission's blackout: how far does the network move when the region is missing?
`reliance`     another person's region: does this network's evidence rest on this person's region?
`unique`       the same at the level that the rest of the brain predicts: does it say what the rest does not?
`sufficiency`  the reverse: how much of the evidence does this region carry alone, all else being another person's?

Two networks of equal accuracy may use different regions, so this tells what this network uses, not what autism is.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from data import grids
from data.base import files
from data.base.errors import InputError
from data.base.text import in_spreadsheet, interval, number, printable, shortened
from data.cohorts import nifti
from data.cohorts.atlas import Atlas
from data.cohorts.folds import Folds
from data.cohorts.records import CLASSES
from utils.blackout import effects, page
from utils.blackout.fills import Fills
from utils.blackout.measure import ARRAYS, Measured, measure, verify
from utils.blackout.occlusion import Occlusion
from utils.inference import restored_network
from utils.metrics import Predictions, with_intervals
from utils.runs.run import Run, prepare_folder

NAME_WIDTH = 23  # letters of a region's name in the terminal
STORE = "blackout.h5"
WITH_P = ("reliance", "unique")  # the effects that have p-values
SIDE = 0.7  # share of a region's voxels on one side that make it left or right


def blackout(run: Run) -> int:
    """Writes `regions.csv`, `blackout.h5`, NIfTI maps, `blackout.png` and `blackout.html`; returns the exit status."""
    atlas = printable_names(run.atlas)
    if atlas.vanished:
        print(f"{len(atlas.vanished)} regions have no voxel on the {atlas.grid} grid: {', '.join(atlas.vanished)}")
    occlusion = Occlusion(restored_network(run))
    prepare_folder(run)
    if occlusion.recomputed_layers:
        print(f"Computed in full: {', '.join(occlusion.recomputed_layers)} and what follows.")
    fills, regions = prepared(run)
    print(donors_line(fills))
    measured, logits = measure(run, occlusion, fills, regions)
    told = conclude(run, atlas, measured)
    if run.verify:
        verify(run, fills, regions, logits)
    run.finish(
        **told,
        donors_a_record=fills.count,
        donors_from=donors_line(fills),
        recomputed_layers=occlusion.recomputed_layers,
    )
    return 0


def assist(run: Run) -> int:
    """Blacks out a worker's share of the subjects; the chief makes something of all."""
    measure(run, Occlusion(restored_network(run)), *prepared(run))
    return 0


def prepared(run: Run) -> tuple[Fills, list[np.ndarray]]:
    """What may take a region's place, and the regions, masks (x, y, z)."""
    regions = [run.atlas.labels == region for region in run.atlas.regions]
    return Fills(run.cohort, run.atlas, run.tested(), run.donors, run.seed, run.replaced_maps), regions


def donors_line(fills: Fills) -> str:
    """Who the donors are."""
    kinds = {"train": "training", "test": "tested"}
    subjects = sum(fills.origins.values())
    texts = []
    origins: Counter = Counter()
    for (split, site), count in fills.origins.items():
        origins[f"{kinds[split]} subjects of {'any' if site is None else 'the same'} site"] += count
    for who, count in origins.items():
        texts.append(f"for {count} of {subjects} subjects {who}" if len(origins) > 1 else who)
    return f"Donors: {fills.count} a record, {'; '.join(texts)}."


def replaced_line(run: Run) -> str:
    """Which maps were replaced, if not all."""
    names = np.array(run.cohort.maps)
    replaced, kept = (", ".join(map(printable, names[chosen])) for chosen in (run.replaced_maps, ~run.replaced_maps))
    return f"Only {replaced} of each region was replaced; {kept} stayed." if kept else ""


def pool(run: Run, folds: Folds) -> None:
    """Makes of all folds what a single blackout leaves: each subject is blacked out by a model that never saw it."""
    parts = [read_store(part) for part in run.parts]
    groups = np.cumsum([0, *(part.group.max() + 1 for part in parts)])
    blobs = max(part.blob_excess.shape[2] for part in parts)
    arrays = {name: [getattr(part, name) for part in parts] for name in ARRAYS}
    arrays["group"] = [part.group + first for part, first in zip(parts, groups, strict=False)]
    arrays["blob_excess"] = [
        np.pad(part.blob_excess, ((0, 0), (0, 0), (0, blobs - part.blob_excess.shape[2])), constant_values=np.nan)
        for part in parts
    ]
    measured = Measured(
        **{name: np.concatenate(found) for name, found in arrays.items()},
        rows=[row for part in parts for row in part.rows],
    )
    fold = [run_.fold for run_, part in zip(run.parts, parts, strict=True) for _ in part.rows]
    run.finish(**conclude(run, printable_names(run.atlas), measured, fold))


def conclude(run: Run, atlas: Atlas, measured: Measured, fold: Sequence | None = None) -> dict:
    """Writes everything that follows from the effects, prints the strongest, and returns what `run.json` says of it.

    `fold` (records,) names the model that blacked out each record, if there are several.
    """
    table = region_table(run, atlas, measured)
    folds = None if fold is None else np.array(fold)
    predictions = Predictions(measured.label, measured.probability, np.array(measured.subject), folds)
    score = with_intervals(predictions, run.seed)
    within = fold is not None and score["auc_folds"]["low"] is not None
    auc, name = (score["auc_folds"], "AUC within folds") if within else (score["auc"], "AUC")
    beats = effects.beats_chance(auc)
    reliance, unique = ([*zip(table["name"], table[f"p_{test}"], strict=True)] for test in WITH_P)
    label = effects.by_subject(measured.label, measured.subject)
    lines = (replaced_line(run), effects.prediction_summary(auc, name), effects.evidence(reliance, unique, label))
    summary = "\n".join(filter(None, lines))
    write_table(run, table)
    write_store(run, atlas, measured)
    write_maps(run, atlas, measured)
    page.write(run, page.Findings(atlas, table, measured, summary, at_chance=beats is False))
    print_table(table)
    print(blobs_line(measured))
    print(summary)
    return {"subjects": len(label), "better_than_chance": beats}


def blobs_line(measured: Measured) -> str:
    """How many blobs, on how many records each."""
    groups, records = np.unique(measured.group, return_counts=True)
    placed = ~np.isnan(measured.blob_excess).all(1)  # (records, blobs)
    blobs = sum(int(placed[measured.group == group].any(0).sum()) for group in groups)
    on = f"{records.min()}" if records.min() == records.max() else f"{records.min()} to {records.max()}"
    return f"Size percentile: among {blobs} blobs a region, each on {on} records."


def printable_names(atlas: Atlas) -> Atlas:
    """The atlas with names that are safe to show; a name of which nothing is left becomes the region's number."""
    names = {region: printable(name) or f"region {region}" for region, name in atlas.names.items()}
    return replace(atlas, names=names, vanished=[printable(name) for name in atlas.vanished])


def region_table(run: Run, atlas: Atlas, measured: Measured) -> pd.DataFrame:
    """A row a region, the columns of `regions.csv`, the strongest mean effect of the background first."""
    table = pd.DataFrame({"region": atlas.regions, "name": [atlas.names[region] for region in atlas.regions]})
    table = table.join(pd.DataFrame([place(atlas, region) for region in atlas.regions]))
    kinds = {
        "reliance": measured.reliance,
        "unique": measured.unique,
        "background": measured.delta_logit,
        "sufficiency": measured.sufficiency,
    }
    label = effects.by_subject(measured.label, measured.subject)
    for name, values in kinds.items():
        effect = effects.by_subject(values, measured.subject)
        table[name], table[f"{name}_low"], table[f"{name}_high"] = effects.mean_interval(effect, run.seed)
        if name in WITH_P:
            table[f"p_{name}"], table[f"q_{name}"] = effects.sign_flip_test(effect, label, run.seed)
        if name == "background":
            for group in reversed(CLASSES):
                table[f"{name}_{group}"] = effects.mean_of(effect[label == CLASSES.index(group)])
    table["size_percentile"] = effects.size_percentile(measured.blob_excess, measured.group, measured.subject)
    table = table.sort_values("background", ascending=False, ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
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
    """`blackout.h5`: what was measured, a row a record, and what its rows and columns are."""
    with files.new_hdf5(run.out_dir / STORE) as store:
        for name in ARRAYS:
            values = getattr(measured, name)
            store[name] = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
        store["subject"] = measured.subject
        store["label"] = measured.label.astype(np.float32)
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
            if not np.array_equal(store["atlas"][:], run.atlas.labels):
                raise InputError(f"{path} is of another atlas; remove {path.parent} and repeat the command.")
            values = {name: store[name][:] for name in ARRAYS}
    except (OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove {path.parent} and repeat the command.") from error
    floats = {name: array.astype(float) if array.dtype.kind == "f" else array for name, array in values.items()}
    return Measured(**floats, rows=rows)


def write_maps(run: Run, atlas: Atlas, measured: Measured) -> None:
    """NIfTI maps at 2 mm: of `background`, `maps/<record>.nii.gz` and `group_{all,autism,control}.nii.gz`; of the other
    effects `group_{reliance,unique,sufficiency}.nii.gz`."""
    (run.out_dir / "maps").mkdir()
    for row, values in zip(measured.rows, measured.delta_logit, strict=True):
        write_map(run.out_dir / "maps" / f"{Path(row.file).stem}.nii.gz", atlas, values)
    label, background = (
        effects.by_subject(values, measured.subject) for values in (measured.label, measured.delta_logit)
    )
    groups = {"all": label >= 0} | {name: label == value for value, name in enumerate(CLASSES)}
    for name, member in groups.items():
        if member.any():
            write_map(run.out_dir / f"group_{name}.nii.gz", atlas, background[member].mean(0))
    for name in ("reliance", "unique", "sufficiency"):
        mean = effects.by_subject(getattr(measured, name), measured.subject).mean(0)
        write_map(run.out_dir / f"group_{name}.nii.gz", atlas, mean)


def write_map(path: Path, atlas: Atlas, values: np.ndarray) -> None:
    nifti.save(nifti.mni_image(atlas.paint(values), grids.FULL), path)


def print_table(table: pd.DataFrame) -> None:
    """The ten regions of most reliance, and which have no percentile."""
    headings = ("region", "reliance", "p", "unique", "p", "background", "size percentile")
    print("{:24}{:>28}{:>9}{:>9}{:>9}{:>12}{:>17}".format(*headings))
    for row in table.nlargest(10, "reliance").to_dict("records"):
        reliance = f"{row['reliance']:.4f} ({interval(row['reliance_low'], row['reliance_high'])})"
        cells = (
            shortened(row["name"], NAME_WIDTH), reliance, number(row["p_reliance"], ".4f"), f"{row['unique']:.4f}",
            number(row["p_unique"], ".4f"), f"{row['background']:.4f}", number(row["size_percentile"], ".0f"),
        )  # fmt: skip
        print("{:24}{:>28}{:>9}{:>9}{:>9}{:>12}{:>17}".format(*cells))
    unplaced = table[table["size_percentile"].isna()]
    if len(unplaced):
        named = ", ".join(f"{shortened(row.name, NAME_WIDTH)} ({row.voxels} voxels)" for row in unplaced.itertuples())
        print(f"No size percentile, since no connected part of the brain holds a blob of the size of: {named}.")
