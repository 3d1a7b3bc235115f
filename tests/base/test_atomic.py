"""A fit that fails, or is interrupted, leaves every estimator as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from diffad import (
    AlarmsPerDay,
    DiffusionVAE,
    ImageDetector,
    ImageImputer,
    SeriesDetector,
    SeriesImputer,
    TabularDetector,
    TabularImputer,
    Training,
    tracking,
)

RNG = np.random.default_rng(0)
SERIES = np.sin(np.arange(300) / 5)[:, None] + 0.1 * RNG.standard_normal((300, 2))
ROWS = RNG.standard_normal((80, 1)) + 0.1 * RNG.standard_normal((80, 3))
IMAGES = RNG.random((12, 1, 1)) + 0.1 * RNG.standard_normal((12, 8, 8))
NOTHING = Training(max_steps=0)

CASES = {
    "SeriesImputer": (SeriesImputer(training=NOTHING), SERIES, lambda m: m.transform(_holed(SERIES))),
    "SeriesDetector": (SeriesDetector(kinds=("energy",)), SERIES, lambda m: m.decision_function(SERIES)),
    "TabularImputer": (TabularImputer(), ROWS, lambda m: m.transform(_holed(ROWS))),
    "TabularDetector": (TabularDetector(kinds=("nearest",)), ROWS, lambda m: m.decision_function(ROWS)),
    "ImageImputer": (ImageImputer(), IMAGES, lambda m: m.transform(_holed(IMAGES))),
    "ImageDetector": (ImageDetector(), IMAGES, lambda m: m.decision_function(IMAGES)),
    "DiffusionVAE": (DiffusionVAE(training=Training(max_steps=2)), IMAGES, lambda m: m.generate(2)),
}


def _holed(X):
    gaps = X.copy()
    gaps[3:5, 1] = np.nan
    return gaps


def _interrupt_after_the_work(monkeypatch):
    """Let tracking fail as the user's Ctrl-C would: when everything has been learnt and not all been kept."""

    class Interrupted:
        def __init__(self, *args):
            pass

        def __enter__(self):
            return None

        def __exit__(self, *args):
            raise KeyboardInterrupt

    monkeypatch.setattr(tracking, "run_of", Interrupted)


@pytest.mark.parametrize("name", CASES)
def test_an_interrupted_refit_changes_nothing(name, monkeypatch):
    model, X, use = CASES[name]
    expected = use(model.fit(X))
    _interrupt_after_the_work(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        model.fit(3 * X[::-1] + 1)
    np.testing.assert_array_equal(use(model), expected)


@pytest.mark.parametrize("name", CASES)
def test_an_interrupted_first_fit_leaves_nothing(name, monkeypatch):
    model, X, _ = CASES[name]
    _interrupt_after_the_work(monkeypatch)
    model = type(model)(**model.get_params(deep=False))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)


def test_a_threshold_that_cannot_be_found_keeps_the_old_one():
    detector = SeriesDetector(kinds=("energy",)).fit(SERIES)
    before = detector.predict(SERIES)
    detector.set_params(threshold=AlarmsPerDay(1))
    with pytest.raises(ValueError, match="DatetimeIndex"):
        detector.fit(100 * SERIES + 5)
    np.testing.assert_array_equal(detector.predict(SERIES), before)
    normal = detector.normal_
    with pytest.raises(ValueError, match="DatetimeIndex"):
        detector.recalibrate(SERIES)
    assert detector.normal_ is normal


def test_a_frame_with_other_columns_does_not_rename_the_fitted_ones():
    clock = pd.date_range("2024-01-01", periods=300, freq="s")
    frame = pd.DataFrame(SERIES, clock, ["a", "b"])
    model = SeriesImputer(training=NOTHING).fit(frame)
    with pytest.raises(ValueError, match="irregular"):
        model.fit(frame.rename(columns={"b": "c"}).drop(index=clock[5:9]))
    assert list(model.transform(frame).columns) == ["a", "b"]


def test_who_looks_while_it_is_fitted_anew_sees_the_old_model(monkeypatch):
    """Another thread may score while a detector learns: by the model before or the one after, none between."""
    detector = TabularDetector(kinds=("nearest",)).fit(ROWS)
    expected, seen = detector.score_samples(ROWS), []
    honest = tracking.run_of

    def looked_at(estimator, X):
        seen.append(detector.score_samples(ROWS))
        return honest(estimator, X)

    monkeypatch.setattr(tracking, "run_of", looked_at)
    detector.fit(3 * ROWS[::-1, :2] + 1)
    np.testing.assert_array_equal(seen[0], expected)
    assert detector.n_features_in_ == 2
