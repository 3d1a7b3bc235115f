"""Torch's global defaults, pinned while we work: a caller's settings neither leak in nor change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def pinned_defaults() -> Iterator[None]:
    """Make float32 on the CPU the default inside the block, whatever the caller has set."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
