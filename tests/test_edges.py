"""Edges of regions in a blackout: which they are, what replaces them, and what that changes, each by a loop."""

import re
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import lab
import nibabel
import numpy as np
import pytest
from commands import Outcome, done, record_of
from helpers import SMALL, SMALL_BATCH, add_connectomes, region_means
from sklearn.linear_model import Ridge

from data.cohorts import records
from data.cohorts.atlas import Atlas, load_atlas
from data.cohorts.connectomes import Connectomes
from data.cohorts.rows import Row
from data.cohorts.stored import open_cohort
from models import MODELS
from models.averaging import MeanOfLogits, PartOfMean
from models.connectomes import SHARE
from utils.blackout import edges, options, sentences
from utils.blackout.edge_logits import EdgeLogits, edge_logits
from utils.blackout.edges import Edges, EdgeSubstitution, ExpectedEdges
from utils.blackout.occlusion import occlusion_of
from utils.blackout.options import BlackoutOptions
from utils.runs.checkpoints import CheckpointFolder
from utils.training.network import restore_weights


def fills_of(cohort, atlas, tested: np.ndarray, options, seed: int = 0):
    """What replaces the regions of tested records in a blackout with these options."""
    from utils.blackout.donors import Donors
    from utils.blackout.fills import Fills

    return Fills(cohort, atlas, Donors(cohort, np.asarray(tested), options.donors, seed), options, seed)


REGIONS, MAPS, PEOPLE = (2, 3, 7), 2, 24
PARCELS = tuple("abcdef")
IN_REGION = (0, 0, 1, 2, 3, 3)  # the place in the atlas of each parcel's region; `e` lies outside, `f` in two alike


def blocks() -> Atlas:
    """Three regions of 20 voxels in a row, numbered with gaps."""
    full = np.zeros(records.FULL.shape, np.int32)
    for at, region in enumerate(REGIONS):
        full[20 * at : 20 * at + 20, 50, 50] = region
    return Atlas(full, {region: f"region {region}" for region in REGIONS}, records.FULL, full, [])


def image() -> np.ndarray:
    """Each parcel's voxels, most of which lie in its region."""
    parcels = np.zeros(records.FULL.shape, np.int16)
    parcels[0:10, 50, 50], parcels[10:21, 50, 50], parcels[21:30, 50, 50] = 1, 2, 3  # `b` has 1 voxel of region 3
    parcels[40:45, 50, 50], parcels[40:44, 51, 50] = 4, 4  # 5 of 9 voxels in region 7
    parcels[50:54, 50, 50], parcels[50:60, 52, 50] = 5, 5  # 4 of 14
    parcels[38:40, 50, 50], parcels[45:47, 50, 50] = 6, 6  # 2 in region 3, 2 in region 7
    return parcels


class Rows:
    """Connectomes of a table in memory, (records, edges)."""

    def __init__(self, values: np.ndarray):
        self.values, self.image, self.parcels = values, image(), PARCELS
        self.pairs = np.column_stack(np.triu_indices(len(PARCELS), 1))

    def __getitem__(self, indices) -> np.ndarray:
        return self.values[indices]


@pytest.fixture
def drawn():
    """A cohort whose last 4 records are tested and whose first 2 are of one person, its connectomes, some of which lack
    parcel `b`, and region means."""
    random = np.random.default_rng(0)
    common = random.normal(size=(PEOPLE, 2))
    values = common @ random.normal(size=(2, 15)) + random.normal(0, 0.5, (PEOPLE, 15)) + 0.3
    found = Rows(values.astype(np.float32))
    found.values[np.ix_([3, 8, 21], (found.pairs == 1).any(1))] = np.nan
    names = ["p1", *(f"p{at}" for at in range(1, PEOPLE))]
    rows = [Row(f"{at}.bin", name, "A", 0.0, "test" if at > 19 else "train") for at, name in enumerate(names)]
    cohort = SimpleNamespace(rows=rows, unswapped=lambda: [*range(PEOPLE)], connectomes=found, groups=())
    return cohort, found, random.normal(size=(PEOPLE, len(REGIONS), MAPS))


def touching(connectomes: Rows, region: int) -> np.ndarray:
    """The edges of a region, one by one."""
    return np.array([region in (IN_REGION[one], IN_REGION[other]) for one, other in connectomes.pairs])


def test_a_parcel_lies_where_most_of_its_voxels_do_and_an_edge_where_its_parcels_do(drawn):
    connectomes = drawn[1]
    assert edges.regions_of_parcels(connectomes, blocks()).tolist() == list(IN_REGION)
    of_region = edges.edges_of_regions(np.array(IN_REGION), connectomes.pairs, len(REGIONS))
    for region, own in enumerate(of_region):
        assert own.tolist() == np.flatnonzero(touching(connectomes, region)).tolist()
    unplaced = Connectomes(Path(), "rois", PARCELS, None, np.arange(2))
    assert edges.regions_of_parcels(unplaced, blocks()).tolist() == [len(REGIONS)] * len(PARCELS)


def by_ridge(cohort, connectomes: Rows, means: np.ndarray, region: int, index: int, penalty: float) -> np.ndarray:
    """The expected edges of a region of one record, by scikit-learn's ridge regression without the record's person, on
    the training people's z-scores."""
    training = [at for at, row in enumerate(cohort.rows) if row.split == "train"]
    values, own = connectomes.values.astype(float), touching(connectomes, region)
    centre, spread = np.nanmean(values[training], 0), np.nanstd(values[training], 0)
    scaled = np.nan_to_num((values - centre) / spread)
    others = np.delete(means, region, axis=1).reshape(len(means), -1)
    others = (others - others[training].mean(0)) / others[training].std(0)
    constant = np.ones((len(scaled), 1))
    features = np.hstack([scaled[:, ~own] / np.sqrt(values.shape[1]), others / np.sqrt(means[0].size), constant])
    rest = [at for at in training if cohort.rows[at].subject != cohort.rows[index].subject]
    fit = Ridge(alpha=penalty, fit_intercept=False).fit(features[rest], scaled[rest][:, own])
    return fit.predict(features[[index]])[0] * spread[own] + centre[own]


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_expected_edges_are_those_of_ridge_regressions_without_the_person(drawn, monkeypatch, penalty):
    cohort, connectomes, means = drawn
    monkeypatch.setattr(edges, "PENALTIES", [penalty])
    of_region = edges.edges_of_regions(np.array(IN_REGION), connectomes.pairs, len(REGIONS))
    indices = np.array([0, 1, 3, 9, 21, 23])  # of one person twice, with unknown edges, trained on, and tested
    found = ExpectedEdges(cohort, of_region, means, 0)(indices, connectomes[indices])
    for region, levels in enumerate(found):
        for level, index in zip(levels, indices, strict=True):
            independent = by_ridge(cohort, connectomes, means, region, index, penalty)
            assert level == pytest.approx(independent, abs=2e-4)


@pytest.mark.slow
def test_each_region_has_the_penalty_that_predicts_the_training_people_best(drawn):
    cohort, connectomes, means = drawn
    of_region = edges.edges_of_regions(np.array(IN_REGION), connectomes.pairs, len(REGIONS))
    training, known = np.arange(20), connectomes.values.copy()
    scaled = (known - np.nanmean(known[training], 0)) / np.nanstd(known[training], 0)
    for region, own in enumerate(of_region):
        errors, levels = [], []
        for penalty in edges.PENALTIES:
            predicted = [by_ridge(cohort, connectomes, means, region, at, penalty) for at in training]
            spread = np.nanstd(known[training], 0)[own]
            centre = np.nanmean(known[training], 0)[own]
            apart = np.nan_to_num(scaled[training][:, own]) - (np.array(predicted) - centre) / spread
            errors.append(np.square(apart).sum())
            levels.append(by_ridge(cohort, connectomes, means, region, 23, penalty))
        found = ExpectedEdges(cohort, of_region, means, 0)(np.array([23]), connectomes[[23]])[region][0]
        assert found == pytest.approx(levels[int(np.argmin(errors))], abs=2e-4)


def test_people_are_not_told_by_the_z_scores_of_the_others(drawn, monkeypatch):
    """Of noise nothing can be expected, however many features there are and however small the penalty is."""
    cohort, connectomes, _ = drawn
    random = np.random.default_rng(3)
    connectomes.values = random.normal(size=(PEOPLE, 15)).astype(np.float32)
    of_region = edges.edges_of_regions(np.array(IN_REGION), connectomes.pairs, len(REGIONS))
    monkeypatch.setattr(edges, "PENALTIES", [1e-3])
    monkeypatch.setattr(edges, "MAX_PEOPLE", 8)
    expected = ExpectedEdges(cohort, of_region, random.normal(size=(PEOPLE, len(REGIONS), MAPS)), 0)
    fitting = edges.people_to_fit_on(cohort, 0)[0]
    for own, levels in zip(of_region, expected(fitting, connectomes[fitting]), strict=True):
        assert np.square(connectomes.values[fitting][:, own] - levels).mean() > 0.7


def test_many_people_are_sampled_and_nobody_is_halved(drawn, monkeypatch):
    cohort = drawn[0]
    monkeypatch.setattr(edges, "MAX_PEOPLE", 7)
    for seed in range(5):
        fitting, people = edges.people_to_fit_on(cohort, seed)
        names = [{cohort.rows[fitting[at]].subject for at in own} for own in people]
        assert len(people) == 7 and all(len(own) == 1 for own in names)
        assert all(cohort.rows[at].split == "train" for at in fitting)
        assert ("p1" in set.union(*names)) == (0 in fitting) == (1 in fitting)
    tested = SimpleNamespace(rows=cohort.rows[20:], unswapped=lambda: [*range(4)], groups=())
    assert edges.people_to_fit_on(tested, 0)[0].tolist() == [0, 1, 2, 3]


def test_substitutions_are_those_of_the_volumes(drawn):
    """Unknown; two donors' edges; the same with the level expected for the person and their own deviation; and the
    person's edges among those of the donors."""
    cohort, connectomes, means = drawn
    found = Edges(cohort, blocks(), means, 0)
    indices, positions = np.array([20, 22]), np.array([[3, 5], [7, 21]])
    by_donor = found.contents(indices, positions)
    unknown = EdgeSubstitution(by_donor[0].own, by_donor[0].background)
    given = [EdgeSubstitution(of.own, of.donor) for of in by_donor]
    moved_1, moved_2 = (EdgeSubstitution(of.own, of.expected) for of in by_donor)
    lent_1, lent_2 = (EdgeSubstitution(of.donor, of.own) for of in by_donor)
    own, expected = connectomes[indices], found._expected
    levels = expected(indices, own)
    for region in range(len(REGIONS)):
        inside = touching(connectomes, region)
        blank = found.replaced(unknown, region)
        assert np.isnan(blank[:, inside]).all() and np.array_equal(blank[:, ~inside], own[:, ~inside])
        for given_, moved, lent, position in zip(given, (moved_1, moved_2), (lent_1, lent_2), positions, strict=True):
            donor, of_donor = connectomes[position], expected(position, connectomes[position])[region]
            level = donor[:, inside] - of_donor + levels[region]
            for one, base, taken in (
                (given_, own, donor[:, inside]),
                (moved, own, level),
                (lent, donor, own[:, inside]),
            ):
                put_in = found.replaced(one, region)
                np.testing.assert_allclose(put_in[:, inside], taken, atol=1e-6)
                assert np.array_equal(put_in[:, ~inside], base[:, ~inside], equal_nan=True)


class Known(keras.layers.Layer):
    """Values, 0.3 where unknown."""

    def call(self, values):
        return keras.ops.where(keras.ops.isnan(values), 0.3, values)


def network(edges_of_input: int) -> keras.Model:
    """Networks on the volume, and, by layers that are not linear, two on the connectome, each part with its share."""
    keras.utils.set_random_seed(1)
    volume = keras.Input((6, 5, 4, 1), name="volume")
    connectome = keras.Input((edges_of_input,), name="connectome")
    inside = keras.layers.Flatten()(keras.layers.Conv3D(2, 3, padding="same", activation="relu")(volume))
    hidden = keras.layers.Dense(8, activation="tanh")(Known()(connectome))
    found = [
        keras.layers.Reshape((networks, 2))(keras.layers.Dense(2 * networks)(x))
        for x, networks in ((inside, 3), (hidden, 2))
    ]
    parts = [PartOfMean("volume", 1, 0.4, False), PartOfMean("connectome", 1, 0.6, False)]
    logits = MeanOfLogits(parts, learned=False, name="logits")(found)
    return keras.Model({"volume": volume, "connectome": connectome}, logits)


@pytest.mark.slow
@pytest.mark.bits
def test_changes_by_edges_add_to_those_by_volumes_exactly(drawn):
    """Against full passes with the volume and the edges of a region replaced together."""
    cohort, connectomes, means = drawn
    random, model = np.random.default_rng(2), network(15)
    own = Edges(cohort, blocks(), means, 0)
    volume, fill = (random.normal(size=(3, 6, 5, 4, 1)).astype(np.float32) for _ in range(2))
    masks = random.random((len(REGIONS), 6, 5, 4)) < 0.2
    occlusion = occlusion_of(model)
    shown = connectomes[[20, 21, 22]]
    of_volume = occlusion.occluded_logits(occlusion.keep({"volume": volume, "connectome": shown}), fill, masks)
    for substitution in (
        EdgeSubstitution(shown, np.full_like(shown, np.nan)),
        EdgeSubstitution(shown, lambda region: connectomes[[4, 5, 6]][:, own.of_region[region]]),
    ):
        found = of_volume + edge_logits(model).changes(own, substitution)
        for region, mask in enumerate(masks):
            put_in = np.where(mask[None, ..., None], fill, volume)
            inputs = {"volume": put_in, "connectome": own.replaced(substitution, region)}
            np.testing.assert_allclose(found[region], model(inputs, training=False), atol=1e-6)


@pytest.mark.slow
def test_a_region_without_a_parcel_changes_nothing_and_many_regions_come_in_groups(drawn, monkeypatch):
    cohort, connectomes, means = drawn
    connectomes.image = np.where(image() == 4, 0, image())  # of region 7
    own = Edges(cohort, blocks(), means, 0)
    shown = connectomes[[20, 21]]
    substitution = EdgeSubstitution(shown, np.full_like(shown, np.nan))
    logits = EdgeLogits(network(15))
    together = logits.changes(own, substitution)
    assert not together[2].any() and together[:2].any(axis=(1, 2)).all()
    monkeypatch.setattr("utils.blackout.occlusion.ROWS", 1)
    np.testing.assert_allclose(logits.changes(own, substitution), together, atol=1e-6)


def test_a_network_that_reads_no_connectome_has_no_such_part():
    volume = keras.Input((6, 5, 4, 1), name="volume")
    assert edge_logits(keras.Model({"volume": volume}, keras.layers.Dense(2)(keras.layers.Flatten()(volume)))) is None


@pytest.fixture(scope="module")
def with_connectomes(cohort, cli, tmp_path_factory):
    """The cohort of other tests with connectomes of 8 parcels, of which three lie in AAL's Precuneus_R, Insula_L and
    Insula_R, one in all of a cerebellum's side and one outside; and a network trained on it."""
    folder = tmp_path_factory.mktemp("edges")
    shutil.copytree(cohort, folder / "cohort")
    labels, parcels = load_atlas(None, records.FULL).labels, np.zeros(records.FULL.shape, np.int16)
    for number, region in ((1, 68), (2, 29), (3, 30), (4, 91)):
        parcels[labels == region] = number
    parcels[:2] = 5
    add_connectomes(folder / "cohort", image=parcels, difference=2.0)
    small = ("--preset", "regions", "--set", "members=1", *SMALL_BATCH)
    folders = ("--dataDir", folder / "cohort", "--chkPointDir", folder / "ckpt", "--outDir", folder / "out")
    assert cli("--train", "--numIters", 2, *small, *folders).status == 0
    return folder


def blacked_out(cli, folder: Path, name: str, *options) -> Outcome:
    folders = ("--dataDir", folder / "cohort", "--chkPointDir", folder / "ckpt", "--outDir", folder / name)
    outcome = cli("--blackout", "--donors", 2, *folders, *options)
    assert outcome.status == 0, outcome.err
    return outcome


@pytest.mark.slow
@pytest.mark.bits
def test_a_blackout_replaces_edges_with_volumes_and_alone(with_connectomes, cli):
    """The effect of edges alone from the checkpoint's weights: edges of the region, z-scored, times half their weights
    each for two classes, a mean over donors."""
    folder = with_connectomes
    outcome = blacked_out(cli, folder, "blackout", "--verify", 12)
    said = "With each region its edges of the connectome were replaced. 4 of 8 parcels lie in 4 of 116 regions"
    assert said in outcome.out and said in record_of(folder / "blackout")["conclusion"]
    assert said in (folder / "blackout" / "blackout.html").read_text()
    assert "12 records recomputed in full, a region with every fill and in each map, or its edges, al" in outcome.out
    assert "alone, groups of values and a pair of regions: logits differ" in outcome.out
    assert float(re.search(r"differ by at most ([-.e\d]+)", outcome.out)[1]) < 1e-5
    with h5py.File(folder / "blackout" / "blackout.h5") as store:
        assert [name.decode() for name in store["map"]] == ["falff", "connectome"]
        found, together, subjects = (store[name][()] for name in ("reliance_by_map", "reliance", "subject"))
    opened = open_cohort(folder / "cohort")
    network = MODELS["mmnn"].build(
        MODELS["mmnn"].settings(CheckpointFolder(folder / "ckpt/mmnn").record().settings.config), opened
    )
    restore_weights(CheckpointFolder(folder / "ckpt/mmnn"), network)
    layer, edges_of_all = network.get_layer("connectome_logits"), opened.connectomes[np.arange(len(opened.rows))]
    scores = np.nan_to_num((edges_of_all - layer.mean.numpy()) * layer.scale.numpy()) * layer.kernel.numpy() * SHARE
    tested = opened.indices("test")
    fills = fills_of(opened, load_atlas(None, opened.grid), tested, BlackoutOptions(donors=2))
    assert [name.decode() for name in subjects] == [opened.rows[at].subject for at in tested]
    for region, parcel in ((67, 0), (28, 1), (29, 2), (90, 3)):
        own = (opened.connectomes.pairs == parcel).any(1)
        for row, index in enumerate(tested):
            sign = 1 if opened.rows[index].label == 1 else -1
            decrease = np.mean([(scores[index, own] - scores[donor, own]).sum() for donor in fills.donors.drawn[index]])
            assert found[row, region, 1] == pytest.approx(sign * decrease, abs=1e-5)
    assert not np.delete(found[..., 1], [67, 28, 29, 90], axis=1).any()
    np.testing.assert_allclose(together, found.sum(-1), atol=1e-5)  # networks that read one map, and the connectome


def sentence(connectomes: Rows | None, maps: tuple[str, ...] | None = None, reads: bool = True) -> str:
    """What a run on such a cohort says of edges, and whether they are replaced."""
    model = SimpleNamespace(inputs=lambda _: ("volume", "connectome") if reads else ("volume",))
    rows = [Row(f"{at}.bin", str(at), "A", 0.0, "train") for at in range(1001)]
    cohort = SimpleNamespace(connectomes=connectomes, rows=rows, without_connectomes=SimpleNamespace(connectomes=None))
    run = SimpleNamespace(model=model, config=None, cohort=cohort, options=BlackoutOptions(maps=maps))
    text = sentences.edges_sentence(run, blocks())
    assert run.options.replaces_edges(options.cohort_of(run)) == text.startswith("With each region")
    return text


def test_it_is_said_whether_edges_were_replaced(drawn):
    connectomes = drawn[1]
    assert sentence(connectomes) == (
        "With each region its edges of the connectome were replaced. 4 of 6 parcels lie in 3 of 3 regions; the other "
        "regions have no edges. The background of edges is the training people's mean. Expected edges are fitted on at "
        "most 1,000 people."
    )
    stayed = "The edges of the connectome stayed as they are"
    assert sentence(connectomes, ("falff",)) == f"{stayed}, since --maps says what was replaced."
    assert sentence(connectomes, reads=False) == ""
    connectomes.image = None
    assert sentence(connectomes) == (
        f"{stayed}: the cohort does not hold where its parcels lie (convert with --parcels FILE to replace a region's "
        "edges, too)."
    )


THREE = ("falff", "alff", "degree_weighted")


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Path:
    """A folder with `cohort`, of three maps, and `ckpt` of a cnn that has seen 4 batches of it."""
    folder = tmp_path_factory.mktemp("three")
    lab.pcp(folder / "lab", lab.people(40), THREE)
    done("abide-data convert {to}/lab {to}/cohort --grid reduced --maps all", to=folder)
    places = "--dataDir {to}/cohort --chkPointDir {to}/ckpt --outDir {to}/out"
    done(f"run.py --train --model cnn --numIters 4 {' '.join(SMALL['cnn'])} {places}", to=folder)
    return folder


@pytest.fixture(scope="module")
def logits_of(three):
    """Volume (x, y, z, maps) -> logits of (control, autism), one at a time."""
    folder = CheckpointFolder(three / "ckpt/cnn")
    settings = MODELS["cnn"].settings(folder.record().settings.config)
    network = MODELS["cnn"].build(settings, open_cohort(three / "cohort"))
    restore_weights(folder, network)
    return lambda volume: network({"volume": volume[None]}, training=False).numpy()[0].astype(float)


@pytest.mark.slow
def test_regions_are_blacked_out_in_these_maps_only(three, logits_of, tmp_path):
    """Against a loop by hand: all effects, with one donor, whose distance from all people whom it was drawn from is
    taken out by a regression on the replaced maps alone."""
    labels = load_atlas(None, records.REDUCED).labels
    few = sum(np.int16(at) * (labels == region) for at, region in enumerate((20, 68, 102), 1))
    nibabel.save(nibabel.Nifti1Image(few, np.array(records.REDUCED.affine)), tmp_path / "few.nii.gz")
    opened, regions = open_cohort(three / "cohort"), load_atlas(tmp_path / "few.nii.gz", records.REDUCED)
    assert [(regions.labels == region).sum() for region in (1, 2, 3)] == [(few == at).sum() for at in (1, 2, 3)]
    tested = opened.indices("test")
    words = "--dataDir {of}/cohort --chkPointDir {of}/ckpt --outDir {to}/out --atlas {to}/few.nii.gz"
    command = f"run.py --blackout --model cnn {words} --donors 1 --verify 6 --maps degree_weighted,falff"
    told = done(command, of=three, to=tmp_path)
    assert float(re.search(r"differ by at most (\S+), ", told)[1]) < 1e-5
    replaced = [THREE.index("degree_weighted"), THREE.index("falff")]
    fills = fills_of(opened, regions, tested, BlackoutOptions(donors=1))
    with h5py.File(tmp_path / "out" / "blackout.h5") as store:
        stored = {name: values[:] for name, values in store.items()}
    sign = np.array([1 if opened.rows[index].label == 1 else -1 for index in tested])
    for region in (1, 2):
        inside = regions.labels == region
        means = np.stack([opened.volume(at)[inside].mean(0, float) for at in range(len(opened.rows))])
        levels = {"reliance": means[:, replaced], "unique": (means - fills.expected[:, region - 1])[:, replaced]}
        levels |= {at: means[:, [at]] for at in sorted(replaced)}
        effects, pairs, away = (defaultdict(list) for _ in range(3))
        for index in tested:
            volume, (position,) = opened.volume(index), fills.donors.drawn[int(index)]
            donor = opened.volume(position)
            hidden, donated, moved, alone = *(volume.copy() for _ in range(3)), donor.copy()
            in_one = {at: volume.copy() for at in sorted(replaced)}
            for at in replaced:
                level = fills.expected[index, region - 1, at] - fills.expected[position, region - 1, at]
                hidden[inside, at] = np.median(volume[[0, -1], :, :, at])
                donated[inside, at] = in_one[at][inside, at] = donor[inside, at]
                moved[inside, at] = donor[inside, at] + np.float32(level)
                alone[inside, at] = volume[inside, at]
            shows = (volume, donor, alone, hidden, donated, moved, *in_one.values())
            control, autism = np.transpose([logits_of(each) for each in shows])
            shown, donors, lent, *others = autism - control
            for name, other in zip(("delta_logit", "reliance", "unique", *in_one), others, strict=True):
                effects[name].append(shown - other)
            effects["sufficiency"].append(lent - donors)
            split, site = fills.donors.origin[int(index)]
            givers = [at for at in opened.indices(split) if at != index and site in (None, opened.rows[at].site)]
            assert len(givers) >= 2  # enough to draw one donor from
            for name, level in levels.items():
                away[name].append(level[position] - level[givers].mean(0))
                pairs[name].append(level[index] - level[position])
        for name in levels:
            shrunk = np.diag(np.sqrt(np.square(away[name]).mean(0)))
            of_none = np.zeros(len(shrunk))
            slope = np.linalg.lstsq(np.vstack([pairs[name], shrunk]), [*effects[name], *of_none], rcond=None)[0]
            effects[name] = np.array(effects[name]) + np.array(away[name]) @ slope
        for place, at in enumerate(sorted(replaced)):
            assert stored["reliance_by_map"][:, region - 1, place] == pytest.approx(sign * effects.pop(at), abs=1e-5)
        for name, values in effects.items():
            assert stored[name][:, region - 1] == pytest.approx(sign * np.array(values), abs=1e-5), name
    assert "of each region was replaced; alff stayed." in told
    said = record_of(tmp_path / "out")["options"]["chosen_maps"]
    assert said == ["degree_weighted", "falff"]
    assert "6 records recomputed in full, a region with every fill and in each map alone" in told
    rows = lab.read_table(tmp_path / "out/regions_by_map.csv").to_dict("records")
    assert ",".join(rows[0]).startswith(
        "rank,region,name,map,reliance,reliance_low,reliance_high,p_reliance,p_reliance_plain,reliance_adjusted,"
    )
    assert [stored["map"][place].decode() for place in range(2)] == ["falff", "degree_weighted"]
    assert len(rows) == 3 * 2 and {row["map"] for row in rows} == {"falff", "degree_weighted"}
    for row in rows:
        place = ["falff", "degree_weighted"].index(row["map"])
        mean = stored["reliance_by_map"][:, int(row["region"]) - 1, place].mean()
        assert float(row["reliance"]) == pytest.approx(mean, abs=1e-5)
    found = {file.suffix for file in (tmp_path / "out").glob("regions_by_map.*")}
    assert found == {".csv", ".png", ".svg"}


def test_the_background_of_volumes_standardised_within_the_brain_is_zero(cohort):
    tested = open_cohort(cohort).indices("test")[:2]
    opened = replace(open_cohort(cohort), standard="brain")
    filled = fills_of(opened, load_atlas(None, records.REDUCED), tested, BlackoutOptions(donors=2))
    batch, found = filled.of(tested)
    shown, background, _ = found[filled.names.tolist().index("background")]
    assert (background == 0).all() and shown is batch["volume"]
    assert (shown == opened.batch(tested)["volume"]).all()
    assert (shown != open_cohort(cohort).batch(tested)["volume"]).any()
    expected = region_means(load_atlas(None, records.REDUCED), opened.batch(np.arange(len(opened.rows)))["volume"])
    np.testing.assert_allclose(filled.means, expected, atol=1e-6)
