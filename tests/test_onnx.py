"""ONNX models: the probabilities of TensorFlow for every preset and for ensembles, and what is refused."""

import ast
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from helpers import ROOT, add_connectomes
from scipy.special import softmax

from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.records import REDUCED
from data.cohorts.stored import open_cohort
from models import MODELS, override
from utils.bundle import onnx
from utils.bundle.onnx import Network, export, parity

PAGE = ROOT / "docs" / "onnx.md"
# mmnn has the networks of each preset of cnn beside others; `plain` of cnn has a dense layer of its own
IN_ENSEMBLE = [("mmnn", "regions"), ("mmnn", "residual")]  # of networks that read a record differently
OF_PHENOTYPE_OR_ALL = [(name, preset) for name in ("nn", "mmnn") for preset in MODELS[name].module.PRESETS]
ALONE = [("cnn", "plain"), *(one for one in OF_PHENOTYPE_OR_ALL if one not in IN_ENSEMBLE)]
SMALLER = {  # what takes time is how many weights and networks there are, not of which kind
    "plain": ["filters=4,6,6,6,4,1", "strides=3,1,1,1,1,1"],
    "residual": ["filters=4,6,8"],
    **{preset: ["members=2"] for preset in ("combined", "regions")},
}
MAPS, EDGES = 3, 10

needs_libraries = pytest.mark.skipif(
    any(find_spec(name) is None for name in onnx.NEEDS), reason="pip install --editable '.[onnx]'"
)


def built(name, preset, maps=MAPS, seed=0) -> Network:
    """A network without a constant weight, such as a bias or a mean."""
    import keras

    keras.utils.set_random_seed(seed)
    module, generator = MODELS[name].module, np.random.default_rng(seed)
    config = override(module.PRESETS[preset], SMALLER.get(preset, []))
    network = module.build(config, REDUCED, maps, **({"edges": EDGES} if name == "mmnn" else {}))
    for weight in network.weights:
        value = weight.numpy()
        if np.ptp(value) == 0:
            weight.assign(value + generator.normal(0, 0.05, value.shape))
    return Network(network, getattr(config, "standardise", "stored"))


def people(count, maps=MAPS, seed=0) -> dict[str, np.ndarray]:
    """A batch of records as they are stored: noise up to the border, but for a background around the first person."""
    generator = np.random.default_rng(seed)
    volume = generator.normal(size=(count, *REDUCED.shape, maps)).astype(np.float32)
    inside = np.pad(np.ones(np.subtract(REDUCED.shape, 10)), 5)[..., None]
    volume[0] = np.where(inside, volume[0], np.float32(-0.4))
    edges = generator.normal(size=(count, EDGES)).astype(np.float32)
    edges[generator.random(edges.shape) < 0.2] = np.nan
    return {
        "label": np.zeros(count, np.int32),
        "volume": volume,
        "phenotype": generator.normal(size=(count, records.PHENOTYPE_SIZE)).astype(np.float32),
        "connectome": edges,
    }


def probability(logits) -> np.ndarray:
    """Of autism."""
    return softmax(logits, axis=1)[:, 1]


def logits_of(member, batch) -> np.ndarray:
    """Of a network that reads the phenotype of a batch as it is there."""
    volume = batch["volume"]
    if member.standard != "stored":
        volume = np.stack([records.within_brain(of_person) for of_person in volume])
    return np.array(member.network({name: (batch | {"volume": volume})[name] for name in member.network.input}))


def run_onnx(path, batch) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    outputs = session.run(None, {one.name: batch[one.name] for one in session.get_inputs()})
    return dict(zip((one.name for one in session.get_outputs()), outputs, strict=True))


@pytest.mark.slow
@needs_libraries
@pytest.mark.parametrize("name, preset", ALONE)
def test_every_preset_predicts_what_tensorflow_does(name, preset, tmp_path):
    member = built(name, preset)
    batch, one = people(4), people(1, seed=1)
    assert export([member], tmp_path / "model.onnx", [batch, one]) < 2e-6
    found, logits = run_onnx(tmp_path / "model.onnx", batch), logits_of(member, batch)
    np.testing.assert_allclose(found["probability"], probability(logits), atol=2e-6)
    np.testing.assert_allclose(found["logits"], logits[:, None], rtol=1e-4, atol=1e-5)
    assert found["probability"].dtype == np.float32
    assert np.ptp(found["probability"]) > 1e-3  # people differ


@pytest.mark.slow
@needs_libraries
def test_an_ensemble_gives_the_mean_of_the_probabilities_of_networks_that_read_a_record_differently(tmp_path):
    one, other = (built(*which, seed=seed) for seed, which in enumerate(IN_ENSEMBLE, 1))
    assert (one.standard, other.standard) == ("brain", "stored")
    scale, shift = np.linspace(0.5, 2, 29), np.linspace(-1, 1, 29)
    other, batch = replace(other, phenotype_scale=scale, phenotype_shift=shift), people(5)
    assert export([one, other], tmp_path / "model.onnx", [batch, people(1, seed=1)]) < 2e-6
    scaled = batch | {"phenotype": batch["phenotype"] * scale + shift}
    logits, found = [logits_of(one, batch), logits_of(other, scaled)], run_onnx(tmp_path / "model.onnx", batch)
    np.testing.assert_allclose(found["probability"], np.mean(list(map(probability, logits)), axis=0), atol=2e-6)
    np.testing.assert_allclose(found["logits"], np.stack(logits, axis=1), rtol=1e-4, atol=1e-5)
    assert np.abs(logits_of(other, batch) - logits[1]).max() > 0.01
    assert np.ptp(found["probability"]) > 1e-3  # people differ


def stored_volumes() -> np.ndarray:
    """Volumes (n, x, y, z, 1) with every kind of background."""
    generator, box = np.random.default_rng(3), (np.s_[4:-4],) * 3
    noise = generator.normal(2, 3, REDUCED.shape)
    brain, half = np.full(REDUCED.shape, -0.4), np.full(REDUCED.shape, 7.0)
    brain[box] = noise[box]
    half[:, :18] = noise[:, :18]  # 7 is in 51 % of the faces' voxels, though not in the first
    tiny = np.full(REDUCED.shape, 1.0)
    tiny[box] += 1e-7 * np.abs(noise[box])
    return np.stack([noise, brain, half, tiny, np.zeros(REDUCED.shape)]).astype(np.float32)[..., None]


def test_z_scores_within_the_brain_are_those_of_records():
    stored = stored_volumes()
    expected = np.stack([records.within_brain(volume) for volume in stored])
    np.testing.assert_allclose(onnx.within_brain(stored), expected, rtol=1e-6)
    found = onnx.within_brain(np.moveaxis(stored, 0, -1)[..., 0, :][None])  # the same as maps of one person
    np.testing.assert_allclose(found, np.moveaxis(expected, 0, -1)[..., 0, :][None], rtol=1e-6)
    np.testing.assert_array_equal(
        np.ravel(onnx.background(stored)), [np.float32(records.background(volume[..., 0])) for volume in stored]
    )


@pytest.mark.slow
@needs_libraries
def test_parity_is_the_largest_difference(tmp_path):
    """Of the file of one network from another network."""
    one, other = (built("nn", "sine", seed=seed) for seed in (1, 2))
    path, batches = tmp_path / "model.onnx", [people(3), people(2, seed=5)]
    export([one], path, batches)
    of_each = [[probability(logits_of(member, batch)) for batch in batches] for member in (one, other)]
    difference = np.abs(np.subtract(*map(np.concatenate, of_each))).max()
    assert difference > 0.01
    assert parity(path, [other], batches) == pytest.approx(difference, abs=1e-6)


@pytest.mark.slow
@needs_libraries
def test_a_model_that_differs_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"before")
    member = built("nn", "sine")
    model = onnx.converted([member])
    monkeypatch.setattr(onnx, "converted", lambda members: model)
    for difference in (2e-5, np.nan):
        monkeypatch.setattr(onnx, "parity", lambda *_, of=difference: of)
        expected = f"was not written: ONNX and TensorFlow differ by {difference:.1g} .* expected at most 1e-05"
        with pytest.raises(InputError, match=expected):
            export([member], tmp_path / "model.onnx", [])
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"], difference


@pytest.mark.slow
@needs_libraries
def test_a_full_disk_is_told(tmp_path):
    """A file may grow to 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match=r"takes no ONNX model of .* is the disk full\? .*TMPDIR"):
            onnx.write(onnx.converted([built("nn", "sine")]), tmp_path / "model.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_the_graph_cannot_hold_is_refused(monkeypatch):
    import keras

    monkeypatch.setattr(onnx, "find_spec", lambda name: name)
    with pytest.raises(InputError, match="standardise=site z-scores volumes over the people of a site; train with"):
        onnx.check_possible("site")
    network = built("nn", "sine").network
    monkeypatch.setattr(onnx, "MAX_BYTES", 200_000)
    onnx.check_networks([network])
    with pytest.raises(InputError, match=r"3 networks hold .* Bundle fewer"):
        onnx.check_networks([network] * 3)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    with pytest.raises(InputError, match="computes in bfloat16; expected float32"):
        onnx.check_networks([built("nn", "sine").network])


def test_without_its_libraries_it_says_how_to_install_them(monkeypatch):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name != "onnx" else name)
    with pytest.raises(InputError, match=r"needs onnxruntime and tf2onnx, not installed here.*pip install .*\[onnx\]"):
        onnx.check_possible("brain")


@pytest.mark.slow
@needs_libraries
def test_the_example_of_the_page_predicts_a_record_by_numpy_and_onnxruntime_alone(cohort, tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    imported = [name for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Import) for name in node.names]
    assert {alias.name for alias in imported} == {"json", "numpy", "onnxruntime"}
    assert len(example.splitlines()) <= 20
    folder = shutil.copytree(cohort, tmp_path / "cohort")
    opened = add_connectomes(folder, parcels=5)
    shutil.copy(opened.entries[0].path, folder / "50002.bin")
    member = built("mmnn", "combined", maps=1)
    batches = opened.batches([np.arange(3)], True, {"connectome": opened.connectomes})
    export([member], tmp_path / "model.onnx", batches)
    unknown = opened.batch([0]) | {"connectome": np.full((1, EDGES), np.nan, np.float32)}
    (expected,) = onnx.by_program([member], unknown)
    said = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said.stdout == f"probability of autism {expected:.3f}\n"


def test_a_record_of_a_cohort_is_read_as_the_page_says(cohort):
    """Maps lie one after another in the file, and last in the batch."""
    opened = open_cohort(cohort)
    record = np.frombuffer(opened.entries[0].read(), "<f4")
    volume = np.moveaxis(record[30:].reshape(-1, *REDUCED.shape), 0, -1)[None]
    np.testing.assert_array_equal(volume, opened.batch([0])["volume"])
