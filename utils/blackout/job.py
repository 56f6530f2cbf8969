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
from data.base.listing import join_names
from data.base.terminal import print_table, print_unless_quiet
from data.images import grids, nifti
from data.images.atlas import Atlas
from data.tables.vocabulary import CLASS_NAMES
from utils import figures
from utils.blackout import figure, options, page
from utils.blackout.column_effects import collect_column_effects, measure_columns, verify_columns
from utils.blackout.column_setup import ColumnSetup
from utils.blackout.effects import RecordEffects, average_repeat_effects, join_fold_effects
from utils.blackout.fills import BACKGROUND_FILL, FILLS, RELIANCE_FILL
from utils.blackout.kinds import collect_effects, measure_all_kinds
from utils.blackout.replication import BETWEEN_HALVES, EXPECTED_COLUMN
from utils.blackout.results import BlackoutResults, conclude_blackout
from utils.blackout.setup import BlackoutSetup
from utils.blackout.verify import verify_blackout
from utils.figures import shorten_text
from utils.predictors.estimator import EstimatorPredictor
from utils.predictors.user_code import PRINTED_FILE
from utils.report.adjusted import make_adjusted_table
from utils.runs import record
from utils.runs.run import Run
from utils.runs.statements import BlackoutStatement
from utils.scores.results import BLACKOUT_PAGE_FILE

BLACKOUT_STORE_FILE = "blackout.h5"
MAX_TERMINAL_NAME_LETTERS = 24  # letters of a name in the terminal
MAX_FEATURES_LISTED = 5  # significant features of a family in the terminal
FLOAT32_ARRAY_NAMES = ("reliance_by_map", "region_means", "pair_reliance")  # arrays that stay float32


def run_blackout(run: Run) -> int:
    """Writes a table of each family (`families.py`), `replication.csv`, `blackout.h5`, NIfTI maps, figures and the
    page; returns the exit status."""
    if isinstance(run.predictor, EstimatorPredictor):
        return run_estimator_blackout(run)

    # What replaces the parts of what the network reads, and what it then says
    setup = BlackoutSetup.from_run(run)
    run.claim_output_folder()
    measurements_by_kind = measure_all_kinds(setup)
    if options.get_blackout_options(run).verify:
        verify_blackout(setup, measurements_by_kind)

    # What is concluded from it
    record_effects = collect_effects(setup, measurements_by_kind)
    results = conclude_blackout(run, record_effects)
    recomputed_layer_names: tuple[str, ...] | None = None
    if setup.volume_occlusion:
        recomputed_layer_names = tuple(setup.volume_occlusion.occlusion.recomputed_layer_names)
    publish_results(results, setup.donors.donor_description, setup.donors.donors_per_record, recomputed_layer_names)
    return 0


def run_estimator_blackout(run: Run) -> int:
    """The same of the user's estimator, which is fitted again."""
    setup = ColumnSetup.from_run(run)
    measured = measure_columns(setup)
    run.claim_output_folder()  # not before, since the user's code may fail
    if options.get_blackout_options(run).verify:
        verify_columns(setup, measured)
    if printed_text := setup.ready_estimator.printed_text:
        # its many calls repeat what they say
        printed_lines = dict.fromkeys(printed_text.splitlines())
        (run.out_dir / PRINTED_FILE).write_text("".join(f"{line}\n" for line in printed_lines))
        print_unless_quiet(f"What {run.predictor.name} printed: {run.out_dir / PRINTED_FILE}")

    results = conclude_blackout(run, collect_column_effects(setup, measured))
    publish_results(results, setup.donors.donor_description, setup.donors.donors_per_record)
    return 0


def pool_blackout_folds(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    """The same results from the effects of all folds: each subject is blacked out by a model that never saw it. With
    repeats, the effects of each record are averaged over them."""
    network_inputs = {(fold_run.standardisation, fold_run.predictor.input_names) for fold_run in fold_runs}
    if len(network_inputs) > 1:
        raise InputError(
            "--choose took networks that read other inputs, or volumes on another scale, so that folds have no effects "
            "in common; expected such as --choose combined,regions. Train again with candidates that read alike."
        )

    # The effects of all folds of each repeat, and their means over repeats
    effects_by_repeat = []
    for repeat_number in range(pooled_run.repeats):
        repeat_runs = [fold_run for fold_run in fold_runs if fold_run.repeat == repeat_number]
        effects_by_repeat.append(join_fold_effects(read_effect_stores(repeat_runs)))
    has_repeats = len(effects_by_repeat) > 1
    mean_effects = average_repeat_effects(effects_by_repeat) if has_repeats else effects_by_repeat[0]

    # Who gave the replacements, as the folds tell
    donor_descriptions = list[str]()
    for fold_run in fold_runs:
        fold_manifest = record.read_manifest(fold_run.out_dir)
        if fold_manifest and fold_manifest.blackout:
            donor_descriptions.append(fold_manifest.blackout.donors)

    # What is concluded from it
    assert pooled_run.folds
    record_folds = [pooled_run.folds.fold_by_subject[subject] for subject in mean_effects.record_subjects]
    results = conclude_blackout(pooled_run, mean_effects, record_folds, effects_by_repeat if has_repeats else ())
    publish_results(results, " ".join(dict.fromkeys(donor_descriptions)))


def publish_results(
    results: BlackoutResults,
    donor_description: str,
    donors_per_record: int | None = None,
    recomputed_layer_names: tuple[str, ...] | None = None,
) -> None:
    """Writes all results and finishes the run; prints how well the network predicts, and which features of each family
    are significant. For the donors and the layers, see `BlackoutStatement`."""
    run = results.run
    people = results.people
    adjustment_table = make_adjusted_table(people.adjuster.adjustment)

    # Tables, arrays and maps
    for feature_family in results.feature_families:
        tables.write_csv_frame(
            run.out_dir / f"{feature_family.feature_kind.table_file_stem}.csv",
            feature_family.ranked_table,
            significant_digits=6,
        )
        if feature_family.atlas:
            write_effect_maps(run.out_dir, feature_family.atlas, results.record_effects)
    tables.write_csv_frame(run.out_dir / "replication.csv", results.replication_table, significant_digits=6)
    tables.write_csv_frame(run.out_dir / "adjusted.csv", adjustment_table, significant_digits=6)
    write_effect_store(results)

    # Figure and page
    figures.save_figure(figure.draw_blackout(results), run.out_dir / "blackout.png")
    with files.open_replacement(run.out_dir / BLACKOUT_PAGE_FILE) as page_file:
        page_file.write(page.render_blackout_page(results, adjustment_table))

    # The terminal
    family_rows = make_family_terminal_rows(results) if results.is_conclusive else []
    verdict_text = f"{people.verdict} {results.publication_advice}".strip()
    print_unless_quiet(results.prediction_sentence)
    print_table(family_rows, truncate_last_column=True)
    print_unless_quiet(verdict_text)
    if results.cautions:
        print_table([("warnings", f"{len(results.cautions)}", results.cautions[0])], truncate_last_column=True)

    statement = BlackoutStatement(
        subjects=len(people.subject_labels),
        better_than_chance=results.prediction_headline.score.beats_chance,
        concluded=results.is_conclusive,
        adjusted_for=tuple(people.adjuster.adjustment.nearly_complete_covariates),
        conclusion=results.conclusion,
        notes=tuple(results.manifest_warnings),
        donors=donor_description,
        donors_per_record=donors_per_record,
        recomputed_layers=recomputed_layer_names,
    )
    summary_rows = [[results.prediction_sentence], *family_rows, [verdict_text]]
    run.finish_run(results.prediction_headline, summary_rows, blackout=statement)


def make_family_terminal_rows(results: BlackoutResults) -> list[list[str]]:
    """The table of the terminal, a row a family."""
    terminal_rows = [["significant", "also with half", "which, by family-wise p"]]
    for feature_family in results.feature_families:
        count_row = results.family_counts.loc[feature_family.feature_kind.kind_name]
        significant_text = f"{count_row[RELIANCE_FILL]} of {count_row['things']:,} {count_row['family']}"
        half_replication_text = "-"
        if count_row[RELIANCE_FILL]:
            half_replication_text = f"{count_row[BETWEEN_HALVES]}, {count_row[EXPECTED_COLUMN]:.1f} expected"

        family_wise_p = feature_family.reliance_effect.family_wise_p
        feature_texts = []
        for feature_index in feature_family.select_first_features(0):
            feature_name = shorten_text(feature_family.feature_names[feature_index], MAX_TERMINAL_NAME_LETTERS)
            feature_texts.append(f"{feature_name} {family_wise_p[feature_index]:.2g}")
        if feature_texts:
            features_text = join_names(feature_texts, MAX_FEATURES_LISTED)
        else:
            features_text = f"none; the smallest p is {family_wise_p.min():.2g}"
        terminal_rows.append([significant_text, half_replication_text, features_text])
    return terminal_rows


def write_effect_store(results: BlackoutResults) -> None:
    """`blackout.h5`: the effects, one row per record, and what its rows and columns are."""
    record_effects = results.record_effects
    with files.create_hdf5(results.run.out_dir / BLACKOUT_STORE_FILE) as hdf5_store:
        for array_name, array_values in record_effects.record_array_by_name.items():
            hdf5_store[array_name] = array_values.astype(np.float32)
        hdf5_store["subject"] = record_effects.record_subjects
        hdf5_store["label"] = record_effects.record_labels.astype(np.float32)
        for feature_family in results.feature_families:
            for array_name, array_values in feature_family.stored_arrays.items():
                hdf5_store[array_name] = array_values


def read_effect_stores(fold_runs: Sequence[Run]) -> list[RecordEffects]:
    """The effects of runs on folds. Raises InputError if one lacks what another has."""
    effects_by_fold_run = [read_effect_store(fold_run) for fold_run in fold_runs]
    array_names = set[str]().union(*(run_effects.record_array_by_name for run_effects in effects_by_fold_run))
    for fold_run, run_effects in zip(fold_runs, effects_by_fold_run, strict=True):
        if missing_array_names := sorted(array_names - set(run_effects.record_array_by_name)):
            raise InputError(
                f"{fold_run.out_dir / BLACKOUT_STORE_FILE} lacks {missing_array_names[0]}, which other folds have; "
                f"remove {fold_run.out_dir} and repeat the command."
            )
    return effects_by_fold_run


def read_effect_store(fold_run: Run) -> RecordEffects:
    """The effects that the run on a fold wrote. Raises InputError if they cannot be read, or are of other
    participants."""
    store_path = fold_run.out_dir / BLACKOUT_STORE_FILE
    test_rows = [fold_run.cohort.rows[row_index] for row_index in fold_run.cohort.find_split_record_indices("test")]
    test_subjects = [test_row.subject for test_row in test_rows]
    removal_advice = f"remove {store_path.parent} and repeat the command."
    record_array_by_name = {}
    try:
        with h5py.File(store_path) as hdf5_store:
            if hdf5_store["subject"].asstr()[:].tolist() != test_subjects:
                raise InputError(f"{store_path} is of other participants; {removal_advice}")
            for array_name, dataset in hdf5_store.items():
                if dataset.dtype.kind == "f" and array_name != "label":
                    record_array_by_name[array_name] = dataset[:]
    except (OSError, KeyError) as error:
        raise InputError(f"{store_path} cannot be read ({error}); {removal_advice}") from error
    for array_name, stored_array in record_array_by_name.items():
        if array_name not in FLOAT32_ARRAY_NAMES:
            record_array_by_name[array_name] = stored_array.astype(float)
    return RecordEffects(record_array_by_name, test_rows)


def write_effect_maps(run_folder: Path, atlas: Atlas, record_effects: RecordEffects) -> None:
    """NIfTI maps at 2 mm: of the effects of the background, `maps/<record>.nii.gz` and
    `group_{all,autism,control}.nii.gz`; of each other effect `group_<effect>.nii.gz`."""
    (run_folder / "maps").mkdir(exist_ok=True)
    for record_row, region_effects in zip(record_effects.record_rows, record_effects["delta_logit"], strict=True):
        write_effect_map(run_folder / "maps" / f"{Path(record_row.file).stem}.nii.gz", atlas, region_effects)

    effects_by_group_name = {}  # (subjects, regions) each
    effects_by_fill = {
        fill.fill_name: record_effects.average_subject_records(record_effects[fill.stored_array_name])
        for fill in FILLS
        if fill.stored_array_name in record_effects
    }
    background_effects = effects_by_fill.pop(BACKGROUND_FILL)
    effects_by_group_name["all"] = background_effects
    subject_labels = record_effects.average_subject_records(record_effects.record_labels)
    for class_label, class_name in enumerate(CLASS_NAMES):
        effects_by_group_name[class_name] = background_effects[subject_labels == class_label]
    effects_by_group_name |= effects_by_fill
    for group_name, subject_effects in effects_by_group_name.items():
        if len(subject_effects):
            write_effect_map(run_folder / f"group_{group_name}.nii.gz", atlas, subject_effects.mean(0))


def write_effect_map(map_path: Path, atlas: Atlas, region_values: np.ndarray) -> None:
    """One value per region (regions,) as a NIfTI image on the full grid."""
    nifti.save_nifti(nifti.make_mni_image(atlas.paint_regions(region_values), grids.FULL), map_path)
