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


def p_by_definition(observed: float, scores: list[float], requested_count: int) -> tuple[float, int] | None:
    """Besag & Clifford: draw until ten are as high, p = 10 / drawn; else (1 + as high) / (1 + all)."""
    for count in range(1, requested_count + 1):
        if count > len(scores):
            return None
        high = len([score for score in scores[:count] if score >= observed])
        if high == 10:
            return 10 / count, count
    return (high + 1) / (requested_count + 1), requested_count


@pytest.mark.parametrize("seed", range(20))
def test_p_follows_the_definition_however_much_is_done(seed):
    random = np.random.default_rng(seed)
    scores, observed, requested_count = random.random(100).round(2).tolist(), round(random.random(), 2), 60
    for count in range(0, 100, 7):
        permutation_result = compute_permutation_result(observed, scores[:count], requested_count, "auc")
        expected = p_by_definition(observed, scores[:count], requested_count)
        assert (permutation_result is None) == (expected is None)
        if permutation_result and expected:
            assert (permutation_result.p, permutation_result.count) == expected
            assert (
                permutation_result.high == sum(score >= observed for score in scores[: permutation_result.count]) <= 10
            )
            assert permutation_result.mean == pytest.approx(np.mean(scores[: permutation_result.count]))
            assert (permutation_result.asked, permutation_result.metric, permutation_result.observed) == (
                requested_count,
                "auc",
                observed,
            )
            assert (
                permutation_result.p <= permutation_result.bound <= 1
                or permutation_result.high == permutation_result.count
            )


@pytest.mark.slow
@pytest.mark.parametrize("requested_count", [19, 99, 199])
def test_without_an_effect_p_is_not_too_small(requested_count):
    """P(p <= a) <= a of 4,000 series of uniform scores, but for what chance allows (0.9999)."""
    random = np.random.default_rng(requested_count)
    p = np.array(
        [
            compute_permutation_result(score_row[0], score_row[1:], requested_count, "auc").p
            for score_row in random.random((4000, requested_count + 1)).tolist()
        ]
    )
    for a in (0.01, 0.05, 0.1, 0.2, 0.5):
        assert (p <= a).sum() <= binom.ppf(0.9999, 4000, a)
    assert abs(np.mean(p <= 0.5) - 0.5) < 0.06


@pytest.mark.slow
def test_the_bound_holds_the_p_after_infinitely_many_permutations():
    """Nineteen of twenty times, at least, whether it ended early or not."""
    random = np.random.default_rng(1)
    for true_p in (0.02, 0.2):
        permutation_results = (
            compute_permutation_result(1 - true_p, simulation, 100, "auc")
            for simulation in random.random((2000, 100)).tolist()
        )
        assert (
            np.mean([simulation.bound >= true_p for simulation in permutation_results])
            >= 0.95 - 3 * (0.95 * 0.05 / 2000) ** 0.5
        )


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
def permuted_run(cohort, make_once) -> Path:
    """The folder of a nn trained and tested on two folds, with four permutations."""

    def make(folder: Path) -> None:
        done(f"{TRAIN} --numIters 2 --set members=1 --set batch_size=8", of=cohort, to=folder)
        done(FOUR, of=cohort, to=folder)

    return make_once("permuted", make)


@pytest.fixture
def copy(permuted_run, tmp_path) -> Path:
    return shutil.copytree(permuted_run, tmp_path / "copy")


def read_permutation_result(folder: Path) -> dict:
    """What the test says of permutations; those say the same."""
    test_result, stored_result = (
        read_manifest(folder / place)["permutations"] for place in ("test", "test/permutations")
    )
    assert test_result == stored_result
    return test_result


@pytest.mark.slow
def test_p_follows_the_table_and_appears_everywhere_also_in_a_remade_page(permuted_run, copy):
    scores = pd.read_csv(permuted_run / TABLE, index_col="permutation")["score"]
    assert scores.index.tolist() == [1, 2, 3, 4] and scores.nunique() > 1
    score = average_group_auc(pd.read_csv(permuted_run / "test/predictions.csv"), "site", "fold")  # the sites are small
    p, count = p_by_definition(score, scores.tolist(), 4)
    permutation_result = read_permutation_result(permuted_run)
    assert (
        permutation_result["p"],
        permutation_result["count"],
        permutation_result["asked"],
        permutation_result["metric"],
    ) == (p, count, 4, "auc_sites")
    assert permutation_result["observed"] == pytest.approx(score) and permutation_result["mean"] == pytest.approx(
        scores.mean()
    )
    assert f"{p:.2g}" in (page := (permuted_run / "test/report.html").read_text())
    done("abide-report {of}/test", of=copy)
    assert (copy / "test/report.html").read_text() == page
    assert pd.read_csv(permuted_run / "test/runs.csv")["value"].iloc[-1] == pytest.approx(p)


@pytest.mark.slow
def test_it_is_done_once_and_more_continue_fewer(permuted_run, copy, cohort):
    places, before = {"of": cohort, "to": copy}, listing(copy / "test")
    _, done_text, repeated_text = done(FOUR, **places).partition("Everything is done.\n")
    assert done_text and f"p = {read_permutation_result(copy)['p']:.2g} " in repeated_text
    assert "more than covariates" in repeated_text and repeated_text.count("\n") < 10
    assert listing(copy / "test") == before
    done(FOUR.replace("4", "5"), **places)
    rows, before = (pd.read_csv(folder / TABLE) for folder in (copy, permuted_run))
    assert rows[:4].equals(before) and len(rows) == 5 and read_permutation_result(copy)["asked"] == 5
    done(FOUR, **places)
    assert read_permutation_result(copy) == read_permutation_result(permuted_run)
    done(TEST, **places)  # the test without them is the same test
    assert read_permutation_result(copy) == read_permutation_result(permuted_run)


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize("words", ["", "--jobs 2"])
def test_killed_it_goes_on_with_missing_rows_whatever_the_number_running(words, permuted_run, copy, cohort):
    """The first and the third row are there."""
    lab.edit(copy / TABLE, lambda table: table[::2])
    lab.edit_manifest(copy / "test/run.json", permutations=None)
    lab.edit(copy / "test/permutations/run.json", {"finished": False, "permutations": None})
    done(f"{FOUR} {words}", of=cohort, to=copy)
    assert (copy / TABLE).read_bytes() == (permuted_run / TABLE).read_bytes() and read_permutation_result(
        copy
    ) == read_permutation_result(permuted_run)


@pytest.mark.slow
def test_another_checkpoint_has_separate_permutations(permuted_run, copy, cohort):
    places = {"of": cohort, "to": copy}
    done(f"{TRAIN} --numIters 3", **places)
    done(TEST, **places)
    assert read_manifest(copy / "test")["permutations"] is None
    done(f"{TEST} --permutations 1", **places)
    (earlier,) = copy.glob("test/permutations/earlier/*/permutations.csv")
    assert earlier.read_bytes() == (permuted_run / TABLE).read_bytes()
    new_scores, old_scores = (pd.read_csv(folder / TABLE)["score"] for folder in (copy, permuted_run))
    assert len(new_scores) == 1 and new_scores[0] != old_scores[0] and read_permutation_result(copy)["p"] in (0.5, 1.0)
