"""abide-bundle: what a bundle predicts, what it says, and that it holds nothing of any person."""

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import Outcome, Page, bare_records, read_rows, resealed, run_main, training, write_rows
from people import ROWS, renamed, write_people

from data.base import archive, files
from data.base.errors import InputError
from data.base.files import SUMS
from data.cohorts.rows import Row
from data.cohorts.seal import CohortFindings, Findings, write_verdict
from data.cohorts.stored import open_cohort
from data.likeness.reference import LEAST_LIMIT
from utils.bundle import make, trained
from utils.bundle.model import Bundle
from utils.runs.checkpoints import CheckpointFolder

pytestmark = pytest.mark.usefixtures("undrawn")

SECTIONS = (
    *("Model details", "Intended use", "People it was trained on", "Metrics", "By subgroup", "Limits"),
)  # of Mitchell et al. 2019


def bundle(*words: object) -> Outcome:
    return run_main("utils.bundle.__main__", "utils.bundle", words)


def parts_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as found:
        return {name: found.read(name) for name in found.namelist()}


def made(folder: Path, checkpoints: Path, *more: object) -> tuple[Path, str]:
    """A bundle alone in its folder, and what was printed."""
    outcome = bundle(checkpoints, folder / "a.zip", *more)
    assert outcome.status == 0, outcome.err
    return folder / "a.zip", outcome.out


@pytest.fixture(scope="module")
def making(settled, tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bundle")
    return made(folder, settled / "ckpt" / "nn" / "everybody", "--licence", "CC-BY-4.0")


@pytest.fixture(scope="module")
def of_everybody(making) -> Path:
    return making[0]


@pytest.fixture(scope="module")
def of_simulated(seen_two, tmp_path_factory) -> tuple[Path, str]:
    return made(tmp_path_factory.mktemp("simulated"), seen_two / "ckpt" / "nn")


@pytest.fixture(scope="module")
def of_folds(settled, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "folds.zip"
    outcome = bundle(settled / "ckpt" / "nn" / "folds-3", target, "--score", settled / "test-folds")
    assert outcome.status == 0, outcome.err
    return target


@pytest.fixture(scope="module")
def new_like(data_cli, tmp_path_factory) -> Callable[[Path], Path]:
    """`new_like(bundle)` is a cohort of eight new people, some of whom lack values."""

    def convert(like: Path) -> Path:
        folder = tmp_path_factory.mktemp("new")
        outcome = data_cli("convert", write_people(folder / "maps", renamed(8)), folder / "cohort", "--like", like)
        assert outcome.status < 2, outcome.err
        return folder / "cohort"

    return convert


@pytest.fixture(scope="module")
def away(new_like, of_everybody) -> Path:
    return new_like(of_everybody)


@pytest.fixture
def tested(cli, tmp_path) -> Callable[..., tuple[Outcome, Path]]:
    """`tested(bundle, cohort, ...)`: what was printed, and the results."""

    def run(path: Path, cohort: Path, *more: object) -> tuple[Outcome, Path]:
        out = tmp_path / f"results-{path.stem}"
        return cli("--test", "--bundle", path, "--dataDir", cohort, "--outDir", out, *more), out

    return run


@pytest.fixture(scope="module")
def of_away(of_everybody, away, cli, tmp_path_factory) -> Path:
    """The results of a test of the new people. Nothing but the file is there: it is moved."""
    folder = tmp_path_factory.mktemp("away")
    moved = shutil.copy(of_everybody, folder / "moved.zip")
    outcome = cli("--test", "--bundle", moved, "--dataDir", away, "--outDir", folder / "out")
    assert outcome.status == 0, outcome.err
    return folder / "out"


PROBLEM = "half of the maps were smoothed"


@dataclass(frozen=True)
class Odd:
    """A bundle of a training on a cohort with a PROBLEM, never tested: the file, what was printed as
    it was made; what a test of new people printed, and its results."""

    path: Path
    said: str
    told: str
    out: Path


@pytest.fixture(scope="module")
def odd(home, in_home, new_like, cli, tmp_path_factory) -> Odd:
    folder = tmp_path_factory.mktemp("odd")
    with_problem(home, folder / "cohort", PROBLEM)
    assert in_home(folder, "--train", "--dataDir", folder / "cohort").status == 0
    (folder / "made").mkdir()
    path, said = made(folder / "made", folder / "ckpt" / "nn")
    outcome = cli("--test", "--bundle", path, "--dataDir", new_like(path), "--outDir", folder / "out")
    assert outcome.status == 0, outcome.err
    return Odd(path, said, outcome.out, folder / "out")


def with_problem(cohort: Path, copy: Path, problem: str) -> None:
    """A copy of a cohort of which a check says that it has a problem."""
    opened = open_cohort(shutil.copytree(cohort, copy))
    write_verdict(copy, opened.seal.sha256, CohortFindings("", people=Findings(problems=[problem])))


# What it predicts


@pytest.mark.slow
@pytest.mark.bits
def test_it_predicts_what_the_checkpoint_does_byte_for_byte(of_away, settled, away, in_home, tmp_path):
    copy = shutil.copytree(settled, tmp_path / "copy")
    assert in_home(copy, "--test", "--everybody", "--dataDir", away).status == 0
    predictions = (of_away / "predictions.csv").read_bytes()
    assert predictions == (copy / "test-everybody" / "predictions.csv").read_bytes()
    assert predictions.count(b"\n") == 9


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_probabilities_each_with_its_own_scale(of_folds, settled, new_like, tested):
    """By hand: each fold's constants, in place of those by which records are stored, through its own network."""
    import keras

    from models import MODELS
    from utils.training.network import restore_weights

    path = new_like(of_folds)
    outcome, out = tested(of_folds, path)
    assert outcome.status == 0, outcome.err
    cohort, each = open_cohort(path), []
    stored = cohort.batch(range(8), volumes=False)["phenotype"].astype(float)
    its = cohort.metadata
    for fold in "012":
        folder = CheckpointFolder(settled / "ckpt" / "nn" / "folds-3" / fold)
        saved = folder.identity()
        mean, scale = (np.array(getattr(saved.preparation, f"phenotype_{name}")) for name in ("mean", "scale"))
        assert saved.preparation.phenotype_mean != its.phenotype_mean
        raw = stored * np.array(its.phenotype_scale) + np.array(its.phenotype_mean)
        known = (scale > 0) & (np.array(its.phenotype_scale) > 0)
        scaled = np.where(known, (raw - mean) / np.where(known, scale, 1), 0)
        keras.utils.clear_session()
        network = MODELS["nn"].build(MODELS["nn"].settings(saved.config), cohort)
        restore_weights(folder, network)
        logits = network({"phenotype": scaled.astype(np.float32)}, training=False).numpy().astype(float)
        each.append(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))
    found = [float(row["probability"]) for row in read_rows(out / "predictions.csv")]
    np.testing.assert_allclose(found, np.mean(each, 0), atol=2e-6)
    assert np.ptp(each, axis=0).max() > 1e-3
    people = read_rows(out / "people.csv")
    np.testing.assert_allclose([float(row["raw"]) for row in people], found, atol=2e-6)
    assert all(float(row["low"]) <= float(row["probability"]) <= float(row["high"]) for row in people)


@pytest.mark.slow
def test_probabilities_follow_the_prevalence(of_everybody, away, tested):
    """By the odds, which is all that changes; sets of labels hold however common autism is."""
    odds, labels = {}, {}
    for share in ("0.5", "0.01"):
        outcome, out = tested(of_everybody, away, "--prevalence", share)
        assert outcome.status == 0, outcome.err
        assert re.search(rf"alibrated .* of {share}", outcome.out + (out / "report.html").read_text())
        values = np.array([float(row["probability"]) for row in read_rows(out / "people.csv")])
        odds[share], labels[share] = values / (1 - values), [row["labels"] for row in read_rows(out / "people.csv")]
    np.testing.assert_allclose(odds["0.5"] / odds["0.01"], 99, rtol=0.02)
    assert labels["0.5"] == labels["0.01"]


@pytest.mark.slow
def test_without_a_score_it_works_and_says_so(odd, away, tested):
    assert "It goes without a score: no test on folds was given when it was made." in odd.said
    assert "report.html" not in parts_of(odd.path)
    assert "It goes without a score" in odd.told
    assert "Probabilities are not calibrated and there are no sets of labels" in (odd.out / "report.html").read_text()
    people = read_rows(odd.out / "people.csv")
    assert len(people) == 8 and {(row["probability"], row["labels"]) for row in people} == {("", "")}
    card = parts_of(odd.path)["card.md"].decode()
    assert "No score goes with this bundle: nobody knows how good its predictions are." in card
    outcome, out = tested(odd.path, away, "--prevalence", "0.01")
    assert (outcome.status, outcome.err.count("\n"), out.exists()) == (2, 1, False)
    assert f"--prevalence moves calibrated probabilities, and {odd.path} has none" in outcome.err


@pytest.mark.slow
def test_people_without_labels_have_predictions(of_everybody, data_cli, of_away, tested, tmp_path):
    rows = [row | {"DX_GROUP": ""} for row in renamed(8)]
    source = write_people(tmp_path / "maps", rows)
    assert data_cli("convert", source, tmp_path / "new", "--like", of_everybody).status < 2
    outcome, out = tested(of_everybody, tmp_path / "new")
    assert outcome.status == 0, outcome.err
    unlabelled = read_rows(out / "predictions.csv")
    assert {row["label"] for row in unlabelled} == {""}
    labelled = read_rows(of_away / "predictions.csv")
    assert [row["probability"] for row in unlabelled] == [row["probability"] for row in labelled]


@pytest.mark.slow
def test_who_is_unlike_is_told_and_nobody_may_be(of_everybody, away, tested, tmp_path):
    parts = {name: content for name, content in parts_of(of_everybody).items() if name != SUMS}
    likeness = json.loads(parts["likeness.json"])
    for limit, some in ((1e6, False), (LEAST_LIMIT, True)):
        limits = dict.fromkeys(likeness["limits"], limit)
        path = tmp_path / f"{limit}.zip"
        archive.write(path, parts | {"likeness.json": json.dumps(likeness | {"limits": limits}).encode()})
        outcome, out = tested(path, away)
        assert (outcome.status, outcome.err) == (0, "")
        count = sum(row["unlike"] != "" for row in read_rows(out / "people.csv"))
        assert f"Unlike the training people: {count} of 8 people" in (out / "report.html").read_text() + outcome.out
        assert (count > 0) is some


# What it says


@pytest.mark.slow
def test_values_that_few_people_have_are_named(seen_two, of_simulated, making):
    """Of the made-up lab's all are known of more, or of nobody."""
    assert "people have" not in making[1]
    told = re.search(r"Few people have (.*), so that the name", of_simulated[1])[1].split(", ")
    table = read_rows(
        open_cohort(Path(CheckpointFolder(seen_two / "ckpt" / "nn").identity().cohort)).path / "phenotype.csv"
    )
    known = {name: sum(row[name] != "" for row in table) for name in table[0]}
    assert told == [name for name, count in known.items() if 0 < count < 20]


@pytest.mark.slow
def test_categories_that_few_people_have_are_named(home):
    """One person of the table is ambidextrous here, five are right-handed."""
    metadata = open_cohort(home).metadata
    coded = pd.DataFrame({"hand_both": [1.0] + [0.0] * 39, "hand_right": [1.0] * 5 + [0.0] * 35, "iq": [90.0] * 40})
    named = replace(metadata, phenotype_categories={"hand": ("both", "right")})
    assert trained.known_of_few(SimpleNamespace(metadata=named, raw_phenotype=coded)) == ["hand_both"]


@pytest.mark.slow
def test_it_prints_what_is_in_it(making):
    path, said = making
    content = path.read_bytes()
    assert f"SHA-256 {hashlib.sha256(content).hexdigest()}" in said
    assert f"a.zip: {len(content):,} bytes; its parts, in bytes and compressed:" in said
    for name, part in parts_of(path).items():
        assert re.search(rf"^ +{len(part):,} +[\d,]+  {re.escape(name)}$", said, re.MULTILINE)
    assert "one network of nn, preset sine, trained on everybody: 20 people with autism, 20 controls" in said
    assert "Its score is that of folds: AUC within sites" in said
    assert [file.name for file in path.parent.iterdir()] == ["a.zip"]


@pytest.mark.slow
def test_what_may_be_chance_is_said(of_everybody):
    """Of an interval that holds 0.5, of one that is not known, and without a score."""
    made = Bundle.open(of_everybody)
    scores, headline = made.model.internal.scores, made.model.internal.headline
    for low, words in ((0.51, None), (0.5, "does not show"), (None, "does not show")):
        internal = replace(made.model.internal, scores={**scores, headline: (0.8, low, 0.9)})
        doubt = replace(made, model=replace(made.model, internal=internal)).doubt
        assert words in doubt if words else doubt == ""
    assert "nobody knows" in replace(made, model=replace(made.model, internal=None)).doubt


@pytest.mark.slow
def test_equal_networks_give_equal_bytes(settled, of_everybody, tmp_path):
    """But for the day, the commit and the licence."""
    assert bundle(settled / "ckpt" / "nn" / "everybody", tmp_path / "a.zip", "--licence", "CC-BY-4.0").status == 0
    own, other = parts_of(of_everybody), parts_of(tmp_path / "a.zip")
    assert own.keys() == other.keys()
    when = [[json.loads(of["model.json"])[name] for name in ("made", "git_commit")] for of in (own, other)]
    if when[0] == when[1]:  # not at midnight, nor if someone commits meanwhile
        assert of_everybody.read_bytes() == (tmp_path / "a.zip").read_bytes()
    differ = {name for name in own if own[name] != other[name]}
    assert differ <= {"model.json", "card.md", SUMS}


@pytest.mark.slow
def test_the_card_has_all_sections(of_everybody, of_folds, settled):
    for path in (of_everybody, of_folds):
        card = parts_of(path)["card.md"].decode()
        _, *both = re.split(r"^## (.+)$", card, flags=re.MULTILINE)
        found = dict(zip(both[::2], both[1::2], strict=True))
        assert set(SECTIONS) <= found.keys()
        assert all(text.strip() for text in found.values())
        assert "20 with autism and 20 controls" in found["People it was trained on"]
        for site in ("NYU", "PITT", "USM"):
            assert f"| {site} |" in found["People it was trained on"]
        auc = json.loads((settled / "test-folds" / "metrics.json").read_text())["auc"]
        assert f"| auc | {auc['value']:.2f} ({auc['low']:.2f} to {auc['high']:.2f}) |" in found["Metrics"]
        assert "AGE_AT_SCAN" in card and "SEX" in card and "func_mean_fd" in card
    assert "Licence of the weights: CC-BY-4.0." in parts_of(of_everybody)["card.md"].decode()
    assert "3 networks, whose probabilities are averaged" in parts_of(of_folds)["card.md"].decode()
    assert "not stated by who made this bundle" in parts_of(of_folds)["card.md"].decode()


@pytest.mark.slow
def test_what_is_not_known_is_said_on_terminal_and_page_in_the_same_words(of_away):
    """Whether some of these people trained the bundle: nobody can tell."""
    (said,) = (text for text in json.loads((of_away / "run.json").read_text())["warnings"] if "checked" in text)
    assert re.fullmatch(
        r"Whether some new people are training people of .* cannot be checked: .* ID of anybody\.", said
    )
    page = Page((of_away / "report.html").read_text(encoding="utf-8"))
    assert said in page.paragraphs["Warnings"]
    assert "took part" not in page.text


def test_small_sites_are_counted_together():
    names = ["NYU"] * 10 + ["USM"] * 6 + ["PITT", "KKI", "KKI", "KKI"]
    rows = [Row(f"{at}.bin", str(at), site, at % 2, "train") for at, site in enumerate(names)]
    assert make.sites_table(rows) == [
        {"site": "NYU", "control": "5", "autism": "5"},
        {"site": "USM", "control": "< 5", "autism": "< 5"},
        {"site": "sites of fewer than 5: 2", "control": "< 5", "autism": "< 5"},
    ]


@pytest.mark.slow
def test_the_mean_age_of_the_card_is_that_of_the_table(of_everybody):
    age = np.array([float(row["AGE_AT_SCAN"]) for row in ROWS])
    card = parts_of(of_everybody)["card.md"].decode()
    assert f"mean {age.mean():.3g}, SD {age.std(ddof=1):.3g}," in card


@pytest.mark.slow
def test_caveats_go_along(of_simulated, odd):
    card = parts_of(of_simulated[0])["card.md"].decode()
    assert "(SIMULATED" in card.splitlines()[0]
    assert "all of them simulated: nothing here says anything about people" in card
    card = parts_of(odd.path)["card.md"].decode()
    assert f"The cohort has a problem that invalidates results: {PROBLEM}" in card
    manifest = json.loads((odd.out / "run.json").read_text())
    assert f"of the training people: {PROBLEM}" in manifest["problems"]
    assert "PROBLEMS: " in odd.told


# Nothing of any person


def texts_of(path: Path) -> dict[str, str]:
    return {name: part.decode() for name, part in parts_of(path).items() if not name.endswith((".npy", ".gz"))}


def numbers_of(content: object) -> Iterator[list]:
    """All lists of numbers in JSON, flat."""
    if isinstance(content, list) and content and all(type(one) in (int, float) for one in content):
        yield content
    elif isinstance(content, list | dict):
        for one in content.values() if isinstance(content, dict) else content:
            yield from numbers_of(one)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["of_everybody", "of_folds"])
def test_no_id_and_no_value_of_a_person_is_in_any_text(which, settled, request):
    """By the words that a search would look for: IDs, with and without zeros, ages, motion, probabilities."""
    predictions = read_rows(settled / "test-folds" / "predictions.csv")
    values = [row[name] for row in ROWS for name in ("AGE_AT_SCAN", "func_mean_fd")]
    values += [row["probability"] for row in predictions]
    ids = [text for row in ROWS for text in (row["SUB_ID"], row["FILE_ID"], row["FILE_ID"].lower())]
    for name, text in texts_of(request.getfixturevalue(which)).items():
        found = [one for one in ids if re.search(rf"(?<![\w.]){re.escape(one)}(?!\w)", text)]
        assert not found, name
        found = [one for one in values if re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", text)]
        assert not found, name


@pytest.mark.slow
@pytest.mark.parametrize("which", ["of_everybody", "of_folds"])
def test_no_array_is_of_a_person(which, home, request):
    """Neither a volume, nor a part of one, nor a phenotype, raw or scaled."""
    cohort = open_cohort(home)
    volumes = [cohort.read(index)[2] for index in range(len(cohort.rows))]
    phenotypes = [*cohort.raw_phenotype.to_numpy(), *cohort.batch(range(40), volumes=False)["phenotype"]]
    records = [cohort.entries[index].read()[120:] for index in range(len(cohort.rows))]
    for name, part in parts_of(request.getfixturevalue(which)).items():
        assert not [one for one in records if one[20_000:20_064] in part and len(set(one[20_000:20_064])) > 8], name
        if name.endswith(".npy"):
            values = np.load(io.BytesIO(part), allow_pickle=False)
            same = [one for one in volumes if one.shape == values.shape and np.allclose(one, values, atol=1e-3)]
            assert not same, name
        elif name.endswith(".json"):
            lists = [of for of in numbers_of(json.loads(part)) if len(of) == 29]
            assert not [of for of in lists for own in phenotypes if np.allclose(of, own, atol=1e-3)], name


@pytest.mark.slow
def test_ids_in_problems_and_in_commands_are_withheld(home, settled, monkeypatch, tmp_path):
    """A check was done after the training, and its problem stands in the report, with a command, as of a later test."""
    told = (
        "50003 and 50004 share a scan; so do 0050005, X_0050006_falff.nii.gz and sub-50007, in 36 people, p = 0.50008"
    )
    with_problem(home, tmp_path / "cohort", told)
    copy = shutil.copytree(settled, tmp_path / "copy")
    for fold in "012":
        edited(copy / "ckpt" / "nn" / "folds-3" / fold, cohort=str(tmp_path / "cohort"))
    more, report_of = f"<p>{told}</p><p>run.py --test --outDir people/sub-50003</p></section>", make.report_of
    monkeypatch.setattr(make, "report_of", lambda internal: report_of(internal).replace("</section>", more, 1))
    outcome = bundle(copy / "ckpt" / "nn" / "folds-3", tmp_path / "a.zip", "--score", copy / "test-folds")
    assert outcome.status == 0, outcome.err
    expected = "ID and ID share a scan; so do ID, X_ID_falff.nii.gz and sub-ID, in 36 people, p = 0.50008"
    assert Bundle.open(tmp_path / "a.zip").model.caveats.problems == (expected,)
    texts = texts_of(tmp_path / "a.zip")
    for name, text in texts.items():
        assert not re.search(r"(?<![\d.])0*5000[2-9](?!\d)", text), name
    assert expected in texts["card.md"]
    assert f"<p>{expected}</p><p>run.py --test --outDir people/sub-ID</p>" in texts["report.html"]


@pytest.mark.parametrize(
    "subject, expected",
    [
        ("1000", "ID has no map; 0.1000, 10000 and 1000.5 are numbers, ID is not"),
        ("01000", "ID has no map; 0.1000, 10000 and 1000.5 are numbers, ID is not"),
        ("10", "1000 has no map; 0.1000, 10000 and 1000.5 are numbers, 1000 is not"),
        ("has_no", "1000 has no map; 0.1000, 10000 and 1000.5 are numbers, 1000 is not"),
    ],
)
def test_an_id_is_told_from_a_number(subject, expected):
    text = "1000 has no map; 0.1000, 10000 and 1000.5 are numbers, 1000 is not"
    assert make.withheld(text, {subject, "9999"}) == expected


@pytest.mark.slow
def test_ids_that_are_words_or_numbers_of_the_program_break_nothing(home, in_home, tmp_path):
    """People are called as a batch size, a grid, a preset and a map are."""
    folder = shutil.copytree(home, tmp_path / "cohort")
    for name in ("subjects.csv", "phenotype.csv", "covariates.csv", "maps.csv"):
        text = (folder / name).read_text()
        for old, new in (("50002", "2000"), ("50003", "falff"), ("50004", "reduced"), ("50005", "sine")):
            text, count = re.subn(rf"(?<=[\n,]){old}(?=,)", new, text)
            assert count, (name, old)
        (folder / name).write_text(text)
    more = ("--dataDir", resealed(folder), "--set", "batch_size=2000")
    assert in_home(tmp_path / "run", "--train", *more).status == 0
    outcome = bundle(tmp_path / "run" / "ckpt" / "nn", tmp_path / "a.zip")
    assert outcome.status == 0, outcome.err
    model = Bundle.open(tmp_path / "a.zip").model
    assert (model.config["batch_size"], model.preset) == (2000, "sine")


# What cannot be bundled


def edited(folder: Path, **changes: object) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def of_an_encoder(folder: Path) -> Path:
    place = folder / "ckpt" / "nn" / "everybody"
    preparation = json.loads((place / "run.json").read_text())["preparation"]
    edited(place, preparation=preparation | {"reduction": "encoder 1234"})
    return place


def of_mixed_folds(folder: Path) -> Path:
    edited(folder / "ckpt" / "nn" / "folds-3" / "1", preset="another")
    return folder / "ckpt" / "nn" / "folds-3"


def without_its_cohort(folder: Path) -> Path:
    edited(folder / "ckpt" / "nn" / "everybody", cohort=str(folder / "gone"))
    return folder / "ckpt" / "nn" / "everybody"


def of_other_records(folder: Path) -> Path:
    edited(folder / "ckpt" / "nn" / "everybody", records_sha256="0" * 64)
    return folder / "ckpt" / "nn" / "everybody"


def damaged(folder: Path) -> Path:
    for path in (folder / "ckpt" / "nn" / "everybody").glob("*.data-*"):
        path.write_bytes(path.read_bytes()[:-10])
    return folder / "ckpt" / "nn" / "everybody"


def of_too_few_batches(folder: Path) -> Path:
    place = folder / "ckpt" / "nn" / "folds-3"
    saved = json.loads((place / "2" / "run.json").read_text())["saved"]
    edited(place / "2", step=3, saved={name: of | {"step": 3} for name, of in saved.items()})
    return place


def without_a_fold(folder: Path) -> Path:
    shutil.rmtree(folder / "ckpt" / "nn" / "folds-3" / "1")
    return folder / "ckpt" / "nn" / "folds-3"


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "an encoder's volumes": (of_an_encoder, "reads volumes of an encoder, which a bundle cannot hold"),
    "folds of two presets": (of_mixed_folds, "holds trainings that differ in preset, such as 1; bundle one of them"),
    "a fold of fewer batches": (of_too_few_batches, "holds trainings that differ in step, such as 2"),
    "folds of which one is missing": (without_a_fold, "lacks a checkpoint of fold 1; train it"),
    "a cohort that is gone": (without_its_cohort, "was trained, is gone or was changed"),
    "a cohort that was changed": (of_other_records, "was trained, is gone or was changed"),
    "a damaged checkpoint": (damaged, "not there or not as it was saved"),
    "all of a model": (lambda folder: folder / "ckpt" / "nn", "holds no checkpoint"),
    "all of all models": (lambda folder: folder / "ckpt", "holds no checkpoint; expected such as CKPT/mmnn/everybody"),
    "no folder": (lambda folder: folder / "none", "holds no checkpoint"),
    "a file": (lambda folder: folder / "test-folds" / "run.json", "holds no checkpoint"),
    "results": (lambda folder: folder / "test-folds", "holds no checkpoint"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_bundled(what, settled, tmp_path):
    change, words = REFUSED[what]
    folder = change(shutil.copytree(settled, tmp_path / "copy"))
    outcome = bundle(folder, tmp_path / "a.zip")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert words in outcome.err
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.slow
def test_an_autoencoder_predicts_no_label(cli, home, tmp_path):
    assert cli(*training(tmp_path, home, "ae", 1)).status == 0
    outcome = bundle(tmp_path / "ckpt" / "ae", tmp_path / "a.zip")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "is of ae, which predicts no label; bundle a classifier" in outcome.err


@pytest.mark.slow
def test_a_fold_of_few_people_stays(settled, monkeypatch, tmp_path):
    """The folds have 13 and 14 people."""
    monkeypatch.setattr("utils.bundle.trained.TELLING", 14)
    outcome = bundle(settled / "ckpt" / "nn" / "folds-3", tmp_path / "a.zip")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert re.search(r"Fold \d leaves out 13 people, fewer than 14; networks with and without them would", outcome.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_bare_folder_says_nothing_of_its_people(cli, tmp_path):
    (tmp_path / "bare").mkdir()
    for name, content in bare_records(range(1, 13)).items():
        (tmp_path / "bare" / name).write_bytes(content)
    assert cli(*training(tmp_path, tmp_path / "bare", "nn", 1)).status == 0
    outcome = bundle(tmp_path / "ckpt" / "nn", tmp_path / "a.zip")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "does not say how its people were prepared; expected a cohort of convert" in outcome.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "more, words",
    [
        (("a.txt",), "a.txt does not end in .zip; name the bundle such as model.zip"),
        (("there.zip",), "there.zip exists; remove it or name another"),
        (("a.zip", "--score", "nowhere"), "nowhere"),
        (("a.zip", "--licence", "two\nlines"), r"'two\nlines' is not allowed"),
        (("nowhere/deep/a.zip", "--score", "{}/train-folds"), "train-folds"),
    ],
)
def test_options_that_cannot_be(more, words, settled, tmp_path):
    (tmp_path / "there.zip").write_text("text")
    outcome = bundle(settled / "ckpt" / "nn" / "everybody", *(word.format(settled) for word in more))
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["there.zip"]


@pytest.mark.slow
def test_a_score_of_other_settings_or_people_is_refused(settled, seen_two, in_home, tmp_path):
    score = ("--score", settled / "test-folds")
    assert in_home(tmp_path / "other", "--train", "--everybody", "--set", "l2=0.5").status == 0
    places = (tmp_path / "other" / "ckpt" / "nn" / "everybody", seen_two / "ckpt" / "nn")
    for place, words in zip(places, ("is of other settings than", "is of other records than"), strict=True):
        outcome = bundle(place, tmp_path / "a.zip", *score)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert words in outcome.err


@pytest.mark.slow
def test_an_edited_report_does_not_go_along_and_the_advice_mends_it(settled, tmp_path):
    folder = tmp_path / "test-folds"
    shutil.copytree(settled / "test-folds", folder)
    report, internal = folder / "report.html", SimpleNamespace(folder=str(folder))
    before = report.read_text()
    assert make.report_of(internal) == before
    report.write_text(before + "<p>AUC 0.99</p>")
    with pytest.raises(InputError, match=f"{report} is not as it was written; build it again: abide-report {folder}$"):
        make.report_of(internal)
    assert run_main("utils.report.__main__", "report", [folder]).status == 0
    assert "AUC 0.99" not in str(make.report_of(internal))


@pytest.mark.slow
def test_what_could_not_be_read_is_not_written(settled, monkeypatch, tmp_path):
    monkeypatch.setattr("utils.bundle.make.aal_sha256", lambda _: "0" * 64)
    outcome = bundle(settled / "ckpt" / "nn" / "everybody", tmp_path / "a.zip")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert not list(tmp_path.iterdir())


# Whom it tests


@pytest.mark.slow
def test_its_own_people_are_not_tested(of_everybody, home, tested):
    outcome, out = tested(of_everybody, home)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"{home} trained {of_everybody}, so that results would be too good; test other people" in outcome.err
    assert not out.exists()


@pytest.mark.slow
def test_its_own_people_are_known_by_their_scans(of_everybody, data_cli, tested, tmp_path):
    """The same maps under other names, converted as those of new people are."""
    folder, again = write_people(tmp_path / "maps", ROWS), tmp_path / "again"
    rows = renamed(len(ROWS))
    for before, now in zip(ROWS, rows, strict=True):
        (folder / "cpac" / f"{before['FILE_ID']}_falff.nii.gz").rename(
            folder / "cpac" / f"{now['FILE_ID']}_falff.nii.gz"
        )
    write_rows(folder / "Phenotypic.csv", rows)
    outcome = data_cli("convert", folder, again, "--like", of_everybody)
    assert outcome.status < 2, outcome.err
    outcome, out = tested(of_everybody, again)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert f"{again} trained {of_everybody}" in outcome.err
    assert not out.exists()


@pytest.mark.slow
def test_people_who_were_prepared_otherwise_are_refused(of_everybody, cohort, new_like, home, tested):
    """Simulated ones, or those whose phenotype is scaled on others."""
    for path in (cohort, new_like(home)):
        outcome, out = tested(of_everybody, path)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert "was trained on data with" in outcome.err
        assert f"use a cohort made like {of_everybody}" in outcome.err
        assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "more, words",
    [
        (("--folds", 3), "--folds is not for --bundle, which holds trained networks; leave it out"),
        (("--everybody",), "--everybody is not for --bundle"),
        (("--preset", "sine"), "--preset is not for --bundle"),
        (("--set", "l2=1"), "--set is not for --bundle"),
        (("--chkPointDir", "ckpt"), "--chkPointDir is not for --bundle"),
        (("--permutations", 3), "--permutations is not for --bundle"),
        (("--model", "cnn"), "is of nn, not cnn; leave --model out"),
        (("--prevalence", "0"), "is not allowed; expected a share between 0 and 1"),
        (("--prevalence", "1"), "is not allowed; expected a share between 0 and 1"),
        (("--prevalence", "1%"), "is not allowed; expected a share between 0 and 1"),
    ],
)
def test_what_a_bundle_decides(more, words, of_everybody, away, tested):
    outcome, out = tested(of_everybody, away, *more)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert words in outcome.err
    assert not out.exists()


@pytest.mark.slow
def test_a_bundle_is_not_trained(of_everybody, away, cli, tmp_path):
    outcome = cli("--train", "--bundle", of_everybody, "--dataDir", away, "--outDir", tmp_path / "out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "--bundle goes with --test or --blackout, not with --train; leave it out" in outcome.err
    outcome = cli("--test", "--prevalence", "0.1", "--dataDir", away, "--outDir", tmp_path / "out")
    assert (outcome.status, "--prevalence goes with --bundle" in outcome.err) == (2, True)


@pytest.mark.slow
def test_cohort_and_score_are_found_from_any_folder(home, settled, cli, tmp_path, monkeypatch):
    """And after the folder of all was moved; the report of the score shows that this was found, too."""
    study = tmp_path / "study"
    shutil.copytree(home, study / "cohort")
    shutil.copytree(settled / "test-folds", study / "score")
    monkeypatch.chdir(study)
    words = ("--model", "nn", "--score", "score", "--numIters", 4, "--dataDir", "cohort", "--chkPointDir", "ckpt")
    assert cli("--train", "--everybody", *words).status == 0
    monkeypatch.chdir(tmp_path)
    path, said = made(tmp_path, Path("study/ckpt/nn/everybody"))
    assert "report.html" in parts_of(path) and "is gone" not in said
    assert str(tmp_path).encode() not in b"".join(parts_of(path).values())
    study.rename(tmp_path / "moved")
    made(tmp_path / "moved", Path("moved/ckpt/nn/everybody"))
    monkeypatch.chdir(tmp_path / "moved")
    again = cli("--train", "--everybody", *words)
    assert again.status == 0 and str(study) not in again.out and not study.exists()


@pytest.mark.slow
def test_folds_whose_cohort_was_typed_in_several_ways_are_one_training(settled, tmp_path):
    folds = shutil.copytree(settled / "ckpt/nn/folds-3", tmp_path / "ckpt/nn/folds-3")
    identity = next(folds.glob("*/run.json"))
    said = json.loads(identity.read_text())
    (tmp_path / "link").symlink_to(said["cohort"])
    identity.write_text(json.dumps(said | {"cohort": str(tmp_path / "link")}))
    assert len(trained.trained_in(folds)) == 3


def test_what_another_command_writes_is_told_before_the_work(settled, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "parts_of", lambda *_: pytest.fail("the work was done"))
    with files.locked(tmp_path / "a.zip"):
        outcome = bundle(settled / "ckpt" / "nn" / "everybody", tmp_path / "a.zip")
    assert outcome.status == 2 and "a.zip is being written by process" in outcome.err
