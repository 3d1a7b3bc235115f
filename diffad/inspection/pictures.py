"""Pictures of an inspection: the strangest images with their heat and what was expected, and the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffad.plot import BAND, OBSERVED, TRUTH

if TYPE_CHECKING:
    from diffad.image_detector import ImageExplanation

#: Heat that is drawn as the brightest, at least: good images hover around 1.
BRIGHTEST = 10.0
#: Even in lightness, so that it reads in grey and with any colour vision.
COLOURS = "inferno"
#: Contour of the hottest pixels, as a part of the brightest.
OUTLINE = 0.5
PANELS = ("image", "heat", "expected")
#: Images side by side.
COLUMNS = 2


def brightest(found: ImageExplanation) -> float:
    """Return the heat that ends the colour scale of a sheet: pictures of one sheet share it."""
    return max(BRIGHTEST, float(np.quantile(found.heat, 0.995))) if found.heat.size else BRIGHTEST


def plot_inspection(
    images: NDArray[np.floating],
    found: ImageExplanation,
    titles: Sequence[str],
    top: float | None = None,
) -> Any:
    """Draw each image, its heat and what was expected of it, side by side.

    Parameters
    ----------
    images : array (n, height, width[, channels])
        Missing pixels are drawn in the colour of the page.
    found : ImageExplanation
        Of the detector, for the same images.
    titles : sequence of str
        One per image: its name and score.
    top : float, optional
        Heat that ends the colour scale; None is `brightest` of `found`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    n = len(images)
    columns = min(COLUMNS, n)
    rows = -(-n // columns)
    shape = images.shape[2] / images.shape[1]
    width = 1.7 * float(np.clip(shape, 0.5, 2))
    figure = Figure(
        figsize=(3 * width * columns + 1.2, max(2.2, (width / shape + 0.32) * rows + 0.3)), layout="constrained"
    )
    axes = figure.subplots(rows, 3 * columns, squeeze=False)
    for ax in axes.ravel():
        ax.set_axis_off()
    top = top or brightest(found)
    drawn: Any = None
    for k in range(n):
        left, middle, right = axes[k // columns, 3 * (k % columns) :][:3]
        low, high = np.nanmin(images[k]), np.nanmax(images[k])
        left.imshow(_shown(images[k], low, high), cmap="gray", vmin=0, vmax=1)
        drawn = middle.imshow(found.heat[k], cmap=COLOURS, vmin=0, vmax=top)
        right.imshow(_shown(found.expected[k], low, high), cmap="gray", vmin=0, vmax=1)
        if min(found.heat[k].shape) > 1 and found.heat[k].max() > OUTLINE * top:
            left.contour(found.heat[k], [OUTLINE * top], colors=[TRUTH], linewidths=1)
        left.set_title(titles[k], fontsize=8, loc="left")
    for k in range(3 * columns):
        axes[0, k].text(0.5, -0.02, PANELS[k % 3], transform=axes[0, k].transAxes, ha="center", va="top", fontsize=8)
    figure.colorbar(drawn, ax=axes, label="heat (good images: about 1)", shrink=min(1.0, 2.5 / rows), extend="max")
    return figure


def plot_scores(normal: NDArray[np.float64], new: NDArray[np.float64], threshold: float) -> Any:
    """Draw how strange the good images and the inspected ones are, with the threshold between.

    Parameters
    ----------
    normal, new : array
        Strangeness, ``-score_samples``, of good images and of inspected ones.
    threshold : float
        ``-offset_``.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    # Scores of 0, an image without pixels, have no place on a logarithmic axis.
    least = max(min(normal.min(), new.min()), 1e-3 * threshold, 1e-9)
    bins = np.geomspace(least, 1.05 * max(normal.max(), new.max(), threshold, 2 * least), 50)
    for ax, scores, name, colour in ((upper, normal, "good", BAND), (lower, new, "inspected", OBSERVED)):
        ax.hist(np.maximum(scores, least), bins, color=colour)
        ax.axvline(threshold, color=TRUTH, lw=1.5, ls=(0, (4, 2)), label="threshold")
        ax.set_ylabel(f"{name}\n[images]", fontsize=9)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        ax.spines[["top", "right"]].set_visible(False)
    upper.legend(frameon=False, fontsize=9, loc="upper right")
    lower.set_xscale("log")
    lower.set_xlabel("score, larger = stranger")
    return figure


def _shown(image: NDArray[np.floating], low: float, high: float) -> NDArray[np.floating]:
    """Return an image between 0 and 1 as matplotlib draws it: grey, colour, or the first of other channels."""
    unit = np.clip((image - low) / max(high - low, 1e-9), 0, 1)
    if unit.ndim == 2:
        return unit
    if unit.shape[2] != 3:
        return unit[..., 0]
    missing = np.isnan(unit).any(2, keepdims=True)
    return np.asarray(np.concatenate([np.nan_to_num(unit), ~missing], 2))
