"""--blackout --bundle: other people blacked out by the networks of a bundle, and the group's effects in it."""

import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import h5py
import nibabel
import numpy as np
import pytest
from helpers import Outcome, read_rows, run_main, training, write_rows
from people import ROWS, renamed, write_people

from data.base import archive
from data.base.errors import InputError
from data.base.files import SUMS
from data.cohorts.folds import digest_over
from data.cohorts.records import REDUCED
from data.cohorts.stored import sealed
from utils.blackout.bundled import group_effects, not_compared
from utils.blackout.job import measured
from utils.blackout.options import BlackoutOptions
from utils.bundle.effects import DescribedBlackout, read_description, read_family
from utils.bundle.model import Bundle
from utils.bundle.run import networks_of, on_cohort
from utils.jobs import BLACKOUT
from utils.runs.checkpoints import CheckpointFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]


class Lab(NamedTuple):
    """All in one folder: the checkpoint of everybody, new people, what a blackout of these by the plain bundle printed
    and wrote, the same as if it were on folds of the training people, and what is replaced."""

    folder: Path
    said: str

    @property
    def atlas(self) -> Path:
        return self.folder / "own.nii.gz"

    @property
    def new(self) -> Path:
        return self.folder / "new"

    @property
    def plain(self) -> Path:
        return self.folder / "plain.zip"

    @property
    def out(self) -> Path:
        return self.folder / "blackout"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "ckpt" / "mmnn" / "everybody"

    @property
    def on_folds(self) -> Path:
        return self.folder / "on-folds"


def bundle(*words: object) -> Outcome:
    return run_main("utils.bundle.__main__", "utils.bundle", words)


@pytest.fixture(scope="module")
def lab(cli, data_cli, home, tmp_path_factory) -> Lab:
    folder = tmp_path_factory.mktemp("lab")
    labels = np.zeros(REDUCED.shape, np.int16)
    labels[6:14, 10:20, 10:20], labels[16:24, 10:20, 10:20], labels[8:20, 22:28, 10:20] = 1, 2, 3
    made, blackout = Lab(folder, ""), ("--blackout", "--atlas", folder / "own.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, np.array(REDUCED.affine)), made.atlas)
    (folder / "own.txt").write_text("1 Right block\n2 Left block\n3 Front block\n")
    source = write_people(folder / "maps", renamed(6))
    for command in (
        lambda: cli(*training(folder, home, "mmnn", 2, "--everybody")),
        lambda: bundle(made.checkpoint, made.plain),
        lambda: data_cli("convert", source, made.new, "--like", made.plain),
        lambda: cli(*blackout, "--bundle", made.plain, "--dataDir", made.new, "--outDir", made.out),
    ):
        outcome = command()
        assert outcome.status == 0, outcome.err
    shutil.copytree(made.out, made.on_folds)
    described = json.loads((made.on_folds / "run.json").read_text())
    records = digest_over([CheckpointFolder(made.checkpoint).identity().records_sha256])
    (made.on_folds / "run.json").write_text(json.dumps(described | {"folds": "2", "records_sha256": records}))
    return made._replace(said=outcome.out)


@pytest.fixture(scope="module")
def with_effects(lab) -> Path:
    outcome = bundle(lab.checkpoint, lab.folder / "effects.zip", "--blackout", lab.on_folds)
    assert outcome.status == 0, outcome.err
    return lab.folder / "effects.zip"


@pytest.fixture(scope="module")
def of_two(lab, with_effects) -> Path:
    """A bundle of two networks, the second of which has other weights, and other constants of the phenotype."""
    parts = dict(Bundle.open(with_effects).archive.parts)
    model, weights = json.loads(parts["model.json"]), np.load(io.BytesIO(parts["weights/0.npy"]))
    second = model["members"][0] | {"phenotype_scale": [1.5] * 29, "phenotype_shift": [0.25] * 29}
    model["members"].append(second)
    other = weights * np.random.default_rng(0).uniform(0.5, 1.5, weights.shape).astype(np.float32)
    parts |= {"model.json": json.dumps(model).encode(), "weights/1.npy": archive.npy(other)}
    archive.write(lab.folder / "two.zip", {name: content for name, content in parts.items() if name != SUMS})
    return lab.folder / "two.zip"


@pytest.fixture
def blackout(cli, lab, tmp_path) -> Callable[..., tuple[Outcome, Path]]:
    """`blackout(...)` of the new people: what was printed, and the results."""

    def run(*more: object) -> tuple[Outcome, Path]:
        data = () if "--dataDir" in more else ("--dataDir", lab.new)
        return cli("--blackout", "--atlas", lab.atlas, *data, "--outDir", tmp_path / "out", *more), tmp_path / "out"

    return run


def stored(folder: Path) -> dict[str, np.ndarray]:
    with h5py.File(folder / "blackout.h5") as file:
        return {name: values[()] for name, values in file.items()}


def test_other_people_by_the_bundle_and_by_its_checkpoint(lab, blackout):
    assert "Donors: 5 per record, tested subjects of any site." in lab.said
    outcome, out = blackout("--model", "mmnn", "--everybody", "--chkPointDir", lab.folder / "ckpt")
    assert outcome.status == 0, outcome.err
    own, other = stored(lab.out), stored(out)
    assert own.keys() == other.keys() and len(own["subject"]) == 6
    for name in own:
        np.testing.assert_array_equal(own[name], other[name], err_msg=name)
    assert np.abs(own["reliance"]).max() > 1e-4


def test_effects_are_the_mean_over_networks(lab, of_two, blackout, tmp_path):
    """Each of which is exact, and reads the phenotype by constants of its own."""
    outcome, out = blackout("--bundle", of_two, "--verify", 2)
    assert (outcome.status, outcome.err) == (0, "")
    differ = [float(text) for text in re.findall(r"logits differ by at most (\S+?)[,.]? ", outcome.out)]
    assert len(differ) == 2 and max(differ) < 1e-5
    run = on_cohort(Bundle.open(of_two), sealed(lab.new), BLACKOUT, BlackoutOptions(atlas=lab.atlas), tmp_path / "none")
    first, second, found = stored(lab.out), measured(networks_of(run)[1:])[0], stored(out)
    for name in ("reliance", "unique", "delta_logit", "sufficiency", "probability"):
        np.testing.assert_allclose(found[name], (first[name] + second[name]) / 2, atol=1e-6, err_msg=name)
        assert np.abs(first[name] - second[name]).max() > 1e-4
    for row in read_rows(out / "regions.csv"):
        region = int(row["region"]) - 1
        mean = (first["reliance"] + second["reliance"])[:, region].mean() / 2
        assert float(row["reliance"]) == pytest.approx(mean, abs=1e-5)
    of_training = [row for row in read_rows(out / "replication.csv") if row["between"] == "training people"]
    assert [row["family"] for row in of_training if not row["thing"]] == ["regions", "values"]
    for row, (file, name) in zip(of_training, (("regions.csv", "name"), ("values.csv", "group")), strict=True):
        here, there = (
            {one[name]: float(one["reliance_adjusted"]) for one in read_rows(folder / file)}
            for folder in (out, lab.out)
        )
        expected = np.corrcoef([*here.values()], [there[thing] for thing in here])[0, 1]
        assert float(row["correlation"]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "more, words",
    [
        (("--dataDir", "{home}"), "trained {plain}, so that results would be too good"),
        (("--folds", 2), "--folds is not for --bundle, which holds trained networks"),
        (("--maps", "alff"), "--maps alff is no map of"),
        (("--prevalence", 0.1), "--prevalence goes with --test, not with --blackout"),
        (("--dataDir", "{cohort}"), "was trained on data with reduction"),
    ],
)
def test_what_is_refused(more, words, lab, home, cohort, blackout):
    names = {"plain": lab.plain, "home": home, "cohort": cohort}
    outcome, out = blackout("--bundle", lab.plain, *(str(word).format(**names) for word in more))
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words.format(**names) in outcome.err and not out.exists()


def test_people_without_labels_are_refused(lab, data_cli, blackout, tmp_path):
    source = write_people(tmp_path / "maps", [row | {"DX_GROUP": ""} for row in renamed(3)])
    assert data_cli("convert", source, tmp_path / "unlabelled", "--like", lab.plain).status < 2
    outcome, _ = blackout("--bundle", lab.plain, "--dataDir", tmp_path / "unlabelled")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "have no label" in outcome.err and "No test record has one." in outcome.err


# The group's effects


def test_a_bundle_holds_the_mean_effects_and_nobody(lab, with_effects):
    held, table = Bundle.open(with_effects), read_rows(lab.on_folds / "regions.csv")
    regions = held.model.blackout.families["regions"]
    assert regions.things == tuple((row["name"],) for row in table)
    assert [*regions.effect] == [float(row["reliance_adjusted"]) for row in table]
    assert not any(regions.named) and regions.people == 6
    text = held.archive.parts["model.json"].decode()
    assert not any(row["SUB_ID"] in text for row in [*ROWS, *renamed(6)])
    assert "It holds the mean effects of a blackout on folds" in held.archive.parts["card.md"].decode()
    assert "mean effects" not in Bundle.open(lab.plain).archive.parts["card.md"].decode()


def test_an_older_bundle_is_read_and_says_that_it_lacks_them(lab, tmp_path):
    words = f"{lab.plain} does not hold the group's effects, so that they are not compared"
    assert words in lab.said and words in json.loads((lab.out / "run.json").read_text())["conclusion"]
    parts = {name: content for name, content in Bundle.open(lab.plain).archive.parts.items() if name != SUMS}
    model = json.loads(parts["model.json"])
    del model["blackout"]
    archive.write(tmp_path / "older.zip", parts | {"model.json": json.dumps(model).encode()})
    assert Bundle.open(tmp_path / "older.zip").model.blackout is None


def test_they_are_compared_if_they_are_of_the_same_regions(lab, with_effects, tmp_path):
    held = Bundle.open(with_effects)
    own = on_cohort(held, sealed(lab.new), BLACKOUT, BlackoutOptions(atlas=lab.atlas), tmp_path)
    found, families = group_effects(own), held.model.blackout.families
    assert found.keys() == families.keys() and not_compared(own) == ""
    assert [*found["regions"].effect] == [*families["regions"].effect] and found["regions"].people == 6
    assert [*found["regions"].things] == [name for (name,) in families["regions"].things]
    aal, some = (replace(own, options=BlackoutOptions(**one)) for one in ({}, {"atlas": lab.atlas, "maps": ("falff",)}))
    assert group_effects(aal) == group_effects(some) == {}
    assert "holds the group's effects of the regions of another atlas, so that they are not" in not_compared(aal)
    assert "holds the group's effects of all maps, so that they are not" in not_compared(some)
    for systems, words in (
        (held.model.blackout.systems_sha256, ""),
        ("0" * 64, "the group's effects of other systems"),
    ):
        model = replace(held.model, blackout=replace(held.model.blackout, systems_sha256=systems))
        run = replace(own, checkpoints=replace(own.checkpoints, bundle=replace(held, model=model)))
        assert words in not_compared(run) and bool(not_compared(run)) is bool(words)
    model = replace(held.model, records_sha256=own.cohort.records_sha256)
    run = replace(own, checkpoints=replace(own.checkpoints, bundle=replace(held, model=model)))
    assert "holds the group's effects of these people, so that they are not" in not_compared(run)


TOLD = {"model": "mmnn", "config": {}, "records_sha256": "", "folds": "2", "subjects": 40}


def test_what_is_named_is_significant_for_a_network_that_is_better_than_chance(tmp_path):
    """Of connections the pairs of systems alone, since pairs of regions are those of one blackout."""
    rows = [
        {"level": level, "a": "left limbic", "b": b, "reliance_adjusted": "0.5", "p_reliance": p}
        for level, b, p in (("systems", "A", "0.049"), ("systems", "B", "0.05"), ("regions", "C", "0.0002"))
    ]
    write_rows(tmp_path / "connections.csv", rows)
    for better, named in ((True, (True, False)), (False, (False, False)), (None, (False, False))):
        found = read_family(tmp_path, "connections", DescribedBlackout(**TOLD, concluded=better))
        assert found.named == named and found.things == (("left limbic", "A"), ("left limbic", "B"))
        assert found.effect == (0.5, 0.5) and found.people == 40
    for twice, words in (
        (rows[1] | {"b": "A"}, "has two things of one name"),
        (rows[1] | {"p_reliance": ""}, "damaged"),
    ):
        write_rows(tmp_path / "connections.csv", [rows[0], twice])
        with pytest.raises(InputError, match=rf"connections.csv .*{words}"):
            read_family(tmp_path, "connections", DescribedBlackout(**TOLD, concluded=True))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"fold": "1"}, "is of one split, which leaves most people out"),
        ({"folds": None}, "is of one split, which leaves most people out"),
        ({"shuffled_labels": True}, "is of shuffled labels"),
        ({"chosen_maps": ["falff"]}, "is of some maps only; repeat it without --maps"),
        ({"subjects": "many"}, "is damaged"),
        ({"job": "test"}, "holds a test of mmnn; expected the folder of"),
        ({"model": "cnn"}, "holds a blackout of cnn; expected the folder of .* of mmnn"),
        ({"outputs_sha256": {"regions.csv": "0"}}, "regions.csv is not as it was written"),
    ],
)
def test_other_folders_are_no_blackout_on_folds(changes, words, lab, tmp_path):
    content = json.loads((lab.on_folds / "run.json").read_text()) | {"outputs_sha256": None} | changes
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read_description(tmp_path, "mmnn")


def test_a_blackout_of_others_is_no_part(lab, tmp_path):
    content = json.loads((lab.on_folds / "run.json").read_text())
    for changes, words in (
        ({"records_sha256": "0"}, "is of other records than"),
        ({"config": content["config"] | {"members": 5}}, "is of other settings than"),
        ({"finished": False}, "is not finished; expected the folder"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(content | {"outputs_sha256": None} | changes))
        outcome = bundle(lab.checkpoint, tmp_path / "a.zip", "--blackout", tmp_path)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert words in outcome.err and not (tmp_path / "a.zip").exists()


def test_by_a_checkpoint_nothing_is_compared():
    run = SimpleNamespace(checkpoints=None)
    assert group_effects(run) == {} and not_compared(run) == ""
