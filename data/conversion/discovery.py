"""A folder -> its maps, preprocessed scans or series of parcels by person, recognised by the names of files.

NAMING_RULES says how each pipeline names them: BIDS derivatives of fMRIPrep, XCP-D and C-PAC, the Preprocessed
Connectomes Project as `nilearn.datasets.fetch_abide_pcp` stores it, and DPABI. A column of a table may name other files
instead.
"""

import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from glob import escape
from itertools import chain
from pathlib import Path, PurePosixPath

import pandas as pd

from data.base.errors import InputError, compose_accents
from data.base.files import LEDGER_FILE
from data.base.listing import MAX_LISTED_NAMES, join_names
from data.base.terminal import SummaryRow, format_participants
from data.cohorts.derivation import DERIVED_TABLE_FILE as DERIVED_TABLE
from data.tables.people import PARTICIPANT_TABLE_GLOBS, normalise_id, read_text_table


@dataclass(frozen=True)
class Product:
    """What files may hold, and in which traits (`ProductFile.trait_value_by_name`) they may differ."""

    product_name: str  # plural, for messages
    column_flag: str = ""  # the option that names such files in a table
    shared_trait_names: tuple[str, ...] = ("pipeline", "folder", "name")  # what files of all people must share
    averaged_trait_names: tuple[str, ...] = ()  # over files of a person that differ in these; if empty, one is expected


MAP_PRODUCT = Product("maps", "--mapColumn")
PARCEL_SERIES_PRODUCT = Product("series")
MATRIX_PRODUCT = Product("connectomes")  # matrices, or series whose names do not say that they are such
CONNECTOME_PRODUCTS = (PARCEL_SERIES_PRODUCT, MATRIX_PRODUCT)
SCAN_PRODUCT = Product("scans", "--boldColumn", ("pipeline", "space"), ("ses", "run", "folder", "name"))


@dataclass(frozen=True)
class NamingRule:
    """How a pipeline names the files of a product."""

    product: Product
    pipeline: str  # its name; for UNREAD_RULES why they are left alone
    name_pattern: str  # of names, the ID as the first group; {fields} are filled in by `make_name_patterns`
    example_name_template: str  # a glob for messages, with {name} or {dpabi}
    is_cleaned: bool | None = None  # whether confounds were regressed out of scans already, if that is known
    default_space: str = "MNI152"  # of files whose names do not say theirs; "": they must


NIFTI_SUFFIX_PATTERN = r"\.nii(?:\.gz)?"
SUBJECT_PATTERN = "sub-([A-Za-z0-9]+)_"
SCAN_PATTERN = SUBJECT_PATTERN + "(?:[A-Za-z0-9]+-[^_]+_)*desc-{}_bold" + NIFTI_SUFFIX_PATTERN
SERIES_PATTERN = rf"(?i:{SUBJECT_PATTERN}(?:.*_)?(?:seg|atlas)-{{atlas}}_(?:.*_)?timeseries\.(?:tsv|1D))"
NUMBERS_SUFFIX_PATTERN = r"\.(?i:csv|tsv|txt|1D|npy|mat)"
MATRIX_WORD_PATTERN = "(?:relmat|conmat|correlations?|connectome|connectivity|matrix)"
MATRIX_PATTERN = (
    rf"(?i:{SUBJECT_PATTERN}(?:.*_)?(?:seg|atlas)-{{atlas}}(?:_(?:.*_)?{MATRIX_WORD_PATTERN})?(?:\.dense)?)"
    + NUMBERS_SUFFIX_PATTERN
)
UNCLEAR_ID_PATTERN = f"sub-(.+)_desc-(?:preproc|denoised|cleaned)_bold{NIFTI_SUFFIX_PATTERN}"
UNCLEAR_ID_RULE = NamingRule(
    SCAN_PRODUCT, "whose names do not say whose they are, as sub-<letters and digits>_* do", UNCLEAR_ID_PATTERN, ""
)  # as sub-A_1_* or sub-A.1_*
OLD_FMRIPREP_RULE = NamingRule(
    SCAN_PRODUCT,
    "of fMRIPrep 1.0 or 1.1, which is not read",
    f"{SUBJECT_PATTERN}(?:[^_]+_)*bold_(?:[^_]+_)*preproc{NIFTI_SUFFIX_PATTERN}",
    "",
)
UNREAD_RULES = (UNCLEAR_ID_RULE, OLD_FMRIPREP_RULE)
NAMING_RULES = (  # of maps, those of the first pipeline that has any are taken
    NamingRule(
        MAP_PRODUCT, "BIDS", f"(?i:{SUBJECT_PATTERN}(?:.*_)?{{bids}}{NIFTI_SUFFIX_PATTERN})", "sub-*_{name}.nii.gz"
    ),
    NamingRule(MAP_PRODUCT, "PCP", f"(.+)_{{name}}{NIFTI_SUFFIX_PATTERN}", "*_{name}.nii.gz"),
    NamingRule(
        MAP_PRODUCT, "DPABI", f"(?i:[a-eg-z]*{{dpabi}}Map_(.+?){NIFTI_SUFFIX_PATTERN})", "{dpabi}Map_*.nii"
    ),  # prefixes m, s, z: scaled or smoothed
    NamingRule(
        SCAN_PRODUCT,
        "BIDS (fMRIPrep, C-PAC)",
        SCAN_PATTERN.format("preproc"),
        "sub-*_desc-preproc_bold.nii.gz",
        False,
        "",
    ),
    NamingRule(SCAN_PRODUCT, "XCP-D", SCAN_PATTERN.format("denoised"), "sub-*_desc-denoised_bold.nii.gz", True, ""),
    NamingRule(SCAN_PRODUCT, "C-PAC", SCAN_PATTERN.format("cleaned"), "sub-*_desc-cleaned_bold.nii.gz", True, ""),
    NamingRule(
        SCAN_PRODUCT, "PCP", f"(?:.+_)?([A-Za-z0-9]+)_func_preproc{NIFTI_SUFFIX_PATTERN}", "*_func_preproc.nii.gz", True
    ),
    *UNREAD_RULES,
    NamingRule(
        PARCEL_SERIES_PRODUCT, "BIDS", SERIES_PATTERN, "sub-*_seg-<atlas>_*timeseries.tsv (--connectome seg-<atlas>)"
    ),
    NamingRule(PARCEL_SERIES_PRODUCT, "PCP", r"(.+)_(?=rois_){name}\.1D", "*_rois_cc200.1D (--connectome rois_cc200)"),
    NamingRule(MATRIX_PRODUCT, "BIDS", MATRIX_PATTERN, ""),
    NamingRule(
        MATRIX_PRODUCT,
        "<NAME>_<ID>",
        f"{{name}}_(?!FisherZ_)(.+){NUMBERS_SUFFIX_PATTERN}",
        "ROISignals_*.mat",
    ),
    NamingRule(
        MATRIX_PRODUCT,
        "<ID>_<NAME>",
        f"(.+)_{{name}}{NUMBERS_SUFFIX_PATTERN}",
        "*_NAME.csv (--connectome NAME)",
    ),
)
DPABI_PATTERN_BY_MAP = {
    "falff": "fALFF",
    "degree_weighted": "DegreeCentrality_[A-Za-z]*Weighted[A-Za-z]*",
    "degree_binarize": "DegreeCentrality_[A-Za-z]*Binarized[A-Za-z]*",
}
CPAC_PATTERN_BY_MAP = {
    "degree_weighted": "desc-[^_]*weighted[^_]*_degree-centrality",
    "degree_binarize": "desc-[^_]*binarized[^_]*_degree-centrality",
    "eigenvector_weighted": "desc-[^_]*weighted[^_]*_eigen-centrality",
    "eigenvector_binarize": "desc-[^_]*binarized[^_]*_eigen-centrality",
    "dual_regression": "desc-[^_]*DualReg[^_]*_[^_]+",
}
STANDARD_MAPS = ("falff", "alff", "reho", *CPAC_PATTERN_BY_MAP, "lfcd", "vmhc")  # that --maps all looks for
PIPELINE_FOLDER = re.compile(  # folders of the PCP and of DPABI that say how a map was made; others may be sites
    r"c-?pac|dparsfa?|dpabi|niak|ccs|fmriprep|xcp_?d|(no)?filt_(no)?global|S\d_.*"
    r"|m?z?s?(f?ALFF|ReHo|DegreeCentrality)_.*|(ses|run|task)-.*",
    re.IGNORECASE,
)
SESSION_SUFFIX = re.compile(
    r"[_-](ses|session|run|visit|wave|tp|timepoint|scan)[_-]?\w{1,4}$", re.IGNORECASE
)  # ends an ID
MNI_SPACE = re.compile(r"MNI(152.*)?|template")  # C-PAC calls its own, which is MNI152, template
ANY_TABLE_GLOBS = ("*.csv", "*.tsv")
TABLE_GLOBS = (*PARTICIPANT_TABLE_GLOBS, *ANY_TABLE_GLOBS)
PARCEL_SERIES_NAME = re.compile(r"_rois_\w+\.1D$|_(seg|atlas)-.+_timeseries\.(tsv|1D)$")
PROGRAM_TABLES = (LEDGER_FILE, DERIVED_TABLE)  # tables that this program leaves in folders of maps and results
SCAN_TABLE_NAME = re.compile(
    r"_(timeseries|regressors|motion|outliers|dseg)\.tsv$"
)  # tables in BIDS that hold no people


@dataclass(frozen=True)
class ProductFile:
    """A file of a product, recognised by its name or named by a table."""

    path: Path  # as the folder was named, not relative to it
    relative_path: PurePosixPath  # `path` relative to the folder that holds all
    naming_rule: NamingRule
    subject_label: str  # the subject, as the name has it
    comparable_id: str = ""  # by `normalise_id`, with a session or run that ends the ID
    name_glob: str = ""  # a glob of the name without the subject
    bids_entities: dict[str, str] = field(default_factory=dict)  # of its BIDS name, without `sub`

    @property
    def person_key(self) -> str:
        return normalise_id(self.subject_label)

    @property
    def space_name(self) -> str:
        return self.bids_entities.get("space") or self.naming_rule.default_space

    @property
    def exclusion_reason(self) -> str:
        """Why it is left alone, if it does not lie in MNI space, is nobody's, or is too old."""
        if self.naming_rule in UNREAD_RULES:
            return self.naming_rule.pipeline
        space_reason = f"in space {self.space_name}" if self.space_name else "in no space"
        return "" if MNI_SPACE.fullmatch(self.space_name) else space_reason

    @property
    def trait_value_by_name(self) -> dict[str, str]:
        """What may tell it from other files of this product, but for whose it is."""
        pipeline_folders_text = "/".join(
            folder_name for folder_name in self.relative_path.parts[:-1] if PIPELINE_FOLDER.fullmatch(folder_name)
        )
        rule_traits = {"space": self.space_name, "pipeline": self.naming_rule.pipeline}
        return {**self.bids_entities, **rule_traits, "folder": pipeline_folders_text, "name": self.name_glob}

    @property
    def shared_traits_text(self) -> str:
        """What files of all people must share."""
        return ", ".join(filter(None, map(self.trait_value_by_name.get, self.naming_rule.product.shared_trait_names)))


def make_name_patterns(product: Product, map_or_series_name: str = "") -> dict[NamingRule, re.Pattern]:
    """Regular expressions of the names of a product's files, or of one kind of them, by naming rule."""
    loose_pattern = re.escape(map_or_series_name).replace(
        "_", "_?"
    )  # BIDS separates other parts of a name by underscores
    cpac_alternative = (
        f"|{CPAC_PATTERN_BY_MAP[map_or_series_name]}" if map_or_series_name in CPAC_PATTERN_BY_MAP else ""
    )
    pattern_by_template_field = {
        "name": re.escape(map_or_series_name),
        "bids": f"(?:{loose_pattern}|(?:stat|desc)-{loose_pattern}(?:_[^_]+)*{cpac_alternative})",
        "dpabi": DPABI_PATTERN_BY_MAP.get(map_or_series_name, loose_pattern),
        "atlas": re.escape(map_or_series_name.removeprefix("seg-")),
    }
    return {
        naming_rule: re.compile(naming_rule.name_pattern.format(**pattern_by_template_field))
        for naming_rule in NAMING_RULES
        if naming_rule.product is product
    }


def parse_bids_entities(file_name: str) -> dict[str, str]:
    """`sub-1_task-rest_bold.nii.gz` -> {"sub": "1", "task": "rest"}."""
    split_entities = (entity.partition("-") for entity in file_name.split(".")[0].split("_") if "-" in entity)
    return {entity_name: entity_value for entity_name, _, entity_value in split_entities}


def recognise_file(
    folder: Path, relative_path: PurePosixPath, pattern_by_rule: dict[NamingRule, re.Pattern]
) -> ProductFile | None:
    """The file at a path in the folder, None if its name is not that of the product."""
    for naming_rule, name_pattern in pattern_by_rule.items():
        if id_match := name_pattern.fullmatch(relative_path.name):
            subject_label = SESSION_SUFFIX.sub("", id_match[1]) or id_match[1]
            text_before_id = relative_path.name[: id_match.start(1)]
            text_after_id = relative_path.name[id_match.start(1) + len(subject_label) :]
            name_glob = f"{escape(text_before_id)}*{escape(text_after_id).removesuffix('.gz')}*"
            bids_entities = {
                entity_name: entity_value
                for entity_name, entity_value in parse_bids_entities(relative_path.name).items()
                if entity_name != "sub"
            }
            return ProductFile(
                folder / relative_path,
                relative_path,
                naming_rule,
                subject_label,
                normalise_id(id_match[1]),
                name_glob,
                bids_entities,
            )
    return None


@dataclass(frozen=True)
class FolderListing:
    """The files below a folder, which is walked once."""

    root_folder: Path

    @cached_property
    def all_file_paths(self) -> list[Path]:
        """All files, sorted. Links to folders are followed, except those that lead back up; hidden files, which macOS
        leaves beside others, are left out."""
        visible_file_paths = []  # below the folder
        for folder_path, subfolder_names, file_names in os.walk(self.root_folder, followlinks=True):
            real_folder = Path(folder_path).resolve()
            subfolder_names[:] = [
                entry_name
                for entry_name in subfolder_names
                if not real_folder.is_relative_to((real_folder / entry_name).resolve())
            ]
            visible_file_paths += [
                Path(folder_path) / entry_name for entry_name in file_names if not entry_name.startswith(".")
            ]
        return sorted(visible_file_paths)

    @cached_property
    def relative_file_paths(self) -> list[PurePosixPath]:
        """`all_file_paths`, relative to the folder."""
        return [PurePosixPath(path.relative_to(self.root_folder).as_posix()) for path in self.all_file_paths]

    def find_product_files(self, product: Product, map_or_series_name: str = "") -> list[ProductFile]:
        """All files of a product, or of one kind of it, of all pipelines."""
        pattern_by_rule = make_name_patterns(product, map_or_series_name)
        return [
            product_file
            for relative_path in self.relative_file_paths
            if (product_file := recognise_file(self.root_folder, relative_path, pattern_by_rule))
        ]


def find_usable_product_files(
    listing: FolderListing,
    product: Product,
    map_or_series_name: str = "",
    only_globs: str | None = None,  # of --only: A,B
    map_names: Iterable[str] = (),
) -> tuple[list[ProductFile], dict[str, str], list[SummaryRow]]:
    """The files of a product, or of one kind of it, by `choose_clear_files`; a glob that an error advises chooses
    among the maps called `map_names`, too. Raises InputError if there are none."""
    product_files = listing.find_product_files(product, map_or_series_name)
    if not product_files:
        raise InputError(describe_product_absence(listing, product, map_or_series_name))
    map_file_groups = (
        map_files
        for map_name in map_names
        if map_name != map_or_series_name and (map_files := listing.find_product_files(MAP_PRODUCT, map_name))
    )  # for an error only
    return choose_clear_files(listing.root_folder, product_files, only_globs, map_file_groups)


def describe_product_absence(listing: FolderListing, product: Product, map_or_series_name: str) -> str:
    """That a folder holds no such files, what is expected, and what to do."""
    example_fields = {
        "name": map_or_series_name,
        "dpabi": DPABI_PATTERN_BY_MAP.get(map_or_series_name, map_or_series_name),
    }
    expected_products = CONNECTOME_PRODUCTS if product is PARCEL_SERIES_PRODUCT else (product,)
    example_names_text = ", ".join(
        naming_rule.example_name_template.format(**example_fields)
        for naming_rule in NAMING_RULES
        if naming_rule.product in expected_products and naming_rule.example_name_template
    )
    column_advice = f", or a column of paths: {product.column_flag}" if product.column_flag else ""
    if product is PARCEL_SERIES_PRODUCT:
        column_advice = ", or a table of edges (--connectome FILE)"
    product_text = f"{map_or_series_name} {product.product_name}".strip()
    absence_message = (
        f"{listing.root_folder} holds no {product_text} by their names; expected {example_names_text}{column_advice}."
    )
    if product is MAP_PRODUCT:
        absence_message += (
            " Of preprocessed scans, abide-data derive makes maps; files of other formats, such as .img, must be "
            "converted to NIfTI first, and surfaces to volumes."
        )
    present_map_names = [
        map_name
        for map_name in STANDARD_MAPS
        if product is MAP_PRODUCT and listing.find_product_files(MAP_PRODUCT, map_name)
    ]
    series_file_names = [
        path.name
        for path in listing.all_file_paths
        if product is PARCEL_SERIES_PRODUCT and PARCEL_SERIES_NAME.search(path.name)
    ]
    present_names = [*present_map_names, *series_file_names[:1]]
    return f"{absence_message} It holds {', '.join(present_names)}." if present_names else absence_message


def matches_any_glob(relative_path: PurePosixPath, only_globs: str | None) -> bool:
    """Whether a path in a folder matches `only_globs`, a glob or one of several as `A,B`; without any all do."""
    path_text = compose_accents(str(relative_path))
    return not only_globs or any(
        fnmatchcase(path_text, compose_accents(glob)) for glob in {only_globs, *only_globs.split(",")}
    )


def choose_usable_files(product_files: Sequence[ProductFile], only_globs: str | None) -> list[ProductFile]:
    """The files that match one of the globs `A,B` and lie in MNI space; maps of one pipeline. Series have no voxels:
    all are taken if no name matches, or says MNI space."""
    product = product_files[0].naming_rule.product
    matching_files = [
        product_file for product_file in product_files if matches_any_glob(product_file.relative_path, only_globs)
    ]
    usable_files = [product_file for product_file in matching_files if not product_file.exclusion_reason]
    if product in CONNECTOME_PRODUCTS:
        return usable_files or matching_files or list(product_files)
    if product is MAP_PRODUCT and usable_files:
        first_rule = min((product_file.naming_rule for product_file in usable_files), key=NAMING_RULES.index)
        return [product_file for product_file in usable_files if product_file.naming_rule is first_rule]
    return usable_files


def choose_clear_files(
    folder: Path,
    product_files: Sequence[ProductFile],
    only_globs: str | None,
    map_file_groups: Iterable[Sequence[ProductFile]] = (),
) -> tuple[list[ProductFile], dict[str, str], list[SummaryRow]]:
    """The files that `choose_usable_files` takes; for people of whom it is unclear which to take, why; and facts.
    Raises InputError if there are none, and as `explain_unclear_people` does, with a glob for these and
    `map_file_groups`."""
    product = product_files[0].naming_rule.product
    chosen_files = choose_usable_files(product_files, only_globs)
    chosen_paths = {product_file.path for product_file in chosen_files}
    rejected_paths_by_reason = dict[str, list[PurePosixPath]]()
    for product_file in product_files:
        if product_file.path not in chosen_paths and matches_any_glob(product_file.relative_path, only_globs):
            rejection_reason = product_file.exclusion_reason or f"of {product_file.naming_rule.pipeline}"
            rejected_paths_by_reason.setdefault(rejection_reason, []).append(product_file.relative_path)
    rejections_text = ", ".join(
        f"{len(rejected_paths)} {reason}, such as {rejected_paths[0]}"
        for reason, rejected_paths in rejected_paths_by_reason.items()
    )
    if not chosen_files and not rejected_paths_by_reason:
        raise InputError(
            f"--only {only_globs!r} matches none of the {len(product_files)} {product.product_name} in {folder}, such "
            f"as {product_files[0].relative_path}."
        )
    if not chosen_files and [*rejected_paths_by_reason] == [OLD_FMRIPREP_RULE.pipeline]:
        raise InputError(
            f"{folder} has no scans but {rejections_text}; expected those of fMRIPrep 1.2 or newer, whose tables of "
            "confounds nilearn reads. Preprocess them again with a newer fMRIPrep."
        )
    if not chosen_files:
        raise InputError(
            f"{folder} has no {product.product_name} in MNI space: {rejections_text}; expected names with "
            f"space-MNI152*. Make them again in it, or, if they are in it all the same, name them in a column of "
            f"paths: {product.column_flag}."
        )
    unclear_reason_by_person = explain_unclear_people(folder, chosen_files, chain([product_files], map_file_groups))
    shared_traits_text = next(
        product_file.shared_traits_text
        for product_file in chosen_files
        if product_file.person_key not in unclear_reason_by_person
    )
    pipeline_layout_text, _, name_glob = shared_traits_text.rpartition(", ")
    person_count = len(group_files_by_person(chosen_files))
    people_text = f" of {format_participants(person_count)}" if person_count < len(chosen_files) else ""
    summary_rows = [
        ("layout", f"{pipeline_layout_text}: {len(chosen_files)} {product.product_name}{people_text} ({name_glob})")
    ]
    if rejected_paths_by_reason:
        summary_rows.append(("layout", f"left alone: {rejections_text}; choose with --only"))
    return chosen_files, unclear_reason_by_person, summary_rows


def explain_unclear_people(
    folder: Path, chosen_files: Sequence[ProductFile], glob_test_groups: Iterable[Sequence[ProductFile]]
) -> dict[str, str]:
    """For people of whom it is unclear which files to take, why. Raises InputError, with a glob that chooses in all
    `glob_test_groups`, if these are half of all people or more, since then nobody knows what is usual; if there are
    any, where nothing is averaged; or if the files of the others differ in kind."""
    files_by_person = group_files_by_person(chosen_files)
    averaged_trait_names = chosen_files[0].naming_rule.product.averaged_trait_names
    # the files of people of whom it is unclear, by how they differ
    unclear_files_by_difference = dict[str, list[list[ProductFile]]]()
    for person_files in files_by_person.values():
        if are_files_ambiguous(person_files):
            difference_text = str(find_differing_trait_values(person_files))
            unclear_files_by_difference.setdefault(difference_text, []).append(person_files)
    rival_sentences = (
        describe_rival_files(
            similar_people_files[0], [list(chain(*similar_people_files))] if averaged_trait_names else glob_test_groups
        )
        for similar_people_files in unclear_files_by_difference.values()
    )
    unclear_subject_labels = [
        person_files[0].subject_label
        for similar_people_files in unclear_files_by_difference.values()
        for person_files in similar_people_files
    ]
    if unclear_subject_labels and (not averaged_trait_names or 2 * len(unclear_subject_labels) >= len(files_by_person)):
        raise InputError(
            f"{folder} has, for {join_names(unclear_subject_labels)} of {format_participants(len(files_by_person))}, "
            f"{next(rival_sentences)}"
        )
    unclear_reason_by_person = {
        subject_files[0].person_key: rival_sentence
        for similar_people_files, rival_sentence in zip(
            unclear_files_by_difference.values(), rival_sentences, strict=True
        )
        for subject_files in similar_people_files
    }
    example_file_by_traits_text = {
        subject_files[0].shared_traits_text: subject_files[0]
        for person_key, subject_files in files_by_person.items()
        if person_key not in unclear_reason_by_person
    }
    if len(example_file_by_traits_text) > 1:
        raise InputError(
            f"{folder} has, each for other participants, "
            f"{describe_rival_files(list(example_file_by_traits_text.values()), glob_test_groups)}"
        )
    return unclear_reason_by_person


def group_files_by_person(product_files: Iterable[ProductFile]) -> dict[str, list[ProductFile]]:
    files_by_person = dict[str, list[ProductFile]]()
    for product_file in product_files:
        files_by_person.setdefault(product_file.person_key, []).append(product_file)
    return files_by_person


def find_differing_trait_values(product_files: Sequence[ProductFile]) -> dict[str, list[str]]:
    """The traits in which files differ, but for those that are averaged over, and their values; the name only if they
    differ in no other."""
    averaged_trait_names = product_files[0].naming_rule.product.averaged_trait_names
    traits_per_file = [product_file.trait_value_by_name for product_file in product_files]
    trait_names = dict.fromkeys(chain.from_iterable(traits_per_file))  # a dict, for its order
    differing_values_by_trait = dict[str, list[str]]()
    for trait_name in trait_names:
        trait_values = dict.fromkeys(file_traits.get(trait_name) or "none" for file_traits in traits_per_file)
        if trait_name not in averaged_trait_names and len(trait_values) > 1:
            differing_values_by_trait[trait_name] = list(trait_values)

    # the name differs by what another trait says, too, if any does
    differing_values_without_name = differing_values_by_trait.copy()
    differing_values_without_name.pop("name", None)
    return differing_values_without_name or differing_values_by_trait


def are_files_ambiguous(person_files: Sequence[ProductFile]) -> bool:
    """Whether it is unclear which of a person's files to take: they differ, or two names have the same parts."""
    different_entities = {str(product_file.bids_entities) for product_file in person_files}
    return bool(find_differing_trait_values(person_files)) or len(different_entities) < len(person_files)


def describe_rival_files(rival_files: Sequence[ProductFile], glob_test_groups: Iterable[Sequence[ProductFile]]) -> str:
    """That one of several files must be chosen, and by which glob, if one is clear for people in `glob_test_groups`."""
    product = rival_files[0].naming_rule.product
    choice_advice = advise_choice(rival_files, list(glob_test_groups))
    differing_traits_text = ", ".join(
        f"{trait_name} ({join_names(trait_values, 3)})"
        for trait_name, trait_values in find_differing_trait_values(rival_files).items()
    )
    if differing_traits_text:
        rivals_text = f"that differ in {differing_traits_text}"
    else:
        rivals_text = f"alike in name, {rival_files[0].relative_path} and {rival_files[1].relative_path}"
    runs_exception = ", but for runs and sessions" if product.averaged_trait_names else ""
    column_advice = f", or name each in a column: {product.column_flag}" if product.column_flag else ""
    return (
        f"several {product.product_name} {rivals_text}; expected one a participant{runs_exception}. "
        f"{choice_advice}{column_advice}."
    )


def advise_choice(rival_files: Sequence[ProductFile], glob_test_groups: Sequence[Sequence[ProductFile]]) -> str:
    """How to choose among files. The shortest of the globs that leave the most people clear files in all groups is
    advised, unless it leaves fewer than its share of people, as where one ID is spelt in two ways."""
    best_glob_per_group = []
    for file_group in glob_test_groups:
        name_globs = dict.fromkeys(f"*{product_file.name_glob}" for product_file in file_group)
        clear_people_by_glob = {glob: count_clear_people(glob, [file_group]) for glob in name_globs}
        best_glob_per_group.append(max(name_globs, key=clear_people_by_glob.__getitem__))
    candidate_globs = {",".join(best_glob_per_group)}
    for product_file in rival_files:
        candidate_globs.update(suggest_globs(product_file))
    shortest_first_globs = sorted(candidate_globs, key=lambda glob: (len(glob), glob))
    best_glob = max(shortest_first_globs, key=lambda glob: count_clear_people(glob, glob_test_groups))

    clear_person_count = count_clear_people(best_glob, glob_test_groups)
    person_counts = []
    for file_group in glob_test_groups:
        usable_files = choose_usable_files(file_group, None)
        person_counts.append(len(group_files_by_person(usable_files)))
    if clear_person_count and clear_person_count * len(rival_files) >= min(person_counts):
        return f"Choose, such as with --only {shlex.quote(best_glob)} ({format_participants(clear_person_count)})"
    return "Remove or rename one"


def count_clear_people(only_globs: str, glob_test_groups: Iterable[Sequence[ProductFile]]) -> int:
    """For how many people globs leave clear files of one kind in every group; 0 if they do not in one of them."""
    clear_person_count_per_group = []
    for file_group in glob_test_groups:
        chosen_files = choose_usable_files(file_group, only_globs)
        files_by_person = group_files_by_person(chosen_files)
        kinds_of_files = {product_file.shared_traits_text for product_file in chosen_files}
        has_ambiguous_person = any(map(are_files_ambiguous, files_by_person.values()))
        is_group_clear = len(kinds_of_files) == 1 and not has_ambiguous_person
        clear_person_count_per_group.append(len(files_by_person) if is_group_clear else 0)
    return min(clear_person_count_per_group)


def suggest_globs(product_file: ProductFile) -> Iterator[str]:
    """Globs that match a file and others like it: by a folder, by a part of its name, by all of its name or path."""
    escaped_folder_names = list(map(escape, product_file.relative_path.parts[:-1]))
    name_glob = product_file.name_glob
    yield from (f"{escaped_folder}/*" for escaped_folder in escaped_folder_names[:1])
    yield from (f"*/{escaped_folder}/*" for escaped_folder in escaped_folder_names)

    name_segments = product_file.relative_path.name.split(".")[0].split("_")
    yield from (f"*_{escape(name_segment)}[_.]*" for name_segment in name_segments[1:])
    yield "*.nii.gz" if product_file.path.suffix == ".gz" else "*.nii"
    yield from (name_glob, f"*/{name_glob}", f"*{name_glob}")

    escaped_path = escape(str(product_file.relative_path))
    subjectless_path = escaped_path.replace(escape(product_file.subject_label), "*")
    yield subjectless_path.removesuffix(".gz") + "*"
    yield "/".join([*escaped_folder_names, name_glob])


def find_participants_table(
    folder: Path,
    file_paths: Iterable[Path],
    fits_table: Callable[[pd.DataFrame], bool],
    other_file_paths: Collection[Path] = (),
) -> Path:
    """The only table beside files or above them, see `find_participants_table_near`. Raises InputError if there is
    none, or several."""
    if table_path := find_participants_table_near(
        folder, file_paths, fits_table=fits_table, other_file_paths=other_file_paths
    ):
        return table_path
    raise InputError(
        f"{folder} has no table of participants; expected a CSV or TSV in it, or above it with their IDs or paths. "
        "Name it with --table."
    )


def find_participants_table_near(
    folder: Path,
    file_paths: Iterable[Path],
    table_globs: Sequence[str] = TABLE_GLOBS,
    fits_table: Callable[[pd.DataFrame], bool] = lambda table: True,
    other_file_paths: Collection[Path] = (),
) -> Path | None:
    """The only table of the first pattern of which there is any, beside files or else up to two folders above; None
    without one. A table above whose name is not one for participants must pass `fits_table`: much else may lie
    there. `other_file_paths`, resolved, hold something else. Raises InputError if there are several."""
    parent_folders = {
        parent_folder for path in file_paths for parent_folder in path.parents if parent_folder.is_relative_to(folder)
    }
    folders_inside = sorted(parent_folders | {folder})
    folders_above = list(folder.resolve().parents)[:2]
    for searched_folders in (folders_inside, folders_above):
        for table_glob in table_globs:
            glob_matching_paths = sorted(
                path for searched_folder in searched_folders for path in searched_folder.glob(table_glob)
            )
            table_paths = [
                path
                for path in glob_matching_paths
                if path.name not in PROGRAM_TABLES
                and not SCAN_TABLE_NAME.search(path.name)
                and path.resolve() not in other_file_paths
            ]
            if (
                searched_folders is folders_above
                and table_glob in ANY_TABLE_GLOBS
                and len(table_paths) <= MAX_LISTED_NAMES
            ):
                table_paths = [path for path in table_paths if is_fitting_table(path, fits_table)]
            if len(table_paths) > 1:
                raise InputError(
                    f"{folder} has several tables ({join_names(list(map(str, table_paths)))}); name one with --table."
                )
            if table_paths:
                return table_paths[0]
    return None


def is_fitting_table(table_path: Path, fits_table: Callable[[pd.DataFrame], bool]) -> bool:
    """Whether a file is a table that fits; what cannot be read does not."""
    try:
        return fits_table(read_text_table(table_path))
    except InputError:
        return False
