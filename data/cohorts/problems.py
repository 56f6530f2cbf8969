"""What invalidates results on a cohort: a sentence for people, and a code by which results are known."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """What invalidates a result. The `code` enters the keys of results, the `text` does not: it may be worded
    otherwise."""

    code: str  # a short name of what is wrong, and what makes it particular: `split-lacks-class: test, 0, 12`
    text: str  # a sentence

    @property
    def kind(self) -> str:
        """The code without what makes it particular, which may name people."""
        return self.code.partition(": ")[0]
