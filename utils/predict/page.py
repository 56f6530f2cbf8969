"""What is said of one person -> `person.html`, one page that opens from disk, `person.json` and `regions.csv`."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nilearn import plotting

from data.base import files, tables
from data.cohorts import nifti
from data.cohorts.atlas import load_atlas
from data.grids import FULL
from utils.bundle.model import Bundle
from utils.figures import SIDES
from utils.predict.person import Predicted
from utils.report.build import INTENDED_USE, Section, rendered
from utils.report.cells import Row

PAGE, TABLE, RESULT = "person.html", "regions.csv", "person.json"
STRONGEST = 20  # regions on the page
CUTS_MM = (-30, -10, 10, 30, 50)
BLACKOUT = (
    "Each region of AAL is replaced in turn by the value outside the brain, in all maps, and its edges become unknown. "
    "The effect is how far the logit of autism falls: positive where the region speaks for autism, negative where it "
    "speaks for control. It shows what these networks use in this person. No other person's region is at hand, so "
    "whether an effect could be chance is not known, and large regions have larger effects."
)


def write(folder: Path, bundle: Bundle, found: Predicted) -> None:
    """Writes the page, and its numbers for other programs."""
    sections = [
        Section("Research, not a diagnosis", [INTENDED_USE], kind="warning"),
        Section("Prediction", [*found.told, *found.notes], kind="conclusion"),
        Section("The model", bundle.lines()),
    ]
    regions = None if found.effects is None else region_table(bundle, found.effects)
    if regions is not None:
        tables.write_frame(folder / TABLE, regions, ["name"], digits=6)
        sections.append(Section("Blackout by the background", [BLACKOUT], drawn(bundle, found), rows_of(regions)))
    with files.replacing(folder / PAGE) as file:
        file.write(rendered(f"One person by {bundle.model.model}{found.marks}", str(bundle.path), sections))
    said = asdict(found) | {"effects": None, "bundle_sha256": bundle.archive.sha256}
    files.write_json(folder / RESULT, said)


def region_table(bundle: Bundle, effects: np.ndarray) -> pd.DataFrame:
    """A row a region, the strongest effect first."""
    atlas = load_atlas(None, bundle.like.cohort.grid)
    sizes = [int((atlas.labels == region).sum()) for region in atlas.regions]
    table = pd.DataFrame({"region": atlas.regions, "name": [atlas.names[region] for region in atlas.regions]})
    table = table.assign(voxels=sizes, effect=effects)
    return table.sort_values("effect", key=abs, ascending=False, kind="stable", ignore_index=True)


def rows_of(regions: pd.DataFrame) -> list[Row]:
    """The strongest regions for the page."""
    return [
        {"region": row["name"], "voxels": str(row["voxels"]), "effect on the logit": f"{row['effect']:+.3f}"}
        for _, row in regions.head(STRONGEST).iterrows()
    ]


def drawn(bundle: Bundle, found: Predicted) -> Figure:
    """Axial slices of the effects."""
    assert found.effects is not None
    image = nifti.mni_image(load_atlas(None, bundle.like.cohort.grid).paint(found.effects), FULL)
    figure = Figure(figsize=(8, 2.6))
    figure.set_label("effects")
    limit = float(np.abs(found.effects).max()) or 1.0
    plotting.plot_stat_map(
        image, figure=figure, display_mode="z", cut_coords=CUTS_MM, cmap="RdBu_r", vmax=limit, annotate=True,
        title=f"effect on the logit of autism; {SIDES}", threshold=limit / 1000,
    )  # fmt: skip
    return figure
