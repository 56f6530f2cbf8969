"""What a run refuses before it begins: flags, settings, checkpoints, folders."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lab

from refusals import PLACES as COMMON_PLACES
from refusals import Row, row


def edit_section(section: str, **changes: object) -> Callable[[Path], None]:
    """Changes keys in a part of what a checkpoint says of itself, as if it were of another cohort."""

    def change(path: Path) -> None:
        changed_section = json.loads(path.read_text())[section] | changes
        lab.edit(path, {section: changed_section, "cohort_sha256": "0" * 64, "training_sha256": ""})

    return change


def edit_config(**changes: object) -> Callable[[Path], None]:
    """The same of its hyper-parameters."""
    return lambda path: edit_section("settings", config=json.loads(path.read_text())["settings"]["config"] | changes)(
        path
    )


def mark_as_trained(name: str, zeros: bool = True) -> Callable[[Path], None]:
    """A checkpoint that says that it, or its encoder, was trained on all people of its cohort, by names or scans."""

    def change(path: Path) -> None:
        table = lab.read_table(Path(json.loads(path.read_text())["cohort"]) / "subjects.csv")
        subjects = [subject if zeros else subject.lstrip("0") for subject in table["subject"]]
        edit_section("people", **{name: [*table["volume_sha256"].str[:16]] if "scans" in name else subjects})(path)

    return change


def swap_folds(path: Path) -> None:
    """Two folds of a folder of checkpoints."""
    for old_name, new_name in (("0", "2.0"), ("1", "0"), ("2.0", "1")):
        (path / old_name).rename(path / new_name)


def as_another_model(path: Path) -> None:
    path.rename(path.with_name("nn"))


def as_run_json(path: Path) -> None:
    path.write_text('{"job": "train"}')
    path.rename(path.with_name("run.json"))


COHORT_PLACES = "--dataDir {cohort} --chkPointDir"
TEST_CNN = f"run.py --test --model cnn {COHORT_PLACES} {{trained}}"
TRAIN_ON = f"run.py --train --model cnn --numIters 9 {COHORT_PLACES} {{trained}}"
TRAIN_NN = f"run.py --train --model nn {COHORT_PLACES}"
TRAIN_NEW = f"{TRAIN_NN} {{missing}}"
TEST_EVERYBODY = "run.py --test --everybody --chkPointDir {everybody}/ckpt --dataDir {converted}"
FOLD_PLACES = "--chkPointDir {on_folds}/ckpt --dataDir {converted}"
TRAIN_WITH_SCORE = "run.py --train --everybody --score {on_folds}/test --chkPointDir {missing} --dataDir {converted}"
CHECKPOINT_JSON, CHECKPOINT_DATA = "trained/cnn/ckpt-4.json", "trained/cnn/ckpt-4.data-00000-of-00001"
RUNS: list[Row] = [
    row("run.py --train --dryRun", "name it with --dataDir"),
    # Options
    row("run.py --train --test", "--train", "not allowed"),
    row("run.py --chkPointDir {missing}", "only cae", "run.py --train --model mmnn"),
    row("run.py --train --model gpt", "'gpt'", "mmnn"),
    row("run.py --train --numIters 0", "'0'", "whole number from 1 to"),
    row("run.py --train --seed 4294967296", "4294967296", "--seed"),
    row("run.py --train --precision float8", "'float8'", "mixed_bfloat16"),
    row("run.py --train --quality 3", "--quality 3", "--help"),
    row("run.py --train --outDri x", "--outDri", "--outDir"),
    row("run.py --blackout --atlas ''", "--atlas", "nothing as its value"),
    row("run.py --test --numIters 9", "--numIters goes with --train", "--test"),
    row("run.py --train --donors 9", "--donors goes with --blackout", "--train"),
    row("run.py --model cae --verify 3", "--verify", "the full pass"),
    row("run.py --blackout --model ae", "ae cannot be blacked out", "mmnn"),
    row("run.py --train --model nn --set depth=3", "--set depth", "learning_rate"),
    row("run.py --train --model nn --set phenotype_units=1000000000", "1000000000", "4096"),
    row("run.py --train --model cae --preset deep", "deep", "stride3-bn, stride3, stride1"),
    row(f"{TRAIN_NN} {{empty}}/a*", "*", "pattern"),
    row("run.py --train --fold 1", "--fold", "--folds"),
    row("run.py --train --jobs 2", "--jobs", "--folds"),
    row("run.py --train --folds 2 --fold 0 --jobs 2", "--jobs", "--fold"),
    row("run.py --train --repeats 2", "--repeats", "--folds"),
    row("run.py --train --folds 2 --repeats 0", "--repeats", "'0'"),
    row("run.py --model cae --folds 2 --repeats 2", "--repeats 2", "the full pass"),
    row(f"{TRAIN_NEW} --folds 2 --repeats 2 --seed 4294967295", "4294967295", "leaves no seeds"),
    row(f"{TRAIN_NEW} --folds 3 --fold 7", "--fold 7", "0, 1, 2"),
    row("run.py --train --wholeSites", "--wholeSites", "--folds"),
    row("run.py --train --folds site --wholeSites", "number of folds", "--folds site"),
    row("run.py --train --folds 10-wholeSites", "name of a folder", "--folds 10 --wholeSites"),
    row("run.py --train --everybody --folds 3", "--everybody", "--folds"),
    row("run.py --train --everybody --choose", "--choose", "--folds"),
    row("run.py --train --score {empty}", "--score", "--everybody"),
    row("run.py --test --everybody --score {empty}", "--score goes with --train", "--test"),
    # Folders
    row(f"{TEST_CNN} --outDir {{repository}}", "{repository} holds analysis.py", "--outDir"),
    row(f"{TEST_CNN} --outDir {{repository}}", "the format None", spoil={"repository/analysis.py": as_run_json}),
    row(f"{TRAIN_NEW} --folds 2 --outDir {{repository}}", "{repository} holds analysis.py", "--outDir"),
    row(f"{TEST_CNN} --outDir {{file}}", "{file} is a file", "--outDir"),
    row(f"{TEST_CNN} --outDir {{file}}/x", "{file} is a file", "--outDir"),
    row(f"{TEST_CNN} --outDir /proc/x", "/proc/x cannot be written", "--outDir"),  # though its permissions allow it
    row(f"{TRAIN_NN} {{file}}/ckpt", "{file}/ckpt/nn cannot be written", "--chkPointDir"),
    row(f"{TRAIN_NEW} --outDir {{missing}}", "--chkPointDir {missing}/", "--outDir {missing}"),
    row(f"{TEST_CNN} --outDir {{cohort}}", "--outDir {cohort}", "--dataDir {cohort}"),
    row(f"{TEST_CNN} --outDir {{cohort}}/out", "--outDir {cohort}/out", "--dataDir {cohort}"),
    row(f"{TEST_CNN} --outDir {{trained}}/cnn/a/b", "--outDir {trained}/cnn/a/b", "--chkPointDir"),
    row(f"{TRAIN_NN} {{cohort}}/ckpt", "--chkPointDir {cohort}/ckpt/nn", "--dataDir {cohort}"),
    row(f"{TRAIN_NEW} --outDir {{on_folds}}/test", "the results of another run (test of mmnn)", "train of nn"),
    row(
        f"{TRAIN_NEW} --outDir {{on_folds}}/test",
        "format 3",
        "format 2",
        spoil={"on_folds/test/run.json": {"format": 3}},
    ),
    *(
        row(f"{TRAIN_NEW} --outDir {{on_folds}}/test/{inner}", "{on_folds}/test (test of mmnn)", "another run")
        for inner in ("fold-0", "mine", "permutations", "../test/a/b")
    ),
    row("abide-data swap {cohort} / --copies 1", "/ exists", "another folder"),
    # Data
    row("run.py --train --dataDir {missing}", "{missing}", "does not exist"),
    row("run.py --train --dataDir {file}", "{file}", "expected a folder"),
    row("run.py --train --dataDir {records}", "{records}/3.bin", "31x37x31 record", spoil={"records/3.bin": "cut"}),
    row("run.py --train --dataDir {records}", "3.bin", "label 0.5", spoil={"records/3.bin": lab.record(3, 0.5)}),
    row("run.py --train --model cnn --dataDir {full_cohort}", "91x109x91", "run.py --model cae --dataDir"),
    row("run.py --train --model cae --dataDir {cohort}", "31x37x31", "--grid full"),
    row(
        "run.py --train --model nn --dataDir {records}",
        "one class only",
        "expected two",
        spoil={f"records/{record_number}.bin": lab.record(record_number, 0.0) for record_number in (1, 3, 5, 7)},
    ),
    row(f"{TRAIN_NEW.replace('nn', 'mmnn', 1)} --set connectome=true", "no connectomes", "leave that out"),
    # Checkpoints
    row("run.py --test --model nn --chkPointDir {empty} --dataDir {cohort}", "{empty}/nn", "run.py --train"),
    row(f"run.py --test --folds 3 --repeats 2 {FOLD_PLACES}", "repeat-0/0 holds no checkpoint", "--repeats 2"),
    row(f"run.py --test {FOLD_PLACES}", "has folds-3", "--folds"),
    row(f"run.py --test --folds 3 {FOLD_PLACES}", "exchanged", spoil={"on_folds/ckpt/mmnn/folds-3": swap_folds}),
    row(f"run.py --test --everybody {COHORT_PLACES} {{trained}}", "holds no checkpoint", "--everybody"),
    row(
        f"run.py --test --model nn {COHORT_PLACES} {{trained}}",
        "of model cnn",
        "nn",
        spoil={"trained/cnn": as_another_model},
    ),
    row(
        TEST_CNN,
        "grid=full there",
        "grid=reduced asked",
        spoil={CHECKPOINT_JSON: edit_section("settings", grid="full")},
    ),
    row(TEST_CNN, "{trained}/cnn", "is not there or not as it was saved", spoil={"trained/cnn/ckpt-4.index": "gone"}),
    row(TEST_CNN, "is not there or not as it was saved", spoil={CHECKPOINT_DATA: "flipped"}),
    row(TEST_CNN, "{trained}/cnn/ckpt-4.json", "damaged", spoil={CHECKPOINT_JSON: b"{"}),
    row(
        TEST_CNN,
        "{trained}/cnn/ckpt-4.json",
        "people.scans",
        spoil={CHECKPOINT_JSON: edit_section("people", scans=None)},
    ),
    row(TEST_CNN, "damaged", "depth", spoil={CHECKPOINT_JSON: edit_config(depth=3)}),
    row(TEST_CNN, "damaged", "filters.1", spoil={CHECKPOINT_JSON: edit_config(filters=[2, "three"])}),
    row(TEST_CNN, "batch_size", "or equal to 1", spoil={CHECKPOINT_JSON: edit_config(batch_size=0)}),
    row(TEST_CNN, "has the format 3", "repeat the run", spoil={CHECKPOINT_JSON: {"format": 3}}),
    *(
        row(
            command,
            "{trained}/cnn/ckpt-4.json was edited",
            "--overrideChkpt",
            spoil={CHECKPOINT_JSON: partial(lab.edit_manifest, **changes)},
        )
        for command, changes in (
            (TRAIN_ON, {"seed": 5}),
            (TEST_CNN, {"seed": 5}),
            (TEST_CNN, {"preset": "plain"}),
            (TRAIN_ON, {"step": 3}),
            (f"{TRAIN_ON} --dryRun", {"cohort_sha256": "0" * 64}),
        )
    ),
    row(f"{TRAIN_ON} --preset plain", "residual", "--overrideChkpt"),
    row(f"{TRAIN_ON} --set learning_rate=0.5", "learning_rate=0.001 there", "learning_rate=0.5"),
    row(f"{TRAIN_ON} --seed 5", "seed=0 there", "seed=5"),
    row(f"{TRAIN_ON} --precision mixed_float16", "precision=float32 there", "mixed_float16 asked"),
    row(f"{TRAIN_ON.replace('{cohort}', '{records}')}", "trained on other data", "--overrideChkpt"),
    # Whom and what the model was trained on
    row(TEST_CNN, "4 of 4 test participants", "this checkpoint", spoil={CHECKPOINT_JSON: mark_as_trained("subjects")}),
    row(
        TEST_CNN,
        "4 of 4 test participants",
        "--keepSplit",
        spoil={CHECKPOINT_JSON: mark_as_trained("subjects", zeros=False)},
    ),
    row(TEST_CNN, "By their scans", "all of them", spoil={CHECKPOINT_JSON: mark_as_trained("scans")}),
    row(TEST_CNN, "the encoder behind this checkpoint", spoil={CHECKPOINT_JSON: mark_as_trained("encoder_subjects")}),
    row(TEST_CNN, "the encoder behind", "By their scans", spoil={CHECKPOINT_JSON: mark_as_trained("encoder_scans")}),
    row(TEST_CNN, "does not say which scans", spoil={CHECKPOINT_JSON: edit_section("people", scans=[])}),
    row(TEST_EVERYBODY, "4 of 4 test participants", "Test other participants"),
    row(
        TEST_CNN,
        "normalisation none",
        "has z-scored",
        spoil={CHECKPOINT_JSON: edit_section("preparation", normalisation="none")},
    ),
    row(
        TEST_CNN,
        "maps reho as entry 1",
        "falff as entry 1",
        spoil={CHECKPOINT_JSON: edit_section("preparation", maps=["reho"])},
    ),
    row(
        TEST_CNN,
        "records of 2 maps",
        "1 map",
        spoil={CHECKPOINT_JSON: {"num_maps": 2, "cohort_sha256": "0" * 64, "training_sha256": ""}},
    ),
    # The score of everybody
    row(f"{TRAIN_WITH_SCORE} --model nn", "of model mmnn", "nn"),
    row(f"{TRAIN_WITH_SCORE} --set batch_size=4", "batch_size=8 there", "batch_size=4"),
    row(f"{TRAIN_WITH_SCORE} --numIters 5", "num_iters=4 there", "num_iters=5"),
    row(TRAIN_WITH_SCORE.replace("{converted}", "{cohort}"), "of other data than {cohort}", "on folds of these"),
    row(TRAIN_WITH_SCORE.replace("test", "test/fold-0"), "of one split", "on folds"),
    row(TRAIN_WITH_SCORE.replace("test", "train"), "no predictions.csv", "run.py --test"),
    row(TRAIN_WITH_SCORE, "predictions.csv", "Copy it again", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(
        TRAIN_WITH_SCORE,
        "sites.csv is not as it was written",
        spoil={"on_folds/test/sites.csv": lambda table: table[::-1]},
    ),
    row(TRAIN_WITH_SCORE, "is not finished", spoil={"on_folds/test/run.json": {"finished": False}}),
    row(TRAIN_WITH_SCORE, "metrics.json", spoil={"on_folds/test/metrics.json": "gone"}),
    row(TRAIN_WITH_SCORE.replace("{on_folds}/test", "{empty}"), "{empty}", "no predictions.csv"),
]

SETTINGS: list[Row] = [
    row(f"run.py --train {options} --chkPointDir {{missing}} --dataDir {{cohort}}", *words)
    for options, *words in (
        ("--model cnn --set depth=3", "depth is unknown", "cubes"),
        ("--model nn --set filters=1", "filters is unknown", "phenotype_units"),
        ("--model cnn --set batch_size", "batch_size has no '='", "KEY=VALUE"),
        ("--model cnn --set batch_size=two", "batch_size=two", "valid integer"),
        ("--model nn --set batch_size=٣", "batch_size", "valid integer"),
        ("--model cnn --set learning_rate=fast", "learning_rate=fast", "valid number"),
        ("--model cnn --set learning_rate=nan", "learning_rate=nan", "less than or equal to 1000"),
        ("--model nn --set learning_rate=1e-60", "learning_rate=1e-60", "0.000000000001"),
        ("--model nn --set half_rate_after=" + "9" * 400, "half_rate_after=999", "1000000000"),
        ("--model cnn --preset residual --set batch_norm=maybe", "batch_norm=maybe", "valid boolean"),
        ("--model cnn --set batch_size=0", "batch_size=0", "or equal to 1"),
        ("--model cnn --set standardise=scanner", "standardise=scanner", "'stored', 'brain' or 'site'"),
        ("--model cnn --preset residual --set filters=8", "filters, kernels", "differ in length"),
        ("--model cnn --preset residual --set pools=0,0,-1", "pools=0,0,-1", "or equal to 0"),
        ("--model ae --set units=", "units=", "1 or more values"),
        ("--model nn --set phenotype_units=" + ",".join("1" * 99), "at most 64 items", "99"),
        ("--model cnn --set region_units=4096,4096,4096", "weights", "100,000,000"),
        ("--model cnn --preset residual --set dropout=0.5", "dropout changes nothing", "global_average=false"),
        ("--model cnn --preset regions --set filters=4", "filters changes nothing", "convolutions among the parts"),
        ("--model cnn --set parts=amygdala", "parts=amygdala", "'regions' or 'convolutions'"),
        ("--model mmnn --set joined_units=8", "changes nothing", "fusion=features"),
        ("--model cnn --preset regions --set region_units= --set batch_norm=true", "changes nothing", "region_units"),
        ("--model nn --set initializer=he_normal", "changes nothing", "a second layer"),
    )
]

DEFAULTS: list[Row] = [  # where results go is told where something else is there
    row(
        f"run.py {words} --dataDir {{cohort}} --chkPointDir {{trained}}",
        f"{name} holds analysis.py",
        spoil={"results": lambda path, name=name: COMMON_PLACES["repository"](path / name)},
    )
    for words, name in (
        ("--train --model nn", "nn-train"),
        ("--train --model nn --folds 3", "nn-train-folds-3"),
        ("--train --model nn --folds 3 --repeats 2", "nn-train-folds-3-repeats"),
        ("--train --model nn --folds 3 --wholeSites", "nn-train-folds-3-wholeSites"),
        ("--train --model nn --everybody", "nn-train-everybody"),
        ("--test --model cnn", "cnn-test"),
    )
]

PLACES: dict[str, Callable[[Path], object]] = {"results": Path.mkdir}
ROWS = [*RUNS, *SETTINGS, *DEFAULTS]
