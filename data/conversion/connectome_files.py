"""What --connectome names -> the files of people's connectomes, and how they are read.

It is a name in the files of people, each of whom has one, or the path of a table.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from data.base.errors import InputError
from data.base.terminal import SummaryRow
from data.conversion.discovery import (
    MATRIX_PRODUCT,
    PARCEL_SERIES_PRODUCT,
    FolderListing,
    Product,
    find_usable_product_files,
    matches_any_glob,
)
from data.conversion.edge_tables import EdgeTable, read_edge_table
from data.conversion.number_tables import find_header_error, read_parcel_names
from data.conversion.options import SourceOptions


@dataclass(frozen=True)
class ConnectomeReading:
    """How the files of connectomes are read."""

    connectome_name: str = ""  # of the atlas, as --connectome has it
    product: Product = PARCEL_SERIES_PRODUCT
    variable_name: str = ""  # of `.mat`
    parcel_names: tuple[str, ...] = ()  # of files that name none; empty without --parcelNames
    is_transposed: bool = False
    edge_unit: str = ""  # as --edges names it
    edge_table: EdgeTable | None = None  # in place of a file a person

    @property
    def is_plain_series(self) -> bool:
        """Whether files are texts of series with the names of parcels in their first line, as their names say."""
        return self.product is PARCEL_SERIES_PRODUCT and not (
            self.parcel_names or self.is_transposed or self.edge_unit or self.edge_table
        )


def find_connectome_files(
    listing: FolderListing, options: SourceOptions, map_names: Iterable[str]
) -> tuple[dict[str, Path], ConnectomeReading, list[SummaryRow]]:
    """The files of connectomes by ID, how they are read, and facts; a row of a table stands for a file as
    `EdgeTable.row_path_by_id` calls it. A glob that an error advises chooses among maps called `map_names`, too. Raises
    InputError if there are none."""
    connectome_option = options.connectome or ""
    parcel_names = read_parcel_names(options.parcel_names) if options.parcel_names else ()
    if header_error_text := find_header_error(parcel_names) if parcel_names else "":
        raise InputError(f"{options.parcel_names} {header_error_text.replace('in its first line', 'in a line')}")
    reading = ConnectomeReading(
        connectome_name=connectome_option,
        parcel_names=parcel_names,
        is_transposed=bool(options.transpose),
        edge_unit=options.edges or "",
    )
    if Path(connectome_option).is_file():
        table_path = Path(connectome_option)
        if options.transpose:
            raise InputError(f"--transpose is about series; {table_path} is a table of edges. Leave it out.")
        edge_table = read_edge_table(table_path, options.id_column or "", parcel_names)
        reading = replace(reading, connectome_name=table_path.stem, edge_table=edge_table)
        return edge_table.row_path_by_id, reading, [edge_table.summary_row]

    connectome_name, _, variable_name = connectome_option.partition(":")
    product = choose_product(listing, connectome_name, options.only)
    connectome_files, _, summary_rows = find_usable_product_files(
        listing, product, connectome_name, options.only, map_names
    )
    reading = replace(reading, connectome_name=connectome_name, product=product, variable_name=variable_name)
    path_by_id = {connectome_file.comparable_id: connectome_file.path for connectome_file in connectome_files}
    return path_by_id, reading, summary_rows


def list_connectome_paths(listing: FolderListing, options: SourceOptions) -> set[Path]:
    """The resolved paths of files that --connectome may name, none of which is a table of participants."""
    if not options.connectome:
        return set()
    named_path = Path(options.connectome)
    if named_path.is_file():
        return {named_path.resolve()}
    connectome_name = options.connectome.partition(":")[0]
    return {matrix_file.path.resolve() for matrix_file in listing.find_product_files(MATRIX_PRODUCT, connectome_name)}


def choose_product(listing: FolderListing, connectome_name: str, only_globs: str | None) -> Product:
    """Series, if there are any of this name that --only chooses, or any at all; else files that may be matrices."""
    for chosen_globs in (only_globs, None):
        for product in (PARCEL_SERIES_PRODUCT, MATRIX_PRODUCT):
            product_files = listing.find_product_files(product, connectome_name)
            if any(matches_any_glob(product_file.relative_path, chosen_globs) for product_file in product_files):
                return product
    return PARCEL_SERIES_PRODUCT
