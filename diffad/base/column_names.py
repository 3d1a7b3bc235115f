"""Columns by any name: scikit-learn compares names only where all of them are strings."""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.utils.validation import validate_data


def check_table(estimator: Any, X: pd.DataFrame, reset: bool) -> None:
    """Check a table's columns as scikit-learn does, and by names of any type; remember them where `reset`."""
    if not X.shape[1]:  # in scikit-learn's words, which its checks look for
        raise ValueError(f"X has 0 feature(s) (shape={X.shape}); at least 1 column is needed")
    check_distinct(X)
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    if reset:
        estimator._labels = list(X.columns)
    check_names(X, estimator.__dict__.get("_labels"))


def check_names(X: pd.DataFrame, fitted: list[Any] | None) -> None:
    """Raise where a table's columns are not those fitted on, in their order; None: there were no names.

    Examples
    --------
    >>> check_names(pd.DataFrame([[1, 2]], columns=[8, 7]), [7, 8])
    Traceback (most recent call last):
    ...
    ValueError: X has the columns [8, 7], but was fitted on [7, 8]; give them by these names in this order
    """
    if fitted is not None and list(X.columns) != fitted:
        raise ValueError(
            f"X has the columns {list(X.columns)}, but was fitted on {fitted}; give them by these names in this order"
        )


def check_distinct(X: pd.DataFrame) -> None:
    """Raise where two columns of a table have one name.

    Examples
    --------
    >>> check_distinct(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    Traceback (most recent call last):
    ...
    ValueError: X has columns ['a'] more than once; give every column a name of its own
    """
    if X.columns.has_duplicates:
        twice = list(X.columns[X.columns.duplicated()].unique())
        raise ValueError(f"X has columns {twice} more than once; give every column a name of its own")
