"""Connectomes: their values by np.corrcoef, who has one, where their parcels lie, that they are carried and checked."""

import json
import re
import shutil
from pathlib import Path

import h5py
import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import done, read_page_text, refused, run
from lab import PARCELS, load_image, read_table

PEOPLE = labs.people(12)
PCP = "abide-data convert {source} {to} --grid reduced --connectome rois_made"
BIDS = "abide-data convert {source} {to} --grid reduced --labelColumn group --positive A"
SEG = f"{BIDS} --connectome seg-Toy"
NAMES = tuple(f"#{number}" for number in range(1, PARCELS + 1))
PARCEL_PAIRS = [(first, second) for first in range(PARCELS) for second in range(first + 1, PARCELS)]


def read_connectomes(cohort: Path) -> dict[str, np.ndarray]:
    """The edges (pairs,) of each person."""
    with h5py.File(cohort / "connectomes.h5") as file:
        assert file["z"].dtype == np.float32
        return dict(zip([name.decode() for name in file["subject"]], file["z"][:], strict=True))


def read_parcels(cohort: Path) -> tuple[list[str], np.ndarray | None]:
    """The names of parcels, and their image."""
    with h5py.File(cohort / "connectomes.h5") as file:
        return [name.decode() for name in file["parcels"]], file["image"][:] if "image" in file else None


@np.errstate(all="ignore")
def fisher_z(series: np.ndarray) -> np.ndarray:
    """Of each pair, one by one; of equal series that of a correlation of 0.999999."""
    r = [np.corrcoef(series[:, first], series[:, second])[0, 1] for first, second in PARCEL_PAIRS]
    return np.arctanh(np.clip(r, -0.999999, 0.999999))


def load_series(path: Path) -> np.ndarray:
    return np.genfromtxt(path, skip_header=1)


def series_path(source: Path, subject: str) -> Path:
    return source / f"cpac/X_00{subject}_rois_made.1D"


FORMS = {  # of a table of series: its header, and what separates values
    "50004": ("\t".join(NAMES) + "\t", "\t"),
    "50005": ("# " + " ".join(NAMES).replace("#", ""), " "),
    "50006": (",".join(NAMES).replace("#", ""), ","),
    "50007": ("\t".join(f'"{name}"' for name in NAMES), "\t"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """12 people; one has no series, others lack the signal of parcels, or have two equal ones, or other forms."""
    folder = labs.pcp(tmp_path_factory.mktemp("source") / "lab", PEOPLE, series=True)
    series_path(folder, "50002").unlink()
    faulty_series = load_series(series_path(folder, "50003"))
    faulty_series[:, 2], faulty_series[:, 3], faulty_series[:, 5] = 0, 7.5, faulty_series[:, 4]
    forms = {"50003": ("\t".join(NAMES), "\t")} | FORMS
    for subject, (header, separator) in forms.items():
        values = faulty_series if subject == "50003" else load_series(series_path(folder, subject))
        np.savetxt(series_path(folder, subject), values, "%.5f", separator, header=header, comments="")
    return folder


@pytest.fixture(scope="module")
def made(source, tmp_path_factory) -> Path:
    cohort_folder = tmp_path_factory.mktemp("made") / "cohort"
    convert_output = done(f"{PCP} --parcels {{source}}/parcels.nii.gz", source=source, to=cohort_folder)
    assert "parcels without a signal, by how many of 11 participants: 3 in 1, 4 in 1" in convert_output
    return cohort_folder


@pytest.mark.slow
def test_rows_are_fisher_z_from_the_series(source, made):
    edges_by_subject, original = read_connectomes(made), labs.make_series
    assert [*edges_by_subject] == read_table(made / "subjects.csv")["subject"].tolist() == PEOPLE["SUB_ID"][1:].tolist()
    for person in PEOPLE[2:].to_dict("records"):
        np.testing.assert_allclose(edges_by_subject[person["SUB_ID"]], fisher_z(original(person).to_numpy()), atol=1e-5)
    faulty_series = load_series(series_path(source, "50003"))
    np.testing.assert_allclose(edges_by_subject["50003"], fisher_z(faulty_series), rtol=1e-3)
    assert {pair for pair, z in zip(PARCEL_PAIRS, edges_by_subject["50003"], strict=True) if np.isnan(z)} == {
        pair for pair in PARCEL_PAIRS if {2, 3} & {*pair}
    }
    left_out = json.loads((made / "cohort.json").read_text())["provenance"]["left_out"]
    assert left_out["no series of parcels"] == ["50002"]
    measured = read_table(made / "series.csv").set_index("subject").astype(float)
    series = original(PEOPLE.iloc[5]).to_numpy()
    rough = np.median(np.square(np.diff(series, axis=0)).mean(0) / (2 * series.var(0)))
    assert measured.loc["50007"].tolist() == pytest.approx([60, rough], rel=1e-5)


@pytest.mark.slow
def test_the_parcel_image_is_on_the_full_grid(source, made):
    """The label of the nearest voxel, but where two are as near."""
    names, image = read_parcels(made)
    assert names == [name.removeprefix("#") for name in NAMES] and image.dtype == np.int16
    stored = load_image(source / "parcels.nii.gz")
    millimetres = 2.0 * np.indices(image.shape).reshape(3, -1) - np.array([[90.0], [126], [72]])
    places = np.linalg.solve(stored.affine[:3, :3], millimetres - stored.affine[:3, 3:])
    nearest, last = np.rint(places).astype(int), np.array(stored.shape)[:, None] - 1
    clear = (np.abs(places - nearest) < 0.49).all(0)
    inside = ((places >= 0) & (places <= last)).all(0)
    labels = np.where(inside, np.asarray(stored.dataobj)[tuple(np.clip(nearest, 0, last))], 0)
    assert (image.ravel()[clear] == labels[clear]).all() and clear.mean() > 0.5


@pytest.mark.slow
def test_all_forms_carry_connectomes_bit_by_bit(made, tmp_path):
    done("abide-data pack {of} {to} --zip", of=made, to=tmp_path / "zip")
    done("abide-data pack {of} {to} --bin", of=tmp_path / "zip", to=tmp_path / "bin")
    original_edges = read_connectomes(made)
    for folder in (tmp_path / "zip", tmp_path / "bin"):
        assert {name: edges.tobytes() for name, edges in read_connectomes(folder).items()} == {
            name: edges.tobytes() for name, edges in original_edges.items()
        }
        assert (folder / "series.csv").read_bytes() == (made / "series.csv").read_bytes()
        assert "connectomes.h5" in (folder / "SHA256SUMS").read_text()
    content = bytearray((made / "connectomes.h5").read_bytes())
    content[content.find(original_edges["50005"].tobytes()) + 5] ^= 1
    damaged = labs.copy(made, tmp_path / "damaged")
    labs.edit(damaged / "connectomes.h5", bytes(content))
    refused("abide-data pack {of} {to} --zip", "connectomes.h5 is not what was written", of=damaged, to=tmp_path / "x")
    assert run("abide-data check {of}", of=damaged).status == 1


# Derivatives in BIDS


@pytest.mark.slow
@pytest.mark.parametrize("name_entities", ["seg-Toy_stat-mean", "atlas-Toy"])
def test_series_from_xcpd(name_entities, tmp_path):
    """Censored volumes do not count, and the folder of atlases places the parcels by their names."""
    places = {"source": labs.xcpd(tmp_path / "xcpd", PEOPLE[:8], name_entities), "to": tmp_path / "to"}
    done(SEG, **places)
    edges_by_subject, (names, image) = read_connectomes(places["to"]), read_parcels(places["to"])
    assert names == [f"P{number}" for number in range(PARCELS, 0, -1)]
    for person_index, person in enumerate(PEOPLE[:8].to_dict("records")):
        series = labs.make_series(person).to_numpy()
        if person_index == 1:
            series = np.delete(series, [3, 4], axis=0)
            series[:, 2] = np.nan
        np.testing.assert_allclose(edges_by_subject[person["SUB_ID"]], fisher_z(series), atol=1e-5)
    assert read_table(places["to"] / "series.csv")["volumes"].tolist() == ["60", "58", *["60"] * 6]
    atlas = places["source"] / "derivatives/lab/atlases/atlas-Toy"
    labs.edit(atlas / "atlas-Toy_dseg.tsv", lambda table: table.assign(label=table["label"][::-1].tolist()))
    done(SEG, source=places["source"], to=tmp_path / "turned")
    turned = read_parcels(tmp_path / "turned")[1]
    assert (turned == np.where(image, PARCELS + 1 - image, 0)).all() and len({*image.flat}) == PARCELS + 1
    shutil.rmtree(atlas)
    convert_output = done(SEG, source=places["source"], to=tmp_path / "nowhere")
    assert read_parcels(tmp_path / "nowhere")[1] is None and "a blackout leaves the edges as they are" in convert_output


@pytest.mark.slow
def test_two_runs_from_a_person_are_distinguished_by_only(tmp_path):
    folder = labs.xcpd(tmp_path / "xcpd", PEOPLE[:4], "seg-Toy")
    places = {"source": folder / "derivatives/lab", "to": tmp_path / "to"}
    for path in list(places["source"].rglob("*timeseries.tsv")):
        for replacement in ("_run-2_seg", "_space-fsLR_seg"):  # of surfaces is left alone
            path.with_name(path.name.replace("_seg", replacement)).write_text("not chosen")
    line = refused(SEG, "for 50002, 50003, 50004, 50005 of 4", "several series that differ in run", **places)
    (advice,) = re.findall(r"such as with (--only .*) \(4 participants\)", line)
    done(f"{SEG} {advice.replace('run-2_', '')}", **places)


# What check says of all together


def remove_global_signal(series: np.ndarray) -> np.ndarray:
    shared = series.mean(1, keepdims=True)
    return series - shared @ np.linalg.lstsq(shared, series, rcond=None)[0]


def check_text(folder: Path, change: dict[str, np.ndarray], sidecar_by_subject: dict[str, dict] | None = None) -> str:
    """What check says of 40 people, of whom some have other series, or a JSON beside them."""
    labs.pcp(folder / "lab", labs.people(40), series=True)
    for subject, series in change.items():
        pd.DataFrame(series, columns=NAMES).to_csv(series_path(folder / "lab", subject), sep="\t", index=False)
    for subject, sidecar in (sidecar_by_subject or {}).items():
        series_path(folder / "lab", subject).with_suffix(".json").write_text(json.dumps(sidecar))
    run(f"{PCP} --keepDuplicates", source=folder / "lab", to=folder / "cohort")
    run("abide-data check {of} --html {of}.html", of=folder / "cohort")
    return read_page_text(folder / "cohort.html")


@pytest.mark.slow
def test_people_processed_differently_and_equal_connectomes_are_listed(converted, tmp_path):
    people = labs.people(40).to_dict("records")
    series = {person["SUB_ID"]: labs.make_series(person).to_numpy() for person in people}
    rows = read_table(converted / "subjects.csv")
    train, test = (rows["subject"][rows["split"] == split].iloc[-1] for split in ("train", "test"))
    flat, smooth = [*series][:8], [*series][8:16]
    change = {name: remove_global_signal(series[name]) for name in flat}
    change |= {name: np.cumsum(series[name], axis=0) for name in smooth}
    check_lines = check_text(tmp_path, change | {test: series[train]}).splitlines()
    (note,) = [line for line in check_lines if "as if only their global signal had been removed" in line]
    assert "8 of 40 participants correlate far less" in note and note.endswith(", ".join(flat))
    (note,) = [line for line in check_lines if "series far smoother" in line]
    assert "8 of 40 participants have series" in note and note.endswith(", ".join(smooth))
    (line,) = [line for line in check_lines if line.startswith("one scan under several IDs")]
    assert f"{train} (train)" in line and f"{test} (test)" in line and "one scan in train and test" in line


@pytest.mark.slow
@pytest.mark.parametrize("has_repetition_time", [True, False])
def test_series_smoother_by_a_shorter_repetition_time_are_not_called_filtered(has_repetition_time, tmp_path):
    """Half of the people are scanned faster; of these some were filtered."""
    series = {person["SUB_ID"]: labs.make_series(person).to_numpy() for person in labs.people(40).to_dict("records")}
    fast, filtered = [*series][:20], [*series][:6]
    change = {name: np.cumsum(series[name], axis=0) for name in fast}
    change |= {name: np.cumsum(change[name], axis=0) for name in filtered} if has_repetition_time else {}
    sidecar_by_subject = {
        name: {"SamplingFrequency": 1.25} if name in fast else {"RepetitionTime": 2.0} for name in series
    }
    check_output = check_text(tmp_path, change, sidecar_by_subject if has_repetition_time else {})
    (note,) = [line for line in check_output.splitlines() if "series far smoother" in line]
    table = read_table(tmp_path / "cohort/series.csv").set_index("subject")
    if has_repetition_time:
        assert "6 of 20 participants with a repetition time of 0.8 s" in note and "had been filtered" in note
        assert note.endswith(", ".join(filtered))
        assert table["repetition_time_s"].astype(float).value_counts().to_dict() == {0.8: 20, 2.0: 20}
    else:
        assert "20 of 40 participants" in note and "repetition time, which is not known" in note
        assert "as if only these" not in note and "repetition_time_s" not in table


@pytest.mark.slow
def test_connectomes_telling_the_label_are_a_problem(converted, tmp_path):
    autism = [person for person in labs.people(40).to_dict("records") if person["DX_GROUP"] == "1"]
    check_output = check_text(
        tmp_path, {person["SUB_ID"]: remove_global_signal(labs.make_series(person).to_numpy()) for person in autism}
    )
    assert re.search(r"whole connectomes separate the training labels by .*mean_\w \(AUC 1\.00\)", check_output)
    alike = run("abide-data check {of}", of=converted)
    assert "rois_made, 12 parcels of 40 participants" in alike.out
    assert "far less" not in alike.out and "far smoother" not in alike.out
