"""Alerts are grouped by source and time, whatever clocks say and however the log comes in pieces."""

from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffad.flows.incidents import AT_ONCE, Incidents

FUTURE = 4_000_000_000


def table(starts, sources):
    return pd.DataFrame({"start": pd.to_datetime(starts, unit="s", utc=True), "source": list(sources)})


def names(alerts, cuts=()):
    """Return the incidents of alerts that come in pieces."""
    grouping, ends = Incidents(), [0, *cuts, len(alerts)]
    return [name for a, b in pairwise(ends) for name in grouping.assign(alerts.iloc[a:b])["incident"]]


def test_a_pause_starts_another_incident():
    found = names(table([0, 300, 2000, 2100], "aaab"))
    assert found == ["a@19700101T000000", "a@19700101T000000", "a@19700101T003320", "b@19700101T003500"]


def test_a_clock_in_the_future_does_not_end_the_grouping():
    wrong, *others = names(table([FUTURE, 100, 200, 300], "aaaa"))
    assert len(set(others)) == 1 and wrong not in others


def test_an_incident_outlasts_wrong_clocks():
    starts = [100, FUTURE, 200, 2 * FUTURE, 0.5 * FUTURE, 300]
    first, _, second, _, _, third = names(table(starts, "aaaaaa"))
    assert first == second == third


def test_a_connection_that_began_within_an_incident_belongs_to_it():
    starts = [*range(0, 7200, 300), 600]
    assert len(set(names(table(starts, "a" * len(starts))))) == 1


def test_other_sources_do_not_end_an_incident():
    alerts = table([0, 700, 550], "aba")
    for cuts in ([], [1], [2], [1, 2]):
        first, _, last = names(alerts, cuts)
        assert first == last, cuts


@pytest.mark.parametrize("remembered", [2, 100_000])
@given(
    alerts=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 3000), st.sampled_from([FUTURE, 2 * FUTURE - 1000])),
            st.sampled_from(["a", "b", "c", "d", None]),
        ),
        max_size=40,
    ),
    cuts=st.lists(st.integers(0, 40), max_size=5).map(sorted),
)
def test_pieces_are_grouped_as_the_whole(remembered, alerts, cuts):
    alerts = table([start for start, _ in alerts], [source for _, source in alerts]).astype({"source": "string"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffad.flows.incidents.REMEMBERED", remembered)
        assert names(alerts, [min(cut, len(alerts)) for cut in cuts]) == names(alerts)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("diffad.flows.incidents.REMEMBERED", 3)
    grouping = Incidents()
    grouping.assign(table(range(0, 60_000, 1000), "abcdea" * 10))
    assert list(grouping.latest) == ["d", "e", "a"], "those of the latest alerts are kept"
    assert max(map(len, grouping.latest.values())) <= AT_ONCE
