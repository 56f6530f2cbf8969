"""Checkpoints on disk: which one is used, damaged ones are not, and nothing of the user's is lost by a replacement."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from helpers import ROOT, an_identity, assert_bit_equal, flip_a_bit, write_checkpoints

from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.files import FORMAT
from utils.runs.checkpoints import CheckpointFolder, latest_in, prefixes_in

pytestmark = pytest.mark.usefixtures("undrawn")
DAMAGE = [flip_a_bit, lambda path: os.truncate(path, 10), Path.unlink]


@pytest.fixture
def three(tmp_path) -> CheckpointFolder:
    """Made up: ckpt-1, ckpt-2 and ckpt-3, of the 2nd, the 4th and the 6th batch."""
    return write_checkpoints(tmp_path / "nn", (2, 4, 6))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_latest_is_used(three):
    assert [prefix.name for prefix in prefixes_in(three.path)] == ["ckpt-3", "ckpt-2", "ckpt-1"]
    assert (three.latest(), three.current, three.damaged) == (three.path / "ckpt-3", three.path, [])
    assert three.identity().step == 6
    assert three.digest() == three.identity().saved["ckpt-3"].sha256


def test_a_training_that_still_runs_is_told_and_one_of_folds_in_the_folder_is_not(three, capsys):
    hold = "import sys; from pathlib import Path; from data.base import files\n"
    hold += "with files.locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    for of, told in ((three.path / "folds-3" / "0", False), (three.path, True)):
        of.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", hold, str(of)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
            assert other.stdout.readline() == "held\n"
            three.tell_of_training()
            out = capsys.readouterr().out
            assert (f"{three.path} is still being trained, by process {other.pid}" in out) is told, out
            other.stdin.close()
    three.tell_of_training()
    assert capsys.readouterr().out == ""


def test_numbers_are_ordered_as_numbers(tmp_path):
    folder = write_checkpoints(tmp_path / "nn", range(2, 24, 2))
    assert [prefix.name for prefix in prefixes_in(folder.path)] == [f"ckpt-{number}" for number in range(11, 0, -1)]
    (folder.path / "checkpoint").unlink()
    assert latest_in(folder.path) == folder.path / "ckpt-11"


def test_a_folder_without_checkpoints(tmp_path):
    folder = CheckpointFolder(tmp_path / "nn", "run.py --train --model nn")
    assert (folder.current, folder.whole, latest_in(folder.path)) == (None, None, None)
    with pytest.raises(InputError, match=r"nn holds no checkpoint; make one: run\.py --train --model nn$"):
        folder.latest()
    folder.prepare(override=True)
    assert (folder.path.is_dir(), folder.current, folder.replaced.exists()) == (True, None, False)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["ckpt-3.index", "ckpt-3.data-00000-of-00001"])
def test_the_one_before_a_damaged_one_is_used(file, damage, three):
    damage(three.path / file)
    assert (three.latest().name, three.damaged, three.identity().step) == ("ckpt-2", ["ckpt-3"], 4)


@pytest.mark.parametrize("damage", DAMAGE)
def test_all_of_them_damaged(damage, three):
    for path in list(three.path.glob("*.data-*")):
        damage(path)
    assert three.whole is None
    with pytest.raises(InputError, match=r"ckpt-3 is not there or not as it was saved, nor is one before it; copy"):
        three.identity()


@pytest.mark.parametrize(
    "state", ["", "nonsense", f'model_checkpoint_path: "ckpt-{"9" * 5000}"', "model_checkpoint_path: 3"]
)
def test_a_state_file_that_names_none_is_damaged(state, three):
    (three.path / "checkpoint").write_text(state)
    assert (three.latest().name, three.damaged) == ("ckpt-3", ["checkpoint"])


@pytest.mark.parametrize("state", [None, 'model_checkpoint_path: "/where/it/was/trained/nn/ckpt-3"\n'])
def test_a_folder_that_was_moved_or_lost_its_state_file(state, three):
    (three.path / "checkpoint").unlink()
    if state:
        (three.path / "checkpoint").write_text(state)
    assert (three.latest().name, three.damaged) == ("ckpt-3", [])


def test_a_checkpoint_later_than_the_state_file_was_never_completed(three):
    (three.path / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\n')
    (three.path / "ckpt-4_temp").mkdir()
    (three.path / "ckpt-4_temp" / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    assert three.latest().name == "ckpt-2"
    three.prepare(override=False)
    assert not [name for name in names_in(three.path) if name.startswith(("ckpt-3", "ckpt-4"))]
    assert three.latest().name == "ckpt-2"


def test_without_digests_files_that_are_there_are_used(three):
    described = json.loads((three.path / "run.json").read_text())
    (three.path / "run.json").write_text(json.dumps(described | {"saved": {}}))
    flip_a_bit(three.path / "ckpt-3.index")
    assert three.latest().name == "ckpt-3"
    (three.path / "ckpt-3.index").unlink()
    assert three.latest().name == "ckpt-2"


def test_an_identity_that_is_damaged_is_refused_by_name(three):
    (three.path / "run.json").write_text("{")
    assert three.latest().name == "ckpt-3"
    with pytest.raises(InputError, match=r"nn/run\.json is damaged"):
        three.identity()


def test_an_identity_that_lacks_something_is_refused_by_name(three):
    described = json.loads((three.path / "run.json").read_text())
    del described["training_volumes"]
    (three.path / "run.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"nn/run\.json is damaged \(training_volumes: "):
        three.identity()


def test_a_replaced_checkpoint_is_used_until_the_new_one_is_there(three, tmp_path):
    digest = three.digest()
    three.prepare(override=True)
    assert (names_in(three.path), three.current, three.digest()) == (set(), tmp_path / "nn.replaced", digest)
    three.prepare(override=False)  # the new run was killed before it saved
    assert (three.current, three.digest(), names_in(tmp_path)) == (three.path, digest, {"nn"})


def test_a_first_checkpoint_that_was_not_completed_is_none(tmp_path):
    """TensorFlow has written an index, perhaps to a full disk, but not its state file; nor is the digest recorded."""
    folder = write_checkpoints(tmp_path / "nn", (4,))
    (folder.path / "checkpoint").unlink()
    assert folder.current == folder.path
    described = json.loads((folder.path / "run.json").read_text())
    (folder.path / "run.json").write_text(json.dumps(described | {"saved": {}}))
    assert folder.current is None
    folder.prepare(override=False)
    assert names_in(folder.path) == {"run.json"}


def test_a_run_killed_after_its_first_save_is_continued(three):
    """Before it removed what it replaces."""
    three.prepare(override=True)
    new = write_checkpoints(three.path / "made", (1,)).path
    for path in new.iterdir():
        path.rename(three.path / path.name)
    new.rmdir()
    digest = three.digest()
    three.prepare(override=False)
    assert (three.current, three.digest(), three.identity().step) == (three.path, digest, 1)
    three.prepare(override=True)
    assert (three.current, three.digest()) == (three.replaced, digest)


def test_overriding_twice_restores_and_replaces_the_same(three, tmp_path):
    digest = three.digest()
    for _ in range(2):
        three.prepare(override=True)
        (three.path / "ckpt-1_temp").mkdir()  # killed before it saved
    assert (three.digest(), names_in(tmp_path)) == (digest, {"nn", "nn.replaced"})


def test_what_is_not_the_checkpoints_own_stays_where_it_is(three, tmp_path):
    (three.path / "thesis.txt").write_text("mine")
    shutil.copytree(three.path, three.path / "folds-3" / "0")
    own = {"checkpoint", "run.json", "ckpt-1.index", "ckpt-1.data-00000-of-00001", "ckpt-12_temp"}
    three.prepare(override=True)
    assert names_in(three.replaced) <= own | {"ckpt-2.index", "ckpt-3.index"} | {
        f"ckpt-{number}.data-00000-of-00001" for number in (2, 3)
    }
    assert names_in(three.path) == {"thesis.txt", "folds-3"}
    (three.path / "notes.txt").write_text("written meanwhile")
    (three.replaced / "notes.txt").write_text("written there")
    three.prepare(override=False)
    assert {"thesis.txt", "folds-3", "ckpt-3.index"} < names_in(three.path)
    assert {three.path.joinpath(name).read_text() for name in ("notes.txt", "notes.txt+")} == {
        "written meanwhile",
        "written there",
    }


@pytest.mark.slow
def test_a_damaged_checkpoint_without_a_digest_is_told_in_one_line(train, seen_two, cli, cohort, tmp_path):
    """TensorFlow finds the damage."""
    shutil.copytree(seen_two, tmp_path / "one")
    folder = tmp_path / "one" / "ckpt" / "nn"
    described = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(described | {"saved": {}}))
    data = next(folder.glob("*.data-*"))
    os.truncate(data, data.stat().st_size // 2)
    test = ("--test", "--model", "nn", "--chkPointDir", folder.parent, "--dataDir", cohort)
    outcome = cli(*test)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "cannot be read" in outcome.err and str(folder) in outcome.err
    assert train("one", "nn", 2, "--overrideChkpt").status == 0
    outcome = cli(*test)
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
def test_trained_and_tested_from_the_one_before_a_damaged_one(train, seen_six, cli, cohort, tmp_path):
    shutil.copytree(seen_six, tmp_path / "one")
    folder = tmp_path / "one" / "ckpt" / "nn"
    undisturbed = CheckpointFolder(folder).digest()
    flip_a_bit(folder / "ckpt-3.data-00000-of-00001")
    warning = f"ckpt-3 in {folder} does not have its digest; used instead: ckpt-2, of iteration 4.\n"
    outcome = cli("--test", "--model", "nn", "--chkPointDir", folder.parent, "--dataDir", cohort)
    assert (outcome.status, warning in outcome.out) == (0, True), outcome.err
    outcome = train("one", "nn", 6)
    assert (outcome.status, warning in outcome.out) == (0, True), outcome.err
    assert "Continuing" in outcome.out and CheckpointFolder(folder).digest() == undisturbed


@pytest.mark.slow
def test_a_save_that_a_kill_cut_short_is_completed(train, seen_six, tmp_path, monkeypatch):
    """TensorFlow deletes the oldest checkpoint after it has listed the new one, whose digest is recorded last."""
    monkeypatch.setattr(EFFORT, "save_every", 2)
    ckpt = shutil.copytree(seen_six, tmp_path / "one") / "ckpt" / "nn"
    oldest = (ckpt / "ckpt-1.data-00000-of-00001").read_bytes()
    train("one", "nn", 8)
    listed, described = (ckpt / "checkpoint").read_text(), json.loads((ckpt / "run.json").read_text())
    paths = sorted(path.name for path in ckpt.iterdir())
    first = listed.index("all_model_checkpoint_paths")
    stamp = listed.index("all_model_checkpoint_timestamps")
    stamped = f'{listed[:first]}all_model_checkpoint_paths: "ckpt-1"\n{listed[first:stamp]}'
    (ckpt / "checkpoint").write_text(f"{stamped}all_model_checkpoint_timestamps: 1.5\n{listed[stamp:]}")
    (ckpt / "ckpt-1.data-00000-of-00001").write_bytes(oldest)
    cut = described | {"saved": {"ckpt-1": described["saved"]["ckpt-2"]} | described["saved"]}
    del cut["saved"]["ckpt-4"]
    (ckpt / "run.json").write_text(json.dumps(cut))
    assert "nothing to train" in train("one", "nn", 8).out
    assert sorted(path.name for path in ckpt.iterdir()) == paths
    assert [line for line in (ckpt / "checkpoint").read_text().splitlines() if "stamp" not in line] == [
        line for line in listed.splitlines() if "stamp" not in line
    ]
    assert json.loads((ckpt / "run.json").read_text()) == described


@pytest.mark.slow
def test_a_training_goes_on_without_its_state_file(train, seen_six, tmp_path):
    shutil.copytree(seen_six, tmp_path / "one")
    folder = tmp_path / "one" / "ckpt" / "nn"
    (folder / "checkpoint").write_text("nonsense")
    outcome = train("one", "nn", 7)
    assert (outcome.status, outcome.err, "at iteration 6" in outcome.out) == (0, "", True)
    warning = f"checkpoint in {folder} does not have its digest; used instead: ckpt-3, of iteration 6.\n"
    assert warning in outcome.out
    shutil.copytree(seen_six, tmp_path / "other")
    assert train("other", "nn", 7).status == 0
    assert_bit_equal(folder, tmp_path / "other" / "ckpt" / "nn")


# Where what was trained on lies


@pytest.fixture
def study(tmp_path) -> Path:
    """A folder with a cohort, results, and checkpoints that name them as a run of this version does."""
    folder = tmp_path / "home" / "study"
    for name in ("cohort", "results"):
        (folder / name).mkdir(parents=True)
    checkpoints = write_checkpoints(folder / "ckpt" / "nn", [1])
    named = an_identity(
        cohort=str(folder / "cohort"), out_dir=str(folder / "results"), saved=checkpoints.identity().saved
    )
    written = named.written_to(checkpoints.path)
    (checkpoints.path / "run.json").write_text(json.dumps({"format": FORMAT, **asdict(written)}))
    return folder


def places(folder: Path) -> tuple[str, str]:
    saved = CheckpointFolder(folder / "ckpt" / "nn").identity()
    return saved.cohort, saved.out_dir


def test_paths_are_written_whole(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    written = an_identity(cohort="a/../cohort", out_dir="out").written_to(Path("ckpt"))
    assert (written.cohort, written.out_dir) == (str(tmp_path / "cohort"), str(tmp_path / "out"))
    assert written.folder == str(tmp_path / "ckpt")


def test_what_lies_beside_a_checkpoint_is_found_wherever_it_goes(study, tmp_path):
    assert places(study) == (str(study / "cohort"), str(study / "results"))
    moved = study.rename(tmp_path / "moved")
    assert places(moved) == (str(moved / "cohort"), str(moved / "results"))
    alone = tmp_path / "deep" / "er"
    shutil.move(moved / "ckpt", alone / "ckpt")
    assert places(alone) == (str(study / "cohort"), str(study / "results"))


def test_a_copy_never_writes_into_the_results_of_the_original(study, tmp_path):
    copy = shutil.copytree(study / "ckpt", tmp_path / "copy" / "ckpt").parent
    assert places(copy) == (str(study / "cohort"), str(copy / "results"))


def test_a_link_to_a_folder_is_that_folder(study, tmp_path):
    (tmp_path / "link").symlink_to(study / "ckpt")
    saved = CheckpointFolder(tmp_path / "link" / "nn").identity()
    assert (saved.cohort, saved.out_dir) == (str(study / "cohort"), str(study / "results"))


@pytest.mark.parametrize("number", [FORMAT + 1, None])
def test_a_checkpoint_of_another_format_is_refused(number, three):
    path = three.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))
    with pytest.raises(
        InputError, match=rf"run\.json has the format {number}, .* reads format {FORMAT}; train again: "
    ):
        three.identity()


@pytest.mark.parametrize("said", [{"folder": "/elsewhere", "cohort": ""}, {"folder": "a\0b"}])
def test_what_can_be_no_path_is_damage(said, three):
    path = three.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    with pytest.raises(InputError, match=r"run\.json is damaged .*Copy it again"):
        three.identity()
