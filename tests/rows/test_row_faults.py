"""Faults put into rows are what they say: nothing but the columns named moves, and categories stay categories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.rows.faults import NOISE, ROW_FAULTS, SHIFT, SWAPPED

#: Two numbers, a category of three, a number.
owner = np.array([0, 1, 2, 2, 2, 3])
NUMBERS = np.array([0, 1, 5])


def rows(n, seed):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(3, 2, (n, 2)), np.eye(3)[rng.integers(0, 3, n)], rng.exponential(size=n)])


def changed_columns(x, faulty):
    """Return which columns (n, 4) of each row differ."""
    return np.stack([(x != faulty)[:, owner == k].any(1) for k in range(4)], 1)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(ROW_FAULTS)), st.integers(1, 60), st.integers(0, 1000))
def test_rows_are_not_written_to_and_categories_stay_categories(kind, n, seed):
    x = rows(n, seed)
    before = x.copy()
    faulty = ROW_FAULTS[kind](x, owner, np.random.default_rng(seed))
    np.testing.assert_array_equal(x, before)
    assert faulty.shape == x.shape and np.isfinite(faulty).all()
    np.testing.assert_array_equal(np.sort(faulty[:, owner == 2], 1), np.tile([0.0, 0.0, 1.0], (n, 1)))


@pytest.mark.parametrize(("kind", "share"), [("one_swapped", 1 / 4), ("some_swapped", SWAPPED)])
def test_swapped_columns_are_whole_and_another_rows(kind, share):
    x = rows(4000, 0)
    faulty = ROW_FAULTS[kind](x, owner, np.random.default_rng(1))
    changed = changed_columns(x, faulty)
    for k in range(4):
        seen = {tuple(row) for row in x[:, owner == k]}
        assert all(tuple(row) in seen for row in faulty[:, owner == k])
    assert changed[:, [0, 1, 3]].mean() == pytest.approx(share, abs=0.02)
    assert changed.sum(1).max() == 1 or kind == "some_swapped"


def test_noise_and_shifts_have_their_sizes():
    x = rows(4000, 0)
    moved = (ROW_FAULTS["noisy"](x, owner, np.random.default_rng(1)) - x)[:, NUMBERS]
    np.testing.assert_allclose(moved.std(0), NOISE * x[:, NUMBERS].std(0), rtol=0.05)
    moved = (ROW_FAULTS["shifted"](x, owner, np.random.default_rng(1)) - x)[:, NUMBERS] / x[:, NUMBERS].std(0)
    assert ((np.abs(moved) > 1e-9).sum(1) == 1).all()
    np.testing.assert_allclose(np.abs(moved).max(1), SHIFT)


def test_half_way_rows_lie_between_two():
    x = rows(500, 0)
    other = np.random.default_rng(1).permutation(x)
    faulty = ROW_FAULTS["between"](x, owner, np.random.default_rng(1))
    np.testing.assert_allclose(faulty[:, NUMBERS], (x + other)[:, NUMBERS] / 2)


def test_a_table_of_categories_alone_has_no_number_to_move():
    x, one = np.eye(3)[np.random.default_rng(0).integers(0, 3, 50)], np.zeros(3, int)
    for kind in ("between", "noisy", "shifted"):
        np.testing.assert_array_equal(ROW_FAULTS[kind](x, one, np.random.default_rng(0)), x)
