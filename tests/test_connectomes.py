"""Connectomes: their values by np.corrcoef, who has one, that they are carried, verified, compared and checked."""

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import COARSE, LAS_6MM, PCP_SUBJECTS, brain_map, read_rows, resealed, write_pcp
from helpers import write_rows as write_table

from data.base.errors import InputError
from data.cohorts import connectomes, records
from data.cohorts.atlas import label_image
from data.cohorts.cohort import Cohort
from data.cohorts.seal import Findings
from data.cohorts.stored import open_cohort, sealed, write_tables
from data.conversion import edges
from data.conversion.series import fisher_z, header_of, parcel_image, read_series

PARCELS, VOLUMES = 6, 30
WITHOUT = "50003"  # a series
LACKING = "50004"  # parcel 3


def series_of(seed: int, parcels: int = PARCELS) -> np.ndarray:
    """Correlated series (volumes, parcels), rounded as they are written."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(VOLUMES, parcels)) + random.normal(size=(VOLUMES, 1))).round(6)


def expected_z(series: np.ndarray) -> np.ndarray:
    """Fisher z of each pair, one by one."""
    r = np.array([np.corrcoef(series[:, a], series[:, b])[0, 1] for a in range(PARCELS) for b in range(a + 1, PARCELS)])
    return np.arctanh(r)


def write_1d(path: Path, series: np.ndarray) -> None:
    lines = ["\t".join(f"#{number}" for number in range(1, series.shape[1] + 1))]
    path.write_text("\n".join([*lines, *("\t".join(map(str, row)) for row in series), ""]))


def write_tsv(path: Path, names: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(map(str, row)) for row in [names, *rows]) + "\n")


def write_labels(path: Path, count: int = PARCELS) -> Path:
    """Labels in slabs along y on a grid of 24 mm."""
    labels = np.zeros((8, 9, 8), np.int16)
    for number in range(1, count + 1):
        labels[2:6, number, 2:6] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels, COARSE), path)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A tiny PCP folder with series; one person has none, another lacks a parcel."""
    folder = write_pcp(tmp_path_factory.mktemp("pcp"))
    for number, path in enumerate(sorted(folder.rglob("*_falff.nii.gz"))):
        if WITHOUT not in path.name:
            series = series_of(number)
            if LACKING in path.name:
                series[:, 2] = 0
            write_1d(path.with_name(path.name.replace("falff.nii.gz", "rois_cc6.1D")), series)
    write_labels(folder / "labels.nii.gz")
    return folder


@pytest.fixture(scope="module")
def made(source, data_cli, tmp_path_factory):
    """The folder converted, and what the command printed."""
    target = tmp_path_factory.mktemp("made") / "cohort"
    command = ("convert", source, target, "--grid", "reduced", "--connectome", "rois_cc6")
    outcome = data_cli(*command, "--parcels", source / "labels.nii.gz")
    assert outcome.status < 2, outcome.err
    return target, outcome


def series_by_subject(source: Path) -> dict[str, np.ndarray]:
    return {
        path.name.split("_")[1].lstrip("0"): np.genfromtxt(path, skip_header=1)
        for path in source.rglob("*_rois_cc6.1D")
    }


def test_rows_are_fisher_z_of_the_series(made, source):
    cohort, series = open_cohort(made[0]), series_by_subject(source)
    found = cohort.connectomes
    assert found.name == "rois_cc6" and found.parcels == ("1", "2", "3", "4", "5", "6")
    assert found[[0]].dtype == np.float32 and found.num_edges == 15
    for index, row in enumerate(cohort.rows):
        with np.errstate(all="ignore"):
            wanted = expected_z(series[row.subject])
        np.testing.assert_allclose(found[[index]][0], wanted, atol=1e-5)
        assert np.isnan(wanted).sum() == (5 if row.subject == LACKING else 0)
    np.testing.assert_array_equal(found.pairs, np.column_stack(np.triu_indices(PARCELS, 1)))
    batch = cohort.batch([4, 1], volumes=False, tables={"connectome": found})
    np.testing.assert_array_equal(batch["connectome"], found[:][[4, 1]])


def test_people_without_series_are_left_out_and_named(made):
    target, outcome = made
    assert f"1 left out, no series of parcels: {WITHOUT}" in outcome.out
    assert len(open_cohort(target).rows) == PCP_SUBJECTS - 1
    assert "parcels without a signal, by how many of 11 people: 3 in 1" in outcome.out
    assert str(open_cohort(target)).endswith("connectomes rois_cc6")


def test_the_image_of_parcels_is_on_the_full_grid(made, source):
    image = open_cohort(made[0]).connectomes.image
    labels, _ = label_image(source / "labels.nii.gz")
    assert image.shape == records.FULL.shape and image.dtype == np.int16
    np.testing.assert_array_equal(image, labels)  # whose parcels have the numbers of their positions + 1


@pytest.mark.parametrize("form", ["bin", "zip"])
def test_each_form_carries_them_bit_by_bit(form, made, data_cli, tmp_path):
    assert data_cli("pack", made[0], tmp_path / "packed", f"--{form}").status == 0
    packed, own = open_cohort(tmp_path / "packed"), open_cohort(made[0])
    assert packed.connectomes[:].tobytes() == own.connectomes[:].tobytes()
    assert packed.records_sha256 == own.records_sha256 and packed.connectomes.path in packed.paths
    assert "connectomes.h5" in (tmp_path / "packed" / "SHA256SUMS").read_text()
    assert (tmp_path / "packed" / "series.csv").read_bytes() == (made[0] / "series.csv").read_bytes()


def test_a_changed_byte_is_refused_when_it_is_read(made, data_cli, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "copy")
    content = bytearray((folder / "connectomes.h5").read_bytes())
    own = open_cohort(made[0])
    content[content.find(own.connectomes[[2]].tobytes()) + 5] ^= 1
    (folder / "connectomes.h5").write_bytes(content)
    damaged = open_cohort(folder)
    damaged.connectomes[[0, 1]]
    with pytest.raises(InputError, match=r"connectomes\.h5 row 2 is not what was written"):
        damaged.connectomes[[1, 2]]
    assert data_cli("pack", folder, tmp_path / "packed", "--bin").status == 2
    assert data_cli("check", folder).out.count("PROBLEM") >= 2
    assert sealed(resealed(folder), together=False).records_sha256 != own.records_sha256


@pytest.mark.parametrize(("change", "told"), [
    (lambda folder: (folder / "connectomes.h5").unlink(), "lacks connectomes.h5"),
    (lambda folder: (folder / "connectomes.h5").write_bytes(b"no"), "is not a readable file of connectomes"),
    (lambda folder: rewritten(folder, ["a", "b"]), "has other parcels than cohort.json says"),
    (lambda folder: rewritten(folder, ["a", "a"]), "names one twice"),
    (lambda folder: without_column(folder), "has no digests of the connectomes"),
])  # fmt: skip
def test_what_is_damaged_is_refused_when_it_is_opened(change, told, made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "copy")
    change(folder)
    with pytest.raises(InputError, match=told):
        open_cohort(folder)


def rewritten(folder: Path, parcels: list[str]) -> None:
    connectomes.write(folder / "connectomes.h5", ["50002"], parcels, None, [np.zeros(1)])


def without_column(folder: Path) -> None:
    rows = read_rows(folder / "digests.csv")
    write_table(folder / "digests.csv", [dict(list(row.items())[:-1]) for row in rows])


@pytest.mark.slow
def test_new_people_need_the_same_series(made, source, data_cli, tmp_path):
    """Of those who were test subjects, --like gives the same rows; other parcels or none are refused."""
    own = open_cohort(made[0])
    tested = own.subjects("test")
    assert tested
    everybody = [row.subject for row in own.rows]
    leave = ("--exclude", ",".join(set(everybody) - set(tested)))
    folder, like = shutil.copytree(source, tmp_path / "new"), ("--like", made[0], *leave)
    outcome = data_cli("convert", folder, tmp_path / "like", *like)
    assert outcome.status < 2, outcome.err
    new = open_cohort(tmp_path / "like")
    for index, row in enumerate(new.rows):
        assert new.connectomes[[index]].tobytes() == own.connectomes[[everybody.index(row.subject)]].tobytes()
    assert new.metadata.parcels_sha256 == own.metadata.parcels_sha256
    outcome = data_cli("convert", folder, tmp_path / "other", *like, "--connectome", "rois_aal")
    assert outcome.status == 2 and "is not what" in outcome.err
    outcome = data_cli("convert", folder, tmp_path / "other", *like, "--parcels", source / "labels.nii.gz")
    assert outcome.status == 2 and "--parcels is chosen by --like" in outcome.err
    for path in folder.rglob("*.1D"):
        write_1d(path, series_of(0, PARCELS + 1))
    outcome = data_cli("convert", folder, tmp_path / "other", *like)
    assert outcome.status == 2 and "has other parcels than the rest: it has 7" in outcome.err
    for path in folder.rglob("*.1D"):
        path.unlink()
    outcome = data_cli("convert", folder, tmp_path / "other", *like)
    assert outcome.status == 2 and "holds no rois_cc6 series" in outcome.err and not (tmp_path / "other").exists()


NAMES = ["LH_Vis", "RH_Vis", "Thalamus", "P4", "P5", "P6"]


def write_bids(folder: Path, older: bool = False) -> dict[str, np.ndarray]:
    """Maps and series of 8 people as XCP-D lays them out; returns the series that count, by subject."""
    people, kept = [f"{number:02d}" for number in range(8)], {}
    rows = [{"participant_id": f"sub-{name}", "dx": "ab"[at % 2], "site": "x"} for at, name in enumerate(people)]
    write_table(folder / "participants.tsv", rows)
    for at, name in enumerate(people):
        func = folder / f"sub-{name}" / "func"
        series = series_of(at)
        cells = series.astype(object)
        if at == 1:  # censored volumes, and a parcel that the scan lacks
            cells[[3, 4]], cells[:, 2] = "n/a", "n/a"
            series = np.delete(series, [3, 4], axis=0)
            series[:, 2] = np.nan
        end = "_atlas-Toy_timeseries.tsv" if older else "_seg-Toy_stat-mean_timeseries.tsv"
        write_tsv(func / f"sub-{name}_task-rest_space-MNI{end}", NAMES, cells.tolist())
        image = nibabel.Nifti1Image(brain_map((31, 37, 31), at), LAS_6MM)
        nibabel.save(image, func / f"sub-{name}_task-rest_space-MNI_falff.nii.gz")
        kept[name.lstrip("0") or "0"] = series
    return kept


BIDS = ("--labelColumn", "dx", "--positive", "a", "--phenotype=", "--grid", "reduced")
BIDS += ("--connectome", "seg-To_y")  # as a file may be called


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True], ids=["seg", "atlas"])
def test_series_of_xcpd(older, data_cli, tmp_path):
    """Censored volumes do not count, and the folder of atlases places the parcels by their names."""
    kept = write_bids(tmp_path / "xcpd", older)
    folder = tmp_path / "xcpd" / "atlases" / "atlas-Toy"
    labels = write_labels(folder / "atlas-Toy_space-MNI_dseg.nii.gz")
    table = [{"index": 6 - at, "label": name} for at, name in enumerate(NAMES)]
    write_table(folder / "atlas-Toy_dseg.tsv", table)
    outcome = data_cli("convert", tmp_path / "xcpd", tmp_path / "out", *BIDS)
    assert outcome.status < 2, outcome.err
    cohort = open_cohort(tmp_path / "out")
    assert cohort.connectomes.parcels == tuple(NAMES)
    for index, row in enumerate(cohort.rows):
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(cohort.connectomes[[index]][0], expected_z(kept[row.subject]), atol=1e-5)
    numbered = label_image(labels)[0]
    assert (cohort.connectomes.image[numbered == 6] == 1).all() and (cohort.connectomes.image[numbered == 1] == 6).all()
    assert read_rows(tmp_path / "out" / "series.csv")[1]["volumes"] == "28"


@pytest.mark.slow
def test_without_an_image_the_edges_stay_where_they_are_and_that_is_said(data_cli, tmp_path):
    write_bids(tmp_path / "xcpd")
    outcome = data_cli("convert", tmp_path / "xcpd", tmp_path / "out", *BIDS)
    assert outcome.status < 2 and "a blackout leaves the edges as they are" in outcome.out
    assert open_cohort(tmp_path / "out").connectomes.image is None


@pytest.mark.slow
def test_two_runs_of_a_person_are_told_apart_by_only(data_cli, tmp_path):
    write_bids(tmp_path / "xcpd")
    for path in list((tmp_path / "xcpd").rglob("*timeseries.tsv")):
        shutil.copy(path, path.with_name(path.name.replace("_space", "_run-2_space")))
    outcome = data_cli("convert", tmp_path / "xcpd", tmp_path / "out", *BIDS)
    assert outcome.status == 2 and "has two series for " in outcome.err and "--only" in outcome.err
    words = shlex.split(outcome.err)
    advice = words[words.index("--only", words.index("as")) + 1]
    outcome = data_cli("convert", tmp_path / "xcpd", tmp_path / "out", *BIDS, "--only", advice)
    assert outcome.status < 2, outcome.err


def test_a_kind_that_is_not_there_is_named_with_what_is(source, data_cli, tmp_path):
    outcome = data_cli("convert", source, tmp_path / "out", "--connectome", "seg-AAL")
    assert outcome.status == 2 and "holds no seg-AAL series" in outcome.err and "It holds rois_cc6" in outcome.err
    outcome = data_cli("convert", source, tmp_path / "out", "--parcels", source / "labels.nii.gz")
    assert outcome.status == 2 and "--parcels is about the series that --connectome names" in outcome.err


@pytest.mark.parametrize(("text", "told"), [
    ("", "a header of 0 names"),
    ("#1\n1\n", "a header of 1 names"),
    ("#1\t#1\n1\t2\n", "one of them twice"),
    ("0.5\t0.25\n1\t2\n", "in its first line; expected the names of parcels"),
    ("a\tb\n1\tx\n", "is not the series of 2 parcels"),
    ("a\tb\n1\t2\t3\n", "has 3 columns, its header 2 names"),
    ("a\tb\n" + "1\t2\n" * 30 + "1\n", "missing or infinite"),
    ("a\tb\n" + "1\t2\n" * 30 + "inf\t1\n", "missing or infinite"),
    ("a\tb\n" + "1\t2\n" * 9 + "n/a\tn/a\n" * 20, "has 9 volumes that are not censored; expected at least 20"),
])  # fmt: skip
def test_a_bad_file_is_one_line(text, told, tmp_path):
    path = tmp_path / "sub-1_seg-a_timeseries.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=told) as error:
        read_series(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_headers_and_separators(tmp_path):
    for number, line in enumerate(["#1\t#2\t", "# 1 2", "1,2", '"1"\t"2"']):
        path = tmp_path / f"{number}.1D"
        separator = "," if "," in line else "\t" if "\t" in line else " "
        path.write_text(f"{line}\n" + f"0.5{separator}1\n1{separator}0\n" * 15)
        assert header_of(path) == ("1", "2")
        np.testing.assert_array_equal(read_series(path)[1], [[0.5, 1], [1, 0]] * 15)


def test_fisher_z_is_finite_and_unknown_where_there_is_no_signal():
    series = series_of(0)
    series[:, 1], series[:, 3], series[:, 4] = series[:, 0], 7.0, np.nan
    found = dict(zip(zip(*np.triu_indices(PARCELS, 1), strict=True), fisher_z(series), strict=True))
    assert found[0, 1] == pytest.approx(np.arctanh(0.999999), rel=1e-3)
    assert {pair for pair, z in found.items() if np.isnan(z)} == {pair for pair in found if set(pair) & {3, 4}}


def test_an_image_that_lacks_a_parcel_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no label for 1 of 6 parcels of the series, 9;"):
        parcel_image(write_labels(tmp_path / "labels.nii.gz"), ["1", "2", "3", "4", "5", "9"])
    with pytest.raises(InputError, match="has no label for 2 of 2 parcels of the series, a, b;"):
        parcel_image(tmp_path / "labels.nii.gz", ["a", "b"])


def with_rows(cohort: Path, folder: Path, rows: np.ndarray) -> Cohort:
    """A copy of a cohort with these connectomes."""
    folder = shutil.copytree(cohort, folder)
    plain, parcels = open_cohort(folder), [f"p{at}" for at in range(round((1 + np.sqrt(1 + 8 * rows.shape[1])) / 2))]
    for name in ("SHA256SUMS", "check.json"):
        (folder / name).unlink(missing_ok=True)
    connectomes.write(folder / "connectomes.h5", [row.subject for row in plain.rows], parcels, None, rows)
    digest = connectomes.parcels_sha256(parcels, None)
    write_tables(folder, plain.rows, replace(plain.metadata, connectome="seg-p", parcels_sha256=digest))
    return open_cohort(folder)


def drawn(count: int = 40) -> list[np.ndarray]:
    """Series of people who share a signal of their own, (people, volumes, parcels)."""
    random = np.random.default_rng(0)
    shared = random.normal(size=(count, 80, 1)) * random.uniform(0.6, 1.2, (count, 1, 1))
    return list(random.normal(size=(count, 80, 20)) + shared)


def global_removed(series: np.ndarray) -> np.ndarray:
    shared = series.mean(1, keepdims=True)
    return series - shared @ np.linalg.lstsq(shared, series, rcond=None)[0]


def checked(cohort: Cohort) -> Findings:
    findings = Findings()
    edges.check_connectomes(cohort, findings)
    return findings


@pytest.mark.slow
def test_people_who_were_processed_otherwise_are_named(cohort, tmp_path):
    people = drawn()
    rows = np.stack([fisher_z(global_removed(one) if at < 8 else one) for at, one in enumerate(people)])
    made = with_rows(cohort, tmp_path / "mixed", rows)
    names = sorted(row.subject for row in made.rows[:8])
    (note,) = [text for text in checked(made).notes if "global signal" in text]
    assert note.startswith("8 of 40 people correlate far less") and note.endswith(", ".join(names))
    smooth = [np.cumsum(one, axis=0) if at < 8 else one for at, one in enumerate(people)]
    edges.write_series_table(
        made.tables / "series.csv", [row.subject for row in made.rows], list(map(edges.of_series, smooth))
    )
    assert any(text.startswith("8 of 40 people have series far smoother") for text in checked(made).notes)


@pytest.mark.slow
def test_of_people_processed_alike_nothing_is_told(cohort, tmp_path):
    found = checked(with_rows(cohort, tmp_path / "alike", np.stack(list(map(fisher_z, drawn())))))
    assert not found.problems and not found.notes
    assert found.counts == ["connectomes: seg-p, 20 parcels of 40 people"]


@pytest.mark.slow
def test_equal_and_empty_rows_and_what_tells_the_label(cohort, tmp_path):
    plain, people = open_cohort(cohort), drawn()
    first_test = next(at for at, row in enumerate(plain.rows) if row.split == "test")
    first_train = next(at for at, row in enumerate(plain.rows) if row.split == "train")
    rows = np.stack(list(map(fisher_z, people)))
    rows[first_test] = rows[first_train]
    (text,) = checked(with_rows(cohort, tmp_path / "twice", rows)).problems
    assert text.startswith("identical connectomes") and plain.rows[first_test].subject in text
    rows[first_test] = np.nan
    (text,) = checked(with_rows(cohort, tmp_path / "empty", rows)).problems
    assert text.startswith(f"connectomes without any edge: {plain.rows[first_test].subject}")
    by_label = [
        fisher_z(global_removed(one) if row.label else one) for one, row in zip(people, plain.rows, strict=True)
    ]
    (text,) = checked(with_rows(cohort, tmp_path / "label", np.stack(by_label))).problems
    assert text.startswith("whole connectomes separate the training labels by mean_z (AUC 1.00)")


def test_roughness_of_noise_and_of_a_sine():
    """2 - 2 cos(step) over twice the variance: of a sine 1 - cos(step)."""
    time = np.arange(400)
    noise = np.random.default_rng(0).normal(size=(4000, 5))
    assert edges.of_series(noise)["roughness"] == pytest.approx(1, abs=0.05)
    sine = np.sin(2 * np.pi * time[:, None] / 20 + np.arange(3))
    assert edges.of_series(sine)["roughness"] == pytest.approx(1 - np.cos(2 * np.pi / 20), rel=0.02)


def test_the_mean_correlation_is_the_variance_of_the_mean_signal():
    series = drawn(1)[0]
    scaled = (series - series.mean(0)) / series.std(0)
    assert edges.measured(fisher_z(series))["mean_r"] == pytest.approx(scaled.mean(1).var(), rel=1e-4)


@pytest.mark.slow
def test_swap_leaves_them_out_and_says_so(cohort, data_cli, tmp_path):
    made = with_rows(cohort, tmp_path / "made", np.stack(list(map(fisher_z, drawn()))))
    outcome = data_cli("swap", made.path, tmp_path / "swapped", "--copies", "1", "--regions", "2")
    assert outcome.status == 0 and "The connectomes of" in outcome.out and "are left out" in outcome.out
    swapped = open_cohort(tmp_path / "swapped")
    assert swapped.connectomes is None and not (tmp_path / "swapped" / "connectomes.h5").exists()


def test_cohorts_without_them_have_the_tables_of_before(cohort):
    """Nothing of them: no columns, no metadata, no digests."""
    assert list(read_rows(cohort / "digests.csv")[0]) == ["file", "header_sha256", "volume_sha256", "source_sha256"]
    assert "connectome" not in (cohort / "cohort.json").read_text()
    made = open_cohort(cohort)
    assert made.connectomes is None and made.without_connectomes.records_sha256 == made.records_sha256
