"""Several maps in a record, from files to regions; and one map as it always was."""

import hashlib
import json
import re
import shutil
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import h5py
import nibabel
import numpy as np
import pytest
from helpers import (
    COARSE,
    TINY_CNN,
    bare_records,
    brain_map,
    fills_of,
    pcp_table,
    read_rows,
    resealed,
    write_bare,
    write_rows,
)

from data.base.errors import InputError
from data.cohorts import atlas, records
from data.cohorts.records import FULL, REDUCED
from data.cohorts.stored import open_cohort, write_tables
from data.cohorts.variants import resplit
from data.conversion.layouts import Listing, find_maps
from models import MODELS, cae, cnn, from_json
from utils.blackout.options import BlackoutOptions
from utils.runs.checkpoints import CheckpointFolder
from utils.scores import floors
from utils.training.network import restore_weights

pytestmark = pytest.mark.usefixtures("undrawn")

MAPS = ("falff", "alff", "degree_weighted")
SCALE = {"falff": 1, "alff": 50, "degree_weighted": 300}  # of three kinds of values
VOXELS = 31 * 37 * 31


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """The PCP layout of 12 people with three coarse maps each."""
    folder = tmp_path_factory.mktemp("scans") / "pcp"
    rows = [row for row in pcp_table() if row["FILE_ID"] != "no_filename"][:12]
    write_rows(folder / "Phenotypic_V1_0b_preprocessed1.csv", rows)
    for number, row in enumerate(rows):
        for at, name in enumerate(MAPS):
            values = SCALE[name] * brain_map((8, 10, 8), 100 * at + number)
            nibabel.save(nibabel.Nifti1Image(values, COARSE), folder / f"{row['FILE_ID']}_{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def three(cohort, tmp_path_factory):
    """The simulated cohort with two random maps more, each with a background of its own."""
    folder = tmp_path_factory.mktemp("three") / "cohort"
    shutil.copytree(cohort, folder)
    opened = open_cohort(cohort)
    for index, row in enumerate(opened.rows):
        label, phenotype, volume = opened.read(index)
        brain, random = volume[..., 0] != records.background(volume[..., 0]), np.random.default_rng(index)
        more = [np.where(brain, random.uniform(1, 2, brain.shape), outside) for outside in (0.0, 0.5)]
        (folder / row.file).write_bytes(records.pack(label, phenotype, volume[..., 0], *more))
    for name in ("SHA256SUMS", "digests.csv"):
        (folder / name).unlink()
    write_tables(folder, opened.rows, replace(opened.metadata, maps=MAPS))
    return folder


@pytest.fixture(scope="module")
def trained_on_three(three, cli, tmp_path_factory):
    """The --chkPointDir of a tiny cnn that has seen 4 batches of three maps."""
    folder = tmp_path_factory.mktemp("trained")
    places = ("--chkPointDir", folder / "ckpt", "--dataDir", three, "--outDir", folder / "out")
    outcome = cli("--train", "--model", "cnn", "--numIters", 4, *TINY_CNN, "--set", "batch_size=8", *places)
    assert outcome.status == 0, outcome.err
    return folder / "ckpt"


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def bytes_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.bin"))}


# One map


def test_the_digest_of_a_cohort_of_one_map_is_that_of_its_tables(cohort):
    rows = [
        [row["file"], row["subject"], row["site"], float(row["label"]), row["split"]]
        for row in read_rows(cohort / "subjects.csv")
    ]
    said = json.loads((cohort / "cohort.json").read_text())
    text = json.dumps(["reduced", rows, said], sort_keys=True)
    assert open_cohort(cohort).digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.slow
def test_one_map_leaves_the_tables_of_one_map(scans, data_cli, tmp_path):
    assert data_cli("convert", scans, tmp_path / "one", "--grid", "reduced").status < 2
    header = (tmp_path / "one" / "maps.csv").read_text().splitlines()[0]
    assert header == "subject,background,mean,sd,min,max,coverage,x_mm,y_mm,z_mm,voxel_mm3"
    said = json.loads((tmp_path / "one" / "cohort.json").read_text())
    assert said["maps"] == ["falff"]
    digest = hashlib.sha256()
    for path in [next(scans.glob("*.csv")), *sorted(scans.glob("*_falff.nii.gz"), key=lambda path: path.name[-18:])]:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    assert said["provenance"]["input_sha256"] == digest.hexdigest()


# Records and cohorts


def test_every_size_tells_the_grid_and_the_number_of_maps():
    sizes = {
        4 * (30 + maps * size): (grid, maps)
        for grid, size in ((REDUCED, VOXELS), (FULL, 91 * 109 * 91))
        for maps in range(1, 65)
    }
    assert len(sizes) == 128
    assert all(records.form_of_size(size, "x.bin") == form for size, form in sizes.items())
    with pytest.raises(InputError, match=r"x\.bin holds 426,800 bytes, 4 short of a 31x37x31 record of 3 maps"):
        records.form_of_size(4 * (30 + 3 * VOXELS) - 4, "x.bin")
    with pytest.raises(InputError, match="more than a 31x37x31 record of 64 maps"):
        records.form_of_size(4 * (30 + 65 * VOXELS), "x.bin")


def test_maps_follow_one_another_and_are_read_as_the_last_axis(three):
    opened = open_cohort(three)
    assert opened.maps == MAPS and opened.num_maps == 3
    batch = opened.batch([7, 2])["volume"]
    assert batch.shape == (2, 31, 37, 31, 3)
    for row, index in enumerate((7, 2)):
        content = np.fromfile(three / opened.rows[index].file, "<f4")
        for at in range(3):
            volume = content[30 + at * VOXELS : 30 + (at + 1) * VOXELS].reshape(31, 37, 31)
            assert (opened.read(index)[2][..., at] == volume).all()
            assert (batch[row, ..., at] == volume).all()


def test_a_bare_folder_has_as_many_maps_as_its_sizes_say(three, cohort, tmp_path):
    folder = copy_of(three, tmp_path)
    for name in ("cohort.json", "subjects.csv"):
        (folder / name).unlink()
    assert open_cohort(folder).maps == ("1", "2", "3")
    shutil.copyfile(cohort / "0000001.bin", folder / "0000001.bin")
    words = (
        r"0000001\.bin is a 31x37x31 record, .* a 31x37x31 record of 3 maps; expected one grid and one number of maps"
    )
    with pytest.raises(InputError, match=words):
        open_cohort(folder)


def test_the_number_of_maps_tells_bare_folders_apart(three, cohort, tmp_path):
    digests = set()
    for source in (three, cohort):
        folder = tmp_path / source.parent.name
        folder.mkdir()
        for path in source.glob("*.bin"):
            shutil.copyfile(path, folder / path.name)
        opened = open_cohort(folder)
        digests.add(replace(opened, rows=opened.rows).digest)
    assert len(digests) == 2


def test_records_that_contradict_the_names_are_refused(three, tmp_path):
    folder = copy_of(three, tmp_path)
    text = (folder / "cohort.json").read_text()
    (folder / "cohort.json").write_text(text.replace('    "alff",\n', ""))
    with pytest.raises(
        InputError, match=r"names 2 maps \(falff, degree_weighted\), its records hold 3\. Convert again"
    ):
        open_cohort(folder)


# From files


@pytest.mark.slow
def test_each_map_is_what_it_is_alone(scans, data_cli, tmp_path):
    together = data_cli("convert", scans, tmp_path / "all", "--grid", "reduced", "--maps", ",".join(MAPS))
    assert together.status < 2, together.err
    for name in MAPS:
        assert data_cli("convert", scans, tmp_path / name, "--grid", "reduced", "--maps", name).status < 2
    parts = [bytes_of(tmp_path / name) for name in MAPS]
    assert bytes_of(tmp_path / "all") == {
        file: parts[0][file] + parts[1][file][120:] + parts[2][file][120:] for file in parts[0]
    }
    assert open_cohort(tmp_path / "all").metadata.maps == MAPS
    alone = [row | {"map": name} for name in MAPS for row in read_rows(tmp_path / name / "maps.csv")]
    assert read_rows(tmp_path / "all" / "maps.csv") == alone
    assert "alff: Maps: from 0 to above 1." in together.out


@pytest.mark.slow
def test_who_lacks_a_map_is_left_out_and_named(scans, data_cli, tmp_path):
    folder = copy_of(scans, tmp_path)
    next(folder.glob("*50003_alff*")).unlink()
    for path in folder.glob("*50005_*"):
        path.unlink()
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", "--maps", "falff,alff")
    assert outcome.status < 2, outcome.err
    assert "1 left out, no map alff: 50003\n" in outcome.out
    assert "1 left out, no map: 50005\n" in outcome.out
    assert {"50003", "50005"}.isdisjoint(row["subject"] for row in read_rows(tmp_path / "out" / "subjects.csv"))
    assert len(read_rows(tmp_path / "out" / "subjects.csv")) == 10


@pytest.mark.parametrize(
    "name, files, others",
    [
        ("alff", ["sub-{n}/func/sub-{n}_task-rest_alff.nii.gz"], ["sub-{n}/func/sub-{n}_task-rest_falff.nii.gz"]),
        ("alff", ["sub-{n}/sub-{n}_space-MNI_stat-alff_boldmap.nii.gz"], ["sub-{n}/sub-{n}_stat-falff_boldmap.nii.gz"]),
        ("reho", ["sub-{n}/sub-{n}_stat-reho_desc-smooth_boldmap.nii"], ["sub-{n}/sub-{n}_stat-alff_boldmap.nii"]),
        ("degree_weighted", ["sub-{n}_degreeWeighted.nii"], ["sub-{n}_degreeBinarize.nii"]),
        ("degree_weighted", ["NYU_{n}_degree_weighted.nii.gz"], ["NYU_{n}_degree_binarize.nii.gz"]),
        ("alff", ["Results/ALFFMap_{n}.nii"], ["Results/fALFFMap_{n}.nii", "Results/ReHoMap_{n}.nii"]),
        ("reho", ["szReHoMap_{n}.nii"], ["szALFFMap_{n}.nii"]),
        (
            "degree_weighted",
            ["DegreeCentrality_PositiveWeightedSumBrainMap_{n}.nii"],
            ["DegreeCentrality_PositiveBinarizedSumBrainMap_{n}.nii"],
        ),
        ("dual_regression", ["PITT_{n}_dual_regression.nii.gz"], ["PITT_{n}_falff.nii.gz"]),
        ("dual_regression", ["sub-{n}/sub-{n}_stat-dualregression_boldmap.nii.gz"], ["sub-{n}/sub-{n}_bold.nii.gz"]),
        (
            "dual_regression",
            ["sub-{n}_space-template_desc-DualReg_correlations.nii.gz"],
            ["sub-{n}_desc-MultReg_x.nii"],
        ),
        (
            "degree_weighted",
            ["sub-{n}_desc-weighted_degree-centrality.nii"],
            ["sub-{n}_desc-binarized_degree-centrality.nii"],
        ),
        (
            "eigenvector_weighted",
            ["sub-{n}_desc-weighted_eigen-centrality.nii"],
            ["sub-{n}_desc-weighted_degree-centrality.nii"],
        ),
    ],
)
def test_a_map_is_found_by_its_name_in_each_layout(name, files, others, tmp_path):
    wanted = [pattern.format(n=f"00{n}") for n in (1, 2) for pattern in files]
    for path in [*wanted, *(pattern.format(n=f"00{n}") for n in (1, 2) for pattern in others)]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    maps, _ = find_maps(Listing(tmp_path), name=name)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in maps.values()) == sorted(wanted)
    assert len(maps) == 2 and all(key.endswith(("1", "2")) for key in maps)


def test_a_map_that_is_nowhere(scans):
    with pytest.raises(InputError, match=r"holds no reho maps; .*PCP \(\*_reho\.nii\.gz\)"):
        find_maps(Listing(scans), name="reho")


@pytest.fixture
def named(scans, tmp_path):
    """The same people, their maps named by two columns of a table."""
    folder = copy_of(scans, tmp_path)
    (table,) = folder.glob("*.csv")
    rows = [row | {f"{name} map": f"{row['FILE_ID']}_{name}.nii.gz" for name in MAPS} for row in read_rows(table)]
    write_rows(table, [{name.replace(" ", "_"): value for name, value in row.items()} for row in rows])
    return folder


@pytest.mark.slow
def test_columns_name_the_maps(named, data_cli, tmp_path):
    arguments = ("convert", named, tmp_path / "a", "--grid", "reduced", "--mapColumn", "alff_map,falff_map")
    assert data_cli(*arguments).status < 2
    assert open_cohort(tmp_path / "a").maps == ("alff_map", "falff_map")
    assert data_cli(*arguments[:2], tmp_path / "b", *arguments[3:], "--maps", "alff,falff").status < 2
    assert open_cohort(tmp_path / "b").maps == ("alff", "falff")
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            "--mapColumn alff_map,falff_map --maps alff",
            "names 2 columns for the maps alff; expected a name a column, or",
        ),
        (
            "--mapColumn alff_map,alff_map --maps a,b",
            r"alff\.nii\.gz to 50\d+ for two maps, .* and 9 more; expected one of each",
        ),
        ("--mapColumn alff_map,no_map", "has no column no_map"),
        ("--maps alff,alff", "The maps are called alff, alff, one twice among them; expected each once"),
        ("--maps alff,../x", "called alff, ../x, '../x' among them; expected each once, of letters"),
        ("--maps alff,reho", "holds no reho maps"),
        ("--maps falff,alff --only *_falff*", "matches none of the 12 maps in .*_alff.nii.gz"),
    ],
)
def test_choices_of_maps_that_cannot_be(arguments, words, named, data_cli, tmp_path):
    outcome = data_cli("convert", named, tmp_path / "out", *arguments.split())
    assert outcome.status == 2
    assert re.search(words, outcome.err), outcome.err


@pytest.mark.slow
def test_only_chooses_in_all_maps(scans, data_cli, tmp_path):
    folder = tmp_path / "several"
    shutil.copytree(scans, folder / "filt_global")
    shutil.copytree(scans, folder / "nofilt_global")
    for below in ("filt_global", "nofilt_global"):
        (folder / below / "Phenotypic_V1_0b_preprocessed1.csv").rename(folder / "Phenotypic_V1_0b_preprocessed1.csv")
    arguments = ("--grid", "reduced", "--maps", "falff,alff")
    refused = data_cli("convert", folder, tmp_path / "out", *arguments)
    assert refused.status == 2 and "has two maps for" in refused.err
    glob = re.search("--only '([^']+)'", refused.err)[1]
    chosen = data_cli("convert", folder, tmp_path / "out", *arguments, "--only", glob)
    assert chosen.status < 2, chosen.err
    assert len(bytes_of(tmp_path / "out")) == 12


def test_of_maps_of_several_kinds_the_advice_chooses_those_of_most_people(tmp_path):
    for label in "123456":
        for name in ("falff", "vmhc"):
            res = "_res-1" if label == "6" else ""
            path = tmp_path / f"sub-{label}" / "func" / f"sub-{label}_space-MNI{res}_stat-{name}_boldmap.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    with pytest.raises(InputError, match="of 2 kinds") as error:
        find_maps(Listing(tmp_path), names=("falff", "vmhc"))
    glob = re.search(r"--only '([^']+)' \(5 maps\)", str(error.value))[1]
    for name in ("falff", "vmhc"):
        found, _ = find_maps(Listing(tmp_path), glob, name, ("falff", "vmhc"))
        assert len(found) == 5


@pytest.mark.slow
def test_new_people_have_the_maps_of_the_cohort(scans, data_cli, tmp_path):
    folder = copy_of(scans, tmp_path)
    (table,) = folder.glob("*.csv")
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    rows = read_rows(table)
    table.unlink()
    write_rows(old, rows[:10])
    write_rows(new, rows[10:])
    arguments = ("--grid", "reduced", "--table", old, "--maps", "alff,falff")
    assert data_cli("convert", folder, tmp_path / "like", *arguments).status < 2
    arguments = ("--table", new, "--like", tmp_path / "like")
    refused = data_cli("convert", folder, tmp_path / "out", *arguments, "--maps", "falff,alff")
    assert refused.status == 2
    assert f"--maps falff,alff is not what {tmp_path / 'like'} has, alff, falff. Leave it out" in refused.err
    outcome = data_cli("convert", folder, tmp_path / "out", *arguments)
    assert outcome.status < 2, outcome.err
    assert open_cohort(tmp_path / "out").maps == ("alff", "falff")
    arguments = ("--grid", "reduced", "--maps", "alff,falff")
    assert data_cli("convert", scans, tmp_path / "whole", *arguments).status < 2
    whole = bytes_of(tmp_path / "whole")
    new_ones = bytes_of(tmp_path / "out")
    assert new_ones and all(content[120:] == whole[name][120:] for name, content in new_ones.items())


@pytest.mark.slow
def test_a_map_that_tells_the_label_is_named(scans, data_cli, tmp_path):
    """Ten people more a class, the autism group's second map brighter."""
    folder = copy_of(scans, tmp_path)
    (table,) = folder.glob("*.csv")
    rows = []
    for number in range(24):
        row = pcp_table()[number // 2 % 6] | {"SUB_ID": str(60001 + number), "FILE_ID": f"X_{60001 + number}"}
        rows.append(row | {"DX_GROUP": str(1 + number % 2), "SITE_ID": "NYU"})
        for at, (name, factor) in enumerate((("falff", 1), ("alff", 50 * (1 + 0.25 * (number % 2))))):
            image = nibabel.Nifti1Image(factor * brain_map((8, 10, 8), 100 * at + number), COARSE)
            nibabel.save(image, folder / f"X_{60001 + number}_{name}.nii.gz")
    write_rows(table, rows)
    outcome = data_cli("convert", folder, tmp_path / "out", "--grid", "reduced", "--maps", "falff,alff")
    assert outcome.status == 2
    assert re.search(r"error: alff: The maps separate the training labels by .*min \(AUC 1\.00\)", outcome.err)


# What carries records


@pytest.mark.slow
def test_other_forms_hold_the_same_maps(three, data_cli, tmp_path):
    assert data_cli("pack", three, tmp_path / "packed", "--zip").status == 0
    packed, whole = open_cohort(tmp_path / "packed"), open_cohort(three)
    assert packed.maps == MAPS and packed.digest == whole.digest
    assert (packed.batch([3, 9])["volume"] == whole.batch([3, 9])["volume"]).all()
    assert packed.seal.digests[5] == whole.seal.digests[5]
    assert data_cli("pack", tmp_path / "packed", tmp_path / "again", "--bin").status == 0
    assert bytes_of(tmp_path / "again") == bytes_of(three)


@pytest.mark.slow
def test_a_region_is_swapped_in_all_maps_at_once(three, data_cli, tmp_path):
    assert data_cli("swap", three, tmp_path / "out", "--copies", 1, "--regions", 3).status == 0
    whole, labels = open_cohort(three), atlas.load_atlas(None, REDUCED).labels
    volumes = {row.file: whole.read(index)[2] for index, row in enumerate(whole.rows)}
    opened = open_cohort(tmp_path / "out")
    assert opened.maps == MAPS
    new = [index for index, row in enumerate(opened.rows) if "_swap_" in row.file]
    assert len(new) == 36
    for index in new[:6]:
        volume, base = opened.read(index)[2], volumes[opened.rows[index].file.replace("_swap_0", "")]
        changed = [set(np.unique(labels[volume[..., at] != base[..., at]])) for at in range(3)]
        assert changed[0] == changed[1] == changed[2] and len(changed[0]) == 3
        for region in changed[0]:
            inside = labels == region
            givers = [name for name, other in volumes.items() if (other[inside] == volume[inside]).all()]
            assert len(givers) == 1


def test_export_writes_the_map_that_is_named(three, data_cli, tmp_path):
    outcome = data_cli("export", three, "0000003", tmp_path / "x.nii")
    assert outcome.status == 2
    assert "has several maps; choose with --map one of falff, alff, degree_weighted" in outcome.err
    outcome = data_cli("export", three, "0000003", tmp_path / "x.nii", "--map", "reho")
    assert outcome.status == 2 and "has no map reho; choose with --map one of falff, alff" in outcome.err
    assert data_cli("export", three, "0000003", tmp_path / "x.nii", "--map", "alff").status == 0
    content = np.fromfile(three / "0000003.bin", "<f4")[30 + VOXELS : 30 + 2 * VOXELS].reshape(31, 37, 31)
    assert (nibabel.load(tmp_path / "x.nii").get_fdata(dtype=np.float32) == content).all()


@pytest.mark.slow
def test_check_looks_at_each_map(three, data_cli, tmp_path):
    folder = copy_of(three, tmp_path)
    rows = {row["split"]: row["file"] for row in read_rows(folder / "subjects.csv")}
    first, other = (np.fromfile(folder / rows[split], "<f4") for split in ("train", "test"))
    other[30 + VOXELS : 30 + 2 * VOXELS] = first[30 + VOXELS : 30 + 2 * VOXELS]
    other.tofile(folder / rows["test"])
    third = next(row["file"] for row in read_rows(folder / "subjects.csv") if row["file"] not in rows.values())
    content = np.fromfile(folder / third, "<f4")
    content[30 + 2 * VOXELS :] = 0.5
    content.tofile(folder / third)
    resealed(folder)
    outcome = data_cli("check", folder)
    assert outcome.status == 1
    assert "31x37x31, maps falff, alff, degree_weighted" in outcome.out
    assert f"PROBLEM: {third} is constant (0.5); its map of degree_weighted was empty" in outcome.out
    assert re.search(rf"PROBLEM: identical alff: .*{rows['test']} \(test\).*, one scan in train and test", outcome.out)


def test_folds_keep_the_maps(three):
    opened = open_cohort(three)
    cut = resplit(opened, {row.subject: "test" if int(row.subject) % 5 == 0 else "train" for row in opened.rows})
    assert cut.maps == MAPS
    assert (cut.batch([4])["volume"] == opened.batch([4])["volume"]).all()
    assert cut.seal.digests[4] == opened.seal.digests[4]


def test_floors_read_the_regions_of_every_map(three):
    opened, regions = open_cohort(three), atlas.load_atlas(None, REDUCED)
    table = floors.features(opened)["regions"].to_numpy()
    assert table.shape == (40, 116 * 3)
    for index in (0, 31):
        volume = opened.read(index)[2].astype(float)
        by_hand = [volume[regions.labels == region][:, at].mean() for region in regions.regions for at in range(3)]
        np.testing.assert_allclose(table[index], by_hand, rtol=1e-6)


# Models


@pytest.mark.slow
def test_means_of_regions_and_of_cubes_are_standardised(three, cli, tmp_path):
    """By mean and spread over the training records, map by map; the default network reads both, here once."""
    from models.layers import Standardise

    words = "--train --model cnn --numIters 1 --set batch_size=8 --set standardise=stored --set members=1"
    places = ("--dataDir", three, "--chkPointDir", tmp_path / "ckpt", "--outDir", tmp_path / "out")
    outcome = cli(*words.split(), *places)
    assert outcome.status == 0, outcome.err
    folder = CheckpointFolder(tmp_path / "ckpt" / "cnn")
    network = cnn.build(from_json(cnn.Config, folder.identity().config), REDUCED, 3)
    restore_weights(folder, network)
    found = {len(layer.mean.shape): layer for layer in network.layers if isinstance(layer, Standardise)}
    opened, regions = open_cohort(three), atlas.load_atlas(None, REDUCED)
    volumes = np.stack([opened.read(index)[2] for index in opened.indices("train")]).astype(float)
    means = np.stack([volumes[:, regions.labels == region].mean(1) for region in regions.regions], axis=1)
    np.testing.assert_allclose(found[2].mean, means.mean(0), atol=1e-5)
    np.testing.assert_allclose(found[2].spread, means.std(0), rtol=1e-3)
    cube = volumes[:, 14:17, 17:20, 14:17].mean((1, 2, 3))  # the grid is padded by a voxel on each side
    np.testing.assert_allclose(found[4].mean[5, 6, 5], cube.mean(0), atol=1e-5)
    np.testing.assert_allclose(found[4].spread[5, 6, 5], cube.std(0), rtol=1e-3)


def test_an_autoencoder_reads_each_map_as_a_sample(three):
    opened = open_cohort(three)
    (batch,) = MODELS["cae"].batches(opened, [np.array([4, 8])], volumes=True, tables={})
    assert batch["volume"].shape == (6, 31, 37, 31, 1)
    for sample, (index, at) in enumerate([(4, 0), (4, 1), (4, 2), (8, 0), (8, 1), (8, 2)]):
        assert (batch["volume"][sample, ..., 0] == opened.read(index)[2][..., at]).all()
    network = MODELS["cae"].build(cae.PRESETS["stride3"], SimpleNamespace(grid=FULL, num_maps=3))
    assert network.inputs[0].shape == (None, 91, 109, 91, 1)


@pytest.mark.slow
def test_a_checkpoint_of_other_maps_is_refused(three, cohort, trained_on_three, cli, tmp_path):
    bare = write_bare(tmp_path / "bare", bare_records(range(1001, 1021)))
    arguments = ("--test", "--model", "cnn", "--chkPointDir", trained_on_three)
    outcome = cli(*arguments, "--dataDir", bare)
    assert outcome.status == 2
    assert f"was trained on records of 3 maps, {bare} has 1 map a record; use a cohort made like" in outcome.err
    outcome = cli(*arguments, "--dataDir", cohort)
    assert outcome.status == 2
    assert re.search("trained on data with maps of 3 entries, .* has of 1 entries", outcome.err), outcome.err


@pytest.mark.slow
def test_a_test_of_three_maps_is_described(three, trained_on_three, cli, tmp_path):
    arguments = ("--chkPointDir", trained_on_three, "--dataDir", three, "--outDir", tmp_path / "out")
    outcome = cli("--test", "--model", "cnn", *arguments)
    assert outcome.status == 0, outcome.err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["maps"] == list(MAPS)
    assert "in MNI152 space (falff, alff, degree_weighted)" in (tmp_path / "out" / "report.html").read_text()


# Blackout


@pytest.fixture(scope="module")
def logits_of(trained_on_three):
    """Volume (x, y, z, maps) -> logits of (control, autism), one at a time."""
    folder = CheckpointFolder(trained_on_three / "cnn")
    network = cnn.build(from_json(cnn.Config, folder.identity().config), REDUCED, 3)
    restore_weights(folder, network)
    return lambda volume: network({"volume": volume[None]}, training=False).numpy()[0].astype(float)


@pytest.mark.slow
def test_regions_are_blacked_out_in_these_maps_only(three, trained_on_three, logits_of, cli, tmp_path):
    """Against a loop by hand: all effects, with one donor, whose distance from all people whom it was drawn from is
    taken out by a regression on the replaced maps alone."""
    arguments = ("--chkPointDir", trained_on_three, "--dataDir", three, "--outDir", tmp_path / "out", "--donors", 1)
    labels = atlas.load_atlas(None, REDUCED).labels
    few = sum(np.int16(at) * (labels == region) for at, region in enumerate((20, 68, 102), 1))
    nibabel.save(nibabel.Nifti1Image(few, np.array(REDUCED.affine)), tmp_path / "few.nii.gz")
    opened, regions = open_cohort(three), atlas.load_atlas(tmp_path / "few.nii.gz", REDUCED)
    assert [(regions.labels == region).sum() for region in (1, 2, 3)] == [(few == at).sum() for at in (1, 2, 3)]
    tested = opened.indices("test")
    arguments += ("--maps", "degree_weighted,falff")
    arguments += ("--atlas", tmp_path / "few.nii.gz")
    outcome = cli("--blackout", "--model", "cnn", *arguments, "--verify", 6)
    assert outcome.status == 0, outcome.err
    assert float(re.search(r"differ by at most (\S+), ", outcome.out)[1]) < 1e-5
    replaced = [MAPS.index("degree_weighted"), MAPS.index("falff")]
    fills = fills_of(opened, regions, tested, BlackoutOptions(donors=1))
    with h5py.File(tmp_path / "out" / "blackout.h5") as store:
        stored = {name: values[:] for name, values in store.items()}
    sign = np.array([1 if opened.rows[index].label == 1 else -1 for index in tested])
    for region in (1, 2):
        inside = regions.labels == region
        means = np.stack([opened.read(at)[2][inside].mean(0, float) for at in range(len(opened.rows))])
        levels = {"reliance": means[:, replaced], "unique": (means - fills.expected[:, region - 1])[:, replaced]}
        levels |= {at: means[:, [at]] for at in sorted(replaced)}
        effects, pairs, away = (defaultdict(list) for _ in range(3))
        for index in tested:
            volume, (position,) = opened.read(index)[2], fills.donors.drawn[int(index)]
            donor = opened.read(position)[2]
            hidden, donated, moved, alone = *(volume.copy() for _ in range(3)), donor.copy()
            in_one = {at: volume.copy() for at in sorted(replaced)}
            for at in replaced:
                level = fills.expected[index, region - 1, at] - fills.expected[position, region - 1, at]
                hidden[inside, at] = np.median(volume[[0, -1], :, :, at])
                donated[inside, at] = in_one[at][inside, at] = donor[inside, at]
                moved[inside, at] = donor[inside, at] + np.float32(level)
                alone[inside, at] = volume[inside, at]
            shows = (volume, donor, alone, hidden, donated, moved, *in_one.values())
            control, autism = np.transpose([logits_of(each) for each in shows])
            shown, donors, lent, *others = autism - control
            for name, other in zip(("delta_logit", "reliance", "unique", *in_one), others, strict=True):
                effects[name].append(shown - other)
            effects["sufficiency"].append(lent - donors)
            split, site = fills.donors.origin[int(index)]
            givers = [at for at in opened.indices(split) if at != index and site in (None, opened.rows[at].site)]
            assert len(givers) >= 2  # enough to draw one donor from
            for name, level in levels.items():
                away[name].append(level[position] - level[givers].mean(0))
                pairs[name].append(level[index] - level[position])
        for name in levels:
            shrunk = np.diag(np.sqrt(np.square(away[name]).mean(0)))
            of_none = np.zeros(len(shrunk))
            slope = np.linalg.lstsq(np.vstack([pairs[name], shrunk]), [*effects[name], *of_none], rcond=None)[0]
            effects[name] = np.array(effects[name]) + np.array(away[name]) @ slope
        for place, at in enumerate(sorted(replaced)):
            assert stored["reliance_by_map"][:, region - 1, place] == pytest.approx(sign * effects.pop(at), abs=1e-5)
        for name, values in effects.items():
            assert stored[name][:, region - 1] == pytest.approx(sign * np.array(values), abs=1e-5), name
    assert "of each region was replaced; alff stayed." in outcome.out
    said = json.loads((tmp_path / "out" / "run.json").read_text())["chosen_maps"]
    assert said == ["degree_weighted", "falff"]
    assert "6 records recomputed in full, a region with every fill and in each map alone" in outcome.out
    rows = read_rows(tmp_path / "out" / "regions_by_map.csv")
    assert ",".join(rows[0]).startswith(
        "rank,region,name,map,reliance,reliance_low,reliance_high,p_reliance,p_reliance_plain,reliance_adjusted,"
    )
    assert [stored["map"][place].decode() for place in range(2)] == ["falff", "degree_weighted"]
    assert len(rows) == 3 * 2 and {row["map"] for row in rows} == {"falff", "degree_weighted"}
    for row in rows:
        place = ["falff", "degree_weighted"].index(row["map"])
        mean = stored["reliance_by_map"][:, int(row["region"]) - 1, place].mean()
        assert float(row["reliance"]) == pytest.approx(mean, abs=1e-5)
    found = {file.suffix for file in (tmp_path / "out").glob("regions_by_map.*")}
    assert found == {".csv", ".png", ".svg"}


@pytest.mark.slow
def test_maps_that_cannot_be_blacked_out(three, trained_on_three, cli, tmp_path):
    arguments = ("--model", "cnn", "--chkPointDir", trained_on_three, "--dataDir", three, "--outDir", tmp_path / "out")
    outcome = cli("--blackout", *arguments, "--maps", "alff,reho")
    assert outcome.status == 2
    assert f"--maps reho is no map of {three}; it has falff, alff, degree_weighted." in outcome.err
    outcome = cli("--test", *arguments, "--maps", "alff")
    assert outcome.status == 2
    assert "--maps goes with --blackout, not with --test; leave it out." in outcome.err
    assert not (tmp_path / "out").exists()
