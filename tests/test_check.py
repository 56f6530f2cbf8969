"""abide-data check: what would invalidate a result is found by name, and its page shows everybody."""

import base64
import io
import json
import re
import shutil
from itertools import takewhile
from pathlib import Path

import lab
import nibabel
import numpy as np
import pandas as pd
import pytest
from commands import done, read_manifest, read_page_text, run
from helpers import read_rows, reseal
from nilearn.image import math_img
from PIL import Image
from scipy import ndimage
from scipy.stats import pearsonr
from test_likeness import record, region

pytestmark = pytest.mark.usefixtures("undrawn")

SOUND = "No problem was found"
TRAIN = "run.py --train --model nn --numIters 1 --set members=1"


@pytest.fixture
def copy(cohort, tmp_path) -> Path:
    """A copy of the cohort of 40 subjects, to spoil."""
    return lab.copy(cohort, tmp_path / "copy")


def volume_of(path: Path) -> np.ndarray:
    return lab.read_record(path)[2][0]


def change(path: Path, to) -> None:
    """Another volume; label and phenotype stay."""
    lab.edit(path, record(path, to))


def paths(folder: Path, **columns: str) -> list[Path]:
    """The records of the rows with these values."""
    table = lab.read_table(folder / "subjects.csv")
    return [folder / row["file"] for _, row in table.iterrows() if all(row[name] == of for name, of in columns.items())]


def in_table(folder: Path, column: str, value: str, files: list[Path]) -> None:
    names = [path.name for path in files]
    lab.edit(folder / "subjects.csv", lambda of: of.assign(**{column: of[column].mask(of["file"].isin(names), value)}))


def check(folder: Path, sealed: bool = True) -> tuple[list[str], list[str]]:
    """Problems and notes of its page; its exit status must fit, and what it prints, of which there are ten lines."""
    page = folder.with_name("check.html")
    outcome = run("abide-data check {of} --html {page}", of=reseal(folder) if sealed else folder, page=page)
    lines = read_page_text(page).splitlines()
    after = lines[lines.index("Problems") + 1 :] if "Problems" in lines else []
    problems = [*takewhile(lambda line: line not in ("What is not known", "participants"), after)]
    notes = [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]
    assert (outcome.status, outcome.err) == (1 if problems else 0, "")
    assert (SOUND in outcome.out) == (not problems)
    printed = [line.split(maxsplit=1) for line in outcome.out.splitlines() if line.startswith(("PROBLEM", "note"))]
    assert printed == [["PROBLEM", text] for text in problems[:3]] + [["note", text] for text in notes[:2]]
    return problems, notes


@pytest.mark.slow
def test_a_sound_cohort_passes(copy):
    """A swapped copy of a subject is no further subject."""
    told = done("abide-data check {of}", of=copy)
    assert SOUND in told and "PROBLEM" not in told and "40 records of 40 participants, 31x37x31, SIMULATED" in told
    first = lab.read_table(copy / "subjects.csv")["file"][0]
    shutil.copy(copy / first, copy / "swap.bin")
    lab.edit(copy / "subjects.csv", lambda of: pd.concat([of, of[:1].assign(file="swap.bin")]))
    told = done("abide-data check {of}", of=reseal(copy))
    assert "41 records of 40 participants" in told and "under several IDs" not in told


def test_each_wrong_record_is_named_and_nothing_else(copy):
    """All in one cohort."""
    train, tested = paths(copy, split="train"), paths(copy, split="test")[0]
    gone, lost, mirrored, away, moved, mixed, *cut, negated = train[:10]
    left, right = (region(f"Frontal_Mid_{side}") for side in "LR")
    change(gone, lambda of: np.full(of.shape, -0.4))
    lab.edit(lost, flawed(lost, 30 + 777, np.nan))
    change(mirrored, lambda of: of[::-1])
    change(negated, np.negative)
    change(away, lambda of: np.roll(of, 15, axis=0))
    change(moved, lambda of: np.roll(of, 3, axis=1))
    change(mixed, lambda of: np.random.default_rng(0).permutation(of.ravel()).reshape(of.shape))
    for path in cut:
        change(path, lambda of: np.where(left, of[0, 0, 0], of))
    change(cut[0], lambda of: np.where(right & (np.cumsum(right).reshape(of.shape) < right.sum() / 3), of[0, 0, 0], of))
    twin = next(path for path in train[10:] if lab.read_record(path)[0] == lab.read_record(tested)[0])
    change(tested, lambda _: volume_of(twin))
    problems, notes = check(copy)
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
    mean = np.mean([volume_of(path) for path in train if path not in (gone, lost)], 0).ravel()
    told = {note.split()[0]: note for note in notes if " is unlike the others: " in note}
    assert "falff: the centre of the brain is 18 mm too far to the front" in told[moved.name]
    (r,) = re.findall(r"correlation with the mean of the others is ([\d.]+)", told[cut[0].name])
    assert float(r) == pytest.approx(pearsonr(volume_of(cut[0]).ravel(), mean)[0], abs=0.02)
    assert {moved.name, cut[0].name} <= {*told} <= {of.name for of in (mixed, moved, away, *cut)}
    (regions,) = (note for note in notes if note.startswith("regions with signal in under 50% of their voxels"))
    assert "by how many of 38 participants: Frontal_Mid_L in 5, " in regions and "Frontal_Mid_R in 4" not in regions


def flawed(path: Path, place: object, value: object) -> bytes:
    content = np.fromfile(path, "<f4")
    content[place] = value
    return content.tobytes()


def halves(folder: Path) -> tuple[list[Path], list[Path]]:
    """All records, and somewhat fewer than half of them."""
    every = [*paths(folder, split="train"), *paths(folder, split="test")]
    return every, every[: len(every) // 2 - 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "to, what",
    [
        (lambda of: of[::-1], "falff: left and right look exchanged in "),
        (np.negative, "falff: values look negated in "),
    ],
)
def test_half_of_the_people_turned_are_named_in_full(to, what, copy):
    """The mean of all is of neither side then; of two halves, the smaller one is named."""
    _, turned = halves(copy)
    for path in turned:
        change(path, to)
    (told,) = (text for text in check(copy)[0] if "look" in text)
    assert told.startswith(what) and "(or in all others); " in told
    assert set(re.findall(r"[^ ,]+\.bin", told)) == {path.name for path in turned}


def blurred_to_the_back(volume: np.ndarray) -> np.ndarray:
    """A faint tail behind the brain, as smoothing leaves it: 2 % of the difference from the background."""
    background = volume[0, 0, 0]
    tail = np.maximum.accumulate(np.abs(volume - background)[:, ::-1], axis=1)[:, ::-1]
    return np.where(volume == background, background + 0.02 * tail, volume)


@pytest.mark.slow
def test_a_faint_tail_behind_a_brain_moves_no_centre(copy):
    every, blurred = halves(copy)
    moved = every[-1]
    for path in blurred[:5]:
        change(path, blurred_to_the_back)
    change(moved, lambda of: np.roll(of, 1, axis=1))
    told = [note for note in check(copy)[1] if "the centre of the brain" in note]
    assert [note.split()[0] for note in told] == [moved.name] and "6 mm too far to the front" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_volumes_8_mm_further_left_are_not_called_exchanged(many, copy):
    """Half of this lies on either side of the middle, as in real maps, whose brains are not quite there."""
    every, moved = halves(copy)
    moved = moved if many else every[3:4]
    for path in every:
        by = (-4 if path in moved else 4) / 6
        change(path, lambda of, by=by: ndimage.shift(of, (by, 0, 0), order=1, mode="nearest"))
    assert not [text for text in check(copy)[0] if "look" in text]


@pytest.mark.slow
def test_a_map_without_the_usual_sides_is_not_called_exchanged(copy):
    """What differs between its left and right has a correlation of -0.1 with that of the others."""
    path = paths(copy, split="train")[0]
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=volume_of(path).shape), 1)

    def other(of: np.ndarray) -> np.ndarray:
        odd, own = noise - noise[::-1], of - of[::-1]
        odd = odd - own * (odd * own).sum() / (own * own).sum()
        sides = odd / np.linalg.norm(odd) - 0.1 * own / np.linalg.norm(own)
        return np.where(of == of[0, 0, 0], of, (of + of[::-1]) / 2 + np.linalg.norm(own) / 2 * sides)

    change(path, other)
    problems, notes = check(copy)
    assert not problems and any(note.startswith(f"{path.name} is unlike the others: ") for note in notes)


@pytest.mark.slow
def test_maps_in_the_space_of_each_person_are_told(copy):
    random = np.random.default_rng(0)
    for path in paths(copy):
        change(path, lambda of: np.roll(of, random.integers(-2, 3, 3), axis=(0, 1, 2)))
    assert any("mm from the middle of all, as in each participant's own space" in text for text in check(copy)[0])


@pytest.mark.slow
def test_a_mirrored_volume_is_found_at_full_size(full_cohort, tmp_path):
    folder = lab.copy(full_cohort, tmp_path / "full")
    path = paths(folder, split="train")[0]
    label_and_phenotype, volume = path.read_bytes()[:120], lab.read_record(path, shape=(91, 109, 91))[2][0]
    lab.edit(path, label_and_phenotype + volume[::-1].tobytes())
    assert f"falff: left and right look exchanged in {path.name}; check their affines" in check(folder)[0]


@pytest.mark.slow
def test_copies_are_told_by_split_and_label(copy):
    """Within a split; then those of a training subject, with noise."""
    lab.edit(copy / "cohort.json", {"simulated": False})  # in what is simulated nobody looks for copies
    one, same, exact, *_ = paths(copy, split="train", label="0")
    other, test = paths(copy, split="train", label="1")[0], paths(copy, split="test")[0]
    noise = np.random.default_rng(0).normal(size=volume_of(one).shape)
    original = volume_of(one)
    change(exact, lambda _: original)
    change(same, lambda _: original + 1e-6 * noise)
    problems, notes = check(copy)
    told = next(note for note in notes if note.startswith("one scan under several IDs: "))
    assert not problems and all(f"{path.stem} (train)" in told for path in (one, same, exact))
    change(other, lambda _: original + 1e-3 * noise)
    change(test, lambda _: original - 1e-3 * noise)
    (found,) = (text for text in check(copy)[0] if text.startswith("one scan under several IDs: "))
    assert found.endswith(", one scan with both labels, one scan in train and test")
    assert all(f"{path.stem} ({split})" in found for path, split in ((same, "train"), (other, "train"), (test, "test")))


def raised(volume: np.ndarray) -> np.ndarray:
    return np.where(volume != volume[0, 0, 0], volume + 1, volume)


@pytest.mark.slow
def test_sites_that_cannot_be_told_apart(copy):
    """A split without a class; a site with one class, or of other maps."""
    in_table(copy, "split", "train", paths(copy, split="test", label="1"))
    every = paths(copy)
    in_table(copy, "site", "NEAR", every[:20])
    in_table(copy, "site", "FAR", every[20:])
    for path in every[20:]:
        change(path, raised)
    in_table(copy, "site", "LONELY", paths(copy, site="NEAR", label="0")[:2])
    problems, notes = check(copy)
    assert any(re.fullmatch(r"the test split lacks a class \(\d control, 0 autism\)", text) for text in problems)
    assert any("where site tells the label" in note and "LONELY" in note for note in notes)
    assert any(re.match("the maps' .*mean.* differ by site", note) for note in notes)


@pytest.mark.slow
def test_a_site_in_two_spellings_is_told(copy):
    every = paths(copy)
    in_table(copy, "site", "NYU", every[:20])
    in_table(copy, "site", "nyu ", every[20:])
    assert any(note.startswith("'NYU' and 'nyu ' count as sites of their own") for note in check(copy)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "to, named",
    [
        (lambda of: np.where(np.arange(31)[:, None, None] < 8, of[0, 0, 0], of), "coverage"),
        (lambda of: np.roll(of, 1, axis=2), "z_mm"),
        (raised, "mean"),
    ],
)
def test_volumes_that_as_wholes_tell_the_label(to, named, copy):
    for path in paths(copy, label="1"):
        change(path, to)
    found = check(copy)[0]
    assert any(re.search(rf"separate the training labels by .*{named} \(AUC 1\.00\)", text) for text in found)


def z_scored(volume: np.ndarray) -> np.ndarray:
    """As if the map had been z-scored within the brain before it was stored."""
    brain = volume != volume[0, 0, 0]
    values = np.where(brain, (volume - volume[brain].mean()) / volume[brain].std(), 0)
    return (values - values.mean()) / values.std()


@pytest.mark.slow
@pytest.mark.parametrize("bare, by_label", [(False, False), (True, True)])
def test_maps_of_two_kinds_are_found_in_stored_volumes(bare, by_label, copy):
    every = paths(copy)
    for path in paths(copy, label="1") if by_label else every[::3]:
        change(path, z_scored)
    if bare:
        for path in {*copy.iterdir()} - {*every}:
            path.unlink()
    found = " ".join(check(copy, sealed=not bare)[0])
    words = r"maps of several kinds: \d+ (z-scored within the brain|positive in the brain) \(\d+\.bin, .*\) and \d+ "
    assert re.search(words, found)
    assert ("separate the training labels by" in found) == by_label


@pytest.mark.slow
def test_values_missing_in_one_class_at_a_site_are_a_note(copy):
    """VIQ is known of nobody with autism."""
    said = json.loads((copy / "cohort.json").read_text())
    at = [said["phenotype"].index(name) for name in ("viq", "viq_missing")]
    median, mean, scale = (np.array(said[f"phenotype_{name}"])[at] for name in ("median", "mean", "scale"))
    autism = paths(copy, label="1")
    for path in autism:
        lab.edit(path, flawed(path, 1 + np.array(at), ([median[0], 1] - mean) / scale))
    who = [path.stem for path in autism]
    gone = {"viq": "", "viq_missing": "1.0"}
    lab.edit(copy / "phenotype.csv", lambda of: of.mask(of["subject"].isin(who), of.assign(**gone)))
    in_table(copy, "site", "HERE", paths(copy))
    (found,) = (note for note in check(copy)[1] if "missing in" in note)
    assert re.match(
        rf"viq missing in \d+ of 20 .* and {len(autism)} of {len(autism)} participants with autism at", found
    )


# The verdict


@pytest.mark.slow
def test_problems_of_the_check_mark_every_result_until_the_cohort_is_another_one(copy, tmp_path):
    """Without a check, volumes are not read."""
    train = f"{TRAIN} --dataDir {{of}} --chkPointDir {{to}}/ckpt --outDir {{to}}"
    change(paths(copy, split="train")[2], lambda of: of[::-1])
    unchecked = done(f"{train}/one", of=reseal(copy), to=tmp_path)
    assert "train 36 (" in unchecked and f" no: abide-data check {copy}\n" in unchecked
    (found,) = check(copy)[0]
    shutil.rmtree(tmp_path / "ckpt")
    told = done(f"{train}/two", of=copy, to=tmp_path)
    assert f": 1 problem invalidates results: {found}\n" in told and "(SIMULATED, PROBLEMS: 1)" in told
    assert read_manifest(tmp_path / "two")["problems"] == [found]
    assert read_rows(tmp_path / "runs.csv")[-1]["cohort"] == f"{copy} (SIMULATED, PROBLEMS: 1)"
    in_table(copy, "split", "train", paths(copy, split="test"))
    shutil.rmtree(tmp_path / "ckpt")
    told = done(f"{train}/three", of=reseal(copy), to=tmp_path)
    assert "PROBLEMS" not in told and f" no: abide-data check {copy}" in told
    assert "no test participants: a model can be trained on this cohort, not tested" in told


@pytest.mark.slow
def test_maps_of_scans_without_confounds_are_a_warning_everywhere(copy, tmp_path):
    places = "--folds 2 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}"
    how = {"measures": ["falff"], "confounds": "none"}
    for scans in ("cleaned", "preprocessed"):
        lab.edit(copy / "cohort.json", {"derivation": how | {"scans": scans}})
        told = done(f"abide-data check {{of}} --html {{to}}/{scans}.html", of=reseal(copy), to=tmp_path)
        assert ("NOT CLEANED" in told) == (scans == "preprocessed")
    done(f"{TRAIN} {places}/train", of=copy, to=tmp_path)
    for job in ("--test", "--blackout --donors 1"):
        assert "NOT CLEANED" in done(f"run.py {job} --model nn {places}/{job[2:6]}", of=copy, to=tmp_path)
    warned = {path.name for path in tmp_path.rglob("*.html") if "NOT CLEANED" in path.read_text()}
    assert warned >= {"preprocessed.html", "report.html", "blackout.html"} and "cleaned.html" not in warned


# The page


def shown_in(html: str, name: str) -> np.ndarray:
    """The picture of a person as a browser cuts it out of the sheet in the page, (36, 94)."""
    sheet = re.search(r"--m0:url\(data:image/webp;base64,([^)]+)\)", html)[1]
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet))).convert("L"), float)
    style = re.search(f'aria-label="{name}[,"][^>]* style="([^"]*)"', html)[1]
    sizes = [int(of) // 100 for of in re.search(r"size:(\d+)% (\d+)%", style).groups()]
    shares = [float(of) / 100 for of in re.search(r"position:([\d.]+)% ([\d.]+)%", style).groups()]
    left, top = (round(share * (size - 1)) for share, size in zip(shares, sizes, strict=True))
    height, width = image.shape[0] // sizes[1], image.shape[1] // sizes[0]
    return image[top * height : (top + 1) * height, left * width : (left + 1) * width]


def picture(volume: np.ndarray) -> np.ndarray:
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
def test_the_page_shows_each_person_the_odd_first_and_who_was_left_out(copy, tmp_path):
    """A packed cohort has no place for the page. A site named like a script is text."""
    every, evil = paths(copy), "<script>alert(1)</script>&amp;"
    odd, constant = every[7], every[9]
    change(odd, lambda of: of[::-1])
    change(constant, lambda of: 0 * of)
    in_table(copy, "site", evil, every[:1])
    lab.edit(copy / "cohort.json", {"provenance": {"left_out": {"no map": ["60001", "60002"], "unused": []}}})
    check(copy)
    html = copy.with_name("check.html").read_text()
    for path in set(every) - {constant}:
        wanted, others = (picture(volume_of(of)) for of in (path, every[path == every[0]]))
        assert np.abs(shown_in(html, path.stem) - wanted).mean() < 8 < np.abs(shown_in(html, path.stem) - others).mean()
    labels = re.findall(r'class="tile"[^>]*aria-label="([^"]*)"', html)
    assert len(labels) == 40 and {label.split(",")[0] for label in labels[:2]} == {odd.stem, constant.stem}
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
def test_other_maps_are_in_the_page_which_replaces_an_earlier_one(converted, tmp_path):
    for _ in range(2):
        done("abide-data check {of} --html 'my check.html'", of=converted)
    html = (tmp_path / "my check.html").read_text()
    sheet = re.search(r"--m1:url\(data:image/webp;base64,([^)]+)\)", html)[1]
    assert "<title>Check of cohort" in html and [*tmp_path.iterdir()] == [tmp_path / "my check.html"]
    with Image.open(io.BytesIO(base64.b64decode(sheet))) as image:
        assert image.size == (7 * 94, 6 * 36)


@pytest.mark.slow
def test_a_folder_of_maps_is_checked_before_it_is_converted(tmp_path):
    """As derive leaves it, with who failed; one map is negated. Maps are named by their own names."""
    table = lab.people(30)
    folder = lab.bids(tmp_path / "maps", table, ("reho", "alff"))
    odd, negated = sorted(folder.rglob("*reho*.nii.gz"))[4], table["SUB_ID"][4]
    lab.edit(odd, lambda values, affine: (-values, affine))
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


def two_sided(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    """The sform stays; the qform has its first axis to the other side."""
    image.set_sform(image.affine, 4)
    image.set_qform(image.affine * np.array([[-1], [1], [1], [1]]), 4)
    return image


def test_another_background_and_two_sides_are_told_and_the_advice_helps(tmp_path):
    """As ReHo is where nothing varies, in three maps; two affines in another."""
    table = lab.people(30)
    folder = lab.bids(tmp_path / "maps", table, ("reho", "alff"))
    *filled, turned = sorted(folder.rglob("*reho*.nii.gz"))[4:8]
    for path in filled:
        lab.edit(path, lambda values, affine: (np.where(values == 0, 1, values), affine))
    image = nibabel.load(turned)
    shares = [np.mean(np.asarray(nibabel.load(path).dataobj) == 1) for path in filled]
    nibabel.save(two_sided(nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)), turned)

    def notes() -> list[str]:
        run("abide-data check {of} --html {to}/check.html", of=folder, to=tmp_path)
        told = [
            line for line in read_page_text(tmp_path / "check.html").splitlines() if line.startswith("note: reho: ")
        ]
        return [line for line in told if "sform" in line or "fills" in line]

    sides, fills = notes()
    first, _, third, fourth = table["SUB_ID"][4:8]
    assert fourth in sides and first not in sides and "set_qform(image.affine)" in sides
    assert (
        f"{min(shares):.0%} to {max(shares):.0%} of the voxels" in fills
        and f"{first}, " in fills
        and f"{third}, 1 in the first" in fills
    )
    (formula,) = re.findall(r'nilearn.image.math_img\("(.*)", img=FILE\)', fills)
    for path in filled:
        nibabel.save(math_img(formula, img=path), path)
    image = nibabel.load(turned)
    image.set_qform(image.affine)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), turned)
    assert notes() == []
