"""What people read: the text of each page and what each command prints, for a few made results.

Numbers are masked here and checked elsewhere. `pytest tests/test_snapshots.py --update` writes what is shown now; the
difference is to be read as prose. The rungs keep what their commands printed, see `kept` in conftest.py.
"""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import lab as labs
import pytest
from commands import PROGRAMS, run, text_of
from conftest import kept

pytestmark = pytest.mark.slow
VERBS = ("derive", "convert", "check", "swap", "correct", "pack", "export")
PAGES = {  # by rung
    "on_folds": ["test/report.html"],
    "split": ["test/report.html"],
    "by_bundle": ["test/report.html"],
    "blackout": ["blackout/blackout.html"],
    "several": ["compare/compare.html", "index.html"],
    "handled": ["check.html"],
}
PRINTED = {  # by rung, of what commands
    "converted": ["convert"],
    "newcomers": ["convert"],
    "derived": ["dry", "derive", "again"],
    "handled": ["check", "pack", "swap", "export"],
    "on_folds": ["train", "test"],
    "split": ["train", "test"],
    "everybody": ["train"],
    "bundle": ["bundle"],
    "by_bundle": ["test"],
    "blackout": ["blackout"],
    "nn_on_folds": ["test"],
    "several": ["compare", "index"],
    "dry": ["convert", "train", "test", "blackout", "permutations"],
}
UNSTEADY = re.compile(r"; \d+ s left for all$|^.* s left\n|^Fold .* Blacking out .*\n", re.M)  # progress
REGION = re.compile(r"\b[A-Z][A-Za-z]+_(?:\w+_)?[LR]\b|\bVermis_[\d_]+|(?<=\| )(?:left|right|both)(?= \|)")  # of AAL


@pytest.fixture(scope="session")
def several(once, on_folds, nn_on_folds) -> Path:
    """Two tests of the same people, `compare` of these, and an index of all."""

    def make(folder: Path) -> None:
        for of, name in ((on_folds, "one"), (nn_on_folds, "other")):
            labs.copy(of / "test", folder / name)
        kept("compare", "abide-compare {to}/one {to}/other --outDir {to}/compare", to=folder)
        kept("index", "abide-report {to}", to=folder)

    return once("several", make)


@pytest.fixture(scope="session")
def handled(once, converted) -> Path:
    """What the small commands leave of a cohort."""

    def make(folder: Path) -> None:
        kept("check", "abide-data check {of} --html {to}/check.html", of=converted, to=folder)
        kept("pack", "abide-data pack {of} {to}/packed --zip", of=converted, to=folder)
        kept("swap", "abide-data swap {of} {to}/swapped --copies 1", of=converted, to=folder)
        kept("export", "abide-data export {of} 50002 {to}/one.nii.gz --map alff", of=converted, to=folder)

    return once("handled", make)


@pytest.fixture(scope="session")
def derived(once) -> Path:
    """Maps derived of the scans of two people."""

    def make(folder: Path) -> None:
        labs.bold(folder / "scans", labs.people(2))
        command = "abide-data derive {to}/scans {to}/maps --maps falff,reho"
        for name, more in (("dry", " --dryRun"), ("derive", ""), ("again", "")):
            kept(name, command + more, to=folder)

    return once("derived", make)


@pytest.fixture(scope="session")
def dry(once, lab, converted, on_folds) -> Path:
    """What dry runs say."""

    def make(folder: Path) -> None:
        kept("convert", "abide-data convert {lab} {to}/cohort --grid reduced --dryRun", lab=lab, to=folder)
        places = "--folds 3 --dataDir {of} --outDir {to}/results --dryRun --chkPointDir"
        for name, words in (
            ("train", "--train --jobs 2"),
            ("test", "--test"),
            ("blackout", "--blackout --donors 1"),
            ("permutations", "--test --permutations 19"),
        ):
            ckpt = "{to}/ckpt" if name == "train" else "{ckpt}/ckpt"
            kept(name, f"run.py {words} {places} {ckpt}", of=converted, ckpt=on_folds, to=folder)

    return once("dry", make)


@pytest.fixture
def show(lab, snapshot, request) -> Callable[..., None]:
    """`show(name, rung, read, file)` compares what `read(file)` gives of a file of a rung."""

    def compare(name: str, rung: str, read: Callable[[Path], str], file: str) -> None:
        request.getfixturevalue(rung)
        made = lab.parents[1]
        text = read(made / rung.replace("_", "-") / file)
        snapshot(name, REGION.sub("<region>", UNSTEADY.sub("", text)), {"made": made})

    return compare


@pytest.mark.parametrize("rung, page", [(rung, page) for rung, pages in PAGES.items() for page in pages])
def test_a_page(rung, page, show):
    name = page.replace("/", "-").removesuffix(".html")
    show(f"{rung}-{name}", rung, text_of, page)


@pytest.mark.parametrize("rung", PRINTED)
def test_what_commands_print(rung, show):
    for name in PRINTED[rung]:
        show(f"{rung}-{name}", rung, Path.read_text, f"{name}.out")


def test_the_card_of_a_bundle(show):
    show("bundle-card", "bundle", card, "model.zip")


def card(bundle: Path) -> str:
    with zipfile.ZipFile(bundle) as parts:
        return parts.read("card.md").decode()


@pytest.mark.parametrize("command", [*PROGRAMS, *(f"abide-data {verb}" for verb in VERBS)])
def test_help(command, snapshot, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    outcome = run(f"{command} --help")
    assert (outcome.status, outcome.err) == (0, "")
    snapshot(f"help-{command.replace(' ', '-')}", outcome.out, {})
