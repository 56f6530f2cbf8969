"""A checkpoint of everybody, its cohort and its score -> the parts of a bundle, the model card among them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from data import __version__
from data.base import files
from data.base.archive import make_npz
from data.base.effort import EFFORT
from data.base.errors import InputError
from data.base.listing import join_names
from data.base.tables import make_printable
from data.base.thresholds import MIN_DESCRIBED_PEOPLE
from data.cohorts.cohort import Cohort
from data.cohorts.covariates import load_all_covariates
from data.cohorts.derivation import DERIVE_PROGRAM
from data.cohorts.problems import Problem
from data.cohorts.rows import RecordRow
from data.conversion import template
from data.images.atlas import compute_aal_sha256
from data.likeness.reference import compute_quantiles, make_reference
from data.tables.vocabulary import CLASS_NAMES, SITE_UNKNOWN_SENTENCE
from models import MODELS
from utils.bundle.model import CARD_FILE, MODEL_FILE, WEIGHTS_FILE
from utils.report.build import INTENDED_USE_TEXT
from utils.report.cross_validation import read_cross_validation
from utils.runs import guards
from utils.runs.checkpoints import CheckpointFolder
from utils.runs.cross_validation import MIN_PEOPLE_PER_GROUP, CrossValidation
from utils.runs.record import Caveats, Manifest, TrainingPeople, Versions
from utils.runs.statements import BundleStatement
from utils.scores.features import make_covariate_table
from utils.scores.results import format_people_count

CARD_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701  Markdown, of plain text
    finalize=lambda template_value: make_printable(template_value) if type(template_value) is str else template_value,
)
MIDDLE_QUANTILES = (0.05, 0.95)  # the quantiles between which most people lie, none of them one person's value


def load_everybody_checkpoint(checkpoint_folder: CheckpointFolder) -> tuple[Manifest, Cohort]:
    """The record of a checkpoint, and the cohort that trained it. Raises InputError unless it is a classifier of
    everybody that new people can be prepared for, and its cohort exists unchanged."""
    if not checkpoint_folder.has_checkpoint or not checkpoint_folder.read_latest_manifest().everybody:
        raise InputError(
            f"{checkpoint_folder.path} is no checkpoint of everybody; expected such as CKPT/mmnn/everybody. Make one: "
            "run.py --train --everybody."
        )
    checkpoint_folder.print_if_training()
    checkpoint_manifest = checkpoint_folder.read_latest_manifest()
    if MODELS[checkpoint_manifest.model_name].predicted != "label":
        raise InputError(
            f"{checkpoint_folder.path} is of {checkpoint_manifest.model_name}, which predicts no label; bundle a "
            "classifier."
        )
    if (cohort := checkpoint_folder.find_training_cohort()) is None:
        raise InputError(
            f"{checkpoint_manifest.cohort}, on which {checkpoint_folder.path} was trained, is gone or was changed; a "
            "bundle takes from it how participants were prepared and what they were like. Copy it back."
        )
    metadata = cohort.metadata
    is_preparation_known = bool((metadata.maps or not cohort.num_maps) and metadata.phenotype_median)
    if not is_preparation_known or metadata.reduction.startswith("encoder"):
        raise InputError(
            f"{cohort.path} does not say how its participants were prepared from maps, or holds volumes of an "
            "encoder; train on a cohort of abide-data convert."
        )
    if rare_value_names := find_rare_value_names(cohort):
        print(
            f"Few participants have {join_names(rare_value_names)}, so that the name, the median and the scale, which "
            "a bundle holds, nearly tell their values; to keep these, train on a cohort without: convert --phenotype."
        )
    return checkpoint_manifest, cohort


def find_rare_value_names(cohort: Cohort) -> list[str]:
    """The values of the phenotype that are known for too few people to be described, and categories of fewer than
    `MIN_DESCRIBED_PEOPLE`."""
    raw_phenotype = cohort.unscaled_phenotype
    if raw_phenotype is None:
        return []
    column_categories_pairs = cohort.metadata.phenotype_categories.items()
    category_people_counts = raw_phenotype[
        [
            f"{column}_{category}"
            for column, column_categories in column_categories_pairs
            for category in column_categories
        ]
    ].sum()
    measured_people_counts = raw_phenotype.drop(columns=category_people_counts.index).notna().sum()
    return [
        *measured_people_counts.index[measured_people_counts.between(1, EFFORT.describe_from - 1)],
        *category_people_counts.index[category_people_counts.between(1, MIN_DESCRIBED_PEOPLE - 1)],
    ]


def load_cross_validation(checkpoint_manifest: Manifest, score_folder: Path | None) -> CrossValidation | None:
    """The test on folds that goes with a checkpoint: that in a folder, or its own. Raises InputError for that of
    another one."""
    cross_validation = (
        read_cross_validation(score_folder, checkpoint_manifest.model_name)
        if score_folder
        else checkpoint_manifest.cross_validation
    )
    if cross_validation:
        assert checkpoint_manifest.settings
        guards.check_cross_validation(
            cross_validation,
            checkpoint_manifest.cohort,
            checkpoint_manifest.cohort_sha256,
            checkpoint_manifest.settings,
            checkpoint_manifest.step,
        )
    return cross_validation


def make_bundle_files(
    checkpoint_folder: CheckpointFolder, checkpoint_manifest: Manifest, cohort: Cohort, licence: str
) -> dict[str, bytes]:
    """The parts of a bundle by name. TensorFlow must have been started. Raises InputError for damaged weights."""
    bundle_manifest = remove_people_from_manifest(checkpoint_manifest, cohort)
    text_by_file = {
        MODEL_FILE: files.format_json(asdict(bundle_manifest)),
        CARD_FILE: render_model_card(bundle_manifest, cohort, licence),
    }
    bytes_by_file = {file_name: file_text.encode() for file_name, file_text in text_by_file.items()}
    return (
        bytes_by_file
        | make_weights_file(checkpoint_folder, checkpoint_manifest, cohort)
        | template.make_bundle_template_files(cohort)
        | make_likeness_files(cohort)
    )


def remove_people_from_manifest(checkpoint_manifest: Manifest, cohort: Cohort) -> Manifest:
    """The record of a checkpoint without anything of single people or of where it was made: no ID, scan, path, and no
    text but the program's own."""
    cross_validation = checkpoint_manifest.cross_validation
    training_subject_count_by_label = Counter(
        {record_row.subject: record_row.label for record_row in cohort.rows if record_row.split == "train"}.values()
    )
    heading_by_code = {
        problem.code: finding_heading
        for finding_heading, heading_findings in cohort.take_census().findings_by_heading.items()
        for problem in heading_findings.problems
    }
    if cohort.check_verdict:
        for problem, finding_heading in zip(cohort.check_verdict.problems, cohort.check_verdict.about, strict=False):
            heading_by_code[problem.code] = finding_heading
    caveats = Caveats(
        simulated=cohort.is_simulated,
        problems=tuple(
            Problem(
                problem.kind,
                f"one about {heading_by_code.get(problem.code, 'records')}, which abide-data check names where the "
                "cohort is",
            )
            for problem in cohort.find_problems()
        ),
        accepted_leaks=cohort.metadata.accepted_leaks,
        transductive=checkpoint_manifest.caveats.transductive,
        unknown_site=cohort.is_site_unknown,
    )
    return Manifest(
        job=checkpoint_manifest.job,
        settings=checkpoint_manifest.settings,
        everybody=True,
        step=checkpoint_manifest.step,
        cohort_sha256=checkpoint_manifest.cohort_sha256,
        maps=checkpoint_manifest.maps,
        num_maps=checkpoint_manifest.num_maps,
        preparation=checkpoint_manifest.preparation,
        shares=checkpoint_manifest.shares,
        cross_validation=replace(cross_validation, folder="") if cross_validation else None,
        caveats=caveats,
        people=TrainingPeople(scans_sha256=cohort.compute_scans_sha256()),
        versions=Versions(
            git_commit=checkpoint_manifest.versions.git_commit, packages=checkpoint_manifest.versions.packages
        ),
        bundle=BundleStatement(
            autism=training_subject_count_by_label[1.0],
            control=training_subject_count_by_label[0.0],
            aal_sha256=compute_aal_sha256(),
        ),
    )


def make_weights_file(
    checkpoint_folder: CheckpointFolder, checkpoint_manifest: Manifest, cohort: Cohort
) -> dict[str, bytes]:
    """The weights of the network."""
    model = MODELS[checkpoint_manifest.model_name]
    assert checkpoint_manifest.settings
    network = model.build_network(model.parse_settings(checkpoint_manifest.settings.config), cohort)
    checkpoint_folder.restore_latest_weights(network)
    network_weights = network.get_weights()
    if not all(np.isfinite(weight_array).all() for weight_array in network_weights):
        raise InputError(
            f"{checkpoint_folder.path} has weights that are not finite: its training diverged. Train again."
        )
    return {
        WEIGHTS_FILE: make_npz(
            **{f"{weight_index:04}": weight_array for weight_index, weight_array in enumerate(network_weights)}
        )
    }


def make_likeness_files(cohort: Cohort) -> dict[str, bytes]:
    """What the training people are like; nothing if they are too few, which is printed."""
    try:
        return make_reference(cohort, cohort.find_split_record_indices("train")).bytes_by_file
    except InputError as error:
        print(f"Nobody can be told to be out of distribution: {error}")
        return {}


def render_model_card(bundle_manifest: Manifest, cohort: Cohort, licence: str) -> str:
    """The model card as Markdown: what the model is for, whom it was trained on, how good it is (Mitchell et al. 2019,
    doi:10.1145/3287560.3287596)."""
    training_rows = [record_row for record_row in cohort.rows if record_row.split == "train"]
    return CARD_TEMPLATES.get_template("card.jinja").render(
        model=bundle_manifest,
        made=f"{time.strftime('%Y-%m-%d')} by {DERIVE_PROGRAM} {__version__}",
        licence=licence,
        people=bundle_manifest.bundle,
        cohort=cohort,
        SITE_IS_UNKNOWN=SITE_UNKNOWN_SENTENCE,
        use=INTENDED_USE_TEXT,
        sites=make_sites_table(training_rows),
        variables=make_covariate_summary_table(cohort, training_rows),
        fewest=MIN_PEOPLE_PER_GROUP,
    )


def make_sites_table(training_rows: Sequence[RecordRow]) -> list[dict[str, str]]:
    """People by site and class; sites of fewer than `MIN_DESCRIBED_PEOPLE` people are counted together."""
    people_table = pd.DataFrame(
        [
            {"subject": record_row.subject, "site": record_row.site, "label": record_row.label}
            for record_row in training_rows
        ]
    )
    people_table = people_table.drop_duplicates("subject")
    is_small_site = people_table.groupby("site")["site"].transform("size") < MIN_DESCRIBED_PEOPLE
    small_site_count = people_table["site"][is_small_site].nunique()
    small_sites_text = f"sites of fewer than {MIN_DESCRIBED_PEOPLE}: {small_site_count}"
    people_table["site"] = people_table["site"].where(~is_small_site, small_sites_text)
    people_count_table = pd.crosstab(people_table["site"], people_table["label"])
    site_rows = []
    for site, count_by_label in people_count_table.iterrows():
        site_row = {"site": site or "unknown"}
        for class_label, class_name in enumerate(CLASS_NAMES):
            site_row[class_name] = format_people_count(count_by_label.get(class_label, 0))
        site_rows.append(site_row)
    return site_rows


def make_covariate_summary_table(cohort: Cohort, training_rows: Sequence[RecordRow]) -> list[dict[str, str]]:
    """Age, sex, head motion and other covariates of the people: mean, SD and where most of them lie, or shares of
    categories. What is known for fewer than `MIN_DESCRIBED_PEOPLE` people is left out."""
    site_by_subject = {record_row.subject: record_row.site for record_row in training_rows}
    covariate_table = make_covariate_table([*site_by_subject], [*site_by_subject.values()], load_all_covariates(cohort))
    covariate_summary_rows = []
    for covariate_name, covariate_values in covariate_table.drop(columns="site", errors="ignore").items():
        measured_values = covariate_values.dropna()
        if pd.api.types.is_numeric_dtype(covariate_values) and measured_values.nunique() > 2:
            lower_quantile, upper_quantile = compute_quantiles(
                measured_values.to_numpy(float), MIDDLE_QUANTILES
            ).tolist()
            covariate_summary = (
                f"mean {measured_values.mean():.3g}, SD {measured_values.std():.3g}, 90 % between {lower_quantile:.3g} "
                f"and {upper_quantile:.3g}"
            )
        else:
            category_counts = measured_values.map(
                lambda category: f"{category:g}" if isinstance(category, float) else str(category)
            ).value_counts()
            covariate_summary = ", ".join(
                f"{category} {category_count}"
                for category, category_count in category_counts.items()
                if category_count >= MIN_DESCRIBED_PEOPLE
            )
        if len(measured_values) >= MIN_DESCRIBED_PEOPLE and covariate_summary:
            covariate_summary_rows.append(
                {
                    "name": str(covariate_name),
                    "summary": covariate_summary,
                    "unknown": format_people_count(covariate_values.isna().sum()),
                }
            )
    return covariate_summary_rows
