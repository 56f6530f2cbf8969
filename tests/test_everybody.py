"""--everybody: who trains, with what settings and whose score; whom it tests; what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import read_rows, resealed
from people import ROWS, renamed, write_people

from data.cohorts.stored import open_cohort
from utils.runs.checkpoints import CheckpointFolder


@pytest.mark.slow
def test_everybody_trains_and_the_phenotype_is_scaled_on_all(settled, home):
    saved = CheckpointFolder(settled / "ckpt" / "nn" / "everybody").identity()
    subjects = [row["SUB_ID"] for row in ROWS]
    assert saved.everybody
    assert sorted(saved.training_subjects) == subjects
    table = read_rows(home / "phenotype.csv")
    for place, name in enumerate(saved.preparation.phenotype):
        values = np.array([float(row[name] or "nan") for row in table])
        median = np.nanmedian(values) if not np.isnan(values).all() else 0.0
        filled = np.where(np.isnan(values), median, values)
        assert saved.preparation.phenotype_median[place] == pytest.approx(median)
        assert saved.preparation.phenotype_mean[place] == pytest.approx(filled.mean())
        assert saved.preparation.phenotype_scale[place] == pytest.approx(filled.std())


@pytest.mark.slow
def test_it_says_whose_score_goes_with_it(settled, in_home, tmp_path):
    copy = shutil.copytree(settled, tmp_path / "copy")
    outcome = in_home(copy, "--train", "--everybody", "--score", settled / "test-folds")
    assert outcome.status == 0, outcome.err
    headline = json.loads((settled / "test-folds" / "run.json").read_text())["headline"]
    assert f"everybody is of everybody and has no score of its own; AUC within sites {headline[1]:.3f}" in outcome.out
    assert "in 3 folds, 40 people" in outcome.out
    outcome = in_home(tmp_path / "bare", "--train", "--everybody")
    assert "no test on folds goes with it either: --train --everybody --score FOLDER names one" in outcome.out


@pytest.mark.slow
def test_its_settings_and_its_length_are_those_of_the_score(settled, cli, home, tmp_path):
    """Nothing but the folder is named; the default preset has four members."""
    places = ("--chkPointDir", tmp_path / "ckpt", "--dataDir", home, "--outDir", tmp_path / "out")
    score = settled / "test-folds"
    outcome = cli("--train", "--model", "nn", "--everybody", "--score", score, *places)
    assert outcome.status == 0, outcome.err
    folds = CheckpointFolder(settled / "ckpt" / "nn" / "folds-3" / "0").identity()
    every = CheckpointFolder(tmp_path / "ckpt" / "nn" / "everybody").identity()
    assert (every.preset, every.config, every.step) == (folds.preset, folds.config, 4)
    assert (every.config["members"], every.internal.subjects) == (1, 40)


@pytest.mark.parametrize(
    "more, words",
    [
        (("--folds", 3), "--everybody trains one model of all people, --folds trains several; leave one out"),
        (("--choose",), "--choose compares candidates within folds"),
        (("--repeats", 2), "--repeats 2 repeats a run on folds"),
        (("--fold", 1), "--fold 1 is one of several"),
        (("--jobs", 2), "--jobs 2 counts folds"),
    ],
)
def test_it_is_one_model(more, words, in_home, tmp_path):
    for job in ("--train", "--test"):
        outcome = in_home(tmp_path / "a", job, "--everybody", *more)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert words in outcome.err
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_its_own_people_are_not_tested(settled, in_home, tmp_path):
    copy = shutil.copytree(settled, tmp_path / "copy")
    outcome = in_home(copy, "--test", "--everybody")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "4 of 4 test subjects of" in outcome.err
    assert "trained this checkpoint" in outcome.err and "Test other people" in outcome.err
    assert not (copy / "test-everybody").exists()


@pytest.fixture(scope="module")
def away(home, data_cli, tmp_path_factory) -> Path:
    """New people converted like those at home, some of whom lack values."""
    folder = tmp_path_factory.mktemp("away")
    outcome = data_cli("convert", write_people(folder / "maps", renamed(8)), folder / "cohort", "--like", home)
    assert outcome.status < 2, outcome.err
    return folder / "cohort"


@pytest.mark.slow
def test_new_people_are_scaled_as_all_training_people_were(settled, in_home, away, tmp_path):
    """By hand: their raw phenotype with the constants of the checkpoint, through the network's own layers."""
    import keras

    from models import MODELS
    from utils.training.network import restore_weights

    copy = shutil.copytree(settled, tmp_path / "copy")
    outcome = in_home(copy, "--test", "--everybody", "--dataDir", away)
    assert outcome.status == 0, outcome.err
    folder = CheckpointFolder(settled / "ckpt" / "nn" / "everybody")
    saved, cohort = folder.identity(), open_cohort(away)
    of, values = saved.preparation, cohort.raw_phenotype.to_numpy()
    median, mean, scale = (np.array(getattr(of, f"phenotype_{name}")) for name in ("median", "mean", "scale"))
    assert np.isnan(values).any()
    filled = np.where(np.isnan(values), median, values)
    scaled = np.where(scale > 0, (filled - mean) / np.where(scale > 0, scale, 1), 0)
    keras.utils.clear_session()
    network = MODELS["nn"].build(MODELS["nn"].settings(saved.config), cohort)
    restore_weights(folder, network)
    logits = network({"phenotype": scaled.astype(np.float32)}, training=False).numpy().astype(float)
    expected = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    rows = read_rows(copy / "test-everybody" / "predictions.csv")
    assert [row["subject"] for row in rows] == [row.subject for row in cohort.rows]
    np.testing.assert_allclose([float(row["probability"]) for row in rows], expected, atol=2e-6)


@pytest.mark.slow
def test_people_without_a_label_do_not_train(home, in_home, data_cli, tmp_path):
    """Nor does who shares a scan with them."""
    folder = shutil.copytree(home, tmp_path / "cohort")
    rows = [row.split(",") for row in (folder / "subjects.csv").read_text().splitlines()]
    at, unknown = rows[0].index("label"), [row for row in rows if row[-1] == "test"][:2]
    for row in unknown:
        path = folder / row[0]
        row[at] = ""
        path.write_bytes(np.float32("nan").tobytes() + path.read_bytes()[4:])
    (folder / "subjects.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    resealed(folder)
    outcome = in_home(tmp_path / "run", "--train", "--everybody", "--dataDir", folder)
    assert outcome.status == 0, outcome.err
    assert "Not trained on, since no label is known of them: 2 people." in outcome.out
    saved = CheckpointFolder(tmp_path / "run" / "ckpt" / "nn" / "everybody").identity()
    assert set(saved.training_subjects) == {row["SUB_ID"] for row in ROWS} - {row[1] for row in unknown}


def edited(folder: Path) -> None:
    path = folder / "predictions.csv"
    path.write_text(path.read_text().replace("0.5", "0.6", 1))


def unfinished(folder: Path) -> None:
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(manifest | {"finished": False}))


SCORES: dict[str, tuple[Callable[[Path], None], tuple, str]] = {
    "of another model": (lambda folder: None, ("--model", "mmnn"), "is of model nn, this run of mmnn"),
    "of other settings": (
        lambda folder: None,
        ("--set", "batch_size=4"),
        "tested --set batch_size 8, this run asks for 4; use the same",
    ),
    "of other iterations": (lambda folder: None, ("--numIters", 5), "tested --numIters 4, this run asks for 5"),
    "of another precision": (lambda folder: None, ("--precision", "mixed_bfloat16"), "tested --precision float32"),
    "edited": (edited, (), "predictions.csv is not as it was written"),
    "unfinished": (unfinished, (), "test: the run is not finished"),
    "without a table": (lambda folder: (folder / "metrics.json").unlink(), (), "metrics.json"),
    "no test": (lambda folder: (folder / "run.json").unlink(), (), "run.json"),
    "empty": (lambda folder: [path.unlink() for path in folder.iterdir() if path.is_file()], (), "test"),
    "gone": (shutil.rmtree, (), "test"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", SCORES)
def test_scores_that_do_not_go_with_it(what, settled, cli, home, tmp_path):
    change, more, words = SCORES[what]
    score = shutil.copytree(settled / "test-folds", tmp_path / "test")
    change(score)
    places = ("--chkPointDir", tmp_path / "ckpt", "--dataDir", home, "--outDir", tmp_path / "out")
    named = () if "--model" in more else ("--model", "nn")
    outcome = cli("--train", *named, "--everybody", "--score", score, *places, *more)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert words in outcome.err
    assert not (tmp_path / "ckpt").exists() and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_test_of_one_split_is_no_score_of_everybody(in_home, tmp_path):
    for job in ("--train", "--test"):
        assert in_home(tmp_path, job).status == 0
    outcome = in_home(tmp_path / "new", "--train", "--everybody", "--score", tmp_path / "test-split")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "is of one split, which leaves no score of everybody" in outcome.err


@pytest.mark.slow
def test_a_test_of_other_people_is_no_score(settled, in_home, cohort, tmp_path):
    outcome = in_home(
        tmp_path / "new", "--train", "--everybody", "--score", settled / "test-folds", "--dataDir", cohort
    )
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"is of other records than {cohort}; name a test on folds of these" in outcome.err


@pytest.mark.slow
def test_a_score_is_for_everybody_only(settled, in_home, tmp_path):
    outcome = in_home(tmp_path / "new", "--train", "--score", settled / "test-folds")
    assert (outcome.status, "--score goes with --everybody" in outcome.err) == (2, True)
    outcome = in_home(settled, "--test", "--everybody", "--score", settled / "test-folds")
    assert (outcome.status, "--score goes with --train, not with --test" in outcome.err) == (2, True)


def test_there_must_be_a_checkpoint_to_test(in_home, away, tmp_path):
    outcome = in_home(tmp_path / "new", "--test", "--everybody", "--dataDir", away)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "holds no checkpoint; make one: run.py --train --model nn" in outcome.err
    assert "--everybody" in outcome.err
