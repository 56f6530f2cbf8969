"""What measures or copies the diagnosis never becomes phenotype unasked; who is tested; whose row a map has."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, run

pytestmark = pytest.mark.slow

CONVERT = "abide-data convert {of}/lab {to} --grid reduced"
OF_ANY = f"{CONVERT} --labelColumn DX_GROUP --positive 1"


def write_people_with(folder: Path, count: int = 40, **columns: Any) -> pd.DataFrame:
    """A lab in a folder whose table has more columns, functions of a person's place and label; the table."""
    table = lab.people(count)
    label = (table["DX_GROUP"] == "1").astype(int)
    for name, make_value in columns.items():
        table[name] = [str(make_value(place, label[place])) for place in range(count)]
    lab.pcp(folder / "lab", table)
    return table.set_index("SUB_ID")


def auc(value: pd.Series, label: pd.Series) -> float:
    """The share of pairs (autism, control) that the value puts in order, ties half, in the better direction."""
    autism, control = (value[label == label_value].to_numpy(float) for label_value in ("1", "0"))
    pairs = autism[:, None] - control
    area = ((pairs > 0).sum() + 0.5 * (pairs == 0).sum()) / pairs.size
    return max(area, 1 - area)


def test_a_label_separating_column_is_refused_with_the_auc_unless_allowed(tmp_path):
    """The AUC by counting pairs among training people; then it is a problem of the cohort."""
    table = write_people_with(tmp_path, GROUP2=lambda place, label: label * 6 + place * 13 % 8)
    command = f"{OF_ANY} --phenotype GROUP2,AGE_AT_SCAN"
    refused = run(command, of=tmp_path, to=tmp_path / "out")
    convert_output = done(f"{command} --allowLeak", of=tmp_path, to=tmp_path / "out")
    rows = lab.read_table(tmp_path / "out/subjects.csv").set_index("subject")
    training = rows.index[rows["split"] == "train"]
    expected = auc(table.loc[training, "GROUP2"], rows.loc[training, "label"])
    assert 0.85 < expected < 1 and refused.status == 2 and f"GROUP2 (AUC {expected:.2f})" in refused.err
    metadata = json.loads((tmp_path / "out/cohort.json").read_text())
    assert metadata["phenotype_auc"]["GROUP2"] == pytest.approx(expected)
    assert re.search(rf"PROBLEM       accepted by .*--allowLeak.*: GROUP2 \(AUC {expected:.2f}\)", convert_output)


def test_missingness_alone_leaks(tmp_path):
    """ADOS is given to people with autism, and no leak unless it is asked for."""
    score_column: dict[str, Any] = {"score": lambda place, label: place * 7 % 11 if label or place < 4 else -9999}
    table = write_people_with(
        tmp_path, **score_column, ADOS_MODULE=lambda place, label: 1 + place % 4 if label and place > 2 else -9999
    )
    outcome = run(f"{OF_ANY} --phenotype score", of=tmp_path, to=tmp_path / "out")
    auc_match = re.search(r"score(?:_missing)? \(AUC (0\.\d\d)\)", outcome.err)
    assert outcome.status == 2 and 0.9 < float(auc_match[1]) < 1
    done(f"{OF_ANY} --phenotype score --allowLeak", of=tmp_path, to=tmp_path / "allowed")
    rows = lab.read_table(tmp_path / "allowed/subjects.csv").set_index("subject")
    label = rows["label"][rows["split"] == "train"]
    value = table.loc[label.index, "score"].astype(float).replace(-9999, np.nan)
    is_measured = value.notna()
    views = [
        auc(is_measured, label),
        auc(value.fillna(value.median()), label),
        auc(value[is_measured], label[is_measured]),
    ]
    metadata = json.loads((tmp_path / "allowed/cohort.json").read_text())
    assert max(metadata["phenotype_auc"].values()) == pytest.approx(max(views))
    done(f"{OF_ANY} --phenotype AGE_AT_SCAN", of=tmp_path, to=tmp_path / "out")


MEASURES = "ADOS_TOTAL ados2_css ADOS-2 adosTotal ADIR_verbal adi SRS2_T SCQ_TOTAL aq10 VINELAND3 vabs DSM5_severity"
MEASURES += " PDD_DSM_IV_TR CURRENT_MED_STATUS medication comorbidities NONASD_PSYDX_LABEL OFF_STIMULANTS_AT_SCAN dx"
MEASURING_COLUMNS = [*MEASURES.split(), "DX_GROUP2", "clinical_diagnosis"]
OTHERS = ["aqua", "median_motion", "radius", "adiposity", "media", "index", "dsmall", "MADE"]


def test_columns_measuring_the_diagnosis_are_recognised_by_name(tmp_path):
    places = {"of": tmp_path, "to": tmp_path / "out"}
    write_people_with(tmp_path, 12, **dict.fromkeys([*MEASURING_COLUMNS, *OTHERS], lambda place, _: place * 7 % 11))
    for name in MEASURING_COLUMNS:
        outcome = run(f"{OF_ANY} --phenotype {name} --dryRun", **places)
        assert outcome.status == 2 and f"--phenotype {name} measures or follows from" in outcome.err, name
    done(f"{OF_ANY} --phenotype {','.join(OTHERS)} --dryRun", **places)


NOTHING = {
    "comments": (lambda place, _: f"moved, see note {place}", "text, 40 of whose 40 values one participant alone has"),
    "remarks": (
        lambda place, _: "ok" if place < 28 else f"see {place}",
        "text, 12 of whose 13 values one participant alone has",
    ),
    "visit": (lambda place, _: f"{place % 28 + 1:02}.03.2011" if place else "", "dates"),  # which looks like a number
    "day": (lambda place, _: f"201103{place % 28 + 1:02}", "dates"),
    "acquired": (lambda place, _: f"{place % 28 + 1:02} May 2011 10:3{place % 10}", "dates"),
    "protocol": (lambda place, _: "A" if place % 5 else "", "one value, A"),
    "weight": (lambda place, _: "-9999", "no value"),
    "number": (lambda place, _: place * 3 + 7, "IDs, or numbers that count participants"),
    "person": (lambda place, _: f"sub-0{50002 + place}", "IDs, or numbers that count participants"),
}
SOMETHING: dict[str, Any] = {
    "ability": lambda place, _: 80 + place * 7 % 37,
    "volume": lambda place, _: 1_100_000 + place * 79_199 % 400_000,  # in mm3, of which no two are equal
    "year": lambda place, _: 2008 + place % 5,
    "scanner": lambda place, _: ("Prisma", "Trio", "Trio", "Skyra")[place // 2 % 4],
    "test": lambda place, _: ("WASI", "WISC", "WAIS")[place % 3] if place > 3 else f"rare {place}",
    "known": lambda place, _: "" if place % 3 else place // 6 % 2,
}


def test_uninformative_columns_are_listed_and_measurements_are_not(tmp_path):
    uninformative_columns: dict[str, Any] = {name: make_value for name, (make_value, _) in NOTHING.items()}
    write_people_with(tmp_path, **uninformative_columns, **SOMETHING)
    requested_columns = ",".join(
        [*NOTHING, *SOMETHING, "AGE_AT_SCAN", "FIQ", "SEX", "EYE_STATUS_AT_SCAN", "func_mean_fd"]
    )
    for option in (f"--phenotype {requested_columns}", f"--phenotype AGE_AT_SCAN --covariates {requested_columns}"):
        outcome = run(f"{OF_ANY} {option} --dryRun", of=tmp_path, to=tmp_path / "out")
        groups = re.findall(r"((?:\w+, )*\w+) \(([^()]+)\)", outcome.err)
        reason_by_column = {name: reason for names, reason in groups for name in names.split(", ")}
        assert outcome.status == 2 and reason_by_column.keys() == NOTHING.keys(), outcome.err
        assert all(reason_by_column[name].startswith(words) for name, (_, words) in NOTHING.items())


CODINGS = {
    "units": ("age has the median", lambda place, _: f"{(12 if place % 3 == 2 else 1) * (8 + place * 7 % 27)}.5"),
    "two codings": ("holds", lambda place, _: ("M", "F", "1", "2")[place // 3 % 4]),
    "spelling": (
        "Male and male, which differ in spelling",
        lambda place, _: ("Male", "male", "female")[place // 3 % 3],
    ),
    "none": ("", lambda place, _: f"{8 + place * 7 % 27 * (3 if place % 3 == 2 else 1)}.5"),
    "sites": ("", lambda place, _: ("NYU", "USM", "UCLA_1", "UCLA_2")[place // 3 % 4]),
}


@pytest.mark.parametrize("case", CODINGS)
def test_ages_in_months_in_a_single_site_and_two_codings_are_reported(case, tmp_path):
    words, make_value = CODINGS[case]
    write_people_with(tmp_path, age=make_value)
    dry_output = run(f"{OF_ANY} --phenotype age,iq --dryRun", of=tmp_path, to=tmp_path / "out").out
    assert (words in dry_output) if words else not re.search("median .* at |codings|spelling", dry_output), dry_output


# Who is tested


def split_by_subject(folder: Path) -> dict[str, str]:
    return lab.read_table(folder / "subjects.csv").set_index("subject")["split"].to_dict()


def people_tested(folder: Path) -> set[str]:
    return {subject for subject, split in split_by_subject(folder).items() if split == "test"}


@pytest.mark.parametrize("count", [10, 41])
def test_a_tenth_is_tested_in_proportion_in_any_order_and_few_people_move(count, tmp_path):
    """Leaving anybody out changes at most two others; the seed decides; of each label and site a tenth is tested."""
    sites = {"SITE_ID": lambda place, _: f"S{place}" if place % 2 else "NYU"}  # of one person, and of half of all
    table = write_people_with(tmp_path, count, **sites).reset_index()
    done(CONVERT, of=tmp_path, to=tmp_path / "out")
    before = people_tested(tmp_path / "out")
    chosen = table["SUB_ID"].isin(before)
    for columns in (["DX_GROUP"], ["DX_GROUP", "SITE_ID"]):
        for _, stratum in table.groupby(columns):
            assert abs(chosen[stratum.index].sum() - len(stratum) / 10) <= 1
    assert abs(chosen.sum() - count / 10) <= 1 and set(table["DX_GROUP"][chosen]) == {"1", "2"}
    lab.edit(tmp_path / "lab/Phenotypic.csv", lambda rows: rows[::-1])
    done(CONVERT, of=tmp_path, to=tmp_path / "reversed")
    assert split_by_subject(tmp_path / "reversed") == split_by_subject(tmp_path / "out")
    for left in [*sorted(before)[:2], table["SUB_ID"][5]]:
        done(f"{CONVERT} --exclude {left}", of=tmp_path, to=tmp_path / f"without-{left}")
        assert len(before - {left} ^ people_tested(tmp_path / f"without-{left}")) <= 2
    for seed in (1, 2):
        done(f"{CONVERT} --seed {seed}", of=tmp_path, to=tmp_path / f"{seed}")
    tested = [before, *(people_tested(tmp_path / f"{seed}") for seed in (1, 2))]
    assert any(tested_people != before for tested_people in tested)
    large = {*table["SUB_ID"][table["SITE_ID"] == "NYU"]}
    assert abs(sum(len(tested_people & large) for tested_people in tested) - 3 * len(large) / 10) <= 3


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """A folder with the lab of 40 people, and their cohort `out`, 4 of them test subjects."""
    folder = tmp_path_factory.mktemp("earlier")
    lab.pcp(folder / "lab", lab.people())
    done(CONVERT, of=folder, to=folder / "out")
    return folder


@pytest.mark.parametrize("form", ["bin", "zip", "bare"])
def test_people_in_another_cohort_keep_their_split(form, earlier, tmp_path):
    """27 people of the earlier cohort, and 13 new ones, on whom only the seed decides."""
    reference_cohort = tmp_path / "other"
    if form == "bare":
        shutil.copytree(
            earlier / "out", reference_cohort, ignore=shutil.ignore_patterns("*.csv", "*.json", "SHA256SUMS")
        )
        done("abide-data pack {of} {of}-named --bin", of=reference_cohort)
    else:
        done(f"abide-data pack {{of}}/out {{to}} --{form}", of=earlier, to=reference_cohort)
    before = split_by_subject(tmp_path / "other-named" if form == "bare" else reference_cohort)
    table = lab.people()
    shared_people = table.sort_values("SUB_ID", key=lambda subjects: subjects.map(before))[:27]  # "test" comes first
    lab.pcp(tmp_path / "lab", pd.concat([shared_people, lab.people(13, 60002)]))
    convert_output = done(
        f"{CONVERT} --keepSplit {{other}} --seed 9", of=tmp_path, to=tmp_path / "out", other=reference_cohort
    )
    assert f"27 participants as in {reference_cohort}, 13 others drawn" in convert_output
    after = split_by_subject(tmp_path / "out")
    assert {name: after[name] for name in shared_people["SUB_ID"]} == {
        name: before[name] for name in shared_people["SUB_ID"]
    }
    assert Counter(after.values())["test"] >= 4  # a tenth was there


def test_a_scan_under_another_name_keeps_the_split(earlier, tmp_path):
    """All people again with new IDs and their old maps: those who were tested are those who are tested."""
    before = split_by_subject(earlier / "out")
    lab.pcp(tmp_path / "lab", lab.people(first=60002))
    for map_path in (earlier / "lab/cpac").iterdir():
        shutil.copy(map_path, tmp_path / "lab/cpac" / map_path.name.replace("X_005", "X_006"))
    done(f"{CONVERT} --keepSplit {{other}}", of=tmp_path, to=tmp_path / "out", other=earlier / "out")
    after = split_by_subject(tmp_path / "out")
    assert [after[f"{int(name) + 10000}"] for name in before] == list(before.values())


def test_a_scan_on_both_sides_is_reported(earlier, tmp_path):
    """Two people of one scan, of whom one was tested; --keepDuplicates lets the split part them."""
    before = split_by_subject(earlier / "out")
    test, train = (
        next(name for name, subject_split in before.items() if subject_split == split) for split in ("test", "train")
    )
    shutil.copytree(earlier / "lab", tmp_path / "lab")
    place = "lab/cpac/X_00{}_falff.nii.gz".format
    shutil.copy(tmp_path / place(train), tmp_path / place(test))
    command = f"{CONVERT} --keepSplit {{other}}"
    convert_output = done(command, of=tmp_path, to=tmp_path / "out", other=earlier / "out")
    assert f"not kept: {test}, test participants there, share a scan with training participants" in convert_output
    assert [split_by_subject(tmp_path / "out")[name] for name in (test, train)] == ["train", "train"]
    done(f"{command} --keepDuplicates", of=tmp_path, to=tmp_path / "apart", other=earlier / "out")
    assert [split_by_subject(tmp_path / "apart")[name] for name in (test, train)] == ["test", "train"]


# Whose row a map has


FORMS = ["{}", "{:06}", "sub-{:03}", "{}.0", "P{:03}"]  # of IDs, beside numbers that are no IDs
AGES = np.random.default_rng(0).uniform(8, 12, 30).round(1)
NAMES = ["ID", "subject", "SUB_ID", "participant_id", "Unnamed: 0", "index", "X"]


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    """The maps of 24 people called 1 to 24, in one folder."""
    return lab.flat(tmp_path_factory.mktemp("flat") / "maps", lab.people(24, 1))


def test_ids_without_numbers_stand_beside_a_person_called_zero(flat, tmp_path):
    """Nothing can be shifted where no map has a number, though programs number rows from 0."""
    letters = [f"{letter}{letter}" for letter in "abcdefghijklmnopqrstuvwx"]
    for map_path, name in zip(sorted(flat.glob("*.nii")), letters, strict=True):
        shutil.copy(map_path, tmp_path / f"{name}_falff.nii")
    rows = [{"ID": name, "dx": number % 2, "age": 20 + number % 7} for number, name in enumerate([*letters, "0"])]
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    how = "--grid reduced --labelColumn dx --positive 1 --phenotype age --allowLeak"
    outcome = run(f"abide-data convert {{of}} {{to}} --table {{of}}/table.csv {how}", of=tmp_path, to=tmp_path / "out")
    assert outcome.status < 2, outcome.err
    assert sorted(pd.read_csv(tmp_path / "out/subjects.csv")["subject"]) == letters


@pytest.mark.parametrize("seed", range(20))
def test_shifted_and_permuted_numbers_never_give_a_wrong_row_in_silence(seed, flat, tmp_path):
    """A table in any order, with some rows missing, one column of IDs in any form, and one of numbers that are none."""
    random = np.random.default_rng(seed)
    people = random.permutation(24) + 1 if random.random() < 0.7 else np.arange(24) + 1
    numbers = [np.arange(24) + random.integers(-1, 3), people + random.integers(-3, 4), random.permutation(people)]
    columns = {"code": map(random.choice(FORMS).format, people), random.choice(NAMES): random.choice(numbers)}
    table = pd.DataFrame({name: list(column_values) for name, column_values in columns.items()}, dtype=str)
    table = table.assign(dx=[str(1 + person % 2) for person in people], age=[str(AGES[person]) for person in people])
    table = table.drop(index=random.choice(24, random.integers(3), replace=False))
    table.sample(frac=1, axis=1, random_state=seed).to_csv(tmp_path / "table.csv", index=False)
    how = "--grid reduced --labelColumn dx --positive 1 --phenotype age --allowLeak"
    outcome = run(f"abide-data convert {{of}} {{to}}/out --table {{to}}/table.csv {how}", of=flat, to=tmp_path)
    if outcome.status < 2:
        values = pd.read_csv(tmp_path / "out/phenotype.csv")
        assert values["age"].tolist() == AGES[values["subject"]].tolist()
    else:
        assert "--idColumn" in outcome.err
