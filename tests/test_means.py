"""Means that are kept: those of a loop over regions and of the networks' layers; a volume that changes has others."""

import shutil
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pytest
from commands import done
from helpers import assert_bit_equal

from data.images.atlas import load_atlas
from models import MODELS

pytestmark = pytest.mark.usefixtures("undrawn")

TRAIN = "run.py --train --model cnn --set members=1 --set batch_size=4 --numIters 2 --dataDir {of}"
TRAIN += " --chkPointDir {to}/ckpt --outDir {to}/out --set standardise={how}"


def write_cohort(folder: Path, changed_subject: str = "") -> Path:
    """The cohort of 18 people with two maps; of `changed_subject` another scan."""
    people = lab.people(18)
    lab.pcp(folder / "lab", people, ("falff", "alff"))
    if changed_subject:
        (person,) = people.query(f"SUB_ID == '{changed_subject}'").to_dict("records")
        lab.save(folder / f"lab/cpac/{person['FILE_ID']}_falff.nii.gz", lab.make_map(person | {"SUB_ID": "9"}))
    done("abide-data convert {of}/lab {of}/cohort --grid reduced --maps all --phenotype ''", of=folder)
    return folder / "cohort"


@pytest.fixture(scope="module")
def written_cohort(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("means"))


@pytest.fixture(scope="module")
def trained(written_cohort, undrawn, tmp_path_factory) -> Path:
    """The folder of a training of `combined`, which keeps means of regions and of cubes, of volumes as they are."""
    folder = tmp_path_factory.mktemp("trained")
    done(TRAIN, of=written_cohort, to=folder, how="stored")
    return folder


def find_mean_tables(folder: Path) -> dict[str, Path]:
    """By what they hold means of."""
    return {path.name.split("-")[0]: path for path in sorted((folder / "ckpt/means").glob("*.npy"))}


def load_means(path: Path) -> np.ndarray:
    """(people, parcels, maps) float32."""
    return np.load(path)


def load_volumes(cohort: Path) -> np.ndarray:
    """(people, x, y, z, maps), in the order of the table."""
    files = lab.read_table(cohort / "subjects.csv")["file"]
    return np.stack([np.moveaxis(lab.read_record(cohort / file, maps=2)[2], 0, -1) for file in files])


@pytest.mark.slow
def test_tables_hold_the_means_by_a_loop_over_regions_and_cubes(trained, written_cohort):
    means_by_table = {name: load_means(path) for name, path in find_mean_tables(trained).items()}
    assert [*means_by_table] == ["cubes3", "regions"] and all(
        table.dtype == np.float32 for table in means_by_table.values()
    )
    aal, exact = load_atlas(None, MODELS["cnn"].required_grid), load_volumes(written_cohort).astype(float)
    region_means = np.stack([exact[:, aal.region_labels == region].mean(1) for region in aal.region_numbers], axis=1)
    np.testing.assert_allclose(means_by_table["regions"], region_means, atol=1e-6)
    counts = [-(-length // 3) for length in lab.REDUCED_GRID]
    excess = [3 * count - length for count, length in zip(counts, lab.REDUCED_GRID, strict=True)]
    around = [(0, 0), *((more // 2, more - more // 2) for more in excess), (0, 0)]
    blocks = np.pad(exact, around, constant_values=np.nan)
    blocks = blocks.reshape(len(exact), counts[0], 3, counts[1], 3, counts[2], 3, 2)
    cube_means = np.nanmean(blocks, axis=(2, 4, 6)).reshape(means_by_table["cubes3"].shape)
    np.testing.assert_allclose(means_by_table["cubes3"], cube_means, atol=1e-6)


@pytest.mark.slow
@pytest.mark.bits
def test_tables_equal_the_means_by_the_layers_to_the_last_bit(trained, written_cohort):
    """Eagerly, and compiled; whoever is in the same batch."""
    import tensorflow as tf

    module = MODELS["cnn"].module
    network = module.build(module.PRESETS["combined"], MODELS["cnn"].required_grid, maps=2)
    for name, kind in (("regions", "RegionMeans"), ("cubes3", "AveragePooling3D")):
        layer = next(layer for layer in network.layers if type(layer).__name__ == kind)
        stored_means, cohort_volumes = load_means(find_mean_tables(trained)[name]), load_volumes(written_cohort)
        for call in (layer, tf.function(layer)):
            assert stored_means.tobytes() == np.asarray(call(cohort_volumes)).tobytes()
            assert stored_means[1:2].tobytes() == np.asarray(call(cohort_volumes[1:2])).tobytes()


@pytest.mark.slow
@pytest.mark.bits
def test_a_training_on_existing_tables_ends_as_the_first(trained, written_cohort, tmp_path):
    shutil.copytree(trained / "ckpt/means", tmp_path / "ckpt/means")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "ckpt/means").iterdir()}
    done(TRAIN, of=written_cohort, to=tmp_path, how="stored")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "ckpt/means").iterdir()}
    assert_bit_equal(trained / "ckpt/cnn", tmp_path / "ckpt/cnn")


@pytest.mark.slow
@pytest.mark.bits
def test_an_unwritable_folder_is_reported_and_changes_nothing(trained, written_cohort, tmp_path):
    (tmp_path / "ckpt").mkdir()
    (tmp_path / "ckpt/means").write_text("a file")
    assert "cannot keep means" in done(TRAIN, of=written_cohort, to=tmp_path, how="stored")
    assert_bit_equal(trained / "ckpt/cnn", tmp_path / "ckpt/cnn")


def drop_last_row(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


DAMAGES: list[tuple[str, Any]] = [
    (".npy", drop_last_row),
    *((suffix, change) for suffix in (".npy", ".json") for change in ("empty", "gone")),
]
DAMAGES += [(".npy", "flipped"), (".json", b"{}")]


@pytest.mark.slow
def test_damaged_tables_are_made_anew_with_a_message(trained, written_cohort, tmp_path):
    table_path = find_mean_tables(trained)["regions"]
    for number, (suffix, change) in enumerate(DAMAGES):
        folder = tmp_path / str(number)
        path = lab.copy(trained / "ckpt/means", folder / "ckpt/means") / table_path.with_suffix(suffix).name
        (lab.edit(path, path.read_bytes()), change(path)) if callable(change) else lab.edit(path, change)
        printed_text = done(TRAIN + " --preset regions", of=written_cohort, to=folder, how="stored")
        assert ("made anew" in printed_text) == ((suffix, change) != (".npy", "gone")), (suffix, change)
        assert load_means(find_mean_tables(folder)["regions"]).tobytes() == load_means(table_path).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("standardise_setting", ["stored", "brain", "site"])
def test_a_test_subject_changes_no_row_but_their_site_if_standardised_by_it(
    standardise_setting, written_cohort, tmp_path
):
    """Within sites it is in those of the site, which is said of every result. A changed scan has a table of its own."""
    before = lab.read_table(written_cohort / "subjects.csv")
    tested = before.query("split == 'test'").iloc[0]
    changed_cohort = write_cohort(tmp_path, tested["subject"])
    after = lab.read_table(changed_cohort / "subjects.csv")
    assert before[["subject", "split"]].equals(after[["subject", "split"]])
    new_tables: list[Any] = []
    for cohort_folder in (written_cohort, changed_cohort):
        done(TRAIN + " --preset regions", of=cohort_folder, to=tmp_path, how=standardise_setting)
        shutil.rmtree(tmp_path / "ckpt/cnn")
        (new,) = {*(tmp_path / "ckpt/means").glob("*.npy")} - {path for path, _ in new_tables}
        new_tables.append((new, load_means(new)))
    (_, means_before), (_, means_after) = new_tables
    is_affected = (
        before["site"] == tested["site"] if standardise_setting == "site" else before["subject"] == tested["subject"]
    )
    assert ((means_before == means_after).all((1, 2)) == ~is_affected).all()
