"""One row of each fault of `kills.py`, whose other rows are `make torture`; a training that others disturb."""

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

import kills
import lab
import pytest
from commands import ROOT, read_manifest, run, split_command


@pytest.fixture(scope="module")
def torture(tmp_path_factory) -> kills.Torture:
    made = kills.Torture(tmp_path_factory.mktemp("kills"))
    made.make_people()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("fault, name", [("kill", "convert"), ("full_disk", "pack"), ("read_only", "swap")])
def test_a_row_per_fault(fault, name, torture):
    tally = kills.suffer(torture, name, fault, times=1, seed=0)
    assert not tally.lost
    if not tally.times:
        pytest.skip(tally.note)


PLACES = "--model nn --dataDir {cohort} --chkPointDir {to}/ckpt --outDir {to}/out"
TRAINING = f"run.py --train --set members=1 --set batch_size=8 --numIters {{count}} {PLACES}"


@pytest.mark.slow
def test_a_training_is_alone_in_the_folder_and_goes_on_with_the_same_people_only(converted, tmp_path):
    """A table that is edited after it was stopped is told; once that is back the same command goes on."""
    places = {"cohort": shutil.copytree(converted, tmp_path / "cohort"), "to": tmp_path}
    program, *words = split_command(TRAINING, count=1_000_000, **places)
    saved, table = tmp_path / "ckpt" / "nn", places["cohort"] / "phenotype.csv"
    command = [sys.executable, str(ROOT / program), *words]
    effort = json.loads(os.environ["ABIDE_EFFORT"]) | {"save_every": 5}
    how: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"ABIDE_EFFORT": json.dumps(effort)}, **how) as process:
        try:
            while not (saved / "checkpoint").exists() and process.poll() is None:
                time.sleep(0.1)
            second = run(TRAINING, count=5, **places)
            watched = run(f"run.py --test --dryRun {PLACES}", **places)
            process.terminate()
            process.communicate(timeout=120)
        finally:
            process.kill()
    assert (second.status, second.err.count("\n")) == (2, 1)
    assert f"is being written by process {process.pid} on " in second.err
    assert f"{saved} is still being trained, by process {process.pid} on " in watched.out, watched.err
    step = read_manifest(saved)["step"]
    original_bytes = table.read_bytes()
    lab.edit(table, lambda people: people.assign(age="30.0"))
    refused = run(TRAINING, count=step + 2, **places)
    assert refused.status == 2 and "phenotype.csv edited" in refused.err
    table.write_bytes(original_bytes)
    outcome = run(TRAINING, count=step + 2, **places)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"at iteration {step}." in outcome.out
