"""The page and the figure of a blackout whose regions are named: what they show is what the tables say."""

import html
import json
import re
from itertools import takewhile
from pathlib import Path
from xml.etree import ElementTree

import lab as labs
import nibabel
import numpy as np
import pandas as pd
import pytest
from commands import done, text_of

pytestmark = pytest.mark.slow
HOSTILE = '<b>"left"</b> $\\frac{1}$ </script><script>alert(1)</script>'
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def halves(converted, tmp_path_factory) -> Path:
    """Results of a blackout, drawn, of a network that reads in which half of the brain there is more; the atlas has
    both halves and a part of no use in front."""
    folder = tmp_path_factory.mktemp("halves")
    labels = np.where(labs.brain(), np.where(np.arange(8) < 4, 1, 2)[:, None, None], 0)
    labels[2:6, :2, 2:6] = 9
    labs.save(folder / "atlas.nii.gz", labels.astype(np.int16))
    (folder / "atlas.txt").write_text(f"1 right\n2 {HOSTILE}\n9 front\n")
    places = "--model cnn --folds 3 --dataDir {of} --chkPointDir {to}/ckpt --outDir {to}/"
    done(f"run.py --train --preset regions --set members=1 --numIters 40 {places}train", of=converted, to=folder)
    done(f"run.py --blackout --atlas {{to}}/atlas.nii.gz --donors 1 {places}blackout", of=converted, to=folder)
    return folder / "blackout"


@pytest.fixture(scope="module")
def table(halves) -> pd.DataFrame:
    return pd.read_csv(halves / "regions.csv")


def page_until(folder: Path, title: str) -> str:
    lines = text_of(folder / "blackout.html").splitlines()
    return "\n".join(takewhile(lambda line: line != title, lines[1:]))


def test_regions_that_are_named(halves, snapshot):
    snapshot("blackout-named", page_until(halves, "Regions, all columns"), {})


def test_of_a_network_at_chance_nothing_is_named(nn_on_folds, converted, tmp_path, snapshot):
    command = "run.py --blackout --donors 1 --model nn --folds 3 --dataDir {of} --chkPointDir {ckpt} --outDir {to}"
    done(command, of=converted, ckpt=nn_on_folds / "ckpt", to=tmp_path / "chance")
    snapshot("blackout-chance", page_until(tmp_path / "chance", "Would it come out in others"), {})
    assert 'class="marked"' not in (tmp_path / "chance/blackout.html").read_text()


def test_of_few_people_nothing_is_concluded(split, converted, tmp_path, snapshot):
    command = "run.py --blackout --donors 1 --model nn --dataDir {of} --chkPointDir {ckpt} --outDir {to}"
    printed = done(command, of=converted, ckpt=split / "ckpt", to=tmp_path / "few")
    snapshot("blackout-few", printed, {"made": tmp_path, "split": split, "of": converted})


def test_unequal_classes_are_told_whatever_is_named(lab, tmp_path):
    table = labs.read_table(lab / "Phenotypic.csv")
    few = ",".join(table[table["DX_GROUP"] == "1"]["SUB_ID"][:10])
    done("abide-data convert {lab} {to}/cohort --grid reduced --exclude {few}", lab=lab, to=tmp_path, few=few)
    places = "--model nn --folds 3 --dataDir {to}/cohort --chkPointDir {to}/ckpt --outDir {to}/"
    done(f"run.py --train --set members=1 --numIters 2 {places}train", to=tmp_path)
    assert "Only 33% are of one class" in done(f"run.py --blackout --donors 1 {places}blackout", to=tmp_path)


def test_the_page_has_the_tables(halves, table):
    lines = text_of(halves / "blackout.html").splitlines()
    start = lines.index("region | reliance | p | unique | unique p")
    shown = [line.split(" | ") for line in lines[start + 1 : start + 4]]
    for cells, row in zip(shown, table.to_dict("records"), strict=True):
        each = [
            [f"{row[name]:.4f} {row[f'{name}_low']:.4f} to {row[f'{name}_high']:.4f}", f"{row[f'p_{name}']:.4f}"]
            for name in ("reliance", "unique")
        ]
        assert cells == [row["name"], *each[0], *each[1]]
    assert table["reliance"].is_monotonic_decreasing and table["rank"].tolist() == [1, 2, 3]
    page = (halves / "blackout.html").read_text()
    pairs = pd.read_csv(halves / "regions_by_map.csv")
    assert page.count('class="marked"') == (pairs["p_reliance"] < 0.05).sum() == 2
    assert page.count('<li class="main"') == (table["p_reliance"] < 0.05).sum() == 2


def test_names_of_a_user_are_text(halves):
    page = (halves / "blackout.html").read_text()
    assert "<b>" not in page and "</script><script>alert" not in page and page.count("alert(1)") > 3


def test_the_cross_hair_begins_in_the_strongest_region_that_is_named(halves, table):
    at = json.loads(re.search(r'"numSlice": (\{[^}]*\})', html.unescape((halves / "blackout.html").read_text()))[1])
    painted = nibabel.load(halves / "group_reliance.nii.gz").get_fdata()
    assert painted[int(at["X"]), int(at["Y"]), int(at["Z"])] == pytest.approx(table["reliance"].max(), rel=1e-5)


def test_bars_have_the_widths_the_colours_and_the_whiskers_of_the_table(halves, table):
    """From the last region up: of `reliance`, and of `unique`; red is significant."""
    drawing = ElementTree.parse(halves / "blackout.svg")
    axes = [group for group in drawing.iter(f"{SVG}g") if group.get("id", "").startswith("axes_")]
    for axis, name in zip(axes, ("reliance", "unique"), strict=False):
        patches = [group for group in axis if group.get("id", "").startswith("patch_")][1:4]
        rows = table.iloc[::-1]
        ends, red = [], []
        for patch in patches:
            path = patch.find(f"{SVG}path")
            x = [float(of) for of in re.findall(r"[ML] ([-\d.]+) [-\d.]+", path.get("d"))]
            ends.append(x[1] - x[0])
            colour = re.search(r"fill: #(..)(..)(..)", path.get("style"))
            red.append(int(colour[1], 16) > int(colour[2], 16) + 50)
        assert np.array(ends) / ends[-1] == pytest.approx((rows[name] / rows[name].iloc[-1]).to_numpy(), abs=0.01)
        assert red == (rows[f"p_{name}"] < 0.05).tolist()
    text = " ".join("".join(of.itertext()) for of in drawing.iter(f"{SVG}text"))
    assert "mean over 40 test subjects" in text and "family-wise p < 0.05" in text and "95% interval" in text
