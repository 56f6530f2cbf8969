"""run.py --dryRun: what it says comes true, and nothing is written."""

import re

import pytest
from commands import done, listing

RUN_OPTIONS = "--model nn --folds 2 --dataDir {of} --chkPointDir ckpt"


@pytest.mark.slow
def test_a_dry_run_predicts_the_run_and_writes_nothing(cohort, tmp_path):
    def dry(command: str) -> str:
        before = listing(tmp_path), listing(cohort)
        printed_text = done(f"{command} --dryRun", of=cohort)
        assert (listing(tmp_path), listing(cohort)) == before
        assert printed_text.endswith("nothing was written\n")
        return printed_text

    train = f"run.py --train --numIters 4 --set members=1 {RUN_OPTIONS} --outDir train"
    printed_text = dry(train)
    assert "2 of 2 to train, of 4 batches\n" in printed_text and "2 folds of 19 to 21," in printed_text
    done(train, of=cohort)
    assert "0 of 2 to train, of 4 batches\n" in dry(train)
    printed_text = dry(f"run.py --test --permutations 3 {RUN_OPTIONS} --outDir test")
    assert "2 of 2 for --test\n" in printed_text
    assert re.search(r" 3 more at most, each in 2 folds; .* at most about \d+ s, by \d+ s a", printed_text)


@pytest.mark.slow
def test_candidates_with_other_settings_need_no_connectomes(cohort, tmp_path):
    """The default network reads connectomes where there are any."""
    (tmp_path / "lines").write_text("--set learning_rate=0.01\n--set learning_rate=0.001\n")
    command = "run.py --train --folds 2 --choose {to}/lines --dryRun --dataDir {of} --chkPointDir ckpt"
    assert "nothing was written" in done(command, of=cohort, to=tmp_path)
