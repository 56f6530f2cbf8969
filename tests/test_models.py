"""Networks of all models against their contract; and of single ones costs, placement of the code on the grid, shares
of branches."""

import math

import numpy as np
import pytest
from check_model import (
    CONTRACT_BY_MODEL,
    EVERY_PRESET,
    NETWORK_CHECKS,
    REGIONS,
    SINE,
    TWO_BRANCHES,
    check_table_of_contracts,
)
from helpers import compute_region_means

from data.base.errors import InputError
from data.images.atlas import load_atlas
from models import MODELS, one_channel, override_settings
from models.averaging import make_branch_logits_network
from models.layers import Standardise, fourier_features

FULL, REDUCED = MODELS["cae"].required_grid, MODELS["cnn"].required_grid


@pytest.fixture(scope="module")
def build():
    """`build(name, preset)` gives the network, built once."""
    built = {}

    def get(name, preset):
        if (name, preset) not in built:
            module = MODELS[name].module
            built[name, preset] = module.build(module.PRESETS[preset], MODELS[name].required_grid or REDUCED)
        return built[name, preset]

    return get


def test_each_model_has_a_contract():
    check_table_of_contracts()


@pytest.mark.slow
@pytest.mark.parametrize("name, preset", EVERY_PRESET)
@pytest.mark.parametrize("check", NETWORK_CHECKS, ids=lambda check: check.__name__)
def test_every_preset_keeps_the_contract(check, name, preset, build):
    check(name, preset, build(name, preset))


@pytest.mark.slow
@pytest.mark.parametrize("preset", MODELS["cae"].module.PRESETS)
def test_the_code_of_cae_is_a_reduced_volume_but_for_stride_1(preset, build):
    grid = FULL if preset == "stride1" else REDUCED
    assert build("cae", preset).output["code"].shape == (None, *grid.shape, 1)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["regions", "residual"])
def test_connectomes_have_a_share_in_the_mean_and_separate_weights(preset):
    module = MODELS["mmnn"].module
    config = override_settings(module.PRESETS[preset], ["members=1"] if preset == "regions" else [])
    network, edges = with_random_weights(module.build(config, REDUCED, edges=10)), 10
    without = CONTRACT_BY_MODEL["mmnn"].parameter_counts[preset] - (
        3 * (REGIONS + SINE) + TWO_BRANCHES if preset == "regions" else 0
    )
    assert network.count_params() == without + 3 * edges + 1  # mean, spread and weight of each
    generator = np.random.default_rng(1)
    inputs = {key: generator.normal(size=(4, *tensor.shape[1:])) for key, tensor in network.input.items()}
    *branch_logits, logits = map(np.array, make_branch_logits_network(network)(inputs))
    branch_logits = [
        member_logits.mean(1) for member_logits in branch_logits
    ]  # of maps and phenotype, or of both together
    np.testing.assert_allclose(
        network(inputs), (2 * sum(branch_logits) / len(branch_logits) + logits[:, 0]) / 3, rtol=1e-4, atol=1e-6
    )


def multiply_adds(network) -> int:
    """Of the convolutions and dense layers, from the shapes alone."""
    total = 0
    for layer in network.layers:
        kernel = next((weight for weight in layer.weights if weight.name == "kernel"), None)
        if kernel is not None:
            total += math.prod(layer.output.shape[1:-1]) * math.prod(kernel.shape)
    return total


def test_residual_needs_20_times_fewer_multiplications_than_plain(build):
    plain, residual = multiply_adds(build("cnn", "plain")), multiply_adds(build("cnn", "residual"))
    assert plain > 8e8  # 31 * 37 * 31 * (125 * 16 + 125 * 16 * 32) alone are 2.3e9
    assert plain / residual >= 20


def test_presets_follow_the_mission():
    settings_by_preset = {
        name: (config.strides, config.sparsity, config.batch_norm)
        for name, config in MODELS["cae"].module.PRESETS.items()
    }
    assert settings_by_preset == {
        "stride1": ((1, 1), 0.5, False),
        "stride3": ((1, 3), 0.7, False),
        "stride3-bn": ((1, 3), 0.7, True),
    }
    for config in MODELS["cae"].module.PRESETS.values():
        assert (config.optimizer, config.learning_rate, config.decay) == ("rmsprop", 0.001, 0.99)
        assert (config.sparsity_weight, config.kernel, config.filters) == (0.6, 3, (1, 1))


def block_mean(volume: np.ndarray) -> np.ndarray:
    """Of the 3x3x3 voxels around every third, but for those at the border."""
    inner = [(size + 2) // 3 - 2 for size in volume.shape]
    blocks = volume[tuple(slice(2, 2 + 3 * size) for size in inner)]
    return blocks.reshape(inner[0], 3, inner[1], 3, inner[2], 3).mean((1, 3, 5))


def set_kernels(network, kernels) -> None:
    """Puts kernels (3, 3, 3) into the four convolutions, and no bias."""
    convolutions = [layer for layer in network.layers if "conv" in layer.name]
    for layer, kernel in zip(convolutions, kernels, strict=True):
        layer.set_weights([kernel[..., None, None], *[np.zeros(1)] * (len(layer.weights) - 1)])


def test_code_voxel_i_is_centred_on_full_size_voxel_3i_and_decoded_back(build):
    """With kernels that copy and average, the encoder is the block mean, and the decoder its repetition."""
    network = build("cae", "stride3")
    copy = np.zeros((3, 3, 3))
    copy[1, 1, 1] = 1
    set_kernels(network, [copy, np.full((3, 3, 3), 1 / 27), np.ones((3, 3, 3)), copy])
    volume = np.random.default_rng(0).uniform(size=FULL.shape).astype(np.float32)
    outputs = {key: np.array(value)[0, ..., 0] for key, value in network({"volume": volume[None, ..., None]}).items()}
    inside = (slice(1, -1),) * 3
    np.testing.assert_allclose(outputs["code"][inside], block_mean(volume), rtol=1e-5)
    code, decoded = outputs["code"], outputs["reconstruction"]
    for offset in ((0, 0, 0), (-1, 0, 1), (1, -1, -1)):
        shifted = tuple(slice(3 + shift, 3 + shift + 3 * 29, 3) for shift in offset)
        np.testing.assert_allclose(decoded[shifted][:, :29, :], code[1:30, 1:30, 1:30], rtol=1e-5)


def test_the_default_initialisation_makes_cae_average_blocks(build):
    """Before training its code is already close to the block mean, up to a little noise."""
    network = MODELS["cae"].module.build(MODELS["cae"].module.PRESETS["stride3"], FULL)
    volume = np.random.default_rng(1).uniform(1, 2, FULL.shape).astype(np.float32)
    code = np.array(network({"volume": volume[None, ..., None]})["code"])[0, ..., 0]
    inside = (slice(1, -1),) * 3
    assert np.corrcoef(code[inside].ravel(), block_mean(volume).ravel())[0, 1] > 0.6


@pytest.mark.parametrize("name", ["Conv3D", "Conv3DTranspose"])
@pytest.mark.parametrize(
    "kernel, stride, size",
    [(4, 1, (7, 8, 9)), (3, 1, (4, 5, 17)), (3, 3, (7, 8, 9)), (3, 3, (4, 5, 17)), (3, 2, (7, 8, 9))],
)
def test_a_single_channel_is_convolved_as_keras_does_it_and_so_are_gradients(name, kernel, stride, size):
    import keras
    import tensorflow as tf

    random = np.random.default_rng(0)
    volume = tf.constant(random.normal(size=(2, *size, 1)), tf.float32)
    outputs_and_gradients = []
    for kind in (getattr(keras.layers, name), getattr(one_channel, name)):
        layer = kind(1, kernel, stride, padding="same")
        layer.build(volume.shape)
        layer.set_weights([np.random.default_rng(1).normal(size=weight.shape) for weight in layer.weights])
        with tf.GradientTape() as tape:
            tape.watch(volume)
            output = layer(volume)
            objective = tf.reduce_sum(tf.sin(output))
        outputs_and_gradients.append([output, *tape.gradient(objective, [volume, *layer.trainable_variables])])
    for expected, got in zip(*outputs_and_gradients, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-4)


def test_a_volume_is_cropped_as_keras_does_it():
    import keras

    volume = np.random.default_rng(0).normal(size=(2, 5, 6, 7, 2)).astype(np.float32)
    widths = [(1, 1), (0, 1), (2, 0)]
    np.testing.assert_array_equal(one_channel.Cropping3D(widths)(volume), keras.layers.Cropping3D(widths)(volume))


def with_random_weights(network):
    generator = np.random.default_rng(0)
    network.set_weights([generator.uniform(0.1, 1, weight.shape) for weight in network.get_weights()])
    return network


def find_layer(network, kind: str):
    return next(layer for layer in network.layers if type(layer).__name__ == kind)


def test_region_means_follow_the_atlas(build):
    volumes = np.random.default_rng(0).normal(size=(3, *REDUCED.shape, 2)).astype(np.float32)
    layer_means = find_layer(build("cnn", "regions"), "RegionMeans")(volumes)
    np.testing.assert_allclose(layer_means, compute_region_means(load_atlas(None, REDUCED), volumes), atol=1e-6)


def test_log_odds_from_connectomes_are_a_weighted_z_score_sum_in_which_unknown_edges_count_as_the_mean():
    module, generator = MODELS["mmnn"].module, np.random.default_rng(2)
    layer = find_layer(module.build(module.PRESETS["regions"], REDUCED, edges=4), "RidgeLogits")
    edges, (mean, scale, weights) = generator.normal(size=(5, 4)), generator.normal(size=(3, 4))
    edges[2, 1] = np.nan
    layer.assign_ridge_weights(mean, scale, weights, 0.25)
    layer_logits = np.array(layer(edges))
    expected = np.nan_to_num((edges - mean) * scale) @ weights + 0.25
    np.testing.assert_allclose(layer_logits[:, 0, 1] - layer_logits[:, 0, 0], expected, atol=1e-5)
    assert not layer.trainable_variables


def test_standardised_values_equal_scikit_learns():
    from sklearn.preprocessing import StandardScaler

    values = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    values[:, 2] = 0.1  # does not vary
    layer = Standardise()
    layer(values)
    layer.fit_moments([values[:20], values[20:]])
    expected = StandardScaler().fit(values[:, [0, 1, 3]]).transform(values[:, [0, 1, 3]])
    np.testing.assert_allclose(np.array(layer(values))[:, [0, 1, 3]], expected, atol=1e-5)
    np.testing.assert_allclose(np.array(layer(values))[:, 2], 0, atol=1e-6)
    assert layer.trainable_weights == []


def test_sines_begin_as_the_svm_kernel():
    """The mean product of random Fourier features is the Gaussian kernel with scikit-learn's gamma 1 / features."""
    import keras
    from sklearn.metrics.pairwise import rbf_kernel

    keras.utils.set_random_seed(0)
    phenotype = keras.Input((29,))
    network = keras.Model(phenotype, fourier_features(keras.layers.Reshape((1, 29))(phenotype), 20000, 1))
    people = np.random.default_rng(0).normal(size=(6, 29)).astype(np.float32)
    sines = np.array(network(people), float)[:, 0, 0]
    np.testing.assert_allclose(2 * sines @ sines.T / 20000, rbf_kernel(people, gamma=1 / 29), atol=0.03)


@pytest.mark.parametrize("name", ["cnn", "nn", "mmnn"])
def test_members_and_branches_are_averaged_with_separate_losses(name):
    import keras

    module = MODELS[name].module
    preset = "sine" if name == "nn" else "regions"
    config = override_settings(module.PRESETS[preset], ["members=3"])
    network = with_random_weights(module.build(config, REDUCED, maps=2))
    generator = np.random.default_rng(1)
    inputs = {key: generator.normal(size=(2, *tensor.shape[1:])) for key, tensor in network.input.items()}
    trained = np.concatenate(keras.tree.flatten(make_branch_logits_network(network)(inputs)), axis=1)
    assert trained.shape == (2, 3 * {"cnn": 3, "nn": 1, "mmnn": 4}[name], 2)  # of each map, all, and of the phenotype
    expected, learned = trained.mean(1), set()
    if name != "nn":
        last, branch_weights = network.layers[-1], [0.25, 2.0, 0.5][: 2 + (name == "mmnn")]
        last.assign_branch_weights(branch_weights, 0.5)
        learned = {id(last.weight), id(last.bias)}
        logits_by_branch = [trained[:, :6], trained[:, 6:9], trained[:, 9:]]
        expected = sum(
            share * branch_logits.mean(1)
            for share, branch_logits in zip(branch_weights, logits_by_branch, strict=False)
        ) + np.array([-0.25, 0.25])
    np.testing.assert_allclose(network(inputs), expected, rtol=1e-5)
    network_weight_ids = {id(weight) for weight in make_branch_logits_network(network).weights}
    assert network_weight_ids | learned == {id(weight) for weight in network.weights}


@pytest.mark.parametrize("edges", [0, 6])
def test_maps_phenotype_and_connectome_count_alike_before_branch_weights_are_learned(edges):
    module = MODELS["mmnn"].module
    more = {"edges": edges} if edges else {}
    last = module.build(module.PRESETS["combined"], REDUCED, maps=2, **more).layers[-1]
    third = 1 / (2 + bool(edges))
    expected = dict.fromkeys(("regions", "regions of all maps", "convolutions"), third / 3)
    expected |= {"phenotype": third, "connectome": third}
    assert [branch.branch_name for branch in last.branches] == list(expected)[: 4 + bool(edges)]
    assert last.branch_weights == pytest.approx([expected[branch.branch_name] for branch in last.branches])


def test_maps_have_separate_region_networks():
    """A change of one map moves the logits of its own networks only."""
    module = MODELS["cnn"].module
    config = override_settings(module.PRESETS["regions"], ["members=2"])
    network = make_branch_logits_network(with_random_weights(module.build(config, REDUCED, maps=3)))
    volume = np.random.default_rng(2).normal(size=(1, *REDUCED.shape, 3))
    changed = volume.copy()
    changed[..., 1] += 100
    before, after = (
        np.concatenate(network({"volume": changed_or_not}), axis=1)[0] for changed_or_not in (volume, changed)
    )
    moved = (before != after).any(1)
    assert moved.tolist() == [False, False, True, True, False, False, True, True]  # the last read all maps


def test_region_presets_begin_undecided_and_read_several_maps():
    module = MODELS["mmnn"].module
    network = module.build(module.PRESETS["regions"], REDUCED, maps=3)
    inputs = {"volume": np.ones((2, *REDUCED.shape, 3)), "phenotype": np.ones((2, 29))}
    assert network.input["volume"].shape == (None, *REDUCED.shape, 3)
    np.testing.assert_array_equal(network(inputs), 0)


@pytest.mark.parametrize("lacking", [("volume",), ("phenotype",), ("volume", "phenotype"), ("volume", "connectome")])
@pytest.mark.parametrize("preset", ["regions", "residual"])
def test_mmnn_has_the_branches_of_what_there_is(preset, lacking):
    """Inputs count alike, and the logits of those that are there are those of the network that reads all."""
    model = MODELS["mmnn"]
    config = override_settings(model.module.PRESETS[preset], [f"{name}=false" for name in lacking])
    input_names = [name for name in ("volume", "phenotype", "connectome") if name not in lacking]
    assert model.list_input_names(config) == tuple(input_names)
    edges = {"edges": 6} if "connectome" in input_names else {}
    network = model.module.build(config, REDUCED if "volume" in input_names else None, **edges)
    assert [*network.input] == input_names
    branch_weights = {
        branch.branch_name: weight
        for branch, weight in zip(network.layers[-1].branches, network.layers[-1].branch_weights, strict=True)
    }
    assert sum(branch_weights.values()) == pytest.approx(1)
    assert branch_weights.get("connectome", 0) == pytest.approx(bool(edges) / len(input_names))
    outputs = network({name: np.ones((2, *tensor.shape[1:])) for name, tensor in network.input.items()})
    assert outputs.shape == (2, 2) and np.isfinite(outputs).all()


def test_mmnn_refuses_to_read_nothing():
    with pytest.raises(InputError, match="leaves nothing to read"):
        override_settings(
            MODELS["mmnn"].module.PRESETS["regions"], ["volume=false", "phenotype=false", "connectome=false"]
        )
