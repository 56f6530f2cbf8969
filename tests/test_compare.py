"""abide-compare: differences by other means, whom it compares, and that it harms nobody's files."""

import json
import math
import shutil
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, listing, refused
from oracles import within
from scipy.stats import norm
from sklearn.metrics import brier_score_loss, roc_auc_score

pytestmark = pytest.mark.slow
HOSTILE = "</script><script>alert(1)</script>$x_{$ & <b>額"


def people(count: int = 160, folds: int = 5) -> pd.DataFrame:
    """People of three sites, a few of whom have two records, in folds that hold both classes of each site."""
    at = np.arange(count)
    subject = at - 2 * (at % 20 == 2)
    columns = {"file": [f"{number}.bin" for number in at], "subject": subject.astype(str)}
    columns |= {"site": np.array(["NYU", "PITT", "UCLA"])[subject // 2 % 3], "label": (at % 2).astype(str)}
    return pd.DataFrame(columns).assign(fold=(subject // 6 % folds).astype(str))


def predicted(table: pd.DataFrame, seed: int, effect: float) -> pd.DataFrame:
    """The same people by a classifier that knows as much as the effect, with some ties."""
    value = np.random.default_rng(seed).normal(effect * (table["label"].astype(float) - 0.5), 1)
    return table.assign(probability=(1 / (1 + np.exp(-value))).round(2))


@pytest.fixture
def folder(on_folds, tmp_path):
    """`folder("a", table)` is that of a test of these predictions."""

    def make(name: str, table: pd.DataFrame, **said: object) -> Path:
        return lab.tested(on_folds / "test", tmp_path / name, table, **{"folds": "5", "warnings": [], **said})

    return make


@pytest.fixture
def two(folder) -> tuple[Path, Path]:
    """A test that knows much, and one that guesses."""
    return folder("a", predicted(people(), 0, 3)), folder("b", predicted(people(), 1, 0), preset="regions", seed=4)


def compared(*runs: Path, to: str = "out") -> pd.DataFrame:
    done("abide-compare {runs} --outDir {to}".replace("{runs}", " ".join(map(str, runs))), to=to)
    return pd.read_csv(f"{to}/compare.csv")


def test_scores_and_differences_are_those_of_scikit_learn(two):
    (row,) = compared(*two).to_dict("records")
    assert (row["a"], row["b"], row["conclusion"], row["by"]) == (*map(str, two), "a is better", "auc_sites")
    tables = [pd.read_csv(of / "predictions.csv") for of in two]
    areas = {
        "auc": [roc_auc_score(of["label"], of["probability"]) for of in tables],
        "auc_sites": [within(of, "site") for of in tables],
        "auc_folds": [within(of, "fold") for of in tables],
        "brier": [brier_score_loss(of["label"], of["probability"]) for of in tables],
    }
    for name, (mine, its) in areas.items():
        assert (row[f"{name}_a"], row[f"{name}_b"]) == pytest.approx((mine, its))
        assert row[f"a_minus_b_{name}"] == pytest.approx(mine - its)
        assert row[f"a_minus_b_{name}_low"] < mine - its < row[f"a_minus_b_{name}_high"]
    assert (row["subjects"], row["records"]) == (152, 160)


def test_intervals_are_those_of_a_paired_bootstrap_within_folds_by_loop(folder, effort):
    """40 people with one record each; resamples differ by chance, hence the tolerance."""
    effort(resamples=2000)
    table = people(40, folds=2).assign(subject=[str(at) for at in range(40)], site="NYU")
    one, other = predicted(table, 0, 2), predicted(table, 1, 1)
    (row,) = compared(folder("a", one, folds="2"), folder("b", other, folds="2")).to_dict("records")
    random, spread = np.random.default_rng(9), []
    label, fold = table["label"].astype(int).to_numpy(), table["fold"].to_numpy()

    def area(label: np.ndarray, values: np.ndarray) -> float:
        higher = values[label == 1][:, None] - values[label == 0]
        return float((higher > 0).mean() + (higher == 0).mean() / 2)

    for _ in range(1000):
        rows = np.concatenate([random.choice(np.flatnonzero(fold == name), (fold == name).sum()) for name in "01"])
        drawn = [of["probability"].to_numpy()[rows] for of in (one, other)]
        auc = np.subtract(*(area(label[rows], values) for values in drawn))
        spread.append({"auc": auc, "brier": np.subtract(*(np.square(label[rows] - of).mean() for of in drawn))})
    for name in ("auc", "brier"):
        at = row[f"a_minus_b_{name}"]
        ends = at + math.sqrt(2) * (np.percentile([values[name] for values in spread], [2.5, 97.5]) - at)
        found = row[f"a_minus_b_{name}_low"], row[f"a_minus_b_{name}_high"]
        assert found == pytest.approx(tuple(ends), abs=0.03)


@pytest.mark.parametrize(
    "effects, count, conclusion",
    [
        ((3, 0), 160, "a is better"),
        ((1, 1), 160, "level"),
        ((3, 0), 18, "unknown"),  # no interval
    ],
)
def test_the_conclusion_follows_from_the_interval(effects, count, conclusion, folder):
    table = people(count, folds=2)
    runs = [folder(str(at), predicted(table, at, of), folds="2") for at, of in enumerate(effects)]
    (row,) = compared(*runs).to_dict("records")
    assert row["conclusion"] == conclusion
    assert pd.isna(row["a_minus_b_auc_sites_low"]) == (conclusion == "unknown")
    assert Path("out/compare.html").read_text().count('class="dot"') == (0 if conclusion == "unknown" else 3)


def test_where_each_site_has_one_class_all_is_unknown(folder):
    table = people().assign(label=lambda of: (of["site"] == "NYU").astype(int).astype(str))
    (row,) = compared(folder("a", predicted(table, 0, 1)), folder("b", table.assign(probability=0.5))).to_dict(
        "records"
    )
    assert row["conclusion"] == "unknown" and pd.isna(row["auc_sites_a"])


def test_the_intervals_of_three_pairs_hold_together(two, tmp_path):
    runs = (*two, shutil.copytree(two[1], tmp_path / "c"))
    alone, together = compared(*two, to="alone"), compared(*runs)
    assert [*alone["among"], *together["among"]] == [1, 3, 3, 3]
    equal = together.iloc[2]
    assert equal["conclusion"] == "level" and equal["a_minus_b_auc_sites"] == equal["a_minus_b_auc_sites_low"] == 0
    for name in ("auc_sites", "auc"):
        value, *ends = (alone.loc[0, f"a_minus_b_{name}{end}"] for end in ("", "_low", "_high"))
        wider = [value + norm.ppf(1 - 0.025 / 3) / norm.ppf(0.975) * (end - value) for end in ends]
        found = [together.loc[0, f"a_minus_b_{name}{end}"] for end in ("_low", "_high")]
        assert found == pytest.approx(wider, abs=1e-6)
    said = json.loads(Path("out/run.json").read_text())["conclusions"]
    assert len(said) == 4 and said[2].startswith("b (B) and c (C) are level") and "3 pairs together" in said[3]


def repeated(folder, name: str, tables: list[pd.DataFrame]) -> Path:
    """A test with repeats, whose folds differ."""
    mean = np.mean([table["probability"] for table in tables], axis=0)
    made = folder(name, tables[0].drop(columns="fold").assign(probability=mean), repeats=len(tables))
    for at, table in enumerate(tables):
        folder(f"{name}/repeat-{at}", table)
    return made


def test_scores_of_repeats_are_means_and_one_of_them_may_stand_beside_a_single_test(folder, two):
    cuts = [people(), people(folds=4)]
    runs = [
        repeated(folder, name, [predicted(cut, 10 * at + number, 2 - at) for number, cut in enumerate(cuts)])
        for at, name in enumerate(("one", "other"))
    ]
    (row,) = compared(*runs).to_dict("records")
    means = [
        np.mean([within(pd.read_csv(of / f"repeat-{at}/predictions.csv"), "site") for at in (0, 1)]) for of in runs
    ]
    assert row["a_minus_b_auc_sites"] == pytest.approx(means[0] - means[1])
    told = refused("abide-compare {a} {b} --outDir {to}", "only A has", a=runs[0], b=two[1], to="missing")
    assert "repeat 1 (160 such rows)" in told and "repeat-0" in told
    assert len(compared(runs[0] / "repeat-0", two[1])) == 1
    shutil.rmtree(runs[1] / "repeat-1")
    folder("other/repeat-1", predicted(cuts[0], 11, 1))
    refused("abide-compare {a} {b} --outDir {to}", "only A has", "repeat 1", a=runs[0], b=runs[1], to="missing")


OTHERS = {  # what is otherwise in b, and what is said of it
    "people": (lambda of: of[~of["file"].isin(["1.bin", "3.bin"])], {}, "only A has record 1.bin", "(2 such rows)"),
    "label": (lambda of: of.assign(label=["1", *of["label"][1:]]), {}, "subject 0, autism", "(2 such rows)"),
    "unknown": (lambda of: of.assign(label=["", *of["label"][1:]]), {}, "only A has", "(2 such rows)"),
    "site": (lambda of: of.assign(site="NYU"), {}, "record 10.bin of subject 10,", "sites"),
    "fold": (lambda of: of.assign(fold=people(folds=4)["fold"]), {}, "fold ", "same cohort, folds"),
    "other cut": (lambda of: of, {"folds": "site"}, "folds: 5, fold 0,", "(320 such rows)"),
    "no label": (lambda of: of.assign(label=""), {}, "has no known label", "nothing can be compared"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_people_labels_sites_and_folds_are_refused(other, folder, two):
    change, said, *words = OTHERS[other]
    third = folder("third", change(pd.read_csv(two[1] / "predictions.csv", dtype=str)), **said)
    refused("abide-compare {a} {b} --outDir {to}", *words, a=two[0], b=third, to="missing")


def test_records_are_matched_by_name_and_those_of_unknown_label_take_no_part(folder):
    tables = [predicted(people(), at, 1) for at in range(2)]
    for table in tables:
        table.loc[:9, "label"] = ""
    (row,) = compared(folder("a", tables[0]), folder("b", tables[1].iloc[::-1])).to_dict("records")
    assert row["records"] == 150
    known = tables[1][10:]
    assert row["auc_b"] == pytest.approx(roc_auc_score(known["label"].astype(int), known["probability"]))


def test_names_that_are_markup_are_text(folder):
    table = people(80).assign(site=lambda of: of["site"].replace({"NYU": HOSTILE, "PITT": "=cmd|' /C calc'!A0"}))
    table["subject"] = table["subject"] + HOSTILE
    more = {"config": {"<script>": HOSTILE}, "cohort": HOSTILE}
    compared(folder("a", predicted(table, 0, 1)), folder("b", predicted(table, 1, 1), **more))
    page = Path("out/compare.html").read_text()
    assert page.count("<script") == 1 and "<b>額" not in page and "&lt;script&gt;" in page


def test_runs_are_left_alone_and_an_earlier_comparison_is_replaced(two):
    before = [listing(of) for of in two]
    compared(*two)
    first = Path("out/compare.html").read_text()
    Path("out/notes.txt").write_text("mine")
    (row,) = compared(*reversed(two)).to_dict("records")
    assert row["conclusion"] == "b is better" and Path("out/compare.html").read_text() != first
    assert {path.name for path in Path("out").iterdir()} == {"compare.csv", "compare.html", "notes.txt", "run.json"}
    assert [listing(of) for of in two] == before
    refused("abide-compare {a} {b}", "compare of runs", a=two[0], b=Path("out"))
