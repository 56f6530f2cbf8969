"""New people converted like a cohort: the same bytes as if they had been its test subjects, and nothing learnt."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import read_rows, resealed
from people import ROWS, write_people

from data.cohorts.cohort import Cohort
from data.cohorts.stored import open_cohort
from data.cohorts.variants import resplit

NO_LABEL = ("DX_GROUP",)


def rows_of(subjects) -> list[dict]:
    return [row for row in ROWS if row["SUB_ID"] in set(subjects)]


@pytest.fixture(scope="module")
def everybody(tmp_path_factory) -> Path:
    return write_people(tmp_path_factory.mktemp("source") / "everybody", ROWS)


@pytest.fixture(scope="module")
def whole(everybody, data_cli, tmp_path_factory) -> Cohort:
    target = tmp_path_factory.mktemp("whole") / "cohort"
    outcome = data_cli("convert", everybody, target, "--grid", "reduced")
    assert outcome.status < 2, outcome.err
    return open_cohort(target)


@pytest.fixture(scope="module")
def set_aside(whole) -> list[dict]:
    return rows_of(whole.subjects("test"))


@pytest.fixture
def like(data_cli, tmp_path):
    """`like(folder, cohort, ...)` converts; gives the outcome and where to."""

    def run(folder: Path, cohort: Path, *arguments):
        target = tmp_path / f"like-{folder.name}"
        return data_cli("convert", folder, target, "--like", cohort, *arguments), target

    return run


@pytest.mark.slow
def test_people_set_aside_get_the_same_records(whole, set_aside, like, tmp_path):
    outcome, target = like(write_people(tmp_path / "new", set_aside), whole.path)
    assert outcome.status == 0, outcome.err
    new = open_cohort(target)
    assert len(new.rows) == len(set_aside) == 4
    for row in new.rows:
        assert (target / row.file).read_bytes() == (whole.path / row.file).read_bytes()
        assert row in whole.rows
    for name in ("covariates.csv", "phenotype.csv", "maps.csv"):
        kept = [row for row in read_rows(whole.path / name) if row["subject"] in new.subjects("test")]
        assert read_rows(target / name) == kept
    assert new.metadata.preparation == whole.metadata.preparation
    assert new.metadata.provenance["like"] == whole.digest
    assert new.metadata.phenotype_auc == {}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no column", "no value"])
def test_without_labels_only_the_label_bytes_differ(how, whole, set_aside, like, data_cli, tmp_path):
    rows, drop = (set_aside, NO_LABEL) if how == "no column" else ([row | {"DX_GROUP": ""} for row in set_aside], ())
    outcome, target = like(write_people(tmp_path / "new", rows, drop), whole.path)
    assert outcome.status == 0, outcome.err
    assert ("--labelColumn and --positive name one" in outcome.out) == (how == "no column")
    assert "4 subjects of unknown diagnosis are kept" in outcome.out
    assert "4 test unknown" in outcome.out
    new = open_cohort(target)
    for index, row in enumerate(new.rows):
        content = (target / row.file).read_bytes()
        assert content[4:] == (whole.path / row.file).read_bytes()[4:]
        assert np.isnan(np.frombuffer(content, "<f4")[0])
        assert (row.known, row.split, new.header(index)) == (False, "test", content[:120])
    assert {row["label"] for row in read_rows(target / "subjects.csv")} == {""}
    checked = data_cli("check", target)
    assert (checked.status, checked.err) == (0, "")
    assert "test: 4 subjects (0 control, 0 autism, 4 unknown)" in checked.out
    assert "note: no training subjects" in checked.out


def test_some_labels_may_be_known_and_of_one_class_only(whole, set_aside, like, tmp_path):
    rows = [row | {"DX_GROUP": "2" if at else ""} for at, row in enumerate(set_aside)]
    outcome, target = like(write_people(tmp_path / "new", rows), whole.path)
    assert outcome.status == 0, outcome.err
    assert "1 subjects of unknown diagnosis are kept" in outcome.out
    assert [row["label"] for row in read_rows(target / "subjects.csv")] == ["", "0", "0", "0"]


def test_a_named_label_column_and_other_diagnoses(whole, set_aside, like, tmp_path):
    diagnosis = ("ASD", "TD", "ADHD", "")
    rows = [row | {"dx": value} for row, value in zip(set_aside, diagnosis, strict=True)]
    folder = write_people(tmp_path / "new", rows, NO_LABEL)
    outcome, _ = like(folder, whole.path, "--labelColumn", "dx", "--positive", "ASD")
    assert (outcome.status, "holds ADHD, ASD, TD" in outcome.err) == (2, True)
    outcome, target = like(folder, whole.path, "--labelColumn", "dx", "--positive", "ASD", "--negative", "TD")
    assert outcome.status == 0, outcome.err
    assert "1 left out, dx is ADHD" in outcome.out
    assert [row["label"] for row in read_rows(target / "subjects.csv")] == ["1", "0", ""]
    outcome, _ = like(folder, whole.path, "--labelColumn", "dx")
    assert (outcome.status, "--positive VALUE" in outcome.err) == (2, True)


def test_a_misspelt_value_for_autism_is_no_control(whole, set_aside, like, tmp_path):
    rows = [row | {"dx": "ASD"} for row in set_aside]
    outcome, _ = like(write_people(tmp_path / "new", rows), whole.path, "--labelColumn", "dx", "--positive", "asd")
    assert (outcome.status, "holds ASD; expected" in outcome.err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("own", [(), ("--phenotype", "AGE_AT_SCAN,hand,iq", "--covariates", "hand,func_mean_fd")])
def test_the_whole_cut_like_the_rest_is_what_the_rest_makes_of_them(
    own, set_aside, data_cli, like, everybody, tmp_path
):
    rest_rows = [row for row in ROWS if row not in set_aside]
    rest, whole = tmp_path / "rest", tmp_path / "whole"
    write_people(tmp_path / "source", rest_rows)
    for source, target in ((tmp_path / "source", rest), (everybody, whole)):
        outcome = data_cli("convert", source, target, "--grid", "reduced", "--seed", 5, *own)
        assert outcome.status < 2, outcome.err
    outcome, target = like(write_people(tmp_path / "new", set_aside), rest)
    assert outcome.status < 2, outcome.err
    opened, training = open_cohort(whole), open_cohort(rest).subjects("train")
    cut = resplit(opened, {row.subject: "train" if row.subject in training else "test" for row in opened.rows})
    header = {row.subject: cut.header(index) for index, row in enumerate(cut.rows)}
    for made in (open_cohort(target), open_cohort(rest)):
        for index, row in enumerate(made.rows):
            assert made.header(index) == header[row.subject]
    covariates = open_cohort(target).covariates
    assert covariates.equals(opened.covariates.loc[covariates.index])
    expected = ["SITE_ID", "hand", "func_mean_fd"] if own else ["SITE_ID", "AGE_AT_SCAN", "SEX", "func_mean_fd"]
    assert covariates.columns.tolist() == expected


def test_nothing_is_learnt_from_new_people(whole, set_aside, like, tmp_path):
    """One of them has the same record whoever else comes along, and whatever they are like."""
    strange = [set_aside[0]] + [row | {"AGE_AT_SCAN": "99", "FIQ": "300"} for row in set_aside[1:]]
    outcome, target = like(write_people(tmp_path / "new", strange), whole.path)
    assert outcome.status == 0, outcome.err
    name = f"{set_aside[0]['SUB_ID']}.bin"
    assert (target / name).read_bytes() == (whole.path / name).read_bytes()
    other = f"{set_aside[1]['SUB_ID']}.bin"
    age = (99 - whole.metadata.phenotype_mean[0]) / whole.metadata.phenotype_scale[0]
    assert np.fromfile(target / other, "<f4", 2)[1] == pytest.approx(age, rel=1e-6)


@pytest.mark.slow
def test_categories_and_marks_of_missing_values_are_the_cohorts(everybody, set_aside, data_cli, like, tmp_path):
    """A hand that nobody had is none of the known ones, and told; a missing value that nobody missed is the median."""
    arguments = ("--grid", "reduced", "--phenotype", "AGE_AT_SCAN,hand")
    assert data_cli("convert", everybody, tmp_path / "whole", *arguments).status < 2
    rows = [row | {"hand": "foot", "AGE_AT_SCAN": ""} for row in set_aside]
    outcome, target = like(write_people(tmp_path / "new", rows), tmp_path / "whole")
    assert outcome.status == 0, outcome.err
    assert "hand foot is none of both, left, right, and taken as unknown." in outcome.out
    new = open_cohort(target)
    assert new.metadata.phenotype[:5] == ("AGE_AT_SCAN", "hand_both", "hand_left", "hand_right", "unused_5")
    assert new.metadata.phenotype_categories == {"hand": ("both", "left", "right")}
    assert (new.raw_phenotype.iloc[:, 1:] == 0).all(axis=None)
    median, mean, scale = (getattr(new.metadata, f"phenotype_{name}")[0] for name in ("median", "mean", "scale"))
    assert new.read(0)[1][0] == pytest.approx((median - mean) / scale, rel=1e-6)


def test_covariates_that_are_absent_are_empty_and_named(whole, set_aside, like, tmp_path):
    outcome, target = like(write_people(tmp_path / "new", set_aside, ("func_mean_fd", "SITE_ID")), whole.path)
    assert outcome.status == 0, outcome.err
    assert "lacks are empty: SITE_ID, func_mean_fd." in outcome.out
    opened = open_cohort(target)
    assert opened.covariates.columns.tolist() == open_cohort(whole.path).covariates.columns.tolist()
    assert (opened.covariates[["SITE_ID", "func_mean_fd"]] == "").all(axis=None)
    assert (opened.covariates[["AGE_AT_SCAN", "SEX"]] != "").all(axis=None)


@pytest.mark.parametrize("flag", [("--grid", "full"), ("--phenotype", "age"), ("--covariates", ""), ("--seed", "0")])
def test_what_the_cohort_chooses_is_not_chosen_again(flag, whole, everybody, like):
    outcome, target = like(everybody, whole.path, *flag)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"{flag[0]} is chosen by --like" in outcome.err
    assert not target.exists()


def test_columns_of_the_phenotype_that_are_absent_are_named(whole, set_aside, like, tmp_path):
    outcome, _ = like(write_people(tmp_path / "new", set_aside, ("FIQ", "BMI")), whole.path)
    assert outcome.status == 2
    assert f"Phenotypic.csv lacks FIQ, BMI, which the phenotype of {whole.path} is made of" in outcome.err


def test_maps_of_another_kind_are_refused_with_both_named(whole, set_aside, like, tmp_path):
    def z_scored(values):
        return np.where(values > 0, (values - values[values > 0].mean()) / 0.2, 0).astype(np.float32)

    outcome, target = like(write_people(tmp_path / "new", set_aside, change=z_scored), whole.path)
    assert outcome.status == 2
    assert "The maps are z-scored, such as X_00" in outcome.err
    assert "unlike those of the cohort or bundle, from 0 to 1" in outcome.err
    assert not (target / "cohort.json").exists()


@pytest.mark.slow
def test_where_the_kind_is_not_known_it_is_said(whole, set_aside, like, data_cli, tmp_path):
    assert data_cli("pack", whole.path, tmp_path / "packed", "--zip").status == 0
    (tmp_path / "packed" / "maps.csv").unlink()
    resealed(tmp_path / "packed")
    outcome, target = like(write_people(tmp_path / "new", set_aside), tmp_path / "packed")
    assert outcome.status == 0, outcome.err
    assert "packed has no maps.csv" in outcome.out
    name = f"{set_aside[0]['SUB_ID']}.bin"
    assert (target / name).read_bytes() == (whole.path / name).read_bytes()


def changed_metadata(whole: Cohort, target: Path, data_cli, **changes) -> Path:
    assert data_cli("pack", whole.path, target, "--bin").status == 0
    metadata = json.loads((target / "cohort.json").read_text())
    metadata = {name: value for name, value in (metadata | changes).items() if value is not None}
    (target / "cohort.json").write_text(json.dumps(metadata))
    return resealed(target)


REFUSED = {
    "an encoder's": ({"reduction": "encoder abc"}, "convert --like the full-size cohort that it was made from, then"),
    "simulated": ({"reduction": "simulated"}, "does not say that it was made of maps"),
    "unknown": ({"reduction": None}, "does not say that it was made of maps"),
    "of unknown columns": ({"phenotype": [f"x{n}" for n in range(29)]}, "does not say of which columns its phenotype"),
    "of unknown scale": ({"phenotype_scale": None}, "does not say of which columns its phenotype"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_cohorts_that_cannot_be_followed(what, whole, set_aside, like, data_cli, tmp_path):
    changes, words = REFUSED[what]
    cohort = changed_metadata(whole, tmp_path / "changed", data_cli, **changes)
    outcome, _ = like(write_people(tmp_path / "new", set_aside), cohort)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err


@pytest.mark.slow
def test_an_interrupted_conversion_is_completed_by_repeating_it(whole, set_aside, like, tmp_path, monkeypatch):
    folder = write_people(tmp_path / "new", set_aside)
    with monkeypatch.context() as patch:
        patch.setattr("data.conversion.plan.write_tables", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        outcome, target = like(folder, whole.path)
    assert outcome.status == 130
    assert (target / "phenotype.csv").exists()
    assert not (target / "subjects.csv").exists()
    outcome, target = like(folder, whole.path)
    assert outcome.status == 0, outcome.err
    assert len(open_cohort(target).rows) == 4


@pytest.mark.slow
def test_covariates_of_other_tables(everybody, data_cli, tmp_path):
    """The column of sites is always kept; unknown and leaking columns are refused."""
    other = ("--grid", "reduced", "--phenotype", "AGE_AT_SCAN", "--siteColumn", "hand")
    outcome = data_cli("convert", everybody, tmp_path / "a", *other, "--covariates", "iq,hand")
    assert outcome.status < 2, outcome.err
    assert open_cohort(tmp_path / "a").covariates.columns.tolist() == ["hand", "iq"]
    iq = {row["SUB_ID"]: row["iq"] for row in ROWS}
    assert open_cohort(tmp_path / "a").covariates["iq"].to_dict() == iq
    for named, words in {
        "weight": "has no column weight (--covariates); it has SUB_ID, SITE_ID,",
        "DX_GROUP": "--covariates DX_GROUP is the label itself",
    }.items():
        outcome = data_cli("convert", everybody, tmp_path / "b", *other, "--covariates", named)
        assert (outcome.status, words in outcome.err) == (2, True)
    rows = [row | {"ADOS_TOTAL": str(9 + at % 3)} for at, row in enumerate(ROWS[:12])]
    leaking = (write_people(tmp_path / "leaking", rows), tmp_path / "c", *other, "--covariates", "ADOS_TOTAL")
    outcome = data_cli("convert", *leaking)
    assert (outcome.status, "--covariates ADOS_TOTAL measures or follows from" in outcome.err) == (2, True)
    assert data_cli("convert", *leaking, "--allowLeak").status < 2
    assert "ADOS_TOTAL" in open_cohort(tmp_path / "c").covariates
    assert open_cohort(tmp_path / "c").metadata.accepted_leaks[0] == "ADOS_TOTAL"


@pytest.mark.slow
def test_people_are_left_out_by_name_and_by_a_condition(everybody, data_cli, tmp_path):
    """Counted apart where the condition depends on a missing value; whom --exclude does not find is told."""
    condition = "AGE_AT_SCAN < 30 and iq > 90"
    chosen = ("--grid", "reduced", "--exclude", "50002,X_0050003,99999", "--where", condition)
    outcome = data_cli("convert", everybody, tmp_path / "out", *chosen)
    assert outcome.status < 2, outcome.err
    assert "--exclude names 1 of whom there is neither a row nor a map: 99999." in outcome.out
    named = {"50002", "50003"}
    others = [row for row in ROWS if row["SUB_ID"] not in named]
    false = {row["SUB_ID"] for row in others if float(row["AGE_AT_SCAN"]) >= 30 or (row["iq"] and int(row["iq"]) <= 90)}
    unknown = {row["SUB_ID"] for row in others if not row["iq"]} - false
    assert false and unknown
    cohort = open_cohort(tmp_path / "out")
    left_out = {reason: set(names) for reason, names in cohort.metadata.provenance["left_out"].items() if names}
    assert left_out == {
        "named by --exclude": named,
        f"--where {condition} is false": false,
        f"--where {condition} depends on a missing value": unknown,
    }
    assert {row.subject for row in cohort.rows} == {row["SUB_ID"] for row in others} - false - unknown
    assert f"2 left out, named by --exclude: {', '.join(sorted(named))}" in outcome.out


def test_training_people_are_left_out_as_the_refusal_says(whole, everybody, like, tmp_path):
    refused, target = like(everybody, whole.path)
    words = f"36 subjects of {everybody}/Phenotypic.csv are training subjects of {whole.path}; expected new people."
    assert (refused.status, words in refused.err) == (2, True)
    assert not target.exists()
    outcome, target = like(everybody, whole.path, "--exclude", refused.err.split("--exclude ")[1].strip())
    assert outcome.status == 0, outcome.err
    assert open_cohort(target).subjects("test") == whole.subjects("test")


@pytest.mark.slow
def test_the_column_of_sites_is_that_of_the_cohort(everybody, like, data_cli, tmp_path):
    sites = ("--grid", "reduced", "--phenotype", "AGE_AT_SCAN", "--siteColumn", "hand")
    assert data_cli("convert", everybody, tmp_path / "by hand", *sites).status < 2
    training = ",".join(open_cohort(tmp_path / "by hand").subjects("train"))
    outcome, target = like(everybody, tmp_path / "by hand", "--exclude", training)
    assert outcome.status == 0, outcome.err
    assert "Site: hand, " in outcome.out
    of_subject = {row["SUB_ID"]: row["hand"] for row in ROWS}
    assert all(row.site == of_subject[row.subject] for row in open_cohort(target).rows)


@pytest.mark.slow
def test_who_is_left_out_never_has_a_record(data_cli, tmp_path):
    """Two rows, of which one is of another diagnosis, and a second map under the bare ID."""
    rows = [row | {"DX_GROUP": "3", "FILE_ID": row["SUB_ID"]} for row in ROWS[:1]]
    folder = write_people(tmp_path / "twice", [*ROWS, *rows])
    coding = ("--labelColumn", "DX_GROUP", "--positive", "1", "--negative", "2")
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", *coding)
    assert outcome.status < 2, outcome.err
    assert "left out" not in outcome.out
    assert "Another row or map of 50002, who have a record, is not used: DX_GROUP is 3." in outcome.out
