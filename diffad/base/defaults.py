"""Torch's global defaults, pinned while we work: a caller's settings neither leak in nor change."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

_lock = threading.Lock()
#: Held while torch's own stream is another: what two threads draw from it must not interleave.
_drawing = threading.RLock()
#: The caller's default dtype, and the thread, of every block that is open.
_theirs: list[tuple[torch.dtype, int]] = []


def _begin_anew() -> None:
    """Forget what other threads hold: in a forked child there is but the one that forked."""
    global _lock, _drawing
    _lock, _drawing = threading.Lock(), threading.RLock()
    open_here = [block for block in _theirs if block[1] == threading.get_ident()]
    if _theirs and not open_here:
        torch.set_default_dtype(_theirs[0][0])
    _theirs[:] = open_here


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def pinned_defaults() -> Iterator[None]:
    """Make float32 on the CPU the default inside the block, whatever the caller has set.

    The default dtype is one for all threads: the first block that opens changes it, the last that closes gives it
    back.
    """
    with _lock:
        block = (_theirs[0][0] if _theirs else torch.get_default_dtype(), threading.get_ident())
        _theirs.append(block)
        torch.set_default_dtype(torch.float32)
    # torch asks a device block about every call: one is opened only where it changes something.
    elsewhere = torch.get_default_device().type != "cpu"
    try:
        with torch.device("cpu") if elsewhere else nullcontext():
            yield
    finally:
        with _lock:
            _theirs.remove(block)
            if not _theirs:
                torch.set_default_dtype(block[0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed what torch draws on the CPU inside the block; the caller's streams go on as if nothing had been drawn."""
    with _drawing, torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed CUDA as well, whose streams are not given back here.
        torch.random.default_generator.manual_seed(seed)
        yield
