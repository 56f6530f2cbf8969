"""Conversion against reading alone and nilearn's resample_img: `python tests/benchmarks/convert.py FOLDER [options]`.

FOLDER is in the PCP's layout. First single maps of it, in this process, in turn: the median processor time of reading
one with nibabel, of `resample_img`, and of all that `abide-data convert` does with one, on either grid. Then the
command itself for each of `--maps`, twice: for FEW people, and for `--people`. What the further people take is printed
as maps a second and processor time a map; and the memory of the largest process.
"""

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data.cohorts import records
from data.cohorts.nifti import MapOnDisk
from data.conversion.volumes import read_person

ROOT = Path(__file__).resolve().parents[2]
FEW, SINGLE = 20, 60  # people; maps
KIB = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--maps", action="append", metavar="A,B,...", help="may be repeated (default falff)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        single(sorted(args.folder.rglob("*_falff.nii.gz"))[:SINGLE], Path(folder))
        for maps in args.maps or ["falff"]:
            for grid in records.GRIDS:
                command(args.folder, args.people, maps, grid, Path(folder))


def single(paths: list[Path], folder: Path) -> None:
    """Prints medians of single maps, each way in turn, and their ratios to reading."""
    from nilearn.image import resample_img

    options = {"interpolation": "linear", "copy_header": True, "force_resample": True}
    ways: dict[str, Callable[[Path], object]] = {
        "read": lambda path: np.asarray(nibabel.load(path).dataobj, np.float32),
        "resample_img": lambda path: resample_img(
            nibabel.load(path), np.array(records.FULL.affine), records.FULL.shape, **options
        ).get_fdata(dtype=np.float32),
        "reduced": lambda path: read_person([MapOnDisk(path)], records.REDUCED, folder / "record.bin"),
        "full": lambda path: read_person([MapOnDisk(path)], records.FULL, folder / "record.bin"),
    }
    for do in ways.values():  # imports, matrices and the atlas
        do(paths[0])
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for path in paths:
        for way, do in ways.items():
            start = time.process_time()
            do(path)
            taken[way].append(time.process_time() - start)
    for way, seconds in taken.items():
        ratio = np.median(np.divide(seconds, taken["read"]))
        print(f"{len(paths)} maps, {way}: {np.median(seconds) * 1000:.1f} ms a map, {ratio:.1f} times reading")


def command(source: Path, people: int, maps: str, grid: str, folder: Path) -> None:
    """Prints what `abide-data convert` takes for people beyond FEW."""
    taken = []
    for number in (FEW, people):
        part = a_part(source, number, folder / f"{number} people")
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        arguments = ["convert", part, folder / f"{grid} {maps} {number}", "--grid", grid, "--maps", maps]
        done = subprocess.run([sys.executable, "-m", "data", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
        assert done.returncode < 2  # 1: it is written, with problems
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        taken.append((time.perf_counter() - start, processor))
    (few, few_processor), (many, many_processor) = taken
    size = record_maps(folder / f"{grid} {maps} {people}")
    count = (people - FEW) * size
    print(
        f"convert --grid {grid}, {size} maps of {people} people: {count / (many - few):.0f} maps/s, "
        f"{(many_processor - few_processor) / count * 1000:.1f} ms of a processor a map; {few:.0f} s for {FEW} people; "
        f"at most {after.ru_maxrss * KIB / 1e9:.2f} GB in a process",
        flush=True,
    )


def record_maps(cohort: Path) -> int:
    from data.cohorts.stored import open_cohort

    return open_cohort(cohort).num_maps


def a_part(source: Path, people: int, target: Path) -> Path:
    """A folder with links to the files of some people, and their rows."""
    if target.exists():
        return target
    target.mkdir()
    (table,) = source.rglob("Phenotypic_*.csv")
    with open(table, newline="") as file:
        rows = {row["FILE_ID"]: row for row in csv.DictReader(file)}
    found = [path.name.removesuffix("_falff.nii.gz") for path in sorted(source.rglob("*_falff.nii.gz"))]
    chosen = [name for name in np.array(found)[np.linspace(0, len(found) - 1, people).astype(int)] if name in rows]
    with open(target / table.name, "w", newline="") as file:
        writer = csv.DictWriter(file, next(iter(rows.values())))
        writer.writeheader()
        writer.writerows(rows[name] for name in chosen)
    for path in source.rglob("*.nii.gz"):
        if path.name.startswith(tuple(f"{name}_" for name in chosen)):
            (target / path.name).symlink_to(path.resolve())
    return target


if __name__ == "__main__":
    main()
