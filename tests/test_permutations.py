"""--permutations: the p-value by definition, and by the user's commands, whatever interrupts them."""

import shutil
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, listing, read_manifest
from oracles import average_group_auc
from scipy.stats import binom

from utils.permutations import compute_permutation_result

pytestmark = pytest.mark.usefixtures("undrawn", "no_baselines")


# The definition


def p_by_definition(observed: float, scores: list[float], asked: int) -> tuple[float, int] | None:
    """Besag & Clifford: draw until ten are as high, p = 10 / drawn; else (1 + as high) / (1 + all)."""
    for count in range(1, asked + 1):
        if count > len(scores):
            return None
        high = len([score for score in scores[:count] if score >= observed])
        if high == 10:
            return 10 / count, count
    return (high + 1) / (asked + 1), asked


@pytest.mark.parametrize("seed", range(20))
def test_p_is_that_of_the_definition_however_much_is_done(seed):
    random = np.random.default_rng(seed)
    scores, observed, asked = random.random(100).round(2).tolist(), round(random.random(), 2), 60
    for count in range(0, 100, 7):
        found = compute_permutation_result(observed, scores[:count], asked, "auc")
        wanted = p_by_definition(observed, scores[:count], asked)
        assert (found is None) == (wanted is None)
        if found and wanted:
            assert (found.p, found.count) == wanted
            assert found.high == sum(score >= observed for score in scores[: found.count]) <= 10
            assert found.mean == pytest.approx(np.mean(scores[: found.count]))
            assert (found.asked, found.metric, found.observed) == (asked, "auc", observed)
            assert found.p <= found.bound <= 1 or found.high == found.count


@pytest.mark.slow
@pytest.mark.parametrize("asked", [19, 99, 199])
def test_where_nothing_is_there_p_is_not_too_small(asked):
    """P(p <= a) <= a of 4,000 series of uniform scores, but for what chance allows (0.9999)."""
    random = np.random.default_rng(asked)
    p = np.array(
        [compute_permutation_result(of[0], of[1:], asked, "auc").p for of in random.random((4000, asked + 1)).tolist()]
    )
    for a in (0.01, 0.05, 0.1, 0.2, 0.5):
        assert (p <= a).sum() <= binom.ppf(0.9999, 4000, a)
    assert abs(np.mean(p <= 0.5) - 0.5) < 0.06


@pytest.mark.slow
def test_the_bound_holds_the_p_of_infinitely_many_permutations():
    """Nineteen of twenty times, at least, whether it ended early or not."""
    random = np.random.default_rng(1)
    for true in (0.02, 0.2):
        each = (compute_permutation_result(1 - true, of, 100, "auc") for of in random.random((2000, 100)).tolist())
        assert np.mean([of.bound >= true for of in each]) >= 0.95 - 3 * (0.95 * 0.05 / 2000) ** 0.5


def test_the_smallest_and_the_largest_p():
    assert (
        compute_permutation_result(1, [0.5] * 19, 19, "auc").p,
        compute_permutation_result(1, [0.5] * 19, 19, "auc").high,
    ) == (1 / 20, 0)
    assert (
        compute_permutation_result(0, [0.5] * 10, 99, "auc").p == 1
        and compute_permutation_result(0, [0.5] * 9, 99, "auc") is None
    )
    assert (
        compute_permutation_result(0, [0.5] * 3, 3, "auc").p
        == compute_permutation_result(0, [0.5] * 3, 3, "auc").bound
        == 1
    )


# By commands


NN = "--model nn --folds 2 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}"
TRAIN, TEST = (f"run.py --{job} {NN}/{job}" for job in ("train", "test"))
FOUR = f"{TEST} --permutations 4"
TABLE = "test/permutations/permutations.csv"


@pytest.fixture(scope="module")
def tested(cohort, make_once) -> Path:
    """The folder of a nn trained and tested on two folds, with four permutations."""

    def make(folder: Path) -> None:
        done(f"{TRAIN} --numIters 2 --set members=1 --set batch_size=8", of=cohort, to=folder)
        done(FOUR, of=cohort, to=folder)

    return make_once("permuted", make)


@pytest.fixture
def copy(tested, tmp_path) -> Path:
    return shutil.copytree(tested, tmp_path / "copy")


def p_in(folder: Path) -> dict:
    """What the test says of permutations; those say the same."""
    test, own = (read_manifest(folder / place)["permutations"] for place in ("test", "test/permutations"))
    assert test == own
    return test


@pytest.mark.slow
def test_p_is_that_of_the_table_and_stands_everywhere_also_in_a_page_that_is_made_again(tested, copy):
    scores = pd.read_csv(tested / TABLE, index_col="permutation")["score"]
    assert scores.index.tolist() == [1, 2, 3, 4] and scores.nunique() > 1
    score = average_group_auc(pd.read_csv(tested / "test/predictions.csv"), "site", "fold")  # the sites are small
    p, count = p_by_definition(score, scores.tolist(), 4)
    said = p_in(tested)
    assert (said["p"], said["count"], said["asked"], said["metric"]) == (p, count, 4, "auc_sites")
    assert said["observed"] == pytest.approx(score) and said["mean"] == pytest.approx(scores.mean())
    assert f"{p:.2g}" in (page := (tested / "test/report.html").read_text())
    done("abide-report {of}/test", of=copy)
    assert (copy / "test/report.html").read_text() == page
    assert pd.read_csv(tested / "test/runs.csv")["value"].iloc[-1] == pytest.approx(p)


@pytest.mark.slow
def test_it_is_done_once_and_more_continue_fewer(tested, copy, cohort):
    places, before = {"of": cohort, "to": copy}, listing(copy / "test")
    done(FOUR, **places)
    assert listing(copy / "test") == before
    done(FOUR.replace("4", "5"), **places)
    rows, before = (pd.read_csv(of / TABLE) for of in (copy, tested))
    assert rows[:4].equals(before) and len(rows) == 5 and p_in(copy)["asked"] == 5
    done(FOUR, **places)
    assert p_in(copy) == p_in(tested)
    done(TEST, **places)  # the test without them is the same test
    assert p_in(copy) == p_in(tested)


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize("words", ["", "--jobs 2"])
def test_killed_it_goes_on_with_what_is_missing_whatever_the_number_of_processes(words, tested, copy, cohort):
    """The first and the third row are there."""
    lab.edit(copy / TABLE, lambda of: of[::2])
    lab.edit_manifest(copy / "test/run.json", permutations=None)
    lab.edit(copy / "test/permutations/run.json", {"finished": False, "told": {}})
    done(f"{FOUR} {words}", of=cohort, to=copy)
    assert (copy / TABLE).read_bytes() == (tested / TABLE).read_bytes() and p_in(copy) == p_in(tested)


@pytest.mark.slow
def test_another_checkpoint_has_permutations_of_its_own(tested, copy, cohort):
    places = {"of": cohort, "to": copy}
    done(f"{TRAIN} --numIters 3", **places)
    done(TEST, **places)
    assert "permutations" not in read_manifest(copy / "test")
    done(f"{TEST} --permutations 1", **places)
    (earlier,) = copy.glob("test/permutations/earlier/*/permutations.csv")
    assert earlier.read_bytes() == (tested / TABLE).read_bytes()
    own, before = (pd.read_csv(of / TABLE)["score"] for of in (copy, tested))
    assert len(own) == 1 and own[0] != before[0] and p_in(copy)["p"] in (0.5, 1.0)
