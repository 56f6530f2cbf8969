"""What measures or copies the diagnosis never becomes phenotype unasked; who is tested; whose row a map has."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from commands import done, run

pytestmark = pytest.mark.slow

CONVERT = "abide-data convert {of}/lab {to} --grid reduced"
OF_ANY = f"{CONVERT} --labelColumn DX_GROUP --positive 1"


def people_with(folder: Path, count: int = 40, **columns) -> pd.DataFrame:
    """A lab in a folder whose table has more columns, functions of a person's place and label; the table."""
    table = lab.people(count)
    label = (table["DX_GROUP"] == "1").astype(int)
    for name, of in columns.items():
        table[name] = [str(of(at, label[at])) for at in range(count)]
    lab.pcp(folder / "lab", table)
    return table.set_index("SUB_ID")


def auc(value: pd.Series, label: pd.Series) -> float:
    """The share of pairs (autism, control) that the value puts in order, ties half, in the better direction."""
    autism, control = (value[label == of].to_numpy(float) for of in ("1", "0"))
    pairs = autism[:, None] - control
    found = ((pairs > 0).sum() + 0.5 * (pairs == 0).sum()) / pairs.size
    return max(found, 1 - found)


def test_what_separates_the_labels_is_refused_with_its_auc_unless_it_is_allowed(tmp_path):
    """The AUC by counting pairs among training people; then it is a problem of the cohort."""
    table = people_with(tmp_path, GROUP2=lambda at, label: label * 6 + at * 13 % 8)
    command = f"{OF_ANY} --phenotype GROUP2,AGE_AT_SCAN"
    refused = run(command, of=tmp_path, to=tmp_path / "out")
    told = done(f"{command} --allowLeak", of=tmp_path, to=tmp_path / "out")
    rows = lab.read_table(tmp_path / "out/subjects.csv").set_index("subject")
    training = rows.index[rows["split"] == "train"]
    expected = auc(table.loc[training, "GROUP2"], rows.loc[training, "label"])
    assert 0.85 < expected < 1 and refused.status == 2 and f"GROUP2 (AUC {expected:.2f})" in refused.err
    metadata = json.loads((tmp_path / "out/cohort.json").read_text())
    assert metadata["phenotype_auc"]["GROUP2"] == pytest.approx(expected)
    assert re.search(rf"PROBLEM       accepted by .*--allowLeak.*: GROUP2 \(AUC {expected:.2f}\)", told)


def test_missingness_alone_leaks(tmp_path):
    """ADOS is given to people with autism, and no leak unless it is asked for."""
    known = {"score": lambda at, label: at * 7 % 11 if label or at < 4 else -9999}
    table = people_with(tmp_path, **known, ADOS_MODULE=lambda at, label: 1 + at % 4 if label and at > 2 else -9999)
    outcome = run(f"{OF_ANY} --phenotype score", of=tmp_path, to=tmp_path / "out")
    found = re.search(r"score(?:_missing)? \(AUC (0\.\d\d)\)", outcome.err)
    assert outcome.status == 2 and 0.9 < float(found[1]) < 1
    done(f"{OF_ANY} --phenotype score --allowLeak", of=tmp_path, to=tmp_path / "allowed")
    rows = lab.read_table(tmp_path / "allowed/subjects.csv").set_index("subject")
    label = rows["label"][rows["split"] == "train"]
    value = table.loc[label.index, "score"].astype(float).replace(-9999, np.nan)
    known = value.notna()
    views = [auc(known, label), auc(value.fillna(value.median()), label), auc(value[known], label[known])]
    metadata = json.loads((tmp_path / "allowed/cohort.json").read_text())
    assert max(metadata["phenotype_auc"].values()) == pytest.approx(max(views))
    done(f"{OF_ANY} --phenotype AGE_AT_SCAN", of=tmp_path, to=tmp_path / "out")


MEASURES = "ADOS_TOTAL ados2_css ADOS-2 adosTotal ADIR_verbal adi SRS2_T SCQ_TOTAL aq10 VINELAND3 vabs DSM5_severity"
MEASURES += " PDD_DSM_IV_TR CURRENT_MED_STATUS medication comorbidities NONASD_PSYDX_LABEL OFF_STIMULANTS_AT_SCAN dx"
MEASURES = f"{MEASURES} DX_GROUP2 clinical_diagnosis".split()
OTHERS = ["aqua", "median_motion", "radius", "adiposity", "media", "index", "dsmall", "MADE"]


def test_columns_that_measure_the_diagnosis_are_known_by_name(tmp_path):
    places = {"of": tmp_path, "to": tmp_path / "out"}
    people_with(tmp_path, 12, **dict.fromkeys([*MEASURES, *OTHERS], lambda at, _: at * 7 % 11))
    for name in MEASURES:
        outcome = run(f"{OF_ANY} --phenotype {name} --dryRun", **places)
        assert outcome.status == 2 and f"--phenotype {name} measures or follows from" in outcome.err, name
    done(f"{OF_ANY} --phenotype {','.join(OTHERS)} --dryRun", **places)


NOTHING = {
    "comments": (lambda at, _: f"moved, see note {at}", "text, 40 of whose 40 values one participant alone has"),
    "remarks": (
        lambda at, _: "ok" if at < 28 else f"see {at}",
        "text, 12 of whose 13 values one participant alone has",
    ),
    "visit": (lambda at, _: f"{at % 28 + 1:02}.03.2011" if at else "", "dates"),  # which looks like a number
    "day": (lambda at, _: f"201103{at % 28 + 1:02}", "dates"),
    "acquired": (lambda at, _: f"{at % 28 + 1:02} May 2011 10:3{at % 10}", "dates"),
    "protocol": (lambda at, _: "A" if at % 5 else "", "one value, A"),
    "weight": (lambda at, _: "-9999", "no value"),
    "number": (lambda at, _: at * 3 + 7, "IDs, or numbers that count participants"),
    "person": (lambda at, _: f"sub-0{50002 + at}", "IDs, or numbers that count participants"),
}
SOMETHING = {
    "ability": lambda at, _: 80 + at * 7 % 37,
    "volume": lambda at, _: 1_100_000 + at * 79_199 % 400_000,  # in mm3, of which no two are equal
    "year": lambda at, _: 2008 + at % 5,
    "scanner": lambda at, _: ("Prisma", "Trio", "Trio", "Skyra")[at // 2 % 4],
    "test": lambda at, _: ("WASI", "WISC", "WAIS")[at % 3] if at > 3 else f"rare {at}",
    "known": lambda at, _: "" if at % 3 else at // 6 % 2,
}


def test_columns_that_tell_nothing_are_named_and_measurements_are_not(tmp_path):
    people_with(tmp_path, **{name: of for name, (of, _) in NOTHING.items()}, **SOMETHING)
    asked = ",".join([*NOTHING, *SOMETHING, "AGE_AT_SCAN", "FIQ", "SEX", "EYE_STATUS_AT_SCAN", "func_mean_fd"])
    for option in (f"--phenotype {asked}", f"--phenotype AGE_AT_SCAN --covariates {asked}"):
        outcome = run(f"{OF_ANY} {option} --dryRun", of=tmp_path, to=tmp_path / "out")
        groups = re.findall(r"((?:\w+, )*\w+) \(([^()]+)\)", outcome.err)
        found = {name: what for names, what in groups for name in names.split(", ")}
        assert outcome.status == 2 and found.keys() == NOTHING.keys(), outcome.err
        assert all(found[name].startswith(words) for name, (_, words) in NOTHING.items())


CODINGS = {
    "units": ("age has the median", lambda at, _: f"{(12 if at % 3 == 2 else 1) * (8 + at * 7 % 27)}.5"),
    "two codings": ("holds", lambda at, _: ("M", "F", "1", "2")[at // 3 % 4]),
    "spelling": ("Male and male, which differ in spelling", lambda at, _: ("Male", "male", "female")[at // 3 % 3]),
    "none": ("", lambda at, _: f"{8 + at * 7 % 27 * (3 if at % 3 == 2 else 1)}.5"),
    "sites": ("", lambda at, _: ("NYU", "USM", "UCLA_1", "UCLA_2")[at // 3 % 4]),
}


@pytest.mark.parametrize("case", CODINGS)
def test_ages_in_months_at_one_site_and_two_codings_are_told(case, tmp_path):
    words, of = CODINGS[case]
    people_with(tmp_path, age=of)
    told = run(f"{OF_ANY} --phenotype age,iq --dryRun", of=tmp_path, to=tmp_path / "out").out
    assert (words in told) if words else not re.search("median .* at |codings|spelling", told), told


# Who is tested


def split_of(folder: Path) -> dict[str, str]:
    return lab.read_table(folder / "subjects.csv").set_index("subject")["split"].to_dict()


def people_tested(folder: Path) -> set[str]:
    return {subject for subject, split in split_of(folder).items() if split == "test"}


@pytest.mark.parametrize("count", [10, 41])
def test_one_in_ten_in_proportion_whatever_the_order_and_few_others_move(count, tmp_path):
    """Leaving anybody out changes at most two others; the seed decides; of each label and site a tenth is tested."""
    sites = {"SITE_ID": lambda at, _: f"S{at}" if at % 2 else "NYU"}  # of one person, and of half of all
    table = people_with(tmp_path, count, **sites).reset_index()
    done(CONVERT, of=tmp_path, to=tmp_path / "out")
    before = people_tested(tmp_path / "out")
    chosen = table["SUB_ID"].isin(before)
    for columns in (["DX_GROUP"], ["DX_GROUP", "SITE_ID"]):
        for _, stratum in table.groupby(columns):
            assert abs(chosen[stratum.index].sum() - len(stratum) / 10) <= 1
    assert abs(chosen.sum() - count / 10) <= 1 and set(table["DX_GROUP"][chosen]) == {"1", "2"}
    lab.edit(tmp_path / "lab/Phenotypic.csv", lambda of: of[::-1])
    done(CONVERT, of=tmp_path, to=tmp_path / "reversed")
    assert split_of(tmp_path / "reversed") == split_of(tmp_path / "out")
    for left in [*sorted(before)[:2], table["SUB_ID"][5]]:
        done(f"{CONVERT} --exclude {left}", of=tmp_path, to=tmp_path / f"without-{left}")
        assert len(before - {left} ^ people_tested(tmp_path / f"without-{left}")) <= 2
    for seed in (1, 2):
        done(f"{CONVERT} --seed {seed}", of=tmp_path, to=tmp_path / f"{seed}")
    tested = [before, *(people_tested(tmp_path / f"{seed}") for seed in (1, 2))]
    assert any(of != before for of in tested)
    large = {*table["SUB_ID"][table["SITE_ID"] == "NYU"]}
    assert abs(sum(len(of & large) for of in tested) - 3 * len(large) / 10) <= 3


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """A folder with the lab of 40 people, and their cohort `out`, 4 of them test subjects."""
    folder = tmp_path_factory.mktemp("earlier")
    lab.pcp(folder / "lab", lab.people())
    done(CONVERT, of=folder, to=folder / "out")
    return folder


@pytest.mark.parametrize("form", ["bin", "zip", "bare"])
def test_who_is_in_another_cohort_keeps_its_split(form, earlier, tmp_path):
    """27 people of the earlier cohort, and 13 new ones, on whom only the seed decides."""
    other = tmp_path / "other"
    if form == "bare":
        shutil.copytree(earlier / "out", other, ignore=shutil.ignore_patterns("*.csv", "*.json", "SHA256SUMS"))
        done("abide-data pack {of} {of}-named --bin", of=other)
    else:
        done(f"abide-data pack {{of}}/out {{to}} --{form}", of=earlier, to=other)
    before = split_of(tmp_path / "other-named" if form == "bare" else other)
    table = lab.people()
    known = table.sort_values("SUB_ID", key=lambda of: of.map(before))[:27]  # "test" comes first
    lab.pcp(tmp_path / "lab", pd.concat([known, lab.people(13, 60002)]))
    told = done(f"{CONVERT} --keepSplit {{other}} --seed 9", of=tmp_path, to=tmp_path / "out", other=other)
    assert f"27 participants as in {other}, 13 others drawn" in told
    after = split_of(tmp_path / "out")
    assert {name: after[name] for name in known["SUB_ID"]} == {name: before[name] for name in known["SUB_ID"]}
    assert Counter(after.values())["test"] >= 4  # a tenth was there


def test_a_scan_under_another_name_keeps_its_split(earlier, tmp_path):
    """All people again with new IDs and their old maps: those who were tested are those who are tested."""
    before = split_of(earlier / "out")
    lab.pcp(tmp_path / "lab", lab.people(first=60002))
    for of in (earlier / "lab/cpac").iterdir():
        shutil.copy(of, tmp_path / "lab/cpac" / of.name.replace("X_005", "X_006"))
    done(f"{CONVERT} --keepSplit {{other}}", of=tmp_path, to=tmp_path / "out", other=earlier / "out")
    after = split_of(tmp_path / "out")
    assert [after[f"{int(name) + 10000}"] for name in before] == list(before.values())


def test_a_scan_on_both_sides_is_told(earlier, tmp_path):
    """Two people of one scan, of whom one was tested; --keepDuplicates lets the split part them."""
    before = split_of(earlier / "out")
    test, train = (next(name for name, of in before.items() if of == split) for split in ("test", "train"))
    shutil.copytree(earlier / "lab", tmp_path / "lab")
    place = "lab/cpac/X_00{}_falff.nii.gz".format
    shutil.copy(tmp_path / place(train), tmp_path / place(test))
    command = f"{CONVERT} --keepSplit {{other}}"
    told = done(command, of=tmp_path, to=tmp_path / "out", other=earlier / "out")
    assert f"not kept: {test}, test participants there, share a scan with training participants" in told
    assert [split_of(tmp_path / "out")[name] for name in (test, train)] == ["train", "train"]
    done(f"{command} --keepDuplicates", of=tmp_path, to=tmp_path / "apart", other=earlier / "out")
    assert [split_of(tmp_path / "apart")[name] for name in (test, train)] == ["test", "train"]


# Whose row a map has


FORMS = ["{}", "{:06}", "sub-{:03}", "{}.0", "P{:03}"]  # of IDs, beside numbers that are no IDs
AGES = np.random.default_rng(0).uniform(8, 12, 30).round(1)
NAMES = ["ID", "subject", "SUB_ID", "participant_id", "Unnamed: 0", "index", "X"]


@pytest.fixture(scope="module")
def flat(tmp_path_factory) -> Path:
    """The maps of 24 people called 1 to 24, in one folder."""
    return lab.flat(tmp_path_factory.mktemp("flat") / "maps", lab.people(24, 1))


@pytest.mark.parametrize("seed", range(20))
def test_shifted_and_permuted_numbers_never_give_a_wrong_row_in_silence(seed, flat, tmp_path):
    """A table in any order, with some rows missing, one column of IDs in any form, and one of numbers that are none."""
    random = np.random.default_rng(seed)
    people = random.permutation(24) + 1 if random.random() < 0.7 else np.arange(24) + 1
    numbers = [np.arange(24) + random.integers(-1, 3), people + random.integers(-3, 4), random.permutation(people)]
    columns = {"code": map(random.choice(FORMS).format, people), random.choice(NAMES): random.choice(numbers)}
    table = pd.DataFrame({name: list(of) for name, of in columns.items()}, dtype=str)
    table = table.assign(dx=[str(1 + of % 2) for of in people], age=[str(AGES[of]) for of in people])
    table = table.drop(index=random.choice(24, random.integers(3), replace=False))
    table.sample(frac=1, axis=1, random_state=seed).to_csv(tmp_path / "table.csv", index=False)
    how = "--grid reduced --labelColumn dx --positive 1 --phenotype age --allowLeak"
    outcome = run(f"abide-data convert {{of}} {{to}}/out --table {{to}}/table.csv {how}", of=flat, to=tmp_path)
    if outcome.status < 2:
        values = pd.read_csv(tmp_path / "out/phenotype.csv")
        assert values["age"].tolist() == AGES[values["subject"]].tolist()
    else:
        assert "--idColumn" in outcome.err
