"""run.py --dryRun: what it says comes true, and nothing is written."""

import re

import pytest
from helpers import TINY_NN, listing


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
    assert "Networks to train: 2 of 2, of 4 batches.\n" in told
    assert re.search("^Forecast for 40 people: --folds 2 compares .*[.]\nAdvice: ", told, re.MULTILINE)
    assert re.search("^nn reads: phenotype .*[.]$", told, re.MULTILINE) and "2 folds of 19 to 21 subjects" in told
    run(*train)
    assert "Networks to train: 0 of 2, of 4 batches.\nDry run" in dry(*train)
    told = dry("--test", "--permutations", 3)
    assert "Networks for --test: 2 of 2." in told
    assert re.search(
        r"Permutations: 3 more at most, of 2 trainings each; .* Time: at most about \d+ s, by \d+ s a", told
    )


@pytest.mark.parametrize("job", [("--train",), ("--test", "--bundle", "model.zip")])
def test_a_dry_run_makes_no_demo_cohort(job, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "name it with --dataDir" in cli(*job, "--dryRun").err
    assert not list(tmp_path.iterdir())
