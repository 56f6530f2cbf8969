"""The full pass of cae: real convolutions checked by SciPy, everything else carried over bit by bit; its own tests."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from helpers import TINY_CNN, read_rows, resealed, write_rows
from scipy import ndimage
from sklearn.metrics import mean_squared_error, r2_score

from data.cohorts.records import FULL, REDUCED
from data.cohorts.resampling import block_mean, repeat_blocks
from data.cohorts.stored import open_cohort
from utils.runs.checkpoints import CheckpointFolder
from utils.training.network import restore_weights

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def encoder(train_cae):
    """The --chkPointDir of a cae (without batch norm) that has seen two batches of one subject."""
    return train_cae("--preset stride3 --numIters 2 --set batch_size=1")


@pytest.fixture(scope="module")
def copied(full_cohort, tmp_path_factory):
    """A copy of the full cohort whose neighbour folder is ours to fill."""
    return shutil.copytree(full_cohort, tmp_path_factory.mktemp("copied") / "full")


@pytest.fixture(scope="module")
def encoded(cli, encoder, copied):
    """The reduced cohort, where it is written by default."""
    outcome = cli("--model", "cae", "--chkPointDir", encoder, "--dataDir", copied)
    assert outcome.status == 0, outcome.err
    return copied.with_name("full_reduced")


@pytest.fixture(scope="module")
def network(encoder):
    """The trained network, for its weights."""
    from models import cae

    built = cae.build(cae.PRESETS["stride3"], FULL)
    restore_weights(CheckpointFolder(encoder / "cae"), built)
    return built


def test_labels_phenotypes_subjects_and_split_are_carried_over_bit_by_bit(copied, encoded):
    assert (encoded / "subjects.csv").read_bytes() == (copied / "subjects.csv").read_bytes()
    for row in read_rows(copied / "subjects.csv"):
        assert (encoded / row["file"]).read_bytes()[:120] == (copied / row["file"]).read_bytes()[:120]
    before, after = open_cohort(copied), open_cohort(encoded)
    assert after.grid == REDUCED
    assert after.simulated
    assert after.metadata.phenotype == before.metadata.phenotype
    assert np.array_equal(after.metadata.affine, REDUCED.affine)


def test_the_side_tables_are_carried_over_byte_by_byte(copied, encoded):
    for name in ("covariates.csv", "phenotype.csv"):
        assert (encoded / name).read_bytes() == (copied / name).read_bytes()
    assert open_cohort(encoded).raw_phenotype.equals(open_cohort(copied).raw_phenotype)


def test_the_cohort_names_its_encoder_and_whom_it_was_trained_on(copied, encoded, encoder):
    metadata = open_cohort(encoded).metadata
    assert metadata.encoder_sha256 == CheckpointFolder(encoder / "cae").digest()
    assert metadata.encoder_subjects == tuple(open_cohort(copied).subjects("train"))
    assert json.loads((encoded / "run.json").read_text())["job"] == "encode"
    before, after = open_cohort(copied), open_cohort(encoded)
    assert [of.source for of in after.seal.digests] == [of.volume for of in before.seal.digests]
    training = [
        of.volume[:16] for row, of in zip(before.rows, before.seal.digests, strict=True) if row.split == "train"
    ]
    assert metadata.encoder_volumes == tuple(sorted(training))


def scipy_convolution(volume: np.ndarray, layer) -> np.ndarray:
    """A 3x3x3 convolution of stride 1 with zeros outside; the second layer of the encoder keeps every third voxel."""
    kernel, bias = (weight.numpy() for weight in layer.weights)
    return ndimage.correlate(volume, kernel[..., 0, 0].astype(float), mode="constant") + bias


def test_volumes_are_the_code_as_scipy_computes_it(copied, encoded, network):
    first, second = [
        layer for layer in network.layers if layer.name.startswith("conv3d") and "transpose" not in layer.name
    ]
    before, after = open_cohort(copied), open_cohort(encoded)
    hidden = np.maximum(scipy_convolution(before.read(1)[2][..., 0].astype(float), first), 0)
    code = scipy_convolution(hidden, second)[::3, ::3, ::3]
    np.testing.assert_allclose(after.read(1)[2][..., 0], (code - code.mean()) / code.std(), atol=1e-4)


@pytest.mark.slow
def test_the_full_pass_only_encodes(cli, encoder, copied, tmp_path, monkeypatch):
    """Nothing of the decoder is called once the encoder has been built."""
    from models import one_channel
    from utils.training import encode

    write_records, called = encode.write_records, []

    def watched(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(one_channel.Conv3DTranspose, "call", lambda *_: called.append("decoded"))
            write_records(*arguments)

    monkeypatch.setattr(encode, "write_records", watched)
    outcome = cli("--model", "cae", "--chkPointDir", encoder, "--dataDir", copied, "--outDir", tmp_path / "out")
    assert (outcome.status, outcome.err, called) == (0, "", [])
    assert "\nEncoding 6/6, 0 s left\n" in outcome.out


def test_a_reduced_cohort_keeps_its_sources_constants(copied, encoded):
    before, after = open_cohort(copied).metadata, open_cohort(encoded).metadata
    assert after.reduction == f"encoder {after.encoder_sha256}"
    assert dataclasses.replace(after.preparation, reduction=before.reduction) == before.preparation


@pytest.mark.slow
def test_an_interrupted_full_pass_leaves_no_cohort(cli, encoder, copied, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.training.encode.write_tables", interrupted)
    outcome = cli("--model", "cae", "--chkPointDir", encoder, "--dataDir", copied, "--outDir", tmp_path / "out")
    assert outcome.status == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_models_train_on_the_reduced_cohort_but_never_test_on_the_encoders_subjects(cli, encoded, tmp_path):
    where = ("--chkPointDir", tmp_path / "ckpt", "--outDir", tmp_path / "out")
    train = ("--train", "--model", "cnn", "--numIters", 1, "--set", "batch_size=2", *TINY_CNN)
    assert cli(*train, *where, "--dataDir", encoded).status == 0
    swapped = shutil.copytree(encoded, tmp_path / "swapped")
    table = (swapped / "subjects.csv").read_text()
    (swapped / "subjects.csv").write_text(
        table.replace(",test", ",x").replace(",train", ",test").replace(",x", ",train")
    )
    outcome = cli(*train, "--chkPointDir", tmp_path / "other", "--dataDir", resealed(swapped))
    assert outcome.status == 2
    count = len(open_cohort(encoded).subjects("train"))
    assert f"{count} of {count} test subjects of {swapped} trained the encoder of these volumes" in outcome.err
    rows = read_rows(swapped / "subjects.csv")
    write_rows(swapped / "subjects.csv", [row | {"subject": f"new{at}"} for at, row in enumerate(rows)])
    for name in ("covariates.csv", "phenotype.csv"):
        (swapped / name).unlink()
    outcome = cli(*train, "--chkPointDir", tmp_path / "other", "--dataDir", resealed(swapped))
    assert outcome.status == 2
    assert "trained the encoder of these volumes: new" in outcome.err
    assert "By their scans, whatever their names: all of them" in outcome.err


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_testing_cae_measures_reconstruction_and_draws_three_figures(cli, encoder, full_cohort, network, tmp_path):
    outcome = cli("--test", "--model", "cae", "--chkPointDir", encoder, "--dataDir", full_cohort, "--outDir", tmp_path)
    assert outcome.status == 0, outcome.err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    opened = open_cohort(full_cohort)
    volume = np.stack([opened.read(index)[2][..., 0] for index in opened.indices("test")])
    outputs = network({"volume": volume[..., None]}, training=False)
    guess = outputs["reconstruction"].numpy()[..., 0]
    code = outputs["code"].numpy().astype(float)
    assert metrics["mse"] == pytest.approx(mean_squared_error(volume.ravel(), guess.ravel()), rel=1e-4)
    assert metrics["explained_variance"] == pytest.approx(r2_score(volume.ravel(), guess.ravel()), abs=1e-4)
    assert metrics["code_mean_activation"] == pytest.approx((1 / (1 + np.exp(-code))).mean(), rel=1e-4)
    blocks = np.stack([repeat_blocks(block_mean(one)) for one in volume])
    assert metrics["explained_variance_baseline"] == pytest.approx(r2_score(volume.ravel(), blocks.ravel()), abs=1e-4)
    for name in ("inputImage.png", "encodedImage.png", "decodedImage.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
