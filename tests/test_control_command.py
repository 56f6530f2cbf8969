"""`--test --predictions --control`: of predictions that were made from the labels of an export, or from others, and of
published designs that leak."""

import subprocess
import sys
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import ROOT, done, read_manifest, read_page_text, refused
from oracles import average_group_auc

from utils.scores.conclusion import ControlVerdict
from utils.scores.control import ACCUSING_P

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn", "no_baselines")]

CONTROL_SEED = 2
NOISE_FEATURE_COUNT = 5000
TEST = "run.py --test --predictions {file} --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/out"
TEST_OF_CONTROL = f"{TEST} --control {CONTROL_SEED}"
MAX_VERDICT_WORDS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A `cohort` with families of a site, and its export with the labels of a control in three folds, `arrays`; of the
    split, `split`."""
    folder = tmp_path_factory.mktemp("control")
    family_by_row = {row: f"family {row % 6}" for row in range(12)}
    people = lab.people(120).assign(FAM=[family_by_row.get(row, "") for row in range(120)])
    lab.pcp(folder / "lab", people, series=True)
    options = "--grid reduced --maps all --connectome rois_made --family FAM"
    done(f"abide-data convert {{of}}/lab {{of}}/cohort {options}", of=folder)
    export = f"abide-data export {{of}}/cohort {{of}}/{{name}} --control {CONTROL_SEED}"
    done(f"{export} --folds 3", of=folder, name="arrays")
    done(export, of=folder, name="split")
    return folder


def read_people(folder: Path, export: str = "arrays") -> pd.DataFrame:
    """The participants of an export, with their true label beside that of the control."""
    people = lab.read_table(folder / export / "participants.csv")
    label_by_subject = lab.read_table(folder / "cohort/subjects.csv").set_index("subject")["label"]
    return people.astype({"label": float}).assign(true=people["id"].map(label_by_subject).astype(float))


def check_tested_labels(test: Path, people: pd.DataFrame) -> None:
    """Those of the export."""
    tested = lab.read_table(test / "predictions.csv").set_index("subject").loc[people["id"]]
    np.testing.assert_array_equal(tested["label"].astype(float), people["label"])


def write_predictions(path: Path, people: pd.DataFrame, log_odds: pd.Series) -> Path:
    """Probabilities of somebody who knows `log_odds`, and little else."""
    noise = np.random.default_rng(0).normal(size=len(people))
    table = people.assign(probability=1 / (1 + np.exp(-log_odds - noise)))
    columns = [name for name in ("id", "fold", "probability", "control") if name in table]
    table[columns].to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "known_label, known_log_odds, verdict",
    [
        ("label", 0.0, ControlVerdict.NO_LEAK_SHOWN),
        ("label", 2.0, ControlVerdict.LEAK),
        ("true", 0.8, ControlVerdict.PERHAPS_FROM_TRUE_LABELS),
    ],
)
def test_the_verdict_is_that_of_the_control(folder, tmp_path, known_label, known_log_odds, verdict):
    people = read_people(folder)
    file = write_predictions(tmp_path / "mine.csv", people, known_log_odds * people[known_label])
    places = {"file": file, "of": folder / "cohort", "to": tmp_path}
    printed = done(TEST_OF_CONTROL, **places)

    test = tmp_path / "out"
    check_tested_labels(test, people)
    manifest = read_manifest(test)
    result = manifest["conclusion"]["control"]
    people["probability"] = pd.read_csv(file)["probability"]
    groups = ["site", "fold"] if manifest["conclusion"]["small_sites"] else ["site"]
    assert result["auc"] == pytest.approx(average_group_auc(people, *groups))
    assert result["true_label_auc"] == pytest.approx(average_group_auc(people.assign(label=people["true"]), *groups))
    assert (result["verdict"], manifest["options"]) == (verdict, {"control": CONTROL_SEED})

    (sentences,) = [line for line in printed.splitlines() if line.startswith("CONTROL  ") and "(AUC" in line]
    assert f"p {result['p']:.2g}" in sentences and f"AUC {result['auc']:.2f}" in sentences
    verdict_text = sentences.removeprefix("CONTROL").strip()
    page = read_page_text(test / "report.html")
    assert verdict_text in page and len(verdict_text.split()) <= MAX_VERDICT_WORDS
    assert "(CONTROL" in page.splitlines()[0] and "This was a control" in page
    assert "(CONTROL" in lab.read_table(tmp_path / "runs.csv")["cohort"][0]
    assert verdict_text in done(TEST_OF_CONTROL, **places)  # once more, of what is done


def test_predictions_of_the_true_labels_are_refused(folder, tmp_path):
    people = read_people(folder)
    file = write_predictions(tmp_path / "mine.csv", people, 2 * people["true"])
    words = "made from the true labels", "fit again on those of the control"
    refused(TEST_OF_CONTROL, *words, file=file, of=folder / "cohort", to=tmp_path)


def test_the_few_of_a_split_cannot_tell(folder, tmp_path):
    """Their labels are those of the export, too."""
    people = read_people(folder, "split")
    tested = people[people["split"] == "test"]
    file = write_predictions(tmp_path / "mine.csv", tested, 9 * tested["label"])
    done(TEST_OF_CONTROL, file=file, of=folder / "cohort", to=tmp_path)
    check_tested_labels(tmp_path / "out", tested)
    result = read_manifest(tmp_path / "out")["conclusion"]["control"]
    assert (result["auc"], result["verdict"]) == (1, ControlVerdict.CANNOT_TELL)


def test_a_control_is_no_score(folder, tmp_path):
    """Not beside other tests, and not of a model of everybody."""
    people = read_people(folder)
    file = write_predictions(tmp_path / "mine.csv", people, 0 * people["label"])
    places = {"of": folder / "cohort", "to": tmp_path}
    done(TEST_OF_CONTROL, file=file, **places)
    refused("abide-compare {to}/out {to}/out/fold-0 --outDir {to}/compared", "is a control", **places)
    scored = "run.py --train --model nn --everybody --score {to}/out --dataDir {of} --chkPointDir {to}/ckpt"
    refused(scored, "mine-predictions-control-2", **places)


@pytest.mark.parametrize("design", ["leak_before_folds", "leak_earlier_folds"])
def test_published_designs_leak(folder, tmp_path, design):
    """On an export whose features are noise, of which there is much."""
    arrays = lab.copy(folder / "arrays", tmp_path / "arrays")
    people_count = len(np.load(arrays / "connectome.npy"))
    noise = np.random.default_rng(1).normal(size=(people_count, NOISE_FEATURE_COUNT))
    np.save(arrays / "connectome.npy", noise.astype(np.float32))
    file = tmp_path / "mine.csv"
    subprocess.run([sys.executable, ROOT / f"docs/examples/{design}.py", arrays, file], check=True)
    done(TEST_OF_CONTROL, file=file, of=folder / "cohort", to=tmp_path)
    result = read_manifest(tmp_path / "out")["conclusion"]["control"]
    assert (result["verdict"], result["p"]) == (ControlVerdict.LEAK, ACCUSING_P)
