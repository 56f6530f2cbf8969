"""What people read: the text of each page and what each command prints, for a few made results.

Numbers are masked here and checked elsewhere. `pytest tests/test_snapshots.py --update` writes what is shown now; the
difference is to be read as prose. The rungs keep what their commands printed, see `make_rung` in conftest.py.
"""

import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lab as labs
import pytest
from commands import MODULE_BY_PROGRAM, ROOT, done, read_manifest, read_page_text, run
from conftest import NUMBER, make_rung

pytestmark = pytest.mark.slow
VERBS = ("derive", "convert", "check", "swap", "pack", "export", "volume")
PAGES_BY_RUNG = {  # by rung
    "on_folds": ["test/report.html"],
    "blackout": ["blackout/blackout.html"],
    "several": ["compare/compare.html", "index.html"],
    "handled": ["check.html"],
}
COMMANDS_BY_RUNG = {  # by rung, of what commands
    "converted": ["convert"],
    "newcomers": ["convert"],
    "two_derived": ["dry", "derive", "again"],
    "handled": ["check", "pack", "swap", "export", "volume"],
    "on_folds": ["train", "test"],
    "split": ["train", "test"],
    "everybody": ["train"],
    "bundle": ["bundle"],
    "by_bundle": ["test"],
    "blackout": ["blackout"],
    "nn_on_folds": ["test"],
    "several": ["compare", "index"],
    "dry": ["convert", "train", "test", "blackout", "permutations"],
}
UNSTEADY = re.compile(  # progress; the commit, if this is a checkout
    r"^.* s left\n|^Fold .* Blacking out .*\n|(?<=^commit\n).*\n|,(?: trained by)? commit [\da-f]+(?:-dirty)?\b", re.M
)
REGION = re.compile(r"\b[A-Z][A-Za-z]+_(?:\w+_)?[LR]\b|\bVermis_[\d_]+|(?<=\| )(?:left|right|both)(?= \|)")  # of AAL
ROWS = re.compile(r"^((?:<region> \| .*\n){5})(?:<region> \| .*\n)+", re.M)  # of which the first are enough


@pytest.fixture(scope="session")
def several(make_once, on_folds, nn_on_folds) -> Path:
    """Two tests of the same people, `compare` of these, and an index of all."""

    def make(folder: Path) -> None:
        for year, (rung_folder, name) in enumerate(((on_folds, "one"), (nn_on_folds, "other")), 2020):
            labs.copy_test(rung_folder / "test", folder / name, started=f"{year}-01-02T03:04:05+0000")
        make_rung("compare", "abide-compare {to}/one {to}/other --outDir {to}/compare", to=folder)
        make_rung("index", "abide-report {to}", to=folder)

    return make_once("several", make)


@pytest.fixture(scope="session")
def handled(make_once, converted) -> Path:
    """What the small commands leave of a cohort."""

    def make(folder: Path) -> None:
        make_rung("check", "abide-data check {of} --html {to}/check.html", of=converted, to=folder)
        make_rung("pack", "abide-data pack {of} {to}/packed --zip", of=converted, to=folder)
        make_rung("swap", "abide-data swap {of} {to}/swapped --copies 1", of=converted, to=folder)
        make_rung(
            "export", "abide-data export {of} {to}/arrays --folds 3 --repeats 2 --control 1", of=converted, to=folder
        )
        make_rung("volume", "abide-data volume {of} 50002 {to}/one.nii.gz --map alff", of=converted, to=folder)

    return make_once("handled", make)


@pytest.fixture(scope="session")
def two_derived(make_once) -> Path:
    """Maps derived of the scans of two people."""

    def make(folder: Path) -> None:
        labs.bold(folder / "scans", labs.people(2))
        command = "abide-data derive {to}/scans {to}/maps --maps falff,reho"
        for name, more in (("dry", " --dryRun"), ("derive", ""), ("again", "")):
            make_rung(name, command + more, to=folder)

    return make_once("two-derived", make)


@pytest.fixture(scope="session")
def dry(make_once, lab, converted, on_folds) -> Path:
    """What dry runs say."""

    def make(folder: Path) -> None:
        make_rung("convert", "abide-data convert {lab} {to}/cohort --grid reduced --dryRun", lab=lab, to=folder)
        places = "--folds 3 --dataDir {of} --outDir {to}/results --dryRun --chkPointDir"
        for name, words in (
            ("train", "--train --jobs 2"),
            ("test", "--test"),
            ("blackout", "--blackout --donors 1"),
            ("permutations", "--test --permutations 19"),
        ):
            ckpt = "{to}/ckpt" if name == "train" else "{ckpt}/ckpt"
            make_rung(name, f"run.py {words} {places} {ckpt}", of=converted, ckpt=on_folds, to=folder)

    return make_once("dry", make)


@pytest.fixture
def show(lab, snapshot, request) -> Callable[..., None]:
    """`show(name, rung, read, file)` compares what `read(file)` gives of a file of a rung."""

    def compare(name: str, rung: str, read: Callable[[Path], str], file: str) -> None:
        request.getfixturevalue(rung)
        made = lab.parents[1]
        text = read(made / rung.replace("_", "-") / file)
        steady = re.sub(r"\b(about [\d.]+|by [\d.]+) (?:s|min|h)\b", r"\1 s", UNSTEADY.sub("", text))
        snapshot(name, ROWS.sub(r"\1", REGION.sub("<region>", steady)), {"made": made})

    return compare


def make_snapshot_name(rung: str, page: str) -> str:
    return f"page-{rung}-{page.replace('/', '-').removesuffix('.html')}"


@pytest.mark.parametrize("rung, page", [(rung, page) for rung, pages in PAGES_BY_RUNG.items() for page in pages])
def test_a_page(rung, page, show):
    show(make_snapshot_name(rung, page), rung, read_page_text, page)


@pytest.mark.parametrize("rung", COMMANDS_BY_RUNG)
def test_command_output(rung, show):
    for name in COMMANDS_BY_RUNG[rung]:
        show(f"{rung}-{name}", rung, Path.read_text, f"{name}.out")


def test_all_snapshots_are_compared():
    names = {"bundle-card", *(f"report-{name}" for name in CHANGE_BY_UNUSUAL_TEST)}
    names |= {make_snapshot_name(rung, page) for rung, pages in PAGES_BY_RUNG.items() for page in pages}
    names |= {f"{rung}-{name}" for rung, commands in COMMANDS_BY_RUNG.items() for name in commands}
    names |= {f"help-{command.replace(' ', '-')}" for command in HELPED}
    assert {path.stem for path in (ROOT / "tests/snapshots").iterdir()} == names


OPEN = ("baselines", "confounds", "covariates", "external-validity", "out-of-distribution", "warnings")  # sections
SENTENCE = re.compile(r"(?<=[.;!?])\s+")


@pytest.mark.parametrize(
    "rung, page",
    [
        *((rung, "test/report.html") for rung in ("on_folds", "split", "by_bundle")),
        *((rung, page) for rung in ("blackout", "several") for page in PAGES_BY_RUNG[rung]),
    ],
)
def test_a_page_says_nothing_twice_and_hides_no_caveat(rung, page, lab, request):
    """Cells of tables aside: no sentence of five words stands twice."""
    request.getfixturevalue(rung)
    path = lab.parents[1] / rung.replace("_", "-") / page
    title, *page_lines = read_page_text(path).splitlines()
    lines = [line for line in page_lines if " | " not in line and line != title]
    sentences = [sentence for line in lines for sentence in SENTENCE.split(line) if len(sentence.split()) >= 5]
    assert [sentence for sentence, count in Counter(sentences).items() if count > 1] == []
    verdict = re.search('class="verdict">(.*?)</p>', path.read_text())
    assert not verdict or len(verdict[1].split()) <= 60
    closed = re.findall(r'<details class="fold" id="([\w-]+)">', path.read_text())
    assert not {*closed} & {*OPEN}


ALL_MAPS = ["falff", "alff", "reho", "vmhc", "lfcd", "degree_weighted", "dual_regression_1", "mine"]
MANIFEST_CHANGES = {  # what `run.json` may say of a test; each calls for sentences
    "simulated": True,
    "unknown_site": True,
    "transductive": True,
    "accepted_leaks": ["SRS"],
    "problems": [{"code": "1", "text": "a"}, {"code": "2", "text": "b"}],
    "preset": "regions",
    "maps": ALL_MAPS,
    "left_out": {"no map": 12, "left out by --exclude": 1},
    "shares": {"regions": 0.625, "phenotype": 0.375},
    "baseline_settings": {"SVM": "C = 1", "forest": "9"},
}
PREPARED = {
    "reduction": "encoder 12ab",
    "standard": "site",
    "connectome": "rois_cc200",
    "derivation": "band 0.01-0.1 Hz, smoothing none",
    "scaled_by": "split",
    "same_scan": 1,
    "families": 2,
    "family_column": "FAMILY",
    "phenotype_columns": ["AGE", "FIQ"],
    "num_phenotype": 3,
}
DICT_CHANGES = {"prepared": PREPARED, "config": {"optimizer": "rmsprop"}, "conclusion": {"small_sites": True}}


def apply_dict_changes(folder: Path) -> None:
    """A test of whom all is said that can be said of a cohort, its settings and its program."""
    content = read_manifest(folder)
    more = {name: content[name] | dict_changes for name, dict_changes in DICT_CHANGES.items()}
    labs.edit_manifest(folder / "run.json", **MANIFEST_CHANGES | more)


def remove_labels(folder: Path) -> None:
    """A test of people whose diagnosis is not known."""
    labs.edit(folder / "predictions.csv", lambda table: table.assign(label=""))
    for name in ("metrics.json", "baselines.csv", "sites.csv", "groups.csv", "confounds.csv"):
        labs.edit(folder / name, "gone")
    for name in ("probabilities.csv", "calibration.csv", "table1.csv", "adjusted.csv"):
        labs.edit(folder / name, "gone")
    labs.edit_manifest(folder / "run.json", conclusion=None)


CHANGE_BY_UNUSUAL_TEST = {
    "otherwise": apply_dict_changes,
    "unlabelled": remove_labels,
    "split": None,
    "by_bundle": None,
}


@pytest.mark.parametrize("name", CHANGE_BY_UNUSUAL_TEST)
def test_report_sentences_on_unusual_tests(name, on_folds, request, tmp_path, show):
    """Lines that stand in it, but not in the usual one."""
    if change := CHANGE_BY_UNUSUAL_TEST[name]:
        folder = tmp_path / "other"
        change(labs.copy(on_folds / "test", tmp_path / "copy"))
        done("abide-report {of}", of=labs.copy_test(tmp_path / "copy", folder))
    else:
        folder = request.getfixturevalue(name) / "test"
    usual = {NUMBER.sub("#", line) for line in read_page_text(on_folds / "test/report.html").splitlines()}
    lines = [
        page_line
        for page_line in read_page_text(folder / "report.html").splitlines()
        if NUMBER.sub("#", page_line) not in usual
    ]
    show(f"report-{name}", "on_folds", lambda _: "\n".join(lines), "")


def test_a_bundle_card(show):
    show("bundle-card", "bundle", read_card, "model.zip")


def read_card(bundle: Path) -> str:
    with zipfile.ZipFile(bundle) as bundle_zip:
        return bundle_zip.read("card.md").decode()


HELPED = [*MODULE_BY_PROGRAM, *(f"abide-data {verb}" for verb in VERBS)]


@pytest.mark.parametrize("command", HELPED)
def test_help(command, snapshot, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    outcome = run(f"{command} --help")
    assert (outcome.status, outcome.err) == (0, "")
    snapshot(f"help-{command.replace(' ', '-')}", outcome.out, {})
