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


def damage_file(folder: Path, files: list[Path], draw: random.Random) -> str:
    """Edits one of these files of a folder, in a way and at a place that are drawn. What was done, in words."""
    files = sorted(path for path in files if path.stat().st_size)
    path = draw.choice(files)
    content = path.read_bytes()
    edit_kind = draw.choice(["gone", "cut", "empty", "flipped", *["exchanged"] * (len(files) > 1), *["edited"] * 3])
    if edit_kind == "exchanged":
        second_path = draw.choice([candidate for candidate in files if candidate.read_bytes() != content])
        path.write_bytes(second_path.read_bytes())
        second_path.write_bytes(content)
        return f"{path.relative_to(folder)} exchanged with {second_path.name}"
    path.unlink()
    if edit_kind != "gone":
        edit_by_kind = {
            "cut": truncate,
            "empty": lambda *_: b"",
            "flipped": flip_bit,
            "edited": EDITS.get(path.suffix, flip_bit),
        }
        path.write_bytes(edit_by_kind[edit_kind](content, draw))
        assert path.read_bytes() != content
    return f"{path.relative_to(folder)} {edit_kind}"


def truncate(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(1, len(content))]


def flip_bit(content: bytes, draw: random.Random) -> bytes:
    """Another bit."""
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def change_cell(content: bytes, draw: random.Random) -> bytes:
    """Another text in one cell of a table, or two exchanged rows."""
    rows = list(csv.reader(content.decode().splitlines()))
    first_row, second_row = draw.sample(range(len(rows)), 2)
    if rows[first_row] != rows[second_row] and 0 not in (first_row, second_row) and draw.random() < 0.3:
        rows[first_row], rows[second_row] = rows[second_row], rows[first_row]
    else:
        column_index = draw.randrange(len(rows[first_row]))
        texts = {f"7{rows[first_row][column_index]}", "other", draw.choice(rows[second_row])} - {
            rows[first_row][column_index]
        }
        rows[first_row][column_index] = draw.choice(sorted(texts))
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()


def change_json(content: bytes, draw: random.Random) -> bytes:
    return json.dumps(change_value(json.loads(content), draw)).encode()


def change_value(value: object, draw: random.Random) -> object:
    """Another JSON value in one place."""
    if isinstance(value, dict) and value:
        name = draw.choice(sorted(value))
        return value | {name: change_value(value[name], draw)}
    if isinstance(value, list) and value:
        item_index = draw.randrange(len(value))
        return [*value[:item_index], change_value(value[item_index], draw), *value[item_index + 1 :]]
    if isinstance(value, bool) or value is None or isinstance(value, (dict, list)):
        return "x"
    return value + 1 if isinstance(value, int | float) else f"{value}x"


EDITS = {".csv": change_cell, ".json": change_json}


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def run_unless_refused(command: str, **places: object) -> Outcome | None:
    """None if the command refuses, as every refusal promises; else what it left."""
    outcome = answered(command, **places)
    return None if outcome.status == 2 else outcome


# What a conversion reads


@pytest.mark.parametrize("seed", range(40))
def test_an_edit_in_any_map_or_table_is_refused_or_converted(seed, tmp_path):
    """The table twice as often as a map, whose pixels may be others."""
    draw = random.Random(seed)
    folder = lab.pcp(tmp_path / "lab", lab.people(8), ("falff",), series=True)
    table, maps = [folder / "Phenotypic.csv"], [path for path in files_in(folder) if path.suffix != ".csv"]
    damage_file(folder, table if draw.random() < 2 / 3 else maps, draw)
    command = "abide-data convert {of} {to} --grid reduced --connectome rois_made"
    if run_unless_refused(command, of=folder, to=tmp_path / "cohort") is None:
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


def problem_lines(outcome: Outcome) -> list[str]:
    return [line for line in outcome.out.splitlines() if line.startswith("PROBLEM       ")]


PLAN = "run.py --train --dryRun --dataDir {copy} --chkPointDir {copy}-ckpt"


@pytest.mark.parametrize("form, seeds", [("bin", range(60)), ("zip", range(60, 90))])
def test_an_edit_in_any_cohort_file_is_reported(form, seeds, cohorts, tmp_path):
    """By a refusal, by a problem that a check finds, or by taking the cohort for one that was not checked. The verdict
    of a check is no part of the cohort."""
    sound = problem_lines(run("abide-data check {of}", of=cohorts / form))
    for seed in seeds:
        copy = shutil.copytree(cohorts / form, tmp_path / f"{seed}")
        edit_made = damage_file(
            copy, [path for path in files_in(copy) if path.name != "check.json"], random.Random(seed)
        )
        planned = run_unless_refused(PLAN, copy=copy)
        if planned and "Checked on " in planned.out:
            check_outcome = run_unless_refused("abide-data check {copy}", copy=copy)
            assert check_outcome is None or set(problem_lines(check_outcome)) - set(sound), (seed, edit_made)


def test_a_flipped_volume_bit_is_reported_before_any_result(on_folds, converted, tmp_path):
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
def test_an_edit_in_any_result_file_is_refused_or_changes_no_page(seed, tested, tmp_path):
    copy = shutil.copytree(tested, tmp_path / "copy")
    (copy / "report.html").unlink()
    edit_made = damage_file(copy, [path for path in copy.iterdir() if path.is_file()], random.Random(seed))
    if run_unless_refused("abide-report {copy}", copy=copy):
        pages = [(folder / "report.html").read_text() for folder in (tested, copy)]
        assert pages[0] == pages[1] or edit_made == "run.json edited", (
            seed,
            edit_made,
        )  # of which the page shows what it says


# Checkpoints


TEST = "run.py --test --everybody --chkPointDir {ckpt} --dataDir {newcomers} --outDir {out}"


@pytest.mark.parametrize("seed", range(12))
def test_an_edit_in_any_checkpoint_file_is_refused_or_changes_no_score(seed, by_bundle, everybody, newcomers, tmp_path):
    """The scores of the sound checkpoint are those of a bundle of it."""
    ckpt = shutil.copytree(everybody / "ckpt", tmp_path / "ckpt")
    edit_made = damage_file(ckpt, files_in(ckpt), random.Random(seed))
    if run_unless_refused(TEST, ckpt=ckpt, newcomers=newcomers, out=tmp_path / "out"):
        expected = (by_bundle / "test" / "predictions.csv").read_bytes()
        assert (tmp_path / "out" / "predictions.csv").read_bytes() == expected, (seed, edit_made)


# Bundles


def zip_folder(folder: Path, to: Path) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as chunk:
        for path in sorted(files_in(folder)):
            chunk.write(path, path.relative_to(folder))


def damage_bundle_member(model: Path, draw: random.Random) -> str:
    folder = model.with_suffix("")
    with zipfile.ZipFile(model) as archive:
        archive.extractall(folder)
    edit_made = damage_file(folder, files_in(folder), draw)
    zip_folder(folder, model)
    shutil.rmtree(folder)
    return edit_made


JOBS = {
    "--test": ("predictions.csv", range(12)),
    "--blackout --donors 1": ("regions.csv", range(100, 103)),
}


@pytest.mark.parametrize("job, seed", [(job, seed) for job, (_, seeds) in JOBS.items() for seed in seeds])
def test_an_edit_in_a_bundle_or_any_member_is_refused(job, seed, bundle, newcomers, tmp_path):
    model, draw = Path(shutil.copy(bundle, tmp_path / "model.zip")), random.Random(seed)
    edit_made = damage_bundle_member(model, draw) if draw.random() < 0.7 else damage_file(tmp_path, [model], draw)
    command = f"run.py {job} --bundle {{model}} --dataDir {{newcomers}} --outDir {{out}}"
    assert run_unless_refused(command, model=model, newcomers=newcomers, out=tmp_path / "out") is None, (
        seed,
        edit_made,
    )
