"""The distribution of the hidden entries of rows: what models say of them, in the units of the columns.

Which models they are is the business of :mod:`diffad.rows.filling_fitting`.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from diffad.calibration import Bands
from diffad.priors.conditional_rows import MixtureMarginals, RowConditional, pool
from diffad.rows.column_scale import ColumnScale
from diffad.rows.encoding import HOT, indicators

Matrix = NDArray[np.float64]
#: Numbers of rows and what was said of them, chunk by chunk.
Said: TypeAlias = Sequence[tuple[NDArray[np.int64], RowConditional]]


@dataclass(frozen=True)
class Pool:
    """Several models of rows, mixed with fixed shares."""

    models: tuple[Any, ...]
    shares: tuple[float, ...]

    @property
    def chunk(self) -> int:
        """Rows to condition on at a time."""
        return int(min(m.chunk for m in self.models))

    def condition(self, x: torch.Tensor) -> RowConditional:
        """Return p(hidden | visible) of rows (n, d)."""
        used = [(m, s) for m, s in zip(self.models, self.shares, strict=True) if s]
        return pool([m.condition(x) for m, _ in used], [s for _, s in used])


@dataclass(frozen=True)
class Space:
    """Scales of the numeric entries of encoded rows, and the blocks of the categorical ones."""

    scales: dict[int, ColumnScale]
    blocks: list[NDArray[np.int64]]
    variances: Matrix  # (width,), of the indicators

    @classmethod
    def fit(cls, rows: Matrix, owner: NDArray[np.int64], linear: bool) -> Space:
        """Learn from encoded rows (n, width) and the column behind each entry."""
        groups = [np.flatnonzero(owner == k) for k in np.unique(owner)]
        scales = {int(g[0]): ColumnScale.fit(rows[:, g[0]], linear) for g in groups if len(g) == 1}
        return cls(scales, [g for g in groups if len(g) > 1], np.nanvar(rows, 0))

    def forward(self, rows: Matrix) -> Matrix:
        """Bring numbers to the normal scale."""
        result = rows.copy()
        for entry, scale in self.scales.items():
            result[:, entry] = scale.forward(rows[:, entry])
        return result


@dataclass(frozen=True)
class Filler:
    """A model of rows with the scales of their columns and calibrated bands.

    Expected indicators are probabilities that grow linearly with what is visible; `sharpness` is the
    power that makes calibrated ones of them where the other columns tell all, 1 where they tell nothing.

    Attributes
    ----------
    space : Space
        Scales of the columns.
    model : prior of rows on the normal scale
    bands : Bands or None
    scale : {"linear", "scores"}
        Which space it is.
    parts : tuple of str
        What the model is made of, as ``("mixture-3", "kernel-0.5")``.
    sharpness : float
    """

    space: Space
    model: Any
    bands: Bands | None
    scale: str
    parts: tuple[str, ...]
    sharpness: float = 1.0

    @property
    def name(self) -> str:
        """Scale and parts, as ``"scores mixture-3 + kernel-0.5"``."""
        return f"{self.scale} {' + '.join(self.parts)}"

    def fill(self, rows: Matrix, levels: Sequence[float], said: Said | None = None) -> tuple[Matrix, Matrix]:
        """Fill the gaps of encoded rows (n, width), by what the model says, or has `said`, of them.

        Returns
        -------
        values : array (len(levels), n, width)
            Calibrated quantiles of numbers; the indicator of the most likely category.
        probabilities : array (n, width)
            Of each category; of what is known 0 or 1.  Numeric entries mean nothing.
        """
        values = np.repeat(rows[None], len(levels), 0)
        probabilities = rows / HOT
        for part, conditional in said or self.conditionals(rows):
            row, entry = (~conditional.known).numpy().nonzero()
            marginals = conditional.marginals()
            place = self._quantiles(marginals, entry, levels)
            for e, scale in self.space.scales.items():
                here = entry == e
                values[:, part[row[here]], e] = scale.inverse(place[here]).T
            mean, variance = marginals.mean().numpy(), marginals.variance().numpy()
            for block in self.space.blocks:
                gap = part[np.isnan(rows[part, block[0]])]
                if len(gap):
                    here, usual = np.isin(entry, block), self.space.variances[block].sum()
                    left = variance[here].reshape(len(gap), len(block)).sum(1, keepdims=True) / max(usual, 1e-12)
                    power = 1 + (self.sharpness - 1) * (1 - left).clip(0, 1)
                    chance = _chances(mean[here].reshape(len(gap), len(block)), power)
                    probabilities[np.ix_(gap, block)] = chance
                    values[:, gap[:, None], block] = indicators(chance.argmax(1), len(block))
        return values, probabilities

    def sample(self, rows: Matrix, n_samples: int, seed: int) -> Matrix:
        """Draw completed rows (n_samples, n, width): numbers together, then category by category given them."""
        uniform, noise = _randomness(rows, n_samples, seed, len(self.space.blocks))
        drawn = np.repeat(rows[None], n_samples, 0)
        for part, conditional in self.conditionals(rows):
            z = conditional.sample(torch.from_numpy(uniform[:, part, 0]), torch.from_numpy(noise[:, part])).numpy()
            for e, scale in self.space.scales.items():
                gap = np.isnan(rows[part, e])
                drawn[:, part, e] = np.where(gap, scale.inverse(z[:, :, e]), rows[part, e])
        for b, block in enumerate(self.space.blocks):
            gap = np.isnan(rows[:, block[0]])
            if not gap.any():
                continue
            chance = self.fill(drawn[:, gap].reshape(-1, rows.shape[1]), (0.5,))[1][:, block]
            pick = (chance.cumsum(1) < uniform[:, gap, 1 + b].reshape(-1, 1)).sum(1).clip(max=len(block) - 2)
            hot = indicators(pick, len(block))
            drawn[np.ix_(np.arange(n_samples), np.flatnonzero(gap), block)] = hot.reshape(n_samples, -1, len(block))
        return drawn

    def conditionals(self, rows: Matrix) -> Iterator[tuple[NDArray[np.int64], RowConditional]]:
        """Yield the numbers of rows with gaps, a chunk at a time, and what the model says of them."""
        for part, x in self.chunks(rows, self.model.chunk):
            yield part, self.model.condition(x)

    def chunks(self, rows: Matrix, size: int) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        """Yield the numbers of rows with gaps, `size` at a time, and these rows on the normal scale."""
        gaps = np.flatnonzero(np.isnan(rows).any(1))
        for start in range(0, len(gaps), size):
            part = gaps[start : start + size]
            yield part, torch.from_numpy(self.space.forward(rows[part]))

    def _quantiles(self, marginals: MixtureMarginals, entry: NDArray[np.int64], levels: Sequence[float]) -> Matrix:
        level = np.repeat(np.asarray(levels, float)[None], len(entry), 0)
        if self.bands is not None:
            width = self.bands.table.shape[1]
            for i, q in enumerate(levels):
                level[:, i] = ndtr(self.bands.quantile(q, np.zeros((1, width), np.int64))[0])[entry]
        return np.asarray(marginals.quantile(torch.from_numpy(level.clip(1e-9, 1 - 1e-9))).numpy())


def _chances(mean: Matrix, power: Matrix) -> Matrix:
    """Turn expected indicators (n, categories + 1) into probabilities by powers (n, 1); the last, unseen, has none."""
    chance = np.clip(mean / HOT, 1e-6, 1.0) ** power
    chance[:, -1] = 0.0
    return np.asarray(chance / chance.sum(1, keepdims=True))


def _randomness(rows: Matrix, n_samples: int, seed: int, n_blocks: int) -> tuple[Matrix, Matrix]:
    """Return uniform numbers (S, n, 1 + blocks) and white noise (S, n, width) that belong to the rows' content."""
    uniform = np.empty((n_samples, len(rows), 1 + n_blocks))
    noise = np.zeros((n_samples, *rows.shape))
    seen: Counter[int] = Counter()
    for i in np.flatnonzero(np.isnan(rows).any(1)):
        key = zlib.crc32(np.where(np.isnan(rows[i]), np.nan, rows[i] + 0.0).tobytes())
        # Rows that show the same are drawn apart: the first as if it were alone, the others by their turn.
        rng = np.random.Generator(np.random.Philox(key=[seed, seen[key] << 32 | key]))
        seen[key] += 1
        uniform[:, i] = rng.random((n_samples, 1 + n_blocks))
        noise[:, i] = rng.standard_normal((n_samples, rows.shape[1]))
    return uniform, noise
