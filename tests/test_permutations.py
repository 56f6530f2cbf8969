"""--permutations: the p-value by definition, and by the user's commands, whatever interrupts or shares them."""

import json
import re
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, SMALL, read_rows, run_main, run_of, run_script
from scipy.stats import binom
from test_choice import within_sites

from data.base import files
from data.base.errors import InputError
from data.base.processes import Outcome
from data.cohorts.folds import open_folds, permuted_folds
from utils import permutations as module
from utils.permutations import EXCEEDANCES, Procedure, permuted, scored

pytestmark = pytest.mark.usefixtures("undrawn", "no_floors")


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
    for done in range(0, 100, 7):
        found, wanted = permuted(observed, scores[:done], asked, "auc"), p_by_definition(observed, scores[:done], asked)
        assert (found is None) == (wanted is None)
        if found and wanted:
            assert (found.p, found.count) == wanted
            assert found.high == sum(score >= observed for score in scores[: found.count]) <= EXCEEDANCES
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


# The roads


SCRIPT = f"""
import os, signal, sys

sys.path[:0] = [{str(ROOT)!r}]
import run
from utils.permutations import PermutationFolder

permute = PermutationFolder.permute
PermutationFolder.permute = lambda *arguments: (list(permute(*arguments)), os.kill(os.getpid(), signal.SIGKILL))
if __name__ == "__main__":
    sys.exit(run.main())
"""  # a process of --jobs that is killed after a permutation


@pytest.fixture(scope="module")
def on_folds(cohort):
    """`on_folds(folder, "--test")` is a command line of a `nn` on two folds, all in `folder`."""

    def run(folder, job, *more, script=None):
        places = ("--chkPointDir", folder / "ckpt", "--dataDir", cohort, "--outDir", folder / job.strip("-"))
        settings = (*("--numIters", 2)[: 0 if "--numIters" in more else 2], *SMALL["nn"]) if job == "--train" else ()
        words = [job, *["--model", "nn", "--folds", "2"], *places, *settings, *more]
        return run_script(script, words) if script else run_main("run", str(ROOT / "run.py"), words)

    return run


@pytest.fixture(scope="module")
def tested(on_folds, undrawn, tmp_path_factory):
    """The folder of a `nn` trained and tested on two folds, with four permutations."""
    folder = tmp_path_factory.mktemp("permutations")
    for job, more in (("--train", ()), ("--test", ("--permutations", 4))):
        outcome = on_folds(folder, job, *more)
        assert outcome.status == 0, outcome.err
    (folder / "test.out").write_text(outcome.out)
    return folder


def p_in(folder) -> list[dict]:
    """What the test and the permutations say."""
    return [json.loads((folder / f"test/{of}run.json").read_text())["permutations"] for of in ("", "permutations/")]


def tables_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "test/permutations").glob("*.csv"))}


@pytest.mark.slow
def test_p_is_that_of_the_tables_and_stands_everywhere(tested, cohort):
    folds = open_folds(cohort, "2", 0, tested / "ckpt/nn/folds-2")
    scores = []
    for number in range(1, 5):
        table = pd.read_csv(
            tested / f"test/permutations/permutation-{number:05d}.csv", dtype={"fold": str, "subject": str}
        )
        scores.append(within_sites(table))
        under = permuted_folds(folds, 0, number)
        label = {row.subject: row.label for row in under.whole.rows}
        assert [label[subject] for subject in table["subject"]] == table["label"].tolist()
        assert [under.fold_of[subject] for subject in table["subject"]] == table["fold"].tolist()
        assert table["subject"].is_unique and len(table) == 40
    observed = within_sites(pd.read_csv(tested / "test/predictions.csv"))
    p, count = p_by_definition(observed, scores, 4)
    there, said = p_in(tested)
    assert there == said
    assert (there["p"], there["count"], there["asked"], there["metric"]) == (p, count, 4, "auc_sites")
    assert there["observed"] == pytest.approx(observed)
    rows = read_rows(tested / "test/permutations/permutations.csv")
    assert [float(row["auc_sites"]) for row in rows] == pytest.approx(scores, rel=1e-6)
    assert [int(row["as_high"]) for row in rows] == [score >= observed for score in scores]
    words = f"The p-value of the whole procedure is {p:.2g}. On labels permuted within sites its AUC within sites was"
    for text in ((tested / "test/report.html").read_text(), (tested / "test.out").read_text()):
        assert words in " ".join(text.split())
    assert [row["metric"] for row in read_rows(tested / "test/runs.csv")][-1] == "p of permutations"


@pytest.mark.slow
def test_it_is_done_once_and_more_continue_fewer(tested, on_folds, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    assert "Everything is done." in on_folds(copy, "--test", "--permutations", 4).out
    for asked, more in ((6, 2), (4, 0)):
        assert f"\nPermutations: {more} more" in on_folds(copy, "--test", "--permutations", asked, "--dryRun").out
    before = {path: path.stat().st_mtime_ns for path in (copy / "test/permutations").glob("permutation-*.csv")}
    predictions = (copy / "test/predictions.csv").stat().st_mtime_ns
    outcome = on_folds(copy, "--test", "--permutations", 5)
    assert outcome.status == 0, outcome.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (copy / "test/predictions.csv").stat().st_mtime_ns == predictions
    assert p_in(copy)[0]["asked"] == 5 and p_in(copy)[0] == p_in(copy)[1]
    assert on_folds(copy, "--test", "--permutations", 4).status == 0
    assert p_in(copy) == p_in(tested)
    assert "Everything is done." in on_folds(copy, "--test").out  # the test without them is the same test


@pytest.mark.slow
@pytest.mark.bits
def test_killed_lost_or_damaged_they_come_out_the_same_also_by_jobs(tested, on_folds, tmp_path):
    """Both of two processes are killed, each after a permutation; another that is still at one is waited for."""
    copy = shutil.copytree(tested, tmp_path / "copy")
    shutil.rmtree(copy / "test/permutations")
    (tmp_path / "script.py").write_text(SCRIPT)
    outcome = on_folds(copy, "--test", "--permutations", 4, "--jobs", 2, script=tmp_path / "script.py")
    assert outcome.status == 2 and "A process of --jobs was killed; repeat the command." in outcome.err
    assert list(tables_of(copy)) == ["permutation-00001.csv", "permutation-00002.csv"]
    first, second, third, fourth = (copy / f"test/permutations/permutation-0000{number}.csv" for number in range(1, 5))
    rows = first.read_text().splitlines()
    first.write_text("\n".join(row for row in rows if ",1,sine," not in row) + "\n")  # killed after the first fold
    assert 2 < len(first.read_text().splitlines()) < len(rows)
    third.write_bytes(second.read_bytes()[:-40] + b"\xff")
    with files.locked(fourth):
        outcome = on_folds(copy, "--test", "--permutations", 4)
    assert outcome.status == 0, outcome.err
    assert "Other processes are still at permutations; the last one of all writes the p-value." in outcome.out
    assert list(tables_of(copy)) == [first.name, second.name, third.name]
    for more in ((), ("--jobs", 2)):  # the second finds that only the p-value is missing
        outcome = on_folds(copy, "--test", "--permutations", 4, *more)
        assert outcome.status == 0, (more, outcome.err)
        assert tables_of(copy) == tables_of(tested) and p_in(copy) == p_in(tested), more
        (copy / "test/permutations/permutations.csv").unlink()


@pytest.mark.slow
def test_who_is_killed_as_the_report_is_written_does_not_test_again(tested, on_folds, tmp_path, monkeypatch):
    copy = shutil.copytree(tested, tmp_path / "copy")
    rows = [row["folder"] for row in read_rows(copy / "runs.csv")]
    predicted = (copy / "test/predictions.csv").stat().st_mtime_ns

    def killed(folder):
        (folder / "report.html").write_text("half")
        raise InputError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("utils.report.build.write", killed)
        assert on_folds(copy, "--test", "--permutations", 3).status == 2
    assert on_folds(copy, "--test", "--permutations", 3).status == 0
    assert (copy / "test/predictions.csv").stat().st_mtime_ns == predicted
    assert [row["folder"] for row in read_rows(copy / "runs.csv")] == rows
    described = json.loads((copy / "test/run.json").read_text())
    assert described["permutations"]["asked"] == 3 and list(described["outputs_sha256"]) == sorted(
        json.loads((tested / "test/run.json").read_text())["outputs_sha256"]
    )
    assert "Everything is done." in on_folds(copy, "--test", "--permutations", 3).out


@pytest.mark.slow
def test_another_checkpoint_has_permutations_of_its_own(tested, on_folds, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    assert on_folds(copy, "--train", "--numIters", 3).status == 0
    assert on_folds(copy, "--test").status == 0
    assert "permutations" not in json.loads((copy / "test/run.json").read_text()) or p_in(copy)[0] is None
    assert "The p-value of the whole procedure" not in (copy / "test/report.html").read_text()
    outcome = on_folds(copy, "--test", "--permutations", 1)
    assert outcome.status == 0, outcome.err
    assert list(copy.glob("test/permutations/earlier/*/permutation-00004.csv"))
    assert list(tables_of(copy)) == ["permutation-00001.csv", "permutations.csv"]
    assert p_in(copy)[0]["p"] in (0.5, 1.0)
    assert tables_of(copy)["permutation-00001.csv"] != tables_of(tested)["permutation-00001.csv"]


@pytest.mark.parametrize(
    "words, message",
    [
        (
            "--test --model nn --permutations 5",
            "--permutations 5 repeats a run on folds; say with --folds how they are",
        ),
        (
            "--test --model nn --folds 2 --permutations 0",
            "'0' is not allowed; expected a whole number from 1 to 100000",
        ),
        (
            "--test --model nn --folds 2 --fold 1 --permutations 5",
            "needs all folds; leave --fold 1 out. An array repeats",
        ),
        (
            "--test --model nn --folds 2 --repeats 2 --permutations 5",
            "repeats one run on folds; leave --repeats 2 out.",
        ),
        ("--test --model ae --folds 2 --permutations 5", "permutes labels, which ae does not predict; leave it out."),
        ("--train --model nn --folds 2 --permutations 5", "--permutations"),
        ("--test --model nn --folds 2 --permutations 5", "holds no checkpoint; make one: run.py --train --model nn"),
    ],
)
def test_mistakes(words, message, cli, cohort, tmp_path):
    outcome = cli(*words.split(), "--chkPointDir", tmp_path / "c", "--dataDir", cohort)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert re.search(message, outcome.err), outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_choice_is_made_anew_under_each_permutation(cohort, tmp_path, monkeypatch):
    """By who knows the permuted labels in every inner fold."""
    folds, trained = open_folds(cohort, "3", 0, tmp_path), []

    def predicted(run):
        rows = [run.cohort.rows[at] for at in run.cohort.indices("test")]
        trained.append((run.choices.preset, len(rows), run.folds))
        return {row.file: row.label if run.choices.preset == "knows" else 0.5 for row in rows}

    monkeypatch.setitem(sys.modules, "utils.training.fit", SimpleNamespace(predicted=predicted))
    parts = {
        name: {
            preset: replace(run_of("nn", folds.cohort(name), tmp_path, preset=preset), folds=folds, fold=name)
            for preset in ("guesses", "knows")
        }
        for name in folds.names
    }
    procedure = Procedure(folds, parts, 0)
    under = permuted_folds(procedure.folds, procedure.seed, 3)
    table = pd.concat([procedure.predict(under, name) for name in folds.names])
    assert all(of is under for _, _, of in trained)
    assert len(trained) == 3 * (2 * 5 + 1)
    assert table["candidate"].value_counts().to_dict() == {"knows": 40}
    label = {row.subject: row.label for row in under.whole.rows}
    assert [label[subject] for subject in table["subject"]] == table["label"].tolist()
    assert label != {row.subject: row.label for row in folds.whole.rows}
    assert scored(table) == ("auc_sites", 1.0)


@pytest.fixture
def beside(monkeypatch):
    """`beside(*rounds)` is the exit status of permutations in two processes, whose outcomes in each round are these;
    each does a permutation of six."""

    def run(*rounds: tuple[Outcome, ...]) -> int:
        left = list(rounds)
        series = SimpleNamespace(done=0, metric="auc", scores=lambda: [0.5] * series.done)
        series.end = lambda: "p" if series.done == 6 else None

        class Fake:
            def stop(self):
                left.clear()

            def outcomes(self, function, arguments, meanwhile):
                for at, outcome in enumerate(left.pop(0)):
                    series.done += outcome == Outcome()
                    meanwhile()
                    yield at, outcome

        monkeypatch.setattr(module, "processes", lambda environments: nullcontext(Fake()))
        monkeypatch.setattr(module.Permutations, "series", lambda self, workers: series)
        tested = SimpleNamespace(again=len)
        found = module.Permutations(tested, run_of(), 6).permute_beside("cpu", [{}, {}])
        assert not left
        return found

    return run


def test_processes_are_renewed_until_nothing_is_left_to_do(beside, capsys):
    assert beside(*[(Outcome(), Outcome())] * 3) == 0
    assert "Permutations 6/6" in capsys.readouterr().out


def test_nothing_is_begun_anew_if_other_commands_do_the_rest(beside):
    assert beside(()) == 0


def test_the_end_of_processes_is_told(beside):
    with pytest.raises(InputError, match="it went wrong"):
        beside((Outcome(error=InputError("it went wrong")),))
    with pytest.raises(InputError, match=r"A process of --jobs was killed; repeat the command\."):
        beside((Outcome(exit_code=-9),))
