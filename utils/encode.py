"""The full pass of `cae`: a whole cohort -> a cohort on the reduced grid, everything but the volumes carried over."""

import dataclasses
from pathlib import Path

from data import files, grids, records
from data.cohort import write_tables
from data.errors import InputError
from data.files import new_folder
from utils.inference import outputs_of, restored_network
from utils.runs import Run


def encode(run: Run) -> int:
    """Writes the reduced cohort `run.out_dir`, which must not exist; it appears when it is complete."""
    if run.out_dir.exists():
        raise InputError(f"{run.out_dir} exists; remove it, or name another folder with --outDir.")
    network = restored_network(run)
    shape = tuple(network.output["code"].shape[1:4])
    if shape != grids.REDUCED.shape:
        raise InputError(
            f"This cae gives a code of {'x'.join(map(str, shape))}; the other models read {grids.REDUCED}. "
            "Train the preset stride3-bn or stride3."
        )
    with new_folder(run.out_dir) as folder:
        table = write_records(run, network, folder)
        identity = run.checkpoints.identity()
        carried = {key: value for key, value in run.cohort.metadata.items() if key in ("phenotype", "simulated")}
        provenance = run.describe() | {"source": run.cohort.metadata.get("provenance", {})}
        grid = {"grid": list(grids.REDUCED.shape), "affine": grids.REDUCED.affine}
        encoder = {"encoder_sha256": run.checkpoints.digest(), "encoder_subjects": identity["training_subjects"]}
        write_tables(folder, table, grid | carried | encoder | {"provenance": provenance})
        files.write_json(folder / "run.json", run.describe())
    run.finish(records=len(table))
    return 0


def write_records(run: Run, network, folder: Path) -> list:
    """One reduced record an input record, its 120 bytes of label and phenotype as they were; returns their table."""
    table = []
    every = range(len(run.cohort.rows))
    for selection, _, outputs in outputs_of(run, network, every, "Encoding"):
        for index, code in zip(selection, outputs["code"], strict=True):
            record = dataclasses.replace(run.cohort.rows[index], file=f"{Path(run.cohort.rows[index].file).stem}.bin")
            header = run.cohort.entries[index].read(records.HEADER_BYTES)
            (folder / record.file).write_bytes(header + records.normalise(code[..., 0]).tobytes())
            table.append(record)
    if len({record.file for record in table}) < len(table):
        raise InputError(f"{run.cohort.path} has records of the same name in different folders; rename them.")
    return table
