"""Faults put into encoded rows: strange rows that say what evidence is worth, where no label does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Ints = NDArray[np.int64]

#: How far a number is off, and how far noise moves all of them, in standard deviations.
SHIFT, NOISE = 1.0, 0.3
#: Share of the columns that come from another row.
SWAPPED = 0.25


def _one_swapped(rows: Matrix, owner: Ints, rng: np.random.Generator) -> Matrix:
    """One column comes from another row."""
    column = rng.integers(0, owner.max() + 1, (len(rows), 1))
    return np.where(owner == column, rng.permutation(rows), rows)


def _some_swapped(rows: Matrix, owner: Ints, rng: np.random.Generator) -> Matrix:
    """Some columns come from another row."""
    columns = rng.random((len(rows), owner.max() + 1)) < SWAPPED
    return np.where(columns[:, owner], rng.permutation(rows), rows)


def _between(rows: Matrix, owner: Ints, rng: np.random.Generator) -> Matrix:
    """The numbers lie half way to another row's."""
    return np.where(_numbers(owner), (rows + rng.permutation(rows)) / 2, rows)


def _noisy(rows: Matrix, owner: Ints, rng: np.random.Generator) -> Matrix:
    """Every number is a little off."""
    return rows + NOISE * rows.std(0) * _numbers(owner) * rng.standard_normal(rows.shape)


def _shifted(rows: Matrix, owner: Ints, rng: np.random.Generator) -> Matrix:
    """One number is off."""
    numbers = np.flatnonzero(_numbers(owner))
    if not len(numbers):
        return rows
    entry = rng.choice(numbers, (len(rows), 1))
    size = SHIFT * rows.std(0) * rng.choice([-1.0, 1.0], (len(rows), 1))
    return np.where(np.arange(len(owner)) == entry, rows + size, rows)


#: Each returns faulty rows (n, d) of rows (n, d), given the column behind each entry.
ROW_FAULTS: dict[str, Callable[[Matrix, Ints, np.random.Generator], Matrix]] = {
    "one_swapped": _one_swapped,
    "some_swapped": _some_swapped,
    "between": _between,
    "noisy": _noisy,
    "shifted": _shifted,
}


def _numbers(owner: Ints) -> NDArray[np.bool_]:
    """Return which encoded entries are numbers: the indicators of a category are several to a column."""
    return np.asarray(np.bincount(owner)[owner] == 1)
