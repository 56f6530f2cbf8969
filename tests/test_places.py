"""Results, checkpoints and cohorts are kept apart, however their paths are spelt; what the README does is let pass."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers import run_of, write_checkpoints
from hypothesis import given, settings
from hypothesis import strategies as st

from data.base.errors import InputError
from utils.runs.folders import check_pattern, check_places, kind_of


def places(out: Path, ckpt: Path, data: Path | None = None, trains: bool = True) -> None:
    """Of a training, or a test, of nn."""
    check_places(out, ckpt, data, ckpt / "nn" if trains else None)


@pytest.fixture
def home(tmp_path) -> Path:
    """With a cohort, checkpoints of cnn, and the results of a training."""
    (tmp_path / "cohort").mkdir()
    for name in ("cohort.json", "subjects.csv"):
        (tmp_path / "cohort" / name).touch()
    (tmp_path / "packed").mkdir()
    for name in ("cohort.h5", "SHA256SUMS"):
        (tmp_path / "packed" / name).touch()
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
        ("new", "ckpt", "list.json"),
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
        ("packed/out", "ckpt", None, "lies in .*packed, a cohort"),
        ("bare/out", "ckpt", "bare", "lies in .*bare, a cohort"),
        ("ckpt/cnn/a/b", "other", None, "--outDir .* lies in .*ckpt/cnn, a folder of checkpoints"),
        ("other/mmnn", "other", None, "--outDir .*other/mmnn is a folder of checkpoints"),
        ("other/nn.replaced/x", "other", None, "lies in .*nn.replaced, a folder of checkpoints"),
        ("new", "results/done/train/ckpt", None, "--chkPointDir .* lies in .*done/train, a folder of results"),
        ("new", "new/ckpt", None, "--chkPointDir .* lies in .*new, a folder of results"),
        ("new", "link/ckpt", None, "--chkPointDir .* lies in .*cohort, a cohort"),
        ("new", "bare", "bare", "--chkPointDir .*bare/nn lies in .*bare, a cohort"),
        ("new", "ckpt/cnn", None, "--chkPointDir .*cnn/nn lies in .*cnn, a folder of checkpoints"),
        (".", "ckpt", "bare", "lies in .*, a folder of results"),
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


@pytest.mark.parametrize("name", ["run.json", "checkpoint", "cohort.json", "cohort.h5"])
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
