"""From evidence of rows, in units of its own, to minus the log probability that a normal row looks as strange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffad.tails import LogTail, completed

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class RowTails:
    """What normal evidence looks like, by kind.

    Rows with gaps look less strange than whole ones: a filled entry never surprises.  Where hardly a normal row was
    whole, there are two sets of tails, and a row goes by either as far as it is complete.

    Attributes
    ----------
    usual : dict of str to LogTail
        Of normal rows as they were.
    whole : dict of str to LogTail
        Of the same rows with their gaps filled by draws; empty where enough were whole.
    visible : float
        Visible share of the normal rows.
    """

    usual: dict[str, LogTail]
    whole: dict[str, LogTail]
    visible: float

    @classmethod
    def fit(
        cls, normal: Mapping[str, Matrix], seen: NDArray[np.bool_], drawn: Mapping[str, Matrix] | None = None
    ) -> RowTails:
        """Learn from evidence (n,) of normal rows, of which the entries `seen` (n, d) are visible.

        `drawn` is the evidence of the same rows with draws where nothing is visible.
        """
        usual, whole = (
            {kind: LogTail.fit(values[:, None]) for kind, values in raw.items()} for raw in (normal, drawn or {})
        )
        return cls(usual, whole, float(seen.mean()))

    def __call__(self, raw: Mapping[str, Matrix], seen: NDArray[np.bool_]) -> dict[str, Matrix]:
        """Turn evidence (n,) of rows, of which the entries `seen` (n, d) are visible, into -log p (n,)."""
        usual, whole = (
            {kind: tails[kind](raw[kind][:, None])[:, 0].astype(np.float64) for kind in raw if tails}
            for tails in (self.usual, self.whole)
        )
        if not whole:
            return usual
        part = seen.mean(1)
        return {kind: np.asarray(completed(usual[kind], whole[kind], part, self.visible), np.float64) for kind in usual}
