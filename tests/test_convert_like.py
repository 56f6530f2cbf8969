"""convert --like: new people have the records that they would have as test subjects, and nothing is learnt of them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import done, run
from lab import read_record, read_table

PEOPLE, MAPS = labs.people(40), ("falff", "alff")
LIKE = "abide-data convert {new} {to} --like {of}"
MAP_BY_COLUMN = {"file": "falff"}
PREPARED = ("maps", "normalisation", "reduction", "phenotype", "phenotype_median", "phenotype_mean", "phenotype_scale")
LEARNT = (
    "duplicates",
    "phenotype_columns",
    "phenotype_categories",
    "covariate_columns",
    "connectome",
    "parcels_sha256",
    "grid",
)


def write(folder: Path, table: pd.DataFrame, change: Callable = lambda table: table) -> Path:
    """People with two maps and series; the table is changed afterwards."""
    labs.pcp(folder, table, MAPS, series=True)
    labs.edit(folder / "Phenotypic.csv", change)
    return folder


def cohort_json(cohort: Path) -> dict:
    return json.loads((cohort / "cohort.json").read_text())


def read_edges(cohort: Path) -> dict[str, np.ndarray]:
    """The connectome of each person."""
    with h5py.File(cohort / "connectomes.h5") as file:
        names = [name.decode() for name in file["subject"]]
        return dict(zip(names, file["z"][:], strict=True))


@pytest.fixture(scope="module")
def tested(converted) -> pd.DataFrame:
    """The rows of the test people of the laboratory's cohort."""
    rows = read_table(converted / "subjects.csv")
    return PEOPLE[PEOPLE["SUB_ID"].isin(rows["subject"][rows["split"] == "test"])]


@pytest.mark.slow
def test_people_set_aside_get_the_same_records(converted, tested, tmp_path):
    done(LIKE, new=write(tmp_path / "new", tested), of=converted, to=tmp_path / "to")
    rows = read_table(tmp_path / "to/subjects.csv")
    assert rows["subject"].tolist() == tested["SUB_ID"].tolist() and len(rows) == 4
    for name in rows["file"]:
        assert (tmp_path / "to" / name).read_bytes() == (converted / name).read_bytes()
    for name in ("subjects.csv", "covariates.csv", "phenotype.csv", "maps.csv", "series.csv"):
        full_table = read_table(converted / name)
        expected_table = full_table[full_table["subject"].isin(rows["subject"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(read_table(tmp_path / "to" / name), expected_table)
    edges_by_subject, before = read_edges(tmp_path / "to"), read_edges(converted)
    assert [*edges_by_subject] == [*rows["subject"]] and all(
        (edges_by_subject[name] == before[name]).all() for name in edges_by_subject
    )
    metadata, template_metadata = cohort_json(tmp_path / "to"), cohort_json(converted)
    assert (
        all(metadata.get(name) == template_metadata.get(name) for name in (*PREPARED, *LEARNT))
        and "phenotype_auc" not in metadata
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no column", "no value"])
def test_without_labels_only_the_label_bytes_differ(how, converted, tested, tmp_path):
    changes = {
        "no column": lambda table: table.drop(columns="DX_GROUP"),
        "no value": lambda table: table.assign(DX_GROUP=""),
    }
    convert_output = done(LIKE, new=write(tmp_path / "new", tested, changes[how]), of=converted, to=tmp_path / "to")
    assert "4 of unknown diagnosis are kept" in convert_output
    rows = read_table(tmp_path / "to/subjects.csv")
    assert {*rows["label"]} == {""} and {*rows["split"]} == {"test"}
    for name in rows["file"]:
        content = (tmp_path / "to" / name).read_bytes()
        assert content[4:] == (converted / name).read_bytes()[4:] and np.isnan(np.frombuffer(content, "<f4")[0])
    outcome = run("abide-data check {to}", to=tmp_path / "to")
    assert (outcome.status, outcome.err) == (0, "") and "0 control, 0 autism, 4 unknown" in outcome.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "values, words, expected",
    [
        (["", "2", "2", "2"], "", ["", "0", "0", "0"]),  # ABIDE's own
        (["ASD", "TD", "ADHD", ""], "--labelColumn dx --positive ASD --negative TD", ["1", "0", ""]),
        (["ASD", "ASD", "ASD", ""], "--labelColumn dx --positive ASD", ["1", "1", "1", ""]),
    ],
)
def test_labels_may_be_partial_and_single_class(values, words, expected, converted, tested, tmp_path):
    name = "dx" if words else "DX_GROUP"
    new = write(tmp_path / "new", tested, lambda table: table.drop(columns="DX_GROUP").assign(**{name: values}))
    done(f"{LIKE} {words}", new=new, of=converted, to=tmp_path / "to")
    assert read_table(tmp_path / "to/subjects.csv")["label"].tolist() == expected


@pytest.mark.slow
def test_training_people_are_left_out_as_the_refusal_says(lab, converted, tested, tmp_path):
    places = {"new": lab, "of": converted, "to": tmp_path / "to"}
    outcome = run(LIKE, **places)
    assert outcome.status == 2 and not (tmp_path / "to").exists()
    assert f"36 of {lab}/Phenotypic.csv are training participants of {converted}" in outcome.err
    done(f"{LIKE} --exclude {outcome.err.split('--exclude ')[1].strip()}", **places)
    assert read_table(tmp_path / "to/subjects.csv")["subject"].tolist() == tested["SUB_ID"].tolist()


@pytest.mark.slow
def test_an_unknown_map_kind_is_reported(converted, tested, tmp_path):
    script = labs.copy(converted, tmp_path / "script")
    for name in ("maps.csv", "SHA256SUMS"):
        labs.edit(script / name, "gone")
    done("abide-data pack {of} {to} --bin", of=script, to=tmp_path / "cohort")
    convert_output = done(LIKE, new=write(tmp_path / "new", tested), of=tmp_path / "cohort", to=tmp_path / "to")
    assert "it has no maps.csv" in convert_output
    for subject in tested["SUB_ID"]:
        assert (tmp_path / f"to/{subject}.bin").read_bytes() == (converted / f"{subject}.bin").read_bytes()


# Columns of the user's own, by a cohort and by a bundle


def by_columns(folder: Path, columns: dict[str, str] = MAP_BY_COLUMN, **renamed: str) -> Path:
    """A folder whose maps have names that only columns of its table tell."""

    def with_paths(table: pd.DataFrame) -> pd.DataFrame:
        for column, name in columns.items():
            paths = [folder / f"cpac/{file_id}_{name}.nii.gz" for file_id in table["FILE_ID"]]
            moved = [path.rename(folder / f"{column}{7 * number}.nii.gz").name for number, path in enumerate(paths)]
            table = table.assign(**{column: moved})
        return table.drop(columns="FILE_ID").rename(columns=renamed)

    labs.edit(folder / "Phenotypic.csv", with_paths)
    return folder


@pytest.fixture(scope="module")
def user_column_folder(tmp_path_factory) -> Path:
    """A folder with `cohort`, whose site is the hand, all to be trained on, and `model.zip` of a network of them."""
    folder = tmp_path_factory.mktemp("own")
    by_columns(labs.pcp(folder / "lab", PEOPLE))
    columns = "--phenotype AGE_AT_SCAN,hand,iq --covariates hand,func_mean_fd --siteColumn hand --mapColumn file"
    done(f"abide-data convert {{to}}/lab {{to}}/split --grid reduced {columns}", to=folder)
    (folder / "tables").mkdir()
    read_table(folder / "split/subjects.csv").assign(split="train").to_csv(folder / "tables/subjects.csv", index=False)
    done("abide-data pack {to}/split {to}/cohort --tables {to}/tables", to=folder)
    words = "--model nn --numIters 1 --set members=1 --set batch_size=8 --dataDir {to}/cohort --chkPointDir {to}/ckpt"
    done(f"run.py --train --everybody {words} --outDir {{to}}/out", to=folder)
    done("abide-bundle {to}/ckpt/nn/everybody {to}/model.zip", to=folder)
    return folder


def set_unusual_values(table: pd.DataFrame) -> pd.DataFrame:
    """One without an age, one with a hand that nobody had, others whom nothing may be learnt of; without motion."""
    unusual_columns = {
        "AGE_AT_SCAN": ["", "61", "61", *table["AGE_AT_SCAN"][3:]],
        "hand": ["foot", "left", *table["hand"][2:]],
    }
    return table.assign(**unusual_columns).drop(columns="func_mean_fd")


@pytest.mark.slow
def test_new_people_are_imputed_scaled_and_coded_as_the_cohort(user_column_folder, tmp_path):
    new = labs.pcp(tmp_path / "new", labs.people(6, 70002))
    labs.edit(new / "Phenotypic.csv", set_unusual_values)
    convert_output = done(LIKE, new=new, of=user_column_folder / "cohort", to=tmp_path / "to")
    assert "hand foot is none of both, left, right, and taken as unknown" in convert_output
    assert "lacks are empty: func_mean_fd" in convert_output
    metadata, table = cohort_json(user_column_folder / "cohort"), read_table(new / "Phenotypic.csv")
    age, iq = (pd.to_numeric(table[name]) for name in ("AGE_AT_SCAN", "iq"))
    hands = {f"hand_{hand}": table["hand"] == hand for hand in ("both", "left", "right")}
    raw = pd.DataFrame({"AGE_AT_SCAN": age, **hands, "iq": iq, "iq_missing": iq.isna()}).astype(float)
    assert metadata["phenotype"][:6] == [*raw] and raw["AGE_AT_SCAN"].isna().any() and raw["iq"].isna().any()
    median, mean, scale = (np.array(metadata[f"phenotype_{name}"])[:6] for name in ("median", "mean", "scale"))
    stored_phenotypes = np.array([read_record(tmp_path / f"to/{name}.bin")[1] for name in table["SUB_ID"]])
    np.testing.assert_allclose(
        stored_phenotypes[:, :6], (raw.fillna(dict(zip(raw, median, strict=True))) - mean) / scale, rtol=1e-5
    )
    assert (stored_phenotypes[:, 6:] == 0).all()
    covariates = read_table(tmp_path / "to/covariates.csv")
    assert covariates["hand"].equals(table["hand"]) and {*covariates["func_mean_fd"]} == {""}
    assert read_table(tmp_path / "to/subjects.csv")["site"].equals(table["hand"].rename("site"))


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files but for what tells which command wrote them."""
    bytes_by_name = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "SHA256SUMS"}
    metadata, checked = (json.loads(bytes_by_name.pop(name)) for name in ("cohort.json", "check.json"))
    for name in ("converted_by", "like"):
        assert metadata["provenance"].pop(name)
    for name in ("cohort_sha256", "when"):
        assert checked.pop(name)
    return bytes_by_name | {"cohort.json": json.dumps(metadata).encode(), "check.json": json.dumps(checked).encode()}


@pytest.mark.slow
@pytest.mark.bits
def test_a_bundle_gives_the_cohorts_bytes(user_column_folder, tmp_path):
    """Which need not be there; whether somebody trained the network cannot be told then, and that is said."""
    new = labs.pcp(tmp_path / "new", pd.concat([labs.people(6, 70002), PEOPLE.iloc[:1]]))
    labs.edit(new / "Phenotypic.csv", set_unusual_values)
    bundle = shutil.copy(user_column_folder / "model.zip", tmp_path / "moved.zip")
    exclude = "--exclude 50002"
    printed = [
        done(f"{LIKE} {exclude}", new=new, of=template, to=tmp_path / to)
        for template, to in ((user_column_folder / "cohort", "a"), (bundle, "b"))
    ]
    files_by_cohort, files_by_bundle = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert files_by_cohort.keys() == files_by_bundle.keys() and not [
        file for file in files_by_cohort if files_by_cohort[file] != files_by_bundle[file]
    ]
    note = rf"Whether .* {re.escape(str(bundle))} cannot be checked"
    assert [bool(re.search(note, text)) for text in printed] == [False, True]
    done(LIKE, new=new, of=bundle, to=tmp_path / "c")
    assert len(read_table(tmp_path / "c/subjects.csv")) == 7


@pytest.mark.slow
@pytest.mark.parametrize("template_name", ["cohort", "model.zip"])
def test_the_map_column_is_remembered(template_name, user_column_folder, tmp_path):
    column_folder, plain_folder = (labs.pcp(tmp_path / name, labs.people(3, 70002)) for name in ("named", "found"))
    convert_output = done(
        LIKE, new=by_columns(column_folder), of=user_column_folder / template_name, to=tmp_path / "by-column"
    )
    assert "maps that the column file names" in convert_output
    done(
        LIKE, new=plain_folder, of=user_column_folder / template_name, to=tmp_path / "by-name"
    )  # a table without that column
    for name in ("70002.bin", "70003.bin", "70004.bin"):
        assert (tmp_path / "by-column" / name).read_bytes() == (tmp_path / "by-name" / name).read_bytes()


@pytest.mark.slow
def test_id_and_4d_map_columns_are_remembered(tmp_path):
    columns = {"networks": "net", "file": "falff"}
    for name, table in {"old": labs.people(8), "new": labs.people(4, 70002)}.items():
        labs.write_network_maps(tmp_path / name, table)
        by_columns(tmp_path / name, columns, SUB_ID="code", DX_GROUP="dx")
    how = "--mapColumn networks,file --maps net,falff --idColumn code --labelColumn dx --positive 1 --phenotype ''"
    done(f"abide-data convert {{to}}/old {{to}}/cohort --grid reduced {how}", to=tmp_path)
    done("abide-data convert {to}/new {to}/like --like {to}/cohort", to=tmp_path)
    assert cohort_json(tmp_path / "like")["maps"] == ["net_0", "net_1", "net_2", "falff"]
    assert read_table(tmp_path / "like/subjects.csv")["subject"].tolist() == [f"7000{number}" for number in range(2, 6)]


@pytest.mark.slow
def test_an_everybody_bundle_scales_as_for_everybody(converted, newcomers, tmp_path):
    """By the table of raw values; volumes, connectomes and where parcels lie are as the cohort gives them."""
    places = {"new": newcomers.parent / "lab", "of": converted, "to": tmp_path / "to"}
    done(LIKE, **places)
    names = read_table(newcomers / "subjects.csv")["file"]
    raw, new = (
        read_table(folder / "phenotype.csv").set_index("subject").apply(pd.to_numeric)
        for folder in (converted, newcomers)
    )
    median = raw.median().fillna(0)
    mean, spread = raw.fillna(median).mean(), raw.fillna(median).std(ddof=0)
    expected = (new.fillna(median) - mean) / spread.where(spread > 0, 1)
    stored_phenotypes = pd.DataFrame([read_record(newcomers / name, 2)[1] for name in names], new.index, new.columns)
    varied = spread > 0
    np.testing.assert_allclose(stored_phenotypes.loc[:, varied], expected.loc[:, varied], atol=1e-5)
    assert (stored_phenotypes.loc[:, ~varied] == 0).all(axis=None)
    for name in names:
        assert (read_record(newcomers / name, 2)[2] == read_record(tmp_path / "to" / name, 2)[2]).all()
    new_edges, template_edges = read_edges(newcomers), read_edges(tmp_path / "to")
    assert len(new_edges) == 12 and all((new_edges[name] == template_edges[name]).all() for name in new_edges)
    with h5py.File(newcomers / "connectomes.h5") as first, h5py.File(converted / "connectomes.h5") as second:
        assert (first["image"][:] == second["image"][:]).all()


# New people beside those of the cohort


def find_problems(new: Path, to: Path, template: Path) -> list[str]:
    """What convert --like tells to be a problem of new people, and so does a check of a packed copy."""
    outcome = run(LIKE, new=new, of=template, to=to)
    problem_lines = re.findall(r"^PROBLEM +(.*)$", outcome.out, re.MULTILINE)
    assert (outcome.status, outcome.err) == (1 if problem_lines else 0, "")
    done("abide-data pack {to} {to}-packed --zip", to=to)
    checked = run("abide-data check {to}-packed", to=to)
    assert checked.status == outcome.status and all(text in checked.out for text in problem_lines)
    return problem_lines


def make_lopsided(folder: Path, mirrored: int = 0) -> Path:
    """A folder in which the left of all maps is brighter than the right; the maps of the first people are mirrored."""
    for person_index, path in enumerate(sorted(folder.rglob("*_falff.nii.gz"))):
        step = -1 if person_index < mirrored else 1
        labs.edit(
            path, lambda values, affine, step=step: ((values * np.linspace(1, 0.4, 8)[:, None, None])[::step], affine)
        )
    return folder


@pytest.fixture(scope="module")
def lopsided_cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lopsided")
    make_lopsided(labs.pcp(folder / "lab", labs.people(12)))
    done("abide-data convert {to}/lab {to}/cohort --grid reduced", to=folder)
    return folder / "cohort"


@pytest.mark.slow
@pytest.mark.parametrize("people, mirrored", [(6, 6), (6, 3), (1, 1), (6, 0)])
def test_mirrored_maps_are_reported_although_more_new_maps_are_mirrored(people, mirrored, lopsided_cohort, tmp_path):
    new = make_lopsided(labs.pcp(tmp_path / "new", labs.people(people, 70002)), mirrored)
    names = ", ".join(f"{number}.bin" for number in range(70002, 70002 + mirrored))
    problem_lines = find_problems(new, tmp_path / "to", lopsided_cohort)
    assert len(problem_lines) == bool(mirrored) and all(
        f"exchanged in {names}; check" in text for text in problem_lines
    )


@pytest.mark.slow
@pytest.mark.parametrize("factor", [12, 1 / 12])
def test_numbers_in_another_unit_are_reported(factor, converted, tmp_path):
    ages = labs.people(6, 70002)["AGE_AT_SCAN"].astype(float) * factor
    new = write(tmp_path / "new", labs.people(6, 70002), lambda table: table.assign(AGE_AT_SCAN=ages))
    (problem,) = find_problems(new, tmp_path / "to", converted)
    assert problem.startswith(f"age has the median {ages.median():.3g}") and "another unit" in problem


@pytest.mark.slow
def test_with_too_few_training_people_nobody_is_compared(effort, lopsided_cohort, tmp_path):
    effort(describe_from=20)
    new = make_lopsided(labs.pcp(tmp_path / "new", labs.people(2, 70002)))
    convert_output = done(LIKE, new=new, of=lopsided_cohort, to=tmp_path / "to")
    assert "Nobody is compared with the training participants" in convert_output and "expected 20" in convert_output


@pytest.mark.slow
def test_new_people_have_the_maps_and_volumes_as_in_the_cohort(tmp_path):
    labs.write_network_maps(tmp_path / "lab", labs.people(8))
    done("abide-data convert {to}/lab {to}/cohort --grid reduced --maps net,falff", to=tmp_path)
    labs.write_network_maps(tmp_path / "new", labs.people(4, 70002))
    done("abide-data convert {to}/new {to}/like --like {to}/cohort", to=tmp_path)
    assert cohort_json(tmp_path / "like")["maps"] == ["net_0", "net_1", "net_2", "falff"]
    done("abide-data convert {to}/new {to}/alone --grid reduced --maps net,falff --phenotype ''", to=tmp_path)
    for name in ("70002.bin", "70003.bin"):
        template_volumes, alone_volumes = (
            read_record(tmp_path / cohort_name / name, 4)[2] for cohort_name in ("like", "alone")
        )
        assert (template_volumes == alone_volumes).all()


@pytest.mark.slow
def test_single_class_people_are_labelled_by_the_options(converted, tmp_path):
    """As the refusal that they get without --negative advises, see tests/refusals/convert.py."""
    new = write(tmp_path / "new", labs.people(4, 70002), lambda table: table.assign(dx="TD"))
    words = "--labelColumn dx --positive ASD --negative TD"
    done(f"{LIKE} {words}", new=new, of=converted, to=tmp_path / "to")
    assert {*read_table(tmp_path / "to/subjects.csv")["label"]} == {"0"}
