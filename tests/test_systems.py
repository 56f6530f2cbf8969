"""Systems of regions: AAL's by its table, others by a label image or a table of one's own."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data.images.atlas import Atlas, load_atlas
from data.images.grids import FULL, REDUCED
from utils.blackout.systems import AAL_SYSTEM_BY_REGION, OUTSIDE_SYSTEM, load_region_systems

REGIONS = {2: "left", 3: "right", 7: "back"}


def make_row_atlas() -> Atlas:
    """Three regions of 20 voxels in a row, numbered with gaps."""
    full = np.zeros(FULL.shape, np.int32)
    for region_index, region in enumerate(REGIONS):
        full[20 * region_index : 20 * region_index + 20, 50, 40] = region
    return Atlas(full, dict(REGIONS), FULL, full, [])


def find_system_names(systems) -> list[str]:
    """The system of each region by its name, and of no region."""
    return [systems.system_names[system_index] for system_index in systems.system_index_by_region]


@pytest.mark.parametrize("grid", [FULL, REDUCED])
def test_aal_regions_are_in_a_single_lobe_within_their_hemisphere(grid):
    atlas = load_atlas(None, grid)
    assert sorted(AAL_SYSTEM_BY_REGION) == sorted(atlas.name_by_region.values())
    systems = load_region_systems(atlas, None)
    assert (
        len(systems.system_names) == 20
        and systems.system_names[-1] == OUTSIDE_SYSTEM
        and not systems.unplaced_region_positions.size
        and not systems.is_system_per_region
    )
    system = dict(zip([*atlas.name_by_region.values(), None], find_system_names(systems), strict=True))
    assert system[None] == OUTSIDE_SYSTEM
    for name in atlas.name_by_region.values():
        side = {"L": "left", "R": "right"}.get(name[-1])
        assert system[name].endswith(side) if side and "Vermis" not in name else system[name] == "vermis"
    sizes = {name: list(system.values()).count(name) for name in systems.system_names}
    pairs = {"central": 3, "frontal": 13, "temporal": 4, "parietal": 5, "occipital": 7, "limbic": 7, "insula": 1}
    pairs |= {"subcortical": 5, "cerebellum": 9}
    both = {f"{lobe} {side}": count for lobe, count in pairs.items() for side in ("left", "right")}
    assert sizes == both | {"vermis": 8, OUTSIDE_SYSTEM: 1}


@pytest.mark.slow
def test_a_left_aal_region_lies_on_the_left():
    """The table of hemispheres against where the voxels are."""
    atlas = load_atlas(None, FULL)
    systems = load_region_systems(atlas, None)
    for place, region in enumerate(atlas.region_numbers):
        x = FULL.affine[0][0] * np.argwhere(atlas.full_region_labels == region)[:, 0].mean() + FULL.affine[0][3]
        name = systems.system_names[systems.system_index_by_region[place]]
        assert ("left" in name and x < 0) or ("right" in name and x > 0) or (name == "vermis" and abs(x) < 5)


def test_without_a_table_regions_are_systems():
    systems = load_region_systems(make_row_atlas(), None)
    assert find_system_names(systems) == ["left", "right", "back", OUTSIDE_SYSTEM] and systems.is_system_per_region


def write_image(path: Path, **boxes: tuple[slice, int]) -> Path:
    """Labels at some of the voxels of the row, with their names."""
    labels = np.zeros(FULL.shape, np.int16)
    for voxel_slice, label in boxes.values():
        labels[voxel_slice, 50, 40] = label
    nib.save(nib.Nifti1Image(labels, FULL.affine), path)
    return path


@pytest.mark.slow
def test_a_region_belongs_to_the_system_with_most_voxels_in_common(tmp_path):
    """Labels of one name are one system; of the last region, 8 voxels lie in one system, 8 outside and 4 in another."""
    boxes = {"a": (slice(0, 6), 1), "b": (slice(6, 12), 4), "c": (slice(12, 20), 2), "d": (slice(20, 31), 2)}
    path = write_image(tmp_path / "two.nii", **boxes, e=(slice(40, 48), 1), f=(slice(48, 52), 2), g=(slice(60, 70), 9))
    (tmp_path / "two.txt").write_text("1 default mode\n4 default mode\n2 motor\n9 elsewhere\n")
    systems = load_region_systems(make_row_atlas(), path)
    assert find_system_names(systems) == ["default mode", "motor", OUTSIDE_SYSTEM, OUTSIDE_SYSTEM]
    assert systems.system_names == (
        "default mode",
        "motor",
        "elsewhere",
        OUTSIDE_SYSTEM,
    ) and systems.unplaced_region_positions.tolist() == [2]
    (tmp_path / "two.txt").unlink()
    assert load_region_systems(make_row_atlas(), path).system_names == (
        "region 1",
        "region 2",
        "region 4",
        "region 9",
        OUTSIDE_SYSTEM,
    )


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_table_names_regions_by_name_or_number(tmp_path, separator):
    lines = ["system,region,more", f"{OUTSIDE_SYSTEM},left,x", "seeing,7,", "moving,right,"]
    path = tmp_path / "systems.tsv"
    path.write_text("\n".join(lines).replace(",", separator))
    systems = load_region_systems(make_row_atlas(), path)
    assert find_system_names(systems) == [
        OUTSIDE_SYSTEM,
        "moving",
        "seeing",
        OUTSIDE_SYSTEM,
    ] and systems.system_names == (
        "seeing",
        "moving",
        OUTSIDE_SYSTEM,
    )
    assert not systems.is_system_per_region
