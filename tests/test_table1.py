"""Table 1: counts, means and shares by pandas, p-values by SciPy and by hand, and which variables are taken."""

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from data.cohorts.rows import Row
from utils.evaluation import table1


def cohort_of(covariates: pd.DataFrame | None, phenotype: pd.DataFrame | None = None, **columns) -> SimpleNamespace:
    """A cohort of people with these tables, every second of them with autism."""
    count = len(covariates if covariates is not None else phenotype)
    label = columns.get("label", np.arange(count) % 2.0)
    site = columns.get("site", np.array(["NYU", "PITT"])[np.arange(count) // 2 % 2])
    rows = [Row(f"{at}.bin", f"s{at}", str(site[at]), float(label[at]), "train") for at in range(count)]
    subjects = pd.Index([row.subject for row in rows])
    tables = [None if table is None else table.set_axis(subjects) for table in (covariates, phenotype)]
    first = {row.subject: at for at, row in enumerate(rows)}
    return SimpleNamespace(
        rows=rows, covariates=tables[0], raw_phenotype=tables[1], first_records=lambda positions: first
    )


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    random = np.random.default_rng(3)
    label = np.arange(80) % 2
    age = [f"{value:.2f}" for value in random.normal(15 + 2 * label, 3 + label)]
    motion = ["" if at in (4, 6, 9) else f"{value:.4f}" for at, value in enumerate(random.lognormal(label, 1))]
    sex = random.choice(["F", "M"], 80, p=[0.3, 0.7])
    return pd.DataFrame({"AGE": age, "mean_fd": motion, "sex": sex})


@pytest.fixture(scope="module")
def table(people) -> pd.DataFrame:
    return table1.table1(cohort_of(people)).set_index(["variable", "site", "category"])


def by_class(values: pd.Series) -> tuple[pd.Series, pd.Series]:
    known = pd.to_numeric(values, errors="coerce")
    return known[1::2].dropna(), known[::2].dropna()


@pytest.mark.parametrize("name", ["AGE", "mean_fd"])
def test_numbers_have_means_and_the_tests_of_scipy(name, table, people):
    row, (autism, control) = table.loc[name, "", ""], by_class(people[name])
    for kind, values in (("autism", autism), ("control", control)):
        expected = [len(values), 40 - len(values), values.mean(), values.std(ddof=1), values.median()]
        found = row[[f"{kind}_{value}" for value in ("known", "missing", "mean", "sd", "median")]].tolist()
        assert found == pytest.approx(expected)
    spread = [values.var(ddof=1) / len(values) for values in (autism, control)]
    statistic = (autism.mean() - control.mean()) / np.sqrt(sum(spread))
    freedom = sum(spread) ** 2 / sum(one**2 / (len(v) - 1) for one, v in zip(spread, (autism, control), strict=True))
    assert (row["test"], row["statistic"]) == ("Welch's t", pytest.approx(statistic))
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(statistic), freedom))
    assert row["p_ranks"] == pytest.approx(stats.mannwhitneyu(autism, control).pvalue)


def test_categories_have_shares_and_pearsons_chi_squared(table, people):
    counts = np.array([[(people["sex"][start::2] == name).sum() for start in (1, 0)] for name in ("F", "M")])
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    statistic = (np.square(counts - expected) / expected).sum()
    row = table.loc["sex", "", ""]
    assert (row["test"], row["statistic"]) == ("chi-squared", pytest.approx(statistic))
    assert row["p"] == pytest.approx(stats.chi2.sf(statistic, 1))
    shares = table.loc[[("sex", "", "F"), ("sex", "", "M")], ["autism_share", "control_share"]]
    assert shares.to_numpy() == pytest.approx(counts / 40)


def test_each_site_has_its_people_and_means_and_no_tests(table, people):
    here = people[np.arange(80) // 2 % 2 == 1]
    autism, control = by_class(here["AGE"].reset_index(drop=True))
    row = table.loc["AGE", "PITT", ""]
    assert (row["autism_mean"], row["control_mean"]) == (pytest.approx(autism.mean()), pytest.approx(control.mean()))
    assert table.loc["people", "PITT", ""][["autism_known", "control_known"]].tolist() == [20, 20]
    assert table.loc["people", "", ""][["autism_known", "control_known"]].tolist() == [40, 40]
    assert (table["test"][table.index.get_level_values("site") != ""] == "").all()
    assert table.loc["site", "", ""]["test"] == "chi-squared"


def enumerated(sizes: list[int], autism: int) -> float:
    """The chance of a table with these row sizes as far from independence as 6:0, 0:6, 1:1, or further."""
    share, found = autism / sum(sizes), {}
    for cells in product(*(range(size + 1) for size in sizes)):
        if sum(cells) == autism:
            ways = math.prod(math.comb(size, cell) for size, cell in zip(sizes, cells, strict=True))
            gaps = ((cell - size * share) ** 2 / size for size, cell in zip(sizes, cells, strict=True))
            found[cells] = ways, sum(gaps)
    extreme = sum(ways for ways, gap in found.values() if gap >= found[6, 0, 1][1] - 1e-9)
    return extreme / sum(ways for ways, _ in found.values())


def test_few_people_are_compared_by_exact_tests():
    counts = np.array([[3, 1], [1, 4]])
    expected = stats.hypergeom.pmf([3, 0, 4], 9, 4, 4)  # as likely as what was seen, or less
    assert table1.compared_counts(counts)["p"] == pytest.approx(expected.sum())
    several = table1.compared_counts(np.array([[6, 0], [0, 6], [1, 1]]))
    assert several["test"] == "chi-squared, Monte Carlo"
    assert several["p"] == pytest.approx(enumerated([6, 6, 2], 7), abs=0.005)
    assert several == table1.compared_counts(np.array([[6, 0], [0, 6], [1, 1]]))  # drawn from one seed


@pytest.mark.parametrize("age", [["1", "", "", "", ""], ["7", "7", "7", "7", "7"], ["", "", "", "", ""]])
def test_what_cannot_be_tested_is_not(age):
    table = table1.table1(cohort_of(pd.DataFrame({"age": age}), site=["NYU"] * 5))
    assert table["p"].isna().all() and set(table["site"]) == {""}


def test_people_of_unknown_diagnosis_take_no_part():
    ages = pd.DataFrame({"age": ["10", "11", "12", "13", "99"]})
    table = table1.table1(cohort_of(ages, label=[0, 1, 0, 1, np.nan])).set_index(["variable", "site"])
    assert table.loc[("age", ""), ["autism_known", "control_known", "control_mean"]].tolist() == [2, 2, 11]
    assert table1.table1(cohort_of(ages, label=[np.nan] * 5)).empty


def variables_of(covariates: dict | None, phenotype: dict | None = None) -> pd.DataFrame:
    tables = (None if columns is None else pd.DataFrame(columns) for columns in (covariates, phenotype))
    return table1.variables(cohort_of(*tables))


def test_iq_is_of_the_phenotype_and_sex_gets_its_names():
    phenotype = {"age": [9.0] * 4, "sex_male": [1.0, 0, 0, 1], "sex_female": [0.0, 1, 0, 0], "fiq": [90.0, 91, 92, 93]}
    phenotype |= {"fiq_missing": [0.0] * 4, "iq_test_wasi": [1.0] * 4, "bmi": [20.0, 21, 22, 23]}
    found = variables_of(
        {"SITE": ["NYU", "NYU", "PITT", "PITT"], "AGE": ["9", "8", "7", "6"], "SEX": list("1221")}, phenotype
    )
    assert list(found) == ["AGE", "SEX", "fiq"]  # neither the site again nor another age
    assert found["SEX"].astype(object).fillna("?").tolist() == ["male", "female", "?", "male"]
    alone = variables_of(None, phenotype)
    assert list(alone) == ["age", "sex", "fiq"]


def test_a_phenotype_without_covariates_keeps_its_values():
    """Nothing of it is a covariate, so that only Table 1 takes it."""
    found = variables_of(None, {"viq": [90.0, 91, 92, 93], "Verbal_IQ": [1.0, 2, 3, 4], "bmi": [20.0, 21, 22, 23]})
    assert found.to_dict("list") == {"viq": [90, 91, 92, 93], "Verbal_IQ": [1, 2, 3, 4]}
    table = table1.table1(cohort_of(None, pd.DataFrame({"piq": [90.0, 91, 92, 93]}))).set_index(["variable", "site"])
    assert table.loc[("piq", ""), ["autism_known", "control_known", "control_mean"]].tolist() == [2, 2, 91]


def test_a_number_with_two_values_is_a_category_and_text_too():
    found = variables_of({"SEX": list("1212"), "hand": ["R", "L", "", "R"], "age": ["9", "8", "7", "6"]})
    assert found["SEX"].tolist() == ["1", "2", "1", "2"] and found["hand"].isna().tolist() == [
        False,
        False,
        True,
        False,
    ]
    assert found["age"].tolist() == [9, 8, 7, 6]


def test_too_many_categories_are_left_out_and_that_is_printed(capsys):
    names = [f"scanner {at}" for at in range(12)]
    table = table1.table1(cohort_of(pd.DataFrame({"scanner": names, "age": [str(at) for at in range(12)]})))
    assert "scanner" not in set(table["variable"]) and "age" in set(table["variable"])
    assert capsys.readouterr().out == "Table 1 leaves out what has more than 10 categories: scanner.\n"
    table1.table1(cohort_of(pd.DataFrame({"scanner": names[:4]})))
    assert capsys.readouterr().out == ""
