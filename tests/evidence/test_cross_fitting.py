"""Which rows stand for all of a long recording."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diffad.evidence.cross_fitting import evenly_spread


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200), st.integers(1, 50_000))
def test_pieces_that_are_kept_hold_no_more_than_may_be(n_rows, most):
    pick = evenly_spread(n_rows, most)
    kept = np.take(n_rows, pick)
    assert (np.diff(pick) > 0).all()
    assert kept.sum() <= most or len(pick) == 1
    if sum(n_rows) <= most:
        assert len(pick) == len(n_rows)


def test_pieces_that_are_kept_are_spread_over_all_and_hold_most_of_what_may_be():
    pick = evenly_spread([500, 50] * 100, 20_000)
    assert pick[0] == 0 and pick[-1] == 199 and np.diff(pick).max() <= 4
    assert np.take([500, 50] * 100, pick).sum() > 10_000
