"""Connectomes as people have them: matrices and tables of edges by NumPy's own values, series without names, and that
parcels of one cohort are those of another."""

import json
from pathlib import Path

import h5py
import lab as labs
import numpy as np
import pandas as pd
import pytest
from commands import done, refused
from lab import PARCELS, read_table
from scipy.io import savemat

PEOPLE = labs.people(12)
NEWCOMERS = labs.people(4, 70002)
CONVERT = "abide-data convert {source} {to} --grid reduced --keepDuplicates --connectome"
LIKE = "abide-data convert {source} {to} --like {template}"
UPPER = np.triu_indices(PARCELS, 1)
NAMES = [f"Area {letter}" for letter in "ABCDEFGHIJKL"]


def correlate(subject_row: dict) -> np.ndarray:
    return np.atleast_2d(np.corrcoef(labs.make_series(subject_row).T))


def read_edges(cohort: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """The edges (pairs,) of each person, and the names of parcels."""
    with h5py.File(cohort / "connectomes.h5") as file:
        edges_by_subject = dict(zip([name.decode() for name in file["subject"]], file["z"][:], strict=True))
        return edges_by_subject, [name.decode() for name in file["parcels"]]


def check_edges(cohort: Path, people: pd.DataFrame = PEOPLE, atol: float = 1e-5) -> None:
    """Each row is the Fisher z of the person's own series, in the order of the parcels."""
    edges_by_subject, _ = read_edges(cohort)
    assert {*edges_by_subject} == {*people["SUB_ID"]}
    for person in people.to_dict("records"):
        np.testing.assert_allclose(edges_by_subject[person["SUB_ID"]], np.arctanh(correlate(person)[UPPER]), atol=atol)


@np.errstate(divide="ignore")
def to_fisher_z(matrix: np.ndarray, diagonal: float | None = None) -> np.ndarray:
    z = np.arctanh(matrix)
    np.fill_diagonal(z, np.inf if diagonal is None else diagonal)
    return z


def save_named_table(path: Path, matrix: np.ndarray, separator: str, index: bool) -> None:
    pd.DataFrame(matrix, NAMES, NAMES).to_csv(path, sep=separator, index=index)


FORMS = {  # the name of --connectome and of a person's file, how it is written, and what is said of the unit
    "npy": ("toy", "{}_toy.npy", np.save, "r, stored as Fisher z"),
    "matlab": ("FC", "FC_Sub_{}.mat", lambda path, r: savemat(path, {"r": r, "note": "text"}), "r, stored"),
    "two variables": (
        "FC:z",
        "{}_FC.mat",
        lambda path, r: savemat(path, {"p": r > 0.1, "z": to_fisher_z(r)}),
        "diagonal inf: Fisher z",
    ),
    "header": ("toy", "{}_toy.csv", lambda path, r: save_named_table(path, r, ",", False), "r, stored"),
    "both named": (
        "seg-Toy",
        "sub-{}_seg-Toy_stat-pearson_relmat.tsv",
        lambda path, r: save_named_table(path, to_fisher_z(r, 0), "\t", True),
        "diagonal 0: Fisher z",
    ),
    "by MATLAB": ("toy", "toy_{}.txt", lambda path, r: np.savetxt(path, r, "%16.7e", "  "), "r, stored"),
    "numbered": ("toy", "{}_toy.csv", lambda path, r: pd.DataFrame(r).to_csv(path), "r, stored"),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_matrix_a_person(form, tmp_path):
    connectome, name, save, unit_words = FORMS[form]
    source = labs.pcp(tmp_path / "source", PEOPLE)
    for person in PEOPLE.to_dict("records"):
        save(source / name.format(person["SUB_ID"]), correlate(person))
    output = done(f"{CONVERT} {connectome}", source=source, to=tmp_path / "to")
    assert unit_words in output
    check_edges(tmp_path / "to")
    assert (read_edges(tmp_path / "to")[1] == NAMES) == (form in ("header", "both named"))
    assert json.loads((tmp_path / "to/cohort.json").read_text())["connectome"] == connectome.partition(":")[0]
    assert not (tmp_path / "to/series.csv").exists()


@pytest.mark.slow
def test_parcels_are_placed_by_name_and_those_without_a_signal_are_unknown(tmp_path):
    """The third person lacks two parcels, one left out and one of zeros, and has the others in another order."""
    source = labs.pcp(tmp_path / "source", PEOPLE)
    order = np.random.default_rng(0).permutation(PARCELS - 1)
    for index, person in enumerate(PEOPLE.to_dict("records")):
        matrix = pd.DataFrame(correlate(person), NAMES, NAMES)
        if index == 2:
            matrix = matrix.iloc[order, order]
            matrix.loc["Area C"] = matrix["Area C"] = 0
        matrix.to_csv(source / f"{person['SUB_ID']}_toy.csv")
    output = done(f"{CONVERT} toy", source=source, to=tmp_path / "to")
    assert "Area C in 1, Area L in 1" in output
    edges = read_edges(tmp_path / "to")[0][PEOPLE["SUB_ID"][2]]
    expected = np.arctanh(correlate(PEOPLE.iloc[2].to_dict())[UPPER])
    expected[np.isin(UPPER, (2, PARCELS - 1)).any(axis=0)] = np.nan
    np.testing.assert_allclose(edges, expected, atol=1e-6)


def write_table(path: Path, people: pd.DataFrame, column_names: list, order: np.ndarray | None = None) -> Path:
    """A table of edges, whose rows are in another order than people are."""
    table = pd.DataFrame([correlate(person)[UPPER] for person in people.to_dict("records")], columns=column_names)
    table = table.iloc[:, order] if order is not None else table
    table.insert(0, "participant_id", "sub-" + people["SUB_ID"].to_numpy())
    table.iloc[::-1].to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


PAIRS = [(NAMES[first], NAMES[second]) for first, second in zip(*UPPER, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["named", "numbered", "numbered with names"])
def test_a_table_with_a_row_a_person(form, tmp_path):
    source = labs.pcp(tmp_path / "source", PEOPLE)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    if form == "named":
        order = np.random.default_rng(0).permutation(len(PAIRS))
        table_path = write_table(tmp_path / "e.csv", PEOPLE, [f"{second}--{first}" for first, second in PAIRS], order)
    else:
        table_path = write_table(tmp_path / "e.tsv", PEOPLE, list(range(len(PAIRS))))
    names_option = " --parcelNames {names}" if form == "numbered with names" else ""
    places = {"source": source, "to": tmp_path / "to", "table": table_path, "names": tmp_path / "names.txt"}
    output = done(f"{CONVERT} {{table}}{names_option}", **places)
    assert ("row by row" in output) == (form == "numbered")
    edges_by_subject, names = read_edges(tmp_path / "to")
    if form == "named":  # in the order in which its columns name them
        positions = [names.index(name) for name in NAMES]
        for person in PEOPLE.to_dict("records"):
            matrix = np.zeros((PARCELS, PARCELS))
            matrix[UPPER] = matrix.T[UPPER] = edges_by_subject[person["SUB_ID"]]
            expected = np.arctanh(correlate(person)[UPPER])
            np.testing.assert_allclose(matrix[np.ix_(positions, positions)][UPPER], expected, atol=1e-6)
    else:
        check_edges(tmp_path / "to")
        assert (names == NAMES) == bool(names_option)


SERIES_FORMS = {  # the name of --connectome and of a person's file, and how it is written
    "AFNI": ("rois_made", "X_00{}_rois_made.1D", lambda path, s: np.savetxt(path, s, "\t%.5f", ""), ""),
    "DPABI": ("ROISignals", "ROISignals_{}.mat", lambda path, s: savemat(path, {"ROISignals": s}), ""),
    "turned": ("toy", "{}_toy.npy", lambda path, s: np.save(path, s.T), "--transpose"),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", SERIES_FORMS)
def test_series_without_names(form, tmp_path):
    connectome, name, save, option = SERIES_FORMS[form]
    source = labs.pcp(tmp_path / "source", PEOPLE)
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    for person in PEOPLE.to_dict("records"):
        save(source / name.format(person["SUB_ID"]), labs.make_series(person).to_numpy())
    places = {"source": source, "to": tmp_path / "to", "names": tmp_path / "names.txt"}
    line = refused(f"{CONVERT} {connectome} {option}", "--parcelNames", **places)
    assert line.count("--parcelNames") == 1
    if option:
        refused(f"{CONVERT} {connectome} --parcelNames {{names}}", "add --transpose", **places)
    done(f"{CONVERT} {connectome} {option} --parcelNames {{names}}", **places)
    check_edges(tmp_path / "to")
    assert read_edges(tmp_path / "to")[1] == NAMES
    assert read_table(tmp_path / "to/series.csv")["volumes"].tolist() == ["60"] * len(PEOPLE)


@pytest.mark.slow
def test_edges_says_what_the_range_does_not(tmp_path):
    """Half of a correlation may be a small Fisher z."""
    source = labs.pcp(tmp_path / "source", PEOPLE)
    for person in PEOPLE.to_dict("records"):
        np.save(source / f"{person['SUB_ID']}_toy.npy", to_fisher_z(correlate(person) / 2, 0))
    places = {"source": source}
    assert "r, stored as Fisher z" in done(f"{CONVERT} toy", to=tmp_path / "r", **places)
    assert "as --edges says" in done(f"{CONVERT} toy --edges z", to=tmp_path / "z", **places)
    person = PEOPLE.iloc[0].to_dict()
    expected = np.arctanh(correlate(person)[UPPER] / 2)
    np.testing.assert_allclose(read_edges(tmp_path / "z")[0][person["SUB_ID"]], expected, atol=1e-6)
    np.testing.assert_allclose(read_edges(tmp_path / "r")[0][person["SUB_ID"]], np.arctanh(expected), atol=1e-6)


@pytest.mark.slow
def test_parcels_equal_those_of_another_cohort_by_name_or_by_the_name_of_their_atlas(tmp_path):
    """Numbered parcels are of the atlas that files name; parcels with names are known by these alone."""
    sources = {people: labs.pcp(tmp_path / people, table) for people, table in (("old", PEOPLE), ("new", NEWCOMERS))}
    for people, table in (("old", PEOPLE), ("new", NEWCOMERS)):
        (sources[people] / "areas").mkdir()
        for person in table.to_dict("records"):
            np.save(sources[people] / f"{person['SUB_ID']}_toy.npy", correlate(person))
            np.save(sources[people] / f"{person['SUB_ID']}_other.npy", correlate(person))
            save_named_table(sources[people] / f"areas/{person['SUB_ID']}_areas.csv", correlate(person), ",", False)
    for name in ("toy", "other", "areas"):
        done(f"{CONVERT} {name}", source=sources["old"], to=tmp_path / f"cohort_{name}")
    identity_by_name = {
        name: json.loads((tmp_path / f"cohort_{name}/cohort.json").read_text())["parcels_sha256"]
        for name in ("toy", "other", "areas")
    }
    assert len({*identity_by_name.values()}) == 3

    places = {"source": sources["new"], "to": tmp_path / "like", "template": tmp_path / "cohort_toy"}
    refused(f"{LIKE} --connectome other", "The parcels of other are numbered", "of toy", **places)
    refused(f"{LIKE} --connectome areas", "has other parcels than", "Area A", **places)
    done(LIKE, **places)
    check_edges(tmp_path / "like", NEWCOMERS)

    places |= {"to": tmp_path / "areas", "template": tmp_path / "cohort_areas"}
    refused(f"{LIKE} --connectome toy", "The parcels of toy are numbered", "of areas", **places)
    (sources["new"] / "names.txt").write_text("\n".join(NAMES))
    done(f"{LIKE} --connectome toy --parcelNames {{source}}/names.txt", **places)
    check_edges(tmp_path / "areas", NEWCOMERS)
    metadata = json.loads((tmp_path / "areas/cohort.json").read_text())
    assert (metadata["connectome"], metadata["parcels_sha256"]) == ("areas", identity_by_name["areas"])
