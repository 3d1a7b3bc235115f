"""Bands that keep their promise: quantiles of standardised held-out errors.

Samples of a network tend to be too narrow, and a few samples cannot show a tail.  So bands are not
read off the samples: on held-out data the error ``z = (truth - median) / spread`` is recorded per
kind of gap and channel, and its empirical quantiles scale the spread of new samples (split
conformal prediction with a locally scaled score; Lei et al. 2018, section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from diffad.base.telling import tell

#: Entries below which a kind of gap borrows from all channels, or from all kinds.
ENOUGH = 400
#: Most that drift between held-out blocks may widen a band.
WIDEST = 2.0
#: Weight of the prior's spread beside that of the samples, in samples.
PRIOR_WEIGHT = 20
LEVELS = np.concatenate([[0.0005, 0.0025], np.linspace(0.005, 0.995, 199), [0.9975, 0.9995]])


def spread(
    samples: NDArray[np.float32], prior_scale: NDArray[np.float32], restless: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the spread of samples (n, ...), steadied by the prior's deviation (...) and times `restless` (...)."""
    n = len(samples)
    variance = samples.var(0, ddof=1) if n > 1 else np.zeros_like(prior_scale)
    steadied = np.sqrt((n * variance + PRIOR_WEIGHT * prior_scale**2) / (n + PRIOR_WEIGHT))
    result: NDArray[np.float32] = restless * steadied
    return result


@dataclass(frozen=True)
class Bands:
    """Quantiles of the standardised error: (kinds, channels, len(LEVELS))."""

    table: NDArray[np.float64]

    @classmethod
    def gaussian(cls, kinds: int, channels: int) -> Bands:
        """Bands of exact Gaussian samples."""
        return cls._same(stats.norm.ppf(LEVELS), kinds, channels)

    @classmethod
    def of_few(cls, kinds: int, channels: int, windows: float) -> Bands:
        """Bands of Gaussian samples whose spread so many windows told: Student's, with a window a degree of freedom.

        At least two: with fewer no band is worth having.
        """
        return cls._same(stats.t.ppf(LEVELS, max(windows, 2.0)), kinds, channels)

    @classmethod
    def _same(cls, quantiles: NDArray[np.float64], kinds: int, channels: int) -> Bands:
        return cls(np.broadcast_to(quantiles, (kinds, channels, len(quantiles))).copy())

    @classmethod
    def fit(
        cls,
        z: NDArray[np.float64],
        kind: NDArray[np.int64],
        channel: NDArray[np.int64],
        shape: tuple[int, int],
        block: NDArray[np.int64] | None = None,
    ) -> Bands:
        """Learn from held-out errors.

        Parameters
        ----------
        z : array (n,)
            Standardised errors.
        kind, channel : array (n,) of int
            Kind of gap and channel of each.
        shape : (kinds, channels)
        block : array (n,) of int, optional
            Held-out block each error comes from. Data drift, each channel in its own way: a channel's
            bands are widened half way from what all blocks need together to what the worse half needs.
        """
        bands = cls.gaussian(*shape)
        if len(z) < ENOUGH:
            return bands
        everything = _quantiles(z)
        for g in range(shape[0]):
            of_kind = kind == g
            fallback = _quantiles(z[of_kind]) if of_kind.sum() >= ENOUGH else everything
            for k in range(shape[1]):
                here = of_kind & (channel == k)
                bands.table[g, k] = _quantiles(z[here]) if here.sum() >= ENOUGH else fallback
        if block is not None:
            for k in range(shape[1]):
                here = channel == k
                bands.table[:, k] *= _widening(z[here], block[here])
            # Levels are widened each by itself: the farther one from the median is at least as wide.
            half = len(LEVELS) // 2
            bands.table[..., half:] = np.maximum.accumulate(bands.table[..., half:], -1)
            bands.table[..., half::-1] = np.minimum.accumulate(bands.table[..., half::-1], -1)
        return bands

    def quantile(self, q: float, kind: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the standardised quantile of each entry; kind is (..., channels)."""
        if not LEVELS[0] <= q <= LEVELS[-1]:
            tell(
                f"bands are known for quantiles from {LEVELS[0]} to {LEVELS[-1]}; the nearest of them is given for {q}",
            )
        after = int(np.clip(np.searchsorted(LEVELS, q), 1, len(LEVELS) - 1))
        share = float(np.clip((q - LEVELS[after - 1]) / (LEVELS[after] - LEVELS[after - 1]), 0, 1))
        column = (1 - share) * self.table[..., after - 1] + share * self.table[..., after]
        result: NDArray[np.float64] = column[kind, np.arange(kind.shape[-1])]
        return result


def _quantiles(z: NDArray[np.float64]) -> NDArray[np.float64]:
    # The finite-sample level of split conformal prediction: outward by one rank.
    level = np.clip(LEVELS + np.where(LEVELS < 0.5, -1, 1) / (len(z) + 1), 0, 1)
    result: NDArray[np.float64] = np.quantile(z, level)
    return result


def _widening(z: NDArray[np.float64], block: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return, per level, half (of the logarithm) of how much further out the worse half of the blocks lies.

    All of it would widen bands by the blocks' noise where nothing drifts.  From 1 to `WIDEST`.
    """
    blocks = [z[block == b] for b in np.unique(block)]
    each = np.abs([_quantiles(b) for b in blocks if len(b) >= ENOUGH])
    if len(each) < 2:
        return np.ones(len(LEVELS))
    worse = np.sort(each, 0)[len(each) // 2 :].mean(0)
    together = np.abs(_quantiles(z))
    # Near the median the ratio of two small numbers means nothing.
    outer = together > 0.25
    ratio = np.where(outer, worse / np.where(outer, together, 1.0), 1.0)
    return np.sqrt(ratio).clip(1.0, WIDEST)
