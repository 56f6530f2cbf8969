"""Several maps in a record, from files and volumes of 4-D files to the forms of a cohort."""

import gzip
import json
import shutil
from pathlib import Path

import lab as labs
import nibabel
import numpy as np
import pandas as pd
import pytest
from commands import done, refused, run
from lab import load_image, read_record, read_table

PEOPLE = labs.people(8)
MAPS = ("falff", "net_0", "net_1", "net_2")
CONVERT_REDUCED = "abide-data convert {source} {to} --grid reduced"
RECORD_FILES = [f"{subject}.bin" for subject in PEOPLE["SUB_ID"]]


def read_map_bytes(cohort: Path, count: int) -> dict[str, list[bytes]]:
    """The bytes of each map of each record."""
    volumes_by_record = {name: read_record(cohort / name, count)[2] for name in RECORD_FILES}
    return {name: [volume.tobytes() for volume in volumes] for name, volumes in volumes_by_record.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """8 people with fALFF and a 4-D file of three networks, of one with an axis of length 1."""
    folder = labs.write_network_maps(tmp_path_factory.mktemp("source") / "lab", PEOPLE)
    labs.edit(folder / "cpac/X_0050004_net.nii.gz", lambda values, affine: (values[:, :, :, None], affine))
    return folder


@pytest.fixture(scope="module")
def joint_cohort(source, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("together") / "cohort"
    printed_text = done(f"{CONVERT_REDUCED} --maps falff,net", source=source, to=to)
    assert "net_2: of either sign" in printed_text and "falff: from 0 to 1" in printed_text
    return to


@pytest.mark.slow
def test_a_volume_is_converted_as_a_separate_map_would_be(source, joint_cohort, tmp_path):
    """In files that columns of the table name, of which one is an uncompressed pair."""
    folder = labs.pcp(tmp_path / "split", PEOPLE)
    for path in sorted(source.rglob("*_net.nii.gz")):
        image = load_image(path)
        volumes = np.asarray(image.dataobj).reshape(*image.shape[:3], 3)
        for volume_number in range(3):
            labs.save(
                folder / path.name.replace("net", f"net{volume_number}"), volumes[..., volume_number], image.affine
            )
    nibabel.save(nibabel.Nifti1Pair.from_image(load_image(folder / "X_0050003_net1.nii.gz")), folder / "pair.img")

    def with_paths(table: pd.DataFrame) -> pd.DataFrame:
        paths = {f"n{number}": table["FILE_ID"] + f"_net{number}.nii.gz" for number in range(3)}
        table = table.assign(f="cpac/" + table["FILE_ID"] + "_falff.nii.gz", **paths)
        return table.assign(n1=table["n1"].replace("X_0050003_net1.nii.gz", "pair.img"))

    labs.edit(folder / "Phenotypic.csv", with_paths)
    words = f"--mapColumn f,n0,n1,n2 --maps {','.join(MAPS)}"
    done(f"{CONVERT_REDUCED} {words}", source=folder, to=tmp_path / "apart")
    assert json.loads((joint_cohort / "cohort.json").read_text())["maps"] == [*MAPS]
    for name in ("subjects.csv", "phenotype.csv", "covariates.csv", "maps.csv", *RECORD_FILES):
        assert (tmp_path / "apart" / name).read_bytes() == (joint_cohort / name).read_bytes(), name
    measured_means = read_table(joint_cohort / "maps.csv").set_index(["map", "subject"])["mean"].astype(float)
    values = np.asarray(load_image(source / "cpac/X_0050005_net.nii.gz").dataobj)[..., 2]
    assert measured_means["net_2", "50005"] == pytest.approx(values[values != 0].mean(), rel=1e-4)


@pytest.mark.slow
def test_maps_keep_the_order_in_the_option(source, joint_cohort, tmp_path):
    done(f"{CONVERT_REDUCED} --maps net_2,falff,net_0", source=source, to=tmp_path / "three")
    assert json.loads((tmp_path / "three/cohort.json").read_text())["maps"] == ["net_2", "falff", "net_0"]
    bytes_by_record = read_map_bytes(joint_cohort, 4)
    assert read_map_bytes(tmp_path / "three", 3) == {
        name: [map_bytes[3], map_bytes[0], map_bytes[1]] for name, map_bytes in bytes_by_record.items()
    }
    done(CONVERT_REDUCED, source=source, to=tmp_path / "one")
    assert read_map_bytes(tmp_path / "one", 1) == {name: map_bytes[:1] for name, map_bytes in bytes_by_record.items()}
    lines = [{**row, "map": "falff"} for row in read_table(tmp_path / "one/maps.csv").to_dict("records")]
    assert read_table(joint_cohort / "maps.csv").to_dict("records")[: len(lines)] == lines


@pytest.mark.slow
def test_integers_are_scaled_as_nibabel_does(source, tmp_path):
    folder = labs.copy(source, tmp_path / "lab")
    path = folder / "cpac/X_0050006_net.nii.gz"
    image = load_image(path)
    stored = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    stored.set_data_dtype(np.int16)  # with a slope
    path.unlink()
    nibabel.save(stored, path)
    done(f"{CONVERT_REDUCED} --maps net", source=folder, to=tmp_path / "integers")
    labs.save(path, np.asarray(load_image(path).dataobj, np.float32), image.affine)
    done(f"{CONVERT_REDUCED} --maps net", source=folder, to=tmp_path / "floats")
    integer_volumes, float_volumes = (
        read_record(tmp_path / cohort_name / "50006.bin", 3)[2] for cohort_name in ("integers", "floats")
    )
    np.testing.assert_allclose(integer_volumes, float_volumes, atol=1e-5)


def find_dry_run_maps(source: Path, to: Path, convert_options: str) -> str:
    """The names of maps that a record would have."""
    printed_text = done(f"{CONVERT_REDUCED} --dryRun {convert_options}", source=source, to=to)
    return printed_text.partition(f"{to}: ")[2].partition(" of each")[0]


@pytest.mark.slow
def test_volumes_have_the_names_in_a_listing_or_in_the_json_by_a_file(source, tmp_path):
    folder, to = labs.copy(source, tmp_path / "lab"), tmp_path / "to"
    assert find_dry_run_maps(folder, to, "--maps net") == "net_0, net_1, net_2"
    for path in folder.rglob("*_net.nii.gz"):
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"LabelMap": ["v", "m", "d"]}))
    assert find_dry_run_maps(folder, to, "--maps net") == "net_v, net_m, net_d"
    assert find_dry_run_maps(folder, to, "--maps net_d,falff") == "net_d, falff"
    (folder / "net.txt").write_bytes(b"\xef\xbb\xbfV1\r\nM1\r\n\r\nDMN\r\n")
    assert find_dry_run_maps(folder, to, "--maps net") == "net_V1, net_M1, net_DMN"
    (folder / "net.txt").unlink()
    columns = {"falff": "_falff.nii.gz", "net": "_net.nii.gz"}

    def with_paths(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: "cpac/" + table["FILE_ID"] + end for name, end in columns.items()})

    labs.edit(folder / "Phenotypic.csv", with_paths)
    by_column = "--mapColumn falff,net"
    assert find_dry_run_maps(folder, to, by_column) == "falff, net_v, net_m, net_d"
    assert find_dry_run_maps(folder, to, f"{by_column} --maps f,n") == "f, n_v, n_m, n_d"


@pytest.mark.slow
def test_all_takes_maps_common_to_everybody_and_lists_the_rest(source, tmp_path):
    folder = labs.copy(source, tmp_path / "lab")
    for path in sorted(folder.rglob("*_net.nii.gz")):
        path.rename(path.with_name(path.name.replace("_net", "_dual_regression")))
    for path in folder.rglob("*_falff.nii.gz"):
        shutil.copy(path, path.with_name(path.name.replace("_falff", "_reho")))
    (folder / "cpac/X_0050003_reho.nii.gz").unlink()
    (folder / "cpac/X_0050004_falff.nii.gz").unlink()
    for path in folder.rglob("*50006_*"):  # who has no map keeps nobody from theirs
        path.unlink()
    printed_text = done(f"{CONVERT_REDUCED} --maps all --exclude 50004", source=folder, to=tmp_path / "to")
    assert "without reho, which 1 of 6 participants lack, 50003" in printed_text
    metadata = json.loads((tmp_path / "to/cohort.json").read_text())
    assert metadata["maps"] == ["falff", *(f"dual_regression_{number}" for number in range(3))]
    assert (
        metadata["provenance"]["left_out"]["no map"] == ["50006"] and len(read_table(tmp_path / "to/subjects.csv")) == 6
    )
    done(f"{CONVERT_REDUCED} --maps reho,falff", source=folder, to=tmp_path / "two")
    left_out = json.loads((tmp_path / "two/cohort.json").read_text())["provenance"]["left_out"]
    assert (left_out["no map reho"], left_out["no map falff"]) == (["50003"], ["50004"])


@pytest.mark.parametrize("volume_number", [0, 2])
def test_damaged_compressed_values_are_refused(volume_number, source, tmp_path):
    """Whichever volume is read, the end of the file tells."""
    folder = labs.copy(source, tmp_path / "lab")
    path = folder / "cpac/X_0050002_net.nii.gz"
    intact_bytes = path.read_bytes()
    damaged = bytearray(gzip.decompress(intact_bytes))
    damaged[-100] ^= 1  # in the last volume
    for content in (intact_bytes[:-6], gzip.compress(bytes(damaged))[:-8] + intact_bytes[-8:]):
        labs.edit(path, content)
        command = f"{CONVERT_REDUCED} --maps net_{volume_number}"
        refused(command, "X_0050002_net.nii.gz is not a readable NIfTI map", source=folder, to=tmp_path / "to")


# Cohorts


@pytest.mark.slow
def test_further_forms_and_exports_hold_the_same_maps(joint_cohort, tmp_path):
    done("abide-data pack {of} {to} --zip", of=joint_cohort, to=tmp_path / "zip")
    done("abide-data pack {of} {to} --bin", of=tmp_path / "zip", to=tmp_path / "again")
    for name in ("subjects.csv", "phenotype.csv", "covariates.csv", "maps.csv", *RECORD_FILES):
        assert (tmp_path / "again" / name).read_bytes() == (joint_cohort / name).read_bytes(), name
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in RECORD_FILES:
        shutil.copy(joint_cohort / name, bare)
    volumes = read_record(joint_cohort / RECORD_FILES[0], 4)[2]
    for cohort, name in ((tmp_path / "zip", "net_1"), (bare, "3")):
        done(f"abide-data volume {{of}} 50002 {{to}} --map {name}", of=cohort, to=tmp_path / f"{name}.nii")
        assert (load_image(tmp_path / f"{name}.nii").get_fdata(dtype=np.float32) == volumes[2]).all()
    refused("abide-data volume {of} 50002 {to}", "--map", "falff, net_0", of=joint_cohort, to=tmp_path / "x.nii")
    refused(
        "abide-data volume {of} 50002 {to} --map reho", "no map reho", "falff", of=joint_cohort, to=tmp_path / "x.nii"
    )
    labs.edit(bare / RECORD_FILES[1], labs.record(1))
    refused("abide-data pack {of} {to} --zip", "31x37x31 record of 4 maps", "one grid", of=bare, to=tmp_path / "x")


@pytest.mark.slow
def test_a_region_is_swapped_in_all_maps_together(converted, tmp_path):
    printed_text = done("abide-data swap {of} {to} --copies 1 --regions 1", of=converted, to=tmp_path / "out")
    assert "are left out" in printed_text and not (tmp_path / "out/connectomes.h5").exists()
    printed_text = done("abide-data check {of}", of=tmp_path / "out")
    assert "maps falff, alff" in printed_text
    rows = read_table(converted / "subjects.csv")
    volumes_by_record = {name: read_record(converted / name, 2)[2] for name in rows["file"][rows["split"] == "train"]}
    new = [name for name in read_table(tmp_path / "out/subjects.csv")["file"] if "_swap_" in name]
    assert len(new) == len(volumes_by_record)
    for name in new[:6]:
        volumes, base = read_record(tmp_path / "out" / name, 2)[2], volumes_by_record[name.replace("_swap_0", "")]
        changed = volumes != base
        inside = changed.any(0)
        assert 10 < inside.sum() < 0.1 * inside.size and (changed[0] == changed[1]).mean() > 0.99
        givers = [
            donor_name
            for donor_name, donor_volumes in volumes_by_record.items()
            if (donor_volumes[:, inside] == volumes[:, inside]).all()
        ]
        assert len(givers) == 1


def read_split_table(folder: Path) -> pd.DataFrame:
    return read_table(folder / "subjects.csv")[["file", "subject", "site", "label", "split"]]


@pytest.mark.slow
def test_check_reads_all_maps(tmp_path):
    """Two people share the second of two maps, and are kept apart as the user says."""
    folder = labs.pcp(tmp_path / "lab", labs.people(20), ("falff", "alff"))
    done(f"{CONVERT_REDUCED} --maps all", source=folder, to=tmp_path / "before")
    rows = read_table(tmp_path / "before/subjects.csv")
    first, test_subject = (rows["subject"][rows["split"] == split].iloc[0] for split in ("train", "test"))
    shutil.copy(folder / f"cpac/X_00{first}_alff.nii.gz", folder / f"cpac/X_00{test_subject}_alff.nii.gz")
    outcome = run(f"{CONVERT_REDUCED} --maps all --keepDuplicates", source=folder, to=tmp_path / "cohort")
    assert outcome.status == 1 and read_split_table(tmp_path / "cohort").equals(read_split_table(tmp_path / "before"))
    outcome = run("abide-data check {of}", of=tmp_path / "cohort")
    assert outcome.status == 1
    (line,) = [line for line in outcome.out.splitlines() if "PROBLEM       one scan under several IDs" in line]
    assert f"{first} (train)" in line and f"{test_subject} (test)" in line and "one scan in train and test" in line


@pytest.mark.slow
def test_an_autoencoder_codes_maps_separately(tmp_path):
    """A full-size cohort of two maps, of which the second equals the first but for its scale."""
    folder = labs.pcp(tmp_path / "lab", labs.people(4), ("falff", "alff"))
    for path in folder.rglob("*_falff.nii.gz"):
        labs.edit(path.with_name(path.name.replace("falff", "alff")), path.read_bytes())
    run("abide-data convert {source} {to} --maps all", source=folder, to=tmp_path / "full")
    places = {"of": tmp_path / "full", "to": tmp_path}
    words = "--model cae --dataDir {of} --chkPointDir {to}/ckpt"
    done(f"run.py --train {words} --outDir {{to}}/train --numIters 1 --set strides=3,1 --set filters=1,1", **places)
    done(f"run.py {words} --outDir {{to}}/codes", **places)
    assert json.loads((tmp_path / "codes/cohort.json").read_text())["maps"] == ["falff", "alff"]
    for name in RECORD_FILES[:4]:
        first_code, second_code = read_record(tmp_path / "codes" / name, 2)[2]
        assert (first_code == second_code).all() and first_code.std() > 0
