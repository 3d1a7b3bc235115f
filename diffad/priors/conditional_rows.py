"""p(hidden | visible) of rows as a mixture of normals with weights of each row's own.

Unlike :class:`diffad.priors.base.Conditional`, which depends on masks alone, the weights here
depend on what is visible (Bishop 2006, section 9.2: responsibilities of the visible entries).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: Points of the first grid on which a distribution function is inverted, and bisections after it.
GRID, BISECTIONS = 33, 6
#: Entries whose distribution functions are inverted at a time.
CHUNK = 4096


@dataclass(frozen=True)
class MixtureMarginals:
    """Mixture of K normals of each of E hidden entries, in the order of ``(~known).nonzero()``."""

    weights: Tensor  # (E, K), rows add up to 1
    means: Tensor  # (E, K)
    deviations: Tensor  # (E, K)

    def mean(self) -> Tensor:
        """Return the expectation (E,)."""
        return (self.weights * self.means).sum(1)

    def variance(self) -> Tensor:
        """Return the variance (E,)."""
        square = (self.weights * (self.deviations**2 + self.means**2)).sum(1)
        return (square - self.mean() ** 2).clamp(min=0)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probability of at most each of `value` (E, L)."""
        total = torch.zeros_like(value)
        for w, m, s in zip(self.weights.T, self.means.T, self.deviations.T, strict=True):
            total += w[:, None] * torch.special.ndtr((value - m[:, None]) / s[:, None])
        return total

    def quantile(self, level: Tensor) -> Tensor:
        """Return the quantiles at levels (L,) of all, or (E, L) of each entry: (E, L)."""
        level = level.expand(len(self.weights), level.shape[-1])
        parts = [
            MixtureMarginals(w, m, s)._invert(q)
            for w, m, s, q in zip(
                *(t.split(CHUNK) for t in (self.weights, self.means, self.deviations, level)), strict=True
            )
        ]
        return torch.cat(parts) if parts else level

    def _invert(self, level: Tensor) -> Tensor:
        # Each quantile of a mixture lies between the least and the largest of its components'.
        normal = torch.special.ndtri(level)[:, :, None]
        each = self.means[:, None] + self.deviations[:, None] * normal
        used = (self.weights > 0)[:, None]
        low = torch.where(used, each, torch.inf).amin(2).amin(1, keepdim=True)
        high = torch.where(used, each, -torch.inf).amax(2).amax(1, keepdim=True)
        grid = low + (high - low) * torch.linspace(0, 1, GRID, dtype=low.dtype)
        right = torch.searchsorted(self.cdf(grid).contiguous(), level.contiguous()).clamp(1, GRID - 1)
        low, high = grid.gather(1, right - 1), grid.gather(1, right)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = self.cdf(middle) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


@dataclass(frozen=True)
class RowConditional:
    """Mixture of K normals of the hidden entries of each of n rows.

    Attributes
    ----------
    known : Tensor of shape (n, d), bool
    log_weights : Tensor of shape (n, K)
        Normalised.
    means : Tensor of shape (n, K, d)
        Visible entries as they are.
    covariances : Tensor of shape (n, C, d, d)
        0 outside the hidden block; C is K, or 1 where components share it.
    informed : Tensor of shape (n, K, d), bool, or None
        Entries that a component knows something about; None is all. The marginal of an entry is
        that of the components which know it.
    """

    known: Tensor
    log_weights: Tensor
    means: Tensor
    covariances: Tensor
    informed: Tensor | None = None

    def marginals(self) -> MixtureMarginals:
        """Return the distribution of every hidden entry alone."""
        row, column = (~self.known).nonzero(as_tuple=True)
        log_weights = self.log_weights[row]
        if self.informed is not None:
            informed = self.informed[row, :, column]
            log_weights = torch.where(informed | ~informed.any(1, keepdim=True), log_weights, -torch.inf)
        variance = self.covariances.diagonal(dim1=2, dim2=3)[row, :, column]
        means = self.means[row, :, column]
        return MixtureMarginals(torch.softmax(log_weights, 1), means, variance.clamp(min=1e-12).sqrt().expand_as(means))

    def sample(self, uniform: Tensor, noise: Tensor) -> Tensor:
        """Draw completed rows (S, n, d) from uniform numbers (S, n) and white noise (S, n, d)."""
        block = ~self.known[:, None, :, None] & ~self.known[:, None, None, :]
        eye = torch.eye(self.known.shape[1], dtype=self.means.dtype)
        roots = torch.linalg.cholesky(torch.where(block, self.covariances, 0.0) + 1e-10 * eye)
        heights = self.log_weights.exp().cumsum(1)
        n = torch.arange(len(self.known))
        drawn = torch.empty_like(noise)
        for s in range(len(noise)):
            pick = torch.searchsorted(heights, uniform[s][:, None] * heights[:, -1:])[:, 0]
            pick = pick.clamp(max=heights.shape[1] - 1)
            root = roots[n, pick if roots.shape[1] > 1 else torch.zeros_like(pick)]
            step = (root @ noise[s][:, :, None])[:, :, 0]
            drawn[s] = self.means[n, pick] + torch.where(self.known, 0.0, step)
        return drawn


def pool(parts: Sequence[RowConditional], shares: Sequence[float]) -> RowConditional:
    """Return the mixture of several conditionals of the same rows with the given shares."""
    kept = [(p, torch.tensor(s, dtype=p.means.dtype)) for p, s in zip(parts, shares, strict=True) if s > 0]
    if len(kept) == 1:
        return kept[0][0]
    known = kept[0][0].known
    covariances = [p.covariances.expand(-1, p.means.shape[1], -1, -1) for p, _ in kept]
    informed = [torch.ones_like(p.means, dtype=torch.bool) if p.informed is None else p.informed for p, _ in kept]
    return RowConditional(
        known,
        torch.cat([p.log_weights + s.log() for p, s in kept], 1),
        torch.cat([p.means for p, _ in kept], 1),
        torch.cat(covariances, 1),
        torch.cat(informed, 1) if any(p.informed is not None for p, _ in kept) else None,
    )
