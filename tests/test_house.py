"""How much of this code a training takes: what a reader has to know of it must not grow unseen."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT, TINY_NN

# The most files of which a function is executed, and modules that are loaded. Who needs more takes something out.
EXECUTED = {"nn": 28, "mmnn": 33}
LOADED = 48

SCRIPT = """
import json, sys, threading
from inspect import CO_OPTIMIZED
from pathlib import Path

root, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
sys.path.insert(0, str(root))
executed = set()

def profile(frame, event, _):
    code = frame.f_code
    if event == "call" and code.co_flags & CO_OPTIMIZED:  # no body of a module or a class
        executed.add(code.co_filename)

def ours(names):
    return sorted(str(Path(name).relative_to(root)) for name in names if Path(name).is_relative_to(root))

import models, utils  # what configures TensorFlow
import tensorflow, keras  # thousands of calls that are not ours

found = {}
threading.setprofile(profile)
for model, words in settings.items():
    executed.clear()
    sys.argv = ["run.py", "--train", "--model", model, *words]
    sys.setprofile(profile)
    import run

    assert run.main() == 0
    sys.setprofile(None)
    found[model] = [name for name in ours(executed) if not name.startswith((".venv", "<"))]
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
loaded = [name for name in ours(files) if not name.startswith(".venv") and (root / name).stat().st_size]
print(json.dumps({"executed": found, "loaded": loaded}))
"""


@pytest.mark.slow
def test_a_training_takes_no_more_of_the_house_than_before(cohort, tmp_path):
    places = ["--numIters", "2", "--dataDir", str(cohort), "--chkPointDir", str(tmp_path / "ckpt")]
    own = {"nn": list(TINY_NN), "mmnn": ["--preset", "regions", *TINY_NN]}
    settings = {model: [*map(str, words), *places, "--outDir", str(tmp_path / model)] for model, words in own.items()}
    command = [sys.executable, "-c", SCRIPT, str(ROOT), json.dumps(settings)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    for model, most in EXECUTED.items():
        files = found["executed"][model]
        assert len(files) <= most, files
        assert len(files) >= most - 2, f"{model}: {len(files)} files; lower EXECUTED"
    assert len(found["loaded"]) <= LOADED, found["loaded"]
