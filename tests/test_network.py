"""What a training writes, on a full disk too: three checkpoints with their digests; a history of whole rows."""

import hashlib
import resource
from contextlib import contextmanager

import pytest
from helpers import an_identity, assert_bit_equal, read_rows, step_of

from data.base.errors import InputError
from utils.runs.checkpoints import CheckpointFolder
from utils.scores.results import Estimate, Headline
from utils.training.network import Saver
from utils.training.train import History, earlier_history

pytestmark = pytest.mark.usefixtures("undrawn")
WIDE = ("--set", "filters=8,24")  # its checkpoint has some 250 kB, more than any other file of the run


def new_saver(folder) -> Saver:
    """Of a network of one weight."""
    import keras

    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(network.trainable_variables)
    return Saver(CheckpointFolder(folder), network, optimizer)


def test_three_checkpoints_are_kept_with_their_digests(tmp_path):
    saver = new_saver(tmp_path / "nn")
    for step in (2, 4, 6, 7):
        saver.save(step, an_identity())
    folder, recorded = saver.folder, saver.folder.identity().saved
    assert {name: saved.step for name, saved in recorded.items()} == {"ckpt-2": 4, "ckpt-3": 6, "ckpt-4": 7}
    for name, saved in recorded.items():
        paths = [folder.path / f"{name}.data-00000-of-00001", folder.path / f"{name}.index"]
        assert hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest() == saved.sha256
    assert len(list(folder.path.glob("*.index"))) == 3
    assert (folder.identity().step, new_saver(folder.path).restore()) == (7, 7)


def test_a_checkpoint_whose_digest_was_not_recorded_any_more_is_continued(tmp_path):
    """Killed between the files of a checkpoint and its digest."""
    saver = new_saver(tmp_path / "nn")
    saver.save(2, an_identity())
    earlier = (tmp_path / "nn" / "run.json").read_bytes()
    saver.save(4, an_identity())
    (tmp_path / "nn" / "run.json").write_bytes(earlier)
    again = new_saver(tmp_path / "nn")
    assert again.restore() == 4
    assert again.saved["ckpt-2"] == saver.saved["ckpt-2"]


def test_what_is_replaced_is_removed_by_the_first_save_but_not_what_the_user_put_there(tmp_path):
    new_saver(tmp_path / "nn").save(2, an_identity())
    (tmp_path / "nn" / "thesis.txt").write_text("mine")
    (tmp_path / "nn" / "notes").mkdir()
    (tmp_path / "nn" / "notes" / "a.txt").write_text("mine, too")
    for seed in (1, 2):
        saver = new_saver(tmp_path / "nn")
        saver.folder.prepare(override=True)
        assert saver.folder.current == tmp_path / "nn.replaced"
        saver.save(1, an_identity(seed=seed))
        assert [path.name for path in tmp_path.iterdir()] == ["nn"]
        assert (saver.folder.identity().seed, saver.folder.identity().step) == (seed, 1)
        assert (tmp_path / "nn" / "thesis.txt").read_text() == "mine"
        assert (tmp_path / "nn" / "notes" / "a.txt").read_text() == "mine, too"


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_a_history_whose_last_line_was_cut_off_is_continued(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("step,loss,samples_per_s\n1,0.7,9.0\n2,0.6,9.0\n3,0.5,9.0\n4,0.4")
    history = History(tmp_path, 2)  # the checkpoint has seen 2 batches
    history.add(3, {"loss": 0.25, "samples_per_s": 8.0})
    history.close()
    assert [(row["step"], row["loss"]) for row in read_rows(path)] == [("1", "0.7"), ("2", "0.6"), ("3", "0.25")]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    "rows, step, expected",
    [
        ("1,0.7\n2,0.6\n", 0, []),  # a training that begins has no history
        ("1,0.7\n2,0.6\n", 1, ["1"]),
        ("1,0.7\n2,0.6\n3,0.", 3, ["1", "2"]),
        ("1,0.7\n2\n", 3, ["1"]),
        ("1,0.7\n2,0.6,3\n", 3, ["1"]),
        ("1,0.7\n" + "9" * 5000 + ",0.5\n", 3, ["1"]),
        ("1,0.7\ntwo,0.5\n", 3, ["1"]),
    ],
)
def test_rows_up_to_the_checkpoint_are_kept(rows, step, expected, tmp_path):
    (tmp_path / "history.csv").write_text("step,loss\n" + rows)
    assert [row["step"] for row in earlier_history(tmp_path / "history.csv", step)] == expected


def test_a_history_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "history.csv").write_text("step,loss\n1,0.7\n2," + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"history\.csv is damaged \(field larger.*remove it and repeat"):
        earlier_history(tmp_path / "history.csv", 3)


def test_the_last_loss_stands_for_a_training(tmp_path):
    history = History(tmp_path, 0)
    assert history.headline is None
    history.add(1, {"loss": 0.7})
    history.add(2, {"loss": 0.5})
    assert history.headline == Headline("loss after 2 batches", Estimate(0.5, None, None))
    history.close()


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
    """At 150 kB only the checkpoint does not fit, at 100 bytes nothing does."""
    folder = CheckpointFolder(tmp_path / "one" / "ckpt" / "cnn")
    assert train("one", "cnn", 2, *WIDE).status == 0
    digest = folder.digest()
    for limit, words in ((150_000, "the one before is intact. Make room for it and repeat"), (100, "")):
        with largest_file(limit):
            outcome = train("one", "cnn", 4, *WIDE)
        assert outcome.status == 2
        assert outcome.err.startswith("run.py: error: ")
        assert outcome.err.count("\n") == 1
        assert words in outcome.err
        assert folder.digest() == digest
        assert step_of(folder.path) == 2
    assert train("one", "cnn", 4, *WIDE).status == 0
    assert train("whole", "cnn", 4, *WIDE).status == 0
    assert_bit_equal(tmp_path / "whole" / "ckpt" / "cnn", folder.path)


@pytest.mark.slow
def test_the_first_checkpoint_on_a_full_disk_is_not_said_to_have_one_before_it(train, tmp_path):
    with largest_file(150_000):
        outcome = train("one", "cnn", 2, *WIDE)
    assert outcome.status == 2
    assert "there is none before it" in outcome.err
    assert not [path.name for path in (tmp_path / "one" / "ckpt" / "cnn").iterdir() if path.name.startswith("ckpt")]
