"""What a model is judged on is not what it was fitted to: blocks of long series, whole ones of many short."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from diffad import Sampler, SeriesImputer, Training
from diffad.series.held_out import HELD_OUT_SHARE, held_out, split

WINDOW = 16


def marked(lengths):
    return held_out(lengths, WINDOW)


@pytest.mark.parametrize("rows", [8 * WINDOW, 1000, 5000])
def test_a_long_series_spares_blocks_of_more_than_a_window_and_its_end(rows):
    (mark,) = marked([rows])
    edges = np.flatnonzero(np.diff(np.r_[False, mark, False].astype(int)))
    assert (np.diff(edges)[::2] > WINDOW).all()
    assert mark[-1]
    assert 0.5 * HELD_OUT_SHARE < mark.mean() < 0.3


@pytest.mark.parametrize("n", [8, 25, 400])
def test_many_short_series_spare_some_as_a_whole(n):
    marks = marked([WINDOW] * n)
    assert all(m.all() or not m.any() for m in marks)
    assert 0.08 < np.mean([m.all() for m in marks]) < 0.2


@pytest.mark.parametrize("lengths", [[8 * WINDOW - 1], [WINDOW] * 7, [WINDOW - 1] * 8, [1] * 100])
def test_few_rows_spare_none(lengths):
    assert not any(m.any() for m in marked(lengths))


def test_a_long_series_among_short_ones_is_judged_alone():
    marks = marked([WINDOW] * 20 + [20 * WINDOW])
    assert not any(m.any() for m in marks[:-1]) and marks[-1].any()


def test_no_stub_is_held_out_alone():
    marks = marked([2 * WINDOW] * 7 + [3])
    assert not marks[-1].any() and any(m.all() for m in marks[:-1])


def test_parts_are_all_rows_once():
    series = [np.arange(n, dtype=np.float32)[:, None] for n in (200, 30, 300)]
    marks = marked([len(s) for s in series])
    parts = np.concatenate([*split(series, marks, True), *split(series, marks, False)])
    assert sorted(parts.ravel()) == sorted(np.concatenate(series).ravel())


def panel(n, rows, seed=0):
    rng = np.random.default_rng(seed)
    level = rng.standard_normal((n, 1, 1))
    return level + np.array([0.0, 1.0]) + 0.1 * rng.standard_normal((n, rows, 2))


@pytest.mark.parametrize("prior", ["auto", None])
@pytest.mark.parametrize("rows", [WINDOW, WINDOW - 3])
def test_networks_are_trained_on_panels_of_short_series(prior, rows):
    X = panel(40, rows)
    X[::3, 2:5, 1] = np.nan
    quick = {"n_samples": 5, "sampler": Sampler(n_steps=1), "device": "cpu"}
    imputer = SeriesImputer(window=WINDOW, prior=prior, training=Training(max_steps=2), **quick).fit(X)
    assert [entry["step"] for entry in imputer.history_] == [2]
    assert np.isfinite(imputer.transform(X)).all()


def autoregressive(n, seed):
    noise = np.random.default_rng(seed).standard_normal((n, WINDOW + 100, 2))
    return lfilter([1], [1, -0.9], noise, axis=1)[:, 100:]


def test_the_form_of_the_prior_is_chosen_on_series_that_it_has_not_seen():
    """Sixty windows know little of a covariance of 32 entries, and they themselves do not tell."""
    X, new = autoregressive(60, seed=0), autoregressive(200, seed=1)
    gaps = new.copy()
    gaps[:, 4:12] = np.nan
    auto, plain = (
        np.abs(SeriesImputer(WINDOW, prior, Training(max_steps=0), device="cpu").fit(X).transform(gaps) - new).mean()
        for prior in ("auto", "gaussian")
    )
    assert auto < 0.95 * plain


def test_a_training_that_cannot_take_place_is_told():
    with pytest.warns(UserWarning, match=r"no network was trained.*8 windows of 16 rows"):
        SeriesImputer(WINDOW, training=Training(max_steps=2), device="cpu").fit(panel(7, WINDOW))
