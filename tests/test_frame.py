"""The frame of all pages: what is escaped, folded and defined; the index of runs."""

import json

import pytest
from helpers import Page as Parsed
from helpers import run_main
from matplotlib.figure import Figure
from test_report import people, write_tables

from data.pages.drawings import Bar, Forest, svg
from data.pages.page import Number, Page, Section, is_page, render
from utils.report import build, texts
from utils.runs.folders import changed, read_manifest, sha256
from utils.scores.results import NO_INTERVAL, Estimate

HOSTILE = "<script>alert(1)</script>"


def page_of(*sections: Section, **more) -> str:
    return render(Page("report", "A title", "About", sections, **more))


def test_text_is_escaped_wherever_it_stands():
    rows = [{HOSTILE: HOSTILE, "b": "0.5 (0.4 to 0.6)"}]
    text = page_of(
        Section(HOSTILE, [HOSTILE], table=rows, facts={HOSTILE: HOSTILE}, meanings={HOSTILE: HOSTILE}),
        numbers=[Number(HOSTILE, HOSTILE, HOSTILE)],
        figure=Forest(HOSTILE, [Bar(HOSTILE, 1.0, 0.5, 1.5, HOSTILE)], 1.0),
    )
    parsed = Parsed(text)
    assert parsed.tags.count("script") == 1 and HOSTILE not in text
    assert parsed.rows[HOSTILE][1] == [HOSTILE, "0.5 (0.4 to 0.6)"]


def test_what_is_not_the_verdict_is_folded_and_a_meaning_stands_beside_its_column():
    meanings = {"p": "a chance", "absent": "never said"}
    table = [{"name": "a", "p": "0.1"}]
    text = page_of(
        Section("First", ["x"], kind="conclusion"),
        Section("Second", table=table, meanings=meanings, rest=("2 more", table)),
        Section("Third", ["z"], open=True),
    )
    assert '<details class="fold" id="second">' in text and '<details class="fold" id="third" open>' in text
    assert '<section class="conclusion" id="first">' in text and 'href="#second"' in text
    assert text.count("a chance") == 3 and "never said" not in text  # beside both tables, and below them in print


def test_only_a_long_table_is_cut_in_height():
    text = page_of(*(Section(f"Of {count}", table=[{"a": "1"}] * count) for count in (2, 41)))
    assert text.count('<div class="scroll" ') == text.count('<div class="scroll long" ') == 1


def test_a_section_without_anything_is_a_mistake():
    with pytest.raises(Exception, match="'Empty' of a page would be empty"):
        Section("Empty", [])


def test_black_and_white_follow_the_page_and_texts_do_not():
    figure = Figure()
    figure.set_label("one")
    figure.text(0, 0, "#000000", color="black")
    drawn = svg(figure)
    assert ">#000000<" in drawn and "var(--paper)" in drawn and "#ffffff" not in drawn


def test_rows_that_only_count_people_are_folded():
    rows = [{"site": "A 1", "subjects": "40", "AUC": "0.6"}, {"site": "B 2", "subjects": "4", "AUC": "-"}]
    found = texts.few_apart(rows)
    assert found["table"] == rows[:1] and found["rest"][1] == rows[1:]
    assert texts.few_apart(rows[1:]) == {"table": rows[1:]}


def test_a_conclusion_is_shown_by_sentences():
    assert texts.sentences("AUC 0.58, 0.50 to 0.66 (0.5 is guessing). Is it motion? No.") == [
        "AUC 0.58, 0.50 to 0.66 (0.5 is guessing).",
        "Is it motion? No.",
    ]


def test_an_estimate_says_its_interval_or_that_there_is_none():
    assert Estimate(1.0, None, None).text(".2f") == f"1.00 ({NO_INTERVAL})" and "too few people" in NO_INTERVAL
    assert Estimate(0.61, 0.5, 0.7).text() == "0.610 (0.500 to 0.700)"
    assert Estimate(None, None, None).text(undefined="undefined") == "undefined"


def run_folder(folder, name: str, **content) -> None:
    (folder / name).mkdir()
    about = {"format": 1, "outputs": [], "finished": True, "job": "test", "model": "nn", "records_sha256": "r"}
    about |= {"step": None, "override": False, "outputs_sha256": {}}
    (folder / name / "run.json").write_text(json.dumps(about | content))


def test_the_index_has_a_row_a_finished_run(tmp_path):
    run_folder(
        tmp_path,
        "a b",
        headline=["auc_sites", 0.61, 0.5, 0.7],
        cohort="/secret/place/cohort",
        simulated=True,
        started="2026-01-02T03:04:05+0000",
        wall_time_s=1234.5,
        folds="site",
        seed=3,
    )
    (tmp_path / "a b" / "report.html").write_text("")
    run_folder(tmp_path, "unfinished", finished=False)
    run_folder(tmp_path, "old")
    run_folder(tmp_path, "few", headline=["auc", 0.714, None, None], started="2025")
    run_folder(tmp_path, "trained", headline=["loss after 4 batches", 0.123, None, None], job="train", started="2024")
    (tmp_path / "notes").mkdir()
    assert run_main("utils.report.__main__", "abide-report", [tmp_path]).out.startswith("Index of 4 runs")
    text = (tmp_path / "index.html").read_text()
    header, first, few, trained, last = Parsed(text).rows["Runs"]
    assert f"0.714 ({NO_INTERVAL})" in few and trained[0] == "trained" and "0.123" not in text and "loss" not in text
    row = dict(zip(header, first, strict=True))
    assert row["score"] == "0.610 (0.500 to 0.700)" and row["of"] == "AUC within sites" and row["took"] == "1,234 s"
    assert row["cohort"] == "cohort (SIMULATED)" and row["people"] == "folds: site" and "secret" not in text
    assert 'href="a%20b/report.html"' in text and last[0] == "old" and is_page(tmp_path / "index.html", "index")


def test_the_index_takes_no_page_of_the_users(tmp_path):
    run_folder(tmp_path, "a")
    (tmp_path / "index.html").write_text("mine")
    outcome = run_main("utils.report.__main__", "abide-report", [tmp_path])
    assert outcome.status == 2 and "is no index of runs" in outcome.err
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_kill_while_a_report_is_built_again_leaves_the_test_whole(tmp_path, monkeypatch):
    folder = write_tables(tmp_path / "te", people(60))
    (folder / "report.html").write_text("old")
    content = json.loads((folder / "run.json").read_text())
    known = {"finished": True, "outputs": [], "outputs_sha256": {"report.html": sha256(folder / "report.html")}}
    known |= {"job": "test", "step": None, "override": False}
    (folder / "run.json").write_text(json.dumps(content | known))

    def killed(folder):
        (folder / "report.html").write_text("new")
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        build.write_again(folder)
    assert not changed(folder, read_manifest(folder))
