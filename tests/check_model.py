"""The contract that every model is held to: what is expected of each, in one table, and the checks of its networks.

`test_models.py` does the checks on each preset, `test_occlusion.py` compares a blackout of it with whole passes, and
`test_roads.py` walks with each model from training to a report. Whoever adds a model adds a row to CONTRACT_BY_MODEL.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from helpers import SMALL_BATCH, TINY_NN

from data.images.grids import REDUCED
from models import MODELS


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What is expected of a model, by preset where the presets differ."""

    parameter_counts: Mapping[str, int]  # of networks of one map, by hand; the presets in their order, default first
    small_options: tuple[str, ...]  # of `run.py --train`, so that it takes no time
    small_iterations: int = 2
    cohort_form: str | None  # of FORMS in test_roads.py, on which it is walked with; None: it has a road of its own
    # Of classifiers of volumes: what makes the network small of which a blackout is compared with whole passes
    blackout_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    presets_of_voxels: tuple[str, ...] = ()  # whose first layers are convolutions, not means of regions or cubes


def conv(kernel: int, inputs: int, outputs: int, bias: bool = False) -> int:
    """Parameters of a 3-D convolution; one followed by batch norm has no bias."""
    return kernel**3 * inputs * outputs + (outputs if bias else 0)


def norm(channels: int) -> int:
    """Scale, shift, running mean and variance."""
    return 4 * channels


def dense(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + (outputs if bias else 0)


def block(inputs: int, outputs: int) -> int:
    """A residual block that changes the shape: two convolutions, and a projected shortcut."""
    inside = conv(3, inputs, outputs) + conv(3, outputs, outputs) + 2 * norm(outputs)
    return inside + conv(1, inputs, outputs) + norm(outputs)


def batch_normed(kernel: int, inputs: int, outputs: int) -> int:
    return conv(kernel, inputs, outputs) + norm(outputs)


RESIDUAL = batch_normed(3, 1, 16) + block(16, 32) + block(32, 64)
FLAT = 16 * 19 * 16  # the plain network halves 31x37x31 once and ends with one channel
PLAIN = (
    batch_normed(5, 1, 16)
    + batch_normed(5, 16, 32)
    + 2 * batch_normed(3, 32, 32)
    + batch_normed(3, 32, 16)
    + batch_normed(3, 16, 1)
    + dense(FLAT, FLAT, bias=False)
    + norm(FLAT)
)
PHENOTYPE = dense(29, 32, bias=False) + norm(32) + dense(32, 16, bias=False) + norm(16)
STANDARDISED = 2 * 116  # mean and spread of each region of AAL
CUBES = 2 * 11 * 13 * 11  # mean and spread of each cube of 3x3x3 voxels
CUBE_BRANCH = conv(3, 1, 8, bias=True) + dense(6 * 7 * 6 * 8, 2)
REGIONS = dense(116, 64) + dense(64, 2)
SINE = dense(29, 256) + dense(256, 2)
TWO_BRANCHES, THREE_BRANCHES = 2 + 1, 3 + 1  # shares of so many parts, and a bias

SMALL_BLACKOUT_SETTINGS: dict[
    str, dict[str, Any]
] = {  # which layers follow each other, and how far they reach, is that of the presets
    "residual": {"filters": (4, 6, 8)},
    "plain": {"filters": (4, 6, 6, 6, 4, 1), "pools": (0, 1, 0, 2, 0, 2)},
    **{preset: {"members": 2} for preset in ("combined", "regions")},
}
CONTRACT_BY_MODEL: dict[str, Contract] = {
    "ae": Contract(
        parameter_counts={
            "default": dense(29, 24, False) + dense(24, 16) + dense(16, 24, False) + dense(24, 29) + 2 * norm(24)
        },
        small_options=SMALL_BATCH,
        cohort_form="packed",
    ),
    "cae": Contract(
        parameter_counts={
            "stride3-bn": 2 * conv(3, 1, 1) + 2 * conv(3, 1, 1, bias=True) + 3 * norm(1),
            "stride3": 4 * conv(3, 1, 1, bias=True),
            "stride1": 4 * conv(3, 1, 1, bias=True),
        },
        small_options=("--preset", "stride3", "--set", "filters=1", "--set", "strides=3", "--set", "batch_size=2"),
        small_iterations=1,
        cohort_form=None,
    ),
    "cnn": Contract(
        parameter_counts={
            "combined": STANDARDISED + CUBES + 4 * REGIONS + 4 * CUBE_BRANCH + TWO_BRANCHES,
            "regions": STANDARDISED + 4 * REGIONS,
            "residual": RESIDUAL + dense(64, 2),
            "plain": PLAIN + dense(FLAT, 2),
        },
        small_options=("--set", "members=1", *SMALL_BATCH),  # the default preset
        cohort_form="chunks",
        blackout_settings=SMALL_BLACKOUT_SETTINGS,
        presets_of_voxels=("residual", "plain"),
    ),
    "nn": Contract(
        parameter_counts={"sine": 4 * SINE},
        small_options=TINY_NN + SMALL_BATCH,
        cohort_form="bare",
    ),
    "mmnn": Contract(
        parameter_counts={
            "combined": STANDARDISED + CUBES + 4 * REGIONS + 4 * CUBE_BRANCH + 4 * SINE + THREE_BRANCHES,
            "regions": STANDARDISED + 4 * REGIONS + 4 * SINE + TWO_BRANCHES,
            "residual": RESIDUAL + PHENOTYPE + dense(64 + 16, 32, bias=False) + norm(32) + dense(32, 2),
            "plain": PLAIN + PHENOTYPE + dense(FLAT + 16, 32, bias=False) + norm(32) + dense(32, 2),
        },
        small_options=("--preset", "regions", "--set", "members=1", *SMALL_BATCH),
        cohort_form=None,
        blackout_settings=SMALL_BLACKOUT_SETTINGS,
        presets_of_voxels=("residual", "plain"),
    ),
}
EVERY_PRESET = [(name, preset) for name, model in MODELS.items() for preset in model.module.PRESETS]
EVERY_OCCLUDED_PRESET = [
    (name, preset) for name, contract in CONTRACT_BY_MODEL.items() for preset in contract.blackout_settings
]


def check_table_of_contracts() -> None:
    """Each model has a row, with each of its presets; the first is the default. Where there are regions to black out,
    no preset is left out of the comparison with whole passes."""
    assert CONTRACT_BY_MODEL.keys() == MODELS.keys()
    for name, contract in CONTRACT_BY_MODEL.items():
        model = MODELS[name]
        presets = list(model.module.PRESETS)
        assert list(contract.parameter_counts) == presets
        is_occluded = model.classifies and "volume" in model.input_names
        assert sorted(contract.blackout_settings) == (sorted(presets) if is_occluded else [])
        assert set(contract.presets_of_voxels) <= set(contract.blackout_settings)


# The checks of a network, built with a preset for records of one map


def check_parameter_count(name: str, preset: str, network: Any) -> None:
    expected = CONTRACT_BY_MODEL[name].parameter_counts[preset]
    assert network.count_params() == expected, f"{network.count_params()} parameters in place of {expected}"


def check_inputs_and_outputs(name: str, preset: str, network: Any) -> None:
    """Logits are float32 in any precision of layers; an autoencoder gives back what it reads."""
    model = MODELS[name]
    shape_by_input = {"volume": (None, *(model.required_grid or REDUCED).shape, 1), "phenotype": (None, 29)}
    assert {key: tensor.shape for key, tensor in network.input.items()} == {
        key: shape_by_input[key] for key in model.input_names
    }
    if model.classifies:
        assert network.output.shape == (None, 2)
        assert network.output.dtype == "float32"
    else:
        assert network.output["reconstruction"].shape == network.input[model.input_names[0]].shape


def check_settings_survive_a_checkpoint(name: str, preset: str, network: Any) -> None:
    """What a run saves of a preset is read as the same."""
    config = MODELS[name].module.PRESETS[preset]
    assert MODELS[name].parse_settings(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def check_each_person_alone(name: str, preset: str, network: Any) -> None:
    """The output for a person is finite, and does not depend on who else is in the batch."""
    generator = np.random.default_rng(0)
    inputs = {
        key: generator.normal(size=(2, *tensor.shape[1:])).astype(np.float32) for key, tensor in network.input.items()
    }
    together = list_outputs(network(inputs, training=False))
    alone = list_outputs(network({key: values[1:] for key, values in inputs.items()}, training=False))
    for outputs, outputs_alone in zip(together, alone, strict=True):
        assert np.isfinite(outputs).all()
        np.testing.assert_allclose(outputs[1:], outputs_alone, rtol=1e-4, atol=1e-5)


def list_outputs(output: Any) -> list[np.ndarray]:
    """The arrays that a network gives, whether one or several by name."""
    return [np.asarray(value) for value in (output.values() if isinstance(output, dict) else [output])]


NETWORK_CHECKS: list[Callable[[str, str, Any], None]] = [
    check_parameter_count,
    check_inputs_and_outputs,
    check_settings_survive_a_checkpoint,
    check_each_person_alone,
]
