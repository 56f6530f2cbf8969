"""Whether effects come out in others, too: against loops by hand and SciPy, and where the truth is planted."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from utils.blackout import replication
from utils.blackout.effects import Adjusted
from utils.blackout.families import Family, People
from utils.blackout.replication import COLUMNS, between_repeats, cut, halves
from utils.blackout.replication_words import beside_first, first_sentence
from utils.scores.adjustment import Adjustment

NUMBERS = ["correlation", "correlation_low", "correlation_high"]


def people_of(count: int, seed: int = 0, related: bool = False, **more) -> People:
    """People of sites, some of one person, and three folds; relatives are pairs of any site, in one fold."""
    random = np.random.default_rng(seed)
    unit = np.arange(count) // 2 if related else np.arange(count)
    site = random.choice(list("abcdef"), count, p=[0.4, 0.3, 0.2, 0.06, 0.03, 0.01])
    site[:2], site[2:4] = "g", list("hi")[: len(site[2:4])]
    values = {"label": random.permutation(count) % 2 * 1.0, "site": site, "fold": random.permutation(count)[unit] % 3}
    values |= {"unit": unit, "concludes": True, "seed": seed, **more}
    return People(**values, adjusted=Adjusted(Adjustment(reason="none"), values["label"]))


def family_of(people: People, planted: float, things: int = 40, seed: int = 1, name: str = "regions") -> Family:
    """Four things have an effect of `planted` standard deviations."""
    effect = np.random.default_rng(seed).standard_normal((len(people.label), things))
    effect[:, :4] += planted
    return Family(name, [f"thing {at}" for at in range(things)], effect, effect, people)


@pytest.mark.parametrize("related", [False, True])
def test_halves_share_out_sites_and_folds_and_keep_relatives(related):
    people = people_of(151, related=related)
    chosen = cut(people, 20, np.random.default_rng(0))
    units = len(np.unique(people.unit))
    assert chosen.shape == (20, units) and len(np.unique(chosen, axis=0)) == 20
    of_unit = pd.DataFrame({"site": people.site, "fold": people.fold, "unit": people.unit}).groupby("unit").first()
    for half in chosen:
        assert abs(2 * half.sum() - units) <= 1
        for by in (["site"], ["site", "fold"]):
            apart = (2 * of_unit.assign(half=half).groupby(by)["half"].agg("mean") - 1) * of_unit.groupby(by).size()
            assert apart.abs().max() <= 1 + 1e-9
    alone = of_unit["site"].map(of_unit["site"].value_counts()).to_numpy() == 1
    assert alone.any()
    assert 0.2 < chosen[:, alone].mean() < 0.8
    assert 0.4 < np.median((chosen[:, :1] == chosen[:, 1:]).mean(0)) < 0.6  # who is together is drawn anew


def test_in_halves_half_of_the_pairs_meet_twice(monkeypatch):
    """So the variance is one and a half times that of independent people."""
    found = []

    def test_of(own, seed, unit, widening, permutations):
        found.append(widening)
        return np.ones(own.net.shape[1]), None

    monkeypatch.setattr(replication, "permutation_test", test_of)
    for twice in (False, True):
        halves(family_of(people_of(60, twice=twice), 1.0, things=3), 4)
    assert found == pytest.approx([1] * 8 + [np.sqrt(1.5)] * 8)


def test_rows_of_halves_are_what_a_loop_over_them_gives(monkeypatch):
    """The tests in halves are replaced by one without chance: a mean above a limit."""
    people, seen = people_of(90, related=True), []
    family = family_of(people, 0.3, things=12)

    def test_of(own, seed, unit, *_):
        of_unit = pd.DataFrame(own.net).groupby(unit).sum()
        seen.append(len(of_unit))
        return np.where(of_unit.mean() > 0.5, 0.01, 0.5), None

    monkeypatch.setattr(replication, "permutation_test", test_of)
    found, chosen = halves(family, 30), cut(people, 30, np.random.default_rng(people.seed))
    assert set(seen) == {22, 23} and len(seen) == 60
    named, correlated = np.zeros((30, 2, 12), bool), []
    for split in range(30):
        means = []
        for side, first in enumerate((True, False)):
            inside = chosen[split][people.unit] == first
            of_unit = pd.DataFrame(family.net[inside]).groupby(people.unit[inside]).sum()
            named[split, side] = of_unit.mean() > 0.5
            means.append(family.net[inside].mean(0))
        correlated.append(stats.pearsonr(*means).statistic)
    whole, rows = found.iloc[0], found.iloc[1:].set_index("thing")
    assert found.columns.tolist() == COLUMNS and (found["between"] == "halves").all()
    assert whole[NUMBERS].tolist() == pytest.approx([np.mean(correlated), *np.quantile(correlated, (0.025, 0.975))])
    assert rows[NUMBERS].isna().all(axis=None)
    both, times = named.all(1).sum(0), named.sum((0, 1))
    assert rows.index.tolist() == [one for one, n, t in zip(family.things, family.named, times, strict=True) if n or t]
    for thing, row in rows.iterrows():
        at = family.things.index(thing)
        assert row["named"] == family.named[at] and row["comes_out"] == pytest.approx(times[at] / 60)
        assert row["in_the_other"] == pytest.approx(2 * both[at] / times[at], nan_ok=True)
    assert whole["named"] == family.named.sum() and whole["in_the_other"] == pytest.approx(2 * both.sum() / times.sum())
    assert whole["comes_out"] == pytest.approx((times[family.named] > 30).mean())


@pytest.mark.slow
def test_what_is_planted_comes_out_and_nothing_else():
    people = people_of(200)
    found = halves(family_of(people, 0.6), 40)
    rows = found.iloc[1:].set_index("thing")
    assert rows.index[:4].tolist() == [f"thing {at}" for at in range(4)]
    assert (rows.iloc[:4][["named", "comes_out", "in_the_other"]] > 0.95).all(axis=None)
    assert (rows.iloc[4:]["comes_out"] < 0.2).all() and found.loc[0, "correlation"] > 0.7
    said = first_sentence(found)
    assert said.startswith("Of the 4 regions named, 4 come out in halves of these people. To come out means: ")
    assert "should be published" not in said and "again" not in said
    of_unknown = first_sentence(found, unknown_site=True)
    assert "Site is unknown" in of_unknown and "No map or list should be published" in of_unknown


@pytest.mark.slow
def test_where_nothing_is_little_is_named_and_nothing_comes_out():
    found = [halves(family_of(people_of(120, seed=seed), 0, seed=seed), 5) for seed in range(40)]
    shares = [rows["comes_out"][1:].sum() for rows in found]
    assert 0.01 < np.mean(shares) < 0.1  # falsely named in a half, family-wise
    assert abs(np.mean([rows.loc[0, "correlation"] for rows in found])) < 0.1
    quiet = next(rows for rows in found if rows.loc[0, "named"] == 0)
    assert first_sentence(quiet) == "No region is named. No map or list should be published from this."


def test_pairs_of_both_classes_can_be_named():
    people = people_of(60, related=True, label=np.arange(60) % 2 * 1.0)
    assert halves(family_of(people, 1.5, things=5), 2).loc[1, "comes_out"] == 1


def test_a_network_at_chance_names_nothing_in_halves():
    found = halves(family_of(people_of(60, concludes=False), 2.0), 5)
    assert len(found) == 1 and found.loc[0, ["named", "correlation"]].notna().all()
    assert np.isnan(found.loc[0, "in_the_other"]) and found.loc[0, "named"] == 0


@pytest.mark.parametrize("count", [1, 3])
def test_few_people_have_no_halves(count):
    found = halves(family_of(people_of(count, concludes=False), 1.0))
    assert len(found) == 1 and found.loc[0, ["comes_out", "in_the_other", *NUMBERS]].isna().all()


def test_people_of_one_class_name_nothing():
    people = people_of(40, label=np.ones(40), concludes=False)
    assert len(halves(family_of(people, 1.0), 3)) == 1


def test_repeats_are_compared_pair_by_pair():
    people = people_of(80)
    families = [family_of(people, planted, seed=seed) for seed, planted in ((1, 0.6), (2, 0.5), (3, 0.0))]
    found = between_repeats(families, families[0])
    named = np.array([family.named for family in families])
    means = [family.net.mean(0) for family in families]
    pairs = [stats.pearsonr(means[one], means[other]).statistic for one, other in ((0, 1), (0, 2), (1, 2))]
    assert found.loc[0, "correlation"] == pytest.approx(np.mean(pairs))
    assert found.loc[0, ["correlation_low", "correlation_high"]].isna().all()  # of three pairs
    for _, row in found.iloc[1:].iterrows():
        own = named[:, families[0].things.index(row["thing"])]
        partners = [own[other] for one in np.flatnonzero(own) for other in range(3) if other != one]
        assert row["comes_out"] == pytest.approx(own.mean()) and row["in_the_other"] == pytest.approx(np.mean(partners))
    said = " ".join(beside_first(found))
    assert "in repeats on these people" in said and "again" not in said
    assert first_sentence(found) == ""


def rows_of(between: str, family: str, fates: list[tuple[int, float]]) -> pd.DataFrame:
    """`named` and `comes_out` of things."""
    rows = [("", len(fates), 0.0), *((f"{at}", *fate) for at, fate in enumerate(fates))]
    table = pd.DataFrame(rows, columns=["thing", "named", "comes_out"]).assign(between=between, family=family)
    return table.reindex(columns=COLUMNS).assign(correlation=0.5, correlation_low=0.4, correlation_high=0.6)


@pytest.mark.parametrize(
    ("fates", "said"),
    [
        (
            [(1, 0.9)] * 4 + [(1, 0.5), (1, 0.1), (0, 0.3)],
            "Of the 6 regions named, 4 come out in halves of these people.",
        ),
        ([(1, 0.9), (1, 0.1)], "Of the 2 regions named, 1 comes out in halves of these people."),
        ([(1, 0.5), (1, 0.1)], "Of the 2 regions named, none comes out in halves of these people."),
        ([(1, 0.9)], "The one region named comes out in halves of these people."),
        ([(1, 0.4)], "The one region named does not come out in halves of these people."),
        ([(0, 0.4)], "No region is named."),
    ],
)
def test_first_words_of_halves(fates, said):
    told = first_sentence(rows_of("halves", "regions", fates))
    assert told.startswith(said) and "again" not in told
    here = [share for named, share in fates if named]
    much = here and sum(share > 0.5 for share in here) * 2 >= len(here)
    assert ("No map or list should be published from this." in told) != bool(much)
    (more,) = beside_first(rows_of("halves", "regions", fates))
    assert more.startswith("The mean effects of both halves correlate at 0.50 (0.40 to 0.60) over regions. In ")


def test_families_come_in_the_order_of_a_reader():
    table = pd.concat(
        [
            rows_of("halves", "maps", [(1, 0.9)]),
            rows_of("halves", "values", []),
            rows_of("halves", "connections", [(1, 0.2)] * 3),
            rows_of("halves", "regions", []),
        ]
    )
    said = first_sentence(table)
    order = [
        "Of the 3 connections named, none comes out in halves of these people. The one region in one map named comes ",
        " No region or value is named. No map or list of regions, connections or values should be published from this.",
        "To come out means: named by more than half of all halves",
    ]
    assert said.count("should be published") == 1
    assert [said.index(part) for part in order] == sorted(said.index(part) for part in order)
