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


def values_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "phenotype.csv", dtype={"subject": str}).set_index("subject")


def scaled(raw: pd.DataFrame, training: list[str]) -> pd.DataFrame:
    """Gaps filled by the median of the training people, 0 if nobody has one; then z-scores of these, 0 if constant."""
    filled = raw.fillna(raw.loc[training].median()).fillna(0)
    spread = filled.loc[training].std(ddof=0)
    return ((filled - filled.loc[training].mean()) / spread.where(spread > 1e-9)).fillna(0)


def stored(folder: Path) -> np.ndarray:
    """The values in the records, in the order of the table."""
    names = lab.read_table(folder / "subjects.csv")["file"]
    return np.stack([np.fromfile(folder / name, "<f4", 30)[1:] for name in names])


def training_of(folder: Path) -> list[str]:
    table = lab.read_table(folder / "subjects.csv")
    return table["subject"][table["split"] == "train"].tolist()


@pytest.fixture(scope="module")
def converted_six(tmp_path_factory) -> Path:
    """The cohort of twelve people who have the values of PCP_ROWS, and columns that measure the diagnosis."""
    folder = tmp_path_factory.mktemp("six")
    table = lab.people(12).assign(**LEAKING)
    table[PCP_COLUMNS] = [PCP_ROWS[at % 6] for at in range(12)]
    lab.pcp(folder / "lab", table)
    done(CONVERT, of=folder)
    return folder / "out"


def test_every_value_against_a_reading_by_hand(converted_six):
    """Columns that leak the diagnosis change nothing."""
    found = values_of(converted_six)
    assert found.shape == (12, 29) and found.columns.is_unique
    for at, (subject, row) in enumerate(found.iterrows()):
        np.testing.assert_array_equal(row, EXPECTED_VALUES[at % 6], subject)
    words = ("ados", "srs", "aq", "dsm", "comorb", "dx")
    assert not [name for name in found if name.lower().startswith(words)]


def test_records_hold_the_values_imputed_and_scaled_on_training_people(converted_six, cohort):
    for folder in (converted_six, cohort):
        expected = scaled(values_of(folder), training_of(folder))
        np.testing.assert_allclose(stored(folder), expected, atol=1e-4)


MARKS = ["NA", "#N/A", "n/a", "NaN", ".", "-", "--", "", " ", "-9999", " -9999 ", "-9999.0", "-999", "`", "NULL", "?"]


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A lab of 32 people whose own column `dose` has every mark of a missing value, and `clinic` some numbers."""
    folder = tmp_path_factory.mktemp("own")
    table = lab.people(32)
    table["dose"] = [mark for number, mark in enumerate(MARKS) for mark in (str(100 + 7 * number % 31), mark)]
    table["clinic"] = [("A", "B", "3", "A")[at // 2 % 4] for at in range(32)]
    table["AGE_AT_SCAN"] = [f"{10 + at % 5}.5" for at in range(32)]
    lab.pcp(folder / "lab", table)
    return folder


def test_columns_of_ones_own_are_numbers_or_categories(own):
    """Each mark of a missing value is one."""
    done(f"{CONVERT} --phenotype dose,clinic,hand", of=own)
    found, table = values_of(own / "out"), lab.read_table(own / "lab/Phenotypic.csv").set_index("SUB_ID")
    expected = ["dose", "dose_missing", "clinic_3", "clinic_A", "clinic_B", "hand_both", "hand_left", "hand_right"]
    assert found.columns[:8].tolist() == expected and all(found.columns[8:].str.startswith("unused_"))
    assert found["dose"].tolist()[::2] == table["dose"].astype(str)[::2].astype(float).tolist()
    assert found["dose"][1::2].isna().all() and found["dose_missing"].tolist() == [0, 1] * 16
    for name in ("3", "A", "B"):
        assert (found[f"clinic_{name}"] == (table["clinic"] == name)).all()
    np.testing.assert_allclose(stored(own / "out"), scaled(found, training_of(own / "out")), atol=1e-4)


def test_european_and_quoted_tables_give_the_same_people(own, tmp_path):
    """Whatever separates the columns, decimal commas, a byte-order mark, and a line that names the delimiter."""
    command = "abide-data convert {of}/lab {to} --grid reduced --phenotype AGE_AT_SCAN,iq"
    done(command, of=own, to=tmp_path / "plain")
    expected, table = values_of(tmp_path / "plain"), lab.read_table(own / "lab/Phenotypic.csv").drop(columns="dose")
    commas = table.assign(AGE_AT_SCAN=table["AGE_AT_SCAN"].str.replace(".", ","))
    forms = {
        "tabs": table.to_csv(sep="\t", index=False),
        "commas": "\ufeff" + table.to_csv(index=False, quoting=1),
        "european": "sep=;\r\n" + commas.to_csv(sep=";", index=False, lineterminator="\r\n"),
    }
    for name, text in forms.items():
        lab.copy(own / "lab", tmp_path / name / "lab")
        lab.edit(tmp_path / name / "lab/Phenotypic.csv", text.encode())
        done(command, of=tmp_path / name, to=tmp_path / f"of-{name}")
        pd.testing.assert_frame_equal(values_of(tmp_path / f"of-{name}"), expected)


# Covariates


def covariates_line(told: str) -> str:
    return re.search("^covariates +(.*)$", told, re.MULTILINE)[1]


def test_covariates_are_known_by_their_names_or_named(own, tmp_path):
    """Site, age, sex, motion of the table or of the phenotype; those that are named are all."""
    table = lab.read_table(own / "lab/Phenotypic.csv")
    renamed = {"AGE_AT_SCAN": "Age (years)", "SEX": "biological_sex", "FIQ": "WASI_FSIQ", "func_mean_fd": "meanFD"}
    renamed |= {"HANDEDNESS_CATEGORY": "DominantHand", "VIQ": "verbal_iq", "BMI": "age_of_onset"}
    lab.copy(own / "lab", tmp_path / "lab")
    lab.edit(tmp_path / "lab/Phenotypic.csv", table.rename(columns=renamed).to_csv(index=False).encode())
    command = f"{CONVERT} --labelColumn DX_GROUP --positive 1 --phenotype meanFD,biological_sex"
    told = covariates_line(done(f"{command} --dryRun", of=tmp_path))
    assert "verbal_iq" not in told and "age_of_onset" not in told
    done(f"{command} --covariates 'Age (years),WASI_FSIQ,DominantHand'", of=tmp_path)
    kept = lab.read_table(tmp_path / "out/covariates.csv")
    assert kept.columns.tolist() == ["subject", "SITE_ID", "Age (years)", "WASI_FSIQ", "DominantHand"]
    assert kept["Age (years)"].tolist() == table["AGE_AT_SCAN"].tolist()
    assert kept["WASI_FSIQ"].tolist() == table["FIQ"].tolist()
    shutil.rmtree(tmp_path / "out")
    again = covariates_line(done(f"{command} --covariates '' --dryRun", of=tmp_path))
    assert "as named: SITE_ID" in again and "not named" in again


NAMED = {
    "age": "AGE_AT_SCAN, age, Age (years), AgeAtScan, ageInYears, subject_age",
    "sex": "SEX, gender, SubjectSex, biological_sex",
    "IQ": "FIQ, full_scale_iq, Full.Scale.IQ, fullIQ, IQ, FSIQ4, WASI_FSIQ",
    "handedness": "handedness, Hand, HANDEDNESS_CATEGORY, DominantHand",
    "head motion": "mean_fd, func_mean_fd, meanFD, FD_mean, fdMean, mean_framewise_displacement",
}
OTHERS = "image, average, handle, Essex, num_fd, VIQ, PIQ, FIQ_TEST_TYPE, verbal_iq, VerbalIQ, performance_iq, "
OTHERS += "nonverbal_IQ, age_of_onset, AgeOfOnset, maternal_age, paternalAge, mother_age, gestational_age"


def test_covariates_are_known_by_any_usual_name_and_by_no_other(tmp_path):
    table = lab.people(16)
    values = ["AGE_AT_SCAN", "SEX", "FIQ", "HANDEDNESS_CATEGORY", "func_mean_fd"]
    kept = table[["SUB_ID", "SITE_ID", "FILE_ID", "DX_GROUP"]]
    lab.pcp(tmp_path / "lab", table)

    def told_of(columns: dict[str, str]) -> str:
        named = kept.assign(**{name: table[of] for name, of in columns.items()})
        lab.edit(tmp_path / "lab/Phenotypic.csv", named.to_csv(index=False).encode())
        asked = f"--phenotype '' --covariates '{','.join(columns)}'"
        command = f"{CONVERT} --labelColumn DX_GROUP --positive 1 {asked} --dryRun"
        return covariates_line(done(command, of=tmp_path))

    names = [of.split(", ") for of in NAMED.values()]
    for at in range(max(map(len, names))):
        used = [of[at % len(of)] for of in names]
        told = told_of(dict(zip(used, values, strict=True)))
        assert told == f"as named: SITE_ID, {', '.join(used)}"
    none = told_of({name: values[at % 5] for at, name in enumerate(OTHERS.split(", "))})
    assert none.endswith(f"; not known: {', '.join(NAMED)}")


ODD = {  # numbers beside plausible ones, and those that are told
    "AGE_AT_SCAN": ([999, 99, 45000, -1], {"999", "99", "45000", "-1"}),
    "FIQ": ([99, 70, 999, -1], {"999", "-1"}),
    "VIQ": ([0, 0, 0, 45], {"0"}),
    "func_mean_fd": ([-9, 99, 0.9, 0], {"-9", "99", "0"}),
    "score": ([-99, 999, 99], {"-99", "999"}),
    "volume": ([0, 0, 900], {"0"}),
}


@pytest.mark.parametrize("name", ODD)
def test_numbers_that_are_likely_no_measurements_are_asked_for(name, tmp_path):
    """With --missing they are unknown, or right."""
    more, odd = ODD[name]
    table = lab.people(40)
    usual = {"AGE_AT_SCAN": 9 + np.arange(40) % 30, "FIQ": 80 + 7 * np.arange(40) % 50, "score": np.arange(40) * 2.5}
    usual |= {"VIQ": 80 + np.arange(40) % 20, "volume": 1000 + 7.5 * np.arange(40)}
    usual["func_mean_fd"] = np.geomspace(0.02, 0.8, 40).round(3)
    table[name] = [*map(str, more), *map(str, usual[name][len(more) :])]
    lab.pcp(tmp_path / "lab", table)
    command = f"{CONVERT} --labelColumn DX_GROUP --positive 1 --phenotype {name}"
    told = run(f"{command} --dryRun", of=tmp_path).err
    assert {text for text in odd if re.search(rf"(?<![\d.]){re.escape(text)}(?![\d.])", told)} == odd, told
    done(f"{command} --missing {','.join(f'{name}={of}' for of in sorted(odd))}", of=tmp_path)
    values = values_of(tmp_path / "out")[name]
    assert values[: len(more)].isna().tolist() == [str(of) in odd for of in more]


def test_zeros_among_small_numbers_are_not_asked_for(tmp_path):
    """Counts, scores around 0, scores that only patients have, categories, ages of babies, motion in tenths."""
    at, random = np.arange(40), np.random.default_rng(0)
    columns = {
        "count": random.poisson(3, 40),
        "hand_score": 10 * (at % 21 - 10),
        "severity": np.where(at % 3, 0, 7 + at % 15),
        "group_code": np.array([0, 3, 4, 5])[at // 4 % 4],
        "age": at // 4 % 4,
        "mean_fd": at % 6 / 10,
        "percent_iq": np.linspace(0, 99, 40).round(1),
    }
    lab.pcp(tmp_path / "lab", lab.people(40).assign(**{name: of.astype(str) for name, of in columns.items()}))
    done(f"{CONVERT} --labelColumn DX_GROUP --positive 1 --phenotype {','.join(columns)} --dryRun", of=tmp_path)


# Gaps


@pytest.mark.parametrize("controls, autism, is_told", [(10, 1, True), (1, 10, True), (9, 9, False), (5, 3, False)])
def test_what_is_missing_in_one_class_of_a_site_is_told(controls, autism, is_told, tmp_path):
    """With the p of Fisher's exact test; of 13 controls and 13 people with autism there, and as many elsewhere."""
    table = lab.people(52).assign(SITE_ID=["SBL", "NYU"] * 26)
    table["DX_GROUP"] = [str(2 - at // 2 % 2) for at in range(52)]
    number = {of: iter(range(26)) for of in ("SBL1", "SBL2", "NYU1", "NYU2")}
    lacking = {"SBL1": autism, "SBL2": controls}
    place = table["SITE_ID"] + table["DX_GROUP"]
    table["iq"] = ["" if next(number[of]) < lacking.get(of, 0) else f"{90 + at % 30}" for at, of in enumerate(place)]
    lab.pcp(tmp_path / "lab", table)
    told = run(f"{CONVERT} --labelColumn DX_GROUP --positive 1 --phenotype iq --allowLeak", of=tmp_path).out
    p = fisher_exact([[controls, 13 - controls], [autism, 13 - autism]]).pvalue
    line = f"iq missing in {controls} of 13 controls and {autism} of 13 participants with autism at SBL (p = {p:.1g})"
    assert (line in told) == is_told, told
