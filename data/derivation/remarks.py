"""What is worth a remark on scans that can be derived: a fact for each, with all whom it is about."""

from collections.abc import Iterable
from dataclasses import dataclass

from data.base.listing import join_names
from data.base.terminal import SummaryRow, format_participants


@dataclass(frozen=True)
class Remark:
    """A remark on one scan."""

    remark_text: str  # "{}" stands in the place of the number
    measured_number: float | None = None  # what may differ between people of whom the rest of the text is true
    is_warning: bool = False  # whether results may be wrong


def summarise_remarks(labelled_remarks: Iterable[tuple[str, Remark]]) -> list[SummaryRow]:
    """A fact for each text, warnings first, of remarks and the people they are about; of several people who differ in
    the number, the lowest and the highest."""
    labels_by_remark_kind = dict[tuple[bool, str], dict[str, None]]()
    numbers_by_remark_kind = dict[tuple[bool, str], list[float]]()
    for label, remark in labelled_remarks:
        remark_kind = not remark.is_warning, remark.remark_text  # whether it is a note, and its text
        labels_by_remark_kind.setdefault(remark_kind, {})[label] = None
        if remark.measured_number is not None:
            numbers_by_remark_kind.setdefault(remark_kind, []).append(remark.measured_number)
    summary_rows = list[SummaryRow]()
    for remark_kind in sorted(labels_by_remark_kind, key=lambda remark_kind: remark_kind[0]):
        is_note, remark_text = remark_kind
        if measured_numbers := numbers_by_remark_kind.get(remark_kind):
            range_ends = dict.fromkeys([f"{min(measured_numbers):g}", f"{max(measured_numbers):g}"])
            remark_text = remark_text.replace("{}", " to ".join(range_ends))
        person_labels = [*labels_by_remark_kind[remark_kind]]
        summary_rows.append(
            (
                "note" if is_note else "WARNING",
                f"{remark_text}: {format_participants(len(person_labels))}, {join_names(person_labels)}",
            )
        )
    return summary_rows
