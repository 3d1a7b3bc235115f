"""What the estimators of rows share: reading tables and checking them against the fitted one."""

from __future__ import annotations

from typing import Any

import pandas as pd
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
        rows = validate_data(self, unmasked(X), reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
        return pd.DataFrame(rows)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        return tags
