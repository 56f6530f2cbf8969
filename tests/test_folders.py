"""Folders: results, checkpoints and cohorts lie apart; whose each is, and whether its outputs are as they were."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import run_of, write_checkpoints
from hypothesis import given, settings
from hypothesis import strategies as st

from data.base import files
from data.base.errors import InputError
from utils.jobs import BLACKOUT, JOBS
from utils.runs.folders import (
    Results,
    changed,
    check_finished,
    check_pattern,
    check_places,
    described,
    kind_of,
    read_manifest,
    record,
)
from utils.runs.run import Run


@pytest.fixture
def run(tmp_path) -> Run:
    """A blackout that has written a table and a folder of two maps, and is finished."""
    found = replace(run_of("cnn", folder=tmp_path), job=BLACKOUT)
    (found.out_dir / "maps").mkdir(parents=True)
    for name in ("regions.csv", "maps/a.nii.gz", "maps/b.nii.gz", "thesis.txt"):
        (found.out_dir / name).write_text(name)
    found.write_manifest(finished=True)
    return found


def test_a_run_is_done_while_its_outputs_are_as_it_wrote_them(run):
    manifest = read_manifest(run.out_dir)
    assert sorted(manifest.outputs_sha256) == ["maps/a.nii.gz", "maps/b.nii.gz", "regions.csv"]
    (run.out_dir / "thesis.txt").unlink()
    (run.out_dir / "maps" / "mine.txt").touch()
    assert run.is_done()
    (run.out_dir / "maps" / "b.nii.gz").write_text("maps/B.nii.gz")
    (run.out_dir / "regions.csv").unlink()
    assert sorted(changed(run.out_dir, manifest)) == ["maps/b.nii.gz", "regions.csv"]
    assert not run.is_done()


def test_an_output_that_is_made_again_counts(run):
    (run.out_dir / "regions.csv").write_text("again")
    assert not run.is_done()
    record(run.out_dir, "regions.csv")
    assert run.is_done()


def test_a_run_that_is_not_finished_has_no_digests(run):
    run.write_manifest(finished=False)
    assert read_manifest(run.out_dir).outputs_sha256 is None
    assert not run.is_done() and run.continues()


def test_another_run_does_not_continue_it(run):
    assert run.continues()
    assert not replace(run, choices=replace(run.choices, seed=1)).continues()
    assert not replace(run, fold="1").continues()
    assert not replace(run, out_dir=run.out_dir / "new").continues()


def test_only_what_a_run_wrote_is_moved_aside(run, capsys):
    run.prepare_folder()
    (aside,) = (run.out_dir / "earlier").iterdir()
    assert {path.name for path in aside.iterdir()} == {"regions.csv", "maps", "run.json"}
    assert {path.name for path in run.out_dir.iterdir()} == {"earlier", "thesis.txt", "run.json"}
    assert capsys.readouterr().out == f"The earlier results in {run.out_dir} are now in {aside}.\n"


JOB = st.sampled_from(list(JOBS.values()))
MODEL = st.sampled_from(["nn", "cnn", "cae"])


@pytest.mark.slow
@settings(max_examples=12)
@given(before=st.tuples(JOB, MODEL), now=st.tuples(JOB, MODEL), finished=st.booleans())
def test_no_run_takes_the_folder_of_another_job_or_model(tmp_path_factory, before, now, finished):
    """Whatever ran before: its files stay byte by byte, in their place or in `earlier/`."""
    folder = tmp_path_factory.mktemp("f")
    first, second = (replace(run_of(model, folder=folder), job=job) for job, model in (before, now))
    first.out_dir.mkdir()
    names = [pattern.replace("*", "x") for pattern in before[0].outputs]
    for name in names:
        (first.out_dir / name).write_text(name)
    first.write_manifest(finished)
    if before != now:
        with pytest.raises(InputError, match="holds the results of another run"):
            second.prepare_folder()
        assert all((first.out_dir / name).read_text() == name for name in names)
    else:
        second.prepare_folder()
        assert all(len(list(first.out_dir.glob(f"earlier/*/{name}"))) == 1 for name in names)


def test_results_of_another_format_are_told_and_left_alone(run):
    content = json.loads((run.out_dir / "run.json").read_text()) | {"format": 2}
    (run.out_dir / "run.json").write_text(json.dumps(content))
    for ask in (run.is_done, run.prepare_folder, lambda: check_finished("--score out", run.out_dir, "name a test")):
        with pytest.raises(InputError, match=r"run\.json has the format 2, this program reads format 1; move it away"):
            ask()
    assert (run.out_dir / "regions.csv").is_file()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job": "train"}', '{"outputs": "x", "finished": true}'])
def test_a_folder_whose_run_json_is_of_others_is_nobodys(text, tmp_path):
    (tmp_path / "run.json").write_text(text)
    assert read_manifest(tmp_path) is None
    with pytest.raises(InputError, match=r"holds run\.json, and no run\.json that says which run wrote that"):
        Results(tmp_path, "train", "nn", ()).own_files()
    assert Results(tmp_path / "new", "train", "nn", ()).own_files() == []


def test_a_manifest_is_read_once_as_long_as_it_stays(run, monkeypatch):
    run.is_done()
    read = []
    monkeypatch.setattr(files, "read_json", lambda path, kind: read.append(path) or {"outputs": [], "finished": True})
    assert run.is_done() and run.continues() and described(run.out_dir)["finished"] and not read
    (run.out_dir / "run.json").write_text("{ }")
    assert described(run.out_dir)["outputs"] == [] and read == [run.out_dir / "run.json"]


def places(out: Path, ckpt: Path, data: Path | None = None, trains: bool = True) -> None:
    """Of a training, or a test, of nn."""
    check_places(out, ckpt, data, ckpt / "nn" if trains else None)


@pytest.fixture
def home(tmp_path) -> Path:
    """With a cohort, checkpoints of cnn, and the results of a training."""
    (tmp_path / "cohort").mkdir()
    for name in ("cohort.json", "subjects.csv"):
        (tmp_path / "cohort" / name).touch()
    (tmp_path / "bare").mkdir()
    (tmp_path / "link").symlink_to("cohort")
    write_checkpoints(tmp_path / "ckpt" / "cnn", (2,))
    (tmp_path / "results" / "done").mkdir(parents=True)
    run = run_of(folder=tmp_path)
    (tmp_path / "out").mkdir()
    run.write_manifest(finished=True)
    (tmp_path / "out").rename(tmp_path / "results" / "done" / "train")
    return tmp_path


@pytest.mark.parametrize(
    "out, ckpt, data",
    [
        ("results/demo/train", "results/demo/ckpt", None),  # make demo
        ("results/done/train", "results/done/ckpt", "cohort"),
        ("results/done/train/more", "ckpt", "cohort"),
        ("cohort_reduced", "ckpt", "cohort"),  # the full pass
        ("ckpt/out", "ckpt", "cohort"),
        ("new", ".", "cohort"),
        ("results/nn-train", "chkpt", "bare"),
    ],
)
def test_folders_of_their_own_are_let_pass(out, ckpt, data, home, monkeypatch):
    monkeypatch.chdir(home)
    for trains in (True, False):
        places(Path(out), Path(ckpt), data and Path(data), trains)


@pytest.mark.parametrize(
    "out, ckpt, data, words",
    [
        ("new", "new", None, "--outDir and --chkPointDir are the same folder, .*new; name two"),
        ("ckpt/x/..", "ckpt", None, "are the same folder"),
        ("cohort", "ckpt", "cohort", "--outDir .*cohort is a cohort; keep results, checkpoints and cohorts in folders"),
        ("link/out", "ckpt", None, "--outDir .*link/out lies in .*cohort, a cohort"),
        ("ckpt/cnn/a/b", "other", None, "--outDir .* lies in .*ckpt/cnn, a folder of checkpoints"),
        ("other/mmnn", "other", None, "--outDir .*other/mmnn is a folder of checkpoints"),
        ("other/nn.replaced/x", "other", None, "lies in .*nn.replaced, a folder of checkpoints"),
        ("new", "results/done/train/ckpt", None, "--chkPointDir .* lies in .*done/train, a folder of results"),
        ("new", "link/ckpt", None, "--chkPointDir .* lies in .*cohort, a cohort"),
        ("new", "ckpt/cnn", None, "--chkPointDir .*cnn/nn lies in .*cnn, a folder of checkpoints"),
    ],
)
def test_folders_that_lie_in_each_other(out, ckpt, data, words, home):
    with pytest.raises(InputError, match=words):
        places(home / out, home / ckpt, data and home / data)


def test_what_is_only_read_may_lie_where_older_code_wrote_it(home):
    write_checkpoints(home / "cohort" / "ckpt" / "nn", (2,))
    places(home / "new", home / "cohort" / "ckpt", home / "cohort", trains=False)
    with pytest.raises(InputError, match=r"--dataDir .* lies in .*results/done, a folder of results"):
        (home / "results" / "done" / "bare").mkdir()
        places(home / "results" / "done", home / "ckpt", home / "results" / "done" / "bare", trains=False)


NAMES = st.sampled_from(["a", "b", "nn", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: Path(*names))


@pytest.mark.slow
@settings(max_examples=60)
@given(out=PATHS, ckpt=PATHS, data=PATHS, detour=st.sampled_from(["", "./", "b/../"]))
def test_nothing_that_is_let_pass_lies_in_another(tmp_path_factory, out, ckpt, data, detour):
    """Whether any of the folders of results, checkpoints and data holds another, told by their parts."""
    home = tmp_path_factory.mktemp("h")
    (home / data).mkdir(parents=True)
    (home / "b").mkdir(exist_ok=True)
    model = ckpt / "nn"
    parts = {name: path.parts for name, path in {"out": out, "model": model, "data": data, "ckpt": ckpt}.items()}

    def lies_in(inner: str, outer: str) -> bool:
        return parts[inner][: len(parts[outer])] == parts[outer]

    pairs = [("out", "model"), ("out", "data"), ("data", "out"), ("data", "model"), ("ckpt", "out"), ("ckpt", "data")]
    refused = any(lies_in(*pair) for pair in pairs) or out == ckpt
    with pytest.raises(InputError) if refused else nullcontext():
        places(*(Path(f"{home}/{detour}{path}") for path in (out, ckpt, data)))


@pytest.mark.parametrize("name", ["run.json", "checkpoint", "cohort.json"])
def test_a_file_of_another_program_marks_nothing(name, tmp_path):
    (tmp_path / name).write_text("{}")
    assert kind_of(tmp_path) is None
    places(tmp_path / "out", tmp_path / "ckpt")


def test_only_the_path_that_tensorflow_gets_must_not_be_a_pattern(tmp_path, monkeypatch):
    (tmp_path / "a[1]*").mkdir()
    monkeypatch.chdir(tmp_path / "a[1]*")
    check_pattern(Path("ckpt"))
    with pytest.raises(InputError, match=r"holds \* \[, which TensorFlow reads as a pattern of other folders"):
        check_pattern(Path("ckpt").absolute())
