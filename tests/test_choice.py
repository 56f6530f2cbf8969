"""--choose by the user's commands: who is chosen in each fold, what that does to the score, and what interrupts it."""

import json
import shutil
from itertools import combinations
from pathlib import Path

import h5py
import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, refused
from helpers import assert_bit_equal
from hypothesis import given
from hypothesis import strategies as st
from oracles import within
from sklearn.metrics import roc_auc_score
from utils.choice import job

pytestmark = pytest.mark.usefixtures("undrawn")
PEERS = ("site", "fold")  # the sites of `cohort` are small
NAMES = ["sine members=1 batch_size=8", "sine members=1 learning_rate=0.0001"]
PLACES = "--folds 2 --choose {lines} --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lines") / "two, of mine.txt"
    settings = (name.replace(" ", " --set ") for name in NAMES)
    path.write_text("# quick ones\n\n" + "".join(f"--preset {words}  # nn\n" for words in settings))
    return path


@pytest.fixture(scope="module")
def chosen(cohort, lines):
    """`chosen(folder, "--test")` chooses between two nn in two inner folds of both folds; what was printed."""

    def run(folder: Path, words: str, iterations: int = 3) -> str:
        name, more = words.split()[0].strip("-"), f" --numIters {iterations}" if "--train" in words else ""
        command = f"run.py {words} --model nn {PLACES}{name}{more}"
        return done(command, lines=lines, of=cohort, to=folder)

    return run


@pytest.fixture(scope="module")
def tested(chosen, once) -> Path:
    """The folder of a nn chosen, trained and tested on two folds."""
    return once("chosen", lambda folder: [chosen(folder, job) for job in ("--train", "--test")])


def checkpoints_of(folder: Path) -> Path:
    (found,) = folder.glob("ckpt/nn/folds-2-choose-*")
    return found


def chosen_in(folder: Path, fold: str) -> dict:
    return json.loads((checkpoints_of(folder) / f"choice/fold-{fold}/run.json").read_text())["chosen"]


def inner_of(folder: Path, fold: str) -> Path:
    return checkpoints_of(folder) / f"choice/fold-{fold}/inner.json"


@pytest.mark.slow
def test_who_is_chosen_did_best_in_inner_folds_of_the_training_people(tested, cohort):
    """Scores recomputed from what was predicted there; nobody who is tested is among these."""
    people = pd.read_csv(cohort / "subjects.csv").set_index("file")
    outer = pd.read_csv(tested / "test/predictions.csv", dtype={"fold": str}).set_index("file")["fold"]
    rows = pd.read_csv(tested / "test/choices.csv", dtype={"fold": str})
    assert list(rows) == ["fold", "candidate", "inner_folds", "score", "chosen"]
    for fold in "01":
        scores, seen = {}, []
        for name, each in json.loads(inner_of(tested, fold).read_text()).items():
            table = pd.concat([pd.DataFrame({"probability": of}).assign(fold=number) for number, of in each.items()])
            assert sorted(each) == ["0", "1"] and set(table.index) == set(outer.index[outer != fold])
            scores[name] = within(table.join(people[["site", "label"]]), *PEERS)
            seen.append(table["fold"].to_dict())
        assert list(scores) == NAMES and seen[0] == seen[1]
        own = rows[rows["fold"] == fold].set_index("candidate")
        assert own["score"].to_dict() == pytest.approx(scores) and set(own["inner_folds"]) == {2}
        best = max(scores, key=scores.get)
        assert chosen_in(tested, fold)["name"] == best and own.index[own["chosen"] == 1].tolist() == [best]


@pytest.mark.slow
def test_scores_are_those_of_the_procedure_and_of_each_candidate(tested):
    """Predictions are those of who was chosen; `optimism` is how far the best lies above the procedure."""
    table = pd.read_csv(tested / "test/predictions.csv", dtype={"fold": str})
    each = [pd.read_csv(tested / f"test/candidate-{at}/predictions.csv", dtype={"fold": str}) for at in (1, 2)]
    for fold, of in table.groupby("fold"):
        (name,) = set(of["candidate"])
        own = each[NAMES.index(name)]
        assert name == chosen_in(tested, fold)["name"]
        assert of["probability"].tolist() == own[own["fold"] == fold]["probability"].tolist()
    metrics = json.loads((tested / "test/metrics.json").read_text())
    assert metrics["auc_sites"]["value"] == pytest.approx(within(table, *PEERS))
    assert metrics["auc_folds"]["value"] == pytest.approx(within(table, "fold"))
    counts = table.groupby("candidate")["fold"].nunique()
    rows = pd.read_csv(tested / "test/candidates.csv").set_index("candidate")
    for name, own in zip(NAMES, each, strict=True):
        row = rows.loc[name]
        assert row["chosen"] == counts.get(name, 0)
        assert row["auc"] == pytest.approx(roc_auc_score(own["label"], own["probability"]), rel=1e-6)
        assert row["auc_sites"] == pytest.approx(within(own, *PEERS), rel=1e-6)
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    found = json.loads((tested / "test/run.json").read_text())["choice"]
    assert (found["best"], found["metric"]) == (rows["auc_sites"].idxmax(), "auc_sites")
    optimism = rows["auc_sites"].max() - within(table, *PEERS)
    assert found["optimism"]["value"] == pytest.approx(optimism, abs=1e-6)
    of_folds = [chosen_in(tested, fold)["name"] for fold in "01"]
    pairs = [one == other for one, other in combinations(of_folds, 2)]
    assert found["chosen"] == counts.to_dict() and found["agreement"] == np.mean(pairs)


@pytest.mark.slow
@pytest.mark.bits
def test_what_is_lost_or_damaged_is_chosen_again_and_comes_out_the_same(tested, chosen, tmp_path):
    """Fold 0 as a kill between its first and its second candidate leaves it; fold 1 with a cut file. Nothing that is
    there is trained again."""
    copy = shutil.copytree(tested, tmp_path / "copy")
    folders = [inner_of(copy, fold).parent for fold in "01"]
    whole = json.loads((folders[0] / "inner.json").read_text())
    lab.edit(folders[0] / "inner.json", json.dumps({NAMES[0]: whole[NAMES[0]]}).encode())
    lab.edit(folders[1] / "inner.json", "cut")
    for folder in folders:
        lab.edit(folder / "run.json", {"finished": False})
    weights = list(checkpoints_of(copy).glob("candidate-1/*/ckpt-*.index"))
    before = [path.stat().st_mtime_ns for path in weights]
    chosen(copy, "--train")
    assert [path.stat().st_mtime_ns for path in weights] == before and weights
    for fold in "01":
        assert inner_of(copy, fold).read_bytes() == inner_of(tested, fold).read_bytes()
        assert chosen_in(copy, fold) == chosen_in(tested, fold)
        for name in ("candidate-1", "candidate-2"):
            assert_bit_equal(checkpoints_of(copy) / name / fold, checkpoints_of(tested) / name / fold)


@pytest.mark.slow
def test_other_iterations_choose_anew_and_a_test_needs_a_choice(tested, chosen, cohort, lines, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    chosen(copy, "--train --fold 0", iterations=4)
    folder = inner_of(copy, "0").parent
    assert list(folder.glob("earlier/*/inner.json"))
    assert json.loads((folder / "run.json").read_text())["iterations"] == 4
    shutil.rmtree(checkpoints_of(copy) / "choice")
    places = {"lines": lines, "of": cohort, "to": copy}
    refused(f"run.py --test --model nn {PLACES}test", "No candidate is chosen yet", "2 of 2 folds", **places)


@pytest.mark.slow
def test_a_choice_is_known_by_its_candidates_in_their_order_however_the_file_is_written(tested, cohort, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    one, other = "--set members=1 --set batch_size=8", "--set members=1  --set learning_rate=0.0001 --preset sine"
    places = {"of": cohort, "to": copy, "lines": tmp_path / "lines"}
    (tmp_path / "lines").write_text(f"\ufeff{one}\r\n\r\n  {other} # slow\r\n")
    done(f"run.py --test --model nn {PLACES}again", **places)
    again, first = (pd.read_csv(copy / f"{name}/predictions.csv") for name in ("again", "test"))
    assert again["probability"].tolist() == first["probability"].tolist()
    (tmp_path / "lines").write_text(f"{other}\n{one}\n")
    refused(f"run.py --test --model nn {PLACES}third", "no checkpoint", **places)


@pytest.mark.slow
def test_one_fold_is_chosen_and_tested_and_volumes_are_read_as_each_candidate_says(cohort, tmp_path):
    (tmp_path / "lines").write_text("".join(f"--preset regions --set standardise={of}\n" for of in ("brain", "stored")))
    places = {"lines": tmp_path / "lines", "of": cohort, "to": tmp_path}
    printed = done(f"run.py --train --numIters 2 --model cnn --fold 0 {PLACES}train", **places)
    assert "Still to be done before the results are pooled: fold 1" in printed
    done(f"run.py --test --model cnn --fold 0 {PLACES}test", **places)
    (inner,) = tmp_path.glob("ckpt/cnn/*/choice/fold-0/inner.json")
    brain, stored = json.loads(inner.read_text()).values()
    assert brain.keys() == stored.keys() and brain != stored


@pytest.mark.slow
def test_a_blackout_is_of_who_was_chosen_in_each_fold(tested, chosen, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    printed = chosen(copy, "--blackout --donors 1 --fold 0")
    assert "Still to be done before the results are pooled: fold 1." in printed
    assert not (copy / "blackout/values.csv").exists()
    chosen(copy, "--blackout --donors 1")
    table = pd.read_csv(copy / "test/predictions.csv", dtype={"subject": str}).set_index("subject")
    with h5py.File(copy / "blackout/blackout.h5") as file:
        subjects = [name.decode() for name in file["subject"]]
        assert sorted(subjects) == sorted(table.index)
        assert file["probability"][:] == pytest.approx(table.loc[subjects, "probability"], rel=1e-5)


@pytest.mark.slow
def test_a_choice_is_made_anew_under_each_permutation(tested, chosen, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    chosen(copy, "--test --permutations 1")
    table = pd.read_csv(copy / "test/permutations/permutation-00001.csv", dtype={"fold": str, "subject": str})
    assert table.groupby("fold")["candidate"].nunique().tolist() == [1, 1] and set(table["candidate"]) <= set(NAMES)
    observed = pd.read_csv(copy / "test/predictions.csv", dtype={"subject": str}).set_index("subject")["label"]
    assert (table["label"].to_numpy() != observed.loc[table["subject"]].to_numpy()).any()


# Rungs: all candidates on two inner folds, the better half on twice as many, the last two on all


def halved(scores: np.ndarray) -> tuple[list, set]:
    """The rungs of candidates with a score in each fold (candidates, folds), and what was asked for."""
    names, folds, asked = [f"c{at}" for at in range(len(scores))], [str(at) for at in range(scores.shape[1])], set()

    def score(name, used):
        asked.update((name, fold) for fold in used)
        return float(scores[int(name[1:]), [int(fold) for fold in used]].mean())

    return job.halve(names, folds, score), asked


def by_brute_force(scores: np.ndarray) -> list[tuple[int, list[int]]]:
    """On how many folds, and who is left."""
    count, folds = scores.shape
    left, used, rungs = list(range(count)), min(2, folds), []
    while True:
        rungs.append((used, left))
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
    found = [(rung.folds, sorted(int(name[1:]) for name in rung.scores)) for rung in rungs]
    assert found == by_brute_force(scores)
    last = rungs[-1]
    first = next(f"c{at}" for at in range(count) if last.scores.get(f"c{at}") == max(last.scores.values()))
    assert last.folds == folds and last.ranked[0] == first
    assert len(asked) == job.trainings(count, folds)


@pytest.mark.parametrize("count, folds, wanted", [(2, 5, 10), (8, 5, 8 + 8 + 10), (6, 3, 6 + 9)])
def test_the_budget_by_hand(count, folds, wanted):
    assert job.trainings(count, folds) == wanted <= count * folds
