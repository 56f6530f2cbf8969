"""run.py --dryRun: what it says comes true, and nothing is written."""

import json
import re
from types import SimpleNamespace

import pytest
from helpers import TINY_NN, listing, write_rows

from utils import preview


@pytest.mark.slow
def test_a_dry_run_says_what_then_happens_and_writes_nothing(cli, cohort, tmp_path):
    checkpoints, results = tmp_path / "ckpt", tmp_path / "out"

    def run(job, *options):
        done = cli(job, "--model", "nn", "--folds", 2, *TINY_NN, "--dataDir", cohort, "--chkPointDir", checkpoints,
                   "--outDir", results / job.strip("-"), *options)  # fmt: skip
        assert not done.status, done.err
        return done.out

    def dry(job, *options):
        before = listing(tmp_path), listing(cohort)
        out = run(job, *options, "--dryRun")
        assert (listing(tmp_path), listing(cohort)) == before
        assert out.endswith("Dry run: nothing was written.\n")
        return out

    train = ("--train", "--numIters", 4)
    told = dry(*train)
    assert "Networks to train: 2 of 2, of 4 batches.\nTime: not known yet; the first fold tells.\n" in told
    assert re.search("^Forecast for 40 people: --folds 2 compares .*[.]\nAdvice: ", told, re.MULTILINE)
    assert re.search("^nn reads: phenotype .*[.]$", told, re.MULTILINE) and "2 folds of 19 to 21 subjects" in told
    run(*train)
    assert "Networks to train: 0 of 2, of 4 batches.\nDry run" in dry(*train)
    told = dry(*train, "--seed", 1, "--chkPointDir", tmp_path / "others")
    assert re.search(r"Time: about \d+ s, since 2 others took \d+ s each[.]", told)
    told = dry("--test", "--permutations", 3)
    assert "Networks for --test: 2 of 2." in told and "Time: not known yet; the first fold tells." in told
    assert re.search(
        r"Permutations: 3 more at most, of 2 trainings each; .* Time: at most about \d+ s, by \d+ s a", told
    )


@pytest.mark.parametrize("job", [("--train",), ("--test", "--bundle", "model.zip")])
def test_a_dry_run_makes_no_demo_cohort(job, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "name it with --dataDir" in cli(*job, "--dryRun").err
    assert not list(tmp_path.iterdir())


def test_time_is_that_of_finished_trainings_alike_whose_time_is_known(tmp_path, monkeypatch):
    """Each as `runs.csv` lists it: one that took 8 s, one without a time, one that was stopped, one of other settings,
    and one whose folder is gone."""
    alike = {"job": "train", "model": "nn", "config": {"units": [2]}, "num_iters": 4, "finished": True}
    monkeypatch.setattr(preview, "alike_in", lambda _: alike)
    told = ({"wall_time_s": 8.0}, {}, {"wall_time_s": 9.0, "finished": False}, {"wall_time_s": 7.0, "num_iters": 5})
    for number, of in enumerate(told):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_text(json.dumps(alike | of))
    write_rows(tmp_path / "runs.csv", [{"folder": str(tmp_path / str(number))} for number in range(5)])
    run = SimpleNamespace(out_dir=tmp_path / "out", job=SimpleNamespace(needs_checkpoint=False))
    assert preview.earlier(run) == [8.0]
