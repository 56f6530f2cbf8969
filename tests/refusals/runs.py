"""What a run refuses before it begins: flags, settings, checkpoints, folders."""

import json
from collections.abc import Callable
from pathlib import Path

import lab

from refusals import PLACES as OF_ALL
from refusals import Row, row


def within(part: str, **changes: object) -> Callable[[Path], None]:
    """Changes keys in a part of what a checkpoint says of itself, as if it were of another cohort."""

    def change(path: Path) -> None:
        lab.edit(path, {part: json.loads(path.read_text())[part] | changes, "cohort_sha256": "0" * 64})

    return change


def configured(**changes: object) -> Callable[[Path], None]:
    """The same of its hyper-parameters."""
    return lambda path: within("settings", config=json.loads(path.read_text())["settings"]["config"] | changes)(path)


def learnt(name: str, zeros: bool = True) -> Callable[[Path], None]:
    """A checkpoint that says that it, or its encoder, was trained on all people of its cohort, by names or scans."""

    def change(path: Path) -> None:
        table = lab.read_table(Path(json.loads(path.read_text())["cohort"]) / "subjects.csv")
        subjects = [subject if zeros else subject.lstrip("0") for subject in table["subject"]]
        within("people", **{name: [*table["volume_sha256"].str[:16]] if "scans" in name else subjects})(path)

    return change


def exchanged(path: Path) -> None:
    """Two folds of a folder of checkpoints."""
    for before, now in (("0", "2.0"), ("1", "0"), ("2.0", "1")):
        (path / before).rename(path / now)


def as_another_model(path: Path) -> None:
    path.rename(path.with_name("nn"))


def as_run_json(path: Path) -> None:
    path.write_text('{"job": "train"}')
    path.rename(path.with_name("run.json"))


DATA = "--dataDir {cohort} --chkPointDir"
TEST = f"run.py --test --model cnn {DATA} {{trained}}"
AGAIN = f"run.py --train --model cnn --numIters 9 {DATA} {{trained}}"
WRITES = f"run.py --train --model nn {DATA}"
NEW = f"{WRITES} {{missing}}"
EVERYBODY = "run.py --test --everybody --chkPointDir {everybody}/ckpt --dataDir {converted}"
FOLDS = "--chkPointDir {on_folds}/ckpt --dataDir {converted}"
SCORED = "run.py --train --everybody --score {on_folds}/test --chkPointDir {missing} --dataDir {converted}"
ITS_JSON, ITS_DATA = "trained/cnn/ckpt-4.json", "trained/cnn/ckpt-4.data-00000-of-00001"
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
    row(f"{WRITES} {{empty}}/a*", "*", "pattern"),
    row("run.py --train --fold 1", "--fold", "--folds"),
    row("run.py --train --jobs 2", "--jobs", "--folds"),
    row("run.py --train --folds 2 --fold 0 --jobs 2", "--jobs", "--fold"),
    row("run.py --train --repeats 2", "--repeats", "--folds"),
    row("run.py --train --folds 2 --repeats 0", "--repeats", "'0'"),
    row("run.py --model cae --folds 2 --repeats 2", "--repeats 2", "the full pass"),
    row(f"{NEW} --folds 2 --repeats 2 --seed 4294967295", "4294967295", "leaves no seeds"),
    row(f"{NEW} --folds 3 --fold 7", "--fold 7", "0, 1, 2"),
    row("run.py --train --wholeSites", "--wholeSites", "--folds"),
    row("run.py --train --folds site --wholeSites", "number of folds", "--folds site"),
    row("run.py --train --folds 10-wholeSites", "name of a folder", "--folds 10 --wholeSites"),
    row("run.py --train --everybody --folds 3", "--everybody", "--folds"),
    row("run.py --train --everybody --choose", "--choose", "--folds"),
    row("run.py --train --score {empty}", "--score", "--everybody"),
    row("run.py --test --everybody --score {empty}", "--score goes with --train", "--test"),
    # Folders
    row(f"{TEST} --outDir {{repository}}", "{repository} holds analysis.py", "--outDir"),
    row(f"{TEST} --outDir {{repository}}", "the format None", spoil={"repository/analysis.py": as_run_json}),
    row(f"{NEW} --folds 2 --outDir {{repository}}", "{repository} holds analysis.py", "--outDir"),
    row(f"{TEST} --outDir {{file}}", "{file} is a file", "--outDir"),
    row(f"{TEST} --outDir {{file}}/x", "{file} is a file", "--outDir"),
    row(f"{TEST} --outDir /proc/x", "/proc/x cannot be written", "--outDir"),  # though its permissions allow it
    row(f"{WRITES} {{file}}/ckpt", "{file}/ckpt/nn cannot be written", "--chkPointDir"),
    row(f"{NEW} --outDir {{missing}}", "--chkPointDir {missing}/", "--outDir {missing}"),
    row(f"{TEST} --outDir {{cohort}}", "--outDir {cohort}", "--dataDir {cohort}"),
    row(f"{TEST} --outDir {{cohort}}/out", "--outDir {cohort}/out", "--dataDir {cohort}"),
    row(f"{TEST} --outDir {{trained}}/cnn/a/b", "--outDir {trained}/cnn/a/b", "--chkPointDir"),
    row(f"{WRITES} {{cohort}}/ckpt", "--chkPointDir {cohort}/ckpt/nn", "--dataDir {cohort}"),
    row(f"{NEW} --outDir {{on_folds}}/test", "the results of another run (test of mmnn)", "train of nn"),
    row(f"{NEW} --outDir {{on_folds}}/test", "format 2", "format 1", spoil={"on_folds/test/run.json": {"format": 2}}),
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
        spoil={f"records/{odd}.bin": lab.record(odd, 0.0) for odd in (1, 3, 5, 7)},
    ),
    row(f"{NEW.replace('nn', 'mmnn', 1)} --set connectome=true", "no connectomes", "leave that out"),
    # Checkpoints
    row("run.py --test --model nn --chkPointDir {empty} --dataDir {cohort}", "{empty}/nn", "run.py --train"),
    row(f"run.py --test --folds 3 --repeats 2 {FOLDS}", "repeat-0/0 holds no checkpoint", "--repeats 2"),
    row(f"run.py --test {FOLDS}", "has folds-3", "--folds"),
    row(f"run.py --test --folds 3 {FOLDS}", "exchanged", spoil={"on_folds/ckpt/mmnn/folds-3": exchanged}),
    row(f"run.py --test --everybody {DATA} {{trained}}", "holds no checkpoint", "--everybody"),
    row(f"run.py --test --model nn {DATA} {{trained}}", "of model cnn", "nn", spoil={"trained/cnn": as_another_model}),
    row(TEST, "grid=full there", "grid=reduced asked", spoil={ITS_JSON: within("settings", grid="full")}),
    row(TEST, "{trained}/cnn", "is not there or not as it was saved", spoil={"trained/cnn/ckpt-4.index": "gone"}),
    row(TEST, "is not there or not as it was saved", spoil={ITS_DATA: "flipped"}),
    row(TEST, "{trained}/cnn/ckpt-4.json", "damaged", spoil={ITS_JSON: b"{"}),
    row(TEST, "{trained}/cnn/ckpt-4.json", "people.scans", spoil={ITS_JSON: within("people", scans=None)}),
    row(TEST, "damaged", "depth", spoil={ITS_JSON: configured(depth=3)}),
    row(TEST, "damaged", "filters.1", spoil={ITS_JSON: configured(filters=[2, "three"])}),
    row(TEST, "batch_size", "or equal to 1", spoil={ITS_JSON: configured(batch_size=0)}),
    row(TEST, "has the format 2", "repeat the run", spoil={ITS_JSON: {"format": 2}}),
    row(f"{AGAIN} --preset plain", "residual", "--overrideChkpt"),
    row(f"{AGAIN} --set learning_rate=0.5", "learning_rate=0.001 there", "learning_rate=0.5"),
    row(f"{AGAIN} --seed 5", "seed=0 there", "seed=5"),
    row(f"{AGAIN} --precision mixed_float16", "precision=float32 there", "mixed_float16 asked"),
    row(f"{AGAIN.replace('{cohort}', '{records}')}", "trained on other data", "--overrideChkpt"),
    # Whom and what the model was trained on
    row(TEST, "4 of 4 test participants", "this checkpoint", spoil={ITS_JSON: learnt("subjects")}),
    row(TEST, "4 of 4 test participants", "--keepSplit", spoil={ITS_JSON: learnt("subjects", zeros=False)}),
    row(TEST, "By their scans", "all of them", spoil={ITS_JSON: learnt("scans")}),
    row(TEST, "the encoder behind this checkpoint", spoil={ITS_JSON: learnt("encoder_subjects")}),
    row(TEST, "the encoder behind", "By their scans", spoil={ITS_JSON: learnt("encoder_scans")}),
    row(TEST, "does not say which scans", spoil={ITS_JSON: within("people", scans=[])}),
    row(EVERYBODY, "4 of 4 test participants", "Test other participants"),
    row(TEST, "normalisation none", "has z-scored", spoil={ITS_JSON: within("preparation", normalisation="none")}),
    row(TEST, "maps reho as entry 1", "falff as entry 1", spoil={ITS_JSON: within("preparation", maps=["reho"])}),
    row(TEST, "records of 2 maps", "1 map", spoil={ITS_JSON: {"num_maps": 2, "cohort_sha256": "0" * 64}}),
    # The score of everybody
    row(f"{SCORED} --model nn", "of model mmnn", "nn"),
    row(f"{SCORED} --set batch_size=4", "batch_size=8 there", "batch_size=4"),
    row(f"{SCORED} --numIters 5", "num_iters=4 there", "num_iters=5"),
    row(SCORED.replace("{converted}", "{cohort}"), "of other data than {cohort}", "on folds of these"),
    row(SCORED.replace("test", "test/fold-0"), "of one split", "on folds"),
    row(SCORED.replace("test", "train"), "no predictions.csv", "run.py --test"),
    row(SCORED, "predictions.csv", "Copy it again", spoil={"on_folds/test/predictions.csv": "cut"}),
    row(SCORED, "sites.csv is not as it was written", spoil={"on_folds/test/sites.csv": lambda table: table[::-1]}),
    row(SCORED, "is not finished", spoil={"on_folds/test/run.json": {"finished": False}}),
    row(SCORED, "metrics.json", spoil={"on_folds/test/metrics.json": "gone"}),
    row(SCORED.replace("{on_folds}/test", "{empty}"), "{empty}", "no predictions.csv"),
]

SETTINGS: list[Row] = [
    row(f"run.py --train {said} --chkPointDir {{missing}} --dataDir {{cohort}}", *words)
    for said, *words in (
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
        spoil={"results": lambda path, name=name: OF_ALL["repository"](path / name)},
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
