"""Head motion from the JSON beside maps: only where the table has none, and only numbers."""

import json
from pathlib import Path

import pandas as pd
import pytest

from data.base.errors import InputError
from data.cohorts.nifti import MapOnDisk
from data.conversion.motion import with_motion


def maps(folder: Path, *said: object) -> pd.DataFrame:
    """A column of maps that need not exist, beside JSON files that say so; without one for None."""
    paths = [folder / f"{number}.nii.gz" for number in range(len(said))]
    for path, value in zip(paths, said, strict=True):
        if value is not None:
            path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(value))
    return pd.DataFrame({"falff": [MapOnDisk(path) for path in paths]})


def test_who_has_it_and_who_has_not(tmp_path):
    said = ({"MeanFramewiseDisplacement": 0.125}, {"MeanFramewiseDisplacement": None}, {"Band": [0.01, 0.1]}, None)
    rows, notes = with_motion(pd.DataFrame({"id": list("abcd")}, index=[3, 1, 2, 0]), maps(tmp_path, *said))
    assert rows["mean_fd"].tolist() == ["0.125", "", "", ""]
    assert notes == ["Head motion: mean_fd, mm, by the JSON beside the maps of 1 of 4 people."]


@pytest.mark.parametrize("name", ["mean_fd", "func_mean_fd", "MeanFD", "framewise displacement"])
def test_a_table_with_head_motion_keeps_it(name, tmp_path):
    table = pd.DataFrame({name: ["0.3"]})
    assert with_motion(table, maps(tmp_path, {"MeanFramewiseDisplacement": 0.125}))[0] is table


def test_nobody_has_it(tmp_path):
    table = pd.DataFrame({"id": ["a"]})
    assert with_motion(table, maps(tmp_path, {"Band": [0.01, 0.1]}))[0] is table


@pytest.mark.parametrize("value", ["0.1", -1, [0.1]])
def test_what_is_no_number_is_refused(value, tmp_path):
    with pytest.raises(InputError, match=r"0.json: MeanFramewiseDisplacement is .*; expected millimetres"):
        with_motion(pd.DataFrame({"id": ["a"]}), maps(tmp_path, {"MeanFramewiseDisplacement": value}))
