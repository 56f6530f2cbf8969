"""The leak guard: what measures or copies the diagnosis never becomes phenotype unasked."""

import csv
import re
import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers import COARSE, brain_map

from data.base.errors import InputError
from data.cohorts.phenotype import ABIDE_COVARIATES
from data.cohorts.stored import open_cohort
from data.conversion import leaks
from data.simulation import Simulation, demographics

COUNT = 40
SITES = [site for site in "ABC" for _ in range(8)]


def rows(**columns) -> list[dict]:
    """40 subjects, even ones with autism, an age that tells nothing, and more columns: functions of the number."""
    random = np.random.default_rng(0)
    ages = random.integers(8, 48, COUNT)
    return [
        {"ID": str(1000 + n), "DX_GROUP": str(1 + n % 2), "age": str(ages[n]), **{k: f(n) for k, f in columns.items()}}
        for n in range(COUNT)
    ]


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """A coarse map of every subject."""
    folder = tmp_path_factory.mktemp("maps")
    for number in range(COUNT):
        image = nibabel.Nifti1Image(brain_map((8, 9, 7), number), COARSE)
        nibabel.save(image, folder / f"fALFFMap_{1000 + number}.nii")
    return folder


@pytest.fixture
def convert(maps, data_cli, tmp_path):
    """`convert(rows, "--phenotype", ...)` runs the user's command on a table of these rows."""

    def run(table: list[dict], *arguments, positive: str = "1"):
        with open(tmp_path / "table.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
        told = ("--table", tmp_path / "table.csv", "--labelColumn", "DX_GROUP", "--positive", positive)
        return data_cli("convert", maps, tmp_path / "out", "--grid", "reduced", *told, *arguments)

    return run


def independent_auc(value: np.ndarray, label: np.ndarray) -> float:
    """The share of pairs (autism, control) that the value puts in order, ties half, in the better direction."""
    pairs = value[label == 1][:, None] - value[label == 0][None, :]
    auc = ((pairs > 0).sum() + 0.5 * (pairs == 0).sum()) / pairs.size
    return max(auc, 1 - auc)


MEASURES = [
    *("ADOS_TOTAL", "ADOS_MODULE", "ados2_css", "ADOS-2", "adosTotal", "ADI_R_SOCIAL_TOTAL_A", "ADIR_verbal", "adi"),
    *("SRS_RAW_TOTAL", "SRS2_T", "srs", "SCQ_TOTAL", "AQ_TOTAL", "aq10", "VINELAND_ABC_STANDARD", "VINELAND3", "vabs"),
    *("DSM_IV_TR", "DSM5_severity", "PDD_DSM_IV_TR", "CURRENT_MED_STATUS", "MEDICATION_NAME", "current_medication"),
    *(
        "COMORBIDITY",
        "comorbidities",
        "NONASD_PSYDX_LABEL",
        "OFF_STIMULANTS_AT_SCAN",
        "DX_GROUP2",
        "dx",
        "clinical_diagnosis",
    ),
]


@pytest.mark.parametrize("name", MEASURES)
def test_columns_that_measure_the_diagnosis_are_refused_by_name(name):
    with pytest.raises(InputError, match=rf"--phenotype {name} measures or follows from the diagnosis .*--allowLeak"):
        leaks.check_names(["age", name], "label")


@pytest.mark.parametrize(
    "name",
    ["AGE_AT_SCAN", "SEX", "FIQ", "aqua", "median_motion", "radius", "adiposity", "media", "index", "dsmall", "MADE"],
)
def test_other_names_are_not(name):
    leaks.check_names([name], "label")


def test_a_column_of_ados_scores_is_refused(convert, tmp_path):
    outcome = convert(rows(ADOS_TOTAL=lambda n: str(n)), "--phenotype", "age,ADOS_TOTAL")
    assert outcome.status == 2
    assert "--phenotype ADOS_TOTAL measures or follows from the diagnosis (ADOS)" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_label_itself_is_refused(convert):
    outcome = convert(rows(), "--phenotype", "age,DX_GROUP")
    assert outcome.status == 2
    assert "--phenotype DX_GROUP is the label itself; leave it out" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "copy",
    [
        lambda n: str(1 + n % 2),
        lambda n: ("patient", "healthy")[n % 2],
        lambda n: str(7 - 3 * (n % 2)),
        lambda n: (f"{n % 3}.0", "")[n % 2],  # known for one class only
    ],
)
def test_a_copy_of_the_label_under_another_name_is_refused(copy, convert, tmp_path):
    outcome = convert(rows(GROUP2=copy), "--phenotype", "age,GROUP2")
    assert outcome.status == 2
    assert re.search(r"separates the training labels: .*GROUP2\w* \(AUC 1\.00\).*--allowLeak", outcome.err)
    assert "age" not in outcome.err
    assert not (tmp_path / "out" / "subjects.csv").exists()


def test_missingness_alone_leaks(convert):
    """Values of chance, known for all with autism and for 2 of 20 controls: AUC 0.95."""
    outcome = convert(rows(score=lambda n: str(n * 7 % 11) if n % 2 == 0 or n < 4 else "-9999"), "--phenotype", "score")
    assert outcome.status == 2
    found = re.search(r"score_missing \(AUC (0\.\d\d)\)|score \(AUC (0\.\d\d)\)", outcome.err)
    assert found
    assert 0.9 < float(found[1] or found[2]) < 1


@pytest.mark.slow
def test_allow_leak_goes_ahead_and_reports_the_auc(convert, tmp_path):
    noisy = lambda n: str((n % 2) * 5 + n * 13 % 8)  # noqa: E731
    refused = convert(rows(GROUP2=noisy), "--phenotype", "GROUP2,age")
    outcome = convert(rows(GROUP2=noisy), "--phenotype", "GROUP2,age", "--allowLeak")
    assert refused.status == 2
    assert outcome.status < 2, outcome.err
    cohort = open_cohort(tmp_path / "out")
    training = [(int(record.subject) - 1000, record.label) for record in cohort.rows if record.split == "train"]
    label = np.array([label for _, label in training])
    expected = independent_auc(np.array([float(noisy(number)) for number, _ in training]), label)
    assert 0.85 < expected < 1
    assert cohort.metadata.phenotype_auc["GROUP2"] == pytest.approx(expected)
    assert f"better than GROUP2, AUC {expected:.2f}" in outcome.out
    assert f"GROUP2 (AUC {expected:.2f})" in refused.err
    assert cohort.metadata.accepted_leaks == (f"GROUP2 (AUC {expected:.2f})",)


@pytest.mark.slow
def test_allow_leak_accepts_an_instrument_too(convert, tmp_path):
    outcome = convert(rows(SRS=lambda n: str(n * 7 % 11)), "--phenotype", "SRS", "--allowLeak")
    assert outcome.status < 2, outcome.err
    cohort = open_cohort(tmp_path / "out")
    assert cohort.metadata.phenotype[0] == "SRS"
    assert cohort.metadata.accepted_leaks == ("SRS",)
    problem, *_ = cohort.seal.verdict.problems
    assert problem == "accepted by convert --allowLeak, though they tell the diagnosis: SRS"
    assert f"PROBLEM: {problem}\n" in outcome.out


@pytest.mark.slow
def test_the_auc_of_honest_columns_is_reported(convert):
    outcome = convert(rows(), "--phenotype", "age")
    assert outcome.status < 2, outcome.err
    auc = float(re.search(r"labels better than age, AUC (\d\.\d\d)", outcome.out)[1])
    assert 0.5 <= auc <= 0.85


@pytest.mark.slow
def test_flipped_labels_are_caught(convert):
    """ADOS was given to those with DX_GROUP 1; naming 2 as autism is a mistake, naming 1 is not."""
    table = rows(ADOS_MODULE=lambda n: str(1 + n % 4) if n % 2 == 0 and n > 2 else "-9999")
    outcome = convert(table, "--phenotype", "age", positive="2")
    assert outcome.status == 2
    assert re.search(
        r"The labels look flipped: ADOS_MODULE is known for 90% of the controls and for 0% of the others.*DX_GROUP",
        outcome.err,
    )
    assert convert(table, "--phenotype", "age", positive="1").status == 0


@pytest.mark.parametrize("seed", range(3))
def test_separations_against_counting_pairs(seed):
    """Each of the three views of a column, the largest kept."""
    random = np.random.default_rng(seed)
    label = np.arange(60) % 2.0
    value = random.integers(0, 9, 60) + label * random.choice([0, 2])
    value[random.random(60) < 0.3 + 0.2 * label] = np.nan
    known = np.isfinite(value)
    views = [(known * 1.0, label), (np.where(known, value, np.nanmedian(value)), label), (value[known], label[known])]
    found = leaks.separations(pd.DataFrame({"x": value, "none": np.full(60, np.nan)}), label)
    assert found["x"] == pytest.approx(max(independent_auc(*view) for view in views))
    assert found["none"] == 0.5


def test_few_subjects_separate_by_chance_and_are_not_judged():
    label = np.array([0.0] * 9 + [1.0] * 30)
    assert leaks.separations(pd.DataFrame({"x": label}), label) == {"x": 0.5}


# Columns that were not filled in alike


def ages(seed: int = 0, factor: float = 12.0, site: str = "C") -> pd.DataFrame:
    years = np.random.default_rng(seed).uniform(8, 35, 24)
    return pd.DataFrame(
        {"age": [f"{age * (factor if at == site else 1):.1f}" for age, at in zip(years, SITES, strict=True)]}
    )


@pytest.mark.parametrize("seed", range(5))
def test_ages_in_months_at_one_site_are_told(seed):
    (told,) = leaks.units_by_site(ages(seed), ["age"], SITES)
    assert told.startswith("age has the median ") and " at C, " in told and "months and years?" in told
    (told,) = leaks.units_by_site(ages(seed, 1 / 12, "A"), ["age"], SITES)
    assert " at B, C, " in told or " at C, B, " in told


def test_sites_of_children_and_of_adults_are_no_units():
    assert (
        leaks.units_by_site(ages(factor=3), ["age"], SITES) == leaks.units_by_site(ages(factor=1), ["age"], SITES) == []
    )
    assert leaks.units_by_site(ages(), ["age"], ["A"] * 24) == []


@pytest.mark.parametrize(
    "words, told",
    [
        ("M F 1 2", "holds M (2), F (2), 1 (2), 2 (2): two codings of one thing?"),
        ("male M female F", "two codings"),
        ("R L right left", "two codings"),
        ("Male male female", "holds Male and male, which differ in spelling"),
        (" ".join(f"Site{n} SITE_{n}" for n in range(1, 20)), "SITE_1 and Site1"),
        ("-1a 1a", None),
        ("M F", None),
        ("1 2", None),
        ("1.0 2.0", None),
        ("R L Ambi", None),
        ("NYU USM UCLA_1", None),
        ("0 1 2 3", None),
    ],
)
def test_two_codings_in_one_column(words, told):
    found = leaks.mixed_codings(pd.DataFrame({"sex": words.split() * 2}), ["sex"])
    assert (told in found[0]) if told else found == []


# Columns of which nothing can be learnt

DAYS = [f"{n % 28 + 1:02}" for n in range(COUNT)]
WORDS = ("ok", "moved", "slept", "coughed", "left early", "no T1", "scanned twice", "hummed")
NOTHING = {
    "comments": (lambda n: f"{WORDS[n % 8]}, see note {n}", "text, 40 of whose 40 values one person alone has"),
    "remarks": (lambda n: "ok" if n < 28 else f"see {n}", "text, 12 of whose 13 values one person alone has"),
    "code": (lambda n: f"P{n}x", "text, 40 of whose 40 values"),
    "scan_date": (lambda n: f"2011-0{n % 9 + 1}-{DAYS[n]}", "dates"),
    "visit": (lambda n: f"{DAYS[n]}.03.2011" if n else "", "dates"),  # which looks like a number
    "day": (lambda n: f"201103{DAYS[n]}", "dates"),
    "acquired": (lambda n: f"{DAYS[n]} May 2011 10:3{n % 10}", "dates"),
    "protocol": (lambda n: "A" if n % 5 else "", "one value, A"),
    "tesla": (lambda n: ("3", "3.0")[n % 2], "one value, 3"),
    "weight": (lambda n: "-9999", "no value"),
    "number": (lambda n: str(n * 3 + 7), "IDs, or numbers that count people"),
    "ticket": (lambda n: str(500 + n * 7 % COUNT), "IDs, or numbers that count people"),
    "person": (lambda n: f"sub-0{1000 + n}", "IDs, or numbers that count people"),
}
SOMETHING = {
    "iq": lambda n: str(80 + n * 7 % 37),
    "volume": lambda n: str(1_100_000 + n * 79_199 % 400_000),  # in mm3, of which no two are equal
    "fd": lambda n: f"{0.05 + n * 7 % COUNT / 100:.3f}",
    "year": lambda n: str(2008 + n % 5),
    "scanner": lambda n: ("Prisma", "Trio", "Trio", "Skyra")[n // 2 % 4],
    "test": lambda n: ("WASI", "WISC", "WAIS")[n % 3] if n > 3 else f"rare {n}",
    "known": lambda n: "" if n % 3 else str(n % 2),
}


@pytest.mark.parametrize("flag", ["--phenotype", "--covariates"])
def test_columns_that_tell_nothing_are_refused_by_name_all_at_once(flag, convert, tmp_path):
    table = rows(**{name: make for name, (make, _) in NOTHING.items()})
    other = () if flag == "--phenotype" else ("--phenotype", "age")
    outcome = convert(table, flag, ",".join(["age", *NOTHING]), *other)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"Nothing can be learnt from {flag} comments (text, " in outcome.err
    found = dict(re.findall(r"(\w+) \(([^()]+)\)", outcome.err))
    assert found.keys() == NOTHING.keys()
    assert all(found[name].startswith(words) for name, (_, words) in NOTHING.items())
    assert "Leave these columns out" in outcome.err
    assert not (tmp_path / "out").exists()


def test_both_options_are_told_in_one_line(convert):
    table = rows(scan_date=NOTHING["scan_date"][0], tesla=NOTHING["tesla"][0])
    outcome = convert(table, "--phenotype", "age,tesla", "--covariates", "scan_date,tesla")
    assert (
        "from --phenotype tesla (one value, 3); --covariates scan_date (dates), tesla (one value, 3). " in outcome.err
    )


def test_measurements_and_categories_are_not():
    table = pd.DataFrame(rows(**SOMETHING))
    assert leaks.uninformative(table, table["ID"].tolist(), [*SOMETHING, "age", "not there"]) == {}


@pytest.mark.parametrize("count", [20, 60, 500])
def test_columns_like_those_of_abide_are_not(count):
    table = demographics(Simulation(subjects=count))
    columns = ["AGE_AT_SCAN", "SEX", "FIQ", "VIQ", "PIQ", "FIQ_TEST_TYPE", "EYE_STATUS_AT_SCAN", *ABIDE_COVARIATES]
    assert leaks.uninformative(table, table["subject"].tolist(), columns) == {}


@pytest.mark.slow
def test_a_default_that_tells_nothing_is_named_only(convert, tmp_path):
    """The column of sites is kept whatever it holds, also if it is asked for."""
    for number, asked in enumerate(((), ("--covariates", "age,site"))):
        outcome = convert(rows(site=lambda n: "NYU"), "--phenotype", "age", *asked)
        assert outcome.status == 0, outcome.err
        assert "Nothing can be learnt from site (one value, NYU).\n" in outcome.out
        assert set(open_cohort(tmp_path / "out").covariates) == ({"site", "age"} if number else {"site"})
        shutil.rmtree(tmp_path / "out")
