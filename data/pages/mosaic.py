"""Small pictures of people's maps -> the mosaic that a page shows: one map of everybody at a time."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from data.base.tables import make_printable
from data.base.terminal import format_participants
from data.pages.page import Section, load_template_environment

PICTURE_ASPECT_RATIO = "94 / 36"  # of the sides of a picture
PICTURES_WARNING = (
    "This page shows pictures of participants' brains. Keep it where their scans are, and do not publish it. "
    "Neither a bundle nor a packed cohort takes it along."
)
MOTION_UNKNOWN_WARNING = (
    "Head motion is known of nobody here, so nobody can tell later whether a result is motion. Tables of confounds "
    "beside the scans, or a column of the table of participants, would tell it."
)
MOSAIC_LEGEND = "Black is outside the brain. The values of each brain range from dark to bright."
ENLARGE_HINT = "Point at a picture, or go to it by Tab and arrow keys, to see it larger."
MOSAIC_SCRIPT = Markup("""
// Arrow keys go from picture to picture.
all(".mosaic ul").forEach(list => list.onkeydown = event => {
  const tiles = all(".tile", list), top = tile => tile.getBoundingClientRect().top;
  const columns = tiles.filter(tile => top(tile) === top(tiles[0])).length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const next = step && tiles[tiles.indexOf(event.target) + step];
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
""")


def make_css_url(webp_image: bytes) -> str:
    """A WebP file as CSS has it in a page."""
    return f"url(data:image/webp;base64,{base64.b64encode(webp_image).decode()})"


@dataclass(frozen=True)
class Tile:
    """A person in a mosaic: a name, what stands below it, what is odd, and where the picture is, as CSS."""

    name: str  # of the person
    about: str  # what stands below the name
    style: str  # CSS with the pictures, or where they are
    outlier_notes: Sequence[str] = ()

    @property
    def label(self) -> str:
        return ", ".join([self.name, *filter(None, [self.about]), *self.outlier_notes])


@dataclass(frozen=True)
class Mosaic:
    """People, those with something odd first, and their maps, of which one is shown at a time. CSS has the pictures of
    a map as `--m0`, `--m1` and so on: in the `style` of all, or in that of each tile."""

    tiles: Sequence[Tile]
    maps: Sequence[str]  # their names
    style: str = ""  # CSS with the pictures of all

    @property
    def markup(self) -> Markup:
        return Markup(  # noqa: S704  the template escapes what it shows
            load_template_environment().get_template("mosaic.html").render(mosaic=self, ratio=PICTURE_ASPECT_RATIO)
        )


def make_left_out_section(subjects_by_reason: Mapping[str, Sequence[str]], nobody_sentence: str) -> Section:
    """Who was left out, by reason, that of most people first; `nobody_sentence` if nobody was."""
    section_title = "Who was left out, and why"
    reasons_with_subjects_by_size = sorted(
        subjects_by_reason.items(), key=lambda reason_and_subjects: -len(reason_and_subjects[1])
    )
    if not reasons_with_subjects_by_size:
        return Section(section_title, [nobody_sentence])
    details_template = Markup("<details><summary>{}: {}</summary><p>{}</p></details>")
    details_markup = Markup("").join(
        details_template.format(
            make_printable(reason), format_participants(len(subjects)), make_printable(", ".join(subjects))
        )
        for reason, subjects in reasons_with_subjects_by_size
    )
    return Section(
        section_title,
        [f"{format_participants(sum(map(len, subjects_by_reason.values())))}."],
        markup=details_markup,
        open=True,
    )
