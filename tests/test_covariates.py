"""What is known of people by covariates and phenotype, and what the commands say and do with it."""

import re

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import COARSE, brain_map, read_rows, write_rows

from data.cohorts.covariates import KINDS, are_far, completed, known_covariates, odd_numbers, told
from data.cohorts.rows import Row
from data.cohorts.stored import open_cohort

RAW = pd.DataFrame(
    {"age": [9.25, 30.0], "sex_F": [1.0, 0], "sex_M": [0.0, 0], "fiq_missing": [0.0, 1], "fiq": [101.5, np.nan]}
    | {"viq": [90.0, 91.0], "handedness_right": [0.0, 1], "handedness_left": [1.0, 0], "handedness_score": [np.nan] * 2}
    | {"handedness_unknown": [0.0, 0], "iq_test_wasi": [1.0, 1], "mean_fd": [0.12, 0.3]},
    index=["a", "b"],
)


def test_what_covariates_lack_is_of_the_phenotype():
    found = completed(None, RAW)
    expected = {"age": ["9.25", "30"], "sex": ["F", ""], "fiq": ["101.5", ""], "handedness": ["left", "right"]}
    assert found.to_dict("list") == expected | {"mean_fd": ["0.12", "0.3"]}


def test_covariates_come_before_the_phenotype():
    table = pd.DataFrame({"Age": ["1", "2"], "SEX": ["1", "2"], "FSIQ": ["7", ""]}, index=["a", "b"])
    found = completed(table, RAW)
    assert list(found) == ["Age", "SEX", "FSIQ", "handedness", "mean_fd"] and found[list(table)].equals(table)
    assert completed(table, None) is table and completed(None, None) is None


AGES = [7.5, 9, 12, 14.25, 18, 21, 25, 33, 40, 64]
ODD = {
    "age": (
        ([999, 99, 45000, -1, 1230], ["-1", "1230", "45000", "99", "999"]),
        ([-7.5], ["-7.5"]),
        ([80, 0, 100], []),
        ([*range(18, 97, 2), 99], []),  # as old as that
    ),
    "AgeInDays": (([365 * age for age in AGES], []), ([41000], ["41000"])),
    "age_z": (([-1, -1.5, -9, -0.2, -2, 0], []),),
    "FIQ": (([99, 70, 148, 999, -1], ["-1", "999"]), ([160, 45], [])),
    "mean_fd": (([-9, 99], ["-9", "99"]), ([9, 100], ["100", "9"]), ([5], [])),
    "score": (([-1, 12], []), ([-99, 999], ["-99", "999"]), ([99, 97], [])),
}
USUAL = {"age": AGES, "AgeInDays": [4000.0] * 12, "age_z": [-1, 0.5, 1, 1.5, -0.5, 0, 2, -2, 0.1, 0.3]}
USUAL |= {"FIQ": range(75, 140, 5), "mean_fd": np.geomspace(0.02, 1.4, 40), "score": range(0, 98, 7)}


@pytest.mark.parametrize("name, more, odd", [(name, *case) for name, cases in ODD.items() for case in cases])
def test_numbers_that_are_likely_no_measurements_are_named(name, more, odd):
    """Also in the order of people, and beside cells that are empty."""
    values = np.random.default_rng(0).permutation([*map(str, [*USUAL[name], *more]), "", "n/a"])
    found = odd_numbers(pd.DataFrame({name: values, "text": "x"}))
    assert sorted(text.split()[1] for text in found) == odd


def test_of_few_people_only_what_nobody_can_be_is_odd():
    assert odd_numbers(pd.DataFrame({"age": ["99", "30", "99"]})) == []
    assert odd_numbers(pd.DataFrame({"age": ["999", "30"], "score": ["999", "1"]})) == ["age 999 (1)"]
    assert odd_numbers(pd.DataFrame({"age": ["", "n/a"]})) == odd_numbers(None) == []


def test_skewed_numbers_are_no_question():
    draw = np.random.default_rng(1).lognormal(-2.3, 0.6, (1000, 200))  # head motion in mm
    assert sum(bool(odd_numbers(pd.DataFrame({"mean_fd": of}))) for of in draw[:200]) == 0
    assert sum(are_far(of[:20]).any() for of in draw) <= 8  # in 1,000 small cohorts


def test_what_nobody_has_or_what_is_coded_otherwise_is_no_category():
    unknown = RAW[["fiq", "sex_F", "sex_M"]].assign(fiq=np.nan, sex_F=0.0)
    assert completed(None, unknown) is None
    both = pd.DataFrame({"sex": [0.0, 1.0], "sex_at_birth": [0.0, 1.0]}, index=["a", "b"])
    assert completed(None, both).to_dict("list") == {"sex": ["0", "1"]}


NAMED = {
    "age": "AGE_AT_SCAN, age, Age (years), AgeAtScan, ageInYears, subject_age",
    "sex": "SEX, gender, SubjectSex, biological_sex",
    "IQ": "FIQ, full_scale_iq, Full.Scale.IQ, fullIQ, IQ, FSIQ4, WASI_FSIQ",
    "handedness": "handedness, Hand, HANDEDNESS_CATEGORY, DominantHand",
    "head motion": "mean_fd, func_mean_fd, meanFD, FD_mean, FDmean, fdMean, mean_framewise_displacement",
    "": "image, average, handle, Essex, num_fd, VIQ, PIQ, iq_test_wasi, FIQ_TEST_TYPE, fiq_missing, verbal_iq, "
    "VerbalIQ, performance_iq, nonverbal_IQ, age_of_onset, AgeOfOnset, diagnosis_age, age_at_diagnosis, maternal_age, "
    "paternalAge, mother_age, age_father, gestational_age, handedness_unknown",
}


@pytest.mark.parametrize("kind, column", [(kind, name) for kind, of in NAMED.items() for name in of.split(", ")])
def test_covariates_are_known_by_their_names(kind, column):
    assert [name for name, of in KINDS.items() if of.names(column)] == [kind] * bool(kind)


def test_categories_are_no_number():
    """Nor do they hide the number beside them."""
    groups = {"age_group_child": [1.0, 0], "age_group_adult": [0.0, 1], "IQ_measure_WASI": [0.0, 1]}
    groups |= {"IQ_measure_WISC": [1.0, 0], "mean_fd_high": [1.0, 0], "mean_fd_low": [0.0, 1]}
    raw = pd.DataFrame(groups | {"FIQ": [101.5, np.nan], "age": [9.0, 30.0]}, index=["a", "b"])
    expected = {"age": ["9", "30"], "FIQ": ["101.5", ""]}
    assert completed(None, raw).to_dict("list") == expected
    texts = pd.DataFrame({"age_group": ["child", "adult"], "IQ": ["high", "low"]}, index=["a", "b"])
    assert completed(texts, raw).to_dict("list") == texts.to_dict("list") | expected
    rows = [Row("a.bin", "a", "NYU", 0.0, "train")]
    unknown = told(texts, raw[list(groups)], rows, named=False)
    assert unknown == "Covariates: age_group, IQ; not known: age, sex, IQ, handedness, head motion."
    assert completed(texts, raw.rename(columns={"FIQ": "IQ"}))["IQ"].tolist() == ["high", "low"]


def test_what_is_called_alike_hides_nothing():
    table = pd.DataFrame({"verbal_iq": ["90", "80"], "age_of_onset": ["3", ""]}, index=["a", "b"])
    raw = RAW.assign(maternal_age=[30.0, 31.0])[["maternal_age", "age", "viq", "fiq"]]
    assert list(completed(table, raw)) == ["verbal_iq", "age_of_onset", "age", "fiq"]
    assert list(completed(None, raw)) == ["age", "fiq"]
    assert completed(None, raw[["maternal_age", "viq"]]) is None


def test_categories_of_any_column_of_the_kind_are_its_text():
    columns = {"SubjectSex_M": [0.0, 1], "SubjectSex_F": [1.0, 0]}
    assert completed(None, pd.DataFrame(columns, index=["a", "b"])).to_dict("list") == {"SubjectSex": ["F", "M"]}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Maps of 60 people of two sites, and a table with age, sex and head motion."""
    folder = tmp_path_factory.mktemp("people") / "maps"
    folder.mkdir()
    rows = []
    for number in range(60):
        name = f"sub-{number + 101}"
        nibabel.save(nibabel.Nifti1Image(brain_map((8, 10, 8), number), COARSE), folder / f"{name}_falff.nii.gz")
        rows.append(
            {"participant_id": name, "site": "AB"[number // 4 % 2], "group": ("ASD", "TD")[number % 2]}
            | {"age": str(10 + number * 7 % 17), "sex": "FM"[number // 2 % 2], "iq": str(85 + number * 11 % 31)}
            | {"mean_fd": f"{0.1 + 0.01 * (number * 5 % 13):.2f}"}
        )
    write_rows(folder / "participants.csv", rows)
    return folder


def converted(data_cli, people, target, *more):
    arguments = ("--grid", "reduced", "--labelColumn", "group", "--positive", "ASD", "--phenotype", "age,sex")
    outcome = data_cli("convert", people, target, *arguments, *more)
    assert outcome.status < 2, outcome.err
    return re.search("^Covariates.*$", outcome.out, re.MULTILINE)[0], open_cohort(target)


def test_the_line_of_the_readme_takes_age_and_sex(people, data_cli, tmp_path):
    line, cohort = converted(data_cli, people, tmp_path / "cohort")
    assert line == "Covariates: site; from the phenotype: age, sex; not known: IQ, handedness, head motion."
    known = known_covariates(cohort)
    table = {row["participant_id"].removeprefix("sub-"): row for row in read_rows(people / "participants.csv")}
    assert known.to_dict("index") == {
        name.lstrip("0"): {column: table[name][column] for column in ("site", "age", "sex")} for name in known.index
    }


def test_covariates_that_are_named_are_all(people, data_cli, tmp_path):
    line, cohort = converted(data_cli, people, tmp_path / "cohort", "--covariates", "mean_fd")
    assert line == "Covariates, as named: site, mean_fd; not named, so left out: age, sex; not known: IQ, handedness."
    assert list(known_covariates(cohort)) == ["site", "mean_fd"]
    line, cohort = converted(data_cli, people, tmp_path / "none", "--covariates", "")
    assert line.startswith("Covariates, as named: site; not named, so left out: age, sex; not known:")
    assert list(known_covariates(cohort)) == ["site"]
