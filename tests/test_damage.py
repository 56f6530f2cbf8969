"""An edit of any file that is read or written (maps and tables, a cohort, results, a checkpoint, a bundle) is told in
one line, or changes nothing that comes out. Beside it the cases that once were faults."""

import csv
import io
import json
import random
import shutil
import zipfile
from pathlib import Path

import lab
import pytest
from commands import Outcome, answered, done, run
from conftest import CONVERT_OPTIONS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]


# Edits


def damaged(folder: Path, files: list[Path], draw: random.Random) -> str:
    """Edits one of these files of a folder, in a way and at a place that are drawn. What was done, in words."""
    files = sorted(path for path in files if path.stat().st_size)
    path = draw.choice(files)
    content = path.read_bytes()
    how = draw.choice(["gone", "cut", "empty", "flipped", *["exchanged"] * (len(files) > 1), *["edited"] * 3])
    if how == "exchanged":
        other = draw.choice([of for of in files if of.read_bytes() != content])
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return f"{path.relative_to(folder)} exchanged with {other.name}"
    path.unlink()
    if how != "gone":
        changed = {"cut": cut, "empty": lambda *_: b"", "flipped": flipped, "edited": EDITS.get(path.suffix, flipped)}
        path.write_bytes(changed[how](content, draw))
        assert path.read_bytes() != content
    return f"{path.relative_to(folder)} {how}"


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(1, len(content))]


def flipped(content: bytes, draw: random.Random) -> bytes:
    """Another bit."""
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def another_cell(content: bytes, draw: random.Random) -> bytes:
    """Another text in one cell of a table, or two exchanged rows."""
    rows = list(csv.reader(content.decode().splitlines()))
    one, other = draw.sample(range(len(rows)), 2)
    if rows[one] != rows[other] and 0 not in (one, other) and draw.random() < 0.3:
        rows[one], rows[other] = rows[other], rows[one]
    else:
        at = draw.randrange(len(rows[one]))
        texts = {f"7{rows[one][at]}", "other", draw.choice(rows[other])} - {rows[one][at]}
        rows[one][at] = draw.choice(sorted(texts))
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()


def another_value(content: bytes, draw: random.Random) -> bytes:
    return json.dumps(changed(json.loads(content), draw)).encode()


def changed(value: object, draw: random.Random) -> object:
    """Another JSON value in one place."""
    if isinstance(value, dict) and value:
        name = draw.choice(sorted(value))
        return value | {name: changed(value[name], draw)}
    if isinstance(value, list) and value:
        at = draw.randrange(len(value))
        return [*value[:at], changed(value[at], draw), *value[at + 1 :]]
    if isinstance(value, bool) or value is None or isinstance(value, (dict, list)):
        return "x"
    return value + 1 if isinstance(value, int | float) else f"{value}x"


EDITS = {".csv": another_cell, ".json": another_value}


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def told(command: str, **places: object) -> Outcome | None:
    """None if the command refuses, as every refusal promises; else what it left."""
    outcome = answered(command, **places)
    return None if outcome.status == 2 else outcome


# What a conversion reads


@pytest.mark.parametrize("seed", range(40))
def test_an_edit_of_any_map_or_table_is_told_or_converted(seed, tmp_path):
    """The table twice as often as a map, whose pixels may be others."""
    draw = random.Random(seed)
    folder = lab.pcp(tmp_path / "lab", lab.people(8), ("falff",), series=True)
    table, maps = [folder / "Phenotypic.csv"], [path for path in files_in(folder) if path.suffix != ".csv"]
    damaged(folder, table if draw.random() < 2 / 3 else maps, draw)
    command = "abide-data convert {of} {to} --grid reduced --connectome rois_made"
    if told(command, of=folder, to=tmp_path / "cohort") is None:
        assert not (tmp_path / "cohort").exists()
    else:
        done("abide-data check {to}", to=tmp_path / "cohort")


# Cohorts


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory) -> Path:
    """A folder with the cohort of eight people with every table, as records (`bin`) and in chunks (`zip`), checked."""
    folder = tmp_path_factory.mktemp("cohorts")
    lab.pcp(folder / "lab", lab.people(8), ("falff", "alff"), series=True)
    done(f"abide-data convert {{lab}} {{to}}/bin {CONVERT_OPTIONS}", lab=folder / "lab", to=folder)
    done("abide-data pack {to}/bin {to}/zip --zip", to=folder)
    for form in ("bin", "zip"):
        done("abide-data check {to}/{form}", to=folder, form=form)
    return folder


def problems(outcome: Outcome) -> list[str]:
    return [line for line in outcome.out.splitlines() if line.startswith("PROBLEM       ")]


PLAN = "run.py --train --dryRun --dataDir {copy} --chkPointDir {copy}-ckpt"


@pytest.mark.parametrize("form, seeds", [("bin", range(60)), ("zip", range(60, 90))])
def test_an_edit_of_any_file_of_a_cohort_is_told(form, seeds, cohorts, tmp_path):
    """By a refusal, by a problem that a check finds, or by taking the cohort for one that was not checked. The verdict
    of a check is no part of the cohort."""
    sound = problems(run("abide-data check {of}", of=cohorts / form))
    for seed in seeds:
        copy = shutil.copytree(cohorts / form, tmp_path / f"{seed}")
        what = damaged(copy, [path for path in files_in(copy) if path.name != "check.json"], random.Random(seed))
        planned = told(PLAN, copy=copy)
        if planned and "Checked on " in planned.out:
            found = told("abide-data check {copy}", copy=copy)
            assert found is None or set(problems(found)) - set(sound), (seed, what)


def test_a_bit_of_a_volume_is_told_before_any_result(on_folds, converted, tmp_path):
    """It is one of the mantissa: its value stays plausible. No means of volumes are kept: these are read."""
    lab.edit(lab.copy(converted, tmp_path / "of") / "50002.bin", "flipped")
    shutil.copytree(on_folds / "ckpt", tmp_path / "ckpt", ignore=shutil.ignore_patterns("means"))
    test = "run.py --test --folds 3 --dataDir {of} --chkPointDir {ckpt}/ckpt --outDir {of}-out"
    outcome = run(test, of=tmp_path / "of", ckpt=tmp_path)
    assert outcome.status == 2 and outcome.err.count("\n") == 1
    assert "50002.bin is not what was written: its volume differs from the digest" in outcome.err
    assert not list(tmp_path.rglob("predictions.csv"))


# Results


@pytest.fixture(scope="module")
def tested(on_folds, tmp_path_factory) -> Path:
    """The folder of a test, its page made anew without figures."""
    folder = shutil.copytree(on_folds / "test", tmp_path_factory.mktemp("tested") / "test")
    done("abide-report {of}", of=folder)
    return folder


@pytest.mark.parametrize("seed", range(30))
def test_an_edit_of_any_file_of_results_is_told_or_changes_no_page(seed, tested, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    (copy / "report.html").unlink()
    what = damaged(copy, [path for path in copy.iterdir() if path.is_file()], random.Random(seed))
    if told("abide-report {copy}", copy=copy):
        pages = [(folder / "report.html").read_text() for folder in (tested, copy)]
        assert pages[0] == pages[1] or what == "run.json edited", (seed, what)  # of which the page shows what it says


# Checkpoints


TEST = "run.py --test --everybody --chkPointDir {ckpt} --dataDir {newcomers} --outDir {out}"


@pytest.fixture(scope="module")
def scores(everybody, newcomers, tmp_path_factory) -> bytes:
    """The predictions of a sound checkpoint."""
    out = tmp_path_factory.mktemp("sound") / "out"
    done(TEST, ckpt=everybody / "ckpt", newcomers=newcomers, out=out)
    return (out / "predictions.csv").read_bytes()


@pytest.mark.parametrize("seed", range(12))
def test_an_edit_of_any_file_of_a_checkpoint_is_told_or_changes_no_score(seed, scores, everybody, newcomers, tmp_path):
    ckpt = shutil.copytree(everybody / "ckpt", tmp_path / "ckpt")
    what = damaged(ckpt, files_in(ckpt), random.Random(seed))
    if told(TEST, ckpt=ckpt, newcomers=newcomers, out=tmp_path / "out"):
        assert (tmp_path / "out" / "predictions.csv").read_bytes() == scores, (seed, what)


# Bundles


def packed(folder: Path, to: Path) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as chunk:
        for path in sorted(files_in(folder)):
            chunk.write(path, path.relative_to(folder))


def part_edited(model: Path, draw: random.Random) -> str:
    folder = model.with_suffix("")
    with zipfile.ZipFile(model) as found:
        found.extractall(folder)
    what = damaged(folder, files_in(folder), draw)
    packed(folder, model)
    shutil.rmtree(folder)
    return what


JOBS = {
    "--test": ("predictions.csv", range(12)),
    "--blackout --donors 1": ("regions.csv", range(100, 103)),
}


@pytest.mark.parametrize("job, seed", [(job, seed) for job, (_, seeds) in JOBS.items() for seed in seeds])
def test_an_edit_of_a_bundle_or_of_any_part_is_told(job, seed, bundle, newcomers, tmp_path):
    model, draw = Path(shutil.copy(bundle, tmp_path / "model.zip")), random.Random(seed)
    what = part_edited(model, draw) if draw.random() < 0.7 else damaged(tmp_path, [model], draw)
    command = f"run.py {job} --bundle {{model}} --dataDir {{newcomers}} --outDir {{out}}"
    assert told(command, model=model, newcomers=newcomers, out=tmp_path / "out") is None, (seed, what)
