"""--blackout: effects beside whole passes of the network, with parts put in by hand.

Where --donors names more people than there are, all others are donors, and nothing is left to chance.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import lab
import numpy as np
import pandas as pd
import pytest
from bundles import build_bundled_network, read_people
from by_hand import (
    PARCEL_PAIRS,
    REGION_NAMES,
    REGION_PLACE_BY_PARCEL,
    compute_difference,
    read,
    read_blackout_arrays,
    write_few_regions,
)
from commands import done, read_manifest, run
from scipy.special import expit
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data.images.grids import REDUCED
from models import MODELS
from utils.runs.statements import CandidateChoice

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
MADE_MAPS = ("falff", "alff")  # maps
People = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory) -> Path:
    return write_few_regions(tmp_path_factory.mktemp("atlas"))


class Passes:
    """Whole passes of a network over people, whose phenotype has `phenotype_names`; `stored_arrays` is what their
    blackout stored."""

    def __init__(self, model: Path, cohort: Path, out: Path):
        self.network, self.people, self.stored_arrays = (
            build_bundled_network(model),
            read_people(cohort),
            read_blackout_arrays(out),
        )
        self.volume, self.edges = self.people["volume"], self.people["connectome"]
        self.phenotype_names = json.loads((cohort / "cohort.json").read_text())["phenotype"]
        self.sign, self.person_indices = np.where(self.people["label"] == 1, 1, -1), np.arange(len(self.volume))
        self.base = self.log_odds()

    def log_odds(self, **changed: np.ndarray) -> np.ndarray:
        return self.network(self.people | changed)

    def over_donors(self, compute_fall: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The mean effect on the true class of the falls with all others as donors."""
        donor_indices = [np.roll(self.person_indices, shift) for shift in self.person_indices[1:]]
        return self.sign * np.mean([compute_fall(donor) for donor in donor_indices], axis=0)

    def inside(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """A region's voxels (1, x, y, z, 1), and its edges (edges,)."""
        return (self.stored_arrays["atlas"] == [*REGION_NAMES][place])[None, ..., None], (
            REGION_PLACE_BY_PARCEL[PARCEL_PAIRS] == place
        ).any(1)


# All others are donors


@pytest.fixture(scope="module")
def six_people(bundle, tmp_path_factory) -> Path:
    """The cohort of so many other people, one of whom lacks a parcel."""
    folder = tmp_path_factory.mktemp("six")
    source = lab.pcp(folder / "lab", lab.people(6, 60002), MADE_MAPS, series=True)
    lab.edit(source / "cpac/X_0060003_rois_made.1D", lambda series_table: series_table.assign(**{"#2": "0"}))
    done("abide-data convert {lab} {to} --like {model}", lab=source, to=folder / "cohort", model=bundle)
    assert np.isnan(read_people(folder / "cohort")["connectome"]).sum() == len(REGION_PLACE_BY_PARCEL) - 1
    return folder / "cohort"


ALL_PEOPLE_OPTIONS = "--bundle {model} --systems {atlas}/systems.csv --donors 50 --verify 2 "


@pytest.fixture(scope="module")
def exact_blackout(bundle, six_people, atlas, tmp_path_factory) -> tuple[Path, str]:
    """The results of a blackout of six people, and what was printed."""
    folder = tmp_path_factory.mktemp("exact") / "out"
    return folder, done(BLACKOUT + ALL_PEOPLE_OPTIONS, model=bundle, of=six_people, atlas=atlas, to=folder)


@pytest.fixture(scope="module")
def passes(bundle, six_people, exact_blackout) -> Passes:
    return Passes(bundle, six_people, exact_blackout[0])


def test_a_blackout_is_due_once_the_atlas_changes(exact_blackout, bundle, six_people, atlas):
    places = {"model": bundle, "of": six_people, "atlas": atlas, "to": exact_blackout[0]}
    names = (atlas / "own.txt").read_text()
    for content in (names, names.replace("3 ", "3 new "), names):
        (atlas / "own.txt").write_text(content)
        due = int(content != names)
        assert f"{due} of 1 for --blackout" in done(f"{BLACKOUT}{ALL_PEOPLE_OPTIONS}--dryRun", **places)


def replace_regions(passes: Passes) -> Iterator[Callable[[np.ndarray], People]]:
    """All of a region: its voxels in each map, and the edges of its parcels."""
    for place in range(len(REGION_NAMES)):
        is_region_voxel, is_region_edge = passes.inside(place)
        yield partial(replace_region, passes, is_region_voxel, is_region_edge)


def replace_region(
    passes: Passes, is_region_voxel: np.ndarray, is_region_edge: np.ndarray, donor: np.ndarray
) -> People:
    return {
        **replace_input("volume", is_region_voxel, passes.volume, donor),
        **replace_input("connectome", is_region_edge, passes.edges, donor),
    }


def replace_regions_in_maps(passes: Passes) -> Iterator[Callable[[np.ndarray], People]]:
    """Its voxels in one map, or its edges alone."""
    volume, edges = passes.volume, passes.edges
    assert [name.decode() for name in passes.stored_arrays["map"]] == [*MADE_MAPS, "connectome"]
    for place in range(len(REGION_NAMES)):
        is_region_voxel, is_region_edge = passes.inside(place)
        for map_index in range(len(MADE_MAPS)):
            is_map_voxel = is_region_voxel & (np.arange(len(MADE_MAPS)) == map_index)
            yield partial(replace_input, "volume", is_map_voxel, volume)
        yield partial(replace_input, "connectome", is_region_edge, edges)


def replace_pairs(passes: Passes) -> Iterator[Callable[[np.ndarray], People]]:
    """The edges between two regions, or within one. What edges say is linear, so that a mean over donors is what the
    mean of donors' edges says."""
    region_pair_by_edge = np.sort(REGION_PLACE_BY_PARCEL[PARCEL_PAIRS], axis=1)
    assert [*map(tuple, passes.stored_arrays["pair"].tolist())] == sorted({*map(tuple, region_pair_by_edge.tolist())})
    for pair in passes.stored_arrays["pair"]:
        is_pair_edge = (region_pair_by_edge == pair).all(1)
        yield partial(replace_input, "connectome", is_pair_edge, passes.edges)


def replace_values(passes: Passes) -> Iterator[Callable[[np.ndarray], People]]:
    """All values of a group, as networks read them."""
    groups, phenotype = [name.decode() for name in passes.stored_arrays["values"]], passes.people["phenotype"]
    assert {*groups} == {*GROUPS}
    for group in groups:
        is_group_value = np.isin(passes.phenotype_names, GROUPS[group].split("; "))
        yield partial(replace_input, "phenotype", is_group_value, phenotype)


def replace_input(name: str, is_replaced: np.ndarray, values: np.ndarray, donor: np.ndarray) -> People:
    """One input, with the donors' values where it is replaced."""
    return {name: np.where(is_replaced, values[donor], values)}


@pytest.mark.bits
@pytest.mark.parametrize(
    "array, make_changes",
    [
        ("reliance", replace_regions),
        ("reliance_by_map", replace_regions_in_maps),
        ("pair_reliance", replace_pairs),
        ("value_reliance", replace_values),
    ],
)
def test_reliance_is_how_far_full_passes_fall_with_donors_values(array, make_changes, passes):
    stored_effects, all_changes = (
        passes.stored_arrays[array].reshape(len(passes.person_indices), -1),
        [*make_changes(passes)],
    )
    assert stored_effects.shape[1] == len(all_changes) and np.abs(stored_effects).max() > 1e-3
    for stored_effect, change in zip(stored_effects.T, all_changes, strict=True):
        expected = passes.over_donors(lambda donor, change=change: passes.base - passes.log_odds(**change(donor)))
        np.testing.assert_allclose(stored_effect, expected, atol=1e-5)


@pytest.mark.bits
def test_a_region_becomes_the_background_or_alone_remains(passes):
    stored_arrays, volume, edges = passes.stored_arrays, passes.volume, passes.edges
    assert [name.decode() for name in stored_arrays["subject"]] == passes.people["subject"].tolist()
    assert stored_arrays["label"].tolist() == passes.people["label"].tolist() and stored_arrays["region"].tolist() == [
        *REGION_NAMES
    ]
    np.testing.assert_allclose(stored_arrays["probability"], expit(passes.base), atol=1e-6)
    for place in range(len(REGION_NAMES)):
        is_region_voxel, is_region_edge = passes.inside(place)
        means = volume[:, is_region_voxel[0, ..., 0]].mean(1)
        np.testing.assert_allclose(stored_arrays["region_means"][:, place], means, atol=1e-5)
        background_inputs = {
            "volume": np.where(is_region_voxel, 0, volume),
            "connectome": np.where(is_region_edge, np.nan, edges),
        }
        fall = passes.base - passes.log_odds(**background_inputs)
        np.testing.assert_allclose(stored_arrays["delta_logit"][:, place], passes.sign * fall, atol=1e-5)
        probability_fall = passes.sign * (expit(passes.base) - expit(passes.base - fall))
        np.testing.assert_allclose(stored_arrays["delta_probability"][:, place], probability_fall, atol=1e-5)

        def compute_rise(
            donor: np.ndarray, is_region_voxel=is_region_voxel, is_region_edge=is_region_edge
        ) -> np.ndarray:
            donor_inputs = {
                "volume": np.where(is_region_voxel, volume, volume[donor]),
                "connectome": np.where(is_region_edge, edges, edges[donor]),
            }
            return passes.log_odds(**donor_inputs) - passes.log_odds(volume=volume[donor], connectome=edges[donor])

        np.testing.assert_allclose(stored_arrays["sufficiency"][:, place], passes.over_donors(compute_rise), atol=1e-5)


@pytest.mark.bits
def test_full_passes_by_the_program_find_the_same(exact_blackout):
    """Of each of two people, with 5 donors: a region by three fills, in two maps and in its edges; by the background; a
    group of values; a pair of regions."""
    verified = re.search(r"^(\d+) blackouts of 2 records recomputed .* (\S+)\.$", exact_blackout[1], re.M)
    assert int(verified[1]) == 2 * (5 * (3 + 3) + 1 + 5 + 1) and float(verified[2]) < 1e-5
    manifest = read_manifest(exact_blackout[0])
    assert "3 of 12 parcels lie in 3 of 4 regions" in " ".join(manifest["notes"])
    assert manifest["donors_per_record"] == 5 and manifest["subjects"] == 6


def predict_region_means(means: np.ndarray, family: np.ndarray) -> np.ndarray:
    """What the other regions of both maps predict of means (people, regions, maps), by ridge regressions that have not
    seen the person; the penalty of each region is the one that predicts it best."""
    penalties, predicted_means, folds = np.logspace(-3, 1, 9), np.empty(means.shape), GroupKFold(5)
    for place in range(means.shape[1]):
        remaining_means, predicted = (
            np.delete(means, place, axis=1).reshape(len(means), -1),
            np.empty((9, *means[:, 0].shape)),
        )
        for penalty_index, penalty in enumerate(penalties):
            for training_indices, left_out_indices in folds.split(means, groups=family):
                model = make_pipeline(StandardScaler(), Ridge(alpha=penalty * len(training_indices)))
                predicted[penalty_index, left_out_indices] = model.fit(
                    remaining_means[training_indices], means[training_indices, place]
                ).predict(remaining_means[left_out_indices])
        predicted_means[:, place] = predicted[np.square(predicted - means[:, place]).sum((1, 2)).argmin()]
    return predicted_means


@pytest.mark.parametrize("maps", [MADE_MAPS, ("alff",)])
def test_unique_effects_exclude_predictions_from_the_remaining_brain(maps, bundle, six_people, atlas, tmp_path):
    """In the maps that are replaced; edges stay."""
    options = f"--bundle {{model}} --maps {','.join(maps)} --donors 50"
    done(BLACKOUT + options, model=bundle, of=six_people, atlas=atlas, to=tmp_path / "out")
    passes, is_replaced_map = Passes(bundle, six_people, tmp_path / "out"), np.isin(MADE_MAPS, maps)
    assert re.search("edges .* stayed.*--maps", " ".join(read_manifest(tmp_path / "out")["notes"]))
    stored_arrays, volume = passes.stored_arrays, passes.volume
    assert not (tmp_path / "out/connections.csv").exists() and "pair_reliance" not in stored_arrays
    assert (tmp_path / "out/regions_by_map.csv").exists() == ("map" in stored_arrays) == (len(maps) > 1)
    means = stored_arrays["region_means"].astype(float)
    expected = predict_region_means(means, passes.people["subject"])
    for place in range(len(REGION_NAMES)):
        is_replaced_voxel = passes.inside(place)[0] & is_replaced_map

        def compute_fall(level: np.ndarray, donor: np.ndarray, is_replaced_voxel=is_replaced_voxel) -> np.ndarray:
            moved_volume = volume[donor] + (level - level[donor])[:, None, None, None]
            return passes.base - passes.log_odds(volume=np.where(is_replaced_voxel, moved_volume, volume))

        for array, level in (("unique", expected[:, place]), ("reliance", np.zeros((len(means), 2)))):
            expected_effect = passes.over_donors(partial(compute_fall, level))
            np.testing.assert_allclose(stored_arrays[array][:, place], expected_effect, atol=1e-5)
        assert np.abs(stored_arrays["unique"][:, place] - stored_arrays["reliance"][:, place]).max() > 1e-5


def test_the_background_in_stored_volumes_is_the_value_outside_the_brain(trained, cohort, tmp_path):
    import tensorflow as tf

    places = {"of": cohort, "ckpt": trained, "to": tmp_path / "out"}
    done("run.py --blackout --model cnn --donors 1 --dataDir {of} --chkPointDir {ckpt} --outDir {to}", **places)
    stored_arrays, config = read_blackout_arrays(tmp_path / "out"), read_manifest(trained / "cnn")["config"]
    model = MODELS["cnn"]
    network = model.module.build(model.parse_settings(config), REDUCED)
    latest_checkpoint = tf.train.latest_checkpoint(str(trained / "cnn"))
    tf.train.Checkpoint(model=network).restore(latest_checkpoint).expect_partial().assert_existing_objects_matched()
    file_by_subject = lab.read_table(cohort / "subjects.csv").set_index("subject")["file"]
    for person_index, subject in enumerate(stored_arrays["subject"].astype(str)):
        label, _, (volume,) = lab.read_record(cohort / file_by_subject[subject])
        faces = [volume.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]
        background_value = np.median(np.concatenate(faces))
        occluded_volumes = np.stack(
            [volume, *(np.where(stored_arrays["atlas"] == region, background_value, volume) for region in (1, 68))]
        )
        logits = network({"volume": occluded_volumes[..., None]}, training=False).numpy().astype(float)
        log_odds = (logits[:, 1] - logits[:, 0]) * (1 if label == 1 else -1)
        np.testing.assert_allclose(
            stored_arrays["delta_logit"][person_index, [0, 67]], log_odds[0] - log_odds[1:], atol=1e-5
        )


# Some others are donors


@pytest.fixture(scope="module")
def related(bundle, atlas, tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """Blackouts with two donors each, of all and of one map, and who was tested. Two sites have enough people to give
    them, USM has not; one family is of one site, and one of two."""
    folder = tmp_path_factory.mktemp("related")
    table = lab.people(15, 70002).assign(SITE_ID=["NYU"] * 6 + ["PITT"] * 6 + ["USM"] * 3, FAM="")
    table.loc[[0, 1], "FAM"], table.loc[[7, 13], "FAM"] = "A", "B"
    lab.pcp(folder / "lab", table, MADE_MAPS, series=True)
    places = {"lab": folder / "lab", "cohort": folder / "cohort", "model": bundle}
    done("abide-data convert {lab} {cohort} --like {model} --family FAM", **places)
    places |= {"of": folder / "cohort", "atlas": atlas}
    done(BLACKOUT + "--bundle {model} --donors 2", to=folder / "out", **places)
    done(BLACKOUT + "--bundle {model} --donors 2 --maps alff", to=folder / "alff", **places)
    person = table["SUB_ID"].where(table["FAM"] == "", table.groupby("FAM")["SUB_ID"].transform("first"))
    return folder, table.assign(subject=table["SUB_ID"], person=person)


def list_possible_donors(table: pd.DataFrame, person_index: int) -> list[list[int]]:
    """The people, relatives together, of whom the donors of one are drawn."""
    possible_donors = table[table["person"] != table["person"][person_index]]
    if table["SITE_ID"][person_index] != "USM":
        possible_donors = possible_donors[possible_donors["SITE_ID"] == table["SITE_ID"][person_index]]
    return [family_rows.index.tolist() for _, family_rows in possible_donors.groupby("person")]


def find_drawn_donors(passes: Passes, table: pd.DataFrame, level: np.ndarray) -> np.ndarray:
    """Who gave to whom (people, 2), by what the edges of three regions say, `level` (people, 3), which is linear."""
    donor_pairs, possible_pairs = [], [*combinations(range(len(table)), 2)]
    for person_index in range(len(table)):
        mean_donor_level = (
            level[person_index]
            - passes.sign[person_index] * passes.stored_arrays["reliance_by_map"][person_index, :3, -1]
        )
        max_differences = [
            np.abs((level[first] + level[second]) / 2 - mean_donor_level).max() for first, second in possible_pairs
        ]
        assert np.sort(max_differences)[0] < 2e-5 < np.sort(max_differences)[1]
        donor_pairs.append(possible_pairs[int(np.argmin(max_differences))])
        givers = [
            family_index
            for family_index, family_indices in enumerate(list_possible_donors(table, person_index))
            if {*family_indices} & {*donor_pairs[-1]}
        ]
        assert len(givers) == 2, table["subject"][person_index]
    return np.array(donor_pairs)


def remove_donor_chance(fall: np.ndarray, level: np.ndarray, drawn: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Mean falls (people,) over donors (people, 2). What is taken out is by a regression, without labels, of the falls
    on how far the levels (people, maps) of person and donor are apart, shrunk by the weight of one more pair."""
    person_indices = range(len(table))
    mean_level = np.array(
        [
            np.mean(
                [level[family_indices].mean(0) for family_indices in list_possible_donors(table, person_index)], axis=0
            )
            for person_index in person_indices
        ]
    )
    donor_deviation, donor_distance = level[drawn] - mean_level[:, None], level[:, None] - level[drawn]
    deviation_scale = np.sqrt(np.square(donor_deviation).mean((0, 1)))
    ridge = Ridge(alpha=1, fit_intercept=False)
    ridge.fit((donor_distance / deviation_scale).reshape(-1, level.shape[1]), fall.ravel())
    return (fall + donor_deviation @ (ridge.coef_ / deviation_scale)).mean(1)


def test_donors_share_the_site_not_the_family_and_chance_in_the_draw_is_removed(bundle, related):
    """Of the fall with all of a region, of that in each map, and of what is unique; not of what edges say."""
    folder, table = related
    passes, alff_arrays = Passes(bundle, folder / "cohort", folder / "out"), read_blackout_arrays(folder / "alff")
    assert passes.people["subject"].tolist() == table["subject"].tolist()
    volume, edges, stored_arrays, count = passes.volume, passes.edges, passes.stored_arrays, len(table)
    edge_level_by_region = np.column_stack(
        [
            passes.base - passes.log_odds(connectome=np.where(passes.inside(index)[1], edges[0], edges))
            for index in range(len(REGION_NAMES))
        ]
    )
    drawn, means = (
        find_drawn_donors(passes, table, edge_level_by_region[:, :3]),
        stored_arrays["region_means"].astype(float),
    )
    assert len(np.unique(drawn)) > 10
    edge_effects = edge_level_by_region - edge_level_by_region[drawn].mean(1)
    expected = predict_region_means(means, table["person"].to_numpy())
    for place in range(len(REGION_NAMES)):
        is_region_voxel, index, region_levels = passes.inside(place)[0], np.arange(2), means[:, place]

        def compute_falls(
            is_changed_map: np.ndarray, levels: np.ndarray, is_region_voxel=is_region_voxel
        ) -> np.ndarray:
            donor_volumes = [volume[donors] + (levels - levels[donors])[:, None, None, None] for donors in drawn.T]
            changed_volumes = [
                np.where(is_region_voxel & is_changed_map, changed_volume, volume) for changed_volume in donor_volumes
            ]
            return np.column_stack(
                [passes.base - passes.log_odds(volume=changed_volume) for changed_volume in changed_volumes]
            )

        zero_levels, predicted_means = np.zeros((count, 2)), expected[:, place]
        for values, change, levels, edge_effect in (
            (stored_arrays["reliance"], compute_falls(index >= 0, zero_levels), region_levels, edge_effects[:, place]),
            (
                stored_arrays["reliance_by_map"][..., 0],
                compute_falls(index == 0, zero_levels),
                region_levels[:, [0]],
                0,
            ),
            (alff_arrays["reliance"], compute_falls(index == 1, zero_levels), region_levels[:, [1]], 0),
            (
                alff_arrays["unique"],
                compute_falls(index == 1, predicted_means),
                (region_levels - predicted_means)[:, [1]],
                0,
            ),
        ):
            expected_effect = remove_donor_chance(change, levels, drawn, table) + edge_effect
            np.testing.assert_allclose(values[:, place], passes.sign * expected_effect, atol=1e-5)
        rise = [
            passes.log_odds(volume=np.where(is_region_voxel & (index == 1), volume, volume[donors]))
            for donors in drawn.T
        ]
        rise = [lent - passes.log_odds(volume=volume[donors]) for lent, donors in zip(rise, drawn.T, strict=True)]
        np.testing.assert_allclose(alff_arrays["sufficiency"][:, place], passes.sign * np.mean(rise, axis=0), atol=1e-5)


def test_a_region_in_a_single_map_has_a_value(related):
    folder, table = related
    stored_arrays, label = read_blackout_arrays(folder / "alff"), table["DX_GROUP"].map({"1": 1.0, "2": 0.0}).to_numpy()
    rows = read(folder / "alff", "regions").set_index("region").loc[[*REGION_NAMES]]
    values = stored_arrays["region_means"][..., 1].astype(float).T
    expected = [compute_difference(value, label, table["SITE_ID"].to_numpy()) for value in values]
    np.testing.assert_allclose(rows["difference"], expected, atol=1e-4)
    assert read(folder / "out", "regions")["difference"].isna().all()


# What is pooled

POOLED_BLACKOUT = BLACKOUT + "--folds 3 --donors 1 --chkPointDir {ckpt}/ckpt --systems {atlas}/systems.csv"


def swap_files(first_path: Path, second_path: Path) -> None:
    for path, content in ((first_path, second_path.read_bytes()), (second_path, first_path.read_bytes())):
        lab.edit(path, content)


def delete_array(array_path: Path, _: Path) -> None:
    lab.edit(array_path, array_path.read_bytes())  # no link any more
    with h5py.File(array_path, "r+") as store:
        del store["unique"]


@pytest.mark.parametrize("spoil", [swap_files, delete_array])
def test_effects_on_different_people_or_without_an_array_are_not_pooled(
    spoil, few_region_blackout, converted, on_folds, tmp_path
):
    lab.copy(few_region_blackout / "blackout", tmp_path / "out")
    lab.edit(tmp_path / "out/run.json", {"finished": False})
    first_path, second_path = (tmp_path / f"out/fold-{fold}/blackout.h5" for fold in (1, 2))
    assert len(read_blackout_arrays(first_path.parent)["label"]) == len(
        read_blackout_arrays(second_path.parent)["label"]
    )
    spoil(first_path, second_path)
    outcome = run(
        POOLED_BLACKOUT, of=converted, ckpt=on_folds, atlas=few_region_blackout / "atlas", to=tmp_path / "out"
    )
    assert outcome.status == 2 and re.fullmatch(r".* error: .*fold-1/blackout\.h5.*\n", outcome.err)
    assert not read_manifest(tmp_path / "out")["finished"]


def test_fold_networks_reading_differently_are_not_pooled(cohort, atlas, tmp_path, monkeypatch):
    """As --choose may have taken them: `residual` reads volumes as they are stored."""

    def choose_candidate(run: Any, *_: object) -> tuple[object, CandidateChoice]:
        candidate = run.candidates[int(run.fold)]
        choice = CandidateChoice(
            name=str(candidate),
            preset=candidate.preset_name,
            config=vars(candidate.config),
            batches=1,
            metric="auc",
            scores={},
        )
        return candidate, choice

    monkeypatch.setattr("utils.training.train.choose_candidate", choose_candidate)
    (tmp_path / "lines").write_text(
        "".join(f"--preset {preset_name} --set members=1\n" for preset_name in ("residual", "combined"))
    )
    places = {"of": cohort, "at": tmp_path}
    on_folds = "--model cnn --folds 2 --dataDir {of} --chkPointDir {at}/ckpt --outDir {at}/"
    done(f"run.py --train --choose {{at}}/lines --numIters 1 {on_folds}train", **places)
    outcome = run(f"run.py --blackout --donors 1 --atlas {{atlas}}/own.nii.gz {on_folds}out", atlas=atlas, **places)
    assert outcome.status == 2 and re.fullmatch(r".* error: .*--choose.*\n", outcome.err)
    assert not [*tmp_path.glob("out/blackout.*")]
