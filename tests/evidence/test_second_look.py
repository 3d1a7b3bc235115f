"""Around a fault of a lone channel rows are judged by what is left without it."""

from __future__ import annotations

import numpy as np
import pytest

from diffad import SeriesDetector
from diffad.evidence.cross_fitting import FOLDS
from diffad.evidence.second_look import BETWEEN, FIRST, MOST_OF_FIRST, STRANGE, second_look


def waves(n, seed):
    rng = np.random.default_rng(seed)
    return (np.sin(np.arange(n) / 5) + 0.1 * rng.standard_normal(n))[:, None]


def test_rows_around_a_fault_are_less_strange_than_the_fault():
    X = waves(2000, 1)
    X[1000:1010] += 3.0
    once, twice = (
        -SeriesDetector(context=context).fit(waves(3000, 0)).score_samples(X)[:, None] for context in ("past", "both")
    )
    inside, before, after = slice(1000, 1010), slice(975, 995), slice(1015, 1040)
    # Live, windows that end behind the fault still hold it.
    assert np.median(once[after]) > 0.7 * np.median(once[inside])
    assert max(np.median(twice[before]), np.median(twice[after])) < 0.7 * np.median(twice[inside])


def test_a_wrong_reading_alarms_for_some_rows_and_not_for_a_window():
    X = waves(600, 1)
    X[300] += 5.0
    alarms = np.flatnonzero(SeriesDetector().fit(waves(4000, 0)).predict(X) == -1)
    assert 300 in alarms
    assert (np.abs(alarms - 300) <= 48).sum() < 50, "one look alarms in all 96 rows whose windows hold it"


def test_what_is_strange_keeps_its_evidence_and_what_is_strange_without_it_too():
    n, reach = 400, 20
    first = {kind: np.full((n, 1), 2.0, np.float32) for kind in ("energy", "nearest", "missing")}
    first["energy"][150:260] = 8.0
    first["nearest"][200:210], first["nearest"][210 + BETWEEN] = STRANGE + 1, STRANGE + 1
    looked = []

    def look(rows):
        looked.append(len(rows))
        # Two rows away from the fault another one begins, which needs no help of it.
        return {kind: np.where(np.arange(len(rows))[:, None] < 40, 8.0, 1.0).astype(np.float32) for kind in first}

    rows = np.zeros((n, 1), np.float32)
    found = second_look(rows, first, look, reach)
    event = slice(200, 211 + BETWEEN)
    assert len(looked) == 1 and looked[0] == 4 * reach + 11 + BETWEEN
    np.testing.assert_array_equal(found["energy"][event], first["energy"][event])
    np.testing.assert_array_equal(found["energy"][:180], first["energy"][:180])
    np.testing.assert_array_equal(found["energy"][180:200], first["energy"][180:200])
    after = found["energy"][event.stop : event.stop + reach]
    assert np.allclose(after, 1.0 + min(FIRST * (8.0 - 1.0), MOST_OF_FIRST))
    np.testing.assert_array_equal(found["missing"], first["missing"])
    assert first["energy"][event.stop, 0] == 8.0, "the first look is left as it was"


@pytest.mark.parametrize(
    "first", [{"energy": np.full((9, 1), 9.0, np.float32)}, {"nearest": np.zeros((9, 1), np.float32)}]
)
def test_without_anything_strange_by_itself_nobody_looks_twice(first):
    assert second_look(np.zeros((9, 1), np.float32), first, lambda rows: 1 / 0, 5) == first


def test_a_channel_that_is_strange_throughout_is_looked_at_once_more_as_a_whole():
    first = {"nearest": np.full((500, 1), STRANGE + 1, np.float32), "energy": np.full((500, 1), 5.0, np.float32)}
    looked = []
    found = second_look(np.zeros((500, 1), np.float32), first, lambda r: looked.append(len(r)) or first, 20)
    assert looked == [500]
    np.testing.assert_array_equal(found["energy"], first["energy"])


def test_several_channels_and_live_rows_are_looked_at_once(monkeypatch):
    monkeypatch.setattr("diffad.evidence.scoring.second_look", lambda *given: pytest.fail("looked twice"))
    two = np.hstack([waves(600, 0), waves(600, 1)])
    two[300:310] += 3
    SeriesDetector().fit(two).score_samples(two)
    SeriesDetector(context="past").fit(two[:, :1]).score_samples(two[:, :1])


def test_normal_scores_are_of_two_looks_as_well(monkeypatch):
    """Else the threshold would be too high for what it is compared with."""
    looked = []
    monkeypatch.setattr(
        "diffad.evidence.scoring.second_look", lambda *given: looked.append(len(given[0])) or second_look(*given)
    )
    SeriesDetector().fit(waves(1000, 2))
    assert len(looked) >= FOLDS
