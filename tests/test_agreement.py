"""abide-compare of blackouts: what is significant in all, beside the tables of each; whom it compares."""

from pathlib import Path

import lab
import pandas as pd
import pytest
from by_hand import REGION_NAMES, read
from commands import done, refused
from scipy.stats import spearmanr

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

ESTIMATOR_FILE = """
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def make():
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return make_pipeline(make_column_transformer((numbers, make_column_selector("^(map|edge) "))), LogisticRegression())
"""
BLACKOUT = (
    "run.py --blackout --estimator {file} --dataDir {cohort} --atlas {few}/atlas/own.nii.gz --donors 1 --folds 3 "
    "--systems {few}/atlas/systems.csv --chkPointDir {to}/ckpt --outDir {to}/out "
)


def black_out(folder: Path, cohort: Path, few_regions: Path, options: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(ESTIMATOR_FILE)
    done(BLACKOUT + options, file=folder / "mine.py", cohort=cohort, few=few_regions, to=folder)
    return folder / "out"


@pytest.fixture(scope="module")
def estimator(converted, few_region_blackout, tmp_path_factory) -> Path:
    """A blackout of an estimator on the same folds and regions as that of a network."""
    return black_out(tmp_path_factory.mktemp("estimator"), converted, few_region_blackout)


def conclude(blackout: Path, to: Path, is_concluded: bool = True) -> Path:
    """A copy of a blackout, of which something is concluded or not."""
    lab.copy(blackout, to)
    manifest = pd.read_json(to / "run.json", typ="series")
    lab.edit(to / "run.json", {"blackout": manifest["blackout"] | {"concluded": is_concluded}})
    return to


def test_significant_in_all_is_what_the_largest_p_says(estimator, few_region_blackout, tmp_path):
    network = conclude(few_region_blackout / "blackout", tmp_path / "network")
    printed = done("abide-compare {a} {b} --outDir {to}", a=estimator, b=network, to=tmp_path / "both")
    agreement = read(tmp_path / "both", "agreement")
    families = {"regions": "name", "groups of values": "group"}
    assert {*agreement["family"]} == {"regions", "pairs of systems", "groups of values"}
    for family, column in families.items():
        rows = agreement[agreement["family"] == family].set_index("thing")
        tables = [read(folder, {"regions": "regions"}.get(family, "values")) for folder in (estimator, network)]
        p = pd.concat([table.set_index(column)["p_reliance"] for table in tables], axis=1, join="inner")
        effects = pd.concat([table.set_index(column)["reliance"] for table in tables], axis=1, join="inner")
        assert {*rows.index} == {*p.index} and len(p) >= len(REGION_NAMES)
        assert rows["p_all"].to_dict() == pytest.approx(p.max(axis=1).to_dict(), rel=1e-4)
        assert rows["in_all"].to_dict() == (p < 0.05).all(axis=1).astype(int).to_dict()
        assert rows["significant_in"].to_dict() == (p < 0.05).sum(axis=1).to_dict()
        correlations = read(tmp_path / "both", "rank_correlations").set_index("family")["rank_correlation"]
        if family == "regions":
            assert correlations[family] == pytest.approx(spearmanr(*effects.T.to_numpy()).statistic, abs=1e-5)
        else:  # the estimator reads no values
            assert family not in correlations
    assert "significant in all 2 blackouts" in printed and (tmp_path / "both/agreement.html").is_file()


def test_nothing_is_significant_in_all_if_nothing_is_concluded_of_one(estimator, few_region_blackout, tmp_path):
    network = conclude(few_region_blackout / "blackout", tmp_path / "network", is_concluded=False)
    printed = done("abide-compare {a} {b} --outDir {to}", a=estimator, b=network, to=tmp_path / "both")
    assert f"nothing is concluded in {network}" in printed
    assert not read(tmp_path / "both", "agreement")["in_all"].any()


def test_only_blackouts_of_the_same_people_folds_and_regions_are_compared(
    estimator, blackout, on_folds, converted, few_region_blackout, tmp_path
):
    seed = black_out(tmp_path / "seed", converted, few_region_blackout, "--seed 4")
    places = {"a": estimator, "to": tmp_path / "both"}
    command = "abide-compare {a} {b} --outDir {to}"
    refused(command, "other regions", "--atlas", b=blackout, **places)
    refused(command, "participants, or their folds", "--seed", b=seed, **places)
    refused(command, "{a} holds a blackout", "run.py --test", b=on_folds / "test", **places)
    whole = lab.copy(few_region_blackout / "blackout", tmp_path / "whole")
    lab.edit(whole / "run.json", {"cohort_sha256": "0" * 64})
    refused(command, "differ in the cohort", "--dataDir", b=whole, **places)
