"""The 29 phenotype values against a reading by hand, scaled as NumPy does; tables on disk; gaps that tell the label."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import BY_HAND, PCP_COLUMNS, PCP_ROWS, bare_records
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from data import demo
from data.base.errors import InputError
from data.cohorts import phenotype
from data.cohorts.phenotype import MISSING_P_VALUE, missing_by_label
from data.cohorts.stored import carry_tables, open_cohort
from data.pack import pack
from data.swap import swap

NAN = math.nan
TABLES = ("covariates.csv", "phenotype.csv")
LEAKING = {
    "ADOS_MODULE": "3",
    "ADOS_TOTAL": "14",
    "ADI_R_SOCIAL_TOTAL_A": "20",
    "SRS_RAW_TOTAL": "99",
    "SCQ_TOTAL": "",
    "AQ_TOTAL": "-9999",
    "VINELAND_ABC_STANDARD": "80",
    "DSM_IV_TR": "1",
    "CURRENT_MED_STATUS": "1",
    "COMORBIDITY": "ADHD",
    "DX_GROUP": "1",
}


def table(**changes) -> pd.DataFrame:
    """The six rows of `PCP_ROWS`, with columns replaced or added."""
    return pd.DataFrame(PCP_ROWS, columns=PCP_COLUMNS).assign(**changes)


def test_every_value_against_a_reading_by_hand():
    values = phenotype.abide_values(table())
    assert values.shape == (6, 29)
    for row, expected in zip(values.to_numpy(), BY_HAND, strict=True):
        np.testing.assert_array_equal(row, expected)


def test_columns_that_leak_the_diagnosis_change_nothing():
    assert phenotype.abide_values(table(**LEAKING)).equals(phenotype.abide_values(table()))
    words = ("ados", "adi", "srs", "scq", "aq", "vineland", "dsm", "med", "comorb", "dx")
    names = phenotype.abide_values(table()).columns
    assert not [name for name in names if any(name.startswith(word) for word in words)]
    assert names.is_unique


def test_text_in_a_column_of_numbers_is_refused():
    with pytest.raises(InputError, match="Column FIQ holds 'high'; expected numbers"):
        phenotype.abide_values(table(FIQ="high"))


@pytest.mark.parametrize(
    "missing",
    [
        "NA",
        "#N/A",
        "n/a",
        "nan",
        "NaN",
        ".",
        "-",
        "--",
        "",
        " ",
        "-9999",
        " -9999 ",
        "-9999.0",
        "-999",
        "`",
        "NULL",
        "?",
    ],
)
def test_marks_of_missing_values(missing):
    """In numbers, ABIDE's and one's own, and in text."""
    assert phenotype.abide_values(table(FIQ=missing))["fiq"].isna().all()
    own = pd.DataFrame({"iq": ["100", missing, "98"], "hand": ["R", "L", missing]})
    values = phenotype.custom_values(own, ["iq", "hand"], np.ones(3, bool))
    assert values.columns.tolist()[:4] == ["iq", "iq_missing", "hand_L", "hand_R"]
    np.testing.assert_array_equal(values["iq"], [100, NAN, 98])
    np.testing.assert_array_equal(values[["hand_L", "hand_R"]], [[0, 1], [1, 0], [0, 0]])


@pytest.mark.parametrize("odd", [">18", "3,5", "~40", "12 y", "1.234,5", "x", "unknown", "inf"])
def test_what_is_no_number_among_numbers_is_refused_by_name(odd):
    words = rf"Column age holds '{odd}'; expected numbers, or nothing where unknown, but 2 of 5 values are none"
    own = pd.DataFrame({"age": ["12", odd, "9", "", "20.5", odd]})
    with pytest.raises(InputError, match=words):
        phenotype.custom_values(own, ["age"], np.ones(6, bool))
    with pytest.raises(InputError, match=words.replace("age", "AGE_AT_SCAN").replace("5 values", "6 values")):
        phenotype.abide_values(table(AGE_AT_SCAN=["12", odd, "9", "11", "20.5", odd]))


@pytest.mark.parametrize("values", [["3,5", "4,5", "5,0"], [">18", "<12", "13"], ["1,234.5", "2,000", "7"]])
def test_numbers_in_another_writing_do_not_become_categories(values):
    with pytest.raises(InputError, match=r"Column age holds .*; write decimals with a point"):
        phenotype.custom_values(pd.DataFrame({"age": values}), ["age"], np.ones(3, bool))


def test_text_with_some_numbers_is_text():
    own = pd.DataFrame({"scanner": ["A", "B", "3", "A"], "scanner_x": ["1", "2", "3", ""]})
    every = np.ones(4, bool)
    assert phenotype.categories(own, ["scanner", "scanner_x"], every) == {"scanner": ("3", "A", "B")}
    values = phenotype.custom_values(own, ["scanner", "scanner_x"], every)
    assert values.columns[:6].tolist() == [
        *("scanner_3", "scanner_A", "scanner_B", "scanner_x", "scanner_x_missing", "unused_6")
    ]


@pytest.mark.parametrize("column, odd", [("SEX", "0"), ("HANDEDNESS_CATEGORY", "Right"), ("EYE_STATUS_AT_SCAN", "3")])
def test_codes_that_abide_does_not_have_are_refused(column, odd):
    with pytest.raises(InputError, match=rf"Column {column} holds '?{odd}.*; expected .* but 6 of 6 values are others"):
        phenotype.abide_values(table(**{column: odd}))


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="lacks FIQ, BMI"):
        phenotype.abide_values(table().drop(columns=["FIQ", "BMI"]))


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.one_of(st.just(NAN), st.integers(-1000, 1000)), min_size=3, max_size=3), min_size=1, max_size=9
    )
)
def test_scaling_is_median_imputation_then_z_scores(rows):
    training = np.array(rows, float)
    training[:, 2] = NAN  # a column that nobody has
    expected = training.copy()
    for column in expected.T:
        known = column[~np.isnan(column)]
        column[np.isnan(column)] = np.median(known) if known.size else 0.0
    spread = expected.std(0)
    scaled = phenotype.fit_scaler(training).transform(training)
    constant = spread < 1e-9
    np.testing.assert_allclose(
        scaled[:, ~constant], ((expected - expected.mean(0)) / np.where(constant, 1, spread))[:, ~constant], atol=1e-6
    )
    assert (np.abs(scaled[:, constant]) < 1e-5).all()
    assert (scaled[:, 2] == 0).all()


@pytest.fixture
def copy(cohort, tmp_path):
    """A copy of the small demo cohort that may be damaged."""
    folder = shutil.copytree(cohort, tmp_path / "copy")
    (folder / "seal.json").unlink()
    return folder


def test_the_demo_cohort_keeps_what_it_drew(cohort):
    opened, drawn = open_cohort(cohort), demo.demographics(demo.Simulation(subjects=40, seed=1)).set_index("subject")
    covariates, raw = opened.covariates, opened.raw_phenotype
    assert covariates.columns.tolist() == ["SITE_ID", "AGE_AT_SCAN", "SEX", "func_mean_fd"]
    assert covariates.index.tolist() == raw.index.tolist() == [row.subject for row in opened.rows]
    assert covariates.equals(drawn[covariates.columns].rename_axis("subject").astype(object))
    assert covariates["SITE_ID"].tolist() == [row.site for row in opened.rows]
    assert raw.columns.tolist() == list(opened.metadata.phenotype)
    assert raw.dtypes.eq(float).all()
    assert raw["age"].tolist() == drawn["AGE_AT_SCAN"].astype(float).tolist()
    assert raw["fiq"].isna().tolist() == drawn["FIQ"].eq("-9999").tolist()


def test_simulated_motion_is_plausible_and_unrelated_to_the_label():
    drawn = demo.demographics(demo.Simulation(subjects=500))
    motion = drawn["func_mean_fd"].astype(float)
    assert 0.09 < motion.median() < 0.11
    assert 0 < motion.min() < motion.max() < 1
    assert abs(np.corrcoef(motion, drawn["label"])[0, 1]) < 0.1


def test_records_hold_the_raw_values_imputed_and_scaled_on_training_subjects(cohort):
    opened = open_cohort(cohort)
    raw, training = opened.raw_phenotype.to_numpy(), opened.indices("train")
    filled = np.where(np.isnan(raw), np.nan_to_num(pd.DataFrame(raw[training]).median()), raw)
    spread = filled[training].std(0)
    expected = np.where(spread > 0, (filled - filled[training].mean(0)) / np.where(spread > 0, spread, 1), 0)
    np.testing.assert_allclose(opened.batch(range(40), volumes=False)["phenotype"], expected, atol=1e-5)


def test_numbers_come_back_exactly_and_text_as_it_was(tmp_path):
    values = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 29)) * 1e-5, [str(n) for n in range(200)])
    values.iloc[::7, 1] = np.nan
    values.columns = ["b, with a comma", 'c "quoted"', *map(str, range(27))]
    phenotype.write_by_subject(tmp_path / "p.csv", values)
    assert phenotype.read_phenotype(tmp_path / "p.csv", list(values.index), list(values.columns)).equals(values)
    text = phenotype.covariates_of(
        pd.DataFrame({"site": [" New  York ", "007"], "age": ["-9999", "12.50"]}), ["site", "age", "absent"], ["1", "2"]
    )
    phenotype.write_by_subject(tmp_path / "c.csv", text)
    assert (tmp_path / "c.csv").read_text() == "subject,site,age,absent\n1,New York,,\n2,007,12.50,\n"
    assert phenotype.read_by_subject(tmp_path / "c.csv", ["2", "1"]).to_numpy().tolist() == [
        ["007", "12.50", ""],
        ["New York", "", ""],
    ]


def test_a_column_that_would_hide_the_subjects_is_refused():
    with pytest.raises(InputError, match="The column subject cannot be kept"):
        phenotype.check_columns(["age", "subject"])


DAMAGE = {
    "not UTF-8": (lambda text: text.encode() + b"\xff", "can't decode byte"),
    "no subject": (lambda text: text.replace("subject", "person", 1), "its columns are person"),
    "empty": (lambda text: "", "its columns are none"),
    "a subject twice": (lambda text: text + text.splitlines()[1] + "\n", "names subject 0000001 twice"),
    "a subject missing": (lambda text: "\n".join(text.splitlines()[:-2]), r"lacks subject 0000039 \(2 missing\)"),
    "a row cut off": (lambda text: text.rstrip().rpartition(",")[0], r"line 41 has \d+ values; expected"),
    "an escape": (lambda text: text.replace("\n0000001,", "\n0000001,\x1b", 1), "control characters"),
    "an open quote": (lambda text: text + '"', "unexpected end of data"),
}
OF_NUMBERS = {
    "text": (lambda text: text.replace("0000001,", "0000001,old ", 1), "could not convert string to float: 'old"),
    "infinite": (
        lambda text: text.replace("0000001,", "0000001,1e999,", 1).replace(",1.0", "", 1),
        r"a value above 1e\+12",
    ),
    "another name": (lambda text: text.replace("bmi_missing", "weight", 1), "its 29 columns are not the 29 values"),
    "fewer values": (
        lambda text: "\n".join(line.rpartition(",")[0] for line in text.splitlines()),
        "its 28 columns are not the 29 values",
    ),
}


@pytest.mark.parametrize(
    "name, how", [(name, how) for name in TABLES for how in DAMAGE] + [(TABLES[1], how) for how in OF_NUMBERS]
)
def test_damage_is_told_in_one_line_that_names_the_file(name, how, copy):
    damage, words = (DAMAGE | OF_NUMBERS)[how]
    damaged = damage((copy / name).read_text())
    (copy / name).write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    opened = open_cohort(copy, is_sealed=False)
    with pytest.raises(InputError, match=words) as told:
        _ = opened.covariates if name == TABLES[0] else opened.raw_phenotype
    assert str(copy / name) in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_only_a_cohort_has_side_tables(cohort, copy, tmp_path):
    (tmp_path / "bare").mkdir()
    for name, content in bare_records([1, 2]).items():
        (tmp_path / "bare" / name).write_bytes(content)
    shutil.copy(cohort / "covariates.csv", tmp_path / "bare")
    opened = open_cohort(tmp_path / "bare")
    assert opened.tables is opened.covariates is opened.raw_phenotype is None
    (copy / "phenotype.csv").unlink()
    assert open_cohort(copy, is_sealed=False).raw_phenotype is None
    assert open_cohort(copy, is_sealed=False).covariates is not None


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "swap"])
def test_what_is_made_of_a_cohort_carries_its_tables_byte_by_byte(form, copy, tmp_path):
    (copy / "maps.csv").write_text("subject,background\n0000001,0\n")
    source, target = open_cohort(copy, is_sealed=False), tmp_path / "out"
    if form == "swap":
        swap(source, target, num_regions=2, copies=1, seed=0)
    else:
        pack(source, target, form)
    for name in (*TABLES, "maps.csv"):
        assert (target / name).read_bytes() == (copy / name).read_bytes()
    opened = open_cohort(target)
    assert opened.tables == target
    assert opened.raw_phenotype.equals(source.raw_phenotype)


def test_absent_tables_are_not_carried(copy, tmp_path):
    (copy / "covariates.csv").unlink()
    carry_tables(open_cohort(copy, is_sealed=False), tmp_path)
    assert not (tmp_path / "covariates.csv").exists()
    assert (tmp_path / "phenotype.csv").exists()


def sbl(lacking_controls: int = 13, lacking_autism: int = 2) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """13 controls and 13 people with autism of the site SBL, as many at NYU who lack nothing."""
    label = np.array([0.0] * 13 + [1.0] * 13)
    viq = np.where(np.arange(26) % 13 < np.where(label == 1, lacking_autism, lacking_controls), NAN, 100.0)
    both = pd.DataFrame({"age": 12.0, "viq": [*viq, *[90.0] * 26]})
    both = both.assign(piq=both["viq"], viq_missing=both["viq"].isna().astype(float))
    return both, np.tile(label, 2), ["SBL"] * 26 + ["NYU"] * 26


def test_what_is_missing_in_one_class_of_a_site_is_told():
    assert missing_by_label(*sbl()) == [
        "viq, piq missing in 13 of 13 controls and 2 of 13 people with autism at SBL (p = 2e-05)"
    ]
    assert missing_by_label(*sbl(2, 13))[0].startswith("viq, piq missing in 2 of 13 controls and 13 of 13 people with")


def test_a_gap_is_seen_in_the_value_that_only_says_so_and_in_text():
    values, label, site = sbl()
    assert missing_by_label(values[["viq_missing"]], label, site)[0].startswith("viq missing in 13 of 13")
    hand = pd.DataFrame({"hand": values["viq"].map(lambda value: "R" if value == value else None)})
    assert missing_by_label(hand, label, site)[0].startswith("hand missing in 13 of 13")


def test_gaps_that_both_classes_have_and_unknown_labels_are_not_told():
    assert missing_by_label(*sbl(13, 13)) == missing_by_label(*sbl(0, 0)) == missing_by_label(*sbl(5, 2)) == []
    values, label, site = sbl()
    assert missing_by_label(values, np.full(52, NAN), site) == missing_by_label(values.iloc[:0], label[:0], []) == []


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 30), st.integers(0, 30))
def test_told_if_and_only_if_chance_does_not_explain_it(controls, autism):
    """By the sum of the probabilities of all tables that are no likelier, with the same margins."""
    label = np.array([0.0, 1.0] * 30)
    number = np.arange(60) // 2
    values = pd.DataFrame({"iq": np.where(number < np.where(label == 1, autism, controls), NAN, 1.0)})
    chances = hypergeom.pmf(np.arange(31), 60, controls + autism, 30)
    p_value = chances[chances <= chances[controls] * (1 + 1e-9)].sum()
    assert bool(missing_by_label(values, label, ["A"] * 60)) == (p_value < MISSING_P_VALUE)
