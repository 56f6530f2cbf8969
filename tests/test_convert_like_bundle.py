"""convert --like BUNDLE.zip: the same bytes as --like of the cohort that it was made of, which need not be there."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import COARSE, brain_map, run_main, training
from people import ROWS, renamed, write_people
from test_connectomes import series_of, write_1d, write_labels

from data.cohorts.stored import open_cohort

pytestmark = pytest.mark.usefixtures("undrawn")

SCALE = {"alff": 50, "degree_weighted": 300}  # of three kinds of values, with fALFF


def with_maps(folder: Path, rows: list[dict]) -> Path:
    """People with three maps and series of six parcels each."""
    write_people(folder, rows)
    for path in sorted(folder.rglob("*_falff.nii.gz")):
        person = int(path.name.split("_")[1])
        for name, scale in SCALE.items():
            values = scale * brain_map((8, 10, 8), 1000 * scale + person)
            nibabel.save(nibabel.Nifti1Image(values, COARSE), path.with_name(path.name.replace("falff", name)))
        write_1d(path.with_name(path.name.replace("falff.nii.gz", "rois_cc6.1D")), series_of(person))
    write_labels(folder / "labels.nii.gz")
    return folder


@dataclass(frozen=True)
class Kind:
    """How people are written, and converted."""

    write: Callable[[Path, list[dict]], Path]
    options: tuple[str, ...]


KINDS = {
    "one map": Kind(write_people, ()),
    "columns of the user's own": Kind(
        write_people,
        ("--phenotype", "AGE_AT_SCAN,hand,iq", "--covariates", "hand,func_mean_fd", "--siteColumn", "hand"),
    ),
    "three maps and connectomes": Kind(
        with_maps, ("--maps", "falff,alff,degree_weighted", "--connectome", "rois_cc6", "--parcels", "{}/labels.nii.gz")
    ),
}


@dataclass(frozen=True)
class Made:
    """A cohort, the bundle of a network that it trained, and new people's maps."""

    cohort: Path
    bundle: Path
    new: Path


@pytest.fixture(scope="module")
def make(cli, data_cli, tmp_path_factory) -> Callable[[str], Made]:
    """`make("one map")`, once each."""
    done: dict[str, Made] = {}

    def once(name: str) -> Made:
        kind, folder = KINDS[name], tmp_path_factory.mktemp("made")
        source = kind.write(folder / "maps", ROWS)
        options = [option.format(source) for option in kind.options]
        steps = [
            lambda: data_cli("convert", source, folder / "cohort", "--grid", "reduced", *options),
            lambda: cli(*training(folder, folder / "cohort", "nn", 1)),
            lambda: run_main("utils.bundle.__main__", "utils.bundle", [folder / "ckpt" / "nn", folder / "made.zip"]),
        ]
        for step in steps:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("utils.bundle.make.likeness_parts", lambda *_: {})  # no conversion reads it
                outcome = step()
            assert outcome.status == 0 or "is written all the same" in outcome.out, outcome.err  # of noise, not brains
        return Made(folder / "cohort", folder / "made.zip", kind.write(folder / "new", renamed(6)))

    return lambda name: done[name] if name in done else done.setdefault(name, once(name))


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files but for what tells which command wrote them."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("SHA256SUMS", "seal.json")}
    metadata, checked = (json.loads(found.pop(name)) for name in ("cohort.json", "check.json"))
    for name in ("converted_by", "like"):
        assert metadata["provenance"].pop(name)
    for name in ("cohort_sha256", "when", "sha256"):
        assert checked.pop(name)
    return found | {"cohort.json": json.dumps(metadata).encode(), "check.json": json.dumps(checked).encode()}


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize("name", KINDS)
def test_it_is_as_like_the_cohort_byte_for_byte(name, make, data_cli, tmp_path):
    made = make(name)
    bundle = shutil.copy(made.bundle, tmp_path / "moved.zip")
    printed = []
    for target, like in (("by-cohort", made.cohort), ("by-bundle", bundle)):
        outcome = data_cli("convert", made.new, tmp_path / target, "--like", like)
        assert outcome.status < 2, outcome.err
        printed.append(outcome.out)
    one, other = contents(tmp_path / "by-cohort"), contents(tmp_path / "by-bundle")
    assert one.keys() == other.keys()
    assert not [file for file in one if one[file] != other[file]]
    assert len(open_cohort(tmp_path / "by-bundle").subjects("test")) == 6
    note = rf"Whether .* {re.escape(str(bundle))} cannot be checked"
    assert [bool(re.search(note, text)) for text in printed] == [False, True]


@pytest.mark.slow
def test_it_holds_where_parcels_lie(make, data_cli, tmp_path):
    made = make("three maps and connectomes")
    assert data_cli("convert", made.new, tmp_path / "new", "--like", made.bundle).status < 2
    own, new = (open_cohort(path).connectomes for path in (made.cohort, tmp_path / "new"))
    np.testing.assert_array_equal(new.image, own.image)
    assert (new.parcels, new.name) == (own.parcels, own.name)


@pytest.mark.slow
def test_training_people_cannot_be_told(make, data_cli, tmp_path):
    """Which is said."""
    made = make("one map")
    source = made.new.with_name("maps")
    outcome = data_cli("convert", source, tmp_path / "b", "--like", made.bundle)
    assert outcome.status < 2, outcome.err
    assert "cannot be checked: it holds no scan or ID of anybody" in outcome.out


def z_scored(values: np.ndarray) -> np.ndarray:
    return np.where(values > 0, (values - values[values > 0].mean()) / 0.2, 0).astype(np.float32)


def test_one_typical_person_is_no_minority(make, data_cli, tmp_path):
    """New maps of either sign do not decide that all are."""
    made = make("one map")
    folder = write_people(tmp_path / "new", renamed(6), change=lambda values: np.where(values > 0, 30 * values - 10, 0))
    for like in (made.cohort, made.bundle):
        outcome = data_cli("convert", folder, tmp_path / "out", "--like", like)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert "from 0 to above 1" in outcome.err
        assert "unlike those of the cohort or bundle, from 0 to 1" in outcome.err


def test_one_of_three_maps_of_another_kind_is_named(make, data_cli, tmp_path):
    made = make("three maps and connectomes")
    folder = shutil.copytree(made.new, tmp_path / "new")
    for path in folder.rglob("*_alff.nii.gz"):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(z_scored(image.get_fdata() / SCALE["alff"]), image.affine), path)
    outcome = data_cli("convert", folder, tmp_path / "out", "--like", made.bundle)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "alff: The maps are z-scored" in outcome.err


@pytest.mark.parametrize(
    "name, spoil, words",
    [
        ("three maps and connectomes", "*_alff.nii.gz", "holds no alff maps"),
        ("three maps and connectomes", "*.1D", "holds no rois_cc6 series"),
        ("one map", "*.nii.gz", "holds no fALFF maps"),
    ],
)
def test_what_new_people_lack_is_named(name, spoil, words, make, data_cli, tmp_path):
    folder = shutil.copytree(make(name).new, tmp_path / "new")
    for path in folder.rglob(spoil):
        path.unlink()
    outcome = data_cli("convert", folder, tmp_path / "out", "--like", make(name).bundle)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err
    assert not (tmp_path / "out").exists()
