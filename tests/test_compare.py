"""abide-compare: differences by other means, what it says and refuses, and that it harms nobody's files."""

import hashlib
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import Outcome, Page, read_rows, run_main
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, roc_auc_score
from test_report import NAME, RUN, change, people, write_tables

from data.base import files
from data.base.errors import InputError
from utils.compare import runs

FINISHED = {"job": "test", "finished": True, "outputs": ["predictions.csv"], "step": None, "override": False}


def finished(folder: Path, table: pd.DataFrame, **run) -> Path:
    """A folder as a finished test leaves it, with the digest of its predictions."""
    write_tables(folder, table, **FINISHED | run)
    sha256 = hashlib.sha256((folder / "predictions.csv").read_bytes()).hexdigest()
    change(folder, outputs_sha256={"predictions.csv": sha256})
    return folder


def two_folds(count: int) -> pd.DataFrame:
    """People of both classes, about as many of each at each site in each fold: whole sites may be compared."""
    table = people(count)
    return table.assign(fold=(table["subject"].astype(int) // 6 % 2).astype(str))


def predicted(table: pd.DataFrame, seed: int, effect: float) -> pd.DataFrame:
    """The same people, predicted by another classifier."""
    label = table["label"].astype(float)
    probability = 1 / (1 + np.exp(-np.random.default_rng(seed).normal(effect * (label - 0.5), 1)))
    return table.assign(probability=probability.round(4))


def compare(*words: object) -> Outcome:
    return run_main("utils.compare.__main__", "compare", words)


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """Runs of 160 people in five folds: a, which knows much, and b, which guesses."""
    table = people(160, folds=5)
    a, b = (finished(tmp_path / name, predicted(table, at, 3 * (not at)), folds="5") for at, name in enumerate("ab"))
    change(b, preset="regions", seed=4)
    return a, b


def within(table: pd.DataFrame, group: str) -> float:
    """scikit-learn's AUC of each group, averaged by records."""
    values = [(roc_auc_score(of["label"].astype(int), of["probability"]), len(of)) for _, of in table.groupby(group)]
    return float(np.average([value for value, _ in values], weights=[size for _, size in values]))


@pytest.mark.slow
def test_the_rows_hold_what_scikit_learn_finds(two, tmp_path):
    assert compare(*two).status == 0
    (row,) = read_rows(tmp_path / "results/compare/compare.csv")
    found = {name: float(value) for name, value in row.items() if name not in ("a", "b", "conclusion", "by")}
    assert (row["a"], row["b"], row["conclusion"], row["by"]) == (*map(str, two), "a is better", "auc_sites")
    one, other = (pd.read_csv(folder / "predictions.csv") for folder in two)
    areas = {
        "auc": [roc_auc_score(table["label"], table["probability"]) for table in (one, other)],
        "auc_sites": [within(table, "site") for table in (one, other)],
        "auc_folds": [within(table, "fold") for table in (one, other)],
        "brier": [brier_score_loss(table["label"], table["probability"]) for table in (one, other)],
    }
    for name, (mine, its) in areas.items():
        assert (found[f"{name}_a"], found[f"{name}_b"]) == pytest.approx((mine, its))
        assert found[f"a_minus_b_{name}"] == pytest.approx(mine - its)
        assert found[f"a_minus_b_{name}_low"] < mine - its < found[f"a_minus_b_{name}_high"]
    assert (found["subjects"], found["records"]) == (one["subject"].nunique(), 160)


@pytest.mark.usefixtures("all_resamples")
def test_intervals_are_those_of_a_paired_bootstrap_within_folds_by_loop(tmp_path):
    """40 people, each with one record; resamples differ by chance, hence the tolerance. AUCs are counted by pairs, as
    scikit-learn does, though it takes a hundred times as long."""
    table = two_folds(40).assign(subject=[str(at) for at in range(40)], site="NYU")
    one, other = (predicted(table, at, effect) for at, effect in enumerate((2, 1)))
    opened = runs.opened(
        [finished(tmp_path / name, of, folds="2") for name, of in zip("ab", (one, other), strict=True)]
    )
    less = runs.pairs(opened)[0].less
    random, spread = np.random.default_rng(9), []
    label, fold = table["label"].astype(int).to_numpy(), table["fold"].to_numpy()

    def area(label: np.ndarray, values: np.ndarray) -> float:
        higher = values[label == 1][:, None] - values[label == 0]
        return float((higher > 0).mean() + (higher == 0).mean() / 2)

    values = one["probability"].to_numpy()
    assert area(label, values) == pytest.approx(roc_auc_score(label, values))
    for _ in range(1000):
        rows = np.concatenate([random.choice(np.flatnonzero(fold == name), (fold == name).sum()) for name in "01"])
        drawn = [of["probability"].to_numpy()[rows] for of in (one, other)]
        spread.append(
            {
                "auc": np.subtract(*(area(label[rows], values) for values in drawn)),
                "brier": np.subtract(*(np.square(label[rows] - values).mean() for values in drawn)),
            }
        )
    for name in ("auc", "brier"):
        at = less[name].value
        ends = at + math.sqrt(2) * (np.percentile([values[name] for values in spread], [2.5, 97.5]) - at)
        assert (less[name].low, less[name].high) == pytest.approx(tuple(ends), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    "effects, count, said",
    [
        ((3, 0), 160, "0 (A) is better than 1 (B): AUC within sites of A minus that of B 0."),
        ((0, 3), 160, "1 (B) is better than 0 (A): AUC within sites of A minus that of B -0."),
        ((1, 1), 160, "0 (A) and 1 (B) are level: AUC within sites of A minus that of B "),
        ((3, 0), 18, "It is unknown which of 0 (A) and 1 (B) is better: AUC within sites of A minus that of B 0."),
    ],
)
def test_the_sentence_follows_from_the_interval(effects, count, said, tmp_path):
    table = two_folds(count)
    folders = [finished(tmp_path / str(at), predicted(table, at, of), folds="2") for at, of in enumerate(effects)]
    outcome = compare(*folders)
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[:2] == [f"A: {folders[0]}", f"B: {folders[1]}"] and lines[2].startswith(said)
    assert lines[3:] == ["Comparison: results/compare/compare.html"]
    page = Page(Path("results/compare/compare.html").read_text())
    assert page.paragraphs["What may be concluded"] == [lines[2]]
    dots = page.attributes.count(("class", "dot"))  # of both runs, and of their difference
    assert (dots, "no interval: too few people" in page.text) == ((0, True) if count < 20 else (3, False))


def test_what_is_undefined_is_unknown(tmp_path):
    """One class at each site; a classifier that says the same of all."""
    table = people(60).assign(label=lambda of: (of["site"] == "NYU").astype(int).astype(str), probability=0.5)
    outcome = compare(finished(tmp_path / "a", table), finished(tmp_path / "b", predicted(table, 0, 1)))
    assert "is better: the AUC within sites is undefined, since no site has people of both classes." in outcome.out
    (row,) = read_rows(Path("results/compare/compare.csv"))
    assert row["conclusion"] == "unknown"


@pytest.mark.slow
def test_the_intervals_of_three_pairs_hold_together(two, tmp_path):
    shutil.copytree(two[1], tmp_path / "c")
    outcome = compare(*two, tmp_path / "c", "--outDir", tmp_path / "out")
    assert "b (B) and c (C) are level: AUC within sites of B minus that of C 0.000 (0.000 to 0.000" in outcome.out
    assert "The 3 intervals of differences hold for all 3 pairs together" in outcome.out
    assert compare(*two, "--outDir", tmp_path / "alone").status == 0
    of_one, of_three = (read_rows(tmp_path / name / "compare.csv")[0] for name in ("alone", "out"))
    assert (of_one["among"], of_three["among"]) == ("1", "3")
    for name in ("auc_sites", "auc"):
        value, *ends = (float(of_one[f"a_minus_b_{name}{end}"]) for end in ("", "_low", "_high"))
        wider = [value + norm.ppf(1 - 0.025 / 3) / norm.ppf(0.975) * (end - value) for end in ends]
        assert [float(of_three[f"a_minus_b_{name}{end}"]) for end in ("_low", "_high")] == pytest.approx(
            wider, abs=1e-6
        )
    page = Page((tmp_path / "out/compare.html").read_text())
    assert [row[0] for row in page.rows["Differences"][1:]] == ["A minus B", "A minus C", "B minus C"]


@pytest.mark.slow
def test_the_page_has_the_scores_and_what_differs(two):
    assert compare(*two).status == 0
    page = Page(Path("results/compare/compare.html").read_text())
    (row,) = read_rows(Path("results/compare/compare.csv"))
    heads, mine, _ = page.rows["The runs"]
    assert heads[:4] == ["run", "folder", "model", "AUC within sites"]
    assert mine[:3] == ["A", str(two[0]), "mmnn, residual"] and mine[3].startswith(f"{float(row['auc_sites_a']):.3f} (")
    ends = [float(row[f"a_minus_b_auc_sites{end}"]) for end in ("", "_low", "_high")]
    assert page.rows["Differences"][1][1] == "{:.3f} ({:.3f} to {:.3f})".format(*ends)
    assert page.rows["What differs between the runs"] == [
        ["what", "A", "B"],
        ["preset", "residual", "regions"],
        ["seed", "3", "4"],
    ]
    drawn = [value for name, value in page.attributes if name == "class" and value == "forest"]
    assert len(drawn) == 2
    assert page.terms[:3] == [
        *(f"AUC within sites, 95% interval: {name}" for name in ("a (A)", "b (B)")),
        "difference, 95% interval: A minus B",
    ]


@pytest.mark.slow
def test_other_maps_settings_and_code_are_rows_and_caveats_are_warnings(two):
    config = RUN["config"] | {"l1": 0.1}
    change(two[1], config=config, cohort_sha256=64 * "f", maps=["falff", "alff"], git_commit=None, transductive=True)
    compare(*two)
    page = Page(Path("results/compare/compare.html").read_text())
    rows = {row[0]: row[1:] for row in page.rows["What differs between the runs"]}
    assert rows["setting l1"] == ["-", "0.1"] and rows["maps"] == ["-", "falff, alff"]
    assert rows["cohort, SHA-256"] == [64 * "a", 64 * "f"] and rows["commit of the program"] == [40 * "c", "-"]
    (warning,) = page.paragraphs["Warnings"]
    assert warning.startswith("B: TRANSDUCTIVE: ") and "Comparison of 2 tests (TRANSDUCTIVE)" in page.text


@pytest.mark.slow
def test_equal_runs_differ_in_nothing(two, tmp_path):
    compare(two[0], shutil.copytree(two[0], tmp_path / "copy"))
    page = Page(Path("results/compare/compare.html").read_text())
    assert page.paragraphs["What differs between the runs"][0].startswith("Nothing of what")


def repeated(folder: Path, tables: list[pd.DataFrame], **run) -> Path:
    """A test with repeats, whose folds differ."""
    mean = np.mean([table["probability"] for table in tables], axis=0)
    finished(folder, tables[0].drop(columns="fold").assign(probability=mean), **run, folds="5", repeats=len(tables))
    for at, table in enumerate(tables):
        finished(folder / f"repeat-{at}", table, folds="5", **run)
    return folder


@pytest.fixture
def both_repeated(tmp_path) -> tuple[Path, Path]:
    """Two runs with two repeats, whose second one is cut otherwise."""
    table = people(160, folds=5)
    again = table.assign(fold=(table["subject"].astype(int) // 2 % 4).astype(str))
    cuts = [(table, again)] * 2
    return tuple(
        repeated(
            tmp_path / f"{name}-repeats", [predicted(cut, 10 * at + number, 2 - at) for number, cut in enumerate(of)]
        )
        for at, (name, of) in enumerate(zip("ab", cuts, strict=True))
    )


@pytest.mark.slow
def test_scores_of_repeats_are_means(both_repeated):
    assert compare(*both_repeated).status == 0
    (row,) = read_rows(Path("results/compare/compare.csv"))
    means = []
    for folder in both_repeated:
        tables = [pd.read_csv(folder / f"repeat-{at}/predictions.csv") for at in (0, 1)]
        means.append(np.mean([within(table, "site") for table in tables]))
    assert float(row["a_minus_b_auc_sites"]) == pytest.approx(means[0] - means[1])
    page = Page(Path("results/compare/compare.html").read_text())
    assert "Each score is the mean over 2 repeats." in page.paragraphs["Differences"]


@pytest.mark.slow
def test_repeats_are_not_compared_with_a_single_run_but_one_of_them_is(both_repeated, two):
    refused = compare(both_repeated[0], two[1])
    assert refused.status == 2 and "only A has record 0.bin" in refused.err
    assert "repeat 1 (160 such rows)" in refused.err and "repeat-0 may stand beside a single test" in refused.err
    assert compare(both_repeated[0] / "repeat-0", two[1]).status == 0


def test_a_repeat_that_is_cut_otherwise_is_told(both_repeated):
    path = both_repeated[1] / "repeat-1"
    table = pd.read_csv(path / "predictions.csv", dtype=str)
    finished(path, table.assign(fold=table["fold"].map({"0": "1", "1": "0"}).fillna(table["fold"])), folds="5")
    outcome = compare(*both_repeated)
    assert outcome.status == 2 and "only A has record 0.bin of subject 0, control, site NYU" in outcome.err
    finished(path, table.assign(site="NYU"), folds="5")
    assert "only B has record 10.bin of subject 10, control, site NYU" in compare(*both_repeated).err


def another(**columns):
    """Writes predictions with other columns as a test would."""

    def apply(folder: Path) -> None:
        finished(folder, people(160, folds=5).assign(**columns), folds="5")

    return apply


def first_is(label: str):
    """The first record has another label."""
    return another(label=lambda table: [label, *table["label"][1:]])


def without(*files: str):
    def apply(folder: Path) -> None:
        table = people(160, folds=5)
        finished(folder, table[~table["file"].isin(files)], folds="5")

    return apply


def truncate(at_a_line: bool):
    """Cuts off the end of the predictions."""

    def apply(folder: Path) -> None:
        text = (folder / "predictions.csv").read_text()
        (folder / "predictions.csv").write_text(text[: text.rindex("\n", 0, 3000) + 1] if at_a_line else text[:-10])

    return apply


MISTAKES = {  # what is wrong with b, and what is said of it
    "people": (without("1.bin", "3.bin", "5.bin"), "only A has record 1.bin of subject 1, autism,", "(3 such rows)"),
    "names exchanged": (
        another(file=lambda table: ["1.bin", "0.bin", *table["file"][2:]]),
        "only A has record 0.bin of subject 0,",
        "(4 such rows)",
    ),
    "label": (first_is("1"), "record 0.bin of subject 0, autism, site NYU", "(2 such rows)"),
    "unknown label": (first_is(""), "only A has record 0.bin of subject 0, control,", "(2 such rows)"),
    "site": (another(site="NYU"), "record 10.bin of subject 10,", "differ in people, labels, sites"),
    "fold": (
        another(fold=lambda table: (table["subject"].astype(int) // 4 % 4).astype(str)),
        "fold ",
        "same folds, seed",
    ),
    "no fold": (lambda folder: finished(folder, people(160), folds="5"), "folds: 5, fold 0,", "(320 such rows)"),
    "other cut": (lambda folder: change(folder, folds="site"), "folds: 5, fold 0,", "(320 such rows)"),
    "one split": (lambda folder: change(folder, folds=None), "folds: 5, fold 0,", "(320 such rows)"),
    "one fold": (lambda folder: change(folder, fold="1"), "folds: 5", "(320 such rows)"),
    "no label": (another(label=""), "has no known label", "nothing can be compared"),
    "autoencoder": (lambda folder: change(folder, model="cae"), "b holds a test of cae", "expected the folder of a"),
    "no model": (lambda folder: change(folder, model="x"), "b holds a test of x", "expected"),
    "training": (lambda folder: change(folder, job="train"), "b holds a train of mmnn", "expected the folder"),
    "unfinished": (lambda folder: change(folder, finished=False), "b: the run is not finished", "Repeat its command"),
    "truncated at a line": (truncate(True), "predictions.csv is not as it was written", "Repeat the run"),
    "truncated": (truncate(False), "predictions.csv is not as it was written", "Repeat the run"),
    "no predictions": (lambda folder: (folder / "predictions.csv").unlink(), "predictions.csv is not as", "Repeat"),
    "a record twice": (another(file="0.bin"), "differ in people", "record"),
    "no run.json": (lambda folder: (folder / "run.json").unlink(), "b: the run is not finished", "expected"),
    "damaged run.json": (lambda folder: (folder / "run.json").write_text("{"), "is not finished", "Repeat its command"),
    "not there": (shutil.rmtree, "b: the run is not there", "expected the folder of a classifier's finished"),
    "a repeat is missing": (lambda folder: change(folder, repeats=2), "b/repeat-0: the run is not there", "expected"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(mistake, two):
    change_of, *told = MISTAKES[mistake]
    another()(two[0])
    another()(two[1])
    change_of(two[1])
    outcome = compare(*two)
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("abide-compare: error: ") and all(word in outcome.err for word in told)
    assert not Path("results").exists()


def test_a_test_that_still_runs_is_no_one_to_repeat(two):
    for write in (lambda: change(two[1], finished=False), lambda: (two[1] / "run.json").unlink()):
        write()
        with files.locked(two[1]):
            two[1].with_name(".b.lock").write_text("process 1 on a (run.py --test)")
            outcome = compare(*two)
        assert outcome.status == 2
        assert "still runs, as process 1 on a (run.py --test); wait for it to end" in outcome.err
        assert "Repeat its command" not in outcome.err


def test_too_few_too_many_and_the_same(two, tmp_path):
    assert "nothing to compare" in compare(two[0]).err
    assert "11 runs were named; expected 10 at most" in compare(*[two[0]] * 11).err
    (tmp_path / "link").symlink_to(two[0])
    assert f"{two[0]} and {tmp_path / 'link'} are the same folder" in compare(two[0], tmp_path / "link").err


def test_both_of_simulated_people_are_compared_and_marked(two):
    for folder in two:
        change(folder, simulated=True)
    outcome = compare(*two)
    assert outcome.status == 0 and f"A: {two[0]} (SIMULATED)\n" in outcome.out
    page = Page(Path("results/compare/compare.html").read_text())
    assert [text[:12] for text in page.paragraphs["Warnings"]] == ["A: SIMULATED", "B: SIMULATED"]


@pytest.mark.slow
def test_records_of_unknown_label_take_no_part(two):
    for folder in two:
        table = pd.read_csv(folder / "predictions.csv", dtype=str)
        table.loc[:9, "label"] = ""
        finished(folder, table.fillna(""), folds="5")
    assert compare(*two).status == 0
    (row,) = read_rows(Path("results/compare/compare.csv"))
    assert row["records"] == "150"


@pytest.mark.slow
def test_names_that_are_markup_or_formulas_are_text(tmp_path):
    table = people(80).assign(site=lambda of: of["site"].replace({"NYU": NAME, "PITT": "=cmd|' /C calc'!A0"}))
    table["subject"] = table["subject"] + NAME
    folders = [finished(tmp_path / f"<b>{name}&$x_{{$", predicted(table, at, 1)) for at, name in enumerate("ab")]
    change(folders[1], config={"<script>": "</script><script>alert(2)</script>"}, cohort=NAME)
    assert compare(*folders).status == 0
    page = Page(Path("results/compare/compare.html").read_text())
    assert len(page.scripts) == 1 and "alert" not in page.scripts[0] and "b" not in page.tags
    assert page.rows["The runs"][1][1] == str(folders[0])
    table["subject"] = table["subject"] + "other"
    finished(folders[1], table)
    outcome = compare(*folders)
    assert outcome.err.count("\n") == 1 and "(160 such rows)" in outcome.err


def contents(*folders: Path) -> dict[Path, tuple[bytes, int]]:
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.mark.slow
def test_runs_are_left_alone_and_an_earlier_comparison_is_replaced(two, tmp_path):
    before = contents(*two)
    out = tmp_path / "out"
    assert compare(*two, "--outDir", out).status == 0
    first = (out / "compare.html").read_text()
    (out / "notes.txt").write_text("mine")
    assert compare(*reversed(two), "--outDir", out).status == 0
    assert sorted(path.name for path in out.iterdir()) == [*("compare.csv", "compare.html", "notes.txt", "run.json")]
    assert (out / "compare.html").read_text() != first and (out / "notes.txt").read_text() == "mine"
    assert contents(*two) == before


@pytest.mark.parametrize("place", ["a", "a/new", "a/repeat-0", "b"])
def test_a_folder_of_a_run_or_in_one_is_refused(place, two, tmp_path):
    before = contents(*two)
    outcome = compare(*two, "--outDir", tmp_path / place)
    assert outcome.status == 2 and "a folder of results; keep results" in outcome.err
    assert contents(*two) == before and not (tmp_path / "a/new").exists()


def test_a_folder_that_another_program_wrote_is_refused(two, tmp_path):
    third = shutil.copytree(two[1], tmp_path / "third")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/compare.csv").write_text("mine")
    before = contents(third, tmp_path / "mine")
    assert "holds the results of another run (test of mmnn), this one is compare of runs" in (
        compare(*two, "--outDir", third).err
    )
    assert "holds compare.csv, and no run.json" in compare(*two, "--outDir", tmp_path / "mine").err
    assert "is a file; name a folder" in compare(*two, "--outDir", tmp_path / "mine/compare.csv").err
    assert contents(third, tmp_path / "mine") == before


@pytest.mark.slow
def test_a_comparison_is_no_run(two):
    assert compare(*two).status == 0
    assert "holds a compare of runs; expected" in compare(two[0], "results/compare").err


def test_a_run_is_opened_by_its_file_names_in_any_order(two):
    table = pd.read_csv(two[1] / "predictions.csv", dtype=str)
    finished(two[1], table.iloc[::-1], folds="5")
    one, other = runs.opened(two)
    assert one.known.index.equals(other.known.index)
    with pytest.raises(InputError, match="is not there"):
        runs.read("A", "a", two[0] / "nothing")
