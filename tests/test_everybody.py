"""--everybody: who trains, with what settings and whose score; whom it tests. What it refuses stands in
test_refusals.py."""

from pathlib import Path

import lab as labs
import numpy as np
import pytest
from commands import done, read_manifest
from helpers import assert_bit_equal

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]


def test_everybody_trains_and_the_phenotype_is_scaled_on_all(everybody, converted):
    saved = read_manifest(everybody / "ckpt/mmnn/everybody")
    table = labs.read_table(converted / "phenotype.csv")
    assert saved["everybody"] and sorted(saved["people"]["subjects"]) == [*labs.people()["SUB_ID"]]
    preparation = saved["preparation"]
    for place, name in enumerate(preparation["phenotype"]):
        values = np.array([float(value or "nan") for value in table[name]])
        median = np.nanmedian(values) if not np.isnan(values).all() else 0.0
        filled = np.where(np.isnan(values), median, values)
        expected = median, filled.mean(), filled.std()
        stored_constants = [preparation[f"phenotype_{kind}"][place] for kind in ("median", "mean", "scale")]
        assert stored_constants == pytest.approx(expected), name


def test_settings_length_and_score_come_from_the_folds(everybody, on_folds, converted, tmp_path):
    """Nothing but the folder of the score is named again; the default preset has four members."""
    command = "run.py --train --everybody --dataDir {of} --chkPointDir ckpt --outDir out"
    out = done(f"{command} --score {{score}}/test", of=converted, score=on_folds)
    fold_manifest, everybody_manifest = (
        read_manifest(on_folds / "ckpt/mmnn/folds-3/0"),
        read_manifest(tmp_path / "ckpt/mmnn/everybody"),
    )
    assert [everybody_manifest[name] for name in ("preset", "config", "step")] == [
        fold_manifest["preset"],
        fold_manifest["config"],
        4,
    ]
    assert (
        everybody_manifest["config"]["members"],
        everybody_manifest["cross_validation"]["conclusion"]["participants"],
    ) == (1, 40)
    assert_bit_equal(tmp_path / "ckpt/mmnn/everybody", everybody / "ckpt/mmnn/everybody")
    headline = read_manifest(on_folds / "test")["headline"]
    assert f"{headline[1]:.3f}" in out and "in 3 folds, 40 participants" in out
    assert "--score" in done(f"{command.replace('Dir out', 'Dir other')} --dryRun --model nn", of=converted)


def test_a_score_can_be_added_after_the_training(everybody, on_folds, converted, tmp_path):
    copy = labs.copy(everybody, tmp_path / "copy")
    (checkpoint,) = (copy / "ckpt/mmnn/everybody").glob("ckpt-*.json")
    command = "run.py --train --everybody --numIters 4 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/other"
    labs.edit_manifest(checkpoint, cross_validation=None)
    expected = read_manifest(everybody / "ckpt/mmnn/everybody")
    done(command, of=converted, to=copy)
    assert read_manifest(copy / "ckpt/mmnn/everybody").get("cross_validation") is None
    done(f"{command} --score {{score}}/test", of=converted, to=copy, score=on_folds)
    manifest = read_manifest(copy / "ckpt/mmnn/everybody")
    assert manifest["cross_validation"]["scores"] == expected["cross_validation"]["scores"]
    assert manifest["outputs"] == expected["outputs"] and manifest["finished"]


def test_new_people_are_scaled_as_all_training_people_were(converted, newcomers, tmp_path):
    """By hand: their raw phenotype with the constants of the checkpoint, through the network's own layers."""
    import tensorflow as tf

    from models import nn

    places = "--everybody --model nn --chkPointDir ckpt --dataDir {of} --outDir {to}"
    done(f"run.py --train --numIters 4 --set members=1 --set batch_size=8 {places}", of=converted, to="trained")
    done(f"run.py --test {places}", of=newcomers, to="tested")
    preparation = read_manifest(tmp_path / "ckpt/nn/everybody")["preparation"]
    values = labs.read_table(newcomers / "phenotype.csv")[preparation["phenotype"]].replace("", "nan").to_numpy(float)
    median, mean, scale = (np.array(preparation[f"phenotype_{name}"]) for name in ("median", "mean", "scale"))
    assert np.isnan(values).any()
    filled = np.where(np.isnan(values), median, values)
    scaled = np.where(scale > 0, (filled - mean) / np.where(scale > 0, scale, 1), 0)
    config = read_manifest(tmp_path / "ckpt/nn/everybody")["config"] | {"phenotype_units": (256,)}
    network = nn.build(nn.Config(**config), None)
    prefix = tf.train.latest_checkpoint(str(tmp_path / "ckpt/nn/everybody"))
    tf.train.Checkpoint(model=network).restore(prefix).expect_partial().assert_existing_objects_matched()
    logits = network({"phenotype": scaled.astype(np.float32)}, training=False).numpy().astype(float)
    table = labs.read_table(Path("tested/predictions.csv"))
    assert [*table["subject"]] == [*labs.read_table(newcomers / "phenotype.csv")["subject"]]
    expected = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    np.testing.assert_allclose(table["probability"].astype(float), expected, atol=2e-6)


def test_people_without_a_label_do_not_train(converted, tmp_path):
    table = labs.people(12, 60002)
    table.loc[[3, 8], "DX_GROUP"] = ""
    labs.pcp(tmp_path / "lab", table, ("falff", "alff"), series=True)
    done("abide-data convert lab cohort --like {of}", of=converted)
    out = done("run.py --train --everybody --model nn --numIters 1 --set members=1 --dataDir cohort --chkPointDir ckpt")
    assert "Not trained on, since no label is known of them: 2 participants." in out
    trained = read_manifest(tmp_path / "ckpt/nn/everybody")["people"]["subjects"]
    assert sorted(trained) == sorted(table["SUB_ID"].drop([3, 8]))
