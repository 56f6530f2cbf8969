"""What the JSON of `derive` says of everybody's maps and series: one way is kept, a mixture is refused or told; head
motion is taken only where the table has none."""

import json
from pathlib import Path

import pandas as pd
import pytest

from data.base.errors import InputError
from data.base.files import sum_of
from data.cohorts.derivation import EVERY, MAP, PERSON, PROGRAM, Derivation
from data.cohorts.nifti import MapOnDisk
from data.conversion.derived import check_each, common, compared, said_beside, with_images, with_motion
from data.conversion.layouts import Listing

PEOPLE = ["50002", "50003", "50004", "50005"]
WAY = {
    "Band": [0.01, 0.1],
    "Confounds": "simple",
    "InputScans": "preprocessed",
    "Versions": {"autism-blackout": "1.0.0", "numpy": "2"},
}
OF_MAPS = WAY | {"SmoothingFWHM": None}
NETWORKS = {"Networks": "nets.nii.gz", "NetworksSHA256": "a" * 64, "LabelMap": ["x", "y"]}
ATLAS = {"Atlas": "my_atlas.nii.gz", "AtlasSHA256": "b" * 64}


def write(folder: Path, subject: str, measure: str, said: dict | None) -> Path:
    """A file that need not exist, beside the JSON."""
    path = folder / f"sub-{subject}_{measure}.{'tsv' if measure == 'series' else 'nii.gz'}"
    if said is not None:
        (folder / f"sub-{subject}_{measure}.json").write_text(json.dumps({"Measure": measure, **said}))
    return path


def maps(folder: Path, measure: str = "falff", said: dict | None = OF_MAPS, **of_people: dict | None) -> pd.DataFrame:
    """A column of maps of all people; some of them, by `p<ID>`, say something else."""
    paths = [write(folder, one, measure, of_people.get(f"p{one}", said)) for one in PEOPLE]
    return pd.DataFrame({measure: [MapOnDisk(path) for path in paths]})


def series(folder: Path, **more) -> pd.Series:
    return pd.Series([write(folder, one, "series", WAY | ATLAS | more) for one in PEOPLE], name="seg-myatlas")


def test_one_way_of_maps_networks_and_series_is_kept(tmp_path):
    networks = maps(tmp_path, "dual_regression", OF_MAPS | NETWORKS)["dual_regression"]
    of_two = {f"dual_regression_{name}": networks.map(lambda of: MapOnDisk(of.path, 0)) for name in "xy"}
    found, notes = common(maps(tmp_path).assign(**of_two), series(tmp_path), PEOPLE)
    assert notes == []
    assert found == Derivation(
        measures=("falff", "dual_regression"),
        band=(0.01, 0.1),
        scans="preprocessed",
        confounds="simple",
        networks="nets.nii.gz",
        networks_sha256="a" * 64,
        network_names=("x", "y"),
        parcels="my_atlas.nii.gz",
        parcels_sha256="b" * 64,
    )


def test_each_choice_that_derive_writes_is_read_again(tmp_path):
    common = {"band": (0.02, 0.1), "scans": "cleaned", "confounds": "none"}
    networks = {"networks": "n.nii", "networks_sha256": "a" * 64, "network_names": ("x", "y")}
    of_map = Derivation(measures=("dual_regression",), smoothing_mm=6.0, **common, **networks)
    of_series = Derivation(parcels="a.nii", parcels_sha256="b" * 64, **common)
    assert {name for one in (of_map, of_series) for name, value in vars(one).items() if value} == set(vars(of_map))
    for one, product, kinds in ((of_map, "dual_regression", (EVERY, MAP)), (of_series, "series", (EVERY,))):
        said = one.said(*kinds, product, PERSON) | {"Versions": {PROGRAM: "1"}}
        assert said_beside(write(tmp_path, "50002", product, said)) == one


def test_where_nothing_says_it_nothing_is_told(tmp_path):
    assert common(maps(tmp_path, said=None), None, PEOPLE) == (None, [])
    others = {"Band": "low", "Confounds": ["x"], "Versions": "2"}  # of another program
    assert common(maps(tmp_path, said=others), None, PEOPLE) == (None, [])
    assert common(pd.DataFrame({"falff": []}), None, []) == (None, [])


def test_of_named_scans_it_is_not_known_whether_they_were_cleaned(tmp_path):
    named = OF_MAPS | {"InputScans": None}
    assert common(maps(tmp_path, said=named), None, PEOPLE)[0].scans == ""
    assert common(maps(tmp_path, p50003=named), None, PEOPLE) == (
        Derivation(measures=("falff",), band=(0.01, 0.1), confounds="simple"),
        [],
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"Band": [0.01, 0.08]}, "band 0.01-0.08 Hz of 50004; band 0.01-0.1 Hz of 3 others"),
        ({"SmoothingFWHM": 6}, "smoothing 6 mm of 50004; smoothing none of 3 others"),
        (NETWORKS | {"NetworksSHA256": "c" * 64}, "networks nets.nii.gz .SHA-256 cccccccc: x, y. of 50004"),
        (NETWORKS | {"LabelMap": ["y", "x"]}, "networks nets.nii.gz .SHA-256 aaaaaaaa: y, x. of 50004"),
    ],
)
def test_a_mixture_of_people_is_refused_and_the_fewer_are_named(change, words, tmp_path):
    mixed = maps(tmp_path, "dual_regression", OF_MAPS | NETWORKS, p50004=OF_MAPS | NETWORKS | change)
    with pytest.raises(InputError, match=f"^People's dual_regression was derived in several ways: {words}"):
        common(mixed, None, PEOPLE)


def test_a_file_of_networks_with_another_name_is_the_same(tmp_path):
    renamed = OF_MAPS | NETWORKS | {"Networks": "copy.nii.gz"}
    found, notes = common(maps(tmp_path, "dual_regression", OF_MAPS | NETWORKS, p50004=renamed), None, PEOPLE)
    assert found and not notes


def test_series_of_several_atlases_are_refused(tmp_path):
    paths = series(tmp_path)
    write(tmp_path, "50005", "series", WAY | ATLAS | {"AtlasSHA256": "c" * 64})
    with pytest.raises(
        InputError, match=r"People's seg-myatlas was derived in several ways: atlas my_atlas.nii.gz .SHA"
    ):
        common(maps(tmp_path), paths, PEOPLE)


def test_people_may_differ_in_confounds_which_is_told(tmp_path):
    """As `derive` itself treats those without a table."""
    found, notes = common(maps(tmp_path, p50003=OF_MAPS | {"Confounds": "none"}), None, PEOPLE)
    assert found and found.confounds == "" and found.band == (0.01, 0.1)
    (note,) = notes
    assert "several ways, confounds: none of 1 people, 50003; simple of 3 people, 50002, 50004, 50005." in note


def test_maps_of_several_bands_are_no_mixture_but_no_one_way_either(tmp_path):
    slow = maps(tmp_path, "alff", OF_MAPS | {"Band": [0.027, 0.073]})
    found, notes = common(maps(tmp_path).join(slow), None, PEOPLE)
    assert found is None
    assert notes == [
        "Maps were derived in several ways, so how is not kept: band of falff 0.01-0.1 Hz, alff 0.027-0.073 Hz."
    ]


@pytest.mark.parametrize("whose", ["a person", "a map"])
def test_what_is_not_known_of_all_is_not_kept(whose, tmp_path):
    if whose == "a person":
        found, notes = common(maps(tmp_path, p50003=None), None, PEOPLE)
        assert notes == ["How all maps were derived is not known of 1 people, so not kept: 50003."]
    else:
        found, notes = common(maps(tmp_path).join(maps(tmp_path, "vmhc", None)), None, PEOPLE)
        assert "not known of 4 people" in notes[0]
    assert found is None


@pytest.mark.parametrize(
    "said", [{"Band": "0.01"}, {"Band": [0.01]}, {"LabelMap": [1]}, {"AtlasSHA256": 5}, {"Measure": None}]
)
def test_damage_is_named(said, tmp_path):
    with pytest.raises(InputError, match=r"sub-50002_falff.json is damaged \("):
        said_beside(write(tmp_path, "50002", "falff", OF_MAPS | said))


def test_text_that_no_table_could_hold_is_named(tmp_path):
    with pytest.raises(InputError, match=r"sub-50002_falff.json has the text"):
        said_beside(write(tmp_path, "50002", "falff", OF_MAPS | NETWORKS | {"Networks": "a\x1b[31m.nii"}))


def test_images_are_known_by_their_sums(tmp_path):
    for name, content in (("atlas-a/atlas-a_dseg.nii.gz", "parcels"), ("atlas-n/atlas-n_probseg.nii", "networks")):
        path = tmp_path / "atlases" / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
    parcels, networks = (next(tmp_path.rglob(f"*{kind}*")) for kind in ("dseg", "probseg"))
    of = Derivation(networks="n.nii", networks_sha256=sum_of(networks), parcels="a.nii.gz", parcels_sha256="c" * 64)
    kept, notes = with_images(of, Listing(tmp_path), None)
    assert (kept.networks, kept.parcels) == (networks, None)
    assert notes == ["The parcels a.nii.gz are not in atlases/, and not kept; derive --like then needs them."]
    elsewhere = tmp_path / "given.nii.gz"
    elsewhere.write_text("given")
    of = Derivation(parcels="a.nii.gz", parcels_sha256=sum_of(elsewhere))
    assert with_images(of, Listing(tmp_path), elsewhere)[0].parcels == elsewhere
    of = Derivation(parcels="a.nii.gz", parcels_sha256=sum_of(parcels))
    assert with_images(of, Listing(tmp_path), elsewhere)[0].parcels == parcels
    assert with_images(None, Listing(tmp_path), None) == (None, [])


def test_new_maps_are_compared_with_those_of_a_cohort():
    one, path = Derivation(measures=("falff",), band=(0.01, 0.1), confounds="simple"), Path("cohort")
    assert compared(one, one, path) == compared(None, None, path) == []
    assert compared(None, one, path) == ["How the new maps were derived is not known, so that could not be compared."]
    assert "How the maps of cohort were derived is not known" in compared(one, None, path)[0]
    told = compared(one, Derivation(measures=("falff",), band=(0.01, 0.1)), path)
    assert told == ["Not known of all people, so not compared with cohort: confounds."]
    other = Derivation(measures=("falff",), band=(0.01, 0.08))
    with pytest.raises(
        InputError, match=r"derived with band 0.01-0.1 Hz, those of cohort with 0.01-0.08 Hz; .*--like cohort"
    ):
        compared(one, other, path)


def test_where_new_maps_are_not_of_one_way_each_is_compared(tmp_path):
    like = Derivation(measures=("falff",), band=(0.01, 0.1), confounds="simple")
    alike, unknown = write(tmp_path, "50002", "falff", OF_MAPS), write(tmp_path, "50003", "falff", None)
    check_each([alike, unknown, write(tmp_path, "50004", "series", WAY | ATLAS)], like, Path("cohort"))
    other = write(tmp_path, "50005", "falff", OF_MAPS | {"Band": [0.01, 0.08]})
    with pytest.raises(InputError) as caught:
        check_each([alike, unknown, other], like, Path("cohort"))
    assert str(caught.value) == (
        f"{other} was derived with band 0.01-0.08 Hz, those of cohort with 0.01-0.1 Hz; expected the same. "
        "Derive it again: abide-data derive BOLD OUT --like cohort"
    )


# Head motion


def beside(folder: Path, *said: object) -> pd.DataFrame:
    """A column of maps that need not exist, beside JSON files that say so; without one for None."""
    paths = [folder / f"{number}.nii.gz" for number in range(len(said))]
    for path, value in zip(paths, said, strict=True):
        if value is not None:
            path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(value))
    return pd.DataFrame({"falff": [MapOnDisk(path) for path in paths]})


def test_who_has_it_and_who_has_not(tmp_path):
    said = ({"MeanFramewiseDisplacement": 0.125}, {"MeanFramewiseDisplacement": None}, {"Band": [0.01, 0.1]}, None)
    rows, notes = with_motion(pd.DataFrame({"id": list("abcd")}, index=[3, 1, 2, 0]), beside(tmp_path, *said))
    assert rows["mean_fd"].tolist() == ["0.125", "", "", ""]
    assert notes == ["Head motion: mean_fd, mm, by the JSON beside the maps of 1 of 4 people."]


@pytest.mark.parametrize("name", ["mean_fd", "func_mean_fd", "MeanFD", "framewise displacement"])
def test_a_table_with_head_motion_keeps_it(name, tmp_path):
    table = pd.DataFrame({name: ["0.3"]})
    assert with_motion(table, beside(tmp_path, {"MeanFramewiseDisplacement": 0.125}))[0] is table


def test_nobody_has_it(tmp_path):
    table = pd.DataFrame({"id": ["a"]})
    assert with_motion(table, beside(tmp_path, {"Band": [0.01, 0.1]}))[0] is table


@pytest.mark.parametrize("value", ["0.1", -1, [0.1]])
def test_what_is_no_number_is_refused(value, tmp_path):
    with pytest.raises(InputError, match=r"0.json: MeanFramewiseDisplacement is .*; expected millimetres"):
        with_motion(pd.DataFrame({"id": ["a"]}), beside(tmp_path, {"MeanFramewiseDisplacement": value}))
