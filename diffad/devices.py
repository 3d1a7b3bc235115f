"""Where tensors live: a name, or whatever the machine has."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


def device_of(name: str) -> torch.device:
    """Return the device of a name; "auto" is CUDA where there is one.

    Examples
    --------
    >>> device_of("gpu")
    Traceback (most recent call last):
    ...
    ValueError: device must be "auto", "cpu" or another device of torch, as "cuda", got 'gpu'
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'device must be "auto", "cpu" or another device of torch, as "cuda", got {name!r}') from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device={name!r}, but torch finds no CUDA device here; give "auto" or "cpu"')
    return device


def moved(state: Any, device: torch.device, known: dict[int, Any] | None = None) -> Any:
    """Return fitted state with every tensor, network and device in it on `device`.

    Parameters
    ----------
    state : object
        A tensor, network or device; containers and this package's objects that hold some; anything else.
    device : torch.device
    known : dict, optional
        By identity, what was moved already: what is shared stays shared.

    Returns
    -------
    object
        `state` itself where all is there already; else a copy, the original as it was.

    Examples
    --------
    >>> there = moved({"weights": [torch.ones(2)], "name": "a"}, torch.device("meta"))
    >>> there["weights"][0].device.type, there["name"]
    ('meta', 'a')
    """
    known = {} if known is None else known
    if id(state) not in known:
        # Kept beside the copy: an object that is gone would leave its identity to another.
        known[id(state)] = (state, _moved(state, device, known))
    return known[id(state)][1]


def _moved(state: Any, device: torch.device, known: dict[int, Any]) -> Any:
    if isinstance(state, torch.device):
        return state if state.type == device.type else device
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, nn.Module):
        there = all(t.device.type == device.type for t in (*state.parameters(), *state.buffers()))
        return state if there else copy.deepcopy(state).to(device)
    if isinstance(state, dict):
        parts = {key: moved(value, device, known) for key, value in state.items()}
        return state if all(parts[key] is value for key, value in state.items()) else type(state)(parts)
    if isinstance(state, list | tuple):
        items = [moved(value, device, known) for value in state]
        if all(new is old for new, old in zip(items, state, strict=True)):
            return state
        return type(state)(*items) if hasattr(state, "_fields") else type(state)(items)
    if not type(state).__module__.startswith("diffad.") or not hasattr(state, "__dict__"):
        return state
    fields = moved(vars(state), device, known)
    if fields is vars(state):
        return state
    result = object.__new__(type(state))
    vars(result).update(fields)
    return result
