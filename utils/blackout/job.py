"""--blackout: replaces one part of what a network reads at a time: a region, the edges between two, a group of values.

The effect is the fall of the logit of each test subject's true class: positive where the part speaks for this class. A
region is replaced by one of several fills (`FILLS` in `fills.py`); the effect of each answers another question.

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
from data.base.terminal import print_unless_quiet
from data.cohorts import nifti, records
from data.cohorts.atlas import Atlas
from data.cohorts.records import CLASSES
from data.cohorts.rows import listed
from utils import figures
from utils.blackout import columns, figure, options, page, results, sentences
from utils.blackout.conclusions import Concluded, replication_of, results_of
from utils.blackout.effects import ARRAYS, Adjusted, Effects, averaged, joined
from utils.blackout.families import People
from utils.blackout.fills import BACKGROUND, FILLS
from utils.blackout.measure import Setup, measure
from utils.blackout.verify import verify
from utils.bundle.run import networks_of
from utils.runs import record
from utils.runs.run import Run
from utils.scores.adjustment import adjustment
from utils.scores.metrics import Predictions, headline, with_intervals
from utils.scores.results import MIN_PER_CLASS, Estimate, Headline

STORE = "blackout.h5"
TEXT = h5py.string_dtype()
LARGE = ("reliance_by_map", "region_means", "pair_reliance")  # arrays that stay float32


def blackout(run: Run) -> int:
    """Writes a table of each of `families.py`, `replication.csv`, `blackout.h5`, NIfTI maps, figures and the page;
    returns the exit status."""
    if "volume" in run.model.reads and (atlas := options.of(run).regions(run.cohort.grid)).vanished:
        print(f"{len(atlas.vanished)} regions have no voxel on the {atlas.grid} grid: {listed(atlas.vanished)}")
    networks = networks_of(run)
    run.claim()
    effects, told = measured(networks)
    run.finish(**conclude(run, effects), **told)
    return 0


def measured(networks: Sequence[tuple[Run, Any]]) -> tuple[Effects, dict[str, Any]]:
    """The mean effects by all networks, each of which reads the cohort of its own run, and what `run.json` says of how
    they were measured. This is the same for all: they take the same donors."""
    parts, told = list[Effects](), dict[str, Any]()
    for run, network in networks:
        setup = Setup.of(run, network)
        donors, recomputed = sentences.donors_sentence(setup.donors), setup.recomputed_layers
        if not parts:
            if recomputed:
                print_unless_quiet(f"Computed in full for each region: {listed(recomputed)} and the layers after them.")
            print_unless_quiet(donors)
        effects, seen = measure(setup)
        if options.of(run).verify:
            verify(setup, seen)
        parts.append(effects)
        told = {"donors_a_record": setup.donors.count, "donors_from": donors, "recomputed_layers": recomputed}
    return averaged(parts), told


def pool(whole: Run, runs: Sequence[Run]) -> None:
    """The same results from the effects of all folds: each subject is blacked out by a model that never saw it. Of
    repeats they are means of each record's effects."""
    parts = list(zip(runs, stores(runs), strict=True))
    repeats = [joined([part for run, part in parts if run.repeat == number]) for number in range(whole.repeats)]
    donors = dict.fromkeys(str(of.told.get("donors_from", "")) for run in runs if (of := record.read(run.out_dir)))
    print_unless_quiet("\n".join(donors))
    assert whole.folds
    effects, repeats = (averaged(repeats), repeats) if len(repeats) > 1 else (repeats[0], [])
    fold = [whole.folds.fold_of[subject] for subject in effects.subject]
    whole.finish(**conclude(whole, effects, fold, repeats), donors_from=" ".join(donors))


def conclude(run: Run, effects: Effects, fold: Sequence | None = None, repeats: Sequence[Effects] = ()) -> dict:
    """Writes all results, prints the strongest regions, and returns what `run.json` says about them.

    `fold` (records,) names the model that blacked out each record, if there are several; of repeats, in the first.
    `repeats` are the effects that these are the means of.
    """
    effects = replace(effects, groups=run.cohort.groups)
    scores = scores_of(effects, fold, run.seed)
    judged = Headline(headline(scores), scores[headline(scores)])
    people = people_of(run, effects, fold, judged.score)
    here = Concluded(run, effects, people)
    again = replication_of(here, [Concluded(run, replace(one, groups=effects.groups), people) for one in repeats])
    found = results_of(here, again, judged)
    write_tables(run.out_dir, found)
    write_store(here)
    if here.regions:
        write_maps(run.out_dir, here.atlas, effects)
    draw(run, found)
    if not found.at_chance:
        columns.print_tables(found)
    print_unless_quiet(found.told)
    return {
        "headline": judged,
        "subjects": len(people.label),
        "better_than_chance": judged.score.beats_chance,
        "concluded": bool(people.concludes and judged.score.beats_chance),
        "adjusted_for": list(people.adjusted.beside.whole),
        "conclusion": found.told,
    }


def write_tables(folder: Path, found: results.BlackoutResults) -> None:
    """The CSV of each family, and `replication.csv`."""
    named = {"regions": found.regions, "regions_by_map": found.by_map, "connections": found.connections}
    every = {name: of.table for name, of in (named | {"values": found.values}).items() if of}
    for name, table in (every | {"replication": found.replication}).items():
        tables.write_frame(folder / f"{name}.csv", table, digits=6)


def draw(run: Run, found: results.BlackoutResults) -> None:
    """The figures and the pages."""
    figures.save(figure.draw(run, found), run.out_dir / "blackout.png")
    if found.by_map:
        title = results.mean_title(run, found)
        figures.save(figure.draw_by_map(title, found.by_map), run.out_dir / "regions_by_map.png")
    with files.replacing(run.out_dir / "blackout.html") as file:
        file.write(page.render(run, found))


def scores_of(effects: Effects, fold: Sequence | None, seed: int) -> dict[str, Estimate]:
    """How well the network predicts the people who were blacked out."""
    folds, sites = None if fold is None else np.array(fold), np.array([row.site for row in effects.rows])
    subject, person = np.array(effects.subject), effects.first
    return with_intervals(
        Predictions(effects.label, effects["probability"], subject, folds, sites, person=person), seed
    )


def people_of(run: Run, effects: Effects, fold: Sequence | None, score: Estimate) -> People:
    """The subjects of effects, and whether anything is concluded of them: not if the network's AUC is at chance."""
    label, (_, first) = effects.of_subjects(effects.label), np.unique(effects.subject, return_index=True)
    known = options.covariates_of(run.cohort, effects.rows)
    rarer = np.bincount(label.astype(int), minlength=len(CLASSES)).min()
    site = np.array([effects.rows[at].site for at in first])
    return People(
        label=label,
        site=site,
        fold=np.array(["" if fold is None else fold[at] for at in first]),
        unit=effects.unit,
        adjusted=Adjusted(adjustment(known, site), label),
        concludes=score.beats_chance is not False and rarer >= MIN_PER_CLASS,
        seed=run.seed,
        twice=fold is not None and len(set(fold)) > 1,
    )


def write_store(here: Concluded) -> None:
    """`blackout.h5`: the effects, one row per record, and what its rows and columns are."""
    effects = here.effects
    with files.new_hdf5(here.run.out_dir / STORE) as store:
        for name, values in effects.arrays.items():
            store[name] = values.astype(np.float32)
        store["subject"] = effects.subject
        store["label"] = effects.label.astype(np.float32)
        if here.regions:
            store["region"] = np.array(here.atlas.regions, np.int32)
            store["map"] = np.array(here.maps, TEXT)
            store["atlas"] = here.atlas.labels
        if here.connections:
            store["pair"] = np.array(here.connections.pairs.regions, np.int32)
            store["system"] = np.array(here.connections.systems.of_each, TEXT)
        if here.values:
            store["values"] = np.array(here.values.things, TEXT)


def stores(leaves: Sequence[Run]) -> list[Effects]:
    """The effects of the runs on folds. Raises InputError if one lacks what another has."""
    found = [read_store(leaf) for leaf in leaves]
    for leaf, effects in zip(leaves, found, strict=True):
        if differs := sorted(set(found[0].arrays) ^ set(effects.arrays)):
            raise InputError(
                f"{leaf.out_dir / STORE} differs from that of fold {leaves[0].fold} in {differs[0]}, which one of them "
                "lacks; expected both alike. Repeat the command with another --outDir."
            )
    return found


def read_store(run: Run) -> Effects:
    """The effects that the run on a fold wrote. Raises InputError if it is damaged or of other subjects or another
    atlas."""
    path, chosen = run.out_dir / STORE, options.of(run)
    advice = f"remove {path.parent} and repeat the command."
    rows = [run.cohort.rows[index] for index in run.cohort.indices("test")]
    try:
        with h5py.File(path) as store:
            if [name.decode() for name in store["subject"]] != [row.subject for row in rows]:
                raise InputError(f"{path} is of other subjects; {advice}")
            if "atlas" in store and not np.array_equal(store["atlas"][:], chosen.regions(run.cohort.grid).labels):
                raise InputError(f"{path} is of another atlas; {advice}")
            arrays = {name: store[name][:] for name in ARRAYS if name in store}
    except (OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}); {advice}") from error
    small = {name: array.astype(float) for name, array in arrays.items() if name not in LARGE}
    return Effects(arrays | small, rows)


def write_maps(folder: Path, atlas: Atlas, effects: Effects) -> None:
    """NIfTI maps at 2 mm: of `background`, `maps/<record>.nii.gz` and `group_{all,autism,control}.nii.gz`; of each
    other effect `group_<effect>.nii.gz`."""
    (folder / "maps").mkdir(exist_ok=True)
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
