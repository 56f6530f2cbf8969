"""Findings: the census counts subjects and what is wrong with them; the verdict is stored and known again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import NAN, cohort_of, row, run_of, small_record

from data import __version__
from data.cohorts.rows import UNKNOWN_SITE, Metadata
from data.cohorts.seal import CohortFindings, Findings, Seal, Verdict, write_verdict
from data.cohorts.stored import open_cohort, write_tables

DAY = "2026-11-26T10:00:00+0000"
TWO_PROBLEMS = CohortFindings("cohort", people=Findings(problems=["one"]), maps=Findings(["a"], ["two"], ["n"]))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four records with their tables."""
    people = [row(str(number), float(number % 2), ("train", "test")[number // 2]) for number in range(4)]
    for number, person in enumerate(people):
        (tmp_path / person.file).write_bytes(small_record(person.label, number))
    write_tables(tmp_path, people, Metadata(grid=(31, 37, 31)))
    return tmp_path


def test_a_sound_cohort_is_counted():
    """The same subject's second record counts once."""
    people = [row("1"), row("2", 0.0), row("2", 0.0, file="b.bin"), row("3", split="test"), row("4", 0.0, "test")]
    found = cohort_of(*people).census()
    assert (found.every("problems"), found.every("notes")) == ([], [])
    assert [*found.lines()] == [
        "cohort: 5 records of 4 subjects, 31x37x31",
        "people",
        "  train: 2 subjects (1 control, 1 autism)",
        "  test: 2 subjects (1 control, 1 autism)",
        "sites",
        "  autism/control by site: NYU 2/2",
    ]
    assert "No problem" in found.conclusion


@pytest.mark.parametrize("site", [UNKNOWN_SITE, ""])
def test_an_unknown_site_is_no_site(site):
    people = [row(str(number), number % 2, ["train", "test"][number > 3], site=site) for number in range(6)]
    found = cohort_of(*people).census()
    assert found.sites.counts == [] and found.site_unknown
    assert "Site is unknown" in found.conclusion and "--siteColumn" in found.sites.notes[0]
    some = cohort_of(*people[:4], row("9", 0.0, "test", site="USM"), row("10", split="test", site="USM")).census()
    assert "Site is unknown" not in some.conclusion and "site unknown of 4 subjects" in some.sites.notes[0]


def test_what_is_wrong_with_a_split_is_told():
    people = [row("1"), row("2"), row("2", 0.0, file="b.bin"), row("3", NAN, "test", site="USM")]
    found = cohort_of(*people).census()
    assert found.every("problems") == [
        "the test split lacks a class (0 control, 0 autism, 1 unknown)",
        "both labels for one subject, of 1 subjects: 2",
    ]
    assert found.sites.counts == ["autism/control/unknown by site: NYU 1/1/0, USM 0/0/1"]
    assert found.conclusion == "2 problems invalidate results."


def test_a_cohort_to_be_tested_on_lacks_nothing():
    found = cohort_of(row("1", split="test"), row("2", split="test"), row("3", 0.0, "test", site="USM")).census()
    assert found.every("problems") == []
    assert found.every("notes") == [
        "no training subjects: a model can be tested on this cohort, not trained",
        "sites of several people with one class only, where site tells the label: NYU",
    ]


def test_folds_are_counted_in_place_of_a_split():
    people = [row(str(number), number % 2) for number in range(5)]
    found = cohort_of(*people).census({str(number): "ab"[number // 3] for number in range(5)})
    assert found.every("counts") == [
        "2 folds of 2 to 3 subjects, each tested by the others",
        "autism/control by site: NYU 2/3",
    ]


def test_an_accepted_leak_is_a_problem():
    people = [row("1"), row("2", 0.0), row("3", split="test"), row("4", 0.0, "test")]
    assert cohort_of(*people, accepted_leaks=("SRS",)).problems() == [
        "accepted by convert --allowLeak, though they tell the diagnosis: SRS"
    ]


def test_findings_on_maps_are_named_and_said_once():
    whole = Findings(["sum"])
    whole.add_parts({"falff": Findings(["a"], ["b"], ["c"]), "alff": Findings(["a"], [], ["d"])})
    assert whole == Findings(["sum", "falff, alff: a"], ["falff: b"], ["falff: c", "alff: d"])
    alone = Findings()
    alone.add_parts({"falff": Findings(["a"])})
    assert alone == Findings(["a"])


def test_problems_come_first_and_the_rest_by_heading():
    assert [*TWO_PROBLEMS.lines()] == ["cohort", "PROBLEM: one", "PROBLEM: two", "maps", "  a", "  note: n"]
    assert [*TWO_PROBLEMS.lines(counts=False)] == ["PROBLEM: one", "PROBLEM: two", "maps", "  note: n"]


def test_a_verdict_is_of_the_cohort_as_it_was_checked(folder):
    cohort = open_cohort(folder)
    assert cohort.seal.verdict is None
    assert write_verdict(folder, cohort.seal.sha256, TWO_PROBLEMS) is None
    saved = json.loads((folder / "check.json").read_text())
    assert saved["cohort_sha256"] == cohort.seal.sha256 and saved["version"] == __version__
    assert (saved["problems"], saved["notes"]) == (["one", "two"], 1)
    assert open_cohort(folder).seal.verdict == Verdict(**saved | {"problems": ("one", "two")})
    write_tables(folder, cohort.rows, replace(cohort.metadata, simulated=True))
    assert open_cohort(folder).seal.verdict is None  # the cohort is another one
    (folder / "check.json").write_bytes(b'{"problems": [')
    assert open_cohort(folder).seal.verdict is None


def test_a_verdict_without_a_place_is_not_stored(folder):
    (folder / "check.json").mkdir()  # such a file cannot be replaced
    assert "check.json: Is a directory" in write_verdict(folder, "", TWO_PROBLEMS)
    assert open_cohort(folder).seal.verdict is None


def test_folds_take_the_place_of_a_split_that_lacks_a_class():
    """What else the check found stays."""
    cohort = cohort_of(row("1"), row("2", 0.0), row("3", split="test"), row("4", split="test"))
    lacking, *_ = cohort.census().every("problems")
    cohort = replace(cohort, seal=Seal(verdict=Verdict("", "2026-11-26", __version__, (lacking, "copies"), 0)))
    assert cohort.problems() == [lacking, "copies"]
    assert cohort.problems({"1": "0", "2": "0", "3": "1", "4": "1"}) == ["copies"]
    assert [run_of(model, cohort).caveats.problems for model in ("nn", "ae")] == [(lacking, "copies"), ("copies",)]


@pytest.mark.parametrize(
    "verdict, problems, line",
    [
        (None, [], "Not checked: abide-data check 'my cohort'"),
        (None, ["a"], "1 problem invalidates results: a. Not checked further: abide-data check 'my cohort'"),
        (
            Verdict("", DAY, __version__, (), 3),
            [],
            "Checked on 2026-11-26: no problem was found in the records themselves, 3 notes.",
        ),
        (
            Verdict("", DAY, "1.0.0", (), 3),
            list("abcd"),
            "Checked on 2026-11-26: 4 problems invalidate results: a; b; c and 1 more.",
        ),
        (
            Verdict("", DAY, __version__, (), 0),
            ["\x1b[1ma\n"],
            "Checked on 2026-11-26: 1 problem invalidates results: [1ma.",
        ),
    ],
)
def test_every_job_says_the_verdict_in_one_line(verdict, problems, line):
    assert Seal(verdict=verdict).check_line(problems, Path("my cohort")) == line
