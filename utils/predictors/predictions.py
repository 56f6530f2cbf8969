"""The user's predictions as a predictor: probabilities that some model has made elsewhere, and the folds in which it
was trained. Nobody can know who trained it, and the verdict says so."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from data.base.errors import InputError
from data.base.listing import join_names
from data.base.terminal import format_participants
from data.cohorts.cohort import Cohort
from data.cohorts.division import FROM_FILE, encode_folder_name
from data.cohorts.folds import Folds, make_given_folds, permute_control_labels
from data.cohorts.groups import find_group_leaders
from data.tables.people import normalise_id
from utils.predictors.predictions_file import PredictionsFile
from utils.runs.predictor import FoldData, Predictor, ReadyPredictor
from utils.runs.record import Choices
from utils.scores.conclusion import ControlResult
from utils.scores.control import PERMUTATION_COUNT, measure_control
from utils.scores.metrics import Predictions
from utils.scores.results import SAME_SCAN_COLUMN

NAME_ENDING = "predictions"
MESSAGE_ID_COUNT = 2
TRAINING_SENTENCE = "Who trained it is not known."
CONTROL_METHODS_SENTENCES = (
    " This was a control: its labels had been permuted within sites (seed {}) before the model was fitted, so that "
    "only labels of tested participants could let it predict these. The p-value counts how many of {} permutations "
    "within sites and folds were predicted as well; their spread was made wider, since the models of different folds "
    "share training participants."
)


@dataclass(frozen=True, eq=False)
class FilePredictor(Predictor):
    """The model whose predictions a file holds; `probability_by_record` are those of a cohort, by repeat and name of
    the record, once that is known."""

    predictions_file: PredictionsFile
    control_seed: int | None = None  # that has permuted the labels which are predicted; None if they are the true ones
    probability_by_record: Mapping[tuple[int, str], float] = field(default_factory=dict)

    noun = "model"

    @property
    def name(self) -> str:
        stem = encode_folder_name(self.path.stem)
        name = stem if stem.endswith(NAME_ENDING) else f"{stem}-{NAME_ENDING}"
        return name if self.control_seed is None else f"{name}-control-{self.control_seed}"

    @property
    def description(self) -> str:
        return self.name

    @property
    def path(self) -> Path:
        return self.predictions_file.path

    @property
    def input_names(self) -> tuple[str, ...]:
        return ()

    @property
    def folds_option(self) -> str:
        return f"{self.predictions_file.fold_count}{FROM_FILE}" if self.predictions_file.has_folds else ""

    def find_sha256(self) -> str:
        return self.predictions_file.sha256

    def make_folds(self, cohort: Cohort, seed: int) -> list[Folds]:
        matched_table = match_predictions(self.predictions_file, cohort)
        folds_by_repeat = []
        for repeat_number in range(self.predictions_file.repeat_count):
            repeat_table = matched_table[matched_table["repeat"] == repeat_number]
            fold_by_subject = find_subject_folds(repeat_table, cohort, self.path)
            folds_by_repeat.append(make_given_folds(cohort, self.folds_option, fold_by_subject, seed + repeat_number))
        return folds_by_repeat

    def for_cohort(self, cohort: Cohort) -> "FilePredictor":
        matched_table = match_predictions(self.predictions_file, cohort)
        record_keys = zip(matched_table["repeat"], matched_table["file"], strict=True)
        return replace(self, probability_by_record=dict(zip(record_keys, matched_table["probability"], strict=True)))

    def label_cohort(self, cohort: Cohort) -> Cohort:
        return cohort if self.control_seed is None else permute_control_labels(cohort, self.control_seed)

    def measure_control(self, cohort: Cohort, seed: int) -> ControlResult | None:
        if cohort.control is None:
            return None
        true_label_by_subject = cohort.control.true_label_by_subject
        predictions = make_record_predictions(self.predictions_file, cohort)
        true_labels = np.array([true_label_by_subject[subject] for subject in predictions.subject])
        return measure_control(predictions, true_labels, seed)

    def make_choices(self, seed: int, cohort: Cohort) -> Choices:
        control_sentences = ""
        if self.control_seed is not None:
            control_sentences = CONTROL_METHODS_SENTENCES.format(self.control_seed, PERMUTATION_COUNT)
        return Choices(
            model=self.name,
            preset="",
            config={},
            grid=None,
            seed=seed,
            precision="",
            noun=self.noun,
            input_names=self.input_names,
            methods_sentences=(
                f"Its probabilities were read from a file of the authors' (SHA-256 {self.find_sha256()}). The test "
                "could not verify which model made them, what that read, and on whom it was trained: the authors must "
                f"say so.{control_sentences}"
            ),
            training_sentence=TRAINING_SENTENCE,
        )

    def make_ready(self, fold_data: FoldData) -> "ReadyPredictions":
        return ReadyPredictions(self, fold_data)


@dataclass(frozen=True, eq=False)
class ReadyPredictions(ReadyPredictor):
    """The predictions of one fold, or of a split."""

    predictor: FilePredictor
    fold_data: FoldData

    def predict_probabilities(self, record_indices: np.ndarray) -> tuple[np.ndarray, None]:
        rows = self.fold_data.cohort.rows
        probabilities = [
            self.predictor.probability_by_record[self.fold_data.repeat, rows[record_index].file]
            for record_index in record_indices
        ]
        return np.array(probabilities), None


def make_record_predictions(predictions_file: PredictionsFile, cohort: Cohort) -> Predictions:
    """The predictions of all repeats, of the records that are tested, in the cohort's order."""
    matched_table = match_predictions(predictions_file, cohort)
    tested_files = set(matched_table["file"])
    tested_rows = [row for row in cohort.rows if row.file in tested_files]
    record_table = pd.DataFrame(
        {
            "file": [row.file for row in tested_rows],
            "subject": [row.subject for row in tested_rows],
            "site": [row.site for row in tested_rows],
            "label": [row.label for row in tested_rows],
        }
    )
    leader_by_subject = find_group_leaders(record_table["subject"], cohort.groups)
    record_table[SAME_SCAN_COLUMN] = record_table["subject"].map(leader_by_subject)
    probability_columns = ["file", "probability", "fold"]
    repeat_tables = [
        record_table.merge(repeat_table[probability_columns], on="file")
        for _, repeat_table in matched_table.groupby("repeat")
    ]
    return Predictions.from_tables(*repeat_tables)


def match_predictions(predictions_file: PredictionsFile, cohort: Cohort) -> pd.DataFrame:
    """The rows of the file, with `subject` and `file` as the cohort has them: each tested record once in each repeat,
    which are all records with folds, and those of the test split without. Raises InputError for other rows."""
    subjects = find_subjects(predictions_file, cohort)
    if not predictions_file.has_folds:
        check_no_training_people(subjects, cohort, predictions_file.path)

    files_by_subject: dict[str, list[str]] = {}
    for row in cohort.rows:
        if predictions_file.has_folds or row.split == "test":
            files_by_subject.setdefault(row.subject, []).append(row.file)
    record_files = [
        find_record_file(subject, file_name, files_by_subject[subject], predictions_file.path)
        for subject, file_name in zip(subjects, predictions_file.table["file"], strict=True)
    ]
    matched_table = predictions_file.table.assign(subject=subjects, file=record_files)
    check_no_repeated_record(matched_table, predictions_file)
    check_all_records_predicted(matched_table, files_by_subject, cohort, predictions_file.path)
    return matched_table


def find_subjects(predictions_file: PredictionsFile, cohort: Cohort) -> list[str]:
    """The participant of each row, by an ID that is the same or, as spreadsheets and BIDS change it, the same in the
    form that is compared. Raises InputError for IDs that the cohort has not."""
    cohort_subjects = list(dict.fromkeys(row.subject for row in cohort.rows))
    count_by_normalised_id = Counter(map(normalise_id, cohort_subjects))
    subject_by_id = {
        normalise_id(subject): subject
        for subject in cohort_subjects
        if count_by_normalised_id[normalise_id(subject)] == 1
    }
    subject_by_id |= {subject: subject for subject in cohort_subjects}

    file_ids = predictions_file.table["id"].tolist()
    subjects = [subject_by_id.get(file_id) or subject_by_id.get(normalise_id(file_id)) for file_id in file_ids]
    unknown_ids = list(
        dict.fromkeys(file_id for file_id, subject in zip(file_ids, subjects, strict=True) if subject is None)
    )
    if not any(subjects):
        raise InputError(
            f"{predictions_file.path} has none of the IDs of {cohort.path}, such as "
            f"{join_examples(cohort_subjects)}; its column id holds {join_examples(unknown_ids)}. Expected the same "
            "IDs: correct one of both."
        )
    if unknown_ids:
        raise InputError(
            f"{predictions_file.path} has {len(unknown_ids)} IDs that {cohort.path} has not: "
            f"{join_names(unknown_ids)}; expected its participants only, such as {join_examples(cohort_subjects)}. "
            "Leave these rows out."
        )
    return [subject for subject in subjects if subject is not None]


def join_examples(ids: Sequence[str]) -> str:
    return ", ".join(sorted(ids)[:MESSAGE_ID_COUNT])


def check_no_training_people(subjects: Collection[str], cohort: Cohort, file_path: Path) -> None:
    """Raises InputError if training participants of the split are among those who are predicted."""
    training_subjects = sorted(set(subjects) & set(cohort.list_split_subjects("train")))
    if training_subjects:
        raise InputError(
            f"{file_path} predicts {format_participants(len(training_subjects), 'training')} of {cohort.path}: "
            f"{join_names(training_subjects)}; expected its test participants only. Leave the others out or, if the "
            "model was cross-validated, add a column fold."
        )


def find_record_file(subject: str, file_name: str, subject_files: Sequence[str], file_path: Path) -> str:
    """The name of the record that a row predicts. Raises InputError if that is not clear."""
    if file_name in subject_files:
        return file_name
    if file_name:
        raise InputError(
            f"{file_path} names the file {file_name} of participant {subject}; expected {join_names(subject_files)}, "
            "as subjects.csv of the cohort has it. Correct it."
        )
    if len(subject_files) > 1:
        raise InputError(
            f"{file_path} does not say which scan of participant {subject} it predicts; expected a column file, with "
            f"names as subjects.csv of the cohort has them: {join_names(subject_files)}. Add it."
        )
    return subject_files[0]


def check_no_repeated_record(matched_table: pd.DataFrame, predictions_file: PredictionsFile) -> None:
    """Raises InputError for two predictions of one record in one repeat."""
    repeated_subjects = matched_table["subject"][matched_table.duplicated(["repeat", "file"])].unique().tolist()
    if repeated_subjects:
        repeat_advice = ""
        if predictions_file.has_folds and not predictions_file.has_repeats:
            repeat_advice = " or, if these are repeats, number them in a column repeat"
        raise InputError(
            f"{predictions_file.path} predicts {join_names(repeated_subjects)} twice; expected one row for each scan"
            f"{' in each repeat' if predictions_file.has_repeats else ''}. Leave rows out{repeat_advice}."
        )


def check_all_records_predicted(
    matched_table: pd.DataFrame, files_by_subject: Mapping[str, Sequence[str]], cohort: Cohort, file_path: Path
) -> None:
    """Raises InputError for a tested record without a prediction in some repeat."""
    for repeat_number, repeat_table in matched_table.groupby("repeat"):
        predicted_files = set(repeat_table["file"])
        missing_subjects = [
            subject
            for subject, subject_files in files_by_subject.items()
            if not predicted_files.issuperset(subject_files)
        ]
        if missing_subjects:
            has_repeats = matched_table["repeat"].nunique() > 1
            repeat_text = f" in repeat {repeat_number} (counted from 0)" if has_repeats else ""
            raise InputError(
                f"{file_path} lacks {len(missing_subjects)} of {format_participants(len(files_by_subject))} of "
                f"{cohort.path}{repeat_text}: {join_names(missing_subjects)}; expected a prediction of each scan. Add "
                "them, or convert without these participants (--exclude)."
            )


def find_subject_folds(repeat_table: pd.DataFrame, cohort: Cohort, file_path: Path) -> dict[str, str]:
    """Subject -> fold, of one repeat, in the cohort's order. Raises InputError if one's scans are in several folds."""
    fold_by_file = dict(zip(repeat_table["file"], repeat_table["fold"], strict=True))
    fold_by_subject: dict[str, str] = {}
    for row in cohort.rows:
        fold_name = fold_by_file[row.file]
        if fold_by_subject.setdefault(row.subject, fold_name) != fold_name:
            raise InputError(
                f"{file_path} has scans of participant {row.subject} in the folds {fold_by_subject[row.subject]} and "
                f"{fold_name}; expected one fold, since a model that has seen a scan knows the other. Predict again."
            )
    return fold_by_subject
