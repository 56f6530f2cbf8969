"""How a list of names is printed: the first ones, and how many more there are."""

from collections.abc import Callable, Sequence

MAX_LISTED_NAMES = 10  # names in a line
MAX_GROUP_MEMBERS_LISTED = 4  # members of a group in a line


def join_names(names: Sequence[str], max_names: int = MAX_LISTED_NAMES, separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    remainder_text = f" and {len(names) - max_names} more" if len(names) > max_names else ""
    return separator.join(names[:max_names]) + remainder_text


def join_group_names(groups: Sequence[Sequence[str]], format_name: Callable[[str], str] = str) -> str:
    """The first groups, and the first members of each, as `format_name` writes them."""
    group_texts = [" and ".join(map(format_name, group[:MAX_GROUP_MEMBERS_LISTED])) for group in groups]
    remainder_texts = [
        f" and {len(group) - MAX_GROUP_MEMBERS_LISTED} more" if len(group) > MAX_GROUP_MEMBERS_LISTED else ""
        for group in groups
    ]
    return join_names(
        [group_text + remainder_text for group_text, remainder_text in zip(group_texts, remainder_texts, strict=True)]
    )
