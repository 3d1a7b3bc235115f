"""Warnings point at the user's line."""

import warnings

import numpy as np
import pandas as pd
import pytest

from diffad import AlarmsPerDay, ImageDetector, SeriesDetector, SeriesImputer, Training
from diffad.files.tables import read_table

ROWS = np.random.default_rng(0).standard_normal((300, 2))


def hole(k):
    rows = ROWS.copy()
    rows[:, k] = np.nan
    return rows


def read_epochs(tmp_path):
    (tmp_path / "x.csv").write_text("time,a\n1700000000,1\n1700000060,2\n")
    return read_table(tmp_path / "x.csv")


detector = SeriesDetector(kinds=("energy",)).fit(ROWS)


@pytest.mark.parametrize(
    "call",
    [
        lambda _: SeriesDetector(kinds=("energy",)).fit(ROWS[:60]),
        lambda _: SeriesDetector(kinds=("energy",)).fit_predict(ROWS[:60]),
        lambda _: SeriesDetector(kinds=("energy",)).fit(ROWS, np.arange(300)),
        lambda _: SeriesDetector(threshold=AlarmsPerDay(500, rows_per_day=600), kinds=("energy",)).fit(ROWS),
        lambda _: SeriesImputer(training=Training(max_steps=0)).fit(hole(1)),
        lambda _: detector.score_samples(hole(0)),
        lambda _: detector.predict(hole(0)),
        lambda _: detector.events(hole(0)),
        lambda _: detector.predict(3 * np.tile(ROWS, (2, 1))),
        lambda _: ImageDetector().fit(np.random.default_rng(0).random((10, 8, 8))),
        read_epochs,
    ],
)
def test_a_warning_points_here(call, tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        call(tmp_path)
    assert said
    assert {w.filename for w in said} == {__file__}, [str(w.message) for w in said]


def test_a_pipeline_does_not_hide_the_caller():
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with pytest.warns(UserWarning, match="no observed value") as said:
        make_pipeline(StandardScaler(), SeriesImputer(training=Training(max_steps=0))).fit_transform(
            pd.DataFrame(hole(0), columns=["a", "b"])
        )
    assert {w.filename for w in said if "no observed value" in str(w.message)} == {__file__}
