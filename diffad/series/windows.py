"""Windows over recordings: cutting training windows, covering gaps, stitching without seams."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Rows that pass the model together; bounds memory whatever the recording's length.
CHUNK_ROWS = 2048
#: Rows of white noise that share a random key.
NOISE_BLOCK = 256

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Segment:
    """Rows ``start`` to ``stop`` of series ``series``."""

    series: int
    start: int
    stop: int


def cut(series: list[Array], length: int, most: int = 20_000) -> Array:
    """Return windows (n, length, channels) at the smallest stride that yields at most `most`
    (but at least one of each series).

    A series shorter than the window is padded with NaN at its end.
    """
    padded = [_pad(s, length) for s in series]
    total = sum(len(s) - length + 1 for s in padded)
    stride = max(1, -(-total // most))
    while sum(-(-(len(s) - length + 1) // stride) for s in padded) > max(most, len(padded)):
        stride += 1
    views = [np.lib.stride_tricks.sliding_window_view(s, length, 0)[::stride] for s in padded]
    return np.concatenate(views).transpose(0, 2, 1)


def _pad(rows: Array, length: int) -> Array:
    missing = length - len(rows)
    if missing <= 0:
        return rows
    return np.concatenate([rows, np.full((missing, rows.shape[1]), np.nan, rows.dtype)])


def segments(lengths: list[int]) -> Iterator[list[Segment]]:
    """Cut series into segments and yield them in batches of about CHUNK_ROWS rows."""
    batch, rows = [], 0
    for i, length in enumerate(lengths):
        for start in range(0, length, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, length)
            batch.append(Segment(i, start, stop))
            rows += stop - start
            if rows >= CHUNK_ROWS:
                yield batch
                batch, rows = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class Cover:
    """Windows that cover the gaps of a batch of segments.

    Attributes
    ----------
    windows : array (n, length, channels)
        Values, NaN where missing and in the padding.
    inside : array (n, length), bool
        False in the padding beyond a series' end.
    rows : array (n, length) of int
        Row of its series, for each window's time step.
    owner : array (n,) of int
        Index of the segment.
    """

    windows: Array
    inside: NDArray[np.bool_]
    rows: NDArray[np.int64]
    owner: NDArray[np.int64]

    @classmethod
    def build(cls, series: list[Array], batch: list[Segment], length: int) -> Cover:
        """Overlap windows by half; leave out those without a gap in their segment."""
        rows, owner = [], []
        for k, segment in enumerate(batch):
            source = series[segment.series]
            missing = np.asarray(np.isnan(source[segment.start : segment.stop]).any(1))
            if not missing.any():
                continue
            for start in _starts(segment, len(source), length):
                if missing[max(start - segment.start, 0) : start + length - segment.start].any():
                    rows.append(np.arange(start, start + length))
                    owner.append(k)
        channels = series[0].shape[1]
        index = np.array(rows, dtype=np.int64).reshape(len(rows), length)
        windows = np.full((len(rows), length, channels), np.nan, np.float32)
        inside = np.zeros((len(rows), length), bool)
        for i, k in enumerate(owner):
            source = series[batch[k].series]
            inside[i] = index[i] < len(source)
            windows[i, inside[i]] = source[index[i, inside[i]]]
        return cls(windows, inside, index, np.array(owner, dtype=np.int64))

    def white_noise(
        self,
        seed: int,
        series: list[Array],
        turns: Sequence[int],
        batch: list[Segment],
        n_samples: int,
        step: int = 0,
        windows: Sequence[int] | None = None,
    ) -> Array:
        """Return the noise (n_samples, k, length, channels) of some windows, all by default; see `white_noise`.

        `turns` are those of the series.
        """
        chosen = range(len(self.windows)) if windows is None else windows
        noise = np.empty((n_samples, len(chosen), *self.windows.shape[1:]), np.float32)
        for place, i in enumerate(chosen):
            number = batch[self.owner[i]].series
            noise[:, place] = white_noise(seed, series[number], self.rows[i], n_samples, step, turns[number])
        return noise

    def weights(self) -> Array:
        """Return how much each window says about its rows: (n, length).

        The middle of a window knows both its sides, and a window that sees much knows more.
        """
        length = self.rows.shape[1]
        tent = 1 - np.abs(np.arange(length) + 0.5 - length / 2) / (length / 2)
        seen = 1 - np.isnan(self.windows).mean((1, 2))
        return (tent * (0.02 + seen[:, None]) * self.inside).astype(np.float32)

    def stitch(self, values: Array, batch: list[Segment], weights: Array) -> list[Array]:
        """Blend windows (..., n, length, channels) into segments (..., rows, channels); 0 where none is."""
        result = []
        for k, segment in enumerate(batch):
            size = segment.stop - segment.start
            total = np.zeros((*values.shape[:-3], size, values.shape[-1]), np.float32)
            norm = np.zeros((size, 1), np.float32)
            for i in np.flatnonzero(self.owner == k):
                here = (self.rows[i] >= segment.start) & (self.rows[i] < segment.stop)
                place = slice(*(self.rows[i][here][[0, -1]] - segment.start + [0, 1]))
                weight = weights[i][here][:, None]
                total[..., place, :] += weight * values[..., i, here, :]
                norm[place] += weight
            result.append(np.divide(total, np.maximum(norm, 1e-12), dtype=np.float32))
        return result


def _starts(segment: Segment, series_length: int, length: int) -> list[int]:
    """Starts of windows that overlap the segment; the last window ends with the series."""
    stride = max(1, length // 2)
    last = max(0, series_length - length)
    grid = range(max(0, (segment.start - length) // stride * stride), segment.stop, stride)
    starts = sorted({min(s, last) for s in grid})
    return [s for s in starts if s < segment.stop and s + length > segment.start]


def _content_key(series: Array) -> int:
    content = series[:CHUNK_ROWS]
    # One bit pattern for every NaN and for both zeros: equal values, equal key.
    return zlib.crc32(np.where(np.isnan(content), np.float32(np.nan), content + np.float32(0)).tobytes())


def turns_of(series: list[Array]) -> list[int]:
    """Return how many series of the same content came before each: what is drawn for one is not drawn for its equal."""
    before: Counter[int] = Counter()
    turns = []
    for key in map(_content_key, series):
        turns.append(before[key])
        before[key] += 1
    return turns


def white_noise(
    seed: int, series: Array, rows: NDArray[np.int64], n_samples: int, step: int = 0, turn: int = 0
) -> Array:
    """Return white noise (n_samples, length, channels) that belongs to the rows of one series, for a step of a sampler.

    Overlapping windows get the same noise in the same rows, so their samples agree and blend
    without a seam.  The key is the seed and the content of the series: equal input, equal noise,
    in whatever order series are given; only equal series are told apart, by their `turn`.
    """
    key = _content_key(series)
    channels = series.shape[1]
    first, last = int(rows[0]) // NOISE_BLOCK, int(rows[-1]) // NOISE_BLOCK
    blocks = [
        np.random.Generator(
            np.random.Philox(key=[(seed << 32) | key, (turn % 2**12 << 52) | (step << 40) | block])
        ).standard_normal((n_samples, NOISE_BLOCK, channels), dtype=np.float32)
        for block in range(first, last + 1)
    ]
    offset = rows - first * NOISE_BLOCK
    return np.concatenate(blocks, 1)[:, offset]
