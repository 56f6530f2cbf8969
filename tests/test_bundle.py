"""abide-bundle: what a bundle predicts, beside its checkpoint and whole passes of its network; nobody is in it."""

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
from bundles import SUMS, arrays_of, network_of, parts_of, people_of, rebuilt
from commands import done, record_of, refused, text_of
from helpers import resealed
from scipy.special import expit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

TEST = "run.py --test --bundle {model} --dataDir {of} --outDir {to}"
ID = r"(?<![\da-f.])0*500(0[2-9]|1\d|2\d)(?![\da-f])"  # of the people of `lab`
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
def tested(bundle, newcomers, tmp_path_factory) -> Path:
    """The results of a test of the newcomers, for a share of autism of a half, by a file alone in its folder."""
    folder = tmp_path_factory.mktemp("tested")
    moved = shutil.copy(bundle, folder / "moved.zip")
    done(f"{TEST} --prevalence 0.5", model=moved, of=newcomers, to=folder / "out")
    return folder / "out"


@pytest.mark.bits
def test_it_predicts_what_the_checkpoint_does_byte_for_byte(tested, everybody, newcomers, tmp_path):
    """And says the same of each person."""
    command = "run.py --test --everybody --dataDir {of} --chkPointDir {by}/ckpt --outDir {to} --prevalence 0.5"
    done(command, of=newcomers, by=everybody, to=tmp_path / "out")
    for name in ("predictions.csv", "participants.csv", "out_of_distribution.csv", "external.csv"):
        here, there = (folder / name for folder in (tested, tmp_path / "out"))
        assert here.exists() == there.exists() and (not here.exists() or here.read_bytes() == there.read_bytes()), name
    assert len(read(tested, "predictions")) == 12


def test_its_probabilities_are_those_of_whole_passes_of_its_network(tested, bundle, newcomers):
    found, people = read(tested, "predictions"), people_of(newcomers)
    assert found["subject"].tolist() == people["subject"].tolist()
    np.testing.assert_allclose(found["probability"], expit(network_of(bundle)(people)), atol=2e-6)


def test_probabilities_follow_the_prevalence(tested, bundle, newcomers, tmp_path):
    """By the odds, which is all that changes; sets of labels hold however common autism is."""
    done(f"{TEST} --prevalence 0.01", model=bundle, of=newcomers, to=tmp_path / "out")
    half, rare = (read(folder, "participants") for folder in (tested, tmp_path / "out"))
    odds, of_rare = (of["probability"] / (1 - of["probability"]) for of in (half, rare))
    np.testing.assert_allclose(odds / of_rare, 99, rtol=0.02)
    assert half["labels"].tolist() == rare["labels"].tolist() and half["labels"].notna().all()
    assert (half["raw"] == rare["raw"]).all()


def test_a_baseline_of_the_folds_stands_beside_the_score(tested, on_folds):
    """The one that was pre-specified, since none can be fitted."""
    baselines = read(on_folds / "test", "baselines").set_index("baseline")
    row, told = baselines[baselines["role"] == "pre-specified"].iloc[0], record_of(tested)["conclusion"]["baseline"]
    assert told["name"] == row.name and told["where"] and row.name in text_of(tested / "report.html")
    for name, of in (("auc_sites", told["auc"]), ("model_minus_baseline_auc_sites", told["less"])):
        assert [*of.values()] == pytest.approx([row[f"{name}{end}"] for end in ("", "_low", "_high")])
    assert not (tested / "baselines.csv").exists()


def test_baselines_are_of_those_who_trained_the_model_though_new_people_have_a_training_split(
    bundle, everybody, newcomers, tmp_path
):
    """Who are at hand of a checkpoint only: half of them have autism, of the others' training split two thirds."""
    tables = lab.copy(newcomers, tmp_path / "tables")
    of_label = lab.read_table(newcomers / "subjects.csv").groupby("label").cumcount()
    is_trained = (of_label < 4) & ((lab.read_table(newcomers / "subjects.csv")["label"] == "1") | (of_label < 2))
    lab.edit(tables / "subjects.csv", lambda table: table.assign(split=is_trained.map({True: "train", False: "test"})))
    done("abide-data pack {of} {to}/new --tables {tables}", of=newcomers, to=tmp_path, tables=tables)
    done(TEST, model=bundle, of=tmp_path / "new", to=tmp_path / "a")
    assert not (tmp_path / "a/baseline_predictions.csv").exists()
    command = "run.py --test --everybody --dataDir {of} --chkPointDir {by}/ckpt --outDir {to}"
    done(command, of=tmp_path / "new", by=everybody, to=tmp_path / "b")
    found = read(tmp_path / "b", "baseline_predictions")
    assert len(found) == 6 and (found["majority"] == 0.5).all() and "all, SVM" in found


def test_without_a_score_nothing_is_calibrated(bundle, newcomers, tmp_path):
    said = done(TEST, model=bundle, of=newcomers, to=tmp_path / "first")
    assert "20 participants with autism" in said and "20 controls" in said
    path = remade(bundle, tmp_path / "plain.zip", cross_validation=None)
    assert "nobody knows" in done(TEST, model=path, of=newcomers, to=tmp_path / "out")
    assert "not calibrated" in text_of(tmp_path / "out/report.html")
    people = read(tmp_path / "out", "participants")
    assert len(people) == 12 and people[["probability", "labels"]].isna().all(axis=None)
    refused(f"{TEST} --prevalence 0.01", "--prevalence", "{model}", model=path, of=newcomers, to=tmp_path / "no")


def test_people_without_labels_are_predicted_and_not_blacked_out(tested, bundle, newcomers, tmp_path):
    source = lab.copy(newcomers.parent / "lab", tmp_path / "lab")
    lab.edit(source / "Phenotypic.csv", lambda table: table.assign(DX_GROUP=""))
    done("abide-data convert {source} {to} --like {model}", source=source, to=tmp_path / "new", model=bundle)
    printed = done(TEST, model=bundle, of=tmp_path / "new", to=tmp_path / "out")
    assert re.search(r"^problems +1 ", printed, re.M) and re.search(r"^warnings +\d ", printed, re.M)
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
        done(TEST, model=path, of=newcomers, to=tmp_path / name)
        count = read(tmp_path / name, "participants")["out_of_distribution"].notna().sum()
        assert len(read(tmp_path / name, "out_of_distribution")) == count and (count > 0) == (name == "all")


# What it says


def test_equal_networks_give_equal_bytes(bundle, everybody, tmp_path):
    """But for the day; nothing else is written."""
    done("abide-bundle {of}/ckpt/mmnn/everybody {to}/a.zip --licence CC-BY-4.0", of=everybody, to=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]
    own, other = parts_of(bundle), parts_of(tmp_path / "a.zip")
    assert own.keys() == other.keys() and {name for name in own if own[name] != other[name]} <= {"card.md", SUMS}


def test_the_card_has_the_numbers_of_the_table_and_of_the_score(bundle, on_folds):
    table, scores = lab.people(), json.loads((on_folds / "test" / "metrics.json").read_text())
    age, auc, card = table["AGE_AT_SCAN"].astype(float), scores["auc"], parts_of(bundle)["card.md"].decode()
    assert f"mean {age.mean():.3g}, SD {age.std():.3g}," in card and "20 with autism and 20 controls" in card
    assert f"| auc | {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f}) |" in card
    for site, of_site in table.groupby("SITE_ID"):
        counts = of_site["DX_GROUP"].value_counts()
        assert f"| {site} | {counts['1']} | {counts['2']} |" in card
    assert "Licence of the weights: CC-BY-4.0." in card


# Nothing of any person


def texts_of(path: Path) -> dict[str, str]:
    return {name: part.decode() for name, part in parts_of(path).items() if not name.endswith((".npz", ".gz"))}


def numbers_of(content: object) -> Iterator[list]:
    """All lists of numbers in JSON, flat."""
    if isinstance(content, list) and content and all(type(one) in (int, float) for one in content):
        yield content
    elif isinstance(content, list | dict):
        for one in content.values() if isinstance(content, dict) else content:
            yield from numbers_of(one)


def test_no_id_name_of_a_file_or_value_of_a_person_is_in_any_text(bundle, lab, on_folds):
    """By the words that a search would look for: IDs, with and without zeros, ages, motion, probabilities."""
    table = pd.read_csv(lab / "Phenotypic.csv", dtype=str)
    ids = [text for _, row in table.iterrows() for text in (row["SUB_ID"], row["FILE_ID"], row["FILE_ID"].lower())]
    values = [*table["AGE_AT_SCAN"], *table["func_mean_fd"]]
    values += pd.read_csv(on_folds / "test" / "predictions.csv", dtype=str)["probability"].tolist()
    for name, text in texts_of(bundle).items():
        assert not [one for one in ids if re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", text)], name
        assert not [one for one in values if re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", text)], name


def test_no_array_is_of_a_person(converted, bundle):
    """Neither a volume, nor a part of one, nor a connectome, nor a phenotype, raw or scaled."""
    people, raw = people_of(converted), lab.read_table(converted / "phenotype.csv").drop(columns="subject")
    phenotypes = [*raw.replace("", np.nan).to_numpy(float), *people["phenotype"]]
    records = [path.read_bytes()[120:] for path in converted.glob("*.bin")]
    pieces = [one[20_000:20_064] for one in records if len(set(one[20_000:20_064])) > 8]
    assert len(pieces) == len(records) == 40
    own = [*people["connectome"], *people["volume"]]
    for name, part in parts_of(bundle).items():
        assert not [one for one in pieces if one in part], name
        for values in arrays_of(part).values() if name.endswith(".npz") else ():
            assert not [one for one in own if one.shape == values.shape and np.allclose(one, values, atol=1e-3)], name
        if name.endswith(".json"):
            lists = [of for of in numbers_of(json.loads(part)) if len(of) == 29]
            assert not [of for of in lists for own in phenotypes if np.allclose(of, own, atol=1e-3)], name


@pytest.fixture(scope="module")
def delicate(tmp_path_factory) -> tuple[Path, str]:
    """The bundle of a lab of which nearly all may tell who is in it, and what was printed as it was made: five sites
    have few people, one person alone is of a category, few have an IQ, and problems name people."""
    folder = tmp_path_factory.mktemp("delicate")
    table = lab.people(24).assign(FIQ="", hand=["both"] + ["left"] * 23)
    table["SITE_ID"] = ["NYU"] * 12 + ["USM"] * 6 + ["PITT", "KKI", "KKI", "KKI", "UM", "UM"]
    table.loc[:2, "FIQ"] = ["100", "90", "121"]
    lab.pcp(folder / "lab", table)
    places = {"lab": folder / "lab", "to": folder / "cohort", "of": folder}
    done(f"{CONVERT} --phenotype FIQ,hand,AGE_AT_SCAN", **places)
    done("abide-data check {of}/cohort", **places)
    problems = ["50006 and 0050007 share a scan", "50008 has no signal", "50009: half of the connectome is empty"]
    lab.edit(folder / "cohort" / "check.json", {"problems": problems, "about": ["participants", "maps", "connectomes"]})
    command = "run.py --train --everybody --model nn --numIters 1 --set members=1 --dataDir {of}/cohort"
    done(f"{command} --chkPointDir {{of}}/ckpt --outDir {{of}}/out", **places)
    said = done("abide-bundle {of}/ckpt/nn/everybody {of}/a.zip", **places)
    return folder / "a.zip", said


def test_people_of_small_sites_and_rare_values_are_withheld(delicate):
    path, said = delicate
    card = parts_of(path)["card.md"].decode()
    assert "| NYU | 6 | 6 |" in card and "| USM | < 5 | < 5 |" in card
    assert "| sites of fewer than 5: 3 | < 5 | < 5 |" in card and "KKI" not in card
    few = re.search(r"Few participants have (.*), so that the name", said)[1].split(", ")
    assert few == ["FIQ", "hand_both"]


def test_problems_of_the_cohort_are_counted_and_nobody_is_named(delicate):
    path, said = delicate
    for name, text in texts_of(path).items():
        assert not re.search(ID, text), name
    card = parts_of(path)["card.md"].decode()
    assert "(PROBLEMS: 3)" in said and "(PROBLEMS: 3)\n" in card and card.count("problem of the cohort invalid") == 3
    assert re.findall("one about (\\w+)", card) == ["participants", "maps", "connectomes"]


def test_no_id_is_in_what_folds_said_and_chose(tmp_path, delicate):
    """Though the file of candidates is called and commented by one, and so are folders."""
    of, to = delicate[0].parent / "cohort", tmp_path / "50002"
    to.mkdir()
    lines = "".join(f"--preset sine --set members=1 --set batch_size={size}  # of 0050003\n" for size in (4, 8))
    (to / "50004.txt").write_text(lines)
    places = "--model nn --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"
    done(f"run.py --train --folds 2 --numIters 1 --choose {{to}}/50004.txt {places}train", of=of, to=to)
    done(f"run.py --test --folds 2 {places}test", of=of, to=to)
    done(f"run.py --train --everybody --score {{to}}/test {places}all", of=of, to=to)
    done("abide-bundle {to}/ckpt/nn/everybody {to}/a.zip", to=to)
    texts = texts_of(to / "a.zip")
    assert "which was chosen in" in texts["card.md"] and model_of(to / "a.zip")["cross_validation"]["conclusion"]
    assert not [name for name, text in texts.items() if re.search(ID, text)]


def test_simulated_people_are_marked_wherever_their_network_speaks(converted, newcomers, tmp_path):
    lab.edit(lab.copy(converted, tmp_path / "cohort") / "cohort.json", {"simulated": True})
    resealed(tmp_path / "cohort")
    command = "run.py --train --everybody --model nn --numIters 1 --set members=1 --dataDir {of}/cohort"
    done(f"{command} --chkPointDir {{of}}/ckpt --outDir {{of}}/out", of=tmp_path)
    said = [done("abide-bundle {of}/ckpt/nn/everybody {of}/a.zip", of=tmp_path)]
    said.append(done(TEST, model=tmp_path / "a.zip", of=newcomers, to=tmp_path / "test"))
    said += [parts_of(tmp_path / "a.zip")["card.md"].decode(), text_of(tmp_path / "test/report.html")]
    assert all("(SIMULATED" in text for text in said)
    assert "nothing here says anything about people" in said[2]


# What cannot be bundled or tested; most of it stands in test_refusals


def test_whoever_is_not_compared_is_told(bundle, newcomers, tmp_path):
    """A bundle of too few people does not say what they are like."""
    path = rebuilt(bundle, tmp_path / "few.zip", {"likeness.json": None, "likeness.npz": None})
    done(TEST, model=path, of=newcomers, to=tmp_path / "out")
    text = text_of(tmp_path / "out/report.html")
    assert "Nobody is compared with the training participants" in text and "holds no scan or ID" in text
    assert "out_of_distribution" not in read(tmp_path / "out", "participants")


def test_another_model_than_that_of_the_bundle_is_refused_though_it_is_the_default(delicate, newcomers, tmp_path):
    command = f"{TEST} --model mmnn"
    refused(command, "is of nn, not mmnn", model=delicate[0], of=newcomers, to=tmp_path / "out")


def test_weights_of_another_network_are_refused(bundle, newcomers, tmp_path):
    """As many numbers in other shapes. They are known once the network is built."""
    weights, content = arrays_of(parts_of(bundle)["weights.npz"]), io.BytesIO()
    np.savez(content, **{name: values.ravel() for name, values in weights.items()})
    path = rebuilt(bundle, tmp_path / "a.zip", {"weights.npz": content.getvalue()})
    refused(TEST, "weights of another network", model=path, of=newcomers, to=tmp_path / "out")


def test_a_bare_folder_says_nothing_of_its_people(tmp_path):
    lab.records(tmp_path / "cohort", 12)
    places = "--dataDir {of}/cohort --chkPointDir {of}/ckpt --outDir {of}/out"
    done(f"run.py --train --everybody --model nn --numIters 1 --set members=1 {places}", of=tmp_path)
    refused("abide-bundle {of}/ckpt/nn/everybody {of}/a.zip", "does not say how", "convert", of=tmp_path)


def test_cohort_and_score_are_found_from_any_folder(everybody, on_folds, converted, tmp_path, monkeypatch):
    """And after the folder of all was moved."""
    study = tmp_path / "study"
    shutil.copytree(converted, study / "cohort")
    shutil.copytree(on_folds / "test", study / "score")
    monkeypatch.chdir(study)
    words = "--score score --numIters 4 --set members=1 --set batch_size=8 --dataDir cohort --chkPointDir ckpt"
    done(f"run.py --train --everybody {words} --outDir out")
    monkeypatch.chdir(tmp_path)
    done("abide-bundle study/ckpt/mmnn/everybody a.zip")
    parts = parts_of(tmp_path / "a.zip")
    assert str(tmp_path).encode() not in b"".join(parts.values())
    study.rename(tmp_path / "moved")
    done("abide-bundle moved/ckpt/mmnn/everybody moved/a.zip")
    assert parts_of(tmp_path / "moved" / "a.zip")["weights.npz"] == parts["weights.npz"]
