"""abide-bundle: what a bundle predicts, beside its checkpoint and whole passes of its network; nobody is in it."""

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab
import numpy as np
import pandas as pd
import pytest
from bundles import SUMS_FILE, build_bundled_network, load_npz, read_bundle_files, read_people, rebuild_bundle
from commands import done, read_manifest, read_page_text, refused
from helpers import reseal
from scipy.special import expit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

TEST_BUNDLE = "run.py --test --bundle {model} --dataDir {of} --outDir {to}"
ID_PATTERN = r"(?<![\da-f.])0*500(0[2-9]|1\d|2\d)(?![\da-f])"  # of the people of `lab`
CONVERT_LAB = "abide-data convert {lab} {to} --grid reduced"


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv", dtype={"subject": str, "labels": str})


def read_model_json(path: Path) -> dict:
    return json.loads(read_bundle_files(path)["model.json"])


def edit_model_json(bundle: Path, path: Path, **changes: object) -> Path:
    """The bundle whose `model.json` has other values, as a new file."""
    return rebuild_bundle(bundle, path, {"model.json": json.dumps(read_model_json(bundle) | changes).encode()})


# What it predicts


@pytest.fixture(scope="module")
def tested(bundle, newcomers, tmp_path_factory) -> Path:
    """The results of a test of the newcomers, for a share of autism of a half, by a file alone in its folder."""
    folder = tmp_path_factory.mktemp("tested")
    moved = shutil.copy(bundle, folder / "moved.zip")
    done(f"{TEST_BUNDLE} --prevalence 0.5", model=moved, of=newcomers, to=folder / "out")
    return folder / "out"


@pytest.mark.bits
def test_it_predicts_as_the_checkpoint_byte_for_byte(tested, everybody, newcomers, tmp_path):
    """And says the same of each person."""
    command = "run.py --test --everybody --dataDir {of} --chkPointDir {by}/ckpt --outDir {to} --prevalence 0.5"
    done(command, of=newcomers, by=everybody, to=tmp_path / "out")
    for name in ("predictions.csv", "participants.csv", "out_of_distribution.csv", "external.csv"):
        bundle_path, checkpoint_path = (folder / name for folder in (tested, tmp_path / "out"))
        assert bundle_path.exists() == checkpoint_path.exists() and (
            not bundle_path.exists() or bundle_path.read_bytes() == checkpoint_path.read_bytes()
        ), name
    assert len(read(tested, "predictions")) == 12


def test_probabilities_equal_full_passes_by_the_network(tested, bundle, newcomers):
    predictions, people = read(tested, "predictions"), read_people(newcomers)
    assert predictions["subject"].tolist() == people["subject"].tolist()
    np.testing.assert_allclose(predictions["probability"], expit(build_bundled_network(bundle)(people)), atol=2e-6)


def test_probabilities_follow_the_prevalence(tested, bundle, newcomers, tmp_path):
    """By the odds, which is all that changes; sets of labels hold however common autism is."""
    done(f"{TEST_BUNDLE} --prevalence 0.01", model=bundle, of=newcomers, to=tmp_path / "out")
    half_participants, rare_participants = (read(folder, "participants") for folder in (tested, tmp_path / "out"))
    odds, rare_odds = (
        participants["probability"] / (1 - participants["probability"])
        for participants in (half_participants, rare_participants)
    )
    np.testing.assert_allclose(odds / rare_odds, 99, rtol=0.02)
    assert (
        half_participants["labels"].tolist() == rare_participants["labels"].tolist()
        and half_participants["labels"].notna().all()
    )
    assert (half_participants["raw"] == rare_participants["raw"]).all()


def test_a_fold_baseline_accompanies_the_score(tested, on_folds):
    """The one that was pre-specified, since none can be fitted."""
    baselines = read(on_folds / "test", "baselines").set_index("baseline")
    row, baseline_result = (
        baselines[baselines["role"] == "pre-specified"].iloc[0],
        read_manifest(tested)["conclusion"]["baseline"],
    )
    assert (
        baseline_result["name"] == row.name
        and baseline_result["where"]
        and row.name in read_page_text(tested / "report.html")
    )
    for name, interval in (
        ("auc_sites", baseline_result["auc"]),
        ("model_minus_baseline_auc_sites", baseline_result["less"]),
    ):
        assert [*interval.values()] == pytest.approx([row[f"{name}{end}"] for end in ("", "_low", "_high")])
    assert not (tested / "baselines.csv").exists()


def test_baselines_use_the_models_training_people_though_new_people_have_a_training_split(
    bundle, everybody, newcomers, tmp_path
):
    """Who are at hand of a checkpoint only: half of them have autism, of the others' training split two thirds."""
    tables = lab.copy(newcomers, tmp_path / "tables")
    rank_in_label = lab.read_table(newcomers / "subjects.csv").groupby("label").cumcount()
    is_trained = (rank_in_label < 4) & (
        (lab.read_table(newcomers / "subjects.csv")["label"] == "1") | (rank_in_label < 2)
    )
    lab.edit(tables / "subjects.csv", lambda table: table.assign(split=is_trained.map({True: "train", False: "test"})))
    done("abide-data pack {of} {to}/new --tables {tables}", of=newcomers, to=tmp_path, tables=tables)
    done(TEST_BUNDLE, model=bundle, of=tmp_path / "new", to=tmp_path / "a")
    assert not (tmp_path / "a/baseline_predictions.csv").exists()
    command = "run.py --test --everybody --dataDir {of} --chkPointDir {by}/ckpt --outDir {to}"
    done(command, of=tmp_path / "new", by=everybody, to=tmp_path / "b")
    baseline_predictions = read(tmp_path / "b", "baseline_predictions")
    assert (
        len(baseline_predictions) == 6
        and (baseline_predictions["majority"] == 0.5).all()
        and "all, SVM" in baseline_predictions
    )


def test_without_a_score_nothing_is_calibrated(bundle, newcomers, tmp_path):
    printed_text = done(TEST_BUNDLE, model=bundle, of=newcomers, to=tmp_path / "first")
    assert "20 participants with autism" in printed_text and "20 controls" in printed_text
    path = edit_model_json(bundle, tmp_path / "plain.zip", cross_validation=None)
    assert "nobody knows" in done(TEST_BUNDLE, model=path, of=newcomers, to=tmp_path / "out")
    assert "not calibrated" in read_page_text(tmp_path / "out/report.html")
    people = read(tmp_path / "out", "participants")
    assert len(people) == 12 and people[["probability", "labels"]].isna().all(axis=None)
    refused(f"{TEST_BUNDLE} --prevalence 0.01", "--prevalence", "{model}", model=path, of=newcomers, to=tmp_path / "no")


def test_people_without_labels_are_predicted_and_not_blacked_out(tested, bundle, newcomers, tmp_path):
    source = lab.copy(newcomers.parent / "lab", tmp_path / "lab")
    lab.edit(source / "Phenotypic.csv", lambda table: table.assign(DX_GROUP=""))
    done("abide-data convert {source} {to} --like {model}", source=source, to=tmp_path / "new", model=bundle)
    printed_text = done(TEST_BUNDLE, model=bundle, of=tmp_path / "new", to=tmp_path / "out")
    assert re.search(r"^problems +1 ", printed_text, re.M) and re.search(r"^warnings +\d ", printed_text, re.M)
    predictions = read(tmp_path / "out", "predictions")
    assert predictions["label"].isna().all()
    assert predictions["probability"].tolist() == read(tested, "predictions")["probability"].tolist()
    places = {"model": bundle, "of": tmp_path / "new", "to": tmp_path / "none"}
    refused(TEST_BUNDLE.replace("--test", "--blackout"), "no label", "--exclude", **places)


def test_unlike_people_are_reported_and_nobody_may_be(bundle, newcomers, tmp_path):
    likeness = json.loads(read_bundle_files(bundle)["likeness.json"])
    age_zero_ranges = {"person": {"age": dict.fromkeys(("low", "middle", "high"), 0.0)}}
    for name, ranges in (("none", {}), ("all", age_zero_ranges)):
        changes = {"likeness.json": json.dumps(likeness | {"ranges": ranges, "categories": {}, "known": []}).encode()}
        path = rebuild_bundle(bundle, tmp_path / f"{name}.zip", changes)
        done(TEST_BUNDLE, model=path, of=newcomers, to=tmp_path / name)
        count = read(tmp_path / name, "participants")["out_of_distribution"].notna().sum()
        assert len(read(tmp_path / name, "out_of_distribution")) == count and (count > 0) == (name == "all")


# What it says


def test_equal_networks_give_equal_bytes(bundle, everybody, tmp_path):
    """But for the day; nothing else is written."""
    done("abide-bundle {of}/ckpt/mmnn/everybody {to}/a.zip --licence CC-BY-4.0", of=everybody, to=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]
    bytes_by_name, second_bytes_by_name = read_bundle_files(bundle), read_bundle_files(tmp_path / "a.zip")
    assert bytes_by_name.keys() == second_bytes_by_name.keys() and {
        name for name in bytes_by_name if bytes_by_name[name] != second_bytes_by_name[name]
    } <= {"card.md", SUMS_FILE}


def test_the_card_has_the_numbers_from_table_and_score(bundle, on_folds):
    table, scores = lab.people(), json.loads((on_folds / "test" / "metrics.json").read_text())
    age, auc, card = table["AGE_AT_SCAN"].astype(float), scores["auc"], read_bundle_files(bundle)["card.md"].decode()
    assert f"mean {age.mean():.3g}, SD {age.std():.3g}," in card and "20 with autism and 20 controls" in card
    assert f"| auc | {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f}) |" in card
    for site, site_rows in table.groupby("SITE_ID"):
        counts = site_rows["DX_GROUP"].value_counts()
        assert f"| {site} | {counts['1']} | {counts['2']} |" in card
    assert "Licence of the weights: CC-BY-4.0." in card


# Nothing of any person


def read_texts(path: Path) -> dict[str, str]:
    return {
        name: content.decode()
        for name, content in read_bundle_files(path).items()
        if not name.endswith((".npz", ".gz"))
    }


def find_number_lists(content: object) -> Iterator[list]:
    """All lists of numbers in JSON, flat."""
    if isinstance(content, list) and content and all(type(element) in (int, float) for element in content):
        yield content
    elif isinstance(content, list | dict):
        for element in content.values() if isinstance(content, dict) else content:
            yield from find_number_lists(element)


def test_no_id_file_name_or_personal_value_is_in_any_text(bundle, lab, on_folds):
    """By the words that a search would look for: IDs, with and without zeros, ages, motion, probabilities."""
    table = pd.read_csv(lab / "Phenotypic.csv", dtype=str)
    ids = [text for _, row in table.iterrows() for text in (row["SUB_ID"], row["FILE_ID"], row["FILE_ID"].lower())]
    values = [*table["AGE_AT_SCAN"], *table["func_mean_fd"]]
    values += pd.read_csv(on_folds / "test" / "predictions.csv", dtype=str)["probability"].tolist()
    for name, text in read_texts(bundle).items():
        assert not [
            personal_text for personal_text in ids if re.search(rf"(?<![\w.]){re.escape(personal_text)}(?!\w)", text)
        ], name
        assert not [
            personal_text for personal_text in values if re.search(rf"(?<![\d.]){re.escape(personal_text)}(?!\d)", text)
        ], name


def test_no_array_comes_from_a_person(converted, bundle):
    """Neither a volume, nor a part of one, nor a connectome, nor a phenotype, raw or scaled."""
    people, raw_phenotype = read_people(converted), lab.read_table(converted / "phenotype.csv").drop(columns="subject")
    phenotypes = [*raw_phenotype.replace("", np.nan).to_numpy(float), *people["phenotype"]]
    records = [path.read_bytes()[120:] for path in converted.glob("*.bin")]
    pieces = [personal_data[20_000:20_064] for personal_data in records if len(set(personal_data[20_000:20_064])) > 8]
    assert len(pieces) == len(records) == 40
    personal_values = [*people["connectome"], *people["volume"]]
    for name, content in read_bundle_files(bundle).items():
        assert not [personal_data for personal_data in pieces if personal_data in content], name
        for values in load_npz(content).values() if name.endswith(".npz") else ():
            assert not [
                personal_data
                for personal_data in personal_values
                if personal_data.shape == values.shape and np.allclose(personal_data, values, atol=1e-3)
            ], name
        if name.endswith(".json"):
            lists = [number_list for number_list in find_number_lists(json.loads(content)) if len(number_list) == 29]
            assert not [
                number_list
                for number_list in lists
                for personal_values in phenotypes
                if np.allclose(number_list, personal_values, atol=1e-3)
            ], name


@pytest.fixture(scope="module")
def delicate_bundle(tmp_path_factory) -> tuple[Path, str]:
    """The bundle of a lab of which nearly all may tell who is in it, and what was printed as it was made: five sites
    have few people, one person alone is of a category, few have an IQ, and problems name people."""
    folder = tmp_path_factory.mktemp("delicate")
    table = lab.people(24).assign(FIQ="", hand=["both"] + ["left"] * 23)
    table["SITE_ID"] = ["NYU"] * 12 + ["USM"] * 6 + ["PITT", "KKI", "KKI", "KKI", "UM", "UM"]
    table.loc[:2, "FIQ"] = ["100", "90", "121"]
    lab.pcp(folder / "lab", table)
    places = {"lab": folder / "lab", "to": folder / "cohort", "of": folder}
    done(f"{CONVERT_LAB} --phenotype FIQ,hand,AGE_AT_SCAN", **places)
    done("abide-data check {of}/cohort", **places)
    texts = ["50006 and 0050007 share a scan", "50008 has no signal", "50009: half of the connectome is empty"]
    problems = [{"code": f"code-{number}: {text[:5]}", "text": text} for number, text in enumerate(texts)]
    lab.edit(folder / "cohort" / "check.json", {"problems": problems, "about": ["participants", "maps", "connectomes"]})
    command = "run.py --train --everybody --model nn --numIters 1 --set members=1 --dataDir {of}/cohort"
    done(f"{command} --chkPointDir {{of}}/ckpt --outDir {{of}}/out", **places)
    printed_text = done("abide-bundle {of}/ckpt/nn/everybody {of}/a.zip", **places)
    return folder / "a.zip", printed_text


def test_small_sites_and_rare_values_are_withheld(delicate_bundle):
    path, printed_text = delicate_bundle
    card = read_bundle_files(path)["card.md"].decode()
    assert "| NYU | 6 | 6 |" in card and "| USM | < 5 | < 5 |" in card
    assert "| sites of fewer than 5: 3 | < 5 | < 5 |" in card and "KKI" not in card
    withheld_columns = re.search(r"Few participants have (.*), so that the name", printed_text)[1].split(", ")
    assert withheld_columns == ["FIQ", "hand_both"]


def test_cohort_problems_are_counted_without_names(delicate_bundle):
    path, printed_text = delicate_bundle
    for name, text in read_texts(path).items():
        assert not re.search(ID_PATTERN, text), name
    card = read_bundle_files(path)["card.md"].decode()
    assert (
        "(PROBLEMS: 3)" in printed_text
        and "(PROBLEMS: 3)\n" in card
        and card.count("problem of the cohort invalid") == 3
    )
    assert re.findall("one about (\\w+)", card) == ["participants", "maps", "connectomes"]


def test_no_id_is_in_fold_results_and_choices(tmp_path, delicate_bundle):
    """Though the file of candidates is called and commented by one, and so are folders."""
    cohort_folder, output_folder = delicate_bundle[0].parent / "cohort", tmp_path / "50002"
    output_folder.mkdir()
    lines = "".join(f"--preset sine --set members=1 --set batch_size={size}  # of 0050003\n" for size in (4, 8))
    (output_folder / "50004.txt").write_text(lines)
    places = "--model nn --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"
    done(
        f"run.py --train --folds 2 --numIters 1 --choose {{to}}/50004.txt {places}train",
        of=cohort_folder,
        to=output_folder,
    )
    done(f"run.py --test --folds 2 {places}test", of=cohort_folder, to=output_folder)
    done(f"run.py --train --everybody --score {{to}}/test {places}all", of=cohort_folder, to=output_folder)
    done("abide-bundle {to}/ckpt/nn/everybody {to}/a.zip", to=output_folder)
    texts = read_texts(output_folder / "a.zip")
    assert (
        "which was chosen in" in texts["card.md"]
        and read_model_json(output_folder / "a.zip")["cross_validation"]["conclusion"]
    )
    assert not [name for name, text in texts.items() if re.search(ID_PATTERN, text)]


def test_simulated_people_are_marked_wherever_their_network_speaks(converted, newcomers, tmp_path):
    lab.edit(lab.copy(converted, tmp_path / "cohort") / "cohort.json", {"simulated": True})
    reseal(tmp_path / "cohort")
    command = "run.py --train --everybody --model nn --numIters 1 --set members=1 --dataDir {of}/cohort"
    done(f"{command} --chkPointDir {{of}}/ckpt --outDir {{of}}/out", of=tmp_path)
    printed_texts = [done("abide-bundle {of}/ckpt/nn/everybody {of}/a.zip", of=tmp_path)]
    printed_texts.append(done(TEST_BUNDLE, model=tmp_path / "a.zip", of=newcomers, to=tmp_path / "test"))
    printed_texts += [
        read_bundle_files(tmp_path / "a.zip")["card.md"].decode(),
        read_page_text(tmp_path / "test/report.html"),
    ]
    assert all("(SIMULATED" in text for text in printed_texts)
    assert "nothing here says anything about people" in printed_texts[2]


# What cannot be bundled or tested; most of it stands in test_refusals


def test_people_not_compared_are_reported(bundle, newcomers, tmp_path):
    """A bundle of too few people does not say what they are like."""
    path = rebuild_bundle(bundle, tmp_path / "few.zip", {"likeness.json": None, "likeness.npz": None})
    done(TEST_BUNDLE, model=path, of=newcomers, to=tmp_path / "out")
    text = read_page_text(tmp_path / "out/report.html")
    assert "Nobody is compared with the training participants" in text and "holds no scan or ID" in text
    assert "out_of_distribution" not in read(tmp_path / "out", "participants")


def test_a_model_unlike_the_bundles_is_refused_though_it_is_the_default(delicate_bundle, newcomers, tmp_path):
    command = f"{TEST_BUNDLE} --model mmnn"
    refused(command, "is of nn, not mmnn", model=delicate_bundle[0], of=newcomers, to=tmp_path / "out")


def test_weights_from_another_network_are_refused(bundle, newcomers, tmp_path):
    """As many numbers in other shapes. They are known once the network is built."""
    weights, content = load_npz(read_bundle_files(bundle)["weights.npz"]), io.BytesIO()
    flat_weights: dict[str, Any] = {name: values.ravel() for name, values in weights.items()}
    np.savez(content, **flat_weights)
    path = rebuild_bundle(bundle, tmp_path / "a.zip", {"weights.npz": content.getvalue()})
    refused(TEST_BUNDLE, "weights of another network", model=path, of=newcomers, to=tmp_path / "out")


def test_a_bare_folder_says_nothing_about_people(tmp_path):
    lab.records(tmp_path / "cohort", 12)
    places = "--dataDir {of}/cohort --chkPointDir {of}/ckpt --outDir {of}/out"
    done(f"run.py --train --everybody --model nn --numIters 1 --set members=1 {places}", of=tmp_path)
    refused("abide-bundle {of}/ckpt/nn/everybody {of}/a.zip", "does not say how", "convert", of=tmp_path)


def test_cohort_and_score_are_located_from_any_folder(everybody, on_folds, converted, tmp_path, monkeypatch):
    """And after the folder of all was moved."""
    study = tmp_path / "study"
    shutil.copytree(converted, study / "cohort")
    shutil.copytree(on_folds / "test", study / "score")
    monkeypatch.chdir(study)
    words = "--score score --numIters 4 --set members=1 --set batch_size=8 --dataDir cohort --chkPointDir ckpt"
    done(f"run.py --train --everybody {words} --outDir out")
    monkeypatch.chdir(tmp_path)
    done("abide-bundle study/ckpt/mmnn/everybody a.zip")
    bytes_by_name = read_bundle_files(tmp_path / "a.zip")
    assert str(tmp_path).encode() not in b"".join(bytes_by_name.values())
    study.rename(tmp_path / "moved")
    done("abide-bundle moved/ckpt/mmnn/everybody moved/a.zip")
    assert read_bundle_files(tmp_path / "moved" / "a.zip")["weights.npz"] == bytes_by_name["weights.npz"]
