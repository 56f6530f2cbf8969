"""Folders: results, checkpoints and cohorts lie apart, whatever they are called; earlier results are moved aside."""

import shutil
from itertools import permutations
from pathlib import Path

import pytest
from commands import done, run
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("undrawn")
TEST = "run.py --test --model nn --dataDir {of} --chkPointDir {at}/ckpt --outDir {at}/test"


@pytest.mark.slow
def test_earlier_results_are_moved_aside_completely(seen_two, cohort, tmp_path):
    """What the user put among them, too; but not tables that grow from run to run."""
    run_folder = shutil.copytree(seen_two, tmp_path / "two")
    done(TEST, of=cohort, at=run_folder)
    first = {path.name: path.read_bytes() for path in (run_folder / "test").iterdir()}
    (run_folder / "test" / "thesis.txt").write_text("mine")
    for count in (1, 2):
        out = done(f"{TEST} --seed {count}", of=cohort, at=run_folder)
        asides = sorted((run_folder / "test/earlier").iterdir())
        assert len(asides) == count
        assert any(f"The earlier results in {run_folder}/test are now in {aside}." in out for aside in asides)
        assert {path.name for path in (run_folder / "test").iterdir()} == first.keys() | {"earlier"}
        lock_of_a_killed_process = run_folder / ".test.lock"
        lock_of_a_killed_process.write_text("process 1 on a machine")
        assert "Everything is done." in done(f"{TEST} --seed {count}", of=cohort, at=run_folder)
        assert not lock_of_a_killed_process.exists()
    aside = next(aside for aside in asides if (aside / "thesis.txt").exists())
    grow = {"checkpoint_results.csv", "runs.csv"}
    bytes_by_name = {path.name: path.read_bytes() for path in aside.iterdir()}
    assert bytes_by_name == {name: content for name, content in first.items() if name not in grow} | {
        "thesis.txt": b"mine"
    }


def is_refused(out: Path, ckpt: Path, data: Path) -> bool:
    """Whether a training is told to keep folders apart; else that there are no data."""
    command = "run.py --train --model nn --outDir {out} --chkPointDir {ckpt} --dataDir {data}"
    outcome = run(command, out=out, ckpt=ckpt, data=data)
    assert outcome.status == 2
    apart = "keep results, checkpoints and cohorts in folders of their own" in outcome.err
    assert apart or "holds no records" in outcome.err, outcome.err
    return apart


NAMES = st.sampled_from(["a", "b", "nn", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: Path(*names))


@pytest.mark.slow
@settings(max_examples=60)
@given(out=PATHS, ckpt=PATHS, data=PATHS, detour=st.sampled_from(["", "./", "b/../", "link/"]))
def test_accepted_folders_are_never_nested(tmp_path_factory, out, ckpt, data, detour):
    """Whether any of the folders of results, checkpoints and data holds another, told by their parts."""
    home = tmp_path_factory.mktemp("h")
    (home / data).mkdir(parents=True)
    (home / "b").mkdir(exist_ok=True)
    (home / "link").symlink_to(".")
    pairs = permutations((out.parts, (ckpt / "nn").parts, data.parts), 2)
    expected = any(inner[: len(outer)] == outer for inner, outer in pairs)
    assert is_refused(*(Path(f"{home}/{detour}{path}") for path in (out, ckpt, data))) == expected
