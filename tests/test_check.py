"""abide-data check: each thing that would invalidate a result is found by name, and a sound cohort passes."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import TINY_NN, Outcome, Page, read_rows, resealed
from scipy import ndimage
from scipy.stats import pearsonr

from data import demo
from data.cohorts import atlas, phenotype, records
from data.cohorts.stored import open_cohort
from models import MODELS
from utils.runs import guards

pytestmark = pytest.mark.usefixtures("undrawn")

SOUND = "No problem was found"


@pytest.fixture
def copy(cohort, tmp_path) -> Path:
    """A copy of the cohort of 40 subjects, to spoil."""
    return shutil.copytree(cohort, tmp_path / "copy")


def volume_of(path: Path) -> np.ndarray:
    return np.fromfile(path, "<f4")[30:].reshape(records.REDUCED.shape)


def replace_volume(path: Path, volume: np.ndarray) -> None:
    """Label and phenotype stay."""
    path.write_bytes(path.read_bytes()[:120] + np.ascontiguousarray(volume, "<f4").tobytes())


def as_of_people(folder: Path) -> None:
    """As a cohort of people, in whom every run looks for copies; nobody does in what is simulated."""
    path = folder / "cohort.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"simulated": False}))


def files_of(folder: Path, split: str) -> list[str]:
    return [row["file"] for row in read_rows(folder / "subjects.csv") if row["split"] == split]


def edit_table(folder: Path, old: str, new: str) -> None:
    path = folder / "subjects.csv"
    path.write_text(re.sub(old, new, path.read_text(), flags=re.MULTILINE))


def problems(outcome) -> list[str]:
    """The problems that a check printed; its exit status must fit."""
    found = [line.removeprefix("PROBLEM: ") for line in outcome.out.splitlines() if line.startswith("PROBLEM: ")]
    assert outcome.status == (1 if found else 0)
    assert (SOUND in outcome.out) == (not found)
    assert outcome.err == ""
    return found


def notes(outcome) -> list[str]:
    lines = outcome.out.splitlines()
    return [line.removeprefix("  note: ") for line in lines if line.startswith("  note: ")]


def test_a_sound_cohort_passes_and_is_counted(copy, data_cli):
    outcome = data_cli("check", resealed(copy))
    assert problems(outcome) == []
    rows = read_rows(copy / "subjects.csv")
    for split in ("train", "test"):
        count = Counter(row["label"] for row in rows if row["split"] == split)
        assert f"{split}: {count.total()} subjects ({count['0']} control, {count['1']} autism)" in outcome.out
    for site in {row["site"] for row in rows}:
        count = Counter(row["label"] for row in rows if row["site"] == site)
        assert f"{site} {count['1']}/{count['0']}" in outcome.out
    assert "40 records of 40 subjects, 31x37x31, SIMULATED" in outcome.out


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_mirrored_volume_is_found(split, copy, data_cli):
    name = files_of(copy, split)[2]
    volume = volume_of(copy / name)
    replace_volume(copy / name, volume[::-1])
    assert problems(data_cli("check", resealed(copy))) == [
        f"left and right look exchanged in {name}; check their affines"
    ]
    mean = np.mean([volume_of(copy / other) for other in files_of(copy, "train")], 0).ravel()
    assert pearsonr(volume.ravel(), mean)[0] > pearsonr(volume[::-1].ravel(), mean)[0]  # what the check rests on


def test_half_of_the_people_mirrored_are_named_in_full(copy, data_cli):
    """The mean of all is of neither side then; of two halves, the smaller one is named."""
    names = [*files_of(copy, "train"), *files_of(copy, "test")]
    turned = set(names[: len(names) // 2 - 1])
    for name in turned:
        replace_volume(copy / name, volume_of(copy / name)[::-1])
    (told,) = [text for text in problems(data_cli("check", resealed(copy))) if text.startswith("left and right")]
    assert set(re.findall(r"[^ ,]+\.bin", told)) == turned
    assert told.endswith("(or in all others); check their affines")


@pytest.mark.parametrize("many", [False, True])
def test_negated_volumes_are_not_called_exchanged(many, copy, data_cli):
    names = [*files_of(copy, "train"), *files_of(copy, "test")]
    changed = set(names[: len(names) // 2 - 1] if many else names[3:4])
    for name in changed:
        replace_volume(copy / name, -volume_of(copy / name))
    (told,) = [text for text in problems(data_cli("check", resealed(copy))) if "look" in text]
    assert told.startswith("values look negated in")
    assert set(re.findall(r"[^ ,]+\.bin", told)) == changed


@pytest.mark.parametrize("many", [False, True])
def test_volumes_8_mm_further_left_are_not_called_exchanged(many, copy, data_cli):
    """Half of this lies on either side of the middle, as in real maps, whose brains are not quite there."""
    names = [*files_of(copy, "train"), *files_of(copy, "test")]
    moved = names[: len(names) // 2 - 1] if many else names[3:4]
    for name in names:
        by = -4 if name in moved else 4
        shifted = ndimage.shift(
            volume_of(copy / name), (by / records.REDUCED.spacing_mm, 0, 0), order=1, mode="nearest"
        )
        replace_volume(copy / name, shifted)
    assert not [text for text in problems(data_cli("check", resealed(copy))) if "look" in text]


def test_a_mirrored_volume_is_found_at_full_size(full_cohort, data_cli, tmp_path):
    folder = shutil.copytree(full_cohort, tmp_path / "full")
    path = folder / files_of(folder, "train")[0]
    content = np.fromfile(path, "<f4")
    content[30:] = content[30:].reshape(records.FULL.shape)[::-1].ravel()
    path.write_bytes(content.tobytes())
    found = problems(data_cli("check", resealed(folder)))
    assert f"left and right look exchanged in {path.name}; check their affines" in found


def test_one_subject_in_both_splits_under_two_ids(copy, data_cli):
    test = next(row for row in open_cohort(copy).rows if row.split == "test")
    alike = (row.file for row in open_cohort(copy).rows if row.split == "train" and row.label == test.label)
    train, test = next(alike), test.file
    replace_volume(copy / test, volume_of(copy / train))
    [found] = problems(data_cli("check", resealed(copy)))
    assert f"{train} (train)" in found
    assert f"{test} (test)" in found
    assert found.endswith(", one scan in train and test")


def test_identical_maps_of_a_record_are_a_note_of_their_own(tmp_path, data_cli):
    cohort = tmp_path / "cohort"
    demo.simulate(cohort, records.REDUCED, demo.Simulation(subjects=12, seed=1))
    opened = open_cohort(cohort)
    for index, row in enumerate(opened.rows):
        label, phenotype, volume = opened.read(index)
        second = volume if index == 3 else np.flip(volume, 2)
        (cohort / row.file).write_bytes(records.pack(label, phenotype, volume[..., 0], second[..., 0]))
    written = json.loads((cohort / "cohort.json").read_text()) | {"maps": ["falff", "alff"]}
    (cohort / "cohort.json").write_text(json.dumps(written))
    resealed(cohort)
    outcome = data_cli("check", cohort)
    assert f"maps of one record that are identical: {opened.rows[3].file}" in notes(outcome)
    assert "of one subject" not in outcome.out


@pytest.mark.slow
def test_identical_volumes_within_a_split_are_a_note(copy, data_cli):
    as_of_people(copy)
    rows = [row for row in read_rows(copy / "subjects.csv") if row["split"] == "train" and row["label"] == "0"]
    one, other = (row["file"] for row in rows[:2])
    replace_volume(copy / other, volume_of(copy / one))
    outcome = data_cli("check", resealed(copy))
    assert problems(outcome) == []
    assert f"identical volumes: {one} (train) and {other} (train)" in notes(outcome)
    assert "one scan" not in outcome.out
    subject = one.removesuffix(".bin")
    edit_table(copy, f"^{other},{other.removesuffix('.bin')},", f"{other},{subject},")
    assert f"identical volumes of one subject: {one} (train) and {other} (train)" in notes(
        data_cli("check", resealed(copy))
    )


@pytest.mark.slow
def test_copies_with_noise_are_told_by_split_and_label(copy, data_cli):
    """Of a training subject with one of its label, one of the other label, and a test subject."""
    as_of_people(copy)
    rows = read_rows(copy / "subjects.csv")
    control, same, *_ = [row for row in rows if row["split"] == "train" and row["label"] == "0"]
    other = next(row for row in rows if row["split"] == "train" and row["label"] == "1")
    test = next(row for row in rows if row["split"] == "test")
    noise = np.random.default_rng(0).normal(size=records.REDUCED.shape)
    original = volume_of(copy / control["file"])
    replace_volume(copy / same["file"], original + 1e-6 * noise)
    named = f"one scan under several IDs: {control['subject']} (train) and {same['subject']} (train)"
    outcome = data_cli("check", resealed(copy))
    assert (problems(outcome), named in notes(outcome)) == ([], True)
    replace_volume(copy / other["file"], original + 1e-3 * noise)
    replace_volume(copy / test["file"], original - 1e-3 * noise)
    (found,) = (text for text in problems(data_cli("check", resealed(copy))) if text.startswith("one scan"))
    assert found.startswith("one scan under several IDs: ")
    assert found.endswith(", one scan with both labels, one scan in train and test")
    assert all(f"{row['subject']} ({row['split']})" in found for row in (control, same, other, test))


@pytest.mark.parametrize("value", [0.0, -0.4])
def test_a_constant_volume(value, copy, data_cli):
    name = files_of(copy, "train")[0]
    replace_volume(copy / name, np.full(records.REDUCED.shape, value))
    [found] = problems(data_cli("check", resealed(copy)))
    assert found.endswith(f"{name} is constant ({value:g}); its map was empty")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place, words", [(5, "phenotype value 4"), (30 + 777, "volume value 777")])
def test_a_value_that_is_not_finite(value, place, words, copy, data_cli):
    path = copy / files_of(copy, "test")[0]
    content = np.fromfile(path, "<f4")
    content[place] = value
    path.write_bytes(content.tobytes())
    [found] = problems(data_cli("check", resealed(copy)))
    assert f"{path.name} holds {value} as {words}" in found


def test_every_problem_is_told_not_the_first_only(copy, data_cli):
    train = files_of(copy, "train")
    replace_volume(copy / train[0], np.zeros(records.REDUCED.shape))
    replace_volume(copy / train[1], np.full(records.REDUCED.shape, np.nan))
    replace_volume(copy / train[2], volume_of(copy / train[2])[::-1])
    outcome = data_cli("check", resealed(copy))
    assert len(problems(outcome)) == 3
    assert "3 problems invalidate results." in outcome.out


def test_a_split_without_a_class(copy, data_cli):
    rows = read_rows(copy / "subjects.csv")
    for row in rows:
        if row["split"] == "test" and row["label"] == "1":
            edit_table(copy, f"^({row['file']}.*),test$", r"\1,train")
    [found] = problems(data_cli("check", resealed(copy)))
    assert re.fullmatch(r"the test split lacks a class \(\d control, 0 autism\)", found)


def test_an_outlier_is_a_note_with_its_correlation(copy, data_cli):
    name = files_of(copy, "train")[7]
    shuffled = np.random.default_rng(0).permutation(volume_of(copy / name).ravel())
    replace_volume(copy / name, shuffled.reshape(records.REDUCED.shape))
    outcome = data_cli("check", resealed(copy))
    mean = np.mean([volume_of(copy / other) for other in files_of(copy, "train")], 0)
    expected = pearsonr(shuffled, mean.ravel())[0]
    [note] = [note for note in notes(outcome) if note.startswith("unlike the group mean")]
    assert note.endswith(f": {name} (r = {expected:.2f})")


def test_regions_without_signal_are_a_note(copy, data_cli):
    """The left middle frontal gyrus is cut out of three volumes, a third of the right one of two."""
    regions = atlas.load_atlas(None, records.REDUCED)
    left, right = (
        np.argwhere(regions.labels == number)
        for name in ("Frontal_Mid_L", "Frontal_Mid_R")
        for number, other in regions.names.items()
        if other == name
    )
    for position, name in enumerate(files_of(copy, "train")[:3]):
        volume = volume_of(copy / name).copy()
        volume[tuple(left.T)] = volume[0, 0, 0]
        if position < 2:
            volume[tuple(right[: len(right) // 3].T)] = volume[0, 0, 0]
        replace_volume(copy / name, volume)
    found = notes(data_cli("check", resealed(copy)))
    words = r"signal in under 50% of their voxels, by how many of 40 records: .*Frontal_Mid_L in 3(,|$)"
    assert any(re.search(words, note) for note in found)
    assert not any("Frontal_Mid_R" in note for note in found)


def test_one_subject_with_two_labels(copy, data_cli):
    rows = [row for row in read_rows(copy / "subjects.csv") if row["split"] == "train"]
    one, other = (next(row for row in rows if row["label"] == label) for label in "01")
    edit_table(copy, f"^{other['file']},{other['subject']},", f"{other['file']},{one['subject']},")
    assert f"both labels for one subject, of 1 subjects: {one['subject']}" in problems(
        data_cli("check", resealed(copy))
    )
    bare = copy.with_name("bare")
    bare.mkdir()
    for number, row in enumerate((one, other)):
        shutil.copy(copy / row["file"], bare / f"7_{number}.bin")
    assert "both labels for one subject, of 1 subjects: 7" in problems(data_cli("check", bare))


def brain_of(volume: np.ndarray) -> np.ndarray:
    return volume != volume[0, 0, 0]


def z_scored(volume: np.ndarray) -> np.ndarray:
    """As if the map had been z-scored within the brain before it was stored."""
    brain, result = brain_of(volume), np.zeros_like(volume)
    result[brain] = (volume[brain] - volume[brain].mean()) / volume[brain].std()
    return records.normalise(result)


def without_tables(folder: Path) -> Path:
    """The folder, of which records are left."""
    for name in ("cohort.json", "subjects.csv"):
        (folder / name).unlink()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("bare, by_label", [(False, True), (False, False), (True, True)])
def test_maps_of_two_kinds_are_found_in_stored_volumes(bare, by_label, copy, data_cli):
    for number, row in enumerate(read_rows(copy / "subjects.csv")):
        if int(row["label"]) if by_label else number % 3 == 0:
            replace_volume(copy / row["file"], z_scored(volume_of(copy / row["file"])))
    found = " ".join(problems(data_cli("check", without_tables(copy) if bare else resealed(copy))))
    words = r"maps of several kinds: \d+ (z-scored within the brain|positive in the brain) \(\d+\.bin, .*\) and \d+ "
    assert re.search(words, found)
    assert ("separate the training labels by" in found) == by_label


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda volume: np.where(np.arange(31)[:, None, None] < 8, volume[0, 0, 0], volume), "coverage"),
        (lambda volume: np.roll(volume, 1, axis=2), "z_mm"),
        (lambda volume: np.where(brain_of(volume), volume + 1, volume), "mean"),
    ],
)
def test_volumes_that_as_wholes_tell_the_label(change, named, copy, data_cli):
    for row in read_rows(copy / "subjects.csv"):
        if row["label"] == "1":
            replace_volume(copy / row["file"], change(volume_of(copy / row["file"])))
    found = problems(data_cli("check", resealed(copy)))
    assert any(re.search(rf"separate the training labels by .*{named} \(AUC 1\.00\)", text) for text in found)


def test_a_brain_elsewhere_is_a_problem_and_a_shifted_one_a_note(copy, data_cli):
    away, shifted = files_of(copy, "train")[:2]
    replace_volume(copy / away, np.roll(volume_of(copy / away), 15, axis=0))
    replace_volume(copy / shifted, np.roll(volume_of(copy / shifted), 3, axis=1))
    outcome = data_cli("check", resealed(copy))
    assert f"most of the brain lies outside the others' in {away}; check their affines" in problems(outcome)
    assert any(note.startswith("far from the others") and f" {shifted} (" in note for note in notes(outcome))


def test_sites_that_maps_tell_are_a_note(copy, data_cli):
    for number, row in enumerate(read_rows(copy / "subjects.csv")):
        edit_table(copy, f"^({row['file']},[^,]*),[^,]*,", rf"\1,{'AB'[number // 20]},")
        volume = volume_of(copy / row["file"])
        replace_volume(copy / row["file"], np.where(brain_of(volume), volume + number // 20, volume))
    outcome = data_cli("check", resealed(copy))
    assert problems(outcome) == []
    assert any(re.match("the maps' .*mean.* differ by site", note) for note in notes(outcome))


def test_sites_with_one_class_are_a_note(copy, data_cli):
    controls = [row["file"] for row in read_rows(copy / "subjects.csv") if row["label"] == "0"]
    for name in controls[:2]:
        edit_table(copy, f"^({name},[^,]*),[^,]*,", r"\1,LONELY,")
    assert any(
        "where site tells the label" in note and "LONELY" in note for note in notes(data_cli("check", resealed(copy)))
    )


def test_what_cannot_be_opened_is_status_2(copy, data_cli):
    (copy / files_of(copy, "train")[0]).unlink()
    outcome = data_cli("check", copy)
    assert outcome.status == 2
    assert outcome.err.startswith("abide-data: error: ")
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("scans", "warned"), [("preprocessed", True), ("cleaned", False)])
def test_maps_of_scans_without_confounds_are_a_warning_everywhere(scans, warned, copy, data_cli, cli, tmp_path):
    derived = {"derivation": {"measures": ["falff"], "confounds": "none", "scans": scans}}
    described = json.loads((copy / "cohort.json").read_text()) | derived
    (copy / "cohort.json").write_text(json.dumps(described))
    checked = data_cli("check", resealed(copy), "--html", tmp_path / "check.html")
    places = "--folds", "2", "--dataDir", copy, "--chkPointDir", tmp_path / "ckpt", "--outDir"
    assert cli("--train", "--model", "nn", "--numIters", "1", *TINY_NN, *places, tmp_path / "train").status == 0
    tested = cli("--test", "--model", "nn", *places, tmp_path / "test")
    named = cli("--blackout", "--model", "nn", *places, tmp_path / "blackout")
    written = "check.html", "test/report.html", "blackout/blackout.html"
    pages = [Page((tmp_path / name).read_text()).text for name in written]
    said = checked.out, tested.out, named.out, *pages
    assert [text.count("NOT CLEANED") for text in said[:3]] == [warned] * 3
    assert ["NOT CLEANED" in text for text in said] == [warned] * 6


@pytest.mark.slow
def test_the_page_is_marked_where_no_site_is_known(copy, data_cli, tmp_path):
    edit_table(copy, "^([^,]*,[^,]*),[^,]*,(.*(train|test))", r"\1,unknown,\2")
    checked = data_cli("check", resealed(copy), "--html", tmp_path / "check.html")
    page = Page((tmp_path / "check.html").read_text())
    assert "SITE UNKNOWN" in page.text and "invalidates" not in checked.out


def test_the_page_holds_the_report_and_nothing_from_elsewhere(copy, data_cli, tmp_path):
    """A site named like a script is text on the page, not a script."""
    evil = "<script>alert(1)</script>&amp;"
    edit_table(copy, f"^({files_of(copy, 'train')[0]},[^,]*),[^,]*,", rf"\1,{evil},")
    replace_volume(copy / files_of(copy, "train")[3], np.zeros(records.REDUCED.shape))
    outcome = data_cli("check", resealed(copy), "--html", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not {name for name, _ in page.attributes} & {"src", "srcset", "action"}
    assert all(value.startswith(("#", "data:")) for name, value in page.attributes if name.endswith("href"))
    assert page.tags.count("script") == 1 and not set(page.tags) & {"img", "iframe", "object", "embed"}
    assert not re.search(r"url\((?!data:image/webp;base64,)|@import|<script>alert", text)
    assert evil in page.text
    for line in [*problems(outcome), *notes(outcome)]:
        assert line in page.text


def training(folder: Path, cli, model: str = "nn") -> Outcome:
    """A training of one batch."""
    places = ("--dataDir", resealed(folder), "--chkPointDir", folder.parent / "ckpt", "--outDir", folder.parent / "out")
    return cli("--train", "--model", model, "--numIters", 1, *TINY_NN, *places)


@pytest.mark.slow
def test_training_prints_the_fast_form_first(copy, cli):
    """What the table tells is printed; volumes are not read, so that a damaged one is not reported yet."""
    replace_volume(copy / files_of(copy, "train")[0], np.full(records.REDUCED.shape, np.nan))
    outcome = training(copy, cli)
    assert outcome.status == 0, outcome.err
    for words in (
        "40 records of 40 subjects",
        "train: 36 subjects",
        f"Not checked: abide-data check {copy}\n",
    ):
        assert words in outcome.out
    assert SOUND not in outcome.out


@pytest.mark.slow
def test_problems_of_the_check_mark_every_result(copy, cli, data_cli, tmp_path):
    """The terminal, `run.json`, `runs.csv`; and once the cohort is another one, the verdict holds no more."""
    name = files_of(copy, "train")[2]
    replace_volume(copy / name, volume_of(copy / name)[::-1])
    found = problems(data_cli("check", resealed(copy)))
    outcome = training(copy, cli)
    assert f": 1 problem invalidates results: {found[0]}.\n" in outcome.out and SOUND not in outcome.out
    assert "(SIMULATED, PROBLEMS: 1)" in outcome.out
    assert json.loads((copy.parent / "out/run.json").read_text())["problems"] == found
    assert [row["cohort"] for row in read_rows(copy.parent / "runs.csv")] == [f"{copy} (SIMULATED, PROBLEMS: 1)"]
    edit_table(copy, ",NYU,", ",USM,")
    assert open_cohort(resealed(copy)).seal.verdict is None


@pytest.mark.slow
def test_a_verdict_that_cannot_be_stored_is_told(copy, data_cli):
    (copy / "check.json").mkdir()
    outcome = data_cli("check", resealed(copy))
    assert problems(outcome) == []
    assert f"The verdict is not stored, so that no later job can tell it: {copy / 'check.json'}: Is a" in outcome.out
    outcome = data_cli("check", without_tables(copy))
    assert "The verdict is not stored, so that no later job can tell it: records without tables" in outcome.out
    assert not [*(copy / "check.json").iterdir()]


def test_values_missing_in_one_class_at_a_site_are_a_note(copy, data_cli, monkeypatch):
    """VIQ is known of nobody with autism at one site, and of every control."""
    monkeypatch.setattr(phenotype, "ROUNDING", np.inf)  # the records hold other values
    values = open_cohort(copy).raw_phenotype
    edit_table(copy, r"^([^,]*bin,[^,]*),[^,]*,", r"\1,HERE,")
    people = open_cohort(resealed(copy)).rows
    values["viq"] = [np.nan if row.label else 100.0 for row in people]
    phenotype.write_by_subject(copy / "phenotype.csv", values)
    (found,) = [note for note in notes(data_cli("check", resealed(copy))) if "missing" in note]
    autism = sum(row.label for row in people)
    assert found.startswith("viq missing in 0 of ") and f"{autism:.0f} of {autism:.0f} people with autism at" in found


@pytest.mark.slow
def test_training_says_what_is_wrong_and_stops_where_it_cannot_learn(copy, cli):
    edit_table(copy, ",test$", ",train")
    assert "note: no test subjects: a model can be trained on this cohort, not tested" in training(copy, cli).out
    for row in read_rows(copy / "subjects.csv"):
        if row["label"] == "1":
            (copy / row["file"]).unlink()
            edit_table(copy, f"^{row['file']}.*\n", "")
    shutil.rmtree(copy.parent / "ckpt")
    assert "has one class only among its training subjects" in training(copy, cli).err
    run = SimpleNamespace(cohort=open_cohort(copy), model=MODELS["ae"], folds=None)
    guards.two_classes(run)  # reconstructs; labels are not needed


def test_the_report_counts_subjects_not_records(copy):
    """A swapped copy of a subject is no further subject."""
    row = next(row for row in read_rows(copy / "subjects.csv") if row["split"] == "train")
    shutil.copy(copy / row["file"], copy / "swap.bin")
    with open(copy / "subjects.csv", "a") as file:
        file.write(f"swap.bin,{row['subject']},{row['site']},{row['label']},train\n")
    report = open_cohort(resealed(copy)).census()
    assert "41 records of 40 subjects" in report.title
    assert report.people.counts[0].startswith("train: 36 subjects")
    assert records.CLASSES == ("control", "autism")


@pytest.mark.slow
def test_the_page_replaces_nothing_but_a_page(copy, data_cli, tmp_path):
    for _ in range(2):
        assert data_cli("check", resealed(copy), "--html", tmp_path / "page.html").status == 0
    (tmp_path / "subjects.csv").write_text("mine")
    for place, message in (
        ("subjects.csv", "is no page of a check"),
        ("nodir/x.html", "is no place"),
        (".", "is no place"),
    ):
        outcome = data_cli("check", resealed(copy), "--html", tmp_path / place)
        assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
        assert message in outcome.err
    assert (tmp_path / "subjects.csv").read_text() == "mine"
