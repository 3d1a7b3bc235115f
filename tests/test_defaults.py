"""Torch's defaults are pinned inside a block, in one thread or several, and the caller's come back."""

from __future__ import annotations

import threading

import pytest
import torch

from diffad.defaults import pinned_defaults


def test_blocks_of_two_threads_that_overlap_give_the_callers_default_back():
    entered, leave = threading.Event(), threading.Event()
    seen = []

    def other():
        with pinned_defaults():
            entered.set()
            leave.wait(10)
            seen.append(torch.get_default_dtype())

    torch.set_default_dtype(torch.float64)
    try:
        with pinned_defaults():
            thread = threading.Thread(target=other)
            thread.start()
            assert entered.wait(10)
        # The first block is closed, the other thread still works.
        leave.set()
        thread.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64
        with pytest.raises(KeyError), pinned_defaults():
            raise KeyError
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
