"""Where tensors live: a name, or whatever the machine has."""

from __future__ import annotations

import torch


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
