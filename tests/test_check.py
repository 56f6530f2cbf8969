"""abide-data check: what would invalidate a result is found by name, and its page shows everybody."""

import base64
import io
import json
import re
import shutil
from itertools import takewhile
from pathlib import Path
from typing import Any

import lab
import nibabel
import numpy as np
import pandas as pd
import pytest
from commands import done, read_manifest, read_page_text, run
from helpers import read_rows, reseal
from lab import load_image
from nilearn.image import math_img
from PIL import Image
from scipy import ndimage
from scipy.stats import pearsonr
from test_likeness import change_record, region_mask

from data.likeness import reasons

pytestmark = pytest.mark.usefixtures("undrawn")

SOUND = "No problem was found"
TRAIN = "run.py --train --model nn --numIters 1 --set members=1"


@pytest.fixture
def copy(cohort, tmp_path) -> Path:
    """A copy of the cohort of 40 subjects, to spoil."""
    return lab.copy(cohort, tmp_path / "copy")


def read_stored_volume(path: Path) -> np.ndarray:
    return lab.read_record(path)[2][0]


def change(path: Path, to) -> None:
    """Another volume; label and phenotype stay."""
    lab.edit(path, change_record(path, to))


def find_record_paths(folder: Path, **columns: str) -> list[Path]:
    """The records of the rows with these values."""
    table = lab.read_table(folder / "subjects.csv")
    return [
        folder / row["file"]
        for _, row in table.iterrows()
        if all(row[name] == value for name, value in columns.items())
    ]


def set_column(folder: Path, column: str, value: str, files: list[Path]) -> None:
    names = [path.name for path in files]
    lab.edit(
        folder / "subjects.csv",
        lambda table: table.assign(**{column: table[column].mask(table["file"].isin(names), value)}),
    )


def check(folder: Path, sealed: bool = True) -> tuple[list[str], list[str]]:
    """Problems and notes of its page; its exit status must fit, and what it prints, of which there are ten lines."""
    page = folder.with_name("check.html")
    outcome = run("abide-data check {of} --html {page}", of=reseal(folder) if sealed else folder, page=page)
    lines = read_page_text(page).splitlines()
    after = lines[lines.index("Problems") + 1 :] if "Problems" in lines else []
    problems = [*takewhile(lambda line: line not in ("What is not known", "participants"), after)]
    note_texts = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
    assert (outcome.status, outcome.err) == (1 if problems else 0, "")
    assert (SOUND in outcome.out) == (not problems)
    printed = [line.split(maxsplit=1) for line in outcome.out.splitlines() if line.startswith(("PROBLEM", "note"))]
    assert printed == [["PROBLEM", text] for text in problems[:3]] + [["note", text] for text in note_texts[:2]]
    return problems, note_texts


@pytest.mark.slow
def test_a_sound_cohort_passes(copy):
    """A swapped copy of a subject is no further subject."""
    check_output = done("abide-data check {of}", of=copy)
    assert (
        SOUND in check_output
        and "PROBLEM" not in check_output
        and "40 records of 40 participants, 31x37x31, SIMULATED" in check_output
    )
    first = lab.read_table(copy / "subjects.csv")["file"][0]
    shutil.copy(copy / first, copy / "swap.bin")
    lab.edit(copy / "subjects.csv", lambda table: pd.concat([table, table[:1].assign(file="swap.bin")]))
    check_output = done("abide-data check {of}", of=reseal(copy))
    assert "41 records of 40 participants" in check_output and "under several IDs" not in check_output


def test_wrong_records_alone_are_listed(copy):
    """All in one cohort."""
    train, tested = find_record_paths(copy, split="train"), find_record_paths(copy, split="test")[0]
    gone, lost, mirrored, away, moved, mixed, *half_empty_paths, negated = train[:10]
    left, right = (region_mask(f"Frontal_Mid_{side}") for side in "LR")
    change(gone, lambda volume: np.full(volume.shape, -0.4))
    lab.edit(lost, flawed(lost, 30 + 777, np.nan))
    change(mirrored, lambda volume: volume[::-1])
    change(negated, np.negative)
    change(away, lambda volume: np.roll(volume, 15, axis=0))
    change(moved, lambda volume: np.roll(volume, 3, axis=1))
    change(mixed, lambda volume: np.random.default_rng(0).permutation(volume.ravel()).reshape(volume.shape))
    for path in half_empty_paths:
        change(path, lambda volume: np.where(left, volume[0, 0, 0], volume))
    change(
        half_empty_paths[0],
        lambda volume: np.where(
            right & (np.cumsum(right).reshape(volume.shape) < right.sum() / 3), volume[0, 0, 0], volume
        ),
    )
    twin = next(path for path in train[10:] if lab.read_record(path)[0] == lab.read_record(tested)[0])
    change(tested, lambda _: read_stored_volume(twin))
    problems, note_texts = check(copy)
    names = [path.name for path in (lost, gone, mirrored, negated, away, mixed)]
    kinds = next(text for text in problems if text.startswith("maps of several kinds"))
    assert f" and 1 z-scored within the brain ({negated.name}); convert maps of one kind" in kinds
    for text, words in zip(
        sorted({*problems} - {kinds}, key=lambda text: [name in text for name in names], reverse=True),
        (
            f"{lost} holds nan as volume value 777",
            f"{gone.name} is constant (-0.4); its map of falff was empty",
            f"falff: left and right look exchanged in {mirrored.name}; check their affines",
            f"falff: values look negated in {negated.name}; make these maps again",
            f"falff: no likeness to the mean of the others in {away.name}, {mixed.name}; check their affines",
            f"one scan under several IDs: {tested.stem} (test) and {twin.stem} (train), one scan in train and test",
        ),
        strict=True,
    ):
        assert text.startswith(words)
    mean = np.mean([read_stored_volume(path) for path in train if path not in (gone, lost)], 0).ravel()
    unlike_note_by_file = {note.split()[0]: note for note in note_texts if " is unlike the others: " in note}
    assert "falff: the centre of the brain is 18 mm too far to the front" in unlike_note_by_file[moved.name]
    (r,) = re.findall(
        r"correlation with the mean of the others is ([\d.]+)", unlike_note_by_file[half_empty_paths[0].name]
    )
    assert float(r) == pytest.approx(pearsonr(read_stored_volume(half_empty_paths[0]).ravel(), mean)[0], abs=0.02)
    assert (
        {moved.name, half_empty_paths[0].name}
        <= {*unlike_note_by_file}
        <= {path.name for path in (mixed, moved, away, *half_empty_paths)}
    )
    (regions,) = (note for note in note_texts if note.startswith("regions with signal in under 50% of their voxels"))
    assert "by how many of 38 participants: Frontal_Mid_L in 5, " in regions and "Frontal_Mid_R in 4" not in regions


def flawed(path: Path, place: Any, value: float) -> bytes:
    content = np.fromfile(path, "<f4")
    content[place] = value
    return content.tobytes()


def list_all_and_under_half(folder: Path) -> tuple[list[Path], list[Path]]:
    """All records, and somewhat fewer than half of them."""
    all_paths = [*find_record_paths(folder, split="train"), *find_record_paths(folder, split="test")]
    return all_paths, all_paths[: len(all_paths) // 2 - 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "to, expected_start",
    [
        (lambda volume: volume[::-1], "falff: left and right look exchanged in "),
        (np.negative, "falff: values look negated in "),
    ],
)
def test_half_the_people_turned_are_listed_in_full(to, expected_start, copy):
    """The mean of all is of neither side then; of two halves, the smaller one is named."""
    _, turned = list_all_and_under_half(copy)
    for path in turned:
        change(path, to)
    (problem,) = (text for text in check(copy)[0] if "look" in text)
    assert problem.startswith(expected_start) and "(or in all others); " in problem
    assert set(re.findall(r"[^ ,]+\.bin", problem)) == {path.name for path in turned}


def blurred_to_the_back(volume: np.ndarray) -> np.ndarray:
    """A faint tail behind the brain, as smoothing leaves it: 2 % of the difference from the background."""
    background = volume[0, 0, 0]
    tail = np.maximum.accumulate(np.abs(volume - background)[:, ::-1], axis=1)[:, ::-1]
    return np.where(volume == background, background + 0.02 * tail, volume)


@pytest.mark.slow
def test_a_faint_tail_behind_a_brain_moves_no_centre(copy):
    all_paths, blurred = list_all_and_under_half(copy)
    moved = all_paths[-1]
    for path in blurred[:5]:
        change(path, blurred_to_the_back)
    change(moved, lambda volume: np.roll(volume, 1, axis=1))
    centre_lines = [note for note in check(copy)[1] if "the centre of the brain" in note]
    assert [note.split()[0] for note in centre_lines] == [moved.name] and "6 mm too far to the front" in centre_lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_volumes_8_mm_further_left_are_not_called_exchanged(many, copy):
    """Half of this lies on either side of the middle, as in real maps, whose brains are not quite there."""
    all_paths, moved = list_all_and_under_half(copy)
    moved = moved if many else all_paths[3:4]
    for path in all_paths:
        by = (-4 if path in moved else 4) / 6
        change(path, lambda volume, by=by: ndimage.shift(volume, (by, 0, 0), order=1, mode="nearest"))
    assert not [text for text in check(copy)[0] if "look" in text]


@pytest.mark.slow
def test_a_map_without_the_usual_sides_is_not_called_exchanged(copy):
    """What differs between its left and right has a correlation of -0.1 with that of the others."""
    path = find_record_paths(copy, split="train")[0]
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=read_stored_volume(path).shape), 1)

    def change_asymmetry(volume: np.ndarray) -> np.ndarray:
        added_asymmetry, volume_asymmetry = noise - noise[::-1], volume - volume[::-1]
        added_asymmetry = (
            added_asymmetry
            - volume_asymmetry
            * (added_asymmetry * volume_asymmetry).sum()
            / (volume_asymmetry * volume_asymmetry).sum()
        )
        sides = added_asymmetry / np.linalg.norm(added_asymmetry) - 0.1 * volume_asymmetry / np.linalg.norm(
            volume_asymmetry
        )
        return np.where(
            volume == volume[0, 0, 0],
            volume,
            (volume + volume[::-1]) / 2 + np.linalg.norm(volume_asymmetry) / 2 * sides,
        )

    change(path, change_asymmetry)
    problems, note_texts = check(copy)
    assert not problems and any(note.startswith(f"{path.name} is unlike the others: ") for note in note_texts)


@pytest.mark.slow
def test_maps_in_individual_spaces_are_reported(copy):
    random = np.random.default_rng(0)
    for path in find_record_paths(copy):
        change(path, lambda volume: np.roll(volume, random.integers(-2, 3, 3), axis=(0, 1, 2)))
    assert any("mm from the middle of all, as in each participant's own space" in text for text in check(copy)[0])


@pytest.mark.slow
def test_a_mirrored_volume_is_detected_with_full_size(full_cohort, tmp_path):
    folder = lab.copy(full_cohort, tmp_path / "full")
    path = find_record_paths(folder, split="train")[0]
    label_and_phenotype, volume = path.read_bytes()[:120], lab.read_record(path, shape=(91, 109, 91))[2][0]
    lab.edit(path, label_and_phenotype + volume[::-1].tobytes())
    assert f"falff: left and right look exchanged in {path.name}; check their affines" in check(folder)[0]


@pytest.mark.slow
def test_copies_are_reported_by_split_and_label(copy):
    """Within a split; then those of a training subject, with noise."""
    lab.edit(copy / "cohort.json", {"simulated": False})  # in what is simulated nobody looks for copies
    original_path, near_copy_path, exact_copy_path, *_ = find_record_paths(copy, split="train", label="0")
    autism_path, test_path = (
        find_record_paths(copy, split="train", label="1")[0],
        find_record_paths(copy, split="test")[0],
    )
    noise = np.random.default_rng(0).normal(size=read_stored_volume(original_path).shape)
    original = read_stored_volume(original_path)
    change(exact_copy_path, lambda _: original)
    change(near_copy_path, lambda _: original + 1e-6 * noise)
    problems, note_texts = check(copy)
    duplicate_note = next(note for note in note_texts if note.startswith("one scan under several IDs: "))
    assert not problems and all(
        f"{path.stem} (train)" in duplicate_note for path in (original_path, near_copy_path, exact_copy_path)
    )
    change(autism_path, lambda _: original + 1e-3 * noise)
    change(test_path, lambda _: original - 1e-3 * noise)
    (duplicate_problem,) = (text for text in check(copy)[0] if text.startswith("one scan under several IDs: "))
    assert duplicate_problem.endswith(", one scan with both labels, one scan in train and test")
    assert all(
        f"{path.stem} ({split})" in duplicate_problem
        for path, split in ((near_copy_path, "train"), (autism_path, "train"), (test_path, "test"))
    )


def raised(volume: np.ndarray) -> np.ndarray:
    return np.where(volume != volume[0, 0, 0], volume + 1, volume)


@pytest.mark.slow
def test_sites_confounded_with_the_label(copy):
    """A split without a class; a site with one class, or of other maps."""
    set_column(copy, "split", "train", find_record_paths(copy, split="test", label="1"))
    all_paths = find_record_paths(copy)
    set_column(copy, "site", "NEAR", all_paths[:20])
    set_column(copy, "site", "FAR", all_paths[20:])
    for path in all_paths[20:]:
        change(path, raised)
    set_column(copy, "site", "LONELY", find_record_paths(copy, site="NEAR", label="0")[:2])
    problems, note_texts = check(copy)
    assert any(re.fullmatch(r"the test split lacks a class \(\d control, 0 autism\)", text) for text in problems)
    assert any("where site tells the label" in note and "LONELY" in note for note in note_texts)
    assert any(re.match("the maps' .*mean.* differ by site", note) for note in note_texts)


@pytest.mark.slow
def test_a_site_in_two_spellings_is_reported(copy):
    all_paths = find_record_paths(copy)
    set_column(copy, "site", "NYU", all_paths[:20])
    set_column(copy, "site", "nyu ", all_paths[20:])
    assert any(note.startswith("'NYU' and 'nyu ' count as sites of their own") for note in check(copy)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "to, measure_name",
    [
        (lambda volume: np.where(np.arange(31)[:, None, None] < 8, volume[0, 0, 0], volume), "coverage"),
        (lambda volume: np.roll(volume, 1, axis=2), "z_mm"),
        (raised, "mean"),
    ],
)
def test_volume_summaries_separating_the_labels(to, measure_name, copy):
    for path in find_record_paths(copy, label="1"):
        change(path, to)
    problems = check(copy)[0]
    assert any(re.search(rf"separate the training labels by .*{measure_name} \(AUC 1\.00\)", text) for text in problems)


def z_scored(volume: np.ndarray) -> np.ndarray:
    """As if the map had been z-scored within the brain before it was stored."""
    brain = volume != volume[0, 0, 0]
    values = np.where(brain, (volume - volume[brain].mean()) / volume[brain].std(), 0)
    return (values - values.mean()) / values.std()


@pytest.mark.slow
@pytest.mark.parametrize("bare, by_label", [(False, False), (True, True)])
def test_two_map_kinds_are_detected_in_stored_volumes(bare, by_label, copy):
    all_paths = find_record_paths(copy)
    for path in find_record_paths(copy, label="1") if by_label else all_paths[::3]:
        change(path, z_scored)
    if bare:
        for path in {*copy.iterdir()} - {*all_paths}:
            path.unlink()
    problem_text = " ".join(check(copy, sealed=not bare)[0])
    words = r"maps of several kinds: \d+ (z-scored within the brain|positive in the brain) \(\d+\.bin, .*\) and \d+ "
    assert re.search(words, problem_text)
    assert ("separate the training labels by" in problem_text) == by_label


@pytest.mark.slow
def test_values_missing_in_a_single_class_within_a_site_are_a_note(copy):
    """VIQ is known of nobody with autism."""
    metadata = json.loads((copy / "cohort.json").read_text())
    column_indices = [metadata["phenotype"].index(name) for name in ("viq", "viq_missing")]
    median, mean, scale = (
        np.array(metadata[f"phenotype_{name}"])[column_indices] for name in ("median", "mean", "scale")
    )
    autism = find_record_paths(copy, label="1")
    for path in autism:
        lab.edit(path, flawed(path, 1 + np.array(column_indices), ([median[0], 1] - mean) / scale))
    autism_subjects = [path.stem for path in autism]
    gone = {"viq": "", "viq_missing": "1.0"}
    lab.edit(
        copy / "phenotype.csv", lambda table: table.mask(table["subject"].isin(autism_subjects), table.assign(**gone))
    )
    set_column(copy, "site", "HERE", find_record_paths(copy))
    (missing_note,) = (note for note in check(copy)[1] if "missing in" in note)
    assert re.match(
        rf"viq missing in \d+ of 20 .* and {len(autism)} of {len(autism)} participants with autism at", missing_note
    )


# The verdict


@pytest.mark.slow
def test_check_problems_mark_all_results_until_the_cohort_changes(copy, tmp_path):
    """Without a check, volumes are not read."""
    train = f"{TRAIN} --dataDir {{of}} --chkPointDir {{to}}/ckpt --outDir {{to}}"
    change(find_record_paths(copy, split="train")[2], lambda volume: volume[::-1])
    unchecked = done(f"{train}/one", of=reseal(copy), to=tmp_path)
    assert "train 36 (" in unchecked and f" no: abide-data check {copy}\n" in unchecked
    (problem,) = check(copy)[0]
    shutil.rmtree(tmp_path / "ckpt")
    train_output = done(f"{train}/two", of=copy, to=tmp_path)
    assert (
        f": 1 problem invalidates results: {problem}\n" in train_output and "(SIMULATED, PROBLEMS: 1)" in train_output
    )
    assert [stored["text"] for stored in read_manifest(tmp_path / "two")["problems"]] == [problem]
    assert read_rows(tmp_path / "runs.csv")[-1]["cohort"] == f"{copy} (SIMULATED, PROBLEMS: 1)"
    set_column(copy, "split", "train", find_record_paths(copy, split="test"))
    shutil.rmtree(tmp_path / "ckpt")
    train_output = done(f"{train}/three", of=reseal(copy), to=tmp_path)
    assert "PROBLEMS" not in train_output and f" no: abide-data check {copy}" in train_output
    assert "no test participants: a model can be trained on this cohort, not tested" in train_output


@pytest.mark.slow
def test_results_stay_done_if_a_problem_is_reworded_but_not_if_there_is_another_one(copy, tmp_path, monkeypatch):
    train = f"{TRAIN} --dataDir {{of}} --chkPointDir {{to}}/ckpt --outDir {{to}}/out"
    change(find_record_paths(copy, split="train")[2], lambda volume: volume[::-1])
    (problem,) = check(reseal(copy))[0]
    done(train, of=copy, to=tmp_path)
    monkeypatch.setitem(reasons.ADVICE_BY_REASON, reasons.EXCHANGED_WORDS, "look at them")
    (reworded,) = check(copy)[0]
    train_output = done(train, of=copy, to=tmp_path)
    assert reworded != problem and reworded in train_output and "Everything is done." in train_output
    monkeypatch.setattr("data.check.MAX_MEDIAN_BRAIN_OFFSET_MM", -1.0)
    assert len(check(copy)[0]) == 2
    assert "Everything is done." not in done(train, of=copy, to=tmp_path)


@pytest.mark.slow
def test_maps_from_scans_without_confounds_are_a_warning_everywhere(copy, tmp_path):
    places = "--folds 2 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}"
    derivation_options = {"measures": ["falff"], "confounds": "none"}
    for scans in ("cleaned", "preprocessed"):
        lab.edit(copy / "cohort.json", {"derivation": derivation_options | {"scans": scans}})
        check_output = done(f"abide-data check {{of}} --html {{to}}/{scans}.html", of=reseal(copy), to=tmp_path)
        assert ("NOT CLEANED" in check_output) == (scans == "preprocessed")
    done(f"{TRAIN} {places}/train", of=copy, to=tmp_path)
    for job in ("--test", "--blackout --donors 1"):
        assert "NOT CLEANED" in done(f"run.py {job} --model nn {places}/{job[2:6]}", of=copy, to=tmp_path)
    warned = {path.name for path in tmp_path.rglob("*.html") if "NOT CLEANED" in path.read_text()}
    assert warned >= {"preprocessed.html", "report.html", "blackout.html"} and "cleaned.html" not in warned


# The page


def crop_tile(html: str, name: str) -> np.ndarray:
    """The picture of a person as a browser cuts it out of the sheet in the page, (36, 94)."""
    sheet = re.search(r"--m0:url\(data:image/webp;base64,([^)]+)\)", html)[1]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))).convert("L"), float)
    style = re.search(f'aria-label="{name}[,"][^>]* style="([^"]*)"', html)[1]
    sizes = [int(percent) // 100 for percent in re.search(r"size:(\d+)% (\d+)%", style).groups()]
    position_fractions = [
        float(percent) / 100 for percent in re.search(r"position:([\d.]+)% ([\d.]+)%", style).groups()
    ]
    left, top = (
        round(position_fraction * (size - 1)) for position_fraction, size in zip(position_fractions, sizes, strict=True)
    )
    height, width = image.shape[0] // sizes[1], image.shape[1] // sizes[0]
    return image[top * height : (top + 1) * height, left * width : (left + 1) * width]


def draw_expected_tile(volume: np.ndarray) -> np.ndarray:
    """Three cuts by hand: the sagittal one at x = -6 mm is the plane 14, from y = -120 (1) and up to z = 96 (28).
    Black outside the brain, and the brighter the greater."""
    cuts = np.full((36, 94), volume[0, 0, 0])
    cuts[3:32, :36] = volume[14, 1:37, 28::-1].T
    cuts[3:32, 36:65] = volume[1:30, 18, 28::-1].T
    cuts[:, 65:] = volume[1:30, 36:0:-1, 13].T
    brain = np.abs(cuts - volume[0, 0, 0]) > 1e-4 * np.ptp(cuts)
    low, high = np.percentile(cuts[brain], (1, 99.5))
    return np.where(brain, 40 + 215 * np.clip((cuts - low) / (high - low), 0, 1), 0)


@pytest.mark.slow
def test_the_page_shows_all_people_outliers_first_and_the_excluded(copy, tmp_path):
    """A packed cohort has no place for the page. A site named like a script is text."""
    all_paths, evil = find_record_paths(copy), "<script>alert(1)</script>&amp;"
    mirrored_path, constant_path = all_paths[7], all_paths[9]
    change(mirrored_path, lambda volume: volume[::-1])
    change(constant_path, lambda volume: 0 * volume)
    set_column(copy, "site", evil, all_paths[:1])
    lab.edit(copy / "cohort.json", {"provenance": {"left_out": {"no map": ["60001", "60002"], "unused": []}}})
    check(copy)
    html = copy.with_name("check.html").read_text()
    for path in set(all_paths) - {constant_path}:
        expected_tile, different_tile = (
            draw_expected_tile(read_stored_volume(tile_path)) for tile_path in (path, all_paths[path == all_paths[0]])
        )
        assert (
            np.abs(crop_tile(html, path.stem) - expected_tile).mean()
            < 8
            < np.abs(crop_tile(html, path.stem) - different_tile).mean()
        )
    labels = re.findall(r'class="tile"[^>]*aria-label="([^"]*)"', html)
    assert len(labels) == 40 and {label.split(",")[0] for label in labels[:2]} == {
        mirrored_path.stem,
        constant_path.stem,
    }
    assert "left and right look exchanged" in "".join(labels[:2]) and "a map is constant" in "".join(labels[:2])
    page = read_page_text(copy.with_name("check.html"))
    assert "no map: 2 participants" in page and "\n60001, 60002\n" in page.partition("Who was left out, and why")[2]
    assert evil in page and not [*copy.glob("check_*")]
    assert html.count("<script") == 1 and not re.search("<(img|iframe|object|embed)| (src|srcset|action)=", html)
    assert not re.search(r"url\((?!data:image/webp;base64,)|@import|href=\"(?!#|data:)", html)
    done("abide-data pack {of} {to}/packed --bin", of=copy, to=tmp_path)
    packed = {path.name for path in (tmp_path / "packed").rglob("*")}
    assert "subjects.csv" in packed and not [name for name in packed if re.search("html|webp", name)]


@pytest.mark.slow
def test_second_maps_are_in_the_page_replacing_an_earlier_page(converted, tmp_path):
    for _ in range(2):
        done("abide-data check {of} --html 'my check.html'", of=converted)
    html = (tmp_path / "my check.html").read_text()
    sheet = re.search(r"--m1:url\(data:image/webp;base64,([^)]+)\)", html)[1]
    assert "<title>Check of cohort" in html and [*tmp_path.iterdir()] == [tmp_path / "my check.html"]
    with Image.open(io.BytesIO(base64.b64decode(sheet))) as image:
        assert image.size == (7 * 94, 6 * 36)


@pytest.mark.slow
def test_a_map_folder_is_checked_before_it_is_converted(tmp_path):
    """As derive leaves it, with who failed; one map is negated. Maps are named by their own names."""
    table = lab.people(30)
    folder = lab.bids(tmp_path / "maps", table, ("reho", "alff"))
    negated_path, negated = sorted(folder.rglob("*reho*.nii.gz"))[4], table["SUB_ID"][4]
    lab.edit(negated_path, lambda values, affine: (-values, affine))
    failed = pd.DataFrame({"subject": ["50999"], "mean_fd": [""], "volumes_kept": [""], "failed": ["too few volumes"]})
    made = pd.DataFrame({"subject": table["SUB_ID"], "mean_fd": "0.12", "volumes_kept": "100", "failed": ""})
    pd.concat([made, failed]).to_csv(folder / "derived.csv", index=False)
    outcome = run("abide-data check {of} --html {to}/check.html", of=folder, to=tmp_path)
    assert (outcome.status, outcome.err) == (1, "")
    assert f" reho: values look negated in {negated}; make" in outcome.out
    assert "alff, reho of 30 participants, not converted" in outcome.out
    assert "not derived, sub-50999: too few volumes" in outcome.out
    page = read_page_text(tmp_path / "check.html")
    derivation = page.partition("could not be derived")[2]
    assert derivation.index("50999") < derivation.index("0.12") and "Everybody" in page
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".json") and "cohort" in path.name]


def test_a_single_map_is_checked_though_it_has_no_others_to_compare_with(tmp_path):
    folder = lab.bids(tmp_path / "maps", lab.people(1), ("reho",))
    outcome = run("abide-data check {of}", of=folder)
    assert (outcome.status, outcome.err) == (0, "")
    assert "reho of 1 participant, not converted" in outcome.out


def two_sided(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The sform stays; the qform has its first axis to the other side."""
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine * np.array([[-1], [1], [1], [1]]), 4)
    return image


def test_another_background_and_two_sides_are_reported_and_the_advice_helps(tmp_path):
    """As ReHo is where nothing varies, in three maps; two affines in another."""
    table = lab.people(30)
    folder = lab.bids(tmp_path / "maps", table, ("reho", "alff"))
    *filled, turned = sorted(folder.rglob("*reho*.nii.gz"))[4:8]
    for path in filled:
        lab.edit(path, lambda values, affine: (np.where(values == 0, 1, values), affine))
    image = load_image(turned)
    fill_fractions = [np.mean(np.asarray(load_image(path).dataobj) == 1) for path in filled]
    nibabel.save(two_sided(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)), turned)

    def check_reho() -> list[str]:
        run("abide-data check {of} --html {to}/check.html", of=folder, to=tmp_path)
        reho_lines = [
            line for line in read_page_text(tmp_path / "check.html").splitlines() if line.startswith("note: reho: ")
        ]
        return [line for line in reho_lines if "sform" in line or "fills" in line]

    sides, fills = check_reho()
    first, _, third, fourth = table["SUB_ID"][4:8]
    assert fourth in sides and first not in sides and "set_qform(image.affine)" in sides
    assert (
        f"{min(fill_fractions):.0%} to {max(fill_fractions):.0%} of the voxels" in fills
        and f"{first}, " in fills
        and f"{third}, 1 in the first" in fills
    )
    (formula,) = re.findall(r'nilearn.image.math_img\("(.*)", img=FILE\)', fills)
    for path in filled:
        nibabel.save(math_img(formula, img=path), path)
    image = load_image(turned)
    image.set_qform(image.affine)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), turned)
    assert check_reho() == []
