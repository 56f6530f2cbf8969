"""ARCHITECTURE.md: what it names exists, and its model can be added, trained, tested and blacked out as it says."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from pages import FENCED, text_of

PAGE = ROOT / "ARCHITECTURE.md"
FILE = re.compile(r"# (\S+\.py)(?:, (at the end|after the line .+))?")  # the first line of a block
RESULT = re.compile(r"# (results/\S+)")  # what the comment behind a command promises
OF_EDGES = [  # a model as a user may add it
    """# models/edges.py
from dataclasses import dataclass

from models import Settings


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    members = 1


PRESETS = {"dense": Config()}


def build(config, grid, maps=1, edges=0):
    import keras

    from models import averaging, layers, parts

    connectome = keras.Input((edges,), name="connectome")
    known = keras.ops.where(keras.ops.isnan(connectome), 0.0, connectome)
    features = keras.layers.Reshape((1, edges))(known)
    settings = config.layer_settings(0.1)
    branch = parts.Branch("edges", lambda members: features, settings, starts_from_zero=True, within_sites=True)
    return averaging.classifier("edges", {"connectome": connectome}, [branch], config.members)
""",
    """# models/__init__.py, after the line Model("nn",
        Model("edges", ("connectome",), "label", "cross_entropy"),
""",
]
LEFT_OUT = ("docs/evidence/", "images/", "tests/snapshots/")


def tracked() -> list[str]:
    """The files that git has, or will have."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()})


def test_whatever_it_names_exists():
    """Files and folders, and words of the source."""
    names = tracked()
    source = [name for name in names if re.match(r"(data|models|utils|tests)/.*\.py|\w+\.(py|toml)|Makefile", name)]
    words = {word for name in source for word in re.findall(r"\w+", text_of(ROOT / name))}
    spans = re.findall(r"`([^`\n]+)`", FENCED.sub("", text_of(PAGE)))
    for part in " ".join(spans).split():
        if re.fullmatch(r"[\w/.]+/[\w.]*|\w+\.py", part):
            assert (ROOT / part).exists() or any(name.endswith(f"/{part}") for name in names), part
        else:
            assert set(re.findall(r"\w+", part)) <= words, part


def test_the_rows_that_it_shows_are_refusals():
    """A row, and the file that has it in the comment behind it."""
    shown = re.findall(r"^(row\(.+)  # (\w+\.py)", text_of(PAGE), re.MULTILINE)
    assert len(shown) == 2
    for row, name in shown:
        assert f"    {row},\n" in text_of(ROOT / "tests/refusals" / name)


def put(folder: Path, block: str) -> None:
    """Puts a block of the page where its first line says."""
    first, _, code = block.partition("\n")
    name, where = FILE.fullmatch(first).groups()
    path = folder / name
    if where is None:
        assert not path.exists(), name
        path.write_text(code)
    elif where == "at the end":
        path.write_text(f"{path.read_text()}\n\n{code}")
    else:
        beginning, lines = where.removeprefix("after the line "), path.read_text().splitlines(keepends=True)
        (at,) = (number for number, line in enumerate(lines) if line.strip().startswith(beginning))
        path.write_text("".join([*lines[: at + 1], code, *lines[at + 1 :]]))


def ends_well(folder: Path, *words: str) -> None:
    """Runs Python in a folder, whose modules come first."""
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> Path:
    """A copy of the source with the model of the page in it."""
    folder = tmp_path_factory.mktemp("added")
    for name in tracked():
        if not name.startswith(LEFT_OUT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for block in FENCED.findall(text_of(PAGE)):
        if FILE.match(block):
            put(folder, block)
    return folder


@pytest.mark.slow
def test_the_model_that_it_adds_passes_its_tests_and_the_linter(added):
    ends_well(added, "-m", "ruff", "check", "--no-cache", "models", "tests")
    ends_well(added, "-m", "ruff", "format", "--no-cache", "--check", "models", "tests")
    tests = [f"tests/test_{name}.py" for name in ("models", "occlusion", "baselines", "roads")]
    which = "(linear and not form) or mission or meets_an_end"  # not its whole road
    ends_well(added, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={added / 'tmp'}", *tests, "-k", which)


@pytest.mark.slow
def test_the_model_that_it_adds_is_trained_tested_and_blacked_out(added, cohort):
    commands = re.findall(r"^run\.py --.*", text_of(PAGE), re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        few = {"--train": ("--numIters", "2"), "--blackout": ("--donors", "1")}
        words = shlex.split(command, comments=True)
        ends_well(added, *words, *few.get(words[1], ()), "--dataDir", str(cohort))
        for result in RESULT.findall(command):
            assert (added / result).is_file(), result


@pytest.mark.slow
def test_a_model_of_connectomes_alone_is_trained_and_tested_and_its_blackout_refused(added, converted, tmp_path):
    folder = shutil.copytree(added, tmp_path / "source", ignore=shutil.ignore_patterns("tests", "docs", "results"))
    for block in OF_EDGES:
        put(folder, block)
    places = ("--model", "edges", "--dataDir", str(converted), "--chkPointDir", "ckpt")
    ends_well(folder, "run.py", "--train", "--numIters", "1", *places)
    ends_well(folder, "run.py", "--test", *places)
    command = [sys.executable, "run.py", "--blackout", *places]
    refused = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert refused.returncode == 2 and re.fullmatch(r"run.py: error: .*connectomes.*--model mmnn.*\n", refused.stderr)
