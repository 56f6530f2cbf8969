"""What is worth a remark on scans that can be derived: a fact for each, with all whom it is about."""

from collections.abc import Iterable
from dataclasses import dataclass

from data.base.terminal import SummaryRow, format_participants
from data.cohorts.rows import join_names


@dataclass(frozen=True)
class Remark:
    """A remark on one scan."""

    text: str  # "{}" stands in the place of the number
    number: float | None = None  # what may differ between people of whom the rest of the text is true
    warning: bool = False  # whether results may be wrong


def remark_facts(remarks: Iterable[tuple[str, Remark]]) -> list[SummaryRow]:
    """A fact for each text, warnings first, of remarks and the people they are about; of several people who differ in
    the number, the lowest and the highest."""
    people = dict[tuple[bool, str], dict[str, None]]()
    numbers = dict[tuple[bool, str], list[float]]()
    for label, remark in remarks:
        kind = not remark.warning, remark.text
        people.setdefault(kind, {})[label] = None
        if remark.number is not None:
            numbers.setdefault(kind, []).append(remark.number)
    facts = list[SummaryRow]()
    for kind in sorted(people, key=lambda kind: kind[0]):
        is_note, text = kind
        if values := numbers.get(kind):
            ends = dict.fromkeys([f"{min(values):g}", f"{max(values):g}"])
            text = text.replace("{}", " to ".join(ends))
        labels = [*people[kind]]
        facts.append(
            ("note" if is_note else "WARNING", f"{text}: {format_participants(len(labels))}, {join_names(labels)}")
        )
    return facts
