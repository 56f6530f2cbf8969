"""A folder of results: whose it is, what of it is moved aside, and whether its outputs are as they were written."""

import json
from dataclasses import replace

import pytest
from helpers import run_of
from hypothesis import given, settings
from hypothesis import strategies as st

from data.base import files
from data.base.errors import InputError
from utils.jobs import BLACKOUT, JOBS
from utils.runs.folders import Results, changed, described, read_manifest, record
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


def test_a_run_of_older_code_wrote_no_digests(run):
    described = json.loads((run.out_dir / "run.json").read_text())
    new = ("outputs_sha256", "override")
    older = {name: value for name, value in described.items() if name not in new}
    (run.out_dir / "run.json").write_text(json.dumps(older))
    (run.out_dir / "regions.csv").unlink()
    assert run.is_done() and run.continues()
    record(run.out_dir, "regions.csv")
    assert json.loads((run.out_dir / "run.json").read_text()) == older


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
