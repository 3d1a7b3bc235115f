"""Labels of known faults, in either of the usual ways of writing them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffad.base.telling import tell
from diffad.series.recordings import Recording


def faulty_rows(y: Any, recording: Recording) -> list[NDArray[np.bool_]]:
    """Return the rows labelled as faults, one array (n_timestamps,) per series; labels of another kind mark none."""
    nothing = [np.zeros(len(r), bool) for r in recording.rows]
    if y is None:
        return nothing
    labels = pd.Series(np.asarray(y).ravel()).infer_objects().to_numpy()
    if len(labels) != len(recording.given):
        raise ValueError(f"y has {len(labels)} labels, X has {len(recording.given)} rows; give one label per row")
    values = set(np.unique(labels).tolist()) if labels.dtype.kind in "biuf" else {None}
    if values not in ({0, 1}, {-1, 1}):
        if values != {0}:
            tell("y is ignored: labels are 1 for faults among 0, or -1 among 1")
        return nothing
    marked = np.zeros(sum(len(r) for r in recording.rows), bool)
    marked[recording.given] = labels == (1 if 0 in values else -1)
    return [marked[r] for r in recording.rows]
