"""abide-data: everything that is done to cohorts before a model sees them."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.base.cli import (
    Parser,
    add_options,
    format_flag,
    make_options,
    parse_positive_int,
    parse_seed_option,
    run_guarded,
)
from data.base.errors import InputError
from data.base.files import check_target_is_new
from data.base.terminal import SummaryRow, format_participants, merge_summary_rows, print_summary, run_program
from data.conversion.options import ConversionOptions, SourceOptions
from data.derivation.options import DerivationOptions
from data.export_options import ExportOptions

if TYPE_CHECKING:
    from data.cohorts.cohort import Cohort
    from data.conversion.plan import PlannedCohort

OPTION_NAMES_SET_BY_TEMPLATE = (
    *("maps", "parcels", "grid", "phenotype", "covariates"),
    *("seed", "keepSplit", "keepDuplicates", "allowLeak"),
)  # options of convert
# by verb: arguments, by what they do
EXAMPLES_BY_VERB = {
    "derive": {
        "four maps and the series of an atlas, of what fMRIPrep left": "fmriprep maps "
        "--maps falff,alff,reho,degree_weighted --series atlas.nii.gz --jobs 4",
        "who that would be; nothing is written": "fmriprep maps --dryRun",
        "new participants, as those of a cohort": "new_fmriprep new_maps --like cohort",
    },
    "convert": {
        "maps and connectomes for mmnn": "maps cohort --grid reduced --maps all --connectome seg-atlas "
        "--labelColumn group --positive ASD",
        "who that would be; nothing is written": "maps cohort --grid reduced --dryRun",
        "children of two sites of ABIDE": "abide cohort --where \"AGE_AT_SCAN < 18 and SITE_ID in ('NYU', 'USM')\"",
    },
    "check": {
        "what is wrong with a cohort": "cohort",
        "maps before they are converted, as a page": "maps --html check.html",
    },
    "swap": {
        "ten more records for each training record": "cohort larger",
        "fewer, with more regions swapped": "cohort larger --copies 3 --regions 20",
    },
    "pack": {
        "chunks that can be sent": "cohort packed --zip",
        "a file a record again": "packed cohort --bin",
        "with the values of edited tables": "cohort corrected --tables edited",
    },
    "export": {
        "arrays and tables for a model of one's own, in the folds of run.py": "cohort arrays --folds 10",
        "the same with permuted labels, in which there is nothing to find": "cohort control --folds 10 --control 1",
    },
    "volume": {
        "the volume of a participant": "cohort 51572 51572.nii.gz",
        "one of several maps": "cohort 51572 51572_reho.nii.gz --map reho",
    },
}


def convert(args: argparse.Namespace) -> int:
    conversion_options = make_options(args, ConversionOptions)
    source_options = make_options(args, SourceOptions)
    if args.like:
        for option_name in OPTION_NAMES_SET_BY_TEMPLATE:
            if getattr(args, option_name) not in (None, False):
                raise InputError(f"--{option_name} does not go with --like: all is as in {args.like}. Leave it out.")
    check_target_is_new(args.cohort)
    from data import check as checks
    from data.cohorts.stored import open_cohort
    from data.conversion import convert as conversion
    from data.conversion.joining import read_source
    from data.conversion.template import TemplateCohort

    template = None
    likeness_maker = None
    if args.like:
        template = TemplateCohort.from_path(args.like)
        from data.likeness.reference import make_likeness_files_or_reason

        likeness_maker = partial(make_likeness_files_or_reason, template)
    source = read_source(args.source, source_options, template)
    print_summary(merge_summary_rows(source.summary_rows))
    command_line = shlex.join(["abide-data", *sys.argv[1:]])
    target_folder = None if conversion_options.dry_run else args.cohort
    planned_cohort, summary_rows = conversion.convert_cohort(
        source, target_folder, conversion_options, command_line, template, likeness_maker
    )
    print_summary(merge_summary_rows([*describe_columns(planned_cohort), *summary_rows]))
    if conversion_options.dry_run:
        from data.conversion.preview import preview_conversion

        print_summary(preview_conversion(source, planned_cohort, args.cohort))
        return 0

    findings = checks.check_and_store_verdict(open_cohort(args.cohort))
    people_count = len(planned_cohort.subject_rows)
    size_text = f"{people_count} records" if planned_cohort.metadata.maps else format_participants(people_count)
    counts_text = "; ".join([size_text, *findings.participants.counts])
    print_summary(
        [
            ("cohort", f"{args.cohort}: {counts_text}"),
            *findings.make_problem_rows(args.cohort),
            ("checked", findings.conclusion),
        ]
    )
    return 1 if findings.problems else 0


def describe_columns(planned_cohort: "PlannedCohort") -> Iterator[SummaryRow]:
    """Summary rows: covariates, the categories of columns of text, the value that separates training labels best."""
    from data.base.listing import join_names
    from data.base.thresholds import MIN_CLASS_SUBJECTS
    from data.cohorts import covariates as cohort_covariates
    from data.tables.vocabulary import CLASS_NAMES

    metadata = planned_cohort.metadata
    covariates_text = cohort_covariates.describe_covariates(
        planned_cohort.covariate_table,
        planned_cohort.unscaled_phenotype,
        planned_cohort.subject_rows,
        metadata.covariates_named,
    )
    yield "covariates", covariates_text
    for column, categories in metadata.phenotype_categories.items():
        yield "phenotype", f"{column} is text and became {len(categories)} categories: {join_names(categories)}"

    if not metadata.phenotype_auc:
        return
    training_labels = [
        int(row.label) for row in planned_cohort.subject_rows if row.split == "train" and row.is_labelled
    ]
    subject_count_by_label = Counter(training_labels)
    rarest_label = min(range(len(CLASS_NAMES)), key=lambda label: subject_count_by_label[label])
    if subject_count_by_label[rarest_label] < MIN_CLASS_SUBJECTS:
        too_few_subjects_text = (
            f"{format_participants(subject_count_by_label[rarest_label], 'training')} of "
            f"{CLASS_NAMES[rarest_label]}; {MIN_CLASS_SUBJECTS} are needed"
        )
        yield "phenotype", f"whether a value separates the training labels is not known, since {too_few_subjects_text}"
    else:
        best_column, *_ = metadata.phenotype_auc
        best_auc = metadata.phenotype_auc[best_column]
        yield "phenotype", f"no value separates the training labels better than {best_column}, AUC {best_auc:.2f}"


def derive(args: argparse.Namespace) -> None:
    from data.base.listing import join_names
    from data.derivation import job

    derivation_options = make_options(args, DerivationOptions)
    derivation_plan = job.plan_derivation(args.bold, args.out, derivation_options)
    print_summary(merge_summary_rows(derivation_plan.plan_summary_rows))
    if derivation_options.dry_run:
        from data.derivation.preview import preview_derivation

        print_summary(preview_derivation(derivation_plan))
        return
    summary_rows, failed_subjects = job.run_derivation(derivation_plan)
    print_summary(summary_rows)
    if failed_subjects:
        raise InputError(
            f"{format_participants(len(failed_subjects))} failed, for the reasons above: "
            f"{join_names(failed_subjects)}. Do what these say, then repeat the command."
        )


def check(args: argparse.Namespace) -> int:
    from data import check as checks
    from data import check_page
    from data.cohorts.stored import open_cohort
    from data.images.pictures import PeoplePictures

    if args.html:
        check_page.check_page_path(args.html)
    is_map_folder = checks.has_unconverted_maps(args.cohort)
    source_options = make_options(args, SourceOptions)
    cohort_context: AbstractContextManager[Cohort]
    if is_map_folder:
        check_cohort = checks.check_map_folder
        cohort_context = checks.read_maps_as_cohort(args.cohort, source_options)
    else:
        for option_name, option_value in vars(source_options).items():
            if option_value is not None:
                raise InputError(
                    f"--{format_flag(option_name)} is about a folder of maps and their table; {args.cohort} is none. "
                    "Leave it out."
                )
        check_cohort = checks.check_and_store_verdict
        cohort_context = nullcontext(open_cohort(args.cohort))
    with cohort_context as cohort:
        pictures = PeoplePictures(cohort.map_names, len({row.subject for row in cohort.rows})) if args.html else None
        findings = check_cohort(cohort, pictures)
        print_summary(
            [*findings.make_count_rows(), *findings.make_problem_rows(args.cohort), ("checked", findings.conclusion)]
        )
        if pictures:
            check_page.write_check_page(args.html, cohort, findings, pictures)
    return 1 if findings.problems else 0


def swap(args: argparse.Namespace) -> None:
    from data.cohorts.stored import open_cohort
    from data.swap import swap_regions

    original_and_swapped_rows = swap_regions(open_cohort(args.cohort), args.out, args.regions, args.copies, args.seed)
    print(f"{len(original_and_swapped_rows)} records in {args.out}")


def pack(args: argparse.Namespace) -> int:
    from data.cohorts.stored import open_cohort
    from data.pack import is_unsealed, open_for_packing
    from data.pack import pack_cohort as write_packed_cohort

    cohort = open_for_packing(args.cohort, args.tables)
    storage_form, cell_change_texts = write_packed_cohort(cohort, args.out, args.form, args.tables)
    print_summary(
        [
            *(("changed", cell_change_text) for cell_change_text in cell_change_texts),
            ("packed", f"as {storage_form}: {args.out}"),
        ]
    )
    if not args.tables and not is_unsealed(cohort):
        return 0
    from data import check as checks  # which a mere copy can do without

    findings = checks.check_and_store_verdict(open_cohort(args.out))
    findings.forecast_sentences = []
    print_summary([*findings.make_problem_rows(args.out), ("checked", findings.conclusion)])
    return 1 if findings.problems else 0


def export(args: argparse.Namespace) -> None:
    from data.export import export_cohort

    print_summary(merge_summary_rows(export_cohort(args.cohort, args.out, make_options(args, ExportOptions))))


def volume(args: argparse.Namespace) -> None:
    from data.cohorts.stored import open_cohort
    from data.pack import write_volume

    write_volume(open_cohort(args.cohort), args.subject, args.out, args.map)
    print(f"Written: {args.out}")


def make_parser() -> argparse.ArgumentParser:
    program_parser = Parser(prog="abide-data", description=__doc__)
    verb_parsers = program_parser.add_subparsers(required=True, metavar="VERB")

    def add_verb(command: Callable[[argparse.Namespace], int | None], help_text: str) -> argparse.ArgumentParser:
        verb_parser = verb_parsers.add_parser(
            command.__name__,
            help=help_text,
            description=help_text,
            example_arguments_by_purpose=EXAMPLES_BY_VERB[command.__name__],
        )
        verb_parser.set_defaults(run=command)
        return verb_parser

    derive_parser = add_verb(derive, "preprocessed 4-D scans -> NIfTI maps, and series of parcels")
    derive_parser.add_argument(
        "bold", type=Path, help="folder of scans: fMRIPrep, XCP-D, C-PAC, PCP, or see --boldColumn"
    )
    derive_parser.add_argument("out", type=Path, help="folder to write; a repeated command does what is missing")
    add_options(derive_parser, DerivationOptions)
    convert_parser = add_verb(
        convert, "NIfTI maps and a table -> a cohort; exit 1 if anything is wrong with it, as check says"
    )
    add_argument = convert_parser.add_argument
    add_argument(
        "source", type=Path, help="folder of maps: BIDS, PCP (nilearn's fetch_abide_pcp), DPABI, or see --mapColumn"
    )
    add_argument("cohort", type=Path, help="new folder to write")
    template_help = "prepare new participants as in a cohort or bundle; labels are optional"
    add_argument("--like", type=Path, metavar="COHORT", help=template_help)
    add_options(convert_parser, SourceOptions)
    add_options(convert_parser, ConversionOptions)
    check_parser = add_verb(check, "what is in a cohort or a folder of maps, and wrong with it; exit 1 if anything is")
    check_parser.add_argument("cohort", type=Path, help="a cohort, or a folder of maps as convert reads it")
    check_parser.add_argument("--html", type=Path, metavar="FILE", help="write a page, too, with pictures of everybody")
    add_options(
        check_parser,
        SourceOptions,
        "of a folder of maps, as for convert",
        excluded_flag_names=("connectome", "parcels", "parcelNames", "transpose", "edges", "missing"),
    )
    add_argument = add_verb(swap, "augment: swap regions between training participants of the same label").add_argument
    add_argument("cohort", type=Path)
    add_argument("out", type=Path, help="cohort to write")
    add_argument("--regions", type=parse_positive_int, default=13, metavar="N", help="AAL regions swapped (default 13)")
    copies_help = "new records for each training record (default 10)"
    add_argument("--copies", type=parse_positive_int, default=10, metavar="N", help=copies_help)
    add_argument("--seed", type=parse_seed_option, default=0, metavar="N", help="(default 0)")
    pack_parser = add_verb(
        pack, "write a cohort in another form, or with edited tables; exit 1 if anything is then wrong with it"
    )
    pack_parser.add_argument("cohort", type=Path)
    pack_parser.add_argument("out", type=Path, help="folder to write, in the form of the cohort without --zip or --bin")
    form_flag_group = pack_parser.add_mutually_exclusive_group()
    for form_name, form_help in (("zip", "zip chunks of about 250 MB"), ("bin", "a file a record")):
        form_flag_group.add_argument(
            f"--{form_name}", dest="form", action="store_const", const=form_name, help=form_help
        )
    tables_help = "folder with edited subjects.csv, covariates.csv or phenotype.csv: the phenotype is scaled anew"
    pack_parser.add_argument("--tables", type=Path, metavar="FOLDER", help=tables_help)
    export_parser = add_verb(export, "arrays and tables for a model of one's own, with the folds of run.py")
    export_parser.add_argument("cohort", type=Path)
    export_parser.add_argument("out", type=Path, help="new folder to write")
    add_options(export_parser, ExportOptions)
    add_argument = add_verb(volume, "one volume as NIfTI, with its true affine").add_argument
    add_argument("cohort", type=Path)
    add_argument("subject", help="a participant, or a record's file name")
    add_argument("out", type=Path, help="a .nii or .nii.gz file")
    add_argument("--map", metavar="NAME", help="which of several maps")
    return program_parser


def execute_verb() -> int:
    args = make_parser().parse_args()
    return args.run(args) or 0


def main() -> int:
    return run_guarded("abide-data", execute_verb)


if __name__ == "__main__":
    run_program(main, "abide-data")
