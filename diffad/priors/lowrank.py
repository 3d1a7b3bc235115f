"""Low rank plus diagonal Gaussian for windows too large for a dense covariance.

``S = U U' + diag(n)``: probabilistic principal components with a noise of its own per entry.  All
conditionals go through Woodbury's identity, so that a mask costs O(d r^2) time and O(r^2) memory
instead of O(d^3) and O(d^2) (Petersen and Pedersen 2012, eq. 156).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from diffad.base.defaults import seeded
from diffad.priors.base import OneCentre
from diffad.priors.covariance import _column_means, eigh
from diffad.priors.gaussian import NUGGET


@dataclass(frozen=True)
class LowRankConditional:
    """Conditionals of M masks; per mask three (r, r) matrices stand for the (d, d) ones."""

    mean: Tensor  # (d,)
    factor: Tensor  # (d, r)
    noise_variance: Tensor  # (d,)
    posterior: Tensor  # (M, r, r) covariance of the factors given the visible entries
    root: Tensor  # (M, r, r) middle of the root of the hidden covariance, see `color`
    visible: Tensor  # (M, d)
    hidden: Tensor  # (M, d)
    scale: Tensor  # (M, d)
    surprise_scale: Tensor  # (M, d) root of the diagonal of the visible precision

    def centre(self, x: Tensor) -> Tensor:
        return self.mean.expand(x.shape)

    def explain(self, x: Tensor) -> Tensor:
        given = torch.where(self.visible[:, None], x - self.mean, 0.0) / self.noise_variance
        common = ((given @ self.factor) @ self.posterior) @ self.factor.T
        surprise = (given - common / self.noise_variance) / self.surprise_scale[:, None]
        mean = torch.where(self.hidden[:, None], self.mean + common, 0.0)
        return torch.where(self.visible[:, None], surprise, mean)

    def color(self, noise: Tensor) -> Tensor:
        # root(N + U G U') applied as N^1/2 (I + W C W'), W = N^-1/2 U over the hidden entries.
        white = torch.where(self.hidden[:, None], noise, 0.0)
        deviation = self.noise_variance.sqrt()
        common = (((white / deviation) @ self.factor) @ self.root) @ self.factor.T
        return torch.where(self.hidden[:, None], white * deviation + common, 0.0)

    def select(self, index: Tensor) -> LowRankConditional:
        return LowRankConditional(
            self.mean,
            self.factor,
            self.noise_variance,
            self.posterior[index],
            self.root[index],
            self.visible[index],
            self.hidden[index],
            self.scale[index],
            self.surprise_scale[index],
        )


class LowRankPrior(OneCentre):
    """Normal with covariance ``factor factor' + diag(noise_variance)``.

    Parameters
    ----------
    mean : Tensor of shape (d,)
    factor : Tensor of shape (d, r)
    noise_variance : Tensor of shape (d,)
        Positive.
    """

    def __init__(self, mean: Tensor, factor: Tensor, noise_variance: Tensor) -> None:
        self.mean = mean.double()
        self.factor = factor.double()
        self.noise_variance = noise_variance.double()

    @classmethod
    def fit(cls, x: Tensor, known: Tensor, rank: int = 128) -> Self:
        """Fit by a truncated SVD of the centred rows; missing entries count as the mean."""
        mean = _column_means(x, known, 4096)
        centred = torch.where(known, x.double() - mean, 0.0)
        weight = known.double().mean(0).clamp(min=0.05)
        rank = max(1, min(rank, *centred.shape))
        with seeded(0):  # svd_lowrank draws its test matrix from the global generator
            _, values, vectors = torch.svd_lowrank(centred / weight.sqrt(), q=rank, niter=4)
        variance = (centred**2).mean(0) / weight
        noise = float((variance.sum() - (values**2).sum() / len(x)).clamp(min=0)) / len(variance)
        spread = (values**2 / len(x) - noise).clamp(min=0).sqrt()
        factor = vectors * spread
        return cls(mean, factor, (variance - (factor**2).sum(1)).clamp(min=0) + 100 * NUGGET)

    def condition(self, visible: Tensor, hidden: Tensor) -> LowRankConditional:
        """Condition on M masks (M, d) at once; see :class:`diffad.priors.base.Conditional`."""
        weighted = self.factor / self.noise_variance[:, None]
        eye = torch.eye(self.factor.shape[1], dtype=torch.float64)
        parts = [self._condition_one(v, h, weighted, eye) for v, h in zip(visible, hidden, strict=True)]
        posterior, root, scale, surprise_scale = (torch.stack(p).float() for p in zip(*parts, strict=True))
        return LowRankConditional(
            self.mean.float(),
            self.factor.float(),
            self.noise_variance.float(),
            posterior,
            root,
            visible,
            hidden,
            scale,
            surprise_scale,
        )

    def _condition_one(self, visible: Tensor, hidden: Tensor, weighted: Tensor, eye: Tensor) -> tuple[Tensor, ...]:
        seen, unseen = self.factor[visible], self.factor[hidden]
        posterior = torch.linalg.inv(eye + seen.T @ weighted[visible])
        half = torch.linalg.cholesky(posterior)
        values, vectors = eigh(half.T @ (unseen.T @ weighted[hidden]) @ half)
        values = values.clamp(min=1e-12)
        middle = (vectors * (((1 + values).sqrt() - 1) / values)) @ vectors.T
        root = half @ middle @ half.T
        scale, surprise = torch.ones_like(self.mean), torch.ones_like(self.mean)
        scale[hidden] = (self.noise_variance[hidden] + ((unseen @ posterior) * unseen).sum(1)).sqrt()
        noise = self.noise_variance[visible]
        surprise[visible] = (1 / noise - ((seen @ posterior) * seen).sum(1) / noise**2).sqrt()
        return posterior, root, scale, surprise
