"""Folds and repeats: each is a plain run with another split or seed; killed, or in pieces, they come out the same."""

import json
import shutil
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import without_drawing
from helpers import SMALL, Page, assert_bit_equal, cohort_of, read_rows, requested, resealed, run_of
from sklearn.metrics import brier_score_loss, roc_auc_score

from data.base.effort import EFFORT
from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.folds import Folds, open_folds, read_folds
from data.cohorts.stored import open_cohort, write_tables
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.group import Group, repeated_run

pytestmark = pytest.mark.usefixtures("undrawn", "no_floors")


@pytest.fixture(scope="module")
def in_folds(cli, cohort):
    """`in_folds(folder, "nn", "3", "--test")` is a command line on folds of the small cohort, all of it in `folder`."""

    def run(folder, model, how, job, *more, data=cohort):
        named = job.strip("-")
        settings = ("--numIters", 4, *SMALL[model]) if job == "--train" else ()
        places = ("--chkPointDir", folder / "ckpt", "--dataDir", data, "--outDir", folder / named)
        return cli(job, "--model", model, "--folds", how, *places, *settings, *more)

    return run


@pytest.fixture(scope="module")
def tested(in_folds, tmp_path_factory):
    """The folder of a `nn` trained and tested on 3 folds."""
    folder = tmp_path_factory.mktemp("folds")
    for job in ("--train", "--test"):
        outcome = in_folds(folder, "nn", "3", job)
        assert outcome.status == 0, outcome.err
    return folder


def within_small_sites(table: pd.DataFrame) -> tuple[float, set[str]]:
    """The AUC of people of one site and fold by scikit-learn, and who has nobody of the other class there."""
    places = [of for _, of in table.groupby(["site", "fold"])]
    both = [of for of in places if of["label"].nunique() == 2]
    areas = [roc_auc_score(of["label"], of["probability"]) for of in both]
    alone = set(table["subject"]).difference(*(of["subject"] for of in both))
    return float(np.average(areas, weights=[*map(len, both)])), alone


@pytest.mark.slow
def test_everybody_is_tested_once_by_a_model_that_never_saw_them(tested, cohort):
    rows = read_rows(tested / "test" / "predictions.csv")
    assert list(rows[0]) == ["file", "subject", "site", "label", "probability", "fold"]
    assert sorted(row["subject"] for row in rows) == sorted(row.subject for row in open_cohort(cohort).rows)
    fold_of = {row["subject"]: row["fold"] for row in read_rows(tested / "ckpt" / "nn" / "folds-3" / "folds.csv")}
    assert all(row["fold"] == fold_of[row["subject"]] for row in rows)
    for name in ("0", "1", "2"):
        seen = CheckpointFolder(tested / "ckpt" / "nn" / "folds-3" / name).identity().training_subjects
        assert set(seen) == {subject for subject, fold in fold_of.items() if fold != name}


@pytest.mark.slow
def test_pooled_metrics_are_of_all_predictions(tested):
    table = pd.read_csv(tested / "test" / "predictions.csv")
    metrics = json.loads((tested / "test" / "metrics.json").read_text())
    assert metrics["auc"]["value"] == pytest.approx(roc_auc_score(table["label"], table["probability"]))
    assert metrics["brier"]["value"] == pytest.approx(brier_score_loss(table["label"], table["probability"]))
    of_fold = {str(name): roc_auc_score(part["label"], part["probability"]) for name, part in table.groupby("fold")}
    assert {name: values["auc"]["value"] for name, values in metrics["folds"].items()} == pytest.approx(of_fold)
    size = table["fold"].value_counts().sort_index()
    assert metrics["auc_folds"]["value"] == pytest.approx(np.average(list(of_fold.values()), weights=size))


@pytest.mark.slow
def test_a_test_leaves_what_the_contract_says(tested):
    figures = ("confusion_matrix", "roc", "calibration", "losses")  # no forest, for no AUC of so few has an interval
    assert {path.name for path in (tested / "test").iterdir()} == {
        *("run.json", "runs.csv", "predictions.csv", "floor_predictions.csv", "training.csv", "metrics.json"),
        *("groups.csv", "confounds.csv"),
        *("sites.csv", "floors.csv", "table1.csv", "report.html", "fold-0", "fold-1", "fold-2"),
        *(f"{name}.{form}" for name in figures for form in ("png", "svg")),
    }
    one = {path.name for path in (tested / "test" / "fold-0").iterdir()}
    assert "table1.csv" not in one and "roc.svg" in one
    floors = read_rows(tested / "test" / "floors.csv")
    assert floors[0]["floor"] == "model"
    assert {"majority", "regions, SVM"} <= {row["floor"] for row in floors}
    run = json.loads((tested / "test" / "run.json").read_text())
    assert (run["folds"], run["fold"], run["finished"]) == ("3", None, True)
    assert (run["prepared"]["scaled_by"], run["prepared"]["together"]) == ("fold", True)
    assert set(run["checkpoint_sha256"]) == {"0", "1", "2"}
    trained, entered = read_rows(tested / "runs.csv")
    assert (trained["job"], entered["job"], entered["metric"]) == ("train", "test", "auc_sites")
    headline = json.loads((tested / "test" / "metrics.json").read_text())["auc_sites"]
    assert headline["value"] == pytest.approx(within_small_sites(pd.read_csv(tested / "test/predictions.csv"))[0])
    assert float(entered["value"]) == pytest.approx(headline["value"], rel=1e-5)
    assert (headline["low"], headline["high"], entered["low"], entered["high"]) == (None, None, "", "")


@pytest.mark.slow
def test_a_fold_is_a_plain_run_on_a_cohort_with_that_split(tested, cohort, cli, tmp_path):
    fold = open_folds(cohort, "3", 0, tested / "ckpt" / "nn" / "folds-3").cohort("1")
    (tmp_path / "cut").mkdir()
    for index, (row, entry) in enumerate(zip(fold.rows, fold.entries, strict=True)):
        (tmp_path / "cut" / row.file).write_bytes(fold.header(index) + entry.read()[120:])
    write_tables(tmp_path / "cut", fold.rows, fold.metadata)
    places = ("--model", "nn", "--chkPointDir", tmp_path / "ckpt", "--dataDir", tmp_path / "cut")
    assert cli("--train", "--numIters", 4, *SMALL["nn"], *places).status == 0
    assert cli("--test", *places).status == 0
    alone = tmp_path / "results" / "nn-test" / "predictions.csv"
    assert alone.read_bytes() == (tested / "test" / "fold-1" / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_folds_in_pieces_give_the_same(tested, in_folds, tmp_path):
    for job in ("--train", "--test"):
        for name in ("2", "0", "1"):
            outcome = in_folds(tmp_path, "nn", "3", job, "--fold", name)
            assert outcome.status == 0, outcome.err
            assert ("Still to be done" in outcome.out) == (name != "1")
    for name in ("predictions.csv", "floor_predictions.csv", "metrics.json", "sites.csv", "floors.csv"):
        assert (tmp_path / "test" / name).read_bytes() == (tested / "test" / name).read_bytes(), name


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_what_was_lost_or_changed_is(tested, in_folds, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    first = copy / "test/fold-0/predictions.csv"
    written = first.stat().st_mtime_ns
    assert "Everything is done." in in_folds(copy, "nn", "3", "--test").out
    (copy / "test/report.html").unlink()
    with open(copy / "test/fold-1/predictions.csv", "a") as file:
        file.write("x")
    outcome = in_folds(copy, "nn", "3", "--test")
    assert outcome.status == 0, outcome.err
    assert ["done." in line for line in outcome.out.splitlines() if line.startswith("Fold ")] == [True, False, True]
    assert (copy / "test/report.html").is_file() and first.stat().st_mtime_ns == written
    for name in ("predictions.csv", "fold-1/predictions.csv"):
        assert (copy / "test" / name).read_bytes() == (tested / "test" / name).read_bytes()
    shutil.rmtree(copy / "train/fold-1")
    outcome = in_folds(copy, "nn", "3", "--train")
    assert (outcome.status, "Still to be done" in outcome.out) == (0, False), outcome.err
    assert_bit_equal(copy / "ckpt/nn/folds-3/1", tested / "ckpt/nn/folds-3/1")
    assert "Everything is done." in in_folds(copy, "nn", "3", "--train").out


@pytest.mark.slow
def test_more_iterations_continue_each_fold(in_folds, tested, tmp_path):
    shutil.copytree(tested, tmp_path / "copy")
    outcome = in_folds(tmp_path / "copy", "nn", "3", "--train", "--numIters", 6)
    assert outcome.status == 0, outcome.err
    assert outcome.out.count("at iteration 4") == 3
    outcome = in_folds(tmp_path / "copy", "nn", "3", "--test")
    assert outcome.status == 0, outcome.err
    assert "done." not in outcome.out
    assert (tmp_path / "copy/test/predictions.csv").read_bytes() != (tested / "test/predictions.csv").read_bytes()
    assert list((tmp_path / "copy/test/earlier").glob("*/predictions.csv"))


@pytest.mark.slow
def test_one_site_at_a_time_is_left_out(in_folds, cohort, tmp_path):
    sites = shutil.copytree(cohort, tmp_path / "sites")
    rows = read_rows(sites / "subjects.csv")
    for number, row in enumerate(rows):
        row["site"] = ("a/b", "..")[number % 2]
    pd.DataFrame(rows).to_csv(sites / "subjects.csv", index=False)
    resealed(sites)
    for job in ("--train", "--test"):
        outcome = in_folds(tmp_path, "nn", "site", job, data=sites)
        assert outcome.status == 0, outcome.err
    for row in read_rows(tmp_path / "test" / "predictions.csv"):
        assert row["fold"] == row["site"]


@pytest.mark.slow
def test_a_subject_moved_in_the_table_stops_the_run(tested, in_folds, tmp_path):
    shutil.copytree(tested, tmp_path / "copy")
    table = tmp_path / "copy/ckpt/nn/folds-3/folds.csv"
    first, second, *rest = table.read_text().splitlines()
    other = second.rpartition(",")[0] + "," + str((int(second[-1]) + 1) % 3)
    table.write_text("\n".join([first, other, *rest]) + "\n")
    outcome = in_folds(tmp_path / "copy", "nn", "3", "--test")
    assert outcome.status == 2
    assert "was trained on data with" in outcome.err


@pytest.mark.slow
def test_blackout_pools_the_effects_of_all_folds(in_folds, cohort, tmp_path):
    labels = np.zeros(records.REDUCED.shape, np.int16)
    labels[5:12, 10:25, 8:20], labels[18:25, 10:25, 8:20] = 1, 2
    nibabel.save(nibabel.Nifti1Image(labels, np.array(records.REDUCED.affine)), tmp_path / "atlas.nii")
    atlas = ("--atlas", tmp_path / "atlas.nii")
    for job, more in (("--train", ()), ("--blackout", (*atlas, "--donors", 1))):
        outcome = in_folds(tmp_path, "cnn", "2", job, *more)
        assert outcome.status == 0, outcome.err
    names = ("delta_logit", "reliance", "unique", "sufficiency", "probability", "subject")
    parts = [dict(h5py.File(tmp_path / f"blackout/fold-{name}/blackout.h5")) for name in "01"]
    with h5py.File(tmp_path / "blackout" / "blackout.h5") as pooled:
        for name in names:
            np.testing.assert_array_equal(pooled[name][()], np.concatenate([part[name][()] for part in parts]))
        means = {"background": pooled["delta_logit"][()].mean(0), "reliance": pooled["reliance"][()].mean(0)}
        regions = pooled["region"][()]
        people = pd.DataFrame({name: pooled[name][()] for name in ("label", "probability")})
        people["subject"] = [name.decode() for name in pooled["subject"]]
    table = {int(row["region"]): row for row in read_rows(tmp_path / "blackout/regions.csv")}
    for name, mean in means.items():
        assert [float(table[region][name]) for region in regions] == pytest.approx(mean, abs=1e-5)
    fold_of = read_folds(tmp_path / "ckpt/cnn/folds-2/folds.csv")
    site_of = {row.subject: row.site for row in open_cohort(cohort).rows}
    people["site"], people["fold"] = people["subject"].map(site_of), people["subject"].map(fold_of)
    area = within_small_sites(people)[0]
    assert f"AUC within sites on these subjects {area:.2f} (no interval: too few people): it is" in outcome.out
    assert json.loads((tmp_path / "blackout/run.json").read_text())["better_than_chance"] is None
    assert len(list((tmp_path / "blackout/maps").iterdir())) == 40


# Without TensorFlow, on runs made up


@pytest.fixture
def made_up(tmp_path):
    """`made_up("01", override=True)` is a group on the folds 0, 1 and 2, of which 0 and 1 are done."""

    def group(done: str, override: bool = False, **more) -> Group:
        folds = Folds("3", cohort_of(), "d" * 64, {})
        parts = tuple(replace(run_of(folder=tmp_path / f"fold-{name}"), folds=folds, fold=name) for name in "012")
        for part in parts:
            part.out_dir.mkdir(parents=True, exist_ok=True)
            part.write_manifest(finished=part.fold in done)
        whole = replace(run_of(folder=tmp_path), folds=folds, override=override)
        return Group(whole, parts, **more)

    return group


@pytest.mark.parametrize("done, words", [("", "folds 0, 1, 2"), ("1", "folds 0, 2"), ("02", "fold 1")])
def test_folds_that_are_missing_are_named(done, words, made_up, capsys):
    assert made_up(done).pool("cpu") == 0
    assert capsys.readouterr().out == f"Still to be done before the results are pooled: {words}.\n"


def test_one_fold_that_is_overridden_is_not_pooled(made_up, capsys):
    assert made_up("012", only="1", override=True).pool("cpu") == 0
    assert capsys.readouterr().out.startswith("Not pooled, since other folds may yet be overridden: repeat the command")


def test_what_is_done_is_known(made_up):
    group = made_up("012")
    assert not group.is_done()  # the pooled results are not there
    group.run.out_dir.mkdir()
    group.whole.write_manifest(finished=True)
    assert group.is_done() and group.nothing_to_do()
    assert not replace(group, run=replace(group.run, override=True)).nothing_to_do()
    assert not made_up("02").is_done()
    of_other_seed = tuple(replace(leaf, choices=replace(leaf.choices, seed=1)) for leaf in group.leaves)
    assert not replace(group, parts=of_other_seed).is_done()


@pytest.fixture(scope="module")
def on_folds(in_folds):
    """`on_folds(folder, "--train", "--repeats", 2)` is a command line of `nn` on two folds, all in `folder`."""
    return lambda folder, job, *more: in_folds(folder, "nn", "2", job, *more)


def made_up_floors(_fitting, _tables, _train, test, _num_maps) -> dict[str, np.ndarray]:
    """In place of fits, which take most of the time of a test."""
    return {"regions, SVM": test % 7 / 7, "phenotype, SVM": test % 5 / 5}


@pytest.fixture(scope="module")
def twice(on_folds, tmp_path_factory):
    """The folder of a `nn` trained and twice on two folds, twice, with the seeds 5 and 6, beside floors made up."""
    folder = tmp_path_factory.mktemp("repeats")
    with without_drawing() as patch:
        patch.setattr("utils.scores.floors.features", lambda *_: {})
        patch.setattr("utils.scores.floors.fitted", made_up_floors)
        patch.setattr(EFFORT, "calibrate_from", 5)
        for job, seed in (("--train", ("--seed", 5)), ("--test", ())):
            outcome = on_folds(folder, job, "--repeats", 2, *seed)
            assert outcome.status == 0, outcome.err
    return folder


@pytest.mark.slow
def test_a_repeat_is_a_plain_run_of_its_seed(twice, on_folds, tmp_path):
    assert on_folds(tmp_path, "--train", "--seed", 6, "--fold", 1).status == 0
    one, other = twice / "ckpt/nn/folds-2/repeat-1", tmp_path / "ckpt/nn/folds-2"
    assert (one / "folds.csv").read_bytes() == (other / "folds.csv").read_bytes()
    assert_bit_equal(one / "1", other / "1")
    assert read_folds(one / "folds.csv") != read_folds(one.with_name("repeat-0") / "folds.csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["predictions.csv", "floor_predictions.csv"])
def test_probabilities_are_means_over_the_repeats(name, twice):
    mean = pd.read_csv(twice / "test" / name).set_index("file")
    each = [pd.read_csv(twice / f"test/repeat-{at}" / name).set_index("file") for at in (0, 1)]
    assert "fold" in each[0] and "fold" not in mean
    for column in mean.select_dtypes("number"):
        for file, value in mean[column].items():
            assert value == pytest.approx((each[0][column][file] + each[1][column][file]) / 2, abs=1e-6)
    assert len(mean) == 40 and set(mean) == set(each[0]) - {"fold"}


@pytest.mark.slow
def test_mean_probabilities_are_calibrated_by_the_folds_of_the_first_repeat(twice):
    table, mean, first = (
        pd.read_csv(twice / "test" / name).set_index("file")
        for name in ("probabilities.csv", "predictions.csv", "repeat-0/predictions.csv")
    )
    assert table["fold"].equals(first["fold"][table.index]) and len(table) == 40
    np.testing.assert_allclose(table["probability"], mean["probability"][table.index])
    observed = pd.read_csv(twice / "test/calibration.csv")
    assert set(observed["group"].dropna()) == set(mean["site"])
    assert "Sets of labels" in Page((twice / "test/report.html").read_text()).headings


@pytest.mark.slow
def test_the_scores_of_each_repeat_are_those_of_its_predictions(twice):
    rows = read_rows(twice / "test/repeats.csv")
    assert [(row["repeat"], row["seed"]) for row in rows] == [("0", "5"), ("1", "6")]
    within = [float(row["auc_sites"]) for row in rows]
    for at, row in enumerate(rows):
        table = pd.read_csv(twice / f"test/repeat-{at}/predictions.csv")
        assert float(row["auc"]) == pytest.approx(roc_auc_score(table["label"], table["probability"]))
        of_fold = [roc_auc_score(fold["label"], fold["probability"]) for _, fold in table.groupby("fold")]
        area = np.average(of_fold, weights=table["fold"].value_counts().sort_index())
        assert float(row["auc_folds"]) == pytest.approx(area)
        assert float(row["auc_folds_low"]) <= area <= float(row["auc_folds_high"])
        floors = {floor["floor"]: floor for floor in read_rows(twice / f"test/repeat-{at}/floors.csv")}
        assert row["named_floor"] == "phenotype, SVM" and floors["phenotype, SVM"]["role"] == "named beforehand"
        assert within[at] == pytest.approx(within_small_sites(table)[0])
        less = within[at] - float(floors[row["named_floor"]]["auc_sites"])
        assert float(row["model_minus_floor_auc_sites"]) == pytest.approx(less, abs=1e-6)
    metrics = json.loads((twice / "test/metrics.json").read_text())
    assert metrics["auc_sites"]["value"] == pytest.approx(np.mean(within))
    page = Page((twice / "test/report.html").read_text())
    said = " ".join(page.paragraphs["Repeats"])
    assert "The test was done 2 times, each time on other folds and with other starts" in said
    assert f"was {min(within):.3f} to {max(within):.3f} (SD {np.std(within, ddof=1):.3f})" in said
    assert len(page.rows["Repeats"]) == 3
    assert (
        "cross-validated in 2 folds" in page.text and "This was done 2 times in all, each time with other" in page.text
    )


@pytest.mark.slow
def test_the_results_say_how_many_repeats_they_are_of(twice):
    run = json.loads((twice / "test/run.json").read_text())
    assert (run["repeats"], run["seed"], run["finished"]) == (2, 5, True)
    assert set(run["checkpoint_sha256"]) == {f"{fold}, repeat {repeat}" for fold in "01" for repeat in "01"}
    each = [within_small_sites(pd.read_csv(twice / f"test/repeat-{at}/predictions.csv")) for at in (0, 1)]
    area = np.mean([area for area, _ in each])
    assert f"AUC within sites is {area:.2f} (no interval: too few people)" in run["conclusion"]
    alone = len(each[0][1] & each[1][1])
    assert f"{alone} of 40 subjects have nobody of the other class there" in run["conclusion"]
    assert run["conclusion"].endswith("Each AUC is the mean over 2 repeats, of those that have one.")
    assert [row["folds"] for row in read_rows(twice / "runs.csv")] == ["2, 2 repeats"] * 2
    assert [row["folds"] for row in read_rows(twice / "test/runs.csv")] == ["2, repeat 0", "2, repeat 1"]


@pytest.mark.slow
def test_more_repeats_continue_fewer_also_in_pieces(twice, on_folds, tmp_path):
    copy = shutil.copytree(twice, tmp_path / "copy")
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
    assert_bit_equal(*(folder / "ckpt/nn/folds-2/repeat-1/1" for folder in (copy, twice)))
    again = copy / "ckpt/nn/folds-2/repeat-1/1"
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items() if path.parent != again)


# Without TensorFlow


@pytest.fixture
def made_of(cohort, tmp_path):
    """`made_of("--train --folds 3 --repeats 2")` is the run that a command line of `nn` makes."""

    def run(words: str, data=cohort) -> Group:
        return repeated_run(requested(f"{words} --dataDir {data} --chkPointDir {tmp_path}/ckpt --model nn"))

    return run


def test_numbered_folds_are_cut_anew_and_those_of_a_column_start_anew(made_of, capsys):
    numbered, sites = made_of("--train --folds 3 --repeats 2 --seed 4"), made_of("--train --folds SEX --repeats 2")
    cuts = [[repeat.folds.fold_of for repeat in run.groups] for run in (numbered, sites)]
    assert cuts[0][0] != cuts[0][1] and cuts[1][0] == cuts[1][1]
    assert capsys.readouterr().out.count("The repeats have the same folds, and differ in the networks' starts") == 1
    assert [[leaf.seed for leaf in repeat.leaves] for repeat in numbered.groups] == [[4] * 3, [5] * 3]
    for run, how in ((numbered, "3"), (sites, "SEX")):
        for at, repeat in enumerate(run.groups):
            assert repeat.run.checkpoints.path.relative_to(run.run.checkpoints.path).as_posix() == f"repeat-{at}"
            assert str(repeat.leaves[0].out_dir).startswith(f"results/nn-train-folds-{how}-repeats/repeat-{at}/fold-")


def test_a_fold_is_done_of_every_repeat(made_of):
    run = made_of("--train --folds 3 --repeats 2 --fold 1")
    assert [repeat.only for repeat in run.groups] == ["1", "1"] and run.only == "1"
    assert [leaf.fold for leaf in run.leaves] == ["0", "1", "2"] * 2
    assert run.missing() == "folds 0, 1, 2 of repeat 0; folds 0, 1, 2 of repeat 1"


def test_a_checkpoint_that_is_missing_is_named_with_the_command_that_makes_it(made_of):
    with pytest.raises(InputError, match=r"repeat-0/0 holds no checkpoint; make one: run.py .* --folds 3 --repeats 2$"):
        made_of("--test --folds 3 --repeats 2")


@pytest.mark.parametrize(
    "words, message",
    [
        ("--test --folds 3 --fold 7", "--fold 7 is none of the folds 0, 1, 2"),
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
