"""The report: every section from its table, values by other means, hostile names as text, and mistakes in one line."""

import hashlib
import json
import math
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from helpers import Page, run_main
from matplotlib import pyplot as plt
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from data.base.effort import EFFORT
from data.pages.drawings import svg
from models import MODELS
from utils import figures
from utils.report import build, drawings, headline, references, scores, texts
from utils.report.tables import read_test
from utils.scores.metrics import Predictions
from utils.scores.results import NO_INTERVAL, Estimate

HOSTILE = "</script><script>alert(1)</script>$x_{$ & \u202e<b>額"
NAME = HOSTILE.replace("\u202e", "")  # what a table may hold
METRICS = ("accuracy", "balanced_accuracy", "recall", "specificity", "precision", "f_score", "auc", "brier")
PREPARED = {
    **dict.fromkeys(("normalisation", "reduction", "standard", "connectome", "derivation", "scaled_by"), ""),
    **dict.fromkeys(("family_column", "conversion"), ""),
    **dict.fromkeys(("num_phenotype", "same_scan", "families"), 0),
    "phenotype_columns": [],
    "together": False,
}
RUN = {
    "job": "test",
    "format": 1,
    "model": "mmnn",
    "preset": "residual",
    "config": {"batch_size": 32, "optimizer": "adam", "learning_rate": 0.001, "decay": 0.9, "filters": [16, 32]},
    "grid": "reduced",
    "seed": 3,
    "precision": "float32",
    "command": ["run.py", "--test", "--dataDir", "my cohort"],
    "cohort": "/data/my cohort",
    "cohort_sha256": 64 * "a",
    "records_sha256": 64 * "e",
    "simulated": False,
    "checkpoint_folder": "ckpt/mmnn",
    "checkpoint_sha256": 64 * "b",
    "git_commit": 40 * "c",
    "packages": {"tensorflow": "2.21.0", "numpy": "2.4.6"},
    "started": "2026-11-25T10:30:24+0000",
    "wall_time_s": 3.11,
    "num_iters": 200,
    "folds": None,
    "fold": None,
    "maps": [],
    "left_out": {},
    "choice": None,
    "prepared": PREPARED,
    "floor_settings": {},
    "shares": {},
    "conclusion": "The model is better than guessing, and no better than its best floor.",
    "warnings": ["No motion is known."],
    "motion": "Beside age and motion the output still tells something.",
}
SITES = ("NYU", "PITT", "UCLA")
HEADINGS = [
    *("What may be concluded", "Warnings", "Intended use", "Scores", "The model beside its floors", "ROC curve"),
    "Probabilities",
    *("Confusion matrix", "Folds", "Sites", "Training", "Flow of people", "The cohort", "How to repeat it"),
    "Methods, to paste",
]


def people(count: int = 120, folds: int = 0, seed: int = 0) -> pd.DataFrame:
    """Predictions that are right more often than not, some subjects twice, probabilities with ties."""
    random = np.random.default_rng(seed)
    label = np.arange(count) % 2
    probability = (1 / (1 + np.exp(-random.normal(label - 0.5, 1)))).round(2)
    subject = np.arange(count) - 2 * (np.arange(count) % 20 == 2)
    columns = {
        "file": [f"{number}.bin" for number in range(count)],
        "subject": subject.astype(str),
        "site": np.array(SITES)[subject // 2 % 3],
        "label": label.astype(str),
        "probability": probability,
    }
    table = pd.DataFrame(columns)
    return table.assign(fold=(subject % folds).astype(str)) if folds else table


def score(value: float | None, half: float = 0.1) -> dict:
    return {"value": value, "low": value and value - half, "high": value and value + half}


def named_interval(name: str, value: float) -> dict:
    return {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}


def write_tables(folder: Path, predictions: pd.DataFrame, **run) -> Path:
    """A folder as a test leaves it, whose tables agree with these predictions in what the report relies on."""
    folder.mkdir(exist_ok=True, parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    split = "fold " + predictions["fold"] if "fold" in predictions else pd.Series("test", predictions.index)
    given = (
        predictions.drop_duplicates("subject").groupby([split, "site"])["label"].value_counts().unstack(fill_value=0)
    )
    counts = given.reindex(columns=["1", "0", ""], fill_value=0).itertuples()
    columns = ("split", "site", "autism", "control", "unknown")
    subjects = [dict(zip(columns, (*row[0], *row[1:]), strict=True)) for row in counts]
    (folder / "run.json").write_text(json.dumps(RUN | {"subjects": subjects} | run))
    training = [{"fold": "", "step": step, "loss": 1 / step, "accuracy": 0.5} for step in range(1, 30)]
    if "fold" in predictions:
        training = [row | {"fold": fold} for fold in predictions["fold"].unique() for row in training]
    pd.DataFrame(training).to_csv(folder / "training.csv", index=False)
    if (predictions["label"] == "").all():
        return folder
    scores = {name: score(0.6) for name in METRICS}
    if "fold" in predictions:
        scores |= {"auc_folds": score(0.61), "folds": {fold: dict(scores) for fold in predictions["fold"].unique()}}
    (folder / "metrics.json").write_text(json.dumps(scores))
    floors = [
        {"floor": name, "role": ""} | named_interval("auc", auc) | named_interval("accuracy", auc)
        for name, auc in (("model", 0.6), ("majority", 0.5), ("regions, SVM", 0.65), ("rule that made the data", 0.9))
    ]
    floors[1:] = [row | named_interval("model_minus_floor_auc", 0.6 - row["auc"]) for row in floors[1:]]
    pd.DataFrame(floors).to_csv(folder / "floors.csv", index=False)
    sites = [
        {
            "site": site,
            "subjects": 40,
            "autism": 20,
            "control": 20,
            **named_interval("auc", 0.6),
            **named_interval("accuracy", 0.5),
        }
        for site in predictions["site"].unique()
    ]
    pd.DataFrame(sites).to_csv(folder / "sites.csv", index=False)
    return folder


def parsed(folder: Path) -> Page:
    return Page(build.write(folder)[0].read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few resamples for the band of the ROC curve, and no files of figures, which take a second each otherwise."""
    monkeypatch.setattr(EFFORT, "curve_resamples", 20)
    monkeypatch.setattr(figures, "save", lambda figure, path: [])


@pytest.fixture(scope="module")
def pooled(tmp_path_factory) -> Path:
    digests = {"0": 64 * "d", "1": 64 * "e", "2": 64 * "f"}
    return write_tables(tmp_path_factory.mktemp("pooled"), people(folds=3), folds="3", checkpoint_sha256=digests)


@pytest.fixture
def single(tmp_path) -> Path:
    return write_tables(tmp_path / "single", people())


def change(folder: Path, **values) -> None:
    """Writes `run.json` with other values; those of `prepared` are beside all others of it."""
    content = json.loads((folder / "run.json").read_text())
    values |= {"prepared": content["prepared"] | values.get("prepared", {})}
    (folder / "run.json").write_text(json.dumps(content | values))


@pytest.mark.slow
def test_the_sections_stand_in_their_order_and_say_what_the_tables_say(pooled):
    page = parsed(pooled)
    assert page.headings == HEADINGS
    assert page.paragraphs["What may be concluded"] == [RUN["conclusion"], RUN["motion"]]
    assert page.paragraphs["Warnings"][-1] == "No motion is known."
    assert ["AUC, all people together", "0.600 (0.500 to 0.700)"] in page.rows["Scores"]
    assert page.rows["The model beside its floors"][3][:3] == [
        "regions, SVM",
        "0.650 (0.550 to 0.750)",
        "-0.050 (-0.150 to 0.050)",
    ]
    assert page.rows["Folds"][1][:3] == ["0", "38", "0.600 (0.500 to 0.700)"]
    assert page.rows["Sites"][1] == ["NYU", "40", "20", "20", "0.600 (0.500 to 0.700)", "0.500 (0.400 to 0.600)"]
    assert page.rows["How to repeat it"][1] == ["0", 64 * "d"]
    ids = [value for name, value in page.attributes if name == "id"]
    assert page.tags.count("script") == 1 and len(ids) == len(set(ids))
    assert page.tags.count("svg") == 3


@pytest.mark.slow
def test_the_floor_that_is_named_beforehand_is_marked(single):
    floors = pd.read_csv(single / "floors.csv")
    other = pd.concat([floors, floors[2:3].assign(floor="all, SVM"), floors[2:3].assign(floor="all, ridge")])
    roles = ["", "", "named beforehand", "", "other", "other"]
    other.assign(role=roles).to_csv(single / "floors.csv", index=False)
    page = parsed(single)
    title = "The model beside its floors"
    assert [row[0] for row in page.rows[title][3:6:2]] == ["regions, SVM (named beforehand)", "all, SVM"]
    assert "the 2 other floors hold for all 2 together" in " ".join(page.paragraphs[title])
    assert "was named by what the network reads" in " ".join(page.paragraphs["Methods, to paste"])
    bars = headline.forest(replace(read_test(single), others={"floors": other.assign(role=roles)})).bars
    assert bars[2].name == "regions, SVM (named beforehand)" and bars[2].kind == "named" and bars[4].name == "all, SVM"


def test_the_floor_of_each_repeat_is_shown():
    row = {"repeat": 0.0, "seed": 4.0} | named_interval("auc", 0.7) | named_interval("model_minus_floor_auc", 0.1)
    table = pd.DataFrame([row | {"named_floor": "all, SVM"}, row | {"repeat": 1.0, "named_floor": "all, SVM"}])
    section = scores.repeats(table, same_folds=True)
    assert section.table[0]["named floor"] == "all, SVM" and section.table[0]["repeat"] == "0"
    assert "the best of 2 repeats is picked" in " ".join(section.texts)


@pytest.mark.slow
def test_the_tables_on_motion_are_shown_where_they_are(pooled):
    columns = ("measure", "value", "low", "high", "p")
    measures = [("partial", 0.3, 0.2, 0.4, 1e-5), ("correlation", 0.4, 0.3, 0.5, None), ("auc", 0.6, 0.5, 0.7, None)]
    pd.DataFrame(measures, columns=columns).to_csv(pooled / "confounds.csv", index=False)
    group = {"kind": "sex", "group": "SEX 1", "subjects": 40, "autism": 20, "control": 20}
    pd.DataFrame([group | named_interval("auc", 0.6)]).to_csv(pooled / "groups.csv", index=False)
    page = parsed(pooled)
    assert page.headings == [
        *HEADINGS[:5],
        "Is it motion?",
        *HEADINGS[5:10],
        "Head motion, sex and age",
        *HEADINGS[10:],
    ]
    assert page.rows["Is it motion?"][1:] == [
        ["partial correlation of output and diagnosis", "0.300 (0.200 to 0.400)", "1e-05"],
        ["correlation of output and head motion within sites", "0.400 (0.300 to 0.500)", "-"],
        ["AUC, of those who moved less", "0.600 (0.500 to 0.700)", "-"],
    ]
    assert page.rows["Head motion, sex and age"][1] == ["sex: SEX 1", "40", "20", "20", "0.600 (0.500 to 0.700)"]
    about = " ".join(page.paragraphs["Head motion, sex and age"])
    assert "Head motion is unknown" in about and "moved less" not in about
    measures = [("auc", 0.6, 0.5, 0.7, None)]
    pd.DataFrame(measures, columns=columns).to_csv(pooled / "confounds.csv", index=False)
    texts = parsed(pooled).paragraphs["Is it the covariates?"]
    assert "It cannot be computed" in texts[0] and "half that moved less" in texts[1]


@pytest.mark.slow
def test_counts_are_those_of_the_predictions(pooled):
    page, table = parsed(pooled), people(folds=3)
    true, predicted = table["label"] == "1", table["probability"] >= 0.5
    by_hand = [[int((t & p).sum()) for p in (~predicted, predicted)] for t in (~true, true)]
    shown = [[int(cell.split(":")[0]) for cell in row[1:]] for row in page.rows["Confusion matrix"][1:]]
    assert shown == by_hand
    everyone = [row for row in page.rows["The cohort"] if row[0].startswith("fold ")]
    assert len(everyone) == 3 and sum(int(row[1]) for row in everyone) == table["subject"][true].nunique()


@pytest.mark.slow
def test_a_test_of_one_split_has_no_folds_and_all_is_built_again_byte_by_byte(single, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "save", lambda figure, path: [drawn.setdefault(path, figure) and path])
    change(single, simulated=True)
    written = build.write(single)
    assert [path.name for path in written[1:]] == ["calibration.png", "losses.png", "forest.png"]
    assert all(figure.get_suptitle() == "(SIMULATED)" for figure in drawn.values())
    page = written[0].read_bytes()
    assert build.write(single)[0].read_bytes() == page
    assert Page(page.decode()).headings == [name for name in HEADINGS if name != "Folds"]
    assert len(page) < 5e6
    outside = set(re.findall(r"https?://[^\"' ]+", page.decode()))
    assert outside == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses


@pytest.mark.slow
def test_without_labels_there_is_the_distribution_and_no_score(tmp_path):
    page = parsed(write_tables(tmp_path / "new", people(20).assign(label="")))
    unscored = (*HEADINGS[:3], "Predicted probabilities", *HEADINGS[10:])
    assert page.headings == list(unscored)
    assert page.paragraphs["Warnings"] == ["No motion is known."]
    assert any("so that no score was computed" in text for text in page.paragraphs["Methods, to paste"])
    assert page.tags.count("svg") == 2


@pytest.mark.slow
def test_some_labels_are_unknown(tmp_path):
    table = people(60)
    page = parsed(write_tables(tmp_path / "some", table.assign(label=["", *table["label"][1:]])))
    assert "59 records of 57 test subjects" in page.paragraphs["Scores"][0]
    assert "The diagnosis of 1 of 60 records is unknown" in page.paragraphs["Predicted probabilities"][0]


@pytest.mark.slow
def test_one_class_has_no_roc_curve(tmp_path):
    folder = write_tables(tmp_path / "one", people(20).assign(label="1"))
    none = {"value": None, "low": None, "high": None}
    scores = json.loads((folder / "metrics.json").read_text()) | {"auc": none}
    (folder / "metrics.json").write_text(json.dumps(scores))
    page = parsed(folder)
    assert "ROC curve" not in page.headings and "Probabilities" in page.headings
    assert ["AUC, all people together", "-"] in page.rows["Scores"]


@pytest.mark.slow
def test_absent_floors_are_left_out_and_an_absent_history_is_said(single):
    (single / "floors.csv").unlink()
    (single / "training.csv").unlink()
    page = parsed(single)
    assert "The model beside its floors" not in page.headings
    assert "not there any more" in page.paragraphs["Training"][0]


@pytest.mark.slow
def test_a_score_of_few_people_says_so_wherever_it_stands_and_is_no_dot(single):
    scores = json.loads((single / "metrics.json").read_text())
    few = {name: of | {"low": None, "high": None} for name, of in scores.items() if "value" in of}
    (single / "metrics.json").write_text(json.dumps(scores | few))
    for name in ("floors", "sites"):
        table = pd.read_csv(single / f"{name}.csv")
        ends = [column for column in table if column.endswith(("_low", "_high"))]
        table.assign(**dict.fromkeys(ends, "")).to_csv(single / f"{name}.csv", index=False)
    page = parsed(single)
    assert headline.forest(read_test(single)) is None and ("class", "dot") not in page.attributes
    values = [cell for row in page.table for cell in row if cell.startswith("0.600")]
    assert len(values) > 10 and all(cell == f"0.600 ({NO_INTERVAL})" for cell in values)
    assert f"0.60 ({NO_INTERVAL})" in page.text


@pytest.mark.slow
def test_what_is_no_number_is_a_dash(single):
    table = pd.read_csv(single / "sites.csv").assign(auc=[float("nan"), float("inf"), 0.5], auc_low="", auc_high="")
    table.to_csv(single / "sites.csv", index=False)
    assert [row[4] for row in parsed(single).rows["Sites"]] == ["AUC", "-", "-", f"0.500 ({NO_INTERVAL})"]


@pytest.mark.slow
def test_names_of_a_user_are_text_and_nothing_else(tmp_path):
    table = people(60, 3)
    table = table.assign(site=NAME + table["site"], subject=NAME + table["subject"], fold="<b>$" + table["fold"])
    texts_of_users = dict.fromkeys(("conclusion", "motion", "cohort", "checkpoint_folder", "preset"), HOSTILE)
    folder = write_tables(tmp_path / "hostile", table, folds="3", warnings=[HOSTILE], **texts_of_users)
    floors = pd.read_csv(folder / "floors.csv")
    floors.assign(floor=["model", *(NAME + floors["floor"][1:])]).to_csv(folder / "floors.csv", index=False)
    page = parsed(folder)
    assert page.tags.count("script") == 1 and "b" not in page.tags
    assert page.paragraphs["What may be concluded"][0] == "</script><script>alert(1)</script>$x_{$ & <b>額"
    assert "\u202e" not in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "values, scores, told",
    [
        ({"simulated": True}, {}, "SIMULATED"),
        ({"unknown_site": True}, {}, "Site is unknown, and may be the whole result"),
        ({"problems": ["a", "b"]}, {}, "PROBLEMS: 2 invalidate these results: a; b."),
        ({"problems": ["a"]}, {}, "PROBLEMS: 1 invalidates these results: a."),
        ({"accepted_leaks": ["SRS"]}, {}, "LEAK ACCEPTED: the cohort was converted with --allowLeak, though SRS tells"),
        ({}, {"auc": score(0.55)}, "0.450 to 0.650, holds 0.5"),
        ({}, {"accuracy": score(0.81)}, "accuracy of 0.81 (0.71 to 0.91) is far above"),
        ({}, {"accuracy": score(0.74, 0.03)}, "accuracy of 0.74 (0.71 to 0.77) is far above"),
    ],
)
def test_warnings_of_the_page_itself(values, scores, told, single):
    change(single, **values)
    content = json.loads((single / "metrics.json").read_text()) | {"auc": score(0.7)} | scores
    (single / "metrics.json").write_text(json.dumps(content))
    assert [told in text for text in texts.warnings(read_test(single))] == [True, False]


@pytest.mark.slow
def test_the_title_says_what_must_stand_beside_a_result(single):
    held = {"simulated": True, "problems": ["a", "b"], "accepted_leaks": ["SRS"]}
    change(single, **held, unknown_site=True)
    page = build.write(single)[0].read_text(encoding="utf-8")
    marks = "(SIMULATED, PROBLEMS: 2, LEAK ACCEPTED, SITE UNKNOWN)"
    assert all(f"<{tag}>Test of mmnn {marks}</{tag}>" in page for tag in ("title", "h1"))


@pytest.mark.parametrize(
    "sites, told", [(["unknown"], "unknown site"), (["A", "", "B"], "2 sites"), (["A"], "1 site;")]
)
def test_only_known_sites_are_counted(sites, told, single):
    tables = read_test(single)
    named = np.resize(sites, len(tables.predictions))
    assert told in str(headline.numbers(replace(tables, predictions=tables.predictions.assign(site=named)))[-1])


@pytest.mark.slow
def test_of_one_fold_there_is_only_the_page(single):
    change(single, fold="1")
    assert [path.name for path in build.write(single)] == ["report.html"]


@pytest.mark.slow
def test_no_warning_without_reason(single):
    change(single, warnings=[])
    content = json.loads((single / "metrics.json").read_text()) | {"auc": score(0.65), "accuracy": score(0.75)}
    (single / "metrics.json").write_text(json.dumps(content))
    assert "Warnings" not in parsed(single).headings


def test_a_simulated_cohort_may_have_any_accuracy_and_few_subjects_are_said(tmp_path):
    folder = write_tables(tmp_path / "few", people(20), simulated=True, warnings=[])
    content = {name: score(0.95, 0.01) for name in METRICS}
    (folder / "metrics.json").write_text(json.dumps(content))
    simulated, few = texts.warnings(read_test(folder))
    assert "SIMULATED" in simulated and "Only 19 test subjects" in few


def test_the_methods_say_what_the_tables_hold(pooled, single):
    one, many = (" ".join(texts.methods(read_test(folder))) for folder in (single, pooled))
    for text in (one, many):
        assert "mmnn (preset residual) read brain volumes of 31x37x31 voxels of 6 mm" in text
        assert (
            "200 batches of 32 records with adam (Kingma and Ba 2014; learning rate 0.001, decay 0.9), with seed 3"
            in text
        )
        assert "The other hyper-parameters were filters 16,32." in text
        assert "compared with majority; regions, SVM." in text
        assert "tensorflow 2.21.0, numpy 2.4.6" in text
    assert "tested on data of 114 subjects of 3 sites (60 with autism, 54 controls)" in one
    assert "stratified" not in one
    assert "cross-validated in 3 folds; every" in many and "stratified by fold" in many


SENTENCES = {  # what of `run.json` calls for a sentence of the methods, and that sentence
    "left out": ({"left_out": {"no map": 12}}, "12 people were left out when the cohort was made (12: no map)."),
    "one left out": ({"left_out": {"no map": 1}}, "1 person was left out"),
    "one scan": ({"prepared": {"same_scan": 1, "together": True}}, "1 group of subjects who share a scan was kept in"),
    "columns": ({"prepared": {"phenotype_columns": ["AGE", "FIQ"]}}, "values a subject made from AGE, FIQ."),
    "normalised": (
        {"prepared": {"normalisation": "z-scored over the whole volume", "reduction": "block mean"}},
        "Each map had been z-scored over the whole volume, then averaged over blocks of voxels.",
    ),
    "encoded": (
        {"prepared": {"normalisation": "z-scored", "reduction": "encoder 12ab"}},
        "Each map had been z-scored, then reduced by an encoder 12ab.",
    ),
    "counted": (
        {"prepared": {"phenotype_columns": ["age", "sex"], "num_phenotype": 3}},
        " and 3 phenotype values a subject made from age, sex.",
    ),
    "derived": (
        {"prepared": {"derivation": "band 0.01-0.1 Hz, smoothing none"}},
        "from preprocessed scans by autism-blackout (abide-data derive): band 0.01-0.1 Hz, smoothing none.",
    ),
    "stored": ({"prepared": {"standard": "stored"}}, "Volumes were read as they were stored."),
    "site": ({"prepared": {"standard": "site"}, "transductive": True}, "over all people of the site, tested ones too"),
    "scaled": ({"prepared": {"scaled_by": "split"}}, "deviations were learnt from training subjects only."),
    "changed": ({"config": RUN["config"] | {"l1": 7.0}}, "but for filters 16,32, l1 7.0; this run tuned none of them."),
    "by the author": ({"config": RUN["config"] | {"l1": 7.0}}, "The author must say whether the settings that differ"),
    "authors": ({"preset": "regions"}, "a score on people of ABIDE I may be a little too good."),
    "connectomes": (
        {"config": RUN["config"] | {"connectome": True}, "prepared": {"connectome": "rois_cc200"}},
        "It also read connectomes (rois_cc200, Craddock et al. 2012): the Fisher z-transformed",
    ),
    "no connectomes": (
        {"config": RUN["config"] | {"connectome": False}, "prepared": {"connectome": "rois_cc200"}},
        "but for filters 16,32, connectome False; this",
    ),
    "none to read": ({"config": RUN["config"] | {"connectome": False}}, "but for filters 16,32; this run tuned none"),
    "shares": (
        {"shares": {"regions": 0.625, "phenotype": 0.375}},
        "gave the weights, none below 0. The parts count: regions 62%, phenotype 38%.",
    ),
    "shares, no site": ({"shares": {"regions": 1.0}, "unknown_site": True}, "left out gave the weights"),
    "floors": ({"floor_settings": {"SVM": "C = 1", "forest": "9"}}, "the same training subjects: SVM (C = 1). "),
    "motion": (
        {"motion": "Is it motion? More: its partial correlation with the diagnosis is 0.3"},
        "(generalised covariance measure, Shah and Peters 2020) tested whether the output carries",
    ),
}
CITED = re.compile(r"[A-Z][\w-]+(?: [A-Z]\w+)?(?:(?:, [A-Z]\w+)? and [A-Z]\w+| et al\.)? (?:19|20)\d\d\b")
ALWAYS = {"Efron 1979", "Kingma and Ba 2014", "Tzourio-Mazoyer et al. 2002"}  # bootstrap, adam, regions of floors
WORKS = {  # what of `run.json` makes the methods cite which works
    "floors of regions": ({}, ALWAYS),
    "maps": (
        {"maps": ["falff", "alff", "reho", "vmhc", "lfcd", "degree_weighted", "dual_regression_1", "mine"]},
        ALWAYS
        | {"Zou et al. 2008", "Zang et al. 2007", "Zang et al. 2004", "Zuo et al. 2010", "Zuo et al. 2012"}
        | {"Tomasi and Volkow 2010", "Filippini et al. 2009"},
    ),
    "one map": ({"maps": ["falff"]}, ALWAYS | {"Zou et al. 2008"}),
    "CC200": (
        {"config": RUN["config"] | {"connectome": True}, "prepared": {"connectome": "rois_cc200"}},
        ALWAYS | {"Craddock et al. 2012"},
    ),
    "Schaefer": (
        {"config": RUN["config"] | {"connectome": True}, "prepared": {"connectome": "Schaefer2018"}},
        ALWAYS | {"Schaefer et al. 2018"},
    ),
    "own parcels": ({"config": RUN["config"] | {"connectome": True}, "prepared": {"connectome": "ours"}}, ALWAYS),
    "another optimizer": ({"config": RUN["config"] | {"optimizer": "rmsprop"}}, ALWAYS - {"Kingma and Ba 2014"}),
    "ABIDE": ({"preset": "regions"}, ALWAYS | {"Di Martino et al. 2014"}),
    "motion": (
        {"motion": "Is it motion? Its partial correlation with the diagnosis is 0.3"},
        ALWAYS | {"Shah and Peters 2020", "Belloni, Chernozhukov and Hansen 2014", "MacKinnon and White 1985"},
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_a_sentence_of_the_methods_stands_where_the_tables_call_for_it(case, single):
    values, sentence = SENTENCES[case]
    preset = json.loads(json.dumps(asdict(MODELS["mmnn"].module.PRESETS["residual"])))
    change(single, config={name: preset[name] for name in ("batch_size", "optimizer", "learning_rate", "decay")})
    assert sentence not in " ".join(texts.methods(read_test(single)))
    change(single, **values)
    assert sentence in " ".join(texts.methods(read_test(single)))


def cited_and_listed(folder: Path) -> tuple[set[str], list[str]]:
    """The works that the sentences of the methods cite, and the paragraphs below "References"."""
    said = texts.methods(read_test(folder))
    at = said.index("References")
    return {words for text in said[:at] for words in CITED.findall(text)}, said[at + 1 :]


@pytest.mark.parametrize("case", WORKS)
def test_a_work_is_listed_where_its_method_was_used(case, single):
    values, works = WORKS[case]
    change(single, **values)
    cited, listed = cited_and_listed(single)
    assert cited == works
    assert [text for text in listed if "doi:10." not in text] == []
    assert [re.split(r",? |,", text)[0] for text in listed] == sorted(name.split(" ")[0].strip(",") for name in cited)


def test_folds_cite_their_work(pooled):
    cited, listed = cited_and_listed(pooled)
    assert cited - ALWAYS >= {"Nadeau and Bengio 2003"}
    assert len(listed) == len(cited)


def test_every_work_is_cited_somewhere_and_no_doi_is_typed_twice():
    source = (Path(texts.__file__).parent / texts.SENTENCES).read_text()
    named = [*references.MEASURES.values(), *references.PARCELS.values(), " ".join(source.split())]
    assert [work for work in references.WORKS if not any(work in text for text in named)] == []
    assert {*references.MEASURES.values(), *references.PARCELS.values()} <= references.WORKS.keys()
    found = re.findall(r"doi:(10\.\d{4,5}/\S+)", " ".join(references.WORKS.values()))
    assert len(found) == len(set(found)) == len(references.WORKS) - 2  # of two there is none


def test_small_sites_and_families_are_said_where_they_are_compared_and_counted(single):
    content = json.loads((single / "metrics.json").read_text()) | {"auc_sites": score(0.6)}
    (single / "metrics.json").write_text(json.dumps(content))
    told = {
        "Methods, to paste": [
            "averaged over sites and folds",
            "in their site and fold took no part in the AUC within sites",
            "count once",
        ],
        "Sites": ["the AUC compares people of the same fold only"],
        "Scores": ["few people of a class: that within sites compares people of the same site and the same fold."],
    }
    pages = [parsed(single)]
    change(single, small_sites=True, prepared={"families": 2, "family_column": "FAMILY"})
    pages.append(parsed(single))
    for title, sentences in told.items():
        for sentence in sentences:
            assert [sentence in " ".join(page.paragraphs[title]) for page in pages] == [False, True], sentence
    assert "within sites, averaged over sites by" not in " ".join(pages[1].paragraphs["Methods, to paste"])


def test_scaling_by_fold_is_said_of_folds_and_its_absence_too(pooled, tmp_path):
    folder = shutil.copytree(pooled, tmp_path / "pooled")
    for scaled_by, told in (
        ("fold", "learnt anew in each fold, from its training"),
        ("split", "and so not learnt anew"),
    ):
        change(folder, prepared={"scaled_by": scaled_by})
        assert told in " ".join(texts.methods(read_test(folder)))


def test_sites_of_one_class_are_named(tmp_path):
    table = people(60)
    table["label"] = table["label"].mask(table["site"] == "UCLA", "1")
    folder = write_tables(tmp_path / "one", table)
    assert "of one class only" not in " ".join(texts.methods(read_test(folder)))
    content = json.loads((folder / "metrics.json").read_text()) | {"auc_sites": score(0.6)}
    (folder / "metrics.json").write_text(json.dumps(content))
    assert "1 site (UCLA) held tested subjects of one class only" in " ".join(texts.methods(read_test(folder)))


def test_the_command_is_typed_back_by_bash(tmp_path):
    command = ["run.py", "a  b", "it's", "x\ny\t\u202e\\'1", "", "$HOME", HOSTILE, "Zürich"]
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {texts.quoted(command)}"], capture_output=True, check=True)
    assert printed.stdout.decode().split("\0")[:-1] == command
    assert texts.quoted(command).isprintable()


def rates(label: np.ndarray, probability: np.ndarray) -> tuple[list[float], list[float]]:
    """False and true positive rate at every threshold, counted one by one."""
    thresholds = [np.inf, *sorted(set(probability), reverse=True)]
    false, true = ([(probability[label == value] >= cut).mean() for cut in thresholds] for value in (0, 1))
    return false, true


@pytest.mark.slow
def test_the_band_is_that_of_a_plain_loop_within_folds(monkeypatch):
    monkeypatch.setattr(EFFORT, "curve_resamples", 30)
    table = people(60, 2).assign(label=lambda table: table["label"].astype(float))
    random, samples = np.random.default_rng(5), [[] for _ in range(30)]
    for fold in sorted(table["fold"].unique()):
        members = sorted(table["subject"][table["fold"] == fold].unique())
        counts = random.multinomial(len(members), [1 / len(members)] * len(members), 30)
        for rows, drawn in zip(samples, counts, strict=True):
            rows += [
                table[table["subject"] == name]
                for name, times in zip(members, drawn, strict=True)
                for _ in range(times)
            ]
    found = [
        np.interp(drawings.FALSE_RATES, *rates(sample["label"].to_numpy(), sample["probability"].to_numpy()))
        for sample in map(pd.concat, samples)
    ]
    centre = np.interp(drawings.FALSE_RATES, *rates(table["label"].to_numpy(), table["probability"].to_numpy()))
    ends = np.percentile(found, (2.5, 97.5), axis=0)
    low, high = np.clip(centre + np.sqrt(2) * (ends - centre), 0, 1)  # each pair of people of two folds meets twice
    autism = table["subject"][table["label"].astype(float) == 1].nunique()
    passed = binomtest(autism, autism).proportion_ci(method="exact")
    expected = np.array([np.minimum(low, passed.low), np.maximum(high, 1 - passed.low)])
    assert np.array(drawings.roc_band(Predictions.of(table), 5)) == pytest.approx(expected)


def test_a_class_of_one_subject_has_no_band():
    table = people(20).assign(label=[1.0] + [0.0] * 19)
    assert drawings.roc_band(Predictions.of(table), 0) is None


def test_the_confusion_matrix_is_that_of_scikit_learn_with_the_intervals_of_recall_and_specificity():
    table = people(60)
    label, probability = table["label"].astype(float).to_numpy(), table["probability"].to_numpy()
    predictions = Predictions(label, probability, table["subject"].to_numpy())
    scores = {"recall": Estimate(0.8, 0.7, 0.9), "specificity": Estimate(0.5, 0.25, 1.0)}
    counts = confusion_matrix(label, probability >= 0.5)
    share = counts / counts.sum(1, keepdims=True)
    ends = [["25% to 100%", "0% to 75%"], ["10% to 30%", "70% to 90%"]]
    rows = drawings.confusion_rows(predictions, scores)
    for cell in np.ndindex(2, 2):
        assert rows[cell[0]][cell[1]] == f"{counts[cell]}: {share[cell]:.0%} ({ends[cell[0]][cell[1]]})"
    without = {name: Estimate(0.8, None, None) for name in scores}
    assert drawings.confusion_rows(predictions, without)[0][0] == f"{counts[0, 0]}: {share[0, 0]:.0%} ({NO_INTERVAL})"
    (axis,) = drawings.confusion(predictions, scores).axes
    assert [text.get_text().split("\n")[0] for text in axis.texts] == [str(count) for count in counts.ravel()]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["control", "autism"]
    plt.close("all")


@pytest.mark.parametrize("of_one_class", [False, True])
def test_roc_png_is_the_figure_of_the_report(of_one_class, tmp_path, monkeypatch):
    saved = {}
    monkeypatch.setattr(drawings.figures, "save", lambda figure, path: saved.setdefault(path.name, figure))
    monkeypatch.setattr(EFFORT, "curve_resamples", 20)
    table = people(60).assign(label=lambda table: 1.0 if of_one_class else table["label"].astype(float))
    drawings.classification(Predictions.of(table), {}, 0, tmp_path, " (SIMULATED)")
    assert list(saved) == ["roc.png", "confusion_matrix.png"]
    assert {figure.get_suptitle() for figure in saved.values()} == {"(SIMULATED)"}
    (axis,) = saved["roc.png"].axes
    if of_one_class:
        assert axis.get_title() == "No ROC curve: all records are of one class." and not axis.lines
    else:
        legend = [text.get_text() for text in axis.get_legend().get_texts()]
        assert legend == ["95% band", "model", "guessing"]
        assert (axis.get_xlabel(), axis.get_ylabel()) == (
            "false positive rate (control taken for autism)",
            "true positive rate (autism found)",
        )
    plt.close("all")


@pytest.mark.slow
def test_the_training_says_whose_losses_it_shows(single, pooled):
    for folder in (single, pooled):
        (told,) = parsed(folder).paragraphs["Training"]
        assert "network was trained on" in told and "nothing about new people" in told


@pytest.mark.parametrize(("folds", "words"), [(None, "takes --folds, and"), ("10", "takes at least"), ("site", "site")])
def test_why_probabilities_are_not_calibrated(folds, words):
    text = " ".join(texts.paragraphs("probabilities", slopes=[], run=SimpleNamespace(folds=folds)))
    assert words in text and ("--folds" in text) == (folds is None)


def test_calibration_is_that_of_scikit_learn_with_wilson_intervals():
    table = people()
    label, probability = table["label"].astype(int).to_numpy(), table["probability"].to_numpy()
    inside = (probability * 100).round() % 10 != 0  # scikit-learn's bins are closed at their other end
    table = drawings.calibration(label[inside], probability[inside])
    observed, predicted = calibration_curve(label[inside], probability[inside], n_bins=10, strategy="uniform")
    assert table["observed"].to_numpy() == pytest.approx(observed)
    assert table["predicted"].to_numpy() == pytest.approx(predicted)
    z, row = 1.959964, table.iloc[4]
    share, count = row["observed"], row["count"]
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    assert (row["low"], row["high"]) == pytest.approx((centre - half, centre + half), abs=1e-5)


@pytest.mark.slow
def test_the_forest_has_the_intervals_where_they_are(single):
    page = build.write(single)[0].read_text()
    drawing = ElementTree.fromstring(svg(drawings.forest(headline.forest(read_test(single)))))
    said = ["".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert [name for name in said if name in ("mmnn", "majority", "regions, SVM")] == [
        "mmnn",
        "majority",
        "regions, SVM",
    ]
    span = re.search(r">regions, SVM<.*?left:([0-9.]+)%;width:([0-9.]+)%.*?left:([0-9.]+)%", page, re.S)
    left, width, dot = map(float, span.groups())
    line = float(re.search(r'class="line" style="left:([0-9.]+)%', page)[1])
    assert dot == pytest.approx(left + width / 2, abs=0.02)  # 0.65 between 0.55 and 0.75
    assert (dot - line) / width == pytest.approx((0.65 - 0.5) / 0.2, abs=0.01)


def damage(name: str, old: str, new: str):
    def apply(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return apply


def remove(name: str):
    return lambda folder: (folder / name).unlink()


MISTAKES = {
    "no test": (remove("predictions.csv"), "holds no predictions.csv; expected the folder of a classifier's"),
    "no run.json": (remove("run.json"), "run.json cannot be read"),
    "damaged run.json": (damage("run.json", '"seed": 3', '"seed": "3"'), "run.json is damaged (seed: "),
    "no shares": (damage("run.json", '"shares"', '"share"'), "run.json is damaged (shares: "),
    "autoencoder": (damage("run.json", '"mmnn"', '"cae"'), "has the model cae; expected a classifier"),
    "no conclusion": (
        lambda folder: change(folder, conclusion=" "),
        "'What may be concluded' of a page would be empty",
    ),
    "no subjects": (lambda folder: change(folder, subjects=[]), "'The cohort' of a page would be empty"),
    "no scores": (remove("metrics.json"), "metrics.json cannot be read"),
    "no AUC": (damage("metrics.json", '"auc"', '"area"'), "metrics.json has no auc. Test again."),
    "no sites": (remove("sites.csv"), "holds no sites.csv. Test again."),
    "no rows": (lambda folder: (folder / "sites.csv").write_text(SITE_HEADER), "sites.csv has no rows"),
    "no column": (damage("floors.csv", "auc_low", "low"), "floors.csv lacks the columns auc_low"),
    "label": (damage("predictions.csv", "0.bin,0,NYU,0,", "0.bin,0,NYU,2,"), "wrong label in record 0.bin; expected 1"),
    "probability": (
        damage("predictions.csv", "0.bin,0,NYU,0,0.", "0.bin,0,NYU,0,7."),
        "wrong probability in record 0.bin; expected a number from 0 to 1",
    ),
    "not UTF-8": (
        lambda folder: (folder / "predictions.csv").write_bytes(b"\xff\xfe"),
        "predictions.csv is damaged",
    ),
    "folds": (
        lambda folder: people(120, 3).to_csv(folder / "predictions.csv", index=False),
        "has folds in one of predictions.csv and metrics.json only",
    ),
    "subject in two folds": (
        lambda folder: people(120, 3).assign(subject="1").to_csv(folder / "predictions.csv", index=False),
        "predictions.csv has a subject in two folds",
    ),
}
SITE_HEADER = "site,subjects,autism,control,auc,auc_low,auc_high,accuracy,accuracy_low,accuracy_high\n"


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_no_page(mistake, single):
    change_of, told = MISTAKES[mistake]
    change_of(single)
    outcome = run_main("utils.report.__main__", "report", [single])
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("abide-report: error: ") and told in outcome.err
    assert not (single / "report.html").exists()


@pytest.mark.slow
def test_the_command_builds_it_again(single):
    change(single, unknown_site=True)
    outcome = run_main("utils.report.__main__", "report", [single])
    assert (outcome.status, outcome.out) == (0, f"Report: {single}/report.html (SITE UNKNOWN)\n")
    assert (single / "report.html").is_file()
    assert "no folder" in run_main("utils.report.__main__", "report", [single / "not" / "there"]).err
    assert not (single / "not").exists()


def test_tables_that_the_test_did_not_write_so_are_named(single):
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in single.glob("*.csv")}
    manifest = {"outputs": ["*.csv"], "finished": True, "job": "test", "outputs_sha256": digests}
    manifest |= {"step": None, "override": False}
    change(single, **manifest)
    assert run_main("utils.report.__main__", "report", [single]).status == 0
    (single / "report.html").unlink()
    damage("predictions.csv", "0.bin,0,NYU,0,0.", "0.bin,0,NYU,0,0.9")(single)
    (single / "floors.csv").unlink()
    outcome = run_main("utils.report.__main__", "report", [single])
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "is not as the test wrote it: floors.csv, predictions.csv; " in outcome.err
    assert not (single / "report.html").exists()


@pytest.mark.slow
def test_a_history_without_a_finite_loss_is_said(single):
    (single / "training.csv").write_text("fold,step,loss\n,1,nan\n")
    assert run_main("utils.report.__main__", "report", [single]).status == 0
    page = Page((single / "report.html").read_text())
    assert page.paragraphs["Training"] == ["The history of the training holds no finite loss."]
