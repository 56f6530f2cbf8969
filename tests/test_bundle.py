"""abide-bundle: what a bundle predicts, beside whole passes of its networks, and that nobody is in it."""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import lab
import numpy as np
import pandas as pd
import pytest
from bundles import SUMS, networks_of, parts_of, people_of, rebuilt
from commands import done, record_of, refused
from scipy.special import expit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

TEST = "run.py --test --bundle {model} --dataDir {of} --outDir {to}"
CONVERT = "abide-data convert {lab} {to} --grid reduced"


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", dtype={"subject": str, "labels": str})


def model_of(path: Path) -> dict:
    return json.loads(parts_of(path)["model.json"])


def remade(bundle: Path, path: Path, **changes: object) -> Path:
    """The bundle whose `model.json` has other values, as a new file."""
    return rebuilt(bundle, path, {"model.json": json.dumps(model_of(bundle) | changes).encode()})


# What it predicts


@pytest.fixture(scope="module")
def of_folds(on_folds, tmp_path_factory) -> Path:
    """The networks of three folds as one file."""
    path = tmp_path_factory.mktemp("folds") / "folds.zip"
    done("abide-bundle {of}/ckpt/mmnn/folds-3 {path} --score {of}/test", of=on_folds, path=path)
    return path


@pytest.fixture(scope="module")
def tested(bundle, newcomers, tmp_path_factory) -> Path:
    """The results of a test of the newcomers, for a share of autism of a half, by a file alone in its folder."""
    folder = tmp_path_factory.mktemp("tested")
    moved = shutil.copy(bundle, folder / "moved.zip")
    done(f"{TEST} --prevalence 0.5", model=moved, of=newcomers, to=folder / "out")
    return folder / "out"


@pytest.mark.bits
def test_it_predicts_what_the_checkpoint_does_byte_for_byte(tested, everybody, newcomers, tmp_path):
    command = "run.py --test --everybody --dataDir {of} --chkPointDir {by}/ckpt --outDir {to}"
    done(command, of=newcomers, by=everybody, to=tmp_path / "out")
    predictions = (tested / "predictions.csv").read_bytes()
    assert predictions == (tmp_path / "out" / "predictions.csv").read_bytes() and predictions.count(b"\n") == 13


def test_its_probabilities_are_those_of_whole_passes_of_its_network(tested, bundle, newcomers):
    (network,) = networks_of(bundle)
    found = read(tested, "predictions")
    assert found["subject"].tolist() == people_of(newcomers)["subject"].tolist()
    np.testing.assert_allclose(found["probability"], expit(network(people_of(newcomers))), atol=2e-6)


def test_an_ensemble_is_the_mean_of_probabilities_each_with_its_own_scale(of_folds, on_folds, newcomers, tmp_path):
    """Each fold scales the phenotype by its own people, whom its record tells, in place of those by which records are
    stored."""
    like, cohort = "abide-data convert {lab} {to} --like {model}", tmp_path / "cohort"
    done(like, lab=newcomers.parent / "lab", to=cohort, model=of_folds)
    done(TEST, model=of_folds, of=cohort, to=tmp_path / "out")
    people, its = people_of(cohort), json.loads((cohort / "cohort.json").read_text())
    mean, scale = (np.array(its[f"phenotype_{name}"]) for name in ("mean", "scale"))
    raw, each = people["phenotype"] * scale + mean, []
    members = [member | {"phenotype_scale": [], "phenotype_shift": []} for member in model_of(of_folds)["members"]]
    unscaled = remade(of_folds, tmp_path / "unscaled.zip", members=members)  # which read it as it is given
    for fold, network in enumerate(networks_of(unscaled)):
        own = record_of(on_folds / f"ckpt/mmnn/folds-3/{fold}")["preparation"]
        own_mean, own_scale = (np.array(own[f"phenotype_{name}"]) for name in ("mean", "scale"))
        known = (own_scale > 0) & (scale > 0)
        assert np.ptp(own_mean - mean) > 0
        phenotype = np.where(known, (raw - own_mean) / np.where(known, own_scale, 1), 0)
        each.append(expit(network(people | {"phenotype": phenotype})))
    found = read(tmp_path / "out", "people")
    np.testing.assert_allclose(found["raw"], np.mean(each, 0), atol=2e-6)
    np.testing.assert_allclose(read(tmp_path / "out", "predictions")["probability"], found["raw"], atol=2e-6)
    assert np.ptp(each, axis=0).max() > 1e-3
    assert (found["low"] <= found["probability"]).all() and (found["probability"] <= found["high"]).all()


def test_probabilities_follow_the_prevalence(tested, bundle, newcomers, tmp_path):
    """By the odds, which is all that changes; sets of labels hold however common autism is."""
    done(f"{TEST} --prevalence 0.01", model=bundle, of=newcomers, to=tmp_path / "out")
    half, rare = (read(folder, "people") for folder in (tested, tmp_path / "out"))
    odds, of_rare = (of["probability"] / (1 - of["probability"]) for of in (half, rare))
    np.testing.assert_allclose(odds / of_rare, 99, rtol=0.02)
    assert half["labels"].tolist() == rare["labels"].tolist() and half["labels"].notna().all()
    assert (half["raw"] == rare["raw"]).all()


def test_without_a_score_nothing_is_calibrated_and_problems_go_along(bundle, newcomers, tmp_path):
    caveats = model_of(bundle)["caveats"] | {"problems": ["half of the maps were smoothed"]}
    path = remade(bundle, tmp_path / "plain.zip", internal=None, caveats=caveats)
    assert "without a score" in done(TEST, model=path, of=newcomers, to=tmp_path / "out")
    people = read(tmp_path / "out", "people")
    assert len(people) == 12 and people[["probability", "labels"]].isna().all(axis=None)
    assert "of the training people: half of the maps were smoothed" in record_of(tmp_path / "out")["problems"]
    refused(f"{TEST} --prevalence 0.01", "--prevalence", "{model}", model=path, of=newcomers, to=tmp_path / "no")


def test_people_without_labels_are_predicted_and_not_blacked_out(tested, bundle, newcomers, tmp_path):
    source = lab.copy(newcomers.parent / "lab", tmp_path / "lab")
    lab.edit(source / "Phenotypic.csv", lambda table: table.assign(DX_GROUP=""))
    done("abide-data convert {source} {to} --like {model}", source=source, to=tmp_path / "new", model=bundle)
    done(TEST, model=bundle, of=tmp_path / "new", to=tmp_path / "out")
    found = read(tmp_path / "out", "predictions")
    assert found["label"].isna().all()
    assert found["probability"].tolist() == read(tested, "predictions")["probability"].tolist()
    places = {"model": bundle, "of": tmp_path / "new", "to": tmp_path / "none"}
    refused(TEST.replace("--test", "--blackout"), "no label", "--exclude", **places)


def test_who_is_unlike_is_told_and_nobody_may_be(bundle, newcomers, tmp_path):
    likeness = json.loads(parts_of(bundle)["likeness.json"])
    unborn = {"person": {"age": dict.fromkeys(("low", "middle", "high"), 0.0)}}
    for name, ranges in (("none", {}), ("all", unborn)):
        changes = {"likeness.json": json.dumps(likeness | {"ranges": ranges, "categories": {}, "known": []}).encode()}
        path = rebuilt(bundle, tmp_path / f"{name}.zip", changes)
        said = done(TEST, model=path, of=newcomers, to=tmp_path / name)
        count = read(tmp_path / name, "people")["unlike"].notna().sum()
        assert f"Unlike the training people: {count} of 12 people" in said and (count > 0) == (name == "all")


# What it says


def test_equal_networks_give_equal_bytes(bundle, everybody, tmp_path):
    """But for the day and the commit; nothing else is written."""
    done("abide-bundle {of}/ckpt/mmnn/everybody {to}/a.zip --licence CC-BY-4.0", of=everybody, to=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]
    own, other = parts_of(bundle), parts_of(tmp_path / "a.zip")
    assert own.keys() == other.keys()
    assert {name for name in own if own[name] != other[name]} <= {"model.json", "card.md", SUMS}


def test_the_card_has_the_numbers_of_the_table_and_of_the_score(bundle, of_folds, converted, on_folds):
    table, scores = lab.people(), json.loads((on_folds / "test" / "metrics.json").read_text())
    age, auc = table["AGE_AT_SCAN"].astype(float), scores["auc"]
    for path in (bundle, of_folds):
        card = parts_of(path)["card.md"].decode()
        assert f"mean {age.mean():.3g}, SD {age.std():.3g}," in card and "20 with autism and 20 controls" in card
        assert f"| auc | {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f}) |" in card
        for site, of_site in table.groupby("SITE_ID"):
            counts = of_site["DX_GROUP"].value_counts()
            assert f"| {site} | {counts['1']} | {counts['2']} |" in card
    assert "Licence of the weights: CC-BY-4.0." in parts_of(bundle)["card.md"].decode()


def test_the_card_says_that_people_were_simulated(seen_two, tmp_path):
    done("abide-bundle {of}/ckpt/nn {to}/a.zip", of=seen_two, to=tmp_path)
    card = parts_of(tmp_path / "a.zip")["card.md"].decode()
    assert "SIMULATED" in card.splitlines()[0] and "nothing here says anything about people" in card


# Nothing of any person


def texts_of(path: Path) -> dict[str, str]:
    return {name: part.decode() for name, part in parts_of(path).items() if not name.endswith((".npy", ".gz"))}


def numbers_of(content: object) -> Iterator[list]:
    """All lists of numbers in JSON, flat."""
    if isinstance(content, list) and content and all(type(one) in (int, float) for one in content):
        yield content
    elif isinstance(content, list | dict):
        for one in content.values() if isinstance(content, dict) else content:
            yield from numbers_of(one)


@pytest.mark.parametrize("which", ["bundle", "of_folds"])
def test_no_id_name_of_a_file_or_value_of_a_person_is_in_any_text(which, lab, on_folds, request):
    """By the words that a search would look for: IDs, with and without zeros, ages, motion, probabilities."""
    table = pd.read_csv(lab / "Phenotypic.csv", dtype=str)
    ids = [text for _, row in table.iterrows() for text in (row["SUB_ID"], row["FILE_ID"], row["FILE_ID"].lower())]
    values = [*table["AGE_AT_SCAN"], *table["func_mean_fd"]]
    values += pd.read_csv(on_folds / "test" / "predictions.csv", dtype=str)["probability"].tolist()
    for name, text in texts_of(request.getfixturevalue(which)).items():
        assert not [one for one in ids if re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", text)], name
        assert not [one for one in values if re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", text)], name


@pytest.mark.parametrize("which", ["bundle", "of_folds"])
def test_no_array_is_of_a_person(which, converted, request):
    """Neither a volume, nor a part of one, nor a connectome, nor a phenotype, raw or scaled."""
    people, raw = people_of(converted), lab.read_table(converted / "phenotype.csv").drop(columns="subject")
    phenotypes = [*raw.replace("", np.nan).to_numpy(float), *people["phenotype"]]
    records = [path.read_bytes()[120:] for path in converted.glob("*.bin")]
    pieces = [one[20_000:20_064] for one in records if len(set(one[20_000:20_064])) > 8]
    assert len(pieces) == len(records) == 40
    for name, part in parts_of(request.getfixturevalue(which)).items():
        assert not [one for one in pieces if one in part], name
        if name.endswith(".npy"):
            values = np.load(io.BytesIO(part), allow_pickle=False)
            own = [*people["connectome"], *people["volume"]]
            assert not [one for one in own if one.shape == values.shape and np.allclose(one, values, atol=1e-3)], name
        elif name.endswith(".json"):
            lists = [of for of in numbers_of(json.loads(part)) if len(of) == 29]
            assert not [of for of in lists for own in phenotypes if np.allclose(of, own, atol=1e-3)], name


TOLD = "50006 and 50007 share a scan; so do 0050008, X_0050009_alff.nii.gz and sub-50010, in 36 people, p = 0.50006; "
TOLD += "0.2000, 12000 and 2000.5 are numbers, 2000 is not"
NAMED = {"50002": "2000", "50003": "falff", "50004": "reduced", "50005": "sine"}


@pytest.fixture(scope="module")
def delicate(tmp_path_factory) -> tuple[Path, str]:
    """The bundle of a lab of which nearly all may tell who is in it, and what was printed as it was made: people are
    called as a batch size, a map, a grid and a preset are, five sites have few people, one person alone is of a
    category, few have an IQ, and a check that
    was done after the training names some of them."""
    folder = tmp_path_factory.mktemp("delicate")
    table = lab.people(24).assign(FIQ="", hand=["both"] + ["left"] * 23)
    table["SITE_ID"] = ["NYU"] * 12 + ["USM"] * 6 + ["PITT", "KKI", "KKI", "KKI", "UM", "UM"]
    table.loc[:2, "FIQ"] = ["100", "90", "121"]
    table["SUB_ID"] = table["SUB_ID"].where(table.index > 3, table["SUB_ID"].map(NAMED))
    lab.pcp(folder / "lab", table.assign(SUB_ID=table["FILE_ID"].str[-5:]))
    table.to_csv(folder / "lab" / "Phenotypic.csv", index=False)
    places = {"lab": folder / "lab", "to": folder / "cohort", "of": folder}
    done(f"{CONVERT} --phenotype FIQ,hand,AGE_AT_SCAN", **places)
    done("abide-data check {of}/cohort", **places)
    settings = "--set members=1 --set batch_size=2000"
    command = f"run.py --train --everybody --model nn --numIters 1 {settings} --dataDir {{of}}/cohort"
    done(f"{command} --chkPointDir {{of}}/ckpt --outDir {{of}}/out", **places)
    verdict = json.loads((folder / "cohort" / "check.json").read_text()) | {"problems": [TOLD], "sha256": ""}
    verdict["sha256"] = hashlib.sha256(json.dumps(verdict, sort_keys=True).encode()).hexdigest()
    lab.edit(folder / "cohort" / "check.json", verdict)
    said = done("abide-bundle {of}/ckpt/nn/everybody {of}/a.zip", **places)
    return folder / "a.zip", said


def test_people_of_small_sites_and_rare_values_are_withheld(delicate):
    path, said = delicate
    card = parts_of(path)["card.md"].decode()
    assert "| NYU | 6 | 6 |" in card and "| USM | < 5 | < 5 |" in card
    assert "| sites of fewer than 5: 3 | < 5 | < 5 |" in card and "KKI" not in card
    few = re.search(r"Few people have (.*), so that the name", said)[1].split(", ")
    assert few == ["FIQ", "hand_both"]


def test_ids_are_withheld_and_break_nothing_where_they_are_words_or_numbers_of_the_program(delicate):
    model = model_of(delicate[0])
    assert (model["config"]["batch_size"], model["preset"]) == (2000, "sine")
    expected = "ID and ID share a scan; so do ID, X_ID_alff.nii.gz and sub-ID, in 36 people, p = 0.50006; "
    expected += "0.2000, 12000 and 2000.5 are numbers, ID is not"
    assert expected in model["caveats"]["problems"] and expected in parts_of(delicate[0])["card.md"].decode()
    for name, text in texts_of(delicate[0]).items():
        assert not re.search(r"(?<![\d.])0*500(0[2-9]|1\d|2\d)(?!\d)", text), name


# What cannot be bundled or tested; most of it stands in test_refusals


def test_weights_of_another_network_are_refused(bundle, newcomers, tmp_path):
    """As many numbers in other shapes. They are known once the network is built."""
    (member,) = model_of(bundle)["members"]
    shapes = [[sum(int(np.prod(shape)) for shape in member["shapes"])]]
    path = remade(bundle, tmp_path / "a.zip", members=[member | {"shapes": shapes}])
    refused(TEST, "weights of another network", model=path, of=newcomers, to=tmp_path / "out")


TRAIN = "run.py --train --model nn --numIters 1 --set members=1 --dataDir {of}/cohort"


def test_a_fold_of_few_people_stays_and_a_bare_folder_says_nothing_of_its_people(tmp_path):
    """Networks with and without the people of the fold would tell what they are like."""
    lab.pcp(tmp_path / "lab", lab.people(8))
    done(CONVERT, lab=tmp_path / "lab", to=tmp_path / "cohort")
    lab.records(tmp_path / "bare" / "cohort", 12)
    for folder, more in ((tmp_path, "--folds 2"), (tmp_path / "bare", "")):
        done(f"{TRAIN} {more} --chkPointDir {{of}}/ckpt --outDir {{of}}/out", of=folder)
    command = "abide-bundle {of}/ckpt/nn"
    refused(f"{command}/folds-2 {{of}}/a.zip", "leaves out 4", "--everybody", of=tmp_path)
    refused(f"{command} {{of}}/a.zip", "how its people were prepared", "convert", of=tmp_path / "bare")


def test_cohort_and_score_are_found_from_any_folder(everybody, on_folds, converted, tmp_path, monkeypatch):
    """And after the folder of all was moved."""
    study = tmp_path / "study"
    shutil.copytree(converted, study / "cohort")
    shutil.copytree(on_folds / "test", study / "score")
    monkeypatch.chdir(study)
    words = "--score score --numIters 4 --set members=1 --set batch_size=8 --dataDir cohort --chkPointDir ckpt"
    done(f"run.py --train --everybody {words} --outDir out")
    monkeypatch.chdir(tmp_path)
    said = done("abide-bundle study/ckpt/mmnn/everybody a.zip")
    parts = parts_of(tmp_path / "a.zip")
    assert "report.html" in parts and "is gone" not in said
    assert str(tmp_path).encode() not in b"".join(parts.values())
    study.rename(tmp_path / "moved")
    done("abide-bundle moved/ckpt/mmnn/everybody moved/a.zip")
    assert parts_of(tmp_path / "moved" / "a.zip")["weights/0.npy"] == parts["weights/0.npy"]
