"""Checks of arguments that several estimators take."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np


def check_count(value: Any, name: str, least: int = 1) -> None:
    """Raise ValueError unless a value is an integer of at least `least`.

    Examples
    --------
    >>> check_count(0, "n_samples")
    Traceback (most recent call last):
    ...
    ValueError: n_samples must be an integer of at least 1, got 0
    """
    if not isinstance(value, Integral) or isinstance(value, bool | np.bool_) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def is_number(value: Any) -> bool:
    """Return whether a value is a number that a float holds; truth values and fractions are none.

    Examples
    --------
    >>> is_number(1), is_number(True), is_number(10**400)
    (True, False, False)
    """
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    return not isinstance(value, int) or abs(value) <= float(np.finfo(float).max)


def check_within(value: Any, name: str, low: float, high: float = np.inf) -> None:
    """Raise ValueError unless a value is a finite number from `low` to `high`.

    Examples
    --------
    >>> check_within("a", "eta", 0, 1)
    Traceback (most recent call last):
    ...
    ValueError: eta must be a number from 0 to 1, got 'a'
    """
    if is_number(value) and np.isfinite(float(value)) and low <= float(value) <= high:
        return
    bounds = f"a number from {low:g} to {high:g}" if np.isfinite(high) else f"a number, {low:g} or more"
    raise ValueError(f"{name} must be {bounds}, got {value!r}")


def check_share(value: Any, name: str) -> None:
    """Raise ValueError unless a value is a number strictly between 0 and 1.

    Examples
    --------
    >>> check_share(90, "rate")
    Traceback (most recent call last):
    ...
    ValueError: rate must lie strictly between 0 and 1, got 90
    """
    if not is_number(value) or not 0 < float(value) < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value!r}")
