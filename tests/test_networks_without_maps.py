"""Networks, their tests and blackouts on cohorts without maps, of connectomes and a table, or of a table alone."""

import re

import h5py
import numpy as np
import pytest
from commands import done, read_manifest, read_page_text, refused
from lab import read_table

TINY = "--numIters 2 --set batch_size=8"
PLACES = "--dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"
WORDS_OF_MAPS = re.compile(r"\b(maps?|volumes?|voxels?)\b")


@pytest.fixture(scope="module")
def tested(only_connectomes, tmp_path_factory):
    """Results of `mmnn` on connectomes and a table, `both`, and of the connectomes alone, `edges`."""
    folder = tmp_path_factory.mktemp("without-maps")
    for name, setting in (("both", ""), ("edges", " --set phenotype=false")):
        places = {"of": only_connectomes / "cohort", "to": folder / name}
        done(f"run.py --train {TINY}{setting} {PLACES}train", **places)
        done(f"run.py --test {PLACES}test", **places)
        blackout = f"run.py --blackout --donors 2 --verify 3 --atlas {{lab}}/parcels.nii.gz {PLACES}blackout"
        said = done(blackout, lab=only_connectomes / "lab", **places)
        assert float(re.search(r"logits differ by at most (\S+)\.$", said, re.M)[1]) < 1e-4
    return folder


@pytest.mark.slow
def test_mmnn_and_its_baseline_read_what_there_is(tested):
    """Of the connectome alone, the network is the ridge regression that is the baseline."""
    assert read_manifest(tested / "both/test")["input_names"] == ["phenotype", "connectome"]
    baselines = read_table(tested / "both/test/baselines.csv").set_index("baseline")["role"]
    assert not any("regions" in name for name in baselines.index)
    assert baselines["phenotype and connectome, mean of parts"] == "pre-specified"

    assert read_manifest(tested / "edges/test")["input_names"] == ["connectome"]
    baselines = read_table(tested / "edges/test/baselines.csv").set_index("baseline")["role"]
    assert baselines["connectome, ridge"] == "pre-specified"
    predictions = read_table(tested / "edges/test/predictions.csv").set_index("file")["probability"].astype(float)
    ridge = read_table(tested / "edges/test/baseline_predictions.csv").set_index("file")["connectome, ridge"]
    np.testing.assert_allclose(predictions, ridge.astype(float)[predictions.index], rtol=1e-4)


@pytest.mark.slow
def test_pages_do_not_speak_of_maps(tested):
    text = read_page_text(tested / "both/test/report.html").replace("one a map (their mean)", "")
    assert not WORDS_OF_MAPS.findall(re.sub(r"--maps none", "", text))
    assert "It also read connectomes" in text
    assert "It read connectomes" in read_page_text(tested / "edges/test/report.html")


@pytest.mark.slow
def test_a_region_is_all_edges_that_touch_its_parcels(tested):
    """The probability is that of the test, and a region of the parcels' own image has an effect if, and only if, a pair
    of regions with it has edges."""
    with h5py.File(tested / "edges/blackout/blackout.h5") as store:
        effects, pairs = store["delta_logit"][:], store["pair"][:]
        probability, region_count = store["probability"][:], len(store["region"])
    touched = np.unique(pairs[pairs < region_count])
    assert len(touched) > 1
    assert np.flatnonzero(np.abs(effects).max(0) > 0).tolist() == touched.tolist()
    predictions = read_table(tested / "edges/test/predictions.csv")["probability"].astype(float)
    np.testing.assert_allclose(probability, predictions, rtol=1e-5)
    assert len(read_table(tested / "edges/blackout/regions.csv")) == region_count
    assert not (tested / "edges/blackout/regions_by_map.csv").exists()


@pytest.mark.slow
def test_values_are_blacked_out_of_a_table_alone(only_table, tmp_path):
    places = {"of": only_table / "cohort", "to": tmp_path}
    done(f"run.py --train {TINY} {PLACES}train", **places)
    done(f"run.py --test {PLACES}test", **places)
    done(f"run.py --blackout --donors 2 --verify 2 {PLACES}blackout", **places)
    assert read_manifest(tmp_path / "test")["input_names"] == ["phenotype"]
    assert (tmp_path / "blackout/values.csv").is_file() and not (tmp_path / "blackout/regions.csv").exists()


def test_models_say_in_one_line_what_a_cohort_lacks(only_connectomes, only_table, tmp_path):
    for model in ("cnn", "cae"):
        message = refused(f"run.py --train --model {model} {PLACES}x", of=only_table / "cohort", to=tmp_path)
        assert f"has no maps, and {model} reads nothing else" in message
    message = refused(f"run.py --train --set region_units=3 {PLACES}x", of=only_connectomes / "cohort", to=tmp_path)
    assert "--set region_units changes nothing here" in message
    message = refused(f"run.py --train --set volume=true {PLACES}x", of=only_connectomes / "cohort", to=tmp_path)
    assert "has no maps" in message
