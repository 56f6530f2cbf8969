"""The metadata of a cohort: `cohort.json`."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from data.base import files
from data.base.errors import InputError
from data.cohorts.derivation import Derivation
from data.tables import vocabulary

METADATA_FILE = "cohort.json"
COMMAND_KEY = "converted_by"  # in a provenance: the command
UNSEALED_KEY = "sealed_without_sums"  # in a provenance: true if tables may be other than they were written
UNLIKE_RECORDS_KEY = "unlike_records"  # in a provenance: the cells of these tables that the records contradicted
DUPLICATES_TOGETHER = "together"
DUPLICATES_APART = "apart"  # subjects who share a scan


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How records were made from scans: all cohorts that one model reads must have it in common. Empty if unknown, as
    for a bare folder."""

    maps: tuple[str, ...] = ()  # their names
    normalisation: str = ""  # of the volumes, in words
    reduction: str = ""  # of the volumes: "none", "block mean", or "encoder" and the beginning of its digest
    phenotype: tuple[str, ...] = ()  # the names of the 29 values
    phenotype_median: tuple[float, ...] = ()  # of each raw value; replaces unknown ones
    phenotype_mean: tuple[float, ...] = ()  # of each imputed value
    phenotype_scale: tuple[float, ...] = ()  # divisor of each value; 0 for a constant one
    connectome: str = ""  # the name of the series whose correlations are in `connectomes.h5`
    parcels_sha256: str = ""  # the identity of the parcels

    @property
    def has_phenotype_constants(self) -> bool:
        """Whether it holds the constants that impute and scale each value of the phenotype."""
        constants = self.phenotype_median, self.phenotype_mean, self.phenotype_scale
        return {len(constant_values) for constant_values in constants} == {vocabulary.PHENOTYPE_SIZE}

    def select_fields_for_inputs(self, input_names: Sequence[str]) -> dict[str, object]:
        """What matters to a model that reads these inputs of `PREPARATION_FIELDS_BY_INPUT`: floats to nine digits, None
        if unknown or NaN."""
        value_by_field: dict[str, object] = {}
        for field_name in [
            field_name for input_name in input_names for field_name in PREPARATION_FIELDS_BY_INPUT[input_name]
        ]:
            field_value = getattr(self, field_name)
            if isinstance(field_value, tuple):
                entries_or_none = (None if entry != entry else entry for entry in field_value)
                field_value = tuple(
                    float(f"{entry:.9g}") if isinstance(entry, float) else entry for entry in entries_or_none
                )
            value_by_field[field_name] = field_value or None
        return value_by_field


PREPARATION_FIELDS_BY_INPUT = {
    "volume": ("maps", "normalisation", "reduction"),
    "phenotype": ("phenotype", "phenotype_median", "phenotype_mean", "phenotype_scale"),
    "connectome": ("parcels_sha256",),
}


@dataclass(frozen=True, kw_only=True)
class Metadata(Preparation):
    """The content of `cohort.json`; a bare folder has the defaults. `..._columns` are those of the table that it was
    converted from."""

    grid: tuple[int, ...] = ()  # voxels along x, y and z; empty without maps
    affine: tuple[tuple[float, ...], ...] = ()  # 4x4, voxel index -> mm
    phenotype_auc: dict[str, float] = field(default_factory=dict)  # of each value on the training labels
    phenotype_columns: tuple[str, ...] = ()
    phenotype_categories: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by column of text, its values
    covariate_columns: tuple[str, ...] = ()
    id_column: str = ""  # as --idColumn named it
    map_column: str = ""  # as --mapColumn named it
    column_maps: tuple[str, ...] = ()  # names of the maps in files that its columns name; a 4-D file holds several maps
    site_column: str = ""  # of the covariates, which holds the sites
    covariates_named: bool = False  # by the user, so that the phenotype adds none
    same_scan: tuple[tuple[str, ...], ...] = ()  # groups of subjects who share a scan
    duplicates: str = ""  # DUPLICATES_TOGETHER; DUPLICATES_APART, if the user wants it so; empty: not looked for
    family_column: str = ""
    families: dict[str, tuple[str, ...]] = field(default_factory=dict)  # subjects by family, even a single one
    accepted_leaks: tuple[str, ...] = ()  # what tells the diagnosis and was accepted by --allowLeak
    derivation: Derivation | None = None  # of maps and series from scans
    simulated: bool = False
    encoder_sha256: str = ""
    encoder_subjects: tuple[str, ...] = ()  # whom the encoder of these volumes was trained on
    encoder_volumes: tuple[str, ...] = ()  # the digests of their volumes, see `Digests.scan_digests`
    provenance: dict[str, Any] = field(default_factory=dict)  # how the cohort was made, see `lineage`

    @property
    def preparation(self) -> Preparation:
        return Preparation(
            **{
                preparation_field.name: getattr(self, preparation_field.name)
                for preparation_field in fields(Preparation)
            }
        )

    @property
    def lineage(self) -> Iterator[dict[str, Any]]:
        """The provenance, and that of each cohort that this one was made from, the latest first."""
        provenance: Any = self.provenance
        while provenance and isinstance(provenance, dict):
            yield provenance
            provenance = provenance.get("source")

    @property
    def is_unsealed(self) -> bool:
        """Whether it was sealed without sums, or made from what was."""
        return any(provenance.get(UNSEALED_KEY) for provenance in self.lineage)

    @property
    def cells_unlike_records(self) -> list[dict[str, str]]:
        """The cells (subject, column, before, after) in which tables without sums differed from the records."""
        return next(
            (provenance[UNLIKE_RECORDS_KEY] for provenance in self.lineage if UNLIKE_RECORDS_KEY in provenance), []
        )

    @property
    def left_out_people_by_reason(self) -> dict[str, list[str]]:
        """Whom the conversion left out, for each reason that its provenance gives."""
        left_out_names_by_reason = next(
            (provenance["left_out"] for provenance in self.lineage if "left_out" in provenance), None
        )
        reason_items = left_out_names_by_reason.items() if isinstance(left_out_names_by_reason, dict) else ()
        return {
            reason: list(map(str, subjects))
            for reason, subjects in reason_items
            if subjects and isinstance(subjects, list)
        }

    @property
    def left_out_count_by_reason(self) -> dict[str, int]:
        return {reason: len(subjects) for reason, subjects in self.left_out_people_by_reason.items()}

    @property
    def conversion_command(self) -> str:
        """The command of the conversion, as it was typed; empty if that is not known."""
        return next((provenance.get(COMMAND_KEY, "") for provenance in self.lineage if "left_out" in provenance), "")

    def to_json(self) -> dict[str, Any]:
        """All but the defaults; `maps` of a cohort without any, too."""
        content = asdict(
            self,
            dict_factory=lambda field_items: {
                field_name: field_value for field_name, field_value in field_items if field_value
            },
        )
        return content if self.grid else {"maps": []} | content


def read_metadata(metadata_path: Path) -> Metadata:
    """`cohort.json`. Raises InputError for damage, and for another format than this one; that of a script, which names
    none, is accepted."""
    content = files.read_json(metadata_path, dict)
    files.check_format_version(metadata_path, content.get("format", files.FORMAT_VERSION), "convert again")
    metadata = files.read_json(metadata_path, Metadata)
    if not metadata.grid and content.get("maps") != []:
        raise InputError(f"{metadata_path} names no grid; expected a cohort's metadata. Convert again.")
    return metadata


def write_metadata(metadata_path: Path, metadata: Metadata) -> None:
    files.write_json(metadata_path, {"format": files.FORMAT_VERSION} | metadata.to_json())
