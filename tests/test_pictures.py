"""Pictures of people on the pages of check and derive: whose they are, what they show, and that they stay there."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import Page, read_rows, resealed
from PIL import Image

from data import check, check_page, demo
from data.base.errors import InputError
from data.cohorts import atlas, records
from data.cohorts.pictures import Pictures, Sheet, cuts_of, picture
from data.cohorts.stored import open_cohort
from data.conversion import template
from data.derivation import page as derived

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture
def copy(cohort, tmp_path) -> Path:
    """A copy of the cohort of 40 subjects, to spoil."""
    return shutil.copytree(cohort, tmp_path / "copy")


def volume_of(path: Path) -> np.ndarray:
    return np.fromfile(path, "<f4")[30:].reshape(records.REDUCED.shape)


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


def test_cuts_by_hand():
    """The sagittal cut at x = -6 mm is the plane 14 of the reduced grid, from y = -120 (1) and up to z = 96 (28)."""
    volume = np.random.default_rng(0).normal(size=records.REDUCED.shape)
    volume[[0, -1]] = volume[:, [0, -1]] = volume[:, :, [0, -1]] = -9
    cuts = cuts_of(volume, records.REDUCED.affine, 6.0)
    assert cuts.shape == (36, 94)
    np.testing.assert_array_equal(cuts[3:32, :36], volume[14, 1:37, 28::-1].T)
    np.testing.assert_array_equal(cuts[3:32, 36:65], volume[1:30, 18, 28::-1].T)
    np.testing.assert_array_equal(cuts[:, 65:], volume[1:30, 36:0:-1, 13].T)
    assert (cuts[:3, :65] == -9).all() and (cuts[32:, :65] == -9).all()
    affine = np.array(records.REDUCED.affine)
    affine[0] = -affine[0]  # the same brain, stored from right to left
    np.testing.assert_array_equal(cuts_of(volume[::-1], affine @ np.eye(4), 6.0), cuts)


def test_a_picture_is_black_outside_the_brain_and_brighter_where_values_are_greater():
    volume = np.zeros(records.REDUCED.shape)
    volume[10:20, 10:25, 8:22] = np.linspace(1, 2, 15)[:, None]
    values, image = cuts_of(volume, records.REDUCED.affine, 6.0), picture(volume, records.REDUCED.affine, 6.0)
    assert (image[values == 0] == 0).all() and image[values > 0].min() > 0
    order = np.argsort(values, axis=None)
    assert (np.diff(image.ravel()[order].astype(int)) >= 0).all() and image.max() == 255
    assert not picture(np.ones((31, 37, 31)), records.REDUCED.affine, 6.0).any()


@pytest.mark.slow
def test_mean_and_spread_are_those_of_the_first_records_of_people(copy):
    """So are the people without signal in a region; the note beside them counts records."""
    row, regions = read_rows(copy / "subjects.csv")[0], atlas.load_atlas(None, records.REDUCED)
    path, values = copy / row["file"], volume_of(copy / row["file"]).copy()
    values[regions.labels == next(at for at, name in regions.names.items() if name == "Frontal_Mid_L")] = values[
        0, 0, 0
    ]
    path.write_bytes(path.read_bytes()[:120] + values.tobytes())
    shutil.copy(path, copy / "again.bin")
    with open(copy / "subjects.csv", "a") as file:
        file.write(f"again.bin,{row['subject']},{row['site']},{row['label']},{row['split']}\n")
    cohort = open_cohort(resealed(copy))
    findings = check.full(cohort, pictures := Pictures(cohort.maps, 40))
    assert findings.without_signal[cohort.maps[0]]["Frontal_Mid_L"] == 1
    assert any("41 records: " in note and "Frontal_Mid_L in 2" in note for note in findings.maps.notes)
    volumes = [volume_of(copy / name["file"]) for name in read_rows(copy / "subjects.csv")[:-1]]
    mean, sd = pictures.mean_and_sd(0).values()
    assert len(pictures.of_people) == len(volumes) == 40
    np.testing.assert_allclose(mean, np.mean(volumes, 0, dtype=float), atol=1e-6)
    np.testing.assert_allclose(sd, np.std(volumes, 0, ddof=1, dtype=float), atol=1e-5)


def test_one_person_has_no_spread():
    volume = np.random.default_rng(0).normal(size=records.REDUCED.shape).astype(np.float32)
    (pictures := Pictures(["a", "b"], 1)).add("1", volume, [volume, volume])
    assert [of.get_title() for of in check_page.drawn_group(pictures).axes if of.get_title()] == ["a, mean", "b, mean"]


@pytest.mark.slow
def test_the_page_shows_each_person_the_odd_first_and_who_was_left_out(copy, data_cli, tmp_path):
    """The page lies in the cohort: neither a packed cohort nor a bundle has a place for a page or a picture."""
    rows = read_rows(copy / "subjects.csv")
    odd, constant = rows[7], rows[9]
    for row, change in ((odd, lambda values: values[::-1]), (constant, lambda values: 0 * values)):
        path = copy / row["file"]
        path.write_bytes(path.read_bytes()[:120] + np.ascontiguousarray(change(volume_of(path)), "<f4").tobytes())
    written = json.loads((copy / "cohort.json").read_text())
    written["provenance"] = {"left_out": {"no map": ["60001", "60002"], "unused": []}}
    (copy / "cohort.json").write_text(json.dumps(written))
    assert data_cli("check", resealed(copy), "--html", copy / "check.html").status == 1
    html = (copy / "check.html").read_text()
    for row in rows:
        if row != constant:
            expected = picture(volume_of(copy / row["file"]), records.REDUCED.affine, 6.0)
            others = picture(
                volume_of(copy / rows[row["file"] == rows[0]["file"]]["file"]), records.REDUCED.affine, 6.0
            )
            found = shown_in(html, row["subject"])
            assert np.abs(found - expected).mean() < 8 < np.abs(found - others).mean()
    labels = re.findall(r'class="tile"[^>]*aria-label="([^"]*)"', html)
    assert len(labels) == 40 and {label.split(",")[0] for label in labels[:2]} == {odd["subject"], constant["subject"]}
    assert "left and right look exchanged" in "".join(labels[:2]) and "a map is constant" in "".join(labels[:2])
    page = Page(html)
    assert "no map: 2 people" in page.text and "60001, 60002" in page.paragraphs["Who was left out, and why"]
    assert "pictures of people's brains" in page.text and not (copy / "check_files").exists()
    data_cli("pack", copy, tmp_path / "packed", "--bin")
    packed = {path.name for path in (tmp_path / "packed").rglob("*")}
    assert "subjects.csv" in packed and not [name for name in packed if re.search("html|webp", name)]
    for name in ("check.html", "derive.html", "check_files/01_alff.webp", "sub-1/figures/a.webp", "log/failure.txt"):
        assert not re.fullmatch(template.PARTS, name)


@pytest.mark.slow
def test_other_maps_lie_beside_the_page_and_nothing_of_others_is_replaced(tmp_path, data_cli, monkeypatch):
    """What looks like a picture is that of a check only beside its page."""
    cohort = tmp_path / "cohort"
    demo.simulate(cohort, records.REDUCED, demo.Simulation(subjects=12, seed=1))
    opened = open_cohort(cohort)
    for index, row in enumerate(opened.rows):
        label, values, volume = opened.read(index)
        (cohort / row.file).write_bytes(records.pack(label, values, volume[..., 0], np.flip(volume[..., 0], 2)))
    written = json.loads((cohort / "cohort.json").read_text()) | {"maps": ["a", "b"]}
    (cohort / "cohort.json").write_text(json.dumps(written))
    resealed(cohort)
    page, beside = tmp_path / "my check.html", tmp_path / "my check_files"
    beside.mkdir()
    (beside / "01_b.webp").write_text("mine")
    refused = data_cli("check", cohort, "--html", page)
    assert refused.status == 2 and "holds something else" in refused.err and not page.exists()
    (beside / "01_b.webp").unlink()
    findings = check.full(opened := open_cohort(cohort), pictures := Pictures(opened.maps, 12))
    check_page.write(page, opened, findings, pictures)
    (beside / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        check_page.check_place(page)
    (beside / "notes.txt").unlink()
    for name in ("07_older.webp", "100_of_many_maps.webp", ".unfinished.01_b.webp"):  # of earlier and killed checks
        (beside / name).write_bytes(b"a picture")
    before = {path: path.read_bytes() for path in beside.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(check_page, "render", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            check_page.write(page, opened, findings, pictures)
    assert {path: path.read_bytes() for path in beside.iterdir()} == before
    monkeypatch.chdir(cohort)
    data_cli("check", ".", "--html", page)
    assert "<title>Check of cohort" in page.read_text()
    assert [path.name for path in beside.iterdir()] == ["01_b.webp"]
    assert "--m1:url(my%20check_files/01_b.webp)" in page.read_text()
    rows, whole = read_rows(cohort / "subjects.csv"), Image.open(beside / "01_b.webp").convert("L")
    assert whole.size == (4 * 94, 3 * 36) and len(rows) == 12


def test_a_sheet_of_many_people_is_no_larger_than_its_format_allows():
    widest = Sheet(5000)
    assert widest.width * 276 < 2**14 > widest.height * 106 and widest.width * widest.height >= 5000


def write_derived(folder: Path, label: str, moved: float | None = None, kept: int = 100, made: str = ".nii.gz") -> None:
    """A JSON of a person as `derive` leaves it, beside a map or what else is `made`."""
    path = folder / f"sub-{label}/func/sub-{label}_stat-falff_boldmap.json"
    path.parent.mkdir(parents=True)
    facts = {"MeanFramewiseDisplacement": moved, "NumberOfVolumesKept": kept, "NumberOfVolumes": 100}
    path.write_text(json.dumps(facts))
    path.with_name(path.name.replace(".json", made)).touch()


def write_picture(folder: Path, label: str, name: str) -> None:
    path = folder / f"sub-{label}/figures/sub-{label}_stat-{name}_boldmap.webp"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"a picture")


def test_motion_and_failures_of_a_folder(tmp_path):
    """Who moved most comes first; people who failed, are to come, were stopped amid it or lack a scan are named. The
    table is read by whichever column names most of them."""
    for label, moved, kept in (("1", 0.1, 100), ("2", 0.3, 60), ("03", None, 100), ("8", 0.2, 100)):
        write_derived(tmp_path, label, moved, kept)
        write_picture(tmp_path, label, "degreeweighted")
    write_derived(tmp_path, "7", 0.9, made=".json")  # killed before the map was written
    derived.keep_failure(tmp_path / "sub-4", "sub-4 has <no> scan")
    table = tmp_path / "people.tsv"
    table.write_text("participant_id\tcode\nA\tsub-1\nB\tsub-4\nC\tsub-0006\nD\t2\nE\t3\n")
    told = derived.write(tmp_path, ["1", "2", "03", "4", "5", "8"], table, ["degree_weighted"])
    assert told == f"Pictures of people, head motion, who was left out: {tmp_path / 'derive.html'}"
    html = (tmp_path / "derive.html").read_text()
    page = Page(html)
    assert [row[:5] for row in page.rows["Head motion"][1:]] == [
        ["sub-2", "0.300", "100", "60", "60"],
        ["sub-8", "0.200", "100", "100", "100"],
        ["sub-1", "0.100", "100", "100", "100"],
        ["sub-03", "-", "100", "100", "100"],
    ]
    assert page.paragraphs["Who was left out, and why"] == ["2 people.", "4", "6"]
    assert page.paragraphs["Not derived yet"] == [f"2 people. {derived.NOT_YET}: 5, 7."]
    for reason in ("sub-* has <no> scan", derived.NO_SCAN):
        assert f"{reason}: 1 person" in page.text
    names = re.findall(r'aria-label="(sub-\d+)', html)
    assert names == ["sub-2", "sub-8", "sub-1", "sub-03"]
    assert "--m0:url(sub-2/figures/sub-2_stat-degreeweighted_boldmap.webp)" in html
    derived.keep_failure(tmp_path / "sub-4", "")
    assert not (tmp_path / "sub-4/log/failure.txt").exists()


def test_a_folder_says_of_pictures_what_is_there(tmp_path):
    """Only series: no picture is promised. Then some people have some: the others say so."""
    for label, moved in (("1", 0.1), ("2", 0.2), ("3", 0.4), ("4", 0.5)):
        write_derived(tmp_path, label, moved)
    told = derived.write(tmp_path, "1234", None, [])
    text = Page((tmp_path / "derive.html").read_text()).text
    assert told.startswith("Head motion, who") and "Pictures of people" not in text
    assert "0.30 mm" in text  # the median
    write_picture(tmp_path, "1", "falff")
    for label in "12":
        write_picture(tmp_path, label, "dualregression")
    derived.write(tmp_path, "1234", None, ["falff", "dual_regression"])
    html = (tmp_path / "derive.html").read_text()
    abouts = dict(re.findall(r'aria-label="sub-(\d), FD [\d.]+ mm, 100 of 100 volumes([^"]*)"', html))
    assert abouts == {"1": "", "2": ", no picture of falff", "3": ", no picture", "4": ", no picture"}
    assert "Of dual_regression, a picture shows the first network only." in html


def test_a_place_that_is_none(tmp_path):
    (tmp_path / "x_files").write_text("mine")
    with pytest.raises(InputError, match=r"x_files is needed for pictures"):
        check_page.check_place(tmp_path / "x.html")
