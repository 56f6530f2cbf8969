"""--blackout: replaces one part of what a network reads at a time: a region, the edges between two, a group of values.

The effect is the fall of the logit of each test subject's true class: positive where the part speaks for this class. A
region is replaced by one of several fills (`FILLS` in `fills.py`); the effect of each answers another question.

Two networks of equal accuracy may use different regions, so this shows what this network uses, not what autism is.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from data.base import files, tables
from data.base.errors import InputError
from data.base.terminal import print_table, print_unless_quiet
from data.cohorts import nifti, records
from data.cohorts.atlas import Atlas
from data.cohorts.records import CLASS_NAMES
from data.cohorts.rows import join_names
from utils import figures
from utils.blackout import figure, options, page
from utils.blackout.effects import Effects, averaged, joined
from utils.blackout.fills import BACKGROUND, FILLS, RELIANCE
from utils.blackout.kinds import effects_of, measure
from utils.blackout.replication import EXPECTED, HALVES
from utils.blackout.results import BlackoutResults, concluded
from utils.blackout.setup import Setup
from utils.blackout.verify import verify
from utils.figures import shortened
from utils.report.adjusted import adjusted_table
from utils.runs import record
from utils.runs.run import Run
from utils.scores.results import BLACKOUT_PAGE
from utils.training.network import restore_network

STORE = "blackout.h5"
NAME_WIDTH, NAMED = 24, 5  # letters of a name in the terminal, significant things of a family there
LARGE = ("reliance_by_map", "region_means", "pair_reliance")  # arrays that stay float32


def blackout(run: Run) -> int:
    """Writes a table of each of `families.py`, `replication.csv`, `blackout.h5`, NIfTI maps, figures and the page;
    returns the exit status."""
    setup = Setup.of(run, restore_network(run))
    run.claim_output_folder()
    measured = measure(setup)
    if options.of(run).verify:
        verify(setup, measured)
    told = {"donors_a_record": setup.donors.count, "donors_from": setup.donors.told}
    if setup.volume:
        told["recomputed_layers"] = setup.volume.occlusion.recomputed_layers
    show(concluded(run, effects_of(setup, measured)), **told)
    return 0


def pool(whole: Run, runs: Sequence[Run]) -> None:
    """The same results from the effects of all folds: each subject is blacked out by a model that never saw it. Of
    repeats they are means of each record's effects."""
    of_repeats = [[run for run in runs if run.repeat == number] for number in range(whole.repeats)]
    if len({(run.standardisation, run.model.list_inputs(run.config)) for run in runs}) > 1:
        raise InputError(
            "--choose took networks that read other inputs, or volumes on another scale, so that folds have no effects "
            "in common; expected such as --choose combined,regions. Train again with candidates that read alike."
        )
    repeats = [joined(stores_of(of)) for of in of_repeats]
    donors = dict.fromkeys(
        str(of.told.get("donors_from", "")) for run in runs if (of := record.read_manifest(run.out_dir))
    )
    assert whole.folds
    effects, repeats = (averaged(repeats), repeats) if len(repeats) > 1 else (repeats[0], [])
    fold = [whole.folds.fold_by_subject[subject] for subject in effects.subject]
    show(concluded(whole, effects, fold, repeats), donors_from=" ".join(donors))


def show(found: BlackoutResults, **told: object) -> None:
    """Writes all results and finishes the run, of which `run.json` also says what is `told`; prints how well the
    network predicts, and of each family what is significant."""
    run, people = found.run, found.people
    for family in found.families:
        tables.write_frame(run.out_dir / f"{family.kind.table}.csv", family.table, significant_digits=6)
        if family.atlas:
            write_maps(run.out_dir, family.atlas, found.effects)
    tables.write_frame(run.out_dir / "replication.csv", found.replication, significant_digits=6)
    adjusted = adjusted_table(people.adjusted.beside)
    tables.write_frame(run.out_dir / "adjusted.csv", adjusted, significant_digits=6)
    write_store(found)
    figures.save(figure.draw(found), run.out_dir / "blackout.png")
    with files.open_replacement(run.out_dir / BLACKOUT_PAGE) as file:
        file.write(page.render(found, adjusted))
    print_unless_quiet(found.predicts)
    if found.is_open:
        print_table(significant_rows(found), truncate_last=True)
    print_unless_quiet(f"{people.verdict} {found.published}".strip())
    if found.cautions:
        print_table([("warnings", f"{len(found.cautions)}", found.cautions[0])], truncate_last=True)
    run.finish(
        headline=found.judged,
        subjects=len(people.label),
        better_than_chance=found.judged.score.beats_chance,
        concluded=found.is_open,
        adjusted_for=list(people.adjusted.beside.whole),
        conclusion=found.verdict,
        notes=found.notes,
        **told,
    )


def significant_rows(found: BlackoutResults) -> list[list[str]]:
    """The table of the terminal, a row a family."""
    rows = [["significant", "also with half", "which, by family-wise p"]]
    for family in found.families:
        counted, p = found.counted.loc[family.kind.name], family.reliance.p
        count = counted[RELIANCE]
        named = [f"{shortened(family.things[thing], NAME_WIDTH)} {p[thing]:.2g}" for thing in family.first(0)]
        which = join_names(named, NAMED) if named else f"none; the smallest p is {p.min():.2g}"
        with_half = f"{counted[HALVES]}, {counted[EXPECTED]:.1f} expected" if count else "-"
        rows.append([f"{count} of {counted['things']:,} {counted['family']}", with_half, which])
    return rows


def write_store(found: BlackoutResults) -> None:
    """`blackout.h5`: the effects, one row per record, and what its rows and columns are."""
    effects = found.effects
    with files.create_hdf5(found.run.out_dir / STORE) as store:
        for name, values in effects.arrays.items():
            store[name] = values.astype(np.float32)
        store["subject"] = effects.subject
        store["label"] = effects.label.astype(np.float32)
        for family in found.families:
            for name, values in family.stored.items():
                store[name] = values


def stores_of(runs: Sequence[Run]) -> list[Effects]:
    """The effects of runs on folds. Raises InputError if one lacks what another has."""
    found = [read_store(run) for run in runs]
    every = set[str]().union(*(of.arrays for of in found))
    for run, of in zip(runs, found, strict=True):
        if lacking := sorted(every - set(of.arrays)):
            raise InputError(
                f"{run.out_dir / STORE} lacks {lacking[0]}, which other folds have; remove {run.out_dir} and repeat "
                "the command."
            )
    return found


def read_store(run: Run) -> Effects:
    """The effects that the run on a fold wrote. Raises InputError if they cannot be read, or are of others."""
    path, rows = run.out_dir / STORE, [run.cohort.rows[index] for index in run.cohort.split_indices("test")]
    advice = f"remove {path.parent} and repeat the command."
    try:
        with h5py.File(path) as store:
            if store["subject"].asstr()[:].tolist() != [row.subject for row in rows]:
                raise InputError(f"{path} is of other participants; {advice}")
            numbers = [name for name, of in store.items() if of.dtype.kind == "f" and name != "label"]
            arrays = {name: store[name][:] for name in numbers}
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
    classes = {name: background[label == value] for value, name in enumerate(CLASS_NAMES)}
    for name, values in ({"all": background} | classes | of_fill).items():
        if len(values):
            write_map(folder / f"group_{name}.nii.gz", atlas, values.mean(0))


def write_map(path: Path, atlas: Atlas, values: np.ndarray) -> None:
    """One value per region (regions,) as a NIfTI image on the full grid."""
    nifti.save_nifti(nifti.make_mni_image(atlas.paint(values), records.FULL), path)
