"""--permutations: the p-value by definition, and by the user's commands, whatever interrupts them."""

import json
import shutil
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done
from oracles import within
from scipy.stats import binom

from utils.permutations import permuted

pytestmark = pytest.mark.usefixtures("undrawn")
PEERS = ("site", "fold")  # the sites of `cohort` are small


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
        found = permuted(observed, scores[:count], asked, "auc")
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
    p = np.array([permuted(of[0], of[1:], asked, "auc").p for of in random.random((4000, asked + 1)).tolist()])
    for a in (0.01, 0.05, 0.1, 0.2, 0.5):
        assert (p <= a).sum() <= binom.ppf(0.9999, 4000, a)
    assert abs(np.mean(p <= 0.5) - 0.5) < 0.06


@pytest.mark.slow
def test_the_bound_holds_the_p_of_infinitely_many_permutations():
    """Nineteen of twenty times, at least, whether it ended early or not."""
    random = np.random.default_rng(1)
    for true in (0.02, 0.2):
        each = (permuted(1 - true, of, 100, "auc") for of in random.random((2000, 100)).tolist())
        assert np.mean([of.bound >= true for of in each]) >= 0.95 - 3 * (0.95 * 0.05 / 2000) ** 0.5


def test_the_smallest_and_the_largest_p():
    assert (permuted(1, [0.5] * 19, 19, "auc").p, permuted(1, [0.5] * 19, 19, "auc").high) == (1 / 20, 0)
    assert permuted(0, [0.5] * 10, 99, "auc").p == 1 and permuted(0, [0.5] * 9, 99, "auc") is None
    assert permuted(0, [0.5] * 3, 3, "auc").p == permuted(0, [0.5] * 3, 3, "auc").bound == 1


# By commands


@pytest.fixture(scope="module")
def on_folds(cohort):
    """`on_folds(folder, "--test")` is a command of a nn on two folds, all in `folder`; what it printed."""

    def run(folder: Path, words: str) -> str:
        name = words.split()[0].strip("-")
        places = "--dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/" + name
        return done(f"run.py {words} --model nn --folds 2 {places}", of=cohort, to=folder)

    return run


@pytest.fixture(scope="module")
def tested(on_folds, once) -> Path:
    """The folder of a nn trained and tested on two folds, with four permutations."""

    def make(folder: Path) -> None:
        on_folds(folder, "--train --numIters 2 --set members=1 --set batch_size=8")
        (folder / "test.out").write_text(on_folds(folder, "--test --permutations 4"))

    return once("permuted", make)


@pytest.fixture
def copy(tested, tmp_path) -> Path:
    return shutil.copytree(tested, tmp_path / "copy")


def p_in(folder: Path) -> list[dict]:
    """What the test and the permutations say."""
    return [json.loads((folder / f"test/{of}run.json").read_text())["permutations"] for of in ("", "permutations/")]


def tables_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "test/permutations").glob("*.csv"))}


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"fold": str, "subject": str})


@pytest.mark.slow
def test_p_is_that_of_the_tables_and_stands_everywhere(tested):
    observed = table(tested / "test/predictions.csv")
    truth, scores, seen = observed.set_index("subject"), [], set()
    for number in range(1, 5):
        found = table(tested / f"test/permutations/permutation-{number:05d}.csv")
        assert found["subject"].is_unique and set(found["subject"]) == set(truth.index)
        own = truth.loc[found["subject"]]
        assert found["label"].groupby(found["site"]).sum().equals(truth["label"].groupby(truth["site"]).sum())
        assert (found["label"].to_numpy() != own["label"].to_numpy()).sum() > 5
        seen.add(tuple(found.sort_values("subject")["label"]))
        scores.append(within(found, *PEERS))
    assert len(seen) == 4
    score = within(observed, *PEERS)
    p, count = p_by_definition(score, scores, 4)
    there, said = p_in(tested)
    assert there == said
    assert (there["p"], there["count"], there["asked"], there["metric"]) == (p, count, 4, "auc_sites")
    assert there["observed"] == pytest.approx(score)
    rows = pd.read_csv(tested / "test/permutations/permutations.csv")
    assert rows["auc_sites"].tolist() == pytest.approx(scores, rel=1e-6)
    assert rows["as_high"].tolist() == [of >= score for of in scores]
    for text in ((tested / "test/report.html").read_text(), (tested / "test.out").read_text()):
        assert f"The p-value of the whole procedure is {p:.2g}." in " ".join(text.split())
    assert pd.read_csv(tested / "test/runs.csv")["metric"].iloc[-1] == "p of permutations"


@pytest.mark.slow
def test_it_is_done_once_and_more_continue_fewer(tested, copy, on_folds):
    assert "Everything is done." in on_folds(copy, "--test --permutations 4")
    for asked, more in ((6, 2), (4, 0)):
        assert f"\nPermutations: {more} more" in on_folds(copy, f"--test --permutations {asked} --dryRun")
    kept = [*(copy / "test/permutations").glob("permutation-*.csv"), copy / "test/predictions.csv"]
    before = [path.stat().st_mtime_ns for path in kept]
    on_folds(copy, "--test --permutations 5")
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert p_in(copy)[0]["asked"] == 5 and p_in(copy)[0] == p_in(copy)[1]
    on_folds(copy, "--test --permutations 4")
    assert p_in(copy) == p_in(tested)
    assert "Everything is done." in on_folds(copy, "--test")  # the test without them is the same test


@pytest.mark.slow
@pytest.mark.bits
def test_lost_or_damaged_they_come_out_the_same_also_by_jobs(tested, copy, on_folds):
    """One as a kill leaves it after the first fold, one lost, one damaged; then the p-value alone is missing."""
    first, second, third, _ = sorted((copy / "test/permutations").glob("permutation-*.csv"))
    lab.edit(first, lambda of: of[of["fold"] == "0"])
    lab.edit(second, "gone")
    lab.edit(third, third.read_bytes()[:-40] + b"\xff")
    for words in ("--jobs 2", ""):
        lab.edit(copy / "test/permutations/permutations.csv", "gone")
        on_folds(copy, f"--test --permutations 4 {words}")
        assert tables_of(copy) == tables_of(tested) and p_in(copy) == p_in(tested)


@pytest.mark.slow
def test_another_checkpoint_has_permutations_of_its_own(tested, copy, on_folds):
    on_folds(copy, "--train --numIters 3")
    on_folds(copy, "--test")
    assert json.loads((copy / "test/run.json").read_text()).get("permutations") is None
    assert "The p-value of the whole procedure" not in (copy / "test/report.html").read_text()
    on_folds(copy, "--test --permutations 1")
    assert list(copy.glob("test/permutations/earlier/*/permutation-00004.csv"))
    assert list(tables_of(copy)) == ["permutation-00001.csv", "permutations.csv"]
    assert p_in(copy)[0]["p"] in (0.5, 1.0)
    assert tables_of(copy)["permutation-00001.csv"] != tables_of(tested)["permutation-00001.csv"]
