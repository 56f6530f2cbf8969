"""The full pass of `cae`: a cohort on the full grid -> the same cohort on the reduced grid; only the volumes change."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from data.base import files
from data.cohorts import records
from data.cohorts.cohort import flatten_cohort, split_into_batches
from data.cohorts.folds import seal_reduced_set
from data.cohorts.stored import copy_side_tables, open_cohort, write_cohort_tables
from utils.runs import record
from utils.runs.record import People
from utils.runs.run import Run
from utils.training.network import outputs_of, restored_network


def encode(run: Run) -> int:
    """Writes the reduced cohort `run.out_dir`, which must not exist and appears only when it is complete."""
    network, source = restored_network(run), run
    encoder = keras.Model(network.input, network.output["code"])
    run = dataclasses.replace(run, cohort=flatten_cohort(run.cohort))
    with files.unfinished(run.out_dir) as folder:
        folder.mkdir(parents=True)
        digest, trained = run.checkpoints.digest(), run.checkpoints.record().people or People()
        metadata = dataclasses.replace(
            run.cohort.metadata,
            grid=records.REDUCED.shape,
            affine=tuple(map(tuple, records.REDUCED.affine)),
            reduction=f"encoder {digest}",
            encoder_sha256=digest,
            encoder_subjects=trained.subjects,
            encoder_volumes=trained.scans,
            provenance=run.record().flat | {"source": run.cohort.metadata.provenance},
        )
        digests = write_records(run, encoder, folder)
        copy_side_tables(run.cohort, folder)
        write_cohort_tables(folder, run.cohort.rows, metadata, digests)
        open_cohort(folder)  # nothing is called done that cannot be read
        made = dataclasses.replace(source, out_dir=folder).record(finished=True, records=len(run.cohort.rows))
        record.write(folder / record.RECORD, made)
    run.add_to_ledger(None)
    run.announce()
    return 0


def pool(whole: Run, runs: Sequence[Run]) -> None:
    """Joins the folds' cohorts into one sealed set, which can be given as `--dataDir` with the same `--folds`."""
    assert whole.folds
    whole.folds.write(whole.out_dir)
    seal_reduced_set(whole.out_dir)
    whole.finish()


def write_records(run: Run, encoder: keras.Model, folder: Path) -> dict[str, records.Digests]:
    """Writes one reduced record per record: the 120 bytes of label and phenotype unchanged, each map encoded. Returns
    their digests by file."""
    digests = {}
    selections = split_into_batches(np.arange(len(run.cohort.rows)), run.config.batch_size)
    for selection, _, codes in outputs_of(run, encoder, selections, "Encoding"):
        of_records = codes.reshape(len(selection), run.cohort.num_maps, *records.REDUCED.shape)
        for index, of_map in zip(selection, of_records, strict=True):
            volumes = b"".join(records.z_score_volume(code).tobytes() for code in of_map)
            content, file = run.cohort.make_record_bytes(index, volumes), run.cohort.rows[index].file
            (folder / file).write_bytes(content)
            digests[file] = run.cohort.digests[index].encoded(content)
    return digests
