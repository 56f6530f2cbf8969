"""Means that are kept: those of a loop over regions and of the networks' layers; a volume that changes has others."""

import shutil
from pathlib import Path

import lab
import numpy as np
import pytest
from commands import done
from helpers import assert_bit_equal

from data.cohorts.atlas import load_atlas
from models import MODELS

pytestmark = pytest.mark.usefixtures("undrawn")

TRAIN = "run.py --train --model cnn --set members=1 --set batch_size=4 --numIters 2 --dataDir {of}"
TRAIN += " --chkPointDir {to}/ckpt --outDir {to}/out --set standardise={how}"


def write(folder: Path, changed: str = "") -> Path:
    """The cohort of 18 people with two maps; of `changed` another scan."""
    people = lab.people(18)
    lab.pcp(folder / "lab", people, ("falff", "alff"))
    if changed:
        (of,) = people.query(f"SUB_ID == '{changed}'").to_dict("records")
        lab.save(folder / f"lab/cpac/{of['FILE_ID']}_falff.nii.gz", lab.make_map(of | {"SUB_ID": "9"}))
    done("abide-data convert {of}/lab {of}/cohort --grid reduced --maps all --phenotype ''", of=folder)
    return folder / "cohort"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("means"))


@pytest.fixture(scope="module")
def trained(written, undrawn, tmp_path_factory) -> Path:
    """The folder of a training of `combined`, which keeps means of regions and of cubes, of volumes as they are."""
    folder = tmp_path_factory.mktemp("trained")
    done(TRAIN, of=written, to=folder, how="stored")
    return folder


def tables(folder: Path) -> dict[str, Path]:
    """By what they hold means of."""
    return {path.name.split("-")[0]: path for path in sorted((folder / "ckpt/means").glob("*.npy"))}


def means(path: Path) -> np.ndarray:
    """(people, parcels, maps) float32."""
    return np.load(path)


def volumes(cohort: Path) -> np.ndarray:
    """(people, x, y, z, maps), in the order of the table."""
    files = lab.read_table(cohort / "subjects.csv")["file"]
    return np.stack([np.moveaxis(lab.read_record(cohort / file, maps=2)[2], 0, -1) for file in files])


@pytest.mark.slow
def test_tables_hold_the_means_of_a_loop_over_regions_and_cubes(trained, written):
    kept = {name: means(path) for name, path in tables(trained).items()}
    assert [*kept] == ["cubes3", "regions"] and all(table.dtype == np.float32 for table in kept.values())
    aal, exact = load_atlas(None, MODELS["cnn"].required_grid), volumes(written).astype(float)
    of_regions = np.stack([exact[:, aal.region_labels == region].mean(1) for region in aal.region_numbers], axis=1)
    np.testing.assert_allclose(kept["regions"], of_regions, atol=1e-6)
    counts = [-(-length // 3) for length in lab.REDUCED_GRID]
    excess = [3 * count - length for count, length in zip(counts, lab.REDUCED_GRID, strict=True)]
    around = [(0, 0), *((more // 2, more - more // 2) for more in excess), (0, 0)]
    blocks = np.pad(exact, around, constant_values=np.nan)
    blocks = blocks.reshape(len(exact), counts[0], 3, counts[1], 3, counts[2], 3, 2)
    of_cubes = np.nanmean(blocks, axis=(2, 4, 6)).reshape(kept["cubes3"].shape)
    np.testing.assert_allclose(kept["cubes3"], of_cubes, atol=1e-6)


@pytest.mark.slow
@pytest.mark.bits
def test_they_are_those_of_the_layers_to_the_last_bit(trained, written):
    """Eagerly, and compiled; whoever is in the same batch."""
    import tensorflow as tf

    module = MODELS["cnn"].module
    network = module.build(module.PRESETS["combined"], MODELS["cnn"].required_grid, maps=2)
    for name, kind in (("regions", "RegionMeans"), ("cubes3", "AveragePooling3D")):
        layer = next(layer for layer in network.layers if type(layer).__name__ == kind)
        kept, given = means(tables(trained)[name]), volumes(written)
        for call in (layer, tf.function(layer)):
            assert kept.tobytes() == np.asarray(call(given)).tobytes()
            assert kept[1:2].tobytes() == np.asarray(call(given[1:2])).tobytes()


@pytest.mark.slow
@pytest.mark.bits
def test_a_training_on_tables_that_are_there_ends_as_the_one_that_made_them(trained, written, tmp_path):
    shutil.copytree(trained / "ckpt/means", tmp_path / "ckpt/means")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ckpt/means").iterdir()}
    done(TRAIN, of=written, to=tmp_path, how="stored")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "ckpt/means").iterdir()}
    assert_bit_equal(trained / "ckpt/cnn", tmp_path / "ckpt/cnn")


@pytest.mark.slow
@pytest.mark.bits
def test_a_folder_that_cannot_be_written_is_said_and_changes_nothing(trained, written, tmp_path):
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt/means").write_text("a file")
    assert "cannot keep means" in done(TRAIN, of=written, to=tmp_path, how="stored")
    assert_bit_equal(trained / "ckpt/cnn", tmp_path / "ckpt/cnn")


def of_another_form(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


DAMAGES = [
    (".npy", of_another_form),
    *((suffix, change) for suffix in (".npy", ".json") for change in ("empty", "gone")),
]
DAMAGES += [(".npy", "flipped"), (".json", b"{}")]


@pytest.mark.slow
def test_damaged_tables_are_made_anew_which_is_said(trained, written, tmp_path):
    kept = tables(trained)["regions"]
    for number, (suffix, change) in enumerate(DAMAGES):
        folder = tmp_path / str(number)
        path = lab.copy(trained / "ckpt/means", folder / "ckpt/means") / kept.with_suffix(suffix).name
        (lab.edit(path, path.read_bytes()), change(path)) if callable(change) else lab.edit(path, change)
        shown = done(TRAIN + " --preset regions", of=written, to=folder, how="stored")
        assert ("made anew" in shown) == ((suffix, change) != (".npy", "gone")), (suffix, change)
        assert means(tables(folder)["regions"]).tobytes() == means(kept).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("standard", ["stored", "brain", "site"])
def test_nothing_of_a_test_subject_is_in_the_row_of_another(standard, written, tmp_path):
    """Within sites it is in those of the site, which is said of every result. A changed scan has a table of its own."""
    before = lab.read_table(written / "subjects.csv")
    tested = before.query("split == 'test'").iloc[0]
    changed = write(tmp_path, tested["subject"])
    after = lab.read_table(changed / "subjects.csv")
    assert before[["subject", "split"]].equals(after[["subject", "split"]])
    found = []
    for of in (written, changed):
        done(TRAIN + " --preset regions", of=of, to=tmp_path, how=standard)
        shutil.rmtree(tmp_path / "ckpt/cnn")
        (new,) = {*(tmp_path / "ckpt/means").glob("*.npy")} - {path for path, _ in found}
        found.append((new, means(new)))
    (_, one), (_, other) = found
    touched = before["site"] == tested["site"] if standard == "site" else before["subject"] == tested["subject"]
    assert ((one == other).all((1, 2)) == ~touched).all()
