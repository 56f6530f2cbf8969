"""Effects -> colours: red for the true class, blue against it, full where significant and pale where not."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from utils.scores.results import ALPHA

SHADES = 256  # colours from the largest effect against the true class (blue) to the largest for it (red)
PALE = 0.3  # opacity of what is not significant
EFFECT = "logit of the true class"


def shades(opacity: float) -> np.ndarray:
    """Colours (SHADES, 4), red, green, blue and opacity in 0..1, from the largest effect against the true class on."""
    return plt.get_cmap("RdBu_r")(np.linspace(0, 1, SHADES)) * (1, 1, 1, opacity)


def largest_effect(effect: np.ndarray) -> float:
    """The effect of the deepest colour."""
    return float(np.abs(effect).max()) or 1.0


def effect_ticks(largest: float) -> np.ndarray:
    """Five effects that are named beside the colours."""
    return largest * np.linspace(-1, 1, 5)


def colours(effect: np.ndarray, significant: np.ndarray) -> np.ndarray:
    """The colour of each effect, (...) -> (..., 4)."""
    share = (effect / largest_effect(effect) + 1) / 2
    found = shades(1)[np.rint(share * (SHADES - 1)).astype(int)]
    found[..., 3] = np.where(significant, 1, PALE)
    return found


def shading(p: pd.Series, at_chance: bool, what: str) -> str:
    """What pale and full colours of regions or other things, by their p, mean, in a sentence."""
    if at_chance:
        return f"All {what} are pale: the network is not shown to be better than chance on these subjects."
    if p.isna().all():
        return f"All {what} are pale: there are no p-values, since the subjects are of one class."
    if not (p < ALPHA).any():
        return f"All {what} are pale: none is significant (family-wise p < {ALPHA:g})."
    return f"Full colour: significant (family-wise p < {ALPHA:g}). Pale: not significant."


def draw_colours(axis: Axes, largest: float, marked: bool) -> None:
    """The colours of reliance, pale beside full ones if something is `marked` as significant."""
    opacities = {"significant": 1.0, "not significant": PALE} if marked else {"": PALE}
    columns = np.stack([shades(opacity) for opacity in opacities.values()], axis=1)
    axis.imshow(
        columns, origin="lower", aspect="auto", interpolation="nearest", extent=(0, len(opacities), -largest, largest)
    )
    axis.set_xticks(np.arange(len(opacities)) + 0.5, opacities, rotation=90, fontsize=8)
    axis.tick_params(axis="x", length=0)
    ticks = effect_ticks(largest)
    axis.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])
    axis.yaxis.tick_right()
    axis.yaxis.set_label_position("right")
    axis.set_ylabel(f"reliance: mean effect on the {EFFECT}")
