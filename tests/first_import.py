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
OURS = ("data", "models", "utils", "run", "conftest")
VARIABLES = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "KERAS_BACKEND")
OTHERS = (  # imported once, before the processes part
    *("h5py", "jinja2", "matplotlib.pyplot", "nibabel", "nilearn.image", "nilearn.plotting", "pandas", "pydantic"),
    *("hypothesis", "pytest", "rich.progress", "scipy.stats", "sklearn.linear_model", "sklearn.svm", "statsmodels.api"),
)


class Hook:
    """Ends the process when TensorFlow, or what brings it, is asked for, after `tell` was told the environment."""

    def __init__(self, tell):
        self.tell = tell

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name in ("tensorflow", "keras", "tensorboard"):
            self.tell({"asked": name, "found": found()})
            os._exit(0)


def found() -> dict[str, str | None]:
    return {variable: os.environ.get(variable) for variable in VARIABLES}


def of_modules(names: str) -> dict:
    """What the hook found in a new process; or, if nothing asked for TensorFlow, what a function would find later."""
    reading, writing = os.pipe()
    if not os.fork():
        sys.meta_path.insert(0, Hook(lambda what: os.write(writing, json.dumps(what).encode())))
        for name in names.split():
            runpy.run_path(str(ROOT / name)) if name.endswith(".py") else importlib.import_module(name)
        os.write(writing, json.dumps({"asked": None, "found": found()}).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        told = pipe.read()
    os.wait()
    return json.loads(told or '{"asked": null, "found": null}')  # null: it could not be imported


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    warnings.simplefilter("ignore")
    for package in OTHERS:
        importlib.import_module(package)
    early = [name for name in sys.modules if name in ("tensorflow", "keras") or name.split(".")[0] in OURS]
    assert not early, early
    print(json.dumps({names: of_modules(names) for names in sys.stdin.read().splitlines()}))
