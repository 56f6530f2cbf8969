"""Groups of the phenotype's values: who is in which, and what a network does when one is replaced."""

import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from helpers import add_connectomes

from data.cohorts import phenotype
from data.cohorts.records import PHENOTYPE_SIZE
from data.cohorts.rows import Metadata
from models import mmnn, nn
from utils.blackout import values
from utils.blackout.donors import Donors
from utils.blackout.effects import Adjusted
from utils.scores.adjustment import adjustment

random = np.random.default_rng(0)


def test_each_of_abides_values_is_in_one_group():
    names = phenotype.abide_names()
    groups = values.groups_of(Metadata(phenotype=names))
    assert sorted(at for own in groups.values() for at in own) == list(range(PHENOTYPE_SIZE))
    found = {group: [names[at] for at in own] for group, own in groups.items()}
    assert (
        found["age"] == ["age"]
        and found["sex"] == ["sex_male", "sex_female"]
        and found["eyes"] == ["eyes_open", "eyes_closed"]
    )
    assert found["IQ"] == ["fiq", "viq", "piq", "wisc_vci", "wisc_pri", "wisc_wmi", "wisc_psi"]
    assert "handedness_score" in found["handedness"] and found["body mass index"] == ["bmi"]
    marks = found[values.MARKS]
    assert {"handedness_unknown", "handedness_score_missing", "fiq_missing", "wisc_missing", "bmi_missing"} <= {*marks}
    assert {"iq_test_wasi", "iq_test_other"} <= {*marks} and len(marks) == 11


def test_each_column_of_ones_own_is_a_group_with_its_mark():
    table = pd.DataFrame(
        {"bdi": ["3", "", "5", "8"], "hand": ["left", "right", "left", "right"], "bdi_x": list("1234")}
    )
    columns = ["bdi", "hand", "bdi_x"]
    training = np.ones(4, bool)
    coded = phenotype.custom_values(table, columns, training)
    metadata = Metadata(
        phenotype=tuple(coded),
        phenotype_columns=tuple(columns),
        phenotype_categories=phenotype.categories(table, columns, training),
    )
    assert values.groups_of(metadata) == {"bdi": [0, 1], "hand": [2, 3], "bdi_x": [4]}


def test_without_names_each_value_is_a_group():
    assert list(values.groups_of(Metadata()).values()) == [[at] for at in range(PHENOTYPE_SIZE)]


def test_a_group_stands_for_its_first_value_or_for_how_much_is_unknown():
    known = pd.DataFrame(
        {"age": [10.0, np.nan], "fiq": [100.0, 90.0], "fiq_missing": [0.0, 1.0], "age_missing": [1.0, 1.0]}
    )
    found = values.of_groups(known, {"age": [0], "IQ": [1], values.MARKS: [2, 3]})
    np.testing.assert_array_equal(found, [[10, 100, 1], [np.nan, 90, 2]])


def test_a_category_that_is_unknown_is_no_value():
    """All values of the category are 0 then, which says nothing of the first."""
    known = pd.DataFrame(
        {"hand_right": [1.0, 0, 0], "hand_left": [0.0, 1, 0], "score": [5.0, 2, 3], "male": [0.0, 1, 1]}
    )
    found = values.of_groups(known, {"handedness": [0, 1, 2], "sex": [3]})
    np.testing.assert_array_equal(found, [[1, 0], [0, 1], [np.nan, 1]])


OF_ABIDE = {
    "age": ["AGE_AT_SCAN"],
    "sex": ["SEX"],
    "IQ": ["FIQ", "VIQ", "fiq", "WISC_IV_VCI"],
    "handedness": ["HANDEDNESS_CATEGORY", "handedness"],
    "eyes": ["EYE_STATUS_AT_SCAN"],
    "body mass index": ["BMI"],
    values.MARKS: ["FIQ_TEST_TYPE"],
}


@pytest.mark.parametrize("group", OF_ABIDE)
def test_a_group_of_abide_is_not_adjusted_for_itself(group):
    columns = [name for names in OF_ABIDE.values() for name in names] + ["site", "log func_mean_fd"]
    known = pd.DataFrame(1.0, index=range(3), columns=columns)
    rest = values.without_own(known, Metadata(phenotype=phenotype.abide_names()), group)
    assert set(columns) - set(rest) == {*OF_ABIDE[group]}


def test_a_column_of_ones_own_is_not_adjusted_for_itself():
    metadata = Metadata(
        phenotype=("diet_a", "diet_b", "Years", "iq_score"),
        phenotype_columns=("diet", "Years", "iq_score"),
        phenotype_categories={"diet": ("a", "b")},
    )
    known = pd.DataFrame(1.0, index=range(3), columns=["diet", "years", "site", "FIQ"])
    assert set(values.without_own(known, metadata, "diet")) == {"years", "site", "FIQ"}
    assert set(values.without_own(known, metadata, "Years")) == {"diet", "site", "FIQ"}


def test_what_is_unknown_is_not_adjusted_for_what_is_unknown():
    """A covariate with unknown values has a mark of its own, which tells what the group tells."""
    random, metadata = np.random.default_rng(0), Metadata(phenotype=phenotype.abide_names())
    unknown = random.random(240) < 0.5
    iq = np.where(unknown, np.nan, random.normal(100, 15, 240))
    known = pd.DataFrame({"fiq": iq, "age": random.normal(size=240)})
    known["log func_mean_fd"] = np.where(np.arange(240), random.normal(size=240), np.nan)
    label = (random.random(240) < np.where(unknown, 0.7, 0.3)).astype(float)
    effect = np.where(label == 1, 1, -1) * (unknown - 0.5) + random.normal(0, 0.5, 240)
    rest = values.without_own(known, metadata, values.MARKS)
    assert list(rest) == ["age", "log func_mean_fd"]
    t = []
    for table in (known, rest):
        net = Adjusted(adjustment(table), label)(effect[:, None]).net[:, 0]
        t.append(net.mean() / net.std() * np.sqrt(240))
    assert abs(t[0]) < 2 and t[1] > 4


def network_of(name, cohort):
    """An untrained network on the records of a cohort; of `residual` the phenotype joins the volume's features."""
    if name == "nn":
        return nn.build(nn.PRESETS["sine"], cohort.grid)
    edges = cohort.connectomes.num_edges
    network = mmnn.build(mmnn.PRESETS[name], cohort.grid, cohort.num_maps, edges=edges)
    layer = network.get_layer("connectome_logits")
    layer.assign(*(random.normal(size=edges) for _ in range(3)), 0.5)
    return network


@pytest.fixture(scope="module")
def with_edges(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("values") / "cohort"
    shutil.copytree(cohort, folder)
    return add_connectomes(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nn", "regions", "residual"])
def test_replaced_values_change_the_network_as_a_full_pass_says(name, with_edges):
    keras.utils.set_random_seed(0)
    network, indices = network_of(name, with_edges), with_edges.indices("test")[:3]
    for weight in network.trainable_weights:  # some begin at 0
        weight.assign_add(random.normal(0, 0.1, weight.shape))
    donors = Donors(with_edges, indices, 2, seed=0)
    found, groups = values.value_logits(with_edges, network, donors), values.groups_of(with_edges.metadata)
    assert found.replaced.shape == (3, 2, len(groups))
    batch = with_edges.batch(indices, tables={"connectome": with_edges.connectomes})
    rows = np.arange(len(with_edges.rows))
    stored = with_edges.batch(rows, volumes=False)["phenotype"]

    def log_odds(shown):
        logits = network({one: batch[one] for one in network.input} | {"phenotype": shown}, training=False).numpy()
        return logits[:, 1] - logits[:, 0]

    np.testing.assert_allclose(found.base, log_odds(batch["phenotype"]), atol=1e-5)
    for at, own in enumerate(groups.values()):
        for donor in range(2):
            shown = batch["phenotype"].copy()
            shown[:, own] = stored[donors.of(indices)[donor]][:, own]
            np.testing.assert_allclose(found.replaced[:, donor, at], log_odds(shown), atol=1e-5)
    assert np.abs(found.replaced - found.base[:, None, None]).max() > 1e-3
