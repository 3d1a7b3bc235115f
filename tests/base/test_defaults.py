"""Torch's defaults and seed are pinned inside a block, in one thread or several, and the caller's come back."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from diffad.base.defaults import pinned_defaults, seeded


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


def test_seeded_blocks_of_several_threads_do_not_mix_their_draws():
    def draw(_):
        with seeded(5):
            parts = []
            for _ in range(20):
                parts.append(torch.randn(4))
                time.sleep(1e-4)  # another thread's turn
            return torch.cat(parts)

    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        draws = list(pool.map(draw, range(8)))
    assert all(torch.equal(draws[0], other) for other in draws)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seeded_block_draws_the_same_and_leaves_the_callers_streams_alone(monkeypatch):
    # Stands for the stream of a CUDA device, where there may be none.
    reseeded = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", reseeded.append)
    draws = []
    for theirs in (1, 2):
        torch.default_generator.manual_seed(theirs)
        before = torch.get_rng_state()
        with seeded(5):
            draws.append(torch.randn(4))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*draws)
    assert torch.equal(draws[0], torch.randn(4, generator=torch.Generator().manual_seed(5)))
    assert reseeded == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_inside_a_block_goes_on_in_it():
    def child(told):
        told.send(torch.get_default_dtype())
        with pinned_defaults():
            pass
        told.send(torch.get_default_dtype())

    torch.set_default_dtype(torch.float64)
    try:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        with pinned_defaults():
            process = multiprocessing.get_context("fork").Process(target=child, args=(sender,))
            process.start()
            assert receiver.poll(20)
            assert [receiver.recv(), receiver.recv()] == [torch.float32] * 2
            process.join()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_while_another_thread_draws_neither_waits_for_it_nor_keeps_its_defaults():
    """In the child there is no other thread that could let go of what it holds."""
    entered, leave = threading.Event(), threading.Event()

    def other():
        with pinned_defaults(), seeded(0):
            entered.set()
            leave.wait(30)

    def child(told):
        kept = torch.get_default_dtype()
        with pinned_defaults(), seeded(0):
            told.send(kept)

    torch.set_default_dtype(torch.float64)
    thread = threading.Thread(target=other)
    try:
        thread.start()
        assert entered.wait(10)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=child, args=(sender,))
        process.start()
        try:
            assert receiver.poll(20), "the child waits for ever"
            assert receiver.recv() == torch.float64
        finally:
            process.kill()
            process.join()
    finally:
        leave.set()
        thread.join()
        torch.set_default_dtype(torch.float32)
