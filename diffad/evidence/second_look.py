"""A second look at a lone channel: what is strange by itself is hidden, and rows around it are judged by what is left.

Windows that reach into a fault are as strange as the fault, so that the rows up to half a window around it would look as
strange as it does.  Of a lone channel the nearest few rows tell, to the row, what was never met; the rest of a
window must be strange without it to stay so.  Several channels are looked at once: what tells a row of theirs by itself
also hides the ends of drifts, whose beginnings are then found no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_dilation

Array = NDArray[np.float32]

#: Root of -log p of "nearest" from which a row is strange by itself.
STRANGE = 2.6
#: Rows between strange ones that belong to them.
BETWEEN = 24
#: Share of what the first look found more than the second that counts beside it, and the most of it: the first rows of
#: a drift are strange only by what comes after them.
FIRST, MOST_OF_FIRST = 0.5, 1.0
#: Share of the rows from which on all are looked at again at once.
MOST = 0.5


def second_look(
    rows: Array, first: Mapping[str, Array], look: Callable[[Array], Mapping[str, Array]], reach: int
) -> dict[str, Array]:
    """Return the evidence of rows of a lone channel, less where it is owed to strange rows nearby.

    Parameters
    ----------
    rows : array (n, 1)
        Standardised, NaN = missing.
    first : mapping of kind to array (n, 1)
        Their evidence; without "nearest" it stays as it is.
    look : callable
        Rows to evidence.
    reach : int
        Rows to either side that windows see.
    """
    result = dict(first)
    hidden = _strange(first)
    if not hidden.any():
        return result
    left = np.where(hidden[:, None], np.nan, rows).astype(np.float32)
    for near in _surroundings(hidden, reach):
        context = slice(max(0, near.start - reach), near.stop + reach)
        again = look(left[context])
        inside = slice(near.start - context.start, near.stop - context.start)
        judged = ~hidden[near, None]
        # Readings that are missing are no less so for others being hidden.
        for kind in result.keys() - {"missing"}:
            before = first[kind][near]
            least = np.minimum(before, again[kind][inside])
            fallen = least + np.minimum(FIRST * (before - least), MOST_OF_FIRST)
            if result[kind] is first[kind]:
                result[kind] = first[kind].copy()
            result[kind][near] = np.where(judged, fallen, before)
    return result


def _strange(first: Mapping[str, Array]) -> NDArray[np.bool_]:
    """Return which rows (n,) are strange by themselves, or lie between such rows."""
    if "nearest" not in first:
        return np.zeros(len(next(iter(first.values()))), bool)
    strange = np.pad(first["nearest"][:, 0] > STRANGE, BETWEEN)
    return np.asarray(binary_closing(strange, np.ones(BETWEEN + 1))[BETWEEN:-BETWEEN], bool)


def _surroundings(hidden: NDArray[np.bool_], reach: int) -> Iterator[slice]:
    """Yield the stretches of rows whose windows hold hidden ones."""
    near = np.asarray(binary_dilation(hidden, np.ones(2 * reach + 1)))
    if near.mean() > MOST:
        yield slice(0, len(near))
        return
    edges = np.flatnonzero(np.diff(np.r_[False, near, False]))
    yield from map(slice, edges[::2].tolist(), edges[1::2].tolist())
