"""What happened in a row: many flows that are each a little strange are one that is very strange.

An exponentially weighted mean of the strangeness of the flows of a source, or of a pair of hosts (EWMA control chart;
Roberts 1959, "Control chart tests based on geometric moving averages").  Password guessing, a slow drain or a flood
hide in flows that are hardly strange one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Scores = NDArray[np.float64]

#: Share of the present flow in the mean: about the last ten flows count.
SHARE = 0.1
#: Most that one flow counts, in nats: a single strange flow is told by itself.
MOST = 5.0
#: Sources (or pairs) remembered at least; twice as many at most.
REMEMBERED = 100_000


@dataclass
class Persistence:
    """Mean strangeness of each source's latest flows, in one pass over a log.

    Attributes
    ----------
    usual : float
        Mean of normal flows, from which every source sets out.
    means : dict
        Source -> (mean, number of its last flow).
    flows : int
        How many came so far.

    Examples
    --------
    >>> Persistence(usual=1.0).update(pd.Series(["a", "a", "b", None]), np.array([1.0, 6.0, 1.0, 6.0])).round(2)
    array([1. , 1.4, 1. , 0. ])
    """

    usual: float
    means: dict[str, tuple[float, int]] = field(default_factory=dict)
    flows: int = 0

    def update(self, sources: pd.Series, strangeness: Scores) -> Scores:
        """Return the means (n,) after each of the next flows; 0 where the source is unknown."""
        result = np.zeros(len(strangeness))
        known = sources.notna().to_numpy()
        for i, source, value in zip(
            np.flatnonzero(known), sources[known], np.minimum(strangeness, MOST)[known], strict=True
        ):
            mean = self.means.get(source, (self.usual, 0))[0]
            result[i] = mean + SHARE * (float(value) - mean)
            self.means[source] = (float(result[i]), self.flows + int(i))
        self.flows += len(strangeness)
        if len(self.means) > 2 * REMEMBERED:
            kept = sorted(self.means, key=lambda source: self.means[source][1])[-REMEMBERED:]
            self.means = {source: self.means[source] for source in kept}
        return result
