"""Pictures of filled recordings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Okabe and Ito's colours, told apart by all kinds of colour vision.
OBSERVED, MEDIAN, BAND, TRUTH = "#1f2933", "#0072B2", "#56B4E9", "#D55E00"


def plot_imputation(
    observed: pd.DataFrame,
    median: NDArray[np.float64],
    lower: NDArray[np.float64],
    upper: NDArray[np.float64],
    truth: pd.DataFrame | None = None,
    units: dict[str, str] | None = None,
    title: str = "",
    coverage: float = 0.9,
) -> Any:
    """Draw one panel per channel: what was observed, the filled median, its band and the truth.

    Parameters
    ----------
    observed : DataFrame of shape (n_timestamps, n_channels)
        With NaN in the gaps.
    median, lower, upper : array of shape (n_timestamps, n_channels)
    truth : DataFrame, optional
        The complete recording, drawn inside the gaps.
    units : dict, optional
        Unit per column, for the labels.
    title : str
    coverage : float, default=0.9
        What the band was asked to cover, for the legend.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    n = observed.shape[1]
    figure = Figure(figsize=(10, 1.2 + 1.35 * n), layout="constrained")
    axes = figure.subplots(n, 1, sharex=True, squeeze=False)[:, 0]
    x = observed.index
    for k, (ax, name) in enumerate(zip(axes, observed.columns, strict=True)):
        gap = observed[name].isna().to_numpy()
        # Touching the neighbours closes the line between what is observed and what is filled.
        drawn = gap | np.r_[gap[1:], False] | np.r_[False, gap[:-1]]
        ax.plot(x, observed[name], color=OBSERVED, lw=1, label="observed")
        if truth is not None:
            ax.plot(
                x, truth[name].where(drawn), color=TRUTH, lw=1, ls=(0, (3, 1.5)), label="truth, hidden from the model"
            )
        ax.plot(x, np.where(drawn, median[:, k], np.nan), color=MEDIAN, lw=1.6, label="filled: median")
        ax.fill_between(
            x, lower[:, k], upper[:, k], where=drawn, color=BAND, alpha=0.4, lw=0, label=f"{coverage:.0%} band"
        )
        ax.set_ylabel(f"{name}\n[{units[name]}]" if units and name in units else str(name), fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, title=title)
    axes[-1].set_xlabel(x.name or ("time" if isinstance(x, pd.DatetimeIndex) else "row"))
    return figure
