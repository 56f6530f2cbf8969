"""What must stand beside every result: simulated people, problems of the cohort, accepted leaks, shuffled labels."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Caveats:
    """`problems` invalidate results (`Cohort.problems`), `accepted_leaks` are those of --allowLeak; `transductive`: the
    people of a site, tested ones too, standardised its volumes."""

    simulated: bool = False
    problems: tuple[str, ...] = ()
    accepted_leaks: tuple[str, ...] = ()
    shuffled_labels: bool = False
    transductive: bool = False

    @property
    def marks(self) -> str:
        """` (SIMULATED, PROBLEMS: 2)` for titles and terminals, or nothing."""
        marks = {
            "SIMULATED": self.simulated,
            f"PROBLEMS: {len(self.problems)}": self.problems,
            "LEAK ACCEPTED": self.accepted_leaks,
            "SHUFFLED LABELS": self.shuffled_labels,
            "TRANSDUCTIVE": self.transductive,
        }
        found = [text for text, holds in marks.items() if holds]
        return f" ({', '.join(found)})" if found else ""

    @property
    def held(self) -> dict[str, Any]:
        """Those that hold, for JSON, without what the cohort's metadata say themselves."""
        names = ("problems", "shuffled_labels", "transductive")
        return {name: getattr(self, name) for name in names if getattr(self, name)}
