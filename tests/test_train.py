"""--train: what it leaves, losses by hand, exact resuming after signals and kills, what overriding keeps."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import lab
import numpy as np
import pytest
from commands import ROOT, done
from helpers import DENSE, assert_bit_equal, read_rows, training, variables
from sklearn.linear_model import Ridge

from models import MODELS, override


def without_speed(path: Path) -> list[dict]:
    """A `history.csv` but for what no two trainings share."""
    return [{name: value for name, value in row.items() if name != "samples_per_s"} for row in read_rows(path)]


def step_of(folder: Path) -> int:
    """How many batches the latest checkpoint has seen."""
    return int(variables(folder)["step/.ATTRIBUTES/VARIABLE_VALUE"])


def settings(of: Sequence[str]) -> list[str]:
    """The words of a command line."""
    return [word for text in of for word in ("--set", text)]


pytestmark = pytest.mark.usefixtures("undrawn")
PNG = b"\x89PNG"


def digests(folder: Path) -> dict[str, str]:
    """Of each checkpoint in a folder, the sum over its two files."""
    files = {path.stem: [path.with_name(f"{path.stem}.data-00000-of-00001"), path] for path in folder.glob("*.index")}
    return {name: hashlib.sha256(b"".join(of.read_bytes() for of in both)).hexdigest() for name, both in files.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("model, measures", [("cnn", ["loss", "accuracy"]), ("ae", ["loss"])])
def test_training_leaves_history_figure_events_and_run(model, measures, train, tmp_path):
    outcome = train("one", model, 5)
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    out = tmp_path / "one" / "out"
    rows = read_rows(out / "history.csv")
    assert list(rows[0]) == ["step", *measures, "samples_per_s"]
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5]
    assert all(0 < float(row["loss"]) < 100 and float(row["samples_per_s"]) > 0 for row in rows)
    assert all(float(row.get("accuracy", 0)) * 8 % 1 == 0 for row in rows)  # batches of 8
    assert (out / "history.png").read_bytes().startswith(PNG)
    assert list(out.glob("events.out.tfevents.*"))
    run = json.loads((out / "run.json").read_text())
    assert run["command"][0] == "run.py" and "--numIters" in run["command"]
    assert (run["model"], run["seed"], run["config"]["batch_size"]) == (model, 0, 8)
    assert run["checkpoint_sha256"] == digests(tmp_path / "one" / "ckpt" / model)["ckpt-1"]
    assert run["wall_time_s"] > 0
    assert {"tensorflow", "numpy"} <= run["packages"].keys()
    assert run["processor"] and "git_commit" in run


@pytest.mark.slow
def test_training_learns(train, tmp_path):
    """The phenotype of 36 subjects can be learnt by heart."""
    assert train("one", "nn", 150, "--set", "learning_rate=0.01").status == 0
    rows = read_rows(tmp_path / "one" / "out" / "history.csv")
    assert np.mean([float(row["accuracy"]) for row in rows[-10:]]) > 0.9
    assert np.mean([float(row["accuracy"]) for row in rows[:5]]) < 0.8


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize(
    "model, more",
    [
        ("cnn", ()),
        ("ae", ()),
        ("mmnn", ("--preset", "regions", "--set", "members=2")),
        ("cnn", ("--preset", "combined", "--set", "members=2")),  # has dropout and shares
        ("nn", ("--precision", "mixed_float16", "--set", "batch_size=3", "--seed", "7")),
    ],
)
def test_continuing_is_bit_equal_to_one_go(model, more, train, tmp_path):
    assert train("whole", model, 5, *more).status == 0
    assert train("parts", model, 2, *more).status == 0
    continued = train("parts", model, 5, *more)
    assert "at iteration 2." in continued.out
    assert_bit_equal(tmp_path / "whole" / "ckpt" / model, tmp_path / "parts" / "ckpt" / model)
    whole, parts = (without_speed(tmp_path / name / "out" / "history.csv") for name in ("whole", "parts"))
    assert parts == whole


@pytest.fixture(scope="module")
def with_connectomes(tmp_path_factory) -> Path:
    """The cohort of 20 people with connectomes, of whom one lacks the signal of a parcel."""
    folder = tmp_path_factory.mktemp("connectomes")
    lab.pcp(folder / "lab", lab.people(20), series=True)
    lab.edit(folder / "lab/cpac/X_0050004_rois_made.1D", lambda series: series.assign(**{"#3": 0}))
    done("abide-data convert {of}/lab {of}/cohort --grid reduced --connectome rois_made --phenotype ''", of=folder)
    return folder / "cohort"


MMNN = "run.py --train --model mmnn --preset regions --set members=1 --set batch_size=8 --numIters 2 --dataDir {of}"
MMNN += " --chkPointDir {to}/ckpt --outDir {to}/out"


@pytest.mark.slow
def test_connectomes_are_read_by_a_ridge_of_the_training_records(with_connectomes, tmp_path):
    done(MMNN, of=with_connectomes, to=tmp_path)
    with h5py.File(with_connectomes / "connectomes.h5") as store:
        edges = dict(zip(store["subject"].asstr()[:], store["z"][:], strict=True))
    rows = lab.read_table(with_connectomes / "subjects.csv").query("split == 'train'")
    target = rows["label"].astype(float) - rows["label"].astype(float).groupby(rows["site"]).transform("mean")
    known = np.stack([edges[subject] for subject in rows["subject"]])
    weights = [value for value in variables(tmp_path / "ckpt/mmnn").values() if value.shape == known.shape[1:]]
    filled = np.where(np.isnan(known), np.nanmean(known, 0), known)
    scale = np.sqrt(1000 / filled.shape[1]) / filled.std(0)
    scores = (filled - filled.mean(0)) * scale
    ridges = [Ridge(alpha=penalty).fit(scores, target).coef_ for penalty in np.logspace(1, 4, 3)]  # those of tests
    closest = [max(np.corrcoef(value, one)[0, 1] for one in (filled.mean(0), scale, *ridges)) for value in weights]
    assert np.isnan(known).any() and len(weights) == 3 and min(closest) > 1 - 1e-5
    done("run.py --test --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/test", of=with_connectomes, to=tmp_path)


@pytest.mark.slow
def test_connectomes_are_left_out_where_they_are_not_wanted_or_not_there(with_connectomes, cohort, tmp_path):
    for name, more, of in (("without", " --set connectome=false", with_connectomes), ("none", "", cohort)):
        done(MMNN + more, of=of, to=tmp_path / name)
        described = json.loads((tmp_path / name / "ckpt/mmnn/run.json").read_text())
        assert described["config"]["connectome"] is False
        assert (66,) not in {value.shape for value in variables(tmp_path / name / "ckpt/mmnn").values()}


def test_a_finished_command_repeated_changes_nothing(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    before = variables(tmp_path / "one" / "ckpt" / "nn")
    outcome = train("one", "nn", 2)
    assert outcome.status == 0
    assert "has seen 2 of 2 iterations: nothing to train" in outcome.out
    after = variables(tmp_path / "one" / "ckpt" / "nn")
    assert all((before[name] == after[name]).all() for name in before)


@pytest.mark.slow
def test_results_of_another_training_are_moved_aside_by_one_that_goes_on(train, seen_two, tmp_path):
    """Of the same model, with other settings."""
    shutil.copytree(seen_two, tmp_path / "one")
    assert train("other", "nn", 3, "--seed", "1").status == 0
    history = (tmp_path / "other" / "out" / "history.csv").read_bytes()
    outcome = train("one", "nn", 4, "--outDir", tmp_path / "other" / "out")
    assert outcome.status == 0, outcome.err
    assert "history.csv has no row of the 2 batches before; it begins with the next one." in outcome.out
    (moved,) = (tmp_path / "other" / "out" / "earlier").glob("*/history.csv")
    assert moved.read_bytes() == history
    assert [row["step"] for row in read_rows(tmp_path / "other" / "out" / "history.csv")] == ["3", "4"]


def disturbed(command: list[str], number: int, save_every: int, rows: int = 1) -> subprocess.Popen:
    """A training in a process of its own that gets a signal when its history has some rows; what it printed."""
    effort = json.loads(os.environ["ABIDE_EFFORT"]) | {"save_every": save_every}
    environment = os.environ | {"ABIDE_EFFORT": json.dumps(effort)}
    history = Path(command[command.index("--outDir") + 1]) / "history.csv"
    whole = [sys.executable, str(ROOT / "run.py"), *command]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert any(re.match(r"Training \w+ 1/", line) for line in process.stdout)
        while history.read_text().count("\n") <= rows:
            time.sleep(0.01)
        process.send_signal(number)
        process.out, process.err = process.communicate(timeout=60)
    return process


ENDLESS = 1_000_000  # batches, or batches from checkpoint to checkpoint


@pytest.mark.slow
def test_a_training_from_zero_that_never_saved_leaves_the_one_before(train, seen_two, cohort, tmp_path):
    """Its rows are not continued, and the old checkpoint is there until the new one is."""
    folder = shutil.copytree(seen_two, tmp_path / "one")
    again = training(folder, cohort, "nn", ENDLESS, "--overrideChkpt", "--seed", "1")
    assert disturbed(again, signal.SIGKILL, save_every=ENDLESS).returncode == -signal.SIGKILL
    done("run.py --test --model nn --chkPointDir {of}/ckpt --dataDir {people}", of=folder, people=cohort)
    assert "at iteration 2." in train("one", "nn", 3).out
    assert [row["step"] for row in read_rows(folder / "out" / "history.csv")] == ["3"]
    assert len(list((folder / "out" / "earlier").glob("*/history.csv"))) == 2

    assert train("one", "nn", 5, "--overrideChkpt", "--seed", "1").status == 0
    assert {path.name for path in (folder / "ckpt").iterdir()} - {"means"} == {"nn"}
    assert train("fresh", "nn", 5, "--seed", "1").status == 0
    assert_bit_equal(folder / "ckpt" / "nn", tmp_path / "fresh" / "ckpt" / "nn")
    one, other = variables(seen_two / "ckpt" / "nn"), variables(folder / "ckpt" / "nn")
    assert any((one[name] != other[name]).any() for name in one)  # another seed


@pytest.mark.slow
def test_a_figure_that_was_deleted_is_drawn_again_without_training(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    out = tmp_path / "one" / "out"
    history = (out / "history.csv").read_bytes()
    (out / "history.png").unlink()
    outcome = train("one", "nn", 2)
    assert (outcome.status, outcome.err) == (0, "")
    assert (out / "history.png").exists()
    assert (out / "history.csv").read_bytes() == history
    assert "nothing to train" in train("one", "nn", 2).out


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_completes_the_job_bit_equal(train, cohort, tmp_path):
    process = disturbed(training(tmp_path / "parts", cohort, "cnn", ENDLESS), signal.SIGTERM, save_every=ENDLESS)
    assert (process.returncode, process.err) == (128 + signal.SIGTERM, "")
    seen = int(re.search(r"Stopped at iteration (\d+) and saved; the same command continues", process.out)[1])
    manifest = json.loads((tmp_path / "parts/out/run.json").read_text())
    assert (manifest["finished"], manifest["step"]) == (False, seen)
    assert not (tmp_path / "parts/runs.csv").exists()  # of runs that are finished
    assert step_of(tmp_path / "parts/ckpt/cnn") == seen
    assert train("parts", "cnn", seen + 3).status == train("whole", "cnn", seen + 3).status == 0
    assert_bit_equal(tmp_path / "whole/ckpt/cnn", tmp_path / "parts/ckpt/cnn")


@pytest.mark.slow
def test_killed_between_checkpoints_the_last_one_is_continued(train, cohort, tmp_path):
    """Batches after it are done again, in weights and in history."""
    process = disturbed(training(tmp_path / "parts", cohort, "nn", ENDLESS), signal.SIGKILL, save_every=4, rows=5)
    assert process.returncode == -signal.SIGKILL
    folder = tmp_path / "parts/ckpt/nn"
    described = json.loads((folder / "run.json").read_text())
    assert step_of(folder) % 4 == 0 and len(list(folder.glob("*.index"))) <= 4
    for name, digest in digests(folder).items():  # killed between the files of a checkpoint and its digest
        assert described["saved"].get(name, {"sha256": digest})["sha256"] == digest
    seen = step_of(folder)
    assert f"at iteration {seen}." in train("parts", "nn", seen + 4).out
    train("whole", "nn", seen + 4)
    assert_bit_equal(tmp_path / "whole/ckpt/nn", folder)
    whole, parts = (without_speed(tmp_path / name / "out/history.csv") for name in ("whole", "parts"))
    assert whole == parts


@pytest.mark.slow
def test_three_checkpoints_are_kept_with_their_digests(seen_six):
    """Of the 2nd, 4th and 6th batch."""
    folder = seen_six / "ckpt/nn"
    described = json.loads((folder / "run.json").read_text())
    assert {name: of["sha256"] for name, of in described["saved"].items()} == digests(folder)
    assert [of["step"] for of in described["saved"].values()] == [2, 4, 6] and described["step"] == 6


ROWS = ("2,0.6,1,9\n3,0.", "2\n", "2,0.6,1,9,3\n", "9" * 5000 + ",0.5,1,9\n", "two,0.5,1,9\n")


@pytest.mark.slow
@pytest.mark.parametrize("end", ROWS, ids=lambda of: of[:9])
def test_a_history_that_was_cut_off_or_edited_is_continued_where_it_is_whole(end, train, seen_two, tmp_path):
    folder = shutil.copytree(seen_two, tmp_path / "one")
    first = (folder / "out/history.csv").read_text().splitlines(keepends=True)[:2]
    lab.edit(folder / "out/history.csv", ("".join(first) + end).encode())
    assert train("one", "nn", 3).status == 0
    kept = ["1", "2"] if end == ROWS[0] else ["1"]
    assert [row["step"] for row in read_rows(folder / "out/history.csv")] == [*kept, "3"]
    assert float(read_rows(folder / "out/history.csv")[0]["loss"]) == pytest.approx(float(first[1].split(",")[1]))


@pytest.mark.slow
def test_override_keeps_what_the_user_put_beside_a_checkpoint(train, seen_two, tmp_path):
    folder = shutil.copytree(seen_two, tmp_path / "one") / "ckpt/nn"
    (folder / "thesis.txt").write_text("mine")
    (folder / "notes").mkdir()
    (folder / "notes/a.txt").write_text("mine, too")
    for seed in (1, 2):
        assert train("one", "nn", 1, "--overrideChkpt", "--seed", seed).status == 0
        described = json.loads((folder / "run.json").read_text())
        assert (described["seed"], described["step"]) == (seed, 1)
        assert [path.name for path in folder.parent.iterdir()] == ["nn"]
        assert ((folder / "thesis.txt").read_text(), (folder / "notes/a.txt").read_text()) == ("mine", "mine, too")


@pytest.mark.slow
def test_override_keeps_the_earlier_results_and_what_the_user_put_beside_them(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    out = tmp_path / "one" / "out"
    (out / "note.txt").write_text("mine")
    old = (out / "history.csv").read_text()
    outcome = train("one", "nn", 3, "--overrideChkpt")
    assert "The earlier results in" in outcome.out
    assert [path.read_text() for path in (out / "earlier").rglob("history.csv")] == [old]
    assert len(read_rows(out / "history.csv")) == 3
    assert (out / "note.txt").read_text() == "mine"
    assert not list((out / "earlier").rglob("note.txt"))


@pytest.mark.slow
def test_overriding_gets_past_a_description_that_is_damaged(train, seen_two, tmp_path):
    shutil.copytree(seen_two, tmp_path / "one")
    described = tmp_path / "one" / "ckpt" / "nn" / "run.json"
    described.write_bytes(described.read_bytes()[:300])
    assert "is damaged" in train("one", "nn", 3).err
    outcome = train("one", "nn", 2, "--overrideChkpt")
    assert outcome.status == 0, outcome.err
    assert_bit_equal(tmp_path / "one" / "ckpt" / "nn", seen_two / "ckpt" / "nn")


@contextmanager
def largest_file(num_bytes: int):
    """Files cannot grow past `num_bytes`, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.bits
def test_a_full_disk_leaves_the_last_checkpoint_which_is_resumed(train, tmp_path):
    """At 150 kB only a checkpoint, of some 250 kB, does not fit, at 100 bytes nothing does."""
    folder, wide = tmp_path / "one/ckpt/cnn", ("--set", "filters=8,24")
    with largest_file(150_000):
        outcome = train("first", "cnn", 2, *wide)
    assert outcome.status == 2 and "none before it" in outcome.err
    assert train("one", "cnn", 2, *wide).status == 0
    before = digests(folder)
    for limit in (150_000, 100):
        with largest_file(limit):
            outcome = train("one", "cnn", 4, *wide)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert digests(folder) == before and step_of(folder) == 2
    assert train("one", "cnn", 4, *wide).status == train("whole", "cnn", 4, *wide).status == 0
    assert_bit_equal(tmp_path / "whole/ckpt/cnn", folder)


def order(cohort: Path, step: int, size: int = 8, seed: int = 0) -> list[str]:
    """The training records of a batch of the first epoch, as NumPy's permutations have them."""
    table = lab.read_table(cohort / "subjects.csv").query("split == 'train'")
    places = np.random.default_rng((seed, 0)).permutation(len(table))
    return [table["file"].iloc[at] for at in places[step * size : (step + 1) * size]]


@pytest.mark.slow
def test_the_first_loss_is_that_of_the_first_batch_by_hand(train, cohort, tmp_path):
    """Through a network built and initialised anew; its batch norm uses the batch, as in training."""
    import keras

    train("one", "nn", 1, *settings(DENSE))
    (row,) = read_rows(tmp_path / "one/out/history.csv")
    keras.utils.set_random_seed(0)
    module = MODELS["nn"].module
    network = module.build(override(module.PRESETS["sine"], ["batch_size=8", *DENSE]), None)
    records = [lab.read_record(cohort / file) for file in order(cohort, 0)]
    label = np.array([int(of[0]) for of in records])
    logits = np.array(network({"phenotype": np.stack([of[1] for of in records])}, training=True), float)
    expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(8), label]).mean()
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(row["accuracy"]) == (logits.argmax(1) == label).mean()


@pytest.mark.slow
def test_the_first_loss_of_an_autoencoder_is_its_error_and_its_sparsity(train, cohort, tmp_path):
    import keras

    train("one", "ae", 1)
    (row,) = read_rows(tmp_path / "one/out/history.csv")
    keras.utils.set_random_seed(0)
    module = MODELS["ae"].module
    config = override(module.PRESETS["default"], ["batch_size=8"])
    given = np.stack([lab.read_record(cohort / file)[1] for file in order(cohort, 0)])
    outputs = {
        name: np.array(of, float)
        for name, of in module.build(config, None)({"phenotype": given}, training=True).items()
    }
    rho, rho_hat = config.sparsity, (1 / (1 + np.exp(-outputs["code"]))).mean()
    divergence = rho * np.log(rho / rho_hat) + (1 - rho) * np.log((1 - rho) / (1 - rho_hat))
    expected = np.square(given - outputs["reconstruction"]).mean() + config.sparsity_weight * divergence
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_each_record_is_seen_once_an_epoch_and_the_order_changes(train, cohort, tmp_path):
    """One record a batch, by a network that is not trained: the loss tells which it was."""
    count = len(lab.read_table(cohort / "subjects.csv").query("split == 'train'"))
    assert train("one", "ae", 2 * count, "--set", "learning_rate=1e-12", "--set", "batch_size=1").status == 0
    losses = [round(float(row["loss"]), 4) for row in read_rows(tmp_path / "one/out/history.csv")]
    first, second = losses[:count], losses[count:]
    assert sorted(first) == pytest.approx(sorted(second), abs=2e-3) and first != second


@pytest.mark.slow
def test_a_loss_is_that_of_the_networks_together(train, tmp_path):
    """Eight networks that begin undecided have the loss of one, and weights have no penalty."""
    train("one", "nn", 1, "--set", "members=8")
    (row,) = read_rows(tmp_path / "one/out/history.csv")
    assert float(row["loss"]) == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_its_batch_and_leaves_the_last_checkpoint(train, cohort, tmp_path):
    assert train("one", "nn", 2).status == 0
    before = digests(tmp_path / "one/ckpt/nn")
    outcome = train("one", "nn", 9, "--set", "learning_rate=1e38", "--overrideChkpt")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    step, names = re.search(r"The loss is (?:nan|inf) at iteration (\d+), of the records (.*?): ", outcome.err).groups()
    assert names.split(", ") == sorted(order(cohort, int(step) - 1))
    assert before == digests(tmp_path / "one/ckpt/nn.replaced") or before == digests(tmp_path / "one/ckpt/nn")
