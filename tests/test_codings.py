"""Columns that were not filled in alike everywhere are told, and honest ones are not."""

import numpy as np
import pandas as pd
import pytest

from data.conversion.codings import mixed_codings, units_by_site

SITES = [site for site in "ABC" for _ in range(8)]


def ages(seed: int = 0, factor: float = 12.0, site: str = "C") -> pd.DataFrame:
    years = np.random.default_rng(seed).uniform(8, 35, 24)
    return pd.DataFrame(
        {"age": [f"{age * (factor if at == site else 1):.1f}" for age, at in zip(years, SITES, strict=True)]}
    )


@pytest.mark.parametrize("seed", range(5))
def test_ages_in_months_at_one_site_are_told(seed):
    (told,) = units_by_site(ages(seed), ["age"], SITES)
    assert told.startswith("age has the median ") and " at C, " in told and "months and years?" in told
    (told,) = units_by_site(ages(seed, 1 / 12, "A"), ["age"], SITES)
    assert " at B, C, " in told or " at C, B, " in told


def test_sites_of_children_and_of_adults_are_no_units():
    assert units_by_site(ages(factor=3), ["age"], SITES) == units_by_site(ages(factor=1), ["age"], SITES) == []
    assert units_by_site(ages(), ["age"], ["A"] * 24) == []


@pytest.mark.parametrize(
    "words, told",
    [
        ("M F 1 2", "holds M (2), F (2), 1 (2), 2 (2): two codings of one thing?"),
        ("male M female F", "two codings"),
        ("R L right left", "two codings"),
        ("Male male female", "holds Male, male, which differ in capitals only"),
        ("M F", None),
        ("1 2", None),
        ("1.0 2.0", None),
        ("R L Ambi", None),
        ("NYU USM UCLA_1", None),
        ("0 1 2 3", None),
    ],
)
def test_two_codings_in_one_column(words, told):
    found = mixed_codings(pd.DataFrame({"sex": words.split() * 2}), ["sex"])
    assert (told in found[0]) if told else found == []
