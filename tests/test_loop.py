"""The loop: order of batches, the loss that is reported, checkpoints at intervals, losses that are not finite."""

import re
import shutil

import numpy as np
import pytest
from helpers import DENSE, read_rows, resealed, settings
from hypothesis import given
from hypothesis import strategies as st

from data.base.effort import EFFORT, Effort
from data.cohorts.stored import open_cohort
from models import MODELS, nn, override
from utils.runs.checkpoints import CheckpointFolder
from utils.training.loop import batch_positions, make_optimizer, rows_of

pytestmark = pytest.mark.usefixtures("undrawn")


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 12), count=st.integers(1, 30), epochs=st.integers(1, 3))
def test_every_record_is_seen_once_an_epoch(seed, size, count, epochs):
    steps = -(-epochs * count // size)
    stream = np.concatenate([batch_positions(seed, step, size, count) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_order_depends_on_seed_and_step_alone_and_is_reshuffled_each_epoch():
    first, second = batch_positions(7, 0, 50, 50), batch_positions(7, 1, 50, 50)
    assert (first == batch_positions(7, 0, 50, 50)).all()
    assert (first != second).any()
    assert (first != batch_positions(8, 0, 50, 50)).any()
    halves = np.concatenate([batch_positions(7, step, 25, 50) for step in (0, 1)])
    assert (halves == first).all()


def test_a_share_of_a_batch_holds_all_maps_of_its_records():
    """Of a model that reads maps one by one, a record has two volumes."""
    batch = {"label": np.arange(5), "volume": np.arange(10).repeat(3).reshape(10, 3)}
    share = rows_of(batch, np.array([1, 2, 3]))
    assert share["label"].tolist() == [1, 2, 3]
    assert share["volume"][:, 0].tolist() == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("half_rate_after, expected", [(0, 0.25), (2, 0.25 / 2.5)])
def test_the_rate_falls_with_the_batches_seen(half_rate_after, expected):
    config = nn.Config(learning_rate=0.25, half_rate_after=half_rate_after)
    optimizer = make_optimizer(config, "float32")
    optimizer.iterations.assign(3)
    assert float(optimizer.learning_rate) == pytest.approx(expected)


@pytest.mark.slow
def test_the_first_loss_is_that_of_the_first_batch_by_hand(train, cohort, tmp_path):
    """Batch 0 through a network built and initialised anew; its batch norm uses the batch, as in training."""
    import keras

    train("one", "nn", 1, *settings(DENSE))
    row = read_rows(tmp_path / "one" / "out" / "history.csv")[0]
    opened = open_cohort(cohort)
    keras.utils.set_random_seed(0)
    module = MODELS["nn"].module
    network = module.build(override(module.PRESETS["sine"], ["batch_size=8", *DENSE]), opened.grid)
    batch = opened.batch(opened.indices("train")[batch_positions(0, 0, 8, 36)], volumes=False)
    logits = np.array(network({"phenotype": batch["phenotype"]}, training=True), float)
    chosen = logits[np.arange(8), batch["label"]]
    expected = (np.log(np.exp(logits).sum(1)) - chosen).mean()
    assert float(row["loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(row["accuracy"]) == (logits.argmax(1) == batch["label"]).mean()


@pytest.mark.slow
def test_a_loss_is_that_of_the_networks_together(train, tmp_path):
    """Eight networks that begin undecided have the loss of one, and weights have no penalty."""
    train("one", "nn", 1, "--set", "members=8")
    (row,) = read_rows(tmp_path / "one" / "out" / "history.csv")
    assert float(row["loss"]) == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.slow
def test_checkpoints_are_saved_at_intervals_and_at_the_end(train, tmp_path, monkeypatch):
    from utils.training.network import Saver

    assert Effort().save_every == 150
    save, saved = Saver.save, []
    monkeypatch.setattr(EFFORT, "save_every", 2)
    monkeypatch.setattr(Saver, "save", lambda self, step, identity: (saved.append(step), save(self, step, identity)))
    assert train("one", "nn", 7).status == 0
    assert saved == [2, 4, 6, 7]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_its_batch_and_leaves_the_last_checkpoint(train, cohort, tmp_path, monkeypatch):
    """A value near the largest float32, as if that were let pass, in a record of the fourth batch, which NumPy's
    permutations find."""
    monkeypatch.setattr("data.cohorts.records.LARGEST", 3.3e38)
    files = [row["file"] for row in read_rows(cohort / "subjects.csv") if row["split"] == "train"]
    fourth = [files[at] for at in np.random.default_rng((0, 0)).permutation(len(files))[3 * 8 : 4 * 8]]
    poisoned = shutil.copytree(cohort, tmp_path / "cohort")
    values = np.fromfile(poisoned / fourth[2], "<f4")
    values[1:30] = 3e38
    values.tofile(poisoned / fourth[2])
    resealed(poisoned)
    assert train("one", "nn", 2, "--dataDir", poisoned).status == 0
    folder = CheckpointFolder(tmp_path / "one" / "ckpt" / "nn")
    digest = folder.digest()
    outcome = train("one", "nn", 9, "--dataDir", poisoned)
    assert (outcome.status, outcome.err.count("\n"), folder.digest()) == (2, 1, digest)
    names = ", ".join(sorted(fourth))
    assert re.search(rf"The loss is (nan|inf) at iteration 4, of the records {re.escape(names)}: ", outcome.err)
    assert outcome.err.endswith("--overrideChkpt --set learning_rate=0.0003\n")
