"""Means that are kept: those of an average by NumPy and of the networks' layers; a volume that changes has others."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from helpers import assert_bit_equal, flip_a_bit, read_rows, resealed, row, write_rows

from data.base import files
from data.base.errors import InputError
from data.cohorts import atlas, records
from data.cohorts.atlas import load_atlas, means_of
from data.cohorts.cohort import Cohort
from data.cohorts.records import FULL, REDUCED
from data.cohorts.rows import APART, Metadata
from data.cohorts.seal import Seal
from data.cohorts.stored import sealed, write_tables
from data.cohorts.variants import within_sites

pytestmark = pytest.mark.usefixtures("undrawn")

PEOPLE, TESTED, OTHER = 12, 11, 10  # OTHER is at another site than TESTED, who is a test subject
SITES = np.array([f"S{number % 2}" for number in range(PEOPLE)])
ATLAS = load_atlas(None, REDUCED)
PARCELS = atlas.regions(ATLAS), atlas.cubes(REDUCED, 3)


def random_record(number: int, seed: int) -> bytes:
    """A record whose brain is a box in a background of -0.4."""
    random, volume = np.random.default_rng((number, seed)), np.full((*REDUCED.shape, 2), -0.4, "<f4")
    volume[3:-3, 3:-3, 3:-3] = random.normal(size=volume[3:-3, 3:-3, 3:-3].shape)
    return bytes(records.pack(number // 2 % 2, random.normal(size=29), *np.moveaxis(volume, -1, 0)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of people of two maps at two sites, the last three of whom are tested."""
    folder = tmp_path_factory.mktemp("means") / "cohort"
    folder.mkdir()
    write_people(folder)
    return folder


def write_people(folder, changed: int | None = None) -> None:
    """`changed` is who has another scan."""
    for name in ("SHA256SUMS", "digests.csv"):
        (folder / name).unlink(missing_ok=True)
    for number in range(PEOPLE):
        (folder / f"{number}.bin").write_bytes(random_record(number, seed=int(number == changed)))
    rows = [
        row(str(number), float(number // 2 % 2), "test" if number > 8 else "train", site=SITES[number])
        for number in range(PEOPLE)
    ]
    write_tables(folder, rows, Metadata(grid=REDUCED.shape, maps=("falff", "alff"), copies=APART))


@pytest.fixture
def reads(monkeypatch):
    """The positions of all records that are read with their volumes, in the order of reading."""
    found, read = [], Cohort.read
    monkeypatch.setattr(Cohort, "read", lambda self, index: found.append(index) or read(self, index))
    monkeypatch.setattr(atlas, "MADE", {})
    return found


def opened(folder, kept_in=None, standard: str = "stored") -> Cohort:
    cohort = replace(sealed(folder, together=False), kept_in=kept_in)
    return within_sites(cohort) if standard == "site" else replace(cohort, standard=standard)


@pytest.mark.slow
@pytest.mark.parametrize("grid, maps", [(REDUCED, 3), (FULL, 2)])
def test_means_are_those_of_a_loop_over_parcels(grid, maps):
    volume = np.random.default_rng(0).normal(size=(2, *grid.shape, maps)).astype(np.float32)
    aal, exact = load_atlas(None, grid), volume.astype(float)
    of_regions = np.stack([exact[:, aal.labels == region].mean(1) for region in aal.regions], axis=1)
    np.testing.assert_allclose(atlas.regions(aal).of(volume), of_regions, atol=1e-6)
    counts = [-(-length // 3) for length in grid.shape]
    excess = [3 * count - length for count, length in zip(counts, grid.shape, strict=True)]
    around = [(0, 0), *((more // 2, more - more // 2) for more in excess), (0, 0)]
    blocks = np.pad(exact, around, constant_values=np.nan).reshape(2, counts[0], 3, counts[1], 3, counts[2], 3, maps)
    np.testing.assert_allclose(atlas.cubes(grid, 3).of(volume), np.nanmean(blocks, axis=(2, 4, 6)), atol=1e-6)


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize("grid, maps", [(REDUCED, 3), (FULL, 2)])
def test_means_are_those_of_the_layers_to_the_last_bit(grid, maps):
    """Eagerly, and compiled."""
    import keras
    import tensorflow as tf

    from models import layers

    volume = np.random.default_rng(0).normal(size=(3, *grid.shape, maps)).astype(np.float32)
    ours = {
        layers.RegionMeans(grid): atlas.regions(load_atlas(None, grid)),
        keras.layers.AveragePooling3D(3, padding="same"): atlas.cubes(grid, 3),
    }
    for layer, parcels in ours.items():
        kept = parcels.of(volume)
        for call in (layer, tf.function(layer)):
            assert kept.tobytes() == np.asarray(call(volume)).tobytes()
        assert kept[1:2].tobytes() == parcels.of(volume[1:2]).tobytes()  # whoever is in the same batch


@pytest.mark.bits
@pytest.mark.parametrize("standard", ["stored", "brain", "site"])
def test_tables_are_made_once_and_hold_the_means_of_each_record(standard, written, tmp_path, reads):
    found = means_of(opened(written, tmp_path / "means", standard), PARCELS)
    assert sorted(reads) == sorted([*range(PEOPLE)] * (2 if standard == "site" else 1))  # moments of sites
    reads.clear()
    again = means_of(opened(written, tmp_path / "means", standard), PARCELS)
    assert reads == []
    volumes = opened(written, standard=standard).batch(range(PEOPLE))["volume"]
    for parcels, one, other in zip(PARCELS, found, again, strict=True):
        assert one.shape == (PEOPLE, *parcels.shape, 2) and one.dtype == np.float32
        assert one.tobytes() == other.tobytes() == parcels.of(volumes).tobytes()


def test_a_table_more_leaves_the_one_that_is_there(written, tmp_path, reads):
    means_of(opened(written, tmp_path / "means"), PARCELS[:1])
    (table,) = (tmp_path / "means").glob("*.npy")
    before = table.stat()
    means_of(opened(written, tmp_path / "means"), PARCELS)
    assert table.stat() == before and len(list((tmp_path / "means").glob("*.npy"))) == 2


def test_without_a_folder_nothing_is_kept(written, tmp_path, reads):
    cohort = opened(written)
    for _ in range(2):
        (found,) = means_of(cohort, PARCELS[:1])
    assert len(reads) == 2 * PEOPLE and not any(tmp_path.iterdir())
    assert found.tobytes() == PARCELS[0].of(cohort.batch(range(PEOPLE))["volume"]).tobytes()


def test_a_batch_holds_the_means_of_its_records(written, tmp_path, reads):
    cohort = opened(written, tmp_path / "means")
    (table,) = means_of(cohort, PARCELS[:1])
    batch, whole = cohort.batch([5, 2], volumes=False, tables={"regions": table}), cohort.batch([5, 2])
    assert batch.keys() == {"label", "phenotype", "regions"}
    assert (batch["regions"] == PARCELS[0].of(whole["volume"])).all()
    assert (batch["phenotype"] == whole["phenotype"]).all()


def test_a_record_that_changes_is_refused_though_its_means_are_there(written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "copy")
    means_of(opened(folder, tmp_path / "means"), PARCELS)
    flip_a_bit(folder / "2.bin", -3)
    cohort = opened(folder, tmp_path / "means")
    (table,) = means_of(cohort, PARCELS[:1])
    cohort.batch([1, 3], volumes=False, tables={"regions": table})
    with pytest.raises(InputError, match=r"2\.bin is not what was written: its volume differs from the digest"):
        cohort.batch([1, 2], volumes=False, tables={"regions": table})


def of_other_scan(cohort: Cohort) -> Cohort:
    digests = cohort.seal.digests
    changed = replace(digests[3], volume="0" * 64)
    return replace(cohort, seal=Seal((*digests[:3], changed, *digests[4:])))


OTHERWISE = {  # what changes a table: the cohort, and the labels of the regions
    "a scan": lambda cohort: (of_other_scan(cohort), ATLAS.labels),
    "the order": lambda cohort: (replace(cohort, seal=Seal(cohort.seal.digests[::-1])), ATLAS.labels),
    "within the brain": lambda cohort: (replace(cohort, standard="brain"), ATLAS.labels),
    "within sites": lambda cohort: (within_sites(cohort), ATLAS.labels),
    "the atlas": lambda cohort: (cohort, np.roll(ATLAS.labels, 1, axis=0)),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_another_volume_standard_or_atlas_is_another_table(what, written, tmp_path):
    cohort = opened(written, tmp_path / "means")
    other, labels = OTHERWISE[what](cohort)
    parcels = atlas.regions(replace(ATLAS, labels=labels))
    assert atlas.table_path(other, parcels) != atlas.table_path(cohort, PARCELS[0])


def test_names_labels_and_splits_do_not_change_a_table_but_sites_do_within_sites(written, tmp_path):
    cohort = opened(written, tmp_path / "means")
    renamed = tuple(replace(of, subject=f"x{of.subject}", label=1 - of.label, split="train") for of in cohort.rows)
    moved = tuple(replace(of, site="S0") for of in cohort.rows)
    for rows, standard, same in (
        (renamed, within_sites, True),
        (moved, lambda of: of, True),
        (moved, within_sites, False),
    ):
        one, other = standard(cohort), standard(replace(cohort, rows=rows))
        assert (atlas.table_path(one, PARCELS[0]) == atlas.table_path(other, PARCELS[0])) is same


@pytest.mark.parametrize("standard", ["stored", "brain", "site"])
@pytest.mark.parametrize("changed", [TESTED, OTHER])
def test_nothing_of_a_test_subject_is_in_the_row_of_another(changed, standard, written, tmp_path):
    """Within sites it is in those of the site, which is said of every result (TRANSDUCTIVE)."""
    before = means_of(opened(written, tmp_path / "means", standard), PARCELS)
    write_people(shutil.copytree(written, tmp_path / "copy"), changed)
    after = means_of(opened(tmp_path / "copy", tmp_path / "means", standard), PARCELS)
    assert len(list((tmp_path / "means").glob("*.npy"))) == 4
    touched = SITES[changed] == SITES if standard == "site" else np.arange(PEOPLE) == changed
    for one, other in zip(before, after, strict=True):
        same = [one[at].tobytes() == other[at].tobytes() for at in range(PEOPLE)]
        assert (np.array(same) == ~touched).all()


def emptied(path) -> None:
    path.write_bytes(b"")


def of_another_form(path) -> None:
    """With its own sum."""
    np.save(path, np.load(path)[:-1])
    about = files.read_json(path.with_suffix(".json"), dict)
    files.write_json(path.with_suffix(".json"), about | {"sha256": files.sum_of(path)})


DAMAGES = {
    "another form": (".npy", of_another_form),
    "a bit": (".npy", flip_a_bit),
    "an empty table": (".npy", emptied),
    "an empty description": (".json", emptied),
    "no sum": (".json", lambda path: files.write_json(path, {})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_made_anew_which_is_said(damage, written, tmp_path, reads, capsys):
    (before,) = means_of(opened(written, tmp_path / "means"), PARCELS[:1])
    before, suffix, change = before.tobytes(), *DAMAGES[damage]
    (table,) = (tmp_path / "means").glob("*.npy")
    change(table.with_suffix(suffix))
    reads.clear(), capsys.readouterr()
    (after,) = means_of(opened(written, tmp_path / "means"), PARCELS[:1])
    assert capsys.readouterr().out.count(f"{table} is not as it was written, and is made anew.") == 1
    assert len(reads) == PEOPLE and after.tobytes() == before
    means_of(opened(written, tmp_path / "means"), PARCELS[:1])
    assert len(reads) == PEOPLE and not capsys.readouterr().out


def test_the_table_of_other_scans_under_this_name_is_made_anew(written, tmp_path, reads, capsys):
    shutil.copytree(written, tmp_path / "other")
    write_people(tmp_path / "other", changed=TESTED)
    (before,) = means_of(opened(written, tmp_path / "means"), PARCELS[:1])
    before = before.tobytes()
    (table,) = (tmp_path / "means").glob("*.npy")
    means_of(opened(tmp_path / "other", tmp_path / "means"), PARCELS[:1])
    (others,) = set((tmp_path / "means").glob("*.npy")) - {table}
    for suffix in (".npy", ".json"):
        others.with_suffix(suffix).replace(table.with_suffix(suffix))
    (after,) = means_of(opened(written, tmp_path / "means"), PARCELS[:1])
    assert after.tobytes() == before
    assert f"{table} is not as it was written, and is made anew." in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_what_was_removed_is_made_anew(suffix, written, tmp_path, reads):
    means_of(opened(written, tmp_path / "means"), PARCELS[:1])
    (left,) = (tmp_path / "means").glob(f"*{suffix}")
    left.unlink()
    means_of(opened(written, tmp_path / "means"), PARCELS[:1])
    assert left.exists() and len(reads) == 2 * PEOPLE


def test_a_folder_that_cannot_be_written_is_said_and_means_are_computed_once(written, tmp_path, reads, capsys):
    """The superuser can write everywhere but in a file."""
    (tmp_path / "file").write_text("")
    for _ in range(2):
        (found,) = means_of(opened(written, tmp_path / "file" / "means"), PARCELS[:1])
    assert len(reads) == PEOPLE
    assert found.tobytes() == PARCELS[0].of(opened(written).batch(range(PEOPLE))["volume"]).tobytes()
    lines = [line for line in capsys.readouterr().out.splitlines() if "cannot keep" in line]
    assert len(lines) == 1 and lines[0].startswith(f"{tmp_path}/file/means cannot keep means of volumes (")


def test_two_at_once_make_a_table_once(written, tmp_path, reads):
    with ThreadPoolExecutor(2) as pool:
        cohorts = [opened(written, tmp_path / "means") for _ in range(2)]
        one, other = pool.map(lambda cohort: means_of(cohort, PARCELS), cohorts)
    assert len(reads) == PEOPLE
    assert [table.tobytes() for table in one] == [table.tobytes() for table in other]
    assert sorted(path.suffix for path in (tmp_path / "means").iterdir()) == [".json", ".json", ".npy", ".npy"]


TRAINING = ("--model", "mmnn", "--set", "members=1", "--set", "batch_size=4", "--numIters", 3)


@pytest.fixture(scope="module")
def trained_on_means(written, cli, tmp_path_factory):
    """The folder of a training of `combined` that read kept means."""
    folder = tmp_path_factory.mktemp("trained")
    places = ("--dataDir", written, "--chkPointDir", folder / "ckpt", "--outDir", folder / "out")
    assert (outcome := cli("--train", *TRAINING, *places)).status == 0, outcome.err
    return folder


@pytest.mark.slow
@pytest.mark.bits
def test_a_training_on_kept_means_ends_as_one_on_volumes(trained_on_means, written, cli, tmp_path, reads, monkeypatch):
    """Weights, optimizer, and the constants of `Standardise`; and so does one on tables that are there."""
    places = ("--dataDir", written, "--outDir", "out")
    again = shutil.copytree(trained_on_means / "ckpt" / "means", tmp_path / "again" / "means")
    assert sorted(path.name.split("-")[0] for path in again.glob("*.npy")) == ["cubes3", "regions"]
    assert cli("--train", *TRAINING, *places, "--chkPointDir", "again").status == 0
    assert reads == []
    monkeypatch.setattr("utils.training.network.split_after_means", lambda network: (network, []))
    assert cli("--train", *TRAINING, *places, "--overrideChkpt", "--chkPointDir", "volumes").status == 0
    assert reads and not (tmp_path / "volumes" / "means").exists()
    assert_bit_equal(trained_on_means / "ckpt" / "mmnn", tmp_path / "volumes" / "mmnn")
    assert_bit_equal(tmp_path / "again" / "mmnn", tmp_path / "volumes" / "mmnn")


@pytest.mark.slow
def test_a_test_subject_who_trained_is_refused_though_the_means_are_there(trained_on_means, written, cli, tmp_path):
    """The tables are those of the same volumes, whoever is tested."""
    swapped = shutil.copytree(written, tmp_path / "swapped")
    split = {"train": "test", "test": "train"}
    rows = [of | {"split": split[of["split"]]} for of in read_rows(swapped / "subjects.csv")]
    write_rows(swapped / "subjects.csv", rows)
    resealed(swapped)
    tables = sorted((trained_on_means / "ckpt" / "means").iterdir())
    outcome = cli("--test", "--model", "mmnn", "--dataDir", swapped, "--chkPointDir", trained_on_means / "ckpt")
    assert outcome.status == 2
    assert "9 of 9 test subjects of" in outcome.err and "trained this checkpoint: 0, 1, 2" in outcome.err
    here = opened(swapped, trained_on_means / "ckpt" / "means", "brain")
    assert {atlas.table_path(here, parcels) for parcels in PARCELS} <= set(tables)
