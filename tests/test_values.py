"""--blackout of the phenotype's values: their groups, p-values, and whether they come out in halves and repeats."""

from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from by_hand import compute_difference, compute_family_wise_p, read, read_blackout_arrays
from commands import done, read_manifest
from scipy import stats

from utils.blackout.people import BlackoutPeople
from utils.blackout.replication import draw_halves

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

PAIRS = [(0, 1), (4, 5), (10, 12), (20, 22), (30, 31), (41, 42)]  # of one family each
GROUPS = {"AGE_AT_SCAN": "AGE_AT_SCAN", "iq": "iq; iq_missing", "hand": "hand_both; hand_left; hand_right"}
NN = "run.py {job} --model nn --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/{job} "


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A lab of 60 people. Age goes with autism; eyes are open at one site only. In `own.csv` there is no site."""
    folder, random = tmp_path_factory.mktemp("source") / "lab", np.random.default_rng(0)
    table = lab.people(60)
    age = np.where(table["DX_GROUP"] == "1", 23, 16) + random.normal(0, 5, 60)
    table = table.assign(AGE_AT_SCAN=[f"{value:.2f}" for value in age.clip(6, 45)])
    table["EYE_STATUS_AT_SCAN"] = table["SITE_ID"].map({"NYU": "1", "PITT": "2", "USM": "2"})
    lab.pcp(folder, table)
    custom_table = table.drop(columns="SITE_ID").assign(FAM="")
    for number, pair in enumerate(PAIRS):
        custom_table.loc[[*pair], "FAM"] = f"F{number}"
    custom_table.to_csv(folder / "own.csv", index=False)
    return folder


def train_and_black_out(folder: Path, source: Path, convert: str, folds: str) -> Path:
    """The results of a `nn` on folds of a cohort."""
    places = {"of": folder / "cohort", "to": folder, "lab": source}
    done(f"abide-data convert {{lab}} {{of}} --grid reduced --table {{lab}}/{convert}", **places)
    settings = "--numIters 40 --set members=1 --set batch_size=16"
    done(f"{NN}{folds} {settings}", job="--train", **places)
    done(f"{NN}{folds}", job="--blackout", **places)
    return folder / "--blackout"


@pytest.fixture(scope="module")
def custom_blackout(source, tmp_path_factory) -> Path:
    """By columns of one's own, without covariates or sites, twice on two folds."""
    options = "own.csv --covariates '' --phenotype AGE_AT_SCAN,iq,hand --family FAM"
    return train_and_black_out(tmp_path_factory.mktemp("own"), source, options, "--folds 2 --repeats 2")


@pytest.fixture(scope="module")
def site_blackout(source, tmp_path_factory) -> Path:
    """By ABIDE's table, leaving sites out."""
    return train_and_black_out(tmp_path_factory.mktemp("abide"), source, "Phenotypic.csv", "--folds site")


def read_reliance(folder: Path) -> pd.DataFrame:
    """The reliance of people on each group, sorted by name; of a repeat by its folds."""
    reliance_tables = []
    for path in [*folder.glob("blackout.h5")] or folder.glob("fold-*/blackout.h5"):
        stored_effects, names = read_blackout_arrays(path.parent), ("subject", "values")
        reliance_tables.append(
            pd.DataFrame(stored_effects["value_reliance"], *(stored_effects[name].astype(str) for name in names))
        )
    return pd.concat(reliance_tables).sort_index()


def make_labels_and_clusters() -> tuple[np.ndarray, np.ndarray]:
    """Of people sorted by name."""
    cluster = np.arange(60)
    for first_index, second_index in PAIRS:
        cluster[second_index] = first_index
    return (lab.people(60)["DX_GROUP"] == "1").to_numpy().astype(float), cluster


def test_custom_columns_are_groups_with_effects_averaged_over_repeats(custom_blackout, source):
    effect, table = read_reliance(custom_blackout), read(custom_blackout, "values").set_index("group")
    assert table["values"].to_dict() == GROUPS and [*effect] == [*GROUPS]
    repeats = [read_reliance(custom_blackout / f"repeat-{repeat}") for repeat in (0, 1)]
    np.testing.assert_allclose(effect, (repeats[0] + repeats[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(table.loc[[*GROUPS], "reliance"], effect.mean(), atol=1e-5)
    people, (label, _) = lab.read_table(source / "own.csv"), make_labels_and_clusters()
    age, alone = people["AGE_AT_SCAN"].astype(float).to_numpy(), np.full(60, "")
    assert table.loc["AGE_AT_SCAN", "difference"] == pytest.approx(compute_difference(age, label, alone), abs=1e-4)
    both = (people["hand"] == "both").to_numpy().astype(float)
    assert table.loc["hand", "difference"] == pytest.approx(compute_difference(both, label, alone), abs=1e-4)
    has_iq = (people["iq"] != "").to_numpy()
    iq = pd.to_numeric(people["iq"][has_iq]).to_numpy(float)
    assert table.loc["iq", "difference"] == pytest.approx(
        compute_difference(iq, label[has_iq], alone[has_iq]), abs=1e-4
    )


def test_p_and_intervals_count_families(custom_blackout):
    """Nothing is adjusted for. Each two people meet twice, so that means spread by the root of two more."""
    effect, table = read_reliance(custom_blackout), read(custom_blackout, "values").set_index("group").loc[[*GROUPS]]
    label, cluster = make_labels_and_clusters()
    expected = compute_family_wise_p(effect.to_numpy(), label, np.sqrt(2), cluster)
    for column in ("p_reliance", "p_reliance_plain"):
        np.testing.assert_allclose(table[column], expected, atol=0.04)
    assert table.loc["AGE_AT_SCAN", "p_reliance"] < 0.05 < table.loc["hand", "p_reliance"]
    assert read_manifest(custom_blackout)["adjusted_for"] == []
    random, names = np.random.default_rng(0), np.unique(cluster)
    wider = effect.mean() + np.sqrt(2) * (effect - effect.mean())
    total, size = wider.groupby(cluster).sum().to_numpy(), np.bincount(cluster)[names]
    drawn = random.integers(len(names), size=(4000, len(names)))
    means = total[drawn].sum(1) / size[drawn].sum(1)[:, None]
    for column, share in (("reliance_low", 0.025), ("reliance_high", 0.975)):
        spread = np.ptp(np.quantile(means, (0.025, 0.975), axis=0), axis=0)
        assert (np.abs(table[column] - np.quantile(means, share, axis=0)) < 0.06 * spread).all()


def test_halves_report_the_same_as_separate_tests(custom_blackout):
    """By other halves at random, of which half of all pairs meet twice."""
    rows = read(custom_blackout, "replication")
    rows = rows[rows["between"] == "halves"]
    effect, (label, cluster) = read_reliance(custom_blackout).to_numpy(), make_labels_and_clusters()
    clusters, random, rows_of_halves, correlated = np.unique(cluster), np.random.default_rng(5), [], []
    for _ in range(60):
        half = np.isin(cluster, random.choice(clusters, len(clusters) // 2, replace=False))
        sides = [half, ~half]
        rows_of_halves.append(
            [compute_family_wise_p(effect[of], label[of], np.sqrt(1.5), cluster[of], 200) < 0.05 for of in sides]
        )
        correlated.append(stats.pearsonr(*(effect[of].mean(0) for of in sides)).statistic)
    is_significant, total_row, rows_by_group = np.array(rows_of_halves), rows.iloc[0], rows.iloc[1:].set_index("thing")
    assert rows["family"].eq("values").all() and pd.isna(total_row["thing"])
    assert total_row["correlation"] == pytest.approx(np.mean(correlated), abs=0.05)
    low, high = np.quantile(correlated, (0.025, 0.975))
    assert total_row["correlation_low"] == pytest.approx(low, abs=0.15)
    assert total_row["correlation_high"] == pytest.approx(high, abs=0.05)
    times, both = is_significant.sum((0, 1)), is_significant.all(1).sum(0)
    assert total_row["positive_agreement"] == pytest.approx(2 * both.sum() / times.sum(), abs=0.15)
    assert total_row["significant"] == 1 and total_row["replicates"] == float(times[0] > 60)
    for group_name, share, both_count, of in zip(GROUPS, times / 120, both, times, strict=True):
        replicated_fraction = rows_by_group["replicates"].get(group_name, 0)
        assert replicated_fraction == pytest.approx(share, abs=0.12), group_name
        if of > 30:
            assert rows_by_group.loc[group_name, "positive_agreement"] == pytest.approx(2 * both_count / of, abs=0.15)
    assert rows_by_group["significant"].to_dict()["AGE_AT_SCAN"] == 1 and rows_by_group["significant"].sum() == 1


def test_repeats_are_compared_pair_by_pair(custom_blackout):
    rows = read(custom_blackout, "replication")
    rows, (label, cluster) = rows[rows["between"] == "repeats"], make_labels_and_clusters()
    effects = [read_reliance(custom_blackout / f"repeat-{repeat}").to_numpy() for repeat in (0, 1)]
    correlation = stats.pearsonr(*(effect.mean(0) for effect in effects)).statistic
    assert rows.iloc[0]["correlation"] == pytest.approx(correlation, abs=1e-5)
    assert rows.iloc[0][["correlation_low", "correlation_high"]].isna().all()  # of one pair
    is_significant = np.array([compute_family_wise_p(effect, label, np.sqrt(2), cluster) < 0.05 for effect in effects])
    age_row = rows[rows["thing"] == "AGE_AT_SCAN"].iloc[0]
    assert age_row["replicates"] == is_significant[:, 0].mean() and age_row["significant"] == 1


def test_where_a_site_is_left_out_the_tested_people_are_donors(site_blackout):
    """Who have the same eyes, so that nothing changes with these."""
    assert "tested participants of the same site" in read_manifest(site_blackout / "fold-NYU")["donors"]
    effect = read_reliance(site_blackout)
    assert (effect["eyes"] == 0).all() and (effect["age"].abs() > 1e-3).mean() > 0.9


@pytest.mark.parametrize("related", [False, True])
def test_halves_share_out_sites_and_folds_and_keep_relatives(related):
    random = np.random.default_rng(0)
    cluster = np.arange(151) // 2 if related else np.arange(151)
    site = random.choice(list("abcdef"), 151, p=[0.4, 0.3, 0.2, 0.06, 0.03, 0.01])
    site[:4], fold = [*"gghi"], random.permutation(151)[cluster] % 3
    people = BlackoutPeople(
        subject_labels=np.arange(151) % 2,
        subject_sites=site,
        subject_folds=fold,
        subject_cluster_numbers=cluster,
        adjuster=None,
        resampling_seed=0,
    )
    chosen = draw_halves(people, 20, np.random.default_rng(0))
    cluster_count = cluster.max() + 1
    assert chosen.shape == (20, cluster_count) and len(np.unique(chosen, axis=0)) == 20
    cluster_table = pd.DataFrame({"site": site, "fold": fold, "unit": cluster}).groupby("unit").first()
    for half in chosen:
        assert abs(2 * half.sum() - cluster_count) <= 1
        for by in (["site"], ["site", "fold"]):
            apart = (2 * cluster_table.assign(half=half).groupby(by)["half"].agg("mean") - 1) * cluster_table.groupby(
                by
            ).size()
            assert apart.abs().max() <= 1 + 1e-9
    alone = cluster_table["site"].map(cluster_table["site"].value_counts()).to_numpy() == 1
    assert alone.any() and 0.2 < chosen[:, alone].mean() < 0.8
    assert 0.4 < np.median((chosen[:, :1] == chosen[:, 1:]).mean(0)) < 0.6  # who is together is drawn anew
