"""One row of each fault of `kills.py`, whose other rows are `make torture`."""

import kills
import pytest


@pytest.fixture(scope="module")
def torture(tmp_path_factory) -> kills.Torture:
    made = kills.Torture(tmp_path_factory.mktemp("kills"))
    made.make_people()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("fault, name", [("kill", "convert"), ("full_disk", "pack"), ("read_only", "swap")])
def test_a_row_of_each_fault(fault, name, torture):
    tally = kills.suffer(torture, name, fault, times=1, seed=0)
    assert not tally.lost
    if not tally.times:
        pytest.skip(tally.note)


@pytest.mark.slow
def test_a_full_disk_where_none_can_be_mounted(torture, monkeypatch):
    monkeypatch.setattr(kills, "can_mount", lambda: False)
    assert not kills.suffer(torture, "pack", "full_disk", times=1, seed=0).lost
    assert "no disk can be mounted" in kills.suffer(torture, "pack", "read_only", times=1, seed=1).note
