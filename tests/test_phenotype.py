"""The 29 phenotype values against a reading by hand, scaled as NumPy does; covariates; gaps that tell the label."""

import re
import shutil
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, run
from oracles import EXPECTED_VALUES, PCP_COLUMNS, PCP_ROWS
from scipy.stats import fisher_exact

pytestmark = pytest.mark.slow

LEAKING = {"ADOS_TOTAL": "14", "SRS_RAW_TOTAL": "99", "AQ_TOTAL": "-9999", "DSM_IV_TR": "1", "COMORBIDITY": "ADHD"}
CONVERT = "abide-data convert {of}/lab {of}/out --grid reduced"


def read_raw_phenotype(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "phenotype.csv", dtype={"subject": str}).set_index("subject")


def impute_and_scale(raw: pd.DataFrame, training: list[str]) -> pd.DataFrame:
    """Gaps filled by the median of the training people, 0 if nobody has one; then z-scores of these, 0 if constant."""
    filled = raw.fillna(raw.loc[training].median()).fillna(0)
    spread = filled.loc[training].std(ddof=0)
    return ((filled - filled.loc[training].mean()) / spread.where(spread > 1e-9)).fillna(0)


def read_stored_phenotype(folder: Path) -> np.ndarray:
    """The values in the records, in the order of the table."""
    names = lab.read_table(folder / "subjects.csv")["file"]
    return np.stack([np.fromfile(folder / name, "<f4", 30)[1:] for name in names])


def find_training_subjects(folder: Path) -> list[str]:
    table = lab.read_table(folder / "subjects.csv")
    return table["subject"][table["split"] == "train"].tolist()


@pytest.fixture(scope="module")
def converted_six(tmp_path_factory) -> Path:
    """The cohort of twelve people who have the values of PCP_ROWS, and columns that measure the diagnosis."""
    folder = tmp_path_factory.mktemp("six")
    table = lab.people(12).assign(**LEAKING)
    table[PCP_COLUMNS] = [PCP_ROWS[row_index % 6] for row_index in range(12)]
    lab.pcp(folder / "lab", table)
    done(CONVERT, of=folder)
    return folder / "out"


def test_all_values_against_a_reading_by_hand(converted_six):
    """Columns that leak the diagnosis change nothing."""
    phenotype = read_raw_phenotype(converted_six)
    assert phenotype.shape == (12, 29) and phenotype.columns.is_unique
    for row_index, (subject, row) in enumerate(phenotype.iterrows()):
        np.testing.assert_array_equal(row, EXPECTED_VALUES[row_index % 6], subject)
    words = ("ados", "srs", "aq", "dsm", "comorb", "dx")
    assert not [name for name in phenotype if name.lower().startswith(words)]


def test_records_hold_the_values_imputed_and_scaled_on_training_people(converted_six, cohort):
    for folder in (converted_six, cohort):
        expected = impute_and_scale(read_raw_phenotype(folder), find_training_subjects(folder))
        np.testing.assert_allclose(read_stored_phenotype(folder), expected, atol=1e-4)


MARKS = ["NA", "#N/A", "n/a", "NaN", ".", "-", "--", "", " ", "-9999", " -9999 ", "-9999.0", "-999", "`", "NULL", "?"]


@pytest.fixture(scope="module")
def custom_lab(tmp_path_factory) -> Path:
    """A lab of 32 people whose own column `dose` has every mark of a missing value, and `clinic` some numbers."""
    folder = tmp_path_factory.mktemp("own")
    table = lab.people(32)
    table["dose"] = [mark for number, mark in enumerate(MARKS) for mark in (str(100 + 7 * number % 31), mark)]
    table["clinic"] = [("A", "B", "3", "A")[row_index // 2 % 4] for row_index in range(32)]
    table["AGE_AT_SCAN"] = [f"{10 + row_index % 5}.5" for row_index in range(32)]
    lab.pcp(folder / "lab", table)
    return folder


def test_custom_columns_are_numbers_or_categories(custom_lab):
    """Each mark of a missing value is one."""
    done(f"{CONVERT} --phenotype dose,clinic,hand", of=custom_lab)
    phenotype, table = (
        read_raw_phenotype(custom_lab / "out"),
        lab.read_table(custom_lab / "lab/Phenotypic.csv").set_index("SUB_ID"),
    )
    expected = ["dose", "dose_missing", "clinic_3", "clinic_A", "clinic_B", "hand_both", "hand_left", "hand_right"]
    assert phenotype.columns[:8].tolist() == expected and all(phenotype.columns[8:].str.startswith("unused_"))
    assert phenotype["dose"].tolist()[::2] == table["dose"].astype(str)[::2].astype(float).tolist()
    assert phenotype["dose"][1::2].isna().all() and phenotype["dose_missing"].tolist() == [0, 1] * 16
    for name in ("3", "A", "B"):
        assert (phenotype[f"clinic_{name}"] == (table["clinic"] == name)).all()
    np.testing.assert_allclose(
        read_stored_phenotype(custom_lab / "out"),
        impute_and_scale(phenotype, find_training_subjects(custom_lab / "out")),
        atol=1e-4,
    )


def test_european_and_quoted_tables_give_the_same_people(custom_lab, tmp_path):
    """Whatever separates the columns, decimal commas, a byte-order mark, and a line that names the delimiter."""
    command = "abide-data convert {of}/lab {to} --grid reduced --phenotype AGE_AT_SCAN,iq"
    done(command, of=custom_lab, to=tmp_path / "plain")
    expected, table = (
        read_raw_phenotype(tmp_path / "plain"),
        lab.read_table(custom_lab / "lab/Phenotypic.csv").drop(columns="dose"),
    )
    commas = table.assign(AGE_AT_SCAN=table["AGE_AT_SCAN"].str.replace(".", ","))
    forms = {
        "tabs": table.to_csv(sep="\t", index=False),
        "commas": "\ufeff" + table.to_csv(index=False, quoting=1),
        "european": "sep=;\r\n" + commas.to_csv(sep=";", index=False, lineterminator="\r\n"),
    }
    for name, text in forms.items():
        lab.copy(custom_lab / "lab", tmp_path / name / "lab")
        lab.edit(tmp_path / name / "lab/Phenotypic.csv", text.encode())
        done(command, of=tmp_path / name, to=tmp_path / f"of-{name}")
        pd.testing.assert_frame_equal(read_raw_phenotype(tmp_path / f"of-{name}"), expected)


# Covariates


def find_covariates_line(printed_text: str) -> str:
    return re.search("^covariates +(.*)$", printed_text, re.MULTILINE)[1]


def test_covariates_are_recognised_by_name_or_by_the_option(custom_lab, tmp_path):
    """Site, age, sex, motion of the table or of the phenotype; those that are named are all."""
    table = lab.read_table(custom_lab / "lab/Phenotypic.csv")
    renamed = {"AGE_AT_SCAN": "Age (years)", "SEX": "biological_sex", "FIQ": "WASI_FSIQ", "func_mean_fd": "meanFD"}
    renamed |= {"HANDEDNESS_CATEGORY": "DominantHand", "VIQ": "verbal_iq", "BMI": "age_of_onset"}
    lab.copy(custom_lab / "lab", tmp_path / "lab")
    lab.edit(tmp_path / "lab/Phenotypic.csv", table.rename(columns=renamed).to_csv(index=False).encode())
    command = f"{CONVERT} --labelColumn DX_GROUP --positive 1 --phenotype meanFD,biological_sex"
    covariates_line_text = find_covariates_line(done(f"{command} --dryRun", of=tmp_path))
    assert "verbal_iq" not in covariates_line_text and "age_of_onset" not in covariates_line_text
    done(f"{command} --covariates 'Age (years),WASI_FSIQ,DominantHand'", of=tmp_path)
    stored_covariates = lab.read_table(tmp_path / "out/covariates.csv")
    assert stored_covariates.columns.tolist() == ["subject", "SITE_ID", "Age (years)", "WASI_FSIQ", "DominantHand"]
    assert stored_covariates["Age (years)"].tolist() == table["AGE_AT_SCAN"].tolist()
    assert stored_covariates["WASI_FSIQ"].tolist() == table["FIQ"].tolist()
    shutil.rmtree(tmp_path / "out")
    again = find_covariates_line(done(f"{command} --covariates '' --dryRun", of=tmp_path))
    assert "as named: SITE_ID" in again and "not named" in again


NAMES_BY_COVARIATE = {
    "age": "AGE_AT_SCAN, age, Age (years), AgeAtScan, ageInYears, subject_age",
    "sex": "SEX, gender, SubjectSex, biological_sex",
    "IQ": "FIQ, full_scale_iq, Full.Scale.IQ, fullIQ, IQ, FSIQ4, WASI_FSIQ",
    "handedness": "handedness, Hand, HANDEDNESS_CATEGORY, DominantHand",
    "head motion": "mean_fd, func_mean_fd, meanFD, FD_mean, fdMean, mean_framewise_displacement",
}
UNRECOGNISED_NAMES = (
    "image, average, handle, Essex, num_fd, VIQ, PIQ, FIQ_TEST_TYPE, verbal_iq, VerbalIQ, performance_iq, "
)
UNRECOGNISED_NAMES += "nonverbal_IQ, age_of_onset, AgeOfOnset, maternal_age, paternalAge, mother_age, gestational_age"


def test_covariates_are_recognised_by_any_usual_name_and_by_nothing_else(tmp_path):
    table = lab.people(16)
    values = ["AGE_AT_SCAN", "SEX", "FIQ", "HANDEDNESS_CATEGORY", "func_mean_fd"]
    base_table = table[["SUB_ID", "SITE_ID", "FILE_ID", "DX_GROUP"]]
    lab.pcp(tmp_path / "lab", table)

    def print_covariates(columns: dict[str, str]) -> str:
        renamed_table = base_table.assign(**{name: table[source_column] for name, source_column in columns.items()})
        lab.edit(tmp_path / "lab/Phenotypic.csv", renamed_table.to_csv(index=False).encode())
        covariate_options = f"--phenotype '' --covariates '{','.join(columns)}'"
        command = f"{CONVERT} --labelColumn DX_GROUP --positive 1 {covariate_options} --dryRun"
        return find_covariates_line(done(command, of=tmp_path))

    names = [synonyms.split(", ") for synonyms in NAMES_BY_COVARIATE.values()]
    for name_index in range(max(map(len, names))):
        used = [synonyms[name_index % len(synonyms)] for synonyms in names]
        printed_covariates = print_covariates(dict(zip(used, values, strict=True)))
        assert printed_covariates == f"as named: SITE_ID, {', '.join(used)}"
    none = print_covariates(
        {name: values[name_index % 5] for name_index, name in enumerate(UNRECOGNISED_NAMES.split(", "))}
    )
    assert none.endswith(f"; not known: {', '.join(NAMES_BY_COVARIATE)}")


IMPLAUSIBLE_NUMBERS: dict[
    str, tuple[list[float], set[str]]
] = {  # numbers beside plausible ones, and those that are told
    "AGE_AT_SCAN": ([999, 99, 45000, -1], {"999", "99", "45000", "-1"}),
    "FIQ": ([99, 70, 999, -1], {"999", "-1"}),
    "VIQ": ([0, 0, 0, 45], {"0"}),
    "func_mean_fd": ([-9, 99, 0.9, 0], {"-9", "99", "0"}),
    "score": ([-99, 999, 99], {"-99", "999"}),
    "volume": ([0, 0, 900], {"0"}),
}


@pytest.mark.parametrize("name", IMPLAUSIBLE_NUMBERS)
def test_numbers_unlikely_to_be_measurements_are_queried(name, tmp_path):
    """With --missing they are unknown, or right."""
    first_numbers, implausible_texts = IMPLAUSIBLE_NUMBERS[name]
    table = lab.people(40)
    usual = {"AGE_AT_SCAN": 9 + np.arange(40) % 30, "FIQ": 80 + 7 * np.arange(40) % 50, "score": np.arange(40) * 2.5}
    usual |= {"VIQ": 80 + np.arange(40) % 20, "volume": 1000 + 7.5 * np.arange(40)}
    usual["func_mean_fd"] = np.geomspace(0.02, 0.8, 40).round(3)
    table[name] = [*map(str, first_numbers), *map(str, usual[name][len(first_numbers) :])]
    lab.pcp(tmp_path / "lab", table)
    command = f"{CONVERT} --labelColumn DX_GROUP --positive 1 --phenotype {name}"
    printed_error = run(f"{command} --dryRun", of=tmp_path).err
    assert {
        text for text in implausible_texts if re.search(rf"(?<![\d.]){re.escape(text)}(?![\d.])", printed_error)
    } == implausible_texts, printed_error
    done(f"{command} --missing {','.join(f'{name}={number}' for number in sorted(implausible_texts))}", of=tmp_path)
    values = read_raw_phenotype(tmp_path / "out")[name]
    assert values[: len(first_numbers)].isna().tolist() == [
        str(number) in implausible_texts for number in first_numbers
    ]


def test_zeros_among_small_numbers_are_not_queried(tmp_path):
    """Counts, scores around 0, scores that only patients have, categories, ages of babies, motion in tenths."""
    person_indices, random = np.arange(40), np.random.default_rng(0)
    columns = {
        "count": random.poisson(3, 40),
        "hand_score": 10 * (person_indices % 21 - 10),
        "severity": np.where(person_indices % 3, 0, 7 + person_indices % 15),
        "group_code": np.array([0, 3, 4, 5])[person_indices // 4 % 4],
        "age": person_indices // 4 % 4,
        "mean_fd": person_indices % 6 / 10,
        "percent_iq": np.linspace(0, 99, 40).round(1),
    }
    lab.pcp(
        tmp_path / "lab",
        lab.people(40).assign(**{name: column_values.astype(str) for name, column_values in columns.items()}),
    )
    done(f"{CONVERT} --labelColumn DX_GROUP --positive 1 --phenotype {','.join(columns)} --dryRun", of=tmp_path)


# Gaps


@pytest.mark.parametrize("controls, autism, is_reported", [(10, 1, True), (1, 10, True), (9, 9, False), (5, 3, False)])
def test_gaps_in_a_single_class_within_a_site_are_reported(controls, autism, is_reported, tmp_path):
    """With the p of Fisher's exact test; of 13 controls and 13 people with autism there, and as many elsewhere."""
    table = lab.people(52).assign(SITE_ID=["SBL", "NYU"] * 26)
    table["DX_GROUP"] = [str(2 - person_index // 2 % 2) for person_index in range(52)]
    number = {site_and_class: iter(range(26)) for site_and_class in ("SBL1", "SBL2", "NYU1", "NYU2")}
    lacking = {"SBL1": autism, "SBL2": controls}
    place = table["SITE_ID"] + table["DX_GROUP"]
    table["iq"] = [
        "" if next(number[site_and_class]) < lacking.get(site_and_class, 0) else f"{90 + person_index % 30}"
        for person_index, site_and_class in enumerate(place)
    ]
    lab.pcp(tmp_path / "lab", table)
    printed_text = run(f"{CONVERT} --labelColumn DX_GROUP --positive 1 --phenotype iq --allowLeak", of=tmp_path).out
    p = fisher_exact([[controls, 13 - controls], [autism, 13 - autism]]).pvalue
    line = f"iq missing in {controls} of 13 controls and {autism} of 13 participants with autism at SBL (p = {p:.1g})"
    assert (line in printed_text) == is_reported, printed_text
