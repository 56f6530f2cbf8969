"""Systems of regions: AAL's by its table, others by a label image or a table of one's own."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data.cohorts.atlas import Atlas, load_atlas
from data.cohorts.records import FULL, REDUCED
from utils.blackout.systems import AAL_SYSTEM_BY_REGION, OUTSIDE_SYSTEM, load_region_systems

REGIONS = {2: "left", 3: "right", 7: "back"}


def rows() -> Atlas:
    """Three regions of 20 voxels in a row, numbered with gaps."""
    full = np.zeros(FULL.shape, np.int32)
    for at, region in enumerate(REGIONS):
        full[20 * at : 20 * at + 20, 50, 40] = region
    return Atlas(full, dict(REGIONS), FULL, full, [])


def of_regions(systems) -> list[str]:
    """The system of each region by its name, and of no region."""
    return [systems.system_names[at] for at in systems.system_by_region]


@pytest.mark.parametrize("grid", [FULL, REDUCED])
def test_each_region_of_aal_is_in_one_lobe_of_its_hemisphere(grid):
    atlas = load_atlas(None, grid)
    assert sorted(AAL_SYSTEM_BY_REGION) == sorted(atlas.name_by_region.values())
    found = load_region_systems(atlas, None)
    assert (
        len(found.system_names) == 20
        and found.system_names[-1] == OUTSIDE_SYSTEM
        and not found.unplaced_regions.size
        and not found.is_system_per_region
    )
    system = dict(zip([*atlas.name_by_region.values(), None], of_regions(found), strict=True))
    assert system[None] == OUTSIDE_SYSTEM
    for name in atlas.name_by_region.values():
        side = {"L": "left", "R": "right"}.get(name[-1])
        assert system[name].endswith(side) if side and "Vermis" not in name else system[name] == "vermis"
    sizes = {name: list(system.values()).count(name) for name in found.system_names}
    pairs = {"central": 3, "frontal": 13, "temporal": 4, "parietal": 5, "occipital": 7, "limbic": 7, "insula": 1}
    pairs |= {"subcortical": 5, "cerebellum": 9}
    both = {f"{lobe} {side}": count for lobe, count in pairs.items() for side in ("left", "right")}
    assert sizes == both | {"vermis": 8, OUTSIDE_SYSTEM: 1}


@pytest.mark.slow
def test_a_left_region_of_aal_lies_on_the_left():
    """The table of hemispheres against where the voxels are."""
    atlas = load_atlas(None, FULL)
    found = load_region_systems(atlas, None)
    for place, region in enumerate(atlas.region_numbers):
        x = FULL.affine[0][0] * np.argwhere(atlas.full_region_labels == region)[:, 0].mean() + FULL.affine[0][3]
        name = found.system_names[found.system_by_region[place]]
        assert ("left" in name and x < 0) or ("right" in name and x > 0) or (name == "vermis" and abs(x) < 5)


def test_without_a_table_each_region_is_a_system():
    found = load_region_systems(rows(), None)
    assert of_regions(found) == ["left", "right", "back", OUTSIDE_SYSTEM] and found.is_system_per_region


def write_image(path: Path, **boxes: tuple[slice, int]) -> Path:
    """Labels at some of the voxels of the row, with their names."""
    labels = np.zeros(FULL.shape, np.int16)
    for at, label in boxes.values():
        labels[at, 50, 40] = label
    nib.save(nib.Nifti1Image(labels, FULL.affine), path)
    return path


@pytest.mark.slow
def test_a_region_belongs_to_the_system_that_holds_most_of_its_voxels(tmp_path):
    """Labels of one name are one system; of the last region, 8 voxels lie in one system, 8 outside and 4 in another."""
    boxes = {"a": (slice(0, 6), 1), "b": (slice(6, 12), 4), "c": (slice(12, 20), 2), "d": (slice(20, 31), 2)}
    path = write_image(tmp_path / "two.nii", **boxes, e=(slice(40, 48), 1), f=(slice(48, 52), 2), g=(slice(60, 70), 9))
    (tmp_path / "two.txt").write_text("1 default mode\n4 default mode\n2 motor\n9 elsewhere\n")
    found = load_region_systems(rows(), path)
    assert of_regions(found) == ["default mode", "motor", OUTSIDE_SYSTEM, OUTSIDE_SYSTEM]
    assert found.system_names == (
        "default mode",
        "motor",
        "elsewhere",
        OUTSIDE_SYSTEM,
    ) and found.unplaced_regions.tolist() == [2]
    (tmp_path / "two.txt").unlink()
    assert load_region_systems(rows(), path).system_names == (
        "region 1",
        "region 2",
        "region 4",
        "region 9",
        OUTSIDE_SYSTEM,
    )


@pytest.mark.parametrize("between", [",", "\t"])
def test_a_table_names_regions_by_name_or_number(tmp_path, between):
    lines = ["system,region,more", f"{OUTSIDE_SYSTEM},left,x", "seeing,7,", "moving,right,"]
    path = tmp_path / "systems.tsv"
    path.write_text("\n".join(lines).replace(",", between))
    found = load_region_systems(rows(), path)
    assert of_regions(found) == [OUTSIDE_SYSTEM, "moving", "seeing", OUTSIDE_SYSTEM] and found.system_names == (
        "seeing",
        "moving",
        OUTSIDE_SYSTEM,
    )
    assert not found.is_system_per_region
