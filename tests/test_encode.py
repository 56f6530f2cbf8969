"""The full pass of cae: real convolutions checked by SciPy, everything else carried over bit by bit; its own tests."""

import hashlib
import json
import shutil
from pathlib import Path

import lab
import numpy as np
import pytest
from commands import done, run
from scipy import ndimage
from sklearn.metrics import mean_squared_error, r2_score

pytestmark = pytest.mark.slow

FULL = (91, 109, 91)


@pytest.fixture(scope="module")
def encoder(make_once, full_cohort) -> Path:
    """The --chkPointDir of a cae (without batch norm) that has seen two batches of one subject."""
    command = "run.py --train --model cae --preset stride3 --numIters 2 --set batch_size=1 --dataDir {of} "
    places = "--chkPointDir {to}/ckpt --outDir {to}/out"
    return make_once("encoder", lambda folder: done(command + places, of=full_cohort, to=folder)) / "ckpt"


@pytest.fixture(scope="module")
def encoded(encoder, full_cohort, tmp_path_factory, undrawn) -> Path:
    """The reduced cohort, where it is written by default."""
    copied = shutil.copytree(full_cohort, tmp_path_factory.mktemp("copied") / "full")
    encode_output = done("run.py --model cae --chkPointDir {of} --dataDir {data}", of=encoder, data=copied)
    assert "Encoding 6/6" in encode_output
    return copied.with_name("full_reduced")


@pytest.fixture(scope="module")
def weights(encoder) -> list[np.ndarray]:
    """Kernels (3, 3, 3) and biases of two convolutions and two transposed ones, as TensorFlow's checkpoint has them."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(encoder / "cae")))
    name = "optimizer/_trainable_variables/{}/.ATTRIBUTES/VARIABLE_VALUE"
    return [np.squeeze(reader.get_tensor(name.format(variable_number))).astype(float) for variable_number in range(8)]


def compute_code(volume: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Convolutions with zeros outside; the second keeps every third voxel."""
    hidden = np.maximum(ndimage.correlate(volume, weights[0], mode="constant") + weights[1], 0)
    return (ndimage.correlate(hidden, weights[2], mode="constant") + weights[3])[::3, ::3, ::3]


def decode_volume(code: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Transposed convolutions, which are the adjoints of those."""
    spread = np.zeros(FULL)
    spread[::3, ::3, ::3] = code
    hidden = np.maximum(ndimage.convolve(spread, weights[4], mode="constant") + weights[5], 0)
    return ndimage.convolve(hidden, weights[6], mode="constant") + weights[7]


def list_record_files(folder: Path, split: str) -> list[str]:
    table = lab.read_table(folder / "subjects.csv")
    return table["file"][table["split"] == split].tolist()


def load_record_volume(folder: Path, name: str, shape: tuple = FULL) -> np.ndarray:
    return lab.read_record(folder / name, shape=shape)[2][0].astype(float)


def test_everything_but_the_volumes_is_carried_over_bit_by_bit(full_cohort, encoded, encoder):
    tables = [lab.read_table(folder / "subjects.csv").set_index("file") for folder in (full_cohort, encoded)]
    assert tables[0].iloc[:, :4].equals(tables[1].iloc[:, :4])
    for name in ("covariates.csv", "phenotype.csv"):
        assert (encoded / name).read_bytes() == (full_cohort / name).read_bytes()
    for path in full_cohort.glob("*.bin"):
        assert (encoded / path.name).read_bytes()[:120] == path.read_bytes()[:120]
    before, after = (json.loads((folder / "cohort.json").read_text()) for folder in (full_cohort, encoded))
    assert after["grid"] == list(lab.REDUCED_GRID) and after["simulated"] and after["phenotype"] == before["phenotype"]
    assert np.allclose(after["affine"], [[6, 0, 0, -90], [0, 6, 0, -126], [0, 0, 6, -72], [0, 0, 0, 1]])
    training = list_record_files(full_cohort, "train")
    assert after["encoder_subjects"] == sorted(name.removesuffix(".bin") for name in training)
    volumes = {name: hashlib.sha256((full_cohort / name).read_bytes()[120:]).hexdigest() for name in training}
    assert after["encoder_volumes"] == sorted(digest[:16] for digest in volumes.values())
    assert tables[1].loc[training, "source_sha256"].tolist() == [*volumes.values()]
    assert after["reduction"] == f"encoder {after['encoder_sha256']}"


def test_volumes_are_the_code_as_scipy_computes_it(full_cohort, encoded, weights):
    for name in list_record_files(full_cohort, "test"):
        code = compute_code(load_record_volume(full_cohort, name), weights)
        expected = (code - code.mean()) / code.std()
        np.testing.assert_allclose(load_record_volume(encoded, name, lab.REDUCED_GRID), expected, atol=1e-4)


def test_testing_cae_measures_reconstruction(encoder, full_cohort, weights, tmp_path):
    done(
        "run.py --test --model cae --chkPointDir {of} --dataDir {data} --outDir {to}",
        of=encoder,
        data=full_cohort,
        to=tmp_path,
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    volume = np.stack([load_record_volume(full_cohort, name) for name in list_record_files(full_cohort, "test")])
    code = np.stack([compute_code(grid_values, weights) for grid_values in volume])
    guess = np.stack([decode_volume(grid_values, weights) for grid_values in code])
    assert metrics["mse"] == pytest.approx(mean_squared_error(volume.ravel(), guess.ravel()), rel=1e-4)
    assert metrics["explained_variance"] == pytest.approx(r2_score(volume.ravel(), guess.ravel()), abs=1e-4)
    assert metrics["code_mean_activation"] == pytest.approx((1 / (1 + np.exp(-code))).mean(), rel=1e-4)
    share = ndimage.uniform_filter(np.ones(FULL), 3, mode="constant")[::3, ::3, ::3]
    blocks = [ndimage.uniform_filter(grid_values, 3, mode="constant")[::3, ::3, ::3] / share for grid_values in volume]
    again = [grid_values.repeat(3, 0).repeat(3, 1).repeat(3, 2)[1:92, 1:110, 1:92] for grid_values in blocks]
    expected = r2_score(volume.ravel(), np.stack(again).ravel())
    assert metrics["explained_variance_baseline"] == pytest.approx(expected, abs=1e-4)
    for name in ("inputImage.png", "encodedImage.png", "decodedImage.png"):
        assert (tmp_path / name).exists()


def test_models_train_on_the_reduced_cohort_but_never_test_on_the_encoders_subjects(encoded, tmp_path):
    """Whatever the names of these are."""
    train = "run.py --train --model nn --numIters 1 --set members=1 --set batch_size=2 --dataDir {of} "
    places = "--chkPointDir {to}/ckpt --outDir {to}/out"
    done(train + places, of=encoded, to=tmp_path / "one")
    for name in ("names", "scans"):
        swapped_cohort = shutil.copytree(encoded, tmp_path / name)
        (swapped_cohort / "SHA256SUMS").unlink()
        table = lab.read_table(swapped_cohort / "subjects.csv")
        table["split"] = table["split"].map({"train": "test", "test": "train"})
        if name == "scans":
            table["subject"] = [f"new{number}" for number in range(len(table))]
            (swapped_cohort / "covariates.csv").unlink()
            (swapped_cohort / "phenotype.csv").unlink()
        lab.edit(swapped_cohort / "subjects.csv", table.to_csv(index=False).encode())
        done("abide-data pack {of} {of}-sealed --bin", of=swapped_cohort)
        outcome = run(train + places, of=tmp_path / f"{name}-sealed", to=tmp_path / f"{name}-run")
        assert outcome.status == 2 and "trained the encoder of these volumes" in outcome.err
        assert name == "names" or "By their scans, whatever their names: all of them" in outcome.err
