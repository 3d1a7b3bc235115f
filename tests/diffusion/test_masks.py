"""Masking policies hide what their names say for any window, and gaps are told apart by their shape.

Masks are checked by counting runs in plain Python.
"""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.diffusion.masks import DEFAULT_MIXTURE, GAP_KINDS, POLICIES, gap_kinds, mixture

SIZES = {
    "n": st.integers(1, 6),
    "length": st.integers(1, 20),
    "channels": st.integers(1, 9),
    "seed": st.integers(0, 99),
}


def draw(name, n, length, channels, seed):
    return POLICIES[name](n, length, channels, torch.Generator().manual_seed(seed))


def hidden_runs(column):
    """Return the lengths of the runs of hidden (False) steps in a list of booleans."""
    return [len(list(g)) for seen, g in itertools.groupby(column) if not seen]


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_masks_have_the_shape_asked_for_and_repeat_with_the_seed(name, n, length, channels, seed):
    mask = draw(name, n, length, channels, seed)
    assert mask.shape == (n, length, channels)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, draw(name, n, length, channels, seed))


@pytest.mark.parametrize("name", ["blocks", "outages", "channels", "everything"])
@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_every_window_has_something_to_learn(name, n, length, channels, seed):
    assert bool((~draw(name, n, length, channels, seed)).flatten(1).any(1).all())


@settings(max_examples=50, deadline=None)
@given(**SIZES)
def test_blocks_are_a_few_runs_of_up_to_half_the_window(n, length, channels, seed):
    for window in draw("blocks", n, length, channels, seed):
        runs = [run for column in window.T.tolist() for run in hidden_runs(column)]
        longest = max(1, length // 2)
        assert 1 <= len(runs) <= 6
        assert sum(runs) <= 6 * longest
        # A longer run can only be several that touch.
        assert all(run <= longest * (7 - len(runs)) for run in runs)


@settings(max_examples=50, deadline=None)
@given(**SIZES)
def test_an_outage_is_one_run_in_all_channels(n, length, channels, seed):
    for window in draw("outages", n, length, channels, seed):
        columns = window.T.tolist()
        assert all(column == columns[0] for column in columns)
        (run,) = hidden_runs(columns[0])
        assert run <= max(1, length // 2)


def test_a_third_of_the_outages_is_at_the_end():
    mask = draw("outages", 3000, 40, 2, 0)
    share = float((~mask[:, -1, 0]).float().mean())
    # A third by design and one start in 21 to 40 by chance; the standard error is 0.009.
    assert 1 / 3 < share < 1 / 3 + 2 / 3 / 10


@settings(max_examples=50, deadline=None)
@given(**SIZES)
def test_whole_channels_are_hidden_throughout(n, length, channels, seed):
    mask = draw("channels", n, length, channels, seed)
    assert torch.equal(mask.any(1), mask.all(1))
    count = (~mask[:, 0]).sum(1)
    assert bool(((count >= 1) & (count <= max(1, channels // 2))).all())


def test_generation_hides_everything():
    assert not bool(draw("everything", 3, 4, 5, 0).any())


def test_scattered_points_hide_a_share_that_differs_per_window():
    hidden = (~draw("points", 2000, 30, 4, 0)).float()
    share = hidden.mean((1, 2))
    # Uniform from 0.02 to 0.95: mean 0.485 and deviation 0.268, plus 0.04 of counting noise.
    assert float(share.mean()) == pytest.approx(0.485, abs=4 * 0.27 / 2000**0.5)
    assert float(share.std()) == pytest.approx(0.27, abs=0.02)
    assert float(hidden[:, 1:].mul(hidden[:, :-1]).mean()) == pytest.approx(float((share**2).mean()), abs=0.01)


def test_mixture_follows_its_weights():
    masks = mixture(4000, 8, 4, torch.Generator().manual_seed(0), {"everything": 1.0, "channels": 3.0})
    share = float((~masks.flatten(1).any(1)).float().mean())
    assert share == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)


def test_training_sees_every_policy():
    assert set(DEFAULT_MIXTURE) == set(POLICIES)
    assert sum(DEFAULT_MIXTURE.values()) == pytest.approx(1)


@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_mixture_of_any_size(n, length, channels, seed):
    masks = mixture(n, length, channels, torch.Generator().manual_seed(seed))
    assert masks.shape == (n, length, channels)
    assert torch.equal(masks, mixture(n, length, channels, torch.Generator().manual_seed(seed)))


def kinds_at(rows, run=6):
    """Classify a window drawn with ``x`` for hidden; rows of text are channels over time."""
    hidden = torch.tensor([[mark == "x" for mark in row] for row in rows]).T[None]
    return [[GAP_KINDS[k] for k in column] for column in gap_kinds(hidden, run)[0].T.tolist()]


def test_single_entries_are_scattered():
    kinds = kinds_at(["..x.........", "............", "......xx...."])
    assert kinds[0][2] == kinds[2][6] == kinds[2][7] == "scattered"


def test_half_of_the_window_is_half():
    kinds = kinds_at(["x.x.x.x.x.x.", ".x.x.x.x.x.x"])
    assert {k for row in kinds for k in row} == {"half"}


def test_a_nearly_empty_window_is_sparse():
    kinds = kinds_at(["xxxx.xxxx.xx", "xx.xx.xxxxxx", "x.xxxxx.xx.x"], run=24)
    assert {k for row in kinds for k in row} == {"sparse"}


def test_a_failed_channel_is_a_run():
    kinds = kinds_at(["..xxxxxx....", "............", "..xxxxx.....", "x..........."])
    assert kinds[0][2:8] == ["run"] * 6
    assert kinds[2][2:7] == ["scattered"] * 5  # a step too short
    assert kinds[3][0] == "scattered"


def test_all_channels_at_once_are_an_outage():
    kinds = kinds_at(["...xxx.........", "...xxx..x......", "..xxxx........."])
    assert [row[3:6] for row in kinds] == [["outage"] * 3] * 3
    assert kinds[2][2] == kinds[1][8] == "scattered"
    assert {k for row in kinds_at(["...xx......."] * 3) for k in row} == {"scattered"}  # a step too short


def test_everything_hidden_is_an_outage():
    assert {k for row in kinds_at(["x" * 12] * 3) for k in row} == {"outage"}


@settings(max_examples=60, deadline=None)
@given(**SIZES, share=st.floats(0, 1))
def test_runs_and_outages_agree_with_counting(n, length, channels, seed, share):
    hidden = torch.rand(n, length, channels, generator=torch.Generator().manual_seed(seed)) < share
    kinds = gap_kinds(hidden, run=4)
    for window, kind in zip(hidden, kinds, strict=True):
        for t, k in itertools.product(range(length), range(channels)):
            dark = [not bool(row.all()) for row in window]
            alone = [not h for h in window[:, k].tolist()]
            name = GAP_KINDS[int(kind[t, k])]
            if run_around(dark, t) >= 2:
                assert name == "outage"
            elif float(window.float().mean()) < 0.75 and run_around(alone, t) >= 4:
                assert name == "run"
            else:
                assert name in ("scattered", "half", "sparse")


def run_around(seen, t):
    """Return the length of the run of hidden (False) steps that holds step t, 0 if t is seen."""
    if seen[t]:
        return 0
    start, stop = t, t + 1
    while start > 0 and not seen[start - 1]:
        start -= 1
    while stop < len(seen) and not seen[stop]:
        stop += 1
    return stop - start
