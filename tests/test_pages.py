"""What is shown of a blackout: page, figure and terminal say what the tables say, and name nothing of people of whom
nothing is concluded."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import h5py
import lab as labs
import numpy as np
import pandas as pd
import pytest
from by_hand import read
from commands import done, read_manifest, read_page_text
from lab import load_image

from utils.runs.record import Caveats

pytestmark = pytest.mark.slow
SVG = "{http://www.w3.org/2000/svg}"
RED = "#d62728"  # of bars that are significant
HEADINGS = {  # of the page's tables
    "regions": "region | reliance | p | unique | unique p | background | sufficiency",
    "regions_by_map": "region | map | reliance | p | direction | difference",
    "connections": "level | a | b | reliance | p | direction | difference",
    "values": "group | reliance | p | direction | difference | difference of",
}
ROW_KEY_COLUMNS = ("level", "group", "name", "map", "a", "b")  # columns that say what a row is of
FAMILIES = {  # of the tables: in `replication.csv`, and on the page
    "regions": ("regions", "regions"),
    "regions_by_map": ("maps", "regions in one map"),
    "connections": ("connections", "pairs of systems"),
    "values": ("values", "groups of values"),
}
LETTERS = 25  # of a name, with which the figure begins
MAX_ROWS = 2  # of a level of a table, and what is named
Predicted = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def plant_effects(path: Path, predict: Predicted, scattered: bool) -> None:
    """Effects of a fold: of the first region, in all and in one map; of what is unique of the second; of the pair of
    both, and of age. The network may have predicted otherwise. If effects are `scattered`, those of the second and the
    third region are larger, but differ between people: the second is significant, the third is not."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)  # no link any more
    random = np.random.default_rng(len(content))
    with h5py.File(path, "r+") as file:
        pair, age = file["pair"][()].tolist().index([0, 1]), file["values"].asstr()[()].tolist().index("age")
        strong = {"reliance": 0, "unique": 1, "reliance_by_map": (0, 1), "pair_reliance": pair, "value_reliance": age}
        for name, effect_index in strong.items():
            effect = random.normal(0, 0.1, file[name].shape)
            effect[:, *np.atleast_1d(effect_index)] += 1
            if scattered and name == "reliance":
                sign = random.permutation(np.resize([1, -1], len(effect)))
                effect[:, 1:3] = np.column_stack([1.5 + 2 * sign, 2 + 20 * sign])
            file[name][...] = effect
        file["probability"][...] = predict(file["probability"][()], random)


@pytest.fixture(scope="module")
def pooled(few_region_blackout, converted, on_folds, tmp_path_factory) -> Callable[..., tuple[Path, str]]:
    """`pooled()` are the results of a blackout whose folds found such effects, and what was printed."""

    def results(predict: Predicted = lambda probability, _: probability, scattered: bool = False) -> tuple[Path, str]:
        to = tmp_path_factory.mktemp("pooled") / "out"
        labs.copy(few_region_blackout / "blackout", to)
        for fold in to.glob("fold-*"):
            plant_effects(fold / "blackout.h5", predict, scattered)
        labs.edit(to / "run.json", {"finished": False})
        places = "--folds 3 --donors 1 --dataDir {of} --chkPointDir {ckpt}/ckpt --outDir {to}"
        more = "--atlas {atlas}/atlas/own.nii.gz --systems {atlas}/atlas/systems.csv"
        return to, done(
            f"run.py --blackout {places} {more}", of=converted, ckpt=on_folds, atlas=few_region_blackout, to=to
        )

    return results


@pytest.fixture(scope="module")
def planted_results(pooled) -> tuple[Path, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.blackout.page.PAGE_TABLE_ROWS", MAX_ROWS)
        patch.setattr("utils.blackout.figure.MAX_MATRIX_CELLS", MAX_ROWS)
        patch.setattr("utils.blackout.regions.MAX_FITTING_PEOPLE", 39)  # of 40
        return pooled()


def test_planted_effects_are_significant_and_a_suppressor_is_remarked(planted_results):
    folder, _ = planted_results
    regions, page = read(folder, "regions").set_index("region"), read_page_text(folder / "blackout.html")
    assert regions.loc[[3], "p_reliance"].item() < 0.05 < regions.loc[[4, 5, 8], "p_reliance"].min()
    assert regions["remark"].notna().to_dict() == {3: False, 4: True, 5: False, 8: False}
    assert read_manifest(folder)["concluded"] is True and re.search("Frontal 4, possibly suppressors", page)


def test_page_and_terminal_count_the_rows_in_tables(planted_results):
    """In the order of the tables: things, significant ones, before adjustment, which replicate."""
    folder, printed = planted_results
    page, replication_table = read_page_text(folder / "blackout.html"), read(folder, "replication")
    assert len(printed[printed.index("mmnn predicts") :].splitlines()) <= 10
    for name, (family, family_heading) in FAMILIES.items():
        table = read(folder, name)
        table = table[table["level"] == "systems"] if "level" in table else table
        family_rows = replication_table[
            (replication_table["family"] == family)
            & replication_table["thing"].notna()
            & (replication_table["significant"] == 1)
        ]
        row_count, significant_count, replicate = (
            len(table),
            (table["p_reliance"] < 0.05).sum(),
            (family_rows["replicates"] > 0.5).sum(),
        )
        assert significant_count == replicate == 1
        row = re.search(rf"^{family_heading} \| (.*)$", page, re.M)[1].replace(" ", "").split("|")
        expected = f"{family_rows['expected'].sum():.1f}"
        plain = (table["p_reliance_plain"] < 0.05).sum()
        assert row[:3] + row[5:] == [*map(str, (row_count, significant_count, plain, replicate, expected))]
        with_half = f"{replicate} also with half of the participants ({expected} expected of true effects)"
        assert f"{significant_count} of {row_count} {with_half}" in page
        p = rf"{re.escape(f'{table.p_reliance.min():.2g}')}"
        assert re.search(
            rf"^{significant_count} of {row_count} {family_heading} +{replicate}, {expected} expected +.*? {p}$",
            printed,
            re.M,
        )


def test_significant_rows_come_first_by_p_though_effects_elsewhere_are_larger(pooled):
    folder, printed = pooled(scattered=True)
    regions = read(folder, "regions")
    assert regions["region"].tolist()[:3] == [5, 4, 3] and regions["reliance"].is_monotonic_decreasing
    significant, remaining_regions = regions.query("p_reliance < 0.05"), regions.query("p_reliance >= 0.05")
    assert sorted(significant["region"]) == [3, 4] and significant["p_reliance"].is_unique
    expected = pd.concat([significant.sort_values("p_reliance"), remaining_regions])
    printed_row = re.search(r"^2 of 4 regions +\d, \d\.\d expected (.*)$", printed, re.M)[1]
    assert re.findall(r"(\S+)(?:, |$)", printed_row) == [f"{p:.2g}" for p in expected["p_reliance"][:2]]
    assert printed_row.endswith("Frontal 4 " + f"{expected['p_reliance'].iloc[1]:.2g}")
    page, order = read_page_text(folder / "blackout.html"), expected["name"].tolist()
    first = {name: page.index(f"\n{name} ") for name in order}  # beside its bar
    assert sorted(order, key=first.__getitem__) == order
    rows = {name: page.index(f"\n{name} | ") for name in order}  # of the table
    assert sorted(order, key=rows.__getitem__) == order
    bars = next(panel for panel in panels(folder) if panel.bars)
    assert bars.names("ytick")[::-1] == [name[:LETTERS] for name in order]


@pytest.mark.parametrize("name", HEADINGS)
def test_the_page_has_the_tables(name, planted_results):
    page, table = read_page_text(planted_results[0] / "blackout.html"), read(planted_results[0], name)
    lines = re.sub(r"(?<=[a-z])\d\b", "", page).splitlines()  # without marks of footnotes
    listed_rows = table[(table["rank"] <= MAX_ROWS) | (table["p_reliance"] < 0.05)]
    assert (table["p_reliance"] < 0.05).any() and len(listed_rows) < len(table)
    start = 1 + lines.index(HEADINGS[name])
    for line, row in zip(lines[start : start + len(listed_rows)], listed_rows.to_dict("records"), strict=True):
        words = [row[text] for text in ROW_KEY_COLUMNS if text in row]
        effects = ("reliance", "unique", "background", "sufficiency") if name == "regions" else ("reliance",)
        columns = [text for effect in effects for text in (effect, f"{effect}_low", f"{effect}_high", f"p_{effect}")]
        columns = [text for text in columns if text in row]  # some have no p
        directed = name != "regions" and not pd.isna(row["direction"])
        rest = line.removeprefix(" | ".join(words) + " | ")
        assert rest != line and len(re.findall(r"\d to ", rest)) == len(effects) + directed
        page_numbers = [float(text.replace("\u2212", "-")) for text in re.findall(r"[-\u2212]?\d+\.\d+", rest)]
        assert page_numbers[: len(columns)] == pytest.approx([row[text] for text in columns], abs=6e-5)
        if directed:
            assert f" | {row['direction']} | " in rest
            assert page_numbers[len(columns)] == pytest.approx(row["difference"], abs=6e-3)
    assert lines[start + len(listed_rows)].count(" | ") != HEADINGS[name].count(" | ")


def test_significant_regions_are_marked(planted_results):
    regions = read(planted_results[0], "regions")
    assert (
        (planted_results[0] / "blackout.html").read_text().count('<li class="main"')
        == (regions["p_reliance"] < 0.05).sum()
        == 1
    )


@pytest.mark.parametrize("uncleaned", ["", "NOT CLEANED"])
def test_uncleaned_results_should_not_be_published_though_significant(uncleaned, pooled, monkeypatch):
    """Of a cohort without problems, so that folds are blacked out anew; it is simulated, which the page tells."""
    monkeypatch.setattr("utils.runs.run.Run.caveats", Caveats(simulated=True))
    monkeypatch.setattr("utils.blackout.results.BlackoutResults.uncleaned_warning", uncleaned)
    folder, printed = pooled()
    assert read(folder, "replication").query("significant == 1")["replicates"].max() > 0.5
    assert ("NOT CLEANED" in printed) == bool(uncleaned)
    assert "nothing here is about people" in read_page_text(folder / "blackout.html")
    expected_advice = "No list or map should be published from this" if uncleaned else "name only what is significant"
    for text in (printed, read_page_text(folder / "blackout.html"), read_manifest(folder)["conclusion"]):
        assert expected_advice in text


def test_user_names_are_text(planted_results):
    page = (planted_results[0] / "blackout.html").read_text()
    assert "<b>" not in page and "</script><script>alert" not in page and page.count("alert(1)") > 3


def test_the_cross_hair_begins_in_the_strongest_region_on_the_page(planted_results):
    page = html.unescape((planted_results[0] / "blackout.html").read_text())
    crosshair_voxel = json.loads(re.search(r'"numSlice": (\{[^}]*\})', page)[1])
    painted = load_image(planted_results[0] / "group_reliance.nii.gz").get_fdata()
    strongest = read(planted_results[0], "regions")["reliance"].max()
    assert painted[int(crosshair_voxel["X"]), int(crosshair_voxel["Y"]), int(crosshair_voxel["Z"])] == pytest.approx(
        strongest, rel=1e-5
    )


class Panel:
    """What an axis of the figure has drawn; lengths are the drawing's."""

    def __init__(self, axis: ElementTree.Element):
        self.axis = axis

    def lines(self, kind: str, style: str = "") -> list[tuple[str, np.ndarray]]:
        """Paths of a kind: the style and the corners (corners, 2) of each, in the order in which they were drawn."""
        groups = [element_or_style for element_or_style in self.axis if element_or_style.get("id", "").startswith(kind)]
        paths = [(path.get("style", ""), path.get("d", "")) for group in groups for path in group.findall(f"{SVG}path")]
        corners = [
            (element_or_style, np.array(re.findall(r"[ML] (\S+) (\S+)", d)).astype(float))
            for element_or_style, d in paths
        ]
        return [
            (element_or_style, corner_points)
            for element_or_style, corner_points in corners
            if re.search(style, element_or_style)
        ]

    @property
    def bars(self) -> list[tuple[str, np.ndarray]]:
        return self.lines("patch_", f"fill: ({RED}|#999999)")

    def names(self, kind: str) -> list[str]:
        """Beside `ytick` or below `xtick`: the first letters, which all are shown of."""
        ticks = [element for element in self.axis.iter(f"{SVG}g") if element.get("id", "").startswith(kind)]
        return ["".join(element.itertext()).strip()[:LETTERS] for element in ticks]

    @property
    def framed(self) -> list[tuple[str, str]]:
        """The row and the column of each cell that has a frame."""
        rows, columns = self.names("ytick"), self.names("xtick")
        framed_cells = []
        for _, frame in self.lines("patch_", "stroke-width: 0.9"):
            (_, background_corners), *_ = self.lines("patch_", "fill: #ffffff")
            column, row = (
                (frame[:4].mean(0) - background_corners.min(0))
                / np.ptp(background_corners, axis=0)
                * (len(columns), len(rows))
            )
            framed_cells.append((rows[int(row)], columns[int(column)]))
        return framed_cells


def panels(folder: Path) -> list[Panel]:
    groups = ElementTree.parse(folder / "blackout.svg").iter(f"{SVG}g")
    return [Panel(element) for element in groups if element.get("id", "").startswith("axes_")]


def test_bars_follow_order_widths_colours_and_whiskers_in_the_tables(planted_results):
    """From the last thing up: `reliance` and `unique` of regions, `reliance` of values; red is significant."""
    regions, values = read(planted_results[0], "regions"), read(planted_results[0], "values")
    panel_specs = ((regions, "reliance", "name"), (regions, "unique", ""), (values, "reliance", "group"))
    for panel, (table, name, name_column) in zip(
        [candidate for candidate in panels(planted_results[0]) if candidate.bars], panel_specs, strict=True
    ):
        rows = table.iloc[::-1]
        assert panel.names("ytick") == (rows[name_column].str[:LETTERS].tolist() if name_column else [])
        assert [RED in style for style, _ in panel.bars] == (rows[f"p_{name}"] < 0.05).tolist()
        heights = [corner_points[:, 1].mean() for _, corner_points in panel.bars]
        assert heights == sorted(heights, reverse=True)  # of a drawing whose y goes down
        zero, ends = np.transpose([corner_points[:2, 0] for _, corner_points in panel.bars])
        largest = np.abs(ends - zero).argmax()
        unit = (ends[largest] - zero[0]) / rows[name].iloc[largest]
        assert (ends - zero) / unit == pytest.approx(rows[name].to_numpy(), abs=1e-4)
        whiskers = np.array([corner_points for _, corner_points in panel.lines("LineCollection_")])
        interval = rows[[f"{name}_low", f"{name}_high"]].to_numpy()
        assert (whiskers[:, :, 0] - zero[0]) / unit == pytest.approx(interval, abs=1e-4)


def test_significant_cells_have_a_frame(planted_results):
    """A pair of systems, which has no order, and a region in a map."""
    systems, maps = [{*panel_or_pair.framed} for panel_or_pair in panels(planted_results[0]) if panel_or_pair.framed]
    pairs = read(planted_results[0], "connections").query("level == 'systems' and p_reliance < 0.05")
    assert {frozenset(panel_or_pair) for panel_or_pair in systems} == {
        frozenset(panel_or_pair) for panel_or_pair in zip(pairs["a"], pairs["b"], strict=True)
    }
    in_map = read(planted_results[0], "regions_by_map").query("p_reliance < 0.05")
    assert maps == {*zip(in_map["name"].str[:LETTERS], in_map["map"], strict=True)}


def test_the_figure_states_the_subject(planted_results):
    drawing = ElementTree.parse(planted_results[0] / "blackout.svg")
    text = " ".join("".join(element.itertext()) for element in drawing.iter(f"{SVG}text"))
    assert "falff" in text and "connectome" not in text  # a matrix has so many columns
    assert "mean over 40 test participants" in text and "family-wise p < 0.05" in text and "95% interval" in text


# Of whom nothing is concluded


@pytest.fixture(scope="module")
def at_chance(pooled) -> tuple[Path, str]:
    return pooled(lambda probability, random: random.uniform(0.4, 0.6, probability.shape))


@pytest.fixture(scope="module")
def below(pooled) -> tuple[Path, str]:
    return pooled(lambda probability, _: 1 - probability)


@pytest.fixture(scope="module")
def make_newcomer_blackout(
    few_region_blackout, converted, everybody, tmp_path_factory
) -> Callable[..., tuple[Path, str]]:
    """`make_newcomer_blackout(DX_GROUP=[...])` are the results of a blackout of other people, and what was printed."""

    def blacked_out(**columns: list[str]) -> tuple[Path, str]:
        folder, table = tmp_path_factory.mktemp("others"), labs.people(len(columns["DX_GROUP"]), 80002)
        labs.pcp(folder / "lab", table.assign(**columns), ("falff", "alff"), series=True)
        places = {"at": folder, "of": converted, "ckpt": everybody, "atlas": few_region_blackout}
        done("abide-data convert {at}/lab {at}/cohort --like {of}", **places)
        command = "run.py --blackout --everybody --donors 1 --dataDir {at}/cohort --chkPointDir {ckpt}/ckpt"
        more = "--outDir {at}/out --atlas {atlas}/atlas/own.nii.gz"
        return folder / "out", done(f"{command} {more}", **places)

    return blacked_out


@pytest.fixture(scope="module")
def few(make_newcomer_blackout) -> tuple[Path, str]:
    return make_newcomer_blackout(DX_GROUP=["1"] * 9 + ["2"] * 15)


@pytest.fixture(scope="module")
def one_class(make_newcomer_blackout) -> tuple[Path, str]:
    return make_newcomer_blackout(DX_GROUP=["1"] * 6)


@pytest.fixture(scope="module")
def unknown(make_newcomer_blackout) -> tuple[Path, str]:
    """Of whom no site has both classes, nor enough people to give each other's regions."""
    return make_newcomer_blackout(
        DX_GROUP=["1"] * 10 + ["2"] * 10, SITE_ID=[f"S{person_index // 2}" for person_index in range(20)]
    )


@pytest.mark.parametrize(
    "name, why",
    [
        ("at_chance", "not shown to predict"),
        ("below", "the wrong way round"),
        ("few", "a class has fewer than 10"),
        ("one_class", "are of one class"),
        ("unknown", "not known whether"),
    ],
)
def test_nothing_is_significant_and_all_say_why(name, why, request):
    folder, printed = request.getfixturevalue(name)
    tables = {of: read(folder, of) for of in HEADINGS}
    p = pd.concat([table["p_reliance"] for table in tables.values()])
    assert p.isna().all() if name == "one_class" else (p.notna().all() and p.min() < 0.05)
    assert {*tables["connections"]["level"]} == {"systems"}
    replication, manifest = read(folder, "replication"), read_manifest(folder)
    assert not replication["significant"].any() and manifest["concluded"] is False
    page, figure = ((folder / f"blackout.{form}").read_text() for form in ("html", "svg"))
    assert '<li class="main"' not in page and RED not in figure
    figure = " ".join("".join(of.itertext()) for of in ElementTree.fromstring(figure).iter(f"{SVG}text"))
    for text in (read_page_text(folder / "blackout.html"), figure, printed, manifest["conclusion"]):
        assert re.search(why, " ".join(text.split()))
    is_chance = manifest["better_than_chance"] is False
    assert is_chance == ("MODEL AT CHANCE" in figure) == (name in ("at_chance", "below"))
    assert "No list or map should be published from this" in manifest["conclusion"] and "family-wise" not in printed
    assert not any(of.framed for of in panels(folder))


def test_unequal_classes_are_reported_and_a_single_subject_in_a_class_has_a_mean(few, one_class):
    assert re.search("Only 38% are of one class", read_page_text(few[0] / "blackout.html"))
    table = read(one_class[0], "regions")
    assert table["background_control"].isna().all() and table["background_autism"].notna().all()
    assert table[["reliance_low", "reliance_high"]].notna().all(axis=None)


def test_a_single_subject_has_effects_without_intervals(tmp_path):
    labs.records(tmp_path / "records")
    places = "--model cnn --dataDir {at}/records --chkPointDir {at}/ckpt --outDir {at}/"
    done(f"run.py --train --preset regions --set members=1 --numIters 1 {places}train", at=tmp_path)
    printed, folder = done(f"run.py --blackout --donors 1 {places}out", at=tmp_path), tmp_path / "out"
    page, table = read_page_text(folder / "blackout.html"), read(folder, "regions")
    for name in ("reliance", "unique", "background", "sufficiency"):
        assert table[name].notna().all() and table[[f"{name}_low", f"{name}_high"]].isna().all(axis=None)
    assert table.filter(regex="^[pq]_").isna().all(axis=None) and read_manifest(folder)["subjects"] == 1
    assert (table["background_autism"].isna() != table["background_control"].isna()).all()
    assert not any(panel.lines("LineCollection_") for panel in panels(folder))
    assert "no interval: too few participants" in page and not re.search(r"\bnan\b", page + printed)
    assert "no whiskers: one participant" in (folder / "blackout.svg").read_text()
