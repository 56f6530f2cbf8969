"""The full pass of `cae`: a whole cohort -> a cohort on the reduced grid, everything but the volumes carried over."""

import dataclasses
from pathlib import Path

import keras
import numpy as np

from data import files, grids, records
from data.cohort import carry_tables, in_one_folder, write_tables
from data.folds import Folds
from utils.inference import outputs_of, restored_network
from utils.runs import Run


def encode(run: Run) -> int:
    """Writes the reduced cohort `run.out_dir`, which must not exist; it appears when it is complete."""
    network = restored_network(run)
    encoder = keras.Model(network.input, network.output["code"])
    source = run
    run = dataclasses.replace(run, cohort=in_one_folder(run.cohort))
    with files.unfinished(run.out_dir) as folder:
        folder.mkdir(parents=True)
        digest = run.checkpoints.digest()
        metadata = dataclasses.replace(
            run.cohort.metadata,
            grid=grids.REDUCED.shape,
            affine=tuple(map(tuple, grids.REDUCED.affine)),
            reduction=f"encoder {digest}",
            encoder_sha256=digest,
            encoder_subjects=run.checkpoints.identity().training_subjects,
            provenance=run.describe() | {"source": run.cohort.metadata.provenance},
        )
        write_records(run, encoder, folder)
        carry_tables(run.cohort, folder)
        write_tables(folder, run.cohort.rows, metadata)
        dataclasses.replace(source, out_dir=folder).write_manifest(finished=True, records=len(run.cohort.rows))
    run.enter(None)
    run.announce()
    return 0


def pool(run: Run, folds: Folds) -> None:
    """Makes the folds' cohorts one set, which `--dataDir` takes with the same `--folds`."""
    folds.write(run.out_dir)
    run.finish()


def write_records(run: Run, encoder: keras.Model, folder: Path) -> None:
    """One reduced record an input record, its 120 bytes of label and phenotype as they were, each map encoded."""
    every = np.arange(len(run.cohort.rows))
    for selection, _, codes in outputs_of(run, encoder, every, "Encoding"):
        of_record = codes.reshape(len(selection), run.cohort.num_maps, *grids.REDUCED.shape)
        for index, of_map in zip(selection, of_record, strict=True):
            volumes = b"".join(records.normalise(code).tobytes() for code in of_map)
            (folder / run.cohort.rows[index].file).write_bytes(run.cohort.header(index) + volumes)
