"""--blackout: effects beside whole passes of the network, with parts put in by hand.

Where --donors names more people than there are, all others are donors, and nothing is left to chance.
"""

import json
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import h5py
import lab
import numpy as np
import pandas as pd
import pytest
from bundles import network_of, people_of
from by_hand import EDGES, PLACE, REGIONS, difference, few_regions, read, stored
from commands import done, record_of, run
from scipy.special import expit
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.cohorts.records import REDUCED
from models import MODELS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

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
BLACKOUT = "run.py --blackout --atlas {atlas}/own.nii.gz --dataDir {of} --outDir {to} "
MADE = ("falff", "alff")  # maps
People = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    return few_regions(tmp_path_factory.mktemp("atlas"))


class Passes:
    """Whole passes of a network over people, whose phenotype has `names`; `found` is what their blackout stored."""

    def __init__(self, model: Path, cohort: Path, out: Path):
        self.network, self.people, self.found = network_of(model), people_of(cohort), stored(out)
        self.volume, self.edges = self.people["volume"], self.people["connectome"]
        self.names = json.loads((cohort / "cohort.json").read_text())["phenotype"]
        self.sign, self.each = np.where(self.people["label"] == 1, 1, -1), np.arange(len(self.volume))
        self.base = self.log_odds()

    def log_odds(self, **changed: np.ndarray) -> np.ndarray:
        return self.network(self.people | changed)

    def over_donors(self, fall: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The mean effect on the true class of the falls with all others as donors."""
        shifted = [np.roll(self.each, by) for by in self.each[1:]]
        return self.sign * np.mean([fall(donor) for donor in shifted], axis=0)

    def inside(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """A region's voxels (1, x, y, z, 1), and its edges (edges,)."""
        return (self.found["atlas"] == [*REGIONS][place])[None, ..., None], (PLACE[EDGES] == place).any(1)


# All others are donors


@pytest.fixture(scope="module")
def six(bundle, tmp_path_factory) -> Path:
    """The cohort of so many other people, one of whom lacks a parcel."""
    folder = tmp_path_factory.mktemp("six")
    source = lab.pcp(folder / "lab", lab.people(6, 60002), MADE, series=True)
    lab.edit(source / "cpac/X_0060003_rois_made.1D", lambda of: of.assign(**{"#2": "0"}))
    done("abide-data convert {lab} {to} --like {model}", lab=source, to=folder / "cohort", model=bundle)
    assert np.isnan(people_of(folder / "cohort")["connectome"]).sum() == len(PLACE) - 1
    return folder / "cohort"


ALL = "--bundle {model} --systems {atlas}/systems.csv --donors 50 --verify 2 "


@pytest.fixture(scope="module")
def exact(bundle, six, atlas, tmp_path_factory) -> tuple[Path, str]:
    """The results of a blackout of six people, and what was printed."""
    folder = tmp_path_factory.mktemp("exact") / "out"
    return folder, done(BLACKOUT + ALL, model=bundle, of=six, atlas=atlas, to=folder)


@pytest.fixture(scope="module")
def passes(bundle, six, exact) -> Passes:
    return Passes(bundle, six, exact[0])


def test_a_blackout_is_due_once_its_atlas_says_otherwise(exact, bundle, six, atlas):
    places = {"model": bundle, "of": six, "atlas": atlas, "to": exact[0]}
    names = (atlas / "own.txt").read_text()
    for content in (names, names.replace("3 ", "3 new "), names):
        (atlas / "own.txt").write_text(content)
        due = int(content != names)
        assert f"{due} of 1 for --blackout" in done(f"{BLACKOUT}{ALL}--dryRun", **places)


def of_regions(passes: Passes) -> Iterator[Callable[[np.ndarray], People]]:
    """All of a region: its voxels in each map, and the edges of its parcels."""
    volume, edges = passes.volume, passes.edges
    for place in range(len(REGIONS)):
        inside, own = passes.inside(place)
        yield lambda donor, inside=inside, own=own: {
            "volume": np.where(inside, volume[donor], volume),
            "connectome": np.where(own, edges[donor], edges),
        }


def of_regions_in_maps(passes: Passes) -> Iterator[Callable[[np.ndarray], People]]:
    """Its voxels in one map, or its edges alone."""
    volume, edges = passes.volume, passes.edges
    assert [name.decode() for name in passes.found["map"]] == [*MADE, "connectome"]
    for place in range(len(REGIONS)):
        inside, own = passes.inside(place)
        for at in range(len(MADE)):
            of_map = inside & (np.arange(len(MADE)) == at)
            yield lambda donor, of_map=of_map: {"volume": np.where(of_map, volume[donor], volume)}
        yield lambda donor, own=own: {"connectome": np.where(own, edges[donor], edges)}


def of_pairs(passes: Passes) -> Iterator[Callable[[np.ndarray], People]]:
    """The edges between two regions, or within one. What edges say is linear, so that a mean over donors is what the
    mean of donors' edges says."""
    of_edge = np.sort(PLACE[EDGES], axis=1)
    assert [*map(tuple, passes.found["pair"].tolist())] == sorted({*map(tuple, of_edge.tolist())})
    for pair in passes.found["pair"]:
        own = (of_edge == pair).all(1)
        yield lambda donor, own=own: {"connectome": np.where(own, passes.edges[donor], passes.edges)}


def of_values(passes: Passes) -> Iterator[Callable[[np.ndarray], People]]:
    """All values of a group, as networks read them."""
    groups, phenotype = [name.decode() for name in passes.found["values"]], passes.people["phenotype"]
    assert {*groups} == {*GROUPS}
    for group in groups:
        own = np.isin(passes.names, GROUPS[group].split("; "))
        yield lambda donor, own=own: {"phenotype": np.where(own, phenotype[donor], phenotype)}


@pytest.mark.bits
@pytest.mark.parametrize(
    "array, changes",
    [
        ("reliance", of_regions),
        ("reliance_by_map", of_regions_in_maps),
        ("pair_reliance", of_pairs),
        ("value_reliance", of_values),
    ],
)
def test_reliance_is_how_far_whole_passes_fall_with_what_others_have(array, changes, passes):
    found, every = passes.found[array].reshape(len(passes.each), -1), [*changes(passes)]
    assert found.shape[1] == len(every) and np.abs(found).max() > 1e-3
    for of_thing, change in zip(found.T, every, strict=True):
        expected = passes.over_donors(lambda donor, change=change: passes.base - passes.log_odds(**change(donor)))
        np.testing.assert_allclose(of_thing, expected, atol=1e-5)


@pytest.mark.bits
def test_a_region_becomes_the_background_or_is_all_that_stays(passes):
    found, volume, edges = passes.found, passes.volume, passes.edges
    assert [name.decode() for name in found["subject"]] == passes.people["subject"].tolist()
    assert found["label"].tolist() == passes.people["label"].tolist() and found["region"].tolist() == [*REGIONS]
    np.testing.assert_allclose(found["probability"], expit(passes.base), atol=1e-6)
    for place in range(len(REGIONS)):
        inside, own = passes.inside(place)
        means = volume[:, inside[0, ..., 0]].mean(1)
        np.testing.assert_allclose(found["region_means"][:, place], means, atol=1e-5)
        unknown = {"volume": np.where(inside, 0, volume), "connectome": np.where(own, np.nan, edges)}
        fall = passes.base - passes.log_odds(**unknown)
        np.testing.assert_allclose(found["delta_logit"][:, place], passes.sign * fall, atol=1e-5)
        of_probability = passes.sign * (expit(passes.base) - expit(passes.base - fall))
        np.testing.assert_allclose(found["delta_probability"][:, place], of_probability, atol=1e-5)

        def rise(donor: np.ndarray, inside=inside, own=own) -> np.ndarray:
            lent = {"volume": np.where(inside, volume, volume[donor]), "connectome": np.where(own, edges, edges[donor])}
            return passes.log_odds(**lent) - passes.log_odds(volume=volume[donor], connectome=edges[donor])

        np.testing.assert_allclose(found["sufficiency"][:, place], passes.over_donors(rise), atol=1e-5)


@pytest.mark.bits
def test_whole_passes_of_the_program_find_the_same(exact):
    """Of each of two people, with 5 donors: a region by three fills, in two maps and in its edges; by the background; a
    group of values; a pair of regions."""
    verified = re.search(r"^(\d+) blackouts of 2 records recomputed .* (\S+)\.$", exact[1], re.M)
    assert int(verified[1]) == 2 * (5 * (3 + 3) + 1 + 5 + 1) and float(verified[2]) < 1e-5
    manifest = record_of(exact[0])
    assert "3 of 12 parcels lie in 3 of 4 regions" in " ".join(manifest["notes"])
    assert manifest["donors_a_record"] == 5 and manifest["subjects"] == 6


def expected_of(means: np.ndarray, person: np.ndarray) -> np.ndarray:
    """What the other regions of both maps predict of means (people, regions, maps), by ridge regressions that have not
    seen the person; the penalty of each region is the one that predicts it best."""
    penalties, found, folds = np.logspace(-3, 1, 9), np.empty(means.shape), GroupKFold(5)
    for place in range(means.shape[1]):
        others, predicted = np.delete(means, place, axis=1).reshape(len(means), -1), np.empty((9, *means[:, 0].shape))
        for at, penalty in enumerate(penalties):
            for rest, held_out in folds.split(means, groups=person):
                fit = make_pipeline(StandardScaler(), Ridge(alpha=penalty * len(rest)))
                predicted[at, held_out] = fit.fit(others[rest], means[rest, place]).predict(others[held_out])
        found[:, place] = predicted[np.square(predicted - means[:, place]).sum((1, 2)).argmin()]
    return found


@pytest.mark.parametrize("maps", [MADE, ("alff",)])
def test_what_is_unique_is_beside_what_the_rest_of_the_brain_predicts(maps, bundle, six, atlas, tmp_path):
    """In the maps that are replaced; edges stay."""
    more = f"--bundle {{model}} --maps {','.join(maps)} --donors 50"
    done(BLACKOUT + more, model=bundle, of=six, atlas=atlas, to=tmp_path / "out")
    passes, replaced = Passes(bundle, six, tmp_path / "out"), np.isin(MADE, maps)
    assert re.search("edges .* stayed.*--maps", " ".join(record_of(tmp_path / "out")["notes"]))
    found, volume = passes.found, passes.volume
    assert not (tmp_path / "out/connections.csv").exists() and "pair_reliance" not in found
    assert (tmp_path / "out/regions_by_map.csv").exists() == ("map" in found) == (len(maps) > 1)
    means = found["region_means"].astype(float)
    expected = expected_of(means, passes.people["subject"])
    for place in range(len(REGIONS)):
        own = passes.inside(place)[0] & replaced

        def fall(donor: np.ndarray, level: np.ndarray, own=own) -> np.ndarray:
            moved = volume[donor] + (level - level[donor])[:, None, None, None]
            return passes.base - passes.log_odds(volume=np.where(own, moved, volume))

        for array, level in (("unique", expected[:, place]), ("reliance", np.zeros((len(means), 2)))):
            given = passes.over_donors(lambda donor, level=level, fall=fall: fall(donor, level))
            np.testing.assert_allclose(found[array][:, place], given, atol=1e-5)
        assert np.abs(found["unique"][:, place] - found["reliance"][:, place]).max() > 1e-5


def test_the_background_of_volumes_as_they_are_stored_is_what_lies_outside_the_brain(trained, cohort, tmp_path):
    import tensorflow as tf

    places = {"of": cohort, "ckpt": trained, "to": tmp_path / "out"}
    done("run.py --blackout --model cnn --donors 1 --dataDir {of} --chkPointDir {ckpt} --outDir {to}", **places)
    found, config = stored(tmp_path / "out"), record_of(trained / "cnn")["config"]
    kind = MODELS["cnn"]
    network = kind.module.build(kind.parse_settings(config), REDUCED)
    latest = tf.train.latest_checkpoint(str(trained / "cnn"))
    tf.train.Checkpoint(model=network).restore(latest).expect_partial().assert_existing_objects_matched()
    files = lab.read_table(cohort / "subjects.csv").set_index("subject")["file"]
    for at, subject in enumerate(found["subject"].astype(str)):
        label, _, (volume,) = lab.read_record(cohort / files[subject])
        faces = [volume.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]
        outside = np.median(np.concatenate(faces))
        shown = np.stack([volume, *(np.where(found["atlas"] == region, outside, volume) for region in (1, 68))])
        logits = network({"volume": shown[..., None]}, training=False).numpy().astype(float)
        log_odds = (logits[:, 1] - logits[:, 0]) * (1 if label == 1 else -1)
        np.testing.assert_allclose(found["delta_logit"][at, [0, 67]], log_odds[0] - log_odds[1:], atol=1e-5)


# Some others are donors


@pytest.fixture(scope="module")
def related(bundle, atlas, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """Blackouts with two donors each, of all and of one map, and who was tested. Two sites have enough people to give
    them, USM has not; one family is of one site, and one of two."""
    folder = tmp_path_factory.mktemp("related")
    table = lab.people(15, 70002).assign(SITE_ID=["NYU"] * 6 + ["PITT"] * 6 + ["USM"] * 3, FAM="")
    table.loc[[0, 1], "FAM"], table.loc[[7, 13], "FAM"] = "A", "B"
    lab.pcp(folder / "lab", table, MADE, series=True)
    places = {"lab": folder / "lab", "cohort": folder / "cohort", "model": bundle}
    done("abide-data convert {lab} {cohort} --like {model} --family FAM", **places)
    places |= {"of": folder / "cohort", "atlas": atlas}
    done(BLACKOUT + "--bundle {model} --donors 2", to=folder / "out", **places)
    done(BLACKOUT + "--bundle {model} --donors 2 --maps alff", to=folder / "alff", **places)
    person = table["SUB_ID"].where(table["FAM"] == "", table.groupby("FAM")["SUB_ID"].transform("first"))
    return folder, table.assign(subject=table["SUB_ID"], person=person)


def could_give(table: pd.DataFrame, one: int) -> list[list[int]]:
    """The people, relatives together, of whom the donors of one are drawn."""
    others = table[table["person"] != table["person"][one]]
    if table["SITE_ID"][one] != "USM":
        others = others[others["SITE_ID"] == table["SITE_ID"][one]]
    return [of.index.tolist() for _, of in others.groupby("person")]


def drawn_of(passes: Passes, table: pd.DataFrame, level: np.ndarray) -> np.ndarray:
    """Who gave to whom (people, 2), by what the edges of three regions say, `level` (people, 3), which is linear."""
    drawn, pairs = [], [*combinations(range(len(table)), 2)]
    for one in range(len(table)):
        given = level[one] - passes.sign[one] * passes.found["reliance_by_map"][one, :3, -1]
        apart = [np.abs((level[first] + level[second]) / 2 - given).max() for first, second in pairs]
        assert np.sort(apart)[0] < 2e-5 < np.sort(apart)[1]
        drawn.append(pairs[int(np.argmin(apart))])
        givers = [at for at, of in enumerate(could_give(table, one)) if {*of} & {*drawn[-1]}]
        assert len(givers) == 2, table["subject"][one]
    return np.array(drawn)


def without_chance(fall: np.ndarray, level: np.ndarray, drawn: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Mean falls (people,) over donors (people, 2). What is taken out is by a regression, without labels, of the falls
    on how far the levels (people, maps) of person and donor are apart, shrunk by the weight of one more pair."""
    each = range(len(table))
    everybody = np.array([np.mean([level[of].mean(0) for of in could_give(table, one)], axis=0) for one in each])
    away, apart = level[drawn] - everybody[:, None], level[:, None] - level[drawn]
    weight = np.sqrt(np.square(away).mean((0, 1)))
    ridge = Ridge(alpha=1, fit_intercept=False)
    ridge.fit((apart / weight).reshape(-1, level.shape[1]), fall.ravel())
    return (fall + away @ (ridge.coef_ / weight)).mean(1)


def test_donors_are_of_the_same_site_and_no_relatives_and_the_chance_of_their_draw_is_taken_out(bundle, related):
    """Of the fall with all of a region, of that in each map, and of what is unique; not of what edges say."""
    folder, table = related
    passes, of_alff = Passes(bundle, folder / "cohort", folder / "out"), stored(folder / "alff")
    assert passes.people["subject"].tolist() == table["subject"].tolist()
    volume, edges, found, count = passes.volume, passes.edges, passes.found, len(table)
    level = np.column_stack(
        [
            passes.base - passes.log_odds(connectome=np.where(passes.inside(at)[1], edges[0], edges))
            for at in range(len(REGIONS))
        ]
    )
    drawn, means = drawn_of(passes, table, level[:, :3]), found["region_means"].astype(float)
    assert len(np.unique(drawn)) > 10
    of_edges = level - level[drawn].mean(1)
    expected = expected_of(means, table["person"].to_numpy())
    for place in range(len(REGIONS)):
        inside, at, own = passes.inside(place)[0], np.arange(2), means[:, place]

        def falls(which: np.ndarray, moved: np.ndarray, inside=inside) -> np.ndarray:
            given = [volume[of] + (moved - moved[of])[:, None, None, None] for of in drawn.T]
            changed = [np.where(inside & which, one, volume) for one in given]
            return np.column_stack([passes.base - passes.log_odds(volume=one) for one in changed])

        still, beside = np.zeros((count, 2)), expected[:, place]
        for values, change, levels, edges_too in (
            (found["reliance"], falls(at >= 0, still), own, of_edges[:, place]),
            (found["reliance_by_map"][..., 0], falls(at == 0, still), own[:, [0]], 0),
            (of_alff["reliance"], falls(at == 1, still), own[:, [1]], 0),
            (of_alff["unique"], falls(at == 1, beside), (own - beside)[:, [1]], 0),
        ):
            given = without_chance(change, levels, drawn, table) + edges_too
            np.testing.assert_allclose(values[:, place], passes.sign * given, atol=1e-5)
        rise = [passes.log_odds(volume=np.where(inside & (at == 1), volume, volume[of])) for of in drawn.T]
        rise = [lent - passes.log_odds(volume=volume[of]) for lent, of in zip(rise, drawn.T, strict=True)]
        np.testing.assert_allclose(of_alff["sufficiency"][:, place], passes.sign * np.mean(rise, axis=0), atol=1e-5)


def test_a_region_in_one_map_has_a_value(related):
    folder, table = related
    found, label = stored(folder / "alff"), table["DX_GROUP"].map({"1": 1.0, "2": 0.0}).to_numpy()
    rows = read(folder / "alff", "regions").set_index("region").loc[[*REGIONS]]
    values = found["region_means"][..., 1].astype(float).T
    expected = [difference(value, label, table["SITE_ID"].to_numpy()) for value in values]
    np.testing.assert_allclose(rows["difference"], expected, atol=1e-4)
    assert read(folder / "out", "regions")["difference"].isna().all()


# What is pooled

POOLED = BLACKOUT + "--folds 3 --donors 1 --chkPointDir {ckpt}/ckpt --systems {atlas}/systems.csv"


def exchanged(one: Path, other: Path) -> None:
    for path, content in ((one, other.read_bytes()), (other, one.read_bytes())):
        lab.edit(path, content)


def without_an_array(one: Path, _: Path) -> None:
    lab.edit(one, one.read_bytes())  # no link any more
    with h5py.File(one, "r+") as store:
        del store["unique"]


@pytest.mark.parametrize("spoil", [exchanged, without_an_array])
def test_effects_of_other_people_or_of_less_are_not_pooled(spoil, of_few_regions, converted, on_folds, tmp_path):
    lab.copy(of_few_regions / "blackout", tmp_path / "out")
    lab.edit(tmp_path / "out/run.json", {"finished": False})
    one, other = (tmp_path / f"out/fold-{fold}/blackout.h5" for fold in (1, 2))
    assert len(stored(one.parent)["label"]) == len(stored(other.parent)["label"])
    spoil(one, other)
    found = run(POOLED, of=converted, ckpt=on_folds, atlas=of_few_regions / "atlas", to=tmp_path / "out")
    assert found.status == 2 and re.fullmatch(r".* error: .*fold-1/blackout\.h5.*\n", found.err)
    assert not record_of(tmp_path / "out")["finished"]


def test_networks_of_folds_that_read_differently_are_not_pooled(cohort, atlas, tmp_path, monkeypatch):
    """As --choose may have taken them: `residual` reads volumes as they are stored."""

    def chosen(run: object, _: object = None) -> tuple[object, dict]:
        of = run.candidates[int(run.fold)]
        told = {"name": str(of), "metric": "auc", "scores": {}, "preset": of.preset, "config": vars(of.config)}
        return of, {"chosen": told | {"batches": 1}}

    monkeypatch.setattr("utils.training.choose.choose_candidate", chosen)
    (tmp_path / "lines").write_text("".join(f"--preset {of} --set members=1\n" for of in ("residual", "combined")))
    places = {"of": cohort, "at": tmp_path}
    on_folds = "--model cnn --folds 2 --dataDir {of} --chkPointDir {at}/ckpt --outDir {at}/"
    done(f"run.py --train --choose {{at}}/lines --numIters 1 {on_folds}train", **places)
    found = run(f"run.py --blackout --donors 1 --atlas {{atlas}}/own.nii.gz {on_folds}out", atlas=atlas, **places)
    assert found.status == 2 and re.fullmatch(r".* error: .*--choose.*\n", found.err)
    assert not [*tmp_path.glob("out/blackout.*")]
