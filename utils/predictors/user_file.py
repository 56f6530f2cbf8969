"""`--estimator mine.py:name`: the user's file -> a function that returns an unfitted scikit-learn classifier.

The file runs with the user's rights when it is named on the command line. Nothing is unpickled.
"""

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from data.base.errors import InputError, quote_text
from utils.predictors.user_code import OutputRecorder, UserCode

DEFAULT_FUNCTION_NAME = "make"
EXAMPLE_TEXT = "def make(): return LogisticRegression()"
KERAS_ADVICE = (
    "wrap a network, so that it has scikit-learn's fit and predict_proba (skorch.NeuralNetClassifier, "
    "scikeras.wrappers.KerasClassifier)"
)


@dataclass(frozen=True)
class UserFile:
    """A file of the user's, which has been run, and the function in it that makes the estimator."""

    code: UserCode
    function_name: str
    make: Callable[[], Any]
    sha256: str  # of the file, and of what it imports from its folder
    example_estimator: BaseEstimator  # what it makes, for descriptions
    printed_text: str  # what it printed until this was made

    @property
    def path(self) -> Path:
        return self.code.path

    @property
    def name(self) -> str:
        return f"{self.path.stem}-{self.function_name}"

    def make_estimator(self, recorder: OutputRecorder) -> BaseEstimator:
        """A new, unfitted classifier. Raises InputError for what is none."""
        return make_unfitted_classifier(self.code, self.make, self.function_name, recorder)


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
    code = UserCode(file_path, shows_traceback)
    recorder = OutputRecorder()
    earlier_module_names = {*sys.modules}
    make = import_function(code, function_name, recorder)
    # a mistake there is reported before the cohort is read
    example_estimator = make_unfitted_classifier(code, make, function_name, recorder)
    code_sha256 = compute_code_sha256(file_path, earlier_module_names)
    return UserFile(code, function_name, make, code_sha256, example_estimator, recorder.text)


def import_function(code: UserCode, function_name: str, recorder: OutputRecorder) -> Callable[[], Any]:
    """A function of the file, which runs as a module by its own name: processes that it starts import it by that, too.
    Raises InputError."""
    module_name = code.path.stem
    folder = str(code.path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that no file there takes the place of a module of this program
    module_path = find_module_path(module_name)
    if module_path is None or not module_path.samefile(code.path):
        raise InputError(
            f"{code.path} has a name that another module has, or that no module can have; rename it, such as "
            "my_model.py."
        )
    with code.run("as it was run", recorder), without_bytecode():
        module = importlib.import_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(
            f"{code.path} has no function {function_name}; expected one that returns an unfitted scikit-learn "
            f"classifier, such as {EXAMPLE_TEXT}. Name another one by --estimator {code.path}:NAME."
        )
    return function


def find_module_path(module_name: str) -> Path | None:
    """The file that an import of this name would run; None if there is none, as for a module of the interpreter."""
    if not module_name.isidentifier():
        return None
    try:
        module_spec = importlib.util.find_spec(module_name)
    except ValueError:  # __main__
        return None
    return Path(module_spec.origin) if module_spec and module_spec.has_location and module_spec.origin else None


@contextlib.contextmanager
def without_bytecode() -> Iterator[None]:
    """Imports leave no files in the user's folder."""
    was_without = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = was_without


def make_unfitted_classifier(
    code: UserCode, make: Callable[[], Any], function_name: str, recorder: OutputRecorder
) -> BaseEstimator:
    """What `make` returns. Raises InputError if that fails, or is no unfitted classifier."""
    with code.run(f"in {function_name}()", recorder), without_bytecode():
        estimator = make()
    check_unfitted_classifier(estimator, code.path, function_name)
    return estimator


def compute_code_sha256(file_path: Path, earlier_module_names: Collection[str]) -> str:
    """SHA-256 of the file, and of the modules in its folder, and in packages there, that were imported after those of
    `earlier_module_names`, in the order of their paths. Imports within `fit` are not known yet."""
    folder = file_path.resolve().parent
    environment_folder = Path(sys.prefix).resolve()  # in the user's folder, it is not the user's code
    imported_paths = {file_path.resolve()}
    for module_name in {*sys.modules} - {*earlier_module_names}:
        module_file = getattr(sys.modules[module_name], "__file__", None)
        module_path = Path(module_file).resolve() if module_file else None
        if module_path is None or module_path.is_relative_to(environment_folder):
            continue
        if module_path.is_relative_to(folder):
            imported_paths.add(module_path)
    digest = hashlib.sha256()
    for imported_path in sorted(imported_paths):
        digest.update(imported_path.read_bytes())
    return digest.hexdigest()


def check_unfitted_classifier(estimator: Any, file_path: Path, function_name: str) -> None:
    """Raises InputError for what is no unfitted scikit-learn classifier."""
    place_text = f"{file_path}: {function_name}() returned {quote_text(type(estimator).__name__)}"
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
            f"in {function_name}()."
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
