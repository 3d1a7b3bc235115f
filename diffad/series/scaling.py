"""Robust standardisation of channels, and what is known of their range."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffad.base.caching import ForgetsCaches
from diffad.series.marginals import Marginals

#: Share of a channel's values that must equal one value for it to be a level at which the channel rests.
ATOM = 0.02
#: Standard deviations within which a filled value is the level: what single precision cannot tell apart.
SAME = 1e-5
#: Standard deviations at which values are cut: beyond, squares leave the range of float32.
FARTHEST = 1e12
#: Standard deviations up to which values are taken as they are: of channels that burst, and of the others, whose level
#: may wander, but which a reading of -9999 must not carry along.
KNEE, CALM_KNEE = 4.0, 16.0
#: A channel bursts where more than this share of its values is beyond the knee, or any is twice as far.
BURSTS = 1e-3


@dataclass(frozen=True)
class Scaling(ForgetsCaches):
    """Centre, scale and bounds per channel, learnt from rows that may hold NaN.

    The scale is the standard deviation of the values clipped to 8 robust deviations (of the median
    or of the central 90 %, the larger), so that a few
    wild readings do not hide the rest.  A channel that rests on its minimum or maximum (a rate
    that is often 0, a saturated sensor) keeps it as a bound, and what is filled in comes back to
    levels at which it rests exactly: a band that ends a rounding error above 0 would miss every 0.
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]  # 0 for a constant channel, NaN for one never observed
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    levels: tuple[NDArray[np.float64], ...]  # per channel, rising
    knee: NDArray[np.float64]  # in standard deviations, from where on detection compresses values
    marginals: Marginals | None = None  # of the modelled channels in standardised units

    @classmethod
    def fit(cls, rows: NDArray[np.float64]) -> Scaling:
        """Learn from rows (n, channels)."""
        columns = [_column(rows[:, k]) for k in range(rows.shape[1])]
        centre, scale, lower, upper = np.array([c[:4] for c in columns]).reshape(-1, 4).T
        knee = np.array([_knee(*c) for c in zip(rows.T, centre, scale, strict=True)])
        return cls(centre, scale, lower, upper, tuple(c[4] for c in columns), knee)

    @cached_property
    def modelled(self) -> NDArray[np.bool_]:
        """Channels that vary: the others are filled with their constant, or stay missing."""
        return np.nan_to_num(self.scale) > 0

    def forward(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standardise the modelled channels of (..., channels)."""
        keep = self.modelled
        with np.errstate(over="ignore"):
            z = np.clip((rows[..., keep] - self.centre[keep]) / self.scale[keep], -FARTHEST, FARTHEST)
        return z if self.marginals is None else squash(self.marginals.forward(z))

    def inverse(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Undo :meth:`forward`, inside the bounds; unmodelled channels get their constant or NaN."""
        keep = self.modelled
        result = np.empty((*rows.shape[:-1], len(keep)))
        result[...] = self.centre
        rows = rows if self.marginals is None else self.marginals.inverse(unsquash(rows))
        result[..., keep] = np.clip(rows * self.scale[keep] + self.centre[keep], self.lower[keep], self.upper[keep])
        for k in np.flatnonzero(keep):
            result[..., k] = _snapped(result[..., k], self.levels[k], SAME * self.scale[k])
        return result


def squash(z: NDArray[np.float64], knee: float | NDArray[np.float64] = KNEE) -> NDArray[np.float64]:
    """Compress standardised values (..., channels) beyond `knee` logarithmically: bursts must not own a covariance."""
    beyond = np.maximum(np.abs(z) - knee, 0.0)
    return np.sign(z) * (np.minimum(np.abs(z), knee) + np.log1p(beyond))


def unsquash(z: NDArray[np.floating], knee: float | NDArray[np.float64] = KNEE) -> NDArray[np.float64]:
    """Undo :func:`squash`."""
    beyond = np.maximum(np.abs(z) - knee, 0.0)
    result: NDArray[np.float64] = np.sign(z) * (np.minimum(np.abs(z), knee) + np.expm1(beyond))
    return result


def _knee(values: NDArray[np.float64], centre: float, scale: float) -> float:
    """Return beyond which size a channel's values are compressed.

    Compressing each channel by itself bends what is a line between two: a channel without bursts, as a level that
    wanders out of its range, is taken as it is.
    """
    if not scale > 0:
        return KNEE
    size = np.abs(values[~np.isnan(values)] / scale - centre / scale)
    return KNEE if (size > 2 * KNEE).any() or (size > KNEE).mean() > BURSTS else CALM_KNEE


def _snapped(values: NDArray[np.float64], levels: NDArray[np.float64], within: float) -> NDArray[np.float64]:
    """Move values that are within a distance of a level to it."""
    if not len(levels):
        return values
    above = np.searchsorted(levels, values).clip(1, max(1, len(levels) - 1))
    below = np.maximum(above - 1, 0)
    above = np.minimum(above, len(levels) - 1)
    near = np.where(values - levels[below] <= levels[above] - values, levels[below], levels[above])
    result: NDArray[np.float64] = np.where(np.abs(values - near) <= within, near, values)
    return result


def _column(values: NDArray[np.float64]) -> tuple[float, float, float, float, NDArray[np.float64]]:
    x = values[~np.isnan(values)]
    distinct, counts = np.unique(x, return_counts=True)
    levels = distinct[counts >= ATOM * len(x)]
    if not len(x):
        return np.nan, np.nan, -np.inf, np.inf, levels
    low, high = distinct[0], distinct[-1]
    if low == high:
        return low, 0.0, -np.inf, np.inf, levels
    # Squares of numbers beyond 1e154 overflow, those of numbers below 1e-162 vanish; powers of two divide exactly.
    unit = 2.0 ** (np.frexp(max(abs(low), abs(high)))[1] - 1)
    centre, scale = (unit * s for s in _moments(x / unit))
    if not scale > 0:
        return centre, 0.0, -np.inf, np.inf, levels
    lower = low if low in levels else -np.inf
    upper = high if high in levels else np.inf
    return centre, scale, lower, upper, levels


def _moments(x: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and standard deviation of clipped values, the latter 0 where it is lost in rounding."""
    middle = float(np.median(x))
    spread = 1.4826 * float(np.median(np.abs(x - middle)))
    # A channel that switches rests at one value most of the time; the other level is not an outlier.
    spread = max(spread, float(np.diff(np.quantile(x, [0.05, 0.95]))[0]) / 3.29)
    clipped = np.clip(x, middle - 8 * spread, middle + 8 * spread) if spread > 0 else x
    centre, scale = float(clipped.mean()), float(clipped.std())
    return centre, scale if scale > np.finfo(float).eps * np.abs(clipped).max() else 0.0
