"""How a cohort's maps were derived: what tells two derivations apart, and images that are kept byte for byte."""

import json
from pathlib import Path

import numpy as np
import pytest
from scans import image, save

from data.base import files
from data.base.errors import InputError
from data.cohorts.derivation import Derivation, DerivationWithImages, kept_in
from data.cohorts.rows import Metadata

MAPS = Derivation(measures=("falff", "dual_regression"), band=(0.01, 0.1), scans="preprocessed", confounds="simple")


@pytest.fixture
def kept(tmp_path) -> DerivationWithImages:
    random = np.random.default_rng(0)
    networks = save(tmp_path / "atlases" / "nets_probseg.nii.gz", image(random.random((4, 4, 4, 2), np.float32)))
    parcels = save(tmp_path / "atlases" / "my_dseg.nii", image(random.integers(0, 3, (4, 4, 4)).astype(np.int16)))
    parcels.with_name("my_dseg.tsv").write_text("index\tname\n1\tleft\n2\tright\n")
    of = {"networks": "nets.nii.gz", "networks_sha256": files.sum_of(networks), "network_names": ("visual", "motor")}
    derivation = Derivation(band=(0.01, 0.1), parcels="my.nii", parcels_sha256=files.sum_of(parcels), **of)
    return DerivationWithImages(derivation, networks, parcels)


def test_metadata_hold_it_and_those_without_are_as_they_were():
    assert "derivation" not in Metadata(maps=("falff",)).json()
    metadata = Metadata(maps=("falff",), derivation=MAPS)
    assert metadata.json()["derivation"] == {
        "measures": ("falff", "dual_regression"),
        "band": (0.01, 0.1),
        "scans": "preprocessed",
        "confounds": "simple",
    }
    assert files.typed(json.dumps(metadata.json()), Metadata) == metadata


@pytest.mark.parametrize(
    "one, other, choice",
    [
        (MAPS, MAPS, None),
        (MAPS, Derivation(measures=("alff",), band=(0.01, 0.08)), "band"),
        (MAPS, Derivation(measures=("alff",), smoothing_mm=6.0), "smoothing"),
        (MAPS, Derivation(smoothing_mm=None, parcels_sha256="a"), None),  # series are not smoothed
        (Derivation(parcels_sha256="a"), Derivation(parcels_sha256="b"), "atlas"),
        (Derivation(parcels="a.nii", parcels_sha256="a"), Derivation(parcels="b.nii", parcels_sha256="a"), None),
        (Derivation(networks_sha256="a"), Derivation(networks_sha256="b"), "networks"),
        (
            Derivation(networks_sha256="a", network_names=("x",)),
            Derivation(networks_sha256="a", network_names=("y",)),
            "networks",
        ),
        (MAPS, Derivation(confounds="none"), "confounds"),
        (MAPS, Derivation(scans="cleaned"), "scans"),
        (MAPS, Derivation(), None),
    ],
)
def test_what_both_say_is_compared(one, other, choice):
    assert one.difference(other) == other.difference(one) == choice


def test_it_is_shown_in_words(kept):
    assert str(MAPS) == "band 0.01-0.1 Hz, smoothing none, scans preprocessed, confounds simple"
    shown = str(kept.derivation)
    assert f"networks nets.nii.gz (SHA-256 {kept.derivation.networks_sha256[:8]}: visual, motor)" in shown
    assert f"atlas my.nii (SHA-256 {kept.derivation.parcels_sha256[:8]})" in shown


def test_images_and_names_are_kept_byte_for_byte_with_sums(kept, tmp_path):
    target = tmp_path / "cohort"
    (target / "derivation").mkdir(parents=True)
    (target / "derivation" / "of_an_interrupted_command").touch()
    kept.write(target)
    found = kept_in(target, kept.derivation)
    assert found.networks == target / "derivation" / "networks.nii.gz"
    assert found.parcels == target / "derivation" / "parcels.nii"
    assert found.networks.read_bytes() == kept.networks.read_bytes()
    assert found.parcels.read_bytes() == kept.parcels.read_bytes()
    assert (target / "derivation" / "networks.txt").read_text() == "visual\nmotor\n"
    assert (target / "derivation" / "parcels.tsv").read_text() == kept.parcels.with_suffix(".tsv").read_text()
    written = {"networks.nii.gz", "networks.txt", "parcels.nii", "parcels.tsv"}
    assert {path.name for path in (target / "derivation").iterdir()} == {*written, "SHA256SUMS"}
    assert set(files.read_sums(target / "derivation")) == written
    (tmp_path / "again").mkdir()
    found.write(tmp_path / "again")
    assert kept_in(tmp_path / "again", kept.derivation).parcels.read_bytes() == kept.parcels.read_bytes()


def test_nothing_is_written_without_images(tmp_path):
    DerivationWithImages(MAPS).write(tmp_path)
    assert not (tmp_path / "derivation").exists()
    assert kept_in(tmp_path, MAPS) == DerivationWithImages(MAPS)


@pytest.mark.parametrize("name", ["networks.nii.gz", "networks.txt", "parcels.nii", "parcels.tsv"])
def test_what_is_damaged_is_named(name, kept, tmp_path):
    kept.write(tmp_path)
    path: Path = tmp_path / "derivation" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{name} is not what was written"):
        kept_in(tmp_path, kept.derivation)


def test_an_image_with_its_sum_that_another_took_the_place_of_is_named(kept, tmp_path):
    DerivationWithImages(kept.derivation, kept.parcels, kept.parcels).write(tmp_path)
    with pytest.raises(InputError, match=r"networks\.nii is not the image that cohort.json names"):
        kept_in(tmp_path, kept.derivation)
