"""The tables beside records: what they hold, that they come back exactly and are carried along; what is damaged."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import bare_records

from data import demo
from data.base.errors import InputError
from data.cohorts import side_tables
from data.cohorts.stored import carry_tables, open_cohort
from data.pack import FORMS, pack
from data.swap import swap

TABLES = ("covariates.csv", "phenotype.csv")


@pytest.fixture
def copy(cohort, tmp_path):
    """A copy of the small demo cohort that may be damaged."""
    return shutil.copytree(cohort, tmp_path / "copy")


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
    side_tables.write(tmp_path / "p.csv", values)
    assert side_tables.read_phenotype(tmp_path / "p.csv", list(values.index), list(values.columns)).equals(values)
    text = side_tables.covariates_of(
        pd.DataFrame({"site": [" New  York ", "007"], "age": ["-9999", "12.50"]}), ["site", "age", "absent"], ["1", "2"]
    )
    side_tables.write(tmp_path / "c.csv", text)
    assert (tmp_path / "c.csv").read_text() == "subject,site,age,absent\n1,New York,,\n2,007,12.50,\n"
    assert side_tables.read(tmp_path / "c.csv", ["2", "1"]).to_numpy().tolist() == [
        ["007", "12.50", ""],
        ["New York", "", ""],
    ]


def test_a_column_that_would_hide_the_subjects_is_refused():
    with pytest.raises(InputError, match="The column subject cannot be kept"):
        side_tables.check_columns(["age", "subject"])


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
    opened = open_cohort(copy)
    with pytest.raises(InputError, match=words) as told:
        _ = opened.covariates if name == TABLES[0] else opened.raw_phenotype
    assert str(copy / name) in str(told.value)
    assert len(str(told.value).splitlines()) == 1


def test_only_a_cohort_has_side_tables(cohort, copy, tmp_path):
    (tmp_path / "bare").mkdir()
    for name, content in bare_records([1, 2]).items():
        (tmp_path / "bare" / name).write_bytes(content)
    shutil.copy(cohort / "covariates.csv", tmp_path / "bare")
    (tmp_path / "list.json").write_text(json.dumps([str(path) for path in copy.glob("*.bin")]))
    for path in (tmp_path / "bare", tmp_path / "list.json"):
        opened = open_cohort(path)
        assert opened.tables is opened.covariates is opened.raw_phenotype is None
    (copy / "phenotype.csv").unlink()
    assert open_cohort(copy).raw_phenotype is None
    assert open_cohort(copy).covariates is not None


@pytest.mark.slow
@pytest.mark.parametrize("form", [*FORMS, "swap"])
def test_what_is_made_of_a_cohort_carries_its_tables_byte_by_byte(form, copy, tmp_path):
    (copy / "maps.csv").write_text("subject,background\n0000001,0\n")
    source, target = open_cohort(copy), tmp_path / "out"
    if form == "swap":
        swap(source, target, num_regions=2, copies=1, seed=0)
    else:
        pack(source, target, form)
    for name in (*TABLES, "maps.csv"):
        assert (target / name).read_bytes() == (copy / name).read_bytes()
    opened = open_cohort(target)
    assert opened.tables == target
    assert opened.raw_phenotype.equals(source.raw_phenotype)
    if form == "hdf5":
        assert open_cohort(target / "cohort.h5").covariates.equals(source.covariates)
        (target / "cohort.h5").rename(target / "other.h5")
        assert open_cohort(target / "other.h5").tables is None


def test_absent_tables_are_not_carried(copy, tmp_path):
    (copy / "covariates.csv").unlink()
    carry_tables(open_cohort(copy), tmp_path)
    assert not (tmp_path / "covariates.csv").exists()
    assert (tmp_path / "phenotype.csv").exists()
