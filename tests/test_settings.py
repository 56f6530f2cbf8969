"""Settings: every number has bounds that float32 can hold, whatever text a user or a file gives for it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from data.base.errors import InputError
from data.cohorts.records import REDUCED
from models import MAX_LAYERS, MODELS, bounds_of, override

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
        ("nn", "decay=0.99999999999", "decay is 0.99999999999; expected 0 to 0.999999"),
        ("nn", "batch_size=" + "9" * 5000, "expected batch_size to be a whole number"),
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

    config, variable = PRESETS["nn"]["default"], keras.Variable([1.0])
    for rate, decay, after in ((1e-12, 0.999999, 10**9), (1e6, 0.0, 1)):
        extreme = dataclasses.replace(config, learning_rate=rate, decay=decay, half_rate_after=after)
        optimizer = make_optimizer(extreme, "float32")
        optimizer.apply([keras.ops.ones(1)], [variable])
        assert np.isfinite(np.asarray(variable)).all() and optimizer.learning_rate > 0
    deep = dataclasses.replace(config, phenotype_units=(1,) * MAX_LAYERS)
    assert MODELS["nn"].module.build(deep, REDUCED).output.shape == (None, 2)
