"""What is refused of cohorts without maps: options about maps, tables with nothing in them, damage."""

import shutil
from pathlib import Path

from refusals import Row, row

CONVERT = "abide-data convert {few} {missing} --maps none"
PACK = "abide-data pack {only_connectomes}/cohort {missing}"


def add_record(folder: Path) -> None:
    """A file where a cohort without maps has none."""
    shutil.copyfile(folder / "connectomes.h5", folder / "50002.bin")


def break_off_conversion(folder: Path) -> None:
    """A folder with tables, and without what is written last."""
    (folder / "SHA256SUMS").unlink()


ROWS: list[Row] = [
    row(f"{CONVERT} --connectome rois_made --grid reduced", "--grid is about maps", "leave it out"),
    row(f"{CONVERT} --connectome rois_made --mapColumn path", "--mapColumn", "leave out"),
    row(f"{CONVERT} --only *.1D", "--only", "leave out"),
    row("abide-data convert {few} {missing} --maps none,falff", "beside none", "leave out"),
    row(f"{CONVERT} --phenotype ''", "Nothing", "--phenotype A,B"),
    row(f"{CONVERT} --connectome rois_other", "holds no rois_other series", "rois_made"),
    row(f"{CONVERT} --parcels {{few}}/parcels.nii.gz", "--parcels", "--connectome"),
    row("abide-data check {few} --maps none", "no maps of {few}", "convert"),
    row("abide-data convert {few} {missing} --like {only_connectomes}/cohort", "training participants", "--exclude"),
    row("abide-data swap {only_connectomes}/cohort {missing}", "has no maps", "abide-data convert --maps"),
    row("abide-data export {only_table}/cohort {missing} --inputs maps,phenotype", "has no maps", "--inputs phenotype"),
    row("run.py --train --model cnn --dataDir {only_table}/cohort --chkPointDir {missing}", "has no maps", "convert"),
    row(PACK, "edited", spoil={"only_connectomes/cohort/phenotype.csv": "flipped"}),
    row(PACK, "connectomes.h5", spoil={"only_connectomes/cohort/connectomes.h5": "flipped"}),
    row(PACK, "connectomes.h5", spoil={"only_connectomes/cohort/connectomes.h5": "gone"}),
    row("abide-data check {only_connectomes}/cohort", "50002.bin", spoil={"only_connectomes/cohort": add_record}),
    row("abide-data check {only_table}/cohort", "abide-data pack", spoil={"only_table/cohort": break_off_conversion}),
]
