"""What is said of one person -> `person.html`, one page that opens from disk, `person.json` and `regions.csv`."""

import io
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from nilearn import plotting

from data import __version__
from data.base import files, tables
from data.cohorts import nifti
from data.cohorts.atlas import load_atlas
from data.cohorts.derivation import PROGRAM
from data.cohorts.records import FULL
from data.cohorts.variants import BACKGROUND
from data.pages.drawings import Picture
from data.pages.page import Number, Page, Row, Section, render
from models import MODELS
from utils.blackout.results import PALE, UNTESTED, shades
from utils.bundle.model import Bundle
from utils.bundle.run import LEVEL, labels_of
from utils.figures import SIDES
from utils.figures import write as write_figure
from utils.predict.given import Given
from utils.predict.person import Predicted
from utils.report.build import INTENDED_USE

PAGE, TABLE, RESULT = "person.html", "regions.csv", "person.json"
STRONGEST = 20  # regions on the page
SIZE, DPI = (5.6, 5), 150  # inches of the picture; dots an inch
FONT = 10  # points, which a telephone shows as 9 pixels
MEANINGS = {
    "effect on the logit": "How far the logit of autism falls without the region: positive where it speaks for autism.",
    "size, cm³": "Large regions have larger effects.",
}
CUTS_MM = ((-32, -16, 0), (16, 32, 48))
COLOURS = ListedColormap(1 - PALE * (1 - shades(1)[:, :3]))  # on white
TITLE = "One person: research, not a diagnosis"


def write(folder: Path, bundle: Bundle, given: Given, found: Predicted) -> None:
    """Writes the page, and what stands on it for other programs."""
    about, made = f"{bundle.path}, {time.strftime('%Y-%m-%d %H:%M')}", f"{PROGRAM} {__version__}"
    regions = None if found.effects is None else region_table(bundle, found.effects)
    parts = [*sections(bundle, given, found, regions)]
    with files.replacing(folder / PAGE) as file:
        file.write(render(Page("person", f"{TITLE}{found.marks}", about, parts, numbers(found), brain(bundle, found))))
    if regions is not None:
        tables.write_frame(folder / TABLE, regions, ["name"], digits=6)
    said = asdict(found) | {
        "marks": found.marks.strip(),
        "given": shown(given),
        "bundle_sha256": bundle.archive.sha256,
        "program": made,
    }
    del said["effects"]
    files.write_json(folder / RESULT, {"intended_use": INTENDED_USE} | said)


def numbers(found: Predicted) -> list[Number]:
    """Probability and set of labels, unless there is a doubt; whether the person is like the training people."""
    person, single = found.person, f"single networks: {found.range}" if found.range else ""
    said = [Number("none", "probability of autism", found.doubt)]
    if not found.doubt:
        known = person.probability is not None
        value, how = (person.probability, "calibrated") if known else (person.raw, "not calibrated")
        said = [Number(f"{value:.2f}", f"probability of autism, {how}", single)]
        if person.labels is not None:
            said.append(Number(labels_of(person), f"set of labels at {LEVEL:.0%}", found.meaning))
    likeness = "not known" if found.unlike is None else "no" if found.unlike else "yes"
    return [*said, Number(likeness, "like the training people", "; ".join(found.unlike or ()))]


def brain(bundle: Bundle, found: Predicted) -> Picture | None:
    """The effects on slices; None if they are not shown, or all 0."""
    if found.effects is None or found.doubt or not found.effects.any():
        return None
    image = io.BytesIO()
    write_figure(drawn(bundle, found.effects), image, "png")
    return Picture(image.getvalue(), f"Effects of a blackout of regions on axial slices. {SIDES}. {UNTESTED}")


def sections(bundle: Bundle, given: Given, found: Predicted, regions: pd.DataFrame | None) -> Iterator[Section]:
    """The parts of the page, in their order."""
    yield Section("Intended use", [INTENDED_USE], kind="warning")
    yield Section("Prediction", found.prediction, kind="warning" if found.doubt else "conclusion")
    yield Section("Like the training people?", [found.likeness], kind="warning" if found.unlike else "", open=True)
    if found.caveats.problems:
        yield Section("Problems of the people", list(found.caveats.problems), kind="warning")
    if found.notes:
        yield Section("How to read it", list(found.notes))
    if regions is not None and found.effects is not None and not found.doubt:
        about = [explained(bundle), *([] if found.effects.any() else ["No region has any effect."])]
        yield Section("What the model uses: blackout of regions", about, open=True)
        untested = ["No p-value: in one person an effect as strong may be chance."]
        yield Section(
            f"The {STRONGEST} strongest regions", untested, table=rows_of(regions), meanings=MEANINGS, open=True
        )
    yield Section("The model", bundle.lines())
    yield Section("What was given", facts=shown(given))


def shown(given: Given) -> Row:
    """What was given, as text."""
    named = {f"map {name}": str(path) for name, path in given.maps.items()} | given.phenotype
    return named | ({"series": str(given.series)} if given.series else {})


def explained(bundle: Bundle) -> str:
    """What is replaced in a blackout by the background, and what its effects mean."""
    settings = MODELS[bundle.model.model].settings(bundle.model.config)
    connectomes, edges = bundle.like.cohort.connectomes, ""
    if connectomes is not None and "connectome" in MODELS[bundle.model.model].inputs(settings):
        edges = ", and the edges of its parcels become unknown"
        if connectomes.image is None:
            edges = "; edges stay, for it is not known where their parcels lie"
    background = BACKGROUND[getattr(settings, "standardise", "stored")]
    return (
        f"Each region of AAL is replaced in turn by {background}, in all maps{edges}. The effect is how far the logit "
        "of autism falls then. It is positive (red) where the region speaks for autism, negative (blue) where it "
        "speaks for control. It shows what these networks use in this person, not what is wrong with a region. "
        f"{UNTESTED} Large regions have larger effects."
    )


def region_table(bundle: Bundle, effects: np.ndarray) -> pd.DataFrame:
    """A row a region, the strongest effect first."""
    grid = bundle.like.cohort.grid
    atlas = load_atlas(None, grid)
    sizes = [round(len(voxels) * grid.spacing_mm**3 / 1000, 1) for voxels in atlas.voxels]
    table = pd.DataFrame({"region": atlas.regions, "name": [atlas.names[region] for region in atlas.regions]})
    table = table.assign(size_cm3=sizes, effect=effects)
    return table.sort_values("effect", key=abs, ascending=False, kind="stable", ignore_index=True)


def largest(effects: np.ndarray) -> tuple[float, int]:
    """The largest effect of either sign, 1 if all are 0, and the decimals of its first two digits."""
    found = float(np.abs(effects).max()) or 1.0
    return found, max(0, 1 - math.floor(math.log10(found)))


def rows_of(regions: pd.DataFrame) -> list[Row]:
    """The strongest regions for the page."""
    _, decimals = largest(regions["effect"].to_numpy())
    cells = zip(*(regions.head(STRONGEST)[name] for name in ("name", "size_cm3", "effect")), strict=True)
    return [
        {"region": name, "size, cm³": f"{size:.0f}", "effect on the logit": f"{effect:+.{decimals}f}"}
        for name, size, effect in cells
    ]


def drawn(bundle: Bundle, effects: np.ndarray) -> Figure:
    """The effects (regions,), not all 0, on axial slices."""
    image = nifti.mni_image(load_atlas(None, bundle.like.cohort.grid).paint(effects), FULL)
    limit, decimals = largest(effects)
    figure = Figure(figsize=SIZE, dpi=DPI)
    figure.set_label("effects")
    for cuts, bottom in zip(CUTS_MM, (0.62, 0.22), strict=True):
        row = figure.add_axes((0, bottom, 1, 0.38))
        display = plotting.plot_stat_map(
            image, figure=figure, axes=row, display_mode="z", cut_coords=cuts, cmap=COLOURS, vmax=limit,
            threshold=limit / 1000, resampling_interpolation="nearest", colorbar=False, annotate=False, black_bg=False,
        )  # fmt: skip
        display.annotate(size=FONT)
    bar = figure.add_axes((0.15, 0.13, 0.7, 0.03))
    scale = ScalarMappable(Normalize(-limit, limit), COLOURS)
    figure.colorbar(scale, bar, orientation="horizontal")
    bar.set_xticks((-limit, 0, limit), (f"{-limit:+.{decimals}f}", "0", f"{limit:+.{decimals}f}"), fontsize=FONT)
    bar.set_title("speaks for control", loc="left", fontsize=FONT)
    bar.set_title("for autism", loc="right", fontsize=FONT)
    figure.text(0.5, 0.01, f"effect on the logit; axial slices, MNI space, mm\n{SIDES}", ha="center", fontsize=FONT)
    return figure
