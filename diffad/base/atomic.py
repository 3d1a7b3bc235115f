"""All or nothing: a method that fails leaves its estimator as it was, fitted or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def all_or_nothing(method: Method) -> Method:
    """Undo the attributes that a method has set where it ends with an error, an interrupt included.

    The method has to replace attributes, not to change them in place.

    Examples
    --------
    >>> class Estimator:
    ...     @all_or_nothing
    ...     def fit(self, X):
    ...         self.mean_ = sum(X)
    ...         self.mean_ /= len(X)
    >>> estimator = Estimator()
    >>> estimator.fit([1, 2])
    >>> try:
    ...     estimator.fit([])
    ... except ZeroDivisionError:
    ...     print(estimator.mean_)
    1.5
    """

    @wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return cast(Method, guarded)
