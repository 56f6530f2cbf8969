"""--test of autoencoders: reconstruction against principal components, and pictures of the same anatomy."""

import json

import numpy as np
import pytest
from helpers import SMALL_BATCH
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score

from data.cohorts.records import REDUCED
from data.cohorts.stored import open_cohort
from models import cae
from utils.evaluation.autoencoders import code_grid


@pytest.mark.slow
def test_testing_ae_measures_reconstruction_against_principal_components(cli, cohort, tmp_path):
    where = ("--chkPointDir", tmp_path / "ckpt", "--dataDir", cohort)
    train = ("--train", "--model", "ae", "--numIters", 3, "--set", "units=8,4", *SMALL_BATCH)
    assert cli(*train, *where, "--outDir", tmp_path / "train").status == 0
    outcome = cli("--test", "--model", "ae", *where, "--outDir", tmp_path / "test")
    assert outcome.status == 0, outcome.err
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    opened = open_cohort(cohort)
    training, test = (opened.batch(opened.indices(split), False)["phenotype"] for split in ("train", "test"))
    fitted = PCA(4).fit(training)
    guess = fitted.inverse_transform(fitted.transform(test))
    assert metrics["explained_variance_baseline"] == pytest.approx(r2_score(test.ravel(), guess.ravel()), abs=1e-4)
    assert {"mse", "explained_variance", "code_mean_activation"} <= metrics.keys()
    assert not list((tmp_path / "test").glob("*.png"))


@pytest.fixture(scope="module")
def coarse(train_cae):
    """The --chkPointDir of a cae whose code is 11x13x11 in two channels."""
    return train_cae("--numIters 1 --set strides=3,3 --set filters=1,2 --set batch_size=1")


@pytest.mark.slow
def test_pictures_of_a_cae_show_the_same_anatomy_on_one_scale(cli, coarse, full_cohort, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("utils.figures.save", lambda figure, path: drawn.setdefault(path.name, figure))
    places = ("--chkPointDir", coarse, "--dataDir", full_cohort, "--outDir", tmp_path / "out")
    outcome = cli("--test", "--model", "cae", *places)
    assert outcome.status == 0, outcome.err
    opened = open_cohort(full_cohort)
    index = opened.indices("test")[0]
    volume = opened.read(index)[2][..., 0]
    assert list(drawn) == ["inputImage.png", "encodedImage.png", "decodedImage.png"]
    for name, figure in drawn.items():
        panels = figure.axes[:3]
        assert [axis.get_title().split(" (")[0] for axis in panels] == ["z = 8 mm", "z = 38 mm", "z = 48 mm"]
        assert {axis.images[0].get_clim() for axis in panels} == {(volume.min(), volume.max())}
        assert f"of subject {opened.rows[index].subject} (SIMULATED)" in figure.get_suptitle(), name
    assert (drawn["inputImage.png"].axes[0].images[0].get_array() == volume[:, :, 40].T).all()
    assert drawn["encodedImage.png"].axes[0].images[0].get_array().shape == (13, 11)
    assert "channel 1 of 2" in drawn["encodedImage.png"].get_suptitle()


@pytest.mark.parametrize("strides, kernel", [((1, 3), 3), ((3, 3), 3), ((2,), 3), ((1, 2), 5), ((2, 2), 2), ((3,), 1)])
def test_the_codes_grid_is_where_its_convolutions_average(strides, kernel):
    """Averaging convolutions give of each coordinate that of the code's voxel, wherever no padding takes part."""
    config = cae.Config(strides=strides, filters=(1,) * len(strides), kernel=kernel, batch_norm=False)
    network = cae.build(config, REDUCED)
    for weight in network.weights:
        weight.assign(np.full(weight.shape, 1 / kernel**3) if weight.shape[:3] == (kernel,) * 3 else weight * 0)
    mm = np.stack(
        np.meshgrid(
            *(o + 6 * np.arange(n) for o, n in zip(REDUCED.origin_mm, REDUCED.shape, strict=True)), indexing="ij"
        )
    )
    shifted = (mm + 1000).astype(np.float32)[..., None]  # positive, for the activations between layers
    code = network({"volume": shifted}, training=False)["code"].numpy()[..., 0] - 1000
    grid = code_grid(network, REDUCED)
    assert code.shape[1:] == grid.shape
    for axis, origin in enumerate(grid.origin_mm):
        at = grid.shape[axis] // 2
        assert code[axis].take(at, axis)[grid.shape[0] // 2 - 1, grid.shape[1] // 2 - 1] == pytest.approx(
            origin + grid.spacing_mm * at, abs=0.01
        )
