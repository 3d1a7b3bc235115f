"""Pictures of filled recordings, of alarms and of what a detector can see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.base.whole_files import replacing
from diffad.faults import SIZELESS

if TYPE_CHECKING:
    from diffad.detection import Explanation

# Okabe and Ito's colours, told apart by all kinds of colour vision.
OBSERVED, MEDIAN, BAND, TRUTH = "#1f2933", "#0072B2", "#56B4E9", "#D55E00"


def _drawable(place: Any) -> Any:
    """Return an index, or a label of one, as matplotlib can draw it: periods as their start, durations in seconds."""
    if isinstance(place, pd.PeriodIndex | pd.Period):
        return place.to_timestamp()
    return place.total_seconds() if isinstance(place, pd.TimedeltaIndex | pd.Timedelta) else place


def _axis_label(index: pd.Index) -> str:
    if isinstance(index, pd.TimedeltaIndex):
        return f"{index.name or 'time'} [s]"
    return str(index.name or ("time" if isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) else "row"))


def write_picture(figure: Any, path: str | Path, dpi: int = 110) -> None:
    """Write a matplotlib figure whole or not at all, in the format that the ending says.

    See :func:`diffad.base.whole_files.replacing`.
    """
    with replacing(path) as draft:
        figure.savefig(draft, dpi=dpi)


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

    median, lower, upper = map(np.asarray, (median, lower, upper))
    n = observed.shape[1]
    figure = Figure(figsize=(10, 1.2 + 1.35 * n), layout="constrained")
    axes = figure.subplots(n, 1, sharex=True, squeeze=False)[:, 0]
    x = _drawable(observed.index)
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
        ax.set_ylabel(_channel_label(name, units), fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, title=title)
    axes[-1].set_xlabel(_axis_label(observed.index))
    return figure


def plot_detection(
    observed: pd.DataFrame,
    explanation: Explanation,
    score: NDArray[np.float64],
    offset: float,
    events: pd.DataFrame,
    faults: pd.DataFrame | None = None,
    units: dict[str, str] | None = None,
    title: str = "",
) -> Any:
    """Draw each channel with its expected band, the score with its threshold, and the events.

    Parameters
    ----------
    observed : DataFrame of shape (n_timestamps, n_channels)
        The channels to draw, some of those explained in any order.
    explanation : Explanation
        Of the detector, for the same rows.
    score : array of shape (n_timestamps,)
        ``-score_samples``, drawn on a logarithmic axis.
    offset : float
        The detector's ``offset_``.
    events : DataFrame
        As `SeriesDetector.events` returns it; an event is shaded in the channels to blame.
    faults : DataFrame, optional
        True ``start`` and ``end`` (as labels of the index), marked above the score.
    units : dict, optional
        Unit per column, for the labels.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    n = observed.shape[1]
    figure = Figure(figsize=(11, 2.2 + 1.25 * n), layout="constrained")
    *axes, bottom = figure.subplots(n + 1, 1, sharex=True, squeeze=False, height_ratios=[1.0] * n + [1.4])[:, 0]
    x = _drawable(observed.index)
    shaded = [(_drawable(event.start), _drawable(event.end), event.channels) for event in events.itertuples()]
    known = [str(c) for c in explanation.lower.columns]
    for k, (ax, name) in enumerate(zip(axes, observed.columns, strict=True)):
        # A detector of an array has names of its own.
        place = known.index(str(name)) if str(name) in known else k
        _draw_channel(ax, x, observed.iloc[:, k], explanation, place)
        ax.set_ylabel(_channel_label(name, units), fontsize=9)
        for start, end, channels in shaded:
            if str(name) in channels:
                ax.axvspan(start, end, color=TRUTH, alpha=0.25, lw=0, label="alarm: channel to blame")
    _draw_score(bottom, x, score, -offset)
    for start, end, _ in shaded:
        bottom.axvspan(start, end, color=TRUTH, alpha=0.25, lw=0)
    top = float(np.nanmax(score)) * 1.6
    for fault in (faults if faults is not None else pd.DataFrame()).itertuples():
        span = [_drawable(fault.start), _drawable(fault.end)]
        bottom.plot(span, [top, top], color=MEDIAN, lw=4, solid_capstyle="butt", label="true fault")
    bottom.set_xlabel(_axis_label(observed.index))
    for ax in (*axes, bottom):
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0)
    handles = {label: h for ax in (*axes, bottom) for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5, frameon=False, title=title)
    return figure


def _draw_channel(ax: Any, x: Any, values: pd.Series, explanation: Explanation, place: int) -> None:
    """Draw what a channel showed in the band of what the column at `place` of the explanation should have shown."""
    lower, upper = explanation.lower.iloc[:, place], explanation.upper.iloc[:, place]
    ax.fill_between(x, lower, upper, color=BAND, alpha=0.45, lw=0, label="expected: 90 % band")
    shown = values.to_numpy(dtype=float, na_value=np.nan)
    ax.plot(x, shown, color=OBSERVED, lw=0.8, label="observed")
    if np.isfinite(shown).any():  # a dead sensor has its band alone
        low, high = np.nanquantile(shown, [0, 1])
        ax.set_ylim(low - 0.1 * (high - low or 1), high + 0.1 * (high - low or 1))


def _draw_score(ax: Any, x: Any, score: NDArray[np.float64], threshold: float) -> None:
    ax.plot(x, score, color=OBSERVED, lw=0.8)
    ax.axhline(threshold, color=TRUTH, lw=1, ls=(0, (4, 2)), label="threshold")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.set_ylabel("score", fontsize=9)


def _channel_label(name: Any, units: dict[str, str] | None) -> str:
    return f"{name}\n[{units[name]}]" if units and name in units else str(name)


def plot_detectability(table: pd.DataFrame) -> Any:
    """Draw `detectability` as a heat map: the smallest fault that is found, per channel and kind.

    Parameters
    ----------
    table : DataFrame
        As `detectability` returns it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    order = {"index": table["channel"].unique(), "columns": table["kind"].unique()}
    sizes = table.pivot(index="channel", columns="kind", values="size").reindex(**order)
    rows = table.pivot(index="channel", columns="kind", values="rows").reindex(**order)
    finite = sizes.where(np.isfinite(sizes))
    steps = (
        np.unique(finite.to_numpy()[np.isfinite(finite.to_numpy())]) if finite.notna().any(axis=None) else np.ones(1)
    )
    smallest_of_all, middle = steps[0], np.sqrt(steps[0] * steps[-1])
    figure = Figure(figsize=(2 + 0.9 * sizes.shape[1], 1.6 + 0.5 * len(sizes)), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(
        finite, cmap="viridis", norm=LogNorm(smallest_of_all, max(steps[-1], 1.01 * smallest_of_all)), aspect="auto"
    )
    ax.set_xticks(range(sizes.shape[1]), sizes.columns, rotation=40, ha="right")
    ax.set_yticks(range(len(sizes)), sizes.index)
    for i in range(len(sizes)):
        for j in range(sizes.shape[1]):
            size, late = sizes.iat[i, j], rows.iat[i, j]
            smallest = "found" if sizes.columns[j] in SIZELESS else f"{size:g}"
            text = f"{smallest}\n{late:.0f} rows" if np.isfinite(size) else "not\nfound"
            light = np.isfinite(size) and size > middle
            ax.text(
                j, i, text, ha="center", va="center", fontsize=7, color="black" if light or np.isinf(size) else "white"
            )
    scale = figure.colorbar(image, label="smallest size found [standard deviations]", ticks=steps, format="%g")
    scale.minorticks_off()
    return figure
