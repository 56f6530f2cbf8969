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
from lab import read_record, read_table

PEOPLE = labs.people(8)
MAPS = ("falff", "net_0", "net_1", "net_2")
REDUCED = "abide-data convert {source} {to} --grid reduced"
RECORDS = [f"{subject}.bin" for subject in PEOPLE["SUB_ID"]]


def maps_of(cohort: Path, count: int) -> dict[str, list[bytes]]:
    """The bytes of each map of each record."""
    each = {name: read_record(cohort / name, count)[2] for name in RECORDS}
    return {name: [volume.tobytes() for volume in volumes] for name, volumes in each.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """8 people with fALFF and a 4-D file of three networks, of one with an axis of length 1."""
    folder = labs.write_network_maps(tmp_path_factory.mktemp("source") / "lab", PEOPLE)
    labs.edit(folder / "cpac/X_0050004_net.nii.gz", lambda values, affine: (values[:, :, :, None], affine))
    return folder


@pytest.fixture(scope="module")
def together(source, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("together") / "cohort"
    told = done(f"{REDUCED} --maps falff,net", source=source, to=to)
    assert "net_2: of either sign" in told and "falff: from 0 to 1" in told
    return to


@pytest.mark.slow
def test_each_volume_is_what_it_is_as_a_map_of_its_own(source, together, tmp_path):
    """In files that columns of the table name, of which one is an uncompressed pair."""
    folder = labs.pcp(tmp_path / "split", PEOPLE)
    for path in sorted(source.rglob("*_net.nii.gz")):
        image = nibabel.load(path)
        volumes = np.asarray(image.dataobj).reshape(*image.shape[:3], 3)
        for number in range(3):
            labs.save(folder / path.name.replace("net", f"net{number}"), volumes[..., number], image.affine)
    nibabel.save(nibabel.Nifti1Pair.from_image(nibabel.load(folder / "X_0050003_net1.nii.gz")), folder / "pair.img")

    def with_paths(table: pd.DataFrame) -> pd.DataFrame:
        paths = {f"n{number}": table["FILE_ID"] + f"_net{number}.nii.gz" for number in range(3)}
        table = table.assign(f="cpac/" + table["FILE_ID"] + "_falff.nii.gz", **paths)
        return table.assign(n1=table["n1"].replace("X_0050003_net1.nii.gz", "pair.img"))

    labs.edit(folder / "Phenotypic.csv", with_paths)
    words = f"--mapColumn f,n0,n1,n2 --maps {','.join(MAPS)}"
    done(f"{REDUCED} {words}", source=folder, to=tmp_path / "apart")
    assert json.loads((together / "cohort.json").read_text())["maps"] == [*MAPS]
    for name in ("subjects.csv", "phenotype.csv", "covariates.csv", "maps.csv", *RECORDS):
        assert (tmp_path / "apart" / name).read_bytes() == (together / name).read_bytes(), name
    measured = read_table(together / "maps.csv").set_index(["map", "subject"])["mean"].astype(float)
    values = np.asarray(nibabel.load(source / "cpac/X_0050005_net.nii.gz").dataobj)[..., 2]
    assert measured["net_2", "50005"] == pytest.approx(values[values != 0].mean(), rel=1e-4)


@pytest.mark.slow
def test_maps_are_in_the_order_in_which_they_are_named(source, together, tmp_path):
    done(f"{REDUCED} --maps net_2,falff,net_0", source=source, to=tmp_path / "three")
    assert json.loads((tmp_path / "three/cohort.json").read_text())["maps"] == ["net_2", "falff", "net_0"]
    every = maps_of(together, 4)
    assert maps_of(tmp_path / "three", 3) == {name: [of[3], of[0], of[1]] for name, of in every.items()}
    done(REDUCED, source=source, to=tmp_path / "one")
    assert maps_of(tmp_path / "one", 1) == {name: of[:1] for name, of in every.items()}
    lines = [{**row, "map": "falff"} for row in read_table(tmp_path / "one/maps.csv").to_dict("records")]
    assert read_table(together / "maps.csv").to_dict("records")[: len(lines)] == lines


@pytest.mark.slow
def test_integers_are_scaled_as_nibabel_does(source, tmp_path):
    folder = labs.copy(source, tmp_path / "lab")
    path = folder / "cpac/X_0050006_net.nii.gz"
    image = nibabel.load(path)
    stored = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    stored.set_data_dtype(np.int16)  # with a slope
    path.unlink()
    nibabel.save(stored, path)
    done(f"{REDUCED} --maps net", source=folder, to=tmp_path / "integers")
    labs.save(path, np.asarray(nibabel.load(path).dataobj, np.float32), image.affine)
    done(f"{REDUCED} --maps net", source=folder, to=tmp_path / "floats")
    found, wanted = (read_record(tmp_path / of / "50006.bin", 3)[2] for of in ("integers", "floats"))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def dry(source: Path, to: Path, words: str) -> str:
    """The names of maps that a record would have."""
    told = done(f"{REDUCED} --dryRun {words}", source=source, to=to)
    return told.partition(f"{to}: ")[2].partition(" of each")[0]


@pytest.mark.slow
def test_volumes_have_the_names_of_a_listing_or_of_the_json_beside_each_file(source, tmp_path):
    folder, to = labs.copy(source, tmp_path / "lab"), tmp_path / "to"
    assert dry(folder, to, "--maps net") == "net_0, net_1, net_2"
    for path in folder.rglob("*_net.nii.gz"):
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"LabelMap": ["v", "m", "d"]}))
    assert dry(folder, to, "--maps net") == "net_v, net_m, net_d"
    assert dry(folder, to, "--maps net_d,falff") == "net_d, falff"
    (folder / "net.txt").write_bytes(b"\xef\xbb\xbfV1\r\nM1\r\n\r\nDMN\r\n")
    assert dry(folder, to, "--maps net") == "net_V1, net_M1, net_DMN"
    (folder / "net.txt").unlink()
    columns = {"falff": "_falff.nii.gz", "net": "_net.nii.gz"}

    def with_paths(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: "cpac/" + table["FILE_ID"] + end for name, end in columns.items()})

    labs.edit(folder / "Phenotypic.csv", with_paths)
    by_column = "--mapColumn falff,net"
    assert dry(folder, to, by_column) == "falff, net_v, net_m, net_d"
    assert dry(folder, to, f"{by_column} --maps f,n") == "f, n_v, n_m, n_d"


@pytest.mark.slow
def test_all_takes_what_everybody_has_and_says_so(source, tmp_path):
    folder = labs.copy(source, tmp_path / "lab")
    for path in sorted(folder.rglob("*_net.nii.gz")):
        path.rename(path.with_name(path.name.replace("_net", "_dual_regression")))
    for path in folder.rglob("*_falff.nii.gz"):
        shutil.copy(path, path.with_name(path.name.replace("_falff", "_reho")))
    (folder / "cpac/X_0050003_reho.nii.gz").unlink()
    (folder / "cpac/X_0050004_falff.nii.gz").unlink()
    for path in folder.rglob("*50006_*"):  # who has no map keeps nobody from theirs
        path.unlink()
    told = done(f"{REDUCED} --maps all --exclude 50004", source=folder, to=tmp_path / "to")
    assert "without reho, which 1 of 6 participants lack, 50003" in told
    said = json.loads((tmp_path / "to/cohort.json").read_text())
    assert said["maps"] == ["falff", *(f"dual_regression_{number}" for number in range(3))]
    assert said["provenance"]["left_out"]["no map"] == ["50006"] and len(read_table(tmp_path / "to/subjects.csv")) == 6
    done(f"{REDUCED} --maps reho,falff", source=folder, to=tmp_path / "two")
    left_out = json.loads((tmp_path / "two/cohort.json").read_text())["provenance"]["left_out"]
    assert (left_out["no map reho"], left_out["no map falff"]) == (["50003"], ["50004"])


@pytest.mark.parametrize("number", [0, 2])
def test_values_that_are_not_those_compressed_are_refused(number, source, tmp_path):
    """Whichever volume is read, the end of the file tells."""
    folder = labs.copy(source, tmp_path / "lab")
    path = folder / "cpac/X_0050002_net.nii.gz"
    whole = path.read_bytes()
    damaged = bytearray(gzip.decompress(whole))
    damaged[-100] ^= 1  # in the last volume
    for content in (whole[:-6], gzip.compress(bytes(damaged))[:-8] + whole[-8:]):
        labs.edit(path, content)
        command = f"{REDUCED} --maps net_{number}"
        refused(command, "X_0050002_net.nii.gz is not a readable NIfTI map", source=folder, to=tmp_path / "to")


# Cohorts


@pytest.mark.slow
def test_other_forms_and_exports_hold_the_same_maps(together, tmp_path):
    done("abide-data pack {of} {to} --zip", of=together, to=tmp_path / "zip")
    done("abide-data pack {of} {to} --bin", of=tmp_path / "zip", to=tmp_path / "again")
    for name in ("subjects.csv", "phenotype.csv", "covariates.csv", "maps.csv", *RECORDS):
        assert (tmp_path / "again" / name).read_bytes() == (together / name).read_bytes(), name
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in RECORDS:
        shutil.copy(together / name, bare)
    volumes = read_record(together / RECORDS[0], 4)[2]
    for cohort, name in ((tmp_path / "zip", "net_1"), (bare, "3")):
        done(f"abide-data export {{of}} 50002 {{to}} --map {name}", of=cohort, to=tmp_path / f"{name}.nii")
        assert (nibabel.load(tmp_path / f"{name}.nii").get_fdata(dtype=np.float32) == volumes[2]).all()
    refused("abide-data export {of} 50002 {to}", "--map", "falff, net_0", of=together, to=tmp_path / "x.nii")
    refused("abide-data export {of} 50002 {to} --map reho", "no map reho", "falff", of=together, to=tmp_path / "x.nii")
    labs.edit(bare / RECORDS[1], labs.record(1))
    refused("abide-data pack {of} {to} --zip", "31x37x31 record of 4 maps", "one grid", of=bare, to=tmp_path / "x")


@pytest.mark.slow
def test_a_region_is_swapped_in_all_maps_at_once(converted, tmp_path):
    told = done("abide-data swap {of} {to} --copies 1 --regions 1", of=converted, to=tmp_path / "out")
    assert "are left out" in told and not (tmp_path / "out/connectomes.h5").exists()
    told = done("abide-data check {of}", of=tmp_path / "out")
    assert "maps falff, alff" in told
    rows = read_table(converted / "subjects.csv")
    every = {name: read_record(converted / name, 2)[2] for name in rows["file"][rows["split"] == "train"]}
    new = [name for name in read_table(tmp_path / "out/subjects.csv")["file"] if "_swap_" in name]
    assert len(new) == len(every)
    for name in new[:6]:
        volumes, base = read_record(tmp_path / "out" / name, 2)[2], every[name.replace("_swap_0", "")]
        changed = volumes != base
        inside = changed.any(0)
        assert 10 < inside.sum() < 0.1 * inside.size and (changed[0] == changed[1]).mean() > 0.99
        givers = [of for of, other in every.items() if (other[:, inside] == volumes[:, inside]).all()]
        assert len(givers) == 1


def people_of(folder: Path) -> pd.DataFrame:
    return read_table(folder / "subjects.csv")[["file", "subject", "site", "label", "split"]]


@pytest.mark.slow
def test_check_looks_at_each_map(tmp_path):
    """Two people share the second of two maps, and are kept apart as the user says."""
    folder = labs.pcp(tmp_path / "lab", labs.people(20), ("falff", "alff"))
    done(f"{REDUCED} --maps all", source=folder, to=tmp_path / "before")
    rows = read_table(tmp_path / "before/subjects.csv")
    first, other = (rows["subject"][rows["split"] == split].iloc[0] for split in ("train", "test"))
    shutil.copy(folder / f"cpac/X_00{first}_alff.nii.gz", folder / f"cpac/X_00{other}_alff.nii.gz")
    outcome = run(f"{REDUCED} --maps all --keepDuplicates", source=folder, to=tmp_path / "cohort")
    assert outcome.status == 1 and people_of(tmp_path / "cohort").equals(people_of(tmp_path / "before"))
    outcome = run("abide-data check {of}", of=tmp_path / "cohort")
    assert outcome.status == 1
    (line,) = [line for line in outcome.out.splitlines() if "PROBLEM       one scan under several IDs" in line]
    assert f"{first} (train)" in line and f"{other} (test)" in line and "one scan in train and test" in line


@pytest.mark.slow
def test_an_autoencoder_codes_each_map_by_itself(tmp_path):
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
    for name in RECORDS[:4]:
        one, other = read_record(tmp_path / "codes" / name, 2)[2]
        assert (one == other).all() and one.std() > 0
