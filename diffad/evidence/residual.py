"""What a diffusion model leaves over: each channel of a recording given everything else around it.

Windows slide over the recording; in each the middle of one channel at a time is hidden and filled
with the middle of its distribution given all else.  A fault that lasts no longer than that cannot
explain itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from diffad.model import MaskedDiffusion, Sampler

Array = NDArray[np.float32]

#: Part of a window, in its middle, that is hidden at once.
HIDDEN_PART = 3
#: Steps of the flow from the prior's mean: two see most of what the network adds.
STEPS = 2
#: Windows that pass the model together.
CHUNK = 64


def left_over(model: MaskedDiffusion, rows: Array) -> Array:
    """Return standardised residuals of rows (n, channels), NaN where the rows are.

    Parameters
    ----------
    model : MaskedDiffusion
    rows : array (n, channels)
        In the model's units, NaN = missing.

    Returns
    -------
    array (n, channels)
        Value minus the middle of its distribution, in units of the prior's conditional deviation.
    """
    # A local scale would take a fault for a restless stretch, and forgive it.
    model = replace(model, local=None)
    length, block = model.length, max(1, model.length // HIDDEN_PART)
    before = (length - block) // 2
    n_blocks = -(-len(rows) // block)
    padded = np.full((n_blocks * block + length, rows.shape[1]), np.nan, np.float32)
    padded[before : before + len(rows)] = rows
    parts = []
    for start in range(0, n_blocks, CHUNK):
        index = block * np.arange(start, min(start + CHUNK, n_blocks))[:, None] + np.arange(length)
        parts.append(_of_blocks(model, torch.from_numpy(padded[index]), slice(before, before + block)))
    return np.concatenate(parts).reshape(-1, rows.shape[1])[: len(rows)]


def _of_blocks(model: MaskedDiffusion, windows: torch.Tensor, middle: slice) -> Array:
    """Return the residuals (n, block, channels) of the middles of windows (n, length, channels)."""
    n, _, channels = windows.shape
    known = ~windows.isnan()
    hidden = torch.zeros(channels, *windows.shape, dtype=torch.bool)
    for k in range(channels):
        hidden[k, :, middle, k] = known[:, middle, k]
    visible = known & ~hidden
    stacked = windows.expand(channels, *windows.shape).flatten(0, 1)
    noise = torch.zeros((1, *stacked.shape))
    filled, scale, _ = model.sample(
        stacked, visible.flatten(0, 1), hidden.flatten(0, 1), noise, Sampler(n_steps=STEPS), torch.Generator()
    )
    error = ((stacked - filled[0]) / scale).unflatten(0, (channels, n))
    residual = torch.stack([error[k, :, middle, k] for k in range(channels)], -1)
    known = known[:, middle]
    return torch.where(known, residual, torch.nan).numpy()
