"""Accuracy of samples (continuous ranked probability score, coverage) and of alarms (VUS-PR)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from diffad.base.arguments import check_count
from diffad.base.masked_arrays import unmasked

#: Thresholds between which the volume under the surface is added up, as the authors do.
N_THRESHOLDS = 250


def crps(samples: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Return the fair ensemble CRPS of each entry; lower is better, in the data's unit.

    ``mean |x_i - y| - sum_ij |x_i - x_j| / (2 m (m - 1))``, unbiased for few samples (Ferro 2014).

    Parameters
    ----------
    samples : array-like of shape (m, ...), m >= 2
    truth : array-like of shape (...)

    Returns
    -------
    array of shape (...)

    Raises
    ------
    ValueError
        For fewer than two samples.

    Examples
    --------
    >>> crps([[0.0], [2.0]], [1.0]).tolist()
    [0.0]
    """
    s = np.sort(np.asarray(unmasked(samples), dtype=float), axis=0)
    m = len(s)
    if m < 2:
        raise ValueError(f"samples must hold at least 2 samples along the first axis, got {m}")
    rank = np.arange(1, m + 1).reshape(-1, *([1] * (s.ndim - 1)))
    distance: NDArray[np.float64] = np.abs(s - np.asarray(unmasked(truth))).mean(0)
    return distance - ((2 * rank - m - 1) * s).sum(0) / (m * (m - 1))


def coverage(lower: ArrayLike, upper: ArrayLike, truth: ArrayLike) -> float:
    """Return the share of entries inside ``[lower, upper]``, of those whose truth is known.

    Parameters
    ----------
    lower, upper, truth : array-like of one shape
        Entries with a truth of NaN do not count; NaN where all are.

    Returns
    -------
    float

    Examples
    --------
    >>> coverage([0.0, 0.0], [1.0, 1.0], [0.5, 2.0])
    0.5
    """
    low, high, y = (np.asarray(np.ma.getdata(values)) for values in (lower, upper, truth))
    no_band = np.ma.getmaskarray(np.ma.asarray(lower)) | np.ma.getmaskarray(np.ma.asarray(upper))
    unknown = pd.isna(y) | np.ma.getmaskarray(np.ma.asarray(truth))
    inside, known = np.broadcast_arrays((low <= y) & (y <= high) & ~no_band, ~unknown)
    return float(inside[known].mean()) if known.any() else float("nan")


def vus_pr(y: ArrayLike, strangeness: ArrayLike, buffer: int) -> float:
    """Return the volume under the precision-recall surface of range-aware labels; higher is better.

    For every buffer length up to `buffer` the rows around an event earn part of a hit, falling
    with their distance, and recall counts only as far as events are found at all; the areas under
    the precision-recall curves are averaged.  Unlike point-adjusted F1, random scores do not win.

    Parameters
    ----------
    y : array-like of shape (n,)
        1 or True = anomalous, 0 or False = normal.
    strangeness : array-like of shape (n,)
        Larger = stranger.
    buffer : int
        Longest buffer in rows, about the length of an event or a period; 0 is the area under the curve of the rows
        themselves.

    Returns
    -------
    float
        1 at best. Of random scores about the share of anomalous rows without a buffer, and more the longer it is. As in
        the authors' program there are 250 thresholds, at equal shares of the rows: where fewer than one row in 250 is
        anomalous, even a perfect ranking earns less than 1.

    Raises
    ------
    ValueError
        For labels without an anomaly or other than 0 and 1, rows without a score, or a buffer that is no number of rows.

    References
    ----------
    Paparrizos et al. (2022), "Volume under the surface: a new accuracy evaluation measure for
    time-series anomaly detection", with the arithmetic of their implementation.

    Examples
    --------
    >>> y = np.zeros(300, int); y[100:110] = 1
    >>> vus_pr(y, y, buffer=0), vus_pr(y, -y, buffer=10) < 0.1
    (1.0, True)
    """
    check_count(buffer, "buffer", least=0)
    labels = np.asarray(unmasked(y))
    if not np.isin(labels, (0, 1)).all():
        other = labels[~np.isin(labels, (0, 1))].flat[0]
        remedy = "; of predict take y == -1" if other == -1 else ""
        raise ValueError(f"y must hold 1 for anomalous rows and 0 for the others, got {other!r}{remedy}")
    truth = labels.astype(bool)
    score = np.asarray(unmasked(strangeness), dtype=float)
    if truth.shape != score.shape or truth.ndim != 1:
        raise ValueError(f"y and strangeness must be of equal length, got shapes {truth.shape} and {score.shape}")
    if np.isnan(score).any():
        raise ValueError(f"strangeness holds NaN in {int(np.isnan(score).sum())} rows; give every row a score")
    if not truth.any():
        raise ValueError("y holds no anomaly; VUS-PR needs at least one")
    n = len(truth)
    edges = np.flatnonzero(np.diff(np.r_[0, truth, 0]))
    events = np.stack([edges[::2], edges[1::2] - 1], 1)  # first and last row
    levels = np.sort(score)[::-1][np.linspace(0, n - 1, N_THRESHOLDS).astype(int)]
    alarm = score >= levels[:, None]
    alarms = alarm.sum(1)
    widest = _mark(_widened(events, buffer, n), n)
    areas = []
    for width in range(buffer + 1):
        ranges = _widened(events, width, n)
        label = np.where(truth, 1.0, _soft_labels(events, width, n))
        near = _mark(ranges, n) & ~truth
        hits = alarm[:, widest] @ label[widest]
        # Half of the buffer's labels count as positives, as far as they are inside ranges and alarmed.
        soft = alarm[:, near] @ label[near] + label[widest & ~near & ~truth].sum()
        positives = truth.sum() + soft / 2
        existence = np.mean([alarm[:, a : b + 1].any(1) for a, b in ranges], 0)
        recall = np.minimum(hits / positives, 1) * existence
        precision = hits / alarms
        areas.append(np.diff(np.r_[0.0, recall]) @ precision)
    return float(np.mean(areas))


def _widened(events: NDArray[np.int64], width: int, n: int) -> list[tuple[int, int]]:
    """Extend events by half of `width` on either side and merge those that touch; first and last row."""
    half = width // 2
    ranges = [(max(int(events[0, 0]) - half, 0), int(events[0, 1]) + half)]
    for first, last in events[1:]:
        if ranges[-1][1] < first - half:
            ranges.append((int(first) - half, int(last) + half))
        else:
            ranges[-1] = (ranges[-1][0], int(last) + half)
    ranges[-1] = (ranges[-1][0], min(ranges[-1][1], n - 1))
    return ranges


def _mark(ranges: list[tuple[int, int]], n: int) -> NDArray[np.bool_]:
    mark = np.zeros(n, bool)
    for first, last in ranges:
        mark[first : last + 1] = True
    return mark


def _soft_labels(events: NDArray[np.int64], width: int, n: int) -> NDArray[np.float64]:
    """Return labels that fall as the root of the distance to an event, at most 1."""
    label = np.zeros(n)
    for first, last in events:
        after = np.arange(last + 1, min(last + width // 2 + 1, n))
        before = np.arange(max(first - width // 2, 0), first)
        label[after] += np.sqrt(1 - (after - last) / max(width, 1))
        label[before] += np.sqrt(1 - (first - before) / max(width, 1))
    return np.minimum(label, 1.0)
