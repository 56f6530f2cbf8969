"""--choose by the user's commands: who is chosen in each fold, what that does to the score, and what interrupts it."""

import json
import math
import re
import shutil
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import ROOT, SMALL, Page, assert_bit_equal, read_rows, run_main, run_of, run_script
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from data.base.effort import EFFORT
from data.cohorts import records
from data.cohorts.folds import inner_folds, open_folds
from utils.choice.job import Store, choice, halve, trainings
from utils.evaluation.comparisons import agreement, best_of, choice_summary
from utils.scores.metrics import Predictions, headline_of

pytestmark = pytest.mark.usefixtures("undrawn")
LINES = "--preset sine --set members=1 --set batch_size=8\n--preset sine --set members=1 --set learning_rate=0.0001\n"
SCRIPT = f"""
import os, signal, sys

sys.path[:0] = [{str(ROOT)!r}]
from data.base.effort import EFFORT
from utils.choice import job

EFFORT.inner_folds = 2
add = job.Store.add

def killed(store, *values):
    add(store, *values)
    if "fold-0" in str(store.path):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ != "__main__":
    job.Store.add = killed
import run

if __name__ == "__main__":
    sys.exit(run.main())
"""  # with --jobs the process of fold 0 is killed as soon as it has kept what the first training predicts
NAMES = ["sine members=1 batch_size=8", "sine members=1 learning_rate=0.0001"]


@pytest.fixture(scope="module")
def chosen(cohort, tmp_path_factory):
    """`chosen(folder, "--test")` is a command line that chooses between two `nn` in two inner folds of both folds,
    all in `folder`; with `killed`, by SCRIPT."""
    folder = tmp_path_factory.mktemp("lines")
    lines, script = folder / "lines.txt", folder / "script.py"
    lines.write_text(LINES)
    script.write_text(SCRIPT)

    def run(folder, job, *more, killed=False):
        places = ("--chkPointDir", folder / "ckpt", "--dataDir", cohort, "--outDir", folder / job.strip("-"))
        iterations = ("--numIters", 3) if job == "--train" and "--numIters" not in more else ()
        words = [job, "--model", "nn", "--folds", 2, "--choose", lines, *places, *iterations, *more]
        return run_script(script, words) if killed else run_main("run", str(ROOT / "run.py"), words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EFFORT, "inner_folds", 2)
        yield run


@pytest.fixture(scope="module")
def tested(chosen, tmp_path_factory, no_floors):
    """The folder of a `nn` chosen, trained and tested on two folds."""
    folder = tmp_path_factory.mktemp("chosen")
    for job in ("--train", "--test"):
        outcome = chosen(folder, job)
        assert outcome.status == 0, outcome.err
        (folder / f"{job.strip('-')}.out").write_text(outcome.out)
    return folder


def checkpoints_of(folder):
    (found,) = folder.glob("ckpt/nn/folds-2-choose-*")
    return found


def choice_in(folder, fold) -> dict:
    return json.loads((checkpoints_of(folder) / f"choice/fold-{fold}/run.json").read_text())["chosen"]


def within_folds(table: pd.DataFrame) -> float:
    """The AUC within folds by scikit-learn."""
    each = {fold: roc_auc_score(of["label"], of["probability"]) for fold, of in table.groupby("fold")}
    return float(np.average([*each.values()], weights=[*table["fold"].value_counts().sort_index()]))


def within_sites(table: pd.DataFrame) -> float:
    """The AUC within sites, or their folds if sites are small, that have both classes, by scikit-learn."""
    peers = Predictions.of(table.assign(subject=range(len(table)))).peers
    both = [of for _, of in table.groupby(peers) if of["label"].nunique() == 2]
    return float(np.average([roc_auc_score(of["label"], of["probability"]) for of in both], weights=[*map(len, both)]))


@pytest.mark.slow
def test_who_is_chosen_did_best_in_inner_folds(tested, cohort):
    """Scores recomputed from what inner.json holds, whose people are those of inner folds and no tested ones."""
    folds = open_folds(cohort, "2", 0, checkpoints_of(tested) / "candidate-1")
    rows = read_rows(tested / "test/choices.csv")
    assert list(rows[0]) == ["fold", "candidate", "inner_folds", "score", "chosen"]
    for fold in "01":
        store = json.loads((checkpoints_of(tested) / f"choice/fold-{fold}/inner.json").read_text())
        assert list(store) == NAMES
        outer = folds.cohort(fold)
        inner = inner_folds(folds, outer, 0)
        row = {of.file: of for of in outer.rows}
        scores = {}
        for name, each in store.items():
            assert sorted(each) == inner.names == ["0", "1"]
            for number, predicted in each.items():
                assert {row[file].subject for file in predicted} == {
                    subject for subject, its in inner.fold_of.items() if its == number
                }
            table = pd.DataFrame(
                [
                    (row[file].site, row[file].label, number, value)
                    for number, predicted in each.items()
                    for file, value in predicted.items()
                ],
                columns=["site", "label", "fold", "probability"],
            )
            assert not {file for predicted in each.values() for file in predicted} & {
                of.file for of in outer.rows if of.split == "test"
            }
            scores[name] = within_sites(table)
        own = {of["candidate"]: of for of in rows if of["fold"] == fold}
        assert {name: float(of["score"]) for name, of in own.items()} == pytest.approx(scores)
        assert {of["inner_folds"] for of in own.values()} == {"2"}
        best = max(scores, key=lambda name: scores[name])
        assert choice_in(tested, fold)["name"] == best
        assert [name for name, of in own.items() if of["chosen"] == "1"] == [best]


@pytest.mark.slow
def test_predictions_are_those_of_the_chosen_candidate(tested):
    table = pd.read_csv(tested / "test/predictions.csv", dtype=str)
    for fold, of in table.groupby("fold"):
        name = choice_in(tested, fold)["name"]
        assert set(of["candidate"]) == {name}
        own = pd.read_csv(tested / f"test/candidate-{NAMES.index(name) + 1}/predictions.csv", dtype=str)
        pd.testing.assert_frame_equal(
            of.drop(columns="candidate").reset_index(drop=True), own[own["fold"] == fold].reset_index(drop=True)
        )
    assert len(table) == 40 and table["subject"].is_unique


@pytest.mark.slow
def test_the_scores_are_those_of_the_procedure_and_of_each_candidate(tested):
    metrics = json.loads((tested / "test/metrics.json").read_text())
    table = pd.read_csv(tested / "test/predictions.csv")
    assert metrics["auc_sites"]["value"] == pytest.approx(within_sites(table))
    assert metrics["auc_folds"]["value"] == pytest.approx(within_folds(table))
    counts = table.groupby("candidate")["fold"].nunique()
    rows = read_rows(tested / "test/candidates.csv")
    assert [row["candidate"] for row in rows] == NAMES
    for at, row in enumerate(rows, 1):
        own = pd.read_csv(tested / f"test/candidate-{at}/predictions.csv")
        assert int(row["chosen"]) == counts.get(row["candidate"], 0)
        assert float(row["auc"]) == pytest.approx(roc_auc_score(own["label"], own["probability"]), rel=1e-6)
        assert float(row["auc_sites"]) == pytest.approx(within_sites(own), rel=1e-6)
        assert float(row["auc_folds"]) == pytest.approx(within_folds(own), rel=1e-6)
        assert float(row["auc_low"]) <= float(row["auc"]) <= float(row["auc_high"])
    found = json.loads((tested / "test/run.json").read_text())["choice"]
    best = max(rows, key=lambda row: float(row["auc_sites"]))
    assert (found["best"], found["metric"]) == (best["candidate"], "auc_sites")
    assert found["best_score"]["value"] == pytest.approx(float(best["auc_sites"]), rel=1e-6)
    optimism = float(best["auc_sites"]) - within_sites(table)
    assert found["optimism"]["value"] == pytest.approx(optimism, abs=1e-6)
    assert found["chosen"] == counts.to_dict()
    page = Page((tested / "test/report.html").read_text())
    assert len(page.rows["The choice among candidates"]) == len(page.rows["Who was chosen where"]) == 3
    said = " ".join(page.paragraphs["The choice among candidates"])
    assert "This is the score of a procedure that chooses among 2 candidates in each fold anew" in said
    assert f"has {found['best_score']['value']:.3f}" in said
    assert "in each fold anew, by the AUC within sites in inner folds of its training subjects" in page.text


@pytest.mark.slow
def test_the_commands_say_what_they_do(tested):
    trained, told = ((tested / f"{job}.out").read_text() for job in ("train", "test"))
    assert "in each of 2 folds one of each of 2 candidates, and at most " in trained
    assert re.search(
        r"Fold 1 \(2 of 2\), choice: 20 subjects trained on, AUC within sites of inner folds|, choice", trained
    )
    assert "This is the score of a procedure" in told
    assert [row["folds"] for row in read_rows(tested / "runs.csv")] == ["2, chosen among 2 candidates"] * 2


@pytest.mark.slow
def test_a_test_needs_a_choice(tested, chosen, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    shutil.rmtree(checkpoints_of(copy) / "choice")
    outcome = chosen(copy, "--test")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert re.search(
        r"No candidate is chosen yet in 2 of 2 folds \(0, 1\), .* choose: run.py --train --model nn --choose",
        outcome.err,
    )


@pytest.mark.slow
@pytest.mark.bits
def test_killed_in_pieces_and_side_by_side_the_results_are_the_same(tested, chosen, tmp_path, monkeypatch):
    """Also if what is kept of the choice of a fold is damaged. Fold 1 is done by a process beside the one that is
    killed; what was kept of fold 0 is not trained again."""
    outcome = chosen(tmp_path, "--train", "--jobs", 2, killed=True)
    assert outcome.status == 128 + signal.SIGKILL
    assert "run.py: error: Fold 0 was killed by SIGKILL" in outcome.err
    (kept,) = tmp_path.glob("ckpt/nn/*/choice/fold-0/inner.json")
    assert sum(map(len, json.loads(kept.read_text()).values())) == 1
    assert choice_in(tmp_path, 1) == choice_in(tested, 1)
    trained = counted(monkeypatch)
    outcome = chosen(tmp_path, "--train")
    assert outcome.status == 0, outcome.err
    assert len(trained) == 3
    same_choices(tmp_path, tested)
    replayed = counted(monkeypatch, json.loads(kept.read_text()))
    kept.write_text(kept.read_text()[:-30])
    assert chosen(tmp_path, "--train").status == 0
    assert len(replayed) == 4
    same_choices(tmp_path, tested)


def counted(monkeypatch, known: dict | None = None) -> list:
    """The trainings in inner folds from now on, as runs; if their predictions are `known`, nothing is trained."""
    from utils.training import fit

    seen, train = [], fit.predicted

    def predicted(run) -> dict[str, float]:
        seen.append(run)
        if known is None:
            return train(run)
        files = {run.cohort.rows[at].file for at in run.cohort.indices("test")}
        own = known[NAMES[run.config.batch_size != 8]].values()
        return next(of for of in own if of.keys() == files)

    monkeypatch.setattr(fit, "predicted", predicted)
    return seen


def same_choices(one, other) -> None:
    for fold in "01":
        first, second = (checkpoints_of(of) / f"choice/fold-{fold}/inner.json" for of in (one, other))
        assert first.read_bytes() == second.read_bytes()
        assert choice_in(one, fold) == choice_in(other, fold)
        for name in ("candidate-1", "candidate-2"):
            assert_bit_equal(checkpoints_of(one) / name / fold, checkpoints_of(other) / name / fold)


@pytest.mark.slow
def test_other_iterations_choose_anew(tested, chosen, no_floors, tmp_path, monkeypatch):
    copy = shutil.copytree(tested, tmp_path / "copy")
    folder = checkpoints_of(copy) / "choice/fold-0"
    trained = counted(monkeypatch, json.loads((folder / "inner.json").read_text()))
    outcome = chosen(copy, "--train", "--numIters", 4, "--fold", 0)
    assert outcome.status == 0, outcome.err
    assert [run.num_iters for run in trained] == [4] * 4
    assert list(folder.glob("earlier/*/inner.json"))
    assert json.loads((folder / "run.json").read_text())["iterations"] == 4


@pytest.mark.slow
def test_a_choice_is_tested(chosen, tmp_path):
    outcome = chosen(tmp_path, "--train", "--fold", 0)
    assert outcome.status == 0, outcome.err
    left = "Still to be done before the results are pooled: fold 1 of candidate sine members=1 batch_size=8;"
    assert left in outcome.out
    outcome = chosen(tmp_path, "--test", "--fold", 0)
    assert outcome.status == 0, outcome.err


@pytest.mark.slow
def test_a_blackout_is_of_who_was_chosen_in_each_fold(cohort, no_floors, tmp_path, monkeypatch):
    """Also of some folds or subjects. In inner folds the second candidate does best."""
    monkeypatch.setattr(EFFORT, "inner_folds", 2)
    monkeypatch.setattr("utils.training.fit.predicted", knows_if_second)
    labels = np.zeros(records.REDUCED.shape, np.int16)
    labels[5:12, 10:25, 8:20], labels[18:25, 10:25, 8:20] = 1, 2
    nibabel.save(nibabel.Nifti1Image(labels, np.array(records.REDUCED.affine)), tmp_path / "atlas.nii")
    tiny = " ".join(SMALL["cnn"])
    (tmp_path / "lines").write_text(f"{tiny}\n{tiny} --set l2=0.3\n")
    places = ("--model", "cnn", "--folds", 2, "--dataDir", cohort, "--chkPointDir", tmp_path / "ckpt", "--outDir")

    def run(job, out, *more):
        more += ("--atlas", tmp_path / "atlas.nii", "--donors", 1) if job == "--blackout" else ()
        return run_main(
            "run", str(ROOT / "run.py"), [job, *places, tmp_path / out, "--choose", tmp_path / "lines", *more]
        )

    assert run("--train", "train", "--numIters", 2, "--fold", 0).status == 0
    outcome = run("--blackout", "one", "--fold", 0)
    assert outcome.status == 0, outcome.err
    assert "Still to be done before the results are pooled: fold 1." in outcome.out
    assert (tmp_path / "one/fold-0/regions.csv").exists() and not (tmp_path / "one/regions.csv").exists()
    of_run = json.loads((tmp_path / "one/fold-0/run.json").read_text())
    assert (of_run["preset"], of_run["config"]["l2"]) == ("residual", 0.3)
    assert run("--train", "train", "--numIters", 2).status == 0
    assert run("--test", "test").status == 0
    of_test = pd.read_csv(tmp_path / "test/predictions.csv", dtype={"subject": str}).set_index("subject")
    outcome = run("--blackout", "blackout")
    assert outcome.status == 0, outcome.err
    with h5py.File(tmp_path / "blackout/blackout.h5") as file:
        subjects = [name.decode() for name in file["subject"]]
        assert sorted(subjects) == sorted(of_test.index)
        assert file["probability"][:] == pytest.approx(of_test.loc[subjects, "probability"], rel=1e-5)


def knows_if_second(run) -> dict[str, float]:
    """Predictions by the labels of a candidate that sets `l2=0.3`; others know nothing."""
    rows = [run.cohort.rows[at] for at in run.cohort.indices("test")]
    return {row.file: row.label if run.config.l2 == 0.3 else 0.5 for row in rows}


# Without TensorFlow


def test_candidates_read_volumes_as_each_standardises_them(cohort, tmp_path, monkeypatch):
    seen = {}

    def predicted(run):
        rows = [run.cohort.rows[at] for at in run.cohort.indices("test")]
        seen.setdefault(run.choices.preset, set()).add(run.cohort.standard)
        return {row.file: 0.5 for row in rows}

    monkeypatch.setitem(sys.modules, "utils.training.fit", SimpleNamespace(predicted=predicted))
    folds = open_folds(cohort, "2", 0, tmp_path)
    contenders = {
        name: replace(
            run_of("cnn", replace(folds.cohort("0"), standard=name), tmp_path, preset=name), folds=folds, fold="0"
        )
        for name in ("brain", "stored")
    }
    found = choice(contenders, Store())
    assert seen == {name: {name} for name in contenders}
    assert (found.name, found.metric, set(found.scores.values())) == ("brain", "auc_sites", {0.5})


def made_up(count: int, people: int, seed: int, signal_in_first: float = 0.0) -> dict[str, Predictions]:
    """Predictions of so many candidates of the same people in three folds; all are noise, but for the first."""
    random = np.random.default_rng(seed)
    label, fold = np.arange(people) % 2, np.arange(people) // 2 % 3
    found = {}
    for at in range(count):
        probability = random.random(people) + (signal_in_first * label if at == 0 else 0)
        found[f"c{at}"] = Predictions(label, probability, np.arange(people), fold)
    return found


def test_where_nothing_is_defined_the_first_is_best():
    one = Predictions([1, 1, 1], [0.1, 0.5, 0.7], [0, 1, 2], [0, 0, 1])
    assert best_of({"a": one, "b": one}) == "a"


def test_agreement_is_the_share_of_pairs():
    assert agreement(["a", "a"]) == 1 and agreement(["a", "b"]) == 0
    assert agreement(["a", "a", "b", "a"]) == 0.5  # three pairs of six


def test_optimism_is_the_best_minus_the_procedure():
    each = made_up(2, 60, 3)
    procedure = each["c1"] if best_of(each) == "c0" else each["c0"]
    found = choice_summary(each, procedure, {"0": "c0", "1": "c1", "2": "c0"}, 0)
    assert found.optimism.value == pytest.approx(headline_of(each[found.best])[1] - headline_of(procedure)[1])
    assert found.optimism.low < found.optimism.value < found.optimism.high
    assert found.chosen == {"c0": 2, "c1": 1} and found.agreement == pytest.approx(1 / 3)


def halved(scores: np.ndarray) -> tuple[list, list]:
    """The rungs of candidates with a score in each fold (candidates, folds), and which folds were asked for."""
    names, folds, asked = [f"c{at}" for at in range(len(scores))], [str(at) for at in range(scores.shape[1])], []

    def score(name, used):
        asked.append((name, tuple(used)))
        return float(scores[int(name[1:]), [int(fold) for fold in used]].mean())

    return halve(names, folds, score), asked


def by_brute_force(scores: np.ndarray) -> list[dict[int, list[int]]]:
    """Who is left, and on how many folds: all on two, then the better half on twice as many; the last two on all."""
    count, folds = scores.shape
    left, used, rungs = list(range(count)), min(2, folds), []
    while True:
        rungs.append({used: left})
        if used == folds:
            return rungs
        mean = {at: scores[at, :used].mean() for at in left}
        half = max(2, -(-len(left) // 2))
        left = sorted(sorted(left, key=lambda at: (-mean[at], at))[:half])
        used = folds if len(left) == 2 else min(2 * used, folds)


@given(seed=st.integers(0, 10**6), count=st.integers(2, 20), folds=st.integers(2, 5), coarse=st.booleans())
def test_rungs_are_those_of_brute_force(seed, count, folds, coarse):
    """Also with equal scores, where the user's order decides."""
    scores = np.random.default_rng(seed).random((count, folds))
    scores = scores.round() if coarse else scores
    rungs, asked = halved(scores)
    wanted = by_brute_force(scores)
    assert [rung.folds for rung in rungs] == [used for of in wanted for used in of]
    for rung, of in zip(rungs, wanted, strict=True):
        (left,) = of.values()
        assert set(rung.scores) == {f"c{at}" for at in left}
    assert rungs[-1].folds == folds
    best = max(rungs[-1].scores.values())
    assert rungs[-1].scores[rungs[-1].ranked[0]] == best
    assert len({pair for name, used in asked for pair in ((name, fold) for fold in used)}) == trainings(count, folds)


@pytest.mark.parametrize(
    "count, folds, wanted",
    [
        (2, 2, 4),
        (2, 5, 10),  # both on all
        (3, 5, 2 + 2 * 5),  # three on two, two of them on all
        (4, 5, 2 * 2 + 2 * 5),
        (8, 5, 4 * 2 + 2 * 4 + 2 * 5),
        (6, 3, 3 * 2 + 3 * 3),  # the better three on all that there are
        (64, 5, 32 * 2 + 16 * 4 + 16 * 5),
        (5, 2, 10),
    ],
)
def test_the_budget_by_hand(count, folds, wanted):
    assert trainings(count, folds) == wanted
    assert wanted <= count * folds


def test_of_equal_ones_the_first_named_is_chosen():
    assert halved(np.zeros((5, 5)))[0][-1].ranked[0] == "c0"
    scores = np.array([[0.1] * 5, [0.7] * 5, [0.7] * 5, [0.2] * 5])
    assert halved(scores)[0][-1].ranked[0] == "c1"
    scores = np.array([[0.6, 0.6, 0.8, 0.8, 0.7], [0.7, 0.7, 0.7, 0.7, 0.7], [0.1] * 5]).round(6)
    rungs, _ = halved(scores)
    assert rungs[0].ranked[0] == "c1" and rungs[-1].ranked == ["c0", "c1"]


def test_the_last_two_are_compared_on_all_folds():
    """The second is better at first, the first in all."""
    scores = np.array([[0.6, 0.6, 0.9, 0.9, 0.9], [0.8, 0.8, 0.1, 0.1, 0.1], [0.1] * 5])
    rungs, _ = halved(scores)
    assert [(rung.folds, len(rung.scores)) for rung in rungs] == [(2, 3), (5, 2)]
    assert rungs[0].ranked == ["c1", "c0", "c2"] and rungs[1].ranked == ["c0", "c1"]


def test_the_budget_is_what_successive_halving_promises():
    """The better half on twice as many folds costs as much again, so that the rungs are few and about alike."""
    for count in range(2, 65):
        first, rest = 2 * count, trainings(count, 5) - 2 * count
        assert rest <= max(6, first * math.ceil(math.log2(5 / 2)))
