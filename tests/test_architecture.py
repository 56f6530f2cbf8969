"""ARCHITECTURE.md: what it names exists, and its model can be added, trained, tested and blacked out as it says."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from pages import FENCED_BLOCK, read_page_source

PAGE = ROOT / "ARCHITECTURE.md"
FILE_COMMENT = re.compile(r"# (\S+\.py)(?:, (at the end|after the line .+))?")  # the first line of a block
RESULT_COMMENT = re.compile(r"# (results/\S+)")  # what the comment behind a command promises
EDGE_MODEL_BLOCKS = [  # a model as a user may add it
    """# models/edges.py
from dataclasses import dataclass

from models import Settings


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    members = 1


PRESETS = {"dense": Config()}


def build(config, grid, maps=1, edges=0):
    import keras

    from models import averaging, layers

    connectome = keras.Input((edges,), name="connectome")
    known = keras.ops.where(keras.ops.isnan(connectome), 0.0, connectome)
    features = keras.layers.Reshape((1, edges))(known)
    settings = config.layer_settings(0.1)
    branch = averaging.Branch("edges", lambda members: features, settings, starts_from_zero=True, within_sites=True)
    return averaging.classifier("edges", {"connectome": connectome}, [branch], config.members)
""",
    """# models/__init__.py, after the line Model("nn",
        Model("edges", ("connectome",), "label", "cross_entropy"),
""",
]
OMITTED_FOLDERS = ("docs/evidence/", "images/", "tests/snapshots/")


def list_tracked_files() -> list[str]:
    """The files that git has, or will have."""
    git_command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    git_output = subprocess.run(git_command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({name for name in git_output.split("\0") if name and (ROOT / name).is_file()})


def test_whatever_it_names_exists():
    """Files and folders, and words of the source."""
    names = list_tracked_files()
    source = [name for name in names if re.match(r"(data|models|utils|tests)/.*\.py|\w+\.(py|toml)|Makefile", name)]
    words = {word for name in source for word in re.findall(r"\w+", read_page_source(ROOT / name))}
    spans = re.findall(r"`([^`\n]+)`", FENCED_BLOCK.sub("", read_page_source(PAGE)))
    for mention in " ".join(spans).split():
        if re.fullmatch(r"[\w/.]+/[\w.]*|\w+\.py", mention):
            assert (ROOT / mention).exists() or any(name.endswith(f"/{mention}") for name in names), mention
        else:
            assert set(re.findall(r"\w+", mention)) <= words, mention


def test_the_example_refusal_rows_exist():
    """A row, and the file that has it in the comment behind it."""
    example_rows = re.findall(r"^(row\(.+)  # (\w+\.py)", read_page_source(PAGE), re.MULTILINE)
    assert len(example_rows) == 2
    for row, name in example_rows:
        assert f"    {row},\n" in read_page_source(ROOT / "tests/refusals" / name)


def insert_block(folder: Path, block: str) -> None:
    """Puts a block of the page where its first line says."""
    first_line, _, code = block.partition("\n")
    name, where = FILE_COMMENT.fullmatch(first_line).groups()
    path = folder / name
    if where is None:
        assert not path.exists(), name
        path.write_text(code)
    elif where == "at the end":
        path.write_text(f"{path.read_text()}\n\n{code}")
    else:
        beginning, lines = where.removeprefix("after the line "), path.read_text().splitlines(keepends=True)
        (line_index,) = (number for number, line in enumerate(lines) if line.strip().startswith(beginning))
        path.write_text("".join([*lines[: line_index + 1], code, *lines[line_index + 1 :]]))


def run_python(folder: Path, *words: str) -> None:
    """Runs Python in a folder, whose modules come first."""
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> Path:
    """A copy of the source with the model of the page in it."""
    folder = tmp_path_factory.mktemp("added")
    for name in list_tracked_files():
        if not name.startswith(OMITTED_FOLDERS):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for block in FENCED_BLOCK.findall(read_page_source(PAGE)):
        if FILE_COMMENT.match(block):
            insert_block(folder, block)
    return folder


@pytest.mark.slow
def test_the_added_model_passes_tests_and_linter(added):
    run_python(added, "-m", "ruff", "check", "--no-cache", "models", "tests")
    run_python(added, "-m", "ruff", "format", "--no-cache", "--check", "models", "tests")
    tests = [f"tests/test_{name}.py" for name in ("models", "settings", "occlusion", "baselines", "roads")]
    test_selection = "(linear and not form) or has_a_contract or meets_an_end"  # not its whole road
    run_python(
        added, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={added / 'tmp'}", *tests, "-k", test_selection
    )


@pytest.mark.slow
def test_the_added_model_is_trained_tested_and_blacked_out(added, cohort):
    commands = re.findall(r"^run\.py --.*", read_page_source(PAGE), re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        short_options = {"--train": ("--numIters", "2"), "--blackout": ("--donors", "1")}
        words = shlex.split(command, comments=True)
        run_python(added, *words, *short_options.get(words[1], ()), "--dataDir", str(cohort))
        for result in RESULT_COMMENT.findall(command):
            assert (added / result).is_file(), result


@pytest.mark.slow
def test_a_connectome_model_is_trained_and_tested_and_blackout_refused(added, converted, tmp_path):
    folder = shutil.copytree(added, tmp_path / "source", ignore=shutil.ignore_patterns("tests", "docs", "results"))
    for block in EDGE_MODEL_BLOCKS:
        insert_block(folder, block)
    places = ("--model", "edges", "--dataDir", str(converted), "--chkPointDir", "ckpt")
    run_python(folder, "run.py", "--train", "--numIters", "1", *places)
    run_python(folder, "run.py", "--test", *places)
    command = [sys.executable, "run.py", "--blackout", *places]
    refused = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert refused.returncode == 2 and re.fullmatch(r"run.py: error: .*connectomes.*--model mmnn.*\n", refused.stderr)
