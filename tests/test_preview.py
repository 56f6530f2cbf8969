"""run.py --dryRun: what it says comes true, and nothing is written."""

import re

import pytest
from commands import done, listing

HOW = "--model nn --folds 2 --dataDir {of} --chkPointDir ckpt"


@pytest.mark.slow
def test_a_dry_run_says_what_then_happens_and_writes_nothing(cohort, tmp_path):
    def dry(command: str) -> str:
        before = listing(tmp_path), listing(cohort)
        told = done(f"{command} --dryRun", of=cohort)
        assert (listing(tmp_path), listing(cohort)) == before
        assert told.endswith("nothing was written\n")
        return told

    train = f"run.py --train --numIters 4 --set members=1 {HOW} --outDir train"
    told = dry(train)
    assert "2 of 2 to train, of 4 batches\n" in told and "2 folds of 19 to 21," in told
    done(train, of=cohort)
    assert "0 of 2 to train, of 4 batches\n" in dry(train)
    told = dry(f"run.py --test --permutations 3 {HOW} --outDir test")
    assert "2 of 2 for --test\n" in told
    assert re.search(r" 3 more at most, each in 2 folds; .* at most about \d+ s, by \d+ s a", told)
