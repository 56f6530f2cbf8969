"""README.md and docs/ as what a reader does: the commands in their blocks of code, the rows of their tables."""

import re
import shlex
from pathlib import Path

from commands import ROOT
from helpers import SMALL_BATCH, TINY_NN

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:run\.py|abide-\w+|python -m (?:data|utils\.\w+)) .*")
CLUSTER = "#SBATCH"  # in the blocks that are scripts for Slurm
ONE_OF_REGIONS = ("--preset", "regions", "--set", "members=1", *SMALL_BATCH)
TINY = {
    "mmnn": ONE_OF_REGIONS,
    "cnn": ("--set", "members=1", *SMALL_BATCH),  # the default preset
    "nn": (*TINY_NN, *SMALL_BATCH),
    "ae": SMALL_BATCH,
    "cae": ("--preset", "stride3", "--set", "filters=1", "--set", "strides=3", "--set", "batch_size=2"),
}
TINY_ITERATIONS = {"cae": "1"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[list[str]]:
    """The commands in each block of code of a page, with the comments behind them; those for a cluster are left out."""
    found = [block.splitlines() for block in FENCED.findall(text_of(page)) if CLUSTER not in block]
    kept = [[match[0] for line in block if (match := COMMAND.search(line))] for block in found]
    return [block for block in kept if block]


def scripts(page: Path) -> list[str]:
    """The blocks of a page for a cluster."""
    return [block for block in FENCED.findall(text_of(page)) if CLUSTER in block]


def module_of(words: list[str]) -> tuple[str, list[str]]:
    """The module that a command other than run.py starts, such as `utils.compare`, and its arguments."""
    if words[0] == "python":
        return words[2], words[3:]
    name = words[0].removeprefix("abide-")
    return name if name == "data" else f"utils.{name}", words[1:]


def block_with(page: Path, words: str) -> list[str]:
    """The only block in which these words stand."""
    (found,) = (block for block in blocks(page) if words in "\n".join(block))
    return found


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its first row."""
    lines = re.search(rf"^#+ {heading}\n[^|]*((?:\|.*\n)+)", text_of(page), re.MULTILINE)[1].splitlines()
    rows = [line.strip("|").split(" | ") for line in lines]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def tiny(command: str) -> list[str]:
    """The words of a command that does the same with little: two folds, two iterations, a small network."""
    command = re.sub(r"-folds-\d+", "-folds-2", command)
    if not command.startswith("run.py"):
        return shlex.split(command, comments=True)
    few = re.sub(r"--folds \d+", "--folds 2", re.sub(r" --(jobs|numIters) \d+", "", command))
    words = shlex.split(re.sub(r"--permutations \d+", "--permutations 2", few), comments=True)
    if "--blackout" in words:
        return [*words, "--donors", "1"]
    if "--train" not in words:
        return words
    model = words[words.index("--model") + 1] if "--model" in words else "mmnn"
    assert model in TINY, f"Give {model} its settings in TINY."
    if "--choose" in words:
        return [*words, "--numIters", "1"]
    settings = SMALL_BATCH if "--preset" in words else TINY[model]
    return [*words, "--numIters", TINY_ITERATIONS.get(model, "2"), *settings]
