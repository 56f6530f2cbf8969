"""Lines of modules on standard input -> JSON: what TensorFlow would find in its environment when one of a line first
asks for it. Each line is imported in a process of its own, which has imported no module of this project before."""

import importlib
import json
import os
import runpy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
PROJECT_PACKAGES = ("data", "models", "utils", "run", "conftest")
ENVIRONMENT_VARIABLES = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "KERAS_BACKEND")
PRELOADED_MODULES = (  # imported once, before the processes part
    *("h5py", "jinja2", "matplotlib.pyplot", "nibabel", "nilearn.image", "nilearn.plotting", "pandas", "pydantic"),
    *("hypothesis", "pytest", "rich.progress", "scipy.stats", "sklearn.linear_model", "sklearn.svm", "statsmodels.api"),
)


class Hook:
    """Ends the process when TensorFlow, or what brings it, is asked for, after `send_environment` was told the
    environment."""

    def __init__(self, send_environment):
        self.send_environment = send_environment

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in ("tensorflow", "keras", "tensorboard"):
            self.send_environment({"asked": name, "found": read_environment()})
            os._exit(0)


def read_environment() -> dict[str, str | None]:
    return {variable: os.environ.get(variable) for variable in ENVIRONMENT_VARIABLES}


def import_modules(names: str) -> dict:
    """What the hook found in a new process; or, if nothing asked for TensorFlow, what a function would find later."""
    reading, writing = os.pipe()
    if not os.fork():
        sys.meta_path.insert(
            0, Hook(lambda environment_report: os.write(writing, json.dumps(environment_report).encode()))
        )
        for name in names.split():
            runpy.run_path(str(ROOT / name)) if name.endswith(".py") else importlib.import_module(name)
        os.write(writing, json.dumps({"asked": None, "found": read_environment()}).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        report_json = pipe.read()
    os.wait()
    return json.loads(report_json or '{"asked": null, "found": null}')  # null: it could not be imported


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    warnings.simplefilter("ignore")
    for package in PRELOADED_MODULES:
        importlib.import_module(package)
    imported_too_early = [
        name for name in sys.modules if name in ("tensorflow", "keras") or name.split(".")[0] in PROJECT_PACKAGES
    ]
    assert not imported_too_early, imported_too_early
    print(json.dumps({module_line: import_modules(module_line) for module_line in sys.stdin.read().splitlines()}))
