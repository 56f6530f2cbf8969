"""One person by a bundle: the probability of a test, blackout against full passes, refusals, the page, what is left."""

import hashlib
import json
import os
import re
import signal
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import keras
import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import without_drawing
from helpers import COARSE, HALF, NAN, TINY_CNN, Outcome, Page, an_identity, brain_map, read_rows, run_main, write_rows
from matplotlib.backends.backend_agg import FigureCanvasAgg

from data.base import archive, files
from data.base.errors import InputError
from data.cohorts import records
from data.cohorts.atlas import load_atlas
from data.cohorts.cohort import in_order
from data.cohorts.derivation import Derivation
from data.cohorts.records import FULL
from data.cohorts.stored import sealed
from models import MODELS, override
from utils.bundle import make
from utils.bundle.model import Bundle
from utils.bundle.run import PersonPrediction, networks_of, on_cohort
from utils.bundle.trained import Trained
from utils.jobs import TEST
from utils.machines.devices import start_on_cpu
from utils.predict import page, person
from utils.predict.__main__ import parser
from utils.predict.given import Given
from utils.predict.person import Predicted
from utils.runs import guards
from utils.runs.checkpoints import Caveats
from utils.runs.cross_validation import CrossValidation
from utils.runs.run import Options
from utils.scores import calibration

MAPS = {"falff": 1, "dual_regression": 2}  # and how many volumes
NETWORKS = ["visual", "motor"]
PARCEL_REGIONS = (1, 2, 9, 40, 61, 85)  # of AAL
PARCELS = len(PARCEL_REGIONS)
PEOPLE, NEW = range(100, 124), 200  # IDs; that of the person who is predicted
SETTINGS = {  # of tiny networks: model, preset, settings
    "mmnn": ("mmnn", "regions", ("members=1", "region_units=3", "phenotype_units=4")),
    "cnn": ("cnn", "residual", TINY_CNN[3::2]),
    "nn": ("nn", "sine", ("members=1",)),
}


# A lab and its bundles


def write_person(folder: Path, number: int, label: str) -> None:
    """The files of one person as `derive` leaves them: a 3-D map, a 4-D one whose volumes are named, and series."""
    stem = folder / f"sub-{label}/func/sub-{label}_task-rest"
    stem.parent.mkdir(parents=True)
    for at, (name, count) in enumerate(MAPS.items()):
        volumes = [brain_map((8, 10, 8), 1000 * (at + 1) + 10 * number + volume) for volume in range(count)]
        values = volumes[0] if count == 1 else np.stack([volume - 0.5 * (volume != 0) for volume in volumes], -1)
        path = Path(f"{stem}_stat-{name.replace('_', '')}_boldmap.nii.gz")
        nibabel.save(nibabel.Nifti1Image(values, COARSE), path)
        described = {"MeanFramewiseDisplacement": 0.1 + number / 1000} | ({"LabelMap": NETWORKS} if count > 1 else {})
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(described))
    series = pd.DataFrame(np.random.default_rng(number).normal(size=(30, PARCELS)), columns=range(1, PARCELS + 1))
    series.to_csv(f"{stem}_seg-six_stat-mean_timeseries.tsv", sep="\t", index=False)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, data_cli):
    """The cohort of 24 people, and their parcels."""
    folder = tmp_path_factory.mktemp("lab")
    for number in PEOPLE:
        write_person(folder / "maps", number, str(number))
    cells = [
        {
            "participant_id": f"sub-{number}",
            "group": "AC"[number % 2],
            "age": 8 + number % 7,
            "sex": "FM"[number // 5 % 2],
        }
        | {"site": "NYU" if number % 3 else "PITT"}
        for number in PEOPLE
    ]
    write_rows(folder / "maps/participants.tsv", cells)
    labels = load_atlas(None, FULL).full
    parcels = sum((labels == region) * np.int16(parcel) for parcel, region in enumerate(PARCEL_REGIONS, 1))
    nibabel.save(nibabel.Nifti1Image(parcels, FULL.affine), folder / "six.nii.gz")
    asked = ("--grid", "reduced", "--maps", "all", "--connectome", "seg-six", "--parcels", folder / "six.nii.gz")
    label = ("--labelColumn", "group", "--positive", "A", "--phenotype", "age,sex")
    outcome = data_cli("convert", folder / "maps", folder / "cohort", *asked, *label)
    assert outcome.status < 2, outcome.err
    return sealed(folder / "cohort")


def randomised(build, seed: int):
    """A network with the weights of one that has learnt something; what it subtracts and divides by stays near."""
    keras.utils.set_random_seed(seed)
    network, random = build(), np.random.default_rng(seed)
    for weight in network.weights:
        noise = random.normal(0, 0.2, weight.shape)
        weight.assign(weight + (noise if weight.trainable else abs(noise)))
    return network


def write_bundle(path: Path, cohort, name: str, networks: int = 1, **choices) -> Path:
    """A bundle of untrained networks with random weights; those after the first scale the phenotype otherwise."""
    model, preset, settings = SETTINGS[name]
    config = override(MODELS[model].module.PRESETS[preset], list(settings))
    preparation, trained = cohort.metadata.preparation, []
    for number in range(networks):
        own = tuple(mean + number for mean in preparation.phenotype_mean)
        saved = an_identity(
            model=model, preset=preset, config=asdict(config), grid=cohort.grid.name, everybody=True,
            records_sha256=cohort.records_sha256, preparation=replace(preparation, phenotype_mean=own), **choices,
        )  # fmt: skip
        trained.append(Trained(str(number), None, saved))
    with pytest.MonkeyPatch.context() as patch:
        built = lambda one, cohort: randomised(lambda: MODELS[model].build(config, cohort), int(one.name))  # noqa: E731
        patch.setattr(make, "network_of", built)
        if name != "mmnn":  # one of them tells who is unlike suffices
            patch.setattr(make, "likeness_parts", lambda *_: {})
        archive.write(path, make.parts_of(trained, cohort, make.Told()))
    return path


@pytest.fixture(scope="module")
def bundles(lab, tmp_path_factory) -> dict[str, Bundle]:
    start_on_cpu()
    folder = tmp_path_factory.mktemp("bundles")
    written = {
        "mmnn": write_bundle(folder / "mmnn.zip", lab, "mmnn", networks=2),
        "cnn": write_bundle(folder / "cnn.zip", lab, "cnn"),
        "nn": write_bundle(folder / "nn.zip", lab, "nn", precision=HALF),
    }
    return {name: Bundle.open(path) for name, path in written.items()}


@pytest.fixture(scope="module")
def new(tmp_path_factory) -> Path:
    """The folder of the new person."""
    folder = tmp_path_factory.mktemp("new")
    write_person(folder, NEW, "new")
    row = {"participant_id": "sub-new", "age": "12", "sex": "F", "site": "NYU"}
    write_rows(folder / "participants.tsv", [row])
    return folder


def given_of(new: Path, **phenotype: str) -> Given:
    """What the user gives of the new person, connectomes too."""
    stem = f"{new}/sub-new/func/sub-new_task-rest"
    maps = {name: Path(f"{stem}_stat-{name.replace('_', '')}_boldmap.nii.gz") for name in MAPS}
    series = Path(f"{stem}_seg-six_stat-mean_timeseries.tsv")
    return Given(maps, phenotype or {"age": "12", "sex": "F", "site": "NYU"}, series)


def command(bundle: Path, given: Given, *more: object) -> Outcome:
    """`abide-predict`; what is given as text."""
    maps = ",".join(f"{name}={path}" for name, path in given.maps.items())
    phenotype = ",".join(f"{name}={value}" for name, value in given.phenotype.items())
    words = [bundle, "--maps", maps, "--phenotype", phenotype]
    words += ["--series", given.series] if given.series else []
    return run_main("utils.predict.__main__", "predict", [*words, *more])


@pytest.fixture(scope="module")
def found(bundles, new) -> dict[str, Predicted]:
    """What is said of the new person by each bundle."""
    return {name: person.predicted(bundle, given_of(new), None) for name, bundle in bundles.items()}


@pytest.fixture(scope="module")
def like(bundles, new, tmp_path_factory, data_cli) -> Path:
    """The cohort of the new person, converted like that of a bundle."""
    folder = tmp_path_factory.mktemp("like")
    outcome = data_cli("convert", new, folder / "new", "--like", bundles["mmnn"].path)
    assert outcome.status < 2, outcome.err
    return folder / "new"


def run_on(bundle: Bundle, cohort: Path):
    return on_cohort(bundle, sealed(cohort), TEST, Options(), Path("out"))


# The probability


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize("name", SETTINGS)
def test_a_person_has_the_probability_that_a_test_of_the_bundle_gives(name, bundles, found, like):
    """To the last bit, in the precision that the networks were trained in."""
    from utils.evaluation.test import predicted

    run = run_on(bundles[name], like)
    with run.fresh():
        each = [predicted(of, network, in_order(np.array([0]), 8)).item() for of, network in networks_of(run)]
    assert found[name].person.raw == np.mean(each)
    assert (found[name].unlike is None) == (name != "mmnn")
    assert found[name].networks == len(each) == (2 if name == "mmnn" else 1)
    assert len(set(each)) == len(each)
    assert 0.01 < min(each) <= max(each) < 0.99


# The blackout


def by_full_passes(run) -> np.ndarray:
    """The same by a forward pass of the networks for each region, (regions,)."""
    effects = []
    for of_network, network in networks_of(run):
        cohort, atlas = of_network.cohort, load_atlas(None, of_network.cohort.grid)
        inputs = cohort.batch([0], tables={"connectome": cohort.connectomes})
        shown = {name: np.repeat(inputs[name], 1 + len(atlas.regions), axis=0) for name in network.input}
        outside = [records.background(values) for values in np.moveaxis(inputs["volume"][0], -1, 0)]
        for at, region in enumerate(atlas.regions, 1):
            shown["volume"][at][atlas.labels == region] = outside
            if "connectome" in shown:
                pairs = np.array(PARCEL_REGIONS)[cohort.connectomes.pairs]
                shown["connectome"][at][(pairs == region).any(1)] = NAN
        logits = network(shown, training=False).numpy().astype(float)
        logit = logits[:, 1] - logits[:, 0]
        effects.append(logit[0] - logit[1:])
    return np.mean(effects, axis=0)


@pytest.mark.slow
@pytest.mark.bits
@pytest.mark.parametrize("name", ["mmnn", "cnn"])
def test_a_blackout_by_the_background_is_that_of_full_passes(name, bundles, found, like):
    """Of an ensemble with connectomes, and of convolutions; red is for autism."""
    run = run_on(bundles[name], like)
    with run.fresh():
        expected = by_full_passes(run)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found[name].effects, expected, atol=2e-5)


@pytest.mark.slow
def test_a_network_that_reads_no_volume_has_no_blackout(found, bundles, new, tmp_path):
    assert found["nn"].effects is None
    page.write(tmp_path, bundles["nn"], given_of(new), found["nn"])
    assert not (tmp_path / "regions.csv").exists()
    assert "blackout" not in (tmp_path / "person.html").read_text()


# What is known without being told


@pytest.mark.slow
def test_head_motion_is_read_beside_the_maps_unless_it_is_given(found, bundles, new, monkeypatch):
    assert "mean_fd 0.3 mm, by the JSON beside the maps." in found["mmnn"].notes
    assert not any("taken as unknown" in note for note in found["mmnn"].notes)
    monkeypatch.setattr(person, "measured", lambda run: (np.array([[0.5]]), run.cohort.covariates))
    given = {"age": "12", "mean_fd": "0.25"}
    covariates = person.predicted(bundles["nn"], given_of(new, **given), None)
    assert covariates.effects["mean_fd"].tolist() == ["0.25"]
    assert "Not given, and taken as unknown: sex, site." in covariates.notes


def edited(new: Path, folder: Path, name: str, **changes) -> Given:
    """The new person with other contents of the JSON beside a map; None: without it."""
    given = given_of(new)
    path = folder / "map.nii.gz"
    path.write_bytes(given.maps[name].read_bytes())
    described = json.loads(given.maps[name].with_name(given.maps[name].name.replace(".nii.gz", ".json")).read_text())
    path.with_name("map.json").write_text(
        json.dumps({key: value for key, value in (described | changes).items() if value})
    )
    return replace(given, maps=given.maps | {name: path})


@pytest.mark.slow
def test_volumes_without_names_are_taken_as_those_of_the_bundle_and_this_is_said(found, bundles, new, tmp_path):
    without = person.predicted(bundles["nn"], edited(new, tmp_path, "dual_regression", LabelMap=None), None)
    assert (
        f"The volumes of {tmp_path}/map.nii.gz have no names; taken as visual, motor, in this order." in without.notes
    )
    assert without.person == found["nn"].person


@pytest.mark.slow
def test_volumes_in_another_order_are_found_by_their_names(found, bundles, new, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.predict.person.background_effects", lambda *_: np.zeros(116))
    image = nibabel.load(given_of(new).maps["dual_regression"])
    given = edited(new, tmp_path, "dual_regression", LabelMap=NETWORKS[::-1])
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[..., ::-1], COARSE), tmp_path / "map.nii.gz")
    again = person.predicted(bundles["cnn"], given, None)
    assert again.person == found["cnn"].person
    assert not any("have no names" in note for note in again.notes)


@pytest.mark.slow
def test_series_may_be_those_of_the_pcp(found, bundles, new):
    """Whose names in the cohort do not begin with `seg-`."""
    bundle, cohort = bundles["nn"], bundles["nn"].like.cohort
    of_pcp = replace(cohort, metadata=replace(cohort.metadata, connectome="rois_six"))
    again = person.predicted(replace(bundle, like=replace(bundle.like, cohort=of_pcp)), given_of(new), None)
    assert again.person == found["nn"].person


@pytest.mark.slow
def test_parcels_that_the_series_lack_are_named(found, bundles, new, tmp_path):
    given = given_of(new)
    series = pd.read_csv(given.series, sep="\t").drop(columns="4").assign(**{"2": 1.0})
    series.to_csv(tmp_path / "series.tsv", sep="\t", index=False)
    said = person.predicted(bundles["mmnn"], replace(given, series=tmp_path / "series.tsv"), None).notes
    note = f"The series have no signal in 2 of {PARCELS} parcels, so that their edges are unknown: 2, 4."
    assert set(said) - set(found["mmnn"].notes) == {note}


@pytest.mark.slow
def test_maps_may_have_any_name_and_are_read_only(found, bundles, new, tmp_path):
    """Compressed or not, in folders whose names hold what separates options."""
    folder = tmp_path / "the person's, a=b (ü)"
    folder.mkdir()
    given = given_of(new)
    for at, (name, path) in enumerate(given.maps.items()):
        target = folder / f"map {at}, x=1.NII"
        nibabel.save(nibabel.load(path), tmp_path / "map.nii")
        (tmp_path / "map.nii").rename(target)
        described = path.with_name(path.name.replace(".nii.gz", ".json"))
        (folder / f"map {at}, x=1.json").write_bytes(described.read_bytes())
        given.maps[name] = target
    series = folder / "series of parcels.txt"
    series.write_bytes(given.series.read_bytes())
    for path in folder.iterdir():
        path.chmod(0o444)
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    with without_drawing():
        outcome = command(bundles["cnn"].path, replace(given, series=series), "--outDir", tmp_path / "out of a person")
    assert outcome.status == 0, outcome.err
    folder_of_results = tmp_path / "out of a person"
    assert outcome.out.splitlines()[-1] == f"Page: {folder_of_results}/person.html"
    assert f"{found['cnn'].person.raw:.2f}" not in outcome.out and "So no probability" in outcome.out
    assert {path.name for path in folder_of_results.iterdir()} == {"person.html", "person.json", "regions.csv"}
    said = json.loads((folder_of_results / "person.json").read_text())
    assert said["person"]["raw"] == found["cnn"].person.raw
    assert said["given"]["map falff"] == str(given.maps["falff"])
    assert before == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# Refusals


def damaged(given: Given, folder: Path) -> Given:
    path = folder / "cut off.nii.gz"
    path.write_bytes(given.maps["falff"].read_bytes()[:300])
    return replace(given, maps=given.maps | {"falff": path})


def with_maps(**files: object):
    """The same with other files; None: without."""

    def change(given: Given, folder: Path) -> Given:
        every = given.maps | {name: Path(str(file)) for name, file in files.items()}
        return replace(given, maps={name: path for name, path in every.items() if str(path) != "None"})

    return change


def copied(name: str, source: str, target: str):
    """The same with a copy of a map in place of another one."""

    def change(given: Given, folder: Path) -> Given:
        (folder / target).write_bytes(given.maps[source].read_bytes())
        return replace(given, maps=given.maps | {name: folder / target})

    return change


def with_series(text: str | None):
    def change(given: Given, folder: Path) -> Given:
        if text is not None:
            (folder / "series.tsv").write_text(text)
        return replace(given, series=None if text is None else folder / "series.tsv")

    return change


HEADER = "\t".join(map(str, range(1, PARCELS + 1))) + "\n"
STILL = "\t".join("5" * PARCELS) + "\n"
MOVING = STILL + STILL.replace("5", "6")  # two volumes
OPTIONS = parser()._option_string_actions.keys()


def options_in(error: str) -> set[str]:
    """The options that a message names, but for those of a command that it gives."""
    return set(re.findall(r"--[A-Za-z]\w*", re.sub(r"(run\.py|abide-\w+) .*", "", error)))


REFUSED = {  # what is given, and what is said of it
    "another map": (
        with_maps(reho="x.nii"),
        "--maps reho is no map of {bundle}; it reads falff, dual_regression_visual,",
    ),
    "no map": (with_maps(falff=None), "--maps lacks falff, which {bundle} reads; give a file of each, NAME=FILE."),
    "twice": (
        copied("dual_regression_motor", "falff", "x.nii.gz"),
        "--maps names dual_regression_motor twice, alone and as a volume of a file; leave one of them out.",
    ),
    "one file": (
        lambda given, _: with_maps(falff=given.maps["dual_regression"])(given, _),
        "--maps gives {dual_regression} to falff and to dual_regression; expected a file of each.",
    ),
    "no file": (with_maps(falff="nowhere.nii.gz"), "nowhere.nii.gz does not exist; expected a file."),
    "a folder": (with_maps(falff="."), ". is a folder; expected a file."),
    "no NIfTI": (
        copied("falff", "falff", "map.mgz"),
        "map.mgz is no NIfTI by its name; expected .nii.gz or .nii. Convert it to NIfTI.",
    ),
    "cut off": (damaged, "cut off.nii.gz is not a readable NIfTI map: "),
    "4-D": (copied("falff", "dual_regression", "x.nii.gz"), "x.nii.gz holds 2 volumes; {bundle} reads one 3-D map."),
    "3-D": (
        copied("dual_regression", "falff", "x.nii.gz"),
        "x.nii.gz holds one 3-D map; {bundle} reads a 4-D file of visual, motor.",
    ),
    "other names": (
        lambda given, folder: edited(NEW_AT[0], folder, "dual_regression", LabelMap=["visual", "other"]),
        "map.nii.gz holds 2 volumes, visual, other; {bundle} reads visual, motor. Name them by LabelMap in the JSON",
    ),
    "head motion": (
        lambda given, folder: edited(NEW_AT[0], folder, "falff", MeanFramewiseDisplacement=-1),
        "map.json: MeanFramewiseDisplacement is '-1'; expected millimetres.",
    ),
    "no series": (with_series(None), "{bundle} prepares people with connectomes of seg-six; give --series FILE."),
    "series": (with_series("1\t2\n1\tx\n"), "series.tsv is not the series of 2 parcels: "),
    "other parcels": (with_series("a\tb\n" + "1\t2\n2\t5\n" * 20), "series.tsv has other parcels than the rest: "),
    "few volumes": (
        with_series(f"{HEADER}{MOVING * 4}"),
        "series.tsv has 8 volumes that are not censored; expected at least 20. Give another file.",
    ),
    "no signal": (with_series(HEADER + STILL * 20), "series.tsv has no two parcels with a signal. Give another file."),
    "missing values": (
        with_series(HEADER + MOVING * 10 + STILL.replace("5", "n/a", 1)),
        "series.tsv has values of parcel 1 that are missing or infinite, though the volumes are not censored; expected",
    ),
    "no column": (
        lambda given, _: replace(given, phenotype={"AGE": "12"}),
        "--phenotype AGE is no column that {bundle} knows; it has age, sex, site, mean_fd.",
    ),
    "a category": (
        lambda given, _: replace(given, phenotype={"sex": "female"}),
        "--phenotype sex=female is not known to {bundle}, which has F, M.",
    ),
    "no number": (
        lambda given, _: replace(given, phenotype={"age": "old"}),
        "Column age holds 'old'; expected numbers",
    ),
}
NEW_AT: list[Path] = []  # the folder of the new person


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line_that_names_the_users_file(case, bundles, new, tmp_path, temporary):
    change, words = REFUSED[case]
    NEW_AT[:] = [new]
    bundle, files = bundles["mmnn"].path, tmp_path / "files"
    files.mkdir()
    outcome = command(bundle, change(given_of(new), files), "--outDir", "out/person")
    named = {"bundle": bundle, **given_of(new).maps}
    expected = re.sub(r"{(\w+)}", lambda found: str(named[found[1]]), words)
    assert outcome.status == 2
    assert expected in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert options_in(outcome.err) <= OPTIONS
    assert "person_" not in outcome.err and "people.csv" not in outcome.err and str(temporary) not in outcome.err
    assert not list(temporary.iterdir())
    assert not Path("out").exists()


@pytest.mark.slow
def test_maps_of_another_kind_are_refused_by_their_own_name(bundles, new, tmp_path, temporary):
    given = given_of(new)
    image = nibabel.load(given.maps["falff"])
    nibabel.save(nibabel.Nifti1Image(300 * image.get_fdata(dtype=np.float32), COARSE), tmp_path / "alff.nii.gz")
    outcome = command(bundles["cnn"].path, with_maps(falff=tmp_path / "alff.nii.gz")(given, tmp_path))
    assert (
        f"falff: The maps are amplitude, such as {tmp_path}/alff.nii.gz, unlike those of the cohort or bundle"
        in outcome.err
    )
    assert options_in(outcome.err) <= OPTIONS and outcome.err.endswith(" Give another file.\n")
    assert not list(temporary.iterdir())


@pytest.mark.slow
def test_one_map_that_was_derived_otherwise_is_refused(bundles, new, tmp_path):
    cohort = bundles["nn"].like.cohort
    derivation = Derivation(measures=tuple(MAPS), band=(0.01, 0.1))
    like = replace(cohort, metadata=replace(cohort.metadata, derivation=derivation))
    bundle = replace(bundles["nn"], like=replace(bundles["nn"].like, cohort=like))
    given = edited(new, tmp_path, "falff", Measure="falff", Band=[0.01, 0.08], Versions={"autism-blackout": "1"})
    with pytest.raises(
        InputError, match=f"{tmp_path}/map.nii.gz was derived with band 0.01-0.08 Hz, those of {bundle.path}"
    ):
        person.predicted(bundle, given, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, said",
    [
        (["--maps", "falff"], "argument --maps: 'falff' is not allowed; expected A=1,B=2, each name once"),
        (["--maps", "falff=a.nii,falff=b.nii"], "argument --maps: 'falff=a.nii,falff=b.nii' is not allowed"),
        ([], "the following arguments are required: --maps"),
        (["--maps", "falff=a.nii", "--prevalence", "1"], "argument --prevalence: '1' is not allowed; expected a share"),
        (["--maps", "falff=a.nii", "--prevalence", "0.01"], "--prevalence moves calibrated probabilities, and"),
        (["--maps", "falff=a.nii", "--outDir", "."], ". exists; name another folder with --outDir, or remove it."),
        (["--maps", "falff=a.nii", "--outDir", "file/out"], "file is a file); name a folder of your own"),
    ],
)
def test_options_that_make_no_sense(words, said, bundles):
    Path("file").touch()
    outcome = run_main("utils.predict.__main__", "predict", [bundles["nn"].path, *words])
    assert outcome.status == 2
    assert said in outcome.err


@pytest.mark.slow
def test_networks_that_need_several_people_predict_nobody_alone(bundles, new):
    model = bundles["cnn"].model
    by_site = replace(bundles["cnn"], model=replace(model, config=model.config | {"standardise": "site"}))
    with pytest.raises(
        person.InputError, match=r"by those of others of the same site \(standardise=site\), so that it"
    ):
        person.predicted(by_site, given_of(new), None)


@pytest.mark.slow
def test_a_test_names_the_bundle_and_refuses_a_prevalence_that_it_cannot_use(bundles, like, cli):
    bundle = bundles["nn"]
    other = replace(bundle.identity, preparation=replace(bundle.preparation, phenotype_mean=(9.0,) * 29))
    with pytest.raises(InputError, match=f"use a cohort made like {bundle.path}"):
        guards.same_preparation(run_on(bundle, like), other)
    outcome = cli("--test", "--bundle", bundle.path, "--dataDir", like, "--prevalence", "0.01")
    assert outcome.status == 2
    assert f"--prevalence moves calibrated probabilities, and {bundle.path} has none" in outcome.err


@pytest.mark.slow
def test_nothing_of_a_person_stays_if_it_is_stopped(bundles, new, temporary, monkeypatch):
    monkeypatch.setattr(person, "measured", lambda run: os.kill(os.getpid(), signal.SIGTERM))
    outcome = command(bundles["nn"].path, given_of(new))
    assert (outcome.status, outcome.err) == (130, "abide-predict: interrupted; repeat the command.\n")
    assert not list(temporary.iterdir())
    assert not Path("results").exists()


# The page


def calibrated(bundle: Bundle) -> Bundle:
    """The bundle with the calibration of a test on folds of 400 made-up people."""
    random, label = np.random.default_rng(0), np.arange(400) % 2
    raw = 1 / (1 + np.exp(-random.normal(label - 0.5)))
    constants = calibration.fit(label, raw, np.arange(400) // 100, "site")
    internal = CrossValidation(
        folder="test", preset="", config={}, precision="float32", num_iters=2, records_sha256="",
        folds="site", repeats=1, subjects=400, headline="auc", headline_name="AUC", scores={"auc": (0.7, 0.6, 0.8)},
        groups=(), conclusion="", motion=None, calibration=asdict(constants),
    )  # fmt: skip
    return replace(bundle, model=replace(bundle.model, internal=internal))


@pytest.mark.slow
def test_a_calibrated_person(bundles, new, monkeypatch):
    """Platt scaling, moved to the share of autism of the place of use; the range of single networks; the set."""
    each = np.array([[0.3], [0.6]])
    monkeypatch.setattr(person, "measured", lambda run: (each, None))
    bundle = calibrated(bundles["nn"])
    as_trained, rare = (person.predicted(bundle, given_of(new), share) for share in (None, 0.01))
    constants = bundle.calibration
    expected = constants.probability(np.array([0.45]))[0]
    odds = expected / (1 - expected) * (0.01 / 0.99) / (constants.prevalence / (1 - constants.prevalence))
    assert as_trained.person.probability == pytest.approx(expected)
    assert rare.person.probability == pytest.approx(odds / (1 + odds))
    assert as_trained.person.low < expected < as_trained.person.high
    assert as_trained.person.labels == rare.person.labels == ("control", "autism")
    low, high = as_trained.person.low, as_trained.person.high
    assert as_trained.prediction == [
        f"Probability of autism: {expected:.2f} (before calibration 0.45, of single networks {low:.2f} to {high:.2f}).",
        "Set of labels at 80%, however common autism is: control or autism, so that this person could be of either.",
    ]
    assert "for a share of autism of 0.01" in rare.notes[-1]


ODD = '<b>x</b> & "y"'
SAID = Predicted(
    PersonPrediction(0.4321, 0.3210, 0.25, 0.55, ()),
    3,
    (f"map shifted {ODD}", "age 99"),
    np.zeros(116),
    (f"Note {ODD}",),
    Caveats(simulated=True, problems=(f"two of {ODD}",)),
)


@pytest.fixture(scope="module")
def made(bundles, new, tmp_path_factory):
    """The folder of a page with text that a browser must not obey, and one region that speaks for autism."""
    folder = tmp_path_factory.mktemp("page")
    effects = np.zeros(116)
    effects[[0, 1]] = 0.5, -0.25  # Precentral_L and _R
    given = replace(given_of(new), phenotype={"site": ODD})
    page.write(folder, calibrated(bundles["mmnn"]), given, replace(SAID, effects=effects))
    return folder


@pytest.mark.slow
def test_the_page_holds_what_is_said(made, bundles, new):
    read = Page((made / "person.html").read_text(encoding="utf-8"))
    assert "One person: research, not a diagnosis (SIMULATED, PROBLEMS: 1)" in read.text
    assert read.headings[0] == "Intended use"
    assert read.terms[:2] == ["probability of autism, calibrated", "set of labels at 80%"]
    assert "0.32 single networks: 0.25 to 0.55" in read.text and "this person is unlike both classes" in read.text
    assert read.paragraphs["Intended use"][0].startswith("For research on groups of people. Not a diagnosis")
    assert read.paragraphs["Prediction"] == SAID.prediction
    assert (
        SAID.prediction[1]
        == "Set of labels at 80%, however common autism is: none, so that this person is unlike both classes."
    )
    (unlike,) = read.paragraphs["Like the training people?"]
    assert unlike == f"UNLIKE the training people, so do not rely on this: map shifted {ODD}; age 99."
    assert read.paragraphs["Problems of the people"] == [f"two of {ODD}"]
    assert read.paragraphs["How to read it"] == [f"Note {ODD}"]
    assert read.paragraphs["The model"] == calibrated(bundles["mmnn"]).lines()
    (blackout,) = read.paragraphs["What the model uses: blackout of regions"]
    assert "by 0, the mean of the person's brain, in all maps, and the edges of its parcels become unknown." in blackout
    assert "All regions are pale, for nothing is tested here: one person's map holds no p-value." in blackout
    assert read.paragraphs["The 20 strongest regions"] == [
        "No p-value: in one person an effect as strong may be chance."
    ]
    assert {str(path) for path in given_of(new).maps.values()} <= set(re.findall(r"/\S+\.nii\.gz", read.text))
    rows = read.rows["The 20 strongest regions"]
    assert rows[0] == ["region", "size, cm³", "effect on the logit"]
    assert [row[::2] for row in rows[1:4]] == [
        ["Precentral_L", "+0.50"], ["Precentral_R", "-0.25"], ["Frontal_Sup_L", "+0.00"],
    ]  # fmt: skip
    assert len(rows) == 21


@pytest.mark.slow
def test_of_a_network_at_chance_no_number_and_no_region_is_shown(bundles, new, tmp_path):
    """As its blackout names none. The files for programs keep them."""
    bundle, effects = calibrated(bundles["mmnn"]), np.linspace(-1, 1, 116)
    internal = replace(bundle.model.internal, scores={"auc": (0.55, 0.45, 0.65)})
    at_chance = replace(bundle, model=replace(bundle.model, internal=internal))
    for of in (at_chance, bundles["mmnn"]):  # the score of the latter is not known
        folder = tmp_path / str(of is at_chance)
        folder.mkdir()
        said = replace(SAID, effects=effects, doubt=of.doubt)
        page.write(folder, of, given_of(new), said)
        read = Page((folder / "person.html").read_text(encoding="utf-8"))
        assert read.paragraphs["Prediction"] == said.prediction == [of.doubt, said.prediction[1]]
        assert "what they say" in of.doubt and said.prediction[1].startswith("So no probability")
        assert not [name for name in read.headings if "region" in name] and "img" not in read.tags
        assert "0.32" not in read.text and "Precentral" not in read.text
        assert "0.32" not in " ".join(said.lines())
        assert json.loads((folder / "person.json").read_text())["person"]["probability"] == 0.321
        assert len(read_rows(folder / "regions.csv")) == 116


@pytest.mark.slow
def test_the_page_is_text_and_opens_without_a_network(made):
    text = (made / "person.html").read_text(encoding="utf-8")
    read = Page(text)
    assert "<b>" not in text and "&lt;b&gt;x&lt;/b&gt; &amp; &#34;y&#34;" in text
    assert len(read.scripts) == 1 and "img" in read.tags
    loaded = [value for name, value in read.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith(("data:", "#")) for value in loaded)


@pytest.mark.slow
def test_the_result_is_read_by_other_programs(made, bundles):
    said = json.loads((made / "person.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert said["person"] == {"raw": 0.4321, "probability": 0.3210, "low": 0.25, "high": 0.55, "labels": []}
    assert said["unlike"] == list(SAID.unlike)
    assert said["marks"] == "(SIMULATED, PROBLEMS: 1)"
    assert said["bundle_sha256"] == hashlib.sha256(bundles["mmnn"].path.read_bytes()).hexdigest()
    assert said["intended_use"].startswith("For research")
    rows = read_rows(made / "regions.csv")
    assert [(row["region"], row["effect"]) for row in rows[:2]] == [("1", "0.5"), ("2", "-0.25")]
    sizes = {int(row["region"]): float(row["size_cm3"]) for row in rows}
    atlas = load_atlas(None, bundles["mmnn"].like.cohort.grid)
    assert sizes == {
        region: pytest.approx((atlas.labels == region).sum() * 0.216, abs=0.051) for region in atlas.regions
    }


@pytest.mark.slow
def test_autism_is_red_and_left_is_left(bundles):
    """By the pixels: one region of the left side speaks for autism, its mirror image for control. Both are pale."""
    effects = np.zeros(116)
    effects[[0, 1]] = 0.5, -0.5
    figure = page.drawn(bundles["mmnn"], effects)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    seen = 0
    for axis in figure.axes:
        if not axis.images or axis.get_position().y0 < 0.2:  # the colour bar
            continue
        box = axis.get_window_extent()
        left, right = int(box.x0), int(box.x1)
        rows = slice(len(pixels) - int(box.y1), len(pixels) - int(box.y0))
        halves = [pixels[rows, left : (left + right) // 2], pixels[rows, (left + right) // 2 : right]]
        red, blue = ([int((half[..., a] - half[..., b] > 15).sum()) for half in halves] for a, b in ((0, 2), (2, 0)))
        assert red[1] == blue[0] == 0
        assert np.ptp(pixels[rows, left:right], axis=-1).max() < 60
        seen += red[0] > 0 and blue[1] > 0
    assert seen >= 2
    assert "for autism" in {axis.get_title(loc="right") for axis in figure.axes}
    ticks = [tick.get_text() for axis in figure.axes for tick in axis.get_xticklabels()]
    assert ticks[-3:] == ["-0.50", "0", "+0.50"]


@pytest.mark.slow
def test_no_effect_at_all_is_said_and_not_drawn(bundles, new, tmp_path):
    page.write(tmp_path, bundles["mmnn"], given_of(new), SAID)
    read = Page((tmp_path / "person.html").read_text(encoding="utf-8"))
    assert read.paragraphs["What the model uses: blackout of regions"][1] == "No region has any effect."
    assert "img" not in read.tags
    assert page.largest(np.array([0.0])) == (1.0, 1)
    assert page.largest(np.array([0.04, -0.0012])) == (0.04, 3)


def test_a_page_that_another_command_writes_is_told_before_the_work(bundles, new, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.predict.person.predicted", lambda *_: pytest.fail("the work was done"))
    with files.locked(tmp_path / "out"):
        outcome = command(bundles["mmnn"].path, given_of(new), "--outDir", tmp_path / "out")
    assert outcome.status == 2 and "out is being written by process" in outcome.err
