"""Masking policies: which entries of a window to hide (mask: True = observed).

A policy is a function ``(n, length, channels, generator) -> (n, length, channels) bool``.  Training
draws from a mixture of them, so that one model answers for scattered gaps, sensor failures,
outages, forecasts and generation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Policy = Callable[[int, int, int, torch.Generator], Tensor]


def points(n: int, length: int, channels: int, generator: torch.Generator) -> Tensor:
    """Hide single entries at random, a share between 2 % and 95 % that differs per window."""
    share = 0.02 + 0.93 * _uniform((n, 1, 1), generator)
    return _uniform((n, length, channels), generator) >= share


def blocks(n: int, length: int, channels: int, generator: torch.Generator) -> Tensor:
    """Hide runs of up to half the window in up to one place more than there are channels, at most 6."""
    mask = torch.ones(n, length, channels, dtype=torch.bool)
    for i in range(n):
        for _ in range(_integer(1, min(6, channels + 1), generator)):
            start, stop = _run(length, max(1, length // 2), generator)
            mask[i, start:stop, _integer(0, channels - 1, generator)] = False
    return mask


def outages(n: int, length: int, channels: int, generator: torch.Generator) -> Tensor:
    """Hide all channels during one run of up to half the window; a third of the runs is at the end."""
    mask = torch.ones(n, length, channels, dtype=torch.bool)
    for i in range(n):
        start, stop = _run(length, max(1, length // 2), generator)
        if _integer(0, 2, generator) == 0:
            start, stop = length - (stop - start), length
        mask[i, start:stop] = False
    return mask


def whole_channels(n: int, length: int, channels: int, generator: torch.Generator) -> Tensor:
    """Hide one to half of the channels throughout the window."""
    mask = torch.ones(n, length, channels, dtype=torch.bool)
    for i in range(n):
        count = _integer(1, max(1, channels // 2), generator)
        mask[i, :, torch.randperm(channels, generator=generator)[:count]] = False
    return mask


def everything(n: int, length: int, channels: int, generator: torch.Generator) -> Tensor:
    """Hide all entries: generation."""
    return torch.zeros(n, length, channels, dtype=torch.bool)


POLICIES: dict[str, Policy] = {
    "points": points,
    "blocks": blocks,
    "outages": outages,
    "channels": whole_channels,
    "everything": everything,
}

#: Shares of the policies in training.
DEFAULT_MIXTURE = {"points": 0.5, "blocks": 0.2, "outages": 0.2, "channels": 0.08, "everything": 0.02}


def mixture(
    n: int,
    length: int,
    channels: int,
    generator: torch.Generator,
    weights: dict[str, float] | None = None,
) -> Tensor:
    """Draw each window's mask from one of the policies, with the given weights.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> mixture(5, 12, 3, g).shape
    torch.Size([5, 12, 3])
    """
    names, shares = zip(*(weights or DEFAULT_MIXTURE).items(), strict=True)
    draws = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=generator)
    masks = [POLICIES[names[int(k)]](1, length, channels, generator) for k in draws]
    return torch.cat(masks)


#: What a hidden entry's gap looks like; the gate and the calibration keep one record for each.
GAP_KINDS: Sequence[str] = ("scattered", "half", "sparse", "run", "outage")


def gap_kinds(hidden: Tensor, run: int = 6) -> Tensor:
    """Classify each entry by its gap, as an index into :data:`GAP_KINDS` (visible entries too).

    ``outage``: every channel is hidden at that time for at least half a ``run``; ``run``: the
    channel is hidden for ``run`` steps or more in a window not mostly hidden; otherwise by the hidden share of the
    window: ``scattered`` below 30 %, ``half`` below 75 %, ``sparse`` above.

    Parameters
    ----------
    hidden : Tensor of shape (n, length, channels), bool
    """
    share = hidden.float().mean((1, 2))
    kind = torch.where(share < 0.3, 0, torch.where(share < 0.75, 1, 2))
    kind = kind[:, None, None].expand(hidden.shape).clone()
    crowded = share[:, None, None] >= 0.75
    long = _run_lengths(hidden) >= run
    kind[long & ~crowded] = 3
    outage = hidden.all(2, keepdim=True)
    outage = (_run_lengths(outage) >= max(1, run // 2)).expand(hidden.shape)
    kind[outage] = 4
    return kind


def _run_lengths(hidden: Tensor) -> Tensor:
    """Return for each hidden entry the length of its run along time, 0 where visible."""
    length = hidden.shape[1]
    ones = hidden.float()
    forward, backward = torch.zeros_like(ones), torch.zeros_like(ones)
    forward[:, 0], backward[:, -1] = ones[:, 0], ones[:, -1]
    for t in range(1, length):
        forward[:, t] = (forward[:, t - 1] + 1) * ones[:, t]
        backward[:, -1 - t] = (backward[:, -t] + 1) * ones[:, -1 - t]
    return (forward + backward - 1) * ones


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float32)


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """Draw an integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def _run(length: int, longest: int, generator: torch.Generator) -> tuple[int, int]:
    size = _integer(1, longest, generator)
    start = _integer(0, length - size, generator)
    return start, start + size
