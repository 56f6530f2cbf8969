"""--blackout --bundle: other people blacked out by the networks of a bundle."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import nibabel
import numpy as np
import pytest
from helpers import Outcome, read_rows, run_main, training
from people import renamed, write_people

from data.base import archive
from data.base.files import SUMS
from data.cohorts.records import REDUCED
from data.cohorts.stored import sealed
from utils.blackout.job import measured
from utils.blackout.options import BlackoutOptions
from utils.bundle.model import Bundle
from utils.bundle.run import networks_of, on_cohort
from utils.jobs import BLACKOUT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]


class Lab(NamedTuple):
    """All in one folder: the checkpoint of everybody, new people, what a blackout of these by the plain bundle printed
    and wrote, and what is replaced."""

    folder: Path
    said: str

    @property
    def atlas(self) -> Path:
        return self.folder / "own.nii.gz"

    @property
    def new(self) -> Path:
        return self.folder / "new"

    @property
    def plain(self) -> Path:
        return self.folder / "plain.zip"

    @property
    def out(self) -> Path:
        return self.folder / "blackout"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "ckpt" / "mmnn" / "everybody"


def bundle(*words: object) -> Outcome:
    return run_main("utils.bundle.__main__", "utils.bundle", words)


@pytest.fixture(scope="module")
def lab(cli, data_cli, home, tmp_path_factory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    labels = np.zeros(REDUCED.shape, np.int16)
    labels[6:14, 10:20, 10:20], labels[16:24, 10:20, 10:20], labels[8:20, 22:28, 10:20] = 1, 2, 3
    made, blackout = Lab(folder, ""), ("--blackout", "--atlas", folder / "own.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, np.array(REDUCED.affine)), made.atlas)
    (folder / "own.txt").write_text("1 Right block\n2 Left block\n3 Front block\n")
    source = write_people(folder / "maps", renamed(6))
    for command in (
        lambda: cli(*training(folder, home, "mmnn", 2, "--everybody")),
        lambda: bundle(made.checkpoint, made.plain),
        lambda: data_cli("convert", source, made.new, "--like", made.plain),
        lambda: cli(*blackout, "--bundle", made.plain, "--dataDir", made.new, "--outDir", made.out),
    ):
        outcome = command()
        assert outcome.status == 0, outcome.err
    return made._replace(said=outcome.out)


@pytest.fixture(scope="module")
def of_two(lab) -> Path:
    """A bundle of two networks, the second of which has other weights, and other constants of the phenotype."""
    parts = dict(Bundle.open(lab.plain).archive.parts)
    model, weights = json.loads(parts["model.json"]), np.load(io.BytesIO(parts["weights/0.npy"]))
    second = model["members"][0] | {"phenotype_scale": [1.5] * 29, "phenotype_shift": [0.25] * 29}
    model["members"].append(second)
    other = weights * np.random.default_rng(0).uniform(0.5, 1.5, weights.shape).astype(np.float32)
    parts |= {"model.json": json.dumps(model).encode(), "weights/1.npy": archive.npy(other)}
    archive.write(lab.folder / "two.zip", {name: content for name, content in parts.items() if name != SUMS})
    return lab.folder / "two.zip"


@pytest.fixture
def blackout(cli, lab, tmp_path) -> Callable[..., tuple[Outcome, Path]]:
    """`blackout(...)` of the new people: what was printed, and the results."""

    def run(*more: object) -> tuple[Outcome, Path]:
        data = () if "--dataDir" in more else ("--dataDir", lab.new)
        return cli("--blackout", "--atlas", lab.atlas, *data, "--outDir", tmp_path / "out", *more), tmp_path / "out"

    return run


def stored(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "blackout.h5") as file:
        return {name: values[()] for name, values in file.items()}


@pytest.mark.bits
def test_other_people_by_the_bundle_and_by_its_checkpoint(lab, blackout):
    assert "Donors: 5 per record, tested subjects of any site." in lab.said
    outcome, out = blackout("--model", "mmnn", "--everybody", "--chkPointDir", lab.folder / "ckpt")
    assert outcome.status == 0, outcome.err
    own, other = stored(lab.out), stored(out)
    assert own.keys() == other.keys() and len(own["subject"]) == 6
    for name in own:
        np.testing.assert_array_equal(own[name], other[name], err_msg=name)
    assert np.abs(own["reliance"]).max() > 1e-4


def test_effects_are_the_mean_over_networks(lab, of_two, blackout, tmp_path):
    """Each of which is exact, and reads the phenotype by constants of its own."""
    outcome, out = blackout("--bundle", of_two, "--verify", 2)
    assert (outcome.status, outcome.err) == (0, "")
    differ = [float(text) for text in re.findall(r"logits differ by at most (\S+?)[,.]? ", outcome.out)]
    assert len(differ) == 2 and max(differ) < 1e-5
    run = on_cohort(Bundle.open(of_two), sealed(lab.new), BLACKOUT, BlackoutOptions(atlas=lab.atlas), tmp_path / "none")
    first, second, found = stored(lab.out), measured(networks_of(run)[1:])[0], stored(out)
    for name in ("reliance", "unique", "delta_logit", "sufficiency", "probability"):
        np.testing.assert_allclose(found[name], (first[name] + second[name]) / 2, atol=1e-6, err_msg=name)
        assert np.abs(first[name] - second[name]).max() > 1e-4
    for row in read_rows(out / "regions.csv"):
        region = int(row["region"]) - 1
        mean = (first["reliance"] + second["reliance"])[:, region].mean() / 2
        assert float(row["reliance"]) == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize(
    "more, words",
    [
        (("--dataDir", "{home}"), "trained {plain}, so that results would be too good"),
        (("--folds", 2), "--folds is not for --bundle, which holds trained networks"),
        (("--maps", "alff"), "--maps alff is no map of"),
        (("--prevalence", 0.1), "--prevalence goes with --test, not with --blackout"),
        (("--dataDir", "{cohort}"), "was trained on data with reduction"),
    ],
)
def test_what_is_refused(more, words, lab, home, cohort, blackout):
    names = {"plain": lab.plain, "home": home, "cohort": cohort}
    outcome, out = blackout("--bundle", lab.plain, *(str(word).format(**names) for word in more))
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words.format(**names) in outcome.err and not out.exists()


def test_people_without_labels_are_refused(lab, data_cli, blackout, tmp_path):
    source = write_people(tmp_path / "maps", [row | {"DX_GROUP": ""} for row in renamed(3)])
    assert data_cli("convert", source, tmp_path / "unlabelled", "--like", lab.plain).status < 2
    outcome, _ = blackout("--bundle", lab.plain, "--dataDir", tmp_path / "unlabelled")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "have no label" in outcome.err and "needs one of each" in outcome.err
