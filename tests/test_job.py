"""What a blackout concludes from effects made up: regions are named where the network has something to explain."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import effects_of
from matplotlib import pyplot as plt

from data.cohorts.stored import open_cohort
from models import MODELS
from utils.blackout import columns, job
from utils.blackout.fills import FILLS
from utils.blackout.options import BlackoutOptions
from utils.runs.checkpoints import Caveats

REGION = "Precentral_L"  # the first of the atlas


@pytest.fixture
def concluded(cohort, tmp_path, monkeypatch, capsys):
    """`concluded(probability)`: of 40 people, given that of autism by label, the first region being relied on, and
    given which people; run.json's part, what was printed, `regions.csv`, and the text of page and figure."""
    monkeypatch.setattr(job, "write_maps", lambda *_: None)
    shown = []
    monkeypatch.setattr(job.figure, "draw", lambda run, results: shown.append(results) or plt.figure())
    monkeypatch.setattr(job.page, "render", lambda *_: "")
    monkeypatch.setattr(job.figures, "save", lambda figure, path: plt.close(figure))
    opened = open_cohort(cohort)
    model = MODELS["cnn"]
    config = model.module.PRESETS["regions"]
    of_cohort = {"cohort": opened, "caveats": Caveats()}
    run = SimpleNamespace(
        options=BlackoutOptions(), **of_cohort, seed=0, out_dir=tmp_path, model=model, config=config, checkpoints=None
    )

    def conclude(probability, rows=slice(None), fold=None):
        people, random = list(opened.rows)[rows], np.random.default_rng(0)
        label, noise = np.array([row.label for row in people]), random.normal(size=(len(people), 116))
        relied = noise + 2 * (np.arange(116) == 0)
        of_person = np.clip(probability(label, random), 0, 1)
        effects = effects_of(people, 116, reliance=relied, unique=noise, probability=of_person)
        found = job.conclude(run, effects, fold)
        return found, capsys.readouterr().out, pd.read_csv(tmp_path / "regions.csv"), shown[-1]

    return conclude


def good(label, random):
    return label * 0.6 + 0.4 * random.random(len(label))


@pytest.mark.slow
def test_a_network_better_than_chance_has_its_regions_named(concluded):
    found, out, table, results = concluded(good)
    assert found["better_than_chance"] and not results.at_chance
    assert f"rests on 1 ({REGION}) of 116 regions" in found["conclusion"] and found["conclusion"] == results.told
    assert found["conclusion"] in out and f"\n{REGION}" in out
    assert found["adjusted_for"] == ["AGE_AT_SCAN", "SEX", "log func_mean_fd", "fiq"]  # 16 sites are too many for 40
    assert "site and handedness: known for too few," in found["conclusion"]
    first = table.iloc[0]
    assert first["name"] == REGION and 0 < first["p_reliance"] < 0.05 and 0 < first["p_reliance_plain"] < 0.05
    assert first["p_reliance_plain"] != first["p_reliance"] or first["reliance"] != first["reliance_adjusted"]


@pytest.mark.slow
def test_a_network_below_chance_ends_with_that_and_names_no_region(concluded):
    """Though the same region is significant, as the table of numbers says."""
    found, out, table, results = concluded(lambda label, random: 1 - good(label, random))
    assert found["better_than_chance"] is False and results.at_chance
    assert "ranks them the wrong way round, so there is nothing to explain" in found["conclusion"]
    assert "Each p is adjusted for AGE_AT_SCAN, " in found["conclusion"]
    assert out == found["conclusion"] + "\n" and results.summary in out
    assert not any(name in found["conclusion"] for name in table["name"])
    assert table["p_reliance_plain"].iloc[0] < 0.05


@pytest.mark.slow
def test_few_people_of_a_class_give_no_verdict_on_regions(concluded):
    found, *_ = concluded(good, slice(0, 12))
    assert "Nothing is concluded about regions" in found["conclusion"] and REGION not in found["conclusion"]
    assert found["adjusted_for"] == [] and "No p is adjusted for covariates: " in found["conclusion"]


@pytest.mark.slow
def test_one_subject_has_effects_without_intervals_and_p(concluded):
    found, out, table, _ = concluded(good, slice(0, 1))
    for name in (fill.name for fill in FILLS):
        assert table[name].notna().all() and table[[f"{name}_low", f"{name}_high"]].isna().all(axis=None)
    assert table[["p_reliance", "q_unique"]].isna().all(axis=None)
    assert (table["background_autism"].isna() != table["background_control"].isna()).all()
    assert out.count("no interval: one subject") == columns.TOP
    assert "No p-values: the subjects are of one class." in found["conclusion"]


@pytest.mark.slow
def test_of_several_folds_intervals_are_wider_and_p_is_larger_by_the_pairs_that_meet_twice(concluded):
    """The variance of each mean effect is twice that of one model."""
    one, several = (concluded(good, fold=fold)[2].set_index("name") for fold in ([0] * 40, [*range(4)] * 10))
    for name in ("reliance", "unique_adjusted"):
        width = [of[f"{name}_high"] - of[f"{name}_low"] for of in (one, several)]
        np.testing.assert_allclose(width[1], 2**0.5 * width[0], rtol=1e-3)
        np.testing.assert_allclose(one[name], several[name])
    assert (one["p_unique"] <= several["p_unique"]).mean() > 0.95
