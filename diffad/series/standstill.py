"""Readings that were never taken: a logger that hangs, or an export with holes, repeats the last one.

They look observed, so a model fitted on them takes a sensor that stands still for normal, and an imputer
learns to stand still.  Only channels that move otherwise can tell: one that rests, or counts in coarse steps, repeats
itself by right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffad.base.telling import tell
from diffad.series.recordings import Recording, as_floats
from diffad.series.runs import in_runs

#: Equal readings that are too many in any channel that moves, and runs at least as long that chance may be expected to
#: make in a whole recording.
LEAST, CHANCE = 8, 1e-3
#: Share of a channel in long runs from which it rests rather than hangs.
MOST = 0.2


def carried_forward(X: Any) -> NDArray[np.bool_]:
    """Mark readings that repeat the one before, in runs that are too long for chance.

    Too long are 8 equal readings, and more where a channel often repeats itself: runs as long must be expected less
    than once in 1,000 such recordings. The first reading of a run is not marked, it was taken. Nor is anything in
    channels that rest: more than a fifth of their readings would be. One that rests now and then cannot be told
    from one that hangs: look before you blank.

    Parameters
    ----------
    X : DataFrame or array of shape (n_timestamps, n_features) or (n_series, n_timestamps, n_features)
        Rows in time order; NaN is missing and ends a run.

    Returns
    -------
    array of X's shape, bool

    Raises
    ------
    ValueError
        For X that holds no numbers.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from diffad import carried_forward
    >>> X = pd.DataFrame({"flow": np.random.default_rng(0).standard_normal(200)})
    >>> X.iloc[100:110] = X.iloc[100]
    >>> int(carried_forward(X).sum())
    9
    >>> int(X.mask(carried_forward(X)).isna().sum().iloc[0])
    9
    """
    rows = as_floats(X)
    if rows.ndim not in (2, 3):
        raise ValueError(f"X must be of shape (n_timestamps, n_features), or several of these, got {rows.shape}")
    return _marked([rows])[0] if rows.ndim == 2 else np.stack(_marked(list(rows)))


def warn_of_carried_forward(recording: Recording) -> None:
    """Warn where whole rows of a recording were carried forward."""
    series = recording.series
    marked = _marked(series)
    whole = [m.any(1) & (_repeats(rows) | np.isnan(rows)).all(1) for m, rows in zip(marked, series, strict=True)]
    count = sum(int(w.sum()) for w in whole)
    if not count:
        return
    place, first = next((i, int(w.argmax())) for i, w in enumerate(whole) if w.any())
    several = len(series) > 1
    # Of the rows that were given: a grid may hold more.
    where = f"row {first} of series {place}" if several else f"row {np.searchsorted(recording.given, first)}"
    tell(
        f"{count} rows of X ({count / sum(map(len, series)):.1%}), the first at {where}, repeat the row before, in runs "
        f"too long for chance: they count as normal. If nothing was measured there, blank them: "
        "np.where(diffad.carried_forward(X), np.nan, X), or X.mask(...) of a DataFrame",
    )


def _marked(series: list[NDArray[np.float64]]) -> list[NDArray[np.bool_]]:
    """Mark repeated readings in long runs of channels that move otherwise."""
    repeats = [_repeats(rows) for rows in series]
    known = np.sum([(~np.isnan(rows)).sum(0) for rows in series], 0)
    long = [in_runs(r, np.full(len(known), LEAST - 1)) for r in repeats]
    others = known - np.sum([m.sum(0) for m in long], 0)
    by_chance = np.sum([(r & ~m).sum(0) for r, m in zip(repeats, long, strict=True)], 0)
    rate = by_chance / np.maximum(others, 1)
    # Expected runs of n repeats are at most known * rate ** n.
    least = np.log(CHANCE / np.maximum(known, 1)) / np.log(rate.clip(1e-9, 0.999))
    marked = [in_runs(r, np.maximum(LEAST - 1, least)) for r in repeats]
    hangs = np.sum([m.sum(0) for m in marked], 0) <= MOST * known
    return [m & hangs for m in marked]


def _repeats(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which readings (n, channels) equal the one before."""
    return np.vstack([np.zeros((1, rows.shape[1]), bool), rows[1:] == rows[:-1]])[: len(rows)]
