"""The gate: what was learnt joins in only as far as it is seen to help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

Way = TypeVar("Way")


def admitted(ways: Sequence[Way], merit: ArrayLike, worth: float) -> Way:
    """Return the way of most merit; the first, which is to do without, unless another wins more than `worth` over it.

    Parameters
    ----------
    ways : sequence
        To do without, and others.
    merit : array-like of shape (n_ways,)
        How well each does on data that nothing was fitted to.
    worth : float

    Examples
    --------
    >>> admitted([0.0, 0.5, 1.0], [0.70, 0.73, 0.72], worth=0.01)
    0.5
    >>> admitted([0.0, 0.5, 1.0], [0.70, 0.73, 0.72], worth=0.05)
    0.0
    """
    found = np.asarray(merit)
    best = int(found.argmax())
    return ways[best] if found[best] > found[0] + worth else ways[0]
