"""A training in memory predicts what --train and then --test do."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers import DENSE, SMALL, SMALL_BATCH, read_rows, requested, settings

from data.base.effort import EFFORT
from utils.machines import devices
from utils.runs.validate import single_run
from utils.training.fit import predicted

pytestmark = pytest.mark.usefixtures("undrawn")


WORDS = {  # what decides the weights: layers that draw, keep running means or read volumes
    "sines, seed": ("nn", (*SMALL["nn"], "--seed", "3")),
    "batch norm": ("nn", (*SMALL_BATCH, *settings(DENSE))),
    "volumes, dropout": ("cnn", (*SMALL_BATCH, *settings(["members=1", "cubes=1"]))),
}


@pytest.fixture
def both(cli, cohort, tmp_path, monkeypatch) -> Callable[..., tuple[dict, list[dict]]]:
    """What a training in memory predicts, and the rows of predictions.csv of one by the user's commands."""
    monkeypatch.setattr(EFFORT, "save_every", 2)

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
