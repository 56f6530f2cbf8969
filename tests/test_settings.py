"""Settings: every number has bounds that float32 can hold, whatever text a user or a file gives for it."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import DENSE
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from data.base.errors import InputError
from data.cohorts.records import REDUCED
from models import MAX_LAYERS, MODELS, bounds_of, from_json, override, parse_value

PRESETS = {name: model.module.PRESETS for name, model in MODELS.items()}
CONFIGS = {f"{name}, {preset}": config for name, presets in PRESETS.items() for preset, config in presets.items()}
NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["9" * 400, "9" * 5000, "1e-60", "0.99999999999", "1e999", "-0", "٣", "²", "1_0", "nan", "1e308", "1e-7"]
    ),
    st.text(max_size=4),
)


def numeric_settings(config) -> list[str]:
    return [
        field.name for field in dataclasses.fields(config) if not isinstance(getattr(config, field.name), (bool, str))
    ]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_setting_that_is_a_number_has_bounds_that_its_type_can_hold(config):
    bounds = bounds_of(type(config))
    assert bounds.keys() == set(numeric_settings(config))
    for name, between in bounds.items():
        low, high = np.float32(between.smallest), np.float32(between.largest)
        assert np.isfinite([low, high]).all() and low < high and between.most <= 64
        assert (low > 0) == (between.smallest > 0) and (high < 1) == (between.largest < 1), name


@pytest.mark.slow
@examples(max_examples=200)
@given(st.sampled_from(list(CONFIGS.values())), st.data())
def test_any_text_of_a_setting_is_refused_or_within_its_bounds(config, data):
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(config)]))
    several = isinstance(getattr(config, name), tuple)
    text = data.draw(st.lists(NUMBERS, max_size=5).map(",".join) if several else NUMBERS)
    try:
        value = getattr(override(config, [f"{name}={text}"]), name)
    except InputError as error:
        assert len(str(error)) < 1000
    else:
        between = bounds_of(type(config)).get(name)
        values = value if several else [value]
        assert between is None or all(between.smallest <= number <= between.largest for number in values)


@pytest.mark.parametrize(
    "name, assignment, words",
    [
        ("nn", "half_rate_after=" + "9" * 400, "half_rate_after is 999"),
        ("nn", "phenotype_units=" + ",".join("1" * 3000), "phenotype_units has 3000 values; expected at most 64"),
        ("nn", "phenotype_units=" + ",".join(["4096"] * 64), "weights; expected at most 100,000,000"),
        ("cnn", "region_units=4096,4096,4096", "weights; expected at most 100,000,000"),
        ("nn", "learning_rate=1e-60", r"learning_rate is 1e-60; expected 1e-12 to 1e\+38"),
        ("nn", "batch_size=٣", "expected batch_size to be a whole number"),
    ],
)
def test_a_setting_that_no_network_could_hold(name, assignment, words):
    with pytest.raises(InputError, match=words) as caught:
        override(next(iter(PRESETS[name].values())), [assignment])
    assert len(str(caught.value)) < 500


@pytest.mark.slow
def test_settings_at_their_bounds_make_an_optimizer_and_deep_layers():
    import keras

    from utils.training.loop import make_optimizer

    config, variable = override(PRESETS["nn"]["sine"], DENSE), keras.Variable([1.0])
    for rate, decay, after in ((1e-12, 0.999999, 10**9), (1e6, 0.0, 1)):
        extreme = dataclasses.replace(config, learning_rate=rate, decay=decay, half_rate_after=after)
        optimizer = make_optimizer(extreme, "float32")
        optimizer.apply([keras.ops.ones(1)], [variable])
        assert np.isfinite(np.asarray(variable)).all() and optimizer.learning_rate > 0
    deep = dataclasses.replace(config, phenotype_units=(1,) * MAX_LAYERS)
    assert MODELS["nn"].module.build(deep, REDUCED).output.shape == (None, 2)


@pytest.mark.parametrize(
    "text, kind, value",
    [
        ("8", int, 8),
        ("1e-3", float, 0.001),
        ("true", bool, True),
        ("False", bool, False),
        ("2,3,4", tuple[int, ...], (2, 3, 4)),
        ("5", tuple[int, ...], (5,)),
    ],
)
def test_values_are_typed_by_their_field(text, kind, value):
    parsed = parse_value(text, kind)
    assert parsed == value
    assert type(parsed) is type(value)


def test_set_changes_what_it_names_and_leaves_the_preset_alone():
    preset = MODELS["cnn"].module.PRESETS["residual"]
    changed = override(preset, ["learning_rate=0.5", "filters=1,2,3", "residual=false", "batch_size=2"])
    assert dataclasses.replace(preset, learning_rate=0.5, filters=(1, 2, 3), residual=False, batch_size=2) == changed
    assert preset.batch_size != 2


@pytest.mark.parametrize(
    "name, assignments, words",
    [
        ("cnn", ["depth=3"], "--set depth is unknown; expected one of average_pool, batch_norm, "),
        ("cnn", ["batch_size"], "--set batch_size has no '='; expected KEY=VALUE"),
        (
            "cnn",
            ["batch_size=two"],
            "--set batch_size=two has the wrong type; expected batch_size to be a whole number",
        ),
        ("cnn", ["learning_rate=fast"], "expected learning_rate to be a number"),
        ("cnn", ["batch_norm=1"], "expected batch_norm to be true or false"),
        ("cnn", ["batch_size=0"], "batch_size is 0; expected 1 to 4096"),
        ("cnn", ["learning_rate=nan"], "learning_rate is nan; expected 1e-12 to 1e+38"),
        ("cnn", ["filters=8"], "filters, kernels, strides and pools differ in length"),
        ("cnn", ["pools=0,0,-1"], "pools is 0,0,-1; expected 0 to 31"),
        ("cnn", ["standardise=scanner"], "expected standardise to be one of stored, brain, site"),
        ("cae", ["strides=3"], "filters and strides differ in length"),
        ("cae", ["filters=", "strides="], "filters"),
        ("ae", ["units="], "units is empty; expected at least one layer"),
    ],
)
def test_settings_that_cannot_be(name, assignments, words):
    with pytest.raises(InputError) as caught:
        presets = MODELS[name].module.PRESETS
        override(presets.get("residual", next(iter(presets.values()))), assignments)
    assert words in str(caught.value)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_settings_survive_json(config):
    assert from_json(type(config), json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    "name, preset, assignments, needs",
    [
        ("cnn", "regions", ["region_units=", "batch_norm=true"], "it needs region_units, phenotype_activation=relu or"),
        ("nn", "sine", ["phenotype_units=", "phenotype_activation=relu"], "it needs phenotype_units"),
        (
            "nn",
            "sine",
            ["phenotype_units=", "batch_norm=true"],
            "it needs region_units, phenotype_activation=relu or",
        ),
        ("cnn", "residual", ["dropout=0.5"], "it needs global_average=false and average_pool"),
        ("cnn", "combined", ["residual=false"], "it needs two filters or more"),
        ("nn", "sine", ["initializer=he_normal"], "phenotype_activation=relu or a second layer"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(name, preset, assignments, needs):
    with pytest.raises(InputError) as caught:
        override(MODELS[name].module.PRESETS[preset], assignments)
    assert needs in str(caught.value)


@pytest.mark.parametrize(
    "name, preset, key",
    [
        ("cnn", "regions", "dropout"),
        ("cnn", "residual", "region_units"),
        ("mmnn", "regions", "joined_units"),
        ("nn", "sine", "filters"),
    ],
)
def test_a_setting_of_another_network_is_answered_with_those_of_this(name, preset, key):
    config = MODELS[name].module.PRESETS[preset]
    own = sorted(field.name for field in dataclasses.fields(config))
    with pytest.raises(InputError) as caught:
        override(config, [f"{key}=1"])
    assert f"--set {key} is unknown; expected one of {', '.join(own)}." in str(caught.value)


ELSEWHERE = {  # not tried here: those of training and reading, and the shapes of convolutions
    *("batch_size", "optimizer", "learning_rate", "half_rate_after", "decay", "standardise"),
    *("connectome", "filters", "kernels", "strides", "pools", "residual", "global_average", "phenotype_activation"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name, preset", [(name, preset) for name in ("cnn", "nn", "mmnn") for preset in PRESETS[name]])
def test_a_setting_that_is_not_refused_changes_the_network(name, preset):
    """Each one by itself, against what Keras says of the network; those of training and reading are left out. mmnn has
    all of them with residual, which joins its parts, and with the others what cnn lacks."""
    module = MODELS[name].module
    base = dataclasses.replace(module.PRESETS[preset], members=1)
    if preset == "plain":  # it is large
        base = dataclasses.replace(base, filters=(2, 3, 3, 3, 2, 1), strides=(3, 1, 1, 1, 1, 1))
    others = {
        "members": 2, "initializer": "he_normal", "l1": 0.5, "l2": 0.5, "phenotype_units": (3,), "phenotype_l2": 0.5,
        "joined_units": (5,), "region_units": (7,), "region_l2": 0.5, "average_pool": 5, "dropout": 0.25, "cubes": 5,
    }  # fmt: skip
    known = {field.name for field in dataclasses.fields(base)}
    switches = known & {"batch_norm"}
    assert known <= others.keys() | switches | ELSEWHERE, "give a new setting a value, or name it in ELSEWHERE"
    if name == "mmnn" and preset != "residual":
        known -= {field.name for field in dataclasses.fields(MODELS["cnn"].module.PRESETS[preset])}
    others |= {key: not getattr(base, key) for key in switches & known}
    before = described(module.build(base, REDUCED, maps=2))
    for key in sorted(known & others.keys()):
        changed = dataclasses.replace(base, **{key: others[key]})
        if changed == base:
            continue
        after = described(module.build(changed, REDUCED, maps=2))
        assert (before == after) == (key in changed.idle()), key


def described(network) -> list[tuple]:
    """What each layer is, computes and is punished for."""
    found = []
    for layer in network.layers:
        regularizer, initializer = (getattr(layer, f"kernel_{kind}", None) for kind in ("regularizer", "initializer"))
        punished = (float(regularizer.l1), float(regularizer.l2)) if regularizer else None
        shapes = [tuple(weight.shape) for weight in layer.weights]
        size = [getattr(layer, name, None) for name in ("pool_size", "rate", "shares")]
        starts = type(initializer).__name__, getattr(initializer, "alone", None)
        found.append((type(layer).__name__, shapes, layer.output.shape, size, punished, starts))
    return found


@pytest.mark.parametrize("name", ["cnn", "mmnn"])
def test_saved_settings_that_no_network_has_are_refused(name):
    saved = dataclasses.asdict(MODELS[name].module.PRESETS["residual"])
    for values in (saved | {"depth": 3}, {key: value for key, value in saved.items() if key != "filters"}):
        with pytest.raises(InputError, match=r"damaged .* is missing or unknown.*; train again"):
            from_json(MODELS[name].module.Config, values)
