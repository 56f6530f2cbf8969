"""Every road of README.md and docs/ to its end: the commands of the pages as they stand there, on people made up.

A command is made tiny: two iterations, two folds, small networks. Each layout, form of a cohort, model and job meets
an end.
"""

import csv
import glob
import json
import os
import re
import runpy
import shlex
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import lab
import numpy as np
import pandas as pd
import pytest
from check_model import CONTRACT_BY_MODEL
from commands import ROOT, Outcome, read_manifest, run_words
from conftest import without_drawing
from helpers import read_rows, reseal
from pages import (
    COMMAND_LINE,
    FENCED_BLOCK,
    PAGES,
    README,
    find_block,
    find_command_blocks,
    find_slurm_scripts,
    read_page_source,
    read_table_cells,
    shrink_command,
    split_module,
)
from statsmodels.stats.multitest import multipletests

from data.cohorts.folds import open_folds
from data.cohorts.stored import open_cohort
from data.images.grids import FULL
from models import MODELS, cae, cnn, mmnn
from utils.runs.checkpoints import CheckpointFolder


def write_rows(path: Path, rows: list[dict], bom: bool = False, line_end: str = "\n") -> None:
    """Writes a list of dictionaries as CSV, or as TSV by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)


TUTORIAL = ROOT / "docs/start/tutorial.md"
SCANS, DATA, COHORT, SHARE, OWN_MODEL = (
    ROOT / f"docs/howto/{name}.md" for name in ("scans", "data", "cohort", "share", "own_model")
)
MODELS_PAGE, FILES = ROOT / "docs/understand/models.md", ROOT / "docs/reference/files.md"
MAPS = ("falff", "alff", "degree_weighted")
PEOPLE = 12
TESTED, TRAINED = (7, 9), range(11, 33)  # numbers that a bare folder takes for test subjects, and for others
WORDS_OF_OTHER_ROADS = ("convert", "data derive", "data swap", "cae", "--predictions")
PROMISED = re.compile(r"(?:results|cohort_reduced)[\w/.-]*")  # a path in the comment behind a command
A_JOB_LEAVES = {  # where the rows of the table are looked up
    "`--train`": "cae/results/cae-train",
    "`--test`, classifiers": "cae/results/mmnn-test",
    "`--test`, autoencoders": "cae/results/cae-test",
    "no mode flag, `cae`": "cae/cohort_reduced",
    "`--blackout`": "walked/results/mmnn-blackout-folds-2",
}
NO_FILES = {"--outDir", "<dataDir>_reduced", "cae"}  # what stands in that table as code


# Those who walk


def expand_word(word: str) -> list[str]:
    """What a shell makes of `~` and `*`."""
    return sorted(glob.glob(os.path.expanduser(word))) or [word]


def walk(folder: Path, commands: list[str], data_cli) -> list[Outcome]:
    """Runs commands in a folder; each ends well and leaves what the comment behind it promises. Where there is an atlas
    of few regions, a blackout is of these."""
    outcomes = []
    with chdir(folder):
        for command in commands:
            words = shrink_command(command)
            if words[0] == "run.py":
                if "--blackout" in words and Path("atlas.nii.gz").exists() and not {"--atlas", "--systems"} & {*words}:
                    words += ["--atlas", "atlas.nii.gz"]
                outcome = run_words("run.py", *words[1:])
            else:
                module, arguments = split_module(words)
                expanded_words = [path for word in arguments for path in expand_word(word)]
                outcome = run_words(
                    f"abide-{module.removeprefix('utils.')}", *(expanded_words if module == "data" else arguments)
                )
            assert outcome.status <= ("convert" in words), f"{command}\n{outcome.out[-500:]}\n{outcome.err}"
            for path in PROMISED.findall(command.partition("#")[2]):
                assert Path(re.sub(r"folds-\d+", "folds-2", path)).exists(), command
            outcomes.append(outcome)
    return outcomes


@pytest.fixture(scope="module", autouse=True)
def undrawn_roads():
    """Presets that a command names are as small as others."""
    with without_drawing(), pytest.MonkeyPatch.context() as patch:
        for module in (cnn, mmnn):
            small = {name: shrink_preset(preset) for name, preset in module.PRESETS.items()}
            patch.setattr(module, "PRESETS", small)
        yield


TWO_LAYERS = {"filters": (2, 3), "kernels": (3, 3), "strides": (3, 2), "pools": (0, 0)}


def shrink_preset(preset):
    """With one member, few filters, and batches as small as the cohorts are."""
    members = {"members": 1} if hasattr(preset, "members") else {}
    layers = TWO_LAYERS if len(getattr(preset, "filters", ())) > 1 else {}
    return replace(preset, batch_size=8, **members, **layers)


def people(count: int) -> list[dict]:
    """Rows of a table: two sites, both classes at each, and what the commands of the pages name."""
    rows = lab.people(count).to_dict("records")
    for number, row in enumerate(rows):
        row["SITE_ID"], row["DX_GROUP"] = ("NYU", "PITT")[number // 2 % 2], str(1 + (number + number // 6) % 2)
    return rows


def build_table(rows: list[dict], **columns) -> list[dict]:
    """The table of a lab: `columns` gives names and what stands in them."""
    return [{name: make_cell(number, row) for name, make_cell in columns.items()} for number, row in enumerate(rows)]


AGE = {"age": lambda number, row: f"{8 + number * 7 % 23}"}
SEX = {"sex": lambda number, row: "MF"[number // 4 % 2]}
SITE = {"site": lambda number, row: row["SITE_ID"]}
GROUP = {"group": lambda number, row: {"1": "ASD", "2": "TD"}[row["DX_GROUP"]]}
BIDS_ID = {"participant_id": lambda number, row: f"sub-{row['SUB_ID']}"}


def write_bids(folder: Path, names=("falff",), suffix="task-rest_{0}", count: int = PEOPLE, motion=()) -> None:
    rows = people(count)
    for map_index, name in enumerate(names):
        for row in rows:
            file = f"sub-{row['SUB_ID']}_{suffix.format(name)}.nii.gz"
            lab.save(folder / f"derivatives/sub-{row['SUB_ID']}/func/{file}", lab.make_map(row, map_index))
    write_rows(folder / "participants.tsv", build_table(rows, **BIDS_ID, **GROUP, **AGE, **SEX, **SITE, **dict(motion)))


def write_dpabi(folder: Path) -> None:
    rows = people(PEOPLE)
    for row in rows:
        lab.save(folder / f"Results/fALFF/fALFFMap_{row['SUB_ID']}.nii", lab.make_map(row))
    id_columns = {"ID": lambda number, row: row["SUB_ID"], "DX": lambda number, row: row["DX_GROUP"]}
    iq = {"fiq": lambda number, row: f"{90 + number * 11 % 37}"}
    write_rows(folder / "subjects.csv", build_table(rows, **id_columns, **AGE, **SEX, **iq, **SITE))


def write_abide(folder: Path, count: int = PEOPLE) -> None:
    rows, maps = people(count), folder / "abide/ABIDE_pcp/cpac/nofilt_noglobal"
    for map_index, name in enumerate(MAPS):
        for row in rows:
            lab.save(maps / f"{row['FILE_ID']}_{name}.nii.gz", lab.make_map(row, map_index))
    write_rows(folder / "abide/ABIDE_pcp/Phenotypic_V1_0b_preprocessed1.csv", rows)


def write_any_files(folder: Path) -> None:
    rows = people(PEOPLE)
    for number, row in enumerate(rows):
        lab.save(folder / f"maps/scan{7 * number}.nii.gz", lab.make_map(row))
    id_columns = {"id": lambda number, row: row["SUB_ID"], "dx": lambda number, row: row["DX_GROUP"]}
    path = {"path": lambda number, row: f"maps/scan{7 * number}.nii.gz"}
    write_rows(folder / "subjects.csv", build_table(rows, **id_columns, **path, **AGE))


def write_connectomes(folder: Path) -> None:
    write_bids(folder, ())
    for row in people(PEOPLE):
        path = folder / f"derivatives/sub-{row['SUB_ID']}/func/sub-{row['SUB_ID']}_task-rest_seg-atlas_timeseries.tsv"
        path.parent.mkdir(parents=True)
        lab.make_series(row).to_csv(path, sep="\t", index=False)


def write_table_alone(folder: Path) -> None:
    iq = {"fiq": lambda number, row: f"{90 + number * 11 % 37}"}
    write_rows(folder / "participants.csv", build_table(people(PEOPLE), **BIDS_ID, **GROUP, **AGE, **SEX, **iq, **SITE))


WRITERS = {
    "BIDS": write_bids,
    "DPABI": write_dpabi,
    "ABIDE": write_abide,
    "any files": write_any_files,
    "connectomes": write_connectomes,
    "a table alone": write_table_alone,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Where all roads begin; each has a folder of its own in it."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def walked(home, data_cli) -> Path:
    """The folder of a reader who has followed the README from scans to a blackout, in two folds."""
    folder = home / "walked"
    write_fmriprep(folder, people(PEOPLE))
    outcomes = walk(folder, find_block(README, "data derive fmriprep"), data_cli)
    assert "more than covariates" in outcomes[-2].out
    baselines = {row["baseline"] for row in read_rows(folder / "results/mmnn-test-folds-2/baselines.csv")}
    assert {"majority", "covariates, logistic regression", "phenotype, SVM", "regions, SVM"} <= baselines
    return folder


def test_the_tutorial_has_the_readme_commands():
    """These are walked."""
    assert find_block(TUTORIAL, "data derive fmriprep") == find_block(README, "data derive fmriprep")


def run(command: str, *more: str) -> Outcome:
    return run_words("run.py", *shrink_command(command)[1:], *more)


# The roads


def further_blocks() -> list:
    """The blocks of the other pages that begin with the cohort of the README's, but for what another road has in it."""
    page_blocks = [(page, block) for page in PAGES[1:] for block in find_command_blocks(page)]
    separate_blocks = [
        block
        for page, block in page_blocks
        if page == SHARE or any(word in "".join(block) for word in WORDS_OF_OTHER_ROADS)
    ]
    walked = [drop_default_model(shrink_command(command)) for block in separate_blocks for command in block]
    return [
        pytest.param(block, id=f"{page.name}: {block[0][:50]}")
        for page, block in page_blocks
        if any(drop_default_model(shrink_command(command)) not in walked for command in block)
    ]


def drop_default_model(words: list[str]) -> str:
    """A command, without the model that it names if that is the default."""
    return " ".join(words).replace(" --model mmnn", "")


@pytest.mark.slow
@pytest.mark.parametrize("commands", further_blocks())
def test_blocks_on_further_pages_go_on_from_the_readmes(commands, walked, tmp_path, data_cli):
    folder = shutil.copytree(walked, tmp_path / "walked")
    for example in (ROOT / "docs/examples").glob("*.py"):
        shutil.copy(example, folder)
    walk(folder, commands, data_cli)


@pytest.mark.slow
def test_the_abide_road_ends_with_a_blackout(tmp_path, data_cli):
    """In folds as on the page, and leaving sites out, where a blackout is of few regions."""
    write_abide(tmp_path, 10)
    commands = find_block(TUTORIAL, "convert abide")
    walk(tmp_path, commands, data_cli)
    by_site = [
        re.sub("--folds 10", "--folds site", command.partition(" #")[0]) for command in commands if "--folds" in command
    ]
    assert len(by_site) == 3
    lab.parcels(tmp_path / "atlas.nii.gz")
    walk(tmp_path, by_site, data_cli)
    for how, region_count in (("2", 116), ("site", lab.PARCELS)):
        assert len(pd.read_csv(tmp_path / f"results/mmnn-blackout-folds-{how}/regions.csv")) == region_count
        assert (tmp_path / f"results/mmnn-test-folds-{how}/report.html").is_file()


def write_fmriprep(folder: Path, rows: list[dict]) -> None:
    """Scans, confounds and people, and an atlas of twelve parcels."""
    lab.bold(folder / "fmriprep", pd.DataFrame(rows))
    write_rows(folder / "fmriprep/participants.tsv", build_table(rows, **BIDS_ID, **GROUP, **AGE, **SEX, **SITE))
    lab.parcels(folder / "atlas.nii.gz")


@pytest.mark.slow
def test_array_tasks_leave_the_same_maps_as_a_single_command(tmp_path, data_cli):
    """Head motion of the maps is a covariate."""
    write_fmriprep(tmp_path, people(10))  # of 8 shares, two have two people
    walk(tmp_path, find_block(SCANS, "data convert maps"), data_cli)
    assert "mean_fd" in open_cohort(tmp_path / "cohort").covariates
    (script,) = find_slurm_scripts(SCANS)
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", script).groups())
    share = COMMAND_LINE.search(script)[0].replace("fmriprep maps", "fmriprep shares")
    tasks = [share.replace("$SLURM_ARRAY_TASK_ID", str(task)) for task in range(first, last + 1)]
    walk(tmp_path, tasks, data_cli)
    maps, share_paths = (sorted((tmp_path / name).rglob("*.nii.gz")) for name in ("maps", "shares"))
    assert len(maps) == 5 * 10 and [path.read_bytes() for path in maps] == [path.read_bytes() for path in share_paths]


@pytest.mark.slow
@pytest.mark.parametrize("page, words", [("atlas", "seg-CC200"), ("scans", "scrubbing"), ("data", "mean_fd")])
def test_further_beginnings(page, words, walked, tmp_path, data_cli):
    """Another atlas, scrubbed maps, named covariates."""
    shutil.copytree(walked / "fmriprep", tmp_path / "fmriprep")
    shutil.copy(walked / "atlas.nii.gz", tmp_path / "CC200.nii.gz")
    if page == "data":
        shutil.copytree(walked / "maps", tmp_path / "maps")
    walk(tmp_path, find_block(ROOT / f"docs/howto/{page}.md", words), data_cli)


@pytest.fixture(scope="module")
def reduced(home, data_cli) -> Path:
    """The folder of a reader who has reduced three maps with `cae`, and tested it, too."""
    folder = home / "cae"
    write_abide(folder, 8)
    commands = find_block(MODELS_PAGE, "convert abide")
    walk(folder, [*commands, "run.py --test --model cae --dataDir cohort --chkPointDir ckpt"], data_cli)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "job_text, output_text", [(row[0], row[2]) for row in read_table_cells(FILES, "What each job leaves")]
)
def test_jobs_leave_the_files_listed_on_their_page(job_text, output_text, home, walked, reduced):
    folder = home / A_JOB_LEAVES[job_text]
    for name in set(re.findall(r"`([^`]+)`", output_text)) - NO_FILES:
        assert list(folder.glob(name.rstrip("/"))), name
    if "TensorBoard" in output_text:
        assert list(folder.rglob("events.out.tfevents*"))
    if job_text.startswith("no mode flag"):
        assert open_cohort(folder).map_names == MAPS
    else:
        assert read_manifest(folder)["finished"]
        assert folder.name.split("-")[1] in {row["job"] for row in read_rows(folder.parent / "runs.csv")}


@pytest.mark.slow
def test_an_encoder_per_fold(full_cohort, tmp_path, data_cli, monkeypatch):
    """The block of the page, a test of the encoders, and a full pass in two pieces; then what must be refused."""
    shutil.copytree(full_cohort, tmp_path / "cohort")
    train, full_pass, *remaining_commands = find_block(MODELS_PAGE, "--model cae --folds")
    full_pass = full_pass.partition(" #")[0]
    test = "run.py --test --model cae --folds 2 --dataDir cohort --chkPointDir ckpt"
    outcomes = walk(tmp_path, [train, test, f"{full_pass} --fold 1", full_pass, *remaining_commands], data_cli)
    assert re.search("to do +1 of 2 folds", outcomes[3].out)
    monkeypatch.chdir(tmp_path)
    fold_metrics = json.loads(Path("results/cae-test-folds-2/metrics.json").read_text())
    assert fold_metrics["mse"] == pytest.approx(np.mean([fold["mse"] for fold in fold_metrics["folds"].values()]))
    for name in "01":
        cohort = open_cohort(tmp_path / "cohort_reduced" / f"fold-{name}")
        assert set(cohort.metadata.encoder_subjects) == set(cohort.list_split_subjects("train"))
    rows = read_rows(tmp_path / "results/cnn-test-folds-2/predictions.csv")
    assert sorted(row["subject"] for row in rows) == sorted(row.subject for row in open_cohort(full_cohort).rows)
    later = "run.py --train --model cnn --chkPointDir other --dataDir cohort_reduced"
    assert "a set of cohorts, one for each fold" in run(later).err
    four = run_words("run.py", *shlex.split(later)[1:], "--folds", "4")
    assert "was reduced with --folds 2, this run has --folds 4" in four.err
    assert "abide-data convert --grid reduced" in run(f"{later}/fold-0 --folds 2").err
    exported = run_words("abide-data", "export", "cohort_reduced", "arrays", "--folds", "2")
    assert exported.status == 2 and "maps differ from fold to fold" in exported.err


@pytest.mark.slow
def test_the_full_pass_encodes_maps_separately(reduced):
    folder = CheckpointFolder(reduced / "ckpt" / "cae")
    config = MODELS["cae"].parse_settings(folder.read_latest_manifest().settings.config)
    assert isinstance(config, cae.Config)
    network = cae.build(config, FULL)
    folder.restore_latest_weights(network)
    before, after = open_cohort(reduced / "cohort"), open_cohort(reduced / "cohort_reduced")
    for index in range(len(MAPS)):
        volume = before.read_volume(3)[None, ..., index, None]
        code = network({"volume": volume}, training=False)["code"].numpy()[0, ..., 0].astype(float)
        np.testing.assert_allclose(after.read_volume(3)[..., index], (code - code.mean()) / code.std(), atol=1e-4)
    tested = before.find_split_record_indices("test")
    volumes = np.concatenate([np.moveaxis(before.read_volume(int(index)), -1, 0)[..., None] for index in tested])
    again = [network({"volume": volume[None]}, training=False)["reconstruction"].numpy()[0] for volume in volumes]
    stored_mse = json.loads((reduced / "results/cae-test/metrics.json").read_text())["mse"]
    assert stored_mse == pytest.approx(np.mean((np.stack(again) - volumes) ** 2), rel=1e-3)


@pytest.mark.slow
def test_the_demo_is_augmented_packed_and_trained_on(tmp_path, data_cli, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    outcomes = walk(tmp_path, [*find_block(COHORT, "data swap"), "run.py --test --chkPointDir chkpt"], data_cli)
    assert all("SIMULATED" in outcomes[outcome_index].out for outcome_index in (0, -2, -1))


LAYOUTS = [(row[0], row[1].strip("`")) for row in read_table_cells(DATA, "Layouts")]
CHECKED = "abide-data check cohort --html check.html"


def with_model(model: str, data: str) -> list[str]:
    """Training and test of a model."""
    return [f"run.py {job} --model {model} --dataDir {data} --chkPointDir ckpt" for job in ("--train", "--test")]


@pytest.mark.slow
@pytest.mark.parametrize("layout, command", LAYOUTS, ids=[layout.split(",")[0] for layout, _ in LAYOUTS])
def test_all_layouts_are_converted_checked_and_tested(layout, command, tmp_path, data_cli):
    """The site, or nothing, is the only covariate, and the test set is small: no baseline or line of the report
    fails."""
    next(write for name, write in WRITERS.items() if layout.startswith(name))(tmp_path)
    outcomes = walk(tmp_path, [command, CHECKED, *with_model("nn", "cohort")], data_cli)
    assert "more than covariates" in outcomes[-1].out
    assert (tmp_path / "results/nn-test/report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "maps, suffix",
    [
        ("alff,reho", "task-rest_space-MNI152NLin6Asym_res-2_stat-{0}_boldmap"),  # XCP-D
        ("falff,alff", "ses-1_task-rest_run-1_space-template_desc-zstd_{0}"),  # C-PAC
    ],
)
def test_pipelines_writing_bids_derivatives(maps, suffix, tmp_path, data_cli):
    write_bids(tmp_path, maps.split(","), suffix)
    command = next(command for layout, command in LAYOUTS if layout.startswith("BIDS"))
    walk(tmp_path, [f"{command} --maps {maps}"], data_cli)
    assert open_cohort(tmp_path / "cohort").map_names == tuple(maps.split(","))


@pytest.mark.slow
def test_new_people_are_predicted(walked, tmp_path, data_cli):
    folder = shutil.copytree(walked, tmp_path / "walked")
    aside = open_cohort(folder / "cohort").list_split_subjects("test")
    (folder / "maps").rename(folder / "NEW")
    for path in (folder / "NEW").glob("sub-*"):
        if path.name.removeprefix("sub-") not in aside:
            shutil.rmtree(path)
    commands = find_block(COHORT, "convert NEW")
    train = "run.py --train --model mmnn --dataDir cohort --chkPointDir ckpt --preset regions"
    walk(folder, [train, *commands], data_cli)
    predicted = read_rows(folder / "results/mmnn-test/predictions.csv")
    assert {row["subject"] for row in predicted} == set(aside)


@pytest.mark.slow
def test_new_people_are_derived_as_a_cohort_was(walked, tmp_path, data_cli):
    """To the bytes that the options of the README gave the same people."""
    aside = open_cohort(walked / "cohort").list_split_subjects("test")
    shutil.copytree(walked / "cohort", tmp_path / "cohort")
    for subject in aside:
        shutil.copytree(walked / "fmriprep" / f"sub-{subject}", tmp_path / "NEW" / f"sub-{subject}")
    shutil.copy(walked / "fmriprep/participants.tsv", tmp_path / "NEW")
    walk(tmp_path, find_block(COHORT, "derive NEW"), data_cli)
    assert set(open_cohort(tmp_path / "new").list_split_subjects("test")) == set(aside)
    made = sorted((tmp_path / "new_maps").rglob("func/sub-*.*"))
    assert len(made) == 12 * len(aside)
    for path in made:
        assert path.read_bytes() == (walked / "maps" / path.relative_to(tmp_path / "new_maps")).read_bytes()


def write_new_scans(folder: Path, name: str) -> None:
    """The scans of a person who has trained no model, and of whom no label is known."""
    rows = people(PEOPLE + 1)[PEOPLE:]
    write_fmriprep(folder, rows)
    person_columns = {"age": lambda number, row: "12", "sex": lambda number, row: "M"}
    write_rows(folder / "fmriprep/participants.tsv", build_table(rows, **BIDS_ID, **person_columns, **SITE))
    (folder / "fmriprep").rename(folder / name)
    (folder / "atlas.nii.gz").unlink()


@pytest.mark.slow
def test_a_model_leaves_the_lab(walked, tmp_path, data_cli, effort):
    """To a folder with the bundle and the scans of one new person alone, of whom it says what its network does."""
    effort(calibrate_from=3, describe_from=3)  # people who suffice
    in_the_lab, elsewhere = find_command_blocks(SHARE)
    shutil.copytree(walked / "cohort", tmp_path / "lab/cohort")
    walk(tmp_path / "lab", in_the_lab, data_cli)
    away = tmp_path / "away"
    write_new_scans(away, "fmriprep")
    shutil.move(tmp_path / "lab/model.zip", away)
    shutil.rmtree(tmp_path / "lab")
    walk(away, elsewhere, data_cli)
    (tested,), (row,) = (read_rows(away / f"results/mmnn-test/{name}.csv") for name in ("predictions", "participants"))
    assert float(row["raw"]) == pytest.approx(float(tested["probability"]), abs=1e-6)
    assert 0 < float(row["probability"]) < 1


@pytest.mark.slow
def test_predictions_made_elsewhere(walked, tmp_path, data_cli):
    """By chance, from an export: of the true labels, then of those of a control."""
    folder = shutil.copytree(walked, tmp_path / "walked")
    export_control, test_control = find_block(OWN_MODEL, "--control")
    export = "abide-data export cohort arrays --folds 10"
    for export_command, commands in ((export, find_block(OWN_MODEL, "mine.csv")), (export_control, [test_control])):
        walk(folder, [export_command.replace("--folds 10", "--folds 2")], data_cli)
        people = pd.read_csv(folder / shlex.split(export_command)[3] / "participants.csv", dtype={"id": str})
        people["probability"] = np.random.default_rng(0).random(len(people))
        file = shlex.split(commands[0])[3]
        people[["id", "file", "fold", "probability"]].to_csv(folder / file, index=False)
        (outcome,) = walk(folder, commands, data_cli)
        assert ("cannot tell" in outcome.out) == ("--control" in commands[0])


def test_listed_regions_are_tested_in_further_people(tmp_path, monkeypatch, capsys):
    """The lines of the page, on made results, beside statsmodels, NumPy and z by hand."""
    columns = ["name", "p_reliance", "reliance_adjusted", "reliance_adjusted_low", "reliance_adjusted_high"]
    before = [("A", 0.001, 0.9, 0, 0), ("B", 0.049, 0.4, 0, 0), ("C", 0.05, 0.3, 0, 0), ("D", 0.01, 0.2, 0, 0)]
    now = [("D", 1, 0.2, 0.1, 0.3), ("C", 1, 0.9, 0.8, 1.0), ("A", 1, 0.5, 0.0, 1.0), ("B", 1, -0.1, -0.5, 0.3)]
    for folder, rows in (("mmnn-blackout-folds-site", before), ("mmnn-blackout", now)):
        (tmp_path / "results" / folder).mkdir(parents=True)
        write_rows(tmp_path / f"results/{folder}/regions.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    monkeypatch.chdir(tmp_path)
    (lines,) = [block for block in FENCED_BLOCK.findall(read_page_source(SHARE)) if "holm" in block]
    Path("lines.py").write_text(lines)
    for concluded in (True, False):
        Path("results/mmnn-blackout-folds-site/run.json").write_text(json.dumps({"blackout": {"concluded": concluded}}))
        script_namespace = runpy.run_path("lines.py")
        z_by_region = {"D": 0.2 / 0.1, "A": 0.5 / 0.5, "B": -0.1 / 0.4} if concluded else {}
        p = [1 - NormalDist().cdf(NormalDist().inv_cdf(0.975) * z_score) for z_score in z_by_region.values()]
        expected = multipletests(p, method="holm")[1] if p else []
        assert script_namespace["holm"].to_dict() == pytest.approx(dict(zip(z_by_region, expected, strict=True)))
        correlation = np.corrcoef([0.9, 0.4, 0.3, 0.2], [0.5, -0.1, 0.9, 0.2])[0, 1]
        assert f"correlation of effects: {correlation:.2f}\n" in capsys.readouterr().out


@pytest.mark.slow
def test_further_commands_on_a_cohort_follow_their_table(walked, tmp_path, data_cli):
    folder = shutil.copytree(walked / "cohort", tmp_path / "cohort").parent
    rows = [row for row in read_command_table() if row.startswith("abide-data")]
    subject = open_cohort(folder / "cohort").rows[0].subject
    walk(folder, [row.replace("SUBJECT", subject) for row in rows], data_cli)
    assert {path.name for path in folder.iterdir()} == {"cohort", "arrays", "augmented", "packed", "out.nii.gz"}
    assert len(open_cohort(folder / "augmented").rows) > len(open_cohort(folder / "packed").rows)


def read_command_table() -> list[str]:
    """The commands in the table `more commands`."""
    text = read_page_source(COHORT).split("| more commands |")[1].split("\n\n")[0]
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def write_records_without_tables(cohort: Path, target: Path) -> Path:
    """Records without tables, their names such that one of each label is a test subject."""
    target.mkdir()
    rows = sorted(open_cohort(cohort).rows, key=lambda row: row.label)
    for number, row in zip([TESTED[0], *TRAINED[: len(rows) - 2], TESTED[1]], rows, strict=True):
        shutil.copy(cohort / row.file, target / f"{number}.bin")
    return target


def write_zip_cohort(cohort: Path, target: Path, data_cli) -> None:
    walk(target.parent, [f"abide-data pack {cohort} {target} --zip"], data_cli)


def write_chunks_only(cohort: Path, target: Path, data_cli) -> None:
    """Zip chunks without tables."""
    write_zip_cohort(write_records_without_tables(cohort, target.with_name("records")), target, data_cli)
    for path in target.iterdir():
        if not path.name.startswith("compressed_"):
            path.unlink()


FORMS = {  # how it is made; files with tables are what all other roads are on
    "packed": write_zip_cohort,
    "chunks": write_chunks_only,
    "bare": lambda cohort, target, data_cli: write_records_without_tables(cohort, target),
}
FORM_BY_MODEL = {name: contract.cohort_form for name, contract in CONTRACT_BY_MODEL.items() if contract.cohort_form}


@pytest.mark.slow
@pytest.mark.parametrize("model, form", FORM_BY_MODEL.items())
def test_models_are_trained_and_tested_on_all_cohort_forms(model, form, walked, tmp_path, data_cli):
    FORMS[form](walked / "cohort", tmp_path / form, data_cli)
    commands = [CHECKED.replace("cohort", form), *with_model(model, form)]
    if MODELS[model].classifies:
        commands.append(f"run.py --blackout --model {model} --dataDir {form} --chkPointDir ckpt")
    walk(tmp_path, commands, data_cli)
    assert read_manifest(tmp_path / f"results/{model}-test")["finished"]


def test_all_readme_models_meet_an_end():
    """In the roads above, two of them on roads of their own; and each form of cohort is read by a model."""
    assert CONTRACT_BY_MODEL.keys() - FORM_BY_MODEL.keys() == {"mmnn", "cae"}
    assert set(FORM_BY_MODEL.values()) == set(FORMS)


# Advice


def find_advice(outcome: Outcome, pattern: str) -> str:
    """What a refusal advises, by the group of the pattern."""
    assert outcome.status == 2
    return re.search(pattern, outcome.err)[1]


@pytest.fixture
def in_walked(walked, tmp_path, monkeypatch) -> Path:
    """A copy of the README's folder, which the test works in."""
    monkeypatch.chdir(shutil.copytree(walked, tmp_path / "walked"))
    return tmp_path / "walked"


@pytest.mark.slow
def test_a_missing_checkpoint_is_made_by_the_advised_command(in_walked):
    shutil.move("cohort", "my cohort")
    test_command = "run.py --test --model nn --dataDir 'my cohort' --chkPointDir 'my ckpt'"
    advice = find_advice(run(test_command), "holds no checkpoint; make one: (run.py .*)")
    assert run(advice).status == 0
    outcome = run(test_command)
    assert outcome.status == 0
    assert "SIMULATED" not in outcome.out


@pytest.mark.slow
def test_a_training_unable_to_continue_is_overridden_as_advised(in_walked):
    train_command = "run.py --train --model nn --dataDir cohort --chkPointDir ckpt"
    diverging = run(train_command, "--set", "learning_rate=1e30")
    more = shlex.split(find_advice(diverging, "with a smaller learning rate: (.*)"))
    assert more[0] == "--overrideChkpt"
    assert run(train_command).status == 0
    reseeded = run(train_command, "--seed", "3")
    assert run(train_command, "--seed", "3", find_advice(reseeded, "--train (--overrideChkpt)")).status == 0
    assert run(train_command, "--sed", "3").err.endswith("did you mean --seed?\n")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["site", "sex"])
def test_impossible_folds_are_replaced_as_advised(how, in_walked):
    cohort = open_cohort(in_walked / "cohort")
    label = {row.subject: f"label {row.label:.0f}" for row in cohort.rows}
    table = cohort.covariates.assign(sex="M", site=cohort.covariates.index.map(label))  # one value; one class each
    table.rename_axis("subject").to_csv("cohort/covariates.csv")
    reseal(in_walked / "cohort")
    refused_outcome = run(f"run.py --train --model nn --folds {how} --dataDir cohort --chkPointDir other")
    count = find_advice(refused_outcome, r"Use --folds (\d+)\.")
    assert len(open_folds(in_walked / "cohort", count, 0, in_walked / "other").fold_names) == int(count)


@pytest.mark.slow
def test_unreduced_volumes_are_reduced_by_the_command_on_the_page(reduced, monkeypatch):
    monkeypatch.chdir(reduced)
    advice = find_advice(
        run("run.py --train --model cnn --dataDir cohort --chkPointDir ckpt"), r"reduce it: (.*) \(or "
    )
    assert shrink_command(advice) in [shrink_command(command) for command in find_block(MODELS_PAGE, "convert abide")]


def test_a_conversion_goes_on_as_advised(tmp_path, data_cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bids(tmp_path)
    arguments = ["convert", "derivatives", "cohort", "--grid", "reduced", "--phenotype", "age"]
    label = find_advice(data_cli(*arguments), "Say so with (--labelColumn NAME --positive VALUE)")
    arguments += label.replace("NAME", "group").replace("VALUE", "ASD").split()
    shutil.copy("participants.tsv", "derivatives/one.tsv")
    shutil.copy("participants.tsv", "derivatives/other.tsv")
    assert (
        data_cli(*arguments, find_advice(data_cli(*arguments), "name one with (--table)"), "participants.tsv").status
        < 2
    )
