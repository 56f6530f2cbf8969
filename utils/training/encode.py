"""The full pass of `cae`: a cohort on the full grid -> the same cohort on the reduced grid; only the volumes change."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from data.base import files
from data.cohorts import records
from data.cohorts.cohort import flatten_record_files, split_into_batches
from data.cohorts.folds import seal_reduced_set
from data.cohorts.stored import copy_side_tables, open_cohort, write_cohort_tables
from data.images import brain, grids
from utils.runs import record
from utils.runs.inference import restore_network, run_network
from utils.runs.record import TrainingPeople
from utils.runs.run import Run
from utils.runs.statements import EncodeStatement


def encode_cohort(run: Run) -> int:
    """Writes the reduced cohort `run.out_dir`, which must not exist and appears only when it is complete."""
    network = restore_network(run.trained_network, run.cohort)
    encoder = keras.Model(network.input, network.output["code"])
    flat_cohort = flatten_record_files(run.cohort)
    flat_run = dataclasses.replace(run, cohort=flat_cohort)
    with files.make_unfinished_path(run.out_dir) as unfinished_folder:
        unfinished_folder.mkdir(parents=True)
        encoder_sha256 = run.checkpoints.compute_latest_sha256()
        encoder_people = run.checkpoints.read_latest_manifest().people or TrainingPeople()
        reduced_metadata = dataclasses.replace(
            flat_cohort.metadata,
            grid=grids.REDUCED.shape,
            affine=tuple(map(tuple, grids.REDUCED.affine)),
            reduction=f"encoder {encoder_sha256}",
            encoder_sha256=encoder_sha256,
            encoder_subjects=encoder_people.subjects,
            encoder_volumes=encoder_people.scans,
            provenance=flat_run.make_manifest().flat_fields | {"source": flat_cohort.metadata.provenance},
        )
        digests_by_file = write_encoded_records(flat_run, encoder, unfinished_folder)
        copy_side_tables(flat_cohort, unfinished_folder)
        write_cohort_tables(unfinished_folder, flat_cohort.rows, reduced_metadata, digests_by_file)
        open_cohort(unfinished_folder)  # nothing is called done that cannot be read
        manifest = dataclasses.replace(run, out_dir=unfinished_folder).make_manifest(is_finished=True)
        statement = EncodeStatement(records=len(flat_cohort.rows))
        record.write_manifest(
            unfinished_folder / record.MANIFEST_FILE, dataclasses.replace(manifest, encoding=statement)
        )
    flat_run.add_to_ledger(None)
    flat_run.print_results_location()
    return 0


def pool_reduced_cohorts(pooled_run: Run, fold_runs: Sequence[Run]) -> None:
    """Joins the folds' cohorts into one sealed set, which can be given as `--dataDir` with the same `--folds`."""
    assert pooled_run.folds
    pooled_run.folds.write_folds(pooled_run.out_dir)
    seal_reduced_set(pooled_run.out_dir)
    pooled_run.finish_run()


def write_encoded_records(run: Run, encoder: keras.Model, output_folder: Path) -> dict[str, records.Digests]:
    """Writes one reduced record per record: the 120 bytes of label and phenotype unchanged, each map encoded. Returns
    their digests by file."""
    digests_by_file = {}
    index_batches = split_into_batches(np.arange(len(run.cohort.rows)), run.config.batch_size)
    for batch_indices, _, batch_codes in run_network(
        run.trained_network, run.cohort, encoder, index_batches, "Encoding"
    ):
        record_codes = batch_codes.reshape(len(batch_indices), run.cohort.num_maps, *grids.REDUCED.shape)
        for record_index, map_codes in zip(batch_indices, record_codes, strict=True):
            volume_bytes = b"".join(brain.z_score_volume(map_code).tobytes() for map_code in map_codes)
            record_bytes = run.cohort.make_record_bytes(record_index, volume_bytes)
            file_name = run.cohort.rows[record_index].file
            (output_folder / file_name).write_bytes(record_bytes)
            digests_by_file[file_name] = run.cohort.digests[record_index].make_encoded_digests(record_bytes)
    return digests_by_file
