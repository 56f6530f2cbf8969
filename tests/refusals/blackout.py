"""What a blackout and a bundle refuse."""

import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lab
import numpy as np
from bundles import read_bundle_files, rebuild_bundle

from refusals import Row, row

BLACKOUT_BY_BUNDLE = "run.py --blackout --bundle {bundle} --dataDir {newcomers}"
BLACKOUT: list[Row] = [
    row(f"{BLACKOUT_BY_BUNDLE} --maps reho", "--maps reho", "falff, alff"),
    row(f"{BLACKOUT_BY_BUNDLE} --donors 0", "--donors"),
    row(f"{BLACKOUT_BY_BUNDLE} --folds 2", "--bundle and --folds"),
    row(f"{BLACKOUT_BY_BUNDLE} --prevalence 0.1", "--prevalence goes with --test"),
    row(f"{BLACKOUT_BY_BUNDLE} --atlas {{file}}", "{file}"),
    row(f"{BLACKOUT_BY_BUNDLE} --systems {{file}}", "{file}"),
    row(f"{BLACKOUT_BY_BUNDLE} --maps falff --systems {{file}}", "--systems {file}", "Leave --systems out"),
    row("run.py --blackout --bundle {bundle} --dataDir {converted}", "{converted} trained {bundle}"),
    row("run.py --blackout --folds 3 --chkPointDir {empty} --dataDir {converted}", "{empty}", "run.py --train"),
    row(
        "run.py --blackout --model nn --chkPointDir {seen_two}/ckpt --dataDir {cohort} --atlas {file}",
        *("--atlas tells of regions", "nn reads no volume"),
    ),
    row("run.py --blackout --bundle {bundle} --dataDir {siblings}", "relatives together", "needs 2"),
]

EVERYBODY_CHECKPOINT = "everybody/ckpt/mmnn/everybody"
CHANGED_FIELDS: list[dict[str, Any]] = [{"preset": "plain"}, {"precision": "mixed_bfloat16"}]
BUNDLE_EVERYBODY = "abide-bundle {everybody}/ckpt/mmnn/everybody {empty}/a.zip"
TEST_NEWCOMERS = "run.py --test --everybody --dataDir {newcomers}"
TEST_BY_BUNDLE = "run.py --test --bundle {bundle} --dataDir {newcomers}"


def edit_model(**changes: object) -> Callable[[Path], None]:
    """A bundle of which these keys of `model.json`, or in its groups, are others, as another version writes them."""

    def change(path: Path) -> None:
        model = json.loads(read_bundle_files(path)["model.json"])
        model |= {name: model[name] | value if isinstance(value, dict) else value for name, value in changes.items()}
        rebuild_bundle(path, path, {"model.json": json.dumps(model).encode()})

    return change


def pickle_weights(path: Path) -> None:
    weights = io.BytesIO()
    np.savez(weights, np.array([{}], object))
    rebuild_bundle(path, path, {"weights.npz": weights.getvalue()})


def swap_weights(path: Path) -> None:
    """A bundle with a part of another one, as when two were unpacked and packed again by hand."""
    bytes_by_name = read_bundle_files(path) | {"weights.npz": read_bundle_files(path)["likeness.npz"]}
    path.unlink()  # a link
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in bytes_by_name.items():
            archive.writestr(name, content)


def edit_training(path: Path, **changes: object) -> None:
    """A checkpoint that says otherwise of its training, as if it had been trained so."""
    lab.edit_manifest(path, training_sha256="", **changes)


BUNDLES: list[Row] = [
    row("abide-bundle {everybody}/ckpt/mmnn/everybody {empty}/a.txt", "a.txt", ".zip"),
    row("abide-bundle {everybody}/ckpt/mmnn/everybody {bundle}", "{bundle} exists"),
    *(
        row(f"abide-bundle {folder} {{empty}}/a.zip", "no checkpoint of everybody", "--train --everybody")
        for folder in ("{everybody}/ckpt", "{on_folds}/ckpt/mmnn/folds-3", "{on_folds}/ckpt/mmnn/folds-3/0")
    ),
    row(f"{BUNDLE_EVERYBODY} --score {{on_folds}}/train", "{on_folds}/train"),
    *(
        row(
            BUNDLE_EVERYBODY,
            "differs",
            *changed_field,
            spoil={f"{EVERYBODY_CHECKPOINT}/ckpt-4.json": partial(edit_training, **changed_field)},
        )
        for changed_field in CHANGED_FIELDS
    ),
    row(BUNDLE_EVERYBODY, "gone or was changed", spoil={f"{EVERYBODY_CHECKPOINT}/ckpt-4.json": {"cohort": "gone"}}),
    row(
        BUNDLE_EVERYBODY,
        "predicts no label",
        spoil={f"{EVERYBODY_CHECKPOINT}/ckpt-4.json": partial(edit_training, model="ae")},
    ),
    row(BUNDLE_EVERYBODY, "not as it was saved", spoil={f"{EVERYBODY_CHECKPOINT}/ckpt-4.data-00000-of-00001": "cut"}),
    row(
        f"{TEST_NEWCOMERS} --chkPointDir {{everybody}}/ckpt",
        "not as it was saved",
        "/converted",
        "--everybody --overrideChkpt",
        spoil={f"{EVERYBODY_CHECKPOINT}/ckpt-4.data-00000-of-00001": "cut"},
    ),
    row(f"{TEST_NEWCOMERS} --chkPointDir {{empty}}", "holds no checkpoint", "--dataDir COHORT"),
    row(TEST_BY_BUNDLE, "{bundle}", "Copy it again", spoil={"bundle": "cut"}),
    row(TEST_BY_BUNDLE, "{bundle}", "no bundle", spoil={"bundle": b"PK precious"}),
    row(TEST_BY_BUNDLE, "format 3", "format 2", spoil={"bundle": edit_model(format=3)}),
    row(
        TEST_BY_BUNDLE,
        "another AAL",
        "requirements.txt",
        spoil={"bundle": edit_model(bundle={"aal_sha256": "0" * 64})},
    ),
    *(
        row(TEST_BY_BUNDLE, "does not have", "the version that made it", spoil={"bundle": edit_model(settings=changed)})
        for changed in ({"model": "later"}, {"preset": "later"}, {"config": {"later": 1}})
    ),
    row(f"{TEST_BY_BUNDLE} --outDir {{missing}}", "weights.npz", "Copy it again", spoil={"bundle": pickle_weights}),
    row(TEST_BY_BUNDLE, "weights.npz", "SHA256SUMS", spoil={"bundle": swap_weights}),
    row("run.py --test --bundle {missing} --dataDir {newcomers}", "{missing}", "does not exist"),
    row("run.py --test --bundle {bundle} --dataDir {converted}", "{converted} trained {bundle}"),
    row("run.py --test --bundle {bundle} --dataDir {cohort}", "{cohort}", "--like"),
    row("run.py --train --bundle {bundle} --dataDir {newcomers}", "--bundle goes with"),
    row(
        "run.py --test --prevalence 0.1 --folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt",
        *("--prevalence", "has none"),
    ),
    row(f"{TEST_BY_BUNDLE} --set l2=1", "--bundle and --set"),
    row(f"{TEST_BY_BUNDLE} --model cnn", "is of mmnn, not cnn"),
    row(f"{TEST_BY_BUNDLE} --prevalence 1", "expected a share between 0 and 1"),
]

SYSTEMS: list[Row] = [
    row(
        "run.py --blackout --folds 3 --dataDir {converted} --chkPointDir {on_folds}/ckpt --systems {systems}",
        "{systems}",
        *words,
        spoil={"systems": table} if table else None,
    )
    for table, *words in (
        (None, "lacks 115 of the 116 regions", "expected each"),
        (b"region,system\nPrecentral_L,a\nup,b\n", "names the region up", "the atlas"),
        (b"region,system\nPrecentral_L,a\nPrecentral_L,b\n", "Precentral_L twice", "Remove"),
        (b"region,system\nPrecentral_L,\n", "no system for the region Precentral_L", "Fill it in"),
        (b"area,system\nPrecentral_L,a\n", "region"),
    )
]

PLACES: dict[str, Callable[[Path], object]] = {
    "systems": lambda path: path.write_text("region,system\nPrecentral_L,a\n"),
}
ROWS = [*BLACKOUT, *SYSTEMS, *BUNDLES]
