"""A training in memory predicts what --train and then --test do; people set aside choose the checkpoint."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from helpers import SMALL, SMALL_BATCH, assert_bit_equal, flip_a_bit, read_rows, requested
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from data.cohorts.records import REDUCED
from data.cohorts.stored import open_cohort
from models import from_json, nn
from utils.machines import devices
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.validate import single_run
from utils.training.fit import predicted
from utils.training.network import restore_weights

pytestmark = pytest.mark.usefixtures("undrawn")


WORDS = {  # what decides the weights: layers that draw, keep running means or read volumes, and which weights are best
    "sines, seed": ("nn", (*SMALL["nn"], "--seed", "3")),
    "batch norm, validation": ("nn", (*SMALL_BATCH, "--preset", "default", "--validation", "0.3")),
    "volumes, dropout": ("cnn", (*SMALL_BATCH, "--preset", "linear", "--set", "dropout=0.5")),
}


@pytest.fixture
def both(cli, cohort, tmp_path, monkeypatch) -> Callable[..., tuple[dict, list[dict]]]:
    """What a training in memory predicts, and the rows of predictions.csv of one by the user's commands."""
    monkeypatch.setattr("utils.training.loop.SAVE_EVERY", 2)

    def run(model: str, *more: str) -> tuple[dict[str, float], list[dict]]:
        places = ("--model", model, "--dataDir", str(cohort), "--chkPointDir")
        train = ["--train", "--numIters", "5", *more, *places]
        alone = single_run(requested(" ".join([*train, "memory"])))
        found = predicted(replace(alone, workers=alone.workers.started(devices.start_tensorflow("cpu"))))
        assert not (tmp_path / "memory" / model).exists() and not (tmp_path / "results").exists()
        for command in ([*train, "ckpt"], ["--test", *places, "ckpt"]):
            outcome = cli(*command, "--outDir", command[0].strip("-"))
            assert outcome.status == 0, outcome.err
        return found, read_rows(tmp_path / "test" / "predictions.csv")

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_a_training_in_memory_predicts_what_train_and_test_do(name, both):
    model, more = WORDS[name]
    found, rows = both(model, *more)
    assert {row["file"]: float(row["probability"]) for row in rows} == {
        file: float(f"{probability:.8g}") for file, probability in found.items()
    }
    assert len({round(probability, 4) for probability in found.values()}) > 1


@pytest.mark.slow
def test_a_damaged_best_checkpoint_is_told_before_the_first_batch(train, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.training.loop.SAVE_EVERY", 2)
    assert train("one", "nn", 2, "--validation", "0.3").status == 0
    (best,) = (tmp_path / "one" / "ckpt" / "nn" / "best").glob("*.data-*")
    flip_a_bit(best)
    outcome = train("one", "nn", 4, "--validation", "0.3")
    assert (outcome.status, "nn/best does not have its digest; copy it again, or" in outcome.err) == (2, True)
    shutil.rmtree(best.parent)
    outcome = train("one", "nn", 4, "--validation", "0.3")
    assert (outcome.status, "nn has no checkpoint in best, though subjects were set aside" in outcome.err) == (2, True)


@pytest.mark.slow
def test_validation_subjects_choose_the_checkpoint(cli, cohort, tmp_path):
    places = ("--model", "nn", "--chkPointDir", tmp_path / "ckpt", "--dataDir", cohort)
    train = ("--train", "--validation", "0.25", "--set", "learning_rate=0.1", *SMALL["nn"], *places)
    outcome = cli(*train, "--numIters", 310)
    assert outcome.status == 0, outcome.err
    rows = read_rows(tmp_path / "results/nn-train/history.csv")
    measured = [row for row in rows if row["validation_loss"]]
    assert [int(row["step"]) for row in measured] == [150, 300, 310]
    best = min(measured, key=lambda row: float(row["validation_loss"]))
    checkpoints = CheckpointFolder(tmp_path / "ckpt" / "nn")
    assert checkpoints.best.identity().validation_loss == pytest.approx(float(best["validation_loss"]))
    assert int(best["step"]) < 310
    assert checkpoints.to_use.path == tmp_path / "ckpt" / "nn" / "best"
    assert cli("--test", *places).status == 0
    run = json.loads((tmp_path / "results/nn-test/run.json").read_text())
    assert run["checkpoint_sha256"] == checkpoints.best.digest() != checkpoints.digest()
    assert (
        "validation share 0.25, this run of validation share 0.1"
        in cli("--train", "--validation", "0.1", *places, *SMALL_BATCH, "--numIters", 320).err
    )


@pytest.mark.slow
def test_the_measures_are_those_of_the_people_set_aside(train, cohort, tmp_path):
    """By NumPy and scikit-learn, from the weights that were kept."""
    assert train("one", "nn", 3, "--validation", "0.25", "--seed", 2).status == 0
    (*_, row) = read_rows(tmp_path / "one" / "out" / "history.csv")
    folder = CheckpointFolder(tmp_path / "one" / "ckpt" / "nn").best
    network = nn.build(from_json(nn.Config, folder.identity().config), REDUCED)
    restore_weights(folder, network)
    opened = open_cohort(cohort)
    label = {person.subject: int(person.label) for person in opened.rows if person.split == "train"}
    _, aside = train_test_split(list(label), test_size=0.25, stratify=list(label.values()), random_state=2)
    batch = opened.batch([at for at, person in enumerate(opened.rows) if person.subject in aside], volumes=False)
    logits = np.asarray(network({"phenotype": batch["phenotype"]}), float)
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(aside)), batch["label"]]
    assert float(row["validation_loss"]) == pytest.approx(loss.mean(), rel=1e-5)
    assert float(row["validation_auc"]) == pytest.approx(roc_auc_score(batch["label"], logits[:, 1] - logits[:, 0]))


@pytest.mark.slow
def test_a_validated_training_that_is_stopped_comes_out_the_same(train, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.training.loop.SAVE_EVERY", 4)
    for name, iterations in (("whole", (6,)), ("pieces", (4, 6))):
        for count in iterations:
            assert train(name, "nn", count, "--validation", "0.25").status == 0
    for place in ("ckpt/nn", "ckpt/nn/best"):
        assert_bit_equal(tmp_path / "whole" / place, tmp_path / "pieces" / place)
