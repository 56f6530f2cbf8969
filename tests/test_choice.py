"""--choose by the user's commands: whom inner folds choose, and what a choice that was killed leaves."""

import shutil
from pathlib import Path

import lab
import pandas as pd
import pytest
from commands import done, read_manifest, refused
from helpers import assert_bit_equal
from oracles import average_group_auc

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn", "no_baselines")]
SETTINGS = {"batch_size": 8, "phenotype_units": [64]}  # of each candidate one
CANDIDATE_NAMES = ["sine members=1 batch_size=8", "sine members=1 phenotype_units=64"]
FOLDER_OPTIONS = "--folds 2 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"
TRAIN_COMMAND = f"run.py --train --model nn --numIters 3 --choose {{lines}} {FOLDER_OPTIONS}train"


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lines") / "two, of mine.txt"
    settings = (name.replace(" ", " --set ") for name in CANDIDATE_NAMES)
    path.write_text("# quick ones\n\n" + "".join(f"--preset {words}  # nn\n" for words in settings))
    return path


@pytest.fixture(scope="module")
def chosen(cohort, lines, make_once) -> Path:
    """The folder of a nn, of which inner folds chose between two in each of two folds; with a test and a p-value."""

    def make(folder: Path) -> None:
        done(TRAIN_COMMAND, lines=lines, of=cohort, to=folder)
        done(f"run.py --test --model nn --permutations 2 {FOLDER_OPTIONS}test", of=cohort, to=folder)

    return make_once("chosen", make)


def read_inner_table(folder: Path, fold: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"train/fold-{fold}/inner.csv", dtype={"inner_fold": str})


def network_folder(folder: Path, fold: str) -> Path:
    return folder / f"ckpt/nn/folds-2/{fold}"


@pytest.mark.parametrize("fold", ["0", "1"])
def test_the_best_candidate_in_inner_folds_is_trained(fold, chosen, cohort):
    """By the AUC of what was predicted there; nobody whom the fold tests is among these."""
    people = pd.read_csv(cohort / "subjects.csv", dtype={"subject": str}).set_index("file")
    outer = pd.read_csv(chosen / "test/predictions.csv", dtype={"fold": str}).set_index("file")["fold"]
    scores, inner_fold_assignments = {}, []
    for name, table in read_inner_table(chosen, fold).set_index("file").groupby("candidate", sort=False):
        assert table.index.is_unique and set(table.index) == set(outer.index[outer != fold])
        joined = table.join(people[["site", "label"]])
        scores[name] = average_group_auc(joined, "site", "inner_fold")
        inner_fold_assignments.append(table["inner_fold"].to_dict())
    assert inner_fold_assignments[0] == inner_fold_assignments[1] and set(inner_fold_assignments[0].values()) == {
        "0",
        "1",
    }
    saved, best = read_manifest(network_folder(chosen, fold)), max(scores, key=scores.get)
    assert saved["choice"]["name"] == best and saved["choice"]["scores"] == pytest.approx(scores)
    setting = best.split()[-1].partition("=")[0]
    assert saved["config"][setting] == SETTINGS[setting] and saved["config"]["members"] == 1
    assert set(saved["people"]["subjects"]) == set(people.loc[outer.index[outer != fold], "subject"])


@pytest.mark.bits
def test_the_winner_is_trained_as_without_a_choice_which_permutations_repeat(chosen, cohort, tmp_path):
    """With the settings of the winner the weights are the same, and p of permutations, which choose nothing, is not."""
    for fold in "01":
        words = read_manifest(network_folder(chosen, fold))["choice"]["name"].partition(" ")[2].replace(" ", " --set ")
        command = f"run.py --train --model nn --numIters 3 --set {words} --fold {fold} {FOLDER_OPTIONS}train"
        done(command, of=cohort, to=tmp_path)
        assert_bit_equal(network_folder(tmp_path, fold), network_folder(chosen, fold))
    done(f"run.py --test --model nn --permutations 2 {FOLDER_OPTIONS}test", of=cohort, to=tmp_path)
    chosen_permutations, plain_permutations = (
        pd.read_csv(run_folder / "test/permutations/permutations.csv") for run_folder in (chosen, tmp_path)
    )
    assert (chosen / "test/predictions.csv").read_bytes() == (tmp_path / "test/predictions.csv").read_bytes()
    assert (chosen_permutations["permutation"] == plain_permutations["permutation"]).all() and (
        chosen_permutations["score"] != plain_permutations["score"]
    ).any()


@pytest.mark.bits
def test_a_killed_or_damaged_choice_resumes_with_equal_results(chosen, cohort, lines, tmp_path):
    """Fold 0 as a kill between two trainings leaves it; fold 1 with a table that is cut. What is there is not done
    again: where it says that the second candidate knows all labels, this one is chosen."""
    places, label = {"lines": lines, "of": cohort}, pd.read_csv(cohort / "subjects.csv").set_index("file")["label"]
    for name in ("same", "knowing"):
        copy = shutil.copytree(chosen, tmp_path / name)
        for fold in "01":
            shutil.rmtree(network_folder(copy, fold))
            lab.edit(copy / f"train/fold-{fold}/run.json", {"finished": False})
        lab.edit(copy / "train/fold-0/inner.csv", lambda content: content[: len(content) // 2 + 10])
        lab.edit(copy / "train/fold-1/inner.csv", "cut")
    knowing_table = read_inner_table(chosen, "0").assign(
        probability=lambda inner_rows: 0.25 + 0.5 * inner_rows["file"].map(label)
    )
    knowing_table = knowing_table.where(knowing_table["candidate"] == CANDIDATE_NAMES[1], read_inner_table(chosen, "0"))
    lab.edit(tmp_path / "knowing/train/fold-0/inner.csv", knowing_table.to_csv(index=False).encode())
    done(TRAIN_COMMAND, to=tmp_path / "same", **places)
    for fold in "01":
        resumed_path, original_path = (
            run_folder / f"train/fold-{fold}/inner.csv" for run_folder in (tmp_path / "same", chosen)
        )
        assert resumed_path.read_bytes() == original_path.read_bytes()
        assert_bit_equal(network_folder(tmp_path / "same", fold), network_folder(chosen, fold))
    done(f"{TRAIN_COMMAND} --fold 0", to=tmp_path / "knowing", **places)
    choice = read_manifest(network_folder(tmp_path / "knowing", "0"))["choice"]
    assert choice["name"] == CANDIDATE_NAMES[1] and choice["scores"][CANDIDATE_NAMES[1]] == 1


def test_a_choice_depends_on_candidates_and_batches(chosen, cohort, lines, tmp_path):
    """Permutations repeat it; more batches than those of the inner trainings would be another procedure."""
    copy = shutil.copytree(chosen, tmp_path / "copy")
    places = {"of": cohort, "to": copy}
    refused(TRAIN_COMMAND.replace("Iters 3", "Iters 4"), "of 3 batches", "--numIters 3", lines=lines, **places)
    (tmp_path / "other").write_text("--set members=1\n--set members=1 --set batch_size=4\n")
    refused(TRAIN_COMMAND, "chosen among", "--choose", lines=tmp_path / "other", **places)
    done(f"{TRAIN_COMMAND} --fold 0 --overrideChkpt", lines=tmp_path / "other", **places)
    assert read_manifest(network_folder(copy, "0"))["choice"]["scores"].keys() == {
        "sine members=1",
        "sine members=1 batch_size=4",
    }
    assert list(copy.glob("train/earlier/*/fold-0/inner.csv"))
    shutil.rmtree(network_folder(copy, "0"))
    lab.edit(copy / "train/fold-0/run.json", {"finished": False})
    done(f"{TRAIN_COMMAND} --fold 0".replace("Iters 3", "Iters 2"), lines=tmp_path / "other", **places)
    assert set(read_inner_table(copy, "0")["batches"]) == {2}  # not compared with those that have seen three


def test_volumes_are_read_as_the_candidate_says(cohort, tmp_path):
    (tmp_path / "lines").write_text(
        "".join(f"--preset regions --set standardise={candidate}\n" for candidate in ("brain", "stored"))
    )
    places = {"lines": tmp_path / "lines", "of": cohort, "to": tmp_path}
    done(f"{TRAIN_COMMAND} --model cnn --fold 0", **places)
    brain, stored = (
        candidate["probability"].tolist() for _, candidate in read_inner_table(tmp_path, "0").groupby("candidate")
    )
    assert brain != stored


def test_the_test_report_lists_the_chosen_candidates(chosen):
    report_html = (chosen / "test/report.html").read_text()
    assert all(read_manifest(network_folder(chosen, fold))["choice"]["name"] in report_html for fold in "01")
