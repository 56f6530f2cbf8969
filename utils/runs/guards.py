"""What a run must not do, checked before anything is written: each guard returns None, or raises an InputError.

A guard looks at a run and at `checkpoint_manifest`, the record of its checkpoint, if there is one.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.base.listing import join_names
from data.base.terminal import format_participants
from data.cohorts.cohort import flatten_record_files
from data.cohorts.duplicates import PeopleScans, find_people_in_common, load_people_scans
from data.images.grids import REDUCED
from data.tables.vocabulary import CLASS_NAMES
from utils.runs import record
from utils.runs.checkpoints import EVERYBODY_FOLDER, FOLDS_FOLDER_PREFIX, CheckpointFolder
from utils.runs.cross_validation import CrossValidation
from utils.runs.record import Choices, Manifest
from utils.runs.run import Run
from utils.runs.weights import TrainedWeights
from utils.scores.conclusion import ControlVerdict

NEW_CHECKPOINT_ADVICE = "another --chkPointDir, or --train --overrideChkpt"
SPLIT_LEAK_ADVICE = (
    "Keep the split of the cohort that was trained on (abide-data convert --keepSplit), or leave them out (--exclude)."
)
ENCODER_LEAK_ADVICE = (
    "Reduce without learning (abide-data convert --grid reduced), or train cae and do its full pass with the same "
    "--folds."
)
EDITED_FOLDS_ADVICE = "Was folds.csv among the checkpoints edited? Copy it again, or train with another --chkPointDir."
EVERYBODY_LEAK_ADVICE = (
    "Test other participants; what is known of these is a test on folds, which --train --everybody --score names."
)
CHECKPOINT_PHRASE = "this checkpoint"
FOLDER_ADVICE = "name a folder of your own with {}"


def check_training_folder(weights: TrainedWeights, model_checkpoints_folder: Path) -> None:
    """Raises InputError if a checkpoint is missing, and the model was trained in other folds, or on a split."""
    if weights.has_checkpoint:
        return
    trained_checkpoint_names = [
        child_path.name
        for child_path in sorted(model_checkpoints_folder.glob("*"))
        if child_path.name.startswith((FOLDS_FOLDER_PREFIX, EVERYBODY_FOLDER))
    ]
    if CheckpointFolder(model_checkpoints_folder).has_checkpoint:
        trained_checkpoint_names.append("one of a split")
    other_checkpoint_names = [
        checkpoint_name for checkpoint_name in trained_checkpoint_names if checkpoint_name not in weights.path.parts
    ]
    if other_checkpoint_names:
        raise InputError(
            f"{weights.path} holds no checkpoint, but {model_checkpoints_folder} has "
            f"{join_names(other_checkpoint_names)}; say so with --folds, --wholeSites or --everybody, or make this "
            f"one: {weights.training_command}"
        )


def check_checkpoint_use(run: Run, checkpoint_manifest: Manifest | None) -> None:
    """What holds for every use of a checkpoint or a bundle: the cohort is as its own was, and has none of its people
    among those who are tested."""
    if checkpoint_manifest is None:
        return
    check_same_settings(run, checkpoint_manifest)
    check_checkpoint_leak(run, checkpoint_manifest)
    check_same_preparation(run, checkpoint_manifest)
    check_near_copies(run, checkpoint_manifest)


def check_same_settings(run: Run, checkpoint_manifest: Manifest) -> None:
    """The checkpoint must have this preset, these hyper-parameters and this grid; if inner folds chose them, these
    candidates."""
    is_chosen = bool(run.candidates or checkpoint_manifest.candidates)
    if is_chosen and not run.job.needs_checkpoint:
        check_same_candidates(run, checkpoint_manifest)
        return
    assert checkpoint_manifest.settings
    checkpoint_settings = {
        "preset": checkpoint_manifest.settings.preset,
        "grid": checkpoint_manifest.settings.grid,
        **asdict(run.model.parse_settings(checkpoint_manifest.settings.config)),
    }
    run_settings = {"preset": run.choices.preset, "grid": run.choices.grid, **asdict(run.config)}
    check_no_difference(
        run.predictor.path,
        checkpoint_settings,
        run_settings,
        f"Leave --preset and --set out, use its --dataDir, or {NEW_CHECKPOINT_ADVICE}.",
    )


def check_same_candidates(run: Run, checkpoint_manifest: Manifest) -> None:
    """A choice is continued among the candidates, and by as many batches, as it was started with."""
    candidate_texts = tuple(map(str, run.candidates))
    if checkpoint_manifest.candidates != candidate_texts:
        raise InputError(
            f"{run.checkpoints.path} was chosen among "
            f"{join_names(checkpoint_manifest.candidates) or 'no candidates'}, this run compares "
            f"{join_names(candidate_texts) or 'none'}; use --choose accordingly or {NEW_CHECKPOINT_ADVICE}."
        )
    choice = checkpoint_manifest.choice
    chosen_batch_count = choice.batches if choice else run.num_iters
    if chosen_batch_count != run.num_iters:
        raise InputError(
            f"{run.checkpoints.path} was chosen by trainings of {chosen_batch_count} batches, this run asks for "
            f"{run.num_iters}; use --numIters {chosen_batch_count}, or {NEW_CHECKPOINT_ADVICE}."
        )


def check_same_training(run: Run, checkpoint_manifest: Manifest) -> None:
    """A training is continued with the seed and precision that it was started with, on the same data."""
    assert checkpoint_manifest.settings
    check_no_difference(
        run.predictor.path,
        {"seed": checkpoint_manifest.settings.seed, "precision": checkpoint_manifest.settings.precision},
        {"seed": run.choices.seed, "precision": run.choices.precision},
        f"Use the same, or {NEW_CHECKPOINT_ADVICE}.",
    )
    if checkpoint_manifest.cohort_sha256 != run.cohort.identity:
        raise InputError(
            f"{run.checkpoints.path} was trained on other data ({checkpoint_manifest.cohort}, as it was then); use "
            f"{NEW_CHECKPOINT_ADVICE}."
        )


def check_no_difference(
    reference_location: object,
    reference_settings: Mapping[str, Any],
    requested_settings: Mapping[str, Any],
    advice: str,
) -> None:
    """Raises InputError for requested settings that differ from those at `reference_location`."""
    difference_texts = []
    for setting_name, requested_value in requested_settings.items():
        reference_value = reference_settings.get(setting_name)
        if reference_value != requested_value:
            difference_texts.append(
                f"{setting_name}={reference_value} there, {setting_name}={requested_value} asked for"
            )
    if difference_texts:
        raise InputError(f"{reference_location} differs: {join_names(difference_texts, 3, '; ')}. {advice}")


def check_run_cross_validation(run: Run) -> None:
    """The test on folds that goes with a model of everybody was of the same records, trained with the same settings."""
    if run.cross_validation:
        check_cross_validation(run.cross_validation, run.cohort.path, run.cohort.identity, run.choices, run.num_iters)


def check_cross_validation(
    cross_validation: CrossValidation, cohort_path: object, cohort_sha256: str, choices: Choices, num_iters: int
) -> None:
    """Raises InputError unless a test on folds was of the same records as a model, trained with the same settings."""
    if cross_validation.cohort_sha256 != cohort_sha256:
        raise InputError(
            f"--score {cross_validation.folder} is of other data than {cohort_path} has now; name a test on folds of "
            "these."
        )
    tested_settings = cross_validation.config | {
        "preset": cross_validation.preset,
        "precision": cross_validation.precision,
        "num_iters": cross_validation.num_iters,
    }
    requested_settings = record.normalise_json(choices.config) | {
        "preset": choices.preset,
        "precision": choices.precision,
        "num_iters": num_iters,
    }
    advice = "Use the same, or test these settings on folds."
    check_no_difference(f"--score {cross_validation.folder}", tested_settings, requested_settings, advice)


def check_encoder_leak(run: Run) -> None:
    """No test subject of this cohort may have trained the encoder that made its volumes."""
    metadata = run.cohort.metadata
    check_no_leak(run, "the encoder of these volumes", metadata.encoder_subjects, metadata.encoder_volumes)


def check_checkpoint_leak(run: Run, checkpoint_manifest: Manifest) -> None:
    """No test subject of this cohort may have trained the checkpoint, or the encoder behind it."""
    training_people = checkpoint_manifest.people
    if training_people is None or (training_people.subjects and not training_people.scans):
        raise InputError(
            f"{run.predictor.path} does not say which scans its training participants have; was its record edited? "
            f"Copy it again, or use {NEW_CHECKPOINT_ADVICE}."
        )
    is_same_cohort = checkpoint_manifest.cohort_sha256 == run.cohort.identity and checkpoint_manifest.everybody
    if training_people.scans_sha256 and (
        is_same_cohort or run.cohort.compute_scans_sha256("test") == training_people.scans_sha256
    ):
        raise InputError(
            f"{run.cohort.path} trained {run.predictor.path}, so that results would be too good; test other "
            "participants."
        )
    check_no_leak(run, CHECKPOINT_PHRASE, training_people.subjects, training_people.scans)
    check_no_leak(
        run, "the encoder behind this checkpoint", training_people.encoder_subjects, training_people.encoder_scans
    )


def check_no_leak(
    run: Run, trained_network_text: str, training_subjects: Collection[str], training_scan_digests: Collection[str]
) -> None:
    """Raises InputError if a test subject is one of those who trained what `trained_network_text` names, by the
    ID, or by the scan under another ID."""
    if not training_subjects and not training_scan_digests:
        return  # as of an encoder, where there is none
    cohort = run.cohort
    stripped_training_ids = set(map(strip_leading_zeros, training_subjects))
    test_subjects = cohort.list_split_subjects("test")
    scan_match_by_subject = find_people_in_common(
        PeopleScans({trained_network_text: set(training_scan_digests)}),
        load_people_scans(cohort, test_subjects, with_near_scans=False),
    )
    renamed_subjects = []  # known by their scans only
    leaked_subjects = []
    for subject in test_subjects:
        has_training_id = strip_leading_zeros(subject) in stripped_training_ids
        if not has_training_id and subject in scan_match_by_subject:
            renamed_subjects.append(subject)
        if has_training_id or subject in scan_match_by_subject:
            leaked_subjects.append(subject)
    if not leaked_subjects:
        return

    renaming_sentence = ""
    if renamed_subjects:
        renamed_subjects_text = "all of them" if renamed_subjects == leaked_subjects else join_names(renamed_subjects)
        renaming_sentence = f" By their scans, whatever their names: {renamed_subjects_text}."
    if run.folds:
        advice = EDITED_FOLDS_ADVICE if trained_network_text == CHECKPOINT_PHRASE else ENCODER_LEAK_ADVICE
    else:
        advice = EVERYBODY_LEAK_ADVICE if run.everybody else SPLIT_LEAK_ADVICE
    raise InputError(
        f"{len(leaked_subjects)} of {format_participants(len(test_subjects), 'test')} of {cohort.path} trained "
        f"{trained_network_text}: {join_names(leaked_subjects)}.{renaming_sentence} Results on them would be too "
        f"good. {advice}"
    )


def check_near_copies(run: Run, checkpoint_manifest: Manifest) -> None:
    """No test subject of another cohort may have nearly the scan of a training subject, such as one with noise. What
    cannot be compared is printed."""
    cohort = run.cohort
    if checkpoint_manifest.cohort_sha256 == cohort.identity or cohort.is_simulated:
        return  # its own cohort, in which near copies are in one split
    reference_cohort_sha256 = cohort.metadata.provenance.get("like")
    if not checkpoint_manifest.everybody and checkpoint_manifest.cohort_sha256 == reference_cohort_sha256:
        return  # compared when it was converted
    training_cohort = run.predictor.find_training_cohort()
    if training_cohort is None or checkpoint_manifest.people is None or training_cohort.num_maps != cohort.num_maps:
        print(run.predictor.unknown_overlap_warning)
        return

    training_scans = load_people_scans(training_cohort, checkpoint_manifest.people.subjects)
    test_scans = load_people_scans(cohort, cohort.list_split_subjects("test"))
    training_by_test_subject = find_people_in_common(training_scans, test_scans)
    if training_by_test_subject:
        scan_pair_texts = [
            f"{test_subject} has that of {training_subject}"
            for test_subject, training_subject in training_by_test_subject.items()
        ]
        raise InputError(
            f"At least {len(training_by_test_subject)} test participants of {cohort.path} have the scan of a training "
            f"participant of this checkpoint, with noise or exported again: {join_names(scan_pair_texts)}. "
            f"{SPLIT_LEAK_ADVICE}"
        )


def strip_leading_zeros(subject: str) -> str:
    """A subject's ID without leading zeros, which spreadsheets drop."""
    return subject.lstrip("0") or subject


def check_same_preparation(run: Run, checkpoint_manifest: Manifest) -> None:
    """The cohort must have been made as the checkpoint's own was, as far as both say."""
    if checkpoint_manifest.cohort_sha256 == run.cohort.identity:
        return
    input_names = run.predictor.input_names
    checkpoint_preparation_values: Mapping[str, Any] = {}
    if checkpoint_manifest.preparation:
        checkpoint_preparation_values = checkpoint_manifest.preparation.select_fields_for_inputs(input_names)
    unknown_preparation_names = []
    for preparation_name, cohort_value in run.cohort.metadata.select_fields_for_inputs(input_names).items():
        checkpoint_value = checkpoint_preparation_values.get(preparation_name)
        if None in (checkpoint_value, cohort_value):
            unknown_preparation_names.append(preparation_name)
        elif checkpoint_value != cohort_value:
            raise InputError(
                f"{run.predictor.path} was trained on data with {preparation_name} "
                f"{format_value_excerpt(checkpoint_value, cohort_value)}, {run.cohort.path} has "
                f"{format_value_excerpt(cohort_value, checkpoint_value)}; use a cohort made like "
                f"{checkpoint_manifest.cohort}."
            )
    if unknown_preparation_names:
        print(
            f"Not known of both the checkpoint's data and {run.cohort.path}, so not compared: "
            f"{', '.join(unknown_preparation_names)}."
        )
    if "volume" in run.predictor.input_names and checkpoint_manifest.num_maps != run.cohort.num_maps:
        raise InputError(
            f"{run.predictor.path} was trained on records of {format_map_count(checkpoint_manifest.num_maps)}, "
            f"{run.cohort.path} has {format_map_count(run.cohort.num_maps)} a record; use a cohort made like "
            f"{checkpoint_manifest.cohort}."
        )


def format_value_excerpt(excerpted_value: object, compared_value: object) -> str:
    """A value to show beside another one; of lists the first entry that differs."""
    if not isinstance(excerpted_value, tuple) or not isinstance(compared_value, tuple):
        return str(excerpted_value)
    if len(excerpted_value) != len(compared_value):
        return f"of {len(excerpted_value)} entries"
    differing_indices = [
        entry_index
        for entry_index, excerpted_entry in enumerate(excerpted_value)
        if excerpted_entry != compared_value[entry_index]
    ]
    return f"{excerpted_value[differing_indices[0]]} as entry {differing_indices[0] + 1}"


def format_map_count(map_count: int) -> str:
    return f"{map_count} maps" if map_count > 1 else f"{map_count} map"


def check_training_people(run: Run) -> None:
    """There is somebody to fit a predictor on."""
    if not run.cohort.list_split_subjects("train"):
        raise InputError(
            f"{run.cohort.path} has no training participants, on whom {run.predictor.name} could be fitted; test in "
            "folds (--folds 10), or use a cohort that is split."
        )


def check_two_classes(run: Run) -> None:
    """A classifier is trained on both classes."""
    train_indices = run.cohort.find_split_record_indices("train")
    training_labels = {run.cohort.rows[record_index].label for record_index in train_indices}
    if run.predictor.classifies and len(training_labels) < len(CLASS_NAMES):
        raise InputError(
            f"{run.cohort.path} has one class only among its training participants; expected two. Convert "
            "participants of both."
        )


def check_output_folder_free(run: Run) -> None:
    """The output folder holds nothing but what a run of this job and model wrote, and can be written; so can that of
    the checkpoints of a training."""
    record.check_results_folder_free(run.out_dir, run.job.job_name, run.predictor.name)
    files.check_folder_writable(run.out_dir, FOLDER_ADVICE.format("--outDir"))
    if not run.job.needs_checkpoint:
        files.check_folder_writable(run.checkpoints.path, FOLDER_ADVICE.format("--chkPointDir"))


def check_output_folder_new(run: Run) -> None:
    """The reduced cohort does not exist yet."""
    files.check_target_is_new(run.out_dir)
    files.check_folder_writable(run.out_dir, FOLDER_ADVICE.format("--outDir"))


def check_distinct_record_files(run: Run) -> None:
    """A file can be written for each record, whatever folder it comes from."""
    flatten_record_files(run.cohort)


def check_code_fits_models(run: Run) -> None:
    """The code of the autoencoder is what the other models read."""
    code_shape = run.model.module.compute_code_shape(run.config, run.cohort.grid)
    if code_shape != (*REDUCED.shape, 1):
        raise InputError(
            f"This {run.model.model_name} gives a code of {'x'.join(map(str, code_shape))} (x, y, z, channels); the "
            f"other models read {REDUCED} in one channel. Train it with strides whose product is 3 and one filter last."
        )


def check_fitted_to_control(run: Run) -> None:
    """Raises InputError if what predicts was fitted to the true labels, in place of those of a control; `run` is of all
    who are tested."""
    control_result = run.predictor.measure_control(run.cohort, run.seed)
    if control_result and control_result.verdict == ControlVerdict.FROM_TRUE_LABELS:
        raise InputError(
            f"{run.predictor.path} tells the true labels of {run.cohort.path} (AUC "
            f"{control_result.true_label_auc:.2f}), not those of the control (AUC {control_result.auc:.2f}): made from "
            "the true labels; fit again on those of the control, which abide-data export --control writes."
        )
