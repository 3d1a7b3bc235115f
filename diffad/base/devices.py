"""Where tensors live: a name, or whatever the machine has."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


def device_of(name: str) -> torch.device:
    """Return the device of a name; "auto" is CUDA where there is one.

    Others that torch knows lack the double precision that priors are computed in, or were never tried.

    Examples
    --------
    >>> device_of("gpu")
    Traceback (most recent call last):
    ...
    ValueError: device must be "auto", "cpu" or "cuda", as "cuda:1" with a number, got 'gpu'
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "auto", "cpu" or "cuda", as "cuda:1" with a number, got {name!r}')
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ValueError(f'device={name!r}, but torch finds {found} CUDA device(s) here; give "auto" or "cpu"')
    return device


@dataclass(frozen=True)
class Away:
    """A tensor, network or device of another memory than the CPU's, as a machine without that can read it."""

    kept: Any


def stored(state: Any) -> Any:
    """Return fitted state with all that lies on another device than the CPU brought there, and marked.

    Parameters
    ----------
    state : object
        A tensor, network or device; containers and this package's objects that hold some; anything else.

    Returns
    -------
    object
        `state` itself where all is on the CPU already; else a copy, the original as it was.

    Examples
    --------
    >>> state = {"weights": [torch.ones(2)], "name": "a"}
    >>> stored(state) is state
    True
    """
    return _mapped(state, _marked, {})


def restored(state: Any, device: torch.device) -> Any:
    """Return state with what `stored` has marked on a device; what was on the CPU stays there.

    Examples
    --------
    >>> restored({"there": Away(torch.ones(2)), "here": torch.ones(2)}, torch.device("meta"))["there"].device.type
    'meta'
    """

    def taken_back(leaf: Any) -> Any:
        if not isinstance(leaf, Away):
            return leaf
        return device if isinstance(leaf.kept, torch.device) else leaf.kept.to(device)

    return _mapped(state, taken_back, {})


def _marked(leaf: Any) -> Any:
    # An estimator inside of another one is stored by both.
    if isinstance(leaf, Away) or _place(leaf).type == "cpu":
        return leaf
    if isinstance(leaf, torch.device):
        return Away(CPU)
    return Away(copy.deepcopy(leaf).to(CPU) if isinstance(leaf, nn.Module) else leaf.to(CPU))


def _place(leaf: Any) -> torch.device:
    """Return where a tensor, network or device is."""
    if isinstance(leaf, nn.Module):
        return next((t.device for t in (*leaf.parameters(), *leaf.buffers())), CPU)
    return leaf if isinstance(leaf, torch.device) else leaf.device


def _mapped(state: Any, change: Callable[[Any], Any], known: dict[int, Any]) -> Any:
    """Return state with its leaves changed, itself where none is; what is shared stays shared."""
    if id(state) not in known:
        # Kept beside the copy: an object that is gone would leave its identity to another.
        known[id(state)] = (state, _of_parts(state, change, known))
    return known[id(state)][1]


def _of_parts(state: Any, change: Callable[[Any], Any], known: dict[int, Any]) -> Any:
    if isinstance(state, torch.device | Tensor | nn.Module | Away):
        return change(state)
    if isinstance(state, dict):
        parts = {key: _mapped(value, change, known) for key, value in state.items()}
        return state if all(parts[key] is value for key, value in state.items()) else type(state)(parts)
    if isinstance(state, list | tuple):
        items = [_mapped(value, change, known) for value in state]
        if all(new is old for new, old in zip(items, state, strict=True)):
            return state
        return type(state)(*items) if hasattr(state, "_fields") else type(state)(items)
    if not type(state).__module__.startswith("diffad.") or not hasattr(state, "__dict__"):
        return state
    fields = _mapped(vars(state), change, known)
    if fields is vars(state):
        return state
    result = object.__new__(type(state))
    vars(result).update(fields)
    return result
