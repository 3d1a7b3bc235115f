"""Windows cover every gap of a recording of any length, blend without seams and share their noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from diffad.series.windows import CHUNK_ROWS, NOISE_BLOCK, Cover, Segment, cut, segments, turns_of, white_noise


def ramp(rows, channels=2, start=0.0):
    """Return a series whose values tell row and channel."""
    values = start + np.arange(rows)[:, None] + 0.25 * np.arange(channels)
    return values.astype(np.float32)


@st.composite
def recordings(draw):
    """Draw a few series with gaps, a window length and segments of them."""
    length = draw(st.integers(1, 12))
    series, batch = [], []
    for i in range(draw(st.integers(1, 3))):
        rows = ramp(draw(st.integers(1, 60)))
        holes = np.random.default_rng(draw(st.integers(0, 999))).random(rows.shape)
        rows[holes < draw(st.floats(0, 0.5))] = np.nan
        series.append(rows)
        cuts = draw(st.lists(st.integers(1, max(1, len(rows) - 1)), max_size=3, unique=True))
        edges = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
        batch += [Segment(i, a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return series, batch, length


def covered_rows(cover, batch, k):
    """Return which rows of segment k are in one of its windows."""
    rows = cover.rows[cover.owner == k]
    return np.isin(np.arange(batch[k].start, batch[k].stop), rows)


@settings(max_examples=150, deadline=None)
@given(recordings())
def test_every_gap_is_covered_and_windows_hold_the_series(drawn):
    series, batch, length = drawn
    cover = Cover.build(series, batch, length)
    for k, segment in enumerate(batch):
        missing = np.isnan(series[segment.series][segment.start : segment.stop]).any(1)
        assert covered_rows(cover, batch, k)[missing].all()
    for window, inside, rows, k in zip(cover.windows, cover.inside, cover.rows, cover.owner, strict=True):
        segment = batch[k]
        source = series[segment.series]
        assert np.array_equal(rows, np.arange(rows[0], rows[0] + length))
        assert np.array_equal(inside, rows < len(source))
        assert inside.all() or len(source) < length, "a window may reach beyond a series only if none fits in it"
        np.testing.assert_array_equal(window[inside], source[rows[inside]])
        assert np.isnan(window[~inside]).all()
        here = inside & (rows >= segment.start) & (rows < segment.stop)
        assert np.isnan(window[here]).any(), "a window without a gap in its segment is work for nothing"


@settings(max_examples=100, deadline=None)
@given(recordings())
def test_stitching_blends_agreeing_windows_without_a_trace(drawn):
    series, batch, length = drawn
    cover = Cover.build(series, batch, length)
    weights = cover.weights()
    assert (weights[cover.inside] > 0).all()
    assert not weights[~cover.inside].any()
    ones = cover.stitch(np.ones((3, *cover.windows.shape), np.float32), batch, weights)
    # Row numbers: each window says the same of the same row.
    numbers = np.broadcast_to(cover.rows[..., None], cover.windows.shape).astype(np.float32)
    blended = cover.stitch(numbers, batch, weights)
    for k, segment in enumerate(batch):
        covered = covered_rows(cover, batch, k)
        assert ones[k].shape == (3, segment.stop - segment.start, 2)
        # A sum of weights over itself is exactly 1.
        assert (ones[k] == covered[:, None]).all()
        rows = np.arange(segment.start, segment.stop)
        np.testing.assert_allclose(blended[k][covered], np.repeat(rows[covered, None], 2, 1), rtol=1e-6)
        assert not blended[k][~covered].any()


def test_a_long_series_is_covered_across_segments():
    rows = ramp(2 * CHUNK_ROWS + 700, channels=1)
    rows[CHUNK_ROWS - 5 : CHUNK_ROWS + 5] = rows[-3:] = rows[:2] = np.nan
    found = np.zeros(len(rows), bool)
    for batch in segments([len(rows)]):
        cover = Cover.build([rows], batch, 48)
        for k, segment in enumerate(batch):
            found[segment.start : segment.stop] |= covered_rows(cover, batch, k)
    assert found[np.isnan(rows[:, 0])].all()
    assert found.mean() < 0.1, "rows far from any gap were put into windows"


def test_each_row_is_looked_at_a_few_times_however_long_the_series_is():
    """A recording of a million rows has 500 segments: none may look at all of it."""

    class Counting(np.ndarray):
        read = 0

        def __getitem__(self, key):
            part = super().__getitem__(key)
            Counting.read += np.size(part)
            return part

    rows = np.where(np.arange(20 * CHUNK_ROWS)[:, None] % 500 == 7, np.nan, ramp(20 * CHUNK_ROWS, 1)).view(Counting)
    for batch in segments([len(rows)]):
        Cover.build([rows], batch, 48)
    assert rows.size <= Counting.read <= 3 * rows.size


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 3 * CHUNK_ROWS), min_size=1, max_size=6))
def test_segments_partition_the_series_in_order(lengths):
    batches = list(segments(lengths))
    flat = [s for batch in batches for s in batch]
    for i, length in enumerate(lengths):
        mine = [s for s in flat if s.series == i]
        assert [s.start for s in mine] == [0, *(s.stop for s in mine[:-1])]
        assert mine[-1].stop == length
    assert flat == sorted(flat, key=lambda s: (s.series, s.start))
    for batch in batches:
        assert 0 < sum(s.stop - s.start for s in batch) < 2 * CHUNK_ROWS


def test_a_window_in_the_middle_counts_for_more_than_at_its_edge():
    rows = ramp(30)
    rows[10] = np.nan
    weights = Cover.build([rows], [Segment(0, 0, 30)], 8).weights()
    assert (weights[:, 3:5].min(1) > 2 * weights[:, [0, 7]].max(1)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5 * NOISE_BLOCK), st.integers(0, 60), st.integers(1, 80), st.integers(1, 4))
def test_equal_rows_get_equal_noise_whatever_window_asks(start, offset, length, n_samples):
    series = ramp(50, 3)
    first = np.arange(start, start + length)
    second = first + offset
    noise = [white_noise(5, series, rows, n_samples) for rows in (first, second)]
    assert noise[0].shape == (n_samples, length, 3)
    common = np.intersect1d(first, second)
    np.testing.assert_array_equal(noise[0][:, common - first[0]], noise[1][:, common - second[0]])


def test_noise_differs_by_seed_series_row_and_sample_and_is_white():
    series, rows = ramp(600, 3), np.arange(600)
    noise = white_noise(1, series, rows, 4)
    assert not np.isin(noise, white_noise(2, series, rows, 4)).all()
    assert not np.isin(noise, white_noise(1, series + 1, rows, 4)).all()
    assert len(np.unique(noise)) > 0.99 * noise.size  # float32 repeats a few by chance
    assert stats.kstest(noise.ravel().astype(float), "norm").pvalue > 1e-3
    flat = noise.transpose(1, 0, 2).reshape(600, -1).astype(float)
    correlations = np.corrcoef(np.hstack([flat[1:], flat[:-1]]).T) - np.eye(24)
    # Five standard errors of a correlation from 600 rows.
    assert np.abs(correlations).max() < 5 / np.sqrt(600)


def test_noise_depends_on_values_not_on_the_bits_of_nan_or_zero():
    """Any NaN is missing and -0.0 equals 0.0: equal input, equal noise."""
    series = ramp(20)
    series[4:6] = np.nan
    series[0, 0] = 0.0
    other = series.copy()
    other[4] = -np.float32(np.nan)
    other[0, 0] = -0.0
    np.testing.assert_array_equal(other, series)
    rows = np.arange(8)
    np.testing.assert_array_equal(white_noise(0, series, rows, 2), white_noise(0, other, rows, 2))


def test_windows_are_cut_at_every_row():
    windows = cut([ramp(6), ramp(4, start=100)], 3)
    assert windows.shape == (6, 3, 2)
    assert windows[:, 0, 0].tolist() == [0, 1, 2, 3, 100, 101]
    assert windows[1, :, 1].tolist() == [1.25, 2.25, 3.25]


def test_a_series_shorter_than_the_window_is_padded_at_its_end():
    windows = cut([ramp(2), ramp(3)], 3)
    assert windows[0, :2, 0].tolist() == [0, 1]
    assert np.isnan(windows[0, 2]).all()
    assert windows[1, :, 0].tolist() == [0, 1, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 8), st.integers(4, 30))
def test_cutting_keeps_its_bound(lengths, length, most):
    windows = cut([ramp(n) for n in lengths], length, most)
    assert len(windows) <= most
    assert len(windows) >= len(lengths)


@pytest.mark.parametrize("most", [5, 10, 100])
def test_the_stride_is_the_smallest_that_keeps_the_bound(most):
    windows = cut([ramp(33)], 4, most)  # 30 windows in all
    starts = windows[:, 0, 0]
    assert np.unique(np.diff(starts)) == -(-30 // most)


def test_equal_series_get_noise_of_their_own():
    a, b = np.zeros((50, 2), np.float32), np.ones((50, 2), np.float32)
    turns = turns_of([a, b, a, a, b])
    assert turns == [0, 0, 1, 2, 1]
    first, second = (white_noise(0, a, np.arange(50), 3, turn=turn) for turn in (0, 1))
    assert np.abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2
