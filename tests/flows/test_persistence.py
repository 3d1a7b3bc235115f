"""Many flows that are each a little strange are one source that is very strange, however a log is cut."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.flows import persistence
from diffad.flows.persistence import MOST, SHARE, Persistence


def sources(n, seed=0, of=5):
    return pd.Series(np.random.default_rng(seed).choice([*"abcdefghij"[:of]], n))


def test_means_are_those_of_pandas():
    who, strangeness = sources(500), np.random.default_rng(1).exponential(size=500)
    found = Persistence(usual=1.0).update(who, strangeness)
    for source in who.unique():
        own = np.r_[1.0, strangeness[who == source].clip(max=MOST)]
        expected = pd.Series(own).ewm(alpha=SHARE, adjust=False).mean().to_numpy()[1:]
        np.testing.assert_allclose(found[who == source], expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=6))
def test_nothing_depends_on_how_a_log_is_cut(cuts):
    who, strangeness = sources(60), np.random.default_rng(1).exponential(size=60)
    whole, parts = Persistence(1.0).update(who, strangeness), Persistence(1.0)
    edges = [0, *sorted(cuts), 60]
    found = [parts.update(who[a:b], strangeness[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    np.testing.assert_array_equal(np.concatenate(found), whole)


def test_flows_of_nobody_are_nobodys():
    found = Persistence(1.0).update(pd.Series(["a", None, pd.NA, "a"]), np.array([1.0, 9.0, 9.0, 1.0]))
    np.testing.assert_array_equal(found, [1.0, 0.0, 0.0, 1.0])


def test_one_flow_alone_cannot_make_a_source_strange():
    lasting = Persistence(1.0)
    assert lasting.update(pd.Series(["a"]), np.array([1e9])).item() == pytest.approx(1 + SHARE * (MOST - 1))


def test_memory_is_bounded_and_the_latest_sources_stay(monkeypatch):
    monkeypatch.setattr(persistence, "REMEMBERED", 10)
    lasting = Persistence(1.0)
    for k in range(0, 1000, 5):
        lasting.update(pd.Series([f"s{k + i}" for i in range(5)]), np.full(5, 3.0))
    assert len(lasting.means) <= 20
    assert {f"s{k}" for k in range(990, 1000)} <= set(lasting.means)
