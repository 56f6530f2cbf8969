"""The jobs of run.py in one table: which module does each, what it needs, what it guards against, what it writes.

A job is a function of its own name in its module: a Run in, the exit status out; `pool` beside it makes the results of
a run on folds from those of its parts, `assist` is what workers other than the first do. It is named here, like its
guards, and imported only once everything is validated, so that a mistake on the command line costs no import of
TensorFlow.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

FULL_PASS = "encode"  # the job without a flag of its own
IN_RESULTS = "results/{model}-{job}"


@dataclass(frozen=True)
class Job:
    """`needs` is the property of a model without which the answer is `refusal`; `guards` are of `utils.runs.guards`.

    `options` are those that not every job takes; `out_dir` is where results go by default; `outputs` are patterns of
    what it writes there, which is all that a later run in the same folder may move aside. A job that `is_shared` is
    done by all workers, if there are several, any other by the first; one that `takes_several_gpus` by all free ones.
    """

    name: str
    help: str
    module: str
    needs_checkpoint: bool
    needs: str | None
    refusal: str
    guards: tuple[str, ...]
    options: tuple[str, ...]
    outputs: tuple[str, ...]
    out_dir: str = IN_RESULTS
    is_shared: bool = True
    takes_several_gpus: bool = False

    @property
    def flag(self) -> str:
        return "the full pass" if self.name == FULL_PASS else f"--{self.name}"

    @property
    def function(self) -> Callable:
        return getattr(importlib.import_module(self.module), self.name)

    @property
    def assist(self) -> Callable:
        """What the other workers do of a job that is shared: Run -> exit status."""
        return importlib.import_module(self.module).assist

    @property
    def pool(self) -> Callable:
        """What makes the results of all folds from theirs: Run -> None."""
        return importlib.import_module(self.module).pool


TESTED = ("same_settings", "no_leak", "no_leak_by_another_name", "same_preparation", "free_output")

JOBS = {
    job.name: job
    for job in (
        Job(
            "train", "train on the training subjects", "utils.training.train",
            needs_checkpoint=False, needs=None, refusal="",
            guards=("same_settings", "same_training", "no_leak", "writable_checkpoints", "two_classes",
                    "enough_to_validate", "free_output"),
            options=("numIters", "overrideChkpt", "validation", "shuffleLabels"),
            outputs=("history.csv", "history.png", "events.out.tfevents.*"), takes_several_gpus=True,
        ),
        Job(
            "test", "measure on the test subjects", "utils.evaluation.test",
            needs_checkpoint=True, needs=None, refusal="", guards=TESTED, options=(),
            outputs=("predictions.csv", "floor_predictions.csv", "training.csv", "metrics.json", "floors.csv",
                     "sites.csv", "confusion_matrix.png", "roc.png", "report.html", "*Image.png"), is_shared=False,
        ),
        Job(
            "blackout", "occlude atlas regions one at a time", "utils.blackout.job",
            needs_checkpoint=True, needs="occludable",
            refusal="{model} cannot be blacked out, since that takes a volume in and a label out; use --model {able}.",
            guards=(*TESTED, "known_subjects", "known_maps", "enough_donors", "usable_atlas", "distinct_names"),
            options=("subjects", "maps", "atlas", "donors", "verify"),
            outputs=("regions.csv", "blackout.h5", "blackout.png", "blackout.html", "maps", "group_*.nii.gz"),
        ),
        Job(
            FULL_PASS, "reduce the whole cohort", "utils.encode",
            needs_checkpoint=True, needs="reduces",
            refusal="A full pass reduces a cohort, and only {able} does that, not {model}; did you mean: "
            "run.py --train --model {model}?",
            guards=("same_settings", "same_preparation", "code_fits", "distinct_names", "new_output"),
            options=(), outputs=(), out_dir="{data}_reduced",
        ),
    )
}  # fmt: skip
