"""The user's estimator as a predictor: it is cloned and fitted on the training people of each fold, whenever it is
used; nothing of it is stored. It is given no row and no label of a test person."""

import inspect
import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import sklearn
from scipy.special import logit
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, StratifiedGroupKFold, check_cv

from data.base.errors import InputError
from data.base.tables import make_printable
from data.base.terminal import open_progress_bar
from data.cohorts.cohort import Cohort
from data.cohorts.groups import find_group_leaders
from data.cohorts.inputs import choose_input_kinds, make_input_table
from data.images.atlas import Atlas, load_printable_atlas
from utils.predictors.user_code import OutputRecorder
from utils.predictors.user_file import UserFile
from utils.runs.predictor import FoldData, Predictor, ReadyPredictor
from utils.runs.record import Choices

PHENOTYPE_PREFIX = "phenotype "
INPUT_NAME_BY_KIND = {"maps": "volume"}  # where the word of --inputs is not that of `Predictor.input_names`
CALIBRATION_FOLDS = 5  # inner folds of the training people, for estimators without predict_proba
CLIPPED_PROBABILITY = 0.001  # probabilities below it, or above 1 minus it, have the logit of this
LEAST_SLOPE = 1e-4  # of log odds, a unit of a decision function
MAX_DESCRIPTION_LETTERS = 300  # letters of the estimator's parameters in the methods of a paper


@dataclass(frozen=True)
class EstimatorPredictor(Predictor):
    """The estimator of a user's file, which reads `input_kinds` of a cohort and region means by `atlas_path`."""

    user_file: UserFile
    requested_kinds_text: str | None  # of --inputs
    atlas_path: Path | None  # None: AAL
    input_kinds: tuple[str, ...] = ()  # chosen by the cohort

    noun = "estimator"
    is_fitted_when_used = True

    @property
    def name(self) -> str:
        return self.user_file.name

    @property
    def description(self) -> str:
        return self.name

    @property
    def has_decision_function(self) -> bool:
        return hasattr(self.user_file.example_estimator, "decision_function")

    @property
    def output_noun(self) -> str:
        return "decision function" if self.has_decision_function else "logit"

    @property
    def path(self) -> Path:
        return self.user_file.path

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(INPUT_NAME_BY_KIND.get(kind, kind) for kind in self.input_kinds)

    def find_sha256(self) -> str:
        return self.user_file.sha256

    def for_cohort(self, cohort: Cohort) -> "EstimatorPredictor":
        input_kinds = choose_input_kinds(cohort, self.requested_kinds_text)
        return EstimatorPredictor(self.user_file, self.requested_kinds_text, self.atlas_path, input_kinds)

    def load_atlas(self, cohort: Cohort) -> Atlas:
        """The regions whose means it reads."""
        return load_printable_atlas(self.atlas_path, cohort.region_grid)

    def make_choices(self, seed: int, cohort: Cohort) -> Choices:
        return Choices(
            model=self.name,
            preset="",
            config={"inputs": list(self.input_kinds)},
            grid=cohort.grid.name if "maps" in self.input_kinds else None,
            seed=seed,
            precision="",
            noun=self.noun,
            input_names=self.input_names,
            methods_sentences=self.describe_methods(seed, cohort),
        )

    def describe_methods(self, seed: int, cohort: Cohort) -> str:
        """What the methods of a paper say of it."""
        estimator = self.user_file.example_estimator
        estimator_text = make_printable(" ".join(repr(estimator).split()))[:MAX_DESCRIPTION_LETTERS]
        input_texts = {
            "maps": f"the means of maps in the {len(self.load_atlas(cohort).region_numbers)} regions of "
            f"{self.atlas_path.name if self.atlas_path else 'AAL'}",
            "phenotype": "the phenotype",
            "connectome": "the Fisher z of connectomes",
            "covariates": "the covariates",
        }
        inputs_text = ", ".join(input_texts[kind] for kind in self.input_kinds)
        probability_text = ""
        if not hasattr(estimator, "predict_proba"):
            probability_text = (
                " Its probabilities are a logistic function of its decision function, fitted in "
                f"{CALIBRATION_FOLDS} inner folds of the training participants; it never reverses the order."
            )
        return (
            f"It was an estimator of the authors' (SHA-256 {self.user_file.sha256}; scikit-learn "
            f"{sklearn.__version__}): {estimator_text}. It was cloned and fitted on the training participants of each "
            f"fold, with its random states set to {seed} plus the number of the repeat. It read {inputs_text}, raw, "
            f"with unknown values as such.{probability_text}"
        )

    def make_ready(self, fold_data: FoldData) -> "ReadyEstimator":
        """Fits it. Raises InputError for whatever goes wrong in it."""
        cohort = fold_data.cohort
        train_indices = cohort.find_split_record_indices("train")
        training_inputs = make_input_table(cohort, train_indices, self.input_kinds, self.load_atlas(cohort))
        training_rows = [cohort.rows[train_index] for train_index in train_indices]
        training_labels = np.array([int(training_row.label) for training_row in training_rows])
        subjects = pd.Series([training_row.subject for training_row in training_rows])
        cluster_names = subjects.map(find_group_leaders(subjects, cohort.groups)).to_numpy()

        fold_text = f"as it was fitted{f' for fold {fold_data.fold_label}' if fold_data.fold_label else ''}"
        recorder = OutputRecorder()
        estimator = self.user_file.make_estimator(recorder)
        with open_progress_bar(f"Fitting {self.name}", 1) as progress_bar:
            progress_bar.advance(steps=0)  # before, since it may take long
            with self.user_file.code.run(fold_text, recorder):
                estimator = prepare_estimator(estimator, fold_data.seed)
                fitted_estimator = fit_estimator(estimator, training_inputs, training_labels, cluster_names)
            progress_bar.advance()
        self.check_fitted_classes(fitted_estimator, fold_text)
        return ReadyEstimator(self, fold_data, fitted_estimator, training_inputs, recorder)

    def check_fitted_classes(self, fitted_estimator: BaseEstimator, place_text: str) -> None:
        classes = getattr(fitted_estimator, "classes_", None)
        if classes is None or [*np.asarray(classes)] != [0, 1]:
            raise InputError(
                f"{self.path}, {place_text}: its classes_ are {classes}; expected [0, 1], control and autism. Fit it "
                "on y as it is given, and set classes_ in fit."
            )


class LogOdds(NamedTuple):
    """What a blackout replaces parts of the inputs for."""

    log_odds: np.ndarray  # (n,) float64, larger for autism: the decision function, or the logit of the probability
    is_clipped: np.ndarray  # (n,) bool, whether the probability was outside `CLIPPED_PROBABILITY` and 1 minus that


@dataclass(frozen=True, eq=False)
class ReadyEstimator(ReadyPredictor):
    """An estimator that is fitted on the training people of a fold."""

    predictor: EstimatorPredictor
    fold_data: FoldData
    fitted_estimator: BaseEstimator
    training_inputs: pd.DataFrame
    recorder: OutputRecorder

    @property
    def printed_text(self) -> str:
        return self.predictor.user_file.printed_text + self.recorder.text

    def predict_probabilities(self, record_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        cohort = self.fold_data.cohort
        atlas = self.predictor.load_atlas(cohort)
        inputs = make_input_table(cohort, record_indices, self.predictor.input_kinds, atlas)
        probabilities = self.predict_of_inputs(inputs)
        if "phenotype" not in self.predictor.input_kinds:
            return probabilities, None
        masked_inputs = mask_missing_phenotype(inputs, self.training_inputs)
        masked_probabilities = probabilities if masked_inputs.equals(inputs) else self.predict_of_inputs(masked_inputs)
        return probabilities, masked_probabilities

    @property
    def prediction_place_text(self) -> str:
        """Where it predicts, for messages."""
        fold_label = self.fold_data.fold_label
        return f"as it predicted{f' fold {fold_label}' if fold_label else ''}"

    def predict_of_inputs(self, inputs: pd.DataFrame) -> np.ndarray:
        """The probability of autism (n,) float64 of each row. Raises InputError for what is none."""
        place_text = self.prediction_place_text
        with self.predictor.user_file.code.run(place_text, self.recorder):
            class_probabilities = np.asarray(self.fitted_estimator.predict_proba(inputs), float)
        problem_text = ""
        if class_probabilities.shape != (len(inputs), 2):
            problem_text = f"of the shape {class_probabilities.shape}; expected {(len(inputs), 2)}"
        elif not np.isfinite(class_probabilities).all():
            problem_text = "that are NaN or infinite; expected numbers"
        elif class_probabilities.min() < 0 or class_probabilities.max() > 1:
            problem_text = (
                f"from {class_probabilities.min():g} to {class_probabilities.max():g}; expected numbers from 0 to 1"
            )
        if problem_text:
            raise InputError(
                f"{self.predictor.path}, {place_text}: predict_proba returned probabilities {problem_text}, a column "
                "for each of the classes 0 and 1. Correct it."
            )
        return class_probabilities[:, 1]

    def compute_log_odds(self, inputs: pd.DataFrame) -> LogOdds:
        """Its decision function of each row or, without one, the logit of the probability of autism, which is clipped,
        since it is infinite where all trees of a forest agree. Raises InputError for what is none."""
        if not self.predictor.has_decision_function:
            probabilities = self.predict_of_inputs(inputs)
            clipped_probabilities = np.clip(probabilities, CLIPPED_PROBABILITY, 1 - CLIPPED_PROBABILITY)
            return LogOdds(logit(clipped_probabilities), probabilities != clipped_probabilities)

        deciding_estimator = self.fitted_estimator
        if isinstance(deciding_estimator, CalibratedClassifierCV):
            # of `fit_estimator`: one calibrated classifier, whose estimator is fitted on all training people
            deciding_estimator = deciding_estimator.calibrated_classifiers_[0].estimator
        place_text = self.prediction_place_text
        with self.predictor.user_file.code.run(place_text, self.recorder):
            decisions = np.asarray(deciding_estimator.decision_function(inputs), float)
        if decisions.shape != (len(inputs),) or not np.isfinite(decisions).all():
            raise InputError(
                f"{self.predictor.path}, {place_text}: decision_function returned an array of the shape "
                f"{decisions.shape}; expected {(len(inputs),)}, finite numbers, larger for autism. Correct it."
            )
        return LogOdds(decisions, np.zeros(len(inputs), bool))


def prepare_estimator(estimator: BaseEstimator, seed: int) -> BaseEstimator:
    """A clone whose random states, and those of NumPy and Python that others draw from, are set by the seed."""
    cloned_estimator = clone(estimator)
    random_state_names = [
        parameter_name
        for parameter_name in cloned_estimator.get_params(deep=True)
        if parameter_name == "random_state" or parameter_name.endswith("__random_state")
    ]
    cloned_estimator.set_params(**dict.fromkeys(random_state_names, seed))
    np.random.seed(seed)
    random.seed(seed)
    return cloned_estimator


def fit_estimator(
    estimator: BaseEstimator, training_inputs: pd.DataFrame, training_labels: np.ndarray, cluster_names: np.ndarray
) -> BaseEstimator:
    """The estimator, fitted; without `predict_proba` one whose probabilities are a logistic of its decision function,
    fitted in inner folds that cut no family or shared scan."""
    fit_arguments = {"groups": cluster_names} if takes_groups(estimator) else {}
    if hasattr(estimator, "predict_proba"):
        return estimator.fit(training_inputs, training_labels, **fit_arguments)
    if np.bincount(training_labels, minlength=2).min() < CALIBRATION_FOLDS:
        raise InputError(
            f"An estimator without predict_proba needs {CALIBRATION_FOLDS} training participants of each class, for "
            "inner folds; expected more. Use one that has predict_proba."
        )
    inner_splits = [*StratifiedGroupKFold(CALIBRATION_FOLDS).split(training_inputs, training_labels, cluster_names)]
    calibrated_estimator = CalibratedClassifierCV(estimator, method="sigmoid", cv=inner_splits, ensemble=False)
    calibrated_estimator.fit(training_inputs, training_labels)
    keep_order_of_decisions(calibrated_estimator, training_labels)
    return calibrated_estimator


def keep_order_of_decisions(calibrated_estimator: CalibratedClassifierCV, training_labels: np.ndarray) -> None:
    """Makes a logistic function that falls with the decision function rise a little. It falls if the inner folds are
    worse than chance, as those of few people or of a model without evidence are, and would rank people backwards. Now
    each probability is nearly the share of the class, in the order of the decision function."""
    (calibrated_classifier,) = calibrated_estimator.calibrated_classifiers_
    (sigmoid,) = calibrated_classifier.calibrators  # probability = 1 / (1 + exp(a_ * decision + b_))
    if sigmoid.a_ > -LEAST_SLOPE:
        sigmoid.a_ = -LEAST_SLOPE
        sigmoid.b_ = -logit(training_labels.mean())


def takes_groups(estimator: BaseEstimator) -> bool:
    """Whether `fit` takes families and shared scans: by its signature, or as a search in inner folds of groups."""
    if isinstance(estimator, GridSearchCV | RandomizedSearchCV):
        return "Group" in type(check_cv(estimator.cv)).__name__
    return "groups" in inspect.signature(estimator.fit).parameters


def mask_missing_phenotype(inputs: pd.DataFrame, training_inputs: pd.DataFrame) -> pd.DataFrame:
    """The inputs with what is missing of the phenotype as it is for most training people: where most have a value,
    unknown ones become the median, or the most common category; where most have none, all become unknown."""
    phenotype_columns = [column for column in inputs if column.startswith(PHENOTYPE_PREFIX)]
    incomplete_columns = [
        column for column in phenotype_columns if inputs[column].isna().any() or training_inputs[column].isna().any()
    ]
    masked_inputs = inputs.copy()
    for column in incomplete_columns:
        known_training_values = training_inputs[column].dropna()
        if 2 * len(known_training_values) < len(training_inputs):
            masked_inputs[column] = pd.Series(np.nan, inputs.index).astype(inputs[column].dtype)
        elif isinstance(inputs[column].dtype, pd.CategoricalDtype):
            masked_inputs[column] = inputs[column].fillna(known_training_values.mode()[0])
        else:
            masked_inputs[column] = inputs[column].fillna(known_training_values.median())
    return masked_inputs
