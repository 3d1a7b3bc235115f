"""What the estimators of rows share: reading tables and checking them against the fitted one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from diffad.base.column_names import check_table
from diffad.base.masked_arrays import unmasked


class TableInput(BaseEstimator):
    """Base of estimators over rows of mixed columns, NaN = missing."""

    def _table(self, X: Any, reset: bool) -> pd.DataFrame:
        if isinstance(X, pd.DataFrame):
            check_table(self, X, reset)
            if not len(X):
                raise ValueError("X holds no row")
            sparse = [k for k, kind in enumerate(X.dtypes) if isinstance(kind, pd.SparseDtype)]
            X = X.copy(deep=False) if sparse else X
            for k in sparse:
                X.isetitem(k, X.iloc[:, k].sparse.to_dense())
            return X
        if reset:
            self.__dict__.pop("_labels", None)
        X = unmasked(X)
        if isinstance(X, np.ndarray) and X.dtype.kind in "UT":
            X = X.astype(object)
        mixed = _with_text(X)
        if mixed is not None:
            validate_data(self, mixed, reset=reset, skip_check_array=True)
            return pd.DataFrame(mixed).infer_objects()
        rows = validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
        return pd.DataFrame(rows)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags


def _with_text(X: Any) -> NDArray[Any] | None:
    """Return an array of objects, or nested lists, as an array of objects if it is a table that holds text, else None.

    Text of numbers alone is none: scikit-learn reads it as these.
    """
    if not isinstance(X, list | tuple) and (not isinstance(X, np.ndarray) or X.dtype != object):
        return None
    try:
        # Of lists NumPy would make text of the numbers, too.
        array = np.array(X, dtype=object)
    except ValueError:  # rows of several lengths
        return None
    if array.ndim != 2 or not array.size:
        return None
    if not any(isinstance(value, str) for value in array.ravel()):
        return None
    try:
        array.astype(np.float64)
    except (TypeError, ValueError):
        return array
    return None
