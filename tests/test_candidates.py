"""--choose: presets or a file of settings -> candidates; every mistake is one line and leaves nothing."""

import re

import pytest

from data.base.errors import InputError
from models import MODELS, cnn, override
from utils.runs.candidates import PRESETS, Candidates, candidates


def of_cnn(text: str) -> Candidates:
    return candidates(text, MODELS["cnn"])


@pytest.mark.parametrize("model", ["cnn", "mmnn"])
def test_all_presets_are_compared_unless_the_user_names_some(model):
    presets = MODELS[model].module.PRESETS
    for text in (PRESETS, ",".join(presets)):
        found = candidates(text, MODELS[model])
        assert found.names == list(presets)
        assert [one.config for one in found.all] == list(presets.values())


def test_the_users_order_stays():
    assert of_cnn("regions,combined").names == ["regions", "combined"]
    assert of_cnn("combined,regions").names == ["combined", "regions"]


LINES = """
# what is compared
--preset regions   # the quick one

--set members=2 --set "region_units=8,4"
  --preset regions --set members=2
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_has_a_candidate_a_line(encoding, tmp_path):
    (tmp_path / "those, of mine.txt").write_text(LINES, encoding=encoding)
    found = of_cnn(str(tmp_path / "those, of mine.txt"))
    assert found.names == ["regions", "combined members=2 region_units=8,4", "regions members=2"]
    assert found.all[1].config == override(cnn.PRESETS["combined"], ["members=2", "region_units=8,4"])


def test_the_digest_tells_settings_and_their_order_not_names(tmp_path):
    for name, members in (("same", cnn.PRESETS["regions"].members), ("other", 3)):
        (tmp_path / name).write_text(f"--preset combined\n\n--preset regions --set members={members}")
    of = [of_cnn(text).digest for text in ("combined,regions", str(tmp_path / "same"))]
    others = {of_cnn(text).digest for text in ("regions,combined", str(tmp_path / "other"))}
    assert len(set(of)) == 1 and len(others - {of[0]}) == 2


@pytest.mark.parametrize(
    "text, words",
    [
        ("combined,sinus", "--choose .combined,sinus. is neither a list"),
        ("quick", "--choose .quick. is neither a list of presets of cnn .* nor a file with a line of --preset"),
        ("quick,combined,regions", "--choose .?quick,combined,regions.? is neither a list"),
        ("missing.txt", "--choose .?missing.txt.? is neither a list of presets"),
        ("combined", "--choose has one candidate; expected 2 to 64."),
        ("combined,regions,combined", "--choose has the same settings twice, as combined and as combined; leave"),
    ],
)
def test_lists_that_are_refused(text, words):
    with pytest.raises(InputError, match=words) as told:
        of_cnn(text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "lines, words",
    [
        ("", "--choose has 0 candidates; expected 2 to 64."),
        ("--preset combined\n--set members=4", "the same settings twice, as combined and as combined members=4; leave"),
        (
            "--preset combined\n\n--preset sinus",
            r"{file} line 3: --preset 'sinus' is unknown to cnn; expected one of combined, reg",
        ),
        ("--set mebmers=2", r"{file} line 1: --set mebmers is unknown; expected one of .*members"),
        ("--set members=many", r"{file} line 1: .*many"),
        ("--set", r"{file} line 1: argument --set: expected one argument; expected --preset NAME and --set KEY=VALUE."),
        ("--numIters 5", r"{file} line 1: unrecognized arguments: --numIters 5; expected --preset NAME and --set KEY="),
        ("combined\nregions", r"{file} line 1: unrecognized arguments: combined"),
        ("--preset 'combined", r"{file} line 1: No closing quotation"),
        ("--preset combined\n--preset \x1b[2J", r"{file} line 2 is .*without control characters"),
        ("\n".join(f"--set l2={at}e-5" for at in range(65)), "--choose has 65 candidates; expected 2 to 64."),
    ],
)
def test_files_that_are_refused_name_the_line(lines, words, tmp_path):
    (tmp_path / "lines").write_text(lines)
    with pytest.raises(InputError, match=words.format(file=tmp_path / "lines")) as told:
        of_cnn(str(tmp_path / "lines"))
    assert str(told.value).isprintable()


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "lines").write_bytes(b"--preset combined\n--preset \xff\xfe")
    with pytest.raises(InputError, match="lines is not UTF-8 text; expected a line of --preset and --set a candidate"):
        of_cnn(str(tmp_path / "lines"))


FOLDS = "--folds 2 --model cnn"


@pytest.mark.parametrize(
    "words, message",
    [
        (f"--train {FOLDS} --choose=", "--choose has nothing as its value; give one, or leave it out."),
        (f"--train {FOLDS} --choose combined", "--choose has one candidate"),
        (
            f"--train {FOLDS} --choose --preset combined",
            "--choose names the settings that are compared; leave --preset out.",
        ),
        (
            f"--train {FOLDS} --choose --repeats 2",
            "--choose is done with one seed; leave --repeats 2 out.",
        ),
        (
            "--train --model cnn --choose",
            "--choose compares candidates within folds; say with --folds how they are cut.",
        ),
        (
            "--train --model ae --folds 2 --choose",
            "--choose compares classifiers by their predictions of the label, not ae",
        ),
        (
            f"--test {FOLDS} --choose",
            "holds no checkpoint; make one: run.py --train --model cnn --chkPointDir .* --folds 2 --choose$",
        ),
        (
            "--blackout --model cnn --folds 2 --choose",
            "make one: run.py --train --model cnn --chkPointDir .* --folds 2 --choose$",
        ),
        ("--train --model cnn --folds 30 --choose", "its smaller class has .* subjects"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, message, cli, cohort, tmp_path):
    outcome = cli(*words.split(), "--chkPointDir", tmp_path / "c", "--dataDir", cohort)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert re.search(message, outcome.err), outcome.err
    assert not list(tmp_path.iterdir())


def test_training_people_that_cannot_be_cut_are_told_before_anything_is_trained(cli, cohort, tmp_path):
    words = "--train --model cnn --folds SEX --choose"
    outcome = cli(*words.split(), "--chkPointDir", tmp_path / "c", "--dataDir", cohort)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "Without one fold" in outcome.err and "has 1 value of SEX left; use fewer or other --folds" in outcome.err
    assert not list(tmp_path.iterdir())
