"""What every estimator is: scikit-learn's `BaseEstimator` with parameters of parameters, stored for any machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from sklearn.base import BaseEstimator

from diffad.base.devices import device_of, restored, stored
from diffad.base.parameters import Parameters
from diffad.base.telling import tell
from diffad.base.version import VERSION

#: Mark of stored state that lay on another device than the CPU, and the version that stored it.
AWAY, STORED_BY = "_on_another_device", "_diffad_version"


class HoldsParameters(BaseEstimator):
    """Base of estimators with parameters of parameters: ``set_params(training__max_steps=100)`` works.

    Attributes
    ----------
    stands_for : dict of str to callable
        Per parameter, what a value that is no `Parameters` (None, a name) stands for.
    """

    stands_for: ClassVar[dict[str, Callable[[Any], Parameters]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Keep tensors in memory of the CPU: a machine without this device can read what was fitted on it."""
        state: dict[str, Any] = super().__getstate__()
        kept: dict[str, Any] = stored(state)
        return (state if kept is state else kept | {AWAY: True}) | {STORED_BY: VERSION}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take those that were elsewhere to the device that `device` names, if this machine has it.

        Warns
        -----
        UserWarning
            If another version of diffad stored the state.
        """
        super().__setstate__({key: value for key, value in state.items() if key not in (AWAY, STORED_BY)})
        if state.get(STORED_BY) != VERSION:
            tell(
                f"a {type(self).__name__} that diffad {state.get(STORED_BY, 'of an earlier version')} stored is read by "
                f"diffad {VERSION}, which may fail or score otherwise; fit it anew, or install that version"
            )
        if state.get(AWAY):
            self.__dict__.update(restored(self.__dict__, _nearest_to(state.get("device", "auto"))))

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator and, as ``training__max_steps``, those of its parameter objects.

        An object is replaced, not changed: it may be another estimator's as well.
        """
        inner: dict[str, dict[str, Any]] = {}
        for key in [key for key in params if key.partition("__")[0] in self.stands_for and "__" in key]:
            name, _, field = key.partition("__")
            inner.setdefault(name, {})[field] = params.pop(key)
        for name, values in inner.items():
            given = params.get(name, getattr(self, name))
            whole = given if isinstance(given, Parameters) else self.stands_for[name](given)
            params[name] = whole.but(**values)
        return super().set_params(**params)


def _nearest_to(name: str) -> torch.device:
    """Return the device of a name, or what this machine has instead."""
    try:
        return device_of(name)
    except ValueError:
        return device_of("auto")
