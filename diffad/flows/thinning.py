"""Evenly spread rows of a table that comes in chunks and has no known end, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd


@dataclass
class Thinned:
    """Every row as long as there are few, then every second, every fourth and so on.

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
    >>> thinned = Thinned(most=4)
    >>> for start in (0, 5):
    ...     thinned.add(pd.DataFrame({"x": range(start, start + 5)}))
    >>> thinned.table()["x"].tolist(), thinned.seen
    ([0, 4, 8], 10)
    """

    most: int
    seen: int = 0
    _stride: int = 1
    _parts: list[pd.DataFrame] = field(default_factory=list)

    def add(self, rows: pd.DataFrame) -> None:
        """Take the next rows."""
        self._parts.append(rows.set_axis(self.seen + np.arange(len(rows)), axis=0))
        self.seen += len(rows)
        while -(-self.seen // self._stride) > self.most:
            self._stride *= 2
        self._parts = [part[part.index % self._stride == 0] for part in self._parts]

    def table(self) -> pd.DataFrame:
        """Return what is kept; the index numbers the rows in the order they came."""
        return pd.concat(self._parts)
