"""All or nothing: a method that fails leaves its estimator as it was, fitted or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])


def all_or_nothing(method: Method) -> Method:
    """Keep the attributes that a method sets only once it is done; not after an error, an interrupt included.

    It works on a copy, whose attributes the estimator takes over at once: another thread that scores meanwhile has the old
    ones. The method has to replace attributes, not to change them in place, and nobody else may set any meanwhile.

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
        work = object.__new__(type(self))
        vars(work).update(vars(self))
        result = method(work, *args, **kwargs)
        self.__dict__ = vars(work)
        return self if result is work else result

    return cast(Method, guarded)
