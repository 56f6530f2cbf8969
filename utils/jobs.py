"""The jobs of run.py in one table. A new job is a module with a function of its name, and a row here."""

from utils.blackout import options as blackout
from utils.evaluation.options import TestOptions
from utils.runs import guards
from utils.runs.run import Job
from utils.runs.validate import TrainOptions
from utils.scores.results import OUTPUTS

TESTED = (guards.no_leak_by_encoder, guards.free_output)
COMPARED = (guards.same_settings, guards.no_leak, guards.same_preparation, guards.no_near_copy)
TRAIN = Job(
    name="train",
    help="train on the training subjects",
    module="utils.training.train",
    guards=(guards.no_leak_by_encoder, guards.writable_checkpoints, guards.two_classes, guards.free_output),
    comparisons=(guards.same_settings, guards.same_training, guards.no_leak),
    outputs=("history.csv", "events.out.tfevents.*"),
    figures=("history",),
    options=TrainOptions,
    needs_checkpoint=False,
    takes_several_devices=True,
)
TEST = Job(
    name="test",
    help="measure on the test subjects",
    module="utils.evaluation.test",
    guards=TESTED,
    comparisons=COMPARED,
    outputs=OUTPUTS,
    figures=("confusion_matrix", "roc", "forest", "calibration", "losses", "distribution", "*Image"),
    options=TestOptions,
)
BLACKOUT = Job(
    name="blackout",
    help="replace regions, connections and values one at a time",
    module="utils.blackout.job",
    guards=(*TESTED, blackout.possible_blackout, guards.distinct_names),
    comparisons=COMPARED,
    outputs=(
        *("regions.csv", "regions_by_map.csv", "connections.csv", "values.csv", "replication.csv", "blackout.h5"),
        *("blackout.html", "maps", "group_*.nii.gz"),
    ),
    figures=("blackout", "regions_by_map"),
    options=blackout.BlackoutOptions,
    takes_candidates=False,
    needs="classifies",
    refusal="{model} cannot be blacked out, since it predicts no label; use --model {able}.",
)
FULL_PASS = Job(
    name="encode",
    help="reduce the whole cohort",
    module="utils.training.encode",
    guards=(guards.code_fits, guards.distinct_names, guards.new_output),
    comparisons=(guards.same_settings, guards.same_preparation),
    outputs=(
        *("*.bin", "cohort.json", "subjects.csv", "SHA256SUMS", "covariates.csv", "phenotype.csv"),
        *("maps.csv", "folds.csv", "folds.json"),
    ),
    needs="reduces",
    refusal="A full pass reduces a cohort, and only {able} does that, not {model}; did you mean: "
    "run.py --train --model {model}?",
    has_flag=False,
    is_repeated=False,
    out_dir="{data}_reduced",
)
JOBS = {"train": TRAIN, "test": TEST, "blackout": BLACKOUT, "encode": FULL_PASS}
