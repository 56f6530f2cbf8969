"""--blackout: replaces one atlas region at a time and measures how the prediction of each test subject changes.

A region is replaced by one of several fills (`FILLS` in `fills.py`); the effect of each answers another question. It is
the fall of the logit of the true class: positive where the region speaks for the true class.

Two networks of equal accuracy may use different regions, so this shows what this network uses, not what autism is.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data.base import files, tables
from data.base.errors import InputError
from data.base.tables import printable
from data.base.terminal import print_unless_quiet
from data.cohorts import nifti, records
from data.cohorts.atlas import Atlas
from data.cohorts.records import CLASSES
from data.cohorts.rows import listed
from utils import figures
from utils.blackout import figure, options, page, results
from utils.blackout.bundled import not_compared
from utils.blackout.effects import (
    ARRAYS,
    Adjusted,
    Effects,
    averaged,
    joined,
    map_table,
    region_table,
)
from utils.blackout.fills import BACKGROUND, FILLS, Fills
from utils.blackout.measure import measure, verify
from utils.blackout.occlusion import Occlusion
from utils.bundle.run import networks_of
from utils.runs.group import Group
from utils.runs.run import Run
from utils.scores.adjustment import adjustment
from utils.scores.metrics import HEADLINES, Predictions, headline, with_intervals
from utils.scores.results import Headline

STORE = "blackout.h5"


def blackout(run: Run) -> int:
    """Writes `regions.csv`, `blackout.h5`, NIfTI maps, `blackout.png` and `blackout.html`, and of several maps
    `regions_by_map.csv` and `regions_by_map.png`; returns the exit status."""
    atlas = options.of(run).regions(run.cohort.grid)
    if atlas.vanished:
        print(f"{len(atlas.vanished)} regions have no voxel on the {atlas.grid} grid: {listed(atlas.vanished)}")
    networks = networks_of(run)
    run.prepare_folder()
    effects, told = measured(networks)
    run.finish(**conclude(run, effects), **told)
    return 0


def assist(run: Run) -> int:
    """Blacks out a worker's share of the subjects; the chief writes the results of all."""
    measured(networks_of(run))
    return 0


def measured(networks: Sequence[tuple[Run, Any]]) -> tuple[Effects, dict[str, Any]]:
    """The mean effects by all networks, each of which reads the cohort of its own run, and what `run.json` says of how
    they were measured. This is the same for all: they take the same donors."""
    parts: list[Effects] = []
    for run, network in networks:
        occlusion, fills = Occlusion(network), fills_of(run)
        recomputed, donors = occlusion.recomputed_layers, page.donors_sentence(fills)
        if run.workers.is_chief and not parts:
            if recomputed:
                print(f"Computed in full for each region: {listed(recomputed)} and the layers after them.")
            print(donors)
        effects, logits = measure(run, occlusion, fills)
        if run.workers.is_chief and options.of(run).verify:
            verify(run, network, fills, logits)
        parts.append(effects)
    told = {"donors_a_record": fills.count, "donors_from": donors, "recomputed_layers": recomputed}
    return averaged(parts), told


def fills_of(run: Run) -> Fills:
    """What the run replaces, and by what."""
    chosen = options.of(run)
    cohort, atlas = options.cohort_of(run), chosen.regions(run.cohort.grid)
    return Fills(cohort, atlas, chosen.tested(run.cohort), chosen, run.seed)


def pool(group: Group) -> None:
    """The same results from the effects of all folds: each subject is blacked out by a model that never saw it."""
    run, parts = group.whole, [read_store(leaf) for leaf in group.leaves]
    fold = [leaf.fold for leaf, part in zip(group.leaves, parts, strict=True) for _ in part.rows]
    run.finish(**conclude(run, joined(parts), fold))


def average(group: Group) -> None:
    """The same results from the means of each record's effects over all repeats."""
    run, first = group.whole, group.folds.fold_of
    effects = averaged([joined([read_store(leaf) for leaf in repeat.leaves]) for repeat in group.groups])
    run.finish(**conclude(run, effects, [first[subject] for subject in effects.subject]))


def conclude(run: Run, effects: Effects, fold: Sequence | None = None) -> dict:
    """Writes all results, prints the strongest regions, and returns what `run.json` says about them.

    `fold` (records,) names the model that blacked out each record, if there are several; of repeats, in the first.
    """
    chosen = options.of(run)
    atlas = chosen.regions(run.cohort.grid)
    effects = replace(effects, groups=run.cohort.groups)
    known = options.covariates_of(run.cohort, effects.rows)
    adjusted = Adjusted(adjustment(known), effects.of_subjects(effects.label))
    table = region_table(atlas, effects, run.seed, adjusted)
    folds, sites = None if fold is None else np.array(fold), np.array([row.site for row in effects.rows])
    predictions = Predictions(
        effects.label, effects["probability"], np.array(effects.subject), folds, sites, person=effects.first
    )
    scores = with_intervals(predictions, run.seed)
    auc, name = scores[headline(scores)], HEADLINES[headline(scores)]
    at_chance = auc.beats_chance is False
    maps = page.maps_sentence(run.cohort.maps, chosen.replaced_maps(run.cohort))
    accuracy, evidence = page.accuracy_sentence(auc, name), page.evidence_sentence(table, adjusted)
    told = (page.basis_sentence(adjusted), accuracy) if at_chance else (accuracy, evidence)
    text = "\n".join(filter(None, (maps, page.edges_sentence(run, atlas), *told, not_compared(run))))
    tables.write_frame(run.out_dir / "regions.csv", table, texts=["name"], digits=6)
    write_store(run.out_dir / STORE, atlas, names_of_maps(run), effects)
    write_maps(run.out_dir, atlas, effects)
    in_maps = separately(run, atlas, effects, adjusted, at_chance)
    regions = results.Regions(table, at_chance, atlas=atlas)
    found = results.BlackoutResults(effects, text, at_chance, regions, in_maps)
    figures.save(figure.draw(run, found), run.out_dir / "blackout.png")
    if in_maps:
        tables.write_frame(run.out_dir / "regions_by_map.csv", in_maps.table, texts=["name", "map"], digits=6)
        figures.save(figure.draw_by_map(results.mean_title(run, found), in_maps), run.out_dir / "regions_by_map.png")
        text = "\n".join(filter(None, (text, in_maps.summary)))
    if found.network:
        with files.replacing(run.out_dir / "connections.html") as file:
            file.write(page.network_viewer(found.network))
    with files.replacing(run.out_dir / "blackout.html") as file:
        file.write(page.render(run, found))
    if not at_chance:
        page.print_table(table)
        print_unless_quiet(page.blobs_sentence(effects))
    print_unless_quiet(text)
    return {
        "headline": Headline(headline(scores), auc),
        "subjects": len(adjusted.label),
        "better_than_chance": auc.beats_chance,
        "adjusted_for": list(adjusted.beside.covariates),
        "conclusion": text,
    }


def separately(run: Run, atlas: Atlas, effects: Effects, adjusted: Adjusted, at_chance: bool) -> results.ByMap | None:
    """What regions do in each map alone; None if only one map is replaced."""
    if not (maps := names_of_maps(run)):
        return None
    table = map_table(atlas, maps, effects, run.seed, adjusted)
    sentence = "" if at_chance else page.by_map_sentence(table, adjusted)
    return results.ByMap(table, at_chance, sentence, maps=maps)


def names_of_maps(run: Run) -> list[str]:
    """What is also replaced one at a time: maps, and the edges of connectomes."""
    chosen, cohort = options.of(run), options.cohort_of(run)
    maps = [printable(cohort.maps[at]) for at in chosen.separate_maps(cohort)]
    return [*maps, options.CONNECTOME] if chosen.replaces_edges(cohort) else maps


def write_store(path: Path, atlas: Atlas, maps: list[str], effects: Effects) -> None:
    """`blackout.h5`: the effects, one row per record, and what its rows and columns are."""
    with files.new_hdf5(path) as store:
        for name in ARRAYS:
            values = effects[name]
            store[name] = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
        store["subject"] = effects.subject
        store["label"] = effects.label.astype(np.float32)
        store["region"] = np.array(atlas.regions, np.int32)
        store["map"] = np.array(maps, h5py.string_dtype())
        store["atlas"] = atlas.labels


def read_store(run: Run) -> Effects:
    """The effects that the run on a fold wrote. Raises InputError if it is damaged or of other subjects or another
    atlas."""
    path, chosen = run.out_dir / STORE, options.of(run)
    advice = f"remove {path.parent} and repeat the command."
    rows = [run.cohort.rows[index] for index in chosen.tested(run.cohort)]
    try:
        with h5py.File(path) as store:
            if [name.decode() for name in store["subject"]] != [row.subject for row in rows]:
                raise InputError(f"{path} is of other subjects; {advice}")
            if not np.array_equal(store["atlas"][:], chosen.regions(run.cohort.grid).labels):
                raise InputError(f"{path} is of another atlas; {advice}")
            arrays = {name: store[name][:] for name in ARRAYS}
    except (OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}); {advice}") from error
    small = [name for name, array in arrays.items() if array.dtype.kind == "f" and name != "reliance_by_map"]
    return Effects(arrays | {name: arrays[name].astype(float) for name in small}, rows)


def write_maps(folder: Path, atlas: Atlas, effects: Effects) -> None:
    """NIfTI maps at 2 mm: of `background`, `maps/<record>.nii.gz` and `group_{all,autism,control}.nii.gz`; of each
    other effect `group_<effect>.nii.gz`."""
    (folder / "maps").mkdir()
    for row, values in zip(effects.rows, effects["delta_logit"], strict=True):
        write_map(folder / "maps" / f"{Path(row.file).stem}.nii.gz", atlas, values)
    label = effects.of_subjects(effects.label)
    of_fill = {fill.name: effects.of_subjects(effects[fill.stored]) for fill in FILLS}
    background = of_fill.pop(BACKGROUND)
    classes = {name: background[label == value] for value, name in enumerate(CLASSES)}
    for name, values in ({"all": background} | classes | of_fill).items():
        if len(values):
            write_map(folder / f"group_{name}.nii.gz", atlas, values.mean(0))


def write_map(path: Path, atlas: Atlas, values: np.ndarray) -> None:
    """One value per region (regions,) as a NIfTI image on the full grid."""
    nifti.save(nifti.mni_image(atlas.paint(values), records.FULL), path)
