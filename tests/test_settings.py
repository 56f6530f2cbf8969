"""Settings: any text is refused or within bounds that float32 holds; each that is not refused changes the network."""

import dataclasses
import json
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from annotated_types import Interval
from check_model import EVERY_PRESET
from helpers import DENSE_SETTINGS
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from data.base.errors import InputError
from models import MODELS, override_settings

GRID = MODELS["cnn"].required_grid
PRESETS = {name: model.module.PRESETS for name, model in MODELS.items()}
CONFIGS = {f"{name}, {preset}": config for name, presets in PRESETS.items() for preset, config in presets.items()}
ODD_TEXTS = ["9" * 400, "9" * 5000, "1e-60", "0.99999999999", "1e999", "-0", "٣", "²", "1_0", "nan", "1e308", "1e-7"]
WORDS = ["true", "False", "1", "adam", "sine", "regions", "regions,convolutions", "site"]
LIKELY = st.sampled_from(WORDS) | st.sampled_from(ODD_TEXTS)
TEXTS = LIKELY | st.integers().map(str) | st.floats().map(str) | st.text(max_size=4)


def find_setting_types(config) -> dict[str, Any]:
    """The type of each setting, with the bounds noted there."""
    return get_type_hints(type(config), include_extras=True)


def find_bounds(kind: Any) -> tuple[type, Any, Any] | None:
    """The type of a number, or of each of several, with its bounds; None of a word."""
    while get_origin(kind) in (Annotated, tuple):
        kind, bound = get_args(kind)
        if isinstance(bound, Interval):
            return kind, bound.ge, bound.le
    assert kind is bool or get_origin(kind) is Literal
    return None


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_numeric_settings_have_bounds_within_float32(config):
    for name, kind in find_setting_types(config).items():
        if not (bounds := find_bounds(kind)):
            continue
        number_type, *ends = bounds
        low, high = np.array(ends, np.float32)
        assert np.isfinite([low, high]).all() and low < high
        assert (low > 0) == (ends[0] > 0) and (high < 1) == (ends[1] < 1), name
        beyond = (ends[0] - 1, ends[1] + 1) if number_type is int else np.nextafter(ends, [-np.inf, np.inf])
        for text in ["nan", "9" * 50, *map(str, beyond), ",".join(["1"] * 65)]:
            with pytest.raises(InputError, match=f"--set {name}=.* does not fit"):
                override_settings(config, [f"{name}={text}"])


@pytest.mark.slow
@examples(max_examples=400)
@given(st.sampled_from(list(CONFIGS)), st.data())
def test_any_text_for_a_setting_is_refused_or_within_bounds(config_name, data):
    """What is not refused is read from a checkpoint as it is."""
    config, model = CONFIGS[config_name], MODELS[config_name.partition(",")[0]]
    name, kind = data.draw(st.sampled_from([*find_setting_types(config).items()]))
    several = isinstance(getattr(config, name), tuple)
    text = data.draw(st.lists(TEXTS, max_size=5).map(",".join) if several else TEXTS)
    try:
        changed = override_settings(config, [f"{name}={text}"])
    except InputError as error:
        assert len(str(error)) < 1000
    else:
        if bounds := find_bounds(kind):
            values, (number_type, low, high) = np.atleast_1d(np.array(getattr(changed, name), object)), bounds
            assert all(type(number) is number_type and low <= number <= high for number in values)
        assert model.parse_settings(json.loads(json.dumps(dataclasses.asdict(changed)))) == changed


@pytest.mark.slow
def test_settings_equal_to_their_bounds_make_deep_layers():
    deep = override_settings(PRESETS["nn"]["sine"], [*DENSE_SETTINGS, "phenotype_units=" + ",".join(["1"] * 64)])
    assert MODELS["nn"].module.build(deep, GRID).output.shape == (None, 2)


def test_set_changes_the_listed_settings_and_leaves_the_preset_alone():
    preset = PRESETS["cnn"]["residual"]
    changed = override_settings(preset, ["learning_rate=0.5", "filters=1,2,3", "residual=False", "batch_size=2"])
    assert dataclasses.replace(preset, learning_rate=0.5, filters=(1, 2, 3), residual=False, batch_size=2) == changed
    assert preset.batch_size != 2 and type(changed.batch_size) is int and type(changed.learning_rate) is float


ELSEWHERE = {  # not tried here: those of training and reading, and the shapes of convolutions
    *("batch_size", "optimizer", "learning_rate", "half_rate_after", "decay", "standardise"),
    *("connectome", "filters", "kernels", "strides", "pools", "residual", "global_average", "phenotype_activation"),
    *("parts", "fusion", "volume", "phenotype"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name, preset", [key for key in EVERY_PRESET if MODELS[key[0]].classifies])
def test_an_accepted_setting_changes_the_network(name, preset):
    """Each one by itself, against what Keras says of the network; those of training and reading are left out. mmnn has
    all of them with residual, which joins its parts, and with the others what cnn lacks."""
    module = MODELS[name].module
    base = module.PRESETS[preset]
    if "members" in vars(base):
        base = dataclasses.replace(base, members=1)
    if preset == "plain":  # it is large
        base = dataclasses.replace(base, filters=(2, 3, 3, 3, 2, 1), strides=(3, 1, 1, 1, 1, 1))
    changed_values = {
        "members": 2, "initializer": "he_normal", "l1": 0.5, "l2": 0.5, "phenotype_units": (3,), "phenotype_l2": 0.5,
        "joined_units": (5,), "region_units": (7,), "region_l2": 0.5, "average_pool": 5, "dropout": 0.25, "cubes": 5,
    }  # fmt: skip
    field_names = {field.name for field in dataclasses.fields(base)}
    switches = field_names & {"batch_norm"}
    assert field_names <= changed_values.keys() | switches | ELSEWHERE, (
        "give a new setting a value, or name it in ELSEWHERE"
    )
    if name == "mmnn" and preset != "residual":
        field_names -= {field.name for field in dataclasses.fields(MODELS["cnn"].module.PRESETS[preset])}
    changed_values |= {key: not getattr(base, key) for key in switches & field_names}
    before = describe_layers(module.build(base, GRID, maps=2))
    for key in sorted(field_names & changed_values.keys()):
        changed = dataclasses.replace(base, **{key: changed_values[key]})
        if changed == base:
            continue
        after = describe_layers(module.build(changed, GRID, maps=2))
        assert (before == after) == (key in changed.idle()), key


@pytest.mark.slow
def test_without_a_layer_on_the_phenotype_the_activation_changes_nothing():
    module = MODELS["nn"].module
    bare = [module.Config(phenotype_units=(), phenotype_activation=activation) for activation in ("relu", "sine")]
    assert "phenotype_activation" in bare[0].idle()
    relu_layers, sine_layers = (describe_layers(module.build(config, GRID)) for config in bare)
    assert relu_layers == sine_layers


def describe_layers(network) -> list[tuple]:
    """What each layer is, computes and is punished for."""
    layer_descriptions = []
    for layer in network.layers:
        regularizer, initializer = (getattr(layer, f"kernel_{kind}", None) for kind in ("regularizer", "initializer"))
        punished = (float(regularizer.l1), float(regularizer.l2)) if regularizer else None
        shapes = [tuple(weight.shape) for weight in layer.weights]
        size = [getattr(layer, name, None) for name in ("pool_size", "rate", "branch_weights")]
        starts = type(initializer).__name__, getattr(initializer, "single_initializer", None)
        layer_descriptions.append((type(layer).__name__, shapes, layer.output.shape, size, punished, starts))
    return layer_descriptions
