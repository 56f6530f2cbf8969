"""Fixtures that several test files share: how tests run, a ladder of results, simulated cohorts, snapshots of texts.

A rung of the ladder (a cohort, trained folds, a bundle, a blackout) is made once for all processes, from the rung below
it. A test stands on the highest rung that will do and copies what it changes; a fixture is made in a test file only if
no rung has what that file asks.
"""

import difflib
import gc
import io
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before anything is imported; processes that are started have it, too.
os.environ["ABIDE_EFFORT"] = json.dumps(
    {
        **{"strengths": 2, "penalties": 3, "inner_folds": 2, "resamples": 200},
        **{"calibrate_from": 5, "describe_from": 5},
    }
)

import lab as labs
import pytest
from by_hand import write_few_regions
from commands import ROOT, Outcome, done, run_words
from helpers import training_arguments
from hypothesis import settings

from data import demo
from data.base import files
from data.base.effort import EFFORT, Effort
from data.images import grids
from utils.machines import devices

settings.register_profile("seeded", derandomize=True, deadline=None, database=None)


settings.load_profile("seeded")


@pytest.fixture
def effort(monkeypatch) -> Callable[..., None]:
    """`effort(resamples=2000)` computes so much in this test, or as much as for a user without arguments; strengths and
    penalties stay, since modules read these when they are imported."""

    def change(**numbers: int) -> None:
        for name, amount in (numbers or vars(Effort())).items():
            monkeypatch.setattr(EFFORT, name, amount)

    return change


@pytest.fixture(scope="session")
def cli() -> Callable[..., Outcome]:
    """`cli("--train", ...)` runs run.py."""
    return lambda *arguments: run_words("run.py", *arguments)


@pytest.fixture(scope="session")
def data_cli() -> Callable[..., Outcome]:
    """`data_cli("convert", ...)` runs abide-data, without other processes."""
    return lambda *arguments: run_words("abide-data", *arguments)


@pytest.fixture(scope="session", autouse=True)
def session(tmp_path_factory):
    """No GPU, TensorFlow's environment as run.py sets it, and a small demo cohort, cached for this session only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        with redirect_stdout(io.StringIO()):
            devices.choose_device(may_share_gpus=False)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        small_simulations = {"full": demo.Simulation(subjects=6), "reduced": demo.Simulation(subjects=20)}
        patch.setattr(demo, "SIMULATIONS", small_simulations)
        yield


@pytest.fixture(scope="module", autouse=True)
def lasting():
    """TensorFlow, once it is there, is not searched for garbage again and again; nor does Keras search all that there
    is at the end of each job."""
    state: Any = sys.modules.get("keras.src.backend.common.global_state")
    if state and state.gc is gc:
        state.gc = SimpleNamespace(collect=lambda: None)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    """Every test runs in a folder of its own, so that default results never reach the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def float32():
    """A run with another --precision leaves Keras as it set it."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].mixed_precision.set_global_policy("float32")


def without_figures(patch: pytest.MonkeyPatch) -> None:
    """Figures are empty: drawing takes half of a training, and two thirds of a test."""

    def savefig(figure, file, format, **_):
        file.write("<svg></svg>" if format == "svg" else b"")

    patch.setattr("matplotlib.figure.Figure.savefig", savefig)
    patch.setattr("utils.blackout.figure.draw_brain", lambda *_: None)
    patch.setattr("utils.blackout.page.render_brain_viewer", lambda *_: "")


@contextmanager
def without_drawing() -> Iterator[pytest.MonkeyPatch]:
    """For fixtures of the whole session, whose figures no test looks at."""
    with pytest.MonkeyPatch.context() as patch:
        without_figures(patch)
        yield patch


@pytest.fixture(scope="module")
def undrawn():
    """For modules that look at no figure, but for their tests that use `drawn`."""
    with without_drawing() as patch:
        yield patch


@pytest.fixture(scope="module")
def no_baselines():
    """For modules that look at no baseline: made up in place of fits, which take most of the time of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.scores.baselines.make_feature_tables", lambda *_: {})
        patch.setattr(
            "utils.scores.baselines.predict_feature_baselines",
            lambda _fitting, _tables, _train, test, _maps: {"regions, SVM": test % 7 / 7},
        )
        # Never taken for those that are fitted, on disk or in this process
        patch.setattr("utils.runs.plan.BASELINES_FOLDER", "made-up-baselines")
        patch.setattr("utils.evaluation.stored_baselines.BASELINES_BY_KEY", {})
        yield


@pytest.fixture
def drawn(undrawn):
    """Figures are drawn."""
    undrawn.undo()
    yield
    without_figures(undrawn)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory) -> Callable[..., Path]:
    """`make_once("name", make)` is a folder that `make(folder)` has filled, in the process of the tests that asked
    first."""
    base_folder = tmp_path_factory.getbasetemp()
    shared_folder = base_folder.parent if "PYTEST_XDIST_WORKER" in os.environ else base_folder

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, complete = shared_folder / name, shared_folder / f"{name}.complete"
        with files.lock_exclusively(folder, wait=True), without_drawing():
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)  # another process failed
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return made


# The ladder: each rung is made once for all processes, by the user's commands. A test that changes one copies it.


def make_rung(name: str, command: str, **places: Path) -> None:
    """Does a command that makes the rung `to`, which keeps what it printed as a file."""
    (places["to"] / f"{name}.out").write_text(done(command, **places))


@pytest.fixture(scope="session")
def lab(make_once) -> Path:
    """40 people at three sites as the Preprocessed Connectomes Project has them: two maps, series of 12 parcels."""
    return (
        make_once("lab", lambda folder: labs.pcp(folder / "lab", labs.people(), ("falff", "alff"), series=True)) / "lab"
    )


CONVERT_OPTIONS = "--grid reduced --maps all --connectome rois_made --parcels {lab}/parcels.nii.gz"
TINY_TRAINING = "--numIters 4 --set members=1 --set batch_size=8"


@pytest.fixture(scope="session")
def converted(make_once, lab) -> Path:
    """Their cohort on the reduced grid."""
    command = f"abide-data convert {{lab}} {{to}}/cohort {CONVERT_OPTIONS}"
    return make_once("converted", lambda folder: make_rung("convert", command, lab=lab, to=folder)) / "cohort"


@pytest.fixture(scope="session")
def only_connectomes(make_once) -> Path:
    """A folder with `lab`, which has the series and no maps of the same people, and their `cohort`."""
    command = (
        "abide-data convert {to}/lab {to}/cohort --maps none --connectome rois_made --parcels {to}/lab/parcels.nii.gz"
    )

    def make(folder: Path) -> None:
        labs.pcp(folder / "lab", labs.people(), (), series=True)
        make_rung("convert", command, to=folder)

    return make_once("only-connectomes", make)


@pytest.fixture(scope="session")
def only_table(make_once) -> Path:
    """A folder with `lab`, which has nothing but the table of these people, and their `cohort`."""
    options = "--maps none --phenotype AGE_AT_SCAN,hand,iq --labelColumn group --positive A"

    def make(folder: Path) -> None:
        (folder / "lab").mkdir()
        labs.participants(folder / "lab", labs.people())
        make_rung("convert", f"abide-data convert {{to}}/lab {{to}}/cohort {options}", to=folder)

    return make_once("only-table", make)


@pytest.fixture(scope="session")
def on_folds(make_once, converted) -> Path:
    """A folder with `ckpt`, `train` and `test`: mmnn trained and tested on three folds."""

    def make(folder: Path) -> None:
        places = "--folds 3 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"
        make_rung("train", f"run.py --train {TINY_TRAINING} {places}train", of=converted, to=folder)
        make_rung("test", f"run.py --test {places}test", of=converted, to=folder)

    return make_once("on-folds", make)


@pytest.fixture(scope="session")
def everybody(make_once, converted, on_folds) -> Path:
    """A folder with `ckpt` and `train`: mmnn trained on everybody, with the score of the folds."""
    command = (
        f"run.py --train --everybody --score {{score}}/test {TINY_TRAINING} --dataDir {{of}} --chkPointDir {{to}}/ckpt"
    )
    places = {"score": on_folds, "of": converted}
    return make_once(
        "everybody", lambda folder: make_rung("train", command + " --outDir {to}/train", to=folder, **places)
    )


@pytest.fixture(scope="session")
def bundle(make_once, everybody) -> Path:
    """That model as one file."""
    command = "abide-bundle {of}/ckpt/mmnn/everybody {to}/model.zip --licence CC-BY-4.0"
    return make_once("bundle", lambda folder: make_rung("bundle", command, of=everybody, to=folder)) / "model.zip"


@pytest.fixture(scope="session")
def newcomers(make_once, bundle) -> Path:
    """The cohort of 12 other people, converted like the model."""

    def make(folder: Path) -> None:
        labs.pcp(folder / "lab", labs.people(12, 60002), ("falff", "alff"), series=True)
        make_rung("convert", "abide-data convert {to}/lab {to}/cohort --like {model}", to=folder, model=bundle)

    return make_once("newcomers", make) / "cohort"


@pytest.fixture(scope="session")
def blackout(make_once, converted, on_folds) -> Path:
    """Results of a blackout of the networks of all folds."""
    command = "run.py --blackout --folds 3 --donors 1 --dataDir {of} --chkPointDir {ckpt}/ckpt --outDir {to}/blackout"
    made = make_once("blackout", lambda folder: make_rung("blackout", command, of=converted, ckpt=on_folds, to=folder))
    return made / "blackout"


@pytest.fixture(scope="session")
def few_region_blackout(make_once, converted, on_folds) -> Path:
    """A folder with `atlas`, of few regions, and `blackout`, the same of these."""
    command = "run.py --blackout --folds 3 --donors 1 --dataDir {of} --chkPointDir {ckpt}/ckpt --outDir {to}/blackout"
    atlas_options = " --atlas {to}/atlas/own.nii.gz --systems {to}/atlas/systems.csv"

    def make(folder: Path) -> None:
        write_few_regions(folder / "atlas")
        make_rung("blackout", command + atlas_options, of=converted, ckpt=on_folds, to=folder)

    return make_once("of-few-regions", make)


@pytest.fixture(scope="session")
def scans(make_once) -> Path:
    """Preprocessed scans of three people, with the images that some of `derive` needs."""
    return (
        make_once("scans", lambda folder: labs.write_images(labs.bold(folder / "scans", labs.people(3, 1)))) / "scans"
    )


@pytest.fixture(scope="session")
def derived(make_once, scans) -> Path:
    """Maps and series of these."""
    derive_options = "--maps falff,dual_regression --band 0.02,0.08 --smooth 30 --confounds simple"
    image_options = "--networks {of}/nets.nii.gz --series {of}/my_atlas.nii.gz"
    command = f"abide-data derive {{of}} {{to}}/maps {derive_options} {image_options}"
    return make_once("derived", lambda folder: done(command, of=scans, to=folder)) / "maps"


@pytest.fixture(scope="session")
def scan_cohort(make_once, derived) -> Path:
    """The cohort of these maps and series."""
    convert_options = (
        "--maps falff,dual_regression --connectome seg-myatlas --labelColumn group --positive A --phenotype ''"
    )
    command = f"abide-data convert {{of}} {{to}}/cohort --grid reduced {convert_options}"
    return make_once("of-scans", lambda folder: done(command, of=derived, to=folder)) / "cohort"


@pytest.fixture(scope="session")
def split(make_once, converted) -> Path:
    """A folder with `ckpt`, `train` and `test`: nn trained and tested on the cohort's own split."""
    return make_once("split", lambda folder: train_and_test(converted, folder))


@pytest.fixture(scope="session")
def nn_on_folds(make_once, converted) -> Path:
    """The same of nn on the folds of `on_folds`."""
    return make_once("nn-on-folds", lambda folder: train_and_test(converted, folder, "--folds 3"))


def train_and_test(cohort: Path, folder: Path, more: str = "") -> None:
    places = f"{more} --model nn --dataDir {{of}} --chkPointDir {{to}}/ckpt --outDir {{to}}/"
    make_rung("train", f"run.py --train {TINY_TRAINING} {places}train", of=cohort, to=folder)
    make_rung("test", f"run.py --test {places}test", of=cohort, to=folder)


@pytest.fixture(scope="session")
def by_bundle(make_once, bundle, newcomers) -> Path:
    """A folder with `test`: other people tested by a bundle."""
    command = "run.py --test --bundle {model} --dataDir {of} --outDir {to}/test"
    return make_once("by-bundle", lambda folder: make_rung("test", command, model=bundle, of=newcomers, to=folder))


# Texts that people read

NUMBER = re.compile(  # or a sum, or a commit
    r"\b(?=[a-f]*\d)[\da-f]{7,64}\b(?:-dirty)?|(?:(?<![\w)-])[-+\u2212])?(?:\d[\d,.:]*\d|\d)(?:e[-+]?\d+)?|(?<!\w)nan(?!\w)"
)


SLOW = {  # rungs that take seconds to make
    *("on_folds", "nn_on_folds", "split", "everybody", "bundle", "newcomers", "by_bundle"),
    *("blackout", "few_region_blackout", "trained", "seen_two", "seen_six"),
    *("scan_cohort", "derived", "full_cohort", "swapped"),
}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Who stands on such a rung is slow, too."""
    if SLOW & {*getattr(item, "fixturenames", ())}:
        item.add_marker("slow")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="write what is shown now to tests/snapshots")


@pytest.fixture
def snapshot(request) -> Callable[..., None]:
    """`snapshot("name", text, places)` compares a text with tests/snapshots/name.txt, where each number or sum is #,
    each of `places` is its name, and lines that are then alike are one. `pytest --update` writes it; then read the
    difference."""

    def compare(name: str, text: str, places: dict[str, object]) -> None:
        for word, place in sorted(places.items(), key=lambda item: -len(str(item[1]))):
            text = text.replace(str(place), f"<{word}>")
        masked = re.sub("  +#", "  #", NUMBER.sub("#", text)).strip()
        text = "\n".join(line for line, _ in itertools.groupby(masked.splitlines())) + "\n"
        path = ROOT / "tests" / "snapshots" / f"{name}.txt"
        if request.config.getoption("--update"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        stored_text = path.read_text() if path.exists() else ""
        assert text == stored_text, "\n".join(
            difflib.unified_diff(stored_text.splitlines(), text.splitlines(), lineterm="", n=0)
        )

    return compare


# Simulated people


@pytest.fixture(scope="session")
def cohort(make_once) -> Path:
    """40 simulated subjects on the reduced grid, 4 of them test subjects."""
    simulation = demo.Simulation(subjects=40, seed=1)
    return (
        make_once("cohort", lambda folder: demo.simulate_cohort(folder / "reduced", grids.REDUCED, simulation))
        / "reduced"
    )


@pytest.fixture(scope="session")
def swapped(make_once, cohort) -> Path:
    """The same with two records more for each training subject, in which 13 regions are of others."""
    command = "abide-data swap {of} {to}/swapped --copies 2"
    return make_once("swapped", lambda folder: make_rung("swap", command, of=cohort, to=folder)) / "swapped"


@pytest.fixture(scope="session")
def large_cohort(make_once) -> Path:
    """200 simulated subjects at 16 sites on the reduced grid."""
    simulation = demo.Simulation(subjects=200, seed=3)
    return make_once("many", lambda folder: demo.simulate_cohort(folder / "many", grids.REDUCED, simulation)) / "many"


@pytest.fixture(scope="session")
def full_cohort(make_once) -> Path:
    """6 simulated subjects at full size, one of them a test subject."""
    simulation = demo.Simulation(subjects=6, seed=2)
    return (
        make_once("full-cohort", lambda folder: demo.simulate_cohort(folder / "full", grids.FULL, simulation)) / "full"
    )


@pytest.fixture(scope="session")
def trained(cohort, cli, make_once) -> Path:
    """The --chkPointDir of a tiny cnn that has seen 4 batches of `cohort`. Copy it before changing it."""
    return make_once("trained", lambda folder: train_in(cli, folder, cohort, "cnn", 4)) / "ckpt"


def train_in(cli: Callable[..., Outcome], folder: Path, *training_options: Any) -> None:
    """Trains a tiny network with everything in a folder."""
    outcome = cli(*training_arguments(folder, *training_options))
    assert outcome.status == 0, outcome.err


@pytest.fixture
def train(cli, cohort, tmp_path) -> Callable[..., Outcome]:
    """`train("one", "cnn", 5)` trains a tiny cnn until iteration 5 with everything in the folder `one`."""

    def run(name, model, iterations, *more) -> Outcome:
        return cli(*training_arguments(tmp_path / name, cohort, model, iterations, *more))

    return run


@pytest.fixture(scope="session")
def train_cae(cli, full_cohort, tmp_path_factory) -> Callable[[str], Path]:
    """`train_cae("--numIters 1")` trains a cae and gives its --chkPointDir."""

    def run(words: str) -> Path:
        folder = tmp_path_factory.mktemp("cae")
        places = ("--chkPointDir", folder / "ckpt", "--outDir", folder / "out", "--dataDir", full_cohort)
        with without_drawing():
            outcome = cli(*f"--train --model cae {words}".split(), *places)
        assert outcome.status == 0, outcome.err
        return folder / "ckpt"

    return run


@pytest.fixture(scope="session")
def seen_six(cli, cohort, make_once) -> Path:
    """The folder of a nn that has seen 6 batches, with checkpoints of the 2nd, the 4th and the 6th. Copy it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EFFORT, "save_every", 2)
        return make_once("six", lambda folder: train_in(cli, folder, cohort, "nn", 6))


@pytest.fixture(scope="session")
def seen_two(cli, cohort, make_once) -> Path:
    """The folder of a nn that has seen 2 batches. Copy it."""
    return make_once("two", lambda folder: train_in(cli, folder, cohort, "nn", 2))
