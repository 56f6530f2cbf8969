"""What a blackout concludes, from its files: regions and maps by the mean effect of everybody, and when nothing is
named."""

from pathlib import Path

import h5py
import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import done, record_of
from conftest import without_drawing

FLIPS = 500


def effects_in(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "blackout.h5") as file:
        return {name: values[()] for name, values in file.items() if isinstance(values, h5py.Dataset)}


@pytest.mark.slow
def test_regions_and_their_maps_have_the_mean_effect_of_everybody(blackout):
    effects, table = effects_in(blackout), pd.read_csv(blackout / "regions.csv").set_index("region")
    for name in ("reliance", "unique", "sufficiency"):
        expected = dict(zip(effects["region"], effects[name].mean(0), strict=True))
        assert table[name].to_dict() == pytest.approx(expected, abs=2e-6), name
        assert (table[f"{name}_low"] <= table[name]).all() and (table[name] <= table[f"{name}_high"]).all()
    by_map = pd.read_csv(blackout / "regions_by_map.csv")
    maps = [name.decode() for name in effects["map"]]
    mean = pd.DataFrame(effects["reliance_by_map"].astype(float).mean(0), index=effects["region"], columns=maps)
    expected = [mean.loc[region, name] for region, name in zip(by_map["region"], by_map["map"], strict=True)]
    assert len(by_map) == mean.size and by_map["reliance"].to_numpy() == pytest.approx(np.array(expected), abs=2e-6)
    assert by_map["rank"].tolist() == [*range(1, len(by_map) + 1)] and by_map["reliance"].is_monotonic_decreasing


@pytest.mark.slow
@pytest.mark.parametrize("name", ["regions", "regions_by_map"])
def test_p_is_family_wise_and_folds_make_intervals_wider(name, blackout):
    """Against the largest t after everybody's sign was flipped at random. Pairs of people that meet in several models
    double the variance of a mean, so that p is larger than of so many people by one model."""
    effects = effects_in(blackout)
    of = effects["reliance" if name == "regions" else "reliance_by_map"].astype(float).reshape(40, -1)
    signs = np.random.default_rng(0).choice([-1, 1], (FLIPS, 40, 1))
    t, *flipped = (np.abs(one.mean(0)) / np.maximum(one.std(0, ddof=1), 1e-12) for one in (of, *(of * signs)))
    largest = np.array([one.max() for one in flipped])
    places = {region: at for at, region in enumerate(effects["region"])}
    maps = [of_map.decode() for of_map in effects["map"]]
    table = pd.read_csv(blackout / f"{name}.csv")
    columns = [places[region] for region in table["region"]]
    if name == "regions_by_map":
        columns = [place * len(maps) + maps.index(of_map) for place, of_map in zip(columns, table["map"], strict=True)]
    by_one_model = np.array([np.mean(largest >= one) for one in t[columns]])
    p = table["p_reliance_plain"].to_numpy()
    assert (p >= by_one_model - 0.05).all() and (p[by_one_model < 0.5] > by_one_model[by_one_model < 0.5]).all()
    wider = [np.mean(largest >= one / np.sqrt(2)) for one in t[columns]]
    assert (p <= np.array(wider) + 0.05).all()
    width = (table["reliance_high"] - table["reliance_low"]).to_numpy()
    alone = 2 * 1.96 * of.std(0, ddof=1)[columns] / np.sqrt(40)
    assert np.median(width[alone > 0] / alone[alone > 0]) == pytest.approx(np.sqrt(2), rel=0.06)


@pytest.mark.slow
def test_regions_are_named_where_the_network_has_something_to_explain(blackout, on_folds):
    written, table = record_of(blackout), pd.read_csv(blackout / "regions.csv")
    significant = table.loc[table["p_reliance"] < 0.05, "name"]
    named = f"rests on {len(significant)} (" if len(significant) else "None of 116 regions is significant"
    assert written["better_than_chance"] is True and named in written["conclusion"]
    assert written["adjusted_for"] == ["AGE_AT_SCAN", "SEX", "log func_mean_fd"]
    assert "AUC within sites on these subjects 0.97 (0.83 to 1.00)" in written["conclusion"]
    assert (
        (table["p_reliance"] != table["p_reliance_plain"]) | (table["reliance"] != table["reliance_adjusted"])
    ).all()


@pytest.fixture(scope="module")
def blacked_out(everybody, converted, newcomers, tmp_path_factory) -> Path:
    """A folder with blackouts of 24 people whose labels were `exchanged`, of a `few`, and of `one` by another model."""
    folder = tmp_path_factory.mktemp("blacked-out")
    labs.pcp(folder / "lab", labs.people(24, 80002), ("falff", "alff"), series=True)
    labs.edit(folder / "lab" / "Phenotypic.csv", with_exchanged_labels)
    labs.records(folder / "records")
    command = "run.py --blackout --donors 1 --outDir {to} --dataDir {of} --chkPointDir "
    with without_drawing():
        done("abide-data convert {at}/lab {at}/cohort --like {of}", of=converted, at=folder)
        for name, cohort in {"few": newcomers, "exchanged": folder / "cohort"}.items():
            done(command + "{ckpt}/ckpt --everybody", ckpt=everybody, of=cohort, to=folder / name)
        train = "run.py --train --model cnn --preset regions --set members=1 --numIters 1 --outDir {at}/train"
        done(f"{train} --dataDir {{at}}/records --chkPointDir {{at}}/ckpt", at=folder)
        done(command + "{at}/ckpt --model cnn", at=folder, of=folder / "records", to=folder / "one")
    return folder


def with_exchanged_labels(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(DX_GROUP=table["DX_GROUP"].map({"1": "2", "2": "1"}))


@pytest.mark.slow
def test_a_network_below_chance_ends_with_that_and_names_no_region(blacked_out):
    written, table = record_of(blacked_out / "exchanged"), pd.read_csv(blacked_out / "exchanged" / "regions.csv")
    assert written["better_than_chance"] is False
    assert "ranks them the wrong way round, so there is nothing to explain" in written["conclusion"]
    assert not any(name in written["conclusion"] for name in table["name"])
    assert table["p_reliance"].notna().all()


@pytest.mark.slow
def test_few_people_give_no_verdict_and_one_subject_has_effects_without_intervals(blacked_out):
    written = record_of(blacked_out / "few")
    assert "Nothing is concluded about regions" in written["conclusion"] and written["adjusted_for"] == []
    assert written["better_than_chance"] is None
    table = pd.read_csv(blacked_out / "one" / "regions.csv")
    for name in ("background", "reliance", "unique"):
        assert table[name].notna().all() and table[[f"{name}_low", f"{name}_high"]].isna().all(axis=None)
    assert table[["p_reliance", "q_unique"]].isna().all(axis=None)
    assert (table["background_autism"].isna() != table["background_control"].isna()).all()
    assert "No p-values: the subjects are of one class." in record_of(blacked_out / "one")["conclusion"]
