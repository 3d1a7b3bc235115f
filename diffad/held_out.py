"""Rows of recordings that a model is judged on and not fitted to: whole blocks, never scattered rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Held-out blocks spread over the data, and the share of rows they take together.
HELD_OUT_BLOCKS = 4
HELD_OUT_SHARE = 0.12


def held_out(rows: int, length: int) -> NDArray[np.bool_]:
    """Mark rows of evenly spread blocks, each at least one and a half windows long; none of few rows."""
    mark = np.zeros(rows, bool)
    if rows < 8 * length:
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
