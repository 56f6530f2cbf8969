"""A folder that `derive` writes -> its page: everybody's maps, how much people moved, and who was left out.

The page is made of what lies in the folder alone, so that the last of several shares shows everybody. Pictures lie
beside the maps, in `sub-<label>/figures/`; why a person failed is in `sub-<label>/log/failure.txt`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from data.base import files
from data.base.errors import InputError
from data.cohorts.derivation import DUAL_REGRESSION
from data.cohorts.pictures import CUTS
from data.cohorts.rows import listed
from data.conversion.discovery import entities_of
from data.conversion.tables import ids_of, key, read_table
from data.derivation.output import PAGE, PAGE_KIND, json_of
from data.pages.mosaic import LARGER, LEGEND, MOTION_UNKNOWN, PICTURES, SCRIPT, Mosaic, Tile, counted, left_out
from data.pages.page import Number, Page, Section, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAILURE = "log/failure.txt"  # in a person's folder
NOT_YET = "Another share or a later command derives them"
NO_SCAN = "in the table of people, but without a scan"


@dataclass(frozen=True)
class Derived:
    """What lies in a person's folder."""

    label: str
    pictures: Mapping[str, Path]  # by map, as file names have it
    facts: Mapping[str, Any]  # the JSON beside a map or the series; nothing if neither is there
    failure: str

    @property
    def motion_mm(self) -> float | None:
        return number(self.facts.get("MeanFramewiseDisplacement"))

    @property
    def kept(self) -> tuple[float, float] | None:
        """Volumes kept, and all; None if unknown."""
        kept, every = (number(self.facts.get(name)) for name in ("NumberOfVolumesKept", "NumberOfVolumes"))
        return (kept, every) if kept is not None and every else None

    @property
    def about(self) -> str:
        moved = [] if self.motion_mm is None else [f"FD {self.motion_mm:.2f} mm"]
        volumes = [f"{self.kept[0]:g} of {self.kept[1]:g} volumes"] if self.kept else []
        return ", ".join([*moved, *volumes])


def number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < float("inf") else None


def keep_failure(folder: Path, failure: str) -> None:
    """Writes why a person failed into the person's folder, or removes what an earlier command wrote."""
    path = folder / FAILURE
    if not failure:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
        file.write(f"{failure}\n")


def write(folder: Path, everybody: Iterable[str], table: Path | None, maps: Sequence[str]) -> str:
    """The page of a folder, for the people of whom there are scans; of several processes the last one to write it has
    seen what all wrote. The first of these `maps` is shown first. Returns a line on what the page shows."""
    with files.locked(folder, wait=True):
        labels = {*everybody, *(path.name.removeprefix("sub-") for path in folder.glob("sub-*"))}
        people = [found_of(folder, label) for label in sorted(labels)]
        page = page_of(folder, people, without_scan(table, labels), maps)
        with files.replacing(folder / PAGE) as file:
            file.write(render(page))
    pictures = "Pictures of people, head" if any(one.facts and one.pictures for one in people) else "Head"
    return f"{pictures} motion, who was left out: {folder / PAGE}"


def found_of(folder: Path, label: str) -> Derived:
    own = folder / f"sub-{label}"
    pictures = {entities_of(path.name).get("stat", path.stem): path for path in sorted(own.glob("figures/sub-*.webp"))}
    # The JSON is written first; without a map or series it says that a command was stopped
    made = (json_of(path) for path in sorted(own.glob("func/sub-*")) if path.suffix != ".json")
    try:
        facts = next((files.read_json(path, dict) for path in made if path.is_file()), {})
        failure = (own / FAILURE).read_text(encoding="utf-8").strip() if (own / FAILURE).is_file() else ""
    except (InputError, ValueError) as error:
        return Derived(label, pictures, {}, str(error))
    return Derived(label, pictures, facts, failure)


def without_scan(table: Path | None, labels: Iterable[str]) -> list[str]:
    """People of the table of whom there is no scan; nobody if the table has nobody with a scan."""
    if table is None:
        return []
    known = set(map(key, labels))
    try:
        named = dict.fromkeys(ids_of(read_table(table), known))
    except InputError:
        return []
    return [one for one in named if one and one not in known] if known & named.keys() else []


def page_of(folder: Path, people: Sequence[Derived], absent: Sequence[str], maps: Sequence[str]) -> Page:
    done = [one for one in people if one.facts]
    to_come = [one.label for one in people if not (one.facts or one.failure)]
    reasons = by_reason((one.label, one.failure) for one in people if one.failure)
    reasons |= {NO_SCAN: list(absent)} if absent else {}
    missing = sum(map(len, reasons.values()))
    numbers = [
        Number(f"{len(done):,}", "people derived", f"of {len(people):,} with scans"),
        Number(f"{missing:,}", "people left out or failed", f"{len(to_come):,} not derived yet" * bool(to_come)),
    ]
    moved = [one.motion_mm for one in done if one.motion_mm is not None]
    if moved:
        numbers.append(Number(f"{median(moved):.2f} mm", "median of mean FD", f"of {len(moved):,}"))
    unknown = [Section("What is not known", [MOTION_UNKNOWN], kind="warning")] if done and not moved else []
    sections = [
        *unknown,
        *of_people(folder, done, maps),
        *of_motion(done),
        left_out(reasons, "Nobody."),
    ]
    if to_come:
        sections.append(Section("Not derived yet", [f"{counted(len(to_come))}. {NOT_YET}: {', '.join(to_come)}."]))
    return Page(PAGE_KIND, "Maps derived from scans", f"{len(done):,} people", sections, numbers, script=SCRIPT)


def by_motion(people: Iterable[Derived]) -> list[Derived]:
    """Those who moved most come first, those of whom it is not known last."""
    return sorted(people, key=lambda one: (one.motion_mm is None, -(one.motion_mm or 0), one.label))


def of_people(folder: Path, done: Sequence[Derived], maps: Sequence[str]) -> Iterator[Section]:
    """A warning, and the mosaic of people, if there are pictures of any."""
    wanted = {name.replace("_", ""): name for name in maps}
    found = dict.fromkeys([*wanted, *(name for one in done for name in one.pictures)])
    names = {name: wanted.get(name, name) for name in found if any(name in one.pictures for one in done)}
    if not names:
        return
    yield Section("Pictures of people", [PICTURES], kind="warning")
    tiles = [tile_of(folder, one, names) for one in by_motion(done)]
    tiles.sort(key=lambda tile: not tile.odd)
    known = any(one.motion_mm is not None for one in done)
    by_fd = "Who moved most comes first. FD is the mean framewise displacement. " * known
    texts = [
        f"A picture shows {CUTS}. {LEGEND}",
        f"{by_fd}{LARGER}",
    ]
    if DUAL_REGRESSION.replace("_", "") in names:
        texts.append(f"Of {DUAL_REGRESSION}, a picture shows the first network only.")
    mosaic = Mosaic(tiles, list(names.values()))
    yield Section("Everybody", texts, markup=mosaic.markup, open=True)


def tile_of(folder: Path, one: Derived, names: Mapping[str, str]) -> Tile:
    """A person in the mosaic of maps; these are called otherwise on the page than in `names` of files."""
    urls = [
        f"--m{at}:url({quote(one.pictures[name].relative_to(folder).as_posix())})"
        for at, name in enumerate(names)
        if name in one.pictures
    ]
    lacking = [shown for name, shown in names.items() if name not in one.pictures]
    of_some = f" of {listed(lacking)}" if one.pictures else ""
    about = filter(None, [one.about, f"no picture{of_some}" * bool(lacking)])
    return Tile(f"sub-{one.label}", ", ".join(about), ";".join(urls), ["failed, see below"] * bool(one.failure))


def of_motion(done: Sequence[Derived]) -> Iterator[Section]:
    """Mean framewise displacement and volumes kept, of each person."""
    table = []
    for one in by_motion(done):
        kept, every = one.kept or (None, None)
        table.append(
            {
                "person": f"sub-{one.label}",
                "mean FD, mm": "-" if one.motion_mm is None else f"{one.motion_mm:.3f}",
                "volumes": "-" if every is None else f"{every:g}",
                "kept": "-" if kept is None else f"{kept:g}",
                "kept, %": "-" if kept is None or every is None else f"{100 * kept / every:.0f}",
            }
        )
    if not table:
        return
    known = [(one.motion_mm, one.kept[0] / one.kept[1]) for one in done if one.motion_mm is not None and one.kept]
    text = "Volumes that are not kept are those before the steady state, and scrubbed or censored ones."
    unknown = f" The motion of {len(done) - len(known):,} people is not known." if len(known) < len(done) else ""
    figure = drawn_motion(known) if known else None
    yield Section("Head motion", [text + unknown], figure, table, open=True, filtered=True)


def drawn_motion(known: Sequence[tuple[float, float]]) -> "Figure":
    """Each person a point: mean framewise displacement, and the share of volumes kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    figure.set_label("head-motion-and-volumes-kept")
    axis = figure.subplots()
    moved, shares = zip(*known, strict=True)
    axis.scatter(moved, [100 * share for share in shares], s=14, alpha=0.6, linewidths=0)
    axis.set(xlabel="mean framewise displacement, mm", ylabel="volumes kept, %", ylim=(0, 105), xlim=(0, None))
    return figure


def by_reason(failures: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The labels of people by why each failed; in a reason they are `sub-*`, so that many have the same."""
    found = dict[str, list[str]]()
    for label, failure in failures:
        found.setdefault(failure.replace(f"sub-{label}", "sub-*"), []).append(label)
    return found
