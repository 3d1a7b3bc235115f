"""Evenly spread rows, and the last ones, of a table that comes in chunks and has no known end, in bounded memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass
class Thinned:
    """Every row as long as there are few, then about every second, every fourth and so on.

    Which rows stay depends on their numbers alone, but in no regular way: where requests and answers take turns, every
    second row would be a request.

    Parameters
    ----------
    most : int
        Rows kept, at most.

    Attributes
    ----------
    seen : int
        Rows that came.

    Examples
    --------
    >>> import pandas as pd
    >>> from diffad.flows.thinning import Thinned
    >>> thinned = Thinned(most=50)
    >>> for start in (0, 60):
    ...     thinned.add(pd.DataFrame({"x": range(start, start + 60)}))
    >>> len(thinned.table()) <= 50, thinned.seen
    (True, 120)
    """

    most: int
    seen: int = 0
    _halvings: int = 0
    _kept: int = 0
    _parts: list[pd.DataFrame] = field(default_factory=list)

    def add(self, rows: pd.DataFrame) -> None:
        """Take the next rows."""
        new = rows.set_axis(self.seen + np.arange(len(rows)), axis=0)
        self._parts.append(new[self._stays(new)])
        self.seen += len(rows)
        self._kept += len(self._parts[-1])
        while self._kept > self.most:
            self._halvings += 1
            whole = self.table()
            self._parts = [whole[self._stays(whole)]]
            self._kept = len(self._parts[0])

    def table(self) -> pd.DataFrame:
        """Return what is kept; the index numbers the rows in the order they came."""
        return pd.concat(self._parts)

    def _stays(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        if not self._halvings:
            return np.ones(len(rows), bool)
        return np.asarray(_mixed(rows.index.to_numpy(np.uint64)) >> np.uint64(64 - self._halvings) == 0)


@dataclass
class Latest:
    """The last rows.

    Parameters
    ----------
    most : int
        Rows kept.

    Examples
    --------
    >>> latest = Latest(most=3)
    >>> for start in (0, 5):
    ...     latest.add(pd.DataFrame({"x": range(start, start + 5)}))
    >>> latest.table()["x"].tolist()
    [7, 8, 9]
    """

    most: int
    _kept: int = 0
    _parts: deque[pd.DataFrame] = field(default_factory=deque)

    def add(self, rows: pd.DataFrame) -> None:
        """Take the next rows."""
        self._parts.append(rows)
        self._kept += len(rows)
        while self._kept - len(self._parts[0]) >= self.most:
            self._kept -= len(self._parts.popleft())

    def table(self) -> pd.DataFrame:
        """Return what is kept, in the order it came."""
        return pd.concat(self._parts).iloc[-self.most :]


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers that look random: splitmix64 (Steele et al. 2014)."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
