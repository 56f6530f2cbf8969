"""Reads the documentation for tests: commands in the blocks of code of README.md and docs/, made small, and tables.

What reads pages that the program writes is `read_page_text` in commands.py.
"""

import re
import shlex
from pathlib import Path

from check_model import CONTRACT_BY_MODEL
from commands import ROOT
from helpers import SMALL_BATCH

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
FENCED_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND_LINE = re.compile(r"(?:run\.py|abide-\w+|python -m (?:data|utils\.\w+)) .*")
SLURM_MARK = "#SBATCH"  # in the blocks that are scripts for Slurm


def read_page_source(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def find_command_blocks(page: Path) -> list[list[str]]:
    """The commands in each block of code of a page, with the comments behind them; those for a cluster are left out."""
    code_blocks = [
        block.splitlines() for block in FENCED_BLOCK.findall(read_page_source(page)) if SLURM_MARK not in block
    ]
    command_blocks = [[match[0] for line in block if (match := COMMAND_LINE.search(line))] for block in code_blocks]
    return [block for block in command_blocks if block]


def find_slurm_scripts(page: Path) -> list[str]:
    """The blocks of a page for a cluster."""
    return [block for block in FENCED_BLOCK.findall(read_page_source(page)) if SLURM_MARK in block]


def split_module(words: list[str]) -> tuple[str, list[str]]:
    """The module that a command other than run.py starts, such as `utils.compare`, and its arguments."""
    if words[0] == "python":
        return words[2], words[3:]
    name = words[0].removeprefix("abide-")
    return name if name == "data" else f"utils.{name}", words[1:]


def find_block(page: Path, words: str) -> list[str]:
    """The only block in which these words stand."""
    (matching_block,) = (block for block in find_command_blocks(page) if words in "\n".join(block))
    return matching_block


def read_table_cells(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its first row."""
    lines = re.search(rf"^#+ {heading}\n[^|]*((?:\|.*\n)+)", read_page_source(page), re.MULTILINE)[1].splitlines()
    rows = [line.strip("|").split(" | ") for line in lines]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def shrink_command(command: str) -> list[str]:
    """The words of a command that does the same with little: two folds, two iterations, a small network."""
    command = re.sub(r"-folds-\d+", "-folds-2", command)
    command = re.sub(r"--folds \d+", "--folds 2", command)
    if not command.startswith("run.py"):
        return shlex.split(command, comments=True)
    shortened_command = re.sub(r" --(jobs|numIters) \d+", "", command)
    words = shlex.split(re.sub(r"--permutations \d+", "--permutations 2", shortened_command), comments=True)
    if "--blackout" in words:
        return [*words, "--donors", "1"]
    if "--train" not in words:
        return words
    model = words[words.index("--model") + 1] if "--model" in words else "mmnn"
    contract = CONTRACT_BY_MODEL[model]
    if "--choose" in words:
        return [*words, "--numIters", "1"]
    settings = SMALL_BATCH if "--preset" in words else contract.small_options
    return [*words, "--numIters", str(contract.small_iterations), *settings]
