"""Conversion of maps against nilearn's resample_img alone: `python tests/benchmarks/convert.py FOLDER [--maps N]`.

FOLDER holds NIfTI maps. Both are timed in this process, map by map in turn, in processor time; prints medians and the
median ratio.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data import grids
from data.cohorts.nifti import MapOnDisk
from data.cohorts.records import PHENOTYPE_SIZE
from data.conversion.convert import convert_maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--maps", type=int, default=100)
    args = parser.parse_args()
    from nilearn.image import resample_img

    warnings.simplefilter("ignore")
    paths = sorted(args.folder.rglob("*.nii*"))[: args.maps]
    header = (1.0, np.zeros(PHENOTYPE_SIZE, np.float32))
    options = {"interpolation": "linear", "copy_header": True, "force_resample": True}
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            start = time.process_time()
            convert_maps([MapOnDisk(path)], header, Path(folder) / f"{number}.bin", grids.FULL)
            middle = time.process_time()
            image = resample_img(nibabel.load(path), np.array(grids.FULL.affine), grids.FULL.shape, **options)
            np.asarray(image.dataobj)
            theirs.append(time.process_time() - middle)
            ours.append(middle - start)
    ratio = np.median(np.divide(ours, theirs))
    print(
        f"{len(paths)} maps: {np.median(ours):.4f} s converted, {np.median(theirs):.4f} s resampled, ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    main()
