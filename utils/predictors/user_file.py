"""`--estimator mine.py:name`: the user's file -> a function that returns an unfitted scikit-learn classifier.

The file runs with the user's rights when it is named on the command line. Nothing is unpickled.
"""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from data.base.errors import InputError, quote_text
from utils.predictors.user_code import format_user_error

DEFAULT_FUNCTION_NAME = "make"
EXAMPLE_TEXT = "def make(): return LogisticRegression()"
KERAS_ADVICE = (
    "wrap a network, so that it has scikit-learn's fit and predict_proba (skorch.NeuralNetClassifier, "
    "scikeras.wrappers.KerasClassifier)"
)


@dataclass(frozen=True)
class UserFile:
    """A file of the user's, which has been run, and the function in it that makes the estimator."""

    path: Path
    function_name: str
    sha256: str  # of the file, and of the files beside it that it imports
    make: Callable[[], Any]
    shows_traceback: bool  # of errors in the user's code

    @property
    def name(self) -> str:
        return f"{self.path.stem}-{self.function_name}"

    def make_estimator(self) -> BaseEstimator:
        """A new, unfitted classifier. Raises InputError for what is none."""
        try:
            estimator = self.make()
        except (Exception, SystemExit) as error:
            raise self.explain_error(error, f"in {self.function_name}()") from error
        check_unfitted_classifier(estimator, self)
        return estimator

    def explain_error(self, error: BaseException, place_text: str) -> InputError:
        """An error of the user's code as one line: where, in which line of the file, and what."""
        if self.shows_traceback:
            traceback.print_exception(error)
        return InputError(format_user_error(self.path, error, place_text))


def parse_estimator_option(estimator_text: str) -> tuple[Path, str]:
    """`mine.py:name` -> the file and the name of the function."""
    path_text, colon, function_name = estimator_text.rpartition(":")
    if colon and function_name.isidentifier():
        return Path(path_text), function_name
    return Path(estimator_text), DEFAULT_FUNCTION_NAME


def load_user_file(estimator_text: str, shows_traceback: bool) -> UserFile:
    """Runs the file that `--estimator` names. Raises InputError if it is not there, fails, or lacks the function."""
    file_path, function_name = parse_estimator_option(estimator_text)
    if not file_path.is_file() or file_path.suffix != ".py":
        raise InputError(
            f"--estimator {quote_text(estimator_text)} is no Python file; expected FILE.py or FILE.py:FUNCTION, with a "
            "function that returns an unfitted scikit-learn classifier."
        )
    module = run_user_file(file_path, shows_traceback)
    make = getattr(module, function_name, None)
    if not callable(make):
        raise InputError(
            f"{file_path} has no function {function_name}; expected one that returns an unfitted scikit-learn "
            f"classifier, such as {EXAMPLE_TEXT}. Name another one by --estimator {file_path}:NAME."
        )
    user_file = UserFile(file_path, function_name, compute_code_sha256(file_path), make, shows_traceback)
    user_file.make_estimator()  # a mistake there is reported before the cohort is read
    return user_file


def run_user_file(file_path: Path, shows_traceback: bool) -> ModuleType:
    """The file as a module by its own name, by which processes that it starts import it, too."""
    module_name = file_path.stem
    folder = str(file_path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that no file there takes the place of a module of this program
    module_path = find_module_path(module_name)
    if module_path is None or not module_path.samefile(file_path):
        raise InputError(
            f"{file_path} has a name that another module has, or that no module can have; rename it, such as "
            "my_model.py."
        )
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script may end itself
        if shows_traceback:
            traceback.print_exception(error)
        raise InputError(format_user_error(file_path, error, "as it was run")) from error


def find_module_path(module_name: str) -> Path | None:
    """The file that an import of this name would run; None if there is none, as for a module of the interpreter."""
    if not module_name.isidentifier():
        return None
    try:
        module_spec = importlib.util.find_spec(module_name)
    except ValueError:  # __main__
        return None
    return Path(module_spec.origin) if module_spec and module_spec.has_location and module_spec.origin else None


def compute_code_sha256(file_path: Path) -> str:
    """SHA-256 of the file, and of all modules in its folder that it has imported, in the order of their names."""
    folder = file_path.resolve().parent
    imported_paths = {file_path.resolve()}
    for module in [*sys.modules.values()]:
        module_file = getattr(module, "__file__", None)
        if module_file and Path(module_file).resolve().parent == folder:
            imported_paths.add(Path(module_file).resolve())
    digest = hashlib.sha256()
    for imported_path in sorted(imported_paths):
        digest.update(imported_path.read_bytes())
    return digest.hexdigest()


def check_unfitted_classifier(estimator: Any, user_file: UserFile) -> None:
    """Raises InputError for what is no unfitted scikit-learn classifier."""
    place_text = f"{user_file.path}: {user_file.function_name}() returned {quote_text(type(estimator).__name__)}"
    expectation_text = "expected an unfitted scikit-learn classifier"
    package_names = {base_class.__module__.partition(".")[0] for base_class in type(estimator).__mro__}
    if package_names & {"keras", "tensorflow", "torch"}:
        raise InputError(f"{place_text}, a network; {expectation_text}: {KERAS_ADVICE}.")
    if isinstance(estimator, type):
        raise InputError(f"{place_text}, a class; {expectation_text}: call it, as in return {estimator.__name__}().")
    if not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
        raise InputError(
            f"{place_text}, which lacks fit or get_params; {expectation_text}, or a class of yours that inherits from "
            "ClassifierMixin and BaseEstimator."
        )
    if not has_classifier_tag(estimator):
        raise InputError(
            f"{place_text}, which is no classifier; {expectation_text}, not a regressor or a transformer. A class of "
            "yours inherits from ClassifierMixin, then BaseEstimator."
        )
    if not (hasattr(estimator, "predict_proba") or hasattr(estimator, "decision_function")):
        raise InputError(
            f"{place_text}, which has neither predict_proba nor decision_function; {expectation_text} that has one."
        )
    if is_fitted(estimator):
        raise InputError(
            f"{place_text}, which is fitted already, on people who may be tested; {expectation_text}: do not call fit "
            f"in {user_file.function_name}()."
        )
    try:
        clone(estimator)
    except Exception as error:
        raise InputError(
            f"{place_text}, which cannot be cloned ({' '.join(str(error).split())[:200]}); {expectation_text} whose "
            "__init__ only stores its arguments."
        ) from error


def has_classifier_tag(estimator: Any) -> bool:
    """Whether scikit-learn knows it as a classifier."""
    try:
        return is_classifier(estimator)
    except AttributeError:  # a class that does not inherit from BaseEstimator has no tags
        return False


def is_fitted(estimator: BaseEstimator) -> bool:
    """Whether an estimator that needs a fit has had one."""
    if not get_tags(estimator).requires_fit:
        return False
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True
