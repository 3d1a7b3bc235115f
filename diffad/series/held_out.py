"""Rows of recordings that a model is judged on and not fitted to: whole blocks or series, never scattered rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Held-out blocks spread over a series, and the share of rows they take together.
HELD_OUT_BLOCKS = 4
HELD_OUT_SHARE = 0.12
#: Windows that a series must be long to spare blocks; short ones must be as many, and hold as many, to spare some.
LEAST_WINDOWS = 8


def held_out(lengths: list[int], window: int) -> list[NDArray[np.bool_]]:
    """Mark rows of each series, given how many it has.

    Series of at least `LEAST_WINDOWS` windows spare blocks of their rows. Where none is as long, but series are many
    (panels, groups), every eighth or so is held out as a whole, of those that are not shorter than most. None is of few
    rows.
    """
    marks = [_blocks(rows, window) for rows in lengths]
    if any(mark.any() for mark in marks) or min(len(lengths), sum(lengths) / window) < LEAST_WINDOWS:
        return marks
    # A series that is short even among these would say little.
    usual = [k for k, rows in enumerate(lengths) if rows >= np.median(lengths)]
    count = max(1, round(HELD_OUT_SHARE * len(lengths)))
    for i in range(count):
        marks[usual[len(usual) * (i + 1) // count - 1]][:] = True
    return marks


def _blocks(rows: int, length: int) -> NDArray[np.bool_]:
    """Mark rows of evenly spread blocks, each at least one and a half windows long; none of few rows."""
    mark = np.zeros(rows, bool)
    if rows < LEAST_WINDOWS * length:
        return mark
    size = max(3 * length // 2, int(rows * HELD_OUT_SHARE / HELD_OUT_BLOCKS))
    blocks = min(HELD_OUT_BLOCKS, max(1, rows // (5 * size)))
    for i in range(blocks):
        # The last block ends the recording: a model is asked about what comes after its data.
        stop = rows * (i + 1) // blocks
        mark[stop - size : stop] = True
    return mark


def split(series: list[Array], held: list[NDArray[np.bool_]], keep: bool) -> list[Array]:
    """Return the contiguous runs of rows that are (or are not) held out."""
    runs: list[Array] = []
    for rows, mark in zip(series, held, strict=True):
        edges = np.flatnonzero(np.diff(mark.astype(np.int8))) + 1
        pieces = np.split(rows, edges)
        marks = np.split(mark, edges)
        runs += [p for p, m in zip(pieces, marks, strict=True) if m[0] == keep]
    return runs
