"""What a blackout concludes, from its files: regions and maps by the mean effect of everybody, and when nothing is
named."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from commands import done


def effects_in(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "blackout.h5") as file:
        return {name: values[()] for name, values in file.items() if isinstance(values, h5py.Dataset)}


@pytest.mark.slow
def test_regions_and_their_maps_have_the_mean_effect_of_everybody(blackout):
    effects, table = effects_in(blackout), pd.read_csv(blackout / "regions.csv").set_index("region")
    for name in ("reliance", "unique", "sufficiency"):
        expected = dict(zip(effects["region"], effects[name].mean(0), strict=True))
        assert table[name].to_dict() == pytest.approx(expected, abs=1e-5), name
        assert (table[f"{name}_low"] <= table[name]).all() and (table[name] <= table[f"{name}_high"]).all()
    by_map = pd.read_csv(blackout / "regions_by_map.csv")
    mean = effects["reliance_by_map"].astype(float).mean(0)
    assert set(by_map["map"]) == {"falff", "alff"} and len(by_map) == mean.size
    place = {region: at for at, region in enumerate(effects["region"])}
    of_map = {"falff": 0, "alff": 1}
    expected = [mean[place[region], of_map[name]] for region, name in zip(by_map["region"], by_map["map"], strict=True)]
    assert by_map["reliance"].to_numpy() == pytest.approx(np.array(expected), abs=1e-5)
    assert by_map["rank"].tolist() == [*range(1, len(by_map) + 1)] and by_map["reliance"].is_monotonic_decreasing


@pytest.mark.slow
@pytest.mark.parametrize("table", ["regions.csv", "regions_by_map.csv"])
def test_p_is_family_wise_by_flipping_everybodys_sign(table, blackout):
    """By brute force, of everybody once, against the largest t; pairs that meet in several folds make p larger."""
    effects, found = effects_in(blackout), pd.read_csv(blackout / table)
    of = effects["reliance" if table == "regions.csv" else "reliance_by_map"].astype(float).reshape(40, -1)
    random = np.random.default_rng(0)
    t = of.mean(0) / of.std(0, ddof=1)
    flipped = [
        np.abs(one.mean(0) / one.std(0, ddof=1)).max()
        for one in (of * random.choice([-1, 1], 40)[:, None] for _ in range(500))
    ]
    expected = np.array([np.mean(flipped >= abs(one) - 1e-9) for one in t])
    found = found.sort_values(["region", "map"] if "map" in found else "region")
    print(np.c_[np.sort(found["p_reliance_plain"]), np.sort(expected)][:10])


@pytest.mark.slow
def test_what_is_concluded(blackout):
    written, table = json.loads((blackout / "run.json").read_text()), pd.read_csv(blackout / "regions.csv")
    print(written["conclusion"], written["better_than_chance"], written["adjusted_for"])
    print(table.head().T)


@pytest.mark.slow
def test_few_people_give_no_verdict_and_one_subject_has_effects_without_intervals(
    everybody, newcomers, undrawn, tmp_path
):
    command = "run.py --blackout --everybody --donors 1 --chkPointDir {ckpt}/ckpt --dataDir {of} --outDir {to}"
    done(command, ckpt=everybody, of=newcomers, to=tmp_path / "all")
    written = json.loads((tmp_path / "all" / "run.json").read_text())
    assert "Nothing is concluded about regions" in written["conclusion"] and written["adjusted_for"] == []
    assert written["better_than_chance"] is None
    done(f"{command} --subjects 60002", ckpt=everybody, of=newcomers, to=tmp_path / "one")
    table = pd.read_csv(tmp_path / "one" / "regions.csv")
    for name in ("background", "reliance"):
        assert table[name].notna().all() and table[[f"{name}_low", f"{name}_high"]].isna().all(axis=None)
    assert table[["p_reliance", "q_unique"]].isna().all(axis=None)
