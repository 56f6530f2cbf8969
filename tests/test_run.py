"""run.py: every mistake is told in one line before TensorFlow is imported; the mission's commands work as written."""

import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, bare_records, resealed, small_record

from data.base.errors import InputError
from models import cae
from utils.jobs import JOBS

WATCH = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout

sys.modules["tensorflow"] = sys.modules["keras"] = None  # importing them fails from here on
import run

told = {}
for name, arguments in json.load(sys.stdin).items():
    sys.argv = ["run.py", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            status = run.main()
        except SystemExit as exit_:
            status = exit_.code
        except BaseException as error:
            status = repr(error)
    heavy = [module for module in ("pandas", "scipy", "sklearn", "rich", "pydantic", "joblib") if module in sys.modules]
    told[name] = {"status": status, "out": out.getvalue(), "err": err.getvalue(), "imported": heavy}
json.dump(told, sys.stdout)
"""


def told_without_tensorflow(commands: dict[str, list[str]]) -> dict[str, dict]:
    """Runs commands one after another in one new process; tells how each ended and what had been imported by then."""
    done = subprocess.run(
        [sys.executable, "-c", WATCH], input=json.dumps(commands), capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def paths(tmp_path_factory, cohort, full_cohort, trained) -> dict[str, str]:
    """Names used as {placeholders} in MISTAKES: cohorts and checkpoints, good and bad."""
    folder = tmp_path_factory.mktemp("mistakes")

    def bare(name: str, content: bytes | None = None):
        (folder / name).mkdir()
        for file, record in bare_records(range(1, 4)).items():
            (folder / name / file).write_bytes(record)
        if content is not None:
            (folder / name / "777.bin").write_bytes(content)
        return folder / name

    found = {
        "cohort": cohort,
        "full": full_cohort,
        "ckpt": trained,
        "missing": folder / "missing",
        "empty": folder / "empty",
        "file": folder / "file.bin",
        "other": bare("other"),
        "short": bare("short", small_record()[:-4]),
        "long": bare("long", small_record() + b"1234"),
        "half": bare("half", small_record(0.5)),
        "two": bare("two", small_record(2.0)),
        "swapped": shutil.copytree(cohort, folder / "swapped"),
        **{name: shutil.copytree(trained, folder / name) for name in ("renamed", "regrid", "cut", "spoilt")},
    }
    found["empty"].mkdir()
    found["file"].write_bytes(small_record())
    table = (cohort / "subjects.csv").read_text()
    swap = table.replace(",train", ",x").replace(",test", ",train").replace(",x", ",test")
    (found["swapped"] / "subjects.csv").write_text(swap)
    resealed(found["swapped"])
    shutil.copytree(found["renamed"] / "cnn", found["renamed"] / "nn")
    identity = json.loads((trained / "cnn" / "run.json").read_text())
    (found["regrid"] / "cnn" / "run.json").write_text(json.dumps(identity | {"grid": "full"}))
    for path in (found["cut"] / "cnn").glob("*.index"):
        path.unlink()
    (found["spoilt"] / "cnn" / "run.json").write_text("{")
    identities = {
        "listed": "[]",
        "null": json.dumps(identity | {"encoder_subjects": None}),
        "unknown": json.dumps(identity | {"config": identity["config"] | {"depth": 3}}),
        "mistyped": json.dumps(identity | {"config": identity["config"] | {"filters": [2, "three"]}}),
        "impossible": json.dumps(identity | {"config": identity["config"] | {"batch_size": 0}}),
    }
    for name, text in identities.items():
        found[name] = shutil.copytree(trained, folder / name)
        (found[name] / "cnn" / "run.json").write_text(text)
    for name, filters in (("encoder", [1, 1]), ("channels", [1, 4])):
        found[name] = shutil.copytree(trained, folder / name)
        config = dataclasses.asdict(cae.PRESETS["stride3"]) | {"filters": filters}
        about = identity | {"model": "cae", "preset": "stride3", "config": config, "grid": "full"}
        (found[name] / "cnn").rename(found[name] / "cae")
        (found[name] / "cae" / "run.json").write_text(json.dumps(about))
    described = json.loads((cohort / "cohort.json").read_text())
    for name, change in {
        "raw": {"normalisation": "none"},
        "encoded": {"reduction": "encoder 12ab"},
        "shapeless": {"grid": "reduced"},
        "nobody": {"encoder_subjects": None},
    }.items():
        found[name] = shutil.copytree(cohort, folder / name)
        (found[name] / "cohort.json").write_text(json.dumps(described | change))
        with suppress(InputError):  # what cannot be read at all is refused before its seal is
            resealed(found[name])
    found["repository"] = folder / "repository"
    found["repository"].mkdir()
    (found["repository"] / "analysis.py").write_text("precious")
    found["mine"] = folder / "mine"
    found["mine"].mkdir()
    (found["mine"] / "run.json").write_text('{"job": "train"}')
    return {name: str(path) for name, path in found.items()}


TESTING = "--test --model cnn --chkPointDir {ckpt} --dataDir {cohort}"
BLACKOUT = "--blackout --model cnn --chkPointDir {ckpt} --dataDir {cohort}"
AGAIN = "--train --model cnn --numIters 9 --chkPointDir {ckpt} --dataDir {cohort}"
MISTAKES = {
    "two modes": ("--train --test", ["--test", "--train", "not allowed"]),
    "unknown model": ("--train --model gpt", ["'gpt'", "ae", "cae", "cnn", "mmnn", "nn"]),
    "no iterations": ("--train --numIters 0", ["'0'", "whole number from 1 to"]),
    "unknown precision": ("--train --precision float8", ["'float8'", "mixed_bfloat16"]),
    "unknown flag": ("--train --quality 3", ["--quality 3; see --help."]),
    "mistyped flag": ("--train --outDri x", ["--outDri x; did you mean --outDir?"]),
    "huge seed": ("--train --model nn --seed 4294967296 --chkPointDir {empty} --dataDir {cohort}", ["seed"]),
    "nothing said": ("", ["only cae", "run.py --train --model mmnn"]),
    "blackout of ae": ("--blackout --model ae", ["ae cannot be blacked out, since it predicts no label", "mmnn"]),
    "no checkpoint": (
        "--test --model nn --chkPointDir {empty}",
        ["{empty}/nn", "run.py --train --model nn --chkPointDir {empty}"],
    ),
    "checkpoint of another preset": (AGAIN + " --preset plain", ["{ckpt}/cnn", "residual", "plain", "--overrideChkpt"]),
    "checkpoint of other settings": (
        AGAIN + " --set learning_rate=0.5",
        ["{ckpt}/cnn", "learning_rate=0.001", "learning_rate=0.5"],
    ),
    "checkpoint of another seed": (AGAIN + " --seed 5", ["seed 0", "seed 5"]),
    "checkpoint of another model without that preset": (
        "--test --model nn --chkPointDir {renamed} --dataDir {cohort}",
        ["{renamed}/nn", "cnn", "nn"],
    ),
    "checkpoint of another grid": (
        "--test --model cnn --chkPointDir {regrid} --dataDir {cohort}",
        ["{regrid}/cnn", "grid full", "grid reduced"],
    ),
    "checkpoint without its files": (
        "--test --model cnn --chkPointDir {cut} --dataDir {cohort}",
        ["{cut}/cnn", "is not there or not as it was saved"],
    ),
    "checkpoint with damaged identity": (
        "--test --model cnn --chkPointDir {spoilt} --dataDir {cohort}",
        ["{spoilt}/cnn/run.json", "damaged"],
    ),
    "continued on other data": (
        "--train --model cnn --numIters 9 --chkPointDir {ckpt} --dataDir {other}",
        ["{ckpt}/cnn", "trained on other data", "{cohort}"],
    ),
    "test subjects that trained it": (
        "--test --model cnn --chkPointDir {ckpt} --dataDir {swapped}",
        ["36 of 36 test subjects of {swapped} trained this checkpoint"],
    ),
    "checkpoint folder that cannot be made": (
        "--train --model nn --chkPointDir {file}/ckpt --dataDir {cohort}",
        ["{file}/ckpt", "--chkPointDir"],
    ),
    "data missing": ("--train --dataDir {missing}", ["{missing}", "does not exist; expected"]),
    "data empty": ("--train --dataDir {empty}", ["{empty}", "holds no records; expected"]),
    "data a file": ("--train --dataDir {file}", ["{file}", "expected a folder"]),
    "record truncated": ("--train --dataDir {short}", ["{short}/777.bin", "4 short of a 31x37x31 record"]),
    "record too long": ("--train --dataDir {long}", ["{long}/777.bin", "4 more than a 31x37x31 record"]),
    "label 0.5": ("--train --dataDir {half}", ["{half}/777.bin", "label 0.5; expected 1 (autism) or 0 (control)"]),
    "label 2": ("--train --dataDir {two}", ["{two}/777.bin", "label 2; expected 1 (autism) or 0 (control)"]),
    "full size for cnn": (
        "--train --model cnn --dataDir {full}",
        ["91x109x91", "31x37x31", "run.py --model cae --dataDir {full}"],
    ),
    "reduced for cae": ("--train --model cae --dataDir {cohort}", ["31x37x31", "91x109x91", "--grid full"]),
    "unknown preset": ("--train --model cae --preset deep", ["deep", "stride3-bn, stride3, stride1"]),
    "unknown setting": ("--train --model nn --set depth=3", ["--set depth is unknown", "learning_rate"]),
    "verify of a full pass": ("--model cae --verify 3", ["--verify goes with --blackout, not with the full pass"]),
    "iterations of a test": ("--test --numIters 9", ["--numIters goes with --train, not with --test"]),
    "atlas missing": (BLACKOUT + " --atlas {missing}", ["{missing}"]),
    "atlas that is none": (BLACKOUT + " --atlas {file}", ["{file}"]),
    "systems without edges": (BLACKOUT + " --systems {file}", ["--systems {file} tells of connections, and none"]),
    "results over a repository": (TESTING + " --outDir {repository}", ["{repository} holds analysis.py", "--outDir"]),
    "folds over a repository": (
        "--train --model nn --dataDir {cohort} --folds 2 --outDir {repository}",
        ["{repository} holds analysis.py", "--outDir"],
    ),
    "results over another program's": (TESTING + " --outDir {mine}", ["{mine} holds run.json", "--outDir"]),
    "results within a cohort": (
        TESTING + " --outDir {cohort}/out",
        ["--outDir {cohort}/out lies in {cohort}, a cohort"],
    ),
    "results and checkpoints in one new folder": (
        "--train --chkPointDir {missing} --outDir {missing} --dataDir {cohort}",
        ["--outDir and --chkPointDir are the same folder, {missing}; name two."],
    ),
    "results of another job": (
        TESTING + " --outDir {ckpt}/../out",
        ["results of another run (train of cnn), this one"],
    ),
    "checkpoints within a cohort": (
        "--train --model nn --dataDir {cohort} --chkPointDir {cohort}/ckpt",
        ["--chkPointDir {cohort}/ckpt/nn lies in {cohort}, a cohort"],
    ),
    "results into a file": (TESTING + " --outDir {file}", ["{file} is a file"]),
    "results below a file": (TESTING + " --outDir {file}/x", ["{file} is a file", "--outDir"]),
    "checkpoint folder that is a pattern": (
        "--train --model nn --chkPointDir {empty}/a* --dataDir {cohort}",
        ["--chkPointDir {empty}/a* holds *, which TensorFlow reads as a pattern of other folders"],
    ),
    "a fold of nothing": ("--train --fold 1", ["--fold 1 is one of several", "--folds"]),
    "reduced cohort that exists": (
        "--model cae --chkPointDir {encoder} --dataDir {full} --outDir {repository}",
        ["{repository} exists"],
    ),
    "a code of several channels": (
        "--model cae --chkPointDir {channels} --dataDir {full}",
        ["31x37x31x4", "31x37x31 in one channel"],
    ),
    "volumes normalised otherwise": (
        TESTING.replace("{cohort}", "{raw}"),
        ["normalisation z-scored over the whole volume", "{raw} has none", "{cohort}"],
    ),
    "volumes reduced otherwise": (TESTING.replace("{cohort}", "{encoded}"), ["{encoded} has encoder 12ab"]),
    "checkpoint with a list for an identity": (TESTING.replace("{ckpt}", "{listed}"), ["{listed}/cnn/run.json"]),
    "checkpoint without encoder subjects": (TESTING.replace("{ckpt}", "{null}"), ["encoder_subjects"]),
    "checkpoint with an unknown setting": (TESTING.replace("{ckpt}", "{unknown}"), ["depth"]),
    "checkpoint with a setting of the wrong type": (TESTING.replace("{ckpt}", "{mistyped}"), ["filters.1"]),
    "checkpoint with a setting that cannot be": (TESTING.replace("{ckpt}", "{impossible}"), ["batch_size is 0"]),
    "cohort with a grid in words": ("--train --dataDir {shapeless}", ["{shapeless}/cohort.json", "grid"]),
    "cohort without encoder subjects": ("--train --dataDir {nobody}", ["{nobody}/cohort.json", "encoder_subjects"]),
    "a layer beyond any memory": (
        "--train --model nn --set phenotype_units=1000000000",
        ["phenotype_units is 1000000000; expected 1 to 4096"],
    ),
    "a head beyond any memory": (
        "--train --model cnn --preset residual --set global_average=false --set strides=1,1,1",
        ["weights"],
    ),
}


@pytest.fixture(scope="module")
def told(paths) -> dict[str, dict]:
    """What each mistake was answered."""
    lines = {name: line for name, (line, _) in MISTAKES.items()}
    nowhere = {name: " --chkPointDir {missing}" for name, line in lines.items() if "--chkPointDir" not in line}
    every = {name: line + nowhere.get(name, "") for name, line in lines.items()}
    return told_without_tensorflow({name: line.format(**paths).split() for name, line in every.items()})


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_tensorflow_is_imported(mistake, told, paths):
    answer = told[mistake]
    assert answer["status"] == 2
    assert answer["err"].startswith("run.py: error: ")
    assert answer["err"].count("\n") == 1
    for words in MISTAKES[mistake][1]:
        assert words.format(**paths) in answer["err"]


def test_mistakes_leave_nothing_behind(told, paths):
    assert os.listdir(paths["empty"]) == []
    assert not os.path.exists(paths["missing"])
    assert os.listdir(paths["repository"]) == ["analysis.py"]
    assert os.listdir(paths["mine"]) == ["run.json"]
    assert not [name for name in os.listdir(Path(paths["missing"]).parent) if name.startswith(".")]


@pytest.mark.slow
def test_help_names_every_flag_and_imports_nothing_heavy():
    answer = told_without_tensorflow({"help": ["--help"]})["help"]
    assert answer["status"] == 0
    assert answer["imported"] == []
    flags = (
        "train test blackout model numIters chkPointDir overrideChkpt dataDir outDir preset set seed precision shareGPU"
    )
    for flag in flags.split():
        assert f"--{flag}" in answer["out"]


def test_an_unreadable_folder_is_named(cli, cohort, monkeypatch):
    """The superuser can read everything, so the refusal is made up."""

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("data.cohorts.stored.folder_entries", refuse)
    outcome = cli("--train", "--model", "nn", "--dataDir", cohort)
    assert outcome.status == 2
    assert outcome.err == f"run.py: error: {cohort}: Permission denied.\n"


def test_a_value_that_is_not_finite_names_its_record_and_ends_the_run(cli, cohort, tmp_path):
    copy = shutil.copytree(cohort, tmp_path / "copy")
    for path in copy.glob("*.bin"):
        values = np.frombuffer(path.read_bytes(), "<f4").copy()
        values[5] = np.nan
        path.write_bytes(values.tobytes())
    resealed(copy)
    outcome = cli("--train", "--model", "nn", "--dataDir", copy, "--chkPointDir", tmp_path / "ckpt")
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert "holds nan as phenotype value 4; expected finite numbers" in outcome.err
    assert f"{copy}/" in outcome.err


CENSUS = """
from dataclasses import dataclass

from data.base.cli import option
from utils.runs.run import Options


@dataclass(frozen=True)
class CensusOptions(Options):
    unit: str = option("records", "what is counted")


def census(run):
    print(len(run.cohort.rows), run.options.unit)
    return 0
"""


def test_a_job_with_an_option_is_one_module_and_one_row(cli, cohort, tmp_path, monkeypatch):
    from utils.runs.run import Job

    (tmp_path / "census.py").write_text(CENSUS)
    monkeypatch.syspath_prepend(tmp_path)
    census = Job(
        name="census", help="count the records", module="census", needs_checkpoint=False, needs="classifies",
        refusal="{model} counts nothing; use {able}.", guards=(),
        options=importlib.import_module("census").CensusOptions,
    )  # fmt: skip
    monkeypatch.setitem(JOBS, "census", census)
    outcome = cli("--census", "--unit", "scans", "--dataDir", cohort, "--chkPointDir", tmp_path / "ckpt")
    assert (outcome.status, outcome.err) == (0, "")
    assert "40 scans" in outcome.out
    assert "--census" in cli("--help").out
    assert "ae counts nothing; use cnn or nn or mmnn." in cli("--census", "--model", "ae").err
    assert "--unit goes with --census, not with --train" in cli("--train", "--unit", "scans").err


@pytest.mark.slow
def test_both_commands_work_from_a_folder_that_has_a_folder_data(tmp_path):
    (tmp_path / "data").mkdir()
    for command in (["-m", "data"], ["-m", "utils"]):
        done = subprocess.run([sys.executable, *command, "--help"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    installed = subprocess.run([Path(sys.executable).with_name("run.py"), "--model", "nn"], capture_output=True)
    assert installed.returncode == 2
    assert installed.stderr.startswith(b"run.py: error: A full pass reduces a cohort")
