"""Small parameter objects that scikit-learn's ``get_params``, ``set_params`` and ``GridSearchCV`` reach into.

Those who hold them, the estimators, are :mod:`diffad.base.holds_parameters`.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Self


class Parameters:
    """Mixin of a frozen dataclass of parameters."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def but(self, **params: Any) -> Self:
        """Return a copy with other values in some fields, with the constructor's checks."""
        unknown = sorted(set(params) - set(self.get_params()))
        if unknown:
            raise ValueError(f"{type(self).__name__} has no parameters {unknown}; it has {list(self.get_params())}")
        return replace(self, **params)  # type: ignore[type-var, no-any-return]
