"""Channels that only count are told by name; what wanders, stands still or has gaps is none."""

import numpy as np
import pandas as pd
import pytest

from diffad import SeriesDetector
from diffad.series.counters import LEAST, warn_of_counters

RNG = np.random.default_rng(0)
TOTAL = np.cumsum(RNG.poisson(3, 400)).astype(float)


def gappy(x):
    return np.where(np.random.default_rng(1).random(len(x)) < 0.3, np.nan, x)


@pytest.mark.parametrize("channel", [TOTAL, -TOTAL, gappy(TOTAL)])
def test_a_counter_is_told(channel):
    with pytest.warns(UserWarning, match=r"channels \['b'\] only ever rise or fall"):
        warn_of_counters([np.c_[RNG.standard_normal(400), channel]], ["a", "b"])


@pytest.mark.parametrize(
    "channel",
    [np.full(400, 3.0), np.cumsum(RNG.standard_normal(400)), np.repeat([0.0, 1.0], 200), np.full(400, np.nan)],
    ids=["constant", "walk", "one step", "nothing"],
)
def test_others_are_not(channel, recwarn):
    warn_of_counters([channel[:, None]], ["a"])
    warn_of_counters([TOTAL[: LEAST - 1, None]], ["short"])
    assert not len(recwarn)


def test_a_counter_that_starts_anew_in_each_series_is_one_and_one_that_is_reset_is_not(recwarn):
    warn_of_counters([np.r_[TOTAL, TOTAL][:, None]], ["reset"])
    assert not len(recwarn)
    with pytest.warns(UserWarning, match="only ever rise"):
        warn_of_counters([TOTAL[:, None], TOTAL[:, None]], ["total"])


def test_a_detector_names_its_counters_when_fitted():
    X = pd.DataFrame({"flow": RNG.poisson(3, 300) + RNG.standard_normal(300)})
    X["total"] = X["flow"].abs().cumsum()
    with pytest.warns(UserWarning, match=r"\['total'\] only ever rise or fall .* give their differences"):
        SeriesDetector().fit(X)
