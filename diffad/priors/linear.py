"""A Gaussian seen through linear observations: hidden pixels, averages of pixels, noise.

For ``x ~ N(m, C)`` and ``y = A x + s e`` the posterior is Gaussian with mean
``m + C A' K^-1 (y - A m)``, ``K = A C A' + s^2 I`` (Rasmussen and Williams 2006, eq. 2.23 to 2.26);
samples are the prior's, corrected by what they got wrong (Matheron's rule).  Where fewer pixels are
hidden than seen, the same is cheaper from the precision.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

#: ``A x`` on the last axis: (..., d) -> (..., k).
Observation = Callable[[Tensor], Tensor]


class Pixels:
    """Observe some entries.

    Parameters
    ----------
    seen : Tensor of shape (d,), bool
    """

    def __init__(self, seen: Tensor) -> None:
        self.seen = seen
        self.index = seen.nonzero()[:, 0]

    def __call__(self, x: Tensor) -> Tensor:
        return x[..., self.index]


class Averages:
    """Observe averages of blocks of ``factor x factor`` pixels, per channel.

    Parameters
    ----------
    shape : (height, width, channels)
        Of the fine image.
    factor : int
        A divisor of height and width.
    seen : Tensor of shape (height // factor * width // factor * channels,), bool
        Averages that are known.
    """

    def __init__(self, shape: tuple[int, int, int], factor: int, seen: Tensor) -> None:
        height, width, channels = shape
        self.shape = (height // factor, factor, width // factor, factor, channels)
        self.index = seen.nonzero()[:, 0]

    def __call__(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, self.shape).mean((-4, -2)).flatten(-3)[..., self.index]


class Posterior(Protocol):
    """p(x | A x + noise): one for all images that are observed alike, whatever the values."""

    @property
    def scale(self) -> Tensor:
        """(d,) standard deviation, 0 where an entry is known."""

    def explain(self, y: Tensor) -> Tensor:
        """Return ``C A' K^-1 y``, the posterior mean of a prior of mean 0: (n, k) -> (n, d)."""


class LinearGaussian:
    """Multivariate normal over d entries.

    Parameters
    ----------
    mean : Tensor of shape (d,)
    covariance : Tensor of shape (d, d)
        Positive definite, float64.

    Examples
    --------
    >>> prior = LinearGaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double())
    >>> given = prior.observe(Pixels(torch.tensor([True, False])))
    >>> given.explain(torch.tensor([[2.0]]).double()).round(decimals=6).tolist(), round(float(given.scale[1]) ** 2, 6)
    ([[2.0, 1.0]], 0.75)
    """

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self.mean, self.covariance = mean.double(), covariance.double()

    @cached_property
    def root(self) -> Tensor:
        """Lower Cholesky factor of the covariance."""
        return torch.linalg.cholesky(self.covariance)

    @cached_property
    def precision(self) -> Tensor:
        """Inverse of the covariance."""
        return torch.cholesky_inverse(self.root)

    def observe(self, observation: Observation, noise: Tensor | None = None) -> Posterior:
        """Condition on ``observation(x) + noise * e``, noise (k,); the posterior serves any observed values."""
        if noise is None and isinstance(observation, Pixels) and 2 * len(observation.index) > len(self.mean):
            return _FewHidden(self, observation)
        return _Observed(self, observation, noise)


class _Observed:
    """Posterior through the covariance of the observations."""

    def __init__(self, prior: LinearGaussian, observation: Observation, noise: Tensor | None) -> None:
        self.variance = prior.covariance.diagonal()
        self.cross = observation(prior.covariance).T  # A C, (k, d)
        gram = observation(self.cross)
        if noise is not None:
            gram.diagonal().add_(noise.double() ** 2)
        self.factor = torch.linalg.cholesky(gram)
        self.known = torch.zeros_like(self.variance, dtype=torch.bool)
        if noise is None and isinstance(observation, Pixels):
            self.known = observation.seen

    @cached_property
    def scale(self) -> Tensor:
        known = torch.linalg.solve_triangular(self.factor, self.cross, upper=False)
        variance = (self.variance - (known**2).sum(0)).clamp(min=0.0)
        return torch.where(self.known, 0.0, variance).sqrt()

    def explain(self, y: Tensor) -> Tensor:
        return torch.cholesky_solve(y.double().T, self.factor).T @ self.cross


class _FewHidden:
    """Posterior of hidden pixels through the precision (Rue and Held 2005, theorem 2.5)."""

    def __init__(self, prior: LinearGaussian, observation: Pixels) -> None:
        self.seen = observation.seen
        rows = prior.precision[~self.seen]
        self.cross = rows[:, self.seen]
        self.factor = torch.linalg.cholesky(rows[:, ~self.seen])

    @cached_property
    def scale(self) -> Tensor:
        result = torch.zeros(len(self.seen), dtype=torch.float64, device=self.seen.device)
        if len(self.factor):
            result[~self.seen] = torch.cholesky_inverse(self.factor).diagonal().sqrt()
        return result

    def explain(self, y: Tensor) -> Tensor:
        y = y.double()
        result = torch.zeros(len(y), len(self.seen), dtype=torch.float64, device=y.device)
        result[:, self.seen] = y
        if len(self.factor):
            result[:, ~self.seen] = -torch.cholesky_solve(self.cross @ y.T, self.factor).T
        return result
