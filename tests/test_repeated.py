"""--repeats: each repeat is a plain run on folds with the next seed, more continue fewer, and the results are means."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import without_drawing
from helpers import SMALL, Page, assert_bit_equal, read_rows
from sklearn.metrics import roc_auc_score

from data.base.errors import InputError
from data.cohorts.folds import read_folds
from run import parser
from utils.jobs import JOBS
from utils.runs.group import Group, repeated_run
from utils.runs.validate import request
from utils.scores.results import RULE

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def on_folds(cli, cohort):
    """`on_folds(folder, "--train", "--repeats", 2)` is a command line of `nn` on two folds, all in `folder`."""

    def run(folder, job, *more):
        settings = ("--numIters", 2, *SMALL["nn"]) if job == "--train" else ()
        places = ("--chkPointDir", folder / "ckpt", "--dataDir", cohort, "--outDir", folder / job.strip("-"))
        return cli(job, "--model", "nn", "--folds", 2, *places, *settings, *more)

    return run


def made_up_floors(_fitting, _tables, _train, test, _num_maps) -> dict[str, np.ndarray]:
    """In place of fits, which take most of the time of a test."""
    return {"regions, SVM": test % 7 / 7, "phenotype, SVM": test % 5 / 5}


@pytest.fixture(scope="module")
def tested(on_folds, tmp_path_factory):
    """The folder of a `nn` trained and tested on two folds, twice, with the seeds 5 and 6, beside floors made up."""
    folder = tmp_path_factory.mktemp("repeats")
    with without_drawing() as patch:
        patch.setattr("utils.scores.floors.features", lambda *_: {})
        patch.setattr("utils.scores.floors.fitted", made_up_floors)
        patch.setattr("utils.scores.calibration.ENOUGH", 5)
        for job, seed in (("--train", ("--seed", 5)), ("--test", ())):
            outcome = on_folds(folder, job, "--repeats", 2, *seed)
            assert outcome.status == 0, outcome.err
    return folder


@pytest.mark.slow
def test_a_repeat_is_a_plain_run_of_its_seed(tested, on_folds, tmp_path):
    assert on_folds(tmp_path, "--train", "--seed", 6, "--fold", 1).status == 0
    one, other = tested / "ckpt/nn/folds-2/repeat-1", tmp_path / "ckpt/nn/folds-2"
    assert (one / "folds.csv").read_bytes() == (other / "folds.csv").read_bytes()
    assert_bit_equal(one / "1", other / "1")
    assert read_folds(one / "folds.csv") != read_folds(one.with_name("repeat-0") / "folds.csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["predictions.csv", "floor_predictions.csv"])
def test_probabilities_are_means_over_the_repeats(name, tested):
    mean = pd.read_csv(tested / "test" / name).set_index("file")
    each = [pd.read_csv(tested / f"test/repeat-{at}" / name).set_index("file") for at in (0, 1)]
    assert "fold" in each[0] and "fold" not in mean
    for column in mean.select_dtypes("number"):
        for file, value in mean[column].items():
            assert value == pytest.approx((each[0][column][file] + each[1][column][file]) / 2, abs=1e-6)
    assert len(mean) == 40 and set(mean) == set(each[0]) - {"fold"}


@pytest.mark.slow
def test_mean_probabilities_are_calibrated_by_the_folds_of_the_first_repeat(tested):
    table, mean, first = (
        pd.read_csv(tested / "test" / name).set_index("file")
        for name in ("probabilities.csv", "predictions.csv", "repeat-0/predictions.csv")
    )
    assert table["fold"].equals(first["fold"][table.index]) and len(table) == 40
    np.testing.assert_allclose(table["probability"], mean["probability"][table.index])
    observed = pd.read_csv(tested / "test/calibration.csv")
    assert set(observed["group"].dropna()) == set(mean["site"])
    assert "Sets of labels" in Page((tested / "test/report.html").read_text()).headings


@pytest.mark.slow
def test_the_scores_of_each_repeat_are_those_of_its_predictions(tested):
    rows = read_rows(tested / "test/repeats.csv")
    assert [(row["repeat"], row["seed"]) for row in rows] == [("0", "5"), ("1", "6")]
    within = [float(row["auc_sites"]) for row in rows]
    for at, row in enumerate(rows):
        table = pd.read_csv(tested / f"test/repeat-{at}/predictions.csv")
        assert float(row["auc"]) == pytest.approx(roc_auc_score(table["label"], table["probability"]))
        of_fold = [roc_auc_score(fold["label"], fold["probability"]) for _, fold in table.groupby("fold")]
        area = np.average(of_fold, weights=table["fold"].value_counts().sort_index())
        assert float(row["auc_folds"]) == pytest.approx(area)
        assert float(row["auc_folds_low"]) <= area <= float(row["auc_folds_high"])
        floors = {floor["floor"]: floor for floor in read_rows(tested / f"test/repeat-{at}/floors.csv")}
        assert row["best_floor"] == max(
            floors.keys() - {"model", "majority", RULE}, key=lambda name: float(floors[name]["auc_sites"])
        )
        less = within[at] - float(floors[row["best_floor"]]["auc_sites"])
        assert float(row["model_minus_floor_auc_sites"]) == pytest.approx(less, abs=1e-6)
    metrics = json.loads((tested / "test/metrics.json").read_text())
    assert metrics["auc_sites"]["value"] == pytest.approx(np.mean(within))
    page = Page((tested / "test/report.html").read_text())
    said = " ".join(page.paragraphs["Repeats"])
    assert "The test was done 2 times, each time on other folds and with other starts" in said
    assert f"was {min(within):.3f} to {max(within):.3f} (SD {np.std(within, ddof=1):.3f})" in said
    assert len(page.rows["Repeats"]) == 3
    assert (
        "cross-validated in 2 folds" in page.text and "This was done 2 times in all, each time with other" in page.text
    )


@pytest.mark.slow
def test_the_results_say_how_many_repeats_they_are_of(tested):
    run = json.loads((tested / "test/run.json").read_text())
    assert (run["repeats"], run["seed"], run["finished"]) == (2, 5, True)
    assert set(run["checkpoint_sha256"]) == {f"{fold}, repeat {repeat}" for fold in "01" for repeat in "01"}
    assert run["conclusion"].endswith("Each AUC is the mean over 2 repeats.")
    assert [row["folds"] for row in read_rows(tested / "runs.csv")] == ["2, 2 repeats"] * 2
    assert [row["folds"] for row in read_rows(tested / "test/runs.csv")] == ["2, repeat 0", "2, repeat 1"]


@pytest.mark.slow
def test_more_repeats_continue_fewer_also_in_pieces(tested, on_folds, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    kept = {path: path.stat().st_mtime_ns for path in copy.glob("ckpt/nn/folds-2/repeat-[01]/*/*")}
    outcome = on_folds(copy, "--train", "--repeats", 3, "--fold", 0)
    assert outcome.status == 0, outcome.err
    assert "Still to be done before the results are pooled: fold 1 of repeat 2.\n" in outcome.out
    assert outcome.out.count("Still to be done") == 1
    assert [line.endswith("done.") for line in outcome.out.splitlines() if line.startswith("Fold 0")] == [1, 1, 0]
    shutil.rmtree(copy / "train/repeat-1/fold-1")  # as if it had been killed before
    assert "Everything is done" not in on_folds(copy, "--train", "--repeats", 3).out
    assert "Everything is done" in on_folds(copy, "--train", "--repeats", 3).out
    assert json.loads((copy / "ckpt/nn/folds-2/repeat-2/1/run.json").read_text())["seed"] == 7
    assert_bit_equal(*(folder / "ckpt/nn/folds-2/repeat-1/1" for folder in (copy, tested)))
    again = copy / "ckpt/nn/folds-2/repeat-1/1"
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items() if path.parent != again)


# Without TensorFlow


@pytest.fixture
def settled(cohort, tmp_path):
    """`settled("--train --folds 3 --repeats 2")` is the run that a command line of `nn` makes."""

    def run(words: str, data=cohort) -> Group:
        top = parser()
        places = ["--dataDir", str(data), "--chkPointDir", str(tmp_path / "ckpt"), "--model", "nn"]
        args = top.parse_args([*words.split(), *places])
        given = {name for name, value in vars(args).items() if value != top.get_default(name)}
        return repeated_run(request(args, given, JOBS.values()))

    return run


def test_numbered_folds_are_cut_anew_and_those_of_a_column_start_anew(settled, capsys):
    numbered, sites = settled("--train --folds 3 --repeats 2 --seed 4"), settled("--train --folds SEX --repeats 2")
    cuts = [[repeat.folds.fold_of for repeat in run.groups] for run in (numbered, sites)]
    assert cuts[0][0] != cuts[0][1] and cuts[1][0] == cuts[1][1]
    assert capsys.readouterr().out.count("The repeats have the same folds, and differ in the networks' starts") == 1
    assert [[leaf.seed for leaf in repeat.leaves] for repeat in numbered.groups] == [[4] * 3, [5] * 3]
    for run, how in ((numbered, "3"), (sites, "SEX")):
        for at, repeat in enumerate(run.groups):
            assert repeat.run.checkpoints.path.relative_to(run.run.checkpoints.path).as_posix() == f"repeat-{at}"
            assert str(repeat.leaves[0].out_dir).startswith(f"results/nn-train-folds-{how}-repeats/repeat-{at}/fold-")


def test_a_fold_is_done_of_every_repeat(settled):
    run = settled("--train --folds 3 --repeats 2 --fold 1")
    assert [repeat.only for repeat in run.groups] == ["1", "1"] and run.only == "1"
    assert [leaf.fold for leaf in run.leaves] == ["0", "1", "2"] * 2
    assert run.missing() == "folds 0, 1, 2 of repeat 0; folds 0, 1, 2 of repeat 1"


def test_a_checkpoint_that_is_missing_is_named_with_the_command_that_makes_it(settled):
    with pytest.raises(InputError, match=r"repeat-0/0 holds no checkpoint; make one: run.py .* --folds 3 --repeats 2$"):
        settled("--test --folds 3 --repeats 2")


@pytest.mark.parametrize(
    "words, message",
    [
        ("--train --repeats 2", "--repeats 2 repeats a run on folds; say with --folds how they are cut."),
        (
            "--model cae --folds 2 --repeats 2",
            "--repeats 2 is not for the full pass, which is done once; leave it out.",
        ),
        ("--train --folds 2 --repeats 0", "argument --repeats: '0' is not allowed; expected a whole number from 1 to"),
        ("--train --folds 2 --repeats 2 --seed 4294967295", "--seed 4294967295 leaves no seeds for 2 repeats; use a"),
    ],
)
def test_mistakes(words, message, cli, cohort, tmp_path):
    model = () if "--model" in words else ("--model", "nn")
    outcome = cli(*words.split(), *model, "--chkPointDir", tmp_path / "c", "--dataDir", cohort)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert not list(tmp_path.iterdir())
