"""Small parameter objects that scikit-learn's ``get_params`` and ``GridSearchCV`` reach into."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Self


class Parameters:
    """Mixin of a dataclass of parameters: ``estimator__training__max_steps`` works."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def set_params(self, **params: Any) -> Self:
        """Set fields in place, with the constructor's checks."""
        unknown = sorted(set(params) - set(self.get_params()))
        if unknown:
            raise ValueError(f"{type(self).__name__} has no parameters {unknown}; it has {list(self.get_params())}")
        checked = replace(self, **params)  # type: ignore[type-var]
        for name in params:
            object.__setattr__(self, name, getattr(checked, name))
        return self
