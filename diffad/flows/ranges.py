"""What normal flows show of each feature by itself, whatever the others say: where numbers lie, which words are met.

A detector judges a feature given all others, and in a transfer that is enormous in every respect each of them is
excused by the rest. Whoever reads an alert wants to know what was never seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

#: Share of normal flows beyond either end of a range, and below which a category is rare.
SELDOM = 0.001
#: Share of its width by which a number may pass the end of a range and still count as met.
MARGIN = 0.1


@dataclass(frozen=True)
class Ranges:
    """Ranges of numbers and common categories.

    Attributes
    ----------
    numbers : DataFrame
        A column per number, rows ``lower``, ``middle`` and ``upper``.
    common : dict of str to set
        Per category the values that are not rare.
    """

    numbers: pd.DataFrame
    common: dict[str, set[str]]

    @classmethod
    def fit(cls, table: pd.DataFrame, contamination: float = 0.0) -> Self:
        """Learn from features of normal flows, of which a share `contamination` may be attacks."""
        seldom = max(SELDOM, contamination)
        numbers = table.select_dtypes("number").quantile([seldom, 0.5, 1 - seldom])
        numbers.index = pd.Index(["lower", "middle", "upper"])
        shares = {name: table[name].value_counts(normalize=True) for name in table if name not in numbers}
        return cls(numbers, {name: set(share.index[share >= seldom]) for name, share in shares.items()})

    def beyond(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return how far each feature is beyond what was met, 0 inside; most are logarithms, and a factor e is 1.

        A rare category is 1 beyond, what is missing 0.
        """
        lower, _, upper = self.numbers.to_numpy()
        values = table[self.numbers.columns].to_numpy(dtype=float)
        distance = np.maximum(lower - values, values - upper)
        distance = np.where(distance > MARGIN * (upper - lower), distance, 0.0)
        rare = {name: (table[name].notna() & ~table[name].isin(met)).astype(float) for name, met in self.common.items()}
        return pd.DataFrame(distance, table.index, self.numbers.columns).assign(**rare)[list(table.columns)]
