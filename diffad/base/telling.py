"""Warnings that point at the user's own line, from however deep they come."""

from __future__ import annotations

import sys
import warnings

#: Packages whose lines a warning never points at: the user called something else.
INSIDE = ("diffad", "sklearn", "torch", "joblib", "pickle", "contextlib")


def tell(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line, outside of this package, that led here.

    Parameters
    ----------
    message : str
    category : type of Warning, default=UserWarning

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as said:
    ...     tell("nothing to do")
    >>> str(said[0].message)
    'nothing to do'
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
