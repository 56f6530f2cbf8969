"""--train: what it leaves, losses by hand, exact resuming after signals and kills, what overriding keeps."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import lab
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, Outcome, done, read_manifest, read_page_text
from helpers import DENSE_SETTINGS, assert_bit_equal, read_rows, read_variables, training_arguments
from sklearn.linear_model import Ridge

from models import MODELS, override_settings

pytestmark = pytest.mark.usefixtures("undrawn")
ENDLESS = 1_000_000  # batches, or batches from checkpoint to checkpoint


def read_history_without_speed(folder: Path) -> pd.DataFrame:
    """The history in results but for what no two trainings share."""
    return pd.read_csv(folder / "history.csv").drop(columns="samples_per_s")


def read_checkpoint_files(folder: Path) -> dict[str, bytes]:
    """The files of the checkpoints in a folder."""
    return {path.name: path.read_bytes() for path in folder.glob("ckpt*-*")}


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("model, measures", [("cnn", ["loss", "accuracy"]), ("ae", ["loss"])])
def test_training_leaves_history_figure_events_and_record(model, measures, train, tmp_path):
    outcome = train("one", model, 5)
    assert (outcome.status, outcome.err) == (0, "")
    out = tmp_path / "one" / "out"
    rows = pd.read_csv(out / "history.csv")
    assert [*rows] == ["step", *measures, "samples_per_s"] and [*rows["step"]] == [1, 2, 3, 4, 5]
    assert rows["loss"].between(0, 100).all() and (rows["samples_per_s"] > 0).all()
    assert (rows[measures[-1]] * 8 % 1 == 0).all() or model == "ae"  # accuracy, of batches of 8
    assert (out / "history.png").read_bytes().startswith(b"\x89PNG")
    assert list(out.glob("events.out.tfevents.*"))
    made = read_manifest(out)
    assert made["command"][0] == "run.py" and "--numIters" in made["command"]
    assert (made["model"], made["seed"], made["config"]["batch_size"], made["finished"]) == (model, 0, 8, True)
    assert made["wall_time_s"] > 0 and made["processor"] and "git_commit" in made
    assert {"tensorflow", "numpy"} <= made["packages"].keys()


@pytest.mark.slow
def test_training_learns(train, tmp_path):
    """The phenotype of 36 subjects can be learnt by heart."""
    assert train("one", "nn", 150, "--set", "learning_rate=0.01").status == 0
    accuracy = pd.read_csv(tmp_path / "one/out/history.csv")["accuracy"]
    assert accuracy[:5].mean() < 0.8 < 0.9 < accuracy[-10:].mean()


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
def test_continuing_is_bit_equal_to_a_single_go(model, more, train, tmp_path):
    assert train("whole", model, 5, *more).status == 0
    assert train("parts", model, 2, *more).status == 0
    assert "at iteration 2." in train("parts", model, 5, *more).out
    assert_bit_equal(tmp_path / "whole" / "ckpt" / model, tmp_path / "parts" / "ckpt" / model)
    assert read_history_without_speed(tmp_path / "parts/out").equals(read_history_without_speed(tmp_path / "whole/out"))


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
def test_connectomes_are_read_by_a_ridge_on_the_training_records(with_connectomes, tmp_path):
    done(MMNN, of=with_connectomes, to=tmp_path)
    with h5py.File(with_connectomes / "connectomes.h5") as store:
        edges = dict(zip(store["subject"].asstr()[:], store["z"][:], strict=True))
    rows = lab.read_table(with_connectomes / "subjects.csv").query("split == 'train'")
    target = rows["label"].astype(float) - rows["label"].astype(float).groupby(rows["site"]).transform("mean")
    training_edges = np.stack([edges[subject] for subject in rows["subject"]])
    weights = [
        value for value in read_variables(tmp_path / "ckpt/mmnn").values() if value.shape == training_edges.shape[1:]
    ]
    filled = np.where(np.isnan(training_edges), np.nanmean(training_edges, 0), training_edges)
    scale = np.sqrt(1000 / filled.shape[1]) / filled.std(0)
    scores = (filled - filled.mean(0)) * scale
    ridges = [Ridge(alpha=penalty).fit(scores, target).coef_ for penalty in np.logspace(1, 4, 3)]  # those of tests
    closest = [
        max(np.corrcoef(value, reference)[0, 1] for reference in (filled.mean(0), scale, *ridges)) for value in weights
    ]
    assert np.isnan(training_edges).any() and len(weights) == 3 and min(closest) > 1 - 1e-5
    places = "--dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"
    done(f"run.py --test {places}test", of=with_connectomes, to=tmp_path)
    done(f"run.py --blackout --donors 1 {places}blackout", of=with_connectomes, to=tmp_path)
    page_text = read_page_text(tmp_path / "blackout/blackout.html")
    assert "edges stayed" in page_text and "--parcels" in page_text  # where these lie is not known


@pytest.mark.slow
def test_connectomes_are_left_out_if_unwanted_or_absent(with_connectomes, cohort, tmp_path):
    for name, more, source_cohort in (("without", " --set connectome=false", with_connectomes), ("none", "", cohort)):
        done(MMNN + more, of=source_cohort, to=tmp_path / name)
        assert read_manifest(tmp_path / name / "ckpt/mmnn")["config"]["connectome"] is False
        assert (66,) not in {value.shape for value in read_variables(tmp_path / name / "ckpt/mmnn").values()}


@pytest.mark.slow
def test_finished_training_is_not_repeated_and_a_missing_figure_is_drawn_without_training(train, seen_two, tmp_path):
    folder = shutil.copytree(seen_two, tmp_path / "one")
    before, history = read_checkpoint_files(folder / "ckpt/nn"), (folder / "out/history.csv").read_bytes()
    assert "Everything is done." in train("one", "nn", 2).out
    (folder / "out/history.png").unlink()
    outcome = train("one", "nn", 2)
    assert (outcome.status, outcome.err) == (0, "")
    assert (folder / "out/history.png").exists() and "Everything is done." in train("one", "nn", 2).out
    assert read_checkpoint_files(folder / "ckpt/nn") == before and (folder / "out/history.csv").read_bytes() == history


@pytest.mark.slow
def test_results_from_another_training_are_moved_aside_on_continuing(train, seen_two, tmp_path):
    """Of the same model, with other settings."""
    shutil.copytree(seen_two, tmp_path / "one")
    assert train("other", "nn", 3, "--seed", "1").status == 0
    out = tmp_path / "other/out"
    history = (out / "history.csv").read_bytes()
    outcome = train("one", "nn", 4, "--outDir", out)
    assert outcome.status == 0, outcome.err
    assert [path.read_bytes() for path in out.glob("earlier/*/history.csv")] == [history]
    assert [row["step"] for row in read_rows(out / "history.csv")] == ["1", "2", "3", "4"]


def send_signal_during(command: list[str], signal_number: int, save_interval: int, rows: int = 1) -> Outcome:
    """A training in a process of its own that gets a signal when its history has some rows; what it printed."""
    effort = json.loads(os.environ["ABIDE_EFFORT"]) | {"save_every": save_interval}
    environment = os.environ | {"ABIDE_EFFORT": json.dumps(effort)}
    history = Path(command[command.index("--outDir") + 1]) / "history.csv"
    command_line = [sys.executable, str(ROOT / "run.py"), *command]
    with subprocess.Popen(
        command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert any(re.match(r"Training \w+ 1/", line) for line in process.stdout)
        while history.read_text().count("\n") <= rows:
            time.sleep(0.01)
        process.send_signal(signal_number)
        out, err = process.communicate(timeout=60)
    return Outcome(process.returncode, out, err)


@pytest.mark.slow
def test_an_overridden_checkpoint_is_used_until_the_new_training_has_saved(train, seen_two, cohort, tmp_path):
    """Rows of the one that never saved are not continued. What the user put beside stays."""
    folder = shutil.copytree(seen_two, tmp_path / "one")
    old = (folder / "out/history.csv").read_bytes()
    mine = [folder / "ckpt/nn/notes/a.txt", folder / "ckpt/nn/folds-3"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    again = training_arguments(folder, cohort, "nn", ENDLESS, "--overrideChkpt", "--seed", "1")
    assert send_signal_during(again, signal.SIGKILL, save_interval=ENDLESS).status == -signal.SIGKILL
    assert (folder / "out/history.csv").read_bytes() != old
    done("run.py --test --model nn --chkPointDir {of}/ckpt --dataDir {people}", of=folder, people=cohort)
    assert "at iteration 2." in train("one", "nn", 3).out
    assert [row["step"] for row in read_rows(folder / "out/history.csv")] == ["1", "2", "3"]
    earlier = [path.read_bytes() for path in (folder / "out").glob("earlier/*/history.csv")]
    assert len(earlier) == 2 and old in earlier

    for seed in (1, 2, 1):  # whatever the files are called
        assert train("one", "nn", 5, "--overrideChkpt", "--seed", seed).status == 0
        assert read_manifest(folder / "ckpt/nn")["seed"] == seed and len(list(folder.glob("ckpt/nn/*.index"))) == 1
    assert train("fresh", "nn", 5, "--seed", "1").status == 0
    assert_bit_equal(folder / "ckpt/nn", tmp_path / "fresh/ckpt/nn")
    assert read_history_without_speed(folder / "out").equals(read_history_without_speed(tmp_path / "fresh/out"))
    assert [path.read_text() for path in mine] == ["mine"] * 2
    assert "at iteration 5." in train("one", "nn", 6).out


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_completes_the_job_bit_equal(train, cohort, tmp_path):
    process = send_signal_during(
        training_arguments(tmp_path / "parts", cohort, "cnn", ENDLESS), signal.SIGTERM, save_interval=40
    )
    assert (process.status, process.err) == (128 + signal.SIGTERM, "")
    seen = int(re.search(r"Stopped at iteration (\d+) and saved; the same command continues", process.out)[1])
    made = read_manifest(tmp_path / "parts/out")
    assert (made["finished"], made["step"], read_manifest(tmp_path / "parts/ckpt/cnn")["step"]) == (False, seen, seen)
    assert not (tmp_path / "parts/runs.csv").exists()  # of runs that are finished
    assert train("parts", "cnn", seen + 3).status == train("whole", "cnn", seen + 3).status == 0
    assert_bit_equal(tmp_path / "whole/ckpt/cnn", tmp_path / "parts/ckpt/cnn")


@pytest.mark.slow
def test_killed_between_checkpoints_the_last_is_continued(train, cohort, tmp_path):
    """Batches after it are done again, in weights and in history."""
    process = send_signal_during(
        training_arguments(tmp_path / "parts", cohort, "nn", ENDLESS), signal.SIGKILL, save_interval=4, rows=5
    )
    assert process.status == -signal.SIGKILL
    folder = tmp_path / "parts/ckpt/nn"
    assert len(list(folder.glob("*.index"))) <= 4
    step = re.search(r"at iteration (\d+)\.", train("parts", "nn", 80).out)[1]
    assert int(step) % 4 == 0
    assert train("whole", "nn", 80).status == 0
    assert_bit_equal(tmp_path / "whole/ckpt/nn", folder)
    assert read_history_without_speed(tmp_path / "whole/out").equals(read_history_without_speed(tmp_path / "parts/out"))


ROWS = ("2,0.6,1,9\n3,0.", "2\n", "9" * 5000 + ",0.5,1,9\n", "two,0.5,1,9\n")


@pytest.mark.slow
@pytest.mark.parametrize("end", ROWS, ids=lambda end_text: end_text[:9])
def test_a_truncated_or_edited_history_is_continued_from_the_intact_rows(end, train, seen_two, tmp_path):
    folder = shutil.copytree(seen_two, tmp_path / "one")
    history_path = folder / "ckpt/nn/ckpt.csv"
    first = history_path.read_text().splitlines(keepends=True)[:2]
    lab.edit(history_path, ("".join(first) + end).encode())
    assert train("one", "nn", 3).status == 0
    intact_steps = ["1", "2"] if end == ROWS[0] else ["1"]
    assert [row["step"] for row in read_rows(folder / "out/history.csv")] == [*intact_steps, "3"]
    assert float(read_rows(folder / "out/history.csv")[0]["loss"]) == pytest.approx(float(first[1].split(",")[1]))


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
    before = read_checkpoint_files(folder)
    for limit in (150_000, 100):
        with largest_file(limit):
            outcome = train("one", "cnn", 4, *wide)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert read_checkpoint_files(folder) == before
    assert train("one", "cnn", 4, *wide).status == train("whole", "cnn", 4, *wide).status == 0
    assert_bit_equal(tmp_path / "whole/ckpt/cnn", folder)


def find_batch_files(cohort: Path, step: int, size: int = 8, seed: int = 0) -> list[str]:
    """The training records of a batch of the first epoch, as NumPy's permutations have them."""
    table = lab.read_table(cohort / "subjects.csv").query("split == 'train'")
    places = np.random.default_rng((seed, 0)).permutation(len(table))
    return [table["file"].iloc[row_index] for row_index in places[step * size : (step + 1) * size]]


@pytest.mark.slow
def test_the_first_loss_equals_the_first_batch_by_hand(train, cohort, tmp_path):
    """Through a network built and initialised anew; its batch norm uses the batch, as in training."""
    import keras

    train("one", "nn", 1, *(word for text in DENSE_SETTINGS for word in ("--set", text)))
    (row,) = read_rows(tmp_path / "one/out/history.csv")
    keras.utils.set_random_seed(0)
    module = MODELS["nn"].module
    network = module.build(override_settings(module.PRESETS["sine"], ["batch_size=8", *DENSE_SETTINGS]), None)
    records = [lab.read_record(cohort / file) for file in find_batch_files(cohort, 0)]
    label = np.array([int(record[0]) for record in records])
    logits = np.array(network({"phenotype": np.stack([record[1] for record in records])}, training=True), float)
    expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(8), label]).mean()
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(row["accuracy"]) == (logits.argmax(1) == label).mean()


@pytest.mark.slow
def test_the_first_autoencoder_loss_is_error_plus_sparsity(train, cohort, tmp_path):
    import keras

    train("one", "ae", 1)
    (row,) = read_rows(tmp_path / "one/out/history.csv")
    keras.utils.set_random_seed(0)
    module = MODELS["ae"].module
    config: Any = override_settings(module.PRESETS["default"], ["batch_size=8"])
    phenotype = np.stack([lab.read_record(cohort / file)[1] for file in find_batch_files(cohort, 0)])
    outputs = {
        name: np.array(tensor, float)
        for name, tensor in module.build(config, None)({"phenotype": phenotype}, training=True).items()
    }
    rho, rho_hat = config.sparsity, (1 / (1 + np.exp(-outputs["code"]))).mean()
    divergence = rho * np.log(rho / rho_hat) + (1 - rho) * np.log((1 - rho) / (1 - rho_hat))
    expected = np.square(phenotype - outputs["reconstruction"]).mean() + config.sparsity_weight * divergence
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_records_are_seen_once_per_epoch_and_the_order_changes(train, cohort, tmp_path):
    """One record a batch, by a network that is not trained: the loss tells which it was."""
    count = len(lab.read_table(cohort / "subjects.csv").query("split == 'train'"))
    assert train("one", "ae", 2 * count, "--set", "learning_rate=1e-12", "--set", "batch_size=1").status == 0
    losses = [round(float(row["loss"]), 4) for row in read_rows(tmp_path / "one/out/history.csv")]
    first, second = losses[:count], losses[count:]
    assert sorted(first) == pytest.approx(sorted(second), abs=2e-3) and first != second


@pytest.mark.slow
def test_a_loss_is_over_the_networks_together(train, tmp_path):
    """Eight networks that begin undecided have the loss of one, and weights have no penalty."""
    train("one", "nn", 1, "--set", "members=8")
    (row,) = read_rows(tmp_path / "one/out/history.csv")
    assert float(row["loss"]) == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.slow
def test_a_non_finite_loss_reports_the_batch_and_leaves_the_last_checkpoint(train, cohort, tmp_path):
    assert train("one", "nn", 2).status == 0
    before = read_checkpoint_files(tmp_path / "one/ckpt/nn")
    outcome = train("one", "nn", 9, "--set", "learning_rate=1e38", "--overrideChkpt")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    step, names = re.search(r"The loss is (?:nan|inf) at iteration (\d+), of the records (.*?): ", outcome.err).groups()
    assert names.split(", ") == sorted(find_batch_files(cohort, int(step) - 1))
    assert read_checkpoint_files(tmp_path / "one/ckpt/nn") == before
