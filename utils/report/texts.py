"""The report's sentences, from the saved tables: warnings, the methods paragraph, the command."""

import shlex
from collections.abc import Iterable

from data.cohorts.records import PHENOTYPE_SIZE
from data.grids import GRIDS
from models import MODELS
from utils.evaluation.floors import RULE
from utils.metrics import RESAMPLES
from utils.report.curves import BINS
from utils.report.tables import Count, Described, Tables
from utils.statistics import CHANCE, INTERVAL, THRESHOLD

FEW = 100  # test subjects
PUBLISHED = 0.70  # accuracy of the best honest results on ABIDE
SUSPICIOUS = 0.80  # accuracy that is far above it, however wide its interval
NAMED = ("batch_size", "optimizer", "learning_rate", "decay")  # hyper-parameters that have a place in a sentence
INTENDED = (
    "For research on groups of people. Not a diagnosis: no probability here says anything reliable about one person, "
    "and nothing here has been tested for clinical use."
)


def warnings(tables: Tables) -> list[str]:
    """What a reader must know before any figure: the run's own warnings, and what the tables give away."""
    run, subjects = tables.run, tables.labelled["subject"].nunique()
    found = []
    if run.simulated:
        found.append("SIMULATED cohort: its people were made by a program, and nothing here is about people.")
    if run.shuffled_labels:
        found.append("SHUFFLED LABELS: the training labels were permuted. A score that differs from chance is a leak.")
    if run.transductive:
        found.append(
            "TRANSDUCTIVE: each site's volumes were standardised by its own people, tested ones too (without labels), "
            "so the score is that of people who come with others of their site."
        )
    if tables.scores:
        _, low, high = tables.scores["auc"].numbers
        accuracy, at_least, _ = tables.scores["accuracy"].numbers
        if subjects < FEW:
            found.append(f"Only {subjects} test subject{'s' * (subjects != 1)}: another sample may score otherwise.")
        if low <= CHANCE <= high:
            ends = f"{low:.3f} to {high:.3f}"
            found.append(f"The {INTERVAL:.0%} interval of the AUC, {ends}, holds {CHANCE}: this may be guessing.")
        if not run.simulated and (accuracy > SUSPICIOUS or at_least > PUBLISHED):
            found.append(
                f"An accuracy of {accuracy:.2f} is far above the {PUBLISHED:.2f} that honest tests on ABIDE reach. "
                "Look for a leak before you believe it."
            )
    return list(dict.fromkeys(found + run.warnings))


def quoted(command: list[str]) -> str:
    """A command as it can be typed into bash, on one line, whatever its arguments hold."""
    return " ".join(shlex.quote(text) if text.isprintable() else escaped(text) for text in command)


def escaped(text: str) -> str:
    r"""bash's `$'...'`, in which `\x0a` stands for a byte."""
    plain = (letter.isprintable() and letter not in "\\'" for letter in text)
    codes = ("".join(f"\\x{byte:02x}" for byte in letter.encode()) for letter in text)
    return "$'" + "".join(letter if keep else code for letter, keep, code in zip(text, plain, codes, strict=True)) + "'"


def methods(tables: Tables) -> str:
    """A paragraph for a paper; it claims what the tables hold and no more."""
    run = tables.run
    parts = (people(tables), network(run), training(run), statistics(tables), software(run))
    return " ".join(sentence for part in parts for sentence in part)


def counted(rows: Iterable[Count]) -> str:
    """`12 subjects of 2 sites (5 with autism, 7 controls)`."""
    rows = list(rows)
    autism, control, unknown = (sum(getattr(row, name) for row in rows) for name in ("autism", "control", "unknown"))
    sites = len({row.site for row in rows})
    total = autism + control + unknown
    named = {"with autism": autism, f"control{'s' * (control != 1)}": control, "of unknown diagnosis": unknown}
    parts = [f"{count} {name}" for name, count in named.items() if count]
    return f"{total} subject{'s' * (total != 1)} of {sites} site{'s' * (sites != 1)} ({', '.join(parts)})"


def people(tables: Tables) -> list[str]:
    """Who was tested, and on whom the model was trained."""
    run, kind = tables.run, "simulated " * tables.run.simulated
    if tables.pooled:
        folds, named = tables.predictions["fold"].nunique(), run.folds or ""
        one_out = "" if not named or named.isdecimal() else f", leaving one {named} out at a time"
        return [
            f"The {kind}cohort held {counted(run.subjects)}.",
            f"It was cross-validated in {folds} folds{one_out}; every subject was tested once, in one fold.",
        ]
    tested = [row for row in run.subjects if row.split == "test"]
    trained = [row for row in run.subjects if row.split == "train"]
    sentences = [f"The model was trained on {kind}data of {counted(trained)}."] if trained else []
    return [*sentences, f"The model was tested on {kind}data of {counted(tested)}."]


def network(run: Described) -> list[str]:
    """What the model was and read."""
    inputs = []
    if run.grid in GRIDS:
        grid = GRIDS[run.grid]
        maps = f" ({', '.join(run.maps)})" * bool(run.maps)
        inputs.append(f"brain volumes of {grid} voxels of {grid.spacing_mm:g} mm in MNI152 space{maps}")
    if "phenotype" in MODELS[run.model].reads:
        inputs.append(f"{PHENOTYPE_SIZE} phenotype values a subject")
    read = f"read {' and '.join(inputs)}" if inputs else "was a classifier"
    return [
        f"The model {run.model} (preset {run.preset}) {read}.",
        f"How the data had been prepared was recorded with the cohort (SHA-256 {run.cohort_sha256}).",
    ]


def training(run: Described) -> list[str]:
    """How the model was trained."""
    config = run.config
    sentence = f"The model was trained for {run.num_iters or 'an unrecorded number of'} batches"
    if config.keys() >= set(NAMED):
        sentence += (
            f" of {config['batch_size']} records with {config['optimizer']} "
            f"(learning rate {config['learning_rate']:g}, decay {config['decay']:g})"
        )
    others = [f"{name} {spelled(value)}" for name, value in config.items() if name not in NAMED]
    sentences = [f"{sentence}, with seed {run.seed} and precision {run.precision}."]
    if others:
        sentences.append(f"The other hyper-parameters were {', '.join(others)}.")
    if run.validation:
        sentences.append(
            f"Of the training subjects {run.validation:.0%} were set aside for validation, and the checkpoint that did "
            "best on them was tested."
        )
    if run.transductive:
        sentences.append(
            "The volumes of each site were standardised by all its people, tested ones too, without labels."
        )
    if run.shuffled_labels:
        sentences.append("As a control, the labels of the training subjects were permuted at random before training.")
    return sentences


def spelled(value: object) -> str:
    """A hyper-parameter as `--set` takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def statistics(tables: Tables) -> list[str]:
    """How scores and intervals were computed."""
    if not tables.scores:
        return ["No diagnosis was known, so that no score was computed."]
    strata = ", stratified by fold" * tables.pooled
    sentences = [
        f"A predicted probability of {THRESHOLD:g} or more counted as autism.",
        f"Intervals were {INTERVAL:.0%} percentile intervals of a bootstrap over subjects "
        f"({RESAMPLES:,} resamples{strata}).",
    ]
    if "calibration_error" in tables.scores:
        sentences.append(f"The calibration error was computed over {BINS} bins of equal width.")
    for name, group in (("auc_sites", "sites"), ("auc_folds", "folds")):
        if name in tables.scores:
            sentences.append(f"The AUC was computed over all subjects, and within {group} and averaged.")
    if tables.floors is not None:
        names = [name for name in tables.floors["floor"] if name not in ("model", RULE)]
        if names:
            sentences.append(f"On the same subjects the model was compared with {'; '.join(names)}.")
    return sentences


def software(run: Described) -> list[str]:
    """What the numbers were computed with."""
    versions = ", ".join(f"{name} {version}" for name, version in run.packages.items())
    commit = f", commit {run.git_commit}" if run.git_commit else ""
    return [f"The computations were done with autism-blackout{commit}{f' ({versions})' * bool(versions)}."]
